"""A neighbour list in fixed buffers on a GPU: its update needs no allocation and no host, a CUDA graph can hold it."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _checks, cells
from ..errors import CapacityError
from . import device_build as build
from .late import WordsRecorder
from .neighbor_list import NeighborList

HEADROOM = 1.25
"""Buffers are this much larger than what was needed when they were made."""
MIN_NEIGHBORS = 8
CROWDED = 0.9
"""Buffers fuller than this are made anew before they overflow."""


class DeviceList:
    """Pairs of atoms within ``cutoff + skin``, kept up to date on the device that holds the atoms.

    The pairs are those of `neighbor_list`. `update` queues one fixed sequence of kernels on buffers that stay where
    they are: the kernels decide whether motion has used up the skin, and return at once where it has not. Nothing is
    allocated, nothing is read by the host, so [`update`, forces, integration] can be captured in a CUDA graph and
    replayed. On CPU tensors the same kernels run as loops.

    ======================  =============================
    symbol                  argument / attribute
    ======================  =============================
    r_i                     ``positions``
    rows a, b, c            ``cell``
    i, entries of row i     ``owners``, ``padded()``
    S of an entry           ``image_shifts``
    ======================  =============================

    Parameters
    ----------
    positions : Tensor
        (n_atoms, 3) Å, float64 or float32; wrapped or not. Distances are compared in float64.
    cell : Tensor
        (3, 3) or (n_systems, 3, 3) Å. Vectors of non-periodic directions may be zero.
    pbc : bool, sequence of 3 bools or Tensor
        Periodic directions: one flag, (3,) or (n_systems, 3).
    cutoff, skin : float
        Å. Without skin every update rebuilds.
    batch_ptr : Tensor, optional
        (n_systems + 1,) int64 offsets of the systems in the atoms. None: one system.
    half : bool
        Whether edges of `snapshot` hold each pair once. What kernels read is always a full list.

    Attributes
    ----------
    rows : Tensor
        (n_atoms + 1,) int64: row k has ``rows[k + 1] - rows[k]`` neighbours, and belongs to atom ``owners[k]``.
    owners, image_shifts : Tensor
        (n_atoms + max_images,), (n_atoms + max_images, 3) int32. Entry e is at
        ``positions[owners[e]] + image_shifts[e] @ cell``; entries that no row lists are copies of atom 0.
    poison : Tensor
        0-d float64 on the device: 0 while the list is good for the positions of the last update, else NaN. Added to
        whatever is computed from the list it makes a wrong number NaN; `rsa_kernels.pair` adds it to the cell.
    reference_positions, reference_cell : Tensor
        What the list was last built from (cells with missing vectors completed); overwritten at every rebuild.
    max_images, max_neighbors : int
        Capacities: images of all systems together, neighbours of one row.
    generation : int
        Counts how often buffers have been made anew. A graph captured before is not to be replayed after.

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
    **Capacities.** Making the list waits for the device three times, to size its buffers a quarter larger than needed;
    `update` waits for nothing. The kernels never write past a buffer. If one is too small, the list is *poisoned*:
    ``poison`` is NaN and every row lists its own atom at distance zero. The host sees it one call late, at the next
    `update` or `look`, or when asked, at `confirm`; it then makes larger buffers and builds again. Buffers that are
    nearly full are replaced before they overflow. NaN or infinite positions poison the results of that step alike.

    **CUDA graphs.** Capture after one `update` outside the graph, and call `look` between replays:

    >>> with torch.cuda.graph(graph):  # doctest: +SKIP
    ...     neighbors.update(positions, cell)
    ...     result = rk.pair.evaluate(table, positions, cell, atomic_numbers, neighbors)
    >>> for _ in range(n_steps):  # doctest: +SKIP
    ...     graph.replay()
    ...     if neighbors.look():  # larger buffers: capture again
    ...         graph = captured()

    Graphs captured before larger buffers were made keep the old ones alive, and what they compute is NaN.

    The result does not depend on scheduling: two builds give the same bits. O(n_atoms) time; memory 216 bytes an atom
    and 4 · ``max_neighbors``, 72 an image, 4,400 a system. Not yet run on a GPU.
    """

    def __init__(
        self,
        positions: Tensor,
        cell: Tensor,
        pbc,
        cutoff: float,
        batch_ptr: Tensor | None = None,
        *,
        half: bool = False,
        skin: float = 0.0,
    ):
        _checks.tensor("positions", positions, dtypes=(torch.float64, torch.float32))
        _checks.shape("positions", positions, "n_atoms", 3)
        _checks.tensor("cell", cell, dtypes=(torch.float64, torch.float32), device=positions.device)
        self.cutoff = _checks.positive("cutoff", cutoff, "Å")
        self.skin = _checks.not_negative("skin", skin, "Å")
        self.batch_ptr = _checks.batch(batch_ptr, positions.shape[0], positions.device)
        batched, flags = cells.as_batch(cell, pbc, self.n_systems)
        self.pbc, self.half = flags.contiguous(), bool(half)
        cells.complete(batched.detach().to(torch.float64), self.pbc)  # errors that name the system
        self._problem = build.Problem(
            positions.shape[0], self.batch_ptr, self.pbc.to(torch.uint8), self.cutoff + self.skin, self.skin
        )
        self._state = build.State(positions.device)
        self._recorder = WordsRecorder(self._state.status)
        self._buffers = build.Buffers(self._problem, self._state, images=0, neighbors=MIN_NEIGHBORS)
        self._retired: list[build.Buffers] = []
        self._captured = False
        self.generation = self._known_generation = 0
        self._fit(positions.detach(), cell.detach())

    # --- what kernels read ------------------------------------------------------------------------------------------

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return self._problem.n_atoms

    @property
    def n_systems(self) -> int:
        """Number of systems in the batch."""
        return self.batch_ptr.numel() - 1

    @property
    def max_images(self) -> int:
        """Images there is room for."""
        return self._buffers.images

    @property
    def max_neighbors(self) -> int:
        """Neighbours of one row there is room for."""
        return self._buffers.neighbors

    @property
    def n_bytes(self) -> int:
        """Memory of all buffers, bytes."""
        return self._buffers.n_bytes + sum(buffers.n_bytes for buffers in self._retired)

    @property
    def rows(self) -> Tensor:
        """(n_atoms + 1,) int64 offsets of the rows."""
        return self._buffers.rows

    @property
    def owners(self) -> Tensor:
        """(n_atoms + max_images,) int32, atom of every entry."""
        return self._buffers.owners

    @property
    def image_shifts(self) -> Tensor:
        """(n_atoms + max_images, 3) int32, S of every entry."""
        return self._buffers.image_shifts

    @property
    def poison(self) -> Tensor:
        """0-d float64: 0, or NaN where the list is not good for the last update's positions."""
        return self._state.poison

    @property
    def reference_positions(self) -> Tensor:
        """(n_atoms, 3) float64, where the list was last built."""
        return self._buffers.reference

    @property
    def reference_cell(self) -> Tensor:
        """(n_systems, 3, 3) float64, likewise, completed."""
        return self._buffers.reference_cells

    def padded(self) -> Tensor:
        """Rows as a matrix, (max_neighbors, width) int32: column k holds the entries of row k, then n_entries."""
        return self._buffers.matrix

    @property
    def columns(self) -> Tensor:
        """Rows one after the other, (n_pairs,) int32: what CPU kernels read. Copied, and waits for the device."""
        return self._buffers.columns(int(self.rows[-1]), again=False)

    # --- update -----------------------------------------------------------------------------------------------------

    def update(self, positions: Tensor, cell: Tensor) -> None:
        """Queue what makes the list valid for new positions and cell; the device decides whether to rebuild.

        Raises
        ------
        rsa_kernels.errors.NonFiniteError, ValueError
            Positions or the cell of the update before were not finite, or the cell was singular.
        rsa_kernels.errors.CapacityError
            The update before overflowed the buffers: what was computed from it is NaN. Larger ones have been made.

        Notes
        -----
        All of these are seen one call late, and never while a graph is being captured. Waits for nothing else.
        """
        _checks.tensor("positions", positions, dtypes=(torch.float64, torch.float32), device=self.rows.device)
        _checks.shape("positions", positions, self.n_atoms, 3)
        _checks.tensor("cell", cell, dtypes=(torch.float64, torch.float32), device=self.rows.device)
        if cell.shape not in ((3, 3), (self.n_systems, 3, 3)):
            raise ValueError(f"`cell` must have shape (3, 3) or ({self.n_systems}, 3, 3), got {tuple(cell.shape)}")
        capturing = self._is_capturing()
        if capturing:
            self._captured = True
        else:
            self._judge(self._recorder.take())
        self._buffers.stage(positions.detach(), cell.detach())
        self._buffers.update()
        if not capturing:
            self._recorder.put(self._state.status)

    def look(self) -> bool:
        """Look at what the device said at the last `look` or `update`, and ask again; for use between replays.

        Returns
        -------
        bool
            Whether larger buffers have been made since the last `look`, and graphs must be captured again.

        Raises
        ------
        rsa_kernels.errors.NonFiniteError, rsa_kernels.errors.CapacityError, ValueError
            As `update`, for everything that was queued until then.
        """
        self._judge(self._recorder.take())
        self._recorder.put(self._state.status)
        known, self._known_generation = self._known_generation, self.generation
        return self.generation != known

    def confirm(self) -> bool:
        """Wait for the device and say whether the list, and all that was computed from it, can be trusted.

        Returns
        -------
        bool
            False: buffers were too small. They have been made larger and the list has been built again from
            ``reference_positions``, where it had failed: do again what was computed from it (and capture again).

        Raises
        ------
        rsa_kernels.errors.NonFiniteError, ValueError
            Positions or the cell of an update were not finite, or the cell was singular.
        """
        self._recorder.take()
        words = self._state.status.tolist()
        self._complain(words)
        if words[build.SEEN] & build.OVERFLOW:
            self._grow(words)
            return False
        return True

    @property
    def n_rebuilds(self) -> int:
        """How often the list has been built in `update`; waits for the device."""
        return int(self._state.status[build.REBUILDS])

    def _is_capturing(self) -> bool:
        return self.rows.is_cuda and torch.cuda.is_current_stream_capturing()

    def _judge(self, words: list[int] | None) -> None:
        """Act on status words: raise what was wrong, and make room in time."""
        if words is None:
            return
        self._refuse(words)
        images, neighbors = words[build.IMAGES], words[build.LONGEST]
        if images > CROWDED * self.max_images or neighbors > CROWDED * self.max_neighbors:
            self._grow(words)

    def _refuse(self, words: list[int]) -> None:
        self._complain(words)
        if words[build.SEEN] & build.OVERFLOW:
            had = self.max_images, self.max_neighbors
            self._grow(words)
            raise CapacityError(
                f"the neighbour list needed {words[build.IMAGES]} images and {words[build.LONGEST]} neighbours a row"
                f" and had room for {had[0]} and {had[1]}: what was computed from it since is NaN. Larger buffers have"
                " been made; do it again, from the last good state"
            )

    def _complain(self, words: list[int]) -> None:
        seen = words[build.SEEN]
        if seen & ~build.OVERFLOW:
            self._state.status[build.SEEN] = 0
        build.explain(seen)
        if seen & build.RETIRED:
            raise CapacityError(
                "a CUDA graph was replayed that had been captured before the neighbour list got larger buffers: what it"
                " computed is NaN; capture it again when `look` returns True"
            )

    def _grow(self, words: list[int]) -> None:
        """Make larger buffers and build the list again from what it was last built from; waits for the device."""
        old = self._buffers
        if self._captured:
            old.retire()
            self._retired.append(old)
            self._captured = False
        self._resize(words)
        self._fit(old.reference, old.reference_cells)
        self.generation += 1

    def _resize(self, words: list[int]) -> None:
        images, neighbors = self.max_images, self.max_neighbors
        if words[build.IMAGES] > CROWDED * images:
            images = int(HEADROOM * words[build.IMAGES]) + 8
        if words[build.LONGEST] > CROWDED * neighbors:
            neighbors = -(-int(HEADROOM * words[build.LONGEST] + 4) // 8) * 8
        self._buffers = build.Buffers(self._problem, self._state, images, neighbors)

    def _fit(self, positions: Tensor, batched: Tensor) -> None:
        """Build, with larger buffers until all fits; waits for the device each time."""
        rebuilds = self._state.status[build.REBUILDS].clone()
        while True:
            self._state.status[build.SEEN] = self._state.status[build.VALID] = 0
            self._buffers.stage(positions, batched)
            self._buffers.update()
            words = self._state.status.tolist()
            self._complain(words)
            if not words[build.SEEN]:
                break
            self._resize(words)
        self._state.status[build.REBUILDS] = rebuilds

    # --- as an ordinary list ----------------------------------------------------------------------------------------

    def snapshot(self) -> NeighborList:
        """Return the list as it is now as a `NeighborList` of its exact size, with edges and ``within``; waits.

        Raises
        ------
        rsa_kernels.errors.CapacityError, rsa_kernels.errors.NonFiniteError, ValueError
            As `update` would raise.
        """
        words = self._state.status.tolist()
        self._refuse(words)
        end = self.n_atoms + words[build.IMAGES]
        compact = self.rows.clone(), self.columns, self.owners[:end].clone(), self.image_shifts[:end].clone()
        return NeighborList.of_rows(
            compact,
            self.reference_positions.clone(),
            self.reference_cell.clone(),
            self.pbc,
            self.cutoff,
            self.batch_ptr,
            self.half,
            self.skin,
        )

    def __repr__(self) -> str:
        return (
            f"DeviceList({self.n_atoms} atoms, cutoff {self.cutoff} Å, skin {self.skin} Å,"
            f" room for {self.max_neighbors} neighbours a row and {self.max_images} images)"
        )
