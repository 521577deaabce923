"""Runs a workload beside its rivals, one after the other in turn, and keeps the figures in one CSV schema."""

from __future__ import annotations

import csv
import datetime
import importlib.metadata
import math
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch

from . import machine

ROOT = Path(__file__).resolve().parent.parent
QUIET, PATIENCE = 0.1, 5
RESULTS = Path(__file__).resolve().parent / "results"


@dataclass
class Workload:
    """One op or step at one size, as we and as others do it.

    Attributes
    ----------
    variant : str
        What distinguishes it from others of the same case, for instance a potential.
    size : int
        Atoms.
    device : str
        Where ours runs.
    unit, work : str, float
        What is counted ("atom-step") and how many of it one measurement does.
    implementations : mapping of str to callable
        Ours first. Each does the work once and returns the seconds it took.
    versions : mapping of str to str
        Versions of the rivals.
    flops, bytes, lookups : float
        The least one measurement of ours needs: float64 operations, bytes to and from memory, table records.
    remarks : callable
        Called after the measurements; what else there is to say, for instance how far the answers differ.
    """

    variant: str
    size: int
    device: str
    unit: str
    work: float
    implementations: Mapping[str, Callable[[], float]]
    versions: Mapping[str, str] = field(default_factory=dict)
    flops: float = 0.0
    bytes: float = 0.0
    lookups: float = 0.0
    remarks: Callable[[], Sequence[str]] = list


@dataclass(frozen=True)
class Case:
    """An entry of the registry: what is measured, which tests vouch for it, and how it is set up."""

    name: str
    what: str
    tests: tuple[str, ...]
    sizes: tuple[int, ...]
    rivals: tuple[str, ...]
    prepare: Callable[..., Sequence[Workload]]
    """prepare(size, rivals, device, start) -> workloads."""
    unavailable: Mapping[str, Callable[[], str | None]] = field(default_factory=dict)
    """For rivals that may be missing: why they cannot run here, None when they can."""


@dataclass(frozen=True)
class Row:
    """One line of a results file."""

    date: str
    commit: str
    machine: str
    device: str
    threads: int
    python: str
    torch: str
    case: str
    variant: str
    size: int
    implementation: str
    version: str
    repeats: int
    seconds_median: float
    seconds_best: float
    unit: str
    rate: float
    flops: float
    bytes: float
    lookups: float
    flops_of_limit: float
    bandwidth_of_limit: float
    lookups_of_limit: float
    ratio: float
    """Rate of ours over the rate of this implementation, in this run."""
    remarks: str


def timed(function: Callable[[], object], device: str = "cpu", at_least: float = 0.05) -> Callable[[], float]:
    """Turn a function into a measurement of it: the mean of as many calls as fit into `at_least` seconds."""

    def elapsed(calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            function()
        if device != "cpu":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - start) / calls

    return lambda: elapsed(max(1, math.ceil(at_least / max(elapsed(1), 1e-7))))


def tests_pass(tests: Sequence[str]) -> bool:
    """Run test files in a process of their own; their output is shown only when they fail."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", *tests]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        print(done.stdout[-4000:], done.stderr[-2000:], sep="\n", file=sys.stderr)
    return done.returncode == 0


def measure(case: str, workload: Workload, repeats: int, alone: bool = False) -> list[Row]:
    """Measure every implementation `repeats` times in turn, after one run of each that is not counted.

    Rounds in which other processes used more than `QUIET` of the processors are repeated, up to `PATIENCE` times as
    often as asked for; `alone` keeps others out instead (see `machine.alone`). Rates and ratios are of the best run of
    each; medians are kept.
    """
    seconds: dict[str, list[float]] = {name: [] for name in workload.implementations}
    for implementation in workload.implementations.values():
        implementation()
    disturbed, rounds = [], 0
    while rounds < repeats:
        others = machine.Others()
        with machine.alone(alone):
            taken = {name: implementation() for name, implementation in workload.implementations.items()}
        if not alone and others.share() > QUIET and len(disturbed) < (PATIENCE - 1) * repeats:
            disturbed.append(others.share())
            continue
        rounds += 1
        for name, value in taken.items():
            seconds[name].append(value)
    threads = torch.get_num_threads()
    # the limits of a GPU are not measured (not yet run on a GPU)
    with machine.alone(alone):
        limits = machine.limits(threads) if workload.device == "cpu" else machine.Limits(*[math.inf] * 3)
        found = list(workload.remarks())
    ours = next(iter(seconds))
    best = {name: min(values) for name, values in seconds.items()}
    if len(disturbed) == (PATIENCE - 1) * repeats:
        found.append(f"NOT A QUIET MACHINE: others used {statistics.mean(disturbed):.0%} of the processors")
    elif disturbed:
        found.append(f"{len(disturbed)} disturbed rounds were repeated")
    if alone:
        found.append("measured with real-time priority on a machine that others use")
    remarks = "; ".join(found)
    rows = []
    for name, values in seconds.items():
        own = name == ours
        rows.append(
            Row(
                date=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%MZ"),
                commit=_commit(),
                machine=machine.name(),
                device=workload.device,
                threads=threads,
                python=platform.python_version(),
                torch=torch.__version__,
                case=case,
                variant=workload.variant,
                size=workload.size,
                implementation=name,
                version=importlib.metadata.version("silica-md") if own else workload.versions.get(name, ""),
                repeats=repeats,
                seconds_median=statistics.median(values),
                seconds_best=best[name],
                unit=workload.unit,
                rate=workload.work / best[name],
                flops=workload.flops if own else 0.0,
                bytes=workload.bytes if own else 0.0,
                lookups=workload.lookups if own else 0.0,
                flops_of_limit=workload.flops / best[name] / limits.flops if own else 0.0,
                bandwidth_of_limit=workload.bytes / best[name] / limits.bandwidth if own else 0.0,
                lookups_of_limit=workload.lookups / best[name] / limits.lookups if own else 0.0,
                ratio=best[name] / best[ours],
                remarks=remarks if own else "",
            )
        )
    return rows


def save(rows: Sequence[Row]) -> Path:
    """Append rows to results/<machine>/<case>.csv and return the file."""
    path = RESULTS / rows[0].machine / f"{rows[0].case}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Row)])
        if new:
            writer.writeheader()
        writer.writerows({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in asdict(row).items()} for row in rows)
    return path


def show(rows: Sequence[Row]) -> str:
    """Lay out the rows of one workload as text."""
    ours, width = rows[0], max(len(row.implementation) for row in rows)
    lines = [f"{ours.case} {ours.variant} {ours.size:,} atoms ({ours.machine}, {ours.threads} threads)"]
    for row in rows:
        compared = "" if row is ours else f"   ours is {row.ratio:.2f} times as fast"
        lines.append(f"  {row.implementation:<{width}} {row.rate:11.4g} {row.unit}s/s{compared}")
    if ours.device == "cpu":
        parts = (
            (ours.flops, ours.flops_of_limit, f"fused multiply-adds ({_per_second(ours, 'flops')} GFLOP/s)"),
            (ours.lookups, ours.lookups_of_limit, "look-ups in cache"),
            (ours.bytes, ours.bandwidth_of_limit, f"memory bandwidth ({_per_second(ours, 'bytes')} GB/s)"),
        )
        used = ", ".join(f"{share:.1%} of {what}" for amount, share, what in parts if amount)
        lines.append(f"  of this machine's limits: {used}")
    lines += [f"  {remark}" for remark in ours.remarks.split("; ") if remark]
    return "\n".join(lines)


def _per_second(row: Row, column: str) -> str:
    return f"{getattr(row, column) / row.seconds_best / 1e9:.2f}"


def _commit() -> str:
    def git(*arguments):
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "rsa_kernels", "silica_md", "csrc")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+changes" if changed else "")
