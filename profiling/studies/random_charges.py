"""Random ±1 e charges in a periodic box with exact Ewald labels: does a model learn what is long-ranged?

python -m profiling.studies.random_charges --out profiling/.cache/random_charges

Half of the N charges are cations (named Na), half anions (Cl), at random places of a cubic box, no two closer than
MIN_DISTANCE, and the energy is Coulomb's alone,

    E = k_e ½ Σ_ij,L q_i q_j / |r_i − r_j + L|        (tin-foil surroundings),

with no short-range term: what keeps forces bounded is the shortest distance. At 2.5 Å two charges pull with 2.3 eV/Å.
At 0.016 charges/Å³ (128 in a cube of 20 Å) a sphere of 5 Å holds 8 neighbours and one of 10 Å 67. Positions are
independent of the signs, so nothing screens anything: charges beyond r give 4πn k_e²/r of a mean square force, of which
half comes from beyond twice the shortest distance and, in a large box, a quarter from beyond 10 Å.

The mean energy of a charge is that of its own images, −2.837 k_e/2L in a cube: −1.02 eV at 20 Å, −0.51 eV at 40 Å. So
independent samples of another size ask for more than supercells do, which have the energies of the small cell.

The labels are Ewald sums to RMS force errors below 1e-8 × 14.4 eV/Å, the energies of single ions are zero (E0s
{Na: 0, Cl: 0}: no fit needed).

Files: train.xyz, valid.xyz, test.xyz (N = 128); supercell.xyz (2 × 2 × 2 of the first test frames, 1,024 charges) and
supercell_large.xyz (4 × 4 × 3, 6,144) whose energies per atom and forces are those of the small cell; large.xyz and
huge.xyz (independent samples of 1,024 and 6,144 charges at the same density); train_large.xyz (more of 1,024, to be
learned from); random_charges.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from ase import Atoms

import rsa_kernels as rk
from rsa_kernels import __version__, ewald, random
from silica_md.files import replace_file
from silica_md.labelled import ENERGY, FORCES, STRESS, labelled, rounded, write_labelled

CHARGES = {11: 1.0, 17: -1.0}  # e; sodium is a name here, not an ion of the table salt
PER_A3 = 0.016  # charges/Å³: 128 in a cube of 20 Å
MIN_DISTANCE = 2.5  # Å
ACCURACY = 1e-8  # RMS force error, 14.4 eV/Å
SMALL, LARGE, HUGE = 128, 1024, 6144
COUNTS = {"train": 400, "valid": 50, "test": 100, "large": 20, "huge": 4, "train_large": 20}
SUPERCELLS = 20, 4  # of the two sizes
_SETS = tuple(COUNTS)  # the place of a name is its stream of random numbers


def placed(n: int, length: float, seed: int, stream: int, number: int, attempts: int = 1000) -> np.ndarray:
    """Random points (n, 3) in a cube of edge `length`, Å, no two closer than `MIN_DISTANCE`.

    Of every pair too close the second point is drawn again until there is none. The numbers are keyed by (seed,
    stream, number of the configuration, attempt, point), so a configuration does not depend on the others.
    """
    cell = length * torch.eye(3, dtype=torch.float64)
    points = torch.empty(n, 3, dtype=torch.float64)
    ids = torch.arange(n)
    for attempt in range(attempts):
        words = random.bits(seed, number * attempts + attempt, ids, stream)
        points[ids] = (words[:, :3].double() + 0.5) * (2.0**-32 * length)
        close = rk.neighbor_list(points, cell, True, MIN_DISTANCE, half=True)
        ids = torch.unique(close.edge_index[1])
        if ids.numel() == 0:
            return points.numpy()
    raise ValueError(f"{n} points {MIN_DISTANCE} Å apart do not fit into a cube of {length:.2f} Å")


def parameters() -> ewald.EwaldParameters:
    """Settings of the Ewald sums, one set for all configurations: they depend on density and charges only."""
    charges = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(SMALL // 2)
    edge = (SMALL / PER_A3) ** (1.0 / 3.0)
    return ewald.parameters(charges, edge * torch.eye(3, dtype=torch.float64), accuracy=ACCURACY)


def with_labels(atoms: Atoms, how: ewald.EwaldParameters, **info) -> Atoms:
    """Energy, forces and stress of the charges of `atoms` by Ewald sums; direct ones, no mesh."""
    positions = torch.tensor(atoms.positions, requires_grad=True)
    strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    deformation = torch.eye(3, dtype=torch.float64) + 0.5 * (strain + strain.T)
    charges = torch.tensor([CHARGES[z] for z in atoms.numbers.tolist()], dtype=torch.float64)
    energy = rk.ewald_energy(
        positions @ deformation,
        charges,
        torch.tensor(atoms.cell.array) @ deformation,
        sigma=how.sigma,
        cutoff=how.cutoff,
        k_cut=how.k_cut,
        method="spectral",
    ).sum()
    gradient, virial = torch.autograd.grad(energy, (positions, strain))
    return labelled(atoms, float(energy.detach()), -gradient, virial / atoms.get_volume(), info)


def configuration(n: int, name: str, number: int, seed: int, how: ewald.EwaldParameters) -> Atoms:
    """The configuration `number` of the set `name`, with `n` charges, labelled."""
    length = (n / PER_A3) ** (1.0 / 3.0)
    points = placed(n, length, seed, _SETS.index(name), number)
    numbers = np.repeat(list(CHARGES), n // 2)
    atoms = rounded(Atoms(numbers=numbers, positions=points, cell=[length] * 3, pbc=True))
    return with_labels(atoms, how, config_type="random_charges", number=number)


def supercell(atoms: Atoms, repeat: tuple[int, int, int]) -> Atoms:
    """A labelled supercell: n times the energy, the same forces and stress."""
    larger = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True).repeat(repeat)
    times = int(np.prod(repeat))
    forces = np.tile(atoms.arrays[FORCES], (times, 1))
    info = {key: value for key, value in atoms.info.items() if not key.startswith("REF_")}
    return labelled(larger, times * atoms.info[ENERGY], forces, atoms.info[STRESS], info | {"repeats": times})


def make(out: Path, counts: dict[str, int], supercells: tuple[int, int], seed: int) -> dict:
    """Write the whole set into `out`; returns what is written to random_charges.json."""
    out.mkdir(parents=True)
    how = parameters()
    size = {"large": LARGE, "huge": HUGE, "train_large": LARGE}
    figures = {}

    def write(name: str, frames: Iterator[Atoms]):
        held = list(frames)
        write_labelled(out / f"{name}.xyz", held)
        figures[name] = statistics(held) if held else {"configurations": 0}
        print(f"{name:16s} {figures[name]}", flush=True)
        return held

    sets = {}
    for name in _SETS:
        n = size.get(name, SMALL)
        sets[name] = write(name, (configuration(n, name, k, seed, how) for k in range(counts[name])))
    write("supercell", (supercell(atoms, (2, 2, 2)) for atoms in sets["test"][: supercells[0]]))
    write("supercell_large", (supercell(atoms, (4, 4, 3)) for atoms in sets["test"][: supercells[1]]))
    record = {
        "version": __version__,
        "seed": seed,
        "charges_e": {"Na": 1.0, "Cl": -1.0},
        "E0s_eV": {"Na": 0.0, "Cl": 0.0},
        "number_density_per_A3": PER_A3,
        "min_distance_A": MIN_DISTANCE,
        "ewald": how._asdict() | {"method": "spectral", "accuracy": ACCURACY},
        "sets": figures,
    }
    replace_file(out / "random_charges.json", json.dumps(record, indent=1) + "\n")
    return record


def statistics(frames: list[Atoms]) -> dict:
    """Numbers that say what is in a set."""
    per_atom = np.array([atoms.info[ENERGY] / len(atoms) for atoms in frames])
    forces = np.concatenate([atoms.arrays[FORCES] for atoms in frames])
    return {
        "configurations": len(frames),
        "atoms": len(frames[0]),
        "energy_eV_per_atom": [round(float(per_atom.mean()), 5), round(float(per_atom.std()), 5)],
        "force_rms_eV_A": round(float(np.sqrt((forces**2).mean())), 5),
        "largest_force_eV_A": round(float(np.abs(forces).max()), 4),
    }


def main() -> None:
    """Read the options, write the files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0], allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("profiling/.cache/random_charges"), help="a new folder")
    for name, count in COUNTS.items():
        parser.add_argument(f"--{name}", type=int, default=count, help="configurations (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.out.exists():
        parser.error(f"{options.out} is there and is not overwritten; choose another --out")
    begun = time.monotonic()
    make(options.out, {name: getattr(options, name) for name in _SETS}, SUPERCELLS, options.seed)
    print(f"{options.out} written in {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
