"""Runs from beginning to end, and runs that must not come to an end."""

import csv
import errno

import ase.io
import numpy as np
import pytest
import torch

from rsa_kernels import _library
from silica_md import checkpoint, config, quench, start
from silica_md.errors import ConfigError, RunAborted, RunExistsError
from silica_md.folder import RunFolder
from silica_md.forcefield import ForceField
from silica_md.potentials import build

SHORT = {
    "atoms": 96,
    "threads": 1,
    "device": "cpu",
    "log_every": 10,
    "frame_ps": 0.05,
    "checkpoint_seconds": 1e-6,
    "segment": [
        {"name": "melt", "temperature_K": 4000.0, "duration_ps": 0.2, "relaxation_fs": 20.0},
        {"name": "cool", "ramp_to_K": 1000.0, "duration_ps": 0.2, "ensemble": "npt"},
    ],
}


def execute(path, **changes):
    given = SHORT | changes
    if "start" in given:
        del given["atoms"]
    settings = config.from_dict(given)
    folder = RunFolder(path)
    said = []
    return folder, quench.run(settings, folder, said.append, resume=folder.taken), said


def thermo(folder):
    with open(folder.thermo, newline="") as file:
        return list(csv.DictReader(file))


def test_run_leaves_what_it_promises(tmp_path):
    folder, done, said = execute(tmp_path / "run")
    assert done
    assert not said
    rows = thermo(folder)
    assert [int(row["step"]) for row in rows] == list(range(0, 401, 10))
    assert {row["segment"] for row in rows} == {"melt", "cool"}
    assert float(rows[-1]["target_K"]) == pytest.approx(1000.0)
    assert float(rows[20]["target_K"]) == 4000.0
    assert all(name == "step" or name == "segment" or name.split("_", 1)[1] for name in rows[0])
    conserved = np.array([float(row["conserved_eV_per_atom"]) for row in rows])
    assert np.ptp(conserved) < 0.02, "continuous over the change of the ensemble"
    assert np.ptp([float(row["kinetic_eV_per_atom"]) for row in rows]) > 0.2
    for name in ("trajectory.xyz", "trajectory.nc"):
        frames = ase.io.read(folder.path / name, index=":")
        assert len(frames) == 9
    final = ase.io.read(folder.final)
    saved = checkpoint.load(checkpoint.newest(folder.checkpoints))
    np.testing.assert_allclose(final.cell.array, saved.arrays["state_cell"], rtol=1e-9)
    assert saved.header["step"] == 400


def test_every_segment_ends_with_a_frame(tmp_path):
    folder, _, _ = execute(tmp_path / "run", frame_ps=0.15)
    frames = ase.io.read(folder.path / "trajectory.xyz", index=":")
    assert [(atoms.info["step"], atoms.info["segment"]) for atoms in frames] == [
        (0, "melt"), (150, "melt"), (200, "melt"), (350, "cool"), (400, "cool")
    ]  # fmt: skip
    saved = checkpoint.load(checkpoint.newest(folder.checkpoints))
    np.testing.assert_allclose(frames[-1].positions, saved.arrays["state_positions"], atol=1e-7)


@pytest.mark.parametrize("later", [{"ensemble": "nve"}, {"thermostat": "nose-hoover", "temperature_K": 3000.0}])
def test_momentum_from_langevin_does_not_stay(tmp_path, later):
    segments = [SHORT["segment"][0], {"name": "later", "duration_ps": 0.1} | later]
    folder, _, _ = execute(tmp_path / "run", segment=segments)
    arrays = checkpoint.load(checkpoint.newest(folder.checkpoints)).arrays
    momenta = arrays["state_masses"][:, None] * arrays["state_velocities"]
    assert np.abs(momenta.sum(0)).max() < 1e-10 * np.abs(momenta).sum()
    conserved = np.array([float(row["conserved_eV_per_atom"]) for row in thermo(folder)])
    whole_step = np.abs(np.diff(conserved))
    assert whole_step[20] < 3 * np.median(whole_step[15:]) + 1e-4, "continuous where the momentum goes"


def test_booked_energy_is_that_of_the_momentum():
    state = start.random_start(96, 0.0, 2.2, seed=1)
    state.thermalize(300.0, seed=1)
    state.velocities += torch.tensor([1e-3, -2e-3, 5e-4], dtype=torch.float64)
    before = float(state.kinetic_energy())
    removed = float(state.remove_momentum())
    assert removed > 0.01
    assert removed == pytest.approx(before - float(state.kinetic_energy()), rel=1e-9)


def test_same_seed_same_bits_other_seed_other_glass(tmp_path):
    final = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        folder, _, _ = execute(tmp_path / name, seed=seed)
        final.append(checkpoint.load(checkpoint.newest(folder.checkpoints)).arrays["state_positions"])
    np.testing.assert_array_equal(final[0], final[1])
    assert np.abs(final[0] - final[2]).max() > 1.0


def test_threads_do_not_change_the_glass(tmp_path):
    threads, final = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            folder, _, _ = execute(tmp_path / str(count), threads=count, segment=SHORT["segment"][:1])
            final.append(checkpoint.load(checkpoint.newest(folder.checkpoints)).arrays["state_positions"])
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(*final)


def test_run_can_begin_with_a_structure(tmp_path):
    folder, _, _ = execute(tmp_path / "first")
    again, done, _ = execute(tmp_path / "second", start=str(folder.final))
    assert done
    first, second = thermo(folder)[-1], thermo(again)[0]
    # Velocities come along: the temperature goes on where it was.
    assert float(second["temperature_K"]) == pytest.approx(float(first["temperature_K"]), rel=1e-5)
    assert float(second["potential_eV_per_atom"]) == pytest.approx(float(first["potential_eV_per_atom"]), abs=1e-6)


@pytest.mark.gpu
def test_a_gpu_makes_the_same_glass(tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    rows = {}
    for device in ("cpu", "cuda"):
        folder, done, _ = execute(tmp_path / device, device=device, threads=0, atoms=960)
        assert done
        rows[device] = thermo(folder)
    for one, other in zip(rows["cpu"][:5], rows["cuda"][:5], strict=True):
        for name in ("temperature_K", "pressure_GPa", "potential_eV_per_atom"):
            assert float(one[name]) == pytest.approx(float(other[name]), rel=1e-6), name
    conserved = [float(row["conserved_eV_per_atom"]) for row in rows["cuda"]]
    assert np.ptp(conserved) < 0.02


@pytest.mark.gpu
def test_a_gpu_run_restarts_exactly(tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    whole, _, _ = execute(tmp_path / "whole", device="cuda", threads=0)
    again, _, _ = execute(tmp_path / "again", device="cuda", threads=0)
    files = sorted((again.checkpoints).iterdir())
    files[-1].unlink()
    assert execute(again.path, device="cuda", threads=0)[1]
    final = [checkpoint.load(checkpoint.newest(folder.checkpoints)).arrays for folder in (whole, again)]
    for name in final[0]:
        np.testing.assert_array_equal(final[0][name], final[1][name], err_msg=name)


# --- the start ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("na2o", "density"), [(0.0, 2.2), (0.2, 2.385)])
def test_random_start_keeps_its_distances(na2o, density):
    state = start.random_start(600, na2o, density, seed=3)
    assert state.n_atoms == 600
    assert float(state.density()) == pytest.approx(density, rel=1e-9)
    atoms = state.to_ase()
    distances = atoms.get_all_distances(mic=True) + 10 * np.eye(600)
    assert start.MIN_DISTANCE <= distances.min() < start.MIN_DISTANCE + 0.1
    again = start.random_start(600, na2o, density, seed=3)
    assert torch.equal(state.positions, again.positions)
    assert not torch.equal(state.positions, start.random_start(600, na2o, density, seed=4).positions)


def test_random_start_is_uniform():
    fractional = np.concatenate(
        [start.random_start(600, 0.0, 2.2, s).to_ase().get_scaled_positions() for s in range(3)]
    )
    counts, _ = np.histogramdd(fractional, bins=3, range=[(0, 1)] * 3)
    # Excluded volume makes the counts smoother than those of an ideal gas.
    assert ((counts - 1800 / 27) ** 2).sum() / (1800 / 27) < 27 + 4 * np.sqrt(2 * 27)


@pytest.mark.parametrize("name", ["shik", "bks", "pmmcs"])
def test_pushing_apart_calms_the_forces(name):
    state = start.random_start(300, 0.0, 2.2, seed=5)
    field = ForceField(build(name, state.atomic_numbers))
    before = field.evaluate(state, energy=True)
    start.push_apart(state, field)
    after = field.evaluate(state, energy=True)
    assert float(after.energy) < float(before.energy)
    assert float(after.forces.norm(dim=1).max()) < 10.0


# --- nothing wrong may look right --------------------------------------------------------------------------------


def spoiled(monkeypatch, spoil):
    """Let something happen to every evaluation after step 250."""
    original = ForceField.evaluate

    def evaluate(self, state, **asked):
        if state.step > 250:
            spoil(state)
        return original(self, state, **asked)

    monkeypatch.setattr(ForceField, "evaluate", evaluate)


def nan(state):
    state.positions[3, 1] = float("nan")


def on_one_spot(state):
    state.positions[1] = state.positions[0]


def thrown(state):
    state.positions[7] += 30.0


def heated(state):
    state.velocities *= 1.2


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (nan, "NaN"),
        (on_one_spot, "moved by more|apart"),
        (thrown, "moved by more"),
        (heated, "temperature|conserved|moved by more|apart"),
    ],
)
def test_accidents_stop_the_run_and_name_the_checkpoint(tmp_path, monkeypatch, spoil, reason):
    spoiled(monkeypatch, spoil)
    with pytest.raises(RunAborted, match=reason) as error:
        execute(tmp_path / "run")
    newest = checkpoint.newest(tmp_path / "run" / "checkpoints")
    assert f"the last good checkpoint is {newest}" in str(error.value)
    saved = checkpoint.load(newest)
    assert all(np.isfinite(array).all() for array in saved.arrays.values())
    # Without the accident the run goes on from there, to the end.
    monkeypatch.undo()
    assert execute(tmp_path / "run")[1]


def test_sodium_in_a_structure_needs_an_ensemble(tmp_path):
    start.random_start(96, 0.25, 2.4, seed=1).to_ase().write(tmp_path / "soda.xyz")
    given = {"start": str(tmp_path / "soda.xyz")}
    with pytest.raises(ConfigError, match=r"holds sodium.*--ensemble nvt"):
        quench.run(config.from_dict(given), RunFolder(tmp_path / "run"), print)
    for more in ({"ensemble": "nvt"}, {"segment": SHORT["segment"]}):
        settings = config.from_dict(given | more)
        assert quench.first_state(settings, settings.schedule(), torch.device("cpu")).n_atoms == 96


@pytest.mark.parametrize("log_every", [10, 1000])
def test_frame_that_cannot_be_written_stops_the_run_and_names_the_checkpoint(tmp_path, monkeypatch, log_every):
    original = quench.Recorder.frame

    def frame(self, state, stage):
        if state.step > 250:
            nan(state)
        return original(self, state, stage)

    monkeypatch.setattr(quench.Recorder, "frame", frame)
    with pytest.raises(RunAborted, match=r"step 300 .*must be finite.*last good checkpoint is .*step-0*2[0-9]0\.ckpt"):
        execute(tmp_path / "run", log_every=log_every)
    monkeypatch.undo()
    assert execute(tmp_path / "run", log_every=log_every)[1]


def left_handed(atoms):
    atoms.set_cell(atoms.cell.array[[1, 0, 2]])


def open_along_z(atoms):
    atoms.pbc = [True, True, False]


def without_a_place(atoms):
    atoms.positions[5, 0] = np.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [(left_handed, "left-handed"), (open_along_z, "no cell that is periodic"), (without_a_place, "not finite")],
)
def test_structures_that_cannot_be_run_are_refused_before_a_folder_is_made(tmp_path, change, message):
    atoms = start.random_start(96, 0.0, 2.2, seed=1).to_ase()
    change(atoms)
    atoms.write(tmp_path / "bad.xyz")
    with pytest.raises(ConfigError, match=message):
        execute(tmp_path / "run", start=str(tmp_path / "bad.xyz"))
    assert not (tmp_path / "run").exists()


def test_atoms_on_one_spot_are_refused_at_the_start(tmp_path):
    atoms = start.random_start(96, 0.0, 2.2, seed=1).to_ase()
    atoms.positions[1] = atoms.positions[0] + atoms.cell[0]
    atoms.write(tmp_path / "bad.xyz")
    with pytest.raises(RunAborted, match=r"step 0 .*two atoms are 0\.0000 Å apart.*no checkpoint yet"):
        execute(tmp_path / "run", start=str(tmp_path / "bad.xyz"))


def test_too_long_a_time_step_is_noticed(tmp_path):
    with pytest.raises(RunAborted, match=r"conserved|temperature|moved by more|apart"):
        execute(tmp_path / "run", timestep_fs=12.0, log_every=1)


def test_of_two_that_begin_at_once_one_is_refused(tmp_path, monkeypatch):
    folder, settings = RunFolder(tmp_path / "run"), config.Config()
    folder.path.mkdir()
    # The other has the lock, but has not yet written anything.
    with folder.locked(), pytest.raises(RunExistsError, match="another process"), folder.created(settings):
        pass
    assert not folder.config.exists()
    # The other begins, and ends, after this one has looked.
    original = RunFolder.locked

    def late(self):
        monkeypatch.undo()
        with folder.created(config.Config(seed=2)):
            pass
        return original(self)

    monkeypatch.setattr(RunFolder, "locked", late)
    with pytest.raises(RunExistsError, match="not empty"), folder.created(settings):
        pass
    assert folder.read_config().seed == 2


def test_full_disk_is_named(tmp_path, monkeypatch):
    def full(folder, header, arrays):
        if header["step"] > 100:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(folder, header, arrays)

    original = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(RunAborted, match="cannot be written: No space left on device; the last good checkpoint is"):
        execute(tmp_path / "run")
    monkeypatch.undo()
    assert execute(tmp_path / "run")[1]


def test_gpu_is_refused_by_name_where_there_is_none():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(RuntimeError, match=r"`device` cuda cannot be used.*--device cpu"):
        quench.choose_device("cuda")
    assert quench.choose_device("auto") == torch.device("cpu")


def test_gpu_is_refused_where_a_kernel_of_a_step_cannot_run_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for op, reason in (("pair_evaluate", None), ("neighbor_rows", "CuPy is not installed; pip install cupy-cuda13x")):
        kernel = _library.Kernel(print, "", lambda reason=reason: reason)
        monkeypatch.setitem(_library.REGISTRY[op].kernels, "cuda", kernel)
    with pytest.raises(RuntimeError, match=r"`device` cuda cannot be used: CuPy is not installed; pip install"):
        quench.choose_device("cuda")
    assert quench.choose_device("auto") == torch.device("cpu")
