"""What a model predicts for a set of frames, and how far off it is: the loss and the tables of errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import nn

from .distributed import Group
from .frames import Frame
from .graphs import Graph, collate
from .settings import Settings


class Predictions(NamedTuple):
    """Energies beyond the isolated atoms (n_frames,) eV, forces (n_atoms, 3) eV/Å, stresses (n_frames, 3, 3) eV/Å³;
    float64, frame after frame."""

    energy: np.ndarray
    forces: np.ndarray
    stress: np.ndarray


def predict(
    model: nn.Module, graphs: Sequence[Graph], n_elements: int, settings: Settings, group: Group, device
) -> Predictions:
    """Evaluate a model on graphs, the batches shared out among the processes; all of them get all of it."""
    ptr = np.concatenate([[0], np.cumsum([len(graph.species) for graph in graphs])])
    energy = torch.zeros(len(graphs), dtype=torch.float64, device=device)
    forces = torch.zeros(int(ptr[-1]), 3, dtype=torch.float64, device=device)
    stress = torch.zeros(len(graphs), 3, 3, dtype=torch.float64, device=device)
    starts = range(0, len(graphs), settings.valid_batch_size)
    for first in starts[group.rank :: group.size]:
        last = min(first + settings.valid_batch_size, len(graphs))
        batch = collate(graphs[first:last], n_elements, device)
        output = model(
            batch.inputs,
            training=False,
            compute_force=settings.needs("forces"),
            compute_stress=settings.needs("stress"),
        )
        energy[first:last] = output["interaction_energy"].detach()
        if settings.needs("forces"):
            forces[ptr[first] : ptr[last]] = output["forces"].detach()
        if settings.needs("stress"):
            stress[first:last] = output["stress"].detach()
    found = [group.sum_(tensor).cpu().numpy() for tensor in (energy, forces, stress)]
    return Predictions(*found)


def total_loss(
    predictions: Predictions, frames: Sequence[Frame], energies: Mapping[int, float], weights: Mapping[str, float]
) -> float:
    """The loss of `silica_md.training.loss` over a whole set, in float64."""
    sizes = np.array([len(frame) for frame in frames])
    share = np.array([frame.weight for frame in frames])
    total = 0.0
    if "energy" in weights:
        off = (predictions.energy - residuals(frames, energies)) / sizes
        total += weights["energy"] * np.mean(share * off**2)
    if "forces" in weights:
        off = predictions.forces - np.concatenate([frame.forces for frame in frames])
        total += weights["forces"] * np.mean(np.repeat(share, sizes)[:, None] * off**2)
    if "stress" in weights:
        off = predictions.stress - np.stack([frame.stress for frame in frames])
        total += weights["stress"] * np.mean(share[:, None, None] * off**2)
    return float(total)


def residuals(frames: Sequence[Frame], energies: Mapping[int, float]) -> np.ndarray:
    """Energy labels beyond the isolated atoms, (n_frames,) eV."""
    return np.array([frame.energy - sum(energies[z] for z in frame.atomic_numbers.tolist()) for frame in frames])


def error_table(
    predictions: Predictions, frames: Sequence[Frame], energies: Mapping[int, float], settings: Settings
) -> list[dict]:
    """Errors of all frames, of every element (forces) and of every kind of configuration, a row each.

    Returns
    -------
    list of dict
        "of" ("all", an element, or "config_type ..."), "frames", "atoms"; root mean square and mean absolute errors
        "rmse_e_meV_per_atom", "mae_e_meV_per_atom", "rmse_f_meV_per_A", "mae_f_meV_per_A" (of the components),
        "relative_rmse_f_percent" (of the RMS component), "rmse_stress_meV_per_A3", "mae_stress_meV_per_A3"; None where
        there is no such label.
    """
    sizes = np.array([len(frame) for frame in frames])
    off_energy = (predictions.energy - residuals(frames, energies)) / sizes
    labels = np.concatenate([frame.forces for frame in frames])
    off_forces = predictions.forces - labels
    off_stress = predictions.stress - np.stack([frame.stress for frame in frames])
    numbers = np.concatenate([frame.atomic_numbers for frame in frames])
    kinds = np.array([frame.config_type for frame in frames])

    def row(name, of_frames, of_atoms):
        whole = of_frames is not None
        chosen = off_forces[of_atoms]
        made = {"of": name, "frames": int(of_frames.sum()) if whole else None, "atoms": int(of_atoms.sum())}
        made |= _errors("e_meV_per_atom", off_energy[of_frames] if whole and settings.needs("energy") else None)
        made |= _errors("f_meV_per_A", chosen if settings.needs("forces") else None)
        rms = np.sqrt(np.mean(labels[of_atoms] ** 2)) if settings.needs("forces") else 0.0
        made["relative_rmse_f_percent"] = 100.0 * float(np.sqrt(np.mean(chosen**2)) / rms) if rms else None
        made |= _errors("stress_meV_per_A3", off_stress[of_frames] if whole and settings.needs("stress") else None)
        return made

    every = np.ones(len(frames), dtype=bool)
    rows = [row("all", every, np.ones(len(numbers), dtype=bool))]
    elements = np.unique(numbers)
    if settings.needs("forces") and len(elements) > 1:
        rows += [row(chemical_symbols[z], None, numbers == z) for z in elements]
    names = sorted(set(kinds.tolist()))
    if len(names) > 1:
        rows += [row(f"config_type {name}", kinds == name, np.repeat(kinds == name, sizes)) for name in names]
    return rows


def _errors(name, off):
    """Root mean square and mean absolute error in thousandths."""
    if off is None:
        return {f"rmse_{name}": None, f"mae_{name}": None}
    return {
        f"rmse_{name}": 1e3 * float(np.sqrt(np.mean(off**2))),
        f"mae_{name}": 1e3 * float(np.mean(np.abs(off))),
    }
