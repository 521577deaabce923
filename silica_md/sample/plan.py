"""What a training set is made of: the teacher, the runs, and how many configurations of which kind."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from .. import config as configuration
from .. import start
from ..checked import read_toml
from ..config import Config
from ..errors import ConfigError
from ..schedule import Segment

SPLITS = ("runs", "frames")
ENSEMBLES = ("nvt", "npt", "both")
WITH_COULOMB = ("bks", "pmmcs")
"""Potentials that leave the Coulomb sum open; as a teacher they get Ewald sums."""


@dataclass(frozen=True)
class Plan:
    """Everything that decides a training set.

    Attributes
    ----------
    teacher : Config
        Potential, atoms, density, time step, device and so on of the runs, as for a quench, and its seed: that of
        the first run, the next ones following. Segments in it replace the protocol of the next entries.
    melt_K, melt_ps, cool_K_per_ps, equilibrate_K, equilibrate_ps, rate_K_per_ps, final_K, hold_ps : float
        Protocol of every run: melt, cool to where the liquid still relaxes, equilibrate, quench, hold. All
        temperatures between melt and glass occur.
    ensemble : {"nvt", "npt", "both"}
        After the melt: every run keeps its density, none does, or every second one does.
    pressure_GPa : float
        Where it is npt.
    train, valid, test : int
        Configurations.
    runs, valid_runs, test_runs : int
        Runs in all, and those of them whose configurations go into valid and test.
    split : {"runs", "frames"}
        "runs": a run belongs to one of the three sets, so that nothing in valid or test has been seen a little
        earlier in train. "frames": blocks of consecutive frames of every run are dealt out (ten blocks in a
        thousand go 8 : 1 : 1); for one or two runs. Errors on such valid and test sets are too small.
    na2o : tuple of float
        Mole fractions of Na2O, which the runs take in turn; empty for the teacher's own.
    density_spread : float
        Starting densities of the train runs go from (1 − this) to (1 + this) times the density, those of valid and
        test runs lie between.
    skip_ps : float
        Frames of the first so many ps are left out: there the random start is forgotten.
    strata : int
        Temperature ranges of equal width, from the coldest to the hottest frame, that get equal shares.
    transition_K : tuple of (float, float)
        Above is called liquid, below glass, between transition; names and figures, not the choice, depend on it.
    copies : int
        Strained and rattled copies of train configurations, in addition.
    strain : float
        Largest component of the (symmetric) strain of a copy.
    rattle_A : float
        Width of the normal displacements of the atoms of a copy, Å.
    label_accuracy : float
        Of Ewald sums of the labels, RMS error of a force in 14.4 eV/Å. The runs have the teacher's own.
    """

    teacher: Config
    melt_K: float = 5000.0
    melt_ps: float = 5.0
    cool_K_per_ps: float = 100.0
    equilibrate_K: float = 3000.0
    equilibrate_ps: float = 15.0
    rate_K_per_ps: float = 40.0
    final_K: float = 300.0
    hold_ps: float = 5.0
    ensemble: str = "nvt"
    pressure_GPa: float = 0.0
    train: int = 400
    valid: int = 50
    test: int = 50
    runs: int = 8
    valid_runs: int = 1
    test_runs: int = 1
    split: str = "runs"
    na2o: tuple[float, ...] = ()
    density_spread: float = 0.1
    skip_ps: float = 1.0
    strata: int = 10
    transition_K: tuple[float, float] = (2000.0, 3500.0)
    copies: int = 0
    strain: float = 0.03
    rattle_A: float = 0.05
    label_accuracy: float = 1e-8

    def __post_init__(self):
        def refuse(text):
            raise ConfigError(text)

        for name in ("train", "runs", "strata"):
            if getattr(self, name) < 1:
                refuse(f"`{name}` must be at least 1, got {getattr(self, name)}")
        for name in ("valid", "test", "valid_runs", "test_runs", "copies", "skip_ps", "rattle_A"):
            if not 0 <= getattr(self, name) < float("inf"):
                refuse(f"`{name}` must not be negative, got {getattr(self, name)}")
        for name in ("density_spread", "strain"):
            if not 0.0 <= getattr(self, name) < 0.5:
                refuse(f"`{name}` must be at least 0 and below 0.5, got {getattr(self, name)}")
        if not 0.0 < self.label_accuracy < 1.0:
            refuse(f"`label_accuracy` must be between 0 and 1, got {self.label_accuracy}")
        for name, known in (("split", SPLITS), ("ensemble", ENSEMBLES)):
            if getattr(self, name) not in known:
                refuse(f"`{name}` must be one of {', '.join(known)}, got '{getattr(self, name)}'")
        low, high = self.transition_K
        if not 0.0 < low < high:
            refuse(f"`transition_K` must be two rising temperatures, got {low:g} and {high:g}")
        if self.split == "runs":
            held_back = self.held_back
            if self.runs <= held_back:
                refuse(
                    f"{self.runs} runs cannot be split into train runs and {held_back} for valid and test; make more"
                    " --runs, or choose --split frames and read what it says about it"
                )
            for name in ("valid", "test"):
                if getattr(self, name) and not getattr(self, f"{name}_runs"):
                    refuse(f"{getattr(self, name)} `{name}` configurations are wanted, but `{name}_runs` is 0")
        touched = [name for name in _PROTOCOL if getattr(self, name) != Plan.__dataclass_fields__[name].default]
        if self.teacher.segment and touched:
            refuse(f"`{touched[0]}` is of the default protocol, but segments are listed; set it in them")
        if self.teacher.start and (self.density_spread or self.na2o):
            refuse("`start` names a structure: its density and composition stay; set `density_spread` to 0")
        self.configs()

    @property
    def held_back(self) -> int:
        """Runs of the valid and test sets, where the split is by runs."""
        return (self.valid_runs if self.valid else 0) + (self.test_runs if self.test else 0)

    def sets(self) -> list[str]:
        """Which set each run belongs to; "" for all of them where frames are dealt out."""
        if self.split == "frames":
            return [""] * self.runs
        valid = ["valid"] * (self.valid_runs if self.valid else 0)
        test = ["test"] * (self.test_runs if self.test else 0)
        return ["train"] * (self.runs - self.held_back) + valid + test

    def configs(self) -> list[Config]:
        """What each run does; every one of them is an ordinary quench."""
        configs = []
        for number, factor in enumerate(self._density_factors(self.sets())):
            na2o = self.na2o[number % len(self.na2o)] if self.na2o else self.teacher.na2o
            options = {"seed": self.teacher.seed + number, "observe_ps": 0.0}
            if not self.teacher.start:
                base = self.teacher.density_g_cm3 or start.measured_density(na2o)
                options |= {"na2o": na2o, "density_g_cm3": base * factor}
            ensemble = self.ensemble if self.ensemble != "both" else ("npt" if number % 2 else "nvt")
            options["segment"] = self.teacher.segment or self._segments(ensemble)
            configs.append(replace(self.teacher, **options))
        return configs

    def _density_factors(self, sets: list[str]) -> list[float]:
        """Factors of the starting density: the train runs span the spread, the others lie inside."""
        spread = []
        for name in dict.fromkeys(sets):
            n = sets.count(name)
            inside = 1.0 if name in ("", "train") else n / (n + 1.0) * 2.0 / 3.0
            shift = {"valid": -1.0 / 3.0, "test": 1.0 / 3.0}.get(name, 0.0) if n == 1 else 0.0
            places = [shift] if n == 1 else [inside * (2.0 * k / (n - 1.0) - 1.0) for k in range(n)]
            spread += [1.0 + self.density_spread * place for place in places]
        return spread

    def _segments(self, ensemble: str) -> tuple[Segment, ...]:
        free = {"ensemble": ensemble, "pressure_GPa": self.pressure_GPa}
        return (
            Segment("melt", temperature_K=self.melt_K, duration_ps=self.melt_ps, relaxation_fs=100.0),
            Segment("cool", ramp_to_K=self.equilibrate_K, rate_K_per_ps=self.cool_K_per_ps, **free),
            Segment("equilibrate", temperature_K=self.equilibrate_K, duration_ps=self.equilibrate_ps, **free),
            Segment("quench", ramp_to_K=self.final_K, rate_K_per_ps=self.rate_K_per_ps, **free),
            Segment("hold", temperature_K=self.final_K, duration_ps=self.hold_ps, **free),
        )

    def to_dict(self) -> dict:
        """Plain data, for JSON."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return json.loads(json.dumps(plain | {"teacher": self.teacher.to_dict()}))

    @classmethod
    def from_dict(cls, plain: Mapping) -> Plan:
        """Make a plan of what `to_dict` gave.

        Raises
        ------
        ConfigError
            A key is missing, unknown or has a wrong value.
        """
        try:
            values = dict(plain) | {name: tuple(plain[name]) for name in ("na2o", "transition_K")}
            return cls(**values | {"teacher": configuration.from_dict(plain["teacher"])})
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"this is no plan of a training set: {error}") from error


_PROTOCOL = (
    "melt_K", "melt_ps", "cool_K_per_ps", "equilibrate_K", "equilibrate_ps", "rate_K_per_ps", "final_K", "hold_ps",
    "ensemble", "pressure_GPa",
)  # fmt: skip


def teacher(given: Mapping, path: str | Path | None = None) -> Config:
    """Configuration of the teacher and its runs: keys of `Config`; those of a TOML file where they are not given; and
    where neither has them BKS, 96 atoms and a frame every 0.25 ps, and Ewald sums for a potential that leaves it open.

    Raises
    ------
    ConfigError
        As `silica_md.config.load`.
    """
    data = read_toml(path) if path is not None else {}
    data |= {key: value for key, value in given.items() if value is not None}
    usual = {"potential": "bks", "frame_ps": 0.25} | ({} if data.get("start") else {"atoms": 96})
    chosen = configuration.from_dict(usual | data)
    if chosen.potential in WITH_COULOMB and not chosen.options_of_potential().get("coulomb"):
        chosen = replace(chosen, coulomb="ewald")
    return chosen
