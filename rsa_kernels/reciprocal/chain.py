"""Registers a sum over atoms and waves as an op with its backward and the backward of that.

The nine ops differ in the tensors they take and the formula they call; what they share stands here. Tensors go by
one-letter names: q, k, v leaves, s states, f fractional coordinates, n Miller triplets, w weights, g the gradient that
comes in, and d… the directions of a second derivative.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .._library import Kernel, Op, define_op, triton_missing
from . import costs
from .methods import Systems, streams

_TAIL = "Tensor batch_ptr, Tensor mode_ptr, str method, float tolerance, int atoms_in_all"
_N_TAIL, _N_SETTINGS = 5, 3


def define_chain(
    name: str,
    *,
    inputs: tuple[str, ...],
    differentiable: tuple[str, ...],
    waves: tuple[Callable, Callable, Callable],
    pairs: tuple[Callable, Callable, Callable] | None = None,
) -> Op:
    """Register `name`, `name`_backward and `name`_backward_backward; return the first.

    Parameters
    ----------
    inputs : tuple of str
        Names of the tensors of the op, in order; offsets and settings follow.
    differentiable : tuple of str
        The inputs that get a gradient.
    waves, pairs : tuple of 3 callables
        Formulas of value, backward and backward of backward for one system, over waves (take the tensors without f and
        n, and streams) and over pairs (take all tensors). Without `pairs` the op is half of a sum over waves.
    """
    directions = tuple("d" + one for one in differentiable)
    takes = (inputs, ("g", *inputs), (*directions, "g", *inputs))
    gives = ("u",), differentiable, ("g", *differentiable)
    ops: list[Op] = []
    for order in (2, 1, 0):
        kernel = _kernel(order, takes[order], gives[order], waves[order], pairs and pairs[order])
        derivative = None if order == 2 else _derivative(order, ops[-1], takes[order], differentiable)
        arguments = ", ".join(f"Tensor {one}" for one in takes[order])
        returned = ", ".join(["Tensor"] * len(gives[order]))
        ops.append(
            define_op(
                f"{name}{'_backward' * order}({arguments}, {_TAIL}) -> {returned if order == 0 else f'({returned})'}",
                kernels={
                    "cpu": Kernel(kernel, "matrix products and C++ meshes, all cores"),
                    "cuda": Kernel(kernel, "Triton kernels, second derivatives by matrix products", triton_missing),
                },
                fake=_fake(takes[order], gives[order]),
                backward=derivative,
                setup_context=None if order == 2 else _keep_inputs,
            )
        )
    return ops[-1]


def _kernel(order: int, takes, gives, over_waves: Callable, over_pairs: Callable | None) -> Callable:
    def kernel(*args):
        tensors = dict(zip(takes, args[:-_N_TAIL], strict=True))
        batch_ptr, mode_ptr, method, tolerance, atoms_in_all = args[-_N_TAIL:]
        left, d_v = _leaf(tensors), _d_v(tensors)
        systems = Systems(tensors["f"], tensors["n"], batch_ptr, mode_ptr)
        # Processes that share out the atoms of a system must agree on the method, and on the mesh.
        sizes = tuple((atoms_in_all or n, m) for n, m in systems.sizes)
        choice = costs.resolve(method, sizes, left, d_v, tolerance, with_pairs=over_pairs is not None)
        if choice == "pairwise" and left.is_cuda and order < 2:
            from . import triton_pairwise

            fused = (triton_pairwise.pairwise_forward, triton_pairwise.pairwise_backward)[order]
            return fused(*args[:-_N_TAIL], batch_ptr, mode_ptr)
        outputs = [torch.zeros_like(x) for x in _outputs(tensors, gives)]
        for atoms, modes in systems:
            parts = {one: x[_where(one, x, atoms, modes)] for one, x in tensors.items()}
            if choice == "pairwise":
                results = over_pairs(*parts.values())
            else:
                through = streams(choice, parts["f"], parts["n"], left, d_v, tolerance, atoms_in_all)
                results = over_waves(*(x for one, x in parts.items() if one not in "fn"), through)
            for output, result, one in zip(outputs, [results] if order == 0 else results, gives, strict=True):
                output[_where(one, output, atoms, modes)] = result
        return outputs[0] if order == 0 else tuple(outputs)

    return kernel


def _fake(takes, gives) -> Callable:
    def fake(*args):
        outputs = _outputs(dict(zip(takes, args[:-_N_TAIL], strict=True)), gives)
        return outputs[0] if gives == ("u",) else tuple(outputs)

    return fake


def _derivative(order: int, next_op: Op, takes, differentiable) -> Callable:
    """Return the derivative as torch.library wants it: from the gradients of outputs to those of inputs, by name."""

    def derivative(ctx, *grads):
        tensors = dict(zip(takes, ctx.saved_tensors[: len(takes)], strict=True))
        if order == 1:
            # Zeros stand for outputs that nothing was asked of.
            grads = [
                torch.zeros_like(tensors[one]) if x is None else x for one, x in zip(differentiable, grads, strict=True)
            ]
        results = next_op(*grads, *ctx.saved_tensors, *ctx.settings)
        named = dict(zip(differentiable if order == 0 else ("g", *differentiable), results, strict=True))
        return (*(named.get(one) for one in takes), *[None] * _N_TAIL)

    return derivative


def _keep_inputs(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:-_N_SETTINGS])
    ctx.settings = inputs[-_N_SETTINGS:]


def _leaf(tensors: dict[str, Tensor]) -> Tensor:
    """Return q or k, (n_atoms, heads, d)."""
    return tensors["q"] if "q" in tensors else tensors["k"]


def _d_v(tensors: dict[str, Tensor]) -> int:
    return (tensors["v"] if "v" in tensors else tensors["s"]).shape[-1]


def _outputs(tensors: dict[str, Tensor], gives) -> list[Tensor]:
    """Contiguous outputs without values; u is the value of the op: states where it takes none and no q."""
    left = _leaf(tensors)
    shape = (left.shape[0], left.shape[1], _d_v(tensors))
    if "q" not in tensors:
        shape = (2, tensors["n"].shape[0], *left.shape[1:], _d_v(tensors))
    return [
        left.new_empty(shape) if one == "u" else torch.empty_like(tensors[one], memory_format=torch.contiguous_format)
        for one in gives
    ]


def _where(name: str, x: Tensor, atoms: slice, modes: slice):
    """Part of a tensor that belongs to one system."""
    if x.dim() == 5:
        return slice(None), modes
    return modes if name in ("n", "w", "dw") else atoms
