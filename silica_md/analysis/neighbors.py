"""The one place where the analysis asks for neighbours: pairs of a frame as NumPy arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms

import rsa_kernels as rk


class Pairs(NamedTuple):
    """Pairs closer than a cutoff, r_ij = r_j + S·cell − r_i.

    Attributes
    ----------
    i, j : ndarray (n_pairs,) int64
        Atoms.
    shifts : ndarray (n_pairs, 3) int32
        S.
    vectors : ndarray (n_pairs, 3)
        r_ij, Å.
    distances : ndarray (n_pairs,)
        |r_ij|, Å.
    """

    i: np.ndarray
    j: np.ndarray
    shifts: np.ndarray
    vectors: np.ndarray
    distances: np.ndarray

    def select(self, mask: np.ndarray) -> Pairs:
        """The pairs where `mask` is true, in the same order."""
        return Pairs(*(array[mask] for array in self))


def pairs_within(atoms: Atoms, cutoff: float, half: bool = False) -> Pairs:
    """All pairs of a frame with r < cutoff (Å), periodic images included, sorted by i.

    A full list holds both (i, j) and (j, i); a half list each pair once.
    """
    positions = torch.from_numpy(atoms.get_positions())
    cell = torch.from_numpy(np.array(atoms.cell))
    nl = rk.neighbor_list(positions, cell, torch.from_numpy(atoms.pbc), float(cutoff), half=half)
    return pairs_of(nl, positions, cell)


def pairs_of(nl: rk.NeighborList, positions: torch.Tensor, cell: torch.Tensor) -> Pairs:
    """The pairs of a neighbour list as arrays on the host."""
    vectors = nl.vectors(positions, cell).cpu()
    i, j = nl.edge_index.cpu().numpy()
    return Pairs(i, j, nl.unit_shifts.cpu().numpy(), vectors.numpy(), vectors.norm(dim=1).numpy())


def perpendicular_widths(cell: np.ndarray) -> np.ndarray:
    """Distances between opposite faces of a cell (3, 3), (3,), Å."""
    return 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
