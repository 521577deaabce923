"""A potential with its neighbour list: where an integrator gets its forces."""

from __future__ import annotations

import math

import torch
from torch import Tensor

import rsa_kernels as rk
from rsa_kernels._nvtx import annotated
from rsa_kernels.errors import AtomsTooCloseError, LostNeighborError, NonFiniteError

from .potentials import Evaluation, Potential
from .state import State

MAX_JUMP = 0.5
"""Å; an atom that moves farther than this between two evaluations is not integrated any more but thrown."""


class ForceField:
    """Forces of a potential on a moving state.

    Parameters
    ----------
    potential : Potential
        Energy model; no list is kept for one whose cutoff is 0.
    skin : float
        Extra reach of the list, Å. A larger skin means fewer rebuilds and more pairs to look at.

    Attributes
    ----------
    forces : Tensor or None
        At the positions of the last evaluation, (n_atoms, 3), eV/Å.
    neighbors : NeighborList or None
    """

    def __init__(self, potential: Potential, skin: float = 1.0):
        self.potential = potential
        self.skin = float(skin)
        self.neighbors: rk.NeighborList | None = None
        self.forces: Tensor | None = None
        self._clearance: Tensor | None = None

    @annotated("forces")
    def evaluate(self, state: State, *, energy: bool = False, virial: bool = False) -> Evaluation:
        """Forces, and on demand energy and virial, of `state`; the neighbour list is kept valid.

        Raises
        ------
        rsa_kernels.errors.NonFiniteError
            Positions or the cell are NaN or infinite.
        rsa_kernels.errors.AtomsTooCloseError
            Two atoms are closer than the potential is defined for.
        rsa_kernels.errors.LostNeighborError
            An atom moved farther since the last evaluation than a sound time step can move it. On a GPU, where
            the list is checked one call late: farther than the list allows for.
        """
        if self.potential.cutoff > 0.0:
            self._update_list(state)
        evaluation = self.potential.evaluate(state, self.neighbors, energy=energy, virial=virial)
        self.forces = evaluation.forces
        if evaluation.clearance is not None:
            seen = self._clearance
            self._clearance = evaluation.clearance if seen is None else torch.minimum(seen, evaluation.clearance)
        return evaluation

    @annotated("neighbours")
    def _update_list(self, state: State) -> None:
        if self.neighbors is None:
            self._build(state)
            return
        if not state.positions.is_cuda:
            used = self.neighbors.used_skin(state.positions, state.cell)
            if used > self.skin + 2.0 * MAX_JUMP:
                raise LostNeighborError(
                    f"an atom moved by more than {MAX_JUMP} Å since the last evaluation "
                    f"({used:.2f} Å of the {self.skin:g} Å skin used up): a shorter time step may help"
                )
            if used <= self.skin:
                return
        self.neighbors.update(state.positions, state.cell)

    def _build(self, state: State) -> None:
        cutoff = self.potential.cutoff
        self.neighbors = rk.neighbor_list(state.positions, state.cell, state.pbc, cutoff, skin=self.skin)

    def confirm(self) -> None:
        """Raise what the evaluations since the last call would have raised had they waited for a GPU.

        Raises
        ------
        rsa_kernels.errors.LostNeighborError, rsa_kernels.errors.AtomsTooCloseError
        rsa_kernels.errors.NonFiniteError
        """
        if self.neighbors is not None:
            self.neighbors.confirm()
        if self._clearance is not None:
            clearance, self._clearance = float(self._clearance), None
            if math.isnan(clearance):
                raise NonFiniteError("forces, positions or the cell are NaN or infinite")
            if clearance < 0.0:
                raise AtomsTooCloseError(f"two atoms came {-clearance:.4f} Å closer than the potential is defined for")

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a restart needs: forces, and what the list was last built from."""
        saved = {"forces": self.forces}
        if self.neighbors is not None:
            saved["reference_positions"] = self.neighbors.reference_positions
            saved["reference_cell"] = self.neighbors.reference_cell
        return saved

    def load_state_dict(self, saved: dict[str, Tensor], state: State) -> None:
        """Continue from `state_dict`: the list is rebuilt from where it was built, so it is the same list."""
        self.forces = saved["forces"]
        if "reference_positions" in saved:
            self._build(state.at(saved["reference_positions"], saved["reference_cell"]))
            # The last evaluation was here; a list checked one call late has to know.
            self.neighbors.update(state.positions, state.cell)
