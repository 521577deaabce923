"""Buffers of the cell list for GPUs and the kernels that fill them; on a CPU the same bodies run as loops.

Everything a kernel reads or writes is named in one block of machine words, which lies on the device: launching takes
the block alone, and nothing of a sequence depends on the host (csrc/neighbors_device.hpp says what each kernel does).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _cuda
from .._native import bind
from ..errors import CapacityError, NonFiniteError
from .padded import ALIGNMENT

KERNELS = (
    "compare_cells", "measure", "decide", "wrap", "plan", "clear_bins", "count_images", "place", "scatter", "sort_bins",
    "search", "find_longest", "settle", "spoil", "fill_rows", "pack_rows",
    "count_edges", "write_edges", "count_within", "write_within",
)  # fmt: skip
FIELDS = (
    "alive", "n_atoms", "n_systems", "image_capacity", "neighbor_capacity", "width", "n_bins", "lanes",
    "cutoff", "skin", "positions", "cells", "pbc", "batch_ptr", "system", "reference", "reference_cells",
    "frames", "grids", "bounds", "fractional", "image_count", "image_start", "owner", "shift", "bin",
    "bin_count", "bin_start", "bucket", "sites", "row_bin", "owners", "image_shifts", "matrix", "counts",
    "rows", "columns", "status", "poison",
)  # fmt: skip
"""Fields of the block in the order of RK_NEIGHBOR_BLOCK; a test compares."""

REBUILD, FLAGS, SEEN, IMAGES, LONGEST, REBUILDS, UPDATES, USED, VALID, N_WORDS = *range(9), 16
NON_FINITE, SINGULAR, IMAGES_OVERFLOW, NEIGHBORS_OVERFLOW, RETIRED = 1, 2, 4, 8, 16
OVERFLOW = IMAGES_OVERFLOW | NEIGHBORS_OVERFLOW

MAX_ENTRIES = 2**31 - 65
LANES = 1 << 16
"""Threads that share out the atoms where each gathers a maximum: fewer of them, fewer atomics."""
_BINS_PER_ATOM, _BINS_PER_SYSTEM = 2, 256
_FRAME, _GRID, _SITE = 28, 16, 4

_HOST = {name: bind(f"rk_neighbors_device_{name}", "piii") for name in KERNELS}
_host_order = 0
"""Order of the loops on a CPU: 0 forwards on several threads, 1 backwards, 2 scattered. Tests change it."""


def launch(name: str, n_threads: int, block: Tensor) -> None:
    """Run one kernel with `n_threads` threads: on the current stream of a GPU, or as a loop on a CPU."""
    if block.is_cuda:
        arguments = block, n_threads
        _cuda.launch("neighbors", f"rk_neighbors_device_{name}", n_threads, *arguments, device=block.device)
    else:
        _HOST[name](block.data_ptr(), n_threads, torch.get_num_threads(), _host_order)


def words_of(values: list[Tensor | int | float], device: torch.device) -> Tensor:
    """Machine words on the device: addresses of tensors, which must be contiguous and stay alive, and numbers."""
    words = []
    for value in values:
        if isinstance(value, Tensor):
            if value.device != device or not value.is_contiguous():
                raise ValueError(f"kernels take contiguous tensors on {device}, got strides {value.stride()}")
            words.append(value.data_ptr())
        else:
            words.append(struct.unpack("q", struct.pack("d", value))[0] if isinstance(value, float) else value)
    return torch.tensor(words, dtype=torch.int64).to(device)


def explain(flags: int) -> None:
    """Raise what is wrong with the arguments of an update, if anything is."""
    if flags & NON_FINITE:
        raise NonFiniteError(
            "`positions` or `cell` holds NaN, infinite or absurdly large values; what was computed from the neighbour"
            " list then is NaN"
        )
    if flags & SINGULAR:
        raise ValueError(
            "`cell` is singular: its vectors are linearly dependent, or zero in a periodic direction; what was computed"
            " from the neighbour list then is NaN"
        )


@dataclass(frozen=True)
class Problem:
    """What stays as it is while a list lives."""

    n_atoms: int
    batch_ptr: Tensor
    pbc: Tensor
    reach: float
    skin: float

    @property
    def device(self) -> torch.device:
        """Device of all buffers."""
        return self.batch_ptr.device


class State:
    """The few words that outlive the buffers: status, and what poisons a result."""

    def __init__(self, device: torch.device):
        self.status = torch.zeros(N_WORDS, dtype=torch.int64, device=device)
        self.poison = torch.full((), float("nan"), dtype=torch.float64, device=device)


class Buffers:
    """All buffers of one list, for given capacities.

    Attributes
    ----------
    rows, matrix, owners, image_shifts : Tensor
        The list: row offsets (n_atoms + 1,), padded neighbours (neighbor_capacity, width), entries.
    reference, reference_cells : Tensor
        What it was built from; cells completed.
    block : Tensor
        Sizes and addresses, (n_fields,) int64 on the device.
    """

    def __init__(self, problem: Problem, state: State, images: int, neighbors: int):
        n, n_systems = problem.n_atoms, problem.batch_ptr.numel() - 1
        entries, n_bins = n + images, _BINS_PER_ATOM * n + _BINS_PER_SYSTEM * n_systems
        if entries > MAX_ENTRIES or 2 * n_bins > MAX_ENTRIES:
            raise CapacityError(
                f"`cutoff` of {problem.reach} Å reaches over {images} periodic images of {n} atoms; atoms and images"
                " together must stay below 2³¹: use a smaller cutoff"
            )
        self.problem, self.images, self.neighbors = problem, images, neighbors
        width = -(-n // ALIGNMENT) * ALIGNMENT
        made: dict[str, Tensor] = {}

        def make(dtype: torch.dtype, **shapes) -> None:
            for name, shape in shapes.items():
                made[name] = torch.zeros(shape, dtype=dtype, device=problem.device)

        try:
            make(torch.float64, positions=(n, 3), cells=(n_systems, 3, 3), reference=(n, 3), fractional=(n, 3))
            make(torch.float64, reference_cells=(n_systems, 3, 3), frames=(n_systems, _FRAME), sites=(entries, _SITE))
            make(torch.int64, grids=(n_systems, _GRID), bounds=(n_systems, 6), counts=n, rows=n + 1)
            make(torch.int64, image_count=n, image_start=n + 1)
            make(torch.int32, owner=entries, shift=(entries, 3), bin=entries, bucket=entries, row_bin=n)
            make(torch.int32, bin_count=2 * n_bins, bin_start=2 * n_bins + 1)
            make(torch.int32, owners=entries, image_shifts=(entries, 3), matrix=(neighbors, width))
        except torch.OutOfMemoryError as error:
            raise CapacityError(
                f"not enough memory for {images} periodic images and {neighbors} neighbours of each of {n} atoms"
                f" within a `cutoff` of {problem.reach} Å; use a smaller cutoff"
            ) from error
        made["matrix"].fill_(entries)
        systems = torch.arange(n_systems, dtype=torch.int32, device=problem.device)
        made["system"] = torch.repeat_interleave(systems, problem.batch_ptr.diff(), output_size=n)
        made |= {"pbc": problem.pbc, "batch_ptr": problem.batch_ptr}
        made |= {"status": state.status, "poison": state.poison, "columns": made["rows"][:0]}
        self._made = made
        self._numbers = {
            "alive": 1,
            "n_atoms": n,
            "n_systems": n_systems,
            "image_capacity": images,
            "neighbor_capacity": neighbors,
            "width": width,
            "n_bins": n_bins,
            "lanes": min(n, LANES),
            "cutoff": problem.reach,
            "skin": problem.skin,
        }
        self.block = self._block()
        self.rows, self.matrix, self.owners, self.image_shifts = (
            made[name] for name in ("rows", "matrix", "owners", "image_shifts")
        )
        self.reference, self.reference_cells = made["reference"], made["reference_cells"]

    @property
    def n_bytes(self) -> int:
        """Memory of all buffers."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._made.values())

    def _block(self) -> Tensor:
        fields = {**self._made, **self._numbers}
        return words_of([fields[name] for name in FIELDS], self.problem.device)

    def retire(self) -> None:
        """Make graphs that were captured on these buffers poison what they compute."""
        self.block[FIELDS.index("alive")] = 0

    def stage(self, positions: Tensor, cells: Tensor) -> None:
        """Copy the arguments of an update to where the kernels read them."""
        self._made["positions"].copy_(positions)
        self._made["cells"].copy_(cells)

    def _run(self, *names: str, threads: int) -> None:
        for name in names:
            launch(name, threads, self.block)

    def _scan(self, counts: str, offsets: str) -> None:
        source = self._made[counts]
        torch.cumsum(source, 0, dtype=source.dtype, out=self._made[offsets][1:])

    def prepare(self) -> None:
        """Decide whether to rebuild; then wrap the atoms and count their images."""
        n, n_systems, lanes = self._numbers["n_atoms"], self._numbers["n_systems"], self._numbers["lanes"]
        self._run("compare_cells", threads=n_systems)
        self._run("measure", threads=lanes)
        self._run("decide", threads=1)
        self._run("wrap", threads=lanes)
        self._run("plan", threads=n_systems)
        self._run("clear_bins", threads=2 * self._numbers["n_bins"])
        self._run("count_images", threads=n)
        self._scan("image_count", "image_start")

    def arrange(self) -> None:
        """Make the images and sort everything by bin."""
        n = self._numbers["n_atoms"]
        self._run("place", threads=n)
        self._scan("bin_count", "bin_start")
        self._run("scatter", "sort_bins", threads=n + self.images)

    def search(self) -> None:
        """Find the neighbours of every row, or count them where there is room for none."""
        self._run("search", threads=self._numbers["n_atoms"])

    def settle(self) -> None:
        """Say whether everything fitted, and spoil the list if not."""
        self._run("find_longest", threads=self._numbers["lanes"])
        self._run("settle", threads=1)
        self._run("spoil", threads=self._numbers["n_atoms"])

    def add_up_rows(self) -> None:
        """Row offsets from row lengths."""
        self._scan("counts", "rows")

    def update(self) -> None:
        """Bring the list up to the staged positions: the whole sequence, 16 kernels and 3 scans."""
        self.prepare()
        self.arrange()
        self.search()
        self.settle()
        self.add_up_rows()

    def columns(self, n_pairs: int, *, again: bool) -> Tensor:
        """All rows one after the other, (n_pairs,) int32: searched once more, or out of the matrix."""
        out = torch.empty(n_pairs, dtype=torch.int32, device=self.problem.device)
        self._made["columns"] = out
        block = self._block()
        launch("fill_rows" if again else "pack_rows", self._numbers["n_atoms"], block)
        self._made["columns"] = out[:0]
        return out


def compact_rows(
    positions: Tensor, cells: Tensor, pbc: Tensor, batch_ptr: Tensor, cutoff: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows, columns, owners and shifts in their exact sizes: what the op `neighbor_rows` returns.

    Counts first and fills then. Waits for the device twice, for the number of images and for the number of pairs.
    """
    problem = Problem(
        positions.shape[0], batch_ptr.contiguous(), pbc.to(torch.uint8).contiguous(), float(cutoff), skin=0.0
    )
    state = State(problem.device)
    buffers = Buffers(problem, state, images=0, neighbors=0)
    buffers.stage(positions, cells)
    buffers.prepare()
    words = torch.cat([state.status, buffers._made["image_start"][-1:]]).tolist()
    if (words[SEEN] | words[FLAGS]) & NON_FINITE:
        raise NonFiniteError(
            "`positions` holds NaN, infinite or absurdly large coordinates; the neighbour list cannot be built"
        )
    explain(words[SEEN])
    if words[-1] > 0:
        buffers = Buffers(problem, state, images=words[-1], neighbors=0)
        buffers.stage(positions, cells)
        buffers.prepare()
    buffers.arrange()
    buffers.search()
    buffers.add_up_rows()
    columns = buffers.columns(int(buffers.rows[-1]), again=True)
    return buffers.rows, columns, buffers.owners, buffers.image_shifts
