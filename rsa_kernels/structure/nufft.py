"""Non-uniform Fourier transforms between points and boxes of modes: finufft on a CPU, cufinufft on a GPU.

Both are imported on first use.
"""

from __future__ import annotations

import importlib
import importlib.util
import math

import torch
from torch import Tensor

from ..errors import BackendUnavailableError
from .lattice import Box

LOW, HIGH = 1.25, 2.0
"""finufft's two oversampling factors: the smaller has a finer grid of a quarter of the size and a wider kernel."""
LOW_TOLERANCE = 1e-8
"""Below this the smaller factor loses accuracy."""
FINEST = 1e-13
"""Smallest tolerance that double precision reaches."""


SECONDS_PER_POINT = {LOW: 7.0e-7, HIGH: 3.6e-7}
"""Spreading one point at a tolerance of 1e-7, on one core."""
SECONDS_PER_NODE = 3.0e-8
"""Fourier transform of one node of the finer grid."""
OVERHEAD = 2.0e-3
"""Making and starting one transform, seconds."""
WORTH_THREADS = 2.0e-2
"""Seconds of work below which one thread is faster: finufft brings its own threads, which wait beside torch's."""


def finufft_missing() -> str | None:
    """Why the grid route cannot run on a CPU, or None; looks without importing."""
    return None if importlib.util.find_spec("finufft") else "finufft is not installed; pip install finufft"


def cufinufft_missing() -> str | None:
    """Why the grid route cannot run on a GPU, or None."""
    return None if importlib.util.find_spec("cufinufft") else "cufinufft is not installed; pip install cufinufft"


def upsampling(n_points: int, n_modes: int, tolerance: float, device: str = "cpu") -> float:
    """Oversampling factor of the finer grid: where points outnumber modes, spreading is most of the work.

    A GPU has memory and transforms fast: always the larger one.
    """
    return HIGH if device == "cuda" or tolerance < LOW_TOLERANCE or n_modes < 2 * n_points else LOW


def transform_seconds(n_points: int, edges: tuple[int, ...], factor: float) -> float:
    """About how long one transform between points and a box of modes takes on one core."""
    # The finer grid is at least two kernels wide.
    nodes = math.prod(max(factor * edge, 24.0) for edge in edges)
    return n_points * SECONDS_PER_POINT[factor] + nodes * SECONDS_PER_NODE + OVERHEAD


class Points:
    """Points of one species: phases φ = 2πf within [−π, π), as three contiguous columns."""

    def __init__(self, fractional: Tensor):
        turns = fractional - torch.floor(fractional + 0.5)
        # (3, n) contiguous
        self.phases = (2.0 * math.pi * turns.T).contiguous()

    def __len__(self) -> int:
        return self.phases.shape[1]

    def turned(self, centre: tuple[float, ...]) -> Tensor:
        """e^{i φ·centre}, (n,) complex: moves a box of modes to where the transforms have theirs, around zero."""
        angle = torch.zeros_like(self.phases[0])
        for phase, shift in zip(self.phases, centre, strict=True):
            angle.add_(phase, alpha=float(shift))
        return torch.polar(torch.ones_like(angle), angle)


class Transforms:
    """Sums over points into a box of modes, and their adjoint.

    Plans are kept for the last shape of box in each direction; `tolerance` is the relative error (root mean square).
    """

    def __init__(self, tolerance: float):
        self.tolerance = max(tolerance, FINEST)
        self._plans: dict[int, tuple] = {}

    def accumulate(self, points: Points, strengths: Tensor | None, box: Box, out: Tensor) -> Tensor:
        """Z(n) = Σ_j s_j e^{i n·φ_j} for the modes of the box, into `out` (complex128, shape of the box)."""
        if len(points) == 0:
            return out.zero_()
        turned = points.turned(_centre(box))
        if strengths is not None:
            turned *= strengths
        return self._run(1, points, box, turned, out)

    def gather(self, points: Points, modes: Tensor, box: Box) -> Tensor:
        """y_j = Σ_n Z(n) e^{−i n·φ_j}, (n_points,) complex128."""
        if len(points) == 0:
            return modes.new_zeros(0)
        out = self._run(2, points, box, modes, modes.new_empty(len(points)))
        # Conjugated in place: inside an op, under torch.compile, lazy conjugation is not resolved.
        return out.mul_(points.turned(_centre(box)).conj_physical_())

    def _run(self, kind: int, points: Points, box: Box, data: Tensor, out: Tensor) -> Tensor:
        shape, device = box[3:], points.phases.device
        factor = upsampling(len(points), math.prod(shape), self.tolerance, device.type)
        threads = torch.get_num_threads() if transform_seconds(len(points), shape, factor) > WORTH_THREADS else 1
        key = (shape, factor, threads, device)
        held = self._plans.get(kind)
        if held is None or held[0] != key:
            self._plans.pop(kind, None)
            held = (key, self._plan(kind, *key), None)
        if held[2] is not points:
            _set_points(held[1], points.phases)
            held = (key, held[1], points)
        self._plans[kind] = held
        _execute(held[1], data, out)
        return out

    def _plan(self, kind: int, shape: tuple[int, ...], factor: float, threads: int, device: torch.device):
        isign = 1 if kind == 1 else -1
        if device.type == "cuda":
            cufinufft = _import("cufinufft", cufinufft_missing)
            return cufinufft.Plan(
                kind,
                shape,
                1,
                self.tolerance,
                isign,
                dtype="complex128",
                upsampfac=factor,
                gpu_device_id=device.index or 0,
                gpu_stream=torch.cuda.current_stream(device).cuda_stream,
            )
        finufft = _import("finufft", finufft_missing)
        return finufft.Plan(
            kind, shape, 1, self.tolerance, isign, dtype="complex128", upsampfac=factor, nthreads=threads
        )


def _centre(box: Box) -> tuple[int, ...]:
    """Mode of a box that finufft numbers zero."""
    return tuple(low + size // 2 for low, size in zip(box[:3], box[3:], strict=True))


def _set_points(plan, phases: Tensor) -> None:
    plan.setpts(*(phases if phases.is_cuda else phases.numpy()))


def _execute(plan, data: Tensor, out: Tensor) -> None:
    if data.is_cuda:
        plan.execute(data.contiguous(), out)
    else:
        plan.execute(data.contiguous().numpy(), out.numpy())


def _import(name: str, missing):
    reason = missing()
    if reason is not None:
        raise BackendUnavailableError(f"`method` 'grid' of the structure factor cannot run: {reason}")
    return importlib.import_module(name)
