"""Memory of reciprocal-space attention stays under its formula, nothing of size N² or N·M·d is kept; sizes above 2³¹.

Measured in a process of its own as the peak of resident memory while one call runs, over what there was before.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from reciprocal_systems import System, assert_near

import rsa_kernels as rk
from rsa_kernels.reciprocal import methods, pairwise, transform

ROOT = Path(__file__).resolve().parent.parent

MEASURE = """
import json, sys, torch
import rsa_kernels as rk
from rsa_kernels.reciprocal import methods
torch.set_num_threads(1)

def kibibytes(field):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(field))

def grown(call):
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")
    before = kibibytes("VmRSS")
    kept = call()
    return kibibytes("VmHWM") - before

def layer(method, n, m, heads, d, dtype, order):
    generator = torch.Generator().manual_seed(0)
    cell = 30.0 * torch.eye(3, dtype=torch.float64)
    positions = (30.0 * torch.rand(n, 3, dtype=torch.float64, generator=generator)).requires_grad_()
    q, k, v = (torch.randn(n, heads, d, generator=generator).to(dtype).requires_grad_() for _ in range(3))
    miller = torch.randint(1, 17, (m, 3), generator=generator, dtype=torch.int32)
    modes = rk.Modes(miller, torch.full((m,), 1e-3, dtype=torch.float64), torch.tensor([0, m]), 2.0)
    leaves = q, k, v, positions
    def run():
        if method == "spectral halves":
            states = rk.accumulate_modes(k, v, positions, cell, modes, method="spectral")
            u = rk.gather_modes(q, states, positions, cell, modes, method="spectral")
        else:
            u = rk.reciprocal_attention(q, k, v, positions, cell, modes, method=method, tolerance=1e-4)
        first = torch.autograd.grad(u.sum(), leaves, create_graph=order > 1) if order else ()
        return u, first, torch.autograd.grad(sum(x.square().sum() for x in first), leaves) if order > 1 else ()
    return run

job = json.loads(sys.argv[1])
for name, value in job["settings"].items():
    setattr(methods, name, value)
results = []
for method, n, m, heads, d, dtype, order in job["cases"]:
    layer(method, 40, 30, heads, d, getattr(torch, dtype), order)()  # code and threads are there before
    results.append(grown(layer(method, n, m, heads, d, getattr(torch, dtype), order)))
for k_cut in job.get("k_cuts", ()):
    cell = torch.tensor([[60.0, 0, 0], [30.0, 50, 0], [-20.0, 30, 55]], dtype=torch.float64)
    results.append(grown(lambda: rk.reciprocal_modes(cell, k_cut, lambda k: k)))
print(json.dumps(results))
"""


def measured(cases, k_cuts=(), **settings) -> list[float]:
    """MiB that each case takes over what there was before it."""
    job = json.dumps({"cases": cases, "k_cuts": k_cuts, "settings": settings})
    # Memory goes back to the system as it is freed, so that the next case is charged for its own.
    environment = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", MEASURE, job]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    return [value / 1024.0 for value in json.loads(done.stdout)]


# Blocks of so many numbers that are alive at one time: [cos | sin] of a chunk with the phases, products like it and
# states; blocks of channels like x ⊗ y, what is gathered, and rates of both. By order of derivative.
OF_WAVES = {0: 5, 1: 8, 2: 14}
OF_CHANNELS = {0: 3, 1: 7, 2: 15}
OVERHEAD = 24.0
"""MiB: pages of code and allocator, threads' buffers of matrix products."""


def spectral_bound(n, m, heads, d, dtype, order, waves, channels) -> float:
    """MiB of the spectral method: chunks of waves and states, blocks of channels, inputs and results of each pass."""
    size = 4 if dtype == "float32" else 8
    c = heads * d * d
    width = min(c, max(channels // n, d))
    chunk = min(n * m, max(waves, n))
    states = min(2 * width * m, max(waves, 2 * width))
    own = (1 + order) * 4 * n * (heads * d + 6)
    numbers = OF_WAVES[order] * max(chunk, states) + OF_CHANNELS[order] * n * width + own
    # Phases are float64 whatever the channels are.
    return OVERHEAD + (size * numbers + 8 * 2 * chunk) / 2**20


def pairwise_bound(n, m, heads, d, dtype, order) -> float:
    """MiB of the pairwise method: waves of a tile or two, scores of a pair of tiles, inputs and results by head."""
    size = 4 if dtype == "float32" else 8
    tile = pairwise.tile_size(n, heads, m)
    own = (2 + 2 * order) * 4 * n * (heads * d + 6)
    numbers = (4 + 6 * order) * 2 * tile * m + (2 + 4 * order) * heads * tile * tile + own
    return OVERHEAD + size * numbers / 2**20


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux
def test_peak_memory_with_the_blocks_of_every_day():
    """Backward of 3,000 atoms, 128 channels, 512 waves in half space: the case of the README, and its spectral twin."""
    cases = [
        ("pairwise", 3000, 512, 1, 128, "float64", 1),
        ("spectral", 2000, 512, 1, 48, "float64", 1),
        ("grid", 3000, 3000, 8, 4, "float32", 1),
    ]
    pairs, waves, mesh = measured(cases)
    assert pairs <= pairwise_bound(*cases[0][1:])
    assert pairs <= 300.0
    assert waves <= spectral_bound(*cases[1][1:], methods.WAVES, methods.CHANNELS)
    # 40³ points are the most this tolerance asks for; atoms keep 98 bytes while they are sorted, waves 32.
    channels = 8 * 4 * 4
    assert mesh <= OVERHEAD + (4 * 4 * channels * 40**3 + 4 * 7 * channels * 3000 + 300 * 3000) / 2**20


@linux
@pytest.mark.parametrize("order", [0, 1, 2])
def test_nothing_grows_like_the_square_of_the_system(order):
    """With small blocks: values and gradients of 4,000 atoms in far less than N², N·M or N·M·d numbers."""
    settings = {"WAVES": 1 << 18, "CHANNELS": 1 << 17}
    n, m = (4000, 1000) if order < 2 else (1500, 500)
    cases = [("spectral", n, m, 4, 4, "float32", order), ("pairwise", n, 60, 4, 4, "float32", order)]
    spectral, pairs = measured(cases, **settings)
    assert spectral <= spectral_bound(*cases[0][1:], *settings.values())
    assert pairs <= pairwise_bound(*cases[1][1:])
    if order < 2:
        assert max(spectral, pairs) < 4 * 4000**2 / 2**20 <= 4 * 4000 * 1000 * 4 / 2**20


@linux
def test_the_search_for_waves_takes_what_it_promises():
    """80 bytes for each triplet of the bounding box, as its refusal of absurd requests counts."""
    (found,) = measured([], k_cuts=[4.5])
    cell = torch.tensor([[60.0, 0, 0], [30.0, 50, 0], [-20.0, 30, 55]], dtype=torch.float64)
    a, b, c = (4.5 * cell.norm(dim=1) / (2.0 * torch.pi)).tolist()
    assert found <= OVERHEAD + 80.0 * (a + 1) * (2 * b + 1) * (2 * c + 1) / 2**20
    assert found >= 0.2 * 80.0 * a * 4 * b * c / 2**20  # the bound is of the right size


# --- more than 2³¹ -------------------------------------------------------------------------------------------------


def test_more_atoms_times_waves_than_32_bits(monkeypatch):
    """N·M > 2³¹ in the spectral method: every wave's sum over all atoms.

    With linear functions in place of cosine and sine, which would be most of the time, and whose sums are known.
    """

    def linear(where, miller, out):
        x, n = where[:, :1].to(out.dtype), miller.to(out.dtype)
        torch.mul(x, n[:, 0], out=out[:, : len(n)])
        torch.mul(x, n[:, 1], out=out[:, len(n) :])
        return out

    monkeypatch.setattr(transform, "waves", linear)
    n, m = 1 << 16, (1 << 15) + 8
    assert n * m > 2**31
    generator = torch.Generator().manual_seed(0)
    where = torch.rand(n, 3, dtype=torch.float64, generator=generator)
    miller = torch.randint(1, 1000, (m, 3), generator=generator, dtype=torch.int32)
    modes = rk.Modes(miller, torch.ones(m, dtype=torch.float64), torch.tensor([0, m]), 4.0)
    k, v = (torch.rand(n, 1, 1, generator=generator) for _ in range(2))
    cell = torch.eye(3, dtype=torch.float64)
    states = rk.accumulate_modes(k, v, where, cell, modes, method="spectral")[:, :, 0, 0, 0]
    wanted = (where[:, 0] @ (k * v).double()[:, 0, 0]) * miller[:, :2].double().T
    torch.testing.assert_close(states.double(), wanted, rtol=1e-5, atol=0)


def test_more_pairs_than_32_bits():
    """N² > 2³¹ in the pairwise method: one wave, for which every atom's sum is known."""
    n = 46400
    assert n * n > 2**31
    generator = torch.Generator().manual_seed(0)
    cell = 50.0 * torch.eye(3, dtype=torch.float64)
    system = System(50.0 * torch.rand(n, 3, dtype=torch.float64, generator=generator), cell)
    modes = rk.Modes(
        torch.tensor([[1, 2, -3]], dtype=torch.int32), torch.ones(1, dtype=torch.float64), torch.tensor([0, 1]), 1.0
    )
    q, k, v = system.leaves((1, 1, 1), torch.float32)
    u = rk.reciprocal_attention(q, k, v, system.positions, cell, modes, method="pairwise")
    wanted = rk.reciprocal_attention(*(x.double() for x in (q, k, v)), system.positions, cell, modes, method="spectral")
    assert_near(u.double(), wanted, 1e-5)
