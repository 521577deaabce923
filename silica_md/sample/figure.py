"""One picture of a training set: what was chosen over all there was."""

from __future__ import annotations

import numpy as np
import torch

import rsa_kernels as rk
from rsa_kernels.units import EV_PER_A3_IN_GPA

from ..analysis.composition import Composition, label, mass_density
from ..labelled import ENERGY, FORCES, STRESS
from ..report.style import QUIET, new_figure, pair_label, styled
from .frames import REGIMES, Candidates

_SETS = {"train": "#d55e00", "valid": "#0072b2", "test": "#009e73"}
_REGIMES = dict(zip(REGIMES, ("#d55e00", "#e69f00", "#0072b2"), strict=True))
R_MAX, DR = 6.0, 0.05


@styled
def draw(found: Candidates, chosen: dict[str, np.ndarray]):
    """Energy against temperature, pressure against density, spread of g(r), distribution of forces."""
    figure, axes = new_figure(10.5, nrows=4)
    energy = np.array([atoms.info[ENERGY] / len(atoms) for atoms in found.atoms])
    pressure = np.array([-np.trace(atoms.info[STRESS]) / 3.0 for atoms in found.atoms]) * EV_PER_A3_IN_GPA
    density = np.array([mass_density(atoms) for atoms in found.atoms])
    _scatter(axes[0], found.temperature, energy, chosen)
    axes[0].set(xlabel="temperature asked for (K)", ylabel="energy (eV/atom)")
    axes[0].legend(loc="best", markerscale=2)
    _scatter(axes[1], density, pressure, chosen)
    axes[1].set(xlabel="density (g/cm³)", ylabel="−tr σ/3 (GPa), atoms at rest")
    _pair_distributions(axes[2], found, chosen["train"])
    _forces(axes[3], found, chosen["train"])
    return figure


def _scatter(axes, x, y, chosen):
    axes.plot(x, y, ".", color="#c3cad3", markersize=3, label="frames of the runs", zorder=1)
    for name, members in chosen.items():
        if len(members):
            axes.plot(x[members], y[members], ".", color=_SETS[name], markersize=4, label=name, zorder=2)


def _pair_distributions(axes, found, members):
    """Mean and range over the train configurations of the most common composition, by regime."""
    group = np.bincount(found.group[members]).argmax()
    members = [index for index in members if found.group[index] == group]
    composition = Composition.of(found.atoms[members[0]])
    found_curves: dict[str, dict] = {}
    for regime in _REGIMES:
        of_regime = [found.atoms[k] for k in members if found.atoms[k].info["config_type"] == regime]
        if not of_regime:
            continue
        curves = {pair: [] for pair in composition.pairs}
        for atoms in of_regime:
            g = rk.pair_distribution(
                torch.tensor(atoms.positions), torch.tensor(atoms.cell.array), torch.tensor(atoms.numbers), R_MAX, DR
            )
            for (a, b), partial in zip(g.pairs, g.partials.numpy(), strict=True):
                curves[_named(composition, a, b)].append(partial)
        r = g.r.numpy()
        found_curves[regime] = {pair: np.array(rows) for pair, rows in curves.items()}
    for number, pair in enumerate(composition.pairs):
        lift = 1.4 * number
        highest = max(curves[pair].mean(axis=0).max() for curves in found_curves.values())
        for regime, curves in found_curves.items():
            rows, colour = curves[pair] / highest, _REGIMES[regime]
            low, high = rows.min(axis=0), rows.max(axis=0)
            axes.fill_between(r, lift + low, lift + high.clip(max=1.3), color=colour, alpha=0.15, linewidth=0)
            axes.plot(r, lift + rows.mean(axis=0), color=colour, linewidth=1.0, label=regime if number == 0 else None)
        axes.annotate(f"{pair_label(label(*pair))} / {highest:.1f}", (R_MAX, lift + 0.5), ha="right", fontsize=9)
    axes.set(xlabel="r (Å)", ylabel="g(r), mean and range", xlim=(1.0, R_MAX), ylim=(-0.1, lift + 1.9))
    axes.set_yticks([])
    axes.legend(loc="upper right", ncols=3)


def _named(composition, first, second):
    from ase.data import chemical_symbols

    names = (chemical_symbols[first], chemical_symbols[second])
    return names if names in composition.pairs else names[::-1]


def _forces(axes, found, members):
    """Histogram of force components by regime."""
    largest = max(float(np.abs(found.atoms[k].arrays[FORCES]).max()) for k in members)
    edges = np.linspace(-largest, largest, 121)
    for regime, colour in _REGIMES.items():
        forces = [
            found.atoms[k].arrays[FORCES].ravel() for k in members if found.atoms[k].info["config_type"] == regime
        ]
        if forces:
            forces = np.concatenate(forces)
            rms = np.sqrt((forces**2).mean())
            axes.hist(forces, edges, density=True, histtype="step", color=colour, label=f"{regime}, rms {rms:.2f} eV/Å")
    axes.set_yscale("log")
    axes.set_ylim(top=30.0 * axes.get_ylim()[1])  # room for the legend
    axes.set(xlabel="component of a force (eV/Å)", ylabel="density (Å/eV)")
    axes.tick_params(colors=QUIET)
    axes.legend(loc="upper right")
