"""The cells of a study: one fine-tuning run for each (method, targets, r, alpha, seed) of the grid.

Two more axes are off by default: the learning rate and how alpha scales the adapters. A cell at their default has
neither in its name nor in its record, so that switching an axis on leaves it as it is. Two methods are controls
without adapters, and so without targets, r and alpha: one cell each for every seed.
"""

import difflib
from dataclasses import asdict, dataclass

STANDARD = "standard"
ATTENTION, MLP, ALL_LINEAR = TARGETS = ("attention", "mlp", "all-linear")  # sets that every decoder has
HEAD_ALONE, FULL = CONTROLS = ("head", "full")
METHODS = {
    "lora": "LoRA",
    "qlora": "QLoRA",
    "dora": "DoRA",
    "adalora": "AdaLoRA",
    HEAD_ALONE: "head alone",
    FULL: "full fine-tuning",
}


@dataclass(frozen=True)
class Cell:
    """One fine-tuning run.

    Attributes:
        method: ``lora`` (adapters on the base model), ``qlora`` (on its NF4-quantized form), ``dora`` or ``adalora`` (on
            the base model); ``head`` (the classification head alone) or ``full`` (all weights).
        targets: name of the target set: ``attention``, ``mlp``, ``all-linear`` or one of the configuration's; None of a
            control.
        r: rank of the adapters, of AdaLoRA the one that is left on average; None of a control.
        alpha: the adapters' output is scaled by alpha / r; None of a control.
        seed: seed of head, adapters and order of the data.
        learning_rate: peak learning rate of this cell; None for ``training.learning_rate``.
        scaling: ``standard`` (alpha / r) or ``rank-stabilised`` (alpha / sqrt(r)).
        modules: what a target set of the configuration names; None of one that every decoder has.
    """

    method: str
    targets: str | None
    r: int | None
    alpha: float | None
    seed: int
    learning_rate: float | None = None
    scaling: str = STANDARD
    modules: tuple | None = None

    def __post_init__(self):
        if self.modules is not None:  # of a record they come as a list
            object.__setattr__(self, "modules", tuple(self.modules))

    @property
    def id(self):
        """Name of the cell's directory. An index into the grid: look the cell up, never take the name apart."""
        rate = "" if self.learning_rate is None else f"_lr{self.learning_rate:g}"
        scaling = "" if self.scaling == STANDARD else "_rs"
        adapters = "" if self.method in CONTROLS else f"_{self.targets}_r{self.r}_a{self.alpha:g}"
        return f"{self.method}{adapters}{rate}{scaling}_s{self.seed}"

    def training_overrides(self):
        """The keys of the configuration's block ``training`` that this cell has values of its own for."""
        return {} if self.learning_rate is None else {"learning_rate": self.learning_rate}

    def as_dict(self):
        """Plain dictionary, without the axes that are at their default."""
        default = {"learning_rate": None, "scaling": STANDARD, "modules": None}
        kept = {key: value for key, value in asdict(self).items() if key not in default or value != default[key]}
        return kept | ({"modules": list(self.modules)} if self.modules else {})


def points(grid):
    """The (r, alpha) pairs of a ``settings.Grid``, each once: r trend first, then what the alpha trend adds."""
    if grid.design == "full":
        return [(r, alpha) for r in grid.r for alpha in grid.alpha]
    trends = [(r, grid.constant_alpha) for r in grid.r] + [(grid.constant_r, alpha) for alpha in grid.alpha]
    return list(dict.fromkeys(trends))


def cells(grid):
    """All cells of a ``settings.Grid`` by id: the standard ones first, by seeds, methods, targets, r and alpha."""
    return {
        cell.id: cell
        for cell in (
            Cell(method, targets, r, alpha, seed, learning_rate, scaling)
            for scaling in sorted(grid.scaling, key=lambda name: name != STANDARD)
            for learning_rate in (None, *grid.learning_rates)
            for seed in grid.seeds
            for method in grid.methods
            for targets in grid.targets
            for r, alpha in points(grid)
        )
    }


def nearest(name, known, n=3):
    """The ``n`` ids in ``known`` that resemble ``name`` most, best first."""
    return difflib.get_close_matches(name, list(known), n=n, cutoff=0.0)
