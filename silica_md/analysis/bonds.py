"""Which atoms are bonded: cutoffs from the first minimum of g(r), and the list of bonds of a frame."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from scipy.ndimage import gaussian_filter1d

from . import neighbors
from .composition import Composition, label
from .pair_distribution import PairDistribution

# Used where g(r) shows no minimum (Å); other pairs take 1.3 times the sum of the covalent radii.
DEFAULT_CUTOFFS = {"Si-O": 2.2, "Na-O": 3.2}
# A minimum is believed within this range of the default, behind a peak at least this high, and where g has
# fallen to half of it.
TRUSTED_RANGE = (0.8, 1.3)
LOWEST_PEAK = 2.0
SMOOTHING = 0.05


def bonded_pairs(composition: Composition) -> list[tuple[str, str]]:
    """Pairs that can bond: cation and oxygen in an oxide, all pairs in anything else."""
    if "O" in composition.species and len(composition.species) > 1:
        return [(symbol, "O") for symbol in composition.species if symbol != "O"]
    return composition.pairs


def default_cutoff(first: str, second: str) -> float:
    """Bond cutoff in Å for a pair whose g(r) shows no minimum."""
    radii = covalent_radii[atomic_numbers[first]] + covalent_radii[atomic_numbers[second]]
    return DEFAULT_CUTOFFS.get(label(first, second), float(1.3 * radii))


def bond_cutoffs(
    composition: Composition, distribution: PairDistribution, given: dict[str, float] | None = None
) -> tuple[dict[str, float], dict[str, str]]:
    """Cutoff of every pair that can bond, and where it comes from.

    The first minimum of the pair's g(r); where g is zero over a range, as between the Si–O shells of a
    glass, the middle of that range.

    Parameters
    ----------
    composition : Composition
    distribution : PairDistribution
    given : dict of str to float, optional
        Cutoffs in Å that override, e.g. ``{"Si-O": 2.2}``.

    Returns
    -------
    cutoffs : dict of str to float
        Å.
    sources : dict of str to str
        "given", "first minimum of g(r)" or "default".
    """
    given = given or {}
    names = [label(*pair) for pair in bonded_pairs(composition)]
    if unknown := set(given) - set(names):
        raise ValueError(f"`cutoffs` names {sorted(unknown)}, but the pairs that can bond here are {names}")
    cutoffs, sources = {}, {}
    for first, second in bonded_pairs(composition):
        name = label(first, second)
        default = default_cutoff(first, second)
        minimum = first_minimum(distribution.r, distribution.partials[name], default)
        if name in given:
            cutoffs[name], sources[name] = float(given[name]), "given"
        elif minimum is not None:
            cutoffs[name], sources[name] = minimum, "first minimum of g(r)"
        else:
            cutoffs[name], sources[name] = default, "default"
    return cutoffs, sources


def first_minimum(r: np.ndarray, g: np.ndarray, expected: float) -> float | None:
    """Position of the minimum behind the first peak of g(r), Å; None where there is no clear one.

    Parameters
    ----------
    r, g : ndarray (n_bins,)
        Bin centres in Å, pair distribution function.
    expected : float
        Where it should about be, Å: the peak is looked for below, the minimum within 0.8 to 1.3 times.
    """
    low, high = (factor * expected for factor in TRUSTED_RANGE)
    if r[-1] < high:
        return None
    smooth = gaussian_filter1d(g, SMOOTHING / (r[1] - r[0]))
    peak = smooth[r < expected].max(initial=0.0)
    window = (r >= low) & (r <= high)
    bottom = smooth[window].min()
    if peak < LOWEST_PEAK or bottom > 0.5 * peak:
        return None
    flat = r[window & (smooth <= bottom + 1e-3 * peak)]
    position = float((flat[0] + flat[-1]) / 2)
    at_edge = position < low + SMOOTHING or position > high - SMOOTHING
    return None if at_edge else position


def bonds_of(atoms: Atoms, cutoffs: dict[str, float]) -> neighbors.Pairs:
    """Bonds of a frame, both directions, sorted by the first atom."""
    pairs = neighbors.pairs_within(atoms, max(cutoffs.values()))
    return bonds_among(pairs, Composition.of(atoms), cutoffs)


def bonds_among(pairs: neighbors.Pairs, composition: Composition, cutoffs: dict[str, float]) -> neighbors.Pairs:
    """The pairs that are bonds: of two species named in `cutoffs`, and closer than their cutoff (Å)."""
    reach = np.zeros((len(composition.species),) * 2)
    for name, cutoff in cutoffs.items():
        a, b = (composition.species.index(symbol) for symbol in name.split("-"))
        reach[a, b] = reach[b, a] = cutoff
    codes = composition.codes
    return pairs.select(pairs.distances < reach[codes[pairs.i], codes[pairs.j]])
