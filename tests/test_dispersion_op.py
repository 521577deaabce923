"""The op of D3(BJ) dispersion: against its definition, in every form of input, and what it refuses."""

import dataclasses

import pytest
import torch
from native_settings import available_isas, isa, threads
from pair_systems import SINGLE, SYSTEMS, System, batch, strained, system_of

import rsa_kernels as rk
from rsa_kernels.dispersion import op as module
from rsa_kernels.dispersion import reference
from rsa_kernels.errors import BackendUnavailableError, DerivativeNotProvidedError, NonFiniteError
from silica_md.potentials.d3_parameters import damping_of, table_of

pytestmark = pytest.mark.usefixtures("one_thread")

CUTOFF = 3.5
TABLES = {width: table_of((1, 6, 8), damping_of("pbe"), CUTOFF, width) for width in (0.0, 1.2)}
QUANTITIES = ("energy", "forces", "virial", "per-atom energy", "coordination")

# The same arithmetic in another order. Atoms lie at random, some 0.3 Å apart.
ROUNDING = {"rtol": 1e-11, "atol": 1e-12}


def evaluate(system, table, neighbors=None):
    neighbors = system.neighbors(table.cutoff) if neighbors is None else neighbors
    return rk.dispersion.evaluate(table, system.positions, system.cell, system.numbers, neighbors)


def by_definition(system, table):
    neighbors, species = system.neighbors(table.cutoff), table.species(system.numbers).long()
    positions = system.positions.clone().requires_grad_()
    strain = torch.zeros(neighbors.n_systems, 3, 3, dtype=torch.float64, requires_grad=True)
    moved = strained(system, positions, system.cell, (strain + strain.mT) / 2)
    atoms = reference.per_atom_energy(table, *moved, species, neighbors)
    energy = torch.zeros(neighbors.n_systems, dtype=torch.float64).index_add(0, system_of(system), atoms)
    gradient, slope = torch.autograd.grad(energy.sum(), (positions, strain))
    counted = reference.coordination(table, system.positions, system.cell, species, neighbors)
    return energy.detach(), -gradient, -slope, atoms.detach(), counted


def assert_same(result, wanted, **tolerance):
    for name, ours, theirs in zip(QUANTITIES, result, wanted, strict=True):
        torch.testing.assert_close(
            ours, theirs, **(tolerance or ROUNDING), msg=lambda text, name=name: f"{name}: {text}"
        )


def identical(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("width", TABLES)
@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("instructions", available_isas())
def test_kernel_equals_the_definition(name, width, instructions):
    with isa(instructions):
        assert_same(evaluate(SYSTEMS[name], TABLES[width]), by_definition(SYSTEMS[name], TABLES[width]))


@pytest.mark.parametrize("instructions", available_isas())
@pytest.mark.parametrize("numbers", [(1, 3, 6, 7, 8, 11, 14, 17, 26), (1, 90, 92)])
def test_more_species_than_a_register_holds_and_more_references(numbers, instructions):
    system = SINGLE["orthorhombic"]
    kinds = torch.tensor(numbers)[torch.arange(len(system.numbers)) % len(numbers)]
    system = system.but(numbers=kinds)
    table = table_of(numbers, damping_of("b3lyp"), CUTOFF, 1.0)
    assert table.reference_cn.shape[1] > 4
    with isa(instructions):
        assert_same(evaluate(system, table), by_definition(system, table))


def test_threads_repetition_and_poison_change_no_bit(monkeypatch):
    system, table = SYSTEMS["batch"], TABLES[1.2]
    neighbors = system.neighbors(CUTOFF)
    first = evaluate(system, table, neighbors)
    for count in (2, 3):
        with threads(count):
            assert identical(first, evaluate(system, table, neighbors))
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, **options: empty(*size, **options).fill_(torch.nan))
    assert identical(first, evaluate(system, table, neighbors))


def test_a_batch_equals_its_systems():
    names = ["tiny", "slab", "triclinic"]
    together = evaluate(batch([names[0], None, *names[1:]]), TABLES[1.2])
    alone = [evaluate(SINGLE[name], TABLES[1.2]) for name in names]
    assert together.energy[1] == 0 and not together.virial[1].any()
    kept = torch.tensor([0, 2, 3])
    assert_same(
        (together.energy[kept], together.forces, together.virial[kept], *together[3:]),
        [torch.cat(parts) for parts in zip(*alone, strict=True)],
        rtol=1e-14,
        atol=1e-15,
    )


def test_no_atoms_and_one_atom_in_the_open():
    nothing = System(torch.zeros(0, 3).double(), 3.0 * torch.eye(3).double(), torch.zeros(0, dtype=torch.int64))
    assert evaluate(nothing, TABLES[1.2]).energy.tolist() == [0.0]
    one = System(torch.zeros(1, 3).double(), torch.zeros(3, 3).double(), torch.tensor([8]), pbc=False)
    result = evaluate(one, TABLES[1.2])
    assert result.energy.tolist() == [0.0] and result.coordination.tolist() == [0.0] and not result.forces.any()


def test_two_atoms_on_one_spot_are_finite():
    """Damping keeps the energy finite there; what else diverges is for other potentials to refuse."""
    pair = System(torch.zeros(2, 3).double(), 20.0 * torch.eye(3).double(), torch.tensor([8, 8]), pbc=False)
    result = evaluate(pair, TABLES[1.2])
    assert all(bool(torch.isfinite(x).all()) for x in result)
    assert result.coordination.tolist() == [1.0, 1.0]
    near = pair.but(positions=torch.tensor([[0, 0, 0], [1e-4, 0, 0]], dtype=torch.float64))
    torch.testing.assert_close(result.energy, evaluate(near, TABLES[1.2]).energy, rtol=1e-8, atol=0)


def test_skin_strides_and_float32():
    system, table = SINGLE["triclinic"], TABLES[1.2]
    exact = evaluate(system, table)
    assert_same(evaluate(system, table, system.neighbors(CUTOFF, skin=1.5)), exact)
    assert_same(evaluate(system, table, system.neighbors(CUTOFF + 1.0)), exact)
    wide = torch.stack([system.positions, system.positions], dim=2)[:, :, 0]
    assert not wide.is_contiguous()
    assert identical(evaluate(system.but(positions=wide), table), exact)
    single = system.but(positions=system.positions.float(), cell=system.cell.float())
    result = evaluate(single, table, system.neighbors(CUTOFF))
    assert all(x.dtype == torch.float32 for x in result)
    # Arithmetic is float64: what differs are the rounded inputs and outputs.
    rounded = by_definition(single.but(positions=single.positions.double(), cell=single.cell.double()), table)
    assert_same([x.double() for x in result], rounded, rtol=1e-6, atol=1e-7)


def test_opcheck():
    system, table = SINGLE["slab"], TABLES[1.2]
    neighbors = system.neighbors(CUTOFF)
    pairs, c6, reference_cn, k = table.packed
    rows = neighbors.batch_ptr, neighbors.rows, neighbors.columns, neighbors.owners, neighbors.image_shifts
    cells, species = system.cell[None].clone(), table.species(system.numbers)
    arguments = system.positions, cells, species, pairs, c6, reference_cn, k, table.s6, CUTOFF, 1.2, *rows
    torch.library.opcheck(module.dispersion_evaluate.overload, arguments)
    energy = module.dispersion_evaluate(system.positions.clone().requires_grad_(), *arguments[1:])[0]
    with pytest.raises(DerivativeNotProvidedError):
        energy.sum().backward()


def test_wrong_arguments_are_refused_by_name():
    system, table = SINGLE["triclinic"], TABLES[1.2]
    neighbors = system.neighbors(CUTOFF)
    good = {
        "table": table,
        "positions": system.positions,
        "cell": system.cell,
        "atomic_numbers": system.numbers,
        "neighbors": neighbors,
    }
    hot = system.positions.clone().requires_grad_()
    for changes, error, message in (
        ({"table": "pbe"}, TypeError, "`table` must be a DispersionTable, got str"),
        ({"neighbors": neighbors.edge_index}, TypeError, "`neighbors` must be a NeighborList"),
        ({"neighbors": system.neighbors(3.0)}, ValueError, r"`neighbors` reaches 3.0 Å, but the table needs 3.5 Å"),
        ({"positions": system.positions[1:]}, ValueError, r"`positions` must have shape \(17, 3\)"),
        ({"positions": system.positions.half()}, TypeError, "`positions` must have dtype"),
        ({"positions": hot}, ValueError, "must not require gradients"),
        ({"cell": system.cell[:2]}, ValueError, "`cell` must have shape"),
        ({"atomic_numbers": system.numbers[1:]}, ValueError, r"`atomic_numbers` must have shape \(17,\)"),
        ({"atomic_numbers": system.numbers.int()}, TypeError, "`atomic_numbers` must have dtype"),
        ({"atomic_numbers": system.numbers + 6}, ValueError, "`atomic_numbers` holds an element"),
        ({"positions": system.positions * torch.nan}, NonFiniteError, "`positions` or `cell`"),
    ):
        with pytest.raises(error, match=message):
            rk.dispersion.evaluate(**good | changes)
    with pytest.raises(BackendUnavailableError, match=r"dispersion_evaluate.*cuda"):
        rk._library._guarded("dispersion_evaluate", "cuda", module.dispersion_evaluate.kernels.get("cuda"))()


def test_wrong_tables_are_refused():
    table = TABLES[1.2]
    lopsided = table.c6.clone()
    lopsided[0, 1, 0, 0] += 1.0
    for changes, message in (
        ({"numbers": (8, 6, 1)}, "`numbers` must be ascending"),
        ({"numbers": (0, 6, 8)}, "`numbers` must be ascending"),
        ({"radii": table.radii[1:]}, r"`radii` must have shape \(3,\)"),
        ({"c6": lopsided}, "`c6` must be symmetric"),
        ({"reference_cn": -table.reference_cn - 1.0}, "`reference_cn` must hold a reference"),
        ({"cutoff": 0.0}, "`cutoff` must be positive"),
        ({"width": 3.5}, "`width` must be from 0 to below the cutoff of 3.5 Å"),
        ({"s8": float("nan")}, "`s8` must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(table, **changes)
