"""Figures of a training: learning curves, and predicted against labelled energies, forces and stresses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from ase.data import chemical_symbols

from ..report.style import COLOURS, MEASURED, QUIET, new_figure, styled
from .evaluate import Predictions, residuals
from .frames import Frame

_SETS = {"train": "#9aa4b1", "valid": COLOURS[0], "test": COLOURS[1]}
_MOST_POINTS = 20000
"""Points of a kind in a plot; of more, every n-th is drawn."""


@styled
def learning_curve(epochs: Mapping[str, np.ndarray]):
    """Loss of training and validation frames against the epoch."""
    figure, axes = new_figure(3.4)
    axes.plot(epochs["epoch"], epochs["train_loss"], color=_SETS["train"], label="training")
    seen = np.isfinite(epochs["valid_loss"])
    axes.plot(
        epochs["epoch"][seen], epochs["valid_loss"][seen], color=_SETS["valid"], label="validation", **_marks(seen)
    )
    axes.set(xlabel="epoch", ylabel="loss", yscale="log")
    _shade_stage_two(axes, epochs)
    axes.legend(loc="best")
    return figure


@styled
def error_curve(epochs: Mapping[str, np.ndarray]):
    """Errors of the validation frames against the epoch."""
    shown = {
        "rmse_e_meV_per_atom": ("energy (meV/atom)", COLOURS[0]),
        "rmse_f_meV_per_A": ("forces (meV/Å)", COLOURS[1]),
        "rmse_stress_meV_per_A3": ("stress (meV/Å³)", COLOURS[2]),
    }
    figure, axes = new_figure(3.4)
    for name, (label, colour) in shown.items():
        seen = np.isfinite(epochs[name])
        if seen.any():
            axes.plot(epochs["epoch"][seen], epochs[name][seen], color=colour, label=label, **_marks(seen))
    axes.set(xlabel="epoch", ylabel="RMSE of validation", yscale="log")
    _shade_stage_two(axes, epochs)
    axes.legend(loc="best")
    return figure


@styled
def learning_rate(epochs: Mapping[str, np.ndarray]):
    """Learning rate against the epoch."""
    figure, axes = new_figure(2.6)
    axes.step(epochs["epoch"], epochs["lr"], where="mid", color=MEASURED, linewidth=1.2)
    axes.set(xlabel="epoch", ylabel="learning rate", yscale="log")
    _shade_stage_two(axes, epochs)
    return figure


@styled
def energy_parity(
    frames: Mapping[str, Sequence[Frame]], predictions: Mapping[str, Predictions], energies: Mapping[int, float]
):
    """Energy an atom beyond the isolated atoms, predicted against labelled; None without such labels."""
    points = {}
    for name, part in frames.items():
        sizes = np.array([len(frame) for frame in part])
        points[name] = residuals(part, energies) / sizes, predictions[name].energy / sizes
    return _parity(points, "energy (eV/atom)", _SETS)


@styled
def force_parity(frames: Mapping[str, Sequence[Frame]], predictions: Mapping[str, Predictions]):
    """Force components, predicted against labelled, by element, of the test frames or else of the validation frames;
    None without such labels."""
    name = "test" if "test" in frames else "valid"
    numbers = np.concatenate([frame.atomic_numbers for frame in frames[name]])
    labels = np.concatenate([frame.forces for frame in frames[name]])
    points = {
        chemical_symbols[z]: (labels[numbers == z].ravel(), predictions[name].forces[numbers == z].ravel())
        for z in np.unique(numbers)
    }
    colours = {symbol: COLOURS[(k + 1) % len(COLOURS)] for k, symbol in enumerate(points)}
    return _parity(points, "force component (eV/Å)", colours)


@styled
def stress_parity(frames: Mapping[str, Sequence[Frame]], predictions: Mapping[str, Predictions]):
    """Components of the stress, predicted against labelled; None without such labels."""
    points = {
        name: (np.stack([frame.stress for frame in part]).ravel(), predictions[name].stress.ravel())
        for name, part in frames.items()
    }
    return _parity(points, "stress (eV/Å³)", _SETS)


def _parity(points, what, colours):
    if not all(np.isfinite(labelled).all() for labelled, _ in points.values()):
        return None
    figure, axes = new_figure(4.6)
    both = np.concatenate([np.concatenate(pair) for pair in points.values()])
    margin = 0.04 * (np.ptp(both) or 1.0)
    limits = both.min() - margin, both.max() + margin
    axes.plot(limits, limits, color=QUIET, linewidth=0.8, zorder=1)
    for name, (labelled, predicted) in points.items():
        every = max(1, -(-len(labelled) // _MOST_POINTS))
        size = 14 if len(labelled) < 500 else 5 if len(labelled) < 5000 else 2
        rmse = 1e3 * np.sqrt(np.mean((predicted - labelled) ** 2))
        axes.scatter(
            labelled[::every], predicted[::every], s=size, color=colours[name], alpha=0.6, linewidths=0, zorder=2,
            label=f"{name}: RMSE {rmse:.3g} m{what.split('(')[1].rstrip(')')}",
        )  # fmt: skip
    axes.set(xlim=limits, ylim=limits, aspect="equal", xlabel=f"labelled {what}", ylabel=f"predicted {what}")
    axes.legend(loc="upper left", markerscale=1.6)
    return figure


def _marks(seen):
    """Points where there are few of them."""
    return {"marker": "o", "markersize": 3} if seen.sum() <= 40 else {}


def _shade_stage_two(axes, epochs):
    second = epochs["epoch"][epochs["stage"] == 2]
    if len(second):
        axes.axvspan(second[0] - 0.5, second[-1] + 0.5, color="#eef1f5", linewidth=0, zorder=0)
        axes.annotate(
            "stage two", ((second[0] + second[-1]) / 2, 1), xytext=(0, 3), color=QUIET, textcoords="offset points",
            xycoords=("data", "axes fraction"), ha="center", fontsize=8.5,
        )  # fmt: skip
