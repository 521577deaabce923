"""Extended XYZ to labelled frames; a label that is asked for and missing is refused by file, frame and key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ase.io
import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols

from rsa_kernels import random

from ..errors import DataError
from ..state import Stream
from .settings import Settings


@dataclass(frozen=True)
class Frame:
    """One configuration with its labels.

    Attributes
    ----------
    atomic_numbers, positions, cell, pbc : numpy.ndarray
        (n,) int64; (n, 3) Å; (3, 3) Å, rows a, b, c; (3,) bool.
    energy : float
        eV; NaN where no energy was asked for.
    forces : numpy.ndarray
        (n, 3) eV/Å; NaN where none were asked for.
    stress : numpy.ndarray
        (3, 3) eV/Å³, positive in tension; NaN where none was asked for.
    config_type : str
        What kind of configuration it is, for the tables; "Default" where the file does not say.
    weight : float
        In the loss.
    where : str
        File and frame, for errors.
    """

    atomic_numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    energy: float
    forces: np.ndarray
    stress: np.ndarray
    config_type: str
    weight: float
    where: str

    def __len__(self) -> int:
        return len(self.atomic_numbers)


def read_frames(paths: Sequence[str | Path], settings: Settings) -> list[Frame]:
    """Read labelled frames.

    Parameters
    ----------
    paths : list of str or Path
        Extended XYZ files.
    settings : Settings
        Says which labels are needed, and what they are called.

    Returns
    -------
    list of Frame

    Raises
    ------
    DataError
        A file cannot be read or holds no frame; a label is missing, of the wrong shape or not finite; a periodic
        cell has no volume, or is narrower than the cutoff. File, frame and key are named.
    """
    frames = []
    for path in map(Path, paths):
        try:
            found = list(ase.io.iread(path, index=":", format="extxyz"))
        except Exception as error:  # ASE raises what its parser stumbles over; its own XYZError is an OSError
            if isinstance(error, OSError) and error.errno is not None:
                raise DataError(f"cannot read {path}: {error.strerror}") from error
            raise DataError(f"{path} is not extended XYZ: {error}") from error
        if not found:
            raise DataError(f"{path} holds no frame")
        frames += [_frame(atoms, f"{path}, frame {number}", settings) for number, atoms in enumerate(found)]
    return frames


def split(frames: list[Frame], fraction: float, seed: int) -> tuple[list[Frame], list[Frame]]:
    """Set a share of the frames aside, by a permutation that depends on nothing but the seed and their number.

    Raises
    ------
    DataError
        A part would be empty.
    """
    aside = max(1, round(fraction * len(frames)))
    if aside >= len(frames):
        raise DataError(f"{len(frames)} frames cannot be split into training and validation; give a `valid_file`")
    chosen = set(_permutation(len(frames), seed, 0, Stream.FRAMES_SET_ASIDE)[:aside].tolist())
    train = [frame for k, frame in enumerate(frames) if k not in chosen]
    return train, [frame for k, frame in enumerate(frames) if k in chosen]


def order(n_frames: int, seed: int, epoch: int) -> np.ndarray:
    """Order of the frames in an epoch: a permutation that depends on the seed and the epoch alone."""
    return _permutation(n_frames, seed, epoch, Stream.FRAME_ORDER)


def _permutation(count, seed, step, stream):
    words = random.bits(seed, step, torch.arange(count), stream)
    return np.lexsort(words[:, :2].numpy().T)


def _frame(atoms: Atoms, where: str, settings: Settings) -> Frame:
    n_atoms = len(atoms)
    if n_atoms == 0:
        raise DataError(f"{where} holds no atoms")
    if not np.isfinite(atoms.positions).all() or not np.isfinite(atoms.cell.array).all():
        raise DataError(f"{where}: positions or cell are not finite")
    _check_cell(atoms, where, settings)
    energy, forces, stress = np.nan, np.full((n_atoms, 3), np.nan), np.full((3, 3), np.nan)
    if settings.needs("energy"):
        energy = float(_label(atoms.info, atoms, settings.energy_key, "energy", where, ((),)))
    if settings.needs("forces"):
        forces = _label(atoms.arrays, atoms, settings.forces_key, "forces", where, ((n_atoms, 3),))
    if settings.needs("stress"):
        stress = _matrix(_label(atoms.info, atoms, settings.stress_key, "stress", where, ((3, 3), (9,), (6,))), where)
        if not atoms.pbc.all():
            raise DataError(f"{where}: a stress needs a cell that is periodic in all three directions")
    kind = str(atoms.info.get("config_type", "Default"))
    weight = float(atoms.info.get("config_weight", 1.0)) * settings.config_type_weights.get(kind, 1.0)
    if not 0.0 <= weight < np.inf:
        raise DataError(f"{where}: its weight is {weight}; weights must not be negative, nor infinite")
    return Frame(
        atoms.numbers.astype(np.int64), atoms.positions.astype(float), atoms.cell.array.astype(float),
        np.array(atoms.pbc, dtype=bool), energy, forces, stress, kind, weight, where,
    )  # fmt: skip


def _label(place, atoms, key, name, where, shapes):
    """The label `key` as float64; ASE moves "energy", "forces" and "stress" into a calculator."""
    value = place.get(key)
    if value is None and atoms.calc is not None:
        value = atoms.calc.results.get(key)
    if value is None:
        held = ", ".join(sorted([*atoms.info, *(set(atoms.arrays) - {"numbers", "positions"})])) or "nothing"
        if atoms.calc is not None:
            held += ", " + ", ".join(sorted(atoms.calc.results))
        raise DataError(
            f"{where} has no `{key}` ({name}), which is asked for; it holds {held}. Set `{name}_key`, or "
            f"{'compute_stress = false' if name == 'stress' else name + '_weight = 0'} to do without"
        )
    try:
        value = np.asarray(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: `{key}` must hold numbers, got {value!r}") from error
    if value.shape not in shapes:
        wanted = " or ".join(str(shape) for shape in shapes)
        raise DataError(f"{where}: `{key}` must have shape {wanted}, got {value.shape}")
    if not np.isfinite(value).all():
        raise DataError(f"{where}: `{key}` is not finite")
    return value


def _matrix(stress, where):
    if stress.shape == (6,):
        xx, yy, zz, yz, xz, xy = stress
        stress = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    stress = stress.reshape(3, 3)
    if np.abs(stress - stress.T).max() > 1e-3 * np.abs(stress).max():
        raise DataError(f"{where}: the stress is not symmetric: {stress.tolist()}")
    return 0.5 * (stress + stress.T)


def _check_cell(atoms, where, settings):
    if not atoms.pbc.any():
        return
    cell = atoms.cell.complete().array
    volume = abs(np.linalg.det(cell))
    heights = np.array([volume / max(np.linalg.norm(np.cross(cell[k - 2], cell[k - 1])), 1e-30) for k in range(3)])
    if (np.linalg.norm(atoms.cell.array[atoms.pbc], axis=1) < 1e-6).any() or volume < 1e-6:
        raise DataError(f"{where} is periodic, but its cell has no volume: {atoms.cell.array.tolist()}")
    narrow = heights[atoms.pbc].min()
    if narrow < settings.r_max and not settings.allow_small_cells:
        raise DataError(
            f"{where}: the cell is {narrow:.2f} Å wide, narrower than `r_max` ({settings.r_max:g} Å), so that an atom "
            "is its own neighbour; if that is meant, allow_small_cells = true counts every image"
        )


def describe(name: str, frames: Sequence[Frame], settings: Settings) -> list[str]:
    """Lines that say what was found."""
    sizes = [len(frame) for frame in frames]
    elements = Counter(chemical_symbols[z] for frame in frames for z in frame.atomic_numbers)
    size = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    kinds = Counter(frame.config_type for frame in frames)
    labels = [label for label in ("energy", "forces", "stress") if settings.needs(label)]
    lines = [
        f"{name}: {len(frames)} frames of {size} atoms, {sum(sizes)} in all: "
        + ", ".join(f"{count} {symbol}" for symbol, count in sorted(elements.items()))
        + f"; {_periodicity(frames)}; labels: {', '.join(labels)}"
    ]
    if kinds.keys() != {"Default"}:
        most = ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common(8))
        kinds_of = "kind of configuration" if len(kinds) == 1 else "kinds of configuration"
        lines.append(f"  {len(kinds)} {kinds_of}: {most}{', ...' if len(kinds) > 8 else ''}")
    ranges = []
    if settings.needs("energy"):
        ranges.append(f"energy {_range([frame.energy / len(frame) for frame in frames])} eV/atom")
    if settings.needs("forces"):
        forces = np.concatenate([frame.forces for frame in frames])
        largest = np.linalg.norm(forces, axis=1).max()
        ranges.append(f"forces {np.sqrt((forces**2).mean()):.3f} eV/Å RMS a component, largest {largest:.2f}")
        net = max(float(np.abs(frame.forces.sum(axis=0)).max()) for frame in frames)
        ranges.append(f"net force at most {net:.2g} eV/Å")
    if settings.needs("stress"):
        ranges.append(f"stress {_range([np.trace(frame.stress) / 3 for frame in frames])} eV/Å³ (mean of xx, yy, zz)")
    return [*lines, "  " + "; ".join(ranges)]


def _range(values: Iterable[float]) -> str:
    values = list(values)
    return f"{min(values):.4f} to {max(values):.4f}"


def _periodicity(frames):
    kinds = Counter(tuple(frame.pbc.tolist()) for frame in frames)
    names = {(True, True, True): "periodic", (False, False, False): "not periodic"}
    if len(kinds) == 1 and (kind := next(iter(kinds))) in names:
        return names[kind]
    return ", ".join(
        f"{count} {names.get(kind, 'periodic along ' + ''.join(a for a, on in zip('abc', kind, strict=True) if on))}"
        for kind, count in kinds.items()
    )
