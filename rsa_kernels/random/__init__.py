"""Counter-based random numbers: the public names of this op."""

from .op import bits, normal

__all__ = ["bits", "normal"]
