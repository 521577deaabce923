"""A state's sums, units and conversions."""

import ase.build
import numpy as np
import pytest
import torch
from ase import units
from toy_systems import argon, gas

from rsa_kernels.units import BOLTZMANN
from silica_md.state import State


def test_ase_round_trip_keeps_everything():
    atoms = ase.build.bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.set_velocities(np.random.default_rng(0).normal(size=(8, 3)))
    atoms.pbc = [True, False, True]
    back = State.from_ase(atoms).to_ase()
    assert (back.numbers == atoms.numbers).all()
    assert (back.pbc == atoms.pbc).all()
    for name in ("positions", "cell"):
        np.testing.assert_array_equal(getattr(back, name), getattr(atoms, name))
    np.testing.assert_allclose(back.get_velocities(), atoms.get_velocities(), rtol=1e-14)


def test_energies_and_density_agree_with_ase():
    atoms = ase.build.bulk("Ar", "fcc", a=5.3, cubic=True) * (2, 2, 2)
    atoms.set_velocities(np.random.default_rng(0).normal(size=(32, 3)) * 0.01)
    state = State.from_ase(atoms)
    assert float(state.kinetic_energy()) == pytest.approx(atoms.get_kinetic_energy(), rel=1e-8)
    assert float(state.kinetic_tensor().trace()) == pytest.approx(2 * atoms.get_kinetic_energy(), rel=1e-8)
    assert float(state.temperature(3 * 32)) == pytest.approx(atoms.get_temperature(), rel=1e-6)
    density = atoms.get_masses().sum() / atoms.get_volume() / (units.kg / 1000) * units.m**3 / 1e6
    assert float(state.density()) == pytest.approx(density, rel=1e-6)


def test_to_ase_is_in_the_order_of_the_ids():
    state = argon(2)
    state.global_ids = state.global_ids.flip(0)
    np.testing.assert_array_equal(state.to_ase().positions, state.positions.flip(0).numpy())


def test_wrapping_is_only_for_people():
    state = argon(2)
    state.positions += 100.0
    assert (state.to_ase(wrap=True).get_scaled_positions(wrap=False) < 1.0).all()
    assert state.to_ase().positions.min() > 99.0


def test_thermal_velocities():
    state = argon(4, krypton=True)
    state.thermalize(300.0, seed=4)
    assert float(state.temperature()) == pytest.approx(300.0, rel=1e-12)
    assert float(state.momentum().abs().max()) < 1e-12
    first = state.velocities.clone()
    state.thermalize(300.0, seed=4)
    assert torch.equal(state.velocities, first)
    state.thermalize(300.0, seed=5)
    assert not torch.equal(state.velocities, first)
    lighter = state.masses < 50
    for chosen in (lighter, ~lighter):
        energy = 0.5 * state.masses[chosen] @ state.velocities[chosen].square().sum(1) / 9.648533212331002e-3
        expected = 1.5 * BOLTZMANN * 300.0 * int(chosen.sum())
        assert float(energy) == pytest.approx(expected, rel=4 * (2 / (3 * int(chosen.sum()))) ** 0.5)


def test_clone_shares_nothing():
    state = argon(2)
    copy = state.clone()
    copy.positions += 1.0
    copy.cell *= 2.0
    assert not torch.equal(state.positions, copy.positions)
    assert float(state.volume() * 8) == pytest.approx(float(copy.volume()))


def test_pressure_of_a_gas():
    state = gas(500, 50.0, 300.0)
    pressure = state.pressure(torch.zeros(3, 3, dtype=torch.float64))
    expected = 499 * BOLTZMANN * 300.0 / 50.0**3  # the centre of mass is at rest
    assert float(pressure.trace()) / 3 == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("positions", torch.zeros(3, 2, dtype=torch.float64), ValueError),
        ("velocities", torch.zeros(2, 3, dtype=torch.float64), ValueError),
        ("cell", torch.zeros(3, 2, dtype=torch.float64), ValueError),
        ("masses", torch.zeros(3), TypeError),
        ("atomic_numbers", torch.zeros(3, dtype=torch.int32), TypeError),
        ("pbc", torch.zeros(3, dtype=torch.int64), TypeError),
    ],
)
def test_wrong_fields_are_named(name, value, error):
    good = gas(3)
    with pytest.raises(error, match=f"`{name}`"):
        State(**{**vars(good), name: value})
