"""Systems for the tests of reciprocal-space attention, the ways to run it, and how far they may differ."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import torch
from torch import Tensor

import rsa_kernels as rk
from rsa_kernels.reciprocal import methods, mode_space, pairwise, reference, transform

TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-5, torch.bfloat16: 1e-5}
"""Asked of the grid in all tests that do not ask for another."""
GRID_BOUND = 10.0 * TOLERANCE[torch.float64]
"""Largest error of any component, value to second derivative: the tolerance is a root mean square over the waves of a
filled ball, of which the few waves here are the edge. A term forgotten anywhere is an error of order 1."""

EXACT = ("pairwise", "spectral", "spectral halves")
METHODS = (*EXACT, "grid", "grid halves")
WAVES = ("spectral", "grid")
HEADS, D, D_V = 2, 3, 4
K_CUT = 2.1


def spectrum(k: Tensor) -> Tensor:
    """Weights of both signs and no symmetry that an error could hide behind."""
    return 3.0 * torch.exp(-0.3 * k**2) * (1.0 - 0.4 * k**2)


@dataclass(frozen=True)
class System:
    """What the op is given but for q, k, v, which `leaves` makes."""

    positions: Tensor
    cell: Tensor
    batch_ptr: Tensor | None = None
    k_cut: float = K_CUT
    seed: int = 0

    @property
    def n_atoms(self) -> int:
        """Number of atoms of all systems."""
        return len(self.positions)

    @property
    def offsets(self) -> Tensor:
        """Offsets of the systems in the atoms."""
        return torch.tensor([0, self.n_atoms]) if self.batch_ptr is None else self.batch_ptr

    def leaves(self, shape=(HEADS, D, D_V), dtype=torch.float64, grad=False) -> tuple[Tensor, Tensor, Tensor]:
        """Random q, k, v."""
        generator = torch.Generator().manual_seed(100 + self.seed)
        heads, d, d_v = shape
        drawn = (torch.randn(self.n_atoms, heads, n, dtype=torch.float64, generator=generator) for n in (d, d, d_v))
        return tuple(x.to(dtype).requires_grad_(grad) for x in drawn)

    def geometry(self) -> tuple[Tensor, Tensor]:
        """Positions and cell to differentiate by."""
        return self.positions.clone().requires_grad_(), self.cell.clone().requires_grad_()

    def modes(self, cell: Tensor | None = None, spectrum=spectrum, **options) -> rk.Modes:
        """Waves of the cell, or of another one."""
        return rk.reciprocal_modes(self.cell if cell is None else cell, self.k_cut, spectrum, **options)

    def run(self, method: str, leaves, positions=None, cell=None, modes=None, tolerance=None) -> Tensor:
        """Attention by one of METHODS or by "reference"."""
        positions = self.positions if positions is None else positions
        cell = self.cell if cell is None else cell
        modes = self.modes(cell) if modes is None else modes
        if method == "reference":
            where = fractional(positions, cell, self.offsets)
            arguments = where, modes.miller, modes.weights, self.offsets, modes.mode_ptr
            return reference.reciprocal_attention(*leaves, *arguments)
        q, k, v = leaves
        tolerance = TOLERANCE[q.dtype] if tolerance is None else tolerance
        if method.endswith("halves"):
            rest = positions, cell, modes, self.batch_ptr, method.split()[0]
            states = rk.accumulate_modes(k, v, *rest, tolerance=tolerance)
            return rk.gather_modes(q, states, *rest, tolerance=tolerance)
        return rk.reciprocal_attention(q, k, v, positions, cell, modes, self.batch_ptr, method, tolerance=tolerance)

    def but(self, **changes) -> System:
        """Return the same system but for some fields."""
        return replace(self, **changes)


def fractional(positions: Tensor, cell: Tensor, batch_ptr: Tensor) -> Tensor:
    """f with f A = r, system by system."""
    cells = cell.double().expand(len(batch_ptr) - 1, 3, 3)
    parts = [
        torch.linalg.solve(one.T, positions[low:high].double().T).T
        for one, (low, high) in zip(cells, itertools.pairwise(batch_ptr.tolist()), strict=True)
    ]
    return torch.cat(parts)


def system_of(batch_ptr: Tensor) -> Tensor:
    """Index of every atom's system."""
    return torch.repeat_interleave(torch.arange(len(batch_ptr) - 1), batch_ptr.diff())


def strained(system: System, positions: Tensor, cell: Tensor, strain: Tensor) -> tuple[Tensor, Tensor]:
    """Positions and cells under the strains (n_systems, 3, 3): r (1 + ε), A (1 + ε)."""
    stretch = torch.eye(3, dtype=torch.float64) + strain
    moved = (positions.unsqueeze(1) @ stretch[system_of(system.offsets)]).squeeze(1)
    return moved, cell @ (stretch if cell.dim() == 3 else stretch[0])


def _one(n_atoms: int, cell, seed: int, spread: float = 1.0, k_cut: float = K_CUT) -> System:
    generator = torch.Generator().manual_seed(seed)
    cell = torch.tensor(cell, dtype=torch.float64)
    positions = ((torch.rand(n_atoms, 3, dtype=torch.float64, generator=generator) - 0.3) * spread) @ cell
    return System(positions, cell, k_cut=k_cut, seed=seed)


TRICLINIC = [[5.1, 0.3, -0.2], [1.9, 5.4, 0.5], [-1.3, 1.1, 6.0]]
SINGLE = {
    "orthorhombic": _one(14, [[6.0, 0, 0], [0, 5.5, 0], [0, 0, 7.0]], 1),
    "triclinic": _one(9, TRICLINIC, 2),
    "unwrapped": _one(8, TRICLINIC, 3, spread=20.0),
    "left-handed": _one(7, [[0.4, 5.3, 0.2], [4.9, -0.7, 0.3], [0.3, 0.6, 5.8]], 4),
    "one atom": _one(1, TRICLINIC, 5),
    "one wave": _one(5, [[4.0, 0, 0], [0.3, 2.6, 0], [0.1, 0.2, 2.7]], 6, k_cut=1.7),
    "no waves": _one(4, [[2.0, 0, 0], [0.3, 1.8, 0], [0.1, 0.2, 2.1]], 7),
}


def batch(names) -> System:
    """Put systems of one k_cut behind one another; None is a system without atoms."""
    empty = SINGLE["triclinic"].but(positions=torch.zeros(0, 3, dtype=torch.float64))
    parts = [SINGLE[name] if name else empty for name in names]
    return System(
        torch.cat([part.positions for part in parts]),
        torch.stack([part.cell for part in parts]),
        torch.tensor([0] + [part.n_atoms for part in parts]).cumsum(0),
        seed=30,
    )


MIXED = ["triclinic", None, "one atom", "no waves", "orthorhombic", "left-handed", None]
SYSTEMS = {**SINGLE, "batch": batch(MIXED)}


def cut_small(monkeypatch) -> None:
    """Let every loop over tiles, chunks of waves, blocks of channels and of atoms run more than once here."""
    monkeypatch.setattr(pairwise, "_TILE", 4)
    monkeypatch.setattr(methods, "WAVES", 70)
    monkeypatch.setattr(methods, "CHANNELS", 60)
    monkeypatch.setattr(methods, "MESH_BYTES", 1 << 16)
    monkeypatch.setattr(transform, "_ATOM_BLOCK", 5)
    assert pairwise.tile_size(9, 1) < 9
    heads, rows = (len(list(mode_space.channel_blocks(HEADS, D, D_V, width))) for width in (12, 6))
    assert (heads, rows) == (HEADS, HEADS * D)


def assert_near(ours: Tensor, wanted: Tensor, bound: float) -> None:
    """Compare relative to the largest component: small ones are differences of large terms."""
    assert ours.shape == wanted.shape and ours.dtype == wanted.dtype
    scale = float(wanted.detach().abs().max()) if wanted.numel() else 0.0
    torch.testing.assert_close(ours, wanted, rtol=0.0, atol=bound * scale)


def bound_of(method: str, rounding: float = 1e-13) -> float:
    """Relative difference allowed to a method: rounding, or what follows from the tolerance of the grid."""
    return GRID_BOUND if method.startswith("grid") else rounding
