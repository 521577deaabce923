"""The structure of a run against time: samples kept in one HDF5 file that is never found half written.

Layout of ``structure.h5``: one dataset per quantity, whose first dimension runs over the samples; ``step``, ``time``,
``temperature``, ``target``, ``segment`` say when a sample was taken, the groups ``sq``, ``first_peak``, ``rings``,
``qn``, ``coordination``, ``coordination_mean``, ``bond_length``, ``angle`` hold what was found, and ``axes`` what the
last dimensions run over. Every dataset has the attributes ``unit`` and ``description``, and ``axis`` where it is a
curve; the root has ``format``, ``version``, ``n_atoms``, ``species`` and the bond cutoffs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from .files import replace_file
from .structure_sample import Column

__all__ = ["WHEN", "StructureLog", "StructureSeries", "read_structure_log"]

FORMAT, VERSION = "silica_md structure", 1
CHUNK = 65536  # bytes, before compression
WHEN = (
    Column("step", "i8", (), "1", "steps done"),
    Column("time", "f8", (), "ps", "time simulated"),
    Column("segment", "S64", (), "1", "part of the schedule"),
    Column("target", "f8", (), "K", "temperature asked for; NaN where none is"),
    Column("temperature", "f8", (), "K", "kinetic temperature"),
)


@dataclass(frozen=True)
class StructureSeries:
    """What a file of samples holds.

    Attributes
    ----------
    columns : dict of str to ndarray (n_samples, ...)
        By name: "time", "rings/king".
    axes : dict of str to ndarray
        What the last dimensions run over: "q", "angle", "ring_size", "neighbours".
    units : dict of str to str
        Of columns and axes.
    attributes : dict
        Of the file.
    """

    columns: dict[str, np.ndarray]
    axes: dict[str, np.ndarray]
    units: dict[str, str]
    attributes: dict

    def __len__(self) -> int:
        return len(self.columns["step"])


class StructureLog:
    """The samples of a run, in memory and, from time to time, on disk.

    The file is written anew as a whole and put in the place of the old one in a single step, so a kill at any
    moment leaves the old file or the new one. `position` does so and tells how many samples there are;
    `truncate_to` takes up the file where a checkpoint remembers it. Samples come to a few kilobytes each, so both
    the memory and a rewriting stay small beside a checkpoint.

    Parameters
    ----------
    path : str or Path
        Nothing is touched before the first `position` or `truncate_to`.
    columns : sequence of Column
        What a sample holds besides `WHEN`.
    axes : mapping of str to (ndarray, str, str)
        Values, unit and description of what the last dimensions run over.
    attributes : mapping
        Of the whole file: text, numbers, lists of text.
    """

    def __init__(
        self,
        path: str | Path,
        columns: Sequence[Column],
        axes: Mapping[str, tuple[np.ndarray, str, str]],
        attributes: Mapping,
    ):
        self.path = Path(path)
        self._columns = (*WHEN, *columns)
        self._axes = dict(axes)
        self._attributes = {"format": FORMAT, "version": VERSION} | dict(attributes)
        self._dtype = np.dtype([(column.name, column.dtype, column.shape) for column in self._columns])
        self._rows: list[np.ndarray] = []
        self._on_disk = 0

    def write(self, sample: Mapping) -> None:
        """Add a sample, a mapping with exactly the names of the columns.

        Raises
        ------
        ValueError
            Names are missing or unknown, or a value has a wrong shape.
        """
        names = set(self._dtype.names)
        if set(sample) != names:
            raise ValueError(
                "`sample` must have the columns of the file; "
                f"missing {sorted(names - set(sample))}, unknown {sorted(set(sample) - names)}"
            )
        row = np.zeros(1, self._dtype)
        for column in self._columns:
            value = np.asarray(sample[column.name])
            if value.shape != column.shape:
                raise ValueError(f"`sample` must have shape {column.shape} in '{column.name}', got {value.shape}")
            row[column.name] = value
        self._rows.append(row)

    def position(self) -> int:
        """Number of samples, after forcing all of them to the disk."""
        if self._on_disk < len(self._rows):
            replace_file(self.path, self._encoded())
            self._on_disk = len(self._rows)
        return len(self._rows)

    def truncate_to(self, position: int) -> None:
        """Drop the samples taken after `position` was, and go on from there.

        Raises
        ------
        ValueError
            The file is missing, damaged, of another layout or shorter than it was.
        """
        self._rows, self._on_disk = [], 0
        if position == 0:
            self.path.unlink(missing_ok=True)
            return
        series = read_structure_log(self.path)
        if len(series) < position:
            raise ValueError(
                f"{self.path} holds {len(series)} samples, but held {position} when the checkpoint was written: it was "
                "changed since; put it back, or start a new run"
            )
        rows = np.zeros(position, self._dtype)
        for column in self._columns:
            values = series.columns.get(column.name)
            if values is None or values.shape[1:] != column.shape or values.dtype != column.dtype:
                raise ValueError(
                    f"{self.path} does not hold '{column.name}' as this version writes it; start a new run"
                )
            rows[column.name] = values[:position]
        self._rows = [rows[k : k + 1] for k in range(position)]
        self._on_disk = len(series)
        if len(series) > position:
            replace_file(self.path, self._encoded())
            self._on_disk = position

    def _encoded(self) -> bytes:
        """The file; the same samples give the same bytes."""
        rows = np.concatenate(self._rows)
        with h5py.File("structure", "w", driver="core", backing_store=False, libver=("v110", "v110")) as file:
            file.attrs.update(self._attributes)
            for name, (values, unit, description) in self._axes.items():
                _describe(file.create_dataset(f"axes/{name}", data=values), unit, description)
            for column in self._columns:
                size = max(1, self._dtype[column.name].itemsize)
                kept = file.create_dataset(
                    column.name,
                    data=rows[column.name],
                    chunks=(max(1, min(len(rows), CHUNK // size)), *column.shape),
                    compression="gzip",
                    compression_opts=4,
                    shuffle=True,
                )
                _describe(kept, column.unit, column.description)
                if column.axis:
                    kept.attrs["axis"] = f"/axes/{column.axis}"
            file.flush()
            return file.id.get_file_image()


def read_structure_log(path: str | Path) -> StructureSeries:
    """Read the samples of a run.

    Raises
    ------
    ValueError
        There is no such file, or it is none of this kind.
    """
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT or file.attrs["version"] != VERSION:
                raise ValueError(f"{path} is no '{FORMAT}' file of version {VERSION}")
            found: dict[str, h5py.Dataset] = {}
            file.visititems(lambda name, item: found.update({name: item} if isinstance(item, h5py.Dataset) else {}))
            values = {name: item[()] for name, item in found.items()}
            units = {name: item.attrs["unit"] for name, item in found.items()}
            attributes = dict(file.attrs)
    except (OSError, KeyError) as error:
        raise ValueError(f"{path} cannot be read as samples of a run's structure: {error}") from error
    return StructureSeries(
        {name: array for name, array in values.items() if not name.startswith("axes/")},
        {name.removeprefix("axes/"): array for name, array in values.items() if name.startswith("axes/")},
        units,
        attributes,
    )


def _describe(dataset: h5py.Dataset, unit: str, description: str) -> None:
    dataset.attrs["unit"] = unit
    dataset.attrs["description"] = description
