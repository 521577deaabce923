"""The case observers: seconds of a sample of the structure, by what it measures, and its share of a default run."""

from __future__ import annotations

import contextlib
import functools
import io
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

import rsa_kernels as rk
from silica_md import config, quench
from silica_md.analysis.rings import CRITERIA, MAX_SIZE
from silica_md.config import Config
from silica_md.folder import RunFolder
from silica_md.state import State
from silica_md.structure_sample import DQ, Q_MAX, TOLERANCE, StructureSampler, one_thread
from silica_md.trajectory import write_structure

from .harness import Workload, timed
from .start import glass

PS, EVERY_PS, SHORT_PS = 1.0, 0.05, 0.1
"""Length of the measured run, time between its samples (so many that their cost stands out), and of a shorter one."""


def prepare(size: int, rivals: Sequence[str], device: str, start: str | None) -> list[Workload]:
    """Set up the parts of a sample, the whole, and a run with samples beside one without."""
    state = glass(size, start).to(device)
    sampler = StructureSampler(state.atomic_numbers)
    bonds = sampler.bonds(state)
    edges, shifts = torch.from_numpy(bonds.i), torch.from_numpy(bonds.shifts)
    edges = torch.stack([edges, torch.from_numpy(bonds.j)])
    silicon = state.atomic_numbers.cpu() == 14

    def scattering():
        with one_thread():
            rk.structure_factor(state.positions, state.cell, state.atomic_numbers, Q_MAX, DQ, tolerance=TOLERANCE)

    parts = {
        "sample": lambda: sampler.take(state),
        f"S(Q) to {Q_MAX:g} 1/Å": scattering,
        "bonds": lambda: sampler.bonds(state),
    }
    for criterion in CRITERIA:
        parts[f"rings {criterion}"] = _rings(edges, shifts, silicon, criterion)
    return [_part(name, function, state, device) for name, function in parts.items()] + [_run(state, device)]


def _rings(edges, shifts, silicon, criterion) -> Callable[[], object]:
    return lambda: rk.ring_statistics(edges, shifts, len(silicon), criterion, MAX_SIZE, silicon)


def _part(name: str, function: Callable[[], object], state: State, device: str) -> Workload:
    return Workload(
        variant=name,
        size=state.n_atoms,
        device=device,
        unit="sample",
        work=1,
        implementations={"silica_md": timed(function, device)},
    )


def _run(state: State, device: str) -> Workload:
    """A run with samples beside the same without: the difference is what samples cost, files and all.

    A third, shorter one takes the time to start and to end out of that of a step.
    """
    best = {}
    held = tempfile.TemporaryDirectory(prefix="silica-md-bench-")  # removed when the workload is let go
    begin = Path(held.name) / "start.xyz"
    write_structure(begin, state)

    def settings(ps: float, every: float) -> Config:
        hold = {"name": "hold", "temperature_K": 300.0, "duration_ps": ps, "ensemble": "npt"}
        return config.from_dict(
            {"start": str(begin), "segment": [hold], "device": device, "frame_ps": ps, "observe_ps": every}
        )

    runs = {"with samples": settings(PS, EVERY_PS), "without": settings(PS, 0.0), "short": settings(SHORT_PS, 0.0)}

    def measured(name: str) -> float:
        with (
            tempfile.TemporaryDirectory(dir=held.name) as folder,
            contextlib.redirect_stderr(io.StringIO()),  # the progress bar
        ):
            before = time.perf_counter()
            quench.run(runs[name], RunFolder(Path(folder) / "run"), lambda text: None)
            seconds = time.perf_counter() - before
        best[name] = min(best.get(name, seconds), seconds)
        return seconds

    def remarks() -> list[str]:
        samples, steps = taken(runs["with samples"])
        one = (best["with samples"] - best["without"]) / samples
        step = (best["without"] - best["short"]) / (steps - taken(runs["short"])[1])
        samples, steps = taken(Config(atoms=state.n_atoms))
        return [
            f"a sample costs the run {1e3 * one:.1f} ms, a step without takes {1e3 * step:.2f} ms",
            f"the {samples} samples of a default run ({steps:,} steps) take {samples * one / (steps * step):.1%} of it",
        ]

    return Workload(
        variant=f"run of {PS:g} ps, a sample every {EVERY_PS:g} ps",
        size=state.n_atoms,
        device=device,
        unit="run",
        work=1,
        implementations={f"silica_md {name}": functools.partial(measured, name) for name in runs},
        versions={f"silica_md {name}": rk.__version__ for name in runs},
        remarks=remarks,
    )


def taken(settings: Config) -> tuple[int, int]:
    """How many samples a run takes, and its steps."""
    schedule = settings.schedule()
    if not settings.observe_ps:
        return 0, schedule.steps
    every = quench.steps_in(settings.observe_ps, settings)
    lengths = [stage.last_step - stage.first_step for stage in schedule.stages]
    return 1 + sum(-(-length // every) for length in lengths), schedule.steps
