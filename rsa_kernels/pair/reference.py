"""Pair potentials by definition: analytic functions or a table, over explicit edges, in plain torch.

E = ½ Σ_(i,j,S) φ_{s_i s_j}(|r_ij|), over a full neighbour list; everything else is a derivative of it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .table import PairFunction, PairTable, locate


def per_atom_energy(
    functions: Mapping[tuple[int, int], PairFunction | None],
    positions: Tensor,
    cell: Tensor,
    atomic_numbers: Tensor,
    neighbors,
    cutoff: float,
) -> Tensor:
    """E_i = ½ Σ_j φ(r_ij) for r_ij < cutoff, (n_atoms,) eV, of analytic functions; differentiable without end."""
    r = neighbors.distances(positions, cell)
    i, j = neighbors.edge_index
    energy = torch.zeros_like(r)
    for (first, second), function in functions.items():
        if function is None:
            continue
        a, b = atomic_numbers[i], atomic_numbers[j]
        chosen = (((a == first) & (b == second)) | ((a == second) & (b == first))) & (r.detach() < cutoff)
        energy = energy.index_put((chosen.nonzero().flatten(),), function(r[chosen]))
    return torch.zeros_like(positions[:, 0]).index_add(0, i, 0.5 * energy)


def table_per_atom_energy(table: PairTable, positions: Tensor, cell: Tensor, species: Tensor, neighbors) -> Tensor:
    """Evaluate the same sum from a table's records: what the kernels compute, with derivatives of any order."""
    i, j = neighbors.edge_index
    return table_energy_of_edges(
        table, neighbors.vectors(positions, cell), species[i], species[j], i, positions.shape[0]
    )


def table_energy_of_edges(
    table: PairTable, vectors: Tensor, species_i: Tensor, species_j: Tensor, centre: Tensor, n_atoms: int
) -> Tensor:
    """Per-atom energies from edge vectors (n_pairs, 3)."""
    r = vectors.norm(dim=-1)
    inside = (r.detach() < table.cutoff).nonzero().flatten()
    r = r[inside]
    kind = table.pair_index[species_i[inside].to(torch.int64), species_j[inside].to(torch.int64)].to(torch.int64)
    interval, t, _ = locate(r, table.blocks, table.r_min, table.cutoff)
    records = table.coefficients.flatten(0, 1)[kind * (table.n_intervals + 1) + interval]
    d1, d2, d3, d4, d5, c0 = records[:, :6].unbind(-1)
    energy = c0 + t * (d1 + t * (d2 / 2 + t * (d3 / 3 + t * (d4 / 4 + t * (d5 / 5)))))
    return torch.zeros(n_atoms, dtype=r.dtype, device=r.device).index_add(0, centre[inside], 0.5 * energy)
