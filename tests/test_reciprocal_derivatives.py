"""Derivatives of reciprocal-space attention: finite differences, autograd through the definition, composed, compiled.

The definition is plain torch, so exact methods agree with it to rounding in every derivative. The grid computes the
derivatives of its own approximate sum exactly: finite differences of itself bound its rounding, not its tolerance.
"""

import itertools

import pytest
import torch
from reciprocal_systems import (
    D_V,
    EXACT,
    HEADS,
    METHODS,
    SINGLE,
    SYSTEMS,
    TOLERANCE,
    TRICLINIC,
    WAVES,
    D,
    System,
    assert_near,
    bound_of,
    cut_small,
    fractional,
    spectrum,
    strained,
    system_of,
)
from torch._dynamo.testing import CompileCounterWithBackend
from torch.fx.experimental.proxy_tensor import make_fx

import rsa_kernels as rk
from rsa_kernels.errors import DerivativeNotProvidedError
from rsa_kernels.reciprocal import spectra

pytestmark = pytest.mark.usefixtures("one_thread")

OPS = torch.ops.rsa_kernels
SMALL = System(SINGLE["triclinic"].positions[:4], SINGLE["triclinic"].cell, k_cut=1.75)
SHAPE = (2, 2, 3)


def random(*shapes, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype) for shape in shapes]


def op_inputs(system, shape=SHAPE, dtype=torch.float64, grad=True):
    """Leaves of the three ops by name, and their other arguments; weights are leaves of their own."""
    modes = system.modes()
    q, k, v = system.leaves(shape, dtype)
    (states,) = random((2, modes.n_modes, *shape), seed=1, dtype=dtype)
    where = fractional(system.positions, system.cell, system.offsets)
    named = {"q": q, "k": k, "v": v, "s": states, "f": where, "w": modes.weights.detach().clone()}
    return (
        {name: x.detach().clone().requires_grad_(grad) for name, x in named.items()},
        (system.offsets, modes.mode_ptr),
        modes.miller,
    )


def op_of(name, system, method, **options):
    """Return an op as a function of its differentiable inputs, and those inputs."""
    inputs, pointers, miller = op_inputs(system, **options)
    names = {"reciprocal_attention": "qkvfnw", "accumulate_modes": "kvfn", "gather_modes": "qsfnw"}[name]
    leaves = [inputs[one] for one in names if one != "n"]

    def function(*values):
        values = iter(values)
        arguments = [miller if one == "n" else next(values) for one in names]
        return getattr(OPS, name)(*arguments, *pointers, method, TOLERANCE[leaves[0].dtype], 0)

    return function, leaves


CASES = [
    ("reciprocal_attention", "pairwise"),
    *[(op, method) for op in ("reciprocal_attention", "accumulate_modes", "gather_modes") for method in WAVES],
]


# --- first and second order ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("op", "method"), CASES)
@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut small"])
def test_gradcheck_and_gradgradcheck(op, method, cut, monkeypatch):
    """Finite differences of the op itself, in all inputs, with torch's step and tolerances; exact for the grid, too."""
    if cut:
        cut_small(monkeypatch)
    function, leaves = op_of(op, SMALL, method, shape=(2, 1, 2) if method == "grid" else SHAPE)
    # The whole Jacobian once, random projections of it when cut small.
    assert torch.autograd.gradcheck(function, leaves, fast_mode=cut)
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=cut, gen_non_contig_grad_outputs=True)


def derivatives(system, method, seed=2):
    """Update, first derivatives of a random sum of it, second ones of a random sum of those."""
    inputs = *system.leaves(grad=True), *system.geometry()
    u = system.run(method, inputs[:3], *inputs[3:])
    ahead, *turned = random(u.shape, *(x.shape for x in inputs), seed=seed)
    ahead.requires_grad_()
    first = torch.autograd.grad(u, inputs, ahead, create_graph=True)
    second = torch.autograd.grad(first, (*inputs, ahead), turned)
    return [x.detach() for x in (u, *first, *second)]


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut small"])
def test_both_orders_equal_autograd_of_the_definition(method, name, cut, monkeypatch):
    """By q, k, v, positions, cell (through coordinates, weights and volume) and incoming gradient."""
    if cut:
        cut_small(monkeypatch)
    system = SYSTEMS[name]
    wanted = derivatives(system, "reference")
    # Forces on a lone atom are zero, and curvatures of unwrapped ones sums of terms like r⊗r: relative to the largest.
    scale = max(float(x.abs().max()) if x.numel() else 0.0 for x in wanted)
    bound = bound_of(method, 1e-12 if name == "unwrapped" else 1e-13)
    for ours, theirs in zip(derivatives(system, method), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=bound * scale)


@pytest.mark.parametrize("method", METHODS)
def test_float32_derivatives_are_as_exact_as_those_of_the_definition(method):
    """Root mean square errors at most 3 times the largest of autograd through the reference, same float32 leaves.

    The largest of update and gradients: K and its derivatives are formed in float64 there, not by the methods.
    """
    generator = torch.Generator().manual_seed(8)
    cell = 2.0 * torch.tensor(TRICLINIC, dtype=torch.float64)
    system = System(torch.rand(200, 3, dtype=torch.float64, generator=generator) @ cell, cell)

    def first(name, dtype):
        leaves = [x.to(dtype).requires_grad_() for x in system.leaves((2, 4, 4), torch.float32)]
        inputs = *leaves, *system.geometry()
        u = system.run(name, inputs[:3], *inputs[3:])
        (ahead,) = random(u.shape, dtype=torch.float32)
        return u.detach(), *torch.autograd.grad(u, inputs, ahead.to(dtype))

    exact = first("reference", torch.float64)

    def errors(name):
        found = zip(first(name, torch.float32), exact, strict=True)
        return [float((x.double() - wanted).norm() / wanted.norm()) for x, wanted in found]

    allowed = 3.0 * max(errors("reference"))
    if method.startswith("grid"):
        allowed += 2.0 * TOLERANCE[torch.float32]  # a bound of update and forces; strain derivatives err a little more
    assert max(errors(method)) <= allowed


# --- stress --------------------------------------------------------------------------------------------------------


def features(leaves, positions, system, cell):
    """q, k and v that depend on positions as those of a network do: through what strain leaves periodic."""
    where = fractional(positions, cell, system.offsets)
    lengths = (cell if cell.dim() == 3 else cell[None]).norm(dim=2)[system_of(system.offsets)]
    swing = (lengths * torch.sin(2.0 * torch.pi * where)).sum(dim=1)[:, None, None]
    return [x * (1.0 + 0.2 * torch.sin(swing + n)) for n, x in enumerate(leaves)]


def energies(system, method, leaves, positions, cell):
    """Σ_i |u_i|² of every system, of q(R), k(R), v(R)."""
    u = system.run(method, features(leaves, positions, system, cell), positions, cell)
    per_atom = u.square().sum(dim=(1, 2))
    n_systems = len(system.offsets) - 1
    return torch.zeros(n_systems, dtype=torch.float64).index_add(0, system_of(system.offsets), per_atom)


def forces_and_stress(system, method, leaves, positions, cell):
    """F = −∂E/∂r and σ = (1/V) ∂E/∂ε, differentiable again."""
    strain = torch.zeros(len(system.offsets) - 1, 3, 3, dtype=torch.float64, requires_grad=True)
    moved, cells = strained(system, positions, cell, strain)
    energy = energies(system, method, leaves, moved, cells)
    slope, bend = torch.autograd.grad(energy.sum(), (positions, strain), create_graph=True)
    return energy, -slope, bend / rk.cells.volume(cells).reshape(-1, 1, 1)


@pytest.mark.parametrize("name", ["triclinic", "left-handed"])
@pytest.mark.parametrize("method", METHODS)
def test_stress_by_finite_differences(method, name):
    """All nine components of dE/dε of an energy with q(R), k(R), v(R), 1e-7 relative to the largest."""
    system, step = SYSTEMS[name], 2e-4
    leaves, geometry = system.leaves(), system.geometry()
    _, _, stress = forces_and_stress(system, method, leaves, *geometry)
    bend = stress.detach()[0] * rk.cells.volume(system.cell)
    wanted = torch.empty(3, 3, dtype=torch.float64)
    for a, b in itertools.product(range(3), repeat=2):
        values = []
        for times in (-2, -1, 1, 2):
            strain = torch.zeros(1, 3, 3, dtype=torch.float64)
            strain[0, a, b] = times * step
            values.append(energies(system, method, leaves, *strained(system, *geometry, strain)).item())
        # Fourth order: the error is E⁽⁵⁾ step⁴/30, the windows of waves near k_cut included, and rounding 1e-15/step.
        wanted[a, b] = (values[0] - 8.0 * values[1] + 8.0 * values[2] - values[3]) / (12.0 * step)
    torch.testing.assert_close(bend, wanted, rtol=0, atol=1e-7 * float(wanted.abs().max()))


@pytest.mark.parametrize("method", METHODS)
def test_stress_of_atoms_moved_by_lattice_vectors(method):
    """One atom in another image: energy, forces and stress stay (the published layer's stress does not)."""
    system = SYSTEMS["triclinic"]
    moved = system.positions.clone()
    moved[3] += torch.tensor([2.0, -1.0, 3.0], dtype=torch.float64) @ system.cell
    found = []
    for positions in (system.positions, moved):
        values = forces_and_stress(system, method, system.leaves(), positions.requires_grad_(), system.cell)
        found.append([x.detach() for x in values])
    for one, other in zip(*found, strict=True):
        assert_near(one, other, 1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_composed_second_derivative(method):
    """‖F‖² + ‖σ‖² with q(R), k(R), v(R) under strain, differentiated by everything: what a loss on forces needs."""
    for name in ("triclinic", "batch"):
        system = SYSTEMS[name]
        found = []
        for one in ("reference", method):
            leaves, geometry = system.leaves(grad=True), system.geometry()
            _, forces, stress = forces_and_stress(system, one, leaves, *geometry)
            loss = forces.square().sum() + 1e3 * stress.square().sum()
            found.append([loss.detach(), *torch.autograd.grad(loss, (*leaves, *geometry))])
        for wanted, ours in zip(*found, strict=True):
            assert_near(ours, wanted, bound_of(method, 1e-11))


@pytest.mark.parametrize("method", METHODS)
def test_composed_second_derivative_by_finite_differences(method):
    """Against no second derivative at all: the loss, from first derivatives, at positions and cells nearby."""
    system, step = SYSTEMS["triclinic"], 1e-4
    leaves = system.leaves()
    along = random((system.n_atoms, 3), (3, 3), seed=4)

    def loss_at(times):
        moved = [(x + times * step * a).requires_grad_() for x, a in zip(system.geometry(), along, strict=True)]
        _, forces, stress = forces_and_stress(system, method, leaves, *moved)
        return forces.square().sum() + 1e3 * stress.square().sum(), moved

    loss, moved = loss_at(0)
    grads = torch.autograd.grad(loss, moved)
    slope = sum((g * a).sum() for g, a in zip(grads, along, strict=True))
    values = [float(loss_at(times)[0]) for times in (-2, -1, 1, 2)]
    wanted = (values[0] - 8.0 * values[1] + 8.0 * values[2] - values[3]) / (12.0 * step)
    assert float(slope) == pytest.approx(wanted, rel=1e-7)


def third_differences(method, **options):
    """Largest Δ³ of energy and stress along 200 steps of strain, in steps and in double steps, relative to the largest.

    Where a curve is smooth they fall with the step by 8; a second derivative that jumps, as that of the stress may
    where a wave of a C² window enters, by 4; a kink by 2; a jump not at all.
    """
    system = SYSTEMS["triclinic"].but(k_cut=3.0)
    leaves = system.leaves((1, 2, 2))
    direction = torch.tensor([[[1.0, 0.3, 0.1], [0.3, -0.6, 0.2], [0.1, 0.2, 0.4]]], dtype=torch.float64)
    curve, counts = [], set()
    for size in torch.linspace(-0.06, 0.06, 201, dtype=torch.float64):
        strain = (size * direction).requires_grad_()
        moved = strained(system, system.positions, system.cell, strain)
        modes = system.modes(moved[1], **options)
        counts.add(modes.n_modes)
        energy = system.run(method, leaves, *moved, modes=modes).square().sum()
        (bend,) = torch.autograd.grad(energy, strain)
        curve.append(torch.cat([energy.detach()[None], bend[0].flatten()]))
    assert len(counts) >= 4
    curve = torch.stack(curve)
    curve /= curve.abs().amax(dim=0)

    def third(x):
        return float((x[3:] - 3.0 * x[2:-1] + 3.0 * x[1:-2] - x[:-3]).abs().max())

    return third(curve), max(third(curve[::2]), third(curve[1::2]))


@pytest.mark.parametrize("method", METHODS)
def test_a_cell_deformed_while_waves_enter_and_leave(method):
    """Energy and stress stay on smooth curves; the control, waves cut off sharply, does not."""
    fine, coarse = third_differences(method)
    # The grid's plan, and with it the error within its tolerance, changes with the set of waves.
    noise = 20.0 * TOLERANCE[torch.float64] if method.startswith("grid") else 1e-12
    assert fine <= coarse / 3.0 + noise
    if method == "spectral":
        fine, coarse = third_differences(method, window_start=1.0)
        assert fine > coarse / 1.1 and fine > 1e-2


# --- learnable spectra ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["spectral", "grid"])
def test_parameters_of_the_spectrum_get_gradients(method):
    system = SYSTEMS["triclinic"]
    leaves = system.leaves()
    start = random((3,), (3,), (1,), seed=5)

    def energy(amplitudes, log_widths, sigma):
        both = (spectra.sum_of_gaussians(amplitudes, log_widths), spectra.ewald(sigma.exp()))
        parts = [system.run(method, leaves, modes=system.modes(spectrum=one)) for one in both]
        return sum(u.square().sum() for u in parts)

    inputs = [0.3 * x.requires_grad_() for x in start]
    assert torch.autograd.gradcheck(energy, inputs)
    grads = torch.autograd.grad(energy(*inputs), inputs)
    assert all(bool((grad != 0).all()) for grad in grads)


# --- output gradients, orders not provided -------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_expanded_and_strided_gradients(method):
    system = SYSTEMS["batch"]
    n = system.n_atoms
    wide, *turned = random((HEADS, n, D_V), (n, D, HEADS), (n, D, HEADS), (n, D_V, HEADS), (3, n), (7, 3, 3))
    grads = torch.tensor(0.7, dtype=torch.float64).expand(n, HEADS, D_V), wide.transpose(0, 1)
    turned = [x.transpose(1, 2) if x.dim() == 3 else x.T for x in turned]
    for ahead in grads:
        found = []
        for change in (lambda x: x, lambda x: x.contiguous().clone()):
            inputs = *system.leaves(grad=True), *system.geometry()
            u = system.run(method, inputs[:3], *inputs[3:])
            first = torch.autograd.grad(u, inputs, change(ahead), create_graph=True)
            found.append([*first, *torch.autograd.grad(first, inputs, [change(x) for x in turned])])
        for one, other in zip(*found, strict=True):
            assert_near(one.detach(), other.detach(), 1e-14)


@pytest.mark.parametrize("method", METHODS)
def test_some_gradients_only(method):
    """What is not asked for is not needed for the rest, in both orders."""
    system = SYSTEMS["triclinic"]
    inputs = [*system.leaves(grad=True), *system.geometry()]
    wanted = torch.autograd.grad(system.run(method, inputs[:3], *inputs[3:]).square().sum(), inputs)
    for index in range(5):
        alone = [x.detach().requires_grad_(n == index) for n, x in enumerate(inputs)]
        u = system.run(method, alone[:3], *alone[3:])
        (grad,) = torch.autograd.grad(u.square().sum(), alone[index], create_graph=True)
        assert_near(grad.detach(), wanted[index], 1e-14)
        (second,) = torch.autograd.grad(grad.square().sum(), alone[index])
        again = [x.detach().requires_grad_(n == index) for n, x in enumerate(inputs)]
        u = system.run("reference", again[:3], *again[3:])
        (grad,) = torch.autograd.grad(u.square().sum(), again[index], create_graph=True)
        assert_near(second, torch.autograd.grad(grad.square().sum(), again[index])[0], bound_of(method, 1e-12))


@pytest.mark.parametrize(("op", "method"), CASES)
def test_third_order_raises(op, method):
    """By whatever input, never zeros."""
    function, leaves = op_of(op, SMALL, method)
    first = torch.autograd.grad(function(*leaves).square().sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum(x.square().sum() for x in first), leaves, create_graph=True)
    for value, leaf in itertools.product(second, leaves):
        with pytest.raises(DerivativeNotProvidedError, match=f"{op}_backward_backward"):
            torch.autograd.grad(value.square().sum(), leaf, retain_graph=True)


# --- the registered ops --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("op", "method"), CASES)
@pytest.mark.parametrize("name", ["triclinic", "batch"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_opcheck(op, method, name, dtype):
    """All utilities of opcheck on op, backward and backward of backward.

    The last has no derivative: it is checked with inputs that need none. In float32 compiled gradients are rounded
    otherwise, for another layout of the gradient that comes in, and opcheck compares by the float64 of coordinates.
    """
    utilities = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    system = SYSTEMS[name]
    names = {"reciprocal_attention": "qkvfnw", "accumulate_modes": "kvfn", "gather_modes": "qsfnw"}[op]
    for order in range(3):
        inputs, pointers, miller = op_inputs(system, dtype=dtype, grad=order < 2)
        inputs["n"] = miller
        shape = (2, len(miller), *SHAPE) if op == "accumulate_modes" else (system.n_atoms, SHAPE[0], SHAPE[2])
        (ahead,) = random(shape, dtype=dtype)
        before = [ahead.requires_grad_(order == 1)] if order else []
        if order == 2:
            before = [torch.randn_like(inputs[one]) for one in names if one != "n"] + before
        arguments = *before, *(inputs[one] for one in names), *pointers, method, TOLERANCE[dtype], 0
        checked = utilities if dtype == torch.float64 else utilities[:3]
        torch.library.opcheck(getattr(OPS, op + order * "_backward").default, arguments, test_utils=checked)


@pytest.mark.parametrize("op", ["reciprocal_attention", "accumulate_modes", "gather_modes"])
@pytest.mark.parametrize("order", range(3))
def test_fake_kernels_refuse_nothing_and_know_all_shapes(op, order):
    """Every op on meta tensors gives outputs of the shapes and dtypes that it gives on the CPU."""
    system = SYSTEMS["batch"]
    names = {"reciprocal_attention": "qkvfnw", "accumulate_modes": "kvfn", "gather_modes": "qsfnw"}[op]
    inputs, pointers, miller = op_inputs(system, grad=False)
    inputs["n"] = miller
    shape = (2, len(miller), *SHAPE) if op == "accumulate_modes" else (system.n_atoms, SHAPE[0], SHAPE[2])
    before = [inputs[one] for one in names if one != "n"] * (order == 2) + random(shape) * (order > 0)
    tensors = *before, *(inputs[one] for one in names), *pointers
    function = getattr(OPS, op + order * "_backward")
    real, fake = (function(*values, "spectral", 1e-5, 0) for values in (tensors, [x.to("meta") for x in tensors]))
    real, fake = (x if isinstance(x, tuple) else (x,) for x in (real, fake))
    assert [(x.shape, x.dtype, x.stride()) for x in real] == [(x.shape, x.dtype, x.stride()) for x in fake]


# --- traced, exported, compiled ------------------------------------------------------------------------------------


class Layer(torch.nn.Module):
    """A long-range layer as somebody writes it: projections, attention with waves that are given."""

    def __init__(self, method):
        super().__init__()
        torch.manual_seed(0)
        self.method = method
        self.project = torch.nn.Linear(5, HEADS * (2 * D + D_V), dtype=torch.float64)

    def forward(self, x, positions, cell, miller, weights, mode_ptr):
        q, k, v = self.project(x).unflatten(1, (HEADS, -1)).split([D, D, D_V], dim=-1)
        modes = rk.Modes(miller, weights, mode_ptr, 2.0)
        return rk.reciprocal_attention(q, k, v, positions, cell, modes, method=self.method, tolerance=1e-8)


def layer_inputs(n_atoms, cell=TRICLINIC):
    x, where = random((n_atoms, 5), (n_atoms, 3), seed=n_atoms)
    cell = torch.tensor(cell, dtype=torch.float64)
    modes = rk.reciprocal_modes(cell, 2.0, spectrum)
    return x, where @ cell, cell, modes.miller, modes.weights, modes.mode_ptr


@pytest.mark.parametrize("method", ["pairwise", "spectral", "grid", "auto"])
def test_export(method):
    """torch.export of a module, with numbers of atoms and waves that may vary."""
    layer = Layer(method)
    atoms, waves = torch.export.Dim("n_atoms", min=2), torch.export.Dim("n_modes", min=2)
    varying = {0: atoms}, {0: atoms}, None, {0: waves}, {0: waves}, None
    program = torch.export.export(layer, layer_inputs(7), dynamic_shapes=varying, strict=False)
    names = [str(node.target) for node in program.graph.nodes]
    assert any("rsa_kernels.reciprocal_attention" in name for name in names)
    for inputs in (layer_inputs(7), layer_inputs(12, [[7.0, 0, 0], [0.5, 6, 0], [0, 1, 6.5]])):
        assert torch.equal(program.module()(*inputs), layer(*inputs))


@pytest.mark.parametrize("method", EXACT)
def test_make_fx_of_a_step_on_forces(method):
    """The whole step (modes' weights given), traced with fake tensors: energy, forces, loss, gradient of parameters."""
    system = SYSTEMS["triclinic"]
    modes = system.modes()

    def step(positions, q, k, v):
        u = system.run(method, (q, k, v), positions, modes=modes)
        (forces,) = torch.autograd.grad(u.square().sum(), positions, create_graph=True)
        return torch.autograd.grad(forces.square().sum(), (q, k, v))

    inputs = system.geometry()[0], *system.leaves(grad=True)
    traced = make_fx(step, tracing_mode="fake", _allow_non_fake_inputs=True)(*inputs)
    targets = [str(node.target) for node in traced.graph.nodes]
    assert any("_backward_backward" in target for target in targets)
    other = [x.detach().flip(0).contiguous().requires_grad_() for x in inputs]
    for ours, wanted in zip(traced(*other), step(*other), strict=True):
        assert torch.equal(ours, wanted)


@pytest.mark.parametrize("method", ["pairwise", "auto"])
def test_compiled_inference_with_any_number_of_atoms(method):
    """fullgraph, and one recompilation at most: numbers of atoms and waves become symbols."""
    torch._dynamo.reset()
    layer = Layer(method).requires_grad_(False)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer, fullgraph=True, backend=counter)
    for n_atoms in (7, 9, 12, 30):
        cell = (1.0 + 0.05 * n_atoms) * torch.tensor(TRICLINIC)
        inputs = layer_inputs(n_atoms, cell.tolist())
        assert torch.equal(compiled(*inputs), layer(*inputs))
    assert counter.frame_count <= 2
    torch._dynamo.reset()
