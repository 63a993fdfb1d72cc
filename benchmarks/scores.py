"""What the scores of a classifier of many classes cost, and whether the interval of the calibration error covers.

    python benchmarks/scores.py [--classes 200] [--texts 50000] [--resamples 10000] [--samples 2000]

Cost: time and peak memory of ``metrics.evaluate`` and of the contributions of the texts, which comparisons are made
from. Coverage: samples of texts from classifiers whose outcomes have known chances, stated as they are (calibrated, a
true error of 0), too surely or too timidly.
"""

import argparse
import resource
import time
from pathlib import Path

import numpy as np
from lorastudy.jobs import machine
from lorastudy.statistics import metrics
from lorastudy.study import records

REPOSITORY = Path(__file__).resolve().parents[1]

CLASSES, LARGE = 5, 1_000_000
SHARPER = (1.0, 0.7, 1.1, 1.3, 2.0)  # stated scores over true ones; 1 is calibrated
SPREADS = (0.5, 2.0, 6.0)  # standard deviation of the true scores: unsure, between, sure
TEXTS = (100, 300, 1600, 5000)


def softmax(scores):
    weight = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weight / weight.sum(axis=1, keepdims=True)


def cost(classes, texts, resamples):
    """Seconds of the two computations and the peak memory of this process in GiB (resident set)."""
    generator = np.random.default_rng(0)
    label = generator.integers(0, classes, texts)
    probability = softmax(generator.normal(size=(texts, classes)) + 3 * np.eye(classes)[label])
    moments = [time.monotonic()]
    metrics.evaluate(label, probability, resamples, 0)
    moments.append(time.monotonic())
    metrics.per_text(label, probability)
    moments.append(time.monotonic())
    scores, contributions = np.diff(moments)
    return {
        "classes": classes,
        "texts": texts,
        "resamples": resamples,
        "scores_seconds": round(float(scores), 2),
        "contributions_seconds": round(float(contributions), 3),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
    }


def sample(generator, texts, sharper, spread):
    """(whether each prediction is right, its stated probability) of texts whose outcomes have known chances."""
    scores = generator.normal(size=(texts, CLASSES)) * spread
    label = (softmax(scores).cumsum(axis=1) < generator.random((texts, 1))).sum(axis=1)
    stated = softmax(sharper * scores)
    return stated.argmax(axis=1) == label, stated.max(axis=1)


def coverage(samples):
    """A row a classifier and number of texts: how often the interval held the true calibration error, in percent."""
    generator = np.random.default_rng(0)
    for sharper in SHARPER:
        for spread in SPREADS:
            truth = 0.0 if sharper == 1 else metrics.calibration(*sample(generator, LARGE, sharper, spread))[0]
            for texts in TEXTS:
                found = [metrics.calibration(*sample(generator, texts, sharper, spread)) for _ in range(samples)]
                value, low, high = np.transpose(found)
                held = (low <= truth) & (truth <= high)
                yield {
                    "sharper": sharper,
                    "spread": spread,
                    "texts": texts,
                    "truth": round(float(truth), 4),
                    "value": round(float(value.mean()), 4),
                    "low": round(float(low.mean()), 4),
                    "high": round(float(high.mean()), 4),
                    "covered_percent": round(100 * float(held.mean()), 2),
                }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--texts", type=int, default=50_000)
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "benchmarks" / "results" / "scores_cpu.json")
    arguments = parser.parse_args()
    result = {"cost": cost(arguments.classes, arguments.texts, arguments.resamples)}  # first: the peak is the process's
    print(result["cost"], flush=True)
    result["calibration"] = list(coverage(arguments.samples))
    result["least_covered_percent"] = min(row["covered_percent"] for row in result["calibration"])
    records.write_json(arguments.output, result | {"machine": {"cpu": machine.cpu_name()}})
    print("least covered:", result["least_covered_percent"], "%")


if __name__ == "__main__":
    main()
