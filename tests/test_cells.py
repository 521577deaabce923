"""Cells: broadcasting of cells and flags, completion of missing vectors, volumes and heights."""

import math

import pytest
import torch

from rsa_kernels import cells
from rsa_kernels.errors import NonFiniteError

EYE = torch.eye(3, dtype=torch.float64)
NOTHING = torch.zeros(3, 3, dtype=torch.float64)


def random_cells(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, 3, dtype=torch.float64, generator=generator) + 3 * EYE


def test_one_cell_serves_all_systems():
    batched, flags = cells.as_batch(2 * EYE, True, 4)
    assert torch.equal(batched, (2 * EYE).expand(4, 3, 3)) and flags.shape == (4, 3) and bool(flags.all())


@pytest.mark.parametrize(
    ("pbc", "wanted"),
    [
        (False, [[False] * 3] * 2),
        ([True, False, True], [[True, False, True]] * 2),
        (torch.tensor([[True, False, False], [False, True, True]]), [[True, False, False], [False, True, True]]),
        ([[1, 0, 0], [0, 1, 1]], [[True, False, False], [False, True, True]]),
    ],
)
def test_periodic_flags(pbc, wanted):
    assert cells.as_batch(random_cells(2), pbc, 2)[1].tolist() == wanted


@pytest.mark.parametrize("shape", [(3,), (2, 3), (3, 2), (3, 3, 3), (1, 3, 3), (2, 2, 3, 3)])
def test_wrong_cells_are_refused(shape):
    with pytest.raises(ValueError, match=r"`cell` must have shape \(3, 3\) or \(2, 3, 3\), got"):
        cells.as_batch(torch.zeros(shape, dtype=torch.float64), True, 2)


@pytest.mark.parametrize("given", [[0, 1, 2], [0, 1], [1, 2], [0, 2], [0], [1], [2], []])
def test_missing_vectors_are_normal_to_the_given_ones(given):
    cell = random_cells(1)[0]
    missing = [direction for direction in range(3) if direction not in given]
    cell[missing] = 0.0
    kept = cell.clone()
    done = cells.complete(cell[None], torch.tensor([[d in given for d in range(3)]]))[0]
    assert torch.equal(cell, kept)  # the argument is left alone
    assert torch.equal(done[given], cell[given])
    put_in = done[missing]
    # Products of unit vectors, rounded a few times.
    torch.testing.assert_close(put_in @ put_in.T, torch.eye(len(missing), dtype=torch.float64), rtol=0, atol=1e-14)
    torch.testing.assert_close(
        put_in @ cell[given].T, torch.zeros(len(missing), len(given)).double(), rtol=0, atol=1e-13
    )
    assert float(torch.linalg.det(done).abs()) > 0.1


@pytest.mark.parametrize("given", [[0, 1], [0]])
def test_missing_vectors_follow_a_cell_that_changes(given):
    """A rotation and strain of 0.1 % at a time, once around: no vector put in ever jumps or turns over."""
    cell = random_cells(1, seed=3)[0]
    flags = torch.tensor([[d in given for d in range(3)]])
    before, jumps = None, 0
    for step in range(6000):
        angle = 2 * math.pi * step / 6000
        turn = EYE.clone()
        turn[:2, :2] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        now = NOTHING.clone()
        now[given] = (cell * (1 + 0.1 * math.sin(3 * angle)) @ turn)[given]
        done = cells.complete(now[None], flags)[0]
        if before is not None:
            jumps += float((done - before).norm(dim=1).max()) > 0.02
        before = done
    # Two missing vectors cannot follow all directions without a jump (a hairy ball has no parting): a few are allowed.
    assert jumps == 0 if len(given) == 2 else jumps <= 8


@pytest.mark.parametrize("pbc", [True, False])
def test_dependent_vectors_are_refused(pbc):
    flat = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [1.0, 1.0, 0]], dtype=torch.float64)
    with pytest.raises(ValueError, match="`cell` of system 1 is singular"):
        cells.complete(torch.stack([EYE, flat]), torch.full((2, 3), pbc))
    parallel = torch.tensor([[1.0, 2, 3], [2.0, 4, 6], [0, 0, 0]], dtype=torch.float64)
    with pytest.raises(ValueError, match="singular"):
        cells.complete(parallel[None], torch.tensor([[pbc, pbc, False]]))


def test_a_zero_vector_in_a_periodic_direction_is_refused():
    with pytest.raises(ValueError, match="set its `pbc` to False"):
        cells.complete(NOTHING[None], torch.tensor([[False, False, True]]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_cells_that_are_not_finite_are_refused(bad):
    broken = random_cells(2)
    broken[1, 2, 0] = bad
    with pytest.raises(NonFiniteError, match="`cell`"):
        cells.complete(broken, torch.ones(2, 3, dtype=torch.bool))


def test_flat_but_sound_cells_are_accepted():
    """What counts is the angle between the vectors, not the size of the cell or of one edge."""
    for scale in (1e-6, 1.0, 1e6):
        for flat in (torch.diag(torch.tensor([1.0, 1.0, 1e-5])).double(), EYE + 1e3 * torch.diag(torch.ones(2), 1)):
            cells.complete(scale * flat[None], torch.ones(1, 3, dtype=torch.bool))


def test_volume_and_heights():
    a, b, c = 3.0, 4.0, 5.0
    box = torch.diag(torch.tensor([a, b, c], dtype=torch.float64))
    assert float(cells.volume(box)) == pytest.approx(60.0, rel=1e-15)
    assert cells.heights(box).tolist() == pytest.approx([a, b, c], rel=1e-15)
    sheared = box.clone()
    sheared[1, 0], sheared[2, 0], sheared[2, 1] = 2.0, -1.5, 6.0
    many = random_cells(5)
    # Rounding of products of three numbers.
    assert float(cells.volume(sheared)) == pytest.approx(60.0, rel=1e-14)
    assert float(cells.heights(sheared)[2]) == pytest.approx(c, rel=1e-14)
    cross = torch.linalg.cross(many[:, [1, 2, 0]], many[:, [2, 0, 1]], dim=-1)
    wanted = cells.volume(many)[:, None] / cross.norm(dim=-1)
    torch.testing.assert_close(cells.heights(many), wanted, rtol=1e-13, atol=0)
    left_handed = many[:, [1, 0, 2]]
    torch.testing.assert_close(cells.volume(left_handed), cells.volume(many), rtol=1e-13, atol=0)
