"""Trajectories written during a run, extended XYZ and AMBER NetCDF, and single structures; all safe
against a kill."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rsa_kernels import __version__
from silica_md import netcdf
from silica_md.files import AppendFile, replace_file
from silica_md.state import State

__all__ = ["TrajectoryWriter", "check_segment_name", "write_structure"]


def check_segment_name(segment: str) -> None:
    """Refuse a segment's name that a trajectory cannot hold.

    Raises
    ------
    ValueError
        It is no printable ASCII without quotes or backslash, or longer than 64 characters.
    """
    plain = segment.isascii() and segment.isprintable() and not set(segment) & set("\"'\\")
    if len(segment) > 64 or not plain:
        raise ValueError(
            f"`segment` must be at most 64 printable ASCII characters without quotes or backslash, got {segment!r}"
        )


class TrajectoryWriter:
    """Append frames of a run to a trajectory file.

    The suffix names the format: `.xyz` or `.extxyz` is extended XYZ (text: cell, pbc, species,
    positions to 1e-8 Å, step, time_ps, segment), `.nc` is AMBER NetCDF-3 (binary: float32 coordinates,
    cell lengths and angles, time, and step and segment as extra variables). ASE and OVITO read both,
    VMD and MDAnalysis the second.

    Positions are *unwrapped*: an atom that leaves through a face of the cell goes on outside, so
    displacements can be read off frame by frame. Atoms stand in the order of their global ids.

    A frame is either in the file or not: it is appended first and made visible by a second, small write
    (the frame count of a NetCDF file, the atom count that opens an XYZ frame), so a kill at any moment
    leaves a file whose complete frames ASE reads. `position` and `truncate` carry the file through a
    restart: afterwards it is, byte for byte, that of a run which was never interrupted.

    Parameters
    ----------
    path : str or Path
        Nothing is touched before the first `write` or `truncate`.

    Raises
    ------
    ValueError
        The suffix is unknown.

    Examples
    --------
    >>> writer = TrajectoryWriter("trajectory.nc")          # doctest: +SKIP
    >>> writer.write(state, "melt"); mark = writer.position()     # `mark` goes into the checkpoint
    >>> TrajectoryWriter("trajectory.nc").truncate(mark)    # on resume
    """

    def __init__(self, path: str | Path):
        formats = {".xyz": _ExtendedXyz, ".extxyz": _ExtendedXyz, ".nc": _AmberNetcdf}
        suffix = Path(path).suffix
        if suffix not in formats:
            raise ValueError(f"`path` must end in {', '.join(formats)}, got {str(path)!r}")
        self._format = formats[suffix]()
        self._file = AppendFile(path)
        self._frames = 0

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self._file.path

    def write(self, state: State, segment: str = "") -> None:
        """Append one frame.

        Parameters
        ----------
        state : silica_md.state.State
            Positions Å, cell Å, time fs.
        segment : str
            Name of the part of the schedule the frame belongs to: printable ASCII without quotes or
            backslash, at most 64 characters.

        Raises
        ------
        ValueError
            A position or the cell is not finite, or the name cannot be stored.
        FileExistsError
            The file was there before this run; see `truncate`.
        OSError
            The disk is full, for instance; the file still ends with its last complete frame.
        """
        check_segment_name(segment)
        data, mark = self._format.encode(_Frame(state, segment), self._file.size, self._frames)
        self._file.append(data, mark)
        self._frames += 1

    def position(self) -> dict[str, int]:
        """Where the last complete frame ends, {"bytes": int, "frames": int}, after forcing it to the disk."""
        self._file.sync()
        return {"bytes": self._file.size, "frames": self._frames}

    def truncate(self, position: dict[str, int]) -> None:
        """Take up the file where `position` was taken: what came later is removed, and `write` goes on
        from there.

        Raises
        ------
        ValueError
            The file is missing or shorter than it was.
        """
        self._file.cut(position["bytes"], self._format.mark(position["frames"]))
        self._frames = position["frames"]

    def close(self) -> None:
        """Force the file to the disk and close it."""
        self._file.close()


def write_structure(path: str | Path, state: State, *, info: dict | None = None) -> Path:
    """Write one structure as extended XYZ in a single step: the file is the old one or the new one,
    never a part.

    Positions are wrapped into the cell along periodic directions. Velocities are stored as `momenta` in
    ASE's units, so that an ASE script goes on from where the run stopped.

    Parameters
    ----------
    path : str or Path
    state : silica_md.state.State
    info : dict of str to str or number, optional
        More entries of the comment line.

    Returns
    -------
    Path
        `path`.
    """
    frame = _Frame(state, "", wrap=True)
    return replace_file(path, frame.extxyz({"momenta": frame.atoms.get_momenta()}, info))


class _Frame:
    """The arrays of a state on the host, in the order of the global ids."""

    def __init__(self, state, segment, wrap=False):
        self.step, self.time_ps, self.segment = int(state.step), float(state.time) / 1000, segment
        if not (state.positions.isfinite().all() and state.cell.isfinite().all()):
            raise ValueError(f"`positions` and `cell` must be finite, but are not at step {self.step}")
        self.atoms = state.to_ase(wrap=wrap)

    def extxyz(self, arrays=None, info=None):
        """Text of the frame in extended XYZ; `arrays` are further (n_atoms, 3) columns."""
        arrays = {"pos": self.atoms.positions} | (arrays or {})
        named = {"segment": self.segment} if self.segment else {}
        info = {"step": self.step, "time_ps": f"{self.time_ps:.6f}"} | named | (info or {})
        columns = "species:S:1:" + ":".join(f"{name}:R:3" for name in arrays)
        lattice = " ".join(f"{x + 0.0:.10g}" for x in self.atoms.cell.array.flat)  # + 0.0 turns -0 into 0
        pbc = " ".join("FT"[int(p)] for p in self.atoms.pbc)
        entries = [f'{key}="{x}"' if " " in str(x) else f"{key}={x}" for key, x in info.items()]
        header = f'Lattice="{lattice}" Properties={columns} pbc="{pbc}" {" ".join(entries)}'
        numbers = np.concatenate(list(arrays.values()), axis=1).tolist()
        rows = "".join(
            f"{symbol:2s}" + "".join(f" {x:.8f}" for x in row) + "\n"
            for symbol, row in zip(self.atoms.get_chemical_symbols(), numbers, strict=True)
        )
        return f"{len(numbers)}\n{header}\n{rows}"


class _ExtendedXyz:
    """Text frames one after the other; a frame is made visible by writing its atom count over blanks."""

    def encode(self, frame, size, n_frames):
        text = frame.extxyz().encode()
        count = text[: text.index(b"\n")]
        return b" " * len(count) + text[len(count) :], (size, count)  # readers stop at a blank line

    def mark(self, n_frames):
        return None


class _AmberNetcdf:
    """Binary records; a frame is made visible by the frame count in the header."""

    def encode(self, frame, size, n_frames):
        atoms = frame.atoms
        positions, cell = netcdf.standard_orientation(atoms.positions, atoms.cell.array)
        data = netcdf.encode_frame(positions, cell, atoms.pbc, frame.time_ps, frame.step, frame.segment)
        header = netcdf.encode_header(atoms.numbers, "silica_md trajectory", __version__)
        if n_frames == 0:
            data = header + data
        elif size != len(header) + n_frames * len(data):
            raise ValueError(
                "every frame must have the same number of atoms, got another number in frame "
                f"{n_frames + 1} ({len(positions)} atoms)"
            )
        return data, (netcdf.COUNT_OFFSET, netcdf.encode_count(n_frames + 1))

    def mark(self, n_frames):
        return netcdf.COUNT_OFFSET, netcdf.encode_count(n_frames)
