"""The ASE calculator: consistency of what it returns, list reuse, relaxation and MD by ASE, wrong use."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from test_potentials import quartz

from silica_md import potentials
from silica_md.ase import Calculator


def test_forces_and_stress_are_derivatives_of_the_energy():
    atoms = quartz()
    atoms.calc = Calculator("shik")
    np.testing.assert_allclose(
        atoms.get_forces()[:3], calculate_numerical_forces(atoms, eps=1e-4, iatoms=range(3)), atol=2e-6
    )
    np.testing.assert_allclose(atoms.get_stress(), calculate_numerical_stress(atoms, eps=1e-5), atol=1e-7)


def test_energies_add_up():
    atoms = quartz()
    atoms.calc = Calculator("bks", alpha=0.25, cutoff=8.0)
    energy = atoms.get_potential_energy()
    assert atoms.get_potential_energies().sum() == pytest.approx(energy, rel=1e-13)
    assert atoms.get_potential_energy(force_consistent=True) == energy
    assert atoms.calc.potential.cutoff == 8.0


def test_relaxes_alpha_quartz():
    atoms = quartz()
    atoms.calc = Calculator("shik")
    optimizer = BFGS(FrechetCellFilter(atoms), logfile=None)
    assert optimizer.run(fmax=0.01, steps=200)
    bonds = np.sort(atoms.get_all_distances(mic=True)[:3, 3:], axis=1)[:, :4]
    assert bonds.min() > 1.58 and bonds.max() < 1.66
    assert 2.3 < atoms.get_masses().sum() / atoms.get_volume() * 1.66053906660 < 2.9
    assert np.abs(atoms.get_stress()).max() < 0.01 / 9


def test_md_conserves_energy_and_reuses_the_list():
    atoms = quartz((2, 2, 2), rattle=0.0)
    atoms.calc = Calculator("shik", skin=1.0)
    momenta = np.random.default_rng(5).normal(size=(len(atoms), 3))
    atoms.set_momenta(momenta * np.sqrt(600 * units.kB * atoms.get_masses())[:, None])
    start = atoms.get_total_energy()
    neighbors = atoms.calc.neighbors
    VelocityVerlet(atoms, 1.0 * units.fs).run(100)
    assert atoms.calc.neighbors is neighbors
    assert neighbors.n_rebuilds < 20
    assert atoms.get_total_energy() == pytest.approx(start, abs=2e-4 * len(atoms))
    fresh = atoms.copy()
    fresh.calc = Calculator("shik", skin=0.0)
    np.testing.assert_allclose(fresh.get_forces(), atoms.get_forces(), atol=1e-10)


def test_follows_the_atoms():
    """Composition, periodicity and number of atoms change between calls; the cached list must not survive."""
    calculator = Calculator("shik")
    for atoms in (quartz(), quartz((2, 1, 1)), sodium_silicate(), quartz()):
        atoms.calc = calculator
        energy = atoms.get_potential_energy()
        alone = atoms.copy()
        alone.calc = Calculator("shik")
        assert energy == pytest.approx(alone.get_potential_energy(), rel=1e-12)
    atoms.pbc = (True, True, False)
    assert atoms.get_potential_energy() > energy
    atoms.pbc = True
    atoms.set_cell(atoms.cell * 1.01, scale_atoms=True)
    moved = atoms.get_potential_energy()
    atoms.positions += atoms.cell[0] - 3 * atoms.cell[2]
    atoms.wrap()
    assert atoms.get_potential_energy() == pytest.approx(moved, rel=1e-12)


def test_sums_of_potentials():
    atoms = quartz()
    parts = [potentials.build(name, atoms.numbers) for name in ("shik", "liu2019")]
    energies = []
    for potential in (*parts, potentials.SumPotential(parts)):
        atoms.calc = Calculator(potential)
        energies.append(atoms.get_potential_energy())
    assert energies[2] == pytest.approx(energies[0] + energies[1], rel=1e-13)


def test_molecules_have_no_stress():
    atoms = Atoms("SiO2", positions=[[0, 0, 0], [0, 0, 1.6], [0, 0, -1.6]], calculator=Calculator("shik"))
    assert abs(atoms.get_forces().sum()) < 1e-12
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()


def test_wrong_use():
    with pytest.raises(ValueError, match="did you mean 'shik'"):
        Calculator("shick")
    with pytest.raises(ValueError, match="did you mean 'cutoff'"):
        Calculator("bks", cutof=8.0)
    with pytest.raises(ValueError, match="`skin` must be at least 0"):
        Calculator("shik", skin=-1.0)
    potential = potentials.build("shik", [14, 8, 8])
    with pytest.raises(TypeError, match="options need a potential given by name"):
        Calculator(potential, cutoff=8.0)
    atoms = sodium_silicate()
    atoms.calc = Calculator(potential)
    with pytest.raises(ValueError, match="has parameters for O, Si, got Na"):
        atoms.get_potential_energy()


def sodium_silicate():
    """Quartz with some silicon made sodium and its oxygens thinned to match: chemistry, not geometry."""
    atoms = quartz((2, 1, 1), rattle=0.0)
    numbers = atoms.numbers
    silicon, oxygen = np.flatnonzero(numbers == 14), np.flatnonzero(numbers == 8)
    numbers[silicon[:2]] = 11
    atoms.numbers = numbers
    del atoms[oxygen[:3]]
    return atoms
