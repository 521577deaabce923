"""The direct sum over waves on a GPU, in Triton: the `Transform` of one system, nothing of size N · M kept.

Imported when a kernel first runs on a CUDA device, never before.

Three kernels are all there is, each a matrix product of which one side, the waves, is made in registers:

    accumulate  z_m = Σ_j (cos θ_jm, sin θ_jm) x_j            a tile of modes × channels, over the atoms
    gather      y_i = Σ_m cos θ_im z_0m + sin θ_im z_1m       a tile of atoms × channels, over the modes
    pull        Σ_m 2π n_m (cos θ_im x_i·z_1m − sin θ_im x_i·z_0m)      a tile of atoms, over the modes and channels

each of 4 n_atoms n_modes C flops. With TANGENT the waves are exchanged for their rate as the coordinates move along a,
(−sin θ, cos θ) · 2π n·a, which makes the three tangents of the protocol at the price of the value.

A wave costs about 25 instructions and serves BLOCK_C channels, 64 of them: a fifth of the time, all of it below 16.
From memory, a tile of 64 atoms or modes reads x or z once, 4 or 8 bytes for 64 × 2 multiply-adds. Sums are taken in
the dtype of the channels over SEGMENT terms and go on in float64 registers. With few tiles the sum is shared out over
parts, which are added in a fixed order: results are bitwise reproducible. Tiles: 64 × 64 sums are 16 registers of 8
warps, twice in accumulate and pull (half as many columns in float64), with a float64 total beside them. Float32
products are exact multiply-adds ("ieee"), not tf32; float64 products run on the tensor cores.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from .triton_phases import cos_sin, fixed_turns, load_three, nan_or_zero

ROWS = 64
SEGMENT = 1024
OPTIONS = {"num_warps": 8, "num_stages": 1, "enable_fp_fusion": True, "maxnreg": 255}
"""Fused multiply-adds are stated here, so that no environment variable decides on them; so are all the registers there
are, or the assembler would rather spill a few to fit two programs on a multiprocessor."""
N_PROGRAMS, SHORTEST = 512, 256
"""Few tiles are shared out over parts of at least SHORTEST terms until there are so many programs."""


def columns(dtype: torch.dtype, n_channels: int) -> int:
    """BLOCK_C: channels side by side; they are padded to whole multiples of it."""
    return 16 if n_channels <= 16 else 32 if dtype == torch.float64 else 64


def accumulate_tile(dtype: torch.dtype, n_channels: int) -> dict[str, int]:
    """Modes × channels, and atoms a step."""
    return {"BLOCK_M": ROWS, "BLOCK_C": columns(dtype, n_channels), "BLOCK_N": 16}


def gather_tile(dtype: torch.dtype, n_channels: int) -> dict[str, int]:
    """Atoms × channels, and modes a step."""
    return {"BLOCK_N": ROWS, "BLOCK_C": columns(dtype, n_channels), "BLOCK_M": 16}


PULL_TILE = {"BLOCK_N": ROWS, "BLOCK_M": 32, "BLOCK_C": 16}


@triton.jit
def _waves(fx, fy, fz, ax, ay, az, nx, ny, nz, TANGENT: tl.constexpr):
    """Cosine and sine of 2π n·f from fixed-point turns f, or their rate as 2π f moves along a."""
    cos, sin = cos_sin(fx * nx.to(fx.dtype) + fy * ny.to(fx.dtype) + fz * nz.to(fx.dtype))
    if TANGENT:
        rate = ax * nx.to(cos.dtype) + ay * ny.to(cos.dtype) + az * nz.to(cos.dtype)
        return -sin * rate, cos * rate
    return cos, sin


@triton.jit
def _load_tile(ptr, stride, n_rows, n_columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """A (ROWS, COLUMNS) tile at ptr of which n_rows and n_columns exist; zeros outside. Offsets in it fit 32 bits."""
    row, column = tl.arange(0, ROWS)[:, None], tl.arange(0, COLUMNS)[None, :]
    return tl.load(ptr + (row * stride + column), mask=(row < n_rows) & (column < n_columns), other=0.0)


@triton.jit
def _store_tile(ptr, tile, stride, n_rows, n_columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row, column = tl.arange(0, ROWS)[:, None], tl.arange(0, COLUMNS)[None, :]
    tile = tile.to(ptr.dtype.element_ty)
    tl.store(ptr + (row * stride + column), tile, mask=(row < n_rows) & (column < n_columns))


@triton.jit
def _part(axis: tl.constexpr, n, BLOCK: tl.constexpr):
    """First and last of the terms of this program's part, whole blocks of n terms shared out over the axis."""
    size = tl.cdiv(tl.cdiv(n, BLOCK), tl.num_programs(axis)) * BLOCK
    first = tl.program_id(axis) * size
    return first, tl.minimum(first + size, n)


@triton.jit(do_not_specialize=["n_atoms", "n_modes", "n_channels"])
def _accumulate_fwd_kernel(
    x_ptr, turns_ptr, along_ptr, miller_ptr, z_ptr, n_atoms: tl.int64, n_modes: tl.int64, n_channels: tl.int32,
    TANGENT: tl.constexpr, SEGMENT: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """z[part, :, m, c] = Σ_j (cos θ_jm, sin θ_jm) x_jc over the part-th of num_programs(2) parts of the atoms."""
    DTYPE: tl.constexpr = x_ptr.dtype.element_ty
    mode = tl.program_id(0).to(tl.int64) * BLOCK_M
    channel = tl.program_id(1) * BLOCK_C
    m, row = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N)
    nx, ny, nz = load_three(miller_ptr + 3 * mode, m, m < n_modes - mode)
    nx, ny, nz = nx[:, None], ny[:, None], nz[:, None]
    of_cos, of_sin = tl.zeros((BLOCK_M, BLOCK_C), tl.float64), tl.zeros((BLOCK_M, BLOCK_C), tl.float64)
    first, last = _part(2, n_atoms, BLOCK_N)
    for segment in range(first, last, SEGMENT):
        cos_sum, sin_sum = tl.zeros((BLOCK_M, BLOCK_C), DTYPE), tl.zeros((BLOCK_M, BLOCK_C), DTYPE)
        for atom in range(segment, tl.minimum(segment + SEGMENT, last), BLOCK_N):
            n_rows = (last - atom).to(tl.int32)
            fx, fy, fz = load_three(turns_ptr + 3 * atom, row, row < n_rows)
            ax, ay, az = fx, fy, fz
            if TANGENT:
                ax, ay, az = load_three(along_ptr + 3 * atom, row, row < n_rows)
            cos, sin = _waves(
                fx[None, :], fy[None, :], fz[None, :], ax[None, :], ay[None, :], az[None, :], nx, ny, nz, TANGENT
            )
            x = _load_tile(
                x_ptr + atom * n_channels + channel, n_channels, n_rows, n_channels - channel, BLOCK_N, BLOCK_C
            )
            cos_sum = tl.dot(cos, x, cos_sum, input_precision="ieee", out_dtype=DTYPE)
            sin_sum = tl.dot(sin, x, sin_sum, input_precision="ieee", out_dtype=DTYPE)
        of_cos += cos_sum.to(tl.float64)
        of_sin += sin_sum.to(tl.float64)
    z_ptr += (2 * tl.program_id(2) * n_modes + mode) * n_channels + channel
    n_rows, n_columns = (n_modes - mode).to(tl.int32), n_channels - channel
    _store_tile(z_ptr, of_cos, n_channels, n_rows, n_columns, BLOCK_M, BLOCK_C)
    _store_tile(z_ptr + n_modes * n_channels, of_sin, n_channels, n_rows, n_columns, BLOCK_M, BLOCK_C)


@triton.jit(do_not_specialize=["n_atoms", "n_modes", "n_channels"])
def _gather_fwd_kernel(
    z_ptr, turns_ptr, along_ptr, miller_ptr, y_ptr, n_atoms: tl.int64, n_modes: tl.int64, n_channels: tl.int32,
    TANGENT: tl.constexpr, SEGMENT: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """y[part, i, c] = Σ_m cos θ_im z_0mc + sin θ_im z_1mc over the part-th of num_programs(2) parts of the modes."""
    DTYPE: tl.constexpr = z_ptr.dtype.element_ty
    atom = tl.program_id(0).to(tl.int64) * BLOCK_N
    channel = tl.program_id(1) * BLOCK_C
    m, row = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N)
    n_rows, n_columns = tl.minimum(n_atoms - atom, BLOCK_N).to(tl.int32), n_channels - channel
    fx, fy, fz = load_three(turns_ptr + 3 * atom, row, row < n_rows)
    ax, ay, az = fx, fy, fz
    if TANGENT:
        ax, ay, az = load_three(along_ptr + 3 * atom, row, row < n_rows)
    y = tl.zeros((BLOCK_N, BLOCK_C), tl.float64)
    first, last = _part(2, n_modes, BLOCK_M)
    for segment in range(first, last, SEGMENT):
        total = tl.zeros((BLOCK_N, BLOCK_C), DTYPE)
        for mode in range(segment, tl.minimum(segment + SEGMENT, last), BLOCK_M):
            n_m = (last - mode).to(tl.int32)
            nx, ny, nz = load_three(miller_ptr + 3 * mode, m, m < n_m)
            cos, sin = _waves(
                fx[:, None], fy[:, None], fz[:, None], ax[:, None], ay[:, None], az[:, None],
                nx[None, :], ny[None, :], nz[None, :], TANGENT,
            )  # fmt: skip
            at = z_ptr + mode * n_channels + channel
            z = _load_tile(at, n_channels, n_m, n_columns, BLOCK_M, BLOCK_C)
            total = tl.dot(cos, z, total, input_precision="ieee", out_dtype=DTYPE)
            z = _load_tile(at + n_modes * n_channels, n_channels, n_m, n_columns, BLOCK_M, BLOCK_C)
            total = tl.dot(sin, z, total, input_precision="ieee", out_dtype=DTYPE)
        y += total.to(tl.float64)
    y_ptr += (tl.program_id(2) * n_atoms + atom) * n_channels + channel
    _store_tile(y_ptr, y, n_channels, n_rows, n_columns, BLOCK_N, BLOCK_C)


@triton.jit(do_not_specialize=["n_atoms", "n_modes", "n_channels"])
def _pull_kernel(
    x_ptr, z_ptr, turns_ptr, along_ptr, miller_ptr, pull_ptr,
    n_atoms: tl.int64, n_modes: tl.int64, n_channels: tl.int32,
    TANGENT: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """pull[part, i] = Σ_m n_m (cos θ_im x_i·z_1m − sin θ_im x_i·z_0m) over a part of the modes."""
    DTYPE: tl.constexpr = x_ptr.dtype.element_ty
    atom = tl.program_id(0).to(tl.int64) * BLOCK_N
    m, row = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N)
    n_rows = tl.minimum(n_atoms - atom, BLOCK_N).to(tl.int32)
    fx, fy, fz = load_three(turns_ptr + 3 * atom, row, row < n_rows)
    ax, ay, az = fx, fy, fz
    if TANGENT:
        ax, ay, az = load_three(along_ptr + 3 * atom, row, row < n_rows)
    px, py, pz = tl.zeros((BLOCK_N,), tl.float64), tl.zeros((BLOCK_N,), tl.float64), tl.zeros((BLOCK_N,), tl.float64)
    first, last = _part(1, n_modes, BLOCK_M)
    for mode in range(first, last, BLOCK_M):
        n_m = (last - mode).to(tl.int32)
        of_cos, of_sin = tl.zeros((BLOCK_N, BLOCK_M), DTYPE), tl.zeros((BLOCK_N, BLOCK_M), DTYPE)
        for channel in range(0, n_channels, BLOCK_C):
            n_columns = n_channels - channel
            x = _load_tile(x_ptr + atom * n_channels + channel, n_channels, n_rows, n_columns, BLOCK_N, BLOCK_C)
            at = z_ptr + mode * n_channels + channel
            z = _load_tile(at, n_channels, n_m, n_columns, BLOCK_M, BLOCK_C)
            of_cos = tl.dot(x, tl.trans(z), of_cos, input_precision="ieee", out_dtype=DTYPE)
            z = _load_tile(at + n_modes * n_channels, n_channels, n_m, n_columns, BLOCK_M, BLOCK_C)
            of_sin = tl.dot(x, tl.trans(z), of_sin, input_precision="ieee", out_dtype=DTYPE)
        nx, ny, nz = load_three(miller_ptr + 3 * mode, m, m < n_m)
        cos, sin = _waves(
            fx[:, None], fy[:, None], fz[:, None], ax[:, None], ay[:, None], az[:, None],
            nx[None, :], ny[None, :], nz[None, :], TANGENT,
        )  # fmt: skip
        per_phase = cos * of_sin - sin * of_cos
        px += tl.sum(per_phase * nx.to(DTYPE)[None, :], 1).to(tl.float64)
        py += tl.sum(per_phase * ny.to(DTYPE)[None, :], 1).to(tl.float64)
        pz += tl.sum(per_phase * nz.to(DTYPE)[None, :], 1).to(tl.float64)
    at = pull_ptr + 3 * (tl.program_id(1) * n_atoms + atom + row)
    tl.store(at, px, mask=row < n_rows)
    tl.store(at + 1, py, mask=row < n_rows)
    tl.store(at + 2, pz, mask=row < n_rows)


def _n_parts(n_tiles: int, n_terms: int) -> int:
    """Parts of a sum of n_terms, from sizes alone: they are part of the result's last bits."""
    return max(1, min(N_PROGRAMS // max(n_tiles, 1), n_terms // SHORTEST))


class TritonSpectralTransform:
    """`transform.SpectralTransform` by the kernels of this file. Deterministic; nothing waits for the device.

    An atom at NaN or infinity makes all states NaN, and its own y and pull.
    Besides x, y and z it takes at most 34 MB, for the float64 parts of sums of few tiles.

    Parameters
    ----------
    fractional : Tensor
        (n_atoms, 3) float64.
    miller : Tensor
        (n_modes, 3) int32, all modes of a system or a chunk of them.
    dtype : torch.dtype
        Of the channels: float32 or float64.
    """

    def __init__(self, fractional: Tensor, miller: Tensor, dtype: torch.dtype):
        if dtype not in (torch.float32, torch.float64):
            raise TypeError(f"`dtype` must be float32 or float64 here, got {dtype}")
        self.dtype = dtype
        self.turns = fixed_turns(fractional, dtype)
        self.lost = nan_or_zero(fractional, dtype)
        self.miller = miller.to(torch.int32).contiguous()

    def accumulate(self, x: Tensor) -> Tensor:
        """Z_m = Σ_j (cos θ_jm, sin θ_jm) x_j, (2, n_modes, C)."""
        return self._accumulate(x, None)

    def accumulate_tangent(self, x: Tensor, a: Tensor) -> Tensor:
        """Rate of `accumulate` as the fractional coordinates move along a, (n_atoms, 3)."""
        return self._accumulate(x, a)

    def field(self, z: Tensor) -> Tensor:
        """The states themselves, contiguous."""
        return z.to(self.dtype).contiguous()

    def gather(self, field: Tensor, x: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """y_i = Σ_m cos θ_im z_0m + sin θ_im z_1m and, given x, ∂(Σ_i x_i·y_i)/∂f in float64."""
        return self._gather(field, None), None if x is None else self._pull(field, x, None)

    def gather_tangent(self, field: Tensor, a: Tensor, x: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Rates of both results of `gather` as the fractional coordinates move along a."""
        return self._gather(field, a), None if x is None else self._pull(field, x, a)

    def _accumulate(self, x: Tensor, a: Tensor | None) -> Tensor:
        x = x.to(self.dtype).contiguous()
        shape = (2, len(self.miller), x.shape[1])
        z = self._product(_accumulate_fwd_kernel, x, a, shape, len(x), accumulate_tile(self.dtype, x.shape[1]))
        return z.add_(self.lost.sum())

    def _gather(self, field: Tensor, a: Tensor | None) -> Tensor:
        shape = (len(self.turns), field.shape[2])
        tile = gather_tile(self.dtype, field.shape[2])
        y = self._product(_gather_fwd_kernel, field, a, shape, len(self.miller), tile)
        return y.add_(self.lost.unsqueeze(1))

    def _product(self, kernel, source: Tensor, a: Tensor | None, shape, n_terms: int, tile) -> Tensor:
        if n_terms == 0 or math.prod(shape) == 0:
            return source.new_zeros(shape)
        n_rows, n_channels = shape[-2:]
        grid = (triton.cdiv(n_rows, ROWS), triton.cdiv(n_channels, tile["BLOCK_C"]))
        parts = _n_parts(grid[0] * grid[1], n_terms)
        out = source.new_empty((parts, *shape), dtype=self.dtype if parts == 1 else torch.float64)
        with torch.cuda.device_of(source):
            kernel[(*grid, parts)](
                source, self.turns, self._along(a), self.miller, out, len(self.turns), len(self.miller), n_channels,
                TANGENT=a is not None, SEGMENT=SEGMENT, **tile, **OPTIONS,
            )  # fmt: skip
        return out[0] if parts == 1 else out.sum(0).to(self.dtype)

    def _pull(self, field: Tensor, x: Tensor, a: Tensor | None) -> Tensor:
        n_atoms, n_channels = x.shape
        if n_atoms == 0 or field.numel() == 0:
            return self.turns.new_zeros((n_atoms, 3), dtype=torch.float64)
        tiles = triton.cdiv(n_atoms, ROWS)
        parts = _n_parts(tiles, len(self.miller))
        out = self.turns.new_empty((parts, n_atoms, 3), dtype=torch.float64)
        with torch.cuda.device_of(field):
            _pull_kernel[(tiles, parts)](
                x.to(self.dtype).contiguous(), field, self.turns, self._along(a), self.miller, out,
                n_atoms, len(self.miller), n_channels, TANGENT=a is not None, **PULL_TILE, **OPTIONS,
            )  # fmt: skip
        return out.sum(0).mul_(2.0 * math.pi).add_(self.lost.unsqueeze(1))

    def _along(self, a: Tensor | None) -> Tensor:
        """2π a in the dtype of the channels; without a, anything will do."""
        return self.turns if a is None else (2.0 * math.pi * a).to(self.dtype).contiguous()
