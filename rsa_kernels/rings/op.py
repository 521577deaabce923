"""The registered ops of ring statistics: the net of a bond list, and searches from every node of it."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from .._library import Kernel, define_op
from .._native import bind, load_error
from ..errors import CapacityError

KING, GUTTMAN, PRIMITIVE = 0, 1, 2
CRITERIA = {"king": KING, "guttman": GUTTMAN, "primitive": PRIMITIVE}

_build = bind("rk_rings_links_build", "ppipiipp")
_export = bind("rk_rings_links_export", "pippppp")
_shortest = bind("rk_rings_shortest", "ppppiiipp")
_count = bind("rk_rings_count", "ppppiiippippppp")
_members = bind("rk_rings_members", "ppppiiippiipppp")
_shells = bind("rk_rings_shells", "ppppiiip")


def _links_cpu(edge_index: Tensor, unit_shifts: Tensor, is_node: Tensor):
    edge_index, unit_shifts, is_node = edge_index.contiguous(), unit_shifts.contiguous(), is_node.contiguous()
    sizes, handle = (ctypes.c_int64 * 2)(), ctypes.c_void_p()
    status = _build(
        edge_index.data_ptr(),
        unit_shifts.data_ptr(),
        edge_index.shape[1],
        is_node.data_ptr(),
        is_node.numel(),
        torch.get_num_threads(),
        ctypes.addressof(sizes),
        ctypes.addressof(handle),
    )
    if status:
        bond = sizes[0]
        pair = tuple(edge_index[:, bond].tolist())
        if status == -1:
            raise ValueError(f"`edge_index` must name atoms 0 to {is_node.numel() - 1}, got bond {bond} = {pair}")
        raise ValueError(f"`edge_index` must not bond an atom to itself, got bond {bond} = {pair} with shift (0, 0, 0)")
    n_nodes, n_ends = sizes
    nodes, rows = torch.empty(n_nodes, dtype=torch.int64), torch.empty(n_nodes + 1, dtype=torch.int64)
    ends = torch.empty((n_ends, 4), dtype=torch.int32)
    back, bridges = torch.empty(n_ends, dtype=torch.int32), torch.empty(n_ends, dtype=torch.int32)
    _export(handle, torch.get_num_threads(), *(part.data_ptr() for part in (nodes, rows, ends, back, bridges)))
    return nodes, rows, ends, back, bridges


def _fits(status: int, limit: int) -> None:
    if status:
        raise CapacityError(
            f"rings or shells up to {limit} reach over more nodes than memory holds in this net; ask for smaller ones"
        )


def _net(rows: Tensor, ends: Tensor, back: Tensor, angle_rows: Tensor) -> tuple[list[Tensor], tuple[int, ...]]:
    """Contiguous parts, to be kept alive, and the leading arguments of every search."""
    parts = [rows.contiguous(), ends.contiguous(), back.contiguous(), angle_rows.contiguous()]
    return parts, (*(part.data_ptr() for part in parts), rows.numel() - 1)


def _shortest_cpu(rows: Tensor, ends: Tensor, back: Tensor, angle_rows: Tensor, max_size: int):
    _parts, net = _net(rows, ends, back, angle_rows)
    shortest = torch.zeros(int(angle_rows[-1]), dtype=torch.int32)
    at_end = torch.zeros(ends.shape[0], dtype=torch.int32)
    _fits(_shortest(*net, max_size, torch.get_num_threads(), shortest.data_ptr(), at_end.data_ptr()), max_size)
    return shortest, at_end


def _count_cpu(
    rows: Tensor,
    ends: Tensor,
    back: Tensor,
    angle_rows: Tensor,
    shortest: Tensor,
    at_end: Tensor,
    criterion: int,
    max_size: int,
):
    _parts, net = _net(rows, ends, back, angle_rows)
    shortest, at_end = shortest.contiguous(), at_end.contiguous()
    counts = torch.zeros(max_size + 1, dtype=torch.int64)
    per_node = torch.zeros((rows.numel() - 1, max_size + 1), dtype=torch.int32)
    multiplicity = torch.zeros_like(shortest)
    status = _count(
        *net,
        criterion,
        max_size,
        shortest.data_ptr(),
        at_end.data_ptr(),
        torch.get_num_threads(),
        counts.data_ptr(),
        per_node.data_ptr(),
        multiplicity.data_ptr(),
        None,
        None,
    )
    _fits(status, max_size)
    return counts, per_node, multiplicity


def _members_cpu(
    rows: Tensor,
    ends: Tensor,
    back: Tensor,
    angle_rows: Tensor,
    shortest: Tensor,
    at_end: Tensor,
    criterion: int,
    max_size: int,
    size: int,
):
    _parts, net = _net(rows, ends, back, angle_rows)
    shortest, at_end = shortest.contiguous(), at_end.contiguous()
    known = (shortest.data_ptr(), at_end.data_ptr(), torch.get_num_threads(), size)
    found = torch.zeros(rows.numel() - 1, dtype=torch.int64)
    _fits(_members(*net, criterion, max_size, *known, found.data_ptr(), None, None, None), max_size)
    offsets = found.cumsum(0)
    n_rings = int(offsets[-1]) if offsets.numel() else 0
    offsets = offsets - found
    nodes = torch.empty((n_rings, size), dtype=torch.int64)
    shifts = torch.empty((n_rings, size, 3), dtype=torch.int32)
    if n_rings:
        written = (offsets.data_ptr(), nodes.data_ptr(), shifts.data_ptr())
        _fits(_members(*net, criterion, max_size, *known, None, *written), max_size)
    return nodes, shifts


def _smallest_cpu(rows: Tensor, ends: Tensor, back: Tensor, angle_rows: Tensor, max_size: int):
    _parts, net = _net(rows, ends, back, angle_rows)
    least = torch.full((int(angle_rows[-1]),), max_size + 1, dtype=torch.int32)
    count = torch.zeros_like(least)
    for counted in (None, count.data_ptr()):
        results = (None, None, None, least.data_ptr(), counted)
        counts = torch.zeros(max_size + 1, dtype=torch.int64)
        results = (counts.data_ptr(), *results[1:])
        _fits(_count(*net, PRIMITIVE, max_size, None, None, torch.get_num_threads(), *results), max_size)
    return torch.where(least > max_size, 0, least), count


def _shells_cpu(rows: Tensor, ends: Tensor, back: Tensor, angle_rows: Tensor, shells: int):
    _parts, net = _net(rows, ends, back, angle_rows)
    out = torch.zeros((rows.numel() - 1, shells), dtype=torch.int64)
    _fits(_shells(*net, shells, torch.get_num_threads(), out.data_ptr()), shells)
    return out


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


def _angles_fake(ends: Tensor) -> Tensor:
    return ends.new_empty(torch.library.get_ctx().new_dynamic_size())


def _count_fake(rows, ends, back, angle_rows, shortest, at_end, criterion, max_size):
    return (
        rows.new_empty(max_size + 1),
        ends.new_empty((rows.shape[0] - 1, max_size + 1)),
        torch.empty_like(shortest),
    )


def _members_fake(rows, ends, back, angle_rows, shortest, at_end, criterion, max_size, size):
    n_rings = torch.library.get_ctx().new_dynamic_size()
    return rows.new_empty((n_rings, size)), ends.new_empty((n_rings, size, 3))


def _smallest_fake(rows, ends, back, angle_rows, max_size):
    least = _angles_fake(ends)
    return least, torch.empty_like(least)


def _kernels(cpu):
    return {"cpu": Kernel(cpu, "C++ threads", load_error)}


_NET = "Tensor rows, Tensor ends, Tensor back, Tensor angle_rows"
_KNOWN = "Tensor shortest, Tensor at_end, int criterion, int max_size"

links = define_op(
    "ring_links(Tensor edge_index, Tensor unit_shifts, Tensor is_node)"
    " -> (Tensor nodes, Tensor rows, Tensor ends, Tensor back, Tensor bridges)",
    kernels=_kernels(_links_cpu),
    fake=_links_fake,
)
shortest = define_op(
    f"ring_shortest({_NET}, int max_size) -> (Tensor shortest, Tensor at_end)",
    kernels=_kernels(_shortest_cpu),
    fake=lambda rows, ends, back, angle_rows, max_size: (_angles_fake(ends), ends.new_empty(ends.shape[0])),
)
count = define_op(
    f"ring_count({_NET}, {_KNOWN}) -> (Tensor counts, Tensor per_node, Tensor multiplicity)",
    kernels=_kernels(_count_cpu),
    fake=_count_fake,
)
members = define_op(
    f"ring_members({_NET}, {_KNOWN}, int size) -> (Tensor nodes, Tensor shifts)",
    kernels=_kernels(_members_cpu),
    fake=_members_fake,
)
smallest = define_op(
    f"ring_smallest({_NET}, int max_size) -> (Tensor least, Tensor count)",
    kernels=_kernels(_smallest_cpu),
    fake=_smallest_fake,
)
shells = define_op(
    f"ring_shells({_NET}, int shells) -> Tensor",
    kernels=_kernels(_shells_cpu),
    fake=lambda rows, ends, back, angle_rows, shells: rows.new_empty((rows.shape[0] - 1, shells)),
)
