"""The registration helper: schema, a kernel per device, fake kernel and derivative of every op, in one call.

An op is registered with opaque kernels (never ``triton_op``) under ``torch.ops.rsa_kernels.<name>``. Its
derivative is given by ``backward``, which itself calls a registered op, and so on up the chain; the last op of
a chain has no ``backward`` and raises `DerivativeNotProvidedError` when it is differentiated: an order that is
not provided never comes out as zero.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from ._nvtx import annotated
from .errors import BackendUnavailableError, DerivativeNotProvidedError

NAMESPACE = "rsa_kernels"
_LIBRARY = torch.library.Library(NAMESPACE, "DEF")


def _always() -> None:
    return None


def triton_missing() -> str | None:
    """Why Triton kernels cannot run, or None if they can; looks without importing."""
    return None if importlib.util.find_spec("triton") else "Triton is not installed; pip install triton"


@dataclass(frozen=True)
class Kernel:
    """One implementation of an op.

    Attributes
    ----------
    function : callable
        Takes and returns what the schema says.
    what : str
        What runs, for people: ``"C++ threads and SIMD"``.
    missing : callable
        Returns None where the kernel can run, else the reason with the install line. Called at use, not at import.
    """

    function: Callable
    what: str
    missing: Callable[[], str | None] = _always


@dataclass(frozen=True)
class Op:
    """A registered op: what `doctor` lists and what the contract tests walk over."""

    name: str
    kernels: dict[str, Kernel]
    differentiable: bool
    overload: Callable = field(repr=False)

    def __call__(self, *args):
        return self.overload(*args)


REGISTRY: dict[str, Op] = {}


def define_op(
    schema: str,
    *,
    kernels: dict[str, Kernel],
    fake: Callable,
    backward: Callable | None = None,
    setup_context: Callable | None = None,
) -> Op:
    """Register one op.

    Parameters
    ----------
    schema : str
        ``"name(Tensor a, float b) -> Tensor"``, as torch.library writes it.
    kernels : dict
        Device type (``"cpu"``, ``"cuda"``) to `Kernel`. A device that is absent is refused by name.
    fake : callable
        Shapes and dtypes of the outputs, from fake inputs.
    backward, setup_context : callable, optional
        As in ``torch.library.register_autograd``; save only inputs. Without them the op's derivative raises.

    Returns
    -------
    Op
        Callable; also found in ``REGISTRY``.
    """
    name = schema.split("(", 1)[0].strip()
    qualified = f"{NAMESPACE}::{name}"
    _LIBRARY.define(schema)
    for device in ("cpu", "cuda"):
        kernel = kernels.get(device)
        _LIBRARY.impl(name, _guarded(name, device, kernel), device.upper())
    torch.library.register_fake(qualified, fake, lib=_LIBRARY)
    if backward is None:
        torch.library.register_autograd(qualified, _refuse_derivative(name), lib=_LIBRARY)
    else:
        torch.library.register_autograd(qualified, backward, setup_context=setup_context, lib=_LIBRARY)
    op = Op(name, kernels, backward is not None, getattr(getattr(torch.ops, NAMESPACE), name).default)
    REGISTRY[name] = op
    return op


def _guarded(name: str, device: str, kernel: Kernel | None) -> Callable:
    """Return the kernel behind one check, made on first use, that it can run here."""
    if kernel is None:

        def refuse(*_args, **_kwargs):
            raise BackendUnavailableError(f"`{NAMESPACE}.{name}` has no kernel for {device} tensors; move the inputs")

        return refuse

    ready = False

    def call(*args, **kwargs):
        nonlocal ready
        if not ready:
            reason = kernel.missing()
            if reason is not None:
                raise BackendUnavailableError(f"`{NAMESPACE}.{name}` cannot run on {device} ({kernel.what}): {reason}")
            ready = True
        return kernel.function(*args, **kwargs)

    return annotated(name)(call)


def _refuse_derivative(name: str) -> Callable:
    def backward(_ctx, *_grads):
        raise DerivativeNotProvidedError(
            f"`{NAMESPACE}.{name}` provides no derivative of this order; detach its inputs, or use an op that does"
        )

    return backward
