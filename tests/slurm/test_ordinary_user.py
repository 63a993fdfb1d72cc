"""Slurm's daemons are root's, and the study is a user's who may do nothing besides."""

import json
import os
import subprocess
import sys
from pathlib import Path

import debian
import pytest
import slurm_cluster
from lorastudy.study.settings import REPOSITORY

pytestmark = pytest.mark.slurm

SCRIPT = Path(__file__).with_name("ordinary_user.py")


@pytest.mark.skipif(os.getuid() != 0, reason="not root: every test of Slurm is an ordinary user's")
def test_a_study_of_an_ordinary_user_on_two_nodes():
    debian.require(slurm_cluster.PACKAGES)
    paths = [str(SCRIPT.parent), str(REPOSITORY / "workflow" / "scripts")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, SCRIPT, "27500"]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["status"] == 0, found["said"]
    assert set(found["states"]) == {"COMPLETED"}
    assert len(found["states"]) >= 4  # two trainings, two evaluations
    assert found["users"] == found["owners"] == ["nobody"]
    assert found["nodes"] == ["n1", "n2"]
    assert found["staged"] == ["n1: base", "n2: base"]
    assert found["modes"] == ["0o644"]
    assert found["evaluated"] == ["lora_all-linear_r2_a4_s0", "lora_attention_r2_a4_s0"]
