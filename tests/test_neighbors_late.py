"""The skin check one call late, and padded rows, without a GPU."""

import math

import pytest
import torch

import rsa_kernels as rk
from rsa_kernels.errors import LostNeighborError, NonFiniteError
from rsa_kernels.neighbors.late import LateSkin
from rsa_kernels.neighbors.op import used_skin_tensor
from rsa_kernels.neighbors.padded import pad_rows

SKIN = 0.5


class Recorder:
    """Hands the number back as it is; `taken` counts how often somebody looked."""

    def __init__(self):
        self.number, self.taken = None, 0

    def put(self, value):
        assert value.dim() == 0
        self.number = float(value)

    def take(self):
        self.taken += 1
        return self.number


@pytest.fixture
def gas():
    generator = torch.Generator().manual_seed(0)
    cell = torch.tensor([[9.0, 0, 0], [1.0, 9.5, 0], [-2.0, 0.5, 10.0]], dtype=torch.float64)
    return torch.rand(40, 3, dtype=torch.float64, generator=generator) @ cell, cell


@pytest.fixture
def late(gas):
    """A list that is updated as on a GPU, on the host."""
    neighbors = rk.neighbor_list(*gas, True, 4.0, skin=SKIN)
    neighbors._late = LateSkin(SKIN, Recorder())
    neighbors.update = neighbors._update_late
    return neighbors


def walk(neighbors, gas, fractions):
    """Move one atom so that these fractions of the skin are used up, one after the other."""
    positions, cell = gas
    rebuilt = []
    for fraction in fractions:
        moved = positions.clone()
        moved[3, 1] += 0.5 * fraction * SKIN
        rebuilt.append(neighbors.update(moved, cell))
    return rebuilt


def test_rebuilds_one_call_after_most_of_the_skin_is_used(late, gas):
    assert walk(late, gas, [0.3, 0.79, 0.85, 0.9]) == [False, False, False, True]
    # Rebuilt at 0.9: nothing is pending, and the skin is measured from there.
    assert walk(late, gas, [1.0, 0.9, 1.6, 1.75, 1.8]) == [False, False, False, False, True]
    assert late.n_rebuilds == 2


def test_a_lost_neighbour_stops_at_the_next_call(late, gas):
    assert walk(late, gas, [0.5, 1.01]) == [False, False]
    with pytest.raises(LostNeighborError, match=r"lost neighbour: .* 0\.505 Å of its skin of 0\.5 Å"):
        walk(late, gas, [1.02])
    # Whoever goes on in spite of it gets a new list.
    assert walk(late, gas, [1.02]) == [True]


def test_nan_stops_at_the_next_call(late, gas):
    assert walk(late, gas, [0.1, math.nan]) == [False, False]
    with pytest.raises(NonFiniteError):
        walk(late, gas, [0.1])


def test_confirm_looks_at_the_last_call_and_changes_nothing(gas):
    rebuilt = []
    for confirms in (False, True):
        neighbors = rk.neighbor_list(*gas, True, 4.0, skin=SKIN)
        neighbors._late = LateSkin(SKIN, Recorder())
        neighbors.update = neighbors._update_late
        rebuilt.append([])
        for fraction in (0.2, 0.6, 0.9, 0.95, 1.0, 1.2):
            rebuilt[-1] += walk(neighbors, gas, [fraction])
            if confirms:
                neighbors.confirm()
                neighbors.confirm()
    assert rebuilt[0] == rebuilt[1] == [False, False, False, True, False, False]
    walk(neighbors, gas, [2.5])
    with pytest.raises(LostNeighborError):
        neighbors.confirm()
    assert walk(neighbors, gas, [2.5]) == [True]


def test_confirm_on_a_cpu_does_nothing(gas):
    neighbors = rk.neighbor_list(*gas, True, 4.0, skin=SKIN)
    assert walk(neighbors, gas, [0.9, 1.1]) == [False, True]
    neighbors.confirm()


def test_the_late_check_looks_once_a_call(late, gas):
    walk(late, gas, [0.1, 0.2, 0.3])
    assert late._late._recorder.taken == 2


def test_a_restart_rebuilds_on_the_same_calls(gas):
    """A list made from the reference and updated with the current positions goes on as the one it replaces."""
    fractions = [0.3, 0.7, 0.9, 0.95, 1.3, 1.76, 1.8, 2.0]

    def fresh(positions):
        neighbors = rk.neighbor_list(positions, gas[1], True, 4.0, skin=SKIN)
        neighbors._late = LateSkin(SKIN, Recorder())
        neighbors.update = neighbors._update_late
        return neighbors

    one = fresh(gas[0])
    whole = walk(one, gas, fractions)
    for stop in range(1, len(fractions)):
        before = fresh(gas[0])
        walk(before, gas, fractions[:stop])
        after = fresh(before.reference_positions)
        assert walk(after, gas, fractions[stop - 1 : stop]) == [False]
        assert walk(after, gas, fractions[stop:]) == whole[stop:]
        assert torch.equal(after.columns, one.columns)


def test_used_skin_of_a_slab_whose_cell_changes(gas):
    """Missing cell vectors are filled in with the reference's; the motion is what `used_skin` says."""
    positions, cell = gas
    cell = cell.clone()
    cell[2] = 0.0
    neighbors = rk.neighbor_list(positions, cell, (True, True, False), 4.0, skin=SKIN)
    put = []
    neighbors._late = LateSkin(SKIN, Recorder())
    neighbors._late.put = lambda value: put.append(float(value))
    strained = cell * 1.003
    moved = positions * torch.tensor([1.003, 1.003, 1.0], dtype=torch.float64)
    neighbors._update_late(moved, strained)
    assert put[0] == pytest.approx(neighbors.used_skin(moved, strained), abs=1e-9)
    assert 0.0 < put[0] < SKIN


def test_used_skin_tensor_keeps_what_is_not_finite(gas):
    positions, cell = gas
    batch_ptr = torch.tensor([0, 40])
    for value in (math.nan, math.inf):
        moved = positions.clone()
        moved[7, 2] = value
        used = used_skin_tensor(moved, positions, batch_ptr, cell[None], cell[None], 4.0)
        assert not torch.isfinite(used)


def test_padded_rows():
    rows = torch.tensor([0, 3, 3, 4, 9])
    columns = torch.arange(10, 19, dtype=torch.int32)
    matrix = pad_rows(rows, columns, 99)
    assert matrix.dtype == torch.int32 and matrix.shape == (5, 32)
    assert matrix[:, :4].t().tolist() == [
        [10, 11, 12, 99, 99], [99] * 5, [13, 99, 99, 99, 99], [14, 15, 16, 17, 18]
    ]  # fmt: skip
    assert (matrix[:, 4:] == 99).all()
    assert pad_rows(torch.tensor([0]), columns[:0], 0).shape == (0, 0)
    assert pad_rows(torch.tensor([0, 0, 0]), columns[:0], 2).shape == (0, 32)


def test_padded_rows_of_a_list_follow_its_rebuilds(gas):
    positions, cell = gas
    neighbors = rk.neighbor_list(positions, cell, True, 4.0, skin=SKIN)
    for stretch in (1.2, 1.4):
        matrix, fill = neighbors.padded(), neighbors.owners.numel()
        assert matrix is neighbors.padded()
        for row in range(neighbors.n_atoms):
            entries = matrix[:, row]
            begin, end = neighbors.rows[row], neighbors.rows[row + 1]
            assert torch.equal(entries[entries != fill], neighbors.columns[begin:end])
        assert neighbors.update(positions * stretch, cell)
    assert neighbors.within(3.0).padded().shape[0] < matrix.shape[0]
