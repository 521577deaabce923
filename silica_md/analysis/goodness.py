"""Goodness of fit between a simulated and a measured curve."""

from __future__ import annotations

import numpy as np

# Ranges of the two comparisons, Å⁻¹ and Å.
Q_RANGE = (0.6, 15.0)
R_RANGE = (1.0, 8.0)


def r_chi(x: np.ndarray, simulated: np.ndarray, measured: np.ndarray, x_range: tuple[float, float]) -> float | None:
    """R_χ = [Σ(S − S_exp)² / ΣS_exp²]^½ over the points of `x_range` (ends included).

    Points where the simulation is NaN (bins without k-vectors) are left out of both sums. None when the
    curves do not cover the range.

    References
    ----------
    A. C. Wright, J. Non-Cryst. Solids 159 (1993) 264.
    """
    low, high = x_range
    if x[0] > low + 1e-6 or x[-1] < high - 1e-6:
        return None
    used = (x > low - 1e-6) & (x < high + 1e-6) & np.isfinite(simulated) & np.isfinite(measured)
    if not used.any():
        return None
    difference = simulated[used] - measured[used]
    return float(np.sqrt((difference**2).sum() / (measured[used] ** 2).sum()))
