"""Mode lists of the RSA and RSGA papers, and the attention through them: for checkpoints trained with them.

Both lists are of full space: n and −n stand apart, each with its own weight, and at the end of a list one may stand
without the other. They depend on the size of the box, so nothing new should be built on them; `reciprocal_modes` is
for that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _checks, cells
from ..errors import CapacityError
from .modes import Modes, memory_available, wave_vectors
from .op import accumulate_modes, gather_modes, reciprocal_attention
from .spectra import Spectrum, constant, gaussian

_RSA_K_MAX = 2.0 * math.pi / 10.0
_RSA_COUNT = 6
_RSGA_COUNT = 1024
_RSGA_SHARE = 1.0 - 1e-6
_BYTES_PER_CANDIDATE = 160
"""Peak memory of a search, per triplet of the bounding box: int64 triplets, float64 waves, products and masks."""


@dataclass(frozen=True)
class PublishedModes:
    """A list of waves in full space, and the two half-space lists it amounts to.

    Attributes
    ----------
    miller : Tensor
        (n_modes, 3) int32, in the order of the published code.
    weights : Tensor
        (n_modes,) float64, differentiable with respect to the cell.
    mode_ptr : Tensor
        (n_systems + 1,) int64, offsets of the systems in the list.
    even, odd : Modes
        Half-space waves of the two terms that `rotary_attention` adds; `odd` holds the waves without their opposite.
    """

    miller: Tensor
    weights: Tensor
    mode_ptr: Tensor
    even: Modes
    odd: Modes

    @property
    def n_modes(self) -> int:
        """Number of waves of all systems, in full space."""
        return self.miller.shape[0]

    @property
    def n_systems(self) -> int:
        """Number of systems."""
        return self.mode_ptr.shape[0] - 1


def rsa_modes(cell: Tensor, *, pbc=True, n_systems: int | None = None) -> PublishedModes:
    """Return the waves of the RSA paper: |k| ≤ 2π/10 1/Å, of these the 6 shortest, weight 1.

    Parameters
    ----------
    cell : Tensor
        (3, 3) or (n_systems, 3, 3) Å, orthorhombic along x, y, z, every edge at least 10 Å.
    pbc : bool or sequence of bool
        Must be periodic in every direction.
    n_systems : int, optional
        Number of systems that share a (3, 3) cell.

    Raises
    ------
    ValueError
        A cell with another angle, or with an edge below 10 Å: there the published code chose among waves it had masked.

    Notes
    -----
    Where more than 6 waves tie for the last place, the choice is that of `torch.topk`, as in the published code.

    References
    ----------
    arXiv 2510.13055.
    """

    def select(one: Tensor) -> Tensor:
        edges = one.diagonal()
        n, k_squared = _candidates(one, [max(int(edges.max() / 10.0), 1)] * 3, _RSA_K_MAX)
        if bool((one - torch.diag(edges)).any()) or len(n) < _RSA_COUNT:
            raise ValueError(
                "`cell` must be orthorhombic along x, y, z with edges of at least 10 Å for the waves of the RSA paper,"
                f' got {one.tolist()}; norm="intensive" takes any cell'
            )
        return n[torch.topk(k_squared, _RSA_COUNT, largest=False).indices]

    return _published(cell, pbc, n_systems, select, constant(), _RSA_K_MAX, per_volume=False)


def rsga_sigma(r_max: float) -> float:
    """σ of the RSGA paper in Å: r_max / √(2·(−ln 1e-4)), for the cut-off r_max of the short-range model in Å."""
    return _checks.positive("r_max", r_max, "Å") / math.sqrt(-2.0 * math.log(1e-4))


def rsga_modes(cell: Tensor, r_max: float, *, pbc=True, n_systems: int | None = None) -> PublishedModes:
    """Return the waves of the RSGA paper, with weights w/V, w = exp(−σ²k²/2) / k².

    Of all waves |k| ≤ (√2/σ)·√(−ln 1e-3), sorted by w, as many as it takes for 1 − 1e-6 of the sum of w, and at most
    1024; σ is that of `rsga_sigma`.

    Parameters
    ----------
    cell : Tensor
        (3, 3) or (n_systems, 3, 3) Å.
    r_max : float
        Cut-off of the short-range model, Å.
    pbc : bool or sequence of bool
        Must be periodic in every direction.
    n_systems : int, optional
        Number of systems that share a (3, 3) cell.

    Raises
    ------
    rsa_kernels.errors.CapacityError
        More triplets to sort than memory.

    Notes
    -----
    Sorted on the CPU in float64 for any device, with the operations of the published code, so that waves of one length
    that the end of the list tears apart are the same ones. Like it, the search stops at |n_a| = ⌈k_max/|b_a|⌉ and
    misses waves of very skewed cells. Unlike it, weights carry the derivative with respect to the cell.

    References
    ----------
    arXiv 2604.21222.
    """
    sigma = rsga_sigma(r_max)
    k_max = math.sqrt(-2.0 * math.log(1e-3)) / sigma
    spectrum = gaussian(sigma)

    def select(one: Tensor) -> Tensor:
        reciprocal = 2.0 * math.pi * torch.linalg.inv(one).T
        n, k_squared = _candidates(one, torch.ceil(k_max / reciprocal.norm(dim=1)).to(torch.int64).tolist(), k_max)
        w = torch.exp(-0.5 * sigma**2 * k_squared) / k_squared
        if len(w) > _RSGA_COUNT:
            largest, order = torch.topk(w, _RSGA_COUNT)
        else:
            largest, order = torch.sort(w, descending=True)
        enough = int(torch.searchsorted(largest.cumsum(0), _RSGA_SHARE * w.sum())) + 1
        return n[order[:enough]]

    return _published(cell, pbc, n_systems, select, spectrum, k_max, per_volume=True)


def rotary_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    positions: Tensor,
    cell: Tensor,
    modes: PublishedModes,
    batch_ptr: Tensor | None = None,
    method: str = "auto",
    *,
    tolerance: float = 1e-5,
) -> Tensor:
    """Attention with rotary phases, as published: pairs (a, b) = (h[0::2], h[1::2]) of q and k turn by θ = k_m·r.

        u_i = (1/√d) Σ_m w_m Σ_j (rot_m(q)_i · rot_m(k)_j) v_j
            = (1/√d) Σ_m w_m Σ_j [(q_i·k_j) cos(θ_i − θ_j) + (q_i∧k_j) sin(θ_i − θ_j)] v_j,   q∧k = Σ q_a k_b − q_b k_a

    The sine cancels wherever the list holds −n with n, and `reciprocal_attention` is left. For the others it is added
    here, from the states of k turned by a right angle; those few waves are summed directly whatever the method.

    Parameters as in `reciprocal_attention`, but `modes` are `PublishedModes` and the width of a head is even.

    Returns
    -------
    Tensor
        (n_atoms, heads, d_v).
    """
    if not isinstance(modes, PublishedModes):
        raise TypeError(f"`modes` must be PublishedModes, from rsa_modes or rsga_modes, got {type(modes).__name__}")
    if q.shape[-1] % 2 != 0:
        raise ValueError(f"`q` must have heads of even width for rotary phases, got shape {tuple(q.shape)}")
    where = (positions, cell)
    u = reciprocal_attention(q, k, v, *where, modes.even, batch_ptr, method, tolerance=tolerance)
    if modes.odd.n_modes == 0:
        return u
    turned = torch.stack([k[..., 1::2], -k[..., 0::2]], dim=-1).flatten(-2)
    cos, sin = accumulate_modes(turned, v, *where, modes.odd, batch_ptr, "spectral")
    # sin(θ_i − θ_j) = sin θ_i cos θ_j − cos θ_i sin θ_j
    return u + gather_modes(q, torch.stack([-sin, cos]), *where, modes.odd, batch_ptr, "spectral")


def _candidates(cell: Tensor, reach: list[int], k_max: float) -> tuple[Tensor, Tensor]:
    """Triplets n ≠ 0 within `reach` and |k| ≤ k_max of one cell, in lexicographic order, and their k²."""
    count = math.prod(2.0 * one + 1.0 for one in reach)
    needed, there = count * _BYTES_PER_CANDIDATE, memory_available()
    if needed > there:
        raise CapacityError(
            f"the waves of the published list are chosen among {count:.3g}, {needed / 2**30:.3g} GiB to sort,"
            f' {there / 2**30:.3g} GiB are there; take a smaller cell, or norm="intensive" with a k_cut that fits'
        )
    n = torch.cartesian_prod(*(torch.arange(-one, one + 1) for one in reach))
    k = n.to(torch.float64) @ (2.0 * math.pi * torch.linalg.inv(cell).T)
    k_squared = (k * k).sum(dim=1)
    inside = (k_squared > 0) & (k_squared <= k_max**2)
    return n[inside], k_squared[inside]


def _published(
    cell: Tensor,
    pbc,
    n_systems: int | None,
    select: Callable[[Tensor], Tensor],
    spectrum: Spectrum,
    k_max: float,
    *,
    per_volume: bool,
) -> PublishedModes:
    """Run `select` on every cell and weigh what it gives."""
    _checks.tensor("cell", cell, dtypes=(torch.float64, torch.float32))
    count = n_systems or (cell.shape[0] if cell.dim() == 3 else 1)
    batched, flags = cells.as_batch(cell, pbc, count)
    if not bool(flags.all()):
        raise ValueError("`pbc` must be True in every direction: waves belong to a periodic box")
    batched = batched.to(torch.float64)
    cells.complete(batched.detach(), flags)
    found = [select(one) for one in batched.detach().cpu()]
    counts = torch.tensor([0] + [len(one) for one in found])
    miller = torch.cat(found).to(torch.int32).to(cell.device)
    system = torch.repeat_interleave(torch.arange(count), counts[1:]).to(cell.device)
    weights = spectrum(wave_vectors(miller, torch.linalg.inv(batched), system).norm(dim=1))
    if per_volume:
        weights = weights / cells.volume(batched)[system]
    even, odd = _halves(miller, weights, system, count, k_max)
    return PublishedModes(miller, weights, counts.cumsum(0).to(cell.device), even, odd)


def _halves(miller: Tensor, weights: Tensor, system: Tensor, n_systems: int, k_max: float) -> tuple[Modes, Modes]:
    """Fold a full-space list into one half: weights of the cosines, and of the sines that do not cancel.

    A pair ±n of weight w is one wave of the half space with w (the op doubles it), a single one has w/2; its sine
    changes sign where n stands in the other half.
    """
    leading = torch.where(miller[:, 0] != 0, miller[:, 0], torch.where(miller[:, 1] != 0, miller[:, 1], miller[:, 2]))
    sign = leading.sign()
    keys = torch.cat([system.unsqueeze(1).to(torch.int32), sign.unsqueeze(1) * miller], dim=1)
    waves, wave, members = torch.unique(keys, dim=0, return_inverse=True, return_counts=True)
    place = torch.arange(len(miller), device=miller.device)
    first = torch.full_like(members, len(miller)).scatter_reduce(0, wave, place, "amin")
    order = torch.argsort(first)
    of_cosines = weights.new_zeros(len(waves)).index_add(0, wave, 0.5 * weights)
    of_sines = weights.new_zeros(len(waves)).index_add(0, wave, 0.5 * sign * weights)

    def modes(chosen: Tensor, values: Tensor) -> Modes:
        counts = torch.bincount(waves[chosen, 0], minlength=n_systems)
        mode_ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return Modes(waves[chosen, 1:].contiguous(), values[chosen], mode_ptr, k_max)

    return modes(order, of_cosines), modes(order[members[order] == 1], of_sines)
