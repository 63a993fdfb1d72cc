"""Texts of random letters with the lengths of real reviews: for timing, where what they say does not matter.

The lengths are a prior for `Yelp/yelp_review_full`, log-normal with quartiles of 73, 130 and 231 tokens: a published
summary of Yelp's reviews has quartiles of 48, 92 and 165 words, taken at 1.4 tokens of Llama 3 a word. It stands in until
the texts themselves have been counted.
"""

import math
from statistics import NormalDist

import numpy as np

NAME = "review-lengths"
TEXTS = 24_000
CLASSES = 5
MEDIAN, SIGMA, SHORTEST, LONGEST = 130, 0.85, 8, 512


def mean_length(most):
    """Mean tokens of a review of which ``most`` are kept: the expectation of the log-normal, cut to SHORTEST … ``most``."""
    whole = MEDIAN * math.exp(SIGMA**2 / 2)

    def below(limit):
        """Expectation of min(length, limit)."""
        z = math.log(limit / MEDIAN) / SIGMA
        return whole * NormalDist().cdf(z - SIGMA) + limit * NormalDist().cdf(-z)

    return below(most) + SHORTEST - below(SHORTEST)


def read():
    """Rows as ``files.read`` gives them, and what to add to the origin. Balanced over five classes.

    A letter is a token under the tokenizer of a random model (``model.byte_tokenizer``).
    """
    generator = np.random.default_rng(0)
    lengths = np.clip(np.exp(generator.normal(np.log(MEDIAN), SIGMA, TEXTS)), SHORTEST, LONGEST).astype(int)
    letters = generator.integers(ord("a"), ord("z") + 1, lengths.sum(), dtype=np.uint8).tobytes().decode()
    ends = lengths.cumsum()
    rows = [(f"#{i}", letters[end - n : end], i % CLASSES) for i, (n, end) in enumerate(zip(lengths, ends))]
    return {"any": rows}, {"lengths": f"log-normal, median {MEDIAN}, sigma {SIGMA}, cut to {SHORTEST} to {LONGEST}"}
