"""Small cheap systems for tests of the dynamics: an argon-like crystal, and a gas without forces."""

import ase.build
import torch

from silica_md.forcefield import ForceField
from silica_md.potentials import Evaluation, PairPotential
from silica_md.state import State

EPSILON, SIGMA, SWITCH, CUTOFF = 0.0104, 3.4, 4.5, 6.5


def lennard_jones(r):
    """Lennard-Jones energy, switched off between 4.5 and 6.5 Å with two continuous derivatives."""
    s6 = (SIGMA / r) ** 6
    t = ((r - SWITCH) / (CUTOFF - SWITCH)).clamp(0.0, 1.0)
    return 4 * EPSILON * (s6 * s6 - s6) * (1 - t**3 * (10 - 15 * t + 6 * t**2))


def argon(repeat=3, lattice=5.3, temperature=60.0, seed=0, krypton=False):
    """fcc crystal of 4 * repeat**3 atoms, every second one with the mass of krypton if asked for."""
    atoms = ase.build.bulk("Ar", "fcc", a=lattice, cubic=True) * (repeat, repeat, repeat)
    if krypton:
        atoms.numbers[::2] = 36
        atoms.set_masses("defaults")
    state = State.from_ase(atoms)
    state.thermalize(temperature, seed)
    return state


def argon_field(skin=1.0):
    species = [(a, b) for a in (18, 36) for b in (18, 36) if a <= b]
    functions = dict.fromkeys(species, lennard_jones)
    potential = PairPotential("argon", functions, r_min=2.0, cutoff=CUTOFF, charges={18: 0, 36: 0})
    return ForceField(potential, skin)


class IdealGas:
    """Atoms that do not see each other, in a cell whose shape (not its volume) may have a stiffness κ (eV):

    U = κ (tr G / det(G)^⅓ − 3), with G = h hᵀ.
    """

    name = "ideal gas"
    cutoff = 0.0

    def __init__(self, stiffness=0.0):
        self.stiffness = stiffness

    def evaluate(self, state, neighbors, *, energy=True, virial=True, per_atom_energy=False):
        metric = state.cell.t() @ state.cell
        scaled = metric / torch.linalg.det(metric) ** (1 / 3)
        strain_gradient = 2 * self.stiffness * (scaled - scaled.trace() / 3 * torch.eye(3, dtype=torch.float64))
        shape_energy = self.stiffness * (scaled.trace() - 3)
        return Evaluation(shape_energy, torch.zeros_like(state.positions), -strain_gradient)


def gas(n_atoms, length=20.0, temperature=300.0, seed=0):
    ids = torch.arange(n_atoms)
    state = State(
        positions=torch.rand(n_atoms, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * length,
        velocities=torch.zeros(n_atoms, 3, dtype=torch.float64),
        masses=torch.full((n_atoms,), 40.0, dtype=torch.float64),
        atomic_numbers=torch.full((n_atoms,), 18),
        cell=length * torch.eye(3, dtype=torch.float64),
        pbc=torch.ones(3, dtype=torch.bool),
        global_ids=ids,
    )
    state.thermalize(temperature, seed)
    return state
