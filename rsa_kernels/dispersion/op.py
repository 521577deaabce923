"""Public function and registered op of D3(BJ) dispersion."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .. import _checks, cells
from .._library import Kernel, define_op
from .._native import bind, load_error
from ..errors import NonFiniteError
from ..neighbors import NeighborList
from .table import MAX_REFERENCES, DispersionTable

_evaluate = bind("rk_dispersion_evaluate", "pppippppiiifffppppiipppppp")


class DispersionResult(NamedTuple):
    """What `evaluate` returns, in the dtype of the positions."""

    energy: Tensor
    """(n_systems,) eV."""
    forces: Tensor
    """(n_atoms, 3) eV/Å, −dE/dr."""
    virial: Tensor
    """(n_systems, 3, 3) eV, W = −dE/dε, symmetric."""
    per_atom_energy: Tensor
    """(n_atoms,) eV, half of every pair to each of its atoms."""
    coordination: Tensor
    """(n_atoms,) CN."""


def evaluate(
    table: DispersionTable, positions: Tensor, cell: Tensor, atomic_numbers: Tensor, neighbors: NeighborList
) -> DispersionResult:
    """Energy, forces and virial of pairwise D3 dispersion with Becke–Johnson damping, switched off smoothly.

    E    = −½ Σ_(i,j,S) C6_ij S(r_ij) [ s6/(r⁶ + f_ab⁶) + s8 3 Q_a Q_b/(r⁸ + f_ab⁸) ],   f_ab = a1 √(3 Q_a Q_b) + a2
    C6_ij = Σ_pq L_ip L_jq C6_ab,pq,   L_ip ∝ exp(−4 (CN_i − CN_ap)²),  Σ_p L_ip = 1
    CN_i = Σ_j S(r_ij) / (1 + exp(−16 ((R_a + R_b)/r_ij − 1)))
    S(r) = 1 − 10 t³ + 15 t⁴ − 6 t⁵,   t = (r − r_c + w)/w in [0, 1]

    =======================================  ==========================
    symbol                                   argument
    =======================================  ==========================
    C6_ab,pq, CN_ap, Q, R, s6, s8, a1, a2    ``table``
    r_c, w                                   ``table``
    r_i, rows of the cell                    ``positions``, ``cell``
    a, b                                     from ``atomic_numbers``
    (i, j, S)                                ``neighbors``
    =======================================  ==========================

    Parameters
    ----------
    table : DispersionTable
    positions : Tensor
        (n_atoms, 3) Å, float64 or float32; arithmetic is float64 either way.
    cell : Tensor
        (3, 3) or (n_systems, 3, 3) Å.
    atomic_numbers : Tensor
        (n_atoms,) int64.
    neighbors : NeighborList
        Valid for these positions, with a cutoff of at least the table's.

    Returns
    -------
    DispersionResult
        Not differentiable; `reference.per_atom_energy` is.

    Raises
    ------
    ValueError, TypeError
        An argument is wrong, the list is too short, or an element is not in the table.
    rsa_kernels.errors.NonFiniteError
        A position or the cell is NaN or infinite.
    rsa_kernels.errors.BackendUnavailableError
        The tensors are on a GPU: there is no kernel for it.

    Notes
    -----
    The switch multiplies both the pair energy and the count of neighbours, and forces and virial are the exact
    derivatives of the switched sum: energy, forces and virial are continuous, with a continuous first derivative,
    as a pair crosses the cutoff. Three passes over the pairs, some 200 flops a pair in all; 160 bytes an atom and 32 an
    image beyond the list. The three-body term of D3 is not in it. Two calls give the same bits, for any number of
    threads.

    References
    ----------
    S. Grimme et al., J. Chem. Phys. 132 (2010) 154104; S. Grimme, S. Ehrlich, L. Goerigk, J. Comput. Chem. 32 (2011)
    1456 (damping).
    """
    if not isinstance(table, DispersionTable):
        raise TypeError(f"`table` must be a DispersionTable, got {type(table).__name__}")
    if not isinstance(neighbors, NeighborList):
        raise TypeError(f"`neighbors` must be a NeighborList, got {type(neighbors).__name__}")
    device = neighbors.rows.device
    _checks.tensor("positions", positions, dtypes=(torch.float64, torch.float32), device=device)
    _checks.shape("positions", positions, neighbors.n_atoms, 3)
    _checks.tensor("cell", cell, dtypes=(torch.float64, torch.float32), device=device)
    _checks.tensor("atomic_numbers", atomic_numbers, dtypes=(torch.int64,), device=device)
    _checks.shape("atomic_numbers", atomic_numbers, neighbors.n_atoms)
    if neighbors.cutoff < table.cutoff:
        raise ValueError(f"`neighbors` reaches {neighbors.cutoff} Å, but the table needs {table.cutoff} Å")
    if positions.requires_grad or cell.requires_grad:
        raise ValueError(
            "`positions` and `cell` must not require gradients here; dispersion.reference is differentiable"
        )
    batched, _ = cells.as_batch(cell, neighbors.pbc, neighbors.n_systems)
    pairs, c6, reference_cn, n_references = table.packed
    return DispersionResult(
        *dispersion_evaluate(
            positions,
            batched,
            table.species(atomic_numbers),
            *(x.to(device) for x in (pairs, c6, reference_cn)),
            n_references,
            table.s6,
            table.cutoff,
            table.width,
            neighbors.batch_ptr,
            neighbors.rows,
            neighbors.columns,
            neighbors.owners,
            neighbors.image_shifts,
        )
    )


def _evaluate_cpu(
    positions: Tensor,
    cells_: Tensor,
    species: Tensor,
    pairs: Tensor,
    c6: Tensor,
    reference_cn: Tensor,
    n_references: int,
    s6: float,
    cutoff: float,
    width: float,
    batch_ptr: Tensor,
    *rows: Tensor,
):
    n_atoms, n_systems, n_species = positions.shape[0], batch_ptr.numel() - 1, pairs.shape[0]
    if n_atoms and not 0 <= int(species.min()) <= int(species.max()) < n_species:
        raise ValueError("`atomic_numbers` holds an element that the table was not made for")
    inputs = [x.to(torch.float64).contiguous() for x in (positions, cells_, pairs, c6, reference_cn)]
    species, batch_ptr, *rows = (x.contiguous() for x in (species, batch_ptr, *rows))

    def empty(*shape):
        return torch.empty(shape, dtype=torch.float64)

    n_extended = rows[2].shape[0]
    extended, scratch = empty(n_extended + 1, 4), empty(n_atoms, 2 * MAX_REFERENCES + 1)
    atoms, forces, virials, coordination = empty(n_atoms), empty(n_atoms, 3), empty(n_systems, 6), empty(n_atoms)
    status = _evaluate(
        inputs[0].data_ptr(),
        inputs[1].data_ptr(),
        batch_ptr.data_ptr(),
        n_systems,
        species.data_ptr(),
        *(x.data_ptr() for x in inputs[2:]),
        n_species,
        pairs.shape[2],
        n_references,
        s6,
        cutoff,
        width,
        *(x.data_ptr() for x in rows),
        n_extended,
        torch.get_num_threads(),
        *(x.data_ptr() for x in (extended, scratch, atoms, forces, virials, coordination)),
    )
    if status == -1:
        raise NonFiniteError("`positions` or `cell` holds NaN, infinite or absurdly large values")
    xx, yy, zz, yz, xz, xy = virials.unbind(1)
    full = torch.stack((xx, xy, xz, xy, yy, yz, xz, yz, zz), dim=1).reshape(-1, 3, 3)
    system = torch.bucketize(torch.arange(n_atoms), batch_ptr[1:], right=True)
    energies = torch.zeros(n_systems, dtype=torch.float64).index_add_(0, system, atoms)
    return tuple(x.to(positions.dtype) for x in (energies, forces, full, atoms, coordination))


def _evaluate_fake(positions, cells_, species, pairs, c6, reference_cn, n, s6, cutoff, width, batch_ptr, *rows):
    n_atoms, n_systems = positions.shape[0], batch_ptr.shape[0] - 1
    shapes = (n_systems,), (n_atoms, 3), (n_systems, 3, 3), (n_atoms,), (n_atoms,)
    return tuple(positions.new_empty(shape) for shape in shapes)


dispersion_evaluate = define_op(
    "dispersion_evaluate(Tensor positions, Tensor cells, Tensor species, Tensor pairs, Tensor c6, Tensor reference_cn,"
    " int n_references, float s6, float cutoff, float width, Tensor batch_ptr, Tensor rows, Tensor columns,"
    " Tensor owners, Tensor image_shifts)"
    " -> (Tensor energy, Tensor forces, Tensor virial, Tensor per_atom_energy, Tensor coordination)",
    kernels={"cpu": Kernel(_evaluate_cpu, "C++ threads and SIMD", load_error)},
    fake=_evaluate_fake,
)

__all__ = ["DispersionResult", "evaluate"]
