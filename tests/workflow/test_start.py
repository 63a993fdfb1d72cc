"""What is loaded, and from where, when the workflow is planned."""

import re
import subprocess
import sys

from lorastudy.study.settings import REPOSITORY

HEAVY = {"accelerate", "bitsandbytes", "datasets", "matplotlib", "peft", "scipy", "sklearn", "torch", "transformers"}


def test_a_plan_loads_neither_torch_nor_anything_else_that_is_slow():
    plan = [sys.executable, "-X", "importtime", "-m", "snakemake", "-n", "--directory", ".test", "all", "check"]
    done = subprocess.run(plan, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    loaded = set(re.findall(r"^import time: .*\| +(\S+)$", done.stderr, re.MULTILINE))
    assert {"snakemake.workflow", "lorastudy.planning.resources"} <= loaded
    assert {name for name in loaded if name.split(".")[0] in HEAVY} == set()
