"""Cosine and sine of 2π n·f from fixed-point turns, for the Triton kernels of reciprocal space.

A coordinate is kept as a whole number of 2⁻³² turns (for float32) or 2⁻⁶⁴ turns (for float64). Integer arithmetic wraps
where a turn ends, so n·f mod 1 is exact for every n, and positions in another cell are the same number. What is
left of the phase after taking off quarter turns is below π/4, where a polynomial is good to the last bit or two; the
library's double-precision sine would bring its slow path for large arguments, with a stack, into every kernel.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

_RADIANS_32 = tl.constexpr(2.0 * math.pi / 2**32)
_RADIANS_64 = tl.constexpr(2.0 * math.pi / 2**64)


def fixed_turns(fractional: Tensor, dtype: torch.dtype) -> Tensor:
    """Fractional coordinates (n_atoms, 3) float64 modulo one turn: int32 of 2⁻³² turns, or int64 for float64."""
    half = fractional - fractional.round()
    half = torch.where(half >= 0.5, half - 1.0, half)
    whole = (half * 2.0**64).to(torch.int64)
    if dtype == torch.float64:
        return whole.contiguous()
    # Rounded, not cut off; adding wraps at half a turn as it should.
    return ((whole + (1 << 31)) >> 32).to(torch.int32).contiguous()


def nan_or_zero(fractional: Tensor, dtype: torch.dtype) -> Tensor:
    """NaN for atoms without a place, (n_atoms,), else 0: whole numbers of turns cannot carry it to the results."""
    return (fractional.sum(1) * 0.0).to(dtype)


@triton.jit
def cos_sin(turns):
    """Cosine and sine of fixed-point turns: float32 from int32, float64 from int64, to 2⁻²³ and 2⁻⁵² absolute."""
    if turns.dtype == tl.int64:
        quarter = (turns + 0x2000000000000000) >> 62
        x = (turns - (quarter << 62)).to(tl.float64) * _RADIANS_64
        y = x * x
        s = 2.7557313722216027e-06 + y * (-2.505076236491154e-08 + y * 1.5897020849892788e-10)
        s = -0.16666666666666633 + y * (0.008333333333322565 + y * (-0.000198412698299082 + y * s))
        c = -2.7557314637379200e-07 + y * (2.0875758494494641e-09 + y * -1.1361326595486680e-11)
        c = 0.041666666666666613 + y * (-0.0013888888888876148 + y * (2.4801587290585991e-05 + y * c))
    else:
        quarter = (turns + 0x20000000) >> 30
        x = (turns - (quarter << 30)).to(tl.float32) * _RADIANS_32
        y = x * x
        s = -0.16666655001970378 + y * (0.008332180857208866 + y * -0.00019517592820615873)
        c = 0.0416666471201206 + y * (-0.0013887377909533218 + y * 2.4439304483044489e-05)
    sin = x + x * (y * s)
    cos = 1.0 - (0.5 * y - y * (y * c))
    odd = (quarter & 1) != 0
    cos_turned = tl.where(odd, sin, cos)
    sin_turned = tl.where(odd, cos, sin)
    cos_turned = tl.where(((quarter + 1) & 2) != 0, -cos_turned, cos_turned)
    sin_turned = tl.where((quarter & 2) != 0, -sin_turned, sin_turned)
    return cos_turned, sin_turned


@triton.jit
def load_three(ptr, index, mask):
    """The three components of rows of an (n, 3) array; zeros where masked."""
    at = ptr + 3 * index
    return tl.load(at, mask=mask, other=0), tl.load(at + 1, mask=mask, other=0), tl.load(at + 2, mask=mask, other=0)
