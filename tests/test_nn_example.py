"""The worked example: a message-passing network with a layer of each kind learns, with right forces and stress."""

import re
from pathlib import Path

import nn_example
import pytest
import torch
from nn_example import MessagePassing, WithAttention, WithCharges, WithPlainAttention, energy_forces_stress

import rsa_kernels as rk

pytestmark = pytest.mark.usefixtures("one_thread")

MODELS = {
    "rsa": WithPlainAttention,
    "rsga": WithAttention,
    "latent ewald": lambda: WithCharges(rk.nn.LatentEwald(sigma=1.0)),
    "sum of gaussians": lambda: WithCharges(rk.nn.SumOfGaussians(k_cut=3.0)),
}


def structures():
    """Three boxes of unlike sizes with ions of charge ±1, their Coulomb energy and forces."""
    generator = torch.Generator().manual_seed(0)
    counts, positions, cells = (6, 8, 10), [], []
    for number, count in enumerate(counts):
        skew = 0.4 * torch.randn(3, 3, dtype=torch.float64, generator=generator)
        cells.append((5.5 + 0.5 * number) * torch.eye(3, dtype=torch.float64) + skew)
        positions.append(torch.rand(count, 3, dtype=torch.float64, generator=generator) @ cells[-1])
    positions, cell = torch.cat(positions).requires_grad_(), torch.stack(cells)
    batch = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    species = torch.cat([torch.arange(count) % 2 for count in counts])
    charges = 2.0 * species.double() - 1.0
    truth = rk.nn.LatentEwald(sigma=0.8, k_cut=4.0, scale=10.0)
    energy = truth(charges, positions, cell, rk.nn.batch_pointers(batch))
    (gradient,) = torch.autograd.grad(energy.sum(), positions)
    return (species, positions.detach(), cell, batch), energy.detach(), -gradient


@pytest.mark.parametrize("name", MODELS)
def test_a_network_with_the_layer_learns(name):
    torch.manual_seed(0)
    inputs, energies, forces = structures()
    model = MODELS[name]()
    layer_before = [one.detach().clone() for one in model.long_range.parameters()]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        energy, force, _ = energy_forces_stress(model, *inputs)
        loss = (energy - energies).square().mean() + (force - forces).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0], losses
    for before, after in zip(layer_before, model.long_range.parameters(), strict=True):
        assert not torch.equal(before, after)


@pytest.mark.parametrize("name", MODELS)
def test_forces_and_stress_of_the_network(name):
    torch.manual_seed(0)
    (species, positions, cell, batch), _, _ = structures()
    model = MODELS[name]().double().eval()
    _, forces, stress = energy_forces_stress(model, species, positions, cell, batch)
    generator = torch.Generator().manual_seed(1)
    along = torch.randn(positions.shape, dtype=torch.float64, generator=generator)
    strain = torch.randn(3, 3, dtype=torch.float64, generator=generator)
    strain = 0.5 * (strain + strain.T)

    def total(step, bend):
        deformation = torch.eye(3, dtype=torch.float64) + bend * strain
        return float(model(species, (positions + step * along) @ deformation, cell @ deformation, batch).sum().detach())

    def slope(function, h=1e-3):
        first, second = ((function(one) - function(-one)) / (2.0 * one) for one in (h, 0.5 * h))
        return (4.0 * second - first) / 3.0

    assert slope(lambda h: total(h, 0.0)) == pytest.approx(-float((forces * along).sum()), rel=1e-6)
    work = float((torch.linalg.det(cell).abs().view(-1, 1, 1) * stress * strain).sum())
    assert slope(lambda h: total(0.0, h)) == pytest.approx(work, rel=1e-6)


def test_the_layer_sees_what_the_network_does_not():
    """A charge far beyond the cutoff changes nothing for the plain network, and something for the layer."""
    torch.manual_seed(0)
    cell = 20.0 * torch.eye(3, dtype=torch.float64).unsqueeze(0)
    near, far = (torch.tensor([[0.0, 0.0, 0.0], [x, 0.0, 0.0]], dtype=torch.float64) for x in (7.0, 9.0))
    arguments = cell, torch.zeros(2, dtype=torch.int64)
    species = torch.tensor([0, 1])
    for make, sees in ((MessagePassing, False), *((one, True) for one in MODELS.values())):
        model = make().double()
        change = float((model(species, near, *arguments) - model(species, far, *arguments)).abs())
        assert (change > 1e-9) == sees


def test_the_readme_quotes_the_example():
    source = Path(nn_example.__file__).read_text(encoding="utf-8")
    readme = (Path(rk.__file__).parent / "nn" / "README.md").read_text(encoding="utf-8")
    for part in ("attention", "charges"):
        (code,) = re.findall(rf"# \[{part}\]\n(.*?)\n+# \[/{part}\]", source, flags=re.DOTALL)
        assert code in readme
