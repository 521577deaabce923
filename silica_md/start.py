"""Where a run begins: random positions at a density, pushed apart until dynamics can take over."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

import rsa_kernels as rk
from rsa_kernels import random
from rsa_kernels.units import AMU_PER_A3_IN_G_PER_CM3

from .errors import ConfigError
from .forcefield import ForceField
from .state import State, Stream

MIN_DISTANCE = 1.6
"""Å; no two atoms of a random start are closer."""


def measured_density(na2o: float) -> float:
    """Measured density of the glass with a mole fraction `na2o` of Na2O, g/cm³.

    Raises
    ------
    ConfigError
        The composition is outside the table.
    """
    from .analysis import measured

    density = measured.density(na2o)
    if density is None:
        raise ConfigError(f"no measured density for `na2o` = {na2o}; give `density_g_cm3`")
    return density


def composition(atoms: int, na2o: float) -> dict[int, int]:
    """Atoms of each element (by atomic number) in `atoms` atoms of x Na2O · (1 − x) SiO2."""
    units = atoms // 3
    soda = round(units * na2o)
    silica = units - soda
    counts = {8: 2 * silica + soda, 11: 2 * soda, 14: silica}
    return {number: count for number, count in counts.items() if count}


def random_start(atoms: int, na2o: float, density: float, seed: int, device: torch.device | str = "cpu") -> State:
    """Place atoms at random in a cubic cell, none closer to another than `MIN_DISTANCE`.

    Parameters
    ----------
    atoms : int
        Number of atoms, a multiple of 3.
    na2o : float
        Mole fraction of Na2O.
    density : float
        g/cm³.
    seed : int
        Of the positions.
    device : torch.device or str
        Where the state goes.

    Returns
    -------
    State
        At rest. The elements are in the order of `composition`.

    Raises
    ------
    ConfigError
        The density is too high for the shortest distance.
    """
    import ase

    counts = composition(atoms, na2o)
    structure = ase.Atoms(numbers=[z for z, count in counts.items() for _ in range(count)], pbc=True)
    length = (structure.get_masses().sum() * AMU_PER_A3_IN_G_PER_CM3 / density) ** (1.0 / 3.0)
    structure.set_cell([length] * 3)
    state = State.from_ase(structure)
    state.positions.copy_(_separated(atoms, length, seed))
    return state.to(device)


def _separated(n: int, length: float, seed: int) -> Tensor:
    """Random points; of every pair too close the second is drawn again, until there is none."""
    cell = length * torch.eye(3, dtype=torch.float64)
    positions = torch.empty(n, 3, dtype=torch.float64)
    ids = torch.arange(n)
    for attempt in range(2000):
        bits = random.bits(seed, attempt, ids, Stream.PLACEMENT)
        positions[ids] = (bits[:, :3].double() + 0.5) * (2.0**-32 * length)
        close = rk.neighbor_list(positions, cell, True, MIN_DISTANCE, half=True)
        ids = torch.unique(close.edge_index[1])
        if ids.numel() == 0:
            return positions
    raise ConfigError(
        f"{n} atoms at least {MIN_DISTANCE} Å apart do not fit into a cube of {length:.2f} Å; lower the density"
    )


def structure_start(path: str | Path, device: torch.device | str = "cpu") -> State:
    """Begin with the last structure of a file that ASE reads; velocities are kept if it has any.

    Raises
    ------
    ConfigError
        The file cannot be read, holds no right-handed periodic cell, or something in it is not finite.
    """
    import ase.io
    import numpy as np

    try:
        atoms = ase.io.read(path)
    except (OSError, ValueError, KeyError, IndexError, ase.io.formats.UnknownFileTypeError) as error:
        raise ConfigError(f"cannot read a structure from {path}: {error}") from error
    for name, array in (("positions", atoms.positions), ("cell", atoms.cell.array), ("momenta", atoms.get_momenta())):
        if not np.isfinite(array).all():
            raise ConfigError(f"{path}: the {name} are not finite (NaN or infinite)")
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        raise ConfigError(f"{path} has no cell that is periodic in three directions")
    if np.linalg.det(atoms.cell.array) < 0.0:
        raise ConfigError(f"{path} has a left-handed cell (negative volume); swap two of its vectors")
    return State.from_ase(atoms, device)


def push_apart(state: State, field: ForceField, max_force: float = 10.0, max_steps: int = 500) -> None:
    """Go downhill, in place, until the forces are such that dynamics can take over.

    Every atom moves along its force by α|F|, at most 0.1 Å; both shrink when the energy rises and grow again
    when it falls.

    Parameters
    ----------
    state : State
        Its positions change.
    field : ForceField
        Where the forces come from.
    max_force : float
        Largest force to leave, eV/Å. That of a silica melt at 4000 K is about 30, rarely above 60.
    max_steps : int
        Where to stop at the latest: what is left is heat that the thermostat takes up.
    """
    rate, farthest = 0.005, min(0.1, 0.08 * field.skin)
    longest = farthest
    evaluation = field.evaluate(state, energy=True)
    for _ in range(max_steps):
        size = evaluation.forces.norm(dim=1, keepdim=True)
        if float(size.max()) < max_force or rate < 1e-6:
            break
        before, energy = state.positions.clone(), evaluation.energy
        state.positions += evaluation.forces * torch.clamp(longest / size, max=rate)
        evaluation = field.evaluate(state, energy=True)
        if bool(evaluation.energy < energy):
            rate, longest = min(1.1 * rate, 0.05), min(1.1 * longest, farthest)
        else:
            state.positions.copy_(before)
            evaluation, rate, longest = field.evaluate(state, energy=True), 0.5 * rate, 0.5 * longest
