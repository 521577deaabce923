"""Qn speciation: how many bridging oxygens each silicon has."""

from __future__ import annotations

import numpy as np

from .composition import Composition
from .coordination import fractions, neighbour_counts
from .neighbors import Pairs


def qn_fractions(frames_bonds: list[Pairs], composition: Composition) -> dict[int, float]:
    """Fraction of Si with n bridging oxygens, {n: fraction}; 0 to 4 are always there.

    An oxygen bridges when it is bonded to two Si or more. An overcoordinated Si can have n > 4.
    Empty where there is no Si or no O.
    """
    if not {"Si", "O"} <= set(composition.species):
        return {}
    is_silicon = np.isin(np.arange(composition.n_atoms), composition.members["Si"])
    found = []
    for bonds in frames_bonds:
        bridging = np.zeros(composition.n_atoms, dtype=bool)
        bridging[composition.members["O"]] = neighbour_counts(bonds, composition, "O", "Si") >= 2
        bridges = bonds.i[is_silicon[bonds.i] & bridging[bonds.j]]
        found.append(np.bincount(bridges, minlength=composition.n_atoms)[composition.members["Si"]])
    return dict.fromkeys(range(5), 0.0) | fractions(np.concatenate(found))
