"""What surrounds a computation."""

import os

import pytest
from lorastudy.jobs import running


@pytest.mark.parametrize(
    ("home", "named", "elsewhere"),
    [
        ("/dev/null/home", {}, True),
        ("/dev/null/home", {"TRITON_CACHE_DIR": "/scratch/kernels"}, False),
        ("HERE", {}, False),
    ],
)
def test_kernels_are_kept_where_a_home_may_not_be_written(monkeypatch, tmp_path, home, named, elsewhere):
    """Triton asks ``TRITON_HOME``, else the home (its ``knobs.cache``)."""
    monkeypatch.setenv("HOME", home.replace("HERE", str(tmp_path)))
    for name in ("TRITON_HOME", "TRITON_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    with running.kernels_kept():
        place = os.environ.get("TRITON_HOME")
        assert (place is not None) is elsewhere
        assert place is None or os.access(place, os.W_OK)
    assert "TRITON_HOME" not in os.environ
    assert place is None or not os.path.exists(place)
