"""Case of neighbour lists: pairs (i, j, S), full and half, and the padded matrix at 5 Å, growing; rows at 11 Å."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

import rsa_kernels as rk

from . import device_list
from .attention import _status
from .harness import Workload, timed
from .start import glass

CUTOFF = 5.0
LONG, SKIN = 10.0, 1.0
PACKAGES = {"vesin": "vesin", "matscipy": "matscipy", "nvalchemi": "nvalchemi-toolkit-ops"}
FLOPS_PER_PAIR = 8.0
"""Difference, square and comparison of a pair that is listed; candidates beyond the cutoff are not counted."""


def prepare(size: int, rivals: Sequence[str], device: str, start: str | None) -> list[Workload]:
    """Set up building lists of a silica glass beside others that give the same pairs."""
    positions, cell = (x.to(device) for x in tiled(size, start))
    arguments = positions, cell, rivals, device
    workloads = [
        _pairs("i j S, full, 5 Å", *arguments, half=False),
        _pairs("i j S, half, 5 Å", *arguments, half=True),
        _matrix("matrix, full, 5 Å", *arguments),
    ]
    if size <= 200_000:
        workloads.append(_rows("rows, 11 Å", *arguments))
        workloads.append(_within("rows, 5 Å out of 11 Å", *arguments))
    if device != "cpu":
        workloads.extend(device_list.workloads(positions, cell, device))
    return workloads


def tiled(size: int, start: str | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions and cell of a 3,000-atom glass repeated, its copies told apart by displacements of 0.05 Å."""
    repeat = round((size / 3000) ** (1 / 3))
    if 3000 * repeat**3 != size:
        raise ValueError(f"`size` must be 3000 times a cube (3000, 24000, 192000, 1029000, ...), got {size}")
    atoms = glass(3000, start).to_ase(wrap=True).repeat(repeat)
    moved = np.random.default_rng(0).normal(0.0, 0.05, (size, 3)) if repeat > 1 else 0.0
    return torch.tensor(atoms.get_positions() + moved), torch.tensor(np.array(atoms.cell))


def unavailable(package: str) -> Callable[[], str | None]:
    """Say why a rival cannot run here, None where it can."""
    module = {"nvalchemi": "nvalchemiops"}.get(package, package)
    missing = f"{package} is not installed; pip install {PACKAGES[package]}"
    return lambda: None if importlib.util.find_spec(module) else missing


def _pairs(variant: str, positions, cell, rivals: Sequence[str], device: str, half: bool) -> Workload:
    def ours():
        nl = rk.neighbor_list(positions, cell, True, CUTOFF, half=half)
        return nl.edge_index, nl.unit_shifts

    functions, notes = {"rsa_kernels": ours}, []
    if "vesin" in rivals:
        functions["vesin"], note = _fastest_vesin(positions, cell, half)
        notes.append(note)
        functions["vesin, sorted"] = _vesin(positions, cell, half, sorted=True)
    if "matscipy" in rivals and not half and device == "cpu":
        functions["matscipy"] = _matscipy(positions, cell)
    if "nvalchemi" in rivals:
        functions["nvalchemi"] = _nvalchemi(positions, cell, half, pairs=True)

    def remarks() -> list[str]:
        wanted = _digest(*ours())
        differing = [name for name, function in functions.items() if _digest(*function()) != wanted]
        agreed = "differ from " + ", ".join(differing) if differing else "equal those of all others"
        return [f"{wanted[0]:,} pairs {agreed}", *notes, *_peaks(len(positions), half, functions, device)]

    listed = rk.neighbor_list(positions, cell, True, CUTOFF)
    n_pairs = listed.columns.numel()
    written = 28 * n_pairs // (2 if half else 1)
    return _workload(variant, positions, functions, device, n_pairs, _row_bytes(listed) + written, remarks)


def _matrix(variant: str, positions, cell, rivals: Sequence[str], device: str) -> Workload:
    functions = {"rsa_kernels": lambda: rk.neighbor_list(positions, cell, True, CUTOFF).matrix()}
    if "nvalchemi" in rivals:
        functions["nvalchemi"] = _nvalchemi(positions, cell, False, pairs=False)
    listed = rk.neighbor_list(positions, cell, True, CUTOFF)
    elements = len(positions) * int(listed.rows.diff().max())
    return _workload(variant, positions, functions, device, listed.columns.numel(), _row_bytes(listed) + 20 * elements)


def _rows(variant: str, positions, cell, rivals: Sequence[str], device: str) -> Workload:
    def build():
        return rk.neighbor_list(positions, cell, True, LONG, skin=SKIN)

    listed = build()
    functions = {"rsa_kernels": build}
    return _workload(variant, positions, functions, device, listed.columns.numel(), _row_bytes(listed))


def _within(variant: str, positions, cell, rivals: Sequence[str], device: str) -> Workload:
    long = rk.neighbor_list(positions, cell, True, LONG, skin=SKIN)
    functions = {
        "rsa_kernels": lambda: long.within(CUTOFF),
        "rsa_kernels, built anew": lambda: rk.neighbor_list(positions, cell, True, CUTOFF),
    }
    n_pairs = long.columns.numel()
    moved = 4 * (n_pairs + long.within(CUTOFF).columns.numel()) + 48 * long.owners.numel() + 16 * len(positions)
    return _workload(variant, positions, functions, device, n_pairs, moved)


def _workload(
    variant, positions, functions: Mapping, device: str, n_pairs: int, moved: float, remarks=list
) -> Workload:
    measure = timed if len(positions) < 100_000 else _once
    return Workload(
        variant=variant,
        size=len(positions),
        device=device,
        unit="atom",
        work=len(positions),
        implementations={name: measure(function, device) for name, function in functions.items()},
        versions=_versions(functions),
        flops=FLOPS_PER_PAIR * n_pairs,
        bytes=moved,
        remarks=remarks,
    )


def _row_bytes(listed) -> float:
    """Compact rows written and read once; coordinates, atom and lattice vector of every atom and image."""
    return 8 * listed.columns.numel() + (24 + 16) * listed.owners.numel() + 24 * listed.n_atoms


def _once(function: Callable, device: str) -> Callable[[], float]:
    """Time one call: what takes long needs no mean of several."""

    def run() -> float:
        begin = time.perf_counter()
        function()
        if device != "cpu":
            torch.cuda.synchronize(device)
        return time.perf_counter() - begin

    return run


def _vesin(positions, cell, half: bool, copy: bool = True, **options) -> Callable:
    import vesin

    calculator = vesin.NeighborList(cutoff=CUTOFF, full_list=not half, **options)
    points, box = (x.numpy() if x.device.type == "cpu" else x for x in (positions, cell))

    def run():
        i, j, shifts = calculator.compute(points, box, True, quantities="ijS", copy=copy)
        return (i, j), shifts

    return run


def _fastest_vesin(positions, cell, half: bool) -> tuple[Callable, str]:
    """All threads or one; copies of what it found, or views that the next call overwrites."""
    settings = [{"n_threads": n, "copy": copy} for n in (torch.get_num_threads(), 1) for copy in (True, False)]
    functions = [_vesin(positions, cell, half, **options) for options in settings]
    best = [float("inf")] * len(settings)
    for _ in range(3):
        for index, function in enumerate(functions):
            best[index] = min(best[index], _once(function, positions.device.type)())
    fastest = best.index(min(best))
    described = ", ".join(f"{name}={value}" for name, value in settings[fastest].items())
    return functions[fastest], f"vesin is fastest with {described}"


def _matscipy(positions, cell) -> Callable:
    from matscipy.neighbours import neighbour_list

    arguments = {"positions": positions.numpy(), "cell": cell.numpy(), "pbc": [True] * 3, "cutoff": CUTOFF}

    def run():
        i, j, shifts = neighbour_list("ijS", **arguments)
        return (i, j), shifts

    return run


def _nvalchemi(positions, cell, half: bool, pairs: bool) -> Callable:
    from nvalchemiops.torch.neighbors import neighbor_list

    pbc = torch.ones((1, 3), dtype=torch.bool, device=positions.device)
    longest = int(rk.neighbor_list(positions, cell, True, CUTOFF).rows.diff().max())
    options = {"method": "cell_list", "half_fill": half, "max_neighbors": longest, "return_neighbor_list": pairs}

    def run():
        found = neighbor_list(positions, CUTOFF, cell[None], pbc, **options)
        return (found[0], found[2]) if pairs else found

    return run


def _digest(edges, shifts) -> tuple[int, int]:
    """Number of pairs and a sum over them that depends on every (i, j, S), but not on order nor on a pair's side."""
    i, j = (np.asarray(torch.as_tensor(x).cpu()).astype(np.int64) for x in edges)
    shifts = np.asarray(torch.as_tensor(shifts).cpu()).astype(np.int64)
    code = (shifts + 512) @ np.array([1 << 20, 1 << 10, 1])
    opposite = (512 - shifts) @ np.array([1 << 20, 1 << 10, 1])
    return len(i), int((_mixed(i, j, code) ^ _mixed(j, i, opposite)).sum(dtype=np.uint64))


def _mixed(i: np.ndarray, j: np.ndarray, code: np.ndarray) -> np.ndarray:
    words = i.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    words ^= j.astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)
    words ^= code.astype(np.uint64) * np.uint64(0x165667B19E3779F9)
    words ^= words >> np.uint64(29)
    words *= np.uint64(0xBF58476D1CE4E5B9)
    return words ^ (words >> np.uint64(32))


def _versions(functions: Mapping) -> dict[str, str]:
    names = [name for name in functions if not name.startswith("rsa_kernels")]
    versions = {name: importlib.metadata.version(PACKAGES[name.split(",")[0]]) for name in names}
    return versions | {name: rk.__version__ for name in functions if name.startswith("rsa_kernels,")}


def _peaks(size: int, half: bool, functions: Mapping, device: str) -> list[str]:
    """Peak extra memory of one call of each, in a process of its own."""
    if device != "cpu" or not sys.platform.startswith("linux"):
        return []
    found = []
    for name in functions:
        command = [sys.executable, "-m", "profiling.neighbors", str(size), "half" if half else "full", name]
        done = subprocess.run(command, capture_output=True, text=True)
        peak = f"{done.stdout.split()[-1]} GB" if done.returncode == 0 else "not measured, the process failed"
        found.append(f"peak extra memory of {name}: {peak}")
    return found


def _peak(size: int, half: bool, name: str) -> float:
    positions, cell = tiled(size, None)
    package, *options = name.split(", ")
    if package == "rsa_kernels":

        def run():
            nl = rk.neighbor_list(positions, cell, True, CUTOFF, half=half)
            return nl.edge_index, nl.unit_shifts

    elif package == "vesin":
        run = _vesin(positions, cell, half, sorted="sorted" in options)
    elif package == "matscipy":
        run = _matscipy(positions, cell)
    else:
        run = _nvalchemi(positions, cell, half, pairs=True)
    # A process inherits the peak of the one that starts it: begin anew.
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = _status("VmRSS")
    kept = run()
    del kept
    return (_status("VmHWM") - before) / 1e6


if __name__ == "__main__":
    print(f"{_peak(int(sys.argv[1]), sys.argv[2] == 'half', sys.argv[3]):.3f}")
