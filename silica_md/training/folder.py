"""The folder of a training: what lies where, and that it is never overwritten."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from ..errors import ConfigError, RunExistsError
from ..files import replace_file
from ..folder import RunFolder
from . import settings as configuration
from .settings import Settings


class TrainingFolder(RunFolder):
    """Paths of a training; locking and the log are those of every run.

    Parameters
    ----------
    path : str or Path
        ``runs/train``, for instance.
    """

    config = property(lambda self: self.path / "settings.json")
    epochs = property(lambda self: self.path / "epochs.csv")
    errors = property(lambda self: self.path / "errors.csv")
    model = property(lambda self: self.path / "model.safetensors")
    stage_one = property(lambda self: self.path / "model_stage_one.safetensors")

    @property
    def finished(self) -> bool:
        """Whether the training in it has come to its end."""
        return self.summary.exists()

    def refuse_if_taken(self) -> None:
        """Raise RunExistsError, saying how to go on, if there is something in the folder."""
        if self.taken:
            how = f"see {self.report}" if self.finished else "continue it with --resume"
            raise RunExistsError(f"{self.path} is not empty and is not overwritten; {how}, or choose another --out")

    @contextlib.contextmanager
    def created(self, settings: Settings) -> Iterator[None]:
        """Make the folder, lock it, write settings and sums of the data files into it; see `RunFolder.created`."""
        self.refuse_if_taken()
        with contextlib.ExitStack() as held:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                held.enter_context(self.locked())
                self.refuse_if_taken()  # again: of two that begin at once, one had the lock first
                plain = {"settings": settings.to_dict(), "sha256": data_sums(settings)}
                replace_file(self.config, json.dumps(plain, indent=1, ensure_ascii=False) + "\n")
            except OSError as error:
                raise ConfigError(f"cannot write into {self.path}: {error.strerror}") from error
            yield

    def read_settings(self) -> Settings:
        """Return the settings of the training in the folder, once its data are seen to be the same.

        Raises
        ------
        ConfigError
            There are none, they are damaged, or a data file has changed.
        """
        if not self.config.exists():
            raise ConfigError(f"there is no training in {self.path} (no settings.json); leave out --resume")
        try:
            plain = json.loads(self.config.read_text(encoding="utf-8"))
            settings, sums = configuration.from_dict(plain["settings"]), plain["sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{self.config} is damaged: {error}") from error
        for name, found in data_sums(settings).items():
            if sums.get(name) != found:
                raise ConfigError(f"{name} has changed since the training in {self.path} began; start a new one")
        return settings


def data_sums(settings: Settings) -> dict[str, str]:
    """SHA-256 of every data file.

    Raises
    ------
    ConfigError
        One cannot be read.
    """
    sums = {}
    for name in (*settings.train_file, *settings.valid_file, *settings.test_file):
        try:
            sums[name] = hashlib.sha256(Path(name).read_bytes()).hexdigest()
        except OSError as error:
            raise ConfigError(f"cannot read {name}: {error.strerror}") from error
    return sums
