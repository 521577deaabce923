"""Measured figures the package carries: the neutron S(Q) of vitreous silica, and cited scalars."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np


@dataclass(frozen=True)
class MeasuredCurve:
    """A measured structure factor on a uniform grid.

    Attributes
    ----------
    q, sq, sigma : ndarray (n_q,)
        Å⁻¹, S(Q) (Faber–Ziman, → 1), and its standard deviation (counting statistics only).
    citation : str
        Where the curve comes from.
    """

    q: np.ndarray
    sq: np.ndarray
    sigma: np.ndarray
    citation: str


@cache
def neutron_silica() -> MeasuredCurve:
    """Measured neutron S(Q) of vitreous SiO2 at room temperature, bins of 0.05 Å⁻¹ from 0.35 to 40 Å⁻¹."""
    text = (files("silica_md.data") / "sio2_glass_neutron_sq.csv").read_text(encoding="utf-8")
    q, sq, sigma = np.loadtxt(text.splitlines(), delimiter=",").T
    origin = text.partition("# origin:")[2].partition("# resampled:")[0]
    citation = " ".join(origin.replace("#", "").split())
    return MeasuredCurve(q, sq, sigma, citation)


@cache
def scalars() -> dict:
    """The table of measured figures with unit, status and source of each (``data/measured.json``)."""
    return json.loads((files("silica_md.data") / "measured.json").read_text(encoding="utf-8"))


def density(na2o_fraction: float) -> float | None:
    """Measured density of xNa2O·(1−x)SiO2 glass in g/cm³, straight lines between the tabulated glasses.

    None outside the table, 0 ≤ x ≤ 0.5.
    """
    rows = scalars()["density"]["rows"]
    fractions = [row["na2o_mol_percent"] / 100 for row in rows]
    if not fractions[0] <= na2o_fraction <= fractions[-1]:
        return None
    return float(np.interp(na2o_fraction, fractions, [row["density"] for row in rows]))


def qn(na2o_fraction: float) -> dict[int, float] | None:
    """Measured Qn fractions (²⁹Si NMR) of xNa2O·(1−x)SiO2 glass, straight lines between the glasses.

    None outside the table, 0.2 ≤ x ≤ 0.556.
    """
    rows = scalars()["qn"]["rows"]
    fractions = [row["na2o_mol_percent"] / 100 for row in rows]
    if not fractions[0] - 1e-9 <= na2o_fraction <= fractions[-1]:
        return None
    return {n: float(np.interp(na2o_fraction, fractions, [row[f"Q{n}"] / 100 for row in rows])) for n in range(5)}
