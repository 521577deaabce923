"""Bond-angle distributions: O–Si–O, Si–O–Si and their like."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np

from .composition import Composition
from .neighbors import Pairs
from .tally import Moments


@dataclass(frozen=True)
class BondAngles:
    """Distributions of the angle j–i–k over all pairs of bonds of every atom and all frames.

    Attributes
    ----------
    degrees : ndarray (n_bins,)
        Bin centres.
    counts : dict of str to ndarray (n_bins,) int64
        Angles in each bin. Keys like "O-Si-O", centre in the middle.
    distributions : dict of str to ndarray (n_bins,)
        Probability per degree, not divided by sin θ; integrates to 1.
    means : dict of str to (float, float)
        Mean and standard deviation of the angles themselves, degrees.
    """

    degrees: np.ndarray
    counts: dict[str, np.ndarray]
    distributions: dict[str, np.ndarray]
    means: dict[str, tuple[float, float]]


class AngleTally:
    """Bond angles of every triplet of species, added up frame by frame.

    Parameters
    ----------
    composition : Composition
    width : float
        Bin width in degrees.
    """

    def __init__(self, composition: Composition, width: float = 1.0):
        self._composition = composition
        self._edges = np.linspace(0.0, 180.0, round(180 / width) + 1)
        self._counts: dict[str, np.ndarray] = {}
        self._moments: dict[str, Moments] = {}

    def add(self, bonds: Pairs) -> None:
        """Take the bonds of one more frame in, both directions and sorted by i."""
        codes, species = self._composition.codes, self._composition.species
        centre, left, right, angles = _triplets(bonds, self._composition.n_atoms)
        low, high = np.minimum(codes[left], codes[right]), np.maximum(codes[left], codes[right])
        channel = (codes[centre] * len(species) + low) * len(species) + high
        for code, symbol in enumerate(species):
            for a, b in combinations_with_replacement(range(len(species)), 2):
                found = angles[channel == (code * len(species) + a) * len(species) + b]
                if len(found):
                    name = f"{species[a]}-{symbol}-{species[b]}"
                    counts = np.histogram(found, self._edges)[0]
                    self._counts[name] = self._counts.get(name, 0) + counts
                    self._moments.setdefault(name, Moments()).add(found)

    def result(self) -> BondAngles:
        """Distributions of every triplet of species that has occurred."""
        widths = np.diff(self._edges)
        return BondAngles(
            (self._edges[:-1] + self._edges[1:]) / 2,
            self._counts,
            {name: counts / counts.sum() / widths for name, counts in self._counts.items()},
            {name: (moments.mean, moments.std) for name, moments in self._moments.items()},
        )


def bond_angles(frames_bonds: Iterable[Pairs], composition: Composition, width: float = 1.0) -> BondAngles:
    """Bond-angle distributions of every triplet of species that occurs; see `AngleTally`."""
    tally = AngleTally(composition, width)
    for bonds in frames_bonds:
        tally.add(bonds)
    return tally.result()


def _triplets(bonds, n_atoms):
    """Centre, both ends and angle of every unordered pair of bonds of an atom."""
    degree = np.bincount(bonds.i, minlength=n_atoms)
    start = np.concatenate([[0], np.cumsum(degree)[:-1]])
    firsts, seconds = [], []
    # Atoms with the same number of bonds share one index pattern.
    for size in np.unique(degree[degree > 1]):
        a, b = np.triu_indices(size, k=1)
        rows = start[degree == size][:, None]
        firsts.append((rows + a).ravel())
        seconds.append((rows + b).ravel())
    first = np.concatenate(firsts) if firsts else np.empty(0, dtype=np.int64)
    second = np.concatenate(seconds) if seconds else np.empty(0, dtype=np.int64)
    dots = (bonds.vectors[first] * bonds.vectors[second]).sum(axis=1)
    cosines = dots / (bonds.distances[first] * bonds.distances[second])
    angles = np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))
    return bonds.i[first], bonds.j[first], bonds.j[second], angles
