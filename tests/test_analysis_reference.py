"""The analysis against the reference data: measured files, the RMC model's curve, known network figures."""

import json

import numpy as np
import pytest
from ase import Atoms

from silica_md.analysis import analyze, measured, read_frames, weights
from silica_md.analysis.bond_angles import bond_angles
from silica_md.analysis.bonds import bonds_of
from silica_md.analysis.composition import Composition, mass_density, number_density
from silica_md.analysis.coordination import bond_lengths, coordination_fractions
from silica_md.analysis.first_peak import first_sharp_diffraction_peak
from silica_md.analysis.pair_distribution import pair_distribution
from silica_md.analysis.qn import qn_fractions
from silica_md.analysis.real_space import correlation_function
from silica_md.analysis.structure_factor import structure_factor
from silica_md.data.resample import TABLE, resample

NETWORKS = (
    "sio2_glass_amorphouspy_3000.xyz",
    "sio2_glass_rmc_3000.xyz",
    "sio2_jaxmd_3000_positions.txt",
    "na_silicate_5_10020.xyz",
)


def network(shared, name):
    path = shared / "data" / "networks" / name
    if path.suffix == ".txt":
        return Atoms("SiO2" * 1000, positions=np.loadtxt(path), cell=[35.660930663857577] * 3, pbc=True)
    return read_frames(path)[0]


def source(shared):
    return shared / "data" / "diffraction" / "sio2_glass_neutron_isis_SQ.txt"


def experiment(shared):
    return json.loads((shared / "data" / "experiment.json").read_text())


def test_table_is_the_source_resampled(shared):
    assert TABLE.read_text(encoding="utf-8") == resample(source(shared))


def test_table_follows_the_source_within_its_curvature(shared):
    q, sq, _ = np.loadtxt(source(shared)).T
    curve = measured.neutron_silica()
    assert np.abs(curve.sq - np.interp(curve.q, q, sq)).max() < 0.012


def test_first_peak_of_the_measurement_equals_the_published_fit(shared):
    """Same definition and range on the source's own points: equal to the digits given."""
    expected = experiment(shared)["FSDP"]["neutron_recommended"]["FSDP"]["lorentzian_plus_line_fit"]
    q, sq, _ = np.loadtxt(source(shared)).T
    peak = first_sharp_diffraction_peak(q, sq, fit_range=(1.15, 1.95))
    assert peak["position"] == pytest.approx(expected["center"], abs=1e-4)
    assert peak["width"] == pytest.approx(expected["fwhm"], abs=1e-3)
    assert peak["amplitude"] == pytest.approx(expected["amplitude"], abs=1e-3)
    assert peak["baseline"] == pytest.approx(expected["baseline"], abs=1e-3)


def test_first_peak_of_the_table_lies_where_the_curve_has_its_maximum(shared):
    expected = experiment(shared)["FSDP"]["neutron_recommended"]["FSDP"]
    curve = measured.neutron_silica()
    peak = first_sharp_diffraction_peak(curve.q, curve.sq)
    assert peak["position"] == pytest.approx(expected["position_invA"], abs=0.01)
    assert peak["height"] == pytest.approx(expected["height_S"], abs=0.02)
    assert peak["width"] == pytest.approx(expected["lorentzian_plus_line_fit"]["fwhm"], abs=0.03)


def test_neutron_weights_equal_the_reference(shared):
    expected = experiment(shared)["neutron_weights"]
    composition = Composition.of(Atoms("SiO2"))
    lengths = {symbol: weights.scattering_length(symbol) for symbol in ("Si", "O")}
    for symbol, length in lengths.items():
        # periodictable holds newer lengths than Sears 1992: Si 4.1507 instead of 4.1491 fm.
        assert length == pytest.approx(expected["b_fm"][symbol], rel=5e-4)
    found = weights.pair_weights(composition, lengths)
    table = expected["SiO2_Faber_Ziman_weights_c_c_b_b_over_b2"]
    assert found["Si-Si"] == pytest.approx(table["Si-Si"], abs=1e-4)
    assert found["Si-O"] == pytest.approx(table["Si-O (both orders)"], abs=1e-4)
    assert found["O-O"] == pytest.approx(table["O-O"], abs=1e-4)


def test_correlation_function_equals_the_reference_transform(shared):
    """T(r) − 4πρr of the table against the source's D(r), Lorch window, Q up to 40 Å⁻¹."""
    r, expected = np.loadtxt(shared / "data" / "diffraction" / "sio2_glass_neutron_isis_Dr.txt").T
    curve = measured.neutron_silica()
    found = correlation_function(curve.q, curve.sq, r, 0.0, curve.q[0], 40.0)
    used = r > 1.0
    # Peaks of 6 Å⁻². Bin averages damp by sin(Δr/2)/(Δr/2), 0.7 % at 8 Å; the file itself differs by 0.02 from
    # the plain transform of its source, which starts at 0.30 Å⁻¹.
    assert np.abs(found - expected)[used].max() < 0.04
    assert r[found.argmax()] == pytest.approx(1.62, abs=0.011)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_have_the_known_figures(shared, name):
    expected = json.loads((shared / "data" / "networks" / "networks_stats.json").read_text())[name]
    atoms = network(shared, name)
    composition = Composition.of(atoms)
    bonds = [bonds_of(atoms, {"Si-O": expected["r_cut_SiO_A"]})]
    assert mass_density(atoms) == pytest.approx(expected["density_g_cm3"], abs=1e-4)
    assert number_density(atoms) == pytest.approx(expected["number_density_per_A3"], abs=1e-6)

    def same_fractions(found, wanted):
        assert {str(n): x for n, x in found.items() if x > 0} == pytest.approx(wanted, abs=6e-5)

    same_fractions(coordination_fractions(bonds, composition, "Si", "O"), expected["Si_coordination_fraction"])
    same_fractions(coordination_fractions(bonds, composition, "O", "Si"), expected["O_Si_coordination_fraction"])
    same_fractions(
        qn_fractions(bonds, composition), {n.removeprefix("Q"): x for n, x in expected["Qn_fraction"].items()}
    )
    length = bond_lengths(bonds, composition)["Si-O"]
    assert length == pytest.approx((expected["SiO_mean_A"], expected["SiO_std_A"]), abs=6e-5)
    # The table's angle is that of the oxygens with two Si.
    twofold = np.bincount(bonds[0].i, minlength=len(atoms)) == 2
    bridges = bonds[0].select(twofold[bonds[0].i] & (atoms.numbers == 8)[bonds[0].i])
    angle = bond_angles([bridges], composition).means["Si-O-Si"]
    assert angle == pytest.approx((expected["SiOSi_mean_deg"], expected["SiOSi_std_deg"]), abs=6e-3)


@pytest.fixture(scope="module")
def rmc(shared):
    """The RMC structure, the figures of its curve's file: Q, and the columns by name."""
    table = np.loadtxt(shared / "data" / "diffraction" / "sio2_glass_rmcmodel_SQ_xray_neutron.txt").T
    columns = dict(zip(("xray", "neutron", "Si-Si", "Si-O", "O-O"), table[1:], strict=True))
    return network(shared, "sio2_glass_rmc_3000.xyz"), table[0], columns


def assert_same_curves(partials, atoms, q, columns, worst, rms):
    composition = Composition.of(atoms)
    totals = {"neutron": weights.neutron(partials, composition), "xray": weights.xray(partials, composition, q)}
    for name, found in (partials | totals).items():
        difference = np.abs(found - columns[name])
        assert difference.max() < worst, (name, difference.max(), q[difference.argmax()])
        assert np.sqrt((difference**2).mean()) < rms, name


def test_rmc_curve_from_its_pairs(rmc):
    """The file's own way: g(r) to half the cell and a plain sine transform."""
    atoms, q, columns = rmc
    found = pair_distribution([atoms])
    kernel = 4 * np.pi * number_density(atoms) * np.sin(np.outer(q, found.r)) / q[:, None] * found.r * 0.02
    partials = {name: 1 + kernel @ (g - 1) for name, g in found.partials.items()}
    assert_same_curves(partials, atoms, q, columns, worst=0.02, rms=0.003)


def test_rmc_curve_from_its_k_vectors(rmc):
    """Another way to the same curve: A(k) of all k-vectors, smoothed as a g(r) cut off at R smooths it.

    ::

        A_R(Q) = 1 + (1/V) Σ_k [A(k) − 1] ∫_0^R 4πr² j₀(kr) j₀(Qr) dr

    The term k = 0 has A(0) − 1 = −δ_ab N/N_a.
    """
    atoms, q, columns = rmc
    radius = atoms.cell.lengths()[0] / 2
    factor = structure_factor([atoms], q_max=30.0, dq=0.005)
    filled = factor.counts > 0
    k, counts = factor.q[filled], factor.counts[filled]
    below = q < 15  # k up to 30 Å⁻¹ carries the smoothing of this range
    q = q[below]

    def overlap(difference):
        return radius * np.sinc(difference * radius / np.pi)

    kernel = 2 * np.pi / (k * q[:, None]) * (overlap(k - q[:, None]) - overlap(k + q[:, None]))
    at_zero = 4 * np.pi * (np.sin(q * radius) - q * radius * np.cos(q * radius)) / q**3
    sizes = Composition.of(atoms).counts
    partials = {}
    for name, values in factor.partials.items():
        first, second = name.split("-")
        self_term = len(atoms) / sizes[first] if first == second else 0.0
        smoothed = kernel @ (counts * (values[filled] - 1)) - self_term * at_zero
        partials[name] = 1 + smoothed / atoms.get_volume()
    columns = {name: values[below] for name, values in columns.items()}
    assert_same_curves(partials, atoms, q, columns, worst=0.03, rms=0.005)


# R_χ of S(Q) and of T(r), and the first peak, as found; a change of a definition shows here.
FIGURES = {
    "sio2_glass_amorphouspy_3000.xyz": (0.0915, 0.042, 1.637),
    "sio2_glass_rmc_3000.xyz": (0.0525, 0.031, 1.541),
    "sio2_jaxmd_3000_positions.txt": (0.1459, 0.173, 1.587),
}


@pytest.mark.parametrize("name", FIGURES)
def test_networks_beside_the_measurement(shared, name):
    analysis = analyze([network(shared, name)])
    r_sq, r_tr, position = FIGURES[name]
    assert analysis.q_max_reached == pytest.approx(25.0)
    assert analysis.r_chi_sq == pytest.approx(r_sq, abs=0.001)
    assert analysis.r_chi_tr == pytest.approx(r_tr, abs=0.002)
    assert analysis.fsdp["position"] == pytest.approx(position, abs=0.002)
    assert analysis.neutron_sq[-100:].mean() == pytest.approx(1.0, abs=0.02)
    low = (analysis.q > 0.3) & (analysis.q < 0.6) & np.isfinite(analysis.neutron_sq)
    assert 0 < np.average(analysis.neutron_sq[low], weights=analysis.k_counts[low]) < 0.4
    assert 0 < analysis.cutoffs["Si-O"] - 2.2 < 0.3


def test_zeolite_in_a_skewed_cell_equals_its_cubic_cell(shared):
    """Sodalite: other vectors of the same lattice, the same crystal."""
    cubic = read_frames(shared / "data" / "structures" / "zeolite_SOD.cif")[0]
    skewed = cubic.copy()
    skewed.set_cell(np.array([[1, 0, 0], [1, 1, 0], [-2, 1, 1]]) @ np.array(cubic.cell))
    one, other = (structure_factor([atoms], q_max=10.0) for atoms in (cubic, skewed))
    np.testing.assert_array_equal(one.counts, other.counts)
    filled = one.counts > 0
    np.testing.assert_allclose(one.partials["Si-O"][filled], other.partials["Si-O"][filled], atol=1e-4)
    bonds = [bonds_of(atoms, {"Si-O": 2.2}) for atoms in (cubic, skewed)]
    assert coordination_fractions(bonds[1:], Composition.of(skewed), "Si", "O") == {4: 1.0}
    assert len(bonds[0].i) == len(bonds[1].i)
