"""Rings of silicon atoms through bridging oxygens, by the three definitions in use."""

from __future__ import annotations

import numpy as np
import torch

import rsa_kernels as rk

from .composition import Composition
from .neighbors import Pairs

CRITERIA = {"king": "King", "guttman": "Guttman", "primitive": "primitive"}
"""Definitions of a ring, and how they are written."""
MAX_SIZE = 12


def silicon_rings(
    bonds: Pairs, composition: Composition, max_size: int = MAX_SIZE, device: torch.device | str = "cpu"
) -> dict[str, np.ndarray]:
    """Count the distinct rings of the Si–O–Si network of a frame, by size and definition.

    The size is the number of silicon atoms. A ring is counted once however many atoms, angles or bonds it is the
    shortest ring of. The network is that of the infinite crystal the cell repeats to: a path that closes only
    through the boundary, on an image of its first atom, is no ring.

    Parameters
    ----------
    bonds : Pairs
        Bonds of the frame; those of Si and O are used.
    composition : Composition
    max_size : int
        Largest ring looked for.
    device : torch.device or str
        Where.

    Returns
    -------
    dict of str to ndarray (max_size + 1,) int64
        Rings per cell by size, for "king" (shortest rings of the pairs of bonds of an atom), "guttman" (shortest
        rings of bonds) and "primitive" (rings without a short cut). Empty where there is no Si or no O.

    References
    ----------
    S. V. King, Nature 213 (1967) 1112. L. Guttman, J. Non-Cryst. Solids 116 (1990) 145.
    D. S. Franzblau, Phys. Rev. B 44 (1991) 4925.
    """
    if not {"Si", "O"} <= set(composition.species):
        return {}
    codes = composition.codes
    silicon, oxygen = (composition.species.index(symbol) for symbol in ("Si", "O"))
    first, second = codes[bonds.i], codes[bonds.j]
    network = bonds.select(((first == silicon) & (second == oxygen)) | ((first == oxygen) & (second == silicon)))
    edges, shifts, nodes = (
        torch.from_numpy(array).to(device)
        for array in (np.stack([network.i, network.j]), network.shifts, codes == silicon)
    )
    found = {}
    for criterion in CRITERIA:
        rings = rk.ring_statistics(edges, shifts, composition.n_atoms, criterion, max_size, nodes)
        found[criterion] = rings.counts.cpu().numpy()
    return found
