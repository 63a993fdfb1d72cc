"""Rows of CSV and TSV: (line, text, label) and the group if there are some, as they are written."""

import csv
import itertools
import re

from lorastudy.inputs.sources.columns import keys, position
from lorastudy.inputs.sources.labels import DataError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
OTHER_DELIMITERS = ",;\t|"  # of files that end in .csv or .tsv all the same
STATED = re.compile(r'"?sep=(.)"?', re.IGNORECASE)  # a line before the header, for Excel
LONGEST_FIELD = 1 << 30  # characters; csv's own 131,072 is less than a long review


class QuoteError(DataError):
    """Quotes that do not come in pairs around fields."""


def read(file, delimiter, called, source, quoting=csv.QUOTE_MINIMAL):
    """Rows of an open text file.

    Args:
        delimiter: that usually separates the fields of such files.
        quoting: ``csv.QUOTE_NONE`` where a quote is a letter like any other.

    Raises:
        QuoteError: quotes do not come in pairs around fields, or swallow what look like rows of their own.
        DataError: a column is missing, a row has other fields than the header.
    """
    csv.field_size_limit(LONGEST_FIELD)
    first, above = file.readline(), []
    if stated := STATED.fullmatch(first.rstrip("\r\n")):
        first, above = file.readline(), ["\n"]
    delimiter = stated[1] if stated else _delimiter(first, delimiter, source)
    lines = Lines(itertools.chain(above, [first], file))
    rows = csv.reader(lines, delimiter=delimiter, strict=True, quoting=quoting)
    line, labels, swallowed = 1, set(), []
    try:
        header = next(itertools.islice(rows, len(above), None), [])
        text, label, *group = (position(header, which, called, source) for which in keys(source))
        line = rows.line_num + 1
        lines.recent.clear()
        for row in rows:
            if row and len(row) != len(header):
                raise DataError(
                    f"{called}: line {line} has {len(row)} fields and the header {len(header)}; put "
                    "texts that contain the delimiter, quotes or line ends in double quotes."
                )
            if row:
                labels.add(row[label])
                alone = [written.rstrip("\r\n").split(delimiter) for written in lines.recent]
                if len(alone) > 1 and all(len(fields) == len(header) for fields in alone):
                    swallowed.append((line, rows.line_num, {fields[label] for fields in alone}))
                yield line, row[text], row[label], *(row[column] for column in group)
            line = rows.line_num + 1
            lines.recent.clear()
    except csv.Error as fault:
        raise QuoteError(
            f"{called}: the row that begins in line {line} is not well formed ({fault}); close every "
            "quoted field and write a quote inside one twice."
        ) from None
    for begin, end, found in swallowed:
        if found <= labels:
            raise QuoteError(
                f"{called}: the quote that opens in line {begin} closes in line {end}, and each of these lines looks like a "
                "row of its own; write a quote that is part of a text twice, in a text that is quoted as a whole."
            )


class Lines:
    """Lines of a file, of which the latest are remembered, for ``csv`` tells their number alone."""

    def __init__(self, lines):
        self.lines, self.recent = lines, []

    def __iter__(self):
        for line in self.lines:
            self.recent.append(line)
            yield line


def _delimiter(header, usual, source):
    """What separates the fields: ``usual``, or what makes the two columns of the header, as semicolons of a German Excel."""
    for delimiter in dict.fromkeys(usual + OTHER_DELIMITERS):
        names = next(csv.reader([header], delimiter=delimiter), [])
        if {source.text_column, source.label_column} <= set(names):
            return delimiter
    return usual
