"""Liu 2019: the BKS-like silica potential with a public reference energy; kcal/mol inside, eV outside."""

import torch

from rsa_kernels.units import KCAL_PER_MOL_IN_EV

from .charged import by_atomic_numbers, dsf_potential
from .parameters import LIU2019
from .protocol import PairPotential


def short_range(r: torch.Tensor, A: float, rho: float, C6: float, D24: float) -> torch.Tensor:
    """Short-range energy A exp(−r/ρ) + C6/r⁶ + D24/r²⁴ in eV, the parameters in kcal/mol."""
    return KCAL_PER_MOL_IN_EV * (A * torch.exp(-r / rho) + C6 / r**6 + D24 / r**24)


def build(atomic_numbers, *, tolerance: float = 1e-7) -> PairPotential:
    """Return the potential of Liu 2019: all terms truncated at 8 Å, DSF Coulomb with α = 0.25 1/Å.

        U(r) = A exp(−r/ρ) + C6/r⁶ + D24/r²⁴ + DSF(r; qᵢqⱼ, α, rc),   k = 332.06371 kcal/mol·Å

    Parameters
    ----------
    atomic_numbers : sequence of int or torch.Tensor, (n_atoms,)
        Si and O atoms, two O for each Si.
    tolerance : float
        Interpolation error of the table.

    Notes
    -----
    One kcal/mol is 4184 J/mol. Below 0.9 Å the potential is not defined.
    """
    return dsf_potential(
        "liu2019",
        LIU2019,
        atomic_numbers,
        by_atomic_numbers(LIU2019["pairs"], short_range),
        alpha=LIU2019["alpha"],
        cutoff=LIU2019["cutoff"],
        r_min=0.9,
        constant=LIU2019["coulomb_kcal_per_mol"] * KCAL_PER_MOL_IN_EV,
        tolerance=tolerance,
    )
