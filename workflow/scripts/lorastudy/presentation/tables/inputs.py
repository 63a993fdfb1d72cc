"""What tables are made from, and the words that they share."""

from dataclasses import dataclass
from pathlib import Path

from lorastudy.analysis.claims import verdicts
from lorastudy.study import paper
from lorastudy.study.grid import ADAPTERS

PAPER_MODEL = paper.MODEL
CLASSES = 5
STATED = ["paper", "reproduced", "difference"]
NAMES = ADAPTERS | {
    "attention": "attention",
    "all-linear": "all-linear",
    "head": "untrained head",
    "prompt": "prompting",
}
SCORES = {"accuracy": "accuracy", "f1": "F1"}
LEVEL = verdicts.LEVEL


@dataclass(frozen=True)
class Inputs:
    """What tables are made from: ``summary.Results``, the frame of ``count_parameters``, where the paper's values are."""

    results: "summary.Results"  # noqa: F821
    parameters: "pd.DataFrame"  # noqa: F821
    directory: Path

    @property
    def with_paper(self):
        return self.results.settings["study"]["paper"]

    @property
    def model(self):
        return self.results.settings["model"]["name"]
