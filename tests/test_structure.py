"""Structure factors: every route against the definition, equal vectors, symmetries, crystals, sum rules, batches."""

import itertools
import math
import subprocess
import sys

import pytest
import torch
from native_settings import threads
from structure_systems import CELLS, FINE, ROUTES, TRICLINIC, System, assert_same, batch, system

import rsa_kernels as rk
from rsa_kernels.structure import bins, lattice, nufft, sampling
from rsa_kernels.structure.bins import Shells
from rsa_kernels.structure.nufft import Points, Transforms

pytestmark = pytest.mark.usefixtures("one_thread")
BOUND = 1e-8
"""Of S_ab at the tolerance `FINE`; a vector in the wrong bin, or a term forgotten, is an error of order 1."""


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("method", ROUTES)
def test_partials_equal_the_definition(cell, method):
    one = system(cell)
    partials, counts = one.defined()
    found = one.factor(method=method)
    assert found.method == method and found.reason == "as asked for"
    assert found.pairs == [(8, 8), (8, 11), (8, 14), (11, 11), (11, 14), (14, 14)] and found.species == (8, 11, 14)
    assert torch.equal(found.counts, counts) and torch.equal(found.available, counts)
    assert torch.allclose(found.q, 0.2 * torch.arange(1, 26, dtype=torch.float64))
    assert_same(found.partials, partials, BOUND)
    assert (counts == 0).any(), "no bin without vectors here"
    assert_same(found[14, 8], partials[2], BOUND)


def test_default_tolerance_reaches_a_millionth():
    one = system("triclinic", 200)
    partials, _ = one.defined()
    assert_same(one.factor(tolerance=1e-7).partials, partials, 1e-6)


@pytest.mark.parametrize(("n_atoms", "labels"), [(1, (8,)), (2, (8, 8)), (7, (3,)), (8, (-4, 900, 2, 1))])
def test_few_atoms_and_any_labels(n_atoms, labels):
    one = system("left-handed", n_atoms, labels)
    partials, _ = one.defined()
    for method in (*ROUTES, "auto"):
        found = one.factor(method=method)
        assert found.species == tuple(sorted(set(labels)))
        assert_same(found.partials, partials, BOUND)
    if n_atoms == 1:
        # ρρ* = 1 for every vector: S = 1 + 1 − 1.
        assert torch.allclose(partials[partials.isfinite()], torch.ones((), dtype=torch.float64))


@pytest.mark.parametrize("edges", [(3, 3, 3), (2, 9, 5), (64, 64, 64)])
@pytest.mark.parametrize("cell", CELLS)
def test_boxes_hold_every_vector_of_the_half_space_once(cell, edges):
    short = lattice.reduced(torch.tensor(CELLS[cell], dtype=torch.float64))
    gram, q_max = lattice.metric(short), 4.0
    found = [tuple(n) for box in lattice.boxes(gram, q_max, edges) for n in lattice.miller_of(box).tolist()]
    n = torch.cartesian_prod(torch.arange(0, 16), torch.arange(-15, 16), torch.arange(-15, 16))
    k = ((n.double() @ gram) * n).sum(1).sqrt()
    assert len(found) == len(set(found)), "a vector is in two boxes"
    assert {tuple(row) for row in n[k <= q_max].tolist()} <= set(found), "a vector is in no box"


@pytest.mark.parametrize("cell", CELLS)
def test_reduced_vectors_span_the_same_lattice(cell):
    given = torch.tensor(CELLS[cell], dtype=torch.float64)
    short = lattice.reduced(given)
    change = short @ torch.linalg.inv(given)
    assert (change - change.round()).abs().max() < 1e-9
    assert abs(abs(float(torch.linalg.det(change.round()))) - 1.0) < 1e-9
    assert sorted(short.norm(dim=1).tolist()) <= sorted(given.norm(dim=1).tolist())
    assert torch.equal(lattice.reduced(short), short)


def test_transforms_equal_the_direct_sum_and_their_adjoint():
    generator = torch.Generator().manual_seed(0)
    fractional = torch.rand(40, 3, dtype=torch.float64, generator=generator)
    strengths = torch.randn(40, dtype=torch.float64, generator=generator)
    box = (3, -7, -4, 6, 8, 5)
    n = lattice.miller_of(box).double()
    waves = torch.exp(2j * math.pi * (n @ fractional.T))
    points, transforms = Points(fractional), Transforms(1e-12)
    out = torch.full(box[3:], torch.nan, dtype=torch.complex128)
    assert (transforms.accumulate(points, None, box, out).flatten() - waves.sum(1)).abs().max() < 1e-9
    assert (transforms.accumulate(points, strengths, box, out).flatten() - waves @ (strengths + 0j)).abs().max() < 1e-9
    modes = torch.randn(box[3:], dtype=torch.complex128, generator=generator)
    assert (transforms.gather(points, modes, box) - waves.conj().T @ modes.flatten()).abs().max() < 1e-9


def test_cpp_and_torch_bins_agree(monkeypatch):
    """Also with planes cut in pieces, and bins that leave out both ends of the box."""
    gram = lattice.metric(lattice.reduced(torch.tensor(TRICLINIC, dtype=torch.float64)))
    generator = torch.Generator().manual_seed(1)
    for box, shells in itertools.product(
        [(0, -3, -5, 7, 8, 9), (2, 4, -6, 3, 5, 8)], [Shells(0.1, 0, 80), Shells(0.1, 22, 20)]
    ):
        x, y = (torch.randn(3, *box[3:], dtype=torch.complex128, generator=generator) for _ in range(2))
        g = torch.randn(6, shells.n_bins, dtype=torch.float64, generator=generator)
        ours, squares, wanted, wanted_squares = (torch.zeros(6, shells.n_bins, dtype=torch.float64) for _ in range(4))
        bins.sums(x, x, gram, box, shells, ours, squares)
        bins._sums_torch(x, x, gram, box, shells, wanted, wanted_squares)
        assert_same(ours, wanted, 1e-11)
        assert_same(squares, wanted_squares, 1e-10)
        bins.sums(x, y, gram, box, shells, ours)
        bins._sums_torch(x, y, gram, box, shells, wanted, None)
        assert_same(ours, wanted, 1e-11)
        field = bins.field(g, x, gram, box, shells)
        assert (field - bins._field_torch(g, x, gram, box, shells)).abs().max() < 1e-12
        slot, weight = bins._slots(lattice.miller_of(box), gram, shells)
        counted = torch.bincount(slot, weight, shells.n_bins + 2)[1:-1]
        assert counted.sum() > 0
        assert torch.equal(bins.counts(gram, box, shells).double(), counted)


def test_planes_summed_in_groups_and_on_threads():
    """A plane's sums take 30 MB here, so that planes are added two by two."""
    gram, box = lattice.metric(torch.tensor(TRICLINIC, dtype=torch.float64)), (1, -3, -5, 7, 8, 9)
    shells = Shells(3e-5, 0, 400_000)
    x = torch.randn(3, *box[3:], dtype=torch.complex128, generator=torch.Generator().manual_seed(1))
    ours, squares, wanted, wanted_squares = (torch.zeros(6, shells.n_bins, dtype=torch.float64) for _ in range(4))
    bins._sums_torch(x, x, gram, box, shells, wanted, wanted_squares)
    bins.sums(x, x, gram, box, shells, ours, squares)
    assert shells.of_box(gram, box)[0].n_bins * 12 * 8 * 3 > 64 << 20
    assert_same(ours, wanted, 1e-11)
    assert_same(squares, wanted_squares, 1e-10)


def test_lack_of_memory_is_an_error_and_not_the_end(monkeypatch):
    gram, box = torch.eye(3, dtype=torch.float64), torch.tensor([0, -1, -1, 2, 3, 3])
    data, many = torch.zeros(64, dtype=torch.float64), 1 << 50
    start, out = (gram.data_ptr(), box.data_ptr(), 0.1, 0, many), data.data_ptr()
    assert bins._counts(*start, 2, out) == -3
    assert bins._sums(*start, 1, out, out, 2, out, None) == -3
    assert bins._field(*start, 1, out, out, 2, out) == -3
    one = system()
    moving = one.positions.clone().requires_grad_()
    for name, run in {
        "_counts": lambda: bins.counts(gram, tuple(box.tolist()), Shells(0.1, 0, 30)),
        "_sums": lambda: one.factor(),
        "_field": lambda: torch.autograd.grad(System(moving, one.cell, one.species).factor().partials.nansum(), moving),
    }.items():
        with monkeypatch.context() as patch, pytest.raises(rk.errors.CapacityError, match="larger `dq`"):
            patch.setattr(bins, name, lambda *_: -3)
            run()
    for dq in (1e-9, 1e-300):
        with pytest.raises(rk.errors.CapacityError, match=r"`max_memory` is 4 GiB.* larger `dq`"):
            one.factor(dq=dq)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_sums_do_not_depend_on_threads(count):
    one = system("triclinic", 60)
    with threads(1):
        wanted = one.factor(method="sampled", per_shell=40)
    with threads(count):
        found = one.factor(method="sampled", per_shell=40)
    assert torch.equal(found.boxes, wanted.boxes) and torch.equal(found.counts, wanted.counts)
    # finufft adds what its threads spread in any order.
    assert_same(found.partials, wanted.partials, 1e-12)


def equal_vectors(found, one, q_max, dq):
    """Partials from direct sums over the vectors of the boxes that a result names."""
    short = lattice.reduced(one.cell)
    gram, n_bins = lattice.metric(short), round(q_max / dq)
    totals = torch.zeros(len(found.pairs) + 1, n_bins, dtype=torch.float64)
    for row in found.boxes.tolist():
        miller = lattice.miller_of(tuple(row[1:7]))
        shell = bins.shell_of(miller, gram, dq)
        inside = (shell >= row[7]) & (shell <= row[8])
        at = rk.structure.structure_factor_at(one.positions, short, one.species, miller[inside])
        weight = 2.0 - (miller[inside, 0] == 0).double()
        terms = torch.cat([at.partials, torch.ones_like(at.q).unsqueeze(0)]) * weight
        totals.index_add_(1, shell[inside] - 1, terms)
    return totals[:-1] / totals[-1], totals[-1]


@pytest.mark.parametrize(
    ("method", "options"),
    [("grid", {}), ("sampled", {"per_shell": 150}), ("auto", {"max_vectors": 15000, "per_shell": 150})],
)
def test_direct_sums_over_equal_vectors_agree(method, options):
    one = system([[22.0, 0, 0], [5.0, 21.0, 0], [-3.0, 4.0, 25.0]], 90)
    found = one.factor(8.0, 0.1, method, **options, tolerance=1e-7)
    partials, counts = equal_vectors(found, one, 8.0, 0.1)
    assert torch.equal(found.counts.double(), counts)
    assert_same(found.partials, partials, 1e-6)
    if method == "sampled":
        assert (found.counts < found.available).any()


def test_sample_is_reproducible_balanced_and_follows_its_seed():
    one = system([[30.0, 0, 0], [4.0, 29.0, 0], [0, 0, 31.0]], 50)
    found = one.factor(9.0, 0.1, "sampled", per_shell=300)
    again = one.factor(9.0, 0.1, "sampled", per_shell=300)
    other = one.factor(9.0, 0.1, "sampled", per_shell=300, seed=1)
    assert torch.equal(found.boxes, again.boxes) and torch.equal(
        found.partials.nan_to_num(), again.partials.nan_to_num()
    )
    assert not torch.equal(found.boxes, other.boxes)
    for factor in (found, other):
        assert (factor.counts >= factor.available.clamp_max(300)).all()
    assert (found.counts < found.available).sum() > 20
    everything = one.factor(9.0, 0.1, "grid")
    assert torch.equal(found.available, everything.counts) and everything.errors is None
    complete = (found.counts == found.available) & (found.counts > 0)
    assert (found.errors[:, complete] == 0).all() and (found.errors[:, found.counts < found.available] > 0).all()
    # The boxes drawn are these for ever: another choice would be another sample for the same seed.
    assert found.boxes[:3].tolist() == DRAWN


DRAWN = [
    [0, 22, -33, -38, 22, 25, 25, 1, 90],
    [0, 0, -13, -44, 22, 29, 29, 1, 90],
    [0, 0, -13, 15, 22, 29, 30, 1, 90],
]


def test_errors_of_a_sample_are_those_found():
    """Against all vectors: z-scores of random atoms, of many bins and pairs, have variance 1."""
    one = system([[46.0, 0, 0], [0, 46.0, 0], [0, 0, 46.0]], 120, (14, 8))
    exact = one.factor(9.0, 0.1, "grid", tolerance=1e-6)
    part = one.factor(9.0, 0.1, "sampled", tolerance=1e-6, per_shell=600)
    sampled = part.counts < 0.5 * part.available
    assert sampled.sum() > 30
    z = ((part.partials - exact.partials) / part.errors)[:, sampled]
    assert 0.7 < float(z.square().mean()) < 1.4 and float(z.abs().max()) < 5.0


def test_auto_says_what_it_does_and_why():
    few = system("triclinic").factor(method="auto")
    assert few.method == "direct" and "terms" in few.reason
    one = system([[25.0, 0, 0], [0, 25.0, 0], [0, 0, 25.0]], 600)
    every = one.factor(6.0, 0.1, "auto")
    assert every.method == "grid" and "all 2.92e+04 k-vectors" in every.reason
    split = one.factor(6.0, 0.1, "auto", max_vectors=8000, per_shell=200)
    assert split.method == "grid+sampled" and "all up to 3.8 1/Å, at least 200 per bin beyond" in split.reason
    assert torch.equal(split.counts[:38], every.counts[:38]) and (split.counts[38:] < every.counts[38:]).any()
    assert_same(split.partials[:, :38], every.partials[:, :38], BOUND)
    assert (split.errors[:, :38].nan_to_num() == 0).all()
    assert one.factor(6.0, 0.3, "auto", max_vectors=1, per_shell=100).method == "sampled"


def test_memory_cuts_the_boxes_and_changes_nothing():
    one = system([[30.0, 0, 0], [4.0, 29.0, 0], [0, 0, 31.0]], 50)
    wide, narrow = (one.factor(9.0, 0.1, "grid", max_memory=m) for m in (4.0, 0.004))
    limit = sampling.largest_box(50, 3, 0, 0.004 * 2**30)
    assert len(narrow.boxes) > len(wide.boxes)
    assert narrow.boxes[:, 4:7].prod(dim=1).max() <= limit < wide.boxes[:, 4:7].prod(dim=1).max()
    assert_same(narrow.partials, wide.partials, BOUND)
    with pytest.raises(rk.errors.CapacityError, match=r"`max_memory` of 0.0002 GiB.*50 atoms"):
        one.factor(9.0, 0.1, "grid", max_memory=0.0002)


@pytest.mark.parametrize("n_atoms", [1, 30_000, 130_000, 650_000, 1_000_000])
@pytest.mark.parametrize(("order", "tolerance"), [(0, 1e-7), (2, 1e-7), (0, 1e-10)])
def test_every_box_up_to_the_largest_fits(n_atoms, order, tolerance):
    """Small boxes take the larger oversampling factor, and more memory a mode."""
    memory = 0.25 * 2**30
    largest, n_species = sampling.largest_box(n_atoms, 3, order, memory, tolerance), 3
    free = memory - sampling.BYTES_PER_POINT * n_atoms
    for modes in {largest, *(m for m in (2 * n_atoms - 1, 2 * n_atoms, largest // 2, largest // 9) if m <= largest)}:
        factor = nufft.upsampling(n_atoms, modes, tolerance)
        assert modes * sampling.bytes_per_mode(n_species, order, factor) <= free
    assert largest * sampling.bytes_per_mode(n_species, order, nufft.HIGH) >= 0.99 * free


def test_direct_sums_that_do_not_fit_are_refused():
    one = system([[30.0, 0, 0], [4.0, 29.0, 0], [0, 0, 31.0]], 50)
    with pytest.raises(rk.errors.CapacityError, match=r"direct sums up to 9.05 1/Å.*`max_memory` is 0.01 GiB"):
        one.factor(9.0, 0.1, "direct", max_memory=0.01)
    with pytest.raises(rk.errors.CapacityError, match="direct sums"):
        rk.structure_factor(one.positions, one.cell, one.species, 900.0, 0.1, "direct")
    assert one.factor(9.0, 0.1, "direct", max_memory=0.2).method == "direct"


def test_peak_memory_stays_below_the_limit():
    """In a process of its own: 60,000 atoms, 7 million vectors, 0.25 GiB."""
    code = """
    import sys, torch, rsa_kernels as rk
    def status(field):
        with open("/proc/self/status") as lines:
            return next(float(line.split()[1]) * 1024 for line in lines if line.startswith(field))
    n, length = 60000, 96.8
    positions = length * torch.rand(n, 3, dtype=torch.float64)
    cell, species = length * torch.eye(3, dtype=torch.float64), torch.arange(n) % 2
    def run(q_max):
        return rk.structure_factor(positions, cell, species, q_max, 0.1, "grid", max_memory=0.25, tolerance=1e-4)
    run(0.5)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = status("VmRSS")
    found = run(8.0)
    print(len(found.boxes), (status("VmHWM") - before) / 2**30)
    """
    body = "\n".join(line[4:] for line in code.splitlines())
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    boxes, peak = map(float, done.stdout.split())
    assert boxes > 1
    assert 0.02 < peak < 0.25


def test_translation_wrapping_permutation_rotation_change_nothing():
    one = system("triclinic")
    generator = torch.Generator().manual_seed(3)
    order = torch.randperm(24, generator=generator)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=generator))
    shifts = torch.randint(-3, 4, (24, 3), generator=generator).double() @ one.cell
    moved = type(one)(
        (one.positions + shifts + torch.tensor([0.3, -7.1, 2.2]))[order] @ turn, one.cell @ turn, one.species[order]
    )
    for method in ROUTES:
        wanted, found = (which.factor(method=method) for which in (one, moved))
        assert torch.equal(found.counts, wanted.counts)
        assert_same(found.partials, wanted.partials, BOUND)
        assert found.q_min == pytest.approx(wanted.q_min)


@pytest.mark.parametrize(
    "change",
    [[[1, 1, 0], [0, 1, -2], [0, 0, 1]], [[0, 1, 0], [0, 0, 1], [1, 0, 0]], [[-1, 0, 0], [3, 1, 0], [5, -4, 1]]],
)
def test_another_basis_of_the_same_lattice_changes_nothing(change):
    one = system("orthorhombic")
    other = type(one)(one.positions, torch.tensor(change, dtype=torch.float64) @ one.cell, one.species)
    wanted, found = (which.factor() for which in (one, other))
    assert torch.equal(found.counts, wanted.counts)
    assert_same(found.partials, wanted.partials, BOUND)
    assert found.q_min == pytest.approx(2 * math.pi / 11.0)


def repeated(one, copies):
    shifts = torch.cartesian_prod(*(torch.arange(c, dtype=torch.float64) for c in copies)) @ one.cell
    positions = (one.positions.unsqueeze(0) + shifts.unsqueeze(1)).reshape(-1, 3)
    return type(one)(
        positions, torch.tensor(copies, dtype=torch.float64).unsqueeze(1) * one.cell, one.species.repeat(len(shifts))
    )


def test_supercell_scatters_only_at_the_vectors_of_its_cell():
    """S_AL = |ρ|²/N grows with the copies at vectors of the small cell's lattice and is zero at all others."""
    one = system("triclinic", 12)
    large = repeated(one, (2, 1, 3))
    miller = lattice.miller_of((0, -3, -6, 6, 7, 13))
    miller = miller[(miller != 0).any(1)]
    at = rk.structure.structure_factor_at(large.positions, large.cell, large.species, miller).ashcroft_langreth()
    old = (miller[:, 0] % 2 == 0) & (miller[:, 2] % 3 == 0)
    n = miller[old] // torch.tensor([2, 1, 3])
    wanted = rk.structure.structure_factor_at(one.positions, one.cell, one.species, n).ashcroft_langreth()
    assert 20 < old.sum() < len(miller) / 4
    assert_same(at[:, old], 6 * wanted, 1e-10)
    assert at[:, ~old].abs().max() < 1e-10
    # The same through shells: every vector of the small cell is there, and no other adds anything.
    few, many = (which.factor(6.0, 0.1) for which in (one, large))
    intensities = [(f.ashcroft_langreth() * f.counts).nan_to_num() for f in (few, many)]
    assert_same(intensities[1], 6 * intensities[0], 1e-5)


def test_diamond_reflects_where_it_should():
    """Silicon: hkl all odd or all even with h + k + l = 4n; |F|² is 32 and 64 per cell, everything else is dark."""
    a = 5.43
    sites = torch.tensor([[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0]], dtype=torch.float64)
    sites = torch.cat([sites, sites + 1.0]) * a / 4
    cell = a * torch.eye(3, dtype=torch.float64)
    shifts = a * torch.cartesian_prod(*[torch.arange(2, dtype=torch.float64)] * 3)
    positions = (sites + shifts.unsqueeze(1)).reshape(-1, 3)
    found = rk.structure_factor(positions, 2 * cell, torch.full((64,), 14), 8.0, 0.02, "grid")
    # 8 cells, 64 atoms: |ρ|²/N = 8² |F|² / 64 = |F|².
    intensity = (found.partials[0] * found.counts).nan_to_num()
    lit = {(1, 1, 1): (8, 32), (2, 2, 0): (12, 64), (3, 1, 1): (24, 32), (4, 0, 0): (6, 64), (3, 3, 1): (24, 32)}
    lit |= {(4, 2, 2): (24, 64), (3, 3, 3): (8 + 24, 32)}
    for hkl, (multiplicity, square) in lit.items():
        slot = math.floor(2 * math.pi / a * math.hypot(*hkl) / 0.02 + 0.5) - 1
        assert float(intensity[slot]) == pytest.approx(multiplicity * square, rel=1e-5), hkl
        intensity[slot] = 0.0
    below = found.q < 2 * math.pi / a * math.sqrt(31.5)
    assert intensity[below].abs().max() < 1e-4


def test_gaussian_sum_rule():
    """Σ_k |ρ_a|² exp(−σ²k²/2) = V/(2πσ²)^{3/2} Σ_ij Σ_S exp(−r²/2σ²): Poisson's sum over vectors is that over pairs."""
    one, sigma = system("triclinic", 10, (8, 14)), 0.9
    found = one.factor(7.0, 0.0002)
    volume, n_atoms = float(rk.cells.volume(one.cell)), 10
    weight = found.counts * torch.exp(-0.5 * sigma**2 * found.q**2)
    products = torch.where(found.counts > 0, found.ashcroft_langreth(), 0.0) @ weight
    nl = rk.neighbor_list(one.positions, one.cell, True, 9.0 * sigma)
    r, (i, j) = nl.distances(one.positions, one.cell), nl.edge_index
    for row, (a, b) in enumerate(found.pairs):
        sizes = (one.species == a).sum() * (one.species == b).sum()
        pairs = (one.species[i] == a) & (one.species[j] == b)
        real = torch.exp(-0.5 * (r[pairs] / sigma) ** 2).sum() + (n_atoms / 2 if a == b else 0.0)
        real = real * volume / (2 * math.pi * sigma**2) ** 1.5
        # k = 0 adds N_a N_b, S_AL = Re ρρ*/(N_a N_b)^½; bins of 0.0002 1/Å shift the weights of a few vectors by 1e-4.
        assert float(products[row] * sizes.sqrt() + sizes) == pytest.approx(float(real), rel=2e-5)


def test_random_atoms_scatter_like_single_ones_at_high_q():
    one = system([[20.0, 0, 0], [0, 20.0, 0], [0, 0, 20.0]], 600, (14, 8, 8))
    found = one.factor(12.0, 0.05, tolerance=1e-6)
    high = found.counts > 3000
    spread = 1.0 / (found.counts[high] / 2).sum().sqrt()
    for row, (a, b) in enumerate(found.pairs):
        mean = (found.partials[row, high] * found.counts[high]).sum() / found.counts[high].sum()
        c = [float((one.species == s).double().mean()) for s in (a, b)]
        assert abs(float(mean) - 1.0) < 5.0 * float(spread) / math.sqrt(c[0] * c[1])


def test_batches_equal_singles():
    parts = [
        system("triclinic", 20),
        None,
        system("skewed", 1, (11,)),
        system("flat", 9, (8,)),
        system("left-handed", 30),
        None,
    ]
    positions, cells, species, offsets = batch(parts, torch.eye(3, dtype=torch.float64) * 9.0)
    for method in (*ROUTES, "auto"):
        found = rk.structure_factor(positions, cells, species, 4.0, 0.2, method, offsets, tolerance=FINE)
        assert found.partials.shape == (6, 6, 20) and found.counts.shape == (6, 20) and found.q_min.shape == (6,)
        for number, one in enumerate(parts):
            if one is None:
                assert found.partials[number].isnan().all() and found.fractions[number].isnan().all()
                continue
            wanted = one.factor(4.0, 0.2, method)
            rows = [found.pairs.index(pair) for pair in wanted.pairs]
            assert torch.equal(found.counts[number], wanted.counts)
            assert_same(found.partials[number, rows], wanted.partials, BOUND)
            others = [row for row in range(6) if row not in rows]
            assert found.partials[number, others].isnan().all()
            assert_same(found.neutron()[number], wanted.neutron(), BOUND)
            assert_same(found.xray()[number], wanted.xray(), BOUND)
            assert float(found.q_min[number]) == wanted.q_min
    one = parts[0]
    single = rk.structure_factor(one.positions, one.cell, one.species, 4.0, 0.2, "grid", torch.tensor([0, 20]))
    assert single.partials.shape == (1, 6, 20)


def test_inputs_of_any_layout_and_precision():
    one = system("triclinic")
    wanted = one.factor()
    wide = torch.full((24, 5), torch.nan, dtype=torch.float64)
    wide[:, 1:4] = one.positions
    other = type(one)(wide[:, 1:4], one.cell.T.contiguous().T, one.species.repeat_interleave(2)[::2].to(torch.int32))
    assert not other.positions.is_contiguous()
    assert_same(other.factor().partials, wanted.partials, 1e-12)
    lower = type(one)(one.positions.float(), one.cell.float(), one.species.to(torch.uint8))
    exact = type(one)(lower.positions.double(), lower.cell.double(), one.species)
    for method in ROUTES:
        found = lower.factor(method=method)
        assert found.partials.dtype == torch.float32
        # Sums are in float64; only the result is rounded.
        assert_same(found.partials.double(), exact.factor(method=method).partials, 1e-5)


def test_normalisations():
    one = system("triclinic", 24, (14, 8, 8))
    found = one.factor()
    filled = found.counts > 0
    codes = torch.unique(one.species, return_inverse=True)[1]
    sums, counts = rk.structure.reference.shell_sums(
        one.positions @ torch.linalg.inv(one.cell), codes, one.cell, 2, 0.2, 25
    )
    sizes = torch.bincount(codes).double()
    products = torch.stack([sizes[0] * sizes[0], sizes[0] * sizes[1], sizes[1] * sizes[1]]).sqrt()
    assert_same(found.ashcroft_langreth(), (sums / counts) / products.unsqueeze(1), BOUND)
    # ⟨|Σ b_j e^{ikr}|²⟩ / N = Σ c b² + ⟨b⟩² (S − 1)
    b = {8: 5.803, 14: 4.1507}
    weights = torch.tensor([b[int(s)] for s in one.species], dtype=torch.float64)
    pairs = torch.tensor([b[8] ** 2, 2 * b[8] * b[14], b[14] ** 2], dtype=torch.float64)
    total = (pairs.unsqueeze(1) * sums / counts).sum(0) / 24
    expected = 1.0 + (total - weights.square().mean()) / weights.mean() ** 2
    assert_same(found.weighted(b), expected, BOUND)
    assert_same(found.neutron(b), expected, BOUND)
    assert torch.allclose(found.neutron()[filled], found.neutron({8: 5.803, 14: 4.1491})[filled], atol=1e-3)
    f = {s: rk.structure.weights.form_factor(s, found.q) for s in (8, 14)}
    assert_same(found.xray(), found.weighted(f), 1e-12)
    assert float(rk.structure.weights.form_factor("Si", torch.zeros(1))) == pytest.approx(14.0, abs=0.01)
    first, *others = found.species
    share = float((one.species == first).double().mean())
    for wrong in (math.nan, math.inf, (share - 1.0) / share):
        with pytest.raises(ValueError, match="`amplitudes` must be finite and have a mean"):
            found.weighted({first: wrong} | dict.fromkeys(others, 1.0))
    for label in (0, -3):
        of_nothing = system(n_atoms=4, labels=(label, 8)).factor(method="direct")
        for total in (of_nothing.neutron, of_nothing.xray):
            with pytest.raises(ValueError, match=f"`species` must be atomic numbers.*got {label}"):
                total()
    with pytest.raises(ValueError, match="`amplitudes` must name every species"):
        found.weighted({8: 1.0})
    with pytest.raises(KeyError, match="no pair"):
        found[8, 11]
    with pytest.raises(ValueError, match="`species` must be atomic numbers"):
        system("triclinic", 4, (-1, 8)).factor().neutron()


def test_vectors_of_choice():
    one = system("triclinic")
    miller = torch.tensor([[1, 0, 0], [2, -1, 3], [-2, 1, -3], [0, 0, 7]])
    found = rk.structure.structure_factor_at(one.positions, one.cell, one.species, miller)
    k = 2 * math.pi * miller.double() @ torch.linalg.inv(one.cell).T
    assert torch.allclose(found.q, k.norm(dim=1)) and found.method == "direct"
    rho = {s: torch.exp(1j * (k @ one.positions[one.species == s].T)).sum(1) for s in (8, 11, 14)}
    for row, (a, b) in enumerate(found.pairs):
        wanted = 1 + 24 * (rho[a] * rho[b].conj()).real / 64 - (3.0 if a == b else 0.0)
        assert_same(found.partials[row], wanted, 1e-12)
    assert_same(found.partials[:, 1], found.partials[:, 2], 1e-12)
    positions, cells, species, offsets = batch([one, system("skewed", 5)], one.cell)
    both = rk.structure.structure_factor_at(positions, cells, species, miller, offsets)
    assert_same(both.partials[0], found.partials, 1e-12)
    assert both.q.shape == (2, 4)
    with pytest.raises(ValueError, match="`miller` must not hold the triplet 0, 0, 0"):
        rk.structure.structure_factor_at(one.positions, one.cell, one.species, torch.zeros(1, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"`miller` must have shape \(n_k, 3\)"):
        rk.structure.structure_factor_at(one.positions, one.cell, one.species, torch.ones(3, dtype=torch.int64))
    with pytest.raises(TypeError, match="`miller` must have dtype"):
        rk.structure.structure_factor_at(one.positions, one.cell, one.species, torch.ones(1, 3))


def test_no_vectors_and_vectors_beyond_32_bits():
    one = system("triclinic")
    arguments = (one.positions, one.cell, one.species)
    none = rk.structure.structure_factor_at(*arguments, torch.zeros((0, 3), dtype=torch.int64))
    assert none.partials.shape == (6, 0) and none.q.shape == none.counts.shape == (0,)
    positions, cells, species, offsets = batch([one, system("skewed", 5)], one.cell)
    both = rk.structure.structure_factor_at(positions, cells, species, torch.zeros((0, 3), dtype=torch.int32), offsets)
    assert both.partials.shape == (2, 6, 0) and both.q.shape == (2, 0)
    for far in (1 << 31, (1 << 32) + 1, -(1 << 31)):
        with pytest.raises(ValueError, match=f"`miller` must hold integers that fit in 32 bits, got {far}"):
            rk.structure.structure_factor_at(*arguments, torch.tensor([[1, 0, 0], [0, far, 1]]))


ONE = system("triclinic", 6)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"positions": [[0.0, 0, 0]]}, TypeError, "`positions` must be a torch.Tensor"),
        ({"positions": ONE.positions[:, :2]}, ValueError, r"`positions` must have shape \(n_atoms, 3\), got \(6, 2\)"),
        ({"positions": ONE.positions.long()}, TypeError, "`positions` must have dtype"),
        ({"positions": ONE.positions * torch.nan}, rk.errors.NonFiniteError, "`positions` holds NaN"),
        ({"positions": ONE.positions[:0], "species": ONE.species[:0]}, ValueError, "at least one atom"),
        ({"cell": ONE.cell[:2]}, ValueError, r"`cell` must have shape \(3, 3\), got \(2, 3\)"),
        ({"cell": ONE.cell * 0}, ValueError, "`cell` has a zero vector"),
        ({"cell": ONE.cell[[0, 0, 1]]}, ValueError, "`cell` of system 0 is singular"),
        ({"cell": ONE.cell * torch.inf}, rk.errors.NonFiniteError, "`cell` holds NaN or infinite"),
        ({"cell": ONE.cell.clone().requires_grad_()}, ValueError, "`cell` must not require a gradient"),
        ({"species": ONE.species[:3]}, ValueError, r"`species` must have shape \(6,\), got \(3,\)"),
        ({"species": ONE.species.double()}, TypeError, "`species` must hold integers, got torch.float64"),
        ({"species": [8] * 6}, TypeError, "`species` must be a torch.Tensor"),
        ({"q_max": 0.0}, ValueError, "`q_max` must be positive"),
        ({"q_max": "far"}, TypeError, "`q_max` must be a number"),
        ({"dq": -0.1}, ValueError, "`dq` must be positive"),
        ({"dq": 3.0}, ValueError, "`dq` must be at most `q_max`"),
        ({"method": "fast"}, ValueError, "`method` must be one of auto, grid, direct, sampled, got 'fast'"),
        ({"batch_ptr": torch.tensor([0, 7])}, ValueError, "`batch_ptr` must rise from 0 to the number of atoms 6"),
        ({"tolerance": 0.0}, ValueError, "`tolerance` must be positive"),
        ({"tolerance": 0.5}, ValueError, "`tolerance` must be below 0.1"),
        ({"max_memory": 0}, ValueError, "`max_memory` must be positive"),
        ({"per_shell": 0}, ValueError, "`per_shell` must be a positive whole number"),
        ({"per_shell": 2.5}, ValueError, "`per_shell` must be a positive whole number, got 2.5"),
        ({"max_vectors": float("inf")}, ValueError, "`max_vectors` must be a positive whole number"),
        ({"seed": 0.5}, TypeError, "`seed` must be an integer"),
        ({"seed": 2**64}, ValueError, "`seed` must fit in 64 bits"),
        ({"max_vectors": "all"}, ValueError, "`max_vectors` must be a positive whole number"),
    ],
)
def test_wrong_arguments_are_named(change, error, message):
    arguments = {"positions": ONE.positions, "cell": ONE.cell, "species": ONE.species, "q_max": 2.0, "dq": 0.5} | change
    with pytest.raises(error, match=message):
        rk.structure_factor(**arguments)


def test_without_finufft_the_grid_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(nufft, "finufft_missing", lambda: "finufft is not installed; pip install finufft")
    with pytest.raises(rk.errors.BackendUnavailableError, match=r"'grid'.*pip install finufft"):
        nufft._import("finufft", nufft.finufft_missing)
    assert "pip install cufinufft" in (nufft.cufinufft_missing() or "pip install cufinufft")


def test_importing_brings_no_optional_package():
    code = "import sys, rsa_kernels; sys.exit(any(m in sys.modules for m in ('finufft', 'periodictable', 'cufinufft')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
