"""The two or three columns that the configuration names, in the heads of files of every kind."""

import difflib

from lorastudy.inputs.sources.labels import DataError, canonical, enumerated

KEYS = ("text_column", "label_column")


def keys(source):
    """The keys that name a column, that of the groups last and if it is there at all."""
    return (*KEYS, "group_column") if source.group_column else KEYS


def position(names, which, called, source):
    """Where the column stands that the key ``data.<which>`` names.

    Raises:
        DataError: it is missing or there twice.
    """
    wanted = getattr(source, which)
    if names.count(wanted) == 1:
        return names.index(wanted)
    if wanted in names:
        raise DataError(f"{called} has {names.count(wanted)} columns {wanted!r} (`data.{which}`); rename one of them.")
    alike = {str(name).strip().lower(): name for name in names}
    near = difflib.get_close_matches(wanted.strip().lower(), alike, n=1)
    hint = f" Did you mean {alike[near[0]]!r}?" if near else f" Set `data.{which}` to one of them."
    raise DataError(f"{called} has no column {wanted!r} (`data.{which}`); it has {enumerated(names)}.{hint}")


def cleaned(rows):
    """Rows with empty texts for those of white space alone, labels in canonical form, and names of groups likewise."""
    for location, text, label, *groups in rows:
        names = (None if group is None else str(group) for group in map(canonical, groups))
        yield location, text if text and not text.isspace() else "", canonical(label), *names
