"""g(r), bonds, coordination, angles and Qn: crystals with known answers, exact sum rules, an ideal gas."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from silica_md.analysis import neighbors
from silica_md.analysis.bond_angles import bond_angles
from silica_md.analysis.bonds import bond_cutoffs, bonds_of, first_minimum
from silica_md.analysis.composition import Composition, mass_density
from silica_md.analysis.coordination import bond_lengths, coordination_fractions
from silica_md.analysis.pair_distribution import pair_distribution
from silica_md.analysis.qn import qn_fractions

SKEW = np.array([[11.0, 0.3, -0.5], [4.0, 10.0, 0.2], [-3.0, 2.0, 12.0]])


def random_atoms(symbols, cell, seed):
    rng = np.random.default_rng(seed)
    atoms = Atoms(symbols, cell=cell, pbc=True)
    atoms.set_scaled_positions(rng.random((len(atoms), 3)))
    return atoms


def ideal_cristobalite(a=7.16):
    """Diamond lattice of Si with an O in the middle of every bond: straight Si-O-Si, perfect tetrahedra."""
    silicon = bulk("Si", "diamond", a=a, cubic=True)
    pairs = neighbors.pairs_within(silicon, 0.45 * a, half=True)
    oxygen = silicon.positions[pairs.i] + pairs.vectors / 2
    return silicon + Atoms(f"O{len(oxygen)}", positions=oxygen)


def test_composition_of_a_sodium_silicate():
    composition = Composition.of(Atoms("Na2Si4O9" * 3))
    assert composition.species == ("Na", "Si", "O")
    assert composition.formula == "Na2Si4O9"
    assert composition.na2o_fraction() == pytest.approx(0.2)
    assert Composition.of(Atoms("SiO2")).na2o_fraction() == 0.0
    for other in ("SiO", "NaCl", "SiO2H", "Na2O"):
        assert Composition.of(Atoms(other)).na2o_fraction() is None, other


def test_mass_density():
    atoms = Atoms("SiO2", cell=[3, 3, 3], pbc=True)
    # 60.083 g/mol in 27 Å³.
    assert mass_density(atoms) == pytest.approx(60.083 / 6.02214076e23 / 27e-24, rel=1e-6)


def test_ideal_gas_is_flat():
    frames = [random_atoms("Si100O200", np.eye(3) * 16, seed) for seed in range(6)]
    found = pair_distribution(frames, dr=0.5)
    sizes = {"Si": 100, "O": 200}
    shells = 4 / 3 * np.pi * ((found.r + 0.25) ** 3 - (found.r - 0.25) ** 3)
    for name, g in found.partials.items():
        a, b = name.split("-")
        # A pair cannot be an atom with itself: N_a (N_a − 1) pairs over N_a².
        expected = 1 - 1 / sizes[a] if a == b else 1.0
        pairs = sizes[a] * sizes[b] / (2 if a == b else 1) * shells / 16**3 * len(frames)
        z = (g - expected) * np.sqrt(pairs)
        assert np.abs(z).max() < 4.5, (name, z)


@pytest.mark.parametrize("cell", [np.diag([11.0, 12.0, 13.0]), SKEW])
def test_integral_of_g_is_the_coordination_number(cell):
    atoms = random_atoms("Na12Si20O46", cell, 1)
    composition = Composition.of(atoms)
    found = pair_distribution([atoms], dr=0.1)
    shells = 4 / 3 * np.pi * ((found.r + 0.05) ** 3 - (found.r - 0.05) ** 3)
    pairs = neighbors.pairs_within(atoms, found.r_max)
    codes = composition.codes
    for a, b in (("Na", "O"), ("Si", "Si"), ("O", "O")):
        integral = (found.partials[f"{a}-{b}"] * shells).sum() * composition.counts[b] / atoms.get_volume()
        wanted = (codes[pairs.i] == composition.species.index(a)) & (codes[pairs.j] == composition.species.index(b))
        assert integral == pytest.approx(wanted.sum() / composition.counts[a], rel=1e-12)


def test_range_beyond_half_the_cell_equals_the_supercell():
    atoms = random_atoms("Si4O8", SKEW, 2)
    one = pair_distribution([atoms], r_max=14.0, dr=0.1)
    many = pair_distribution([atoms.repeat(3)], r_max=14.0, dr=0.1)
    assert pair_distribution([atoms]).r_max < 14 / 2
    for name in one.partials:
        np.testing.assert_allclose(one.partials[name], many.partials[name], rtol=1e-12)


def test_default_range_is_half_the_shortest_width():
    atoms = random_atoms("Si4O8", SKEW, 3)
    widths = atoms.get_volume() / np.linalg.norm(np.cross(np.roll(SKEW, 1, 0), np.roll(SKEW, 2, 0)), axis=1)
    found = pair_distribution([atoms], dr=0.01)
    assert found.r_max == pytest.approx(widths.min() / 2, abs=0.01)
    assert "half the shortest" in found.reason


def test_ideal_cristobalite_has_the_textbook_network():
    atoms = ideal_cristobalite()
    composition = Composition.of(atoms)
    assert composition.formula == "SiO2"
    bonds = [bonds_of(atoms, {"Si-O": 2.2})]
    assert coordination_fractions(bonds, composition, "Si", "O") == {4: 1.0}
    assert coordination_fractions(bonds, composition, "O", "Si") == {2: 1.0}
    mean, std = bond_lengths(bonds, composition)["Si-O"]
    assert mean == pytest.approx(7.16 * np.sqrt(3) / 8) and std == pytest.approx(0, abs=1e-10)
    angles = bond_angles(bonds, composition)
    assert angles.means["O-Si-O"] == pytest.approx((np.degrees(np.arccos(-1 / 3)), 0), abs=1e-5)
    assert angles.means["Si-O-Si"][0] == pytest.approx(180, abs=1e-4)
    assert qn_fractions(bonds, composition) == {0: 0.0, 1: 0.0, 2: 0.0, 3: 0.0, 4: 1.0}


def test_angle_distributions_integrate_to_one():
    frames = [random_atoms("Na8Si12O30", SKEW, seed) for seed in range(2)]
    composition = Composition.of(frames[0])
    angles = bond_angles([bonds_of(atoms, {"Si-O": 3.0, "Na-O": 3.0}) for atoms in frames], composition)
    assert set(angles.means) == {"O-Na-O", "O-Si-O", "Na-O-Na", "Na-O-Si", "Si-O-Si"}
    for name, distribution in angles.distributions.items():
        assert distribution.sum() * 1.0 == pytest.approx(1.0), name
        assert (distribution * angles.degrees).sum() == pytest.approx(angles.means[name][0], abs=0.5)


def test_angles_equal_a_loop_over_all_bonds():
    atoms = random_atoms("Si10O25", SKEW, 4)
    composition = Composition.of(atoms)
    bonds = bonds_of(atoms, {"Si-O": 3.2})
    expected = []
    for centre in composition.members["O"]:
        arms = bonds.vectors[bonds.i == centre]
        for first in range(len(arms)):
            for second in range(first):
                cosine = arms[first] @ arms[second] / np.linalg.norm(arms[first]) / np.linalg.norm(arms[second])
                expected.append(np.degrees(np.arccos(cosine)))
    mean, std = bond_angles([bonds], composition).means["Si-O-Si"]
    assert (mean, std) == pytest.approx((np.mean(expected), np.std(expected)))


def test_cutting_a_bridge_makes_q3():
    atoms = ideal_cristobalite()
    cut = Composition.of(atoms).members["O"][0]
    bonds = bonds_of(atoms, {"Si-O": 2.2})
    silicons = bonds.j[bonds.i == cut]
    # The oxygen moves towards one of its two Si: that Si keeps a non-bridging oxygen, the other loses one.
    atoms.positions[cut] -= bonds.vectors[bonds.i == cut][1] * 0.6
    assert len(silicons) == 2
    found = qn_fractions([bonds_of(atoms, {"Si-O": 2.2})], Composition.of(atoms))
    assert found == {0: 0.0, 1: 0.0, 2: 0.0, 3: 2 / 8, 4: 6 / 8}


def test_three_bonded_oxygen_bridges_and_five_bonded_silicon_is_q5():
    silicon = [[0, 0, 0], [3.2, 0, 0], [1.6, 2.6, 0]]
    oxygen = [[1.6, 0.92, 0.0]]
    atoms = Atoms("Si3O", positions=silicon + oxygen, cell=[12, 12, 12], pbc=True)
    found = qn_fractions([bonds_of(atoms, {"Si-O": 2.2})], Composition.of(atoms))
    assert found[1] == 1.0
    star = 1.7 * np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1]])
    atoms = Atoms("SiO5Si5", positions=[[0, 0, 0], *star, *(2 * star)], cell=[12, 12, 12], pbc=True)
    assert qn_fractions([bonds_of(atoms, {"Si-O": 2.0})], Composition.of(atoms))[5] == pytest.approx(1 / 6)


def test_no_silicon_no_qn():
    composition = Composition.of(Atoms("MgO"))
    assert qn_fractions([], composition) == {}


def test_first_minimum_lies_between_the_shells():
    r = np.arange(0.01, 8, 0.02)
    shells = 30 * np.exp(-((r - 1.62) ** 2) / 0.005) + 3 * np.exp(-((r - 3.0) ** 2) / 0.05)
    # Zero from about 1.8 to 2.3: the middle, where neither shell has a tail.
    assert 1.9 < first_minimum(r, shells, 2.2) < 2.6
    sodium = 4 * np.exp(-((r - 2.35) ** 2) / 0.06) + 1 / (1 + np.exp(-(r - 3.6) / 0.15))
    assert 2.9 < first_minimum(r, sodium, 3.2) < 3.3


@pytest.mark.parametrize("g", [np.ones(400), np.zeros(400), np.linspace(0, 2, 400)])
def test_no_minimum_is_not_invented(g):
    assert first_minimum(np.arange(0.01, 8, 0.02), g, 2.2) is None


def test_cutoffs_say_where_they_come_from():
    gas = random_atoms("Na100Si200O450", np.eye(3) * 22, 5)
    composition = Composition.of(gas)
    cutoffs, sources = bond_cutoffs(composition, pair_distribution([gas]), {"Na-O": 3.0})
    assert cutoffs == {"Na-O": 3.0, "Si-O": 2.2}
    assert sources == {"Na-O": "given", "Si-O": "default"}
    with pytest.raises(ValueError, match=r"`cutoffs` names \['Si-F'\]"):
        bond_cutoffs(composition, pair_distribution([gas]), {"Si-F": 2.0})
