"""Which Coulomb sum a potential of fixed charges is built with, and that the options given belong to it."""

from collections.abc import Mapping

from .charged import PairFunctions, dsf_potential
from .ewald import EwaldPotential, EwaldSettings, ewald_potential
from .protocol import PairPotential

SUMS = ("dsf", "ewald")


def charged_potential(
    name: str,
    published: Mapping,
    atomic_numbers,
    *short_ranges: PairFunctions,
    coulomb: str,
    alpha: float | None,
    ewald: Mapping | None,
    **common,
) -> PairPotential | EwaldPotential:
    """Return a potential of fixed charges with damped-shifted-force (dsf) or Ewald sums.

    Parameters
    ----------
    name, published, atomic_numbers, *short_ranges, **common
        As for `dsf_potential` and `ewald_potential`.
    coulomb : {"dsf", "ewald"}
        The sum.
    alpha : float, optional
        Damping of "dsf", 1/Å; default 0.2.
    ewald : mapping, optional
        Settings of "ewald", see `EwaldSettings`.

    Raises
    ------
    ValueError
        An unknown sum or setting, or an option that belongs to the other sum.
    """
    if coulomb not in SUMS:
        raise ValueError(f"`coulomb` must be {' or '.join(SUMS)}, got {coulomb!r}")
    if coulomb == "ewald":
        if alpha is not None:
            raise ValueError("`alpha` is an option of coulomb 'dsf', but coulomb is 'ewald'; leave one of them out")
        settings = EwaldSettings.of(ewald or {})
        return ewald_potential(name, published, atomic_numbers, *short_ranges, settings=settings, **common)
    if ewald is not None:
        raise ValueError("`ewald` is an option of coulomb 'ewald', but coulomb is 'dsf'; leave one of them out")
    alpha = 0.2 if alpha is None else alpha
    return dsf_potential(name, published, atomic_numbers, *short_ranges, alpha=alpha, **common)
