"""Any potential as an ASE calculator: energy, forces and stress for scripts, relaxations and other MD."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from ase.calculators import calculator as ase_calculator

import rsa_kernels as rk
from rsa_kernels.errors import AtomsTooCloseError

from . import potentials
from .state import State


class Calculator(ase_calculator.Calculator):
    """ASE calculator of a potential.

    Parameters
    ----------
    potential : str or Potential
        A name that `silica_md.potentials.build` knows, or a potential. By name, it is built for the
        composition of the atoms, and again when that changes.
    skin : float
        Å by which the neighbour list reaches beyond the cutoff; it is rebuilt when motion has used that up. On a
        GPU it is rebuilt at every call.
    device : str or torch.device
        Where it is evaluated.
    d3 : str
        Functional whose D3(BJ) dispersion is added, such as "pbe"; "" for none.
    d3_options : mapping, optional
        Of the dispersion, see `silica_md.potentials.dispersion.DispersionSettings`.
    **options
        Options of a potential given by name.

    Notes
    -----
    Results: energy and free_energy (eV), energies per atom (eV), forces (eV/Å), stress (eV/Å³, positive in
    tension, Voigt order xx yy zz yz xz xy; only for cells with a volume).

    Examples
    --------
    >>> from ase.build import bulk
    >>> from silica_md.ase import Calculator
    >>> atoms.calc = Calculator("shik")  # doctest: +SKIP
    >>> atoms.get_potential_energy()  # doctest: +SKIP
    """

    implemented_properties = ("energy", "free_energy", "energies", "forces", "stress")

    def __init__(
        self,
        potential,
        *,
        skin: float = 1.0,
        device: torch.device | str = "cpu",
        d3: str = "",
        d3_options: Mapping | None = None,
        **options,
    ):
        super().__init__()
        if not isinstance(potential, str) and options:
            raise TypeError(f"options need a potential given by name, got {potential!r}, {sorted(options)}")
        if not skin >= 0.0:
            raise ValueError(f"`skin` must be at least 0 Å, got {skin!r}")
        if isinstance(potential, str):
            potentials.require_known(potential, options)
        if d3_options and not d3:
            raise ValueError("`d3_options` are of D3 dispersion, but `d3` names no functional")
        self._given, self._options = potential, options
        self._d3, self._d3_options = d3, dict(d3_options or {})
        if d3:
            potentials.settled_dispersion(d3, self._d3_options)  # refused here rather than in the first step
        self._device = torch.device(device)
        # On a GPU a list with a skin is checked one call late, too late for whoever moves atoms as they please.
        self._skin = float(skin) if self._device.type == "cpu" else 0.0
        self.potential = None
        self.neighbors = None

    def calculate(self, atoms=None, properties=("energy",), system_changes=ase_calculator.all_changes):
        """Evaluate the potential for `atoms`; ASE calls this when something has changed."""
        super().calculate(atoms, properties, system_changes)
        state = State.from_ase(self.atoms, self._device)
        if self.potential is None or "numbers" in system_changes:
            self.potential = self._potential_for(state)
            self.neighbors = None
        if "pbc" in system_changes:
            self.neighbors = None
        periodic = abs(float(state.volume())) > 0.0
        asked_per_atom = "energies" in properties
        result = self.potential.evaluate(
            state, self._neighbors_of(state), energy=True, virial=periodic, per_atom_energy=asked_per_atom
        )
        if result.clearance is not None and not float(result.clearance) >= 0.0:
            raise AtomsTooCloseError(f"two atoms are closer than potential '{self.potential.name}' is defined for")
        energy = float(result.energy)
        self.results = {"energy": energy, "free_energy": energy, "forces": result.forces.cpu().numpy()}
        if periodic and result.virial is not None:
            stress = (-result.virial / state.volume()).cpu().numpy()
            self.results["stress"] = stress.flat[np.array([0, 4, 8, 5, 2, 1])]
        if asked_per_atom:
            self.results["energies"] = result.per_atom_energy.cpu().numpy()

    def _potential_for(self, state: State):
        potential = self._bare_potential_for(state)
        if not self._d3:
            return potential
        return potentials.with_dispersion(potential, self._d3, state.atomic_numbers, **self._d3_options)

    def _bare_potential_for(self, state: State):
        if isinstance(self._given, str):
            return potentials.build(self._given, state.atomic_numbers, **self._options)
        # charges were fixed for one composition; on another they would not cancel
        if hasattr(self._given, "check_composition"):
            self._given.check_composition(state.atomic_numbers)
        return self._given

    def _neighbors_of(self, state: State):
        if self.potential.cutoff <= 0.0:
            return None
        if self.neighbors is None:
            self.neighbors = rk.neighbor_list(
                state.positions, state.cell, state.pbc, self.potential.cutoff, skin=self._skin
            )
        else:
            self.neighbors.update(state.positions, state.cell)
        return self.neighbors
