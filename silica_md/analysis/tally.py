"""Sums that grow frame by frame: moments of real numbers, frequencies of whole ones. No frame is kept for them."""

from __future__ import annotations

import numpy as np


class Moments:
    """Mean and standard deviation of all numbers added so far.

    Parts are joined by the update of Chan, Golub and LeVeque, which loses no digits where the spread is small
    beside the mean.

    References
    ----------
    T. F. Chan, G. H. Golub and R. J. LeVeque, Am. Stat. 37 (1983) 242.
    """

    def __init__(self):
        self.count, self.mean, self._squares = 0, 0.0, 0.0

    def add(self, values: np.ndarray) -> None:
        """Take more numbers in."""
        if not len(values):
            return
        mean, both = float(values.mean()), self.count + len(values)
        shift = mean - self.mean
        self._squares += float(np.square(values - mean).sum()) + shift**2 * self.count * len(values) / both
        self.mean += shift * len(values) / both
        self.count = both

    @property
    def std(self) -> float:
        """Standard deviation √(Σ(x − x̄)²/n)."""
        return float(np.sqrt(self._squares / self.count))


class Frequencies:
    """How often each whole number, 0 or larger, has been added."""

    def __init__(self):
        self._counts = np.zeros(0, dtype=np.int64)

    def add(self, values: np.ndarray) -> None:
        """Take more whole numbers in."""
        found = np.bincount(values, minlength=len(self._counts))
        found[: len(self._counts)] += self._counts
        self._counts = found

    def fractions(self) -> dict[int, float]:
        """Relative frequency of each number that occurs, {value: fraction}, by value."""
        total = self._counts.sum()
        return {int(value): float(self._counts[value] / total) for value in np.flatnonzero(self._counts)}
