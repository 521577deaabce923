"""Constant pressure by stochastic cell rescaling, isotropic or fully flexible, around any thermostat.

Every few steps the barostat makes one move of its own: it strains cell, positions and (inversely)
velocities at fixed scaled coordinates and momenta, by an overdamped Langevin step to the target pressure.
The energy of a move is booked from its forward and backward transition probabilities, so that the conserved
quantity is constant in the limit of short intervals. At a finite interval it also shows the error of the
moves: their noise is random, so it wanders a little instead of swinging around a value.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from rsa_kernels import random
from rsa_kernels._nvtx import annotated
from rsa_kernels.units import BOLTZMANN, EV_PER_A3_IN_GPA

from .forcefield import ForceField
from .integrators import Integrator
from .potentials import Evaluation
from .state import Reduction, State, Stream, one_owner

GLOBAL_IDS = (-1, -2)
"""The ids under which the barostat, which belongs to no atom, draws its noise: three variates each."""


class CellRescaling(ABC):
    """What the isotropic and the flexible barostat have in common.

    Parameters
    ----------
    pressure : float
        Target P₀, eV/Å³.
    relaxation : float
        τ, fs: how fast the volume relaxes if `compressibility` is right. Only their ratio matters.
    compressibility : float
        β, Å³/eV; a rough figure does, the distribution sampled does not depend on it.
    seed : int
        Key of the noise.
    total : Reduction
        Adds up sums over atoms.
    """

    def __init__(
        self,
        pressure: float,
        relaxation: float = 500.0,
        compressibility: float = 0.05 * EV_PER_A3_IN_GPA,
        seed: int = 0,
        total: Reduction = one_owner,
    ):
        self.pressure = float(pressure)
        self.relaxation = float(relaxation)
        self.compressibility = float(compressibility)
        self.seed = int(seed)
        self.total = total
        self.booked = 0.0

    @annotated("barostat")
    def move(
        self,
        state: State,
        field: ForceField,
        virial: Tensor,
        interval: float,
        temperature: float,
        energy: bool,
    ) -> Evaluation:
        """Let the cell relax for `interval` fs, in place, and evaluate the forces anew.

        Parameters
        ----------
        state, field
            As for `Integrator.step`.
        virial : Tensor
            At the present positions, (3, 3), eV.
        interval : float
            fs.
        temperature : float
            K.
        energy : bool
            Whether the new evaluation shall contain the energy; it always contains the virial.
        """
        thermal = BOLTZMANN * temperature
        ids = torch.tensor(GLOBAL_IDS, device=state.positions.device)
        noise = random.normal(self.seed, state.step, ids, Stream.BAROSTAT).flatten()
        old_volume = state.volume()
        old_pressure = state.pressure(virial, self.total)
        strain = self._strain(old_volume, old_pressure, interval, thermal, noise)
        stretch = _exponential(strain)
        torch.mm(state.positions.clone(), stretch, out=state.positions)
        torch.mm(state.velocities.clone(), _exponential(-strain), out=state.velocities)
        state.cell.copy_(state.cell @ stretch)
        evaluation = field.evaluate(state, energy=energy, virial=True)
        new_pressure = state.pressure(evaluation.virial, self.total)
        volume = state.volume()
        ratio = self._log_ratio(old_volume, volume, old_pressure, new_pressure, strain, interval, thermal)
        booked = thermal * (ratio - torch.log(volume / old_volume))
        self.booked = self.booked + (booked.item() if booked.device.type == "cpu" else booked)
        return evaluation

    def reservoir(self, state: State) -> float:
        """P₀V and the energy booked by the moves, eV."""
        return self.pressure * float(state.volume()) + float(self.booked)

    @abstractmethod
    def _strain(self, volume, pressure, interval, thermal, noise) -> Tensor:
        """Symmetric strain of the move, (3, 3)."""

    @abstractmethod
    def _log_ratio(self, volume, new_volume, pressure, new_pressure, strain, interval, thermal) -> Tensor:
        """ln of the probability density of the move over that of its reverse."""


class IsotropicRescaling(CellRescaling):
    """Volume moves that keep the shape of the cell.

    In λ = V^½, where the noise does not depend on the volume,

        dλ = −(βλ/2τ)(P₀ − P − k_B T/2V) dt + (k_B T β/2τ)^½ dW .

    References
    ----------
    Bernetti & Bussi, J. Chem. Phys. 153, 114107 (2020), eqs. 5-9.
    """

    def _drift(self, root, pressure, thermal):
        """dλ/dt without the noise."""
        excess = pressure.trace() / 3.0 + 0.5 * thermal / root**2 - self.pressure
        return 0.5 * self.compressibility / self.relaxation * root * excess

    def _strain(self, volume, pressure, interval, thermal, noise):
        root = torch.sqrt(volume)
        variance = 0.5 * thermal * self.compressibility / self.relaxation * interval
        new_root = root + self._drift(root, pressure, thermal) * interval + math.sqrt(variance) * noise[0]
        identity = torch.eye(3, dtype=volume.dtype, device=volume.device)
        return torch.log(new_root / root) * (2.0 / 3.0) * identity

    def _log_ratio(self, volume, new_volume, pressure, new_pressure, strain, interval, thermal):
        old, new = torch.sqrt(volume), torch.sqrt(new_volume)
        forward, backward = self._drift(old, pressure, thermal), self._drift(new, new_pressure, thermal)
        rate = 0.5 * thermal * self.compressibility / self.relaxation
        ratio = (new - old) * (forward + backward) - 0.5 * interval * (forward**2 - backward**2)
        # So far densities in λ; those in ln V, which `move` books with, differ by d ln V = 2 dλ/λ.
        return ratio / rate + 0.5 * torch.log(new_volume / volume)


class FlexibleRescaling(CellRescaling):
    """Moves of all six strains: the cell changes its shape too.

    With η symmetric, so that the cell does not rotate, h ← h e^η and

        dη = (β/3τ)(P − P₀ 1) dt + (2 k_B T β/3Vτ)^½ dW_sym .

    For solids: a liquid does not resist shear, so its cell would wander off.

    References
    ----------
    Del Tatto, Raiteri, Bernetti & Bussi, Appl. Sci. 12, 1139 (2022).
    """

    def _drift(self, pressure):
        """dη/dt without the noise."""
        target = self.pressure * torch.eye(3, dtype=pressure.dtype, device=pressure.device)
        return self.compressibility / (3.0 * self.relaxation) * (pressure - target)

    def _diffusion(self, volume, thermal):
        return self.compressibility * thermal / (3.0 * self.relaxation * volume)

    def _strain(self, volume, pressure, interval, thermal, noise):
        # A symmetric matrix whose squared norm is the sum of six squared standard normals.
        xx, yy, zz, yz, xz, xy = (noise * noise.new_tensor([1.0, 1.0, 1.0, *[math.sqrt(0.5)] * 3])).unbind()
        random_part = torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz]).view(3, 3)
        width = torch.sqrt(2.0 * self._diffusion(volume, thermal) * interval)
        return self._drift(pressure) * interval + width * random_part

    def _log_ratio(self, volume, new_volume, pressure, new_pressure, strain, interval, thermal):
        forward = (strain - self._drift(pressure) * interval).square().sum()
        backward = (strain + self._drift(new_pressure) * interval).square().sum()
        old, new = self._diffusion(volume, thermal), self._diffusion(new_volume, thermal)
        # Six normal variates of variance D ∝ 1/V: their density carries D⁻³, so V³.
        return (backward / new - forward / old) / (4.0 * interval) - 3.0 * torch.log(new_volume / volume)


class ConstantPressure(Integrator):
    """A thermostatted integrator with barostat moves between its steps (NPT).

    Parameters
    ----------
    thermostat : Integrator
        Langevin or NoseHoover.
    barostat : CellRescaling
        What moves the cell.
    every : int
        Steps between moves. A move costs one evaluation of the forces.
    """

    def __init__(self, thermostat: Integrator, barostat: CellRescaling, every: int = 20):
        super().__init__(thermostat.timestep, thermostat.temperature, thermostat.total)
        self.thermostat = thermostat
        self.barostat = barostat
        self.every = int(every)
        self.momentum_conserved = thermostat.momentum_conserved

    @property
    def pressure(self) -> float:
        """Target, eV/Å³; may be assigned at every step. P₀V enters the conserved quantity as it then is."""
        return self.barostat.pressure

    @pressure.setter
    def pressure(self, value: float) -> None:
        self.barostat.pressure = float(value)

    def _prepare(self, state):
        super()._prepare(state)
        self.thermostat._prepare(state)

    def _advance(self, state, field, energy, virial):
        self.thermostat.temperature = self.temperature
        due = (state.step + 1) % self.every == 0
        asked = {"energy": energy and not due, "virial": virial or due}
        evaluation = self.thermostat._advance(state, field, **asked)
        if due:
            interval = self.every * self.timestep
            evaluation = self.barostat.move(state, field, evaluation.virial, interval, self.temperature, energy)
        return evaluation

    def reservoir(self, state):
        """Energy in the thermostat and the barostat, eV."""
        return self.thermostat.reservoir(state) + self.barostat.reservoir(state)

    def state_dict(self):
        """What thermostat and barostat remember."""
        return self.thermostat.state_dict() | {"booked": float(self.barostat.booked)}

    def load_state_dict(self, saved):
        """Continue from `state_dict`."""
        super().load_state_dict(saved)
        self.thermostat.load_state_dict({k: v for k, v in saved.items() if k != "booked"})
        self.barostat.booked = saved["booked"]


def _exponential(strain: Tensor) -> Tensor:
    """e^η of a small symmetric (3, 3) matrix, by its series; exact to rounding below a norm of 0.1."""
    result = term = torch.eye(3, dtype=strain.dtype, device=strain.device)
    for order in range(1, 9):
        term = term @ strain / order
        result = result + term
    return result
