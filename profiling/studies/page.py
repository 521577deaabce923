"""The page of the studies: their words, tables made of the CSV files, and pictures.

    python -m profiling.studies.page        # writes profiling/results/studies/README.md

The words of a study stand in ``profiling/results/studies/NAME.md``; a line ``{size}`` in them is replaced by that of
`TABLES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import ttest_ind

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
    mean = f"{values.mean():.3g}" if values.mean() < 1e3 else f"{float(f'{values.mean():.4g}'):,.0f}"
    if len(values) == 1:
        return mean
    # Seeds that agree to all digits of the table differ by rounding.
    spread = 0.0 if values.std() < 1e-4 * abs(values.mean()) else float(f"{values.std():.1g}")
    return f"{mean} ± {f'{spread:,.0f}' if spread >= 1e3 else f'{spread:g}'}"


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


def glass_errors() -> str:
    """Errors of the models of the glass study, by size and kind of the test frames."""
    columns = (
        ("energy, mean off (meV/atom)", "mean_e_meV_per_atom", ".1f"),
        ("energy RMSE (meV/atom)", "rmse_e_meV_per_atom", ".1f"),
        ("force RMSE (meV/Å)", "rmse_f_meV_per_A", ".0f"),
        ("relative (%)", "relative_f_percent", ".1f"),
        ("stress RMSE (meV/Å³)", "rmse_stress_meV_per_A3", ".2f"),
        ("pressure, mean off (GPa)", "mean_pressure_error_GPa", ".2f"),
    )
    lines = [
        [
            f"{NAMES[row['potential']]}, {row['atoms']} atoms, {row['of']}",
            *(f"{float(row[column]):{digits}}" for _, column, digits in columns),
        ]
        for row in read_table(RESULTS / "glass_errors.csv")
    ]
    return table(["", *(head for head, _, _ in columns)], lines)


def glasses() -> str:
    """Structure of the glasses, mean and spread over seeds; p of Welch's t-test of a model against the teacher."""
    rows, distances = read_table(RESULTS / "glass.csv"), read_table(RESULTS / "glass_distances.csv")
    r_chi = {(row["potential"], row["seed"]): row["r_chi_1_to_10_1_A"] for row in distances}
    rows = [row | {"r_chi": r_chi[row["potential"], row["seed"]]} for row in rows]
    kinds = list(dict.fromkeys(row["potential"] for row in rows))
    heads = [f"{NAMES[kind]} ({sum(row['potential'] == kind for row in rows)})" for kind in kinds]
    lines = []
    for label, column, scale in GLASS:
        of = {kind: [row for row in rows if row["potential"] == kind] for kind in kinds}
        values = {kind: [float(row[column]) for row in of[kind]] for kind in kinds}
        chance = [ttest_ind(values["teacher"], values[kind], equal_var=False).pvalue for kind in ("sr", "rsa")]
        lines.append([label, *(over_seeds(of[kind], column, scale) for kind in kinds), *(f"{p:.2g}" for p in chance)])
    return table(["", *heads, "p, SR", "p, LR"], lines)


NAMES = {
    "teacher": "teacher",
    "teacher-slow": "teacher, 100 K/ps",
    "sr": "SR",
    "rsa": "LR",
    "sr-96": "SR trained at 96",
    "rsa-96": "LR trained at 96",
}
GLASS = (
    ("density (g/cm³)", "density_g_cm3", 1.0),
    ("first peak of S(Q), position (1/Å)", "fsdp_position_1_A", 1.0),
    ("its height", "fsdp_height", 1.0),
    ("Si–O–Si angle, mean (°)", "si_o_si_mean_deg", 1.0),
    ("Si–O–Si angle, width (°)", "si_o_si_width_deg", 1.0),
    ("fourfold Si (%)", "si_fourfold", 100.0),
    *((f"{size}-rings per Si", f"rings_{size}_per_si", 1.0) for size in range(3, 9)),
    ("R_χ of S(Q) from the teacher's, 1–10 1/Å", "r_chi", 1.0),
    ("Si–O bonds of the start (%)", "bonds_of_start", 100.0),
    ("temperature of the hold (K)", "hold_K", 1.0),
)
TABLES: dict[str, Callable[[], str]] = {
    "long_range": long_range,
    "size": lambda: by(read_table(RESULTS / "size.csv"), "sets", "atoms", "atoms"),
    "nve_drift": nve_drift,
    "dft": lambda: by(read_table(RESULTS / "dft.csv"), "tested", "frames", "frames"),
    "glass_errors": glass_errors,
    "glass": glasses,
}


def main() -> None:
    """Write the page."""
    parts = [HEAD]
    for name in STUDIES:
        words = RESULTS / f"{name}.md"
        if words.exists():
            text = words.read_text(encoding="utf-8").rstrip() + "\n"
            for key, made in TABLES.items():
                if f"{{{key}}}\n" in text:
                    text = text.replace(f"{{{key}}}\n", made())
            parts.append(text)
    replace_file(RESULTS / "README.md", "\n".join(parts))


if __name__ == "__main__":
    main()
