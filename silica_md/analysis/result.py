"""The result of an analysis: one dataclass, its JSON form, and its summary measured | simulated."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from . import goodness, measured
from .rings import CRITERIA


@dataclass(frozen=True)
class Analysis:
    """Structure of a glass averaged over frames, and how far it is from the measurement.

    Arrays are float64; a bin of `q` that holds no k-vector of the cell is NaN in every S(Q).

    Attributes
    ----------
    density : float
        Mean mass density, g/cm³.
    n_atoms, n_frames : int
    formula : str
        Empirical formula.
    na2o_fraction : float or None
        Mole fraction x of xNa2O·(1−x)SiO2; None for other systems.
    r : ndarray
        Bin centres of g(r), Å.
    partial_gr : dict of str to ndarray
        g_ab(r), keys "Si-Si", "Si-O", "O-O", ….
    cutoffs : dict of str to float
        Bond cutoffs, Å.
    cutoff_sources : dict of str to str
        Where each came from.
    coordination : dict of str to {int: float}
        "Si-O": fraction of Si with n O; "O-Si": fraction of O with n Si.
    mean_coordination : dict of str to float
    bond_length : dict of str to (float, float)
        Mean and standard deviation, Å.
    angles_deg : ndarray
        Bin centres, degrees.
    angle_distribution : dict of str to ndarray
        Probability per degree, centre atom in the middle: "O-Si-O", "Si-O-Si".
    angle_mean : dict of str to (float, float)
        Mean and standard deviation, degrees.
    qn : dict of int to float
        Fraction of Si with n bridging oxygens; empty where there is no Si–O.
    rings : dict of str to ndarray
        "king", "guttman", "primitive": distinct rings per Si, at the index of their size (number of Si); empty where
        there is no Si–O. See `rings.silicon_rings`.
    q : ndarray
        Bin centres, Å⁻¹, uniform.
    k_counts : ndarray
        k-vectors per bin and frame.
    partial_sq : dict of str to ndarray
        Faber–Ziman A_ab(Q).
    neutron_sq, xray_sq : ndarray
        Weighted totals.
    q_min : float
        Shortest k-vector of the cell, Å⁻¹.
    q_max_reached : float
    reason : str
        Why S(Q) ends at `q_max_reached`.
    r_tr, tr_neutron : ndarray
        T(r) in Å⁻² with the Lorch window, r in Å.
    tr_q_range : (float, float)
        Q range of the transform, the same for simulation and measurement, Å⁻¹.
    fsdp : dict
        See `first_peak.first_sharp_diffraction_peak`; of `neutron_sq`.
    measured : dict or None
        `q`, `sq`, `sigma`, `r`, `tr`, `fsdp`, `density`, `citation` of the neutron measurement on vitreous
        silica; None for any other composition.
    r_chi_sq, r_chi_tr : float or None
        R_χ of S(Q) over 0.6–15 Å⁻¹ and of T(r) over 1–8 Å; None without measurement or range.
    notes : list of str
        What a reader of the figures should know.
    """

    density: float
    n_atoms: int
    formula: str
    n_frames: int
    na2o_fraction: float | None
    r: np.ndarray
    partial_gr: dict[str, np.ndarray]
    cutoffs: dict[str, float]
    cutoff_sources: dict[str, str]
    coordination: dict[str, dict[int, float]]
    mean_coordination: dict[str, float]
    bond_length: dict[str, tuple[float, float]]
    angles_deg: np.ndarray
    angle_distribution: dict[str, np.ndarray]
    angle_mean: dict[str, tuple[float, float]]
    qn: dict[int, float]
    rings: dict[str, np.ndarray]
    q: np.ndarray
    k_counts: np.ndarray
    partial_sq: dict[str, np.ndarray]
    neutron_sq: np.ndarray
    xray_sq: np.ndarray
    q_min: float
    q_max_reached: float
    reason: str
    r_tr: np.ndarray
    tr_neutron: np.ndarray
    tr_q_range: tuple[float, float]
    fsdp: dict
    measured: dict | None
    r_chi_sq: float | None
    r_chi_tr: float | None
    notes: list[str]

    def to_dict(self) -> dict:
        """Everything as plain lists, numbers and strings for JSON; NaN becomes None."""
        return _plain(asdict(self))

    def summary_rows(self) -> list[tuple[str, str, str, str]]:
        """Rows (quantity, unit, measured, simulated) for a table; all strings, "–" where there is nothing."""
        rows = [("density", "g/cm³", _number(self._measured_density(), 3), _number(self.density, 3))]
        silica = measured.scalars()["silica"] if self.measured else {}
        if "Si-O" in self.bond_length:
            bond = _number(silica.get("si_o_distance", {}).get("value"), 2)
            rows.append(("Si–O bond length", "Å", bond, _spread(self.bond_length["Si-O"], 3)))
            neighbours = _number(silica.get("si_o_coordination", {}).get("value"), 2)
            rows.append(("O around Si", "", neighbours, _number(self.mean_coordination["Si-O"], 3)))
            rows.append(("fourfold Si", "%", "–", _number(100 * self.coordination["Si-O"].get(4, 0.0), 1)))
            rows.append(("twofold O", "%", "–", _number(100 * self.coordination["O-Si"].get(2, 0.0), 1)))
        if "O-Si-O" in self.angle_mean:
            rows.append(("O–Si–O angle", "°", "–", _spread(self.angle_mean["O-Si-O"], 1)))
        if "Si-O-Si" in self.angle_mean:
            angle = silica.get("si_o_si_angle_most_probable", {}).get("value")
            found = f"{angle} (maximum)" if angle else "–"
            rows.append(("Si–O–Si angle", "°", found, _spread(self.angle_mean["Si-O-Si"], 1)))
        rows += self._qn_rows()
        for criterion, counts in self.rings.items():
            share = 100 * counts[6] / counts.sum() if counts.sum() else None
            rows.append((f"six-rings among {CRITERIA[criterion]} rings", "%", "–", _number(share, 1)))
        peak = self.measured["fsdp"] if self.measured else {}
        for key, name, unit in (("position", "position", "Å⁻¹"), ("height", "height", ""), ("width", "width", "Å⁻¹")):
            found = _number(peak.get(key), 2)
            rows.append((f"first sharp diffraction peak, {name}", unit, found, self._peak(key)))
        if self.measured:
            low, high = goodness.Q_RANGE
            rows.append((f"R_χ of S(Q), {low:g}–{high:g} Å⁻¹", "", "–", _number(self.r_chi_sq, 3)))
            low, high = goodness.R_RANGE
            rows.append((f"R_χ of T(r), {low:g}–{high:g} Å", "", "–", _number(self.r_chi_tr, 3)))
        return rows

    def _measured_density(self):
        return None if self.na2o_fraction is None else measured.density(self.na2o_fraction)

    def _qn_rows(self):
        found = measured.qn(self.na2o_fraction) if self.na2o_fraction is not None else None
        occurring = [n for n in sorted(self.qn, reverse=True) if self.qn[n] > 0 or (found or {}).get(n, 0) > 0]
        return [
            (f"Q{n}", "%", _number(100 * found[n], 0) if found and n in found else "–", _number(100 * self.qn[n], 1))
            for n in occurring
        ]

    def _peak(self, key):
        error = self.fsdp.get(f"{key}_error")
        value = _number(self.fsdp[key], 2)
        return value if error is None else f"{value} ± {error:.2f} (fit)"


def _number(value, digits):
    return "–" if value is None else f"{value:.{digits}f}"


def _spread(mean_and_std, digits):
    mean, std = mean_and_std
    return f"{mean:.{digits}f} (σ {std:.{digits}f})"


def _plain(value):
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value
