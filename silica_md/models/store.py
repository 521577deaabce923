"""Models on disk: tensors as safetensors, everything else as JSON beside them. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..errors import ModelFileError
from ..files import replace_file
from .config import ModelConfig

if TYPE_CHECKING:
    from .network import Network

FORMAT = "silica-md model"
VERSION = 1


def save(model: Network, path: str | Path, extra: Mapping | None = None) -> Path:
    """Write a model as ``NAME.safetensors`` and ``NAME.json``.

    Parameters
    ----------
    model : Network
    path : str or Path
        NAME, with or without one of the two endings.
    extra : mapping, optional
        Plain data to be kept with it: where the weights come from.

    Returns
    -------
    Path
        The JSON file. It is written last and names the tensors by their SHA-256: a pair that does not belong together
        is found out when it is loaded.
    """
    from safetensors.torch import save as to_bytes

    if getattr(model, "accelerated", False):
        raise ValueError("`model` must be the one that `accelerate` was given: the accelerated one has other tensors")
    tensors, record = files_of(path)
    tensors.parent.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    data = to_bytes(state, metadata={"format": "pt"})
    content = {
        "format": FORMAT,
        "version": VERSION,
        "dtype": str(model.dtype).removeprefix("torch."),
        "tensors": tensors.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "parameters": sum(one.numel() for one in model.parameters()),
        "config": model.config.to_dict(),
        "extra": dict(extra or {}),
    }
    replace_file(tensors, data)
    replace_file(record, json.dumps(content, indent=1) + "\n")
    return record


def load(
    path: str | Path, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> tuple[Network, dict]:
    """Read a model.

    Parameters
    ----------
    path : str or Path
        Either of the two files, or their common name without ending.
    dtype : torch.dtype, optional
        float64 or float32; default: that of the file.
    device : str or torch.device
        Where to put it.

    Returns
    -------
    model : Network
        Ready for use, in evaluation mode.
    record : dict
        What the JSON file holds.

    Raises
    ------
    silica_md.errors.ModelFileError
        A file is missing, damaged, of another format or does not belong to the other.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    from .network import build
    from .product_basis import fit_product_basis

    record = read_record(path)
    tensors = files_of(path)[0].with_name(record["tensors"])
    try:
        data = tensors.read_bytes()
    except OSError as error:
        raise ModelFileError(f"cannot read {tensors}: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != record["sha256"]:
        raise ModelFileError(f"{tensors} is damaged, or not the file its JSON was written with (SHA-256 differs)")
    try:
        config = ModelConfig.from_dict(record["config"])
        model = build(config, dtype=getattr(torch, record["dtype"]))
        state = from_bytes(data)
        fit_product_basis(model, state)
        model.load_state_dict(state, strict=True)
    except (SafetensorError, RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelFileError(f"{tensors} does not hold the model its JSON describes: {error}") from error
    return model.to(dtype=dtype, device=device).eval(), record


def read_record(path: str | Path) -> dict:
    """Read what the JSON file of a model holds, without mace-torch and without the tensors.

    Raises
    ------
    silica_md.errors.ModelFileError
        There is none, or it is not one of ours.
    """
    where = files_of(path)[1]
    try:
        record = json.loads(where.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelFileError(
            f"cannot read {where}: {error.strerror}; a model is two files, NAME.safetensors and NAME.json (checkpoints"
            " of others become one by silica-md convert)"
        ) from error
    except ValueError as error:
        raise ModelFileError(f"{where} is not JSON: {error}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ModelFileError(f"{where} does not describe a model (no format '{FORMAT}')")
    if record.get("version") != VERSION:
        raise ModelFileError(f"{where} has version {record.get('version')}, this package reads {VERSION}")
    missing = [key for key in ("dtype", "tensors", "sha256", "config") if key not in record]
    if missing or Path(record["tensors"]).name != record["tensors"]:
        raise ModelFileError(f"{where} is not complete: `{missing[0] if missing else 'tensors'}` is missing or wrong")
    return record


def files_of(path: str | Path) -> tuple[Path, Path]:
    """Return the two files of a model's name, tensors and JSON; they need not be there."""
    path = Path(path)
    stem = path.with_suffix("") if path.suffix in (".safetensors", ".json") else path
    return stem.with_name(stem.name + ".safetensors"), stem.with_name(stem.name + ".json")
