"""The Ewald sum by its textbook definition, to rounding: what `ewald_energy` is compared with."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..units import COULOMB

_EXPONENT = 38.0
"""Pairs and waves are summed until exp(−x²) is below e⁻³⁸ = 3e-17."""


def energy(positions: Tensor, charges: Tensor, cell: Tensor, sigma: float) -> Tensor:
    """Energy of one system, eV, 0-d, whatever σ (Å); for a few atoms, differentiable without end.

    E/k_e = ½ Σ'_{i,j,S} qᵢqⱼ erfc(r/√2σ)/r + Σ_{k≠0} (2π/V) exp(−σ²k²/2)/k² |Σ q e^{ik·r}|² − Σ q²/(√2π σ) − πσ²Q²/V

    The self pair (i = j, S = 0) is left out; the last term is the neutralising background of a charged cell.
    """
    volume = torch.linalg.det(cell).abs()
    shifts = _triplets(cell.detach(), math.sqrt(2.0 * _EXPONENT) * sigma, positions.detach())
    vectors = positions[None, None] - positions[None, :, None] + (shifts @ cell)[:, None, None]
    own = (shifts == 0).all(dim=1)[:, None, None] & torch.eye(len(positions), dtype=torch.bool)
    r = torch.where(own[..., None], 1.0, vectors).norm(dim=-1)
    pairs = torch.where(own, 0.0, torch.erfc(r / (math.sqrt(2.0) * sigma)) / r)
    real = 0.5 * torch.einsum("i,j,sij->", charges, charges, pairs)

    reciprocal = 2.0 * math.pi * torch.linalg.inv(cell).T
    waves = _triplets(reciprocal.detach(), math.sqrt(2.0 * _EXPONENT) / sigma)
    waves = waves[(waves != 0).any(dim=1)] @ reciprocal
    squares = waves.square().sum(dim=1)
    phases = positions @ waves.T
    power = (charges @ torch.cos(phases)) ** 2 + (charges @ torch.sin(phases)) ** 2
    wave = 2.0 * math.pi / volume * (torch.exp(-0.5 * sigma**2 * squares) / squares * power).sum()
    own_field = charges.square().sum() / (math.sqrt(2.0 * math.pi) * sigma)
    return COULOMB * (real + wave - own_field - math.pi * sigma**2 * charges.sum() ** 2 / volume)


def _triplets(rows: Tensor, reach: float, points: Tensor | None = None) -> Tensor:
    """Integer triplets n with |n @ rows| ≤ reach, and more: all of a box that holds them, float64."""
    inverse = torch.linalg.inv(rows)
    spread = 0.0 if points is None else (points @ inverse).amax(dim=0) - (points @ inverse).amin(dim=0)
    limits = (reach * inverse.norm(dim=0) + spread).ceil().to(torch.int64).tolist()
    axes = [torch.arange(-limit, limit + 1) for limit in limits]
    return torch.cartesian_prod(*axes).to(torch.float64)
