"""The product basis of a network as its file has it: mace-torch makes one of two, depending on what else is installed.

The coupling tensors U of the product basis either span all couplings of Clebsch–Gordan coefficients, or only the
symmetric ones, which are fewer ("reduced"). mace-torch can make the second only where cuequivariance is installed, and
its weights have other shapes. U is kept with the weights, so a file of either kind can be read anywhere: the tensors
are given the shapes of the file before they are filled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import permutations
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from .network import Network

_COUPLING = re.compile(
    r"(?P<contraction>products\.\d+\.symmetric_contractions\.contractions\.\d+)\.U_matrix_(?P<order>\d+)"
)


def fit_product_basis(model: Network, state: Mapping[str, Tensor]) -> bool:
    """Give the coupling tensors of a network, and the weights of the couplings, the shapes they have in a state dict.

    Only the number of couplings (the last axis of U) may differ; what else differs is left for ``load_state_dict`` to
    refuse. Nothing is filled.

    Parameters
    ----------
    model : Network
        Changed in place.
    state : mapping of str to Tensor
        As from ``state_dict()``.

    Returns
    -------
    bool
        Whether something was changed.
    """
    changed = False
    for name, given in state.items():
        match = _COUPLING.fullmatch(name)
        own = dict(model.named_buffers()).get(name) if match else None
        if own is None or own.shape == given.shape or own.shape[:-1] != given.shape[:-1]:
            continue
        contraction, order = model.get_submodule(match["contraction"]), int(match["order"])
        setattr(contraction, f"U_matrix_{order}", own.new_zeros(given.shape))
        highest = order == contraction.correlation
        weights = contraction.weights_max if highest else contraction.weights[contraction.correlation - 1 - order]
        shape = (weights.shape[0], given.shape[-1], weights.shape[2])
        fitted = nn.Parameter(weights.new_zeros(shape), requires_grad=bool(torch.any(given != 0)))
        if highest:
            contraction.weights_max = fitted
        else:
            contraction.weights[contraction.correlation - 1 - order] = fitted
        changed = True
    return changed


def spans_couplings(full: Tensor, reduced: Tensor, order: int) -> bool:
    """Whether every coupling of `reduced` is, once made symmetric, one of `full`.

        U acts on x ⊗ x ⊗ …, so only its part symmetric in those axes counts.

    Parameters
    ----------
    full, reduced : Tensor
        ([2l+1,] n, …, n, couplings), as the buffers ``U_matrix_ORDER``; of the same shape but for the couplings.
    order : int
        Number of axes of length n.
    """
    columns = [_symmetric(one.double(), order).flatten(0, -2) for one in (full, reduced)]
    solution = torch.linalg.lstsq(columns[0], columns[1], driver="gelsd").solution
    # Tables made in float32 are right to 1e-6; what lies outside the span is of the order of one.
    return bool(torch.allclose(columns[0] @ solution, columns[1], rtol=0.0, atol=1e-5))


def _symmetric(table: Tensor, order: int) -> Tensor:
    """Mean over all orders of the last `order` axes before the couplings."""
    first = table.dim() - 1 - order
    orders = [[*range(first), *(first + axis for axis in one), table.dim() - 1] for one in permutations(range(order))]
    return sum(table.permute(one) for one in orders) / len(orders)
