"""The paper's claims as data: what ``resources/paper/claims.yaml`` says, read and checked."""

import itertools
from dataclasses import dataclass, field
from functools import cache

import yaml

from lorastudy.study import paper

FILE = "claims.yaml"
ALL = "all"  # every cell of the study
KINDS = (
    "better", "equal", "all_equal", "rising", "falling", "best_at", "not_beaten", "gain", "number", "chance", "ratio",
    "coincide",
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One assertion of a claim; a claim holds if all of its parts do.

    Attributes:
        kind: of ``KINDS``; each has its test in ``checks``.
        cells: field of a cell (``method``, ``targets``, ``r``, ``alpha``) → its values, that both sides have in common;
            ``ALL`` for every cell. Without an alpha it is 2 r.
        a, b: the same, of the two sides.
        along: the field that a line runs along, and its values in order.
        at: value of the line that is singled out.
        number: what the paper states.
        baseline: ``head`` or ``prompt``.
        column, stated: column of the summary, and of the paper's Table 1.
    """

    kind: str
    cells: dict | str = field(default_factory=dict)
    a: dict = field(default_factory=dict)
    b: dict = field(default_factory=dict)
    along: tuple = ()
    at: float | None = None
    number: float | None = None
    baseline: str = ""
    column: str = ""
    stated: str = ""


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
        id: letters, digits and underscores.
        section, figure: where it is made.
        says: the claim in our words.
        parts: list of ``Part``.
        contradicts: ids of claims that cannot hold together with it.
    """

    id: str
    section: str
    figure: str
    says: str
    parts: tuple
    contradicts: tuple = ()


@cache
def load(directory=paper.DIRECTORY):
    """All claims, in the paper's order."""
    content = yaml.safe_load((directory / FILE).read_text(encoding="utf-8"))
    found = tuple(_claim(**entry) for entry in content)
    against = {(claim.id, other) for claim in found for other in claim.contradicts}
    mutual = against | {(other, name) for name, other in against}
    order = [claim.id for claim in found]
    return tuple(
        Claim(**vars(claim) | {"contradicts": tuple(sorted((b for a, b in mutual if a == claim.id), key=order.index))})
        for claim in found
    )


def _claim(id, section, figure, says, parts, contradicts=()):
    return Claim(
        id, section, figure, says, tuple(part for entry in parts for part in _parts(**entry)), tuple(contradicts)
    )


def _parts(kind, cells=None, each=None, **rest):
    """The parts that an entry stands for: one for every combination of ``each``, whose fields may belong to a side."""
    if kind not in KINDS:
        raise ValueError(f"{FILE}: kind {kind}; allowed: {', '.join(KINDS)}")
    each = each or {}
    for values in itertools.product(*each.values()):
        sides = {"a": _listed(rest.get("a", {})), "b": _listed(rest.get("b", {}))}
        common = ALL if cells == ALL else _listed(cells or {})
        for name, value in zip(each, values):
            side, _, of = name.rpartition(".")
            (sides[side] if side else common)[of] = [value]
        along = next(iter(rest["along"].items())) if "along" in rest else ()
        yield Part(**{**rest, "kind": kind, "cells": common, **sides, "along": along})


def _listed(fields):
    return {name: list(value) if isinstance(value, list) else [value] for name, value in fields.items()}
