"""Figures of the run: temperature, density, pressure and energy against time, segments shaded."""

from __future__ import annotations

import textwrap
from itertools import pairwise

import numpy as np

from .style import MEASURED, QUIET, SIMULATED, new_figure, styled

_SHADE = "#eef1f5"


@styled
def temperature(thermo):
    """Temperature, and the one asked for."""
    figure, axes = _against_time(thermo, "temperature (K)")
    axes.plot(thermo["time_ps"], thermo["temperature_K"], color=SIMULATED, linewidth=1.0, label="simulated")
    axes.plot(
        thermo["time_ps"], thermo["target_K"], color=MEASURED, linewidth=1.0, linestyle=(0, (4, 2)), label="asked for"
    )
    axes.set_ylim(bottom=0)
    axes.legend(loc="best")
    return figure


@styled
def density(thermo):
    """Mass density."""
    figure, axes = _against_time(thermo, "density (g/cm³)")
    axes.plot(thermo["time_ps"], thermo["density_g_cm3"], color=SIMULATED, linewidth=1.0)
    return figure


@styled
def pressure(thermo):
    """Pressure, every row and smoothed."""
    figure, axes = _against_time(thermo, "pressure (GPa)")
    smooth = _running_mean(thermo["pressure_GPa"], thermo["segment"])
    axes.axhline(0, color=MEASURED, linewidth=0.7)
    axes.plot(thermo["time_ps"], thermo["pressure_GPa"], color=SIMULATED, linewidth=0.7, alpha=0.4, label="as logged")
    axes.plot(thermo["time_ps"], smooth, color=SIMULATED, linewidth=1.4, label="running mean")
    low, high = np.nanpercentile(thermo["pressure_GPa"], (0.5, 99.5))  # the start pushes atoms apart
    margin = 0.25 * max(high - low, 0.1)
    axes.set_ylim(low - margin, high + margin)
    axes.legend(loc="best")
    return figure


@styled
def energy(thermo):
    """Potential energy per atom."""
    figure, axes = _against_time(thermo, "potential energy (eV/atom)")
    axes.plot(thermo["time_ps"], thermo["potential_eV_per_atom"], color=SIMULATED, linewidth=1.0)
    return figure


@styled
def conserved(thermo):
    """The conserved quantity of each segment, counted from the segment's first row."""
    figure, axes = _against_time(thermo, "conserved quantity, change\nin the segment (meV/atom)")
    axes.axhline(0, color=QUIET, linewidth=0.7)
    for first, last, _ in segments(thermo["segment"]):
        part = slice(first, last)
        change = 1000 * (thermo["conserved_eV_per_atom"][part] - thermo["conserved_eV_per_atom"][first])
        axes.plot(thermo["time_ps"][part], change, color=SIMULATED, linewidth=1.1)
    return figure


@styled
def energy_on_cooling(thermo):
    """Potential energy against temperature while the target falls; None when it never does."""
    target = thermo["target_K"]
    ramps = [range(first, last) for first, last, _ in segments(thermo["segment"]) if target[last - 1] < target[first]]
    cooling = np.array([row for ramp in ramps for row in ramp])
    if len(cooling) < 10:
        return None
    figure, axes = new_figure(3.4)
    axes.plot(
        thermo["temperature_K"][cooling],
        thermo["potential_eV_per_atom"][cooling],
        color=SIMULATED,
        marker="o",
        markersize=2.2,
        linestyle="none",
        markeredgewidth=0,
    )
    axes.set(xlabel="temperature (K)", ylabel="potential energy (eV/atom)")
    axes.set_xlim(left=0)
    return figure


def segments(names) -> list[tuple[int, int, str]]:
    """Runs of equal names as (first row, row after the last, name)."""
    names = np.asarray(names)
    borders = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1), len(names)]
    return [(int(a), int(b), str(names[a])) for a, b in pairwise(borders)]


def _against_time(thermo, y_label):
    """Axes with the segments shaded in turn and named above, or numbered where a name would not fit."""
    time = thermo["time_ps"]
    figure, axes = new_figure(3.4)
    axes.set(xlim=(time[0], max(time[-1], time[0] + 1e-6)), xlabel="time (ps)", ylabel=y_label)
    axes.grid(axis="x", visible=False)
    parts = segments(thermo["segment"])
    length = time[-1] - time[0] or 1.0
    # About 70 characters of this size go into the width of the axes.
    named = all((time[min(b, len(time) - 1)] - time[a]) / length * 70 > len(name) for a, b, name in parts)
    for number, (a, b, name) in enumerate(parts, 1):
        start, end = time[a], time[min(b, len(time) - 1)]
        if number % 2:
            axes.axvspan(start, end, color=_SHADE, linewidth=0, zorder=0)
        axes.annotate(
            name if named else str(number),
            ((start + end) / 2, 1),
            xytext=(0, 3),
            color=QUIET,
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
        )
    if not named:
        key = ",  ".join(f"{number} {name}" for number, (_, _, name) in enumerate(parts, 1))
        axes.set_title("\n".join(textwrap.wrap(key, 74)), loc="left", fontsize=8.5, color=QUIET, pad=16)
    return figure, axes


def _running_mean(values, names):
    """Mean over a fortieth of the run, not across the border of a segment."""
    half = max(len(values) // 80, 1)
    smooth = np.array(values, dtype=float)
    for first, last, _ in segments(names):
        total = np.concatenate([[0.0], np.cumsum(values[first:last])])
        index = np.arange(last - first)
        low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, last - first)
        smooth[first:last] = (total[high] - total[low]) / (high - low)
    return smooth
