"""Random charges with exact labels: against a Madelung constant, finite differences, supercells; and what is drawn."""

import json

import ase.io
import numpy as np
import pytest
from ase import Atoms

from profiling.studies import random_charges as study
from rsa_kernels.units import COULOMB
from silica_md.labelled import ENERGY, FORCES, STRESS


@pytest.fixture(scope="module")
def how():
    return study.parameters()


def small(how, number=0, n=32):
    return study.configuration(n, "train", number, seed=3, how=how)


def test_rock_salt_has_its_madelung_energy_and_pressure(how):
    """E = −M k_e/d for each of 64 pairs, no forces, and tr σ V = −E, since E ∝ 1/length."""
    madelung, d = 1.747564594633, 4.0
    grid = np.stack(np.meshgrid(range(8), range(4), range(4), indexing="ij"), axis=-1).reshape(-1, 3)
    numbers = np.where(grid.sum(axis=1) % 2 == 0, 11, 17)
    crystal = Atoms(numbers, d * grid, cell=d * np.array([8, 4, 4]), pbc=True)
    labelled = study.with_labels(crystal, how)
    expected = -64 * madelung * COULOMB / d
    assert labelled.info[ENERGY] == pytest.approx(expected, rel=1e-7)
    assert np.abs(labelled.arrays[FORCES]).max() < 1e-7
    assert np.trace(labelled.info[STRESS]) * crystal.get_volume() == pytest.approx(-expected, rel=1e-6)


def test_labels_are_derivatives_of_the_energy(how):
    atoms, step = small(how), 1e-4
    for atom, axis in ((0, 0), (20, 2)):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * step
            energies.append(study.with_labels(moved, how).info[ENERGY])
        slope = (energies[0] - energies[1]) / (2 * step)
        assert atoms.arrays[FORCES][atom, axis] == pytest.approx(-slope, abs=2e-6)
    energies = []
    for sign in (1, -1):
        strain = np.eye(3)
        strain[0, 1] = strain[1, 0] = 0.5 * sign * step
        moved = atoms.copy()
        moved.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        energies.append(study.with_labels(moved, how).info[ENERGY])
    slope = (energies[0] - energies[1]) / (2 * step * atoms.get_volume())
    assert atoms.info[STRESS][0, 1] == pytest.approx(slope, abs=1e-8)


def test_supercells_are_labelled_as_the_sum_over_them_is(how):
    atoms = small(how)
    larger = study.supercell(atoms, (2, 1, 2))
    direct = study.with_labels(larger, how)
    assert larger.info["repeats"] == 4
    assert len(larger) == 128
    # Pairs and waves beyond the cutoffs: 1e-8 × 14.4 eV/Å.
    assert direct.info[ENERGY] == pytest.approx(larger.info[ENERGY], abs=1e-5)
    np.testing.assert_allclose(direct.arrays[FORCES], larger.arrays[FORCES], rtol=0, atol=1e-6)
    np.testing.assert_allclose(direct.info[STRESS], larger.info[STRESS], rtol=0, atol=1e-8)


def test_charges_keep_their_distance_at_the_stated_density(how):
    for number in range(3):
        atoms = small(how, number, n=128)
        distances = atoms.get_all_distances(mic=True)
        assert distances[np.triu_indices(128, 1)].min() > study.MIN_DISTANCE - 1e-7
        assert len(atoms) / atoms.get_volume() == pytest.approx(study.PER_A3)
        assert np.bincount(atoms.numbers)[[11, 17]].tolist() == [64, 64]


def test_configurations_are_independent_and_repeat(how):
    first, again, next_ = small(how), small(how), small(how, 1)
    np.testing.assert_array_equal(first.positions, again.positions)
    assert first.info[ENERGY] == again.info[ENERGY]
    assert np.abs(first.positions - next_.positions).max() > 1.0
    other = study.configuration(32, "valid", 0, seed=3, how=how)
    assert np.abs(first.positions - other.positions).max() > 1.0
    more = [study.placed(32, 12.6, 3, 0, number) for number in range(50)]
    assert np.stack(more).mean(axis=(0, 1)) == pytest.approx(6.3, abs=0.5), "all of the box"


def test_too_dense_is_refused():
    with pytest.raises(ValueError, match="do not fit"):
        study.placed(64, 6.0, 1, 0, 0, attempts=5)


def test_files(tmp_path):
    counts = {"train": 3, "valid": 2, "test": 2, "large": 0, "huge": 0, "train_large": 0}
    study.make(tmp_path / "set", counts, (1, 0), seed=2)
    record = json.loads((tmp_path / "set" / "random_charges.json").read_text())
    for name in ("train", "valid", "test"):
        frames = ase.io.read(tmp_path / "set" / f"{name}.xyz", ":")
        assert len(frames) == counts[name] == record["sets"][name]["configurations"]
        assert frames[0].info[ENERGY] != frames[1].info[ENERGY]
    small_, large = (ase.io.read(tmp_path / "set" / f"{name}.xyz", 0) for name in ("test", "supercell"))
    assert len(large) == 1024
    assert large.info[ENERGY] == pytest.approx(8 * small_.info[ENERGY], rel=1e-12)
    assert record["sets"]["large"] == {"configurations": 0}
    with pytest.raises(FileExistsError):
        study.make(tmp_path / "set", counts, (1, 0), seed=2)
