"""The studies in docs/results: which of their records are kept, and how they are read and shown."""

import shutil
from pathlib import Path

import pandas as pd
import yaml
from lorastudy.presentation import report
from lorastudy.presentation.figures import panels
from lorastudy.study import grid, settings

REPOSITORY = Path(__file__).resolve().parents[2]
HERE = REPOSITORY / "docs" / "results"
OF_CELLS = [
    "config.yaml", "results/summary.csv", "results/points.csv", "results/comparisons.csv", "paper_tables/claims.csv",
    "paper_tables/questions.csv", "paper_tables/*.md", "figures/*.png", "report.html", "logs/gpu.csv",
]  # fmt: skip
# studies of the paper's grid on real texts, each with its data set in a word or two
NAMES = {"smollm2": "film sentences", "clothing": "clothing reviews"}
TAKEN = {
    **dict.fromkeys(NAMES, OF_CELLS),
    "smollm2-alpha": OF_CELLS,
    "smollm2-learning-rates": OF_CELLS,
    "llama3-8b-rehearsal": [
        "config.yaml", "results/summary.csv", "results/curves.csv", "results/parameters.csv", "results/data/card.json", "paper_tables/claims.csv",
        "paper_tables/*.md", "logs/benchmarks/*.tsv", "logs/gpu.csv",
    ],
}  # fmt: skip


def take(study):
    """Copy the records of a study, none of them with weights or texts, to ``docs/results``.

    The report names the study's directory: as ``examples/…`` where it lies there, else by its place on the machine.
    """
    place = HERE / study.name
    if study.name not in TAKEN or study.resolve().parent.name != "examples":
        raise SystemExit(
            f"{study} is not one of examples/{{{','.join(TAKEN)}}}; its report would name this machine's paths."
        )
    shutil.rmtree(place, ignore_errors=True)
    for pattern in TAKEN[study.name]:
        for file in sorted(study.glob(pattern)):
            folder = {"results": "", "data": "", "logs": ""}.get(file.parent.name, file.parent.name)
            target = place / (folder if file.parent != study else "") / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    page = place / "report.html"
    if page.exists():  # the texts of the data are not ours to publish
        page.write_text(report.without_texts(page.read_text(encoding="utf-8")), encoding="utf-8")


def taken():
    """The studies that have records here, in the order of ``TAKEN``."""
    return [name for name in TAKEN if (HERE / name / "summary.csv").exists()]


def of_the_papers_grid():
    """Those of them that ran the paper's grid."""
    return [name for name in taken() if name in NAMES]


def short(name):
    """What a study of the paper's grid is called in a heading."""
    return f"SmolLM2, {NAMES[name]}"


def read(name, file):
    """A CSV of a study's records."""
    return pd.read_csv(HERE / name / file, dtype={"git_commit": str})


def settings_of(directory):
    """``settings.Settings`` of the study whose configuration lies in ``directory``."""
    return settings.load(yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8")))


def table(rows, align=None):
    """Rows as a table in Markdown, the first column to the left and the others to the right unless told."""
    frame = pd.DataFrame(rows)
    align = align or ["left"] + ["right"] * (frame.shape[1] - 1)
    return frame.to_markdown(index=False, disable_numparse=True, colalign=align)


def interval(row, score="accuracy"):
    """A score with its 95% interval; a dash without."""
    if not row.seeds:
        return "–"
    return f"{row[score]:.3f} [{row[f'{score}_low']:.3f}, {row[f'{score}_high']:.3f}]"


def line(axis, study):
    """The line of a study's grid along which r or alpha varies."""
    return grid.trend(grid.lines(study.grid), axis)


def values(axis, study):
    """The values of r or alpha along its line, in order."""
    return sorted(value[axis == "alpha"] for value in line(axis, study).points)


def along(points, axis, study):
    """The rows of ``points`` along which r or alpha varies."""
    return panels.along(points, line(axis, study))


def point(points, axis, value, study):
    """The row of ``points`` at a value of r or alpha, on its line."""
    found = along(points, axis, study)
    return found[found[axis].eq(value)].iloc[0]


def state(cells):
    """How many cells ended how, and whether that is all of them."""
    counts = cells.status.value_counts()
    text = ", ".join(
        f"{counts[status]} {status}" for status in ("finished", "collapsed", "diverged", "missing") if status in counts
    )
    if "missing" not in counts:
        return f"{len(cells)} cells: {text}."
    return f"**The grid is not complete yet.** {len(cells)} cells: {text}. What follows is of the finished ones alone."


def origin(cells):
    """The commit that made the cells, and whether its files were changed."""
    made = cells.dropna(subset=["git_commit"])
    commits = " and ".join(commit[:7] for commit in dict.fromkeys(made.git_commit))
    clean = "with uncommitted changes" if made.git_dirty.astype(bool).any() else "nothing uncommitted"
    return f"Made by commit {commits}, {clean}."


def gpu(name):
    """How long a study took on its GPUs and how busy these were."""
    file = HERE / name / "gpu.csv"
    if not file.exists():
        return "How busy the GPU was has not been measured."
    samples = pd.read_csv(file, skipinitialspace=True)
    gpus = samples["index"] if "index" in samples else pd.Series(0, index=samples.index)
    times = pd.to_datetime(samples["timestamp"].sort_values())
    steps = times.diff().dt.total_seconds()
    pauses = steps[steps > 5]  # readings are a second apart
    minutes = (steps.sum() - pauses.sum()) / 60
    on = "one GPU" if gpus.nunique() == 1 else f"up to {gpus.nunique()} GPUs ({len(samples) / 60:.1f} GPU-minutes)"
    stopped = f", in {len(pauses) + 1} runs, the last of which took up what the one before left" * bool(len(pauses))
    busy, watts = (samples.filter(like=column).iloc[:, 0] for column in ("utilization", "power.draw"))
    return (
        f"Data, model, baselines and all cells took {minutes:.1f} minutes on {on}{stopped}, and "
        f"{watts.sum() / 3.6e6:.3f} kWh. The GPUs were computing {busy.mean():.0f}% of that time ({len(samples)} "
        f"readings of `nvidia-smi`, in [`gpu.csv`](gpu.csv))."
    )
