"""`DeviceList` inside a step: what a replayed graph would do, and with the pair op, poisoned or not.

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
from device_lists import CELL, CUTOFF, SKIN, assert_holds_all, gas, made, state
from neighbor_cases import tensor

import rsa_kernels as rk
from rsa_kernels.errors import AtomsTooCloseError, CapacityError, NonFiniteError
from rsa_kernels.neighbors import DeviceList

pytestmark = pytest.mark.usefixtures("one_thread")


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
import test_neighbors_device_steps as cases
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
