"""Electrostatic energy of periodic point charges: Ewald sums on the neighbour list and the waves of a cell."""

from . import reference
from .energy import ewald_energy
from .kernel import background_energy, real_space, self_energy
from .parameters import EwaldParameters, parameters
from .waves import EwaldWaves, WaveResult, evaluate_waves, ewald_waves

__all__ = [
    "EwaldParameters",
    "EwaldWaves",
    "WaveResult",
    "background_energy",
    "evaluate_waves",
    "ewald_energy",
    "ewald_waves",
    "parameters",
    "real_space",
    "reference",
    "self_energy",
]
