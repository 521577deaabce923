"""The end of a training: the best model judged on every set and saved, with where it comes from."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from rsa_kernels.doctor import version_of

from .. import models
from ..files import replace_file
from ..observers import format_duration
from ..report.provenance import provenance
from .dataset import Dataset
from .distributed import Group
from .evaluate import error_table, predict
from .folder import TrainingFolder, data_sums
from .optimizer import Average
from .record import TrainingRecord
from .settings import Settings
from .store import Learner


@dataclass(frozen=True)
class Result:
    """What came of a training.

    Attributes
    ----------
    model : silica_md.models.Network
        With the weights of the best evaluation of the last stage.
    errors : dict of str to list of dict
        Tables of errors of "train", "valid" and "test", rows as `silica_md.training.evaluate.error_table` makes them:
        ``errors["valid"][0]["rmse_f_meV_per_A"]``.
    path : Path
        The saved model.
    epochs, steps : int
        Done in all.
    best_epoch : int
        Of the model.
    seconds : float
        Wall time of the training, earlier processes of a resumed one included.
    """

    model: torch.nn.Module
    errors: dict[str, list[dict]]
    path: Path
    epochs: int
    steps: int
    best_epoch: int
    seconds: float


def finish(
    learner: Learner,
    data: Dataset,
    settings: Settings,
    team: Group,
    device: torch.device,
    record: TrainingRecord,
    folder: TrainingFolder,
    report: bool = True,
) -> Result:
    """Judge the best model on every set, save it, write tables and, with `report`, plots and the page."""
    progress, model = learner.progress, learner.model
    extra = {"settings": settings.to_dict(), "sha256": data_sums(settings), "made_with": provenance() | _versions()}
    if progress.stage == 2 and 1 in learner.best and team.leads:
        Average.load(learner.parameters, learner.best[1])
        models.save(model, folder.stage_one, extra | {"stage": 1})
    Average.load(learner.parameters, learner.best[progress.stage])
    predictions, errors = {}, {}
    for name, part in data.parts.items():
        predictions[name] = predict(model, part.graphs, len(data.config.atomic_numbers), settings, team, device)
        errors[name] = error_table(predictions[name], part.frames, data.energies, settings)
    training = {
        "stage": progress.stage,
        "best_epoch": progress.best_epoch,
        "epochs": progress.epoch,
        "steps": progress.step,
        "seconds": progress.seconds,
        "valid_loss": progress.best_loss,
    }
    if team.leads:
        models.save(
            model, folder.model, extra | training | {"errors": {name: rows[0] for name, rows in errors.items()}}
        )
        facts = extra | training
        if report:
            from .page import write_page  # with the plotting packages

            frames = {name: part.frames for name, part in data.parts.items()}
            write_page(folder, frames, predictions, errors, data.energies, facts)
        write_tables(folder, errors, facts)
        for line in table_lines(errors):
            record.say(line)
        record.say(
            f"{folder.model} is epoch {progress.best_epoch} of {progress.epoch}, "
            f"trained in {format_duration(progress.seconds)}{f'; see {folder.report}' if report else ''}"
        )
    team.wait()
    return Result(model, errors, folder.model, progress.epoch, progress.step, progress.best_epoch, progress.seconds)


def _versions():
    return {name: version for name in ("mace-torch", "e3nn") if (version := version_of(name))}


def write_tables(folder: TrainingFolder, errors: Mapping[str, list[dict]], facts: Mapping) -> None:
    """Write ``errors.csv`` and ``summary.json``."""
    text = io.StringIO()
    rows = [{"set": name} | row for name, table in errors.items() for row in table]
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace_file(folder.errors, text.getvalue())
    replace_file(folder.summary, json.dumps(dict(facts) | {"errors": errors}, indent=1, ensure_ascii=False) + "\n")


_HEADINGS = {
    "rmse_e_meV_per_atom": "E RMSE",
    "mae_e_meV_per_atom": "E MAE",
    "rmse_f_meV_per_A": "F RMSE",
    "mae_f_meV_per_A": "F MAE",
    "relative_rmse_f_percent": "F rel. %",
    "rmse_stress_meV_per_A3": "stress RMSE",
    "mae_stress_meV_per_A3": "stress MAE",
}
_MOST_KINDS = 6


def table_lines(errors: Mapping[str, list[dict]]) -> list[str]:
    """The tables as lines of text: meV/atom, meV/Å, meV/Å³; of many kinds of configuration the worst."""
    columns = [key for key in _HEADINGS if any(row[key] is not None for rows in errors.values() for row in rows)]
    lines = ["", "errors (meV/atom, meV/Å, meV/Å³)".ljust(40) + "".join(f"{_HEADINGS[key]:>13}" for key in columns)]
    for name, rows in errors.items():
        kinds = [row for row in rows if row["of"].startswith("config_type")]
        worst = sorted(kinds, key=lambda row: row[columns[0]], reverse=True)[:_MOST_KINDS]
        for row in rows:
            if row in kinds and row not in worst:
                continue
            cells = "".join(f"{'' if row[key] is None else format(row[key], '.2f'):>13}" for key in columns)
            lines.append(f"{name} {row['of']}".ljust(40)[:40] + cells)
        if len(kinds) > _MOST_KINDS:
            lines.append(f"{name}: {len(kinds) - _MOST_KINDS} kinds with smaller errors in energy are not shown")
    return [*lines, ""]
