"""Attention over tiles of atom pairs, as matrix products: value and two derivatives, nothing of size N² or N·M kept.

One system at a time. With waves E_i = (cos θ_i, sin θ_i) over all modes,

    K_IJ = E_I diag(2w) E_Jᵀ,   S = s q kᵀ,   T = g vᵀ,   u_I += (S∘K) v_J

for tiles I, J of atoms. K is symmetric, so each tile of it serves both (I, J) and (J, I); B = Σ_heads S∘T weighs every
pair in the derivatives with respect to coordinates and weights, which come from the product (B + Bᵀ)_IJ E_J.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from .transform import turned, waves

_TILE = 512
"""Atoms a side: products are large enough for full speed and the N²/2 tiles small enough for the caches."""
_SCORES = 1 << 21
"""Numbers in the largest (heads, tile, tile) temporary."""


def forward(q, k, v, fractional, miller, weights) -> Tensor:
    """u_i = s Σ_j (q_i·k_j) K_ij v_j, (n_atoms, heads, d_v)."""
    q, k, v = _by_head(q), _by_head(k), _by_head(v)
    u, scale = torch.zeros_like(v), 1.0 / math.sqrt(q.shape[-1])
    for pair in _tiles(q, fractional, miller, weights):
        kernel = pair.kernel()
        for one, other, K in pair.directions(kernel):
            scores = (q[:, one] @ k[:, other].mT).mul_(scale).mul_(K)
            u[:, one].baddbmm_(scores, v[:, other])
    return u.transpose(0, 1).contiguous()


def backward(g, q, k, v, fractional, miller, weights) -> tuple[Tensor, ...]:
    """Gradient of Σ_i g_i·u_i with respect to q, k, v, fractional coordinates and weights."""
    g, q, k, v = _by_head(g), _by_head(q), _by_head(k), _by_head(v)
    gq, gk, gv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    gf, gw = torch.zeros_like(fractional), torch.zeros_like(weights)
    scale = 1.0 / math.sqrt(q.shape[-1])
    for pair in _tiles(q, fractional, miller, weights):
        kernel, both = pair.kernel(), None
        for one, other, K in pair.directions(kernel):
            S = (q[:, one] @ k[:, other].mT).mul_(scale)
            T = g[:, one] @ v[:, other].mT
            both = _add_direction(both, pair.is_diagonal, _over_heads(S, T))
            T *= scale
            SK, TK = S.mul_(K), T.mul_(K)
            gq[:, one].baddbmm_(TK, k[:, other])
            gk[:, other].baddbmm_(TK.mT, q[:, one])
            gv[:, other].baddbmm_(SK.mT, g[:, one])
        for atoms, E, W in pair.sides(both):
            gf[atoms] += pair.along(_cross(E, W), pair.w)
            gw += _per_mode(E * W)
    return (*(x.transpose(0, 1).contiguous() for x in (gq, gk, gv)), gf, gw)


def backward_backward(aq, ak, av, af, aw, g, q, k, v, fractional, miller, weights) -> tuple[Tensor, ...]:
    """Gradient of Σ a·(gradients of `backward`) with respect to g, q, k, v, coordinates and weights."""
    aq, ak, av, g, q, k, v = (_by_head(x) for x in (aq, ak, av, g, q, k, v))
    hg, hq, hk, hv = (torch.zeros_like(x) for x in (g, q, k, v))
    hf, hw = torch.zeros_like(fractional), torch.zeros_like(weights)
    scale = 1.0 / math.sqrt(q.shape[-1])
    for pair in _tiles(q, fractional, miller, weights, af, aw):
        kernel, rate = pair.kernel(), pair.kernel_rate()
        both = dboth = None
        for (one, other, K), (_, _, dK) in zip(pair.directions(kernel), pair.directions(rate), strict=True):
            S = (q[:, one] @ k[:, other].mT).mul_(scale)
            dS = (aq[:, one] @ k[:, other].mT).baddbmm_(q[:, one], ak[:, other].mT).mul_(scale)
            T = g[:, one] @ v[:, other].mT
            dT = g[:, one] @ av[:, other].mT
            both = _add_direction(both, pair.is_diagonal, _over_heads(S, T))
            dboth = _add_direction(dboth, pair.is_diagonal, _over_heads(dS, T) + _over_heads(S, dT))
            SK, TK = S * K, (T * K).mul_(scale)
            dSK = dS.mul_(K).addcmul_(S, dK)
            dTK = dT.mul_(K).addcmul_(T, dK).mul_(scale)
            hg[:, one] += dSK @ v[:, other] + SK @ av[:, other]
            hq[:, one] += dTK @ k[:, other] + TK @ ak[:, other]
            hk[:, other] += dTK.mT @ q[:, one] + TK.mT @ aq[:, one]
            hv[:, other].baddbmm_(dSK.mT, g[:, one])
        for (atoms, E, W), (dE, dW) in zip(pair.sides(both), pair.side_rates(both, dboth), strict=True):
            hf[atoms] += pair.along(_cross(dE, W).add_(_cross(E, dW)), pair.w) + pair.along(_cross(E, W), pair.dw)
            hw += _per_mode((dE * W).addcmul_(E, dW))
    return (*(x.transpose(0, 1).contiguous() for x in (hg, hq, hk, hv)), hf, hw)


class _TilePair:
    """Two tiles of atoms (or one, with itself): their waves E, and rates dE along the directions of coordinates."""

    def __init__(self, one: slice, other: slice, waves_of, w: Tensor, dw: Tensor | None, turns: Tensor):
        self.one, self.other, self.is_diagonal = one, other, one == other
        self.w, self.dw, self.turns = w, dw, turns
        self.E_one, self.dE_one = waves_of(one)
        self.E_other, self.dE_other = (self.E_one, self.dE_one) if self.is_diagonal else waves_of(other)

    def kernel(self) -> Tensor:
        """K, one × other; `w` holds 2 w_m for both halves of the waves."""
        return (self.E_one * self.w) @ self.E_other.T

    def kernel_rate(self) -> Tensor:
        rate = (self.E_one * self.dw).addcmul_(self.dE_one, self.w) @ self.E_other.T
        return rate.addmm_(self.E_one * self.w, self.dE_other.T)

    def directions(self, K: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
        """Ordered pairs of tiles with their K."""
        yield self.one, self.other, K
        if not self.is_diagonal:
            yield self.other, self.one, K.T

    def sides(self, both: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Atoms of a tile, their E, and W = (B + Bᵀ) E of the tile they meet.

        Σ_i E_i·W_i over both sides is Σ_ij B_ij 2 cos(θ_i − θ_j): on the diagonal B + Bᵀ counts every pair twice.
        """
        yield self.one, self.E_one, both @ self.E_other
        if not self.is_diagonal:
            yield self.other, self.E_other, both.T @ self.E_one

    def side_rates(self, both: Tensor, dboth: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Rates of E and W of `sides`."""
        yield self.dE_one, (dboth @ self.E_other).addmm_(both, self.dE_other)
        if not self.is_diagonal:
            yield self.dE_other, (dboth.T @ self.E_one).addmm_(both.T, self.dE_one)

    def along(self, per_phase: Tensor, w: Tensor) -> Tensor:
        """Σ_m 2 w_m 2π n_m ∂/∂θ_im, in float64: from derivatives by phase to those by coordinate."""
        n_modes = len(self.turns)
        return (per_phase @ (self.turns * w[:n_modes].unsqueeze(1))).to(torch.float64)


def _tiles(q, fractional, miller, weights, af=None, aw=None) -> Iterator[_TilePair]:
    """Every unordered pair of tiles; waves are computed anew for each, from coordinates inside the cell."""
    heads, n_atoms, _ = q.shape
    tile = tile_size(n_atoms, heads)
    inside = fractional - fractional.floor()
    turns64 = 2.0 * math.pi * miller.to(torch.float64)
    turns = turns64.to(q.dtype)
    w, dw = (None if x is None else (2.0 * x).to(q.dtype).repeat(2) for x in (weights, aw))

    def waves_of(atoms: slice) -> tuple[Tensor, Tensor | None]:
        E = waves(inside[atoms], miller, q.dtype)
        return E, None if af is None else turned(E, (af[atoms] @ turns64.T).to(q.dtype))

    slices = [slice(low, min(low + tile, n_atoms)) for low in range(0, n_atoms, tile)]
    for index, one in enumerate(slices):
        for other in slices[index:]:
            yield _TilePair(one, other, waves_of, w, dw, turns)


def tile_size(n_atoms: int, heads: int) -> int:
    """Atoms a side, equal parts of the system."""
    largest = min(_TILE, math.isqrt(_SCORES // heads))
    return math.ceil(n_atoms / math.ceil(n_atoms / largest)) if n_atoms else 1


def _by_head(x: Tensor) -> Tensor:
    return x.transpose(0, 1).contiguous()


def _over_heads(S: Tensor, T: Tensor) -> Tensor:
    return S[0] * T[0] if len(S) == 1 else (S * T).sum(dim=0)


def _per_mode(of_waves: Tensor) -> Tensor:
    summed = of_waves.sum(dim=0, dtype=torch.float64)
    return summed[: len(summed) // 2] + summed[len(summed) // 2 :]


def _add_direction(both: Tensor | None, is_diagonal: bool, B: Tensor) -> Tensor:
    """(B + Bᵀ)_IJ from the two directions of a pair of tiles, or from the one of a tile with itself."""
    if is_diagonal:
        return B + B.T
    return B if both is None else both.add_(B.T)


def _cross(E: Tensor, W: Tensor) -> Tensor:
    """cos θ_E W_sin − sin θ_E W_cos of every atom and mode."""
    n_modes = E.shape[1] // 2
    return (E[:, :n_modes] * W[:, n_modes:]).sub_(E[:, n_modes:] * W[:, :n_modes])
