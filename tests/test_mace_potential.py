"""Learned potentials in MD: forces and stress are derivatives, every way in gives the same, runs resume bit by bit."""

import numpy as np
import pytest
import torch
from learned_systems import LONG_RANGE, glass, network

import rsa_kernels as rk
from rsa_kernels.errors import AtomsTooCloseError
from silica_md.ase import Calculator
from silica_md.forcefield import ForceField
from silica_md.integrators import VelocityVerlet
from silica_md.potentials import LearnedPotential, SumPotential, build

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
