"""The registry: everything that can be benched, with its inputs, rivals and the tests that vouch for it."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Sequence

import torch

import rsa_kernels as rk
from rsa_kernels import random
from silica_md import potentials

from . import attention, dispersion, lammps, mace_step, md_step, neighbors, observers, rings, structure
from .harness import Case, Workload, timed
from .start import glass

CUTOFF, SKIN = 10.0, 1.0


def pair(size: int, rivals: Sequence[str], device: str, start: str | None) -> list[Workload]:
    """Set up energy, forces and virial of SHIK in one pass, against the definition in plain torch."""
    state = glass(size, start).to(device)
    shik = potentials.build("shik", state.atomic_numbers)
    neighbors = rk.neighbor_list(state.positions, state.cell, state.pbc, CUTOFF, skin=SKIN)
    table, arguments = shik.table.to(device), (state.positions, state.cell, state.atomic_numbers, neighbors)
    implementations = {
        "rsa_kernels": timed(lambda: rk.pair.evaluate(table, *arguments), device),
        "rsa_kernels, forces only": timed(lambda: rk.pair.evaluate(table, *arguments, energy=False, virial=False)),
    }
    if "reference" in rivals:

        def reference():
            positions = state.positions.clone().requires_grad_()
            energy = rk.pair.reference.per_atom_energy(
                shik.functions, positions, state.cell, state.atomic_numbers, neighbors, CUTOFF
            )
            torch.autograd.grad(energy.sum(), positions)

        implementations["reference (torch autograd)"] = timed(reference, device)
    listed = int(neighbors.rows[-1])
    inside = int((neighbors.distances(state.positions, state.cell) < CUTOFF).sum())
    return [
        Workload(
            variant="shik",
            size=state.n_atoms,
            device=device,
            unit="atom",
            work=state.n_atoms,
            implementations=implementations,
            flops=md_step.FLOPS_PER_LISTED * listed
            + (md_step.FLOPS_PER_PAIR + md_step.FLOPS_OF_ENERGY_AND_VIRIAL) * inside,
            bytes=4 * listed + 64 * neighbors.owners.numel() + 48 * state.n_atoms,
            lookups=inside,
        )
    ]


def random_normal(size: int, rivals: Sequence[str], device: str, start: str | None) -> list[Workload]:
    """Set up three normals an atom from the counter-based generator, against torch's own generator."""
    ids = torch.arange(size, device=device)
    out = torch.empty(size, 3, dtype=torch.float64, device=device)
    implementations = {"rsa_kernels": timed(lambda: random.normal(1, 2, ids, 0, out=out), device)}
    if "torch" in rivals:
        implementations["torch.randn"] = timed(lambda: torch.randn(size, 3, dtype=torch.float64, device=device), device)
    return [
        Workload(
            variant="philox",
            size=size,
            device=device,
            unit="atom",
            work=size,
            implementations=implementations,
            versions=_versions(implementations),
            bytes=(8 + 24) * size,
        )
    ]


def _versions(implementations) -> dict[str, str]:
    packages = {name: name.split(".")[0] for name in implementations if not name.startswith("rsa_kernels")}
    return {name: importlib.metadata.version(package) for name, package in packages.items()}


ATTENTION_TESTS = (
    "tests/test_reciprocal.py",
    "tests/test_reciprocal_derivatives.py",
    "tests/test_reciprocal_grid.py",
)
CASES = {
    case.name: case
    for case in (
        Case(
            name="attention",
            what="reciprocal-space attention, one head, 1,024 waves of the full space, forward and backward",
            tests=ATTENTION_TESTS,
            sizes=(648, 3000),
            rivals=("published", "dense"),
            prepare=attention.published,
        ),
        Case(
            name="attention-growth",
            what="reciprocal-space attention, 16 heads of width 4, k_cut 1.6 1/Å, forward and backward, growing",
            tests=ATTENTION_TESTS,
            sizes=(3000, 24000, 192000, 1000000),
            rivals=(),
            prepare=attention.growth,
        ),
        Case(
            name="attention-methods",
            what="the same by every method, and what auto takes",
            tests=ATTENTION_TESTS,
            sizes=(100, 200, 400, 800, 1500, 3000, 5000, 8000, 14000, 24000),
            rivals=("pairwise", "spectral", "grid"),
            prepare=attention.methods,
        ),
        Case(
            name="dispersion",
            what="energy, forces and virial of PBE-D3(BJ) in silica at 9, 12 and 15 Å",
            tests=("tests/test_dispersion_op.py", "tests/test_dispersion.py"),
            sizes=(648, 3000),
            rivals=("nvalchemi", "simple-dftd3"),
            prepare=dispersion.prepare,
            unavailable={name: dispersion.unavailable(name) for name in ("nvalchemi", "simple-dftd3")},
        ),
        Case(
            name="dispersion-step",
            what="steps of MACE (random weights, float32) with PBE-D3(BJ) at 15 Å and without",
            tests=("tests/test_dispersion_op.py", "tests/test_dispersion.py"),
            sizes=(648,),
            rivals=("mace",),
            prepare=dispersion.steps,
        ),
        Case(
            name="mace-step",
            what="steps of NVE with MACE, short-range and with attention, beside the network alone",
            tests=("tests/test_mace_potential.py", "tests/test_torchsim.py"),
            sizes=(24, 648, 3000),
            rivals=("ase", "torch-sim"),
            prepare=mace_step.prepare,
            unavailable={name: functools.partial(mace_step.unavailable, name) for name in mace_step.PACKAGES},
        ),
        Case(
            name="md-step",
            what="200 steps of NVE, SHIK and BKS-DSF at 10 Å, energies and pressure every 10 steps",
            tests=(
                "tests/test_pair.py",
                "tests/test_neighbors.py",
                "tests/test_potentials.py",
                "tests/test_potentials_tables.py",
                "tests/test_lammps.py",
                "tests/test_integrators.py",
            ),
            sizes=(3000, 24000),
            rivals=("lammps",),
            prepare=md_step.prepare,
            unavailable={"lammps": lammps.unavailable},
        ),
        Case(
            name="neighbor-list",
            what="neighbour lists of a glass: pairs i j S and a padded matrix at 5 Å, rows at 11 Å",
            tests=("tests/test_neighbors.py", "tests/test_neighbors_forms.py", "tests/test_neighbors_fuzz.py"),
            sizes=(3000, 24000, 192000, 1029000),
            rivals=("vesin", "matscipy", "nvalchemi"),
            prepare=neighbors.prepare,
            unavailable={name: neighbors.unavailable(name) for name in ("vesin", "matscipy", "nvalchemi")},
        ),
        Case(
            name="observers",
            what="samples of the structure during a run: S(Q), rings, bonds, and their share of a default run",
            tests=("tests/test_structure_log.py",),
            sizes=(3000,),
            rivals=(),
            prepare=observers.prepare,
        ),
        Case(
            name="pair",
            what="one pass over a tabulated pair potential: energy, forces, virial",
            tests=(
                "tests/test_pair.py",
                "tests/test_pair_derivatives.py",
                "tests/test_pair_table.py",
                "tests/test_potentials_tables.py",
            ),
            sizes=(3000, 24000),
            rivals=("reference",),
            prepare=pair,
        ),
        Case(
            name="random-normal",
            what="counter-based normals, three an atom",
            tests=("tests/test_random.py",),
            sizes=(3000, 24000),
            rivals=("torch",),
            prepare=random_normal,
        ),
        Case(
            name="rings",
            what="ring statistics of a tiled glass: King, Guttman, primitive",
            tests=("tests/test_rings.py", "tests/test_rings_op.py", "tests/test_rings_data.py"),
            sizes=(3000, 24000, 192000, 1029000),
            rivals=("matscipy", "sovapy"),
            prepare=rings.prepare,
        ),
        Case(
            name="structure-factor",
            what="partial S(Q) of a glass: beside others at as many k-vectors, and to 10 and 25 1/Å",
            tests=(
                "tests/test_structure.py",
                "tests/test_structure_derivatives.py",
                "tests/test_structure_pairs.py",
                "tests/test_structure_rivals.py",
            ),
            sizes=(3000, 24000, 192000, 1029000),
            rivals=("dynasor", "freud"),
            prepare=structure.prepare,
            unavailable={name: functools.partial(structure.unavailable, name) for name in structure.PACKAGES},
        ),
    )
}
