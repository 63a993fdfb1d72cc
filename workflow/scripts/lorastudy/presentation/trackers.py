"""Training logs of a finished study for experiment trackers: TensorBoard's event files, MLflow's runs.

Written from the records alone, so that training knows nothing of trackers. Their packages are imported when they are asked
for and are no dependencies of the pipeline.
"""

import math
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from lorastudy.study import grid, layout, records
from lorastudy.study.errors import StudyError

LOGGED = ("loss", "learning_rate", "grad_norm", "epoch", "samples_per_second", "tokens_per_second")
SCORED = ("accuracy", "f1", "precision", "recall", "mae", "nll", "ece")
CELL_TAG = "lorastudy.cell"  # by which a run in MLflow is found again
BATCH = 1000  # metrics that MLflow takes at once


class TrackerError(StudyError):
    """A tracker that nothing can be written for."""


@dataclass(frozen=True)
class Run:
    """A cell as trackers see it.

    Attributes:
        name: the cell's id.
        parameters: name → value.
        points: list of (time in seconds since 1970, step, name → value), in order.
    """

    name: str
    parameters: dict
    points: list


def runs(study, directory="."):
    """A ``Run`` of every cell of the study (``settings.Settings``) that has been trained, in the grid's order.

    Raises:
        TrackerError: there is none.
    """
    found = [_run(layout.cell(name, directory)) for name in grid.cells(study.grid)]
    if not any(found):
        raise TrackerError(f"{directory}: no cell has a training log yet; run the study first.")
    return [run for run in found if run]


def _run(directory):
    if not ((directory / "training.json").exists() and (directory / "training_log.csv").exists()):
        return None
    trained = records.read_json(directory / "training.json")
    log = pd.read_csv(directory / "training_log.csv")
    begun = datetime.fromisoformat(trained["provenance"]["time_utc"]).timestamp() - trained["seconds"]
    points = [
        (begun + row["seconds"], int(row["step"]), {f"training/{name}": row[name] for name in LOGGED if name in row})
        for row in log.to_dict("records")
    ]
    if (directory / "metrics.json").exists() and (scores := records.read_json(directory / "metrics.json")["metrics"]):
        end = points[-1][:2] if points else (begun + trained["seconds"], trained["steps"])
        points.append((*end, {f"test/{name}": scores[name] for name in SCORED}))
    numbers = [
        (
            time,
            step,
            {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)},
        )
        for time, step, values in points
    ]
    parameters = trained["cell"] | trained["provenance"]["config"]["training"] | {"status": trained["status"]}
    return Run(directory.name, parameters, numbers)


def to_tensorboard(found, output):
    """Write event files, a directory a run, below ``output``; those of an earlier export are replaced.

    Raises:
        TrackerError: TensorBoard is not installed.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError as fault:
        raise _not_installed("tensorboard", fault) from None
    for run in found:
        directory = Path(output, run.name)
        shutil.rmtree(directory, ignore_errors=True)
        writer = EventFileWriter(str(directory))
        for time, step, values in run.points:
            scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
            writer.add_event(Event(wall_time=time, step=step, summary=Summary(value=scalars)))
        writer.close()


def to_mlflow(found, uri, experiment):
    """Write a run each into an experiment of the MLflow server or database ``uri``; those of an earlier export are replaced.

    Raises:
        TrackerError: MLflow is not installed, or does not take them.
    """
    try:
        from mlflow.entities import Metric, Param
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError as fault:
        raise _not_installed("mlflow", fault) from None
    try:
        client = MlflowClient(tracking_uri=uri)
        known = client.get_experiment_by_name(experiment)
        home = known.experiment_id if known else client.create_experiment(experiment)
        for run in found:
            for earlier in client.search_runs([home], f"tags.`{CELL_TAG}` = '{run.name}'"):
                client.delete_run(earlier.info.run_id)
            times = [round(1000 * time) for time, _, _ in run.points] or [0]
            made = client.create_run(
                home, start_time=times[0], run_name=run.name, tags={CELL_TAG: run.name}
            ).info.run_id
            metrics = [
                Metric(name, value, time, step)
                for time, (_, step, values) in zip(times, run.points)
                for name, value in values.items()
            ]
            client.log_batch(made, params=[Param(name, str(value)) for name, value in run.parameters.items()])
            for start in range(0, len(metrics), BATCH):
                client.log_batch(made, metrics=metrics[start : start + BATCH])
            client.set_terminated(made, end_time=times[-1])
    except ImportError as fault:  # what its databases need
        raise _not_installed("mlflow", fault) from None
    except MlflowException as fault:
        raise TrackerError(f"MLflow at {uri}: {str(fault).splitlines()[0]}") from None


def _not_installed(package, fault):
    return TrackerError(
        f"{package} cannot be used ({fault}); it is no dependency of the pipeline: pip install {package}, and run this again."
    )
