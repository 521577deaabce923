"""The pair sum on a GPU, in Triton: place atoms and images, sum a tile of rows a program, add rows up by system.

Imported when a kernel first runs on a CUDA device, never before. `run` launches the three kernels on plain tensors;
op.py wraps it. Nothing here waits for the device.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

TILES = {"BLOCK_ROWS": 16, "BLOCK_NEIGHBORS": 8}
OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}
"""Fused multiply-adds are stated here, so that no environment variable decides on them."""
BLOCK = 256
ROWS_PER_SPLIT, MAX_SPLITS = 4096, 64
"""How the rows of one system are shared out when they are added up; part of the result's last bits."""

N_SUMS = 8
"""Rows of `sums`: shortest squared distance, energy, virial xx yy zz yz xz xy."""

_BLOCKS = tl.constexpr(16)
_RECORD = tl.constexpr(8)
_FAR = tl.constexpr(1e100)
_MAGIC = tl.constexpr(6755399441055744.0)
"""1.5 · 2⁵²: a sum with it is rounded to a whole number, which then stands in the low bits of its significand."""


@triton.jit(do_not_specialize=["n_extended", "n_systems", "n_species", "n_bits"])
def _pair_place_kernel(
    positions_ptr, cells_ptr, batch_ptr, species_ptr, owners_ptr, shifts_ptr, extended_ptr,
    n_extended: tl.int64, n_systems: tl.int64, n_species: tl.int64, n_bits: tl.int64,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """extended[e] = (positions[owner] + shift · cell, species); entry n_extended is far from everything."""
    entry = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = entry < n_extended
    atom = tl.load(owners_ptr + entry, mask=mask, other=0).to(tl.int64)
    # The last system that starts at or before the atom, by bisection.
    system = tl.zeros((BLOCK,), tl.int64)
    one = tl.full((BLOCK,), 1, tl.int64)
    for bit in range(n_bits):
        later = system + (one << (n_bits - 1 - bit))
        inside = later < n_systems
        start = tl.load(batch_ptr + later, mask=inside, other=0)
        system = tl.where(inside & (start <= atom), later, system)
    a = tl.load(shifts_ptr + 3 * entry, mask=mask, other=0).to(tl.float64)
    b = tl.load(shifts_ptr + 3 * entry + 1, mask=mask, other=0).to(tl.float64)
    c = tl.load(shifts_ptr + 3 * entry + 2, mask=mask, other=0).to(tl.float64)
    species = tl.load(species_ptr + atom, mask=mask, other=0)
    known = (species >= 0) & (species < n_species)
    cell_ptr = cells_ptr + 9 * system
    out_ptr = extended_ptr + 4 * entry
    for axis in tl.static_range(3):
        offset = a * tl.load(cell_ptr + axis, mask=mask, other=0.0)
        offset += b * tl.load(cell_ptr + 3 + axis, mask=mask, other=0.0)
        offset += c * tl.load(cell_ptr + 6 + axis, mask=mask, other=0.0)
        x = tl.load(positions_ptr + 3 * atom + axis, mask=mask, other=0.0) + offset
        # An element that the table lacks must not lead to a number that looks right.
        x = tl.where(known, x, float("nan"))
        tl.store(out_ptr + axis, tl.where(mask, x, _FAR), mask=entry <= n_extended)
    bits = tl.where(mask & known, species, 0).to(tl.int64).to(tl.float64, bitcast=True)
    tl.store(out_ptr + 3, bits, mask=entry <= n_extended)


@triton.jit
def _load_two(ptr):
    """ptr[0] and ptr[1] for every lane of a tile, in one access of 16 bytes."""
    return tl.split(tl.load(tl.expand_dims(ptr, 2) + tl.arange(0, 2)))


@triton.jit
def _low_word(x):
    return x.to(tl.int64, bitcast=True).to(tl.int32)


@triton.jit
def _pair_rows(
    extended_ptr, columns_ptr, rows_ptr, owners_ptr, weights_ptr, coefficients_ptr, blocks_ptr, pair_index_ptr,
    row, mask, width, n_extended, n_intervals, n_species, r_min, cutoff,
    ENERGY: tl.constexpr, VIRIAL: tl.constexpr, WEIGHTED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_NEIGHBORS: tl.constexpr,
):  # fmt: skip
    """Sums over the neighbours of a tile of rows: force (3), energy, virial (6), and the shortest squared distance."""
    n_neighbors = tl.load(rows_ptr + row + 1, mask=mask, other=0) - tl.load(rows_ptr + row, mask=mask, other=0)
    longest = tl.max(n_neighbors, axis=0)
    centre_ptr = extended_ptr + 4 * row
    cx = tl.load(centre_ptr, mask=mask, other=0.0)[None, :]
    cy = tl.load(centre_ptr + 1, mask=mask, other=0.0)[None, :]
    cz = tl.load(centre_ptr + 2, mask=mask, other=0.0)[None, :]
    kind_ptr = pair_index_ptr + (_low_word(tl.load(centre_ptr + 3, mask=mask, other=0.0)) * n_species)[None, :]
    own_weight = tl.zeros((1, BLOCK_ROWS), tl.float64)
    if WEIGHTED:
        own = tl.load(owners_ptr + row, mask=mask, other=0).to(tl.int64)
        own_weight = tl.load(weights_ptr + own, mask=mask, other=0.0)[None, :]

    per_angstrom = 16.0 / tl.full((), cutoff - r_min, tl.float64)
    zero = tl.zeros((BLOCK_NEIGHBORS, BLOCK_ROWS), tl.float64)
    fx, fy, fz, energy = zero, zero, zero, zero
    xx, yy, zz, yz, xz, xy = zero, zero, zero, zero, zero, zero
    closest = zero + cutoff * cutoff
    lane = tl.arange(0, BLOCK_NEIGHBORS).to(tl.int64)
    for first in range(0, longest, BLOCK_NEIGHBORS):
        slot = (first + lane)[:, None]
        # Past the end of its column a lane reads the far entry, as it does where the matrix itself is filled up.
        listed = (slot < longest) & mask[None, :]
        entry = tl.load(columns_ptr + slot * width + row[None, :], mask=listed, other=n_extended).to(tl.int64)
        x, y = _load_two(extended_ptr + 4 * entry)
        z, species = _load_two(extended_ptr + 4 * entry + 2)
        if WEIGHTED:
            owner = tl.load(owners_ptr + entry, mask=entry < n_extended, other=0).to(tl.int64)
            weight = 0.5 * (own_weight + tl.load(weights_ptr + owner))
        dx, dy, dz = x - cx, y - cy, z - cz
        r2 = dx * dx + dy * dy + dz * dz
        closest = tl.minimum(closest, r2)
        inverse_r = tl.rsqrt(r2)
        # Where in the table: block, then interval inside the block, by rounding x − ½ (conversions to integers are
        # slow). A whole x may go to the interval before, at t = 1, which is the same point. Clamped indices read
        # inside the table whatever the input, NaN included; below r_min the caller sees `closest`.
        u = tl.minimum(tl.maximum((r2 * inverse_r - r_min) * per_angstrom, 0.0), 16.0)
        block = (u - 0.5) + _MAGIC
        block_ptr = blocks_ptr + tl.minimum(tl.maximum(_low_word(block), 0), _BLOCKS - 1)
        intervals = tl.load(block_ptr + _BLOCKS)
        v = (u - (block - _MAGIC)) * intervals
        interval = tl.minimum(((v - 0.5) + _MAGIC) - _MAGIC, intervals - 1.0)
        t = v - interval
        index = tl.minimum(tl.maximum(_low_word(tl.load(block_ptr) + interval + _MAGIC), 0), n_intervals)
        index = tl.where(u < 16.0, index, n_intervals)  # at and beyond the cutoff: the record of zeros
        kind = tl.load(kind_ptr + _low_word(species)).to(tl.int64)
        record_ptr = coefficients_ptr + (kind * (n_intervals + 1) + index) * _RECORD
        d1, d2 = _load_two(record_ptr)
        d3, d4 = _load_two(record_ptr + 2)
        d5, c0 = _load_two(record_ptr + 4)
        slope = (d1 + t * (d2 + t * (d3 + t * (d4 + t * d5)))) * (intervals * per_angstrom * inverse_r)
        if WEIGHTED:
            slope *= weight
        if ENERGY:
            energy += c0 + t * (d1 + t * (d2 * (1 / 2) + t * (d3 * (1 / 3) + t * (d4 * (1 / 4) + t * (d5 * (1 / 5))))))
        gx, gy, gz = slope * dx, slope * dy, slope * dz
        fx += gx
        fy += gy
        fz += gz
        if VIRIAL:
            xx += gx * dx
            yy += gy * dy
            zz += gz * dz
            yz += gy * dz
            xz += gx * dz
            xy += gx * dy
    return (
        tl.sum(fx, 0), tl.sum(fy, 0), tl.sum(fz, 0), tl.sum(energy, 0), tl.sum(xx, 0), tl.sum(yy, 0), tl.sum(zz, 0),
        tl.sum(yz, 0), tl.sum(xz, 0), tl.sum(xy, 0), tl.min(closest, 0),
    )  # fmt: skip


@triton.jit
def _store_vectors(ptr, atom, x, y, z, mask):
    tl.store(ptr + 3 * atom, x, mask=mask)
    tl.store(ptr + 3 * atom + 1, y, mask=mask)
    tl.store(ptr + 3 * atom + 2, z, mask=mask)


@triton.jit
def _store_virials(sums_ptr, row, n_rows, factor, xx, yy, zz, yz, xz, xy, mask):
    tl.store(sums_ptr + 2 * n_rows + row, factor * xx, mask=mask)
    tl.store(sums_ptr + 3 * n_rows + row, factor * yy, mask=mask)
    tl.store(sums_ptr + 4 * n_rows + row, factor * zz, mask=mask)
    tl.store(sums_ptr + 5 * n_rows + row, factor * yz, mask=mask)
    tl.store(sums_ptr + 6 * n_rows + row, factor * xz, mask=mask)
    tl.store(sums_ptr + 7 * n_rows + row, factor * xy, mask=mask)


@triton.jit(do_not_specialize=["n_rows", "width", "n_extended", "n_intervals", "n_species", "r_min", "cutoff"])
def _pair_fwd_kernel(
    extended_ptr, columns_ptr, rows_ptr, owners_ptr, coefficients_ptr, blocks_ptr, pair_index_ptr,
    forces_ptr, per_atom_ptr, sums_ptr,
    n_rows: tl.int64, width: tl.int64, n_extended: tl.int64, n_intervals: tl.int32, n_species: tl.int32,
    r_min: tl.float64, cutoff: tl.float64,
    ENERGY: tl.constexpr, VIRIAL: tl.constexpr, PER_ATOM: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_NEIGHBORS: tl.constexpr,
):  # fmt: skip
    """Forces and energies of the rows' atoms; for every row its shortest squared distance, energy and virial."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    mask = row < n_rows
    fx, fy, fz, energy, xx, yy, zz, yz, xz, xy, closest = _pair_rows(
        extended_ptr, columns_ptr, rows_ptr, owners_ptr, extended_ptr, coefficients_ptr, blocks_ptr, pair_index_ptr,
        row, mask, width, n_extended, n_intervals, n_species, r_min, cutoff,
        ENERGY or PER_ATOM, VIRIAL, False, BLOCK_ROWS, BLOCK_NEIGHBORS,
    )  # fmt: skip
    atom = tl.load(owners_ptr + row, mask=mask, other=0).to(tl.int64)
    _store_vectors(forces_ptr, atom, fx, fy, fz, mask)
    if PER_ATOM:
        tl.store(per_atom_ptr + atom, 0.5 * energy, mask=mask)
    # A minimum passes over NaN; the difference is 0, or NaN where a sum is not finite.
    trace = fx + fy + fz
    tl.store(sums_ptr + row, closest + (trace - trace), mask=mask)
    if ENERGY:
        tl.store(sums_ptr + n_rows + row, 0.5 * energy, mask=mask)
    if VIRIAL:
        _store_virials(sums_ptr, row, n_rows, -0.5, xx, yy, zz, yz, xz, xy, mask)


@triton.jit(do_not_specialize=["n_rows", "width", "n_extended", "n_intervals", "n_species", "r_min", "cutoff"])
def _pair_bwd_kernel(
    extended_ptr, columns_ptr, rows_ptr, owners_ptr, weights_ptr, coefficients_ptr, blocks_ptr, pair_index_ptr,
    gradient_ptr, sums_ptr,
    n_rows: tl.int64, width: tl.int64, n_extended: tl.int64, n_intervals: tl.int32, n_species: tl.int32,
    r_min: tl.float64, cutoff: tl.float64,
    BLOCK_ROWS: tl.constexpr, BLOCK_NEIGHBORS: tl.constexpr,
):  # fmt: skip
    """Gradient of Σ w_i E_i with respect to the rows' atoms, and every row's part of the strain derivative."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    mask = row < n_rows
    fx, fy, fz, _, xx, yy, zz, yz, xz, xy, _ = _pair_rows(
        extended_ptr, columns_ptr, rows_ptr, owners_ptr, weights_ptr, coefficients_ptr, blocks_ptr, pair_index_ptr,
        row, mask, width, n_extended, n_intervals, n_species, r_min, cutoff,
        False, True, True, BLOCK_ROWS, BLOCK_NEIGHBORS,
    )  # fmt: skip
    atom = tl.load(owners_ptr + row, mask=mask, other=0).to(tl.int64)
    _store_vectors(gradient_ptr, atom, -fx, -fy, -fz, mask)
    _store_virials(sums_ptr, row, n_rows, 0.5, xx, yy, zz, yz, xz, xy, mask)


@triton.jit(do_not_specialize=["n_rows", "n_splits"], do_not_specialize_on_alignment=["sums_ptr"])
def _pair_sum_kernel(sums_ptr, batch_ptr, out_ptr, n_rows: tl.int64, n_splits: tl.int64, BLOCK: tl.constexpr):
    """out[q, s, p] = sum of quantity q over the p-th of n_splits parts of the rows of system s, in a fixed order."""
    system, part = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    quantity = tl.program_id(2).to(tl.int64)
    begin, end = tl.load(batch_ptr + system), tl.load(batch_ptr + system + 1)
    size = (end - begin + n_splits - 1) // n_splits
    begin = begin + part * size
    end = tl.minimum(end, begin + size)
    total = tl.zeros((BLOCK,), tl.float64)
    for start in range(begin, end, BLOCK):
        row = start + tl.arange(0, BLOCK)
        total += tl.load(sums_ptr + quantity * n_rows + row, mask=row < end, other=0.0)
    place = (quantity * tl.num_programs(0) + system) * n_splits + part
    tl.store(out_ptr + place, tl.sum(total, 0))


def sum_by_system(values: Tensor, batch_ptr: Tensor) -> Tensor:
    """Sum (n_quantities, n_atoms) over the atoms of every system, (n_quantities, n_systems), in a fixed order."""
    n_quantities, n_atoms = values.shape
    n_systems = batch_ptr.shape[0] - 1
    if n_quantities == 0 or n_atoms == 0 or n_systems == 0:
        return values.new_zeros((n_quantities, n_systems))
    n_splits = min(MAX_SPLITS, triton.cdiv(n_atoms, ROWS_PER_SPLIT * n_systems))
    parts = values.new_empty((n_quantities, n_systems, n_splits))
    with torch.cuda.device_of(values):
        _pair_sum_kernel[(n_systems, n_splits, n_quantities)](
            values, batch_ptr, parts, n_atoms, n_splits, BLOCK=BLOCK, **OPTIONS
        )
    return parts.sum(-1)


def run(
    positions: Tensor, cells: Tensor, species: Tensor, coefficients: Tensor, blocks: Tensor, pair_index: Tensor,
    r_min: float, cutoff: float, batch_ptr: Tensor, rows: Tensor, columns: Tensor, owners: Tensor, image_shifts: Tensor,
    *, weights: Tensor | None = None, energy: bool = False, virial: bool = False, per_atom: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Launch the kernels on the current stream; nothing waits for the device.

    Parameters
    ----------
    positions, cells : Tensor
        (n_atoms, 3) and (n_systems, 3, 3), float64, contiguous.
    species, coefficients, blocks, pair_index, r_min, cutoff
        Of a `PairTable`.
    batch_ptr, rows, owners, image_shifts : Tensor
        Of a `NeighborList`.
    columns : Tensor
        (max_neighbors, width ≥ n_atoms) int32: ``NeighborList.padded()``.
    weights : Tensor, optional
        (n_atoms,) float64. Then the derivatives of Σ_i w_i E_i come out, and no energies.
    energy, virial, per_atom : bool
        What to compute besides the forces; ignored with weights.

    Returns
    -------
    per_atom_energy, energy : Tensor
        (n_atoms,), (n_systems,); like the virials empty where not asked for.
    forces : Tensor
        (n_atoms, 3); with weights the gradient, which has the other sign.
    virials : Tensor
        (n_systems, 6) in the order xx yy zz yz xz xy; with weights the strain derivative, likewise.
    closest : Tensor
        0-d: the shortest distance, at most the cutoff; NaN where a force is not finite. With weights: the cutoff.

    Raises
    ------
    ValueError
        `columns` is not padded.
    """
    if columns.dim() != 2 or columns.shape[1] < positions.shape[0]:
        raise ValueError(f"`columns` must be NeighborList.padded() on a GPU, got shape {tuple(columns.shape)}")
    species, coefficients, blocks, pair_index, batch_ptr, rows, columns, owners, image_shifts = (
        x.contiguous()
        for x in (species, coefficients, blocks, pair_index, batch_ptr, rows, columns, owners, image_shifts)
    )
    weighted = weights is not None
    energy, virial, per_atom = energy and not weighted, virial or weighted, per_atom and not weighted
    n_rows, n_systems, n_extended = positions.shape[0], batch_ptr.shape[0] - 1, owners.shape[0]
    scalars = (n_rows, columns.shape[1], n_extended, coefficients.shape[1] - 1, pair_index.shape[0], r_min, cutoff)
    grid = (triton.cdiv(n_rows, TILES["BLOCK_ROWS"]),)
    extended = positions.new_empty((n_extended + 1, 4))
    vectors = positions.new_empty((n_rows, 3))
    atoms = positions.new_empty(n_rows if per_atom else 0)
    sums = positions.new_empty((N_SUMS, n_rows))
    if n_rows > 0:
        with torch.cuda.device_of(positions):
            _pair_place_kernel[(triton.cdiv(n_extended + 1, BLOCK),)](
                positions, cells, batch_ptr, species, owners, image_shifts, extended,
                n_extended, n_systems, pair_index.shape[0], (n_systems - 1).bit_length(), BLOCK=BLOCK, **OPTIONS,
            )  # fmt: skip
            if weighted:
                _pair_bwd_kernel[grid](
                    extended, columns, rows, owners, weights, coefficients, blocks, pair_index, vectors, sums, *scalars,
                    **TILES, **OPTIONS,
                )  # fmt: skip
            else:
                _pair_fwd_kernel[grid](
                    extended, columns, rows, owners, coefficients, blocks, pair_index, vectors, atoms, sums, *scalars,
                    ENERGY=energy, VIRIAL=virial, PER_ATOM=per_atom, **TILES, **OPTIONS,
                )  # fmt: skip
    begin, end = (1 if energy else 2), (N_SUMS if virial else 2)
    totals = sum_by_system(sums[begin:end], batch_ptr)
    energies = totals[0] if energy else totals.new_empty(0)
    virials = totals[-6:].t() if virial else totals.new_empty((0, 6))
    closest = positions.new_full((), cutoff) if weighted or n_rows == 0 else sums[0].amin().sqrt()
    return atoms, energies, vectors, virials, closest
