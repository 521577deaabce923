"""Case of ring statistics: a tiled glass, Si through bridging O to 12, and all atoms to 24, beside other packages."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import io
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import torch

import rsa_kernels as rk

from .harness import Workload, timed
from .start import glass

SIO_CUTOFF = 2.2  # Å
MAX_SIZE = 12
LARGEST_FOR = {"matscipy": 24000, "sovapy": 3000}
"""Atoms; matscipy's time and memory grow with their square, sovapy takes seconds at 3,000."""
VARIANTS = ("king", "guttman", "primitive", "primitive, all atoms")


def prepare(size: int, rivals: Sequence[str], device: str, start: str | None) -> list[Workload]:
    """Set up the three criteria on the net of Si, and primitive rings on that of all atoms."""
    return [_workload(variant, size, rivals, device, start) for variant in VARIANTS]


def _workload(variant: str, size: int, rivals: Sequence[str], device: str, start: str | None) -> Workload:
    edge_index, unit_shifts, silicon = _bonds(size, start)
    criterion = variant.split(",")[0]
    nodes, max_size = (None, 2 * MAX_SIZE) if variant.endswith("atoms") else (silicon, MAX_SIZE)
    bonds = edge_index.to(device), unit_shifts.to(device), size
    count = functools.partial(
        rk.ring_statistics, *bonds, criterion, max_size, None if nodes is None else nodes.to(device)
    )
    rings = count()
    implementations = {"rsa_kernels": timed(count, device)}
    package = "matscipy" if criterion == "primitive" else "sovapy"
    if package in rivals and size <= LARGEST_FOR[package]:
        vectors = _vectors(rings.links, size, start) if package == "matscipy" else None
        rival = _matscipy(rings.links, vectors, max_size) if package == "matscipy" else _sovapy(rings.links, criterion)
        implementations[package] = _checked(rival, rings)
    n_ends, n_nodes = rings.links.ends.shape[0], rings.links.n_nodes
    return Workload(
        variant=variant,
        size=size,
        device=device,
        unit="atom",
        work=size,
        implementations=implementations,
        versions={name: importlib.metadata.version(name) for name in implementations if name != "rsa_kernels"},
        bytes=28.0 * edge_index.shape[1] + 24.0 * n_ends + (8.0 + 4.0 * (max_size + 1)) * n_nodes,
        remarks=lambda: [repr(rings), *([_peak_of(variant, size, start)] if device == "cpu" else [])],
    )


@functools.cache
def _tiled(size: int, start: str | None):
    """The 3,000 atoms of `start.glass`, repeated: rings do not mind that cells are alike."""
    repeat = round((size / 3000) ** (1 / 3))
    if 3000 * repeat**3 != size:
        raise ValueError(f"`size` must be 3000 times a cube (3000, 24000, 192000, 1029000, ...), got {size}")
    return glass(3000, start).to_ase().repeat(repeat)


def _bonds(size: int, start: str | None):
    atoms = _tiled(size, start)
    positions, cell = torch.from_numpy(atoms.positions), torch.from_numpy(atoms.cell.array)
    silicon = torch.from_numpy(atoms.numbers == 14)
    neighbors = rk.neighbor_list(positions, cell, True, SIO_CUTOFF)
    i, j = neighbors.edge_index
    bonded = silicon[i] != silicon[j]
    return neighbors.edge_index[:, bonded].contiguous(), neighbors.unit_shifts[bonded].contiguous(), silicon


def _edges(links) -> tuple[torch.Tensor, torch.Tensor]:
    return links.owners(), links.ends[:, 0].long()


def _vectors(links, size: int, start: str | None):
    """From node to node along every link; matscipy tells rings from paths around the cell by their sum."""
    atoms = _tiled(size, start)
    positions, cell = torch.from_numpy(atoms.positions)[links.nodes], torch.from_numpy(atoms.cell.array)
    i, j = _edges(links)
    return positions[j] + links.ends[:, 1:].to(cell.dtype) @ cell - positions[i]


def _matscipy(links, vectors, max_size: int) -> Callable[[], dict[int, int]]:
    """Primitive rings of the same net by the functions under matscipy.rings.ring_statistics."""
    import numpy as np
    from matscipy.ffi import distances_on_graph, find_sp_rings

    i, j = (edge.numpy().astype(np.int32) for edge in _edges(links))

    def count():
        found = find_sp_rings(i, j, vectors.numpy(), distances_on_graph(i, j), max_size + 1)
        return dict(enumerate(found.tolist()))

    return count


def _sovapy(links, criterion: str) -> Callable[[], dict[int, int]]:
    """King's or Guttman's rings of the same net."""
    from sovapy.computation.rings import RINGs

    class Net:
        num_total, symbols = links.n_nodes, ["Si"] * links.n_nodes
        bonds = [[] for _ in range(links.n_nodes)]

    for i, j in zip(*(edge.tolist() for edge in _edges(links)), strict=True):
        Net.bonds[i].append(j)

    def count():
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            rings = RINGs(Net).calculate(getattr(RINGs.RingType, criterion.upper()))
        sizes = [ring.size for ring in rings]
        return {size: sizes.count(size) for size in set(sizes)}

    return count


def _checked(rival: Callable[[], dict[int, int]], rings) -> Callable[[], float]:
    """Time a rival and refuse its time where it finds other rings than ours."""
    ours = {size: count for size, count in enumerate(rings.counts.tolist()) if size > 2 and count}

    def run() -> float:
        begin = time.perf_counter()
        found = rival()
        taken = time.perf_counter() - begin
        theirs = {size: count for size, count in found.items() if 2 < size <= rings.max_size and count}
        if theirs != ours:
            raise RuntimeError(f"the rival counts other rings: {theirs}, ours are {ours}")
        return taken

    return run


def _peak_of(variant: str, size: int, start: str | None) -> str:
    command = [sys.executable, "-m", "profiling.rings", variant, str(size), *([start] if start else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    return f"peak extra memory: {done.stdout.strip() + ' GB' if done.returncode == 0 else 'not measured'}"


def _peak(variant: str, size: int, start: str | None) -> float:
    """Peak memory of a count on top of its inputs, GB."""
    from .attention import _status

    edge_index, unit_shifts, silicon = _bonds(size, start)
    nodes, max_size = (None, 2 * MAX_SIZE) if variant.endswith("atoms") else (silicon, MAX_SIZE)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = _status("VmRSS")
    rk.ring_statistics(edge_index, unit_shifts, size, variant.split(",")[0], max_size, nodes)
    return (_status("VmHWM") - before) / 1e6


if __name__ == "__main__":
    print(f"{_peak(sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None):.2f}")
