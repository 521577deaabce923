"""Figures of the samples taken during a run: the structure against temperature while the glass is cooled."""

from __future__ import annotations

import numpy as np

from .ring_figure import RING_COLOURS
from .run_figures import segments
from .style import COLOURS, QUIET, SIMULATED, new_figure, styled

_FEWEST = 5  # samples on cooling that make a figure
_PANEL = 1.75  # inches


@styled
def order_on_cooling(series):
    """First-peak height, share of six-rings and width of the Si–O–Si angle; None where nothing was cooled."""
    rows = _cooling(series)
    found = series.columns
    if rows is None or "rings/king" not in found:
        return None
    figure, panels = new_figure(0.7 + 3 * _PANEL, nrows=3, sharex=True)
    x = found["temperature"][rows]
    _points(panels[0], x, found["first_peak/height"][rows], SIMULATED)
    panels[0].set_ylabel("height of the\nfirst peak of S(Q)")
    for criterion, colour in RING_COLOURS.items():
        counts = found[f"rings/{criterion}"][rows].astype(float)
        with np.errstate(invalid="ignore"):
            share = 100 * counts[:, 6] / counts.sum(axis=1)
        _points(panels[1], x, share, colour, criterion.capitalize())
    panels[1].set_ylabel("six-rings among\nall rings (%)")
    _legend_above(panels[1])
    _points(panels[2], x, found["angle/Si-O-Si/width"][rows], SIMULATED)
    panels[2].set_ylabel("width σ of the\nSi–O–Si angle (°)")
    return _finished(figure, panels, x)


@styled
def network_on_cooling(series):
    """Density, whole coordination and Q4; None where nothing was cooled."""
    rows = _cooling(series)
    found = series.columns
    if rows is None or "qn" not in found:
        return None
    figure, panels = new_figure(0.7 + 3 * _PANEL, nrows=3, sharex=True)
    x = found["temperature"][rows]
    _points(panels[0], x, found["density"][rows], SIMULATED)
    panels[0].set_ylabel("density (g/cm³)")
    shares = {
        "Si with 4 O": (found["coordination/Si-O"], 4, COLOURS[0]),
        "O with 2 Si": (found["coordination/O-Si"], 2, COLOURS[1]),
        "Q4": (found["qn"], 4, COLOURS[2]),
    }
    for name, (counts, n, colour) in shares.items():
        _points(panels[1], x, 100 * counts[rows, n] / counts[rows].sum(axis=1), colour, name)
    panels[1].set_ylabel("share of the\natoms (%)")
    _legend_above(panels[1])
    _points(panels[2], x, found["angle/Si-O-Si/mean"][rows], SIMULATED)
    panels[2].set_ylabel("mean Si–O–Si\nangle (°)")
    return _finished(figure, panels, x)


@styled
def structure_factor_on_cooling(series):
    """S(Q) averaged over stretches of the cooling, the hottest to the coldest; None where nothing was cooled."""
    rows = _cooling(series)
    if rows is None:
        return None
    figure, axes = new_figure(3.6)
    temperature, q = series.columns["temperature"][rows], series.axes["q"]
    weights, sq = series.columns["sq/k_count"][rows], np.nan_to_num(series.columns["sq/neutron"][rows])
    stretches = np.array_split(np.argsort(-temperature), min(4, len(temperature)))
    for place, part in enumerate(stretches):
        # Two bins together, every k-vector with the same weight: a small cell has few.
        total, count = (_by_two(x[part].sum(axis=0)) for x in (sq * weights, weights))
        with np.errstate(invalid="ignore"):
            mean = total / count
        axes.plot(
            _by_two(q) / 2,
            mean,
            color=_HEAT[place * (len(_HEAT) - 1) // max(len(stretches) - 1, 1)],
            linewidth=1.3,
            label=f"{temperature[part].max():,.0f}–{temperature[part].min():,.0f} K",
        )
    axes.axhline(1, color=QUIET, linewidth=0.7)
    axes.set(xlim=(0, q[-1]), xlabel="Q (Å⁻¹)", ylabel="S(Q), neutron")
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower right")
    return figure


_HEAT = ("#b2182b", "#ef8a62", "#67a9cf", "#2166ac")  # from hot to cold


def _cooling(series):
    """Samples taken while the target fell, in one array; None where there are too few."""
    target = series.columns["target"]
    parts = [range(a, b) for a, b, _ in segments(series.columns["segment"]) if target[b - 1] < target[a]]
    rows = np.array([row for part in parts for row in part], dtype=int)
    return rows if len(rows) >= _FEWEST else None


def _by_two(values):
    """Sums of neighbouring bins, two by two."""
    even = len(values) // 2 * 2
    return values[:even].reshape(-1, 2).sum(axis=1)


def _points(axes, x, y, colour, label=None):
    """Samples as points, and their running mean over neighbours in temperature as a line."""
    axes.plot(x, y, color=colour, marker="o", markersize=2.6, linestyle="none", markeredgewidth=0, alpha=0.55)
    order = np.argsort(x)
    known = order[np.isfinite(y[order])]
    half = max(len(known) // 14, 1)
    near = [known[max(k - half, 0) : k + half + 1] for k in range(len(known))]
    axes.plot([x[k].mean() for k in near], [y[k].mean() for k in near], color=colour, linewidth=1.5, label=label)


def _legend_above(axes):
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 0.97), ncols=3, fontsize=9, borderaxespad=0.1)


def _finished(figure, panels, x):
    panels[-1].set_xlabel("temperature (K)")
    margin = 0.03 * np.ptp(x)
    panels[-1].set_xlim(max(x.min() - margin, 0), x.max() + margin)
    figure.align_ylabels(panels)
    return figure
