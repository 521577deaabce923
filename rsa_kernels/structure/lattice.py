"""The reciprocal lattice of a cell: a reduced basis, its shortest vector, and boxes of modes that cover a sphere."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from .. import cells
from ..reciprocal.modes import half_space

Box = tuple[int, int, int, int, int, int]
"""Lowest n1, n2, n3 and the edges of a box of Miller indices; n1 is never negative."""


def reduced(cell: Tensor) -> Tensor:
    """Short, nearly orthogonal vectors of the lattice of a cell, (3, 3) float64.

    Boxes of modes fit a sphere well only on such a basis; the k-vectors are the same on any. Each vector is shortened
    by whole multiples of the others, and of their sums and differences, until none gets shorter.
    """
    basis = [[float(x) for x in row] for row in cell.detach().to(torch.float64).cpu().tolist()]
    combinations = [c for c in itertools.product((-1, 0, 1), repeat=2) if c != (0, 0)]
    changed = True
    while changed:
        changed = False
        for a in range(3):
            others = [basis[b] for b in range(3) if b != a]
            for first, second in combinations:
                step = [first * x + second * y for x, y in zip(*others, strict=True)]
                times = round(_dot(basis[a], step) / _dot(step, step))
                shorter = [x - times * y for x, y in zip(basis[a], step, strict=True)]
                if _dot(shorter, shorter) < _dot(basis[a], basis[a]) * (1.0 - 1e-9):
                    basis[a], changed = shorter, True
    return torch.tensor(basis, dtype=torch.float64)


def _dot(x: list[float], y: list[float]) -> float:
    return math.fsum(a * b for a, b in zip(x, y, strict=True))


def metric(cell: Tensor) -> Tensor:
    """G with |k|² = n·G n, (3, 3), Å⁻²; the modes of a cell with rows a, b, c are k = 2π n A⁻ᵀ."""
    basis = 2.0 * math.pi * torch.linalg.inv(cell).T
    gram = basis @ basis.T
    return 0.5 * (gram + gram.T)


def shortest_k(cell: Tensor) -> float:
    """Length of the shortest k-vector of a cell, Å⁻¹."""
    basis = 2.0 * math.pi * torch.linalg.inv(cell).T
    bound = float(basis.norm(dim=1).min()) * (1.0 + 1e-9)
    candidates = half_space(cell, bound).to(torch.float64)
    return float((candidates @ basis).norm(dim=1).min())


def n_half_space(cell: Tensor, q_max: float) -> float:
    """About how many k-vectors up to q_max the half space holds, V q_max³ / 12π²."""
    return float(cells.volume(cell)) * q_max**3 / (12.0 * math.pi**2)


def boxes(gram: Tensor, q_max: float, edges: tuple[int, int, int], q_min: float = 0.0) -> Iterator[Box]:
    """Disjoint boxes that hold every vector of the half space n1 ≥ 0 with q_min ≤ |k| ≤ q_max.

    Parameters
    ----------
    gram : Tensor
        (3, 3) metric of the reciprocal lattice, Å⁻².
    q_max, q_min : float
        Radii, Å⁻¹.
    edges : (int, int, int)
        Longest edges of a box.
    """
    g = gram.tolist()
    for low, high in _chunks(0, extents(gram, q_max)[0], edges[0]):
        second, third = _cross_section(g, q_max, low, high)
        for pair in itertools.product(_chunks(*second, edges[1]), _chunks(*third, edges[2])):
            ranges = ((low, high), *pair)
            box = (*(a for a, _ in ranges), *(b - a for a, b in ranges))
            nearest, farthest = _radial_range(g, box)
            if nearest <= q_max and farthest >= q_min:
                yield box


def extents(gram: Tensor, q_max: float) -> tuple[int, int, int]:
    """Planes of n1 ≥ 0, and of n2 and n3 on both sides of zero, that the sphere reaches."""
    reach = [int(q_max * math.sqrt(float(x)) + 1e-9) for x in torch.linalg.inv(gram).diagonal()]
    return reach[0] + 1, 2 * reach[1] + 1, 2 * reach[2] + 1


def radial_range(gram: Tensor, box: Box) -> tuple[float, float]:
    """Bounds of |k| over a box: its centre less and plus its half diagonal."""
    return _radial_range(gram.tolist(), box)


def _radial_range(g: list[list[float]], box: Box) -> tuple[float, float]:
    x, y, z = (low + (size - 1) / 2 for low, size in zip(box[:3], box[3:], strict=True))
    squared = g[0][0] * x * x + g[1][1] * y * y + g[2][2] * z * z
    squared += 2.0 * (g[0][1] * x * y + g[0][2] * x * z + g[1][2] * y * z)
    reach = sum((size - 1) / 2 * math.sqrt(g[a][a]) for a, size in enumerate(box[3:]))
    middle = math.sqrt(max(squared, 0.0))
    return max(middle - reach, 0.0), middle + reach


def _chunks(low: int, high: int, edge: int) -> list[tuple[int, int]]:
    """[low, high) in equal pieces of at most `edge`."""
    parts = max(-(-(high - low) // edge), 1)
    cuts = [low + (high - low) * k // parts for k in range(parts + 1)]
    return list(itertools.pairwise(cuts))


def _cross_section(g: list[list[float]], q_max: float, low: int, high: int) -> list[tuple[int, int]]:
    """Ranges of n2 and n3 of the sphere between the planes n1 = low and n1 = high − 1.

    At fixed n1 the section is an ellipse around −H⁻¹h n1 (H the lower right block of G, h its first column) of
    radius² q² − n1² (G₁₁ − hᵀH⁻¹h); its widest plane is the first, its centre moves linearly.
    """
    determinant = g[1][1] * g[2][2] - g[1][2] ** 2
    diagonal = (g[2][2] / determinant, g[1][1] / determinant)
    slopes = (
        -(diagonal[0] * g[0][1] - g[1][2] / determinant * g[0][2]),
        -(diagonal[1] * g[0][2] - g[1][2] / determinant * g[0][1]),
    )
    least = g[0][0] + slopes[0] * g[0][1] + slopes[1] * g[0][2]
    radius = math.sqrt(max(q_max**2 - low**2 * least, 0.0))
    ranges = []
    for slope, inverse in zip(slopes, diagonal, strict=True):
        centres, reach = (low * slope, (high - 1) * slope), radius * math.sqrt(inverse)
        lowest = math.ceil(min(centres) - reach - 1e-9)
        ranges.append((lowest, max(lowest, math.floor(max(centres) + reach + 1e-9)) + 1))
    return ranges


def miller_of(box: Box, device=None) -> Tensor:
    """All triplets of a box, (n_modes, 3) int64, n3 fastest."""
    axes = [torch.arange(low, low + size, device=device) for low, size in zip(box[:3], box[3:], strict=True)]
    return torch.cartesian_prod(*axes).reshape(-1, 3)
