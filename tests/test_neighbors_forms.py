"""Forms of a neighbour list: ordered pairs, the padded matrix, shorter lists; the ops behind them, equal to torch's."""

import itertools

import numpy as np
import pytest
import torch
from native_settings import available_isas, isa, threads
from neighbor_cases import FULL_PBC, batch_of, listed, random_case, tensor

import rsa_kernels as rk
from rsa_kernels.errors import CapacityError
from rsa_kernels.neighbors import expand, reference

pytestmark = pytest.mark.usefixtures("one_thread")


def dense(rng, n_atoms=60, length=2.0, cutoff=3.1):
    """Rows of some hundreds of neighbours, every j several times."""
    cell = np.diag([length, 1.1 * length, 1.2 * length])
    return rng.uniform(-1, 2, (n_atoms, 3)) @ cell, cell, np.array(FULL_PBC), cutoff


def long_rows(rng):
    """Rows of more than 128 neighbours, every j once; more atoms than two bytes count."""
    cell = np.diag([130.0, 130.0, 130.0])
    return rng.uniform(0, 1, (70_000, 3)) @ cell, cell, np.array(FULL_PBC), 10.2


def compact(nl):
    return nl.rows, nl.columns, nl.owners, nl.image_shifts


def same(ours, wanted):
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(ours, wanted, strict=True))


# --- the order of pairs --------------------------------------------------------------------------------------------


def test_pairs_stand_in_the_order_of_the_definition():
    rng = np.random.default_rng(0)
    several = 0
    for case in [random_case(rng) for _ in range(60)] + [dense(rng, 12)]:
        positions, cell, pbc, cutoff = case
        nl = listed(case)
        edges, shifts = reference.neighbor_pairs(tensor(positions), tensor(cell), torch.tensor(pbc), cutoff)
        assert torch.equal(nl.edge_index, edges) and torch.equal(nl.unit_shifts, shifts)
        several += bool((edges[:, 1:] == edges[:, :-1]).all(0).any())
    assert several > 20


def is_ordered(nl):
    """Whether of every two pairs that follow each other, the first number in which they differ grows."""
    undecided = torch.ones(max(nl.edge_index.shape[1] - 1, 0), dtype=torch.bool)
    for column in (*nl.edge_index, *nl.unit_shifts.T):
        step = column.diff()
        if bool((step[undecided] < 0).any()):
            return False
        undecided &= step == 0
    return not bool(undecided.any())


@pytest.mark.parametrize("half", [False, True])
def test_long_rows_are_in_order_too(half):
    rng = np.random.default_rng(1)
    for case in (dense(rng), long_rows(rng)):
        nl = listed(case, half=half)
        assert int(nl.rows.diff().max()) > 128
        assert is_ordered(nl)


def test_the_same_order_wherever_atoms_are_in_space():
    """Pairs do not show how the search went: moved, turned and wrapped otherwise, they are bitwise the same."""
    rng = np.random.default_rng(2)
    cell = np.array([[11.0, 0, 0], [2.0, 10.0, 0], [-1.0, 3.0, 12.0]])
    positions = rng.uniform(0, 1, (300, 3)) @ cell
    nl = listed((positions, cell, np.array(FULL_PBC), 3.3))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    moved = listed(((positions + [3.0, -7.0, 40.0]) @ turn, cell @ turn, np.array(FULL_PBC), 3.3))
    assert torch.equal(nl.edge_index, moved.edge_index) and torch.equal(nl.unit_shifts, moved.unit_shifts)
    assert not torch.equal(nl.columns, moved.columns)


# --- the matrix ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [False, True])
def test_matrix_holds_the_pairs_row_by_row(half):
    rng = np.random.default_rng(3)
    for case in [random_case(rng) for _ in range(40)] + [dense(rng)]:
        nl = listed(case, half=half)
        neighbors, shifts, counts = nl.matrix()
        assert torch.equal(counts, nl.row_ptr.diff())
        assert neighbors.shape == (nl.n_atoms, max(counts.tolist(), default=0)) == shifts.shape[:2]
        assert neighbors.dtype == torch.int64 and shifts.dtype == torch.int32
        inside = torch.arange(neighbors.shape[1]) < counts[:, None]
        assert torch.equal(neighbors[inside], nl.edge_index[1])
        assert torch.equal(shifts[inside], nl.unit_shifts)
        assert bool((neighbors[~inside] == nl.n_atoms).all()) and not bool(shifts[~inside].any())


def test_matrix_gives_distances_with_a_row_appended_for_the_fill():
    """How a user of the matrix reads it; atoms without neighbours and several systems included."""
    _, positions, cells, pbc, batch_ptr = batch_of(np.random.default_rng(4), (5, 0, 1, 9))
    nl = rk.neighbor_list(positions, cells, pbc, 2.0, batch_ptr=batch_ptr)
    neighbors, shifts, counts = nl.matrix(max_neighbors=200)
    assert neighbors.shape == (15, 200)
    system = torch.bucketize(torch.arange(15), batch_ptr[1:], right=True)
    images = torch.cat([positions, torch.full((1, 3), torch.inf)])[neighbors]
    vectors = images + torch.einsum("npa,nab->npb", shifts.to(torch.float64), cells[system]) - positions[:, None]
    distances = vectors.norm(dim=-1)
    assert torch.equal((distances < 2.0).sum(1), counts)
    torch.testing.assert_close(distances[distances < 2.0], nl.distances(positions, cells), rtol=0, atol=1e-12)


def test_matrix_of_a_given_width_and_fill():
    nl = listed(dense(np.random.default_rng(5), 8))
    neighbors, shifts, counts = nl.matrix()
    longest = int(counts.max())
    wide = nl.matrix(max_neighbors=longest + 3, fill=-1)
    assert torch.equal(wide.neighbors[:, :longest], torch.where(neighbors == nl.n_atoms, -1, neighbors))
    assert bool((wide.neighbors[:, longest:] == -1).all()) and not bool(wide.unit_shifts[:, longest:].any())
    assert torch.equal(wide.unit_shifts[:, :longest], shifts) and torch.equal(wide.counts, counts)
    with pytest.raises(CapacityError, match=rf"`max_neighbors` of {longest - 1} is too small.*pass {longest} or more"):
        nl.matrix(max_neighbors=longest - 1)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"max_neighbors": -1}, ValueError),
        ({"max_neighbors": 2.5}, TypeError),
        ({"max_neighbors": "9"}, TypeError),
        ({"fill": 0.5}, TypeError),
        ({"fill": "x"}, TypeError),
    ],
)
def test_matrix_names_wrong_arguments(arguments, error):
    with pytest.raises(error, match=f"`{next(iter(arguments))}`"):
        listed(dense(np.random.default_rng(6), 4)).matrix(**arguments)


def test_matrix_of_no_atoms_and_of_no_neighbours():
    cell = torch.zeros(3, 3, dtype=torch.float64)
    for n_atoms in (0, 1):
        matrix = rk.neighbor_list(torch.zeros(n_atoms, 3, dtype=torch.float64), cell, False, 1.0).matrix()
        assert matrix.neighbors.shape == (n_atoms, 0) and matrix.unit_shifts.shape == (n_atoms, 0, 3)
        assert matrix.counts.tolist() == [0] * n_atoms


# --- shorter lists -------------------------------------------------------------------------------------------------


def test_within_keeps_the_compact_form():
    """The same rows, owners and images; of every row the entries that are closer, in their order."""
    nl = listed(dense(np.random.default_rng(7)))
    inner = nl.within(2.0)
    assert inner.owners is nl.owners and inner.image_shifts is nl.image_shifts
    for k in range(nl.n_atoms):
        row = nl.columns[nl.rows[k] : nl.rows[k + 1]].tolist()
        kept = inner.columns[inner.rows[k] : inner.rows[k + 1]].tolist()
        assert kept == [entry for entry in row if entry in set(kept)]
    assert 0 < inner.columns.numel() < nl.columns.numel()
    again = inner.within(1.0)
    assert same((again.edge_index, again.unit_shifts), (nl.within(1.0).edge_index, nl.within(1.0).unit_shifts))


def test_within_decides_ties_as_building_anew_does():
    """Lattices: thousands of pairs at the cutoff to the last place, and the same ones are in."""
    rng = np.random.default_rng(8)
    grid = np.array(list(itertools.product(range(5), repeat=3)), dtype=float)
    for spacing in rng.uniform(0.5, 3.0, 20):
        shift = rng.uniform(-9, 9, 3)
        positions, cell = grid * spacing + shift, 5 * spacing * np.eye(3)
        nl = listed((positions, cell, np.array(FULL_PBC), 2.5 * spacing))
        for cutoff in (spacing, np.sqrt(2.0) * spacing, 2.0 * spacing, np.sqrt(5.0) * spacing):
            inner, fresh = nl.within(cutoff), listed((positions, cell, np.array(FULL_PBC), cutoff))
            assert torch.equal(inner.edge_index, fresh.edge_index)
            assert torch.equal(inner.unit_shifts, fresh.unit_shifts)


# --- the registered ops --------------------------------------------------------------------------------------------

OPS = {
    "neighbor_edges": (expand.neighbor_edges, expand.edges_torch, lambda nl: (*compact(nl), nl.half)),
    "neighbor_matrix": (
        expand.neighbor_matrix,
        expand.matrix_torch,
        lambda nl: (*compact(nl), nl.half, -1, nl.n_atoms),
    ),
    "neighbor_shorten": (
        expand.neighbor_shorten,
        expand.shorten_torch,
        lambda nl: (nl.reference_positions, nl._reference_cells, nl.batch_ptr, *compact(nl), 0.7 * nl.cutoff),
    ),
}


def several_lists(half=False):
    rng = np.random.default_rng(9)
    _, positions, cells, pbc, batch_ptr = batch_of(rng, (3, 0, 5, 1, 8))
    yield rk.neighbor_list(positions, cells, pbc, 2.0, batch_ptr=batch_ptr, half=half)
    for case in [dense(rng), *(random_case(rng) for _ in range(20))]:
        yield listed(case, half=half)
    yield rk.neighbor_list(positions[:0], torch.eye(3, dtype=torch.float64), True, 2.0, half=half)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("half", [False, True])
def test_equals_its_definition_in_torch(name, half):
    op, definition, arguments = OPS[name]
    for nl in several_lists(half):
        assert same(op(*arguments(nl)), definition(*arguments(nl)))


@pytest.mark.parametrize("name", OPS)
def test_bitwise_the_same_for_any_number_of_threads_and_instruction_set(name):
    op, _, arguments = OPS[name]
    rng = np.random.default_rng(10)
    cell = np.diag([22.0, 21.0, 20.0])
    large = listed((rng.uniform(0, 1, (2500, 3)) @ cell, cell, np.array(FULL_PBC), 5.0))
    assert large.columns.numel() > 65536  # threads share the work only then
    for nl in (large, next(several_lists())):
        wanted = op(*arguments(nl))
        for count in (1, 2, 3):
            with threads(count):
                assert same(op(*arguments(nl)), wanted)
        for instructions in available_isas():
            with isa(instructions):
                assert same(op(*arguments(nl)), wanted)


@pytest.mark.parametrize("name", OPS)
def test_opcheck(name):
    op, _, arguments = OPS[name]
    torch.library.opcheck(op.overload, arguments(next(several_lists(half=True))))


@pytest.mark.parametrize("name", OPS)
def test_outputs_are_written_whole(name, monkeypatch):
    """Poisoned buffers: whatever torch.empty hands out is overwritten."""
    op, _, arguments = OPS[name]
    nl = next(several_lists())
    wanted = op(*arguments(nl))
    empty, empty_like = torch.empty, torch.empty_like
    monkeypatch.setattr(torch, "empty", lambda *size, **options: empty(*size, **options).fill_(-(2**30)))
    monkeypatch.setattr(torch, "empty_like", lambda *args, **options: empty_like(*args, **options).fill_(-(2**30)))
    assert same(op(*arguments(nl)), wanted)


@pytest.mark.parametrize("name", OPS)
def test_strided_inputs_are_read_right(name):
    op, _, arguments = OPS[name]
    nl = next(several_lists())

    def strided(value):
        if not torch.is_tensor(value) or value.dim() == 0:
            return value
        wide = torch.zeros(*value.shape, 2, dtype=value.dtype)
        wide[..., 1] = value
        return wide[..., 1]

    assert same(op(*map(strided, arguments(nl))), op(*arguments(nl)))
