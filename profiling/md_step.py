"""The case md-step: 200 steps of NVE in silica glass, ours against LAMMPS on as many cores, energies compared."""

from __future__ import annotations

import importlib.metadata
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

import rsa_kernels as rk
from silica_md import potentials
from silica_md.forcefield import ForceField
from silica_md.integrators import VelocityVerlet
from silica_md.potentials import PairPotential, Potential
from silica_md.state import State

from . import lammps
from .harness import Workload
from .lammps import PairStyle
from .start import glass

STEPS, TIMESTEP, EVERY = 200, 1.0, 10
ACCURACY = 1e-5  # RMS error of Ewald forces, 14.4 eV/Å
SKIN, LAMMPS_SKIN = 1.0, 0.5  # Å, the fastest of 0.3, 0.5, 1 and 2 for each

# Counted in the kernel's source: operations for a listed neighbour (its distance) and, for those inside the
# cutoff, the rest: reciprocal root 9, place in the table 9, quintic 9, force 6; where they are asked for,
# energy 11 and virial 12.
FLOPS_PER_LISTED, FLOPS_PER_PAIR, FLOPS_OF_ENERGY_AND_VIRIAL = 8, 33, 23
# Per atom and step: positions in and forces out 48, two kicks 192, drift 72, displacement check 48; per entry
# of the list 4; per atom or image placed 64.
BYTES_PER_ATOM, BYTES_PER_LISTED, BYTES_PER_ENTRY = 360, 4, 64


@dataclass
class Trajectory:
    """Energies every `EVERY` steps, eV, and the seconds the steps took."""

    potential: np.ndarray
    total: np.ndarray
    seconds: float


def run(start: State, potential: Potential, steps: int = STEPS, skin: float = SKIN) -> Trajectory:
    """Do `steps` of NVE from `start`; the first list and forces are not timed, as LAMMPS does not time them."""
    state = start.clone()
    field, integrator = ForceField(potential, skin=skin), VelocityVerlet(TIMESTEP)
    first = field.evaluate(state, energy=True, virial=True)
    static, kinetic = [float(first.energy)], [float(state.kinetic_energy())]
    begin = time.perf_counter()
    for step in range(1, steps + 1):
        look = step % EVERY == 0
        evaluation = integrator.step(state, field, energy=look, virial=look)
        if look:
            static.append(float(evaluation.energy))
            kinetic.append(float(state.kinetic_energy()))
    seconds = time.perf_counter() - begin
    return Trajectory(np.array(static), np.array(static) + np.array(kinetic), seconds)


def overhead(potential: PairPotential, steps: int = 2000) -> float:
    """Seconds a step takes apart from its atoms: the same loop on three atoms that have no neighbours.

    Everything that does not grow with the system is in it: Python, dispatch, starting and joining threads. It
    is therefore an upper bound of Python's share.
    """
    apart = torch.tensor([[0.0, 0.0, 0.0], [30.0, 0.0, 0.0], [0.0, 30.0, 0.0]], dtype=torch.float64)
    state = State(
        positions=apart,
        velocities=torch.zeros_like(apart),
        masses=torch.tensor([28.085, 15.999, 15.999], dtype=torch.float64),
        atomic_numbers=torch.tensor([14, 8, 8]),
        cell=90.0 * torch.eye(3, dtype=torch.float64),
        pbc=torch.ones(3, dtype=torch.bool),
        global_ids=torch.arange(3),
    )
    run(state, potential, steps=100)
    return min(run(state, potential, steps=steps).seconds for _ in range(3)) / steps


def prepare(size: int, rivals: Sequence[str], device: str, start: str | None) -> list[Workload]:
    """Set up SHIK against `pair_style table`, BKS against `born/coul/dsf` and `born/coul/long` with PPPM, on one glass.

    LAMMPS runs its table twice: with the interpolation that is fastest and with the one that is as exact as ours.
    """
    state = glass(size, start).to(device)
    shik = potentials.build("shik", state.atomic_numbers)
    bks = potentials.build("bks", state.atomic_numbers, repair=False)
    tables = {f"pair_style table {how}": lammps.table_style(shik, how) for how in ("linear 4000", "spline 4000")}
    compared = "lammps" in rivals
    return [
        _workload("shik", state, shik, tables if compared else {}),
        _workload("bks-dsf", state, bks, {"born/coul/dsf": lammps.born_coul_dsf(bks)} if compared else {}),
        _workload(
            f"bks-ewald {ACCURACY:g}",
            state,
            potentials.build("bks", state.atomic_numbers, repair=False, coulomb="ewald", ewald={"accuracy": ACCURACY}),
            {"born/coul/long, pppm": lammps.born_coul_long(bks.charges, ACCURACY)} if compared else {},
        ),
    ]


def _workload(variant: str, state: State, potential: Potential, styles: dict[str, PairStyle]) -> Workload:
    last: dict[str, Trajectory] = {}
    best = math.inf
    ranks = torch.get_num_threads()

    def ours() -> float:
        nonlocal best
        last["ours"] = run(state, potential)
        best = min(best, last["ours"].seconds)
        return last["ours"].seconds

    def theirs(name: str, style: PairStyle) -> float:
        done = lammps.run(
            state, style, steps=STEPS, timestep=TIMESTEP, skin=LAMMPS_SKIN, thermo_every=EVERY, ranks=ranks
        )
        last[name] = Trajectory(done.thermo["PotEng"], done.thermo["TotEng"], done.seconds)
        return done.seconds

    def remarks() -> list[str]:
        us = last.pop("ours")
        found = [f"our total energy stays within {np.ptp(us.total) / state.n_atoms:.1e} eV/atom for {STEPS} fs"]
        for name, them in last.items():
            apart = np.abs(us.potential - them.potential).max() / state.n_atoms
            found.append(f"energies along {STEPS} steps differ by at most {apart:.1e} eV/atom from {name}")
        if not isinstance(potential, PairPotential):
            return found  # waves cost what the box is, even an empty one
        fixed = overhead(potential)
        share = fixed / (best / STEPS)
        return [*found, f"Python and dispatch at most {share:.1%} of a step ({1e6 * fixed:.0f} µs)"]

    neighbors = rk.neighbor_list(state.positions, state.cell, state.pbc, potential.cutoff, skin=SKIN)
    listed = int(neighbors.rows[-1])
    inside = int((neighbors.distances(state.positions, state.cell) < potential.cutoff).sum())
    per_pair = FLOPS_PER_PAIR + FLOPS_OF_ENERGY_AND_VIRIAL / EVERY
    entries = neighbors.owners.numel()
    moved = BYTES_PER_ATOM * state.n_atoms + BYTES_PER_LISTED * listed + BYTES_PER_ENTRY * entries
    rivals = {f"lammps {name}, {ranks} ranks": partial(theirs, name, style) for name, style in styles.items()}
    return Workload(
        variant=variant,
        size=state.n_atoms,
        device=str(state.positions.device),
        unit="atom-step",
        work=state.n_atoms * STEPS,
        implementations={"silica_md": ours, **rivals},
        versions=dict.fromkeys(rivals, importlib.metadata.version("lammps") if rivals else ""),
        flops=STEPS * (FLOPS_PER_LISTED * listed + per_pair * inside),
        bytes=STEPS * moved,
        lookups=STEPS * inside,
        remarks=remarks,
    )
