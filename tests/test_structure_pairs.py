"""g(r): against the definition in cells of all shapes, on any layout; coordination; to S(Q) and back."""

import math
import sys

import pytest
import torch
from native_settings import threads
from structure_systems import CELLS, assert_same, batch, system

import rsa_kernels as rk
from rsa_kernels.structure import reference

pairs = sys.modules["rsa_kernels.structure.pair_distribution"]
pytestmark = pytest.mark.usefixtures("one_thread")


def ordered(one, dr, n_bins):
    """Counts of the definition, (n_species, n_species, n_bins), and of both kernels."""
    labels, codes = torch.unique(one.species, return_inverse=True)
    wanted = reference.pair_counts(one.positions, codes, one.cell, len(labels), dr, n_bins)
    arguments = (one.positions, one.cell.unsqueeze(0), codes, torch.tensor([0, len(codes)]), len(labels), dr, n_bins)
    return wanted, pairs._count_cpu(*arguments)[0], pairs._count_torch(*arguments)[0]


def test_on_a_gpu_cupy_is_asked_for():
    """Its kernel goes through the neighbour list, whose sources CuPy compiles."""
    assert pairs.structure_pair_counts.kernels["cuda"].missing is rk._cuda.missing


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("n_atoms", "r_max"), [(1, 17.0), (2, 14.0), (30, 11.0), (90, 2.5)])
def test_counts_equal_the_definition(cell, n_atoms, r_max, monkeypatch):
    """Ranges beyond the cell, with many images of a pair, and far inside it; the torch kernel in several pieces."""
    monkeypatch.setattr(pairs, "CHUNK", 500)
    one = system(cell, n_atoms)
    wanted, cpu, by_torch = ordered(one, 0.05, round(r_max / 0.05))
    assert wanted.sum() > 0
    assert torch.equal(cpu, wanted) and torch.equal(by_torch, wanted)


def test_many_bins_of_atoms():
    """A cell of several bins along every axis, not whole multiples of the range, and one far wider than its atoms."""
    for cell, n_atoms in (
        ([[23.0, 0, 0], [6.0, 19.0, 0], [-5.0, 4.0, 31.0]], 400),
        ([[400.0, 0, 0], [0, 300.0, 0], [0, 0, 500.0]], 60),
    ):
        one = system(cell, n_atoms)
        turns = one.positions @ torch.linalg.inv(one.cell) / (1.0 if n_atoms > 60 else 100.0)
        one = type(one)((turns - turns.floor()) @ one.cell, one.cell, one.species)
        wanted, cpu, by_torch = ordered(one, 0.1, 43)
        assert wanted.sum() > 100
        assert torch.equal(cpu, wanted) and torch.equal(by_torch, wanted)


def test_lattice_distances_on_edges_fall_on_one_side():
    """A simple cubic lattice of 2 Å with bins of 0.5 Å: 6 neighbours at 2 Å, 12 at 2.83, 8 at 3.46, and no other."""
    n = torch.cartesian_prod(*[torch.arange(6, dtype=torch.float64)] * 3)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))
    for rotation in (torch.eye(3, dtype=torch.float64), turn):
        cell = 12.0 * rotation
        found = rk.pair_distribution(2.0 * n @ rotation, cell, torch.ones(216, dtype=torch.int64), 4.0, 0.5)
        assert (found.counts[0] / 216).tolist() == [0, 0, 0, 0, 6, 12, 8, 0]


def test_normalisation_and_coordination():
    one = system([[12.0, 0, 0], [1.0, 11.0, 0], [0, -2.0, 13.0]], 120, (14, 8, 8))
    found = rk.pair_distribution(one.positions, one.cell, one.species, 5.0, 0.1)
    assert found.species == (8, 14) and found.pairs == [(8, 8), (8, 14), (14, 14)]
    assert torch.allclose(found.r, 0.05 + 0.1 * torch.arange(50, dtype=torch.float64))
    volume = float(rk.cells.volume(one.cell))
    assert found.density == pytest.approx(120 / volume)
    nl = rk.neighbor_list(one.positions, one.cell, True, 5.0)
    i, j = nl.edge_index
    between = (one.species[i] == 8) & (one.species[j] == 14)
    shells = 4 / 3 * math.pi * ((found.r + 0.05) ** 3 - (found.r - 0.05) ** 3)
    # ρ_b Σ 4πr² dr g_ab is the mean number of b around an a.
    assert float((found[14, 8] * shells).sum() * 40 / volume) == pytest.approx(int(between.sum()) / 80)
    assert_same(
        found.partials,
        reference.pair_distribution(
            ordered(one, 0.1, 50)[0], one.cell, torch.tensor([80.0, 40.0], dtype=torch.float64), 0.1
        )[[0, 0, 1], [0, 1, 1]],
        1e-12,
    )


def test_random_atoms_have_no_structure():
    one = system([[20.0, 0, 0], [3.0, 19.0, 0], [0, 0, 22.0]], 3000, (14, 8, 8))
    found = rk.pair_distribution(one.positions, one.cell, one.species, 8.0, 0.5)
    # Counts are Poisson's; ordered pairs of one species come twice.
    expected = found.counts / found.partials
    z = (found.counts - expected)[:, 4:] / expected[:, 4:].sqrt() / torch.tensor([2.0, 1.0, 2.0]).sqrt().unsqueeze(1)
    assert z.abs().max() < 5 and 0.4 < float(z.square().mean()) < 1.9


def test_symmetries_supercells_and_threads():
    one = system("triclinic", 40)
    wanted = rk.pair_distribution(one.positions, one.cell, one.species, 9.0, 0.1)
    generator = torch.Generator().manual_seed(3)
    order = torch.randperm(40, generator=generator)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=generator))
    moved = (one.positions + torch.tensor([0.3, -7.1, 2.2])) @ turn
    basis = torch.tensor([[1, 2, 0], [0, 1, -3], [0, 0, 1]], dtype=torch.float64) @ one.cell @ turn
    found = rk.pair_distribution(moved[order], basis, one.species[order], 9.0, 0.1)
    assert torch.equal(found.counts, wanted.counts)
    doubled = torch.cat([one.positions, one.positions + one.cell[1]])
    cell = one.cell * torch.tensor([[1.0], [2.0], [1.0]], dtype=torch.float64)
    twice = rk.pair_distribution(doubled, cell, one.species.repeat(2), 9.0, 0.1)
    assert torch.equal(twice.counts, 2 * wanted.counts)
    assert_same(twice.partials, wanted.partials, 1e-12)
    for count in (1, 2, 3):
        with threads(count):
            again = rk.pair_distribution(one.positions, one.cell, one.species, 9.0, 0.1)
            assert torch.equal(again.counts, wanted.counts)


def test_batches_equal_singles():
    parts = [system("triclinic", 20), None, system("flat", 1, (8,)), system("skewed", 30)]
    positions, cells, species, offsets = batch(parts, torch.eye(3, dtype=torch.float64) * 9.0)
    found = rk.pair_distribution(positions, cells, species, 6.0, 0.25, offsets)
    assert found.partials.shape == (4, 6, 24) and found.density.shape == (4,)
    for number, one in enumerate(parts):
        if one is None:
            assert (found.counts[number] == 0).all() and found.partials[number].isnan().all()
            continue
        wanted = rk.pair_distribution(one.positions, one.cell, one.species, 6.0, 0.25)
        rows = [found.pairs.index(pair) for pair in wanted.pairs]
        assert torch.equal(found.counts[number, rows], wanted.counts)
        assert_same(found.partials[number, rows], wanted.partials, 1e-12)
    n_species = 3
    codes = torch.unique(species, return_inverse=True)[1]
    arguments = (positions, cells, codes, offsets, n_species, 0.25, 24)
    assert torch.equal(pairs._count_cpu(*arguments), pairs._count_torch(*arguments))


def test_lower_precision_is_only_that_of_the_positions():
    one = system("triclinic", 20)
    low = rk.pair_distribution(one.positions.float(), one.cell.float(), one.species.to(torch.int16), 6.0, 0.25)
    high = rk.pair_distribution(one.positions.float().double(), one.cell.float().double(), one.species, 6.0, 0.25)
    assert low.partials.dtype == torch.float64 and torch.equal(low.counts, high.counts)


ONE = system("triclinic", 6)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"positions": ONE.positions[0]}, ValueError, r"`positions` must have shape \(n_atoms, 3\)"),
        ({"positions": ONE.positions * torch.inf}, rk.errors.NonFiniteError, "`positions` holds NaN"),
        ({"positions": ONE.positions.clone().requires_grad_()}, ValueError, "must not require gradients"),
        ({"cell": ONE.cell.clone().requires_grad_()}, ValueError, "must not require gradients"),
        ({"cell": ONE.cell[[0, 0, 0]]}, ValueError, "singular"),
        ({"species": ONE.species[1:]}, ValueError, r"`species` must have shape \(6,\)"),
        ({"r_max": -1.0}, ValueError, "`r_max` must be positive"),
        ({"dr": 0.0}, ValueError, "`dr` must be positive"),
        ({"dr": 9.0}, ValueError, "`dr` must be at most `r_max`"),
        ({"batch_ptr": torch.tensor([0, 5])}, ValueError, "`batch_ptr` must rise"),
    ],
)
def test_wrong_arguments_are_named(change, error, message):
    arguments = {"positions": ONE.positions, "cell": ONE.cell, "species": ONE.species, "r_max": 4.0, "dr": 0.1} | change
    with pytest.raises(error, match=message):
        rk.pair_distribution(**arguments)


def gas(n_atoms=1500, edge=34.0, seed=5):
    """Atoms that keep 2 Å apart: something to transform."""
    generator = torch.Generator().manual_seed(seed)
    cell = edge * torch.eye(3, dtype=torch.float64)
    positions = edge * torch.rand(3 * n_atoms, 3, dtype=torch.float64, generator=generator)
    nl = rk.neighbor_list(positions, cell, True, 2.0)
    i, j = nl.edge_index
    alive = torch.ones(len(positions), dtype=torch.bool)
    for a, b in zip(i[i < j].tolist(), j[i < j].tolist(), strict=True):
        if alive[a] and alive[b]:
            alive[b] = False
    kept = positions[alive][:n_atoms]
    return kept, cell, torch.arange(len(kept)) % 3 // 2


def test_from_pairs_to_structure_factor():
    """The transform of g(r), cut at R, is S(Q) convolved with the cut: smooth both, compare within noise."""
    positions, cell, species = gas()
    distribution = rk.pair_distribution(positions, cell, species, 16.0, 0.02)
    factor = rk.structure_factor(positions, cell, species, 9.0, 0.2)
    used = factor.q > 1.0
    found = rk.structure.structure_factor_from_pairs(distribution, factor.q)
    difference = (found - factor.partials)[:, used]
    # A shell of n vectors scatters by S/√(n/2); the transform of the same pairs smooths over 2π/16 Å.
    spread = 1.0 / (factor.counts[used] / 2).sqrt() / torch.tensor([2 / 3, 2**0.5 / 3, 1 / 3]).unsqueeze(1)
    assert (difference / spread).square().mean() < 1.5
    assert difference.abs().max() < 0.1 and (factor.partials[0, used] - 1).abs().max() > 0.25


def test_from_structure_factor_to_pairs():
    """All vectors up to K, undamped and damped: the periodic g(r) up to what the cut leaves."""
    positions, cell, species = gas(700, 26.0)
    factor = rk.structure_factor(positions, cell, species, 24.0, 0.02)
    distribution = rk.pair_distribution(positions, cell, species, 11.0, 0.02)
    wide = distribution.partials.unfold(1, 20, 20).mean(2)[:, 2:]
    centres = distribution.r.unfold(0, 20, 20).mean(1)[2:]
    fine = torch.linspace(0.0, 0.4, 41, dtype=torch.float64)[None] + (centres - 0.2)[:, None]
    ours = rk.structure.pairs_from_structure_factor(factor, fine.flatten(), len(positions)).view(3, *fine.shape)
    smooth = (ours * fine**2).mean(2) / (fine**2).mean(1)
    inside = centres > 2.4
    assert (smooth - wide)[:, inside].abs().max() < 0.1
    assert (smooth - wide)[:, inside].square().mean().sqrt() < 0.02
    core = centres < 1.6
    assert smooth[:, core].abs().max() < 0.05
    with pytest.raises(ValueError, match="`r` must hold positive"):
        rk.structure.pairs_from_structure_factor(factor, torch.zeros(1, dtype=torch.float64), 900)
    with pytest.raises(ValueError, match="`window` must be one of"):
        rk.structure.pairs_from_structure_factor(factor, centres, 900, window="hann")
    with pytest.raises(TypeError, match="`factor` must be a StructureFactor"):
        rk.structure.pairs_from_structure_factor(distribution, centres, 900)
    with pytest.raises(TypeError, match="`distribution` must be a PairDistribution"):
        rk.structure.structure_factor_from_pairs(factor, centres)


def test_transform_of_known_functions():
    """One shell of neighbours: S(Q) = 1 + n sin(QR)/(QR) without the background that 1 in g − 1 subtracts."""
    one = system([[9.0, 0, 0], [0, 9.0, 0], [0, 0, 9.0]], 50, (8,))
    found = rk.pair_distribution(one.positions, one.cell, one.species, 4.0, 0.001)
    q = torch.tensor([1.5, 4.0, 7.7], dtype=torch.float64)
    nl = rk.neighbor_list(one.positions, one.cell, True, 4.0)
    r = nl.distances(one.positions, one.cell)
    direct = torch.sinc(q.unsqueeze(1) * r / math.pi).sum(1) / 50
    background = 4 * math.pi * found.density * (torch.sin(q * 4.0) - q * 4.0 * torch.cos(q * 4.0)) / q**3
    assert_same(rk.structure.structure_factor_from_pairs(found, q)[0], 1 + direct - background, 1e-4)
