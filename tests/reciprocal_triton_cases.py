"""Inputs for the tests of the Triton kernels of reciprocal space; run as a script, it interprets them on a CPU.

Triton decides on interpreting when it is first imported, so that needs a process of its own:
`TRITON_INTERPRET=1 python tests/reciprocal_triton_cases.py outputs.pt`.
"""

import contextlib
import sys
from dataclasses import dataclass, fields
from unittest import mock

import torch

FLOATS = {"float64": torch.float64, "float32": torch.float32}


def _generator(seed):
    return torch.Generator().manual_seed(seed)


def fractional(n, generator):
    """Coordinates in several cells, in steps of 2⁻⁴⁰ so that whole turns can be added without rounding."""
    steps = torch.randint(-(2**41), 3 * 2**40, (n, 3), generator=generator)
    return steps.to(torch.float64) * 2.0**-40


def wrapped(f):
    return f - f.floor()


def miller(n_modes, generator):
    return torch.randint(-9, 10, (n_modes, 3), generator=generator).to(torch.int32)


@dataclass
class Pairwise:
    """Arguments of the attention, and a gradient to send back."""

    g: torch.Tensor
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    fractional: torch.Tensor
    miller: torch.Tensor
    weights: torch.Tensor
    batch_ptr: torch.Tensor
    mode_ptr: torch.Tensor

    def arguments(self, dtype=torch.float64):
        """All but the gradient; q, k and v in the type asked for."""
        named = [getattr(self, field.name) for field in fields(self)[1:]]
        return [x.to(dtype) for x in named[:3]] + named[3:]


def _pairwise(sizes, modes, heads, d, d_v, seed):
    generator = _generator(seed)
    n, m = sum(sizes), sum(modes)

    def random(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return Pairwise(
        g=random(n, heads, d_v),
        q=random(n, heads, d),
        k=random(n, heads, d),
        v=random(n, heads, d_v),
        fractional=fractional(n, generator),
        miller=miller(m, generator),
        weights=torch.rand(m, generator=generator, dtype=torch.float64) / max(m, 1),
        batch_ptr=torch.tensor([0, *sizes]).cumsum(0),
        mode_ptr=torch.tensor([0, *modes]).cumsum(0),
    )


def _strided():
    """Leaves that are views: heads first, every other column, one row for all atoms."""
    case = _pairwise([9], [5], 2, 4, 3, 5)
    case.q = case.q.transpose(0, 1).contiguous().transpose(0, 1)
    case.k = case.k.repeat_interleave(2, dim=2)[..., ::2]
    case.v = case.v[:1].expand(9, 2, 3)
    case.g = case.g[:, :1].expand(9, 2, 3)
    return case


PAIRWISE = {
    "several tiles": _pairwise([130], [37], 2, 5, 17, 0),
    "one wide head": _pairwise([20], [18], 1, 70, 33, 1),
    "batch with empty systems": _pairwise([70, 0, 1, 33, 0], [40, 3, 20, 0, 0], 3, 4, 3, 2),
    "one atom": _pairwise([1], [7], 1, 1, 1, 3),
    "no atoms": _pairwise([0], [7], 1, 2, 2, 4),
    "strided": _strided(),
}


@dataclass
class Spectral:
    """Channels x, states z and a direction a on a transform of some atoms and modes."""

    fractional: torch.Tensor
    miller: torch.Tensor
    x: torch.Tensor
    z: torch.Tensor
    a: torch.Tensor
    segment: int = 1024


def _spectral(n, m, channels, seed, segment=1024):
    generator = _generator(seed)
    x, z, a = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((n, channels), (2, m, channels), (n, 3))
    )
    return Spectral(fractional(n, generator), miller(m, generator), x, z, a, segment)


def _strided_spectral():
    case = _spectral(11, 6, 4, 6)
    case.x = case.x.T.contiguous().T
    case.z = case.z.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    case.a = case.a[:1].expand(11, 3)
    return case


SPECTRAL = {
    "many atoms in parts": _spectral(530, 20, 3, 0),
    "many modes in parts and segments": _spectral(20, 530, 18, 1, segment=64),
    "several tiles": _spectral(70, 67, 66, 2),
    "one atom, one mode": _spectral(1, 1, 1, 3),
    "no modes": _spectral(3, 0, 2, 4),
    "no atoms": _spectral(0, 3, 2, 5),
    "strided": _strided_spectral(),
}


@dataclass
class Mesh:
    """Channels x on atoms, phi on a mesh."""

    fractional: torch.Tensor
    x: torch.Tensor
    phi: torch.Tensor
    order: int
    window: str = "spline"


def _mesh(n, channels, mesh, order, seed, window="spline"):
    generator = _generator(seed)
    x, phi = (torch.randn(s, generator=generator, dtype=torch.float64) for s in ((n, channels), (channels, *mesh)))
    return Mesh(fractional(n, generator), x, phi, order, window)


MESHES = {
    "last bricks short": _mesh(25, 18, (10, 8, 17), 5, 0),
    "odd order, wider than the mesh": _mesh(7, 2, (6, 9, 11), 9, 1),
    "Kaiser-Bessel": _mesh(7, 2, (9, 8, 8), 6, 2, "kaiser"),
    "no atoms": _mesh(0, 2, (8, 8, 8), 4, 3),
}
DERIVATIVES = {"value": (0, 0, 0), "slope": (0, 0, 1), "mixed": (2, 0, 1)}


def mesh_table(case):
    """Table of the window, or None for the splines the kernels know by themselves."""
    from rsa_kernels.reciprocal import grid_window

    return None if case.window == "spline" else grid_window.pieces("kaiser", case.order, KAISER_BETA, 1e-13)


KAISER_BETA = 9.0


@contextlib.contextmanager
def poisoned():
    """Let `new_empty` hand out NaN, so that what a kernel leaves out shows."""
    new_empty = torch.Tensor.new_empty

    def poison(self, *args, **kwargs):
        out = new_empty(self, *args, **kwargs)
        return out.fill_(float("nan")) if out.is_floating_point() else out

    with mock.patch.object(torch.Tensor, "new_empty", poison):
        yield


def pairwise(case, dtype):
    """u and its five gradients."""
    from rsa_kernels.reciprocal import triton_pairwise

    arguments = case.arguments(dtype)
    with poisoned():
        u = triton_pairwise.pairwise_forward(*arguments)
        return (u, *triton_pairwise.pairwise_backward(case.g.to(dtype), *arguments))


def spectral(case, dtype):
    """All that a transform gives: two of accumulate, two of gather, two of its tangent."""
    from rsa_kernels.reciprocal import triton_spectral

    with poisoned(), mock.patch.object(triton_spectral, "SEGMENT", case.segment):
        transform = triton_spectral.TritonSpectralTransform(case.fractional, case.miller, dtype)
        x, field = case.x.to(dtype), transform.field(case.z)
        sums = transform.accumulate(x), transform.accumulate_tangent(x, case.a)
        return (*sums, *transform.gather(field, x), *transform.gather_tangent(field, case.a, x))


def mesh(case, dtype):
    """Spread and interpolated, by derivative; and interpolated together with the pull."""
    from rsa_kernels.reciprocal import triton_grid

    x, phi, table = case.x.to(dtype), case.phi.to(dtype), mesh_table(case)
    shape = tuple(phi.shape[1:])
    with poisoned():
        spread = {
            name: triton_grid.spread(x, case.fractional, shape, case.order, derivative, table)
            for name, derivative in DERIVATIVES.items()
            if name != "slope"
        }
        read = {
            name: triton_grid.interpolate(phi, case.fractional, case.order, derivative, table)
            for name, derivative in DERIVATIVES.items()
        }
        both = triton_grid.interpolate_with_pull(phi, x, case.fractional, case.order, table)
    return spread, read, both


PHASES = torch.cat([torch.arange(-9, 10) / 8 + step for step in (0.0, 2.0**-33, -(2.0**-30))]).to(torch.float64)
PHASES = torch.stack([PHASES, torch.zeros_like(PHASES), 0.3 * PHASES], dim=1)
PHASE_MODES = torch.tensor([[1, 0, 0], [-3, 5, 0], [2, 1, 81]], dtype=torch.int32)


def phases(dtype):
    """Cosines and sines of every phase, (2, atoms, modes): states that are 1 for one wave of one mode, gathered."""
    from rsa_kernels.reciprocal import triton_spectral

    transform = triton_spectral.TritonSpectralTransform(PHASES, PHASE_MODES, dtype)
    states = torch.eye(6, dtype=dtype).view(2, 3, 6)
    return transform.gather(transform.field(states))[0].view(-1, 2, 3).transpose(0, 1)


def interpreted():
    """All outputs of the CUDA kernels for all cases, on CPU tensors."""
    outputs = {("phases", name): phases(dtype) for name, dtype in FLOATS.items()}
    for run, cases in ((pairwise, PAIRWISE), (spectral, SPECTRAL), (mesh, MESHES)):
        for name, case in cases.items():
            for float_name, dtype in FLOATS.items():
                outputs[run.__name__, name, float_name] = run(case, dtype)
    for run, case in (
        (pairwise, PAIRWISE["batch with empty systems"]),
        (spectral, SPECTRAL["many modes in parts and segments"]),
        (mesh, MESHES["odd order, wider than the mesh"]),
    ):
        for float_name, dtype in FLOATS.items():
            outputs[run.__name__, "again", float_name] = run(case, dtype)
            original = case.fractional
            case.fractional = wrapped(original)
            outputs[run.__name__, "wrapped", float_name] = run(case, dtype)
            case.fractional = original.clone()
            case.fractional[1, 2] = float("nan")
            outputs[run.__name__, "lost", float_name] = run(case, dtype)
            case.fractional = original
    return outputs


if __name__ == "__main__":
    torch.save(interpreted(), sys.argv[1])
