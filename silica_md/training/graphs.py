"""Labelled frames to graphs, once, and graphs to batches: the dict a model takes, and its labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor

import rsa_kernels as rk

from ..errors import DataError
from .frames import Frame

_SAME_SPOT = 0.05  # Å


class Graph(NamedTuple):
    """A frame as tensors; edges in 14 bytes each, floats in the precision of the model."""

    species: Tensor
    """(n_atoms,) int64, index into the elements of the model."""
    positions: Tensor
    cell: Tensor
    pbc: Tensor
    edge_index: Tensor
    """(2, n_edges) int32: sender i, receiver j."""
    unit_shifts: Tensor
    """(n_edges, 3) int16, S: vector = r_j − r_i + S·cell."""
    energy: Tensor
    """Label without the energies of the isolated atoms, eV."""
    forces: Tensor
    stress: Tensor
    weight: float
    shortest: float
    """Smallest distance within the cutoff, Å."""


class Batch(NamedTuple):
    """Graphs joined into one."""

    inputs: dict[str, Tensor]
    """What a model takes: see ``silica_md.models``."""
    n_atoms: Tensor
    """(n_systems,) in floating point."""
    energy: Tensor
    forces: Tensor
    stress: Tensor
    weight: Tensor
    """(n_systems,)"""


def make_graphs(
    frames: Sequence[Frame], atomic_numbers: Sequence[int], energies: Mapping[int, float], r_max: float, dtype
) -> list[Graph]:
    """Make the graphs of frames.

    Parameters
    ----------
    frames : list of Frame
    atomic_numbers : list of int
        Elements of the model, ascending.
    energies : mapping
        Energies of the isolated atoms by atomic number, eV. They are taken off the labels here, in float64: what is
        left is small enough for float32.
    r_max : float
        Cutoff, Å.
    dtype : torch.dtype
        Of the floating-point tensors.

    Raises
    ------
    DataError
        A frame holds an element the model has not, or two atoms on one spot.
    """
    return [_graph(frame, list(atomic_numbers), energies, r_max, dtype) for frame in frames]


def _graph(frame, atomic_numbers, energies, r_max, dtype):
    unknown = sorted(set(frame.atomic_numbers.tolist()) - set(atomic_numbers))
    if unknown:
        known = ", ".join(chemical_symbols[z] for z in atomic_numbers)
        raise DataError(
            f"{frame.where} holds {', '.join(chemical_symbols[z] for z in unknown)}, which the model does not know "
            f"(it knows {known}, the elements of the training frames, or of `atomic_numbers`)"
        )
    positions, cell = torch.from_numpy(frame.positions), torch.from_numpy(frame.cell)
    neighbors = rk.neighbor_list(positions, cell, torch.from_numpy(frame.pbc), r_max)
    edges, shifts = neighbors.edge_index, neighbors.unit_shifts
    vectors = positions[edges[1]] - positions[edges[0]] + shifts.to(cell) @ cell
    lengths = vectors.norm(dim=1)
    shortest = float(lengths.min()) if len(lengths) else float("inf")
    if shortest < _SAME_SPOT:
        i, j = edges[:, int(lengths.argmin())].tolist()
        raise DataError(f"{frame.where}: atoms {i} and {j} are {shortest:.4f} Å apart")
    residual = frame.energy - sum(energies[z] for z in frame.atomic_numbers.tolist())
    return Graph(
        torch.from_numpy(np.searchsorted(atomic_numbers, frame.atomic_numbers)),
        positions.to(dtype),
        cell.to(dtype),
        torch.from_numpy(frame.pbc),
        edges.to(torch.int32),
        shifts.to(torch.int16),
        torch.tensor(residual, dtype=dtype),
        torch.from_numpy(frame.forces).to(dtype),
        torch.from_numpy(frame.stress).to(dtype),
        frame.weight,
        shortest,
    )


def collate(graphs: Sequence[Graph], n_elements: int, device: torch.device | str = "cpu") -> Batch:
    """Join graphs into one batch on a device."""
    dtype = graphs[0].positions.dtype
    sizes = torch.tensor([len(graph.species) for graph in graphs])
    edges = torch.tensor([graph.edge_index.shape[1] for graph in graphs])
    ptr = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    cell = torch.stack([graph.cell for graph in graphs])
    edge_index = torch.cat([graph.edge_index for graph in graphs], dim=1).to(torch.int64)
    edge_index += torch.repeat_interleave(ptr[:-1], edges)
    unit_shifts = torch.cat([graph.unit_shifts for graph in graphs]).to(dtype)
    cell_of_edge = torch.repeat_interleave(cell, edges, dim=0)
    species = torch.cat([graph.species for graph in graphs])
    inputs = {
        "positions": torch.cat([graph.positions for graph in graphs]),
        "cell": cell,
        "pbc": torch.stack([graph.pbc for graph in graphs]),
        "edge_index": edge_index,
        "unit_shifts": unit_shifts,
        "shifts": torch.einsum("es,esc->ec", unit_shifts, cell_of_edge),
        "node_attrs": torch.nn.functional.one_hot(species, n_elements).to(dtype),
        "batch": torch.repeat_interleave(torch.arange(len(graphs)), sizes),
        "ptr": ptr,
        "head": torch.zeros(len(graphs), dtype=torch.int64),
    }
    batch = Batch(
        inputs,
        sizes.to(dtype),
        torch.stack([graph.energy for graph in graphs]),
        torch.cat([graph.forces for graph in graphs]),
        torch.stack([graph.stress for graph in graphs]),
        torch.tensor([graph.weight for graph in graphs], dtype=dtype),
    )
    if torch.device(device).type == "cpu":
        return batch
    moved = {name: value.to(device) for name, value in inputs.items()}
    return Batch(moved, *(value.to(device) for value in batch[1:]))
