"""How far a study is, from what its jobs leave on disk alone: records, logs, leases and notes of attempts.

So it is seen the same way on a laptop, on the cluster's login node and from another user's account, and looking
disturbs nothing.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from lorastudy.jobs import attempts, lease
from lorastudy.study import layout, records

WAITING, TRAINING, EVALUATING, DONE, DIVERGED, FAILED = (
    "waiting", "training", "evaluating", "done", "diverged", "failed",
)  # fmt: skip
TAIL = 8192  # bytes of a log that its last line of progress is looked for in

_STEP = re.compile(
    r"step (?P<step>\d+)/(?P<steps>\d+)  loss (?P<loss>\S+) .*?(?P<rate>[\d.]+) samples/s .*?(?P<left>\d+:\d\d:\d\d) left"
)
_WORKFLOW = re.compile(r"^(?P<done>\d+) of (?P<all>\d+) steps \(", re.MULTILINE)
_PACK = re.compile(r"evaluated (?P<step>\d+) of (?P<steps>\d+) packs")


@dataclass(frozen=True)
class State:
    """Where a cell stands.

    Attributes:
        cell: its id.
        phase: one of the names above.
        step, steps: optimizer steps (training) or packs (evaluation) done and in all; None before the first.
        loss: last logged mean training loss.
        samples_per_second: of training.
        left: time left in this phase, ``h:mm:ss``.
        location: host or Slurm job of a running cell.
        note: reason of a failure, or what a waiting cell has already.
        log: path of the log to look into.
        accuracy: of a cell that is done, a fraction.
        seconds: time that a finished cell took, training and evaluation.
        job_seconds: time of its jobs, imports and loading included; None where Snakemake did not note it.
    """

    cell: str
    phase: str
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    samples_per_second: float | None = None
    left: str | None = None
    location: str | None = None
    note: str | None = None
    log: str | None = None
    accuracy: float | None = None
    seconds: float | None = None
    job_seconds: float | None = None


def states(study, cells):
    """``State`` of every cell of the study in the current directory, in the grid's order.

    Args:
        study: ``settings.Settings``.
        cells: ``grid.Cell`` by id.
    """
    running = lease.living()
    return [_state(name, study.cell_spec(cell), running.get(name)) for name, cell in cells.items()]


def _state(name, spec, holder):
    directory = layout.cell(name)
    logs = {step: Path("logs", "cells", f"{name}.{step}.log") for step in ("finetune", "evaluate")}
    if holder is not None:
        return _running(name, holder, logs)
    if (measured := _read(directory / "metrics.json")) and measured["provenance"]["config"] == spec:
        return _finished(name, measured, _read(directory / "training.json"))
    for step in ("evaluate", "finetune"):
        if failures := attempts.failures_of(f"{step}.{name}"):
            last = failures[-1]
            tried = f" ({len(failures)} attempts)" if len(failures) > 1 else ""
            return State(name, FAILED, note=f"{last['cause']}{tried}: {last['reason']}", log=str(last["log"]))
    if measured:
        return State(name, WAITING, note="its result is of another configuration")
    trained = _read(directory / "training.json")
    if trained and trained["provenance"]["config"] == spec:
        return State(name, WAITING, note="trained, not evaluated yet")
    kept = sorted(Path("results", "checkpoints", name).glob("step*.safetensors"))
    return State(name, WAITING, note=f"kept a checkpoint after step {int(kept[-1].stem[4:])}" if kept else None)


def _running(name, holder, logs):
    location = f"Slurm job {holder['slurm_job']}" if holder["slurm_job"] else holder["host"]
    evaluating = logs["evaluate"].exists() and (
        not logs["finetune"].exists() or logs["evaluate"].stat().st_mtime > logs["finetune"].stat().st_mtime
    )
    if evaluating:
        found = _last(_PACK, logs["evaluate"])
        steps = {key: int(value) for key, value in found.items()}
        return State(name, EVALUATING, location=location, log=str(logs["evaluate"]), **steps)
    found = _last(_STEP, logs["finetune"])
    if not found:
        return State(name, TRAINING, location=location, log=str(logs["finetune"]))
    return State(
        name,
        TRAINING,
        step=int(found["step"]),
        steps=int(found["steps"]),
        loss=float(found["loss"]),
        samples_per_second=float(found["rate"]),
        left=found["left"],
        location=location,
        log=str(logs["finetune"]),
    )


def _finished(name, measured, trained):
    seconds = (trained or {}).get("seconds", 0) + (measured["evaluation"] or {}).get("seconds", 0)
    times = {"seconds": seconds, "job_seconds": _job_seconds(name)}
    if measured["status"] == "diverged":
        note = f"at step {trained['diverged_step']}, learning rate {trained['diverged_learning_rate']:.3g}"
        return State(name, DIVERGED, note=note, **times)
    return State(name, DONE, accuracy=measured["metrics"]["accuracy"], **times)


def _job_seconds(name):
    """Wall time of a cell's jobs by what they took (``usage``), whose first column it is; None without them."""
    files = [Path("logs", "benchmarks", f"{name}.{step}.tsv") for step in ("finetune", "evaluate")]
    rows = [path.read_text(encoding="utf-8").splitlines()[1:] for path in files if path.exists()]
    found = [float(row[-1].split("\t")[0]) for row in rows if row]
    return sum(found) if found else None


def _last(pattern, path):
    """Groups of the last match in a log; empty without one."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            tail = file.read().decode(errors="replace")
    except FileNotFoundError:
        return {}
    found = [*pattern.finditer(tail)]
    return found[-1].groupdict() if found else {}


def _read(path):
    try:
        return records.read_json(path)
    except FileNotFoundError:
        return None


def unmade(study):
    """What all cells need, or stand beside, and is not there yet, in words."""
    needed = {"base model": f"{layout.BASE}/config.json", "data": layout.CARD}
    if "qlora" in study.grid.methods:
        needed["NF4 model"] = f"{layout.NF4}/config.json"
    needed |= {f"baseline {name}": layout.baseline(name) / "metrics.json" for name in ("head", "prompt")}
    return [what for what, path in needed.items() if not Path(path).exists()]


def seconds_left(found):
    """Time until all cells are done at the pace of the finished ones, with as many at once as now; None if unknown.

    Args:
        found: list of ``State``.
    """
    took = [state.job_seconds or state.seconds for state in found if state.phase == DONE]
    running = sum(state.phase in (TRAINING, EVALUATING) for state in found)
    open_cells = sum(state.phase in (WAITING, TRAINING, EVALUATING) for state in found)
    if not took or not running:
        return None
    return open_cells * sum(took) / len(took) / running


def steps(log):
    """Done and planned steps of the workflow, as Snakemake's output in the file ``log`` has them; None before the first."""
    found = _last(_WORKFLOW, Path(log))
    return (int(found["done"]), int(found["all"])) if found else None
