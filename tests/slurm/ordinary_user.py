"""A study of two cells by an ordinary user, on a cluster of two nodes whose daemons are root's; prints what came of it as JSON.

Each node has one GPU, so that both are needed, and a directory of its own for the base model.

    unshare --mount --propagation private python tests/slurm/ordinary_user.py PORT

To be run by root, in a mount namespace of its own: where Python lies in a home that is closed to others, as root's is, an open
directory is put in that home's place.
"""

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import slurm_cluster
from lorastudy.jobs import staging

USER = pwd.getpwnam("nobody")
REPOSITORY = Path(__file__).resolve().parents[2]
CELLS = ("lora_attention_r2_a4_s0", "lora_all-linear_r2_a4_s0")


def closed(path):
    """The directory above a path that is closed to others; None if the way is open."""
    return next((above for above in reversed(Path(path).resolve().parents) if not above.stat().st_mode & 0o001), None)


def open_the_way(paths):
    """Give others a way to the paths, each of which keeps its place."""
    for home in {closed(path) for path in paths} - {None}:
        inside = [path for path in paths if closed(path) == home]
        aside = [Path(tempfile.mkdtemp()) for _ in inside]
        for path, place in zip(inside, aside):
            subprocess.run(["mount", "--bind", path, place], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", home], check=True)
        for path, place in zip(inside, aside):
            Path(path).mkdir(parents=True)
            subprocess.run(["mount", "--bind", place, path], check=True)


def study(cluster, top):
    """Run by the user; returns its exit status and what it said."""
    clone, directory = top / "clone", top / "study"
    subprocess.run(["git", "clone", "-q", REPOSITORY, clone], check=True)
    shutil.copytree(clone / ".test", directory)
    for name in ("home", "disks"):
        (top / name).mkdir()
    subprocess.run(["chown", "-R", f"{USER.pw_uid}:{USER.pw_gid}", top], check=True)
    environment = {
        "HOME": top / "home", "USER": USER.pw_name, "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1",
        "SLURM_CONF": cluster.environment["SLURM_CONF"], staging.VARIABLE: f"{top}/disks/$SLURMD_NODENAME",
    }  # fmt: skip
    targets = [f"results/cells/{cell}/metrics.json" for cell in CELLS]
    command = [sys.executable, "-m", "snakemake", "--directory", directory, "--profile", "slurm", "-j", "4", *targets]
    command += ["--slurm-init-seconds-before-status-checks", "3", "--latency-wait", "40"]
    done = subprocess.run(
        command, cwd=clone, env=environment, user=USER.pw_uid, group=USER.pw_gid, extra_groups=[], umask=0o022,
        capture_output=True, encoding="utf-8", check=False, timeout=400,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def main(port):
    top = Path(tempfile.mkdtemp(dir="/tmp"))
    top.chmod(0o755)
    open_the_way([Path(sys.base_prefix), Path(sys.prefix)])
    (top / "cluster").mkdir()
    cluster = slurm_cluster.Cluster(top / "cluster", port=port, nodes=2, gpus=1)
    try:
        cluster.start()
        status, said = study(cluster, top)
        jobs = cluster.jobs(top / "study")
    finally:
        cluster.stop()
    cells = [path for path in (top / "study" / "results" / "cells").rglob("*") if path.is_file()]
    print(json.dumps({
        "status": status, "said": said[-3000:], "states": [job["JobState"] for job in jobs],
        "users": sorted({job["UserId"].split("(")[0] for job in jobs}), "owners": sorted({path.owner() for path in cells}),
        "modes": sorted({oct(path.stat().st_mode & 0o777) for path in cells}),
        "nodes": sorted({job["NodeList"] for job in jobs}),
        "staged": sorted(f"{path.parent.parent.name}: {path.name.split('-')[0]}" for path in (top / "disks").glob("*/*/*-*/")),
        "evaluated": sorted(path.parent.name for path in cells if path.name == "metrics.json"),
    }))  # fmt: skip
    shutil.rmtree(top, ignore_errors=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
