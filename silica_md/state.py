"""What the atoms are doing at one moment: positions, velocities, cell; and sums over the atoms."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import IntEnum

import torch
from torch import Tensor

from rsa_kernels import random
from rsa_kernels.units import ACCELERATION, AMU_PER_A3_IN_G_PER_CM3, BOLTZMANN

Reduction = Callable[[Tensor], Tensor]
"""Adds what each owner of atoms has summed over its own; with one owner there is nothing to add."""


def one_owner(partial: Tensor) -> Tensor:
    """Return the sum over the owned atoms as it is: this process owns all of them."""
    return partial


class Stream(IntEnum):
    """What random numbers are for; each use has a stream of its own (see `rsa_kernels.random`)."""

    THERMOSTAT = 0
    BAROSTAT = 1
    VELOCITIES = 2
    PLACEMENT = 3
    FRAMES_SET_ASIDE = 16
    FRAME_ORDER = 17
    STRAIN_OF_COPY = 32
    RATTLE_OF_COPY = 33


@dataclass
class State:
    """Owned atoms, their cell and the clock.

    Attributes
    ----------
    positions : Tensor
        (n_atoms, 3) float64, Å. Unwrapped: an atom that leaves through a face goes on outside.
    velocities : Tensor
        (n_atoms, 3) float64, Å/fs.
    masses : Tensor
        (n_atoms,) float64, amu.
    atomic_numbers : Tensor
        (n_atoms,) int64.
    cell : Tensor
        (3, 3) float64, rows a, b, c in Å.
    pbc : Tensor
        (3,) bool.
    global_ids : Tensor
        (n_atoms,) int64; an atom's number for good, whatever the order, and the key of its random numbers.
    step : int
        Steps done.
    time : float
        fs.
    """

    positions: Tensor
    velocities: Tensor
    masses: Tensor
    atomic_numbers: Tensor
    cell: Tensor
    pbc: Tensor
    global_ids: Tensor
    step: int = 0
    time: float = 0.0

    def __post_init__(self):
        n = self.positions.shape[0]
        expected = {
            "positions": ((n, 3), torch.float64),
            "velocities": ((n, 3), torch.float64),
            "masses": ((n,), torch.float64),
            "atomic_numbers": ((n,), torch.int64),
            "cell": ((3, 3), torch.float64),
            "pbc": ((3,), torch.bool),
            "global_ids": ((n,), torch.int64),
        }
        for name, (shape, dtype) in expected.items():
            value = getattr(self, name)
            if tuple(value.shape) != shape:
                raise ValueError(f"`{name}` must have shape {shape}, got {tuple(value.shape)}")
            if value.dtype != dtype:
                raise TypeError(f"`{name}` must have dtype {dtype}, got {value.dtype}")

    @classmethod
    def from_ase(cls, atoms, device: torch.device | str = "cpu") -> State:
        """Take over an ``ase.Atoms``; its velocities are converted from ASE's units."""
        from ase import units

        def tensor(array, dtype=torch.float64):
            return torch.tensor(array, dtype=dtype, device=device)

        return cls(
            positions=tensor(atoms.positions),
            velocities=tensor(atoms.get_velocities() * units.fs),
            masses=tensor(atoms.get_masses()),
            atomic_numbers=tensor(atoms.numbers, torch.int64),
            cell=tensor(atoms.cell.array),
            pbc=tensor(atoms.pbc, torch.bool),
            global_ids=torch.arange(len(atoms), device=device),
        )

    def to_ase(self, wrap: bool = False):
        """Return an ``ase.Atoms`` in the order of the global ids, velocities included."""
        import ase
        from ase import units

        order = torch.argsort(self.global_ids)

        def array(tensor):
            return tensor.detach().cpu().numpy()

        atoms = ase.Atoms(
            numbers=array(self.atomic_numbers[order]),
            positions=array(self.positions[order]),
            cell=array(self.cell),
            pbc=array(self.pbc),
            masses=array(self.masses[order]),
        )
        atoms.set_velocities(array(self.velocities[order]) / units.fs)
        if wrap:
            atoms.wrap()
        return atoms

    @property
    def n_atoms(self) -> int:
        """Number of owned atoms."""
        return self.positions.shape[0]

    def kinetic_energy(self, total: Reduction = one_owner) -> Tensor:
        """Kinetic energy Σ m v²/2, 0-d, eV."""
        weighted = self.velocities * self.masses.unsqueeze(1)
        return total(weighted.mul_(self.velocities).sum()) * (0.5 / ACCELERATION)

    def kinetic_tensor(self, total: Reduction = one_owner) -> Tensor:
        """Kinetic tensor Σ m v ⊗ v, (3, 3), eV; its trace is twice the kinetic energy."""
        weighted = self.velocities * self.masses.unsqueeze(1)
        return total(weighted.t() @ self.velocities) / ACCELERATION

    def momentum(self, total: Reduction = one_owner) -> Tensor:
        """Total momentum Σ m v, (3,), amu Å/fs."""
        return total(self.masses @ self.velocities)

    def temperature(self, degrees_of_freedom: float | None = None, total: Reduction = one_owner) -> Tensor:
        """Kinetic temperature 2 K / (g k_B), 0-d, K.

        Parameters
        ----------
        degrees_of_freedom : float, optional
            g; by default 3 N − 3, right where the total momentum is conserved.
        total : Reduction
            How owners of atoms add up.
        """
        if degrees_of_freedom is None:
            degrees_of_freedom = 3.0 * self.count(total) - 3.0
        return self.kinetic_energy(total) * (2.0 / (max(degrees_of_freedom, 1.0) * BOLTZMANN))

    def count(self, total: Reduction = one_owner) -> int:
        """Number of atoms of all owners."""
        return int(total(torch.tensor(self.n_atoms, device=self.positions.device)))

    def volume(self) -> Tensor:
        """Volume of the cell, 0-d, Å³."""
        a, b, c = self.cell
        return torch.dot(a, torch.linalg.cross(b, c)).abs()

    def density(self, total: Reduction = one_owner) -> Tensor:
        """Mass density, 0-d, g/cm³."""
        return total(self.masses.sum()) / self.volume() * AMU_PER_A3_IN_G_PER_CM3

    def pressure(self, virial: Tensor, total: Reduction = one_owner) -> Tensor:
        """Pressure tensor (Σ m v ⊗ v + W) / V, (3, 3), eV/Å³, from the virial W = −dE/dε (3, 3), eV."""
        return (self.kinetic_tensor(total) + virial) / self.volume()

    def remove_momentum(self, total: Reduction = one_owner) -> Tensor:
        """Subtract the velocity of the centre of mass, in place; returns the energy P²/2M that goes, 0-d, eV."""
        momentum, mass = self.momentum(total), total(self.masses.sum())
        self.velocities -= momentum / mass
        return momentum.square().sum() / mass * (0.5 / ACCELERATION)

    def thermalize(self, temperature: float, seed: int, total: Reduction = one_owner) -> None:
        """Draw velocities from the Maxwell-Boltzmann distribution, in place.

        The total momentum is removed and the rest scaled, so that `State.temperature` is `temperature` (K) to
        rounding.
        """
        noise = random.normal(seed, self.step, self.global_ids, Stream.VELOCITIES)
        width = torch.sqrt(ACCELERATION * BOLTZMANN * temperature / self.masses)
        self.velocities.copy_(width.unsqueeze(1) * noise)
        if self.count(total) > 1 and temperature > 0.0:
            self.remove_momentum(total)
            self.velocities *= math.sqrt(temperature / float(self.temperature(total=total)))

    def to(self, device: torch.device | str) -> State:
        """Return a copy on `device`."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return State(**{k: v.to(device, copy=True) if isinstance(v, Tensor) else v for k, v in moved.items()})

    def clone(self) -> State:
        """Return a copy that shares nothing."""
        return self.to(self.positions.device)

    def at(self, positions: Tensor, cell: Tensor | None = None) -> State:
        """Return the same atoms elsewhere, for instance at strained positions; the rest is shared."""
        return replace(self, positions=positions, cell=self.cell if cell is None else cell)
