"""All configurations of the runs of a plan: read, labelled, described; what is chosen from."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase import Atoms

from ..analysis.composition import mass_density
from ..analysis.files import FrameFile
from ..config import Config
from ..folder import RunFolder
from ..labelled import ENERGY
from ..quench import steps_in
from ..schedule import Stage
from .descriptor import Descriptor, standardized
from .labels import Teacher

REGIMES = ("liquid", "transition", "glass")


@dataclass
class Candidates:
    """Configurations with labels, and what is known of each; all arrays run over them, run by run.

    Attributes
    ----------
    atoms : list of ase.Atoms
        Labelled.
    run, block : ndarray of int
        Number of the run, and of the block of ten consecutive frames in it.
    temperature : ndarray
        What the thermostat asked for at that moment, K.
    group : ndarray of int
        Configurations with the same atoms have the same number.
    features : ndarray, (n, n_features)
        `standardized` vectors; those of different groups have no features in common.
    """

    atoms: list[Atoms] = field(default_factory=list)
    run: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    block: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    temperature: np.ndarray = field(default_factory=lambda: np.zeros(0))
    group: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    features: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))


def gather(
    configs: Sequence[Config],
    folders: Sequence[RunFolder],
    teacher: Teacher,
    skip_ps: float,
    transition_K: tuple[float, float],
    show: Callable[[str, float], None],
) -> Candidates:
    """Read the frames of the runs after `skip_ps`, label and describe them."""
    rows: list[tuple] = []
    vectors: dict[bytes, list[tuple[int, dict]]] = {}
    describe: dict[bytes, Descriptor] = {}
    for number, (config, folder) in enumerate(zip(configs, folders, strict=True)):
        kept = 0
        file, targets = FrameFile(folder.trajectories[0]), Targets(config, folder)
        for index in range(len(file)):
            atoms = file.read(index)
            step, stage = int(atoms.info["step"]), str(atoms.info["segment"])
            time = step * config.timestep_fs / 1000.0
            show(f"labels of run {number + 1}", (number + index / len(file)) / len(configs))
            if time < skip_ps - 1e-9:
                continue
            temperature = targets.at(step, stage)
            info = {
                "config_type": regime(temperature, transition_K),
                "run": number,
                "stage": stage,
                "time_ps": round(time, 6),
                "temperature_K": round(temperature, 3),
                "density_g_cm3": round(mass_density(atoms), 6),
            }
            atoms = teacher.label(atoms, info)
            key = atoms.numbers.tobytes()
            if key not in describe:
                describe[key], vectors[key] = Descriptor(atoms.numbers), []
            vectors[key].append((len(rows), describe[key].of(atoms, atoms.info[ENERGY] / len(atoms))))
            rows.append((atoms, number, kept // 10, temperature, list(describe).index(key)))
            kept += 1
    show("labels done", 1.0)
    atoms, run, block, temperature, group = zip(*rows, strict=True)
    return Candidates(
        list(atoms), np.array(run), np.array(block), np.array(temperature), np.array(group),
        _side_by_side(list(vectors.values()), len(rows)),
    )  # fmt: skip


def frames_of(config: Config, skip_ps: float) -> int:
    """How many frames after `skip_ps` a run will write (see `silica_md.quench.follow`)."""
    steps = {0}
    for stage in config.schedule().stages:
        every = steps_in(stage.segment.frame_ps or config.frame_ps, config)
        steps.update(range(stage.first_step + every, stage.last_step, every))
        steps.add(stage.last_step)
    return sum(step * config.timestep_fs / 1000.0 >= skip_ps - 1e-9 for step in steps)


def regime(temperature: float, transition_K: tuple[float, float]) -> str:
    """What a temperature is called."""
    low, high = transition_K
    return "glass" if temperature < low else "liquid" if temperature > high else "transition"


class Targets:
    """Temperatures of a run: those the schedule asks for, or the kinetic ones of the log where it asks for none."""

    def __init__(self, config: Config, folder: RunFolder):
        self._stages: dict[str, Stage] = {stage.segment.name: stage for stage in config.schedule().stages}
        self._log: Path = folder.thermo
        self._rows: tuple[np.ndarray, np.ndarray] | None = None

    def at(self, step: int, stage: str) -> float:
        """K, at `step` steps, in the segment called `stage`."""
        target = self._stages[stage].temperature(step) if self._stages[stage].segment.ensemble != "nve" else None
        if target is not None:
            return float(target)
        if self._rows is None:
            with open(self._log, newline="", encoding="utf-8") as file:
                rows = [(int(row["step"]), float(row["temperature_K"])) for row in csv.DictReader(file)]
            steps, temperatures = zip(*rows, strict=True)
            self._rows = np.array(steps), np.array(temperatures)
        return float(self._rows[1][np.argmin(np.abs(self._rows[0] - step))])


def _side_by_side(groups: list[list[tuple[int, dict]]], n: int) -> np.ndarray:
    """Features of all configurations, each group in columns of its own."""
    blocks = []
    for group in groups:
        places, vectors = zip(*group, strict=True)
        features = standardized(vectors)
        block = np.zeros((n, features.shape[1]))
        block[list(places)] = features
        blocks.append(block)
    return np.concatenate(blocks, axis=1)
