"""Rows of neighbours as a padded matrix: the layout that GPU kernels read."""

from __future__ import annotations

import torch
from torch import Tensor

ALIGNMENT = 32
"""Columns of the matrix are a multiple of this, so that its rows start on whole cache lines."""


def pad_rows(rows: Tensor, columns: Tensor, fill: int) -> Tensor:
    """Turn compact rows into a matrix whose column k holds the neighbours of row k.

    Parameters
    ----------
    rows : Tensor
        (n_rows + 1,) int64 offsets.
    columns : Tensor
        (n_pairs,) int32 entries.
    fill : int
        What fills up short columns.

    Returns
    -------
    Tensor
        (max_neighbors, width) int32, width ≥ n_rows: neighbours of consecutive rows stand side by side, and a warp
        reads them in one access.

    Notes
    -----
    4 bytes times the longest row times the number of rows, and a sixteenth of that while it is made. Waits for the
    device once, for the longest row.
    """
    start, end = rows[:-1], rows[1:]
    n_rows = start.numel()
    longest = int((end - start).max()) if n_rows else 0
    width = -(-n_rows // ALIGNMENT) * ALIGNMENT
    matrix = torch.full((longest, width), fill, dtype=torch.int32, device=columns.device)
    slots = torch.arange(longest, device=columns.device)
    step = max(1, longest // 32)
    for first in range(0, longest, step):
        place = start + slots[first : first + step, None]
        inside = place < end
        matrix[first : first + step, :n_rows] = torch.where(inside, columns[place.masked_fill(~inside, 0)], fill)
    return matrix
