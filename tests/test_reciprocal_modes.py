"""Waves of a cell: complete half spaces, weights and their derivatives, windows, spectra, boxes around molecules."""

import itertools
import math

import pytest
import torch
from reciprocal_systems import K_CUT, SINGLE, TRICLINIC, assert_near, spectrum

import rsa_kernels as rk
from rsa_kernels.reciprocal import padded_cell, spectra
from rsa_kernels.reciprocal.modes import half_space, window

pytestmark = pytest.mark.usefixtures("one_thread")


def vectors(modes, cell, low=0, high=None):
    """k = 2π n A⁻ᵀ of one system."""
    return 2.0 * math.pi * torch.linalg.solve(cell.double(), modes.miller[low:high].double().T).T


def random_cells():
    """Cells of all kinds: random, sheared far, needles and plates, left-handed."""
    generator = torch.Generator().manual_seed(11)
    cells = [4.0 * torch.randn(3, 3, dtype=torch.float64, generator=generator) for _ in range(12)]
    cells = [cell for cell in cells if float(torch.linalg.det(cell).abs()) > 5.0]
    shapes = ([3.0, 3.0, 40.0], [25.0, 3.0, 25.0], [5.0, 5.0, 5.0])
    cells += [torch.diag(torch.tensor(shape, dtype=torch.float64)) for shape in shapes]
    sheared = torch.tensor([[5.0, 0, 0], [24.0, 6.0, 0], [-13.0, 31.0, 4.0]], dtype=torch.float64)
    return [*cells, sheared, torch.tensor(TRICLINIC, dtype=torch.float64)]


CELLS = random_cells()


# --- which waves ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(CELLS)))
@pytest.mark.parametrize("k_cut", [0.7, 2.3])
def test_half_spaces_are_complete(number, k_cut):
    """Against every triplet of a box with room to spare: one of each ±n with |k| < k_cut, and nothing else."""
    cell = CELLS[number]
    modes = rk.reciprocal_modes(cell, k_cut, spectrum)
    reach = [math.ceil(k_cut * float(row.norm()) / (2.0 * math.pi)) + 2 for row in cell]
    wanted = set()
    for a in range(-reach[0], reach[0] + 1):
        n = torch.cartesian_prod(torch.tensor([a]), *(torch.arange(-one, one + 1) for one in reach[1:]))
        inside = (2.0 * math.pi * torch.linalg.solve(cell, n.double().T).T).norm(dim=1) < k_cut
        wanted |= set(map(tuple, n[inside].tolist()))
    wanted.discard((0, 0, 0))
    found = list(map(tuple, modes.miller.tolist()))
    minus = [tuple(-one for one in n) for n in found]
    assert len(set(found)) == len(found) and set(found).isdisjoint(minus)
    assert set(found) | set(minus) == wanted
    for n in found:
        assert next(one for one in n if one) > 0
    lengths = vectors(modes, cell).norm(dim=1)
    assert bool((lengths.diff() >= -1e-12).all())
    assert modes.miller.dtype == torch.int32 and modes.mode_ptr.tolist() == [0, len(found)] and modes.k_cut == k_cut


def test_as_many_waves_as_the_sphere_holds():
    """Near V k_cut³ / 12π²: what the docs say, and the same density of waves for a cell of any size."""
    for size in (20.0, 30.0):
        cell = size / 5.5 * torch.tensor(TRICLINIC, dtype=torch.float64)
        expected = float(rk.cells.volume(cell)) * 2.5**3 / (12.0 * math.pi**2)
        assert rk.reciprocal_modes(cell, 2.5, spectrum).n_modes == pytest.approx(expected, rel=0.03)


def test_waves_of_a_batch_are_those_of_its_cells():
    cells = torch.stack([SINGLE[name].cell for name in ("triclinic", "no waves", "orthorhombic", "left-handed")])
    together = rk.reciprocal_modes(cells, K_CUT, spectrum)
    assert together.n_systems == 4 and "4 cells" in repr(together)
    for index, (low, high) in enumerate(itertools.pairwise(together.mode_ptr.tolist())):
        one = rk.reciprocal_modes(cells[index], K_CUT, spectrum)
        assert torch.equal(together.miller[low:high], one.miller)
        torch.testing.assert_close(together.weights[low:high], one.weights, rtol=1e-14, atol=0)
    assert len(set(together.mode_ptr.diff().tolist())) == 4 and 0 in together.mode_ptr.diff()


def test_none_at_all():
    modes = rk.reciprocal_modes(2.0 * torch.eye(3), 3.0, spectrum)
    assert modes.n_modes == 0 and modes.miller.shape == (0, 3) and modes.weights.shape == (0,)
    assert modes.miller.dtype == torch.int32 and modes.weights.dtype == torch.float64


def test_float32_cells_are_taken_as_they_are():
    cell = torch.tensor(TRICLINIC, dtype=torch.float32)
    single, double = (rk.reciprocal_modes(one, K_CUT, spectrum) for one in (cell, cell.double()))
    assert torch.equal(single.miller, double.miller) and torch.equal(single.weights, double.weights)


def test_the_cell_itself_and_a_strided_one_give_the_same():
    cell = torch.tensor(TRICLINIC, dtype=torch.float64)
    strided = cell.T.contiguous().T
    one, other = (rk.reciprocal_modes(x, K_CUT, spectrum) for x in (cell, strided))
    assert torch.equal(one.miller, other.miller) and torch.equal(one.weights, other.weights)
    assert torch.equal(half_space(cell, K_CUT), one.miller)


# --- weights -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0.3, 0.8, 1.0])
def test_weights_are_spectrum_times_window_over_volume(start):
    cell = CELLS[0]
    modes = rk.reciprocal_modes(cell, 2.0, spectrum, window_start=start)
    a, b, c = cell
    volume = float(torch.dot(a, torch.linalg.cross(b, c)).abs())
    for k, weight in zip(vectors(modes, cell).norm(dim=1).tolist(), modes.weights.tolist(), strict=True):
        t = max(0.0, (k / 2.0 - start) / (1.0 - start)) if start < 1.0 else 0.0
        # 1 − 10 t³ + 15 t⁴ − 6 t⁵: the one polynomial of fifth order with both ends flat to the second derivative.
        wanted = (
            float(spectrum(torch.tensor(k, dtype=torch.float64)))
            * (1.0 - 10.0 * t**3 + 15.0 * t**4 - 6.0 * t**5)
            / volume
        )
        assert weight == pytest.approx(wanted, rel=1e-11, abs=1e-15)


@pytest.mark.parametrize("start", [0.1, 0.5, 0.8])
def test_window_is_continuous_to_the_second_derivative(start):
    """By one-sided differences at both ends: value, slope and curvature agree with those outside; it falls between."""
    x = torch.linspace(0.0, 1.2, 1201, dtype=torch.float64)
    w = window(x, start)
    assert bool((w.diff() <= 0).all()) and bool((w[x <= start] == 1).all()) and bool((w[x >= 1] == 0).all())
    h = 1e-4 * (1.0 - start)
    for end, inside, outside in ((start, 1.0, 1.0), (1.0, -1.0, 0.0)):
        near = window(end + inside * h * torch.arange(4, dtype=torch.float64), start)
        assert float(near[0]) == outside
        slope, curvature = (near[1] - near[0]) / h, (near[2] - 2.0 * near[1] + near[0]) / h**2
        # W''' is ±60 / (1 − start)³: the slope is of order h², the curvature of order h.
        assert abs(float(slope)) <= 60.0 * h**2 / (1.0 - start) ** 3
        assert abs(float(curvature)) <= 100.0 * h / (1.0 - start) ** 3


def test_window_derivatives_are_continuous_for_autograd():
    """First and second derivatives by autograd vanish at both ends, and equal finite differences between."""
    for value in (0.8, 1.0, 0.5, 1.3):
        x = torch.tensor(value, dtype=torch.float64, requires_grad=True)
        (first,) = torch.autograd.grad(window(x, 0.8), x, create_graph=True)
        (second,) = torch.autograd.grad(first, x)
        assert abs(float(first)) < 1e-12 and abs(float(second)) < 1e-10
    x = torch.linspace(0.81, 0.99, 7, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: window(x, 0.8), x)
    assert torch.autograd.gradgradcheck(lambda x: window(x, 0.8), x)


@pytest.mark.parametrize("names", [["triclinic"], ["triclinic", "no waves", "left-handed"]], ids=["one", "batch"])
@pytest.mark.parametrize("of", [spectrum, spectra.ewald(0.9), spectra.constant(2.0)], ids=["own", "ewald", "constant"])
def test_weights_are_differentiable_in_the_cell(names, of):
    """Through |k|, window and volume; no two waves are as long as one another here, so that none change places."""

    def weights(cell):
        return rk.reciprocal_modes(cell, 1.9, of).weights

    cell = torch.stack([SINGLE[name].cell for name in names]).requires_grad_()
    assert torch.autograd.gradcheck(weights, cell)
    assert torch.autograd.gradgradcheck(weights, cell, fast_mode=len(names) > 1)


def test_weights_have_the_symmetry_of_the_lattice():
    """Rotated cells and other choices of the same lattice have the same weights; an n-fold supercell has w/n."""
    cell = torch.tensor(TRICLINIC, dtype=torch.float64)
    wanted = rk.reciprocal_modes(cell, 3.0, spectrum).weights.sort().values
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    change = torch.tensor([[1.0, 0, 0], [-2, 1, 3], [0, 0, 1]], dtype=torch.float64)
    for other in (cell @ turn, change @ cell):
        assert_near(rk.reciprocal_modes(other, 3.0, spectrum).weights.sort().values, wanted, 1e-12)
    repeats = torch.tensor([2, 3, 1])
    big = rk.reciprocal_modes(repeats[:, None] * cell, 3.0, spectrum)
    shared = (big.miller % repeats == 0).all(dim=1)
    assert_near(6.0 * big.weights[shared].sort().values, wanted, 1e-12)


# --- spectra -------------------------------------------------------------------------------------------------------


def test_spectra_are_the_formulas_of_their_papers():
    k = torch.tensor([0.1, 0.7, 1.9, 4.0], dtype=torch.float64)
    sigma = 0.8
    gauss = torch.exp(-(sigma**2) * k**2 / 2.0) / k**2
    torch.testing.assert_close(spectra.gaussian(sigma)(k), gauss, rtol=1e-14, atol=0)
    torch.testing.assert_close(spectra.ewald(sigma)(k), 4.0 * math.pi * gauss, rtol=1e-14, atol=0)
    assert spectra.constant()(k).tolist() == [1.0] * 4 and spectra.constant(0.3)(k).tolist() == [0.3] * 4
    amplitudes, logs = torch.tensor([1.0, -0.4]), torch.tensor([-0.5, 1.0])
    wanted = torch.exp(-(k**2) * math.exp(-1.0)) - 0.4 * torch.exp(-(k**2) * math.exp(2.0))
    found = spectra.sum_of_gaussians(amplitudes, logs)(k)
    torch.testing.assert_close(found, wanted, rtol=1e-7, atol=0)  # parameters in float32
    assert found.dtype == torch.float64


def test_ewald_is_the_transform_of_its_real_space_form():
    """w(k) = ∫ erf(r/√2σ)/r e^{ik·r} d³r: the wave part of 1/r, of which erfc(r/√2σ)/r is the rest."""
    sigma, k = 0.9, 0.6
    r = torch.linspace(0.0, 12.0, 400001, dtype=torch.float64)[1:]
    # 4π/k² is the transform of 1/r; that of the short-ranged rest is a plain integral.
    rest = torch.trapezoid(4.0 * math.pi * torch.erfc(r / (math.sqrt(2.0) * sigma)) * torch.sin(k * r) / k, r)
    wanted = 4.0 * math.pi / k**2 - float(rest)
    assert float(spectra.ewald(sigma)(torch.tensor(k, dtype=torch.float64))) == pytest.approx(wanted, rel=1e-8)


def test_any_callable_is_a_spectrum():
    """A class, a network, float32 inside: what it returns is taken in float64, with gradients to its parameters."""

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layers = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.SiLU(), torch.nn.Linear(4, 1))

        def forward(self, k):
            return self.layers(k.float()[:, None])[:, 0]

    net = Net()
    modes = SINGLE["triclinic"].modes(spectrum=net)
    assert modes.weights.dtype == torch.float64
    modes.weights.square().sum().backward()
    assert all(bool((p.grad != 0).any()) for p in net.parameters())


def test_learnable_widths_of_ewald():
    sigma = torch.tensor(0.9, requires_grad=True)
    modes = SINGLE["triclinic"].modes(spectrum=spectra.ewald(sigma))
    (grad,) = torch.autograd.grad(modes.weights.sum(), sigma)
    step = 1e-3
    high, low = (SINGLE["triclinic"].modes(spectrum=spectra.ewald(0.9 + s)).weights.sum() for s in (step, -step))
    assert float(grad) == pytest.approx(float(high - low) / (2.0 * step), rel=1e-4)


# --- a molecule in vacuum ------------------------------------------------------------------------------------------


def test_padded_boxes_of_a_molecule_converge():
    """The energy of Gaussian charges nears that of the bare molecule as 1/L³, the law the docs state for a dipole."""
    positions = torch.tensor([[0.0, 0, 0], [1.6, 0.3, -0.2], [-0.5, 1.4, 0.8]], dtype=torch.float64)
    charges = torch.tensor([1.0, -0.7, -0.3], dtype=torch.float64)
    sigma = 0.8
    apart = (positions[:, None] - positions[None]).norm(dim=2)
    bare = torch.erf(apart / (math.sqrt(2.0) * sigma)) / apart
    bare.fill_diagonal_(math.sqrt(2.0 / math.pi) / sigma)
    wanted = 0.5 * float(charges @ bare @ charges)
    ones = torch.ones(3, 1, 1, dtype=torch.float64)
    errors = []
    for padding in (8.0, 16.0, 32.0):
        cell = padded_cell(positions, padding)
        extent = positions.amax(dim=0) - positions.amin(dim=0)
        torch.testing.assert_close(cell, torch.diag(extent + padding))
        modes = rk.reciprocal_modes(cell, 6.5 / sigma, spectra.ewald(sigma), window_start=1.0)
        u = rk.reciprocal_attention(ones, ones, charges[:, None, None], positions, cell, modes, method="pairwise")
        errors.append(abs(0.5 * float(charges @ u[:, 0, 0]) - wanted))
    lengths = [padding + 1.6 for padding in (8.0, 16.0, 32.0)]
    for (large, small), (short, long) in zip(itertools.pairwise(errors), itertools.pairwise(lengths), strict=True):
        assert 0.6 < large / small / (long / short) ** 3 < 1.7
    assert errors[-1] < 1e-3 * abs(wanted)


def test_padded_boxes_take_flat_molecules_and_single_atoms():
    atom = torch.tensor([[3.0, -2.0, 1.0]])
    assert torch.equal(padded_cell(atom, 7.0), 7.0 * torch.eye(3))
    flat = torch.tensor([[0.0, 0, 0], [1.0, 2.0, 0.0]], dtype=torch.float64, requires_grad=True)
    assert padded_cell(flat).diagonal().tolist() == [11.0, 12.0, 10.0] and not padded_cell(flat).requires_grad
