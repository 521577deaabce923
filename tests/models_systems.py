"""Small silica structures as inputs of a model, and one model of each kind with weights that hide nothing."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

import rsa_kernels as rk
from silica_md import models

R_MAX = 3.5  # Å
NUMBERS = (8, 14)
SETTINGS = {
    "atomic_numbers": NUMBERS,
    "atomic_energies": (-3.0, -1.5),
    "r_max": R_MAX,
    "max_ell": 2,
    "hidden_irreps": "8x0e + 8x1o",
    "MLP_irreps": "8x0e",
    "radial_MLP": (16,),
    "correlation": 2,
    "avg_num_neighbors": 8.0,
    "scale": 0.7,
    "shift": 0.1,
}
KINDS = {
    "sr": {},
    "rsa": {"kind": "rsa", "sigma": 0.7, "k_cut": 3.0},
    "rsga": {"kind": "rsga", "sigma": 0.7, "k_cut": 3.0, "mix_bias": 0.0},
    "rsa last": {"kind": "rsa", "sigma": 0.7, "k_cut": 3.0, "interactions": [1]},
    "rsga first": {"kind": "rsga", "sigma": 0.7, "k_cut": 3.0, "mix_bias": 0.0, "interactions": [0]},
    "sog": {"kind": "sog", "k_cut": 3.0},
    "latent_ewald": {"kind": "latent_ewald"},
}
PUBLISHED = {
    "published rsa": {"kind": "rsa", "norm": "rsa"},
    "published rsga": {"kind": "rsga", "norm": "rsga", "mix_bias": 0.0},
}


@cache
def model(kind: str, irreps: str = SETTINGS["hidden_irreps"], dtype: torch.dtype = torch.float64) -> models.Network:
    """A model of a kind. Its gates are moved off their starting values, at which they hide the features."""
    config = models.ModelConfig(**SETTINGS | {"hidden_irreps": irreps, "long_range": (KINDS | PUBLISHED)[kind]})
    network = models.build(config, seed=3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.startswith("long_range"):
                weight.add_(0.5 * torch.randn(weight.shape, generator=generator, dtype=torch.float64))
    return network.to(dtype)


def structure(n: int = 9, edge: float = 4.6, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Positions, triclinic cell and atomic numbers of `n` atoms at random, no two on one spot."""
    generator = torch.Generator().manual_seed(seed)
    cell = edge * torch.eye(3, dtype=torch.float64)
    cell = cell + 0.3 * torch.randn(3, 3, dtype=torch.float64, generator=generator)
    side = round(n ** (1 / 3) + 0.49)
    corners = torch.cartesian_prod(*[torch.arange(side, dtype=torch.float64)] * 3)[:n] / side
    fractional = corners + 0.25 / side * torch.rand(n, 3, dtype=torch.float64, generator=generator)
    return fractional @ cell, cell, torch.tensor(NUMBERS)[torch.arange(n) % 3 // 2]


def inputs(
    *structures: tuple[Tensor, Tensor, Tensor], pbc=True, dtype: torch.dtype = torch.float64, r_max: float = R_MAX
) -> dict:
    """What a model takes, from (positions, cell, atomic numbers) of one or several structures."""
    positions = torch.cat([one[0] for one in structures]).detach()
    cell = torch.stack([one[1] for one in structures])
    numbers = torch.cat([one[2] for one in structures])
    counts = torch.tensor([0] + [len(one[0]) for one in structures])
    pairs = rk.neighbor_list(positions, cell, pbc, r_max, counts.cumsum(0))
    batch = torch.repeat_interleave(torch.arange(len(structures)), counts[1:])
    unit_shifts = pairs.unit_shifts.to(torch.float64)
    shifts = (unit_shifts.unsqueeze(1) @ cell[batch[pairs.edge_index[0]]]).squeeze(1)
    species = torch.searchsorted(torch.tensor(NUMBERS), numbers)
    return {
        "positions": positions.to(dtype),
        "cell": cell.flatten(0, 1).to(dtype),
        "edge_index": pairs.edge_index,
        "unit_shifts": unit_shifts.to(dtype),
        "shifts": shifts.to(dtype),
        "node_attrs": torch.nn.functional.one_hot(species, len(NUMBERS)).to(dtype),
        "batch": batch,
        "ptr": counts.cumsum(0),
        "pbc": torch.as_tensor(pbc).expand(len(structures), 3),
    }


def evaluate(network: models.Network, *structures, **options) -> dict:
    """Energy, forces and stress."""
    return network(inputs(*structures, **options), compute_stress=True)


def energy(network: models.Network, positions: Tensor, cell: Tensor, numbers: Tensor) -> float:
    """Energy alone, eV."""
    return float(network(inputs((positions, cell, numbers)), compute_force=False)["energy"].detach())
