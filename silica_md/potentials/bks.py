"""BKS: the silica potential of van Beest, Kramer and van Santen, with damped-shifted-force or Ewald sums."""

from collections.abc import Mapping

from .charged import by_atomic_numbers
from .coulomb import charged_potential
from .ewald import EwaldPotential
from .functions import buckingham, repair_30_6
from .parameters import BKS
from .protocol import PairPotential


def build(
    atomic_numbers,
    *,
    coulomb: str = "dsf",
    alpha: float | None = None,
    ewald: Mapping | None = None,
    cutoff: float = 10.0,
    repair: bool = True,
    shifted: bool = False,
    tolerance: float = 1e-7,
) -> PairPotential | EwaldPotential:
    """Return BKS with damped-shifted-force (DSF) or Ewald sums of the Coulomb energy.

        U(r) = A exp(−b r) − C/r⁶ + 4ε[(σ/r)³⁰ − (σ/r)⁶] + Coulomb(r; qᵢqⱼ)

    Parameters
    ----------
    atomic_numbers : sequence of int or torch.Tensor, (n_atoms,)
        Si and O atoms, two O for each Si: the charges are fixed.
    coulomb : {"dsf", "ewald"}
        Damped-shifted-force or Ewald sums.
    alpha : float, optional
        Damping of "dsf", 1/Å; default 0.2.
    ewald : mapping, optional
        Settings of "ewald": accuracy (RMS error of the forces in units of 14.4 eV/Å, default 1e-5), and sigma, k_cut,
        method, mesh_tolerance, which follow from it; see `silica_md.potentials.ewald.EwaldSettings`.
    cutoff : float
        Cutoff rc of the Coulomb and of the short-range part, Å.
    repair : bool
        Add the 30–6 wall. Without it Si–O fuses inside 1.19 Å and O–O inside 1.44 Å, so bare BKS is for
        glasses, never for hot melts.
    shifted : bool
        Shift the short-range part to zero at the cutoff (it is truncated by default, as the published lattice
        energies are). Forces do not change; the energy no longer jumps, by 0.18 meV for O–O, when a pair
        crosses the cutoff.
    tolerance : float
        Interpolation error of the table.

    Notes
    -----
    Below 0.9 Å (1.19 Å without the repair, the crest of the barrier) the potential is not defined and a run
    stops. With the repair no pair of a 5,000 K melt of 648 atoms came closer than 1.19 Å within 3 ps.

    References
    ----------
    B. W. H. van Beest et al., Phys. Rev. Lett. 64 (1990) 1955; I. Saika-Voivod et al., Phys. Rev. E 69 (2004)
    041503 (repair); C. J. Fennell and J. D. Gezelter, J. Chem. Phys. 124 (2006) 234104 (DSF).
    """
    short_ranges = [by_atomic_numbers(BKS["pairs"], buckingham)]
    if repair:
        short_ranges.append(by_atomic_numbers(BKS["repair"], repair_30_6))
    return charged_potential(
        "bks",
        BKS,
        atomic_numbers,
        *short_ranges,
        coulomb=coulomb,
        alpha=alpha,
        ewald=ewald,
        cutoff=cutoff,
        shifted=shifted,
        r_min=0.9 if repair else 1.19,
        tolerance=tolerance,
    )
