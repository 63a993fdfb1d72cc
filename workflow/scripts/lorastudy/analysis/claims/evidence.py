"""What claims are judged on: a study's results as the claims ask for them."""

import math

from lorastudy.analysis import collapse, comparisons, tuning
from lorastudy.analysis.claims import checks, measuring, verdicts
from lorastudy.statistics import permutation
from lorastudy.study import grid, paper


class Evidence:
    """The results of a study.

    Attributes:
        results: ``summary.Results``.
        margin: of equivalence, a fraction.
        rows: group of the comparisons of claims → metric → row.
        cells: cells of the summary at the configured learning rate.
        directory: where the paper's values are.
    """

    def __init__(self, results, directory=paper.DIRECTORY):
        self.results, self.directory = results, directory
        self.margin = results.settings["statistics"]["equivalence_margin"]
        self.cells = tuning.views(results.summary)[tuning.CONFIGURED]
        self.rows = {}
        of_claims = results.comparisons[results.comparisons.family.eq(measuring.FAMILY)]
        for row in of_claims.itertuples():
            self.rows.setdefault(row.group, {})[row.metric] = row
        every = results.comparisons
        averages = every[every.metric.eq("nll") & every.family.str.startswith("pooled_")]
        self._averages = {(row.view, row.family, row.a, row.b): row for row in averages.itertuples()}
        standard = self.cells[self.cells.scaling.eq("standard")]
        keys = zip(standard.method, standard.targets, standard.r.astype(int), standard.alpha.astype(float))
        self.planned = list(dict.fromkeys(keys))

    def measured(self, check, row, margin=None):
        """``verdicts.Measured`` of a check from its row of the comparisons (None if there is none)."""
        margin = self.margin if margin is None else margin
        if row is None:
            return verdicts.Measured(check, margin=margin, lacking=self.lacking(check))
        if math.isnan(row.low):
            return verdicts.Measured(check, row, margin=margin, lacking=row.reason)
        return verdicts.Measured(check, row, comparisons.estimate_of(row), margin)

    def beside(self, row):
        """The row of the comparisons by negative log-likelihood that belongs to one by accuracy; None without."""
        return self._averages.get((row.view, row.family, row.a, row.b))

    def permuted(self, axis):
        """p of exchanging the values of r or alpha among the runs of a set and seed; NaN without two complete blocks.

        Over all runs, those at chance among them: that they are is something that r or alpha does.
        """
        line = grid.trend(self.results.lines, axis)
        if line is None:
            return math.nan
        ran = self.cells[self.cells.status.isin(collapse.RAN)]
        ran = ran[[point in line.points for point in zip(ran.r, ran.alpha)]]
        blocks = ran.pivot_table(index=["method", "targets", "scaling", "seed"], columns=axis, values="accuracy")
        blocks = blocks.dropna() if blocks.shape[1] == len(line.points) else blocks.iloc[:0]
        return permutation.spread(blocks.to_numpy()) if len(blocks) > 1 else math.nan

    def lacking(self, check):
        cells = set(check.cells)
        if absent := sorted(cells - set(self.planned)):
            named = ", ".join(
                f"r = {r:g}, α = {alpha:g}" for r, alpha in list(dict.fromkeys(c[2:] for c in absent))[:3]
            )
            more = " and more" if len({cell[2:] for cell in absent}) > 3 else ""
            sets = {cell[:2] for cell in absent}
            of = "" if len(sets) > 1 else " of " + " on ".join(checks.NAMES.get(name, name) for name in sets.pop())
            return f"the grid has no {named}{more}{of}"
        return "not all of its cells have run"
