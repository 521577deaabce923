"""Derivatives of S(Q): the op's chain by finite differences, routes against the definition, composition, batches."""

import itertools

import pytest
import torch
from structure_systems import FINE, ROUTES, batch, system

import rsa_kernels as rk
from rsa_kernels.structure import lattice, reference, sampling, sums
from rsa_kernels.structure.bins import Shells

pytestmark = pytest.mark.usefixtures("one_thread")
SHELLS = Shells(0.5, 0, 4)
EXACT = 1e-13
"""Tolerance of the transforms where finite differences look at them."""


def arguments(offsets=(0, 3), n_species=2, cell="triclinic", seed=0):
    """What the op is given for small systems in one cell."""
    one = system(cell, offsets[-1], tuple(range(n_species)), seed)
    gram = lattice.metric(lattice.reduced(one.cell))
    boxes = [(k, *box) for k in range(len(offsets) - 1) for box in lattice.boxes(gram, SHELLS.q_max, (2, 8, 8))]
    fractional = one.positions @ torch.linalg.inv(lattice.reduced(one.cell))
    grams = gram.expand(len(offsets) - 1, 3, 3).contiguous()
    return fractional, one.species, torch.tensor(offsets), grams, torch.tensor(boxes), n_species, *SHELLS, EXACT


def test_the_chain_by_finite_differences():
    offsets = (0, 2, 2, 3)
    fractional, *rest = arguments(offsets)
    generator = torch.Generator().manual_seed(5)
    fractional = fractional.clone().requires_grad_()
    # Sums of terms up to 2π·10 in size, differences of 1e-6: rounding leaves 1e-7 of them.
    assert torch.autograd.gradcheck(lambda f: sums.structure_sums(f, *rest), (fractional,), atol=1e-5, rtol=1e-6)
    g = torch.randn(len(offsets) - 1, 3, 4, dtype=torch.float64, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda g, f: sums.structure_sums_backward(g, f, *rest), (g, fractional), atol=1e-4, rtol=1e-6, fast_mode=True
    )
    assert torch.autograd.gradgradcheck(
        lambda f: sums.structure_sums(f, *rest), (fractional,), g.detach(), atol=1e-4, rtol=1e-6, fast_mode=True
    )


def test_opcheck():
    fractional, *rest = arguments((0, 2, 2, 3))
    f = fractional.clone().requires_grad_()
    g = torch.randn(3, 3, 4, dtype=torch.float64, requires_grad=True)
    v = torch.randn_like(fractional)
    for op, inputs in (
        (sums.structure_sums, (f, *rest)),
        (sums.structure_sums_backward, (g, f, *rest)),
        (sums.structure_sums_backward_backward, (v, g.detach(), fractional, *rest)),
        (sums.structure_scatter, (fractional, *rest)),
    ):
        # finufft's threads add in any order: the last bits of two calls may differ.
        torch.library.opcheck(op.overload, inputs, rtol=1e-9, atol=1e-9)


def test_pair_counts_opcheck():
    one = system("triclinic", 6)
    codes, offsets = torch.tensor([0, 1] * 3), torch.tensor([0, 6])
    from rsa_kernels.structure.pair_distribution import structure_pair_counts

    torch.library.opcheck(
        structure_pair_counts.overload, (one.positions, one.cell.unsqueeze(0), codes, offsets, 2, 0.5, 9)
    )


def loss_of(partials):
    """A curved function of all partials that are known."""
    known = partials.nan_to_num()
    weights = torch.linspace(0.3, 1.7, known.shape[-1], dtype=known.dtype)
    return (torch.sin(known) * weights).sum() + 0.1 * (known[..., 1:] * known[..., :-1]).sum()


def derivatives(function, positions):
    """Gradient, and gradient of a projection of the gradient, of a loss of positions."""
    x = positions.clone().requires_grad_()
    (first,) = torch.autograd.grad(function(x), x, create_graph=True)
    direction = torch.sin(torch.arange(first.numel(), dtype=first.dtype)).view_as(first)
    (second,) = torch.autograd.grad((first * direction).sum(), x)
    return first.detach(), second


@pytest.mark.parametrize("method", ROUTES)
@pytest.mark.parametrize("cell", ["triclinic", "skewed", "left-handed"])
def test_both_orders_equal_the_definition(cell, method):
    one = system(cell, 15)
    labels, codes = torch.unique(one.species, return_inverse=True)
    sizes = torch.bincount(codes).double()

    def ours(x):
        return loss_of(rk.structure_factor(x, one.cell, one.species, 3.2, 0.2, method, tolerance=1e-12).partials)

    def defined(x):
        found, counts = reference.shell_sums(x @ torch.linalg.inv(one.cell), codes, one.cell, len(labels), 0.2, 16)
        # Empty bins: zero instead of NaN before the division, so that their gradient is zero too.
        partials = reference.partials(found, counts.clamp_min(1), sizes)
        return loss_of(torch.where(counts > 0, partials, 0.0))

    for found, wanted in zip(derivatives(ours, one.positions), derivatives(defined, one.positions), strict=True):
        assert (found - wanted).abs().max() < 1e-8 * wanted.abs().max()


def test_a_sample_is_differentiated_as_what_it_is():
    """Against direct sums over the vectors drawn, whose derivatives are another op's."""
    one = system([[22.0, 0, 0], [5.0, 21.0, 0], [-3.0, 4.0, 25.0]], 40)
    options = {"per_shell": 60, "tolerance": 1e-12}
    found = rk.structure_factor(one.positions, one.cell, one.species, 8.0, 0.4, "sampled", **options)
    assert (found.counts < found.available).any()
    short = lattice.reduced(one.cell)
    gram = lattice.metric(short)
    miller = torch.cat([lattice.miller_of(tuple(row[1:7])) for row in found.boxes.tolist()])
    from rsa_kernels.structure.bins import shell_of

    shell = shell_of(miller, gram, 0.4)
    inside = (shell >= 1) & (shell <= 20)
    miller, shell = miller[inside], shell[inside]
    weight = 2.0 - (miller[:, 0] == 0).double()

    def ours(x):
        return loss_of(rk.structure_factor(x, one.cell, one.species, 8.0, 0.4, "sampled", **options).partials)

    def direct(x):
        at = rk.structure.structure_factor_at(x, short, one.species, miller).partials
        totals = torch.zeros(6, 20, dtype=torch.float64).index_add(1, shell - 1, at * weight)
        counts = torch.bincount(shell - 1, weight, 20)
        return loss_of(torch.where(counts > 0, totals / counts.clamp_min(1.0), 0.0))

    for got, wanted in zip(derivatives(ours, one.positions), derivatives(direct, one.positions), strict=True):
        assert (got - wanted).abs().max() < 1e-8 * wanted.abs().max()
    plain = rk.structure_factor(
        one.positions.clone().requires_grad_(), one.cell, one.species, 8.0, 0.4, "sampled", **options
    )
    assert torch.equal(plain.counts, found.counts) and plain.partials.requires_grad and not plain.errors.requires_grad


def test_composed_with_what_moves_the_atoms():
    """Second derivatives of ‖∂L/∂x‖² where positions are themselves a function, and chosen vectors under strain."""
    one = system("triclinic", 8)
    base = torch.linalg.solve(one.cell.T, one.positions.T).T
    miller = torch.tensor([[1, 0, 0], [1, -2, 1], [0, 3, 2]])

    def shells(x):
        positions = one.positions + 0.1 * torch.sin(x @ one.cell)
        return loss_of(
            rk.structure_factor(positions, one.cell, one.species, 2.4, 0.3, "grid", tolerance=EXACT).partials
        )

    def chosen(x):
        cell = one.cell @ (torch.eye(3, dtype=torch.float64) + 0.1 * torch.sin(x[:3]))
        at = rk.structure.structure_factor_at(base @ one.cell + 0.1 * torch.cos(x), cell, one.species, miller)
        return loss_of(at.partials) + at.q.square().sum()

    for function in (shells, chosen):

        def square(x, function=function):
            (first,) = torch.autograd.grad(function(x), x, create_graph=True)
            return first.square().sum()

        x = (0.2 * base).requires_grad_()
        (found,) = torch.autograd.grad(square(x), x)
        for atom, axis in itertools.islice(itertools.product(range(8), range(3)), 0, 24, 5):
            step = torch.zeros_like(base)
            step[atom, axis] = 1e-4
            forward, back = (square((0.2 * base + s * step).requires_grad_()) for s in (1, -1))
            difference = float((forward - back).detach()) / 2e-4
            assert float(found[atom, axis]) == pytest.approx(difference, rel=1e-5, abs=1e-4 * float(found.abs().max()))


def test_batched_gradients_equal_single_ones():
    parts = [system("triclinic", 12), None, system("flat", 1, (8,)), system("skewed", 9)]
    positions, cells, species, offsets = batch(parts, torch.eye(3, dtype=torch.float64) * 9.0)
    for method in ROUTES:

        def together(x, method=method):
            return loss_of(rk.structure_factor(x, cells, species, 3.0, 0.2, method, offsets, tolerance=FINE).partials)

        found = derivatives(together, positions)
        one = parts[0]
        x = one.positions.clone().requires_grad_()
        labels = [8, 11, 14]
        assert torch.unique(one.species).tolist() == labels
        single = rk.structure_factor(x, one.cell, one.species, 3.0, 0.2, method, tolerance=FINE).partials
        (wanted,) = torch.autograd.grad(loss_of(single), x)
        assert (found[0][:12] - wanted).abs().max() < 1e-7 * wanted.abs().max()
        # One atom alone has S = 1 wherever it is.
        assert found[0][12].abs().max() < 1e-7 and all(part.isfinite().all() for part in found)


def test_gradients_of_any_layout_and_precision():
    one = system("triclinic", 12)
    wide = torch.zeros(12, 6, dtype=torch.float64)
    wide[:, ::2] = one.positions
    x, y = one.positions.clone().requires_grad_(), wide[:, ::2].requires_grad_()
    values = [rk.structure_factor(z, one.cell, one.species, 3.0, 0.2, "grid", tolerance=FINE).partials for z in (x, y)]
    upstream = torch.ones(1, 1, dtype=torch.float64).expand(6, 15)
    known = ~values[0].isnan().any(0)
    (a,) = torch.autograd.grad(values[0][:, known], x, upstream[:, known].contiguous())
    (b,) = torch.autograd.grad(values[1][:, known], y, upstream[:, known])
    assert not y.is_contiguous()
    assert (a - b).abs().max() < 1e-10 * a.abs().max()
    z = one.positions.float().requires_grad_()
    low = rk.structure_factor(z, one.cell.float(), one.species, 3.0, 0.2, "grid", tolerance=FINE).partials
    (c,) = torch.autograd.grad(low[:, known].sum(), z)
    assert c.dtype == torch.float32
    exact = z.detach().double().requires_grad_()
    high = rk.structure_factor(exact, one.cell.float().double(), one.species, 3.0, 0.2, "grid", tolerance=FINE).partials
    (d,) = torch.autograd.grad(high[:, known].sum(), exact)
    assert (c.double() - d).abs().max() < 1e-5 * d.abs().max()


def test_bins_without_vectors_have_no_gradient():
    """A NaN there must not reach the atoms."""
    one = system("triclinic", 12)
    for method in ROUTES:
        x = one.positions.clone().requires_grad_()
        partials = rk.structure_factor(x, one.cell, one.species, 3.0, 0.2, method).partials
        assert partials.isnan().any()
        (gradient,) = torch.autograd.grad(partials.nan_to_num().sum(), x)
        assert gradient.isfinite().all() and gradient.abs().max() > 0


def test_the_third_order_raises():
    one = system("triclinic", 5)
    x = one.positions.clone().requires_grad_()
    value = rk.structure_factor(x, one.cell, one.species, 2.4, 0.4, "grid").partials.nan_to_num().square().sum()
    (first,) = torch.autograd.grad(value, x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    with pytest.raises(rk.errors.DerivativeNotProvidedError, match="structure_sums_backward_backward"):
        second.sum().backward()


def test_gradients_need_smaller_boxes():
    assert (
        sampling.largest_box(1000, 2, 2, 1e9)
        < sampling.largest_box(1000, 2, 1, 1e9)
        < sampling.largest_box(1000, 2, 0, 1e9)
    )


def test_a_loss_moves_atoms_towards_a_structure_factor():
    """Gradient descent on ‖S − S_target‖² from displaced atoms recovers the target's S(Q)."""
    one = system("orthorhombic", 16, (14, 8))
    target = one.factor(3.0, 0.25).partials.nan_to_num()
    generator = torch.Generator().manual_seed(8)
    x = (one.positions + 0.05 * torch.randn(16, 3, dtype=torch.float64, generator=generator)).requires_grad_()
    optimizer = torch.optim.LBFGS([x], lr=0.5, max_iter=30, line_search_fn="strong_wolfe")
    losses = []

    def closure():
        optimizer.zero_grad()
        found = rk.structure_factor(x, one.cell, one.species, 3.0, 0.25, "grid").partials.nan_to_num()
        loss = (found - target).square().sum()
        loss.backward()
        losses.append(float(loss))
        return loss

    optimizer.step(closure)
    assert losses[-1] < 1e-2 * losses[0]
