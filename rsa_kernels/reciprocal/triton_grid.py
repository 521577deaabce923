"""Spreading to a periodic mesh and interpolating from it on a GPU, in Triton.

Imported when a kernel first runs on a CUDA device, never before.

An atom at f touches `order` mesh points an axis, with weights that are polynomials of its place between mesh points
(`grid_window.pieces`; a derivative of the window by f is another table). The weights are evaluated once a call, in
float64, and kept in the dtype of the channels: 3 · order numbers an atom.

Spreading is a sum in a fixed order, without atomics: a program owns a brick of 8³ mesh points for BLOCK_C channels and
takes all atoms of the bricks whose atoms reach it, as the matrix product W x with W (512 points, 16 atoms) the outer
product of the weights along the axes. Most of W is zero: of 16³ multiply-adds an atom and channel (24³ above order 9)
order³ count. In return every mesh point is written once and x is read from cache: 4 · 512 bytes a channel go out for
512 · 16 multiply-adds or more. Per block of 16 atoms 512 · 16 · BLOCK_C multiply-adds stand against 384 loads of
weights and 2 · 512 · 16 products.

Interpolation reads order³ points an atom and channel, in runs of order along z, and makes order² · 2^k multiply-adds
(2^k ≥ order), three times as many with the pull. Atoms are taken in the order of their bricks, so that neighbours find
each other's points in the cache; what it reads there, 4 or 8 bytes a multiply-add, is its limit.

Tiles: 512 × 32 sums (16 in float64) are 64 registers of 8 warps; W passes through 32 (64) KiB of shared memory.
Interpolation keeps 128 atoms and channels, 8 or 16 points of each, in 4 registers a sum. Registers and shared memory:
profiling/results/triton_resources.csv.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from .grid_window import LANES, pieces

BRICK = 8
SITES = 128
OPTIONS = {"num_warps": 8, "num_stages": 1, "enable_fp_fusion": True, "maxnreg": 255}
"""Fused multiply-adds are stated here, so that no environment variable decides on them; so are all the registers there
are, or the assembler would rather spill a few to fit two programs on a multiprocessor."""
N_PROGRAMS = 512
"""Few tiles of atoms are shared out over channels until there are so many programs."""


def spread_tile(dtype: torch.dtype, n_channels: int) -> dict[str, int]:
    """Atoms a step and channels of a brick."""
    return {"BLOCK_A": 16, "BLOCK_C": 32 if dtype == torch.float32 and n_channels > 16 else 16}


def interpolate_tile(order: int) -> dict[str, int]:
    """Atoms × channels × points along z."""
    return {"BLOCK_A": 32 if order <= 8 else 16, "BLOCK_C": 4, "BLOCK_Z": 8 if order <= 8 else 16}


@triton.jit(do_not_specialize=["n_atoms", "order", "degree", "gx", "gy", "gz"])
def _grid_sites_kernel(
    fractional_ptr, tables_ptr, first_ptr, weights_ptr, n_atoms: tl.int64, order: tl.int32, degree: tl.int32,
    gx: tl.int32, gy: tl.int32, gz: tl.int32,
    BLOCK: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """first[j, axis]: the lowest mesh point touched; weights[j, axis, l]: of the l-th from there."""
    atom = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = atom < n_atoms
    lane = tl.arange(0, LANES)[None, :]
    for axis in tl.static_range(3):
        size = gx if axis == 0 else gy if axis == 1 else gz
        f = tl.load(fractional_ptr + 3 * atom + axis, mask=mask, other=0.0)
        u = (f - tl.floor(f)) * size.to(tl.float64) + 0.5 * order.to(tl.float64)
        whole = tl.floor(u)
        s = ((u - whole) - 0.5)[:, None]
        # From −order / 2 to the size of the mesh and beyond; taken modulo it where both signs may come.
        first = (whole.to(tl.int32) - order + 1) % size
        tl.store(first_ptr + 3 * atom + axis, tl.where(first < 0, first + size, first), mask=mask)
        row_ptr = tables_ptr + axis * (degree + 1) * LANES + lane
        weight = tl.zeros((BLOCK, LANES), tl.float64) + tl.load(row_ptr + degree * LANES)
        for power in range(degree):
            weight = weight * s + tl.load(row_ptr + (degree - 1 - power) * LANES)
        at = weights_ptr + (3 * atom[:, None] + axis) * order + lane
        tl.store(at, weight.to(weights_ptr.dtype.element_ty), mask=mask[:, None] & (lane < order))


@triton.jit
def _axis_weights(ptr, point, first, in_atoms, size, order):
    """Weights (points, atoms) of one axis; a window wider than the mesh meets a point again after a turn."""
    lane = point[:, None] - first[None, :]
    lane = tl.where(lane < 0, lane + size, lane)
    inside = in_atoms[None, :] & (point < size)[:, None]
    weight = tl.load(ptr[None, :] + lane, mask=inside & (lane < order), other=0.0)
    for turn in range(size, order, size):
        weight += tl.load(ptr[None, :] + lane + turn, mask=inside & (lane + turn < order), other=0.0)
    return weight


@triton.jit
def _reach(brick, size, order, BRICK: tl.constexpr):
    """How many bricks down an axis hold atoms that touch this one, itself included; the last brick may be short."""
    n_bricks = tl.cdiv(size, BRICK)
    crossed = tl.where(brick * BRICK < order - 1, n_bricks * BRICK - size, 0)
    return tl.minimum(1 + tl.cdiv(order - 1 + crossed, BRICK), n_bricks)


@triton.jit(do_not_specialize=["n_channels", "order", "gx", "gy", "gz"])
def _grid_spread_kernel(
    x_ptr, atom_ptr, brick_ptr, first_ptr, weights_ptr, rho_ptr, n_channels: tl.int32, order: tl.int32,
    gx: tl.int32, gy: tl.int32, gz: tl.int32,
    BRICK: tl.constexpr, BLOCK_A: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """rho[c, m] = Σ_j x_jc S(f_j; m) on the brick of mesh points of this program."""
    POINTS: tl.constexpr = BRICK * BRICK * BRICK
    DTYPE: tl.constexpr = x_ptr.dtype.element_ty
    nx, ny, nz = tl.cdiv(gx, BRICK), tl.cdiv(gy, BRICK), tl.cdiv(gz, BRICK)
    brick = tl.program_id(0)
    bx, by, bz = brick // (ny * nz), brick // nz % ny, brick % nz
    edge, lane, column = tl.arange(0, BRICK), tl.arange(0, BLOCK_A), tl.arange(0, BLOCK_C)
    channel = tl.program_id(1) * BLOCK_C
    n_columns = n_channels - channel
    total = tl.zeros((POINTS, BLOCK_C), DTYPE)
    for sx in range(_reach(bx, gx, order, BRICK)):
        ax = tl.where(bx < sx, bx - sx + nx, bx - sx)
        for sy in range(_reach(by, gy, order, BRICK)):
            ay = tl.where(by < sy, by - sy + ny, by - sy)
            for sz in range(_reach(bz, gz, order, BRICK)):
                az = tl.where(bz < sz, bz - sz + nz, bz - sz)
                source = (ax * ny + ay).to(tl.int64) * nz + az
                last = tl.load(brick_ptr + source + 1)
                for place in range(tl.load(brick_ptr + source), last, BLOCK_A):
                    inside = lane < last - place
                    atom = tl.load(atom_ptr + place + lane, mask=inside, other=0)
                    at = weights_ptr + 3 * atom * order
                    fx, fy, fz = (
                        tl.load(first_ptr + 3 * atom),
                        tl.load(first_ptr + 3 * atom + 1),
                        tl.load(first_ptr + 3 * atom + 2),
                    )
                    wx = _axis_weights(at, bx * BRICK + edge, fx, inside, gx, order)
                    wy = _axis_weights(at + order, by * BRICK + edge, fy, inside, gy, order)
                    wz = _axis_weights(at + 2 * order, bz * BRICK + edge, fz, inside, gz, order)
                    wyz = tl.reshape(wy[:, None, :] * wz[None, :, :], (BRICK * BRICK, BLOCK_A))
                    w = tl.reshape(wx[:, None, :] * wyz[None, :, :], (POINTS, BLOCK_A))
                    x = tl.load(
                        x_ptr + atom[:, None] * n_channels + channel + column[None, :],
                        mask=inside[:, None] & (column < n_columns)[None, :], other=0.0,
                    )  # fmt: skip
                    total = tl.dot(w, x, total, input_precision="ieee", out_dtype=DTYPE)
    point = tl.arange(0, POINTS)
    px, py, pz = bx * BRICK + point // (BRICK * BRICK), by * BRICK + point // BRICK % BRICK, bz * BRICK + point % BRICK
    inside = (px < gx) & (py < gy) & (pz < gz)
    out = (px.to(tl.int64) * gy + py) * gz + pz
    rho_ptr += channel * (gx.to(tl.int64) * gy * gz)
    tl.store(
        rho_ptr + out[:, None] + column[None, :] * (gx.to(tl.int64) * gy * gz), total,
        mask=inside[:, None] & (column < n_columns)[None, :],
    )  # fmt: skip


@triton.jit
def _sum_lanes(total, weight):
    """Σ_z total (atoms, channels, z) · weight (atoms, z)."""
    return tl.sum(total * weight[:, None, :], 2)


@triton.jit(do_not_specialize=["n_atoms", "n_channels", "order", "gx", "gy", "gz"])
def _grid_interpolate_kernel(
    phi_ptr, atom_ptr, first_ptr, weights_ptr, slopes_ptr, x_ptr, y_ptr, pull_ptr,
    n_atoms: tl.int64, n_channels: tl.int32, order: tl.int32, gx: tl.int32, gy: tl.int32, gz: tl.int32,
    PULL: tl.constexpr, BLOCK_A: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_Z: tl.constexpr,
):  # fmt: skip
    """y_jc = Σ_m phi[c, m] S(f_j; m) of a tile of atoms and some channels; with PULL also Σ_c x_jc ∂y_jc/∂f."""
    DTYPE: tl.constexpr = phi_ptr.dtype.element_ty
    points = gx.to(tl.int64) * gy * gz
    place = tl.program_id(0).to(tl.int64) * BLOCK_A + tl.arange(0, BLOCK_A)
    inside = place < n_atoms
    atom = tl.load(atom_ptr + place, mask=inside, other=0)
    fx, fy, fz = tl.load(first_ptr + 3 * atom), tl.load(first_ptr + 3 * atom + 1), tl.load(first_ptr + 3 * atom + 2)
    z = tl.arange(0, BLOCK_Z)
    in_z = (z < order)[None, :]
    at_z = (fz[:, None] + z[None, :]) % gz
    row = 3 * atom * order
    wz = tl.load(weights_ptr + (row + 2 * order)[:, None] + z[None, :], mask=in_z, other=0.0)
    if PULL:
        dz = tl.load(slopes_ptr + (row + 2 * order)[:, None] + z[None, :], mask=in_z, other=0.0)
        of_x, of_y, of_z = (
            tl.zeros((BLOCK_A,), tl.float64),
            tl.zeros((BLOCK_A,), tl.float64),
            tl.zeros((BLOCK_A,), tl.float64),
        )
    size = tl.cdiv(tl.cdiv(n_channels, BLOCK_C), tl.num_programs(1)) * BLOCK_C
    begin = tl.program_id(1) * size
    for channel in range(begin, tl.minimum(begin + size, n_channels), BLOCK_C):
        column = channel + tl.arange(0, BLOCK_C)
        in_c = column < n_channels
        mask = (inside[:, None] & in_c[None, :])[:, :, None] & in_z[:, None, :]
        base_ptr = phi_ptr + (column.to(tl.int64) * points)[None, :, None] + at_z[:, None, :]
        total = tl.zeros((BLOCK_A, BLOCK_C, BLOCK_Z), DTYPE)
        along_x, along_y = total, total
        for lx in range(order):
            wx = tl.load(weights_ptr + row + lx)
            if PULL:
                dx = tl.load(slopes_ptr + row + lx)
            plane = ((fx + lx) % gx).to(tl.int64) * gy
            for ly in range(order):
                line = (plane + (fy + ly) % gy) * gz
                phi = tl.load(base_ptr + line[:, None, None], mask=mask, other=0.0)
                wy = tl.load(weights_ptr + row + order + ly)
                total += (wx * wy)[:, None, None] * phi
                if PULL:
                    along_x += (dx * wy)[:, None, None] * phi
                    along_y += (wx * tl.load(slopes_ptr + row + order + ly))[:, None, None] * phi
        at = atom[:, None] * n_channels + column[None, :]
        both = inside[:, None] & in_c[None, :]
        tl.store(y_ptr + at, _sum_lanes(total, wz), mask=both)
        if PULL:
            x = tl.load(x_ptr + at, mask=both, other=0.0)
            of_x += tl.sum(x * _sum_lanes(along_x, wz), 1).to(tl.float64)
            of_y += tl.sum(x * _sum_lanes(along_y, wz), 1).to(tl.float64)
            of_z += tl.sum(x * _sum_lanes(total, dz), 1).to(tl.float64)
    if PULL:
        at = pull_ptr + 3 * (tl.program_id(1) * n_atoms + atom)
        tl.store(at, of_x, mask=inside)
        tl.store(at + 1, of_y, mask=inside)
        tl.store(at + 2, of_z, mask=inside)


def spread(
    x: Tensor, fractional: Tensor, mesh: tuple[int, int, int], order: int, derivative=(0, 0, 0), table=None
) -> Tensor:
    """rho[c, m] = Σ_j x_jc S(f_j; m), (C, gx, gy, gz), in a fixed order.

    Parameters
    ----------
    x : Tensor
        (n_atoms, C) float32 or float64.
    fractional : Tensor
        (n_atoms, 3) float64, wrapped or not.
    mesh : tuple of int
        Mesh points along each axis.
    order : int
        Mesh points an atom touches along each axis, up to 16.
    derivative : tuple of int
        How often S is differentiated by each fractional coordinate.
    table : ndarray, optional
        The window, as `GridPlan.table` gives it; B-splines where left out.

    Notes
    -----
    Deterministic. Takes 3 · order numbers and 40 bytes an atom. Only the first call for a window, mesh and derivative
    waits for the device.
    """
    channels = x.shape[1]
    if min(x.shape) == 0:
        return x.new_zeros((channels, *mesh))
    first, weights = _sites(fractional, mesh, order, derivative, table, x.dtype)
    brick, n_bricks = _bricks(first, mesh)
    brick, atom = brick.sort(stable=True)
    brick_ptr = torch.searchsorted(brick, torch.arange(n_bricks + 1, device=x.device))
    rho = x.new_empty((channels, *mesh))
    tile = spread_tile(x.dtype, channels)
    with torch.cuda.device_of(x):
        _grid_spread_kernel[(n_bricks, triton.cdiv(channels, tile["BLOCK_C"]))](
            x.contiguous(), atom, brick_ptr, first, weights, rho, channels, order, *mesh,
            BRICK=BRICK, **tile, **OPTIONS,
        )  # fmt: skip
    return rho


def interpolate(phi: Tensor, fractional: Tensor, order: int, derivative=(0, 0, 0), table=None) -> Tensor:
    """y_jc = Σ_m phi[c, m] S(f_j; m), (n_atoms, C), for phi (C, gx, gy, gz); arguments as those of `spread`."""
    return _interpolate(phi, fractional, order, derivative, table, None)[0]


def interpolate_with_pull(phi: Tensor, x: Tensor, fractional: Tensor, order: int, table=None) -> tuple[Tensor, Tensor]:
    """y as of `interpolate`, and ∂(Σ x·y)/∂f, (n_atoms, 3) float64, from one reading of the mesh."""
    return _interpolate(phi, fractional, order, (0, 0, 0), table, x)


def _interpolate(phi, fractional, order, derivative, table, x):
    n_atoms, channels, mesh = fractional.shape[0], phi.shape[0], tuple(phi.shape[1:])
    if n_atoms == 0 or channels == 0:
        return phi.new_zeros((n_atoms, channels)), fractional.new_zeros((n_atoms, 3), dtype=torch.float64)
    first, weights = _sites(fractional, mesh, order, derivative, table, phi.dtype)
    slopes = weights
    if x is not None:
        _, slopes = _sites(fractional, mesh, order, (1, 1, 1), table, phi.dtype)
    atom = _bricks(first, mesh)[0].argsort(stable=True)
    tile = interpolate_tile(order)
    tiles = triton.cdiv(n_atoms, tile["BLOCK_A"])
    parts = max(1, min(N_PROGRAMS // tiles, triton.cdiv(channels, tile["BLOCK_C"])))
    y = phi.new_empty((n_atoms, channels))
    pull = phi.new_empty((parts if x is not None else 0, n_atoms, 3), dtype=torch.float64)
    with torch.cuda.device_of(phi):
        _grid_interpolate_kernel[(tiles, parts)](
            phi.contiguous(), atom, first, weights, slopes, y if x is None else x.to(phi.dtype).contiguous(), y, pull,
            n_atoms, channels, order, *mesh, PULL=x is not None, **tile, **OPTIONS,
        )  # fmt: skip
    return y, pull.sum(0)


def _sites(fractional: Tensor, mesh, order: int, derivative, table, dtype) -> tuple[Tensor, Tensor]:
    """Lowest mesh point an atom touches on each axis, (n, 3) int32, and its weights (n, 3, order)."""
    n = fractional.shape[0]
    if table is None:
        table = pieces("spline", order, 0.0, 0.0)
    tables = _tables(table.tobytes(), tuple(mesh), tuple(derivative), fractional.device)
    first = torch.empty((n, 3), dtype=torch.int32, device=fractional.device)
    weights = fractional.new_empty((n, 3, order), dtype=dtype)
    with torch.cuda.device_of(fractional):
        _grid_sites_kernel[(triton.cdiv(n, SITES),)](
            fractional.to(torch.float64).contiguous(), tables, first, weights, n, order, tables.shape[1] - 1, *mesh,
            BLOCK=SITES, LANES=LANES, **OPTIONS,
        )  # fmt: skip
    return first, weights


def _bricks(first: Tensor, mesh) -> tuple[Tensor, int]:
    """Brick of every atom's lowest mesh point, and how many there are."""
    counts = [triton.cdiv(points, BRICK) for points in mesh]
    x, y, z = (first // BRICK).unbind(1)
    return (x.long() * counts[1] + y) * counts[2] + z, counts[0] * counts[1] * counts[2]


@lru_cache(maxsize=64)
def _tables(table: bytes, mesh: tuple[int, ...], derivative: tuple[int, ...], device: torch.device) -> Tensor:
    """Polynomials of the weights on each axis, (3, degree + 1, LANES), differentiated by the fractional coordinate.

    Kept, since bringing them to the device waits for it.
    """
    rows = np.frombuffer(table).reshape(-1, LANES)
    tables = np.zeros((3, *rows.shape))
    for axis in range(3):
        tables[axis] = rows
        for _ in range(derivative[axis]):
            powers = np.arange(1, len(rows))[:, None]
            tables[axis, :-1] = tables[axis, 1:] * powers * mesh[axis]
            tables[axis, -1] = 0.0
    return torch.from_numpy(tables).to(device)
