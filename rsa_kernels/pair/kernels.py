"""Kernels behind the pair ops: the C++ pass, the Triton pass, and second derivatives over explicit edges.

All take the flat arguments of the ops' schemas: positions, cells, species, the table and the rows of neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import cells
from .._native import bind
from ..errors import AtomsTooCloseError, NonFiniteError
from .table import locate

_evaluate = bind("rk_pair_evaluate", "pppipppppiiffppppiipppppp")


def system_of(batch_ptr: Tensor, positions: Tensor) -> Tensor:
    """System every atom belongs to, (n_atoms,) int64."""
    if batch_ptr.numel() == 2:
        return torch.zeros(positions.shape[0], dtype=torch.int64, device=positions.device)
    index = torch.arange(positions.shape[0], device=positions.device)
    return torch.bucketize(index, batch_ptr[1:], right=True)


def too_close(distance: float, r_min: float) -> AtomsTooCloseError:
    """Return the error that a pair below r_min is met with."""
    return AtomsTooCloseError(f"two atoms are {distance:.4f} Å apart; the potential is defined for r ≥ {r_min} Å")


def _call_native(
    positions,
    cells_,
    species,
    weights,
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
    per_atom,
    energies,
    forces,
    virials,
) -> Tensor:
    """Run the C++ pass into the float64 outputs given (None where not wanted); returns the shortest distance."""
    n_intervals = coefficients.shape[1] - 1
    species, coefficients, blocks, pair_index, batch_ptr, rows, columns, owners, image_shifts = (
        x.contiguous()
        for x in (species, coefficients, blocks, pair_index, batch_ptr, rows, columns, owners, image_shifts)
    )
    extended = torch.empty((owners.shape[0] + 1, 4), dtype=torch.float64)
    closest = torch.empty((), dtype=torch.float64)
    pointers = [tensor.data_ptr() if tensor is not None else None for tensor in (forces, per_atom, energies, virials)]
    status = _evaluate(
        positions.data_ptr(),
        cells_.data_ptr(),
        batch_ptr.data_ptr(),
        batch_ptr.numel() - 1,
        species.data_ptr(),
        None if weights is None else weights.data_ptr(),
        coefficients.data_ptr(),
        blocks.data_ptr(),
        pair_index.data_ptr(),
        n_intervals,
        pair_index.shape[0],
        r_min,
        cutoff,
        rows.data_ptr(),
        columns.data_ptr(),
        owners.data_ptr(),
        image_shifts.data_ptr(),
        owners.shape[0],
        torch.get_num_threads(),
        extended.data_ptr(),
        *pointers,
        closest.data_ptr(),
    )
    if status == -1:
        raise NonFiniteError("`positions` or `cell` holds NaN, infinite or absurdly large values")
    if status == -2:
        raise too_close(closest.item(), r_min)
    if status == -3:
        raise ValueError("`atomic_numbers` holds an element that the table was not made for")
    return closest


def _double(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float64).contiguous()


def _symmetric(virials: Tensor) -> Tensor:
    """(n, 6) in the order xx yy zz yz xz xy to (n, 3, 3)."""
    if virials.shape[0] == 0:
        return virials.new_empty((0, 3, 3))
    xx, yy, zz, yz, xz, xy = virials.unbind(1)
    return torch.stack((xx, xy, xz, xy, yy, yz, xz, yz, zz), dim=1).reshape(-1, 3, 3)


def evaluate_cpu(
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
    """`pair_evaluate` by the C++ pass."""
    n_atoms, n_systems = positions.shape[0], batch_ptr.numel() - 1
    forces = torch.empty((n_atoms, 3), dtype=torch.float64)
    per_atom = torch.empty(n_atoms if want_per_atom else 0, dtype=torch.float64)
    energies = torch.empty(n_systems if want_energy else 0, dtype=torch.float64)
    virials = torch.empty((n_systems if want_virial else 0, 6), dtype=torch.float64)
    closest = _call_native(
        _double(positions),
        _double(cells_),
        species,
        None,
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
        per_atom if want_per_atom else None,
        energies if want_energy else None,
        forces,
        virials if want_virial else None,
    )
    return *(out.to(positions.dtype) for out in (per_atom, energies, forces, _symmetric(virials))), closest


def evaluate_cuda(positions, cells_, *others):
    """`pair_evaluate` by Triton."""
    from .triton_pair import run

    *others, want_energy, want_virial, want_per_atom = others
    per_atom, energies, forces, virials, closest = run(
        _double(positions), _double(cells_), *others, energy=want_energy, virial=want_virial, per_atom=want_per_atom
    )
    return *(out.to(positions.dtype) for out in (per_atom, energies, forces, _symmetric(virials))), closest


def energy_cpu(*arguments):
    """`pair_energy` by the C++ pass."""
    return evaluate_cpu(*arguments, False, False, True)[0]


def energy_cuda(*arguments):
    """`pair_energy` by Triton; NaN where a pair is closer than r_min, or a position is not finite."""
    per_atom, _, _, _, closest = evaluate_cuda(*arguments, False, False, True)
    # Nothing waits for the device here: too close a pair shows as NaN, never as a plausible number. `closest` is NaN
    # where forces are, and energies need not be.
    return torch.where(closest >= arguments[6], per_atom, torch.nan)


def backward_cpu(
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
    rows,
    columns,
    owners,
    image_shifts,
):
    """`pair_energy_backward` by the C++ pass: forces and virial of Σ w_i E_i."""
    n_atoms, n_systems = positions.shape[0], batch_ptr.numel() - 1
    forces = torch.empty((n_atoms, 3), dtype=torch.float64)
    virials = torch.empty((n_systems, 6), dtype=torch.float64)
    exact_positions, exact_cells = _double(positions), _double(cells_)
    _call_native(
        exact_positions,
        exact_cells,
        species,
        _double(weights),
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
        None,
        None,
        forces,
        virials,
    )
    gradient = -forces
    outer = torch.zeros((n_systems, 9), dtype=torch.float64)
    outer.index_add_(0, system_of(batch_ptr, positions), _products(exact_positions, gradient))
    cell_gradient = _cell_gradient(exact_cells, -_symmetric(virials), outer)
    return gradient.to(positions.dtype), cell_gradient.to(cells_.dtype)


def backward_cuda(weights, positions, cells_, *others):
    """`pair_energy_backward` by Triton."""
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
    """∂E/∂H at fixed positions, H⁻ᵀ (D − Rᵀ G), Rᵀ G as (n, 9); rows of missing cell vectors are zero."""
    missing = cells_.norm(dim=-1) == 0
    completed = cells.complete(cells_, ~missing)
    gradient = torch.linalg.solve(completed.transpose(1, 2), strain_gradient - outer.reshape(-1, 3, 3))
    return gradient.masked_fill(missing.unsqueeze(-1), 0.0)


def _entries(rows: Tensor, columns: Tensor) -> Tensor:
    """Neighbour entries of all rows, one row after the other, from compact or from padded columns."""
    if columns.dim() == 1:
        return columns.to(torch.int64)
    counts = rows.diff()
    listed = torch.arange(columns.shape[0], device=columns.device).unsqueeze(1) < counts
    return columns[:, : counts.numel()].t()[listed.t()].to(torch.int64)


def second_derivatives(
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
    rows,
    columns,
    owners,
    image_shifts,
):
    """Differentiates ⟨u, ∂L/∂R⟩ + ⟨U, ∂L/∂H⟩, L = Σ w_i E_i, by the chain rule on explicit edges, without autograd.

    With edge vectors r, their change δ = u_j − u_i + S U, and φ', φ'' of the table:
    ⟨u, ∂L/∂R⟩ + … = Σ_edges ½ w_i φ' r̂·δ =: Q, so ∂Q/∂w_i = Σ_j ½ φ' r̂·δ and
    ∂Q/∂r = ½ w_i [φ'' (r̂·δ) r̂ + φ' (δ − (r̂·δ) r̂)/r].
    """
    n_atoms, device = positions.shape[0], positions.device
    r_, h_, u, cell_change, w = (_double(x) for x in (positions, cells_, grad_positions, grad_cells, weights))
    system = system_of(batch_ptr, positions)
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
    out = (
        torch.zeros((n_atoms, 3), dtype=torch.float64, device=device)
        .index_add_(0, j, edge_grad)
        .index_add_(0, i, -edge_grad)
    )
    products = (shift.unsqueeze(2) * edge_grad.unsqueeze(1)).reshape(-1, 9)
    out_cells = torch.zeros((cells_.shape[0], 9), dtype=torch.float64, device=device).index_add_(
        0, edge_system, products
    )
    return grad_weights.to(weights.dtype), out.to(positions.dtype), out_cells.reshape(-1, 3, 3).to(cells_.dtype)
