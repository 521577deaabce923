"""AMBER trajectory convention 1.0 in NetCDF-3 (64-bit offset): the bytes of a header and of a frame,
with numpy only.

A NetCDF-3 file is a header (dimensions, attributes, variables and where they begin), the fixed
variables, and then one record per frame. The number of records stands in bytes 4 to 8, so a frame is
appended first and counted afterwards. Format: Unidata, *NetCDF Classic Format Specification*.
Convention: *AMBER NetCDF Trajectory Convention*, version 1.0.
"""

from __future__ import annotations

import struct

import numpy as np

__all__ = ["COUNT_OFFSET", "encode_count", "encode_frame", "encode_header", "standard_orientation"]

COUNT_OFFSET = 4  # where the number of frames stands in the file
_SEGMENT_LENGTH = 64  # bytes kept for a segment's name
_TAG_DIMENSION, _TAG_VARIABLE, _TAG_ATTRIBUTE = 10, 11, 12
_TYPES = {"char": (2, "S1"), "int": (4, ">i4"), "float": (5, ">f4"), "double": (6, ">f8")}  # code, dtype

# name: (type, dimensions, attributes); a frame holds these, in this order
_RECORDS = {
    "time": ("double", ("frame",), {"units": "picosecond"}),
    "step": ("double", ("frame",), {}),  # NetCDF-3 has no 64-bit integer; exact to 2**53
    "segment": ("char", ("frame", "segment_label"), {"_Encoding": "utf-8"}),  # read as one word
    "cell_lengths": ("double", ("frame", "cell_spatial"), {"units": "angstrom"}),
    "cell_angles": ("double", ("frame", "cell_angular"), {"units": "degree"}),
    "coordinates": ("float", ("frame", "atom", "spatial"), {"units": "angstrom"}),
}


def encode_count(n_frames: int) -> bytes:
    """The 4 bytes at `COUNT_OFFSET` that make `n_frames` frames visible."""
    return struct.pack(">i", n_frames)


def encode_header(atomic_numbers: np.ndarray, title: str, version: str) -> bytes:
    """Header and fixed variables of a file without frames.

    Parameters
    ----------
    atomic_numbers : (n_atoms,) array of int
        Stored once as `atom_types`, which ASE and OVITO read.
    title, version : str
        Global attributes `title` and `programVersion`.

    Returns
    -------
    bytes
        Everything before the first frame.
    """
    lengths = {
        "frame": 0,
        "spatial": 3,
        "atom": len(atomic_numbers),
        "cell_spatial": 3,
        "cell_angular": 3,
        "label": 5,
        "segment_label": _SEGMENT_LENGTH,
    }
    fixed = {
        "spatial": ("char", ("spatial",), {}, b"xyz"),
        "cell_spatial": ("char", ("cell_spatial",), {}, b"abc"),
        "cell_angular": ("char", ("cell_angular", "label"), {}, b"alphabeta gamma"),
        "atom_types": ("int", ("atom",), {}, np.asarray(atomic_numbers, ">i4").tobytes()),
    }
    start = b"CDF\x02" + encode_count(0)
    start += _list(_TAG_DIMENSION, [_name(name) + _int(length) for name, length in lengths.items()])
    start += _attributes(
        {
            "title": title,
            "program": "silica_md",
            "programVersion": version,
            "Conventions": "AMBER",
            "ConventionVersion": "1.0",
        }
    )

    def variables(begin):
        entries = []
        for name, (kind, dimensions, attributes, *_) in (fixed | _RECORDS).items():
            size = _padded(_bytes_of(kind, dimensions, lengths))
            ids = b"".join(_int(list(lengths).index(d)) for d in dimensions)
            entries.append(
                _name(name)
                + _int(len(dimensions))
                + ids
                + _attributes(attributes)
                + _int(_TYPES[kind][0])
                + struct.pack(">Iq", min(size, 2**32 - 1), begin)
            )
            begin += size
        return _list(_TAG_VARIABLE, entries)

    begin = len(start) + len(variables(0))
    return start + variables(begin) + b"".join(_pad(value[3]) for value in fixed.values())


def encode_frame(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, time: float, step: int, segment: str
) -> bytes:
    """One record.

    Parameters
    ----------
    positions : (n_atoms, 3) array of float
        Å; kept as float32, as the convention asks.
    cell : (3, 3) array of float
        Å, rows a, b, c, in `standard_orientation`: the file holds lengths and angles only.
    pbc : (3,) array of bool
        An open direction is written with length 0, which ASE, OVITO and LAMMPS read as open.
    time : float
        ps.
    step : int
    segment : str
        At most 64 bytes.

    Returns
    -------
    bytes
    """
    lengths = np.linalg.norm(cell, axis=1)
    pairs = ((1, 2), (0, 2), (0, 1))  # alpha lies between b and c, and so on
    tiny = np.finfo(float).tiny
    cosines = [np.dot(cell[i], cell[j]) / max(lengths[i] * lengths[j], tiny) for i, j in pairs]
    angles = np.where(np.abs(cosines) < 1e-15, 90.0, np.degrees(np.arccos(np.clip(cosines, -1, 1))))
    values = {
        "time": time,
        "step": step,
        "cell_lengths": np.where(pbc, lengths, 0.0),
        "cell_angles": angles,
        "coordinates": positions,
    }
    record = b""
    for name, (kind, *_) in _RECORDS.items():
        if name == "segment":
            record += _pad(segment.encode().ljust(_SEGMENT_LENGTH, b"\0"))
        else:
            record += _pad(np.asarray(values[name], _TYPES[kind][1]).tobytes())
    return record


def standard_orientation(positions: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn atoms and cell together so that a lies along x and b in the xy plane.

    Lengths and angles do not tell how a cell is turned; every reader of an AMBER file assumes this
    orientation.

    Parameters
    ----------
    positions : (n_atoms, 3) array of float
        Å.
    cell : (3, 3) array of float
        Å, rows a, b, c. A zero matrix (no cell) is left alone.

    Returns
    -------
    positions, cell : arrays of the same shapes
        Unchanged, to the bit, if the cell is already so.

    Raises
    ------
    ValueError
        The cell is left-handed: only a reflection would bring it into the form.
    """
    if not np.any(np.triu(cell, 1)) and np.all(np.diag(cell) >= 0):
        return positions, cell
    if np.linalg.det(cell) < 0:
        raise ValueError(
            "`cell` must be right-handed for an AMBER trajectory, got a negative volume; swap "
            "two cell vectors, or write extended XYZ"
        )
    rotation, lower = np.linalg.qr(cell.T)  # cell = lowerᵀ rotationᵀ
    sign = np.sign(np.diag(lower))
    return positions @ (rotation * sign), np.tril((lower * sign[:, None]).T)


def _bytes_of(kind, dimensions, lengths):
    return np.dtype(_TYPES[kind][1]).itemsize * int(np.prod([lengths[d] for d in dimensions if d != "frame"]))


def _padded(size):
    return -(-size // 4) * 4


def _pad(data):
    return data.ljust(_padded(len(data)), b"\0")


def _int(value):
    return struct.pack(">i", value)


def _name(text):
    return _int(len(text.encode())) + _pad(text.encode())


def _list(tag, entries):
    return _int(tag) + _int(len(entries)) + b"".join(entries) if entries else bytes(8)


def _attributes(pairs):
    entries = [_name(key) + _int(_TYPES["char"][0]) + _name(text) for key, text in pairs.items()]
    return _list(_TAG_ATTRIBUTE, entries)
