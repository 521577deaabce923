"""The registered ops of ring statistics: the net of a bond list, and searches from every node of it."""

from __future__ import annotations

import torch
from torch import Tensor

from .._cuda import missing as cuda_missing
from .._library import Kernel, define_op
from .._native import load_error
from . import kernels
from .kernels import GUTTMAN, KING, PRIMITIVE

CRITERIA = {"king": KING, "guttman": GUTTMAN, "primitive": PRIMITIVE}


def _links_fake(edge_index: Tensor, unit_shifts: Tensor, is_node: Tensor):
    context = torch.library.get_ctx()
    n_nodes, n_ends = context.new_dynamic_size(), context.new_dynamic_size()
    return (
        edge_index.new_empty(n_nodes),
        edge_index.new_empty(n_nodes + 1),
        unit_shifts.new_empty((n_ends, 4)),
        unit_shifts.new_empty(n_ends),
        unit_shifts.new_empty(n_ends),
    )


def _per_angle(ends: Tensor) -> Tensor:
    return ends.new_empty(torch.library.get_ctx().new_dynamic_size())


def _shortest_fake(rows: Tensor, ends: Tensor, back: Tensor, angle_rows: Tensor, max_size: int):
    return _per_angle(ends), ends.new_empty(ends.shape[0])


def _count_fake(rows, ends, back, angle_rows, by_angle, by_end, criterion, max_size):
    return ends.new_empty((rows.shape[0] - 1, max_size + 1)), ends.new_empty(
        kernels.paths_shape(by_angle, by_end, criterion)
    )


def _members_fake(rows, ends, back, angle_rows, by_angle, by_end, criterion, max_size, size):
    n_rings = torch.library.get_ctx().new_dynamic_size()
    return rows.new_empty((n_rings, size)), ends.new_empty((n_rings, size, 3))


def _smallest_fake(rows, ends, back, angle_rows, max_size):
    least = _per_angle(ends)
    return least, torch.empty_like(least)


def _shells_fake(rows, ends, back, angle_rows, shells):
    return rows.new_empty((rows.shape[0] - 1, shells))


_NET = "Tensor rows, Tensor ends, Tensor back, Tensor angle_rows"
_KNOWN = "Tensor by_angle, Tensor by_end, int criterion, int max_size"


def _define(signature: str, function, fake):
    on_cpu = Kernel(function, "C++ threads", load_error)
    on_gpu = Kernel(function, "CUDA C++ (CuPy), one root a thread", cuda_missing)
    return define_op(signature, kernels={"cpu": on_cpu, "cuda": on_gpu}, fake=fake)


links = _define(
    "ring_links(Tensor edge_index, Tensor unit_shifts, Tensor is_node)"
    " -> (Tensor nodes, Tensor rows, Tensor ends, Tensor back, Tensor bridges)",
    kernels.links,
    _links_fake,
)
shortest = _define(
    f"ring_shortest({_NET}, int max_size) -> (Tensor by_angle, Tensor by_end)", kernels.shortest, _shortest_fake
)
count = _define(f"ring_count({_NET}, {_KNOWN}) -> (Tensor per_node, Tensor multiplicity)", kernels.count, _count_fake)
members = _define(
    f"ring_members({_NET}, {_KNOWN}, int size) -> (Tensor nodes, Tensor shifts)", kernels.members, _members_fake
)
smallest = _define(
    f"ring_smallest({_NET}, int max_size) -> (Tensor least, Tensor count)", kernels.smallest, _smallest_fake
)
shells = _define(f"ring_shells({_NET}, int shells) -> Tensor", kernels.shells, _shells_fake)
