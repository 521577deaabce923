"""The layers as torch modules: definitions, derivatives, batches, state, precision, compilation, refusals."""

import copy
import math

import pytest
import torch
from nn_systems import ATTENTION, CASES, ENERGY, K_CUT, MODULES, SIGMA, WIDTH, crystal, energy, module

import rsa_kernels as rk
from rsa_kernels import nn
from rsa_kernels.reciprocal import reference, spectra

pytestmark = pytest.mark.usefixtures("one_thread")


def features(n_atoms, name="rsa", dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    width = 2 if name in ENERGY else WIDTH
    return torch.randn(n_atoms, width, dtype=torch.float64, generator=generator).to(dtype)


def outputs(out) -> tuple:
    return tuple(out) if isinstance(out, tuple) else (out,)


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


# Definitions


@pytest.mark.parametrize("heads", [1, 2])
def test_plain_layer_is_its_formula(heads):
    positions, cell, _ = crystal()
    layer = module("rsa", heads=heads)
    x, modes = features(6), rk.reciprocal_modes(cell, K_CUT, spectra.gaussian(SIGMA))
    q, k, v = ((x @ w.T).view(6, heads, -1) for w in layer.qkv.weight.chunk(3))
    silu = torch.nn.functional.silu
    kernel = reference.kernel_matrix(positions @ torch.linalg.inv(cell), modes.miller, modes.weights)
    scores = torch.einsum("ihd,jhd->hij", silu(q), silu(k)) / math.sqrt(WIDTH / heads)
    expected = torch.einsum("hij,ij,jhe->ihe", scores, kernel, v).flatten(1)
    assert relative(layer(x, positions, cell), expected) < 1e-13


@pytest.mark.parametrize("heads", [1, 2])
def test_gated_layer_is_the_plain_one_with_gates(heads):
    positions, cell, _ = crystal()
    gated = module("rsga", heads=heads)
    x = features(6)
    gates = torch.sigmoid(gated.val_gate(x))
    q, k, v = gated.qkv(x).chunk(3, dim=-1)
    q, k, v = (y.view(6, heads, -1) for y in (*map(torch.nn.functional.silu, (q, k)), v * gates))
    u = rk.reciprocal_attention(q, k, v, positions, cell, gated.modes(cell), method="spectral")
    expected = (u * (1.0 + 0.2 * torch.tanh(gated.head_gate(x))).unsqueeze(-1)).flatten(1)
    out = gated(x, positions, cell)
    assert relative(out.update, expected) < 1e-13
    assert torch.equal(out.mix_gate, torch.sigmoid(gated.mix_gate_node(x)))


def plane_wave_energy(charges, positions, cell, k_cut, weight, window=None):
    """(1/V) Σ_k w |Σ q e^{ikr}|² over every wave of full space, from complex exponentials."""
    span = torch.arange(-12, 13, dtype=torch.float64)
    k = 2.0 * math.pi * torch.cartesian_prod(span, span, span) @ torch.linalg.inv(cell).T
    length = k.norm(dim=1)
    k, length = (y[(length > 0) & (length < k_cut)] for y in (k, length))
    amplitude = torch.exp(1j * (positions @ k.T)).T @ charges.to(torch.complex128)
    weights = weight(length) * (1.0 if window is None else window(length / k_cut))
    return (weights * amplitude.abs().square().sum(1)).sum() / torch.linalg.det(cell)


def test_latent_ewald_as_published():
    positions, cell, _ = crystal()
    charges = features(6, "latent ewald")
    layer = nn.LatentEwald(norm="les")
    expected = plane_wave_energy(charges, positions, cell, math.pi, lambda k: torch.exp(-0.5 * k**2) / k**2)
    assert relative(layer(charges, positions, cell), expected) < 1e-13


def test_latent_ewald_without_self_energy_is_that_of_point_charges():
    """A lattice of unit charges in a background has ½ · −2.837297/L; Gaussian ones lack ½ · 2πσ²/V of the background.

    The Coulomb constant is 1/2π where `scale` is 1.
    """
    length = 20.0
    cell = length * torch.eye(3, dtype=torch.float64)
    charge, position = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 3, dtype=torch.float64)
    got = nn.LatentEwald(1.0, 5.0, norm="les", subtract_self=True)(charge, position, cell)
    # Waves beyond 5 1/Å carry 4e-8.
    assert float(got) == pytest.approx(-2.837297479 / (4.0 * math.pi * length) + 0.5 / length**3, rel=1e-5)


def test_sum_of_gaussians_is_its_formula():
    positions, cell, _ = crystal()
    charges = features(6, "sum of gaussians")
    for norm, window in (("sog", None), ("intensive", lambda x: rk.reciprocal.modes.window(x, 0.8))):
        layer = module("sum of gaussians", norm=norm, scale=1.7)

        def weight(k, layer=layer):
            return sum(
                a * torch.exp(-(k**2) * torch.exp(2 * s))
                for a, s in zip(layer.amplitudes, layer.log_widths, strict=True)
            )

        expected = 1.7 * plane_wave_energy(charges, positions, cell, K_CUT, weight, window)
        assert relative(layer(charges, positions, cell), expected) < 1e-13


def test_sum_of_gaussians_starts_as_published():
    layer = nn.SumOfGaussians(3.0)
    assert torch.equal(layer.amplitudes, torch.ones(12))
    assert torch.equal(layer.log_widths, torch.linspace(-0.5, 1.0, 12))


def test_gates_start_as_published():
    layer = nn.ReciprocalSpaceGatedAttention(WIDTH, k_cut=2.0, sigma=1.0)
    out = layer(torch.randn(3, WIDTH), torch.rand(3, 3), 6.0 * torch.eye(3))
    assert torch.allclose(out.mix_gate, torch.sigmoid(torch.tensor(-5.0)).expand(3, 1))
    assert torch.allclose(torch.sigmoid(layer.val_gate(torch.randn(3, WIDTH))), torch.sigmoid(torch.tensor(2.0)))
    assert not layer.head_gate(torch.randn(3, WIDTH)).any()


def test_a_spectrum_that_is_a_module_is_trained_with_the_layer():
    class Screened(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.kappa = torch.nn.Parameter(torch.tensor(0.7))

        def forward(self, k):
            return torch.exp(-0.1 * k**2) / (k**2 + self.kappa**2)

    layer = nn.ReciprocalSpaceAttention(WIDTH, k_cut=K_CUT, spectrum=Screened(), dtype=torch.float64)
    positions, cell, _ = crystal()
    layer(features(6), positions, cell).square().sum().backward()
    assert set(layer.state_dict()) == {"qkv.weight", "weighting.kappa"}
    assert float(layer.weighting.kappa.grad.abs()) > 0.0


# Derivatives


def force_and_stress_loss(layer, positions, cell, kinds):
    """‖F‖² + ‖virial‖², differentiable once more: the loss of a training step."""
    strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    deformation = torch.eye(3, dtype=torch.float64) + strain
    positions = positions.clone().requires_grad_() if not positions.requires_grad else positions
    value = energy(layer, positions @ deformation, cell @ deformation, kinds)
    gradients = torch.autograd.grad(value, (positions, strain), create_graph=True)
    return sum(one.square().sum() for one in gradients)


@pytest.mark.parametrize(("name", "method"), CASES)
def test_force_loss_is_differentiated_by_parameters_and_positions(name, method):
    positions, cell, kinds = crystal()
    layer = module(name, method)
    leaves = [positions.clone().requires_grad_(), *layer.parameters()]
    loss = force_and_stress_loss(layer, leaves[0], cell, kinds)
    # The bias of a gate at the end of a chain may not matter for forces; zeros stand for it.
    gradients = torch.autograd.grad(loss, leaves, materialize_grads=True)
    generator = torch.Generator().manual_seed(3)
    directions = [torch.randn(one.shape, dtype=torch.float64, generator=generator) for one in leaves]
    expected = float(sum((g * d).sum() for g, d in zip(gradients, directions, strict=True)))

    def loss_at(step):
        moved = copy.deepcopy(layer)
        with torch.no_grad():
            for one, along in zip(moved.parameters(), directions[1:], strict=True):
                one += step * along
        return float(force_and_stress_loss(moved, positions + step * directions[0], cell, kinds).detach())

    def slope(step):
        return (loss_at(0.5 * step) - loss_at(-0.5 * step)) / step

    difference = (4.0 * slope(5e-4) - slope(1e-3)) / 3.0
    scale = math.sqrt(sum(float(g.square().sum()) for g in gradients) * sum(d.numel() for d in directions))
    assert scale > 0.0
    assert abs(expected - difference) < 1e-7 * scale


# Batches


@pytest.mark.parametrize("norm", ["intensive", "published"])
@pytest.mark.parametrize("name", MODULES)
def test_a_batch_is_its_systems(name, norm):
    published = {"rsa": {"norm": "rsa"}, "rsga": {"norm": "rsga", "r_max": 5.0}, "sum of gaussians": {"norm": "sog"}}
    published["rsga heads"], published["latent ewald"] = published["rsga"], {"norm": "les"}
    settings = {} if norm == "intensive" else dict(published[name])
    if name in ATTENTION and norm == "published":
        cls = nn.ReciprocalSpaceAttention if name == "rsa" else nn.ReciprocalSpaceGatedAttention
        heads = {"hidden": 12, "heads": 3} if name == "rsga heads" else {}
        layer = cls(WIDTH, **heads, dtype=torch.float64, **settings)
    else:
        layer = module(name, "spectral", **settings)
    counts = [6, 0, 1, 5]
    cells = [torch.diag(torch.tensor([11.0 + n, 12.0, 13.0], dtype=torch.float64)) for n in range(4)]
    positions = [10.0 * torch.rand(n, 3, dtype=torch.float64) for n in counts]
    x = [features(n, name, seed=n) for n in counts]
    batch = torch.repeat_interleave(torch.arange(4), torch.tensor(counts))
    leaf = torch.cat(positions).requires_grad_()
    whole = outputs(layer(torch.cat(x), leaf, torch.stack(cells), nn.batch_pointers(batch)))
    (gradient,) = torch.autograd.grad(sum(one.square().sum() for one in whole), leaf)
    singles, gradients = [], []
    for y, r, cell in zip(x, positions, cells, strict=True):
        r = r.clone().requires_grad_()
        singles.append(outputs(layer(y, r, cell)))
        value = sum(one.square().sum() for one in singles[-1])
        gradients.append(torch.autograd.grad(value, r, materialize_grads=True)[0])
    for got, parts in zip(whole, zip(*singles, strict=True), strict=True):
        assert relative(got, torch.cat(parts)) < 1e-13
    assert relative(gradient, torch.cat(gradients)) < 1e-13


@pytest.mark.parametrize("name", MODULES)
def test_no_atoms(name):
    layer = module(name)
    x, positions = features(0, name).requires_grad_(), torch.zeros(0, 3, dtype=torch.float64, requires_grad=True)
    out = outputs(layer(x, positions, crystal()[1]))
    assert out[0].shape[0] == (1 if name in ENERGY else 0)
    sum(one.sum() for one in out).backward()
    assert positions.grad.shape == (0, 3)


def test_charges_may_be_one_dimensional():
    positions, cell, _ = crystal()
    charges = features(6)[:, 0]
    layer = nn.LatentEwald()
    assert torch.equal(layer(charges, positions, cell), layer(charges.unsqueeze(1), positions, cell))


def test_waves_made_once_are_the_waves_of_every_layer():
    positions, cell, _ = crystal()
    for name in MODULES:
        layer, x = module(name), features(6, name)
        pairs = zip(*(outputs(layer(x, positions, cell, modes=m)) for m in (None, layer.modes(cell))), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_batch_pointers():
    assert nn.batch_pointers(torch.tensor([0, 0, 2])).tolist() == [0, 2, 2, 3]
    assert nn.batch_pointers(torch.tensor([0, 0, 2]), 5).tolist() == [0, 2, 2, 3, 3, 3]
    assert nn.batch_pointers(torch.zeros(0, dtype=torch.int64), 2).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="`batch` must be ascending"):
        nn.batch_pointers(torch.tensor([0, 1, 0]))
    with pytest.raises(ValueError, match="`batch` must be below `n_systems` = 2, got 2"):
        nn.batch_pointers(torch.tensor([0, 2]), 2)
    with pytest.raises(TypeError, match="`batch` must have dtype"):
        nn.batch_pointers(torch.zeros(3))


# State, precision, compilation


def test_state_has_the_published_names():
    gates = {f"{gate}.{part}" for gate in ("val_gate", "head_gate", "mix_gate_node") for part in ("weight", "bias")}
    assert set(module("rsa").state_dict()) == {"qkv.weight"}
    assert set(module("rsga").state_dict()) == {"qkv.weight", *gates}
    assert set(module("rsga heads").state_dict()) == {"qkv.weight", "in_proj.weight", *gates}
    assert set(module("sum of gaussians").state_dict()) == {"amplitudes", "log_widths"}
    assert not module("latent ewald").state_dict()


@pytest.mark.parametrize("name", MODULES)
def test_state_survives_a_file(name, tmp_path):
    positions, cell, _ = crystal()
    layer, other, x = module(name), module(name, seed=1), features(6, name)
    torch.save(layer.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    torch.save(layer, tmp_path / "whole.pt")
    for one in (other, copy.deepcopy(layer), torch.load(tmp_path / "whole.pt", weights_only=False)):
        pairs = zip(outputs(layer(x, positions, cell)), outputs(one(x, positions, cell)), strict=True)
        assert all(torch.equal(got, expected) for got, expected in pairs)


@pytest.mark.parametrize("name", MODULES)
def test_float32(name):
    positions, cell, _ = crystal()
    layer = module(name, "spectral")
    single, x = copy.deepcopy(layer).float(), features(6, name)
    for got, expected in zip(
        outputs(single(x.float(), positions, cell)), outputs(layer(x, positions, cell)), strict=True
    ):
        assert got.dtype == torch.float32
        # A dozen roundings of 6e-8, for sums of a hundred waves of both signs.
        assert relative(got.double(), expected) < 1e-6


@pytest.mark.parametrize("name", MODULES)
def test_positions_and_cell_in_float32(name):
    positions, cell, _ = (y.float() for y in crystal())
    layer, x = module(name, dtype=torch.float32), features(6, name, torch.float32)
    for one, other in zip(
        outputs(layer(x, positions, cell)), outputs(layer(x, positions.double(), cell.double())), strict=True
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("name", "backend"), [(name, "inductor" if name in ("rsga", "latent ewald") else "eager") for name in MODULES]
)
def test_inference_compiles_once_for_any_number_of_atoms(name, backend):
    torch.compiler.reset()
    layer = module(name)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend=backend)
    with torch.no_grad():
        for n_atoms in (6, 9, 14):
            positions, cell, _ = crystal(n_atoms)
            arguments = (features(n_atoms, name), positions, cell, None, layer.modes(cell))
            for got, expected in zip(outputs(compiled(*arguments)), outputs(layer(*arguments)), strict=True):
                assert relative(got, expected) < 1e-12


def test_layer_that_makes_its_own_waves_compiles_around_them():
    torch.compiler.reset()
    layer = module("rsga")
    compiled = torch.compile(layer, dynamic=True, backend="eager")
    for n_atoms in (6, 9):
        positions, cell, _ = crystal(n_atoms)
        x = features(n_atoms)
        assert relative(compiled(x, positions, cell).update, layer(x, positions, cell).update) < 1e-12


# Refusals

PLAIN, GATED = nn.ReciprocalSpaceAttention, nn.ReciprocalSpaceGatedAttention
WAVES = {"k_cut": 2.0, "sigma": 1.0}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PLAIN(8), "`k_cut` must be given in 1/Å"),
        (lambda: PLAIN(8, k_cut=2.0), "either `sigma` in Å"),
        (lambda: PLAIN(8, spectrum=spectra.constant(), **WAVES), "either `sigma` in Å"),
        (lambda: PLAIN(8, k_cut=-1.0, sigma=1.0), "`k_cut` must be positive and finite, in 1/Å, got -1.0"),
        (lambda: PLAIN(8, k_cut=2.0, sigma=0.0), "`sigma` must be positive and finite, in Å, got 0.0"),
        (lambda: PLAIN(8, norm="rsga", **WAVES), "`norm` must be 'intensive' or 'rsa', got 'rsga'"),
        (lambda: PLAIN(8, norm="rsa", **WAVES), "norm='rsa' fixes its waves and weights itself; leave out `k_cut`"),
        (lambda: PLAIN(7, norm="rsa"), "heads must be of even width, got 7"),
        (lambda: PLAIN(12, heads=4, norm="rsa"), "heads must be of even width, got 3"),
        (lambda: PLAIN(8, heads=3, **WAVES), "`heads` must divide the 8 channels, got 3"),
        (lambda: PLAIN(0, **WAVES), "`hidden` must be a positive int, got 0"),
        (lambda: PLAIN(8, method="fast", **WAVES), "`method` must be one of .*, got 'fast'"),
        (lambda: PLAIN(8, window_start=1.5, **WAVES), "`window_start` must be at most 1, got 1.5"),
        (lambda: GATED(8, norm="rsga"), "`r_max` goes with norm='rsga'"),
        (lambda: GATED(8, r_max=5.0, **WAVES), "`r_max` goes with norm='rsga'"),
        (lambda: GATED(7, 8, norm="rsga", r_max=5.0), "`width` must be an even int, got 7"),
        (lambda: GATED(8, norm="rsga", r_max=-5.0), "`r_max` must be positive and finite, in Å, got -5.0"),
        (lambda: nn.LatentEwald(sigma=-1.0), "`sigma` must be positive and finite, in Å, got -1.0"),
        (lambda: nn.LatentEwald(method="pairwise"), "`method` 'pairwise' does not pay"),
        (lambda: nn.LatentEwald(norm="sog"), "`norm` must be 'intensive' or 'les', got 'sog'"),
        (lambda: nn.SumOfGaussians(3.0, n_terms=0), "`n_terms` must be a positive int, got 0"),
        (lambda: nn.SumOfGaussians(0.0), "`k_cut` must be positive and finite, in 1/Å, got 0.0"),
    ],
)
def test_wrong_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.zeros(6, 7)}, ValueError, r"`x` must have shape \(n_atoms, 8\), got \(6, 7\)"),
        ({"x": torch.zeros(6, 8, dtype=torch.float64)}, TypeError, "`x` must be torch.float32 on cpu like the param"),
        ({"x": None}, TypeError, "`x` must be a torch.Tensor"),
        ({"positions": torch.zeros(5, 3)}, ValueError, r"`positions` must have shape \(6, 3\), got \(5, 3\)"),
        ({"cell": torch.zeros(3, 3)}, ValueError, "`cell` has a zero vector in a periodic direction"),
        ({"cell": torch.ones(2, 3)}, ValueError, "`cell` must have shape"),
        ({"pbc": (True, True, False)}, ValueError, "`pbc` must be True in every direction"),
        ({"batch_ptr": torch.tensor([0, 4])}, ValueError, "`batch_ptr` must rise from 0 to the number of atoms 6"),
        ({"modes": 3}, TypeError, "`modes` must be Modes"),
    ],
)
@pytest.mark.parametrize("cls", [PLAIN, GATED])
def test_wrong_arguments_are_refused(cls, change, error, message):
    layer = cls(8, **WAVES)
    arguments = {"x": torch.zeros(6, 8), "positions": torch.rand(6, 3), "cell": 6.0 * torch.eye(3)} | change
    with pytest.raises(error, match=message):
        layer(**arguments)


def test_waves_of_another_norm_are_refused():
    layer = GATED(8, norm="rsga", r_max=5.0)
    modes = GATED(8, **WAVES).modes(6.0 * torch.eye(3))
    with pytest.raises(TypeError, match="`modes` must be PublishedModes"):
        layer(torch.zeros(6, 8), torch.rand(6, 3), 6.0 * torch.eye(3), modes=modes)


@pytest.mark.parametrize("name", ENERGY)
@pytest.mark.parametrize("method", ["spectral", "grid"])
def test_energies_of_the_atoms_add_up_and_are_half_of_charge_times_potential(name, method):
    positions, cell, _ = crystal()
    layer, charges = module(name, method), features(6, name).requires_grad_()
    batch_ptr, cells = torch.tensor([0, 2, 6]), torch.stack([cell, cell.flip(0)])
    total = layer(charges, positions, cells, batch_ptr)
    atoms = layer.per_atom(charges, positions, cells, batch_ptr)
    sums = torch.stack([atoms[:2].sum(), atoms[2:].sum()])
    assert relative(sums.detach(), total.detach()) < 1e-9  # what the grid is asked for, 1e-10, a few times
    (slope,) = torch.autograd.grad(total.sum(), charges)  # E is of second order in the charges
    assert relative(atoms.detach(), 0.5 * (charges * slope).sum(1).detach()) < 1e-8
