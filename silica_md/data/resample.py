"""Makes sio2_glass_neutron_sq.csv from the published points: ``python -m silica_md.data.resample SOURCE``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

TABLE = Path(__file__).with_name("sio2_glass_neutron_sq.csv")
SPACING, FIRST, LAST = 0.05, 0.35, 40.0
HEADER = """\
# Measured neutron total structure factor of vitreous SiO2, room temperature, natural isotopes.
# Faber-Ziman: S(Q) = 1 + sum_ab c_a c_b b_a b_b (A_ab(Q) - 1) / <b>^2, S -> 1 at large Q.
# origin: EPSR example data of Dissolve (repository disorderedmaterials/dissolve, commit 5d83399cb8cb)
# file examples/silica/data/NeutronSiO2sq.dat there (GPL-3.0 repository); holds S-1 normalised to <b>^2
# time of flight, L1 = 11.02 m, L2 = 4.284 m, instrument not named
# resampled: averages of the straight-line interpolant over uniform bins of 0.05 1/A, centres 0.35 to 40
# made by silica_md/data/resample.py; sigma is the counting error carried through the averages
# Q (1/A), S (1), sigma (1)
"""


def bin_average(
    q: np.ndarray, values: np.ndarray, sigma: np.ndarray, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Average the straight-line interpolant of a curve over bins.

    Parameters
    ----------
    q, values, sigma : ndarray (n_points,)
        Increasing abscissa, curve, standard deviations (independent).
    edges : ndarray (n_bins + 1,)
        Within the range of `q`.

    Returns
    -------
    mean, sigma : ndarray (n_bins,)
    """
    # The average is linear in the points: the weights are the averages of the hat functions.
    grid = np.union1d(q, edges)
    hats = np.stack([np.interp(grid, q, unit) for unit in np.eye(len(q))], axis=1)
    integral = np.zeros_like(hats)
    np.cumsum(np.diff(grid)[:, None] * (hats[1:] + hats[:-1]) / 2, axis=0, out=integral[1:])
    at_edges = integral[np.searchsorted(grid, edges)]
    weights = np.diff(at_edges, axis=0) / np.diff(edges)[:, None]
    return weights @ values, np.sqrt(weights**2 @ sigma**2)


def resample(source: str | Path) -> str:
    """Text of the table for a source file with columns Q, S, sigma."""
    q, values, sigma = np.loadtxt(source).T
    centres = np.arange(round(FIRST / SPACING), round(LAST / SPACING) + 1) * SPACING
    edges = np.append(centres - SPACING / 2, centres[-1] + SPACING / 2)
    mean, error = bin_average(q, values, sigma, edges)
    rows = [f"{a:.2f},{b:.5f},{c:.5f}" for a, b, c in zip(centres, mean, error, strict=True)]
    return HEADER + "\n".join(rows) + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m silica_md.data.resample SOURCE   (columns Q, S, sigma)")
    TABLE.write_text(resample(sys.argv[1]), encoding="utf-8")
