"""What is required of a difference a minus b, and what its interval says of that.

A requirement is met, failed or left undecided by one interval (two-sided), and by nothing else, so that what is printed
is what decided. ``m`` is the margin of equivalence.

| requirement | met if the interval | failed if the interval |
|---|---|---|
| ahead | is above 0 | is below 0, or within ± m: there is no lead, or none of m |
| beyond | is above m | is below m |
| equal | is within ± m | is above m or below -m |
| not_below | is above -m | is below -m |
"""

from dataclasses import dataclass

from lorastudy.statistics import equivalence

MET, FAILED, UNDECIDED = "met", "failed", "undecided"


def outcome(required, low, high, margin):
    """``MET``, ``FAILED`` or ``UNDECIDED``; an interval without ends (NaN) leaves it undecided."""
    within = -margin < low and high < margin
    match required:
        case "ahead":
            met, failed = low > 0, high < 0 or within
        case "beyond":
            met, failed = low > margin, high < margin
        case "equal":
            met, failed = within, low > margin or high < -margin
        case "not_below":
            met, failed = low > -margin, high < -margin
        case _:
            raise ValueError(f"no requirement is called {required}")
    return MET if met else FAILED if failed else UNDECIDED


def p_values(required, estimate, margin):
    """The p at which the requirement would just be met, and that at which it would just fail, two-sided.

    Each is the smallest level whose interval says so: twice the larger of the one-sided p values of its ends.
    """
    above, below = estimate.p_above, estimate.p_below
    within = estimate.p_equivalent(margin)
    met, failed = {
        "ahead": (above(0), min(below(0), within)),
        "beyond": (above(margin), below(margin)),
        "equal": (within, min(above(margin), below(-margin))),
        "not_below": (above(-margin), below(-margin)),
    }[required]
    return min(1.0, 2 * met), min(1.0, 2 * failed)


@dataclass(frozen=True)
class Reading:
    """One interval of a difference, and what it says."""

    low: float
    high: float
    level: float
    outcome: str
    answer: str


def read(required, estimate, margin, level):
    """The interval of an estimate at a level, as a ``Reading``."""
    low, high = (max(-1.0, min(1.0, end)) for end in estimate.interval(level))
    return Reading(low, high, level, outcome(required, low, high, margin), equivalence.answer(low, high, margin))
