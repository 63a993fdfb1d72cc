"""From labelled texts to the three splits that every cell sees, as tokens, and the card that describes them."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lorastudy.inputs import duplicates, sources
from lorastudy.inputs.sources import Source, check, fetch
from lorastudy.inputs.sources.labels import DataError, canonical, classes
from lorastudy.study import records

__all__ = ["DataError", "Source", "Texts", "check", "encode", "fetch", "prepare", "read_split"]

# In the order in which they take their texts: a larger training set leaves the test texts as they are.
SPLITS = ("test", "validation", "train")
SPARE = 0.1  # candidates above what is asked for, as a fraction, to replace near-duplicates (and ten more)
LEFT_OUT = ("id", "reason", "kept")
TEXTS_AT_ONCE = 1000
PERCENTILES = (5, 25, 50, 75, 95)


@dataclass(frozen=True)
class Texts:
    """A split of n texts.

    Attributes:
        id: of each text, stable: split of the source and row.
        text: in full.
        label: class, int64, shape (n,).
        input_ids: tokens of each, int32 arrays.
        group: which texts belong together, by name; None where nothing says so.
    """

    id: list
    text: list
    label: "np.ndarray"
    input_ids: list
    group: list | None = None

    def __len__(self):
        return len(self.id)


def read_split(path):
    """The ``Texts`` of a split that ``prepare`` wrote."""
    content = pq.read_table(path)
    return Texts(
        id=content["id"].to_pylist(),
        text=content["text"].to_pylist(),
        label=content["label"].to_numpy(),
        input_ids=[row.values.to_numpy() for row in content["input_ids"]],
        group=content["group"].to_pylist() if "group" in content.column_names else None,
    )


def prepare(data, source_file, tokenizer_directory, output_directory, embedding_rows=None):
    """Write ``train.parquet``, ``validation.parquet``, ``test.parquet``, ``removed.csv`` and, last, ``card.json``.

    Columns of a split: ``id`` (string), ``text`` (string, in full), ``label`` (int64, class), ``input_ids`` (list of
    int32), and ``group`` (string) with ``data.group_column``. A split of size 0 has the columns and no rows. ``removed.csv`` names the texts that were left out and why:
    ``id``, ``reason``, and ``kept``, the id of the text that is used in its place. Equal input gives equal bytes.

    - Order and choice follow a hash of the seed and the text, so that a row's fate depends on its text and not on
      where it stands in the source. More training texts leave the test and validation texts as they are.
    - Texts that are equal but for case, spacing and punctuation (``duplicates.normalised``) are one text: a single
      copy is used, and none at all if the copies disagree about the label, since which of them is right is unknown.
    - Of nearly identical texts (``duplicates.twins``) one is used, so none has a twin in another split. One in the
      source's test split goes before one in its training split. ``data.near_duplicates: keep`` uses them all.
    - With ``data.group_column``, texts take part group by group in the order of a hash of the group, and a split takes
      none of a group that one before it has. So no group is in two splits.
    - Every class has the same number of texts in a split: its size divided by the classes, rounded down.

    Args:
        data: ``settings.Data``.
        source_file: what ``fetch`` wrote.
        tokenizer_directory: directory of the model's tokenizer.
        embedding_rows: tokens that the model knows; None if any will do.

    Raises:
        DataError: a class has fewer usable texts than the sizes need, or a size has fewer texts than there are
            classes; ``data.class_names`` does not fit the classes; the template alone fills ``data.max_length``; a
            text gives no token, or one that the model does not know. Nothing is written then.
    """
    from transformers import AutoTokenizer

    table, origin = sources.load(source_file)
    names = origin.pop("label_names", None)
    labels = classes(table, Source.of(data))
    _require_texts_and_names(labels, data)
    index = {text: labels.index(canonical(text)) for text in table["label"].unique()}
    table["class"] = table["label"].map(index).astype("int64")
    chosen, removed, left_out = _choose(table, data, labels)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_directory)
    encoded = {split: encode(tokenizer, data.template, chosen[split]["text"], data.max_length) for split in SPLITS}
    for split, (tokens, _) in encoded.items():
        if embedding_rows is not None:
            require_known(tokenizer, tokens, embedding_rows, f"the {split} texts have")
    card = origin | {
        "fingerprint": _fingerprint(chosen),
        "labels": labels,
        "class_names": list(data.class_names or _named(labels, names)),
        "rows": {str(split): int(rows) for split, rows in table["split"].value_counts().sort_index().items()},
        "removed": removed,
        **{key: getattr(data, key) for key in ("seed", "template", "max_length")},
        "tokenizer_fingerprint": hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
        "splits": {split: _description(chosen[split], *encoded[split], split, data, labels) for split in SPLITS[::-1]},
    }
    output_directory = Path(output_directory)
    output_directory.mkdir(parents=True, exist_ok=True)
    for split, (tokens, _) in encoded.items():
        _write_split(output_directory / f"{split}.parquet", chosen[split], tokens)
    with records.replacing(output_directory / "removed.csv") as temporary:
        left_out.to_csv(temporary, index=False)
    records.write_json(output_directory / "card.json", card)


def _require_texts_and_names(labels, data):
    """Raise DataError unless every class has its name, and a text in every split that has any."""
    if data.class_names and len(data.class_names) != len(labels):
        raise DataError(
            f"config: `data.class_names` has {len(data.class_names)} entries and the texts have {len(labels)} classes "
            f"({', '.join(map(str, labels[:12]))}); name every class once."
        )
    for split in SPLITS:
        if 0 < getattr(data, f"{split}_size") < len(labels):
            raise DataError(
                f"config: `data.{split}_size` is {getattr(data, f'{split}_size')}; {len(labels)} classes need at least "
                f"{len(labels)} texts."
            )


def _fingerprint(chosen):
    """Hash of the texts of all splits: their ids, texts and classes, in order."""
    digest = hashlib.sha256()
    for split in reversed(SPLITS):
        part = chosen[split]
        for row in zip(part["id"], part["text"], map(int, part["class"])):
            digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def _named(labels, names):
    """What the source calls the classes (ClassLabel of the library ``datasets``), else the labels themselves."""
    of_source = dict(enumerate(names or ()))
    return [of_source[label] for label in labels] if set(labels) <= set(of_source) else list(map(str, labels))


def _choose(table, data, labels):
    """Split → its rows in order; how many rows were left out for which reason; and which (DataFrame).

    Texts take part class by class in the order of their keys: first the first of every class, then the second of
    every class, and so on until each split has enough. What is decided about a text depends on those before it alone,
    so that asking for more training texts changes no decision about the test texts, which come first. Texts in groups
    are in the order of their groups, and each split chooses among the groups that those before it have left.
    """
    need = {split: getattr(data, f"{split}_size") // len(labels) for split in SPLITS}
    unsplit = (table["split"] == "any").all()
    pools = {"any": SPLITS} if unsplit else {"test": ("test",), "train": ("validation", "train")}
    grouped = "group" in table
    turns = [(pool, (split,)) for pool in pools for split in pools[pool]] if grouped else list(pools.items())

    key = str(data.seed).encode()
    table["key"] = [_key(key, duplicates.normalised(text)) for text in table["text"]]
    # Equal keys are equal texts; the copy that is kept does not depend on the order of the rows. "test" sorts first.
    table = table.sort_values(["split", "key", "text", "id"], ignore_index=True)
    by_text = table.groupby("key")["class"]
    contradictory = by_text.transform("min") != by_text.transform("max")
    repeated = table.duplicated("key") & ~contradictory
    usable = _in_turn(table[~contradictory & ~repeated], key)

    threshold = duplicates.THRESHOLD if data.near_duplicates == "remove" else None
    chosen, taken, among = {}, table[:0], 0
    left_out = [_left_out(table, contradictory, "contradictory copy"), _left_out(table, repeated, "repeated copy")]
    for pool, splits in turns:
        rows, wanted = usable[usable["split"] == pool], sum(need[split] for split in splits)
        rows = _in_turn(rows[~rows["group"].isin(taken["group"])], key) if grouped else rows
        candidates, twins = _without_twins(rows, wanted, len(labels), taken, threshold)
        distinct = candidates[twins.isna()]
        near = candidates.assign(kept=twins)[twins.notna()]
        left_out.append(near.assign(reason="near-duplicate")[list(LEFT_OUT)])
        among += len(candidates)
        available = distinct.groupby("class").size().reindex(range(len(labels)), fill_value=0)
        if available.min() < wanted:
            raise DataError(_shortage(available, wanted, table[table["split"] == pool], splits, pool, labels, data))
        position = distinct.groupby("class").cumcount()
        begin = 0
        for split in splits:
            part = distinct[(position >= begin) & (position < begin + need[split])]
            chosen[split] = part.sort_values("key")
            taken = pd.concat([taken, part])
            begin += need[split]
    left_out = pd.concat(left_out).drop_duplicates("id").sort_values(list(LEFT_OUT), ignore_index=True)
    removed = {
        "contradictory_copies": int(contradictory.sum()),
        "repeated_copies": int(repeated.sum()),
        "near_duplicates": int(left_out["reason"].eq("near-duplicate").sum()),
        "near_duplicates_among": among if threshold else 0,
        "near_duplicate_threshold": threshold,
    }
    return chosen, removed, left_out


def _in_turn(rows, seed):
    """The rows with their ``position`` in their class, in the order in which they take part: that of texts, or of groups."""
    if "group" in rows:
        rows = rows.assign(order=[_key(seed, name) for name in rows["group"]])
        rows = rows.sort_values(["split", "order", "key"], ignore_index=True)
    rows = rows.assign(position=rows.groupby(["split", "class"]).cumcount())
    return rows.sort_values(["split", "position", "key"], ignore_index=True)


def _left_out(table, rows, reason):
    """The ``rows`` (bool, one per row of the table) with the id of the first of their equals, if that is used."""
    kept = table.groupby("key")["id"].transform("first") if reason == "repeated copy" else ""
    return table.assign(reason=reason, kept=kept).loc[rows, list(LEFT_OUT)]


def _without_twins(pool, wanted, classes, taken, threshold):
    """The rows of a pool that were looked at, and of each the id of its near-duplicate before it or in ``taken`` (NA: none).

    No more are looked at than it takes to find ``wanted`` of each class, since most of a large source is not needed.

    Args:
        threshold: of ``duplicates.twins``; None keeps near-duplicates.
    """
    spare = SPARE
    while True:
        candidates = pool[pool["position"] < wanted * (1 + spare) + 10]
        every = pd.concat([taken, candidates])
        found = duplicates.twins(every["text"].tolist(), threshold) if threshold else [-1] * len(every)
        ids = every["id"].to_numpy()
        twins = pd.Series([ids[twin] if twin >= 0 else None for twin in found[len(taken) :]], candidates.index, "str")
        distinct = candidates[twins.isna()]
        enough = (distinct.groupby("class").size() >= wanted).sum() == classes
        if enough or len(candidates) == len(pool):
            return candidates, twins
        spare = 2 * spare + 1


def _key(seed, text):
    """63 bits that stand for a text under a seed, evenly spread."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, key=seed).digest()) >> 1


def _shortage(available, wanted, table, splits, pool, labels, data):
    index = next(index for index in range(len(labels)) if available[index] < wanted)
    have, rows = int(available[index]), int((table["class"] == index).sum())
    sizes = ", ".join(f"`data.{split}_size` {getattr(data, f'{split}_size')}" for split in reversed(splits))
    why = "repeat, resemble or contradict other texts" + ", or are of groups in another split" * bool(data.group_column)
    unused = f" ({rows - have} more {why})" if rows > have else ""
    keep = (
        " (`data.near_duplicates: keep` uses those that resemble others)"
        if unused and data.near_duplicates == "remove"
        else ""
    )
    more = int((available < wanted).sum()) - 1
    others = f" So it is with {more} more." if more else ""
    return (
        f"{Source.of(data).called(pool)}: class {labels[index]!r} has {have} usable texts{unused} and needs {wanted} "
        f"({sizes}, over {len(labels)} classes); lower the sizes or add texts{keep}.{others}"
    )


def _write_split(path, part, tokens):
    columns = {
        "id": pa.array(part["id"], pa.string()),
        "text": pa.array(part["text"], pa.string()),
        "label": pa.array(part["class"], pa.int64()),
        "input_ids": pa.array(tokens, pa.list_(pa.int32())),
    }
    if "group" in part:
        columns["group"] = pa.array(part["group"], pa.string())
    content = pa.table(columns)
    with records.replacing(path) as temporary:
        pq.write_table(content, temporary, compression="zstd")


def _description(part, tokens, truncated, split, data, labels):
    """The card's entry of a split; lengths in tokens."""
    asked = getattr(data, f"{split}_size")
    lengths = np.array([len(ids) for ids in tokens])
    counts = part["class"].value_counts()
    summary = None
    if len(lengths):
        summary = {"mean": float(lengths.mean()), "min": int(lengths.min())}
        summary |= {f"p{q}": float(np.percentile(lengths, q)) for q in PERCENTILES} | {"max": int(lengths.max())}
    return {
        "texts": len(part),
        "asked_for": asked,
        "rounded": len(part) != asked,
        "texts_by_label": {str(label): int(counts.get(index, 0)) for index, label in enumerate(labels)},
        "tokens": int(lengths.sum()),
        "length_tokens": summary,
        "truncated": truncated,
        "longest_characters": max(map(len, part["text"]), default=0),
    } | ({"groups": int(part["group"].nunique())} if "group" in part else {})


def encode(tokenizer, template, texts, max_length):
    """Tokens of each text in the template, with the special tokens that the tokenizer adds.

    What is longer than ``max_length`` loses the end of its text, by whole characters, never any of the template. What
    looks like a special token in a text, as ``</s>``, is text. Where the template itself has special tokens, as a chat's
    turns, the tokenizer cannot tell them apart, and those in texts are special too.

    Args:
        tokenizer: a fast tokenizer of transformers.
        template: holds ``{text}`` once (``settings.load`` sees to it); other braces mean themselves.
        texts: list of strings.
        max_length: tokens that each may have, special ones included.

    Returns:
        List of lists of token ids, none empty; number of texts that were cut.

    Raises:
        DataError: the template leaves no room for a token of a text, or a text gives no token; the tokenizer has no
            fast form.
    """
    before, _, after = template.partition("{text}")
    if not tokenizer.is_fast:
        raise DataError("the model's tokenizer has no tokenizer.json, which is needed to cut long texts; add it.")
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    how = {"split_special_tokens": not any(token in template for token in special)}
    texts, tokens = list(texts), []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        part = texts[start : start + TEXTS_AT_ONCE]
        tokens += _plain(tokenizer, [before + text + after for text in part], **how)["input_ids"]
    long = [index for index, ids in enumerate(tokens) if len(ids) > max_length]
    cut = len(long)
    while long:
        pending, long = long, []
        for start in range(0, len(pending), TEXTS_AT_ONCE):
            part = pending[start : start + TEXTS_AT_ONCE]
            encoded = _plain(tokenizer, [before + texts[i] + after for i in part], return_offsets_mapping=True, **how)
            for index, ids, spans in zip(part, encoded["input_ids"], encoded["offset_mapping"]):
                tokens[index] = ids
                if len(ids) > max_length:
                    texts[index] = _shortened(
                        texts[index], len(before), spans, len(ids) - max_length, template, max_length
                    )
                    long.append(index)
    if empty := sum(not ids for ids in tokens):
        raise DataError(f"{empty} texts give no token in the template {template!r}; remove them or choose a template.")
    return tokens, cut


def require_known(tokenizer, texts, rows, where):
    """Raise DataError if a token of ``texts`` (lists of ids) is beyond the ``rows`` of the model's embedding.

    Args:
        where: beginning of the message, for instance "the test texts have".
    """
    highest = max((max(ids) for ids in texts), default=0)
    if highest >= rows:
        raise DataError(
            f"{where} the token {tokenizer.convert_ids_to_tokens(highest)!r} (id {highest}), and the model's embedding ends at "
            f"{rows - 1}: the token was added to the tokenizer alone. Take the tokenizer that the model was trained with."
        )


def _plain(tokenizer, texts, **wanted):
    return tokenizer(texts, return_attention_mask=False, return_token_type_ids=False, verbose=False, **wanted)


def _shortened(text, begin, spans, surplus, template, max_length):
    """The text without the characters of its last ``surplus`` tokens, and at least one character shorter.

    Args:
        begin: position of the text in its template, in characters.
        spans: (start, end) position in characters of each token.
    """
    starts = [start for start, end in spans if begin <= start < begin + len(text) and end > start]
    left = starts[-surplus] - begin if surplus <= len(starts) else 0
    if not left:
        raise DataError(
            f"config: the template {template!r} leaves no room for a text in `data.max_length`, {max_length} tokens; "
            "shorten the template or raise `data.max_length`."
        )
    return text[:left]
