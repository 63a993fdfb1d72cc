"""The cells of a study: one fine-tuning run for each (method, targets, r, alpha, seed) of the grid."""

import difflib
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Cell:
    """One fine-tuning run.

    Attributes:
        method: ``lora`` (adapters on the base model) or ``qlora`` (on its NF4-quantized form).
        targets: target modules, ``attention`` or ``all-linear``.
        r: rank of the adapters.
        alpha: the adapters' output is scaled by alpha / r.
        seed: seed of head, adapters and order of the data.
    """

    method: str
    targets: str
    r: int
    alpha: float
    seed: int

    @property
    def id(self):
        """Name of the cell's directory. An index into the grid: look the cell up, never take the name apart."""
        return f"{self.method}_{self.targets}_r{self.r}_a{self.alpha:g}_s{self.seed}"

    def as_dict(self):
        return asdict(self)


def points(grid):
    """The (r, alpha) pairs of a ``settings.Grid``, each once: r trend first, then what the alpha trend adds."""
    if grid.design == "full":
        return [(r, alpha) for r in grid.r for alpha in grid.alpha]
    trends = [(r, grid.constant_alpha) for r in grid.r] + [(grid.constant_r, alpha) for alpha in grid.alpha]
    return list(dict.fromkeys(trends))


def cells(grid):
    """All cells of a ``settings.Grid`` by id, in the order of seeds, methods, targets, r and alpha."""
    return {
        cell.id: cell
        for cell in (
            Cell(method, targets, r, alpha, seed)
            for seed in grid.seeds
            for method in grid.methods
            for targets in grid.targets
            for r, alpha in points(grid)
        )
    }


def nearest(name, known, n=3):
    """The ``n`` ids in ``known`` that resemble ``name`` most, best first."""
    return difflib.get_close_matches(name, list(known), n=n, cutoff=0.0)
