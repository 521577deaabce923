"""Trajectories and structures: what ASE reads back, what a kill leaves behind, and the restart byte for byte."""

import errno
import os

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk
from scipy.io import netcdf_file

from silica_md import files, netcdf
from silica_md.state import State
from silica_md.trajectory import TrajectoryWriter, write_structure

SKEWED = np.array([[12.0, 0.0, 0.0], [1.5, 11.0, 0.0], [-2.0, 0.7, 13.0]])


def make_state(step=0, cell=SKEWED, pbc=(True, True, True), n_atoms=30, seed=0):
    random = np.random.default_rng(seed + step)
    numbers = np.resize([14, 8, 8], n_atoms)
    return State(
        positions=torch.tensor(random.uniform(-20, 30, (n_atoms, 3))),
        velocities=torch.tensor(random.normal(0, 0.01, (n_atoms, 3))),
        masses=torch.tensor(np.where(numbers == 14, 28.085, 15.999)),
        atomic_numbers=torch.tensor(numbers),
        cell=torch.tensor(np.array(cell, dtype=float)),
        pbc=torch.tensor(pbc),
        global_ids=torch.arange(n_atoms),
        step=step,
        time=1.6 * step,
    )


def write(path, steps, segment="melt"):
    writer = TrajectoryWriter(path)
    for step in steps:
        writer.write(make_state(step), segment)
    writer.close()
    return path.read_bytes()


def count_frames(path):
    """Frames a reader finds; every one is read."""
    if path.suffix == ".nc":
        with netcdf_file(path, mmap=False) as file:
            return len(file.variables["coordinates"][:])
    return len(ase.io.read(path, ":", format="extxyz"))


@pytest.mark.parametrize("name", ["t.xyz", "t.extxyz"])
def test_extended_xyz_is_read_back_by_ase(tmp_path, name):
    write(tmp_path / name, (0, 100), "hold 300 K")
    frames = ase.io.read(tmp_path / name, ":", format="extxyz")
    assert len(frames) == 2
    for frame, step in zip(frames, (0, 100), strict=True):
        state = make_state(step)
        assert np.abs(frame.positions - state.positions.numpy()).max() < 6e-9
        assert np.array_equal(frame.numbers, state.atomic_numbers.numpy())
        assert np.allclose(frame.cell.array, SKEWED, atol=1e-9)
        assert frame.pbc.all()
        assert frame.info["step"] == step
        assert frame.info["time_ps"] == pytest.approx(1.6e-3 * step, abs=1e-6)
        assert frame.info["segment"] == "hold 300 K"


def test_amber_netcdf_is_read_back_by_ase(tmp_path):
    pytest.importorskip("netCDF4", reason="ASE reads AMBER trajectories with netCDF4")
    write(tmp_path / "t.nc", (0, 100), "hold 300 K")
    frames = ase.io.read(tmp_path / "t.nc", ":", format="netcdftrajectory")
    assert len(frames) == 2
    for frame, step in zip(frames, (0, 100), strict=True):
        state = make_state(step)
        assert np.abs(frame.positions - state.positions.numpy()).max() < 4e-6  # float32
        assert np.array_equal(frame.numbers, state.atomic_numbers.numpy())
        assert np.allclose(frame.cell.array, SKEWED, atol=1e-12)
        assert frame.info["step"] == step
        assert frame.info["time"] == pytest.approx(1.6e-3 * step)
        assert str(frame.info["segment"]) == "hold 300 K"


def test_amber_netcdf_follows_the_convention(tmp_path):
    write(tmp_path / "t.nc", (0, 100))
    with netcdf_file(tmp_path / "t.nc", mmap=False) as file:
        assert file.version_byte == 2  # 64-bit offsets
        assert file.Conventions == b"AMBER"
        assert file.ConventionVersion == b"1.0"
        units = {name: file.variables[name].units for name in ("coordinates", "time", "cell_lengths", "cell_angles")}
        assert units == {
            "coordinates": b"angstrom",
            "time": b"picosecond",
            "cell_lengths": b"angstrom",
            "cell_angles": b"degree",
        }
        assert file.variables["coordinates"].dimensions == ("frame", "atom", "spatial")
        assert file.variables["coordinates"].shape == (2, 30, 3)
        assert file.variables["spatial"][:].tobytes() == b"xyz"
        assert np.array_equal(file.variables["atom_types"][:], make_state().atomic_numbers.numpy())


def test_a_turned_cell_is_turned_back_with_its_atoms(tmp_path):
    angle = np.radians(30)
    rotation = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    rotation = rotation @ np.roll(np.eye(3), 1, axis=0)  # a proper rotation, about no special axis
    positions = make_state().positions.numpy()
    turned, cell = netcdf.standard_orientation(positions @ rotation, SKEWED @ rotation)
    assert np.allclose(cell, SKEWED, atol=1e-12)
    assert np.allclose(turned, positions, atol=1e-12)
    with pytest.raises(ValueError, match="right-handed"):
        netcdf.standard_orientation(positions, SKEWED[[1, 0, 2]] @ rotation)


def test_open_directions_have_length_zero(tmp_path):
    writer = TrajectoryWriter(tmp_path / "t.nc")
    writer.write(make_state(pbc=(True, False, True)))
    writer.close()
    with netcdf_file(tmp_path / "t.nc", mmap=False) as file:
        assert np.array_equal(file.variables["cell_lengths"][0] > 0, [True, False, True])


def test_atoms_stand_in_the_order_of_their_ids(tmp_path):
    state = make_state()
    shuffled = torch.randperm(30, generator=torch.Generator().manual_seed(3))
    for name in ("positions", "velocities", "masses", "atomic_numbers", "global_ids"):
        setattr(state, name, getattr(state, name)[shuffled])
    for suffix in ("xyz", "nc"):
        for name, one in (("sorted", make_state()), ("shuffled", state)):
            writer = TrajectoryWriter(tmp_path / f"{name}.{suffix}")
            writer.write(one)
            writer.close()
        assert (tmp_path / f"sorted.{suffix}").read_bytes() == (tmp_path / f"shuffled.{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", ["xyz", "nc"])
@pytest.mark.parametrize("kept", [0, 1, 3])
def test_resuming_gives_the_file_of_an_uninterrupted_run(tmp_path, suffix, kept):
    """Frames written after the checkpoint, and half a frame, are gone after `truncate`."""
    expected = write(tmp_path / f"whole.{suffix}", range(5))
    path = tmp_path / f"t.{suffix}"
    writer = TrajectoryWriter(path)
    for step in range(kept):
        writer.write(make_state(step), "melt")
    position = writer.position()
    for step in range(kept, 4):
        writer.write(make_state(step), "melt")
    with open(path, "ab") as file:
        file.write(b"half a frame")

    resumed = TrajectoryWriter(path)
    resumed.truncate(position)
    for step in range(kept, 5):
        resumed.write(make_state(step), "melt")
    resumed.close()
    assert path.read_bytes() == expected


@pytest.mark.parametrize("suffix", ["xyz", "nc"])
def test_a_kill_inside_a_write_leaves_the_complete_frames_readable(tmp_path, suffix, monkeypatch):
    """Stop each write after every possible share of its bytes, as a kill could."""
    path = tmp_path / f"t.{suffix}"
    writer = TrajectoryWriter(path)
    writer.write(make_state(0), "melt")
    writer.write(make_state(1), "melt")
    before = path.read_bytes()
    writes = []
    monkeypatch.setattr(files, "_write_all", lambda fd, data, offset: writes.append((bytes(data), offset)))
    writer.write(make_state(2), "melt")
    (body, body_offset), (mark, mark_offset) = writes
    assert len(mark) <= 8  # so small that it is never seen in part
    for size in [*range(40), *range(40, len(body), 97), len(body)]:
        torn = before[:body_offset] + body[:size]
        path.write_bytes(torn)
        assert count_frames(path) == 2, size
    complete = bytearray(before + body)
    complete[mark_offset : mark_offset + len(mark)] = mark
    path.write_bytes(complete)
    assert count_frames(path) == 3


@pytest.mark.parametrize("suffix", ["xyz", "nc"])
def test_a_full_disk_leaves_the_last_complete_frame(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"t.{suffix}"
    writer = TrajectoryWriter(path)
    writer.write(make_state(0))
    before, pwrite = path.read_bytes(), os.pwrite

    def full(descriptor, data, offset):
        if len(data) < 200:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(descriptor, data[:200], offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        writer.write(make_state(1))
    assert path.read_bytes() == before
    monkeypatch.undo()
    writer.write(make_state(1))  # space was made: the run could go on
    assert writer.position()["frames"] == 2


def test_nothing_is_overwritten(tmp_path):
    path = tmp_path / "t.xyz"
    path.write_text("mine\n")
    with pytest.raises(FileExistsError, match="not overwritten"):
        TrajectoryWriter(path).write(make_state())
    assert path.read_text() == "mine\n"


def test_a_shortened_file_is_not_resumed(tmp_path):
    path = tmp_path / "t.nc"
    writer = TrajectoryWriter(path)
    writer.write(make_state())
    position = writer.position()
    writer.close()
    os.truncate(path, position["bytes"] - 1)
    with pytest.raises(ValueError, match="removed or changed"):
        TrajectoryWriter(path).truncate(position)
    path.unlink()
    with pytest.raises(ValueError, match="holds 0 bytes"):
        TrajectoryWriter(path).truncate(position)


def test_wrong_input_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.xyz"):
        TrajectoryWriter(tmp_path / "t.dcd")
    writer = TrajectoryWriter(tmp_path / "t.nc")
    with pytest.raises(ValueError, match="segment"):
        writer.write(make_state(), 'a "quoted" name')
    broken = make_state()
    broken.positions[3, 1] = float("nan")
    with pytest.raises(ValueError, match="finite"):
        writer.write(broken)
    writer.write(make_state())
    with pytest.raises(ValueError, match="same number of atoms"):
        writer.write(make_state(n_atoms=33))


def test_structure_is_wrapped_and_moves_on(tmp_path):
    state = make_state(7)
    path = write_structure(tmp_path / "final.xyz", state, info={"potential": "shik"})
    atoms = ase.io.read(path)
    fractional = atoms.get_scaled_positions(wrap=False)
    assert np.all((fractional > -1e-8) & (fractional < 1 + 1e-8))
    shift = np.linalg.solve(SKEWED.T, (atoms.positions - state.positions.numpy()).T)
    assert np.allclose(shift, np.round(shift), atol=1e-8)  # moved by whole cell vectors
    assert np.allclose(atoms.get_kinetic_energy(), float(state.kinetic_energy()), rtol=1e-6)
    assert atoms.info["potential"] == "shik"
    assert list(tmp_path.iterdir()) == [path]  # no temporary file stays


def test_structure_replaces_the_old_one_only_when_complete(tmp_path, monkeypatch):
    path = write_structure(tmp_path / "final.xyz", make_state(1))
    before = path.read_bytes()

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_structure(path, make_state(2))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_state_of_an_ase_crystal(tmp_path):
    atoms = bulk("Si", cubic=True)
    writer = TrajectoryWriter(tmp_path / "t.xyz")
    writer.write(State.from_ase(atoms))
    writer.close()
    read = ase.io.read(tmp_path / "t.xyz")
    assert np.allclose(read.positions, atoms.positions)
    assert "segment" not in read.info
