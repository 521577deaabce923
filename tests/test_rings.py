"""Ring statistics: nets with known rings, the definition on random nets, and what must not change a count."""

import random

import pytest
import torch
from native_settings import threads
from ring_systems import assert_equals_reference, bonds, number, random_network, renumbered, supercell

import rsa_kernels as rk
from rsa_kernels.rings import reference

CRITERIA = ("king", "guttman", "primitive")
pytestmark = pytest.mark.usefixtures("one_thread")


def counts(network, n_atoms, criterion, max_size=12, **more):
    rings = rk.ring_statistics(*network, n_atoms, criterion, max_size, **more)
    return {size: count for size, count in enumerate(rings.counts.tolist()) if count}


CUBE = bonds(*((a, a | bit) for a in range(8) for bit in (1, 2, 4) if not a & bit))
CHAIN = bonds((0, 1), (1, 0, 1, 0, 0))
SQUARE = bonds((0, 0, 1, 0, 0), (0, 0, 0, 1, 0))
SIMPLE_CUBIC = bonds((0, 0, 1, 0, 0), (0, 0, 0, 1, 0), (0, 0, 0, 0, 1))
GRAPHENE = bonds((0, 1), (0, 1, -1, 0, 0), (0, 1, 0, -1, 0))
DIAMOND = bonds((0, 1), (0, 1, -1, 0, 0), (0, 1, 0, -1, 0), (0, 1, 0, 0, -1))
# Each by hand. A cube has six faces, and four hexagons around its diagonals without a shortcut. In the simple cubic
# net both are there per node three and four times; the straight angle of King closes around 2 x 1 rectangles.
KNOWN = [
    ("cube", CUBE, 8, {"king": {4: 6}, "guttman": {4: 6}, "primitive": {4: 6, 6: 4}}),
    ("periodic chain", CHAIN, 2, {"king": {}, "guttman": {}, "primitive": {}}),
    ("chain of one atom", bonds((0, 0, 1, 0, 0)), 1, {"king": {}, "guttman": {}, "primitive": {}}),
    ("square", SQUARE, 1, {"king": {4: 1, 6: 2}, "guttman": {4: 1}, "primitive": {4: 1}}),
    ("simple cubic", SIMPLE_CUBIC, 1, {"king": {4: 3, 6: 6}, "guttman": {4: 3}, "primitive": {4: 3, 6: 4}}),
    ("graphene", GRAPHENE, 2, {"king": {6: 1}, "guttman": {6: 1}, "primitive": {6: 1}}),
    ("diamond", DIAMOND, 2, {"king": {6: 4}, "guttman": {6: 4}, "primitive": {6: 4}}),
    ("triangle", bonds((0, 1), (1, 2), (2, 0)), 3, {"king": {3: 1}, "guttman": {3: 1}, "primitive": {3: 1}}),
    ("ring of 11", bonds(*((a, (a + 1) % 11) for a in range(11))), 11, {key: {11: 1} for key in CRITERIA}),
    ("ring of 12", bonds(*((a, (a + 1) % 12) for a in range(12))), 12, {key: {12: 1} for key in CRITERIA}),
    ("ring of 13", bonds(*((a, (a + 1) % 13) for a in range(13))), 13, {key: {} for key in CRITERIA}),
]


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("network, n_atoms, found", [row[1:] for row in KNOWN], ids=[row[0] for row in KNOWN])
def test_nets_known_by_hand(network, n_atoms, found, criterion):
    assert counts(network, n_atoms, criterion) == found[criterion]


def test_graphene_node_by_node():
    rings = rk.ring_statistics(*GRAPHENE, 2, "primitive", 8)
    assert rings.per_node[:, 6].tolist() == [3, 3] and int(rings.per_node.sum()) == 6
    assert rings.mean[6] == 3.0 and rings.P_N[6] == 1.0 and rings.P_N[5] == 0.0
    (ring,), (shifts,) = rings.members(6).tolist(), rings.member_shifts(6).tolist()
    assert sorted(ring) == [0, 0, 0, 1, 1, 1] and shifts[0] == [0, 0, 0]
    assert len({(atom, *shift) for atom, shift in zip(ring, shifts, strict=True)}) == 6
    assert rk.rings.coordination_sequence(*GRAPHENE, 2, 5).tolist() == [[3, 6, 9, 12, 15]] * 2
    assert rk.rings.vertex_symbols(*GRAPHENE, 2).strings() == ["6.6.6"] * 2


def test_a_ring_that_spans_the_cell_counts_and_one_that_goes_around_does_not():
    # A hexagon over two cells: three bonds within a cell, three across its face, which cancel.
    spanning = bonds((0, 1), (1, 2, 1, 0, 0), (2, 3), (3, 4), (4, 5, -1, 0, 0), (5, 0))
    around = bonds((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0, 1, 0, 0))
    for criterion in CRITERIA:
        assert counts(spanning, 6, criterion) == {6: 1}
        assert counts(around, 6, criterion) == {}


@pytest.mark.parametrize("criterion", CRITERIA)
def test_one_three_and_fivefold_atoms(criterion):
    # Simple cubic 3 x 3 x 3 with a vacancy, a dangling atom and an extra bond: nodes of degree 1, 5, 6 and 7.
    edge_index, unit_shifts, n_atoms = supercell(*SIMPLE_CUBIC, 1, (3, 3, 3))
    kept = ((edge_index != 13).all(0)).nonzero().squeeze(1)
    extra, none = torch.tensor([[0, 1], [27, 17]]), torch.zeros(2, 3, dtype=torch.int32)
    network = torch.cat((edge_index[:, kept], extra), dim=1), torch.cat((unit_shifts[kept], none))
    rings = rk.ring_statistics(*network, n_atoms + 1, criterion, 6)
    assert {0, 1, 5, 6, 7} == set(rings.links.degrees.tolist())
    assert_equals_reference(*network, n_atoms + 1, criterion, 6)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_threefold_and_fivefold_nodes_of_a_silicate(criterion):
    # Si 0-3 in a square by O 4-7, O 8 across, a non-bridging O 9 and a threefold O 10.
    network = bonds(
        *((0, 4), (4, 1), (1, 5), (5, 2), (2, 6), (6, 3), (3, 7), (7, 0), (0, 8), (8, 2), (0, 9)),
        *((0, 10), (1, 10), (10, 3, 0, 0, 1)),
    )
    assert_equals_reference(*network, 11, criterion, 8, [0, 1, 2, 3])
    assert_equals_reference(*network, 11, criterion, 12)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_edge_sharing_is_a_ring_of_two_and_one_link(criterion):
    # Si 0 and 1 share O 2, 3 and 4; a square of Si 0, 1, 5, 6 runs through the same link.
    network = bonds((0, 2), (2, 1), (0, 3), (3, 1), (0, 4), (4, 1), (1, 7), (7, 5), (5, 8), (8, 6), (6, 9), (9, 0))
    chosen = torch.tensor([0, 1, 5, 6])
    rings = rk.ring_statistics(*network, 10, criterion, 12, chosen, members=True)
    assert {n: c for n, c in enumerate(rings.counts.tolist()) if c} == {2: 3, 4: 1}
    assert rings.per_node[:, 2].tolist() == [3, 3, 0, 0] and rings.per_node[:, 4].tolist() == [1, 1, 1, 1]
    assert rings.links.degrees.tolist() == [2, 2, 2, 2] and rings.links.bridges.max() == 3
    assert rings.members(2).tolist() == [[0, 1]] * 3 and rings.member_shifts(2).tolist() == [[[0, 0, 0]] * 2] * 3
    # Across a face the pair of an edge-sharing chain of one Si is its own neighbour.
    chain = bonds((0, 1), (1, 0, 1, 0, 0), (0, 2), (2, 0, 1, 0, 0))
    rings = rk.ring_statistics(*chain, 3, criterion, 6, torch.tensor([0]))
    assert rings.counts.tolist() == [0, 0, 1, 0, 0, 0, 0] and rings.per_node.tolist() == [[0, 0, 2, 0, 0, 0, 0]]
    assert rings.members(2).tolist() == [[0, 0]] and rings.member_shifts(2).abs().sum() == 1


def test_bonds_between_nodes_link_them_too():
    network = bonds((0, 1), (1, 2), (2, 3), (3, 0), (2, 4), (4, 0))  # 0-1-2 direct, 3 and 4 bridge 2 and 0
    rings = rk.ring_statistics(*network, 5, "primitive", 12, torch.tensor([True, True, True, False, False]))
    assert rings.counts.tolist()[:5] == [0, 0, 1, 1, 0] and sorted(rings.links.bridges.tolist()) == [0, 0, 0, 0, 2, 2]


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("n_atoms", [0, 1, 3])
def test_nothing_to_count(criterion, n_atoms):
    rings = rk.ring_statistics(*bonds(), n_atoms, criterion, 5, members=True)
    assert rings.counts.tolist() == [0] * 6 and rings.per_node.shape == (n_atoms, 6)
    assert rings.angles.shape == (0, 3) and rings.members(4).shape == (0, 4) and rings.members(2).shape == (0, 2)
    assert rings.member_shifts(4).shape == (0, 4, 3)
    assert bool(rings.mean.isnan().all()) == (n_atoms == 0)
    assert rk.rings.coordination_sequence(*bonds(), n_atoms, 4).tolist() == [[0] * 4] * n_atoms
    assert rk.rings.vertex_symbols(*bonds(), n_atoms).strings() == [""] * n_atoms
    none = torch.zeros(n_atoms, dtype=torch.bool)
    assert rk.ring_statistics(*bonds(), n_atoms, criterion, 5, none).nodes.numel() == 0


@pytest.mark.parametrize("seed", range(60))
def test_random_nets_equal_the_definition(seed):
    edge_index, unit_shifts, n_atoms, chosen, max_size = random_network(random.Random(seed))
    for criterion in CRITERIA:
        assert_equals_reference(edge_index, unit_shifts, n_atoms, criterion, max_size, chosen)


@pytest.mark.parametrize("seed", range(6))
def test_shells_and_vertex_symbols_equal_the_definition(seed):
    edge_index, unit_shifts, n_atoms, chosen, max_size = random_network(random.Random(100 + seed))
    nodes = None if chosen is None else torch.tensor(chosen, dtype=torch.int64)
    net, _ = reference.net_of(edge_index, unit_shifts, n_atoms, chosen)
    wanted = []
    for node in range(len(net)):
        found = list(reference.distances(net, node, 4).values())
        wanted.append([found.count(k) for k in range(1, 5)])
    assert rk.rings.coordination_sequence(edge_index, unit_shifts, n_atoms, 4, nodes).tolist() == wanted
    symbols = rk.rings.vertex_symbols(edge_index, unit_shifts, n_atoms, max_size, nodes)
    by_angle = {}
    for ring in reference.ring_statistics(edge_index, unit_shifts, n_atoms, "primitive", max_size, chosen).rings:
        for angle in reference.angles_of(ring):
            by_angle.setdefault(angle, []).append(len(ring))
    ends = [(end[0], tuple(end[1:])) for end in symbols.links.ends.tolist()]
    angles = [(node, frozenset((ends[a], ends[b]))) for node, a, b in symbols.links.angles().tolist()]
    sizes = [min(by_angle.get(angle, [0])) for angle in angles]
    assert symbols.size.tolist() == sizes
    assert symbols.count.tolist() == [by_angle.get(a, []).count(n) for a, n in zip(angles, sizes, strict=True)]


def test_vertex_symbols_are_spelled_as_in_the_tables():
    star = bonds((0, 1), (0, 2), (1, 2), (0, 3), (3, 4), (4, 1), (4, 0))
    assert rk.rings.vertex_symbols(*star, 5).strings() == ["3.3.3.*.*.*", "3.3.*", "3", "3", "3.3.*"]


@pytest.mark.parametrize("seed", range(300, 310))
def test_guttman_rings_are_king_rings_and_primitive(seed):
    *network, n_atoms, chosen, max_size = random_network(random.Random(seed))
    nodes = None if chosen is None else torch.tensor(chosen, dtype=torch.int64)
    found = {}
    for criterion in CRITERIA:
        rings = rk.ring_statistics(*network, n_atoms, criterion, max_size, nodes, members=True)
        found[criterion] = {
            reference.canonical([(atom, tuple(s)) for atom, s in zip(ring, shifts, strict=True)])
            for size in range(3, max_size + 1)
            for ring, shifts in zip(rings.members(size).tolist(), rings.member_shifts(size).tolist(), strict=True)
        }
    assert found["guttman"] <= found["king"] & found["primitive"]


# Invariance, on a net with every kind of ring: 2 x 2 x 1 diamond with a bond cut, one added and one atom taken away.
def disordered():
    edge_index, unit_shifts, n_atoms = supercell(*DIAMOND, 2, (3, 2, 2))
    kept = [k for k in range(edge_index.shape[1]) if k not in (5, 17) and 20 not in edge_index[:, k].tolist()]
    extra = bonds((0, 4), (3, 14, 0, 0, 1))
    return torch.cat((edge_index[:, kept], extra[0]), 1), torch.cat((unit_shifts[kept], extra[1])), n_atoms


@pytest.mark.parametrize("criterion", CRITERIA)
def test_representation_does_not_matter(criterion):
    edge_index, unit_shifts, n_atoms = disordered()
    rings = rk.ring_statistics(edge_index, unit_shifts, n_atoms, criterion, 9)
    assert (rings.counts > 0).sum() >= 3
    generator = torch.Generator().manual_seed(1)
    order = torch.randperm(n_atoms, generator=generator)
    cells = torch.randint(-3, 4, (n_atoms, 3), generator=generator)
    lattice = torch.tensor([[1, 2, 0], [0, 1, -1], [0, 0, 1]])  # unimodular: other vectors of the same lattice
    doubled = torch.cat((edge_index, edge_index.flip(0)), 1), torch.cat((unit_shifts, -unit_shifts))
    mixed = torch.randperm(doubled[0].shape[1], generator=generator)
    for changed in (
        renumbered(edge_index, unit_shifts, torch.arange(n_atoms), cells),
        (edge_index, (unit_shifts.long() @ lattice)),
        doubled,
        (doubled[0][:, mixed], doubled[1][mixed]),
        (edge_index.flip(0), -unit_shifts),
        (edge_index.T.contiguous().T, unit_shifts.T.contiguous().T),
    ):
        same = rk.ring_statistics(*changed, n_atoms, criterion, 9)
        assert torch.equal(same.counts, rings.counts) and torch.equal(same.per_node, rings.per_node)
    same = rk.ring_statistics(*renumbered(edge_index, unit_shifts, order, cells), n_atoms, criterion, 9)
    assert torch.equal(same.counts, rings.counts) and torch.equal(same.per_node[order], rings.per_node)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_supercell_holds_as_many_times_the_rings(criterion):
    small = disordered()
    repeats = (1, 3, 2)
    rings = rk.ring_statistics(*small, criterion, 8)
    large = rk.ring_statistics(*supercell(*small, repeats), criterion, 8)
    assert torch.equal(large.counts, 6 * rings.counts)
    assert torch.equal(large.per_node, rings.per_node.repeat(6, 1))
    assert number((0, 2, 1), repeats) == 5
    if criterion != "primitive":
        assert torch.equal(large.shortest_counts, 6 * rings.shortest_counts)


def test_smaller_sizes_do_not_depend_on_the_largest():
    network = disordered()
    for criterion in CRITERIA:
        whole = rk.ring_statistics(*network, criterion, 10)
        for max_size in range(3, 10):
            part = rk.ring_statistics(*network, criterion, max_size)
            assert torch.equal(part.per_node, whole.per_node[:, : max_size + 1])
            assert torch.equal(part.members(3), whole.members(3))


@pytest.mark.parametrize("criterion", CRITERIA)
def test_threads_change_no_bit(criterion):
    network = supercell(*disordered(), (4, 4, 3))
    results = []
    for count in (1, 2, 3):
        with threads(count):
            rings = rk.ring_statistics(*network, criterion, 8, members=True)
        results.append(rings)
    for rings in results[1:]:
        assert torch.equal(rings.per_node, results[0].per_node)
        for size in range(2, 9):
            assert torch.equal(rings.members(size), results[0].members(size))
            assert torch.equal(rings.member_shifts(size), results[0].member_shifts(size))
        if criterion != "primitive":
            assert torch.equal(rings.shortest, results[0].shortest)
            assert torch.equal(rings.multiplicity, results[0].multiplicity)


def test_links_of_many_atoms_do_not_depend_on_threads():
    edge_index, unit_shifts, n_atoms = supercell(*DIAMOND, 2, (21, 21, 20))  # enough for threads to be used
    order = torch.randperm(edge_index.shape[1], generator=torch.Generator().manual_seed(0))
    built = []
    for count in (1, 2):
        with threads(count):
            links = rk.rings.links.build(
                edge_index[:, order], unit_shifts[order], n_atoms, torch.arange(n_atoms) % 2 == 0
            )
        built.append((links.nodes, *links.net, links.bridges))
    assert n_atoms > 16384 and built[0][0].numel() == n_atoms // 2 and set(links.degrees.tolist()) == {12}
    assert all(torch.equal(one, other) for one, other in zip(*built, strict=True))


def test_members_are_closed_paths_of_bonds():
    edge_index, unit_shifts, n_atoms = disordered()
    rings = rk.ring_statistics(edge_index, unit_shifts, n_atoms, "king", 9)
    net, _ = reference.net_of(edge_index, unit_shifts, n_atoms)
    for size in range(3, 10):
        atoms, cells = rings.members(size), rings.member_shifts(size)
        assert atoms.shape == (rings.counts[size], size) and cells.shape == (*atoms.shape, 3)
        for ring, shifts in zip(atoms.tolist(), cells.tolist(), strict=True):
            path = [(atom, tuple(shift)) for atom, shift in zip(ring, shifts, strict=True)]
            assert len(set(path)) == size
            assert all(path[k] in reference.neighbors(net, path[k - 1]) for k in range(size))


def test_a_node_of_many_links():
    # 70 triangles at one node: more than 64 sources, more angles than a node of a network ever has.
    rows = [(0, 1 + k) for k in range(140)] + [(1 + 2 * k, 2 + 2 * k) for k in range(70)]
    rings = rk.ring_statistics(*bonds(*rows), 141, "king", 7)
    assert rings.counts.tolist() == [0, 0, 0, 70, 0, 0, 0, 0]
    assert rings.per_node[0, 3] == 70 and rings.shortest_counts.tolist()[:4] == [9660, 0, 0, 210]
    assert counts(bonds(*rows), 141, "primitive", 7) == {3: 70} == counts(bonds(*rows), 141, "guttman", 7)


def test_more_than_64_sources():
    # To size 16 shortcuts are looked for from the 128 nodes within 4 links: two words of a mask.
    assert counts(SIMPLE_CUBIC, 1, "primitive", 16) == {4: 3, 6: 4}
    steps = [(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if (x, y, z) > (0, 0, 0)]
    for criterion in CRITERIA:  # every cell linked to its 26 neighbours
        assert_equals_reference(*bonds(*((0, 0, *step) for step in steps)), 1, criterion, 4)
