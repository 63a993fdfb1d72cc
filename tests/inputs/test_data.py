"""The splits that every cell sees: balanced, disjoint, the same whatever the order of the rows; tokens; the card."""

import csv
import hashlib
import json
import random
import re
from collections import Counter
from itertools import combinations, product

import numpy as np
import pyarrow.parquet as pq
import pytest
from lorastudy.inputs import base_model, data
from lorastudy.study import settings

SPLITS = ("train", "validation", "test")
ODD_TEXTS = [
    "emoji 😀 family 👩‍👩‍👧",
    "مرحبا بالعالم",
    "素晴らしい映画",
    "nul \x00 control \x1b",
    'she said "no", twice',
    "two\r\nlines",
    "\ufeffmark inside",
    "...",
    "\x00",
    "\u200b",
]


@pytest.fixture(scope="module")
def tokenizer():
    """A token of each byte, so that lengths can be counted by hand."""
    return base_model.byte_tokenizer()


@pytest.fixture(scope="module")
def tokenizer_directory(tokenizer, tmp_path_factory):
    directory = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(directory)
    return directory


def block(**keys):
    values = {
        "source": "files", "name": None, "revision": None, "train_file": "train.csv", "test_file": None,
        "text_column": "text", "label_column": "label", "labels": None, "class_names": None, "train_size": 40,
        "validation_size": 10, "test_size": 20, "max_length": 64, "template": "{text}", "seed": 0,
    }  # fmt: skip
    return settings.Data(**values | keys)


def write(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])


@pytest.fixture
def prepared(tmp_path, tokenizer_directory):
    """Function of (text, label) rows and keys of ``data``: the splits and the card."""

    def prepare(rows, test_rows=None, name="study", **keys):
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        write(directory / "train.csv", rows)
        if test_rows is not None:
            write(directory / "test.csv", test_rows)
            keys["test_file"] = "test.csv"
        study = block(**keys)
        data.fetch(data.Source.of(study), directory / "source.parquet", directory)
        data.prepare(study, directory / "source.parquet", tokenizer_directory, directory / "data")
        splits = {split: data.read_split(directory / "data" / f"{split}.parquet") for split in SPLITS}
        return splits, json.loads((directory / "data" / "card.json").read_text(encoding="utf-8"))

    return prepare


def reviews(number, classes=5, seed=0, length=12):
    """Texts of random words, no two alike; the classes in turn."""
    generator = random.Random(seed)
    word = lambda: "".join(generator.choices("abcdefghijklmnopqrstuvwxyz", k=5))  # noqa: E731
    return [(" ".join(word() for _ in range(length)), 1 + row % classes) for row in range(number)]


def members(text):
    """The reference for near-duplicates: the words of a lower-case text and their pairs."""
    words = re.findall(r"[a-z]+", text.lower())
    return set(words) | set(zip(words, words[1:]))


def alike(left, right):
    return len(members(left) & members(right)) / len(members(left) | members(right)) >= 0.8


@pytest.mark.parametrize(
    ("classes", "sizes", "expected"),
    [
        (5, (40, 10, 20), (8, 2, 4)),
        (2, (40, 10, 20), (20, 5, 10)),
        (3, (40, 10, 20), (13, 3, 6)),
        (7, (7, 0, 8), (1, 0, 1)),
        (26, (52, 26, 30), (2, 1, 1)),
    ],
)
def test_every_class_has_an_equal_share(prepared, classes, sizes, expected):
    train, validation, test = sizes
    splits, card = prepared(reviews(260, classes), train_size=train, validation_size=validation, test_size=test)
    for split, size, share in zip(SPLITS, sizes, expected):
        assert Counter(splits[split].label.tolist()) == ({k: share for k in range(classes)} if share else {})
        assert card["splits"][split]["texts"] == share * classes
        assert card["splits"][split]["rounded"] == (share * classes != size)
    texts = [text for split in SPLITS for text in splits[split].text]
    assert len(set(texts)) == len(texts)


def grouped(tmp_path, tokenizer_directory, rows, name="study", **keys):
    """Splits and card of (text, label, author) rows."""
    directory = tmp_path / name
    directory.mkdir()
    with (directory / "train.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label", "author"), *rows])
    study = block(group_column="author", **keys)
    data.fetch(data.Source.of(study), directory / "source.parquet", directory)
    data.prepare(study, directory / "source.parquet", tokenizer_directory, directory / "data")
    splits = {split: data.read_split(directory / "data" / f"{split}.parquet") for split in SPLITS}
    return splits, json.loads((directory / "data" / "card.json").read_text(encoding="utf-8"))


def test_no_group_is_divided_between_splits(tmp_path, tokenizer_directory):
    """Forty authors of 15 texts each, three of each class."""
    rows = [(text, label, f"author {row // 15}") for row, (text, label) in enumerate(reviews(600))]
    sizes = {"train_size": 200, "validation_size": 50, "test_size": 100}
    splits, card = grouped(tmp_path, tokenizer_directory, rows, **sizes)
    author = {text: name for text, _, name in rows}
    for split, found in splits.items():
        assert found.group == [author[text] for text in found.text]
        assert Counter(found.label.tolist()) == {k: sizes[f"{split}_size"] // 5 for k in range(5)}
        assert card["splits"][split]["groups"] == len(set(found.group))
    names = [set(splits[split].group) for split in SPLITS]
    assert not any(one & other for one, other in combinations(names, 2))
    assert len(names[2]) == 7  # whole groups: 20 of each class, 3 of each of an author
    more, _ = grouped(tmp_path, tokenizer_directory, rows[::-1], "more", **sizes | {"train_size": 300})
    assert set(more["test"].text) == set(splits["test"].text)


def test_groups_that_are_too_large_are_named(tmp_path, tokenizer_directory):
    rows = [(text, label, f"author {row // 200}") for row, (text, label) in enumerate(reviews(400))]
    with pytest.raises(data.DataError, match="or are of groups in another split"):
        grouped(tmp_path, tokenizer_directory, rows)


def test_without_groups_a_split_has_no_such_column(prepared, tmp_path):
    splits, _ = prepared(reviews(100))
    assert splits["test"].group is None
    assert pq.read_schema(tmp_path / "study" / "data" / "test.parquet").names == ["id", "text", "label", "input_ids"]
    assert pq.read_schema(tmp_path / "study" / "source.parquet").names == ["id", "text", "label", "split"]


def test_labels_and_texts_stay_together(prepared):
    rows = reviews(100)
    splits, card = prepared(rows, labels=(5, 4, 3, 2, 1))
    assert card["labels"] == [5, 4, 3, 2, 1]
    for texts in splits.values():
        for name, text, label in zip(texts.id, texts.text, texts.label):
            assert rows[int(name.removeprefix("row-"))] == (text, 5 - label)


def test_the_same_again_gives_the_same_bytes(prepared, tmp_path):
    for name in ("first", "second"):
        prepared(reviews(100), name=name)
    for file in ("train.parquet", "validation.parquet", "test.parquet", "removed.csv", "card.json"):
        assert (tmp_path / "first" / "data" / file).read_bytes() == (tmp_path / "second" / "data" / file).read_bytes()


def test_the_order_of_the_rows_does_not_matter(prepared):
    """Copies and near-copies among them: which one is kept must not depend on where it stands either."""
    rows = reviews(120)
    rows += [(text.title() + "!", label) for text, label in rows[:30]] + [
        (text + " more", label) for text, label in rows[20:50]
    ]
    shuffled = random.Random(1).sample(rows, len(rows))
    first, card = prepared(rows)
    second, other = prepared(shuffled, name="shuffled")
    for split in SPLITS:
        assert first[split].text == second[split].text
        assert first[split].label.tolist() == second[split].label.tolist()
    assert card["splits"] == other["splits"]
    assert card["removed"] == other["removed"]


def test_texts_stand_in_the_order_of_their_hash(prepared):
    """Not class by class, as they are drawn. These texts are normalised as they are."""
    splits, _ = prepared(reviews(100), seed=3)
    for split in SPLITS:
        digests = [hashlib.blake2b(text.encode(), digest_size=8, key=b"3").digest() for text in splits[split].text]
        assert digests == sorted(digests)


def test_the_seed_draws_other_texts(prepared):
    first, card = prepared(reviews(100))
    second, other = prepared(reviews(100), name="other", seed=1)
    assert first["test"].text != second["test"].text
    assert set(first["test"].text) != set(second["test"].text)
    assert card["fingerprint"] != other["fingerprint"]


@pytest.mark.parametrize("seed", range(4))
def test_more_training_texts_leave_the_test_texts_alone(prepared, seed):
    """Also where a rare class has near-copies in a frequent one, of which a larger sample sees more."""
    frequent = [(text, 1) for text, _ in reviews(400, seed=seed)]
    rows = frequent + [(text + " really", 2) for text, _ in frequent[::4]]
    keys = {"test_size": 60, "validation_size": 4, "seed": seed}
    few, card = prepared(rows, train_size=4, **keys)
    assert card["removed"]["near_duplicates"]
    for train_size in (20, 60):
        more, _ = prepared(rows, name=f"more{train_size}", train_size=train_size, **keys)
        assert more["test"].id == few["test"].id
        assert more["validation"].id == few["validation"].id
        assert set(few["train"].id) <= set(more["train"].id)


@pytest.mark.parametrize("with_test_file", [False, True])
def test_no_text_has_a_twin_in_another_split(prepared, with_test_file):
    rows = reviews(150)
    rows += [(f"{text} {ending}", label) for (text, label), ending in product(rows[:40], ("indeed", "truly", "so"))]
    rows += [(text.upper().replace(" ", ", "), label) for text, label in rows[:60]]
    random.Random(3).shuffle(rows)
    keys = {"train_size": 50, "validation_size": 10, "test_size": 40}
    splits, _ = prepared(rows[::2], rows[1::2], **keys) if with_test_file else prepared(rows, **keys)
    texts = [(split, text) for split in SPLITS for text in splits[split].text]
    assert [(left, right) for left, right in combinations(texts, 2) if alike(left[1], right[1])] == []
    assert sum(alike(left, right) for (left, _), (right, _) in combinations(rows[:60], 2)) > 5


def test_a_training_text_gives_way_to_its_twin_in_the_test_file(prepared):
    test = reviews(20, seed=1)
    train = [(text + " indeed", label) for text, label in test] + reviews(60)
    splits, card = prepared(train, test, train_size=50, validation_size=5, test_size=20)
    assert {name.split("-")[0] for name in splits["test"].id} == {"test"}
    assert {name.split("-")[0] for split in ("train", "validation") for name in splits[split].id} == {"train"}
    assert sorted(splits["test"].text) == sorted(text for text, _ in test)
    assert not any("indeed" in text for text in splits["train"].text)
    assert card["removed"]["near_duplicates"] == 20


def left_out(tmp_path, name="study"):
    with (tmp_path / name / "data" / "removed.csv").open(encoding="utf-8", newline="") as file:
        return [tuple(row.values()) for row in csv.DictReader(file)]


def test_what_was_left_out_is_named_with_what_is_used_in_its_place(prepared, tmp_path):
    base, rows = reviews(40, classes=2), []
    (first, _), (second, _), (third, _) = base[0], base[1], base[2]
    rows = [*base, (first.upper(), 1), (second, 1), (third + " indeed", 1)]  # a copy, a contradiction, a near-copy
    splits, card = prepared(rows, train_size=20, validation_size=0, test_size=14)
    assert card["removed"]["near_duplicates"] == 1
    found = left_out(tmp_path)
    used = {name for split in SPLITS for name in splits[split].id}
    assert {(row, reason) for row, reason, _ in found if reason == "contradictory copy"} == {
        ("row-000001", "contradictory copy"), ("row-000041", "contradictory copy"),
    }  # fmt: skip
    ((copy, _, kept),) = [row for row in found if row[1] == "repeated copy"]
    assert {copy, kept} == {"row-000000", "row-000040"}
    ((near, _, twin),) = [row for row in found if row[1] == "near-duplicate"]
    assert {near, twin} == {"row-000002", "row-000042"}
    assert not {copy, near} & used
    assert all(not kept for _, reason, kept in found if reason == "contradictory copy")


def test_near_duplicates_can_be_kept(prepared, tmp_path):
    rows = [
        (f"{text} {ending}", label) for text, label in reviews(10, classes=2) for ending in ("indeed", "truly", "so")
    ]
    with pytest.raises(
        data.DataError, match=r"resemble.*lower the sizes or add texts \(`data.near_duplicates: keep` uses"
    ):
        prepared(rows, train_size=20, validation_size=0, test_size=10)
    splits, card = prepared(rows, train_size=20, validation_size=0, test_size=10, near_duplicates="keep")
    assert len(splits["train"]) + len(splits["test"]) == 30
    assert (card["removed"]["near_duplicates"], card["removed"]["near_duplicate_threshold"]) == (0, None)
    assert left_out(tmp_path) == []


@pytest.mark.parametrize(
    ("names", "labels", "configured", "expected"),
    [
        (["neg", "pos"], [0, 1], None, ["neg", "pos"]),
        (["neg", "pos"], [0, 1], ("bad", "good"), ["bad", "good"]),
        (["zero", "one", "two"], [2, 1], None, ["one", "two"]),
        (None, [1, 2], None, ["1", "2"]),
        (["only"], [0, 1], None, ["0", "1"]),
    ],
)
def test_names_of_the_classes(tmp_path, tokenizer_directory, names, labels, configured, expected):
    """Those of the configuration, else those that came with the data, else the labels."""
    rows = [(text, labels[number % 2]) for number, (text, _) in enumerate(reviews(20))]
    write(tmp_path / "train.csv", rows)
    study = block(class_names=configured, train_size=8, validation_size=0, test_size=4)
    data.fetch(data.Source.of(study), tmp_path / "source.parquet", tmp_path)
    content = pq.read_table(tmp_path / "source.parquet")
    origin = json.loads(content.schema.metadata[b"origin"]) | ({"label_names": names} if names else {})
    pq.write_table(content.replace_schema_metadata({"origin": json.dumps(origin)}), tmp_path / "source.parquet")
    data.prepare(study, tmp_path / "source.parquet", tokenizer_directory, tmp_path / "data")
    card = json.loads((tmp_path / "data" / "card.json").read_text(encoding="utf-8"))
    assert card["class_names"] == expected
    assert "label_names" not in card


def test_card_against_hand_counts(prepared, tmp_path):
    """A token is a byte: "One!" 4, "three" 5, "two two" 7, "cześć 😀" 12, of which whole characters fill 8."""
    splits, card = prepared(
        [("two two", 1), ("cześć 😀", 2), ("one", 1), ("Same.", 2)],
        [("One!", 1), ("three", 2), ("same", 1)],
        train_size=2, validation_size=0, test_size=3, max_length=8, class_names=("bad", "good"), seed=7,
    )  # fmt: skip
    assert card["rows"] == {"test": 3, "train": 4}
    assert card["removed"] == {
        "contradictory_copies": 2, "repeated_copies": 1, "near_duplicates": 0, "near_duplicates_among": 4,
        "near_duplicate_threshold": 0.8,
    }  # fmt: skip
    assert card["splits"]["test"] == {
        "texts": 2, "asked_for": 3, "rounded": True, "texts_by_label": {"1": 1, "2": 1}, "tokens": 9,
        "length_tokens": {"mean": 4.5, "min": 4, "p5": 4.05, "p25": 4.25, "p50": 4.5, "p75": 4.75, "p95": 4.95, "max": 5},
        "truncated": 0, "longest_characters": 5,
    }  # fmt: skip
    train = card["splits"]["train"]
    assert (train["tokens"], train["truncated"], train["longest_characters"]) == (15, 1, 7)
    assert train["length_tokens"]["mean"] == 7.5
    assert card["splits"]["validation"] == {
        "texts": 0, "asked_for": 0, "rounded": False, "texts_by_label": {"1": 0, "2": 0}, "tokens": 0,
        "length_tokens": None, "truncated": 0, "longest_characters": 0,
    }  # fmt: skip
    assert (card["labels"], card["class_names"]) == ([1, 2], ["bad", "good"])
    assert (card["seed"], card["max_length"], card["template"]) == (7, 8, "{text}")
    assert (card["source"], card["name"], card["revision"]) == ("files", None, None)
    for name in ("train.csv", "test.csv"):
        assert card["files"][name] == hashlib.sha256((tmp_path / "study" / name).read_bytes()).hexdigest()
    rows = [row for split in SPLITS for row in zip(splits[split].id, splits[split].text, splits[split].label.tolist())]
    assert card["fingerprint"] == hashlib.sha256("".join(json.dumps(row) for row in rows).encode()).hexdigest()
    assert sorted(rows) == [("test-000000", "One!", 0), ("test-000001", "three", 1), ("train-000000", "two two", 0),
                            ("train-000001", "cześć 😀", 1)]  # fmt: skip


def test_odd_texts_come_through_whole(prepared, tokenizer):
    rows = [(text, number % 2) for number, text in enumerate(ODD_TEXTS)]
    splits, _ = prepared(rows, train_size=6, validation_size=2, test_size=2)
    texts = {text: ids for split in SPLITS for text, ids in zip(splits[split].text, splits[split].input_ids)}
    assert sorted(texts) == sorted(ODD_TEXTS)
    assert all(tokenizer.decode(ids) == text for text, ids in texts.items())


def test_what_looks_like_a_special_token_is_text_unless_the_template_has_some(tokenizer):
    (ids,), _ = data.encode(tokenizer, "{text}", ["a</s><pad>"], 20)
    assert ids == list(model_bytes("a</s><pad>"))
    (ids,), _ = data.encode(tokenizer, "{text}", ["a</s>" + "b" * 20], 4)  # cut
    assert ids == list(model_bytes("a</s"))
    (ids,), _ = data.encode(tokenizer, "<s>{text}</s>", ["ab"], 20)
    assert ids == [tokenizer.bos_token_id, *model_bytes("ab"), tokenizer.eos_token_id]


def test_a_very_long_review_is_kept_whole_and_cut_as_tokens(prepared):
    long = " ".join(f"word{number}" for number in range(20_000))[:100_000]
    rows = [(long, 1), ("short and good", 2), ("a brief one", 1), ("rather terse", 2)]
    splits, card = prepared(rows, train_size=2, validation_size=0, test_size=2, max_length=50)
    where = "train" if long in splits["train"].text else "test"
    assert splits[where].input_ids[splits[where].text.index(long)].tolist() == list(model_bytes(long[:50]))
    assert card["splits"][where]["truncated"] == 1
    assert card["splits"][where]["longest_characters"] == 100_000
    assert sum(card["splits"][split]["truncated"] for split in SPLITS) == 1


def model_bytes(text):
    """Tokens of the byte tokenizer by its definition: the position of each byte's symbol in the sorted alphabet."""
    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = sorted(ByteLevel.alphabet())
    return (alphabet.index(symbol) for symbol in text.replace(" ", "Ġ"))


def test_columns_and_types_of_a_split(prepared, tmp_path):
    splits, _ = prepared(reviews(100), validation_size=0)
    for split in SPLITS:
        schema = pq.read_schema(tmp_path / "study" / "data" / f"{split}.parquet")
        assert [(field.name, str(field.type)) for field in schema] == [
            ("id", "string"), ("text", "string"), ("label", "int64"), ("input_ids", "list<element: int32>"),
        ]  # fmt: skip
    assert len(splits["validation"]) == 0
    assert len(splits["train"]) == 40
    assert splits["train"].label.dtype == np.int64
    assert {ids.dtype for ids in splits["train"].input_ids} == {np.dtype(np.int32)}


# --- faults

FAULTS = {
    "class short": (reviews(100), {"train_size": 400}, r"`data.train_file` 'train.csv': class 1 has 20 usable texts and needs 86 \(`data.train_size` 400, `data.validation_size` 10, `data.test_size` 20, over 5 classes\); lower the sizes or add texts. So it is with 4 more."),
    "one class short": (reviews(100)[:-4], {"train_size": 70}, r"class 2 has 19 usable texts and needs 20 .*add texts\.( So it is with 3 more.)$"),
    "copies": ([("same", 1)] * 30 + [("Same!", 1)] * 5 + [("other", 2)], {"train_size": 2, "test_size": 2}, r"class 1 has 1 usable texts \(34 more repeat, resemble or contradict other texts\)"),
    "all contradict": ([("same", 1), ("Same!", 2)], {}, r"class 1 has 0 usable texts \(1 more repeat, resemble or contradict"),
    "fewer than classes": (reviews(100), {"test_size": 4}, r"`data.test_size` is 4; 5 classes need at least 5 texts"),
    "validation of fewer": (reviews(100), {"validation_size": 3}, r"`data.validation_size` is 3; 5 classes need"),
    "names": (reviews(100), {"class_names": ("bad", "good")}, r"`data.class_names` has 2 entries and the texts have 5 classes \(1, 2, 3, 4, 5\)"),
    "no room": (reviews(100), {"max_length": 8, "template": "Review: {text}"}, r"template 'Review: {text}' leaves no room for a text in `data.max_length`, 8 tokens"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(prepared, tmp_path, fault):
    rows, keys, message = FAULTS[fault]
    with pytest.raises(data.DataError, match=message) as caught:
        prepared(rows, **keys)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 600
    assert not (tmp_path / "study" / "data").exists()


def test_a_shortage_in_the_test_file_names_it(prepared):
    with pytest.raises(
        data.DataError, match=r"`data.test_file` 'test.csv': class 1 has 2 usable .*needs 4 \(`data.test_size` 20"
    ):
        prepared(reviews(100), reviews(10, seed=1))


# --- tokens


@pytest.fixture(scope="module")
def framed():
    """The byte tokenizer between a token of beginning and one of end."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = base_model.byte_tokenizer()
    marks = [(mark, tokenizer.convert_tokens_to_ids(mark)) for mark in ("<s>", "</s>")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=marks)
    return tokenizer


TEMPLATES = ["{text}", "Review: {text}\nStars:", "{text} 😀", '{"text": "{text}"}'[10:], "{} {0} {text} {name}"]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("max_length", [26, 27, 28, 29, 64])
def test_cut_by_whole_characters_and_never_in_the_template(framed, template, max_length):
    texts = [*ODD_TEXTS, "a" * 100, "é" * 100, "😀" * 100, "한" * 100, "x"]
    tokens, cut = data.encode(framed, template, texts, max_length)
    whole = [framed(template.replace("{text}", text))["input_ids"] for text in texts]
    assert cut == sum(len(ids) > max_length for ids in whole)
    for text, ids in zip(texts, tokens):
        fitting = (framed(template.replace("{text}", text[:end]))["input_ids"] for end in range(len(text), 0, -1))
        assert ids == next(candidate for candidate in fitting if len(candidate) <= max_length)


def test_cut_with_tokens_of_several_characters():
    """A token may reach over the end of the text into the template; what is cut then is tokenized anew."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    texts = [text for text, _ in reviews(60, seed=4)]
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    core.train_from_iterator([f"Text: {text} Stars:" for text in texts], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core)
    template = "Text: {text} Stars:"
    for max_length in (5, 9, 20):
        tokens, cut = data.encode(tokenizer, template, texts, max_length)
        assert cut == len(texts)
        for text, ids in zip(texts, tokens):
            read = tokenizer.decode(ids)
            kept = read.removeprefix("Text: ").removesuffix(" Stars:")
            assert kept
            assert read == template.replace("{text}", kept)
            assert text.startswith(kept)
            assert len(ids) <= max_length
            # not more than a token or two is lost to the cut falling between tokens
            assert len(ids) >= max_length - 2


def test_texts_in_many_batches(tokenizer, monkeypatch):
    texts = [text for text, _ in reviews(25)]
    expected = data.encode(tokenizer, "{text}", texts, 20)
    monkeypatch.setattr(data, "TEXTS_AT_ONCE", 4)
    assert data.encode(tokenizer, "{text}", texts, 20) == expected
    assert expected[1] == 25


def test_a_tokenizer_that_cannot_say_where_its_tokens_stand():
    class Slow:
        is_fast = False

    with pytest.raises(data.DataError, match=r"has no tokenizer.json"):
        data.encode(Slow(), "{text}", ["a"], 8)


def test_a_text_without_a_token():
    """Byte-pair encoding without a token for the unknown leaves such characters out."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocab={"g": 0}, merges=[])))
    with pytest.raises(data.DataError, match=r"1 texts give no token in the template '{text}'; remove"):
        data.encode(tokenizer, "{text}", ["gg", "xyz"], 8)
