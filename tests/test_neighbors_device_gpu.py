"""Neighbour lists on a GPU: the pairs of the list for CPUs, captured and replayed updates, overflow and regrowth."""

import functools
import math

import numpy as np
import pytest
import torch
from device_lists import state
from neighbor_cases import SHAPES, assert_same_pairs, batch_of, random_case, tensor, triplets
from neighbor_fuzz import check
from neighbor_fuzz import random_case as fuzzed_case

import rsa_kernels as rk
from rsa_kernels.errors import CapacityError, LostNeighborError, NonFiniteError
from rsa_kernels.neighbors import DeviceList

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]

CUTOFF, SKIN = 5.0, 0.5
NUMBERS = 18


def silica_like(n_atoms=3000, seed=0):
    """A shaken lattice at silica's density, 0.066 Å⁻³, in a triclinic cell; nobody is close to anybody."""
    rng = np.random.default_rng(seed)
    per_edge = round(n_atoms ** (1 / 3) + 0.499)
    sites = torch.cartesian_prod(*[torch.arange(per_edge, dtype=torch.float64) / per_edge] * 3)[:n_atoms]
    length = (n_atoms / 0.066) ** (1 / 3)
    cell = length * tensor([[1.0, 0, 0], [0.1, 1.0, 0], [-0.2, 0.1, 1.0]])
    return (sites + tensor(rng.uniform(-0.1, 0.1, (len(sites), 3))) / per_edge) @ cell, cell


def on_gpu(*tensors):
    return tuple(x.cuda() for x in tensors)


def host_triplets(nl):
    return triplets(
        rk.NeighborList.of_rows(
            tuple(x.cpu() for x in (nl.rows, nl.columns, nl.owners, nl.image_shifts)),
            nl.reference_positions.cpu(),
            nl._reference_cells.cpu(),
            nl.pbc.cpu(),
            nl.cutoff,
            nl.batch_ptr.cpu(),
            nl.half,
            nl.skin,
        )
    )


def build_on_gpu(positions, cells, pbc, cutoff, batch_ptr, half):
    positions, cells, pbc, batch_ptr = on_gpu(positions, cells, pbc, batch_ptr)
    if half:
        return rk.neighbor_list(positions, cells, pbc, cutoff, batch_ptr=batch_ptr, half=True)
    return DeviceList(positions, cells, pbc, cutoff, batch_ptr=batch_ptr).snapshot()


# --- the same pairs -------------------------------------------------------------------------------------------------


def test_random_cases():
    assert sum(check(build_on_gpu, fuzzed_case(seed)) for seed in range(200)) > 100_000


@pytest.mark.parametrize("shape", SHAPES)
def test_edges_are_those_of_the_list_for_cpus(shape):
    rng = np.random.default_rng(SHAPES.index(shape))
    for _ in range(50):
        positions, cell, pbc, cutoff = random_case(rng, shape)
        for half in (False, True):
            ours = rk.neighbor_list(*on_gpu(tensor(positions), tensor(cell)), pbc.tolist(), cutoff, half=half)
            wanted = rk.neighbor_list(tensor(positions), tensor(cell), pbc.tolist(), cutoff, half=half)
            assert torch.equal(ours.edge_index.cpu(), wanted.edge_index)
            assert torch.equal(ours.unit_shifts.cpu(), wanted.unit_shifts)
            assert torch.equal(ours.row_ptr.cpu(), wanted.row_ptr)
            assert all(torch.equal(a.cpu(), b) for a, b in zip(ours.matrix(), wanted.matrix(), strict=True))
            assert_same_pairs(host_triplets(ours), triplets(wanted))


@pytest.mark.parametrize("n_atoms", [3000, 192_000])
@pytest.mark.parametrize("pbc", [True, (True, False, True)])
def test_large_systems(n_atoms, pbc):
    positions, cell = silica_like(n_atoms)
    ours = rk.neighbor_list(*on_gpu(positions, cell), pbc, CUTOFF, skin=SKIN)
    wanted = rk.neighbor_list(positions, cell, pbc, CUTOFF, skin=SKIN)
    assert torch.equal(ours.edge_index.cpu(), wanted.edge_index)
    assert torch.equal(ours.unit_shifts.cpu(), wanted.unit_shifts)
    inner, inner_wanted = ours.within(4.0), wanted.within(4.0)
    assert torch.equal(inner.edge_index.cpu(), inner_wanted.edge_index)
    fixed = DeviceList(*on_gpu(positions, cell), pbc, CUTOFF, skin=SKIN).snapshot()
    assert torch.equal(fixed.edge_index.cpu(), wanted.edge_index)


def test_the_host_loops_give_the_same_bits():
    """Rows, matrix, owners and shifts: what the loops on a CPU give is what the kernels give."""
    positions, cell = silica_like()
    ours, loops = DeviceList(*on_gpu(positions, cell), True, CUTOFF), DeviceList(positions, cell, True, CUTOFF)
    assert all(torch.equal(one.cpu(), two) for one, two in zip(state(ours), state(loops), strict=True))


def test_two_builds_give_the_same_bits():
    positions, cell = on_gpu(*silica_like(192_000))
    first = state(DeviceList(positions, cell, True, CUTOFF))
    for _ in range(5):
        again = state(DeviceList(positions, cell, True, CUTOFF))
        assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))


def test_batches():
    _, positions, cells, pbc, batch_ptr = batch_of(np.random.default_rng(1), (12, 0, 33, 1, 0, 7) * 20)
    ours = rk.neighbor_list(*on_gpu(positions, cells, pbc), 2.0, batch_ptr=batch_ptr.cuda())
    wanted = rk.neighbor_list(positions, cells, pbc, 2.0, batch_ptr=batch_ptr)
    assert torch.equal(ours.edge_index.cpu(), wanted.edge_index)
    assert torch.equal(ours.unit_shifts.cpu(), wanted.unit_shifts)


def test_faults():
    positions, cell = on_gpu(*silica_like())
    broken = positions.clone()
    broken[17, 2] = math.nan
    with pytest.raises(NonFiniteError, match="`positions`"):
        rk.neighbor_list(broken, cell, True, CUTOFF)
    with pytest.raises(CapacityError, match="`cutoff`"):
        rk.neighbor_list(positions, cell, True, 1e6)
    neighbors = DeviceList(positions, cell, True, CUTOFF, skin=SKIN)
    neighbors.update(broken, cell)
    assert math.isnan(float(neighbors.poison))
    with pytest.raises(NonFiniteError):
        neighbors.update(positions, cell)
    neighbors.update(positions, cell)
    assert neighbors.confirm() and float(neighbors.poison) == 0.0


def test_the_skin_one_call_late():
    """`NeighborList` on a GPU: rebuilt one call after most of the skin is used up, an error after all of it."""
    positions, cell = on_gpu(*silica_like())
    neighbors = rk.neighbor_list(positions, cell, True, CUTOFF, skin=SKIN)
    rebuilt = []
    for _ in range(6):
        positions[0, 0] += 0.11 * SKIN
        rebuilt.append(neighbors.update(positions, cell))
    assert rebuilt == [False, False, False, False, True, False]
    wanted = rk.neighbor_list(positions.cpu(), cell.cpu(), True, CUTOFF)
    assert_same_pairs(host_triplets(neighbors.within(CUTOFF, positions, cell)), triplets(wanted))
    positions[0, 0] += SKIN
    neighbors.update(positions, cell)
    with pytest.raises(LostNeighborError):
        neighbors.confirm()


# --- DeviceList -----------------------------------------------------------------------------------------------------


def test_an_update_waits_for_nothing():
    positions, cell = on_gpu(*silica_like())
    neighbors = DeviceList(positions, cell, True, CUTOFF, skin=SKIN)
    neighbors.update(positions, cell)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(10):
            positions.add_(torch.randn_like(positions), alpha=0.05)
            neighbors.update(positions, cell)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert neighbors.confirm() and neighbors.n_rebuilds > 0
    wanted = rk.neighbor_list(positions.cpu(), cell.cpu(), True, CUTOFF)
    assert_same_pairs(host_triplets(neighbors.snapshot().within(CUTOFF, positions, cell)), triplets(wanted))


@functools.cache
def pair_table():
    return rk.pair.PairTable.from_functions(
        (NUMBERS,),
        {(NUMBERS, NUMBERS): lambda r: 5.0 * torch.exp(-r) * (1 - r / CUTOFF) ** 3},
        r_min=0.2,
        cutoff=CUTOFF,
    )


class Step:
    """[drift, update, forces] on fixed tensors, captured in a graph."""

    def __init__(self, positions, cell, neighbors):
        self.positions, self.cell, self.neighbors = positions, cell, neighbors
        self.velocities = torch.zeros_like(positions)
        self.numbers = torch.full((len(positions),), NUMBERS, device=positions.device)
        self.table = pair_table().to(positions.device)
        self.run()  # compiles what is still to be compiled
        self.capture()

    def run(self):
        self.positions += self.velocities
        self.neighbors.update(self.positions, self.cell)
        self.result = rk.pair.evaluate(self.table, self.positions, self.cell, self.numbers, self.neighbors)

    def capture(self):
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.run()

    def check(self):
        """Forces, energy and virial of the last replay against a list made afresh on the host."""
        positions, cell = self.positions.cpu(), self.cell.cpu()
        wanted = rk.pair.evaluate(
            pair_table(), positions, cell, self.numbers.cpu(), rk.neighbor_list(positions, cell, True, CUTOFF)
        )
        for one, two in zip(self.result, wanted, strict=True):
            if two is not None:
                torch.testing.assert_close(one.cpu(), two, rtol=1e-9, atol=1e-9)


def test_replays_across_rebuilds():
    positions, cell = on_gpu(*silica_like())
    step = Step(positions, cell, DeviceList(positions, cell, True, CUTOFF, skin=SKIN))
    for replay in range(40):
        step.velocities.normal_(0.0, 0.03)
        step.graph.replay()
        assert not step.neighbors.look()
        if replay % 5 == 0:
            step.check()
    step.check()
    assert step.neighbors.n_rebuilds > 3 and step.neighbors.confirm()


def test_an_overflow_in_a_replay_gives_nan_and_a_new_graph_goes_on():
    positions, cell = on_gpu(*silica_like())
    start = positions.clone()
    neighbors = DeviceList(positions, cell, True, CUTOFF, skin=SKIN)
    step = Step(positions, cell, neighbors)
    positions.copy_(0.6 * start)
    cell.mul_(0.6)
    step.graph.replay()
    assert math.isnan(float(neighbors.poison))
    assert bool(step.result.forces.isnan().all()) and bool(step.result.energy.isnan().all())
    assert not neighbors.confirm()
    old = step.graph
    step.run()
    step.capture()
    step.graph.replay()
    step.check()
    assert neighbors.confirm()
    before = state(neighbors)[:4]
    old.replay()  # on the buffers it was captured with
    assert math.isnan(float(neighbors.poison))
    with pytest.raises(CapacityError, match="capture it again"):
        neighbors.confirm()
    assert all(torch.equal(one, two) for one, two in zip(state(neighbors)[:4], before, strict=True))
    step.graph.replay()
    step.check()


def test_an_overflow_outside_a_graph_is_seen_one_call_late():
    positions, cell = on_gpu(*silica_like())
    neighbors = DeviceList(positions, cell, True, CUTOFF, skin=SKIN)
    packed = 0.6 * positions, 0.6 * cell
    neighbors.update(*packed)
    assert math.isnan(float(neighbors.poison))
    with pytest.raises(CapacityError, match="Larger buffers have been made"):
        neighbors.update(*packed)
    neighbors.update(*packed)
    wanted = rk.neighbor_list(*(x.cpu() for x in packed), True, CUTOFF + SKIN)
    assert_same_pairs(host_triplets(neighbors.snapshot()), triplets(wanted))


def test_memory_of_a_million_atoms():
    """Peak memory of a list and its edges at 5 Å; the target is 3 GB."""
    positions, cell = on_gpu(*silica_like(1_000_000))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    listed = rk.neighbor_list(positions, cell, True, CUTOFF)
    assert torch.cuda.max_memory_allocated() - before < 1.0e9
    assert listed.edge_index.shape[1] > 30_000_000
    assert torch.cuda.max_memory_allocated() - before < 3.0e9
    del listed
    torch.cuda.reset_peak_memory_stats()
    fixed = DeviceList(positions, cell, True, CUTOFF)
    assert torch.cuda.max_memory_allocated() - before < 1.5e9
    assert fixed.n_bytes < 0.8e9
