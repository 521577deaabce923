"""Simulation cells: rows a, b, c; completion of non-periodic directions; volumes and heights."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _checks
from .errors import NonFiniteError


def as_batch(cell: Tensor, pbc, n_systems: int) -> tuple[Tensor, Tensor]:
    """Bring a cell and its periodic flags to (n_systems, 3, 3) and (n_systems, 3).

    Parameters
    ----------
    cell : Tensor
        (3, 3) or (n_systems, 3, 3), rows a, b, c in Å.
    pbc : bool, sequence of 3 bools or Tensor
        One flag for all directions, (3,), or (n_systems, 3).
    n_systems : int
        Number of systems.
    """
    _checks.tensor("cell", cell)
    if cell.shape == (3, 3):
        cells = cell.unsqueeze(0).expand(n_systems, 3, 3)
    elif cell.shape == (n_systems, 3, 3):
        cells = cell
    else:
        wanted = "(3, 3)" if n_systems == 1 else f"(3, 3) or ({n_systems}, 3, 3)"
        raise ValueError(f"`cell` must have shape {wanted}, got {tuple(cell.shape)}")
    try:
        flags = torch.as_tensor(pbc, dtype=torch.bool, device=cell.device)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"`pbc` must be one bool, 3 bools or a bool tensor, got {pbc!r}") from None
    if flags.dim() == 0:
        flags = flags.expand(3)
    if flags.shape == (3,):
        flags = flags.unsqueeze(0).expand(n_systems, 3)
    elif flags.shape != (n_systems, 3):
        raise ValueError(f"`pbc` must be one bool, have shape (3,) or ({n_systems}, 3), got {tuple(flags.shape)}")
    return cells, flags


def complete(cells: Tensor, pbc: Tensor) -> Tensor:
    """Replace missing (zero) vectors of non-periodic directions by unit vectors normal to the others.

    The vectors put in follow the given ones smoothly: a cell that changes a little is completed a little differently.

    Parameters
    ----------
    cells : Tensor
        (n_systems, 3, 3), float64.
    pbc : Tensor
        (n_systems, 3) bool.

    Returns
    -------
    Tensor
        (n_systems, 3, 3), invertible; rows that were given are kept as they are.

    Raises
    ------
    ValueError
        A periodic direction has a zero vector, or the vectors are linearly dependent.
    rsa_kernels.errors.NonFiniteError
        A component is NaN or infinite.
    """
    if not bool(torch.isfinite(cells).all()):
        raise NonFiniteError("`cell` holds NaN or infinite values")
    lengths = cells.norm(dim=-1)
    missing = lengths == 0
    if bool((missing & pbc).any()):
        raise ValueError("`cell` has a zero vector in a periodic direction; give it a length or set its `pbc` to False")
    if bool(missing.any()):
        cells = cells.clone()
        for index in torch.nonzero(missing.any(dim=1)).flatten().tolist():
            cells[index] = _complete_one(cells[index], missing[index])
        lengths = cells.norm(dim=-1)
    # Volume over the product of lengths: 1 for a right angle cell, 0 for dependent vectors.
    flatness = torch.linalg.det(cells).abs() / lengths.prod(dim=-1)
    if not bool((flatness > 1e-8).all()):
        worst = int(flatness.argmin())
        raise ValueError(
            f"`cell` of system {worst} is singular: its vectors are linearly dependent, {cells[worst].tolist()}"
        )
    return cells


def _complete_one(cell: Tensor, missing: Tensor) -> Tensor:
    given = cell[~missing]
    if given.shape[0] == 0:
        return torch.eye(3, dtype=cell.dtype, device=cell.device)
    if given.shape[0] == 1:
        axis = torch.zeros_like(given)
        axis[0, int(given.abs().argmin())] = 1.0
        normal = torch.linalg.cross(given, axis)
        complement = torch.cat([normal, torch.linalg.cross(given, normal)])
    else:
        complement = torch.linalg.cross(given[:1], given[1:])
    completed = cell.clone()
    completed[missing] = torch.nn.functional.normalize(complement, dim=1, eps=0.0)
    return completed


def volume(cell: Tensor) -> Tensor:
    """Volume |a · (b × c)| in Å³ of (..., 3, 3) cells."""
    return torch.linalg.det(cell).abs()


def heights(cell: Tensor) -> Tensor:
    """Distances between opposite faces, (..., 3), Å: h_a = V / |b × c| = 1 / |row of A⁻ᵀ|."""
    return 1.0 / torch.linalg.inv(cell).norm(dim=-2)


def inverse(cell: Tensor) -> Tensor:
    """A⁻¹ of (..., 3, 3) cells, columns b × c, c × a, a × b over V; not finite where the cell is singular.

    Written out, so that a GPU is not waited for and a compiled graph is not broken by a check.
    """
    a, b, c = cell.unbind(dim=-2)
    columns = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], dim=-1)
    return columns / (a * columns[..., 0]).sum(dim=-1)[..., None, None]
