"""Random systems that break neighbour lists, and the comparison of a list with every pair and every image.

`random_case(seed)` makes one case, `check(build, case)` compares a builder with the definition
(`rsa_kernels.neighbors.reference`): exact equality of the pairs (i, j, S), full and half, of the row offsets, of the
padded matrix and of the list at a shorter cutoff. The builder is a parameter, so that every implementation goes through
the same cases. The long run:

    python tests/neighbor_fuzz.py --cases 20000 --log profiling/results/neighbors_fuzz.log

A pair within rounding of the cutoff has no right answer, and atoms on faces and lattices make such pairs likely. So in
one family of cases ("exact") all coordinates are small multiples of 1/8, every distance is computed without rounding
by anybody, and pairs exactly at the cutoff must be left out. In all others the cutoff is moved by steps of 1e-6 until
no pair is within 1e-9 of it (both relative).
"""

from __future__ import annotations

import argparse
import collections
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import rsa_kernels as rk
from rsa_kernels.neighbors import reference

SHAPES = ("ordinary", "thin", "flat", "skewed", "exact")
BUDGET = 120_000
"""Pairs of atoms times images that one system may ask of the definition."""
LONGEST = 4.0
"""The largest cutoff in cell lengths."""


@dataclass(frozen=True)
class Case:
    """One or several systems; the arguments of a neighbour list."""

    seed: int
    shape: str
    positions: torch.Tensor
    cells: torch.Tensor
    pbc: torch.Tensor
    batch_ptr: torch.Tensor
    cutoff: float
    shorter: float
    """A second, smaller cutoff."""

    def __str__(self) -> str:
        counts = self.batch_ptr.diff().tolist()
        return f"case {self.seed} ({self.shape}, {counts} atoms, {self.positions.dtype}, cutoff {self.cutoff!r})"


def random_case(seed: int) -> Case:
    """Make a case; the same seed gives the same case."""
    rng = np.random.default_rng(seed)
    shape = SHAPES[rng.integers(len(SHAPES))]
    n_systems = 1 if rng.random() < 0.75 else int(rng.integers(2, 5))
    cells = [_cell(rng, shape) for _ in range(n_systems)]
    pbc = rng.random((n_systems, 3)) < rng.choice([0.0, 0.6, 0.6, 1.0])
    cutoff = _cutoff(rng, shape, cells)
    parts = [_positions(rng, shape, *system, cutoff) for system in zip(cells, pbc, strict=True)]
    for cell, periodic in zip(cells, pbc, strict=True):
        if shape != "exact":
            cell[~periodic & (rng.random(3) < 0.3)] = 0.0
    single = rng.random() < 0.2  # coordinates and cells of the exact family are exact in float32, too
    dtype = torch.float32 if single else torch.float64
    stacked = torch.tensor(np.stack(cells), dtype=dtype)
    positions = torch.tensor(np.concatenate(parts), dtype=dtype)
    case = Case(
        seed=seed,
        shape=shape,
        positions=positions,
        cells=stacked,
        pbc=torch.tensor(pbc),
        batch_ptr=torch.tensor([0, *np.cumsum([len(part) for part in parts])]),
        cutoff=cutoff,
        shorter=cutoff * float(rng.choice([1.0, 0.999, 0.8, 0.5, 0.2])) if shape != "exact" else cutoff * 0.5,
    )
    return case if shape == "exact" else _without_ties(case)


def _cell(rng, shape: str) -> np.ndarray:
    """Rows a, b, c: any handedness and orientation, angles between 30° and 150° where skewed."""
    if shape == "exact":
        while True:
            cell = rng.integers(-2, 3, (3, 3)) + np.diag(rng.integers(1, 6, 3))
            if abs(np.linalg.det(cell)) > 0.5:
                return cell.astype(np.float64)
    lengths = rng.uniform(0.8, 5.0, 3)
    if shape == "thin":
        lengths[rng.integers(3)] *= rng.uniform(0.05, 0.3)
    if shape == "flat":
        lengths[rng.permutation(3)[:2]] *= rng.uniform(0.1, 0.4, 2)
    tilt = np.radians(60.0 if shape == "skewed" else rng.choice([0.0, 10.0, 30.0])) * rng.uniform(-1, 1, 2)
    azimuth = rng.uniform(0, 2 * np.pi)
    directions = np.array(
        [
            [1.0, 0.0, 0.0],
            [np.sin(tilt[0]), np.cos(tilt[0]), 0.0],
            [np.sin(tilt[1]) * np.cos(azimuth), np.sin(tilt[1]) * np.sin(azimuth), np.cos(tilt[1])],
        ]
    )
    cell = lengths[:, None] * directions
    if rng.random() < 0.7:
        cell = cell @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return cell[rng.permutation(3)] * rng.choice([-1.0, 1.0], (3, 1))


def _cutoff(rng, shape: str, cells: list[np.ndarray]) -> float:
    if shape == "exact":
        return float(rng.integers(1, 41) / 8 if rng.random() < 0.5 else rng.choice([1.0, 2.0, 3.0, 5.0]))
    lengths = np.linalg.norm(cells[rng.integers(len(cells))], axis=1)
    return float(rng.uniform(0.1, LONGEST) * lengths[rng.integers(3)])


def _positions(rng, shape: str, cell: np.ndarray, pbc: np.ndarray, cutoff: float) -> np.ndarray:
    """Atoms inside, outside, on faces, edges and corners, and on one spot; at most as many as the budget allows."""
    n_atoms = int(rng.integers(0, 25)) if rng.random() < 0.7 else int(rng.integers(0, 4))
    inside = rng.random((n_atoms, 3))
    if shape == "exact":
        steps = rng.integers(0, 8 * 6, (n_atoms, 3)) / 8
        positions = steps + rng.integers(-2, 3, (n_atoms, 3)) @ cell
    else:
        on_face = rng.random((n_atoms, 3)) < rng.choice([0.0, 0.0, 0.3, 1.0])
        fractional = np.where(on_face, rng.choice([0.0, 0.0, 0.25, 0.5, 1.0], (n_atoms, 3)), inside)
        spread = rng.choice([0, 0, 1, 3])
        fractional = fractional + rng.integers(-spread, spread + 1, (n_atoms, 3))
        if rng.random() < 0.2:
            fractional += rng.choice([1e-17, -1e-17, 1e-16, -1e-16, 1e-12], (n_atoms, 3))
        positions = fractional @ cell
    for copy in range(1, n_atoms):
        if rng.random() < 0.05:  # on the spot of another, perhaps in another cell
            turns = rng.integers(-1, 2, 3) if rng.random() < 0.5 else np.zeros(3)
            positions[copy] = positions[rng.integers(copy)] + turns @ cell
    while len(positions) and _asked(positions, cell, pbc, cutoff) > BUDGET:
        positions = positions[: len(positions) * 3 // 4]
    return positions


def _asked(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float) -> float:
    inverse = np.linalg.inv(cell)
    fractional = positions @ inverse
    reach = np.where(pbc, np.ceil(cutoff * np.linalg.norm(inverse, axis=0) + np.ptp(fractional, axis=0)), 0.0)
    return len(positions) ** 2 * float(np.prod(2 * reach + 1))


def _without_ties(case: Case) -> Case:
    """Move both cutoffs until no pair is within 1e-9 (relative) of one of them."""
    around = definition(case, case.cutoff * 1.01)
    lengths = _lengths(case, around)
    moved = []
    for cutoff in (case.cutoff, case.shorter):
        while lengths.size and np.abs(lengths - cutoff).min() < 1e-9 * cutoff:
            cutoff *= 1.0 - 1e-6
        moved.append(cutoff)
    return Case(**{**case.__dict__, "cutoff": moved[0], "shorter": min(moved)})


def definition(case: Case, cutoff: float) -> np.ndarray:
    """Sorted rows (i, j, S) of all systems, (n_pairs, 5), by the definition."""
    rows = []
    for system, begin in enumerate(case.batch_ptr[:-1].tolist()):
        end = int(case.batch_ptr[system + 1])
        edges, shifts = reference.neighbor_pairs(
            case.positions[begin:end].to(torch.float64),
            case.cells[system].to(torch.float64),
            case.pbc[system],
            cutoff,
        )
        rows.append(torch.cat([edges.T + begin, shifts], dim=1).numpy())
    return np.concatenate(rows)


def _lengths(case: Case, rows: np.ndarray) -> np.ndarray:
    positions, cells = case.positions.double().numpy(), case.cells.double().numpy()
    system = np.searchsorted(case.batch_ptr.numpy(), rows[:, 0], side="right") - 1
    offsets = np.einsum("pa,pab->pb", rows[:, 2:].astype(np.float64), cells[system])
    return np.linalg.norm(positions[rows[:, 1]] + offsets - positions[rows[:, 0]], axis=1)


def half_of(rows: np.ndarray) -> np.ndarray:
    """Each pair once: i < j, or i = j and the first non-zero of S positive."""
    i, j, a, b, c = rows.T
    leading = np.where(a != 0, a, np.where(b != 0, b, c))
    return rows[(i < j) | ((i == j) & (leading > 0))]


def check(build, case: Case, *, ordered: bool = True, matrix: bool = True, within: bool = True) -> int:
    """Compare a builder with the definition; return the number of pairs, raise AssertionError where they differ.

    Parameters
    ----------
    build : callable
        ``build(positions, cells, pbc, cutoff, batch_ptr, half)`` → an object with ``edge_index`` (2, n_pairs),
        ``unit_shifts`` (n_pairs, 3), ``row_ptr`` (n_atoms + 1,), and where asked for ``matrix()`` and
        ``within(cutoff)`` as of `rsa_kernels.neighbors.NeighborList`.
    case : Case
        Systems and cutoffs.
    ordered : bool
        Whether pairs must stand in the order of (i, j, S); else only sorted by i.
    matrix, within : bool
        Whether to look at the padded matrix and the shorter cutoff.
    """
    full = definition(case, case.cutoff)
    for half in (False, True):
        wanted = half_of(full) if half else full
        listed = build(case.positions, case.cells, case.pbc, case.cutoff, case.batch_ptr, half)
        _compare(case, f"half={half}", listed, wanted, ordered)
        if matrix:
            _compare_matrix(case, f"matrix, half={half}", listed.matrix(), wanted, ordered)
        if within:
            shorter = definition(case, case.shorter)
            inner = listed.within(case.shorter)
            _compare(case, f"within, half={half}", inner, half_of(shorter) if half else shorter, ordered)
    return len(full)


def _compare(case: Case, what: str, listed, wanted: np.ndarray, ordered: bool) -> None:
    edges, shifts = listed.edge_index.cpu().numpy(), listed.unit_shifts.cpu().numpy()
    assert (np.diff(edges[0]) >= 0).all(), f"{case}: {what}: not sorted by i"
    _same(case, what, np.column_stack([edges.T, shifts]), wanted, ordered)
    offsets = np.searchsorted(wanted[:, 0], np.arange(len(case.positions) + 1))
    assert np.array_equal(listed.row_ptr.cpu().numpy(), offsets), f"{case}: {what}: row_ptr"


def _compare_matrix(case: Case, what: str, matrix, wanted: np.ndarray, ordered: bool) -> None:
    neighbors, shifts, counts = (part.cpu().numpy() for part in matrix)
    n_atoms = len(case.positions)
    expected = np.bincount(wanted[:, 0], minlength=n_atoms)
    assert np.array_equal(counts, expected), f"{case}: {what}: counts"
    assert neighbors.shape == (n_atoms, expected.max(initial=0)), f"{case}: {what}: shape {neighbors.shape}"
    inside = np.arange(neighbors.shape[1]) < counts[:, None]
    assert (neighbors[~inside] == n_atoms).all() and not shifts[~inside].any(), f"{case}: {what}: fill"
    i = np.repeat(np.arange(n_atoms), counts)
    _same(case, what, np.column_stack([i, neighbors[inside], shifts[inside]]), wanted, ordered)


def _same(case: Case, what: str, rows: np.ndarray, wanted: np.ndarray, ordered: bool) -> None:
    if not ordered:
        rows = rows[np.lexsort(rows.T[::-1])]
    if np.array_equal(rows, wanted):
        return
    have, want = list(map(tuple, rows.tolist())), list(map(tuple, wanted.tolist()))
    lost, invented = sorted(set(want) - set(have)), sorted(set(have) - set(want))
    twice = len(have) - len(set(have))
    order = "" if lost or invented or twice else ", only the order differs"
    raise AssertionError(f"{case}: {what}: lost {lost[:5]}, invented {invented[:5]}, {twice} twice{order}")


def build_ours(positions, cells, pbc, cutoff, batch_ptr, half):
    """`rsa_kernels.neighbor_list`, as a builder."""
    return rk.neighbor_list(positions, cells, pbc, cutoff, batch_ptr=batch_ptr, half=half)


def summary(cases: collections.Counter, seconds: float, options) -> str:
    """Say what was run, with which versions, and how much it covered."""
    lines = [
        f"python tests/neighbor_fuzz.py --cases {options.cases} --seed {options.seed}",
        "compared exactly with every pair and every image: (i, j, S) in order, row_ptr, padded matrix, within(shorter),"
        " full and half",
        f"Python {platform.python_version()}, numpy {np.__version__}, torch {torch.__version__},"
        f" rsa_kernels {rk.__version__}, {rk._native.isa()}, {rk._native.compiler()},"
        f" {torch.get_num_threads()} threads",
        *(f"{name}: {count:,}" for name, count in cases.items()),
        f"differences: 0 in {cases['cases']:,} cases, {seconds:.0f} s",
    ]
    return "\n".join(lines) + "\n"


def run(build, n_cases: int, seed: int) -> collections.Counter:
    """Check cases seed, seed + 1, …; count what they covered; the first difference raises."""
    counts: collections.Counter = collections.Counter()
    for number in range(seed, seed + n_cases):
        case = random_case(number)
        n_pairs = check(build, case)
        sizes = case.batch_ptr.diff()
        lengths = case.cells.double().norm(dim=-1)
        counts["cases"] += 1
        counts["systems"] += len(sizes)
        counts["pairs"] += n_pairs
        counts[f"of shape {case.shape}"] += 1
        counts["systems without atoms"] += int((sizes == 0).sum())
        counts["left-handed cells"] += int((torch.linalg.det(case.cells.double()) < 0).sum())
        counts["cells with missing vectors"] += int((lengths == 0).any(dim=1).sum())
        counts["mixed periodicity"] += int((case.pbc.any(dim=1) & ~case.pbc.all(dim=1)).sum())
        counts["float32"] += case.positions.dtype == torch.float32
        counts["cutoff beyond every cell length"] += bool((case.cutoff > lengths.amax()).item())
    return counts


def main() -> None:
    """Run as many cases as asked for and keep the log."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--cases", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path)
    options = parser.parse_args()
    begin = time.perf_counter()
    text = summary(run(build_ours, options.cases, options.seed), time.perf_counter() - begin, options)
    sys.stdout.write(text)
    if options.log:
        options.log.write_text(text)


if __name__ == "__main__":
    main()
