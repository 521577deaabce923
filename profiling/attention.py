"""Cases of reciprocal-space attention: beside the published sum, growing with size, one method beside another."""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import torch

import rsa_kernels as rk
from rsa_kernels.reciprocal import reference, spectra
from rsa_kernels.reciprocal.modes import Modes, half_space

from . import rotary
from .harness import Workload

DENSITY = 0.0662
"""Atoms/Å³ of silica glass."""
SIGMA = 5.0 / 4.292
"""Å; the published width for r_max = 5 Å."""
K_CUT = 1.6
HEADS, WIDTH = 16, 4


def published(size: int, rivals: Sequence[str], device: str, start: str | None) -> list[Workload]:
    """Set up one head and 1,024 waves of the full space, forward and backward, beside the published and a dense sum."""
    channels = 64 if size < 1000 else 128
    workloads = []
    for dtype in (torch.float64, torch.float32):
        q, k, v, positions, cell, modes = _inputs(size, 1, channels, dtype, device, n_modes=512)
        ours = functools.partial(rk.reciprocal_attention, cell=cell, modes=modes, method="pairwise")
        implementations = {"rsa_kernels": _once(ours, (q, k, v, positions), device)}
        if "dense" in rivals:
            implementations["dense (torch autograd)"] = _once(_dense(cell, modes), (q, k, v, positions), device)
        if "published" in rivals and dtype == torch.float64:
            implementations["published (torch autograd)"] = _once(_published(cell, modes), (q, k, v, positions), device)
        workloads.append(
            Workload(
                variant=f"{str(dtype).removeprefix('torch.')} d={channels}",
                size=size,
                device=device,
                unit="atom",
                work=size,
                implementations=implementations,
                versions={name: torch.__version__ for name in implementations if name != "rsa_kernels"},
                flops=pairwise_flops(size, modes.n_modes, 1, channels, channels),
                bytes=_leaf_bytes(size, 1, channels, dtype),
                remarks=functools.partial(_peaks, "published", size, str(dtype), implementations),
            )
        )
    return workloads


def growth(size: int, rivals: Sequence[str], device: str, start: str | None) -> list[Workload]:
    """Set up 16 heads of width 4 at the density of silica and fixed k_cut, forward and backward, method "auto"."""
    return [_methods_workload(size, ("auto",), device, with_peaks=True)]


def methods(size: int, rivals: Sequence[str], device: str, start: str | None) -> list[Workload]:
    """Set up the same as `growth` with "auto" and with every method that takes less than a minute."""
    return [_methods_workload(size, ("auto", *rivals), device, with_peaks=False)]


def _methods_workload(size: int, names: Sequence[str], device: str, with_peaks: bool) -> Workload:
    q, k, v, positions, cell, modes = _inputs(size, HEADS, WIDTH, torch.float32, device)
    explained = rk.explain(q, k, v, modes)
    implementations = {}
    for name in names:
        if name == "auto" or explained.seconds[name] < 60.0:
            run = functools.partial(rk.reciprocal_attention, cell=cell, modes=modes, method=name)
            implementations["rsa_kernels" if name == "auto" else name] = _once(run, (q, k, v, positions), device)

    def remarks() -> list[str]:
        found = [f"auto is {explained.method}, {modes.n_modes} waves"]
        return found + (_peaks("growth", size, "torch.float32", ("rsa_kernels",)) if with_peaks else [])

    channels = HEADS * WIDTH * WIDTH
    return Workload(
        variant="float32 16x4",
        size=size,
        device=device,
        unit="atom",
        work=size,
        implementations=implementations,
        versions={name: rk.__version__ for name in implementations if name != "rsa_kernels"},
        flops=32.0 * size * modes.n_modes * channels if explained.method == "spectral" else 0.0,
        bytes=_leaf_bytes(size, HEADS, WIDTH, torch.float32),
        remarks=remarks,
    )


def pairwise_flops(n_atoms: int, n_modes: int, heads: int, d: int, d_v: int) -> float:
    """Multiplications and additions of a forward and a backward over pairs, half of K by symmetry.

    K twice (2·N²·M each, half its tiles), S and u forward; S, T and three gradients backward; (B + Bᵀ) times waves.
    """
    kernel = 2.0 * 2.0 * n_atoms**2 * n_modes
    forward = 2.0 * n_atoms**2 * heads * (d + d_v)
    backward = 2.0 * n_atoms**2 * heads * (3.0 * d + 2.0 * d_v)
    by_wave = 2.0 * n_atoms**2 * 2.0 * n_modes
    return kernel + forward + backward + by_wave


def _inputs(size: int, heads: int, d: int, dtype: torch.dtype, device: str, n_modes: int | None = None):
    """Random atoms in a cube at the density of silica: with weights this smooth, order does not change the cost."""
    generator = torch.Generator().manual_seed(0)
    edge = (size / DENSITY) ** (1.0 / 3.0)
    cell = edge * torch.eye(3, dtype=torch.float64)
    positions = torch.rand(size, 3, generator=generator, dtype=torch.float64) * edge
    q, k, v = (torch.randn(size, heads, d, generator=generator, dtype=dtype) for _ in range(3))
    modes = rk.reciprocal_modes(cell, K_CUT, spectra.gaussian(SIGMA))
    if n_modes is not None:
        # The published number of waves, whatever k that reaches.
        miller = half_space(cell, 1.2 * (6.0 * torch.pi**2 * 2 * n_modes / edge**3) ** (1.0 / 3.0))[:n_modes]
        wavenumbers = 2.0 * torch.pi * miller.to(torch.float64).norm(dim=1) / edge
        weights = spectra.gaussian(SIGMA)(wavenumbers) / edge**3
        modes = Modes(miller, weights, torch.tensor([0, n_modes]), float(wavenumbers.max()))
    modes = Modes(modes.miller.to(device), modes.weights.to(device), modes.mode_ptr.to(device), modes.k_cut)
    return *(x.to(device) for x in (q, k, v, positions.to(dtype), cell.to(dtype))), modes


def _once(attention: Callable, leaves: Sequence[torch.Tensor], device: str) -> Callable[[], float]:
    """Time one forward and backward."""

    def run() -> float:
        inputs = [x.detach().clone().requires_grad_() for x in leaves]
        begin = time.perf_counter()
        u = attention(*inputs)
        torch.autograd.grad(u.square().sum(), inputs)
        if device != "cpu":
            torch.cuda.synchronize(device)
        return time.perf_counter() - begin

    return run


def _dense(cell, modes: Modes) -> Callable:
    def attention(q, k, v, positions):
        fractional = positions.to(torch.float64) @ torch.linalg.inv(cell.to(torch.float64))
        pointers = torch.tensor([0, len(positions)]), modes.mode_ptr
        return reference.reciprocal_attention(q, k, v, fractional, modes.miller, modes.weights, *pointers)

    return attention


def _published(cell, modes: Modes) -> Callable:
    miller, weights = (torch.cat([modes.miller, -modes.miller]), modes.weights.repeat(2))

    def attention(q, k, v, positions):
        return rotary.attention(q[:, 0], k[:, 0], v[:, 0], positions, cell, miller, weights.to(q.dtype))

    return attention


def _leaf_bytes(size: int, heads: int, d: int, dtype: torch.dtype) -> float:
    """q, k, v, g read and u, gq, gk, gv written once; positions and forces."""
    return size * (8.0 * heads * d * dtype.itemsize + 48.0)


def _peaks(case: str, size: int, dtype: str, implementations) -> list[str]:
    """Peak extra memory of one forward and backward of each implementation, in a process of its own."""
    found = []
    for name in implementations:
        command = [sys.executable, "-m", "profiling.attention", case, str(size), dtype, name]
        done = subprocess.run(command, capture_output=True, text=True)
        peak = done.stdout.strip() + " GB" if done.returncode == 0 else "not measured, the process failed"
        found.append(f"peak extra memory of {name}: {peak}")
    return found


def _peak(case: str, size: int, dtype: str, name: str) -> float:
    prepare, rivals = {"published": (published, ("published", "dense")), "growth": (growth, ())}[case]
    wanted = next(w for w in prepare(size, rivals, "cpu", None) if w.variant.split()[0] == dtype.removeprefix("torch."))
    # A process inherits the peak of the one that starts it: begin anew.
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = _status("VmRSS")
    wanted.implementations[name]()
    return (_status("VmHWM") - before) / 1e6


def _status(field: str) -> float:
    """Return a figure of this process's memory, kB."""
    with open("/proc/self/status") as file:
        return next(float(line.split()[1]) for line in file if line.startswith(field))


if __name__ == "__main__":
    print(f"{_peak(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]):.2f}")
