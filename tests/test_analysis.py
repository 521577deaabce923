"""The whole analysis, what it reads and refuses, T(r), the first peak, goodness of fit, the measured tables."""

import json

import ase.io
import numpy as np
import pytest
from ase import Atoms

from silica_md.analysis import Analysis, analyze, check_frames, goodness, measured, read_frames
from silica_md.analysis.first_peak import first_sharp_diffraction_peak
from silica_md.analysis.real_space import correlation_function
from silica_md.data.resample import bin_average


def glassy(symbols="Si40O80", length=12.2, seed=0):
    rng = np.random.default_rng(seed)
    return Atoms(symbols, positions=rng.random((len(Atoms(symbols)), 3)) * length, cell=[length] * 3, pbc=True)


def test_analysis_of_silica_is_complete_and_json_safe():
    analysis = analyze([glassy(seed=seed) for seed in range(2)], q_max=16.0)
    assert isinstance(analysis, Analysis)
    assert (analysis.n_atoms, analysis.n_frames, analysis.formula, analysis.na2o_fraction) == (120, 2, "SiO2", 0.0)
    assert set(analysis.partial_gr) == set(analysis.partial_sq) == {"Si-Si", "Si-O", "O-O"}
    assert len(analysis.q) == len(analysis.neutron_sq) == len(analysis.xray_sq) == 320
    assert set(analysis.coordination) == {"Si-O", "O-Si"}
    assert sum(analysis.coordination["Si-O"].values()) == pytest.approx(1.0)
    assert 0.15 < analysis.r_chi_sq < 0.5 and analysis.r_chi_tr > 0.15  # a gas is no glass
    text = json.dumps(analysis.to_dict(), allow_nan=False)
    assert json.loads(text)["coordination"]["Si-O"].keys() <= set("0123456789")
    rows = analysis.summary_rows()
    assert all(len(row) == 4 and all(isinstance(cell, str) for cell in row) for row in rows)
    assert ("density", "g/cm³", "2.200", f"{analysis.density:.3f}") == rows[0]


def test_a_range_below_the_shortest_vector_is_refused():
    with pytest.raises(ValueError, match=r"`q_max` must reach the shortest k-vector of the cell, 0\.515 1/Å, got 0\.3"):
        analyze([glassy()], q_max=0.3)


def test_sodium_silicate_is_compared_with_its_own_density_and_qn_but_no_curve():
    analysis = analyze([glassy("Na20Si40O90", 12.8)], q_max=6.0)
    assert analysis.na2o_fraction == pytest.approx(0.2)
    assert analysis.measured is None and analysis.r_chi_sq is None and analysis.r_chi_tr is None
    rows = {row[0]: row for row in analysis.summary_rows()}
    assert rows["density"][2] == "2.385" and rows["Q4"][2] == "50"
    assert not any(name.startswith("R_χ") for name in rows)


def test_other_systems_are_analysed_without_measurement():
    atoms = Atoms("Na4Cl4", scaled_positions=[[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0],
                  [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5], [0.5, 0.5, 0.5]], cell=[5.64] * 3, pbc=True)  # fmt: skip
    analysis = analyze([atoms.repeat(2)], q_max=8.0, cutoffs={"Na-Cl": 3.4, "Na-Na": 3.0, "Cl-Cl": 3.0})
    assert analysis.na2o_fraction is None and analysis.measured is None and analysis.qn == {}
    assert analysis.coordination["Na-Cl"] == {6: 1.0} and analysis.coordination["Na-Na"] == {0: 1.0}
    assert analysis.summary_rows()[0] == ("density", "g/cm³", "–", "2.164")


def test_goodness_is_not_given_where_the_range_falls_short():
    analysis = analyze([glassy()], q_max=10.0)
    assert analysis.r_chi_sq is None and analysis.measured is not None
    assert analysis.q_max_reached == pytest.approx(10.0)
    assert [row[3] for row in analysis.summary_rows() if row[0].startswith("R_χ of S")] == ["–"]


def test_notes_say_what_was_averaged_and_how_far_it_goes():
    frames = [glassy(seed=seed) for seed in range(3)]
    for atoms in frames:
        atoms.info["segment"] = "hold"
    notes = " ".join(analyze(frames, q_max=6.0).notes)
    for words in ("Mean of 3 frames of the segment hold", "half the shortest perpendicular width", "to 6 Å⁻¹", "Lorch"):
        assert words in notes


def test_goodness_of_fit_by_hand():
    x = np.array([1.0, 2.0, 3.0, 4.0])
    found = goodness.r_chi(x, np.array([1.0, 2.0, np.nan, 9.0]), np.array([1.0, 1.0, 5.0, 1.0]), (1.0, 3.0))
    assert found == pytest.approx(np.sqrt(1 / 2))
    assert goodness.r_chi(x, x, x, (0.5, 3.0)) is None
    assert goodness.r_chi(x, x, x, (1.0, 4.0)) == 0.0


def test_correlation_function_of_one_shell():
    """S − 1 = n sin(QR)/(QR): a peak at R of area n/R, Lorch-broadened, on 4πρr."""
    q = np.arange(1, 801) * 0.05
    shell, neighbours, density = 1.62, 4.0, 0.066
    sq = 1 + neighbours * np.sin(q * shell) / (q * shell)
    sq[10] = np.nan
    r = np.arange(0.001, 6, 0.001)
    tr = correlation_function(q, sq, r, density, 0.05, 40.0)
    peak = (r > 1.2) & (r < 2.04)
    distinct = tr - 4 * np.pi * density * r
    assert r[distinct.argmax()] == pytest.approx(shell, abs=0.01)
    assert distinct[peak].sum() * 0.001 == pytest.approx(neighbours / shell, rel=0.01)
    width = np.ptp(r[distinct > distinct.max() / 2])
    assert width == pytest.approx(5.437 / 40, rel=0.02)


def test_first_peak_finds_what_was_put_in():
    q = np.arange(1, 500) * 0.05
    sq = 1.3 / (1 + (2 * (q - 1.52) / 0.61) ** 2) + 0.2 + 0.3 * (q - 1.52)
    sq[30] = np.nan
    peak = first_sharp_diffraction_peak(q, sq)
    assert (peak["position"], peak["width"], peak["height"]) == pytest.approx((1.52, 0.61, 1.5))
    assert peak["reason"] == ""


def test_spike_narrower_than_the_cell_resolves_is_no_peak():
    q = np.arange(1, 500) * 0.05
    sq = 0.5 + 1.3 / (1 + (2 * (q - 1.5) / 0.1) ** 2)
    assert first_sharp_diffraction_peak(q, sq)["width"] == pytest.approx(0.1)
    peak = first_sharp_diffraction_peak(q, sq, resolution=0.22)
    assert peak["position"] is None and "narrower than the cell can resolve" in peak["reason"]


@pytest.mark.parametrize("seed", range(4))
def test_first_peak_survives_the_noise_of_1500_atoms(seed):
    """The measured curve with the exponential statistics of a cell's few k-vectors."""
    curve = measured.neutron_silica()
    vectors = 1500 / 0.0662 * curve.q**2 * 0.05 / (2 * np.pi) ** 2
    noisy = curve.sq * np.random.default_rng(seed).gamma(vectors) / vectors
    peak = first_sharp_diffraction_peak(curve.q, noisy, resolution=0.22)
    assert peak["position"] == pytest.approx(1.504, abs=0.07)
    assert peak["width"] == pytest.approx(0.64, abs=0.3)
    assert 0.005 < peak["position_error"] < 0.05


@pytest.mark.parametrize("sq", [np.ones(100), np.linspace(0, 2, 100), np.full(100, np.nan)])
def test_no_first_peak_gives_none_and_a_reason(sq):
    peak = first_sharp_diffraction_peak(np.arange(1, 101) * 0.05, sq)
    assert peak["position"] is None and peak["width"] is None and peak["reason"]


def test_bin_average_is_exact_for_straight_lines_and_keeps_the_integral():
    q = np.sort(np.random.default_rng(0).uniform(0, 10, 200))
    q[0], q[-1] = 0.0, 10.0
    edges = np.linspace(1, 9, 33)
    mean, sigma = bin_average(q, 2 * q + 1, np.ones_like(q), edges)
    np.testing.assert_allclose(mean, edges[1:] + edges[:-1] + 1)
    assert ((sigma > 0) & (sigma <= 1)).all()


def test_measured_curve_is_a_uniform_grid_with_its_origin():
    curve = measured.neutron_silica()
    np.testing.assert_allclose(np.diff(curve.q), 0.05, atol=1e-9)
    assert curve.q[0] == 0.35 and curve.q[-1] >= 25
    assert curve.sq[-100:].mean() == pytest.approx(1.0, abs=0.01)
    assert "NeutronSiO2sq.dat" in curve.citation


def test_measured_scalars():
    assert measured.density(0.0) == 2.200 and measured.density(0.33) == 2.494
    assert measured.density(0.35) == pytest.approx(2.494 + 2 / 7 * 0.056)
    assert measured.density(0.6) is None
    assert measured.qn(0.2) == {0: 0.0, 1: 0.0, 2: 0.02, 3: 0.48, 4: 0.5}
    assert measured.qn(0.1) is None
    for row in measured.scalars()["qn"]["rows"]:
        assert sum(row[f"Q{n}"] for n in range(5)) == pytest.approx(100, abs=1)
    for entry in measured.scalars()["silica"].values():
        assert entry["source"] and entry["unit"] and entry["status"] in ("read", "computed")


def test_reads_trajectories_and_slices(tmp_path):
    frames = [glassy(seed=seed) for seed in range(4)]
    ase.io.write(tmp_path / "run.xyz", frames)
    assert len(read_frames(tmp_path / "run.xyz")) == 4
    assert len(read_frames(tmp_path / "run.xyz", index="-2:")) == 2
    np.testing.assert_allclose(read_frames(tmp_path / "run.xyz", index=1)[0].positions, frames[1].positions, atol=1e-7)
    for index, number in ((0, 0), ("0", 0), (-1, 3), ("-1", 3), ("2", 2)):
        (one,) = read_frames(tmp_path / "run.xyz", index=index)
        np.testing.assert_allclose(one.positions, frames[number].positions, atol=1e-7)
    ase.io.write(tmp_path / "one.cif", frames[0])
    assert len(read_frames(tmp_path / "one.cif")) == 1


def test_run_folder_gives_the_frames_of_the_last_segment(tmp_path):
    frames = [glassy(seed=seed) for seed in range(5)]
    for atoms, segment in zip(frames, ["melt", "quench", "quench", "hold", "hold"], strict=True):
        atoms.info["segment"] = segment
    ase.io.write(tmp_path / "trajectory.xyz", frames)
    ase.io.write(tmp_path / "final.xyz", frames[-1])
    assert [atoms.info["segment"] for atoms in read_frames(tmp_path)] == ["hold", "hold"]
    assert len(read_frames(tmp_path, segment="quench")) == 2
    with pytest.raises(ValueError, match=r"no frames of `segment` 'holt' .*'melt', 'quench', 'hold'"):
        read_frames(tmp_path, segment="holt")
    (tmp_path / "trajectory.xyz").unlink()
    assert len(read_frames(tmp_path)) == 1


def test_run_that_did_not_reach_its_last_segment_is_not_judged_by_another(tmp_path):
    frames = [glassy(seed=seed) for seed in range(2)]
    for atoms, segment in zip(frames, ["melt", "quench"], strict=True):
        atoms.info["segment"] = segment
    ase.io.write(tmp_path / "trajectory.xyz", frames)
    (tmp_path / "config.json").write_text('{"schedule": [{"name": "melt"}, {"name": "quench"}, {"name": "hold"}]}')
    with pytest.raises(ValueError, match=r"no frames of `segment` 'hold' .*'melt', 'quench'; finish the run"):
        read_frames(tmp_path)
    assert len(read_frames(tmp_path, segment="quench")) == 1
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        read_frames(tmp_path)


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_frames(tmp_path / "nothing.xyz")
    with pytest.raises(FileNotFoundError, match="is it the folder of a run"):
        read_frames(tmp_path)
    (tmp_path / "bad.xyz").write_text("3\nthis is not a structure\nSi 0 0\n")
    with pytest.raises(ValueError, match=r"ASE cannot read .*bad\.xyz"):
        read_frames(tmp_path / "bad.xyz")
    (tmp_path / "empty.xyz").write_text("")
    with pytest.raises(ValueError, match=r"empty\.xyz"):
        read_frames(tmp_path / "empty.xyz")
    ase.io.write(tmp_path / "good.xyz", glassy())
    with pytest.raises(ValueError, match="`index` must be"):
        read_frames(tmp_path / "good.xyz", index="first")
    with pytest.raises(ValueError, match="selects none"):
        read_frames(tmp_path / "good.xyz", index="5:")
    with pytest.raises(ValueError, match="selects none"):
        read_frames(tmp_path / "good.xyz", index="-2")


def test_lammps_types_need_names(tmp_path):
    ase.io.write(tmp_path / "types.xyz", glassy("H40He80"))
    with pytest.raises(ValueError, match=r"elements=\['Si', 'O'\]"):
        read_frames(tmp_path / "types.xyz")
    assert read_frames(tmp_path / "types.xyz", elements=["Si", "O"])[0].get_chemical_formula() == "O80Si40"
    with pytest.raises(ValueError, match="chemical symbols"):
        read_frames(tmp_path / "types.xyz", elements=["Si", "Ox"])
    with pytest.raises(ValueError, match="names 1 types"):
        read_frames(tmp_path / "types.xyz", elements=["Si"])


def broken(change):
    atoms = glassy()
    change(atoms)
    return atoms


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda atoms: atoms.set_cell(None), "no cell of non-zero volume"),
        (lambda atoms: atoms.set_pbc([True, True, False]), "periodic in all directions"),
        (lambda atoms: atoms.numbers.__setitem__(0, 0), "unknown element"),
        (lambda atoms: atoms.positions.__setitem__((0, 0), np.nan), "not finite"),
        (lambda atoms: atoms.set_cell(np.diag([5.0, np.inf, 5.0])), "not finite"),
    ],
)
def test_frames_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        analyze([broken(change)])


def test_frames_must_belong_together():
    with pytest.raises(ValueError, match="frame 1: atoms are O79Si41"):
        check_frames([glassy(), glassy("Si41O79")])
    with pytest.raises(TypeError, match="wrap a single one in a list"):
        analyze(glassy())
    with pytest.raises(ValueError, match="no frames"):
        analyze([])


def test_element_without_scattering_length_is_named():
    with pytest.raises(ValueError, match="scattering length of Po"):
        analyze([Atoms("Po", cell=[3.34] * 3, pbc=True)], q_max=5.0)
