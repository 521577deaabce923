"""Segments laid end to end, configurations, and what is refused in them."""

import ase.io
import pytest

from silica_md import config
from silica_md.barostat import ConstantPressure, FlexibleRescaling
from silica_md.errors import ConfigError
from silica_md.integrators import NoseHoover, VelocityVerlet
from silica_md.schedule import Schedule, Segment
from silica_md.start import composition, measured_density, random_start
from silica_md.trajectory import TrajectoryWriter


def test_ramp_goes_from_the_segment_before():
    schedule = Schedule(
        [
            Segment("melt", temperature_K=4000, duration_ps=1.0),
            Segment("quench", ramp_to_K=300, rate_K_per_ps=40),
            Segment("anneal", temperature_K=800, duration_ps=0.5),
            Segment("free", ensemble="nve", duration_ps=0.1),
            Segment("cool", ramp_to_K=300, duration_ps=2.0),
        ],
        timestep_fs=2.0,
    )
    melt, quench, anneal, free, cool = schedule.stages
    assert [stage.last_step - stage.first_step for stage in schedule.stages] == [500, 46250, 250, 50, 1000]
    assert schedule.steps == cool.last_step
    assert melt.temperature(1) == melt.temperature(500) == 4000
    assert quench.temperature(quench.first_step) == 4000
    assert quench.temperature(quench.last_step) == 300
    assert quench.temperature(quench.first_step + 12500) == pytest.approx(4000 - 40 * 25)
    assert (anneal.temperature(anneal.first_step + 1), free.start_K) == (800, None)
    assert (cool.start_K, cool.end_K) == (800, 300)
    assert [stage.segment.name for stage in schedule.remaining(500)] == ["quench", "anneal", "free", "cool"]
    assert isinstance(free.integrator(2.0, 1), VelocityVerlet)


def test_segment_makes_its_integrator():
    segment = Segment(
        "hold", temperature_K=300, duration_ps=1, ensemble="npt-flexible", thermostat="nose-hoover", pressure_GPa=1.6
    )
    integrator = Schedule([segment], 1.0).stages[0].integrator(1.0, seed=3)
    assert isinstance(integrator, ConstantPressure)
    assert isinstance(integrator.thermostat, NoseHoover)
    assert isinstance(integrator.barostat, FlexibleRescaling)
    assert integrator.pressure == pytest.approx(0.01, rel=0.01)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"temperature_K": 300}, "`duration_ps`"),
        ({"duration_ps": 1}, "`temperature_K`.*`ramp_to_K`"),
        ({"temperature_K": 300, "ramp_to_K": 300, "duration_ps": 1}, "either"),
        ({"ramp_to_K": 300, "duration_ps": 1, "rate_K_per_ps": 40}, "not both"),
        ({"temperature_K": 300, "duration_ps": 1, "rate_K_per_ps": 40}, "belongs to a ramp"),
        ({"temperature_K": -1.0, "duration_ps": 1}, "`temperature_K` must be positive"),
        ({"temperature_K": 300, "duration_ps": 1, "ensemble": "ntv"}, "`ensemble`.*nve, nvt.*'ntv'"),
        ({"temperature_K": 300, "duration_ps": 1, "thermostat": "csvr"}, "`thermostat`"),
        ({"temperature_K": 300, "duration_ps": 1, "pressure_GPa": float("nan")}, "`pressure_GPa`"),
    ],
)
def test_contradictions_in_a_segment_are_refused(keys, message):
    with pytest.raises(ConfigError, match=f"segment 'x'.*{message}"):
        Segment("x", **keys)


@pytest.mark.parametrize(
    "name", ["", "x" * 65, "glühen", "a\nb", 'a"b', "it's", "a\\b", "300", "T", "T F", "nan", " a", "é"]
)
def test_names_that_a_trajectory_cannot_hold_are_refused(name):
    with pytest.raises(ConfigError, match="`name` must be"):
        Segment(name, temperature_K=300, duration_ps=1)


@pytest.mark.parametrize("name", ["x" * 64, "hold at 300 K", "quench/1", "a=b"])
def test_names_come_back_from_a_trajectory(name, tmp_path):
    Segment(name, temperature_K=300, duration_ps=1)
    writer = TrajectoryWriter(tmp_path / "one.xyz")
    writer.write(random_start(24, 0.0, 2.0, seed=1), name)
    writer.close()
    assert ase.io.read(tmp_path / "one.xyz").info["segment"] == name


def test_no_name_stands_twice():
    hold = Segment("hold", temperature_K=300, duration_ps=1)
    with pytest.raises(ConfigError, match="two segments have the `name` 'hold'"):
        Schedule([hold, hold], 1.0)


def test_first_ramp_and_empty_schedule_are_refused():
    with pytest.raises(ConfigError, match="there is none"):
        Schedule([Segment("x", ramp_to_K=300, duration_ps=1)], 1.0)
    with pytest.raises(ConfigError, match="at least one"):
        Schedule([], 1.0)


def test_default_protocol_is_the_published_one():
    schedule = config.Config().schedule()
    names = [stage.segment.name for stage in schedule.stages]
    assert names == ["melt", "equilibrate", "quench", "relax", "hold"]
    melt, _, quench = schedule.stages[:3]
    assert melt.start_K > 3500
    rate = (quench.start_K - quench.end_K) / (quench.last_step - quench.first_step) * 1000
    assert rate == pytest.approx(40, rel=1e-3)
    assert schedule.stages[-1].end_K == 300
    assert schedule.stages[-1].segment.ensemble == "npt"
    assert config.Config(na2o=0.2).schedule().stages[-1].segment.ensemble == "nvt"
    assert config.Config(na2o=0.2, ensemble="npt").schedule().stages[-1].segment.ensemble == "npt"


TOML = """
atoms = 300
potential = "bks"
timestep_fs = 2

[potential_options]
cutoff = 8.0

[[segment]]
name = "melt"
temperature_K = 4000
duration_ps = 1

[[segment]]
name = "quench"
ramp_to_K = 300
rate_K_per_ps = 100
ensemble = "npt"
"""


def test_file_and_flags(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(TOML)
    loaded = config.load(path, {"atoms": 600, "seed": None})
    assert (loaded.atoms, loaded.seed, loaded.potential_options) == (600, 1, {"cutoff": 8.0})
    assert loaded.timestep_fs == 2.0
    assert [segment.name for segment in loaded.segment] == ["melt", "quench"]
    assert config.from_dict(loaded.to_dict()) == loaded


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("atoms = 300", "atom = 300"), "unknown key `atom`; did you mean `atoms`"),
        (("rate_K_per_ps", "rate_K_ps"), "segment 2: unknown key `rate_K_ps`; did you mean `rate_K_per_ps`"),
        (('name = "melt"', ""), "segment 1: the key `name` is missing"),
        (("atoms = 300", 'atoms = "300"'), "`atoms` must be a whole number, got '300'"),
        (("atoms = 300", "atoms = 300.0"), "`atoms` must be a whole number, got 300.0"),
        (("atoms = 300", "atoms = true"), "`atoms` must be a whole number, got True"),
        (("atoms = 300", "atoms = 301"), "multiple of 3.*try 300"),
        (("atoms = 300", "na2o = 20"), "mole fraction"),
        (("atoms = 300", "rate_K_per_ps = 10.0"), "`rate_K_per_ps` is of the default protocol"),
        (("atoms = 300", "atoms ="), "is not TOML"),
        (("timestep_fs = 2", "timestep_fs = 0"), "`timestep_fs` must be positive"),
        (('"npt"', "3"), "segment 2: `ensemble` must be text"),
    ],
)
def test_wrong_files_are_refused_by_name(tmp_path, change, message):
    path = tmp_path / "run.toml"
    path.write_text(TOML.replace(*change))
    with pytest.raises(ConfigError, match=message):
        config.load(path).schedule()


@pytest.mark.parametrize("key", [{"atoms": 300}, {"na2o": 0.2}, {"density_g_cm3": 2.3}])
def test_a_structure_to_begin_with_leaves_nothing_to_choose(key):
    with pytest.raises(ConfigError, match=rf"`{next(iter(key))}` is of a random start, but `start`"):
        config.from_dict({"start": "glass.xyz"} | key)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*none\.toml"):
        config.load(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("na2o", "expected"),
    [(0.0, {8: 1000, 14: 500}), (0.2, {8: 900, 11: 200, 14: 400}), (0.5, {8: 750, 11: 500, 14: 250})],
)
def test_composition_adds_up_and_is_neutral(na2o, expected):
    counts = composition(1500, na2o)
    assert counts == expected
    assert -2 * counts[8] + counts.get(11, 0) + 4 * counts[14] == 0


def test_measured_densities():
    assert measured_density(0.0) == pytest.approx(2.2)
    assert measured_density(0.2) == pytest.approx(2.385)
    assert measured_density(0.05) == pytest.approx(2.247)
