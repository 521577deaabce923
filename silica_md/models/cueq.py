"""The blocks of a network replaced by those of cuequivariance: the same numbers, faster on a GPU."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .network import Network

INSTALL = "pip install cuequivariance cuequivariance-torch (and cuequivariance-ops-torch-cu13 for the GPU kernels)"


def accelerate(model: Network) -> Network:
    """Return a network with the weights of `model` whose linear maps and products are those of cuequivariance.

    Parameters
    ----------
    model : Network
        From `build` or `load`; left as it is. On a GPU products and sums over neighbours are fused, which needs the
        GPU kernels.

    Returns
    -------
    Network
        Energies and derivatives are those of `model` to rounding. For evaluation only: its tensors have other names and
        shapes, so keep the model it was made of; `save` refuses it.

    Raises
    ------
    ImportError
        The packages are not installed; the message says how to.
    ValueError
        A part of the model has no counterpart in them.

    Notes
    -----
    Features with l > 0 stay in e3nn's order where a long-range layer reads them; else cuequivariance's own is used.
    Not yet run on a GPU.
    """
    for package in ("cuequivariance", "cuequivariance_torch"):
        if importlib.util.find_spec(package) is None:
            raise ImportError(f"accelerate needs {package}, which is not installed; {INSTALL}")
    from ._mace import o3  # isort: skip  (first: the one door)
    from mace.cli.convert_e3nn_cueq import transfer_symmetric_contractions
    from mace.modules.wrapper_ops import CuEquivarianceConfig

    from .network import Network, default_dtype, unscripted

    config = model.config
    correlation = config.correlation
    if correlation not in (2, 3):
        raise ValueError(f"`model` must have the same correlation 2 or 3 in every layer, got {correlation}")
    hidden = o3.Irreps(config.hidden_irreps)
    own_order = config.kind != "sr" and hidden.lmax > 0
    device = next(model.parameters()).device
    settings = CuEquivarianceConfig(
        enabled=True,
        layout="mul_ir" if own_order else "ir_mul",
        group="O3_e3nn",
        optimize_all=True,
        conv_fusion=device.type == "cuda",
    )
    with default_dtype(model.dtype), torch.random.fork_rng(devices=[]), unscripted():
        fast = Network(config, cueq_config=settings)
    source, target = model.state_dict(), fast.state_dict()
    transfer_symmetric_contractions(
        source,
        target,
        len(hidden.slices()) - 1,
        model.products,
        correlation,
        config.num_interactions,
        config.use_reduced_cg,
        config.keep_last_layer_irreps,
    )
    for name, value in target.items():
        if ".symmetric_contractions." in name:
            if name.endswith(".weight") and value.shape != fast.state_dict()[name].shape:
                raise ValueError(f"`{name}` has no counterpart in cuequivariance: {tuple(value.shape)}")
        elif name in source and source[name].numel() == value.numel():
            target[name] = source[name].reshape(value.shape)
        elif name in dict(fast.named_parameters()):
            raise ValueError(f"`{name}` has no counterpart in the model")
    lost = [
        name for name, _ in model.named_parameters() if name not in target and ".symmetric_contractions." not in name
    ]
    if lost:
        raise ValueError(f"`{lost[0]}` has no counterpart in cuequivariance")
    fast.load_state_dict(target, strict=True)
    for one, other in zip(fast.interactions, model.interactions, strict=True):
        one.avg_num_neighbors = other.avg_num_neighbors
    fast.accelerated = True
    return fast.to(device).train(model.training)
