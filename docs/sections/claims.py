"""What became of the paper's claims on every data set that its grid was run on: in short, claim by claim, and by one seed."""

import pandas as pd
from lorastudy.analysis.claims import one_seed, verdicts, words

from sections import studies

VERDICTS = (verdicts.SUPPORTED, verdicts.CONTRADICTED, verdicts.UNDECIDED, verdicts.NOT_COVERED)
DECIDED = VERDICTS[:2]
# questions of a study: what the paper says of each, and which side of the difference is ahead if that is above 0
SHORT = {
    "gain_lora_head": ("much: from 0.22 to about 0.67", "LoRA"),
    "gain_qlora_head": ("much: from 0.22 to about 0.67", "QLoRA"),
    "r": ("steady up to r = 64 (all linear layers) or 256 (attention), then lower", ""),
    "alpha": ("a peak at α = 32 (all linear layers), a rise beyond 16 (attention)", ""),
    "targets": ("slightly ahead at r = 1, 2 and 8; with QLoRA behind beyond 8", "all linear layers"),
    "method_accuracy": ("QLoRA matches LoRA", "LoRA"),
    "memory": ("6 GB instead of 16 GB", "QLoRA over LoRA"),
}
# claims that a grid at one learning rate, or cells that share a GPU, cannot decide → the study that can
ELSEWHERE = {
    "alpha_is_learning_rate": "smollm2-learning-rates",
    "time": "llama3-8b-rehearsal",
    "memory": "llama3-8b-rehearsal",
}
BASE = "base"  # the claim whose value is an accuracy and no difference


def setting(name):
    """What was run, in a few words."""
    study, summary = studies.settings_of(studies.HERE / name), studies.read(name, "summary.csv")
    cells = summary[summary.kind.eq("cell")]
    return f"{studies.NAMES[name]} ({len(study.grid.seeds)} seeds, {int(cells.n_test.max()):,} test texts; {studies.state(cells)[:-1]})"


def in_short():
    """A row a question: what the paper says, and what each data set does."""
    names = studies.of_the_papers_grid()
    found = {name: _questions(name) for name in names}
    return studies.table(
        [
            {"": found[names[0]].statement[question].rstrip("."), "the paper": says}
            | {studies.short(name): _answer(found[name].loc[question], leader, name) for name in names}
            for question, (says, leader) in SHORT.items()
        ],
        ["left"] * (2 + len(names)),
    )


def _questions(name):
    """The questions of a study at its one learning rate, by id."""
    questions = studies.read(name, "paper_tables/questions.csv")
    return questions[questions["view"].eq("configured")].set_index("claim")


def _answer(row, leader, name):
    """Verdict and effect; of r and alpha in the words of the study, which name the two values."""
    found, _, without = row.found.partition(" Without ")
    found = f"{leader} {effect(row, _margin(name))}" if leader else found.split("; ")[0].rstrip(".")
    points = words.count(len(without.split(", where")[0].split(", ")), "point")
    return f"**{row.verdict}**: {found}" + f" (without {points} whose runs scatter far more)" * bool(without)


def counted(name):
    """How many of the paper's claims came out how, and what one seed would have said."""
    claims = studies.read(name, "paper_tables/claims.csv")
    counts = claims.verdict.value_counts()
    text = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if verdict in counts)
    said = one_seed.sentence(readings(name), dict(zip(claims.claim, claims.verdict)))
    return f"{studies.NAMES[name].capitalize()}: of the paper's {len(claims)} claims {text}. {said}"


def readings(name):
    """``one_seed.readings`` of a study's records."""
    margin = studies.settings_of(studies.HERE / name).statistics.equivalence_margin
    return one_seed.readings(studies.read(name, "summary.csv"), margin)


def one_by_one():
    """A row a claim: verdict, effect with the interval that decided, and how often it comes out with one seed."""
    names = studies.of_the_papers_grid()
    tables = {name: studies.read(name, "paper_tables/claims.csv").set_index("claim") for name in names}
    singles = {name: one_seed.shares(readings(name)) for name in names}
    rows = []
    for index, claim in enumerate(tables[names[0]].index):
        first = tables[names[0]].loc[claim]
        row = {"section": first.section, "the paper says": first.statement}
        for name in names:
            of = tables[name].loc[claim]
            decided = f"**{of.verdict}**" if of.verdict in DECIDED else of.verdict
            row[studies.short(name)] = f"{decided} {effect(of, _margin(name))}".strip()
            row[f"one seed{'' if len(names) == 1 else ', ' + studies.NAMES[name]}"] = singles[name][index]
        rows.append(row)
    return studies.table(rows, ["left", "left", *["left", "right"] * len(names)])


def _margin(name):
    return studies.settings_of(studies.HERE / name).statistics.equivalence_margin


def effect(row, margin):
    """What decided, with its interval: points of accuracy, or a ratio."""
    if pd.isna(row.value):
        return ""
    if row.unit == "ratio":
        around = "" if pd.isna(row.low) else f" {words.ratio_interval(row.low, row.high, ())}"
        return f"{row.value:.3g}{around}"
    if row.name == BASE:
        return f"{row.value:.4f} {words.interval(row.low, row.high, form='{:.4f}'.format)}"
    sign = "+" if row.value > 0 else ""
    return f"{sign}{words.points(row.value)} {words.difference_interval(row.low, row.high, margin, row.level)}"


def elsewhere():
    """What other studies say of the claims that these cannot decide; nothing without their records."""
    lines = []
    for claim, name in ELSEWHERE.items():
        file = studies.HERE / name / "paper_tables" / "claims.csv"
        table = pd.read_csv(file).set_index("claim") if file.exists() else pd.DataFrame()
        if claim in table.index and table.verdict[claim] != verdicts.NOT_COVERED and "statement" in table:
            row = table.loc[claim]
            title = studies.settings_of(studies.HERE / name).study.name
            lines.append(f"- *{row.statement}* **{row.verdict.capitalize()}** ([{title}]({name}/)): {row.found}")
    return ["\n".join(["Decided elsewhere:\n", *lines])] if lines else []


def robust():
    """Which claims are decided alike on all data sets, and on how many they part; nothing for one data set."""
    names = studies.of_the_papers_grid()
    if len(names) == 1:
        return []
    tables = [studies.read(name, "paper_tables/claims.csv").set_index("claim") for name in names]
    together = pd.DataFrame({name: table.verdict for name, table in zip(names, tables)})
    lines = []
    for verdict in DECIDED:
        same = together.index[together.eq(verdict).all(axis=1)]
        listed = " ".join(f"*{tables[0].statement[claim]}*" for claim in same)
        lines.append(f"- {verdict.capitalize()} on both: {len(same)}. {listed}".strip())
    decided = together.isin(DECIDED)
    apart = (decided.all(axis=1) & together.nunique(axis=1).gt(1)).sum()
    alone = (decided.any(axis=1) & ~decided.all(axis=1)).sum()
    lines.append(f"- Supported on one and contradicted on the other: {apart}. Decided on one alone: {alone}.")
    return ["\n".join(lines)]


def how_to_read():
    """What stands in the table of claims."""
    margins = {_margin(name) for name in studies.of_the_papers_grid()}
    same = " or ".join(words.margin(margin) for margin in sorted(margins))
    return (
        "Effects are points of accuracy, of the comparison that decided (or is furthest from deciding for the claim) among all "
        "that the claim speaks of, with its 95% interval unless another level is given; of a claim that names a number, the "
        f"difference to it. Two are equal within {same}. *One seed*: in how many of the seeds, read by itself and without "
        "intervals as a study of one seed is, the numbers are as the claim says."
    )
