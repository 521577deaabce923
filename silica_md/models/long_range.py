"""Long-range layers of a model, one small class each: what happens to the features after an interaction, or an energy.

A class takes the model's configuration and irreps and overrides one of the two hooks of `LongRange`. To add a layer,
write such a class and name it in `LAYERS`. The sums over waves are those of `rsa_kernels.nn`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rsa_kernels.nn import LatentEwald, ReciprocalSpaceAttention, ReciprocalSpaceGatedAttention, SumOfGaussians
from rsa_kernels.reciprocal import spectra
from rsa_kernels.reciprocal.published import rsga_sigma
from rsa_kernels.units import COULOMB

from ._mace import LinearReadoutBlock, NonLinearReadoutBlock, o3
from .config import ModelConfig

if TYPE_CHECKING:
    from .network import Graph

SHARPNESS = 3.0
"""σ·k_cut where k_cut is not given: 1 % of the Gaussian is left at the cut."""


class LongRange(nn.Module):
    """What a long-range layer may do in a model; does nothing.

    Attributes
    ----------
    layers : nn.ModuleList
        One module for each interaction.
    """

    def waves(self, graph: Graph):
        """Waves of the cells, made once for all layers: they share their settings."""
        raise NotImplementedError

    def mixed(self, layer: int, before: Tensor, after: Tensor, graph: Graph, waves) -> Tensor:
        """Return the features that leave interaction number `layer`.

        Parameters
        ----------
        before, after : Tensor
            Features that entered the interaction and those its product gave, (n_atoms, irreps).
        graph : Graph
        waves
            From `waves`.
        """
        return after

    def node_energy(self, features: list[Tensor], graph: Graph, waves) -> Tensor | None:
        """Return energies of the atoms to be added, (n_atoms,) eV, from the features of every interaction."""
        return None


class Attention(LongRange):
    """What both attentions share: their settings, and the interactions they follow.

    Parameters
    ----------
    count : int
        Interactions of the network.
    interactions : sequence of int, optional
        Numbers of those with an attention after them, from 0; default: all.
    """

    def __init__(self, count: int, interactions: Sequence[int] | None):
        super().__init__()
        every = list(range(count))
        chosen = every if interactions is None else interactions
        if not isinstance(chosen, Sequence) or not chosen or [one for one in every if one in chosen] != list(chosen):
            raise ValueError(f"`interactions` must be ascending numbers of interactions, of {every}, got {chosen!r}")
        self.interactions = tuple(chosen)

    def waves(self, graph: Graph):
        """Waves of one attention; all have the same settings."""
        return self.attention(self.interactions[0]).modes(graph.cell, len(graph.cell))

    def attention(self, layer: int) -> ReciprocalSpaceAttention | ReciprocalSpaceGatedAttention:
        """The attention of an interaction that has one."""
        raise NotImplementedError


class RSALayer(nn.Module):
    """Linear map to scalars, attention, and the tensor product through which the update enters."""

    def __init__(self, before: o3.Irreps, after: o3.Irreps, hidden: int, settings: dict):
        super().__init__()
        scalars = o3.Irreps(f"{hidden}x0e")
        self.linear = o3.Linear(before, scalars)
        self.attention = ReciprocalSpaceAttention(hidden, **settings)
        self.product = o3.FullyConnectedTensorProduct(after, scalars, after)


class RSA(Attention):
    """Reciprocal-space attention after every interaction.

        x = linear(h_before),   u = attention(x),   h ← h_after + product(h_after ⊗ u)

    In the published block (``norm="rsa"``) the product replaces h_after.

    Parameters
    ----------
    hidden : int
        Channels of the attention; default: the number of scalars of the network.
    heads : int
        Default: of width 4. One head of all channels in the published block.
    norm : {"intensive", "rsa"}
    sigma, k_cut : float
        Å and 1/Å; defaults r_max/4.29 and 3/σ. Not with norm "rsa".
    interactions : sequence of int
        Those with an attention after them, from 0; default: all. After the last only, updates never feed another
        attention, and a model trained in small boxes carries further into large ones (`profiling/studies/size.py`).
    method, tolerance, window_start
        See `rsa_kernels.nn.ReciprocalSpaceAttention`.
    """

    def __init__(
        self,
        config: ModelConfig,
        irreps: list[tuple[o3.Irreps, o3.Irreps]],
        *,
        hidden: int | None = None,
        heads: int | None = None,
        norm: str = "intensive",
        sigma: float | None = None,
        k_cut: float | None = None,
        interactions: Sequence[int] | None = None,
        **options,
    ):
        super().__init__(len(irreps), interactions)
        hidden = hidden or _scalars(irreps[0][0])
        settings = _attention_settings(config, hidden, heads, norm, sigma, k_cut) | options
        self.residual = norm == "intensive"
        self.layers = nn.ModuleList(
            RSALayer(before, after, hidden, settings) if number in self.interactions else nn.Identity()
            for number, (before, after) in enumerate(irreps)
        )

    def attention(self, layer: int) -> ReciprocalSpaceAttention:
        """The attention of an interaction."""
        return self.layers[layer].attention

    def mixed(self, layer, before, after, graph, waves) -> Tensor:
        """Features with the update multiplied in."""
        if layer not in self.interactions:
            return after
        one = self.layers[layer]
        update = one.attention(one.linear(before), graph.positions, graph.cell, graph.batch_ptr, waves)
        product = one.product(after, update)
        return after + product if self.residual else product


class RSGA(Attention):
    """Reciprocal-space gated attention on the scalars, after every interaction: h ← h + mix_gate · update.

    Parameters
    ----------
    hidden : int, optional
        Channels of the attention; must be the number of scalars, which is the default.
    heads, norm, sigma, k_cut, interactions, method, tolerance, window_start
        As for `RSA`; norm "intensive" or "rsga".
    mix_bias : float
        At first the share of the long-range channel is sigmoid(mix_bias); −5 as published.
    """

    def __init__(
        self,
        config: ModelConfig,
        irreps: list[tuple[o3.Irreps, o3.Irreps]],
        *,
        heads: int | None = None,
        norm: str = "intensive",
        sigma: float | None = None,
        k_cut: float | None = None,
        mix_bias: float = -5.0,
        interactions: Sequence[int] | None = None,
        **options,
    ):
        super().__init__(len(irreps), interactions)
        self.layers = nn.ModuleList()
        for number, (_, after) in enumerate(irreps):
            if number not in self.interactions:
                self.layers.append(nn.Identity())
                continue
            hidden = _scalars(after)
            settings = _attention_settings(config, hidden, heads, norm, sigma, k_cut) | options
            if norm == "rsga":
                settings["r_max"] = config.r_max
            layer = ReciprocalSpaceGatedAttention(hidden, **settings)
            nn.init.constant_(layer.mix_gate_node.bias, mix_bias)
            self.layers.append(layer)

    def attention(self, layer: int) -> ReciprocalSpaceGatedAttention:
        """The attention of an interaction."""
        return self.layers[layer]

    def mixed(self, layer, before, after, graph, waves) -> Tensor:
        """Features with the gated update added to the scalars."""
        if layer not in self.interactions:
            return after
        one = self.layers[layer]
        scalars, others = after[:, : one.width], after[:, one.width :]  # features begin with their scalars
        update, gate = one(scalars, graph.positions, graph.cell, graph.batch_ptr, waves)
        return torch.cat([scalars + gate * update, others], dim=1)


class Charges(LongRange):
    """Latent charges read from the features of every interaction, as energies are, and the energy of their waves."""

    def __init__(self, config: ModelConfig, irreps: list[tuple[o3.Irreps, o3.Irreps]], channels: int):
        super().__init__()
        if channels < 1:
            raise ValueError(f"`channels` must be at least 1, got {channels}")
        out = o3.Irreps(f"{channels}x0e")
        self.layers = nn.ModuleList(LinearReadoutBlock(after, out) for _, after in irreps[:-1])
        last = NonLinearReadoutBlock(irreps[-1][1], o3.Irreps(config.MLP_irreps), nn.functional.silu, out)
        self.layers.append(last)

    def waves(self, graph: Graph):
        """Waves of the cells with the present weights."""
        return self.energy.modes(graph.cell, len(graph.cell))

    def charges(self, features: list[Tensor]) -> Tensor:
        """Latent charges, (n_atoms, channels)."""
        return torch.stack([layer(one) for layer, one in zip(self.layers, features, strict=True)]).sum(dim=0)

    def node_energy(self, features, graph, waves) -> Tensor:
        """Energies of the atoms in the potential of all charges."""
        return self.energy.per_atom(self.charges(features), graph.positions, graph.cell, graph.batch_ptr, waves)


class SOG(Charges):
    """SOG-Net: energy of latent charges with a learned sum of Gaussians.

    Parameters
    ----------
    k_cut : float
        1/Å; default 3/σ with the σ of `RSA`.
    channels : int
        Latent charges of an atom; 4 as published.
    n_terms, norm, scale, method, tolerance, window_start
        See `rsa_kernels.nn.SumOfGaussians`.
    """

    def __init__(self, config: ModelConfig, irreps, *, k_cut: float | None = None, channels: int = 4, **options):
        super().__init__(config, irreps, channels)
        self.energy = SumOfGaussians(k_cut or SHARPNESS / rsga_sigma(config.r_max), **options)


class LatentEwaldCharges(Charges):
    """Latent Ewald summation: the Coulomb energy of latent charges, in units of e.

    Parameters
    ----------
    sigma, k_cut : float
        Å and 1/Å; 1 and π as published.
    channels : int
        Latent charges of an atom.
    scale, norm, subtract_self, method, tolerance, window_start
        See `rsa_kernels.nn.LatentEwald`.
    """

    def __init__(self, config: ModelConfig, irreps, *, channels: int = 1, scale: float | None = None, **options):
        super().__init__(config, irreps, channels)
        self.energy = LatentEwald(scale=2.0 * math.pi * COULOMB if scale is None else scale, **options)


LAYERS: dict[str, type[LongRange]] = {"rsa": RSA, "rsga": RSGA, "sog": SOG, "latent_ewald": LatentEwaldCharges}


def build_long_range(config: ModelConfig, irreps: list[tuple[o3.Irreps, o3.Irreps]]) -> LongRange | None:
    """Return the long-range part of a model, None for a short-range one.

    Parameters
    ----------
    config : ModelConfig
    irreps : list of (Irreps, Irreps)
        Of the features before and after every interaction.

    Raises
    ------
    ValueError, TypeError
        An option that the layer does not have, or a value it refuses.
    """
    if not config.long_range:
        return None
    options = {key: value for key, value in config.long_range.items() if key != "kind"}
    kind = LAYERS[config.kind]
    known = inspect.signature(kind).parameters
    for option in options:
        if option not in known and option not in _OPTIONS:
            names = sorted({one for one in known if known[one].kind is known[one].KEYWORD_ONLY} | set(_OPTIONS))
            raise ValueError(f"unknown option `{option}` of the long-range layer {config.kind!r}, known are {names}")
    return kind(config, irreps, **options)


_OPTIONS = ("method", "tolerance", "window_start", "norm", "scale", "sigma", "k_cut", "n_terms", "subtract_self")


def _attention_settings(config, hidden, heads, norm, sigma, k_cut) -> dict:
    """Settings of an attention, with the defaults that follow from the short-range cutoff."""
    if norm != "intensive":
        given = {"heads": heads or 1, "norm": norm}
        return given | {key: value for key, value in (("sigma", sigma), ("k_cut", k_cut)) if value is not None}
    sigma = rsga_sigma(config.r_max) if sigma is None else sigma
    if heads is None:
        heads = hidden // 4 if hidden % 4 == 0 else 1
    return {"heads": heads, "k_cut": k_cut or SHARPNESS / sigma, "spectrum": spectra.ewald(sigma)}


def _scalars(irreps: o3.Irreps) -> int:
    return irreps.count(o3.Irrep(0, 1))
