"""Pair functions: the analytic building blocks of the potentials, in plain torch, energy against distance.

Every function takes the distance `r` (Å, float64 tensor) first and returns the energy (eV) of one pair. They
are smooth and twice differentiable with autograd on the open range (0, cutoff), which is what tabulation
needs; where a function is cut off, the value at the cutoff itself is its limit from below, and the caller
takes 0 beyond.
"""

import math
from collections.abc import Callable

import torch

from rsa_kernels.units import COULOMB

PairFunction = Callable[[torch.Tensor], torch.Tensor]


def buckingham(r: torch.Tensor, A: float, b: float, C: float) -> torch.Tensor:
    """Born–Mayer repulsion and dispersion, A·exp(−b r) − C/r⁶ (A eV, b 1/Å, C eV·Å⁶)."""
    return A * torch.exp(-b * r) - C / r**6


def inverse_power(r: torch.Tensor, C: float, n: int) -> torch.Tensor:
    """Inverse power C/rⁿ (C eV·Åⁿ)."""
    return C / r**n


def morse(r: torch.Tensor, D: float, a: float, r0: float) -> torch.Tensor:
    """Morse bond D·{[1 − exp(−a(r − r0))]² − 1}: depth D (eV) at r0 (Å), width 1/a (Å)."""
    return D * ((1.0 - torch.exp(-a * (r - r0))) ** 2 - 1.0)


def repair_30_6(r: torch.Tensor, epsilon: float, sigma: float) -> torch.Tensor:
    """The 30–6 wall 4ε[(σ/r)³⁰ − (σ/r)⁶] that keeps BKS atoms from fusing (ε eV, σ Å)."""
    x6 = (sigma / r) ** 6
    return 4.0 * epsilon * (x6**5 - x6)


def smooth_cutoff(r: torch.Tensor, cutoff: float, width: float) -> torch.Tensor:
    """The switch G(r) = exp(−γ²/(r − rc)²) for r < rc and 0 beyond; all its derivatives vanish at rc.

    `cutoff` is rc and `width` γ (both Å). The formula divides by zero at rc, so there the argument is
    replaced before it is used: `where` alone would give the right value and NaN derivatives.
    """
    inside = r < cutoff
    distance = torch.where(inside, r - cutoff, -1.0)
    return torch.where(inside, torch.exp(-((width / distance) ** 2)), 0.0)


def coulomb_dsf(
    r: torch.Tensor, charge_product: float, alpha: float, cutoff: float, constant: float = COULOMB
) -> torch.Tensor:
    """Damped-shifted-force Coulomb energy of a pair; energy and force vanish at the cutoff.

        U(r) = k qᵢqⱼ { erfc(αr)/r − v + w (r − rc) },   v = erfc(αrc)/rc,   w = v/rc + 2α/√π · exp(−α²rc²)/rc

    Parameters
    ----------
    r : torch.Tensor
        Distance, Å.
    charge_product : float
        qᵢqⱼ, e².
    alpha : float
        Damping α, 1/Å.
    cutoff : float
        rc, Å.
    constant : float
        Coulomb constant k, eV·Å.

    Notes
    -----
    The sum over pairs needs the self term of `dsf_self_energy` to be the electrostatic energy.

    References
    ----------
    C. J. Fennell and J. D. Gezelter, J. Chem. Phys. 124 (2006) 234104.
    """
    value, slope = _dsf_shifts(alpha, cutoff)
    return constant * charge_product * (torch.erfc(alpha * r) / r - value + slope * (r - cutoff))


def dsf_self_energy(charge: float, alpha: float, cutoff: float, constant: float = COULOMB) -> float:
    """Return the constant that each atom of charge q (e) adds to a damped-shifted-force sum, eV.

        s = −k q² {(v + w rc)/2 + α/√π}

    An atom sees, beside its neighbours, the opposite of its own charge on the cutoff sphere (half of the pair
    energy's constant part) and the field of its own damping charge.
    """
    value, slope = _dsf_shifts(alpha, cutoff)
    return -constant * charge**2 * ((value + slope * cutoff) / 2.0 + alpha / math.sqrt(math.pi))


def _dsf_shifts(alpha: float, cutoff: float) -> tuple[float, float]:
    """v and w of `coulomb_dsf`: the damped energy at the cutoff and its slope, per k qᵢqⱼ."""
    value = math.erfc(alpha * cutoff) / cutoff
    slope = value / cutoff + 2.0 * alpha / math.sqrt(math.pi) * math.exp(-((alpha * cutoff) ** 2)) / cutoff
    return value, slope


def coulomb_wolf(r: torch.Tensor, charge_product: float, cutoff: float, width: float) -> torch.Tensor:
    """Undamped Wolf-like Coulomb energy of SHIK, k qᵢqⱼ [1/r − 1/rw + (r − rw)/rw²] G(r); no self term.

    `charge_product` is qᵢqⱼ (e²), `cutoff` rw and `width` the γ of `smooth_cutoff` (Å).

    References
    ----------
    S. Sundararaman, L. Huang, S. Ispas and W. Kob, J. Chem. Phys. 148 (2018) 194504.
    """
    bare = 1.0 / r - 1.0 / cutoff + (r - cutoff) / cutoff**2
    return COULOMB * charge_product * bare * smooth_cutoff(r, cutoff, width)
