"""The page: complete, self-contained, valid, honest about what was not measured; and summary.json."""

import base64
import json
import re
from html.parser import HTMLParser

import ase.io
import matplotlib
import numpy as np
import pytest
from ase import Atoms
from PIL import Image

from silica_md import report
from silica_md.analysis import analyze
from silica_md.observers import ThermoLog
from silica_md.report import evolution_figures, ring_figure, run_figures, verdicts, write_report, write_summary
from silica_md.report.picture import draw_structure
from silica_md.report.style import colours_of
from silica_md.report.style import new_figure as new
from silica_md.report.toml import as_toml
from silica_md.state import State
from silica_md.structure_log import StructureLog, read_structure_log
from silica_md.structure_sample import StructureSampler

CONFIG = {
    "atoms": 648, "potential": "shik", "potential_options": {}, "density_g_cm3": None, "start": "<b>&'\"",
    "segment": [{"name": "melt", "temperature_K": 4000.0}, {"name": "hold", "temperature_K": 300.0}],
    "schedule": [{"name": "melt", "from_K": 4000.0, "steps": 1000}],
}  # fmt: skip


def cristobalite(repeat=3, shake=0.06, seed=0):
    """Ideal beta-cristobalite with thermal noise: a whole network at nearly the density of the glass."""
    a = 7.16
    silicon = np.array([[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0], [1, 1, 1], [1, 3, 3], [3, 1, 3], [3, 3, 1]]) / 4
    bonds = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / 8
    oxygen = (silicon[:4, None] + bonds).reshape(-1, 3)
    unit = Atoms("Si8O16", scaled_positions=np.concatenate([silicon, oxygen]), cell=[a] * 3, pbc=True)
    atoms = unit.repeat(repeat)
    atoms.rattle(shake, seed=seed)
    return atoms


def with_sodium(atoms, n_na2o=20):
    """The same with sodium oxide thrown in, for its composition."""
    place = np.random.default_rng(1).uniform(0, atoms.cell[0, 0], (3 * n_na2o, 3))
    return atoms + Atoms(f"Na{2 * n_na2o}O{n_na2o}", positions=place)


@pytest.fixture(scope="module")
def silica():
    frames = [cristobalite(seed=seed) for seed in (0, 1)]
    return analyze(frames, q_max=16), frames[-1]


@pytest.fixture(scope="module")
def sodium_silicate():
    atoms = with_sodium(cristobalite())
    return analyze([atoms], q_max=10), atoms


def log_run(path):
    log = ThermoLog(path)
    rng = np.random.default_rng(0)
    time = 0.0
    for name, start, end in (("melt", 4000, 4000), ("quench", 3600, 300), ("hold", 300, 300)):
        for target in np.linspace(start, end, 40):
            time += 0.1
            log.write({
                "step": round(1000 * time), "time_ps": time, "segment": name, "target_K": target,
                "temperature_K": target * rng.normal(1, 0.02), "pressure_GPa": rng.normal(0, 0.3),
                "density_g_cm3": rng.normal(2.2, 0.01), "potential_eV_per_atom": -9.8 + 1.3e-4 * target,
                "kinetic_eV_per_atom": 1.3e-4 * target, "conserved_eV_per_atom": -9.0, "ns_per_day": 3.0,
            })  # fmt: skip
    log.close()


def sample_run(path, targets=(3000, 2600, 2200, 1800, 1400, 1000, 300)):
    """Samples of a cooling: the hotter, the more the crystal is shaken."""
    sampler = StructureSampler(State.from_ase(cristobalite()).atomic_numbers)
    log = StructureLog(path, sampler.columns, sampler.axes, {"bonds": ["Si-O"], "bond_cutoffs_angstrom": [2.2]})
    for number, target in enumerate(targets):
        state = State.from_ase(cristobalite(shake=0.02 + 1e-4 * target, seed=number))
        when = {"step": number, "time": 0.1 * number, "target": float(target), "temperature": 1.02 * target}
        log.write(when | {"segment": b"quench"} | sampler.take(state))
    log.position()
    return path


@pytest.fixture(scope="module")
def page(silica, tmp_path_factory):
    """A run folder as a quench leaves it, and its report."""
    folder = tmp_path_factory.mktemp("runs") / "silica"
    folder.mkdir()
    log_run(folder / "thermo.csv")
    sample_run(folder / "structure.h5")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    ase.io.write(folder / "final.xyz", silica[1], format="extxyz")
    return write_report(folder, silica[0])


class Checker(HTMLParser):
    """Collects what a browser would have to repair or fetch."""

    VOID = {"meta", "img", "br", "wbr", "link", "hr", "input"}

    def __init__(self, text):
        super().__init__()
        self.open, self.problems, self.references, self.headings, self.images = [], [], [], [], []
        self.feed(text)
        self.close()
        self.problems += [f"<{tag}> is never closed" for tag in self.open]

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.references += [attributes[name] for name in ("src", "href", "srcset", "data") if name in attributes]
        if tag == "img":
            self.images.append(attributes)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open[-1] != tag:
            self.problems.append(f"</{tag}> closes {self.open[-1:]} in line {self.getpos()[0]}")
        else:
            self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)


def test_the_page_is_complete(page):
    text = page.read_text(encoding="utf-8")
    checked = Checker(text)
    assert checked.headings[0].startswith("Silica glass")
    assert checked.headings[1:] == ["Structure", "Network", "The quench", "The run", "How it was made", "Sources"]
    titles = {image["alt"] for image in checked.images}
    assert titles == {
        "The structure", "Neutron structure factor", "First sharp diffraction peak", "Total correlation function",
        "X-ray structure factor", "Partial pair distributions", "Partial structure factors", "Bond angles",
        "Rings", "Order on cooling", "Network on cooling", "S(Q) on cooling",
        "Temperature", "Density", "Pressure", "Potential energy", "Energy on cooling", "Conserved quantity",
    }  # fmt: skip
    for words in (
        "O around Si",
        "Si around O",
        "Qn of silicon",
        "Heated to 4,000 K, cooled to 300 K",
        "torch",
        "numpy",
        "threads",
        "silica-md quench --config run.toml",
        "J. Chem. Phys. 148 (2018) 194504",
        "NeutronSiO2sq",
    ):
        assert words in text, words


def test_the_page_is_valid_and_needs_nothing_else(page):
    text = page.read_text(encoding="utf-8")
    checked = Checker(text)
    assert checked.problems == []
    assert all(reference.startswith("data:image/png;base64,") for reference in checked.references)
    assert not re.search(r"@import|url\(|<script|<link", text)
    assert all(image["alt"] and image["width"] and image["height"] for image in checked.images)
    assert "<b>&'" not in text  # text from the configuration is escaped
    assert len(text) < 4e6


def test_the_figures_are_also_files(page):
    text = page.read_text(encoding="utf-8")
    files = sorted((page.parent / "report").iterdir())
    assert len(files) == text.count("<img ")
    for file in files:
        assert base64.b64encode(file.read_bytes()).decode() in text, file.name
        with Image.open(file) as image:
            assert image.width >= 1000, file.name


def test_headline_table_has_every_row_and_plain_verdicts(page, silica):
    text = page.read_text(encoding="utf-8")
    analysis, _ = silica
    judged = {verdict.quantity: verdict for verdict in verdicts(analysis)}
    rows = {quantity for quantity, *_ in analysis.summary_rows()}
    assert set(judged) <= rows  # a renamed row would lose its verdict
    assert set(judged) == {
        "density", "Si–O bond length", "fourfold Si", "first sharp diffraction peak, position",
        "R_χ of S(Q), 0.6–15 Å⁻¹",
    }  # fmt: skip
    table = text[text.index("<table") : text.index("</table>")]
    assert table.count("<tr>") == len(rows) + 1
    assert table.count('class="verdict') == len(judged)
    assert judged["fourfold Si"].met
    assert not judged["Si–O bond length"].met  # 1.55 Å in ideal cristobalite
    assert judged["Si–O bond length"].text == "too short"
    missed = sum(not verdict.met for verdict in judged.values())
    assert f"{missed} of {len(judged)} criteria missed: " in text


def test_without_measurement_nothing_is_compared(sodium_silicate, tmp_path):
    analysis, atoms = sodium_silicate
    assert analysis.measured is None
    text = write_report(tmp_path, analysis, structure=atoms).read_text(encoding="utf-8")
    checked = Checker(text)
    assert checked.problems == []
    assert "Sodium silicate glass, 8.47 % Na₂O" in text
    assert "There is no measured curve of this composition" in text
    assert "Dots: measured" not in text
    assert "Temperature" not in {image["alt"] for image in checked.images}  # no log, no curves of the run
    assert {verdict.quantity for verdict in verdicts(analysis)} == {"density", "fourfold Si"}


def test_without_structure_log_or_configuration(silica, tmp_path):
    text = write_report(tmp_path / "new" / "folder", silica[0]).read_text(encoding="utf-8")
    assert Checker(text).problems == []
    assert "The structure" not in text
    assert "run.toml" not in text


def test_a_log_with_a_single_row_draws_nothing(silica, tmp_path):
    (tmp_path / "thermo.csv").write_text("step,time_ps,segment\n0,0,melt\n")
    assert "The run" not in write_report(tmp_path, silica[0]).read_text(encoding="utf-8")


def test_nothing_cooled_draws_no_evolution(tmp_path):
    series = read_structure_log(sample_run(tmp_path / "held.h5", targets=(300, 300, 300, 300, 300, 300)))
    few = read_structure_log(sample_run(tmp_path / "few.h5", targets=(3000, 2000, 1000)))
    for draw in ("order_on_cooling", "network_on_cooling", "structure_factor_on_cooling"):
        assert getattr(evolution_figures, draw)(series) is None
        assert getattr(evolution_figures, draw)(few) is None


def test_without_a_first_peak_the_rest_is_drawn(tmp_path):
    """A small cell: no peak can be fitted to any sample, and none is invented."""
    series = read_structure_log(sample_run(tmp_path / "structure.h5"))
    series.columns["first_peak/height"][:] = np.nan
    assert evolution_figures.order_on_cooling(series).startswith(b"\x89PNG")


def test_rings_are_drawn_as_they_were_counted(silica, monkeypatch):
    drawn = []
    monkeypatch.setattr(ring_figure, "new_figure", lambda *size, **grid: drawn.append(new(*size, **grid)) or drawn[-1])
    assert ring_figure.rings(silica[0]).startswith(b"\x89PNG")
    _, panels = drawn[0]
    assert [axes.get_title() for axes in panels[0]] == ["King", "Guttman", "Primitive"]
    for axes, counts in zip(panels[0], silica[0].rings.values(), strict=True):
        heights = {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in axes.patches}
        assert heights == {size: counts[size] for size in range(3, 13)}
    # Cristobalite is made of rings of six: two of them per Si.
    assert silica[0].rings["primitive"][6] == pytest.approx(2.0)


def test_nothing_is_drawn_where_there_are_no_rings():
    atoms = Atoms("NaCl", positions=[[0, 0, 0], [2.8, 0, 0]], cell=[5.6, 4, 4], pbc=True)
    assert ring_figure.rings(analyze([atoms], q_max=5.0)) is None


def test_summary_is_complete_json_with_units(silica, tmp_path):
    analysis, _ = silica
    content = json.loads(write_summary(tmp_path, analysis, CONFIG).read_text(encoding="utf-8"))
    assert content["schema"] == 1
    assert content["config"] == CONFIG
    assert content["results"]["density"] == analysis.density
    assert content["all_met"] is False
    assert {row["quantity"] for row in content["verdicts"]} <= {row["quantity"] for row in content["summary"]}
    assert np.allclose(content["curves"]["r"], analysis.r, rtol=1e-5)
    assert len(content["curves"]["measured"]["sq"]) == len(analysis.measured["sq"])
    plain = {"n_atoms", "n_frames", "formula", "cutoff_sources", "reason", "notes"}
    assert set(content["results"]) | set(content["curves"]) == plain | set(content["units"])
    assert {"torch", "numpy", "Python", "threads"} <= set(content["made_with"])


def test_the_same_data_give_the_same_figures(silica):
    from silica_md.report import figures

    assert figures.first_peak(silica[0]) == figures.first_peak(silica[0])


def test_drawing_leaves_matplotlib_as_it_was(silica):
    from silica_md.report import figures

    before = dict(matplotlib.rcParams)
    figures.bond_angles(silica[0])
    assert dict(matplotlib.rcParams) == before


def test_picture_shows_atoms_on_a_transparent_ground():
    image = draw_structure(cristobalite(2), width=300, height=260)
    assert image.shape == (260, 300, 4)
    assert image.dtype == np.uint8
    assert image[0, 0, 3] == 0  # nothing in the corner
    assert (image[..., 3] > 200).mean() > 0.05
    blue = (image[..., 2] > image[..., 0].astype(int) + 40) & (image[..., 3] > 200)
    red = (image[..., 0] > image[..., 2].astype(int) + 40) & (image[..., 3] > 200)
    assert blue.sum() > 300
    assert red.sum() > 300


@pytest.mark.parametrize("kind", ["one atom", "no cell", "large", "skewed", "unknown element"])
def test_picture_of_unusual_structures(kind):
    atoms = {
        "one atom": Atoms("Si", cell=[5, 5, 5], pbc=True),
        "no cell": Atoms("SiO2", positions=[[0, 0, 0], [1.6, 0, 0], [0, 1.6, 0]]),
        "large": cristobalite(6),
        "skewed": Atoms("SiO", positions=[[0, 0, 0], [1.6, 0, 0]], cell=[[6, 0, 0], [3, 5, 0], [1, 1, 6]], pbc=True),
        "unknown element": Atoms("SiXe", positions=[[0, 0, 0], [3, 3, 3]], cell=[7, 7, 7], pbc=True),
    }[kind]
    image = draw_structure(atoms, width=200, height=180)
    assert (image[..., 3] > 0).any()


def test_segments_are_found_in_the_log():
    assert run_figures.segments(["a", "a", "b", "a"]) == [(0, 2, "a"), (2, 3, "b"), (3, 4, "a")]


def test_colours_do_not_repeat_within_a_figure():
    pairs = ["Na-Na", "Na-Si", "Na-O", "Si-Si", "Si-O", "O-O"]
    assert len(set(colours_of(pairs).values())) == len(pairs)
    triples = ["O-Na-O", "O-Si-O", "Na-O-Na", "Na-O-Si", "Si-O-Si"]
    assert len(set(colours_of(triples).values())) == len(triples)


def test_toml_reads_back_as_what_was_written():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11")
    expected = {name: item for name, item in CONFIG.items() if item not in (None, {})}
    assert tomllib.loads(as_toml(CONFIG)) == expected


def test_configuration_of_a_run_reads_back_as_itself(tmp_path):
    from silica_md import config

    keys = {"atoms": 600, "potential": "bks", "potential_options": {"cutoff": 9.0}, "rate_K_per_ps": 10}
    made = config.load(None, keys)
    (tmp_path / "run.toml").write_text(as_toml(made.to_dict()), encoding="utf-8")
    assert config.load(tmp_path / "run.toml") == made


def test_public_names():
    assert set(report.__all__) == {"Verdict", "read_thermo", "verdicts", "write_report", "write_summary"}
