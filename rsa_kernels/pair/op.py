"""Public functions and registered ops of tabulated pair potentials."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _checks, cells
from .._library import Kernel, define_op, triton_missing
from .._native import bind, load_error
from ..errors import AtomsTooCloseError, NonFiniteError
from ..neighbors import NeighborList
from .table import PairTable, locate

_evaluate = bind("rk_pair_evaluate", "pppipppppiiffppppiipppppp")

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
    neighbors: NeighborList,
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
    neighbors : NeighborList
        Valid for these positions, with a cutoff of at least the table's.
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
        raise ValueError("`positions` and `cell` must not require gradients here; rsa_kernels.pair.energy is differentiable")
    arguments = _arguments(table, positions, cell, atomic_numbers, neighbors)
    atoms, energies, forces, virials, closest = pair_evaluate(*arguments, energy, virial, per_atom_energy)
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
        raise _too_close(distance, table.r_min)


def _too_close(distance: float, r_min: float) -> AtomsTooCloseError:
    return AtomsTooCloseError(f"two atoms are {distance:.4f} Å apart; the potential is defined for r ≥ {r_min} Å")


def energy(table: PairTable, positions: Tensor, cell: Tensor, atomic_numbers: Tensor, neighbors: NeighborList) -> Tensor:
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
    system = _system_of(neighbors.batch_ptr, positions)
    total = torch.zeros(neighbors.n_systems, dtype=torch.float64, device=positions.device)
    return total.index_add(0, system, atoms.to(torch.float64)).to(positions.dtype)


def per_atom_energy(
    table: PairTable, positions: Tensor, cell: Tensor, atomic_numbers: Tensor, neighbors: NeighborList
) -> Tensor:
    """Differentiable per-atom energies E_i = ½ Σ_j φ(r_ij), (n_atoms,) eV. Parameters as in `evaluate`."""
    _check(table, positions, cell, atomic_numbers, neighbors)
    return pair_energy(*_arguments(table, positions, cell, atomic_numbers, neighbors))


def _check(table: PairTable, positions: Tensor, cell: Tensor, atomic_numbers: Tensor, neighbors: NeighborList) -> None:
    if not isinstance(table, PairTable):
        raise TypeError(f"`table` must be a PairTable, got {type(table).__name__}")
    if not isinstance(neighbors, NeighborList):
        raise TypeError(f"`neighbors` must be a NeighborList, got {type(neighbors).__name__}")
    device = neighbors.rows.device
    _checks.tensor("positions", positions, dtypes=(torch.float64, torch.float32), device=device)
    _checks.shape("positions", positions, neighbors.n_atoms, 3)
    _checks.tensor("cell", cell, dtypes=(torch.float64, torch.float32), device=positions.device)
    _checks.tensor("atomic_numbers", atomic_numbers, dtypes=(torch.int64,), device=positions.device)
    _checks.shape("atomic_numbers", atomic_numbers, neighbors.n_atoms)
    if table.coefficients.device != positions.device:
        raise ValueError(
            f"`table` must be on {positions.device} like the positions, got {table.coefficients.device}; use table.to(...)"
        )
    if neighbors.cutoff < table.cutoff:
        raise ValueError(f"`neighbors` reaches {neighbors.cutoff} Å, but the table needs {table.cutoff} Å")


def _arguments(table: PairTable, positions: Tensor, cell: Tensor, atomic_numbers: Tensor, neighbors: NeighborList) -> tuple:
    batched, _ = cells.as_batch(cell, neighbors.pbc, neighbors.n_systems)
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


def _system_of(batch_ptr: Tensor, positions: Tensor) -> Tensor:
    if batch_ptr.numel() == 2:
        return torch.zeros(positions.shape[0], dtype=torch.int64, device=positions.device)
    index = torch.arange(positions.shape[0], device=positions.device)
    return torch.bucketize(index, batch_ptr[1:], right=True)


# --- kernels -----------------------------------------------------------------------------------------------------


def _call_native(
    positions, cells_, species, weights, coefficients, blocks, pair_index, r_min, cutoff, batch_ptr, rows, columns, owners,
    image_shifts, per_atom, energies, forces, virials,
) -> Tensor:  # fmt: skip
    """Run the C++ pass into the float64 outputs given (None where not wanted); returns the shortest distance."""
    n_intervals = coefficients.shape[1] - 1
    species, coefficients, blocks, pair_index, batch_ptr, rows, columns, owners, image_shifts = (
        x.contiguous() for x in (species, coefficients, blocks, pair_index, batch_ptr, rows, columns, owners, image_shifts)
    )
    extended = torch.empty((owners.shape[0] + 1, 4), dtype=torch.float64)
    closest = torch.empty((), dtype=torch.float64)
    pointers = [tensor.data_ptr() if tensor is not None else None for tensor in (forces, per_atom, energies, virials)]
    status = _evaluate(
        positions.data_ptr(), cells_.data_ptr(), batch_ptr.data_ptr(), batch_ptr.numel() - 1, species.data_ptr(),
        None if weights is None else weights.data_ptr(), coefficients.data_ptr(), blocks.data_ptr(), pair_index.data_ptr(),
        n_intervals, pair_index.shape[0], r_min, cutoff, rows.data_ptr(), columns.data_ptr(),
        owners.data_ptr(), image_shifts.data_ptr(), owners.shape[0], torch.get_num_threads(), extended.data_ptr(),
        *pointers, closest.data_ptr(),
    )  # fmt: skip
    if status == -1:
        raise NonFiniteError("`positions` or `cell` holds NaN, infinite or absurdly large values")
    if status == -2:
        raise _too_close(closest.item(), r_min)
    if status == -3:
        raise ValueError("`atomic_numbers` holds an element that the table was not made for")
    return closest


def _double(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float64).contiguous()


def _symmetric(virials: Tensor) -> Tensor:
    """(n, 6) in the order xx yy zz yz xz xy to (n, 3, 3)."""
    return virials[:, [0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(-1, 3, 3)


def _evaluate_cpu(
    positions, cells_, species, coefficients, blocks, pair_index, r_min, cutoff, batch_ptr, rows, columns, owners, image_shifts,
    want_energy, want_virial, want_per_atom,
):  # fmt: skip
    n_atoms, n_systems = positions.shape[0], batch_ptr.numel() - 1
    forces = torch.empty((n_atoms, 3), dtype=torch.float64)
    per_atom = torch.empty(n_atoms if want_per_atom else 0, dtype=torch.float64)
    energies = torch.empty(n_systems if want_energy else 0, dtype=torch.float64)
    virials = torch.empty((n_systems if want_virial else 0, 6), dtype=torch.float64)
    closest = _call_native(
        _double(positions), _double(cells_), species, None, coefficients, blocks, pair_index, r_min, cutoff, batch_ptr, rows,
        columns, owners, image_shifts, per_atom if want_per_atom else None, energies if want_energy else None, forces,
        virials if want_virial else None,
    )  # fmt: skip
    return *(out.to(positions.dtype) for out in (per_atom, energies, forces, _symmetric(virials))), closest


def _evaluate_cuda(positions, cells_, *others):
    from .triton_pair import run

    *others, want_energy, want_virial, want_per_atom = others
    per_atom, energies, forces, virials, closest = run(
        _double(positions), _double(cells_), *others, energy=want_energy, virial=want_virial, per_atom=want_per_atom
    )
    return *(out.to(positions.dtype) for out in (per_atom, energies, forces, _symmetric(virials))), closest


def _energy_cpu(*arguments):
    return _evaluate_cpu(*arguments, False, False, True)[0]


def _energy_cuda(*arguments):
    return _evaluate_cuda(*arguments, False, False, True)[0]


def _backward_cpu(
    weights, positions, cells_, species, coefficients, blocks, pair_index, r_min, cutoff, batch_ptr, rows, columns, owners,
    image_shifts,
):  # fmt: skip
    n_atoms, n_systems = positions.shape[0], batch_ptr.numel() - 1
    forces = torch.empty((n_atoms, 3), dtype=torch.float64)
    virials = torch.empty((n_systems, 6), dtype=torch.float64)
    exact_positions, exact_cells = _double(positions), _double(cells_)
    _call_native(
        exact_positions, exact_cells, species, _double(weights), coefficients, blocks, pair_index, r_min, cutoff, batch_ptr, rows,
        columns, owners, image_shifts, None, None, forces, virials,
    )  # fmt: skip
    gradient = -forces
    outer = torch.zeros((n_systems, 9), dtype=torch.float64)
    outer.index_add_(0, _system_of(batch_ptr, positions), _products(exact_positions, gradient))
    cell_gradient = _cell_gradient(exact_cells, -_symmetric(virials), outer)
    return gradient.to(positions.dtype), cell_gradient.to(cells_.dtype)


def _backward_cuda(weights, positions, cells_, *others):
    from .triton_pair import run, sum_by_system

    exact_positions, exact_cells, batch_ptr = _double(positions), _double(cells_), others[6]
    _, _, gradient, strain_gradient, _ = run(exact_positions, exact_cells, *others, weights=_double(weights))
    outer = sum_by_system(_products(exact_positions, gradient).t().contiguous(), batch_ptr).t()
    cell_gradient = _cell_gradient(exact_cells, _symmetric(strain_gradient), outer)
    return gradient.to(positions.dtype), cell_gradient.to(cells_.dtype)


def _products(positions: Tensor, gradient: Tensor) -> Tensor:
    """r_i ⊗ g_i of every atom, (n_atoms, 9)."""
    return (positions.unsqueeze(2) * gradient.unsqueeze(1)).reshape(-1, 9)


def _cell_gradient(cells_: Tensor, strain_gradient: Tensor, outer: Tensor) -> Tensor:
    """∂E/∂H at fixed positions, H⁻ᵀ (D − Rᵀ G), Rᵀ G as (n, 9); rows of missing (non-periodic) cell vectors are zero."""
    missing = cells_.norm(dim=-1) == 0
    completed = cells.complete(cells_, ~missing)
    gradient = torch.linalg.solve(completed.transpose(1, 2), strain_gradient - outer.reshape(-1, 3, 3))
    return gradient.masked_fill(missing.unsqueeze(-1), 0.0)


# --- registration ------------------------------------------------------------------------------------------------


def _evaluate_fake(positions, cells_, species, coefficients, blocks, pair_index, r_min, cutoff, batch_ptr, rows, columns, owners,
                   image_shifts, want_energy, want_virial, want_per_atom):  # fmt: skip
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
    """Second derivatives: autograd through the written-out formula on fresh leaves."""
    weights, positions, cells_, species, coefficients, blocks, pair_index, r_min, cutoff, batch_ptr, *rows = _saved(context)
    grads = pair_energy_backward_backward(
        grad_positions, grad_cells, weights, positions, cells_, species, coefficients, blocks, pair_index, r_min, cutoff, batch_ptr,
        *rows,
    )  # fmt: skip
    return *grads, *([None] * 11)


def _entries(rows: Tensor, columns: Tensor) -> Tensor:
    """Neighbour entries of all rows, one row after the other, from compact or from padded columns."""
    if columns.dim() == 1:
        return columns.to(torch.int64)
    counts = rows.diff()
    listed = torch.arange(columns.shape[0], device=columns.device).unsqueeze(1) < counts
    return columns[:, : counts.numel()].t()[listed.t()].to(torch.int64)


def _second(
    grad_positions, grad_cells, weights, positions, cells_, species, coefficients, blocks, pair_index, r_min, cutoff, batch_ptr,
    rows, columns, owners, image_shifts,
):  # fmt: skip
    """Differentiates ⟨u, ∂L/∂R⟩ + ⟨U, ∂L/∂H⟩, L = Σ w_i E_i, by the chain rule on explicit edges, without autograd.

    With edge vectors r, their change δ = u_j − u_i + S U, and φ', φ'' of the table:
    ⟨u, ∂L/∂R⟩ + … = Σ_edges ½ w_i φ' r̂·δ =: Q, so ∂Q/∂w_i = Σ_j ½ φ' r̂·δ and
    ∂Q/∂r = ½ w_i [φ'' (r̂·δ) r̂ + φ' (δ − (r̂·δ) r̂)/r].
    """
    n_atoms, device = positions.shape[0], positions.device
    r_, h_, u, cell_change, w = (_double(x) for x in (positions, cells_, grad_positions, grad_cells, weights))
    system = _system_of(batch_ptr, positions)
    owner = owners.to(torch.int64)
    centre_entry = torch.repeat_interleave(torch.arange(n_atoms, device=device), rows.diff())
    entry = _entries(rows, columns)
    i, j = owner[centre_entry], owner[entry]
    shift = (image_shifts[entry] - image_shifts[centre_entry]).to(torch.float64)
    edge_system = system[i]
    vector = r_[j] - r_[i] + (shift.unsqueeze(1) @ h_[edge_system]).squeeze(1)
    distance = vector.norm(dim=-1)
    inside = (distance < cutoff).nonzero().flatten()
    i, j, shift, edge_system, vector, distance = (x[inside] for x in (i, j, shift, edge_system, vector, distance))
    kind = pair_index[species[i].to(torch.int64), species[j].to(torch.int64)].to(torch.int64)
    interval, t, per_angstrom = locate(distance, blocks, r_min, cutoff)
    record = coefficients.flatten(0, 1)[kind * coefficients.shape[1] + interval]
    d1, d2, d3, d4, d5 = record[:, :5].unbind(-1)
    slope = (d1 + t * (d2 + t * (d3 + t * (d4 + t * d5)))) * per_angstrom
    bend = (d2 + t * (2 * d3 + t * (3 * d4 + t * 4 * d5))) * per_angstrom**2
    direction = vector / distance.unsqueeze(-1)
    change = u[j] - u[i] + (shift.unsqueeze(1) @ cell_change[edge_system]).squeeze(1)
    along = (direction * change).sum(-1)
    grad_weights = torch.zeros(n_atoms, dtype=torch.float64, device=device).index_add_(0, i, 0.5 * slope * along)
    across = change - along.unsqueeze(-1) * direction
    bent = (bend * along).unsqueeze(-1) * direction + (slope / distance).unsqueeze(-1) * across
    edge_grad = 0.5 * w[i].unsqueeze(-1) * bent
    out = torch.zeros((n_atoms, 3), dtype=torch.float64, device=device).index_add_(0, j, edge_grad).index_add_(0, i, -edge_grad)
    products = (shift.unsqueeze(2) * edge_grad.unsqueeze(1)).reshape(-1, 9)
    out_cells = torch.zeros((cells_.shape[0], 9), dtype=torch.float64, device=device).index_add_(0, edge_system, products)
    return grad_weights.to(weights.dtype), out.to(positions.dtype), out_cells.reshape(-1, 3, 3).to(cells_.dtype)


pair_evaluate = define_op(
    f"pair_evaluate(Tensor positions, Tensor cells, Tensor species, {_TABLE}, {_ROWS}, bool energy, bool virial, bool per_atom)"
    " -> (Tensor per_atom_energy, Tensor energy, Tensor forces, Tensor virial, Tensor closest)",
    kernels={
        "cpu": Kernel(_evaluate_cpu, "C++ threads and SIMD", load_error),
        "cuda": Kernel(_evaluate_cuda, "Triton", triton_missing),
    },
    fake=_evaluate_fake,
)
pair_energy_backward_backward = define_op(
    "pair_energy_backward_backward(Tensor grad_positions, Tensor grad_cells, Tensor weights, Tensor positions, Tensor cells,"
    f" Tensor species, {_TABLE}, {_ROWS}) -> (Tensor, Tensor, Tensor)",
    kernels={device: Kernel(_second, "torch, explicit edges") for device in ("cpu", "cuda")},
    fake=lambda grad_positions, grad_cells, weights, positions, cells_, *rest: (
        torch.empty_like(weights), torch.empty_like(positions), torch.empty_like(cells_)
    ),
)  # fmt: skip
pair_energy_backward = define_op(
    f"pair_energy_backward(Tensor weights, Tensor positions, Tensor cells, Tensor species, {_TABLE}, {_ROWS})"
    " -> (Tensor, Tensor)",
    kernels={
        "cpu": Kernel(_backward_cpu, "C++ threads and SIMD", load_error),
        "cuda": Kernel(_backward_cuda, "Triton", triton_missing),
    },
    fake=lambda weights, positions, cells_, *rest: (torch.empty_like(positions), torch.empty_like(cells_)),
    backward=_backward_backward,
    setup_context=_save,
)
pair_energy = define_op(
    f"pair_energy(Tensor positions, Tensor cells, Tensor species, {_TABLE}, {_ROWS}) -> Tensor",
    kernels={
        "cpu": Kernel(_energy_cpu, "C++ threads and SIMD", load_error),
        "cuda": Kernel(_energy_cuda, "Triton", triton_missing),
    },
    fake=lambda positions, *rest: positions.new_empty(positions.shape[0]),
    backward=_energy_backward,
    setup_context=_save,
)

__all__ = ["PairResult", "check_closest", "energy", "evaluate", "per_atom_energy"]
