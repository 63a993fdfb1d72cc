"""Watch a study while it runs: python workflow/scripts/watch.py [DIRECTORY]. Ends with Ctrl-C; disturbs nothing."""

import argparse
import os
import platform
import sys
import time
from collections import Counter
from pathlib import Path

from lorastudy.jobs import logs, progress
from lorastudy.study import configuration, grid, settings
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

NEWEST = 5  # finished cells that are listed
BAR = 60  # characters
PHASES = (progress.DONE, progress.DIVERGED, progress.FAILED, progress.TRAINING, progress.EVALUATING, progress.WAITING)
COLOURS = dict(zip(PHASES, ("green", "red", "red bold", "cyan", "cyan", "dim"), strict=True))


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Show how far a study is, again and again until Ctrl-C.")
    parser.add_argument("directory", nargs="?", default=".", help="directory of the study (default: this one)")
    parser.add_argument(
        "--once", action="store_true", help="show it once and end (so too where the output is no terminal)"
    )
    parser.add_argument(
        "--every", type=float, default=2.0, metavar="SECONDS", help="time between two looks (default: 2)"
    )
    configuration.add_options(parser)
    chosen = parser.parse_args(arguments)
    logs.any_terminal()
    study = study_in(chosen.directory, configuration.Configuration.of_options(chosen).or_last(chosen.directory))
    os.chdir(chosen.directory)
    watch(study, chosen.once, chosen.every)


def study_in(directory, configured):
    """``settings.Settings`` of the study in ``directory``; ends the process in a line if there is none."""
    try:
        return settings.load(configured.read(directory))
    except settings.ConfigError as fault:
        sys.exit(str(fault))


def watch(study, once, every):
    console = Console()
    cells = grid.cells(study.grid)
    if once or not console.is_terminal:
        console.print(view(study, progress.states(study, cells)))
        return
    try:
        with Live(view(study, progress.states(study, cells)), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(every)
                live.update(view(study, progress.states(study, cells)), refresh=True)
    except KeyboardInterrupt:
        pass


def over(found):
    """Number of cells that have a result."""
    return sum(state.phase in (progress.DONE, progress.DIVERGED) for state in found)


def in_a_line(study, found):
    """How far a study with the states ``found`` is, in short."""
    parts = [f"{over(found)} of {len(found)} cells"]
    if left := progress.seconds_left(found):
        parts.append(f"about {duration(left)} left")
    if missing := progress.unmade(study):
        parts.append(f"not there yet: {', '.join(missing)}")
    return "; ".join(parts)


def view(study, found, steps=None):
    """What is shown of the states ``found``, as something that rich prints.

    Args:
        steps: done and planned steps of the workflow, where they are known.
    """
    counts = Counter(state.phase for state in found)
    head = Text(f"{study.study.name}  ", "bold")
    head.append(f"{over(found)} of {len(found)} cells", "default")
    for phase in PHASES:
        if counts[phase]:
            head.append(f"  {counts[phase]} {phase}", COLOURS[phase])
    if left := progress.seconds_left(found):
        head.append(f"  about {duration(left)} left", "default")
    filled = BAR * over(found) // max(1, len(found))
    parts = [head, Text.assemble(("━" * filled, "green"), ("━" * (BAR - filled), "dim"))]
    if steps:
        parts.append(Text("{} of {} steps: data, models, cells, tables, figures".format(*steps), "dim"))
    if missing := progress.unmade(study):
        parts.append(Text(f"not there yet: {', '.join(missing)}", "dim"))
    running = [state for state in found if state.phase in (progress.TRAINING, progress.EVALUATING)]
    if running:
        parts += [Text(), running_table(running)]
    failed = [state for state in found if state.phase in (progress.FAILED, progress.DIVERGED)]
    if failed:
        parts.append(Text())
    for state in failed:
        parts.append(Text.assemble((state.phase, COLOURS[state.phase]), f"  {state.cell}  {state.note or ''}"))
        if state.log:
            parts.append(Text(f"        {state.log}", "dim"))
    parts += finished_lines([state for state in found if state.phase == progress.DONE])
    parts += waiting_lines([state for state in found if state.phase == progress.WAITING])
    return Group(*parts)


def running_table(running):
    elsewhere = {state.location for state in running} != {platform.node()}
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for name in ("cell", "phase"):
        table.add_column(name, no_wrap=True)
    for name in ("step", "loss", "samples/s", "left"):
        table.add_column(name, justify="right", no_wrap=True)
    if elsewhere:
        table.add_column("where", no_wrap=True)
    for state in running:
        table.add_row(
            state.cell,
            state.phase,
            "starting" if state.step is None else f"{state.step:,}/{state.steps:,}",
            "" if state.loss is None else f"{state.loss:.4f}",
            "" if state.samples_per_second is None else f"{state.samples_per_second:.1f}",
            state.left or "",
            *([state.location] if elsewhere else []),
        )
    return table


def finished_lines(done):
    """The cells that were finished last."""

    def when(state):
        return Path("results", "cells", state.cell, "metrics.json").stat().st_mtime

    newest = sorted(done, key=when, reverse=True)[:NEWEST]
    lines = [Text(f"  {state.cell}  accuracy {state.accuracy:.3f}  {duration(state.seconds)}") for state in newest]
    return [Text(), Text("finished last", "green"), *lines] if lines else []


def waiting_lines(waiting):
    """Waiting cells that have something already; the others are only counted, above."""
    lines = [Text(f"  {state.cell}  {state.note}", "dim") for state in waiting if state.note]
    return [Text(), Text("waiting, with something to go on from", "dim"), *lines] if lines else []


def duration(seconds):
    minutes = round(seconds / 60)
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{minutes // 60}:{minutes % 60:02d} h"
        if minutes >= 60
        else f"{minutes} min"
    )


if __name__ == "__main__":
    main()
