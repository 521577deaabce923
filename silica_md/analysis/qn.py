"""Qn speciation: how many bridging oxygens each silicon has."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .composition import Composition
from .coordination import neighbour_counts
from .neighbors import Pairs
from .tally import Frequencies


def bridging_counts(bonds: Pairs, composition: Composition) -> np.ndarray:
    """Number of bridging oxygens bonded to each Si, (n_silicon,) int64.

    An oxygen bridges when it is bonded to two Si or more. An overcoordinated Si can have more than four.
    """
    bridging = np.zeros(composition.n_atoms, dtype=bool)
    bridging[composition.members["O"]] = neighbour_counts(bonds, composition, "O", "Si") >= 2
    of_silicon = composition.codes[bonds.i] == composition.species.index("Si")
    bridges = bonds.i[of_silicon & bridging[bonds.j]]
    return np.bincount(bridges, minlength=composition.n_atoms)[composition.members["Si"]]


def with_all_of_q0_to_q4(fractions: dict[int, float]) -> dict[int, float]:
    """Qn fractions in which 0 to 4 are always there."""
    return dict.fromkeys(range(5), 0.0) | fractions


def qn_fractions(frames_bonds: Iterable[Pairs], composition: Composition) -> dict[int, float]:
    """Fraction of Si with n bridging oxygens, {n: fraction}; see `bridging_counts`. 0 to 4 are always there.

    Empty where there is no Si or no O.
    """
    if not {"Si", "O"} <= set(composition.species):
        return {}
    found = Frequencies()
    for bonds in frames_bonds:
        found.add(bridging_counts(bonds, composition))
    return with_all_of_q0_to_q4(found.fractions())
