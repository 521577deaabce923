"""Potentials by name: what they compute, against independently computed energies, and what they refuse."""

import json
import math

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

import rsa_kernels as rk
from rsa_kernels.units import KCAL_PER_MOL_IN_EV
from silica_md import potentials
from silica_md.potentials import Potential, SumPotential, functions
from silica_md.state import State

POLYMORPHS = (
    "alpha_quartz",
    "beta_quartz",
    "alpha_cristobalite",
    "beta_cristobalite",
    "coesite",
    "keatite",
    "stishovite",
)
SILICA = [14, 8, 8]


def evaluate(potential, state, **options):
    neighbors = rk.neighbor_list(state.positions, state.cell, state.pbc, potential.cutoff)
    return potential.evaluate(state, neighbors, **options)


def quartz(repeat=(1, 1, 1), rattle=0.05):
    """A rattled alpha-quartz cell that needs no file."""
    u, x, y, z = 0.4697, 0.4135, 0.2669, 0.1191
    basis = [[u, 0, 2 / 3], [0, u, 1 / 3], [1 - u, 1 - u, 0]]
    basis += [[x, y, z + 2 / 3], [1 - y, x - y, z + 1 / 3], [y - x, 1 - x, z]]
    basis += [[y, x, 1 / 3 - z], [1 - x, y - x, 1 - z], [x - y, 1 - y, 2 / 3 - z]]
    atoms = Atoms(
        "Si3O6", scaled_positions=np.mod(basis, 1), cell=[4.916, 4.916, 5.4054, 90, 90, 120], pbc=True
    ).repeat(repeat)
    atoms.rattle(rattle, seed=1)
    return atoms


def analytic_energy(potential, state):
    """The sum over pairs from the analytic functions, without table or kernel; differentiable."""
    neighbors = rk.neighbor_list(state.positions, state.cell, state.pbc, potential.cutoff)
    pairs = rk.pair.reference.per_atom_energy(
        potential.functions, state.positions, state.cell, state.atomic_numbers, neighbors, potential.cutoff
    )
    return pairs.sum() + sum(potential.self_energies.get(z, 0.0) for z in state.atomic_numbers.tolist())


@pytest.mark.parametrize("name", POLYMORPHS)
def test_shik_lattice_energies(shared, name):
    atoms = ase.io.read(shared / "data" / "structures" / f"{name}.cif")
    reference = json.loads((shared / "data" / "potentials.json").read_text())["README"]
    expected = reference["reference_energies_computed_here"]["eV_per_SiO2"][name]["SHIK_total"]
    result = evaluate(potentials.build("shik", atoms.numbers), State.from_ase(atoms))
    assert float(result.energy) / (len(atoms) / 3) == pytest.approx(expected, abs=1e-5)


def test_liu_2019_reference_energy(shared):
    positions = np.loadtxt(shared / "data" / "networks" / "sio2_jaxmd_3000_positions.txt")
    atoms = Atoms("SiO2" * 1000, positions=positions, cell=[35.660930663857577] * 3, pbc=True)
    state = State.from_ase(atoms)
    potential = potentials.build("liu2019", atoms.numbers)
    expected = -857939.5762531 * KCAL_PER_MOL_IN_EV
    assert float(analytic_energy(potential, state)) == pytest.approx(expected, rel=1e-12)
    assert float(evaluate(potential, state).energy) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", POLYMORPHS)
def test_bks_and_pmmcs_against_ewald_totals(shared, name):
    """Their difference has no Coulomb part, the charges being equal, so it holds whatever its method."""
    atoms = ase.io.read(shared / "data" / "structures" / f"{name}.cif")
    reference = json.loads((shared / "data" / "potentials.json").read_text())["README"]
    expected = reference["reference_energies_computed_here"]["eV_per_SiO2"][name]
    bks, pmmcs = (
        float(evaluate(potentials.build(name, atoms.numbers, **options), State.from_ase(atoms)).energy)
        / (len(atoms) / 3)
        for name, options in (("bks", {"repair": False}), ("pmmcs", {}))
    )
    assert bks - pmmcs == pytest.approx(expected["BKS_total"] - expected["PMMCS_total"], abs=3e-6)
    assert bks == pytest.approx(expected["BKS_total"], abs=0.06)  # what DSF at 10 Å leaves out


@pytest.mark.parametrize("name", potentials.NAMES)
def test_table_against_analytic_functions(name):
    state = State.from_ase(quartz())
    potential = potentials.build(name, state.atomic_numbers)
    positions = state.positions.clone().requires_grad_()
    strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    deformation = torch.eye(3, dtype=torch.float64) + (strain + strain.T) / 2
    energy = analytic_energy(potential, state.at(positions @ deformation, state.cell @ deformation))
    gradient, slope = torch.autograd.grad(energy, (positions, strain))
    result = evaluate(potential, state, per_atom_energy=True)
    torch.testing.assert_close(result.energy, energy.detach(), rtol=1e-8, atol=0)
    torch.testing.assert_close(result.forces, -gradient, rtol=0, atol=1e-6)
    torch.testing.assert_close(result.virial, -slope, rtol=0, atol=1e-5)
    torch.testing.assert_close(result.per_atom_energy.sum(), result.energy, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", potentials.NAMES)
def test_forces_and_virial_are_derivatives_of_the_energy(name):
    state = State.from_ase(quartz())
    potential = potentials.build(name, state.atomic_numbers)
    result = evaluate(potential, state)
    h = 1e-4
    direction = torch.randn(state.positions.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    up, down = (float(evaluate(potential, state.at(state.positions + s * h * direction)).energy) for s in (1, -1))
    assert (down - up) / (2 * h) == pytest.approx(float((result.forces * direction).sum()), abs=1e-5)
    strain = torch.tensor([[0.3, 0.1, -0.2], [0.1, -0.5, 0.4], [-0.2, 0.4, 0.2]], dtype=torch.float64)
    energies = []
    for s in (1, -1):
        deformation = torch.eye(3, dtype=torch.float64) + s * h * strain
        energies.append(
            float(evaluate(potential, state.at(state.positions @ deformation, state.cell @ deformation)).energy)
        )
    # truncated potentials jump by up to 0.2 meV when a pair crosses the cutoff
    tolerance = 1e-4 if name == "shik" else 20.0
    assert (energies[1] - energies[0]) / (2 * h) == pytest.approx(float((result.virial * strain).sum()), abs=tolerance)


@pytest.mark.parametrize("name, options", [("bks", {}), ("pmmcs", {}), ("bks", {"alpha": 0.25, "cutoff": 8.0})])
def test_shifted_changes_no_force_and_removes_the_jump(name, options):
    state = State.from_ase(quartz())
    truncated, shifted = (potentials.build(name, state.atomic_numbers, shifted=s, **options) for s in (False, True))
    torch.testing.assert_close(evaluate(shifted, state).forces, evaluate(truncated, state).forces, rtol=0, atol=1e-8)
    edge = torch.tensor([shifted.cutoff], dtype=torch.float64)
    assert all(abs(float(f(edge))) < 1e-15 for f in shifted.functions.values())


def test_energy_of_a_pair_by_hand():
    """SHIK: two atoms 2 Å apart and a third far away, from the published formula in plain Python."""
    atoms = Atoms("SiO2", positions=[[0, 0, 0], [0, 0, 2.0], [0, 0, 30.0]])
    potential = potentials.build("shik", atoms.numbers)
    k, r = 14.3996454785, 2.0

    def switch(cutoff):
        return math.exp(-0.04 / (r - cutoff) ** 2)

    def repulsion(r):
        return 23107.84764 * math.exp(-5.097856735 * r) - 139.6947857 / r**6 + 66 / r**24

    coulomb = k * 1.7755 * -0.88775 * (1 / r - 1 / 10 + (r - 10) / 100) * switch(10.0)
    expected = (repulsion(r) - repulsion(8.0)) * switch(8.0) + coulomb
    assert float(evaluate(potential, State.from_ase(atoms)).energy) == pytest.approx(expected, rel=1e-7)


def test_shik_oxygen_charge_follows_from_neutrality():
    assert potentials.build("shik", SILICA).charges[8] == pytest.approx(-0.88775, abs=1e-12)
    ns20 = [14] * 8 + [11] * 4 + [8] * 18
    built = potentials.build("shik", ns20)
    assert built.charges[8] == pytest.approx(-0.92284, abs=5e-6)
    assert set(built.functions) == {(8, 8), (8, 11), (8, 14), (11, 11), (11, 14), (14, 14)}


def test_dsf_makes_the_madelung_energy():
    """The damped-shifted sum with its self term approaches the Ewald energy of rock salt."""
    atoms = bulk("NaCl", "rocksalt", a=2.0, cubic=True).repeat(3)
    charges = torch.tensor(np.where(atoms.numbers == 11, 1.0, -1.0))
    cutoff, alpha = 12.0, 0.25
    energy = len(atoms) * functions.dsf_self_energy(1.0, alpha, cutoff)
    state = State.from_ase(atoms)
    neighbors = rk.neighbor_list(state.positions, state.cell, state.pbc, cutoff)
    i, j = neighbors.edge_index
    r = neighbors.distances(state.positions, state.cell)
    energy += float((charges[i] * charges[j] * functions.coulomb_dsf(r, 1.0, alpha, cutoff)).sum()) / 2
    assert energy / (len(atoms) / 2) == pytest.approx(-1.7475645946 * 14.3996454785, rel=2e-3)


@pytest.mark.parametrize("derivative", [0, 1, 2])
def test_smooth_cutoff_has_no_nan_at_the_cutoff(derivative):
    r = torch.tensor([7.0, 7.9, np.nextafter(8.0, 0), 8.0, np.nextafter(8.0, 9), 9.0], dtype=torch.float64)
    r.requires_grad_()
    value = functions.smooth_cutoff(r, 8.0, 0.2)
    for _ in range(derivative):
        (value,) = torch.autograd.grad(value.sum(), r, create_graph=True)
    assert torch.isfinite(value).all()
    assert (value[2:] == 0).all()
    assert (value[:2] != 0).all()


def test_sum_potential_adds_its_parts_over_one_list():
    state = State.from_ase(quartz())
    parts = [potentials.build(name, state.atomic_numbers) for name in ("shik", "liu2019")]
    total = SumPotential(parts)
    assert total.cutoff == 10.0
    assert total.name == "shik+liu2019"
    assert isinstance(total, Potential)
    neighbors = rk.neighbor_list(state.positions, state.cell, state.pbc, total.cutoff, skin=0.5)
    result = total.evaluate(state, neighbors, per_atom_energy=True)
    alone = [evaluate(part, state, per_atom_energy=True) for part in parts]
    assert result.clearance is None  # on a CPU atoms that are too close have raised
    for got, *expected in zip(result[:4], *(part[:4] for part in alone), strict=True):
        torch.testing.assert_close(got, sum(expected), rtol=1e-12, atol=1e-10)
    only_forces = total.evaluate(state, neighbors, energy=False, virial=False)
    assert only_forces.energy is None and only_forces.virial is None and only_forces.per_atom_energy is None


REFUSED = [
    ("shikk", SILICA, {}, r"unknown potential 'shikk'.*did you mean 'shik'"),
    ("bks", SILICA, {"cuttoff": 8.0}, r"unknown option of potential 'bks' 'cuttoff'.*did you mean 'cutoff'"),
    ("bks", [14, 8], {}, r"needs a neutral composition, got total charge \+1\.2 e for O1 Si1"),
    ("bks", [14, 8, 8, 11, 11, 8], {}, r"'bks' has parameters for O, Si, got Na"),
    ("shik", [14, 8, 8, 19], {}, r"'shik' has parameters for O, Na, Si, got K"),
    ("shik", [14, 8], {}, r"Si1 Na0 needs about 2 O, got 1"),
    ("pmmcs", [], {}, r"`atomic_numbers` must have shape"),
    ("pmmcs", SILICA, {"alpha": -1.0}, r"`alpha` must be at least 0"),
    ("bks", SILICA, {"cutoff": 0.5}, r"`cutoff` must be above 0.9 Å"),
    ("bks", SILICA, {"cutoff": math.nan}, r"`cutoff` must be above 0.9 Å"),
]


@pytest.mark.parametrize("name, numbers, options, message", REFUSED)
def test_wrong_inputs_are_refused(name, numbers, options, message):
    with pytest.raises(ValueError, match=message):
        potentials.build(name, numbers, **options)


def test_another_composition_is_refused():
    potential = potentials.build("shik", SILICA)
    with pytest.raises(ValueError, match="needs a neutral composition"):
        potential.check_composition(torch.tensor([14, 8, 8, 8]))


def test_atoms_inside_the_table_are_an_error():
    atoms = Atoms("SiO2", positions=[[0, 0, 0], [0, 0, 0.5], [0, 0, 5.0]])
    with pytest.raises(rk.errors.AtomsTooCloseError):
        evaluate(potentials.build("shik", atoms.numbers), State.from_ase(atoms))
