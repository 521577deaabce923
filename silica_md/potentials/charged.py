"""Puts pair potentials of charged species together: Coulomb for every pair, and the short-range terms."""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import combinations_with_replacement

import torch
from ase.data import atomic_numbers as number_of

from rsa_kernels.units import COULOMB

from .composition import check_neutral, composition
from .functions import PairFunction, coulomb_dsf, dsf_self_energy
from .protocol import PairPotential

PairFunctions = dict[tuple[int, int], PairFunction]


def by_atomic_numbers(table: Mapping[tuple[str, str], dict], function: Callable) -> PairFunctions:
    """Turn parameters per pair of elements into pair functions per (ascending) pair of atomic numbers."""
    return {
        tuple(sorted(number_of[symbol] for symbol in pair)): partial(function, **parameters)
        for pair, parameters in table.items()
    }


def charged_pairs(
    charges: Mapping[int, float], species: Iterable[int], coulomb: Callable, *short_ranges: PairFunctions
) -> PairFunctions:
    """For every pair of `species`, add its Coulomb term and what each of `short_ranges` has for it.

    `coulomb(r, charge_product)` is the energy of two charges.
    """
    functions = {}
    for pair in combinations_with_replacement(sorted(species), 2):
        product = charges[pair[0]] * charges[pair[1]]
        terms = [short_range[pair] for short_range in short_ranges if pair in short_range]
        functions[pair] = _sum_of(*terms, partial(coulomb, charge_product=product))
    return functions


def dsf_potential(
    name: str,
    published: Mapping,
    atomic_numbers,
    *short_ranges: PairFunctions,
    cutoff: float,
    r_min: float,
    alpha: float = 0.2,
    shifted: bool = False,
    constant: float = COULOMB,
    tolerance: float = 1e-7,
) -> PairPotential:
    """Return a potential of fixed charges with damped-shifted-force Coulomb, its self terms included.

    Parameters
    ----------
    name : str
        What it is called.
    published : mapping
        Its parameters: "charges" by element symbol (e) and "citation".
    atomic_numbers : sequence of int or torch.Tensor, (n_atoms,)
        The atoms it is for; their charges must cancel.
    *short_ranges : mapping of (int, int) to callable
        Pair functions to add to the Coulomb term.
    alpha, cutoff : float
        DSF damping (1/Å) and the one cutoff of all terms (Å).
    r_min : float
        Shortest distance it is defined for, Å.
    shifted : bool
        Shift the short-range terms to zero at the cutoff.
    constant : float
        Coulomb constant, eV·Å.
    tolerance : float
        Interpolation error of the table.

    Raises
    ------
    ValueError
        `cutoff` or `alpha` out of range, an element without parameters, or charges that do not cancel.
    """
    if not alpha >= 0.0:
        raise ValueError(f"`alpha` must be at least 0 1/Å, got {alpha!r}")
    checked_cutoff(name, cutoff, r_min)
    charges = {number_of[element]: charge for element, charge in published["charges"].items()}
    count = composition(name, atomic_numbers, charges)
    check_neutral(name, charges, count)
    if shifted:
        short_ranges = shifted_to_zero(short_ranges, cutoff)
    coulomb = partial(coulomb_dsf, alpha=alpha, cutoff=cutoff, constant=constant)
    return PairPotential(
        name,
        charged_pairs(charges, count, coulomb, *short_ranges),
        r_min=r_min,
        cutoff=cutoff,
        charges={z: charges[z] for z in count},
        self_energies={z: dsf_self_energy(charges[z], alpha, cutoff, constant) for z in count},
        citation=published["citation"],
        tolerance=tolerance,
    )


def checked_cutoff(name: str, cutoff: float, r_min: float) -> None:
    """Refuse a cutoff at which the potential is not yet defined."""
    if not r_min < cutoff < math.inf:
        raise ValueError(f"`cutoff` must be above {r_min:g} Å, where '{name}' begins, got {cutoff!r}")


def shifted_to_zero(short_ranges: Iterable[PairFunctions], cutoff: float) -> tuple[PairFunctions, ...]:
    """Subtract from every pair function its value at the cutoff."""
    return tuple({p: _shifted(f, cutoff) for p, f in table.items()} for table in short_ranges)


def _sum_of(*terms: PairFunction) -> PairFunction:
    return lambda r: sum(term(r) for term in terms)


def _shifted(function: PairFunction, cutoff: float) -> PairFunction:
    at_cutoff = function(torch.tensor(cutoff, dtype=torch.float64)).item()
    return lambda r: function(r) - at_cutoff
