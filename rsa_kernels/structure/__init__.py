"""Structure factors and pair distributions: how a disordered material looks to a diffractometer."""

from . import lattice, reference, weights
from .direct import structure_factor_at
from .op import structure_factor
from .result import StructureFactor

__all__ = ["StructureFactor", "lattice", "reference", "structure_factor", "structure_factor_at", "weights"]
