"""Systems and a table for the tests of pair potentials, and what they give by definition."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

import rsa_kernels as rk

CUTOFF, R_MIN, TOLERANCE = 3.5, 0.05, 1e-8


def switch(r):
    """Take a function to zero at the cutoff with two continuous derivatives."""
    return (1 - (r / CUTOFF) ** 2).clamp(min=0) ** 3


# Soft at short range, so that atoms may lie anywhere; one pair that does not interact, one that jumps at the cutoff.
FUNCTIONS = {
    (1, 1): lambda r: 0.7 * torch.exp(-r * r) * switch(r),
    (6, 1): lambda r: (2.0 / (0.5 + r) - 0.3 * torch.cos(2 * r)) * switch(r),
    (1, 8): lambda r: -1.5 * torch.exp(-1.2 * r) * switch(r),
    (6, 6): None,
    (6, 8): lambda r: 0.2 * torch.sin(3 * r) * switch(r),
    (8, 8): lambda r: 1.0 / (1 + r) - 0.1,
}
NUMBERS = (8, 1, 6)
TABLE = rk.pair.PairTable.from_functions(NUMBERS, FUNCTIONS, r_min=R_MIN, cutoff=CUTOFF, tolerance=TOLERANCE)


@dataclass(frozen=True)
class System:
    """Atoms in one cell, or in several."""

    positions: Tensor
    cell: Tensor
    numbers: Tensor
    pbc: object = True
    batch_ptr: Tensor | None = None

    def neighbors(self, cutoff: float = CUTOFF, **options) -> rk.NeighborList:
        """List the pairs of this system."""
        return rk.neighbor_list(self.positions, self.cell, self.pbc, cutoff, batch_ptr=self.batch_ptr, **options)

    def evaluate(self, table: rk.pair.PairTable = TABLE, neighbors: rk.NeighborList | None = None, **options):
        """Run the kernel, everything computed unless said otherwise."""
        neighbors = self.neighbors() if neighbors is None else neighbors
        options = {"per_atom_energy": True, **options}
        return rk.pair.evaluate(table, self.positions, self.cell, self.numbers, neighbors, **options)

    def but(self, **changes) -> System:
        """Return the same system but for some fields."""
        return replace(self, **changes)


def _one(n_atoms: int, cell, pbc=True, seed: int = 0, spread: float = 1.0) -> System:
    generator = torch.Generator().manual_seed(seed)
    cell = torch.tensor(cell, dtype=torch.float64)
    filled = rk.cells.complete(cell[None], torch.as_tensor(pbc).expand(3)[None])[0]
    filled[cell.norm(dim=1) == 0] *= 4.0
    positions = (torch.rand(n_atoms, 3, dtype=torch.float64, generator=generator) - 0.3) * spread @ filled
    numbers = torch.tensor(NUMBERS)[torch.randint(0, 3, (n_atoms,), generator=generator)]
    return System(positions, cell, numbers, pbc)


TRICLINIC = [[4.1, 0.3, -0.2], [1.9, 4.4, 0.5], [-1.3, 1.1, 5.0]]
SINGLE = {
    "orthorhombic": _one(40, [[8.0, 0, 0], [0, 7.5, 0], [0, 0, 9.0]], seed=1),
    "triclinic": _one(17, TRICLINIC, seed=2),
    "tiny": _one(3, [[1.9, 0.2, 0], [0.3, 1.7, 0.1], [-0.4, 0, 2.1]], seed=3),
    "one atom": _one(1, [[2.0, 0.2, 0], [0.3, 2.1, 0.1], [-0.4, 0, 2.2]], seed=4),
    "slab": _one(12, [[4.0, 0, 0], [1.0, 4.2, 0], [0, 0, 0]], [True, True, False], seed=5),
    "wire": _one(9, [[0, 0, 0], [1.0, 3.0, 0.5], [0, 0, 0]], [False, True, False], seed=6),
    "cluster": _one(14, [[0.0] * 3] * 3, False, seed=7),
    "walled": _one(15, TRICLINIC, [True, False, True], seed=8),
    "unwrapped": _one(10, TRICLINIC, seed=9, spread=30.0),
}


def batch(names) -> System:
    """Put systems behind one another; None is a system without atoms."""
    parts = [SINGLE[name] if name else None for name in names]
    empty = System(torch.zeros(0, 3).double(), 3.0 * torch.eye(3).double(), torch.zeros(0, dtype=torch.int64))
    parts = [part or empty for part in parts]
    sizes = torch.tensor([0] + [len(part.numbers) for part in parts])
    return System(
        torch.cat([part.positions for part in parts]),
        torch.stack([part.cell for part in parts]),
        torch.cat([part.numbers for part in parts]),
        torch.stack([torch.as_tensor(part.pbc).expand(3) for part in parts]),
        sizes.cumsum(0),
    )


SYSTEMS = {**SINGLE, "batch": batch(["tiny", None, "slab", "one atom", "triclinic", None])}


def system_of(system: System) -> Tensor:
    """Index of every atom's system."""
    neighbors = system.neighbors()
    return torch.bucketize(torch.arange(len(system.numbers)), neighbors.batch_ptr[1:], right=True)


def strained(system: System, positions: Tensor, cell: Tensor, strain: Tensor) -> tuple[Tensor, Tensor]:
    """Positions and cells under the strains (n_systems, 3, 3): r (1 + ε), H (1 + ε)."""
    stretch = torch.eye(3, dtype=torch.float64) + strain
    cells = cell if cell.dim() == 3 else cell.expand(len(strain), 3, 3)
    return (positions.unsqueeze(1) @ stretch[system_of(system)]).squeeze(1), cells @ stretch


def by_definition(system: System, per_atom=None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Per-atom energies, energies, forces and virials by autograd through the reference.

    `per_atom` maps (positions, cells, neighbors) to per-atom energies; default: the table's reference.
    """
    neighbors = system.neighbors()
    if per_atom is None:
        species = TABLE.species(system.numbers)

        def per_atom(positions, cells, neighbors):
            return rk.pair.reference.table_per_atom_energy(TABLE, positions, cells, species, neighbors)

    positions = system.positions.clone().requires_grad_()
    strain = torch.zeros(neighbors.n_systems, 3, 3, dtype=torch.float64, requires_grad=True)
    atoms = per_atom(*strained(system, positions, system.cell, strain), neighbors)
    energies = torch.zeros(neighbors.n_systems, dtype=torch.float64).index_add(0, system_of(system), atoms)
    slope, bend = torch.autograd.grad(energies.sum(), (positions, strain))
    return atoms.detach(), energies.detach(), -slope, -bend


def outputs(result) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return a `PairResult` in the order of `by_definition`."""
    return result.per_atom_energy, result.energy, result.forces, result.virial
