"""Torch kernels for atomistic models: neighbour lists, pair potentials, counter-based random numbers."""

__version__ = "0.1.0"
