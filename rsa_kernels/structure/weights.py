"""Totals from Faber–Ziman partials: scattering lengths, form factors, weights of the pairs."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import BackendUnavailableError


def scattering_length(element: int | str) -> float:
    """Coherent neutron scattering length of the natural element, fm (periodictable).

    Parameters
    ----------
    element : int or str
        Atomic number or chemical symbol.
    """
    found = _element(element)
    length = found.neutron.b_c
    if length is None:
        raise ValueError(f"periodictable holds no neutron scattering length of {found.symbol}")
    return float(length)


def form_factor(element: int | str, q: Tensor) -> Tensor:
    """X-ray form factor f(Q) of the neutral atom, electrons, at `q` in Å⁻¹ (Waasmaier and Kirfel 1995)."""
    found = _element(element)
    values = importlib.import_module("periodictable.cromermann").fxrayatq(found.symbol, q.detach().cpu().numpy())
    return torch.as_tensor(values, dtype=torch.float64).to(q.device)


def pair_weights(fractions: Sequence, amplitudes: Sequence) -> list:
    """Faber–Ziman weights of the unordered pairs, in the order (0, 0), (0, 1), …, (1, 1), …; they sum to 1.

    ::

        W_ab = (2 − δ_ab) c_a c_b w_a w_b / (Σ_a c_a w_a)²,    S(Q) = 1 + Σ_{a≤b} W_ab [S_ab(Q) − 1]

    Parameters
    ----------
    fractions : sequence
        Atomic fractions c_a: numbers, or arrays that broadcast against the amplitudes.
    amplitudes : sequence
        Scattering amplitudes w_a: b_a, or f_a(Q).

    References
    ----------
    T. E. Faber and J. M. Ziman, Philos. Mag. 11 (1965) 153.
    """
    products = [c * w for c, w in zip(fractions, amplitudes, strict=True)]
    mean = sum(products[1:], start=products[0])
    n = len(products)
    return [(1 if a == b else 2) * products[a] * products[b] / mean**2 for a in range(n) for b in range(a, n)]


def _element(element: int | str):
    if importlib.util.find_spec("periodictable") is None:
        raise BackendUnavailableError(
            "scattering lengths and form factors come from periodictable, which is not installed; "
            "pip install periodictable, or give your own"
        )
    # periodictable's number 0 is the neutron.
    if not isinstance(element, str) and int(element) < 1:
        raise ValueError(f"`species` must be atomic numbers of elements to be weighted, got {element!r}")
    table = importlib.import_module("periodictable")
    try:
        return table.elements.symbol(element) if isinstance(element, str) else table.elements[int(element)]
    except (KeyError, ValueError):
        raise ValueError(f"`species` must be atomic numbers of elements to be weighted, got {element!r}") from None
