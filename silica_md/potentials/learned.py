"""Learned potentials: a model file as a `Potential`, ``mace:PATH``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from ase.data import chemical_symbols
from torch import Tensor

from rsa_kernels import cells as cells_of
from rsa_kernels.errors import BackendUnavailableError
from rsa_kernels.neighbors import NeighborList

from ..errors import ModelFileError
from ..files import replace_file
from .protocol import Evaluation

if TYPE_CHECKING:
    from ..models import Network
    from ..state import State

PREFIX = "mace:"
DTYPES = ("float64", "float32")


class LearnedPotential:
    """A network as the energy model of a state.

    Parameters
    ----------
    network : silica_md.models.Network
        Copied unless it is frozen, see `silica_md.models.evaluate.Evaluator`; its dtype is that of the arithmetic.
        Positions, sums of energies and forces are float64.
    head : str
        Which head answers, where there are several.
    name : str
        What it is called.

    Attributes
    ----------
    cutoff : float
        r_max of the network, Å.
    dispersion : str
        What dispersion the labels held that the network was trained on; "" for none.
    species : tuple of int
        Atomic numbers it knows, ascending.

    Notes
    -----
    Pairs of the list beyond r_max are dropped at every call. Which atoms there are is looked up when
    `state.atomic_numbers` is another tensor or has been written to.
    """

    def __init__(self, network: Network, *, head: str = "", name: str = "mace"):
        from ..models.evaluate import Evaluator

        self.name = name
        self.evaluator = Evaluator(network, head)
        self.config = network.config
        self.cutoff, self.dispersion = self.evaluator.cutoff, self.config.dispersion
        self.species = self.config.atomic_numbers
        self._atoms: tuple | None = None

    def check_composition(self, atomic_numbers) -> None:
        """Refuse an element the network does not know.

        Raises
        ------
        ValueError
            Naming it.
        """
        from ..models.evaluate import check_elements

        check_elements(self.species, atomic_numbers)

    def check_start(self, cell: Tensor, pbc: Tensor) -> None:
        """Refuse to begin a run in a cell, (3, 3) Å, so thin that atoms see themselves, or open with a long range.

        Energies and forces are right in such a thin cell too, but what moves in it is not a glass.

        Raises
        ------
        ValueError
        """
        self.evaluator.check_periodic(pbc)
        whole = cells_of.complete(cell.unsqueeze(0), pbc.unsqueeze(0))
        thinnest = min(cells_of.heights(whole)[0][pbc].tolist(), default=self.cutoff)
        if thinnest < self.cutoff:
            raise ValueError(
                f"the cell is {thinnest:.2f} Å thin, less than the {self.cutoff:g} Å cutoff of potential '{self.name}':"
                " every atom would see itself; take more atoms"
            )

    def remarks(self, constant_pressure: bool) -> list[str]:
        """Lines for the log of a run: what the model is, and what to be wary of."""
        layer = "short-range" if self.config.kind == "sr" else f"long-range layer {self.config.kind}"
        elements = " ".join(chemical_symbols[number] for number in self.species)
        dtype = str(self.evaluator.dtype).removeprefix("torch.")
        lines = [f"{self.name}: {elements}, {layer}, pairs to {self.cutoff:g} Å, {dtype}"]
        if self.dispersion:
            lines[0] += f", trained with {self.dispersion}"
        if self.config.published and constant_pressure:
            lines.append(
                f"warning: the published norm '{self.config.published}' is not size-consistent, and its energy jumps"
                " when a changing cell lets waves in or out; at constant pressure nothing is conserved across such a"
                " jump. Use --ensemble nvt, or a model with norm 'intensive'"
            )
        return lines

    def evaluate(
        self,
        state: State,
        neighbors: NeighborList,
        *,
        energy: bool = True,
        virial: bool = True,
        per_atom_energy: bool = False,
    ) -> Evaluation:
        """Return energy, forces, virial of `state`; `neighbors` must be a full list and reach at least `cutoff`.

        Raises
        ------
        ValueError
            An element the network does not know; an open direction and a long-range layer.
        rsa_kernels.errors.AtomsTooCloseError
            Two atoms are closer than any the network can have seen.
        """
        atoms = self._atoms_of(state)
        found = self.evaluator(atoms, state.positions, state.cell.unsqueeze(0), neighbors, virial=virial)
        return Evaluation(
            found.per_atom_energy.sum() if energy else None,
            found.forces,
            found.virial[0] if virial else None,
            found.per_atom_energy if per_atom_energy else None,
        )

    def _atoms_of(self, state: State):
        key = (state.atomic_numbers, state.atomic_numbers._version, state.pbc, state.pbc._version)
        kept = self._atoms
        if (
            kept is None
            or any(one is not other for one, other in zip(kept[0][::2], key[::2], strict=True))
            or (kept[0][1::2] != key[1::2])
        ):
            self.evaluator.check_periodic(state.pbc)
            ends = torch.tensor([0, state.n_atoms], device=state.positions.device)
            kept = self._atoms = (key, self.evaluator.atoms(state.atomic_numbers, ends))
        return kept[1]


def build(
    path: str | Path,
    atomic_numbers,
    *,
    dtype: str = "float64",
    head: str = "",
    sha256: str = "",
    architecture: str = "",
) -> LearnedPotential:
    """Return the potential in a model file.

    Parameters
    ----------
    path : str or Path
        ``NAME.safetensors`` or ``NAME.json`` of `silica_md.models.save`, or NAME.
    atomic_numbers : sequence of int or torch.Tensor, (n_atoms,)
        The atoms it is for; any elements the model knows.
    dtype : {"float64", "float32"}
        Of the network's arithmetic.
    head : str
        Which head answers, where the model has several.
    sha256, architecture : str
        What `fingerprint` says of the file; written by a run into its configuration, and another file is refused.

    Raises
    ------
    silica_md.errors.ModelFileError
        The file is missing, damaged, or not the one that `sha256` and `architecture` are of.
    rsa_kernels.errors.BackendUnavailableError
        mace-torch or safetensors is not installed.
    ValueError
        An element the model does not know, an unknown dtype or head.
    """
    if dtype not in DTYPES:
        raise ValueError(f"`dtype` must be one of {', '.join(DTYPES)}, got {dtype!r}")
    try:
        from ..models.evaluate import check_elements
        from ..models.store import load

        network, record = load(path, dtype=getattr(torch, dtype))
    except ImportError as error:
        raise BackendUnavailableError(
            f"potential '{PREFIX}{path}' needs mace-torch and safetensors, which are not there or do not load"
            f" ({error}); pip install 'silica-md[mace]'"
        ) from error
    found = _fingerprint(record)
    for what, expected in (("sha256", sha256), ("architecture", architecture)):
        if expected and expected != found[what]:
            raise ModelFileError(
                f"{path} is not the model this run was made with: its `{what}` is {found[what][:12]}…, expected"
                f" {expected[:12]}…; put the other one back"
            )
    check_elements(network.config.atomic_numbers, atomic_numbers)
    return LearnedPotential(network.requires_grad_(False), head=head, name=f"{PREFIX}{Path(path).name}")


def is_learned(name: str) -> bool:
    """Whether a potential of this name is a model file."""
    return name.startswith(PREFIX)


def path_of(name: str) -> Path:
    """The file in ``mace:PATH``.

    Raises
    ------
    ValueError
        There is none.
    """
    path = name.removeprefix(PREFIX)
    if not path:
        raise ValueError("potential 'mace:' needs the file of a model: mace:PATH")
    return Path(path)


def fingerprint(path: str | Path) -> dict[str, str]:
    """Return what identifies a model: SHA-256 of its tensors (``sha256``) and of its configuration (``architecture``).

    Raises
    ------
    silica_md.errors.ModelFileError
        There is no model in `path`.
    """
    from ..models.store import read_record

    return _fingerprint(read_record(path))


def _fingerprint(record: Mapping) -> dict[str, str]:
    plain = json.dumps(record["config"], sort_keys=True).encode()
    return {"sha256": record["sha256"], "architecture": hashlib.sha256(plain).hexdigest()}


def copy_model(path: str | Path, to: str | Path) -> None:
    """Copy both files of a model to ``TO.safetensors`` and ``TO.json``.

    Raises
    ------
    silica_md.errors.ModelFileError
        There is no model in `path`, or its tensors are not those its JSON was written with.
    """
    from ..models.store import read_record

    record, to = read_record(path), Path(to)
    source = Path(path).with_name(record["tensors"])
    try:
        data = source.read_bytes()
    except OSError as error:
        raise ModelFileError(f"cannot read {source}: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != record["sha256"]:
        raise ModelFileError(f"{source} is damaged, or not the file its JSON was written with (SHA-256 differs)")
    tensors = to.with_name(to.name + ".safetensors")
    replace_file(tensors, data)
    replace_file(to.with_name(to.name + ".json"), json.dumps(dict(record) | {"tensors": tensors.name}, indent=1) + "\n")
