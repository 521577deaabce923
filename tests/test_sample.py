"""Training sets from a teacher: labels, choice, splits, files that others read, interruptions, refusals."""

import json
import os
import signal

import ase.io
import numpy as np
import pytest
from ase import Atoms

import rsa_kernels as rk
from silica_md import potentials
from silica_md.cli import main
from silica_md.errors import ConfigError, RunExistsError
from silica_md.labelled import labelled, rounded, write_labelled
from silica_md.sample import Plan, farthest_points, make, stratified
from silica_md.sample.descriptor import Descriptor, standardized
from silica_md.sample.frames import frames_of
from silica_md.sample.labels import Teacher
from silica_md.sample.plan import teacher
from silica_md.sample.select import coverage, representative, temperature_strata
from silica_md.state import State

SEGMENTS = """
log_every = 20
frame_ps = 0.02
[[segment]]
name = "melt"
temperature_K = 3600
duration_ps = 0.2
relaxation_fs = 20
[[segment]]
name = "quench"
ramp_to_K = 300
duration_ps = 0.4
ensemble = "npt"
"""
COUNTS = {"train": 24, "valid": 6, "test": 5, "runs": 4, "density_spread": 0.05, "skip_ps": 0.04}


def plan_of(tmp_path, given=(), **changes):
    toml = tmp_path / "runs.toml"
    toml.write_text(SEGMENTS)
    settings = {"atoms": 48, "threads": 1, "device": "cpu", "seed": 5} | dict(given)
    return Plan(teacher(settings, toml), **COUNTS | {"strata": 4} | changes)


def bytes_of(folder):
    return {name: (folder / name).read_bytes() for name in ("train.xyz", "valid.xyz", "test.xyz", "sample.json")}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small set: its folder and its plan."""
    path = tmp_path_factory.mktemp("set")
    plan = plan_of(path, copies=6, strain=0.04, rattle_A=0.1)
    assert make(plan, path / "out", lambda text: None)
    return path / "out", plan


def frames_in(made, name):
    return ase.io.read(made[0] / f"{name}.xyz", ":")


def stress_of(atoms):
    """Nine numbers in a row of the comment line."""
    return atoms.info["REF_stress"].reshape(3, 3)


def relabelled(made, atoms, **changes):
    """Energy, forces and stress by the potential that the record names, built here."""
    told = json.loads((made[0] / "sample.json").read_text())["teacher"]
    options = told["options"] | {"ewald": told["options"]["ewald"] | changes}
    state = State.from_ase(atoms)
    potential = potentials.build(told["potential"], state.atomic_numbers, **options)
    neighbors = rk.neighbor_list(state.positions, state.cell, state.pbc, potential.cutoff)
    result = potential.evaluate(state, neighbors, energy=True, virial=True)
    return float(result.energy), result.forces.numpy(), (-result.virial / state.volume()).numpy()


# --- what comes out ----------------------------------------------------------------------------------------------


def test_sets_have_the_configurations_and_say_what_they_are(made):
    folder, plan = made
    record = json.loads((folder / "sample.json").read_text())
    assert record["teacher"]["potential"] == "bks"
    assert record["teacher"]["options"]["coulomb"] == "ewald", "the default teacher sums all of the Coulomb energy"
    assert Plan.from_dict(record["plan"]) == plan
    for name, n in (("train", 24 + 6), ("valid", 6), ("test", 5)):
        frames = frames_in(made, name)
        assert len(frames) == n == record["sets"][name]["all"]["configurations"]
        for atoms in frames:
            info = atoms.info
            assert atoms.get_chemical_formula() == "O32Si16"
            assert atoms.pbc.all()
            assert info["stage"] in ("melt", "quench")
            assert info["time_ps"] >= plan.skip_ps
            kinds = ("copy",) if "copy_of" in info else ("liquid", "transition", "glass")
            assert info["config_type"] in kinds
            density = atoms.get_masses().sum() / atoms.get_volume() * 1.66053906660
            if "copy_of" not in info:
                assert info["density_g_cm3"] == pytest.approx(density, abs=1e-5)
                assert 300.0 <= info["temperature_K"] <= 3600.0
    assert (folder / "sample.png").read_bytes().startswith(b"\x89PNG")


def test_every_temperature_range_gets_its_share(made):
    record = json.loads((made[0] / "sample.json").read_text())
    assert record["selection"]["in_each"]["train"] == [6, 6, 6, 6]
    kinds = {atoms.info["config_type"] for atoms in frames_in(made, "train")[:24]}
    assert kinds == {"liquid", "transition", "glass"}


def test_temperatures_are_those_of_the_schedule(made):
    for atoms in frames_in(made, "train")[:24]:
        time = atoms.info["time_ps"]
        expected = 3600.0 if time <= 0.2 + 1e-9 else 3600.0 - 3300.0 * (time - 0.2) / 0.4
        assert atoms.info["temperature_K"] == pytest.approx(expected, abs=1e-2)


def test_labels_are_the_teachers_own(made):
    """Files hold what the teacher gives for the positions in them: the same sums on the same numbers."""
    for name in ("train", "valid", "test"):
        for atoms in frames_in(made, name)[-4:]:
            energy, forces, stress = relabelled(made, atoms)
            assert atoms.info["REF_energy"] == pytest.approx(energy, abs=1e-10)
            np.testing.assert_allclose(atoms.arrays["REF_forces"], forces, rtol=0, atol=1e-10)
            np.testing.assert_allclose(stress_of(atoms), stress, rtol=0, atol=1e-12)
            assert np.abs(forces).max() > 0.5, "something to learn"


def test_labels_do_not_depend_on_how_the_sum_is_split(made):
    """Another σ moves work from waves to pairs; cut off at 10 Å, 2.0 Å leaves less than 1e-5 of a force."""
    atoms = frames_in(made, "test")[0]
    energy, forces, stress = relabelled(made, atoms, sigma=1.5, k_cut=4.5)
    assert atoms.info["REF_energy"] == pytest.approx(energy, abs=1e-5)
    np.testing.assert_allclose(atoms.arrays["REF_forces"], forces, rtol=0, atol=1e-6)
    np.testing.assert_allclose(stress_of(atoms), stress, rtol=0, atol=1e-8)


def test_cells_smaller_than_the_cutoff_are_labelled_like_their_supercells(made):
    """Edges of 9 Å under a cutoff of 10 Å: every pair with all its images, so the supercell has the same labels."""
    for name in ("train", "test"):
        atoms = frames_in(made, name)[-1]  # of train: a strained copy
        assert max(atoms.cell.lengths()) < 10.0
        energy, forces, stress = relabelled(made, atoms.repeat((2, 1, 2)))
        assert energy / 4 == pytest.approx(atoms.info["REF_energy"], abs=1e-8)
        np.testing.assert_allclose(forces, np.tile(atoms.arrays["REF_forces"], (4, 1)), rtol=0, atol=1e-8)
        np.testing.assert_allclose(stress, stress_of(atoms), rtol=0, atol=1e-10)


def test_forces_and_stress_have_the_signs_of_the_convention(made):
    atoms = frames_in(made, "train")[0]
    step = 1e-4

    def energy(**moved):
        other = atoms.copy()
        if "atom" in moved:
            other.positions[moved["atom"], moved["axis"]] += moved["by"]
        else:
            strain = np.eye(3)
            strain[0, 0] += moved["by"]
            other.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        return relabelled(made, other)[0]

    slope = (energy(atom=7, axis=1, by=step) - energy(atom=7, axis=1, by=-step)) / (2 * step)
    assert atoms.arrays["REF_forces"][7, 1] == pytest.approx(-slope, abs=1e-4)
    slope = (energy(by=step) - energy(by=-step)) / (2 * step * atoms.get_volume())
    assert stress_of(atoms)[0, 0] == pytest.approx(slope, abs=1e-5), "positive in tension"


def test_copies_are_strained_rattled_and_marked(made):
    frames = frames_in(made, "train")
    copies = [atoms for atoms in frames if "copy_of" in atoms.info]
    assert len(copies) == 6
    sources = np.array([frames[atoms.info["copy_of"]].info["temperature_K"] for atoms in copies])
    assert len(set(temperature_strata(np.append(sources, [300.0, 3600.0]), 4)[:6].tolist())) >= 3, "hot and cold"
    for atoms in copies:
        original = frames[atoms.info["copy_of"]]
        strain = np.linalg.solve(original.cell.array, atoms.cell.array) - np.eye(3)
        assert 0.005 < np.abs(strain).max() < 0.04
        np.testing.assert_allclose(strain, strain.T, atol=1e-12)
        moved = atoms.get_scaled_positions() - original.get_scaled_positions()
        moved = (moved - np.round(moved)) @ atoms.cell.array
        assert 0.07 < moved.std() < 0.13, "0.1 Å asked for"
        assert abs(atoms.info["REF_energy"] - original.info["REF_energy"]) > 0.1
        assert atoms.info["stage"] == original.info["stage"]


def test_atoms_too_close_in_a_copy_are_spread_less(made):
    config = made[1].teacher
    atoms = frames_in(made, "test")[0]
    source = Teacher(config, atoms, 1e-6)
    copy = source.copy(atoms, 0.0, 2.0, seed=3, number=0, info={})  # 2 Å would put atoms upon each other
    distances = copy.get_all_distances(mic=True)
    assert distances[distances > 0].min() > 0.9
    moved = copy.get_scaled_positions() - atoms.get_scaled_positions()
    assert 0.05 < ((moved - np.round(moved)) @ atoms.cell.array).std() < 1.1


def test_isolated_energies_are_said_to_be_undetermined(made):
    record = json.loads((made[0] / "sample.json").read_text())["atomic_energies"]
    assert not record["determined"]
    found = record["E0s_eV"]
    frames = frames_in(made, "train")
    mean = np.mean([atoms.info["REF_energy"] for atoms in frames])
    assert 16 * found["Si"] + 32 * found["O"] == pytest.approx(mean, abs=1e-6)


# --- readers -----------------------------------------------------------------------------------------------------


def test_mace_reads_the_files(made):
    from mace import data
    from mace.data.utils import KeySpecification
    from mace.tools import AtomicNumberTable

    keys = KeySpecification(
        info_keys={"energy": "REF_energy", "stress": "REF_stress", "head": "head"},
        arrays_keys={"forces": "REF_forces"},
    )
    _, configurations = data.load_from_xyz(str(made[0] / "train.xyz"), key_specification=keys)
    frames = frames_in(made, "train")
    assert len(configurations) == len(frames)
    for configuration, atoms in zip(configurations, frames, strict=True):
        assert configuration.properties["energy"] == atoms.info["REF_energy"]
        assert configuration.property_weights["stress"] == configuration.property_weights["forces"] == 1.0
        np.testing.assert_array_equal(configuration.properties["forces"], atoms.arrays["REF_forces"])
        assert configuration.config_type == atoms.info["config_type"]
    graph = data.AtomicData.from_config(configurations[0], AtomicNumberTable([8, 14]), cutoff=4.0)
    np.testing.assert_allclose(graph.stress[0].numpy(), stress_of(frames[0]), rtol=1e-6, atol=1e-9)
    again = data.utils.config_from_atoms(frames[0], keys)
    assert again.properties["energy"] == configurations[0].properties["energy"]


def test_files_give_the_same_numbers_back(tmp_path):
    generator = np.random.default_rng(0)
    cell = np.diag([3.0, 4.0, 5.0]) + 0.1 * generator.random((3, 3))
    atoms = rounded(Atoms("SiO2", positions=9.0 * generator.random((3, 3)) - 4.0, cell=cell, pbc=True))
    forces = np.round(generator.standard_normal((3, 3)), 12)
    stress = generator.standard_normal((3, 3))
    stress += stress.T
    given = labelled(atoms, -1.0 / 3.0, forces, stress, {"stage": "a b", "run": 3, "good": True, "x": 1e-9})
    write_labelled(tmp_path / "a.xyz", [given, given])
    first, second = ase.io.read(tmp_path / "a.xyz", ":")
    for read in (first, second):
        np.testing.assert_array_equal(read.positions, atoms.positions)
        np.testing.assert_array_equal(read.cell.array, cell)
        np.testing.assert_array_equal(read.arrays["REF_forces"], forces)
        np.testing.assert_array_equal(stress_of(read), stress)
        assert read.info["REF_energy"] == -1.0 / 3.0
        assert read.info["stage"] == "a b"
        assert read.info["run"] == 3
        assert read.info["good"] is True or read.info["good"] == np.True_
        assert read.info["x"] == 1e-9


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda atoms: atoms.info.pop("REF_stress"), "REF_stress"),
        (lambda atoms: atoms.arrays.pop("REF_forces"), "REF_forces"),
        (lambda atoms: atoms.info.update(stage='a"b'), "stage"),
        (lambda atoms: atoms.info.update(REF_energy=float("nan")), "REF_energy"),
        (lambda atoms: atoms.arrays["REF_forces"].fill(np.inf), "finite"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, damage, said):
    atoms = labelled(Atoms("O", cell=[3] * 3, pbc=True), 1.0, np.ones((1, 3)), np.eye(3))
    damage(atoms)
    with pytest.raises(ValueError, match=said):
        write_labelled(tmp_path / "a.xyz", [atoms])
    assert not list(tmp_path.iterdir())


# --- choice ------------------------------------------------------------------------------------------------------


def crowd_and_loners():
    """A thousand points in a crowd, and ten far from it and from each other."""
    generator = np.random.default_rng(1)
    crowd = 0.1 * generator.standard_normal((1000, 3))
    loners = 10.0 * generator.standard_normal((10, 3))
    return np.concatenate([crowd, loners])


def test_farthest_points_find_what_chance_misses():
    points = crowd_and_loners()
    chosen = farthest_points(points, 11)
    assert set(range(1000, 1010)) <= set(chosen.tolist()), "all that is far is found"
    ours = coverage(points, chosen)["largest_distance"]
    at_random = [coverage(points, representative(np.zeros(1010), 11, seed))["largest_distance"] for seed in range(20)]
    assert ours < 0.6
    assert min(at_random) > 3.0


def test_farthest_points_are_a_good_cover():
    """Greedy farthest points reach at most twice the best possible covering radius (Gonzalez 1985): here, points on a
    line, the best is known."""
    points = np.linspace(0.0, 1.0, 1001)[:, None]
    for n in (2, 5, 9):
        assert coverage(points, farthest_points(points, n))["largest_distance"] <= 2 * 0.5 / n


def test_choice_is_deterministic_and_takes_the_first_of_equals():
    points = crowd_and_loners()
    np.testing.assert_array_equal(farthest_points(points, 50), farthest_points(points.copy(), 50))
    square = np.array([[0.0, 0.0], [1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    assert farthest_points(square, 5).tolist() == [0, 1, 2, 3, 4]


def test_strata_get_equal_shares_as_far_as_they_last():
    points = np.random.default_rng(2).standard_normal((100, 4))
    strata = np.repeat([0, 1, 2], [80, 15, 5])
    chosen = stratified(points, strata, 35)
    assert np.bincount(strata[chosen]).tolist() == [15, 15, 5]
    assert len(set(chosen.tolist())) == 35
    others = representative(strata, 35, seed=1)
    assert np.bincount(strata[others]).tolist() == [15, 15, 5]
    assert len(set(others.tolist())) == 35
    np.testing.assert_array_equal(others, representative(strata, 35, seed=1))
    assert not np.array_equal(others, representative(strata, 35, seed=2))


def test_a_stratum_sees_what_others_chose():
    """Both strata hold the same two points; the second takes the one the first has left."""
    points = np.array([[0.0], [1.0], [0.0], [1.0]])
    first, second = stratified(points, np.array([0, 0, 1, 1]), 2).tolist()
    assert points[first, 0] != points[second, 0]


def test_more_than_there_is_is_refused():
    with pytest.raises(ConfigError, match="only 5"):
        farthest_points(np.zeros((5, 2)), 6)
    with pytest.raises(ConfigError, match="only 3"):
        farthest_points(np.zeros((5, 2)), 4, chosen=np.array([0, 1]))
    with pytest.raises(ConfigError, match="only 5"):
        representative(np.zeros(5), 6, seed=0)


def test_temperatures_fall_into_ranges():
    assert temperature_strata(np.array([300.0, 1299.0, 1301.0, 2300.0]), 2).tolist() == [0, 0, 1, 1]
    assert temperature_strata(np.full(3, 300.0), 5).tolist() == [0, 0, 0]


def test_descriptor_sees_structure_and_nothing_else(made):
    atoms = frames_in(made, "train")[0]
    describe = Descriptor(atoms.numbers)
    kinds = describe.of(atoms, -19.0)
    assert set(kinds) == {"pairs", "angles", "coordination", "rings", "energy", "density"}

    turned = Atoms(atoms.numbers, atoms.positions[:, [1, 2, 0]], cell=atoms.cell.array[:, [1, 2, 0]], pbc=True)
    moved = atoms.copy()
    moved.positions += [0.3, -7.0, 11.0]
    silicon = np.flatnonzero(atoms.numbers == 14)
    swapped = atoms.copy()
    swapped.positions[silicon] = atoms.positions[silicon[::-1]]
    for same in (turned, moved, swapped):
        for kind, vector in describe.of(same, -19.0).items():
            np.testing.assert_allclose(vector, kinds[kind], atol=1e-9, err_msg=kind)


def test_descriptor_tells_glass_from_melt(made):
    frames = frames_in(made, "train")[:24] + frames_in(made, "valid") + frames_in(made, "test")
    describe = Descriptor(frames[0].numbers)
    features = standardized([describe.of(atoms, atoms.info["REF_energy"] / 48) for atoms in frames])
    squares = ((features[:, None] - features[None]) ** 2).sum(-1)
    assert 2.0 < squares.mean() < 6.0, "weights of the kinds, 5.5 in all with those that vary"
    kind = np.array([atoms.info["temperature_K"] for atoms in frames])
    hot, cold = kind > 3000, kind < 900
    assert squares[np.ix_(hot, cold)].mean() > 1.2 * squares[np.ix_(hot, hot)].mean()


def test_a_quantity_that_does_not_vary_is_left_out():
    same = [{"energy": np.array([x]), "density": np.array([2.2])} for x in (1.0, 2.0, 3.0)]
    assert standardized(same).shape == (3, 1)
    assert standardized(same[:1]).shape == (1, 1)


# --- splits ------------------------------------------------------------------------------------------------------


def test_no_run_is_in_two_sets(made):
    runs = {name: {atoms.info["run"] for atoms in frames_in(made, name)} for name in ("train", "valid", "test")}
    assert runs == {"train": {0, 1}, "valid": {2}, "test": {3}}


def test_densities_spread_and_the_held_back_runs_lie_inside(tmp_path):
    plan = plan_of(tmp_path, {"density_g_cm3": 2.0}, runs=8, valid_runs=2, test_runs=1, density_spread=0.1)
    densities = np.array([config.density_g_cm3 for config in plan.configs()])
    np.testing.assert_allclose(densities[:5], [1.8, 1.9, 2.0, 2.1, 2.2])
    assert 1.8 < densities[5:].min() < densities[5:].max() < 2.2
    assert len({config.seed for config in plan.configs()}) == 8


def test_frames_may_be_dealt_out_in_blocks(tmp_path):
    counts = {"runs": 1, "train": 40, "valid": 4, "test": 3}
    plan = plan_of(tmp_path, {"frame_ps": 0.005}, split="frames", density_spread=0.0, **counts)
    assert make(plan, tmp_path / "out", lambda text: None)
    times = {name: [a.info["time_ps"] for a in frames_in((tmp_path / "out",), name)] for name in ("valid", "test")}
    first = plan.skip_ps + 0.005 * np.array([80, 90, 100])  # blocks 8 and 9 of ten frames each
    assert all(first[0] - 1e-9 <= t < first[1] - 1e-9 for t in times["valid"])
    assert all(first[1] - 1e-9 <= t < first[2] - 1e-9 for t in times["test"])


def test_runs_take_compositions_and_ensembles_in_turn(tmp_path):
    given = {"potential": "pmmcs", "atoms": 60, "threads": 1}
    plan = Plan(teacher(given), na2o=(0.0, 0.2), ensemble="both", runs=4, density_spread=0.0)
    configs = plan.configs()
    assert [config.na2o for config in configs] == [0.0, 0.2, 0.0, 0.2]
    assert configs[0].density_g_cm3 == pytest.approx(2.2, abs=0.01)
    assert configs[1].density_g_cm3 == pytest.approx(2.38, abs=0.03)
    ensembles = [config.segment[-1].ensemble for config in configs]
    assert ensembles == ["nvt", "npt", "nvt", "npt"]
    assert configs[0].coulomb == "ewald"


def test_two_compositions_make_one_set(tmp_path):
    given = {"potential": "shik", "atoms": 30}
    plan = plan_of(tmp_path, given, na2o=(0.0, 0.2), density_spread=0.0, train=20, valid=4, test=4)
    assert make(plan, tmp_path / "out", lambda text: None)
    formulas = {atoms.get_chemical_formula() for atoms in frames_in((tmp_path / "out",), "train")}
    assert formulas == {"O20Si10", "Na4O18Si8"}
    record = json.loads((tmp_path / "out" / "sample.json").read_text())
    assert sum(record["selection"]["in_each"]["train"]) == 20


def test_frames_are_counted_beforehand(made):
    record = json.loads((made[0] / "sample.json").read_text())
    counted = [frames_of(config, made[1].skip_ps) for config in made[1].configs()]
    assert [run["frames"] for run in record["runs"]] == counted


# --- again, and interrupted --------------------------------------------------------------------------------------


def test_the_same_plan_gives_the_same_files_and_interruptions_do_not_matter(made, tmp_path):
    """Killed between runs, then told to stop in one, then finished."""
    path = tmp_path / "out"

    def killed(text):
        if text.startswith("run 2 of 4"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(made[1], path, killed)

    def stopped(text):
        if text.startswith("Ewald"):  # said inside the run
            os.kill(os.getpid(), signal.SIGTERM)

    assert not make(made[1], path, stopped, resume=True)
    assert not (path / "train.xyz").exists()
    assert not (path / "runs" / "01" / "final.xyz").exists()
    assert (path / "runs" / "01" / "checkpoints").exists()
    assert make(made[1], path, lambda text: None, resume=True)
    assert bytes_of(path) == bytes_of(made[0])


def test_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs.toml").write_text(SEGMENTS)
    flags = "--config runs.toml --atoms 24 --threads 1 --runs 3 --train 9 --valid 3 --test 3 --skip 0.04 --out set"
    assert main(["sample", *flags.split()]) == 0
    shown = capsys.readouterr()
    assert "run 3 of 3" in shown.err
    assert "left for all runs" in shown.err
    assert "largest distance of a frame" in shown.out
    assert "glass" in shown.out
    assert main(["sample", "--resume", "--out", "set"]) == 0
    assert "is finished" in capsys.readouterr().err

    def refused(arguments, said):
        assert main(["sample", *arguments.split()]) == 1
        text = capsys.readouterr().err
        assert text.startswith("error: ")
        assert said in text
        assert text.count("\n") == 1

    refused(flags, "not overwritten")
    refused("--resume --out set --train 5", "--train cannot be changed")
    refused("--resume --out nowhere", "no plan.json")
    refused("--out new --potential bsk", "did you mean 'bks'")
    refused("--out new --potential bks --na2o 0.2 --density 2.3", "Na")
    refused("--out new --runs 2", "--split frames")
    refused("--out new --train 100000", "lower --train")
    refused("--out new --coulomb ewald --potential shik", "part of the model")
    refused("--out new --strain 0.7", "strain")
    refused("--out new --config runs.toml --melt 4000", "segments are listed")
    refused("--out new --atoms 50", "multiple of 3")
    refused("--out new --start x.xyz", "density_spread")
    assert not (tmp_path / "new").exists()


def test_a_taken_folder_stays_as_it_is(made, tmp_path):
    (tmp_path / "mine.txt").write_text("do not touch")
    with pytest.raises(RunExistsError, match="not overwritten"):
        make(made[1], tmp_path, lambda text: None)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    before = bytes_of(made[0])
    with pytest.raises(RunExistsError, match=r"see .*sample\.json"):
        make(made[1], made[0], lambda text: None)
    assert bytes_of(made[0]) == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train": 0}, "train"),
        ({"valid": -1}, "valid"),
        ({"split": "atoms"}, "split"),
        ({"ensemble": "nve"}, "ensemble"),
        ({"runs": 2}, "split frames"),
        ({"valid_runs": 0}, "valid_runs"),
        ({"transition_K": (3000.0, 2000.0)}, "transition_K"),
        ({"label_accuracy": 0.0}, "label_accuracy"),
        ({"density_spread": 0.5}, "density_spread"),
    ],
)
def test_wrong_plans_are_refused(tmp_path, changes, said):
    with pytest.raises(ConfigError, match=said):
        plan_of(tmp_path, **changes)


def test_damaged_plans_are_refused(made):
    plain = made[1].to_dict()
    assert Plan.from_dict(plain) == made[1]
    with pytest.raises(ConfigError, match="no plan"):
        Plan.from_dict({key: value for key, value in plain.items() if key != "teacher"})
    with pytest.raises(ConfigError, match="no plan"):
        Plan.from_dict(plain | {"colour": 1})


def test_a_file_of_the_teacher_wins_over_the_usual_and_flags_over_the_file(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('potential = "shik"\natoms = 1500\n')
    assert teacher({}).potential == "bks"
    assert teacher({}).atoms == 96
    assert teacher({}, path).potential == "shik", "though it is what a quench would take by itself"
    assert teacher({}, path).atoms == 1500
    assert teacher({"atoms": 48}, path).atoms == 48
    assert teacher({"potential": "bks", "coulomb": "dsf"}).coulomb == "dsf"
    assert teacher({"potential": "bks", "potential_options": {"coulomb": "dsf"}}).coulomb == ""
