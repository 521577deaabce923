"""The dynamics against statistical mechanics: drift, equipartition, distributions, pressure, volume."""

import math

import ase.io
import numpy as np
import pytest
import scipy.stats
import torch
from toy_systems import IdealGas, argon, argon_field, gas

import silica_md.integrators
from rsa_kernels.units import BOLTZMANN, EV_PER_A3_IN_GPA
from silica_md.barostat import ConstantPressure, FlexibleRescaling, IsotropicRescaling
from silica_md.forcefield import ForceField
from silica_md.integrators import Langevin, NoseHoover, VelocityVerlet
from silica_md.potentials import build
from silica_md.start import push_apart, random_start
from silica_md.state import State

T = 60.0
ARGON_COMPRESSIBILITY = 1.0 * EV_PER_A3_IN_GPA


@pytest.fixture(autouse=True)
def one_thread():
    """A hundred atoms are not worth a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def barostat(kind=IsotropicRescaling, pressure=0.0, **options):
    options = {"relaxation": 500.0, "compressibility": ARGON_COMPRESSIBILITY, "seed": 5} | options
    return kind(pressure, **options)


ENSEMBLES = {
    "nve": lambda: VelocityVerlet(4.0),
    "langevin": lambda: Langevin(4.0, T, 200.0, seed=3),
    "nose-hoover": lambda: NoseHoover(4.0, T, 200.0),
    "npt": lambda: ConstantPressure(Langevin(4.0, T, 200.0, seed=3), barostat(), every=5),
    "npt-flexible": lambda: ConstantPressure(NoseHoover(4.0, T, 200.0), barostat(FlexibleRescaling), every=5),
}


def conserved(state, evaluation, integrator):
    return float(evaluation.energy + state.kinetic_energy()) + integrator.reservoir(state)


def run(state, field, integrator, steps, every=1, observe=None):
    """Advance and collect observe(state, evaluation) at every `every`-th step."""
    rows = []
    for k in range(1, steps + 1):
        wanted = k % every == 0
        evaluation = integrator.step(state, field, energy=wanted, virial=wanted)
        if wanted and observe is not None:
            rows.append(observe(state, evaluation))
    return np.array(rows)


# --- constant energy ------------------------------------------------------------------------------


def energies(timestep, picoseconds):
    state, field, integrator = argon(), argon_field(), VelocityVerlet(timestep)
    run(state, field, VelocityVerlet(4.0), 250)
    steps = int(1000 * picoseconds / timestep)
    return run(state, field, integrator, steps, observe=lambda s, e: conserved(s, e, integrator)) / state.n_atoms


def test_energy_error_is_of_second_order():
    fine, coarse = (energies(timestep, 4.0).std() for timestep in (4.0, 8.0))
    assert coarse / fine == pytest.approx(4.0, rel=0.15)


def test_energy_does_not_drift():
    timestep = 4.0
    energy = energies(timestep, 24.0)
    time_ns = np.arange(len(energy)) * timestep * 1e-6
    slope = np.polyfit(time_ns, energy, 1)[0]
    thermal = BOLTZMANN * T
    assert abs(slope) < 0.01 * thermal, f"{slope} eV per atom per ns"


def test_energy_of_silica_glass_drifts_less_than_asked(shared):
    """3,000 atoms at 300 K, 1 fs: below 1e-5 eV per atom per ps."""
    state = State.from_ase(ase.io.read(shared / "data" / "networks" / "sio2_glass_amorphouspy_3000.xyz"))
    state.thermalize(300.0, seed=1)
    field = ForceField(build("shik", state.atomic_numbers))
    run(state, field, Langevin(1.0, 300.0, 50.0, seed=1), 300)
    energy = run(state, field, VelocityVerlet(1.0), 1500, every=10, observe=lambda s, e: e.energy + s.kinetic_energy())
    slope = np.polyfit(0.01 * np.arange(len(energy)), energy.astype(float) / state.n_atoms, 1)[0]
    assert abs(slope) < 1e-5


@pytest.mark.parametrize("name", ["nve", "nose-hoover", "npt-flexible"])
def test_momentum_stays_zero(name):
    state = argon(2, krypton=True)
    state.thermalize(T, 4)
    run(state, argon_field(), ENSEMBLES[name](), 200)
    scale = float((state.masses.unsqueeze(1) * state.velocities).abs().sum())
    assert float(state.momentum().abs().max()) < 1e-13 * scale


def test_velocity_verlet_is_reversible():
    state, field = argon(2), argon_field()
    start = state.positions.clone()
    run(state, field, VelocityVerlet(4.0), 100)
    assert float((state.positions - start).abs().max()) > 0.1
    state.velocities.neg_()
    run(state, field, VelocityVerlet(4.0), 100)
    torch.testing.assert_close(state.positions, start, rtol=0, atol=1e-9)


# --- constant temperature -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["langevin", "nose-hoover"])
def test_kinetic_energy_is_canonical_and_equally_shared(name):
    state, field = argon(2, krypton=True), argon_field()
    integrator = Langevin(4.0, T, 100.0, seed=3) if name == "langevin" else NoseHoover(4.0, T, 50.0)
    run(state, field, integrator, 1000)

    def observe(state, _):
        per_atom = 0.5 * state.masses * state.velocities.square().sum(1) / 9.648533212331002e-3
        return [per_atom[::2].sum().item(), per_atom[1::2].sum().item()]

    half = 3 * state.n_atoms / 2
    sampled = run(state, field, integrator, 16000, every=40, observe=observe)
    twice_over_thermal = 2 * sampled / (BOLTZMANN * T)
    for species in range(2):
        mean = twice_over_thermal[:, species].mean()
        assert mean == pytest.approx(half, abs=4 * math.sqrt(2 * half / len(sampled)) + 1.5), "equipartition"
    degrees = integrator.degrees_of_freedom(state)
    assert degrees == 3 * state.n_atoms - (0 if name == "langevin" else 3)
    test = scipy.stats.kstest(twice_over_thermal.sum(1), scipy.stats.chi2(degrees).cdf)
    assert test.pvalue > 1e-3, test


def test_free_particles_under_langevin_follow_the_exact_solution():
    state, gamma, timestep = gas(4000, temperature=900.0), 1 / 100.0, 5.0
    field, integrator = ForceField(IdealGas()), Langevin(timestep, 300.0, 1 / gamma, seed=9)
    first = state.velocities.clone()
    run(state, field, integrator, 20)
    decay = math.exp(-gamma * timestep * 20)
    correlation = float((first * state.velocities).sum() / first.square().sum())
    assert correlation == pytest.approx(decay, abs=4 * math.sqrt((1 - decay**2) / 3 / 12000))
    expected = 300.0 + 600.0 * decay**2
    assert float(state.temperature(12000)) == pytest.approx(expected, rel=4 * math.sqrt(2 / 12000))


@pytest.mark.parametrize("name", [name for name in ENSEMBLES if name != "nve"])
def test_conserved_quantity_survives_a_ramp(name):
    state, field, integrator = argon(temperature=40.0), argon_field(), ENSEMBLES[name]()
    history, kinetic = [], []
    for k in range(1500):
        integrator.temperature = 40.0 + 40.0 * k / 1500
        evaluation = integrator.step(state, field, energy=True)
        history.append(conserved(state, evaluation, integrator) / state.n_atoms)
        kinetic.append(float(state.kinetic_energy()) / state.n_atoms)
    # The bath takes part: kinetic energy changes by much more than the conserved quantity.
    assert abs(history[-1] - history[20]) < 0.02 * (max(kinetic) - min(kinetic))


# --- constant pressure ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [IsotropicRescaling, FlexibleRescaling])
def test_volume_of_an_ideal_gas_is_gamma_distributed(kind):
    n_atoms, pressure, temperature = 16, 1e-4, 300.0
    thermal, relaxation, stiffness = BOLTZMANN * temperature, 200.0, 1.0
    state = gas(n_atoms, ((n_atoms + 1) * thermal / pressure) ** (1 / 3), temperature)
    field = ForceField(IdealGas(stiffness))
    # β = 1/P is the gas's own compressibility, so the volume forgets itself in `relaxation`.
    moves = kind(pressure, relaxation, compressibility=1 / pressure, seed=8)
    integrator = ConstantPressure(Langevin(10.0, temperature, 20.0, seed=2), moves, every=1)
    run(state, field, integrator, 200)
    rows = run(state, field, integrator, 8000, every=20, observe=lambda s, e: [float(s.volume()), float(e.energy)])
    volumes, energies = rows.T
    # p(V) ∝ V^N e^(−PV/kT) with all 3N momenta thermal.
    expected = scipy.stats.gamma(n_atoms + 1, scale=thermal / pressure)
    effective = len(volumes) / 2  # two relaxation times apart
    assert volumes.mean() == pytest.approx(expected.mean(), abs=4 * expected.std() / math.sqrt(effective))
    assert volumes.var() == pytest.approx(expected.var(), rel=4 * math.sqrt(2.5 / effective))
    assert scipy.stats.kstest(volumes[::2], expected.cdf).pvalue > 1e-3
    if kind is FlexibleRescaling:
        # Five harmonic modes of shape, kT/2 each.
        shape = energies.mean() / (2.5 * thermal)
        assert shape == pytest.approx(1.0, abs=4 * math.sqrt(2 / 5 / effective) + 0.02)


@pytest.mark.parametrize("kind", [IsotropicRescaling, FlexibleRescaling])
def test_conserved_quantity_does_not_follow_the_volume(kind):
    n_atoms, pressure, temperature = 20, 1e-4, 300.0
    thermal = BOLTZMANN * temperature
    state = gas(n_atoms, ((n_atoms + 1) * thermal / pressure) ** (1 / 3), temperature)
    moves = kind(pressure, relaxation=2000.0, compressibility=1 / pressure, seed=8)
    integrator = ConstantPressure(Langevin(10.0, temperature, 200.0, seed=2), moves, every=1)
    observe = lambda s, e: [math.log(float(s.volume())), conserved(s, e, integrator) / thermal]  # noqa: E731
    volume, energy = np.diff(run(state, ForceField(IdealGas(1.0)), integrator, 2000, observe=observe), axis=0).T
    slope = (volume * energy).sum() / (volume**2).sum()
    assert abs(slope) < 0.3, f"{slope} kT per ln V"


@pytest.mark.parametrize("name", ["npt", "npt-flexible"])
def test_pressure_reaches_its_target(name):
    target = 0.2 / EV_PER_A3_IN_GPA
    state, field, integrator = argon(temperature=T), argon_field(), ENSEMBLES[name]()
    integrator.pressure = target
    run(state, field, integrator, 1000)
    observe = lambda s, e: (s.pressure(e.virial) * EV_PER_A3_IN_GPA).tolist()  # noqa: E731
    pressures = run(state, field, integrator, 4000, every=10, observe=observe)
    mean = pressures.mean(0)
    assert np.trace(mean) / 3 == pytest.approx(0.2, abs=0.01)
    if name == "npt-flexible":
        np.testing.assert_allclose(mean, 0.2 * np.eye(3), atol=0.03)


def test_flexible_cell_recovers_from_a_strain():
    state, field = argon(temperature=20.0), argon_field()
    strain = torch.tensor([[0.03, 0.02, 0.0], [0.02, -0.03, 0.01], [0.0, 0.01, 0.0]], dtype=torch.float64)
    stretch = torch.eye(3, dtype=torch.float64) + strain
    state.positions, state.cell = state.positions @ stretch, state.cell @ stretch
    integrator = ConstantPressure(Langevin(4.0, 20.0, 100.0, seed=1), barostat(FlexibleRescaling), every=5)
    run(state, field, integrator, 1500)
    metrics = run(state, field, integrator, 1500, every=10, observe=lambda s, _: (s.cell @ s.cell.t()).tolist())
    metric = metrics.mean(0)
    np.testing.assert_allclose(metric / np.trace(metric) * 3, np.eye(3), atol=0.01)


def test_flexible_moves_do_not_rotate_the_cell():
    state, field, integrator = argon(2, temperature=30.0), argon_field(), ENSEMBLES["npt-flexible"]()
    integrator.temperature = 30.0
    start = state.cell.clone()
    run(state, field, integrator, 1000)
    deformation = torch.linalg.solve(start, state.cell)
    rotation = torch.linalg.svd(deformation)
    angle = (rotation.U @ rotation.Vh - torch.eye(3, dtype=torch.float64)).abs().max()
    assert float((deformation - torch.eye(3, dtype=torch.float64)).abs().max()) > 0.005
    assert float(angle) < 1e-3


def test_pressure_is_minus_the_volume_derivative_of_the_energy():
    state = random_start(96, 0.0, 2.2, seed=6)
    potential = build("shik", state.atomic_numbers)
    push_apart(state, ForceField(potential))

    def energy(stretch):
        strained = state.at(state.positions @ stretch, state.cell @ stretch)
        return float(ForceField(potential).evaluate(strained, energy=True).energy)

    pressure = state.pressure(ForceField(potential).evaluate(state, virial=True).virial)  # at rest
    h, identity = 1e-4, torch.eye(3, dtype=torch.float64)
    for a, b in [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]:
        strain = torch.zeros(3, 3, dtype=torch.float64)
        strain[a, b] += 0.5 * h
        strain[b, a] += 0.5 * h
        derivative = (energy(identity + strain) - energy(identity - strain)) / (2 * h)
        expected = -derivative / float(state.volume())
        assert float(pressure[a, b]) == pytest.approx(expected, rel=1e-4, abs=1e-7)
    scale = (1 + h) ** (1 / 3), (1 - h) ** (1 / 3)
    by_volume = -(energy(scale[0] * identity) - energy(scale[1] * identity)) / (2 * h * float(state.volume()))
    assert float(pressure.trace()) / 3 == pytest.approx(by_volume, rel=1e-4)


# --- what is remembered ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENSEMBLES)
def test_restart_is_exact(name):
    whole, field, integrator = argon(2, temperature=90.0), argon_field(), ENSEMBLES[name]()
    run(whole, field, integrator, 43, every=10)
    half = whole.clone()
    saved_integrator, saved_field = integrator.state_dict(), field.state_dict()
    saved_field = {name: value.clone() for name, value in saved_field.items()}
    run(whole, field, integrator, 60, every=10)

    again, other = argon_field(), ENSEMBLES[name]()
    again.load_state_dict(saved_field, half)
    other.load_state_dict(saved_integrator)
    run(half, again, other, 60, every=10)
    assert torch.equal(whole.positions, half.positions)
    assert torch.equal(whole.velocities, half.velocities)
    assert torch.equal(whole.cell, half.cell)
    assert whole.time == half.time
    assert integrator.state_dict() == other.state_dict()


@pytest.mark.parametrize("name", ["langevin", "npt"])
def test_noise_follows_the_atom_not_its_place(name):
    state = argon(2)
    order = torch.randperm(state.n_atoms, generator=torch.Generator().manual_seed(1))
    shuffled = state.clone()
    for field_name in ("positions", "velocities", "masses", "atomic_numbers", "global_ids"):
        setattr(shuffled, field_name, getattr(state, field_name)[order].clone())
    run(state, argon_field(), ENSEMBLES[name](), 40)
    run(shuffled, argon_field(), ENSEMBLES[name](), 40)
    torch.testing.assert_close(shuffled.positions, state.positions[order], rtol=0, atol=1e-10)


def test_sums_go_through_the_reduction():
    """Two owners that hold the same atoms: every sum is doubled, and the bath sees twice the atoms."""
    state, seen = argon(2), []

    def doubled(partial):
        seen.append(partial)
        return 2 * partial

    integrator = NoseHoover(4.0, T, 100.0, total=doubled)
    run(state, argon_field(), integrator, 3)
    assert integrator.degrees_of_freedom(state) == 6 * state.n_atoms - 3
    assert len(seen) >= 7


@pytest.mark.parametrize("name", [name for name in ENSEMBLES if name != "nve"])
def test_numbers_that_stay_tensors_make_no_difference(name, monkeypatch):
    """On a GPU what steers a thermostat stays on the device; here both ways run on the CPU."""
    states, integrators = [], []
    for number in (silica_md.integrators._number, lambda value: value):
        monkeypatch.setattr(silica_md.integrators, "_number", number)
        state, field, integrator = argon(2), argon_field(), ENSEMBLES[name]()
        for k in range(20):
            integrator.temperature = T + k
            integrator.step(state, field)
        states.append(state)
        integrators.append(integrator)
    torch.testing.assert_close(states[0].positions, states[1].positions, rtol=0, atol=1e-12)
    saved = integrators[1].state_dict()
    assert saved == pytest.approx(integrators[0].state_dict(), rel=1e-9)
    assert all(type(value) is float for value in saved.values())


def test_foreign_memory_is_refused():
    with pytest.raises(ValueError, match="heat"):
        Langevin(1.0, 300.0).load_state_dict({"booked": 1.0})
