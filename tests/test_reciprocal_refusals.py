"""What reciprocal-space attention refuses: wrong arguments by name, what is not finite, waves that cannot be."""

import dataclasses

import pytest
import torch
from reciprocal_systems import METHODS, SINGLE, SYSTEMS, fractional, spectrum

import rsa_kernels as rk
from rsa_kernels.errors import CapacityError, NonFiniteError
from rsa_kernels.reciprocal import padded_cell, spectra

pytestmark = pytest.mark.usefixtures("one_thread")

GOOD = SINGLE["triclinic"]
BATCH = SYSTEMS["batch"]
Q, K, V = GOOD.leaves()
MODES = GOOD.modes()
OF_TWO = dataclasses.replace(MODES, mode_ptr=torch.tensor([0, 4, 10]))
STATES = rk.accumulate_modes(K, V, GOOD.positions, GOOD.cell, MODES)
GIVEN = {"q": Q, "k": K, "v": V, "states": STATES}
GIVEN |= {"positions": GOOD.positions, "cell": GOOD.cell, "modes": MODES, "batch_ptr": torch.tensor([0, 9])}
TAKES = {
    rk.reciprocal_attention: ("q", "k", "v"),
    rk.accumulate_modes: ("k", "v"),
    rk.gather_modes: ("q", "states"),
}


def call(function, **changes):
    """Call with good arguments but for the changes."""
    takes = *TAKES[function], "positions", "cell", "modes", "batch_ptr"
    return function(**{**{name: GIVEN[name] for name in takes}, **changes})


# --- one wrong argument --------------------------------------------------------------------------------------------

LEAF = r"\(n_atoms, heads, d\)"
WRONG = [
    ("q", Q.numpy(), TypeError, "`q` must be a torch.Tensor, got ndarray"),
    ("q", Q.half(), TypeError, "`q` must have dtype .*float64 or .*float32 or .*bfloat16, got torch.float16"),
    ("q", Q.long(), TypeError, "`q` must have dtype"),
    ("q", Q[0], ValueError, rf"`q` must have shape {LEAF}, got \(2, 3\)"),
    ("q", Q[None], ValueError, rf"`q` must have shape {LEAF}"),
    ("q", Q[:, :0], ValueError, r"`q` must have at least one head and one channel, got shape \(9, 0, 3\)"),
    ("q", Q[:, :, :0], ValueError, "`q` must have at least one head and one channel"),
    ("k", K.tolist(), TypeError, "`k` must be a torch.Tensor, got list"),
    ("k", K.float(), TypeError, r"`[kv]` must have dtype torch.float"),  # without q, v is measured by k
    ("k", K[:, 0], ValueError, "`k` must have shape"),
    ("v", V.numpy(), TypeError, "`v` must be a torch.Tensor"),
    ("v", V.float(), TypeError, "`v` must have dtype torch.float64, got torch.float32"),
    ("v", V[:-1], ValueError, r"`v` must have shape \(9, 2, d_v\), got \(8, 2, 4\)"),
    ("v", V[:, :1], ValueError, r"`v` must have shape \(9, 2, d_v\), got \(9, 1, 4\)"),
    ("v", V[:, 0], ValueError, "`v` must have shape"),
    ("v", V[:, :, :0], ValueError, "`v` must have at least one head and one channel"),
    ("v", V.to("meta"), ValueError, "`v` must be on cpu like the other arguments, got meta"),
    ("states", STATES.float(), TypeError, "`states` must have dtype torch.float64, got torch.float32"),
    ("states", STATES[0], ValueError, r"`states` must have shape \(2, 10, 2, 3, d_v\)"),
    ("states", STATES[:, 1:], ValueError, r"`states` must have shape \(2, 10, 2, 3, d_v\), got \(2, 9, 2, 3, 4\)"),
    ("states", STATES[:, :, :, 1:], ValueError, "`states` must have shape"),
    ("states", STATES.to("meta"), ValueError, "`states` must be on cpu"),
    ("states", None, TypeError, "`states` must be a torch.Tensor, got NoneType"),
    ("positions", GOOD.positions.numpy(), TypeError, "`positions` must be a torch.Tensor"),
    ("positions", GOOD.positions.half(), TypeError, "`positions` must have dtype"),
    ("positions", GOOD.positions.long(), TypeError, "`positions` must have dtype"),
    ("positions", GOOD.positions[:-1], ValueError, r"`positions` must have shape \(9, 3\), got \(8, 3\)"),
    ("positions", GOOD.positions[:, :2], ValueError, r"`positions` must have shape \(9, 3\), got \(9, 2\)"),
    ("positions", GOOD.positions[None], ValueError, "`positions` must have shape"),
    ("positions", GOOD.positions.to("meta"), ValueError, "`positions` must be on cpu like the other arguments"),
    ("cell", GOOD.cell.numpy(), TypeError, "`cell` must be a torch.Tensor"),
    ("cell", GOOD.cell.long(), TypeError, "`cell` must have dtype"),
    ("cell", GOOD.cell[:2], ValueError, r"`cell` must have shape \(3, 3\), got \(2, 3\)"),
    ("cell", GOOD.cell[0], ValueError, "`cell` must have shape"),
    ("cell", GOOD.cell.expand(2, 3, 3), ValueError, "`cell` must have shape"),
    ("cell", GOOD.cell.to("meta"), ValueError, "`cell` must be on cpu like the other arguments"),
    ("modes", None, TypeError, "`modes` must be Modes, from reciprocal_modes"),
    ("modes", MODES.miller, TypeError, "`modes` must be Modes, from reciprocal_modes.*got Tensor"),
    ("modes", OF_TWO, ValueError, "`modes` must be of the 1 systems of `batch_ptr`, got modes of 2"),
    ("batch_ptr", [0, 9], TypeError, "`batch_ptr` must be a torch.Tensor, got list"),
    ("batch_ptr", torch.tensor([0, 9], dtype=torch.int32), TypeError, "`batch_ptr` must have dtype torch.int64"),
    ("batch_ptr", torch.tensor([[0, 9]]), ValueError, "`batch_ptr` must have shape"),
    ("batch_ptr", torch.tensor(9), ValueError, "`batch_ptr` must have shape"),
    ("batch_ptr", torch.tensor([0]), ValueError, "`modes` must be of the 0 systems of `batch_ptr`"),
    ("batch_ptr", torch.tensor([0, 8]), ValueError, r"`batch_ptr` must rise from 0 to the number of atoms 9"),
    ("batch_ptr", torch.tensor([1, 9]), ValueError, r"`batch_ptr` must rise from 0 to the number of atoms 9"),
    ("batch_ptr", torch.tensor([0, 9]).to("meta"), ValueError, "`batch_ptr` must be on cpu"),
    ("method", "fft", ValueError, "`method` must be one of auto, pairwise, spectral, grid, got 'fft'"),
    ("method", None, ValueError, "`method` must be one of"),
    ("tolerance", 0.0, ValueError, "`tolerance` must be positive and finite, got 0.0"),
    ("tolerance", float("nan"), ValueError, "`tolerance` must be positive and finite"),
    ("tolerance", "small", TypeError, "`tolerance` must be a number, got 'small'"),
]


@pytest.mark.parametrize(
    ("function", "name", "value", "error", "text"),
    [
        pytest.param(function, *one, id=f"{function.__name__}-{number}-{one[0]}")
        for function, leaves in TAKES.items()
        for number, one in enumerate(WRONG)
        if one[0] in leaves or one[0] not in ("q", "k", "v", "states")
    ],
)
def test_wrong_arguments_are_named(function, name, value, error, text):
    with pytest.raises(error, match=text):
        call(function, **{name: value})


def test_falling_offsets_of_a_batch():
    offsets = BATCH.offsets.clone()
    offsets[2] = 3
    with pytest.raises(ValueError, match="`batch_ptr` must rise from 0 to the number of atoms 35, got"):
        BATCH.but(batch_ptr=offsets).run("spectral", BATCH.leaves(), modes=BATCH.modes())


def test_cells_of_a_batch_must_be_as_many_as_systems():
    for n in (1, 6, 8):
        with pytest.raises(ValueError, match=r"`cell` must have shape \(3, 3\) or \(7, 3, 3\), got \(\d, 3, 3\)"):
            BATCH.run("spectral", BATCH.leaves(), cell=BATCH.cell[:1].expand(n, 3, 3), modes=BATCH.modes())


def test_halves_have_no_pairs():
    for function in (rk.accumulate_modes, rk.gather_modes):
        with pytest.raises(ValueError, match=r"`method` 'pairwise' has no states .* use 'spectral', 'grid' or 'auto'"):
            call(function, method="pairwise")


@pytest.mark.parametrize("wrong", [0, -3, 9.0, "9", True])
def test_numbers_of_atoms_in_all_processes(wrong):
    for function in (rk.accumulate_modes, rk.gather_modes):
        with pytest.raises(ValueError, match="`atoms_in_all` must be a positive integer or None, got"):
            call(function, atoms_in_all=wrong)


WRONG_MODES = [
    ("miller", MODES.miller.long(), TypeError, "`miller` must have dtype torch.int32, got torch.int64"),
    ("miller", MODES.miller.tolist(), TypeError, "`miller` must be a torch.Tensor"),
    ("miller", MODES.miller[:, :2], ValueError, r"`miller` must have shape \(n_modes, 3\), got \(10, 2\)"),
    ("miller", MODES.miller[:-1], ValueError, r"`weights` must have shape \(9,\), got \(10,\)"),
    ("weights", MODES.weights.float(), TypeError, "`weights` must have dtype torch.float64, got torch.float32"),
    ("weights", MODES.weights[None], ValueError, r"`weights` must have shape \(10,\), got \(1, 10\)"),
    ("weights", MODES.weights.to("meta"), ValueError, "`weights` must be on cpu"),
    ("mode_ptr", MODES.mode_ptr.int(), TypeError, "`mode_ptr` must have dtype torch.int64"),
    ("mode_ptr", MODES.mode_ptr[None], ValueError, "`mode_ptr` must have shape"),
]


@pytest.mark.parametrize(("name", "value", "error", "text"), WRONG_MODES)
def test_modes_made_by_hand_are_checked(name, value, error, text):
    with pytest.raises(error, match=text):
        dataclasses.replace(MODES, **{name: value})


@pytest.mark.parametrize("ends", [[0, 9], [1, 10], [0, 11]])
def test_offsets_of_modes_must_fit(ends):
    modes = dataclasses.replace(MODES, mode_ptr=torch.tensor(ends))
    with pytest.raises(ValueError, match=r"`modes.mode_ptr` must rise from 0 to the number of modes 10"):
        call(rk.reciprocal_attention, modes=modes)


def test_modes_elsewhere_than_the_leaves():
    modes = rk.Modes(MODES.miller.to("meta"), MODES.weights.to("meta"), MODES.mode_ptr.to("meta"), 2.0)
    with pytest.raises(ValueError, match=r"`modes.*` must be on cpu like the other arguments, got meta"):
        call(rk.reciprocal_attention, modes=modes)


# --- data that cannot be -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("method", METHODS)
def test_positions_and_cells_that_are_not_finite(bad, method):
    leaves, modes = GOOD.leaves(), GOOD.modes()
    wanted = GOOD.run(method, leaves, modes=modes)
    for name in ("positions", "cell"):
        value = getattr(GOOD, name).clone()
        value[-1, 1] = bad
        with pytest.raises((NonFiniteError, ValueError), match=r"`positions` or `cell`|`cell`"):
            GOOD.run(method, leaves, **{name: value}, modes=modes)
    assert torch.equal(GOOD.run(method, leaves, modes=modes), wanted)  # an error leaves nothing behind


@pytest.mark.parametrize("method", METHODS)
def test_nan_in_gradient_directions_and_leaves_is_not_lost(method):
    """NaN that comes in with q, k or v comes out, never as a number."""
    for which in range(3):
        leaves = [x.clone() for x in GOOD.leaves()]
        leaves[which][0, 0, 0] = float("nan")
        assert bool(torch.isnan(GOOD.run(method, leaves)).any())


@pytest.mark.parametrize(
    "cell", [torch.zeros(3, 3), torch.ones(3, 3), torch.tensor([[1.0, 2, 3], [2, 4, 6], [0, 0, 1]])], ids=str
)
@pytest.mark.parametrize("method", METHODS)
def test_singular_cells_in_the_op(cell, method):
    with pytest.raises((ValueError, NonFiniteError), match="`cell`"):
        GOOD.run(method, GOOD.leaves(), cell=cell.double(), modes=MODES)


# --- waves ---------------------------------------------------------------------------------------------------------

WRONG_WAVES = [
    ({"cell": GOOD.cell.numpy()}, TypeError, "`cell` must be a torch.Tensor"),
    ({"cell": GOOD.cell.half()}, TypeError, "`cell` must have dtype"),
    ({"cell": GOOD.cell[0]}, ValueError, "`cell` must have shape"),
    ({"cell": GOOD.cell[:, :2]}, ValueError, "`cell` must have shape"),
    ({"cell": torch.zeros(3, 3)}, ValueError, "`cell` has a zero vector in a periodic direction"),
    ({"cell": torch.ones(3, 3)}, ValueError, "`cell` of system 0 is singular"),
    ({"cell": torch.full((3, 3), float("nan"))}, NonFiniteError, "`cell` holds NaN"),
    ({"cell": float("inf") * torch.eye(3)}, NonFiniteError, "`cell` holds NaN"),
    ({"k_cut": 0.0}, ValueError, "`k_cut` must be positive and finite, in 1/Å, got 0.0"),
    ({"k_cut": -1.0}, ValueError, "`k_cut` must be positive"),
    ({"k_cut": float("inf")}, ValueError, "`k_cut` must be positive and finite"),
    ({"k_cut": "2"}, TypeError, "`k_cut` must be a number, got '2'"),
    ({"spectrum": None}, TypeError, "`spectrum` must be a callable of |k|, got NoneType"),
    ({"spectrum": lambda k: k[:-1]}, ValueError, r"`spectrum` must return one weight for every \|k\|, shape \(10,\)"),
    ({"spectrum": lambda k: k[:, None]}, ValueError, r"`spectrum` must return .* got \(10, 1\)"),
    ({"spectrum": lambda k: 1.0}, ValueError, "`spectrum` must return .* got float"),
    ({"spectrum": lambda k: k * float("nan")}, NonFiniteError, "`spectrum` returned NaN or infinite"),
    ({"spectrum": lambda k: 1.0 / (k - k)}, NonFiniteError, "`spectrum` returned NaN or infinite"),
    ({"window_start": 0.0}, ValueError, "`window_start` must be positive"),
    ({"window_start": 1.1}, ValueError, "`window_start` must be at most 1, got 1.1"),
    ({"pbc": False}, ValueError, "`pbc` must be True in every direction: .*padded_cell"),
    ({"pbc": [True, True, False]}, ValueError, "`pbc` must be True in every direction"),
    ({"pbc": "xyz"}, TypeError, "`pbc` must be"),
    ({"n_systems": 2, "cell": GOOD.cell.expand(3, 3, 3)}, ValueError, "`cell` must have shape"),
]


@pytest.mark.parametrize(("changes", "error", "text"), WRONG_WAVES)
def test_wrong_arguments_of_waves_are_named(changes, error, text):
    arguments = {"cell": GOOD.cell, "k_cut": GOOD.k_cut, "spectrum": spectrum, **changes}
    with pytest.raises(error, match=text):
        rk.reciprocal_modes(arguments.pop("cell"), arguments.pop("k_cut"), arguments.pop("spectrum"), **arguments)


def test_the_singular_cell_of_a_batch_is_counted():
    cells = GOOD.cell.expand(3, 3, 3).clone()
    cells[2, 2] = cells[2, 1]
    with pytest.raises(ValueError, match="`cell` of system 2 is singular"):
        rk.reciprocal_modes(cells, 2.0, spectrum)


@pytest.mark.parametrize("k_cut", [200.0, 1e4, 1e9])
def test_more_waves_than_memory(k_cut):
    """The number of waves and a cutoff that does fit are in the message; nothing is allocated to find out."""
    cell = 100.0 * GOOD.cell
    with pytest.raises(
        CapacityError, match=r"k_cut = .* waves, .* GiB to list, .* GiB are there; k_cut ≤ .* fits"
    ) as it:
        rk.reciprocal_modes(cell, k_cut, spectrum)
    text = str(it.value)
    if k_cut < 1e6:
        said = float(text.split(" make ")[1].split(" waves")[0])
        volume = float(rk.cells.volume(cell))
        assert said == pytest.approx(volume * k_cut**3 / (12.0 * torch.pi**2), rel=1e-2)
    fitting = float(text.split("k_cut ≤ ")[1].split(" fits")[0])
    assert 0.0 < fitting < k_cut
    with pytest.raises(CapacityError):
        rk.reciprocal_modes(cell, 1e300, spectrum)


def test_padded_cell_and_spectra_check_their_arguments():
    for positions, error in (
        (GOOD.positions[0], ValueError),
        (GOOD.positions[:0], ValueError),
        ([[0.0] * 3], TypeError),
    ):
        with pytest.raises(error, match="`positions`"):
            padded_cell(positions)
    for padding in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="`padding` must be positive"):
            padded_cell(GOOD.positions, padding)
    for spectrum_of in (spectra.ewald, spectra.gaussian):
        with pytest.raises(ValueError, match=r"`sigma` must be positive and finite, in Å, got 0.0"):
            spectrum_of(0.0)
    terms = torch.ones(3)
    with pytest.raises(ValueError, match=r"`log_widths` must have shape \(3,\), got \(2,\)"):
        spectra.sum_of_gaussians(terms, terms[:2])
    with pytest.raises(TypeError, match=r"`amplitudes` must be a torch.Tensor, got list"):
        spectra.sum_of_gaussians([1.0], terms[:1])


# --- the registered ops --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [0, -3, 2.5, True])
def test_atoms_in_all_must_be_a_positive_number(wrong):
    with pytest.raises(ValueError, match="`atoms_in_all` must be a positive integer or None"):
        rk.accumulate_modes(K, V, GOOD.positions, GOOD.cell, MODES, GOOD.offsets, atoms_in_all=wrong)


def test_the_op_itself_checks_what_only_data_can_tell():
    where = fractional(GOOD.positions, GOOD.cell, GOOD.offsets)
    arguments = [Q, K, V, where, MODES.miller, MODES.weights, GOOD.offsets, MODES.mode_ptr, "spectral", 1e-5, 0]
    op = torch.ops.rsa_kernels.reciprocal_attention
    assert bool(torch.isfinite(op(*arguments)).all())
    for index, bad, error, text in (
        (3, where * float("nan"), NonFiniteError, "`positions` or `cell` holds NaN"),
        (6, torch.tensor([0, 3]), ValueError, "`batch_ptr` must rise"),
        (7, torch.tensor([0, 3]), ValueError, "`modes.mode_ptr` must rise"),
    ):
        changed = [*arguments[:index], bad, *arguments[index + 1 :]]
        with pytest.raises(error, match=text):
            op(*changed)
