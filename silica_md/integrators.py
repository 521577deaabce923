"""Equations of motion at constant volume: velocity Verlet, Langevin (BAOAB) and Nosé-Hoover chains.

An integrator advances a `State` by one step with the forces of a `ForceField`. What it remembers from one
step to the next is in its `state_dict`; its parameters are not. `reservoir` is the energy its baths hold, so
that

    conserved = K + U + reservoir

is constant up to the error of the time step, also while the target temperature changes.

On the CPU the few numbers that steer a thermostat are Python floats (reading one off a tensor costs a
microsecond); on a GPU they stay 0-d tensors (reading one would stop the queue).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from rsa_kernels import random
from rsa_kernels._nvtx import annotated
from rsa_kernels.units import ACCELERATION, BOLTZMANN

from .forcefield import ForceField
from .potentials import Evaluation
from .state import Reduction, State, Stream, one_owner


class Integrator(ABC):
    """What the integrators have in common.

    Parameters
    ----------
    timestep : float
        fs.
    temperature : float, optional
        Target, K; may be assigned at every step. None where nothing is thermostatted.
    total : Reduction
        Adds up sums over atoms where several processes own atoms.
    """

    momentum_conserved = True
    """Whether the total momentum stays zero, which takes 3 degrees of freedom from the temperature."""

    pressure: float | None = None
    """Target pressure, eV/Å³; None where the cell is fixed."""

    def __init__(self, timestep: float, temperature: float | None = None, total: Reduction = one_owner):
        self.timestep = float(timestep)
        self.temperature = temperature
        self.total = total
        self._for: State | None = None

    @annotated("step")
    def step(self, state: State, field: ForceField, *, energy: bool = False, virial: bool = False) -> Evaluation:
        """Advance `state` in place by one step.

        Parameters
        ----------
        state : State
            Changed in place; `state.step` and `state.time` advance too.
        field : ForceField
            Its forces belong to `state` when the step begins (they are evaluated if there are none yet) and
            when it ends.
        energy, virial : bool
            What the evaluation at the new positions shall contain besides the forces.

        Returns
        -------
        Evaluation
            At the new positions.
        """
        if self._for is not state:
            self._prepare(state)
        if field.forces is None:
            field.evaluate(state)
        evaluation = self._advance(state, field, energy, virial)
        state.step += 1
        state.time += self.timestep
        return evaluation

    @abstractmethod
    def _advance(self, state: State, field: ForceField, energy: bool, virial: bool) -> Evaluation:
        """Do one step."""

    def _prepare(self, state: State) -> None:
        """Lay out factors in the shape of the velocities: broadcasting would cost four times as much."""
        self._for = state
        masses = state.masses.unsqueeze(1).expand_as(state.positions)
        self._masses = masses.contiguous()
        self._kick = (0.5 * self.timestep * ACCELERATION / masses).contiguous()
        self._scratch = torch.empty_like(state.velocities)
        n_atoms = state.count(self.total)
        self._degrees_of_freedom = 3.0 * n_atoms - (3.0 if self.momentum_conserved else 0.0)

    def _kinetic_energy(self, state: State):
        """K in eV, as the number that steers (see the head of this file)."""
        velocities = state.velocities.view(-1)
        weighted = torch.mul(state.velocities, self._masses, out=self._scratch).view(-1)
        return _number(self.total(torch.dot(velocities, weighted))) * (0.5 / ACCELERATION)

    def degrees_of_freedom(self, state: State) -> float:
        """Kinetic degrees of freedom that share the temperature."""
        if self._for is not state:
            self._prepare(state)
        return self._degrees_of_freedom

    def reservoir(self, state: State) -> float:
        """Energy in the baths, eV; K + U + reservoir is conserved."""
        return 0.0

    def state_dict(self) -> dict[str, float]:
        """What the next step needs from the last one, as plain numbers."""
        return {}

    def load_state_dict(self, saved: dict[str, float]) -> None:
        """Continue from `state_dict`."""
        if set(saved) != set(self.state_dict()):
            wanted = ", ".join(self.state_dict()) or "none"
            raise ValueError(f"`saved` must have the entries {wanted}, got {sorted(saved)}")


def _number(value: Tensor):
    return value.item() if value.device.type == "cpu" else value


class VelocityVerlet(Integrator):
    """Constant energy and volume (NVE): kick, drift, new forces, kick.

    v ← v + (Δt/2) F/m;  r ← r + Δt v;  F(r);  v ← v + (Δt/2) F/m.

    Symplectic and reversible; the energy error is bounded and of order Δt².

    References
    ----------
    Swope, Andersen, Berens & Wilson, J. Chem. Phys. 76, 637 (1982).
    """

    def _advance(self, state, field, energy, virial):
        state.velocities.addcmul_(field.forces, self._kick)
        state.positions.add_(state.velocities, alpha=self.timestep)
        evaluation = field.evaluate(state, energy=energy, virial=virial)
        state.velocities.addcmul_(evaluation.forces, self._kick)
        return evaluation


class Langevin(Integrator):
    """Constant temperature and volume (NVT) by Langevin dynamics, split as BAOAB.

    dv = F/m dt − γ v dt + (2 γ k_B T/m)^½ dW. Between two half drifts the friction and the noise act exactly,

        v ← e^(−γΔt) v + ((1 − e^(−2γΔt)) k_B T/m)^½ z ,

    with z from Philox by (seed, step, atom id). Configurations are sampled with an error of order Δt² that
    nearly cancels for BAOAB.

    Parameters
    ----------
    timestep, temperature, total
        As for `Integrator`.
    relaxation : float
        1/γ, fs.
    seed : int
        Key of the noise.

    References
    ----------
    Leimkuhler & Matthews, Appl. Math. Res. Express 2013, 34; J. Chem. Phys. 138, 174102 (2013).
    """

    momentum_conserved = False

    def __init__(
        self,
        timestep: float,
        temperature: float,
        relaxation: float = 500.0,
        seed: int = 0,
        total: Reduction = one_owner,
    ):
        super().__init__(timestep, temperature, total)
        self.relaxation = float(relaxation)
        self.seed = int(seed)
        self._heat = 0.0

    def _prepare(self, state):
        super()._prepare(state)
        self._noise = torch.empty_like(state.velocities)
        self._width = torch.sqrt(BOLTZMANN * ACCELERATION / self._masses)

    def _advance(self, state, field, energy, virial):
        state.velocities.addcmul_(field.forces, self._kick)
        state.positions.add_(state.velocities, alpha=0.5 * self.timestep)
        self._exchange_heat(state)
        state.positions.add_(state.velocities, alpha=0.5 * self.timestep)
        evaluation = field.evaluate(state, energy=energy, virial=virial)
        state.velocities.addcmul_(evaluation.forces, self._kick)
        return evaluation

    def _exchange_heat(self, state):
        decay = math.exp(-self.timestep / self.relaxation)
        before = self._kinetic_energy(state)
        random.normal(self.seed, state.step, state.global_ids, Stream.THERMOSTAT, out=self._noise)
        state.velocities.mul_(decay)
        gain = math.sqrt((1.0 - decay**2) * self.temperature)
        state.velocities.addcmul_(self._noise, self._width, value=gain)
        self._heat = self._heat + (self._kinetic_energy(state) - before)

    def reservoir(self, state):
        """Minus the heat the bath has given, eV."""
        return -float(self._heat)

    def state_dict(self):
        """Heat given so far, eV."""
        return {"heat": float(self._heat)}

    def load_state_dict(self, saved):
        """Continue from `state_dict`."""
        super().load_state_dict(saved)
        self._heat = saved["heat"]


class NoseHoover(Integrator):
    """Constant temperature and volume (NVT) by a Nosé-Hoover chain.

    The friction ξ̇₁ on the velocities is driven by 2K − g k_B T and is itself thermostatted by the next link:

        Q₁ = g k_B T τ²,  Q_j = k_B T τ²;   Q₁ ξ̈₁ = 2K − g k_B T − Q₁ ξ̇₁ ξ̇₂,
        Q_j ξ̈_j = Q_(j−1) ξ̇²_(j−1) − k_B T − Q_j ξ̇_j ξ̇_(j+1).

    Conserved is K + U + Σ Q_j ξ̇_j²/2 + g k_B T ξ₁ + k_B T Σ_(j>1) ξ_j. A change of the target adds what makes
    it continuous. The chain acts in two half steps around velocity Verlet.

    Parameters
    ----------
    timestep, temperature, total
        As for `Integrator`.
    relaxation : float
        τ, fs; about the period with which the temperature swings is 2πτ/√2.
    links : int
        Length of the chain.

    References
    ----------
    Martyna, Klein & Tuckerman, J. Chem. Phys. 97, 2635 (1992); Martyna, Tuckerman, Tobias & Klein,
    Mol. Phys. 87, 1117 (1996).
    """

    def __init__(
        self,
        timestep: float,
        temperature: float,
        relaxation: float = 100.0,
        links: int = 3,
        total: Reduction = one_owner,
    ):
        super().__init__(timestep, temperature, total)
        self.relaxation = float(relaxation)
        self._position = [0.0] * links
        self._velocity = [0.0] * links
        self._offset = 0.0
        self._last_temperature = float(temperature)

    def _advance(self, state, field, energy, virial):
        if self.temperature != self._last_temperature:
            self._change_target()
        self._half_chain(state)
        state.velocities.addcmul_(field.forces, self._kick)
        state.positions.add_(state.velocities, alpha=self.timestep)
        evaluation = field.evaluate(state, energy=energy, virial=virial)
        state.velocities.addcmul_(evaluation.forces, self._kick)
        self._half_chain(state)
        return evaluation

    def _half_chain(self, state):
        """Propagate the chain and scale the velocities by half a step."""
        thermal, quarter = BOLTZMANN * self.temperature, 0.25 * self.timestep
        masses, velocity, last = self._bath_masses(), self._velocity, len(self._velocity) - 1
        twice_kinetic = 2.0 * self._kinetic_energy(state)

        def push(j):
            driven = (
                twice_kinetic - self._degrees_of_freedom * thermal
                if j == 0
                else (masses[j - 1] * velocity[j - 1] ** 2 - thermal)
            )
            drag = _exp(-0.5 * quarter * velocity[j + 1]) if j < last else 1.0
            velocity[j] = (velocity[j] * drag + quarter * driven / masses[j]) * drag

        for j in range(last, -1, -1):
            push(j)
        scale = _exp(-2.0 * quarter * velocity[0])
        state.velocities.mul_(scale)
        twice_kinetic = twice_kinetic * scale**2
        self._position = [x + 2.0 * quarter * v for x, v in zip(self._position, velocity, strict=True)]
        for j in range(last + 1):
            push(j)

    def _bath_masses(self):
        one = BOLTZMANN * self._last_temperature * self.relaxation**2
        return [self._degrees_of_freedom * one] + [one] * (len(self._velocity) - 1)

    def _chain_energy(self):
        thermal = BOLTZMANN * self._last_temperature
        swing = sum(0.5 * q * v**2 for q, v in zip(self._bath_masses(), self._velocity, strict=True))
        return swing + thermal * (self._degrees_of_freedom * self._position[0] + sum(self._position[1:]))

    def _change_target(self):
        before = self._chain_energy()
        self._last_temperature = float(self.temperature)
        self._offset = self._offset + (before - self._chain_energy())

    def reservoir(self, state):
        """Energy of the chain, eV, continued over changes of the target."""
        if self._for is not state:
            self._prepare(state)
        return float(self._chain_energy() + self._offset)

    def state_dict(self):
        """Links (positions; velocities in 1/fs), energy offset (eV), and the target it belongs to (K)."""
        saved = {f"position_{j}": float(x) for j, x in enumerate(self._position)}
        saved |= {f"velocity_{j}": float(v) for j, v in enumerate(self._velocity)}
        return saved | {"offset": float(self._offset), "last_temperature": self._last_temperature}

    def load_state_dict(self, saved):
        """Continue from `state_dict`."""
        super().load_state_dict(saved)
        links = range(len(self._position))
        self._position = [saved[f"position_{j}"] for j in links]
        self._velocity = [saved[f"velocity_{j}"] for j in links]
        self._offset, self._last_temperature = saved["offset"], saved["last_temperature"]


def _exp(x):
    return torch.exp(x) if isinstance(x, Tensor) else math.exp(x)
