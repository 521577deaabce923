"""CUDA sources: they compile for GPUs that are not there, and no kernel spills registers."""

import pytest
import torch

from profiling import cuda_aot
from rsa_kernels import _cuda

reason = cuda_aot.unavailable()
compiles = pytest.mark.skipif(reason is not None, reason=reason or "")


@compiles
@pytest.mark.parametrize("capability", cuda_aot.CAPABILITIES)
@pytest.mark.parametrize("source", cuda_aot.sources())
def test_compiles_without_spills(source, capability):
    rows = cuda_aot.resources(source, capability)
    assert rows, f"{source}.cu holds no kernel"
    assert {row.kernel: row.spilled_bytes for row in rows if row.spilled_bytes} == {}


@compiles
def test_a_source_that_does_not_compile_is_refused(tmp_path, monkeypatch):
    (tmp_path / "cuda").mkdir()
    (tmp_path / "cuda" / "bad.cu").write_text('extern "C" __global__ void bad_kernel() { missing(); }\n')
    monkeypatch.setattr(_cuda, "source_folder", lambda: tmp_path)
    with pytest.raises(RuntimeError, match=r"bad\.cu does not compile:\n.*missing"):
        cuda_aot.to_ptx("bad", 90)


def test_arguments_become_machine_words():
    device = torch.device("cpu")
    x = torch.arange(6.0).reshape(2, 3)
    assert _cuda._plain("k", x, device) == x.data_ptr()
    assert _cuda._plain("k", None, device) == 0
    assert _cuda._plain("k", 7, device).dtype == "int64"
    assert _cuda._plain("k", 7.0, device).dtype == "float64"
    with pytest.raises(ValueError, match="`k` takes contiguous tensors on cpu"):
        _cuda._plain("k", x.T, device)
    with pytest.raises(ValueError, match="`k` takes contiguous tensors on cuda:0"):
        _cuda._plain("k", x, torch.device("cuda", 0))


def test_a_changed_header_changes_the_cached_code(tmp_path, monkeypatch):
    (tmp_path / "cuda").mkdir()
    (tmp_path / "cuda" / "one.cu").write_text('#include "one.hpp"\n')
    (tmp_path / "one.hpp").write_text("// first\n")
    monkeypatch.setattr(_cuda, "source_folder", lambda: tmp_path)
    _cuda._fingerprint.cache_clear()
    before = _cuda._fingerprint("one")
    (tmp_path / "one.hpp").write_text("// second\n")
    _cuda._fingerprint.cache_clear()
    assert _cuda._fingerprint("one") != before
    _cuda._fingerprint.cache_clear()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_launch_on_the_current_stream():
    device = torch.device("cuda", torch.cuda.current_device())
    import cupy

    module = cupy.RawModule(
        code='extern "C" __global__ void twice(double* x, long long n, double f)'
        "{ long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; if (i < n) x[i] *= f; }",
        backend="nvrtc",
    )
    x = torch.arange(1000, dtype=torch.float64, device=device)
    stream = torch.cuda.Stream(device)
    original = _cuda._kernel
    _cuda._kernel = lambda *_: module.get_function("twice")
    try:
        with torch.cuda.stream(stream):
            x.add_(1.0)
            _cuda.launch("any", "twice", 1000, x, 1000, 2.0, device=device)
    finally:
        _cuda._kernel = original
    stream.synchronize()
    assert torch.equal(x.cpu(), 2.0 * (torch.arange(1000, dtype=torch.float64) + 1.0))
