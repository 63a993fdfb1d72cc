"""How figures look: sizes, colours, markers, axes, and files whose bytes depend on what is drawn alone.

A method has a colour, a fill and a line style, a target set a marker, a baseline a line style: the three that a print
in grey keeps. matplotlib is imported inside of functions, for the workflow reads the figures' names without it.
"""

import importlib.util
import math
import os
import textwrap
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lorastudy.study import settings
from lorastudy.study.grid import ADAPTERS

ONE_COLUMN, TWO_COLUMNS = 3.5, 7.2  # widths, inches
METHODS = ADAPTERS


class _Named(dict):
    """Words for names, of which those of the configuration are their own."""

    def __missing__(self, name):
        return name


TARGETS = _Named({"attention": "attention", "all-linear": "all linear layers", "mlp": "MLP"})
BASELINES = {"head": "Base model (untrained head)", "prompt": "Base model (prompted)"}
STATUSES = {  # of cells and baselines without numbers, or with those of chance
    "collapsed": "at chance",
    "diverged": "diverged",
    "missing": "missing",
    "stale": "out of date",
    "refused": "not possible",
}
AXES = {"r": "Rank r", "alpha": "α"}
METRICS = {"accuracy": "Accuracy", "f1": "F1, weighted"}
SCORES = METRICS | {"precision": "Precision, weighted", "recall": "Recall, weighted"}  # those of the paper
MARKERS = {"attention": "o", "all-linear": "s", "mlp": "^"}
FURTHER = ("v", "D", "P", "X", "<", ">", "p", "h", "*")  # markers of the configuration's target sets, in their order
COLOURS = {"dora": "#009E73", "adalora": "#CC79A7"}  # Okabe and Ito 2008, as the configuration's own by default
LINES = {
    "lora": "-",
    "qlora": (0, (4, 1.5)),
    "dora": (0, (5, 1, 1, 1)),
    "adalora": (0, (3, 1, 1, 1, 1, 1)),
    "head": (0, (6, 2)),
    "prompt": (0, (1, 1.5)),
}
HOLES = {"collapsed": "X", "diverged": "x", "missing": "+", "stale": "1"}  # markers
DARK = "#222222"
STEPS = [1, 2, 2.5, 5, 10]  # of ticks on linear axes
MAP = "cividis"  # rises evenly in lightness, with and without colour vision

RC = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "figure.titlesize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 4,
    "lines.markeredgewidth": 0.9,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "legend.columnspacing": 1.4,
    "pdf.fonttype": 42,  # TrueType, embedded: publishers refuse type 3
    "figure.constrained_layout.use": True,
    "text.parse_math": False,  # names of classes mean themselves, $ and _ and ^ included
}


@contextmanager
def alone():
    """matplotlib as it comes, with ``RC``: neither a user's matplotlibrc nor MPLBACKEND changes a figure.

    They are read when matplotlib is imported; of the files, the current directory's goes before the one that a variable
    names, and that one before those of the home directory.
    """
    os.environ.pop("MPLBACKEND", None)
    package = Path(importlib.util.find_spec("matplotlib").origin).parent
    os.environ["MATPLOTLIBRC"] = str(package / "mpl-data" / "matplotlibrc")
    with chdir(Path(__file__).parent):
        import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        yield


def short(names, longest):
    """Names of classes as labels of at most ``longest`` characters, letter by letter; and what explains them.

    A name in a script that the font lacks, or that cut short would be another's, is replaced by its number.

    Returns:
        list of labels, all different; a sentence for the caption that gives the names behind them, or nothing.
    """
    from matplotlib import font_manager, ft2font

    known = ft2font.FT2Font(font_manager.findfont(RC["font.family"])).get_charmap()
    whole = [" ".join(str(name).split()) or "(empty)" for name in names]
    cut = [name if len(name) <= longest else f"{name[: longest - 1]}…" for name in whole]
    labels = [
        f"class {number}" if cut.count(label) > 1 or any(ord(letter) not in known for letter in label) else label
        for number, (name, label) in enumerate(zip(whole, cut), 1)
    ]
    changed = [f"{label} is “{name}”" for label, name in zip(labels, whole) if label != name]
    return labels, f"Names that the figure abbreviates: {', '.join(changed)}." if changed else ""


def subplots(rows, columns, width, height, **options):
    """A figure of ``width`` × ``height`` inches and its axes, shape (``rows``, ``columns``)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def save(figure, path, suffix, dpi):
    """Write ``figure`` as ``pdf`` or ``png``, without date or version: the same figure gives the same bytes."""
    nothing = {"pdf": ("CreationDate", "Creator", "Producer"), "png": ("Software",)}[suffix]
    figure.savefig(path, format=suffix, dpi=dpi, metadata=dict.fromkeys(nothing))


def title(axes, text, columns, **look):
    """Title of one of ``columns`` panels side by side; its lines are broken where they would not fit."""
    width = 100 // max(columns, 2)
    lines = (textwrap.fill(line, width, break_on_hyphens=False) for line in text.split("\n"))
    axes.set_title("\n".join(lines), loc="left", **look)


def colour(look, name):
    """Colour of a method or baseline by the configuration's block ``figures``."""
    return ({"lora": look.lora_colour, "qlora": look.qlora_colour} | COLOURS).get(name, look.baseline_colour)


@dataclass(frozen=True)
class Look(settings.Figures):
    """The configuration's block ``figures``, and the target sets that are drawn."""

    targets: tuple = ()


def marker(look, targets):
    """Marker of a target set."""
    own = [name for name in getattr(look, "targets", ()) if name not in MARKERS]
    return MARKERS[targets] if targets in MARKERS else FURTHER[own.index(targets) % len(FURTHER)]


def mark(look, method, targets):
    """Keywords of a point of this method (colour, fill) and target set (shape)."""
    edge = colour(look, method)
    return {
        "marker": marker(look, targets),
        "color": edge,
        "markeredgecolor": edge,
        "markerfacecolor": "white" if method in {"qlora", "adalora"} else edge,
    }


def log2_axis(axis, values, inches, ticks=None):
    """Logarithmic x axis of base 2 with plain numbers at its ticks, as far as their labels have room.

    Args:
        axis: axes.
        values: what is drawn along x; at least one, all positive.
        inches: width of the axes, about.
        ticks: where the ticks are; the values themselves if None.
    """
    values = sorted({float(value) for value in values})
    low, high = math.log2(values[0]), math.log2(values[-1])
    span = max(high - low, 1.0)
    axis.set_xscale("log", base=2)
    margin = 0.08 * span if high > low else 0.5
    axis.set_xlim(2 ** (low - margin), 2 ** (high + margin))
    ticks = values if ticks is None else ticks
    positions = {tick: (math.log2(tick) - low) / span / 1.16 * inches for tick in ticks}
    sparse = (_with_room(ticks[::step], positions) for step in (1, 2, 3))
    kept = next((some for step, some in enumerate(sparse, 1) if some == ticks[::step]), _with_room(ticks, positions))
    axis.set_xticks(kept, [plain(tick) for tick in kept])
    axis.set_xticks([tick for tick in ticks if tick not in kept], minor=True)
    axis.xaxis.set_minor_formatter(lambda value, position: "")


def _with_room(ticks, positions):
    """Those of the ticks, from the left, whose labels do not touch; ``positions`` are inches."""
    kept, end = [], -math.inf
    for tick in ticks:
        half = len(plain(tick)) * 0.026 + 0.02  # a digit is about 0.052 inches wide
        if positions[tick] - half >= end:
            kept.append(tick)
            end = positions[tick] + half
    return kept


def plain(value):
    """A number as people write it: 8, 0.3, 1/16."""
    below = 1 / value
    return f"1/{below:g}" if below >= 2 and below.is_integer() else f"{round(value, 3):g}"


def aside(values, index, count):
    """``values`` of a log2 axis moved a little, so that the intervals of ``count`` series do not hide each other."""
    values = [float(value) for value in values]
    span = max(math.log2(max(values) / min(values)), 1.0) if values else 1.0
    return [value * 2 ** ((index - (count - 1) / 2) * 0.022 * span) for value in values]


def positive_axis(axes, values):
    """x axis of positive values, such as parameters or seconds: logarithmic where they differ by more than six times."""
    from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator

    low, high = min(values), max(values)
    if high > 6 * low > 0:
        axes.set_xscale("log")
        steps = (1, 2, 5) if high < 300 * low else (1, 3)
        axes.xaxis.set_major_locator(LogLocator(subs=steps, numticks=30))
        axes.xaxis.set_minor_formatter(lambda value, position: "")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
        if high == low:
            axes.set_xlim(low / 1.5, low * 1.5 or 1)
    large = EngFormatter(sep="")
    axes.xaxis.set_major_formatter(lambda value, position: large(value) if value >= 1000 else f"{value:g}")


def reach(points, score, singles=()):
    """Lowest and highest of a score that its axis has to show; None without any.

    All values, and their intervals; but one that is far wider than the others ends at the edge, since it would press
    everything else flat (``captions.cut`` gives its ends).

    Args:
        points: rows with the score and its interval.
        singles: values of single seeds that are drawn too.
    """
    drawn = points[points[score].notna()]
    if drawn.empty:
        return None
    values = [*drawn[score], *singles]
    lows, highs = drawn[f"{score}_low"], drawn[f"{score}_high"]
    room = max((highs - lows).median(), 0.5 * (max(values) - min(values)))
    low, high = min(values) - room, max(values) + room
    return max(low, min(lows.min(), *values)), min(high, max(highs.max(), *values))


def limit(axes, ranges, margin=0.1, marks=False):
    """y axis that shows these (low, high) ranges of a score; ``marks``: with room below for those of holes."""
    low, high = min((low for low, _ in ranges), default=0.05), max((high for _, high in ranges), default=0.95)
    room = max(high - low, 0.01) * margin
    axes.set_ylim(low - (1.9 if marks else 1) * room, high + room)


def bars(axes, x, points, score, colour, alpha=1.0):
    """Vertical intervals of a score at ``x``, of the points that have it."""
    drawn = points[score].notna().to_numpy()
    x = [position for position, has in zip(x, drawn) if has]
    low, high = points[f"{score}_low"][drawn], points[f"{score}_high"][drawn]
    axes.vlines(x, low, high, color=colour, linewidth=0.8, alpha=alpha)


def thick(axes, x, y, half, colour):
    """A thick bar of ± ``half`` around a score, within its interval."""
    axes.plot(
        [x, x], [y - half, y + half], color=colour, linewidth=3.0, alpha=0.75, solid_capstyle="butt", label="_inner"
    )


def lost(axes, x, y, status, count, colour):
    """A mark for runs without a value in a strip of their own; how many, if several."""
    axes.plot([x], [y], marker=HOLES[status], color=colour, linestyle="none", label=f"_{status}")
    if count > 1:
        axes.annotate(f"{count}", (x, y), (4, 0), textcoords="offset points", va="center", fontsize=5.5, color=colour)


def singles(axes, x, y, colour):
    """Small points, one per seed."""
    axes.plot(x, y, ".", color=colour, markersize=2.2, alpha=0.6, label="_seeds")


def crosses(axes, x, statuses, colour, level):
    """A mark above the lower edge at each ``x`` whose cell has no value; those of another ``level`` are higher up."""
    for position, status in zip(x, statuses):
        if status not in HOLES:  # the legend names it
            continue
        axes.plot(
            [float(position)], [0.035 + 0.055 * level], transform=axes.get_xaxis_transform(), marker=HOLES[status],
            color=colour, linestyle="none", label=f"_{status}",
        )  # fmt: skip


def colour_bar(figure, shades, axes, label):
    bar = figure.colorbar(shades, ax=axes, shrink=0.7, aspect=30, pad=0.02)
    bar.set_label(label)
    bar.outline.set_linewidth(0.6)


def legend(figure, handles):
    """One legend for the whole figure, above it, in as many columns as have room."""
    if not handles:
        return
    # a character is about 0.052 inches wide; symbol and gaps take what 9 characters do
    widths = [9 + len(handle.get_label()) for handle in handles]
    for columns in range(len(handles), 0, -1):
        split = np.array_split(widths, columns)  # as matplotlib fills the columns
        if 0.052 * sum(max(part) for part in split) <= figure.get_figwidth():
            break
    figure.legend(handles=handles, loc="outside upper center", ncols=columns)


def handle(label, **look):
    """Legend entry that is drawn nowhere else."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **look)


def hole_handles(statuses, drawn=tuple(HOLES)):
    """Legend entries of the cells without a value: how many of each status; those not ``drawn`` have no marker."""
    handles = []
    for status, text in STATUSES.items():
        if count := list(statuses).count(status):
            marker, lead = (HOLES[status], "") if status in drawn else ("", "not drawn: ")
            handles.append(handle(f"{lead}{text} ({count})", linestyle="none", marker=marker, color=DARK))
    return handles


def empty(axes):
    """Say in the middle of the axes that there is nothing to draw."""
    axes.text(0.5, 0.5, "no finished run", ha="center", va="center", transform=axes.transAxes)
