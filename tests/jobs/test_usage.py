"""What a job took."""

import subprocess
import sys
from io import StringIO

import pandas as pd
import pytest

JOB = """
import resource, subprocess, sys, time
from lorastudy.jobs import usage
block = bytearray(300 * 2**20)
subprocess.run([sys.executable, "-c", "import time; begun = time.process_time()\\nwhile time.process_time() < begun + 0.5: pass"])
with usage.noted("logs/benchmarks/cell.finetune.tsv"):
    time.sleep(0.3)
    if sys.argv[1:]:
        raise SystemExit(1)
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""


def test_a_job_notes_its_time_and_memory(tmp_path):
    done = subprocess.run([sys.executable, "-c", JOB], cwd=tmp_path, capture_output=True, encoding="utf-8", check=True)
    cpu, memory = map(float, done.stdout.split())
    (took,) = pd.read_csv(
        StringIO((tmp_path / "logs/benchmarks/cell.finetune.tsv").read_text(encoding="utf-8")), sep="\t"
    ).itertuples()
    assert took.s > 0.8  # what it slept and what it waited for
    assert took.cpu_time - 0.5 == pytest.approx(cpu, abs=0.2)
    assert memory == pytest.approx(took.max_rss, rel=0.1)
    assert memory > 300


def test_a_job_that_fails_notes_nothing(tmp_path):
    subprocess.run([sys.executable, "-c", JOB, "fail"], cwd=tmp_path, check=False)
    assert list(tmp_path.iterdir()) == []
