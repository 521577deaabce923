"""The pair op's values: against its definition, under symmetries, in every form of input."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from native_settings import available_isas, isa, threads
from pair_systems import (
    CUTOFF,
    FUNCTIONS,
    SINGLE,
    SYSTEMS,
    TABLE,
    TOLERANCE,
    System,
    batch,
    by_definition,
    outputs,
    system_of,
)

import rsa_kernels as rk

pytestmark = pytest.mark.usefixtures("one_thread")

QUANTITIES = ("per-atom energy", "energy", "forces", "virial")

# Kernel and reference evaluate the same polynomials in float64; sums of up to a few hundred terms of order 1 eV and
# 1 eV/Å (times 3.5 Å for the virial) are rounded differently. The largest difference seen is 3e-13.
ROUNDING = {"rtol": 1e-12, "atol": 2e-12}


def assert_outputs(result, wanted, **tolerance):
    for name, ours, theirs in zip(QUANTITIES, outputs(result), wanted, strict=True):
        torch.testing.assert_close(
            ours, theirs, **(tolerance or ROUNDING), msg=lambda text, name=name: f"{name}: {text}"
        )


def identical(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# --- against the definition ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("instructions", available_isas())
def test_kernel_equals_the_table_by_definition(name, instructions):
    with isa(instructions):
        assert_outputs(SYSTEMS[name].evaluate(), by_definition(SYSTEMS[name]))


@pytest.mark.parametrize("name", SYSTEMS)
def test_kernel_equals_the_analytic_functions(name):
    """Within what the table promises for every pair, summed over the pairs."""
    system = SYSTEMS[name]

    def analytic(positions, cells, neighbors, functions=FUNCTIONS):
        return rk.pair.reference.per_atom_energy(functions, positions, cells, system.numbers, neighbors, CUTOFF)

    neighbors = system.neighbors()
    r = neighbors.distances(system.positions, system.cell)
    atoms, energies, forces, virials = by_definition(system, analytic)
    value, slope = torch.zeros_like(r), torch.zeros_like(r)
    for (a, b), function in FUNCTIONS.items():
        if function is not None:
            i, j = system.numbers[neighbors.edge_index]
            chosen = ((i == a) & (j == b)) | ((i == b) & (j == a))
            x = r[chosen].requires_grad_()
            value[chosen] = function(x).detach()
            (slope[chosen],) = torch.autograd.grad(function(x).sum(), x) if x.numel() else (slope[chosen],)
    i = neighbors.edge_index[0]
    n_atoms, n_systems = neighbors.n_atoms, neighbors.n_systems
    value_bound = TOLERANCE * value.abs().clamp(min=1e-3)
    slope_bound = TOLERANCE * slope.abs().clamp(min=1e-3)
    bound = torch.zeros(n_atoms, dtype=torch.float64).index_add(0, i, 0.5 * value_bound)
    force_bound = torch.zeros(n_atoms, dtype=torch.float64).index_add(0, i, slope_bound)
    virial_bound = torch.zeros(n_systems, dtype=torch.float64).index_add(0, system_of(system)[i], 0.5 * r * slope_bound)
    energy_bound = torch.zeros(n_systems, dtype=torch.float64).index_add(0, system_of(system), bound)
    result, rounding = system.evaluate(), 1e-12
    assert bool(((result.per_atom_energy - atoms).abs() <= bound + rounding).all())
    assert bool(((result.energy - energies).abs() <= energy_bound + rounding).all())
    assert bool(((result.forces - forces).abs() <= force_bound[:, None] + rounding).all())
    assert bool(((result.virial - virials).abs() <= virial_bound[:, None, None] + rounding).all())


@pytest.mark.parametrize("name", ["triclinic", "slab", "batch"])
def test_virial_is_the_strain_derivative_of_the_energy(name):
    """−dE/dε by central differences of the kernel's own energy."""
    system, step = SYSTEMS[name], 1e-5
    virial = system.evaluate().virial
    for a, b in itertools.product(range(3), repeat=2):
        energies = []
        for sign in (1, -1):
            stretch = torch.eye(3, dtype=torch.float64)
            stretch[a, b] += sign * step
            energies.append(
                system.but(positions=system.positions @ stretch, cell=system.cell @ stretch).evaluate().energy
            )
        slope = (energies[0] - energies[1]) / (2 * step)
        # Differences: E''' step²/6 (E''' of order 100 eV) and rounding 1e-14/step. No pair crosses the cutoff here at
        # which the one function of the set that jumps would add its jump.
        torch.testing.assert_close(virial[:, a, b], -slope, rtol=0, atol=1e-7)
    assert torch.equal(virial, virial.transpose(1, 2))


def test_energy_and_per_atom_energy_of_the_differentiable_op():
    for system in SYSTEMS.values():
        arguments = TABLE, system.positions, system.cell, system.numbers, system.neighbors()
        result = system.evaluate()
        assert torch.equal(rk.pair.op.per_atom_energy(*arguments), result.per_atom_energy)
        torch.testing.assert_close(rk.pair.energy(*arguments), result.energy, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(("energy", "virial", "per_atom"), list(itertools.product([False, True], repeat=3)))
def test_leaving_out_outputs_changes_none_of_the_others(energy, virial, per_atom):
    system = SYSTEMS["batch"]
    full = system.evaluate()
    part = system.evaluate(energy=energy, virial=virial, per_atom_energy=per_atom)
    for wanted, ours, theirs in zip((per_atom, energy, True, virial), outputs(part), outputs(full), strict=True):
        if wanted:
            # Other loops of the same arithmetic: the compiler may fuse other operations.
            torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)
        else:
            assert ours is None
    assert torch.equal(part.closest, full.closest)


def test_closest_is_the_shortest_distance():
    for system in SYSTEMS.values():
        distances = system.neighbors().distances(system.positions, system.cell)
        assert float(system.evaluate().closest) == pytest.approx(float(distances.min()), rel=1e-14)
    lonely = System(torch.zeros(1, 3).double(), torch.zeros(3, 3).double(), torch.tensor([8]), False)
    assert float(lonely.evaluate().closest) == pytest.approx(CUTOFF, rel=1e-15)


@pytest.mark.parametrize("n_species", [1, 8, 9, 20])
@pytest.mark.parametrize("instructions", available_isas())
def test_many_species(n_species, instructions):
    """Up to eight species a register is looked up, above it memory is."""
    numbers = list(range(3, 3 + n_species))
    strengths = {pair: 0.1 + 0.07 * k for k, pair in enumerate(itertools.combinations_with_replacement(numbers, 2))}
    functions = {pair: lambda r, s=s: s * torch.exp(-s * r) for pair, s in strengths.items()}
    table = rk.pair.PairTable.from_functions(numbers, functions, r_min=0.05, cutoff=CUTOFF, tolerance=1e-5)
    generator = torch.Generator().manual_seed(n_species)
    picked = torch.tensor(numbers)[torch.randint(0, n_species, (40,), generator=generator)]
    system = SINGLE["orthorhombic"].but(numbers=picked)
    neighbors = system.neighbors()
    wanted = rk.pair.reference.table_per_atom_energy(
        table, system.positions, system.cell, table.species(picked), neighbors
    )
    with isa(instructions):
        result = system.evaluate(table)
        torch.testing.assert_close(result.per_atom_energy, wanted, **ROUNDING)
        positions = system.positions.clone().requires_grad_()
        weights = torch.randn(40, dtype=torch.float64, generator=generator)
        both = [
            torch.autograd.grad((weights * atoms).sum(), positions)[0]
            for atoms in (
                rk.pair.op.per_atom_energy(table, positions, system.cell, picked, neighbors),
                rk.pair.reference.table_per_atom_energy(
                    table, positions, system.cell, table.species(picked), neighbors
                ),
            )
        ]
    torch.testing.assert_close(*both, **ROUNDING)


@pytest.mark.parametrize("instructions", available_isas())
def test_no_force_of_the_wrong_block(instructions):
    """Distances within a few roundings of where two blocks of unequal intervals meet: a whole crystal can be there."""
    table = rk.pair.PairTable.from_functions((1,), {(1, 1): lambda r: 1e3 * torch.exp(-6 * r)}, r_min=1.0, cutoff=9.0)
    edges = np.linspace(1.0, 9.0, 17)[1:-1]
    assert len(set(table.blocks[1].tolist())) > 3
    r = np.concatenate(
        [edges * (1 + k * 2.0**-53) for k in range(-12, 13)] + [edges * (1 + k * 1e-11) for k in range(-12, 13)]
    )
    positions = torch.zeros(len(r), 2, 3, dtype=torch.float64)
    positions[:, :, 1] = 20.0 * torch.arange(len(r))[:, None]
    positions[:, 1, 0] = torch.as_tensor(r)
    system = System(
        positions.reshape(-1, 3), torch.zeros(3, 3).double(), torch.ones(2 * len(r), dtype=torch.int64), False
    )
    with isa(instructions):
        result = system.evaluate(table, system.neighbors(9.0))
    exact = 1e3 * np.exp(-6 * r)
    for ours, wanted in ((2 * result.per_atom_energy[::2], exact), (result.forces[1::2, 0], 6 * exact)):
        assert (np.abs(ours.numpy() - wanted) <= 1e-7 * np.maximum(wanted, 1e-3)).all()
    _, _, forces, _ = by_definition(
        system,
        lambda positions, cells, neighbors: rk.pair.reference.table_per_atom_energy(
            table, positions, cells, table.species(system.numbers), system.neighbors(9.0)
        ),
    )
    np.testing.assert_allclose(forces, result.forces, rtol=1e-11, atol=1e-13)


# --- which pairs count ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["triclinic", "tiny", "slab", "batch"])
def test_entries_of_the_skin_contribute_nothing(name):
    system = SYSTEMS[name]
    wanted = system.evaluate()
    long = system.neighbors(2.0 * CUTOFF)
    for neighbors in (system.neighbors(skin=1.3), system.neighbors(half=True), long, long.within(CUTOFF)):
        assert_outputs(system.evaluate(neighbors=neighbors), outputs(wanted))


def test_pairs_at_and_beyond_the_cutoff_give_exact_zeros():
    for r in (CUTOFF, math.nextafter(CUTOFF, 9.0), 1.01 * CUTOFF):
        positions = torch.tensor([[0.0, 0, 0], [r, 0, 0]], dtype=torch.float64)
        pair = System(positions, torch.zeros(3, 3).double(), torch.tensor([8, 8]), False)
        result = pair.evaluate(neighbors=pair.neighbors(skin=1.0))
        assert not any(bool(output.any()) for output in outputs(result))
    inside = pair.but(positions=torch.tensor([[0.0, 0, 0], [CUTOFF - 1e-9, 0, 0]], dtype=torch.float64)).evaluate()
    assert float(inside.energy) == pytest.approx(1 / (1 + CUTOFF) - 0.1, abs=1e-8)  # the jump is kept


def test_a_stale_list_inside_its_skin_gives_the_same_forces():
    system = SYSTEMS["triclinic"]
    neighbors = system.neighbors(skin=0.8)
    generator = torch.Generator().manual_seed(0)
    moved = system.but(positions=system.positions + 0.2 * torch.rand(17, 3, dtype=torch.float64, generator=generator))
    assert not neighbors.update(moved.positions, moved.cell)
    assert_outputs(moved.evaluate(neighbors=neighbors), outputs(moved.evaluate()))


# --- batches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ["tiny", None, "slab", "one atom", "triclinic", None],
        [None, "cluster"],
        [None, None],
        ["one atom"] * 3,
        ["tiny"],
    ],
    ids=str,
)
def test_batch_equals_single_calls(names):
    result = batch(names).evaluate()
    empty = torch.zeros(0, 3).double(), torch.zeros(3, 3).double()
    singles = [SINGLE[name].evaluate() if name else None for name in names]
    assert torch.equal(result.forces, torch.cat([s.forces if s else empty[0] for s in singles]))
    assert torch.equal(result.per_atom_energy, torch.cat([s.per_atom_energy if s else empty[0][:, 0] for s in singles]))
    assert torch.equal(result.energy, torch.cat([s.energy if s else torch.zeros(1).double() for s in singles]))
    assert torch.equal(result.virial, torch.cat([s.virial if s else empty[1][None] for s in singles]))


def test_no_atoms_at_all():
    nothing = System(torch.zeros(0, 3).double(), torch.eye(3).double(), torch.zeros(0, dtype=torch.int64))
    result = nothing.evaluate()
    assert result.forces.shape == (0, 3) and result.energy.tolist() == [0.0] and not result.virial.any()
    assert rk.pair.energy(TABLE, nothing.positions, nothing.cell, nothing.numbers, nothing.neighbors()).tolist() == [
        0.0
    ]


# --- symmetries ----------------------------------------------------------------------------------------------------


def rotation(seed=0):
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=generator))[0]
    return q * torch.linalg.det(q).sign()


@pytest.mark.parametrize("name", ["triclinic", "slab", "cluster", "tiny"])
def test_translation_rotation_permutation(name):
    system = SYSTEMS[name]
    atoms, energy, forces, virial = outputs(system.evaluate())
    shift = torch.tensor([1.7, -0.4, 12.3], dtype=torch.float64)
    assert_outputs(system.but(positions=system.positions + shift).evaluate(), (atoms, energy, forces, virial))
    turn = rotation()
    turned = system.but(positions=system.positions @ turn, cell=system.cell @ turn)
    assert_outputs(turned.evaluate(), (atoms, energy, forces @ turn, turn.T @ virial @ turn))
    mirrored = system.but(positions=-system.positions, cell=-system.cell)
    assert_outputs(mirrored.evaluate(), (atoms, energy, -forces, virial))
    order = torch.randperm(len(atoms), generator=torch.Generator().manual_seed(1))
    shuffled = system.but(positions=system.positions[order], numbers=system.numbers[order])
    assert_outputs(shuffled.evaluate(), (atoms[order], energy, forces[order], virial))
    # Newton's third law, to rounding.
    assert float(forces.sum(0).abs().max()) < 1e-12


def test_wrapping_changes_nothing():
    system = SYSTEMS["triclinic"]
    wanted = outputs(system.evaluate())
    turns = torch.randint(-50, 50, (17, 3), generator=torch.Generator().manual_seed(2)).double()
    # Coordinates of 500 Å are rounded to 1e-13 Å.
    assert_outputs(system.but(positions=system.positions + turns @ system.cell).evaluate(), wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "change", [[[1, 1, 0], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [-2, 1, 3], [0, 0, 1]], [[0, 1, 0], [0, 0, 1], [1, 0, 0]]]
)
def test_another_choice_of_the_same_lattice(change):
    system = SYSTEMS["triclinic"]
    other = torch.tensor(change, dtype=torch.float64) @ system.cell
    assert_outputs(system.but(cell=other).evaluate(), outputs(system.evaluate()))


@pytest.mark.parametrize("name", ["triclinic", "tiny"])
def test_supercell_is_so_many_cells(name):
    system = SYSTEMS[name]
    atoms, energy, forces, virial = outputs(system.evaluate())
    repeats = torch.tensor(list(itertools.product(range(2), range(3), range(2))), dtype=torch.float64)
    positions = (system.positions + (repeats @ system.cell)[:, None]).reshape(-1, 3)
    cell = torch.tensor([[2.0], [3.0], [2.0]], dtype=torch.float64) * system.cell
    big = system.but(positions=positions, cell=cell, numbers=system.numbers.repeat(12)).evaluate()
    assert_outputs(big, (atoms.repeat(12), 12 * energy, forces.repeat(12, 1), 12 * virial), rtol=1e-12, atol=2e-11)


# --- forms of input and output -------------------------------------------------------------------------------------


def test_bitwise_the_same_in_every_run_for_any_number_of_threads():
    generator = torch.Generator().manual_seed(5)
    positions = 14.0 * torch.rand(500, 3, dtype=torch.float64, generator=generator)
    large = System(positions, 14.0 * torch.eye(3).double(), torch.tensor([1, 6, 8]).repeat(167)[:500])
    table = dataclasses.replace(TABLE, r_min=1e-6)  # random atoms come close; what they feel does not matter here
    systems = [large, SYSTEMS["batch"]]
    lists = [system.neighbors() for system in systems]

    def everything():
        results = [system.evaluate(table, neighbors) for system, neighbors in zip(systems, lists, strict=True)]
        grads = []
        for system, neighbors in zip(systems, lists, strict=True):
            leaves = system.positions.clone().requires_grad_(), system.cell.clone().requires_grad_()
            grads += torch.autograd.grad(rk.pair.energy(table, *leaves, system.numbers, neighbors).sum(), leaves)
        return [*itertools.chain.from_iterable(map(outputs, results)), *grads]

    wanted = everything()
    for count in (1, 2, 3):
        with threads(count):
            assert identical(everything(), wanted)


def test_strided_and_expanded_inputs():
    system = SYSTEMS["batch"]
    wanted = outputs(system.evaluate())
    wide = torch.full((len(system.numbers), 7), float("nan"), dtype=torch.float64)
    wide[:, ::3] = system.positions
    cells = system.cell.transpose(1, 2).contiguous().transpose(1, 2)
    numbers = torch.stack([system.numbers, -system.numbers], dim=1)[:, 0]
    offsets = torch.stack([system.batch_ptr, system.batch_ptr + 1], dim=1)[:, 0]
    strided = System(wide[:, ::3], cells, numbers, system.pbc, offsets)
    assert not strided.positions.is_contiguous() and not cells.is_contiguous() and not offsets.is_contiguous()
    assert identical(outputs(strided.evaluate()), wanted)
    table = dataclasses.replace(TABLE, coefficients=TABLE.coefficients.transpose(0, 1).contiguous().transpose(0, 1))
    assert identical(outputs(strided.evaluate(table)), wanted)
    one = torch.zeros(1, 3, dtype=torch.float64).expand(5, 3) + 2.0 * torch.arange(5)[:, None]
    same = System(one, 9.0 * torch.eye(3).double(), torch.tensor([8]).expand(5))
    assert identical(outputs(same.evaluate()), outputs(same.but(numbers=torch.full((5,), 8)).evaluate()))


def test_float32_is_float64_arithmetic_rounded_at_the_end():
    for system in SYSTEMS.values():
        single = system.but(positions=system.positions.float(), cell=system.cell.float())
        exact = single.but(positions=single.positions.double(), cell=single.cell.double()).evaluate()
        result = single.evaluate()
        assert all(output.dtype == torch.float32 for output in outputs(result))
        assert identical(outputs(result), [output.float() for output in outputs(exact)])


def test_outputs_are_written_whole(monkeypatch):
    """Poisoned buffers: nothing that torch.empty hands out is left, or added to."""
    systems = [SYSTEMS["batch"], SYSTEMS["one atom"], SINGLE["cluster"]]
    lists = [system.neighbors() for system in systems]

    def everything():
        found = []
        for system, neighbors in zip(systems, lists, strict=True):
            found += outputs(system.evaluate(neighbors=neighbors))
            leaves = system.positions.clone().requires_grad_(), system.cell.clone().requires_grad_()
            atoms = rk.pair.op.per_atom_energy(TABLE, *leaves, system.numbers, neighbors)
            grads = torch.autograd.grad(atoms.square().sum(), leaves, create_graph=True)
            found += [atoms, *grads, *torch.autograd.grad(sum(grad.square().sum() for grad in grads), leaves)]
        return found

    wanted, empty = everything(), torch.empty
    poison = float("nan")

    def poisoned(*size, **options):
        out = empty(*size, **options)
        return out.fill_(poison if out.is_floating_point() else -(2**30))

    monkeypatch.setattr(torch, "empty", poisoned)
    assert math.isnan(torch.empty(1)[0])
    assert identical(everything(), wanted)


def test_rows_beyond_32_bits():
    """Row offsets above 2³¹: the columns lie at the end of an array whose other pages are never touched."""
    system, base = SYSTEMS["triclinic"], 2**31 + 77
    neighbors = system.neighbors()
    try:
        columns = torch.from_numpy(np.empty(base + neighbors.columns.numel(), dtype=np.int32))
    except MemoryError:
        pytest.skip("8 GiB of address space are not to be had here")
    columns[base:] = neighbors.columns
    wanted = outputs(system.evaluate())
    neighbors.rows, neighbors.columns = neighbors.rows + base, columns
    assert identical(outputs(system.evaluate(neighbors=neighbors)), wanted)
