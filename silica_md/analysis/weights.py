"""Neutron and X-ray weighting of partial structure factors, by symbol; amplitudes and weights are rsa_kernels'."""

from __future__ import annotations

import numpy as np
import torch

from rsa_kernels.structure import weights as kernels

from .composition import Composition, label

scattering_length = kernels.scattering_length


def form_factor(symbol: str, q: np.ndarray) -> np.ndarray:
    """X-ray form factor f(Q) of the neutral atom, electrons; see `rsa_kernels.structure.weights.form_factor`."""
    return kernels.form_factor(symbol, torch.as_tensor(q, dtype=torch.float64)).numpy()


def weighted(
    partials: dict[str, np.ndarray], composition: Composition, amplitudes: dict[str, float | np.ndarray]
) -> np.ndarray:
    """Total structure factor from Faber–Ziman partials.

    ::

        S(Q) = 1 + Σ_ab c_a c_b w_a w_b [A_ab(Q) − 1] / (Σ_a c_a w_a)²

    Parameters
    ----------
    partials : dict of str to ndarray (n_q,)
        A_ab(Q), one entry per unordered pair, e.g. "Si-O".
    composition : Composition
        Gives the atomic fractions c_a.
    amplitudes : dict of str to float or ndarray (n_q,)
        Scattering amplitude w_a of each species: b_a, or f_a(Q).

    References
    ----------
    T. E. Faber and J. M. Ziman, Philos. Mag. 11 (1965) 153.
    """
    total = 1.0
    for pair, weight in pair_weights(composition, amplitudes).items():
        total = total + weight * (partials[pair] - 1)
    return total


def pair_weights(composition: Composition, amplitudes: dict[str, float | np.ndarray]) -> dict[str, float | np.ndarray]:
    """Faber–Ziman weight of each unordered pair, both orders of unlike species together; they sum to 1."""
    fractions, species = composition.fractions, composition.species
    found = kernels.pair_weights([fractions[one] for one in species], [amplitudes[one] for one in species])
    return {label(a, b): weight for (a, b), weight in zip(composition.pairs, found, strict=True)}


def neutron(partials: dict[str, np.ndarray], composition: Composition) -> np.ndarray:
    """Neutron-weighted total structure factor; see `weighted`."""
    return weighted(partials, composition, {symbol: scattering_length(symbol) for symbol in composition.species})


def xray(partials: dict[str, np.ndarray], composition: Composition, q: np.ndarray) -> np.ndarray:
    """X-ray-weighted total structure factor at `q` (Å⁻¹); see `weighted`."""
    return weighted(partials, composition, {symbol: form_factor(symbol, q) for symbol in composition.species})
