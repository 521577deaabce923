"""Edges in order, and the rows of a shorter cutoff, out of finished rows: the kernels that CUDA lists are read with."""

from __future__ import annotations

import torch
from torch import Tensor

from .device_build import launch, words_of

FIELDS = (
    "n_atoms", "half", "cutoff", "rows", "columns", "owners", "image_shifts", "positions", "cells", "system", "ranks",
    "keys", "counts", "starts", "edges", "shifts", "kept",
)  # fmt: skip
"""Fields of the block in the order of RK_NEIGHBOR_ROWS; a test compares."""


def edges(
    rows: Tensor, columns: Tensor, owners: Tensor, image_shifts: Tensor, half: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs (i, j, S) of compact rows, in this order.

    Parameters
    ----------
    rows, columns, owners, image_shifts : Tensor
        As of `NeighborList`.
    half : bool
        Keep each pair once.

    Returns
    -------
    edge_index, unit_shifts, row_ptr : Tensor
        (2, n_pairs) int64, (n_pairs, 3) int32, (n_atoms + 1,) int64.

    Notes
    -----
    28 bytes a pair, and 4 while they are made. Every key is compared with those of its row: O(n_pairs · neighbours).
    Waits for the device once if `half`.
    """
    n_atoms = rows.numel() - 1
    counts, starts = _counters(rows)
    fields = {"n_atoms": n_atoms, "half": int(half), "rows": rows, "columns": columns, "owners": owners}
    fields |= {"image_shifts": image_shifts, "counts": counts, "starts": starts, "keys": torch.empty_like(columns)}
    fields["ranks"] = ranks(owners, image_shifts)
    _launch("count_edges", fields, n_atoms)
    torch.cumsum(counts, 0, out=starts[1:])
    n_pairs = int(starts[-1]) if half else columns.numel()
    edge_index = torch.empty((2, n_pairs), dtype=torch.int64, device=rows.device)
    shifts = torch.empty((n_pairs, 3), dtype=torch.int32, device=rows.device)
    _launch("write_edges", {**fields, "edges": edge_index, "shifts": shifts}, columns.numel())
    return edge_index, shifts, starts


def within(
    rows: Tensor,
    columns: Tensor,
    owners: Tensor,
    image_shifts: Tensor,
    positions: Tensor,
    cells: Tensor,
    batch_ptr: Tensor,
    cutoff: float,
) -> tuple[Tensor, Tensor]:
    """Rows and columns of the pairs that are closer than `cutoff` at these positions; waits for the device once.

    Parameters
    ----------
    rows, columns, owners, image_shifts, batch_ptr : Tensor
        As of `NeighborList`.
    positions, cells : Tensor
        (n_atoms, 3) and (n_systems, 3, 3), float64.
    cutoff : float
        Å.
    """
    n_atoms = rows.numel() - 1
    counts, starts = _counters(rows)
    systems = torch.arange(batch_ptr.numel() - 1, device=rows.device)
    fields = {"n_atoms": n_atoms, "cutoff": float(cutoff), "rows": rows, "columns": columns, "owners": owners}
    fields |= {"image_shifts": image_shifts, "counts": counts, "starts": starts}
    fields |= {"positions": positions.contiguous(), "cells": cells.contiguous()}
    fields["system"] = torch.repeat_interleave(systems, batch_ptr.diff(), output_size=n_atoms)
    _launch("count_within", fields, n_atoms)
    torch.cumsum(counts, 0, out=starts[1:])
    kept = torch.empty(int(starts[-1]), dtype=torch.int32, device=rows.device)
    _launch("write_within", {**fields, "kept": kept}, n_atoms)
    return starts, kept


def ranks(owners: Tensor, image_shifts: Tensor) -> Tensor:
    """Place of every entry in the order of (owner, lattice vector), (n_entries,) int32.

    Within a row S differs from the entry's own lattice vector by a constant: entries in this order are pairs in the
    order of (j, S).
    """
    order = torch.arange(owners.numel(), device=owners.device)
    for key in (image_shifts[:, 2], image_shifts[:, 1], image_shifts[:, 0], owners):
        order = order[torch.argsort(key[order], stable=True)]
    rank = torch.empty_like(owners)
    rank[order] = torch.arange(owners.numel(), dtype=owners.dtype, device=owners.device)
    return rank


def _counters(rows: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(rows[1:]), torch.zeros_like(rows)


def _launch(name: str, fields: dict[str, Tensor | int | float], n_threads: int) -> None:
    block = words_of([fields.get(field, 0) for field in FIELDS], fields["rows"].device)
    launch(name, n_threads, block)
