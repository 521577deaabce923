"""The force field's late checks: what a GPU is not waited for in a step is raised before anything is kept."""

import pytest
import torch

from rsa_kernels.errors import AtomsTooCloseError, NonFiniteError
from silica_md.forcefield import ForceField
from silica_md.potentials import Evaluation, SumPotential
from silica_md.state import State


class Clearances:
    """A potential without forces that reports the clearances it is given, as one on a GPU does."""

    name, cutoff = "clearances", 0.0

    def __init__(self, *values):
        self._values = iter(values)

    def evaluate(self, state, neighbors, *, energy=True, virial=True, per_atom_energy=False):
        clearance = next(self._values)
        clearance = None if clearance is None else torch.tensor(clearance, dtype=torch.float64)
        return Evaluation(None, torch.zeros_like(state.positions), clearance=clearance)


@pytest.fixture
def state():
    from ase import Atoms

    return State.from_ase(Atoms("Ar2", positions=[[0, 0, 0], [3, 0, 0]], cell=[9, 9, 9], pbc=True))


def evaluate(state, *potentials, times):
    field = ForceField(potentials[0] if len(potentials) == 1 else SumPotential(potentials))
    for _ in range(times):
        field.evaluate(state)
    return field


def test_a_close_pair_is_remembered_until_it_is_confirmed(state):
    field = evaluate(state, Clearances(0.5, -0.25, 0.5), times=3)
    with pytest.raises(AtomsTooCloseError, match=r"0\.2500 Å closer"):
        field.confirm()
    field.confirm()  # reported once


def test_nan_is_not_taken_for_room(state):
    with pytest.raises(NonFiniteError):
        evaluate(state, Clearances(0.5, float("nan"), 0.5), times=3).confirm()


def test_sums_hand_on_the_smallest_clearance(state):
    with pytest.raises(AtomsTooCloseError, match=r"0\.1000"):
        evaluate(state, Clearances(0.3), Clearances(-0.1), Clearances(None), times=1).confirm()


def test_room_enough_passes(state):
    evaluate(state, Clearances(0.5, None, 0.1), times=3).confirm()
