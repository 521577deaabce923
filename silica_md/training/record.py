"""What a training writes down and shows as it goes: lines for people, the log of its epochs, the progress bar."""

from __future__ import annotations

import sys
import time

from ..observers import ProgressBar, ThermoLog
from .distributed import Group
from .folder import TrainingFolder
from .settings import Settings

COLUMNS = (
    "epoch",
    "step",
    "stage",
    "lr",
    "train_loss",
    "valid_loss",
    "rmse_e_meV_per_atom",
    "mae_e_meV_per_atom",
    "rmse_f_meV_per_A",
    "mae_f_meV_per_A",
    "rmse_stress_meV_per_A3",
    "mae_stress_meV_per_A3",
    "seconds",
)
_FORMS = {
    "train_loss": "loss {:.3g}",
    "rmse_e_meV_per_atom": "E {:.2f} meV/atom",
    "rmse_f_meV_per_A": "F {:.1f} meV/Å",
    "segment": "{}",
}


class TrainingRecord:
    """Log, lines and progress bar of a training; only the leading process writes and shows anything.

    Parameters
    ----------
    folder : TrainingFolder
        Where the files are.
    group : Group
    settings : Settings
    n_batches : int
        Steps of an epoch.
    show : bool
        Whether to write on standard error.
    """

    def __init__(self, folder: TrainingFolder, group: Group, settings: Settings, n_batches: int, show: bool = True):
        self._folder, self._leads, self._show = folder, group.leads, show and group.leads
        self._log = ThermoLog(folder.epochs, COLUMNS)
        self._n_batches, self._total = n_batches, settings.max_num_epochs * n_batches
        self._bar = None
        self._last: dict = {}
        self.begun = time.monotonic()

    def say(self, text: str) -> None:
        """Write a line for people, on the screen and into ``log.txt``."""
        if self._leads:
            self._folder.log_line(text)
        if self._show:
            sys.stderr.write(text + "\n") if self._bar is None else self._bar.note(text)

    def open(self, step: int) -> None:
        """Begin to show progress, from a step."""
        if self._show:
            self._bar = ProgressBar(self._total, start_step=step, forms=_FORMS)

    def step(self, epoch: int, batch: int, stage: int, loss: float) -> None:
        """Show where the training is."""
        if self._bar is not None:
            where = {"step": epoch * self._n_batches + batch, "segment": f"stage {stage}" if stage > 1 else None}
            self._bar.update(self._last | where | {"train_loss": loss})

    def row(self, row: dict) -> None:
        """Write an epoch into the log."""
        self._last = {key: row[key] for key in _FORMS if row.get(key) is not None}
        if self._leads:
            self._log.write(row)

    def position(self) -> int:
        """Length of the log, forced to the disk."""
        return self._log.position()

    def truncate_to(self, position: int) -> None:
        """Go on from a length of the log."""
        if self._leads:
            self._log.truncate_to(position)

    def __enter__(self) -> TrainingRecord:
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._log.close()
