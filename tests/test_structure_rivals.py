"""S(Q) beside dynasor and freud on a glass of 3,000 atoms, at equal k-vectors; g(r) and S(Q) of the glass."""

import ase.io
import numpy as np
import pytest
import torch

import rsa_kernels as rk
from rsa_kernels.reciprocal.modes import half_space


@pytest.fixture(scope="module")
def glass(shared):
    """Positions, cell and atomic numbers of a silica glass."""
    atoms = ase.io.read(shared / "data" / "networks" / "sio2_glass_amorphouspy_3000.xyz")
    numbers = torch.from_numpy(atoms.numbers.astype(np.int64))
    return torch.from_numpy(atoms.get_positions()), torch.from_numpy(np.array(atoms.cell)), numbers


def shells(q, rows):
    """Mean of rows over the bins of 0.1 1/Å that vectors of length q fall into, and the numbers of vectors."""
    slot = torch.floor(q / 0.1 + 0.5).long()
    counts = torch.bincount(slot)
    return torch.stack([torch.bincount(slot, row) for row in rows]) / counts, counts


def test_dynasor_at_equal_vectors(glass, tmp_path):
    dynasor = pytest.importorskip("dynasor", reason="dynasor is not installed")
    positions, cell, numbers = glass
    miller = half_space(cell, 2.15)
    q = miller.double() @ (2 * np.pi * torch.linalg.inv(cell).T)
    atoms = ase.Atoms(numbers.numpy(), positions.numpy(), cell=cell.numpy(), pbc=True)
    # dynasor reads trajectories, of two frames at least.
    ase.io.write(tmp_path / "two.traj", [atoms, atoms])
    indices = {name: torch.nonzero(numbers == z).flatten().tolist() for name, z in (("Si", 14), ("O", 8))}
    trajectory = dynasor.Trajectory(str(tmp_path / "two.traj"), "ase", atomic_indices=indices, frame_stop=1)
    theirs = dynasor.compute_static_structure_factors(trajectory, q.numpy())

    at = rk.structure.structure_factor_at(positions, cell, numbers, miller)
    # They sum both orders of unlike species and divide by N.
    weights = torch.tensor([[2.0], [2.0 * 2**0.5], [1.0]], dtype=torch.float64) / 3.0
    ours = at.ashcroft_langreth() * weights
    rows = torch.stack([torch.from_numpy(theirs[name][:, 0].copy()) for name in ("Sq_O_O", "Sq_O_Si", "Sq_Si_Si")])
    assert len(miller) > 3500
    assert (ours - rows).abs().max() < 1e-10
    # Shell means of all vectors, from them and from every route.
    wanted, counts = shells(q.norm(dim=1), rows)
    for method in ("grid", "direct", "sampled"):
        found = rk.structure_factor(positions, cell, numbers, 2.0, 0.1, method)
        filled = found.counts > 0
        assert torch.equal(found.counts, 2 * counts[1:21])
        difference = found.ashcroft_langreth() * weights - wanted[:, 1:21]
        assert difference[:, filled].abs().max() < 1e-6


def test_freud_at_equal_vectors(glass):
    """freud sums the first octant of the lattice, in single precision: its positions are taken, and its vectors."""
    freud = pytest.importorskip("freud", reason="freud-analysis is not installed")
    positions, cell, numbers = glass
    box = freud.box.Box(*(float(cell[k, k]) for k in range(3)))
    single = box.wrap(positions.numpy() - float(cell[0, 0]) / 2)
    n_bins = 24
    theirs = freud.diffraction.StaticStructureFactorDirect(bins=n_bins, k_max=(n_bins + 0.5) * 0.1, k_min=0.05)
    reach = int(2.5 * float(cell[0, 0]) / (2 * np.pi)) + 1
    miller = torch.cartesian_prod(*[torch.arange(reach)] * 3)[1:]
    at = rk.structure.structure_factor_at(torch.from_numpy(single).double(), cell, numbers, miller)
    silicon = numbers.numpy() == 14
    for a, b, pair, like in (
        (silicon, silicon, (14, 14), 1 / 3),
        (~silicon, ~silicon, (8, 8), 2 / 3),
        (silicon, ~silicon, (8, 14), 0.0),
    ):
        theirs.compute((box, single[a]), query_points=single[b], N_total=3000)
        fractions = float(a.mean() * b.mean())
        # Theirs tends to x_a for like and to 0 for unlike species: c_a c_b (S − 1) + δ_ab c_a.
        wanted, counts = shells(at.q, [fractions * (at[pair] - 1.0) + like])
        found = torch.from_numpy(np.array(theirs.S_k)).double()
        filled = counts[1 : n_bins + 1] > 0
        assert torch.equal(found.isnan(), ~filled)
        # Single precision of the sums over 3,000 atoms.
        assert (found - wanted[0, 1 : n_bins + 1])[filled].abs().max() < 1e-6


def test_glass_from_pairs_and_from_vectors(glass):
    """g(r) of the glass by counting and from S(Q) to 25 1/Å; S(Q) by its vectors and from g(r)."""
    positions, cell, numbers = glass
    distribution = rk.pair_distribution(positions, cell, numbers, 17.8, 0.02)
    factor = rk.structure_factor(positions, cell, numbers, 25.0, 0.05)
    assert factor.method == "grid"
    smoothed = rk.structure.structure_factor_from_pairs(distribution, factor.q)
    beyond = factor.q > 3.0
    # Both end in noise: shell means scatter by 1/√(vectors), the transform by the cut at half the cell.
    difference = (smoothed - factor.partials)[:, beyond]
    assert difference.square().mean(dim=1).sqrt().max() < 0.12
    broad = torch.nn.functional.avg_pool1d(difference.unsqueeze(0), 21)
    assert broad.abs().max() < 0.02

    r = distribution.r
    found = rk.structure.pairs_from_structure_factor(factor, r, len(numbers))
    # The Lorch window to 25 1/Å broadens peaks by 0.22 Å: compare areas, the numbers of neighbours, not heights.
    weight = 4 * np.pi * r**2 * distribution.density * 0.02
    for pair, low, high, around in (((8, 14), 1.3, 2.2, 2 / 3), ((8, 8), 2.2, 3.1, 2 / 3), ((14, 14), 2.7, 3.6, 1 / 3)):
        row = distribution.pairs.index(pair)
        inside = (r > low) & (r < high)
        counted, transformed = (float((g[row] * weight)[inside].sum()) * around for g in (distribution.partials, found))
        assert transformed == pytest.approx(counted, rel=0.03), pair
    assert float((distribution[8, 14] * weight)[(r > 1.3) & (r < 2.2)].sum()) * 2 / 3 == pytest.approx(4.0, abs=0.02)
