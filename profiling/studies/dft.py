"""Real DFT: learning curves on Si-ZEO22, short-range against long-range.

    python -m profiling.studies.dft [--seeds 1]

60, 240 and 960 configurations of 90 all-silica zeolites (PBE-D3(BJ), 298–1000 K; the labels hold dispersion, and the
models say so), the same MACE with and without intensive reciprocal-space attention, as many steps each (600, or 576
where epochs do not divide it; a step costs more with the layer). Nothing is trained to convergence. Errors on other
frames of the same topologies and on 12 topologies never seen, whole and by topology (dft_topologies.csv). All
crystalline, all tetrahedra, one chemistry: no test of whether long range matters in a glass, but one of whether the
layer does harm.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import ase.io
import numpy as np
import torch
from matplotlib.figure import Figure

from silica_md.files import replace_file
from silica_md.labelled import ENERGY, FORCES
from silica_md.report.style import styled
from silica_md.training.settings import Settings

from .common import CACHE, RESULTS, predictions, rms, shared_file, trained, write_table

MODELS = {"SR": "sr", "RSA intensive": "rsa"}
SIZES = (60, 240, 960)
STEPS, BATCH = 600, 5
EVALUATED = 100
"""Frames of each set on which errors are taken, evenly spread over it."""

VALIDATED = 25
"""Frames that choose the best epoch: of the topologies trained on, and none of them among those evaluated."""


def training_order(topologies: Sequence[str], seed: int = 1) -> list[int]:
    """Places of all frames in the order in which they are taken; every topology once before any is taken twice.

    So smaller training sets are parts of larger ones, and no topology has two frames more than another.
    """
    order = np.random.default_rng(seed).permutation(len(topologies))
    taken, times = Counter(), {}
    for k in order.tolist():
        times[k] = taken[topologies[k]]
        taken[topologies[k]] += 1
    return sorted(order.tolist(), key=times.__getitem__)


def spread(length: int, count: int) -> list[int]:
    """`count` places, evenly spread over a list."""
    return np.linspace(0, length - 1, count).astype(int).tolist()


def subset(size: int) -> Path:
    """A file of `size` training frames."""
    path = CACHE / "dft" / f"train-{size}.xyz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        frames = [a for part in "ab" for a in ase.io.read(shared_file(f"data/dft/si_zeo22_train_{part}.xyz"), ":")]
        order = training_order([atoms.info["config_type"] for atoms in frames])
        ase.io.write(path, [frames[k] for k in order[:size]], format="extxyz")
    return path


def sets() -> tuple[dict[str, list], list]:
    """The frames that errors are taken on, and those that choose the best epoch."""
    valid = ase.io.read(shared_file("data/dft/si_zeo22_valid.xyz"), ":")
    new = ase.io.read(shared_file("data/dft/si_zeo22_test_heldout.xyz"), ":")
    same = spread(len(valid), EVALUATED)
    rest = sorted(set(range(len(valid))) - set(same))
    tested = {
        "same topologies": [valid[k] for k in same],
        "new topologies": [new[k] for k in spread(len(new), EVALUATED)],
    }
    return tested, [valid[rest[k]] for k in spread(len(rest), VALIDATED)]


def figures(frames: Sequence, found: Sequence[tuple[float, np.ndarray]]) -> dict[str, float]:
    """Errors of predicted energies (meV/atom) and force components (meV/Å)."""
    energy = 1e3 * np.array([(e - a.info[ENERGY]) / len(a) for a, (e, _) in zip(frames, found, strict=True)])
    labels = 1e3 * np.concatenate([atoms.arrays[FORCES] for atoms in frames])
    off = 1e3 * np.concatenate([forces for _, forces in found]) - labels
    return {
        "rmse_e_meV_per_atom": rms(energy),
        "mae_e_meV_per_atom": float(np.abs(energy).mean()),
        "mean_e_meV_per_atom": float(energy.mean()),
        "rmse_f_meV_per_A": rms(off),
        "mae_f_meV_per_A": float(np.abs(off).mean()),
        "rms_f_meV_per_A": rms(labels),
    }


def by_topology(frames: Sequence, found: Sequence[tuple[float, np.ndarray]]) -> list[dict]:
    """The same for the frames of each topology."""
    rows = []
    for topology in sorted({atoms.info["config_type"] for atoms in frames}):
        mine = [k for k, atoms in enumerate(frames) if atoms.info["config_type"] == topology]
        rows.append({"topology": topology, **figures([frames[k] for k in mine], [found[k] for k in mine])})
    return rows


def learning_curves(seeds: int, out: Path) -> list[dict]:
    """Train at every size; one seed at the largest. The tables are written anew after every model."""
    rows, topologies = [], []
    tested, validation = sets()
    valid = CACHE / "dft" / "valid.xyz"
    subset(SIZES[0])
    if not valid.exists():
        ase.io.write(valid, validation, format="extxyz")
    for size in SIZES:
        for name, kind in MODELS.items():
            for seed in range(1, 2 if size == SIZES[-1] else seeds + 1):
                epochs = STEPS * BATCH // size
                settings = Settings(
                    train_file=(str(subset(size)),),
                    valid_file=(str(valid),),
                    labels_contain_dispersion="PBE-D3(BJ)",
                    allow_small_cells=True,
                    model=kind,
                    r_max=5.0,
                    hidden_irreps="16x0e",
                    max_ell=2,
                    correlation=2,
                    radial_MLP=(32, 32),
                    batch_size=BATCH,
                    lr=0.01,
                    scheduler="ExponentialLR",
                    lr_scheduler_gamma=0.05 ** (1.0 / epochs),
                    ema=True,
                    energy_weight=10.0,
                    forces_weight=100.0,
                    max_num_epochs=epochs,
                    eval_interval=max(1, epochs // 5),
                    default_dtype="float32",
                    seed=seed,
                    threads=1,
                    device="cpu",
                )
                model, _ = trained(settings, CACHE / "dft" / f"{kind} {size} {seed}")
                for label, frames in tested.items():
                    found = predictions(model, frames)
                    what = {"tested": label, "frames": size, "model": name, "seed": seed}
                    rows.append(what | figures(frames, found))
                    print(rows[-1], flush=True)
                    if label == "new topologies":
                        topologies += [what | row for row in by_topology(frames, found)]
                write_table(out / "dft.csv", rows)
                write_table(out / "dft_topologies.csv", topologies)
    return rows


@styled
def figure(rows: list[dict]) -> Figure:
    """Learning curves of energies and forces."""
    drawing = Figure(figsize=(9.0, 4.0), layout="constrained")
    columns = {"rmse_e_meV_per_atom": "energy (meV/atom)", "rmse_f_meV_per_A": "forces (meV/Å)"}
    for ax, (column, label) in zip(drawing.subplots(1, 2), columns.items(), strict=True):
        for place, name in enumerate(MODELS):
            for tested, line in (("same topologies", "--"), ("new topologies", "-")):
                mine = [row for row in rows if row["model"] == name and row["tested"] == tested]
                means = [np.mean([row[column] for row in mine if row["frames"] == size]) for size in SIZES]
                ax.semilogx(SIZES, means, line, color=f"C{place}", label=f"{name}, {tested}")
                ax.plot([row["frames"] for row in mine], [row[column] for row in mine], "o", color=f"C{place}", ms=3)
        ax.set_xticks(SIZES, [str(size) for size in SIZES])
        ax.minorticks_off()
        ax.set_xlabel("training frames")
        ax.set_ylim(bottom=0.0)
        ax.set_ylabel(f"RMS error, {label}")
        ax.legend(fontsize=7, loc="lower left")
    return drawing


def main(arguments: list[str] | None = None) -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = learning_curves(options.seeds, options.out)
    replace_file(options.out / "dft.png", figure(rows))


if __name__ == "__main__":
    main()
