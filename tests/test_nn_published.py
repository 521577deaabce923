"""Mode lists of the RSA and RSGA papers in any box, and the attention through lists that tear ± pairs apart."""

import itertools
import math

import pytest
import torch

from profiling import rotary
from rsa_kernels import nn
from rsa_kernels.errors import CapacityError
from rsa_kernels.reciprocal import published

pytestmark = pytest.mark.usefixtures("one_thread")

BOXES = {
    # Among ±x and ±y there is room for two of four; the list takes +y and −x.
    "rsa": torch.diag(torch.tensor([20.0, 20.0, 45.0], dtype=torch.float64)),
    # The cap of 1,024 falls inside a shell of 24.
    "rsga": 14.0 * torch.eye(3, dtype=torch.float64),
}


def torn_modes(name):
    modes = published.rsa_modes(BOXES["rsa"]) if name == "rsa" else published.rsga_modes(BOXES["rsga"], 5.0)
    assert modes.odd.n_modes > 0
    return modes


def leaves(cell, n_atoms=7, width=6):
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, n_atoms, width, dtype=torch.float64, generator=generator)
    positions = (3.0 * torch.rand(n_atoms, 3, dtype=torch.float64, generator=generator) - 1.0) @ cell
    return [x.requires_grad_() for x in (q, k, v, positions)]


def through_two_derivatives(function, tensors):
    """Value, gradient and the gradient of the gradient's square."""
    value = function(*tensors)
    gradient = torch.autograd.grad(
        (value * torch.cos(torch.arange(value.numel())).view_as(value)).sum(), tensors, create_graph=True
    )
    return (value, *gradient, *torch.autograd.grad(sum(x.square().sum() for x in gradient), tensors))


@pytest.mark.parametrize("method", ["pairwise", "spectral"])
@pytest.mark.parametrize("name", ["rsa", "rsga"])
def test_torn_pairs_through_two_derivatives(name, method):
    """Against queries and keys that are rotated and multiplied, wave by wave, as published."""
    modes, cell = torn_modes(name), BOXES[name]

    def ours(q, k, v, positions):
        heads = (x.unsqueeze(1) for x in (q, k, v))
        return published.rotary_attention(*heads, positions, cell, modes, method=method).squeeze(1)

    def theirs(q, k, v, positions):
        return rotary.attention(q, k, v, positions, cell, modes.miller, modes.weights)

    tensors = leaves(cell)
    for got, expected in zip(*(through_two_derivatives(one, tensors) for one in (ours, theirs)), strict=True):
        assert float((got - expected).abs().max()) < 1e-12 * float(expected.abs().max())


@pytest.mark.parametrize("name", ["rsa", "rsga"])
def test_the_odd_part_matters(name):
    """What the test above would not see if both sides lacked it."""
    modes, cell = torn_modes(name), BOXES[name]
    q, k, v, positions = (x.detach() for x in leaves(cell))
    whole = rotary.attention(q, k, v, positions, cell, modes.miller, modes.weights)
    even = published.reciprocal_attention(*(x.unsqueeze(1) for x in (q, k, v)), positions, cell, modes.even).squeeze(1)
    # The last shell of RSGA's 1,024 waves weighs little; still it is a million times the tolerance above.
    assert float((whole - even).abs().max()) > 1e-6 * float(whole.abs().max())


def test_any_list_folds_into_two_halves():
    """Every subset of the waves of two systems, pairs torn or not, gives the same sum of cosines and sines."""
    generator = torch.Generator().manual_seed(0)
    span = torch.arange(-2, 3, dtype=torch.int32)
    every = torch.cartesian_prod(span, span, span)
    every = every[every.any(dim=1)]
    picked = [every[torch.randperm(124, generator=generator)[:count]] for count in (60, 0, 124)]
    miller = torch.cat(picked)
    system = torch.repeat_interleave(torch.arange(3), torch.tensor([len(one) for one in picked]))
    length = miller.double().norm(dim=1)
    even, odd = published._halves(miller, length, system, 3, 9.0)
    assert even.mode_ptr.tolist()[1] == even.mode_ptr.tolist()[2]
    assert even.n_modes < len(miller)
    point = torch.rand(3, dtype=torch.float64, generator=generator)
    for number, (low, high) in enumerate(itertools.pairwise(even.mode_ptr.tolist())):
        phases = 2.0 * math.pi * miller[system == number].double() @ point
        of_even = 2.0 * math.pi * even.miller[low:high].double() @ point
        own = slice(*odd.mode_ptr.tolist()[number : number + 2])
        of_odd = 2.0 * math.pi * odd.miller[own].double() @ point
        cosines, sines = ((length[system == number] * f(phases)).sum() for f in (torch.cos, torch.sin))
        assert float(2.0 * (even.weights[low:high] * of_even.cos()).sum()) == pytest.approx(float(cosines), abs=1e-11)
        assert float(2.0 * (odd.weights[own] * of_odd.sin()).sum()) == pytest.approx(float(sines), abs=1e-11)


@pytest.mark.parametrize("edge", [9.0, 12.0, 20.0])
def test_rsga_list_is_the_largest_weights_up_to_share_and_cap(edge):
    cell = torch.tensor([[1.0, 0.0, 0.0], [0.2, 0.9, 0.0], [-0.1, 0.3, 1.1]], dtype=torch.float64) * edge
    modes = published.rsga_modes(cell, 5.0)
    span = torch.arange(-16, 17, dtype=torch.float64)
    n = torch.cartesian_prod(span, span, span)
    k = 2.0 * math.pi * (n @ torch.linalg.inv(cell).T).norm(dim=1)
    sigma = published.rsga_sigma(5.0)
    k = k[(k > 0) & (k <= math.sqrt(-2.0 * math.log(1e-3)) / sigma)]
    every = (torch.exp(-0.5 * sigma**2 * k**2) / k**2).sort(descending=True).values
    count = min(int((every.cumsum(0) < (1.0 - 1e-6) * every.sum()).sum()) + 1, 1024)
    assert (count == 1024) == (edge > 12.0)
    assert modes.n_modes == count == len({tuple(n) for n in modes.miller.tolist()})
    assert torch.allclose(modes.weights, every[:count] / torch.linalg.det(cell), rtol=1e-12, atol=0.0)


def test_sigma_of_the_paper():
    assert published.rsga_sigma(5.0) == pytest.approx(5.0 / 4.292, rel=1e-4)


def test_stress_of_the_published_gated_layer():
    """Right here, while the list stays as it is; the original leaves out the cell."""
    generator = torch.Generator().manual_seed(0)
    cell = torch.tensor([[7.0, 0.0, 0.0], [1.0, 6.0, 0.0], [-0.6, 0.5, 8.0]], dtype=torch.float64)
    positions = torch.rand(5, 3, dtype=torch.float64, generator=generator) @ cell
    layer = nn.ReciprocalSpaceGatedAttention(4, norm="rsga", r_max=5.0, dtype=torch.float64)
    x = torch.randn(5, 4, dtype=torch.float64, generator=generator)

    def value(strain):
        deformation = torch.eye(3, dtype=torch.float64) + strain
        return layer(x, positions @ deformation, cell @ deformation).update.square().sum()

    strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(value(strain), strain)
    for row, column in itertools.product(range(3), repeat=2):
        unit = torch.zeros(3, 3, dtype=torch.float64)
        unit[row, column] = 1.0

        def slope(step, unit=unit):
            return float((value(0.5 * step * unit) - value(-0.5 * step * unit)).detach()) / step

        difference = (4.0 * slope(1e-4) - slope(2e-4)) / 3.0
        assert abs(float(gradient[row, column]) - difference) < 1e-7 * float(gradient.abs().max())


@pytest.mark.parametrize(
    "cell",
    [
        torch.diag(torch.tensor([9.0, 12.0, 12.0])),
        torch.tensor([[12.0, 0.0, 0.0], [1.0, 12.0, 0.0], [0.0, 0.0, 12.0]]),
    ],
)
def test_rsa_refuses_what_the_original_cannot_mean(cell):
    with pytest.raises(ValueError, match="`cell` must be orthorhombic along x, y, z with edges of at least 10 Å"):
        published.rsa_modes(cell)


def test_lists_refuse_vacuum_and_too_many_waves(monkeypatch):
    cell = 12.0 * torch.eye(3)
    for make in (published.rsa_modes, lambda *a, **b: published.rsga_modes(*a, 5.0, **b)):
        with pytest.raises(ValueError, match="`pbc` must be True in every direction"):
            make(cell, pbc=(True, True, False))
    monkeypatch.setattr(published, "memory_available", lambda: 2.0**16)
    with pytest.raises(CapacityError, match=r"are chosen among 3.38e\+03"):
        published.rsga_modes(cell, 5.0)


def test_rotary_attention_refuses_other_waves_and_odd_widths():
    modes, cell = torn_modes("rsa"), BOXES["rsa"]
    q, k, v, positions = (x.detach() for x in leaves(cell))
    q, k, v = (x.unsqueeze(1) for x in (q, k, v))
    with pytest.raises(TypeError, match="`modes` must be PublishedModes"):
        published.rotary_attention(q, k, v, positions, cell, modes.even)
    with pytest.raises(ValueError, match="`q` must have heads of even width"):
        published.rotary_attention(q[..., :5], k[..., :5], v, positions, cell, modes)
