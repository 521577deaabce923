"""Energies, forces and virials of a network on moving atoms: what MD, ASE and TorchSim share."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from ase.data import chemical_symbols
from torch import Tensor

from rsa_kernels.errors import AtomsTooCloseError
from rsa_kernels.neighbors import NeighborList
from rsa_kernels.neighbors.vectors import neighbor_vectors_transposed

from .network import Graph, Network, require_periodic

TOO_CLOSE = 0.5
"""Å; no two atoms of matter are closer. A network has seen nothing like it and may well call it comfortable."""


class Atoms(NamedTuple):
    """What the network reads of atoms that do not change while they move; from `Evaluator.atoms`.

    Attributes
    ----------
    node_attrs : Tensor
        (n_atoms, n_elements), one-hot.
    batch, batch_ptr : Tensor
        (n_atoms,) and (n_systems + 1,) int64.
    heads : Tensor
        (n_atoms,) int64.
    atomic_energies : Tensor
        (n_atoms,) float64, E0, eV.
    """

    node_attrs: Tensor
    batch: Tensor
    batch_ptr: Tensor
    heads: Tensor
    atomic_energies: Tensor


class Evaluated(NamedTuple):
    """What `Evaluator` returns, float64.

    Attributes
    ----------
    per_atom_energy : Tensor
        (n_atoms,) eV, E0 included.
    forces : Tensor
        (n_atoms, 3) eV/Å.
    virial : Tensor or None
        W = −dE/dε of every system, (n_systems, 3, 3) symmetric, eV.
    """

    per_atom_energy: Tensor
    forces: Tensor
    virial: Tensor | None


class Evaluator:
    """A network for inference: parameters fixed, inputs that do not change kept.

        E = Σ_i E_i(r_ij, r, A),   F_i = Σ_j (∂E/∂r_ij − ∂E/∂r_ji) − ∂E/∂r_i,
        W = −sym(Σ_ij r_ij ⊗ ∂E/∂r_ij + Σ_i r_i ⊗ ∂E/∂r_i + Σ_c a_c ⊗ ∂E/∂a_c)

    where r_i and the cell's rows a_c enter through the long-range layer only, and what they enter through the arms r_ij
    of pairs within r_max is counted there.

    Parameters
    ----------
    network : Network
        Taken as it is when it is frozen (in evaluation mode, no parameter requires a gradient) and of the dtype asked
        for; copied otherwise, so that the one given stays trainable.
    head : str
        Which head answers; may be left out where there is one.
    dtype : torch.dtype, optional
        Of the arithmetic, float64 or float32; default: that of `network`.

    Attributes
    ----------
    network : Network
        The one that answers.
    cutoff : float
        r_max, Å.

    Notes
    -----
    Pairs are looked up in a list that may reach farther than r_max; those beyond are dropped before the network sees
    them. Arms are formed in float64 and then rounded to the dtype of the network; forces and energies are summed in
    float64.
    """

    def __init__(self, network: Network, head: str = "", dtype: torch.dtype | None = None):
        heads = network.config.heads
        if not head and len(heads) > 1:
            raise ValueError(f"`head` must be given, the model has several: {', '.join(heads)}")
        if head and head not in heads:
            raise ValueError(f"`head` must be one of {', '.join(heads)}, got '{head}'")
        frozen = not network.training and not any(one.requires_grad for one in network.parameters())
        if not frozen or dtype not in (None, network.dtype):
            network = copy.deepcopy(network).to(dtype=dtype).eval().requires_grad_(False)
        self.network = network
        self.head = heads.index(head) if head else 0
        self.cutoff = float(network.config.r_max)
        self.dtype = self.network.dtype
        self.long_range = network.long_range is not None

    def atoms(self, atomic_numbers: Tensor, batch_ptr: Tensor) -> Atoms:
        """Return what the network reads of these atoms, (n_atoms,) int64, on their device; moves the network there.

        Raises
        ------
        ValueError
            An element the network does not know.
        """
        config, device = self.network.config, atomic_numbers.device
        self.network.to(device)
        check_elements(config.atomic_numbers, atomic_numbers)
        place = torch.searchsorted(torch.tensor(config.atomic_numbers, device=device), atomic_numbers)
        rows = torch.tensor(config.atomic_energies, dtype=torch.float64, device=device)
        systems = torch.arange(batch_ptr.numel() - 1, device=device)
        return Atoms(
            torch.nn.functional.one_hot(place, len(config.atomic_numbers)).to(self.dtype),
            torch.repeat_interleave(systems, batch_ptr.diff()),
            batch_ptr,
            torch.full_like(atomic_numbers, self.head),
            (rows[self.head] if rows.dim() == 2 else rows)[place],
        )

    def check_periodic(self, pbc) -> None:
        """Refuse open directions where there is a long-range layer."""
        if self.long_range:
            require_periodic(pbc)

    def __call__(
        self, atoms: Atoms, positions: Tensor, cells: Tensor, neighbors: NeighborList, *, virial: bool = False
    ) -> Evaluated:
        """Evaluate.

        Parameters
        ----------
        atoms : Atoms
            From `Evaluator.atoms`.
        positions : Tensor
            (n_atoms, 3) float64, Å, wrapped or not.
        cells : Tensor
            (n_systems, 3, 3) float64, Å, of a volume where there is a long-range layer.
        neighbors : NeighborList
            A full list, valid for these positions, that reaches at least `cutoff`.
        virial : bool
            Whether it is wanted; costs a little with a long-range layer.

        Raises
        ------
        rsa_kernels.errors.AtomsTooCloseError
            Two atoms are closer than `TOO_CLOSE`.
        """
        positions, cells = positions.detach(), cells.detach()
        vectors = neighbors.vectors(positions, cells)
        squares = torch.linalg.vecdot(vectors, vectors)
        if squares.numel() and bool(squares.min() < TOO_CLOSE**2):
            raise AtomsTooCloseError(
                f"two atoms are {float(squares.min()) ** 0.5:.3f} Å apart, closer than any the model was made for"
            )
        inside = torch.nonzero(squares < self.cutoff**2).squeeze(1)
        arms = vectors.index_select(0, inside).to(self.dtype).requires_grad_()
        leaves = [arms]
        if self.long_range:
            positions = positions.clone().requires_grad_()
            leaves.append(positions)
            if virial:
                cells = cells.clone().requires_grad_()
                leaves.append(cells)
        edge_index = neighbors.edge_index.index_select(1, inside)
        with torch.enable_grad():
            graph = Graph(
                positions, cells, edge_index, arms, atoms.node_attrs, atoms.batch, atoms.batch_ptr, atoms.heads
            )
            interaction = self.network.node_energies(graph).interaction
            by_arm, *others = torch.autograd.grad(interaction.sum(), leaves, allow_unused=True, materialize_grads=True)
        by_vector = torch.zeros_like(vectors).index_copy_(0, inside, by_arm.to(torch.float64))
        by_position, _ = neighbor_vectors_transposed(
            by_vector, atoms.batch_ptr, neighbors.edge_index, neighbors.unit_shifts, neighbors.row_ptr
        )
        if others:
            by_position += others[0]
        energies = interaction.detach().to(torch.float64) + atoms.atomic_energies
        if not virial:
            return Evaluated(energies, by_position.neg_(), None)
        strain = _by_system(vectors, by_vector, atoms.batch_ptr, neighbors.row_ptr)
        if others:
            strain = strain + _by_system(positions.detach(), others[0], atoms.batch_ptr)
            strain = strain + cells.detach().transpose(1, 2) @ others[1]
        return Evaluated(energies, by_position.neg_(), -0.5 * (strain + strain.transpose(1, 2)))


def check_elements(known: tuple[int, ...], atomic_numbers) -> None:
    """Refuse an element that is not among the `known` atomic numbers.

    Raises
    ------
    ValueError
        Naming it.
    """
    strange = sorted(set(torch.as_tensor(atomic_numbers).unique().tolist()) - set(known))
    if strange:
        symbols = ", ".join(chemical_symbols[number] for number in known)
        raise ValueError(f"the model does not know {chemical_symbols[strange[0]]}; its elements are {symbols}")


def _by_system(arms: Tensor, gradients: Tensor, batch_ptr: Tensor, row_ptr: Tensor | None = None) -> Tensor:
    """Σ r ⊗ g over the rows of every system, (n_systems, 3, 3); `row_ptr` where an atom has several rows."""
    if batch_ptr.numel() == 2:
        return (arms.transpose(0, 1) @ gradients).unsqueeze(0)
    ends = batch_ptr if row_ptr is None else row_ptr[batch_ptr]
    parts = zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
    return torch.stack([arms[begin:end].transpose(0, 1) @ gradients[begin:end] for begin, end in parts])
