"""What a training predicted, kept for the evaluation."""

import shutil

import numpy as np
import pytest
from lorastudy.jobs import predicted

PROBABILITIES = {"test": np.random.default_rng(0).random((4, 3)), "validation": np.eye(3)}
COST = {"seconds": 0.5, "tokens_per_second": 100.0, "peak_memory_gib": 1.0}
PROVENANCE = {"seed": 42, "config": {"cell": {"r": 2}}}


@pytest.fixture
def cell(tmp_path):
    """Directories of what was kept and of the adapter in its place."""
    kept, adapter = tmp_path / "finished", tmp_path / "adapter"
    (kept / "adapter").mkdir(parents=True)
    (kept / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    shutil.copytree(kept / "adapter", adapter)
    predicted.keep(kept, PROBABILITIES, 1024, COST, PROVENANCE)
    return kept, adapter


def test_what_was_kept_comes_back_to_the_bit(cell):
    found, cost, provenance = predicted.kept(*cell, 1024)
    assert {name: values.tobytes() for name, values in found.items()} == {
        name: values.tobytes() for name, values in PROBABILITIES.items()
    }
    assert (cost, provenance) == (COST, PROVENANCE)


def test_a_split_without_texts_is_not_there(cell):
    kept, adapter = cell
    predicted.keep(kept, {"test": PROBABILITIES["test"]}, 1024, COST, PROVENANCE)
    assert set(predicted.kept(kept, adapter, 1024)[0]) == {"test"}


def test_another_adapter_other_passes_or_nothing_kept_is_none(cell):
    kept, adapter = cell
    assert predicted.kept(kept, adapter, 2048) is None
    (adapter / "adapter_model.safetensors").write_bytes(b"another")
    assert predicted.kept(kept, adapter, 1024) is None
    (adapter / "adapter_model.safetensors").unlink()
    assert predicted.kept(kept, adapter, 1024) is None
    assert predicted.kept(kept.with_name("nothing"), adapter, 1024) is None
