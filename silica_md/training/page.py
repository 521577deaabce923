"""The page of a training: errors, curves and plots, what the data were, and how to do it again."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template

import numpy as np

from ..files import replace_file
from ..observers import format_duration
from ..report import markup
from ..report.toml import as_toml
from . import figures
from .evaluate import Predictions
from .folder import TrainingFolder
from .frames import Frame

_NAMES = {"sr": "short-range", "rsa": "RSA", "rsga": "RSGA", "sog": "SOG-Net", "latent_ewald": "latent Ewald"}
_SETS = {
    "train": "the frames learned from",
    "valid": "the frames that chose the best epoch",
    "test": "frames that had no part in the training",
}
_COLUMNS = (
    ("frames", "frames", "{:,}"),
    ("atoms", "atoms", "{:,}"),
    ("rmse_e_meV_per_atom", "energy RMSE (meV/atom)", "{:.2f}"),
    ("mae_e_meV_per_atom", "energy MAE (meV/atom)", "{:.2f}"),
    ("rmse_f_meV_per_A", "force RMSE (meV/Å)", "{:.1f}"),
    ("mae_f_meV_per_A", "force MAE (meV/Å)", "{:.1f}"),
    ("relative_rmse_f_percent", "force RMSE (% of RMS)", "{:.1f}"),
    ("rmse_stress_meV_per_A3", "stress RMSE (meV/Å³)", "{:.3f}"),
    ("mae_stress_meV_per_A3", "stress MAE (meV/Å³)", "{:.3f}"),
)


def write_page(
    folder: TrainingFolder,
    frames: Mapping[str, Sequence[Frame]],
    predictions: Mapping[str, Predictions],
    errors: Mapping[str, list[dict]],
    energies: Mapping[int, float],
    facts: Mapping,
) -> None:
    """Write ``report.html``, which refers to no other file, and its figures as ``report/*.png``.

    Parameters
    ----------
    folder : TrainingFolder
    frames, predictions, errors : dict
        By set: "train", "valid", "test".
    energies : dict
        Energies of the isolated atoms, eV.
    facts : mapping
        What ``summary.json`` holds: settings, sums of the data files, versions, epochs.
    """
    (folder.path / "report").mkdir(exist_ok=True)
    epochs = read_epochs(folder)

    def shown(name: str, png: bytes | None, title: str, caption: str) -> str:
        if png is None:
            return ""
        replace_file(folder.path / "report" / f"{name}.png", png)
        return markup.figure(png, title, caption)

    settings = facts["settings"]
    tested = "test" if "test" in frames else "validation"
    parity = (
        shown(
            "energy_parity",
            figures.energy_parity(frames, predictions, energies),
            "Energies",
            "Energy an atom beyond that of the isolated atoms (E0s), predicted against labelled, a point a frame.",
        ),
        shown(
            "force_parity",
            figures.force_parity(frames, predictions),
            "Forces",
            f"Force components of the {tested} frames, predicted against labelled, by element.",
        ),
        shown(
            "stress_parity",
            figures.stress_parity(frames, predictions),
            "Stresses",
            "All components, predicted against labelled; positive in tension.",
        ),
    )
    averaged = " Evaluated with the moving average of the weights." if settings["ema"] else ""
    curves = (
        shown(
            "learning_curve",
            figures.learning_curve(epochs),
            "Loss",
            f"Training: mean over the steps of the epoch. Validation: after it, over all frames.{averaged}",
        ),
        shown(
            "error_curve", figures.error_curve(epochs), "Errors", "Root mean square errors of the validation frames."
        ),
        shown("learning_rate", figures.learning_rate(epochs), "Learning rate", "Of the optimizer in every epoch."),
    )
    sections = (
        markup.section("Errors", _table(_without_kinds(errors)), _explained(errors)),
        markup.section("Predicted and labelled", markup.group("figures", filter(None, parity))),
        markup.section("Learning", markup.group("figures", filter(None, curves))),
        _kinds_section(errors),
        markup.section("The data", markup.bullets(_data_lines(folder))),
        _making_section(settings, facts),
    )
    resources = files("silica_md.report")
    name = escape(folder.path.resolve().name)
    heading = f"MACE, {_NAMES[settings['model']]}"
    page = Template((resources / "page.html").read_text(encoding="utf-8")).substitute(
        title=f"{heading} · {name}",
        style=(resources / "page.css").read_text(encoding="utf-8"),
        heading=heading,
        lead=_lead(facts, errors),
        body="\n".join(filter(None, sections)),
        footer=f"Made by silica_md from <code>{name}</code>. The same for machines: <code>summary.json</code>, "
        "<code>errors.csv</code>, <code>epochs.csv</code>.",
    )
    replace_file(folder.report, page)


def read_epochs(folder: TrainingFolder) -> dict[str, np.ndarray]:
    """Columns of ``epochs.csv``; NaN where a cell is empty."""
    with open(folder.epochs, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}


def _lead(facts, errors):
    judged = errors.get("test", errors["valid"])[0]
    parts = [
        f"{judged[key]:.{digits}f} {unit}"
        for key, digits, unit in (("rmse_e_meV_per_atom", 2, "meV/atom"), ("rmse_f_meV_per_A", 1, "meV/Å"))
        if judged[key] is not None
    ]
    which = "test" if "test" in errors else "validation"
    return (
        f"RMSE of the {which} frames: {' and '.join(parts)}. Best epoch {facts['best_epoch']} of {facts['epochs']}, "
        f"{facts['steps']:,} steps in {format_duration(facts['seconds'])}."
    )


def _without_kinds(errors):
    return {name: [row for row in rows if not row["of"].startswith("config_type")] for name, rows in errors.items()}


def _explained(errors):
    words = "; ".join(f"{name}: {_SETS[name]}" for name in errors)
    return f'<p class="note">{escape(words)}. Forces by component; a row of an element is of its atoms.</p>'


def _kinds_section(errors):
    """Errors of every kind of configuration, the largest first."""
    kinds = {}
    for name, rows in errors.items():
        chosen = [row | {"of": row["of"].removeprefix("config_type ")} for row in rows if "config_type" in row["of"]]
        kinds[name] = sorted(chosen, key=lambda row: -(row["rmse_f_meV_per_A"] or row["rmse_e_meV_per_atom"] or 0.0))
    kinds = {name: rows for name, rows in kinds.items() if rows}
    return markup.section("By kind of configuration", _table(kinds)) if kinds else ""


def _table(errors):
    columns = [
        (key, title, form)
        for key, title, form in _COLUMNS
        if any(row[key] is not None for rows in errors.values() for row in rows)
    ]
    titles = [escape(title).replace(" (", "<br>(") for _, title, _ in columns]
    head = "<th>set</th><th>of</th>" + "".join(f'<th class="number">{title}</th>' for title in titles)
    lines = []
    for name, rows in errors.items():
        for row in rows:
            cells = "".join(
                f'<td class="number">{"" if row[key] is None else form.format(row[key])}</td>'
                for key, _, form in columns
            )
            lines.append(f'<tr><th scope="row">{escape(name)}</th><td>{escape(row["of"])}</td>{cells}</tr>')
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
        if lines
        else ""
    )


def _data_lines(folder):
    """What the log says before the training began."""
    lines = folder.log.read_text(encoding="utf-8").splitlines()
    end = next((k for k, line in enumerate(lines) if line.startswith("model ")), len(lines) - 1)
    told = "\n".join(lines[: end + 1]).replace("\n  ", "; ")  # an indented line goes on with the one before it
    return told.splitlines()


def _making_section(settings, facts):
    given = {key: value for key, value in settings.items() if value not in (None, [], {}, "")}
    how = (
        '<p class="note">Saved as <code>again.toml</code>, this does the same training again, to the bit on the same '
        "machine with as many threads:</p><pre>silica-md train again.toml --out runs/again</pre>"
    )
    sums = markup.card("Data files (SHA-256)", markup.facts((name, value) for name, value in facts["sha256"].items()))
    cards = (
        markup.card("Settings", f"<pre>{escape(as_toml(given))}</pre>{how}"),
        markup.card("Versions and machine", markup.facts(facts["made_with"].items())) + sums,
    )
    return markup.section("How it was made", markup.group("columns", cards))
