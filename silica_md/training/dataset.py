"""The sets a training needs, made ready: frames read and described, graphs, and what the model begins with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from ase.data import chemical_symbols

from ..models import ModelConfig
from . import baseline
from .frames import Frame, describe, read_frames, split
from .graphs import Graph, make_graphs
from .settings import Settings


@dataclass(frozen=True)
class Part:
    """Frames and their graphs, in the same order."""

    frames: list[Frame]
    graphs: list[Graph]


@dataclass(frozen=True)
class Dataset:
    """Everything that is learned from, and judged with.

    Attributes
    ----------
    parts : dict of str to Part
        "train", "valid" and, where there is a test file, "test".
    energies : dict of int to float
        Energies of the isolated atoms, eV.
    config : ModelConfig
        The model that fits the data and the settings.
    """

    parts: dict[str, Part]
    energies: dict[int, float]
    config: ModelConfig


def load(settings: Settings, say: Callable[[str], None]) -> Dataset:
    """Read the data of a training, say what was found, and refuse what cannot be used.

    Raises
    ------
    DataError
        See `read_frames`, `make_graphs`, `isolated_energies`, `check_long_range`.
    """
    frames = {"train": read_frames(settings.train_file, settings)}
    if settings.valid_file:
        frames["valid"] = read_frames(settings.valid_file, settings)
    else:
        frames["train"], frames["valid"] = split(frames["train"], settings.valid_fraction, settings.seed)
        say(f"valid: {len(frames['valid'])} of the training frames, set aside by seed {settings.seed}")
    if settings.test_file:
        frames["test"] = read_frames(settings.test_file, settings)
    elements = baseline.elements_of(frames["train"], settings)
    for name, part in frames.items():
        baseline.check_long_range(name, part, settings)
        for line in describe(name, part, settings):
            say(line)
    energies = baseline.isolated_energies(frames["train"], elements, settings, say)
    dtype = getattr(torch, settings.default_dtype)
    parts = {
        name: Part(part, make_graphs(part, elements, energies, settings.r_max, dtype)) for name, part in frames.items()
    }
    for name, part in parts.items():
        shortest, where = min((g.shortest, f.where) for g, f in zip(part.graphs, part.frames, strict=True))
        say(f"  {name}: nearest atoms {shortest:.3f} Å ({where})")
    scale, shift = baseline.scale_and_shift(frames["train"], energies, settings)
    neighbors = settings.avg_num_neighbors or baseline.mean_neighbors(parts["train"].graphs)
    listed = ", ".join(f"{chemical_symbols[z]} {energy:.4f} eV" for z, energy in energies.items())
    say(f"E0s: {listed}; scale {scale:.4f}, shift {shift:.4f} eV; {neighbors:.1f} neighbours an atom")
    return Dataset(parts, energies, _config(settings, elements, energies, neighbors, scale, shift))


_OF_MODEL = (
    "r_max", "num_radial_basis", "num_cutoff_basis", "max_ell", "interaction", "interaction_first", "num_interactions",
    "hidden_irreps", "MLP_irreps", "correlation", "gate", "radial_type", "radial_MLP", "pair_repulsion",
    "distance_transform",
)  # fmt: skip


def _config(settings, elements, energies, neighbors, scale, shift):
    return ModelConfig(
        atomic_numbers=elements,
        atomic_energies=tuple(energies[z] for z in elements),
        avg_num_neighbors=neighbors,
        scale=scale,
        shift=shift,
        long_range={} if settings.model == "sr" else {"kind": settings.model, **settings.long_range},
        dispersion=settings.labels_contain_dispersion,
        **{name: getattr(settings, name) for name in _OF_MODEL},
    )
