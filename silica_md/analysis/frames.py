"""Frames to analyse: chosen from a structure, a trajectory or a run folder, read when they are needed, checked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from .files import FrameFile

# What ASE calls atom types 1, 2, 3 of a LAMMPS file that names no elements.
_LAMMPS_TYPES = ("H", "He", "Li", "Be")
HELD_ATOMS = 4_000_000
"""Atoms of all frames up to which they are read once and held, some 0.4 GB; larger files are read when needed."""


class Frames(Sequence):
    """Frames of one composition out of a file.

    Small files are held. Of large ones only the frame read last is: each pass over them reads the file again, and
    memory is that of one frame.

    Parameters
    ----------
    file : FrameFile
    numbers : sequence of int
        Which frames of the file.
    elements : list of str, optional
        Elements of atom types 1, 2, ….

    Raises
    ------
    ValueError
        A frame cannot be analysed; see `check_frames`. In a large file found when the frame is read.
    """

    _capacity = 1  # until the number of atoms is known

    def __init__(self, file: FrameFile, numbers: Sequence[int], elements: list[str] | None = None):
        self._file, self._numbers, self._elements = file, numbers, elements
        self._held: dict[int, Atoms] = {}
        self._first: np.ndarray | None = None
        n_atoms = len(self[0])
        self._capacity = max(1, HELD_ATOMS // max(n_atoms, 1))
        if self.held:
            for number in range(len(numbers)):
                self[number]

    @property
    def held(self) -> bool:
        """Whether going through them reads nothing."""
        return len(self) <= self._capacity

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Frames(self._file, self._numbers[index], self._elements)
        number = range(len(self))[index]
        if number not in self._held:
            if not self.held:
                self._held.clear()
            atoms = self._file.read(self._numbers[number])
            _name_elements(atoms, self._elements, self._file.path)
            self._first = atoms.numbers if self._first is None else self._first
            _check(atoms, self._first, f"{self._file.path}, frame {number}")
            self._held[number] = atoms
        return self._held[number]


def read_frames(
    path: str | Path,
    *,
    index: str | int = ":",
    segment: str | None = None,
    elements: list[str] | None = None,
) -> Frames:
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
    Frames
        A sequence of ase.Atoms, checked as by `check_frames`.

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
    file = FrameFile(source)
    numbers = _of_segment(file, segment)
    chosen = _chosen(numbers, index)
    if not chosen:
        raise ValueError(f"`index` {index!r} selects none of the {len(numbers)} frames in {source}")
    return Frames(file, chosen, elements)


def check_frames(frames: Sequence[Atoms], source: str = "frames") -> None:
    """Refuse frames that the analysis would make nonsense of.

    Raises
    ------
    TypeError
        Something else than ase.Atoms was given.
    ValueError
        No frames, no atoms, no cell, not periodic, unknown elements, positions or cell not finite, or frames
        of different composition.
    """
    if isinstance(frames, Frames):
        return  # each is checked as it is read
    if isinstance(frames, Atoms) or not all(isinstance(atoms, Atoms) for atoms in frames):
        raise TypeError("`frames` must be a list of ase.Atoms; wrap a single one in a list")
    if not frames:
        raise ValueError(f"{source}: there are no frames to analyse")
    for number, atoms in enumerate(frames):
        _check(atoms, frames[0].numbers, f"{source}, frame {number}")


def _check(atoms, first, where):
    """Refuse one frame; `first` are the atomic numbers of the first."""
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
    if not np.array_equal(atoms.numbers, first):
        raise ValueError(
            f"{where}: atoms are {atoms.get_chemical_formula()}, those of frame 0 are "
            f"{Atoms(numbers=first).get_chemical_formula()}, or stand in another order; analyse them apart"
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


def _of_segment(file, segment):
    """Numbers of the frames of a segment; by default that of the last frame."""
    names = [file.segment(number) for number in range(len(file))]
    if segment is None:
        segment = names[-1]
    elif segment not in names:
        known = ", ".join(repr(str(name)) for name in dict.fromkeys(names) if name is not None) or "none"
        raise ValueError(
            f"there are no frames of `segment` {segment!r} in {file.path}, only of: {known}; "
            "finish the run, or choose one"
        )
    return [number for number, name in enumerate(names) if name == segment]


def _chosen(numbers, index):
    try:
        parts = [int(part) if part.strip() else None for part in str(index).split(":")]
        return numbers[slice(*parts)] if len(parts) > 1 else [numbers[parts[0]]]
    except (TypeError, ValueError):
        raise ValueError(f"`index` must be a number or a slice such as ':' or '-20:', got {index!r}") from None
    except IndexError:
        return []


def _name_elements(atoms, elements, source):
    symbols = {chemical_symbols[number] for number in np.unique(atoms.numbers)}
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
