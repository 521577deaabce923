"""Coordination numbers and bond lengths."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .composition import Composition, label
from .neighbors import Pairs
from .tally import Frequencies, Moments


def neighbour_counts(bonds: Pairs, composition: Composition, centre: str, neighbour: str) -> np.ndarray:
    """Number of `neighbour` atoms bonded to each `centre` atom, (n_centres,) int64."""
    codes = composition.codes
    of_neighbour = codes[bonds.j] == composition.species.index(neighbour)
    counts = np.bincount(bonds.i[of_neighbour], minlength=composition.n_atoms)
    return counts[composition.members[centre]]


def coordination_fractions(
    frames_bonds: Iterable[Pairs], composition: Composition, centre: str, neighbour: str
) -> dict[int, float]:
    """Fraction of the `centre` atoms of all frames with n neighbours of one species, {n: fraction}."""
    found = Frequencies()
    for bonds in frames_bonds:
        found.add(neighbour_counts(bonds, composition, centre, neighbour))
    return found.fractions()


def mean_of(distribution: dict[int, float]) -> float:
    """Mean of a distribution {n: fraction}."""
    return float(sum(n * fraction for n, fraction in distribution.items()))


class BondLengths:
    """Bond lengths of each bonded pair of species, added up frame by frame."""

    def __init__(self, composition: Composition):
        self._composition = composition
        self._moments: dict[str, Moments] = {}

    def add(self, bonds: Pairs) -> None:
        """Take the bonds of one more frame in."""
        codes, species = self._composition.codes, self._composition.species
        channel = codes[bonds.i] * len(species) + codes[bonds.j]
        for a, first in enumerate(species):
            for b, second in enumerate(species[a:], start=a):
                found = bonds.distances[channel == a * len(species) + b]
                if len(found):
                    self._moments.setdefault(label(first, second), Moments()).add(found)

    def result(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation (Å) of the bond lengths of each bonded pair."""
        return {name: (moments.mean, moments.std) for name, moments in self._moments.items()}


def bond_lengths(frames_bonds: Iterable[Pairs], composition: Composition) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation (Å) of the bond lengths of each bonded pair, over all frames."""
    lengths = BondLengths(composition)
    for bonds in frames_bonds:
        lengths.add(bonds)
    return lengths.result()
