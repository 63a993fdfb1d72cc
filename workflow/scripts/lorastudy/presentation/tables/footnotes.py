"""What stands below a table: units, numbers of texts and seeds, what the intervals are, holes with their reasons."""

from lorastudy.analysis import ratios, tuning


def basis(inputs):
    """Texts, seeds and what an interval covers."""
    of_points = inputs.results.points
    texts = inputs.results.summary.n_test.dropna()
    seeds = inputs.results.settings["grid"]["seeds"]
    named = ", ".join(map(str, seeds))
    n = f"n = {int(texts.iloc[0]):,} test texts" if len(texts) else "no test texts yet"
    if len(seeds) == 1:
        return [
            f"{n}; one seed ({named}). Intervals: 95%, over the test texts (of accuracy Wilson's, else the bootstrap, "
            f"{inputs.results.settings['statistics']['resamples']:,} resamples); they cover neither the variance between "
            "seeds nor that between training samples."
        ]
    short = int(of_points.seeds.lt(of_points.seeds_planned).sum())
    return [
        f"{n}; mean over {len(seeds)} seeds ({named})"
        + (f", fewer at {short} points with a hole" if short else "")
        + ". Intervals: 95%, over test texts and seeds; they do not cover the variance between training samples."
    ]


def holes(points):
    """The reason of every point that lacks a seed or all of them."""
    return [
        f"{row.point}: {row.status}, {row.reason} ({row.seeds} of {row.seeds_planned} seeds)."
        for row in points[points.status.ne("finished")].itertuples()
    ]


def shared(cells):
    """That cells had no GPU of their own, if so."""
    processes = ratios.processes_per_gpu(cells)
    if processes is None:
        return []
    return [
        f"A GPU had {processes} processes at a time: fine-tuning times are those of running side by side, and their ratios "
        "without an interval; energy and device hours count an equal part of the GPU for each."
    ]


def study(inputs):
    devices = sorted(set(inputs.results.summary.device.dropna()))
    return f"This study: {inputs.results.settings['study']['name']} ({inputs.model}), on {' and '.join(devices) or 'no device yet'}."


def views(inputs, points):
    """What the views are, if there are two, and the best learning rates that are at the edge of what was tried."""
    if points.view.nunique() < 2:
        return []
    tuned = points[points.view.eq(tuning.TUNED)]
    rates = ", ".join(f"{rate:g} at {count}" for rate, count in tuned.learning_rate.value_counts().items())
    return [
        "Learning rate: configured, the one of the configuration for all points; tuned, each point at the rate with the "
        f"highest accuracy on the validation texts ({rates} points).",
        *tuning.edge_notes(inputs.results.summary),
    ]
