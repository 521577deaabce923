"""Values of reciprocal-space attention: against its definition and published form, under symmetries, in every form."""

import cmath
import itertools
import math

import pytest
import torch
from native_settings import threads
from reciprocal_systems import (
    D_V,
    EXACT,
    GRID_BOUND,
    HEADS,
    METHODS,
    MIXED,
    SINGLE,
    SYSTEMS,
    TOLERANCE,
    WAVES,
    D,
    System,
    assert_near,
    batch,
    bound_of,
    cut_small,
    fractional,
    strained,
    system_of,
)

import rsa_kernels as rk
from rsa_kernels.reciprocal import reference

pytestmark = pytest.mark.usefixtures("one_thread")

# Sums of some hundred terms in float64, relative to the largest result. The largest difference seen is 3e-15.
ROUNDING = 1e-13


def identical(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def arguments(system):
    """Coordinates, waves and offsets, as the reference takes them."""
    modes = system.modes()
    where = fractional(system.positions, system.cell, system.offsets)
    return where, modes.miller, modes.weights, system.offsets, modes.mode_ptr


# --- the definition, against what is not ours ----------------------------------------------------------------------


def wave_vectors(system):
    """k = 2π n A⁻ᵀ of the half space."""
    return 2.0 * math.pi * system.modes().miller.double() @ torch.linalg.inv(system.cell).T


@pytest.mark.parametrize("name", [name for name in SINGLE if name != "no waves"])
def test_the_definition_is_the_double_loop(name):
    """u_i = (1/√d) Σ_k w_k Σ_j (q_i·k_j) e^{ik·(r_i − r_j)} v_j with both k and −k, in Cartesian coordinates."""
    system = SINGLE[name]
    q, k, v = system.leaves()
    waves, weights = wave_vectors(system).tolist(), system.modes().weights.tolist()
    both = [(n, w) for n, w in zip(waves, weights, strict=True)]
    both += [([-x for x in n], w) for n, w in both]
    wanted = torch.zeros_like(v)
    for i, j in itertools.product(range(system.n_atoms), repeat=2):
        apart = (system.positions[i] - system.positions[j]).tolist()
        K = sum(w * cmath.exp(1j * sum(x * y for x, y in zip(n, apart, strict=True))) for n, w in both)
        assert abs(K.imag) < 1e-12
        for head in range(HEADS):
            score = sum(a * b for a, b in zip(q[i, head].tolist(), k[j, head].tolist(), strict=True))
            wanted[i, head] += score / math.sqrt(D) * K.real * v[j, head]
    # Phases of unwrapped atoms, up to 600, are rounded to 1e-13 in Cartesian coordinates.
    assert_near(system.run("reference", (q, k, v)), wanted, 1e-11 if name == "unwrapped" else ROUNDING)


@pytest.mark.parametrize("name", ["orthorhombic", "triclinic"])
@pytest.mark.parametrize("d", [2, 6])
def test_the_definition_is_the_published_rotary_form(name, d):
    """(1/√d) Σ_k w_k Σ_j (rot_k(q)_i · rot_k(k)_j) v_j, pairs (even, odd), where k and −k are both summed."""
    system = SINGLE[name]
    q, k, v = system.leaves((1, d, D_V))
    waves, weights = wave_vectors(system), system.modes().weights

    def rotary(h, wave):
        angle = (system.positions @ wave)[:, None]
        a, b = h[:, 0, 0::2], h[:, 0, 1::2]
        return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], dim=1)

    wanted = torch.zeros(system.n_atoms, D_V, dtype=torch.float64)
    for wave, weight in zip(torch.cat([waves, -waves]), weights.repeat(2), strict=True):
        wanted += weight / math.sqrt(d) * (rotary(q, wave) @ rotary(k, wave).T) @ v[:, 0]
    assert_near(system.run("reference", (q, k, v))[:, 0], wanted, ROUNDING)


@pytest.mark.parametrize("name", ["triclinic", "batch"])
def test_the_halves_by_definition(name):
    system = SYSTEMS[name]
    q, k, v = system.leaves()
    where, miller, weights, batch_ptr, mode_ptr = arguments(system)
    states = reference.accumulate_modes(k, v, where, miller, batch_ptr, mode_ptr)
    same = system_of(batch_ptr)[:, None] == system_of(mode_ptr)[None]
    turning = torch.exp(2j * math.pi * (where @ miller.double().T)) * same
    wanted = torch.einsum("jm,jhd,jhe->mhde", turning, k.to(turning.dtype), v.to(turning.dtype))
    assert_near(states, torch.stack([wanted.real, wanted.imag]), ROUNDING)
    u = reference.gather_modes(q, states, where, miller, weights, batch_ptr, mode_ptr)
    assert_near(u, system.run("reference", (q, k, v)), ROUNDING)


# --- the methods against the definition ----------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut small"])
@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("method", METHODS)
def test_method_equals_the_definition(name, method, cut, monkeypatch):
    if cut:
        cut_small(monkeypatch)
    system = SYSTEMS[name]
    leaves = system.leaves()
    assert_near(system.run(method, leaves), system.run("reference", leaves), bound_of(method))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 2), (3, 1, 4), (4, 4, 4), (2, 16, 1)], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_any_number_of_heads_and_channels(method, shape):
    system = SYSTEMS["batch"]
    leaves = system.leaves(shape)
    assert_near(system.run(method, leaves), system.run("reference", leaves), bound_of(method))


@pytest.mark.parametrize("method", WAVES)
@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut small"])
def test_states_equal_the_definition(method, name, cut, monkeypatch):
    if cut:
        cut_small(monkeypatch)
    system = SYSTEMS[name]
    _, k, v = system.leaves()
    where, miller, _, batch_ptr, mode_ptr = arguments(system)
    wanted = reference.accumulate_modes(k, v, where, miller, batch_ptr, mode_ptr)
    modes = system.modes()
    geometry = system.positions, system.cell, modes, system.batch_ptr
    states = rk.accumulate_modes(k, v, *geometry, method, tolerance=TOLERANCE[k.dtype])
    assert states.shape == (2, modes.n_modes, HEADS, D, D_V)
    assert_near(states, wanted, bound_of(method))


def large(n_atoms=300, k_cut=3.0):
    generator = torch.Generator().manual_seed(8)
    cell = torch.tensor([[11.0, 0.4, 0], [-2.0, 10.0, 1.0], [0.5, 1.5, 12.0]], dtype=torch.float64)
    return System(torch.rand(n_atoms, 3, dtype=torch.float64, generator=generator) @ cell, cell, k_cut=k_cut)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(1, 16, 16), (4, 4, 4), (1, 1, 1)], ids=str)
def test_float32_is_as_exact_as_the_definition_in_float32(method, shape):
    """Root mean square error at most 3 times that of the reference run on the same float32 leaves."""
    system = large()
    leaves = system.leaves(shape, torch.float32)
    exact = system.run("reference", [x.double() for x in leaves])

    def error(u):
        assert u.dtype == torch.float32
        return float((u.double() - exact).square().mean().sqrt() / exact.square().mean().sqrt())

    allowed = 3.0 * error(system.run("reference", leaves))
    if method.startswith("grid"):
        allowed += TOLERANCE[torch.float32]
    assert error(system.run(method, leaves)) <= allowed


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_is_float32_arithmetic(method):
    """Only the result is rounded to bfloat16; the states between halves are float32."""
    system = SYSTEMS["batch"]
    leaves = system.leaves(dtype=torch.bfloat16)
    u, single = system.run(method, leaves), system.run(method, [x.float() for x in leaves])
    assert u.dtype == torch.bfloat16
    assert torch.equal(u, single.to(torch.bfloat16))
    states = rk.accumulate_modes(*leaves[1:], system.positions, system.cell, system.modes(), system.batch_ptr)
    assert states.dtype == torch.float32


@pytest.mark.parametrize("name", SYSTEMS)
def test_auto_is_the_method_it_says(name):
    """To the last bit, and within the tolerance of the definition."""
    system = SYSTEMS[name]
    leaves, modes = system.leaves(), system.modes()
    said = rk.explain(*leaves, modes, system.batch_ptr, tolerance=TOLERANCE[torch.float64])
    assert said.method in ("pairwise", "spectral", "grid") and said.method in str(said).splitlines()[0]
    assert torch.equal(system.run("auto", leaves), system.run(said.method, leaves))
    for method in ("auto", "auto halves"):
        assert_near(system.run(method, leaves), system.run("reference", leaves), GRID_BOUND)


def test_float32_coordinates_are_taken_as_they_are():
    """Positions and cell in float32 are those numbers in float64: nothing else is rounded."""
    system = SYSTEMS["batch"]
    leaves = system.leaves()
    rounded = system.but(positions=system.positions.float(), cell=system.cell.float())
    wanted = rounded.but(positions=rounded.positions.double(), cell=rounded.cell.double()).run("spectral", leaves)
    assert torch.equal(rounded.run("spectral", leaves), wanted)


# --- batches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [MIXED, [None], [None, None], ["no waves"], ["one atom"] * 3, ["triclinic"]], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_batch_equals_single_calls(names, method):
    """Bit by bit, values and gradients; systems have unequal numbers of atoms and waves, or none."""
    system = batch(names)
    leaves = system.leaves(grad=True)
    geometry = system.geometry()
    u = system.run(method, leaves, *geometry)
    together = [u, *torch.autograd.grad(u.square().sum(), (*leaves, *geometry))]
    parts = []
    for index, (low, high) in enumerate(itertools.pairwise(system.offsets.tolist())):
        one = System(system.positions[low:high], system.cell[index])
        own = [x.detach()[low:high].clone().requires_grad_() for x in leaves]
        geometry = one.geometry()
        u = one.run(method, own, *geometry)
        grads = torch.autograd.grad(u.square().sum(), (*own, *geometry))
        parts.append([u, *grads[:-1], grads[-1][None]])
    for ours, singles in zip(together, zip(*parts, strict=True), strict=True):
        # Inverse and volume of a batch of cells come from another LAPACK call: rounding.
        assert_near(ours, torch.cat(singles), 1e-14 if len(names) > 1 else ROUNDING)


def test_one_cell_serves_all_systems_of_a_batch():
    system = SYSTEMS["batch"].but(cell=SINGLE["triclinic"].cell)
    n_systems = len(system.offsets) - 1
    leaves, modes = system.leaves(), system.modes(n_systems=n_systems)
    assert modes.n_systems == n_systems
    spelled_out = system.but(cell=system.cell.expand(n_systems, 3, 3))
    assert torch.equal(system.run("spectral", leaves, modes=modes), spelled_out.run("spectral", leaves))


# --- symmetries ----------------------------------------------------------------------------------------------------


def with_forces(system, method, leaves):
    """Update, −∂/∂r of half the sum of its squares, and the derivative of that by strain."""
    positions = system.positions.clone().requires_grad_()
    strain = torch.zeros(len(system.offsets) - 1, 3, 3, dtype=torch.float64, requires_grad=True)
    u = system.run(method, leaves, *strained(system, positions, system.cell, strain))
    slope, bend = torch.autograd.grad(0.5 * u.square().sum(), (positions, strain))
    return u.detach(), -slope, bend


def assert_all_near(found, wanted, method, rounding=1e-12):
    for ours, theirs in zip(found, wanted, strict=True):
        assert_near(ours, theirs, bound_of(method, rounding))


def rotation():
    q = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    return q * torch.linalg.det(q).sign()


@pytest.mark.parametrize("name", ["triclinic", "orthorhombic", "left-handed"])
@pytest.mark.parametrize("method", METHODS)
def test_translation_rotation_permutation(name, method):
    system = SYSTEMS[name]
    leaves = system.leaves()
    u, forces, bend = with_forces(system, method, leaves)
    shift = torch.tensor([1.7, -0.4, 12.3], dtype=torch.float64)
    moved = system.but(positions=system.positions + shift)
    assert_all_near(with_forces(moved, method, leaves), (u, forces, bend), method)
    turn = rotation()
    turned = system.but(positions=system.positions @ turn, cell=system.cell @ turn)
    assert_all_near(with_forces(turned, method, leaves), (u, forces @ turn, turn.T @ bend @ turn), method)
    mirrored = system.but(positions=-system.positions, cell=-system.cell)
    assert_all_near(with_forces(mirrored, method, leaves), (u, -forces, bend), method)
    order = torch.randperm(system.n_atoms, generator=torch.Generator().manual_seed(1))
    shuffled = system.but(positions=system.positions[order])
    found = with_forces(shuffled, method, [x[order] for x in leaves])
    assert_all_near(found, (u[order], forces[order], bend), method)
    # A grid knows where its points are; what it may break is its tolerance.
    assert float(forces.sum(0).abs().max()) <= bound_of(method, 1e-12) * float(forces.abs().max())
    assert_near(bend, bend.transpose(1, 2), bound_of(method, 1e-12))


@pytest.mark.parametrize("method", METHODS)
def test_wrapping_changes_neither_update_nor_forces_nor_stress(method):
    system = SYSTEMS["triclinic"]
    leaves = system.leaves()
    wanted = with_forces(system, method, leaves)
    turns = torch.randint(-50, 50, (system.n_atoms, 3), generator=torch.Generator().manual_seed(2)).double()
    # Coordinates of 500 Å are rounded to 1e-13 Å.
    found = with_forces(system.but(positions=system.positions + turns @ system.cell), method, leaves)
    assert_all_near(found, wanted, "exact", 1e-11)


@pytest.mark.parametrize(
    "change", [[[1, 1, 0], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [-2, 1, 3], [0, 0, 1]], [[0, 1, 0], [0, 0, 1], [1, 0, 0]]]
)
@pytest.mark.parametrize("method", METHODS)
def test_another_choice_of_the_same_lattice(change, method):
    system = SYSTEMS["triclinic"]
    leaves = system.leaves()
    other = system.but(cell=torch.tensor(change, dtype=torch.float64) @ system.cell)
    assert other.modes().n_modes == system.modes().n_modes
    assert_all_near(with_forces(other, method, leaves), with_forces(system, method, leaves), method)


@pytest.mark.parametrize("repeats", [(2, 1, 1), (3, 2, 1), (3, 3, 3)], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_supercell_is_so_many_cells(repeats, method):
    """Size-consistent: every atom of the supercell gets what it gets in the cell, forces and stress included."""
    system = SYSTEMS["triclinic"]
    leaves = system.leaves()
    u, forces, bend = with_forces(system, method, leaves)
    images = torch.tensor(list(itertools.product(*map(range, repeats))), dtype=torch.float64)
    positions = (system.positions + (images @ system.cell)[:, None]).reshape(-1, 3)
    big = System(positions, torch.tensor(repeats, dtype=torch.float64)[:, None] * system.cell)
    n = len(images)
    assert big.modes().n_modes > 0.8 * n * system.modes().n_modes
    found = with_forces(big, method, [x.repeat(n, 1, 1) for x in leaves])
    assert_all_near(found, (u.repeat(n, 1, 1), forces.repeat(n, 1), n * bend), method)


# --- halves --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", WAVES)
def test_states_of_shared_out_atoms_add_up(method):
    """What several processes do: each accumulates its atoms, sums the states of all, gathers for its atoms.

    Together that is the whole: values, and gradients by autograd through the sum, to the second order.
    """
    system = SYSTEMS["triclinic"]
    generator = torch.Generator().manual_seed(3)
    ahead = torch.randn(system.n_atoms, HEADS, D_V, dtype=torch.float64, generator=generator)
    owned = [torch.tensor([0, 3, 4, 8]), torch.tensor([1, 2, 5, 6, 7])]

    def shared_out(q, k, v, positions, cell):
        modes = system.modes(cell)
        options = {"method": method, "tolerance": TOLERANCE[torch.float64], "atoms_in_all": system.n_atoms}
        states = sum(rk.accumulate_modes(k[o], v[o], positions[o], cell, modes, **options) for o in owned)
        parts = [rk.gather_modes(q[o], states, positions[o], cell, modes, **options) for o in owned]
        return torch.cat(parts)[torch.argsort(torch.cat(owned))]

    def whole(q, k, v, positions, cell):
        return system.run(method, (q, k, v), positions, cell)

    found = []
    for function in (shared_out, whole):
        inputs = *system.leaves(grad=True), *system.geometry()
        u = function(*inputs)
        first = torch.autograd.grad((ahead * u).sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(x.square().sum() for x in first), inputs)
        found.append([u, *first, *second])
    for ours, wanted in zip(*found, strict=True):
        assert_near(ours.detach(), wanted.detach(), 1e-12)


def test_processes_with_unequal_shares_agree_on_the_mesh():
    """With "grid" and "auto", a share of 30 atoms accumulates what it would among 3,000: the same mesh and method."""
    system = large()
    _, k, v = system.leaves((1, 4, 4))
    modes = system.modes()
    for method in ("grid", "auto"):
        options = {"method": method, "tolerance": 1e-4, "atoms_in_all": system.n_atoms}
        whole = rk.accumulate_modes(k, v, system.positions, system.cell, modes, **options)
        shares = torch.arange(system.n_atoms).split([30, 1, 269])
        parts = [rk.accumulate_modes(k[o], v[o], system.positions[o], system.cell, modes, **options) for o in shares]
        # Another mesh would differ by the tolerance.
        assert_near(sum(parts), whole, 1e-13)


# --- forms of input and output -------------------------------------------------------------------------------------


def everything(system, method):
    """Update, all gradients, and the gradients of the sum of their squares."""
    inputs = *system.leaves(grad=True), *system.geometry()
    u = system.run(method, inputs[:3], *inputs[3:])
    first = torch.autograd.grad(u.square().sum(), inputs, create_graph=True)
    second = torch.autograd.grad(sum(x.square().sum() for x in first), inputs)
    return [x.detach() for x in (u, *first, *second)]


@pytest.mark.parametrize("method", METHODS)
def test_two_runs_give_the_same_bits(method, monkeypatch):
    for name in ("batch", "triclinic"):
        assert identical(everything(SYSTEMS[name], method), everything(SYSTEMS[name], method))
    cut_small(monkeypatch)
    assert identical(everything(SYSTEMS["batch"], method), everything(SYSTEMS["batch"], method))


@pytest.mark.parametrize("method", EXACT)
def test_threads_change_rounding_only(method):
    """Matrix products may be summed in other orders by other numbers of threads; for one number bits are the same."""
    system = large(600)
    leaves = system.leaves((2, 8, 8))
    wanted = system.run(method, leaves)
    for count in (2, 3):
        with threads(count):
            u = system.run(method, leaves)
            assert torch.equal(system.run(method, leaves), u)
        assert_near(u, wanted, 1e-13)


@pytest.mark.parametrize("method", METHODS)
def test_strided_and_expanded_inputs(method):
    system = SYSTEMS["batch"]
    wanted = everything(system, method)
    n = system.n_atoms

    def strided(x):
        wide = torch.full((*x.shape[:-1], 2 * x.shape[-1]), float("nan"), dtype=x.dtype)
        wide[..., ::2] = x.detach()
        return wide[..., ::2]

    turned = system.cell.transpose(1, 2).contiguous().transpose(1, 2)
    offsets = torch.stack([system.batch_ptr, system.batch_ptr + 1], dim=1)[:, 0]
    other = system.but(positions=strided(system.positions), cell=turned, batch_ptr=offsets)
    inputs = [strided(x).requires_grad_() for x in (*system.leaves(), system.positions)]
    inputs.append(turned.clone().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_())
    assert not any(x.is_contiguous() for x in (*inputs, offsets))
    modes = other.modes(inputs[4])
    layout = {"miller": modes.miller.T.contiguous().T, "weights": torch.stack([modes.weights] * 2, dim=1)[:, 0]}
    modes = rk.Modes(**layout, mode_ptr=modes.mode_ptr, k_cut=modes.k_cut)
    u = other.run(method, inputs[:3], *inputs[3:], modes=modes)
    first = torch.autograd.grad(u.square().sum(), inputs, create_graph=True)
    second = torch.autograd.grad(sum(x.square().sum() for x in first), inputs)
    for ours, theirs in zip((u, *first, *second), wanted, strict=True):
        assert_near(ours.detach(), theirs, 1e-13)  # the sum of squares of a strided tensor has another order

    one = torch.randn(1, 1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    expanded = one.expand(n, 3, 4)
    found = [system.run(method, [x] * 3) for x in (expanded, expanded.contiguous())]
    assert torch.equal(*found)


@pytest.mark.parametrize("method", METHODS)
def test_outputs_are_written_whole(method, monkeypatch):
    """Poisoned buffers: nothing of what an allocation without values hands out is left, or added to."""
    wanted = [everything(SYSTEMS[name], method) for name in SYSTEMS]
    poison = {}
    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        poison[name] = plain = getattr(owner, name)

        def poisoned(*args, plain=plain, **options):
            out = plain(*args, **options)
            return out.fill_(float("nan") if out.is_floating_point() else 2**30) if out.numel() else out

        monkeypatch.setattr(owner, name, poisoned)
    assert all(math.isnan(x[0]) for x in (torch.empty(1), torch.ones(1).new_empty(1), torch.empty_like(torch.ones(1))))
    for name, values in zip(SYSTEMS, wanted, strict=True):
        assert identical(everything(SYSTEMS[name], method), values)


@pytest.mark.parametrize("name", ["triclinic", "one atom", "batch"])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_inputs_are_not_written_to(method, heads, name):
    """Nor are gradients that come in; with one head or atom, by-head copies of a tensor are the tensor itself."""
    system = SYSTEMS[name]
    inputs = *system.leaves((heads, D, D_V), grad=True), *system.geometry()
    modes = system.modes(inputs[4])
    generator = torch.Generator().manual_seed(5)
    shapes = [(system.n_atoms, heads, D_V), *(x.shape for x in inputs)]
    ahead, *turned = (torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes)
    given = *inputs, modes.miller, modes.weights, modes.mode_ptr, system.offsets, ahead, *turned
    before = [x.detach().clone() for x in given]
    u = system.run(method, inputs[:3], *inputs[3:], modes=modes)
    first = torch.autograd.grad(u, inputs, ahead, create_graph=True)
    torch.autograd.grad(first, inputs, turned)
    assert identical([x.detach() for x in given], before)


@pytest.mark.parametrize("method", ["spectral", "grid"])
def test_float32_at_192000_atoms(method):
    """Phases and sums do not wear out: relative errors of update and forces against float64, same (float32) inputs."""
    n_atoms, edge = 192_000, 142.6
    generator = torch.Generator().manual_seed(5)
    leaves = [torch.randn(n_atoms, 1, 2, generator=generator) for _ in range(3)]
    positions = edge * torch.rand(n_atoms, 3, generator=generator)
    cell = edge * torch.eye(3)
    found = []
    for dtype, way in ((torch.float32, method), (torch.float64, "spectral")):
        modes = rk.reciprocal_modes(cell.to(dtype), 0.22, rk.reciprocal.spectra.gaussian(4.0))
        inputs = [x.to(dtype).requires_grad_() for x in (*leaves, positions)]
        u = rk.reciprocal_attention(*inputs, cell.to(dtype), modes, method=way, tolerance=5e-6)
        found.append([u.detach(), *torch.autograd.grad(u.square().sum(), inputs)])
    for name, bound, ours, wanted in zip("uqkvF", (1e-5, 1e-5, 1e-5, 1e-5, 1e-4), *found, strict=True):
        assert (ours.double() - wanted).norm() < bound * wanted.norm(), name
