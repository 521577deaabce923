"""Partial pair distribution functions averaged over frames; the counts are those of `rsa_kernels.pair_distribution`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms

import rsa_kernels as rk

from . import neighbors
from .composition import Composition, label

# Pairs of a frame up to which the range is carried, some seconds on two cores; longer ranges stop there and say so.
MAX_PAIRS = 1_000_000_000


@dataclass(frozen=True)
class PairDistribution:
    """Partial g(r) averaged over frames.

    Attributes
    ----------
    r : ndarray (n_bins,)
        Bin centres, Å.
    partials : dict of str to ndarray (n_bins,)
        g_ab(r), dimensionless, → 1 at large r.
    r_max : float
        Upper edge of the last bin, Å.
    reason : str
        Why the range ends there.
    """

    r: np.ndarray
    partials: dict[str, np.ndarray]
    r_max: float
    reason: str


def pair_distribution(frames: list[Atoms], r_max: float | None = None, dr: float = 0.02) -> PairDistribution:
    """Partial pair distribution functions from all pairs, periodic images included.

    ::

        g_ab(r) = V n_ab(r) / (N_a N_b 4π/3 [(r + dr/2)³ − (r − dr/2)³])

    n_ab(r) counts ordered pairs (an atom of a, an atom of b, or an image of one) in the bin, so that
    ρ_b ∫ 4πr² g_ab dr over any range is the mean number of b atoms around an a atom, exactly.

    Parameters
    ----------
    frames : list of ase.Atoms
        Periodic frames of one composition; their cells may differ.
    r_max : float, optional
        Range, Å. By default half the shortest perpendicular width of the cells.
    dr : float
        Bin width, Å.

    Notes
    -----
    Cost grows like N r_max³; no pair is kept in memory. A range of more than 1,000 million pairs a frame is cut there
    and `reason` says so.
    """
    composition = Composition.of(frames[0])
    half_width = min(neighbors.perpendicular_widths(atoms).min() for atoms in frames) / 2
    reason = "half the shortest perpendicular width of the cell" if r_max is None else "as asked for"
    r_max = half_width if r_max is None else r_max
    densest = max(len(atoms) / atoms.get_volume() for atoms in frames)
    affordable = (MAX_PAIRS / (len(frames[0]) * densest * 2 / 3 * np.pi)) ** (1 / 3)
    if affordable < r_max:
        r_max = affordable
        reason = f"{MAX_PAIRS / 1e6:.0f} million pairs a frame; longer ranges would take long"
    n_bins = max(int(r_max / dr), 1)

    numbers = {symbol: int(frames[0].numbers[members[0]]) for symbol, members in composition.members.items()}
    found = [_of_frame(atoms, n_bins * dr, dr) for atoms in frames]
    partials = {
        label(first, second): np.mean([one[numbers[first], numbers[second]].numpy() for one in found], axis=0)
        for first, second in composition.pairs
    }
    return PairDistribution(found[0].r.numpy(), partials, n_bins * dr, reason)


def _of_frame(atoms, r_max, dr):
    return rk.pair_distribution(
        torch.from_numpy(atoms.get_positions()),
        torch.from_numpy(np.array(atoms.cell)),
        torch.from_numpy(atoms.numbers.astype(np.int64)),
        r_max,
        dr,
    )
