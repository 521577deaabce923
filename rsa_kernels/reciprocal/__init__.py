"""The one door to reciprocal space: waves of a cell, attention through them, Ewald sums."""

from . import published, reference, spectra
from .costs import Explanation, explain
from .modes import Modes, padded_cell, reciprocal_modes
from .op import accumulate_modes, gather_modes, reciprocal_attention

__all__ = [
    "Explanation",
    "Modes",
    "accumulate_modes",
    "explain",
    "gather_modes",
    "padded_cell",
    "published",
    "reciprocal_attention",
    "reciprocal_modes",
    "reference",
    "spectra",
]
