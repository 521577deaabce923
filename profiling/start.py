"""Silica glasses to start benches from, made by the package's own MD and kept in profiling/.cache."""

from __future__ import annotations

from pathlib import Path

import ase.io
import torch
from ase import Atoms

from silica_md import potentials
from silica_md.forcefield import ForceField
from silica_md.integrators import Langevin
from silica_md.state import State

CACHE = Path(__file__).resolve().parent / ".cache"
CRISTOBALITE = 7.13  # Å, the cubic cell of 24 atoms at the density of the glass, 2.20 g/cm³
TEMPERATURE = 300.0


def glass(n_atoms: int = 3000, start: str | None = None) -> State:
    """Return a silica glass at 300 K, velocities included.

    Parameters
    ----------
    n_atoms : int
        3,000, or 3,000 times a cube (24,000, 81,000, …): the small glass repeated and thermalised.
    start : str, optional
        A structure file to take instead of the 3,000 atoms made here.
    """
    repeat = round((n_atoms / 3000) ** (1 / 3))
    if 3000 * repeat**3 != n_atoms:
        raise ValueError(f"`n_atoms` must be 3000 times a cube (3000, 24000, 81000, ...), got {n_atoms}")
    if start is not None:
        small = ase.io.read(start)
        if len(small) != 3000:
            raise ValueError(f"`start` must hold 3000 atoms, got {len(small)} in {start}")
    else:
        small = _small_glass()
    state = State.from_ase(small.repeat(repeat))
    state.thermalize(TEMPERATURE if start or repeat > 1 else 2 * TEMPERATURE, seed=1)
    return _held(state, TEMPERATURE, steps=300, seed=2)


def _small_glass() -> Atoms:
    """Cristobalite melted at 5,000 K for 5 ps and cooled to 300 K within 10 ps: disordered, not a good glass."""
    path = CACHE / "silica-3000.xyz"
    if not path.exists():
        state = State.from_ase(cristobalite().repeat(5))
        state.thermalize(10000.0, seed=3)
        state = _held(state, 5000.0, steps=5000, seed=4)
        for temperature in range(4500, 0, -300):
            state = _held(state, float(temperature), steps=650, seed=5)
        CACHE.mkdir(exist_ok=True)
        ase.io.write(path, state.to_ase(wrap=True), columns=["symbols", "positions"])
    return ase.io.read(path)


def cristobalite() -> Atoms:
    """Return ideal β-cristobalite, 24 atoms in a cube, at the density of the glass."""
    """Return the ideal cubic cell, 24 atoms."""
    silicon = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    silicon += [[x + 0.25 for x in site] for site in silicon]
    lattice = torch.tensor(silicon, dtype=torch.float64)
    bond = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64) / 8
    oxygen = (lattice[:4, None] + bond).reshape(-1, 3)
    return Atoms(
        "Si8O16",
        scaled_positions=torch.cat([lattice, oxygen]).numpy(),
        cell=[CRISTOBALITE] * 3,
        pbc=True,
    )


def _held(state: State, temperature: float, steps: int, seed: int) -> State:
    field = ForceField(potentials.build("shik", state.atomic_numbers))
    integrator = Langevin(1.0, temperature, relaxation=100.0, seed=seed)
    for _ in range(steps):
        integrator.step(state, field)
    state.remove_momentum()
    return state
