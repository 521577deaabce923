"""The case of structure factors: beside dynasor and freud at as many k-vectors, and all vectors to 10 and 25 1/Å."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import ase.io
import torch

import rsa_kernels as rk
from rsa_kernels.reciprocal.modes import half_space
from rsa_kernels.structure import nufft

from .attention import _status
from .harness import Workload, timed
from .start import glass

DENSITY = 0.0662
"""Atoms/Å³ of silica glass."""
DQ = 0.05
REACHES = (10.0, 25.0)
VECTORS = 20000
PACKAGES = {"dynasor": "dynasor", "freud": "freud-analysis"}
KERNEL_WIDTH = 12
"""Of finufft's spreading at a tolerance of 1e-7 and its smaller oversampling."""


def unavailable(rival: str) -> str | None:
    """Why a rival cannot run here, None when it can."""
    return None if importlib.util.find_spec(rival) else f"{PACKAGES[rival]} is not installed"


def prepare(size: int, rivals: Sequence[str], device: str, start: str | None) -> list[Workload]:
    """Set up S(Q) of a glass: as many half-space vectors as rivals sum in bearable time, and all to 10 and 25 1/Å."""
    state = glass(size, start).to(device)
    inputs = state.positions, state.cell, state.atomic_numbers
    workloads = [_beside(size, inputs, rivals, device)] if size <= 24000 else []
    return workloads + [_every(size, inputs, q_max, rivals, device) for q_max in REACHES]


def _beside(size: int, inputs, rivals: Sequence[str], device: str) -> Workload:
    """Equal numbers of vectors: ours up to a radius, dynasor the same ones, freud at most as many of its octant."""
    volume = float(rk.cells.volume(inputs[1]))
    q_max = (12.0 * math.pi**2 * VECTORS / volume) ** (1.0 / 3.0)
    dq = q_max / 40.5
    run = functools.partial(rk.structure_factor, *inputs, 40.0 * dq * (1.0 + 1e-9), dq)
    found = run()
    implementations = {"rsa_kernels": timed(run, device)}
    if "dynasor" in rivals:
        implementations["dynasor"] = _dynasor(inputs, q_max)
    if "freud" in rivals:
        # Vectors with no negative component are an eighth of a ball, a quarter of the half ball.
        share = 1.0 if size <= 3000 else 0.25
        implementations["freud"] = _freud(inputs, q_max * (4.0 * share) ** (1.0 / 3.0))
    summed = int(found.counts.sum()) // 2
    return Workload(
        variant=f"{VECTORS} vectors",
        size=size,
        device=device,
        unit="k-vector",
        work=summed,
        implementations=implementations,
        versions={name: importlib.metadata.version(PACKAGES[name]) for name in implementations if name in PACKAGES},
        flops=_flops(size, found),
        bytes=_bytes(size, found),
        remarks=lambda: [
            f"{found.method}, {summed} vectors of the half space up to {q_max:.2f} 1/Å",
            *(["freud sums a quarter as many"] if size > 3000 and "freud" in rivals else []),
        ],
    )


def _every(size: int, inputs, q_max: float, rivals: Sequence[str], device: str) -> Workload:
    """All vectors up to q_max, or what "auto" makes of them; beside dynasor where that takes seconds."""
    run = functools.partial(rk.structure_factor, *inputs, q_max, DQ)
    found = run()

    def once() -> float:
        # Not `timed`, which runs everything twice: this can take a minute.
        begin = time.perf_counter()
        run()
        if device != "cpu":
            torch.cuda.synchronize(device)
        return time.perf_counter() - begin

    def remarks() -> list[str]:
        said = [f"{found.method}: {found.reason}", f"{len(found.boxes)} boxes of modes"]
        return said + [f"peak extra memory: {_peak_of(size, q_max)}"]

    implementations = {"rsa_kernels": once}
    if "dynasor" in rivals and size <= 3000 and q_max <= 10.0:
        implementations["dynasor"] = _dynasor(inputs, q_max)
    return Workload(
        variant=f"to {q_max:g} 1/A",
        size=size,
        device=device,
        unit="k-vector",
        work=int(found.counts.sum()) // 2,
        implementations=implementations,
        versions={name: importlib.metadata.version(PACKAGES[name]) for name in implementations if name in PACKAGES},
        flops=_flops(size, found),
        bytes=_bytes(size, found),
        remarks=remarks,
    )


def _dynasor(inputs, q_max: float) -> Callable[[], float]:
    """Partials of the vectors of the half space up to q_max; reading the frame is not counted."""
    import dynasor

    positions, cell, numbers = (x.cpu() for x in inputs)
    miller = half_space(cell, q_max).double()
    q = (miller @ (2.0 * math.pi * torch.linalg.inv(cell).T)).numpy()
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "two.traj"
    atoms = ase.Atoms(numbers.numpy(), positions.numpy(), cell=cell.numpy(), pbc=True)
    ase.io.write(path, [atoms, atoms])  # it reads two frames at least
    indices = {name: torch.nonzero(numbers == z).flatten().tolist() for name, z in (("Si", 14), ("O", 8))}

    def run(_keep=folder) -> float:
        trajectory = dynasor.Trajectory(str(path), "ase", atomic_indices=indices, frame_stop=1)
        begin = time.perf_counter()
        dynasor.compute_static_structure_factors(trajectory, q)
        return time.perf_counter() - begin

    return run


def _freud(inputs, k_max: float) -> Callable[[], float]:
    """Partials of all vectors of the octant up to k_max, one call a pair."""
    import freud

    positions, cell, numbers = (x.cpu() for x in inputs)
    box = freud.box.Box(*(float(cell[k, k]) for k in range(3)))
    points = box.wrap(positions.numpy())
    silicon, oxygen = (points[numbers.numpy() == z] for z in (14, 8))

    def run() -> float:
        begin = time.perf_counter()
        for a, b in ((silicon, silicon), (silicon, oxygen), (oxygen, oxygen)):
            factor = freud.diffraction.StaticStructureFactorDirect(bins=40, k_max=k_max, k_min=k_max / 81.0)
            factor.compute((box, a), query_points=b, N_total=len(points))
            factor.S_k.sum()
        return time.perf_counter() - begin

    return run


def _nodes(found) -> list[float]:
    """Nodes of finufft's finer grid, of every box."""
    return [math.prod(row[4:7]) * nufft.LOW**3 for row in found.boxes.tolist()]


def _flops(size: int, found) -> float:
    """Spreading (two multiply-adds of complex parts a node) and complex Fourier transforms; or direct sums."""
    if found.method == "direct":
        return 8.0 * size * float(found.counts.sum()) / 2.0
    species = len(found.species)
    return sum(4.0 * size * KERNEL_WIDTH**3 + species * 5.0 * n * math.log2(n) for n in _nodes(found))


def _bytes(size: int, found) -> float:
    """Finer grids written and read once by each of three axes, modes written and read, atoms read a box."""
    species = len(found.species)
    return sum(species * n * (6 * 16.0 + 32.0 / nufft.LOW**3) + 40.0 * size for n in _nodes(found))


def _peak_of(size: int, q_max: float) -> str:
    """Peak extra memory of one run, in a process of its own."""
    command = [sys.executable, "-m", "profiling.structure", str(size), str(q_max)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() + " GB" if done.returncode == 0 else "not measured, the process failed"


def _peak(size: int, q_max: float) -> float:
    """Random atoms: memory does not depend on where they are."""
    edge = (size / DENSITY) ** (1.0 / 3.0)
    generator = torch.Generator().manual_seed(0)
    positions = edge * torch.rand(size, 3, dtype=torch.float64, generator=generator)
    cell, species = edge * torch.eye(3, dtype=torch.float64), torch.tensor([14, 8, 8]).repeat(size // 3 + 1)[:size]
    rk.structure_factor(positions[:300], cell / edge * 17.0, species[:300], 3.0, DQ, "grid")  # loads what it needs
    # A process inherits the peak of the one that starts it: begin anew.
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = _status("VmRSS")
    rk.structure_factor(positions, cell, species, q_max, DQ)
    return (_status("VmHWM") - before) / 1e6


if __name__ == "__main__":
    print(f"{_peak(int(sys.argv[1]), float(sys.argv[2])):.2f}")
