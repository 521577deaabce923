"""A model for TorchSim: batches of systems integrated and relaxed by ``torch_sim``."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

import rsa_kernels as rk
from rsa_kernels import cells as cells_of

from .evaluate import Evaluator
from .network import Network
from .store import load

try:
    import torch_sim
    from torch_sim.models.interface import ModelInterface
except ImportError as error:
    raise ImportError(
        f"a model for TorchSim needs torch_sim, which does not load here ({error}); pip install torch-sim-atomistic"
    ) from error


class TorchSimModel(ModelInterface):
    """A network behind TorchSim's `ModelInterface`.

    Parameters
    ----------
    network : Network, str or Path
        A network, copied unless it is frozen (see `silica_md.models.evaluate.Evaluator`), or the file of one.
    head : str
        Which head answers, where the network has several.
    dtype : torch.dtype, optional
        float64 or float32, of the states and of the arithmetic; default: that of the network.
    device : str or torch.device
        Where states and network are.
    compute_forces, compute_stress : bool
        What `forward` returns besides the energy; both may be assigned later.
    skin : float
        Å by which the neighbour list reaches beyond the cutoff; it is rebuilt when motion has used that up, and for
        other atoms. On a GPU it is rebuilt at every call.

    Examples
    --------
    >>> import torch_sim  # doctest: +SKIP
    >>> from silica_md.models.torchsim import TorchSimModel  # doctest: +SKIP
    >>> model = TorchSimModel("model.safetensors")  # doctest: +SKIP
    >>> torch_sim.integrate(  # doctest: +SKIP
    ...     atoms, model, integrator=torch_sim.nvt_langevin, n_steps=100, temperature=300.0, timestep=0.001
    ... )
    """

    def __init__(
        self,
        network: Network | str | Path,
        *,
        head: str = "",
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        compute_forces: bool = True,
        compute_stress: bool = True,
        skin: float = 1.0,
    ):
        super().__init__()
        if not skin >= 0.0:
            raise ValueError(f"`skin` must be at least 0 Å, got {skin!r}")
        if not isinstance(network, Network):
            network = load(network, dtype=dtype)[0].requires_grad_(False)
        self._evaluator = Evaluator(network, head, dtype)
        self.network = self._evaluator.network.to(device)
        self._device, self._dtype = torch.device(device), self._evaluator.dtype
        self._compute_forces, self._compute_stress = bool(compute_forces), bool(compute_stress)
        self._skin = float(skin) if self._device.type == "cpu" else 0.0
        self._known: tuple[Tensor, Tensor, bool] | None = None
        self._atoms = self._neighbors = None

    @property
    def compute_forces(self) -> bool:
        """Whether forces are returned."""
        return self._compute_forces

    @compute_forces.setter
    def compute_forces(self, value: bool) -> None:
        self._compute_forces = bool(value)

    @property
    def compute_stress(self) -> bool:
        """Whether stress is returned."""
        return self._compute_stress

    @compute_stress.setter
    def compute_stress(self, value: bool) -> None:
        self._compute_stress = bool(value)

    def forward(self, state: torch_sim.SimState | dict, **kwargs) -> dict[str, Tensor]:
        """Evaluate all systems of a state.

        Parameters
        ----------
        state : torch_sim.SimState or dict
            Its systems one after the other; a dict has the names of its attributes as keys.

        Returns
        -------
        dict of Tensor
            energy (n_systems,) eV, energies (n_atoms,) eV; forces (n_atoms, 3) eV/Å and stress (n_systems, 3, 3)
            eV/Å³, positive in tension, where they are computed; dtype of the model.

        Raises
        ------
        ValueError
            An element the model does not know; open directions and a long-range layer; a stress without a volume.
        """
        if isinstance(state, dict):
            state = torch_sim.SimState(**({"masses": torch.ones_like(state["atomic_numbers"])} | state))
        positions = state.positions.detach().to(torch.float64)
        cells = state.row_vector_cell.detach().to(torch.float64).contiguous()
        atoms, neighbors = self._prepared(state, positions, cells)
        found = self._evaluator(atoms, positions, cells, neighbors, virial=self._compute_stress)
        energy = torch.zeros(len(cells), dtype=torch.float64, device=positions.device)
        results = {
            "energy": energy.index_add_(0, atoms.batch, found.per_atom_energy),
            "energies": found.per_atom_energy,
        }
        if self._compute_forces:
            results["forces"] = found.forces
        if self._compute_stress:
            volumes = cells_of.volume(cells)
            if not bool((volumes > 0.0).all()):
                raise ValueError("`cell` must have a volume for a stress; set compute_stress = False")
            results["stress"] = -found.virial / volumes[:, None, None]
        return {name: value.to(self._dtype) for name, value in results.items()}

    def _prepared(self, state, positions: Tensor, cells: Tensor):
        """What the network reads of the atoms, and their list: kept while they are the same atoms."""
        pbc = torch.as_tensor(state.pbc).tolist()
        known = self._known
        same = known is not None and known[2] == pbc
        same = same and torch.equal(known[0], state.atomic_numbers) and torch.equal(known[1], state.system_idx)
        if same:
            self._neighbors.update(positions, cells)
            return self._atoms, self._neighbors
        self._evaluator.check_periodic(pbc)
        if bool((state.system_idx.diff() < 0).any()):
            raise ValueError("`system_idx` must ascend, the atoms of a system one after the other")
        ends = torch.zeros(len(cells) + 1, dtype=torch.int64, device=positions.device)
        ends[1:] = torch.cumsum(torch.bincount(state.system_idx, minlength=len(cells)), 0)
        atoms = self._evaluator.atoms(state.atomic_numbers.to(torch.int64), ends)
        self._neighbors = rk.neighbor_list(
            positions, cells, pbc, self._evaluator.cutoff, batch_ptr=ends, skin=self._skin
        )
        self._atoms, self._known = atoms, (state.atomic_numbers.clone(), state.system_idx.clone(), pbc)
        return self._atoms, self._neighbors
