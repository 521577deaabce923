"""The cost and memory model behind method="auto"."""

from __future__ import annotations


def resolve(method: str, sizes, q, d_v: int, tolerance: float, *, with_pairs: bool) -> str:
    """Return the method that "auto" stands for, or the one asked for."""
    if method != "auto":
        return method
    return "pairwise" if with_pairs else "spectral"
