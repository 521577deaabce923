"""The command line: `silica-md quench`, `analyze`, `sample`, `train`, `convert`, `doctor`."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from rsa_kernels.errors import RsaKernelsError

from . import config as configuration
from .errors import ConfigError, SilicaError
from .folder import RunFolder
from .models import convert as models_convert
from .observers import format_duration, print_summary, stages_shown
from .quench import run
from .sample import command as sample_command

DEFAULT_OUT = "runs/silica"

# Flag, key of the configuration, type, what it is.
_QUENCH_FLAGS = (
    ("--atoms", "atoms", int, "number of atoms, a multiple of 3 (default 1500)"),
    ("--na2o", "na2o", float, "mole fraction of Na2O, 0 to 0.5 (default 0: silica)"),
    ("--start", "start", str, "structure file to begin with; excludes --atoms, --na2o and --density"),
    ("--density", "density_g_cm3", float, "density of the random start, g/cm3 (default: as measured)"),
    ("--potential", "potential", str, "shik, bks, pmmcs or mace:FILE, a learned one (default shik)"),
    ("--coulomb", "coulomb", str, "dsf or ewald sums with bks or pmmcs (default dsf); shik has its own"),
    ("--d3", "d3", str, "add D3(BJ) dispersion of a functional: pbe, revpbe, scan, b3lyp, ... (default none)"),
    ("--melt", "melt_K", float, "temperature of the melt, K (default %(key)s)"),
    ("--rate", "rate_K_per_ps", float, "cooling rate, K/ps (default %(key)s)"),
    ("--hold", "hold_ps", float, "length of the hold at the end, ps (default %(key)s)"),
    ("--ensemble", "ensemble", str, "npt or nvt after the melt (default npt; nvt with --na2o)"),
    ("--pressure", "pressure_GPa", float, "pressure where the ensemble is npt, GPa (default 0)"),
    ("--observe", "observe_ps", float, "time between samples of S(Q), rings, angles, ps; 0: none (default %(key)s)"),
    ("--timestep", "timestep_fs", float, "time step, fs (default %(key)s)"),
    ("--seed", "seed", int, "seed of positions, velocities and noise (default 1)"),
    ("--device", "device", str, "auto, cpu or cuda (default auto)"),
    ("--threads", "threads", int, "CPU threads (default: all cores)"),
)
_ANALYZE = {"segment": None, "index": ":", "q_max": 25.0, "elements": None}
"""What decides an analysis, and what is usual: only the usual one is the run's own report."""
_MAY_CHANGE = ("device", "threads")
"""Keys that a resumed run may set anew: they decide how fast it is, not what comes out."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = _parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        parser.error(_hint(unknown[0], options.flags))
    try:
        return options.command(options)
    except (SilicaError, RsaKernelsError, ValueError, OSError) as error:
        if options.traceback:
            raise
        sys.stderr.write(f"error: {error}\n")
        return 1


def quench(options: argparse.Namespace) -> int:
    """Make a glass, analyse it, write the report."""
    folder = RunFolder(options.out)
    given = {key: getattr(options, key) for _, key, _, _ in _QUENCH_FLAGS if getattr(options, key) is not None}
    if folder.finished and (options.resume or options.if_finished == "show"):
        return _show(folder)
    if options.resume:
        config = _resumed(folder, options, given)
    else:
        folder.refuse_if_taken()
        config = configuration.load(options.config, given)
    return _make(folder, config, options.resume)


def _resumed(folder: RunFolder, options: argparse.Namespace, given: dict) -> configuration.Config:
    fixed = [flag for flag, key, _, _ in _QUENCH_FLAGS if key in given and key not in _MAY_CHANGE]
    if fixed or options.config:
        flag = "--config" if options.config else fixed[0]
        raise ConfigError(f"{flag} cannot be changed in a run that is resumed; leave it out, or start a new run")
    return configuration.from_dict(folder.read_config().to_dict() | given)


def _make(folder: RunFolder, config: configuration.Config, resume: bool) -> int:
    def say(text):
        sys.stderr.write(text + "\n")
        folder.log_line(text)

    begun = time.monotonic()
    if not run(config, folder, say, resume):
        say(f"stopped; go on with: silica-md quench --resume --out {folder.path} (or {folder.resume_by_make})")
        return 0
    _judge(folder)
    say(f"{folder.report} written after {format_duration(time.monotonic() - begun)}")
    return 0


def _judge(folder: RunFolder) -> None:
    # Imported here: `--help` need not wait for the plotting packages.
    from .analysis import Progress, analyze, read_frames
    from .report import write_report, write_summary

    with stages_shown() as show:
        analysis = analyze(read_frames(folder.path), progress=Progress(show))
    write_report(folder.path, analysis)
    write_summary(folder.path, analysis, folder.read_config().to_dict())
    print_summary(analysis.summary_rows())


def _show(folder: RunFolder) -> int:
    rows = json.loads(folder.summary.read_text(encoding="utf-8"))["summary"]
    print_summary([(row["quantity"], row["unit"], row["measured"], row["simulated"]) for row in rows])
    sys.stderr.write(
        f"{folder.path} is finished: see {folder.report}. For another glass: silica-md quench --out FOLDER --seed N\n"
    )
    return 0


def analyse(options: argparse.Namespace) -> int:
    """Judge a structure, a trajectory or a run."""
    from .analysis import Progress, analyze, read_frames
    from .report import write_report, write_summary

    path = Path(options.path)
    elements = options.elements.split(",") if options.elements else None
    frames = read_frames(path, index=options.index, segment=options.segment, elements=elements)
    out, mine = _report_folder(path, options)
    if not mine and out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty and is not overwritten; choose another --out")
    with stages_shown() as show:
        analysis = analyze(frames, q_max=options.q_max, progress=Progress(show))
    report = write_report(out, analysis, structure=frames[-1])
    run = RunFolder(path)
    write_summary(out, analysis, run.read_config().to_dict() if run.config.exists() else None)
    print_summary(analysis.summary_rows())
    sys.stderr.write(f"{len(frames)} frames; {report} written\n")
    return 0


def _report_folder(path: Path, options: argparse.Namespace) -> tuple[Path, bool]:
    """Where a report goes, and whether it may replace one: only the same analysis of the same run."""
    given = {key: getattr(options, key) for key, standard in _ANALYZE.items() if getattr(options, key) != standard}
    if options.out:
        out = Path(options.out)
        return out, not given and path.is_dir() and out.resolve() == path.resolve()
    if not path.is_dir():
        return Path(f"{path.stem}-report"), False
    # Quoted, so that other options give another name, and no name leads elsewhere.
    parts = [f"{key}-{quote(str(value).replace(':', 'to'), safe='')}" for key, value in given.items()]
    return (path / "-".join(["analysis", *parts]) if parts else path), True


def train(options: argparse.Namespace) -> int:
    """Train a potential on labelled frames."""
    from .train import train as run_training
    from .training import settings as training_settings
    from .training.folder import TrainingFolder

    folder = TrainingFolder(options.out)
    if options.resume and options.settings:
        raise ConfigError(f"{options.settings} cannot change a training that is resumed; leave it out")
    if not options.resume and not options.settings:
        raise ConfigError("name the settings of the training: silica-md train config.toml")
    if options.resume and folder.finished:
        sys.stderr.write(f"{folder.path} is finished: see {folder.report}\n")
        return 0
    settings = folder.read_settings() if options.resume else training_settings.load(options.settings)
    run_training(settings, options.out, resume=options.resume)
    return 0


def doctor(_options: argparse.Namespace) -> int:
    """Say what this installation is and would do."""
    import rsa_kernels.random  # noqa: F401  (so that its ops are listed)
    from rsa_kernels.doctor import report

    sys.stdout.write(report() + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="silica-md", description="Makes silica glass by molecular dynamics and judges it.", allow_abbrev=False
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--traceback", action="store_true", help="show where an error comes from")
    commands = parser.add_subparsers(required=True, metavar="quench | analyze | sample | train | convert | doctor")

    one = commands.add_parser("quench", parents=[common], allow_abbrev=False, help="make and judge a glass")
    one.add_argument("--out", default=DEFAULT_OUT, help=f"folder of the run (default {DEFAULT_OUT})")
    one.add_argument("--resume", action="store_true", help="go on with the run in --out from its last checkpoint")
    one.add_argument("--config", help="TOML file; its keys are those of silica_md.config.Config")
    one.add_argument(
        "--if-finished", choices=("refuse", "show"), default="refuse", help="what to do if --out holds a finished run"
    )
    defaults = configuration.Config()
    for flag, key, kind, text in _QUENCH_FLAGS:
        one.add_argument(flag, dest=key, type=kind, help=text % {"key": f"{getattr(defaults, key)}"})
    one.set_defaults(command=quench, flags=_flags(one))

    two = commands.add_parser("analyze", parents=[common], allow_abbrev=False, help="judge a structure or a run")
    two.add_argument("path", metavar="FILE|RUN", help="anything ASE reads, or the folder of a run")
    two.add_argument("--out", help="folder of the report (default: RUN, RUN/analysis-OPTIONS or FILE-report)")
    two.add_argument("--q-max", type=float, help="end of S(Q), 1/angstrom (default %(default)g)")
    two.add_argument("--index", help="frames to average: 0, -1 or a slice such as --index=-20: (default all)")
    two.add_argument("--segment", help="part of the schedule to average (default: the last)")
    two.add_argument("--elements", help="elements of atom types 1, 2, ... of a LAMMPS file, such as Si,O")
    two.set_defaults(command=analyse, flags=_flags(two), **_ANALYZE)

    sample = sample_command.add_parser(commands, [common])
    sample.set_defaults(flags=_flags(sample))

    learner = commands.add_parser("train", parents=[common], allow_abbrev=False, help="train a potential on labels")
    learner.add_argument("settings", nargs="?", metavar="FILE.toml", help="keys: silica_md.training.settings.Settings")
    learner.add_argument("--out", default="runs/train", help="folder of the training (default %(default)s)")
    learner.add_argument("--resume", action="store_true", help="go on with the training in --out")
    learner.set_defaults(command=train, flags=_flags(learner))

    convert = commands.add_parser(
        "convert", parents=[common], allow_abbrev=False, help="make a model of this package of a published checkpoint"
    )
    models_convert.add_arguments(convert)
    convert.set_defaults(command=models_convert.convert, flags=_flags(convert))

    three = commands.add_parser("doctor", parents=[common], allow_abbrev=False, help="versions, threads, GPU, kernels")
    three.set_defaults(command=doctor, flags=_flags(three))
    return parser


def _flags(parser: argparse.ArgumentParser) -> list[str]:
    return [flag for action in parser._actions for flag in action.option_strings]


def _hint(unknown: str, known: list[str]) -> str:
    near = difflib.get_close_matches(unknown.split("=")[0], known, n=1, cutoff=0.5)
    return f"unknown argument {unknown}" + (f"; did you mean {near[0]}?" if near else "")


if __name__ == "__main__":
    sys.exit(main())
