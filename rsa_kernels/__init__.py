"""Torch kernels for atomistic models: neighbour lists, pair potentials, counter-based random numbers.

Importing touches no device and never fails for want of CUDA, Triton or a compiler.
"""

<<<<<<< HEAD
<<<<<<< HEAD
from . import cells, errors, nn, pair, random, reciprocal, rings, units
=======
from . import cells, errors, nn, pair, random, reciprocal, rings, structure, units
>>>>>>> observers
from .ewald import ewald_energy
from .neighbors import NeighborList, neighbor_list
from .reciprocal import Modes, accumulate_modes, explain, gather_modes, reciprocal_attention, reciprocal_modes
from .rings import RingStatistics, ring_statistics
<<<<<<< HEAD
=======
from . import cells, errors, nn, pair, random, reciprocal, structure, units
from .ewald import ewald_energy
from .neighbors import NeighborList, neighbor_list
from .reciprocal import Modes, accumulate_modes, explain, gather_modes, reciprocal_attention, reciprocal_modes
from .structure import PairDistribution, StructureFactor, pair_distribution, structure_factor
>>>>>>> structure
=======
from .structure import PairDistribution, StructureFactor, pair_distribution, structure_factor
>>>>>>> observers

__version__ = "0.1.0"
__all__ = [
    "Modes",
    "NeighborList",
<<<<<<< HEAD
<<<<<<< HEAD
    "RingStatistics",
=======
    "PairDistribution",
    "StructureFactor",
>>>>>>> structure
=======
    "PairDistribution",
    "RingStatistics",
    "StructureFactor",
>>>>>>> observers
    "accumulate_modes",
    "cells",
    "errors",
    "ewald",
    "ewald_energy",
    "explain",
    "gather_modes",
    "neighbor_list",
    "nn",
    "pair",
    "pair_distribution",
    "random",
    "reciprocal",
    "reciprocal_attention",
    "reciprocal_modes",
<<<<<<< HEAD
<<<<<<< HEAD
    "ring_statistics",
    "rings",
=======
    "structure",
    "structure_factor",
>>>>>>> structure
=======
    "ring_statistics",
    "rings",
    "structure",
    "structure_factor",
>>>>>>> observers
    "units",
]
