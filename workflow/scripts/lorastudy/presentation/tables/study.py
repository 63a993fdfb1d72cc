"""Tables of the whole study: the paper's claims, its questions, assumptions, cost."""

import pandas as pd

from lorastudy.analysis import cost, scatter
from lorastudy.analysis.claims import judging, verdicts, words
from lorastudy.analysis.claims import one_seed as of_seed
from lorastudy.analysis.claims import questions as ask
from lorastudy.presentation.tables import footnotes
from lorastudy.presentation.tables.formatting import p_value, significant, whole
from lorastudy.presentation.tables.inputs import LEVEL
from lorastudy.presentation.tables.layout import Table
from lorastudy.study import assumptions as of_study
from lorastudy.study.grid import METHODS


def claims(inputs):
    """The paper's claims, each with its number, what this study found, and the verdict."""
    frame = judging.table(inputs.results, inputs.directory)
    shown = _shown(
        frame,
        {"section": frame.section, "the paper says": frame.statement, "its number": frame.number.replace("", "–")},
    )
    shown["cannot hold with"] = frame.contradicts.replace("", "–")
    judged = frame.verdict.isin([verdicts.SUPPORTED, verdicts.CONTRADICTED])
    together = int((judged & frame.p_holm.lt(LEVEL)).sum())
    notes = [
        "Supported: every comparison that the claim speaks of shows it. Contradicted: one shows otherwise, by the margin. "
        "Undecided: this study is too small to tell. Not covered: it has no cells that would tell.",
        *_notes(inputs, frame),
        f"Each claim is judged at 5% by itself. {together} of the {int((judged & frame.p.notna()).sum())} verdicts that have "
        "a p hold after Holm's correction for all claims too (last column).",
    ]
    return Table("What the data says about the paper's claims.", frame, shown, notes, ("", *WORDS))


def one_seed(inputs):
    """How often the paper's claims come out where one seed is read by itself, beside the verdicts on all of them."""
    margin = inputs.results.settings["statistics"]["equivalence_margin"]
    readings = of_seed.readings(inputs.results.summary, margin, inputs.directory)
    judged = judging.table(inputs.results, inputs.directory)
    frame = pd.concat(
        [
            judged[["claim", "section", "statement"]],
            of_seed.counts(readings).reset_index(drop=True),
            readings.reset_index(drop=True).add_prefix("seed_"),
            judged[["verdict"]],
        ],
        axis=1,
    )
    shown = pd.DataFrame(
        {
            "": [str(number) for number in range(1, 1 + len(frame))],
            "section": frame.section,
            "the paper says": frame.statement,
            "comes out": of_seed.shares(readings),
            "with the seeds": [", ".join(str(seed) for seed in readings if row[seed] is True) or "–"
                               for _, row in readings.iterrows()],
            "verdict": frame.verdict,
        }
    )  # fmt: skip
    notes = [
        "Comes out: the numbers of one seed, without intervals, are as the claim says: a lead is one above 0, and two are the "
        f"same within {words.margin(margin)}; a run at chance is a number like others. Verdict: that of all seeds, with intervals.",
        of_seed.sentence(readings, dict(zip(frame.claim, frame.verdict))),
        footnotes.study(inputs),
    ]
    left = ("", "section", "the paper says", "with the seeds", "verdict")
    return Table("What one seed would have said about the paper's claims.", frame, shown, notes, left)


def questions(inputs):
    """What the study says about r, alpha, target sets and methods over the whole of its grid."""
    frame = ask.table(inputs.results, inputs.directory)
    views = {"learning rate": frame["view"]} if frame["view"].nunique() > 1 else {}
    shown = _shown(frame, views | {"question": frame.statement})
    notes = [
        "Supported, contradicted or undecided: undecided says that this study is too small to tell.",
        *_notes(inputs, frame),
        *footnotes.views(inputs, inputs.results.points),
        *footnotes.holes(inputs.results.points),
    ]
    return Table("What the data says about methods, target sets, r and alpha.", frame, shown, notes, ("", *WORDS))


WORDS = (
    "learning rate", "section", "the paper says", "its number", "question", "found", "verdict", "margin", "about", "cannot hold with",
)  # fmt: skip


def _shown(frame, first):
    """The rows of a table of claims as text, after the columns ``first``."""
    shown = {"": [str(number) for number in range(1, 1 + len(frame))]} | first
    return pd.DataFrame(
        shown
        | {
            "found": frame.found,
            "verdict": frame.verdict,
            "margin": frame.answer.replace("", "–"),
            "equal within": [significant(100 * value) if unit == "accuracy" else "–"
                             for value, unit in zip(frame.smallest_margin, frame.unit)],
            "about": frame.scope.replace("", "–"),
            "p": frame.p.map(p_value),
            "p (Holm)": frame.p_holm.map(p_value),
        }
    )  # fmt: skip


def _notes(inputs, frame):
    margin = inputs.results.settings["statistics"]["equivalence_margin"]
    seeds = inputs.results.settings["grid"]["seeds"]
    of = frame[frame.decided.ne("")].groupby("decided", sort=False).groups
    few = (
        []
        if len(seeds) >= scatter.SEEDS
        else [
            f"{len(seeds)} seed{'s' * (len(seeds) > 1)}, where {scatter.SEEDS} are the least for statements about runs at large: "
            "a verdict is about these runs, or about runs with these seeds."
        ]
    )
    return [
        f"Differences are percentage points of accuracy with 95% intervals, over the runs that learned. Margin: where the "
        f"difference lies beside ± {100 * margin:g} (beyond it, within it but not 0, equivalent, or undecided); equal within: "
        "the smallest margin that the interval would show it to be within.",
        *few,
        *(f"{', '.join(str(i + 1) for i in rows)} decided by {text}." for text, rows in of.items()),
        footnotes.study(inputs),
    ]


def assumptions(inputs):
    """What the paper states, what is derived from it and what is assumed, with this study's values."""
    frame = of_study.table(inputs.results.settings)
    if not inputs.with_paper:
        frame = frame.loc[frame.key.ne(""), ["what", "value", "key"]]
        shown = frame.rename(columns={"value": "this study"})
        return Table("What this study is set to.", frame, shown, [], tuple(shown))
    shown = pd.DataFrame(
        {
            "what": frame.what,
            "basis": frame.basis,
            "paper": frame.paper,
            "this study": frame.value,
            "key": frame.key.replace("", "–"),
            "reason": frame.reason,
            "another value": frame.effect,
        }
    )
    notes = [
        "Stated: in the paper's text or tables. Derived: follows from what they state. Contradictory: the paper says one "
        "thing here and another there; both are given. Assumed: not in it. Reasons are those for the values of the paper's "
        "study (the repository's config.yaml).",
    ]
    return Table("What this study takes from the paper, and what it assumes.", frame, shown, notes, tuple(shown))


def costs(inputs):
    """Hours, energy, CO2e and money: of each result in the CSV, summed up for people."""
    block = inputs.results.settings["cost"]
    frame = cost.table(inputs.results.summary, block)
    sums = cost.totals(frame)
    shown = pd.DataFrame({"of": sums.of.map(lambda name: METHODS.get(name, name)), "results": sums.results.map(whole)})
    heads = {"hours": "device hours", "energy_kwh": "kWh", "co2e_kg": "kg CO2e", "money": block["currency"]}
    for amount, head in heads.items():
        parts = zip(sums[amount], sums[f"{amount}_known"], sums.results)
        shown[head] = [
            "–" if pd.isna(value) else significant(float(value)) + (f" (of {known})" if known < results else "")
            for value, known, results in parts
        ]
    devices = ", ".join(sorted(set(frame.device.dropna()))) or "none yet"
    return Table(
        "What the study cost: time on its device, energy, CO2e and money.",
        frame,
        shown,
        [f"Device: {devices}.", *cost.gaps(frame, block)],
        ("of",),
    )
