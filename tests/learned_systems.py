"""Small models with random weights and small glasses, for the tests of learned potentials."""

import functools

import torch

from silica_md import models, start
from silica_md.state import State

LONG_RANGE = {
    "sr": {},
    "rsa": {"kind": "rsa", "k_cut": 1.6},
    "rsga": {"kind": "rsga", "k_cut": 1.6, "mix_bias": 0.0},
    "sog": {"kind": "sog", "k_cut": 1.6},
    "latent_ewald": {"kind": "latent_ewald", "k_cut": 2.0},
    "published rsa": {"kind": "rsa", "norm": "rsa"},
    "published rsga": {"kind": "rsga", "norm": "rsga", "mix_bias": 0.0},
}
"""Every kind of layer; gates half open, so that the long range counts."""


@functools.cache
def network(kind: str = "sr", dtype: torch.dtype = torch.float64, **changes) -> models.Network:
    """A frozen model with random weights whose forces are of the size of those in a melt."""
    given = {
        "atomic_numbers": (8, 14),
        "atomic_energies": (-3.0, -1.5),
        "r_max": 4.0,
        "num_radial_basis": 4,
        "max_ell": 1,
        "hidden_irreps": "8x0e",
        "MLP_irreps": "4x0e",
        "radial_MLP": (8, 8),
        "correlation": 2,
        "avg_num_neighbors": 15.0,
        "scale": 4.0,
        "long_range": LONG_RANGE[kind],
    }
    return models.build(models.ModelConfig(**(given | changes)), dtype=dtype, seed=3).eval().requires_grad_(False)


def glass(atoms: int = 24, seed: int = 1, sheared: bool = True) -> State:
    """Atoms at random, none too close, in a cell that is not orthorhombic."""
    state = start.random_start(atoms, 0.0, 2.2, seed=seed)
    if sheared:
        strain = torch.tensor([[1.02, 0.03, -0.02], [0.0, 0.97, 0.05], [0.0, 0.0, 1.01]], dtype=torch.float64)
        state = state.at(state.positions @ strain, state.cell @ strain)
    state.thermalize(600.0, seed=seed)
    return state
