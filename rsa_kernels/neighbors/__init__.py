"""Neighbour lists: pairs of atoms, with their periodic images, closer than a cutoff."""

from .neighbor_list import NeighborList, neighbor_list

__all__ = ["NeighborList", "neighbor_list"]
