"""The registered ops `neighbor_vectors` and its transpose: each is the other's derivative, so all orders are there."""

from __future__ import annotations

import torch
from torch import Tensor

from .._library import Kernel, define_op
from .._native import bind, load_error
from ..errors import CapacityError

_vectors = bind("rk_neighbors_vectors", "ppppiiippp")
_transposed = bind("rk_neighbors_vectors_transposed", "ppppiiippp")


def _run(
    function, edge_index: Tensor, unit_shifts: Tensor, row_ptr: Tensor, batch_ptr: Tensor, *floats: Tensor
) -> None:
    status = function(
        edge_index[1].data_ptr(),
        unit_shifts.data_ptr(),
        row_ptr.data_ptr(),
        batch_ptr.data_ptr(),
        batch_ptr.numel() - 1,
        torch.get_num_threads(),
        8 * floats[0].element_size(),
        *(x.data_ptr() for x in floats),
    )
    if status != 0:
        raise CapacityError("not enough memory for the vectors of this neighbour list; use a smaller cutoff")


def _vectors_cpu(
    positions: Tensor, cells: Tensor, batch_ptr: Tensor, edge_index: Tensor, unit_shifts: Tensor, row_ptr: Tensor
):
    pairs = [x.contiguous() for x in (edge_index, unit_shifts, row_ptr, batch_ptr)]
    out = torch.empty((edge_index.shape[1], 3), dtype=positions.dtype)
    _run(_vectors, *pairs, positions.contiguous(), cells.contiguous(), out)
    return out


def vectors_torch(
    positions: Tensor, cells: Tensor, batch_ptr: Tensor, edge_index: Tensor, unit_shifts: Tensor, row_ptr: Tensor
):
    """Evaluate `neighbor_vectors` in plain torch: the definition, and the form used on GPUs."""
    i, j = edge_index
    shifts = unit_shifts.to(positions.dtype)
    if cells.shape[0] == 1:
        offset = shifts @ cells[0]
    else:
        system = torch.bucketize(i, batch_ptr[1:], right=True)
        offset = (shifts.unsqueeze(1) @ cells[system]).squeeze(1)
    return positions.index_select(0, j) - positions.index_select(0, i) + offset


def _transposed_cpu(gradient: Tensor, batch_ptr: Tensor, edge_index: Tensor, unit_shifts: Tensor, row_ptr: Tensor):
    pairs = [x.contiguous() for x in (edge_index, unit_shifts, row_ptr, batch_ptr)]
    of_positions = torch.empty((row_ptr.numel() - 1, 3), dtype=gradient.dtype)
    of_cells = torch.empty((batch_ptr.numel() - 1, 3, 3), dtype=gradient.dtype)
    _run(_transposed, *pairs, gradient.contiguous(), of_positions, of_cells)
    return of_positions, of_cells


def transposed_torch(gradient: Tensor, batch_ptr: Tensor, edge_index: Tensor, unit_shifts: Tensor, row_ptr: Tensor):
    """Evaluate `neighbor_vectors_transposed` in plain torch: the definition, and the form used on GPUs."""
    i, j = edge_index
    of_positions = gradient.new_zeros((row_ptr.numel() - 1, 3)).index_add(0, j, gradient).index_add(0, i, -gradient)
    system = torch.bucketize(i, batch_ptr[1:], right=True)
    products = unit_shifts.to(gradient.dtype).unsqueeze(2) * gradient.unsqueeze(1)
    of_cells = gradient.new_zeros((batch_ptr.numel() - 1, 3, 3)).index_add(0, system, products)
    return of_positions, of_cells


def _save_pairs(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs[-4:])


def _vectors_backward(ctx, gradient):
    return *neighbor_vectors_transposed(gradient, *ctx.saved_tensors), None, None, None, None


def _transposed_backward(ctx, of_positions, of_cells):
    return neighbor_vectors(of_positions, of_cells, *ctx.saved_tensors), None, None, None, None


neighbor_vectors = define_op(
    "neighbor_vectors(Tensor positions, Tensor cells, Tensor batch_ptr, Tensor edge_index, Tensor unit_shifts,"
    " Tensor row_ptr) -> Tensor",
    kernels={
        "cpu": Kernel(_vectors_cpu, "C++, threads", load_error),
        "cuda": Kernel(vectors_torch, "torch"),
    },
    fake=lambda positions, cells, batch_ptr, edge_index, unit_shifts, row_ptr: positions.new_empty(
        (edge_index.shape[1], 3)
    ),
    backward=_vectors_backward,
    setup_context=_save_pairs,
)

neighbor_vectors_transposed = define_op(
    "neighbor_vectors_transposed(Tensor gradient, Tensor batch_ptr, Tensor edge_index, Tensor unit_shifts,"
    " Tensor row_ptr) -> (Tensor of_positions, Tensor of_cells)",
    kernels={
        "cpu": Kernel(_transposed_cpu, "C++, threads", load_error),
        "cuda": Kernel(transposed_torch, "torch"),
    },
    fake=lambda gradient, batch_ptr, edge_index, unit_shifts, row_ptr: (
        gradient.new_empty((row_ptr.shape[0] - 1, 3)),
        gradient.new_empty((batch_ptr.shape[0] - 1, 3, 3)),
    ),
    backward=_transposed_backward,
    setup_context=_save_pairs,
)
