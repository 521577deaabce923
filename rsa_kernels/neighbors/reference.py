"""Neighbour lists by definition: every pair, every image, one comparison each. Defines what op.py must return."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import cells


def neighbor_pairs(positions: Tensor, cell: Tensor, pbc: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
    """All (i, j, S) with |r_j + S·cell − r_i| < cutoff and (j, S) ≠ (i, 0), of one system, in this order.

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

    Notes
    -----
    Sorted by i, then j, then the components of S. Memory: 25 bytes for every pair of atoms and every image considered.
    """
    if positions.shape[0] == 0:
        return torch.zeros((2, 0), dtype=torch.int64), torch.zeros((0, 3), dtype=torch.int32)
    completed = cells.complete(cell.unsqueeze(0), pbc.unsqueeze(0))[0]
    fractional = positions @ torch.linalg.inv(completed)
    spread = (fractional.max(0).values - fractional.min(0).values).tolist()
    reach = [
        math.ceil(cutoff / float(height) + width) if periodic else 0
        for height, width, periodic in zip(cells.heights(completed), spread, pbc.tolist(), strict=True)
    ]
    shifts = torch.cartesian_prod(*(torch.arange(-n, n + 1) for n in reach))
    images = positions[:, None, :] + shifts.to(positions.dtype) @ completed  # (j, S, 3)
    squared = (images[None] - positions[:, None, None, :]).square().sum(-1)  # (i, j, S)
    within = squared < cutoff * cutoff
    nothing = int((shifts == 0).all(dim=1).nonzero())
    within[:, :, nothing].fill_diagonal_(False)
    i, j, image = within.nonzero(as_tuple=True)
    return torch.stack([i, j]), shifts[image].to(torch.int32)
