"""Triton kernels of reciprocal space: interpreted on a CPU, compiled ahead of time, and run where there is a GPU."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import reciprocal_triton_cases as cases
import torch
from scipy.interpolate import BSpline

from rsa_kernels.reciprocal import grid_window

pytest.importorskip("triton", reason="the GPU kernels are written in Triton: pip install triton")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")

# Of the largest value: sums of up to 530 terms, phases of up to 60 turns.
FLOAT64 = 3e-13


def waves(fractional, miller):
    """Phases θ_jm = 2π n_m·f_j, differentiable, reduced to half a turn."""
    turns = fractional @ miller.to(torch.float64).T
    return 2.0 * math.pi * (turns - turns.detach().round())


def attention(q, k, v, fractional, miller, weights, batch_ptr, mode_ptr):
    """u_i = (1/√d) Σ_j (q_i·k_j) Σ_m 2 w_m cos 2π n_m·(f_i − f_j) v_j, every pair and mode written out."""
    u = torch.zeros_like(v)
    for system in range(len(batch_ptr) - 1):
        atoms = slice(batch_ptr[system], batch_ptr[system + 1])
        modes = slice(mode_ptr[system], mode_ptr[system + 1])
        f = fractional[atoms]
        phases = waves((f[:, None] - f[None, :]).reshape(-1, 3), miller[modes])
        kernel = (2.0 * weights[modes] * phases.cos()).sum(1).view(len(f), len(f)).to(q.dtype)
        scores = torch.einsum("ihd,jhd->hij", q[atoms], k[atoms]) / math.sqrt(q.shape[-1])
        u = u.index_add(0, torch.arange(len(u))[atoms], torch.einsum("hij,ij,jhe->ihe", scores, kernel, v[atoms]))
    return u


def dense_pairwise(case, dtype):
    """u and the gradients of Σ g·u with respect to q, k, v, coordinates and weights, by autograd."""
    arguments = case.arguments(dtype)
    inputs = [0, 1, 2, 3, 5]
    leaves = {place: arguments[place].detach().clone().requires_grad_() for place in inputs}
    u = attention(*(leaves.get(place, x) for place, x in enumerate(arguments)))
    loss = (case.g.to(dtype) * u).sum()
    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return (u.detach(), *gradients)


def dense_spectral(case, dtype):
    """The six results of a transform; tangents by forward-mode differentiation of the sums."""
    x, z = case.x.to(dtype), case.z.to(dtype)

    def accumulate(f):
        theta = waves(f, case.miller)
        return torch.stack([theta.cos().to(dtype).T @ x, theta.sin().to(dtype).T @ x])

    def gather(f):
        theta = waves(f, case.miller)
        return theta.cos().to(dtype) @ z[0] + theta.sin().to(dtype) @ z[1]

    def pull(f):
        return torch.func.grad(lambda f: (x * gather(f)).sum())(f)

    results = {}
    for function in (accumulate, gather, pull):
        results[function] = torch.func.jvp(function, (case.fractional,), (case.a,))
    (z_m, dz_m), (y, dy), (p, dp) = results.values()
    return z_m, dz_m, y, p, dy, dp


def window(case, derivative):
    """The window along one axis, of x in mesh steps."""
    if case.window == "kaiser":
        return lambda x: grid_window._kaiser_derivatives(case.order, cases.KAISER_BETA, x)[derivative]
    spline = BSpline.basis_element([step - case.order / 2 for step in range(case.order + 1)], extrapolate=False)
    return spline.derivative(derivative) if derivative else spline


def dense_window(case, derivative):
    """S(f_j; m) and its derivatives, (n_atoms, gx, gy, gz): all images of all mesh points."""
    axes = []
    for axis, size in enumerate(case.phi.shape[1:]):
        u = cases.wrapped(case.fractional[:, axis]) * size
        images = torch.arange(-2, 3, dtype=torch.float64) * size
        x = u[:, None, None] - torch.arange(size)[None, :, None] - images
        inside = x.abs() < case.order / 2
        values = torch.from_numpy(window(case, derivative[axis])(x.numpy())) * float(size) ** derivative[axis]
        axes.append(torch.where(inside, values, 0.0).sum(-1))
    return torch.einsum("jx,jy,jz->jxyz", *axes)


def error(got, exact, scale=0.0):
    """Largest difference, relative to the largest value or to a scale above it."""
    assert got.shape == exact.shape
    if got.numel() == 0:
        return 0.0
    difference = (got.double() - exact.double()).abs().max().item()
    assert not math.isnan(difference)
    return difference / max(exact.abs().max().item(), scale) if difference else 0.0


def check(got, exact, rounded, scales=None):
    """Float64 to its bound; float32 to three times the error of the written-out sum in float32.

    Where that happens to be exact or nearly so, three roundings are allowed instead.
    """
    for place, values in enumerate(zip(got["float64"], got["float32"], exact, rounded, strict=True)):
        in_64, in_32, true, true_in_32 = values
        scale = 0.0 if scales is None else scales.get(place, 0.0)
        assert error(in_64, true, scale) <= FLOAT64, place
        assert error(in_32, true, scale) <= 3 * max(error(true_in_32, true, scale), 2.0**-23), place


def check_pairwise(case, got):
    """Against the dense sum. The pull of one atom on itself is zero: rounding is in proportion to its terms."""
    exact = dense_pairwise(case, torch.float64)
    terms = (case.weights * exact[5]).abs().sum() * 2.0 * math.pi * 9
    check(got, exact, dense_pairwise(case, torch.float32), {4: terms.item()} if len(case.q) == 1 else None)


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    path = tmp_path_factory.mktemp("interpreted") / "outputs.pt"
    done = subprocess.run(
        [sys.executable, cases.__file__, str(path)],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=Path(cases.__file__).parent.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return torch.load(path)


def both(interpreted, kind, name):
    return {dtype: interpreted[kind, name, dtype] for dtype in cases.FLOATS}


@pytest.mark.parametrize("name", cases.FLOATS)
def test_phases(interpreted, name):
    theta = waves(cases.PHASES, cases.PHASE_MODES)
    exact = torch.stack([theta.cos(), theta.sin()])
    # Coordinates are kept in steps of 2⁻³² or 2⁻⁶⁴ turns, of which 84 add up; float64 itself rounds 81 · f.
    bound = {"float32": 2 * math.pi * 84 * 2.0**-33 + 2.0**-23, "float64": 1e-13}[name]
    assert (interpreted["phases", name].double() - exact).abs().max() <= bound
    assert (interpreted["phases", name][:, :, 0].double() - exact[:, :, 0]).abs().max() <= {
        "float32": 2 * math.pi * 2.0**-33 + 1.5 * 2.0**-24,
        "float64": 4e-16,
    }[name]


@pytest.mark.parametrize("name", cases.PAIRWISE)
def test_pairwise_equals_the_sum_and_its_gradient(interpreted, name):
    case, got = cases.PAIRWISE[name], both(interpreted, "pairwise", name)
    assert all(got[dtype][place].dtype == torch.float64 for dtype in got for place in (4, 5))
    assert all(x.dtype == torch.float32 for x in got["float32"][:4])
    check_pairwise(case, got)


@pytest.mark.parametrize("name", cases.SPECTRAL)
def test_spectral_equals_the_sums_and_their_derivatives(interpreted, name):
    case, got = cases.SPECTRAL[name], both(interpreted, "spectral", name)
    assert all(x.dtype == (torch.float64 if x.shape[-1:] == (3,) else torch.float32) for x in got["float32"][3:6:2])
    check(got, dense_spectral(case, torch.float64), dense_spectral(case, torch.float32))


@pytest.mark.parametrize("name", cases.MESHES)
def test_mesh_equals_the_sum_over_all_images(interpreted, name):
    case, got = cases.MESHES[name], both(interpreted, "mesh", name)
    # The table of the Kaiser-Bessel window is good to 1e-13 of its peak, and worse in its derivatives.
    spare = {"kaiser": {"value": 1e-12, "slope": 1e-10, "mixed": 1e-9}}.get(case.window, {})
    for derivative, orders in cases.DERIVATIVES.items():
        S = dense_window(case, orders)
        exact_read = torch.einsum("jxyz,cxyz->jc", S, case.phi)
        exact_spread = torch.einsum("jxyz,jc->cxyz", S, case.x)
        for dtype in cases.FLOATS:
            # Weights are rounded once, sums are of at most 9³ terms.
            bound = spare.get(derivative, 1e-14) if dtype == "float64" else 1e-6
            spread, read, _ = got[dtype]
            assert error(read[derivative], exact_read) <= bound
            if derivative in spread:
                assert error(spread[derivative], exact_spread) <= bound
    slopes = [dense_window(case, tuple(int(axis == k) for k in range(3))) for axis in range(3)]
    pull = torch.stack([torch.einsum("jxyz,cxyz,jc->j", S, case.phi, case.x) for S in slopes], dim=1)
    for dtype in cases.FLOATS:
        y, got_pull = got[dtype][2]
        assert torch.equal(y, got[dtype][1]["value"])
        assert error(got_pull, pull) <= (spare.get("slope", 1e-14) if dtype == "float64" else 1e-6)


@pytest.mark.parametrize("dtype", cases.FLOATS)
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("pairwise", "batch with empty systems"),
        ("spectral", "many modes in parts and segments"),
        ("mesh", "odd order, wider than the mesh"),
    ],
)
def test_same_bits_again_and_for_positions_in_other_cells(interpreted, kind, name, dtype):
    def flat(outputs):
        if isinstance(outputs, torch.Tensor):
            return [outputs]
        return [x for part in (outputs.values() if isinstance(outputs, dict) else outputs) for x in flat(part)]

    first, again, wrapped = (flat(interpreted[kind, which, dtype]) for which in (name, "again", "wrapped"))
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert all(torch.equal(one, two) for one, two in zip(first, wrapped, strict=True))


@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_no_position_no_number(interpreted, dtype):
    """Atom 1 is at NaN: all that depends on it is NaN, and nothing of other systems."""
    atoms, n_modes = cases.PAIRWISE["batch with empty systems"].batch_ptr, 40
    for place, x in enumerate(interpreted["pairwise", "lost", dtype]):
        of_first = n_modes if place == 5 else atoms[1]
        assert x[:of_first].isnan().all() and x[of_first:].isfinite().all(), place
    z, dz, y, pull, dy, dpull = interpreted["spectral", "lost", dtype]
    assert z.isnan().all() and dz.isnan().all()
    spread, read, (value, mesh_pull) = interpreted["mesh", "lost", dtype]
    assert spread["value"].isnan().any()
    for x in (y, pull, dy, dpull, *read.values(), value, mesh_pull):
        assert x[1].isnan().all() and x[2:].isfinite().all() and x[0].isfinite().all()


def test_other_types_are_refused():
    from rsa_kernels.reciprocal.triton_pairwise import pairwise_forward
    from rsa_kernels.reciprocal.triton_spectral import TritonSpectralTransform

    case = cases.PAIRWISE["one atom"]
    with pytest.raises(TypeError, match="`q` must be float32 or float64"):
        pairwise_forward(*case.arguments(torch.float16))
    with pytest.raises(TypeError, match="`dtype` must be float32 or float64"):
        TritonSpectralTransform(case.fractional, case.miller, torch.bfloat16)


@pytest.mark.parametrize("capability", [80, 90, 100])
def test_kernels_compile_ahead_of_time_without_spills(monkeypatch, tmp_path, capability):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    import triton

    from profiling import aot

    kept = {(row.kernel, row.tile, row.target): row for row in aot.read()}
    for variant in aot.RECIPROCAL:
        scalars = {p.name: p for p in variant.kernel.params if not p.name.endswith("_ptr")}
        for name, parameter in scalars.items():
            # Only flags and tiles may be compiled in: a kernel must not be compiled again for every system.
            assert name.isupper() or (parameter.annotation_type and parameter.do_not_specialize), name
        ptx = aot.compile_ahead(variant, capability).asm["ptx"]
        assert ".tf32" not in ptx and ".approx" not in ptx, f"{variant.name} is less than exact"
        assert variant.precision == "fp32" or ".f32" not in ptx, f"{variant.name} computes in single precision"
        row = aot.resources(variant, capability)
        assert not row.spills, row
        known = kept[row.kernel, row.tile, row.target]
        assert known.triton != triton.__version__ or known == row, "run `python -m profiling.aot --write`"


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are launched for real where there is a GPU")
def test_launches_bind_and_compile_once_for_all_systems(monkeypatch, tmp_path):
    """Everything of a launch but the launch: arguments are bound as on a GPU and the kernels compiled for one."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from triton.backends.compiler import GPUTarget
    from triton.runtime.driver import driver
    from triton.runtime.jit import JITFunction

    class NoGpu:
        def get_current_device(self):
            return 0

        def get_current_stream(self, device):
            return 0

        def get_current_target(self):
            return GPUTarget("cuda", 90, 32)

    run, bound = JITFunction.run, {}

    def compile_only(self, *args, grid, warmup, **options):
        compiled = run(self, *args, grid=grid, warmup=True, **options)
        bound.setdefault(self.fn.__name__, set()).add(compiled.hash)
        return compiled

    monkeypatch.setattr(JITFunction, "run", compile_only)
    monkeypatch.setattr(driver, "_active", NoGpu())
    # Narrow heads and channels of float32, sums not in parts: sizes and batches alone must compile nothing anew.
    for name in ("batch with empty systems", "one atom", "strided"):
        cases.pairwise(cases.PAIRWISE[name], torch.float32)
    for name in ("one atom, one mode", "strided"):
        cases.spectral(cases.SPECTRAL[name], torch.float32)
    for name in ("odd order, wider than the mesh",):
        cases.mesh(cases.MESHES[name], torch.float32)
    once = ("_pairwise_fwd", "_pairwise_bwd", "_pairwise_bwd_waves", "_pairwise_modes", "_grid_sites", "_grid_spread")
    twice = ("_accumulate_fwd", "_gather_fwd", "_pull", "_grid_interpolate")  # with and without TANGENT or PULL
    expected = {f"{name}_kernel": count for names, count in ((once, 1), (twice, 2)) for name in names}
    assert {name: len(compiled) for name, compiled in bound.items()} == expected


def on_gpu(case):
    """The same case with its tensors on the GPU, strides kept."""
    moved = {name: value.cuda() if isinstance(value, torch.Tensor) else value for name, value in vars(case).items()}
    return type(case)(**moved)


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("name", cases.PAIRWISE)
def test_pairwise_on_a_gpu(name):
    case = cases.PAIRWISE[name]
    got = {dtype: [x.cpu() for x in cases.pairwise(on_gpu(case), cases.FLOATS[dtype])] for dtype in cases.FLOATS}
    again = cases.pairwise(on_gpu(case), torch.float32)
    assert all(torch.equal(one, two.cpu()) for one, two in zip(got["float32"], again, strict=True))
    check_pairwise(case, got)


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("name", cases.SPECTRAL)
def test_spectral_on_a_gpu(name):
    case = cases.SPECTRAL[name]
    got = {dtype: [x.cpu() for x in cases.spectral(on_gpu(case), cases.FLOATS[dtype])] for dtype in cases.FLOATS}
    again = cases.spectral(on_gpu(case), torch.float32)
    assert all(torch.equal(one, two.cpu()) for one, two in zip(got["float32"], again, strict=True))
    check(got, dense_spectral(case, torch.float64), dense_spectral(case, torch.float32))


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("name", cases.MESHES)
def test_mesh_on_a_gpu(name):
    case = cases.MESHES[name]
    spread, read, _ = cases.mesh(on_gpu(case), torch.float64)
    again = cases.mesh(on_gpu(case), torch.float64)[0]
    S = dense_window(case, (0, 0, 0))
    assert torch.equal(spread["value"], again["value"])
    assert error(spread["value"].cpu(), torch.einsum("jxyz,jc->cxyz", S, case.x)) <= 1e-12
    assert error(read["value"].cpu(), torch.einsum("jxyz,cxyz->jc", S, case.phi)) <= 1e-12
