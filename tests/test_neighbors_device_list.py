"""The contract of `DeviceList`: rebuilds decided on the device, capacities, poison, what is not finite, arguments.

The kernels run as loops on a CPU. What happens inside a step is in test_neighbors_device_steps.py.
"""

import math

import numpy as np
import pytest
import torch
from device_lists import (
    CELL,
    CUTOFF,
    ORDERS,
    SKIN,
    assert_holds_all,
    compact_list,
    gas,
    host_order,
    made,
    one_moved,
    state,
    words,
)
from neighbor_cases import FULL_PBC, assert_same_pairs, batch_of, tensor, triplets

import rsa_kernels as rk
from rsa_kernels.errors import CapacityError, NonFiniteError
from rsa_kernels.neighbors import DeviceList, device_build

pytestmark = pytest.mark.usefixtures("one_thread")

# --- the skin, decided on the device --------------------------------------------------------------------------------


def test_a_trajectory_of_many_updates():
    """Atoms diffuse and the cell changes; after every update the list is complete, and rebuilt only when it must be."""
    rng = np.random.default_rng(1)
    positions, cell = gas(), CELL
    neighbors = made(positions)
    expected = 0
    for step in range(60):
        change = torch.eye(3, dtype=torch.float64) + tensor(rng.normal(0, 0.001, (3, 3)))
        positions, cell = (positions + tensor(rng.normal(0, 0.02, positions.shape))) @ change, cell @ change
        used = rk.neighbors.op.used_skin_tensor(
            positions, neighbors.reference_positions, neighbors.batch_ptr, cell[None], neighbors.reference_cell, CUTOFF
        )
        with host_order(ORDERS[step % 3]):
            neighbors.update(positions, cell)
        seen = words(neighbors)
        assert device_used(seen) == pytest.approx(float(used), abs=1e-13)
        assert seen["REBUILD"] == int(used > SKIN)
        expected += seen["REBUILD"]
        assert neighbors.n_rebuilds == expected and float(neighbors.poison) == 0.0
        assert_holds_all(neighbors, positions, cell)
    assert 5 < expected < 40
    assert seen["UPDATES"] == 60 + 3  # three when the buffers were sized


def device_used(seen):
    return torch.tensor(seen["USED"]).view(torch.float64).item()


def test_a_good_list_is_not_touched():
    positions = gas()
    neighbors = made(positions)
    before = state(neighbors)
    reference = neighbors.reference_positions.clone()
    for by in (0.0, 0.1, -0.19, 0.199):
        neighbors.update(one_moved(positions, by), CELL)
    assert neighbors.n_rebuilds == 0
    assert all(torch.equal(one, two) for one, two in zip(state(neighbors), before, strict=True))
    assert torch.equal(neighbors.reference_positions, reference)
    neighbors.update(one_moved(positions, 0.201), CELL)
    assert neighbors.n_rebuilds == 1
    assert torch.equal(neighbors.reference_positions, one_moved(positions, 0.201))


def test_the_bound_on_the_skin_is_sharp():
    neighbors = DeviceList(tensor([[0.0, 0, 0], [3.0, 0, 0]]), torch.zeros(3, 3).double(), False, 2.0, skin=1.0)
    neighbors.update(tensor([[0.5, 0, 0], [2.5, 0, 0]]), torch.zeros(3, 3).double())
    assert neighbors.n_rebuilds == 0 and neighbors.snapshot().edge_index.shape[1] == 0
    neighbors.update(tensor([[0.501, 0, 0], [2.499, 0, 0]]), torch.zeros(3, 3).double())
    assert neighbors.n_rebuilds == 1 and neighbors.snapshot().edge_index.shape[1] == 2


def test_every_system_of_a_batch_counts():
    _, positions, cells, pbc, batch_ptr = batch_of(np.random.default_rng(2), (5, 0, 8))
    for atom in (1, 11):
        neighbors = DeviceList(positions, cells, pbc, 2.0, batch_ptr=batch_ptr, skin=0.4)
        moved = positions.clone()
        moved[atom, 0] += 0.19
        neighbors.update(moved, cells)
        assert neighbors.n_rebuilds == 0
        moved[atom, 0] += 0.02
        neighbors.update(moved, cells)
        assert neighbors.n_rebuilds == 1
        fresh = rk.neighbor_list(moved, cells, pbc, 2.4, batch_ptr=batch_ptr)
        assert_same_pairs(triplets(neighbors.snapshot()), triplets(fresh))
    changed = cells.clone()
    changed[2] *= 1.2
    neighbors.update(moved, changed)
    assert neighbors.n_rebuilds == 2


def test_without_skin_every_update_rebuilds():
    neighbors = made(skin=0.0)
    neighbors.update(gas(), CELL)
    neighbors.update(gas(), CELL)
    assert neighbors.n_rebuilds == 2
    assert_holds_all(neighbors, gas(), CELL)


def test_float32_and_strided_positions():
    wide = torch.zeros(150, 7, dtype=torch.float32)
    wide[:, 1:7:2] = gas()
    neighbors = made(wide[:, 1:7:2], CELL.float())
    assert neighbors.reference_positions.dtype == torch.float64
    again = compact_list(wide[:, 1:7:2].double().contiguous(), CELL.float().double(), True, CUTOFF + SKIN)
    assert_same_pairs(triplets(neighbors.snapshot()), triplets(again))
    neighbors.update(wide[:, 1:7:2], CELL.float())
    assert neighbors.n_rebuilds == 0


def test_a_restart_from_the_reference_gives_the_same_bits():
    neighbors = made()
    neighbors.update(gas(seed=3), CELL)
    assert neighbors.n_rebuilds == 1
    again = made(neighbors.reference_positions, neighbors.reference_cell)
    for one, two in zip(compact(neighbors), compact(again), strict=True):
        assert torch.equal(one, two)


def compact(neighbors):
    snapshot = neighbors.snapshot()
    return snapshot.rows, snapshot.columns, snapshot.owners, snapshot.image_shifts


# --- capacities -----------------------------------------------------------------------------------------------------


def test_buffers_are_a_quarter_larger_than_needed():
    neighbors = made()
    seen = words(neighbors)
    counts = neighbors.rows.diff()
    assert seen["LONGEST"] == int(counts.max()) and seen["IMAGES"] == neighbors.snapshot().owners.numel() - 150
    assert seen["IMAGES"] * 1.25 <= neighbors.max_images <= seen["IMAGES"] * 1.25 + 8
    assert seen["LONGEST"] * 1.25 <= neighbors.max_neighbors <= seen["LONGEST"] * 1.25 + 12
    assert neighbors.padded().shape == (neighbors.max_neighbors, 160)
    stated = 150 * 216 + 160 * 4 * neighbors.max_neighbors + 72 * neighbors.max_images + 4400
    assert 0.99 * stated < neighbors.n_bytes < 1.01 * stated


def test_padded_rows_end_with_an_entry_that_is_not_there():
    neighbors = made()
    counts, matrix = neighbors.rows.diff(), neighbors.padded()
    n_entries = neighbors.owners.numel()
    assert n_entries == 150 + neighbors.max_images
    listed = torch.arange(neighbors.max_neighbors)[:, None] < counts
    assert bool((matrix[:, :150][listed] < 150 + words(neighbors)["IMAGES"]).all())
    assert bool((matrix[:, :150][~listed] == n_entries).all())
    assert torch.equal(matrix[:, :150].t()[listed.t()], neighbors.columns)
    used = 150 + words(neighbors)["IMAGES"]
    assert used < n_entries and not neighbors.owners[used:].any() and not neighbors.image_shifts[used:].any()


OVERFLOWS = pytest.mark.parametrize(
    ("start", "then"),
    [
        (gas(), gas(spread=0.3)),  # rows grow too long
        (gas(spread=0.02) + 0.5 * CELL.sum(0), gas()),  # atoms spread out: more images
        (gas(), gas(spread=0.02)),  # both: a clump around a corner
    ],
)


@OVERFLOWS
def test_an_overflow_poisons_the_list_and_confirm_mends_it(start, then):
    neighbors = made(start)
    room = neighbors.max_images, neighbors.max_neighbors
    neighbors.update(then, CELL)
    assert math.isnan(float(neighbors.poison))
    assert torch.equal(neighbors.rows.diff(), torch.ones(150, dtype=torch.int64))
    assert torch.equal(neighbors.padded()[0, :150], torch.arange(150, dtype=torch.int32))
    assert bool((neighbors.padded()[1:, :150] == neighbors.owners.numel()).all())
    assert (neighbors.max_images, neighbors.max_neighbors) == room and neighbors.generation == 0
    assert not neighbors.confirm()
    assert neighbors.confirm()
    assert float(neighbors.poison) == 0.0 and neighbors.generation == 1
    assert neighbors.max_images > room[0] or neighbors.max_neighbors > room[1]
    assert_holds_all(neighbors, then, CELL)
    assert torch.equal(neighbors.reference_positions, then)
    assert triplets(neighbors.snapshot()).tolist() == triplets(made(then).snapshot()).tolist()


@OVERFLOWS
def test_an_overflow_is_seen_one_call_late(start, then):
    neighbors = made(start)
    neighbors.update(then, CELL)
    with pytest.raises(CapacityError, match=r"needed \d+ images and \d+ neighbours .* is NaN\. Larger buffers"):
        neighbors.update(then, CELL)
    neighbors.update(then, CELL)
    assert float(neighbors.poison) == 0.0
    assert_holds_all(neighbors, then, CELL)


def test_an_overflow_is_not_forgotten_when_the_next_list_fits():
    """Positions come back by themselves: the list is good again, but what was computed meanwhile was not."""
    neighbors = made()
    neighbors._buffers.stage(gas(spread=0.3), CELL)
    neighbors._buffers.update()
    assert math.isnan(float(neighbors.poison))
    neighbors._buffers.stage(gas(), CELL)
    neighbors._buffers.update()
    assert float(neighbors.poison) == 0.0
    assert not neighbors.confirm()
    assert_holds_all(neighbors, gas(), CELL)


def test_snapshot_of_a_poisoned_list_is_refused():
    neighbors = made()
    neighbors.update(gas(spread=0.3), CELL)
    with pytest.raises(CapacityError):
        neighbors.snapshot()
    assert_holds_all(neighbors, gas(spread=0.3), CELL)


def test_room_is_made_before_it_runs_out():
    """Compressed step by step, each a few per cent: buffers grow in time and nothing is ever lost."""
    positions = gas()
    neighbors = made(positions, skin=0.1)
    for step in range(60):
        scale = 1.0 - 0.006 * step
        neighbors.update(positions * scale, CELL * scale)
        assert float(neighbors.poison) == 0.0
        assert_holds_all(neighbors, positions * scale, CELL * scale)
    assert neighbors.generation >= 2
    assert neighbors.confirm()


# --- NaN ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["positions", "cell"])
def test_what_is_not_finite_poisons_and_leaves_the_list(bad, where):
    neighbors = made()
    before = state(neighbors)[:4]
    positions, cell = gas(), CELL.clone()
    (positions if where == "positions" else cell)[-1, 1] = bad
    neighbors.update(positions, cell)
    assert math.isnan(float(neighbors.poison)) and neighbors.n_rebuilds == 0
    assert all(torch.equal(one, two) for one, two in zip(state(neighbors)[:4], before, strict=True))
    with pytest.raises(NonFiniteError, match="`positions` or `cell`"):
        neighbors.update(gas(), CELL)
    neighbors.update(gas(), CELL)
    assert float(neighbors.poison) == 0.0 and neighbors.confirm()


@pytest.mark.parametrize("skin", [0.0, SKIN])
def test_confirm_sees_what_is_not_finite(skin):
    neighbors = made(skin=skin)
    neighbors.update(gas() * math.nan, CELL)
    assert math.isnan(float(neighbors.poison))
    with pytest.raises(NonFiniteError):
        neighbors.confirm()
    neighbors.update(gas(), CELL)
    assert neighbors.confirm()
    assert_holds_all(neighbors, gas(), CELL)


def test_absurdly_far_atoms_poison():
    neighbors = made()
    neighbors.update(one_moved(gas(), 1e12), CELL)
    assert math.isnan(float(neighbors.poison))
    with pytest.raises(NonFiniteError):
        neighbors.confirm()
    neighbors.update(gas(), CELL)
    assert neighbors.confirm()
    assert_holds_all(neighbors, gas(), CELL)


def test_a_singular_cell_poisons():
    neighbors = made()
    flat = CELL.clone()
    flat[2] = flat[0] + flat[1]
    missing = CELL.clone()
    missing[1] = 0.0
    for bad in (flat, missing):
        neighbors.update(gas(), bad)
        assert math.isnan(float(neighbors.poison))
        with pytest.raises(ValueError, match="`cell` is singular"):
            neighbors.look()
    neighbors.update(gas(), CELL)
    assert neighbors.confirm()


# --- arguments ------------------------------------------------------------------------------------------------------

GOOD = {"positions": gas(4), "cell": CELL, "pbc": True, "cutoff": 1.0}


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("positions", torch.zeros(4, 2, dtype=torch.float64), ValueError),
        ("positions", torch.zeros(4, 3, dtype=torch.int64), TypeError),
        ("positions", torch.full((4, 3), math.nan, dtype=torch.float64), NonFiniteError),
        ("cell", torch.zeros(3, 3, dtype=torch.float64), ValueError),
        ("cell", torch.eye(2, dtype=torch.float64), ValueError),
        ("cell", CELL * math.inf, NonFiniteError),
        ("pbc", [True, True], ValueError),
        ("cutoff", -1.0, ValueError),
        ("cutoff", 1e6, CapacityError),
        ("skin", math.nan, ValueError),
        ("batch_ptr", torch.tensor([0, 3]), ValueError),
    ],
)
def test_wrong_arguments_are_named(name, value, error):
    with pytest.raises(error, match=f"`{name}`"):
        DeviceList(**{**GOOD, name: value})


def test_update_refuses_other_atoms():
    neighbors = DeviceList(**GOOD)
    for other in (gas(3), gas(4)[:, :2]):
        with pytest.raises(ValueError, match="`positions` must have shape"):
            neighbors.update(other, CELL)
    with pytest.raises(ValueError, match="`cell` must have shape"):
        neighbors.update(gas(4), CELL.expand(2, 3, 3))
    with pytest.raises(TypeError, match="`positions`"):
        neighbors.update(gas(4).numpy(), CELL)


def test_half_edges_come_from_the_snapshot():
    half, full = made(half=True).snapshot(), made().snapshot()
    assert 2 * half.edge_index.shape[1] == full.edge_index.shape[1]
    assert torch.equal(half.columns, full.columns)


def test_a_list_of_no_atoms():
    none = DeviceList(gas(0), CELL, FULL_PBC, CUTOFF, skin=SKIN)
    none.update(gas(0), 1.01 * CELL)
    assert none.confirm() and none.rows.tolist() == [0] and none.snapshot().edge_index.shape == (2, 0)
    assert device_build.MAX_ENTRIES < 2**31 and "0 atoms" in repr(none)
