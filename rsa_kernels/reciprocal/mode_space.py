"""Attention, accumulate and gather through the states of the waves, on any `Transform`: value and two derivatives.

One system at a time. Notation of the README: with the pair of leaves x ⊗ y of every atom as channels,

    P = Σ_i e^{iθ_i} q_i ⊗ g_i,   R = Σ_j e^{iθ_j} k_j ⊗ v_j,   L = Σ_i g_i·u_i = s Σ_m 2 w_m P_m·R_m,   s = 1/√d

so that every derivative is again a sum over waves followed by a gather. The second derivative is the rate of the
first along given directions a_q, a_k, a_v, a_f, a_w (a Hessian-vector product).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .transform import Transform


class Channels(NamedTuple):
    """A block of channels: heads, and rows of the d × d_v outer product in each head."""

    heads: slice
    rows: slice


def channel_blocks(heads: int, d: int, d_v: int, width: int) -> Iterator[Channels]:
    """Cut heads · d · d_v channels into even blocks of at most `width` (at least d_v): whole heads where they fit."""
    whole = _even(heads, max(width // (d * d_v), 1))
    rows = _even(d, max(width // d_v, 1))
    for head in range(0, heads, whole):
        for row in range(0, d, rows):
            yield Channels(slice(head, min(head + whole, heads)), slice(row, min(row + rows, d)))


def _even(total: int, largest: int) -> int:
    """Size of the parts when `total` is cut into as few as hold at most `largest`."""
    return math.ceil(total / math.ceil(total / largest))


class Stream(NamedTuple):
    """One transform of a slice of the modes, with the blocks of channels it is to be run on."""

    modes: slice
    transform: Transform
    blocks: tuple[Channels, ...]


def outer(x: Tensor, y: Tensor, block: Channels) -> Tensor:
    """x ⊗ y of the block, flat: (n_atoms, channels)."""
    return (x[:, block.heads, block.rows].unsqueeze(-1) * y[:, block.heads].unsqueeze(-2)).flatten(1)


class _Sums:
    """Adds what the blocks contribute to tensors shaped like the leaves."""

    def __init__(self, block: Channels, d_v: int):
        self.block, self.d_v = block, d_v

    def _unflat(self, y: Tensor) -> Tensor:
        heads = self.block.heads.stop - self.block.heads.start
        return y.view(y.shape[0], heads, -1, self.d_v)

    def onto_rows(self, target: Tensor, y: Tensor, right: Tensor) -> None:
        """Add y·right, contracted over d_v."""
        here = (self._unflat(y) * right[:, self.block.heads].unsqueeze(-2)).sum(-1)
        target[:, self.block.heads, self.block.rows] += here

    def onto_columns(self, target: Tensor, y: Tensor, left: Tensor) -> None:
        """Add left·y, contracted over d."""
        here = (self._unflat(y) * left[:, self.block.heads, self.block.rows].unsqueeze(-1)).sum(-2)
        target[:, self.block.heads] += here


def attention(q: Tensor, k: Tensor, v: Tensor, weights: Tensor, streams: Iterator[Stream]) -> Tensor:
    """u_i = s q_i·Σ_m 2 w_m Re(e^{−iθ_im} R_m)."""
    u = torch.zeros_like(v)
    for modes, transform, blocks in streams:
        scale = _scale(weights[modes], q)
        for block in blocks:
            states = transform.accumulate(outer(k, v, block)) * scale
            y, _ = transform.gather(transform.field(states))
            _Sums(block, v.shape[-1]).onto_columns(u, y, q)
    return u


def attention_backward(g, q, k, v, weights, streams: Iterator[Stream]) -> tuple[Tensor, ...]:
    """Gradient of Σ_i g_i·u_i with respect to q, k, v, fractional coordinates and weights."""
    gq, gk, gv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    gf, gw = _like_fractional(q), torch.zeros_like(weights)
    for modes, transform, blocks in streams:
        scale = _scale(weights[modes], q)
        for block in blocks:
            sums = _Sums(block, v.shape[-1])
            p, r = outer(q, g, block), outer(k, v, block)
            zp, zr = transform.accumulate(p), transform.accumulate(r)
            gw[modes] += _per_mode(zp, zr)
            y, pull = transform.gather(transform.field(zr * scale), p)
            gf += pull
            sums.onto_rows(gq, y, g)
            y, pull = transform.gather(transform.field(zp * scale), r)
            gf += pull
            sums.onto_rows(gk, y, v)
            sums.onto_columns(gv, y, k)
    return gq, gk, gv, gf, gw.mul_(_mode_factor(q))


def attention_backward_backward(aq, ak, av, af, aw, g, q, k, v, weights, streams) -> tuple[Tensor, ...]:
    """Gradient of Σ a·(gradients of `attention_backward`) with respect to g, q, k, v, coordinates and weights."""
    hg, hq, hk, hv = torch.zeros_like(g), torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    hf, hw = _like_fractional(q), torch.zeros_like(weights)
    for modes, transform, blocks in streams:
        scale, dscale = _scale(weights[modes], q), _scale(aw[modes], q)
        for block in blocks:
            sums = _Sums(block, v.shape[-1])
            p, r = outer(q, g, block), outer(k, v, block)
            dp, dr = outer(aq, g, block), outer(ak, v, block) + outer(k, av, block)
            zp, zr = transform.accumulate(p), transform.accumulate(r)
            dzp = transform.accumulate(dp) + transform.accumulate_tangent(p, af)
            dzr = transform.accumulate(dr) + transform.accumulate_tangent(r, af)
            hw[modes] += _per_mode(dzp, zr) + _per_mode(zp, dzr)
            y, dy, rate = _gather_with_rate(transform, zr * scale, dzr * scale + zr * dscale, p, dp, af)
            hf += rate
            sums.onto_columns(hg, y, aq)
            sums.onto_columns(hg, dy, q)
            sums.onto_rows(hq, dy, g)
            y, dy, rate = _gather_with_rate(transform, zp * scale, dzp * scale + zp * dscale, r, dr, af)
            hf += rate
            sums.onto_rows(hk, dy, v)
            sums.onto_rows(hk, y, av)
            sums.onto_columns(hv, dy, k)
            sums.onto_columns(hv, y, ak)
    return hg, hq, hk, hv, hf, hw.mul_(_mode_factor(q))


def accumulate(k: Tensor, v: Tensor, streams: Iterator[Stream]) -> Tensor:
    """R, (2, n_modes, heads, d, d_v)."""
    parts = []
    for modes, transform, blocks in streams:
        parts.append(k.new_empty((2, modes.stop - modes.start, *k.shape[1:], v.shape[-1])))
        for block in blocks:
            target = parts[-1][:, :, block.heads, block.rows]
            target.copy_(transform.accumulate(outer(k, v, block)).view(target.shape))
    return torch.cat(parts, dim=1)


def accumulate_backward(g, k, v, streams: Iterator[Stream]) -> tuple[Tensor, ...]:
    """Gradient of Σ g·states with respect to k, v and fractional coordinates."""
    gk, gv, gf = torch.zeros_like(k), torch.zeros_like(v), _like_fractional(k)
    for modes, transform, blocks in streams:
        for block in blocks:
            sums = _Sums(block, v.shape[-1])
            y, pull = transform.gather(transform.field(_states(g, modes, block)), outer(k, v, block))
            gf += pull
            sums.onto_rows(gk, y, v)
            sums.onto_columns(gv, y, k)
    return gk, gv, gf


def accumulate_backward_backward(ak, av, af, g, k, v, streams: Iterator[Stream]) -> tuple[Tensor, ...]:
    """Gradient of Σ a·(gradients of `accumulate_backward`) with respect to g, k, v and coordinates."""
    hg, hk, hv, hf = torch.zeros_like(g), torch.zeros_like(k), torch.zeros_like(v), _like_fractional(k)
    for modes, transform, blocks in streams:
        for block in blocks:
            sums = _Sums(block, v.shape[-1])
            r, dr = outer(k, v, block), outer(ak, v, block) + outer(k, av, block)
            target = hg[:, modes, block.heads, block.rows]
            target.copy_((transform.accumulate(dr) + transform.accumulate_tangent(r, af)).view(target.shape))
            field = transform.field(_states(g, modes, block))
            y, pull = transform.gather(field, dr)
            dy, dpull = transform.gather_tangent(field, af, r)
            hf += pull + dpull
            sums.onto_rows(hk, dy, v)
            sums.onto_rows(hk, y, av)
            sums.onto_columns(hv, dy, k)
            sums.onto_columns(hv, y, ak)
    return hg, hk, hv, hf


def gather(q: Tensor, states: Tensor, weights: Tensor, streams: Iterator[Stream]) -> Tensor:
    """u_i = s q_i·Σ_m 2 w_m Re(e^{−iθ_im} states_m)."""
    u = q.new_zeros((*q.shape[:2], states.shape[-1]))
    for modes, transform, blocks in streams:
        scale = _scale(weights[modes], q)
        for block in blocks:
            y, _ = transform.gather(transform.field(_states(states, modes, block) * scale))
            _Sums(block, states.shape[-1]).onto_columns(u, y, q)
    return u


def gather_backward(g, q, states, weights, streams: Iterator[Stream]) -> tuple[Tensor, ...]:
    """Gradient of Σ g·u with respect to q, states, fractional coordinates and weights."""
    gq, gs, gf, gw = torch.zeros_like(q), torch.zeros_like(states), _like_fractional(q), torch.zeros_like(weights)
    for modes, transform, blocks in streams:
        scale = _scale(weights[modes], q)
        for block in blocks:
            z, p = _states(states, modes, block), outer(q, g, block)
            zp = transform.accumulate(p)
            gw[modes] += _per_mode(zp, z)
            target = gs[:, modes, block.heads, block.rows]
            target.copy_((zp * scale).view(target.shape))
            y, pull = transform.gather(transform.field(z * scale), p)
            gf += pull
            _Sums(block, states.shape[-1]).onto_rows(gq, y, g)
    return gq, gs, gf, gw.mul_(_mode_factor(q))


def gather_backward_backward(aq, as_, af, aw, g, q, states, weights, streams) -> tuple[Tensor, ...]:
    """Gradient of Σ a·(gradients of `gather_backward`) with respect to g, q, states, coordinates and weights."""
    hg, hq, hs = torch.zeros_like(g), torch.zeros_like(q), torch.zeros_like(states)
    hf, hw = _like_fractional(q), torch.zeros_like(weights)
    for modes, transform, blocks in streams:
        scale, dscale = _scale(weights[modes], q), _scale(aw[modes], q)
        for block in blocks:
            sums = _Sums(block, states.shape[-1])
            z, dz = _states(states, modes, block), _states(as_, modes, block)
            p, dp = outer(q, g, block), outer(aq, g, block)
            zp = transform.accumulate(p)
            dzp = transform.accumulate(dp) + transform.accumulate_tangent(p, af)
            hw[modes] += _per_mode(dzp, z) + _per_mode(zp, dz)
            target = hs[:, modes, block.heads, block.rows]
            target.copy_((dzp * scale + zp * dscale).view(target.shape))
            y, dy, rate = _gather_with_rate(transform, z * scale, dz * scale + z * dscale, p, dp, af)
            hf += rate
            sums.onto_columns(hg, y, aq)
            sums.onto_columns(hg, dy, q)
            sums.onto_rows(hq, dy, g)
    return hg, hq, hs, hf, hw.mul_(_mode_factor(q))


def _gather_with_rate(transform: Transform, z, dz, x, dx, a) -> tuple[Tensor, Tensor, Tensor]:
    """y of states z, its rate, and the rate of the pull on x, as z, x and coordinates move along dz, dx and a."""
    field = transform.field(z)
    y, pull = transform.gather(field, dx)
    dy, dpull = transform.gather_tangent(field, a, x)
    of_dz, pull_of_dz = transform.gather(transform.field(dz), x)
    return y, dy + of_dz, pull + dpull + pull_of_dz


def _mode_factor(q: Tensor) -> float:
    return 2.0 / math.sqrt(q.shape[-1])


def _scale(weights: Tensor, q: Tensor) -> Tensor:
    """2 s w_m, to multiply states (2, n_modes, channels) with."""
    return (weights * _mode_factor(q)).to(q.dtype).view(1, -1, 1)


def _per_mode(one: Tensor, other: Tensor) -> Tensor:
    """one·other of every mode, summed in float64."""
    return (one * other).sum(dim=(0, 2), dtype=torch.float64)


def _states(states: Tensor, modes: slice, block: Channels) -> Tensor:
    return states[:, modes, block.heads, block.rows].flatten(2)


def _like_fractional(x: Tensor) -> Tensor:
    return torch.zeros((x.shape[0], 3), dtype=torch.float64, device=x.device)
