"""D3(BJ) dispersion by definition, over explicit edges, in plain torch; everything else is a derivative of it.

E = −½ Σ_(i,j,S) C6_ij(CN_i, CN_j) D_ab(r_ij)
"""

from __future__ import annotations

import torch
from torch import Tensor

from .table import SHARPNESS, STEEPNESS, DispersionTable


def switch(r: Tensor, cutoff: float, width: float) -> Tensor:
    """S(r): 1 up to cutoff − width, 0 from the cutoff on, and 1 − 10 t³ + 15 t⁴ − 6 t⁵ between."""
    inside = (r < cutoff).to(r.dtype)
    if width == 0.0:
        return inside
    t = ((r - (cutoff - width)) / width).clamp(0.0, 1.0)
    return inside * (1.0 - t**3 * (10.0 - 15.0 * t + 6.0 * t**2))


def coordination(table: DispersionTable, positions: Tensor, cell: Tensor, species: Tensor, neighbors) -> Tensor:
    """CN_i = Σ_j S(r_ij) / (1 + exp(−k₁ (R_ab/r_ij − 1))), (n_atoms,)."""
    i, j = neighbors.edge_index
    r = neighbors.distances(positions, cell)
    radii = table.radii.to(r)
    reach = (radii[species[i]] + radii[species[j]]) / r
    counted = switch(r, table.cutoff, table.width) * torch.sigmoid(STEEPNESS * (reach - 1.0))
    return torch.zeros_like(positions[:, 0]).index_add(0, i, counted)


def weights(table: DispersionTable, numbers: Tensor, species: Tensor) -> Tensor:
    """L_ip = exp(−k₃ (CN_i − CN_ap)²) / Σ_p' exp(…), (n_atoms, n_references), of coordination numbers (n_atoms,)."""
    references = table.reference_cn.to(numbers)[species]
    exponents = -SHARPNESS * (numbers.unsqueeze(1) - references) ** 2
    return torch.softmax(exponents.masked_fill(references < 0.0, -torch.inf), dim=1)


def per_atom_energy(table: DispersionTable, positions: Tensor, cell: Tensor, species: Tensor, neighbors) -> Tensor:
    """E_i = −½ Σ_j C6_ij D_ij, (n_atoms,) eV; differentiable without end where atoms do not coincide.

    Parameters
    ----------
    table : DispersionTable
    positions, cell : Tensor
        (n_atoms, 3) and (3, 3) or (n_systems, 3, 3), Å.
    species : Tensor
        (n_atoms,) int64 places in `table.numbers`.
    neighbors : NeighborList
        Full, with a cutoff of at least the table's.
    """
    i, j = neighbors.edge_index
    a, b = species[i], species[j]
    r = neighbors.distances(positions, cell)
    weight = weights(table, coordination(table, positions, cell, species, neighbors), species)
    c6 = torch.einsum("ep,epq,eq->e", weight[i], table.c6.to(r)[a, b], weight[j])
    radius, product = table.damping_radii.to(r)[a, b], table.moment_products.to(r)[a, b]
    damped = table.s6 / (r**6 + radius**6) + table.s8 * product / (r**8 + radius**8)
    energy = c6 * damped * switch(r, table.cutoff, table.width)
    return torch.zeros_like(positions[:, 0]).index_add(0, i, -0.5 * energy)
