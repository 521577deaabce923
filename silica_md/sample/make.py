"""From a plan to a training set: the runs, the labels, the choice, the files. Read it from top to bottom."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ase import Atoms

from rsa_kernels import __version__

from .. import potentials, quench, start
from ..errors import ConfigError, RunExistsError
from ..files import replace_file
from ..folder import RunFolder
from ..labelled import write_labelled
from ..observers import format_duration, stages_shown
from .frames import Candidates, frames_of, gather
from .labels import Teacher
from .plan import Plan
from .select import coverage, representative, stratified, temperature_strata
from .statistics import atomic_energies, describe

SETS = ("train", "valid", "test")


@dataclass(frozen=True)
class SetFolder:
    """Where a training set lies.

    Attributes
    ----------
    path : Path
    """

    path: Path

    plan = property(lambda self: self.path / "plan.json")
    record = property(lambda self: self.path / "sample.json")
    figure = property(lambda self: self.path / "sample.png")

    def run(self, number: int) -> RunFolder:
        """Folder of a run."""
        return RunFolder(self.path / "runs" / f"{number:02d}")

    def frames(self, name: str) -> Path:
        """File of a set."""
        return self.path / f"{name}.xyz"

    def read_plan(self) -> Plan:
        """Return the plan that the folder was begun with.

        Raises
        ------
        ConfigError
            There is none, or it is damaged.
        """
        if not self.plan.exists():
            raise ConfigError(
                f"there is no training set in {self.path} (no plan.json); leave out --resume to start one"
            )
        try:
            return Plan.from_dict(json.loads(self.plan.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.plan} is damaged: {error}") from error

    def refuse_if_taken(self) -> None:
        """Raise RunExistsError, saying how to go on, if there is something in the folder."""
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            how = f"see {self.record}" if self.record.exists() else "continue it with --resume"
            raise RunExistsError(f"{self.path} is not empty and is not overwritten; {how}, or choose another --out")


def make(plan: Plan, out: str | Path, say: Callable[[str], None], resume: bool = False) -> bool:
    """Make a training set.

    Parameters
    ----------
    plan : Plan
        What to make; where `resume` is set, it must be the one the folder was begun with.
    out : str or Path
        Its folder: plan.json, runs/, then train.xyz, valid.xyz, test.xyz, sample.png and, last, sample.json.
    say : callable
        Takes lines meant for people.
    resume : bool
        Go on in the folder: finished runs stay, one that was interrupted goes on from its checkpoint.

    Returns
    -------
    bool
        True when all is written; False when a signal has stopped a run, with a checkpoint on disk.

    Raises
    ------
    ConfigError, ValueError
        The plan cannot be carried out: unknown teacher, more configurations than frames. Nothing is made.
    RunExistsError
        The folder is taken.
    RunAborted
        A run cannot go on.

    Notes
    -----
    The files are a function of the plan, of version and processor, whatever was interrupted in between.
    """
    folder = SetFolder(Path(out))
    configs = plan.configs()
    _check(plan)
    if resume:
        folder.read_plan()
    else:
        folder.refuse_if_taken()
        folder.path.mkdir(parents=True, exist_ok=True)
        replace_file(folder.plan, json.dumps(plan.to_dict(), indent=1, ensure_ascii=False) + "\n")
    begun, done = time.monotonic(), 0
    for number, config in enumerate(configs):
        run = folder.run(number)
        if run.final.exists():
            continue
        left = format_duration((time.monotonic() - begun) / done * (len(configs) - number)) if done else "-:--"
        say(f"run {number + 1} of {len(configs)} ({plan.sets()[number] or 'all sets'}), {left} left for all runs")
        if not quench.run(config, run, say, resume=run.taken):
            return False
        done += 1
    torch.set_num_threads(plan.teacher.threads or torch.get_num_threads())
    folders = [folder.run(number) for number in range(len(configs))]
    teacher = Teacher(
        plan.teacher, quench.first_state(configs[0], configs[0].schedule(), "cpu").to_ase(), plan.label_accuracy
    )
    with stages_shown() as show:
        found = gather(configs, folders, teacher, plan.skip_ps, plan.transition_K, show)
    chosen = choose(plan, found)
    _write(plan, folder, configs, teacher, found, chosen)
    return True


def choose(plan: Plan, found: Candidates) -> dict[str, np.ndarray]:
    """Choose configurations for every set: train by farthest points, valid and test at random; temperatures alike.

    Raises
    ------
    ConfigError
        There are fewer than are wanted.
    """
    owner = np.array(plan.sets(), dtype=object)[found.run]
    if plan.split == "frames":
        owner = np.array(SETS, dtype=object)[np.clip(found.block % 10 - 7, 0, 2)]
    strata = temperature_strata(found.temperature, plan.strata) + plan.strata * found.group
    chosen = {}
    for number, name in enumerate(SETS):
        members, wanted = np.flatnonzero(owner == name), getattr(plan, name)
        if wanted > len(members):
            raise ConfigError(_too_few(name, wanted, len(members)))
        if name == "train":
            picked = stratified(found.features[members], strata[members], wanted)
        else:
            picked = representative(strata[members], wanted, plan.teacher.seed + number)
        chosen[name] = members[picked]
    return chosen


def _check(plan: Plan) -> None:
    """Refuse a plan that would fail later: the teacher for every composition, and the number of frames."""
    configs = plan.configs()
    for config in configs:
        if config.start:
            numbers = start.structure_start(config.start).atomic_numbers
        else:
            counts = start.composition(config.atoms, config.na2o)
            numbers = [z for z, n in counts.items() for _ in range(n)]
        potentials.build(config.potential, numbers, **config.options_of_potential())
    frames = [frames_of(config, plan.skip_ps) for config in configs]
    for name in SETS:
        there = sum(n for n, group in zip(frames, plan.sets(), strict=True) if group == name)
        if plan.split == "frames":  # eight, one and one block of ten
            places = {"train": range(8), "valid": (8,), "test": (9,)}[name]
            there = sum(sum(k // 10 % 10 in places for k in range(n)) for n in frames)
        if getattr(plan, name) > there:
            raise ConfigError(_too_few(name, getattr(plan, name), there))


def _too_few(name: str, wanted: int, there: int) -> str:
    return (
        f"{wanted} {name} configurations are wanted, but its runs have {there} frames; lower --{name},"
        " make more --runs, or take frames more often (--frame)"
    )


def _write(plan: Plan, folder: SetFolder, configs, teacher: Teacher, found: Candidates, chosen: dict) -> None:
    # Imported here: `--help` need not wait for the plotting packages.
    from .figure import draw

    frames: dict[str, list[Atoms]] = {name: [found.atoms[index] for index in chosen[name]] for name in SETS}
    everything = {"frames of the runs": found.atoms, **frames}
    # In a random order: the choice goes round the temperature ranges, and every tenth could be of the same one.
    sources = np.random.Generator(np.random.PCG64(plan.teacher.seed)).permutation(plan.train)
    for number in range(plan.copies):
        source = int(sources[number % plan.train])
        original = frames["train"][source]
        info = {key: value for key, value in original.info.items() if not key.startswith("REF_")}
        info |= {"config_type": "copy", "copy_of": source}
        frames["train"].append(teacher.copy(original, plan.strain, plan.rattle_A, plan.teacher.seed, number, info))
    for name in SETS:
        write_labelled(folder.frames(name), frames[name])
    replace_file(folder.figure, draw(found, chosen))
    record = {
        "version": __version__,
        "teacher": {"potential": teacher.name, "options": teacher.options},
        "plan": plan.to_dict(),
        "runs": [
            {
                "set": group or "all",
                "seed": config.seed,
                "na2o": config.na2o,
                "density_g_cm3": config.density_g_cm3,
                "options_of_the_run": folder.run(number).read_config().options_of_potential(),
                "frames": int((found.run == number).sum()),
            }
            for number, (config, group) in enumerate(zip(configs, plan.sets(), strict=True))
        ],
        "selection": _selection(plan, found, chosen),
        "atomic_energies": atomic_energies(frames["train"]),
        "sets": {name: describe(frames) for name, frames in everything.items()},
    }
    replace_file(folder.record, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def _selection(plan: Plan, found: Candidates, chosen: dict) -> dict:
    """How well the train configurations cover all frames of their runs, beside a choice at random."""
    owner = np.isin(found.run, found.run[chosen["train"]])
    members = np.flatnonzero(owner)
    place = np.searchsorted(members, chosen["train"])
    strata = temperature_strata(found.temperature, plan.strata) + plan.strata * found.group
    random = [representative(strata[members], plan.train, seed) for seed in range(5)]
    others = [coverage(found.features[members], one) for one in random]
    edges = np.linspace(found.temperature.min(), found.temperature.max(), plan.strata + 1)
    return {
        "method": "farthest points on pair distributions, angles, coordination, rings, energy and density, the same "
        "number from every temperature range; valid and test at random within the ranges",
        "chosen": coverage(found.features[members], place),
        "at_random_within_the_ranges": {key: float(np.mean([one[key] for one in others])) for key in others[0]},
        "temperature_ranges_K": [round(float(x), 1) for x in edges],
        "in_each": {
            name: np.bincount(strata[chosen[name]] % plan.strata, minlength=plan.strata).tolist() for name in SETS
        },
    }
