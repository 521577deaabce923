"""Partial structure factors from every k-vector of the cell, by non-uniform FFT (finufft, type 1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import finufft
import numpy as np
from ase import Atoms
from ase.geometry.minkowski_reduction import minkowski_reduce

from .composition import Composition, label

# Relative accuracy of the mode amplitudes. Shell averages of a disordered system scatter by percents.
NUFFT_TOLERANCE = 1e-7
# finufft's finer grid per axis; 1.25 instead of 2 makes the FFT, nearly all of the time, 4 times smaller.
UPSAMPLING = 1.25
# Half-space k-vectors per frame up to which the sum is carried.
MAX_VECTORS = 150_000_000
# Longest edges of a block of modes: slabs, so that blocks follow the sphere. A block and finufft's grid for it
# take some 100 bytes per mode, 0.4 GB.
BLOCK_EDGES = (64, 256, 256)


@dataclass(frozen=True)
class StructureFactor:
    """Faber–Ziman partial structure factors, shell averages over all k-vectors and all frames.

    Attributes
    ----------
    q : ndarray (n_bins,)
        Bin centres dq, 2dq, …, Å⁻¹; a bin reaches dq/2 to both sides.
    partials : dict of str to ndarray (n_bins,)
        A_ab(Q) → 1 at large Q; NaN in a bin that holds no k-vector of the cell.
    counts : ndarray (n_bins,)
        k-vectors per bin and frame (k and −k counted both).
    q_min : float
        Length of the shortest k-vector, Å⁻¹: nothing is known below it.
    q_max_reached : float
        Centre of the last bin.
    reason : str
        Why the range ends there.
    """

    q: np.ndarray
    partials: dict[str, np.ndarray]
    counts: np.ndarray
    q_min: float
    q_max_reached: float
    reason: str


def structure_factor(
    frames: list[Atoms],
    q_max: float = 25.0,
    dq: float = 0.05,
    *,
    max_vectors: int = MAX_VECTORS,
) -> StructureFactor:
    """Partial structure factors A_ab(Q) of periodic frames.

    ::

        ρ_a(k)  = Σ_{j in a} exp(i k·r_j),       k = 2π n A⁻ᵀ,  n integer, k ≠ 0
        A_ab(Q) = 1 + N ⟨Re ρ_a(k) ρ_b*(k)⟩ / (N_a N_b) − δ_ab N / N_a

    ⟨⟩ runs over all k-vectors with | |k| − Q | ≤ dq/2 and over the frames: no vector is left out and none
    is drawn at random.

    =================  ==========================================
    N, N_a             number of atoms, of atoms of species a
    A, n               `cell` (rows a, b, c), Miller indices
    Q, dq              `q`, `dq`
    =================  ==========================================

    Parameters
    ----------
    frames : list of ase.Atoms
        Periodic in all directions, one composition; cells of any shape, which may differ.
    q_max : float
        Centre of the last bin wanted, Å⁻¹.
    dq : float
        Bin width and spacing, Å⁻¹.
    max_vectors : int
        The range is cut where the half space holds more k-vectors than this per frame.

    Returns
    -------
    StructureFactor

    Notes
    -----
    Cost: finufft's FFTs, O(M log M) for M = V q_max³ / (12π²) half-space vectors, per species and frame;
    1,500 atoms to 25 Å⁻¹ are 3 million vectors. Only n₁ ≥ 0 is computed, in blocks that together cover the
    sphere, so memory does not grow with the range. Deterministic up to the order of finufft's threads (1e-15 relative).

    References
    ----------
    T. E. Faber and J. M. Ziman, Philos. Mag. 11 (1965) 153.
    A. H. Barnett, J. Magland and L. af Klinteberg, SIAM J. Sci. Comput. 41 (2019) C479 (finufft).
    """
    if not 0 < dq <= q_max:
        raise ValueError(f"`dq` and `q_max` must satisfy 0 < dq <= q_max, got dq={dq}, q_max={q_max}")
    composition = Composition.of(frames[0])
    q_reached, reason = _reachable(frames, q_max, max_vectors)
    n_bins = int(q_reached / dq + 1e-9)
    if n_bins < 1:
        raise ValueError(f"`dq` must not exceed the range that can be reached, {q_reached:.3g} Å⁻¹, got {dq}")

    sums = {pair: np.zeros(n_bins + 2) for pair in composition.pairs}
    counts = np.zeros(n_bins + 2)
    for atoms in frames:
        _accumulate(atoms, composition, dq, n_bins, sums, counts)

    # Slot 0 holds k = 0, the last one everything beyond the range.
    counts = counts[1:-1]
    sizes = composition.counts
    partials = {}
    with np.errstate(invalid="ignore"):
        for (first, second), total in sums.items():
            scale = composition.n_atoms / (sizes[first] * sizes[second])
            self_term = composition.n_atoms / sizes[first] if first == second else 0.0
            partials[label(first, second)] = 1 + scale * total[1:-1] / counts - self_term
    q = dq * np.arange(1, n_bins + 1)
    q_min = min(_shortest_k(atoms) for atoms in frames)
    return StructureFactor(q, partials, counts / len(frames), q_min, float(q[-1]), reason)


def _accumulate(atoms, composition, dq, n_bins, sums, counts):
    """Add one frame's mode products and vector counts to the shell sums."""
    basis = _reciprocal_vectors(atoms)
    metric = basis @ basis.T
    turns = atoms.get_scaled_positions(wrap=False)
    phases = 2 * np.pi * (turns - np.round(turns))
    for block in mode_blocks(metric, (n_bins + 0.5) * dq):
        slots = shell_slots(metric, block, dq, n_bins)
        counts += _half_space_sum(slots, None, block, n_bins)
        modes = {symbol: mode_amplitudes(phases[members], block) for symbol, members in composition.members.items()}
        for first, second in sums:
            a, b = modes[first], modes[second]
            real_part = a.real * b.real
            real_part += a.imag * b.imag
            sums[first, second] += _half_space_sum(slots, real_part, block, n_bins)


def _half_space_sum(slots, values, block, n_bins):
    """Sum over k and −k per bin: twice the half space, less the plane n₁ = 0, which holds both already."""
    flat = None if values is None else values.ravel()
    total = 2.0 * np.bincount(slots.ravel(), flat, minlength=n_bins + 2)
    if block[0][0] == 0:
        plane = None if values is None else values[0].ravel()
        total -= np.bincount(slots[0].ravel(), plane, minlength=n_bins + 2)
    return total


def mode_amplitudes(phases: np.ndarray, block: tuple[tuple[int, int], ...], nthreads: int = 0) -> np.ndarray:
    """ρ(n) = Σ_j exp(i n·φ_j) for a box of Miller indices.

    Parameters
    ----------
    phases : ndarray (n_atoms, 3)
        2π times fractional coordinates, within [−π, π].
    block : three (low, high)
        Half-open ranges of n₁, n₂, n₃.
    nthreads : int
        Threads of finufft; 0 takes all.

    Returns
    -------
    ndarray complex128
        Shape (high₁ − low₁, high₂ − low₂, high₃ − low₃).
    """
    shape = tuple(high - low for low, high in block)
    # finufft's modes are centred on zero; a phase on the strengths moves the centre.
    centre = np.array([low + size // 2 for (low, _), size in zip(block, shape, strict=True)])
    strengths = np.exp(1j * (phases @ centre))
    x, y, z = np.ascontiguousarray(phases.T)
    return finufft.nufft3d1(
        x, y, z, strengths, shape, eps=NUFFT_TOLERANCE, isign=1, upsampfac=UPSAMPLING, nthreads=nthreads
    )


def mode_blocks(
    metric: np.ndarray, q_max: float, edges: tuple[int, int, int] = BLOCK_EDGES
) -> Iterator[tuple[tuple[int, int], ...]]:
    """Disjoint boxes of Miller indices that hold every vector of the half space n₁ ≥ 0 with |k| ≤ q_max.

    Parameters
    ----------
    metric : ndarray (3, 3)
        Metric of the reciprocal lattice, |k|² = nᵀ metric n, Å⁻².
    q_max : float
        Radius, Å⁻¹.
    edges : (int, int, int)
        Longest edges of a block.

    Yields
    ------
    three (low, high)
        Half-open ranges of n₁, n₂, n₃.
    """
    n1_max = int(q_max * np.sqrt(np.linalg.inv(metric)[0, 0]) + 1e-9)
    for low, high in _chunks(0, n1_max + 1, edges[0]):
        second, third = _cross_section(metric, q_max, low, high)
        for block in product([(low, high)], _chunks(*second, edges[1]), _chunks(*third, edges[2])):
            if _reaches_into(metric, block, q_max):
                yield block


def _chunks(low, high, edge):
    """[low, high) in equal pieces of at most `edge`."""
    cuts = np.linspace(low, high, max(-(-(high - low) // edge), 1) + 1).round().astype(int).tolist()
    return list(pairwise(cuts))


def _cross_section(metric, q_max, low, high):
    """Ranges of n₂ and n₃ of the sphere between the planes n₁ = low and n₁ = high − 1.

    At fixed n₁ the section is an ellipse around −H⁻¹h n₁ (H the lower right block of G, h its first
    column) of radius² q² − n₁² / (G⁻¹)₁₁; its widest plane is the first, its centre moves linearly.
    """
    planes = np.array([low, high - 1], dtype=float)
    block_inverse = np.linalg.inv(metric[1:, 1:])
    centres = -np.outer(planes, block_inverse @ metric[1:, 0])
    radius = np.sqrt(max(q_max**2 - low**2 / np.linalg.inv(metric)[0, 0], 0.0))
    reach = radius * np.sqrt(np.diag(block_inverse))
    lowest = np.ceil((centres - reach).min(axis=0) - 1e-9).astype(int)
    highest = np.floor((centres + reach).max(axis=0) + 1e-9).astype(int)
    return [(int(a), int(max(a, b)) + 1) for a, b in zip(lowest, highest, strict=True)]


def _reaches_into(metric, block, q_max):
    """Whether a box may hold a vector of the sphere: its centre is within the radius plus its half-diagonal."""
    centre = np.array([(low + high - 1) / 2 for low, high in block])
    half = np.array([(high - low - 1) / 2 for low, high in block])
    return np.sqrt(centre @ metric @ centre) <= q_max + half @ np.sqrt(np.diag(metric))


def shell_slots(metric: np.ndarray, block: tuple[tuple[int, int], ...], dq: float, n_bins: int) -> np.ndarray:
    """Bin of every mode of a block: round(|k| / dq), with n_bins + 1 for all beyond the range."""
    n1, n2, n3 = (np.arange(low, high, dtype=float) for low, high in block)
    n1, n2 = n1[:, None, None], n2[None, :, None]
    in_plane = metric[0, 0] * n1**2 + metric[1, 1] * n2**2 + 2 * metric[0, 1] * n1 * n2
    along = 2 * (metric[0, 2] * n1 + metric[1, 2] * n2)
    squared = along + metric[2, 2] * n3
    squared *= n3
    squared += in_plane
    np.maximum(squared, 0.0, out=squared)
    np.sqrt(squared, out=squared)
    squared *= 1 / dq
    squared += 0.5
    return np.minimum(squared, n_bins + 1, out=squared).astype(np.int64)


def _reachable(frames, q_max, max_vectors):
    """How far the sum goes, and why."""
    volume = max(atoms.get_volume() for atoms in frames)
    limit = (max_vectors * 12 * np.pi**2 / volume) ** (1 / 3)
    if limit >= q_max:
        return q_max, "as asked for"
    needed = volume * q_max**3 / (12 * np.pi**2)
    return limit, f"{q_max:g} Å⁻¹ would need {needed:.2g} k-vectors per frame; the limit is {max_vectors:.2g}"


def _reciprocal_vectors(atoms):
    """Rows are the reciprocal lattice vectors, Å⁻¹, 2π included."""
    return 2 * np.pi * np.linalg.inv(np.array(atoms.cell)).T


def _shortest_k(atoms):
    """Length of the shortest non-zero k-vector, Å⁻¹."""
    reduced, _ = minkowski_reduce(_reciprocal_vectors(atoms))
    return float(np.linalg.norm(reduced, axis=1).min())
