"""The registered ops that read compact rows: `neighbor_edges` (pairs), `neighbor_matrix` and `neighbor_shorten`."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from .. import _cuda
from .._library import Kernel, define_op
from .._native import bind, load_error
from ..errors import CapacityError
from . import device_rows

_counts = bind("rk_neighbors_counts", "ppppiiip")
_edges = bind("rk_neighbors_edges", "ppppiiiippp")
_matrix = bind("rk_neighbors_matrix", "ppppiiiiiipp")
_within = bind("rk_neighbors_within", "pppipppp" + "ifippp")
_within_export = bind("rk_neighbors_within_export", "pip")

_NO_MEMORY = "not enough memory for the pairs of this neighbour list; use a smaller cutoff"


def _arguments(rows: Tensor, columns: Tensor, owners: Tensor, shifts: Tensor):
    return rows.data_ptr(), columns.data_ptr(), owners.data_ptr(), shifts.data_ptr(), rows.numel() - 1


def _counts_cpu(rows: Tensor, columns: Tensor, owners: Tensor, shifts: Tensor, half: bool) -> Tensor:
    counts = torch.empty(rows.numel() - 1, dtype=torch.int64)
    threads = torch.get_num_threads()
    _counts(*_arguments(rows, columns, owners, shifts), half, threads, counts.data_ptr())
    return counts


def _offsets(counts: Tensor) -> Tensor:
    offsets = counts.new_zeros(counts.numel() + 1)
    torch.cumsum(counts, 0, out=offsets[1:])
    return offsets


def _edges_cpu(rows: Tensor, columns: Tensor, owners: Tensor, shifts: Tensor, half: bool):
    rows, columns, owners, shifts = (x.contiguous() for x in (rows, columns, owners, shifts))
    row_ptr = _offsets(_counts_cpu(rows, columns, owners, shifts, half))
    n_pairs = int(row_ptr[-1])
    edge_index = torch.empty((2, n_pairs), dtype=torch.int64)
    unit_shifts = torch.empty((n_pairs, 3), dtype=torch.int32)
    status = _edges(
        *_arguments(rows, columns, owners, shifts),
        owners.numel(),
        half,
        torch.get_num_threads(),
        row_ptr.data_ptr(),
        edge_index.data_ptr(),
        unit_shifts.data_ptr(),
    )
    if status != 0:
        raise CapacityError(_NO_MEMORY)
    return edge_index, unit_shifts, row_ptr


def edges_torch(rows: Tensor, columns: Tensor, owners: Tensor, shifts: Tensor, half: bool):
    """Evaluate `neighbor_edges` in plain torch: the definition."""
    n_atoms = rows.numel() - 1
    centres = torch.repeat_interleave(torch.arange(n_atoms, device=rows.device), rows.diff())
    entries = columns.to(torch.int64)
    i, j = owners[centres].to(torch.int64), owners[entries].to(torch.int64)
    unit_shifts = shifts[entries] - shifts[centres]
    rank = device_rows.ranks(owners, shifts).to(torch.int64)
    place = torch.argsort(i * owners.numel() + rank[entries])
    i, j, unit_shifts = i[place], j[place], unit_shifts[place]
    if half:
        first, second, third = unit_shifts.unbind(1)
        leading = torch.where(first != 0, first, torch.where(second != 0, second, third))
        kept = (i < j) | ((i == j) & (leading > 0))
        i, j, unit_shifts = i[kept], j[kept], unit_shifts[kept]
    row_ptr = _offsets(torch.zeros(n_atoms, dtype=torch.int64, device=i.device).index_add_(0, i, torch.ones_like(i)))
    return torch.stack([i, j]), unit_shifts.contiguous(), row_ptr


def edges_cuda(rows: Tensor, columns: Tensor, owners: Tensor, shifts: Tensor, half: bool):
    """Evaluate `neighbor_edges` by kernels."""
    return device_rows.edges(*(x.contiguous() for x in (rows, columns, owners, shifts)), half)


def _edges_fake(rows: Tensor, columns: Tensor, owners: Tensor, shifts: Tensor, half: bool):
    n_pairs = torch.library.get_ctx().new_dynamic_size()
    return (
        rows.new_empty((2, n_pairs), dtype=torch.int64),
        shifts.new_empty((n_pairs, 3), dtype=torch.int32),
        rows.new_empty(rows.shape[0], dtype=torch.int64),
    )


neighbor_edges = define_op(
    "neighbor_edges(Tensor rows, Tensor columns, Tensor owners, Tensor shifts, bool half)"
    " -> (Tensor edge_index, Tensor unit_shifts, Tensor row_ptr)",
    kernels={
        "cpu": Kernel(_edges_cpu, "C++, threads", load_error),
        "cuda": Kernel(edges_cuda, "CUDA C++", _cuda.missing),
    },
    fake=_edges_fake,
)


def _checked_width(counts: Tensor, width: int) -> int:
    longest = int(counts.max()) if counts.numel() else 0
    if width < 0:
        return longest
    if longest > width:
        raise CapacityError(
            f"`max_neighbors` of {width} is too small, an atom has {longest} neighbours; pass {longest} or more"
        )
    return width


def _matrix_cpu(rows: Tensor, columns: Tensor, owners: Tensor, shifts: Tensor, half: bool, width: int, fill: int):
    rows, columns, owners, shifts = (x.contiguous() for x in (rows, columns, owners, shifts))
    counts = _counts_cpu(rows, columns, owners, shifts, half)
    width = _checked_width(counts, width)
    neighbors = torch.empty((counts.numel(), width), dtype=torch.int64)
    unit_shifts = torch.empty((counts.numel(), width, 3), dtype=torch.int32)
    status = _matrix(
        *_arguments(rows, columns, owners, shifts),
        owners.numel(),
        half,
        torch.get_num_threads(),
        width,
        fill,
        neighbors.data_ptr(),
        unit_shifts.data_ptr(),
    )
    if status != 0:
        raise CapacityError(_NO_MEMORY)
    return neighbors, unit_shifts, counts


def matrix_torch(rows: Tensor, columns: Tensor, owners: Tensor, shifts: Tensor, half: bool, width: int, fill: int):
    """Evaluate `neighbor_matrix` in plain torch: the definition."""
    return _matrix_of(edges_torch(rows, columns, owners, shifts, half), width, fill)


def matrix_cuda(rows: Tensor, columns: Tensor, owners: Tensor, shifts: Tensor, half: bool, width: int, fill: int):
    """Evaluate `neighbor_matrix` by kernels and torch."""
    return _matrix_of(edges_cuda(rows, columns, owners, shifts, half), width, fill)


def _matrix_of(edges: tuple[Tensor, Tensor, Tensor], width: int, fill: int) -> tuple[Tensor, Tensor, Tensor]:
    (i, j), pair_shifts, row_ptr = edges
    counts = row_ptr.diff()
    width = _checked_width(counts, width)
    neighbors = torch.full((counts.numel(), width), fill, dtype=torch.int64, device=i.device)
    unit_shifts = torch.zeros((counts.numel(), width, 3), dtype=torch.int32, device=i.device)
    place = torch.arange(i.numel(), device=i.device) - row_ptr[i]
    neighbors[i, place], unit_shifts[i, place] = j, pair_shifts
    return neighbors, unit_shifts, counts


def _matrix_fake(rows: Tensor, columns: Tensor, owners: Tensor, shifts: Tensor, half: bool, width: int, fill: int):
    n_atoms = rows.shape[0] - 1
    width = torch.library.get_ctx().new_dynamic_size() if width < 0 else width
    return (
        rows.new_empty((n_atoms, width), dtype=torch.int64),
        shifts.new_empty((n_atoms, width, 3), dtype=torch.int32),
        rows.new_empty(n_atoms, dtype=torch.int64),
    )


neighbor_matrix = define_op(
    "neighbor_matrix(Tensor rows, Tensor columns, Tensor owners, Tensor shifts, bool half, int width, int fill)"
    " -> (Tensor neighbors, Tensor unit_shifts, Tensor counts)",
    kernels={
        "cpu": Kernel(_matrix_cpu, "C++, threads", load_error),
        "cuda": Kernel(matrix_cuda, "CUDA C++ and torch", _cuda.missing),
    },
    fake=_matrix_fake,
)


def _shorten_cpu(
    positions: Tensor,
    cells: Tensor,
    batch_ptr: Tensor,
    rows: Tensor,
    columns: Tensor,
    owners: Tensor,
    shifts: Tensor,
    cutoff: float,
):
    positions, cells, batch_ptr, rows, columns, owners, shifts = (
        x.contiguous() for x in (positions, cells, batch_ptr, rows, columns, owners, shifts)
    )
    threads = torch.get_num_threads()
    inner_rows = torch.empty_like(rows)
    n_pairs, handle = ctypes.c_int64(), ctypes.c_void_p()
    status = _within(
        positions.data_ptr(),
        cells.data_ptr(),
        batch_ptr.data_ptr(),
        batch_ptr.numel() - 1,
        rows.data_ptr(),
        columns.data_ptr(),
        owners.data_ptr(),
        shifts.data_ptr(),
        owners.numel(),
        cutoff,
        threads,
        inner_rows.data_ptr(),
        ctypes.addressof(n_pairs),
        ctypes.addressof(handle),
    )
    if status != 0:
        raise CapacityError(_NO_MEMORY)
    inner_columns = torch.empty(n_pairs.value, dtype=torch.int32)
    _within_export(handle, threads, inner_columns.data_ptr())
    return inner_rows, inner_columns


def shorten_torch(
    positions: Tensor,
    cells: Tensor,
    batch_ptr: Tensor,
    rows: Tensor,
    columns: Tensor,
    owners: Tensor,
    shifts: Tensor,
    cutoff: float,
):
    """Evaluate `neighbor_shorten` in plain torch: the definition."""
    n_atoms = rows.numel() - 1
    atoms, entries = owners.to(torch.int64), columns.to(torch.int64)
    system = torch.bucketize(atoms, batch_ptr[1:], right=True)
    places = positions[atoms] + (shifts.to(torch.float64).unsqueeze(1) @ cells[system]).squeeze(1)
    centres = torch.repeat_interleave(torch.arange(n_atoms, device=rows.device), rows.diff())
    kept = (places[entries] - places[centres]).square().sum(-1) < cutoff * cutoff
    counts = torch.zeros(n_atoms, dtype=torch.int64, device=rows.device).index_add_(0, centres, kept.to(torch.int64))
    return _offsets(counts), columns[kept]


def shorten_cuda(positions, cells, batch_ptr, rows, columns, owners, shifts, cutoff: float):
    """Evaluate `neighbor_shorten` by kernels."""
    compact = (x.contiguous() for x in (rows, columns, owners, shifts))
    return device_rows.within(*compact, positions, cells, batch_ptr, cutoff)


def _shorten_fake(
    positions: Tensor,
    cells: Tensor,
    batch_ptr: Tensor,
    rows: Tensor,
    columns: Tensor,
    owners: Tensor,
    shifts: Tensor,
    cutoff: float,
):
    n_pairs = torch.library.get_ctx().new_dynamic_size()
    return torch.empty_like(rows), columns.new_empty(n_pairs)


neighbor_shorten = define_op(
    "neighbor_shorten(Tensor positions, Tensor cells, Tensor batch_ptr, Tensor rows, Tensor columns, Tensor owners,"
    " Tensor shifts, float cutoff) -> (Tensor rows, Tensor columns)",
    kernels={
        "cpu": Kernel(_shorten_cpu, "C++, threads and SIMD", load_error),
        "cuda": Kernel(shorten_cuda, "CUDA C++", _cuda.missing),
    },
    fake=_shorten_fake,
)
