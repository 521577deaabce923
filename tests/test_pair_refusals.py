"""What the pair op refuses: wrong arguments by name, unknown elements, atoms too close, what is not finite."""

import dataclasses

import pytest
import torch
from native_settings import available_isas, isa
from pair_systems import CUTOFF, FUNCTIONS, R_MIN, SYSTEMS, TABLE, System, outputs

import rsa_kernels as rk
from rsa_kernels.errors import AtomsTooCloseError, NonFiniteError

pytestmark = pytest.mark.usefixtures("one_thread")

GOOD = SYSTEMS["triclinic"]
NEIGHBORS = GOOD.neighbors()


def call(function=rk.pair.evaluate, **changes):
    arguments = {
        "table": TABLE,
        "positions": GOOD.positions,
        "cell": GOOD.cell,
        "atomic_numbers": GOOD.numbers,
        "neighbors": NEIGHBORS,
    }
    return function(**{**arguments, **changes})


WRONG = [
    ("table", None, TypeError),
    ("table", FUNCTIONS, TypeError),
    ("positions", GOOD.positions.numpy(), TypeError),
    ("positions", GOOD.positions.long(), TypeError),
    ("positions", GOOD.positions.half(), TypeError),
    ("positions", GOOD.positions[:, :2], ValueError),
    ("positions", GOOD.positions[:-1], ValueError),
    ("positions", GOOD.positions[0], ValueError),
    ("positions", GOOD.positions[None], ValueError),
    ("positions", GOOD.positions.to("meta"), ValueError),
    ("cell", GOOD.cell.numpy(), TypeError),
    ("cell", GOOD.cell.long(), TypeError),
    ("cell", GOOD.cell[:2], ValueError),
    ("cell", GOOD.cell[:, :2], ValueError),
    ("cell", GOOD.cell[0], ValueError),
    ("cell", GOOD.cell.expand(2, 3, 3), ValueError),
    ("cell", GOOD.cell.to("meta"), ValueError),
    ("atomic_numbers", GOOD.numbers.tolist(), TypeError),
    ("atomic_numbers", GOOD.numbers.double(), TypeError),
    ("atomic_numbers", GOOD.numbers.to(torch.int32), TypeError),
    ("atomic_numbers", GOOD.numbers[:-1], ValueError),
    ("atomic_numbers", GOOD.numbers[:, None], ValueError),
    ("atomic_numbers", GOOD.numbers.to("meta"), ValueError),
    ("neighbors", None, TypeError),
    ("neighbors", NEIGHBORS.edge_index, TypeError),
    ("neighbors", GOOD.neighbors(CUTOFF - 0.1), ValueError),
]


@pytest.mark.parametrize(("name", "value", "error"), WRONG)
@pytest.mark.parametrize("function", [rk.pair.evaluate, rk.pair.energy], ids=["evaluate", "energy"])
def test_wrong_arguments_are_named(function, name, value, error):
    with pytest.raises(error, match=f"`{name}`"):
        call(function, **{name: value})


def test_cells_of_a_batch_must_be_as_many_as_systems():
    system = SYSTEMS["batch"]
    for n in (1, 5, 7):
        with pytest.raises(ValueError, match=r"`cell` must have shape \(3, 3\) or \(6, 3, 3\)"):
            system.but(cell=torch.eye(3).double().expand(n, 3, 3)).evaluate(neighbors=system.neighbors())


@pytest.mark.parametrize("wrong", [7, 0, -1, 119, 120, 10**9, 8 - 120, 1 - 119])
@pytest.mark.parametrize("function", [rk.pair.evaluate, rk.pair.energy], ids=["evaluate", "energy"])
def test_elements_the_table_lacks_are_refused(function, wrong):
    numbers = GOOD.numbers.clone()
    numbers[3] = wrong
    with pytest.raises(ValueError, match="`atomic_numbers`"):
        call(function, atomic_numbers=numbers)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e60, 1e100, 2e100])
@pytest.mark.parametrize("function", [rk.pair.evaluate, rk.pair.energy], ids=["evaluate", "energy"])
def test_positions_and_cells_that_are_not_finite(function, bad):
    positions, cell = GOOD.positions.clone(), GOOD.cell.clone()
    positions[-1, 2] = bad
    with pytest.raises(NonFiniteError, match="`positions`"):
        call(function, positions=positions)
    cell[1, 1] = bad
    with pytest.raises(NonFiniteError, match="`cell`"):
        call(function, cell=cell)


@pytest.mark.parametrize("distance", [0.0, 1e-300, 1e-9, 0.5 * R_MIN, R_MIN * (1 - 1e-12)])
@pytest.mark.parametrize("instructions", available_isas())
def test_atoms_closer_than_the_table_are_refused(distance, instructions):
    positions = torch.tensor([[0.0, 0, 0], [distance, 0, 0], [2.0, 0, 0]], dtype=torch.float64)
    system = System(positions, torch.zeros(3, 3).double(), torch.tensor([8, 1, 6]), False)
    with isa(instructions):
        with pytest.raises(AtomsTooCloseError, match=f"{distance:.4f} Å"):
            system.evaluate()
        with pytest.raises(AtomsTooCloseError):
            rk.pair.energy(TABLE, positions, system.cell, system.numbers, system.neighbors())
        positions[1, 0] = R_MIN * (1 + 1e-12)
        assert bool(torch.isfinite(system.evaluate().forces).all())


def test_pairs_that_do_not_interact_may_not_be_on_one_spot_either():
    positions = torch.zeros(2, 3, dtype=torch.float64)
    with pytest.raises(AtomsTooCloseError):
        System(positions, torch.zeros(3, 3).double(), torch.tensor([6, 6]), False).evaluate()


def test_evaluate_refuses_inputs_that_require_gradients():
    for name, value in (("positions", GOOD.positions), ("cell", GOOD.cell)):
        with pytest.raises(ValueError, match=f"`{name}`.*rsa_kernels.pair.energy is differentiable"):
            call(**{name: value.clone().requires_grad_()})


def test_coefficients_are_constants():
    table = dataclasses.replace(TABLE, coefficients=TABLE.coefficients.clone().requires_grad_())
    for positions in (GOOD.positions, GOOD.positions.clone().requires_grad_()):
        energy = call(rk.pair.energy, table=table, positions=positions)
        with pytest.raises(ValueError, match="`table` is a constant"):
            energy.sum().backward()


def test_an_error_leaves_nothing_behind():
    """After a refusal the next call is right: no state is kept."""
    wanted = outputs(GOOD.evaluate())
    with pytest.raises(NonFiniteError):
        call(positions=GOOD.positions * float("nan"))
    assert all(torch.equal(a, b) for a, b in zip(outputs(GOOD.evaluate()), wanted, strict=True))
