"""What is asked of a silica glass, and whether it is met: plain words beside the rows of the summary
table."""

from __future__ import annotations

from typing import NamedTuple

from ..analysis import Analysis, goodness, measured


class Verdict(NamedTuple):
    """One judgement.

    Attributes
    ----------
    quantity : str
        The row of `Analysis.summary_rows` it belongs to.
    met : bool
    text : str
        What was found.
    asked : str
        What is asked.
    """

    quantity: str
    met: bool
    text: str
    asked: str


def verdicts(analysis: Analysis) -> list[Verdict]:
    """Judge an analysis; only what can be judged for its composition is in the list."""
    found = []
    reference = None if analysis.na2o_fraction is None else measured.density(analysis.na2o_fraction)
    if reference is not None:
        found.append(_density(analysis.density, reference))
    if "Si-O" in analysis.coordination:
        share = 100 * analysis.coordination["Si-O"].get(4, 0.0)
        text = "whole network" if share >= 98 else "broken network"
        found.append(Verdict("fourfold Si", share >= 98, text, "at least 98 %"))
    if analysis.measured:
        length = analysis.bond_length["Si-O"][0] if "Si-O" in analysis.bond_length else None
        found.append(_between("Si–O bond length", length, 1.60, 1.64, "Å", "too short", "too long"))
        found.append(
            _between(
                "first sharp diffraction peak, position",
                analysis.fsdp["position"],
                1.45,
                1.75,
                "Å⁻¹",
                "too low",
                "too high",
            )
        )
        low, high = goodness.Q_RANGE
        found.append(_at_most(f"R_χ of S(Q), {low:g}–{high:g} Å⁻¹", analysis.r_chi_sq, 0.10))
    return found


def _density(value, reference, limit=4):
    percent = 100 * (value / reference - 1)
    met = abs(percent) <= limit
    text = f"{abs(percent):.1f}\u00a0% too {'dense' if percent > 0 else 'light'}"
    if met:
        text = f"agrees ({percent:+.1f}\u00a0%)"
    return Verdict("density", met, text, f"within {limit} %")


def _between(quantity, value, low, high, unit, below, above):
    asked = f"{low:.2f}–{high:.2f} {unit}"
    if value is None:
        return Verdict(quantity, False, "not found", asked)
    return Verdict(quantity, low <= value <= high, below if value < low else above if value > high else "agrees", asked)


def _at_most(quantity, value, limit):
    asked = f"at most {limit:.2f}"
    if value is None:
        return Verdict(quantity, False, "not known over the whole range", asked)
    return Verdict(quantity, value <= limit, "agrees" if value <= limit else "above the limit", asked)
