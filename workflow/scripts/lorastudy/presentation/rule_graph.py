"""The workflow's graph of rules as a small drawing: layers from top to bottom, as Sugiyama et al. (1981) lay them."""

import re
from dataclasses import dataclass

WIDTH, HEIGHT = 138, 30  # of a box
GAP_X, GAP_Y = 16, 34
SWEEPS = 12

_NODE = re.compile(r'^\s*(\d+)\s*\[label = "([^"]+)"', re.MULTILINE)
_EDGE = re.compile(r"^\s*(\d+) -> (\d+)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Drawing:
    """A layered drawing; positions in units of the drawing.

    Attributes:
        width, height: of the whole.
        boxes: list of (name, x, y), the top left corner of each box.
        lines: list of points [(x, y), …], from the lower edge of a box to the upper edge of one that uses it.
    """

    width: float
    height: float
    boxes: list
    lines: list


def parse(dot):
    """Rule → rules that use its output, by name, from what ``snakemake --rulegraph dot`` prints in any order."""
    names = dict(_NODE.findall(dot))
    users = {name: [] for name in sorted(names.values())}
    for source, target in sorted(_EDGE.findall(dot), key=lambda edge: names[edge[1]]):
        users[names[source]].append(names[target])
    return users


def reduced(users):
    """Without the edges that a longer path implies (transitive reduction)."""

    def reach(name, seen):
        for user in users[name]:
            if user not in seen:
                seen.add(user)
                reach(user, seen)
        return seen

    return {
        name: [user for user in following if not any(user in reach(other, set()) for other in following)]
        for name, following in users.items()
    }


def layout(users):
    """``Drawing`` of a graph of rules without cycles."""
    users = reduced(users)
    layers, edges = _with_bends(users, _layer(users))
    for sweep in range(SWEEPS):
        _order(layers, edges, downwards=sweep % 2 == 0)
    across = max(map(len, layers), default=0)
    width = across * (WIDTH + GAP_X) + GAP_X
    position = {}
    for row, members in enumerate(layers):
        indent = (width - len(members) * (WIDTH + GAP_X) + GAP_X) / 2
        for column, name in enumerate(members):
            position[name] = (indent + column * (WIDTH + GAP_X), GAP_X + row * (HEIGHT + GAP_Y))
    lines = [_line(name, after, edges, position) for name in users for after in edges[name]]
    height = len(layers) * (HEIGHT + GAP_Y) - GAP_Y + 2 * GAP_X
    return Drawing(width, height, [(name, *position[name]) for name in users], lines)


def _line(name, after, edges, position):
    """Points of the edge from ``name`` to ``after`` and on through its bends."""
    points = [(position[name][0] + WIDTH / 2, position[name][1] + HEIGHT)]
    while isinstance(after, tuple):
        x, y = position[after]
        points += [(x + WIDTH / 2, y), (x + WIDTH / 2, y + HEIGHT)]
        (after,) = edges[after]
    return [*points, (position[after][0] + WIDTH / 2, position[after][1])]


def curve(line):
    """A line's points as the ``d`` of an SVG path, smooth between boxes."""
    parts = [f"M{line[0][0]:g},{line[0][1]:g}"]
    for (x0, y0), (x1, y1) in zip(line, line[1:]):
        middle = (y0 + y1) / 2
        parts.append(f"L{x1:g},{y1:g}" if x0 == x1 else f"C{x0:g},{middle:g} {x1:g},{middle:g} {x1:g},{y1:g}")
    return " ".join(parts)


def _layer(users):
    """Layer of each rule: as near to its users as it can be, so that edges are short."""
    below = {}

    def depth(name):
        if name not in below:
            below[name] = 1 + max(map(depth, users[name]), default=-1)
        return below[name]

    deepest = max(map(depth, users), default=0)
    return {name: deepest - below[name] for name in users}


def _with_bends(users, layer):
    """Layers as lists of names, and edges from layer to layer: a long edge gets a bend in each layer that it passes."""
    layers = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    edges = {}
    for name in sorted(users):
        layers[layer[name]].append(name)
    for name in sorted(users):
        edges[name] = []
        for user in users[name]:
            last = name
            for between in range(layer[name] + 1, layer[user]):
                bend = (name, user, between)
                layers[between].append(bend)
                edges.setdefault(last, []).append(bend)
                last = bend
            edges.setdefault(last, []).append(user)
    return layers, edges


def _order(layers, edges, downwards):
    """Move each name to the mean position of its neighbours in the layer before (barycentre heuristic)."""
    neighbours = {}
    for name, following in edges.items():
        for other in following:
            neighbours.setdefault(other if downwards else name, []).append(name if downwards else other)
    sequence = layers if downwards else layers[::-1]
    for fixed, moved in zip(sequence, sequence[1:]):
        position = {name: index - len(fixed) / 2 for index, name in enumerate(fixed)}
        now = {name: index - len(moved) / 2 for index, name in enumerate(moved)}

        def mean(name, position=position, now=now):
            near = neighbours.get(name)
            return sum(position[other] for other in near) / len(near) if near else now[name]

        moved.sort(key=mean)
