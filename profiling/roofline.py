"""Where the measured cases stand under this machine's roof: arithmetic intensity against operations per second."""

from __future__ import annotations

import csv

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from . import harness, machine


def report(machine_name: str, threads: int) -> str:
    """Measure the machine's limits, set the results kept for it against them, draw both."""
    limits = machine.limits(threads)
    lines = [
        f"{machine_name}, {threads} threads",
        f"  fused multiply-adds  {limits.flops / 1e9:8.1f} GFLOP/s (float64)",
        f"  memory (triad)       {limits.bandwidth / 1e9:8.1f} GB/s",
        f"  look-ups in cache    {limits.lookups / 1e9:8.2f} G records/s (64 bytes, at random in 100 kB)",
        f"  balance              {limits.flops / limits.bandwidth:8.1f} FLOP/byte",
    ]
    points = []
    for path in sorted((harness.RESULTS / machine_name).glob("*.csv")):
        latest = {}
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                # The roof is that of float64; float32 has another.
                if float(row["flops"]) > 0 and int(row["threads"]) == threads and "float32" not in row["variant"]:
                    latest[row["case"], row["variant"], row["size"], row["implementation"]] = row
        for (case, variant, size, _), row in latest.items():
            seconds, flops, moved = (float(row[key]) for key in ("seconds_best", "flops", "bytes"))
            intensity, rate = flops / moved, flops / seconds
            roof = min(limits.flops, intensity * limits.bandwidth)
            name = f"{case} {variant} {int(size):,}"
            points.append((name, intensity, rate))
            bound = "memory" if intensity * limits.bandwidth < limits.flops else "arithmetic"
            lines.append(
                f"  {name:<28} {intensity:7.2f} FLOP/byte {rate / 1e9:8.2f} GFLOP/s, "
                f"{rate / roof:6.1%} of the roof there ({bound})"
            )
    if points:
        lines.append(f"drawn in {_draw(machine_name, limits, points).relative_to(harness.ROOT)}")
    else:
        lines.append("no results are kept for this machine yet: run `python -m profiling bench` first")
    return "\n".join(lines)


def _draw(machine_name: str, limits: machine.Limits, points):
    figure, axes = plt.subplots(figsize=(9, 4.5), constrained_layout=True)
    ridge = limits.flops / limits.bandwidth
    low = min(ridge, *(p[1] for p in points)) / 4
    high = max(ridge, *(p[1] for p in points)) * 4
    intensity = np.geomspace(low, high, 200)
    axes.loglog(intensity, np.minimum(limits.flops, intensity * limits.bandwidth) / 1e9, color="0.2", lw=1.5)
    for (name, x, y), marker in zip(points, "osD^vPX*<>hp" * 4, strict=False):
        axes.loglog(x, y / 1e9, marker, label=name, markersize=8, fillstyle="none", markeredgewidth=1.8)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_minor_locator(NullLocator())
    axes.set_xlabel("arithmetic intensity (FLOP / byte to and from memory)")
    axes.set_ylabel("GFLOP/s, float64")
    axes.set_title(f"{machine_name}: {limits.flops / 1e9:.0f} GFLOP/s, {limits.bandwidth / 1e9:.0f} GB/s", fontsize=10)
    axes.grid(True, alpha=0.2)
    figure.legend(fontsize=8, loc="outside right center")
    path = harness.RESULTS / machine_name / "roofline.png"
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
