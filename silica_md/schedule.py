"""What happens to the glass when: segments, each with an ensemble and a course of the temperature."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rsa_kernels.units import EV_PER_A3_IN_GPA

from .barostat import ConstantPressure, FlexibleRescaling, IsotropicRescaling
from .errors import ConfigError
from .integrators import Integrator, Langevin, NoseHoover, VelocityVerlet
from .state import Reduction, one_owner
from .trajectory import check_segment_name

ENSEMBLES = ("nve", "nvt", "npt", "npt-flexible")
THERMOSTATS = ("langevin", "nose-hoover")
_NOT_TEXT = {"t", "f", "true", "false", "nan", "inf", "infinity"}  # what extended XYZ reads as another type


@dataclass(frozen=True)
class Segment:
    """One part of a run; the keys are those of a ``[[segment]]`` in a configuration file.

    Attributes
    ----------
    name : str
        Stands in the log and the trajectory: at most 64 printable ASCII characters without quotes or
        backslash, beginning with a letter, and not "T" or "F", which readers take for something else than text.
        No two segments of a schedule have the same.
    temperature_K : float, optional
        Constant target. Give this or `ramp_to_K`; with "nve" it is ignored and may be left out.
    ramp_to_K : float, optional
        Target at the end of a linear ramp, which begins at the target of the segment before.
    duration_ps : float, optional
        Length; for a ramp give this or `rate_K_per_ps`.
    rate_K_per_ps : float, optional
        Speed of the ramp, positive whichever way it goes.
    ensemble : {"nve", "nvt", "npt", "npt-flexible"}
        What is held constant. "npt-flexible" lets the cell change its shape; a melt would flow away with it.
    pressure_GPa : float
        Target pressure of the npt ensembles.
    thermostat : {"langevin", "nose-hoover"}
        What holds the temperature.
    relaxation_fs : float
        Relaxation time of the thermostat.
    barostat_relaxation_fs : float
        Relaxation time of the barostat, for a solid of `compressibility_per_GPa`.
    compressibility_per_GPa : float
        Rough compressibility of what is simulated; sets how fast the cell moves, not what it tends to.
    frame_ps : float, optional
        Time between frames of the trajectory; default: that of the run.
    """

    name: str
    temperature_K: float | None = None
    ramp_to_K: float | None = None
    duration_ps: float | None = None
    rate_K_per_ps: float | None = None
    ensemble: str = "nvt"
    pressure_GPa: float = 0.0
    thermostat: str = "langevin"
    relaxation_fs: float = 500.0
    barostat_relaxation_fs: float = 500.0
    compressibility_per_GPa: float = 0.05
    frame_ps: float | None = None

    def __post_init__(self):
        def refuse(text):
            raise ConfigError(f"segment '{self.name}': {text}")

        try:
            check_segment_name(self.name)
        except ValueError as error:
            refuse(str(error).replace("`segment`", "`name`"))
        if not self.name[:1].isalpha() or self.name.strip() != self.name or set(self.name.lower().split()) <= _NOT_TEXT:
            refuse("`name` must be a word that begins with a letter and reads as text, such as melt")
        if self.ensemble not in ENSEMBLES:
            refuse(f"`ensemble` must be one of {', '.join(ENSEMBLES)}, got '{self.ensemble}'")
        if self.thermostat not in THERMOSTATS:
            refuse(f"`thermostat` must be one of {', '.join(THERMOSTATS)}, got '{self.thermostat}'")
        given = [key for key in ("temperature_K", "ramp_to_K") if getattr(self, key) is not None]
        if len(given) == 2 or (not given and self.ensemble != "nve"):
            refuse("give either `temperature_K` (constant) or `ramp_to_K` (ramp)")
        lengths = ["duration_ps"] if self.ramp_to_K is None else ["duration_ps", "rate_K_per_ps"]
        if self.ramp_to_K is None and self.rate_K_per_ps is not None:
            refuse("`rate_K_per_ps` belongs to a ramp; give `ramp_to_K` too, or a `duration_ps` instead")
        if sum(getattr(self, key) is not None for key in lengths) != 1:
            refuse("give " + " or ".join(f"`{key}`" for key in lengths) + (", not both" if len(lengths) > 1 else ""))
        for key in (
            "temperature_K",
            "ramp_to_K",
            "duration_ps",
            "rate_K_per_ps",
            "relaxation_fs",
            "frame_ps",
        ):
            value = getattr(self, key)
            if value is not None and not 0.0 < value < math.inf:
                refuse(f"`{key}` must be positive and finite, got {value}")
        for key in ("barostat_relaxation_fs", "compressibility_per_GPa"):
            if not 0.0 < getattr(self, key) < math.inf:
                refuse(f"`{key}` must be positive and finite, got {getattr(self, key)}")
        if not math.isfinite(self.pressure_GPa):
            refuse(f"`pressure_GPa` must be finite, got {self.pressure_GPa}")


@dataclass(frozen=True)
class Stage:
    """A segment with its place in the run.

    Attributes
    ----------
    segment : Segment
    first_step, last_step : int
        Steps done when it begins and when it ends.
    start_K, end_K : float or None
        Targets at both ends; None for a segment that has none.
    """

    segment: Segment
    first_step: int
    last_step: int
    start_K: float | None
    end_K: float | None

    def temperature(self, step: int) -> float | None:
        """Target of the step that ends with `step` steps done, K."""
        if self.start_K is None or self.start_K == self.end_K:
            return self.end_K
        fraction = (step - self.first_step) / (self.last_step - self.first_step)
        return self.start_K + fraction * (self.end_K - self.start_K)

    def integrator(self, timestep: float, seed: int, total: Reduction = one_owner) -> Integrator:
        """Return the integrator of this part, at its beginning."""
        segment, temperature = self.segment, self.temperature(self.first_step)
        if segment.ensemble == "nve":
            return VelocityVerlet(timestep, temperature, total)
        if segment.thermostat == "langevin":
            thermostat = Langevin(timestep, temperature, segment.relaxation_fs, seed, total)
        else:
            thermostat = NoseHoover(timestep, temperature, segment.relaxation_fs, total=total)
        if segment.ensemble == "nvt":
            return thermostat
        kind = FlexibleRescaling if segment.ensemble == "npt-flexible" else IsotropicRescaling
        barostat = kind(
            segment.pressure_GPa / EV_PER_A3_IN_GPA,
            segment.barostat_relaxation_fs,
            segment.compressibility_per_GPa * EV_PER_A3_IN_GPA,
            seed,
            total,
        )
        return ConstantPressure(thermostat, barostat)


class Schedule:
    """Segments laid end to end in steps.

    Parameters
    ----------
    segments : sequence of Segment
        In their order.
    timestep_fs : float
        fs.

    Raises
    ------
    ConfigError
        There is no segment, two have the same name, or the first one is a ramp, which has nothing to begin from.
    """

    def __init__(self, segments: Sequence[Segment], timestep_fs: float):
        if not segments:
            raise ConfigError("a run needs at least one segment")
        names = [segment.name for segment in segments]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ConfigError(f"two segments have the `name` '{twice}'; give every segment a name of its own")
        self.stages: list[Stage] = []
        step, temperature = 0, None
        for segment in segments:
            start = temperature if segment.ramp_to_K is not None else segment.temperature_K
            end = segment.ramp_to_K if segment.ramp_to_K is not None else segment.temperature_K
            if segment.ramp_to_K is not None and start is None:
                raise ConfigError(
                    f"segment '{segment.name}': a ramp begins at the temperature of the segment before, "
                    "but there is none; put one with `temperature_K` first"
                )
            duration = segment.duration_ps
            if duration is None:
                duration = abs(end - start) / segment.rate_K_per_ps
            steps = max(1, round(1000.0 * duration / timestep_fs))
            self.stages.append(Stage(segment, step, step + steps, start, end))
            step, temperature = step + steps, end if end is not None else temperature

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.stages[-1].last_step

    @property
    def first_temperature(self) -> float | None:
        """Target at the beginning, K."""
        return self.stages[0].start_K

    def remaining(self, step: int) -> Iterator[Stage]:
        """Stages that still have steps to do after `step` steps."""
        return (stage for stage in self.stages if stage.last_step > step)
