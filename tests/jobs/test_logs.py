"""A rule's log holds what this pipeline says, and what other libraries say that matters."""

import os
import subprocess
import sys

import pytest

HEADS = "Key            | Status     |\n---+---\nlm_head.weight | UNEXPECTED |\nscore.weight   | MISSING    |\n"
LAYER = "model.layers.0.mlp.up_proj.weight | MISSING    |\n"
SAY = """
import logging, sys, warnings
from lorastudy.jobs import logs

with logs.to_file(sys.argv[1]):
    logging.getLogger("fontTools.subset").info("glyf pruned")
    logging.getLogger("fontTools.subset").warning("a broken font")
    logging.getLogger("transformers.modeling_utils").warning("Model LOAD REPORT from: base\\n" + sys.argv[2])
    warnings.warn("`is_gradient_checkpointing` is deprecated and will be removed in v6.", FutureWarning)
    warnings.warn("another thing is deprecated", FutureWarning)
    logging.getLogger("lorastudy").info("ours")
"""


@pytest.mark.parametrize(("report", "kept"), [(HEADS, False), (HEADS + LAYER, True), ("(no table)", True)])
def test_what_others_say_is_kept_where_it_matters(tmp_path, report, kept):
    log = tmp_path / "x.log"
    subprocess.run([sys.executable, "-c", SAY, log, report], check=True)
    said = log.read_text(encoding="utf-8")
    for ordinary in ("glyf", "is_gradient_checkpointing"):
        assert ordinary not in said
    for matters in ("a broken font", "another thing is deprecated", "ours"):
        assert matters in said
    assert ("LOAD REPORT" in said) == kept


def test_the_report_of_transformers_is_recognised(tiny_base, tmp_path):
    """By loading a model in a job: with its heads amiss alone, and with a layer's weights missing."""
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    broken.mkdir()
    for file in tiny_base.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = load_file(broken / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    load = (
        "import sys\nfrom lorastudy.jobs import logs\nwith logs.to_file(sys.argv[1]):\n"
        "    from transformers import AutoModelForSequenceClassification as Model\n"
        "    [Model.from_pretrained(base, num_labels=5) for base in sys.argv[2:]]\n"
    )
    subprocess.run([sys.executable, "-c", load, tmp_path / "x.log", tiny_base, broken], check=True)
    reports = (tmp_path / "x.log").read_text(encoding="utf-8").split("LOAD REPORT")[1:]
    assert reports  # twice under CI=true, where transformers' logger propagates
    for said in reports:
        assert str(broken) in said
        assert "up_proj" in said


def test_a_terminal_without_a_sign_shows_it_in_others():
    said = "LoRA −0.5 [−1.0, ±2], α ≥ 8, добро, é"
    run = f"from lorastudy.jobs import logs; logs.any_terminal(); print({ascii(said)})"  # in any locale
    done = subprocess.run(
        [sys.executable, "-c", run], env=os.environ | {"PYTHONIOENCODING": "latin-1"}, capture_output=True, check=True
    )
    assert done.stdout.decode("latin-1") == "LoRA -0.5 [-1.0, ±2], alpha >= 8, ?????, é\n"
