"""First sharp diffraction peak: position, height and width from a fit."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.optimize import OptimizeWarning, curve_fit

# Å⁻¹; the lower end is left out, the upper one taken, so that bins of 0.05 cover 1.175 to 1.975.
FIT_RANGE = (1.15, 1.95)


def first_sharp_diffraction_peak(q: np.ndarray, sq: np.ndarray) -> dict:
    """Fit a Lorentzian on a line to the first sharp diffraction peak of a silicate's S(Q).

    ::

        S(Q) = a / (1 + [2(Q − Q₁)/w]²) + b + c(Q − Q₁),      1.15 < Q ≤ 1.95 Å⁻¹

    Unweighted least squares, applied alike to simulated and measured curves.

    Parameters
    ----------
    q, sq : ndarray (n_q,)
        Å⁻¹ and S(Q); NaN is left out.

    Returns
    -------
    dict
        `position` Q₁ (Å⁻¹), `height` S(Q₁) = a + b, `width` w (full width at half maximum, Å⁻¹), `amplitude`
        a, `baseline` b, `slope` c (Å), and `position_error`, `width_error` (one standard deviation of the
        fit). All are None when the range holds no such peak; `reason` then says why, else it is "".
    """
    inside = (q > FIT_RANGE[0] + 1e-6) & (q < FIT_RANGE[1] + 1e-6) & np.isfinite(sq)
    if inside.sum() < 8:
        return _no_peak(f"{inside.sum()} points with k-vectors in {FIT_RANGE} Å⁻¹, 8 are needed")
    q, sq = q[inside], sq[inside]
    start = (np.ptp(sq), q[sq.argmax()], 0.6, sq.min(), 0.0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", OptimizeWarning)
            best, covariance = curve_fit(_lorentzian_on_line, q, sq, start)
    except (RuntimeError, OptimizeWarning):
        return _no_peak("the fit did not converge")
    amplitude, position, width, baseline, slope = (float(x) for x in best)
    if amplitude <= 0 or not q[0] < position < q[-1]:
        return _no_peak("the fitted peak lies outside the range or points down")
    errors = np.sqrt(np.diag(covariance))
    return {
        "position": position,
        "height": amplitude + baseline,
        "width": abs(width),
        "amplitude": amplitude,
        "baseline": baseline,
        "slope": slope,
        "position_error": float(errors[1]),
        "width_error": float(errors[2]),
        "reason": "",
    }


def _lorentzian_on_line(q, amplitude, position, width, baseline, slope):
    shift = q - position
    return amplitude / (1 + (2 * shift / width) ** 2) + baseline + slope * shift


def _no_peak(reason):
    names = ["position", "height", "width", "amplitude", "baseline", "slope", "position_error", "width_error"]
    return dict.fromkeys(names) | {"reason": reason}
