"""The definition of reciprocal-space attention, dense: every K_ij is formed. Small systems only."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor


def kernel_matrix(fractional: Tensor, miller: Tensor, weights: Tensor) -> Tensor:
    """K_ij = Σ_m 2 w_m cos 2π n_m·(f_i − f_j) of one system, (n_atoms, n_atoms)."""
    turns = fractional @ miller.to(fractional.dtype).T
    phases = 2.0 * math.pi * (turns - turns.detach().round())
    cos, sin = phases.cos(), phases.sin()
    return 2.0 * ((cos * weights) @ cos.T + (sin * weights) @ sin.T)


def reciprocal_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    fractional: Tensor,
    miller: Tensor,
    weights: Tensor,
    batch_ptr: Tensor,
    mode_ptr: Tensor,
) -> Tensor:
    """u_i = (1/√d) Σ_j (q_i·k_j) K_ij v_j in every system and head; arguments are those of the registered op."""
    parts = []
    for atoms, modes in zip(_slices(batch_ptr), _slices(mode_ptr), strict=True):
        kernel = kernel_matrix(fractional[atoms], miller[modes], weights[modes]).to(q.dtype)
        scores = torch.einsum("ihd,jhd->hij", q[atoms], k[atoms]) / math.sqrt(q.shape[-1])
        parts.append(torch.einsum("hij,ij,jhe->ihe", scores, kernel, v[atoms]))
    return torch.cat(parts)


def accumulate_modes(k: Tensor, v: Tensor, fractional, miller, batch_ptr, mode_ptr) -> Tensor:
    """Return the states (C, S)_m = Σ_j (cos, sin)(2π n_m·f_j) k_j ⊗ v_j, (2, n_modes, heads, d, d_v)."""
    parts = []
    for atoms, modes in zip(_slices(batch_ptr), _slices(mode_ptr), strict=True):
        waves = _waves(fractional[atoms], miller[modes]).to(k.dtype)
        parts.append(torch.einsum("sjm,jhd,jhe->smhde", waves, k[atoms], v[atoms]))
    return torch.cat(parts, dim=1)


def gather_modes(q: Tensor, states: Tensor, fractional, miller, weights, batch_ptr, mode_ptr) -> Tensor:
    """u_i = (1/√d) Σ_m 2 w_m [cos(2π n_m·f_i) q_i C_m + sin(2π n_m·f_i) q_i S_m], (n_atoms, heads, d_v)."""
    parts = []
    for atoms, modes in zip(_slices(batch_ptr), _slices(mode_ptr), strict=True):
        waves = (2.0 * weights[modes] * _waves(fractional[atoms], miller[modes])).to(q.dtype)
        parts.append(torch.einsum("sim,ihd,smhde->ihe", waves, q[atoms], states[:, modes]) / math.sqrt(q.shape[-1]))
    return torch.cat(parts)


def _waves(fractional: Tensor, miller: Tensor) -> Tensor:
    turns = fractional @ miller.to(fractional.dtype).T
    phases = 2.0 * math.pi * (turns - turns.detach().round())
    return torch.stack([phases.cos(), phases.sin()])


def _slices(pointers: Tensor) -> list[slice]:
    return [slice(low, high) for low, high in itertools.pairwise(pointers.tolist())]
