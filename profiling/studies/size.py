"""Does a model trained on 128 atoms mean the same at 1,024 and 6,144? Published norms against intensive ones.

    python -m profiling.studies.size [--seeds 3]

The models of `profiling.studies.long_range` (random charges, trained at 128), evaluated on supercells, where every
energy per atom and every force is that of the small cell, and on independent samples at the same density.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ase.io
import numpy as np
import torch
from matplotlib.figure import Figure

from silica_md import models
from silica_md.files import replace_file
from silica_md.report.style import styled

from .common import CACHE, LAYERS, RESULTS, errors, write_table
from .long_range import seeds_of

SETS = {
    "supercells": ("test", "supercell", "supercell_large"),
    "independent samples": ("test", "large", "huge"),
}
SIZES = (128, 1024, 6144)
FRAMES = (10, 10, 2)
"""How many configurations of each size are evaluated: supercells are of the first of the test set."""


def evaluated(seeds: int) -> list[dict]:
    """Errors at every size of every model there is."""
    rows = []
    for name in LAYERS:
        for seed in seeds_of(name, seeds):
            path = CACHE / "long_range" / f"charges {name} {seed}" / "model.json"
            if not path.exists():
                print(f"{name}, seed {seed}: not trained, left out", flush=True)
                continue
            model, _ = models.load(path)
            for kind, files in SETS.items():
                for file, size, count in zip(files, SIZES, FRAMES, strict=True):
                    frames = ase.io.read(CACHE / "random_charges" / f"{file}.xyz", f":{count}")
                    rows.append({"sets": kind, "atoms": size, "model": name, "seed": seed, **errors(model, frames)})
                    print(rows[-1], flush=True)
    return rows


@styled
def figure(rows: list[dict]) -> Figure:
    """Errors by size, mean over seeds."""
    drawing = Figure(figsize=(9.0, 7.0), layout="constrained")
    axes = drawing.subplots(2, 2, sharex=True)
    columns = {"rmse_e_meV_per_atom": "energy (meV/atom)", "rmse_f_meV_per_A": "forces (meV/Å)"}
    for down, (column, label) in zip(axes, columns.items(), strict=True):
        for ax, kind in zip(down, SETS, strict=True):
            for name in LAYERS:
                mine = [row for row in rows if row["sets"] == kind and row["model"] == name]
                if not mine:
                    continue
                values = [np.mean([row[column] for row in mine if row["atoms"] == size]) for size in SIZES]
                ax.loglog(SIZES, values, marker="o", label=name, ls="--" if "published" in name else "-")
            ax.set_ylabel(f"RMS error, {label}")
            ax.set_title(kind)
            ax.set_xticks(SIZES, [f"{size:,}" for size in SIZES])
            ax.minorticks_off()
    for ax in axes[-1]:
        ax.set_xlabel("atoms")
    drawing.legend(*axes[0, 1].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)
    return drawing


def main(arguments: list[str] | None = None) -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = evaluated(options.seeds)
    write_table(options.out / "size.csv", rows)
    replace_file(options.out / "size.png", figure(rows))


if __name__ == "__main__":
    main()
