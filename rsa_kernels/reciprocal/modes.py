"""The waves of a cell: half-space Miller triplets with |k| < k_cut, and their weights."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _checks, cells
from ..errors import CapacityError, NonFiniteError
from .spectra import Spectrum

_BYTES_PER_CANDIDATE = 80
"""Peak memory of the search, per triplet of the bounding box: three int64, three float64 components and masks."""


@dataclass(frozen=True)
class Modes:
    """Waves of one or more cells, one of every pair k, −k; k = 2π n A⁻ᵀ for the triplet n and the row matrix A.

    Attributes
    ----------
    miller : Tensor
        (n_modes, 3) int32, the first non-zero component positive, by ascending |k| within each system.
    weights : Tensor
        (n_modes,) float64, w(|k|) · window(|k|/k_cut) / V; carries the derivative with respect to the cell.
    mode_ptr : Tensor
        (n_systems + 1,) int64, offsets of the systems in the modes.
    k_cut : float
        1/Å.
    """

    miller: Tensor
    weights: Tensor
    mode_ptr: Tensor
    k_cut: float

    def __post_init__(self):
        _checks.tensor("miller", self.miller, dtypes=(torch.int32,))
        _checks.shape("miller", self.miller, "n_modes", 3)
        _checks.tensor("weights", self.weights, dtypes=(torch.float64,), device=self.miller.device)
        _checks.shape("weights", self.weights, self.miller.shape[0])
        _checks.tensor("mode_ptr", self.mode_ptr, dtypes=(torch.int64,), device=self.miller.device)
        _checks.shape("mode_ptr", self.mode_ptr, "n_systems + 1")

    @property
    def n_modes(self) -> int:
        """Number of waves of all systems; the full space has twice as many."""
        return self.miller.shape[0]

    @property
    def n_systems(self) -> int:
        """Number of systems."""
        return self.mode_ptr.shape[0] - 1

    def __repr__(self) -> str:
        return f"Modes({self.n_modes} waves in half space of {self.n_systems} cells, |k| < {self.k_cut:g} 1/Å)"


def window(x: Tensor, start: float) -> Tensor:
    """Return 1 below `start` and 0 from 1 on; (1−t)³(1+3t+6t²) with t = (x−start)/(1−start) between, which is C².

    With it a wave that enters or leaves as the cell changes does so with weight, slope and curvature zero.
    """
    if start == 1.0:
        return (x < 1.0).to(x.dtype)
    t = ((x - start) / (1.0 - start)).clamp(0.0, 1.0)
    return (1.0 - t) ** 3 * (1.0 + 3.0 * t + 6.0 * t**2)


def reciprocal_modes(
    cell: Tensor, k_cut: float, spectrum: Spectrum, *, window_start: float = 0.8, pbc=True, n_systems: int | None = None
) -> Modes:
    """All waves |k| < k_cut of the cells, one of every pair ±k, with weights w(|k|) W(|k|/k_cut) / V.

    =============  ===========================
    symbol         argument
    =============  ===========================
    rows of A      ``cell``
    k_cut          ``k_cut``
    w(|k|)         ``spectrum``
    W              ``window_start``: where it leaves 1
    =============  ===========================

    Parameters
    ----------
    cell : Tensor
        (3, 3) or (n_systems, 3, 3) Å, float64 or float32; each system gets its own set.
    k_cut : float
        1/Å. The same number means the same waves per volume for a cell of any size.
    spectrum : callable
        |k| (n_modes,) float64 -> w (n_modes,); see `rsa_kernels.reciprocal.spectra`.
    window_start : float
        In (0, 1]. From this fraction of k_cut on, weights fall to zero at k_cut with continuous first and second
        derivative, so energies stay smooth when waves enter or leave a changing cell. 1 cuts sharply: for cells that
        never change.
    pbc : bool or sequence of bool
        Must be periodic in every direction. A molecule in vacuum belongs into a box of its own: see `padded_cell`.

    Returns
    -------
    Modes
        `weights` is differentiable with respect to the cell and to parameters of the spectrum.

    Raises
    ------
    ValueError
        `k_cut` not positive, a singular cell, a direction that is not periodic, a spectrum of the wrong shape.
    rsa_kernels.errors.NonFiniteError
        A cell or a spectrum that is NaN or infinite.
    rsa_kernels.errors.CapacityError
        More waves than memory; says how many and what k_cut would fit.

    Notes
    -----
    About V k_cut³ / (12 π²) waves. 80 bytes of temporary memory for each triplet of the bounding box.
    """
    _checks.positive("k_cut", k_cut, "1/Å")
    start = _checks.positive("window_start", window_start)
    if start > 1.0:
        raise ValueError(f"`window_start` must be at most 1, got {window_start}")
    if not callable(spectrum):
        raise TypeError(f"`spectrum` must be a callable of |k|, got {type(spectrum).__name__}")
    _checks.tensor("cell", cell, dtypes=(torch.float64, torch.float32))
    count = n_systems or (cell.shape[0] if cell.dim() == 3 else 1)
    batched, flags = cells.as_batch(cell, pbc, count)
    if not bool(flags.all()):
        raise ValueError(
            "`pbc` must be True in every direction: waves belong to a periodic box; put a molecule or a slab into a box"
            " of its own with rsa_kernels.reciprocal.padded_cell(positions, padding)"
        )
    batched = batched.to(torch.float64)
    cells.complete(batched.detach(), flags)
    inverse = cells.inverse(batched)
    found = [half_space(one, float(k_cut)) for one in batched.detach().cpu()]
    counts = torch.tensor([0] + [len(one) for one in found])
    miller = torch.cat(found).to(cell.device)
    mode_ptr = counts.cumsum(0).to(cell.device)
    system = torch.repeat_interleave(torch.arange(len(found), device=cell.device), counts[1:].to(cell.device))
    k = wave_vectors(miller, inverse, system).norm(dim=1)
    weights = spectrum(k)
    if not isinstance(weights, Tensor) or weights.shape != k.shape:
        came = tuple(weights.shape) if isinstance(weights, Tensor) else type(weights).__name__
        raise ValueError(f"`spectrum` must return one weight for every |k|, shape {tuple(k.shape)}, got {came}")
    weights = weights.to(torch.float64)
    if not bool(torch.isfinite(weights.detach()).all()):
        raise NonFiniteError("`spectrum` returned NaN or infinite weights")
    weights = weights * window(k / k_cut, start) / cells.volume(batched)[system]
    return Modes(miller, weights, mode_ptr, float(k_cut))


def wave_vectors(miller: Tensor, inverse: Tensor, system: Tensor) -> Tensor:
    """k = 2π n A⁻ᵀ, (n_modes, 3) in 1/Å, for inverse cells (n_systems, 3, 3) and the system of every wave."""
    turns = miller.to(inverse.dtype).unsqueeze(1) @ inverse.transpose(1, 2)[system]
    return 2.0 * math.pi * turns.squeeze(1)


def half_space(cell: Tensor, k_cut: float) -> Tensor:
    """Half-space Miller triplets with |k| < k_cut of one (3, 3) float64 cell, sorted by |k|, (n_modes, 3) int32."""
    # |n_a| = |k·a|/2π ≤ k_cut |a|/2π: exact bounds for any triclinic cell.
    reach = (k_cut * cell.norm(dim=1) / (2.0 * math.pi)).tolist()
    if not all(math.isfinite(one) for one in reach):
        raise NonFiniteError("`cell` holds NaN or infinite values")
    candidates = (reach[0] + 1.0) * (2.0 * reach[1] + 1.0) * (2.0 * reach[2] + 1.0)
    needed, there = candidates * _BYTES_PER_CANDIDATE, memory_available()
    if needed > there or max(reach) > 2**30:
        volume = float(cells.volume(cell))
        n_modes = volume * k_cut * k_cut * k_cut / (12 * math.pi**2)
        fitting = k_cut * (there / needed) ** (1.0 / 3.0)
        raise CapacityError(
            f"k_cut = {k_cut:g} 1/Å and a cell of {volume:.4g} Å³ make {n_modes:.3g} waves,"
            f" {needed / 2**30:.3g} GiB to list, {there / 2**30:.3g} GiB are there; k_cut ≤ {0.95 * fitting:.3g} fits"
        )
    a, b, c = (int(one) for one in reach)
    n = torch.cartesian_prod(torch.arange(0, a + 1), torch.arange(-b, b + 1), torch.arange(-c, c + 1)).reshape(-1, 3)
    first = n[:, 0] * (2 * b + 1) * (2 * c + 1) + n[:, 1] * (2 * c + 1) + n[:, 2]
    n = n[first > 0]
    k = 2.0 * math.pi * (n.to(torch.float64) @ torch.linalg.inv(cell).T).norm(dim=1)
    inside = k < k_cut
    n, k = n[inside], k[inside]
    return n[torch.argsort(k, stable=True)].to(torch.int32)


def memory_available() -> float:
    """Bytes of main memory that new allocations may take; caches of files, which give way, count as free."""
    try:
        with open("/proc/meminfo") as lines:
            return next(1024.0 * float(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def padded_cell(positions: Tensor, padding: float = 10.0) -> Tensor:
    """Return an orthorhombic box around a molecule, (3, 3) Å, with `padding` Å of vacuum between its images.

    The documented route for what is not periodic: waves need a box, and with enough vacuum the images no longer matter.
    The interaction of Gaussian charges with the images falls only as 1/L³ for a neutral dipole: compare two paddings.

    Parameters
    ----------
    positions : Tensor
        (n_atoms, 3) Å.
    padding : float
        Å, along every direction.
    """
    _checks.tensor("positions", positions, dtypes=(torch.float64, torch.float32))
    _checks.shape("positions", positions, "n_atoms", 3)
    _checks.positive("padding", padding, "Å")
    if positions.shape[0] == 0:
        raise ValueError("`positions` must hold at least one atom")
    extent = positions.detach().amax(dim=0) - positions.detach().amin(dim=0)
    return torch.diag(extent + padding)
