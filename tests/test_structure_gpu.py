"""S(Q) and g(r) on a GPU against the CPU; not yet run on a GPU."""

import pytest
import torch
from structure_systems import ROUTES, assert_same, batch, system

import rsa_kernels as rk

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def gpu():
    """Skip where there is none, or no cufinufft."""
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    pytest.importorskip("cufinufft", reason="cufinufft is not installed")


def on_gpu(*tensors):
    return [x.cuda() for x in tensors]


@pytest.mark.parametrize("method", ROUTES)
def test_partials_and_both_derivatives(method):
    parts = [system("triclinic", 20), None, system("skewed", 30)]
    given = batch(parts, torch.eye(3, dtype=torch.float64) * 9.0)

    def results(positions, cells, species, offsets):
        x = positions.clone().requires_grad_()
        found = rk.structure_factor(x, cells, species, 4.0, 0.2, method, offsets, tolerance=1e-11)
        (first,) = torch.autograd.grad(found.partials.nan_to_num().sin().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
        return found.counts, found.partials.detach(), first.detach(), second

    wanted, found = results(*given), [x.cpu() for x in results(*on_gpu(*given))]
    assert torch.equal(found[0], wanted[0])
    assert_same(found[1], wanted[1], 1e-8)
    for ours, theirs in zip(found[2:], wanted[2:], strict=True):
        assert (ours - theirs).abs().max() < 1e-7 * theirs.abs().max()


def test_a_sample_is_the_same_one():
    one = system([[30.0, 0, 0], [4.0, 29.0, 0], [0, 0, 31.0]], 50)
    wanted = one.factor(9.0, 0.1, "sampled", per_shell=300)
    found = type(one)(*on_gpu(one.positions, one.cell, one.species)).factor(9.0, 0.1, "sampled", per_shell=300)
    assert torch.equal(found.boxes, wanted.boxes) and torch.equal(found.counts.cpu(), wanted.counts)
    assert_same(found.partials.cpu(), wanted.partials, 1e-8)
    assert_same(found.errors.cpu(), wanted.errors, 1e-8)


def test_pair_distributions_are_equal():
    one = system("triclinic", 40)
    arguments = one.positions, one.cell, one.species
    wanted = rk.pair_distribution(*arguments, 9.0, 0.1)
    found = rk.pair_distribution(*on_gpu(*arguments), 9.0, 0.1)
    assert torch.equal(found.counts.cpu(), wanted.counts)


def test_memory_and_time_of_a_million_atoms():
    """Runs, and stays within the memory asked for."""
    n = 1_000_000
    edge = (n / 0.0662) ** (1 / 3)
    positions = edge * torch.rand(n, 3, dtype=torch.float64, device="cuda")
    cell = edge * torch.eye(3, dtype=torch.float64, device="cuda")
    species = torch.arange(n, device="cuda") % 3 // 2
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    found = rk.structure_factor(positions, cell, species, 10.0, 0.05, "grid", max_memory=8.0)
    # What cufinufft allocates itself is not in torch's figures.
    assert torch.cuda.max_memory_allocated() - before < 8.0 * 2**30
    assert found.partials.nan_to_num(1.0)[:, -50:].mean().item() == pytest.approx(1.0, abs=0.01)
