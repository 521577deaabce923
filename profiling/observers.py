"""The case observers: seconds of a sample of the structure, by what it measures, and its share of a default run."""

from __future__ import annotations

import contextlib
import dataclasses
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

PS, EVERY_PS = 1.0, 0.05
"""Length of the measured run and time between its samples: so many that their cost stands out."""


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
    """A run with samples and one without; their difference is what samples cost, files and all."""
    seconds: dict[str, list[float]] = {"with": [], "without": []}
    held = tempfile.TemporaryDirectory(prefix="silica-md-bench-")  # removed when the workload is let go
    begin = Path(held.name) / "start.xyz"
    write_structure(begin, state)
    hold = {"name": "hold", "temperature_K": 300.0, "duration_ps": PS, "ensemble": "npt"}
    settings = config.from_dict({"start": str(begin), "segment": [hold], "device": device, "frame_ps": PS})

    def measured(name: str, every: float) -> float:
        with tempfile.TemporaryDirectory(dir=held.name) as folder:
            chosen = dataclasses.replace(settings, observe_ps=every)
            with contextlib.redirect_stderr(io.StringIO()):  # the progress bar
                before = time.perf_counter()
                quench.run(chosen, RunFolder(Path(folder) / "run"), lambda text: None)
                seconds[name].append(time.perf_counter() - before)
        return seconds[name][-1]

    def remarks() -> list[str]:
        with_samples, without = min(seconds["with"]), min(seconds["without"])
        samples, steps = taken(dataclasses.replace(settings, observe_ps=EVERY_PS))
        one, step = (with_samples - without) / samples, without / steps
        samples, steps = taken(Config(atoms=state.n_atoms))
        share = samples * one / (steps * step)
        return [
            f"a sample costs the run {1e3 * one:.1f} ms, a step without takes {1e3 * step:.2f} ms",
            f"the {samples} samples of a default run ({steps:,} steps) take {share:.1%} of it",
        ]

    return Workload(
        variant=f"run of {PS:g} ps, a sample every {EVERY_PS:g} ps",
        size=state.n_atoms,
        device=device,
        unit="atom-step",
        work=state.n_atoms * taken(settings)[1],
        implementations={
            "silica_md with samples": lambda: measured("with", EVERY_PS),
            "silica_md without": lambda: measured("without", 0.0),
        },
        versions={"silica_md without": rk.__version__},
        remarks=remarks,
    )


def taken(settings: Config) -> tuple[int, int]:
    """How many samples a run takes, and its steps."""
    schedule = settings.schedule()
    every = quench.steps_in(settings.observe_ps, settings)
    lengths = [stage.last_step - stage.first_step for stage in schedule.stages]
    return 1 + sum(-(-length // every) for length in lengths), schedule.steps
