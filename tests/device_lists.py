"""Neighbour lists built by the kernels for GPUs, whose bodies run as loops on a CPU: for the tests of those kernels."""

import contextlib

import numpy as np
import torch
from neighbor_cases import assert_same_pairs, tensor, triplets

import rsa_kernels as rk
from rsa_kernels.neighbors import device_build, expand

ORDERS = (0, 1, 2)
"""In which order the threads of a kernel run: forwards (several at a time), backwards, scattered."""


@contextlib.contextmanager
def host_order(order):
    """Run the kernels' threads in another order."""
    before, device_build._host_order = device_build._host_order, order
    try:
        yield
    finally:
        device_build._host_order = before


def compact_list(positions, cell, pbc, cutoff, batch_ptr=None, half=False):
    """A list as the op builds it for CUDA tensors: count, then fill."""
    batch_ptr = torch.tensor([0, positions.shape[0]], device=positions.device) if batch_ptr is None else batch_ptr
    cells, flags = rk.cells.as_batch(cell, pbc, batch_ptr.numel() - 1)
    cells = rk.cells.complete(cells.to(torch.float64), flags)
    compact = device_build.compact_rows(positions.to(torch.float64), cells, flags, batch_ptr, cutoff)
    return rk.NeighborList.of_rows(compact, positions.to(torch.float64), cells, flags, cutoff, batch_ptr, half, 0.0)


def device_list(*arguments, **options):
    """A `DeviceList` in fixed buffers, read out as an ordinary list."""
    return rk.neighbors.DeviceList(*arguments, **options).snapshot()


class ReadByKernels:
    """A list whose edges, matrix and shorter lists are read out as on a GPU."""

    def __init__(self, listed):
        self.listed = listed
        compact = listed.rows, listed.columns, listed.owners, listed.image_shifts
        self.edge_index, self.unit_shifts, self.row_ptr = expand.edges_cuda(*compact, listed.half)

    def matrix(self):
        listed = self.listed
        compact = listed.rows, listed.columns, listed.owners, listed.image_shifts
        return expand.matrix_cuda(*compact, listed.half, -1, listed.n_atoms)

    def within(self, cutoff):
        listed = self.listed
        rows, columns = expand.shorten_cuda(
            listed.reference_positions,
            listed._reference_cells,
            listed.batch_ptr,
            listed.rows,
            listed.columns,
            listed.owners,
            listed.image_shifts,
            cutoff,
        )
        compact = rows, columns, listed.owners, listed.image_shifts
        rest = listed.pbc, cutoff, listed.batch_ptr, listed.half, 0.0
        return ReadByKernels(
            rk.NeighborList.of_rows(compact, listed.reference_positions, listed._reference_cells, *rest)
        )


def build_fuzzed(positions, cells, pbc, cutoff, batch_ptr, half):
    """Both ways, for tests/neighbor_fuzz.py: full lists in fixed buffers, half lists counted and filled."""
    if half:
        return ReadByKernels(compact_list(positions, cells, pbc, cutoff, batch_ptr, half=True))
    return ReadByKernels(device_list(positions, cells, pbc, cutoff, batch_ptr=batch_ptr))


def words(neighbors):
    """Status words of a `DeviceList`, by name."""
    names = ("REBUILD", "FLAGS", "SEEN", "IMAGES", "LONGEST", "REBUILDS", "UPDATES", "USED", "VALID")
    return dict(zip(names, neighbors._state.status.tolist(), strict=False))


def state(neighbors):
    """Copies of everything a `DeviceList` shows."""
    shown = neighbors.rows, neighbors.padded(), neighbors.owners, neighbors.image_shifts, neighbors.poison
    return tuple(tensor.clone() for tensor in shown)


# A gas that is moved about.

CUTOFF, SKIN = 3.0, 0.4
CELL = tensor([[9.0, 0, 0], [2.0, 8.0, 0], [-1.0, 1.5, 10.0]])


def gas(n_atoms=150, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    return tensor(rng.uniform(-1, 1, (n_atoms, 3)) * spread) @ CELL


def made(positions=None, cell=CELL, skin=SKIN, **options):
    return rk.neighbors.DeviceList(gas() if positions is None else positions, cell, True, CUTOFF, skin=skin, **options)


def one_moved(positions, by):
    moved = positions.clone()
    moved[3, 1] += by
    return moved


def assert_holds_all(neighbors, positions, cell):
    """Within the cutoff, the list holds exactly the pairs that a fresh one would."""
    inner = neighbors.snapshot().within(CUTOFF, positions, cell)
    assert_same_pairs(triplets(inner), triplets(rk.neighbor_list(positions, cell, True, CUTOFF)))
