"""Attention over tiles of atom pairs on a GPU, in Triton: value and gradient of whole batches, nothing N² or N·M kept.

Imported when a kernel first runs on a CUDA device, never before.

A program owns a tile of atoms i of one system and walks over a part of its atoms j, tile by tile. The tile of K is
summed over modes once, as cos·cos + sin·sin, and serves all heads. Since K is symmetric the gradients of q, k and v are
the forward's sum with the roles exchanged; those of coordinates and weights come from (A + Aᵀ)·waves of j, where
A_ij = Σ_heads (q_i·k_j)(g_i·v_j). Sums over j tiles stand in float64 in global memory (one number for the products of
32 or 64 pairs), so heads and widths are run-time loops; the parts of j that make up for few tiles, and the tiles' sums
for a mode, are added in a fixed order, without atomics.

Multiply-adds for a pair of atoms, M modes, H heads of widths d and e:

    fwd        2 M + H (d + e)          K; scores and products
    bwd        2 M + 3 H (d + e)        the same three times, with one K
    bwd_waves  2 M + 2 H (d + e)        A both ways; A + Aᵀ times cosines and sines

and BLOCK_I + BLOCK_J sines and cosines (about 25 instructions) a mode for BLOCK_I · BLOCK_J pairs. Memory gives the
leaves and turns of j and the modes, and takes and gives the sums, for each pair of tiles: with n bytes a number,
n H (d + e) + 12 M / BLOCK_J and 16 H e bytes for every 64 pairs, above ten operations a byte at any width.
Tiles: 64 × 64 sums (32 columns in float64) are 16 registers a thread of 8 warps, of which the kernels hold two or
three beside the operands; slices of 16 modes and 16 or 32 columns of a head keep shared memory at 40 KiB or less.
Float32 products are exact multiply-adds ("ieee"), not tf32; float64 products run on the tensor cores.
Registers and shared memory: profiling/results/triton_resources.csv.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from .triton_phases import cos_sin, fixed_turns, load_three, nan_or_zero

BLOCK_I = 64
BLOCK_SUM = 128
OPTIONS = {"num_warps": 8, "num_stages": 1, "enable_fp_fusion": True, "maxnreg": 255}
"""Fused multiply-adds are stated here, so that no environment variable decides on them; so are all the registers there
are, or the assembler would rather spill a few to fit two programs on a multiprocessor."""
N_PROGRAMS = 512
"""Tiles of few atoms are shared out over parts of j until there are so many programs."""


def tiles(dtype: torch.dtype, d: int, d_v: int) -> dict[str, int]:
    """Sizes of the tiles: heads are padded to whole multiples of BLOCK_D."""
    wide = 16 if max(d, d_v) <= 16 else 32
    return {"BLOCK_I": BLOCK_I, "BLOCK_J": 32 if dtype == torch.float64 else 64, "BLOCK_M": 16, "BLOCK_D": wide}


@triton.jit
def _load_rows(ptr, stride, n_rows, n_columns, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr):
    """A (BLOCK, BLOCK_D) tile at ptr of which n_rows and n_columns exist; zeros outside. Offsets in it fit 32 bits."""
    row, column = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK_D)[None, :]
    return tl.load(ptr + (row * stride + column), mask=(row < n_rows) & (column < n_columns), other=0.0)


@triton.jit
def _scores(
    x_ptr, y_ptr, stride, n_i, n_j, width,
    BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """x_i·y_j of one head, of which the first columns are at x_ptr and y_ptr."""
    S = tl.zeros((BLOCK_I, BLOCK_J), x_ptr.dtype.element_ty)
    for column in range(0, width, BLOCK_D):
        x = _load_rows(x_ptr + column, stride, n_i, width - column, BLOCK_I, BLOCK_D)
        y = _load_rows(y_ptr + column, stride, n_j, width - column, BLOCK_J, BLOCK_D)
        S = tl.dot(x, tl.trans(y), S, input_precision="ieee", out_dtype=S.dtype)
    return S


@triton.jit
def _add_attention(
    out_ptr, x_ptr, y_ptr, z_ptr, K, i, j, n_i, n_j, width, width_z, n_heads,
    BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """out_i += Σ_j (x_i·y_j) K_ij z_j for all heads, in float64 rows of global memory that are this program's own."""
    stride, stride_z = n_heads * width, n_heads * width_z
    row, column = tl.arange(0, BLOCK_I)[:, None], tl.arange(0, BLOCK_D)[None, :]
    for head in range(n_heads):
        S = K * _scores(
            x_ptr + i * stride + head * width, y_ptr + j * stride + head * width, stride, n_i, n_j, width,
            BLOCK_I, BLOCK_J, BLOCK_D,
        )  # fmt: skip
        for first in range(0, width_z, BLOCK_D):
            at = head * width_z + first
            z = _load_rows(z_ptr + j * stride_z + at, stride_z, n_j, width_z - first, BLOCK_J, BLOCK_D)
            part = tl.dot(S, z, input_precision="ieee", out_dtype=S.dtype).to(tl.float64)
            tile_ptr = out_ptr + (i * stride_z + at) + (row * stride_z + column)
            mask = (row < n_i) & (column < width_z - first)
            tl.store(tile_ptr, tl.load(tile_ptr, mask=mask, other=0.0) + part, mask=mask)


@triton.jit
def _program(tiles_ptr, BLOCK_J: tl.constexpr):
    """First atom of the tile, end of the system, first and last j of the part, and the modes' begin and end."""
    tile_ptr = tiles_ptr + 5 * tl.program_id(0).to(tl.int64)
    begin, end = tl.load(tile_ptr + 1), tl.load(tile_ptr + 2)
    size = tl.cdiv(tl.cdiv(end - begin, BLOCK_J), tl.num_programs(1)) * BLOCK_J
    first = begin + tl.program_id(1) * size
    return tl.load(tile_ptr), end, first, tl.minimum(first + size, end), tl.load(tile_ptr + 3), tl.load(tile_ptr + 4)


@triton.jit
def _turns(turns_ptr, first, n, BLOCK: tl.constexpr):
    row = tl.arange(0, BLOCK)
    return load_three(turns_ptr + 3 * first, row, row < n)


@triton.jit
def _modes(miller_ptr, first, n, BLOCK_M: tl.constexpr):
    m = tl.arange(0, BLOCK_M)
    return load_three(miller_ptr + 3 * first, m, m < n)


@triton.jit
def _kernel_tile(
    ix, iy, iz, turns_ptr, j, n_j, miller_ptr, weights_ptr, modes_begin, modes_end,
    DTYPE: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """K_ij = Σ_m 2 w_m cos(θ_im − θ_jm) of a tile."""
    K = tl.zeros((BLOCK_I, BLOCK_J), DTYPE)
    jx, jy, jz = _turns(turns_ptr, j, n_j, BLOCK_J)
    for first in range(modes_begin, modes_end, BLOCK_M):
        nx, ny, nz = _modes(miller_ptr, first, modes_end - first, BLOCK_M)
        nx, ny, nz = nx.to(ix.dtype), ny.to(ix.dtype), nz.to(ix.dtype)
        m = tl.arange(0, BLOCK_M)
        twice = 2.0 * tl.load(weights_ptr + first + m, mask=m < modes_end - first, other=0.0)
        cos_i, sin_i = cos_sin(ix[:, None] * nx[None, :] + iy[:, None] * ny[None, :] + iz[:, None] * nz[None, :])
        cos_j, sin_j = cos_sin(jx[None, :] * nx[:, None] + jy[None, :] * ny[:, None] + jz[None, :] * nz[:, None])
        K = tl.dot(cos_i * twice[None, :], cos_j, K, input_precision="ieee", out_dtype=DTYPE)
        K = tl.dot(sin_i * twice[None, :], sin_j, K, input_precision="ieee", out_dtype=DTYPE)
    return K


@triton.jit(do_not_specialize=["n_atoms", "n_heads", "d", "d_v"])
def _pairwise_fwd_kernel(
    q_ptr, k_ptr, v_ptr, turns_ptr, miller_ptr, weights_ptr, tiles_ptr, u_ptr,
    n_atoms: tl.int64, n_heads: tl.int32, d: tl.int32, d_v: tl.int32,
    BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """u[part, i] = Σ_j (q_i·k_j) K_ij v_j over the part-th of num_programs(1) parts of the atoms of i's system."""
    i, end, first, last, modes_begin, modes_end = _program(tiles_ptr, BLOCK_J)
    ix, iy, iz = _turns(turns_ptr, i, end - i, BLOCK_I)
    u_ptr += tl.program_id(1) * n_atoms * n_heads * d_v
    for j in range(first, last, BLOCK_J):
        n_i, n_j = (end - i).to(tl.int32), (last - j).to(tl.int32)
        K = _kernel_tile(
            ix, iy, iz, turns_ptr, j, n_j, miller_ptr, weights_ptr, modes_begin, modes_end,
            q_ptr.dtype.element_ty, BLOCK_I, BLOCK_J, BLOCK_M,
        )  # fmt: skip
        _add_attention(u_ptr, q_ptr, k_ptr, v_ptr, K, i, j, n_i, n_j, d, d_v, n_heads, BLOCK_I, BLOCK_J, BLOCK_D)
        tl.debug_barrier()  # the next tile reads the sums that this one has written


@triton.jit(do_not_specialize=["n_atoms", "n_heads", "d", "d_v"])
def _pairwise_bwd_kernel(
    g_ptr, q_ptr, k_ptr, v_ptr, turns_ptr, miller_ptr, weights_ptr, tiles_ptr, gq_ptr, gk_ptr, gv_ptr,
    n_atoms: tl.int64, n_heads: tl.int32, d: tl.int32, d_v: tl.int32,
    BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Parts of gq, gk, gv as the forward's of u: since K is symmetric they are attention with the roles exchanged."""
    i, end, first, last, modes_begin, modes_end = _program(tiles_ptr, BLOCK_J)
    ix, iy, iz = _turns(turns_ptr, i, end - i, BLOCK_I)
    gq_ptr += tl.program_id(1) * n_atoms * n_heads * d
    gk_ptr += tl.program_id(1) * n_atoms * n_heads * d
    gv_ptr += tl.program_id(1) * n_atoms * n_heads * d_v
    for j in range(first, last, BLOCK_J):
        n_i, n_j = (end - i).to(tl.int32), (last - j).to(tl.int32)
        K = _kernel_tile(
            ix, iy, iz, turns_ptr, j, n_j, miller_ptr, weights_ptr, modes_begin, modes_end,
            q_ptr.dtype.element_ty, BLOCK_I, BLOCK_J, BLOCK_M,
        )  # fmt: skip
        _add_attention(gq_ptr, g_ptr, v_ptr, k_ptr, K, i, j, n_i, n_j, d_v, d, n_heads, BLOCK_I, BLOCK_J, BLOCK_D)
        _add_attention(gk_ptr, v_ptr, g_ptr, q_ptr, K, i, j, n_i, n_j, d_v, d, n_heads, BLOCK_I, BLOCK_J, BLOCK_D)
        _add_attention(gv_ptr, k_ptr, q_ptr, g_ptr, K, i, j, n_i, n_j, d, d_v, n_heads, BLOCK_I, BLOCK_J, BLOCK_D)
        tl.debug_barrier()  # the next tile reads the sums that this one has written


@triton.jit(do_not_specialize=["n_atoms", "n_heads", "d", "d_v", "stride"])
def _pairwise_bwd_waves_kernel(
    g_ptr, q_ptr, k_ptr, v_ptr, turns_ptr, miller_ptr, weights_ptr, tiles_ptr, gf_ptr, per_tile_ptr,
    n_atoms: tl.int64, n_heads: tl.int32, d: tl.int32, d_v: tl.int32, stride: tl.int64,
    BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Unscaled parts of gf of a tile of atoms i, and its row of Σ_ij B_ij cos(θ_i − θ_j) for every mode.

    B = A + Aᵀ with A_ij = Σ_heads (q_i·k_j)(g_i·v_j): every derivative by coordinate or weight sums it with waves of j.
    """
    DTYPE: tl.constexpr = q_ptr.dtype.element_ty
    i, end, first, last, modes_begin, modes_end = _program(tiles_ptr, BLOCK_J)
    ix, iy, iz = _turns(turns_ptr, i, end - i, BLOCK_I)
    row = tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    per_tile_ptr += row * stride - modes_begin
    fx, fy, fz = tl.zeros((BLOCK_I,), tl.float64), tl.zeros((BLOCK_I,), tl.float64), tl.zeros((BLOCK_I,), tl.float64)
    m = tl.arange(0, BLOCK_M)
    for j in range(first, last, BLOCK_J):
        n_i, n_j = (end - i).to(tl.int32), (last - j).to(tl.int32)
        B = tl.zeros((BLOCK_I, BLOCK_J), DTYPE)
        for head in range(n_heads):
            at_i, at_j = (i * n_heads + head) * d, (j * n_heads + head) * d
            to_i, to_j = (i * n_heads + head) * d_v, (j * n_heads + head) * d_v
            S = _scores(q_ptr + at_i, k_ptr + at_j, n_heads * d, n_i, n_j, d, BLOCK_I, BLOCK_J, BLOCK_D)
            B += S * _scores(g_ptr + to_i, v_ptr + to_j, n_heads * d_v, n_i, n_j, d_v, BLOCK_I, BLOCK_J, BLOCK_D)
            S = _scores(k_ptr + at_i, q_ptr + at_j, n_heads * d, n_i, n_j, d, BLOCK_I, BLOCK_J, BLOCK_D)
            B += S * _scores(v_ptr + to_i, g_ptr + to_j, n_heads * d_v, n_i, n_j, d_v, BLOCK_I, BLOCK_J, BLOCK_D)
        jx, jy, jz = _turns(turns_ptr, j, n_j, BLOCK_J)
        for low in range(modes_begin, modes_end, BLOCK_M):
            in_m = m < modes_end - low
            nx, ny, nz = _modes(miller_ptr, low, modes_end - low, BLOCK_M)
            mx, my, mz = nx.to(ix.dtype), ny.to(ix.dtype), nz.to(ix.dtype)
            cos_j, sin_j = cos_sin(jx[:, None] * mx[None, :] + jy[:, None] * my[None, :] + jz[:, None] * mz[None, :])
            of_cos = tl.dot(B, cos_j, input_precision="ieee", out_dtype=DTYPE)
            of_sin = tl.dot(B, sin_j, input_precision="ieee", out_dtype=DTYPE)
            cos_i, sin_i = cos_sin(ix[:, None] * mx[None, :] + iy[:, None] * my[None, :] + iz[:, None] * mz[None, :])
            per_mode = tl.sum(cos_i * of_cos + sin_i * of_sin, 0).to(tl.float64)
            sum_ptr = per_tile_ptr + low + m
            tl.store(sum_ptr, tl.load(sum_ptr, mask=in_m, other=0.0) + per_mode, mask=in_m)
            weight = tl.load(weights_ptr + low + m, mask=in_m, other=0.0)
            per_phase = (cos_i * of_sin - sin_i * of_cos) * weight[None, :]
            fx += tl.sum(per_phase * nx.to(DTYPE)[None, :], 1).to(tl.float64)
            fy += tl.sum(per_phase * ny.to(DTYPE)[None, :], 1).to(tl.float64)
            fz += tl.sum(per_phase * nz.to(DTYPE)[None, :], 1).to(tl.float64)
        tl.debug_barrier()  # the next tile reads the sums that this one has written
    atom = tl.arange(0, BLOCK_I)
    at = gf_ptr + 3 * (tl.program_id(1) * n_atoms + i + atom)
    tl.store(at, fx, mask=atom < end - i)
    tl.store(at + 1, fy, mask=atom < end - i)
    tl.store(at + 2, fz, mask=atom < end - i)


@triton.jit(do_not_specialize=["n_parts", "stride"])
def _pairwise_modes_kernel(
    per_tile_ptr, tile_ranges_ptr, mode_ptr, gw_ptr, n_parts: tl.int64, stride: tl.int64, BLOCK_M: tl.constexpr
):
    """gw_m: the rows of the tiles of m's system added up, in their order."""
    system = tl.program_id(0).to(tl.int64)
    first = tl.load(tile_ranges_ptr + system) * n_parts
    last = tl.load(tile_ranges_ptr + system + 1) * n_parts
    begin, end = tl.load(mode_ptr + system), tl.load(mode_ptr + system + 1)
    m = tl.program_id(1).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    mask = m < end - begin
    total = tl.zeros((BLOCK_M,), tl.float64)
    for row in range(first, last):
        total += tl.load(per_tile_ptr + row * stride + m, mask=mask, other=0.0)
    tl.store(gw_ptr + begin + m, total, mask=mask)


def tile_table(batch_ptr: Tensor, mode_ptr: Tensor, n_atoms: int) -> tuple[Tensor, Tensor]:
    """Which atoms a program owns, built on the device: nothing waits for it.

    Returns
    -------
    tiles : Tensor
        (n_atoms // BLOCK_I + n_systems, 5) int64, as many as there can be: first atom of the tile, begin and end of its
        system's atoms, begin and end of its modes. The tiles left over are at the end, with zeros.
    ranges : Tensor
        (n_systems + 1,) int64: the tiles of every system.
    """
    n_systems = batch_ptr.shape[0] - 1
    per_system = (batch_ptr.diff() + (BLOCK_I - 1)) // BLOCK_I
    ranges = torch.cat([per_system.new_zeros(1), per_system.cumsum(0)])
    tile = torch.arange(n_atoms // BLOCK_I + n_systems, device=batch_ptr.device)
    system = torch.searchsorted(ranges[1:], tile, right=True)
    used = system < n_systems
    system.clamp_(max=n_systems - 1)
    begin = batch_ptr[system]
    start = begin + BLOCK_I * (tile - ranges[system])
    columns = (start, begin, batch_ptr[system + 1], mode_ptr[system], mode_ptr[system + 1])
    return torch.stack(columns, 1) * used.unsqueeze(1), ranges


def n_parts(n_tiles: int, n_atoms: int) -> int:
    """Parts of j of every tile, from sizes alone: they are part of the result's last bits."""
    return max(1, min(N_PROGRAMS // n_tiles, triton.cdiv(n_atoms, BLOCK_I)))


def pairwise_forward(
    q: Tensor, k: Tensor, v: Tensor, fractional: Tensor, miller: Tensor, weights: Tensor, batch_ptr: Tensor,
    mode_ptr: Tensor,
) -> Tensor:  # fmt: skip
    """u_i = s Σ_j (q_i·k_j) K_ij v_j in every system and head; arguments are those of the registered op.

    Deterministic. Takes 8 · parts · N · H · d_v bytes, parts ≤ 1 + 512 · 64 / N; never waits for the device.
    """
    _check_dtype(q)
    n_atoms, n_heads, d = q.shape
    d_v = v.shape[-1]
    if n_atoms == 0 or v.numel() == 0:
        return torch.zeros_like(v)
    table, _ = tile_table(batch_ptr, mode_ptr, n_atoms)
    parts = n_parts(len(table), n_atoms)
    u = fractional.new_zeros((parts, n_atoms, n_heads, d_v), dtype=torch.float64)
    with torch.cuda.device_of(q):
        _pairwise_fwd_kernel[(len(table), parts)](
            *_leaves(fractional, q, k, v), fixed_turns(fractional, q.dtype), miller.contiguous(),
            weights.to(q.dtype).contiguous(), table, u, n_atoms, n_heads, d, d_v, **tiles(q.dtype, d, d_v), **OPTIONS,
        )  # fmt: skip
    return _total(u, 1.0 / math.sqrt(d)).to(q.dtype)


def pairwise_backward(
    g: Tensor, q: Tensor, k: Tensor, v: Tensor, fractional: Tensor, miller: Tensor, weights: Tensor, batch_ptr: Tensor,
    mode_ptr: Tensor,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradient of Σ_i g_i·u_i with respect to q, k, v, fractional coordinates and weights (both float64).

    Deterministic. Takes 8 · parts · (N H (2 d + d_v) + N M / 64) bytes, M the most modes of a system; only to learn
    that number from a batch of several systems does it wait for the device.
    """
    _check_dtype(q)
    n_atoms, n_heads, d = q.shape
    d_v, n_systems, n_modes = v.shape[-1], batch_ptr.shape[0] - 1, len(miller)
    if n_atoms == 0 or n_heads == 0 or d == 0:
        zeros = (torch.zeros_like(x) for x in (q, k, v))
        return (*zeros, fractional.new_zeros((n_atoms, 3)), weights.new_zeros(n_modes, dtype=torch.float64))
    table, ranges = tile_table(batch_ptr, mode_ptr, n_atoms)
    parts = n_parts(len(table), n_atoms)
    longest = n_modes if n_systems == 1 else int(mode_ptr.diff().max())
    gq, gk, gv = (fractional.new_zeros((parts, *x.shape), dtype=torch.float64) for x in (q, k, v))
    gf = fractional.new_empty((parts, n_atoms, 3), dtype=torch.float64)
    per_tile = fractional.new_zeros((len(table) * parts, longest), dtype=torch.float64)
    gw = fractional.new_empty(n_modes, dtype=torch.float64)
    with torch.cuda.device_of(q):
        inputs = (
            *_leaves(fractional, g, q, k, v), fixed_turns(fractional, q.dtype), miller.contiguous(),
            weights.to(q.dtype).contiguous(), table,
        )  # fmt: skip
        sizes = (n_atoms, n_heads, d, d_v)
        _pairwise_bwd_kernel[(len(table), parts)](*inputs, gq, gk, gv, *sizes, **tiles(q.dtype, d, d_v), **OPTIONS)
        _pairwise_bwd_waves_kernel[(len(table), parts)](
            *inputs, gf, per_tile, *sizes, longest, **tiles(q.dtype, d, d_v), **OPTIONS
        )
        if n_modes:
            _pairwise_modes_kernel[(n_systems, triton.cdiv(longest, BLOCK_SUM))](
                per_tile, ranges, mode_ptr.contiguous(), gw, parts, longest, BLOCK_M=BLOCK_SUM, **OPTIONS
            )
    scale = 1.0 / math.sqrt(d)
    leaves = (_total(x, scale).to(q.dtype) for x in (gq, gk, gv))
    return (*leaves, _total(gf, 4.0 * math.pi * scale), gw * scale)


def _leaves(fractional: Tensor, *leaves: Tensor) -> Iterator[Tensor]:
    """Contiguous; NaN for an atom without a place, so that everything its system gives is NaN."""
    lost = nan_or_zero(fractional, leaves[0].dtype).view(-1, 1, 1)
    return ((x + lost).contiguous() for x in leaves)


def _total(parts: Tensor, scale: float) -> Tensor:
    return parts.sum(0).mul_(scale)


def _check_dtype(q: Tensor) -> None:
    if q.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"`q` must be float32 or float64 here, got {q.dtype}")
