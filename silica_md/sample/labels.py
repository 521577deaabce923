"""The teacher as a source of labels: energy, forces and stress of any configuration, all with the same settings."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from ase import Atoms

import rsa_kernels as rk
from rsa_kernels import random
from rsa_kernels.errors import AtomsTooCloseError

from .. import potentials
from ..config import Config
from ..labelled import labelled, rounded
from ..state import State, Stream

HALVINGS = 5
"""Of the noise in a copy, at most; of 2 Å, 0.06 Å are left then."""


class Teacher:
    """Labels by the potential of a configuration.

    Parameters
    ----------
    config : Config
        Its `potential`, `coulomb` and `potential_options`.
    reference : ase.Atoms
        The settings of Ewald sums are chosen for its density and charges, and kept for all that is labelled.
    accuracy : float
        Of Ewald sums, RMS error of a force in units of 14.4 eV/Å; they are direct sums, without a mesh.

    Attributes
    ----------
    options : dict
        Keyword arguments of the potential that makes the labels; plain data.
    """

    def __init__(self, config: Config, reference: Atoms, accuracy: float):
        self.name, options = config.potential, config.options_of_potential()
        if "ewald" in options or options.get("coulomb") == "ewald":
            options = options | {"ewald": {"accuracy": accuracy, "method": "spectral"}}
        state = State.from_ase(reference)
        self.options = potentials.settled(self.name, state.atomic_numbers, state.cell, options)
        self._built: dict[bytes, potentials.Potential] = {}

    def label(self, atoms: Atoms, info: Mapping[str, object] | None = None) -> Atoms:
        """Return the configuration, wrapped and rounded to what a file holds, with its labels.

        Raises
        ------
        rsa_kernels.errors.AtomsTooCloseError
            Two atoms are closer than the potential is defined for.
        """
        atoms = rounded(atoms)
        state = State.from_ase(atoms)
        key = atoms.numbers.tobytes()
        if key not in self._built:
            self._built[key] = potentials.build(self.name, state.atomic_numbers, **self.options)
        potential, neighbors = self._built[key], None
        if potential.cutoff > 0.0:
            neighbors = rk.neighbor_list(state.positions, state.cell, state.pbc, potential.cutoff)
        result = potential.evaluate(state, neighbors, energy=True, virial=True)
        stress = -result.virial / state.volume()
        return labelled(atoms, float(result.energy), result.forces, stress, info)

    def copy(self, atoms: Atoms, strain: float, rattle: float, seed: int, number: int, info: Mapping) -> Atoms:
        """Return a strained and rattled copy of a configuration, labelled.

        The strain is symmetric, its six components uniform within ± `strain`; every atom moves by normal noise of
        width `rattle` (Å), halved, up to `HALVINGS` times, while two atoms are too close for the potential.
        """
        words = random.bits(seed, number, torch.arange(2), Stream.STRAIN_OF_COPY)[:, :3].double().flatten()
        six = strain * (2.0 * (words + 0.5) * 2.0**-32 - 1.0)
        deformation = torch.eye(3, dtype=torch.float64) + torch.diag(six[:3])
        for value, (i, j) in zip(six[3:], ((1, 2), (0, 2), (0, 1)), strict=True):
            deformation[i, j] = deformation[j, i] = value
        halvings = 0
        noise = random.normal(seed, number, torch.arange(len(atoms)), Stream.RATTLE_OF_COPY).numpy()
        while True:
            moved = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
            moved.set_cell(atoms.cell.array @ deformation.numpy(), scale_atoms=True)
            moved.positions += rattle * noise
            try:
                return self.label(moved, info)
            except AtomsTooCloseError:
                if halvings == HALVINGS:
                    raise
                rattle, halvings = 0.5 * rattle, halvings + 1
