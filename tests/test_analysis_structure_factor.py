"""S(Q) from all k-vectors: against direct sums, Debye's formula, crystals, an ideal gas; invariances; weights."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from silica_md.analysis import weights
from silica_md.analysis.composition import Composition
from silica_md.analysis.structure_factor import structure_factor

TRICLINIC = np.array([[9.0, 0.4, -0.7], [3.1, 7.5, 0.2], [-2.0, 1.3, 11.0]])


def random_atoms(symbols, cell, seed):
    rng = np.random.default_rng(seed)
    atoms = Atoms(symbols, cell=cell, pbc=True)
    atoms.set_scaled_positions(rng.random((len(atoms), 3)))
    return atoms


def lattice(atoms, q_max):
    """All k-vectors up to q_max, zero left out."""
    basis = 2 * np.pi * np.linalg.inv(np.array(atoms.cell)).T
    reach = [int(np.ceil(q_max * length / (2 * np.pi))) for length in atoms.cell.lengths()]
    n = np.stack(np.meshgrid(*(np.arange(-m, m + 1) for m in reach), indexing="ij"), -1).reshape(-1, 3)
    k = n @ basis
    length = np.linalg.norm(k, axis=1)
    keep = (length <= q_max) & (length > 0)
    return n[keep], k[keep], length[keep]


def direct(atoms, q_max, dq):
    """The definition: every k-vector, every atom."""
    composition = Composition.of(atoms)
    n_bins = round(q_max / dq)
    _, k, length = lattice(atoms, q_max + dq)
    slot = np.floor(length / dq + 0.5).astype(int)
    rho = {s: np.exp(1j * k @ atoms.positions[members].T).sum(1) for s, members in composition.members.items()}
    counts = np.bincount(slot, minlength=n_bins + 2)[1 : n_bins + 1]
    partials = {}
    for a, b in composition.pairs:
        total = np.bincount(slot, (rho[a] * rho[b].conj()).real, minlength=n_bins + 2)[1 : n_bins + 1]
        sizes = composition.counts
        with np.errstate(invalid="ignore"):
            mean = total / counts
        partials[f"{a}-{b}"] = 1 + len(atoms) * mean / (sizes[a] * sizes[b]) - (a == b) * len(atoms) / sizes[a]
    return counts, partials


@pytest.mark.parametrize("cell", [np.diag([8.0, 11.0, 9.5]), TRICLINIC])
def test_partials_equal_the_definition(cell):
    atoms = random_atoms("Na4Si6O15", cell, 1)
    counts, partials = direct(atoms, 6.0, 0.1)
    found = structure_factor([atoms], q_max=6.0, dq=0.1)
    np.testing.assert_array_equal(found.counts, counts)
    assert list(found.partials) == ["Na-Na", "Na-Si", "Na-O", "Si-Si", "Si-O", "O-O"]
    for name, expected in partials.items():
        np.testing.assert_allclose(found.partials[name], expected, atol=2e-5, err_msg=name)
    assert np.isnan(found.partials["Si-O"][counts == 0]).all() and (counts == 0).any()


def test_frames_are_averaged_by_their_vectors():
    frames = [random_atoms("Si5O10", np.eye(3) * length, seed) for seed, length in enumerate((8.0, 8.3, 8.1))]
    found = structure_factor(frames, q_max=5.0, dq=0.25)
    singles = [direct(atoms, 5.0, 0.25) for atoms in frames]
    total = sum(counts for counts, _ in singles)
    expected = sum(counts * np.nan_to_num(partials["Si-O"]) for counts, partials in singles) / np.maximum(total, 1)
    np.testing.assert_allclose(found.partials["Si-O"][total > 0], expected[total > 0], atol=1e-5)
    np.testing.assert_allclose(found.counts, total / 3)


def test_translation_wrapping_permutation_rotation_change_nothing():
    atoms = random_atoms("Si8O16", TRICLINIC, 2)
    reference = structure_factor([atoms], q_max=6.0, dq=0.1)
    rng = np.random.default_rng(3)
    moved = atoms[rng.permutation(len(atoms))]
    moved.positions += [0.3, -7.1, 2.2]
    moved.positions += rng.integers(-3, 4, (len(atoms), 3)) @ np.array(atoms.cell)
    moved.rotate(37, (1, 2, 3), rotate_cell=True)
    found = structure_factor([moved], q_max=6.0, dq=0.1)
    # Rotation can round a vector on a bin's edge to the other side; there is none here.
    np.testing.assert_array_equal(found.counts, reference.counts)
    for name in reference.partials:
        np.testing.assert_allclose(found.partials[name], reference.partials[name], atol=1e-5)


def test_another_basis_of_the_same_lattice_changes_nothing():
    atoms = random_atoms("Si8O16", TRICLINIC, 4)
    other = atoms.copy()
    other.set_cell(np.array([[1, 1, 0], [0, 1, -2], [0, 0, 1]]) @ TRICLINIC)
    reference, found = (structure_factor([a], q_max=6.0, dq=0.1) for a in (atoms, other))
    np.testing.assert_array_equal(found.counts, reference.counts)
    np.testing.assert_allclose(found.partials["Si-O"], reference.partials["Si-O"], atol=1e-5)
    assert found.q_min == pytest.approx(reference.q_min)


def test_supercell_has_the_same_intensity():
    """The mode sum of a repeated cell is that of the cell times the number of copies."""
    atoms = random_atoms("Si8O16", TRICLINIC, 5)
    one, eight = (structure_factor([a], q_max=5.0, dq=0.1) for a in (atoms, atoms.repeat(2)))

    def intensity(found):
        return np.nan_to_num((found.partials["O-O"] - 1 + 1.5) * found.counts)

    np.testing.assert_allclose(intensity(eight), 8 * intensity(one), atol=1e-2)


def test_ideal_gas_scatters_like_single_atoms():
    """S = 1 in every bin, with the variance of exponential statistics: χ² per bin near 1."""
    frames = [random_atoms("Si200O400", np.eye(3) * 20.0, seed) for seed in range(4)]
    found = structure_factor(frames, q_max=12.0)
    s = weights.neutron(found.partials, Composition.of(frames[0]))
    b = {symbol: weights.scattering_length(symbol) for symbol in ("Si", "O")}
    mean_square = (b["Si"] ** 2 + 2 * b["O"] ** 2) / 3
    single = mean_square / ((b["Si"] + 2 * b["O"]) / 3) ** 2
    independent = found.counts * len(frames) / 2
    z = ((s - 1) / single)[independent > 50] * np.sqrt(independent[independent > 50])
    assert abs(z.mean()) < 4 / np.sqrt(len(z))
    assert 0.8 < z.var() < 1.2


def test_diamond_reflects_where_it_should():
    """Silicon: hkl all odd or all even with h + k + l = 4n; |F|² is 32 and 64 per cell."""
    a = 5.43
    atoms = bulk("Si", "diamond", a=a, cubic=True).repeat(2)
    found = structure_factor([atoms], q_max=8.0, dq=0.02)
    intensity = found.partials["Si-Si"] * found.counts
    # 8 cells, 64 atoms: |ρ|²/N = 8² |F|² / 64 = |F|².
    reflections = {(1, 1, 1): (8, 32), (2, 2, 0): (12, 64), (3, 1, 1): (24, 32), (4, 0, 0): (6, 64)}
    for hkl, (multiplicity, f_square) in reflections.items():
        slot = round(2 * np.pi / a * np.linalg.norm(hkl) / 0.02) - 1
        assert intensity[slot] == pytest.approx(multiplicity * f_square, rel=1e-4), hkl
    for forbidden in ((2, 0, 0), (2, 2, 2), (2, 1, 0)):
        slot = round(2 * np.pi / a * np.linalg.norm(forbidden) / 0.02) - 1
        assert abs(intensity[slot]) < 1e-3, forbidden


def test_cluster_in_a_large_cell_obeys_debye():
    """S(Q) = 1 + 2/N Σ_{i<j} sin(Qr)/(Qr) for a cluster whose cell is much larger than itself."""
    rng = np.random.default_rng(7)
    positions = rng.normal(size=(12, 3)) * 1.5
    atoms = Atoms("O12", positions=positions, cell=np.eye(3) * 90.0, pbc=True)
    found = structure_factor([atoms], q_max=6.0, dq=0.1)
    r = np.linalg.norm(positions[:, None] - positions, axis=-1)[np.triu_indices(12, 1)]
    debye = 1 + 2 / 12 * np.sinc(found.q[:, None] * r / np.pi).sum(1)
    high = found.q > 1.5
    np.testing.assert_allclose(found.partials["O-O"][high], debye[high], atol=0.01)


def test_range_is_sampled_where_it_costs_too_much_and_says_so():
    atoms = random_atoms("Si100O200", np.eye(3) * 34.0, 8)
    full = structure_factor([atoms], q_max=12.0, dq=0.2)
    part = structure_factor([atoms], q_max=12.0, dq=0.2, max_vectors=100_000)
    assert full.q_max_reached == part.q_max_reached == pytest.approx(12.0)
    assert full.reason == "as asked for" and full.errors is None
    assert "k-vectors of the half space" in part.reason and "beyond" in part.reason
    error = part.errors["Si-O"]
    exact, sampled = error == 0, error > 0
    assert exact[5:30].all() and sampled[-10:].all()
    np.testing.assert_allclose(part.partials["Si-O"][exact], full.partials["Si-O"][exact], atol=1e-5)
    assert (part.counts[sampled] < full.counts[sampled]).all()
    z = (part.partials["Si-O"] - full.partials["Si-O"])[sampled] / error[sampled]
    assert 0.5 < (z**2).mean() < 1.6 and np.abs(z).max() < 5


def test_smallest_vector_of_a_skewed_cell():
    cubic, skewed = np.eye(3) * 20.0, np.array([[20.0, 0, 0], [60.0, 20.0, 0], [0, -40.0, 20.0]])
    found = [structure_factor([Atoms("O", cell=cell, pbc=True)], q_max=2.0).q_min for cell in (cubic, skewed)]
    assert found == pytest.approx([2 * np.pi / 20] * 2)


def test_bad_grid_is_refused():
    atoms = random_atoms("Si2O4", np.eye(3) * 5, 0)
    with pytest.raises(ValueError, match="`dq` and `q_max` must satisfy"):
        structure_factor([atoms], q_max=1.0, dq=0.0)


def test_weights_sum_to_one_and_form_factors_start_at_the_atomic_number():
    composition = Composition.of(Atoms("Na4Si4O10"))
    b = {symbol: weights.scattering_length(symbol) for symbol in composition.species}
    assert sum(weights.pair_weights(composition, b).values()) == pytest.approx(1.0)
    q = np.array([0.0, 1.5, 25.0])
    f = {symbol: weights.form_factor(symbol, q) for symbol in composition.species}
    np.testing.assert_allclose(sum(weights.pair_weights(composition, f).values()), 1.0)
    assert [f[symbol][0] for symbol in ("O", "Na", "Si")] == pytest.approx([8, 11, 14], abs=0.01)


def test_uncorrelated_partials_give_one():
    composition = Composition.of(Atoms("SiO2"))
    ones = {name: np.ones(3) for name in ("Si-Si", "Si-O", "O-O")}
    np.testing.assert_allclose(weights.neutron(ones, composition), 1.0)
    np.testing.assert_allclose(weights.xray(ones, composition, np.array([0.5, 5.0, 20.0])), 1.0)
