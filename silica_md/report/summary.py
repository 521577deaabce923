"""The result of a run for machines: `summary.json`."""

from __future__ import annotations

import json
from pathlib import Path

from ..analysis import Analysis
from ..files import replace_file
from .provenance import provenance
from .verdicts import verdicts

SCHEMA = 1

UNITS = {
    "density": "g/cm3",
    "r": "angstrom",
    "r_tr": "angstrom",
    "q": "1/angstrom",
    "q_min": "1/angstrom",
    "q_max_reached": "1/angstrom",
    "tr_q_range": "1/angstrom",
    "tr_neutron": "1/angstrom^2",
    "bond_length": "angstrom, [mean, standard deviation]",
    "cutoffs": "angstrom",
    "angles_deg": "degree",
    "angle_mean": "degree, [mean, standard deviation]",
    "angle_distribution": "1/degree",
    "coordination": "fraction of the first element with so many of the second",
    "mean_coordination": "1",
    "qn": "fraction of Si",
    "rings": "distinct rings per Si, at the index of their size (number of Si)",
    "na2o_fraction": "mole fraction",
    "partial_gr": "1",
    "partial_sq": "1",
    "neutron_sq": "1",
    "xray_sq": "1",
    "r_chi_sq": "1",
    "r_chi_tr": "1",
    "k_counts": "1",
    "fsdp": "position, width: 1/angstrom; height, amplitude, baseline: 1; slope: angstrom",
    "measured": "as the simulated quantities of the same names; sq, sigma: 1; tr: 1/angstrom^2",
}


def write_summary(run_dir: str | Path, analysis: Analysis, config: dict | None = None) -> Path:
    """Write `summary.json` into a run folder, in one step.

    Parameters
    ----------
    run_dir : str or Path
    analysis : Analysis
    config : dict, optional
        The configuration of the run, copied as it is.

    Returns
    -------
    Path
        The file.

    Notes
    -----
    Keys of the file:

    ==================  ==============================================================================
    `schema`            number of this layout, 1
    `summary`           list of {quantity, unit, measured, simulated}, the table of the report, as text
    `verdicts`          list of {quantity, met, text, asked}
    `all_met`           true when every verdict is met; null when there is none
    `results`           every number of the analysis that is not a curve (see `silica_md.analysis.Analysis`)
    `curves`            its arrays, six significant digits, null where a bin is empty
    `units`             unit of each key of `results` and `curves`
    `config`            the configuration, null if none was given
    `made_with`         versions and machine
    ==================  ==============================================================================
    """
    judged = verdicts(analysis)
    fields = analysis.to_dict()
    curves = {name: _rounded(value) for name, value in fields.items() if _holds_curve(value)}
    names = ("quantity", "unit", "measured", "simulated")
    content = {
        "schema": SCHEMA,
        "summary": [dict(zip(names, row, strict=True)) for row in analysis.summary_rows()],
        "verdicts": [verdict._asdict() for verdict in judged],
        "all_met": all(verdict.met for verdict in judged) if judged else None,
        "results": {name: value for name, value in fields.items() if name not in curves},
        "curves": curves,
        "units": {name: unit for name, unit in UNITS.items() if name in fields},
        "config": config,
        "made_with": provenance(),
    }
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, default=str)
    return replace_file(Path(run_dir) / "summary.json", text + "\n")


def _holds_curve(value):
    """Whether there is a list of more than a handful of numbers in `value`."""
    if isinstance(value, dict):
        return any(_holds_curve(item) for item in value.values())
    return isinstance(value, list) and len(value) > 8 and all(isinstance(x, float | int | None) for x in value)


def _rounded(value):
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
