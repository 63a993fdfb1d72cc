"""What a job does without until it is needed."""

import gc
import logging
import subprocess
import sys

import pytest
import torch
from lorastudy.engine import collection, deferred

# Of a training of adapters none is needed, and each costs a job between a tenth of a second and one and a half.
NEEDLESS = {
    "scipy",
    "sklearn",
    "sympy",
    "torch._dynamo",
    "torch._inductor",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "torch.onnx",
    "torchvision",
}


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


def fresh(code):
    """What ``code`` prints in a process of its own, which must not complain."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_marks_for_the_compiler_do_not_load_it():
    assert fresh("""
import sys, torch
from lorastudy.engine import deferred
disable = torch.compiler.disable
with deferred.compilation():
    @torch.compiler.disable
    @torch.compiler.allow_in_graph
    @torch.compiler.disable(recursive=False)
    @torch._dynamo.assume_constant_result
    def double(value):
        return 2 * value
    print(double(3), "torch._dynamo" in sys.modules)
print(torch.compiler.disable is disable, "_dynamo" in vars(torch))
print(torch._dynamo.config.__name__)
""") == "6 False\nTrue False\ntorch._dynamo.config\n"  # fmt: skip


def test_an_optimizer_steps_without_the_compiler():
    """torch marks its optimizers, its operators of other libraries and more when they are first called."""
    assert fresh("""
import sys, torch
from lorastudy.engine import deferred
def step():
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.full((2,), 3.0)
    torch.optim.AdamW([weight], lr=0.5, weight_decay=0.0, fused=True).step()
    return weight.tolist()
with deferred.compilation():
    print(step(), "torch._dynamo" in sys.modules)
print(step(), "torch._dynamo" in sys.modules)
""") == "[0.5, 0.5] False\n[0.5, 0.5] True\n"  # fmt: skip


def test_what_is_compiled_after_all_loads_the_compiler():
    assert fresh("""
import sys, torch
from lorastudy.engine import deferred
with deferred.compilation():
    double = torch.compile(lambda value: 2 * value, backend="eager", fullgraph=True)
    loaded = "torch._dynamo" in sys.modules
    print(loaded, double(torch.tensor(3)).item(), "torch._dynamo" in sys.modules)
print(torch.compile(lambda value: 3 * value, backend="eager", fullgraph=True)(torch.tensor(3)).item())
""") == "False 6 True\n9\n"  # fmt: skip


def test_what_is_asked_of_the_compiler_besides_marks_is_answered_by_it():
    assert fresh("""
import sys, torch
from lorastudy.engine import deferred
with deferred.compilation():
    print(torch._dynamo.config.__name__, torch._dynamo is sys.modules["torch._dynamo"])
print(torch._dynamo is sys.modules["torch._dynamo"])
""") == "torch._dynamo.config True\nTrue\n"  # fmt: skip


@pytest.fixture
def slow_module(tmp_path, monkeypatch):
    """Name of a module that is imported late."""
    (tmp_path / "slow_to_load.py").write_text(
        "class Thing(dict): pass\ndef double(value): return 2 * value\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(deferred, "MODULES", ("slow_to_load",))
    yield "slow_to_load"
    sys.modules.pop("slow_to_load", None)


def test_a_name_is_imported_when_it_is_used(slow_module):
    importer = {"__name__": "transformers.loss.some_loss"}
    with deferred.names():
        exec(f"from {slow_module} import double as twice, Thing", importer)
    assert slow_module not in sys.modules
    assert importer["twice"](4) == 8
    assert importer["Thing"].__name__ == "Thing"
    exec("class Own(Thing): pass", importer)
    assert issubclass(importer["Own"], dict)


@pytest.mark.parametrize(
    ("importer", "statement"),
    [("somebody.else", "from slow_to_load import double"), ("transformers", "import slow_to_load")],
)
def test_all_other_imports_are_as_ever(slow_module, importer, statement):
    with deferred.names():
        exec(statement, {"__name__": importer})
        assert slow_module in sys.modules


def test_a_job_starts_without_what_it_does_not_need():
    loaded = fresh("import sys, lorastudy.engine.finetuning; print(*sys.modules)").split()
    assert {"peft", "transformers", "bitsandbytes"} <= set(loaded)
    assert {name for name in loaded if name in NEEDLESS or name.startswith("scipy.")} == set()


def test_torch_is_as_ever_after_the_start():
    assert fresh("""
import torch
before = torch.compile, torch.compiler.disable, torch.compiler.allow_in_graph, __import__
import lorastudy.engine.finetuning
print(before == (torch.compile, torch.compiler.disable, torch.compiler.allow_in_graph, __import__))
print(torch.distributed.is_available(), "_dynamo" in vars(torch))
""") == "True\nTrue False\n"  # fmt: skip


@pytest.mark.parametrize("enabled", [True, False])
def test_collections_are_paused(enabled):
    before, frozen = gc.isenabled(), gc.get_freeze_count()
    try:
        gc.enable() if enabled else gc.disable()
        with collection.paused():
            assert not gc.isenabled()
            kept = [[] for _ in range(1000)]
        assert gc.isenabled() == enabled
        assert gc.get_freeze_count() >= frozen + len(kept)
    finally:
        gc.enable() if before else gc.disable()


def test_bitsandbytes_is_not_heard_about_a_package_that_would_be_faster(caplog):
    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    log.warning("Failed to load CPU gemm_4bit_forward from %s", "x")
    log.warning("something else")
    assert caplog.messages == ["something else"]
