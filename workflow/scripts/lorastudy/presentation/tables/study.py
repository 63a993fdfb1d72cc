"""Tables of the whole study: the paper's questions, assumptions, cost."""

from lorastudy.analysis import claims, cost
from lorastudy.presentation.tables import footnotes
from lorastudy.presentation.tables.formatting import p_value, significant, whole
from lorastudy.presentation.tables.inputs import NAMES
from lorastudy.presentation.tables.layout import Table
from lorastudy.study import assumptions as ledger


def questions(inputs):
    """The paper's questions with what this study's data says."""
    import pandas as pd

    frame = claims.build(inputs.results, inputs.directory)
    shown = {"": [str(i) for i in range(1, 1 + len(frame))]}
    shown |= {"learning rate": frame["view"]} if frame["view"].nunique() > 1 else {}
    shown |= {"claim": frame.statement}
    if "paper" in frame:
        shown["paper"] = frame.paper
    shown |= {
        "found": frame.found,
        "verdict": frame.verdict,
        "p for": frame.p_supported.map(p_value),
        "p against": frame.p_contradicted.map(p_value),
        "texts": [whole(value) if pd.notna(value) else "–" for value in frame.n],
        "seeds": [whole(value) if pd.notna(value) else "–" for value in frame.seeds],
    }
    margin = inputs.results.settings["statistics"]["equivalence_margin"]
    tests = frame[frame.test.ne("")].groupby("test", sort=False).groups
    notes = [
        "Supported, contradicted or open: open says that this study is too small to tell, or has nothing to compare. Differences are percentage "
        f"points of accuracy with 95% intervals; a difference under the margin of {100 * margin:g} points counts as none "
        "unless it is shown to be one. Tests at 5%.",
        *_claims_basis(inputs),
        *(f"Test of {', '.join(str(i + 1) for i in rows)}: {test}." for test, rows in tests.items()),
        footnotes.study(inputs),
        *footnotes.views(inputs, inputs.results.points),
        *footnotes.holes(inputs.results.points),
    ]
    words = ("", "learning rate", "claim", "paper", "found", "verdict")
    asked = "the paper's questions" if inputs.with_paper else "methods, target sets, r and alpha"
    return Table(f"What the data says about {asked}.", frame, pd.DataFrame(shown), notes, words)


def _claims_basis(inputs):
    seeds = inputs.results.settings["grid"]["seeds"]
    if len(seeds) > 1:
        return [f"{len(seeds)} seeds; intervals cover test texts and seeds."]
    return [
        "One seed: averages over three pairs or more take the spread between pairs for that between runs; of a single pair, "
        "the variance between seeds is not covered."
    ]


def assumptions(inputs):
    """What the paper states, what is derived from it and what is assumed, with this study's values."""
    import pandas as pd

    frame = ledger.table(inputs.results.settings)
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
    import pandas as pd

    block = inputs.results.settings["cost"]
    frame = cost.table(inputs.results.summary, block)
    sums = cost.totals(frame)
    shown = pd.DataFrame({"of": sums.of.map(lambda name: NAMES.get(name, name)), "results": sums.results.map(whole)})
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
