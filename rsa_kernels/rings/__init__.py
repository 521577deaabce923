"""Ring statistics of bond networks: King, Guttman and primitive rings, coordination sequences, vertex symbols."""

from .links import Links
from .nets import VertexSymbols, coordination_sequence, vertex_symbols
from .statistics import RingStatistics, ring_statistics

__all__ = [
    "Links",
    "RingStatistics",
    "VertexSymbols",
    "coordination_sequence",
    "ring_statistics",
    "vertex_symbols",
]
