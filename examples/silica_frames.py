"""Frames of silica for examples/train_silica.toml: crystals shaken and strained, labelled by BKS with Ewald sums.

python examples/silica_frames.py [FOLDER]      writes silica_train.xyz and silica_test.xyz, by default into runs/
"""

import sys
from pathlib import Path

import ase.io
import numpy as np
from ase.spacegroup import crystal

from silica_md.ase import Calculator

CRYSTALS = {
    "quartz": crystal(
        ["Si", "O"], [(0.4697, 0, 2 / 3), (0.4135, 0.2669, 0.7858)], spacegroup=154,
        cellpar=[4.916, 4.916, 5.4054, 90, 90, 120],
    ),
    "cristobalite": crystal(
        ["Si", "O"], [(0.3003, 0.3003, 0.0), (0.2392, 0.1044, 0.1787)], spacegroup=92,
        cellpar=[4.9717, 4.9717, 6.9223, 90, 90, 90],
    ),
}  # fmt: skip


def frames(count, seed, repeat=2, shake=(0.02, 0.1), strain=0.02):
    """Shaken, strained supercells of the crystals in turn; REF_energy, REF_forces, REF_stress of BKS, eV and Å."""
    random, calculator = np.random.default_rng(seed), Calculator("bks", coulomb="ewald")
    made = []
    for number in range(count):
        kind = list(CRYSTALS)[number % len(CRYSTALS)]
        atoms = CRYSTALS[kind].repeat(repeat)
        deformation = np.eye(3) + random.uniform(-strain, strain, (3, 3))
        atoms.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
        atoms.positions += random.normal(scale=random.uniform(*shake), size=atoms.positions.shape)
        atoms.calc = calculator
        energy, forces, stress = (
            atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
        )  # fmt: skip
        atoms.calc, atoms.info = None, {"config_type": kind, "REF_energy": energy, "REF_stress": stress}
        atoms.arrays = {name: atoms.arrays[name] for name in ("numbers", "positions")} | {"REF_forces": forces}
        made.append(atoms)
    return made


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs")
    folder.mkdir(parents=True, exist_ok=True)
    ase.io.write(folder / "silica_train.xyz", frames(40, seed=1), format="extxyz")
    ase.io.write(folder / "silica_test.xyz", frames(10, seed=2), format="extxyz")
