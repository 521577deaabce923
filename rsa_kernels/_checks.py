"""Argument checks with one voice: the argument's name, what was expected, what came, and the mend."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor


def tensor(
    name: str, value, *, dtypes: tuple[torch.dtype, ...] | None = None, device: torch.device | None = None
) -> Tensor:
    """Refuse anything but a tensor of the dtypes and device given."""
    if not isinstance(value, Tensor):
        raise TypeError(f"`{name}` must be a torch.Tensor, got {type(value).__name__}; torch.as_tensor converts")
    if dtypes is not None and value.dtype not in dtypes:
        wanted = " or ".join(str(dtype) for dtype in dtypes)
        raise TypeError(f"`{name}` must have dtype {wanted}, got {value.dtype}")
    if device is not None and value.device != device:
        raise ValueError(f"`{name}` must be on {device} like the other arguments, got {value.device}")
    return value


def shape(name: str, value: Tensor, *expected: int | str) -> Tensor:
    """Refuse a wrong shape; a string in `expected` names a free length."""
    matches = value.dim() == len(expected) and all(
        isinstance(want, str) or want == have for want, have in zip(expected, value.shape, strict=True)
    )
    if not matches:
        wanted = ", ".join(str(length) for length in expected) + ("," if len(expected) == 1 else "")
        raise ValueError(f"`{name}` must have shape ({wanted}), got {tuple(value.shape)}")
    return value


def positive(name: str, value: float, unit: str = "") -> float:
    """Refuse anything but a finite positive number."""
    number = _number(name, value)
    if not 0.0 < number < math.inf:
        raise ValueError(f"`{name}` must be positive and finite{', in ' + unit if unit else ''}, got {value}")
    return number


def not_negative(name: str, value: float, unit: str = "") -> float:
    """Refuse anything but zero or a finite positive number."""
    number = _number(name, value)
    if not 0.0 <= number < math.inf:
        raise ValueError(f"`{name}` must be zero or positive, and finite{', in ' + unit if unit else ''}, got {value}")
    return number


def _number(name: str, value) -> float:
    try:
        number = None if isinstance(value, str) else float(value)
    except (TypeError, ValueError, RuntimeError):
        number = None
    if number is None:
        raise TypeError(f"`{name}` must be a number, got {value!r}")
    return number


def batch(batch_ptr: Tensor | None, n_atoms: int, device: torch.device) -> Tensor:
    """Offsets of the systems in the atoms, (n_systems + 1,) int64; None means one system."""
    if batch_ptr is None:
        return torch.tensor([0, n_atoms], dtype=torch.int64, device=device)
    tensor("batch_ptr", batch_ptr, dtypes=(torch.int64,), device=device)
    if batch_ptr.dim() != 1 or batch_ptr.numel() < 2:
        raise ValueError(f"`batch_ptr` must have shape (n_systems + 1,), got {tuple(batch_ptr.shape)}")
    steps = batch_ptr.diff()
    if int(batch_ptr[0]) != 0 or int(batch_ptr[-1]) != n_atoms or bool((steps < 0).any()):
        raise ValueError(f"`batch_ptr` must rise from 0 to the number of atoms {n_atoms}, got {batch_ptr.tolist()}")
    return batch_ptr.contiguous()


def offsets(name: str, pointers: Tensor, count: int, what: str) -> list[tuple[int, int]]:
    """Ranges of the systems from their offsets, (n_systems + 1,), rising from 0 to `count`; waits for a GPU."""
    values = pointers.tolist()
    ranges = list(itertools.pairwise(values))
    if not ranges or values[0] != 0 or values[-1] != count or any(low > high for low, high in ranges):
        raise ValueError(f"`{name}` must rise from 0 to the number of {what} {count}, got {values}")
    return ranges
