"""The particle mesh: against dense sums, against windows differentiated by autograd, and its plan's promise."""

import math

import numpy as np
import pytest
import torch
from native_settings import available_isas, isa, threads

from rsa_kernels.errors import NonFiniteError
from rsa_kernels.reciprocal.grid import GridPlan, GridTransform, Sites, composed, grid_bytes, plan_grid
from rsa_kernels.reciprocal.grid_window import fourier, kaiser_beta, pieces

TWO_PI = 2 * math.pi
F64 = torch.float64


def half_space(extent):
    """Half of the modes in an ellipsoid, the signs of z mixed."""
    n = torch.cartesian_prod(*(torch.arange(-e, e + 1) for e in extent))
    inside = (n / torch.tensor([max(e, 1) for e in extent])).pow(2).sum(1) <= 1.0001
    first = torch.where(n[:, 0] != 0, n[:, 0], torch.where(n[:, 1] != 0, n[:, 1], n[:, 2]))
    return n[inside & (first > 0)].to(torch.int32)


class Dense:
    """The sums themselves, with derivatives by autograd."""

    def __init__(self, fractional, miller):
        self.fractional, self.miller = fractional, miller.to(F64)

    def waves(self, fractional):
        phases = TWO_PI * (fractional @ self.miller.T)
        return phases.cos(), phases.sin()

    def accumulate(self, x):
        cos, sin = self.waves(self.fractional)
        return torch.stack((cos.T @ x, sin.T @ x))

    def gather(self, z, x):
        fractional = self.fractional.clone().requires_grad_()
        cos, sin = self.waves(fractional)
        y = cos @ z[0] + sin @ z[1]
        return y.detach(), torch.autograd.grad((x * y).sum(), fractional)[0]


class Splines:
    """An independent spreading and interpolation: the window as a function of distance, differentiable by torch."""

    def __init__(self, plan):
        self.plan = plan

    def window(self, x):
        plan, h = self.plan, self.plan.order / 2
        x = -x.abs().clamp(max=h)  # the left half, where the truncated powers cancel least
        if plan.window == "spline":  # truncated powers
            p = plan.order
            powers = [(-1) ** k * math.comb(p, k) * (x + h - k).clamp(min=0) ** (p - 1) for k in range(p + 1)]
            return sum(powers) / math.factorial(p - 1)
        # r³ I₃(βr) / (2 h i₃(β)), as its power series in r².
        b = plan.beta
        q = (1 - (x / h) ** 2).clamp(min=0)
        series = sum(
            (b / 2) ** (2 * k + 3) * q ** (k + 3) / (float(math.factorial(k)) * math.factorial(k + 3))
            for k in range(80)
        )
        i3 = (b**3 + 15 * b) * math.cosh(b) / b**4 - (6 * b**2 + 15) * math.sinh(b) / b**4
        return series / (2 * h * i3)

    def weights(self, fractional, axis):
        g = self.plan.mesh[axis]
        distance = fractional[:, axis : axis + 1] * g - torch.arange(g)
        images = range(-4 - self.plan.order // g, 5 + self.plan.order // g)
        return sum(self.window(distance + g * k) for k in images)

    def spread(self, x, fractional):
        wx, wy, wz = (self.weights(fractional, axis) for axis in range(3))
        return torch.einsum("jc,jx,jy,jz->cxyz", x, wx, wy, wz)


def make_plan(order, mesh, window, extent):
    band = max(n / g for n, g in zip(extent, mesh, strict=True))
    return GridPlan(order, mesh, window, kaiser_beta(order, band) if window == "kaiser" else 0.0, 1e-13)


def relative(got, expected):
    return ((got - expected).norm() / expected.norm()).item()


def system(n_atoms, channels, extent, seed=0, dtype=F64):
    generator = torch.Generator().manual_seed(seed)
    fractional = 3 * torch.rand(n_atoms, 3, generator=generator, dtype=F64) - 1
    x = torch.randn(n_atoms, channels, generator=generator, dtype=F64).to(dtype)
    return fractional, half_space(extent), x


CASES = [((6, 7, 5), 1), ((3, 12, 9), 4), ((9, 2, 6), 19)]
PLANS = [
    (5, (16, 14, 18), "kaiser"),
    (8, (20, 16, 24), "kaiser"),
    (11, (30, 16, 20), "kaiser"),
    (4, (16, 14, 18), "spline"),
    (9, (14, 18, 36), "spline"),
    (16, (14, 14, 40), "spline"),
]


@pytest.mark.parametrize("window", ["kaiser", "spline"])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-6, 1e-9, 1e-12])
@pytest.mark.parametrize(("extent", "channels"), CASES)
def test_error_keeps_to_the_tolerance_and_near_the_estimate(one_thread, extent, channels, tolerance, window):
    n_atoms = 300
    if window == "spline" and tolerance == 1e-12:
        with pytest.raises(ValueError, match=r"out of reach .* method 'spectral'"):
            plan_grid(extent, tolerance, n_atoms=n_atoms, window=window)
        return
    plan = plan_grid(extent, tolerance, n_atoms=n_atoms, window=window)
    squares = torch.zeros(3, dtype=F64)
    for seed in range(4):
        fractional, miller, x = system(n_atoms, channels, extent, seed)
        transform, dense = GridTransform(fractional, miller, F64, plan), Dense(fractional, miller)
        # Independent values on both sides: no self-energies in step over the channels.
        left = torch.randn(x.shape, generator=torch.Generator().manual_seed(100 + seed), dtype=F64)
        z, exact = transform.accumulate(x), dense.accumulate(x)
        (y, pull), (y_exact, pull_exact) = transform.gather(transform.field(z), left), dense.gather(exact, left)
        wave = torch.tensor(extent)
        errors = [relative(z, exact), relative(y, y_exact), relative(pull / wave, pull_exact / wave)]
        squares += torch.tensor(errors, dtype=F64) ** 2 / 4
    error = squares.max().sqrt().item()
    assert error <= tolerance
    # The mesh sizes come in steps; the plan is not many times better than it says.
    assert plan.estimated_error / 4 <= error <= plan.estimated_error * 1.25
    assert plan.estimated_error <= tolerance


@pytest.mark.parametrize(("order", "mesh", "window"), PLANS)
@pytest.mark.parametrize("channels", [1, 3, 8, 19])
def test_gather_is_the_transpose_of_accumulate(one_thread, order, mesh, window, channels):
    extent = (5, 4, 6)
    fractional, miller, x = system(150, channels, extent)
    transform = GridTransform(fractional, miller, F64, make_plan(order, mesh, window, extent))
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(2, miller.shape[0], channels, generator=generator, dtype=F64)
    a = torch.randn(150, 3, generator=generator, dtype=F64)
    field = transform.field(z)
    for there, back in (
        (transform.accumulate(x), transform.gather(field)[0]),
        (transform.accumulate_tangent(x, a), transform.gather_tangent(field, a)[0]),
    ):
        left, right = (there * z).sum(), (x * back).sum()
        assert abs(left - right) <= 1e-13 * (there.norm() * z.norm())


@pytest.mark.parametrize(("order", "mesh", "window"), PLANS)
@pytest.mark.parametrize("channels", [1, 9])
def test_values_and_derivatives_against_a_window_differentiated_by_torch(one_thread, order, mesh, window, channels):
    plan = make_plan(order, mesh, window, (5, 4, 6))
    fractional, _, x = system(40, channels, (5, 4, 6))
    generator = torch.Generator().manual_seed(2)
    phi = torch.randn(channels, *mesh, generator=generator, dtype=F64)
    a = torch.randn(40, 3, generator=generator, dtype=F64)
    sites, independent = Sites(fractional, plan), Splines(plan)
    transform = GridTransform(fractional, half_space((5, 4, 6)), F64, plan)
    spread, spread_tangent = transform.mesh_functions.spread, transform.mesh_functions.spread_tangent

    wrapped = fractional - fractional.floor()
    rho, rate = torch.func.jvp(lambda f: independent.spread(x, f), (wrapped,), (a,))
    # The truncated powers and the power series themselves lose three or four digits.
    assert relative(spread(x, sites), rho) < 1e-11
    assert relative(spread_tangent(x, sites, a), rate) < 1e-11

    def outputs(f):
        def y(f):
            wx, wy, wz = (independent.weights(f, axis) for axis in range(3))
            return torch.einsum("cxyz,jx,jy,jz->jc", phi, wx, wy, wz)

        return y(f), torch.func.grad(lambda f: (x * y(f)).sum())(f)

    (y, pull), (dy, dpull) = torch.func.jvp(outputs, (wrapped,), (a,))
    for got, expected in (
        (transform.gather(phi)[0], y),
        (transform.gather(phi, x)[0], y),
        (transform.gather(phi, x)[1], pull),
        (transform.gather_tangent(phi, a)[0], dy),
        (transform.gather_tangent(phi, a, x)[0], dy),
        (transform.gather_tangent(phi, a, x)[1], dpull),
    ):
        assert relative(got, expected) < 1e-10
    assert transform.gather(phi)[1] is None and transform.gather_tangent(phi, a)[1] is None


@pytest.mark.parametrize("window", ["kaiser", "spline"])
def test_derivatives_against_finite_differences(one_thread, window):
    extent, n_atoms, step = (5, 4, 6), 60, 1e-5
    plan = make_plan(7, (16, 14, 18), window, extent)
    fractional, miller, x = system(n_atoms, 5, extent)
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(2, miller.shape[0], 5, generator=generator, dtype=F64)
    a = torch.randn(n_atoms, 3, generator=generator, dtype=F64)
    at = [GridTransform(fractional + s * step * a, miller, F64, plan) for s in (-1, 0, 1)]

    def difference(of):
        return (of(at[2]) - of(at[0])) / (2 * step)

    here, field = at[1], at[1].field(z)
    pull = here.gather(field, x)[1]
    dy, dpull = here.gather_tangent(field, a, x)
    # Central differences: (step k)² relative, with k up to 2π·18·2.
    assert relative(difference(lambda t: t.accumulate(x)), here.accumulate_tangent(x, a)) < 1e-6
    assert relative(difference(lambda t: t.gather(field)[0]), dy) < 1e-6
    assert relative(difference(lambda t: t.gather(field, x)[1]), dpull) < 1e-5
    assert abs(difference(lambda t: (x * t.gather(field)[0]).sum()) / (pull * a).sum() - 1) < 1e-6


@pytest.mark.parametrize("channels", [1, 9])
def test_unwrapped_positions_and_order_of_atoms_change_nothing(one_thread, channels):
    fractional, miller, x = system(100, channels, (5, 4, 6))
    fractional = torch.cat((fractional, torch.tensor([[0.0, 1.0, -1e-20], [1 - 1e-17, 0.5, 2.0]], dtype=F64)))
    x = torch.cat((x, x[:2]))
    plan = plan_grid((5, 4, 6), 1e-6)
    shuffle = torch.randperm(102, generator=torch.Generator().manual_seed(0))
    # Whole cells whose sum with f in [0, 1) is exact to 2⁻⁴⁷.
    moved = fractional + torch.tensor([3.0, -7.0, 20.0], dtype=F64)
    z = GridTransform(fractional, miller, F64, plan).accumulate(x)
    assert relative(GridTransform(moved, miller, F64, plan).accumulate(x), z) < 1e-12
    assert relative(GridTransform(fractional[shuffle], miller, F64, plan).accumulate(x[shuffle]), z) < 1e-14


@pytest.mark.parametrize("extent", [(0, 0, 3), (1, 1, 1), (2, 0, 5)])
def test_meshes_smaller_than_the_window(one_thread, extent):
    fractional, miller, x = system(50, 9, extent)
    plan = plan_grid(extent, 1e-8)
    assert min(plan.mesh) < plan.order
    exact = Dense(fractional, miller).accumulate(x)
    for columns in (x, x[:, :1]):
        got = GridTransform(fractional, miller, F64, plan).accumulate(columns)
        assert relative(got, exact[:, :, : columns.shape[1]]) < 1e-8


def test_plane_of_zero_n_z_and_modes_with_their_opposites(one_thread):
    miller = torch.tensor(
        [[0, 0, 0], [1, 2, 0], [-1, -2, 0], [1, -2, 0], [2, 1, -1], [-2, -1, 1], [0, 0, 2]], dtype=torch.int32
    )
    fractional, _, x = system(30, 2, (2, 2, 2))
    transform, dense = GridTransform(fractional, miller, F64, plan_grid((2, 2, 2), 1e-11)), Dense(fractional, miller)
    z = torch.randn(2, 7, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    assert relative(transform.accumulate(x), dense.accumulate(x)) < 1e-11
    assert relative(transform.gather(transform.field(z), x)[0], dense.gather(z, x)[0]) < 1e-11


@pytest.mark.parametrize("n_atoms", [0, 1])
@pytest.mark.parametrize("channels", [0, 1, 9])
def test_few_atoms_and_no_channels(one_thread, n_atoms, channels):
    fractional, miller, x = system(n_atoms, channels, (3, 3, 3))
    transform, dense = GridTransform(fractional, miller, F64, plan_grid((3, 3, 3), 1e-10)), Dense(fractional, miller)
    exact, z, a = dense.accumulate(x), transform.accumulate(x), torch.ones(n_atoms, 3, dtype=F64)
    assert z.shape == exact.shape and torch.allclose(z, exact, atol=1e-9)
    y, pull = transform.gather(transform.field(exact), x)
    dy, dpull = transform.gather_tangent(transform.field(exact), a, x)
    y_exact, pull_exact = dense.gather(exact, x)
    assert torch.allclose(y, y_exact, atol=1e-7) and torch.allclose(pull, pull_exact, atol=1e-6)
    assert dy.shape == (n_atoms, channels) and dpull.shape == (n_atoms, 3)


def test_non_contiguous_inputs(one_thread):
    fractional, miller, x = system(50, 6, (4, 4, 4))
    plan = plan_grid((4, 4, 4), 1e-6)
    plain = GridTransform(fractional, miller, F64, plan)
    other = GridTransform(fractional.T.contiguous().T, miller.T.contiguous().T, F64, plan)
    a = fractional.flip(0)
    odd_x, odd_a = x.T.contiguous().T, a.T.contiguous().T
    z = plain.accumulate(x)
    odd_z = z.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert torch.equal(other.accumulate(odd_x), z)
    assert torch.equal(other.accumulate_tangent(odd_x, odd_a), plain.accumulate_tangent(x, a))
    field = other.field(odd_z)
    for got, expected in zip(other.gather(field, odd_x), plain.gather(plain.field(z), x), strict=True):
        assert torch.equal(got, expected)
    expanded = x[:, :1].expand(-1, 6)
    assert torch.equal(plain.accumulate(expanded), plain.accumulate(expanded.contiguous()))


@pytest.mark.parametrize("channels", [1, 3, 7, 16, 35])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_threads_change_no_bit(channels, dtype):
    fractional, miller, x = system(5000, channels, (12, 11, 10), dtype=dtype)
    fractional[:2000] *= 0.1  # crowded bricks
    a = fractional.flip(0).contiguous()
    plan = plan_grid((12, 11, 10), 1e-5, dtype)

    def results():
        transform = GridTransform(fractional, miller, dtype, plan)
        field = transform.field(transform.accumulate(x))
        spread, tangent = transform.mesh_functions.spread, transform.mesh_functions.spread_tangent
        outputs = (spread(x, transform.sites), tangent(x, transform.sites, a))
        return *outputs, *transform.gather(field, x), *transform.gather_tangent(field, a, x)

    found = []
    for count in (1, 2, 5):
        with threads(count):
            found.append(results())
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other, strict=True))


@pytest.mark.parametrize("name", available_isas())
@pytest.mark.parametrize("channels", [1, 9])
def test_instruction_sets_agree(one_thread, name, channels):
    fractional, miller, x = system(300, channels, (5, 4, 6))
    plan = plan_grid((5, 4, 6), 1e-8)
    a = fractional.flip(0).contiguous()

    def results():
        transform = GridTransform(fractional, miller, F64, plan)
        field = transform.field(transform.accumulate(x))
        return *transform.gather(field, x), *transform.gather_tangent(field, a, x), transform.accumulate_tangent(x, a)

    expected = results()
    with isa(name):
        for got, want in zip(results(), expected, strict=True):
            assert relative(got, want) < 1e-13


@pytest.mark.parametrize("channels", [1, 4, 16])
def test_float32_follows_float64(one_thread, channels):
    extent, n_atoms = (9, 8, 10), 4000
    fractional, miller, x = system(n_atoms, channels, extent, dtype=torch.float32)
    plan = plan_grid(extent, 2e-6, torch.float32, n_atoms=n_atoms)
    single, double = (GridTransform(fractional, miller, dtype, plan) for dtype in (torch.float32, F64))
    a = fractional.flip(0)
    z, expected = single.accumulate(x), double.accumulate(x.double())
    assert z.dtype == torch.float32
    # Rounding 6e-8, some terms deep, amplified at the edge of the band by the deconvolution.
    assert relative(z, expected) < 1e-6
    assert relative(single.accumulate_tangent(x, a), double.accumulate_tangent(x.double(), a)) < 1e-6
    field, field64 = single.field(expected.float()), double.field(expected.float().double())
    for got, want in zip(
        (*single.gather(field, x), *single.gather_tangent(field, a, x)),
        (*double.gather(field64, x.double()), *double.gather_tangent(field64, a, x.double())),
        strict=True,
    ):
        assert relative(got, want) < 1e-6
    assert single.gather(field, x)[1].dtype == F64


@pytest.mark.parametrize("channels", [1, 9])
def test_outputs_are_written_whole(one_thread, channels, monkeypatch):
    fractional, miller, x = system(70, channels, (5, 4, 6))
    plan, a = plan_grid((5, 4, 6), 1e-6), fractional.flip(0)

    def results():
        transform = GridTransform(fractional, miller, F64, plan)
        z = transform.accumulate(x)
        field = transform.field(z)
        return (
            z,
            *transform.gather(field, x),
            *transform.gather_tangent(field, a, x),
            transform.accumulate_tangent(x, a),
        )

    expected = results()
    empty = torch.empty

    def poisoned(*args, **kwargs):
        out = empty(*args, **kwargs)
        return out.fill_(math.nan if out.is_floating_point() else -(2**31))

    monkeypatch.setattr(torch, "empty", poisoned)
    assert all(torch.equal(one, two) for one, two in zip(results(), expected, strict=True))


@pytest.mark.parametrize("channels", [1, 9])
def test_functions_composed_of_axis_derivatives(one_thread, channels):
    """The CUDA path, on a backend in torch."""
    plan = make_plan(6, (16, 14, 18), "spline", (5, 4, 6))
    fractional, _, x = system(30, channels, (5, 4, 6))
    phi = torch.randn(channels, *plan.mesh, generator=torch.Generator().manual_seed(0), dtype=F64)
    a = torch.randn(30, 3, generator=torch.Generator().manual_seed(1), dtype=F64)
    independent = Splines(plan)

    class Backend:
        @staticmethod
        def weights(fractional, derivative):
            for axis, times in enumerate(derivative):
                weights = lambda f, axis=axis: independent.weights(f, axis)  # noqa: E731
                along = torch.zeros_like(fractional)
                along[:, axis] = 1
                for _ in range(times):
                    weights = lambda f, inner=weights, along=along: torch.func.jvp(inner, (f,), (along,))[1]  # noqa: E731
                yield weights(fractional)

        @classmethod
        def spread(cls, x, fractional, mesh, order, derivative=(0, 0, 0), table=None):
            assert (mesh, order) == (plan.mesh, plan.order) and np.array_equal(table, plan.table())
            return torch.einsum("jc,jx,jy,jz->cxyz", x, *cls.weights(fractional, derivative))

        @classmethod
        def interpolate(cls, phi, fractional, order, derivative=(0, 0, 0), table=None):
            assert order == plan.order and np.array_equal(table, plan.table())
            return torch.einsum("cxyz,jx,jy,jz->jc", phi, *cls.weights(fractional, derivative))

        @classmethod
        def interpolate_with_pull(cls, phi, x, fractional, order, table=None):
            slopes = [cls.interpolate(phi, fractional, order, tuple(row), table) for row in np.eye(3, dtype=int)]
            pull = torch.stack([(x * slope).sum(1) for slope in slopes], dim=1)
            return cls.interpolate(phi, fractional, order, table=table), pull

    sites = Sites(fractional, plan)
    native = GridTransform(fractional, half_space((5, 4, 6)), F64, plan).mesh_functions
    built = composed(Backend)
    pairs = [
        (built.spread(x, sites), native.spread(x, sites)),
        (built.spread_tangent(x, sites, a), native.spread_tangent(x, sites, a)),
        *zip(built.interpolate(phi, sites, x), native.interpolate(phi, sites, x), strict=True),
        *zip(built.interpolate_tangent(phi, sites, a, x), native.interpolate_tangent(phi, sites, a, x), strict=True),
    ]
    for got, expected in pairs:
        assert relative(got, expected) < 1e-10


@pytest.mark.parametrize("window", ["kaiser", "spline"])
@pytest.mark.parametrize("order", [4, 5, 8, 13, 16])
def test_pieces_have_the_window_s_transform_and_join_smoothly(window, order):
    beta = kaiser_beta(order, 0.3)
    table = pieces(window, order, beta, 1e-15)
    place, weight = np.polynomial.legendre.leggauss(30)
    xi = np.linspace(0, 2.3, 11)
    got = np.zeros_like(xi)
    for point in range(order):
        x = place / 2 + order / 2 - point - 0.5
        values = np.polynomial.polynomial.polyval(place / 2, table[:, point])
        got += np.cos(2 * np.pi * xi[:, None] * x) @ (weight / 2 * values)
    assert np.abs(got - fourier(window, order, beta, xi)).max() < 1e-13
    for derivative in range(3):
        ends = [
            np.polynomial.polynomial.polyval(s, np.polynomial.polynomial.polyder(table[:, :order], derivative))
            for s in (-0.5, 0.5)
        ]
        assert np.abs(ends[0][:-1] - ends[1][1:]).max() < 1e-14
        if order > 4 or window == "kaiser":
            assert abs(ends[0][-1]) < 1e-14 and abs(ends[1][0]) < 1e-14


def test_plan_grows_with_the_demand():
    plans = [plan_grid((20, 20, 20), tolerance) for tolerance in (1e-2, 1e-4, 1e-6, 1e-8, 1e-10)]
    costs = [plan.order**3 * 30000 + math.prod(plan.mesh) for plan in plans]
    assert costs == sorted(costs)
    assert all(g >= 2 * 20 + 2 for plan in plans for g in plan.mesh)
    assert grid_bytes(plans[0], 5, F64) > 5 * 8 * math.prod(plans[0].mesh)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (((3, 3), 1e-4), ValueError, "`miller_extent`"),
        (((3, 3, -1), 1e-4), ValueError, "`miller_extent`"),
        (((3, 3, 3), 0.0), ValueError, "`tolerance`"),
        (((3, 3, 3), 1e-15), ValueError, "out of reach"),
        (((3, 3, 3), 1e-9, torch.float32), ValueError, "use float64"),
        (((3, 3, 3), 1e-4, torch.float16), TypeError, "`dtype`"),
    ],
)
def test_refusals_of_the_plan(arguments, error, message):
    with pytest.raises(error, match=message):
        plan_grid(*arguments)


def test_refusals():
    plan = plan_grid((3, 3, 3), 1e-4)
    fractional, miller, _ = system(5, 1, (3, 3, 3))
    with pytest.raises(ValueError, match="`window`"):
        plan_grid((3, 3, 3), 1e-4, window="gauss")
    with pytest.raises(ValueError, match=r"`miller` reaches beyond the mesh"):
        GridTransform(fractional, miller * 10, F64, plan)
    with pytest.raises(TypeError, match="`dtype`"):
        GridTransform(fractional, miller, torch.float16, plan)
    for bad in (math.nan, math.inf):
        fractional[2, 1] = bad
        with pytest.raises(NonFiniteError, match="`fractional`"):
            GridTransform(fractional, miller, F64, plan)
