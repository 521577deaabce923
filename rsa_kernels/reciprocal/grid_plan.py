"""Which window and mesh reach a tolerance at least cost.

An atom spread to the mesh is seen by the mode n not as exp(−2πi n·f) but as Σ_k ŵ(n/g + k) exp(−2πi (n + k g)·f):
besides the wanted wave (k = 0) there are its aliases. With the factor b(n) = ŵ₀ / Σ_k ŵ_k² per axis, which leaves
the least mean square, the share of the aliases is ε(n) = Σ_{k≠0} ŵ_k² / ŵ₀² to first order. Spreading and
interpolating err independently, the axes too, so that over modes of equal weight in the ellipsoid |n_a| ≤ n_max,a

    (relative RMS error of u)² = 2 Σ_a <ε_a>,

and for the forces, whose wave k of axis a carries its own wave number (n_a + k g_a instead of n_a),

    (error of F)² = Σ_a [ <(2 |n|² − n_a²) ε_a> + <Σ_{k≠0} (n_a + k g_a)² ŵ_k²/ŵ₀²> ] / <|n|²>   (n in units of n_max).

An atom also feels its own image, which should be constant but varies with its place between mesh points, all modes in
step: with R_a = <Σ_{k=±1} |ŵ_k/ŵ₀|> this adds 2 Σ_a (g_a R_a)² M / (N <|n|²>) to (error of F)², for N atoms and M modes
in the full space. (In self-energies x_i·y_i has one sign in all C channels; their forces are in step as well: C times.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from .grid_window import fourier, kaiser_beta, pieces

ORDERS = range(4, 17)
_ALIASES = np.array([k for k in range(-5, 6) if k != 0])
_BANDS = np.geomspace(0.5 / 1.08, 0.5 / 3.0, 28)  # n_max / g, from little to much oversampling
_ROUNDING = {torch.float32: 2e-7, torch.float64: 1e-15}  # of a transform, before b(n) amplifies it

_SCATTER = 1.25
"""Systems of some hundreds of atoms scatter by this about the mean over systems."""

_COSTS = {
    (torch.float32, "few"): (20.0, 0.045, 1.4),
    (torch.float32, "many"): (7.6, 0.017, 1.8),
    (torch.float64, "few"): (31.0, 0.061, 2.7),
    (torch.float64, "many"): (10.6, 0.034, 2.8),
}
"""Nanoseconds an atom, a touched mesh point and a mesh point transformed, per channel, where channels fill a cache line
(many) or not: ``python -m profiling.grid_costs`` on two cores of an EPYC 9005 (AVX-512)."""


@dataclass(frozen=True)
class GridPlan:
    """Window and mesh of a particle-mesh sum.

    Attributes
    ----------
    order : int
        Mesh points an atom touches along each axis.
    mesh : tuple of int
        Mesh points along each axis.
    window : {"kaiser", "spline"}
        Kind of window, see `grid_window`.
    beta : float
        Shape of the Kaiser–Bessel window.
    estimated_error : float
        The larger of the relative RMS errors of values and forces, flat spectrum.
    """

    order: int
    mesh: tuple[int, int, int]
    window: str
    beta: float
    estimated_error: float

    def table(self) -> np.ndarray:
        """Piecewise polynomials of the window, (degree + 1, LANES), see `grid_window.pieces`."""
        return pieces(self.window, self.order, self.beta, 2.0 ** math.floor(math.log2(0.01 * self.estimated_error)))

    def deconvolution(self, axis: int, miller: np.ndarray) -> np.ndarray:
        """b(n) along one axis."""
        xi = np.asarray(miller, dtype=np.float64) / self.mesh[axis]
        wanted = fourier(self.window, self.order, self.beta, xi)
        aliases = fourier(self.window, self.order, self.beta, xi[:, None] + _ALIASES)
        return wanted / (wanted**2 + (aliases**2).sum(axis=1))


def friendly(at_least: int) -> int:
    """Smallest even 2^a 3^b 5^c 7^d ≥ at_least."""
    size = at_least + at_least % 2
    while True:
        rest = size
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 2


def estimate(
    window: str,
    order: int,
    beta: float,
    extent: Sequence[int],
    mesh: Sequence[int],
    n_atoms: float = math.inf,
    rounding: float = 0.0,
) -> float:
    """Estimated relative RMS error, the larger of values and forces, of all modes in an ellipsoid."""
    values = forces = image = square = 0.0
    amplified, n_modes = 1.0, count_modes(extent)
    for axis in range(3):
        n_max, band = extent[axis], extent[axis] / mesh[axis]
        n = np.arange(n_max + 1)
        t = n / max(n_max, 1)
        # Modes with this n_a: lattice points in an ellipse, of which there is one at t = 1 too.
        disc = np.sqrt(1.0 - t * t)
        weight = np.where(n > 0, 2.0, 1.0)
        for other in range(3):
            if other != axis:
                weight = weight * (2.0 * extent[other] * disc + 1.0)
        weight /= weight.sum()
        wanted = fourier(window, order, beta, n / mesh[axis])
        share = (fourier(window, order, beta, n[:, None] / mesh[axis] + _ALIASES) / wanted[:, None]) ** 2
        values += 2.0 * (weight * share.sum(axis=1)).sum()
        amplified *= (weight / wanted**2).sum()
        square += (weight * t * t).sum()
        if band > 0.0:
            # Given n_a = t the mean of |n|² is t² + (1 − t²)/2, so that 2 |n|² − n_a² is 1.
            forces += (weight[:, None] * share * (1.0 + (t[:, None] + _ALIASES / band) ** 2)).sum()
            image += ((weight[:, None] * np.sqrt(share[:, np.abs(_ALIASES) == 1])).sum() / band) ** 2
    if square > 0.0:
        values = max(values, (forces + 2.0 * n_modes / n_atoms * image) / square)
    return _SCATTER * math.sqrt(values + 2.0 * rounding**2 * amplified)


def count_modes(extent: Sequence[int]) -> float:
    """Modes in the ellipsoid, nearly."""
    return 4 / 3 * math.pi * math.prod(n + 0.5 for n in extent)


def plan_grid(
    miller_extent: Sequence[int],
    tolerance: float,
    dtype: torch.dtype = torch.float64,
    *,
    n_atoms: int | None = None,
    channels: int | None = None,
    window: str = "kaiser",
) -> GridPlan:
    """Choose order and mesh that reach a tolerance at least cost.

    Parameters
    ----------
    miller_extent : sequence of 3 ints
        Largest |n| along each axis.
    tolerance : float
        Relative RMS error allowed to u and to its forces, for modes of equal weight that fill the ellipsoid. Weights
        that fall with |k|, as all physical ones do, leave less error.
    dtype : torch.dtype
        Of the meshes; rounding counts towards the error.
    n_atoms : int, optional
        Weighs spreading against Fourier transforms and atoms against their own images; without it, as many as there
        are modes in the full space.
    channels : int, optional
        Weighs spreading too: a few channels cost more each than many, which are assumed without it.
    window : {"kaiser", "spline"}
        Kind of window.

    Returns
    -------
    GridPlan

    Raises
    ------
    ValueError
        Where no order up to 16 on a mesh up to three times the least reaches the tolerance.
    """
    extent = tuple(int(n) for n in miller_extent)
    if len(extent) != 3 or min(extent) < 0:
        raise ValueError(f"`miller_extent` must be 3 integers ≥ 0, got {tuple(miller_extent)}")
    if not 0.0 < tolerance < 1.0:
        raise ValueError(f"`tolerance` must be between 0 and 1, got {tolerance}")
    if dtype not in _ROUNDING:
        raise TypeError(f"`dtype` must be torch.float32 or torch.float64, got {dtype}")
    if window not in ("kaiser", "spline"):
        raise ValueError(f"`window` must be 'kaiser' or 'spline', got {window!r}")
    return _plan(extent, float(tolerance), dtype, n_atoms, channels, window)


@lru_cache(maxsize=256)
def _plan(extent, tolerance, dtype, n_atoms, channels, window) -> GridPlan:
    if n_atoms is None:
        n_atoms = count_modes(extent)
    best, least, nearest = None, math.inf, math.inf
    meshes = {tuple(friendly(max(2 * n + 2, math.ceil(n / band))) for n in extent) for band in _BANDS}
    for mesh in sorted(meshes, key=math.prod):
        band = max(n / g for n, g in zip(extent, mesh, strict=True))
        for order in ORDERS:
            cost = plan_cost(order, mesh, n_atoms, dtype, channels)
            if cost >= least:
                break
            beta = kaiser_beta(order, band) if window == "kaiser" else 0.0
            error = estimate(window, order, beta, extent, mesh, max(n_atoms, 1), _ROUNDING[dtype])
            nearest = min(nearest, error)
            if error <= tolerance:
                best, least = GridPlan(order, mesh, window, beta, error), cost
                break
    if best is None:
        mend = "; use float64" if dtype == torch.float32 and tolerance > 1e-13 else ""
        raise ValueError(
            f"`tolerance` {tolerance:g} is out of reach of the grid method in {dtype}: the least is {nearest:.1e}{mend}"
            " or method 'spectral', which is exact"
        )
    return best


def plan_cost(
    order: int,
    mesh: Sequence[int],
    n_atoms: int,
    dtype: torch.dtype = torch.float64,
    channels: int | None = None,
) -> float:
    """Nanoseconds of one accumulate or gather, per channel, on two cores; many channels unless said otherwise."""
    few = channels is not None and channels * dtype.itemsize < 32
    atom, touch, point = _COSTS[dtype, "few" if few else "many"]
    return n_atoms * (atom + touch * order**3) + point * math.prod(mesh)
