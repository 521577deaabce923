"""Random cells and atoms for the tests of neighbour lists, and pairs in an order in which they can be compared."""

import ase.geometry
import matscipy.neighbours
import numpy as np
import pytest
import torch

import rsa_kernels as rk

SHAPES = ("ordinary", "thin", "skewed", "tiny")
FULL_PBC = (True, True, True)


def tensor(values):
    return torch.as_tensor(np.asarray(values), dtype=torch.float64)


def random_case(rng, shape=None):
    """Positions, cell, pbc and cutoff: any shape, any periodic directions, unwrapped atoms, several images."""
    shape = shape or rng.choice(SHAPES)
    lengths = rng.uniform(1.5, 6.0, 3)
    if shape == "tiny":
        lengths = rng.uniform(0.4, 1.2, 3)
    if shape == "thin":
        lengths[rng.integers(3)] *= 0.1
    cell = np.diag(lengths) @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    if shape == "skewed":
        i, j, k = rng.permutation(3)
        cell[i] += rng.uniform(-4, 4) * cell[j]
        cell[j] += rng.uniform(-1, 1) * cell[k]
    pbc = rng.random(3) < 0.6
    n_atoms = int(rng.integers(1, 13))
    positions = rng.uniform(-1.5, 2.5, (n_atoms, 3)) @ cell
    # Up to a thousand pairs: dense cells get a shorter cutoff, still of several cells.
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    density = n_atoms * n_atoms / abs(np.linalg.det(cell))
    cutoff = min(rng.uniform(0.3, 2.5) * heights.max(), (800 / (4 * density)) ** (1 / 3))
    for direction in np.flatnonzero(~pbc):
        if rng.random() < 0.3:
            cell[direction] = 0.0
    return positions, cell, pbc, cutoff


def listed(case, **options):
    positions, cell, pbc, cutoff = case
    return rk.neighbor_list(tensor(positions), tensor(cell), pbc.tolist(), cutoff, **options)


def triplets(nl):
    """Sorted rows (i, j, S) of a list."""
    return in_order(torch.cat([nl.edge_index.T, nl.unit_shifts.to(torch.int64)], dim=1).numpy())


def in_order(rows):
    rows = np.asarray(rows, dtype=np.int64).reshape(-1, 5)
    return rows[np.lexsort(rows.T[::-1])]


def assert_same_pairs(ours, wanted):
    ours, wanted = in_order(ours), in_order(wanted)
    if ours.shape != wanted.shape or (ours != wanted).any():
        have, want = set(map(tuple, ours.tolist())), set(map(tuple, wanted.tolist()))
        pytest.fail(
            f"lost {sorted(want - have)[:5]}, invented {sorted(have - want)[:5]}, {len(ours) - len(have)} twice"
        )


def half_of(rows):
    """Each pair once: i < j, or i = j and the first non-zero of S positive."""
    i, j, a, b, c = rows.T
    leading = np.where(a != 0, a, np.where(b != 0, b, c))
    return rows[(i < j) | ((i == j) & (leading > 0))]


def matscipy_pairs(case):
    positions, cell, pbc, cutoff = case
    cell = ase.geometry.complete_cell(cell)
    i, j, shifts = matscipy.neighbours.neighbour_list("ijS", positions=positions, cell=cell, pbc=pbc, cutoff=cutoff)
    return in_order(np.column_stack([i, j, shifts]))


def batch_of(rng, sizes, cutoff=2.0):
    cases = []
    for size in sizes:
        _, cell, pbc, _ = random_case(rng, rng.choice(["ordinary", "thin"]))
        filled = ase.geometry.complete_cell(cell)
        cases.append((rng.uniform(-1, 2, (size, 3)) @ filled, cell, pbc, cutoff))
    positions = tensor(np.concatenate([case[0] for case in cases]))
    cells = tensor(np.stack([case[1] for case in cases]))
    pbc = torch.tensor(np.stack([case[2] for case in cases]))
    return cases, positions, cells, pbc, torch.tensor([0, *np.cumsum(sizes)])


def compact(nl):
    return nl.rows, nl.columns, nl.owners, nl.image_shifts, nl.edge_index, nl.unit_shifts
