"""Which part of reciprocal space is summed: boxes for all modes, by cost and memory, or a reproducible draw."""

from __future__ import annotations

import functools
import itertools
import math

import torch
from torch import Tensor

from .. import random
from . import bins
from .bins import Shells
from .lattice import Box, boxes, extents
from .nufft import HIGH, LOW, transform_seconds, upsampling

EDGES = tuple(itertools.product((16, 32, 64, 128, 256), (32, 64, 128, 256, 512)))
"""Candidates for the edges of boxes: thickness along n1, and along n2 and n3."""
SMALLEST = 16 * 32 * 32
STREAM = 47
"""Of `rsa_kernels.random.bits`: the draw of boxes."""
BYTES_PER_POINT = 150.0
"""Fractional coordinates, phases, strengths, and finufft's sorted copies."""


def bytes_per_mode(n_species: int, order: int, factor: float) -> float:
    """Peak memory per mode of a box for an order of derivative: ρ, τ and fields, scratch, and finufft's finer grid."""
    arrays = n_species * (1, 2, 4)[order] + (0, 2, 3)[order]
    return 16.0 * (arrays + 1.1 * factor**3)


def largest_box(
    n_atoms: int, n_species: int, order: int, max_memory: float, tolerance: float = 1e-7, device: str = "cpu"
) -> int:
    """Modes of a box that fits into `max_memory` bytes beside the atoms, as does every smaller one.

    A box of fewer than two modes per point is transformed with the larger oversampling factor and can need more than a
    larger box: where the largest such does not fit, the larger factor decides for all.
    """
    free = max_memory - BYTES_PER_POINT * n_atoms
    capacity = int(free / bytes_per_mode(n_species, order, LOW))
    with_high = int(free / bytes_per_mode(n_species, order, HIGH))
    if upsampling(n_atoms, capacity, tolerance, device) == HIGH or min(capacity, 2 * n_atoms) > with_high:
        return with_high
    return capacity


def seconds(n_atoms: int, n_species: int, edges: tuple[int, ...]) -> float:
    """About how long the transforms of all species onto a box of modes take, on one core."""
    points = [n_atoms // n_species] * n_species
    return sum(transform_seconds(n, edges, upsampling(n, math.prod(edges), 1e-7)) for n in points)


def cover(gram: Tensor, shells: Shells, n_atoms: int, n_species: int, capacity: int) -> list[Box]:
    """Boxes with every mode of the shells: of the candidates for their edges, the fastest of at most `capacity` modes.

    Small boxes follow the sphere closely, large ones spread the atoms fewer times.
    """
    sphere = 2.0 / 3.0 * math.pi * shells.q_max**3 / math.sqrt(float(torch.linalg.det(gram)))
    whole = extents(gram, shells.q_max)
    trials = {
        tuple(map(min, (t, w, w), whole)): None for t, w in EDGES if math.prod(map(min, (t, w, w), whole)) <= capacity
    }
    # The volume of the sphere in whole boxes is the least a trial can cost: the promising first, the hopeless never.
    least = {edges: max(sphere / math.prod(edges), 1e-9) * seconds(n_atoms, n_species, edges) for edges in trials}
    best, found = math.inf, None
    for edges in sorted(trials, key=least.get):
        if found is not None and sphere > math.prod(edges) and least[edges] >= best:
            continue
        trial = list(boxes(gram, shells.q_max, edges, shells.q_min))
        cost = sum(seconds(n_atoms, n_species, box[3:]) for box in trial)
        if cost < best:
            best, found = cost, trial
    return found


def brick(n_atoms: int, capacity: int) -> int:
    """Edge of the boxes a sample is drawn from: some two modes per atom, so that no side of a transform dominates."""
    edge = min(max(2 ** round(math.log2(max(2 * n_atoms, 1)) / 3.0), 32), 128)
    while edge > 16 and edge**3 > capacity:
        edge //= 2
    return edge


def draw(gram: Tensor, shells: Shells, edge: int, per_shell: int, seed: int) -> tuple[list[Box], Tensor, Tensor]:
    """A reproducible subset of boxes that gives every shell `per_shell` vectors, or all it has.

    The boxes of a cover with edge `edge` are gone through in random order; one is taken if any shell it reaches is not
    full. The order is that of Philox words keyed by the seed and the box's lowest triplet: it depends on the cell, the
    bins and the seed, not on the machine or the number of threads.

    Returns
    -------
    boxes, counts, available
        Counts of vectors taken and available per bin, k and −k both, int64.
    """
    everything = list(boxes(gram, shells.q_max, (edge, edge, edge), shells.q_min))
    ids = torch.tensor([_identity(box) for box in everything], dtype=torch.int64)
    words = random.bits(seed, 0, ids, STREAM)
    order = sorted(range(len(everything)), key=lambda k: (int(words[k, 0]), int(words[k, 1]), everything[k]))
    available = all_counts(gram, shells)
    wanted = available.clamp_max(per_shell)
    taken, counts = [], torch.zeros(shells.n_bins, dtype=torch.int64)
    for k in order:
        reached = shells.of_box(gram, everything[k])[1]
        missing = counts[reached] < wanted[reached]
        if not bool(missing.any()):
            continue
        of_box = bins.counts(gram, everything[k], shells)
        if bool((of_box[reached][missing] > 0).any()):
            taken.append(everything[k])
            counts += of_box
    return taken, counts, available


def _identity(box: Box) -> int:
    """One number for the lowest triplet of a box: 21 bits an axis."""
    offset = 1 << 20
    return (box[0] << 42) | ((box[1] + offset) << 21) | (box[2] + offset)


def all_counts(gram: Tensor, shells: Shells) -> Tensor:
    """All k-vectors per bin, k and −k both, (n_bins,) int64."""
    key = tuple(gram.flatten().tolist())
    return _all_counts(key, shells).clone()


@functools.lru_cache(maxsize=32)
def _all_counts(key: tuple[float, ...], shells: Shells) -> Tensor:
    gram = torch.tensor(key, dtype=torch.float64).view(3, 3)
    total = torch.zeros(shells.n_bins, dtype=torch.int64)
    for box in boxes(gram, shells.q_max, (64, 512, 512), shells.q_min):
        total += bins.counts(gram, box, shells)
    return total
