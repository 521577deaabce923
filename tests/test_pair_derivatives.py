"""Derivatives of the pair op: by finite differences, against plain autograd through the reference, and composed.

The reference evaluates the same table in plain torch, so kernel and reference agree to rounding, not only to the
interpolation error: a term that is missing from a second derivative cannot hide.
"""

import pytest
import torch
from native_settings import available_isas, isa
from pair_systems import SYSTEMS, TABLE, strained, system_of

import rsa_kernels as rk
from rsa_kernels.errors import DerivativeNotProvidedError
from rsa_kernels.pair import op

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = ["triclinic", "tiny", "one atom", "slab", "cluster", "walled"]

# Both sides round sums of up to a few hundred terms; second derivatives are of order 10 eV/Å², their sums of 1e3.
ROUNDING = {"rtol": 1e-10, "atol": 1e-10}


def kernel(system, positions, cell):
    """Per-atom energies from the registered op."""
    return op.per_atom_energy(TABLE, positions, cell, system.numbers, system.neighbors())


def reference(system, positions, cell):
    """The same by definition."""
    species = TABLE.species(system.numbers)
    return rk.pair.reference.table_per_atom_energy(TABLE, positions, cell, species, system.neighbors())


def leaves_of(system):
    return system.positions.clone().requires_grad_(), system.cell.clone().requires_grad_()


def assert_same(ours, wanted):
    for mine, theirs in zip(ours, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, **ROUNDING)


# --- first and second order ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiny", "one atom", "slab", "cluster"])
def test_gradcheck_and_gradgradcheck(name):
    """Finite differences, torch's default step and tolerances; no pair lies at the cutoff, where one function jumps."""
    system = SYSTEMS[name]
    neighbors = system.neighbors()
    given = system.cell.norm(dim=1).nonzero().flatten()  # a missing vector stays missing

    def energy(positions, vectors):
        cell = torch.zeros(3, 3, dtype=torch.float64).index_copy(0, given, vectors)
        return rk.pair.energy(TABLE, positions, cell, system.numbers, neighbors)

    leaves = system.positions.clone().requires_grad_(), system.cell[given].requires_grad_(len(given) > 0)
    assert torch.autograd.gradcheck(energy, leaves)
    assert torch.autograd.gradgradcheck(energy, leaves)


def test_gradcheck_of_a_batch_atom_by_atom():
    """Every system's cell is its own leaf, and every atom's energy its own output: weights differ."""
    system = SYSTEMS["batch"]
    neighbors = system.neighbors()
    few = torch.tensor([0, 1, 3, 14, 15, 20])  # of each system some, for time

    def energy(some, vectors):
        positions = system.positions.index_copy(0, few, some)
        cells = torch.zeros(18, 3, dtype=torch.float64).index_copy(0, given, vectors).reshape(6, 3, 3)
        return op.per_atom_energy(TABLE, positions, cells, system.numbers, neighbors)[few]

    given = system.cell.reshape(18, 3).norm(dim=1).nonzero().flatten()
    leaves = system.positions[few].clone().requires_grad_(), system.cell.reshape(18, 3)[given].requires_grad_()
    assert torch.autograd.gradcheck(energy, leaves)
    assert torch.autograd.gradgradcheck(energy, leaves)


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("instructions", available_isas())
def test_first_order_equals_autograd_of_the_reference(name, instructions):
    """With a weight of its own for every atom, of either sign."""
    system = SYSTEMS[name]
    weights = torch.randn(len(system.numbers), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grads = []
    with isa(instructions):
        for atoms in (kernel, reference):
            leaves = leaves_of(system)
            grads.append(torch.autograd.grad((weights * atoms(system, *leaves)).sum(), leaves))
    assert_same(*grads)


@pytest.mark.parametrize("name", SYSTEMS)
def test_second_order_equals_autograd_of_the_reference(name):
    """Of a random combination of all first derivatives, with respect to positions, cell and weights."""
    system = SYSTEMS[name]
    generator = torch.Generator().manual_seed(1)
    u = torch.randn(system.positions.shape, dtype=torch.float64, generator=generator)
    v = torch.randn(system.cell.shape, dtype=torch.float64, generator=generator)
    start = torch.randn(len(system.numbers), dtype=torch.float64, generator=generator)
    grads = []
    for atoms in (kernel, reference):
        leaves, weights = leaves_of(system), start.clone().requires_grad_()
        first = torch.autograd.grad((weights * atoms(system, *leaves)).sum(), leaves, create_graph=True)
        combined = (u * first[0]).sum() + (v * first[1]).sum()
        grads.append(torch.autograd.grad(combined, (*leaves, weights)))
    assert_same(*grads)


# --- composed: what a loss on forces and stress needs --------------------------------------------------------------


def forces_and_stress_loss(atoms, system, positions, cell, weights_of=None):
    """‖F‖² + ‖σ‖² with everything built from strained positions: r = r₀(1 + ε), H = H₀(1 + ε), σ = dE/dε / V.

    `weights_of` makes atoms count by weights that depend on the strained positions, as charges of a model do.
    """
    n_systems = system.neighbors().n_systems
    strain = torch.zeros(n_systems, 3, 3, dtype=torch.float64, requires_grad=True)
    moved, cells = strained(system, positions, cell, strain)
    energies = atoms(system, moved, cells if cell.dim() == 3 else cells[0])
    if weights_of is not None:
        energies = weights_of(moved) * energies
    slope, bend = torch.autograd.grad(energies.sum(), (positions, strain), create_graph=True)
    stress = bend / rk.cells.volume(cells)[:, None, None]
    return slope.square().sum() + stress.square().sum(), strain


@pytest.mark.parametrize("name", ["triclinic", "tiny", "one atom", "orthorhombic", "unwrapped"])
@pytest.mark.parametrize("charges", [False, True], ids=["", "q(R)"])
def test_composed_second_derivative(name, charges):
    system = SYSTEMS[name]

    def weights_of(positions):
        return 1.0 + 0.3 * torch.sin(positions).sum(dim=1)

    found = []
    for atoms in (kernel, reference):
        leaves = leaves_of(system)
        loss, strain = forces_and_stress_loss(atoms, system, *leaves, weights_of if charges else None)
        found.append([loss.detach(), *torch.autograd.grad(loss, (*leaves, strain))])
    (ours, *grads), (theirs, *wanted) = found
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=0)
    for mine, other in zip(grads, wanted, strict=True):
        # Relative to the largest: small components are differences of large terms.
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-10 * float(other.abs().max()))


def test_composed_second_derivative_of_a_batch():
    """Every system's loss equals the loss of the system alone, gradients included."""
    system = SYSTEMS["batch"]
    generator = torch.Generator().manual_seed(2)
    weights = torch.randn(len(system.numbers), dtype=torch.float64, generator=generator)

    found = []
    for atoms in (kernel, reference):
        leaves = leaves_of(system)
        first = torch.autograd.grad((weights * atoms(system, *leaves)).sum(), leaves, create_graph=True)
        loss = first[0].square().sum() + first[1].square().sum()
        found.append(torch.autograd.grad(loss, leaves))
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-10 * float(other.abs().max()))


def test_composed_second_derivative_by_finite_differences():
    """Against no autograd at all: the loss at strained positions, from the kernel's first derivatives."""
    system = SYSTEMS["tiny"]

    def loss_at(size):
        direction = torch.tensor([[0.3, -0.2, 0.1], [0.5, 0.1, -0.4], [0.2, 0.6, -0.1]], dtype=torch.float64)
        stretch = torch.eye(3, dtype=torch.float64) + size * direction
        leaves = (system.positions @ stretch).requires_grad_(), (system.cell @ stretch).requires_grad_()
        return forces_and_stress_loss(kernel, system, *leaves)[0], direction, leaves

    step = 1e-4
    (high, *_), (low, *_) = loss_at(step), loss_at(-step)
    loss, direction, leaves = loss_at(0.0)
    slopes = torch.autograd.grad(loss, leaves)
    along = sum(
        (slope * (start @ direction)).sum()
        for slope, start in zip(slopes, (system.positions, system.cell), strict=True)
    )
    # Error of central differences, loss''' step²/6: 1e-8 times a few thousand of the loss's own size.
    torch.testing.assert_close(along, (high - low) / (2 * step), rtol=1e-5, atol=0)


# --- output gradients, dtypes, orders not provided -----------------------------------------------------------------


def test_expanded_and_strided_output_gradients():
    system = SYSTEMS["batch"]
    n_atoms = len(system.numbers)
    wide = torch.randn(n_atoms, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for grad in (
        torch.tensor(0.7, dtype=torch.float64).expand(n_atoms),
        wide[:, 1],
        wide.t()[2],
        torch.zeros(n_atoms).double(),
    ):
        results = []
        for given in (grad, grad.contiguous().clone()):
            leaves = leaves_of(system)
            first = torch.autograd.grad(kernel(system, *leaves), leaves, given, create_graph=True)
            turned = system.cell.transpose(1, 2)  # strided gradients for the second order, too
            second = torch.autograd.grad(first, leaves, (wide, turned), retain_graph=True)
            expanded = torch.autograd.grad(first, leaves, (wide[:1].expand(n_atoms, 3), turned[:1].expand_as(turned)))
            results.append([*(x.detach() for x in first), *second, *expanded])
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_one_of_two_gradients_only():
    system = SYSTEMS["triclinic"]
    positions, cell = leaves_of(system)
    both = torch.autograd.grad(kernel(system, positions, cell).sum(), (positions, cell))
    (alone,) = torch.autograd.grad(kernel(system, positions, system.cell).sum(), positions)
    (cell_alone,) = torch.autograd.grad(kernel(system, system.positions, cell).sum(), cell)
    assert torch.equal(alone, both[0]) and torch.equal(cell_alone, both[1])
    # A second derivative through the forces alone: the cell's gradient is not there.
    (first,) = torch.autograd.grad(kernel(system, positions, system.cell).sum(), positions, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), positions)
    (same,) = torch.autograd.grad(reference(system, positions, system.cell).sum(), positions, create_graph=True)
    torch.testing.assert_close(second, torch.autograd.grad(same.square().sum(), positions)[0], **ROUNDING)


def test_one_cell_for_a_batch_gathers_the_gradients_of_all_systems():
    system = SYSTEMS["batch"].but(cell=SYSTEMS["triclinic"].cell, pbc=True)
    grads = []
    for atoms in (kernel, reference):
        positions, cell = leaves_of(system)
        grads.append(torch.autograd.grad(atoms(system, positions, cell).sum(), (positions, cell)))
    assert_same(*grads)


def test_forces_and_virial_of_evaluate_are_these_derivatives():
    system = SYSTEMS["batch"]
    positions = system.positions.clone().requires_grad_()
    strain = torch.zeros(6, 3, 3, dtype=torch.float64, requires_grad=True)
    energies = kernel(system, *strained(system, positions, system.cell, strain))
    slope, bend = torch.autograd.grad(energies.sum(), (positions, strain))
    result = system.evaluate()
    torch.testing.assert_close(-slope, result.forces, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(-bend, result.virial, **ROUNDING)
    assert int(system_of(system).max()) == 4


def test_missing_cell_vectors_have_no_gradient():
    for name in ("slab", "wire", "cluster"):
        system = SYSTEMS[name]
        positions, cell = leaves_of(system)
        (grad,) = torch.autograd.grad(kernel(system, positions, cell).sum(), cell)
        assert not grad[system.cell.norm(dim=1) == 0].any()


def test_float32_gradients_are_float64_arithmetic_rounded():
    for name in ("triclinic", "batch"):
        system = SYSTEMS[name]
        single = system.but(positions=system.positions.float(), cell=system.cell.float())
        double = single.but(positions=single.positions.double(), cell=single.cell.double())
        grads = []
        for case in (single, double):
            leaves = leaves_of(case)
            grads.append(torch.autograd.grad(kernel(case, *leaves).sum(), leaves))
        assert grads[0][0].dtype == grads[0][1].dtype == torch.float32
        assert all(torch.equal(a, b.float()) for a, b in zip(*grads, strict=True))


def test_third_order_raises():
    system = SYSTEMS["tiny"]
    positions, cell = leaves_of(system)
    first = torch.autograd.grad(kernel(system, positions, cell).sum(), (positions, cell), create_graph=True)
    second = torch.autograd.grad(first[0].square().sum(), positions, create_graph=True)[0]
    with pytest.raises(DerivativeNotProvidedError, match="pair_energy_backward_backward"):
        torch.autograd.grad(second.square().sum(), positions)


def test_forces_of_the_md_path_are_not_differentiable():
    system = SYSTEMS["tiny"]
    arguments = list(op._arguments(TABLE, system.positions, system.cell, system.numbers, system.neighbors()))
    arguments[0] = arguments[0].clone().requires_grad_()
    forces = torch.ops.rsa_kernels.pair_evaluate(*arguments, True, True, True)[2]
    with pytest.raises(DerivativeNotProvidedError, match="pair_evaluate"):
        forces.sum().backward()


# --- the registered ops --------------------------------------------------------------------------------------------


def op_arguments(name, requires_grad):
    system = SYSTEMS[name]
    arguments = list(op._arguments(TABLE, system.positions, system.cell, system.numbers, system.neighbors()))
    arguments[1] = arguments[1].clone()  # not expanded: opcheck makes leaves of the arguments
    for k in (0, 1):
        arguments[k] = arguments[k].clone().requires_grad_(requires_grad)
    generator = torch.Generator().manual_seed(4)
    weights = torch.randn(len(system.numbers), dtype=torch.float64, generator=generator).requires_grad_(requires_grad)
    return arguments, weights


@pytest.mark.parametrize("name", ["tiny", "batch"])
def test_opcheck(name):
    """All utilities of opcheck, on all four ops.

    The two ops at the ends of the chain have no derivative: they are checked with inputs that need none, which is
    how they are called.
    """
    ops = torch.ops.rsa_kernels
    arguments, weights = op_arguments(name, True)
    torch.library.opcheck(ops.pair_energy.default, arguments)
    torch.library.opcheck(ops.pair_energy_backward.default, (weights, *arguments))
    arguments, weights = op_arguments(name, False)
    changes = torch.randn_like(arguments[0]), torch.randn_like(arguments[1])
    torch.library.opcheck(ops.pair_energy_backward_backward.default, (*changes, weights, *arguments))
    for flags in ((True, True, True), (True, False, False), (False, True, False), (False, False, False)):
        torch.library.opcheck(ops.pair_evaluate.default, (*arguments, *flags))
