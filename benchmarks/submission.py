"""What sending off many cells costs: a pretended Slurm whose jobs are done at once, so that only the overhead is left.

    python benchmarks/submission.py [CELLS ...] [--jobs N] [--poll SECONDS]

Prints for each number of cells: jobs, wall time of ``snakemake --profile slurm``, the part of it that is processor time of
Snakemake, and the least that the plugin's interval between two looks at the jobs allows (waves of N jobs, each noticed at
the first look).
"""

import argparse
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]

# The pretended commands run in a study of this benchmark's own; ``submitted`` there has a byte for each job.
SBATCH = """
import os, pathlib, re, sys
os.chdir(os.environ["PRETENDED_STUDY"])
comment = sys.argv[sys.argv.index("--comment") + 1]
rule, cell = re.match(r"rule_(finetune|evaluate)_cell_wildcards_(.*)", comment).groups()
place = pathlib.Path("results/cells", cell)
(place / "adapter").mkdir(parents=True, exist_ok=True)
for name in {"finetune": ["training_log.csv", "training.json"], "evaluate": ["predictions.parquet", "metrics.json"]}[rule]:
    (place / name).touch()
pathlib.Path("logs/benchmarks").mkdir(parents=True, exist_ok=True)
pathlib.Path(f"logs/benchmarks/{cell}.{rule}.tsv").touch()
with open("submitted", "a") as file:
    file.write("x")
    file.flush()
    print(file.tell())
"""
SQUEUE = """
import os
os.chdir(os.environ["PRETENDED_STUDY"])
for number in range(1, os.path.getsize("submitted") + 1 if os.path.exists("submitted") else 1):
    print(f"{number}|COMPLETED")
"""
OTHERS = {
    "sinfo": "print('cpu*|infinite|999999|(null)\\ngpu|infinite|999999|gpu:a100:4')",
    "scontrol": "print('MinJobAge = 3600 sec')",
    "sacct": "raise SystemExit(1)",
}


def measure(cells, jobs, poll):
    """Seconds (wall, processor) that a study of so many cells takes."""
    with tempfile.TemporaryDirectory() as scratch:
        study, commands = Path(scratch, "study"), Path(scratch, "bin")
        for directory in (study / "results/model/base", study / "results/model/nf4", study / "results/data", commands):
            directory.mkdir(parents=True)
        for name, code in {"sbatch": SBATCH, "squeue": SQUEUE, **OTHERS}.items():
            (commands / name).write_text(f"#!{sys.executable}\n{code}", encoding="utf-8")
            (commands / name).chmod(0o755)
        for name in ("train", "validation", "test"):
            (study / f"results/data/{name}.parquet").touch()
        (study / "results/data/card.json").write_text("{}", encoding="utf-8")
        config = yaml.safe_load((REPOSITORY / ".test/config.yaml").read_text(encoding="utf-8"))
        ranks = list(range(1, math.ceil(cells / 4) + 1))
        config["grid"] = {"lines": {"r": {"r": ranks, "alpha": 4}}}
        (study / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        (study / "reviews.csv").write_bytes((REPOSITORY / ".test/reviews.csv").read_bytes())
        names = [f"{m}_{t}_r{r}_a4_s0" for m in ("lora", "qlora") for t in ("attention", "all-linear") for r in ranks]
        targets = [f"results/cells/{name}/metrics.json" for name in names[:cells]]
        command = [
            sys.executable, "-m", "snakemake", "--directory", study, "--profile", "slurm", "-j", jobs, "--allowed-rules", "finetune_cell", "evaluate_cell",
            "--slurm-init-seconds-before-status-checks", poll, *targets,
        ]  # fmt: skip
        environment = os.environ | {"PATH": f"{commands}:{os.environ['PATH']}", "PRETENDED_STUDY": str(study)}
        begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            list(map(str, command)), cwd=REPOSITORY, env=environment, capture_output=True, encoding="utf-8", check=False
        )
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.monotonic() - begun, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", nargs="*", type=int, default=[100])
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--poll", type=int, default=20)
    options = parser.parse_args()
    print("cells   jobs   wall s   processor s   least s")
    for cells in options.cells:
        wall, processor = measure(cells, options.jobs, options.poll)
        waves = math.ceil(2 * cells / options.jobs)
        print(f"{cells:5d}  {2 * cells:5d}  {wall:7.0f}  {processor:12.1f}  {waves * options.poll:8d}", flush=True)


if __name__ == "__main__":
    main()
