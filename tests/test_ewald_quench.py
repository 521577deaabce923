"""BKS and PMMCS with Ewald sums: lattice energies, derivatives, dynamics, and runs that restart to the bit."""

import json

import ase.io
import numpy as np
import pytest
import torch
from native_settings import threads
from test_potentials import POLYMORPHS, SILICA, analytic_energy, evaluate, quartz
from test_quench import SHORT, execute, thermo

import rsa_kernels as rk
from silica_md import checkpoint, config, potentials, quench
from silica_md.ase import Calculator
from silica_md.barostat import ConstantPressure, FlexibleRescaling
from silica_md.cli import main
from silica_md.errors import ConfigError
from silica_md.forcefield import ForceField
from silica_md.integrators import NoseHoover, VelocityVerlet
from silica_md.state import State

DOUBLE = torch.float64


def built(name, numbers, accuracy=1e-5, **options):
    return potentials.build(name, numbers, coulomb="ewald", ewald={"accuracy": accuracy}, **options)


def charges_of(potential, state):
    return torch.tensor([potential.charges[z] for z in state.atomic_numbers.tolist()], dtype=DOUBLE)


# --- what is computed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", POLYMORPHS)
def test_lattice_energies(shared, name):
    atoms = ase.io.read(shared / "data" / "structures" / f"{name}.cif")
    reference = json.loads((shared / "data" / "potentials.json").read_text())["README"]
    expected = reference["reference_energies_computed_here"]["eV_per_SiO2"][name]
    for potential, options in (("bks", {"repair": False}), ("pmmcs", {})):
        result = evaluate(built(potential, atoms.numbers, 1e-8, **options), State.from_ase(atoms))
        # The references are quoted with six decimals.
        assert float(result.energy) / (len(atoms) / 3) == pytest.approx(
            expected[f"{potential.upper()}_total"], abs=2e-6
        )


@pytest.mark.parametrize("name", ["bks", "pmmcs"])
@pytest.mark.parametrize("method", ["grid", "spectral"])
def test_energy_forces_virial_and_energies_per_atom_against_the_definition(name, method):
    """Short range from its analytic functions, Coulomb from `ewald_energy`, both differentiated automatically."""
    state = State.from_ase(quartz())
    settings = {"accuracy": 1e-9, "method": method}
    potential = potentials.build(name, state.atomic_numbers, coulomb="ewald", ewald=settings)
    assert potential.settings.method == method
    neutral = potentials.build(name, state.atomic_numbers, alpha=0.0)
    charges = charges_of(potential, state)
    positions = state.positions.clone().requires_grad_()
    strain = torch.zeros(3, 3, dtype=DOUBLE, requires_grad=True)
    deformation = torch.eye(3, dtype=DOUBLE) + (strain + strain.T) / 2
    moved = state.at(positions @ deformation, state.cell @ deformation)
    # All of DSF with α = 0, less its Coulomb part 1/r − 1/rc + (r − rc)/rc² and self energies, is the short range.
    listed = rk.neighbor_list(state.positions, state.cell, True, 10.0)
    r = listed.distances(moved.positions, moved.cell)
    i, j = listed.edge_index
    wolf = rk.units.COULOMB * charges[i] * charges[j] * (1 / r - 0.1 + (r - 10.0) / 100.0)
    own = sum(neutral.self_energies[z] for z in state.atomic_numbers.tolist())
    energy = analytic_energy(neutral, moved) - own - 0.5 * wolf[r.detach() < 10.0].sum()
    energy = energy + rk.ewald_energy(moved.positions, charges, moved.cell, accuracy=1e-12)[0]
    gradient, slope = torch.autograd.grad(energy, (positions, strain))
    result = evaluate(potential, state, per_atom_energy=True)
    torch.testing.assert_close(result.energy, energy.detach(), rtol=1e-8, atol=0)
    torch.testing.assert_close(result.forces, -gradient, rtol=0, atol=1e-6)
    torch.testing.assert_close(result.virial, -slope, rtol=0, atol=1e-5)
    torch.testing.assert_close(result.per_atom_energy.sum(), result.energy, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["sio2_glass_amorphouspy_3000", "na_silicate_5_10020"])
@pytest.mark.parametrize("accuracy", [1e-4, 1e-5])
def test_forces_in_a_glass_are_as_accurate_as_said(shared, name, accuracy):
    """The mesh, coarser than for charges at random, included."""
    state = State.from_ase(ase.io.read(shared / "data" / "networks" / f"{name}.xyz"))
    forces, exact = (evaluate(built("pmmcs", state.atomic_numbers, a), state).forces for a in (accuracy, 1e-8))
    error = float((forces - exact).square().sum(dim=1).mean().sqrt()) / rk.units.COULOMB
    assert 0.2 * accuracy < error < accuracy


def test_forces_and_virial_are_derivatives_of_the_energy():
    """At the usual accuracy, waves coming and going; pairs cross the cutoff without a jump when shifted."""
    state = State.from_ase(quartz((2, 2, 1)))
    potential = built("bks", state.atomic_numbers, shifted=True)
    result, h = evaluate(potential, state), 1e-4
    direction = torch.randn(state.positions.shape, generator=torch.Generator().manual_seed(3), dtype=DOUBLE)
    up, down = (float(evaluate(potential, state.at(state.positions + s * h * direction)).energy) for s in (1, -1))
    assert (down - up) / (2 * h) == pytest.approx(float((result.forces * direction).sum()), abs=1e-5)
    strain = torch.tensor([[0.3, 0.1, -0.2], [0.1, -0.5, 0.4], [-0.2, 0.4, 0.2]], dtype=DOUBLE)
    energies = []
    for s in (1, -1):
        deformation = torch.eye(3, dtype=DOUBLE) + s * h * strain
        energies.append(
            float(evaluate(potential, state.at(state.positions @ deformation, state.cell @ deformation)).energy)
        )
    # What is left of the force at the cutoff makes kinks of 1e-3 eV.
    assert (energies[1] - energies[0]) / (2 * h) == pytest.approx(float((result.virial * strain).sum()), abs=5e-3)


def test_another_cell_and_other_atoms_are_noticed():
    """Waves are kept while the cell stays: a potential used on one state after another gives what a new one does."""
    potential = built("bks", SILICA)
    first = State.from_ase(quartz())
    second = first.at(first.positions * 1.01, first.cell * 1.01)
    third = State.from_ase(quartz((1, 1, 2)))
    for state in (first, second, first, third):
        got, expected = evaluate(potential, state), evaluate(built("bks", SILICA), state)
        assert torch.equal(got.forces, expected.forces)
        assert torch.equal(got.energy, expected.energy)
    first.cell.mul_(1.02)  # in place, as barostats do
    assert torch.equal(evaluate(potential, first).forces, evaluate(built("bks", SILICA), first).forces)


def test_calculator_takes_the_option():
    atoms = quartz()
    atoms.calc = Calculator("bks", coulomb="ewald", shifted=True)
    expected = evaluate(built("bks", atoms.numbers, shifted=True), State.from_ase(atoms))
    assert atoms.get_potential_energy() == pytest.approx(float(expected.energy), rel=1e-12)
    np.testing.assert_allclose(atoms.get_forces(), expected.forces, atol=1e-10)
    assert atoms.get_stress().shape == (6,)
    assert atoms.get_potential_energies().sum() == pytest.approx(atoms.get_potential_energy(), rel=1e-12)


# --- dynamics ----------------------------------------------------------------------------------------------------


def run(state, potential, integrator, steps, every=10):
    field = ForceField(potential)
    integrator_energy = []
    field.evaluate(state, energy=True, virial=True)
    for step in range(1, steps + 1):
        look = step % every == 0
        evaluation = integrator.step(state, field, energy=look, virial=look)
        if look:
            total = float(evaluation.energy) + float(state.kinetic_energy()) + integrator.reservoir(state)
            integrator_energy.append(total / state.n_atoms)
    return np.array(integrator_energy)


@pytest.mark.usefixtures("one_thread")
def test_energy_is_conserved():
    """The energy swings by what the time step makes it swing, a quarter for half the step, and does not drift."""
    swings = []
    for timestep in (0.5, 0.25):
        state = State.from_ase(quartz((3, 3, 3)))
        state.thermalize(1000.0, seed=1)
        potential = built("bks", state.atomic_numbers, shifted=True)
        steps = round(200.0 / timestep)
        energies = run(state, potential, VelocityVerlet(timestep), steps, every=steps // 40)
        swings.append(np.ptp(energies))
        assert abs(energies[20:].mean() - energies[5:20].mean()) < 1e-6
    assert swings[0] < 1e-4
    assert swings[0] / swings[1] == pytest.approx(4.0, rel=0.05)


@pytest.mark.usefixtures("one_thread")
def test_constant_pressure_with_waves_that_come_and_go():
    """The conserved quantity of a cell that changes in all six components, started 3 % too wide."""
    state = State.from_ase(quartz((3, 3, 2)))
    state.positions.mul_(1.03)
    state.cell.mul_(1.03)
    state.thermalize(300.0, seed=1)
    potential = built("bks", state.atomic_numbers, shifted=True)
    barostat = FlexibleRescaling(0.0, relaxation=200.0, seed=1)
    integrator = ConstantPressure(NoseHoover(1.0, 300.0), barostat, every=5)
    sizes, before = set(), state.cell.clone()
    original = rk.ewald.ewald_waves

    def counted(*arguments, **options):
        waves = original(*arguments, **options)
        sizes.add(waves.modes.n_modes)
        return waves

    rk.ewald.ewald_waves = counted
    try:
        energies = run(state, potential, integrator, 600, every=20)
    finally:
        rk.ewald.ewald_waves = original
    assert len(sizes) > 5
    assert float(state.volume()) < 0.98 * float(torch.linalg.det(before))
    # From its start on: it swings by 3.9e-3 eV an atom, with DSF too, and by half of that at half the time step.
    assert np.ptp(energies) < 5e-3


# --- runs --------------------------------------------------------------------------------------------------------

EWALD = {"potential": "bks", "coulomb": "ewald"}


def final(folder):
    return checkpoint.load(checkpoint.newest(folder.checkpoints)).arrays


def test_a_run_restarts_exactly(tmp_path):
    """From its last but one checkpoint, in the middle of a barostat's changes, and from before the first."""
    whole, done, said = execute(tmp_path / "whole", **EWALD)
    assert done
    assert len(said) == 1 and said[0].startswith("Ewald sums: σ")
    again, _, _ = execute(tmp_path / "again", **EWALD)
    sorted(again.checkpoints.iterdir())[-1].unlink()
    (again.path / "final.xyz").unlink()
    assert checkpoint.newest(again.checkpoints).stem < checkpoint.newest(whole.checkpoints).stem
    assert execute(again.path, **EWALD)[1:] == (True, [])
    for name, array in final(whole).items():
        np.testing.assert_array_equal(array, final(again)[name], err_msg=name)
    without_pace = [[row | {"ns_per_day": None} for row in thermo(folder)] for folder in (whole, again)]
    assert without_pace[0] == without_pace[1]


def test_threads_do_not_change_the_glass(tmp_path):
    arrays = []
    for count in (1, 2):
        with threads(count):
            arrays.append(final(execute(tmp_path / str(count), threads=count, **EWALD)[0]))
    np.testing.assert_array_equal(arrays[0]["state_positions"], arrays[1]["state_positions"])


def test_settings_are_chosen_for_the_start_and_kept(tmp_path):
    given = {"potential": "pmmcs", "coulomb": "ewald", "atoms": 96, "potential_options": {"cutoff": 8.0}}
    folder, _, _ = execute(tmp_path / "run", **given)
    kept = folder.read_config()
    settings = kept.potential_options["ewald"]
    assert kept.potential_options["cutoff"] == 8.0
    assert settings.keys() == {"accuracy", "sigma", "k_cut", "method", "mesh_tolerance"}
    assert None not in settings.values() and settings["method"] in ("grid", "spectral")
    first = ase.io.read(folder.path / "trajectory.xyz", index=0)
    state = State.from_ase(first)
    potential = potentials.build("pmmcs", state.atomic_numbers, **kept.options_of_potential())
    chosen = rk.ewald.parameters(charges_of(potential, state), state.cell, accuracy=1e-5, cutoff=8.0)
    assert settings["sigma"] == pytest.approx(chosen.sigma, rel=1e-7)  # the trajectory is rounded
    assert settings["k_cut"] == pytest.approx(chosen.k_cut, rel=1e-7)
    # The same configuration again, as --resume reads it, is settled already.
    denser = state.at(0.8 * state.positions, 0.8 * state.cell)
    for plain in (kept, config.from_dict(SHORT | given)):
        assert quench.settled(plain, denser, kept).potential_options["ewald"] == settings
    assert quench.settled(plain, denser, plain).potential_options["ewald"] != settings


def test_command_line_and_report(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.toml").write_text(
        'atoms = 96\npotential = "bks"\nthreads = 1\n[[segment]]\nname = "melt"\ntemperature_K = 4000\n'
        "duration_ps = 0.1\n"
    )
    assert main(["quench", "--config", "short.toml", "--coulomb", "ewald", "--out", "glass"]) == 0
    assert "Ewald sums: σ" in capsys.readouterr().err
    assert "Ewald sums: σ" in (tmp_path / "glass" / "log.txt").read_text()
    summary = json.loads((tmp_path / "glass" / "summary.json").read_text())
    assert summary["config"]["coulomb"] == "ewald"
    assert summary["config"]["potential_options"]["ewald"]["sigma"] > 0.0
    report = (tmp_path / "glass" / "report.html").read_text()
    assert "Potential: BKS with Ewald sums." in report
    assert main(["quench", "--out", "glass", "--resume", "--coulomb", "dsf"]) == 0  # finished: shown as it is


def test_shik_keeps_its_own_sum(capsys, tmp_path):
    assert main(["quench", "--coulomb", "ewald", "--out", str(tmp_path / "glass")]) == 1
    error = capsys.readouterr().err
    assert "the Coulomb sum of potential 'shik' is part of the model" in error
    assert "`coulomb` goes with bks and pmmcs" in error
    assert not (tmp_path / "glass").exists()


REFUSED = [
    ({"coulomb": "pppm"}, r"`coulomb` must be dsf or ewald, got 'pppm'"),
    ({"coulomb": "ewald", "alpha": 0.2}, r"`alpha` is an option of coulomb 'dsf'"),
    ({"coulomb": "dsf", "ewald": {}}, r"`ewald` is an option of coulomb 'ewald'"),
    ({"coulomb": "ewald", "ewald": {"accurcy": 1e-5}}, r"unknown setting `accurcy` of `ewald`, known are accuracy"),
    ({"coulomb": "ewald", "ewald": {"accuracy": 0.0}}, r"`accuracy` must be positive"),
    ({"coulomb": "ewald", "ewald": {"sigma": -1.0}}, r"`sigma` must be positive"),
    ({"coulomb": "ewald", "ewald": {"method": "pppm"}}, r"`method` must be one of"),
    ({"coulomb": "ewald", "cutoff": 0.5}, r"`cutoff` must be above 0.9 Å"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=lambda x: str(x)[:50])
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        potentials.build("bks", SILICA, **options)


def test_wrong_configurations_are_refused():
    with pytest.raises(ConfigError, match="`coulomb` must be dsf or ewald, got 'pppm'"):
        config.from_dict({"coulomb": "pppm"})
    with pytest.raises(ConfigError, match="`coulomb` is given twice"):
        config.from_dict({"coulomb": "dsf", "potential_options": {"coulomb": "ewald"}})


def test_charged_atoms_and_open_cells_are_refused():
    with pytest.raises(ValueError, match=r"needs a neutral composition, got total charge \+1\.2 e"):
        potentials.build("bks", [14, 8], coulomb="ewald")
    potential = built("bks", SILICA)
    with pytest.raises(ValueError, match="needs a neutral composition"):
        potential.check_composition(torch.tensor([14, 8, 8, 8]))
    atoms = quartz()
    atoms.pbc = (True, True, False)
    with pytest.raises(ValueError, match="periodic in every direction"):
        evaluate(potential, State.from_ase(atoms))
