"""Figures of the structure: S(Q), its first peak, T(r), partials, angles."""

from __future__ import annotations

import numpy as np

from silica_md.analysis.first_peak import FIT_RANGE

from .style import MEASURED, QUIET, SIMULATED, colours_of, new_figure, pair_label, styled

_Q, _R = "Q (Å⁻¹)", "r (Å)"
_DOTS = {"color": MEASURED, "marker": "o", "markersize": 2.0, "linestyle": "none", "markeredgewidth": 0}
_ZOOM = (0.7, 2.7)  # Å⁻¹, around the first sharp diffraction peak
_R_SHOWN = 10.0  # Å
_HEIGHT = 4.2  # inches


@styled
def neutron_structure_factor(analysis):
    """S(Q) beside the measurement, and the difference."""
    return _beside_measurement(
        analysis.q,
        analysis.neutron_sq,
        _measured(analysis, "q", "sq"),
        analysis.r_chi_sq,
        (0, analysis.q_max_reached),
        _Q,
        "S(Q), neutron",
        "upper right",
    )


@styled
def first_peak(analysis):
    """The first sharp diffraction peak, with the fits that give its position."""
    figure, axes = new_figure(_HEIGHT)
    low, high = _ZOOM
    inside = (analysis.q >= low) & (analysis.q <= high)
    if analysis.measured:
        q, sq = analysis.measured["q"], analysis.measured["sq"]
        near = (q >= low) & (q <= high)
        axes.plot(q[near], sq[near], **_DOTS | {"markersize": 4.5}, label="measured")
    axes.plot(
        analysis.q[inside],
        analysis.neutron_sq[inside],
        color=SIMULATED,
        marker="s",
        markersize=3.2,
        linewidth=0.9,
        label="simulated",
    )
    peaks = {SIMULATED: analysis.fsdp} | ({MEASURED: analysis.measured["fsdp"]} if analysis.measured else {})
    places = sorted((peak["position"], colour) for colour, peak in peaks.items() if peak["position"] is not None)
    for (place, colour), side in zip(places, (-1, 1), strict=False):  # labels to the left and to the right
        _draw_fit(axes, peaks[colour], colour)
        axes.plot([place] * 2, [0, 0.1], color=colour, linewidth=2, solid_capstyle="butt")
        axes.annotate(
            f"{place:.2f} Å⁻¹",
            (place, 0.05),
            xytext=(5 * side, 0),
            ha="right" if side < 0 else "left",
            va="center",
            textcoords="offset points",
            color=colour,
            fontsize=9,
        )
    if places:
        axes.plot([], [], color=QUIET, linewidth=1.0, linestyle=(0, (5, 2)), label="Lorentzian fit")
    axes.set(xlim=_ZOOM, xticks=(1.0, 1.5, 2.0, 2.5), xlabel=_Q, ylabel="S(Q), neutron")
    axes.set_ylim(bottom=0, top=axes.get_ylim()[1] * 1.04)
    axes.legend(loc="upper right")
    return figure


@styled
def correlation_function(analysis):
    """T(r) beside the measurement, and the difference."""
    figure = _beside_measurement(
        analysis.r_tr,
        analysis.tr_neutron,
        _measured(analysis, "r", "tr"),
        analysis.r_chi_tr,
        (0.8, float(analysis.r_tr[-1])),
        _R,
        "T(r), neutron (Å⁻²)",
        "lower right",
    )
    axes = figure.axes[0]
    for name, g in analysis.partial_gr.items():
        where = analysis.r[np.argmax(g)]
        shown = np.abs(analysis.r_tr - where) < 0.15
        if {"Na"} & set(name.split("-")) or not shown.any():
            continue  # sodium's peaks are too weak to stand out in the total
        top = max(
            np.nanmax(analysis.tr_neutron[shown]), analysis.measured["tr"][shown].max() if analysis.measured else 0
        )
        above = top > 0.4 * np.nanmax(analysis.tr_neutron)  # a shoulder has room below it
        axes.annotate(
            pair_label(name),
            (where, top),
            xytext=(0, 5) if above else (-4, -14),
            fontsize=9,
            ha="center" if above else "left",
            va="bottom" if above else "top",
            color=QUIET,
            textcoords="offset points",
        )
    axes.set_ylim(top=axes.get_ylim()[1] * 1.06)
    return figure


@styled
def xray_structure_factor(analysis):
    """X-ray weighted S(Q); there is nothing measured to set beside it."""
    figure, axes = new_figure(_HEIGHT)
    axes.axhline(1, color=QUIET, linewidth=0.7)
    axes.plot(analysis.q, analysis.xray_sq, color=SIMULATED, label="simulated")
    axes.set(xlim=(0, analysis.q_max_reached), xlabel=_Q, ylabel="S(Q), X-ray")
    axes.set_ylim(bottom=min(0, np.nanmin(analysis.xray_sq)))
    axes.legend(loc="upper right")
    return figure


@styled
def pair_distributions(analysis):
    """Partial g(r), one above the other."""
    x_range = (0, min(_R_SHOWN, float(analysis.r[-1])))
    return _stacked(
        analysis.r, analysis.partial_gr, x_range, _R, "g(r)", 0, lambda r, g: f"highest at {r[np.argmax(g)]:.2f} Å"
    )


@styled
def partial_structure_factors(analysis):
    """Partial S(Q), one above the other."""
    return _stacked(analysis.q, analysis.partial_sq, (0, min(20.0, analysis.q_max_reached)), _Q, "S(Q)")


@styled
def bond_angles(analysis):
    """Distributions of the bond angles; None when there are no bonds."""
    if not analysis.angle_distribution:
        return None
    figure, axes = new_figure(_HEIGHT)
    for name, colour in colours_of(analysis.angle_distribution).items():
        density, (mean, spread) = analysis.angle_distribution[name], analysis.angle_mean[name]
        network = "Na" not in name  # sodium's broad distributions stay in the background
        if network:
            axes.fill_between(analysis.angles_deg, density, color=colour, alpha=0.14, linewidth=0)
        axes.plot(
            analysis.angles_deg,
            density,
            color=colour,
            linewidth=1.5 if network else 0.8,
            label=f"{pair_label(name)}   {mean:.1f}°, σ {spread:.1f}°",
        )
    axes.axvline(
        np.degrees(np.arccos(-1 / 3)),
        color=QUIET,
        linewidth=0.9,
        linestyle=(0, (4, 3)),
        label="regular tetrahedron   109.5°",
    )
    axes.set(xlim=(40, 180), xlabel="bond angle (°)", ylabel="probability per degree")
    axes.set_xticks(range(40, 181, 20))
    axes.set_ylim(0, axes.get_ylim()[1] * 1.32)  # room for the legend above the curves
    axes.legend(loc="upper right")
    return figure


def _measured(analysis, x, y):
    return (analysis.measured[x], analysis.measured[y]) if analysis.measured else None


def _beside_measurement(x, simulated, measured, r_chi, x_range, x_label, y_label, corner):
    """Measured dots, simulated line, and their difference below; without a measurement the line alone."""
    if measured is None:
        figure, top = new_figure(_HEIGHT)
        top.set_xlabel(x_label)
    else:
        figure, (top, bottom) = new_figure(_HEIGHT, nrows=2, sharex=True, height_ratios=(3.2, 1))
        x_measured, y_measured = measured
        shown = (x_measured >= x_range[0]) & (x_measured <= x_range[1])
        top.plot(x_measured[shown], y_measured[shown], **_DOTS, label="measured")
        difference = simulated - np.interp(x, x_measured, y_measured, left=np.nan, right=np.nan)
        bottom.axhline(0, color=MEASURED, linewidth=0.7)
        bottom.plot(x, difference, color=SIMULATED, linewidth=1.1)
        inside = difference[(x >= x_range[0]) & (x <= x_range[1])]
        reach = 1.15 * np.nanmax(np.abs(inside)) if np.isfinite(inside).any() else 1.0
        bottom.set(xlabel=x_label, ylabel="simulated\n− measured", ylim=(-reach, reach))
        bottom.yaxis.label.set_size(8.5)
    top.plot(x, simulated, color=SIMULATED, linewidth=1.3, label="simulated")
    top.set(xlim=x_range, ylabel=y_label)
    inside = (x >= x_range[0]) & (x <= x_range[1])
    low, high = np.nanmin(simulated[inside]), np.nanmax(simulated[inside])
    if measured is not None:
        low, high = min(low, y_measured[shown].min()), max(high, y_measured[shown].max())
    top.set_ylim(min(0, low), high + 0.05 * (high - low))
    legend = top.legend(loc=corner, markerscale=2.2)
    if r_chi is not None:
        legend.set_title(f"$R_\\chi$ = {r_chi:.3f}")
    return figure


def _draw_fit(axes, peak, colour):
    """A Lorentzian on a line, over the range of the fit."""
    q = np.linspace(*FIT_RANGE, 200)
    offset = q - peak["position"]
    curve = peak["amplitude"] / (1 + (2 * offset / peak["width"]) ** 2)
    axes.plot(q, curve + peak["baseline"] + peak["slope"] * offset, color=colour, linewidth=1.0, linestyle=(0, (5, 2)))


def _stacked(x, curves, x_range, x_label, y_label, bottom=None, note=None):
    """One panel per pair of elements, each with its own scale, and the level 1 dashed."""
    figure, panels = new_figure(0.75 + 1.35 * len(curves), nrows=len(curves), sharex=True, squeeze=False)
    shown = (x >= x_range[0]) & (x <= x_range[1])
    colours = colours_of(curves)
    for axes, (name, y) in zip(panels[:, 0], curves.items(), strict=True):
        colour = colours[name]
        axes.axhline(1, color=QUIET, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.plot(x[shown], y[shown], color=colour, linewidth=1.3)
        axes.text(
            0.985,
            0.90,
            pair_label(name),
            transform=axes.transAxes,
            ha="right",
            va="top",
            color=colour,
            fontsize=11,
            fontweight="bold",
        )
        if note is not None:
            axes.text(
                0.985, 0.70, note(x, y), transform=axes.transAxes, ha="right", va="top", color=QUIET, fontsize=8.5
            )
        axes.set(xlim=x_range, ylabel=y_label)
        if bottom is not None:
            axes.set_ylim(bottom=bottom)
    panels[-1, 0].set_xlabel(x_label)
    return figure
