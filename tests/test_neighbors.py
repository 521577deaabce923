"""Neighbour lists against matscipy, ASE and the definition, pair for pair; skin, restart, refusals.

Pairs are compared exactly, as sets of (i, j, S): no tolerance. Random cases put no pair within rounding of the
cutoff; where a test does, its coordinates are exact in binary, so that there is one right answer.
"""

import itertools
import math
import subprocess
import sys
from pathlib import Path

import ase.geometry
import ase.neighborlist
import matscipy.neighbours
import numpy as np
import pytest
import torch
from native_settings import available_isas, isa, threads

import rsa_kernels as rk
from rsa_kernels.errors import CapacityError, DerivativeNotProvidedError, NonFiniteError
from rsa_kernels.neighbors import op, reference

SHAPES = ("ordinary", "thin", "skewed", "tiny")
FULL_PBC = (True, True, True)


@pytest.fixture(autouse=True)
def one_thread():
    """Small systems run on one thread anyway; waking others for every torch call is most of the time."""
    with threads(1):
        yield


def tensor(values):
    return torch.as_tensor(np.asarray(values), dtype=torch.float64)


def random_case(rng, shape=None):
    """Positions, cell, pbc and cutoff: any shape, any periodic directions, unwrapped atoms, several images."""
    shape = shape or rng.choice(SHAPES)
    lengths = rng.uniform(1.5, 6.0, 3)
    if shape == "tiny":
        lengths = rng.uniform(0.4, 1.2, 3)
    if shape == "thin":
        lengths[rng.integers(3)] *= 0.1
    cell = np.diag(lengths) @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    if shape == "skewed":
        i, j, k = rng.permutation(3)
        cell[i] += rng.uniform(-4, 4) * cell[j]
        cell[j] += rng.uniform(-1, 1) * cell[k]
    pbc = rng.random(3) < 0.6
    n_atoms = int(rng.integers(1, 13))
    positions = rng.uniform(-1.5, 2.5, (n_atoms, 3)) @ cell
    # Up to a thousand pairs: dense cells get a shorter cutoff, still of several cells.
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    density = n_atoms * n_atoms / abs(np.linalg.det(cell))
    cutoff = min(rng.uniform(0.3, 2.5) * heights.max(), (800 / (4 * density)) ** (1 / 3))
    for direction in np.flatnonzero(~pbc):
        if rng.random() < 0.3:
            cell[direction] = 0.0
    return positions, cell, pbc, cutoff


def listed(case, **options):
    positions, cell, pbc, cutoff = case
    return rk.neighbor_list(tensor(positions), tensor(cell), pbc.tolist(), cutoff, **options)


def triplets(nl):
    """Sorted rows (i, j, S) of a list."""
    return in_order(torch.cat([nl.edge_index.T, nl.unit_shifts.to(torch.int64)], dim=1).numpy())


def in_order(rows):
    rows = np.asarray(rows, dtype=np.int64).reshape(-1, 5)
    return rows[np.lexsort(rows.T[::-1])]


def assert_same_pairs(ours, wanted):
    ours, wanted = in_order(ours), in_order(wanted)
    if ours.shape != wanted.shape or (ours != wanted).any():
        have, want = set(map(tuple, ours.tolist())), set(map(tuple, wanted.tolist()))
        pytest.fail(
            f"lost {sorted(want - have)[:5]}, invented {sorted(have - want)[:5]}, {len(ours) - len(have)} twice"
        )


def half_of(rows):
    """Each pair once: i < j, or i = j and the first non-zero of S positive."""
    i, j, a, b, c = rows.T
    leading = np.where(a != 0, a, np.where(b != 0, b, c))
    return rows[(i < j) | ((i == j) & (leading > 0))]


def matscipy_pairs(case):
    positions, cell, pbc, cutoff = case
    cell = ase.geometry.complete_cell(cell)
    i, j, shifts = matscipy.neighbours.neighbour_list("ijS", positions=positions, cell=cell, pbc=pbc, cutoff=cutoff)
    return in_order(np.column_stack([i, j, shifts]))


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


def batch_of(rng, sizes, cutoff=2.0):
    cases = []
    for size in sizes:
        _, cell, pbc, _ = random_case(rng, rng.choice(["ordinary", "thin"]))
        filled = ase.geometry.complete_cell(cell)
        cases.append((rng.uniform(-1, 2, (size, 3)) @ filled, cell, pbc, cutoff))
    positions = tensor(np.concatenate([case[0] for case in cases]))
    cells = tensor(np.stack([case[1] for case in cases]))
    pbc = torch.tensor(np.stack([case[2] for case in cases]))
    return cases, positions, cells, pbc, torch.tensor([0, *np.cumsum(sizes)])


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


def compact(nl):
    return nl.rows, nl.columns, nl.owners, nl.image_shifts, nl.edge_index, nl.unit_shifts


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


# --- the Verlet skin -----------------------------------------------------------------------------------------------


def strained(rng, size):
    """A random change of the cell: stretch, shear and a little rotation."""
    return np.eye(3) + size * rng.uniform(-1, 1, (3, 3))


@pytest.mark.parametrize("cell_moves", ["fixed", "shrinking", "shearing", "random"])
@pytest.mark.parametrize("pbc", [FULL_PBC, (True, True, False), (True, False, False)])
def test_no_pair_is_ever_lost(cell_moves, pbc):
    """Random walks: after every update the pairs inside the cutoff are those of a fresh list."""
    rng = np.random.default_rng(70)
    rebuilds = kept = 0
    for _ in range(4):
        _, cell, _, _ = random_case(rng, "ordinary")
        cell = ase.geometry.complete_cell(cell)
        positions = rng.uniform(0, 1, (12, 3)) @ cell
        cell[~np.array(pbc)] = 0.0
        cutoff, skin = rng.uniform(1.0, 3.0), rng.uniform(0.2, 0.8)
        nl = listed((positions, cell, np.array(pbc), cutoff), skin=skin)
        for _ in range(40):
            positions = positions + rng.normal(0, 0.03, positions.shape)
            change = {
                "fixed": np.eye(3),
                "shrinking": 0.997 * np.eye(3),
                "shearing": np.eye(3) + 0.004 * np.eye(3, k=1),
                "random": strained(rng, 0.003),
            }[cell_moves]
            positions, cell = positions @ change, cell @ change
            if nl.update(tensor(positions), tensor(cell)):
                rebuilds += 1
            else:
                kept += 1
            assert nl.used_skin(tensor(positions), tensor(cell)) <= skin
            fresh = listed((positions, cell, np.array(pbc), cutoff))
            inside = nl.distances(tensor(positions), tensor(cell)).numpy() < cutoff
            everything = torch.cat([nl.edge_index.T, nl.unit_shifts.to(torch.int64)], dim=1).numpy()
            assert_same_pairs(everything[inside], triplets(fresh))
            assert_same_pairs(triplets(nl.within(cutoff, tensor(positions), tensor(cell))), triplets(fresh))
    assert rebuilds > 4 and kept > 4


def test_no_pair_is_lost_when_the_skin_is_all_used_up():
    """One large step, scaled so that it uses 99.9 % of the skin: still complete, so the bound is not too lax."""
    rng = np.random.default_rng(71)
    for _ in range(150):
        positions, cell, pbc, cutoff = random_case(rng, "ordinary")
        cell = ase.geometry.complete_cell(cell)
        skin = rng.uniform(0.05, 0.5) * cutoff
        nl = listed((positions, cell, pbc, cutoff), skin=skin)
        direction, change = rng.normal(size=positions.shape), rng.uniform(-1, 1, (3, 3)) * rng.choice([0, 0.01, 0.2])
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)

        def moved(size, positions=positions, cell=cell, direction=direction, change=change):
            deformation = np.eye(3) + size * change
            return tensor(positions @ deformation + size * direction), tensor(cell @ deformation)

        low, high = 0.0, skin
        for _ in range(40):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if nl.used_skin(*moved(middle)) <= 0.999 * skin else (low, middle)
        now = moved(low)
        assert nl.used_skin(*now) > 0.99 * skin
        assert not nl.update(*now)
        fresh = rk.neighbor_list(*now, pbc.tolist(), cutoff)
        assert_same_pairs(triplets(nl.within(cutoff, *now)), triplets(fresh))


def test_two_atoms_that_run_into_each_other():
    """The worst case: the bound on the skin is reached, neither early nor late."""
    cell = torch.zeros(3, 3, dtype=torch.float64)
    nl = rk.neighbor_list(tensor([[0.0, 0, 0], [3.0, 0, 0]]), cell, False, 2.0, skin=1.0)
    assert nl.edge_index.shape[1] == 0
    assert not nl.update(tensor([[0.5, 0, 0], [2.5, 0, 0]]), cell)  # 2 Å apart: not yet neighbours
    assert nl.update(tensor([[0.501, 0, 0], [2.499, 0, 0]]), cell)
    assert nl.edge_index.shape[1] == 2 and nl.n_rebuilds == 1


def test_an_atom_wrapped_back_is_not_taken_for_the_image_it_left():
    rng = np.random.default_rng(72)
    cell = np.array([[5.0, 0, 0], [1.0, 6.0, 0], [0.5, -1.0, 7.0]])
    positions = rng.uniform(0, 1, (10, 3)) @ cell
    nl = listed((positions, cell, np.array(FULL_PBC), 2.5), skin=0.5)
    wrapped = positions.copy()
    wrapped[3] += cell[0] - 2 * cell[2]
    assert nl.used_skin(tensor(wrapped), tensor(cell)) > 0.5
    assert nl.update(tensor(wrapped), tensor(cell))
    assert_same_pairs(triplets(nl), triplets(listed((wrapped, cell, np.array(FULL_PBC), 3.0))))


@pytest.mark.parametrize("pbc", [FULL_PBC, (True, True, False), (False, True, False), (False, False, False)])
def test_a_change_of_the_cell_alone_is_no_displacement(pbc):
    """Atoms that follow the cell use up (‖F⁻¹‖ − 1)·cutoff, whatever their distance from the origin."""
    rng = np.random.default_rng(73)
    positions, cell, _, _ = random_case(rng, "skewed")
    cell = ase.geometry.complete_cell(cell)
    cell[~np.array(pbc)] = 0.0
    positions = tensor(positions + 1000.0)
    nl = rk.neighbor_list(positions, tensor(cell), pbc, 2.0, skin=0.5)
    before = rk.cells.complete(tensor(cell)[None], torch.tensor([pbc]))[0]
    for size in (1e-3, 1e-2):
        now = tensor(cell @ strained(rng, size))
        after = rk.cells.complete(now[None], torch.tensor([pbc]))[0]
        deformation = torch.linalg.solve(before, after)
        bound = 1 + float((torch.linalg.inv(deformation) - torch.eye(3)).norm())
        # Positions of 1,000 Å are rounded to 1e-13 Å.
        assert nl.used_skin(positions @ deformation, now) == pytest.approx(2.0 * (bound - 1), abs=1e-11)
        assert bound - 1 < 10 * size  # the vectors put in for missing ones turn no faster than the cell


def test_used_skin_equals_its_definition_in_torch():
    rng = np.random.default_rng(74)
    for sizes in [(4,), (3, 0, 5), (0, 0), (1,)]:
        _, positions, cells, pbc, batch_ptr = batch_of(rng, sizes)
        completed = rk.cells.complete(cells, pbc)
        for size in (0.0, 1e-3, 0.1):
            moved = positions + tensor(size * rng.normal(size=positions.shape))
            changed = completed @ tensor(strained(rng, size))
            arguments = moved, positions, batch_ptr, changed, completed, 2.0
            # Both round a few times at the size of coordinates, tens of Å.
            assert op.used_skin(*arguments) == pytest.approx(float(op.used_skin_tensor(*arguments)), abs=1e-11)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_positions_that_are_not_finite_leave_the_list_as_it_was(bad):
    case = positions, cell, _, cutoff = random_case(np.random.default_rng(75), "ordinary")
    nl = listed(case, skin=0.5)
    before = triplets(nl)
    broken = tensor(positions).clone()
    broken[-1, 1] = bad
    with pytest.raises(NonFiniteError, match="`positions`"):
        nl.update(broken, tensor(cell))
    with pytest.raises(NonFiniteError, match="`cell`"):
        nl.update(tensor(positions), tensor(cell) + bad)
    arguments = broken, nl.reference_positions, nl.batch_ptr, nl._reference_cells, nl._reference_cells, cutoff
    assert not math.isfinite(float(op.used_skin_tensor(*arguments)))
    assert nl.n_rebuilds == 0
    assert torch.equal(nl.reference_positions, tensor(positions))
    assert_same_pairs(triplets(nl), before)


def test_update_without_skin_always_rebuilds():
    case = positions, cell, *_ = random_case(np.random.default_rng(76))
    nl = listed(case)
    assert nl.update(tensor(positions), tensor(cell)) and nl.n_rebuilds == 1


@pytest.mark.parametrize("half", [False, True])
def test_restart_from_the_reference_gives_the_same_list_bit_for_bit(half):
    rng = np.random.default_rng(77)
    cell = np.array([[9.0, 0, 0], [2.0, 8.0, 0], [-1.0, 1.5, 10.0]])
    positions = rng.uniform(-1, 2, (150, 3)) @ cell
    running = listed((positions, cell, np.array(FULL_PBC), 3.0), skin=0.4, half=half)
    now = positions, cell
    for _ in range(12):
        change = strained(rng, 0.002)
        now = (now[0] + rng.normal(0, 0.04, positions.shape)) @ change, now[1] @ change
        running.update(tensor(now[0]), tensor(now[1]))
    assert running.n_rebuilds > 0
    again = rk.neighbor_list(running.reference_positions, running.reference_cell, True, 3.0, skin=0.4, half=half)
    assert not again.update(tensor(now[0]), tensor(now[1]))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(compact(again), compact(running), strict=True))
    # And they go on alike.
    later = tensor(now[0] + 0.05), tensor(now[1] * 1.01)
    assert again.update(*later) == running.update(*later)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(compact(again), compact(running), strict=True))


# --- refusals ------------------------------------------------------------------------------------------------------

GOOD = {
    "positions": torch.rand(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
    "cell": 3.0 * torch.eye(3, dtype=torch.float64),
    "pbc": True,
    "cutoff": 1.0,
    "batch_ptr": None,
    "skin": 0.1,
}
FLAT = tensor([[1.0, 0, 0], [0, 1.0, 0], [1.0, 1.0, 0]])
NAN = torch.full((4, 3), float("nan"), dtype=torch.float64)
WRONG = [
    ("positions", [[0.0, 0.0, 0.0]], TypeError),
    ("positions", np.zeros((4, 3)), TypeError),
    ("positions", torch.zeros(4, 3, dtype=torch.int64), TypeError),
    ("positions", torch.zeros(4, 3, dtype=torch.float16), TypeError),
    ("positions", torch.zeros(3, dtype=torch.float64), ValueError),
    ("positions", torch.zeros(4, 2, dtype=torch.float64), ValueError),
    ("positions", torch.zeros(1, 4, 3, dtype=torch.float64), ValueError),
    ("positions", NAN, NonFiniteError),
    ("positions", GOOD["positions"] * float("inf"), NonFiniteError),
    ("positions", GOOD["positions"] + 1e12, NonFiniteError),
    ("cell", [[3, 0, 0], [0, 3, 0], [0, 0, 3]], TypeError),
    ("cell", torch.eye(3, dtype=torch.int64), TypeError),
    ("cell", torch.eye(3, dtype=torch.float64, device="meta"), ValueError),
    ("cell", torch.ones(3, dtype=torch.float64), ValueError),
    ("cell", torch.eye(2, dtype=torch.float64), ValueError),
    ("cell", torch.eye(3, dtype=torch.float64)[:2], ValueError),
    ("cell", torch.eye(3, dtype=torch.float64).expand(2, 3, 3), ValueError),
    ("cell", FLAT, ValueError),
    ("cell", torch.zeros(3, 3, dtype=torch.float64), ValueError),
    ("cell", torch.diag(tensor([3.0, 3.0, 0.0])), ValueError),
    ("cell", NAN[:3], NonFiniteError),
    ("cell", torch.diag(tensor([3.0, 3.0, float("inf")])), NonFiniteError),
    ("pbc", None, TypeError),
    ("pbc", "TTT", TypeError),
    ("pbc", [True, True], ValueError),
    ("pbc", torch.ones(2, 3, dtype=torch.bool), ValueError),
    ("cutoff", 0.0, ValueError),
    ("cutoff", -1.0, ValueError),
    ("cutoff", float("nan"), ValueError),
    ("cutoff", float("inf"), ValueError),
    ("cutoff", None, TypeError),
    ("cutoff", "5", TypeError),
    ("cutoff", [1.0, 2.0], TypeError),
    ("cutoff", 1e6, CapacityError),
    ("skin", -0.1, ValueError),
    ("skin", float("nan"), ValueError),
    ("skin", float("inf"), ValueError),
    ("skin", None, TypeError),
    ("batch_ptr", [0, 4], TypeError),
    ("batch_ptr", torch.tensor([0, 4], dtype=torch.int32), TypeError),
    ("batch_ptr", torch.tensor([0, 4], device="meta"), ValueError),
    ("batch_ptr", torch.tensor([[0, 4]]), ValueError),
    ("batch_ptr", torch.tensor([4]), ValueError),
    ("batch_ptr", torch.tensor([0, 3]), ValueError),
    ("batch_ptr", torch.tensor([1, 4]), ValueError),
    ("batch_ptr", torch.tensor([0, 5]), ValueError),
    ("batch_ptr", torch.tensor([0, 3, 2, 4]), ValueError),
]


@pytest.mark.parametrize(("name", "value", "error"), WRONG)
def test_wrong_arguments_are_named(name, value, error):
    with pytest.raises(error, match=f"`{name}`"):
        rk.neighbor_list(**{**GOOD, name: value})


def test_the_message_says_what_came_and_the_mend():
    with pytest.raises(ValueError, match=r"`cell` must have shape \(3, 3\), got \(3, 2\)"):
        rk.neighbor_list(**{**GOOD, "cell": torch.zeros(3, 2, dtype=torch.float64)})
    with pytest.raises(ValueError, match="set its `pbc` to False"):
        rk.neighbor_list(**{**GOOD, "cell": torch.diag(tensor([3.0, 3.0, 0.0]))})


@pytest.mark.parametrize("method", ["update", "used_skin", "vectors", "distances"])
def test_positions_of_other_atoms_are_refused(method):
    nl = rk.neighbor_list(**GOOD)
    call = getattr(nl, method)
    positions, cell = GOOD["positions"], GOOD["cell"]
    for other in (positions[:3], positions[:, :2], positions[0], torch.cat([positions, positions])):
        with pytest.raises(ValueError, match="`positions` must have shape"):
            call(other, cell)
    with pytest.raises(TypeError, match="`positions`"):
        call(positions.numpy(), cell)
    for other in (cell[:2], cell.expand(2, 3, 3)):
        with pytest.raises(ValueError, match="`cell` must have shape"):
            call(positions, other)


def test_vectors_mix_no_precisions():
    with pytest.raises(TypeError, match=r"`cell` must have dtype torch\.float64, got torch\.float32"):
        rk.neighbor_list(**GOOD).vectors(GOOD["positions"], GOOD["cell"].float())


@pytest.mark.parametrize("wrong", [0.0, -1.0, 1.01, float("nan")])
def test_within_refuses_cutoffs_it_cannot_serve(wrong):
    with pytest.raises(ValueError, match="`cutoff`"):
        rk.neighbor_list(**GOOD).within(wrong)


# --- the registered op ---------------------------------------------------------------------------------------------


def rows_arguments(sizes=(3, 0, 5)):
    _, positions, cells, pbc, batch_ptr = batch_of(np.random.default_rng(80), sizes)
    return positions, rk.cells.complete(cells, pbc), pbc, batch_ptr, 2.0


def test_opcheck():
    """Every utility of opcheck applies; the sizes of the outputs depend on the data."""
    torch.library.opcheck(torch.ops.rsa_kernels.neighbor_rows.default, rows_arguments())


def test_the_list_has_no_derivative():
    positions, *rest = rows_arguments()
    outputs = torch.ops.rsa_kernels.neighbor_rows(positions.requires_grad_(), *rest)
    assert not any(output.requires_grad for output in outputs)
    assert issubclass(DerivativeNotProvidedError, NotImplementedError)


def test_outputs_are_written_whole(monkeypatch):
    """Poisoned buffers: whatever torch.empty hands out is overwritten."""
    arguments = rows_arguments()
    wanted = torch.ops.rsa_kernels.neighbor_rows(*arguments)
    empty = torch.empty

    def poisoned(*size, **options):
        return empty(*size, **options).fill_(-(2**30))

    monkeypatch.setattr(torch, "empty", poisoned)
    assert all(torch.equal(a, b) for a, b in zip(torch.ops.rsa_kernels.neighbor_rows(*arguments), wanted, strict=True))
