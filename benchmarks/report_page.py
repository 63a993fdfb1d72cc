"""How large the report of a study of 588 cells is, and how long a browser takes to open it.

python benchmarks/report_page.py [OUTPUT.json]

The study is synthetic (tests/synthetic.py), with as much in it as a real one: 63 logged steps a cell, test texts of 700
characters that are all different, all figures. Chromium opens the page from its file, a few times; the median counts.
"""

import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "tests"), str(REPOSITORY / "tests" / "presentation")]

import debian  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import report_study  # noqa: E402
import synthetic  # noqa: E402
import test_report_page  # noqa: E402
from lorastudy.jobs import machine  # noqa: E402
from lorastudy.presentation import figures  # noqa: E402
from lorastudy.study import grid, records  # noqa: E402
from playwright import sync_api  # noqa: E402

VALUES = [8, 16, 32, 64, 128, 256, 512]
STEPS = np.append(np.arange(10, 625, 10), 625)
OPENED = 5  # times


def study_of_588(directory):
    """Seven r, seven alpha, two methods, two target sets, three seeds."""
    changes = {
        "grid__lines": synthetic.full(VALUES, VALUES),
        "grid__seeds": [0, 1, 2],
        "data__test_size": 1000,
        "statistics__resamples": 100,
    }
    words = [f"word{number}" for number in range(2000)]
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(words, 80))[:700] for _ in range(1000)]
    study = report_study.run(directory, texts, **changes)
    for path in sorted((directory / "results" / "cells").glob("*/training_log.csv")):
        loss = 1.6 / (1 + STEPS / 200) + generator.normal(0, 0.05, len(STEPS))
        log = pd.DataFrame({name: generator.random(len(STEPS)) for name in pd.read_csv(path).columns})
        log.assign(step=STEPS, loss=loss).to_csv(path, index=False)
    return study


def opening_seconds(page):
    """Seconds from the start of navigation until the page is loaded, its script has run and a frame is drawn; each time."""
    found = []
    with sync_api.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=debian.chromium(), args=test_report_page.FLAGS)
        for _ in range(OPENED):
            context = browser.new_context(viewport={"width": 1400, "height": 900})
            tab = context.new_page()
            begun = time.monotonic()
            tab.goto(page.as_uri())
            tab.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
            found.append(time.monotonic() - begun)
            assert tab.locator("#shown").inner_text() == "588 of 588 cells"
            context.close()
        browser.close()
    return found


def main(output):
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch, "study")
        study = study_of_588(directory)
        cells = len(grid.cells(study.grid))
        begun = time.monotonic()
        page, found = report_study.draw(directory, study, figures.names(study.grid))
        drawn = time.monotonic() - begun
        begun = time.monotonic()
        report_study.page(directory, found)
        written = time.monotonic() - begun
        opened = opening_seconds(page)
        result = {
            "cells": cells,
            "size_mb": round(page.stat().st_size / 1e6, 2),
            "opening_seconds": [round(value, 2) for value in opened],
            "opening_seconds_median": round(statistics.median(opened), 2),
            "writing_seconds": round(written, 1),
            "results_figures_tables_and_page_seconds": round(drawn, 1),
            "machine": {"cpu": machine.cpu_name(), "system": platform.platform()},
        }
    print(json.dumps(result, indent=2))
    records.write_json(output, result)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / "benchmarks" / "results" / "report_page.json")
