"""What "auto" chooses: by estimates that come from sizes alone, with constants that can be measured and kept."""

import json
import math

import pytest
import torch

import rsa_kernels as rk
from rsa_kernels.reciprocal import calibrate, costs
from rsa_kernels.reciprocal.modes import Modes


@pytest.fixture
def calibration(tmp_path, monkeypatch):
    """A place for constants that is empty, whatever this machine has measured."""
    path = tmp_path / "kept" / "costs.json"
    monkeypatch.setattr(costs, "CALIBRATION", path)
    costs.rates.cache_clear()
    costs._choose.cache_clear()
    yield path
    costs.rates.cache_clear()
    costs._choose.cache_clear()


def shaped(n_atoms, n_modes, heads, d, dtype=torch.float64):
    """Leaves and modes of a size, without their memory."""
    leaf = torch.zeros(1, dtype=dtype).expand(n_atoms, heads, d)
    miller = torch.ones(1, 3, dtype=torch.int32).expand(n_modes, 3)
    weights = torch.zeros(1, dtype=torch.float64).expand(n_modes)
    return leaf, leaf, leaf, Modes(miller, weights, torch.tensor([0, n_modes]), 1.0)


@pytest.mark.parametrize(
    ("sizes", "method"),
    [((3000, 512, 1, 128), "pairwise"), ((300, 150, 16, 4), "spectral"), ((1_000_000, 500_000, 16, 4), "grid")],
)
def test_the_three_regimes(calibration, sizes, method):
    explained = rk.explain(*shaped(*sizes))
    assert explained.method == method
    assert explained.seconds[method] == min(explained.seconds.values())
    assert set(explained.seconds) == {"pairwise", "spectral", "grid"}


def test_explanation_reads(calibration):
    text = str(rk.explain(*shaped(3000, 512, 1, 128)))
    assert text.startswith("method pairwise")
    assert all(name in text for name in ("spectral", "grid", "MiB", "built in"))


def test_auto_gives_what_explain_says(calibration):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 40, 2, 4, dtype=torch.float64)
    positions, cell = 9.0 * torch.rand(40, 3, dtype=torch.float64), 9.0 * torch.eye(3, dtype=torch.float64)
    modes = rk.reciprocal_modes(cell, 2.5, rk.reciprocal.spectra.gaussian(1.0))
    chosen = rk.explain(q, k, v, modes).method
    auto, named = (rk.reciprocal_attention(q, k, v, positions, cell, modes, method=m) for m in ("auto", chosen))
    assert torch.equal(auto, named)


def test_a_method_that_does_not_fit_is_not_chosen(calibration, monkeypatch):
    sizes = shaped(1_000_000, 500_000, 16, 4, torch.float32)
    before = rk.explain(*sizes)
    monkeypatch.setattr(costs, "_memory", lambda: 0.5 * before.bytes["grid"])
    costs._choose.cache_clear()
    assert rk.explain(*sizes).method != "grid"


def test_a_tolerance_out_of_reach_excludes_the_grid(calibration):
    explained = rk.explain(*shaped(200_000, 100_000, 4, 4, torch.float32), tolerance=1e-12)
    assert explained.seconds["grid"] == math.inf
    assert explained.method != "grid"


def test_empty_batches_have_a_method(calibration):
    leaf = torch.zeros(0, 2, 4)
    modes = Modes(torch.zeros(0, 3, dtype=torch.int32), torch.zeros(0, dtype=torch.float64), torch.tensor([0, 0]), 1.0)
    assert rk.explain(leaf, leaf, leaf, modes).method in ("pairwise", "spectral", "grid")


def test_constants_kept_are_used_and_named(calibration):
    dear = costs.Rates(product=1.0, wave=1.0, pair=1.0, channel=1.0, mesh=0.0, call=0.0)
    costs.save({"cpu float64": dear})
    explained = rk.explain(*shaped(100, 50, 1, 8))
    assert str(calibration) in explained.source
    assert explained.seconds["pairwise"] > 1e3
    assert "built in" not in rk.explain(*shaped(100, 50, 1, 8, torch.float32)).source


@pytest.mark.parametrize("content", ["no json", '{"cpu float64": {"speed": 1}}', '{"cpu float64": 3}'])
def test_a_broken_calibration_is_refused_by_name(calibration, content):
    calibration.parent.mkdir()
    calibration.write_text(content)
    with pytest.raises(ValueError, match=r"costs\.json is not a calibration"):
        rk.explain(*shaped(100, 50, 1, 8))


def test_fit_recovers_constants():
    true = costs.Rates(product=2e-11, wave=3e-9, pair=4e-9, channel=5e-9, mesh=0.7, call=1e-3)
    samples = []
    for n, m, heads, d in (
        (100, 50, 1, 8),
        (1000, 700, 16, 4),
        (3000, 512, 1, 128),
        (20000, 900, 4, 4),
        (500, 3000, 2, 8),
    ):
        for method in ("pairwise", "spectral", "grid"):
            paid = costs.counts(method, n, m, heads, d, d, torch.float64, 1e-5)
            samples.append((paid, costs.seconds(paid, true)))
    found = costs.fit(samples)
    for name in ("product", "wave", "pair", "channel", "mesh", "call"):
        assert getattr(found, name) == pytest.approx(getattr(true, name), rel=1e-6)


def test_calibrate_measures_and_keeps(calibration, monkeypatch, capsys):
    monkeypatch.setattr(calibrate, "_SHAPES", ((20, 1.6, 1, 4), (40, 2.0, 2, 4), (60, 2.0, 1, 8)))
    assert calibrate.main([]) == 0
    kept = json.loads(calibration.read_text())
    assert set(kept) == {"cpu float64", "cpu float32"}
    assert all(value >= 0.0 for one in kept.values() for value in one.values())
    assert "off by at most a factor" in capsys.readouterr().out
