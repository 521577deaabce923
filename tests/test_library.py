"""What `define_op` promises: kernels by device, refusals by name, derivatives that are never zero by default."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import rsa_kernels as rk
from rsa_kernels import _library, errors
from rsa_kernels._library import Kernel, define_op


@pytest.fixture
def define(monkeypatch):
    """Define ops that leave the registry again; torch keeps their names, so each is used once."""
    monkeypatch.setattr(_library, "REGISTRY", dict(_library.REGISTRY))
    return define_op


def double(x):
    return 2.0 * x


def fake(x):
    return torch.empty_like(x)


def save_inputs(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def test_a_kernel_runs_and_is_registered(define):
    op = define("t_runs(Tensor x) -> Tensor", kernels={"cpu": Kernel(double, "torch")}, fake=fake)
    assert op(torch.ones(2)).tolist() == [2.0, 2.0]
    assert torch.ops.rsa_kernels.t_runs(torch.ones(2)).tolist() == [2.0, 2.0]
    assert _library.REGISTRY["t_runs"] is op and not op.differentiable


def test_the_fake_kernel_gives_the_shapes(define):
    op = define(
        "t_fake(Tensor x, int n) -> Tensor",
        kernels={"cpu": Kernel(lambda x, n: x.repeat(n), "torch")},
        fake=lambda x, n: x.new_empty(n * x.shape[0]),
    )
    with FakeTensorMode():
        for device in ("cpu", "cuda"):
            out = op(torch.empty(3, dtype=torch.float64, device=device), 4)
            assert out.shape == (12,) and out.dtype == torch.float64 and out.device.type == device
    assert op(torch.ones(3, device="meta"), 4).shape == (12,)
    torch.library.opcheck(op.overload, (torch.ones(3), 4))


def test_a_device_without_kernel_is_refused_by_name(define):
    op = define("t_nowhere(Tensor x) -> Tensor", kernels={}, fake=fake)
    with pytest.raises(errors.BackendUnavailableError, match=r"rsa_kernels\.t_nowhere.*cpu"):
        op(torch.ones(2))
    # No CUDA tensor can be made here; the guard that torch would call is the same function.
    with pytest.raises(errors.BackendUnavailableError, match=r"rsa_kernels\.t_nowhere.*cuda"):
        _library._guarded("t_nowhere", "cuda", None)(torch.ones(2))


def test_a_kernel_that_cannot_run_says_why_at_use_and_may_run_later(define):
    reasons = ["install it with `pip install something`"]
    asked = []

    def missing():
        asked.append(True)
        return reasons[0] if reasons else None

    op = define("t_missing(Tensor x) -> Tensor", kernels={"cpu": Kernel(double, "fast code", missing)}, fake=fake)
    assert not asked  # looked at on use, not on registration
    with pytest.raises(errors.BackendUnavailableError, match=r"t_missing` cannot run on cpu \(fast code\): install it"):
        op(torch.ones(2))
    reasons.clear()
    assert op(torch.ones(2)).tolist() == [2.0, 2.0]
    count = len(asked)
    op(torch.ones(2))
    assert len(asked) == count  # asked until it can run, then not again


def test_a_derivative_that_is_not_provided_raises(define):
    op = define("t_flat(Tensor x) -> Tensor", kernels={"cpu": Kernel(double, "torch")}, fake=fake)
    x = torch.ones(2, requires_grad=True)
    y = op(x)
    assert y.requires_grad  # it does not come out as a constant either
    with pytest.raises(errors.DerivativeNotProvidedError, match=r"rsa_kernels\.t_flat.*detach"):
        y.sum().backward()


def test_a_chain_ends_with_a_refusal(define):
    """x³ with a derivative 3x² that is an op of its own, which has none: the first order is right, the next raises."""
    slope = define("t_slope(Tensor x) -> Tensor", kernels={"cpu": Kernel(lambda x: 3 * x * x, "torch")}, fake=fake)
    cube = define(
        "t_cube(Tensor x) -> Tensor",
        kernels={"cpu": Kernel(lambda x: x**3, "torch")},
        fake=fake,
        backward=lambda context, grad: grad * slope(*context.saved_tensors),
        setup_context=save_inputs,
    )
    assert cube.differentiable
    x = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(cube(x).sum(), x, create_graph=True)
    assert first.item() == 12.0
    with pytest.raises(errors.DerivativeNotProvidedError, match="t_slope"):
        torch.autograd.grad(first.sum(), x)
    torch.library.opcheck(cube.overload, (x,))


def test_a_name_is_defined_once(define):
    define("t_twice(Tensor x) -> Tensor", kernels={"cpu": Kernel(double, "torch")}, fake=fake)
    with pytest.raises(RuntimeError, match="t_twice"):
        define("t_twice(Tensor x) -> Tensor", kernels={"cpu": Kernel(double, "torch")}, fake=fake)


def test_every_op_has_a_cpu_kernel_that_says_what_it_is():
    assert {"neighbor_rows", "pair_evaluate", "pair_energy"} <= set(_library.REGISTRY)
    for name, op in _library.REGISTRY.items():
        assert op.name == name and op.kernels["cpu"].what and op.kernels["cpu"].missing() is None


def test_errors_are_caught_as_a_family():
    for name in (
        "NativeLibraryError",
        "BackendUnavailableError",
        "NonFiniteError",
        "AtomsTooCloseError",
        "CapacityError",
    ):
        assert issubclass(getattr(errors, name), errors.RsaKernelsError)
    assert issubclass(errors.DerivativeNotProvidedError, NotImplementedError)
    assert rk.errors is errors
