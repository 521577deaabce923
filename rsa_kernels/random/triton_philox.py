"""The counter-based random numbers on a GPU: one program fills a block of ids."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 256


@triton.jit
def _words(seed, step, stream, ids):
    # Small arguments arrive as int32; widened first, so that signs and shifts mean what they say.
    seed, step, stream = seed.to(tl.int64), step.to(tl.int64), stream.to(tl.int64)
    key0, key1 = seed.to(tl.uint32), (seed >> 32).to(tl.uint32)
    zero = ids.to(tl.uint32) * 0
    c0 = zero + step.to(tl.uint32)
    c1 = zero + (((step >> 32) & 0xFFFF) | (stream << 16)).to(tl.uint32)
    c2, c3 = ids.to(tl.uint32), (ids >> 32).to(tl.uint32)
    for _ in tl.static_range(10):
        even, odd = c0, c2
        c0 = tl.umulhi(odd, zero + 0xCD9E8D57) ^ c1 ^ key0
        c2 = tl.umulhi(even, zero + 0xD2511F53) ^ c3 ^ key1
        c1, c3 = odd * (zero + 0xCD9E8D57), even * (zero + 0xD2511F53)
        key0 += 0x9E3779B9
        key1 += 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit(do_not_specialize=["seed", "step", "stream", "n"])
def _random_bits_kernel(ids_ptr, out_ptr, seed, step, stream, n, BLOCK: tl.constexpr):
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = index < n
    ids = tl.load(ids_ptr + index, mask=mask, other=0)
    w0, w1, w2, w3 = _words(seed, step, stream, ids)
    tl.store(out_ptr + 4 * index, w0.to(tl.int64), mask=mask)
    tl.store(out_ptr + 4 * index + 1, w1.to(tl.int64), mask=mask)
    tl.store(out_ptr + 4 * index + 2, w2.to(tl.int64), mask=mask)
    tl.store(out_ptr + 4 * index + 3, w3.to(tl.int64), mask=mask)


@triton.jit
def _uniform(word):
    return (word.to(tl.float64) + 0.5) * 2.3283064365386963e-10  # 2^-32


@triton.jit(do_not_specialize=["seed", "step", "stream", "n"])
def _random_normal_kernel(ids_ptr, out_ptr, seed, step, stream, n, BLOCK: tl.constexpr):
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = index < n
    ids = tl.load(ids_ptr + index, mask=mask, other=0)
    w0, w1, w2, w3 = _words(seed, step, stream, ids)
    radius0 = tl.sqrt(-2.0 * tl.log(_uniform(w0)))
    radius1 = tl.sqrt(-2.0 * tl.log(_uniform(w2)))
    angle0 = 6.283185307179586 * _uniform(w1)
    tl.store(out_ptr + 3 * index, radius0 * tl.cos(angle0), mask=mask)
    tl.store(out_ptr + 3 * index + 1, radius0 * tl.sin(angle0), mask=mask)
    tl.store(out_ptr + 3 * index + 2, radius1 * tl.cos(6.283185307179586 * _uniform(w3)), mask=mask)


def bits_(out: Tensor, seed: int, step: int, ids: Tensor, stream: int) -> Tensor:
    """Fill `out` (n, 4) int64 with the words of `rsa_kernels.random.bits`."""
    return _launch(_random_bits_kernel, out, seed, step, ids, stream)


def normal_(out: Tensor, seed: int, step: int, ids: Tensor, stream: int) -> Tensor:
    """Fill `out` (n, 3) float64 with the variates of `rsa_kernels.random.normal`."""
    return _launch(_random_normal_kernel, out, seed, step, ids, stream)


def _launch(kernel, out: Tensor, seed: int, step: int, ids: Tensor, stream: int) -> Tensor:
    n = ids.numel()
    if n:
        with torch.cuda.device_of(ids):
            kernel[(triton.cdiv(n, BLOCK),)](ids, out, seed, step, stream, n, BLOCK=BLOCK)
    return out
