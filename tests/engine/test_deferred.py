"""What a job does without until it is needed."""

import logging
import subprocess
import sys

import torch
from lorastudy.engine import deferred


def test_a_function_is_compiled_when_it_is_first_called(monkeypatch):
    compiled = []

    def compiler(function, **options):
        compiled.append((function.__name__, options))
        return lambda *values: ("compiled", function(*values))

    monkeypatch.setattr(torch, "compile", compiler)
    with deferred.compilation():

        @torch.compile(dynamic=False)
        def double(value):
            return 2 * value

        plain = torch.compile(len)
    assert torch.compile is compiler
    assert compiled == []
    assert [double(3), double(4), plain("abc")] == [("compiled", 6), ("compiled", 8), ("compiled", 3)]
    assert compiled == [("double", {"dynamic": False}), ("len", {})]
    assert double.__name__ == "double"


def test_a_job_starts_without_the_compiler():
    """Of torch's 300 modules of it, the job needs none before a 4-bit function of bitsandbytes asks for them."""
    run = "import sys, lorastudy.engine.training; print('torch._inductor.compile_fx' in sys.modules, 'peft' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, encoding="utf-8", check=True)
    assert (done.stdout, done.stderr) == ("False True\n", "")


def test_bitsandbytes_is_not_heard_about_a_package_that_would_be_faster(caplog):
    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    log.warning("Failed to load CPU gemm_4bit_forward from %s", "x")
    log.warning("something else")
    assert caplog.messages == ["something else"]
