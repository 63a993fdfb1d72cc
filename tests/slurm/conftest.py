"""Slurm clusters on this machine, and studies that run on them."""

import shutil
import threading

import debian
import pytest
import slurm_cluster
import yaml
from slurm_studies import CELL, Run, Study


@pytest.fixture(scope="session")
def start_cluster(tmp_path_factory):
    """Function that starts a cluster; all are stopped at the end."""
    started = []

    def start(port, **options):
        packages = slurm_cluster.PACKAGES
        if options.get("accounting"):
            packages += slurm_cluster.ACCOUNTING_PACKAGES
        debian.require(packages)
        one = slurm_cluster.Cluster(tmp_path_factory.mktemp("cluster"), port=port, **options)
        started.append(one)
        return one.start()

    yield start
    for one in started:
        one.stop()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, clone):
    """A study of one cell, with model and data, and the same study run undisturbed to the end of its cell."""
    directory = tmp_path_factory.mktemp("prepared") / "study"
    shutil.copytree(clone / ".test", directory)
    path = directory / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["grid"] |= {"methods": ["lora"], "targets": ["attention"], "lines": {"r": {"r": 2, "alpha": 4}}}
    config["training"]["epochs"] = 80
    config["execution"] = {"checkpoint_minutes": 0.03, "log_every_steps": 20}
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    Run(clone, None, directory, "results/data/card.json").succeed()
    undisturbed = tmp_path_factory.mktemp("undisturbed") / "study"
    shutil.copytree(directory, undisturbed)
    Run(clone, None, undisturbed, f"results/cells/{CELL}/metrics.json").succeed()
    return directory, Study(undisturbed)


@pytest.fixture(scope="session")
def new_study(prepared, tmp_path_factory):
    """Function that makes a copy of the prepared study."""
    lock = threading.Lock()

    def make():
        with lock:
            directory = tmp_path_factory.mktemp("study") / "study"
        shutil.copytree(prepared[0], directory)
        (directory / "snakemake.out").unlink()
        return Study(directory)

    return make
