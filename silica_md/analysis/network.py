"""Everything that follows from the bonds of the frames: coordination, lengths, angles, Qn and rings."""

from __future__ import annotations

import numpy as np

from .bond_angles import AngleTally, BondAngles
from .composition import Composition, label
from .coordination import BondLengths, neighbour_counts
from .neighbors import Pairs
from .qn import bridging_counts, with_all_of_q0_to_q4
from .rings import silicon_rings
from .tally import Frequencies


class Network:
    """The bonded network, added up frame by frame; no frame is kept.

    Parameters
    ----------
    composition : Composition
    bonded : list of (str, str)
        Pairs of species that can bond.
    """

    def __init__(self, composition: Composition, bonded: list[tuple[str, str]]):
        self._composition = composition
        ordered = dict.fromkeys(pair for a, b in bonded for pair in ((a, b), (b, a)))
        self._coordination = {pair: Frequencies() for pair in ordered}
        self._lengths, self._angles = BondLengths(composition), AngleTally(composition)
        self._bridges = Frequencies() if {"Si", "O"} <= set(composition.species) else None
        self._rings: dict[str, np.ndarray] = {}
        self._frames = 0

    def add(self, bonds: Pairs) -> None:
        """Take the bonds of one more frame in, both directions and sorted by the first atom."""
        composition = self._composition
        for pair, frequencies in self._coordination.items():
            frequencies.add(neighbour_counts(bonds, composition, *pair))
        self._lengths.add(bonds)
        self._angles.add(bonds)
        if self._bridges is not None:
            self._bridges.add(bridging_counts(bonds, composition))
        for criterion, counts in silicon_rings(bonds, composition).items():
            self._rings[criterion] = self._rings.get(criterion, 0) + counts
        self._frames += 1

    @property
    def coordination(self) -> dict[str, dict[int, float]]:
        """Fraction of the first element of "Si-O" with n of the second."""
        return {label(*pair): frequencies.fractions() for pair, frequencies in self._coordination.items()}

    @property
    def bond_length(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation, Å."""
        return self._lengths.result()

    @property
    def angles(self) -> BondAngles:
        """Bond-angle distributions."""
        return self._angles.result()

    @property
    def qn(self) -> dict[int, float]:
        """Fraction of Si with n bridging oxygens; empty where there is no Si or no O."""
        return {} if self._bridges is None else with_all_of_q0_to_q4(self._bridges.fractions())

    @property
    def rings(self) -> dict[str, np.ndarray]:
        """Distinct rings per Si by size, for each definition; empty where there is no Si or no O."""
        silicons = self._composition.counts.get("Si", 0) * self._frames
        return {criterion: counts / silicons for criterion, counts in self._rings.items()}
