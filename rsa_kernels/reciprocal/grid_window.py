"""The windows that carry atoms to the mesh: their values, Fourier transforms and piecewise polynomials.

A window w(x), x in mesh steps, is even, zero for |x| ≥ p/2 (p the order: an atom touches p mesh points an axis) and has
ŵ(0) = ∫w = 1. Two kinds:

* ``"kaiser"``: w ∝ r³ I₃(β r) with r² = 1 − (2x/p)², the Kaiser–Bessel window of order 3. Its second derivative is
  continuous, ŵ is a spherical Bessel function, and for the same p its aliases are weaker than those of the B-spline
  by two to five powers of ten.
* ``"spline"``: the centred B-spline of order p, with p − 2 continuous derivatives.

References
----------
Lewitt, J. Opt. Soc. Am. A 7, 1834 (1990) (Kaiser–Bessel windows of higher order); Essmann et al., J. Chem. Phys. 103,
8577 (1995) (B-splines in particle-mesh sums).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.polynomial import chebyshev, polynomial
from scipy import special

LANES = 16  # columns of the polynomial table; the largest order
_NU = 3
_FIRST_ZERO = 6.2  # of j₃, nearly: where ŵ may begin to oscillate without the first alias growing


def kaiser_beta(order: int, band: float) -> float:
    """Return the β that makes the aliases of modes |n|/g ≤ `band` on all axes about as small as can be."""
    edge = math.pi * order * (1.0 - band)
    return math.sqrt(max(edge * edge - _FIRST_ZERO**2, (0.8 * order) ** 2))


def _reduced(z2):
    """i₃(z)/z³ for real z² of either sign."""
    z2 = np.asarray(z2, dtype=np.float64)
    z = np.sqrt(np.abs(np.where(np.abs(z2) < 1e-2, 1.0, z2)))
    far = np.where(z2 > 0, special.spherical_in(_NU, np.where(z2 > 0, z, 1.0)), special.spherical_jn(_NU, z)) / z**_NU
    near = (1.0 + z2 / 18.0 * (1.0 + z2 / 44.0 * (1.0 + z2 / 78.0))) / 105.0
    return np.where(np.abs(z2) < 1e-2, near, far)


def fourier(window: str, order: int, beta: float, xi):
    """ŵ(ξ) = ∫ w(x) exp(−2πi ξ x) dx, ξ in turns a mesh step."""
    xi = np.asarray(xi, dtype=np.float64)
    if window == "spline":
        return np.sinc(xi) ** order
    return _reduced(beta**2 - (math.pi * order * xi) ** 2) / _reduced(beta**2)


def _kaiser_derivatives(order: int, beta: float, x):
    """Return w, w' and w'' at x."""
    half = 0.5 * order
    q = np.clip(1.0 - (x / half) ** 2, 0.0, None)
    r = np.sqrt(q)
    scale = 1.0 / (2.0 * half * special.spherical_in(_NU, beta))
    g0, g1, g2 = (scale * (beta / 2) ** k * r ** (_NU - k) * special.iv(_NU - k, beta * r) for k in range(3))
    dq, ddq = -2.0 * x / half**2, -2.0 / half**2
    return g0, g1 * dq, g2 * dq**2 + g1 * ddq


def _spline_pieces(order: int) -> np.ndarray:
    """Polynomials of the B-spline, (order, order) in s = place in the step, piece k on [k, k + 1] from the left end."""
    pieces = [np.array([1.0])]
    for p in range(2, order + 1):
        # M_p(x) = (x M_{p−1}(x) + (p − x) M_{p−1}(x − 1)) / (p − 1), with s = x − k − 1/2
        grown = []
        for k in range(p):
            total = np.zeros(p)
            if k < p - 1:
                total = polynomial.polyadd(total, polynomial.polymul([k + 0.5, 1.0], pieces[k]))
            if k > 0:
                total = polynomial.polyadd(total, polynomial.polymul([p - k - 0.5, -1.0], pieces[k - 1]))
            grown.append(total / (p - 1))
        pieces = grown
    return np.array(pieces)


# The quintic in s on [−1/2, 1/2] with given value, slope and curvature at both ends.
_ENDS = np.array(
    [[math.perm(k, d) * end ** (k - d) if k >= d else 0.0 for k in range(6)] for end in (-0.5, 0.5) for d in range(3)]
)


def _kaiser_pieces(order: int, beta: float, tolerance: float) -> np.ndarray:
    """Polynomials that share value, slope and curvature at the mesh points, so that the window stays C²."""
    knots = np.arange(order + 1) - 0.5 * order
    ends = np.stack(_kaiser_derivatives(order, beta, knots), axis=1)
    quintic = np.linalg.solve(_ENDS, np.concatenate((ends[:-1], ends[1:]), axis=1).T).T  # (order, 6)
    s = 0.5 * np.cos(np.pi * (np.arange(48) + 0.5) / 48)
    exact = _kaiser_derivatives(order, beta, knots[:-1, None] + 0.5 + s)[0]
    bump = (0.25 - s * s) ** 3
    rest = exact - polynomial.polyval(s, quintic.T)
    peak = exact.max()
    for degree in range(5, 22):
        pieces = np.zeros((order, degree + 1))
        pieces[:, :6] = quintic
        if degree > 5:
            basis = bump[:, None] * chebyshev.chebvander(2 * s, degree - 6)
            correction = np.linalg.lstsq(basis, rest.T, rcond=None)[0].T
            for k in range(order):
                inner = chebyshev.cheb2poly(correction[k]) * 2.0 ** np.arange(degree - 5)
                product = polynomial.polymul(inner, [1 / 64, 0.0, -3 / 16, 0.0, 0.75, 0.0, -1.0])
                pieces[k, : product.size] += product
        if np.abs(polynomial.polyval(s, pieces.T) - exact).max() <= max(tolerance, 4e-16) * peak:
            break
    return pieces


@lru_cache(maxsize=64)
def pieces(window: str, order: int, beta: float, tolerance: float) -> np.ndarray:
    """Piecewise polynomials of a window, as the kernels read them.

    Parameters
    ----------
    window, order, beta
        As in `fourier`.
    tolerance : float
        Largest deviation from the Kaiser–Bessel window, relative to its peak; the B-spline is exact.

    Returns
    -------
    ndarray (degree + 1, LANES) float64
        Column l holds, from the constant upwards, the polynomial of the l-th of the p mesh points an atom touches
        (counted upwards along the axis) in s = t − 1/2, where t = u + p/2 − ⌊u + p/2⌋ and u = f·g; zero beyond p. The
        first mesh point is ⌊u + p/2⌋ − p + 1.
    """
    found = _spline_pieces(order) if window == "spline" else _kaiser_pieces(order, beta, tolerance)
    table = np.zeros((found.shape[1], LANES))
    table[:, :order] = found[::-1].T
    table.setflags(write=False)
    return table
