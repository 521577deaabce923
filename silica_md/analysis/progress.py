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

    def stage(self, name: str, frames: Sequence[Atoms]) -> Stage:
        """The frames again, for the stage `name`; going through them reports."""
        begin = self._before
        self._before += self._shares[name]
        return Stage(frames, lambda done: self._show(name, begin + self._shares[name] * done))

    def done(self) -> None:
        """Say that all stages are over."""
        self._show("", 1.0)


class Stage(Sequence):
    """Frames that report, each time one has been dealt with, which part of them is done."""

    def __init__(self, frames: Sequence[Atoms], report: Callable[[float], None]):
        self._frames, self._report = frames, report

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index):
        return self._frames[index]

    def __iter__(self) -> Iterator[Atoms]:
        self._report(0.0)
        for number, atoms in enumerate(self._frames, start=1):
            yield atoms
            self._report(number / len(self))
