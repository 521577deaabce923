"""Configurations with labels as extended XYZ: REF_energy, REF_forces, REF_stress, read by ASE and by mace-torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from ase import Atoms

from .files import replace_file

ENERGY, FORCES, STRESS = "REF_energy", "REF_forces", "REF_stress"


def labelled(atoms: Atoms, energy: float, forces, stress, info: Mapping[str, object] | None = None) -> Atoms:
    """Return a bare copy of `atoms` that carries labels.

    Parameters
    ----------
    atoms : ase.Atoms
        Elements, positions (Å), cell (Å) and pbc are taken; nothing else.
    energy : float
        Of the whole cell, eV; stands in ``info["REF_energy"]``.
    forces : array, (n_atoms, 3)
        eV/Å; stand in ``arrays["REF_forces"]``.
    stress : array, (3, 3)
        eV/Å³, positive in tension: −W/V; stands in ``info["REF_stress"]``.
    info : mapping, optional
        More entries: text without quotes, whole or other numbers, booleans.
    """
    copy = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    copy.info = {ENERGY: float(energy), STRESS: _array(stress, (3, 3), "stress"), **(info or {})}
    copy.arrays[FORCES] = _array(forces, (len(atoms), 3), "forces")
    return copy


def write_labelled(path: str | Path, frames: Iterable[Atoms]) -> Path:
    """Write labelled configurations; the file is the old one or the new one, never a part.

    Cell, energy, stress and other numbers of the comment line have the digits that give the same float64 back;
    positions have 8 decimals (round them before labels are made: `rounded`), forces 12.

    Raises
    ------
    ValueError
        A frame lacks a label, something in it is not finite, or an entry of `info` cannot be written.
    """
    return replace_file(path, "".join(as_text(atoms) for atoms in frames))


def rounded(atoms: Atoms) -> Atoms:
    """Return a copy, wrapped into its cell, whose positions have 8 decimals as a file has them."""
    copy = atoms.copy()
    copy.wrap()
    copy.positions = np.round(copy.positions, 8) + 0.0  # no -0
    return copy


def as_text(atoms: Atoms) -> str:
    """One configuration in extended XYZ; see `write_labelled`."""
    for label, where in ((ENERGY, atoms.info), (STRESS, atoms.info), (FORCES, atoms.arrays)):
        if label not in where:
            raise ValueError(f"a configuration lacks the label {label}; make it with `labelled`")
    forces = atoms.arrays[FORCES]
    if not all(np.isfinite(x).all() for x in (atoms.positions, atoms.cell.array, forces)):
        raise ValueError("positions, cell and forces must be finite")
    lattice = " ".join(repr(float(x) + 0.0) for x in atoms.cell.array.flat)
    entries = " ".join(f"{key}={_entry(key, value)}" for key, value in atoms.info.items())
    header = (
        f'Lattice="{lattice}" Properties=species:S:1:pos:R:3:{FORCES}:R:3'
        f' pbc="{" ".join("FT"[int(p)] for p in atoms.pbc)}" {entries}'
    )
    rows = np.concatenate([atoms.positions, forces], axis=1).tolist()
    lines = (
        f"{symbol:2s} {x:.8f} {y:.8f} {z:.8f} {fx:.12f} {fy:.12f} {fz:.12f}"
        for symbol, (x, y, z, fx, fy, fz) in zip(atoms.get_chemical_symbols(), rows, strict=True)
    )
    return "\n".join([str(len(atoms)), header, *lines]) + "\n"


def _array(value, shape: tuple[int, ...], name: str) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    value = np.array(value, dtype=np.float64)
    if value.shape != shape:
        raise ValueError(f"`{name}` must have shape {shape}, got {value.shape}")
    return value


def _entry(key: str, value) -> str:
    """One value of the comment line."""
    if isinstance(value, (bool, np.bool_)):
        return "FT"[int(value)]
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)) and np.isfinite(value):
        return repr(float(value))
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and np.isfinite(value).all():
        return '"' + " ".join(repr(float(x)) for x in value.flat) + '"'
    if isinstance(value, str) and value and value.isprintable() and not set(value) & set("\"'\\"):
        return f'"{value}"' if " " in value or "=" in value else value
    raise ValueError(f"`{key}` of a configuration must be text without quotes or finite numbers, got {value!r}")
