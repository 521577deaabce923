"""Cases of D3(BJ) dispersion: by itself beside other codes, and what it adds to steps of MACE."""

from __future__ import annotations

import functools
import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version

import numpy as np
import torch
from ase import Atoms

import rsa_kernels as rk
from rsa_kernels.units import BOHR_IN_A, HARTREE_IN_EV
from silica_md import potentials
from silica_md.forcefield import ForceField
from silica_md.integrators import VelocityVerlet
from silica_md.potentials.dispersion_nvalchemi import kernel_arguments, kernel_of
from silica_md.state import State

from .harness import Workload, timed
from .start import cristobalite, glass

CUTOFFS, SKIN = (9.0, 12.0, 15.0), 1.0
PACKAGES = {"nvalchemi": "nvalchemi-toolkit-ops", "simple-dftd3": "dftd3"}
_MODULES = {"nvalchemi": "nvalchemiops", "simple-dftd3": "dftd3"}

# Counted in the kernel's source for a listed neighbour and silica's five references: distance and switch 34 in each of
# three passes; count 38, of which the exponential 33; pair 67; chain 65.
FLOPS_PER_LISTED = 3 * 34 + 38 + 67 + 65


def unavailable(rival: str) -> Callable[[], str | None]:
    """Say why a rival cannot run here, None where it can."""
    missing = f"{PACKAGES[rival]} is not installed; pip install {PACKAGES[rival]}"
    return lambda: None if importlib.util.find_spec(_MODULES[rival]) else missing


def start_of(size: int, start: str | None) -> State:
    """Return a glass, or 648 atoms of shaken cristobalite."""
    if size != 648:
        return glass(size, start)
    atoms: Atoms = cristobalite().repeat(3)
    atoms.rattle(0.1, seed=1)
    state = State.from_ase(atoms)
    state.thermalize(300.0, seed=1)
    return state


def prepare(size: int, rivals: Sequence[str], device: str, start: str | None) -> list[Workload]:
    """Set up energy, forces and virial of PBE-D3(BJ), pairs and counts to one cutoff, fading over 1 Å.

    The kernel of nvalchemi-toolkit-ops is handed a ready list of exactly the pairs it needs; ours has a skin to pass
    over. simple-dftd3 finds its own pairs, as it always does, and cuts them off abruptly, without three-body term.
    tad-dftd3 is no rival: it knows no cells.
    """
    state = start_of(size, start).to(device)
    return [_at(cutoff, state, rivals, device) for cutoff in CUTOFFS]


def _at(cutoff: float, state: State, rivals: Sequence[str], device: str) -> Workload:
    potential = potentials.dispersion("pbe", state.atomic_numbers, cutoff=cutoff)
    neighbors = rk.neighbor_list(state.positions, state.cell, state.pbc, cutoff, skin=SKIN)
    implementations = {"rsa_kernels": timed(functools.partial(potential.evaluate, state, neighbors), device)}
    versions = {}
    if "nvalchemi" in rivals:
        kernel, arguments = kernel_of(), kernel_arguments(potential.table, state, neighbors)
        implementations["nvalchemi-toolkit-ops (list ready)"] = timed(lambda: kernel(**arguments), device)
        versions["nvalchemi-toolkit-ops (list ready)"] = version("nvalchemi-toolkit-ops")
    if "simple-dftd3" in rivals:
        implementations["simple-dftd3"] = timed(lambda: simple_dftd3(state, cutoff))
        versions["simple-dftd3"] = version("dftd3")
    listed = neighbors.columns.numel()

    def remarks() -> list[str]:
        abrupt = potentials.dispersion("pbe", state.atomic_numbers, cutoff=cutoff, width=0.0)
        energy = float(abrupt.evaluate(state, neighbors).energy)
        said = [f"{listed / state.n_atoms:.0f} listed neighbours an atom"]
        if "simple-dftd3" in rivals:
            said.append(
                f"without fading {(energy - simple_dftd3(state, cutoff)) / state.n_atoms:.0e} eV/atom from simple-dftd3"
            )
        if "nvalchemi" in rivals:
            theirs = potentials.dispersion("pbe", state.atomic_numbers, cutoff=cutoff, width=0.0, kernel="nvalchemi")
            difference = float(theirs.evaluate(state, neighbors).energy) - energy
            said.append(f"{difference / state.n_atoms:.0e} eV/atom from nvalchemi-toolkit-ops")
        return said

    return Workload(
        variant=f"{cutoff:g} A",
        size=state.n_atoms,
        device=device,
        unit="atom",
        work=state.n_atoms,
        implementations=implementations,
        versions=versions,
        flops=float(FLOPS_PER_LISTED * listed),
        bytes=3.0 * 4 * listed + 3.0 * 32 * neighbors.owners.numel() + 350.0 * state.n_atoms,
        remarks=remarks,
    )


def simple_dftd3(state: State, cutoff: float) -> float:
    """Energy of simple-dftd3, eV, forces and virial computed along with it."""
    from dftd3.interface import DispersionModel, RationalDampingParam

    model = DispersionModel(
        state.atomic_numbers.numpy(),
        state.positions.numpy() / BOHR_IN_A,
        state.cell.numpy() / BOHR_IN_A,
        np.ones(3, bool),
    )
    model.set_realspace_cutoff(disp2=cutoff / BOHR_IN_A, disp3=1.0, cn=cutoff / BOHR_IN_A)
    return model.get_dispersion(RationalDampingParam(method="pbe", atm=False), grad=True)["energy"] * HARTREE_IN_EV


# Irreps of the hidden features, and steps a measurement does.
MODELS = {"32x0e": 20, "128x0e": 6, "128x0e+128x1o": 2}


def steps(size: int, rivals: Sequence[str], device: str, start: str | None) -> list[Workload]:
    """Set up steps of NVE with a MACE of random weights (float32, 5 Å, two layers), and with PBE-D3(BJ) at 15 Å on top.

    Ours is the step with dispersion, the other one that without, so `ratio` is one over the slow-down. The remark
    gives what one evaluation of dispersion, and of its list, adds to the fastest step without it: the slow-down without
    the noise of two long measurements.
    """
    state = start_of(size, start).to(device)
    return [_steps(irreps, count, state, rivals, device) for irreps, count in MODELS.items()]


def _steps(irreps: str, count: int, start: State, rivals: Sequence[str], device: str) -> Workload:
    from silica_md import models

    config = models.ModelConfig(
        atomic_numbers=(8, 14), atomic_energies=(0.0, 0.0), hidden_irreps=irreps, avg_num_neighbors=34.0, scale=0.1
    )
    bare = potentials.LearnedPotential(models.build(config, dtype=torch.float32, seed=0).to(device))
    both = potentials.with_dispersion(bare, "pbe", start.atomic_numbers)
    fastest: dict[str, float] = {}

    def run(name: str, potential) -> Callable[[], float]:
        def once() -> float:
            state, field, integrator = start.clone(), ForceField(potential), VelocityVerlet(1.0)
            field.evaluate(state)
            begin = time.perf_counter()
            for _ in range(count):
                integrator.step(state, field, energy=False, virial=False)
            if device != "cpu":
                torch.cuda.synchronize(device)
            seconds = time.perf_counter() - begin
            fastest[name] = min(fastest.get(name, seconds), seconds)
            return seconds

        return once

    def remarks() -> list[str]:
        d3 = both.potentials[1]
        long = rk.neighbor_list(start.positions, start.cell, start.pbc, d3.cutoff, skin=SKIN)
        evaluation = timed(lambda: d3.evaluate(start, long, energy=False, virial=False), device)
        taken = statistics.median(evaluation() for _ in range(15))
        listing = timed(
            lambda: rk.neighbor_list(start.positions, start.cell, start.pbc, d3.cutoff, skin=SKIN).within(
                bare.cutoff, skin=SKIN
            ),
            device,
        )
        once = statistics.median(listing() for _ in range(5))
        step = fastest["MACE alone"] / count
        return [
            f"dispersion {1e3 * taken:.1f} ms, a step without it {1e3 * step:.0f} ms: {1.0 + taken / step:.3f} times",
            f"lists {1e3 * once:.1f} ms a rebuild",
        ]

    implementations = {"MACE + D3(BJ) 15 A": run("MACE + D3(BJ) 15 A", both)}
    if "mace" in rivals:
        implementations["MACE alone"] = run("MACE alone", bare)
    return Workload(
        variant=f"{irreps} float32",
        size=start.n_atoms,
        device=device,
        unit="atom-step",
        work=start.n_atoms * count,
        implementations=implementations,
        versions={"MACE alone": version("mace-torch")} if "mace" in rivals else {},
        remarks=remarks if "mace" in rivals else list,
    )
