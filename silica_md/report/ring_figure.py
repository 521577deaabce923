"""The figure of the ring statistics: King, Guttman and primitive rings side by side."""

from __future__ import annotations

import numpy as np

from .style import COLOURS, QUIET, new_figure, styled

_HEIGHT = 3.0  # inches
RING_COLOURS = {"king": COLOURS[0], "guttman": COLOURS[2], "primitive": COLOURS[3]}


@styled
def rings(analysis):
    """Rings per silicon atom by size, one panel for each definition; None where there is no network."""
    found = {criterion: counts for criterion, counts in analysis.rings.items() if counts.any()}
    if not found:
        return None
    figure, panels = new_figure(_HEIGHT, ncols=len(found), sharey=True, squeeze=False)
    sizes = [size for counts in found.values() for size in np.flatnonzero(counts)]
    last = max(len(counts) for counts in found.values()) - 1
    for axes, (criterion, counts) in zip(panels[0], found.items(), strict=True):
        shown = np.arange(min([3, *sizes]), last + 1)
        axes.bar(shown, counts[shown], width=0.78, color=RING_COLOURS[criterion], linewidth=0)
        axes.set_title(criterion.capitalize(), fontsize=10.5, color=RING_COLOURS[criterion], fontweight="bold")
        share = 100 * counts[6] / counts.sum() if len(counts) > 6 else 0.0
        note = f"{counts.sum():.2f} per Si\n{share:.0f} % six-rings"
        axes.text(0.98, 0.97, note, transform=axes.transAxes, ha="right", va="top", fontsize=8.5, color=QUIET)
        axes.set_xticks([size for size in shown if size % 3 == 0] if last > 8 else shown)
        axes.set_xticks(shown, minor=True)
        axes.grid(axis="x", visible=False)
    panels[0, 0].set_ylabel("rings per Si atom")
    figure.supxlabel("ring size (Si atoms)", fontsize=10.5)
    top = max(counts.max() for counts in found.values())
    panels[0, 0].set_ylim(0, 1.28 * top)  # room for the notes above the bars
    return figure
