"""Texts of random letters with the lengths of real reviews: for timing, where what they say does not matter."""

NAME = "review-lengths"
TEXTS = 24_000
CLASSES = 5
# Log-normal fit to Yelp reviews in tokens, cut to what a study would keep.
MEDIAN, SIGMA, SHORTEST, LONGEST = 130, 0.85, 8, 512


def read():
    """Rows as ``files.read`` gives them, and what to add to the origin. Balanced over five classes.

    A letter is a token under the tokenizer of a random model (``model.byte_tokenizer``).
    """
    import numpy as np

    generator = np.random.default_rng(0)
    lengths = np.clip(np.exp(generator.normal(np.log(MEDIAN), SIGMA, TEXTS)), SHORTEST, LONGEST).astype(int)
    letters = generator.integers(ord("a"), ord("z") + 1, lengths.sum(), dtype=np.uint8).tobytes().decode()
    ends = lengths.cumsum()
    rows = [(f"#{i}", letters[end - n : end], i % CLASSES) for i, (n, end) in enumerate(zip(lengths, ends))]
    return {"any": rows}, {"lengths": f"log-normal, median {MEDIAN}, sigma {SIGMA}, cut to {SHORTEST} to {LONGEST}"}
