"""Reads the thermodynamic log of a run, and says in a sentence what was done."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np


def read_thermo(path: str | Path) -> dict[str, np.ndarray]:
    """Read a log written by `silica_md.observers.ThermoLog`.

    Returns
    -------
    dict of str to ndarray (n_rows,)
        Column names with their units; `segment` is text, all others float64, NaN where a cell is empty.
    """
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = rows[0].keys() if rows else ()
    return {
        name: np.array([row[name] if name == "segment" else float(row[name] or "nan") for row in rows])
        for name in names
    }


def account(thermo: dict[str, np.ndarray]) -> str:
    """Say what the run did: hottest and last temperature asked for, cooling rate, length."""
    target, time = thermo["target_K"], thermo["time_ps"]
    length = f"{time[-1]:.4g} ps"
    falling = np.flatnonzero((np.diff(target) < 0) & (np.diff(time) > 0))
    if not len(falling):
        return f"Simulated for {length}."
    rate = -np.median(np.diff(target)[falling] / np.diff(time)[falling])
    return f"Heated to {np.nanmax(target):,.0f} K, cooled to {target[-1]:,.0f} K at {rate:.3g} K/ps, {length} in all."
