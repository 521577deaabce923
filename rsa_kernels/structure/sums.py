"""Shell sums over boxes of modes by non-uniform Fourier transforms, as an op with two derivatives.

With ρ_a(n) = Σ_{j in a} e^{2πi n·f_j} the op gives B_ab[bin] = Σ_n Re ρ_a ρ_b*. Its derivatives (README) need the
fields h_a = Σ_b (1 + δ_ab) g_ab ρ_b, the tangents τ_a = Σ_j (2πi n·v_j) e^{2πi n·f_j}, and transforms back to points.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _checks
from .._library import Kernel, define_op
from . import bins
from .bins import Shells
from .lattice import Box
from .nufft import Points, Transforms, cufinufft_missing, finufft_missing


class _System(NamedTuple):
    """One system of a batch: its points by species, where they stand among the atoms, and its boxes."""

    index: int
    members: list[Tensor]
    points: list[Points]
    gram: Tensor
    boxes: list[Box]


def _systems(fractional: Tensor, codes: Tensor, batch_ptr: Tensor, grams: Tensor, boxes: Tensor, n_species: int):
    """Systems that have atoms and boxes, one after the other."""
    host = boxes.tolist()
    for index, (low, high) in enumerate(_checks.offsets("batch_ptr", batch_ptr, fractional.shape[0], "atoms")):
        of_system = [tuple(row[1:]) for row in host if row[0] == index]
        if low == high or not of_system:
            continue
        members = [low + torch.nonzero(codes[low:high] == a).flatten() for a in range(n_species)]
        points = [Points(fractional[chosen]) for chosen in members]
        yield _System(index, members, points, grams[index].cpu().contiguous(), of_system)


def _densities(transforms: Transforms, system: _System, box: Box) -> Tensor:
    """ρ_a on the modes of the box, (n_species, *edges)."""
    rho = _modes(system, box)
    for points, out in zip(system.points, rho, strict=True):
        transforms.accumulate(points, None, box, out)
    return rho


def _modes(system: _System, box: Box) -> Tensor:
    like = system.points[0].phases
    return torch.empty((len(system.points), *box[3:]), dtype=torch.complex128, device=like.device)


def _tangents(transforms: Transforms, system: _System, box: Box, direction: Tensor) -> Tensor:
    """τ_a = Σ_j (2πi n·v_j) e^{2πi n·f_j} on the modes of the box."""
    tau, scratch = _modes(system, box).zero_(), None
    for points, members, out in zip(system.points, system.members, tau, strict=True):
        scratch = torch.empty_like(out) if scratch is None else scratch
        for axis, index in enumerate(_axes(box, out.device)):
            transforms.accumulate(points, direction[members, axis], box, scratch)
            out.addcmul_(scratch, 2j * math.pi * index)
    return tau


def _axes(box: Box, device) -> list[Tensor]:
    """n1, n2, n3 of a box, each to broadcast over it."""
    shapes = ((-1, 1, 1), (1, -1, 1), (1, 1, -1))
    return [
        torch.arange(low, low + size, dtype=torch.float64, device=device).view(shape)
        for low, size, shape in zip(box[:3], box[3:], shapes, strict=True)
    ]


def _pull(transforms: Transforms, system: _System, box: Box, h: Tensor, out: Tensor) -> None:
    """Add Σ_n 2πn Im[h_a e^{−2πi n·f_j}] to out (n_atoms, 3)."""
    for points, members, field in zip(system.points, system.members, h, strict=True):
        for axis, index in enumerate(_axes(box, h.device)):
            out[members, axis] += 2.0 * math.pi * transforms.gather(points, field * index, box).imag


def _bend(transforms: Transforms, system: _System, box: Box, h: Tensor, direction: Tensor, out: Tensor) -> None:
    """Subtract Σ_n 2πn (2πn·v_j) Re[h_a e^{−2πi n·f_j}] from out (n_atoms, 3): the field's own Hessian along v."""
    axes = _axes(box, h.device)
    for points, members, field in zip(system.points, system.members, h, strict=True):
        v, pulled = direction[members], torch.zeros_like(direction[members])
        for a in range(3):
            for b in range(a, 3):
                second = transforms.gather(points, field * axes[a] * axes[b], box).real
                pulled[:, a] += second * v[:, b]
                if a != b:
                    pulled[:, b] += second * v[:, a]
        out[members] -= (2.0 * math.pi) ** 2 * pulled


def _value(fractional, codes, batch_ptr, grams, boxes, n_species, dq, first, n_bins, tolerance) -> Tensor:
    return _sum_up(fractional, codes, batch_ptr, grams, boxes, n_species, Shells(dq, first, n_bins), tolerance, False)[
        0
    ]


def _scatter(fractional, codes, batch_ptr, grams, boxes, n_species, dq, first, n_bins, tolerance):
    return _sum_up(fractional, codes, batch_ptr, grams, boxes, n_species, Shells(dq, first, n_bins), tolerance, True)


def _sum_up(fractional, codes, batch_ptr, grams, boxes, n_species, shells, tolerance, with_squares):
    shape = (batch_ptr.shape[0] - 1, n_species * (n_species + 1) // 2, shells.n_bins)
    out = torch.zeros(shape, dtype=torch.float64, device=fractional.device)
    squares = torch.zeros_like(out) if with_squares else None
    transforms = Transforms(tolerance)
    for system in _systems(fractional, codes, batch_ptr, grams, boxes, n_species):
        for box in system.boxes:
            rho = _densities(transforms, system, box)
            of_system = None if squares is None else squares[system.index]
            bins.sums(rho, rho, system.gram, box, shells, out[system.index], of_system)
            del rho
    return out, squares


def _backward(g, fractional, codes, batch_ptr, grams, boxes, n_species, dq, first, n_bins, tolerance) -> Tensor:
    shells, transforms, out = Shells(dq, first, n_bins), Transforms(tolerance), torch.zeros_like(fractional)
    for system in _systems(fractional, codes, batch_ptr, grams, boxes, n_species):
        for box in system.boxes:
            h = bins.field(g[system.index], _densities(transforms, system, box), system.gram, box, shells)
            _pull(transforms, system, box, h, out)
    return out


def _backward_backward(v, g, fractional, codes, batch_ptr, grams, boxes, n_species, dq, first, n_bins, tolerance):
    shells, transforms = Shells(dq, first, n_bins), Transforms(tolerance)
    hg, hf = torch.zeros_like(g, memory_format=torch.contiguous_format), torch.zeros_like(fractional)
    for system in _systems(fractional, codes, batch_ptr, grams, boxes, n_species):
        for box in system.boxes:
            rho = _densities(transforms, system, box)
            tau = _tangents(transforms, system, box, v)
            rate = torch.zeros_like(hg[system.index])
            bins.sums(tau, rho, system.gram, box, shells, rate)
            hg[system.index] += 2.0 * rate
            of_g = g[system.index]
            _pull(transforms, system, box, bins.field(of_g, tau, system.gram, box, shells), hf)
            del tau
            h = bins.field(of_g, rho, system.gram, box, shells)
            del rho
            _bend(transforms, system, box, h, v, hf)
    return hg, hf


_N_SETTINGS = 5
_TENSORS = "Tensor fractional, Tensor codes, Tensor batch_ptr, Tensor grams, Tensor boxes"
_SETTINGS = "int n_species, float dq, int first, int n_bins, float tolerance"


def _kernels(function) -> dict[str, Kernel]:
    return {
        "cpu": Kernel(function, "finufft and C++ threads", finufft_missing),
        "cuda": Kernel(function, "cufinufft and torch", cufinufft_missing),
    }


def _fake_sums(fractional, codes, batch_ptr, grams, boxes, n_species, dq, first, n_bins, tolerance) -> Tensor:
    n_pairs = n_species * (n_species + 1) // 2
    return fractional.new_empty((batch_ptr.shape[0] - 1, n_pairs, n_bins), dtype=torch.float64)


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:-_N_SETTINGS])
    ctx.settings = inputs[-_N_SETTINGS:]


def _first_order(ctx, grad):
    fractional_grad = structure_sums_backward(grad, *ctx.saved_tensors, *ctx.settings)
    return fractional_grad, *[None] * (4 + _N_SETTINGS)


def _second_order(ctx, grad):
    hg, hf = structure_sums_backward_backward(grad, *ctx.saved_tensors, *ctx.settings)
    return hg, hf, *[None] * (4 + _N_SETTINGS)


structure_sums_backward_backward = define_op(
    f"structure_sums_backward_backward(Tensor v, Tensor g, {_TENSORS}, {_SETTINGS}) -> (Tensor, Tensor)",
    kernels=_kernels(_backward_backward),
    fake=lambda v, g, fractional, *rest: (
        torch.empty_like(g, memory_format=torch.contiguous_format),
        torch.empty_like(fractional, memory_format=torch.contiguous_format),
    ),
)
structure_sums_backward = define_op(
    f"structure_sums_backward(Tensor g, {_TENSORS}, {_SETTINGS}) -> Tensor",
    kernels=_kernels(_backward),
    fake=lambda g, fractional, *rest: torch.empty_like(fractional, memory_format=torch.contiguous_format),
    backward=_second_order,
    setup_context=_save,
)
structure_sums = define_op(
    f"structure_sums({_TENSORS}, {_SETTINGS}) -> Tensor",
    kernels=_kernels(_value),
    fake=_fake_sums,
    backward=_first_order,
    setup_context=_save,
)
structure_scatter = define_op(
    f"structure_scatter({_TENSORS}, {_SETTINGS}) -> (Tensor, Tensor)",
    kernels=_kernels(_scatter),
    fake=lambda *args: (_fake_sums(*args), _fake_sums(*args)),
)
