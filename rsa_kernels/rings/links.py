"""The net of a bond list: nodes, and the links between them with the image each leads to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _checks
from . import op

LARGEST_SHIFT = 1 << 20
"""Cells; sums of shifts along a ring of at most `LARGEST_SIZE` links then fit 32 bits."""
LARGEST_SIZE = 256
"""Largest ring, or shell, that can be asked for."""


@dataclass(frozen=True)
class Links:
    """Nodes of a network and their links, each seen from both its ends.

    Ends of node k are the entries ``rows[k]:rows[k + 1]`` of the other arrays, sorted by neighbour and shift.

    Attributes
    ----------
    nodes : Tensor
        (n_nodes,) int64, atom of every node, ascending.
    rows : Tensor
        (n_nodes + 1,) int64.
    ends : Tensor
        (n_ends, 4) int32: the node an end leads to and the cell S of its image, r_neighbour + S·cell.
    back : Tensor
        (n_ends,) int32: place of the same link in its other node's row.
    bridges : Tensor
        (n_ends,) int32: how many atoms bridge the link, 0 where its nodes are bonded to each other and nothing else.
    angle_rows : Tensor
        (n_nodes + 1,) int64: angles of node k are ``angle_rows[k]:angle_rows[k + 1]``.
    """

    nodes: Tensor
    rows: Tensor
    ends: Tensor
    back: Tensor
    bridges: Tensor
    angle_rows: Tensor

    @property
    def n_nodes(self) -> int:
        """Number of nodes."""
        return self.nodes.numel()

    @property
    def degrees(self) -> Tensor:
        """(n_nodes,) int64, links of every node."""
        return self.rows.diff()

    @property
    def net(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the searches take."""
        return self.rows, self.ends, self.back, self.angle_rows

    def owners(self) -> Tensor:
        """(n_ends,) int64, the node every end starts from."""
        return torch.repeat_interleave(torch.arange(self.n_nodes, device=self.rows.device), self.degrees)

    def angles(self) -> Tensor:
        """(n_angles, 3) int64: node, and the two ends (entries of ``ends``) of each of its angles, smaller first."""
        degrees = self.degrees
        angles = torch.empty((int(self.angle_rows[-1]), 3), dtype=torch.int64, device=self.rows.device)
        for degree in degrees.unique().tolist():
            of_degree = (degrees == degree).nonzero()
            first, second = torch.triu_indices(degree, degree, 1, device=self.rows.device)
            row = self.rows[of_degree]
            places = self.angle_rows[of_degree] + torch.arange(first.numel(), device=self.rows.device)
            angles[places] = torch.stack((of_degree.expand_as(places), row + first, row + second), dim=-1)
        return angles


def build(edge_index: Tensor, unit_shifts: Tensor, n_atoms: int, nodes: Tensor | None) -> Links:
    """Check a bond list and turn it into `Links`; the arguments are those of `ring_statistics`."""
    _checks.tensor("edge_index", edge_index, dtypes=(torch.int64,))
    _checks.shape("edge_index", edge_index, 2, "n_bonds")
    _checks.tensor("unit_shifts", unit_shifts, dtypes=(torch.int32, torch.int64), device=edge_index.device)
    _checks.shape("unit_shifts", unit_shifts, edge_index.shape[1], 3)
    n_atoms = whole("n_atoms", n_atoms, 0, (1 << 31) - 1)
    low, high = map(int, unit_shifts.aminmax()) if unit_shifts.numel() else (0, 0)
    if low < -LARGEST_SHIFT or high > LARGEST_SHIFT:
        farthest = low if -low > high else high
        raise ValueError(f"`unit_shifts` must lie within ±{LARGEST_SHIFT} cells, got {farthest}")
    is_node = _is_node(nodes, n_atoms, edge_index.device)
    found, rows, ends, back, bridges = op.links(edge_index, unit_shifts.to(torch.int32), is_node)
    degrees = rows.diff()
    angle_rows = torch.zeros_like(rows)
    torch.cumsum(degrees * (degrees - 1) // 2, 0, out=angle_rows[1:])
    return Links(found, rows, ends, back, bridges, angle_rows)


def whole(name: str, value, low: int, high: int) -> int:
    """Refuse anything but a whole number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"`{name}` must be an int, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"`{name}` must be from {low} to {high}, got {value}")
    return value


def _is_node(nodes: Tensor | None, n_atoms: int, device: torch.device) -> Tensor:
    if nodes is None:
        return torch.ones(n_atoms, dtype=torch.uint8, device=device)
    _checks.tensor("nodes", nodes, dtypes=(torch.bool, torch.int64), device=device)
    if nodes.dtype == torch.bool:
        return _checks.shape("nodes", nodes, n_atoms).to(torch.uint8)
    _checks.shape("nodes", nodes, "n_nodes")
    if nodes.numel() and (int(nodes[0]) < 0 or int(nodes[-1]) >= n_atoms or bool((nodes.diff() <= 0).any())):
        raise ValueError(f"`nodes` must be strictly ascending atom indices from 0 to {n_atoms - 1}, or a mask of bools")
    flags = torch.zeros(n_atoms, dtype=torch.uint8, device=device)
    flags[nodes] = 1
    return flags
