"""What the published layers lack: the same in a supercell, right stress, no jump when waves come and go."""

import itertools
import math

import pytest
import torch
from nn_systems import CASES, ENERGY, MODULES, TOLERANCE, WIDTH, crystal, energy, module, repeated, strained

from rsa_kernels import nn

pytestmark = pytest.mark.usefixtures("one_thread")

SUPERCELLS = [(2, 1, 1), (3, 2, 1), (3, 3, 3)]
COMPONENTS = [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("counts", SUPERCELLS)
@pytest.mark.parametrize(("name", "method"), CASES)
def test_supercell_is_its_cell(name, method, counts):
    positions, cell, _ = crystal()
    layer = module(name, method)
    x = torch.randn(len(positions), WIDTH, dtype=torch.float64)
    copies = math.prod(counts)
    many, super_cell = repeated(positions, cell, counts)
    # Rounding, or what was asked of the grid: its mesh is another one in the supercell.
    bound = TOLERANCE.get(method, 1e-12)
    one, other = (layer(y, r, a) for y, r, a in ((x, positions, cell), (x.repeat(copies, 1), many, super_cell)))
    if name in ENERGY:
        assert relative(other, copies * one) < bound
        return
    one, other = (out.update if isinstance(out, nn.GatedUpdate) else out for out in (one, other))
    assert relative(other, one.repeat(copies, 1)) < bound


@pytest.mark.parametrize("counts", SUPERCELLS)
def test_published_gated_layer_falls_with_the_number_of_copies(counts):
    """The defect of the original, kept for its checkpoints: the update of an atom is divided by the copies."""
    positions, cell, _ = crystal()
    # At r_max = 8 Å the largest supercell has fewer than 1,024 waves, so that only the norm differs.
    layer = nn.ReciprocalSpaceGatedAttention(WIDTH, norm="rsga", r_max=8.0, dtype=torch.float64)
    x = torch.randn(len(positions), WIDTH, dtype=torch.float64)
    copies = math.prod(counts)
    many, super_cell = repeated(positions, cell, counts)
    one, other = layer(x, positions, cell).update, layer(x.repeat(copies, 1), many, super_cell).update
    assert float(one.abs().min()) > 0.0
    assert relative(copies * other, one.repeat(copies, 1)) < 1e-12


def test_published_plain_layer_is_zero_in_four_copies():
    """The defect of the original, kept for its checkpoints: its six waves all miss the period of the crystal."""
    positions = torch.rand(9, 3, dtype=torch.float64) * 10.0
    cell = torch.diag(torch.tensor([12.0, 12.5, 13.0], dtype=torch.float64))
    layer = nn.ReciprocalSpaceAttention(WIDTH, norm="rsa", dtype=torch.float64)
    x = torch.randn(9, WIDTH, dtype=torch.float64)
    one, other = layer(x, positions, cell), layer(x.repeat(4, 1), *repeated(positions, cell, (4, 1, 1)))
    assert float(one.abs().max()) > 1e-2
    assert float(other.abs().max()) < 1e-12


@pytest.mark.parametrize(("name", "method"), CASES)
def test_stress_is_the_strain_derivative(name, method):
    positions, cell, kinds = crystal()
    layer = module(name, method)
    strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(strained(layer, positions, cell, kinds, strain), strain)
    virial = 0.5 * (gradient + gradient.T)
    for row, column in COMPONENTS:
        unit = torch.zeros(3, 3, dtype=torch.float64)
        unit[row, column] += 0.5
        unit[column, row] += 0.5

        def slope(step, unit=unit):
            high, low = (strained(layer, positions, cell, kinds, sign * 0.5 * step * unit) for sign in (1.0, -1.0))
            return (high - low).detach() / step

        # Differences over two steps cancel the error of second order; what is left is some 1e-10 of the virial.
        difference = (4.0 * slope(1e-3) - slope(2e-3)) / 3.0
        assert abs(float(virial[row, column] - difference)) < 1e-7 * float(virial.abs().max())


@pytest.mark.parametrize(("name", "method"), CASES)
def test_forces_are_the_derivative(name, method):
    positions, cell, kinds = crystal()
    layer = module(name, method)
    leaf = positions.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(energy(layer, leaf, cell, kinds), leaf)
    along = torch.randn(positions.shape, dtype=torch.float64)

    def slope(step):
        high, low = (energy(layer, positions + sign * step * along, cell, kinds) for sign in (0.5, -0.5))
        return (high - low).detach() / step

    difference = (4.0 * slope(1e-3) - slope(2e-3)) / 3.0
    assert abs(float((gradient * along).sum() - difference)) < 1e-7 * float(gradient.norm() * along.norm())


@pytest.mark.parametrize(("name", "method"), CASES)
def test_an_atom_moved_by_lattice_vectors_changes_nothing(name, method):
    """Energy, forces and stress; the stress of the published block changes."""
    positions, cell, kinds = crystal()
    layer = module(name, method)
    moved = positions.clone()
    moved[2] += torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64) @ cell

    def observables(r):
        r = r.clone().requires_grad_()
        strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
        value = strained(layer, r, cell, kinds, strain)
        return (value.detach(), *torch.autograd.grad(value, (r, strain)))

    for one, other in zip(observables(positions), observables(moved), strict=True):
        assert relative(other, one) < 1e-12


def deformed(layer, steps):
    """Energy and its derivative along a path of the cell, and the number of waves, at steps + 1 places."""
    positions, cell, kinds = crystal()
    direction = torch.tensor([[0.7, 0.3, -0.2], [-0.1, -0.9, 0.4], [0.5, 0.1, 0.8]], dtype=torch.float64)
    energies, slopes, waves = [], [], []
    for t in torch.linspace(0.0, 0.1, steps + 1, dtype=torch.float64):
        t = t.clone().requires_grad_()
        value = strained(layer, positions, cell, kinds, t * direction)
        energies.append(float(value.detach()))
        slopes.append(float(torch.autograd.grad(value, t)[0]))
        waves.append(layer.modes(cell @ (torch.eye(3, dtype=torch.float64) + float(t) * direction)).n_modes)
    energies, slopes = (torch.tensor(one, dtype=torch.float64) for one in (energies, slopes))
    return energies, slopes, waves


def roughness(values):
    """Largest second difference: falls with the square of the step on a smooth path, stays where it jumps."""
    return float(values.diff(n=2).abs().max())


@pytest.mark.parametrize(
    ("name", "method"),
    [(name, method) for name, method in CASES if method != "grid" or name in ("rsa", "latent ewald")],
)
def test_waves_enter_and_leave_smoothly(name, method):
    layer = module(name, method)
    coarse, fine = deformed(layer, 100), deformed(layer, 200)
    changes = [one - other for one, other in itertools.pairwise(fine[2])]
    assert sum(change > 0 for change in changes) >= 5
    assert sum(change < 0 for change in changes) >= 5
    for quantity in (0, 1):
        # 4 for two continuous derivatives, 2 for a kink, 1 for a jump.
        assert roughness(coarse[quantity]) / roughness(fine[quantity]) > 3.0
    # The energy is the integral of the stress; the trapezoid rule is off by h/12 of the second difference of the slope.
    energies, slopes, _ = fine
    step = 0.1 / 200
    missing = energies.diff() - 0.5 * step * (slopes[1:] + slopes[:-1])
    assert float(missing.abs().max()) < step / 6.0 * roughness(slopes) + 1e-13 * float(energies.abs().max())


@pytest.mark.parametrize("name", MODULES)
def test_a_sharp_cut_jumps(name):
    """Without the window the test above sees every wave that enters: it can fail."""
    layer = module(name, "spectral", window_start=1.0)
    coarse, fine = deformed(layer, 100), deformed(layer, 200)
    for quantity in (0, 1):
        assert roughness(coarse[quantity]) / roughness(fine[quantity]) < 1.5
