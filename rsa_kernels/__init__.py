"""Torch kernels for atomistic models: neighbour lists, pair potentials, counter-based random numbers.

Importing touches no device and never fails for want of CUDA, Triton or a compiler.
"""

from . import cells, errors, pair, random, units
from .neighbors import NeighborList, neighbor_list

__version__ = "0.1.0"
__all__ = ["NeighborList", "cells", "errors", "neighbor_list", "pair", "random", "units"]
