"""What a host learns one call late, so that it never waits for work that it has just given to a GPU."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from ..errors import LostNeighborError, NonFiniteError

REBUILD_AT = 0.8
"""Fraction of the skin at which the list is rebuilt; the rest is for the step that is under way when this is seen."""


class Recorder(Protocol):
    """Brings one number from a device to the host."""

    def put(self, value: Tensor) -> None:
        """Start copying a 0-d tensor, behind the work already queued; do not wait."""

    def take(self) -> float:
        """Return the number last put."""


class PinnedRecorder:
    """A `Recorder` through pinned memory: taking waits only until the device has passed the copy."""

    def __init__(self):
        self._number = torch.empty((), dtype=torch.float64, pin_memory=True)
        self._passed = torch.cuda.Event()

    def put(self, value: Tensor) -> None:
        """Queue the copy on the current stream of the value's device."""
        self._number.copy_(value, non_blocking=True)
        self._passed.record(torch.cuda.current_stream(value.device))

    def take(self) -> float:
        """Wait for the copy, not for anything queued after it."""
        self._passed.synchronize()
        return self._number.item()


class WordsRecorder:
    """Brings a few integers from a device to the host: through pinned memory from a GPU, at once on a CPU."""

    def __init__(self, words: Tensor):
        self._words = torch.empty(words.shape, dtype=words.dtype, pin_memory=words.is_cuda)
        self._passed = torch.cuda.Event() if words.is_cuda else None
        self._pending = False

    def put(self, words: Tensor) -> None:
        """Start copying, behind the work already queued on the current stream; do not wait."""
        self._words.copy_(words, non_blocking=True)
        if self._passed is not None:
            self._passed.record(torch.cuda.current_stream(words.device))
        self._pending = True

    def take(self) -> list[int] | None:
        """Return what was last put, once; None if nothing was. Waits for the copy, not for what is queued after it."""
        if not self._pending:
            return None
        self._pending = False
        if self._passed is not None:
            self._passed.synchronize()
        return self._words.tolist()


class LateSkin:
    """Decides on rebuilds from the skin that had been used up one call ago.

    Which call rebuilds depends on the trajectory alone, never on timing: the value of the call before is always
    looked at, even if the host has to wait for it.
    """

    def __init__(self, skin: float, recorder: Recorder):
        self._skin, self._recorder = skin, recorder
        self._pending = self._stale = False

    def put(self, used: Tensor) -> None:
        """Hand over the skin used up now (0-d, Å, on the device), to be looked at on the next call."""
        self._recorder.put(used)
        self._pending = True

    def is_used_up(self) -> bool:
        """Look at what is pending: is it time to rebuild? Errors as in `look`."""
        self.look()
        stale, self._stale = self._stale, False
        return stale

    def look(self) -> None:
        """Look at what is pending and remember what it means for the next `is_used_up`.

        Raises
        ------
        rsa_kernels.errors.NonFiniteError
            A position or the cell was NaN or infinite.
        rsa_kernels.errors.LostNeighborError
            More than the skin was used up: what was computed from the list in that step may lack pairs.
        """
        if not self._pending:
            return
        self._pending = False
        used = self._recorder.take()
        self._stale = not used <= REBUILD_AT * self._skin
        if not math.isfinite(used):
            raise NonFiniteError("`positions` or `cell` held NaN or infinite values at the list's last update")
        if used > self._skin:
            raise LostNeighborError(
                f"lost neighbour: at its last update the list had used up {used:.3f} Å of its skin of {self._skin:g} Å,"
                " and what was computed from it may lack pairs; go back to the last good state with a shorter time step"
                " or a larger skin"
            )
