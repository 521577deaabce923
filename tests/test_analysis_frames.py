"""Frames read one at a time: the same as all at once, in one frame's memory; sums that grow; stages that are shown."""

import io
import json
from dataclasses import fields

import ase.io
import numpy as np
import pytest
from ase import Atoms

from silica_md.analysis import Progress, analyze, frames, read_frames
from silica_md.analysis.composition import Composition
from silica_md.analysis.files import FrameFile
from silica_md.analysis.tally import Frequencies, Moments
from silica_md.cli import main
from silica_md.observers import stages_shown
from silica_md.start import random_start
from silica_md.state import State
from silica_md.trajectory import TrajectoryWriter


def glassy(seed=0, n_atoms=120, na2o=0.0):
    atoms = random_start(n_atoms, na2o, 2.2, seed).to_ase()
    atoms.set_cell(atoms.cell * (1 + 0.01 * seed), scale_atoms=True)
    return atoms


def trajectory(path, count=4, **options):
    made = [glassy(seed, **options) for seed in range(count)]
    for number, atoms in enumerate(made):
        atoms.info["segment"] = "melt" if number == 0 else "hold"
    ase.io.write(path, made, format="extxyz")
    return made


def test_streamed_analysis_equals_that_of_frames_in_memory(tmp_path, monkeypatch):
    trajectory(tmp_path / "run.xyz", na2o=0.2)
    held = list(read_frames(tmp_path / "run.xyz"))
    monkeypatch.setattr(frames, "HELD_ATOMS", 200)
    streamed = read_frames(tmp_path / "run.xyz")
    assert len(streamed) == len(held) == 3 and not streamed.held
    most = 0
    for number, atoms in enumerate(streamed):
        np.testing.assert_array_equal(atoms.positions, held[number].positions)
        most = max(most, len(streamed._held))
    assert most == 1
    one, other = (analyze(given, q_max=8.0) for given in (held, streamed))
    # finufft's threads add in the order they come, 1e-15 of a mode; everything else is the same to the bit.
    of_modes = {"partial_sq", "neutron_sq", "xray_sq", "tr_neutron", "fsdp"}
    for field in fields(one):
        if field.name not in of_modes:
            np.testing.assert_equal(getattr(other, field.name), getattr(one, field.name), err_msg=field.name)
    np.testing.assert_allclose(other.neutron_sq, one.neutron_sq, atol=1e-10)
    assert len(one.rings) == 3 and one.rings["king"].sum() > 0


def test_frames_of_every_format_are_the_same(tmp_path):
    state = State.from_ase(glassy())
    writers = [TrajectoryWriter(tmp_path / name) for name in ("run.xyz", "run.nc")]
    for _ in range(3):
        state.positions += 0.1
        for writer in writers:
            writer.write(state, "hold")
    ase.io.write(tmp_path / "run.traj", [state.to_ase()] * 3)
    ase.io.write(tmp_path / "run.data", state.to_ase(), format="lammps-data", specorder=["Si", "O"], masses=True)
    ase.io.write(tmp_path / "run.cif", state.to_ase())
    for name, count, precise in (
        ("xyz", 3, 1e-7),
        ("nc", 3, 1e-5),
        ("traj", 3, 0),
        ("data", 1, 1e-7),
        ("cif", 1, 1e-2),
    ):
        read = read_frames(tmp_path / f"run.{name}")
        assert len(read) == count, name
        np.testing.assert_allclose(read[-1].cell.array, state.cell, atol=precise, err_msg=name)
        assert (read[-1].numbers == state.atomic_numbers.numpy()).all(), name
        apart = read[-1].get_scaled_positions(wrap=False) - state.to_ase().get_scaled_positions(wrap=False)
        np.testing.assert_allclose(apart - np.round(apart), 0, atol=precise + 1e-12, err_msg=name)


def test_a_lammps_file_without_masses_needs_the_elements(tmp_path, monkeypatch):
    ase.io.write(tmp_path / "glass.data", glassy(), format="lammps-data", specorder=["Si", "O"])
    with pytest.raises(ValueError, match=r"LAMMPS atom types .*elements=\['Si', 'O'\]"):
        read_frames(tmp_path / "glass.data")
    monkeypatch.setattr(frames, "HELD_ATOMS", 1)
    read = read_frames(tmp_path / "glass.data", elements=["Si", "O"])
    for _ in range(2):  # read anew each time
        assert read[0].get_chemical_formula() == "O80Si40"


def test_xyz_is_read_as_ase_reads_it(tmp_path):
    made = trajectory(tmp_path / "run.xyz")
    made[2].set_momenta(made[2].positions * 0.1)
    made[2].info |= {"step": 7, "note": "two words"}
    ase.io.write(tmp_path / "run.xyz", made, format="extxyz")
    file = FrameFile(tmp_path / "run.xyz")
    for number, expected in enumerate(ase.io.read(tmp_path / "run.xyz", index=":")):
        atoms = file.read(number)
        assert atoms == expected
        assert atoms.info == expected.info and file.segment(number) == expected.info["segment"]
        np.testing.assert_array_equal(atoms.get_momenta(), expected.get_momenta())


def test_the_old_dialect_with_the_cell_behind_the_atoms(tmp_path):
    frame = "2\nno comment\nSi 0 0 0\nO 1 0 0\nVEC1 5 0 0\nVEC2 0 6 0\nVEC3 0 0 7\n"
    (tmp_path / "old.xyz").write_text(2 * frame)
    file = FrameFile(tmp_path / "old.xyz")
    assert len(file) == 2
    assert [file.read(number).cell.lengths().tolist() for number in range(2)] == [[5, 6, 7]] * 2


def test_a_frame_that_was_not_finished_is_left_out_or_named(tmp_path):
    path = tmp_path / "trajectory.xyz"
    writer, state = TrajectoryWriter(path), State.from_ase(glassy())
    writer.write(state, "hold")
    whole = path.read_bytes()
    writer.write(state, "hold")
    second = path.read_bytes()[len(whole) :]
    # As a kill leaves it: the count of the atoms is still blank.
    path.write_bytes(whole + b" " * 3 + second[3:-50])
    assert len(read_frames(path)) == 1
    path.write_bytes(whole + second[:-2000])
    with pytest.raises(ValueError, match=r"ASE cannot read .*frame 1 ends before its 120 atoms"):
        read_frames(path)


def test_frames_of_a_large_file_are_checked_when_they_are_read(tmp_path, monkeypatch):
    made = [glassy(seed) for seed in range(3)]
    made[2].positions[4, 1] = np.nan
    ase.io.write(tmp_path / "run.xyz", made, format="extxyz")
    with pytest.raises(ValueError, match=r"run\.xyz, frame 2: positions or cell are not finite"):
        read_frames(tmp_path / "run.xyz")
    monkeypatch.setattr(frames, "HELD_ATOMS", 200)
    with pytest.raises(ValueError, match="frame 2: positions or cell are not finite"):
        analyze(read_frames(tmp_path / "run.xyz"), q_max=5.0)


def test_damaged_and_empty_files_are_named(tmp_path):
    (tmp_path / "run.nc").write_bytes(b"CDF\x02 nothing of the kind")
    with pytest.raises(ValueError, match=r"ASE cannot read .*run\.nc"):
        read_frames(tmp_path / "run.nc")
    (tmp_path / "empty.xyz").write_text("")
    with pytest.raises(ValueError, match=r"empty\.xyz holds no frames"):
        read_frames(tmp_path / "empty.xyz")


def test_moments_and_frequencies_in_parts_equal_the_whole():
    rng = np.random.default_rng(0)
    values = 1e6 + rng.normal(size=1000)
    moments, frequencies = Moments(), Frequencies()
    for part in np.split(values, [1, 1, 400, 999]):
        moments.add(part)
    assert moments.count == 1000
    # Without loss of digits: a sum of squares would leave 1e-4 here.
    assert (moments.mean, moments.std) == pytest.approx((values.mean(), values.std()), rel=1e-9)
    whole = rng.integers(0, 9, 500)
    for part in (whole[:7] % 3, whole[7:]):
        frequencies.add(part)
    both = np.concatenate([whole[:7] % 3, whole[7:]])
    assert frequencies.fractions() == {int(n): (both == n).mean() for n in np.unique(both)}


def test_progress_goes_from_stage_to_stage_and_ends_at_one():
    shown = []
    analyze([glassy(seed) for seed in range(2)], q_max=5.0, progress=Progress(lambda *what: shown.append(what)))
    stages = list(dict.fromkeys(name for name, _ in shown))
    assert stages == ["reading", "g(r)", "bonds and rings", "S(Q)", ""]
    fractions = [fraction for _, fraction in shown]
    assert fractions == sorted(fractions) and fractions[0] == 0.0 and fractions[-1] == 1.0
    assert len(shown) == 4 * 3 + 1


def test_stages_are_shown_line_by_line_where_there_is_no_terminal():
    stream = io.StringIO()
    with stages_shown(stream) as show:
        for stage, fraction in (("reading", 0.0), ("S(Q)", 0.25), ("S(Q)", 0.5), ("", 1.0)):
            show(stage, fraction)
    lines = stream.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["0", "25", "100"]
    assert lines[1].endswith("left  S(Q)") and "step" not in stream.getvalue()


def test_analyze_shows_its_stages_and_the_rings(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    trajectory(tmp_path / "run.xyz")
    assert main(["analyze", "run.xyz", "--q-max", "6"]) == 0
    shown = capsys.readouterr()
    assert "six-rings among King rings" in shown.out
    assert "bonds and rings" in shown.err and "3 frames; run-report/report.html written" in shown.err
    summary = json.loads((tmp_path / "run-report" / "summary.json").read_text())
    rings = summary["curves"]["rings"]
    assert set(rings) == {"king", "guttman", "primitive"} and len(rings["king"]) == 13
    assert (tmp_path / "run-report" / "report" / "rings.png").exists()


def test_rings_equal_the_reference(shared):
    """Independent counts of primitive rings; shared/data/networks."""
    expected = json.loads((shared / "data" / "networks" / "networks_rings.json").read_text())["networks"]
    name = "sio2_glass_amorphouspy_3000.xyz"
    found = analyze(read_frames(shared / "data" / "networks" / name), q_max=3.0, cutoffs={"Si-O": 2.2}).rings
    total = np.zeros(13)
    for size, count in expected[name]["primitive_distinct_rings_total"].items():
        total[int(size)] = count
    np.testing.assert_allclose(1000 * found["primitive"], total)
    # Every Guttman ring is the shortest of a bond, so of an angle as well: none more than King's of the same size.
    assert (found["guttman"] <= found["king"] + 1e-12).all() and found["guttman"].sum() > 0


def test_rings_are_counted_in_silica_only():
    atoms = Atoms("NaCl", positions=[[0, 0, 0], [2.8, 0, 0]], cell=[5.6, 4, 4], pbc=True)
    assert analyze([atoms], q_max=5.0).rings == {}
    assert Composition.of(atoms).counts == {"Na": 1, "Cl": 1}
