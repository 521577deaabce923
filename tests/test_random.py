"""Philox against its published vectors and its definition; the statistics of the normals."""

import importlib
import itertools
import sys

import numpy as np
import pytest
import scipy.stats
import torch

import rsa_kernels.random as random
from rsa_kernels import _native
from rsa_kernels.random import reference

# kat_vectors of Random123: (key, counter, result), as (seed, step, id, stream) of our counter layout.
PUBLISHED = {
    "zeros": ((0, 0, 0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    "ones": ((2**64 - 1, 2**48 - 1, -1, 0xFFFF), [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    "pi": (
        (0x299F31D0A4093822, 0x08D3243F6A88, 0x0370734413198A2E, 0x85A3),
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("bits", [random.bits, reference.bits], ids=["cpp", "reference"])
def test_published_vectors(bits, name):
    (seed, step, atom, stream), expected = PUBLISHED[name]
    assert bits(seed, step, torch.tensor([atom]), stream).tolist() == [expected]


@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 5000])
def test_normals_equal_the_reference(n):
    ids = torch.arange(n) * 7919 - 3
    ours, wanted = random.normal(12345, 2**33 + 5, ids, 9), reference.normal(12345, 2**33 + 5, ids, 9)
    assert ours.shape == (n, 3)
    torch.testing.assert_close(ours, wanted, rtol=0, atol=2e-15 * 7)


def test_no_dependence_on_threads_order_or_instruction_set():
    ids = torch.arange(4001)
    wanted = random.normal(7, 11, ids, 1)
    order = torch.randperm(4001, generator=torch.Generator().manual_seed(0))
    assert torch.equal(random.normal(7, 11, ids[order], 1), wanted[order])
    assert torch.equal(random.normal(7, 11, torch.stack([ids, ids], 1)[:, 0], 1), wanted)
    threads = torch.get_num_threads()
    set_isa = _native.bind("rk_set_isa", "i")
    best = ["baseline", "avx2", "avx512"].index(_native.isa())
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            assert torch.equal(random.normal(7, 11, ids, 1), wanted)
        for isa in range(best):
            set_isa(isa)
            assert torch.equal(random.normal(7, 11, ids, 1), wanted)
    finally:
        set_isa(best)
        torch.set_num_threads(threads)


def test_out_is_filled_in_place():
    out = torch.full((70, 3), float("nan"), dtype=torch.float64)
    assert random.normal(1, 2, torch.arange(70), 3, out=out) is out
    assert torch.equal(out, random.normal(1, 2, torch.arange(70), 3))


def test_every_argument_matters():
    ids = torch.arange(10)
    blocks = [random.bits(*a) for a in [(0, 0, ids, 0), (1, 0, ids, 0), (1 << 32, 0, ids, 0), (0, 1, ids, 0)]]
    blocks += [random.bits(*a) for a in [(0, 1 << 32, ids, 0), (0, 0, ids, 1), (0, 0, ids + (1 << 32), 0)]]
    for one, other in itertools.combinations(blocks, 2):
        assert not (one == other).all(dim=1).any()


def test_normals_are_standard_and_independent():
    z = torch.stack([random.normal(3, step, torch.arange(20_000), 2) for step in range(5)])
    assert scipy.stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-3
    assert abs(z.mean()) < 4 / np.sqrt(z.numel())
    assert abs(z.var() - 1) < 4 * np.sqrt(2 / z.numel())
    assert abs((z**4).mean() - 3) < 4 * np.sqrt(96 / z.numel())
    # Between the components of an atom, between neighbouring atoms, between steps.
    for a, b in [(z[..., 0], z[..., 1]), (z[..., 1], z[..., 2]), (z[:, 1:], z[:, :-1]), (z[1:], z[:-1])]:
        assert abs((a * b).mean()) < 4 / np.sqrt(a.numel())
        assert abs((a.square() * b.square()).mean() - 1) < 4 * np.sqrt(8 / a.numel())


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ((2**64, 0, torch.arange(3), 0), ValueError, "seed"),
        ((0, -1, torch.arange(3), 0), ValueError, "step"),
        ((0, 2**48, torch.arange(3), 0), ValueError, "step"),
        ((0, 0, torch.arange(3), 65536), ValueError, "stream"),
        ((0, 0, torch.arange(3.0), 0), TypeError, "ids"),
        ((0, 0, torch.arange(4).reshape(2, 2), 0), ValueError, "ids"),
        ((0, 0, [1, 2], 0), TypeError, "ids"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, named):
    for function in (random.bits, random.normal):
        with pytest.raises(error, match=f"`{named}`"):
            function(*arguments)


def test_wrong_out_is_named():
    for out, error in [
        (torch.empty(3, 3), TypeError),
        (torch.empty(2, 3, dtype=torch.float64), ValueError),
        (torch.empty(3, 3, dtype=torch.float64).t(), ValueError),
    ]:
        with pytest.raises(error, match="`out`"):
            random.normal(0, 0, torch.arange(3), 0, out=out)


@pytest.mark.parametrize("name", ["random_bits", "random_normal"])
def test_registered_op(name):
    op = getattr(torch.ops.rsa_kernels, name).default
    torch.library.opcheck(op, (5, 6, torch.arange(9), 7))


def fresh_triton_module(monkeypatch, interpret):
    """Import the kernels anew: Triton decides at decoration time whether to interpret them."""
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", interpret)
    monkeypatch.delitem(sys.modules, "rsa_kernels.random.triton_philox", raising=False)
    return importlib.import_module("rsa_kernels.random.triton_philox")


def test_triton_kernels_in_the_interpreter(monkeypatch):
    kernels = fresh_triton_module(monkeypatch, "1")
    ids = torch.tensor([0, -1, 1, 2**40 + 3, 2**63 - 1, -(2**63)])
    for seed, step, stream in [(1, 7, 3), (-(2**62) - 5, 2**47 + 3, 65535)]:
        words = kernels.bits_(torch.empty(6, 4, dtype=torch.int64), seed, step, ids, stream)
        assert torch.equal(words, reference.bits(seed, step, ids, stream))
        out = kernels.normal_(torch.full((6, 3), float("nan"), dtype=torch.float64), seed, step, ids, stream)
        torch.testing.assert_close(out, reference.normal(seed, step, ids, stream), rtol=0, atol=1e-14)


@pytest.mark.gpu
def test_a_gpu_draws_the_same_numbers():
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    ids = torch.arange(-5, 100_000)
    on_gpu = random.normal(2**63 + 5, 2**40, ids.cuda(), 7).cpu()
    torch.testing.assert_close(on_gpu, random.normal(2**63 + 5, 2**40, ids, 7), rtol=0, atol=1e-13)
    assert torch.equal(random.bits(1, 2, ids.cuda(), 3).cpu(), random.bits(1, 2, ids, 3))


@pytest.mark.parametrize("capability", [80, 90, 100])
def test_triton_kernels_compile_ahead_of_time(monkeypatch, capability):
    kernels = fresh_triton_module(monkeypatch, "0")
    from triton import compile as compile_ahead
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    scalars = {"seed": "i64", "step": "i64", "stream": "i32", "n": "i32", "BLOCK": "constexpr"}
    for kernel, out in [(kernels._random_bits_kernel, "*i64"), (kernels._random_normal_kernel, "*fp64")]:
        source = ASTSource(kernel, {"ids_ptr": "*i64", "out_ptr": out, **scalars}, {"BLOCK": kernels.BLOCK})
        assert compile_ahead(source, target=GPUTarget("cuda", capability, 32)).asm["cubin"]
