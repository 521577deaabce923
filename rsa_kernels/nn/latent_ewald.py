"""Latent Ewald summation: the Coulomb energy of Gaussian latent charges, without parameters of its own."""

from __future__ import annotations

import math

from .. import _checks
from ..reciprocal import spectra
from ..reciprocal.spectra import Spectrum
from .wave_energy import WaveEnergy


class LatentEwald(WaveEnergy):
    """LES: energy of latent charges with the spectrum of Gaussian charges.

        E = (scale/V) Σ_{0<|k|<k_cut} w(|k|) W(|k|/k_cut) |Σ_i q_i exp(ik·r_i)|²,   w = exp(−σ²k²/2) / k²

    summed over the channels of q. There is nothing to learn but the charges.

    Parameters
    ----------
    sigma : float
        σ, Å.
    k_cut : float
        1/Å; π by default, as published.
    norm : {"intensive", "les"}
        "les": no window, waves are cut off sharply at `k_cut` as published.
    scale : float
        Unit of the energy for the unit of the charges; 2π e²/(4πε₀) = 90.4756 eV Å makes q elementary charges.
    subtract_self : bool
        Take off Σ_i q_i² · scale / (σ (2π)^{3/2}), the term i = j of the sum over all waves. The paper keeps it; the
        authors' later package takes it off.
    window_start : float
        Fraction of k_cut from which weights fall smoothly to zero.
    method : {"auto", "spectral", "grid"}
        See `rsa_kernels.accumulate_modes`.
    tolerance : float
        Relative error allowed to "grid".

    References
    ----------
    B. Cheng, "Latent Ewald summation for machine learning of long-range interactions", arXiv 2408.15165.
    """

    def __init__(
        self,
        sigma: float = 1.0,
        k_cut: float = math.pi,
        *,
        norm: str = "intensive",
        scale: float = 1.0,
        subtract_self: bool = False,
        window_start: float = 0.8,
        method: str = "auto",
        tolerance: float = 1e-5,
    ):
        super().__init__(norm, "les", k_cut, scale, window_start, method, tolerance)
        self.sigma = _checks.positive("sigma", sigma, "Å")
        if subtract_self:
            self.self_energy = self.scale / (self.sigma * (2.0 * math.pi) ** 1.5)

    def spectrum(self) -> Spectrum:
        """w = exp(−σ²k²/2) / k²."""
        return spectra.gaussian(self.sigma)

    def extra_repr(self) -> str:
        """Settings, for printing."""
        return f"sigma={self.sigma:g}, k_cut={self.k_cut:g}, norm={self.norm!r}, method={self.method!r}"
