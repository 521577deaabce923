"""Spectra w(|k|): how strongly two atoms talk through the waves of one length. Any callable of |k| will do.

A spectrum takes |k| (n_modes,) in 1/Å, float64, and returns w (n_modes,); the 1/V and the window belong to
`reciprocal_modes`. The functions here return such callables and check their parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .. import _checks

Spectrum = Callable[[Tensor], Tensor]


def ewald(sigma: float | Tensor) -> Spectrum:
    """Return the Coulomb spectrum of Gaussian charges, w = 4π exp(−σ²k²/2) / k².

    Parameters
    ----------
    sigma : float or 0-d Tensor
        σ, Å. Two Gaussian charges of width σ/√2 each; the short-range rest is erfc(r/√2σ)/r.
    """
    coulomb = gaussian(sigma)
    return lambda k: 4.0 * math.pi * coulomb(k)


def gaussian(sigma: float | Tensor) -> Spectrum:
    """Return the spectrum of the RSA and RSGA papers and of latent Ewald summation, w = exp(−σ²k²/2) / k²."""
    if not isinstance(sigma, Tensor):
        _checks.positive("sigma", sigma, "Å")
    return lambda k: torch.exp(-0.5 * sigma**2 * k**2) / k**2


def constant(value: float = 1.0) -> Spectrum:
    """Return the same weight for every wave: what the code of the RSA paper uses."""
    return lambda k: torch.full_like(k, value)


def sum_of_gaussians(amplitudes: Tensor, log_widths: Tensor) -> Spectrum:
    """Return w = Σ_l a_l exp(−k² e^{2 s_l}), with amplitudes a and logarithms s of the widths in Å, both (n_terms,).

    Both may require gradients. Source: SOG-Net, arXiv 2502.04668.
    """
    for name, value in (("amplitudes", amplitudes), ("log_widths", log_widths)):
        _checks.tensor(name, value)
        _checks.shape(name, value, amplitudes.numel() if isinstance(amplitudes, Tensor) else "n_terms")

    def spectrum(k: Tensor) -> Tensor:
        exponents = -(k**2).unsqueeze(-1) * torch.exp(2.0 * log_widths.to(k.dtype))
        return torch.exp(exponents) @ amplitudes.to(k.dtype)

    return spectrum
