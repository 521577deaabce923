"""Structure factors and pair distributions: how a disordered material looks to a diffractometer."""

from . import lattice, reference, weights
from .direct import structure_factor_at
from .op import structure_factor
from .pair_distribution import PairDistribution, pair_distribution
from .result import StructureFactor
from .transforms import pairs_from_structure_factor, structure_factor_from_pairs

__all__ = [
    "PairDistribution",
    "StructureFactor",
    "lattice",
    "pair_distribution",
    "pairs_from_structure_factor",
    "reference",
    "structure_factor",
    "structure_factor_at",
    "structure_factor_from_pairs",
    "weights",
]
