"""From S(Q) to g(r) and back."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import _checks
from .pair_distribution import PairDistribution
from .result import StructureFactor

WINDOWS = ("none", "lorch")


def structure_factor_from_pairs(distribution: PairDistribution, q: Tensor, *, window: str = "none") -> Tensor:
    """Faber–Ziman partials at any Q by sine transform of g(r), like `distribution.partials` with Q for r.

    ::

        S_ab(Q) = 1 + 4πρ ∫_0^R r² [g_ab(r) − 1] W(r/R) sin(Qr)/(Qr) dr

    ==============  =================================
    symbol          argument
    ==============  =================================
    g_ab, ρ, R      ``distribution``; R is where it ends
    Q               ``q``
    W               ``window``
    ==============  =================================

    Parameters
    ----------
    distribution : PairDistribution
    q : Tensor
        (n_q,) Å⁻¹, positive.
    window : {"none", "lorch"}
        W = 1, or sin(πx)/(πx), which damps the ripples of the cut at R and broadens peaks.

    Notes
    -----
    The integral takes g as constant over a bin and the rest at its centre: exact to (Q dr)²/24. The cut at R smooths S
    over about 2π/R, and what a shell average over the vectors of the cell gives differs by that.
    """
    if not isinstance(distribution, PairDistribution):
        raise TypeError(f"`distribution` must be a PairDistribution, got {type(distribution).__name__}")
    q = _grid("q", q)
    r, dr = distribution.r, distribution.dr
    weight = r.square() * _window(window, r / (r[-1] + 0.5 * dr)) * dr
    kernel = torch.sinc(r.unsqueeze(1) * q / math.pi) * weight.unsqueeze(1)
    density = torch.as_tensor(distribution.density, dtype=torch.float64, device=r.device)
    return 1.0 + 4.0 * math.pi * density.view(-1, *[1] * (distribution.partials.dim() - 1)) * (
        (distribution.partials - 1.0) @ kernel
    )


def pairs_from_structure_factor(factor: StructureFactor, r: Tensor, n_atoms: int, *, window: str = "lorch") -> Tensor:
    """Partial g_ab(r) at any r by summing over the k-vectors of the cell, (n_pairs, n_r).

    ::

        g_ab(r) = 1 − δ_ab/N_a + (1/N) Σ_{k≠0} [S_ab(k) − 1] W(k/K) sin(kr)/(kr)

    Every bin stands for all its vectors, so bins that hold none have no weight and nothing is interpolated. The sum
    over all k is the pair distribution of the periodic system; here it is cut at K, the end of the last bin, and every
    vector is put at the centre of its bin, which moves it by up to dq/2: as K → ∞ the result is exact only where
    r dq ≪ 1.

    ==============  =========================================
    symbol          argument
    ==============  =========================================
    S_ab, K         ``factor`` of one system
    N               ``n_atoms``; N_a from ``factor.fractions``
    r               ``r``
    W               ``window``
    ==============  =========================================

    Parameters
    ----------
    factor : StructureFactor
        Of one system, from `structure_factor`.
    r : Tensor
        (n_r,) Å, positive.
    n_atoms : int
        Atoms of the system.
    window : {"lorch", "none"}
        W = sin(πx)/(πx), or 1.

    References
    ----------
    E. Lorch, J. Phys. C 2 (1969) 229.
    """
    if not isinstance(factor, StructureFactor):
        raise TypeError(f"`factor` must be a StructureFactor, got {type(factor).__name__}")
    if factor.partials.dim() != 2:
        raise ValueError(f"`factor` must be of one system, got partials of shape {tuple(factor.partials.shape)}")
    r = _grid("r", r)
    _checks.positive("n_atoms", n_atoms)
    q = factor.q
    spacing = q[1] - q[0] if q.numel() > 1 else q[0]
    weight = factor.available.to(torch.float64) * _window(window, q / (q[-1] + 0.5 * spacing))
    kernel = torch.sinc(q.unsqueeze(1) * r / math.pi) * weight.unsqueeze(1)
    interference = torch.where(factor.available > 0, factor.partials.to(torch.float64) - 1.0, 0.0)
    own = torch.tensor([float(a == b) for a, b in factor.pairs], dtype=torch.float64, device=q.device)
    first = [factor.species.index(a) for a, _ in factor.pairs]
    at_zero = own / (factor.fractions[first] * n_atoms)
    return 1.0 - at_zero.unsqueeze(1) + interference @ kernel / n_atoms


def _window(name: str, x: Tensor) -> Tensor:
    if name not in WINDOWS:
        raise ValueError(f"`window` must be one of {', '.join(WINDOWS)}, got {name!r}")
    return torch.ones_like(x) if name == "none" else torch.sinc(x)


def _grid(name: str, x: Tensor) -> Tensor:
    _checks.tensor(name, x, dtypes=(torch.float64, torch.float32))
    _checks.shape(name, x, f"n_{name}")
    if not bool((x > 0.0).all()):
        raise ValueError(f"`{name}` must hold positive numbers, got {float(x.min())}")
    return x.to(torch.float64)
