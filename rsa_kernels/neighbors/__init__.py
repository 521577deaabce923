"""Neighbour lists: pairs of atoms, with their periodic images, closer than a cutoff."""

from .device import DeviceList
from .neighbor_list import NeighborList, neighbor_list

__all__ = ["DeviceList", "NeighborList", "neighbor_list"]
