"""What decides a run: defaults, configuration files and flags; wrong keys are refused by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .checked import checked, read_toml
from .errors import ConfigError
from .schedule import Schedule, Segment


@dataclass(frozen=True)
class Config:
    """Everything that decides a run; the attributes are the keys of a configuration file.

    Attributes
    ----------
    atoms : int
        Number of atoms, a multiple of 3 (SiO2 and Na2O have three each).
    na2o : float
        Mole fraction x of Na2O in x Na2O · (1 − x) SiO2.
    start : str
        A structure file to begin with instead of random positions; "" for random. It decides composition and
        density: `atoms`, `na2o` and `density_g_cm3` do not go with it.
    density_g_cm3 : float, optional
        Of the random start; default: the measured density of the glass.
    potential : str
        "shik", "bks" or "pmmcs"; or "mace:PATH", a model file as `silica_md.models.save` writes it. The run keeps a
        copy of it in its folder.
    coulomb : str
        "dsf" or "ewald" sums, for "bks" and "pmmcs"; "" for the potential's own, dsf for these.
    potential_options : dict
        Keyword arguments of the potential, such as `dtype` ("float64" or "float32") of a learned one. A run writes into
        its own copy what follows from the start: `ewald`, the settings of Ewald sums; `sha256` and `architecture` of
        the model.
    d3 : str
        Functional whose D3(BJ) dispersion is added to the potential, such as "pbe"; "" for none.
    d3_options : dict
        Of the dispersion: `cutoff` and `width` (Å), `kernel`, damping (see
        `silica_md.potentials.dispersion.DispersionSettings`). A run writes all of them into its own copy.
    seed : int
        Of positions, velocities and noise.
    timestep_fs : float
        Time step.
    melt_K, melt_ps, equilibrate_K, equilibrate_ps, rate_K_per_ps, final_K, hold_ps : float
        The default protocol: melt, equilibrate, quench, relax and hold. Not used where segments are given.
    ensemble : str
        Of the default protocol after the melt: "npt", or "nvt" to keep the density of the start. By
        default "npt" for silica and "nvt", at the measured density, for sodium silicates; it has to be given
        where `start` holds sodium.
    pressure_GPa : float
        Of the default protocol where it is "npt".
    segment : tuple of Segment
        The schedule; empty for the default protocol.
    frame_ps : float
        Time between frames of the trajectory; the end of a segment always gives one.
    observe_ps : float
        Time between samples of the structure (S(Q), rings, Qn, coordination, angles, density) in ``structure.h5``;
        the end of a segment always gives one. 0: none.
    log_every : int
        Steps between rows of the log.
    skin : float
        Extra reach of the neighbour list, Å.
    checkpoint_seconds : float
        Wall time between checkpoints.
    device : str
        "auto", "cpu" or "cuda".
    threads : int
        0 for all cores.
    """

    atoms: int = 1500
    na2o: float = 0.0
    start: str = ""
    density_g_cm3: float | None = None
    potential: str = "shik"
    coulomb: str = ""
    potential_options: dict = dataclasses.field(default_factory=dict)
    d3: str = ""
    d3_options: dict = dataclasses.field(default_factory=dict)
    seed: int = 1
    timestep_fs: float = 1.0
    melt_K: float = 4000.0
    melt_ps: float = 10.0
    equilibrate_K: float = 3000.0
    equilibrate_ps: float = 60.0
    rate_K_per_ps: float = 40.0
    final_K: float = 300.0
    hold_ps: float = 10.0
    ensemble: str = ""
    pressure_GPa: float = 0.0
    segment: tuple[Segment, ...] = ()
    frame_ps: float = 2.0
    observe_ps: float = 2.5
    log_every: int = 100
    skin: float = 1.0
    checkpoint_seconds: float = 20.0
    device: str = "auto"
    threads: int = 0

    def __post_init__(self):
        def refuse(text):
            raise ConfigError(text)

        if self.atoms < 3 or self.atoms % 3:
            near = max(3, 3 * round(self.atoms / 3))
            refuse(f"`atoms` must be a multiple of 3, as SiO2 and Na2O have, got {self.atoms}; try {near}")
        if not 0.0 <= self.na2o <= 0.5:
            refuse(f"`na2o` is a mole fraction between 0 and 0.5, got {self.na2o}")
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not 0.0 < value < float("inf"):
                refuse(f"`{name}` must be positive and finite, got {value}")
        if not 0.0 <= self.observe_ps < float("inf"):
            refuse(f"`observe_ps` must be 0 (no samples) or positive and finite, got {self.observe_ps}")
        if self.log_every < 1:
            refuse(f"`log_every` must be at least 1, got {self.log_every}")
        if self.threads < 0:
            refuse(f"`threads` must be 0 (all cores) or positive, got {self.threads}")
        if self.ensemble not in ("", "nvt", "npt"):
            refuse(f"`ensemble` must be nvt or npt, got '{self.ensemble}'")
        if self.coulomb not in ("", "dsf", "ewald"):
            refuse(f"`coulomb` must be dsf or ewald, got '{self.coulomb}'")
        if self.coulomb and "coulomb" in self.potential_options:
            refuse("`coulomb` is given twice, by itself and in `potential_options`; leave one of them out")
        if self.d3_options and not self.d3:
            refuse("`d3_options` are of D3 dispersion, but `d3` names no functional; set it, to pbe for instance")
        if self.device not in ("auto", "cpu", "cuda"):
            refuse(f"`device` must be auto, cpu or cuda, got '{self.device}'")
        ignored = [name for name in _RANDOM_START if getattr(self, name) != _default(name)]
        if self.start and ignored:
            refuse(f"`{ignored[0]}` is of a random start, but `start` names a structure; leave one of them out")
        touched = [name for name in _PROTOCOL if getattr(self, name) != _default(name)]
        if self.segment and touched:
            refuse(f"`{touched[0]}` is of the default protocol, but segments are listed here; set it in them")

    def options_of_potential(self) -> dict:
        """Keyword arguments of the potential, `coulomb` among them."""
        return self.potential_options | ({"coulomb": self.coulomb} if self.coulomb else {})

    def schedule(self) -> Schedule:
        """Return the segments given, or those of the default protocol."""
        return Schedule(self.segment or default_segments(self), self.timestep_fs)

    def to_dict(self) -> dict:
        """Plain data, for JSON; the segments are written out."""
        plain = dataclasses.asdict(self)
        plain["segment"] = [dataclasses.asdict(segment) for segment in self.segment]
        return plain


_RANDOM_START = ("atoms", "na2o", "density_g_cm3")
_PROTOCOL = (
    "melt_K", "melt_ps", "equilibrate_K", "equilibrate_ps", "rate_K_per_ps", "final_K", "hold_ps", "ensemble",
    "pressure_GPa",
)  # fmt: skip
_POSITIVE = (
    "density_g_cm3", "timestep_fs", "frame_ps", "skin", "checkpoint_seconds", *_PROTOCOL[:-2]
)  # fmt: skip


def _default(name: str):
    return Config.__dataclass_fields__[name].default


def default_segments(config: Config) -> tuple[Segment, ...]:
    """Melt at the volume of the start; equilibrate, quench, relax and hold in the ensemble chosen.

    The melt forgets the start within picoseconds. Equilibrating where the liquid still relaxes in the time there
    is, 3000 K, costs little and makes a better network than to cool at once: R_χ of S(Q) 0.075 instead of 0.093.
    The last segment is what the analysis averages over.
    """
    ensemble = config.ensemble or ("nvt" if config.na2o > 0.0 else "npt")
    free = {"ensemble": ensemble, "pressure_GPa": config.pressure_GPa}
    final = {"temperature_K": config.final_K, **free}
    return (
        Segment("melt", temperature_K=config.melt_K, duration_ps=config.melt_ps, relaxation_fs=100.0),
        Segment("equilibrate", temperature_K=config.equilibrate_K, duration_ps=config.equilibrate_ps, **free),
        Segment("quench", ramp_to_K=config.final_K, rate_K_per_ps=config.rate_K_per_ps, **free),
        Segment("relax", duration_ps=0.5 * config.hold_ps, **final),
        Segment("hold", duration_ps=config.hold_ps, frame_ps=0.5, **final),
    )


def load(path: str | Path | None = None, overrides: Mapping | None = None) -> Config:
    """Read a TOML configuration and put flags on top.

    Parameters
    ----------
    path : str or Path, optional
        TOML file with keys of `Config` and tables ``[[segment]]`` with keys of `Segment`.
    overrides : mapping, optional
        Keys of `Config`; None values are ignored.

    Raises
    ------
    ConfigError
        The file cannot be read; a key is unknown (the nearest right one is named); a value is of the wrong
        kind or out of range.
    """
    data = {}
    if path is not None:
        data = read_toml(path)
    data |= {key: value for key, value in (overrides or {}).items() if value is not None}
    return from_dict(data)


def from_dict(data: Mapping) -> Config:
    """Make a `Config` of plain data; see `load`."""
    values = checked(Config, data, "")
    tables = values.get("segment", ())
    where = "segment {}: ".format
    values["segment"] = tuple(
        Segment(**checked(Segment, table, where(number), required=("name",)))
        for number, table in enumerate(tables, start=1)
    )
    return Config(**values)
