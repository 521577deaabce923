"""Ring statistics of crystals, zeolites and glasses: counted independently, and by other packages."""

import contextlib
import io
import itertools
import json
from collections import Counter

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ring_cells import primitive_cell

import rsa_kernels as rk

STRUCTURES = (
    *("alpha_quartz", "beta_quartz", "alpha_cristobalite", "beta_cristobalite", "hp_tridymite", "coesite", "keatite"),
    *("zeolite_FAU", "zeolite_SOD", "zeolite_LTA"),
)
NETWORKS = ("na_silicate_5_10020.xyz", "sio2_glass_amorphouspy_3000.xyz", "sio2_glass_rmc_3000.xyz")
COMPARED = ("sio2_glass_amorphouspy_3000.xyz", "sio2_glass_rmc_3000.xyz", "sio2_jaxmd_3000_positions.txt")
CUTOFF = 2.2  # Å, Si–O, as in the reference data
SIZE = 12


def silicate(atoms):
    """Si–O bonds of a structure: arguments of `ring_statistics`, and the mask of Si."""
    neighbors = rk.neighbor_list(torch.tensor(atoms.positions), torch.tensor(np.array(atoms.cell)), True, CUTOFF)
    silicon, oxygen = (torch.tensor(atoms.numbers == number) for number in (14, 8))
    i, j = neighbors.edge_index
    bonded = (silicon[i] & oxygen[j]) | (oxygen[i] & silicon[j])
    return neighbors.edge_index[:, bonded], neighbors.unit_shifts[bonded], len(atoms), silicon


def of_sizes(tensor, digits=None):
    """Entries from size 3 on that are not zero, as in the reference data."""
    values = enumerate(tensor.tolist())
    return {str(n): x if digits is None else round(x, digits) for n, x in values if n > 2 and x}


def environments(edge_index, unit_shifts, n_atoms, silicon):
    """Everything the reference data says of a T atom, with the share of T atoms that are so."""
    arguments = edge_index, unit_shifts, n_atoms
    by_criterion = {
        criterion: rk.ring_statistics(*arguments, criterion, SIZE, silicon)
        for criterion in ("primitive", "king", "guttman")
    }
    sequences = rk.rings.coordination_sequence(*arguments, SIZE, silicon).tolist()
    symbols = rk.rings.vertex_symbols(*arguments, SIZE, silicon).strings()
    links = by_criterion["king"].links
    found = Counter()
    for node, (sequence, symbol) in enumerate(zip(sequences, symbols, strict=True)):
        described = [tuple(sequence), symbol, json.dumps(of_sizes(by_criterion["primitive"].per_node[node]))]
        for criterion, rows in (("king", links.angle_rows), ("guttman", links.rows)):
            rings, part = by_criterion[criterion], slice(int(rows[node]), int(rows[node + 1]))
            cycles = sorted(zip(rings.shortest[part].tolist(), rings.multiplicity[part].tolist(), strict=True))
            described.append(".".join(f"{size}_{count}" for size, count in cycles))
        found[tuple(described)] += 1
    return {described: count / len(symbols) for described, count in found.items()}


@pytest.fixture(scope="module")
def structures(shared):
    folder = shared / "data" / "structures"
    return folder, json.loads((folder / "rings_reference.json").read_text())["rings"]


def recorded(entry):
    total = sum(kind["multiplicity"] for kind in entry["computed"])
    found = Counter()
    for kind in entry["computed"]:
        described = (
            tuple(kind["coordination_sequence"]),
            kind["vertex_symbol"],
            json.dumps(kind["primitive_rings_per_T"]),
            kind["king_shortest_cycles_per_angle"],
            kind["guttman_shortest_cycles_per_bond"],
        )
        found[described] += kind["multiplicity"] / total
    return found


def test_every_reference_structure_is_tested(structures):
    assert set(structures[1]) == set(STRUCTURES)


@pytest.mark.parametrize("name", STRUCTURES)
def test_crystals_and_zeolites(structures, name):
    """From the cell of the file, from a single primitive cell, and from a supercell of that."""
    folder, entries = structures
    atoms = ase.io.read(folder / f"{name}.cif")
    wanted = pytest.approx(recorded(entries[name]))
    assert environments(*silicate(atoms)) == wanted
    primitive = primitive_cell(atoms)
    smaller = {"beta_cristobalite": 4, "coesite": 2, "zeolite_FAU": 4, "zeolite_SOD": 2}.get(name, 1)
    assert len(atoms) == smaller * len(primitive)
    assert environments(*silicate(primitive)) == wanted
    if len(primitive) < 50:
        assert environments(*silicate(primitive.repeat((2, 1, 3)))) == wanted


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(shared, name):
    folder = shared / "data" / "networks"
    wanted = json.loads((folder / "networks_rings.json").read_text())["networks"][name]
    *arguments, silicon = silicate(ase.io.read(folder / name))
    primitive, king, guttman = (
        rk.ring_statistics(*arguments, criterion, SIZE, silicon) for criterion in ("primitive", "king", "guttman")
    )
    n_nodes = wanted["n_nodes"]
    degrees = torch.bincount(primitive.links.degrees)
    assert {str(degree): count for degree, count in enumerate(degrees.tolist()) if count} == wanted["T_degree"]
    assert of_sizes(primitive.counts) == wanted["primitive_distinct_rings_total"]
    assert of_sizes(primitive.counts / n_nodes, 6) == wanted["primitive_distinct_rings_per_T"]
    assert of_sizes(primitive.mean, 5) == wanted["primitive_rings_through_a_T_mean"]
    assert of_sizes(primitive.P_N, 5) == wanted["primitive_PN_fraction_of_T_in_a_ring"]
    assert of_sizes(king.shortest_counts) == wanted["king_shortest_ring_size_per_angle_count"]
    assert of_sizes(guttman.shortest_counts) == wanted["guttman_shortest_ring_size_per_bond_end_count"]
    sequence = rk.rings.coordination_sequence(*arguments, 8, silicon).to(torch.float64).mean(0)
    assert [round(x, 4) for x in sequence.tolist()] == wanted["mean_coordination_sequence_1_to_8"]


@pytest.fixture(scope="module", params=COMPARED)
def compared(request, shared):
    path = shared / "data" / "networks" / request.param
    if path.suffix == ".xyz":
        return ase.io.read(path)
    return Atoms("SiO2" * 1000, positions=np.loadtxt(path), cell=[35.660930663857577] * 3, pbc=True)


def of_atoms(atoms, criterion):
    """Rings of the net of all atoms, Si–O bonds its links, by number of atoms."""
    *arguments, _ = silicate(atoms)
    counts = rk.ring_statistics(*arguments, criterion, 2 * SIZE).counts.tolist()
    return {size: count for size, count in enumerate(counts) if count}


def test_primitive_rings_are_those_of_matscipy(compared):
    rings = pytest.importorskip("matscipy.rings")
    counts = rings.ring_statistics(compared, {("Si", "O"): CUTOFF}, maxlength=2 * SIZE + 1)
    assert {size: count for size, count in enumerate(counts.tolist()) if count} == of_atoms(compared, "primitive")


@pytest.mark.parametrize("criterion", ["king", "guttman"])
def test_king_and_guttman_rings_are_those_of_sovapy(compared, criterion):
    sovapy = pytest.importorskip("sovapy.computation.rings")

    class Network:
        num_total, symbols = len(compared), compared.get_chemical_symbols()
        bonds = [[] for _ in range(num_total)]

    for i, j in silicate(compared)[0].T.tolist():
        Network.bonds[i].append(j)
    kind = getattr(sovapy.RINGs.RingType, criterion.upper())
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        found = sovapy.RINGs(Network).calculate(kind)
    assert Counter(len(ring.indexes) for ring in found) == of_atoms(compared, criterion)


@pytest.mark.parametrize("criterion", ["king", "guttman", "primitive"])
def test_a_ring_of_n_nodes_is_one_of_2n_atoms(compared, criterion):
    """Ring by ring, where no O of a ring is bonded to three Si, or to two that another O links as well."""
    edge_index, unit_shifts, n_atoms, silicon = silicate(compared)
    around = {}
    for i, j, shift in zip(*edge_index.tolist(), unit_shifts.tolist(), strict=True):
        around.setdefault(i, []).append((j, shift))
    linking = Counter()
    for oxygen in (~silicon).nonzero().flatten().tolist():
        for (a, s), (b, t) in itertools.permutations(around.get(oxygen, []), 2):
            linking[(a, b, *(y - x for x, y in zip(s, t, strict=True)))] += 1 if len(around[oxygen]) == 2 else 2

    def plain(ring, shifts):
        """Whether a ring of Si passes only such O."""
        steps = zip(ring, ring[1:] + ring[:1], shifts, shifts[1:] + shifts[:1], strict=True)
        return all(linking[(a, b, *(y - x for x, y in zip(s, t, strict=True)))] == 1 for a, b, s, t in steps)

    nodes = rk.ring_statistics(edge_index, unit_shifts, n_atoms, criterion, SIZE, silicon)
    atoms = rk.ring_statistics(edge_index, unit_shifts, n_atoms, criterion, 2 * SIZE)
    assert atoms.counts[5::2].sum() == 0
    compared_rings = 0
    for size in range(3, SIZE + 1):
        first = (~silicon[atoms.members(2 * size)[:, :1]]).long() + torch.arange(0, 2 * size, 2)  # the Si
        of_atoms = atoms.members(2 * size).gather(1, first)
        cells = atoms.member_shifts(2 * size).gather(1, first[..., None].expand(-1, -1, 3))
        found = [
            Counter(tuple(sorted(r)) for r, s in zip(rings.tolist(), shifts.tolist(), strict=True) if plain(r, s))
            for rings, shifts in ((of_atoms, cells), (nodes.members(size), nodes.member_shifts(size)))
        ]
        assert found[0] == found[1]
        compared_rings += found[0].total()
    assert compared_rings > 0.4 * int(nodes.counts.sum())
