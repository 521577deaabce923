"""Frames to analyse: read from a structure, a trajectory or a run folder, and checked."""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

# What ASE calls atom types 1, 2, 3 of a LAMMPS file that names no elements.
_LAMMPS_TYPES = ("H", "He", "Li", "Be")


def read_frames(
    path: str | Path,
    *,
    index: str | int = ":",
    segment: str | None = None,
    elements: list[str] | None = None,
) -> list[Atoms]:
    """Read the frames to analyse.

    Parameters
    ----------
    path : str or Path
        A structure or trajectory in any format ASE reads, or the folder of a run (its ``trajectory.xyz``, or
        ``final.xyz`` where there is no trajectory).
    index : str or int
        One frame, e.g. ``0`` (first) or ``-1`` (last), or a slice as ASE writes it, e.g. ``":"`` (all) or
        ``"-20:"`` (last twenty); taken after `segment`.
    segment : str, optional
        Part of the schedule to take from a trajectory whose frames say which they belong to. By default the
        last one of the schedule (in a quench, the hold at 300 K) for the folder of a run, that of the last
        frame for a file.
    elements : list of str, optional
        Elements of atom types 1, 2, …, for LAMMPS files that name none.

    Returns
    -------
    list of ase.Atoms
        Checked by `check_frames`.

    Raises
    ------
    FileNotFoundError
        There is nothing at `path`, or no trajectory in the folder.
    ValueError
        ASE cannot read the file, the segment is not in it (that of a run which has not come so far, say), or
        the frames cannot be analysed.
    """
    path = Path(path)
    source = _structure_file(path) if path.is_dir() else path
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist; give a structure, a trajectory or the folder of a run")
    if segment is None and source.name != "final.xyz":
        segment = _last_segment(path)
    frames = _of_segment(_read(source), segment, source)
    chosen = _chosen(frames, index)
    if not chosen:
        raise ValueError(f"`index` {index!r} selects none of the {len(frames)} frames in {source}")
    for atoms in chosen:
        _name_elements(atoms, elements, source)
    check_frames(chosen, str(source))
    return chosen


def check_frames(frames: list[Atoms], source: str = "frames") -> None:
    """Refuse frames that the analysis would make nonsense of.

    Raises
    ------
    TypeError
        Something else than ase.Atoms was given.
    ValueError
        No frames, no atoms, no cell, not periodic, unknown elements, positions or cell not finite, or frames
        of different composition.
    """
    if isinstance(frames, Atoms) or not all(isinstance(atoms, Atoms) for atoms in frames):
        raise TypeError("`frames` must be a list of ase.Atoms; wrap a single one in a list")
    if not frames:
        raise ValueError(f"{source}: there are no frames to analyse")
    for number, atoms in enumerate(frames):
        where = f"{source}, frame {number}"
        if len(atoms) == 0:
            raise ValueError(f"{where}: there are no atoms")
        if not np.isfinite(atoms.positions).all() or not np.isfinite(np.array(atoms.cell)).all():
            raise ValueError(f"{where}: positions or cell are not finite (NaN or infinite)")
        if atoms.cell.rank < 3 or atoms.get_volume() < 1e-6:
            raise ValueError(
                f"{where}: there is no cell of non-zero volume, so density, g(r) and S(Q) are undefined; "
                'give it one, e.g. Lattice="a 0 0 0 b 0 0 0 c" in extended XYZ'
            )
        if not atoms.pbc.all():
            raise ValueError(
                f"{where}: must be periodic in all directions, got pbc={atoms.pbc.tolist()}; "
                'set pbc="T T T" in extended XYZ, or atoms.pbc = True'
            )
        if (atoms.numbers == 0).any():
            raise ValueError(f"{where}: {(atoms.numbers == 0).sum()} atoms have an unknown element (X)")
        if sorted(atoms.numbers) != sorted(frames[0].numbers) or (atoms.numbers != frames[0].numbers).any():
            raise ValueError(
                f"{where}: atoms are {atoms.get_chemical_formula()}, those of frame 0 are "
                f"{frames[0].get_chemical_formula()}, or stand in another order; analyse them apart"
            )


def _structure_file(folder):
    for name in ("trajectory.xyz", "trajectory.nc", "final.xyz"):
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(f"{folder} holds no trajectory.xyz, trajectory.nc or final.xyz; is it the folder of a run?")


def _last_segment(folder):
    """Name of the segment a run ends with; None where there is no run."""
    config = folder / "config.json"
    if not config.is_file():
        return None
    try:
        return json.loads(config.read_text(encoding="utf-8"))["schedule"][-1]["name"]
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{config} is damaged ({error}); analyse {folder / 'final.xyz'} by itself") from error


def _read(source):
    try:
        frames = ase.io.read(source, index=":")
    except Exception as error:  # ASE's readers raise anything; the user needs the file's name and the reason
        raise ValueError(f"ASE cannot read {source}: {type(error).__name__}: {error}") from error
    if not frames:
        raise ValueError(f"{source} holds no frames")
    return frames


def _of_segment(frames, segment, source):
    names = [atoms.info.get("segment") for atoms in frames]
    if segment is None:
        segment = names[-1]
    elif segment not in names:
        known = ", ".join(repr(str(name)) for name in dict.fromkeys(names) if name is not None) or "none"
        raise ValueError(
            f"there are no frames of `segment` {segment!r} in {source}, only of: {known}; finish the run, or choose one"
        )
    return [atoms for atoms, name in zip(frames, names, strict=True) if name == segment]


def _chosen(frames, index):
    try:
        parts = [int(part) if part.strip() else None for part in str(index).split(":")]
        return frames[slice(*parts)] if len(parts) > 1 else [frames[parts[0]]]
    except (TypeError, ValueError):
        raise ValueError(f"`index` must be a number or a slice such as ':' or '-20:', got {index!r}") from None
    except IndexError:
        return []


def _name_elements(atoms, elements, source):
    symbols = set(atoms.get_chemical_symbols())
    if elements is None:
        if len(symbols) > 1 and symbols <= set(_LAMMPS_TYPES) and "H" in symbols:
            raise ValueError(
                f"{source} seems to hold LAMMPS atom types (read as {sorted(symbols)}) instead of elements; "
                "say which they are, e.g. elements=['Si', 'O']"
            )
        return
    if unknown := [symbol for symbol in elements if symbol not in atomic_numbers]:
        raise ValueError(f"`elements` must be chemical symbols, got {unknown}")
    if atoms.numbers.max() > len(elements):
        raise ValueError(f"`elements` names {len(elements)} types, but {source} has {atoms.numbers.max()}")
    atoms.numbers = np.array([atomic_numbers[symbol] for symbol in elements])[atoms.numbers - 1]
