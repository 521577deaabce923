"""The registered op `neighbor_rows`: rows of neighbours among atoms and their explicit periodic images."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from .. import _cuda
from .._library import Kernel, define_op
from .._native import bind, load_error
from ..errors import CapacityError, NonFiniteError
from .device_build import compact_rows

_build = bind("rk_neighbors_build", "ppippfipp")
_export = bind("rk_neighbors_export", "ppiipppp")
_stale = bind("rk_neighbors_stale", "pppippffip")


def _build_cpu(positions: Tensor, cells: Tensor, pbc: Tensor, batch_ptr: Tensor, cutoff: float):
    positions, cells = positions.to(torch.float64).contiguous(), cells.to(torch.float64).contiguous()
    pbc, batch_ptr = pbc.to(torch.uint8).contiguous(), batch_ptr.contiguous()
    n_atoms, n_systems = positions.shape[0], batch_ptr.numel() - 1
    sizes = (ctypes.c_int64 * 2)()
    handle = ctypes.c_void_p()
    status = _build(
        positions.data_ptr(),
        batch_ptr.data_ptr(),
        n_systems,
        cells.data_ptr(),
        pbc.data_ptr(),
        cutoff,
        torch.get_num_threads(),
        ctypes.addressof(sizes),
        ctypes.addressof(handle),
    )
    if status == -1:
        raise NonFiniteError(
            "`positions` holds NaN, infinite or absurdly large coordinates; the neighbour list cannot be built"
        )
    if status == -2:
        raise CapacityError(
            f"`cutoff` of {cutoff} Å reaches over more than 2³¹ periodic images of this cell; use a smaller cutoff"
        )
    if status == -3:
        raise CapacityError(
            f"not enough memory for the images and pairs that a `cutoff` of {cutoff} Å reaches; use a smaller cutoff"
        )
    n_pairs, n_extended = sizes
    row_ptr = torch.empty(n_atoms + 1, dtype=torch.int64)
    columns = torch.empty(n_pairs, dtype=torch.int32)
    owners = torch.empty(n_extended, dtype=torch.int32)
    shifts = torch.empty((n_extended, 3), dtype=torch.int32)
    _export(
        handle,
        batch_ptr.data_ptr(),
        n_systems,
        torch.get_num_threads(),
        row_ptr.data_ptr(),
        columns.data_ptr(),
        owners.data_ptr(),
        shifts.data_ptr(),
    )
    return row_ptr, columns, owners, shifts


def _build_cuda(positions: Tensor, cells: Tensor, pbc: Tensor, batch_ptr: Tensor, cutoff: float):
    return compact_rows(positions.to(torch.float64), cells.to(torch.float64), pbc, batch_ptr, cutoff)


def _fake(positions: Tensor, cells: Tensor, pbc: Tensor, batch_ptr: Tensor, cutoff: float):
    context = torch.library.get_ctx()
    n_pairs, n_extended = context.new_dynamic_size(), context.new_dynamic_size()
    return (
        positions.new_empty(positions.shape[0] + 1, dtype=torch.int64),
        positions.new_empty(n_pairs, dtype=torch.int32),
        positions.new_empty(n_extended, dtype=torch.int32),
        positions.new_empty((n_extended, 3), dtype=torch.int32),
    )


neighbor_rows = define_op(
    "neighbor_rows(Tensor positions, Tensor cells, Tensor pbc, Tensor batch_ptr, float cutoff)"
    " -> (Tensor row_ptr, Tensor columns, Tensor owners, Tensor shifts)",
    kernels={
        "cpu": Kernel(_build_cpu, "C++ cell list, threads and SIMD", load_error),
        "cuda": Kernel(_build_cuda, "CUDA C++ cell list", _cuda.missing),
    },
    fake=_fake,
)


def used_skin(
    positions: Tensor, reference: Tensor, batch_ptr: Tensor, cells: Tensor, reference_cells: Tensor, cutoff: float
) -> float:
    """How much of the skin motion since the list was built has used up, Å; NaN or infinite input gives NaN.

    max over systems of (cutoff + 2 d) ‖F⁻¹‖ − cutoff, with F = H₀⁻¹ H the cell's change and
    d = max |r_i − r_i⁰ F| the largest displacement beyond it; ‖F⁻¹‖ is bounded by 1 + ‖F⁻¹ − 1‖_F. A list with a
    larger skin than this holds every pair now inside the cutoff. Displacements are taken as they are: an atom
    wrapped back by a lattice vector has left its recorded image behind and uses up the skin.
    """
    if positions.is_cuda:
        return float(used_skin_tensor(positions, reference, batch_ptr, cells, reference_cells, cutoff))
    used = ctypes.c_double()
    status = _stale(
        positions.data_ptr(),
        reference.data_ptr(),
        batch_ptr.data_ptr(),
        batch_ptr.numel() - 1,
        cells.data_ptr(),
        reference_cells.data_ptr(),
        cutoff,
        0.0,
        torch.get_num_threads(),
        ctypes.addressof(used),
    )
    return float("nan") if status < 0 else used.value


def used_skin_tensor(
    positions: Tensor, reference: Tensor, batch_ptr: Tensor, cells: Tensor, reference_cells: Tensor, cutoff: float
) -> Tensor:
    """Evaluate the quantity of `used_skin` in plain torch: the definition, and the form used on GPUs (no transfer)."""
    change, back = _inverse(reference_cells) @ cells, _inverse(cells) @ reference_cells
    norm = 1.0 + (back - torch.eye(3, dtype=cells.dtype, device=cells.device)).flatten(1).norm(dim=1)
    systems = torch.arange(cells.shape[0], device=positions.device)
    system = torch.repeat_interleave(systems, batch_ptr.diff(), output_size=positions.shape[0])
    moved = positions - (reference.unsqueeze(1) @ change[system]).squeeze(1)
    largest = torch.zeros(cells.shape[0], dtype=positions.dtype, device=positions.device)
    largest = largest.scatter_reduce(0, system, moved.norm(dim=1), "amax")
    return ((cutoff + 2.0 * largest) * norm - cutoff).max()


def _inverse(cells: Tensor) -> Tensor:
    """Inverse of (n, 3, 3) by cross products: unlike a solver it never waits to see whether a cell is singular."""
    a, b, c = cells.unbind(1)
    columns = [torch.linalg.cross(*pair) for pair in ((b, c), (c, a), (a, b))]
    return torch.stack(columns, dim=2) / (a * columns[0]).sum(-1)[:, None, None]
