"""Checkpoints: one checksummed file each, written in one step; the two newest are kept."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .errors import CheckpointError, DamagedCheckpointError
from .files import replace_file
from .forcefield import ForceField
from .state import State

MAGIC = b"silica_md checkpoint 1\n"
KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to go on.

    Attributes
    ----------
    header : dict
        Plain data (JSON): step, time, integrator, positions in the output files.
    arrays : dict of str to numpy.ndarray
        State, forces, reference of the neighbour list.
    path : Path
        Where it is.
    """

    header: dict
    arrays: dict[str, np.ndarray]
    path: Path


def save(folder: str | Path, header: dict, arrays: dict[str, np.ndarray]) -> Path:
    """Write a checkpoint named after ``header["step"]`` and drop all but the two newest.

    The file holds a line that names the format, the SHA-256 of the rest, and an uncompressed npz archive, the
    header in it as JSON: floats keep every bit, and nothing in it is executed on reading. It is written under a
    temporary name, synced and renamed, so at no moment is there less than what was there before.

    Parameters
    ----------
    folder : str or Path
        Made if it is not there.
    header : dict
        JSON data with at least "step".
    arrays : dict of str to numpy.ndarray
        Anything but objects.

    Returns
    -------
    Path
        The new file.

    Raises
    ------
    OSError
        It cannot be written, as on a full disk; the older ones are untouched.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    text = np.frombuffer(json.dumps(header, allow_nan=False).encode(), dtype=np.uint8)
    np.savez(buffer, allow_pickle=False, header=text, **{f"array_{name}": a for name, a in arrays.items()})
    payload = buffer.getvalue()
    digest = hashlib.sha256(payload).hexdigest().encode() + b"\n"
    path = replace_file(folder / f"step-{header['step']:012d}.ckpt", MAGIC + digest + payload)
    for old in _files(folder)[KEPT:]:
        old.unlink()
    return path


def load_newest(folder: str | Path, say: Callable[[str], None]) -> Checkpoint | None:
    """Read the newest checkpoint that is whole.

    A damaged one is set aside under another name, and `say` is told. One that cannot be read for another reason
    (permissions, a failing disk) is left as it is, and none older is taken in its place.

    Returns
    -------
    Checkpoint or None
        None where none was ever written.

    Raises
    ------
    CheckpointError
        There are checkpoints, but every one is damaged, or one cannot be read.
    """
    files = _files(Path(folder))
    faults = []
    for path in files:
        try:
            checkpoint = load(path)
        except DamagedCheckpointError as error:
            path.replace(path.with_suffix(".damaged"))
            faults.append(str(error))
            continue
        for fault in faults:
            say(f"warning: {fault}; falling back to {path.name}")
        return checkpoint
    if faults:
        raise CheckpointError("no checkpoint can be read: " + "; ".join(faults) + "; start a new run")
    return None


def load(path: str | Path) -> Checkpoint:
    """Read one checkpoint.

    Raises
    ------
    DamagedCheckpointError
        It is no checkpoint, or its checksum does not match.
    CheckpointError
        The file cannot be read.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}); mend that and try again, nothing was changed"
        ) from error
    digest, payload = content[len(MAGIC) : len(MAGIC) + 64], content[len(MAGIC) + 65 :]
    if not content.startswith(MAGIC):
        raise DamagedCheckpointError(f"{path} is damaged (or no checkpoint of this version)")
    if hashlib.sha256(payload).hexdigest().encode() != digest:
        raise DamagedCheckpointError(f"{path} is damaged (checksum mismatch)")
    with np.load(io.BytesIO(payload), allow_pickle=False) as archive:
        arrays = {name.removeprefix("array_"): archive[name] for name in archive.files if name != "header"}
        header = json.loads(archive["header"].tobytes())
    return Checkpoint(header, arrays, path)


def newest(folder: str | Path) -> Path | None:
    """Path of the newest checkpoint, None if there is none."""
    return next(iter(_files(Path(folder))), None)


def contents(state: State, field: ForceField) -> tuple[dict, dict[str, np.ndarray]]:
    """Header entries and arrays that hold a state and its force field."""
    arrays = {f"state_{name}": value for name, value in vars(state).items() if isinstance(value, Tensor)}
    arrays |= {f"field_{name}": value for name, value in field.state_dict().items()}
    header = {"step": state.step, "time": state.time}
    return header, {name: value.detach().cpu().numpy() for name, value in arrays.items()}


def state_of(saved: Checkpoint, device: torch.device) -> State:
    """The state in a checkpoint."""
    return State(**_tensors(saved, "state_", device), step=saved.header["step"], time=saved.header["time"])


def field_of(saved: Checkpoint, device: torch.device) -> dict[str, Tensor]:
    """What `ForceField.load_state_dict` takes, from a checkpoint."""
    return _tensors(saved, "field_", device)


def _tensors(saved: Checkpoint, prefix: str, device: torch.device) -> dict[str, Tensor]:
    named = {name.removeprefix(prefix): a for name, a in saved.arrays.items() if name.startswith(prefix)}
    return {name: torch.from_numpy(array).to(device) for name, array in named.items()}


def _files(folder: Path) -> list[Path]:
    """Checkpoints in a folder, newest first."""
    return sorted(folder.glob("step-*.ckpt"), reverse=True)
