"""A glass by machine learning against known truth: BKS with Ewald sums is the teacher, and the answer.

    sh profiling/studies/bks_data.sh            # labelled configurations of the teacher, liquid to glass
    python -m profiling.studies.glass train sr  # and: train rsa
    python -m profiling.studies.glass quench    # teacher, SR and LR under one protocol, three seeds
    python -m profiling.studies.glass judge

The question of the silica paper (arXiv 2604.21222), asked where the truth is known: does a short-range model of a
potential with long range make another glass than the potential, and does a long-range layer mend it? SR is MACE with
two layers of 5 Å (it sees 10 Å), LR the same with intensive reciprocal-space attention. Each run begins with a melt
of the teacher at 3,000 K, one for each seed and the same for all potentials, and is quenched to 300 K at 1,350 K/ps at
zero pressure: 1,500 steps of 2 fs, as many as two cores do for nine runs in half an hour. Such a rate makes a poor
glass; what is compared is the potentials, not the glass with the measurement.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from silica_md import quench
from silica_md.analysis import analyze, read_frames
from silica_md.config import Config
from silica_md.files import replace_file
from silica_md.folder import RunFolder
from silica_md.report.style import styled
from silica_md.schedule import Segment
from silica_md.training.settings import Settings

from .common import CACHE, RESULTS, over_seeds, trained, write_table

ATOMS, SEEDS = 648, (1, 2, 3)
TEACHER = {"potential": "bks", "coulomb": "ewald"}
POTENTIALS = ("teacher", "sr", "rsa")
TITLES = {"teacher": "teacher (BKS, Ewald)", "sr": "SR", "rsa": "LR (RSA, intensive)"}
WORK = CACHE / "glass"


def settings(kind: str, data: Path = CACHE / "bks") -> Settings:
    """How a model is trained: the same for both."""
    return Settings(
        train_file=(str(data / "train.xyz"),),
        valid_file=(str(data / "valid.xyz"),),
        test_file=(str(data / "test.xyz"),),
        model=kind,
        r_max=5.0,
        num_interactions=2,
        hidden_irreps="16x0e",
        max_ell=2,
        correlation=2,
        radial_MLP=(32, 32),
        loss="stress",
        energy_weight=1.0,
        forces_weight=100.0,
        stress_weight=100.0,
        lr=0.01,
        batch_size=5,
        valid_batch_size=10,
        max_num_epochs=16,
        eval_interval=4,
        ema=True,
        ema_decay=0.97,
        clip_grad=10.0,
        swa=True,
        start_swa=12,
        swa_lr=0.001,
        swa_energy_weight=1000.0,
        swa_forces_weight=100.0,
        swa_stress_weight=100.0,
        seed=1,
        default_dtype="float32",
        threads=1,
    )


def melt(seed: int) -> Path:
    """A melt of the teacher at 3,000 K and zero pressure."""
    segments = (
        Segment("melt", temperature_K=4000.0, duration_ps=4.0, relaxation_fs=100.0),
        Segment("equilibrate", temperature_K=3000.0, duration_ps=10.0, ensemble="npt"),
    )
    return run(WORK / f"melt-{seed}", Config(atoms=ATOMS, seed=seed, segment=segments, observe_ps=0.0, **TEACHER))


def glass(name: str, seed: int) -> Path:
    """Quench the melt of a seed with a potential."""
    torch.set_num_threads(1)
    start = melt(seed)
    if name == "teacher":
        potential = TEACHER
    else:
        potential = {"potential": f"mace:{WORK / name / 'model.json'}", "potential_options": {"dtype": "float32"}}
    segments = (
        Segment("equilibrate", temperature_K=3000.0, duration_ps=0.5, ensemble="npt"),
        Segment("quench", ramp_to_K=300.0, rate_K_per_ps=1350.0, ensemble="npt"),
        Segment("hold", temperature_K=300.0, duration_ps=0.5, ensemble="npt", frame_ps=0.05),
    )
    config = Config(
        start=str(start), seed=seed, segment=segments, timestep_fs=2.0, observe_ps=0.0, frame_ps=1.0, **potential
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


def judged(name: str, seed: int) -> tuple[dict, object]:
    """Structure of a glass, averaged over its hold."""
    analysis = analyze(read_frames(WORK / f"{name}-{seed}", segment="hold"), q_max=15.0)
    angle, width = analysis.angle_mean["Si-O-Si"]
    rings = analysis.rings["primitive"]
    row = {
        "potential": name,
        "seed": seed,
        "density_g_cm3": analysis.density,
        "fsdp_position_1_A": analysis.fsdp["position"],
        "fsdp_height": analysis.fsdp["height"],
        "si_o_si_mean_deg": angle,
        "si_o_si_width_deg": width,
        "si_fourfold": analysis.coordination["Si-O"].get(4, 0.0),
        "si_o_A": analysis.bond_length["Si-O"][0],
    }
    row |= {f"rings_{size}_per_si": float(rings[size]) if size < len(rings) else 0.0 for size in range(3, 9)}
    return row, analysis


@styled
def figure(analyses: dict) -> Figure:
    """S(Q), Si–O–Si angles and rings of the three potentials; bands are the spread over seeds."""
    drawing = Figure(figsize=(13.0, 4.2), layout="constrained")
    left, middle, right = drawing.subplots(1, 3)
    for place, name in enumerate(POTENTIALS):
        found = [analyses[name, seed] for seed in SEEDS]
        colour = f"C{place}"
        for ax, x, values in (
            (left, found[0].q, [one.neutron_sq for one in found]),
            (middle, found[0].angles_deg, [one.angle_distribution["Si-O-Si"] for one in found]),
        ):
            ax.fill_between(x, np.min(values, axis=0), np.max(values, axis=0), color=colour, alpha=0.25, lw=0)
            ax.plot(x, np.mean(values, axis=0), color=colour, label=TITLES[name])
        sizes = np.arange(3, 10)
        rings = np.array([[float(one.rings["primitive"][n]) for n in sizes] for one in found])
        right.bar(sizes + 0.27 * (place - 1), rings.mean(axis=0), 0.25, yerr=rings.std(axis=0), color=colour, capsize=2)
    left.set_xlim(0.5, 8.0)
    left.set_xlabel("Q (1/Å)")
    left.set_ylabel("neutron S(Q)")
    left.legend(fontsize=8)
    middle.set_xlim(90.0, 180.0)
    middle.set_xlabel("Si–O–Si angle (°)")
    middle.set_ylabel("probability (1/°)")
    right.set_xlabel("size of primitive rings (Si)")
    right.set_ylabel("rings per Si")
    return drawing


def main(arguments: list[str] | None = None) -> None:
    """Run a part of the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parts = parser.add_subparsers(dest="part", required=True)
    parts.add_parser("train").add_argument("model", choices=POTENTIALS[1:])
    parts.add_parser("quench")
    parts.add_parser("judge")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.part == "train":
        trained(settings(options.model), WORK / options.model)
    elif options.part == "quench":
        for seed in SEEDS:
            melt(seed)
        with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
            # The slowest first, so that none is left alone at the end.
            tasks = [pool.submit(glass, name, seed) for name in ("rsa", "sr", "teacher") for seed in SEEDS]
            for task in tasks:
                print(task.result(), flush=True)
    else:
        rows, analyses = [], {}
        for name in POTENTIALS:
            for seed in SEEDS:
                row, analyses[name, seed] = judged(name, seed)
                rows.append(row)
        write_table(options.out / "glass.csv", rows)
        replace_file(options.out / "glass.png", figure(analyses))
        for column in list(rows[0])[2:]:
            print(column, *(over_seeds([r[column] for r in rows if r["potential"] == name]) for name in POTENTIALS))


if __name__ == "__main__":
    main()
