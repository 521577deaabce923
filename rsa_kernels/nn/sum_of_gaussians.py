"""SOG-Net: long-range energy of latent charges with a spectrum that is learned, a sum of Gaussians."""

from __future__ import annotations

import torch
from torch import nn

from ..reciprocal import spectra
from ..reciprocal.spectra import Spectrum
from .wave_energy import WaveEnergy


class SumOfGaussians(WaveEnergy):
    """SOG-Net: energy of latent charges with a learned spectrum.

        E = (scale/V) Σ_{0<|k|<k_cut} w(|k|) W(|k|/k_cut) |Σ_i q_i exp(ik·r_i)|²,   w = Σ_l a_l exp(−k² e^{2 s_l})

    summed over the channels of q. ``amplitudes`` a (all 1 at first) and ``log_widths`` s, logarithms of Å (evenly from
    −0.5 to 1 at first), are parameters. The energy is extensive and changes smoothly with the cell.

    Parameters
    ----------
    k_cut : float
        1/Å. Terms of width e^s reach to some 3 e^{−s}.
    n_terms : int
        Number of Gaussians.
    norm : {"intensive", "sog"}
        "sog": no window, waves are cut off sharply at `k_cut` as in the published sum.
    scale : float
        Unit of the energy for the unit of the charges.
    window_start : float
        Fraction of k_cut from which weights fall smoothly to zero.
    method : {"auto", "spectral", "grid"}
        See `rsa_kernels.accumulate_modes`.
    tolerance : float
        Relative error allowed to "grid".
    device, dtype
        Of the parameters.

    Notes
    -----
    The term i = j is part of the sum, as in the paper: it is Σ q_i² times a constant of the spectrum.

    References
    ----------
    arXiv 2502.04668.
    """

    def __init__(
        self,
        k_cut: float,
        *,
        n_terms: int = 12,
        norm: str = "intensive",
        scale: float = 1.0,
        window_start: float = 0.8,
        method: str = "auto",
        tolerance: float = 1e-5,
        device=None,
        dtype=None,
    ):
        super().__init__(norm, "sog", k_cut, scale, window_start, method, tolerance)
        if not isinstance(n_terms, int) or n_terms < 1:
            raise ValueError(f"`n_terms` must be a positive int, got {n_terms!r}")
        self.amplitudes = nn.Parameter(torch.ones(n_terms, device=device, dtype=dtype))
        self.log_widths = nn.Parameter(torch.linspace(-0.5, 1.0, n_terms, device=device, dtype=dtype))

    def spectrum(self) -> Spectrum:
        """w(|k|) with the present amplitudes and widths."""
        return spectra.sum_of_gaussians(self.amplitudes, self.log_widths)

    def extra_repr(self) -> str:
        """Settings, for printing."""
        return f"k_cut={self.k_cut:g}, n_terms={len(self.amplitudes)}, norm={self.norm!r}, method={self.method!r}"
