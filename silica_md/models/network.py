"""The network: MACE's blocks in one forward pass, with a hook for a long-range layer after every interaction."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ._mace import (
    get_optimization_defaults,
    get_outputs,
    modules,
    o3,
    prepare_graph,
    scatter_sum,
    set_optimization_defaults,
)
from .config import ModelConfig
from .long_range import build_long_range


class Graph(NamedTuple):
    """What the network reads of a batch of structures.

    Attributes
    ----------
    positions : Tensor
        (n_atoms, 3) Å, float64 or float32, wrapped or not.
    cell : Tensor
        (n_systems, 3, 3) Å, strained as the positions are: the stress comes through it.
    edge_index : Tensor
        (2, n_pairs) int64, rows i and j.
    vectors : Tensor
        (n_pairs, 3) Å, r_j + S·cell − r_i, dtype of the network.
    node_attrs : Tensor
        (n_atoms, n_elements), one-hot in the order of the network's elements, dtype of the network.
    batch, batch_ptr : Tensor
        (n_atoms,) and (n_systems + 1,) int64: the system of every atom, and where the systems begin.
    heads : Tensor
        (n_atoms,) int64: the head that answers for every atom.
    """

    positions: Tensor
    cell: Tensor
    edge_index: Tensor
    vectors: Tensor
    node_attrs: Tensor
    batch: Tensor
    batch_ptr: Tensor
    heads: Tensor


class NodeEnergies(NamedTuple):
    """Energies of the atoms, eV.

    Attributes
    ----------
    atomic : Tensor
        (n_atoms,): E0 of the element; no forces.
    interaction : Tensor
        (n_atoms,): everything else.
    features : Tensor
        (n_atoms, ...): the features of all interactions, side by side.
    """

    atomic: Tensor
    interaction: Tensor
    features: Tensor


def in_own_dtype(energies: Callable[[Network, Graph], NodeEnergies]) -> Callable[[Network, Graph], NodeEnergies]:
    """Make the type of the network the default inside.

    mace-torch multiplies integer charges with plain numbers (ZBL) and makes masks of heads in the default type; with
    another default than the network's, energies lose half their digits.
    """

    @functools.wraps(energies)
    def inside(self: Network, graph: Graph) -> NodeEnergies:
        with default_dtype(graph.vectors.dtype):
            return energies(self, graph)

    return inside


class Network(modules.ScaleShiftMACE):
    """MACE with a long-range layer after every interaction, or none.

    Takes and returns what `mace.modules.ScaleShiftMACE` does; without a long-range layer the numbers are its own, bit
    for bit. Make one with `build`.

    Parameters
    ----------
    config : ModelConfig
    cueq_config : optional
        Of mace-torch: which blocks are those of cuequivariance.

    Attributes
    ----------
    config : ModelConfig
    long_range : silica_md.models.long_range.LongRange or None
    """

    def __init__(self, config: ModelConfig, cueq_config=None):
        hidden = o3.Irreps(config.hidden_irreps)
        super().__init__(
            r_max=config.r_max,
            num_bessel=config.num_radial_basis,
            num_polynomial_cutoff=config.num_cutoff_basis,
            max_ell=config.max_ell,
            interaction_cls=_named("interaction", config.interaction, modules.interaction_classes),
            interaction_cls_first=_named("interaction_first", config.interaction_first, modules.interaction_classes),
            num_interactions=config.num_interactions,
            num_elements=len(config.atomic_numbers),
            hidden_irreps=hidden,
            MLP_irreps=o3.Irreps(config.MLP_irreps),
            atomic_energies=np.array(config.atomic_energies, dtype=np.float64),
            avg_num_neighbors=config.avg_num_neighbors,
            atomic_numbers=list(config.atomic_numbers),
            correlation=list(config.correlation) if isinstance(config.correlation, tuple) else config.correlation,
            gate=_named("gate", config.gate, modules.gate_dict),
            pair_repulsion=config.pair_repulsion,
            apply_cutoff=config.apply_cutoff,
            use_reduced_cg=config.use_reduced_cg,
            use_so3=config.use_so3,
            use_agnostic_product=config.use_agnostic_product,
            use_last_readout_only=config.use_last_readout_only,
            use_edge_irreps_first=config.use_edge_irreps_first,
            keep_last_layer_irreps=config.keep_last_layer_irreps,
            edge_irreps=o3.Irreps(config.edge_irreps) if config.edge_irreps else None,
            distance_transform=config.distance_transform,
            radial_MLP=list(config.radial_MLP),
            radial_type=config.radial_type,
            heads=list(config.heads),
            readout_cls=_named("readout", config.readout, modules.readout_classes),
            atomic_inter_scale=config.scale,
            atomic_inter_shift=config.shift,
            cueq_config=cueq_config,
        )
        self.config = config
        self.long_range = build_long_range(config, self._feature_irreps())

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        return next(self.parameters()).dtype

    def _feature_irreps(self) -> list[tuple[o3.Irreps, o3.Irreps]]:
        """Irreps of the features before and after every interaction."""
        after = [o3.Irreps(str(product.linear.irreps_out)) for product in self.products]
        return list(zip([o3.Irreps(str(self.node_embedding.linear.irreps_out)), *after], after, strict=False))

    @in_own_dtype
    @torch.jit.optimized_execution(False)  # what e3nn scripts nevertheless; see `unscripted`
    def node_energies(self, graph: Graph) -> NodeEnergies:
        """Return the energies of the atoms: the whole of the network, differentiable.

            E_i = E0 + s · (Σ_layers readout(h_i) + ZBL) + t + E_i(long range)

        with the features h_i passing through the long-range layer after every interaction.
        """
        atoms = torch.arange(graph.node_attrs.shape[0], device=graph.node_attrs.device)
        atomic = self.atomic_energies_fn(graph.node_attrs)[atoms, graph.heads]
        lengths = torch.linalg.norm(graph.vectors, dim=-1, keepdim=True)
        edge_attrs = self.spherical_harmonics(graph.vectors)
        edge_feats, cutoff = self.radial_embedding(lengths, graph.node_attrs, graph.edge_index, self.atomic_numbers)
        waves = None if self.long_range is None else self.long_range.waves(graph)

        h, features = self.node_embedding(graph.node_attrs), []
        for layer, (interaction, product) in enumerate(zip(self.interactions, self.products, strict=True)):
            before = h
            h, sc = interaction(
                node_attrs=graph.node_attrs,
                node_feats=h,
                edge_attrs=edge_attrs,
                edge_feats=edge_feats,
                edge_index=graph.edge_index,
                cutoff=cutoff,
                first_layer=layer == 0,
            )
            h = product(node_feats=h, sc=sc, node_attrs=graph.node_attrs)
            if self.long_range is not None:
                h = self.long_range.mixed(layer, before, h, graph, waves)
            features.append(h)

        read = features[-1:] if len(self.readouts) == 1 else features
        terms = [
            readout(one, graph.heads)[atoms, graph.heads] for readout, one in zip(self.readouts, read, strict=True)
        ]
        repulsion = torch.zeros_like(atomic)
        if self.config.pair_repulsion:
            repulsion = self.pair_repulsion_fn(lengths, graph.node_attrs, graph.edge_index, self.atomic_numbers)
        if not self.config.pair_repulsion_after_scale:
            terms.insert(0, repulsion)
        interaction = self.scale_shift(torch.sum(torch.stack(terms, dim=0), dim=0), graph.heads)
        if self.config.pair_repulsion_after_scale:
            interaction = interaction + repulsion
        if self.long_range is not None:
            added = self.long_range.node_energy(features, graph, waves)
            interaction = interaction if added is None else interaction + added
        return NodeEnergies(atomic, interaction, torch.cat(features, dim=-1))

    def forward(
        self,
        data: dict[str, Tensor],
        training: bool = False,
        compute_force: bool = True,
        compute_virials: bool = False,
        compute_stress: bool = False,
        compute_displacement: bool = False,
        compute_hessian: bool = False,
        compute_edge_forces: bool = False,
        compute_atomic_stresses: bool = False,
        lammps_mliap: bool = False,
    ) -> dict[str, Tensor | None]:
        """Return energy, forces and what else is asked for, with the keys of `mace.modules.ScaleShiftMACE`.

        Parameters
        ----------
        data : dict of Tensor
            Of `mace.data.AtomicData`: positions, cell, edge_index, shifts, unit_shifts, node_attrs, batch, ptr, and
            head, pbc where there are some. Positions and shifts are replaced by strained ones, as in mace-torch.

        Raises
        ------
        ValueError
            A long-range layer and a direction that is not periodic.
        NotImplementedError
            Energies by pairs, or the LAMMPS interface: neither exists with a long-range layer.
        """
        if compute_edge_forces or compute_atomic_stresses or lammps_mliap:
            raise NotImplementedError("edge forces, atomic stresses and the LAMMPS interface are not provided here")
        if self.long_range is not None and "pbc" in data:
            require_periodic(data["pbc"])
        ctx = prepare_graph(data, compute_virials, compute_stress, compute_displacement)
        cell = ctx.cell.view(-1, 3, 3)
        cell = cell + cell @ (0.5 * (ctx.displacement + ctx.displacement.transpose(-1, -2)))
        graph = Graph(
            data["positions"],
            cell,
            data["edge_index"],
            ctx.vectors,
            data["node_attrs"],
            data["batch"],
            data["ptr"],
            ctx.node_heads.to(torch.int64),
        )
        energies = self.node_energies(graph)
        systems = {"index": data["batch"], "dim": 0, "dim_size": ctx.num_graphs}
        interaction = scatter_sum(energies.interaction, **systems)
        forces, virials, stress, hessian, _ = get_outputs(
            energy=interaction,
            positions=ctx.positions,
            displacement=ctx.displacement,
            vectors=ctx.vectors,
            cell=ctx.cell,
            training=training,
            compute_force=compute_force,
            compute_virials=compute_virials,
            compute_stress=compute_stress,
            compute_hessian=compute_hessian,
        )
        return {
            "energy": scatter_sum(energies.atomic, **systems).to(interaction.dtype) + interaction,
            "node_energy": energies.atomic.clone().double() + energies.interaction.clone().double(),
            "interaction_energy": interaction,
            "forces": forces,
            "virials": virials,
            "stress": stress,
            "hessian": hessian,
            "displacement": ctx.displacement,
            "node_feats": energies.features,
        }


def build(config: ModelConfig | Mapping, *, dtype: torch.dtype = torch.float64, seed: int = 0) -> Network:
    """Return a network with new weights.

    Parameters
    ----------
    config : ModelConfig or mapping
        What it is.
    dtype : torch.dtype
        float64 or float32. Weights are drawn, and constants computed, in float64 either way.
    seed : int
        Of the weights; the global random state is left as it was.

    Raises
    ------
    ValueError
        An unknown class, irreps that do not exist, an option the long-range layer does not have.
    """
    if not isinstance(config, ModelConfig):
        config = ModelConfig.from_dict(config)
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"`dtype` must be torch.float64 or torch.float32, got {dtype}")
    with torch.random.fork_rng(devices=[]), in_float64(), unscripted():
        torch.manual_seed(seed)
        network = Network(config)
    return network.to(dtype)


def in_float64() -> contextlib.AbstractContextManager:
    """Make float64 the default inside: e3nn computes its constants in the default type."""
    return default_dtype(torch.float64)


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make a type the default inside."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def unscripted() -> Iterator[None]:
    """Keep e3nn from compiling its blocks with TorchScript inside.

    Scripted blocks round otherwise in their first calls than in later ones, which would break exact restarts; they are
    not faster, and take longer to build.
    """
    before = get_optimization_defaults()
    set_optimization_defaults(jit_script_fx=False)
    try:
        yield
    finally:
        set_optimization_defaults(**before)


def require_periodic(pbc) -> None:
    """Refuse a structure whose waves do not exist.

    Raises
    ------
    ValueError
        Not every direction is periodic.
    """
    flags = torch.as_tensor(pbc, dtype=torch.bool)
    if not bool(flags.all()):
        raise ValueError(
            f"`pbc` must be True in every direction for a model with a long-range layer, got {flags.tolist()}; put a"
            " molecule into a periodic box with vacuum around it"
        )


def _named(what: str, name: str, known: Mapping):
    if name not in known:
        raise ValueError(f"`{what}` must be one of {', '.join(known)}, got {name!r}")
    return known[name]
