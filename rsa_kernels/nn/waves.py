"""What every module here shares: which waves it sees, how the sums over them are taken, and the checks of its input."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import _checks
from ..reciprocal import Modes, reciprocal_modes
from ..reciprocal.op import METHODS
from ..reciprocal.spectra import Spectrum


def batch_pointers(batch: Tensor, n_systems: int | None = None) -> Tensor:
    """Offsets of the systems from the system of every atom, as PyTorch Geometric keeps it: [0, 0, 1] -> [0, 2, 3].

    Parameters
    ----------
    batch : Tensor
        (n_atoms,) int64, ascending.
    n_systems : int, optional
        Needed where the last systems have no atoms; otherwise the highest number in `batch` counts.

    Returns
    -------
    Tensor
        (n_systems + 1,) int64.

    Raises
    ------
    ValueError
        Atoms of one system do not stand together, or a number is not below `n_systems`.
    """
    _checks.tensor("batch", batch, dtypes=(torch.int64,))
    _checks.shape("batch", batch, "n_atoms")
    if bool((batch.diff() < 0).any()) or (batch.numel() and int(batch[0]) < 0):
        raise ValueError(
            "`batch` must be ascending from 0: atoms of one system stand together; torch.argsort sorts them"
        )
    highest = int(batch[-1]) + 1 if batch.numel() else 0
    if n_systems is not None and highest > n_systems:
        raise ValueError(f"`batch` must be below `n_systems` = {n_systems}, got {highest - 1}")
    counts = torch.bincount(batch, minlength=n_systems or max(highest, 1))
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


class WaveModule(nn.Module):
    """Base of the modules: settings in physical units, and the waves of a cell.

    Parameters
    ----------
    k_cut : float
        All waves |k| < k_cut, 1/Å.
    window_start : float
        Fraction of k_cut from which weights fall smoothly to zero; 1 cuts sharply. See `reciprocal_modes`.
    method : {"auto", "pairwise", "spectral", "grid"}
        How sums are taken; changes time and memory, not the result (grid: within `tolerance`).
    tolerance : float
        Relative error allowed to "grid".
    """

    def __init__(self, k_cut: float | None, window_start: float, method: str, tolerance: float):
        super().__init__()
        if k_cut is not None:
            _checks.positive("k_cut", k_cut, "1/Å")
        if not 0.0 < _checks.positive("window_start", window_start) <= 1.0:
            raise ValueError(f"`window_start` must be at most 1, got {window_start}")
        if method not in METHODS:
            raise ValueError(f"`method` must be one of {', '.join(METHODS)}, got {method!r}")
        self.k_cut = k_cut
        self.window_start = window_start
        self.method = method
        self.tolerance = _checks.positive("tolerance", tolerance)

    def spectrum(self) -> Spectrum:
        """w(|k|) of the module, with its present parameters."""
        raise NotImplementedError

    def modes(self, cell: Tensor, n_systems: int | None = None, pbc=True) -> Modes:
        """Return the waves the module sees in these cells, with its weights.

        `forward` makes them itself; make them once where several layers with the same settings share them, or before a
        compiled model (their number depends on the data). They carry the derivative with respect to `cell`, so they
        must come from the tensor that the energy is differentiated by, and anew whenever it or a learnable spectrum
        changes.

        Parameters
        ----------
        cell : Tensor
            (3, 3) or (n_systems, 3, 3) Å.
        n_systems : int, optional
            Number of systems that share a (3, 3) cell.
        pbc : bool or sequence of bool
            Must be periodic in every direction.
        """
        return reciprocal_modes(
            cell, self.k_cut, self.spectrum(), window_start=self.window_start, pbc=pbc, n_systems=n_systems
        )

    def _modes_of(self, cell: Tensor, batch_ptr: Tensor | None, modes, pbc):
        """The waves given, or those of the cells."""
        if modes is not None:
            return modes
        return self.modes(cell, None if batch_ptr is None else batch_ptr.shape[0] - 1, pbc)


def check_features(name: str, x: Tensor, width: int, like: Tensor) -> None:
    """Refuse node features that do not fit a module: width, and dtype and device of its parameters."""
    _checks.tensor(name, x)
    _checks.shape(name, x, "n_atoms", width)
    if x.dtype != like.dtype or x.device != like.device:
        raise TypeError(
            f"`{name}` must be {like.dtype} on {like.device} like the parameters of the module, got {x.dtype} on"
            f" {x.device}; move one with .to(...)"
        )


def check_norm(norm: str, published: str) -> None:
    """Refuse a norm that a module does not have."""
    if norm not in ("intensive", published):
        raise ValueError(f"`norm` must be 'intensive' or {published!r}, got {norm!r}")
