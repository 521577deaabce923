"""Ewald sums: Madelung constants, the textbook definition, derivatives, stress, batches and wrong arguments."""

import math

import pytest
import torch

import rsa_kernels as rk
from rsa_kernels import ewald
from rsa_kernels.units import COULOMB

DOUBLE = torch.float64
FCC = [[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]]
CUBE = torch.eye(3, dtype=DOUBLE).tolist()

ROCK_SALT, ZINC_BLENDE = 1.747564594633, 1.638055053389
# Fluorite's charges on the four face-centred lattices along the diagonal are four times those of zinc blende less
# those of rock salt, and so is the energy.
FLUORITE = 4 * ZINC_BLENDE - math.sqrt(3) / 2 * ROCK_SALT  # 5.038784880
# Primitive cell (in cubic lattice constants), fractional coordinates, charges, nearest distance, Madelung constant.
CRYSTALS = {
    "NaCl": (FCC, [[0.0] * 3, [0.5] * 3], [1.0, -1.0], 0.5, ROCK_SALT),
    "CsCl": (CUBE, [[0.0] * 3, [0.5] * 3], [1.0, -1.0], math.sqrt(3) / 2, 1.762674773071),
    "ZnS": (FCC, [[0.0] * 3, [0.25] * 3], [1.0, -1.0], math.sqrt(3) / 4, ZINC_BLENDE),
    "CaF2": (FCC, [[0.0] * 3, [0.25] * 3, [0.75] * 3], [2.0, -1.0, -1.0], math.sqrt(3) / 4, FLUORITE),
}
OTHER_BASIS = torch.tensor([[1, 1, 0], [0, 1, -1], [0, 0, 1]], dtype=DOUBLE)


def crystal(name, basis=None, repeat=(1, 1, 1), scale=5.0):
    """Positions, charges and cell; `basis` is another choice of lattice vectors, `repeat` a supercell of it."""
    rows, fractional, charges, _, _ = CRYSTALS[name]
    cell = scale * torch.tensor(rows, dtype=DOUBLE)
    positions = torch.tensor(fractional, dtype=DOUBLE) @ cell + 0.1
    if basis is not None:
        cell = basis @ cell
    shifts = torch.cartesian_prod(*(torch.arange(n) for n in repeat)).to(DOUBLE) @ cell
    positions = (positions[None] + shifts[:, None]).reshape(-1, 3)
    q = torch.tensor(charges, dtype=DOUBLE).repeat(len(shifts))
    return positions, q, cell * torch.tensor(repeat, dtype=DOUBLE)[:, None]


def random_system(n=6, seed=0, net=0.0, dtype=DOUBLE):
    """A triclinic cell with charges at random, `net` in total; positions not wrapped."""
    generator = torch.Generator().manual_seed(seed)
    cell = torch.tensor([[4.0, 0.3, 0.0], [1.0, 5.0, 0.2], [-0.7, 0.4, 4.5]], dtype=DOUBLE)
    positions = (4.0 * torch.rand(n, 3, generator=generator, dtype=DOUBLE) - 2.0) @ cell
    charges = torch.randn(n, generator=generator, dtype=DOUBLE)
    charges += (net - charges.sum()) / n
    return positions.to(dtype), charges.to(dtype), cell.to(dtype)


def strained(positions, cell, strain):
    deformation = torch.eye(3, dtype=DOUBLE) + 0.5 * (strain + strain.T)
    return positions @ deformation, cell @ deformation


# --- values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("basis", "repeat"),
    [(None, (1, 1, 1)), (OTHER_BASIS, (1, 1, 1)), (None, (2, 1, 3)), (OTHER_BASIS, (1, 2, 1))],
    ids=["primitive", "other-basis", "supercell", "supercell-of-other-basis"],
)
@pytest.mark.parametrize("name", CRYSTALS)
def test_madelung_constants(name, basis, repeat):
    positions, charges, cell = crystal(name, basis, repeat)
    energy = float(rk.ewald_energy(positions, charges, cell, accuracy=1e-13))
    formula_units = len(charges) / len(CRYSTALS[name][2])
    distance, expected = 5.0 * CRYSTALS[name][3], CRYSTALS[name][4]
    assert -energy * distance / (COULOMB * formula_units) == pytest.approx(expected, abs=1e-10)


def test_madelung_constant_whatever_the_split():
    positions, charges, cell = crystal("NaCl")
    energies = [
        float(rk.ewald_energy(positions, charges, cell, accuracy=1e-13, sigma=sigma)) for sigma in (0.5, 0.8, 1.3)
    ]
    assert max(energies) - min(energies) < 1e-10
    assert -energies[0] * 2.5 / COULOMB == pytest.approx(1.747564594633, abs=1e-11)


@pytest.mark.parametrize("net", [0.0, 1.5])
@pytest.mark.parametrize("sigma", [0.6, 1.0, None])
def test_the_definition_is_met(sigma, net):
    """Charged cells too: the background's energy depends on how 1/r is split, the sum does not."""
    positions, charges, cell = random_system(net=net)
    expected = ewald.reference.energy(positions, charges, cell, 0.8)
    torch.testing.assert_close(ewald.reference.energy(positions, charges, cell, 1.1), expected, rtol=1e-12, atol=0)
    energy = rk.ewald_energy(positions, charges, cell, accuracy=1e-13, sigma=sigma)
    assert energy.shape == (1,)
    torch.testing.assert_close(energy[0], expected, rtol=1e-11, atol=0)


def test_lone_charge_in_a_cube():
    """One charge and its background: the constant of the simple cubic Wigner crystal, −½ · 2.837297479 k_e/L."""
    one = torch.zeros(1, 3, dtype=DOUBLE)
    energy = rk.ewald_energy(one, torch.ones(1, dtype=DOUBLE), 3.0 * torch.eye(3, dtype=DOUBLE), accuracy=1e-12)
    assert float(energy) == pytest.approx(-0.5 * 2.837297479480619 * COULOMB / 3.0, rel=1e-11)


def test_other_lattice_vectors_wrapping_translation_and_order_change_nothing():
    positions, charges, cell = random_system(net=0.3)
    energy = rk.ewald_energy(positions, charges, cell, accuracy=1e-12)
    fractional = positions @ torch.linalg.inv(cell)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    for moved, q, box in (
        ((fractional - fractional.floor()) @ cell, charges, cell),
        (positions + torch.tensor([0.3, -7.1, 2.2], dtype=DOUBLE), charges, cell),
        (positions[order], charges[order], cell),
        (positions, charges, OTHER_BASIS @ cell),
    ):
        torch.testing.assert_close(rk.ewald_energy(moved, q, box, accuracy=1e-12), energy, rtol=1e-11, atol=0)


def test_neighbor_lists_half_full_and_longer_give_the_same():
    positions, charges, cell = random_system()
    chosen = ewald.parameters(charges, cell, accuracy=1e-8)
    fixed = {"sigma": chosen.sigma, "cutoff": chosen.cutoff, "k_cut": chosen.k_cut}
    expected = rk.ewald_energy(positions, charges, cell, **fixed)
    for half, cutoff, skin in ((True, chosen.cutoff, 0.5), (False, chosen.cutoff + 1.0, 0.0)):
        listed = rk.neighbor_list(positions, cell, True, cutoff, half=half, skin=skin)
        energy = rk.ewald_energy(positions, charges, cell, neighbors=listed, **fixed)
        torch.testing.assert_close(energy, expected, rtol=1e-13, atol=0)
    # Without a cutoff of its own the sum takes the list's, and chooses the rest for it.
    listed = rk.neighbor_list(positions, cell, True, 6.0)
    torch.testing.assert_close(
        rk.ewald_energy(positions, charges, cell, neighbors=listed, accuracy=1e-12),
        rk.ewald_energy(positions, charges, cell, accuracy=1e-12),
        rtol=1e-11,
        atol=0,
    )


def test_float32_is_summed_in_float64():
    positions, charges, cell = random_system(dtype=torch.float32)
    energy = rk.ewald_energy(positions, charges, cell)
    assert energy.dtype == torch.float32
    exact = rk.ewald_energy(positions.double(), charges.double(), cell.double())
    assert float(energy) == float(exact.float())


# --- the choice of parameters ------------------------------------------------------------------------------------


def ionic_melt(n=216, seed=1):
    """±1 charges at random on a jittered grid: no symmetry that would make errors cancel."""
    generator = torch.Generator().manual_seed(seed)
    side = round(n ** (1 / 3))
    grid = torch.cartesian_prod(*[torch.arange(side, dtype=DOUBLE)] * 3) * 2.5
    positions = grid + 0.8 * torch.rand(n, 3, generator=generator, dtype=DOUBLE)
    charges = torch.ones(n, dtype=DOUBLE)
    charges[torch.randperm(n, generator=generator)[: n // 2]] = -1.0
    return positions, charges, 2.5 * side * torch.eye(3, dtype=DOUBLE)


def forces_of(positions, charges, cell, **options):
    positions = positions.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(rk.ewald_energy(positions, charges, cell, **options).sum(), positions)
    return -gradient


@pytest.mark.parametrize("given", [{}, {"cutoff": 7.0}, {"sigma": 1.0}, {"k_cut": 4.0}], ids=lambda given: str(given))
@pytest.mark.parametrize("accuracy", [1e-3, 1e-5, 1e-7])
def test_forces_are_as_accurate_as_promised(accuracy, given):
    positions, charges, cell = ionic_melt()
    exact = forces_of(positions, charges, cell, accuracy=1e-12)
    forces = forces_of(positions, charges, cell, accuracy=accuracy, **given)
    error = float((forces - exact).square().sum(dim=1).mean().sqrt()) / COULOMB
    # An estimate for charges without correlation, on one sample: within a factor of two, and not wastefully better.
    assert accuracy / 5 < error < 2 * accuracy


def test_what_is_given_is_kept_and_the_error_is_told():
    positions, charges, cell = ionic_melt()
    for given in ({"sigma": 1.1}, {"cutoff": 7.5}, {"k_cut": 3.0}, {"sigma": 1.1, "cutoff": 7.5}):
        chosen = ewald.parameters(charges, cell, accuracy=1e-5, **given)
        assert {name: getattr(chosen, name) for name in given} == given
    # Both cutoffs given: the errors follow, and σ makes them equal.
    chosen = ewald.parameters(charges, cell, cutoff=6.0, k_cut=2.0)
    assert chosen.pair_error == pytest.approx(chosen.wave_error, rel=1e-6)
    exact = forces_of(positions, charges, cell, accuracy=1e-12)
    forces = forces_of(positions, charges, cell, cutoff=6.0, k_cut=2.0)
    error = float((forces - exact).square().sum(dim=1).mean().sqrt()) / COULOMB
    assert error == pytest.approx(math.hypot(chosen.pair_error, chosen.wave_error), rel=0.5)


def test_parameters_belong_to_the_substance_not_to_the_size():
    charges = torch.tensor([1.0, -1.0], dtype=DOUBLE).repeat(4)
    cell = 5.0 * torch.eye(3, dtype=DOUBLE)
    one = ewald.parameters(charges, cell, cutoff=8.0)
    eight = ewald.parameters(charges.repeat(8), 2.0 * cell, cutoff=8.0)
    assert one.sigma == pytest.approx(eight.sigma, rel=1e-12)
    assert one.k_cut == pytest.approx(eight.k_cut, rel=1e-12)


def test_chosen_freely_the_cutoff_grows_with_the_cell_up_to_100_atoms_where_a_mesh_may_be_used():
    chosen = {
        method: [
            ewald.parameters(
                torch.tensor([1.0, -1.0], dtype=DOUBLE).repeat(4 * n**3),
                5.0 * n * torch.eye(3, dtype=DOUBLE),
                method=method,
            )
            for n in (1, 2, 20)
        ]
        for method in ("auto", "spectral")
    }
    assert chosen["auto"][0] == chosen["spectral"][0]
    assert 4 / 3 * math.pi * chosen["auto"][2].cutoff ** 3 * 8 / 125 == pytest.approx(100, rel=1e-3)
    # σ ∝ N^⅙ at equal density
    assert chosen["spectral"][2].sigma / chosen["spectral"][1].sigma == pytest.approx(math.sqrt(10), rel=1e-12)


def bends_of_a_stretched_cell(step=2e-4):
    """Second differences by strain², eV, of the energy of a cell stretched by up to 8 %, and the numbers of waves."""
    positions, charges, cell = random_system()
    fixed = {"sigma": 0.8, "cutoff": 2.8, "k_cut": 3.8}  # coarse: errors, hence jumps, would be large
    axis = torch.diag(torch.tensor([1.0, 0.2, -0.4], dtype=DOUBLE))
    counts, energies = set(), []
    for number in range(401):
        x, h = strained(positions, cell, step * number * axis)
        energies.append(float(rk.ewald_energy(x, charges, h, **fixed)))
        counts.add(rk.reciprocal_modes(h, 3.8, rk.reciprocal.spectra.ewald(0.8)).n_modes)
    return torch.tensor(energies, dtype=DOUBLE).diff(n=2) / step**2, counts


def test_energy_does_not_jump_where_pairs_and_waves_leave(monkeypatch):
    bends, counts = bends_of_a_stretched_cell()
    assert len(counts) > 3
    # The smooth curve bends by some 100 eV. A pair leaves with the force it has at the cutoff, a kink of up to
    # 0.5 eV, which shows as 0.5/2e-4 once; a jump of 1 meV would show as 1e-3/4e-8 = 25,000.
    assert float(bends.abs().max()) < 3e3
    monkeypatch.setattr(ewald.energy, "WINDOW_START", 1.0)
    assert float(bends_of_a_stretched_cell()[0].abs().max()) > 2e4


# --- derivatives -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", [0.0, 0.7])
def test_gradients_of_positions_charges_and_cell_are_those_of_the_definition(net):
    positions, charges, cell = (x.requires_grad_() for x in random_system(net=net))
    inputs = (positions, charges, cell)
    ours = torch.autograd.grad(rk.ewald_energy(*inputs, accuracy=1e-13).sum(), inputs)
    theirs = torch.autograd.grad(ewald.reference.energy(*inputs, 0.9), inputs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_first_and_second_derivatives_numerically():
    inputs = tuple(x.requires_grad_() for x in random_system(n=4, net=0.4))

    def energy(positions, charges, cell):
        return rk.ewald_energy(positions, charges, cell, sigma=0.9, cutoff=5.0, k_cut=5.0)

    # Pairs at the cutoff have erfc(3.9) of their force left, 1e-7 of a kink: below what is looked at.
    assert torch.autograd.gradcheck(energy, inputs)
    assert torch.autograd.gradgradcheck(energy, inputs)


def test_composed_second_derivative():
    """∂(‖F‖² + ‖σ‖²)/∂θ where the charges depend on positions through θ, against finite differences and definition."""
    positions, _, cell = random_system()
    generator = torch.Generator().manual_seed(2)
    theta = torch.randn(6, generator=generator, dtype=DOUBLE)

    def loss(theta, energy):
        x = positions.clone().requires_grad_()
        strain = torch.zeros(3, 3, dtype=DOUBLE, requires_grad=True)
        moved, box = strained(x, cell, strain)
        near = torch.tanh((moved[:, None] - moved[None]).square().sum(-1).mean(dim=1) / 20.0)
        total = energy(moved, theta * near, box).sum()
        forces, stress = torch.autograd.grad(total, (x, strain), create_graph=True)
        return forces.square().sum() + (stress / cell.det()).square().sum()

    def ours(*system):
        return rk.ewald_energy(*system, sigma=0.9, cutoff=7.0, k_cut=9.0)

    def theirs(*system):
        return ewald.reference.energy(*system, 0.9)

    gradients = []
    for energy in (ours, theirs):
        leaf = theta.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(leaf, energy), leaf)
        gradients.append(gradient)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-7, atol=1e-7 * float(gradients[1].abs().max()))
    h = 1e-5
    for k in range(3):
        step = torch.zeros_like(theta).index_fill(0, torch.tensor([k]), h)
        difference = float(loss(theta + step, ours) - loss(theta - step, ours)) / (2 * h)
        assert float(gradients[0][k]) == pytest.approx(difference, rel=1e-6)


def test_stress_by_finite_differences_all_six_components():
    positions, charges, cell = random_system(net=0.5)
    fixed = {"sigma": 0.9, "cutoff": 6.0, "k_cut": 6.5}
    strain = torch.zeros(3, 3, dtype=DOUBLE, requires_grad=True)
    (slope,) = torch.autograd.grad(rk.ewald_energy(*place(positions, charges, cell, strain), **fixed).sum(), strain)
    h = 1e-4
    for a, b in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):
        values = []
        for factor in (-2, -1, 1, 2):
            step = torch.zeros(3, 3, dtype=DOUBLE)
            step[a, b] = factor * h
            values.append(float(rk.ewald_energy(*place(positions, charges, cell, step), **fixed)))
        difference = (8 * (values[2] - values[1]) - (values[3] - values[0])) / (12 * h)
        assert float(slope[a, b]) == pytest.approx(difference, rel=1e-7, abs=1e-7)


def place(positions, charges, cell, strain):
    moved, box = strained(positions, cell, strain)
    return moved, charges, box


def test_moving_an_atom_by_a_lattice_vector_leaves_forces_and_stress():
    positions, charges, cell = random_system()
    results = []
    for shift in (0.0, 1.0):
        x = positions.clone()
        x[2] += shift * (2 * cell[0] - cell[1])
        strain = torch.zeros(3, 3, dtype=DOUBLE, requires_grad=True)
        x.requires_grad_()
        energy = rk.ewald_energy(*place(x, charges, cell, strain), accuracy=1e-10).sum()
        results.append(torch.autograd.grad(energy, (x, strain)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_a_mesh_gives_the_same_energy_and_derivatives_of_its_own():
    """Value and first derivatives within the tolerance; second ones those of what the mesh computes."""
    system = random_system(net=0.4)
    fixed = {"sigma": 0.9, "cutoff": 5.0, "k_cut": 5.0}
    results = []
    for method in ("spectral", "grid"):
        inputs = tuple(x.clone().requires_grad_() for x in system)
        energy = rk.ewald_energy(*inputs, **fixed, accuracy=1e-9, method=method)
        results.append((energy, *torch.autograd.grad(energy.sum(), inputs)))
    for direct, mesh in zip(*results, strict=True):
        torch.testing.assert_close(mesh, direct, rtol=1e-5, atol=1e-5)
    inputs = tuple(x.requires_grad_() for x in random_system(n=3, net=0.4))

    def energy(*inputs):
        return rk.ewald_energy(*inputs, sigma=0.9, cutoff=5.0, k_cut=4.0, method="grid")

    assert torch.autograd.gradcheck(energy, inputs)
    assert torch.autograd.gradgradcheck(energy, inputs)


# --- batches -----------------------------------------------------------------------------------------------------


def batch_of(systems):
    positions, charges, cells = (list(parts) for parts in zip(*systems, strict=True))
    ptr = torch.tensor([0] + [len(q) for q in charges]).cumsum(0)
    return torch.cat(positions), torch.cat(charges), torch.stack(cells), ptr


def test_a_batch_is_its_systems():
    empty = (torch.zeros(0, 3, dtype=DOUBLE), torch.zeros(0, dtype=DOUBLE), 3.0 * torch.eye(3, dtype=DOUBLE))
    systems = [random_system(6, 0, net=0.4), crystal("NaCl"), empty, random_system(1, 3, net=1.0)]
    positions, charges, cells, ptr = batch_of(systems)
    fixed = {"sigma": 0.9, "cutoff": 5.0, "k_cut": 5.5}
    inputs = tuple(x.requires_grad_() for x in (positions, charges, cells))
    energy = rk.ewald_energy(*inputs, ptr, **fixed)
    assert energy.shape == (4,)
    assert float(energy[2]) == 0.0
    weights = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=DOUBLE)
    gradients = torch.autograd.grad(energy @ weights, inputs)
    for k, system in enumerate(systems):
        alone = tuple(x.clone().requires_grad_() for x in system)
        single = rk.ewald_energy(*alone, **fixed)
        torch.testing.assert_close(energy[k : k + 1], single, rtol=1e-12, atol=0)
        if len(system[1]) == 0:
            continue
        parts = (gradients[0][ptr[k] : ptr[k + 1]], gradients[1][ptr[k] : ptr[k + 1]], gradients[2][k])
        for one, other in zip(parts, torch.autograd.grad(weights[k] * single.sum(), alone), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_an_accuracy_holds_for_every_system_of_a_batch():
    systems = [random_system(6, 0), random_system(3, 1)]
    positions, charges, cells, ptr = batch_of(systems)
    energy = rk.ewald_energy(positions, charges, cells, ptr, accuracy=1e-12)
    for k, system in enumerate(systems):
        assert float(energy[k]) == pytest.approx(float(ewald.reference.energy(*system, 0.8)), rel=1e-10)


# --- the pass for molecular dynamics -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["spectral", "grid"])
@pytest.mark.parametrize("batched", [False, True])
def test_waves_alone_have_the_energy_forces_virial_and_potential_of_the_definition(batched, method):
    systems = [random_system(6, 0, net=0.4), crystal("ZnS"), random_system(5, 4)] if batched else [random_system()]
    positions, charges, cells, ptr = batch_of(systems)
    sigma, k_cut = 0.9, 5.5
    waves = ewald.ewald_waves(cells, ptr, sigma, k_cut, method=method, tolerance=1e-12)
    assert waves.method == method
    result = ewald.evaluate_waves(positions, charges, waves)

    def by_autograd(x, q, h, k):
        modes = rk.reciprocal_modes(h, k_cut, rk.reciprocal.spectra.ewald(sigma), window_start=0.9)
        phases = 2 * math.pi * (x @ torch.linalg.inv(h)) @ modes.miller.to(DOUBLE).T
        power = (q @ torch.cos(phases)) ** 2 + (q @ torch.sin(phases)) ** 2
        return COULOMB * (modes.weights * power).sum()

    for k, (x, q, h) in enumerate(systems):
        x, q = x.clone().requires_grad_(), q.clone().requires_grad_()
        strain = torch.zeros(3, 3, dtype=DOUBLE, requires_grad=True)
        moved, charge, box = place(x, q, h, strain)
        energy = by_autograd(moved, charge, box, k)
        gradient, potential, slope = torch.autograd.grad(energy, (x, q, strain))
        here = slice(int(ptr[k]), int(ptr[k + 1]))
        for got, expected in (
            (result.energy[k], energy.detach()),
            (result.forces[here], -gradient),
            (result.potential[here], potential),
            (result.virial[k], -slope),
        ):
            torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-5])
def test_forces_and_virial_of_a_mesh_are_derivatives_of_its_energy(tolerance):
    """However coarse the mesh: what a run conserves is the energy that is computed."""
    positions, charges, cell = random_system()
    ptr, h = torch.tensor([0, 6]), 1e-4

    def evaluate(x, box):
        waves = ewald.ewald_waves(box, ptr, 0.9, 4.0, method="grid", tolerance=tolerance)
        return ewald.evaluate_waves(x, charges, waves)

    generator = torch.Generator().manual_seed(5)
    direction = torch.randn(6, 3, generator=generator, dtype=DOUBLE)
    result = evaluate(positions, cell)
    up, down = (float(evaluate(positions + s * h * direction, cell).energy) for s in (1, -1))
    assert (down - up) / (2 * h) == pytest.approx(float((result.forces * direction).sum()), rel=1e-6)
    # Under strain the mesh goes with the cell, and no wave enters or leaves by this little.
    strain = torch.tensor([[0.3, 0.1, -0.2], [0.1, -0.5, 0.4], [-0.2, 0.4, 0.2]], dtype=DOUBLE)
    up, down = (float(evaluate(*strained(positions, cell, s * h * strain)).energy) for s in (1, -1))
    assert (down - up) / (2 * h) == pytest.approx(float((result.virial[0] * strain).sum()), rel=1e-6)


def test_leaving_out_the_virial_changes_nothing_else():
    positions, charges, cell = random_system()
    for method in ("spectral", "grid"):
        waves = ewald.ewald_waves(cell, torch.tensor([0, 6]), 0.9, 4.0, method=method)
        whole, part = (ewald.evaluate_waves(positions, charges, waves, virial=v) for v in (True, False))
        assert part.virial is None
        assert torch.equal(whole.forces, part.forces)
        assert torch.equal(whole.energy, part.energy)


@pytest.mark.parametrize("accuracy", [1e-3, 1e-5, 1e-7])
def test_a_mesh_adds_less_than_the_error_allowed(accuracy):
    positions, charges, cell = ionic_melt()
    chosen = ewald.parameters(charges, cell, accuracy=accuracy)
    ptr = torch.tensor([0, len(charges)])
    direct, mesh = (
        ewald.evaluate_waves(
            positions,
            charges,
            ewald.ewald_waves(cell, ptr, chosen.sigma, chosen.k_cut, method=method, tolerance=chosen.tolerance),
        ).forces
        for method in ("spectral", "grid")
    )
    error = float((direct - mesh).square().sum(dim=1).mean().sqrt()) / COULOMB
    assert 0.0 < error < 0.5 * accuracy


# --- refusals ----------------------------------------------------------------------------------------------------


REFUSED = [
    ({"positions": [[0.0] * 3]}, TypeError, "`positions` must be a torch.Tensor"),
    ({"positions": torch.zeros(6, 2, dtype=DOUBLE)}, ValueError, r"`positions` must have shape \(n_atoms, 3\)"),
    ({"positions": torch.zeros(6, 3, dtype=torch.int64)}, TypeError, "`positions` must have dtype"),
    ({"charges": torch.zeros(5, dtype=DOUBLE)}, ValueError, r"`charges` must have shape \(6,\), got \(5,\)"),
    ({"charges": torch.zeros(6)}, TypeError, "`charges` must have dtype torch.float64"),
    ({"cell": torch.eye(2, dtype=DOUBLE)}, ValueError, r"`cell` must have shape \(3, 3\)"),
    ({"cell": torch.ones(3, 3, dtype=DOUBLE)}, ValueError, "`cell` of system 0 is singular"),
    ({"batch_ptr": torch.tensor([0, 5])}, ValueError, "`batch_ptr` must rise from 0 to the number of atoms 6"),
    ({"accuracy": 0.0}, ValueError, "`accuracy` must be positive"),
    ({"sigma": -1.0}, ValueError, "`sigma` must be positive and finite, in Å"),
    ({"cutoff": math.inf}, ValueError, "`cutoff` must be positive and finite, in Å"),
    ({"k_cut": "long"}, TypeError, "`k_cut` must be a number"),
    ({"k_cut": 1e5}, rk.errors.CapacityError, "fits"),
    ({"method": "pairwise"}, ValueError, "`method` must be one of auto, spectral, grid"),
    ({"neighbors": "list"}, TypeError, "`neighbors` must be a NeighborList, got str"),
]


@pytest.mark.parametrize(("change", "error", "message"), REFUSED, ids=lambda x: str(x)[:40])
def test_wrong_arguments_are_refused(change, error, message):
    positions, charges, cell = random_system()
    given = {"positions": positions, "charges": charges, "cell": cell, "sigma": 0.9, "cutoff": 3.0, "k_cut": 3.0}
    with pytest.raises(error, match=message):
        rk.ewald_energy(**given | change)


def test_a_list_that_does_not_fit_is_refused():
    positions, charges, cell = random_system()
    short = rk.neighbor_list(positions, cell, True, 3.0)
    with pytest.raises(ValueError, match=r"`neighbors` reaches 3\.0 Å, but `cutoff` is 4\.0 Å"):
        rk.ewald_energy(positions, charges, cell, neighbors=short, cutoff=4.0)
    slab = rk.neighbor_list(positions, cell, [True, True, False], 3.0)
    with pytest.raises(ValueError, match="`neighbors` must be periodic in every direction"):
        rk.ewald_energy(positions, charges, cell, neighbors=slab)
    two = rk.neighbor_list(positions, cell, True, 3.0, torch.tensor([0, 2, 6]))
    with pytest.raises(ValueError, match=r"`neighbors` must be of the systems of `batch_ptr` \[0, 6\]"):
        rk.ewald_energy(positions, charges, cell, neighbors=two)


def test_positions_that_are_not_finite_are_refused():
    positions, charges, cell = random_system()
    positions[1, 1] = math.nan
    with pytest.raises(rk.errors.NonFiniteError):
        rk.ewald_energy(positions, charges, cell)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"waves": None}, TypeError, "`waves` must be EwaldWaves"),
        ({"charges": torch.zeros(5, dtype=DOUBLE)}, ValueError, r"`charges` must have shape \(6,\)"),
        ({"positions": torch.zeros(6, 3)}, TypeError, "`positions` must have dtype torch.float64"),
        ({"positions": torch.zeros(6, 3, dtype=DOUBLE, requires_grad=True)}, ValueError, "must not require gradients"),
    ],
    ids=lambda x: str(x)[:40],
)
def test_wrong_arguments_of_the_waves_are_refused(change, error, message):
    positions, charges, cell = random_system()
    given = {
        "positions": positions,
        "charges": charges,
        "waves": ewald.ewald_waves(cell, torch.tensor([0, 6]), 0.9, 3.0),
    }
    with pytest.raises(error, match=message):
        ewald.evaluate_waves(**given | change)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"cell": torch.ones(3, 3, dtype=DOUBLE)}, ValueError, "singular"),
        ({"cell": torch.eye(3, dtype=DOUBLE).expand(2, 3, 3)}, ValueError, "`cell` must"),
        ({"batch_ptr": 6}, TypeError, "`batch_ptr` must be a torch.Tensor"),
        ({"sigma": -0.5}, ValueError, "`sigma` must be positive"),
        ({"k_cut": 0.0}, ValueError, "`k_cut` must be positive"),
        ({"method": "pairwise"}, ValueError, "`method` must be one of auto, spectral, grid"),
        ({"tolerance": -1.0}, ValueError, "`tolerance` must be positive"),
    ],
    ids=lambda x: str(x)[:40],
)
def test_wrong_arguments_for_making_waves_are_refused(change, error, message):
    _, _, cell = random_system()
    given = {"cell": cell, "batch_ptr": torch.tensor([0, 6]), "sigma": 0.9, "k_cut": 3.0}
    with pytest.raises(error, match=message):
        ewald.ewald_waves(**given | change)
