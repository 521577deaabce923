"""Tables of pair functions: the promised error holds, for nasty functions too; what cannot be tabulated is refused."""

import dataclasses

import pytest
import torch
from pair_systems import TABLE

from rsa_kernels.pair import PairTable
from rsa_kernels.pair.table import BLOCKS, RECORD, locate
from rsa_kernels.units import COULOMB

pytestmark = pytest.mark.usefixtures("one_thread")

FLOOR = 1e-3  # eV, eV/Å: below this the error is absolute


def shik_like(charge, a, b, c, d, cutoff, width=0.2):
    """Buckingham with a repulsive core, and shifted Coulomb, switched off by exp(−w²/(r − cutoff)²)."""

    def function(r):
        short = a * torch.exp(-b * r) - c / r**6 + d / r**24
        coulomb = charge * COULOMB * (1 / r - 1 / cutoff + (r - cutoff) / cutoff**2)
        return (short + coulomb) * torch.exp(-(width**2) / (r - cutoff) ** 2)

    return function


def inner_cutoff(r):
    """A part with a smooth cutoff of its own inside the range: its derivatives are continuous, but large."""
    inside = (r < 8.0).to(r.dtype)
    return inside * torch.exp(-0.04 / (r - 8.0 - (1 - inside)) ** 2) * 50 * torch.exp(-r) - 2 / r


def quintic_switch(r):
    """Lennard-Jones switched off between 4.5 and 6.5 Å: the third derivative jumps twice inside the range."""
    s6 = (3.4 / r) ** 6
    t = ((r - 4.5) / 2.0).clamp(0.0, 1.0)
    return 0.04 * (s6 * s6 - s6) * (1 - t**3 * (10 - 15 * t + 6 * t * t))


# Name: function, r_min, cutoff.
NASTY = {
    "SHIK-like O-O": (shik_like(0.9, 1120.5, 2.9, 26.1, 16800.0, 10.0), 0.9, 10.0),
    "SHIK-like Si-O": (shik_like(-1.7, 23107.8, 5.1, 139.7, 66.0, 10.0), 0.9, 10.0),
    "SHIK-like Si-Si": (shik_like(3.1, 2797.9, 4.4, 0.0, 3423204.0, 10.0), 0.9, 10.0),
    "zero crossings": (lambda r: torch.sin(8 * r), 0.5, 9.0),
    "growing oscillation": (lambda r: r**3 * torch.cos(r * r), 0.5, 7.0),
    "beats around zero": (lambda r: 1e-2 * torch.sin(11 * r) * torch.sin(0.7 * r), 1.0, 12.0),
    "steep core": (lambda r: (1 / r) ** 12, 0.3, 8.0),
    "tiny everywhere": (lambda r: 1e-5 * torch.exp(-r) * torch.sin(5 * r), 0.5, 8.0),
    "huge": (lambda r: 1e8 * torch.exp(-3 * r), 0.5, 8.0),
    "narrow peak": (lambda r: 0.1 * torch.exp(-(((r - 3.3333) / 0.02) ** 2)), 1.0, 9.0),
    "smooth inner cutoff": (inner_cutoff, 1.0, 10.0),
    "quintic switch": (quintic_switch, 2.0, 6.5),
    "constant": (lambda r: torch.full_like(r, 0.25), 1.0, 5.0),
    "linear": (lambda r: 3.0 - r, 1.0, 5.0),
    "zero": (torch.zeros_like, 1.0, 5.0),
    "short range": (lambda r: torch.exp(-r), 4.0, 4.01),
    "long range": (lambda r: 1 / r, 1.0, 1000.0),
}


def table_of(function, r_min, cutoff, **options):
    return PairTable.from_functions((8,), {(8, 8): function}, r_min, cutoff, **options)


def read(table, r, first=8, second=8):
    """Energy and slope of a pair from the table's records."""
    kind = table.pair_index[table.species_of[first].long(), table.species_of[second].long()].long()
    interval, t, per_angstrom = locate(r, table.blocks, table.r_min, table.cutoff)
    d1, d2, d3, d4, d5, c0, *rest = table.coefficients[kind][interval].unbind(-1)
    assert not any(bool(unused.any()) for unused in rest)
    energy = c0 + t * (d1 + t * (d2 / 2 + t * (d3 / 3 + t * (d4 / 4 + t * d5 / 5))))
    return energy, (d1 + t * (d2 + t * (d3 + t * (d4 + t * d5)))) * per_angstrom


def largest_error(table, function, r):
    """Of energy and of slope, relative to the value or the floor."""
    r = r.requires_grad_()
    value = function(r)
    slope = torch.autograd.grad(value.sum(), r)[0] if value.requires_grad else torch.zeros_like(r)
    errors = [
        float(((ours - exact.detach()).abs() / exact.detach().abs().clamp(min=FLOOR)).max())
        for ours, exact in zip(read(table, r.detach()), (value, slope), strict=True)
    ]
    return max(errors)


# --- the tolerance holds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NASTY)
def test_tolerance_holds_everywhere(name):
    """On 200,000 random distances, and more where a function is switched off."""
    function, r_min, cutoff = NASTY[name]
    table = table_of(function, r_min, cutoff)
    generator = torch.Generator().manual_seed(0)
    spread = torch.rand(200_000, dtype=torch.float64, generator=generator)
    near_the_end = cutoff - (cutoff - r_min) * 0.05 * torch.rand(20_000, dtype=torch.float64, generator=generator) ** 4
    r = torch.cat([r_min + (cutoff - r_min) * spread, near_the_end])
    # A hair inside: at the cutoff itself the table is zero.
    r = r[(r >= r_min) & (r < cutoff * (1 - 1e-14))]
    assert largest_error(table, function, r) <= 1e-7


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-7, 1e-9])
def test_other_tolerances(tolerance):
    function, r_min, cutoff = NASTY["SHIK-like Si-O"]
    table = table_of(function, r_min, cutoff, tolerance=tolerance)
    r = r_min + (cutoff - r_min - 1e-9) * torch.rand(
        50_000, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    error = largest_error(table, function, r)
    # It holds, and the table is not refined without need: the error falls with about the fifth power of the interval,
    # and one block has to serve its worst place.
    assert 1e-4 * tolerance < error <= tolerance
    assert table.tolerance == tolerance


def test_finer_tables_are_longer():
    function, r_min, cutoff = NASTY["SHIK-like Si-O"]
    sizes = [table_of(function, r_min, cutoff, tolerance=t).n_intervals for t in (1e-3, 1e-5, 1e-7, 1e-9)]
    assert sizes == sorted(sizes) and sizes[2] < 1500


def test_energy_force_and_its_slope_are_continuous():
    """At every node, of all intervals and blocks, from both sides; slope is the derivative of the energy in use."""
    function, r_min, cutoff = NASTY["SHIK-like O-O"]
    table = table_of(function, r_min, cutoff)
    width = (cutoff - r_min) / BLOCKS
    for left, right, first_block, second_block in _neighbouring_records(table):
        h_left, h_right = (width / float(table.blocks[1, block]) for block in (first_block, second_block))
        d1, d2, d3, d4, d5, c0 = left[:6].tolist()
        e1, e2, _, _, _, f0 = right[:6].tolist()
        ends = [
            (c0 + d1 + d2 / 2 + d3 / 3 + d4 / 4 + d5 / 5, f0),
            ((d1 + d2 + d3 + d4 + d5) / h_left, e1 / h_right),
            ((d2 + 2 * d3 + 3 * d4 + 4 * d5) / h_left**2, e2 / h_right**2),
        ]
        for one, other in ends:
            # Coefficients are differences of values: each order loses the ratio of value to difference.
            assert one == pytest.approx(other, rel=1e-6, abs=1e-6)
    r = torch.linspace(r_min, cutoff - 1e-6, 1001, dtype=torch.float64).requires_grad_()
    energy, slope = read(table, r)
    torch.testing.assert_close(torch.autograd.grad(energy.sum(), r)[0], slope.detach(), rtol=1e-12, atol=1e-12)


def _neighbouring_records(table):
    block_of = torch.repeat_interleave(torch.arange(BLOCKS), table.blocks[1].long())
    for k in range(table.n_intervals - 1):
        yield table.coefficients[0, k], table.coefficients[0, k + 1], int(block_of[k]), int(block_of[k + 1])


# --- form of the table ---------------------------------------------------------------------------------------------


def test_shapes_and_dtypes():
    n_tables, n_records, width = TABLE.coefficients.shape
    assert (n_tables, n_records, width) == (6, TABLE.n_intervals + 1, RECORD)
    assert TABLE.coefficients.dtype == TABLE.blocks.dtype == torch.float64
    assert TABLE.pair_index.dtype == TABLE.species_of.dtype == torch.int32
    assert TABLE.blocks.shape == (2, BLOCKS) and int(TABLE.blocks[1].sum()) == TABLE.n_intervals
    assert torch.equal(TABLE.blocks[0], TABLE.blocks[1].cumsum(0) - TABLE.blocks[1])
    assert torch.equal(TABLE.pair_index, TABLE.pair_index.T)
    assert not TABLE.coefficients[:, -1].any()


def test_species_of_atomic_numbers():
    assert TABLE.atomic_numbers == (8, 1, 6)
    assert TABLE.species(torch.tensor([1, 8, 6, 6])).tolist() == [1, 0, 2, 2]
    assert TABLE.species(torch.tensor([0, 2, -1, -112, 119, 120, 10**12])).tolist() == [-1] * 7


def test_pairs_that_share_a_function_share_a_table():
    def shared(r):
        return torch.exp(-r)

    table = PairTable.from_functions((1, 2), {(1, 1): shared, (2, 1): shared, (2, 2): None}, 1.0, 4.0)
    assert table.coefficients.shape[0] == 2
    assert table.pair_index.tolist() == [[0, 0], [0, 1]]
    r = torch.linspace(1.0, 3.99, 50, dtype=torch.float64)
    assert torch.equal(read(table, r, 1, 1)[0], read(table, r, 2, 1)[0])
    assert not read(table, r, 2, 2)[0].any()


def test_order_of_species_and_pairs_does_not_matter():
    functions = {(1, 8): lambda r: torch.exp(-r), (8, 8): lambda r: 1 / r, (1, 1): None}
    r = torch.linspace(1.0, 3.99, 50, dtype=torch.float64)
    one = PairTable.from_functions((1, 8), functions, 1.0, 4.0)
    other = PairTable.from_functions((8, 1), {(b, a): f for (a, b), f in reversed(functions.items())}, 1.0, 4.0)
    for pair in ((1, 1), (1, 8), (8, 1), (8, 8)):
        assert torch.equal(read(one, r, *pair)[0], read(other, r, *pair)[0])


def test_a_table_is_immutable_and_moves_between_devices():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TABLE.cutoff = 9.0
    moved = TABLE.to("meta")
    assert moved.coefficients.device.type == moved.species_of.device.type == "meta" and moved.cutoff == TABLE.cutoff
    assert TABLE.coefficients.device.type == "cpu"
    with pytest.raises(TypeError):
        TABLE.to(torch.float32)  # a table of other precision would be read as garbage


@pytest.mark.parametrize(("r_min", "cutoff"), [(1.0, 9.0), (0.9, 7.3), (1.1, 10.0), (0.7, 3.3)])
def test_a_truncated_function_keeps_its_jump_at_the_cutoff(r_min, cutoff):
    """Written with or without "0 beyond", whatever the rounding of the last node: the same table."""
    plain = table_of(lambda r: 10 / r, r_min, cutoff)
    zero_beyond = table_of(lambda r: torch.where(r < cutoff, 10 / r, 0.0), r_min, cutoff)
    infinite_beyond = table_of(lambda r: torch.where(r < cutoff, 10 / r, torch.inf), r_min, cutoff)
    for table in (zero_beyond, infinite_beyond):
        assert torch.equal(plain.coefficients, table.coefficients)
    energy, _ = read(plain, torch.tensor([cutoff * (1 - 1e-12), cutoff, 1.5 * cutoff], dtype=torch.float64))
    assert float(energy[0]) == pytest.approx(10 / cutoff, rel=1e-9)
    assert energy[1:].tolist() == [0.0, 0.0]


# --- refusals ------------------------------------------------------------------------------------------------------


def where(r, place, below, above):
    return torch.where(r < place, below, above)


# The 8 Å from 1 to 9 Å are cut into blocks of 0.5 Å: 5.0 is where two of them meet, 5.1 is not.
@pytest.mark.parametrize("place", [5.0, 5.1, 1.0001, 8.99])
@pytest.mark.parametrize(
    ("kind", "function"),
    [
        ("jump", lambda r, place: where(r, place, 1 / r, 1 / r + 0.1)),
        ("jump seen from below", lambda r, place: torch.where(r <= place, 1 / r, 1 / r + 0.1)),
        ("kink", lambda r, place: where(r, place, 1 / r, 1 / r + 0.2 * (r - place))),
    ],
)
def test_jumps_and_kinks_inside_the_range_are_refused_with_their_place(kind, function, place):
    with pytest.raises(ValueError, match=r"\(8, 8\) cannot be interpolated") as refusal:
        table_of(lambda r: function(r, place), 1.0, 9.0)
    named = float(str(refusal.value).split("at r = ")[1].split(" Å")[0])
    assert named == pytest.approx(place, abs=1e-3)


def test_the_pair_at_fault_is_named():
    functions = {(1, 1): lambda r: 1 / r, (1, 8): lambda r: where(r, 3.3, 1 / r, 0 * r), (8, 8): None}
    with pytest.raises(ValueError, match=r"\(1, 8\)"):
        PairTable.from_functions((1, 8), functions, 1.0, 6.0)


@pytest.mark.parametrize(
    ("function", "place"),
    [
        (lambda r: 1 / (r - 2.0), 2.0),
        (lambda r: torch.log(r - 1.5), 1.0),
        (lambda r: torch.sqrt(r - 1.0), 1.0),
        (lambda r: torch.where(r > 4.0, torch.nan, 1 / r), 4.0),
        (lambda r: torch.full_like(r, torch.inf), 1.0),
    ],
)
def test_functions_that_are_not_finite_are_refused(function, place):
    with pytest.raises(ValueError, match=r"\(8, 8\) (is not finite|cannot be interpolated)") as refusal:
        table_of(function, 1.0, 9.0)
    assert abs(float(str(refusal.value).split("r = ")[1].split(" Å")[0]) - place) < 0.51  # within a block


@pytest.mark.parametrize(
    "function",
    [
        lambda r: 1.0,
        lambda r: r.float(),
        lambda r: r.sum(),
        lambda r: (1 / r).detach().numpy(),
        lambda r: torch.stack([r, r]),
        lambda r: 1j * r,
    ],
)
def test_functions_of_another_form_are_refused(function):
    with pytest.raises(
        ValueError, match="must map a float64 tensor of distances to a float64 tensor of the same shape"
    ):
        table_of(function, 1.0, 9.0)


ONE = {(8, 8): lambda r: 1 / r}


@pytest.mark.parametrize(
    ("changes", "error", "named"),
    [
        ({"species": ()}, ValueError, "`species`"),
        ({"species": (8, 8)}, ValueError, "`species`"),
        ({"species": (0,)}, ValueError, "`species`"),
        ({"species": (119,)}, ValueError, "`species`"),
        ({"species": (-8,)}, ValueError, "`species`"),
        ({"species": tuple(range(1, 66))}, ValueError, "`species`"),
        ({"species": (8, 14)}, ValueError, r"lacks the pairs \[\(8, 14\), \(14, 14\)\]"),
        ({"functions": {}}, ValueError, "`functions` lacks"),
        ({"functions": {**ONE, (8, 14): None}}, ValueError, r"`functions` has the pair \(8, 14\), which is not"),
        ({"species": (8, 14), "functions": {**ONE, (8, 14): None, (14, 8): None}}, ValueError, "twice"),
        ({"r_min": 0.0}, ValueError, "`r_min`"),
        ({"r_min": -1.0}, ValueError, "`r_min`"),
        ({"r_min": float("nan")}, ValueError, "`r_min`"),
        ({"r_min": None}, TypeError, "`r_min`"),
        ({"r_min": 5.0}, ValueError, "`r_min` must be smaller than `cutoff`"),
        ({"r_min": 6.0}, ValueError, "`r_min` must be smaller than `cutoff`"),
        ({"cutoff": float("inf")}, ValueError, "`cutoff`"),
        ({"cutoff": "5"}, TypeError, "`cutoff`"),
        ({"tolerance": 0.0}, ValueError, "`tolerance`"),
        ({"tolerance": -1e-7}, ValueError, "`tolerance`"),
        ({"tolerance": 1e-17}, ValueError, "cannot be interpolated to 1e-17"),
    ],
)
def test_wrong_arguments_are_named(changes, error, named):
    with pytest.raises(error, match=named):
        PairTable.from_functions(**{"species": (8,), "functions": ONE, "r_min": 1.0, "cutoff": 5.0, **changes})
