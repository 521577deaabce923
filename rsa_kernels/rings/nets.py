"""What else identifies a net: coordination sequences and vertex symbols."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from torch import Tensor

from . import op
from .links import LARGEST_SIZE, Links, build, whole


def coordination_sequence(
    edge_index: Tensor, unit_shifts: Tensor, n_atoms: int, shells: int = 12, nodes: Tensor | None = None
) -> Tensor:
    """Nodes at graph distance 1, 2, … of every node, on the infinite net.

    N_k(i) = |{(j, S): d((i, 0), (j, S)) = k}|, k = 1 … ``shells``

    Parameters
    ----------
    edge_index, unit_shifts, n_atoms, nodes
        As for `ring_statistics`.
    shells : int
        Largest distance k, from 1 to 256.

    Returns
    -------
    Tensor
        (n_nodes, shells) int64.

    Raises
    ------
    ValueError, TypeError, rsa_kernels.errors.CapacityError
        As for `ring_statistics`.

    Notes
    -----
    Time and, per thread, memory grow with the nodes in a ball of `shells` links.

    References
    ----------
    Meier & Moeck, J. Solid State Chem. 27, 349 (1979); Brunner & Laves, Wiss. Z. Techn. Univ. Dresden 20, 387 (1971).
    """
    shells = whole("shells", shells, 1, LARGEST_SIZE)
    links = build(edge_index, unit_shifts, n_atoms, nodes)
    return op.shells(*links.net, shells)


@dataclass(frozen=True)
class VertexSymbols:
    """Smallest primitive ring of every angle, as returned by `vertex_symbols`.

    Attributes
    ----------
    links : Links
        The net.
    size : Tensor
        (n_angles,) int32, smallest primitive ring through the angle; 0: none within the largest size.
    count : Tensor
        (n_angles,) int32, how many of that size.
    """

    links: Links
    size: Tensor
    count: Tensor

    def strings(self) -> list[str]:
        """Symbol of every node: ``4.6.4.6.8.9(2)``, a number in parentheses where it is not one, ``*`` for no ring.

        At nodes of four links opposite angles (those that share no link) stand together, pairs in ascending order, as
        the tables of the IZA and the RCSR have them; at others angles are in ascending order.
        """
        sizes, counts = self.size.tolist(), self.count.tolist()
        rows = self.links.angle_rows.tolist()
        found = []
        for start, stop in itertools.pairwise(rows):
            angles = [
                (size or 1 << 30, count) for size, count in zip(sizes[start:stop], counts[start:stop], strict=True)
            ]
            if len(angles) == 6:
                # (01, 23), (02, 13), (03, 12)
                pairs = sorted(sorted((angles[k], angles[5 - k])) for k in range(3))
                angles = [angle for pair in pairs for angle in pair]
            else:
                angles.sort()
            found.append(".".join(_spelled(size, count) for size, count in angles))
        return found


def _spelled(size: int, count: int) -> str:
    if count == 0:
        return "*"
    return str(size) if count == 1 else f"{size}({count})"


def vertex_symbols(
    edge_index: Tensor, unit_shifts: Tensor, n_atoms: int, max_size: int = 12, nodes: Tensor | None = None
) -> VertexSymbols:
    """Smallest primitive rings of every angle of every node, and how many there are.

    Parameters
    ----------
    edge_index, unit_shifts, n_atoms, max_size, nodes
        As for `ring_statistics`.

    Returns
    -------
    VertexSymbols
        Per angle, in the order of ``links.angles()``; ``strings()`` spells them per node.

    Raises
    ------
    ValueError, TypeError, rsa_kernels.errors.CapacityError
        As for `ring_statistics`.

    Notes
    -----
    Two searches of primitive rings.

    References
    ----------
    O'Keeffe & Hyde, Zeolites 19, 370 (1997); Goetzke & Klein, J. Non-Cryst. Solids 127, 215 (1991).
    """
    max_size = whole("max_size", max_size, 3, LARGEST_SIZE)
    links = build(edge_index, unit_shifts, n_atoms, nodes)
    return VertexSymbols(links, *op.smallest(*links.net, max_size))
