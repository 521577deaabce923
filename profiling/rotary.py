"""The sum of the RSGA paper written as published: rotated queries and keys, every wave k and −k on its own.

The rival of the attention benches, from the formula of arXiv 2604.21222. Autograd keeps the rotated queries and keys of
every wave for the backward, which is where the published block's memory goes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

WAVES_AT_A_TIME = 16


def attention(q: Tensor, k: Tensor, v: Tensor, positions: Tensor, cell: Tensor, miller: Tensor, weights: Tensor):
    """u_i = (1/√d) Σ_j [Σ_m w_m rot_m(q)_i · rot_m(k)_j] v_j over all waves of the full space, one head.

    q, k, v (n_atoms, d), positions (n_atoms, 3), cell (3, 3), miller (n_modes, 3), weights (n_modes,).
    """
    angles = 2.0 * math.pi * (positions @ torch.linalg.inv(cell)) @ miller.to(positions.dtype).T
    scores = 0.0
    for some, w in zip(angles.split(WAVES_AT_A_TIME, dim=1), weights.split(WAVES_AT_A_TIME), strict=True):
        # √w on both sides, so that no third copy is kept
        cos, sin = ((f(some) * w.sqrt()).unsqueeze(-1) for f in (torch.cos, torch.sin))
        scores = scores + rotated(q, cos, sin) @ rotated(k, cos, sin).T
    return scores @ v / math.sqrt(q.shape[1])


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs (even, odd) of channels by the angles of every atom and wave, (n_atoms, waves · channels)."""
    a, b = x[:, None, 0::2], x[:, None, 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(1)
