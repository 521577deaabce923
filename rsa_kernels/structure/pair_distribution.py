"""Partial pair distribution functions g_ab(r): distances counted as they are met, never listed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _checks, _cuda, _native, cells
from .._library import Kernel, define_op
from ..errors import CapacityError, NonFiniteError
from ..neighbors import neighbor_list
from . import lattice
from .bins import EDGE, pairs_of
from .op import species_codes

CHUNK = 1 << 23
"""Pairs whose distances the torch kernel holds at a time, some 0.6 GB."""
_pairs = _native.bind("rk_structure_pairs", "ppipifiip")


@dataclass(frozen=True)
class PairDistribution:
    """Partial g(r) of one system, or of a batch.

    Attributes
    ----------
    r : Tensor
        (n_bins,) bin centres dr/2, 3 dr/2, …, Å.
    dr : float
        Bin width, Å.
    species : tuple of int
        Labels that occur, ascending.
    pairs : list of (int, int)
        Unordered pairs of labels, in the order of `partials`.
    partials : Tensor
        (n_pairs, n_bins) [(n_systems, n_pairs, n_bins)] float64, g_ab(r) → 1; NaN for a species that a system lacks.
    counts : Tensor
        The same shape, int64: ordered pairs (an atom of a, an atom of b or an image of one) in each bin.
    sizes : Tensor
        (n_species,) [(n_systems, n_species)] int64, atoms of each species.
    density : float or Tensor
        N / V, Å⁻³; (n_systems,) of a batch.
    """

    r: Tensor
    dr: float
    species: tuple[int, ...]
    pairs: list[tuple[int, int]]
    partials: Tensor
    counts: Tensor
    sizes: Tensor
    density: float | Tensor

    def __getitem__(self, pair: tuple[int, int]) -> Tensor:
        """g_ab(r) of a pair of labels in either order, (n_bins,) [(n_systems, n_bins)]."""
        a, b = sorted(pair)
        if (a, b) not in self.pairs:
            raise KeyError(f"no pair {pair}; there are {self.pairs}")
        return self.partials[..., self.pairs.index((a, b)), :]


def pair_distribution(
    positions: Tensor, cell: Tensor, species: Tensor, r_max: float, dr: float, batch_ptr: Tensor | None = None
) -> PairDistribution:
    """Partial pair distribution functions from all pairs, periodic images included.

    ::

        g_ab(r) = V n_ab(r) / (N_a N_b 4π/3 [(r + dr/2)³ − (r − dr/2)³])

    n_ab(r) counts ordered pairs (an atom of a; an atom of b or an image of one) with r − dr/2 ≤ distance < r + dr/2
    (distances within 1e-9 dr below an edge count as on it), so that ρ_b ∫ 4πr² g_ab dr over whole bins is the mean
    number of b atoms around an a atom, exactly.

    ================  =======================================
    symbol            argument
    ================  =======================================
    r_j, rows of A    ``positions``, ``cell``; V = |det A|
    a, b              ``species``
    r, dr             ``PairDistribution.r``, ``dr``
    ================  =======================================

    Parameters
    ----------
    positions : Tensor
        (n_atoms, 3) Å, float64 or float32, wrapped or not; distances are computed in float64.
    cell : Tensor
        (3, 3) or (n_systems, 3, 3) Å, rows a, b, c; periodic in all directions.
    species : Tensor
        (n_atoms,) integers: atomic numbers, or any labels.
    r_max, dr : float
        Range and bin width, Å; the range ends with the last whole bin. It may exceed the cell: a pair then counts once
        for every image.
    batch_ptr : Tensor, optional
        (n_systems + 1,) int64 offsets of systems in the atoms. None: one system, and results without the batch axis.

    Returns
    -------
    PairDistribution

    Raises
    ------
    ValueError, TypeError
        An argument is wrong, or `positions` requires a gradient, which counts do not have.
    rsa_kernels.errors.NonFiniteError
        A position or the cell is NaN or infinite.
    rsa_kernels.errors.CapacityError
        More bins of distance than memory.

    Notes
    -----
    O(N ρ r_max³) time. On a CPU about 60 bytes an atom and no pair in memory; a GPU goes through its neighbour list in
    pieces (4 bytes a pair; not yet run on a GPU). Counts are exact and do not depend on threads.
    """
    _checks.tensor("positions", positions, dtypes=(torch.float64, torch.float32))
    _checks.shape("positions", positions, "n_atoms", 3)
    device, n_atoms = positions.device, positions.shape[0]
    _checks.tensor("cell", cell, dtypes=(torch.float64, torch.float32), device=device)
    if positions.requires_grad or cell.requires_grad:
        raise ValueError("`positions` and `cell` must not require gradients: counts have none; detach them")
    codes, labels = species_codes(species, n_atoms, device)
    r_max, dr = _checks.positive("r_max", r_max, "Å"), _checks.positive("dr", dr, "Å")
    if dr > r_max * (1.0 + 1e-9):
        raise ValueError(f"`dr` must be at most `r_max` = {r_max} Å, got {dr}")
    n_bins = int(r_max / dr + 1e-9)
    single = batch_ptr is None
    batch_ptr = _checks.batch(batch_ptr, n_atoms, device)
    n_systems, n_species = batch_ptr.numel() - 1, len(labels)
    batched, flags = cells.as_batch(cell, True, n_systems)
    given = cells.complete(batched.to(torch.float64), flags)
    if not bool(torch.isfinite(positions).all()):
        raise NonFiniteError("`positions` holds NaN or infinite values")
    ordered = structure_pair_counts(positions, given.contiguous(), codes, batch_ptr, n_species, dr, n_bins)

    atom = torch.repeat_interleave(torch.arange(n_systems, device=device), batch_ptr.diff())
    sizes = torch.bincount(atom * n_species + codes, minlength=n_systems * n_species).view(n_systems, n_species)
    edges = torch.arange(n_bins + 1, dtype=torch.float64, device=device) * dr
    shells = 4.0 / 3.0 * math.pi * (edges**3).diff()
    counts = torch.stack([ordered[:, a, b] for a, b in pairs_of(n_species)], dim=1)
    products = torch.stack([sizes[:, a] * sizes[:, b] for a, b in pairs_of(n_species)], dim=1).unsqueeze(2)
    volumes = cells.volume(given).view(-1, 1, 1)
    partials = volumes * counts / (products.to(torch.float64) * shells)
    density = batch_ptr.diff() / volumes.flatten()

    def outward(x):
        return x[0] if single else x

    return PairDistribution(
        r=edges[:-1] + 0.5 * dr,
        dr=dr,
        species=labels,
        pairs=[(labels[a], labels[b]) for a, b in pairs_of(n_species)],
        partials=outward(partials),
        counts=outward(counts),
        sizes=outward(sizes),
        density=float(density[0]) if single else density,
    )


def _count_cpu(positions, cells_, codes, batch_ptr, n_species, dr, n_bins) -> Tensor:
    n_systems, threads = cells_.shape[0], torch.get_num_threads()
    out = torch.zeros((n_systems, n_species, n_species, n_bins), dtype=torch.int64)
    for system, (low, high) in enumerate(_checks.offsets("batch_ptr", batch_ptr, positions.shape[0], "atoms")):
        if low == high:
            continue
        short = lattice.reduced(cells_[system])
        turns = positions[low:high].to(torch.float64) @ torch.linalg.inv(short)
        turns = (turns - turns.floor()).contiguous()
        kept = codes[low:high].contiguous()
        status = _pairs(
            turns.data_ptr(),
            kept.data_ptr(),
            high - low,
            short.data_ptr(),
            n_species,
            dr,
            n_bins,
            threads,
            out[system].data_ptr(),
        )
        if status != 0:
            raise CapacityError(
                f"not enough memory for histograms of {n_bins} bins and {n_species} species; use a larger `dr`"
            )
    return out


def _count_torch(positions, cells_, codes, batch_ptr, n_species, dr, n_bins) -> Tensor:
    """The same through the rows of the neighbour list, on any device, in pieces of `CHUNK` pairs."""
    n_systems, device = cells_.shape[0], positions.device
    out = torch.zeros(n_systems * n_species**2 * n_bins, dtype=torch.int64, device=device)
    positions = positions.to(torch.float64)
    nl = neighbor_list(positions, cells_, True, n_bins * dr, batch_ptr)
    owners = nl.owners.to(torch.int64)
    system = torch.bucketize(owners, batch_ptr[1:], right=True)
    offsets = (nl.image_shifts.to(torch.float64).unsqueeze(1) @ cells_[system]).squeeze(1)
    extended = positions[owners] + offsets
    channel = system * n_species + codes[owners]
    begin = 0
    while begin < nl.n_atoms:
        end = max(int(torch.searchsorted(nl.rows, nl.rows[begin] + CHUNK, right=True)) - 1, begin + 1)
        row = torch.repeat_interleave(torch.arange(begin, end, device=device), nl.rows[begin : end + 1].diff())
        entry = nl.columns[nl.rows[begin] : nl.rows[end]].to(torch.int64)
        r = (extended[entry] - extended[row]).norm(dim=1)
        bins = (r / dr + EDGE).to(torch.int64)
        flat = (channel[row] * n_species + codes[owners[entry]]) * n_bins + bins
        out += torch.bincount(flat[bins < n_bins], minlength=out.numel())
        begin = end
    return out.view(n_systems, n_species, n_species, n_bins)


structure_pair_counts = define_op(
    "structure_pair_counts(Tensor positions, Tensor cells, Tensor codes, Tensor batch_ptr, int n_species, float dr,"
    " int n_bins) -> Tensor",
    kernels={
        "cpu": Kernel(_count_cpu, "C++ threads and SIMD", _native.load_error),
        "cuda": Kernel(_count_torch, "neighbour list and torch", _cuda.missing),
    },
    fake=lambda positions, cells_, codes, batch_ptr, n_species, dr, n_bins: positions.new_empty(
        (cells_.shape[0], n_species, n_species, n_bins), dtype=torch.int64
    ),
)
