"""Bond networks for the tests of ring statistics, and comparison with the reference."""

import random
from itertools import product

import torch

import rsa_kernels as rk
from rsa_kernels.rings import reference


def bonds(*rows):
    """Bond list from rows (i, j) or (i, j, x, y, z)."""
    full = [(*row, 0, 0, 0)[:5] for row in rows]
    table = torch.tensor(full, dtype=torch.int64).reshape(-1, 5)
    return table[:, :2].T.contiguous(), table[:, 2:].to(torch.int32)


def supercell(edge_index, unit_shifts, n_atoms, repeats):
    """Repeat a network; atom a of cell (x, y, z) gets the number ((x·ny + y)·nz + z)·n_atoms + a."""
    rows = []
    for cell in product(*map(range, repeats)):
        for (i, j), shift in zip(edge_index.T.tolist(), unit_shifts.tolist(), strict=True):
            moved = [c + s for c, s in zip(cell, shift, strict=True)]
            other = [m % n for m, n in zip(moved, repeats, strict=True)]
            wraps = [m // n for m, n in zip(moved, repeats, strict=True)]
            rows.append((number(cell, repeats) * n_atoms + i, number(other, repeats) * n_atoms + j, *wraps))
    total = n_atoms * repeats[0] * repeats[1] * repeats[2]
    return *bonds(*rows), total


def number(cell, repeats):
    """Number of a cell of a supercell."""
    return (cell[0] * repeats[1] + cell[1]) * repeats[2] + cell[2]


def renumbered(edge_index, unit_shifts, order, cells):
    """Atom a becomes order[a] and is represented by its image in cell cells[a]."""
    i, j = edge_index
    return torch.stack((order[i], order[j])), unit_shifts + (cells[i] - cells[j]).to(unit_shifts.dtype)


def random_network(generator: random.Random):
    """A random periodic network, listed half, full or mixed, with repeated bonds; nodes all, some or none.

    Returns also a largest size for which the definition, exponential in it, is quick."""
    n_atoms = generator.randint(1, 9)
    periodic = generator.choice([0, 0, 1, 2, 3])
    degree = generator.choice([1.5, 2.0, 2.5] if periodic > 1 else [1.5, 2.5, 3.5])
    found = set()
    for _ in range(int(degree * n_atoms)):
        i, j = generator.randrange(n_atoms), generator.randrange(n_atoms)
        shift = [generator.choice([-1, 0, 0, 1]) if axis < periodic else 0 for axis in range(3)]
        if i != j or any(shift):
            found.add((i, j, *shift))
    listed = []
    for i, j, *shift in sorted(found):
        both = [(i, j, *shift), (j, i, *[-s for s in shift])]
        listed += generator.choice([both, both[:1], both[1:], both + both[:1]])
    generator.shuffle(listed)
    chosen = generator.choice([None, None, [a for a in range(n_atoms) if generator.random() < 0.6]])
    network = bonds(*listed)
    densest = max(map(len, reference.net_of(*network, n_atoms, chosen)[0]), default=0)
    max_size = generator.choice([3, 7] if densest < 5 else [3, 5] if densest < 8 else [3, 4])
    return *network, n_atoms, chosen, max_size


def assert_equals_reference(edge_index, unit_shifts, n_atoms, criterion, max_size, chosen=None):
    """Every number and every ring of the kernel against the definition."""
    nodes = None if chosen is None else torch.tensor(chosen, dtype=torch.int64)
    rings = rk.ring_statistics(edge_index, unit_shifts, n_atoms, criterion, max_size, nodes)
    wanted = reference.ring_statistics(edge_index, unit_shifts, n_atoms, criterion, max_size, chosen)
    atoms = list(range(n_atoms)) if chosen is None else chosen
    assert rings.nodes.tolist() == atoms
    assert rings.counts.tolist() == [wanted.counts[size] for size in range(max_size + 1)]
    assert rings.per_node.tolist() == [
        [wanted.per_node[node, size] for size in range(max_size + 1)] for node in range(len(atoms))
    ]
    index = {atom: node for node, atom in enumerate(atoms)}
    found = [
        reference.canonical([(index[a], tuple(s)) for a, s in zip(ring.tolist(), shifts.tolist(), strict=True)])
        for size in range(3, max_size + 1)
        for ring, shifts in zip(rings.members(size), rings.member_shifts(size), strict=True)
    ]
    assert len(found) == len(set(found))
    assert set(found) == wanted.rings
    if criterion == "primitive":
        assert rings.shortest is None
        return
    ends = [(end[0], tuple(end[1:])) for end in rings.links.ends.tolist()]
    if criterion == "king":
        parts = [(node, frozenset((ends[a], ends[b]))) for node, a, b in rings.angles.tolist()]
    else:
        parts = list(zip(rings.links.owners().tolist(), ends, strict=True))
    assert len(set(parts)) == len(parts) and set(wanted.shortest) <= set(parts)
    assert list(zip(rings.shortest.tolist(), rings.multiplicity.tolist(), strict=True)) == [
        wanted.shortest.get(part, (0, 0)) for part in parts
    ]
    assert rings.shortest_counts.tolist() == torch.bincount(rings.shortest, minlength=max_size + 1).tolist()
