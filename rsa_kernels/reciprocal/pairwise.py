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
_WAVES = 1 << 22
"""Numbers in the largest (tile, 2 n_modes) temporary."""


def forward(q, k, v, fractional, miller, weights) -> Tensor:
    """u_i = s Σ_j (q_i·k_j) K_ij v_j, (n_atoms, heads, d_v)."""
    q, k, v = _by_head(q / math.sqrt(q.shape[-1])), _by_head(k), _by_head(v)
    u, space = torch.zeros_like(v), Workspace(q)
    for pair in _tiles(space, fractional, miller, weights):
        for one, other, K in pair.directions(pair.kernel()):
            scores = space.product("S", q[:, one], k[:, other].mT).mul_(K)
            u[:, one].baddbmm_(scores, v[:, other])
    return u.transpose(0, 1).contiguous()


def backward(g, q, k, v, fractional, miller, weights) -> tuple[Tensor, ...]:
    """Gradient of Σ_i g_i·u_i with respect to q, k, v, fractional coordinates and weights."""
    g, q, k, v = _by_head(g / math.sqrt(q.shape[-1])), _by_head(q), _by_head(k), _by_head(v)
    gq, gk, gv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    gf, space = torch.zeros_like(fractional), Workspace(q)
    by_wave = q.new_zeros((tile_size(len(fractional), len(q), len(miller)), 2 * len(miller)))
    for pair in _tiles(space, fractional, miller, weights):
        kernel, both = pair.kernel(), None
        for one, other, K in pair.directions(kernel):
            S = space.product("S", q[:, one], k[:, other].mT)
            T = space.product("T", g[:, one], v[:, other].mT)
            both = _add_direction(both, pair.is_diagonal, _over_heads(S, T))
            SK, TK = S.mul_(K), T.mul_(K)
            gq[:, one].baddbmm_(TK, k[:, other])
            gk[:, other].baddbmm_(TK.mT, q[:, one])
            gv[:, other].baddbmm_(SK.mT, g[:, one])
        for atoms, E, W in pair.sides(both):
            by_wave[: len(E)].addcmul_(E, W)
            gf[atoms] += pair.along(_cross(E, W, space), pair.w)
    return (*(x.transpose(0, 1).contiguous() for x in (gq, gk, gv)), gf, _per_mode(by_wave))


def backward_backward(aq, ak, av, af, aw, g, q, k, v, fractional, miller, weights) -> tuple[Tensor, ...]:
    """Gradient of Σ a·(gradients of `backward`) with respect to g, q, k, v, coordinates and weights."""
    aq, ak, av, g, q, k, v = (_by_head(x) for x in (aq, ak, av, g, q, k, v))
    hg, hq, hk, hv = (torch.zeros_like(x) for x in (g, q, k, v))
    hf, hw = torch.zeros_like(fractional), torch.zeros_like(weights)
    scale = 1.0 / math.sqrt(q.shape[-1])
    for pair in _tiles(Workspace(q), fractional, miller, weights, af, aw):
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

    def __init__(
        self, space: Workspace, one: slice, other: slice, waves_of, w: Tensor, dw: Tensor | None, turns: Tensor
    ):
        self.space, self.one, self.other, self.is_diagonal = space, one, other, one == other
        self.w, self.dw, self.turns = w, dw, turns
        self.E_one, self.dE_one = waves_of("one", one)
        self.E_other, self.dE_other = (self.E_one, self.dE_one) if self.is_diagonal else waves_of("other", other)
        self.wE_one = torch.mul(self.E_one, w, out=space.get("wE", *self.E_one.shape))

    def kernel(self) -> Tensor:
        """K, one × other; `w` holds 2 w_m for both halves of the waves."""
        return self.space.product("K", self.wE_one, self.E_other.T)

    def kernel_rate(self) -> Tensor:
        rate = (self.E_one * self.dw).addcmul_(self.dE_one, self.w) @ self.E_other.T
        return rate.addmm_(self.wE_one, self.dE_other.T)

    def directions(self, K: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
        """Ordered pairs of tiles with their K."""
        yield self.one, self.other, K
        if not self.is_diagonal:
            yield self.other, self.one, K.T

    def sides(self, both: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Atoms of a tile, their E, and W = (B + Bᵀ) E of the tile they meet.

        Σ_i E_i·W_i over both sides is Σ_ij B_ij 2 cos(θ_i − θ_j): on the diagonal B + Bᵀ counts every pair twice.
        """
        yield self.one, self.E_one, self.space.product("W", both, self.E_other)
        if not self.is_diagonal:
            yield self.other, self.E_other, self.space.product("W", both.T, self.E_one)

    def side_rates(self, both: Tensor, dboth: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Rates of E and W of `sides`."""
        yield self.dE_one, (dboth @ self.E_other).addmm_(both, self.dE_other)
        if not self.is_diagonal:
            yield self.dE_other, (dboth.T @ self.E_one).addmm_(both.T, self.dE_one)

    def along(self, per_phase: Tensor, w: Tensor) -> Tensor:
        """Σ_m 2 w_m 2π n_m ∂/∂θ_im, in float64: from derivatives by phase to those by coordinate."""
        n_modes = len(self.turns)
        return (per_phase @ (self.turns * w[:n_modes].unsqueeze(1))).to(torch.float64)


def _tiles(space: Workspace, fractional, miller, weights, df=None, dw=None) -> Iterator[_TilePair]:
    """Every unordered pair of tiles; waves are computed anew for each, from coordinates inside the cell."""
    n_atoms, dtype = len(fractional), space.like.dtype
    tile = tile_size(n_atoms, len(space.like), len(miller))
    inside = fractional - fractional.floor()
    turns = 2.0 * math.pi * miller.to(torch.float64)
    w, dw = (None if x is None else (2.0 * x).to(dtype).repeat(2) for x in (weights, dw))

    def waves_of(name: str, atoms: slice) -> tuple[Tensor, Tensor | None]:
        E = waves(inside[atoms], miller, space.get(name, atoms.stop - atoms.start, 2 * len(miller)))
        return E, None if df is None else turned(E, (df[atoms] @ turns.T).to(dtype))

    slices = [slice(low, min(low + tile, n_atoms)) for low in range(0, n_atoms, tile)]
    for index, one in enumerate(slices):
        for other in slices[index:]:
            yield _TilePair(space, one, other, waves_of, w, dw, turns.to(dtype))


class Workspace:
    """Tiles kept from one pair of tiles to the next: fresh memory costs more than the arithmetic on it."""

    def __init__(self, like: Tensor):
        self.like = like
        self._flat: dict[str, Tensor] = {}

    def get(self, name: str, *shape: int) -> Tensor:
        """Return a tensor of that shape, with the memory of the last one of that name."""
        size = math.prod(shape)
        if name not in self._flat or self._flat[name].numel() < size:
            self._flat[name] = self.like.new_empty(size)
        return self._flat[name][:size].view(shape)

    def product(self, name: str, left: Tensor, right: Tensor) -> Tensor:
        """left @ right, in kept memory."""
        return torch.matmul(left, right, out=self.get(name, *left.shape[:-1], right.shape[-1]))


def tile_size(n_atoms: int, heads: int, n_modes: int = 1) -> int:
    """Atoms a side, equal parts of the system."""
    largest = max(min(_TILE, math.isqrt(_SCORES // heads), _WAVES // (2 * n_modes)), 1)
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


def _cross(E: Tensor, W: Tensor, space: Workspace | None = None) -> Tensor:
    """cos θ_E W_sin − sin θ_E W_cos of every atom and mode."""
    n_modes = E.shape[1] // 2
    out = None if space is None else space.get("cross", len(E), n_modes)
    return torch.mul(E[:, :n_modes], W[:, n_modes:], out=out).addcmul_(E[:, n_modes:], W[:, :n_modes], value=-1)
