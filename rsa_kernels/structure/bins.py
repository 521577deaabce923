"""Shells of |k| over a box of modes: counts, bilinear sums and fields, in C++ on a CPU and in torch elsewhere.

A vector belongs to bin round(|k| / dq): bin m holds (m − ½) dq ≤ |k| < (m + ½) dq. Lengths within 1e-9 bin widths below
an edge count as on it. Bins are numbered from 1; `Shells` looks at first + 1 … first + n_bins.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _native
from ..errors import CapacityError
from .lattice import Box, miller_of, radial_range

EDGE = 1e-9
WORTH_THREADS = 1 << 18
"""Modes of a box from which on several threads are faster than one."""
_counts = _native.bind("rk_structure_counts", "ppfiiip")
_sums = _native.bind("rk_structure_sums", "ppfiiippipp")
_field = _native.bind("rk_structure_field", "ppfiiippip")


class Shells(NamedTuple):
    """Bins first + 1 … first + n_bins of width dq (Å⁻¹) around the multiples of dq."""

    dq: float
    first: int
    n_bins: int

    def of_box(self, gram: Tensor, box: Box) -> tuple[Shells, slice]:
        """Those that a box can reach, and where they stand among all."""
        nearest, farthest = radial_range(gram, box)
        low = min(max(int(nearest / self.dq) - 1 - self.first, 0), self.n_bins)
        high = min(max(int(min(farthest / self.dq, 1e15)) + 2 - self.first, low), self.n_bins)
        return Shells(self.dq, self.first + low, high - low), slice(low, high)

    @property
    def q_max(self) -> float:
        """Upper edge of the last bin, Å⁻¹."""
        return (self.first + self.n_bins + 0.5) * self.dq

    @property
    def q_min(self) -> float:
        """Lower edge of the first bin, Å⁻¹."""
        return (self.first + 0.5) * self.dq


def shell_of(miller: Tensor, gram: Tensor, dq: float) -> Tensor:
    """Bin of every triplet, (n_modes,) int64; the operations and their order are those of csrc/cpu/structure.cpp."""
    n1, n2, n3 = miller.to(torch.float64).unbind(-1)
    g = [[float(x) for x in row] for row in gram.tolist()]
    plane = (g[0][0] * n1 * n1 + g[1][1] * n2 * n2) + 2.0 * g[0][1] * n1 * n2
    along = 2.0 * (g[0][2] * n1 + g[1][2] * n2)
    squared = (along + g[2][2] * n3) * n3 + plane
    return (squared.clamp_min(0.0).sqrt() * (1.0 / dq) + (0.5 + EDGE)).clamp_max(1e9).to(torch.int64)


def pairs_of(n_species: int) -> list[tuple[int, int]]:
    """Unordered pairs in the order of every (n_pairs, …) array."""
    return [(a, b) for a in range(n_species) for b in range(a, n_species)]


def counts(gram: Tensor, box: Box, shells: Shells) -> Tensor:
    """k-vectors of a box per bin, k and −k both, (n_bins,) int64 on the host."""
    out = torch.zeros(shells.n_bins, dtype=torch.int64)
    inside, where = shells.of_box(gram, box)
    if inside.n_bins:
        part = torch.zeros(inside.n_bins, dtype=torch.int64)
        g, b = gram.cpu().contiguous(), torch.tensor(box)
        _check(_counts(g.data_ptr(), b.data_ptr(), *inside, _threads(box), part.data_ptr()), inside)
        out[where] = part
    return out


def sums(x: Tensor, y: Tensor, gram: Tensor, box: Box, shells: Shells, out: Tensor, squares: Tensor | None = None):
    """Add Σ_k ½ Re(x_a y_b* + y_a x_b*) of every pair and bin to `out` (n_pairs, n_bins), k and −k both.

    `squares` gets the sums of the squares of the same terms. x and y, (n_species, modes of the box) complex, may be the
    same tensor.
    """
    inside, where = shells.of_box(gram, box)
    if inside.n_bins == 0:
        return
    if x.is_cuda:
        return _sums_torch(x, y, gram, box, shells, out, squares)
    part = torch.zeros(out.shape[0], inside.n_bins, dtype=torch.float64)
    part_squares = torch.zeros_like(part) if squares is not None else None
    g, b = gram.contiguous(), torch.tensor(box)
    status = _sums(
        g.data_ptr(),
        b.data_ptr(),
        *inside,
        x.shape[0],
        x.data_ptr(),
        y.data_ptr(),
        _threads(box),
        part.data_ptr(),
        None if squares is None else part_squares.data_ptr(),
    )
    _check(status, inside)
    out[:, where] += part
    if squares is not None:
        squares[:, where] += part_squares


def field(g: Tensor, x: Tensor, gram: Tensor, box: Box, shells: Shells) -> Tensor:
    """h_a = Σ_b (1 + δ_ab) g_ab[bin] x_b on every mode, times 2 where the mode stands for k and −k; like x."""
    inside, where = shells.of_box(gram, box)
    if inside.n_bins == 0:
        return torch.zeros_like(x)
    if x.is_cuda:
        return _field_torch(g, x, gram, box, shells)
    out, weights = torch.empty_like(x), g[:, where].contiguous()
    gram, b = gram.contiguous(), torch.tensor(box)
    status = _field(
        gram.data_ptr(),
        b.data_ptr(),
        *inside,
        x.shape[0],
        weights.data_ptr(),
        x.data_ptr(),
        _threads(box),
        out.data_ptr(),
    )
    _check(status, inside)
    return out


def _check(status: int, shells: Shells) -> None:
    if status != 0:
        raise CapacityError(
            f"not enough memory for sums in {shells.n_bins} bins; use a larger `dq`, or a smaller `max_memory`, which "
            "leaves more beside the boxes of modes"
        )


def _threads(box: Box) -> int:
    return torch.get_num_threads() if math.prod(box[3:]) >= WORTH_THREADS else 1


def _planes(box: Box, device):
    """Cut a box into slabs of a few million modes: slices of the flat modes, and the slab's triplets."""
    per_plane = box[4] * box[5]
    step = max((1 << 22) // per_plane, 1)
    for begin in range(0, box[3], step):
        end = min(begin + step, box[3])
        slab = (box[0] + begin, box[1], box[2], end - begin, box[4], box[5])
        yield slice(begin * per_plane, end * per_plane), miller_of(slab, device)


def _slots(miller: Tensor, gram: Tensor, shells: Shells) -> tuple[Tensor, Tensor]:
    """Slot of every mode (0 and n_bins + 1 outside), and how many vectors it stands for."""
    slot = (shell_of(miller, gram, shells.dq) - shells.first).clamp(0, shells.n_bins + 1)
    return slot, 2.0 - (miller[:, 0] == 0).to(torch.float64)


def _sums_torch(x, y, gram, box, shells, out, squares):
    """`sums` in torch. On a GPU index_add uses atomics: its last bits vary from run to run."""
    for modes, miller in _planes(box, x.device):
        slot, weight = _slots(miller, gram, shells)
        for pair, (a, b) in enumerate(pairs_of(x.shape[0])):
            xa, xb, ya, yb = (torch.view_as_real(z.flatten(1)[s, modes]) for z, s in ((x, a), (x, b), (y, a), (y, b)))
            value = 0.5 * ((xa * yb).sum(1) + (ya * xb).sum(1))
            for target, term in ((out, value), (squares, value.square())):
                if target is not None:
                    shell_sums = torch.zeros(shells.n_bins + 2, dtype=torch.float64, device=x.device)
                    target[pair] += shell_sums.index_add_(0, slot, weight * term)[1:-1]


def _field_torch(g, x, gram, box, shells):
    """`field` in torch."""
    out, flat = torch.zeros_like(x), x.flatten(1)
    padded = torch.nn.functional.pad(g, (1, 1))
    for modes, miller in _planes(box, x.device):
        slot, weight = _slots(miller, gram, shells)
        for pair, (a, b) in enumerate(pairs_of(x.shape[0])):
            factor = weight * padded[pair, slot]
            out.view(x.shape[0], -1)[a, modes] += factor * flat[b, modes]
            out.view(x.shape[0], -1)[b, modes] += factor * flat[a, modes]
    return out
