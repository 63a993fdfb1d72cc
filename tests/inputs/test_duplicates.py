"""Near-duplicates against a brute-force reference that compares every pair."""

import random
import re

import pytest
from lorastudy.inputs import duplicates


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Great  FOOD!!!", "great food"),
        ("great\tfood\r\n", "great food"),
        ("don't—stop", "don t stop"),
        ("Straße", "strasse"),
        ("ｆｕｌｌ ｗｉｄｔｈ", "full width"),
        ("ﬁne", "fine"),
        ("nul\x00 and \x1b escape", "nul and escape"),
        ("zero\u200bwidth", "zero width"),
        ("ok 😀", "ok 😀"),
        ("5€", "5€"),
        ("素晴らしい！", "素晴らしい"),
        ("«مرحبا»", "مرحبا"),
        ("!!!", "!!!"),
        ("...", "..."),
    ],
)
def test_normalised(text, expected):
    assert duplicates.normalised(text) == expected


def words_and_pairs(text):
    """The reference: words of text without capitals and punctuation, a Han or kana character being a word."""
    words = re.findall(r"[\u3040-\u30ff\u4e00-\u9fff]|[a-z0-9]+", text.lower())
    return set(words) | set(zip(words, words[1:]))


def jaccard(left, right):
    return len(left & right) / len(left | right)


def brute_force(texts, threshold):
    """Of every pair that is alike the earlier stays, unless it went itself."""
    sets = [words_and_pairs(text) for text in texts]
    keep = []
    for row, members in enumerate(sets):
        keep.append(not any(keep[other] and jaccard(sets[other], members) >= threshold for other in range(row)))
    return keep


def variants(number, seed, vocabulary="abcdefghijklmnopqrstuvwxyz"):
    """Texts of 1 to 40 words, most of them an earlier text with a few words changed, added or dropped."""
    generator = random.Random(seed)
    texts = []
    for _ in range(number):
        words = [generator.choice(vocabulary) * generator.randint(1, 4) for _ in range(generator.randint(1, 40))]
        if texts and generator.random() < 0.8:
            words = generator.choice(texts).split()
            for _ in range(generator.randint(0, 4)):
                place = generator.randrange(len(words))
                words[place : place + 1] = generator.choice([[], ["new"], [words[place], "more"]]) or words[:1]
        texts.append(" ".join(words))
    return texts


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_equals_brute_force(threshold, seed):
    texts = variants(300, seed)
    expected = brute_force(texts, threshold)
    assert duplicates.distinct(texts, threshold).tolist() == expected
    assert 10 < sum(expected) < 290


@pytest.mark.parametrize(("rows", "index", "pairs"), [(1, 1, 1), (7, 21, 3), (16, 40, 50_000), (1000, 1000, 5)])
def test_block_sizes_change_nothing(monkeypatch, rows, index, pairs):
    monkeypatch.setattr(duplicates, "ROWS_AT_ONCE", rows)
    monkeypatch.setattr(duplicates, "ROWS_AN_INDEX", index)
    monkeypatch.setattr(duplicates, "PAIRS_AT_ONCE", pairs)
    texts = variants(120, seed=5)
    assert duplicates.distinct(texts, 0.8).tolist() == brute_force(texts, 0.8)


def numbered(first, last):
    return " ".join(f"w{number}" for number in range(first, last))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], []),
        (["a", "a"], [True, False]),
        (["Same text.", "same TEXT!"], [True, False]),
        # 9 words: 9 + 8 members; one word more: 10 + 9, 17 of 19 shared (0.89)
        ([numbered(0, 9), numbered(0, 10)], [True, False]),
        # 5 words: 5 + 4 members; one word more: 6 + 5, 9 of 11 shared (0.82)
        ([numbered(0, 5), numbered(0, 6)], [True, False]),
        # 4 words: 4 + 3 members; one word more: 5 + 4, 7 of 9 shared (0.78)
        ([numbered(0, 4), numbered(0, 5)], [True, True]),
        # 21 words have 41 members; 17 of them 33 (33 / 41 = 0.805), 16 of them 31 (0.756)
        ([numbered(0, 21), numbered(0, 17)], [True, False]),
        ([numbered(0, 21), numbered(0, 16)], [True, True]),
        # the same words in another order share no pairs: 5 of 13
        (["one two three four five", "five four three two one"], [True, True]),
        # a removed text removes no other: the third is near the second alone (10 + 9 members against 12 + 11, 0.83)
        ([numbered(0, 8), numbered(0, 10), numbered(0, 12)], [True, True, False]),
        ([numbered(0, 9), numbered(0, 11), numbered(0, 13)], [True, False, True]),
        # no spaces: 11 characters have 21 members, one more 23 (0.91)
        (["この映画は本当に面白い", "この映画は本当に面白いね"], [True, False]),
        (["この映画は本当に面白い", "あの本は少しも面白くない"], [True, True]),
        (["!!!", "???"], [True, True]),
        (["\x00", "\x00"], [True, False]),
    ],
)
def test_hand_made_cases(texts, expected):
    assert duplicates.distinct(texts).tolist() == expected


def test_an_index_of_exactly_the_threshold_counts():
    """Four words have 7 members, three of them 5: the index is 5 / 7."""
    assert duplicates.distinct(["a b c d", "a b c"], threshold=5 / 7).tolist() == [True, False]
    assert duplicates.twins(["x", "a b c d", "y z", "a b c"], threshold=5 / 7).tolist() == [-1, -1, -1, 1]
    assert duplicates.distinct(["a b c d", "a b c"], threshold=5 / 7 + 1e-3).tolist() == [True, True]
