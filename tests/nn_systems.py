"""A small triclinic crystal, its supercells, and an energy of each layer in which everything depends on positions."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from rsa_kernels import nn

WIDTH = 8
K_CUT = 4.0
"""1/Å: some hundred waves, many of them in the window, none with a negligible weight at σ = 0.5 Å."""
SIGMA = 0.5
ATTENTION = ("rsa", "rsga", "rsga heads")
ENERGY = ("sum of gaussians", "latent ewald")
MODULES = (*ATTENTION, *ENERGY)
TOLERANCE = {"grid": 1e-10}
"""Of the grid; the other methods are exact."""


def methods(name: str) -> tuple[str, ...]:
    return ("spectral", "grid") if name in ENERGY else ("pairwise", "spectral", "grid")


CASES = [(name, method) for name in MODULES for method in methods(name)]


def module(name: str, method: str = "auto", *, dtype=torch.float64, seed: int = 0, **settings) -> torch.nn.Module:
    """A layer with random parameters, gates included."""
    torch.manual_seed(seed)
    settings = {"k_cut": K_CUT, "method": method, "tolerance": TOLERANCE.get(method, 1e-5), **settings}
    if name == "rsa":
        layer = nn.ReciprocalSpaceAttention(WIDTH, sigma=SIGMA, dtype=dtype, **settings)
    elif name == "rsga":
        layer = nn.ReciprocalSpaceGatedAttention(WIDTH, sigma=SIGMA, dtype=dtype, **settings)
    elif name == "rsga heads":
        layer = nn.ReciprocalSpaceGatedAttention(WIDTH, 12, heads=3, sigma=SIGMA, dtype=dtype, **settings)
    elif name == "sum of gaussians":
        layer = nn.SumOfGaussians(n_terms=4, dtype=dtype, **settings)
    else:
        layer = nn.LatentEwald(SIGMA, subtract_self=True, **settings)
    randomize(layer)
    return layer


def randomize(layer: torch.nn.Module) -> None:
    """Take gates off their starting values, at which they hide the features."""
    with torch.no_grad():
        for one in layer.parameters():
            one.add_(0.3 * torch.randn(one.shape, dtype=torch.float64).to(one.dtype))


def crystal(n_atoms: int = 6, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Positions, triclinic cell, and a feature of every atom that does not depend on positions, (n_atoms, 3)."""
    generator = torch.Generator().manual_seed(seed)
    cell = torch.tensor([[6.1, 0.2, -0.3], [1.3, 5.7, 0.4], [-0.9, 0.8, 6.6]], dtype=torch.float64)
    fractional = torch.rand(n_atoms, 3, dtype=torch.float64, generator=generator)
    kinds = torch.randn(n_atoms, 3, dtype=torch.float64, generator=generator)
    return fractional @ cell, cell, kinds


def repeated(positions: Tensor, cell: Tensor, counts: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Supercell; atom i of copy c is at c · n_atoms + i."""
    shifts = torch.tensor(list(itertools.product(*map(range, counts))), dtype=cell.dtype) @ cell
    return (shifts.unsqueeze(1) + positions).reshape(-1, 3), torch.tensor(counts, dtype=cell.dtype).unsqueeze(1) * cell


def descriptors(positions: Tensor, cell: Tensor, kinds: Tensor) -> Tensor:
    """Invariants of the neighbourhood of every atom, (n_atoms, WIDTH), smooth and periodic.

    Gaussians of the distances to the 27 nearest images; the images left out are farther than 8 Å, where the widest
    is 1e-14.
    """
    images = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=3)), dtype=cell.dtype)
    apart = (positions.unsqueeze(1) - positions) @ torch.linalg.inv(cell)
    apart = (apart - apart.detach().round()).unsqueeze(2) + images
    squared = (apart @ cell).square().sum(-1)
    widths = torch.tensor([0.6, 0.8, 1.0], dtype=cell.dtype)
    shells = torch.exp(-0.5 * squared.unsqueeze(-1) / widths**2).sum(2)
    shells = torch.einsum("ijw,js->iws", shells, kinds).flatten(1)
    mixed = torch.sin(torch.arange(shells.shape[1] * WIDTH, dtype=cell.dtype)).view(-1, WIDTH)
    return torch.tanh(shells @ mixed)


def energy(layer: torch.nn.Module, positions: Tensor, cell: Tensor, kinds: Tensor, modes=None) -> Tensor:
    """An energy to which every output of a layer contributes; features depend on positions and cell."""
    x = descriptors(positions, cell, kinds)
    dtype = next(iter(layer.parameters()), x).dtype
    if isinstance(layer, nn.LatentEwald | nn.SumOfGaussians):
        return layer(x[:, :2].to(dtype), positions, cell, modes=modes).sum()
    out = layer(x.to(dtype), positions, cell, modes=modes)
    update, gate = out if isinstance(out, nn.GatedUpdate) else (out, 1.0)
    readout = torch.cos(torch.arange(update.shape[1], dtype=update.dtype))
    return ((gate * update).tanh() @ readout).sum()


def strained(layer, positions, cell, kinds, strain: Tensor) -> Tensor:
    """Energy of the crystal whose positions and cell are strained together."""
    deformation = torch.eye(3, dtype=cell.dtype) + strain
    return energy(layer, positions @ deformation, cell @ deformation, kinds)
