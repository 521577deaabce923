"""Philox4x32-10 and its normal variates in plain torch: the definition."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_LOW = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)


def _multiply(factor: int, word: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of factor · word, from 16-bit halves so that int64 never overflows."""
    low = factor * (word & 0xFFFF)
    high = factor * (word >> 16)
    total = (high & 0xFFFF) * 0x10000 + low
    return (high >> 16) + (total >> 32), total & _LOW


def bits(seed: int, step: int, ids: Tensor, stream: int = 0) -> Tensor:
    """Four 32-bit words for each id, (n, 4) int64 in [0, 2³²); see `rsa_kernels.random.bits`."""
    key0, key1 = seed & _LOW, (seed >> 32) & _LOW
    c0 = torch.full_like(ids, step & _LOW)
    c1 = torch.full_like(ids, (step >> 32 & 0xFFFF) | stream << 16)
    c2, c3 = ids & _LOW, (ids >> 32) & _LOW
    for _ in range(10):
        high0, low0 = _multiply(_MULTIPLIERS[0], c0)
        high1, low1 = _multiply(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ key0, low1, high0 ^ c3 ^ key1, low0
        key0, key1 = (key0 + _KEY_STEPS[0]) & _LOW, (key1 + _KEY_STEPS[1]) & _LOW
    return torch.stack([c0, c1, c2, c3], dim=-1)


def normal(seed: int, step: int, ids: Tensor, stream: int = 0) -> Tensor:
    """Three standard normal variates for each id, (n, 3) float64; see `rsa_kernels.random.normal`."""
    uniform = (bits(seed, step, ids, stream).double() + 0.5) * 2.0**-32
    radius = torch.sqrt(-2.0 * torch.log(uniform[:, 0::2]))
    angle = 2.0 * math.pi * uniform[:, 1::2]
    cosine, sine = radius * torch.cos(angle), radius * torch.sin(angle)
    return torch.stack([cosine[:, 0], sine[:, 0], cosine[:, 1]], dim=-1)
