"""The modules against numbers that the published blocks gave, run in float64 with random weights."""

import itertools
import math

import numpy as np
import pytest
import torch

from rsa_kernels import nn
from rsa_kernels.reciprocal import published

TOLERANCE = 1e-12
"""Relative to the largest value: both sides are float64 sums of some 1e5 terms in different order."""


def tensors(archive) -> dict:
    return {name: torch.as_tensor(archive[name]) for name in archive.files}


def assert_golden(got, golden):
    error = float((got - golden).abs().max() / golden.abs().max())
    assert error < TOLERANCE, f"relative error {error:.2e}"


@pytest.fixture(scope="module")
def rsa(shared):
    return tensors(np.load(shared / "golden" / "rsa_block.npz"))


@pytest.fixture(scope="module", params=["rsga_block_orthorhombic", "rsga_block_triclinic_batch"])
def rsga(shared, request):
    return tensors(np.load(shared / "golden" / f"{request.param}.npz"))


@pytest.mark.parametrize("method", ["pairwise", "spectral"])
def test_rsa_block(rsa, method):
    hidden = rsa["node_feats"].shape[1]
    layer = nn.ReciprocalSpaceAttention(hidden, norm="rsa", method=method, dtype=torch.float64)
    layer.load_state_dict({"qkv.weight": rsa["qkv"]})
    features, positions = (rsa[name].requires_grad_() for name in ("node_feats", "positions"))
    x = features @ rsa["linear_readout"].view(hidden, hidden) / math.sqrt(hidden)
    update = layer(x, positions, torch.diag(rsa["boxes"][0]))
    loss = (update * rsa["loss_weights_update"]).sum()
    assert_golden(update, rsa["update"])
    for got, name in zip(torch.autograd.grad(loss, (positions, features)), ("positions", "node_feats"), strict=True):
        assert_golden(got, rsa[f"grad_{name}"])


@pytest.mark.parametrize("method", ["pairwise", "spectral"])
def test_rsga_block(rsga, method):
    layer = nn.ReciprocalSpaceGatedAttention(
        rsga["node_feats"].shape[1], norm="rsga", r_max=float(rsga["r_max"]), method=method, dtype=torch.float64
    )
    prefix = "param."
    layer.load_state_dict({name.removeprefix(prefix): x for name, x in rsga.items() if name.startswith(prefix)})
    features, positions = (rsga[name].requires_grad_() for name in ("node_feats", "positions"))
    update, gate = layer(features, positions, rsga["cells"], nn.batch_pointers(rsga["batch"]))
    loss = (update * rsga["loss_weights_update"]).sum() + (gate * rsga["loss_weights_gate"]).sum()
    assert_golden(update, rsga["update"])
    assert_golden(gate, rsga["mix_gate"])
    for got, name in zip(torch.autograd.grad(loss, (positions, features)), ("positions", "node_feats"), strict=True):
        assert_golden(got, rsga[f"grad_{name}"])


def test_rsa_waves_are_the_published_six(rsa):
    (box,) = rsa["boxes"]
    modes = published.rsa_modes(torch.diag(box))
    waves = sorted(tuple(n) for n in modes.miller.tolist())
    golden = rsa["k_vectors"][0] * box / (2.0 * math.pi)
    assert waves == sorted(tuple(n) for n in golden.round().to(torch.int64).tolist())
    assert torch.equal(modes.weights, torch.ones(6, dtype=torch.float64))


def test_rsga_waves_are_the_published_list_in_its_order(rsga):
    modes = published.rsga_modes(rsga["cells"], float(rsga["r_max"]))
    for system, (low, high) in enumerate(itertools.pairwise(modes.mode_ptr.tolist())):
        assert modes.miller[low:high].tolist() == rsga[f"miller_{system}"].tolist()
        golden = rsga[f"weights_{system}"]
        assert torch.allclose(modes.weights[low:high], golden, rtol=TOLERANCE, atol=0.0)
