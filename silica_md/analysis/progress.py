"""How far an analysis has come: stages with their expected shares of the time, one frame after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from ase import Atoms


class Progress:
    """Told by `analyze` what it does; reports the stage and the part of the whole that is done.

    Parameters
    ----------
    show : callable
        Called as ``show(stage, fraction)`` when a stage begins and when a frame of it is done. At the end the stage
        is "".
    """

    def __init__(self, show: Callable[[str, float], None] = lambda stage, fraction: None):
        self._show = show
        self._shares: dict[str, float] = {}
        self._before = 0.0

    def plan(self, expected: Mapping[str, float]) -> None:
        """Take the stages to come with the seconds each should take; only their ratios matter."""
        total = sum(expected.values()) or 1.0
        self._shares = {name: seconds / total for name, seconds in expected.items()}

    def stage(self, name: str, frames: Sequence[Atoms]) -> Iterator[Atoms]:
        """The frames, one after the other, for the stage `name`."""
        share = self._shares[name]
        self._show(name, self._before)
        for number, atoms in enumerate(frames, start=1):
            yield atoms
            self._show(name, self._before + share * number / len(frames))
        self._before += share

    def done(self) -> None:
        """Say that all stages are over."""
        self._show("", 1.0)
