"""Learned potentials in MD: forces and stress are derivatives, every way in gives the same, runs resume bit by bit."""

import numpy as np
import pytest
import torch
from learned_systems import LONG_RANGE, glass, network

import rsa_kernels as rk
from rsa_kernels.errors import AtomsTooCloseError
from silica_md import models
from silica_md.forcefield import ForceField
from silica_md.integrators import VelocityVerlet
from silica_md.potentials import LearnedPotential, SumPotential

pytest.importorskip("mace")
DOUBLE = torch.float64


def neighbors_of(state, cutoff=4.0, skin=0.0):
    return rk.neighbor_list(state.positions, state.cell, state.pbc, cutoff, skin=skin)


def evaluate(potential, state, skin=0.0, **asked):
    return potential.evaluate(state, neighbors_of(state, potential.cutoff, skin), **asked)


def energy(potential, state):
    return float(evaluate(potential, state, virial=False).energy)


def as_data(state, cutoff=4.0, numbers=(8, 14), dtype=DOUBLE):
    """The batch of one that `mace.data.AtomicData` would make."""
    found = neighbors_of(state, cutoff)
    shifts = found.unit_shifts.to(dtype)
    return {
        "positions": state.positions.to(dtype, copy=True),
        "cell": state.cell.to(dtype, copy=True),
        "unit_shifts": shifts,
        "shifts": shifts @ state.cell.to(dtype),
        "edge_index": found.edge_index,
        "node_attrs": (state.atomic_numbers.unsqueeze(1) == torch.tensor(numbers)).to(dtype),
        "batch": torch.zeros(state.n_atoms, dtype=torch.int64),
        "ptr": torch.tensor([0, state.n_atoms]),
        "pbc": state.pbc,
    }


@pytest.mark.parametrize("kind", LONG_RANGE)
def test_forces_and_virial_are_derivatives_and_those_of_the_model(kind):
    """In float64: central differences of 1e-4 Å are good to 1e-8 here, the model's own forward to rounding."""
    state = glass(96, sheared=False) if kind == "published rsa" else glass()
    potential = LearnedPotential(network(kind))
    result = evaluate(potential, state, skin=0.7, per_atom_energy=True)
    generator = torch.Generator().manual_seed(0)
    h = 1e-4
    direction = torch.randn(state.positions.shape, generator=generator, dtype=DOUBLE)
    up, down = (energy(potential, state.at(state.positions + s * h * direction)) for s in (1, -1))
    slope = float((result.forces * direction).sum())
    assert abs(slope) > 0.03
    assert -(up - down) / (2 * h) == pytest.approx(slope, abs=1e-6)

    strain = torch.randn(3, 3, generator=generator, dtype=DOUBLE)
    strain = strain + strain.T
    if kind == "published rsa":
        strain = strain[0, 0] * torch.eye(3, dtype=DOUBLE)  # of a cube it has other waves than of a box nearly cubic

    def strained(s):
        deformation = torch.eye(3, dtype=DOUBLE) + s * h * strain
        return energy(potential, state.at(state.positions @ deformation, state.cell @ deformation))

    slope = float((result.virial * strain).sum())
    assert abs(slope) > 0.1
    assert -(strained(1) - strained(-1)) / (2 * h) == pytest.approx(slope, abs=1e-5)
    torch.testing.assert_close(result.virial, result.virial.T, rtol=0, atol=0)

    own = network(kind)(as_data(state), compute_virials=True)
    torch.testing.assert_close(result.energy, own["energy"][0].detach(), rtol=1e-13, atol=1e-11)
    torch.testing.assert_close(result.per_atom_energy, own["node_energy"].detach(), rtol=1e-13, atol=1e-11)
    torch.testing.assert_close(result.forces, own["forces"], rtol=0, atol=1e-11)
    torch.testing.assert_close(result.virial, own["virials"][0], rtol=0, atol=1e-10)
    assert float(result.per_atom_energy.sum()) == pytest.approx(float(result.energy), rel=1e-14)


@pytest.mark.parametrize("kind", ["sr", "rsa", "sog"])
def test_float32_is_float64_to_what_it_resolves(kind):
    state = glass()
    single, double = LearnedPotential(network(kind, torch.float32)), LearnedPotential(network(kind))
    one, other = evaluate(single, state), evaluate(double, state)
    assert one.forces.dtype == one.energy.dtype == one.virial.dtype == DOUBLE
    largest = float(other.forces.abs().max())
    assert 0.0 < float((one.forces - other.forces).abs().max()) < 2e-5 * largest
    assert float(one.energy) == pytest.approx(float(other.energy), abs=1e-4)
    torch.testing.assert_close(one.virial, other.virial, rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", ["sr", "rsa"])
def test_a_verlet_list_is_a_fresh_list(kind):
    """Along a run at 600 K that uses up the skin more than once, and in a list as long as that of another potential."""
    state, potential = glass(48), LearnedPotential(network(kind))
    field, integrator = ForceField(potential, skin=0.15), VelocityVerlet(2.0)
    field.evaluate(state)
    long = rk.neighbor_list(state.positions, state.cell, state.pbc, 7.0, skin=0.5)
    for _ in range(40):
        got = integrator.step(state, field, energy=True, virial=True)
        long.update(state.positions, state.cell)
        fresh, far = evaluate(potential, state), LearnedPotential.evaluate(potential, state, long)
        for one in (got, far):
            for value, expected in zip(one[:3], fresh[:3], strict=True):
                torch.testing.assert_close(value, expected, rtol=1e-13, atol=1e-11)
    assert field.neighbors.n_rebuilds > 1


def test_what_is_kept_follows_the_atoms():
    """Another tensor of elements, the same one written to, another number of atoms: never those of before."""
    potential, state = LearnedPotential(network("rsa")), glass(24)
    before = energy(potential, state)
    state.atomic_numbers.copy_(state.atomic_numbers.flip(0))
    flipped = energy(potential, state)
    assert abs(flipped - before) > 0.01
    assert flipped == energy(LearnedPotential(network("rsa")), state)
    assert energy(potential, glass(30)) == energy(LearnedPotential(network("rsa")), glass(30))
    assert energy(potential, glass(24)) == before


def test_sums_and_isolated_atoms():
    state = glass()
    one, two = LearnedPotential(network("sr")), LearnedPotential(network("rsa", r_max=3.0))
    total = evaluate(SumPotential([one, two]), state, per_atom_energy=True)
    for place in range(4):
        parts = [evaluate(one, state, per_atom_energy=True)[place], evaluate(two, state, per_atom_energy=True)[place]]
        torch.testing.assert_close(total[place], parts[0] + parts[1], rtol=1e-13, atol=1e-11)
    alone = glass(24, sheared=False)
    alone = alone.at(10.0 * alone.positions, 10.0 * alone.cell)
    result = evaluate(one, alone)
    assert float(result.forces.abs().max()) == float(result.virial.abs().max()) == 0.0


def test_a_model_in_training_stays_in_training():
    """It is copied; a frozen one is not."""
    mine, state = models.build(network("sr").config), glass()
    potential = LearnedPotential(mine)
    before = energy(potential, state)
    assert mine.training and all(one.requires_grad and one.grad is None for one in mine.parameters())
    with torch.no_grad():
        for one in mine.parameters():
            one.mul_(1.1)
    assert energy(potential, state) == before != energy(LearnedPotential(mine), state)
    assert LearnedPotential(network("sr")).evaluator.network is network("sr")


def test_energy_is_conserved():
    """Along 100 fs with 26 meV an atom going to and fro: to 3 µeV at 1 fs, four times as well at half the step.

    That the error is that of the time step, and goes as its square, says that forces are the derivative of the energy,
    rebuilt lists and all; 1.5 µeV were measured.
    """
    strayed = {}
    for timestep in (2.0, 1.0):
        state, field = glass(24), ForceField(LearnedPotential(network("rsa")), skin=0.5)
        integrator, rows = VelocityVerlet(timestep), []
        for _ in range(round(100 / timestep)):
            evaluation = integrator.step(state, field, energy=True)
            rows.append((float(evaluation.energy), float(state.kinetic_energy())))
        potential, kinetic = np.array(rows).T / state.n_atoms
        assert np.ptp(kinetic) > 0.02 and field.neighbors.n_rebuilds > 2
        strayed[timestep] = np.ptp(potential + kinetic)
    assert strayed[1.0] < 3e-6
    assert strayed[2.0] == pytest.approx(4.0 * strayed[1.0], rel=0.1)


def test_refusals():
    state = glass()
    potential = LearnedPotential(network("rsa"))
    with pytest.raises(ValueError, match="does not know Na; its elements are O, Si"):
        potential.check_composition([8, 11])
    sodium = state.at(state.positions)
    sodium.atomic_numbers = torch.where(state.atomic_numbers == 14, 11, state.atomic_numbers)
    with pytest.raises(ValueError, match="does not know Na"):
        evaluate(potential, sodium)
    open_state = state.at(state.positions)
    open_state.pbc = torch.tensor([True, True, False])
    with pytest.raises(ValueError, match=r"`pbc` must be True in every direction .* got \[True, True, False\]"):
        evaluate(potential, open_state)
    evaluate(LearnedPotential(network("sr")), open_state)  # which is what a short-range model is for
    with pytest.raises(ValueError, match=r"the cell is 3\.\d\d Å thin, less than the 4 Å cutoff"):
        potential.check_start(0.5 * state.cell, state.pbc)
    potential.check_start(state.cell, state.pbc)
    close = state.positions.clone()
    close[1] = close[0] + torch.tensor([0.3, 0.0, 0.0])
    with pytest.raises(AtomsTooCloseError, match=r"0\.300 Å apart"):
        evaluate(potential, state.at(close))
    with pytest.raises(ValueError, match="`head` must be one of Default, got 'dft'"):
        LearnedPotential(network("sr"), head="dft")


def test_heads_answer_each_for_itself():
    """Two heads: one has to be named, and each has energies and forces of its own, as in the model's own forward."""
    two = {"heads": ("pbe", "scan"), "atomic_energies": ((-3.0, -1.5), (-4.0, -1.0))}
    model, state = network("sr", **two, scale=(4.0, 3.0), shift=(0.0, 0.1)), glass()
    with pytest.raises(ValueError, match="`head` must be given, the model has several: pbe, scan"):
        LearnedPotential(model)
    for number, head in enumerate(two["heads"]):
        result = evaluate(LearnedPotential(model, head=head), state)
        own = model(as_data(state) | {"head": torch.tensor([number])})
        assert float(result.energy) == pytest.approx(float(own["energy"].detach()), abs=1e-10)
        torch.testing.assert_close(result.forces, own["forces"], rtol=0, atol=1e-11)
