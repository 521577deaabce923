"""The page of the studies: their words, tables made of the CSV files, and pictures.

    python -m profiling.studies.page        # writes profiling/results/studies/README.md

The words of a study stand in ``profiling/results/studies/NAME.md``; a line ``{table}`` in them is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from silica_md.files import replace_file

from .common import RESULTS, read_table

STUDIES = ("long_range", "size", "dft", "glass", "nve_drift")
HEAD = """# Studies of learned potentials

What long-range layers are worth, on problems small enough for two cores (no GPU; other jobs ran beside them: errors are
reported, no times). Each study is a script in `profiling/studies` that makes its CSV file and picture here again;
this page is `python -m profiling.studies.page`.
"""


def over_seeds(rows: Sequence[dict], column: str, scale: float = 1.0) -> str:
    """Mean and spread of a column over seeds."""
    values = np.array([float(row[column]) for row in rows]) * scale
    mean = f"{values.mean():.3g}" if values.mean() < 1e3 else f"{values.mean():,.0f}"
    return mean if len(values) == 1 else f"{mean} ± {float(f'{values.std():.1g}'):g}"


def forces_and_energy(rows: Sequence[dict]) -> str:
    """Both errors in one cell."""
    return f"{over_seeds(rows, 'rmse_f_meV_per_A')} ({over_seeds(rows, 'rmse_e_meV_per_atom')})" if rows else "–"


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (heads, ["---"] * len(heads), *lines)) + "\n"


def long_range() -> str:
    """Errors of every layer, and over that of SR."""
    parts = []
    for name in ("long_range_charges.csv", "long_range_dimer.csv", "long_range_dimers.csv"):
        rows = read_table(RESULTS / name)
        for data in dict.fromkeys(row["data"] for row in rows):
            mine = [row for row in rows if row["data"] == data]
            short = np.mean([float(row["rmse_f_meV_per_A"]) for row in mine if row["model"] == "SR"])
            lines = []
            for model in dict.fromkeys(row["model"] for row in mine):
                of = [row for row in mine if row["model"] == model]
                columns = [over_seeds(of, f"rmse_{one}") for one in ("e_meV_per_atom", "f_meV_per_A")]
                lines.append([model, str(len(of)), *columns, over_seeds(of, "rmse_f_meV_per_A", 1.0 / short)])
            parts.append(table([data, "seeds", "energy (meV/atom)", "forces (meV/Å)", "forces / SR"], lines))
    return "\n".join(parts)


def by(rows: Sequence[dict], group: str, size: str, unit: str) -> str:
    """Errors of every model by `size`, forces (energies), a block for every `group`."""
    sizes, lines = list(dict.fromkeys(row[size] for row in rows)), []
    for kind in dict.fromkeys(row[group] for row in rows):
        for model in dict.fromkeys(row["model"] for row in rows):
            of = [row for row in rows if (row[group], row["model"]) == (kind, model)]
            lines.append([kind, model, *(forces_and_energy([row for row in of if row[size] == n]) for n in sizes)])
    return table(["", "model", *(f"{int(n):,} {unit}" for n in sizes)], lines)


def nve_drift() -> str:
    """Drift and swing of every run."""
    columns = ("drift_meV_per_atom_ps", "drift_error", "rms_meV_per_atom")
    rows = read_table(RESULTS / "nve_drift_300K.csv")
    lines = [[row["model"], row["dtype"], *(f"{float(row[one]):.2g}" for one in columns)] for row in rows]
    return table(["model", "dtype", "drift (meV/atom/ps)", "its error", "swing, RMS (meV/atom)"], lines)


TABLES: dict[str, Callable[[], str]] = {
    "long_range": long_range,
    "size": lambda: by(read_table(RESULTS / "size.csv"), "sets", "atoms", "atoms"),
    "nve_drift": nve_drift,
    "dft": lambda: by(read_table(RESULTS / "dft.csv"), "tested", "frames", "frames"),
}


def main() -> None:
    """Write the page."""
    parts = [HEAD]
    for name in STUDIES:
        words = RESULTS / f"{name}.md"
        if words.exists():
            text = words.read_text(encoding="utf-8").rstrip() + "\n"
            parts.append(text.replace("{table}\n", TABLES[name]()) if "{table}" in text else text)
    replace_file(RESULTS / "README.md", "\n".join(parts))


if __name__ == "__main__":
    main()
