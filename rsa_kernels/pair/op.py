"""Public functions and registered ops of tabulated pair potentials."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _checks, cells
from .._library import Kernel, define_op, triton_missing
from .._native import load_error
from ..errors import NonFiniteError
from ..neighbors import DeviceList, NeighborList
from .kernels import (
    backward_cpu,
    backward_cuda,
    energy_cpu,
    energy_cuda,
    evaluate_cpu,
    evaluate_cuda,
    second_derivatives,
    system_of,
    too_close,
)
from .table import PairTable

_ROWS = "Tensor batch_ptr, Tensor rows, Tensor columns, Tensor owners, Tensor image_shifts"
_TABLE = "Tensor coefficients, Tensor blocks, Tensor pair_index, float r_min, float cutoff"


class PairResult(NamedTuple):
    """What one pass over the pairs gives; fields not asked for are None."""

    energy: Tensor | None
    """(n_systems,) eV."""
    forces: Tensor
    """(n_atoms, 3) eV/Å, −dE/dr."""
    virial: Tensor | None
    """(n_systems, 3, 3) eV, W = −Σ_pairs r ⊗ dE/dr = −dE/dε, symmetric."""
    per_atom_energy: Tensor | None
    """(n_atoms,) eV, half of every pair to each of its atoms."""
    closest: Tensor
    """0-d float64, Å: the shortest distance met, at most the cutoff; NaN where forces are not finite.

    On a CPU it is at least r_min, or an error has been raised. On a GPU nothing waits for it: keep the running minimum
    (torch.minimum, which keeps NaN) and hand it to `check_closest` where the host reads results anyway, at a logging
    interval. Below r_min, results are wrong."""


def evaluate(
    table: PairTable,
    positions: Tensor,
    cell: Tensor,
    atomic_numbers: Tensor,
    neighbors: NeighborList | DeviceList,
    *,
    energy: bool = True,
    virial: bool = True,
    per_atom_energy: bool = False,
) -> PairResult:
    """Energy, forces and virial of a tabulated pair potential, in one pass: the molecular-dynamics path.

    E = Σ_{pairs, r<cutoff} φ_{ab}(r),  F_i = −∂E/∂r_i,  W = −Σ_pairs r ⊗ ∂E/∂r

    =====================  ============================
    symbol                 argument
    =====================  ============================
    φ_ab                   ``table``
    r_i, rows of the cell  ``positions``, ``cell``
    a, b                   from ``atomic_numbers``
    pairs                  ``neighbors``
    =====================  ============================

    Parameters
    ----------
    table : PairTable
        On the device of the positions.
    positions : Tensor
        (n_atoms, 3) Å, float64 or float32.
    cell : Tensor
        (3, 3) or (n_systems, 3, 3) Å.
    atomic_numbers : Tensor
        (n_atoms,) int64.
    neighbors : NeighborList or DeviceList
        Valid for these positions, with a cutoff of at least the table's. A `DeviceList` that is not, because its
        buffers were too small, makes everything NaN (on a CPU: an error).
    energy, virial, per_atom_energy : bool
        What to compute besides the forces; leaving out what is not needed saves time.

    Returns
    -------
    PairResult
        In the dtype of the positions; not differentiable (see `energy` for the differentiable op).

    Raises
    ------
    rsa_kernels.errors.AtomsTooCloseError
        A pair is closer than the table's r_min (CPU; on a GPU see `PairResult.closest`).
    rsa_kernels.errors.NonFiniteError
        A position or the cell is NaN or infinite (CPU; likewise).
    ValueError, TypeError
        An argument is wrong, the list is too short, or an element is not in the table (on a GPU such an element
        makes forces and `closest` NaN).

    Notes
    -----
    On a GPU nothing waits for the device, except after a rebuild of the list.

    About 60 flops a pair; reads 4 bytes a listed neighbour and one 64-byte record a pair inside the cutoff, which
    caches hold. All arithmetic and sums in float64. Two calls give the same bits, on a CPU for any number of threads.
    """
    _check(table, positions, cell, atomic_numbers, neighbors)
    if positions.requires_grad or cell.requires_grad:
        raise ValueError(
            "`positions` and `cell` must not require gradients here; rsa_kernels.pair.energy is differentiable"
        )
    arguments = _arguments(table, positions, cell, atomic_numbers, neighbors)
    atoms, energies, forces, virials, closest = pair_evaluate(*arguments, energy, virial, per_atom_energy)
    if isinstance(neighbors, DeviceList):
        energies, atoms = energies + neighbors.poison, atoms + neighbors.poison  # NaN positions do not make them NaN
    return PairResult(
        energies if energy else None, forces, virials if virial else None, atoms if per_atom_energy else None, closest
    )


def check_closest(table: PairTable, closest: Tensor) -> None:
    """Raise what `evaluate` found on a GPU without waiting: atoms too close, or not finite. Waits for the device.

    Raises
    ------
    rsa_kernels.errors.AtomsTooCloseError, rsa_kernels.errors.NonFiniteError
    """
    distance = float(closest)
    if math.isnan(distance):
        raise NonFiniteError(
            "forces are not finite: `positions` or `cell` holds NaN, or `atomic_numbers` an element not in `table`"
        )
    if distance < table.r_min:
        raise too_close(distance, table.r_min)


def energy(
    table: PairTable, positions: Tensor, cell: Tensor, atomic_numbers: Tensor, neighbors: NeighborList | DeviceList
) -> Tensor:
    """Differentiable energy of a tabulated pair potential, (n_systems,) eV; its backward is the force.

    Parameters are those of `evaluate`. First and second derivatives with respect to positions and cell are
    provided (the third raises); the table is a constant.

    Notes
    -----
    The derivative with respect to the cell at fixed positions is H⁻ᵀ (D − Rᵀ G), with G = ∂E/∂R and the strain
    derivative D = −W from the same pass. Second derivatives use the written-out formula over explicit edges,
    28 bytes and some 20 temporaries a pair.
    """
    atoms = per_atom_energy(table, positions, cell, atomic_numbers, neighbors)
    system = system_of(neighbors.batch_ptr, positions)
    total = torch.zeros(neighbors.n_systems, dtype=torch.float64, device=positions.device)
    return total.index_add(0, system, atoms.to(torch.float64)).to(positions.dtype)


def per_atom_energy(
    table: PairTable, positions: Tensor, cell: Tensor, atomic_numbers: Tensor, neighbors: NeighborList | DeviceList
) -> Tensor:
    """Differentiable per-atom energies E_i = ½ Σ_j φ(r_ij), (n_atoms,) eV. Parameters as in `evaluate`."""
    _check(table, positions, cell, atomic_numbers, neighbors)
    return pair_energy(*_arguments(table, positions, cell, atomic_numbers, neighbors))


def _check(
    table: PairTable,
    positions: Tensor,
    cell: Tensor,
    atomic_numbers: Tensor,
    neighbors: NeighborList | DeviceList,
) -> None:
    if not isinstance(table, PairTable):
        raise TypeError(f"`table` must be a PairTable, got {type(table).__name__}")
    if not isinstance(neighbors, NeighborList | DeviceList):
        raise TypeError(f"`neighbors` must be a NeighborList or DeviceList, got {type(neighbors).__name__}")
    device = neighbors.rows.device
    _checks.tensor("positions", positions, dtypes=(torch.float64, torch.float32), device=device)
    _checks.shape("positions", positions, neighbors.n_atoms, 3)
    _checks.tensor("cell", cell, dtypes=(torch.float64, torch.float32), device=positions.device)
    _checks.tensor("atomic_numbers", atomic_numbers, dtypes=(torch.int64,), device=positions.device)
    _checks.shape("atomic_numbers", atomic_numbers, neighbors.n_atoms)
    if table.coefficients.device != positions.device:
        raise ValueError(
            f"`table` must be on {positions.device} like the positions, got {table.coefficients.device};"
            " use table.to(...)"
        )
    if neighbors.cutoff < table.cutoff:
        raise ValueError(f"`neighbors` reaches {neighbors.cutoff} Å, but the table needs {table.cutoff} Å")


def _arguments(
    table: PairTable, positions: Tensor, cell: Tensor, atomic_numbers: Tensor, neighbors: NeighborList | DeviceList
) -> tuple:
    batched, _ = cells.as_batch(cell, neighbors.pbc, neighbors.n_systems)
    if isinstance(neighbors, DeviceList):
        batched = batched + neighbors.poison  # a list that is not good makes all positions NaN
    return (
        positions,
        batched,
        table.species(atomic_numbers),
        table.coefficients,
        table.blocks,
        table.pair_index,
        table.r_min,
        table.cutoff,
        neighbors.batch_ptr,
        neighbors.rows,
        neighbors.padded() if positions.is_cuda else neighbors.columns,
        neighbors.owners,
        neighbors.image_shifts,
    )


def _evaluate_fake(
    positions,
    cells_,
    species,
    coefficients,
    blocks,
    pair_index,
    r_min,
    cutoff,
    batch_ptr,
    rows,
    columns,
    owners,
    image_shifts,
    want_energy,
    want_virial,
    want_per_atom,
):
    n_atoms, n_systems = positions.shape[0], batch_ptr.shape[0] - 1
    return (
        positions.new_empty(n_atoms if want_per_atom else 0),
        positions.new_empty(n_systems if want_energy else 0),
        positions.new_empty((n_atoms, 3)),
        positions.new_empty((n_systems if want_virial else 0, 3, 3)),
        positions.new_empty((), dtype=torch.float64),
    )


def _save(ctx, inputs, output):
    *tensors, r_min, cutoff, batch_ptr, rows, columns, owners, image_shifts = inputs
    ctx.save_for_backward(*tensors, batch_ptr, rows, columns, owners, image_shifts)
    ctx.r_min, ctx.cutoff = r_min, cutoff


def _saved(context) -> tuple:
    *tensors, batch_ptr, rows, columns, owners, image_shifts = context.saved_tensors
    return (*tensors, context.r_min, context.cutoff, batch_ptr, rows, columns, owners, image_shifts)


def _energy_backward(context, grad):
    if context.needs_input_grad[3]:
        raise ValueError("`table` is a constant: its coefficients must not require gradients")
    positions_grad, cells_grad = pair_energy_backward(grad.contiguous(), *_saved(context))
    return positions_grad, cells_grad, *([None] * 11)


def _backward_backward(context, grad_positions, grad_cells):
    """Second derivatives, by an op of their own; the third order raises."""
    weights, positions, cells_, species, coefficients, blocks, pair_index, r_min, cutoff, batch_ptr, *rows = _saved(
        context
    )
    grads = pair_energy_backward_backward(
        grad_positions,
        grad_cells,
        weights,
        positions,
        cells_,
        species,
        coefficients,
        blocks,
        pair_index,
        r_min,
        cutoff,
        batch_ptr,
        *rows,
    )
    return *grads, *([None] * 11)


pair_evaluate = define_op(
    f"pair_evaluate(Tensor positions, Tensor cells, Tensor species, {_TABLE}, {_ROWS},"
    " bool energy, bool virial, bool per_atom)"
    " -> (Tensor per_atom_energy, Tensor energy, Tensor forces, Tensor virial, Tensor closest)",
    kernels={
        "cpu": Kernel(evaluate_cpu, "C++ threads and SIMD", load_error),
        "cuda": Kernel(evaluate_cuda, "Triton", triton_missing),
    },
    fake=_evaluate_fake,
)
pair_energy_backward_backward = define_op(
    "pair_energy_backward_backward(Tensor grad_positions, Tensor grad_cells, Tensor weights, Tensor positions,"
    f" Tensor cells, Tensor species, {_TABLE}, {_ROWS}) -> (Tensor, Tensor, Tensor)",
    kernels={device: Kernel(second_derivatives, "torch, explicit edges") for device in ("cpu", "cuda")},
    fake=lambda grad_positions, grad_cells, weights, positions, cells_, *rest: (
        torch.empty_like(weights),
        torch.empty_like(positions),
        torch.empty_like(cells_),
    ),
)
pair_energy_backward = define_op(
    f"pair_energy_backward(Tensor weights, Tensor positions, Tensor cells, Tensor species, {_TABLE}, {_ROWS})"
    " -> (Tensor, Tensor)",
    kernels={
        "cpu": Kernel(backward_cpu, "C++ threads and SIMD", load_error),
        "cuda": Kernel(backward_cuda, "Triton", triton_missing),
    },
    fake=lambda weights, positions, cells_, *rest: (torch.empty_like(positions), torch.empty_like(cells_)),
    backward=_backward_backward,
    setup_context=_save,
)
pair_energy = define_op(
    f"pair_energy(Tensor positions, Tensor cells, Tensor species, {_TABLE}, {_ROWS}) -> Tensor",
    kernels={
        "cpu": Kernel(energy_cpu, "C++ threads and SIMD", load_error),
        "cuda": Kernel(energy_cuda, "Triton", triton_missing),
    },
    fake=lambda positions, *rest: positions.new_empty(positions.shape[0]),
    backward=_energy_backward,
    setup_context=_save,
)

__all__ = ["PairResult", "check_closest", "energy", "evaluate", "per_atom_energy"]
