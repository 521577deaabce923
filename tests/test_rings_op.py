"""Ring statistics: every wrong argument once, what is refused for its size, and the registered ops."""

import pytest
import torch
from ring_systems import bonds

import rsa_kernels as rk
from rsa_kernels._library import REGISTRY
from rsa_kernels.errors import CapacityError
from rsa_kernels.rings import kernels, op

EDGES, SHIFTS = bonds((0, 1), (1, 2), (2, 3), (3, 0), (0, 2, 1, 0, 0), (2, 1, 0, 1, 0))


def statistics(edge_index=EDGES, unit_shifts=SHIFTS, n_atoms=4, **more):
    return rk.ring_statistics(edge_index, unit_shifts, n_atoms, **more)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"edge_index": EDGES.tolist()}, TypeError, "`edge_index` must be a torch.Tensor, got list"),
        ({"edge_index": EDGES.int()}, TypeError, "`edge_index` must have dtype torch.int64, got torch.int32"),
        ({"edge_index": EDGES.T}, ValueError, r"`edge_index` must have shape \(2, n_bonds\), got \(6, 2\)"),
        ({"edge_index": EDGES + 1}, ValueError, r"`edge_index` must name atoms 0 to 3, got \(3, 4\) as bond 2"),
        ({"edge_index": EDGES - 1}, ValueError, r"`edge_index` must name atoms 0 to 3, got \(-1, 0\) as bond 0"),
        (
            {"edge_index": torch.tensor([[0, 2, 1], [1, 2, 1]]), "unit_shifts": SHIFTS[:3]},
            ValueError,
            r"`edge_index` must not bond an atom to itself, got atom 2 with shift \(0, 0, 0\)",
        ),
        ({"unit_shifts": SHIFTS.double()}, TypeError, "`unit_shifts` must have dtype torch.int32 or torch.int64"),
        ({"unit_shifts": SHIFTS[1:]}, ValueError, r"`unit_shifts` must have shape \(6, 3\), got \(5, 3\)"),
        ({"unit_shifts": SHIFTS << 21}, ValueError, "`unit_shifts` must lie within ±1048576 cells, got 2097152"),
        ({"unit_shifts": SHIFTS.long() - 2**40}, ValueError, "must lie within ±1048576 cells, got -1099511627776"),
        ({"unit_shifts": 0 * SHIFTS - 2**31}, ValueError, "must lie within ±1048576 cells, got -2147483648"),
        ({"unit_shifts": SHIFTS.to("meta")}, ValueError, "`unit_shifts` must be on cpu like the other arguments, got"),
        ({"nodes": torch.tensor([0, 1], device="meta")}, ValueError, "`nodes` must be on cpu like the other arguments"),
        ({"n_atoms": 4.0}, TypeError, "`n_atoms` must be an int, got 4.0"),
        ({"n_atoms": -1}, ValueError, "`n_atoms` must be from 0 to 2147483647, got -1"),
        ({"criterion": "shortest"}, ValueError, "`criterion` must be one of 'king', 'guttman', 'primitive'"),
        ({"max_size": True}, TypeError, "`max_size` must be an int, got True"),
        ({"max_size": 2}, ValueError, "`max_size` must be from 3 to 256, got 2"),
        ({"max_size": 257}, ValueError, "`max_size` must be from 3 to 256, got 257"),
        ({"nodes": [0, 1]}, TypeError, "`nodes` must be a torch.Tensor, got list"),
        ({"nodes": torch.tensor([0, 1]).int()}, TypeError, "`nodes` must have dtype torch.bool or torch.int64"),
        ({"nodes": torch.tensor([True])}, ValueError, r"`nodes` must have shape \(4,\), got \(1,\)"),
        ({"nodes": torch.tensor([[0, 1]])}, ValueError, r"`nodes` must have shape \(n_nodes,\), got \(1, 2\)"),
        ({"nodes": torch.tensor([1, 0])}, ValueError, "`nodes` must be strictly ascending atom indices from 0 to 3"),
        ({"nodes": torch.tensor([1, 1])}, ValueError, "`nodes` must be strictly ascending atom indices from 0 to 3"),
        ({"nodes": torch.tensor([1, 4])}, ValueError, "`nodes` must be strictly ascending atom indices from 0 to 3"),
        ({"nodes": torch.tensor([-1, 2])}, ValueError, "`nodes` must be strictly ascending atom indices from 0 to 3"),
    ],
)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        statistics(**arguments)


def test_wrong_arguments_of_the_others():
    with pytest.raises(ValueError, match="`shells` must be from 1 to 256, got 0"):
        rk.rings.coordination_sequence(EDGES, SHIFTS, 4, 0)
    with pytest.raises(ValueError, match="`max_size` must be from 3 to 256, got 300"):
        rk.rings.vertex_symbols(EDGES, SHIFTS, 4, 300)
    rings = statistics(max_size=6)
    for size in (1, 7):
        with pytest.raises(ValueError, match=f"`size` must be from 2 to 6, got {size}"):
            rings.members(size)
    with pytest.raises(TypeError, match=r"`size` must be an int, got 3\.0"):
        rings.member_shifts(3.0)


def test_a_ball_beyond_reason_is_refused():
    # Every cell linked to the 124 around it: a ball of k links is a cube of 4 k + 1 cells.
    steps = torch.cartesian_prod(*[torch.arange(-2, 3)] * 3)
    steps = steps[(steps != 0).any(1)]
    edge_index = torch.zeros(2, len(steps), dtype=torch.int64)
    assert rk.rings.coordination_sequence(edge_index, steps, 1, 8).sum() == 33**3 - 1
    with pytest.raises(CapacityError, match="rings or shells up to 40 reach over more nodes of this net than there is"):
        rk.rings.coordination_sequence(edge_index, steps, 1, 40)


def test_registered_ops(one_thread):
    is_node = torch.tensor([1, 1, 1, 0], dtype=torch.uint8)
    arguments = {"ring_links": (EDGES, SHIFTS, is_node)}
    links = rk.rings.links.build(EDGES, SHIFTS, 4, is_node.bool())
    by_angle, by_end = op.shortest(*links.net, 6)
    arguments["ring_shortest"] = (*links.net, 6)
    arguments["ring_count"] = (*links.net, by_angle, by_end, op.KING, 6)
    arguments["ring_members"] = (*links.net, by_angle, by_end, op.GUTTMAN, 6, 3)
    arguments["ring_smallest"] = (*links.net, 6)
    arguments["ring_shells"] = (*links.net, 4)
    assert set(arguments) == {name for name in REGISTRY if name.startswith("ring_")}
    for name, given in arguments.items():
        assert not REGISTRY[name].differentiable and set(REGISTRY[name].kernels) == {"cpu", "cuda"}
        torch.library.opcheck(REGISTRY[name].overload, given)


def test_searches_take_tensors_that_are_not_contiguous(one_thread):
    links = rk.rings.links.build(EDGES, SHIFTS, 4, None)
    rows, ends, back, angle_rows = links.net
    strided = (
        rows.repeat_interleave(2)[::2],
        ends.T.contiguous().T,
        back.repeat_interleave(3)[::3],
        angle_rows.repeat_interleave(2)[::2],
    )
    assert not any(part.is_contiguous() for part in strided)
    by_angle, by_end = op.shortest(*links.net, 6)
    assert torch.equal(op.shortest(*strided, 6)[0], by_angle)
    strided_known = by_angle.repeat_interleave(2)[::2], by_end.repeat_interleave(2)[::2]
    for criterion in op.CRITERIA.values():
        per_node, multiplicity = op.count(*links.net, by_angle, by_end, criterion, 6)
        again = op.count(*strided, *strided_known, criterion, 6)
        assert torch.equal(again[0], per_node) and torch.equal(again[1], multiplicity)
        nodes, shifts = op.members(*strided, *strided_known, criterion, 6, 3)
        assert torch.equal(nodes, op.members(*links.net, by_angle, by_end, criterion, 6, 3)[0])
        assert shifts.shape == (*nodes.shape, 3)


def test_results_carry_no_gradient():
    rings = statistics(max_size=6)
    assert not any(t.is_floating_point() or t.requires_grad for t in (rings.counts, rings.per_node))
    assert rings.mean.dtype == torch.float64 and not rings.mean.requires_grad


def test_room_agrees_with_the_library():
    scratch_bytes = rk._native.bind("rk_rings_scratch_bytes", "iiii")
    for nodes, ends, words, max_size in ((256, 2048, 2048, 12), (1, 1, 1, 3), (1000, 77, 9, 31), (1 << 20, 5, 5, 256)):
        room = kernels.Room(nodes, ends, words)
        assert room.scratch_bytes(max_size) == scratch_bytes(nodes, ends, words, max_size)
