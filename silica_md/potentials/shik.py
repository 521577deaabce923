"""SHIK: the potential of Sundararaman, Huang, Ispas and Kob for silica and sodium silicates."""

import math
from functools import partial

import torch
from ase.data import atomic_numbers as number_of

from .charged import by_atomic_numbers, charged_pairs
from .composition import composition
from .functions import coulomb_wolf, smooth_cutoff
from .parameters import SHIK
from .protocol import PairPotential

SI, NA, OX = (number_of[s] for s in ("Si", "Na", "O"))

# The oxygen charge was fitted on oxides of full stoichiometry; a few vacancies are a fair use of it, another
# compound is not.
STOICHIOMETRY_WITHIN = 0.05


def oxygen_charge(atomic_numbers) -> float:
    """Charge of oxygen that makes the atoms neutral, q_O = −(1.7755 n_Si + 0.6018 n_Na)/n_O, e.

    Raises
    ------
    ValueError
        An element is not Si, Na or O, or the numbers of atoms are more than 5 % from (SiO2)·x(Na2O).
    """
    count = composition("shik", atomic_numbers, (OX, NA, SI))
    n_si, n_na, n_o = (count.get(z, 0) for z in (SI, NA, OX))
    wanted = 2 * n_si + n_na / 2
    if abs(n_o - wanted) > STOICHIOMETRY_WITHIN * wanted:
        raise ValueError(
            f"potential 'shik' describes SiO2 and Na2O–SiO2: Si{n_si} Na{n_na} needs about {wanted:g} O, got {n_o}"
        )
    return -(SHIK["charges"]["Si"] * n_si + SHIK["charges"]["Na"] * n_na) / n_o


def short_range(r: torch.Tensor, A: float, B: float, C: float, D: float) -> torch.Tensor:
    """Short-range energy [V(r) − V(rc)] G(r) of a pair, V = A exp(−B r) − C/r⁶ + D/r²⁴ (eV)."""
    cutoff = SHIK["short_range_cutoff"]
    level = A * math.exp(-B * cutoff) - C / cutoff**6 + D / cutoff**24
    value = A * torch.exp(-B * r) - C / r**6 + D / r**24
    return (value - level) * smooth_cutoff(r, cutoff, SHIK["width"])


def build(atomic_numbers, *, tolerance: float = 1e-7) -> PairPotential:
    """Return SHIK for a composition.

        U(r) = [A exp(−B r) − C/r⁶ + D/r²⁴ − V(rc)] G(r; rc) + k qᵢqⱼ [1/r − 1/rw + (r − rw)/rw²] G(r; rw)
        G(r; rc) = exp(−γ²/(r − rc)²),   rc = 8 Å, rw = 10 Å, γ = 0.2 Å

    Parameters
    ----------
    atomic_numbers : sequence of int or torch.Tensor, (n_atoms,)
        Si, O and Na atoms; their numbers fix the oxygen charge, −0.88775 e in silica.
    tolerance : float
        Interpolation error of the table.

    Returns
    -------
    PairPotential
        Cutoff 10 Å; every pair function is smooth at both cutoffs, and there is no self term.

    Notes
    -----
    Below 0.9 Å the potential is not defined: Si–O stands 790 eV above its minimum there. In a melt of 648
    atoms at 5,000 K no pair came closer than 1.23 Å within 3 ps.

    References
    ----------
    S. Sundararaman et al., J. Chem. Phys. 148 (2018) 194504 (silica) and 150 (2019) 154505 (sodium).
    """
    charges = {SI: SHIK["charges"]["Si"], NA: SHIK["charges"]["Na"], OX: oxygen_charge(atomic_numbers)}
    present = composition("shik", atomic_numbers, charges)
    coulomb = partial(coulomb_wolf, cutoff=SHIK["coulomb_cutoff"], width=SHIK["width"])
    return PairPotential(
        "shik",
        charged_pairs(charges, present, coulomb, by_atomic_numbers(SHIK["pairs"], short_range)),
        r_min=0.9,
        cutoff=SHIK["coulomb_cutoff"],
        charges={z: charges[z] for z in present},
        citation=SHIK["citation"],
        tolerance=tolerance,
    )
