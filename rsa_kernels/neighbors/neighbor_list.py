"""The public neighbour list: built once, kept valid by a Verlet skin, read as edges or as compact rows."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _checks, cells
from ..errors import NonFiniteError
from .expand import neighbor_edges, neighbor_matrix, neighbor_shorten
from .late import LateSkin, PinnedRecorder
from .op import neighbor_rows, used_skin, used_skin_tensor
from .padded import pad_rows
from .vectors import neighbor_vectors


def neighbor_list(
    positions: Tensor,
    cell: Tensor,
    pbc,
    cutoff: float,
    batch_ptr: Tensor | None = None,
    half: bool = False,
    skin: float = 0.0,
) -> NeighborList:
    """List the pairs of atoms closer than a cutoff, with all their periodic images.

    A pair is (i, j, S) with r_ij = r_j + S·cell − r_i and |r_ij| < cutoff + skin.

    ======================  ==========================
    symbol                  argument / attribute
    ======================  ==========================
    r_i                     ``positions``
    rows a, b, c            ``cell``
    S                       ``unit_shifts``
    i, j                    ``edge_index``
    ======================  ==========================

    Parameters
    ----------
    positions : Tensor
        (n_atoms, 3) Å, float64 or float32; wrapped or not. Distances are compared in float64.
    cell : Tensor
        (3, 3) or (n_systems, 3, 3) Å, rows a, b, c, any shape with a volume. Vectors of non-periodic directions
        may be zero.
    pbc : bool, sequence of 3 bools or Tensor
        Periodic directions: one flag, (3,) or (n_systems, 3).
    cutoff : float
        Å; may exceed the cell (several images of the same pair are then listed).
    batch_ptr : Tensor, optional
        (n_systems + 1,) int64 offsets of the systems in the atoms. None: one system.
    half : bool
        List each pair once (i < j, or i = j with the first non-zero of S positive) instead of from both sides.
    skin : float
        Å; extra reach, so that `NeighborList.update` rebuilds only when motion has used it up.

    Returns
    -------
    NeighborList

    Raises
    ------
    ValueError, TypeError
        An argument has a wrong shape, dtype, device or value.
    rsa_kernels.errors.NonFiniteError
        A position or the cell is NaN or infinite.
    rsa_kernels.errors.CapacityError
        The cutoff reaches over more images than 32-bit indices or memory hold.

    Notes
    -----
    O(n_atoms) time: bins half a cutoff wide over atoms and explicit images. Memory: 4 bytes a pair and 16 a
    periodic image; reading ``edge_index`` and ``unit_shifts`` expands to 28 bytes a pair. The result does not
    depend on the number of threads.

    Examples
    --------
    >>> import torch, rsa_kernels as rk
    >>> position, cell = torch.zeros(1, 3, dtype=torch.float64), 2.0 * torch.eye(3, dtype=torch.float64)
    >>> nl = rk.neighbor_list(position, cell, True, 2.1)
    >>> nl.edge_index.shape
    torch.Size([2, 6])
    """
    _checks.tensor("positions", positions, dtypes=(torch.float64, torch.float32))
    _checks.shape("positions", positions, "n_atoms", 3)
    _checks.tensor("cell", cell, dtypes=(torch.float64, torch.float32), device=positions.device)
    cutoff = _checks.positive("cutoff", cutoff, "Å")
    skin = _checks.not_negative("skin", skin, "Å")
    batch_ptr = _checks.batch(batch_ptr, positions.shape[0], positions.device)
    _, flags = cells.as_batch(cell, pbc, batch_ptr.numel() - 1)
    return NeighborList(positions, cell, flags.contiguous(), cutoff, batch_ptr, bool(half), skin)


class NeighborMatrix(NamedTuple):
    """What `NeighborList.matrix` returns."""

    neighbors: Tensor
    """(n_atoms, max_neighbors) int64, j."""
    unit_shifts: Tensor
    """(n_atoms, max_neighbors, 3) int32, S."""
    counts: Tensor
    """(n_atoms,) int64, how many of a row are neighbours."""


class NeighborList:
    """Pairs of atoms within ``cutoff + skin``, as returned by `neighbor_list`.

    Attributes
    ----------
    edge_index : Tensor
        (2, n_pairs) int64, rows i and j, in the order of (i, j, S). Expanded on first use.
    unit_shifts : Tensor
        (n_pairs, 3) int32, S.
    row_ptr : Tensor
        (n_atoms + 1,) int64: pairs of atom i are ``row_ptr[i]:row_ptr[i + 1]``.
    rows, columns, owners, image_shifts : Tensor
        The compact form kernels read. Entry e of ``owners`` (n_extended,) and ``image_shifts`` (n_extended, 3) is an
        atom (the first n_atoms) or an image at ``positions[owners[e]] + image_shifts[e] @ cell``; row k belongs to atom
        ``owners[k]`` and its neighbours are the entries ``columns[rows[k]:rows[k + 1]]``. Always a full list.
    reference_positions, reference_cell : Tensor
        Copies of what the list was last built from; building from them again gives the same list, bit for bit.
    cutoff, skin, pbc, batch_ptr, half
        As given.
    n_rebuilds : int
        How often `update` has rebuilt.
    """

    def __init__(
        self, positions: Tensor, cell: Tensor, pbc: Tensor, cutoff: float, batch_ptr: Tensor, half: bool, skin: float
    ):
        self.pbc, self.cutoff, self.batch_ptr, self.half, self.skin = pbc, cutoff, batch_ptr, half, skin
        self.n_rebuilds = 0
        self._late: LateSkin | None = None
        self._build(positions, cell)

    def _build(self, positions: Tensor, cell: Tensor) -> None:
        # Nothing of the list changes before the search has succeeded: after an error it is what it was.
        with torch.no_grad():
            reference_positions = positions.detach().to(torch.float64, copy=True).contiguous()
            reference_cell = cell.detach().to(torch.float64, copy=True).contiguous()
            reference_cells = self._completed(reference_cell)
            found = neighbor_rows(
                reference_positions, reference_cells, self.pbc, self.batch_ptr, self.cutoff + self.skin
            )
        self.rows, self.columns, self.owners, self.image_shifts = found
        self.reference_positions, self.reference_cell = reference_positions, reference_cell
        self._reference_cells = reference_cells
        self._complete = bool((reference_cells == reference_cell).all())
        self._edges: tuple[Tensor, Tensor, Tensor] | None = None
        self._padded: Tensor | None = None

    @classmethod
    def of_rows(
        cls,
        compact: tuple[Tensor, Tensor, Tensor, Tensor],
        reference_positions: Tensor,
        reference_cells: Tensor,
        pbc: Tensor,
        cutoff: float,
        batch_ptr: Tensor,
        half: bool,
        skin: float,
    ) -> NeighborList:
        """Wrap rows that have been found already: rows, columns, owners and image shifts, and what they are of."""
        made = cls.__new__(cls)
        made.pbc, made.cutoff, made.batch_ptr, made.half, made.skin = pbc, cutoff, batch_ptr, half, skin
        made.n_rebuilds, made._late = 0, None
        made.reference_positions = reference_positions
        made.reference_cell = made._reference_cells = reference_cells
        made._complete = False  # vectors may be missing later, even if they have been filled in here
        made.rows, made.columns, made.owners, made.image_shifts = compact
        made._edges = made._padded = None
        return made

    def _cells_now(self, cell: Tensor) -> Tensor:
        """Cells to compare with the reference, without the checks of `_completed` where nothing is missing."""
        if self._complete:
            batched, _ = cells.as_batch(cell, self.pbc, self.n_systems)
            return batched.contiguous()
        return self._reference_cells if torch.equal(cell, self.reference_cell) else self._completed(cell)

    def _completed(self, cell: Tensor) -> Tensor:
        batched, _ = cells.as_batch(cell, self.pbc, self.n_systems)
        return cells.complete(batched, self.pbc).contiguous()

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return self.rows.numel() - 1

    @property
    def n_systems(self) -> int:
        """Number of systems in the batch."""
        return self.batch_ptr.numel() - 1

    @property
    def edge_index(self) -> Tensor:
        """(2, n_pairs) int64, rows i and j, in the order of (i, j, S)."""
        return self._expanded()[0]

    @property
    def unit_shifts(self) -> Tensor:
        """(n_pairs, 3) int32: r_ij = r_j + S·cell − r_i."""
        return self._expanded()[1]

    @property
    def row_ptr(self) -> Tensor:
        """(n_atoms + 1,) int64 offsets of the atoms' pairs."""
        return self._expanded()[2]

    def matrix(self, max_neighbors: int | None = None, fill: int | None = None) -> NeighborMatrix:
        """Neighbours as a matrix with a row an atom, in the order of the atoms; full or half, as the list is.

        r_ij = r_j + S·cell − r_i with j = ``neighbors[i, p]`` and S = ``unit_shifts[i, p]`` for p < ``counts[i]``.

        Parameters
        ----------
        max_neighbors : int, optional
            Width of the matrix, for a shape that does not change from step to step. Default: as many as the atom with
            the most has.
        fill : int, optional
            What stands in ``neighbors`` where there is no neighbour. Default: n_atoms, which names no atom, so that a
            gather that forgets to mask it fails (or reads the row a caller has appended for it); shifts are zero there.

        Returns
        -------
        NeighborMatrix

        Raises
        ------
        rsa_kernels.errors.CapacityError
            An atom has more than `max_neighbors` neighbours.

        Notes
        -----
        A row is in the order of (j, S). 20 bytes an element. Made anew at every call.
        """
        for name, value in (("max_neighbors", max_neighbors), ("fill", fill)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise TypeError(f"`{name}` must be an int or None, got {value!r}")
            if value is not None and not -(1 << 63) <= value < 1 << 63:
                raise ValueError(f"`{name}` must fit 64 bits, got {value}")
        width = -1 if max_neighbors is None else int(_checks.not_negative("max_neighbors", max_neighbors))
        fill = self.n_atoms if fill is None else fill
        compact = self.rows, self.columns, self.owners, self.image_shifts
        return NeighborMatrix(*neighbor_matrix(*compact, self.half, width, fill))

    def padded(self) -> Tensor:
        """Compact rows as a matrix, (max_neighbors, width) int32: column k holds the entries of row k.

        Short columns are filled up with n_extended, an entry that is not there; the width is the number of atoms,
        rounded up. Made on first use after every rebuild; this is what GPU kernels read.
        """
        if self._padded is None:
            self._padded = pad_rows(self.rows, self.columns, self.owners.numel())
        return self._padded

    def vectors(self, positions: Tensor, cell: Tensor) -> Tensor:
        """r_ij = r_j + S·cell − r_i of every listed pair, (n_pairs, 3) Å.

        Differentiable in both arguments, to every order; sums of derivatives do not depend on the number of threads.
        """
        self._check(positions, cell)
        _checks.tensor("cell", cell, dtypes=(positions.dtype,))
        batched, _ = cells.as_batch(cell, self.pbc, self.n_systems)
        return neighbor_vectors(positions, batched, self.batch_ptr, self.edge_index, self.unit_shifts, self.row_ptr)

    def distances(self, positions: Tensor, cell: Tensor) -> Tensor:
        """|r_ij| of every listed pair, (n_pairs,) Å; differentiable to every order where atoms do not coincide."""
        return self.vectors(positions, cell).norm(dim=-1)

    def within(
        self, cutoff: float, positions: Tensor | None = None, cell: Tensor | None = None, skin: float = 0.0
    ) -> NeighborList:
        """Return the pairs closer than a smaller cutoff, as a list of its own.

        Parameters
        ----------
        cutoff : float
            Å, at most this list's ``cutoff``.
        positions, cell : Tensor, optional
            Where the atoms are now. Default: where they were when the list was built.
        skin : float
            Å; extra reach of the result. With this list's own skin and no positions, the result stays valid exactly as
            long as this list does not rebuild.

        Raises
        ------
        ValueError
            Since the list was built the atoms have moved too far for it to hold every pair within `cutoff + skin`.

        Notes
        -----
        Looks at every pair of this list. Owners and images are shared with it, and the entries of a row keep their
        order, so kernels read the result like any other list. At the positions of building it holds the same pairs as
        a list built with the shorter cutoff, pairs within rounding of it included.
        """
        if _checks.positive("cutoff", cutoff, "Å") > self.cutoff:
            raise ValueError(
                f"`cutoff` must be at most the list's own {self.cutoff} Å, got {cutoff}; build a longer list"
            )
        reach = float(cutoff) + _checks.not_negative("skin", skin, "Å")
        positions = self.reference_positions if positions is None else positions
        cell = self.reference_cell if cell is None else cell
        used = self._used(positions, cell, reach)
        if math.isnan(used):
            raise self._unusable(positions, cell)
        if not reach + used <= self.cutoff + self.skin:
            raise ValueError(
                f"`positions` or `cell` have changed too much ({used:.3f} Å) for this list to hold every pair within"
                f" {reach} Å; call `update` first"
            )
        positions, cell = positions.detach().to(torch.float64), cell.detach().to(torch.float64)
        positions, completed = positions.clone(), self._completed(cell)
        compact = self.rows, self.columns, self.owners, self.image_shifts
        rows, columns = neighbor_shorten(positions, completed, self.batch_ptr, *compact, reach)
        inner = NeighborList.of_rows(
            (rows, columns, self.owners, self.image_shifts),
            positions,
            completed,
            self.pbc,
            float(cutoff),
            self.batch_ptr,
            self.half,
            skin=float(skin),
        )
        inner.reference_cell, inner._complete = cell.clone(), self._complete
        return inner

    def used_skin(self, positions: Tensor, cell: Tensor) -> float:
        """How much of the skin, in Å, motion and the cell's change have used up since the list was built."""
        return self._used(positions, cell, self.cutoff)

    def _used(self, positions: Tensor, cell: Tensor, cutoff: float) -> float:
        self._check(positions, cell)
        cell = cell.detach().to(torch.float64)
        return used_skin(
            positions.detach().to(torch.float64).contiguous(),
            self.reference_positions,
            self.batch_ptr,
            self._cells_now(cell),
            self._reference_cells,
            cutoff,
        )

    def _check(self, positions: Tensor, cell: Tensor) -> None:
        """Refuse positions of other atoms than the list's, which would be read past their end."""
        device = self.reference_positions.device
        _checks.tensor("positions", positions, dtypes=(torch.float64, torch.float32), device=device)
        _checks.shape("positions", positions, self.n_atoms, 3)
        _checks.tensor("cell", cell, dtypes=(torch.float64, torch.float32), device=device)
        if cell.shape not in ((3, 3), (self.n_systems, 3, 3)):
            raise ValueError(f"`cell` must have shape (3, 3) or ({self.n_systems}, 3, 3), got {tuple(cell.shape)}")

    def update(self, positions: Tensor, cell: Tensor) -> bool:
        """Make the list valid for new positions and cell; rebuild it if motion has used up the skin.

        Returns
        -------
        bool
            Whether the list was rebuilt.

        Raises
        ------
        rsa_kernels.errors.NonFiniteError
            A position or the cell is NaN or infinite. After this and the next two the list is what it was.
        ValueError
            The cell has no volume.
        rsa_kernels.errors.CapacityError
            As for `neighbor_list`.
        rsa_kernels.errors.LostNeighborError
            On a GPU only, see Notes.

        Notes
        -----
        On a GPU a list with a skin is checked one call late, so that nothing waits for the step under way: the list
        is rebuilt when it had used up 0.8 of its skin at the call before, and it is an error, seen one call late, if
        it had used up all of it. `confirm` looks at the last call too; do so before results are kept.
        """
        if self.rows.is_cuda and self.skin > 0.0:
            return self._update_late(positions, cell)
        used = self.used_skin(positions, cell)
        if math.isnan(used):
            raise self._unusable(positions, cell)
        if used <= self.skin and self.skin > 0.0:
            return False
        self._build(positions, cell)
        self.n_rebuilds += 1
        return True

    @staticmethod
    def _unusable(positions: Tensor, cell: Tensor) -> Exception:
        """What is wrong with positions and cell whose use of the skin is not a number."""
        for name, value in (("positions", positions), ("cell", cell)):
            if not bool(torch.isfinite(value).all()):
                return NonFiniteError(f"`{name}` holds NaN or infinite values; the neighbour list is unchanged")
        return ValueError(f"`cell` must have a volume, got {cell.tolist()}; the neighbour list is unchanged")

    def confirm(self) -> None:
        """Raise what the last `update` would raise if it did not look one call late; waits for a GPU, free on a CPU."""
        if self._late is not None:
            self._late.look()

    def _update_late(self, positions: Tensor, cell: Tensor) -> bool:
        self._check(positions, cell)
        if self._late is None:
            self._late = LateSkin(self.skin, PinnedRecorder())
        if self._late.is_used_up():
            self._build(positions, cell)
            self.n_rebuilds += 1
            return True
        positions, cell = positions.detach().to(torch.float64), cell.detach().to(torch.float64)
        # Missing vectors of the cell are taken as they were: any completion will do, if it is the same for both.
        missing = cell.norm(dim=-1, keepdim=True) == 0
        cells_now = torch.where(missing, self._reference_cells, cell)
        self._late.put(
            used_skin_tensor(
                positions, self.reference_positions, self.batch_ptr, cells_now, self._reference_cells, self.cutoff
            )
        )
        return False

    def _expanded(self) -> tuple[Tensor, Tensor, Tensor]:
        if self._edges is None:
            self._edges = neighbor_edges(self.rows, self.columns, self.owners, self.image_shifts, self.half)
        return self._edges

    def __repr__(self) -> str:
        return (
            f"NeighborList({self.n_atoms} atoms, {self.columns.numel()} neighbours, cutoff {self.cutoff} Å,"
            f" skin {self.skin} Å, {self.owners.numel() - self.n_atoms} images)"
        )
