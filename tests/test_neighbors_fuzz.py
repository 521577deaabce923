"""Random systems against every pair and every image (`neighbor_fuzz.py`), and that the comparison finds what is wrong.

The long run: `pytest -m fuzz tests/test_neighbors_fuzz.py`, or `python tests/neighbor_fuzz.py`, which keeps a log.
"""

import neighbor_fuzz
import numpy as np
import pytest
import torch

import rsa_kernels as rk

pytestmark = pytest.mark.usefixtures("one_thread")


def test_random_cases():
    counts = neighbor_fuzz.run(neighbor_fuzz.build_ours, 300, seed=1_000_000)
    # The cases are what they are meant to be.
    assert counts["pairs"] > 300_000
    for what in ("systems without atoms", "left-handed cells", "cells with missing vectors", "mixed periodicity"):
        assert counts[what] > 20
    assert counts["float32"] > 30 and counts["cutoff beyond every cell length"] > 60


@pytest.mark.fuzz
def test_many_random_cases():
    neighbor_fuzz.run(neighbor_fuzz.build_ours, 20_000, seed=0)


class Tampered:
    """A list with its pairs changed, or in another order."""

    def __init__(self, listed, change):
        rows = torch.cat([listed.edge_index.T, listed.unit_shifts.to(torch.int64)], dim=1)
        rows = change(rows)
        self.edge_index, self.unit_shifts = rows[:, :2].T, rows[:, 2:]
        self.row_ptr = torch.searchsorted(rows[:, 0].contiguous(), torch.arange(listed.n_atoms + 1))


CHANGES = {
    "lost": lambda rows: rows[1:],
    "invented": lambda rows: torch.cat([rows, rows[-1:] + torch.tensor([0, 0, 0, 0, 9])]),
    "1 twice": lambda rows: torch.cat([rows[:1], rows]),
    "only the order differs": lambda rows: rows.flip(0)[torch.argsort(rows.flip(0)[:, 0], stable=True)],
    "not sorted by i": lambda rows: rows.flip(0),
}


@pytest.mark.parametrize("fault", CHANGES)
def test_a_wrong_list_is_found(fault):
    case = next(
        case
        for case in map(neighbor_fuzz.random_case, range(50))
        if max(neighbor_fuzz.build_ours(*arguments(case)).row_ptr.diff().tolist(), default=0) > 1
    )

    def build(*args):
        return Tampered(neighbor_fuzz.build_ours(*args), CHANGES[fault])

    with pytest.raises(AssertionError, match=fault):
        neighbor_fuzz.check(build, case, matrix=False, within=False)


def test_pairs_exactly_at_the_cutoff_are_among_the_cases():
    """A list that takes them in is found."""
    found = 0
    for case in map(neighbor_fuzz.random_case, range(2_000_000, 2_000_200)):
        if case.shape != "exact":
            continue

        def build(positions, cells, pbc, cutoff, batch_ptr, half):
            longer = float(np.nextafter(cutoff, np.inf))
            return rk.neighbor_list(positions, cells, pbc, longer, batch_ptr=batch_ptr, half=half)

        try:
            neighbor_fuzz.check(build, case, ordered=False, matrix=False, within=False)
        except AssertionError as error:
            assert "lost [], invented [(" in str(error)
            found += 1
    assert found > 3


def arguments(case):
    return case.positions, case.cells, case.pbc, case.cutoff, case.batch_ptr, False
