"""Runs on model files, `mace:PATH`: from beginning to end, killed and resumed, with the file changed or gone."""

import builtins
import json

import numpy as np
import pytest
import torch
from learned_systems import glass, network
from test_quench import SHORT, execute, thermo

from rsa_kernels.errors import BackendUnavailableError
from silica_md import checkpoint, config, models, potentials, quench
from silica_md.ase import Calculator
from silica_md.cli import main
from silica_md.errors import ModelFileError
from silica_md.folder import RunFolder

pytest.importorskip("mace")
SEGMENTS = [
    {"name": "melt", "temperature_K": 2000.0, "duration_ps": 0.02, "relaxation_fs": 20.0},
    {"name": "cool", "ramp_to_K": 1000.0, "duration_ps": 0.02, "ensemble": "npt"},
]
GIVEN = {"atoms": 24, "segment": SEGMENTS, "observe_ps": 0.0, "frame_ps": 0.01, "log_every": 5}


@pytest.fixture
def model(tmp_path):
    models.save(network("rsa", pair_repulsion=True), tmp_path / "m")
    return tmp_path / "m.safetensors"


def final(folder):
    return checkpoint.load(checkpoint.newest(folder.checkpoints))


class Killed(BaseException):
    """As sudden as a signal."""


def killed_at(monkeypatch, step):
    """Let runs die when they have come to a step, right after its row of the log."""
    row = quench.Recorder.row

    def dying(self, state, *rest):
        row(self, state, *rest)
        if state.step == step:
            raise Killed

    monkeypatch.setattr(quench.Recorder, "row", dying)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_run_killed_and_resumed_ends_in_the_same_bits(tmp_path, model, monkeypatch, dtype):
    given = GIVEN | {"potential": f"mace:{model}", "potential_options": {"dtype": dtype}}
    whole, done, said = execute(tmp_path / "whole", **given)
    assert done and said == [f"mace:m.safetensors: O Si, long-range layer rsa, pairs to 4 Å, {dtype}"]
    conserved = np.array([float(row["conserved_eV_per_atom"]) for row in thermo(whole)])
    assert np.ptp(conserved) < 0.02 and len(conserved) == 9
    with monkeypatch.context() as patch:
        killed_at(patch, 25)
        with pytest.raises(Killed):
            execute(tmp_path / "again", **given)
    again = RunFolder(tmp_path / "again")
    assert 0 < final(again).header["step"] < 25
    assert execute(again.path, **(given | {"potential_options": again.read_config().potential_options}))[1]
    for name, value in final(whole).arrays.items():
        np.testing.assert_array_equal(value, final(again).arrays[name], err_msg=name)
    assert (whole.path / "trajectory.xyz").read_bytes() == (again.path / "trajectory.xyz").read_bytes()


def test_the_folder_keeps_the_model_and_the_run_its_marks(tmp_path, model, monkeypatch):
    given = GIVEN | {"potential": f"mace:{model}"}
    with monkeypatch.context() as patch:
        killed_at(patch, 25)
        with pytest.raises(Killed):
            execute(tmp_path / "run", **given)
    folder = RunFolder(tmp_path / "run")
    kept, record = models.load(folder.model)
    for name, value in models.load(model)[0].state_dict().items():
        assert torch.equal(kept.state_dict()[name], value)
    options = folder.read_config().potential_options
    assert options == potentials.learned.fingerprint(model) == potentials.learned.fingerprint(folder.model)
    assert options["sha256"] == record["sha256"] and len(options["architecture"]) == 64

    def resume():
        said = []
        return quench.run(folder.read_config(), folder, said.append, resume=True), said

    # Other weights, or another architecture with the same weights, under the same name.
    files = {name: (tmp_path / name).read_bytes() for name in ("m.safetensors", "m.json")}
    models.save(models.build(network("rsa", pair_repulsion=True).config, seed=4), model)
    with pytest.raises(ModelFileError, match="not the model this run was made with: its `sha256` is"):
        resume()
    (tmp_path / "m.safetensors").write_bytes(files["m.safetensors"])
    changed = json.loads(files["m.json"])
    changed["config"]["avg_num_neighbors"] *= 2.0
    (tmp_path / "m.json").write_text(json.dumps(changed))
    with pytest.raises(ModelFileError, match="its `architecture` is"):
        resume()
    (tmp_path / "m.json").unlink()
    done, said = resume()
    assert done and said == [f"{model} is gone; going on with the copy in {folder.path}"]
    assert folder.read_config().potential == f"mace:{model}"


def test_command_line_and_report(tmp_path, model, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.toml").write_text(
        'atoms = 48\nthreads = 1\n[[segment]]\nname = "melt"\ntemperature_K = 1000\nduration_ps = 0.01\n'
    )
    assert main(["quench", "--config", "short.toml", "--potential", "mace:m", "--out", "glass"]) == 0
    assert "mace:m: O Si, long-range layer rsa" in capsys.readouterr().err
    report = (tmp_path / "glass" / "report.html").read_text()
    sha256 = potentials.learned.fingerprint(model)["sha256"]
    assert "Potential: MACE model m." in report and f"sha256 {sha256}" in report
    summary = json.loads((tmp_path / "glass" / "summary.json").read_text())
    assert summary["config"]["potential_options"]["sha256"] == sha256


def test_norms_that_jump_are_warned_of():
    jumping = potentials.LearnedPotential(network("published rsga"))
    for part in (jumping, potentials.SumPotential([jumping])):
        free, fixed = ([line for line in lines_of(part, segments) if "warning" in line] for segments in (2, 1))
        assert len(free) == 1 and "norm 'rsga'" in free[0] and "--ensemble nvt" in free[0]
        assert fixed == []
    flexible = [SEGMENTS[0], SEGMENTS[1] | {"ensemble": "npt-flexible"}]
    assert lines_of(jumping, 2, flexible) == lines_of(jumping, 2)
    assert len(lines_of(potentials.LearnedPotential(network("rsga")), 2)) == 1


def lines_of(potential, segments, course=SEGMENTS):
    return quench.remarks(potential, config.from_dict(SHORT | {"segment": course[:segments]}).schedule())


def test_ase_by_name(model):
    atoms, other = glass().to_ase(), glass().to_ase()
    atoms.calc = Calculator(f"mace:{model}", dtype="float32")
    other.calc = Calculator(potentials.build(f"mace:{model}", atoms.numbers))
    assert atoms.get_potential_energy() == pytest.approx(other.get_potential_energy(), abs=1e-4)
    np.testing.assert_allclose(atoms.get_stress(), other.get_stress(), atol=1e-5)
    assert atoms.get_potential_energies().sum() == pytest.approx(atoms.get_potential_energy(), abs=1e-9)


def test_refusals(tmp_path, model, monkeypatch):
    name = f"mace:{model}"
    for wrong, message, kind in (
        ({"potential": f"mace:{tmp_path}/none.safetensors"}, "cannot read .*none.json", ModelFileError),
        ({"potential": "mace:"}, "needs the file of a model: mace:PATH", ValueError),
        ({"potential": "mice"}, "did you mean 'mace:PATH'", ValueError),
        ({"potential": name, "coulomb": "ewald"}, "goes with bks and pmmcs", ValueError),
        ({"potential": name, "potential_options": {"dtyp": "float32"}}, "did you mean 'dtype'", ValueError),
        ({"potential": name, "potential_options": {"dtype": "half"}}, "`dtype` must be one of", ValueError),
        ({"potential": name, "na2o": 0.3}, "does not know Na", ValueError),
        ({"potential": name, "atoms": 3}, "Å thin, less than the 4 Å cutoff", ValueError),
    ):
        with pytest.raises(kind, match=message):
            execute(tmp_path / "run", **(GIVEN | wrong))
        assert not (tmp_path / "run").exists(), "refused before a folder is made"
    (tmp_path / "m.safetensors").write_bytes(model.read_bytes()[:-8] + b"12345678")
    with pytest.raises(ModelFileError, match="SHA-256 differs"):
        potentials.learned.copy_model(model, tmp_path / "copy")
    with pytest.raises(ModelFileError, match="SHA-256 differs"):
        execute(tmp_path / "run", **(GIVEN | {"potential": name}))

    genuine = builtins.__import__

    def without_mace(name, *rest, **more):
        if name.endswith("models.evaluate"):
            raise ImportError("No module named 'mace'")
        return genuine(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_mace)
    with pytest.raises(BackendUnavailableError, match=r"No module named 'mace'.*pip install 'silica-md\[mace\]'"):
        potentials.build(name, [8, 14])
