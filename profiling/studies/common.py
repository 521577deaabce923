"""What studies share: trainings that are not repeated, errors of a model on a set, tables and pictures."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import rsa_kernels as rk
from profiling.machine import name as machine_name
from silica_md import models
from silica_md.files import replace_file
from silica_md.labelled import ENERGY, FORCES
from silica_md.potentials import LearnedPotential
from silica_md.state import State
from silica_md.train import train
from silica_md.training.folder import TrainingFolder
from silica_md.training.settings import Settings

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results" / "studies"
CACHE = HERE.parent / ".cache"
SHARED = Path(os.environ.get("SILICA_SHARED", HERE.parent.parent.parent / "shared"))

LAYERS = {
    "SR": ("sr", {}),
    "RSA published": ("rsa", {"norm": "rsa"}),
    "RSGA published": ("rsga", {"norm": "rsga"}),
    "RSA intensive": ("rsa", {}),
    "SOG-Net": ("sog", {}),
    "RSA intensive, last only": ("rsa", {"interactions": [1]}),
    "RSA intensive, larger cells": ("rsa", {}),
    "RSGA intensive": ("rsga", {}),
    "latent Ewald": ("latent_ewald", {}),
}
"""Name in a study → model and options of its long-range layer; everything else is the same for all but
"larger cells", which is trained on some of 1,024 charges as well (random charges only)."""


def trained(settings: Settings, out: Path) -> tuple[models.Network, dict]:
    """The model of a training, which is done first where it has not been, and resumed where it was killed.

    Returns
    -------
    model : Network
    record : dict
        What its file says of it.
    """
    if not (out / "model.json").exists():
        resume = out.exists()
        if resume and TrainingFolder(out).read_settings() != settings:
            raise ValueError(f"{out} holds a training with other settings; remove it, or take another folder")
        if train(settings, out, resume=resume, show=False) is None:
            raise KeyboardInterrupt
    return models.load(out / "model.json")


def shared_file(name: str) -> Path:
    """A file of the reference data, which are not part of the package."""
    path = SHARED / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: set SILICA_SHARED to the folder that holds the reference data")
    return path


def write_table(path: Path, rows: Sequence[dict]) -> None:
    """Write rows as CSV, with the machine they were made on."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*rows[0], "machine"], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        plain = {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()}
        writer.writerow(plain | {"machine": machine_name()})
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, text.getvalue())


def read_table(path: Path) -> list[dict]:
    """Rows of a CSV file; none where it has not been made."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def rms(values) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.square(np.asarray(values)))))


def over_seeds(values: Sequence[float]) -> str:
    """Mean and spread of a figure over seeds, for a table."""
    return f"{np.mean(values):.3g} ± {np.std(values):.1g}"


def predictions(model: models.Network, frames: Sequence) -> list[tuple[float, np.ndarray]]:
    """Energy (eV) and forces (eV/Å) of every configuration."""
    potential, found = LearnedPotential(model), []
    for atoms in frames:
        state = State.from_ase(atoms)
        pairs = rk.neighbor_list(state.positions, state.cell, state.pbc, potential.cutoff)
        result = potential.evaluate(state, pairs, virial=False)
        found.append((float(result.energy), result.forces.numpy()))
    return found


def errors(model: models.Network, frames: Sequence) -> dict[str, float]:
    """Errors on labelled configurations: energy in meV/atom, forces in meV/Å, and both by the labels' own size."""
    found = predictions(model, frames)
    forces = np.concatenate([atoms.arrays[FORCES] for atoms in frames])
    off = np.concatenate([one for _, one in found]) - forces
    energy = np.array([(e - atoms.info[ENERGY]) / len(atoms) for (e, _), atoms in zip(found, frames, strict=True)])
    return {
        "rmse_e_meV_per_atom": 1e3 * rms(energy),
        "mean_e_meV_per_atom": 1e3 * float(energy.mean()),
        "rmse_f_meV_per_A": 1e3 * rms(off),
        "rms_f_meV_per_A": 1e3 * rms(forces),
    }
