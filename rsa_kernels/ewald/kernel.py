"""How 1/r is split: the short-range kernel φ that pairs see, and the constants it leaves behind.

    1/r = φ(r) + ψ(r),    φ(r) = erfc(r/√2σ)/r − c  for r < rc, 0 beyond,    c = erfc(rc/√2σ)/rc

ψ is summed over the waves k ≠ 0. That sum also holds every charge's interaction with itself, ½ψ(0)q², which is taken
off, and lacks the wave k = 0, which for a charged cell stands for the charge and its neutralising background; the
background's interaction through φ remains. As φ(rc) = 0, the energy does not jump where a pair crosses the cutoff.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..units import COULOMB


def real_space(r: Tensor, charge_product: float | Tensor, sigma: float, cutoff: float) -> Tensor:
    """Energy k_e qᵢqⱼ φ(r) of a pair inside the cutoff, eV; the caller takes 0 beyond.

    Parameters
    ----------
    r : Tensor
        Distances below the cutoff, Å, float64.
    charge_product : float or Tensor
        qᵢqⱼ, e².
    sigma, cutoff : float
        σ and rc, Å.
    """
    return COULOMB * charge_product * (torch.erfc(r / (math.sqrt(2.0) * sigma)) / r - _level(sigma, cutoff))


def self_energy(charge: float, sigma: float, cutoff: float) -> float:
    """Return −½ k_e ψ(0) q², eV: what each charge adds, with ψ(0) = √(2/π)/σ + c."""
    return -0.5 * COULOMB * charge**2 * (math.sqrt(2.0 / math.pi) / sigma + _level(sigma, cutoff))


def background_energy(total_charge: Tensor, volume: Tensor, sigma: float, cutoff: float) -> Tensor:
    """Return −k_e Q²/(2V) ∫φ d³r, eV: the uniform background that makes a charged cell neutral; → −π k_e σ²Q²/V."""
    x = cutoff / (math.sqrt(2.0) * sigma)
    integral = 0.5 * cutoff**2 * math.erfc(x) + 0.5 * sigma**2 * math.erf(x)
    integral -= sigma * cutoff / math.sqrt(2.0 * math.pi) * math.exp(-(x**2))
    integral -= _level(sigma, cutoff) * cutoff**3 / 3.0
    return -2.0 * math.pi * COULOMB * integral * total_charge**2 / volume


def _level(sigma: float, cutoff: float) -> float:
    return math.erfc(cutoff / (math.sqrt(2.0) * sigma)) / cutoff
