"""Particle mesh: sums over atoms and modes by spreading to a mesh, a Fourier transform, and interpolation from it.

With S(f; m) the window that carries an atom at f to mesh point m, and b(n) the deconvolution of `GridPlan`,

    accumulate:  ρ(m) = Σ_j x_j S(f_j; m),      Z(n) = b(n) Σ_m (cos 2πn·m/g, sin 2πn·m/g) ρ(m)
    gather:      φ(m) = Σ_n b(n) [cos(2πn·m/g) z₀(n) + sin(2πn·m/g) z₁(n)],      y_i = Σ_m φ(m) S(f_i; m)

The mesh sums are fast Fourier transforms. Both steps use the same S and b, so that `gather` is exactly the transpose of
`accumulate`; S is a polynomial in f, and the derivatives are those of S: forces are the gradient of the approximate
energy to rounding, whatever the tolerance.

Each device has four mesh functions, in the forms `spread(x, sites)`, `spread_tangent(x, sites, a)`,
`interpolate(phi, sites, x)` and `interpolate_tangent(phi, sites, a, x)`; on CUDA they are put together from
three Triton functions, see `composed`.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch
from torch import Tensor

from .._native import bind
from ..errors import NonFiniteError
from .grid_fourier import BandFourier
from .grid_plan import GridPlan, plan_grid

__all__ = ["GridPlan", "GridTransform", "grid_bytes", "plan_grid"]

_bricks = bind("rk_grid_bricks", "p")
_sort = bind("rk_grid_sort", "pipiipppp")
_spread = bind("rk_grid_spread", "ipipiippppppiiip")
_interpolate = bind("rk_grid_interpolate", "ipipiipppppppiiipp")
_large_pages = bind("rk_large_pages", "pi")


def grid_bytes(plan: GridPlan, channels: int, dtype: torch.dtype) -> int:
    """Bytes of the meshes of one call on so many channels: the real meshes and, for one channel, two half spectra.

    (On the CPU, where channels are transformed one after another, in some 8 MiB of work space; on a GPU all together.)
    Besides them a transform keeps 44 bytes an atom (98 while it sorts) and 32 a mode.
    """
    x, y, z = plan.mesh
    return (channels * channel_stride(plan.mesh, dtype) + 4 * x * y * (z // 2 + 1)) * dtype.itemsize + (8 << 20)


class Sites:
    """Atoms of one system on the mesh; on the CPU sorted by brick once.

    Parameters
    ----------
    fractional : Tensor
        (n_atoms, 3) float64, wrapped or not.
    plan : GridPlan
        Window and mesh.
    """

    def __init__(self, fractional: Tensor, plan: GridPlan):
        fractional = fractional.to(torch.float64)
        self.plan = plan
        self.fractional = (fractional - fractional.floor()).contiguous()
        self.n = fractional.shape[0]
        if fractional.device.type != "cpu":
            return
        self.size = torch.tensor(plan.mesh, dtype=torch.int64)
        self.table = torch.tensor(plan.table(), dtype=torch.float64)
        self.atom = torch.empty(self.n, dtype=torch.int64)
        self.first = torch.empty((self.n, 3), dtype=torch.int32)
        self.place = torch.empty((self.n, 3), dtype=torch.float64)
        self.brick_ptr = torch.empty(_bricks(self.size.data_ptr()) + 1, dtype=torch.int64)
        outputs = (t.data_ptr() for t in (self.atom, self.first, self.place, self.brick_ptr))
        threads = torch.get_num_threads()
        if _sort(self.fractional.data_ptr(), self.n, self.size.data_ptr(), plan.order, threads, *outputs):
            raise NonFiniteError("`fractional` holds NaN or infinite values")

    def arguments(self, dtype: torch.dtype) -> tuple:
        """Return the leading arguments of the C++ functions."""
        sites = (t.data_ptr() for t in (self.atom, self.first, self.place, self.brick_ptr))
        degree = self.table.shape[0] - 1
        head = (8 * dtype.itemsize, self.size.data_ptr(), self.plan.order, self.table.data_ptr(), degree, self.n)
        return (*head, *sites)


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


_LINES = 1024
"""Cache lines after which addresses fall into the same set of a second-level cache (64 KiB on common processors)."""


def channel_stride(mesh: tuple[int, int, int], dtype: torch.dtype) -> int:
    """Numbers from one channel of a mesh to the next.

    Meshes of many powers of two would put the same point of all channels into the same cache set; large ones are padded
    so that channels are spread over the sets.
    """
    points, line = math.prod(mesh), 64 // dtype.itemsize
    lines = -(-points // line)
    if lines <= 4 * _LINES:
        return points
    return (lines + (391 - lines) % _LINES) * line


def fresh_mesh(channels: int, mesh: tuple[int, int, int], dtype: torch.dtype) -> Tensor:
    """Uninitialised (channels, gx, gy, gz), channels `channel_stride` apart, under large pages where there are such."""
    stride = channel_stride(mesh, dtype)
    out = torch.empty(channels * stride, dtype=dtype)
    _large_pages(out.data_ptr(), out.numel() * dtype.itemsize)
    return out.as_strided((channels, *mesh), (stride, mesh[1] * mesh[2], mesh[2], 1))


def _spread_cpu(x: Tensor, sites: Sites, a: Tensor | None = None) -> Tensor:
    x = x.contiguous()
    a = None if a is None else a.to(torch.float64).contiguous()
    rho = fresh_mesh(x.shape[1], sites.plan.mesh, x.dtype)
    threads = torch.get_num_threads()
    arguments = sites.arguments(x.dtype)
    _spread(*arguments, x.data_ptr(), _pointer(a), x.shape[1], rho.stride(0), threads, rho.data_ptr())
    return rho


def _interpolate_cpu(phi: Tensor, sites: Sites, a: Tensor | None = None, x: Tensor | None = None):
    _, *strides = phi.stride()
    if strides != [phi.shape[2] * phi.shape[3], phi.shape[3], 1]:
        phi = phi.contiguous()
    a = None if a is None else a.to(torch.float64).contiguous()
    x = None if x is None else x.to(phi.dtype).contiguous()
    y = torch.empty((sites.n, phi.shape[0]), dtype=phi.dtype)
    # Without channels no kernel runs that would set it.
    pull = None if x is None else torch.zeros((sites.n, 3), dtype=torch.float64)
    pointers = (_pointer(t) for t in (phi, x, a))
    sizes = (phi.shape[0], phi.stride(0), torch.get_num_threads())
    _interpolate(*sites.arguments(phi.dtype), *pointers, *sizes, y.data_ptr(), _pointer(pull))
    return y, pull


_CPU = SimpleNamespace(
    spread=_spread_cpu,
    spread_tangent=_spread_cpu,
    interpolate=lambda phi, sites, x=None: _interpolate_cpu(phi, sites, None, x),
    interpolate_tangent=_interpolate_cpu,
)


def composed(backend) -> SimpleNamespace:
    """The four mesh functions, from three that know derivatives along the axes.

    Parameters
    ----------
    backend
        Has ``spread(x, fractional, mesh, order, derivative=(0, 0, 0), table=None) -> rho``,
        ``interpolate(phi, fractional, order, derivative=(0, 0, 0), table=None) -> y`` and
        ``interpolate_with_pull(phi, x, fractional, order, table=None) -> y, pull``. `table` is the window, see
        `GridPlan.table`; `derivative` says how often it is differentiated by each fractional coordinate (the factors g
        included).
    """

    def axes(*along: int) -> tuple[int, int, int]:
        return tuple(along.count(axis) for axis in range(3))

    def spread(x, sites, derivative=(0, 0, 0)):
        plan = sites.plan
        return backend.spread(x, sites.fractional, plan.mesh, plan.order, derivative, plan.table())

    def spread_tangent(x, sites, a):
        return sum(spread(x * a[:, k : k + 1].to(x.dtype), sites, axes(k)) for k in range(3))

    def read(phi, sites, derivative=(0, 0, 0)):
        return backend.interpolate(phi, sites.fractional, sites.plan.order, derivative, sites.plan.table())

    def dot(x, y):
        return (x.to(torch.float64) * y.to(torch.float64)).sum(dim=1)

    def interpolate(phi, sites, x=None):
        if x is None:
            return read(phi, sites), None
        return backend.interpolate_with_pull(phi, x, sites.fractional, sites.plan.order, sites.plan.table())

    def interpolate_tangent(phi, sites, a, x=None):
        dy = sum(a[:, k : k + 1].to(phi.dtype) * read(phi, sites, axes(k)) for k in range(3))
        if x is None:
            return dy, None
        a = a.to(torch.float64)
        pull = torch.zeros((sites.n, 3), dtype=torch.float64, device=phi.device)
        for k in range(3):
            for m in range(k, 3):
                second = dot(x, read(phi, sites, axes(k, m)))
                pull[:, k] += a[:, m] * second
                if m != k:
                    pull[:, m] += a[:, k] * second
        return dy, pull

    return SimpleNamespace(
        spread=spread, spread_tangent=spread_tangent, interpolate=interpolate, interpolate_tangent=interpolate_tangent
    )


def mesh_functions(sites: Sites) -> SimpleNamespace:
    if sites.fractional.device.type == "cpu":
        return _CPU
    from . import triton_grid

    return composed(triton_grid)


def _mesh_like(z: Tensor, mesh: tuple[int, int, int]) -> Tensor:
    if z.device.type == "cpu":
        return fresh_mesh(z.shape[2], mesh, z.dtype)
    return torch.empty((z.shape[2], *mesh), dtype=z.dtype, device=z.device)


class GridTransform:
    """Waves of one system through a mesh, within the tolerance of its plan; see `Transform`.

    Parameters
    ----------
    fractional : Tensor
        (n_atoms, 3) float64; wrapped or not makes no difference.
    miller : Tensor
        (n_modes, 3) int32 within the plan's extent: |n_a| < mesh_a / 2.
    dtype : torch.dtype
        Of channels and meshes: float32 or float64.
    plan : GridPlan
        From `plan_grid`.

    Notes
    -----
    One call on C channels takes C·N·order³ multiply-adds and C Fourier transforms of the mesh. It needs
    ``grid_bytes(plan, C, dtype)`` of memory besides its result, which for `field` is the real mesh itself; call it on
    chunks of channels. Results are the same bits for any number of threads (CPU).
    """

    def __init__(self, fractional: Tensor, miller: Tensor, dtype: torch.dtype, plan: GridPlan):
        if dtype not in (torch.float32, torch.float64):
            raise TypeError(f"`dtype` must be torch.float32 or torch.float64, got {dtype}")
        self.plan, self.dtype = plan, dtype
        self.sites = Sites(fractional, plan)
        self.mesh_functions = mesh_functions(self.sites)
        n = miller.to(torch.int64)
        if n.shape[0] and bool((2 * n.abs() >= torch.tensor(plan.mesh, device=n.device)).any()):
            raise ValueError(f"`miller` reaches beyond the mesh {plan.mesh}; plan for its extent")
        b = torch.ones(n.shape[0], dtype=torch.float64)
        for axis in range(3):
            unique, inverse = n[:, axis].cpu().unique(return_inverse=True)
            b *= torch.from_numpy(plan.deconvolution(axis, unique.numpy()))[inverse]
        b = b.to(n.device)
        self.fourier = BandFourier(plan.mesh, tuple(n.abs().amax(dim=0).tolist()) if n.shape[0] else (0, 0, 0))
        # The half spectrum holds n_z ≥ 0: a mode with n_z < 0 is read at −n, conjugate.
        sign = torch.where(n[:, 2] < 0, -1, 1)
        there = sign[:, None] * n
        self.index = self.fourier.places(there)
        self.cos, self.sin = b.to(dtype), (-b * sign).to(dtype)
        # Spectra are filled by reading, at every place, the mode that belongs there (or the zero after the last); modes
        # that come on top of others, as −n on the plane n_z = 0 may, are added.
        n_modes = n.shape[0]
        flat = (there[:, 2] == 0).nonzero()[:, 0]
        self.mode = torch.full((math.prod(self.fourier.shape),), n_modes, device=n.device)
        self.mode[self.index] = torch.arange(n_modes, device=n.device)
        self.extra = (self.mode[self.index] != torch.arange(n_modes, device=n.device)).nonzero()[:, 0]
        self.flat, self.flat_index = flat, self.fourier.places(-there[flat])

    def accumulate(self, x: Tensor) -> Tensor:
        """Z_m = Σ_j (cos θ_jm, sin θ_jm) x_j, (2, n_modes, C)."""
        return self._waves(self.mesh_functions.spread(x.to(self.dtype), self.sites))

    def accumulate_tangent(self, x: Tensor, a: Tensor) -> Tensor:
        """Rate of `accumulate` as the fractional coordinates move along a."""
        return self._waves(self.mesh_functions.spread_tangent(x.to(self.dtype), self.sites, a))

    def field(self, z: Tensor) -> Tensor:
        """φ on the mesh, (C, gx, gy, gz)."""
        z = z.to(self.dtype)
        phi = _mesh_like(z, self.plan.mesh)
        for c in self.fourier.together(phi):
            # The inverse transform adds n and −n: each takes half.
            half = phi.new_zeros((c.stop - c.start, z.shape[1] + 1), dtype=self.dtype.to_complex())
            torch.mul(z[0, :, c].T, 0.5 * self.cos, out=half.real[:, :-1])
            torch.mul(z[1, :, c].T, 0.5 * self.sin, out=half.imag[:, :-1])
            spectrum = half[:, self.mode]
            spectrum.index_add_(1, self.index[self.extra], half[:, self.extra])
            # Physically: a lazy conjugate is lost where the op is called from a compiled graph.
            spectrum.index_add_(1, self.flat_index, half[:, self.flat].conj_physical())
            spectrum = spectrum.view(-1, *self.fourier.shape)
            self.fourier.backward(spectrum, phi[c])
        return phi

    def gather(self, field: Tensor, x: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """y_i = Σ_m cos θ_im z_0m + sin θ_im z_1m, (n_atoms, C); given x also ∂(Σ_i x_i·y_i)/∂f, (n_atoms, 3)."""
        return self.mesh_functions.interpolate(field, self.sites, x)

    def gather_tangent(self, field: Tensor, a: Tensor, x: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Rates of both results of `gather` as the fractional coordinates move along a."""
        return self.mesh_functions.interpolate_tangent(field, self.sites, a, x)

    def _waves(self, rho: Tensor) -> Tensor:
        """Pick the modes out of the spectrum of rho (C, gx, gy, gz); the result is stored channel by channel."""
        z = torch.empty((2, rho.shape[0], self.index.shape[0]), dtype=self.dtype, device=rho.device)
        for c in self.fourier.together(rho):
            picked = self.fourier.forward(rho[c]).flatten(1)[:, self.index]
            torch.mul(picked.real, self.cos, out=z[0, c])
            torch.mul(picked.imag, self.sin, out=z[1, c])
        return z.transpose(1, 2)
