"""The D3(BJ) kernel of nvalchemi-toolkit-ops on our neighbour list: float32, CPU and GPU."""

from __future__ import annotations

import torch

from rsa_kernels.dispersion import DispersionTable

from .d3_parameters import package
from .protocol import Evaluation

REFERENCES = 5
"""Of an element, as many as that kernel's tables hold."""


def evaluate(
    table: DispersionTable, state, neighbors, energy: bool = True, virial: bool = True, per_atom_energy: bool = False
) -> Evaluation:
    """Return energy, forces and virial of a table's dispersion; see `rsa_kernels.dispersion.evaluate`.

    Notes
    -----
    The kernel counts every listed pair, skin or not, so it is handed the pairs within the cutoff, taken out anew at
    every call: results do not depend on when the list was built. Every atom is a system of its own to it, because it
    adds systems up in float32; the sum over atoms is taken here, in float64. It is unit-free and runs in Å and eV.

    Raises
    ------
    ValueError
        The list is too short, or an element has more reference systems than the kernel's tables (Ac, Pa to Cm).
    rsa_kernels.errors.BackendUnavailableError
        nvalchemi-toolkit-ops is not installed.
    """
    kernel = kernel_of()
    if neighbors.cutoff < table.cutoff:
        raise ValueError(f"`neighbors` reaches {neighbors.cutoff} Å, but D3 needs {table.cutoff} Å")
    kernel_energy, forces, _, kernel_virial = kernel(**kernel_arguments(table, state, neighbors))
    atoms = kernel_energy.to(torch.float64)
    return Evaluation(
        atoms.sum() if energy else None,
        forces.to(torch.float64),
        kernel_virial.to(torch.float64).sum(0) if virial else None,
        atoms if per_atom_energy else None,
    )


def kernel_of():
    """Import the kernel; warp, which it runs on, then says nothing on standard output."""
    package("warp").config.quiet = True
    return package("nvalchemiops.torch.interactions.dispersion").dftd3


def kernel_arguments(table: DispersionTable, state, neighbors) -> dict:
    """Arguments of the kernel: the pairs within the cutoff, every atom a system of its own."""
    device, n_atoms = state.positions.device, state.n_atoms
    near = neighbors.within(table.cutoff, state.positions, state.cell)
    return {
        "positions": state.positions,
        "numbers": table.species(state.atomic_numbers) + 1,  # 0 is its mark of an atom that is not there
        "a1": table.a1,
        "a2": table.a2,
        "s8": table.s8,
        "s6": table.s6,
        "s5_smoothing_on": table.cutoff - table.width,
        "s5_smoothing_off": table.cutoff,
        **{name: value.to(device) for name, value in _tables(table).items()},
        "batch_idx": torch.arange(n_atoms, dtype=torch.int32, device=device),
        "cell": state.cell.expand(n_atoms, 3, 3).contiguous(),
        "neighbor_list": near.edge_index.to(torch.int32),
        "neighbor_ptr": near.row_ptr.to(torch.int32),
        "unit_shifts": near.unit_shifts,
        "compute_virial": True,
        "num_systems": n_atoms,
    }


def _tables(table: DispersionTable) -> dict[str, torch.Tensor]:
    """Tables by species, with the row 0 that its atoms which are not there have."""
    n, k = table.reference_cn.shape
    if k > REFERENCES:
        raise ValueError(
            f"`kernel` 'nvalchemi' of D3 has room for {REFERENCES} references an element, got {k}; use 'rsa_kernels'"
        )
    radii, moments = torch.zeros(n + 1), torch.zeros(n + 1)
    radii[1:], moments[1:] = table.radii, table.moments
    c6, reference_cn = torch.zeros(2, n + 1, n + 1, REFERENCES, REFERENCES)
    c6[1:, 1:, :k, :k] = table.c6
    reference_cn[1:, 1:, :k] = table.reference_cn[:, None, :, None]
    return {"covalent_radii": radii, "r4r2": moments, "c6_reference": c6, "coord_num_ref": reference_cn}
