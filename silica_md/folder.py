"""The folder of a run: what lies where, and that it is never overwritten."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path

from . import config as configuration
from .config import Config
from .errors import ConfigError, RunExistsError
from .files import replace_file

LOCK = ".lock"


class RunFolder:
    """Paths of a run.

    Parameters
    ----------
    path : str or Path
        ``runs/silica``, for instance.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    config = property(lambda self: self.path / "config.json")
    thermo = property(lambda self: self.path / "thermo.csv")
    structure = property(lambda self: self.path / "structure.h5")
    checkpoints = property(lambda self: self.path / "checkpoints")
    final = property(lambda self: self.path / "final.xyz")
    model = property(lambda self: self.path / "model")
    summary = property(lambda self: self.path / "summary.json")
    report = property(lambda self: self.path / "report.html")
    log = property(lambda self: self.path / "log.txt")

    @property
    def trajectories(self) -> tuple[Path, Path]:
        """Both trajectory files."""
        return self.path / "trajectory.xyz", self.path / "trajectory.nc"

    @property
    def taken(self) -> bool:
        """Whether there is anything in it, the lock aside."""
        if not self.path.is_dir():
            return self.path.exists()
        return any(path.name != LOCK for path in self.path.iterdir())

    @property
    def finished(self) -> bool:
        """Whether the run in it has come to its end, report included."""
        return self.summary.exists() and self.report.exists()

    @property
    def resume_by_make(self) -> str:
        """The command that goes on with the run for those who use make."""
        run = "" if self.path == Path("runs/silica") else f"RUN={self.path} "
        return f"make quench {run}QUENCH=--resume"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from working in the folder at the same time.

        Raises
        ------
        RunExistsError
            Another process is at work in it.
        """
        with open(self.path / LOCK, "w", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunExistsError(f"another process is at work in {self.path}; wait for it, or stop it") from error
            yield

    def refuse_if_taken(self) -> None:
        """Raise RunExistsError, saying how to go on, if there is something in the folder."""
        if self.taken:
            how = f"see {self.report}" if self.finished else f"continue it with --resume ({self.resume_by_make})"
            raise RunExistsError(f"{self.path} is not empty and is not overwritten; {how}, or choose another --out")

    @contextlib.contextmanager
    def created(self, config: Config) -> Iterator[None]:
        """Make the folder, lock it as `locked` does, and write the configuration into it.

        Raises
        ------
        RunExistsError
            There is something already, or another process is at work in it.
        ConfigError
            It cannot be made.
        """
        self.refuse_if_taken()
        with contextlib.ExitStack() as held:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                held.enter_context(self.locked())
                self.refuse_if_taken()  # again: of two that begin at once, one had the lock first
                replace_file(self.config, describe(config))
            except OSError as error:
                raise ConfigError(f"cannot write into {self.path}: {error.strerror}") from error
            yield

    def read_config(self) -> Config:
        """Return the configuration of the run in the folder.

        Raises
        ------
        ConfigError
            There is none, or it is damaged.
        """
        if not self.config.exists():
            raise ConfigError(f"there is no run in {self.path} (no config.json); leave out --resume to start one")
        try:
            plain = json.loads(self.config.read_text(encoding="utf-8"))
            del plain["schedule"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{self.config} is damaged: {error}") from error
        return configuration.from_dict(plain)

    def log_line(self, text: str) -> None:
        """Append a line to ``log.txt``."""
        with open(self.log, "a", encoding="utf-8") as file:
            file.write(text + "\n")


def describe(config: Config) -> str:
    """Return the configuration as JSON, with the schedule it leads to."""
    schedule = [
        {
            "name": stage.segment.name,
            "ensemble": stage.segment.ensemble,
            "from_K": stage.start_K,
            "to_K": stage.end_K,
            "steps": stage.last_step - stage.first_step,
            "duration_ps": (stage.last_step - stage.first_step) * config.timestep_fs / 1000.0,
        }
        for stage in config.schedule().stages
    ]
    return json.dumps(config.to_dict() | {"schedule": schedule}, indent=1, ensure_ascii=False) + "\n"
