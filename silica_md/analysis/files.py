"""Structure files read frame by frame: what is in them is found without holding it."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import ase.io
from ase import Atoms
from ase.io.extxyz import key_val_str_to_dict
from ase.io.netcdftrajectory import NetCDFTrajectory

LAMMPS_DATA = (".data", ".lmp")
"""Suffixes of LAMMPS data files, which ASE does not know by name."""


class FrameFile:
    """Frames of a file in any format ASE reads.

    Extended XYZ, AMBER NetCDF and ASE trajectories are read one frame at a time; the frames of any other format are
    all read at once, and held.

    Parameters
    ----------
    path : Path

    Raises
    ------
    ValueError
        ASE cannot read the file, or it holds no frames.
    """

    def __init__(self, path: Path):
        self.path = path
        self.read: Callable[[int], Atoms]
        self.segment: Callable[[int], str | None]
        suffix = path.suffix.lower()
        try:
            if suffix in (".xyz", ".extxyz"):
                self._open_xyz()
            elif suffix in (".nc", ".traj"):
                self._open_trajectory(NetCDFTrajectory if suffix == ".nc" else ase.io.Trajectory)
            else:
                self._read_all("lammps-data" if suffix in LAMMPS_DATA and _names_atoms(path) else None)
        except Exception as error:  # ASE's readers raise anything; the user needs the file's name and the reason
            raise _unreadable(path, error) from error
        if len(self) == 0:
            raise ValueError(f"{path} holds no frames")

    def __len__(self) -> int:
        return self._length

    def _open_xyz(self):
        """Find where the frames begin, and their comment lines; the atoms are stepped over."""
        starts, comments = [], []
        with open(self.path, "rb") as file:
            position = 0
            while (line := file.readline()).strip():  # an unfinished frame of a run begins with a blank count
                if starts and line.startswith(b"VEC"):  # the cell of the frame before, in an old dialect
                    position = file.tell()
                    continue
                starts.append(position)
                n_atoms = int(line)
                comments.append(file.readline().decode())
                if sum(1 for _ in islice(file, n_atoms)) < n_atoms:
                    raise ValueError(f"frame {len(starts) - 1} ends before its {n_atoms} atoms")
                position = file.tell()
        ends = [*starts[1:], position]

        def read(number):
            with open(self.path, "rb") as file:
                file.seek(starts[number])
                text = file.read(ends[number] - starts[number]).decode()
            return ase.io.read(io.StringIO(text), format="extxyz")

        def segment(number):
            return key_val_str_to_dict(comments[number]).get("segment")

        self._length, self.read, self.segment = len(starts), self._naming(read), segment

    def _open_trajectory(self, kind):
        with kind(self.path) as trajectory:
            self._length = len(trajectory)

        def read(number):
            with kind(self.path) as trajectory:
                return trajectory[number]

        self.read = self._naming(read)
        self.segment = lambda number: self.read(number).info.get("segment")

    def _read_all(self, kind):
        frames = ase.io.read(self.path, index=":", format=kind)
        self._length, self.read = len(frames), lambda number: frames[number].copy()
        self.segment = lambda number: frames[number].info.get("segment")

    def _naming(self, read):
        """`read`, with the file's name in what it raises."""

        def named(number):
            try:
                return read(number)
            except Exception as error:
                raise _unreadable(self.path, error) from error

        return named


def _unreadable(path, error):
    return ValueError(f"ASE cannot read {path}: {type(error).__name__}: {error}")


def _names_atoms(path):
    """Whether a file's first lines count atoms as a LAMMPS data file does."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return any(line.split()[1:2] == ["atoms"] for line in islice(file, 20))
