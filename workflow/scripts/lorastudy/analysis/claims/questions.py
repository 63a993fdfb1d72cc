"""What any study asks of its whole grid: do r, alpha, the target set and the method matter, and what does QLoRA cost?"""

import math

from lorastudy.analysis import collapse, ratios, tuning
from lorastudy.analysis.claims import checks, stated, verdicts, words
from lorastudy.analysis.claims.evidence import Evidence
from lorastudy.analysis.claims.rows import SCOPES, Row, framed, judged
from lorastudy.study import paper

AXES = {"r": "r", "alpha": "α"}


def table(results, directory=paper.DIRECTORY):
    """The questions and their answers, as a data frame of ``rows.Row``; those about accuracy once for each view."""
    study, found = Evidence(results, directory), []
    for view in tuning.views(results.summary):
        of_view = results.comparisons[results.comparisons["view"].eq(view) & results.comparisons.metric.eq("accuracy")]
        found += [*_gains(of_view, study, view), *_axes(of_view, study, view), *_sets(of_view, study, view)]
    return framed([*found, *_costs(study)])


def _gains(rows, study, view):
    pooled = rows[rows.family.eq("pooled_baseline")]
    for baseline in ("head", "prompt"):
        for method in study.results.settings["grid"]["methods"]:
            which = {
                "claim": f"gain_{method}_{baseline}",
                "view": view,
                "statement": f"{_name(method)} improves on the base model ({_name(baseline)}).",
            }
            check = checks.Check(_name(method), f"the base model ({_name(baseline)})", "", "ahead", (), ())
            yield _one(which, pooled[pooled.a.eq(method) & pooled.b.eq(baseline)], check, study)


def _axes(rows, study, view):
    for axis, symbol in AXES.items():
        which = {"claim": axis, "view": view, "statement": f"Accuracy depends on {symbol}."}
        along = [part for line in study.results.lines for part in line.along(axis)]
        values = {float(point[axis == "alpha"]) for line in along for point in line.points}
        found = [
            study.measured(checks.Check(*(f"{symbol} = {float(value):g}" for value in (row.a_value, row.b_value)),
                                        "", "equal", (), ()), row)
            for row in rows[rows.family.eq(f"pooled_{axis}_pair")].itertuples()
        ]  # fmt: skip
        compared = {float(value) for one in found for value in (one.row.a_value, one.row.b_value)}
        verdict = verdicts.depends(found, complete=compared == values)
        if verdict.decisive is None:
            yield Row(**which, verdict=verdict.verdict, found=f"Fewer than two values of {symbol} have finished.")
            continue
        yield _axis_row(which, verdict, study, found, axis, values - compared)


def _axis_row(which, verdict, study, found, axis, left):
    """The ``Row`` of a question about r or alpha."""
    row, reading, symbol = verdict.decisive.row, verdict.reading, AXES[axis]
    text = words.difference(verdict.decisive.check, row.difference, reading, study.margin)
    margin = words.margin(study.margin)
    if verdict.verdict == verdicts.CONTRADICTED and (reading.low > 0 or reading.high < 0):
        text += f", {_at_once(verdict, study)} for all pairs at once"
    if verdict.failed == verdict.all:
        text += f"; every two of {len({v for one in found for v in (one.row.a, one.row.b)})} values are equal within {margin}"
    else:
        text += f"; {verdict.met} of {verdict.all} pairs of values differ, {verdict.failed} are equal within {margin}"
    if left:
        text += f"; not all values have run: {', '.join(f'{value:g}' for value in sorted(left))}"
    lost = [collapse.sentence(share) for share in collapse.shares(_along(study, axis), axis) if share.lost]
    counts = {"checks": verdict.all, "measured": verdict.measured, "met": verdict.met, "failed": verdict.failed}
    spread = study.permuted(axis)
    return Row(
        **which,
        verdict=verdict.verdict,
        found=". ".join([text, *lost]) + ".",
        value=row.difference,
        low=reading.low,
        high=reading.high,
        level=reading.level,
        answer=reading.answer,
        smallest_margin=max(abs(reading.low), abs(reading.high)),
        p=verdict.p,
        decided=f"{row.test}: any two of the values of {symbol}, averaged over all else; one pair whose interval for all "
        f"{verdict.measured} at once leaves 0 out supports it, every 95% interval within ± {margin} contradicts it",
        beside="" if math.isnan(spread) else f"permutation of the values within seeds p = {spread:.2g}",
        scope=SCOPES[row.test],
        n=int(row.n),
        seeds=int(row.seeds),
        **counts,
    )


def _at_once(verdict, study):
    """The interval of what decided as it is with all comparisons at once, told from the side of the leading value."""
    reading = verdict.decisive.read(1 - verdicts.LEVEL / verdict.measured)
    ends = (reading.low, reading.high) if verdict.decisive.row.difference >= 0 else (-reading.high, -reading.low)
    return words.difference_interval(*ends, study.margin, reading.level)


def _along(study, axis):
    """The cells on the lines along which r or alpha varies: beside them, other values come with another r or alpha."""
    on_a_line = [line.holds(study.cells) for line in study.results.lines if line.along(axis)]
    return study.cells.loc[[any(of_cell) for of_cell in zip(*on_a_line)]]


def _sets(rows, study, view):
    wanted = {
        "targets": ("targets", "all-linear", "attention", "ahead", "All linear layers give a higher accuracy than attention."),
        "method_accuracy": ("method", "qlora", "lora", "equal", f"QLoRA is as accurate as LoRA, within {words.margin(study.margin)}."),
    }  # fmt: skip
    for name, (axis, a, b, required, statement) in wanted.items():
        pooled = rows[rows.family.eq(f"pooled_{axis}")]
        pooled = pooled[pooled.a.isin([a, b]) & pooled.b.isin([a, b])]
        which = {"claim": name, "view": view, "statement": statement}
        yield _one(which, pooled, checks.Check(_name(a), _name(b), "", required, (), ()), study, first=a)


def _one(which, pooled, check, study, first=None):
    """The ``Row`` of a question that one comparison answers; ``first`` is the side that it is about."""
    if pooled.empty:
        return Row(**which, verdict=verdicts.NOT_COVERED, found="Nothing to compare.", checks=1)
    row = next(pooled.itertuples())
    if first is not None and row.a != first:
        check = checks.Check(check.b, check.a, check.context, check.required, (), ())
    found = [study.measured(check, row)]
    units = (
        f" Over {words.count(row.units, 'point' if row.family == 'pooled_baseline' else 'matched pair')} of the grid."
    )
    return judged(which, verdicts.decide(found), found, study, units)


def _costs(study):
    for name, column, statement, side in (
        ("memory", "peak_memory_gib", "QLoRA needs less memory than LoRA.", -1),
        ("time", "seconds", "QLoRA takes longer to fine-tune than LoRA.", 1),
    ):
        which = {"claim": name, "view": tuning.CONFIGURED, "statement": statement}
        found = ratios.ratio(study.cells, column)
        low, high = sorted(side * math.log(end) for end in (found.low, found.high))
        verdict = verdicts.SUPPORTED if low > 0 else verdicts.CONTRADICTED if high < 0 else verdicts.UNDECIDED
        decided = (
            "t on logarithms of matched ratios, each the mean of its seeds: by the side of 1 that the interval is on"
        )
        yield stated.of_ratio(which, found, verdict, decided, (1.0,))


def _name(name):
    return checks.NAMES.get(name, name)
