"""Neighbour lists by definition: every pair, every image, one comparison each. Defines what op.py must return."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from .. import cells


def neighbor_pairs(positions: Tensor, cell: Tensor, pbc: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
    """All (i, j, S) with 0 < |r_j + S·cell − r_i| < cutoff, or at distance 0 with j ≠ i or S ≠ 0, of one system.

    Parameters
    ----------
    positions : Tensor
        (n_atoms, 3) Å.
    cell : Tensor
        (3, 3) Å, rows a, b, c.
    pbc : Tensor
        (3,) bool.
    cutoff : float
        Å.

    Returns
    -------
    edge_index : Tensor
        (2, n_pairs) int64, rows i and j.
    unit_shifts : Tensor
        (n_pairs, 3) int32.
    """
    n_atoms = positions.shape[0]
    if n_atoms == 0:
        return torch.zeros((2, 0), dtype=torch.int64), torch.zeros((0, 3), dtype=torch.int32)
    completed = cells.complete(cell.unsqueeze(0), pbc.unsqueeze(0))[0]
    fractional = positions @ torch.linalg.inv(completed)
    spread = (fractional.max(0).values - fractional.min(0).values).tolist()
    reach = [
        math.ceil(cutoff / float(height) + width) if periodic else 0
        for height, width, periodic in zip(cells.heights(completed), spread, pbc.tolist(), strict=True)
    ]
    edges, shifts = [], []
    for triplet in itertools.product(*(range(-n, n + 1) for n in reach)):
        shift = torch.tensor(triplet, dtype=positions.dtype) @ completed
        distance = (positions.unsqueeze(0) + shift - positions.unsqueeze(1)).norm(dim=-1)
        within = distance < cutoff
        if triplet == (0, 0, 0):
            within.fill_diagonal_(False)
        found = within.nonzero().T
        edges.append(found)
        shifts.append(torch.tensor(triplet, dtype=torch.int32).expand(found.shape[1], 3))
    return torch.cat(edges, dim=1), torch.cat(shifts)
