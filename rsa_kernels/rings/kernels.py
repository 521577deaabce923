"""The searches on each device: C++ threads, and the same C++ as CUDA kernels; between passes plain torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _cuda
from .._native import bind
from ..errors import CapacityError

KING, GUTTMAN, PRIMITIVE = 0, 1, 2

_LINK_PASSES = {
    "count_bonds": bind("rk_rings_count_bonds", "ppiippi"),
    "fill_bonds": bind("rk_rings_fill_bonds", "ppipppi"),
    "tidy_rows": bind("rk_rings_tidy_rows", "pippi"),
    "count_links": bind("rk_rings_count_links", "pipppppi"),
    "fill_links": bind("rk_rings_fill_links", "pippppppi"),
    "pack_links": bind("rk_rings_pack_links", "ppippppi"),
}
_SEARCHES = {
    "shortest": bind("rk_rings_shortest", "ppppiiipp"),
    "count": bind("rk_rings_count", "ppppiiippipppp"),
    "members": bind("rk_rings_members", "ppppiiippiipppp"),
    "shells": bind("rk_rings_shells", "ppppiiip"),
}


def on_gpu(tensor: Tensor) -> bool:
    """Whether CUDA kernels run; tests replace it to send CPU tensors down that path."""
    return tensor.is_cuda


def links(edge_index: Tensor, unit_shifts: Tensor, is_node: Tensor):
    """Nodes and links of a bond list, as `Links` describes them."""
    edge_index, unit_shifts = edge_index.contiguous(), unit_shifts.contiguous()
    device, n_bonds, n_atoms = edge_index.device, edge_index.shape[1], is_node.numel()

    def zeros(count: int) -> Tensor:
        return torch.zeros(count, dtype=torch.int32, device=device)

    def run(name: str, items: int, *arguments) -> None:
        if on_gpu(edge_index):
            _cuda.launch("rings", f"rings_{name}", items, *arguments, device=device)
        else:
            plain = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
            _LINK_PASSES[name](*plain, torch.get_num_threads())

    degrees, first_bad = zeros(n_atoms), torch.full((2,), n_bonds, dtype=torch.int64, device=device)
    run("count_bonds", n_bonds, edge_index, unit_shifts, n_bonds, n_atoms, degrees, first_bad)
    _refuse_bad(edge_index, n_atoms, *first_bad.tolist())
    rows = _rows(degrees)
    bonds = torch.empty((2 * n_bonds, 5), dtype=torch.int32, device=device)
    run("fill_bonds", n_bonds, edge_index, unit_shifts, n_bonds, rows, zeros(n_atoms), bonds)
    lengths = zeros(n_atoms)
    run("tidy_rows", n_atoms, rows, n_atoms, bonds, lengths)

    nodes = is_node.nonzero().squeeze(1)
    n_nodes = nodes.numel()
    index = torch.where(is_node > 0, is_node.cumsum(0, dtype=torch.int32) - 1, -1).to(torch.int32)
    bridged = zeros(n_nodes)
    run("count_links", n_nodes, nodes, n_nodes, rows, lengths, bonds, index, bridged)
    places = _rows(bridged)
    found = torch.empty((int(places[-1]), 5), dtype=torch.int32, device=device)
    run("fill_links", n_nodes, nodes, n_nodes, rows, lengths, bonds, index, places, found)
    run("tidy_rows", n_nodes, places, n_nodes, found, bridged)
    link_rows = _rows(bridged)
    n_ends = int(link_rows[-1])
    ends = torch.empty((n_ends, 4), dtype=torch.int32, device=device)
    back, bridges = zeros(n_ends), zeros(n_ends)
    run("pack_links", n_nodes, places, link_rows, n_nodes, found, ends, back, bridges)
    return nodes, link_rows, ends, back, bridges


def _rows(lengths: Tensor) -> Tensor:
    rows = torch.zeros(lengths.numel() + 1, dtype=torch.int64, device=lengths.device)
    torch.cumsum(lengths, 0, out=rows[1:])
    return rows


def _refuse_bad(edge_index: Tensor, n_atoms: int, outside: int, own: int) -> None:
    if outside < edge_index.shape[1]:
        pair = tuple(edge_index[:, outside].tolist())
        raise ValueError(f"`edge_index` must name atoms 0 to {n_atoms - 1}, got {pair} as bond {outside}")
    if own < edge_index.shape[1]:
        atom = int(edge_index[0, own])
        raise ValueError(f"`edge_index` must not bond an atom to itself, got atom {atom} with shift (0, 0, 0)")


def shortest(rows: Tensor, ends: Tensor, back: Tensor, angle_rows: Tensor, max_size: int):
    """Shortest closed path per angle and per link end."""
    by_angle = torch.zeros(int(angle_rows[-1]), dtype=torch.int32, device=rows.device)
    by_end = torch.zeros(ends.shape[0], dtype=torch.int32, device=rows.device)
    _search("shortest", (rows, ends, back, angle_rows), max_size, (), (by_angle, by_end))
    return by_angle, by_end


def count(
    rows: Tensor,
    ends: Tensor,
    back: Tensor,
    angle_rows: Tensor,
    by_angle: Tensor,
    by_end: Tensor,
    criterion: int,
    max_size: int,
):
    """Rings through every node by size, and shortest closed paths per angle (King) or link end (Guttman)."""
    per_node = torch.zeros((rows.numel() - 1, max_size + 1), dtype=torch.int32, device=rows.device)
    multiplicity = torch.zeros(paths_shape(by_angle, by_end, criterion), dtype=torch.int32, device=rows.device)
    known = (criterion, by_angle.contiguous(), by_end.contiguous())
    _search("count", (rows, ends, back, angle_rows), max_size, known, (per_node, multiplicity, None, None))
    return per_node, multiplicity


def paths_shape(by_angle: Tensor, by_end: Tensor, criterion: int):
    """Shape of the numbers of shortest closed paths."""
    return by_end.shape if criterion == GUTTMAN else by_angle.shape


def members(
    rows: Tensor,
    ends: Tensor,
    back: Tensor,
    angle_rows: Tensor,
    by_angle: Tensor,
    by_end: Tensor,
    criterion: int,
    max_size: int,
    size: int,
):
    """Nodes and cells along every ring of a size: rings are counted per root, then written where they belong."""
    net = rows, ends, back, angle_rows
    known = (criterion, by_angle.contiguous(), by_end.contiguous())
    found = torch.zeros(rows.numel() - 1, dtype=torch.int64, device=rows.device)
    _search("members", net, max_size, known, (size, found, None, None, None))
    offsets = found.cumsum(0) - found
    n_rings = int(found.sum())
    nodes = torch.empty((n_rings, size), dtype=torch.int64, device=rows.device)
    shifts = torch.empty((n_rings, size, 3), dtype=torch.int32, device=rows.device)
    if n_rings:
        _search("members", net, max_size, known, (size, None, offsets, nodes, shifts))
    return nodes, shifts


def smallest(rows: Tensor, ends: Tensor, back: Tensor, angle_rows: Tensor, max_size: int):
    """Smallest primitive ring of every angle and how many: one search finds the sizes, another counts."""
    least = torch.full((int(angle_rows[-1]),), max_size + 1, dtype=torch.int32, device=rows.device)
    counted = torch.zeros_like(least)
    for into in (None, counted):
        _search("count", (rows, ends, back, angle_rows), max_size, (PRIMITIVE, None, None), (None, None, least, into))
    return torch.where(least > max_size, 0, least), counted


def shells(rows: Tensor, ends: Tensor, back: Tensor, angle_rows: Tensor, n_shells: int):
    """Coordination sequences."""
    out = torch.zeros((rows.numel() - 1, n_shells), dtype=torch.int64, device=rows.device)
    _search("shells", (rows, ends, back, angle_rows), n_shells, (), (out,))
    return out


def _search(name: str, net, max_size: int, known: tuple, results: tuple) -> None:
    net = [part.contiguous() for part in net]
    n_nodes = net[0].numel() - 1
    if on_gpu(net[0]):

        def run(slots: int, roots: Tensor, lack: Tensor, scratch: Tensor, room: Room) -> None:
            arguments = (*net, n_nodes, slots, roots, roots.numel(), lack, scratch, room.nodes, room.ends, room.words)
            _cuda.launch("rings", f"rings_{name}", slots, *arguments, max_size, *known, *results, device=roots.device)

        fits = on_device(run, n_nodes, max_size, net[0].device)
    else:
        criterion, tables = known[:1], known[1:]
        arguments = (*net, n_nodes, *criterion, max_size, *tables, torch.get_num_threads(), *results)
        fits = _SEARCHES[name](*(a.data_ptr() if isinstance(a, Tensor) else a for a in arguments)) == 0
    if not fits:
        raise CapacityError(
            f"rings or shells up to {max_size} reach over more nodes of this net than there is room for; ask for less"
        )


SCRATCH_BYTES = 2 << 30
"""Scratch of one launch on a GPU, at most."""
SLOTS = 1 << 16
"""Threads of one launch on a GPU, at most."""
LACK_NODES, LACK_ENDS, LACK_WORDS = 1, 2, 4


@dataclass(frozen=True)
class Room:
    """Room for the ball around one root, as csrc/rings.hpp has it."""

    nodes: int = 512
    ends: int = 2048
    words: int = 3072

    def scratch_bytes(self, max_size: int) -> int:
        """What `scratch_bytes` of csrc/rings.hpp gives."""
        buckets = 16
        while buckets < 2 * self.nodes:
            buckets *= 2
        integers = 4 * self.nodes + 1 + buckets + self.ends + 2 * (max_size + 3) + 4 * (max_size + 1)
        return (8 * self.words + 16 * self.nodes + 4 * integers + 31) // 16 * 16

    def grown(self, lack: int) -> Room:
        """Twice as much of what was lacking."""
        return Room(
            self.nodes * (2 if lack & LACK_NODES else 1),
            self.ends * (2 if lack & LACK_ENDS else 1),
            self.words * (2 if lack & (LACK_NODES | LACK_WORDS) else 1),
        )


FIRST_ROOM = Room()


def on_device(run: Callable, n_nodes: int, max_size: int, device: torch.device) -> bool:
    """Search from every root; those whose ball did not fit again, with more room. False where none does."""
    roots, room = torch.arange(n_nodes, device=device), FIRST_ROOM
    while roots.numel():
        slots = min(roots.numel(), SLOTS, SCRATCH_BYTES // room.scratch_bytes(max_size))
        if slots == 0:
            return False
        scratch = torch.empty(slots * room.scratch_bytes(max_size), dtype=torch.uint8, device=device)
        lack = torch.zeros(roots.numel(), dtype=torch.int32, device=device)
        run(slots, roots, lack, scratch, room)
        roots = roots[lack > 0]
        present = [bit for bit in (LACK_NODES, LACK_ENDS, LACK_WORDS) if bool((lack & bit).any())]
        room = room.grown(sum(present))
    return True
