"""What a neighbour list refuses, naming the argument, and the contract of its registered op."""

import numpy as np
import pytest
import torch
from neighbor_cases import batch_of, tensor

import rsa_kernels as rk
from rsa_kernels.errors import CapacityError, NonFiniteError

pytestmark = pytest.mark.usefixtures("one_thread")


GOOD = {
    "positions": torch.rand(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
    "cell": 3.0 * torch.eye(3, dtype=torch.float64),
    "pbc": True,
    "cutoff": 1.0,
    "batch_ptr": None,
    "skin": 0.1,
}
FLAT = tensor([[1.0, 0, 0], [0, 1.0, 0], [1.0, 1.0, 0]])
NAN = torch.full((4, 3), float("nan"), dtype=torch.float64)
WRONG = [
    ("positions", [[0.0, 0.0, 0.0]], TypeError),
    ("positions", np.zeros((4, 3)), TypeError),
    ("positions", torch.zeros(4, 3, dtype=torch.int64), TypeError),
    ("positions", torch.zeros(4, 3, dtype=torch.float16), TypeError),
    ("positions", torch.zeros(3, dtype=torch.float64), ValueError),
    ("positions", torch.zeros(4, 2, dtype=torch.float64), ValueError),
    ("positions", torch.zeros(1, 4, 3, dtype=torch.float64), ValueError),
    ("positions", NAN, NonFiniteError),
    ("positions", GOOD["positions"] * float("inf"), NonFiniteError),
    ("positions", GOOD["positions"] + 1e12, NonFiniteError),
    ("cell", [[3, 0, 0], [0, 3, 0], [0, 0, 3]], TypeError),
    ("cell", torch.eye(3, dtype=torch.int64), TypeError),
    ("cell", torch.eye(3, dtype=torch.float64, device="meta"), ValueError),
    ("cell", torch.ones(3, dtype=torch.float64), ValueError),
    ("cell", torch.eye(2, dtype=torch.float64), ValueError),
    ("cell", torch.eye(3, dtype=torch.float64)[:2], ValueError),
    ("cell", torch.eye(3, dtype=torch.float64).expand(2, 3, 3), ValueError),
    ("cell", FLAT, ValueError),
    ("cell", torch.zeros(3, 3, dtype=torch.float64), ValueError),
    ("cell", torch.diag(tensor([3.0, 3.0, 0.0])), ValueError),
    ("cell", NAN[:3], NonFiniteError),
    ("cell", torch.diag(tensor([3.0, 3.0, float("inf")])), NonFiniteError),
    ("pbc", None, TypeError),
    ("pbc", "TTT", TypeError),
    ("pbc", [True, True], ValueError),
    ("pbc", torch.ones(2, 3, dtype=torch.bool), ValueError),
    ("cutoff", 0.0, ValueError),
    ("cutoff", -1.0, ValueError),
    ("cutoff", float("nan"), ValueError),
    ("cutoff", float("inf"), ValueError),
    ("cutoff", None, TypeError),
    ("cutoff", "5", TypeError),
    ("cutoff", [1.0, 2.0], TypeError),
    ("cutoff", 1e6, CapacityError),
    ("skin", -0.1, ValueError),
    ("skin", float("nan"), ValueError),
    ("skin", float("inf"), ValueError),
    ("skin", None, TypeError),
    ("batch_ptr", [0, 4], TypeError),
    ("batch_ptr", torch.tensor([0, 4], dtype=torch.int32), TypeError),
    ("batch_ptr", torch.tensor([0, 4], device="meta"), ValueError),
    ("batch_ptr", torch.tensor([[0, 4]]), ValueError),
    ("batch_ptr", torch.tensor([4]), ValueError),
    ("batch_ptr", torch.tensor([0, 3]), ValueError),
    ("batch_ptr", torch.tensor([1, 4]), ValueError),
    ("batch_ptr", torch.tensor([0, 5]), ValueError),
    ("batch_ptr", torch.tensor([0, 3, 2, 4]), ValueError),
]


@pytest.mark.parametrize(("name", "value", "error"), WRONG)
def test_wrong_arguments_are_named(name, value, error):
    with pytest.raises(error, match=f"`{name}`"):
        rk.neighbor_list(**{**GOOD, name: value})


def test_the_message_says_what_came_and_the_mend():
    with pytest.raises(ValueError, match=r"`cell` must have shape \(3, 3\), got \(3, 2\)"):
        rk.neighbor_list(**{**GOOD, "cell": torch.zeros(3, 2, dtype=torch.float64)})
    with pytest.raises(ValueError, match="set its `pbc` to False"):
        rk.neighbor_list(**{**GOOD, "cell": torch.diag(tensor([3.0, 3.0, 0.0]))})


@pytest.mark.parametrize("method", ["update", "used_skin", "vectors", "distances"])
def test_positions_of_other_atoms_are_refused(method):
    nl = rk.neighbor_list(**GOOD)
    call = getattr(nl, method)
    positions, cell = GOOD["positions"], GOOD["cell"]
    for other in (positions[:3], positions[:, :2], positions[0], torch.cat([positions, positions])):
        with pytest.raises(ValueError, match="`positions` must have shape"):
            call(other, cell)
    with pytest.raises(TypeError, match="`positions`"):
        call(positions.numpy(), cell)
    for other in (cell[:2], cell.expand(2, 3, 3)):
        with pytest.raises(ValueError, match="`cell` must have shape"):
            call(positions, other)


def test_vectors_mix_no_precisions():
    with pytest.raises(TypeError, match=r"`cell` must have dtype torch\.float64, got torch\.float32"):
        rk.neighbor_list(**GOOD).vectors(GOOD["positions"], GOOD["cell"].float())


@pytest.mark.parametrize("wrong", [0.0, -1.0, 1.01, float("nan")])
def test_within_refuses_cutoffs_it_cannot_serve(wrong):
    with pytest.raises(ValueError, match="`cutoff`"):
        rk.neighbor_list(**GOOD).within(wrong)


# --- the registered op ---------------------------------------------------------------------------------------------


def rows_arguments(sizes=(3, 0, 5)):
    _, positions, cells, pbc, batch_ptr = batch_of(np.random.default_rng(80), sizes)
    return positions, rk.cells.complete(cells, pbc), pbc, batch_ptr, 2.0


def test_opcheck():
    """Every utility of opcheck applies; the sizes of the outputs depend on the data."""
    torch.library.opcheck(torch.ops.rsa_kernels.neighbor_rows.default, rows_arguments())


def test_the_list_has_no_derivative():
    positions, *rest = rows_arguments()
    outputs = torch.ops.rsa_kernels.neighbor_rows(positions.requires_grad_(), *rest)
    assert not any(output.requires_grad for output in outputs)


def test_outputs_are_written_whole(monkeypatch):
    """Poisoned buffers: whatever torch.empty hands out is overwritten."""
    arguments = rows_arguments()
    wanted = torch.ops.rsa_kernels.neighbor_rows(*arguments)
    empty = torch.empty

    def poisoned(*size, **options):
        return empty(*size, **options).fill_(-(2**30))

    monkeypatch.setattr(torch, "empty", poisoned)
    assert all(torch.equal(a, b) for a, b in zip(torch.ops.rsa_kernels.neighbor_rows(*arguments), wanted, strict=True))
