"""TorchSim's interface: its own validation, batches, integration and relaxation, and the numbers of the Potential."""

import pytest
import torch
from ase.build import bulk
from learned_systems import glass, network

pytest.importorskip("mace")
torch_sim = pytest.importorskip("torch_sim")

from torch_sim.models.interface import validate_model_outputs  # noqa: E402

import rsa_kernels as rk  # noqa: E402
from silica_md import models  # noqa: E402
from silica_md.ase import Calculator  # noqa: E402
from silica_md.models.torchsim import TorchSimModel  # noqa: E402
from silica_md.potentials import LearnedPotential  # noqa: E402

DOUBLE = torch.float64


def sim_state(*states, dtype=DOUBLE):
    return torch_sim.io.atoms_to_state([state.to_ase() for state in states], torch.device("cpu"), dtype)


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
@pytest.mark.parametrize("kind", ["sr", "rsa"])
def test_torchsim_validates_it(kind, dtype):
    elements = {"atomic_numbers": (8, 14, 26), "atomic_energies": (-3.0, -1.5, -2.0)}
    model = TorchSimModel(network(kind, **elements), dtype=dtype, compute_stress=False)
    assert model.dtype == dtype and model.device.type == "cpu" and model.memory_scales_with == "n_atoms_x_density"
    validate_model_outputs(model, torch.device("cpu"), dtype)
    assert model.compute_stress, "switched on by the validation"


@pytest.mark.parametrize("kind", ["sr", "rsa", "rsga", "sog", "latent_ewald", "published rsga"])
def test_torchsim_is_the_calculator_and_the_potential(kind):
    """One evaluation behind three interfaces, so the same numbers; and those of a batch are those of its systems."""
    states = [glass(24, 1), glass(30, 2), glass(24, 3)]
    model, potential = TorchSimModel(network(kind)), LearnedPotential(network(kind))
    out = model(sim_state(*states))
    ends = [0, 24, 54, 78]
    for number, state in enumerate(states):
        atoms = state.to_ase()
        atoms.calc = Calculator(potential)
        assert float(out["energy"][number]) == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
        own = slice(ends[number], ends[number + 1])
        torch.testing.assert_close(out["forces"][own], torch.from_numpy(atoms.get_forces()), rtol=0, atol=1e-10)
        stress = torch.from_numpy(atoms.get_stress(voigt=False))
        torch.testing.assert_close(out["stress"][number], stress, rtol=0, atol=1e-10)
        energies = torch.from_numpy(atoms.get_potential_energies())
        torch.testing.assert_close(out["energies"][own], energies, rtol=0, atol=1e-10)
        reached = rk.neighbor_list(state.positions, state.cell, True, potential.cutoff)
        direct = potential.evaluate(state, reached)
        assert float(direct.energy) == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
        torch.testing.assert_close(direct.forces, torch.from_numpy(atoms.get_forces()), rtol=0, atol=1e-10)


def test_float32_states_and_dicts():
    """A float32 model on float32 states is the float64 one to what float32 resolves."""
    state = sim_state(glass(), dtype=torch.float32)
    single = TorchSimModel(network("rsa"), dtype=torch.float32)(state)
    double = TorchSimModel(network("rsa"))(sim_state(glass()))
    assert all(value.dtype == torch.float32 for value in single.values())
    for name, bound in (("energy", 2e-4), ("forces", 1e-4), ("stress", 1e-5)):
        torch.testing.assert_close(single[name].double(), double[name], rtol=0, atol=bound)
    keys = ("positions", "cell", "pbc", "atomic_numbers", "system_idx")
    again = TorchSimModel(network("rsa"), dtype=torch.float32)({key: getattr(state, key) for key in keys})
    assert torch.equal(again["forces"], single["forces"])


def test_a_list_is_reused_and_never_wrongly():
    """Whatever comes next, moved a little, far, with other elements or another box, is what a new model says."""
    model = TorchSimModel(network("rsa"))
    first = glass(24, 1)
    pushed = first.at(first.positions + 0.1 * torch.randn(24, 3, generator=torch.Generator().manual_seed(1)).double())
    denser = first.at(0.98 * first.positions, 0.98 * first.cell)
    swapped = glass(24, 1)
    swapped.atomic_numbers = swapped.atomic_numbers.flip(0)
    model(sim_state(first))
    kept = model._neighbors
    for state, same in ((first, True), (pushed, True), (denser, True), (glass(24, 5), True), (swapped, False)):
        got, new = model(sim_state(state)), TorchSimModel(network("rsa"))(sim_state(state))
        assert (model._neighbors is kept) == same
        for name in new:
            torch.testing.assert_close(got[name], new[name], rtol=0, atol=1e-11)


def test_torchsim_integrates_and_relaxes():
    """A relaxation of atoms and cells goes downhill; 50 fs at constant energy keep it, in a batch as alone."""
    states = [glass(24, seed) for seed in (1, 2)]
    model = TorchSimModel(network("rsa"))
    before = model(sim_state(*states))["energy"]
    relaxed = torch_sim.optimize(
        system=sim_state(*states), model=model, optimizer=torch_sim.unit_cell_fire, max_steps=15
    )
    assert bool((relaxed.energy < before - 0.1).all())
    done = torch_sim.integrate(
        system=relaxed, model=model, integrator=torch_sim.nvt_langevin, n_steps=3, temperature=300.0, timestep=0.001
    )
    torch.testing.assert_close(done.energy, model(done)["energy"], rtol=0, atol=1e-10)

    def total(state):
        kinetic = torch_sim.calc_kinetic_energy(masses=state.masses, momenta=state.momenta, system_idx=state.system_idx)
        return state.energy + kinetic

    ends = []
    for begin in (relaxed, relaxed[[0]]):
        momenta = sim_state(*states).masses[: begin.n_atoms, None] * torch.linspace(-0.1, 0.1, 3).double()
        momenta[1::2] *= -1.0
        kT = torch.tensor(0.025, dtype=DOUBLE)
        femtosecond = torch.tensor(0.001 * torch_sim.units.MetalUnits.time, dtype=DOUBLE)
        init, step = torch_sim.nve(model, dt=femtosecond, kT=kT)
        state = init(begin)
        state.momenta = momenta
        first = total(state)
        for _ in range(50):
            state = step(state)
        # Every second atom goes the other way. 24 atoms carry some 3 eV, of which a step of 1 fs keeps all but 0.3 %.
        torch.testing.assert_close(total(state), first, rtol=0, atol=0.01)
        assert float((state.energy - begin.energy).abs().max()) > 0.05, "energy goes from one form to the other"
        ends.append(state.positions[:24])
    torch.testing.assert_close(*ends, rtol=0, atol=1e-9)


def test_refusals(tmp_path):
    model = TorchSimModel(network("rsa"))
    with pytest.raises(ValueError, match="does not know Fe"):
        model(torch_sim.io.atoms_to_state([bulk("Fe", cubic=True)], torch.device("cpu"), DOUBLE))
    atoms = glass().to_ase()
    atoms.pbc = False
    with pytest.raises(ValueError, match="`pbc` must be True in every direction"):
        model(torch_sim.io.atoms_to_state([atoms], torch.device("cpu"), DOUBLE))
    with pytest.raises(ValueError, match="`skin` must be at least 0"):
        TorchSimModel(network("rsa"), skin=-1.0)
    path = models.save(network("rsa"), tmp_path / "m")
    state = sim_state(glass())
    assert torch.equal(TorchSimModel(path)(state)["forces"], model(state)["forces"])
