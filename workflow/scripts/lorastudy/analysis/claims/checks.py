"""The tests behind claims: each part becomes checks, and each check is a contrast of cells and what is required of it.

A kind of part is a rule that makes checks; ``KINDS`` has them all. What is required of a contrast is in
``requirements``. Which cells a check speaks of is known without any result, so that a study which lacks them says so.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from lorastudy.analysis.claims import catalogue
from lorastudy.statistics import paired
from lorastudy.study.grid import ADAPTERS

FIELDS = ("method", "targets", "r", "alpha")
RATIO = 2  # alpha over r on the paper's r line
NAMES = ADAPTERS | {
    "attention": "attention",
    "all-linear": "all linear layers",
    "head": "untrained head",
    "prompt": "prompting",
}


@dataclass(frozen=True)
class Check:
    """One test of a claim.

    Attributes:
        a, b: what is compared, in words.
        context: what both have in common, in words.
        required: of the difference a minus b, a function of ``requirements``.
        cells: (method, targets, r, alpha) of every cell that it speaks of; empty for ``contrast`` None.
        sides: (weight, cell) lists that are averaged, as units of a ``Contrast`` without runs.
        number: what the paper states of a alone; then b is no cell.
        baseline: that b is, instead of cells.
        of_grid: whether it is about all matched pairs that the grid has, and names no point.
    """

    a: str
    b: str
    context: str
    required: str
    cells: tuple
    sides: tuple
    number: float | None = None
    baseline: str = ""
    of_grid: bool = False


def of(part, planned):
    """The ``Check`` of each test of a part.

    Args:
        part: ``catalogue.Part``.
        planned: (method, targets, r, alpha) of the study's cells, for parts about all of them.
    """
    return list(KINDS[part.kind](part, planned))


def _better(part, planned):
    yield _sides(part, planned, "ahead")


def _equal(part, planned):
    yield _sides(part, planned, "equal")


def _all_equal(part, planned):
    line = _line(part, planned)
    for a, b in itertools.combinations(line, 2):
        yield _pair(part, b, a, "equal")


def _rising(part, planned, sign=1):
    line = _line(part, planned)
    (name, values), weights = part.along, paired.trend_weights(np.log2([float(value) for value in part.along[1]]))
    unit = tuple((sign * float(weight), cell) for weight, cell in zip(weights, line))
    first, last = (_words({name: [values[end]]}) for end in ((0, -1) if sign > 0 else (-1, 0)))
    text = f"{last} (along the trend)" if len(values) > 2 else last
    yield Check(text, first, _words(_context(part)), "ahead", tuple(line), (unit,))
    if len(values) > 2:
        for a, b in itertools.pairwise(line):
            yield _pair(part, *((b, a) if sign > 0 else (a, b)), "not_below")


def _falling(part, planned):
    yield from _rising(part, planned, sign=-1)


def _best_at(part, planned):
    name, values = part.along
    line = dict(zip(values, _line(part, planned)))
    for value in values:
        if value != part.at:
            yield _pair(part, line[part.at], line[value], "ahead")


def _not_beaten(part, planned):
    ours, others = (_cells(_merged(part.cells, side)) for side in (part.a, part.b))
    for other in others:
        if other not in ours:
            unit = (*((1 / len(ours), cell) for cell in ours), (-1.0, other))
            yield Check(_words(_merged(part.cells, part.a)), _words(_fields(other)), "", "not_below",
                        (*ours, other), (unit,))  # fmt: skip


def _gain(part, planned):
    cells = [cell for cell in planned if all(cell[FIELDS.index(name)] in part.cells[name] for name in part.cells)]
    units = tuple(((1.0, cell),) for cell in cells)
    yield Check(_words(part.cells), f"the base model ({NAMES[part.baseline]})", "", "beyond", tuple(cells), units,
                baseline=part.baseline)  # fmt: skip


def _number(part, planned):
    cells = _cells(part.cells)
    unit = tuple((1 / len(cells), cell) for cell in cells)
    yield Check(_words(part.cells), f"{part.number:g}", "", "equal", tuple(cells), (unit,), number=part.number)


def _sides(part, planned, required):
    """One check of the mean of a's cells against that of b's, matched in all fields that neither side sets."""
    own = set(part.a) | set(part.b)
    if own & {"r", "alpha"}:
        own |= {"r", "alpha"}
    if part.cells == catalogue.ALL:
        chosen = [[cell for cell in planned if _has(cell, side)] for side in (part.a, part.b)]
    else:
        chosen = [_cells(_merged(part.cells, side)) for side in (part.a, part.b)]
    free = [FIELDS.index(name) for name in FIELDS if name not in own]
    groups = [{}, {}]
    for group, cells in zip(groups, chosen):
        for cell in cells:
            group.setdefault(tuple(cell[index] for index in free), []).append(cell)
    units = tuple(
        (*((1 / len(a), cell) for cell in a), *((-1 / len(b), cell) for cell in b))
        for key, a in groups[0].items()
        if (b := groups[1].get(key))
    )
    cells = tuple(cell for unit in units for _, cell in unit)
    of_grid = part.cells == catalogue.ALL
    context = "all matched pairs" if of_grid else _words(_context(part))
    return Check(_words(part.a), _words(part.b), context, required, cells, units, of_grid=of_grid)


def _pair(part, a, b, required):
    name = part.along[0]
    a_words, b_words = (_words({name: [cell[FIELDS.index(name)]]}) for cell in (a, b))
    return Check(a_words, b_words, _words(_context(part)), required, (a, b), (((1.0, a), (-1.0, b)),))


def _line(part, planned):
    name, values = part.along
    return [_cells(_merged(part.cells, {name: [value]}))[0] for value in values]


def _merged(common, side):
    return {**common, **side}


def _cells(fields):
    """(method, targets, r, alpha) of every combination; alpha is 2 r where it is not said."""
    names = [name for name in FIELDS if name in fields]
    found = []
    for values in itertools.product(*(fields[name] for name in names)):
        cell = dict(zip(names, values))
        cell.setdefault("alpha", RATIO * cell["r"])
        found.append((cell["method"], cell["targets"], int(cell["r"]), float(cell["alpha"])))
    return found


def _has(cell, fields):
    return all(cell[FIELDS.index(name)] in values for name, values in fields.items())


def _fields(cell):
    return {name: [value] for name, value in zip(FIELDS, cell)}


def _context(part):
    return {} if part.cells == catalogue.ALL else part.cells


def _words(fields):
    """A selection of cells in words: "LoRA, all linear layers, r = 8"."""
    parts = []
    for name in FIELDS:
        if name in fields and not (name == "alpha" and "r" in fields and _follows(fields)):
            values = fields[name]
            if name in ("r", "alpha"):
                text = f"{values[0]:g}" if len(values) == 1 else f"{min(values):g} to {max(values):g}"
                parts.append(f"{'α' if name == 'alpha' else name} = {text}")
            else:
                parts.append(" and ".join(NAMES.get(value, value) for value in values))
    return ", ".join(parts)


def _follows(fields):
    return len(fields["alpha"]) == len(fields["r"]) == 1 and fields["alpha"][0] == RATIO * fields["r"][0]


KINDS = {
    "better": _better,
    "equal": _equal,
    "all_equal": _all_equal,
    "rising": _rising,
    "falling": _falling,
    "best_at": _best_at,
    "not_beaten": _not_beaten,
    "gain": _gain,
    "number": _number,
}
