"""Systems for the tests of the Triton pair kernels; run as a script, it interprets the kernels on a CPU.

Triton decides on interpreting when it is first imported, so that needs a process of its own:
`TRITON_INTERPRET=1 python tests/pair_triton_cases.py outputs.pt`.
"""

import contextlib
import sys
from dataclasses import dataclass
from unittest import mock

import torch

import rsa_kernels as rk
from rsa_kernels.pair import kernels, op

CUTOFF, SKIN, R_MIN = 5.0, 0.5, 1.2


def _switch(r):
    return (1 - r / CUTOFF) ** 3


TABLE = rk.pair.PairTable.from_functions(
    species=(8, 11, 14),
    functions={
        (8, 8): lambda r: 0.05 * ((3 / r) ** 12 - (3 / r) ** 6) * _switch(r),
        (8, 14): lambda r: (40 * torch.exp(-2.5 * r) - 2.4 / r) * _switch(r),
        (14, 14): lambda r: 5.8 / r * _switch(r),
        (8, 11): lambda r: -0.6 / r,  # jumps to zero at the cutoff
        (11, 11): None,
        (11, 14): lambda r: torch.exp(-r) * _switch(r),
    },
    r_min=R_MIN,
    cutoff=CUTOFF,
    tolerance=1e-5,
)


@dataclass
class Case:
    positions: torch.Tensor
    cell: torch.Tensor
    numbers: torch.Tensor
    pbc: object = True
    batch_ptr: torch.Tensor | None = None

    def neighbors(self, device="cpu"):
        batch_ptr = None if self.batch_ptr is None else self.batch_ptr.to(device)
        pbc = self.pbc.to(device) if isinstance(self.pbc, torch.Tensor) else self.pbc
        return rk.neighbor_list(
            self.positions.to(device), self.cell.to(device), pbc, CUTOFF, batch_ptr=batch_ptr, skin=SKIN
        )

    def weights(self):
        generator = torch.Generator().manual_seed(3)
        return torch.randn(len(self.numbers), dtype=torch.float64, generator=generator)


def _lattice(n_atoms, cell, seed):
    """Shaken simple-cubic sites in fractional coordinates, some of them in other cells than the first."""
    generator = torch.Generator().manual_seed(seed)
    per_edge = max(1, round(n_atoms ** (1 / 3) + 0.499))
    sites = torch.cartesian_prod(*[torch.arange(per_edge, dtype=torch.float64) / per_edge] * 3)[:n_atoms]
    sites = sites + 0.02 * torch.rand(n_atoms, 3, dtype=torch.float64, generator=generator)
    sites = sites + torch.randint(-2, 3, (n_atoms, 3), generator=generator)
    numbers = torch.tensor([8, 11, 14])[torch.randint(0, 3, (n_atoms,), generator=generator)]
    return sites @ cell, numbers


def _one(n_atoms, cell, seed, pbc=True):
    cell = torch.tensor(cell, dtype=torch.float64)
    positions, numbers = _lattice(n_atoms, cell, seed)
    return Case(positions, cell, numbers, pbc)


def _batch(systems):
    cells = [torch.tensor(cell, dtype=torch.float64) for _, cell in systems]
    atoms = [_lattice(n, cell, seed) for seed, ((n, _), cell) in enumerate(zip(systems, cells, strict=True))]
    sizes = torch.tensor([0] + [n for n, _ in systems])
    positions, numbers = (torch.cat(parts) for parts in zip(*atoms, strict=True))
    return Case(positions, torch.stack(cells), numbers, True, sizes.cumsum(0))


def _dimers():
    """Pairs of oxygen at, just below and just above the ends of the table's blocks and its cutoff."""
    edges = torch.linspace(R_MIN, CUTOFF, 17, dtype=torch.float64)
    steps = torch.tensor([-1e-9, -4e-16, 0.0, 4e-16, 1e-9], dtype=torch.float64)
    distances = (edges[:, None] * (1 + steps)).flatten()
    distances = distances[distances >= R_MIN]
    positions = torch.zeros(len(distances), 2, 3, dtype=torch.float64)
    positions[:, 1, 0] = distances
    positions[:, :, 1] = 2 * CUTOFF * torch.arange(len(distances))[:, None]
    numbers = torch.full((2 * len(distances),), 8)
    return Case(positions.reshape(-1, 3), torch.eye(3, dtype=torch.float64), numbers, False)


CUBE = [[9.0, 0, 0], [0, 9.0, 0], [0, 0, 9.0]]
SKEWED = [[8.7, 0.3, 0.1], [-2.9, 8.8, 0], [2.1, -3.2, 9.1]]
THIN = [[3.1, 0, 0], [1.2, 3.3, 0], [0.4, -0.9, 17.0]]

CASES = {
    "64 atoms": _one(64, CUBE, 0),
    "triclinic, 61 atoms": _one(61, SKEWED, 1),
    "thin cell, several images": _one(4, THIN, 2),
    "slab": _one(37, [[9.0, 0, 0], [1.0, 9.0, 0], [0, 0, 10.0]], 3, (True, True, False)),
    "one atom and its images": _one(1, THIN, 4),
    "one atom alone": _one(1, CUBE, 5, False),
    "no atoms": _one(0, CUBE, 6),
    "batch with an empty system": _batch([(5, CUBE), (0, CUBE), (17, SKEWED), (1, THIN), (0, CUBE), (33, SKEWED)]),
    "dimers at block ends": _dimers(),
}


def faults():
    """Inputs that must not give a number that looks right, and what the shortest distance must say about them."""
    close, infinite, lost, unknown = (_one(27, CUBE, 7) for _ in range(4))
    neighbors = close.neighbors()
    close.positions[4] = close.positions[9] + torch.tensor([0.3, 0.0, 0.0], dtype=torch.float64)
    infinite.positions[3, 1] = float("inf")
    lost.positions[20] = float("nan")
    unknown.numbers[13] = 6
    return {
        "too close": (close, close.neighbors(), 0.3),
        "infinite": (infinite, neighbors, float("nan")),
        "NaN": (lost, neighbors, float("nan")),
        "unknown element": (unknown, neighbors, float("nan")),
    }


def cuda_arguments(case, neighbors):
    """What the CUDA kernels are given: as the CPU's, with padded columns."""
    arguments = list(op._arguments(TABLE, case.positions, case.cell, case.numbers, neighbors))
    assert arguments[10] is neighbors.columns
    arguments[10] = neighbors.padded()
    return arguments


@contextlib.contextmanager
def poisoned():
    """Let `new_empty` hand out NaN, so that what a kernel leaves out shows."""
    new_empty = torch.Tensor.new_empty

    def poison(self, *args, **kwargs):
        out = new_empty(self, *args, **kwargs)
        return out.fill_(float("nan")) if out.is_floating_point() else out

    with mock.patch.object(torch.Tensor, "new_empty", poison):
        yield


def interpreted():
    """All outputs of the CUDA kernels for all cases, on CPU tensors."""
    outputs = {"triton imported early": "triton" in sys.modules}
    for name, case in CASES.items():
        arguments = cuda_arguments(case, case.neighbors())
        with poisoned():
            outputs[name] = {
                "everything": kernels.evaluate_cuda(*arguments, True, True, True),
                "forces": kernels.evaluate_cuda(*arguments, False, False, False),
                "energy": kernels.evaluate_cuda(*arguments, True, False, False),
                "backward": kernels.backward_cuda(case.weights(), *arguments),
            }
    for name, (case, neighbors, _) in faults().items():
        outputs[name] = kernels.evaluate_cuda(*cuda_arguments(case, neighbors), True, True, True)
    return outputs


if __name__ == "__main__":
    torch.save(interpreted(), sys.argv[1])
