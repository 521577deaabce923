"""Coordination numbers and bond lengths."""

from __future__ import annotations

import numpy as np

from .composition import Composition, label
from .neighbors import Pairs


def neighbour_counts(bonds: Pairs, composition: Composition, centre: str, neighbour: str) -> np.ndarray:
    """Number of `neighbour` atoms bonded to each `centre` atom, (n_centres,) int64."""
    codes = composition.codes
    of_neighbour = codes[bonds.j] == composition.species.index(neighbour)
    counts = np.bincount(bonds.i[of_neighbour], minlength=composition.n_atoms)
    return counts[composition.members[centre]]


def coordination_fractions(
    frames_bonds: list[Pairs], composition: Composition, centre: str, neighbour: str
) -> dict[int, float]:
    """Fraction of the `centre` atoms of all frames with n neighbours of one species, {n: fraction}."""
    counts = [neighbour_counts(bonds, composition, centre, neighbour) for bonds in frames_bonds]
    return fractions(np.concatenate(counts))


def fractions(values: np.ndarray) -> dict[int, float]:
    """Relative frequency of each integer, {value: fraction}, by value."""
    found, counts = np.unique(values, return_counts=True)
    return {int(value): float(count / len(values)) for value, count in zip(found, counts, strict=True)}


def mean_of(distribution: dict[int, float]) -> float:
    """Mean of a distribution {n: fraction}."""
    return float(sum(n * fraction for n, fraction in distribution.items()))


def bond_lengths(frames_bonds: list[Pairs], composition: Composition) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation (Å) of the bond lengths of each bonded pair, over all frames."""
    codes = composition.codes
    lengths = {}
    for a, first in enumerate(composition.species):
        for b, second in enumerate(composition.species[a:], start=a):
            found = np.concatenate(
                [bonds.distances[(codes[bonds.i] == a) & (codes[bonds.j] == b)] for bonds in frames_bonds]
            )
            if len(found):
                lengths[label(first, second)] = (float(found.mean()), float(found.std()))
    return lengths
