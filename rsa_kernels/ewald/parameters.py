"""Chooses σ and the two cutoffs of an Ewald sum from the error that the forces may have."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _checks, cells
from ..reciprocal.modes import window

METHODS = ("auto", "spectral", "grid")
WINDOW_START = 0.9
"""Waves fade out from this fraction of k_cut on, so that energies stay smooth as a cell changes. At equal error this
takes a k_cut 5 % larger than a sharp end would (11 % from 0.8, 2 % from 0.95), 15 % more waves."""
WAVE_OVER_PAIR = 0.3
"""Cost of one atom in one wave over that of one pair; its sixth root enters."""
MESH_TOLERANCE = 2.0
"""Tolerance of a mesh over the error allowed, relative to k_e A. A mesh errs most in the shortest waves, which weigh
least here: on silica and on charges at random it adds 0.001 to 0.5 of the error allowed, in squares."""
ATOMS_IN_SPHERE = 100
"""Where σ is chosen freely and a mesh may be used no more atoms lie inside the cutoff: beyond, the mesh is cheaper. The
best is flat: with 60 or 140 atoms 3,000 of silica take at most a sixth longer, from 1e-4 to 1e-8."""


class EwaldParameters(NamedTuple):
    """Parameters of an Ewald sum, and the error they lead to."""

    sigma: float
    """σ, Å: a pair sees erfc(r/√2σ)/r, a wave exp(−σ²k²/2)."""
    cutoff: float
    """Of the pairs, Å."""
    k_cut: float
    """Of the waves, 1/Å; they fade out from 0.9 k_cut on."""
    pair_error: float
    """Expected RMS error of the forces from pairs beyond the cutoff, in units of k_e e²/Å² = 14.4 eV/Å."""
    wave_error: float
    """The same from waves beyond k_cut."""
    tolerance: float
    """Relative error a mesh may make so that it adds less than the other two; the `tolerance` of the grid method."""


def parameters(
    charges: Tensor,
    cell: Tensor,
    batch_ptr: Tensor | None = None,
    *,
    accuracy: float = 1e-6,
    sigma: float | None = None,
    cutoff: float | None = None,
    k_cut: float | None = None,
    method: str = "auto",
) -> EwaldParameters:
    """Choose what is not given of σ, cutoff and k_cut such that the forces are as accurate as asked.

        δF_pairs = k_e A · 2 exp(−rc²/2σ²)/√rc,    δF_waves = k_e A · √8 [∫ (1 − W(k/k_cut))² exp(−σ²k²) dk]^½
        A = Σ q² / √(N V)

    are the root-mean-square errors of a force when charges beyond the cutoffs are uncorrelated; each gets 1/√2 of the
    accuracy. For a sharp end, W = 1 below k_cut, the integral is that of Kolafa and Perram.

    Parameters
    ----------
    charges : Tensor
        (n_atoms,) e.
    cell : Tensor
        (3, 3) or (n_systems, 3, 3) Å.
    batch_ptr : Tensor, optional
        (n_systems + 1,) int64; one set of parameters is chosen, that all systems meet the accuracy with.
    accuracy : float
        RMS error of a force as a fraction of the force between two elementary charges 1 Å apart, 14.4 eV/Å (the
        convention of LAMMPS' ``kspace_style``): 1e-6 means 1.4e-5 eV/Å.
    sigma, cutoff, k_cut : float, optional
        σ and the cutoff of pairs, Å, the cutoff of waves, 1/Å. What is given is kept.
    method : {"auto", "spectral", "grid"}
        How waves will be summed; see Notes.

    Returns
    -------
    EwaldParameters

    Notes
    -----
    With nothing given, σ balances the cost of direct sums over pairs and waves, σ ∝ (V²/N)^⅙, which makes that cost
    grow as N^1.5; unless the method is "spectral", at most 100 atoms lie inside the cutoff. The errors depend on
    charges and number density only, so parameters of one cell serve for a larger one of the same substance.

    References
    ----------
    J. Kolafa and J. W. Perram, Mol. Simul. 9 (1992) 351.
    """
    accuracy = _checks.positive("accuracy", accuracy)
    given = {
        name: None if value is None else _checks.positive(name, value, unit)
        for name, value, unit in (("sigma", sigma, "Å"), ("cutoff", cutoff, "Å"), ("k_cut", k_cut, "1/Å"))
    }
    _checks.tensor("charges", charges, dtypes=(torch.float64, torch.float32))
    _checks.shape("charges", charges, "n_atoms")
    _checks.tensor("cell", cell)
    batch_ptr = _checks.batch(batch_ptr, charges.shape[0], charges.device)
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {', '.join(METHODS)}, got {method!r}")
    amplitude, scale, sphere = _sizes(charges, cell, batch_ptr)
    if method == "spectral":
        sphere = math.inf
    return _choose(accuracy, amplitude, scale, sphere, **given)


def _sizes(charges: Tensor, cell: Tensor, batch_ptr: Tensor) -> tuple[float, float, float]:
    """A and V²/N of the worst system, and the radius that holds `ATOMS_IN_SPHERE` atoms."""
    n_systems = batch_ptr.numel() - 1
    batched, _ = cells.as_batch(cell.detach(), True, n_systems)
    volume = cells.volume(batched.to(torch.float64).cpu())
    number = batch_ptr.diff().cpu()
    squares = torch.stack(
        [x.square().sum() for x in charges.detach().to(torch.float64).cpu().tensor_split(batch_ptr[1:-1].cpu())]
    )
    there = (number > 0) & (volume > 0)
    if not bool(there.any()):
        return 1.0, 1.0, 10.0
    volume, number, squares = volume[there], number[there], squares[there]
    amplitude = float((squares / (number * volume).sqrt()).max())
    density = float((number / volume).max())
    return (
        amplitude or 1.0,
        float((volume**2 / number).max()),
        (0.75 * ATOMS_IN_SPHERE / (math.pi * density)) ** (1 / 3),
    )


def _choose(accuracy, amplitude, scale, sphere, sigma, cutoff, k_cut) -> EwaldParameters:
    target = accuracy / math.sqrt(2.0)

    def pairs(sigma, cutoff):
        return amplitude * 2.0 * math.exp(-0.5 * (cutoff / sigma) ** 2) / math.sqrt(cutoff)

    def waves(sigma, k_cut):
        return amplitude * math.sqrt(8.0 * _missing(sigma * k_cut) / sigma)

    if sigma is None:
        if cutoff is not None and k_cut is not None:
            # Neither may be missed: the σ at which both errors are equal.
            sigma = _falling(lambda s: waves(s, k_cut) / pairs(s, cutoff), 1.0, 0.5 * cutoff)
        elif cutoff is not None:
            sigma = _falling(lambda s: target / pairs(s, cutoff), 1.0, 0.3 * cutoff)
        elif k_cut is not None:
            sigma = _falling(lambda s: waves(s, k_cut), target, 4.0 / k_cut)
        else:
            sigma = (WAVE_OVER_PAIR * scale / (16.0 * math.pi**3)) ** (1.0 / 6.0)
            if _falling(lambda r: pairs(sigma, r), target, 4.0 * sigma) > sphere:
                sigma = _falling(lambda s: target / pairs(s, sphere), 1.0, 0.3 * sphere)
    if cutoff is None:
        cutoff = _falling(lambda r: pairs(sigma, r), target, 4.0 * sigma)
    if k_cut is None:
        k_cut = _falling(lambda k: waves(sigma, k), target, 4.0 / sigma)
    errors = pairs(sigma, cutoff), waves(sigma, k_cut)
    tolerance = min(MESH_TOLERANCE * math.hypot(*errors) / amplitude, 1e-2)
    return EwaldParameters(sigma, cutoff, k_cut, *errors, tolerance)


def _missing(end: float) -> float:
    """∫ (1 − W(k/end))² exp(−k²) dk: what the waves faded out and left out would have contributed."""
    k = torch.linspace(WINDOW_START * end, end, 129, dtype=torch.float64)
    faded = (1.0 - window(k / end, WINDOW_START)) ** 2 * torch.exp(-(k**2))
    return float(torch.trapezoid(faded, k)) + 0.5 * math.sqrt(math.pi) * math.erfc(end)


def _falling(function: Callable[[float], float], target: float, guess: float) -> float:
    """Where a falling function reaches the target, between an eighth and eight times the guess, by bisection."""
    low, high = guess / 8.0, 8.0 * guess
    for _ in range(60):
        middle = math.sqrt(low * high)
        if function(middle) > target:
            low = middle
        else:
            high = middle
    return math.sqrt(low * high)
