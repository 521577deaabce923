"""Total correlation function T(r) from S(Q), with the Lorch window."""

from __future__ import annotations

import numpy as np


def correlation_function(
    q: np.ndarray, sq: np.ndarray, r: np.ndarray, number_density: float, q_min: float, q_max: float
) -> np.ndarray:
    """Total correlation function T(r) of a structure factor known from q_min to q_max.

    ::

        T(r) = 4πρr + (2/π) ∫_{q_min}^{q_max} Q [S(Q) − 1] L(Q) sin(Qr) dQ,   L(Q) = sin(πQ/q_max) / (πQ/q_max)

    A measurement and a simulation transformed with the same q_min and q_max can be compared: the window
    broadens both alike (by 5.4/q_max at half height), and what lies outside is missing from both.

    Parameters
    ----------
    q, sq : ndarray (n_q,)
        Uniform grid in Å⁻¹, and S(Q); NaN (a bin without k-vectors) is bridged by a straight line.
    r : ndarray (n_r,)
        Distances, Å.
    number_density : float
        ρ in Å⁻³.
    q_min, q_max : float
        Range of the integral, Å⁻¹.

    Returns
    -------
    ndarray (n_r,)
        T(r) in Å⁻².

    References
    ----------
    E. Lorch, J. Phys. C 2 (1969) 229.
    """
    known = np.isfinite(sq)
    inside = (q > q_min - 1e-9) & (q < q_max + 1e-9)
    q_used = q[inside]
    interference = np.interp(q_used, q[known], sq[known]) - 1
    window = np.sinc(q_used / q_max)
    spacing = q[1] - q[0]
    transform = np.sin(np.outer(r, q_used)) @ (q_used * interference * window * spacing)
    return 4 * np.pi * number_density * r + 2 / np.pi * transform
