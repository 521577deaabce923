"""The cell list for GPUs against the definition, matscipy and the list for CPUs, its kernels run as loops on a CPU.

The loops run the same function bodies that csrc/cuda/neighbors.cu launches, so they take the place of an interpreter.
Pairs are compared exactly, as sets of (i, j, S).
"""

import ctypes
import itertools
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from device_lists import ORDERS, ReadByKernels, build_fuzzed, compact_list, device_list, host_order
from native_settings import threads
from neighbor_cases import (
    FULL_PBC,
    SHAPES,
    assert_same_pairs,
    batch_of,
    half_of,
    listed,
    matscipy_pairs,
    random_case,
    tensor,
    triplets,
)
from neighbor_fuzz import check
from neighbor_fuzz import random_case as fuzzed_case

import rsa_kernels as rk
from profiling import device_list as device_list_costs
from rsa_kernels import _native
from rsa_kernels.errors import CapacityError, NonFiniteError
from rsa_kernels.neighbors import device_build, device_rows, expand, reference

pytestmark = pytest.mark.usefixtures("one_thread")

BUILDERS = pytest.mark.parametrize("build", [compact_list, device_list])
LOG = Path(__file__).resolve().parent.parent / "profiling" / "results" / "neighbors_device_fuzz.log"


def of_case(build, case, **options):
    positions, cell, pbc, cutoff = case
    return build(tensor(positions), tensor(cell), pbc.tolist(), cutoff, **options)


# --- the same pairs as the definition, as matscipy, as the list for CPUs --------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
def test_random_cases(order):
    with host_order(order):
        assert sum(check(build_fuzzed, fuzzed_case(2_000_000 + 50 * order + n)) for n in range(50)) > 25_000


LOG_HEAD = (
    "python -m pytest -m fuzz tests/test_neighbors_device.py\n"
    "Kernels of the neighbour lists for GPUs, run as loops on a CPU, their threads in three orders, in turn.\n"
    "Compared exactly with every pair and every image (tests/neighbor_fuzz.py): (i, j, S) in order, row_ptr, padded"
    " matrix, within(shorter);\nfull lists in fixed buffers, half lists counted and filled.\n"
)


@pytest.mark.fuzz
@pytest.mark.parametrize("part", range(4))
def test_twenty_thousand_random_cases(part):
    begin, seeds = time.perf_counter(), range(5000 * part, 5000 * (part + 1))
    pairs = 0
    for seed in seeds:
        with host_order(ORDERS[seed % len(ORDERS)]):
            pairs += check(build_fuzzed, fuzzed_case(seed))
    if part == 0:
        versions = f"torch {torch.__version__}, rsa_kernels {rk.__version__}, {_native.compiler()}\n"
        LOG.write_text(LOG_HEAD + versions)
    with LOG.open("a") as log:
        seconds = time.perf_counter() - begin
        log.write(f"seeds {seeds[0]} to {seeds[-1]}: {pairs:,} pairs, 0 differences, {seconds:.0f} s\n")


@BUILDERS
@pytest.mark.parametrize("shape", SHAPES)
def test_same_pairs_as_matscipy(build, shape):
    rng = np.random.default_rng(SHAPES.index(shape))
    n_pairs = 0
    for _ in range(60):
        case = random_case(rng, shape)
        wanted = matscipy_pairs(case)
        assert_same_pairs(triplets(of_case(build, case)), wanted)
        assert_same_pairs(triplets(of_case(build, case, half=True)), half_of(wanted))
        n_pairs += len(wanted)
    assert n_pairs > 3_000


@BUILDERS
@pytest.mark.parametrize("pbc", [FULL_PBC, (True, False, True), (False, False, False)])
def test_same_pairs_in_a_large_system(build, pbc):
    rng = np.random.default_rng(12)
    cell = np.array([[20.0, 0, 0], [7.0, 19.0, 0], [-5.0, 4.0, 21.0]])
    case = rng.uniform(-0.5, 1.5, (1500, 3)) @ cell, cell, np.array(pbc), 4.7
    with threads(2):
        assert_same_pairs(triplets(of_case(build, case)), matscipy_pairs(case))


@BUILDERS
@pytest.mark.parametrize("cutoff", [1.0, 2.0, 3.0, 5.0])
@pytest.mark.parametrize("periodic", [True, False])
def test_pairs_exactly_at_the_cutoff_are_left_out(build, cutoff, periodic):
    grid = tensor(list(itertools.product(range(4), repeat=3)))
    cell, pbc = 4.0 * torch.eye(3, dtype=torch.float64), torch.tensor([periodic] * 3)
    edges, shifts = reference.neighbor_pairs(grid, cell, pbc, cutoff)
    wanted = torch.cat([edges.T, shifts], dim=1).numpy()
    assert_same_pairs(triplets(build(grid + 0.25, cell, pbc, cutoff)), wanted)
    assert_same_pairs(triplets(ReadByKernels(build(grid + 0.25, cell, pbc, cutoff + 1.0)).within(cutoff)), wanted)


@BUILDERS
def test_rounding_in_the_bins_loses_no_pair(build):
    """Atoms within a few units in the last place of where bins end: a chain, whose distances round in one way."""
    rng = np.random.default_rng(13)
    for _ in range(50):
        n_atoms, cutoff = 40, rng.uniform(0.5, 3.0)
        x = np.arange(n_atoms) % 20 * (0.5 * cutoff) + rng.uniform(-50, 50)
        for _ in range(3):
            x = np.nextafter(x, rng.choice([-1e9, 1e9], n_atoms))
        positions = np.zeros((n_atoms, 3))
        positions[:, 0] = x
        difference = x[None, :] - x[:, None]
        i, j = np.nonzero((difference * difference < cutoff * cutoff) & ~np.eye(n_atoms, dtype=bool))
        wanted = np.column_stack([i, j, np.zeros((len(i), 3), dtype=int)])
        cell = np.diag([rng.uniform(1, 50), 1, 1])
        assert_same_pairs(triplets(of_case(build, (positions, cell, np.zeros(3, dtype=bool), cutoff))), wanted)


@BUILDERS
def test_far_unwrapped_atoms(build):
    """Moved by up to a million cells, exactly (all numbers are multiples of 2⁻¹⁰): the same vectors, other S."""
    rng = np.random.default_rng(14)
    cell = np.array([[4.0, 0, 0], [1.0, 5.0, 0], [0.5, -1.5, 6.0]])
    positions = rng.integers(0, 4096, (20, 3)) / 1024
    turns = rng.integers(-(2**20), 2**20, (20, 3))
    far = positions + turns @ cell, cell, np.array(FULL_PBC), 3.1
    assert_same_pairs(triplets(of_case(build, far)), triplets(listed(far)))
    assert len(triplets(listed(far))) > 100


@BUILDERS
@pytest.mark.parametrize("far", [1e6, 1e150, 1.7e308])
def test_an_atom_that_has_flown_away(build, far):
    positions = np.array([[0.0, 0, 0], [1.0, 0, 0], [far, -far, 0]])
    case = positions, np.zeros((3, 3)), np.zeros(3, dtype=bool), 2.0
    assert triplets(of_case(build, case)).tolist() == [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0]]


@BUILDERS
def test_one_spot_one_atom_no_atom_a_flat_cell(build):
    cell = torch.zeros(3, 3, dtype=torch.float64)
    spot = build(torch.zeros(3, 3, dtype=torch.float64), cell, False, 1.0)
    assert spot.edge_index.tolist() == [[0, 0, 1, 1, 2, 2], [1, 2, 0, 2, 0, 1]]
    none = build(torch.zeros(0, 3, dtype=torch.float64), 2.0 * torch.eye(3, dtype=torch.float64), True, 2.1)
    assert none.edge_index.shape == (2, 0) and none.row_ptr.tolist() == [0]
    one = build(torch.ones(1, 3, dtype=torch.float64), 2.0 * torch.eye(3, dtype=torch.float64), True, 2.1)
    assert one.edge_index.shape == (2, 6)
    flat = np.array([[0.0, 0, 0], [1.0, 0, 0]]), np.diag([10.0, 10.0, 1e-7]), np.array([True, True, False]), 5.0
    assert triplets(of_case(build, flat)).tolist() == [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0]]


@BUILDERS
def test_a_batch_is_its_systems(build):
    rng = np.random.default_rng(15)
    for sizes in [(4, 0, 7, 1), (0, 0), (0, 30), (12, 3, 0), (1,) * 40]:
        cases, positions, cells, pbc, batch_ptr = batch_of(rng, sizes)
        nl = build(positions, cells, pbc, 2.0, batch_ptr=batch_ptr)
        wanted = [
            matscipy_pairs(case) + [begin, begin, 0, 0, 0]
            for case, begin in zip(cases, batch_ptr.tolist(), strict=False)
            if len(case[0])
        ]
        assert_same_pairs(triplets(nl), np.concatenate([*wanted, np.empty((0, 5), dtype=int)]))


def test_rows_of_a_system_stand_between_its_offsets():
    """What the sums over systems in the pair kernels count on."""
    _, positions, cells, pbc, batch_ptr = batch_of(np.random.default_rng(16), (5, 0, 9, 20))
    nl = compact_list(positions, cells, pbc, 2.0, batch_ptr)
    for begin, end in itertools.pairwise(batch_ptr.tolist()):
        assert sorted(nl.owners[begin:end].tolist()) == list(range(begin, end))


# --- determinism, memory, faults ------------------------------------------------------------------------------------


def crowd(clump=400):
    """3,000 atoms, some of them in a dense clump: bins with many entries to put in order."""
    rng = np.random.default_rng(17)
    cell = np.array([[25.0, 0, 0], [9.0, 24.0, 0], [-6.0, 5.0, 26.0]])
    fractional = np.concatenate([rng.uniform(-1, 2, (3000 - clump, 3)), 0.4 + 0.02 * rng.random((clump, 3))])
    return tensor(fractional @ cell), tensor(cell), True, 3.0


def test_the_order_of_threads_changes_no_bit():
    positions, cell, pbc, cutoff = crowd()
    results = []
    for order in (0, *ORDERS):
        with host_order(order), threads(2):
            nl = rk.neighbors.DeviceList(positions, cell, pbc, cutoff, skin=0.5)
            exact = compact_list(positions, cell, pbc, cutoff)
            results.append((nl.rows, nl.padded(), nl.owners, nl.image_shifts, exact.rows, exact.columns, exact.owners))
    assert int(results[0][0][-1]) > 200_000
    for result in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(result, results[0], strict=True))


def test_columns_stand_in_the_order_of_bins_then_of_atoms():
    """Rows of one bin list entries of one bin by the number of their atom, whichever thread came first."""
    positions, cell, pbc, cutoff = crowd()
    nl = rk.neighbors.DeviceList(positions, cell, pbc, cutoff)
    buffers = nl._buffers._made
    start, owners = buffers["bin_start"].long(), nl.owners.long()
    n_bins = buffers["bin_count"].numel() // 2
    atoms = torch.repeat_interleave(torch.arange(n_bins), start[: n_bins + 1].diff())
    assert atoms.numel() == len(positions) and int(start.diff().max()) > 20
    inside_bin = atoms[1:] == atoms[:-1]
    assert bool((owners[: len(positions)].diff()[inside_bin] > 0).all())


def test_missing_cell_vectors_are_completed_as_elsewhere():
    rng = np.random.default_rng(18)
    for _ in range(60):
        cells = tensor(rng.normal(size=(3, 3, 3)) * 5)
        pbc = torch.tensor(rng.random((3, 3)) < 0.4)
        cells[~pbc & torch.tensor(rng.random((3, 3)) < 0.7)] = 0.0
        nl = rk.neighbors.DeviceList(torch.rand(3, 3).double(), cells, pbc, 0.5, batch_ptr=torch.arange(4))
        torch.testing.assert_close(nl.reference_cell, rk.cells.complete(cells, pbc), rtol=1e-14, atol=1e-15)


def test_kernels_write_only_where_they_may(monkeypatch):
    """Every buffer ends in a fence; capacities are far too small, so that the kernels meet all ends of all buffers."""
    fences, zeros = [], torch.zeros

    def fenced(shape, *, dtype, device):
        count = int(np.prod(shape))
        whole = zeros(count + 64, dtype=dtype, device=device)
        whole[count:] = 77
        fences.append(whole[count:])
        return whole[:count].view(shape)

    positions, cell, pbc, cutoff = crowd()
    monkeypatch.setattr(torch, "zeros", fenced)
    problem = device_build.Problem(
        len(positions), torch.tensor([0, len(positions)]), torch.ones(1, 3, dtype=torch.uint8), cutoff, 0.0
    )
    needed = rk.neighbors.DeviceList(positions, cell, pbc, cutoff)
    assert int(needed.rows[-1]) > 100_000
    for images, neighbors in itertools.product((0, 1, 500, 20_000), (0, 1, 30, 600)):
        shared = device_build.State(positions.device)
        buffers = device_build.Buffers(problem, shared, images, neighbors)
        buffers.stage(positions, cell)
        buffers.update()
        fits = int(shared.status[device_build.VALID])
        assert fits == (images == 20_000 and neighbors == 600)
        assert bool(shared.poison.isnan()) == (not fits)
        assert bool((buffers.matrix >= 0).all() & (buffers.matrix <= len(positions) + images).all())
        assert bool((buffers.owners >= 0).all() & (buffers.owners < len(positions)).all())
        assert int(buffers.rows.diff().max()) <= max(neighbors, 1)
    assert all(bool((fence == 77).all()) for fence in fences)
    assert len(fences) > 300


def test_wrong_positions_are_refused():
    positions, cell, pbc, cutoff = crowd()
    for bad in (float("nan"), float("inf"), -float("inf"), 1e12):
        broken = positions.clone()
        broken[17, 2] = bad
        for build in (compact_list, device_list):
            with pytest.raises(NonFiniteError, match="`positions`"):
                build(broken, cell, pbc, cutoff)


@BUILDERS
def test_too_many_images_are_refused(build):
    with pytest.raises(CapacityError, match=r"`cutoff` of 1000000\.0 Å reaches over .* images"):
        build(torch.rand(4, 3, dtype=torch.float64), torch.eye(3, dtype=torch.float64), True, 1e6)


@pytest.mark.parametrize("half", [False, True])
def test_what_is_read_out_of_rows(half):
    """Edges, matrix and shorter rows by kernels, against their definitions in torch."""
    positions, cell, pbc, cutoff = crowd(clump=40)
    nl = compact_list(positions, cell, pbc, cutoff)
    compact = nl.rows, nl.columns, nl.owners, nl.image_shifts
    where = nl.reference_positions + 0.01, nl._reference_cells * 1.01, nl.batch_ptr
    wanted = (
        expand.edges_torch(*compact, half),
        expand.matrix_torch(*compact, half, -1, -7),
        expand.shorten_torch(*where, *compact, 2.4),
    )
    for order in ORDERS:
        with host_order(order), threads(2):
            ours = (
                expand.edges_cuda(*compact, half),
                expand.matrix_cuda(*compact, half, -1, -7),
                expand.shorten_cuda(*where, *compact, 2.4),
            )
        for one, other in zip(itertools.chain(*ours), itertools.chain(*wanted), strict=True):
            assert torch.equal(one, other)
    assert 10_000 < ours[2][1].numel() < 0.7 * nl.columns.numel()


# --- the interface between Python and C++ ---------------------------------------------------------------------------


def test_python_and_cpp_agree_on_the_block():
    text = ctypes.create_string_buffer(4096)
    count = _native.bind("rk_neighbors_device_fields", "pi")(ctypes.addressof(text), 4096)
    assert tuple(text.value.decode().split()) == device_build.FIELDS
    assert count == len(device_build.FIELDS)
    count = _native.bind("rk_neighbors_device_row_fields", "pi")(ctypes.addressof(text), 4096)
    assert tuple(text.value.decode().split()) == device_rows.FIELDS
    assert count == len(device_rows.FIELDS)
    buffers = rk.neighbors.DeviceList(*crowd(), skin=0.25)._buffers
    words = dict(zip(device_build.FIELDS, buffers.block.tolist(), strict=True))
    assert words["n_atoms"] == 3000 and words["sites"] % 32 == 0
    assert struct.unpack("d", struct.pack("q", words["cutoff"]))[0] == 3.25


def test_the_op_for_cuda_tensors_is_this_list():
    """Sizes and dtypes of the op's four outputs are those that the list for CPUs has."""
    kernel = rk._library.REGISTRY["neighbor_rows"].kernels["cuda"]
    positions, cell, _, cutoff = crowd()
    arguments = positions, cell[None], torch.ones(1, 3, dtype=torch.bool), torch.tensor([0, len(positions)]), cutoff
    rows, columns, owners, shifts = kernel.function(*arguments)
    wanted = torch.ops.rsa_kernels.neighbor_rows(*arguments)
    assert [x.dtype for x in (rows, columns, owners, shifts)] == [x.dtype for x in wanted]
    assert [x.shape for x in (rows, columns, owners, shifts)] == [x.shape for x in wanted]
    assert "CUDA C++" in kernel.what


def test_the_costs_that_the_readme_states():
    """Candidates by bins are what the search tests: counted once more, entry by entry, in a small system."""
    positions, cell, pbc, cutoff = crowd(clump=40)
    nl = rk.neighbors.DeviceList(positions[:300], cell, pbc, cutoff)
    buffers = nl._buffers._made
    words = buffers["grids"][0]
    count, reach = words[9:12].long(), words[12:15].long()
    bins = torch.repeat_interleave(torch.arange(buffers["bin_count"].numel()), buffers["bin_start"].long().diff())
    bins = bins % (buffers["bin_count"].numel() // 2)
    at = torch.stack([bins // (count[1] * count[2]), bins // count[2] % count[1], bins % count[2]], dim=1)
    near = ((at[:300, None] - at[None]).abs() <= reach).all(-1)
    counted = device_list_costs.costs(nl)
    assert counted.candidates == int(near.sum()) > 2 * int(nl.rows[-1])
    assert 100 * 300 < counted.look_bytes < counted.rebuild_bytes < 3000 * 300
