"""The mean of structure factors over frames, one frame after the other."""

from __future__ import annotations

import numpy as np

from .structure_factor import StructureFactor


class FactorMean:
    """Mean of S(Q) over frames, every k-vector with the same weight; no frame is kept."""

    def __init__(self):
        self._first: StructureFactor | None = None
        self._sums: dict[str, np.ndarray] = {}
        self._counts = np.zeros(0)
        self._q_min, self._frames = np.inf, 0

    def add(self, factor: StructureFactor) -> None:
        """Take the structure factor of one more frame in; the shortest range of all is kept."""
        if self._first is None or len(factor.q) < len(self._first.q):
            self._first = factor
        n_bins = len(self._first.q)
        counts = factor.counts[:n_bins]
        for name, partial in factor.partials.items():
            part = np.where(counts > 0, partial[:n_bins], 0.0) * counts
            self._sums[name] = part + (self._sums[name][:n_bins] if self._frames else 0.0)
        self._counts = counts + (self._counts[:n_bins] if self._frames else 0)
        self._q_min = min(self._q_min, factor.q_min)
        self._frames += 1

    def result(self) -> StructureFactor:
        """The mean; NaN in a bin that holds no k-vector of any frame."""
        with np.errstate(invalid="ignore"):
            partials = {name: total / self._counts for name, total in self._sums.items()}
        first = self._first
        return StructureFactor(
            first.q, partials, self._counts / self._frames, self._q_min, first.q_max_reached, first.reason
        )
