"""Bond-angle distributions: O–Si–O, Si–O–Si and their like."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np

from .composition import Composition
from .neighbors import Pairs


@dataclass(frozen=True)
class BondAngles:
    """Distributions of the angle j–i–k over all pairs of bonds of every atom and all frames.

    Attributes
    ----------
    degrees : ndarray (n_bins,)
        Bin centres.
    distributions : dict of str to ndarray (n_bins,)
        Probability per degree, not divided by sin θ; integrates to 1. Keys like "O-Si-O", centre in the
        middle.
    means : dict of str to (float, float)
        Mean and standard deviation of the angles themselves, degrees.
    """

    degrees: np.ndarray
    distributions: dict[str, np.ndarray]
    means: dict[str, tuple[float, float]]


def bond_angles(frames_bonds: list[Pairs], composition: Composition, width: float = 1.0) -> BondAngles:
    """Bond-angle distributions of every triplet of species that occurs.

    Parameters
    ----------
    frames_bonds : list of Pairs
        Bonds of each frame, both directions, sorted by i.
    composition : Composition
    width : float
        Bin width in degrees.
    """
    collected: dict[str, list[np.ndarray]] = {}
    codes = composition.codes
    for bonds in frames_bonds:
        centre, left, right, angles = _triplets(bonds, composition.n_atoms)
        for code, symbol in enumerate(composition.species):
            of_centre = codes[centre] == code
            a, b = np.sort([codes[left[of_centre]], codes[right[of_centre]]], axis=0)
            for first, second in combinations_with_replacement(range(len(composition.species)), 2):
                found = angles[of_centre][(a == first) & (b == second)]
                if len(found):
                    name = f"{composition.species[first]}-{symbol}-{composition.species[second]}"
                    collected.setdefault(name, []).append(found)

    edges = np.linspace(0.0, 180.0, round(180 / width) + 1)
    distributions, means = {}, {}
    for name, parts in collected.items():
        angles = np.concatenate(parts)
        distributions[name] = np.histogram(angles, edges, density=True)[0]
        means[name] = (float(angles.mean()), float(angles.std()))
    return BondAngles((edges[:-1] + edges[1:]) / 2, distributions, means)


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
