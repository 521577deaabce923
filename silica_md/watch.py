"""Looks at a run for what must not pass as a result: numbers that are not finite, explosions, drift."""

from __future__ import annotations

import math

import torch

from .state import State

HOTTEST = 4.0, 3000.0
"""More than 4 times the target, or what it was when the segment began, plus 3000 K is an explosion."""

DRIFT = 0.05, 0.01
"""eV per atom: by so much, plus so much a picosecond, may the conserved quantity leave its value at the start of a
segment. A sound run stays below a tenth of it."""


class UnsoundError(ArithmeticError):
    """What the state or the energies have become cannot be right."""


class Watch:
    """Judges the rows of the log and, before a checkpoint, the state."""

    def __init__(self):
        # Where the segment began: conserved energy (eV per atom), time (ps), temperature (K).
        self.reference: list[float] | None = None

    def begin(self, conserved_eV_per_atom: float, time_ps: float, temperature_K: float) -> None:
        """Take what a segment begins with."""
        self.reference = [conserved_eV_per_atom, time_ps, temperature_K]

    def check_row(self, row: dict) -> None:
        """Refuse a row of the log whose numbers cannot be right.

        Raises
        ------
        UnsoundError
            Saying which quantity and by how much.
        """
        for name, value in row.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise UnsoundError(f"{name} is {value}")
        self._check_temperature(row["temperature_K"], row["target_K"])
        if self.reference is not None:
            drift, begun = row["conserved_eV_per_atom"] - self.reference[0], self.reference[1]
            allowed = DRIFT[0] + DRIFT[1] * (row["time_ps"] - begun)
            if abs(drift) > allowed:
                raise UnsoundError(
                    f"the conserved energy has drifted by {drift:.3g} eV per atom within this segment "
                    f"(allowed: {allowed:.3g}); try a shorter time step"
                )

    def check_state(self, state: State, target_K: float | None, degrees_of_freedom: float) -> None:
        """Refuse a state that must not become a checkpoint.

        Raises
        ------
        UnsoundError
            A position, velocity or the cell is not finite, or the atoms are too fast.
        """
        for name in ("positions", "velocities", "cell"):
            if not bool(torch.isfinite(getattr(state, name)).all()):
                raise UnsoundError(f"the {name} are not finite")
        self._check_temperature(float(state.temperature(degrees_of_freedom)), target_K)

    def _check_temperature(self, temperature: float, target: float | None) -> None:
        if target is None:
            return  # constant energy: the drift tells
        warmest = max(target, self.reference[2] if self.reference else 0.0)
        if temperature > HOTTEST[0] * warmest + HOTTEST[1]:
            raise UnsoundError(f"the temperature is {temperature:.0f} K where {target:.0f} K are wanted")
