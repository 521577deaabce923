"""Samples of the structure during a run: equal to the analysis, kept small, exact after a restart, harmless."""

import h5py
import numpy as np
import pytest
import torch
from native_settings import threads

from rsa_kernels import _library
from silica_md import checkpoint, config, quench
from silica_md.analysis.bond_angles import bond_angles
from silica_md.analysis.bonds import bonds_of
from silica_md.analysis.composition import Composition, mass_density
from silica_md.analysis.coordination import bond_lengths, coordination_fractions
from silica_md.analysis.first_peak import first_sharp_diffraction_peak
from silica_md.analysis.qn import qn_fractions
from silica_md.analysis.rings import silicon_rings
from silica_md.analysis.structure_factor import structure_factor
from silica_md.analysis.weights import neutron
from silica_md.cli import main
from silica_md.errors import ConfigError
from silica_md.folder import RunFolder
from silica_md.start import random_start
from silica_md.state import State
from silica_md.structure_log import StructureLog, read_structure_log
from silica_md.structure_sample import Column, StructureSampler, kernel_device

SHORT = {
    "atoms": 96,
    "threads": 1,
    "device": "cpu",
    "log_every": 10,
    "observe_ps": 0.05,
    "checkpoint_seconds": 1e-6,
    "segment": [
        {"name": "melt", "temperature_K": 4000.0, "duration_ps": 0.12, "relaxation_fs": 20.0},
        {"name": "cool", "ramp_to_K": 1000.0, "duration_ps": 0.1, "ensemble": "npt"},
    ],
}


def execute(path, **changes):
    folder = RunFolder(path)
    assert quench.run(config.from_dict(SHORT | changes), folder, print, resume=folder.taken)
    return folder


def glass(na2o=0.0, n_atoms=648):
    """Atoms at random with velocities: defects of every kind."""
    state = random_start(n_atoms, na2o, 2.2, seed=4)
    state.thermalize(300.0, seed=1)
    return state


@pytest.mark.parametrize("na2o", [0.0, 0.25])
def test_a_sample_equals_the_analysis_of_the_same_frame(na2o):
    state = glass(na2o)
    sampler = StructureSampler(state.atomic_numbers)
    sample, atoms = sampler.take(state), state.to_ase()
    composition = Composition.of(atoms)
    bonds = bonds_of(atoms, {"Si-O": 2.2} | ({"Na-O": 3.2} if na2o else {}))
    assert sample["density"] == pytest.approx(mass_density(atoms), rel=1e-9)

    def same(histogram, fractions):
        found = {n: count / histogram.sum() for n, count in enumerate(histogram) if count}
        assert found == pytest.approx({n: share for n, share in fractions.items() if share})

    for name in ("Si-O", "O-Si") + (("Na-O", "O-Na") if na2o else ()):
        fractions = coordination_fractions([bonds], composition, *name.split("-"))
        same(sample[f"coordination/{name}"], fractions)
        assert sample[f"coordination_mean/{name}"] == pytest.approx(sum(n * x for n, x in fractions.items()))
    same(sample["qn"], qn_fractions([bonds], composition))
    for name, (mean, width) in bond_lengths([bonds], composition).items():
        assert (sample[f"bond_length/{name}/mean"], sample[f"bond_length/{name}/width"]) == (mean, width)
    angles = bond_angles([bonds], composition, 2.0)
    for name in ("O-Si-O", "Si-O-Si"):
        assert (sample[f"angle/{name}/mean"], sample[f"angle/{name}/width"]) == angles.means[name]
        histogram = sample[f"angle/{name}/counts"]
        np.testing.assert_allclose(histogram / histogram.sum() / 2.0, angles.distributions[name])
    for name, counts in silicon_rings(bonds, composition).items():
        np.testing.assert_array_equal(sample[f"rings/{name}"], counts)
        assert counts.sum() > 0

    factor = structure_factor([atoms], q_max=5.0)
    np.testing.assert_allclose(sampler.axes["q"][0], factor.q)
    np.testing.assert_array_equal(sample["sq/k_count"], factor.counts)
    curve = neutron(factor.partials, composition)
    # The sampler asks for 1e-5 of the amplitudes; S(Q) is of the order of 1.
    np.testing.assert_allclose(sample["sq/neutron"], curve, atol=1e-4)
    for name, partial in factor.partials.items():
        np.testing.assert_allclose(sample[f"sq/partial/{name}"], partial, atol=3e-4)
    peak = first_sharp_diffraction_peak(factor.q, curve, resolution=factor.q_min)
    for name in ("position", "height", "width", "position_error"):
        expected = np.nan if peak[name] is None else peak[name]
        assert sample[f"first_peak/{name}"] == pytest.approx(expected, rel=1e-3, nan_ok=True)


def test_first_peak_of_a_glass_is_found(shared):
    import ase.io

    state = State.from_ase(ase.io.read(shared / "data" / "networks" / "sio2_glass_amorphouspy_3000.xyz"))
    sample = StructureSampler(state.atomic_numbers).take(state)
    assert sample["first_peak/position"] == pytest.approx(1.637, abs=0.005)
    assert sample["first_peak/height"] > 1.2
    assert np.array_equal(sample["rings/primitive"][3:9], [18, 141, 424, 502, 502, 220])


def test_the_same_state_gives_the_same_sample_on_any_number_of_threads(shared):
    import ase.io

    state = State.from_ase(ase.io.read(shared / "data" / "networks" / "sio2_glass_rmc_3000.xyz"))
    sampler, samples = StructureSampler(state.atomic_numbers), []
    for count in (1, 2, 2, 3):
        with threads(count):
            samples.append(sampler.take(state))
            assert torch.get_num_threads() == count
    for sample in samples[1:]:
        for name, value in sample.items():
            np.testing.assert_array_equal(value, samples[0][name], err_msg=name)


def test_work_falls_back_to_the_host_where_a_gpu_lacks_a_package(monkeypatch):
    kernels = _library.REGISTRY["structure_sums"].kernels
    gpu = torch.device("cuda")
    monkeypatch.setitem(kernels, "cuda", _library.Kernel(None, "none", lambda: "it is not installed"))
    assert kernel_device("structure_sums", gpu) == torch.device("cpu")
    monkeypatch.setitem(kernels, "cuda", _library.Kernel(None, "some", lambda: None))
    assert kernel_device("structure_sums", gpu) == gpu
    assert kernel_device("structure_sums", torch.device("cpu")) == torch.device("cpu")


def test_samples_change_no_bit_of_the_run(tmp_path):
    runs = {name: execute(tmp_path / name, observe_ps=every) for name, every in (("with", 0.01), ("without", 0.0))}
    assert len(read_structure_log(runs["with"].structure)) == 1 + 12 + 10
    assert not runs["without"].structure.exists()
    one, other = (checkpoint.load(checkpoint.newest(folder.checkpoints)).arrays for folder in runs.values())
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    rows = [[line.rsplit(",", 1)[0] for line in folder.thermo.read_text().splitlines()] for folder in runs.values()]
    assert rows[0] == rows[1]
    for one, other in zip(*(folder.trajectories for folder in runs.values()), strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_samples_are_taken_when_promised(tmp_path):
    series = read_structure_log(execute(tmp_path / "run").structure)
    assert series.columns["step"].tolist() == [0, 50, 100, 120, 170, 220]
    np.testing.assert_allclose(series.columns["time"], [0, 0.05, 0.1, 0.12, 0.17, 0.22])
    assert series.columns["segment"].tolist() == [b"melt"] * 4 + [b"cool"] * 2
    np.testing.assert_allclose(series.columns["target"], [4000, 4000, 4000, 4000, 2500, 1000])
    assert (series.columns["temperature"] > 500).all()


def test_every_dataset_says_what_it_holds(tmp_path):
    folder = execute(tmp_path / "run")
    with h5py.File(folder.structure) as file:
        assert file.attrs["format"] == "silica_md structure"
        assert list(file.attrs["species"]) == ["Si", "O"]
        assert dict(zip(file.attrs["bonds"], file.attrs["bond_cutoffs_angstrom"], strict=True)) == {"Si-O": 2.2}
        found = []
        file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
        for name in found:
            assert file[name].attrs["unit"] and file[name].attrs["description"], name
            if "axis" in file[name].attrs:
                assert file[file[name].attrs["axis"]].shape == file[name].shape[1:], name
        assert set(file) == {
            "step", "time", "segment", "target", "temperature", "density", "cell", "sq", "first_peak", "rings", "qn",
            "coordination", "coordination_mean", "bond_length", "angle", "axes",
        }  # fmt: skip
        assert set(file["rings"]) == {"king", "guttman", "primitive"}
        assert file["sq/neutron"].shape == (6, 100)
        assert file["sq/neutron"].attrs["unit"] == "1" and file["axes/q"].attrs["unit"] == "1/angstrom"


def test_a_sample_takes_less_than_three_kilobytes(tmp_path):
    """Of 648 atoms at random: nothing repeats but the segment's name, and S(Q) is noise that no packing makes small."""
    sampler, log = make_log(tmp_path / "structure.h5", glass())
    sizes = []
    for count in (1, 40):
        while log.position() < count:
            state = glass()
            state.positions += 0.3 * torch.randn(state.positions.shape, dtype=torch.float64)
            log.write(when(log.position()) | sampler.take(state))
        sizes.append(log.path.stat().st_size)
    assert sizes[0] < 40_000
    assert (sizes[1] - sizes[0]) / 39 < 3000


def make_log(path, state):
    sampler = StructureSampler(state.atomic_numbers)
    return sampler, StructureLog(path, sampler.columns, sampler.axes, {"n_atoms": state.n_atoms})


def when(number):
    return {"step": number, "time": 0.1 * number, "segment": b"melt", "target": 300.0, "temperature": 301.0}


SIMPLE = [Column("value", "f8", (), "eV", "a number"), Column("curve", "f4", (3,), "1", "three numbers", "x")]


def simple_log(path, columns=SIMPLE):
    return StructureLog(path, columns, {"x": (np.arange(3), "angstrom", "places")}, {})


def simple(number):
    return when(number) | {"value": 0.1 * number, "curve": np.arange(3) + number}


def test_cut_back_and_written_again_it_is_the_same_file(tmp_path):
    whole, cut = simple_log(tmp_path / "whole.h5"), simple_log(tmp_path / "cut.h5")
    for number in range(9):
        whole.write(simple(number))
        cut.write(simple(number))
    assert (whole.position(), cut.position()) == (9, 9)
    resumed = simple_log(tmp_path / "cut.h5")
    resumed.truncate_to(5)
    assert len(read_structure_log(tmp_path / "cut.h5")) == 5
    for number in range(5, 9):
        resumed.write(simple(number))
    assert resumed.position() == 9
    assert (tmp_path / "cut.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    series = read_structure_log(tmp_path / "cut.h5")
    np.testing.assert_array_equal(series.columns["value"], 0.1 * np.arange(9))
    np.testing.assert_array_equal(series.columns["curve"][4], [4, 5, 6])
    assert series.units["value"] == "eV" and series.axes["x"].tolist() == [0, 1, 2]
    resumed.truncate_to(0)
    assert not (tmp_path / "cut.h5").exists()


def test_what_does_not_fit_is_refused(tmp_path):
    log = simple_log(tmp_path / "structure.h5")
    with pytest.raises(ValueError, match=r"missing \['value'\], unknown \['valeu'\]"):
        log.write({name.replace("value", "valeu"): value for name, value in simple(0).items()})
    with pytest.raises(ValueError, match=r"shape \(3,\) in 'curve', got \(2,\)"):
        log.write(simple(0) | {"curve": np.zeros(2)})
    with pytest.raises(ValueError, match=r"shape \(\) in 'value', got \(1,\)"):
        log.write(simple(0) | {"value": np.zeros(1)})
    assert log.position() == 0 and not log.path.exists()
    log.write(simple(0))
    log.position()
    with pytest.raises(ValueError, match="holds 1 samples, but held 2"):
        simple_log(log.path).truncate_to(2)
    with pytest.raises(ValueError, match="does not hold 'curve' as this version writes it"):
        simple_log(log.path, [SIMPLE[0], Column("curve", "f4", (4,), "1", "four", "x")]).truncate_to(1)
    log.path.write_bytes(log.path.read_bytes()[:900])
    with pytest.raises(ValueError, match="cannot be read as samples"):
        simple_log(log.path).truncate_to(1)
    with h5py.File(tmp_path / "other.h5", "w"):
        pass
    with pytest.raises(ValueError, match="is no 'silica_md structure' file"):
        read_structure_log(tmp_path / "other.h5")
    with pytest.raises(ValueError, match="cannot be read"):
        read_structure_log(tmp_path / "nothing.h5")


def test_a_removed_file_stops_a_resumed_run_by_name(tmp_path):
    folder = execute(tmp_path / "run")
    newest = checkpoint.newest(folder.checkpoints)
    newest.unlink()  # so that there is something left to do
    folder.structure.unlink()
    with pytest.raises(quench.RunAborted, match=r"structure\.h5 cannot be read"):
        execute(tmp_path / "run")


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_wrong_cadence_is_refused_by_name(value):
    with pytest.raises(ConfigError, match="`observe_ps` must be 0"):
        config.from_dict({"observe_ps": value})


def test_wrong_cadence_on_the_command_line(tmp_path, capsys):
    assert main(["quench", "--out", str(tmp_path / "run"), "--observe", "-2"]) == 1
    assert "`observe_ps` must be 0 (no samples) or positive and finite, got -2.0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["quench", "--help"])
    assert "--observe" in capsys.readouterr().out
