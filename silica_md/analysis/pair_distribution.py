"""Partial pair distribution functions averaged over frames; the counts are those of `rsa_kernels.pair_distribution`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers

import rsa_kernels as rk

from . import neighbors
from .composition import Composition, label

MAX_PAIRS = 1e9
"""Ordered pairs of a frame, a few seconds' work; longer ranges stop there and say so."""


@dataclass(frozen=True)
class PairDistribution:
    """Partial g(r) averaged over frames.

    Attributes
    ----------
    r : ndarray (n_bins,)
        Bin centres, Å.
    partials : dict of str to ndarray (n_bins,)
        g_ab(r), dimensionless, → 1 at large r.
    r_max : float
        Upper edge of the last bin, Å.
    reason : str
        Why the range ends there.
    """

    r: np.ndarray
    partials: dict[str, np.ndarray]
    r_max: float
    reason: str


class PairMean:
    """Mean of g(r) over frames, one after the other.

    Parameters
    ----------
    composition : Composition
    cells : sequence of ndarray (3, 3)
        Of all frames that will come, Å: they decide the range.
    r_max : float, optional
        Range, Å. By default half the shortest perpendicular width of the cells.
    dr : float
        Bin width, Å.
    """

    def __init__(self, composition: Composition, cells: Sequence[np.ndarray], r_max: float | None, dr: float):
        self._composition, self._dr = composition, dr
        half_width = min(neighbors.perpendicular_widths(cell).min() for cell in cells) / 2
        self._reason = "half the shortest perpendicular width of the cell" if r_max is None else "as asked for"
        r_max = half_width if r_max is None else r_max
        densest = composition.n_atoms / min(abs(np.linalg.det(cell)) for cell in cells)
        affordable = (MAX_PAIRS / (composition.n_atoms * densest * 4 / 3 * np.pi)) ** (1 / 3)
        if affordable < r_max:
            r_max = affordable
            self._reason = f"{MAX_PAIRS / 1e6:.0f} million pairs a frame are the limit"
        self._n_bins = max(int(r_max / dr), 1)
        self._sums = {pair: np.zeros(self._n_bins) for pair in composition.pairs}
        self._frames = 0

    def add(self, atoms: Atoms) -> None:
        """Take one more frame in."""
        found = rk.pair_distribution(
            torch.from_numpy(atoms.get_positions()),
            torch.from_numpy(np.array(atoms.cell)),
            torch.from_numpy(atoms.numbers.astype(np.int64)),
            (self._n_bins + 0.5) * self._dr,  # so that rounding takes no bin away
            self._dr,
        )
        for a, b in self._sums:
            self._sums[a, b] += found[atomic_numbers[a], atomic_numbers[b]].numpy()
        self._frames += 1

    def result(self) -> PairDistribution:
        """The mean."""
        edges = np.arange(self._n_bins + 1) * self._dr
        partials = {label(a, b): total / self._frames for (a, b), total in self._sums.items()}
        return PairDistribution((edges[:-1] + edges[1:]) / 2, partials, float(edges[-1]), self._reason)


def pair_distribution(frames: Sequence[Atoms], r_max: float | None = None, dr: float = 0.02) -> PairDistribution:
    """Partial pair distribution functions from all pairs, periodic images included.

    ::

        g_ab(r) = V n_ab(r) / (N_a N_b 4π/3 [(r + dr/2)³ − (r − dr/2)³])

    n_ab(r) counts ordered pairs (an atom of a, an atom of b, or an image of one) in the bin, so that
    ρ_b ∫ 4πr² g_ab dr over any range is the mean number of b atoms around an a atom, exactly.

    Parameters
    ----------
    frames : sequence of ase.Atoms
        Periodic frames of one composition; their cells may differ.
    r_max : float, optional
        Range, Å. By default half the shortest perpendicular width of the cells.
    dr : float
        Bin width, Å.

    Notes
    -----
    Cost grows like N r_max³; no pair is kept. A range of more than a thousand million pairs is cut there and `reason`
    says so.
    """
    mean = PairMean(Composition.of(frames[0]), [np.array(atoms.cell) for atoms in frames], r_max, dr)
    for atoms in frames:
        mean.add(atoms)
    return mean.result()
