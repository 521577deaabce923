"""What a set of frames consists of: species, counts, formula, mass density, mole fraction of Na2O."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.formula import Formula

from rsa_kernels.units import AMU_PER_A3_IN_G_PER_CM3

OXYGEN = 8


@dataclass(frozen=True)
class Composition:
    """Species of a system and where their atoms stand.

    Attributes
    ----------
    species : tuple of str
        Chemical symbols: by rising atomic number, oxygen last, so that pairs read "Na-Si", "Si-O".
    members : dict of str to ndarray of int64
        Indices of the atoms of each species.
    """

    species: tuple[str, ...]
    members: dict[str, np.ndarray]

    @classmethod
    def of(cls, atoms: Atoms) -> Composition:
        """Composition of one frame."""
        return cls.of_numbers(atoms.numbers)

    @classmethod
    def of_numbers(cls, numbers: np.ndarray) -> Composition:
        """Composition of atoms given by their atomic numbers, (n_atoms,) int."""
        order = sorted(np.unique(numbers).tolist(), key=lambda number: (number == OXYGEN, number))
        return cls(
            tuple(chemical_symbols[number] for number in order),
            {chemical_symbols[number]: np.flatnonzero(numbers == number) for number in order},
        )

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return sum(self.counts.values())

    @property
    def counts(self) -> dict[str, int]:
        """Number of atoms of each species."""
        return {symbol: len(indices) for symbol, indices in self.members.items()}

    @property
    def fractions(self) -> dict[str, float]:
        """Atomic fraction c_a = N_a / N of each species."""
        return {symbol: count / self.n_atoms for symbol, count in self.counts.items()}

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Unordered pairs of species."""
        return list(combinations_with_replacement(self.species, 2))

    @property
    def formula(self) -> str:
        """Empirical formula, e.g. ``SiO2`` or ``Na2Si4O9``."""
        reduced, _ = Formula.from_dict(self.counts).reduce()
        return str(reduced)

    @property
    def codes(self) -> np.ndarray:
        """Position in `species` of each atom's species, (n_atoms,) int64."""
        codes = np.empty(self.n_atoms, dtype=np.int64)
        for code, symbol in enumerate(self.species):
            codes[self.members[symbol]] = code
        return codes

    def na2o_fraction(self) -> float | None:
        """Mole fraction x of xNa2O·(1−x)SiO2; None for anything else (to 1 % of the oxygen)."""
        counts = {"Na": 0, "Si": 0, "O": 0} | self.counts
        if set(counts) != {"Na", "Si", "O"} or not counts["Si"]:
            return None
        if abs(2 * counts["Si"] + counts["Na"] / 2 - counts["O"]) > 0.01 * counts["O"]:
            return None
        return counts["Na"] / 2 / (counts["Na"] / 2 + counts["Si"])


def label(first: str, second: str) -> str:
    """Name of a pair as used in every result: "Si-O"."""
    return f"{first}-{second}"


def mass_density(atoms: Atoms) -> float:
    """Mass density in g/cm³, Σm / V."""
    return float(atoms.get_masses().sum() / atoms.get_volume() * AMU_PER_A3_IN_G_PER_CM3)


def number_density(atoms: Atoms) -> float:
    """Number density ρ = N / V in Å⁻³."""
    return len(atoms) / atoms.get_volume()
