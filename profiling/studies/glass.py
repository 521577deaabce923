"""A glass by machine learning against known truth: BKS with Ewald sums is the teacher, and the answer.

    sh profiling/studies/bks_data.sh            # labelled configurations of the teacher, liquid to glass
    python -m profiling.studies.glass train sr  # and: train rsa
    python -m profiling.studies.glass quench    # teacher, SR and LR under one protocol, three seeds
    python -m profiling.studies.glass errors    # of the models, and of two trained on 96 atoms only, on the test frames
    python -m profiling.studies.glass judge     # of the glasses there are

The question of the silica paper (arXiv 2604.21222), asked where the truth is known: does a short-range model of a
potential with long range make another glass than the potential, and does a long-range layer mend it? SR is MACE with
two layers of 5 Å (it sees 10 Å), LR the same with intensive reciprocal-space attention. Every potential melts its own
liquid at 4,000 K and quenches it to 300 K at zero pressure, at 500 K/ps down to 1,500 K, the range in which the network
forms, and faster where nothing rearranges. Such rates make a poor glass; what is compared is the potentials,
not the glass with the measurement. The teacher is quenched with more seeds, and at a fifth of the rate: so much can a
difference be by chance, and so much does the rate do.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from ase.io import read
from ase.neighborlist import neighbor_list
from matplotlib.figure import Figure

from rsa_kernels.units import EV_PER_A3_IN_GPA
from silica_md import models, quench
from silica_md.analysis import analyze, measured, read_frames
from silica_md.analysis.first_peak import first_sharp_diffraction_peak
from silica_md.analysis.result import Analysis
from silica_md.ase import Calculator
from silica_md.config import Config
from silica_md.errors import RunAborted
from silica_md.files import replace_file
from silica_md.folder import RunFolder
from silica_md.labelled import ENERGY, FORCES, STRESS
from silica_md.potentials import LearnedPotential
from silica_md.report.style import COLOURS, MEASURED, styled
from silica_md.schedule import Segment
from silica_md.training.settings import Settings

from .common import CACHE, RESULTS, over_seeds, rms, trained, write_table

ATOMS, SEEDS, SLOWER = 648, (1, 2, 3), 5.0
TEACHER = {"potential": "bks", "coulomb": "ewald"}
MODELS = ("sr", "rsa")
RUNS = {"teacher": (*SEEDS, 4, 5, 6), "sr": (*SEEDS, 4), "rsa": SEEDS, "teacher-slow": SEEDS}
"""Seeds of every potential. SR has one more: of its first three one falls apart (two atoms meet)."""
TITLES = {
    "teacher": "teacher (BKS, Ewald)",
    "sr": "SR",
    "rsa": "LR (RSA, intensive)",
    "teacher-slow": "teacher, 100 K/ps",
}
WORK = CACHE / "glass"


def settings(kind: str, data: Sequence[Path]) -> Settings:
    """How a model is trained: the same for both."""
    return Settings(
        train_file=tuple(str(folder / "train.xyz") for folder in data),
        valid_file=tuple(str(folder / "valid.xyz") for folder in data),
        test_file=tuple(str(folder / "test.xyz") for folder in data),
        model=kind,
        # After the last interaction only, which carries further to other sizes (see `size`).
        long_range={"interactions": [1]} if kind == "rsa" else {},
        r_max=5.0,
        num_interactions=2,
        hidden_irreps="16x0e",
        max_ell=2,
        correlation=2,
        radial_MLP=(32, 32),
        loss="stress",
        # Weights with which the three terms of the loss are of one size for either model, once it has learned a little.
        energy_weight=100.0,
        forces_weight=100.0,
        stress_weight=1e4,
        lr=0.01,
        scheduler="ExponentialLR",
        lr_scheduler_gamma=0.95,
        batch_size=5,
        valid_batch_size=10,
        max_num_epochs=30,
        eval_interval=3,
        ema=True,
        ema_decay=0.99,
        clip_grad=10.0,
        swa=True,
        start_swa=24,
        swa_lr=0.001,
        swa_energy_weight=1e4,
        swa_forces_weight=100.0,
        swa_stress_weight=1e5,
        seed=1,
        default_dtype="float32",
        threads=1,
    )


def start(seed: int) -> Path:
    """A liquid of the teacher at 3,000 K and zero pressure: where atoms are when a potential begins to melt its own."""
    segments = (
        Segment("melt", temperature_K=4000.0, duration_ps=4.0, relaxation_fs=100.0),
        Segment("equilibrate", temperature_K=3000.0, duration_ps=10.0, ensemble="npt"),
    )
    return run(WORK / f"start-{seed}", Config(atoms=ATOMS, seed=seed, segment=segments, observe_ps=0.0, **TEACHER))


def start_seed(seed: int) -> int:
    """Of the start of a run: seeds beyond the starts there are begin with the same atoms and other noise."""
    return (seed - 1) % len(SEEDS) + 1


def protocol(slower: float = 1.0) -> tuple[Segment, ...]:
    """Melt and quench; `slower` divides the rate between 4,000 and 1,500 K."""
    npt = {"ensemble": "npt", "relaxation_fs": 100.0}
    return (
        Segment("melt", temperature_K=4000.0, duration_ps=2.0, relaxation_fs=100.0),
        Segment("quench", ramp_to_K=1500.0, rate_K_per_ps=500.0 / slower, **npt),
        Segment("freeze", ramp_to_K=300.0, rate_K_per_ps=2000.0, **npt),
        Segment("hold", temperature_K=300.0, duration_ps=0.6, frame_ps=0.05, **npt),
    )


def glass(name: str, seed: int) -> Path:
    """Melt and quench with a potential, from the start of a seed."""
    torch.set_num_threads(1)
    if name.startswith("teacher"):
        potential = TEACHER
    else:
        potential = {"potential": f"mace:{WORK / name / 'model.json'}", "potential_options": {"dtype": "float32"}}
    config = Config(
        start=str(WORK / f"start-{start_seed(seed)}" / "final.xyz"),
        seed=seed,
        segment=protocol(SLOWER if name == "teacher-slow" else 1.0),
        timestep_fs=2.0,
        observe_ps=0.0,
        frame_ps=1.0,
        **potential,
    )
    return run(WORK / f"{name}-{seed}", config)


def run(path: Path, config: Config) -> Path:
    """Do a run, or what is left of it; return its last configuration."""
    folder = RunFolder(path)
    if not folder.final.exists():
        resume = folder.config.exists()
        quench.run(
            replace(config, threads=1, device="cpu"),
            folder,
            lambda text: print(f"{path.name}: {text}", flush=True),
            resume,
        )
    return folder.final


def judged(name: str, seed: int) -> tuple[dict, Analysis]:
    """Structure of a glass, averaged over its hold; how warm that was, and how much of the start is still in it."""
    path = WORK / f"{name}-{seed}"
    analysis = analyze(read_frames(path, segment="hold"), q_max=15.0)
    angle, width = analysis.angle_mean["Si-O-Si"]
    rings = analysis.rings["primitive"]
    peak = first_sharp_diffraction_peak(*in_bins([analysis]))
    row = {
        "potential": name,
        "seed": seed,
        "hold_K": mean_temperature(path),
        "density_g_cm3": analysis.density,
        "fsdp_position_1_A": peak["position"],
        "fsdp_height": peak["height"],
        "si_o_si_mean_deg": angle,
        "si_o_si_width_deg": width,
        "si_fourfold": analysis.coordination["Si-O"].get(4, 0.0),
        "si_o_A": analysis.bond_length["Si-O"][0],
        "bonds_of_start": bonds_kept(WORK / f"start-{start_seed(seed)}" / "final.xyz", path / "final.xyz"),
    }
    row |= {f"rings_{size}_per_si": float(rings[size]) for size in range(3, 9)}
    return row, analysis


def mean_temperature(path: Path) -> float:
    """Mean temperature of the hold, K, over the rows of the log."""
    with RunFolder(path).thermo.open(encoding="utf-8") as file:
        return float(np.mean([float(row["temperature_K"]) for row in csv.DictReader(file) if row["segment"] == "hold"]))


def bonds_kept(before: Path, after: Path, reach: float = 2.2) -> float:
    """Share of the Si–O pairs within `reach` Å of the second structure that are within it in the first as well."""

    def pairs(path: Path) -> set[tuple[int, int]]:
        first, second = neighbor_list("ij", read(path), {("Si", "O"): reach})
        return set(zip(first.tolist(), second.tolist(), strict=True))

    now = pairs(after)
    return len(now & pairs(before)) / len(now)


def in_bins(analyses: Sequence[Analysis], width: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Q and neutron S(Q) in wider bins, `width` of those of the analysis, every k-vector counting alike.

    648 atoms have so few k-vectors below 2 1/Å that bins of 0.05 1/Å are noise, and some are empty.
    """
    n = min(len(one.q) for one in analyses) // width * width
    counts = sum(one.k_counts[:n] for one in analyses).reshape(-1, width).sum(axis=1)
    sums = sum(np.nan_to_num(one.neutron_sq[:n]) * one.k_counts[:n] for one in analyses).reshape(-1, width).sum(axis=1)
    q = analyses[0].q[:n].reshape(-1, width).mean(axis=1)
    return q[counts > 0], sums[counts > 0] / counts[counts > 0]


def distance(one: Sequence[Analysis], other: Sequence[Analysis]) -> float:
    """R_χ of two S(Q) in wider bins from 1 to 10 1/Å, [Σ(S − S')²/ΣS'²]^½."""
    (q, here), (q_there, there) = in_bins(one), in_bins(other)
    grid = q_there[(q_there >= 1.0) & (q_there <= 10.0)]
    here, there = np.interp(grid, q, here), np.interp(grid, q_there, there)
    return rms(here - there) / rms(there)


def kept_model(out: Path, kind: str) -> Path:
    """Where a trained model is kept beside the results."""
    return out / "models" / f"glass-{kind}.safetensors"


def errors_by_kind(kind: str, data: Path, out: Path) -> list[dict]:
    """Errors of a model on the test frames, all and by kind, of a run of the teacher that no training has seen."""
    frames = read(data / "test.xyz", ":")
    size = len(frames[0])
    model, _ = models.load(kept_model(out, kind))
    calculator = Calculator(LearnedPotential(model))
    energy, stress, forces = [], [], []
    for atoms in frames:
        copy = atoms.copy()
        copy.calc = calculator
        energy.append((copy.get_potential_energy() - atoms.info[ENERGY]) / len(atoms))
        forces.append(copy.get_forces() - atoms.arrays[FORCES])
        stress.append(copy.get_stress(voigt=False) - np.asarray(atoms.info[STRESS]).reshape(3, 3))
    energy, stress = np.array(energy), np.array(stress)
    kinds, rows = np.array([atoms.info["config_type"] for atoms in frames]), []
    for name in ("all", *sorted(set(kinds))):
        chosen = np.flatnonzero((kinds == name) | (name == "all"))
        off = np.concatenate([forces[k] for k in chosen])
        labels = np.concatenate([frames[k].arrays[FORCES] for k in chosen])
        rows.append(
            {
                "potential": kind,
                "atoms": size,
                "of": name,
                "frames": len(chosen),
                "rmse_e_meV_per_atom": 1e3 * rms(energy[chosen]),
                "mean_e_meV_per_atom": 1e3 * float(energy[chosen].mean()),
                "std_e_meV_per_atom": 1e3 * float(energy[chosen].std()),
                "rmse_f_meV_per_A": 1e3 * rms(off),
                "relative_f_percent": 100.0 * rms(off) / rms(labels),
                "rmse_stress_meV_per_A3": 1e3 * rms(stress[chosen]),
                "mean_pressure_error_GPa": -float(np.trace(stress[chosen].mean(axis=0))) / 3.0 * EV_PER_A3_IN_GPA,
            }
        )
    return rows


@styled
def figure(analyses: dict) -> Figure:
    """S(Q) beside the measured one, Si–O–Si angles and rings of the potentials; bands are the spread over seeds."""
    drawing = Figure(figsize=(13.0, 4.2), layout="constrained")
    left, middle, right = drawing.subplots(1, 3)
    curve = measured.neutron_silica()
    left.plot(curve.q, curve.sq, color=MEASURED, lw=1.0, ls=":", label="measured, 300 K")
    for place, name in enumerate(RUNS):
        found = [one for (whose, _), one in analyses.items() if whose == name]
        if not found:
            continue
        colour, label = COLOURS[place], f"{TITLES[name]}, seeds: {len(found)}"
        q, mean = in_bins(found)
        each = [np.interp(q, *in_bins([one])) for one in found]
        left.fill_between(q, np.min(each, axis=0), np.max(each, axis=0), color=colour, alpha=0.2, lw=0)
        left.plot(q, mean, color=colour, label=label)
        angles = found[0].angles_deg.reshape(-1, 3).mean(axis=1)
        each = [one.angle_distribution["Si-O-Si"].reshape(-1, 3).mean(axis=1) for one in found]
        middle.fill_between(angles, np.min(each, axis=0), np.max(each, axis=0), color=colour, alpha=0.2, lw=0)
        middle.plot(angles, np.mean(each, axis=0), color=colour)
        sizes = np.arange(3, 10)
        rings = np.array([[float(one.rings["primitive"][n]) for n in sizes] for one in found])
        right.bar(
            sizes + 0.21 * (place - 1.5), rings.mean(axis=0), 0.19, yerr=rings.std(axis=0), color=colour, capsize=2
        )
    left.set_xlim(0.5, 8.0)
    left.set_xlabel("Q (1/Å)")
    left.set_ylabel("neutron S(Q)")
    left.legend(fontsize=8, loc="lower right")
    middle.set_xlim(90.0, 180.0)
    middle.set_xlabel("Si–O–Si angle (°)")
    middle.set_ylabel("probability (1/°)")
    right.set_xlabel("size of primitive rings (Si)")
    right.set_ylabel("rings per Si")
    return drawing


def judge(out: Path) -> None:
    """Compare the glasses there are: tables, picture, and how far S(Q) is from the teacher's."""
    there = [(name, s) for name, seeds in RUNS.items() for s in seeds if (WORK / f"{name}-{s}" / "final.xyz").exists()]
    rows, analyses = [], {}
    for name, seed in there:
        row, analyses[name, seed] = judged(name, seed)
        rows.append(row)
    write_table(out / "glass.csv", rows)
    replace_file(out / "glass.png", figure(analyses))
    for column in list(rows[0])[2:]:
        found = {name: [row[column] for row in rows if row["potential"] == name] for name in RUNS}
        print(column, *(f"{n} {over_seeds(v)};" for n, v in found.items() if v and None not in v))
    distances = []
    for name, seed in there:
        # Of a teacher's own glasses every other one is left to compare with.
        others = [s for s in RUNS["teacher"] if ("teacher", s) in analyses and (name, seed) != ("teacher", s)]
        r = distance([analyses[name, seed]], [analyses["teacher", s] for s in others])
        distances.append({"potential": name, "seed": seed, "r_chi_1_to_10_1_A": r})
    write_table(out / "glass_distances.csv", distances)


def main(arguments: list[str] | None = None) -> None:
    """Run a part of the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        default=[CACHE / "bks", CACHE / "bks_large"],
        help="what bks_data.sh has made",
    )
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parts = parser.add_subparsers(dest="part", required=True)
    parts.add_parser("train").add_argument("model", choices=MODELS)
    parts.add_parser("quench")
    parts.add_parser("errors")
    parts.add_parser("judge")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.part == "train":
        model, record = trained(settings(options.model, options.data), WORK / options.model)
        kept = kept_model(options.out, options.model)
        kept.parent.mkdir(parents=True, exist_ok=True)
        # Paths of this machine mean nothing beside a model that travels.
        extra = json.loads(json.dumps(record["extra"]).replace(f"{CACHE.parent.parent}/", ""))
        models.save(model, kept, extra)
    elif options.part == "quench":
        for seed in SEEDS:
            start(seed)
        with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
            # The slowest first, so that none is left alone at the end.
            tasks = [pool.submit(glass, name, seed) for name in reversed(RUNS) for seed in RUNS[name]]
            for task in tasks:
                error = task.exception()
                if error is not None and not isinstance(error, RunAborted):
                    raise error
                print(error or task.result(), flush=True)
    elif options.part == "errors":
        kinds = (*MODELS, *(f"{kind}-96" for kind in MODELS))
        rows = [row for kind in kinds for data in options.data for row in errors_by_kind(kind, data, options.out)]
        write_table(options.out / "glass_errors.csv", rows)
    else:
        judge(options.out)


if __name__ == "__main__":
    main()
