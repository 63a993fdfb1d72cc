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
ADAPTERS = {"lora": "LoRA", "qlora": "QLoRA", "dora": "DoRA", "adalora": "AdaLoRA"}
METHODS = ADAPTERS | {HEAD_ALONE: "head alone", FULL: "full fine-tuning"}
CELL, CONTROL, BASELINE = "cell", "control", "baseline"  # kinds of results
ADALORA_STEPS = 3  # optimizer steps at least: one to score the ranks, one to share them out, one with what is left
SYMBOLS = {"r": "r", "alpha": "α"}
AXES = tuple(SYMBOLS)  # along which the lines of a grid run


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

    @property
    def kind(self):
        """``cell``, a point of the grid, or ``control``."""
        return CONTROL if self.method in CONTROLS else CELL

    def training_overrides(self):
        """The keys of the configuration's block ``training`` that this cell has values of its own for."""
        return {} if self.learning_rate is None else {"learning_rate": self.learning_rate}

    def as_dict(self):
        """Plain dictionary, without the axes that are at their default."""
        default = {"learning_rate": None, "scaling": STANDARD, "modules": None}
        kept = {key: value for key, value in asdict(self).items() if key not in default or value != default[key]}
        return kept | ({"modules": list(self.modules)} if self.modules else {})


@dataclass(frozen=True)
class Line:
    """A named line of the grid: points of r and alpha along which one of the two varies, or both.

    Attributes:
        name: as the configuration has it.
        varies: ``r`` (alpha is constant or a multiple of r), ``alpha`` (r is constant) or ``both`` (every r with every
            alpha).
        points: (r, alpha) pairs, in the order of the configuration.
    """

    name: str
    varies: str
    points: tuple

    @property
    def held(self):
        """What r or alpha follows while the other varies: ("alpha", 32), ("ratio", 2) for alpha = 2 r, or ("r", 8).

        None where both vary.
        """
        if self.varies == "both":
            return None
        if self.varies == "alpha":
            return "r", self.points[0][0]
        if len({alpha for _, alpha in self.points}) == 1:
            return "alpha", self.points[0][1]
        return "ratio", _ratio(self.points[0][1] / self.points[0][0])

    @property
    def words(self):
        """What r or alpha follows, in words: ``α = 2 r``, ``α = 32``, ``r = 8``, ``every r with every α``."""
        if self.held is None:
            return "every r with every α"
        name, value = self.held
        return f"α = {value:g} r" if name == "ratio" else f"{SYMBOLS[name]} = {value:g}"

    def holds(self, rows):
        """Which rows of a data frame with the columns ``r`` and ``alpha`` are on the line, as a list of booleans."""
        points = frozenset(self.points)  # by hash, for a control has neither r nor alpha to compare
        return [point in points for point in zip(rows.r, rows.alpha)]

    def along(self, axis):
        """The lines within this one along which ``axis`` (``r`` or ``alpha``) varies alone.

        Itself or none; where both vary, one for each value of the other.
        """
        if self.varies != "both":
            return (self,) if self.varies == axis else ()
        index, other = (1, "alpha") if axis == "r" else (0, "r")
        return tuple(
            Line(
                f"{self.name}, {other} = {value:g}",
                axis,
                tuple(point for point in self.points if point[index] == value),
            )
            for value in dict.fromkeys(point[index] for point in self.points)
        )


def lines(grid):
    """The lines of a ``settings.Grid``, in the configuration's order."""
    return tuple(_line(name, rule) for name, rule in grid.lines.items())


def _line(name, rule):
    ranks, several_r = _listed(rule["r"])
    if rule["alpha_ratio"] is not None:
        return Line(name, "r", tuple((r, _ratio(rule["alpha_ratio"] * r)) for r in ranks))
    alphas, several_alpha = _listed(rule["alpha"])
    varies = "both" if several_r and several_alpha else "alpha" if several_alpha else "r"
    return Line(name, varies, tuple((r, alpha) for r in ranks for alpha in alphas))


def _listed(value):
    """The values of a number or list, and whether it is a list."""
    several = isinstance(value, list | tuple)
    return [_whole(each) for each in (value if several else [value])], several


def _whole(value):
    """A whole number as an int: 16.0 and 16 are one alpha, in ids as in records."""
    return int(value) if float(value).is_integer() else value


def _ratio(value):
    """A product or quotient without the binary rest: 0.1 times 3 is 0.3."""
    return _whole(float(f"{value:.12g}"))


def trend(lines, axis):
    """The line that shows what ``axis`` (``r`` or ``alpha``) does: the first along which it varies alone.

    Where there is only a cross product, the one at the middle value of the other. None if ``axis`` varies nowhere.
    """
    if own := [line for line in lines if line.varies == axis]:
        return own[0]
    for line in lines:
        if parts := sorted(line.along(axis), key=lambda part: part.held[1]):
            return parts[(len(parts) - 1) // 2]
    return None


def points(grid):
    """The (r, alpha) pairs of a ``settings.Grid``, each once: line by line."""
    return list(dict.fromkeys(point for line in lines(grid) for point in line.points))


def cells(grid):
    """All cells of a ``settings.Grid`` by id: the standard ones first, by seeds, methods, targets, r and alpha."""
    return {
        cell.id: cell
        for scaling in sorted(grid.scaling, key=lambda name: name != STANDARD)
        for learning_rate in (None, *grid.learning_rates)
        for seed in grid.seeds
        for method in grid.methods
        for cell in _cells(grid, method, seed, learning_rate, scaling)
    }


def _cells(grid, method, seed, learning_rate, scaling):
    if method in CONTROLS:
        # nothing is scaled
        return [Cell(method, None, None, None, seed, learning_rate)] if scaling == grid.scaling[0] else []
    modules = {name: tuple(ends) for name, ends in grid.target_sets.items()}
    return [
        Cell(method, targets, r, alpha, seed, learning_rate, scaling, modules.get(targets))
        for targets in grid.targets
        for r, alpha in points(grid)
    ]


def nearest(name, known, n=3):
    """The ``n`` ids in ``known`` that resemble ``name`` most, best first."""
    return difflib.get_close_matches(name, list(known), n=n, cutoff=0.0)
