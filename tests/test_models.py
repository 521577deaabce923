"""Models: equal to mace-torch where it has them, derivatives, symmetries, size, batches; what is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from models_systems import KINDS, PUBLISHED, SETTINGS, energy, evaluate, inputs, model, structure

from silica_md import models
from silica_md.errors import ModelFileError

pytest.importorskip("mace", reason="mace-torch is not installed")
pytestmark = pytest.mark.usefixtures("one_thread")

LONG = [kind for kind in KINDS if kind != "sr"]
IRREPS = ("8x0e", "8x0e + 8x1o", "8x0e + 8x1o + 8x2e")
BOX = 10.4 * torch.eye(3, dtype=torch.float64)
"""A box that the waves of the RSA paper exist in: orthorhombic, edges above 10 Å."""


def place(kind: str):
    """A structure in a cell that the kind takes."""
    positions, cell, numbers = structure()
    if kind != "published rsa":
        return positions, cell, numbers
    return positions @ torch.linalg.inv(cell) @ BOX * 0.5, BOX, numbers


@pytest.mark.parametrize("repulsion", [False, True])
@pytest.mark.parametrize("irreps", IRREPS[:2])
def test_without_a_long_range_layer_it_is_mace_bit_for_bit(irreps, repulsion):
    from silica_md.models._mace import modules
    from silica_md.models.network import in_float64

    network = models.build(SETTINGS | {"hidden_irreps": irreps, "pair_repulsion": repulsion})
    ours = network(inputs(structure()), compute_stress=True)
    # TorchScript, where it optimises, rounds otherwise in its first calls; mace-torch's ZBL is of the default type.
    with torch.jit.optimized_execution(False), in_float64():
        theirs = modules.ScaleShiftMACE.forward(network, inputs(structure()), compute_stress=True)
    assert torch.equal(evaluate(network, structure())["forces"], ours["forces"])
    for name in ("energy", "node_energy", "forces", "stress", "virials", "node_feats"):
        assert torch.equal(ours[name], theirs[name]), name


@pytest.mark.parametrize("kind", [*KINDS, *PUBLISHED])
def test_forces_are_differences_of_the_energy(kind):
    network, (positions, cell, numbers) = model(kind), place(kind)
    forces = evaluate(network, (positions, cell, numbers))["forces"]
    assert forces.abs().max() > 0.01
    step, allowed = 1e-4, 2e-7 + 2e-6 * float(forces.abs().max())  # eV/Å; the error is of step²
    for atom, axis in ((0, 0), (4, 1), (8, 2)):
        moved = torch.zeros_like(positions)
        moved[atom, axis] = step
        up, down = (energy(network, positions + sign * moved, cell, numbers) for sign in (1, -1))
        assert forces[atom, axis] == pytest.approx(-(up - down) / (2 * step), abs=allowed)


@pytest.mark.parametrize("kind", [*KINDS, *PUBLISHED])
def test_stress_is_differences_of_the_energy(kind):
    network, (positions, cell, numbers) = model(kind), place(kind)
    stress = evaluate(network, (positions, cell, numbers))["stress"][0]
    volume, step = float(torch.linalg.det(cell).abs()), 1e-4
    pairs = ((0, 0), (1, 1), (2, 2)) if kind == "published rsa" else ((0, 0), (2, 2), (0, 1), (1, 2))
    for a, b in pairs:  # the published waves of RSA exist in orthorhombic boxes only
        strain = torch.zeros(3, 3, dtype=torch.float64)
        strain[a, b] += 0.5 * step
        strain[b, a] += 0.5 * step
        up, down = (
            energy(network, positions @ deformed, cell @ deformed, numbers)
            for deformed in (torch.eye(3, dtype=torch.float64) + sign * strain for sign in (1, -1))
        )
        assert stress[a, b] == pytest.approx((up - down) / (2 * step * volume), rel=2e-6, abs=1e-8)


@pytest.mark.parametrize("kind", LONG)
@pytest.mark.parametrize("irreps", IRREPS)
def test_any_irreps_and_the_long_range_part_is_felt(kind, irreps):
    long, short = evaluate(model(kind, irreps), structure()), evaluate(model("sr", irreps), structure())
    assert (long["forces"] - short["forces"]).abs().max() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_a_supercell_is_n_times_the_cell(kind):
    positions, cell, numbers = structure()
    one = evaluate(model(kind), (positions, cell, numbers))
    repeat = torch.tensor([2, 1, 3])
    shifts = torch.cartesian_prod(*(torch.arange(n) for n in repeat)).double() @ cell
    many = (positions + shifts.unsqueeze(1)).flatten(0, 1)
    big = evaluate(model(kind), (many, cell * repeat.unsqueeze(1), numbers.repeat(6)))
    assert big["energy"].item() / 6 == pytest.approx(one["energy"].item(), abs=1e-9)
    torch.testing.assert_close(big["forces"], one["forces"].repeat(6, 1), rtol=0, atol=1e-9)
    torch.testing.assert_close(big["stress"], one["stress"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", PUBLISHED)
def test_the_published_norms_do_not_scale_with_the_supercell(kind):
    """The control of the test above: what it looks for is there to be seen."""
    positions, cell, numbers = place(kind)
    repeat = torch.tensor([2, 2, 1])
    shifts = torch.cartesian_prod(*(torch.arange(n) for n in repeat)).double() @ cell
    one = energy(model(kind), positions, cell, numbers)
    many = (positions + shifts.unsqueeze(1)).flatten(0, 1)
    big = energy(model(kind), many, cell * repeat.unsqueeze(1), numbers.repeat(4))
    assert abs(big / 4 - one) > 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_translation_rotation_permutation_and_lattice(kind):
    network, (positions, cell, numbers) = model(kind), structure()
    here = evaluate(network, (positions, cell, numbers))
    moved = evaluate(network, (positions + torch.tensor([1.7, -9.3, 0.4]), cell, numbers))
    torch.testing.assert_close(moved["forces"], here["forces"], rtol=0, atol=1e-10)

    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))).Q
    turned = evaluate(network, (positions @ rotation, cell @ rotation, numbers))
    torch.testing.assert_close(turned["energy"], here["energy"], rtol=0, atol=1e-10)
    torch.testing.assert_close(turned["forces"], here["forces"] @ rotation, rtol=0, atol=1e-10)
    torch.testing.assert_close(turned["stress"][0], rotation.T @ here["stress"][0] @ rotation, rtol=0, atol=1e-11)

    order = torch.randperm(len(numbers), generator=torch.Generator().manual_seed(2))
    permuted = evaluate(network, (positions[order], cell, numbers[order]))
    torch.testing.assert_close(permuted["forces"], here["forces"][order], rtol=0, atol=1e-10)

    skewed = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, -1, 1]], dtype=torch.float64) @ cell
    other = evaluate(network, (positions, skewed, numbers))
    torch.testing.assert_close(other["forces"], here["forces"], rtol=0, atol=1e-10)
    torch.testing.assert_close(other["stress"], here["stress"], rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_its_structures(kind):
    several = [structure(9, 4.6, 0), structure(1, 5.1, 1), structure(12, 5.3, 2)]
    together = evaluate(model(kind), *several)
    alone = [evaluate(model(kind), one) for one in several]
    for name in ("energy", "forces", "stress"):
        torch.testing.assert_close(together[name], torch.cat([one[name] for one in alone]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_energies_of_the_atoms_add_up(kind):
    out = evaluate(model(kind), structure())
    assert out["node_energy"].sum().item() == pytest.approx(out["energy"].item(), abs=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_a_loss_of_forces_and_stress(kind):
    """What training needs: the derivative by the weights of a loss that holds derivatives itself."""
    network = model(kind)
    weights = {name: one for name, one in network.named_parameters() if one.numel()}

    def loss():
        out = network(inputs(structure()), training=True, compute_stress=True)
        return out["forces"].square().sum() + 100.0 * out["stress"].square().sum() + out["energy"].sum()

    gradients = dict(zip(weights, torch.autograd.grad(loss(), weights.values(), allow_unused=True), strict=True))
    chosen = [name for name in gradients if gradients[name] is not None and gradients[name].abs().max() > 1e-3]
    assert any(name.startswith("long_range") for name in chosen) == (kind != "sr")
    for name in (chosen[0], chosen[-1]):
        weight, gradient = weights[name].detach().view(-1), gradients[name].view(-1)
        place, step = int(gradient.abs().argmax()), 1e-5
        start = weight[place].item()
        values = []
        for sign in (1, -1):
            weight[place] = start + sign * step
            values.append(loss().item())
        weight[place] = start
        assert gradient[place].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_float32_follows_float64(kind):
    exact = evaluate(model(kind), structure())
    single = evaluate(model(kind, dtype=torch.float32), structure(), dtype=torch.float32)
    scale = exact["forces"].abs().max()
    assert single["forces"].dtype == torch.float32
    assert (single["forces"].double() - exact["forces"]).abs().max() < 2e-5 * scale  # some 100 roundings of 6e-8


@pytest.mark.parametrize("kind", ["sr", "rsa", "published rsga", "latent_ewald"])
def test_saved_and_loaded_bit_for_bit(kind, tmp_path):
    network = model(kind)
    path = models.save(network, tmp_path / "folder" / "model-1.5", {"from": "a test"})
    assert path.name == "model-1.5.json"
    for name in (path.with_suffix(""), path.with_suffix(".safetensors"), path):
        loaded, record = models.load(name)
        assert record["extra"] == {"from": "a test"} and loaded.config == network.config and not loaded.training
    assert list(loaded.state_dict()) == list(network.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*(m.state_dict().values() for m in (loaded, network)), strict=True))
    again, first = (evaluate(one, place(kind)) for one in (loaded, network))
    assert torch.equal(again["forces"], first["forces"]) and torch.equal(again["stress"], first["stress"])
    models.save(loaded, tmp_path / "again", {"from": "a test"})
    assert (tmp_path / "again.safetensors").read_bytes() == path.with_suffix(".safetensors").read_bytes()
    assert models.load(path, dtype=torch.float32)[0].dtype == torch.float32


def test_files_that_cannot_be_read(tmp_path):
    path = models.save(model("sr"), tmp_path / "m")
    tensors = path.with_suffix(".safetensors")
    with pytest.raises(ModelFileError, match=r"cannot read .*nothing\.json"):
        models.load(tmp_path / "nothing")
    data = bytearray(tensors.read_bytes())
    data[-1] ^= 1
    tensors.write_bytes(data)
    with pytest.raises(ModelFileError, match="damaged"):
        models.load(path)
    tensors.unlink()
    with pytest.raises(ModelFileError, match=r"cannot read .*m\.safetensors"):
        models.load(path)
    text = path.read_text()
    for changed, told in (
        (text.replace('"version": 1', '"version": 9'), "version 9"),
        (text.replace("silica-md model", "something"), "does not describe a model"),
        (text.replace('"tensors": "m.safetensors"', '"tensors": "../m.safetensors"'), "`tensors` is missing or wrong"),
        ("{", "not JSON"),
    ):
        path.write_text(changed)
        with pytest.raises(ModelFileError, match=told):
            models.load(path)


def test_files_of_another_architecture(tmp_path):
    network = model("sr")
    path = models.save(network, tmp_path / "m")
    path.write_text(path.read_text().replace('"correlation": 2', '"correlation": 3'))
    with pytest.raises(ModelFileError, match="does not hold the model its JSON describes"):
        models.load(path)
    path.write_text(path.read_text().replace('"max_ell"', '"max_el"'))
    with pytest.raises(ModelFileError, match="did you mean `max_ell`"):
        models.load(path)


def test_one_tensor_in_another_file_of_the_same_name_is_found_out(tmp_path):
    network = models.build(SETTINGS, seed=1)
    path = models.save(network, tmp_path / "m")
    models.save(models.build(SETTINGS, seed=2), tmp_path / "other")
    (tmp_path / "other.safetensors").replace(tmp_path / "m.safetensors")
    with pytest.raises(ModelFileError, match="SHA-256"):
        models.load(path)


def test_seed_decides_the_weights_and_nothing_global_changes():
    torch.manual_seed(7)
    before, kind = torch.random.get_rng_state(), torch.get_default_dtype()
    one, two, three = (models.build(SETTINGS, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before) and torch.get_default_dtype() == kind
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], three[name]) for name in one)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"atomic_numbers": (14, 8)}, "ascending"),
        ({"atomic_energies": (1.0,)}, "one energy for each of the 2 elements"),
        ({"r_max": 0.0}, "`r_max` must be positive"),
        ({"num_interactions": 0}, "`num_interactions` must be at least 1"),
        ({"interaction": "Nothing"}, "`interaction` must be one of RealAgnostic"),
        ({"gate": "nothing"}, "`gate` must be one of"),
        ({"long_range": {"kind": "rsb"}}, "kind of rsa, rsga"),
        ({"long_range": {"sigma": 1.0}}, "kind of rsa, rsga"),
        ({"long_range": {"kind": "rsa", "widht": 1.0}}, "unknown option `widht` .*known are"),
        ({"long_range": {"kind": "rsa", "norm": "rsga"}}, "`norm` must be 'intensive' or 'rsa'"),
        ({"long_range": {"kind": "rsa", "norm": "rsa", "k_cut": 2.0}}, "leave out `k_cut`"),
        ({"long_range": {"kind": "rsa", "interactions": []}}, r"ascending numbers of interactions, of \[0, 1\]"),
        ({"long_range": {"kind": "rsa", "interactions": 1}}, "`interactions` must be .* got 1"),
        ({"long_range": {"kind": "rsa", "interactions": [1, 0]}}, "`interactions` must be ascending numbers"),
        ({"long_range": {"kind": "rsga", "interactions": [2]}}, "`interactions` must be ascending numbers"),
        ({"long_range": {"kind": "sog", "channels": 0}}, "`channels` must be at least 1"),
        ({"hidden_irreps": "8x1o"}, "`hidden_irreps` must begin with scalars"),
        ({"hidden_irrep": "8x0e"}, "did you mean `hidden_irreps`"),
    ],
)
def test_settings_that_cannot_be_built(change, told):
    with pytest.raises(ValueError, match=told):
        models.build(SETTINGS | change)


def test_a_dtype_that_cannot_be():
    with pytest.raises(ValueError, match=r"`dtype` must be torch\.float64 or torch\.float32"):
        models.build(SETTINGS, dtype=torch.float16)


@pytest.mark.parametrize("kind", [*LONG, *PUBLISHED])
def test_mixed_periodicity_is_refused_with_a_long_range_layer(kind):
    positions, cell, numbers = place(kind)
    with pytest.raises(ValueError, match="`pbc` must be True in every direction"):
        model(kind)(inputs((positions, cell, numbers), pbc=[True, True, False]))
    model("sr")(inputs((positions, cell, numbers), pbc=[True, True, False]))


def test_what_is_not_provided_raises():
    with pytest.raises(NotImplementedError, match="edge forces"):
        model("sr")(inputs(structure()), compute_edge_forces=True)


def test_configuration_is_plain_data():
    config = models.ModelConfig(**SETTINGS | {"long_range": KINDS["rsa"], "dispersion": "PBE-D3(BJ)"})
    assert models.ModelConfig.from_dict(config.to_dict()) == config
    assert config.kind == "rsa" and config.published == ""
    assert dataclasses.replace(config, long_range=PUBLISHED["published rsga"]).published == "rsga"
    assert dataclasses.replace(config, long_range={}).kind == "sr"
