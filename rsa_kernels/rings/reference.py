"""Rings by definition: every closed path of the lifted net, then the criterion. Defines what op.py must return.

Plain Python, for small nets: the number of closed paths grows exponentially with their size.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from torch import Tensor

Image = tuple[int, tuple[int, int, int]]
"""A lifted node: a node, and the cell of its image."""


@dataclass
class Rings:
    """Rings of one criterion; angles are (node, {neighbour, neighbour}), links (node, neighbour), the node at S = 0."""

    rings: set[tuple[Image, ...]]
    counts: Counter = field(default_factory=Counter)
    """Rings by size."""
    per_node: Counter = field(default_factory=Counter)
    """Rings by (node, size)."""
    shortest: dict = field(default_factory=dict)
    """King: by angle, Guttman: by link, (size, how many) of the shortest closed paths."""


def net_of(edge_index: Tensor, unit_shifts: Tensor, n_atoms: int, nodes=None) -> tuple[list[set[Image]], Counter]:
    """Neighbours of every node, and the number of bridges of every link (node, neighbour)."""
    bonds: list[set[Image]] = [set() for _ in range(n_atoms)]
    for i, j, (x, y, z) in zip(*edge_index.tolist(), unit_shifts.tolist(), strict=True):
        bonds[i].add((j, (x, y, z)))
        bonds[j].add((i, (-x, -y, -z)))
    chosen = list(range(n_atoms)) if nodes is None else nodes
    index = {atom: node for node, atom in enumerate(chosen)}
    net: list[set[Image]] = [set() for _ in chosen]
    bridges: Counter = Counter()
    for node, atom in enumerate(chosen):
        for other, shift in bonds[atom]:
            if other in index:
                net[node].add((index[other], shift))
                continue
            for last, on in bonds[other]:
                image = last, tuple(a + b for a, b in zip(shift, on, strict=True))
                if last in index and image != (atom, (0, 0, 0)):
                    net[node].add((index[last], image[1]))
                    bridges[node, (index[last], image[1])] += 1
    return net, bridges


def moved(image: Image, shift, sign: int = 1) -> Image:
    """Translate a lifted node."""
    return image[0], tuple(a + sign * b for a, b in zip(image[1], shift, strict=True))


def neighbors(net, image: Image) -> list[Image]:
    """Lifted nodes linked to one."""
    return [moved(other, image[1]) for other in net[image[0]]]


def distances(net, node: int, reach: int) -> dict[Image, int]:
    """Graph distance of every lifted node within `reach` of a node at S = 0."""
    found = {(node, (0, 0, 0)): 0}
    layer = list(found)
    for distance in range(1, reach + 1):
        layer = list(dict.fromkeys(n for image in layer for n in neighbors(net, image) if n not in found))
        found.update(dict.fromkeys(layer, distance))
    return found


def canonical(ring: list[Image]) -> tuple[Image, ...]:
    """The same tuple for a ring, from wherever and in whichever direction it is read, and for its translates."""
    size, lowest = len(ring), min(node for node, _ in ring)
    readings = []
    for start in (k for k in range(size) if ring[k][0] == lowest):
        for step in (1, -1):
            reading = [ring[(start + step * k) % size] for k in range(size)]
            readings.append(tuple(moved(image, reading[0][1], -1) for image in reading))
    return min(readings)


def closed_paths(net, max_size: int) -> set[tuple[Image, ...]]:
    """Every closed path of 3 to max_size different lifted nodes, each once per cell, from its smallest node."""
    found = set()
    for root in range(len(net)):
        home = distances(net, root, max_size // 2)
        start = (root, (0, 0, 0))
        paths = [[start]]
        while paths:
            path = paths.pop()
            for image in neighbors(net, path[-1]):
                if image == start and len(path) > 2:
                    found.add(canonical(path))
                elif image[0] >= root and image not in path and len(path) + home.get(image, max_size) <= max_size:
                    paths.append([*path, image])
    return found


def links_of(ring) -> list:
    """Links of a ring, each from both its ends."""
    pairs = [(ring[k - 1], ring[k]) for k in range(len(ring))]
    return [(a[0], moved(b, a[1], -1)) for one, other in pairs for a, b in ((one, other), (other, one))]


def angles_of(ring) -> list:
    """Angles of a ring."""
    triples = [(ring[k - 2], ring[k - 1], ring[k]) for k in range(len(ring))]
    return [(b[0], frozenset((moved(a, b[1], -1), moved(c, b[1], -1)))) for a, b, c in triples]


def is_primitive(ring, table) -> bool:
    """Whether no two members are closer in the net than along the ring; `table` holds `distances` of every node."""
    size = len(ring)
    for i, a in enumerate(ring):
        for j, b in enumerate(ring):
            along = min((i - j) % size, (j - i) % size)
            if table[a[0]].get(moved(b, a[1], -1), size) < along:
                return False
    return True


def ring_statistics(
    edge_index: Tensor, unit_shifts: Tensor, n_atoms: int, criterion: str, max_size: int, nodes=None
) -> Rings:
    """Rings of a bond list as `rsa_kernels.ring_statistics` takes it; `nodes` is a list of atoms, ascending."""
    net, bridges = net_of(edge_index, unit_shifts, n_atoms, nodes)
    paths = closed_paths(net, max_size)
    shortest: dict = {}
    if criterion == "primitive":
        table = [distances(net, node, max_size // 2) for node in range(len(net))]
        rings = {ring for ring in paths if is_primitive(ring, table)}
    else:
        parts = {ring: angles_of(ring) if criterion == "king" else links_of(ring) for ring in paths}
        for ring in sorted(paths, key=len):
            for part in parts[ring]:
                size, count = shortest.get(part, (len(ring), 0))
                if size == len(ring):
                    shortest[part] = size, count + 1
        rings = {ring for ring in paths if any(shortest[part][0] == len(ring) for part in parts[ring])}
    result = Rings(rings, Counter(map(len, rings)), shortest=shortest)
    result.per_node = Counter((image[0], len(ring)) for ring in rings for image in ring)
    for (node, _), count in bridges.items():
        result.per_node[node, 2] += count * (count - 1) // 2
    result.counts[2] = sum(count * (count - 1) // 2 for count in bridges.values()) // 2  # each link has two ends
    return result
