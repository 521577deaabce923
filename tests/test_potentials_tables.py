"""The tables that run in place of the analytic functions: interpolation error over the whole used range."""

import pytest
import torch

import rsa_kernels as rk
from silica_md import potentials

COMPOSITIONS = {
    "shik": [14] * 8 + [11] * 4 + [8] * 18,
    "bks": [14, 8, 8],
    "pmmcs": [14, 11, 11, 8, 8, 8],
    "liu2019": [14, 8, 8],
}
CASES = [
    (name, pair) for name, numbers in COMPOSITIONS.items() for pair in sorted(potentials.build(name, numbers).functions)
]


@pytest.fixture(scope="module")
def built():
    return {name: potentials.build(name, numbers) for name, numbers in COMPOSITIONS.items()}


def through_the_kernel(potential, pair, r):
    """Energy and force of a pair at each distance: dimers along x, out of each other's reach along y."""
    n = r.numel()
    positions = torch.zeros(2 * n, 3, dtype=torch.float64)
    positions[::2, 1] = positions[1::2, 1] = 1.5 * potential.cutoff * torch.arange(n, dtype=torch.float64)
    positions[1::2, 0] = r
    numbers = torch.tensor(pair).repeat(n)
    cell = torch.zeros(3, 3, dtype=torch.float64)
    neighbors = rk.neighbor_list(positions, cell, False, potential.cutoff)
    result = rk.pair.evaluate(potential.table, positions, cell, numbers, neighbors, virial=False, per_atom_energy=True)
    return result.per_atom_energy.view(n, 2).sum(dim=1), result.forces[1::2, 0]


@pytest.mark.parametrize("name, pair", CASES)
def test_interpolation_error(built, name, pair):
    potential = built[name]
    generator = torch.Generator().manual_seed(0)
    spread = torch.rand(20000, generator=generator, dtype=torch.float64)
    span = potential.cutoff - potential.r_min
    near = [potential.cutoff - span * 0.05 * spread[:5000] ** 3]  # where cutoffs bend
    if name == "shik":
        near.append(8.0 - 0.4 * (spread[5000:10000] - 0.2))
    r = torch.cat([potential.r_min + span * spread, *near])
    r = r[(r > potential.r_min + 1e-9) & (r < potential.cutoff - 1e-9)].requires_grad_()
    energy = potential.functions[pair](r)
    (slope,) = torch.autograd.grad(energy.sum(), r)
    got_energy, got_force = through_the_kernel(potential, pair, r.detach())
    energy_error = (got_energy - energy).abs() / energy.abs().clamp(min=1e-3)
    force_error = (got_force + slope).abs() / slope.abs().clamp(min=1e-3)
    assert float(energy_error.detach().max()) < 1e-7
    assert float(force_error.detach().max()) < 1e-7


@pytest.mark.parametrize("name", sorted(COMPOSITIONS))
def test_nothing_beyond_the_cutoff(built, name):
    potential = built[name]
    r = torch.tensor([potential.cutoff, potential.cutoff + 1e-6, potential.cutoff + 1.0], dtype=torch.float64)
    for pair in potential.functions:
        energy, force = through_the_kernel(potential, pair, r)
        assert not energy.any() and not force.any()
