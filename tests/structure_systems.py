"""Systems for the tests of S(Q) and g(r): cells of all shapes, few atoms, and what the definition gives for them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import rsa_kernels as rk
from rsa_kernels.structure import reference

TRICLINIC = [[9.0, 0.4, -0.7], [3.1, 7.5, 0.2], [-2.0, 1.3, 11.0]]
CELLS = {
    "orthorhombic": [[8.0, 0, 0], [0, 11.0, 0], [0, 0, 9.5]],
    "triclinic": TRICLINIC,
    "left-handed": [[0.4, 8.3, 0.2], [7.9, -0.7, 0.3], [0.3, 0.6, 9.8]],
    "skewed": [[7.0, 0, 0], [20.0, 8.0, 0], [-15.0, 11.0, 9.0]],
    "flat": [[14.0, 0, 0], [0, 3.0, 0], [1.0, 0, 12.0]],
}
ROUTES = ("grid", "direct", "sampled")
FINE = 1e-11
"""Tolerance asked of the grid where it is compared with exact sums; what follows is compared to 1e-8."""


@dataclass(frozen=True)
class System:
    """What `structure_factor` is given."""

    positions: Tensor
    cell: Tensor
    species: Tensor

    def factor(self, q_max=5.0, dq=0.2, method="grid", **options) -> rk.StructureFactor:
        """S(Q) of the system."""
        options = {"tolerance": FINE} | options
        return rk.structure_factor(self.positions, self.cell, self.species, q_max, dq, method, **options)

    def defined(self, q_max=5.0, dq=0.2) -> tuple[Tensor, Tensor]:
        """Partials and counts of the definition."""
        labels, codes = torch.unique(self.species, return_inverse=True)
        fractional = self.positions.double() @ torch.linalg.inv(self.cell.double())
        n_bins = round(q_max / dq)
        sums, counts = reference.shell_sums(fractional, codes, self.cell.double(), len(labels), dq, n_bins)
        return reference.partials(sums, counts, torch.bincount(codes).double()), counts


def system(cell="triclinic", n_atoms=24, labels=(14, 8, 11), seed=0) -> System:
    """Random atoms, up to three cells outside the cell."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.tensor(CELLS[cell] if isinstance(cell, str) else cell, dtype=torch.float64)
    fractional = 4.0 * torch.rand(n_atoms, 3, dtype=torch.float64, generator=generator) - 1.5
    species = torch.tensor([labels[k % len(labels)] for k in range(n_atoms)], dtype=torch.int64)
    return System(fractional @ matrix, matrix, species)


def batch(parts: list[System | None], cell: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Positions, cells, species and offsets of systems behind one another; None is a system without atoms."""
    there = [one for one in parts if one is not None]
    offsets = torch.tensor([0, *(0 if one is None else len(one.species) for one in parts)]).cumsum(0)
    cells = torch.stack([cell if one is None else one.cell for one in parts])
    return torch.cat([one.positions for one in there]), cells, torch.cat([one.species for one in there]), offsets


def assert_same(found: Tensor, wanted: Tensor, bound: float) -> None:
    """Compare values; a bin without vectors must be NaN in both."""
    assert found.shape == wanted.shape
    assert torch.equal(found.isnan(), wanted.isnan())
    difference = (found - wanted).nan_to_num().abs()
    assert float(difference.max()) <= bound, f"{float(difference.max()):.3g} > {bound:.3g}"
