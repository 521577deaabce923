"""Times the methods on this machine and keeps constants for "auto": `python -m rsa_kernels.reciprocal.calibrate`."""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import asdict

import torch

from . import costs, spectra
from .modes import reciprocal_modes
from .op import reciprocal_attention

_DENSITY = 0.066
_SHAPES = (
    # atoms, k_cut, heads, d
    (100, 1.6, 1, 16), (100, 1.6, 16, 4), (300, 2.5, 1, 64), (500, 1.6, 16, 4), (500, 3.0, 2, 8), (1500, 1.6, 1, 1),
    (1500, 1.6, 1, 128), (2000, 1.2, 16, 4), (2000, 2.0, 4, 8), (4000, 1.6, 1, 64), (4000, 1.0, 16, 4),
    (12000, 0.8, 16, 4), (12000, 1.6, 1, 4), (30000, 1.6, 1, 4), (60000, 1.6, 4, 4),
)  # fmt: skip
_LONGEST = 4.0
"""Seconds; what would take longer by the constants in force is left out."""


def measure(device: str, dtype: torch.dtype, tolerance: float = 1e-5) -> tuple[costs.Rates, float]:
    """Return the constants fitted to timings of forward and backward, and the largest factor they are off by."""
    samples = []
    for n_atoms, k_cut, heads, d in _SHAPES:
        edge = (n_atoms / _DENSITY) ** (1.0 / 3.0)
        cell = edge * torch.eye(3, dtype=torch.float64, device=device)
        modes = reciprocal_modes(cell, k_cut, spectra.gaussian(1.0))
        positions = edge * torch.rand(n_atoms, 3, dtype=torch.float64, device=device)
        leaves = [torch.randn(n_atoms, heads, d, dtype=dtype, device=device) for _ in range(3)]
        for method in ("pairwise", "spectral", "grid"):
            paid = costs.counts(method, n_atoms, modes.n_modes, heads, d, d, dtype, tolerance)
            guessed = costs.seconds(paid, costs.rates()[0].get(f"{device} {_name(dtype)}", costs.NOT_MEASURED))
            if guessed < _LONGEST:
                samples.append((paid, _best(leaves, positions, cell, modes, method, tolerance)))
    constants = costs.fit(samples)
    off = max(abs(math.log(costs.seconds(paid, constants) / taken)) for paid, taken in samples)
    return constants, math.exp(off)


def _best(leaves, positions, cell, modes, method: str, tolerance: float) -> float:
    best = math.inf
    for _ in range(4):
        inputs = [x.clone().requires_grad_() for x in (*leaves, positions)]
        begin = time.perf_counter()
        u = reciprocal_attention(*inputs, cell, modes, method=method, tolerance=tolerance)
        torch.autograd.grad(u.square().sum(), inputs)
        if u.is_cuda:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begin)
    return best


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def main(arguments: list[str] | None = None) -> int:
    """Calibrate and report."""
    parser = argparse.ArgumentParser(prog="python -m rsa_kernels.reciprocal.calibrate", description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args(arguments)
    table = dict(costs.rates()[0]) if costs.CALIBRATION.exists() else {}
    for dtype in (torch.float64, torch.float32):
        constants, off = measure(options.device, dtype)
        table[f"{options.device} {_name(dtype)}"] = constants
        print(f"{options.device} {_name(dtype)}, off by at most a factor {off:.2f}")
        print("  " + ", ".join(f"{key}={value:.2g}" for key, value in asdict(constants).items()))
    print(f"kept in {costs.save(table)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
