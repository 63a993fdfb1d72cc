"""Texts that are the same but for letter case, spacing and punctuation, and texts that are nearly the same."""

import re
import sys
import unicodedata
from functools import cache

import numpy as np

# Share of words and word pairs that two texts may have in common: from about one word in ten replaced on, texts
# count as different.
THRESHOLD = 0.8
ROWS_AT_ONCE = 256
ROWS_AN_INDEX = 16384
PAIRS_AT_ONCE = 50_000
FEATURES = 1 << 22


@cache
def _separators():
    """Translation of punctuation, white space, control and format characters. Symbols stay: an emoji is content."""
    categories = ((code, unicodedata.category(chr(code))) for code in range(sys.maxunicode + 1))
    return {code: " " for code, category in categories if category[0] in "PZ" or category in ("Cc", "Cf")}


# Scripts that put no spaces between words: each character counts as a word (Han, kana, Thai, Lao, Khmer, Burmese).
_UNSPACED = (
    r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
)
_WORDS = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")


def normalised(text):
    """The text in compatibility form (NFKC), case-folded, with single spaces for punctuation and white space.

    A text of nothing but punctuation keeps it.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.translate(_separators()).split()) or folded.strip()


def distinct(texts, threshold=THRESHOLD):
    """Which texts to keep so that no two of them are nearly identical: bool array, shape (n,); see ``twins``."""
    return twins(texts, threshold) < 0


def twins(texts, threshold=THRESHOLD):
    """Which text each is nearly identical to, of those that are kept; of two such texts the earlier is.

    Nearly identical: the sets of words and word pairs of the normalised texts have a Jaccard index of at least
    ``threshold``. Pairs are found exactly, by prefix filtering (Bayardo, Ma and Srikant 2007): two such sets must
    share one of the rarest ``(1 - threshold) * size + 1`` members of each, so that only texts that share a rare word
    are ever compared. (Exact but for collisions of 2**22 hashed features, which are of no consequence.)

    Args:
        texts: list of n strings.

    Returns:
        int array, shape (n,): index of the first such text; -1 for those that are kept.
    """
    if not texts:
        return np.zeros(0, dtype=int)
    sets = _sets(texts)
    sizes = np.diff(sets.indptr)
    rare = _rarest(sets, sizes - np.ceil(threshold * sizes - 1e-9).astype(int) + 1)
    twin = np.full(len(texts), -1)
    for begin in range(0, len(texts), ROWS_AN_INDEX):
        # what is kept so far is looked up in an index that is renewed now and then, and what came since without one
        indexed = np.flatnonzero(twin[:begin] < 0)
        index = rare[indexed].T.tocsr()
        for start in range(begin, min(begin + ROWS_AN_INDEX, len(texts)), ROWS_AT_ONCE):
            rows = np.arange(start, min(start + ROWS_AT_ONCE, begin + ROWS_AN_INDEX, len(texts)))
            recent = np.concatenate([begin + np.flatnonzero(twin[begin:start] < 0), rows])
            near = {}
            for others, pairs in ((indexed, rare[rows] @ index), (recent, rare[rows] @ rare[recent].T)):
                shared = pairs.tocoo()
                left, right = rows[shared.row], others[shared.col]
                earlier = right < left
                _add_near(near, sets, sizes, left[earlier], right[earlier], threshold)
            for row in rows:
                twin[row] = min((other for other in near.get(row, ()) if twin[other] < 0), default=-1)
    return twin


def _sets(texts):
    """Which words and word pairs each text has: sparse, shape (n, features), entries 1, rare features last.

    Features of a single text stay: they count in its size.
    """
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(
        n_features=FEATURES,
        preprocessor=normalised,
        tokenizer=_WORDS.findall,
        token_pattern=None,
        ngram_range=(1, 2),
        binary=True,
        norm=None,
        alternate_sign=False,
        dtype=np.float32,
    )
    sets = vectorizer.transform(texts)
    used, compact = np.unique(sets.indices, return_inverse=True)
    frequency = np.bincount(compact, minlength=len(used))
    # number the features from the most to the least frequent, ties by their hash: sorting a row sorts by rarity
    rank = np.empty(len(used), dtype=np.int32)
    rank[np.argsort(-frequency, kind="stable")] = np.arange(len(used), dtype=np.int32)
    sets = csr_matrix((sets.data, rank[compact], sets.indptr), shape=(len(texts), len(used)))
    sets.sort_indices()
    return sets


def _rarest(sets, number):
    """The last ``number`` entries of each row, the others removed."""
    from scipy.sparse import csr_matrix

    ends = sets.indptr[1:]
    position = np.repeat(ends, np.diff(sets.indptr)) - np.arange(sets.nnz)  # 1 for a row's last entry
    chosen = position <= np.repeat(number, np.diff(sets.indptr))
    counts = np.concatenate([[0], np.cumsum(chosen)])
    return csr_matrix((sets.data[chosen], sets.indices[chosen], counts[sets.indptr]), shape=sets.shape)


def _add_near(near, sets, sizes, left, right, threshold):
    """Add to ``near``: row → earlier rows nearly identical to it, among the candidate pairs ``left``, ``right``."""
    # sets that differ in size by more than the threshold cannot be alike
    small, large = np.minimum(sizes[left], sizes[right]), np.maximum(sizes[left], sizes[right])
    plausible = small >= threshold * large - 1e-9
    left, right = left[plausible], right[plausible]
    for start in range(0, len(left), PAIRS_AT_ONCE):
        a, b = left[start : start + PAIRS_AT_ONCE], right[start : start + PAIRS_AT_ONCE]
        common = np.asarray(sets[a].multiply(sets[b]).sum(axis=1)).ravel()
        alike = common >= threshold * (sizes[a] + sizes[b] - common) - 1e-6
        for row, other in zip(a[alike], b[alike]):
            near.setdefault(row, []).append(other)
