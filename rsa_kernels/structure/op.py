"""The public structure factor: checks, the choice of a route, and partials from shell sums."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _checks, cells
from ..errors import CapacityError, NonFiniteError
from . import direct, lattice, sampling
from .bins import Shells, pairs_of
from .result import StructureFactor
from .sums import structure_scatter, structure_sums

METHODS = ("auto", "grid", "direct", "sampled")
FEW_TERMS = 2e6
"""Atoms times vectors up to which "auto" sums directly: a few milliseconds, and exact."""
MAX_VECTORS = 150_000_000
MAX_BINS = 500_000_000
"""Bins are numbered in 32 bits, and lengths beyond 1e9 bins share one number."""
GIBIBYTE = 2.0**30


class _Batch(NamedTuple):
    """Checked inputs: coordinates on the reduced cells, species as 0, 1, …, and sizes."""

    positions: Tensor
    cells: Tensor
    fractional: Tensor
    codes: Tensor
    batch_ptr: Tensor
    grams: Tensor
    labels: tuple[int, ...]
    sizes: Tensor
    offsets: list[int]

    @property
    def n_systems(self) -> int:
        return len(self.offsets) - 1

    @property
    def n_atoms(self) -> int:
        """Atoms of the largest system."""
        return max(high - low for low, high in itertools.pairwise(self.offsets))


def structure_factor(
    positions: Tensor,
    cell: Tensor,
    species: Tensor,
    q_max: float,
    dq: float,
    method: str = "auto",
    batch_ptr: Tensor | None = None,
    *,
    tolerance: float = 1e-7,
    max_memory: float = 4.0,
    seed: int = 0,
    per_shell: int = 20000,
    max_vectors: int = MAX_VECTORS,
) -> StructureFactor:
    """Partial structure factors S_ab(Q) of periodic systems.

    ::

        ρ_a(k)  = Σ_{j in a} exp(i k·r_j),       k = 2π n A⁻ᵀ,  n integer, k ≠ 0
        S_ab(Q) = 1 + N ⟨Re ρ_a(k) ρ_b*(k)⟩ / (N_a N_b) − δ_ab N / N_a

    ⟨⟩ is the mean over the k-vectors with Q − dq/2 ≤ |k| < Q + dq/2: over all of them (`grid`, `direct`) or over a
    reproducible part (`sampled`).

    =================  ==========================================
    symbol             argument
    =================  ==========================================
    r_j, rows of A     ``positions``, ``cell``
    a, b; N, N_a       ``species``; numbers of atoms
    Q, dq              ``StructureFactor.q``, ``dq``
    =================  ==========================================

    Parameters
    ----------
    positions : Tensor
        (n_atoms, 3) Å, float64 or float32, wrapped or not; sums are done in float64.
    cell : Tensor
        (3, 3) or (n_systems, 3, 3) Å, rows a, b, c, of any shape; periodic in all directions.
    species : Tensor
        (n_atoms,) integers: atomic numbers, or any labels.
    q_max, dq : float
        Centre of the last bin and width of the bins, Å⁻¹.
    method : {"auto", "grid", "direct", "sampled"}
        All k-vectors by non-uniform FFT (finufft, cufinufft); all by direct sums (`rsa_kernels.accumulate_modes`); a
        part with error bars; or a choice by numbers of vectors, which `StructureFactor.reason` states: direct sums up
        to 2 million terms, else all vectors up to `max_vectors`, and a sample beyond. `max_memory` has no part in it.
    batch_ptr : Tensor, optional
        (n_systems + 1,) int64 offsets of systems in the atoms. None: one system, and results without the batch axis.
    tolerance : float
        Relative error of the mode amplitudes ρ_a (root mean square) that the non-uniform FFT is asked for.
    max_memory : float
        GiB for temporary arrays: boxes of modes are cut to fit; direct sums, which hold all vectors at once, are
        refused where they do not.
    seed : int
        Of the sample; see Notes.
    per_shell : int
        k-vectors (k and −k both) that a sampled bin gets at least, where it has as many.
    max_vectors : int
        k-vectors of the half space up to which "auto" sums all.

    Returns
    -------
    StructureFactor

    Raises
    ------
    ValueError, TypeError
        An argument is wrong, or `cell` requires a gradient: bins are not continuous in the cell.
    rsa_kernels.errors.NonFiniteError
        A position or the cell is NaN or infinite.
    rsa_kernels.errors.CapacityError
        `max_memory` does not hold the smallest box of modes beside the atoms, the sums of all bins (`dq`), or what
        direct sums need; or the machine has less.
    rsa_kernels.errors.BackendUnavailableError
        finufft or cufinufft is not installed.

    Notes
    -----
    `partials` has first and second derivatives with respect to the positions; the third raises.

    There are M = V q_max³ / 12π² vectors in the half space. The grid costs O(M log M) per species and one spreading of
    the atoms per box of modes; direct sums O(N M). A sample takes boxes of modes in an order drawn by Philox from
    `seed` until every shell holds `per_shell` vectors; it is the same on every machine. Errors are the standard error
    of the vectors' spread, which takes them for independent: true of a glass or liquid, not of a crystal.

    Shell sums are added in an order that does not depend on threads; finufft's are reproducible to about 1e-15.

    References
    ----------
    T. E. Faber and J. M. Ziman, Philos. Mag. 11 (1965) 153.
    N. W. Ashcroft and D. C. Langreth, Phys. Rev. 156 (1967) 685.
    A. H. Barnett, J. Magland and L. af Klinteberg, SIAM J. Sci. Comput. 41 (2019) C479 (finufft).

    Examples
    --------
    >>> import torch, rsa_kernels as rk
    >>> positions, cell = 9.0 * torch.rand(24, 3, dtype=torch.float64), 9.0 * torch.eye(3, dtype=torch.float64)
    >>> sq = rk.structure_factor(positions, cell, torch.tensor([14, 8, 8] * 8), q_max=6.0, dq=0.2)
    >>> sq.pairs
    [(8, 8), (8, 14), (14, 14)]
    """
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {', '.join(METHODS)}, got {method!r}")
    q_max, dq = _checks.positive("q_max", q_max, "1/Å"), _checks.positive("dq", dq, "1/Å")
    if dq > q_max:
        raise ValueError(f"`dq` must be at most `q_max` = {q_max} 1/Å, got {dq}")
    tolerance = _checks.positive("tolerance", tolerance)
    if tolerance >= 0.1:
        raise ValueError(f"`tolerance` must be below 0.1, got {tolerance}")
    memory = GIBIBYTE * _checks.positive("max_memory", max_memory, "GiB")
    per_shell, max_vectors = _whole("per_shell", per_shell), _whole("max_vectors", max_vectors)
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise TypeError(f"`seed` must be an integer, got {seed!r}")
    if not -(1 << 63) <= seed < 1 << 64:
        raise ValueError(f"`seed` must fit in 64 bits, got {seed}")
    if isinstance(cell, Tensor) and cell.requires_grad:
        raise ValueError(
            "`cell` must not require a gradient: vectors enter and leave bins as the cell changes, so the bins are not "
            "continuous in it; use structure_factor_at for chosen vectors, or detach the cell"
        )
    batch = _batch(positions, cell, species, batch_ptr)
    shells = Shells(dq, 0, int(min(q_max / dq, 1e15) + 1e-9))
    _check_bins(shells.n_bins, batch.n_systems, len(batch.labels), memory)
    plan = _Plan.of(method, batch, shells, per_shell, max_vectors)
    parts = [_run(route, batch, bins_, tolerance, memory, seed, per_shell) for route, bins_ in plan.parts]

    sums = torch.cat([part.sums for part in parts], dim=-1)
    counts, available = (torch.cat([getattr(p, name) for p in parts], dim=-1) for name in ("counts", "available"))
    device = positions.device
    counts, available = counts.to(device), available.to(device)
    partials, scale = faber_ziman(sums / counts.clamp_min(1).unsqueeze(1), counts.unsqueeze(1) > 0, batch.sizes)
    errors = None
    if any(part.squares is not None for part in parts):
        squares = torch.cat([torch.zeros_like(p.sums) if p.squares is None else p.squares for p in parts], dim=-1)
        errors = scale * _standard_error(sums.detach(), squares, counts.unsqueeze(1), available.unsqueeze(1))
    q_min = torch.tensor([lattice.shortest_k(one) for one in batch.cells.cpu()], dtype=torch.float64, device=device)
    fractions = batch.sizes / batch.sizes.sum(dim=1, keepdim=True)
    dtype = positions.dtype
    single = batch_ptr is None

    def outward(x):
        return x if x is None or not single else x[0]

    return StructureFactor(
        q=dq * torch.arange(1, shells.n_bins + 1, dtype=torch.float64, device=device),
        species=batch.labels,
        pairs=[(batch.labels[a], batch.labels[b]) for a, b in pairs_of(len(batch.labels))],
        partials=outward(partials.to(dtype)),
        counts=outward(counts),
        available=outward(available),
        errors=None if errors is None else outward(errors.to(dtype)),
        method="+".join(route for route, _ in plan.parts),
        reason=plan.reason,
        q_min=float(q_min[0]) if single else q_min,
        fractions=outward(fractions),
        boxes=torch.cat([part.boxes for part in parts]),
    )


class _Part(NamedTuple):
    """Sums of a range of bins, (n_systems, n_pairs, n_bins), and counts (n_systems, n_bins) on the host."""

    sums: Tensor
    squares: Tensor | None
    counts: Tensor
    available: Tensor
    boxes: Tensor


class _Plan(NamedTuple):
    """Which route sums which bins, and why."""

    parts: list[tuple[str, Shells]]
    reason: str

    @classmethod
    def of(cls, method: str, batch: _Batch, shells: Shells, per_shell: int, max_vectors: int) -> _Plan:
        if method != "auto":
            return cls([(method, shells)], "as asked for")
        vectors = [lattice.n_half_space(one, shells.q_max) for one in batch.cells.cpu()]
        sizes = [high - low for low, high in itertools.pairwise(batch.offsets)]
        terms, total = sum(n * m for n, m in zip(sizes, vectors, strict=True)), sum(vectors)
        if terms <= FEW_TERMS:
            return cls([("direct", shells)], f"{terms:.2g} terms, at most {FEW_TERMS:.2g}: direct sums")
        if total <= max_vectors:
            return cls([("grid", shells)], f"all {total:.3g} k-vectors of the half space, at most {max_vectors:.3g}")
        reach = shells.q_max * (max_vectors / total) ** (1.0 / 3.0)
        exact = int(max(reach / shells.dq - 0.5, 0.0))
        beyond = Shells(shells.dq, exact, shells.n_bins - exact)
        cost = f"{total:.3g} k-vectors of the half space, more than {max_vectors:.3g}"
        if exact == 0:
            return cls([("sampled", beyond)], f"{cost}: at least {per_shell} per bin")
        below = Shells(shells.dq, 0, exact)
        return cls(
            [("grid", below), ("sampled", beyond)],
            f"{cost}: all up to {exact * shells.dq:g} 1/Å, at least {per_shell} per bin beyond",
        )


def _run(route: str, batch: _Batch, shells: Shells, tolerance, memory: float, seed: int, per_shell: int) -> _Part:
    n_species, graph = len(batch.labels), torch.is_grad_enabled() and batch.positions.requires_grad
    if route == "direct":
        wanted = direct.bytes_needed(batch.grams, len(batch.codes), n_species, shells.q_max, 2 if graph else 0)
        if wanted > memory:
            raise CapacityError(
                f"direct sums up to {shells.q_max:.4g} 1/Å need {wanted / GIBIBYTE:.2g} GiB for their vectors, "
                f"`max_memory` is {memory / GIBIBYTE:.3g} GiB; use the method 'grid', which works in boxes, or a "
                "larger `max_memory`"
            )
        sums, counts = direct.shell_sums(
            batch.positions, batch.cells, batch.codes, batch.batch_ptr, batch.grams, n_species, shells
        )
        return _Part(sums, None, counts, counts, torch.zeros((0, 9), dtype=torch.int64))
    device = batch.positions.device.type
    capacity = sampling.largest_box(batch.n_atoms, n_species, 2 if graph else 0, memory, tolerance, device)
    if capacity < sampling.SMALLEST:
        raise CapacityError(
            f"`max_memory` of {memory / GIBIBYTE:.3g} GiB does not hold a box of modes beside {batch.n_atoms} atoms; "
            f"{(sampling.BYTES_PER_POINT * batch.n_atoms + 1e8) / GIBIBYTE:.2g} GiB would"
        )
    rows, counts, available = [], [], []
    for system, gram in enumerate(batch.grams):
        n_atoms = batch.offsets[system + 1] - batch.offsets[system]
        if route == "grid":
            chosen = sampling.cover(gram, shells, n_atoms, n_species, capacity)
            there = taken = sampling.all_counts(gram, shells)
        else:
            edge = sampling.brick(n_atoms, capacity)
            chosen, taken, there = sampling.draw(gram, shells, edge, per_shell, seed)
        rows += [(system, *box) for box in chosen]
        counts.append(taken)
        available.append(there)
    boxes = torch.tensor(rows, dtype=torch.int64).reshape(-1, 7)
    bins_of_boxes = torch.tensor([shells.first + 1, shells.first + shells.n_bins]).expand(len(boxes), 2)
    arguments = (batch.fractional, batch.codes, batch.batch_ptr, batch.grams, boxes)
    settings = (n_species, shells.dq, shells.first, shells.n_bins, tolerance)
    squares = None
    if route == "sampled":
        with torch.no_grad():
            sums, squares = structure_scatter(*arguments, *settings)
    if route == "grid" or graph:
        sums = structure_sums(*arguments, *settings)
    return _Part(sums, squares, torch.stack(counts), torch.stack(available), torch.cat([boxes, bins_of_boxes], dim=1))


def _check_bins(n_bins: int, n_systems: int, n_species: int, memory: float) -> None:
    """Refuse shells whose own sums do not fit: sums and squares of every pair, and copies for a box and for a plane."""
    wanted = 8.0 * n_bins * (n_systems * (3 * n_species * (n_species + 1) + 4) + 3 * n_species * (n_species + 1))
    if wanted > memory or n_bins > MAX_BINS:
        raise CapacityError(
            f"sums in {n_bins:.3g} bins need {wanted / GIBIBYTE:.2g} GiB, `max_memory` is {memory / GIBIBYTE:.3g} GiB "
            f"and {MAX_BINS:.0e} bins the most; use a larger `dq`, or a larger `max_memory`"
        )


def _batch(positions, cell, species, batch_ptr) -> _Batch:
    _checks.tensor("positions", positions, dtypes=(torch.float64, torch.float32))
    _checks.shape("positions", positions, "n_atoms", 3)
    device, n_atoms = positions.device, positions.shape[0]
    _checks.tensor("cell", cell, dtypes=(torch.float64, torch.float32), device=device)
    codes, labels = species_codes(species, n_atoms, device)
    batch_ptr = _checks.batch(batch_ptr, n_atoms, device)
    n_systems = batch_ptr.numel() - 1
    batched, flags = cells.as_batch(cell.detach(), True, n_systems)
    given = cells.complete(batched.to(torch.float64), flags)
    short = torch.stack([lattice.reduced(one) for one in given])
    offsets = batch_ptr.tolist()
    inverse = torch.linalg.inv(short).to(device)
    atom = torch.repeat_interleave(torch.arange(n_systems, device=device), batch_ptr.diff())
    wide = positions.to(torch.float64)
    fractional = wide @ inverse[0] if n_systems == 1 else (wide.unsqueeze(1) @ inverse[atom]).squeeze(1)
    if not bool(torch.isfinite(fractional.detach()).all()):
        raise NonFiniteError("`positions` holds NaN or infinite values")
    sizes = torch.bincount(atom * len(labels) + codes, minlength=n_systems * len(labels))
    return _Batch(
        positions,
        short.to(device),
        fractional,
        codes,
        batch_ptr,
        torch.stack([lattice.metric(one) for one in short]),
        labels,
        sizes.view(n_systems, len(labels)).to(torch.float64),
        offsets,
    )


def species_codes(species: Tensor, n_atoms: int, device: torch.device) -> tuple[Tensor, tuple[int, ...]]:
    """Labels as 0, 1, … in ascending order, (n_atoms,) int64, and the labels that occur."""
    _checks.tensor("species", species, device=device)
    if species.dtype.is_floating_point or species.dtype.is_complex or species.dtype == torch.bool:
        raise TypeError(f"`species` must hold integers, got {species.dtype}")
    _checks.shape("species", species, n_atoms)
    labels, codes = torch.unique(species.to(torch.int64), return_inverse=True)
    if labels.numel() == 0:
        raise ValueError("`positions` must hold at least one atom, got none")
    return codes, tuple(labels.tolist())


def faber_ziman(products: Tensor, known: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """S_ab = 1 + N/(N_a N_b) ⟨Re ρ_a ρ_b*⟩ − δ_ab N/N_a from the means (n_systems, n_pairs, n_bins), and N/(N_a N_b).

    NaN where nothing is known, or a system lacks a species: put in last, so that it stays out of gradients.
    """
    total, pairs = sizes.sum(dim=1), pairs_of(sizes.shape[1])
    both = torch.stack([sizes[:, a] * sizes[:, b] for a, b in pairs], dim=1)
    alike = torch.tensor([[a == b for a, b in pairs]], device=sizes.device)
    scale = total.unsqueeze(1) / both
    own = torch.where(alike, scale * both.sqrt(), 0.0)
    there = (both > 0).unsqueeze(2)
    safe, own = (torch.where(there, x.unsqueeze(2), 0.0) for x in (scale, own))
    return torch.where(known & there, 1.0 + safe * products - own, torch.nan), torch.where(there, safe, torch.nan)


def _standard_error(sums: Tensor, squares: Tensor, counts: Tensor, available: Tensor) -> Tensor:
    """Standard error of the mean of Re ρ_a ρ_b* in every bin; k and −k are one observation.

    A sample of n of m equal the mean over all m with variance s²/n · (1 − n/m).
    """
    mean = sums / counts
    spread = (squares / counts - mean.square()).clamp_min(0.0)
    independent = counts / 2.0
    error = (spread / (independent - 1.0) * (1.0 - counts / available)).sqrt()
    return torch.where(counts == available, torch.where(counts > 0, 0.0, torch.nan), error)


def _whole(name: str, value: int) -> int:
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole or value < 1:
        raise ValueError(f"`{name}` must be a positive whole number, got {value!r}")
    return int(value)
