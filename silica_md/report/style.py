"""How every figure looks: size, fonts, colours that stay apart for colour-blind readers; and how it is
saved."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

MEASURED, SIMULATED, QUIET = "#16191d", "#d55e00", "#6b7480"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito
_KNOWN = {"Si-Si": 0, "Si-O": 1, "O-O": 2, "Na-O": 3, "Na-Si": 4, "Na-Na": 5, "O-Si-O": 0, "Si-O-Si": 1}
WIDTH = 5.6  # inches; two stand side by side on a screen, one fills a phone
DPI = 200

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.labelsize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.edgecolor": "#3a4049",
    "axes.labelcolor": MEASURED,
    "text.color": MEASURED,
    "xtick.color": "#3a4049",
    "ytick.color": "#3a4049",
    "xtick.direction": "out",
    "ytick.direction": "out",
    "axes.grid": True,
    "grid.color": "#e6e9ed",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "lines.linewidth": 1.5,
    "lines.solid_joinstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "legend.handlelength": 1.6,
    "mathtext.fontset": "dejavusans",
}


def new_figure(height: float, **grid) -> tuple[Figure, np.ndarray]:
    """Return a figure of the common width and its axes; `grid` as for ``Figure.subplots``."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(**grid)


def to_png(figure: Figure) -> bytes:
    """Return the figure as PNG, without the time of day in it: the same data give the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def styled(draw):
    """Decorate a function that draws a figure, so that it runs under `STYLE` and returns PNG bytes."""

    def drawn(*arguments):
        with rc_context(STYLE):
            figure = draw(*arguments)
            return None if figure is None else to_png(figure)

    drawn.__name__, drawn.__doc__ = draw.__name__, draw.__doc__
    return drawn


def colours_of(names: Iterable[str]) -> dict[str, str]:
    """Give each pair or triple of elements a colour; the common ones have the same in every report."""
    left = [k for k in range(len(COLOURS)) if k not in {_KNOWN.get(name) for name in names}] or [0]
    unknown = (name for name in names if name not in _KNOWN)
    order = _KNOWN | {name: left[k % len(left)] for k, name in enumerate(unknown)}
    return {name: COLOURS[order[name]] for name in names}


def pair_label(name: str) -> str:
    """Write a pair or triple of elements with en dashes: "Si-O" becomes "Si–O"."""
    return name.replace("-", "–")
