"""Write a study's training logs for a tracker: python workflow/scripts/export_logs.py [DIRECTORY] --to tensorboard

--to tensorboard   event files in the study's tracking/tensorboard; look: tensorboard --logdir DIRECTORY/tracking/tensorboard
--to mlflow        runs where MLFLOW_TRACKING_URI says; without it in the study's tracking/mlflow.db
"""

import argparse
import contextlib
import os
import sys
from pathlib import Path

import watch
from lorastudy.jobs import logs
from lorastudy.presentation import trackers
from lorastudy.study import configuration
from lorastudy.study.errors import StudyError


def main(directory, configured, tracker):
    """Export the study in ``directory`` (configured by a ``configuration.Configuration``) to a ``tracker``.

    Raises:
        TrackerError: the tracker's package is not installed, it refuses, or nothing was trained yet.
    """
    study = watch.study_in(directory, configured)
    found = trackers.runs(study, directory)
    output = Path(directory, "tracking")
    if tracker == "tensorboard":
        told = output / "tensorboard"
        trackers.to_tensorboard(found, told)
    else:
        output.mkdir(exist_ok=True)
        own = f"sqlite:///{output.resolve() / 'mlflow.db'}"
        told = os.environ.get("MLFLOW_TRACKING_URI") or own
        # a new database notes where it was made as the place of artifacts, in SQL without quoting
        with contextlib.chdir(output if told == own else "."):
            trackers.to_mlflow(found, told, study.study.name)
    print(f"{told}: {len(found)} runs")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", default=".", help="the study (default: this directory)")
    parser.add_argument("--to", choices=("tensorboard", "mlflow"), required=True, help="the tracker")
    configuration.add_options(parser)
    chosen = parser.parse_args()
    logs.any_terminal()
    try:
        configured = configuration.Configuration.of_options(chosen).or_last(chosen.directory)
        main(chosen.directory, configured, chosen.to)
    except StudyError as fault:
        sys.exit(str(fault))
