"""Which elements a set of atoms holds, and whether a potential's charges add up to zero on them."""

from collections.abc import Iterable, Mapping

import torch
from ase.data import chemical_symbols

# Parameter sets carry 9 digits: a residue of rounding is no charge.
NEUTRAL_WITHIN = 1e-8
"""Largest total charge per atom that counts as neutral, e."""


def symbol(atomic_number: int) -> str:
    """Return the element symbol of an atomic number."""
    if 0 < atomic_number < len(chemical_symbols):
        return chemical_symbols[atomic_number]
    return f"element {atomic_number}"


def composition(name: str, atomic_numbers, supported: Iterable[int]) -> dict[int, int]:
    """Count the atoms of each element, refusing those the potential `name` has no parameters for.

    Raises
    ------
    ValueError
        There are no atoms, `atomic_numbers` is not one row, or an element is not in `supported`.
    """
    numbers = torch.as_tensor(atomic_numbers)
    if numbers.ndim != 1 or numbers.numel() == 0:
        raise ValueError(f"`atomic_numbers` must have shape (n_atoms > 0,), got {tuple(numbers.shape)}")
    found, counts = torch.unique(numbers.cpu().long(), return_counts=True)
    count = dict(zip(found.tolist(), counts.tolist(), strict=True))
    unknown = sorted(set(count) - set(supported))
    if unknown:
        raise ValueError(
            f"potential '{name}' has parameters for {', '.join(symbol(z) for z in sorted(supported))}, "
            f"got {', '.join(symbol(z) for z in unknown)}"
        )
    return count


def check_neutral(name: str, charges: Mapping[int, float], count: Mapping[int, int]) -> None:
    """Refuse a composition on which the charges do not cancel: truncated Coulomb sums would be meaningless.

    Raises
    ------
    ValueError
        Naming the charge left over and the charges used.
    """
    total = sum(charges[z] * n for z, n in count.items())
    if abs(total) > NEUTRAL_WITHIN * sum(count.values()):
        formula = " ".join(f"{symbol(z)}{n}" for z, n in sorted(count.items()))
        used = ", ".join(f"{symbol(z)} {charges[z]:+.6g}" for z in sorted(count))
        raise ValueError(
            f"potential '{name}' needs a neutral composition, got total charge {total:+.6g} e for {formula} "
            f"(charges {used}); add or remove atoms until it vanishes"
        )
