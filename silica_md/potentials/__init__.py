"""Potentials by name: `build("shik", atomic_numbers)` and the protocol they follow."""

import difflib
import inspect
from collections.abc import Iterable

from . import bks, liu2019, pmmcs, shik
from .protocol import Evaluation, PairPotential, Potential, SumPotential

__all__ = ["NAMES", "Evaluation", "PairPotential", "Potential", "SumPotential", "build", "require_known"]

_BUILDERS = {module.__name__.rpartition(".")[2]: module.build for module in (shik, bks, pmmcs, liu2019)}

NAMES = tuple(_BUILDERS)
"""The names `build` knows."""


def build(name: str, atomic_numbers, **options) -> PairPotential:
    """Return the potential called `name` for a set of atoms.

    Parameters
    ----------
    name : {"shik", "bks", "pmmcs", "liu2019"}
        Which potential; each is described in its module.
    atomic_numbers : sequence of int or torch.Tensor, (n_atoms,)
        The atoms it is for: SHIK takes its oxygen charge from them, the others require that their charges
        cancel.
    **options
        Keyword arguments of the potential, for instance `cutoff` and `alpha` (Å, 1/Å) of "bks" and "pmmcs".

    Returns
    -------
    PairPotential

    Raises
    ------
    ValueError
        Unknown name or option (the nearest right one is named), an element without parameters, charges that
        do not cancel.

    Examples
    --------
    >>> potential = build("shik", [14, 8, 8])
    >>> round(potential.charges[8], 5)
    -0.88775
    """
    require_known(name, options)
    return _BUILDERS[name](atomic_numbers, **options)


def require_known(name: str, options: Iterable[str] = ()) -> None:
    """Refuse a name that `build` does not know, and options that its potential does not have.

    Raises
    ------
    ValueError
        Naming the nearest right one.
    """
    _require("potential", name, _BUILDERS)
    parameters = inspect.signature(_BUILDERS[name]).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    for option in options:
        _require(f"option of potential '{name}'", option, known)


def _require(what: str, name: str, known: Iterable[str]) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.4)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise ValueError(f"unknown {what} '{name}', known are {', '.join(known)}{hint}")
