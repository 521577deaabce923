"""Real DFT: learning curves on Si-ZEO22, short-range against long-range.

    python -m profiling.studies.dft [--seeds 2]

60, 240 and 960 configurations of 90 all-silica zeolites (PBE-D3(BJ), 298–1000 K; the labels hold dispersion, and the
models say so), the same MACE with and without intensive reciprocal-space attention, 600 steps each. Errors on other
frames of the same topologies and on 12 topologies never seen. All crystalline, all tetrahedra, one chemistry: no test
of whether long range matters in a glass, but one of whether the layer does harm.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ase.io
import numpy as np
import torch
from matplotlib.figure import Figure

from silica_md.files import replace_file
from silica_md.report.style import styled
from silica_md.training.settings import Settings

from .common import CACHE, RESULTS, errors, shared_file, trained, write_table

MODELS = {"SR": "sr", "RSA intensive": "rsa"}
SIZES = (60, 240, 960)
STEPS, BATCH = 600, 5
EVALUATED = 100
"""Frames of each set on which errors are taken, evenly spread over it: every topology is among them."""


def subset(size: int) -> Path:
    """A file of `size` training frames; smaller ones are parts of larger ones, and every topology has its share."""
    path = CACHE / "dft" / f"train-{size}.xyz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        frames = [a for part in "ab" for a in ase.io.read(shared_file(f"data/dft/si_zeo22_train_{part}.xyz"), ":")]
        order = np.random.default_rng(1).permutation(len(frames))
        ase.io.write(path, [frames[k] for k in order[:size]], format="extxyz")
    return path


def sets() -> dict[str, list]:
    """The frames that errors are taken on."""
    found = {}
    for name, file in (("same topologies", "valid"), ("new topologies", "test_heldout")):
        frames = ase.io.read(shared_file(f"data/dft/si_zeo22_{file}.xyz"), ":")
        found[name] = [frames[k] for k in np.linspace(0, len(frames) - 1, EVALUATED).astype(int)]
    return found


def learning_curves(seeds: int) -> list[dict]:
    """Train at every size; one seed at the largest."""
    rows, tested = [], sets()
    valid = CACHE / "dft" / "valid.xyz"
    subset(SIZES[0])
    if not valid.exists():
        ase.io.write(valid, tested["same topologies"][::4], format="extxyz")
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
                    row = {"tested": label, "frames": size, "model": name, "seed": seed, **errors(model, frames)}
                    rows.append(row)
                    print(row, flush=True)
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
                ax.loglog(SIZES, means, line, color=f"C{place}", label=f"{name}, {tested}")
                ax.plot([row["frames"] for row in mine], [row[column] for row in mine], "o", color=f"C{place}", ms=3)
        ax.set_xticks(SIZES, [str(size) for size in SIZES])
        ax.minorticks_off()
        ax.set_xlabel("training frames")
        ax.set_ylabel(f"RMS error, {label}")
        ax.legend(fontsize=7)
    return drawing


def main(arguments: list[str] | None = None) -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = learning_curves(options.seeds)
    write_table(options.out / "dft.csv", rows)
    replace_file(options.out / "dft.png", figure(rows))


if __name__ == "__main__":
    main()
