"""Captions, made of the data that a figure shows: n, seeds, what the intervals are, and what is not drawn and why."""

from lorastudy import style

LISTED = 10  # holes of one kind that are named one by one


def write(*sentences):
    """One paragraph of the sentences that are not empty."""
    return " ".join(sentence for sentence in sentences if sentence)


def sample(results, rows, intervals=True):
    """Study, number of test texts and of seeds, and what the intervals are, of the finished rows of a summary."""
    done = rows[rows.status == "finished"]
    cells = done[done.kind == "cell"]
    parts = [results.settings["study"]["name"]]
    if len(done):
        sizes = sorted({int(size) for size in done.n_test.dropna()})
        parts.append(f"n = {_range(sizes)} test texts, the same for all" if len(sizes) == 1 else f"n = {_range(sizes)}")
    seeds = sorted({int(seed) for seed in cells.seed.dropna()})
    if seeds:
        parts.append(f"{len(seeds)} seed{'s' * (len(seeds) > 1)} ({', '.join(map(str, seeds))})")
    text = "; ".join(parts) + "."
    if not intervals or not len(done) or not seeds:
        return text
    bootstrap = f"percentile bootstrap, {results.settings['statistics']['resamples']:,} resamples"
    if len(seeds) > 1:
        return (
            f"{text} Large points are means over the seeds, small ones single seeds. Bars are 95% intervals that hold both "
            f"the choice of the texts ({bootstrap}) and the spread between seeds (t)."
        )
    return (
        f"{text} Bars are 95% intervals over the test texts ({bootstrap}); how much runs with other seeds would differ "
        "is not in them."
    )


def _range(sizes):
    return f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"


def holes(rows):
    """What of these rows of a summary has no numbers, with its reason; empty if there is nothing."""
    lost = rows[rows.status != "finished"]
    if lost.empty:
        return ""
    parts = []
    for status, label in style.STATUSES.items():
        for reason, group in lost[lost.status == status].groupby("reason", sort=False):
            named = [style.BASELINES.get(name, name) for name in group.id[:LISTED]]
            if len(group) > LISTED:
                named.append(f"and {len(group) - LISTED} more (see results/summary.csv)")
            parts.append(f"{label}, {_short(reason.removeprefix('diverged '))}: {', '.join(named)}")
    return f"Without a value, {len(lost)} of {len(rows)} runs. {'; '.join(parts)[:1].upper()}{'; '.join(parts)[1:]}."


def _short(reason, length=100):
    return reason if len(reason) <= length else f"{reason[: length - 1]}…"
