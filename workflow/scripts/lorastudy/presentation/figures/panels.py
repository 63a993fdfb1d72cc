"""What of a study's points and cells goes into which panel of a figure."""

from lorastudy.analysis import tuning
from lorastudy.presentation.figures import style
from lorastudy.study import grid

SYMBOLS = grid.SYMBOLS


def points(results, view=tuning.CONFIGURED):
    """Rows of ``results.points`` of one view: each point of the grid once, with its scores over the seeds."""
    return results.points[results.points["view"] == view]


def cells(results, view=tuning.CONFIGURED):
    """The cells of these points: rows of the summary, one per seed."""
    return tuning.views(results.summary)[view]


def along(rows, line):
    """The rows whose points are on a line of the grid; none without a line."""
    return rows.iloc[:0] if line is None else rows.loc[line.holds(rows)]


def each(results):
    """The (targets, scaling) pairs of the study, one a panel."""
    wanted = results.settings["grid"]
    return [(targets, scaling) for targets in wanted["targets"] for scaling in wanted["scaling"]]


def of(rows, method=None, panel=None):
    """The rows of a method and of a (targets, scaling) pair."""
    if method is not None:
        rows = rows[rows.method == method]
    if panel is not None:
        rows = rows[(rows.targets == panel[0]) & (rows.scaling == panel[1])]
    return rows


def finished(rows):
    """The cells that have learned: those whose scores are drawn."""
    return rows[rows.status.eq("finished")]


def runs(rows, point):
    """The finished cells of a point."""
    same = (rows[[*tuning.POINT, "learning_rate"]] == point[[*tuning.POINT, "learning_rate"]]).all(axis=1)
    return finished(rows[same])


def title(panel, method=None):
    """What a panel is called: its target set, with the method in front if it has one."""
    targets, scaling = panel
    text = style.TARGETS[targets] if method is None else f"{style.METHODS[method]}, {style.TARGETS[targets]}"
    begin = 0 if method is None and targets not in style.TARGETS else 1  # what the configuration calls it stays so
    return text[:begin].upper() + text[begin:] + ("" if scaling == grid.STANDARD else ", rank-stabilised")


def name(point):
    """A point of the grid in words."""
    return f"{title((point.targets, point.scaling), point.method)}, r = {point.r:g}, α = {point.alpha:g}"


def rate(results):
    return f"learning rate {results.settings['training']['learning_rate']:g}"


def several_seeds(results):
    return len(results.settings["grid"]["seeds"]) > 1
