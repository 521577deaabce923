"""How well learned potentials conserve energy: drift along 10 ps at constant energy, float64 and float32.

    python -m profiling.studies.nve_drift SR=sr/model.safetensors RSA=rsa/model.safetensors --start glass.xyz

A glass of some hundred atoms is brought to a temperature by the model itself and let go: velocity Verlet of 1 fs. The
drift is the slope of a straight line through the total energy, in meV an atom and ps; its error is that of the slopes
of ten pieces. The rest of the total energy about that line is what the time step makes it swing. Series are kept in
profiling/.cache, so that runs can be made one at a time (`--only`) and the table at the end.
"""

from __future__ import annotations

import argparse
import io

import ase.io
import numpy as np
import torch
from matplotlib.figure import Figure

from silica_md.files import replace_file
from silica_md.forcefield import ForceField
from silica_md.integrators import Langevin, VelocityVerlet
from silica_md.potentials import build
from silica_md.report.style import styled
from silica_md.state import State

from .common import CACHE, RESULTS, write_table

TIMESTEP, EVERY = 1.0, 10  # fs, steps
SETTLE = 500  # steps of Langevin before
PIECES = 10
DTYPES = ("float64", "float32")


def series(path: str, dtype: str, start: str, temperature: float, ps: float) -> np.ndarray:
    """Time (ps), potential and kinetic energy (eV an atom) of a run at constant energy."""
    state = State.from_ase(ase.io.read(start))
    state.velocities.zero_()
    state.thermalize(temperature, seed=1)
    field = ForceField(build(f"mace:{path}", state.atomic_numbers, dtype=dtype))
    warm = Langevin(TIMESTEP, temperature, relaxation=100.0, seed=2)
    for _ in range(SETTLE):
        warm.step(state, field)
    state.remove_momentum()
    free, rows = VelocityVerlet(TIMESTEP), []
    for step in range(1, round(1000.0 * ps / TIMESTEP) + 1):
        looked = step % EVERY == 0
        found = free.step(state, field, energy=looked)
        if looked:
            rows.append((1e-3 * TIMESTEP * step, float(found.energy), float(state.kinetic_energy())))
    return np.array(rows) / np.array([1.0, state.n_atoms, state.n_atoms])


def drift(rows: np.ndarray) -> dict:
    """Drift and swing of the total energy, meV an atom (and ps)."""
    time, total = rows[:, 0], 1e3 * (rows[:, 1] + rows[:, 2])
    slope, offset = np.polyfit(time, total, 1)
    pieces = [np.polyfit(t, e, 1)[0] for t, e in zip(np.split(time, PIECES), np.split(total, PIECES), strict=True)]
    # Slopes of pieces are PIECES times as uncertain as that of the whole by their length, and as many to average.
    error = np.std(pieces, ddof=1) / PIECES**1.5
    swing = np.std(total - slope * time - offset)
    return {"drift_meV_per_atom_ps": slope, "drift_error": error, "rms_meV_per_atom": swing}


@styled
def figure(found: dict[tuple[str, str], np.ndarray]) -> Figure:
    """Total energies against time, one panel a model."""
    names = list(dict.fromkeys(name for name, _ in found))
    drawing = Figure(figsize=(5.0 * len(names), 3.6), layout="constrained")
    panels = drawing.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        for (mine, dtype), rows in found.items():
            if mine == name:
                total = 1e3 * (rows[:, 1] + rows[:, 2])
                axes.plot(rows[:, 0], total - total[: len(total) // PIECES].mean(), label=dtype, linewidth=0.8)
        axes.set(title=name, xlabel="time (ps)")
    panels[0].set_ylabel("total energy (meV/atom)")
    panels[0].legend()
    return drawing


def main() -> None:
    """Run what has not been run, then write the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME=PATH", help="what a model is called, and its file")
    parser.add_argument("--start", required=True, help="a structure of 96 to 200 atoms")
    parser.add_argument("--temperature", type=float, default=300.0)
    parser.add_argument("--ps", type=float, default=10.0)
    parser.add_argument("--only", help="one run, such as SR:float32, and no table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found, rows = {}, []
    for name, path in (model.split("=", 1) for model in options.models):
        for dtype in DTYPES:
            if options.only not in (None, f"{name}:{dtype}"):
                continue
            kept = CACHE / "nve_drift" / f"{name}-{dtype}-{options.temperature:g}K-{options.ps:g}ps.npy"
            if not kept.exists():
                kept.parent.mkdir(parents=True, exist_ok=True)
                buffer = io.BytesIO()
                np.save(buffer, series(path, dtype, options.start, options.temperature, options.ps))
                replace_file(kept, buffer.getvalue())
            found[name, dtype] = np.load(kept)
            about = {"model": name, "dtype": dtype, "temperature_K": options.temperature, "ps": options.ps}
            rows.append(about | {"timestep_fs": TIMESTEP} | drift(found[name, dtype]))
            print(rows[-1], flush=True)
    if options.only is None:
        write_table(RESULTS / f"nve_drift_{options.temperature:g}K.csv", rows)
        replace_file(RESULTS / f"nve_drift_{options.temperature:g}K.png", figure(found))


if __name__ == "__main__":
    main()
