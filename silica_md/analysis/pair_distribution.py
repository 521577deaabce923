"""Partial pair distribution functions g_ab(r)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms

from . import neighbors
from .composition import Composition, label

# A half list of this many pairs takes about 2 GB; longer ranges stop there and say so.
MAX_PAIRS = 20_000_000


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
    Cost and memory grow like N r_max³. A range of more than 20 million pairs is cut there and `reason`
    says so.
    """
    composition = Composition.of(frames[0])
    half_width = min(neighbors.perpendicular_widths(atoms).min() for atoms in frames) / 2
    reason = "half the shortest perpendicular width of the cell" if r_max is None else "as asked for"
    r_max = half_width if r_max is None else r_max
    densest = max(len(atoms) / atoms.get_volume() for atoms in frames)
    affordable = (MAX_PAIRS / (len(frames[0]) * densest * 2 / 3 * np.pi)) ** (1 / 3)
    if affordable < r_max:
        r_max = affordable
        reason = f"{MAX_PAIRS / 1e6:.0f} million pairs; longer ranges would not fit the memory set aside"
    n_bins = max(int(r_max / dr), 1)

    n_species = len(composition.species)
    codes = composition.codes
    counts = np.zeros((n_species, n_species, n_bins))
    for atoms in frames:
        pairs = neighbors.pairs_within(atoms, n_bins * dr, half=True)
        channel = (codes[pairs.i] * n_species + codes[pairs.j]) * n_bins
        bins = np.minimum((pairs.distances / dr).astype(np.int64), n_bins - 1)
        histogram = np.bincount(channel + bins, minlength=counts.size).reshape(counts.shape)
        counts += (histogram + histogram.transpose(1, 0, 2)) * atoms.get_volume()

    edges = np.arange(n_bins + 1) * dr
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    sizes = composition.counts
    partials = {}
    for first, second in composition.pairs:
        per_pair = counts[composition.species.index(first), composition.species.index(second)]
        partials[label(first, second)] = per_pair / (len(frames) * sizes[first] * sizes[second] * shells)
    return PairDistribution((edges[:-1] + edges[1:]) / 2, partials, float(edges[-1]), reason)
