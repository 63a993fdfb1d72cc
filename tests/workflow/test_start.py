"""What is loaded, and from where, when the workflow is planned."""

import ast
import re
import subprocess
import sys

from lorastudy.study.settings import REPOSITORY

HEAVY = {"accelerate", "bitsandbytes", "datasets", "matplotlib", "peft", "scipy", "sklearn", "torch", "transformers"}


def test_a_plan_loads_neither_torch_nor_anything_else_that_is_slow():
    plan = [sys.executable, "-X", "importtime", "-m", "snakemake", "-n", "--directory", ".test", "all", "check"]
    done = subprocess.run(plan, cwd=REPOSITORY, capture_output=True, encoding="utf-8", check=True)
    loaded = set(re.findall(r"^import time: .*\| +(\S+)$", done.stderr, re.MULTILINE))
    assert {"snakemake.workflow", "lorastudy.planning.resources"} <= loaded
    assert {name for name in loaded if name.split(".")[0] in HEAVY} == set()


def test_a_job_loads_the_engine_when_it_has_its_gpu():
    """CUDA sees the GPUs that the environment names when it is first asked, which bitsandbytes does at its import."""
    jobs = "evaluate_cell, finetune_cell, quantize_model, zero_shot"
    code = f"import sys, {jobs}; print(sorted({{name.split('.')[0] for name in sys.modules}} & {HEAVY - {'scipy', 'sklearn'}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout == "[]\n"


def test_within_functions_stand_only_imports_that_cost_a_start():
    """Of what is slow or may be absent, and the engine, which brings it; the engine imports all that it needs at once."""
    slow = HEAVY | {"huggingface_hub", "mlflow", "tensorboard", "snakemake", "snakemake_interface_common", "tokenizers"}
    scripts = REPOSITORY / "workflow" / "scripts"
    needless = []
    for path in scripts.rglob("*.py"):
        functions = [
            node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)
        ]
        found = {node for function in functions for node in ast.walk(function)}
        for node in found:
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            name = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
            allowed = name.split(".")[0] in slow or name == "lorastudy.engine"
            if not allowed or path.is_relative_to(scripts / "lorastudy" / "engine"):
                needless.append(f"{path.relative_to(scripts)}:{node.lineno} {name}")
    assert needless == []
