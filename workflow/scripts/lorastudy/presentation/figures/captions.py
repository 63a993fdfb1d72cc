"""Captions, made of the data that a figure shows: n, seeds, what the intervals are, and what is not drawn and why."""

from lorastudy.presentation.figures import panels, style

LISTED = 10  # holes of one kind that are named one by one


def write(*sentences):
    """One paragraph of the sentences that are not empty."""
    return " ".join(sentence for sentence in sentences if sentence)


def sample(results, rows):
    """Study, number of test texts and seeds, of the finished ones of these rows of the summary."""
    done = rows[rows.status == "finished"]
    parts = [results.settings["study"]["name"]]
    sizes, seeds = (sorted({int(value) for value in done[name].dropna()}) for name in ("n_test", "seed"))
    if sizes:
        parts.append(
            f"n = {sizes[0]:,} test texts, the same for all"
            if len(sizes) == 1
            else f"n = {sizes[0]:,} to {sizes[-1]:,}"
        )
    if seeds:
        parts.append(f"{len(seeds)} seed{'s' * (len(seeds) > 1)} ({', '.join(map(str, seeds))})")
    return "; ".join(parts) + "."


def intervals(results, points, singles=True):
    """What the bars are, of these rows of ``results.points``; empty without any."""
    drawn = points[points.seeds > 0]
    if drawn.empty:
        return ""
    bootstrap = (
        f"of accuracy Wilson's, else percentile bootstrap, {results.settings['statistics']['resamples']:,} resamples"
    )
    if drawn.seeds.max() == 1:
        return (
            f"Bars are 95% intervals over the test texts ({bootstrap}); how much runs with other seeds would differ is not "
            "in them."
        )
    text = "Points are means over the seeds, with 95% intervals over both texts and seeds (t, two-way layout)."
    if singles:
        text += " Small points are single seeds."
    if (few := (drawn.seeds == 1).sum()) > 0:
        text += f" For {few} of {len(drawn)} points with one seed alone, they are over texts alone ({bootstrap})."
    return text


def cut(points, reaches):
    """The intervals that go on beyond the edge of their panel; empty without any.

    Args:
        reaches: score → (lowest, highest) that is shown, of ``style.reach``.
    """
    parts = []
    for score, reach in reaches.items():
        if reach:
            beyond = points[(points[f"{score}_low"] < reach[0]) | (points[f"{score}_high"] > reach[1])]
            parts += [
                f"{style.SCORES[score]} of {panels.name(row)} [{row[f'{score}_low']:.3f}, {row[f'{score}_high']:.3f}]"
                for _, row in beyond.iterrows()
            ]
    return f"Bars that end at the edge of a panel go beyond it: {'; '.join(parts)}." if parts else ""


def holes(rows):
    """What of these rows of a summary has no numbers, with its reason; empty if there is nothing."""
    lost = rows[rows.status != "finished"]
    if lost.empty:
        return ""
    parts = []
    for status, label in style.STATUSES.items():
        of_status = lost[lost.status == status]
        reasons = of_status.reason.str.split(" (log: ", regex=False).str[0]  # one log each; the summary names them
        for reason, group in of_status.groupby(reasons, sort=False):
            named = [style.BASELINES.get(name, name) for name in group.id[:LISTED]]
            if len(group) > LISTED:
                named.append(f"and {len(group) - LISTED} more (see results/summary.csv)")
            parts.append(f"{label} ({_short(reason.removeprefix('diverged '))}): {', '.join(named)}")
    text = "; ".join(parts)
    return f"Without a point, {len(lost)} of {len(rows)} runs. {text[0].upper()}{text[1:]}."


def _short(reason, length=100):
    return reason if len(reason) <= length else f"{reason[: length - 1]}…"
