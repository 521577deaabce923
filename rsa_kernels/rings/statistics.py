"""The public ring statistics: rings of one criterion, counted by size, by node, by angle or link."""

from __future__ import annotations

import torch
from torch import Tensor

from . import op
from .links import LARGEST_SIZE, Links, build, whole


def ring_statistics(
    edge_index: Tensor,
    unit_shifts: Tensor,
    n_atoms: int,
    criterion: str = "primitive",
    max_size: int = 12,
    nodes: Tensor | None = None,
    members: bool = False,
) -> RingStatistics:
    r"""Count the rings of a periodic bond network, on the infinite (lifted) net.

    A ring is a closed path that passes no node and no link twice, a node being an atom *in a cell*: a path around
    the cell ends on another image of its first atom and is no ring, a ring that spans the cell is one. Rings that
    differ by a lattice translation are one ring.

    ==============  =================================================================================================
    criterion       a ring counts if
    ==============  =================================================================================================
    ``king``        at one of its nodes, no closed path through the same two links there is shorter
    ``guttman``     no closed path through one of its links is shorter
    ``primitive``   no two members are closer in the net than along the ring: d(a, b) = d_ring(a, b) for all a, b
    ==============  =================================================================================================

    ======================  ==========================================
    symbol                  argument / attribute
    ======================  ==========================================
    i, j                    ``edge_index``
    S, r_j + S·cell         ``unit_shifts``
    n, size of a ring       last index of ``per_node``, ``counts``
    R_C(n) · N              ``counts``
    P_N(n)                  ``P_N``
    ======================  ==========================================

    Parameters
    ----------
    edge_index : Tensor
        (2, n_bonds) int64, atoms i and j of every bond: both directions listed, or one, or some of each.
    unit_shifts : Tensor
        (n_bonds, 3) int32 or int64, cells S of atom j seen from i (r_j + S·cell − r_i is the bond), as
        `rsa_kernels.neighbor_list` gives them; zeros where nothing is periodic.
    n_atoms : int
        Number of atoms.
    criterion : str
        ``"king"``, ``"guttman"`` or ``"primitive"``.
    max_size : int
        Largest ring looked for, in nodes, from 3 to 256. Time and memory per node grow with the ball of
        ``max_size / 2`` links around it, and with the number of its rings.
    nodes : Tensor, optional
        Which atoms are nodes: (n_atoms,) bool, or strictly ascending int64 indices. Two nodes are linked if another
        atom is bonded to both (Si through a bridging O), or if they are bonded to each other. None: every atom is a
        node and every bond a link.
    members : bool
        Collect the members of all rings at once instead of when `RingStatistics.members` first asks for a size.

    Returns
    -------
    RingStatistics

    Raises
    ------
    ValueError, TypeError
        An argument has a wrong shape, dtype, device or value; a bond names an absent atom, or an atom itself.
    rsa_kernels.errors.CapacityError
        `max_size` reaches over more nodes of this net than memory holds.

    Notes
    -----
    Time grows like the number of nodes; memory is about 200 bytes a link and 4 (max_size + 1) a node, and per thread
    a ball of max_size / 2 links. Results are the same bits for any number of threads. No derivative: counts are
    integers.

    Nodes that share several bridges (edge-sharing tetrahedra) are linked once; every two bridges of a link are one
    ring of size 2, whatever the criterion, and affect nothing else.

    References
    ----------
    King, Nature 213, 1112 (1967); Guttman, J. Non-Cryst. Solids 116, 145 (1990); Franzblau, Phys. Rev. B 44, 4925
    (1991); Goetzke & Klein, J. Non-Cryst. Solids 127, 215 (1991); Yuan & Cormack, Comput. Mater. Sci. 24, 343
    (2002); Le Roux & Jund, Comput. Mater. Sci. 49, 70 (2010).

    Examples
    --------
    >>> import torch, rsa_kernels as rk
    >>> square = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    >>> rk.ring_statistics(square, torch.zeros(4, 3, dtype=torch.int32), 4).counts.tolist()[4]
    1
    """
    if criterion not in op.CRITERIA:
        raise ValueError(f"`criterion` must be one of {', '.join(map(repr, op.CRITERIA))}, got {criterion!r}")
    max_size = whole("max_size", max_size, 3, LARGEST_SIZE)
    rings = RingStatistics(criterion, max_size, build(edge_index, unit_shifts, n_atoms, nodes))
    if members:
        for size in range(2, max_size + 1):
            rings.members(size)
    return rings


class RingStatistics:
    """Rings of one criterion, as returned by `ring_statistics`.

    Attributes
    ----------
    criterion, max_size
        As given.
    links : Links
        The net: nodes and their link ends.
    nodes : Tensor
        (n_nodes,) int64, atom of every node, ascending.
    counts : Tensor
        (max_size + 1,) int64, distinct rings per cell by size.
    per_node : Tensor
        (n_nodes, max_size + 1) int32, rings through every node by size. A ring that passes several images of a node
        is several rings through it, as it would be in a supercell: ``per_node.sum(0) = size · counts``.
    shortest : Tensor or None
        King: (n_angles,) int32, size of the shortest closed path through every angle of `angles`. Guttman:
        (n_ends,) int32, size of the shortest closed path through the link of every end of ``links``. 0: none
        within `max_size`. None for primitive rings.
    multiplicity : Tensor or None
        Like `shortest`, int32: how many closed paths of that size there are.
    shortest_counts : Tensor or None
        (max_size + 1,) int64, how many angles, or link ends, have that `shortest`; entry 0 those that have none.
    """

    def __init__(self, criterion: str, max_size: int, links: Links):
        self.criterion, self.max_size, self.links, self.nodes = criterion, max_size, links, links.nodes
        self.shortest: Tensor | None = None
        self.multiplicity: Tensor | None = None
        self.shortest_counts: Tensor | None = None
        self._members: dict[int, tuple[Tensor, Tensor]] = {}
        code = op.CRITERIA[criterion]
        by_angle = by_end = links.ends.new_zeros(0)
        if code != op.PRIMITIVE:
            by_angle, by_end = op.shortest(*links.net, max_size)
        self._known = (by_angle, by_end, code, max_size)
        self.per_node, multiplicity = op.count(*links.net, *self._known)
        self._add_pairs_of_bridges()
        # A ring of size n passes n nodes.
        sizes = torch.arange(max_size + 1, device=self.nodes.device)
        self.counts = self.per_node.sum(0, dtype=torch.int64) // sizes.clamp(min=1)
        if code != op.PRIMITIVE:
            self.shortest = by_angle if code == op.KING else by_end
            self.multiplicity = multiplicity
        if self.shortest is not None:
            self.shortest_counts = torch.bincount(self.shortest, minlength=max_size + 1)

    def _add_pairs_of_bridges(self) -> None:
        """Rings of size 2."""
        pairs = self._pairs_of_bridges()
        if bool(pairs.any()):
            self.per_node[:, 2].index_add_(0, self.links.owners(), pairs)

    def _pairs_of_bridges(self) -> Tensor:
        bridges = self.links.bridges
        return bridges * (bridges - 1).clamp(min=0) // 2

    def _members_of_pairs(self) -> tuple[Tensor, Tensor]:
        """Members of the rings of size 2, as nodes: each link from the end that is listed first."""
        rows, ends, back, _ = self.links.net
        first = self.links.owners()
        end = torch.arange(ends.shape[0], device=rows.device)
        once = torch.where(end < rows[ends[:, 0].long()] + back, self._pairs_of_bridges(), 0)
        chosen = torch.repeat_interleave(end, once)
        nodes = torch.stack((first[chosen], ends[chosen, 0].long()), dim=1)
        shifts = torch.stack((torch.zeros_like(ends[chosen, 1:]), ends[chosen, 1:]), dim=1)
        return nodes, shifts

    @property
    def angles(self) -> Tensor:
        """(n_angles, 3) int64: node, and two of its ends (entries of ``links.ends``), in the order of `shortest`."""
        return self.links.angles()

    @property
    def mean(self) -> Tensor:
        """(max_size + 1,) float64, rings through a node by size, mean over nodes; NaN without nodes."""
        return self.per_node.to(torch.float64).mean(0)

    @property
    def P_N(self) -> Tensor:
        """(max_size + 1,) float64, fraction of nodes in one ring or more of a size; NaN without nodes."""
        return (self.per_node > 0).to(torch.float64).mean(0)

    def members(self, size: int) -> Tensor:
        """Atoms of every ring of a size, in order along the ring.

        Parameters
        ----------
        size : int
            From 2 to `max_size`.

        Returns
        -------
        Tensor
            (n_rings, size) int64, ``counts[size]`` rings. `member_shifts` tells the cells.
        """
        return self._of_size(size)[0]

    def member_shifts(self, size: int) -> Tensor:
        """(n_rings, size, 3) int32, cells S of the members: r + S·cell, the first at S = 0."""
        return self._of_size(size)[1]

    def _of_size(self, size: int) -> tuple[Tensor, Tensor]:
        size = whole("size", size, 2, self.max_size)
        if size not in self._members:
            if size == 2:
                nodes, shifts = self._members_of_pairs()
            else:
                nodes, shifts = op.members(*self.links.net, *self._known, size)
            self._members[size] = self.nodes[nodes], shifts
        return self._members[size]

    def __repr__(self) -> str:
        found = ", ".join(f"{size}: {count}" for size, count in enumerate(self.counts.tolist()) if count)
        return f"RingStatistics({self.criterion}, {self.links.n_nodes} nodes, rings by size {{{found}}})"
