"""Neighbour lists in fixed buffers on a GPU: an update that rebuilds, one that does not, and both in a CUDA graph."""

from __future__ import annotations

from dataclasses import dataclass

import torch

import rsa_kernels as rk

from .harness import Workload, timed

CUTOFF, SKIN = 5.0, 0.5
FLOPS_PER_CANDIDATE, FLOPS_OF_A_LOOK = 8.0, 40.0
"""Difference and square of every candidate; displacement of an atom and the skin it uses up."""


@dataclass(frozen=True)
class Costs:
    """What one update moves and computes, counted from the sizes of a list that has been built.

    Attributes
    ----------
    look_bytes, rebuild_bytes : float
        To and from memory, by an update that finds the list good, and by one that rebuilds it. Every array counts once
        for each kernel that reads or writes it; candidates of the search are read from memory once.
    candidates : float
        Entries the search tests; each is a record of 32 bytes in a cache.
    flops : float
        Of an update that rebuilds, float64.
    """

    look_bytes: float
    rebuild_bytes: float
    candidates: float
    flops: float


def costs(neighbors: rk.neighbors.DeviceList) -> Costs:
    """Count what updates of a list cost; waits for the device."""
    n = neighbors.n_atoms
    entries = n + int(neighbors._state.status[rk.neighbors.device_build.IMAGES])
    buffers = neighbors._buffers._made
    bins = buffers["bin_count"].numel()
    # staged copy, its comparison with the reference, three scans
    look = (24 + 24) * n + (24 + 24 + 4) * n + (16 + 16) * n + 8 * bins
    per_atom = 92 + 36 + 60 + 4 * neighbors.max_neighbors + 8 + 4 + 8  # wrap, count, place, matrix and its counts
    per_entry = 20 + 108 + 32  # scatter, sort, read in the search
    rebuild = look + 4 * bins + per_atom * n + per_entry * entries + 28 * (entries - n)
    candidates = _candidates(neighbors)
    flops = FLOPS_PER_CANDIDATE * candidates + FLOPS_OF_A_LOOK * n
    return Costs(float(look), float(rebuild), candidates, flops)


def _candidates(neighbors: rk.neighbors.DeviceList) -> float:
    """Entries in reach of every row, by the bins of the list (one system)."""
    buffers = neighbors._buffers._made
    words = buffers["grids"][0].cpu()
    count, reach = words[9:12].tolist(), words[12:15].tolist()
    bins = buffers["row_bin"].long()
    start, n_bins = buffers["bin_start"].long(), buffers["bin_count"].numel() // 2
    x, y, z = bins // (count[1] * count[2]), bins // count[2] % count[1], bins % count[2]
    first, last = (z - reach[2]).clamp(min=0), (z + reach[2]).clamp(max=count[2] - 1)
    total = 0
    for dx in range(-reach[0], reach[0] + 1):
        for dy in range(-reach[1], reach[1] + 1):
            inside = (x + dx >= 0) & (x + dx < count[0]) & (y + dy >= 0) & (y + dy < count[1])
            row = torch.where(inside, ((x + dx) * count[1] + y + dy) * count[2], 0)
            for part in (0, n_bins):
                found = start[part + row + last + 1] - start[part + row + first]
                total += int(torch.where(inside, found, 0).sum())
    return float(total)


def workloads(positions: torch.Tensor, cell: torch.Tensor, device: str) -> list[Workload]:
    """Set up updates at 5 Å, launched one by one and replayed; ours alone: no rival decides on the device."""
    made = []
    for variant, skin in (("update that rebuilds, 5 Å", 0.0), ("update within the skin, 5.5 Å", SKIN)):
        neighbors = rk.neighbors.DeviceList(positions, cell, True, CUTOFF, skin=skin)
        counted = costs(neighbors)
        made.append(
            Workload(
                variant=variant,
                size=len(positions),
                device=device,
                unit="atom",
                work=len(positions),
                implementations={
                    "rsa_kernels, replayed": timed(_graph(neighbors, positions, cell).replay, device),
                    "rsa_kernels": timed(_update(neighbors, positions, cell), device),
                },
                versions={"rsa_kernels": rk.__version__},
                flops=counted.flops if skin == 0.0 else FLOPS_OF_A_LOOK * len(positions),
                bytes=counted.rebuild_bytes if skin == 0.0 else counted.look_bytes,
                remarks=lambda neighbors=neighbors: [f"{neighbors.n_bytes / 1e9:.2f} GB of buffers"],
            )
        )
    return made


def _update(neighbors, positions, cell):
    return lambda: neighbors.update(positions, cell)


def _graph(neighbors, positions, cell) -> torch.cuda.CUDAGraph:
    neighbors.update(positions, cell)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        neighbors.update(positions, cell)
    return graph
