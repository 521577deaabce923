"""What makes two configurations different: pair distances, angles, coordination, rings, energy and density."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms

import rsa_kernels as rk

from ..analysis.composition import mass_density
from ..state import State
from ..structure_sample import StructureSampler

R_MAX, DR = 6.0, 0.1
"""Å; reach and bins of the pair distributions: what a layer of a model sees, the second shell included."""
SMOOTH = 1.5
"""Bins (Gaussian width) by which histograms are smoothed, so that two with neighbouring bins filled are alike."""
WEIGHTS = {"pairs": 1.0, "angles": 1.0, "coordination": 1.0, "rings": 0.5, "energy": 1.0, "density": 1.0}
"""Mean squared distance of two configurations of the set that each kind brings in. Rings count half: 32 silicon atoms
have few, and their numbers scatter."""


class Descriptor:
    """Structure of configurations of one kind of atoms, as vectors.

    Parameters
    ----------
    numbers : ndarray, (n_atoms,)
        Atomic numbers; rings and angles come in where there are Si and O.
    """

    def __init__(self, numbers: np.ndarray):
        self._sampler = StructureSampler(torch.as_tensor(np.asarray(numbers), dtype=torch.int64))

    def of(self, atoms: Atoms, energy_per_atom: float) -> dict[str, np.ndarray]:
        """Vectors of one configuration, by kind; `energy_per_atom` in eV."""
        state = State.from_ase(atoms)
        pairs = rk.pair_distribution(state.positions, state.cell, state.atomic_numbers, R_MAX, DR)
        # A pair at r counts by 4πr² g / r² ~ g: not swamped by the many at large r, nor by the sharp first shell.
        vectors = {"pairs": _smoothed(pairs.partials.numpy()).ravel()}
        seen, composition = self._sampler.bonding(state), self._sampler.composition
        vectors["angles"] = _joined(seen, "angle/", "/counts", lambda x: _smoothed(x[None] / max(x.sum(), 1)).ravel())
        vectors["coordination"] = _joined(seen, "coordination/", "", lambda x: x / max(x.sum(), 1))
        silicon = max(composition.counts.get("Si", 0), 1)
        vectors["rings"] = _joined(seen, "rings/primitive", "", lambda x: x / silicon)
        vectors["energy"] = np.array([energy_per_atom])
        vectors["density"] = np.array([mass_density(atoms)])
        return {name: vector for name, vector in vectors.items() if vector.size}


def standardized(vectors: Sequence[dict[str, np.ndarray]]) -> np.ndarray:
    """Put the vectors of all configurations on one scale, (n_configurations, n_features).

    Every kind is centred and divided by one number, so that its mean squared distance from the centre is half of its
    entry in `WEIGHTS`. Single bins are not scaled: those that are nearly always empty would speak as loudly as the
    first peak. A kind that does not vary is left out.
    """
    columns = []
    for name, weight in WEIGHTS.items():
        if not all(name in vector for vector in vectors):
            continue
        block = np.stack([vector[name] for vector in vectors])
        block = block - block.mean(axis=0)
        size = float((block**2).sum(axis=1).mean())
        if size > 1e-20:
            columns.append(block * np.sqrt(0.5 * weight / size))
    if not columns:
        return np.zeros((len(vectors), 1))
    return np.concatenate(columns, axis=1)


def _joined(seen: dict, prefix: str, suffix: str, scaled) -> np.ndarray:
    """All columns of a sample whose names begin and end like this, one after the other."""
    names = [name for name in seen if name.startswith(prefix) and name.endswith(suffix)]
    return (
        np.concatenate([scaled(np.asarray(seen[name], dtype=np.float64)) for name in names]) if names else np.zeros(0)
    )


def _smoothed(rows: np.ndarray) -> np.ndarray:
    """Rows of a histogram, smoothed along the row."""
    reach = np.arange(-4, 5)
    kernel = np.exp(-0.5 * (reach / SMOOTH) ** 2)
    kernel /= kernel.sum()
    return np.stack([np.convolve(row, kernel, mode="same") for row in np.nan_to_num(rows)])
