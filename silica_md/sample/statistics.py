"""Figures that say what is in a set of labelled configurations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from rsa_kernels.units import EV_PER_A3_IN_GPA

from ..labelled import ENERGY, FORCES, STRESS
from .frames import REGIMES


def describe(frames: Sequence[Atoms]) -> dict:
    """Number, energies, forces, pressures and densities of configurations, together and by regime."""
    figures = {"all": _figures(frames)}
    for regime in (*REGIMES, "copy"):
        figures[regime] = _figures([atoms for atoms in frames if atoms.info.get("config_type") == regime])
    return {name: one for name, one in figures.items() if one["configurations"]}


def rows(sets: dict[str, dict]) -> list[tuple[str, ...]]:
    """Table of `describe` of several sets, as text."""
    table = [("set", "regime", "number", "T (K)", "E (eV/atom)", "F rms (eV/Å)", "F max", "p (GPa)", "density (g/cm³)")]
    for name, regimes in sets.items():
        for regime, one in regimes.items():
            table.append(
                (
                    name,
                    regime,
                    f"{one['configurations']}",
                    _range(one["temperature_K"], 0),
                    f"{one['energy_eV_per_atom'][0]:.3f} ± {one['energy_eV_per_atom'][1]:.3f}",
                    f"{one['force_rms_eV_A']:.3f}",
                    f"{one['largest_force_eV_A']:.1f}",
                    _range(one["pressure_GPa"], 1),
                    _range(one["density_g_cm3"], 2),
                )
            )
    return table


def atomic_energies(frames: Sequence[Atoms]) -> dict:
    """Energies of the elements (E0s) by least squares on the energies of cells, and whether they are determined.

    With one composition only their weighted sum is; of all solutions the shortest is given.
    """
    species = sorted({z for atoms in frames for z in np.unique(atoms.numbers).tolist()})
    counts = np.array([[np.count_nonzero(atoms.numbers == z) for z in species] for atoms in frames], dtype=np.float64)
    energies = np.array([atoms.info[ENERGY] for atoms in frames])
    solution, _, rank, _ = np.linalg.lstsq(counts, energies, rcond=1e-9)
    determined = bool(rank == len(species))
    return {
        "E0s_eV": {chemical_symbols[z]: float(e) for z, e in zip(species, solution, strict=True)},
        "determined": determined,
        "note": "least squares on the train set"
        + ("" if determined else "; one composition fixes only their weighted sum, this is the shortest solution"),
    }


def _figures(frames: Sequence[Atoms]) -> dict:
    if not frames:
        return {"configurations": 0}
    per_atom = np.array([atoms.info[ENERGY] / len(atoms) for atoms in frames])
    forces = np.concatenate([atoms.arrays[FORCES].ravel() for atoms in frames])
    pressure = np.array([-np.trace(np.asarray(atoms.info[STRESS]).reshape(3, 3)) / 3.0 for atoms in frames])
    figures = {
        "configurations": len(frames),
        "atoms": sum(len(atoms) for atoms in frames),
        "energy_eV_per_atom": [float(per_atom.mean()), float(per_atom.std())],
        "force_rms_eV_A": float(np.sqrt((forces**2).mean())),
        "largest_force_eV_A": float(np.abs(forces).max()),
        "pressure_GPa": _ends(pressure * EV_PER_A3_IN_GPA),
    }
    for key in ("temperature_K", "density_g_cm3"):
        figures[key] = _ends([atoms.info[key] for atoms in frames])
    return figures


def _ends(values) -> list[float]:
    return [float(np.min(values)), float(np.max(values))]


def _range(ends: list[float], digits: int) -> str:
    return f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}"
