"""Pair potentials of any form, tabulated per species pair: energy, forces, virial and per-atom energy in one pass."""

from . import reference
from .op import PairResult, check_closest, energy, evaluate
from .table import PairTable

__all__ = ["PairResult", "PairTable", "check_closest", "energy", "evaluate", "reference"]
