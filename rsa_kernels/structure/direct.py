"""Direct sums: chosen k-vectors, or all of a range, through the mode sums of `rsa_kernels.reciprocal`."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from .. import _checks, cells
from ..reciprocal import Modes, accumulate_modes
from ..reciprocal.modes import half_space
from . import lattice
from .bins import Shells, pairs_of, shell_of
from .result import StructureFactor

BYTES_PER_CANDIDATE = 80.0
"""Of the search for vectors, per triplet of the bounding box: integers, components, lengths and masks."""


def mode_products(
    positions: Tensor, cell: Tensor, codes: Tensor, n_species: int, miller: Tensor, mode_ptr: Tensor, batch_ptr: Tensor
) -> Tensor:
    """Re ρ_a(n) ρ_b(n)* of every pair a ≤ b, (n_pairs, n_modes) float64, twice differentiable."""
    modes = Modes(miller, torch.zeros(len(miller), dtype=torch.float64, device=miller.device), mode_ptr, math.inf)
    members = torch.nn.functional.one_hot(codes, n_species).to(torch.float64).unsqueeze(1)
    ones = torch.ones((len(codes), 1, 1), dtype=torch.float64, device=codes.device)
    states = accumulate_modes(ones, members, positions, cell, modes, batch_ptr, "spectral")
    cos, sin = states[:, :, 0, 0].unbind(0)
    return torch.stack([cos[:, a] * cos[:, b] + sin[:, a] * sin[:, b] for a, b in pairs_of(n_species)])


def bytes_needed(grams: Tensor, n_atoms: int, n_species: int, q_max: float, order: int) -> float:
    """Peak memory of `shell_sums`: the search among the triplets of a bounding box, then states and products.

    A graph (order > 0) keeps states and products, and makes as many again on the way back.
    """
    n_pairs, modes, search = n_species * (n_species + 1) // 2, 0.0, 0.0
    for gram in grams:
        first, second, third = lattice.extents(gram, q_max)
        search = max(search, BYTES_PER_CANDIDATE * float(first) * second * third)
        modes += 2.0 / 3.0 * math.pi * q_max**3 / math.sqrt(float(torch.linalg.det(gram)))
    per_mode = 80.0 + (24.0 * n_species + 16.0 * n_pairs) * (2 if order else 1)
    return max(search, per_mode * modes) + 44.0 * modes + n_atoms * 24.0 * (n_species + 4)


def shell_sums(
    positions: Tensor, cell: Tensor, codes: Tensor, batch_ptr: Tensor, grams: Tensor, n_species: int, shells: Shells
) -> tuple[Tensor, Tensor]:
    """Sums of products over all vectors of every bin, k and −k both, (n_systems, n_pairs, n_bins), and counts."""
    triplets, slots = [], []
    for one, gram in zip(cell.cpu(), grams, strict=True):
        found = half_space(one, shells.q_max * (1.0 + 1e-6))
        slot = shell_of(found, gram, shells.dq) - shells.first - 1
        inside = (slot >= 0) & (slot < shells.n_bins)
        triplets.append(found[inside])
        slots.append(slot[inside])
    n_systems = len(triplets)
    mode_ptr = torch.tensor([0, *itertools.accumulate(map(len, triplets))], device=positions.device)
    miller = torch.cat(triplets).to(positions.device)
    products = mode_products(positions, cell, codes, n_species, miller, mode_ptr, batch_ptr)
    flat = torch.cat([k * shells.n_bins + slot for k, slot in enumerate(slots)])
    size = n_systems * shells.n_bins
    sums = products.new_zeros(len(products), size).index_add(1, flat.to(positions.device), 2.0 * products)
    counts = 2 * torch.bincount(flat, minlength=size).view(n_systems, shells.n_bins)
    return sums.view(-1, n_systems, shells.n_bins).transpose(0, 1), counts


def structure_factor_at(
    positions: Tensor, cell: Tensor, species: Tensor, miller: Tensor, batch_ptr: Tensor | None = None
) -> StructureFactor:
    """Partial structure factors at chosen k-vectors, by direct sums.

    ::

        S_ab(k) = 1 + N Re ρ_a(k) ρ_b*(k) / (N_a N_b) − δ_ab N / N_a,    k = 2π n A⁻ᵀ,  ρ_a(k) = Σ_{j in a} exp(i k·r_j)

    ================  =======================================
    symbol            argument
    ================  =======================================
    r_j, rows of A    ``positions``, ``cell``
    a, b              ``species``
    n                 ``miller``
    ================  =======================================

    Parameters
    ----------
    positions : Tensor
        (n_atoms, 3) Å, float64 or float32.
    cell : Tensor
        (3, 3) or (n_systems, 3, 3) Å.
    species : Tensor
        (n_atoms,) integers.
    miller : Tensor
        (n_k, 3) integers, the same for every system of a batch; k is that of each system's own cell.
    batch_ptr : Tensor, optional
        (n_systems + 1,) int64. None: one system, and results without the batch axis.

    Returns
    -------
    StructureFactor
        With `q` the lengths |k| of the vectors given, in their order, (n_k,) [(n_systems, n_k)], and one vector per
        "bin".

    Raises
    ------
    ValueError, TypeError
        An argument is wrong, or a triplet is 0, 0, 0 or does not fit in 32 bits.
    rsa_kernels.errors.NonFiniteError
        A position or the cell is NaN or infinite.

    Notes
    -----
    First and second derivatives with respect to positions and cell (at fixed n, so that k follows the cell); the third
    raises. O(n_atoms n_k) time; temporary memory some 100 MB whatever the number of vectors, besides 16 bytes per
    vector and species. Two calls give the same bits.
    """
    from .op import faber_ziman, species_codes

    _checks.tensor("positions", positions, dtypes=(torch.float64, torch.float32))
    _checks.shape("positions", positions, "n_atoms", 3)
    device, n_atoms = positions.device, positions.shape[0]
    _checks.tensor("cell", cell, dtypes=(torch.float64, torch.float32), device=device)
    codes, labels = species_codes(species, n_atoms, device)
    _checks.tensor("miller", miller, dtypes=(torch.int64, torch.int32, torch.int16), device=device)
    _checks.shape("miller", miller, "n_k", 3)
    if bool((miller == 0).all(dim=1).any()):
        raise ValueError("`miller` must not hold the triplet 0, 0, 0: at k = 0 the sums count atoms")
    wide = miller.to(torch.int64)
    far = (wide >= 1 << 31) | (wide <= -(1 << 31))
    if bool(far.any()):
        raise ValueError(f"`miller` must hold integers that fit in 32 bits, got {int(wide[far][0])}")
    single = batch_ptr is None
    batch_ptr = _checks.batch(batch_ptr, n_atoms, device)
    n_systems, n_species, n_k = batch_ptr.numel() - 1, len(labels), miller.shape[0]
    batched, flags = cells.as_batch(cell.to(torch.float64), True, n_systems)
    cells.complete(batched.detach(), flags)
    mode_ptr = n_k * torch.arange(n_systems + 1, device=device)
    triplets = miller.to(torch.int32).repeat(n_systems, 1)
    products = mode_products(positions.to(torch.float64), batched, codes, n_species, triplets, mode_ptr, batch_ptr)
    products = products.view(products.shape[0], n_systems, n_k).transpose(0, 1)
    system = torch.repeat_interleave(torch.arange(n_systems, device=device), batch_ptr.diff())
    sizes = torch.bincount(system * n_species + codes, minlength=n_systems * n_species)
    sizes = sizes.view(n_systems, n_species).to(torch.float64)
    everywhere = torch.ones_like(products, dtype=torch.bool)
    partials = faber_ziman(products, everywhere, sizes)[0].to(positions.dtype)
    k = 2.0 * math.pi * (miller.to(torch.float64) @ cells.inverse(batched).transpose(1, 2)).norm(dim=2)
    ones = torch.ones((n_systems, n_k), dtype=torch.int64, device=device)
    shortest = k.detach().amin(dim=1) if n_k else k.new_full((n_systems,), math.nan)
    fractions = sizes / sizes.sum(dim=1, keepdim=True)

    def outward(x):
        return x[0] if single else x

    return StructureFactor(
        q=outward(k),
        species=labels,
        pairs=[(labels[a], labels[b]) for a, b in pairs_of(n_species)],
        partials=outward(partials),
        counts=outward(ones),
        available=outward(ones),
        errors=None,
        method="direct",
        reason="chosen vectors",
        q_min=float(shortest[0]) if single else shortest,
        fractions=outward(fractions),
    )
