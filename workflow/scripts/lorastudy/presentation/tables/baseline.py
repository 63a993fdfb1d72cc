"""The paper's Table 5: the base model before fine-tuning."""

import numpy as np
import pandas as pd

from lorastudy.presentation.tables import footnotes
from lorastudy.presentation.tables.formatting import interval, number, signed
from lorastudy.presentation.tables.inputs import NAMES, STATED
from lorastudy.presentation.tables.layout import Table
from lorastudy.statistics import metrics
from lorastudy.study import paper

GUESSES = ("majority class", "chance")
AVERAGED = ("precision", "recall", "f1")
AVERAGES = {"weighted": "", "macro": "macro_"}  # name → prefix of the columns


def zero_shot(inputs):
    """The base model before fine-tuning, both ways, beside what guessing gives."""
    rows = [*_measured(inputs), *_guessed(inputs)]
    frame = pd.DataFrame(rows, columns=["classifier", "average", "score", *STATED, "low", "high"])
    frame["difference"] = frame.reproduced - frame.paper
    # of guessing, people need the lines to beat; the CSV has the rest
    kept = frame[~frame.classifier.isin(GUESSES) | frame.score.isin(["accuracy", "f1"])]
    shown = pd.DataFrame(
        {
            "classifier": kept.classifier,
            "average": kept.average.replace("", "–"),
            "score": kept.score.replace({"f1": "F1"}),
            "paper": kept.paper.map(lambda value: number(value, 4)),
            "reproduced": [interval(*values) for values in zip(kept.reproduced, kept.low, kept.high)],
            "difference": kept.difference.map(signed),
        }
    )
    notes = [
        "Fractions. Untrained head: the classification head before any training; prompting: the likeliest of the class "
        "words after the prompt.",
        "The paper's accuracy, near chance, suggests that it measured the untrained head. It does not say how it averages over "
        "classes; its recall equals its accuracy, as weighted recall does always and macro recall does on balanced classes.",
        *footnotes.basis(inputs),
        "Majority class: always the most frequent class of the test texts; chance: every class alike, expected values.",
        footnotes.study(inputs),
    ]
    baselines = inputs.results.baselines
    notes += [
        f"{NAMES[name]}: {row.status}, {row.reason}." for name, row in baselines.iterrows() if row.status != "finished"
    ]
    return Table(
        "The paper's Table 5: the base model before fine-tuning.",
        frame,
        shown,
        notes,
        ("classifier", "average", "score"),
    )


def _measured(inputs):
    """Scores of the baselines, beside the paper's."""
    stated = paper.table(5, inputs.directory).iloc[0]
    scores = [(average, score, f"{prefix}{score}") for average, prefix in AVERAGES.items() for score in AVERAGED]
    for name, row in inputs.results.baselines.iterrows():
        for average, score, column in [*scores, ("", "accuracy", "accuracy")]:
            yield {
                "classifier": NAMES[name],
                "average": average,
                "score": score,
                "paper": stated[score],
                **dict(zip(("reproduced", "low", "high"), row[[column, f"{column}_low", f"{column}_high"]])),
            }


def _guessed(inputs):
    for name, scores in _guessing(inputs.results.confusion).items():
        for score, value in scores.items():
            average = "" if score == "accuracy" else "macro" if score.startswith("macro_") else "weighted"
            yield {"classifier": name, "average": average, "score": score.removeprefix("macro_"), "reproduced": value}


def _guessing(confusion):
    """Scores of always guessing the most frequent class, and of guessing at random, from expected confusion matrices."""
    if not confusion:
        return {}
    of_class = np.asarray(next(iter(confusion.values())), dtype=float).sum(axis=1)
    classes = len(of_class)
    majority = np.zeros((classes, classes))
    majority[:, of_class.argmax()] = of_class
    chance = np.repeat(of_class[:, None] / classes, classes, axis=1)
    wanted = ["precision", "recall", "f1", "macro_precision", "macro_recall", "macro_f1", "accuracy"]
    found = metrics.confusion_scores(np.array([majority, chance]))
    return {name: {score: found[score][i] for score in wanted} for i, name in enumerate(GUESSES)}
