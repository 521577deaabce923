"""The command `silica-md sample`: its flags, and what it says."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

from ..errors import ConfigError
from ..observers import format_duration

DEFAULT_OUT = "runs/training"

# Flag, key of the configuration, type, what it is.
_TEACHER = (
    ("--potential", "potential", str, "teacher (default bks)"),
    ("--coulomb", "coulomb", str, "ewald or dsf sums with bks or pmmcs (default ewald)"),
    ("--atoms", "atoms", int, "atoms of a cell, a multiple of 3 (default 96)"),
    ("--density", "density_g_cm3", float, "density in the middle of the spread, g/cm3 (default: as measured)"),
    ("--start", "start", str, "structure file that all runs begin with; excludes --atoms, --na2o and --density"),
    ("--seed", "seed", int, "seed of the first run; the others count on from it (default 1)"),
    ("--frame", "frame_ps", float, "time between the frames to choose from, ps (default 0.25)"),
    ("--timestep", "timestep_fs", float, "time step, fs (default 1)"),
    ("--device", "device", str, "auto, cpu or cuda (default auto)"),
    ("--threads", "threads", int, "CPU threads (default: all cores)"),
)
# Flag, key of the plan, type, what it is.
_PLAN = (
    ("--train", "train", int, "train configurations (default {})"),
    ("--valid", "valid", int, "valid configurations (default {})"),
    ("--test", "test", int, "test configurations (default {})"),
    ("--runs", "runs", int, "melt-quench runs, valid and test runs among them (default {})"),
    ("--valid-runs", "valid_runs", int, "runs that valid configurations come from (default {})"),
    ("--test-runs", "test_runs", int, "runs that test configurations come from (default {})"),
    ("--split", "split", str, "runs: no run in two sets; frames: blocks of frames, for 1 or 2 runs (default {})"),
    ("--density-spread", "density_spread", float, "starting densities within 1 plus or minus this (default {})"),
    ("--melt", "melt_K", float, "temperature of the melt, K (default {:g})"),
    ("--melt-time", "melt_ps", float, "time there, ps (default {:g})"),
    ("--cool", "cool_K_per_ps", float, "cooling rate down to the temperature of --equilibrate-at, K/ps (default {:g})"),
    ("--equilibrate-at", "equilibrate_K", float, "where the liquid still relaxes, K (default {:g})"),
    ("--rate", "rate_K_per_ps", float, "cooling rate of the quench, K/ps (default {:g})"),
    ("--equilibrate", "equilibrate_ps", float, "time there before the quench, ps (default {:g})"),
    ("--hold", "hold_ps", float, "time at 300 K, ps (default {:g})"),
    ("--ensemble", "ensemble", str, "nvt, npt or both in turn, after the melt (default {})"),
    ("--pressure", "pressure_GPa", float, "where the ensemble is npt, GPa (default {:g})"),
    ("--skip", "skip_ps", float, "frames before this are left out: the start is forgotten, ps (default {:g})"),
    ("--strata", "strata", int, "temperature ranges with equal shares (default {})"),
    ("--copies", "copies", int, "strained and rattled copies of train configurations, in addition (default {})"),
    ("--strain", "strain", float, "largest strain component of a copy (default {})"),
    ("--rattle", "rattle_A", float, "displacement of the atoms of a copy, angstrom (default {})"),
    ("--label-accuracy", "label_accuracy", float, "force error of Ewald labels in 14.4 eV/angstrom (default {:g})"),
)


def add_parser(commands, parents: list[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command to a parser's subcommands."""
    from .plan import Plan

    one = commands.add_parser(
        "sample", parents=parents, allow_abbrev=False, help="make a training set from a teacher potential"
    )
    one.add_argument("--out", default=DEFAULT_OUT, help=f"folder of the set (default {DEFAULT_OUT})")
    one.add_argument("--resume", action="store_true", help="go on in --out where it was interrupted")
    one.add_argument(
        "--config", help="TOML file with keys of silica_md.config.Config; its segments replace the protocol"
    )
    one.add_argument("--na2o", dest="na2o", type=_fractions, help="mole fractions of Na2O, runs in turn, such as 0,0.2")
    for flag, key, kind, text in _TEACHER:
        one.add_argument(flag, dest=key, type=kind, help=text)
    for flag, key, kind, text in _PLAN:
        one.add_argument(flag, dest=key, type=kind, help=text.format(Plan.__dataclass_fields__[key].default))
    one.set_defaults(command=sample)
    return one


def sample(options: argparse.Namespace) -> int:
    """Make a training set, or go on with one."""
    from .make import SetFolder, make

    folder, begun = SetFolder(Path(options.out)), time.monotonic()
    plan = _resumed(folder, options) if options.resume else _plan(options)

    def say(text):
        sys.stderr.write(text + "\n")

    if options.resume and folder.record.exists():
        say(f"{folder.path} is finished")
    elif not make(plan, folder.path, say, options.resume):
        say(f"stopped; go on with: silica-md sample --resume --out {folder.path}")
        return 0
    else:
        say(f"{folder.record} written after {format_duration(time.monotonic() - begun)}")
    _print(folder)
    return 0


def _plan(options: argparse.Namespace):
    from .plan import Plan, teacher

    given = {key: getattr(options, key) for _, key, _, _ in _TEACHER}
    chosen = {key: getattr(options, key) for _, key, _, _ in _PLAN if getattr(options, key) is not None}
    if options.na2o is not None:
        chosen["na2o"] = options.na2o
    return Plan(teacher(given, options.config), **chosen)


def _resumed(folder, options: argparse.Namespace):
    for flag, key, _, _ in (*_TEACHER, *_PLAN, ("--na2o", "na2o", None, ""), ("--config", "config", None, "")):
        if getattr(options, key) is not None and key not in ("device", "threads"):
            raise ConfigError(f"{flag} cannot be changed in a set that is resumed; leave it out, or start a new one")
    plan = folder.read_plan()
    changed = {key: getattr(options, key) for key in ("device", "threads") if getattr(options, key) is not None}
    return replace(plan, teacher=replace(plan.teacher, **changed))


def _print(folder) -> None:
    from .statistics import rows

    record = json.loads(folder.record.read_text(encoding="utf-8"))
    table = rows(record["sets"])
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        line = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        sys.stdout.write(
            line.encode(sys.stdout.encoding or "utf-8", "replace").decode(sys.stdout.encoding or "utf-8") + "\n"
        )
    chosen, other = record["selection"]["chosen"], record["selection"]["at_random_within_the_ranges"]
    sys.stdout.write(
        f"largest distance of a frame from the chosen {chosen['largest_distance']:.2f} (at random"
        f" {other['largest_distance']:.2f}), mean {chosen['mean_distance']:.2f} ({other['mean_distance']:.2f})\n"
    )


def _fractions(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))
