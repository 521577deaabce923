"""Puts the report together: figures, tables and text into one HTML page that needs nothing else."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

import ase.io
import numpy as np
from ase import Atoms
from PIL import Image

from ..analysis import Analysis, measured
from ..analysis.rings import MAX_SIZE
from ..files import replace_file
from ..potentials import parameters
from ..potentials.learned import is_learned, path_of
from ..structure_log import StructureSeries, read_structure_log
from . import evolution_figures, figures, markup, ring_figure, run_figures
from .picture import ATOM_STYLES, BOND_LENGTHS, LARGEST_REGION, draw_structure
from .provenance import provenance
from .thermo import account, read_thermo
from .toml import as_toml
from .verdicts import verdicts

# What is drawn, its title and its caption; {words} are filled in by `_structure_section`.
_CURVES = (
    (
        figures.neutron_structure_factor,
        "Neutron structure factor",
        "Faber–Ziman S(Q), weighted with the neutron scattering lengths of the elements. {compared}.",
    ),
    (
        figures.first_peak,
        "First sharp diffraction peak",
        "The same curve near its first peak, the mark of order beyond the tetrahedra. Marks on the axis: where "
        "the fitted Lorentzian has its peak.{no_peak}",
    ),
    (
        figures.correlation_function,
        "Total correlation function",
        "T(r), from S(Q) over {tr_range} by sine transform with the Lorch window{alike}.",
    ),
    (
        figures.xray_structure_factor,
        "X-ray structure factor",
        "Weighted with the form factors of neutral atoms. Simulation only: there is no measured X-ray curve to "
        "set beside it.",
    ),
    (
        figures.pair_distributions,
        "Partial pair distributions",
        "g(r) of every pair of elements; 1 means no correlation.",
    ),
    (
        figures.partial_structure_factors,
        "Partial structure factors",
        "Faber–Ziman S(Q) of every pair of elements.",
    ),
)
_RUN = (
    (run_figures.temperature, "Temperature", "Kinetic temperature, and the one the schedule asks for."),
    (run_figures.density, "Density", "Mass density; level where the volume is held."),
    (run_figures.pressure, "Pressure", "Kinetic and virial part. A small cell fluctuates by tenths of a GPa."),
    (run_figures.energy, "Potential energy", "Per atom, as the potential counts it."),
    (
        run_figures.energy_on_cooling,
        "Energy on cooling",
        "Potential energy against temperature while the target falls; where it bends, the melt becomes a glass.",
    ),
    (
        run_figures.conserved,
        "Conserved quantity",
        "Energy of atoms, thermostat and barostat together. Its drift measures the integration.",
    ),
)
_EVOLUTION = (
    (
        evolution_figures.order_on_cooling,
        "Order on cooling",
        "Samples taken while the target temperature falls (points) and their running mean: height of the first sharp "
        "diffraction peak, share of rings of six Si among all up to {largest}, width of the Si–O–Si distribution.",
    ),
    (
        evolution_figures.network_on_cooling,
        "Network on cooling",
        "Density, whole coordination and angle in the same samples. Bonds are counted up to {cutoffs}.",
    ),
    (
        evolution_figures.structure_factor_on_cooling,
        "S(Q) on cooling",
        "Neutron S(Q), the mean of the samples of each range of temperature.",
    ),
)
_SCALARS = {
    "si_o_distance": "Measured Si–O distance",
    "si_o_si_angle_most_probable": "Measured Si–O–Si angle",
    "si_o_coordination": "Measured number of O around Si",
    "fsdp_position": "Measured position of the first sharp diffraction peak",
}
_METHODS = (
    "Faber–Ziman structure factors: T. E. Faber and J. M. Ziman, Phil. Mag. 11 (1965) 153",
    "Lorch window: E. Lorch, J. Phys. C 2 (1969) 229",
    "R_χ: A. C. Wright, J. Non-Cryst. Solids 159 (1993) 264",
    "Rings: S. V. King, Nature 213 (1967) 1112; L. Guttman, J. Non-Cryst. Solids 116 (1990) 145; "
    "D. S. Franzblau, Phys. Rev. B 44 (1991) 4925",
)


def write_report(
    run_dir: str | Path,
    analysis: Analysis,
    thermo: Mapping[str, np.ndarray] | str | Path | None = None,
    config: Mapping | None = None,
    structure: Atoms | None = None,
    series: StructureSeries | None = None,
) -> Path:
    """Write `report.html`, and its figures as `report/*.png`, into a run folder.

    Parameters
    ----------
    run_dir : str or Path
        Created if it is not there.
    analysis : Analysis
        What to show.
    thermo : mapping or path, optional
        The log of the run, or its columns as `read_thermo` gives them; by default `thermo.csv` of the folder,
        if there is one.
    config : mapping, optional
        Configuration of the run; by default `config.json` of the folder, if there is one.
    structure : ase.Atoms, optional
        For the picture; by default `final.xyz` of the folder, if there is one.
    series : StructureSeries, optional
        The samples of the structure; by default `structure.h5` of the folder, if there is one.

    Returns
    -------
    Path
        The page: one file that refers to no other.
    """
    run_dir = Path(run_dir)
    (run_dir / "report").mkdir(parents=True, exist_ok=True)
    thermo = _log(run_dir, thermo)
    if config is None and (run_dir / "config.json").exists():
        config = json.loads((run_dir / "config.json").read_text(encoding="utf-8"))
    if structure is None and (run_dir / "final.xyz").exists():
        structure = ase.io.read(run_dir / "final.xyz")
    if series is None and (run_dir / "structure.h5").exists():
        series = read_structure_log(run_dir / "structure.h5")

    def shown(name, png, title, caption):
        """The figure for the page; the PNG is kept beside it as well."""
        if png is None:
            return ""
        replace_file(run_dir / "report" / f"{name}.png", png)
        return markup.figure(png, title, caption)

    sections = (
        _judgement(analysis, structure, shown),
        _structure_section(analysis, shown),
        _network_section(analysis, shown),
        _evolution_section(series, shown),
        _run_section(thermo, shown),
        _making_section(config),
        _sources_section(analysis, config),
    )
    heading, name = _heading(analysis), escape(run_dir.resolve().name)
    resources = files(__package__)
    page = Template((resources / "page.html").read_text(encoding="utf-8")).substitute(
        title=f"{heading} · {name}",
        style=(resources / "page.css").read_text(encoding="utf-8"),
        heading=heading,
        lead=_lead(analysis, thermo, config),
        body="\n".join(filter(None, sections)),
        footer=f"Made by silica_md from <code>{name}</code>. The same for machines: <code>summary.json</code>.",
    )
    return replace_file(run_dir / "report.html", page)


def _log(run_dir, thermo):
    if thermo is None and (run_dir / "thermo.csv").exists():
        thermo = run_dir / "thermo.csv"
    if isinstance(thermo, str | Path):
        thermo = read_thermo(thermo)
    return thermo if thermo is not None and len(thermo.get("time_ps", ())) > 1 else None


def _heading(analysis):
    if analysis.na2o_fraction == 0:
        return "Silica glass, SiO₂"
    if analysis.na2o_fraction is not None:
        return f"Sodium silicate glass, {100 * analysis.na2o_fraction:.3g} % Na₂O"
    return escape(analysis.formula)


def _lead(analysis, thermo, config):
    frames = "one frame" if analysis.n_frames == 1 else f"mean of {analysis.n_frames} frames"
    sentences = [f"{analysis.n_atoms:,} atoms, {frames}."]
    if thermo is not None:
        sentences.append(account(thermo))
    if potential := _potential(config):
        sums = " with Ewald sums" if "ewald" in config.get("potential_options", ()) else ""
        dispersion = f" plus {config['d3'].upper()}-D3(BJ) dispersion" if config.get("d3") else ""
        sentences.append(f"Potential: {_called(potential)}{sums}{dispersion}.")
    return escape(" ".join(sentences))


def _judgement(analysis, structure, shown):
    """The table measured | simulated with its verdicts, beside the picture."""
    judged = {verdict.quantity: verdict for verdict in verdicts(analysis)}
    rows = []
    for quantity, unit, found, simulated in analysis.summary_rows():
        unit = f' <span class="unit">({escape(unit)})</span>' if unit else ""
        rows.append(
            f'<tr><th scope="row">{markup.symbols(quantity)}{unit}</th>'
            f'<td class="number">{markup.spread(found)}</td><td class="number">{markup.spread(simulated)}</td>'
            f"<td>{_verdict(judged.get(quantity))}</td></tr>"
        )
    table = (
        '<div class="scroll"><table class="headline"><thead><tr><th></th><th class="number">measured</th>'
        f'<th class="number">simulated</th><th>verdict</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )
    hero = markup.group("hero", filter(None, (table, _picture(structure, shown))))
    return f"<section>\n{_banner(list(judged.values()))}\n{hero}\n</section>"


def _verdict(verdict):
    if verdict is None:
        return ""
    kind, sign = ("good", "✓") if verdict.met else ("bad", "✗")
    return (
        f'<span class="verdict {kind}">{sign} {escape(verdict.text)}</span>'
        f'<span class="asked">{escape(verdict.asked)}</span>'
    )


def _banner(judged):
    if not judged:
        return ""
    missed = [verdict for verdict in judged if not verdict.met]
    if not missed:
        return f'<p class="result good">✓ {len(judged)} of {len(judged)} criteria are met.</p>'
    named = "; ".join(f"{verdict.quantity} ({verdict.text}, asked: {verdict.asked})" for verdict in missed)
    text = markup.symbols(f"{len(missed)} of {len(judged)} criteria missed: {named}.")
    return f'<p class="result bad">✗ {text}</p>'


def _picture(structure, shown):
    if structure is None:
        return ""
    image = Image.fromarray(draw_structure(structure)).quantize(256)  # a quarter of the size, no visible loss
    buffer = io.BytesIO()
    image.save(buffer, "png", optimize=True)
    present = set(structure.get_chemical_symbols())
    legend = " ".join(
        f'<span class="legend" style="background:{colour}"></span>{symbol}'
        for symbol, (colour, _) in ATOM_STYLES.items()
        if symbol in present
    )
    bonds = ", ".join(f"{a}–{b} up to {length:g} Å" for (a, b), length in BOND_LENGTHS.items())
    *lengths, alpha, beta, gamma = structure.cell.cellpar()
    size = " × ".join(f"{length:.2f}" for length in lengths) + " Å"
    if np.abs(np.array([alpha, beta, gamma]) - 90).max() > 0.01:
        size += f", {alpha:.1f}°, {beta:.1f}°, {gamma:.1f}°"
    part = f" Shown: {LARGEST_REGION:g} Å of it." if max(lengths) > LARGEST_REGION else ""
    caption = f"{legend}<br>Bonds {bonds}. Cell {size}.{part}"
    return shown("structure", buffer.getvalue(), "The structure", caption)


def _structure_section(analysis, shown):
    compared = analysis.measured is not None
    low, high = analysis.tr_q_range
    words = {
        "compared": "Dots: measured" if compared else "There is no measured curve of this composition",
        "alike": ", measured and simulated alike" if compared else "",
        "tr_range": f"{low:g}–{high:g} Å⁻¹",
        "no_peak": f" None was fitted to the simulation: {escape(reason)}."
        if (reason := analysis.fsdp["reason"])
        else "",
    }
    drawn = [shown(draw.__name__, draw(analysis), title, caption.format(**words)) for draw, title, caption in _CURVES]
    return markup.section("Structure", markup.group("figures", drawn), markup.bullets(analysis.notes))


def _network_section(analysis, shown):
    """Angles, rings, coordination and Qn."""
    caption = "Between two bonds of the middle atom. Means and standard deviations (σ) stand in the legend."
    pieces = [shown("bond_angles", figures.bond_angles(analysis), "Bond angles", caption)]
    caption = (
        f"Distinct rings of up to {MAX_SIZE} Si joined by O, by their number of Si, for three definitions: shortest "
        "through two bonds of an atom (King), shortest through a bond (Guttman), without a short cut (primitive). "
        "Simulation only: there is no measured distribution to set beside it."
    )
    pieces.append(shown("rings", ring_figure.rings(analysis), "Rings", caption))
    for name, fractions in analysis.coordination.items():
        centre, around = name.split("-")
        note = f"Mean {analysis.mean_coordination[name]:.3f}"
        if name in analysis.bond_length:
            note += f"; bond length {analysis.bond_length[name][0]:.3f} Å"
        if name in analysis.cutoffs:
            note += f"; counted up to {analysis.cutoffs[name]:.2f} Å, {escape(analysis.cutoff_sources[name])}"
        rows = [(f"{n} {around}", fractions[n], None) for n in sorted(fractions)]
        pieces.append(markup.shares(f"{around} around {centre}", note + ".", rows))
    if analysis.qn:
        known = measured.qn(analysis.na2o_fraction) if analysis.na2o_fraction is not None else None
        rows = [(f"Q{n}", analysis.qn[n], (known or {}).get(n)) for n in sorted(analysis.qn, reverse=True)]
        pieces.append(markup.shares("Qn of silicon", "Si with n bridging oxygens.", rows))
    pieces = [piece for piece in pieces if piece]
    return markup.section("Network", markup.group("columns", pieces)) if pieces else ""


def _evolution_section(series, shown):
    """What the samples of the run tell about the cooling."""
    if series is None:
        return ""
    reach = zip(series.attributes["bonds"], series.attributes["bond_cutoffs_angstrom"], strict=True)
    words = {
        "largest": series.axes["ring_size"][-1],
        "cutoffs": ", ".join(f"{length:g} Å ({name.replace('-', '–')})" for name, length in reach),
    }
    drawn = [shown(draw.__name__, draw(series), title, text.format(**words)) for draw, title, text in _EVOLUTION]
    drawn = [figure for figure in drawn if figure]
    return markup.section("The quench", markup.group("figures", drawn)) if drawn else ""


def _run_section(thermo, shown):
    if thermo is None:
        return ""
    drawn = [shown(draw.__name__, draw(thermo), title, caption) for draw, title, caption in _RUN]
    return markup.section("The run", markup.group("figures", filter(None, drawn)))


def _making_section(config):
    """The schedule, the full configuration in the form the command reads, versions and machine."""
    cards = [markup.card("Versions and machine that wrote this page", markup.facts(provenance().items()))]
    schedule = ""
    if config:
        config = dict(config)
        if steps := config.pop("schedule", None):  # follows from the rest
            schedule = markup.card("Schedule", markup.records(steps))
        how = (
            '<p class="note">Saved as <code>run.toml</code>, this makes the same run again, to the bit on the same '
            "machine with as many threads:</p><pre>silica-md quench --config run.toml --out runs/again</pre>"
        )
        cards.insert(0, markup.card("Configuration", f"<pre>{escape(as_toml(config))}</pre>{how}"))
    return markup.section("How it was made", schedule, markup.group("columns", cards))


def _sources_section(analysis, config):
    lines = []
    if analysis.measured:
        lines.append(f"Measured neutron S(Q): {analysis.measured['citation']}")
    if analysis.na2o_fraction is not None:
        scalars = measured.scalars()
        lines.append(f"Measured density: {scalars['density']['source']}")
        if analysis.na2o_fraction == 0:
            lines += [f"{_SCALARS.get(name, name)}: {row['source']}" for name, row in scalars["silica"].items()]
        elif measured.qn(analysis.na2o_fraction):
            lines.append(f"Measured Qn: {scalars['qn']['source']}")
    known = vars(parameters).get(str(_potential(config)).upper())
    if isinstance(known, dict):
        lines.append(f"Potential: {known['citation']}")
    if is_learned(str(_potential(config))):
        options = config.get("potential_options", {})
        marks = ", ".join(f"{name} {options[name]}" for name in ("dtype", "sha256", "architecture") if name in options)
        lines.append(f"Potential: {_called(_potential(config))} ({marks})")
    return markup.section("Sources", markup.bullets(lines + list(_METHODS)))


def _called(potential):
    """What to call a potential: "SHIK", "MACE model silica.safetensors"."""
    return f"MACE model {path_of(potential).name}" if is_learned(potential) else potential.upper()


def _potential(config):
    potential = (config or {}).get("potential")
    return potential.get("name") if isinstance(potential, Mapping) else potential
