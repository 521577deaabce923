"""D3(BJ) dispersion: against simple-dftd3, its own derivatives, symmetries; and in sums, runs and calculators."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.fd import calculate_numerical_stress
from test_ewald_quench import final
from test_potentials import evaluate, quartz
from test_quench import execute, thermo

import rsa_kernels as rk
from rsa_kernels.dispersion import reference
from rsa_kernels.errors import BackendUnavailableError
from rsa_kernels.units import BOHR_IN_A, HARTREE_IN_EV
from silica_md import config, potentials, quench
from silica_md.ase import Calculator
from silica_md.cli import main
from silica_md.errors import ConfigError
from silica_md.forcefield import ForceField
from silica_md.potentials import Evaluation, LearnedPotential, SumPotential, dispersion, with_dispersion
from silica_md.potentials.d3_parameters import functionals
from silica_md.state import State

pytestmark = pytest.mark.usefixtures("one_thread")

DOUBLE = torch.float64


def triclinic():
    """Si, O, Na and H, 1.0 Å and more apart, in a cell without right angles."""
    scaled = np.random.default_rng(5).permutation(
        [[i / 3, j / 2, k / 2] for i in range(3) for j in (0, 1) for k in (0, 1)]
    )
    cell = [[7.0, 0.4, -0.6], [1.8, 4.6, 0.5], [-1.1, 0.9, 5.0]]
    atoms = Atoms("SiSiO2O2NaNaH2OO", scaled_positions=scaled, cell=cell, pbc=True)
    atoms.rattle(0.25, seed=2)
    return atoms


def molecule():
    """A silanol beside sodium hydroxide."""
    return Atoms(
        "SiO4H4NaOH",
        positions=[
            [0.0, 0.0, 0.0], [0.93, 0.94, 0.92], [-0.95, -0.92, 0.94], [0.94, -0.93, -0.95], [-0.92, 0.95, -0.93],
            [1.5, 1.6, 0.9], [-1.6, -1.4, 1.1], [1.4, -1.6, -1.2], [-1.5, 1.2, -1.6],
            [3.6, 0.4, 0.2], [5.5, 0.6, 0.3], [6.2, 1.2, 0.5],
        ],
    )  # fmt: skip


STRUCTURES = {"quartz": quartz, "triclinic": triclinic, "molecule": molecule}


def state_of(name):
    return State.from_ase(STRUCTURES[name]())


def simple_dftd3(state, functional, cutoff):
    """Energy, forces and virial of simple-dftd3 without the three-body term, pairs and counts cut at one distance."""
    interface = pytest.importorskip("dftd3.interface")
    lattice = (state.cell.numpy() / BOHR_IN_A, state.pbc.numpy()) if bool(state.pbc.any()) else (None, None)
    model = interface.DispersionModel(state.atomic_numbers.numpy(), state.positions.numpy() / BOHR_IN_A, *lattice)
    model.set_realspace_cutoff(disp2=cutoff / BOHR_IN_A, disp3=1.0, cn=cutoff / BOHR_IN_A)
    parameters = interface.RationalDampingParam(method=functional, atm=False)
    result = model.get_dispersion(parameters, grad=True)
    forces = -result["gradient"] * HARTREE_IN_EV / BOHR_IN_A
    return result["energy"] * HARTREE_IN_EV, forces, -result["virial"] * HARTREE_IN_EV


# --- what is computed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("functional", ["pbe", "revPBE", "rpbe", "pbe0", "b3-lyp", "blyp", "scan", "r2scan", "hse06"])
@pytest.mark.parametrize("name", STRUCTURES)
def test_energy_forces_and_virial_against_simple_dftd3(name, functional):
    """Pairs and counts end abruptly at 15 Å in both; neither has the three-body term."""
    state = state_of(name)
    result = evaluate(dispersion(functional, state.atomic_numbers, cutoff=15.0, width=0.0), state)
    energy, forces, virial = simple_dftd3(state, functional, 15.0)
    assert float(result.energy) < -0.05
    assert float(result.energy) == pytest.approx(energy, rel=1e-10)
    np.testing.assert_allclose(result.forces, forces, rtol=0, atol=2e-10)
    if name != "molecule":  # its virial has no volume to go with
        np.testing.assert_allclose(result.virial, virial, rtol=0, atol=1e-9)


def test_a_long_smooth_cutoff_comes_to_the_sum_without_one():
    """A molecule that ends well within the cutoff: nothing fades, and simple-dftd3 with its usual cutoffs agrees."""
    state = state_of("molecule")
    result = evaluate(dispersion("pbe", state.atomic_numbers, cutoff=40.0, width=5.0), state)
    energy, forces, _ = simple_dftd3(state, "pbe", 60 * BOHR_IN_A)
    assert float(result.energy) == pytest.approx(energy, rel=1e-10)
    np.testing.assert_allclose(result.forces, forces, rtol=0, atol=2e-10)


@pytest.mark.parametrize("name", STRUCTURES)
def test_forces_and_virial_are_derivatives_of_the_energy(name):
    """Of a sum with many pairs in the fading zone; the third derivative jumps at its ends, so the steps are short."""
    state = state_of(name)
    potential = dispersion("pbe", state.atomic_numbers, cutoff=6.0, width=2.0)
    result = evaluate(potential, state)
    generator = torch.Generator().manual_seed(3)
    direction = torch.randn(state.positions.shape, generator=generator, dtype=DOUBLE)
    strain = torch.randn(3, 3, generator=generator, dtype=DOUBLE) * 0.3
    strain = strain + strain.T

    def slope(move, h=2e-4):
        energy = {s: float(evaluate(potential, move(s * h)).energy) for s in (-2, -1, 1, 2)}
        return (8 * (energy[1] - energy[-1]) - (energy[2] - energy[-2])) / (12 * h)

    along = slope(lambda x: state.at(state.positions + x * direction))
    assert along == pytest.approx(-float((result.forces * direction).sum()), abs=2e-9)

    def strained(x):
        deformation = torch.eye(3, dtype=DOUBLE) + x * strain
        return state.at(state.positions @ deformation, state.cell @ deformation)

    assert slope(strained) == pytest.approx(-float((result.virial * strain).sum()), abs=1e-8)
    torch.testing.assert_close(result.forces.sum(0), torch.zeros(3, dtype=DOUBLE), rtol=0, atol=1e-14)


def dimer(distance):
    return State.from_ase(Atoms("SiO", positions=[[0, 0, 0], [distance, 0, 0]]))


def test_a_pair_crosses_the_cutoff_without_a_jump():
    """The energy ends as the third power of what is left and the force as the second; cut abruptly both would jump."""
    smooth = dispersion("pbe", [14, 8], cutoff=6.0, width=1.0)
    abrupt = dispersion("pbe", [14, 8], cutoff=6.0, width=0.0)
    jump = evaluate(abrupt, dimer(6.0 - 1e-9))
    assert float(jump.energy) < -5e-4 and jump.forces.abs().max() > 5e-4
    for gap in (1e-1, 1e-2, 1e-3):
        before = evaluate(smooth, dimer(6.0 - gap))
        assert 0.0 < float(before.energy / jump.energy) < 11 * gap**3
        assert 0.0 < float(before.forces.abs().max() / jump.energy.abs()) < 33 * gap**2
    beyond = evaluate(smooth, dimer(6.0))
    assert float(beyond.energy) == 0.0 and not beyond.forces.any() and not beyond.virial.any()


def test_nothing_jumps_when_atoms_cross_in_a_crystal():
    """An atom is moved in small steps; pairs and counts of many others come and go. Second differences stay small."""
    state = State.from_ase(quartz((2, 2, 2)))

    def roughness(width, step=2e-3):
        potential, forces, energies = dispersion("pbe", state.atomic_numbers, cutoff=5.0, width=width), [], []
        for number in range(200):
            positions = state.positions.clone()
            positions[0, 0] += number * step
            result = evaluate(potential, state.at(positions))
            energies.append(result.energy)
            forces.append(result.forces)
        return [float(torch.stack(x).diff(n=2, dim=0).abs().max()) for x in (energies, forces)]

    smooth, abrupt = roughness(1.5), roughness(0.0)
    assert smooth[0] < 2e-6 and smooth[1] < 4e-6
    assert abrupt[0] > 1e3 * smooth[0] and abrupt[1] > 1e2 * smooth[1]


@pytest.mark.parametrize("name", ["quartz", "triclinic"])
def test_symmetries(name):
    state = state_of(name)
    potential = dispersion("pbe", state.atomic_numbers, cutoff=7.0, width=1.0)
    result = evaluate(potential, state, per_atom_energy=True)
    same = {"rtol": 1e-12, "atol": 1e-13}
    torch.testing.assert_close(result.per_atom_energy.sum(), result.energy, **same)
    shifts = torch.tensor([[1, -2, 0], [0, 3, 1], [0, 0, 0]], dtype=DOUBLE).repeat(len(state.positions), 1)
    moved = state.positions + torch.tensor([0.3, -5.0, 11.0], dtype=DOUBLE) + shifts[: state.n_atoms] @ state.cell
    torch.testing.assert_close(evaluate(potential, state.at(moved)).forces, result.forces, rtol=0, atol=1e-13)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=DOUBLE))[0]
    turned = evaluate(potential, state.at(state.positions @ turn, state.cell @ turn))
    torch.testing.assert_close(turned.energy, result.energy, **same)
    torch.testing.assert_close(turned.forces, result.forces @ turn, rtol=0, atol=1e-13)
    torch.testing.assert_close(turned.virial, turn.T @ result.virial @ turn, rtol=0, atol=1e-12)
    order = torch.randperm(state.n_atoms, generator=torch.Generator().manual_seed(1))
    shuffled = State.from_ase(STRUCTURES[name]()[order.numpy()])
    torch.testing.assert_close(evaluate(potential, shuffled).forces, result.forces[order], rtol=0, atol=1e-13)
    other = torch.tensor([[1, 1, 0], [0, 1, 0], [0, -1, 1]], dtype=DOUBLE) @ state.cell
    torch.testing.assert_close(evaluate(potential, state.at(state.positions, other)).virial, result.virial, **same)
    double = evaluate(potential, State.from_ase(STRUCTURES[name]().repeat((2, 1, 3))))
    torch.testing.assert_close(double.energy, 6 * result.energy, **same)
    torch.testing.assert_close(double.virial, 6 * result.virial, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(double.forces, result.forces.repeat(6, 1), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_float32_kernel_of_nvalchemi(name):
    """Within what float32 and its neglect of reference systems below exp(−12) = 6e-6 leave, where counts end alike."""
    pytest.importorskip("nvalchemiops")
    state = state_of(name)
    ours, theirs = (
        dispersion("pbe", state.atomic_numbers, cutoff=9.0, width=0.0, kernel=kernel)
        for kernel in ("auto", "nvalchemi")
    )
    neighbors = rk.neighbor_list(state.positions, state.cell, state.pbc, 9.0, skin=1.0)
    exact = ours.evaluate(state, neighbors, per_atom_energy=True)
    result = theirs.evaluate(state, neighbors, per_atom_energy=True)
    assert {value.dtype for value in result[:4]} == {DOUBLE}
    assert abs(float(result.energy - exact.energy)) < 1e-7 * state.n_atoms
    torch.testing.assert_close(result.per_atom_energy, exact.per_atom_energy, rtol=0, atol=1e-6)
    torch.testing.assert_close(result.forces, exact.forces, rtol=0, atol=3e-5)
    torch.testing.assert_close(result.virial, exact.virial, rtol=0, atol=1e-5 * state.n_atoms)
    # The skin has not been counted.
    bare = rk.neighbor_list(state.positions, state.cell, state.pbc, 9.0)
    torch.testing.assert_close(theirs.evaluate(state, bare).forces, result.forces, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_switch_of_nvalchemi_is_ours_on_pairs_and_not_on_the_count(name, monkeypatch):
    pytest.importorskip("nvalchemiops")
    state = state_of(name)
    potential = dispersion("pbe", state.atomic_numbers, cutoff=9.0, width=2.0, kernel="nvalchemi")
    result = evaluate(potential, state)
    counted, abrupt = reference.coordination, dataclasses.replace(potential.table, width=0.0)
    monkeypatch.setattr(reference, "coordination", lambda table, *arguments: counted(abrupt, *arguments))
    neighbors = rk.neighbor_list(state.positions, state.cell, state.pbc, 9.0)
    positions, species = state.positions.clone().requires_grad_(), potential.table.species(state.atomic_numbers).long()
    energy = reference.per_atom_energy(potential.table, positions, state.cell, species, neighbors).sum()
    assert abs(float(result.energy - energy.detach())) < 1e-7 * state.n_atoms
    torch.testing.assert_close(result.forces, -torch.autograd.grad(energy, positions)[0], rtol=0, atol=3e-5)


# --- sums --------------------------------------------------------------------------------------------------------


def test_a_sum_with_another_potential():
    state = State.from_ase(quartz())
    shik = potentials.build("shik", state.atomic_numbers)
    total = with_dispersion(shik, "pbe", state.atomic_numbers, cutoff=12.0)
    assert total.name == "shik+d3" and total.cutoff == 12.0 and total.dispersion == "PBE-D3(BJ)"
    result = evaluate(total, state, per_atom_energy=True)
    alone = [evaluate(part, state, per_atom_energy=True) for part in total.potentials]
    for got, *expected in zip(result[:4], *(part[:4] for part in alone), strict=True):
        torch.testing.assert_close(got, sum(expected), rtol=1e-12, atol=1e-10)


class Short:
    """A potential of a short cutoff that keeps what it is handed."""

    name, cutoff = "short", 4.0

    def __init__(self):
        self.lists = []

    def evaluate(self, state, neighbors, *, energy=True, virial=True, per_atom_energy=False):
        """Return nothing but zeros."""
        self.lists.append(neighbors)
        zero = torch.zeros((), dtype=DOUBLE)
        return Evaluation(zero, torch.zeros_like(state.positions), torch.zeros(3, 3, dtype=DOUBLE))


def test_a_part_is_handed_the_pairs_within_its_own_cutoff():
    """And the skin; derived once after a rebuild, valid as long as the long list, the same as a list of its own."""
    state = State.from_ase(quartz((2, 2, 2)))
    short = Short()
    field = ForceField(SumPotential([short, dispersion("pbe", state.atomic_numbers, cutoff=9.0)]), skin=0.6)
    field.evaluate(state)
    near = state.at(state.positions + 0.1)
    field.evaluate(near)
    assert short.lists[0] is short.lists[1] is not field.neighbors
    derived = short.lists[0]
    assert (derived.cutoff, derived.skin) == (4.0, 0.6)
    own = rk.neighbor_list(state.positions, state.cell, state.pbc, 4.0, skin=0.6)
    assert torch.equal(derived.edge_index, own.edge_index) and torch.equal(derived.unit_shifts, own.unit_shifts)
    assert derived.used_skin(near.positions, near.cell) <= 0.6
    generator = torch.Generator().manual_seed(1)
    far = state.at(state.positions + 0.4 * torch.rand(state.positions.shape, generator=generator, dtype=DOUBLE))
    field.evaluate(far)
    assert field.neighbors.n_rebuilds == 1
    fresh = rk.neighbor_list(far.positions, far.cell, far.pbc, 4.0, skin=0.6)
    assert short.lists[2] is not derived and torch.equal(short.lists[2].edge_index, fresh.edge_index)


def test_a_list_within_another_keeps_a_skin():
    state = State.from_ase(quartz((2, 2, 2)))
    outer = rk.neighbor_list(state.positions, state.cell, state.pbc, 6.0, skin=0.5)
    inner = outer.within(4.0, skin=0.5)
    assert not inner.update(state.positions + 0.1, state.cell)
    moved = state.positions.clone()
    moved[0] += 0.3
    assert inner.update(moved, state.cell) and inner.n_rebuilds == 1
    fresh = rk.neighbor_list(moved, state.cell, state.pbc, 4.0, skin=0.5)
    assert torch.equal(inner.edge_index, fresh.edge_index)
    outer.within(6.0, skin=0.5)
    with pytest.raises(ValueError, match=r"every pair within 6\.6 Å"):
        outer.within(6.0, skin=0.6)
    with pytest.raises(ValueError, match="`skin` must be zero or positive"):
        outer.within(4.0, skin=-0.1)


class Labelled(Short):
    """A potential whose training labels contain dispersion."""

    name, dispersion = "mine", "PBE-D3(BJ)"


def test_dispersion_is_not_added_twice(tmp_path, monkeypatch):
    state = State.from_ase(quartz())
    said = r"potential 'mine' already contains PBE-D3\(BJ\): its labels or parameters hold dispersion"
    with pytest.raises(ValueError, match=said):
        with_dispersion(Labelled(), "pbe", state.atomic_numbers)
    once = dispersion("pbe", state.atomic_numbers)
    with pytest.raises(ValueError, match=r"counted twice: potential 'd3' contains PBE-D3\(BJ\), potential 'mine'"):
        SumPotential([Short(), once, Labelled()])
    with pytest.raises(ValueError, match=r"'short\+d3' already contains PBE-D3"):
        with_dispersion(SumPotential([Short(), once]), "scan", state.atomic_numbers)
    atoms = quartz()
    atoms.calc = Calculator(Labelled(), d3="pbe")
    with pytest.raises(ValueError, match=said):
        atoms.get_potential_energy()
    monkeypatch.setattr(potentials, "build", lambda *_, **__: Labelled())
    with pytest.raises(ValueError, match=said):
        execute(tmp_path / "run", d3="pbe")
    assert not (tmp_path / "run").exists()


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("functional", "numbers", "options", "message"),
    [
        ("pbee", [14, 8], {}, r"unknown functional 'pbee' of D3\(BJ\); did you mean 'pbe'\?"),
        ("R2-SCAM", [14, 8], {}, r"did you mean 'r2scan'\?"),
        ("???", [14, 8], {}, r"unknown functional '\?\?\?' of D3\(BJ\); known are b1b95, .*pbe0"),
        ("m08hx", [14, 8], {}, "functional 'm08hx' has no Becke–Johnson damping"),
        ("pbe", [14, 104], {}, "potential 'd3' has parameters for H, .* Lr, got Rf"),
        ("pbe", [], {}, "`atomic_numbers` must have shape"),
        ("pbe", [14, 8], {"cutof": 9.0}, "unknown option `cutof` of D3, known are cutoff, width, kernel"),
        ("pbe", [14, 8], {"kernel": "fast"}, "`kernel` of D3 must be one of auto, rsa_kernels, nvalchemi, got 'fast'"),
        ("pbe", [14, 8], {"cutoff": "long"}, "`cutoff` of D3 must be a number, got 'long'"),
        ("pbe", [14, 8], {"cutoff": -9}, "`cutoff` must be positive"),
        ("pbe", [14, 8], {"cutoff": 5.0, "width": 5.0}, "`width` must be from 0 to below the cutoff of 5.0 Å"),
    ],
)
def test_wrong_inputs_are_refused(functional, numbers, options, message):
    with pytest.raises(ValueError, match=message):
        dispersion(functional, numbers, **options)


def test_another_composition_and_a_short_list_are_refused():
    state = State.from_ase(quartz())
    potential = dispersion("pbe", state.atomic_numbers, cutoff=8.0)
    with pytest.raises(ValueError, match="'d3' has parameters for O, Si, got Na"):
        potential.check_composition(torch.tensor([14, 8, 11]))
    short = rk.neighbor_list(state.positions, state.cell, state.pbc, 7.0, skin=1.0)
    with pytest.raises(ValueError, match=r"`neighbors` reaches 7\.0 Å, but the table needs 8\.0 Å"):
        potential.evaluate(state, short)


def test_every_functional_that_is_listed_has_parameters():
    names = functionals()
    assert len(names) > 100 and {"pbe", "revpbe", "rpbe", "pbe0", "b3lyp", "blyp", "scan", "r2scan", "hse06"} <= {
        *names
    }
    for name in names:
        assert dispersion(name, [8]).dispersion == f"{name.upper()}-D3(BJ)"


@pytest.mark.parametrize(
    ("module", "package", "kernel"),
    [
        ("tad_dftd3", "tad-dftd3", "auto"),
        ("warp", "nvalchemi-toolkit-ops", "nvalchemi"),
        ("nvalchemiops.torch.interactions.dispersion", "nvalchemi-toolkit-ops", "nvalchemi"),
    ],
)
def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch, module, package, kernel):
    state = State.from_ase(quartz())
    for name in [name for name in sys.modules if name == module or name.startswith(module + ".")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        BackendUnavailableError, match=rf"D3 dispersion needs {package},.*pip install 'silica-md\[d3\]'"
    ):
        evaluate(dispersion("pbe", state.atomic_numbers, kernel=kernel), state)


def test_nothing_is_imported_before_it_is_used():
    code = (
        "import sys, silica_md.cli, silica_md.potentials, silica_md.ase\n"
        "print([name for name in ('tad_dftd3', 'tad_mctc', 'warp', 'nvalchemiops') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_options_without_a_functional_are_refused():
    with pytest.raises(ConfigError, match="`d3_options` are of D3 dispersion, but `d3` names no functional"):
        config.from_dict({"d3_options": {"cutoff": 9.0}})
    with pytest.raises(ValueError, match="`d3_options` are of D3 dispersion"):
        Calculator("shik", d3_options={"cutoff": 9.0})
    with pytest.raises(ValueError, match="did you mean 'pbe'"):
        Calculator("shik", d3="pbee")


# --- in use ------------------------------------------------------------------------------------------------------

D3 = {"d3": "pbe", "d3_options": {"cutoff": 9}}


def test_a_run_restarts_exactly_and_records_its_parameters(tmp_path):
    """Lists of the parts included, which a resumed run derives from where its list was built."""
    whole, done, said = execute(tmp_path / "whole", **D3)
    assert done
    assert said == ["PBE-D3(BJ): s6 1, s8 0.7875, a1 0.4289, a2 4.4407 bohr, pairs to 9 Å, fading over the last 1 Å"]
    kept = whole.read_config()
    damping = {"s6": 1.0, "s8": 0.7875, "a1": 0.4289, "a2": 4.4407}
    assert (kept.d3, kept.d3_options) == ("pbe", {"cutoff": 9.0, "width": 1.0, "kernel": "auto"} | damping)
    again, _, _ = execute(tmp_path / "again", **D3)
    sorted(again.checkpoints.iterdir())[-1].unlink()
    (again.path / "final.xyz").unlink()
    assert execute(again.path, **D3)[1:] == (True, [])
    for name, array in final(whole).items():
        np.testing.assert_array_equal(array, final(again)[name], err_msg=name)
    without_pace = [[row | {"ns_per_day": None} for row in thermo(folder)] for folder in (whole, again)]
    assert without_pace[0] == without_pace[1]
    bare, _, _ = execute(tmp_path / "bare")
    assert not np.array_equal(final(bare)["state_positions"], final(whole)["state_positions"])


def test_recorded_parameters_are_used_whatever_the_table_says_later(monkeypatch):
    settings = quench.settled(config.from_dict(D3), State.from_ase(quartz()), config.from_dict(D3))
    monkeypatch.setitem(sys.modules, "tad_dftd3.param", None)
    assert quench.settled(settings, State.from_ase(quartz()), settings) == settings


def test_command_line_and_report(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.toml").write_text(
        'atoms = 96\nthreads = 1\n[d3_options]\ncutoff = 9\n[[segment]]\nname = "melt"\ntemperature_K = 4000\n'
        "duration_ps = 0.1\n"
    )
    assert main(["quench", "--config", "short.toml", "--d3", "scann", "--out", "glass"]) == 1
    assert "unknown functional 'scann' of D3(BJ); did you mean 'scan'?" in capsys.readouterr().err
    assert not (tmp_path / "glass").exists()
    assert main(["quench", "--config", "short.toml", "--d3", "scan", "--out", "glass"]) == 0
    assert "Potential: SHIK plus SCAN-D3(BJ) dispersion." in (tmp_path / "glass" / "report.html").read_text()


def test_calculator():
    atoms = quartz()
    energies = {}
    for functional in ("", "pbe"):
        atoms.calc = Calculator("shik", d3=functional, d3_options={"cutoff": 9.0} if functional else None)
        energies[functional] = atoms.get_potential_energy()
        stress = atoms.get_stress()
    state = State.from_ase(atoms)
    alone = evaluate(dispersion("pbe", atoms.numbers, cutoff=9.0), state)
    assert energies["pbe"] - energies[""] == pytest.approx(float(alone.energy), rel=1e-9)
    numerical = calculate_numerical_stress(atoms, eps=1e-5)
    np.testing.assert_allclose(stress, numerical, rtol=0, atol=1e-7)
    replaced = atoms.copy()
    replaced.numbers[:3] = [11, 14, 14]
    replaced.numbers[3:] = 8
    with pytest.raises(ValueError, match="needs about"):  # the other potential's refusal, not an old table's numbers
        replaced.calc = atoms.calc
        replaced.get_potential_energy()


def test_learned_potentials_with_and_without_dispersion_in_their_labels():
    pytest.importorskip("mace")
    from learned_systems import glass, network

    state = glass()
    with pytest.raises(ValueError, match=r"potential 'mace' already contains PBE-D3\(BJ\)"):
        with_dispersion(LearnedPotential(network(dispersion="PBE-D3(BJ)")), "pbe", state.atomic_numbers)
    bare = LearnedPotential(network())
    total = with_dispersion(bare, "pbe", state.atomic_numbers, cutoff=9.0)
    field = ForceField(total, skin=0.5)
    result = field.evaluate(state, energy=True, virial=True)
    alone = [evaluate(part, state) for part in total.potentials]
    for got, *expected in zip(result[:3], *(part[:3] for part in alone), strict=True):
        torch.testing.assert_close(got, sum(expected), rtol=1e-12, atol=1e-12)
