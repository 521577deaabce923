"""Vectors of listed pairs: the op and its transpose against torch, derivatives of every order, threads, batches."""

import ase.geometry
import numpy as np
import pytest
import torch
from native_settings import threads
from neighbor_cases import FULL_PBC, batch_of, listed, random_case, tensor

import rsa_kernels as rk
from rsa_kernels.neighbors import vectors as op

pytestmark = pytest.mark.usefixtures("one_thread")


def batch(sizes=(4, 0, 3, 1), half=False):
    _, positions, cells, pbc, batch_ptr = batch_of(np.random.default_rng(0), sizes, cutoff=1.8)
    nl = rk.neighbor_list(positions, cells, pbc, 1.8, batch_ptr=batch_ptr, half=half)
    assert nl.edge_index.shape[1] > 4
    return nl, positions, rk.cells.complete(cells, pbc)


def pairs_of(nl):
    return nl.batch_ptr, nl.edge_index, nl.unit_shifts, nl.row_ptr


def large():
    """Enough pairs for threads to share them; several systems."""
    rng = np.random.default_rng(1)
    cells = np.stack([np.diag(rng.uniform(9, 12, 3)) for _ in range(3)])
    positions = tensor(np.concatenate([rng.uniform(-1, 2, (400, 3)) @ cell for cell in cells]))
    offsets = torch.tensor([0, 400, 800, 1200])
    nl = rk.neighbor_list(positions, tensor(cells), True, 4.0, batch_ptr=offsets)
    assert nl.edge_index.shape[1] > 16384
    return nl, positions, tensor(cells)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_op_and_its_transpose_equal_their_definitions(dtype):
    generator = torch.Generator().manual_seed(0)
    for nl, positions, cells in (batch(), batch((5,)), batch(half=True), large()):
        x, h, pairs = positions.to(dtype), cells.to(dtype), pairs_of(nl)
        # Sums of a few numbers of some tens of Å; of a few hundred, in another order, for the transpose.
        limit = 300 * torch.finfo(dtype).eps
        vectors = op.neighbor_vectors(x, h, *pairs)
        assert vectors.dtype == dtype
        torch.testing.assert_close(vectors, op.vectors_torch(x, h, *pairs), rtol=0, atol=limit)
        gradient = torch.randn(vectors.shape, generator=generator, dtype=torch.float64).to(dtype)
        ours = op.neighbor_vectors_transposed(gradient, *pairs)
        wanted = op.transposed_torch(gradient.double(), *pairs)
        for got, want in zip(ours, wanted, strict=True):
            assert got.dtype == dtype and got.shape == want.shape
            torch.testing.assert_close(got.double(), want, rtol=0, atol=limit * (1 + float(want.abs().max())))


def test_they_are_transposes_of_each_other():
    """⟨g, L(x, h)⟩ = ⟨Lᵀ g, (x, h)⟩ for random numbers."""
    generator = torch.Generator().manual_seed(1)
    for nl, positions, cells in (batch(), large()):
        x, h = (torch.randn(t.shape, generator=generator, dtype=torch.float64) for t in (positions, cells))
        vectors = op.neighbor_vectors(x, h, *pairs_of(nl))
        g = torch.randn(vectors.shape, generator=generator, dtype=torch.float64)
        of_x, of_h = op.neighbor_vectors_transposed(g, *pairs_of(nl))
        left, right = (g * vectors).sum(), (of_x * x).sum() + (of_h * h).sum()
        torch.testing.assert_close(left, right, rtol=1e-11, atol=0)


@pytest.mark.parametrize("half", [False, True])
def test_gradients_of_first_and_second_order(half):
    nl, positions, cells = batch(half=half)
    leaves = positions.requires_grad_(), cells.clone().requires_grad_()
    for function in (nl.vectors, nl.distances):
        assert torch.autograd.gradcheck(function, leaves)
        assert torch.autograd.gradgradcheck(function, leaves)
    gradient = torch.randn(nl.edge_index.shape[1], 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda g: op.neighbor_vectors_transposed(g, *pairs_of(nl)), gradient)
    assert torch.autograd.gradgradcheck(lambda g: op.neighbor_vectors_transposed(g, *pairs_of(nl)), gradient)


def test_one_cell_for_a_batch_gathers_the_gradients_of_all_systems():
    nl, positions, _ = batch((4, 3))
    cell = (3.0 * torch.eye(3, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda h: nl.vectors(positions, h).square().sum(), cell)


def test_a_loss_on_forces_and_stress_under_strain():
    """The second derivative that training takes: of ‖F‖² + ‖σ‖², by positions and strain, with r = r₀ (1 + ε)."""
    case = positions, cell, _, _ = random_case(np.random.default_rng(2), "ordinary")
    cell = ase.geometry.complete_cell(cell)
    nl = listed((positions, cell, *case[2:]))
    x, h = tensor(positions), tensor(cell)

    def loss(moved, strain):
        deformation = torch.eye(3, dtype=torch.float64) + strain
        distances = nl.distances(moved @ deformation, h @ deformation)
        energy = torch.exp(-distances).sum()
        forces, stress = torch.autograd.grad(energy, (moved, strain), create_graph=True)
        return forces.square().sum() + stress.square().sum()

    leaves = x.clone().requires_grad_(), (0.01 * torch.eye(3, dtype=torch.float64)).requires_grad_()
    assert nl.edge_index.shape[1] > 10
    assert torch.autograd.gradcheck(loss, leaves)


def test_the_third_derivative_is_there():
    nl, positions, cells = batch((4,))
    x = positions.clone().requires_grad_()
    value = (nl.vectors(x, cells) ** 4).sum()
    for _ in range(3):
        (gradient,) = torch.autograd.grad(value, x, create_graph=True)
        value = gradient.pow(2).sum()
    assert float(value.detach()) > 0


def test_bitwise_the_same_for_any_number_of_threads():
    nl, positions, cells = large()
    gradient = torch.randn(nl.edge_index.shape[1], 3, dtype=torch.float64)

    def run():
        pairs = pairs_of(nl)
        return op.neighbor_vectors(positions, cells, *pairs), *op.neighbor_vectors_transposed(gradient, *pairs)

    wanted = run()
    for count in (1, 2, 3, 7):
        with threads(count):
            assert all(torch.equal(a, b) for a, b in zip(run(), wanted, strict=True))


@pytest.mark.parametrize("name", ["neighbor_vectors", "neighbor_vectors_transposed"])
def test_opcheck_and_strided_and_poisoned(name, monkeypatch):
    nl, positions, cells = batch()
    function = getattr(op, name)
    first = (positions, cells) if name == "neighbor_vectors" else (torch.randn(nl.edge_index.shape[1], 3).double(),)
    torch.library.opcheck(function.overload, (*(x.clone().requires_grad_() for x in first), *pairs_of(nl)))
    wanted = function(*first, *pairs_of(nl))
    strided = [torch.stack([x, x], dim=-1)[..., 1] for x in (*first, *pairs_of(nl))]
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, **options: empty(*size, **options).fill_(float("nan")))
    got = function(*strided)
    pairs = [(got, wanted)] if torch.is_tensor(got) else zip(got, wanted, strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_no_pairs_and_no_atoms():
    for n_atoms in (0, 3):
        positions = 100.0 * torch.arange(3 * n_atoms, dtype=torch.float64).view(n_atoms, 3)
        cell = torch.eye(3, dtype=torch.float64).requires_grad_()
        nl = rk.neighbor_list(positions, cell, False, 1.0)
        vectors = nl.vectors(positions.requires_grad_(), cell)
        assert vectors.shape == (0, 3)
        gradients = torch.autograd.grad(vectors.sum(), (positions, cell))
        assert all(not bool(g.any()) for g in gradients)


def test_a_large_system_like_one_atom_after_the_other():
    """Rows of one list against the definition, so that a place in memory that is wrong cannot hide."""
    rng = np.random.default_rng(3)
    cell = np.diag([15.0, 14.0, 13.0])
    positions = rng.uniform(0, 1, (500, 3)) @ cell
    nl = listed((positions, cell, np.array(FULL_PBC), 4.0))
    vectors = nl.vectors(tensor(positions), tensor(cell)).numpy()
    i, j = nl.edge_index.numpy()
    wanted = positions[j] - positions[i] + nl.unit_shifts.numpy() @ cell
    np.testing.assert_allclose(vectors, wanted, rtol=0, atol=1e-13)
