"""Small labelled frames and settings for the tests of training: quartz cells, labels of a classical pair potential."""

import functools

import ase.io
import numpy as np
from ase.spacegroup import crystal

from silica_md.ase import Calculator
from silica_md.training import settings

QUARTZ = crystal(
    ["Si", "O"], [(0.4697, 0, 2 / 3), (0.4135, 0.2669, 0.7858)], spacegroup=154,
    cellpar=[4.916, 4.916, 5.4054, 90, 90, 120],
)  # fmt: skip
TINY = {
    "r_max": 3.0,
    "num_interactions": 1,
    "hidden_irreps": "4x0e",
    "MLP_irreps": "4x0e",
    "max_ell": 1,
    "correlation": 1,
    "num_radial_basis": 4,
    "radial_MLP": [8],
    "batch_size": 3,
    "valid_batch_size": 2,
    "max_num_epochs": 4,
    "default_dtype": "float64",
    "device": "cpu",
    "threads": 1,
    "seed": 3,
}
"""A model of a few hundred weights; one core builds it in about a second."""


def labelled(count, seed=0, repeat=1):
    """Shaken, strained quartz cells of 9 · repeat³ atoms with REF_ labels; kinds "soft" and "hard" in turn."""
    return [atoms.copy() for atoms in _labelled(count, seed, repeat)]


@functools.lru_cache
def _labelled(count, seed, repeat):
    random, calculator = np.random.default_rng(seed), Calculator("shik")
    frames = []
    for number in range(count):
        atoms = QUARTZ.repeat(repeat)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + random.uniform(-0.02, 0.02, (3, 3))), scale_atoms=True)
        atoms.positions += random.normal(scale=(0.03, 0.08)[number % 2], size=atoms.positions.shape)
        atoms.calc = calculator
        results = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
        atoms.calc = None
        atoms.arrays = {name: atoms.arrays[name] for name in ("numbers", "positions")} | {"REF_forces": results[1]}
        atoms.info = {
            "config_type": ("soft", "hard")[number % 2], "REF_energy": results[0], "REF_stress": results[2]
        }  # fmt: skip
        frames.append(atoms)
    return frames


def written(path, frames):
    """Write frames as extended XYZ; the name of the file."""
    ase.io.write(path, frames, format="extxyz")
    return str(path)


def tiny(folder, **changes):
    """Settings of a training on ``train.xyz`` and ``valid.xyz`` of a folder, which are made if they are not there."""
    for name, count, seed in (("train", 7, 1), ("valid", 3, 2)):
        if not (folder / f"{name}.xyz").exists():
            written(folder / f"{name}.xyz", labelled(count, seed))
    files = {"train_file": str(folder / "train.xyz"), "valid_file": str(folder / "valid.xyz")}
    return settings.from_dict(TINY | files | changes)
