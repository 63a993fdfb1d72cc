"""From checks to verdicts: supported if every check is met, contradicted if one fails, else undecided.

That every check is met needs no correction for their number: one that is not true keeps the claim from being supported in
all but 2.5% of studies, whatever the others do (an intersection-union test, Berger 1982). That one of k fails is read
off intervals of 1 - 0.05 / k (Bonferroni). The interval that is printed is the one that decided.
"""

import math
from dataclasses import dataclass, field

from lorastudy.analysis.claims import requirements

LEVEL = 0.05
SUPPORTED, CONTRADICTED, UNDECIDED, NOT_COVERED = "supported", "contradicted", "undecided", "not covered"


@dataclass(frozen=True)
class Measured:
    """A check with what was measured.

    Attributes:
        check: ``checks.Check`` (or what has its ``a``, ``b``, ``context`` and ``required``).
        row: row of the comparisons, a mapping; None if the study lacks the cells or has none of them.
        estimate: ``paired.Estimate``; None if there is none.
        margin: of equivalence.
        lacking: why there is no estimate.
    """

    check: object
    row: object = None
    estimate: object = None
    margin: float = math.nan
    lacking: str = ""

    def read(self, level):
        return requirements.read(self.check.required, self.estimate, self.margin, level)

    def p_values(self):
        return requirements.p_values(self.check.required, self.estimate, self.margin)


@dataclass(frozen=True)
class Verdict:
    """What became of a claim.

    Attributes:
        verdict: one of the four.
        decisive: the ``Measured`` that decided, or that is furthest from being met; None if nothing was measured.
        reading: its ``requirements.Reading``.
        p: of what the verdict says, corrected for the number of checks; of the nearer one if it is undecided.
        met, failed, measured, all: how many checks.
    """

    verdict: str
    decisive: object = None
    reading: object = None
    p: float = math.nan
    met: int = 0
    failed: int = 0
    measured: int = 0
    all: int = 0
    lacking: list = field(default_factory=list)


def decide(found):
    """The ``Verdict`` on a claim from its checks, a list of ``Measured``."""
    known = [one for one in found if one.estimate is not None]
    lacking = list(dict.fromkeys(one.lacking for one in found if one.estimate is None))
    if not known:
        return Verdict(NOT_COVERED, all=len(found), lacking=lacking)
    together = 1 - LEVEL / len(known)
    p = {id(one): one.p_values() for one in known}
    plain = {id(one): one.read(1 - LEVEL) for one in known}
    # one that is met is not failed too: a small lead may be shown, and shown to be small
    failing = [one for one in known if plain[id(one)].outcome != requirements.MET
               and one.read(together).outcome == requirements.FAILED]  # fmt: skip
    counts = {
        "met": sum(reading.outcome == requirements.MET for reading in plain.values()),
        "failed": len(failing),
        "measured": len(known),
        "all": len(found),
        "lacking": lacking,
    }
    worst = min(failing or known, key=lambda one: p[id(one)][1])
    p_failed = min(1.0, p[id(worst)][1] * len(known))
    if failing:
        return Verdict(CONTRADICTED, worst, worst.read(together), p_failed, **counts)
    least = max(known, key=lambda one: (plain[id(one)].outcome != requirements.MET, p[id(one)][0]))
    p_met = p[id(least)][0]
    if counts["met"] == len(found):
        return Verdict(SUPPORTED, least, plain[id(least)], p_met, **counts)
    reading = plain[id(least)]
    if reading.outcome == requirements.FAILED:  # by itself, and with all of them at once not: that interval decided
        reading = least.read(together)
    return Verdict(UNDECIDED, least, reading, min(p_met, p_failed), **counts)


def depends(found, complete):
    """The ``Verdict`` on whether something makes a difference, from comparisons of any two of its values.

    Supported if any two differ, by intervals of 1 - 0.05 / k for k comparisons; contradicted if every two are shown to be
    within the margin, for which each 95% interval has to be.

    Args:
        found: list of ``Measured``.
        complete: whether all values have been compared.
    """
    known = [one for one in found if one.estimate is not None]
    if not known:
        return Verdict(NOT_COVERED, all=len(found))
    together = 1 - LEVEL / len(known)
    readings = {id(one): one.read(together) for one in known}
    differ = [one for one in known if readings[id(one)].low > 0 or readings[id(one)].high < 0]
    p = {id(one): one.estimate.p_value() for one in known}
    most = min(known, key=lambda one: p[id(one)])
    p_differ = min(1.0, p[id(most)] * len(known))
    plain = {id(one): one.read(1 - LEVEL) for one in known}
    alike = [one for one in known if -one.margin < plain[id(one)].low and plain[id(one)].high < one.margin]
    counts = {"met": len(differ), "failed": len(alike), "measured": len(known), "all": len(found)}
    if differ:
        return Verdict(SUPPORTED, most, readings[id(most)], p_differ, **counts)
    if complete and len(alike) == len(found):
        widest = max(known, key=lambda one: max(-plain[id(one)].low, plain[id(one)].high))
        p_alike = max(min(1.0, 2 * one.estimate.p_equivalent(one.margin)) for one in known)
        return Verdict(CONTRADICTED, widest, plain[id(widest)], p_alike, **counts)
    return Verdict(UNDECIDED, most, readings[id(most)], p_differ, **counts)
