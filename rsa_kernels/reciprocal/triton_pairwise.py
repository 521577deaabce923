"""Attention over tiles of atom pairs on a GPU, in Triton: value and gradient of whole batches, nothing N² or N·M kept.

Imported when a kernel first runs on a CUDA device, never before.

A program owns a tile of atoms i of one system and walks over a part of its atoms j, tile by tile. The tile of K is
summed over modes once, as cos·cos + sin·sin, and serves all heads. Sums over j tiles stand in float64 in global memory
(one number a tile of 64 pairs: their traffic and additions are below those of the products by the tile's width), so
heads and widths are run-time loops, and the parts of j that make up for few tiles are added in a fixed order.

Multiply-adds for a pair of atoms, M modes, H heads of widths d and e:

    forward   2 M + H (d + e)                   K; S; u
    backward  4 M + H (4 d + 3 e)               K, (A + Aᵀ)·waves; S and T both ways; gq, gk, gv

and BLOCK_I + BLOCK_J sines and cosines (about 25 instructions) a mode for BLOCK_I · BLOCK_J pairs, twice in the
backward. From memory come a tile of j's coordinates and leaves, and the modes, for each pair of tiles: 64 times less
than is computed on them. Tiles: 64 × 64 sums are 16 registers a thread of 8 warps; the forward keeps K and one more,
the backward K, A + Aᵀ and three; slices of 32 modes or widths (16 for narrow heads) in shared memory are 8 KiB each in
float32. Float32 products are exact multiply-adds ("ieee"), not tf32; float64 products run on the tensor cores.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from .triton_phases import cos_sin, fixed_turns, load_three

BLOCK_I = BLOCK_J = 64
BLOCK_M = 32
BLOCK_SUM = 128
OPTIONS = {"num_warps": 8, "num_stages": 1, "enable_fp_fusion": True}
"""Fused multiply-adds are stated here, so that no environment variable decides on them."""
N_PROGRAMS = 512
"""Tiles of few atoms are shared out over parts of j until there are so many programs."""


def tiles(d: int, d_v: int) -> dict[str, int]:
    """Sizes of the tiles; heads are padded to whole multiples of BLOCK_D."""
    return {"BLOCK_I": BLOCK_I, "BLOCK_J": BLOCK_J, "BLOCK_M": BLOCK_M, "BLOCK_D": 16 if max(d, d_v) <= 16 else 32}


@triton.jit
def _load_rows(ptr, row, mask, head, width, n_heads, column, BLOCK_D: tl.constexpr):
    """Columns [column, column + BLOCK_D) of one head of rows of an (n, heads, width) array; zeros outside."""
    c = column + tl.arange(0, BLOCK_D)
    at = ptr + (row[:, None] * n_heads + head) * width + c[None, :]
    return tl.load(at, mask=mask[:, None] & (c < width)[None, :], other=0.0)


@triton.jit
def _scores(
    x_ptr, y_ptr, i, in_i, j, in_j, head, width, n_heads,
    BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """x_i·y_j of one head."""
    S = tl.zeros((BLOCK_I, BLOCK_J), x_ptr.dtype.element_ty)
    for column in range(0, width, BLOCK_D):
        x = _load_rows(x_ptr, i, in_i, head, width, n_heads, column, BLOCK_D)
        y = _load_rows(y_ptr, j, in_j, head, width, n_heads, column, BLOCK_D)
        S = tl.dot(x, tl.trans(y), S, input_precision="ieee", out_dtype=S.dtype)
    return S


@triton.jit
def _add_product(out_ptr, P, y_ptr, i, in_i, j, in_j, head, width, n_heads, BLOCK_D: tl.constexpr):
    """out_i += Σ_j P_ij y_j of one head, in the program's own float64 rows of global memory."""
    for column in range(0, width, BLOCK_D):
        y = _load_rows(y_ptr, j, in_j, head, width, n_heads, column, BLOCK_D)
        part = tl.dot(P, y, input_precision="ieee", out_dtype=P.dtype).to(tl.float64)
        c = column + tl.arange(0, BLOCK_D)
        at = out_ptr + (i[:, None] * n_heads + head) * width + c[None, :]
        mask = in_i[:, None] & (c < width)[None, :]
        tl.store(at, tl.load(at, mask=mask, other=0.0) + part, mask=mask)


@triton.jit
def _kernel_tile(
    ix, iy, iz, jx, jy, jz, miller_ptr, weights_ptr, modes_begin, modes_end,
    DTYPE: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """K_ij = Σ_m 2 w_m cos(θ_im − θ_jm) of a tile."""
    K = tl.zeros((BLOCK_I, BLOCK_J), DTYPE)
    for first in range(modes_begin, modes_end, BLOCK_M):
        m = first + tl.arange(0, BLOCK_M)
        in_m = m < modes_end
        nx, ny, nz = load_three(miller_ptr, m, in_m)
        nx, ny, nz = nx.to(ix.dtype), ny.to(ix.dtype), nz.to(ix.dtype)
        twice = 2.0 * tl.load(weights_ptr + m, mask=in_m, other=0.0)
        cos_i, sin_i = cos_sin(ix[:, None] * nx[None, :] + iy[:, None] * ny[None, :] + iz[:, None] * nz[None, :])
        cos_j, sin_j = cos_sin(jx[None, :] * nx[:, None] + jy[None, :] * ny[:, None] + jz[None, :] * nz[:, None])
        K = tl.dot(cos_i * twice[None, :], cos_j, K, input_precision="ieee", out_dtype=DTYPE)
        K = tl.dot(sin_i * twice[None, :], sin_j, K, input_precision="ieee", out_dtype=DTYPE)
    return K


@triton.jit(do_not_specialize=["n_atoms", "n_heads", "d", "d_v"])
def _pairwise_fwd_kernel(
    q_ptr, k_ptr, v_ptr, turns_ptr, miller_ptr, weights_ptr, tiles_ptr, u_ptr,
    n_atoms: tl.int64, n_heads: tl.int64, d: tl.int64, d_v: tl.int64,
    BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """u[part, i] = Σ_j (q_i·k_j) K_ij v_j over the part-th of num_programs(1) parts of the atoms of i's system."""
    DTYPE: tl.constexpr = q_ptr.dtype.element_ty
    tile_ptr = tiles_ptr + 5 * tl.program_id(0).to(tl.int64)
    part = tl.program_id(1).to(tl.int64)
    start, begin, end = tl.load(tile_ptr), tl.load(tile_ptr + 1), tl.load(tile_ptr + 2)
    modes_begin, modes_end = tl.load(tile_ptr + 3), tl.load(tile_ptr + 4)
    size = tl.cdiv(tl.cdiv(end - begin, BLOCK_J), tl.num_programs(1)) * BLOCK_J
    i = start + tl.arange(0, BLOCK_I)
    in_i = i < end
    ix, iy, iz = load_three(turns_ptr, i, in_i)
    out_ptr = u_ptr + part * n_atoms * n_heads * d_v
    for first in range(begin + part * size, tl.minimum(begin + (part + 1) * size, end), BLOCK_J):
        j = first + tl.arange(0, BLOCK_J)
        in_j = j < end
        jx, jy, jz = load_three(turns_ptr, j, in_j)
        K = _kernel_tile(
            ix, iy, iz, jx, jy, jz, miller_ptr, weights_ptr, modes_begin, modes_end, DTYPE, BLOCK_I, BLOCK_J, BLOCK_M
        )
        for head in range(n_heads):
            S = _scores(q_ptr, k_ptr, i, in_i, j, in_j, head, d, n_heads, BLOCK_I, BLOCK_J, BLOCK_D)
            _add_product(out_ptr, S * K, v_ptr, i, in_i, j, in_j, head, d_v, n_heads, BLOCK_D)
        tl.debug_barrier()  # the next tile reads the sums that this one has written


@triton.jit(do_not_specialize=["n_atoms", "n_heads", "d", "d_v", "stride"])
def _pairwise_bwd_kernel(
    g_ptr, q_ptr, k_ptr, v_ptr, turns_ptr, miller_ptr, weights_ptr, tiles_ptr,
    gq_ptr, gk_ptr, gv_ptr, gf_ptr, per_tile_ptr,
    n_atoms: tl.int64, n_heads: tl.int64, d: tl.int64, d_v: tl.int64, stride: tl.int64,
    BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The part-th parts of gq, gk, gv, gf of a tile of atoms i (without scale), and its row of Σ_ij B_ij cos(θ_i − θ_j).

    B = A + Aᵀ with A_ij = Σ_heads (q_i·k_j)(g_i·v_j): every derivative by coordinate or weight sums it with waves of j.
    """
    DTYPE: tl.constexpr = q_ptr.dtype.element_ty
    tile_ptr = tiles_ptr + 5 * tl.program_id(0).to(tl.int64)
    part = tl.program_id(1).to(tl.int64)
    start, begin, end = tl.load(tile_ptr), tl.load(tile_ptr + 1), tl.load(tile_ptr + 2)
    modes_begin, modes_end = tl.load(tile_ptr + 3), tl.load(tile_ptr + 4)
    size = tl.cdiv(tl.cdiv(end - begin, BLOCK_J), tl.num_programs(1)) * BLOCK_J
    i = start + tl.arange(0, BLOCK_I)
    in_i = i < end
    ix, iy, iz = load_three(turns_ptr, i, in_i)
    wide, narrow = part * n_atoms * n_heads * d, part * n_atoms * n_heads * d_v
    row_ptr = per_tile_ptr + (tl.program_id(0).to(tl.int64) * tl.num_programs(1) + part) * stride - modes_begin
    fx, fy, fz = tl.zeros((BLOCK_I,), tl.float64), tl.zeros((BLOCK_I,), tl.float64), tl.zeros((BLOCK_I,), tl.float64)
    for first in range(begin + part * size, tl.minimum(begin + (part + 1) * size, end), BLOCK_J):
        j = first + tl.arange(0, BLOCK_J)
        in_j = j < end
        jx, jy, jz = load_three(turns_ptr, j, in_j)
        K = _kernel_tile(
            ix, iy, iz, jx, jy, jz, miller_ptr, weights_ptr, modes_begin, modes_end, DTYPE, BLOCK_I, BLOCK_J, BLOCK_M
        )
        B = tl.zeros((BLOCK_I, BLOCK_J), DTYPE)
        for head in range(n_heads):
            S = _scores(q_ptr, k_ptr, i, in_i, j, in_j, head, d, n_heads, BLOCK_I, BLOCK_J, BLOCK_D)
            T = _scores(g_ptr, v_ptr, i, in_i, j, in_j, head, d_v, n_heads, BLOCK_I, BLOCK_J, BLOCK_D)
            B += S * T
            _add_product(gq_ptr + wide, T * K, k_ptr, i, in_i, j, in_j, head, d, n_heads, BLOCK_D)
            S = _scores(k_ptr, q_ptr, i, in_i, j, in_j, head, d, n_heads, BLOCK_I, BLOCK_J, BLOCK_D)
            T = _scores(v_ptr, g_ptr, i, in_i, j, in_j, head, d_v, n_heads, BLOCK_I, BLOCK_J, BLOCK_D)
            B += S * T
            _add_product(gk_ptr + wide, T * K, q_ptr, i, in_i, j, in_j, head, d, n_heads, BLOCK_D)
            _add_product(gv_ptr + narrow, S * K, g_ptr, i, in_i, j, in_j, head, d_v, n_heads, BLOCK_D)
        for low in range(modes_begin, modes_end, BLOCK_M):
            m = low + tl.arange(0, BLOCK_M)
            in_m = m < modes_end
            nx, ny, nz = load_three(miller_ptr, m, in_m)
            mx, my, mz = nx.to(ix.dtype), ny.to(ix.dtype), nz.to(ix.dtype)
            cos_j, sin_j = cos_sin(jx[:, None] * mx[None, :] + jy[:, None] * my[None, :] + jz[:, None] * mz[None, :])
            of_cos = tl.dot(B, cos_j, input_precision="ieee", out_dtype=DTYPE)
            of_sin = tl.dot(B, sin_j, input_precision="ieee", out_dtype=DTYPE)
            cos_i, sin_i = cos_sin(ix[:, None] * mx[None, :] + iy[:, None] * my[None, :] + iz[:, None] * mz[None, :])
            per_mode = tl.sum(cos_i * of_cos + sin_i * of_sin, 0).to(tl.float64)
            tl.store(row_ptr + m, tl.load(row_ptr + m, mask=in_m, other=0.0) + per_mode, mask=in_m)
            weight = tl.load(weights_ptr + m, mask=in_m, other=0.0)
            per_phase = (cos_i * of_sin - sin_i * of_cos) * weight[None, :]
            fx += tl.sum(per_phase * nx.to(DTYPE)[None, :], 1).to(tl.float64)
            fy += tl.sum(per_phase * ny.to(DTYPE)[None, :], 1).to(tl.float64)
            fz += tl.sum(per_phase * nz.to(DTYPE)[None, :], 1).to(tl.float64)
        tl.debug_barrier()  # the next tile reads the sums that this one has written
    at = gf_ptr + 3 * (part * n_atoms + i)
    tl.store(at, fx, mask=in_i)
    tl.store(at + 1, fy, mask=in_i)
    tl.store(at + 2, fz, mask=in_i)


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
    return max(1, min(N_PROGRAMS // n_tiles, triton.cdiv(n_atoms, BLOCK_J)))


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
            q.contiguous(), k.contiguous(), v.contiguous(), fixed_turns(fractional, q.dtype), miller.contiguous(),
            weights.to(q.dtype).contiguous(), table, u, n_atoms, n_heads, d, d_v, **tiles(d, d_v), **OPTIONS,
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
        _pairwise_bwd_kernel[(len(table), parts)](
            *(x.contiguous() for x in (g, q, k, v)), fixed_turns(fractional, q.dtype), miller.contiguous(),
            weights.to(q.dtype).contiguous(), table, gq, gk, gv, gf, per_tile, n_atoms, n_heads, d, d_v, longest,
            **tiles(d, d_v), **OPTIONS,
        )  # fmt: skip
        if n_modes:
            _pairwise_modes_kernel[(n_systems, triton.cdiv(longest, BLOCK_SUM))](
                per_tile, ranges, mode_ptr.contiguous(), gw, parts, longest, BLOCK_M=BLOCK_SUM, **OPTIONS
            )
    scale = 1.0 / math.sqrt(d)
    leaves = (_total(x, scale).to(q.dtype) for x in (gq, gk, gv))
    return (*leaves, _total(gf, 4.0 * math.pi * scale), gw * scale)


def _total(parts: Tensor, scale: float) -> Tensor:
    return parts.sum(0).mul_(scale)


def _check_dtype(q: Tensor) -> None:
    if q.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"`q` must be float32 or float64 here, got {q.dtype}")
