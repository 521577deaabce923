"""The Verlet skin: no pair is ever lost, nothing is rebuilt without need, a restart gives the same list."""

import math

import ase.geometry
import numpy as np
import pytest
import torch
from neighbor_cases import FULL_PBC, assert_same_pairs, batch_of, compact, listed, random_case, tensor, triplets

import rsa_kernels as rk
from rsa_kernels.errors import NonFiniteError
from rsa_kernels.neighbors import op

pytestmark = pytest.mark.usefixtures("one_thread")


def strained(rng, size):
    """A random change of the cell: stretch, shear and a little rotation."""
    return np.eye(3) + size * rng.uniform(-1, 1, (3, 3))


@pytest.mark.parametrize("cell_moves", ["fixed", "shrinking", "shearing", "random"])
@pytest.mark.parametrize("pbc", [FULL_PBC, (True, True, False), (True, False, False)])
def test_no_pair_is_ever_lost(cell_moves, pbc):
    """Random walks: after every update the pairs inside the cutoff are those of a fresh list."""
    rng = np.random.default_rng(70)
    rebuilds = kept = 0
    for _ in range(4):
        _, cell, _, _ = random_case(rng, "ordinary")
        cell = ase.geometry.complete_cell(cell)
        positions = rng.uniform(0, 1, (12, 3)) @ cell
        cell[~np.array(pbc)] = 0.0
        cutoff, skin = rng.uniform(1.0, 3.0), rng.uniform(0.2, 0.8)
        nl = listed((positions, cell, np.array(pbc), cutoff), skin=skin)
        for _ in range(40):
            positions = positions + rng.normal(0, 0.03, positions.shape)
            change = {
                "fixed": np.eye(3),
                "shrinking": 0.997 * np.eye(3),
                "shearing": np.eye(3) + 0.004 * np.eye(3, k=1),
                "random": strained(rng, 0.003),
            }[cell_moves]
            positions, cell = positions @ change, cell @ change
            if nl.update(tensor(positions), tensor(cell)):
                rebuilds += 1
            else:
                kept += 1
            assert nl.used_skin(tensor(positions), tensor(cell)) <= skin
            fresh = listed((positions, cell, np.array(pbc), cutoff))
            inside = nl.distances(tensor(positions), tensor(cell)).numpy() < cutoff
            everything = torch.cat([nl.edge_index.T, nl.unit_shifts.to(torch.int64)], dim=1).numpy()
            assert_same_pairs(everything[inside], triplets(fresh))
            assert_same_pairs(triplets(nl.within(cutoff, tensor(positions), tensor(cell))), triplets(fresh))
    assert rebuilds > 4 and kept > 4


def test_no_pair_is_lost_when_the_skin_is_all_used_up():
    """One large step, scaled so that it uses 99.9 % of the skin: still complete, so the bound is not too lax."""
    rng = np.random.default_rng(71)
    for _ in range(150):
        positions, cell, pbc, cutoff = random_case(rng, "ordinary")
        cell = ase.geometry.complete_cell(cell)
        skin = rng.uniform(0.05, 0.5) * cutoff
        nl = listed((positions, cell, pbc, cutoff), skin=skin)
        direction, change = rng.normal(size=positions.shape), rng.uniform(-1, 1, (3, 3)) * rng.choice([0, 0.01, 0.2])
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)

        def moved(size, positions=positions, cell=cell, direction=direction, change=change):
            deformation = np.eye(3) + size * change
            return tensor(positions @ deformation + size * direction), tensor(cell @ deformation)

        low, high = 0.0, skin
        for _ in range(40):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if nl.used_skin(*moved(middle)) <= 0.999 * skin else (low, middle)
        now = moved(low)
        assert nl.used_skin(*now) > 0.99 * skin
        assert not nl.update(*now)
        fresh = rk.neighbor_list(*now, pbc.tolist(), cutoff)
        assert_same_pairs(triplets(nl.within(cutoff, *now)), triplets(fresh))


def test_two_atoms_that_run_into_each_other():
    """The worst case: the bound on the skin is reached, neither early nor late."""
    cell = torch.zeros(3, 3, dtype=torch.float64)
    nl = rk.neighbor_list(tensor([[0.0, 0, 0], [3.0, 0, 0]]), cell, False, 2.0, skin=1.0)
    assert nl.edge_index.shape[1] == 0
    assert not nl.update(tensor([[0.5, 0, 0], [2.5, 0, 0]]), cell)  # 2 Å apart: not yet neighbours
    assert nl.update(tensor([[0.501, 0, 0], [2.499, 0, 0]]), cell)
    assert nl.edge_index.shape[1] == 2 and nl.n_rebuilds == 1


def test_an_atom_wrapped_back_is_not_taken_for_the_image_it_left():
    rng = np.random.default_rng(72)
    cell = np.array([[5.0, 0, 0], [1.0, 6.0, 0], [0.5, -1.0, 7.0]])
    positions = rng.uniform(0, 1, (10, 3)) @ cell
    nl = listed((positions, cell, np.array(FULL_PBC), 2.5), skin=0.5)
    wrapped = positions.copy()
    wrapped[3] += cell[0] - 2 * cell[2]
    assert nl.used_skin(tensor(wrapped), tensor(cell)) > 0.5
    assert nl.update(tensor(wrapped), tensor(cell))
    assert_same_pairs(triplets(nl), triplets(listed((wrapped, cell, np.array(FULL_PBC), 3.0))))


@pytest.mark.parametrize("pbc", [FULL_PBC, (True, True, False), (False, True, False), (False, False, False)])
def test_a_change_of_the_cell_alone_is_no_displacement(pbc):
    """Atoms that follow the cell use up (‖F⁻¹‖ − 1)·cutoff, whatever their distance from the origin."""
    rng = np.random.default_rng(73)
    positions, cell, _, _ = random_case(rng, "skewed")
    cell = ase.geometry.complete_cell(cell)
    cell[~np.array(pbc)] = 0.0
    positions = tensor(positions + 1000.0)
    nl = rk.neighbor_list(positions, tensor(cell), pbc, 2.0, skin=0.5)
    before = rk.cells.complete(tensor(cell)[None], torch.tensor([pbc]))[0]
    for size in (1e-3, 1e-2):
        now = tensor(cell @ strained(rng, size))
        after = rk.cells.complete(now[None], torch.tensor([pbc]))[0]
        deformation = torch.linalg.solve(before, after)
        bound = 1 + float((torch.linalg.inv(deformation) - torch.eye(3)).norm())
        # Positions of 1,000 Å are rounded to 1e-13 Å.
        assert nl.used_skin(positions @ deformation, now) == pytest.approx(2.0 * (bound - 1), abs=1e-11)
        assert bound - 1 < 10 * size  # the vectors put in for missing ones turn no faster than the cell


def test_used_skin_equals_its_definition_in_torch():
    rng = np.random.default_rng(74)
    for sizes in [(4,), (3, 0, 5), (0, 0), (1,)]:
        _, positions, cells, pbc, batch_ptr = batch_of(rng, sizes)
        completed = rk.cells.complete(cells, pbc)
        for size in (0.0, 1e-3, 0.1):
            moved = positions + tensor(size * rng.normal(size=positions.shape))
            changed = completed @ tensor(strained(rng, size))
            arguments = moved, positions, batch_ptr, changed, completed, 2.0
            # Both round a few times at the size of coordinates, tens of Å.
            assert op.used_skin(*arguments) == pytest.approx(float(op.used_skin_tensor(*arguments)), abs=1e-11)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_positions_that_are_not_finite_leave_the_list_as_it_was(bad):
    case = positions, cell, _, cutoff = random_case(np.random.default_rng(75), "ordinary")
    nl = listed(case, skin=0.5)
    before = triplets(nl)
    broken = tensor(positions).clone()
    broken[-1, 1] = bad
    with pytest.raises(NonFiniteError, match="`positions`"):
        nl.update(broken, tensor(cell))
    with pytest.raises(NonFiniteError, match="`cell`"):
        nl.update(tensor(positions), tensor(cell) + bad)
    arguments = broken, nl.reference_positions, nl.batch_ptr, nl._reference_cells, nl._reference_cells, cutoff
    assert not math.isfinite(float(op.used_skin_tensor(*arguments)))
    assert nl.n_rebuilds == 0
    assert torch.equal(nl.reference_positions, tensor(positions))
    assert_same_pairs(triplets(nl), before)


def test_update_without_skin_always_rebuilds():
    case = positions, cell, *_ = random_case(np.random.default_rng(76))
    nl = listed(case)
    assert nl.update(tensor(positions), tensor(cell)) and nl.n_rebuilds == 1


@pytest.mark.parametrize("half", [False, True])
def test_restart_from_the_reference_gives_the_same_list_bit_for_bit(half):
    rng = np.random.default_rng(77)
    cell = np.array([[9.0, 0, 0], [2.0, 8.0, 0], [-1.0, 1.5, 10.0]])
    positions = rng.uniform(-1, 2, (150, 3)) @ cell
    running = listed((positions, cell, np.array(FULL_PBC), 3.0), skin=0.4, half=half)
    now = positions, cell
    for _ in range(12):
        change = strained(rng, 0.002)
        now = (now[0] + rng.normal(0, 0.04, positions.shape)) @ change, now[1] @ change
        running.update(tensor(now[0]), tensor(now[1]))
    assert running.n_rebuilds > 0
    again = rk.neighbor_list(running.reference_positions, running.reference_cell, True, 3.0, skin=0.4, half=half)
    assert not again.update(tensor(now[0]), tensor(now[1]))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(compact(again), compact(running), strict=True))
    # And they go on alike.
    later = tensor(now[0] + 0.05), tensor(now[1] * 1.01)
    assert again.update(*later) == running.update(*later)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(compact(again), compact(running), strict=True))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda r, h: (r, 1e-4 * h),
        lambda r, h: (r + torch.tensor([1e12, 0.0, 0.0]), h),
        lambda r, h: (r * float("nan"), h),
        lambda r, h: (r, 0.0 * h),
        lambda r, h: (r, torch.ones_like(h)),
    ],
    ids=["too many images", "too far", "NaN", "no cell", "flat cell"],
)
def test_a_failed_update_leaves_the_list_as_it_was(spoil):
    generator = torch.Generator().manual_seed(3)
    positions = 9.0 * torch.rand(24, 3, dtype=torch.float64, generator=generator)
    cell = 9.0 * torch.eye(3, dtype=torch.float64)
    nl = rk.neighbor_list(positions, cell, True, 4.0, skin=0.5)
    before = nl.rows, nl.columns, nl.reference_positions.clone(), nl.reference_cell.clone()
    bad = spoil(positions, cell)
    for _ in range(2):  # the second time as the first: a list that failed to be built does not pass as valid
        with pytest.raises(
            (rk.errors.CapacityError, rk.errors.NonFiniteError, ValueError), match=r"`(cutoff|positions|cell)`"
        ):
            nl.update(*bad)
    assert nl.rows is before[0] and nl.columns is before[1]
    assert torch.equal(nl.reference_positions, before[2]) and torch.equal(nl.reference_cell, before[3])
    assert not nl.update(positions, cell)


def test_a_cell_without_volume_is_named():
    positions, cell = torch.zeros(2, 3, dtype=torch.float64), 9.0 * torch.eye(3, dtype=torch.float64)
    positions[1] = 2.0
    nl = rk.neighbor_list(positions, cell, True, 4.0, skin=0.5)
    with pytest.raises(ValueError, match="`cell` must have a volume"):
        nl.update(positions, torch.ones_like(cell))
    with pytest.raises(rk.errors.NonFiniteError, match="`positions` holds NaN"):
        nl.within(3.0, float("nan") * positions, cell)
