"""The contract of `DeviceList`: rebuilds decided on the device, capacities, poison, what a replayed graph would do.

The kernels run as loops on a CPU. A captured graph is a fixed sequence of kernels on fixed buffers, so replaying one is
modelled by running that sequence again.
"""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from device_lists import ORDERS, compact_list, host_order, state, words
from neighbor_cases import FULL_PBC, assert_same_pairs, batch_of, tensor, triplets

import rsa_kernels as rk
from rsa_kernels.errors import AtomsTooCloseError, CapacityError, NonFiniteError
from rsa_kernels.neighbors import DeviceList, device_build

pytestmark = pytest.mark.usefixtures("one_thread")

CUTOFF, SKIN = 3.0, 0.4
CELL = tensor([[9.0, 0, 0], [2.0, 8.0, 0], [-1.0, 1.5, 10.0]])


def gas(n_atoms=150, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    return tensor(rng.uniform(-1, 1, (n_atoms, 3)) * spread) @ CELL


def made(positions=None, cell=CELL, skin=SKIN, **options):
    return DeviceList(gas() if positions is None else positions, cell, True, CUTOFF, skin=skin, **options)


def one_moved(positions, by):
    moved = positions.clone()
    moved[3, 1] += by
    return moved


def assert_holds_all(neighbors, positions, cell):
    """Within the cutoff, the list holds exactly the pairs that a fresh one would."""
    inner = neighbors.snapshot().within(CUTOFF, positions, cell)
    assert_same_pairs(triplets(inner), triplets(rk.neighbor_list(positions, cell, True, CUTOFF)))


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


# --- a captured graph -----------------------------------------------------------------------------------------------


class Graph:
    """[update] captured: the same kernels on the same buffers, run whenever it is replayed."""

    def __init__(self, neighbors, positions, cell, monkeypatch):
        monkeypatch.setattr(DeviceList, "_is_capturing", lambda _: True)
        neighbors.update(positions, cell)
        monkeypatch.setattr(DeviceList, "_is_capturing", lambda _: False)
        buffers = neighbors._buffers

        def replay():
            buffers.stage(positions, cell)
            buffers.update()

        self.replay = replay


def test_replays_across_rebuilds(monkeypatch):
    rng = np.random.default_rng(6)
    positions, cell = gas().clone(), CELL.clone()
    neighbors = made(positions)
    graph = Graph(neighbors, positions, cell, monkeypatch)
    addresses = [tensor.data_ptr() for tensor in (neighbors.rows, neighbors.padded(), neighbors.owners)]
    for _ in range(50):
        positions += tensor(rng.normal(0, 0.02, positions.shape))
        cell *= 1.0 + rng.normal(0, 1e-4)
        graph.replay()
        assert not neighbors.look()
        assert_holds_all(neighbors, positions, cell)
    assert neighbors.n_rebuilds >= 4
    assert addresses == [tensor.data_ptr() for tensor in (neighbors.rows, neighbors.padded(), neighbors.owners)]


def test_a_stale_graph_poisons(monkeypatch):
    """Larger buffers are made: the graph on the old ones computes NaN, touches nothing else, and is found out."""
    positions, cell = gas().clone(), CELL.clone()
    neighbors = made(positions)
    graph = Graph(neighbors, positions, cell, monkeypatch)
    positions.copy_(gas(spread=0.3))
    graph.replay()
    assert not neighbors.look()  # one call late
    with pytest.raises(CapacityError, match="Larger buffers have been made"):
        neighbors.look()
    assert neighbors.generation == 1
    good = state(neighbors)
    graph.replay()
    assert math.isnan(float(neighbors.poison))
    assert all(torch.equal(one, two) for one, two in zip(state(neighbors)[:4], good[:4], strict=True))
    with pytest.raises(CapacityError, match="capture it again"):
        neighbors.confirm()
    again = Graph(neighbors, positions, cell, monkeypatch)
    again.replay()
    assert float(neighbors.poison) == 0.0 and neighbors.confirm()
    assert_holds_all(neighbors, positions, cell)


def test_look_says_when_to_capture_again(monkeypatch):
    positions, cell = gas().clone(), CELL.clone()
    neighbors = made(positions, skin=0.1)
    graph = Graph(neighbors, positions, cell, monkeypatch)
    captures = 1
    for step in range(100):
        scale = 1.0 - 0.004 * step
        positions.copy_(gas() * scale)
        cell.copy_(CELL * scale)
        graph.replay()
        assert float(neighbors.poison) == 0.0
        assert_holds_all(neighbors, positions, cell)
        if neighbors.look():
            graph = Graph(neighbors, positions, cell, monkeypatch)
            captures += 1
    assert captures >= 3 and captures == neighbors.generation + 1


def test_nothing_is_allocated_or_read_by_the_host_in_an_update(monkeypatch):
    """Between staging and the last scan only kernels and scans into given outputs run."""
    neighbors = made()
    moved = gas(seed=8)
    neighbors._buffers.stage(moved, CELL)

    def refuse(*_, **__):
        raise AssertionError("an update must not do this")

    for name in ("empty", "zeros", "full", "tensor", "cat"):
        monkeypatch.setattr(torch, name, refuse)
    for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "new_empty", "clone", "to"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    neighbors._buffers.update()
    monkeypatch.undo()
    assert neighbors.n_rebuilds == 1
    assert_holds_all(neighbors, moved, CELL)


# --- with the pair op -----------------------------------------------------------------------------------------------

TABLE = rk.pair.PairTable.from_functions(
    (18,), {(18, 18): lambda r: 5.0 * torch.exp(-r) * (1 - r / CUTOFF) ** 3}, r_min=0.2, cutoff=CUTOFF
)
NUMBERS = torch.full((150,), 18)


def lattice():
    """A shaken simple-cubic lattice in CELL: nobody is close to anybody."""
    rng = np.random.default_rng(9)
    sites = torch.cartesian_prod(torch.arange(5) / 5, torch.arange(5) / 5, torch.arange(6) / 6).double()
    return (sites + tensor(rng.uniform(-0.02, 0.02, (150, 3)))) @ CELL


def test_pair_energies_forces_and_derivatives():
    positions = lattice()
    device, host = made(positions), rk.neighbor_list(positions, CELL, True, CUTOFF, skin=SKIN)
    for one, two in zip(
        rk.pair.evaluate(TABLE, positions, CELL, NUMBERS, device, per_atom_energy=True),
        rk.pair.evaluate(TABLE, positions, CELL, NUMBERS, host, per_atom_energy=True),
        strict=True,
    ):
        torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-11)  # other order of sums of 70 terms
    inputs = positions[:8].clone().requires_grad_(), (CELL * 1.0).requires_grad_()
    few = DeviceList(inputs[0], CELL, True, CUTOFF)

    def energy(r, h):
        return rk.pair.energy(TABLE, r, h, NUMBERS[:8], few)

    assert torch.autograd.gradcheck(energy, inputs)
    assert torch.autograd.gradgradcheck(energy, inputs, atol=1e-4)


def test_a_poisoned_list_gives_no_forces():
    """An error on a CPU, which looks at once; the same list without `poison` still meets atoms at distance zero."""
    positions = lattice()
    neighbors = made(positions)
    packed = 0.6 * positions
    neighbors.update(packed, 0.6 * CELL)
    assert math.isnan(float(neighbors.poison))
    with pytest.raises(NonFiniteError):
        rk.pair.evaluate(TABLE, packed, 0.6 * CELL, NUMBERS, neighbors)
    neighbors._state.poison.zero_()
    with pytest.raises(AtomsTooCloseError):
        rk.pair.evaluate(TABLE, packed, 0.6 * CELL, NUMBERS, neighbors)


def test_a_backward_after_an_update_is_refused():
    """The buffers a forward has read are overwritten: autograd notices."""
    positions = lattice().requires_grad_()
    neighbors = made(positions)
    energy = rk.pair.energy(TABLE, positions, CELL, NUMBERS, neighbors).sum()
    neighbors.update(positions.detach() + 0.5, CELL)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        energy.backward()


INTERPRETED = """
import sys, torch
sys.path[:0] = ["tests"]
import test_neighbors_device_list as cases
import rsa_kernels as rk
from rsa_kernels.pair import kernels, op

def interpreted(neighbors, positions, cell):
    arguments = list(op._arguments(cases.TABLE, positions, cell, cases.NUMBERS[:9], neighbors))
    arguments[10] = neighbors.padded()
    return (*kernels.evaluate_cuda(*arguments, True, True, True), kernels.energy_cuda(*arguments))

positions = cases.lattice()[::16][:9]
neighbors = cases.made(positions)
atoms, energy, force, virial, closest, differentiable = interpreted(neighbors, positions, cases.CELL)
wanted = rk.pair.evaluate(cases.TABLE, positions, cases.CELL, cases.NUMBERS[:9], neighbors, per_atom_energy=True)
for one, two in zip((energy, force, virial, atoms, closest), wanted, strict=True):
    torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)
torch.testing.assert_close(differentiable, atoms)

neighbors.update(0.4 * positions, 0.4 * cases.CELL)
for poison in (float("nan"), 0.0):  # by the cell, and by atoms that are their own neighbours
    neighbors._state.poison.fill_(poison)
    _, _, force, virial, closest, differentiable = interpreted(neighbors, 0.4 * positions, 0.4 * cases.CELL)
    for result in (force, virial, closest, differentiable):
        assert bool(result.isnan().all()), (poison, result)
print("passed")
"""


def test_the_gpu_pair_kernels_read_it_and_turn_poison_into_nan():
    """Under Triton's interpreter, which has to be chosen before Triton is imported."""
    pytest.importorskip("triton")
    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED], capture_output=True, text=True, cwd=root, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "passed\n"


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
