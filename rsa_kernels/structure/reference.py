"""Structure factors and pair distributions by definition: every vector or pair, every atom.

Lengths within 1e-9 of a bin below its edge count as on it: a crystal has many that are the same but for rounding.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from .. import cells
from ..neighbors.reference import neighbor_pairs

EDGE = 1e-9


def mode_products(fractional: Tensor, codes: Tensor, miller: Tensor, n_species: int) -> Tensor:
    """Re ρ_a(n) ρ_b(n)* of every pair a ≤ b, (n_pairs, n_modes); ρ_a(n) = Σ_{j in a} exp(2πi n·f_j)."""
    phases = 2.0 * math.pi * (fractional @ miller.to(fractional.dtype).T)
    members = torch.nn.functional.one_hot(codes, n_species).to(fractional.dtype).T
    cos, sin = members @ torch.cos(phases), members @ torch.sin(phases)
    return torch.stack([cos[a] * cos[b] + sin[a] * sin[b] for a in range(n_species) for b in range(a, n_species)])


def lattice_vectors(cell: Tensor, k_max: float) -> Tensor:
    """All Miller triplets with 0 < |k| ≤ k_max, both k and −k, (n_modes, 3) int64."""
    reach = [int(k_max * float(row.norm()) / (2.0 * math.pi)) + 1 for row in cell]
    n = torch.cartesian_prod(*(torch.arange(-m, m + 1) for m in reach))
    k = 2.0 * math.pi * (n.to(torch.float64) @ torch.linalg.inv(cell).T).norm(dim=1)
    return n[(k > 0.0) & (k <= k_max)]


def shell_sums(
    fractional: Tensor, codes: Tensor, cell: Tensor, n_species: int, dq: float, n_bins: int
) -> tuple[Tensor, Tensor]:
    """Sums of `mode_products` over the vectors of every bin, (n_pairs, n_bins), and how many there are, (n_bins,)."""
    miller = lattice_vectors(cell, (n_bins + 0.5) * dq)
    k = 2.0 * math.pi * (miller.to(torch.float64) @ torch.linalg.inv(cell).T).norm(dim=1)
    shell = torch.floor(k / dq + 0.5 + EDGE).to(torch.int64)
    inside = (shell >= 1) & (shell <= n_bins)
    products = mode_products(fractional, codes, miller[inside], n_species)
    counts = torch.bincount(shell[inside], minlength=n_bins + 1)[1:]
    return products.new_zeros(len(products), n_bins).index_add(1, shell[inside] - 1, products), counts


def partials(sums: Tensor, counts: Tensor, sizes: Tensor) -> Tensor:
    """Faber–Ziman S_ab = 1 + N ⟨Re ρ_a ρ_b*⟩ / (N_a N_b) − δ_ab N / N_a, (n_pairs, n_bins)."""
    n_atoms, rows = sizes.sum(), []
    for mean, (a, b) in zip(sums / counts, itertools.combinations_with_replacement(range(len(sizes)), 2), strict=True):
        own = n_atoms / sizes[a] if a == b else 0.0
        rows.append(1.0 + n_atoms * mean / (sizes[a] * sizes[b]) - own)
    return torch.stack(rows)


def pair_counts(positions: Tensor, codes: Tensor, cell: Tensor, n_species: int, dr: float, n_bins: int) -> Tensor:
    """Ordered pairs (atom of a, atom or image of b) with m dr ≤ r < (m + 1) dr, (n_species, n_species, n_bins)."""
    pbc = torch.ones(3, dtype=torch.bool)
    (i, j), shifts = neighbor_pairs(positions, cell, pbc, n_bins * dr)
    r = (positions[j] - positions[i] + shifts.to(positions.dtype) @ cell).norm(dim=1)
    bins = torch.floor(r / dr + EDGE).to(torch.int64)
    kept = bins < n_bins
    flat = (codes[i] * n_species + codes[j]) * n_bins + bins
    return torch.bincount(flat[kept], minlength=n_species**2 * n_bins).view(n_species, n_species, n_bins)


def pair_distribution(counts: Tensor, cell: Tensor, sizes: Tensor, dr: float) -> Tensor:
    """g_ab = V n_ab / (N_a N_b 4π/3 [(r + dr/2)³ − (r − dr/2)³]), (n_species, n_species, n_bins)."""
    edges = torch.arange(counts.shape[-1] + 1, dtype=torch.float64) * dr
    shells = 4.0 / 3.0 * math.pi * (edges**3).diff()
    return cells.volume(cell) * counts / (sizes[:, None, None] * sizes[None, :, None] * shells)
