"""Pairwise D3(BJ) dispersion: energies, forces and virial in one call, with a smooth cutoff."""

from . import reference
from .op import DispersionResult, evaluate
from .table import DispersionTable

__all__ = ["DispersionResult", "DispersionTable", "evaluate", "reference"]
