"""How far an analysis has come: stages with their expected shares of the time, one frame after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from ase import Atoms


class Progress:
    """Told by `analyze` what it does; reports the stage, the part done and the time left.

    Parameters
    ----------
    show : callable, optional
        Called as ``show(stage, fraction, seconds_left)`` whenever a stage begins and a frame is done;
        `seconds_left` is None before anything is known. At the end the stage is "".
    clock : callable
        Time in seconds; for tests.
    """

    def __init__(
        self,
        show: Callable[[str, float, float | None], None] = lambda stage, fraction, left: None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._show, self._clock = show, clock
        self._expected: dict[str, float] = {}
        self._begun = clock()
        self._before = self._fraction = 0.0

    def plan(self, expected: Mapping[str, float]) -> None:
        """Take the stages to come with the seconds each should take; only their ratios matter."""
        total = sum(expected.values()) or 1.0
        self._expected = {name: seconds / total for name, seconds in expected.items()}
        self._begun = self._clock()

    def stage(self, name: str, frames: Sequence[Atoms]) -> Iterator[Atoms]:
        """The frames, one after the other, for the stage `name`."""
        share = self._expected[name]
        self._report(name, self._before)
        for number, atoms in enumerate(frames, start=1):
            yield atoms
            self._report(name, self._before + share * number / len(frames))
        self._before += share

    def done(self) -> None:
        """Say that all stages are over."""
        self._report("", 1.0)

    def _report(self, name, fraction):
        elapsed = self._clock() - self._begun
        left = elapsed * (1.0 - fraction) / fraction if fraction > 0.0 else None
        self._show(name, fraction, left)
