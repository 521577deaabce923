"""Neighbour lists against matscipy, ASE and the definition, pair for pair; their form, batches, vectors.

Pairs are compared exactly, as sets of (i, j, S): no tolerance. Random cases put no pair within rounding of the
cutoff; where a test does, its arithmetic is exact or rounds in one way only, so that there is one right answer.
"""

import itertools
import subprocess
import sys
from pathlib import Path

import ase.geometry
import ase.neighborlist
import numpy as np
import pytest
import torch
from native_settings import available_isas, isa, threads
from neighbor_cases import (
    FULL_PBC,
    SHAPES,
    assert_same_pairs,
    batch_of,
    compact,
    half_of,
    listed,
    matscipy_pairs,
    random_case,
    tensor,
    triplets,
)

import rsa_kernels as rk
from rsa_kernels.neighbors import reference

pytestmark = pytest.mark.usefixtures("one_thread")


# --- the same pairs as others, and as the definition ---------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_same_pairs_as_matscipy(shape):
    rng = np.random.default_rng(SHAPES.index(shape))
    n_pairs = n_several_images = 0
    for _ in range(600):
        case = random_case(rng, shape)
        wanted = matscipy_pairs(case)
        nl = listed(case)
        assert_same_pairs(triplets(nl), wanted)
        assert_same_pairs(triplets(listed(case, half=True)), half_of(wanted))
        assert torch.equal(nl.row_ptr, torch.searchsorted(nl.edge_index[0], torch.arange(len(case[0]) + 1)))
        n_pairs += len(wanted)
        n_several_images += len(np.unique(wanted[:, :2], axis=0)) < len(wanted)
    # The cases are what they are meant to be.
    assert n_pairs > 40_000
    assert n_several_images > 200


def test_same_pairs_as_ase():
    rng = np.random.default_rng(10)
    for _ in range(200):
        case = positions, cell, pbc, cutoff = random_case(rng)
        # ASE puts 1 Å for a missing vector and then loses pairs; it gets one that is longer than the atoms reach.
        filled = np.where(cell.any(axis=1, keepdims=True), cell, 50 * ase.geometry.complete_cell(cell))
        pairs = ase.neighborlist.primitive_neighbor_list("ijS", pbc, filled, positions, cutoff, self_interaction=False)
        assert_same_pairs(triplets(listed(case)), np.column_stack(pairs))


def test_same_pairs_as_the_definition():
    rng = np.random.default_rng(11)
    for _ in range(100):
        case = positions, cell, pbc, cutoff = random_case(rng)
        edges, shifts = reference.neighbor_pairs(tensor(positions), tensor(cell), torch.tensor(pbc), cutoff)
        assert_same_pairs(triplets(listed(case)), torch.cat([edges.T, shifts], dim=1).numpy())


@pytest.mark.parametrize("pbc", [FULL_PBC, (True, False, True), (False, False, False)])
def test_same_pairs_as_matscipy_in_a_large_system(pbc):
    rng = np.random.default_rng(12)
    cell = np.array([[20.0, 0, 0], [7.0, 19.0, 0], [-5.0, 4.0, 21.0]])
    case = rng.uniform(-0.5, 1.5, (1500, 3)) @ cell, cell, np.array(pbc), 4.7
    with threads(2):
        assert_same_pairs(triplets(listed(case)), matscipy_pairs(case))


@pytest.mark.parametrize("cutoff", [1.0, 2.0, 3.0, 5.0])
@pytest.mark.parametrize("periodic", [True, False])
def test_pairs_exactly_at_the_cutoff_are_left_out(cutoff, periodic):
    grid = tensor(list(itertools.product(range(4), repeat=3)))
    nl = rk.neighbor_list(grid + 0.25, 4.0 * torch.eye(3, dtype=torch.float64), periodic, cutoff)
    edges, shifts = reference.neighbor_pairs(
        grid, 4.0 * torch.eye(3, dtype=torch.float64), torch.tensor([periodic] * 3), cutoff
    )
    assert_same_pairs(triplets(nl), torch.cat([edges.T, shifts], dim=1).numpy())


def test_rounding_in_the_bins_loses_no_pair():
    """Atoms within a few units in the last place of where bins end: a chain, whose distances round in one way."""
    rng = np.random.default_rng(13)
    for _ in range(300):
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
        assert_same_pairs(triplets(listed((positions, cell, np.zeros(3, dtype=bool), cutoff))), wanted)


def test_atoms_on_one_spot_are_neighbours():
    nl = rk.neighbor_list(torch.zeros(3, 3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64), False, 1.0)
    assert nl.edge_index.tolist() == [[0, 0, 1, 1, 2, 2], [1, 2, 0, 2, 0, 1]]


def test_far_unwrapped_atoms():
    """Moved by up to a million cells, exactly (all numbers are multiples of 2⁻¹⁰): the same vectors, other S."""
    rng = np.random.default_rng(14)
    cell = np.array([[4.0, 0, 0], [1.0, 5.0, 0], [0.5, -1.5, 6.0]])
    positions = rng.integers(0, 4096, (20, 3)) / 1024
    turns = rng.integers(-(2**20), 2**20, (20, 3))
    case = positions, cell, np.array(FULL_PBC), 3.1
    i, j, *shifts = triplets(listed(case)).T
    wanted = np.column_stack([i, j, np.stack(shifts, axis=1) + turns[i] - turns[j]])
    far = positions + turns @ cell, cell, np.array(FULL_PBC), 3.1
    assert_same_pairs(triplets(listed(far)), wanted)


def test_a_flat_layer_in_a_flat_cell():
    """All bins of one direction have no height: nothing overflows."""
    cell = np.diag([10.0, 10.0, 1e-7])
    case = np.array([[0.0, 0, 0], [1.0, 0, 0]]), cell, np.array([True, True, False]), 5.0
    assert triplets(listed(case)).tolist() == [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0]]


@pytest.mark.parametrize("far", [1e6, 1e150, 1.7e308])
def test_an_atom_that_has_flown_away(far):
    positions = np.array([[0.0, 0, 0], [1.0, 0, 0], [far, -far, 0]])
    case = positions, np.zeros((3, 3)), np.zeros(3, dtype=bool), 2.0
    assert triplets(listed(case)).tolist() == [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0]]


OUT_OF_MEMORY = """
import resource, torch
import rsa_kernels as rk

def build(n_atoms, cutoff):
    return rk.neighbor_list(torch.rand(n_atoms, 3).double(), torch.eye(3).double(), True, cutoff)

build(50, 1.0)  # threads and library are there before memory is limited
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, used + 2**26))
for n_atoms, cutoff in ((2000, 1.8), (50, 40.0)):  # 400 MB of pairs, 1 GB of images
    try:
        build(n_atoms, cutoff)
    except rk.errors.CapacityError as error:
        print(error)
assert build(50, 1.0).n_atoms == 50
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on memory and /proc")
def test_not_enough_memory_is_an_error_and_not_the_end():
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", OUT_OF_MEMORY], capture_output=True, text=True, cwd=root, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and all("not enough memory" in line and "`cutoff`" in line for line in lines)


# --- form of the list ----------------------------------------------------------------------------------------------


def test_full_list_is_symmetric():
    nl = listed(random_case(np.random.default_rng(20), "skewed"))
    rows = triplets(nl)
    assert_same_pairs(rows, np.column_stack([rows[:, 1], rows[:, 0], -rows[:, 2:]]))


def test_shapes_and_dtypes():
    nl = listed(random_case(np.random.default_rng(21)))
    n_pairs, n_atoms = nl.edge_index.shape[1], nl.n_atoms
    assert nl.edge_index.dtype == nl.row_ptr.dtype == nl.rows.dtype == torch.int64
    assert nl.unit_shifts.shape == (n_pairs, 3) and nl.unit_shifts.dtype == torch.int32
    assert nl.row_ptr.shape == nl.rows.shape == (n_atoms + 1,)
    assert int(nl.row_ptr[0]) == 0 and int(nl.row_ptr[-1]) == n_pairs == nl.columns.numel()
    assert bool((nl.edge_index[0].diff() >= 0).all())
    assert str(n_atoms) in repr(nl)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("pbc", [True, False])
def test_no_atoms_and_one_atom(half, pbc):
    cell = 2.0 * torch.eye(3, dtype=torch.float64)
    empty = rk.neighbor_list(torch.zeros(0, 3, dtype=torch.float64), cell, pbc, 2.1, half=half)
    assert empty.edge_index.shape == (2, 0) and empty.unit_shifts.shape == (0, 3) and empty.row_ptr.tolist() == [0]
    assert not empty.update(torch.zeros(0, 3, dtype=torch.float64), 1.1 * cell) or empty.skin == 0.0
    one = rk.neighbor_list(torch.ones(1, 3, dtype=torch.float64), cell, pbc, 2.1, half=half)
    assert one.edge_index.shape[1] == (0 if not pbc else 3 if half else 6)


def test_compact_rows_are_the_same_pairs():
    """What kernels read: rows of owners, entries of atoms and images."""
    case = random_case(np.random.default_rng(22), "ordinary")
    nl = listed(case)
    owners, shifts = nl.owners.numpy(), nl.image_shifts.numpy().astype(np.int64)
    assert sorted(owners[: nl.n_atoms]) == list(range(nl.n_atoms))
    row = np.repeat(np.arange(nl.n_atoms), np.diff(nl.rows.numpy()))
    column = nl.columns.numpy()
    assert_same_pairs(np.column_stack([owners[row], owners[column], shifts[column] - shifts[row]]), triplets(nl))


def test_float32_positions_are_compared_in_float64():
    positions, cell, pbc, cutoff = random_case(np.random.default_rng(23), "ordinary")
    rounded = torch.as_tensor(positions, dtype=torch.float32), torch.as_tensor(cell, dtype=torch.float32)
    single = rk.neighbor_list(*rounded, pbc.tolist(), cutoff)
    double = rk.neighbor_list(*(x.to(torch.float64) for x in rounded), pbc.tolist(), cutoff)
    assert_same_pairs(triplets(single), triplets(double))
    assert single.reference_positions.dtype == torch.float64
    assert single.vectors(*rounded).dtype == torch.float32


def test_inputs_are_neither_changed_nor_kept():
    """Strided inputs are read right; what the caller does to them later does not reach the list."""
    positions, cell, pbc, cutoff = random_case(np.random.default_rng(24), "ordinary")
    wide = torch.zeros(len(positions), 7, dtype=torch.float64)
    wide[:, 1:7:2] = tensor(positions)
    turned = tensor(cell).T.contiguous().T
    offsets = torch.tensor([0, 99, len(positions), -5])[::2]
    nl = rk.neighbor_list(wide[:, 1:7:2], turned, torch.tensor(pbc), cutoff, batch_ptr=offsets, skin=0.5)
    wanted = listed((positions, cell, pbc, cutoff), skin=0.5)
    assert_same_pairs(triplets(nl), triplets(wanted))
    assert nl.used_skin(wide[:, 1:7:2], turned) == 0.0
    assert np.array_equal(wide[:, 1:7:2].numpy(), positions)
    wide.zero_()
    assert torch.equal(nl.reference_positions, tensor(positions))


def test_the_list_ignores_gradients():
    positions = torch.rand(5, 3, dtype=torch.float64, requires_grad=True)
    cell = (3.0 * torch.eye(3, dtype=torch.float64)).requires_grad_()
    nl = rk.neighbor_list(positions, cell, True, 2.0, skin=0.3)
    assert not nl.reference_positions.requires_grad and not nl.reference_cell.requires_grad
    nl.update(positions + 0.01, 1.001 * cell)
    assert not nl.within(1.5).reference_cell.requires_grad


# --- batches -------------------------------------------------------------------------------------------------------


SIZES = [(3, 0, 5), (0, 4), (4, 0), (0, 0), (1, 1, 1), (2, 0, 0, 7, 1, 0, 6), (6,)]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("half", [False, True])
def test_batch_equals_single_calls(sizes, half):
    cases, positions, cells, pbc, batch_ptr = batch_of(np.random.default_rng(30), sizes)
    batch = rk.neighbor_list(positions, cells, pbc, 2.0, batch_ptr=batch_ptr, half=half)
    single = [
        triplets(listed(case, half=half)) + [base, base, 0, 0, 0]
        for case, base in zip(cases, batch_ptr.tolist(), strict=False)
    ]
    assert_same_pairs(triplets(batch), np.concatenate(single))
    assert batch.n_systems == len(sizes) and batch.n_atoms == sum(sizes)
    vectors = [listed(case, half=half).vectors(tensor(case[0]), tensor(case[1])) for case in cases]
    assert torch.equal(batch.vectors(positions, cells), torch.cat(vectors))


def test_batch_with_one_cell_for_all():
    positions, cell = torch.rand(7, 3, dtype=torch.float64), 1.7 * torch.eye(3, dtype=torch.float64)
    batch_ptr = torch.tensor([0, 3, 7])
    shared = rk.neighbor_list(positions, cell, True, 1.5, batch_ptr=batch_ptr)
    given = rk.neighbor_list(
        positions, cell.expand(2, 3, 3), torch.ones(2, 3, dtype=torch.bool), 1.5, batch_ptr=batch_ptr
    )
    assert_same_pairs(triplets(shared), triplets(given))
    assert torch.equal(shared.vectors(positions, cell), given.vectors(positions, cell.expand(2, 3, 3)))


# --- vectors and distances -----------------------------------------------------------------------------------------


def test_vectors_are_their_definition():
    case = positions, cell, _, cutoff = random_case(np.random.default_rng(40), "skewed")
    nl = listed(case)
    i, j = nl.edge_index.numpy()
    wanted = positions[j] + nl.unit_shifts.numpy() @ cell - positions[i]
    # Coordinates of some tens of Å, rounded to 1e-15 relative a few times.
    np.testing.assert_allclose(nl.vectors(tensor(positions), tensor(cell)).numpy(), wanted, rtol=0, atol=1e-13)
    distances = nl.distances(tensor(positions), tensor(cell)).numpy()
    np.testing.assert_allclose(distances, np.linalg.norm(wanted, axis=1), rtol=0, atol=1e-13)
    assert distances.max() < cutoff


@pytest.mark.parametrize("batched", [False, True])
def test_gradients_of_vectors_and_distances(batched):
    sizes = (4, 0, 3) if batched else (4,)
    _, positions, cells, pbc, batch_ptr = batch_of(np.random.default_rng(41), sizes, cutoff=1.6)
    cell = cells if batched else cells[0]
    nl = rk.neighbor_list(positions, cell, pbc, 1.6, batch_ptr=batch_ptr)
    assert nl.edge_index.shape[1] > 4
    leaves = positions.requires_grad_(), cell.clone().requires_grad_()
    assert torch.autograd.gradcheck(nl.vectors, leaves)
    assert torch.autograd.gradcheck(nl.distances, leaves)
    assert torch.autograd.gradgradcheck(nl.distances, leaves)


# --- within --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skin", [0.0, 0.4])
@pytest.mark.parametrize("half", [False, True])
def test_within_equals_a_fresh_list(skin, half):
    rng = np.random.default_rng(50)
    for _ in range(60):
        case = positions, cell, pbc, cutoff = random_case(rng)
        nl = listed(case, half=half, skin=skin * cutoff)
        for shorter in (cutoff, 0.8 * cutoff, 0.3 * cutoff):
            inner = nl.within(shorter)
            assert_same_pairs(triplets(inner), triplets(listed((positions, cell, pbc, shorter), half=half)))
            assert inner.cutoff == shorter and inner.skin == 0.0 and inner.half is half
            assert bool((inner.edge_index[0].diff() >= 0).all())
            assert torch.equal(inner.row_ptr, torch.searchsorted(inner.edge_index[0], torch.arange(nl.n_atoms + 1)))


def test_within_after_motion():
    rng = np.random.default_rng(51)
    for _ in range(60):
        positions, cell, pbc, cutoff = random_case(rng, "ordinary")
        skin = 0.3 * cutoff
        nl = listed((positions, cell, pbc, cutoff), skin=skin)
        moved = positions + rng.uniform(-0.28, 0.28, positions.shape) * skin
        fresh = listed((moved, cell, pbc, cutoff))
        assert_same_pairs(triplets(nl.within(cutoff, tensor(moved), tensor(cell))), triplets(fresh))
    # A list without skin still holds every pair of a cutoff shorter by twice the motion, and no more.
    nl = listed((positions, cell, pbc, cutoff))
    inner = nl.within(cutoff - skin, tensor(moved), tensor(cell))
    assert_same_pairs(triplets(inner), triplets(listed((moved, cell, pbc, cutoff - skin))))
    with pytest.raises(ValueError, match="call `update`"):
        nl.within(cutoff, tensor(moved), tensor(cell))


def test_within_in_a_batch():
    _, positions, cells, pbc, batch_ptr = batch_of(np.random.default_rng(52), (3, 0, 6, 1))
    inner = rk.neighbor_list(positions, cells, pbc, 2.0, batch_ptr=batch_ptr, skin=0.5).within(1.1)
    assert_same_pairs(triplets(inner), triplets(rk.neighbor_list(positions, cells, pbc, 1.1, batch_ptr=batch_ptr)))


# --- threads and instruction sets ----------------------------------------------------------------------------------


def test_bitwise_the_same_for_any_number_of_threads():
    rng = np.random.default_rng(60)
    cell = np.diag([14.0, 15.0, 16.0])
    large = rng.uniform(0, 1, (900, 3)) @ cell, cell, np.array(FULL_PBC), 4.0
    _, positions, cells, pbc, batch_ptr = batch_of(rng, (5, 0, 9, 3, 8, 1))

    def both():
        return *compact(listed(large)), *compact(rk.neighbor_list(positions, cells, pbc, 2.0, batch_ptr=batch_ptr))

    with threads(1):
        wanted = both()
    for count in (1, 2, 3):
        with threads(count):
            assert all(torch.equal(ours, theirs) for ours, theirs in zip(both(), wanted, strict=True))


def test_the_same_pairs_for_every_instruction_set():
    rng = np.random.default_rng(61)
    assert "baseline" in available_isas()
    for _ in range(40):
        case = random_case(rng)
        wanted = matscipy_pairs(case)
        for name in available_isas():
            with isa(name):
                assert_same_pairs(triplets(listed(case)), wanted)
