"""Judges a structure: density, g(r), coordination, angles, Qn, rings, S(Q), T(r), and how far from the measurement."""

from .analyze import analyze
from .frames import check_frames, read_frames
from .progress import Progress
from .result import Analysis

__all__ = ["Analysis", "Progress", "analyze", "check_frames", "read_frames"]
