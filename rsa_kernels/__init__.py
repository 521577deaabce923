"""Torch kernels for atomistic models: neighbour lists, pair potentials, reciprocal space, S(Q), rings, random numbers.

Importing touches no device and never fails for want of CUDA, Triton or a compiler.
"""

from . import cells, dispersion, errors, neighbors, nn, pair, random, reciprocal, rings, structure, units
from .ewald import ewald_energy
from .neighbors import NeighborList, neighbor_list
from .reciprocal import Modes, accumulate_modes, explain, gather_modes, reciprocal_attention, reciprocal_modes
from .rings import RingStatistics, ring_statistics
from .structure import PairDistribution, StructureFactor, pair_distribution, structure_factor

__version__ = "0.1.0"
__all__ = [
    "Modes",
    "NeighborList",
    "PairDistribution",
    "RingStatistics",
    "StructureFactor",
    "accumulate_modes",
    "cells",
    "dispersion",
    "errors",
    "ewald",
    "ewald_energy",
    "explain",
    "gather_modes",
    "neighbor_list",
    "neighbors",
    "nn",
    "pair",
    "pair_distribution",
    "random",
    "reciprocal",
    "reciprocal_attention",
    "reciprocal_modes",
    "ring_statistics",
    "rings",
    "structure",
    "structure_factor",
    "units",
]
