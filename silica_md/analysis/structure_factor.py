"""Partial structure factors averaged over frames; the sums themselves are `rsa_kernels.structure_factor`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms

import rsa_kernels as rk
from rsa_kernels.structure.op import MAX_VECTORS

from .composition import Composition, label


@dataclass(frozen=True)
class StructureFactor:
    """Faber–Ziman partial structure factors, shell averages over k-vectors and all frames.

    Attributes
    ----------
    q : ndarray (n_bins,)
        Bin centres dq, 2dq, …, Å⁻¹; a bin reaches dq/2 to both sides.
    partials : dict of str to ndarray (n_bins,)
        A_ab(Q) → 1 at large Q; NaN in a bin that holds no k-vector of the cell.
    counts : ndarray (n_bins,)
        k-vectors summed per bin and frame (k and −k counted both).
    q_min : float
        Length of the shortest k-vector, Å⁻¹: nothing is known below it.
    q_max_reached : float
        Centre of the last bin.
    reason : str
        Which vectors were summed, and why.
    errors : dict of str to ndarray (n_bins,), or None
        Standard error of `partials` from sampling, where not all vectors were summed.
    """

    q: np.ndarray
    partials: dict[str, np.ndarray]
    counts: np.ndarray
    q_min: float
    q_max_reached: float
    reason: str
    errors: dict[str, np.ndarray] | None = None


def structure_factor(
    frames: list[Atoms],
    q_max: float = 25.0,
    dq: float = 0.05,
    *,
    max_vectors: int = MAX_VECTORS,
) -> StructureFactor:
    """Partial structure factors A_ab(Q) of periodic frames.

    ::

        A_ab(Q) = 1 + N ⟨Re ρ_a(k) ρ_b*(k)⟩ / (N_a N_b) − δ_ab N / N_a,    ρ_a(k) = Σ_{j in a} exp(i k·r_j)

    ⟨⟩ runs over the k-vectors with | |k| − Q | ≤ dq/2 and over the frames, each frame with the weight of the vectors
    that its cell has there.

    Parameters
    ----------
    frames : list of ase.Atoms
        Periodic in all directions, one composition; cells of any shape, which may differ.
    q_max : float
        Centre of the last bin wanted, Å⁻¹.
    dq : float
        Bin width and spacing, Å⁻¹.
    max_vectors : int
        Where the half space holds more k-vectors than this per frame, those of the highest Q are sampled.

    Returns
    -------
    StructureFactor

    Notes
    -----
    Cost, memory and sampling: see `rsa_kernels.structure_factor`.
    """
    if not 0 < dq <= q_max:
        raise ValueError(f"`dq` and `q_max` must satisfy 0 < dq <= q_max, got dq={dq}, q_max={q_max}")
    composition = Composition.of(frames[0])
    numbers = {symbol: int(frames[0].numbers[members[0]]) for symbol, members in composition.members.items()}
    found = [_of_frame(atoms, q_max, dq, max_vectors) for atoms in frames]

    weights = [one.available.numpy() for one in found]
    total = np.sum(weights, axis=0)
    sampled = next((one for one in found if one.errors is not None), None)
    partials, errors = {}, {}
    for first, second in composition.pairs:
        pair, name = (numbers[first], numbers[second]), label(first, second)
        values = [np.nan_to_num(one[pair].numpy()) for one in found]
        with np.errstate(invalid="ignore"):
            partials[name] = np.sum([w * x for w, x in zip(weights, values, strict=True)], axis=0) / total
            if sampled is not None:
                squares = [(w * _errors(one, pair)) ** 2 for w, one in zip(weights, found, strict=True)]
                errors[name] = np.sqrt(np.sum(squares, axis=0)) / total
    q = found[0].q.numpy()
    return StructureFactor(
        q=q,
        partials=partials,
        counts=np.sum([one.counts.numpy() for one in found], axis=0) / len(frames),
        q_min=min(one.q_min for one in found),
        q_max_reached=float(q[-1]),
        reason="as asked for" if sampled is None else f"as asked for; {sampled.reason}",
        errors=errors if sampled is not None else None,
    )


def _of_frame(atoms, q_max, dq, max_vectors):
    return rk.structure_factor(
        torch.from_numpy(atoms.get_positions()),
        torch.from_numpy(np.array(atoms.cell)),
        torch.from_numpy(atoms.numbers.astype(np.int64)),
        q_max,
        dq,
        max_vectors=max_vectors,
    )


def _errors(one, pair):
    if one.errors is None:
        return np.zeros(len(one.q))
    return np.nan_to_num(one.errors[one.pairs.index(tuple(sorted(pair)))].numpy())
