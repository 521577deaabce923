"""A potential with its neighbour list: where an integrator gets its forces."""

from __future__ import annotations

import math

from torch import Tensor

import rsa_kernels as rk
from rsa_kernels.errors import NonFiniteError

from .errors import LostNeighborError
from .potentials import Evaluation, Potential
from .state import State

MAX_JUMP = 0.5
"""Å; an atom that moves farther than this between two steps is not integrated any more but thrown."""


class ForceField:
    """Forces of a potential on a moving state.

    Parameters
    ----------
    potential : Potential
        Energy model; no list is kept for one whose cutoff is 0.
    skin : float
        Extra reach of the list, Å. A larger skin means fewer rebuilds and more pairs to look at.
    check_every : int
        Evaluations between looks at how far atoms have moved. Above 1 (a GPU, where looking stops the queue)
        the list is rebuilt when half the skin is used up, and a step that used up all of it is an error.

    Attributes
    ----------
    forces : Tensor or None
        At the positions of the last evaluation, (n_atoms, 3), eV/Å.
    neighbors : NeighborList or None
    """

    def __init__(self, potential: Potential, skin: float = 1.0, check_every: int = 1):
        self.potential = potential
        self.skin = float(skin)
        self.check_every = int(check_every)
        self.neighbors = None
        self.forces: Tensor | None = None
        self._evaluations = 0

    def evaluate(self, state: State, *, energy: bool = False, virial: bool = False) -> Evaluation:
        """Forces, and on demand energy and virial, of `state`; the neighbour list is kept valid.

        Raises
        ------
        rsa_kernels.errors.NonFiniteError
            Positions or the cell are NaN or infinite.
        rsa_kernels.errors.AtomsTooCloseError
            Two atoms are closer than the potential is defined for.
        LostNeighborError
            Atoms moved farther than the list allows for since the last check.
        """
        if self.potential.cutoff > 0.0:
            self._update_list(state)
        evaluation = self.potential.evaluate(state, self.neighbors, energy=energy, virial=virial)
        self.forces = evaluation.forces
        return evaluation

    def _update_list(self, state: State) -> None:
        self._evaluations += 1
        if self.neighbors is None:
            self._build(state)
        elif self._evaluations % self.check_every == 0:
            used = self.neighbors.used_skin(state.positions, state.cell)
            if math.isnan(used):
                raise NonFiniteError("positions or the cell are NaN or infinite")
            allowed = self.skin + 2.0 * MAX_JUMP if self.check_every == 1 else self.skin
            if used > allowed:
                raise LostNeighborError(
                    f"an atom moved too far between two checks of the neighbour list ({used:.2f} Å used of "
                    f"{allowed:.2f} Å): the time step is too long or the forces are wrong"
                )
            if used > (self.skin if self.check_every == 1 else 0.5 * self.skin):
                self._build(state)

    def _build(self, state: State) -> None:
        cutoff = self.potential.cutoff
        self.neighbors = rk.neighbor_list(state.positions, state.cell, state.pbc, cutoff, skin=self.skin)

    def state_dict(self) -> dict:
        """Return what a restart needs: forces, and what the list was last built from."""
        saved = {"forces": self.forces, "evaluations": self._evaluations}
        if self.neighbors is not None:
            saved["reference_positions"] = self.neighbors.reference_positions
            saved["reference_cell"] = self.neighbors.reference_cell
        return saved

    def load_state_dict(self, saved: dict, state: State) -> None:
        """Continue from `state_dict`: the list is rebuilt from where it was built, so it is the same list."""
        self.forces = saved["forces"]
        self._evaluations = saved["evaluations"]
        if "reference_positions" in saved:
            self._build(state.at(saved["reference_positions"], saved["reference_cell"]))
