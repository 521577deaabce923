"""Potentials by name: `build("shik", atomic_numbers)` and the protocol they follow."""

import difflib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import asdict

from torch import Tensor

from . import bks, learned, liu2019, pmmcs, shik
from .dispersion import Dispersion, dispersion, settled_dispersion, with_dispersion
from .ewald import EwaldPotential
from .learned import LearnedPotential
from .protocol import Evaluation, PairPotential, Potential, SumPotential

__all__ = [
    "NAMES",
    "Dispersion",
    "Evaluation",
    "EwaldPotential",
    "LearnedPotential",
    "PairPotential",
    "Potential",
    "SumPotential",
    "build",
    "dispersion",
    "require_known",
    "settled",
    "settled_dispersion",
    "with_dispersion",
]

_BUILDERS = {module.__name__.rpartition(".")[2]: module.build for module in (shik, bks, pmmcs, liu2019)}

NAMES = tuple(_BUILDERS)
"""The names `build` knows, files of learned potentials (``mace:PATH``) aside."""


def build(name: str, atomic_numbers, **options) -> PairPotential | EwaldPotential | LearnedPotential:
    """Return the potential called `name` for a set of atoms.

    Parameters
    ----------
    name : {"shik", "bks", "pmmcs", "liu2019", "mace:PATH"}
        Which potential; each is described in its module. After "mace:" comes the file of a learned one.
    atomic_numbers : sequence of int or torch.Tensor, (n_atoms,)
        The atoms it is for: SHIK takes its oxygen charge from them, the others require that their charges
        cancel.
    **options
        Keyword arguments of the potential, for instance `cutoff` (Å) and `coulomb` of "bks" and "pmmcs", `dtype` of
        a learned one.

    Returns
    -------
    PairPotential, EwaldPotential or LearnedPotential

    Raises
    ------
    ValueError
        Unknown name or option (the nearest right one is named), an element without parameters, charges that
        do not cancel.
    silica_md.errors.ModelFileError
        The file of a learned potential is missing or not what it should be.

    Examples
    --------
    >>> potential = build("shik", [14, 8, 8])
    >>> round(potential.charges[8], 5)
    -0.88775
    """
    require_known(name, options)
    if learned.is_learned(name):
        return learned.build(learned.path_of(name), atomic_numbers, **options)
    return _BUILDERS[name](atomic_numbers, **options)


def settled(name: str, atomic_numbers, cell: Tensor, options: Mapping) -> dict:
    """Options of `build` with everything written out that is otherwise chosen or may change: a run keeps them.

    Settings of Ewald sums are chosen for the density of `cell`, (3, 3) Å, whatever it does later. Of a learned
    potential it is what identifies the file.
    """
    if learned.is_learned(name):
        require_known(name, options)
        return {**learned.fingerprint(learned.path_of(name)), **options}
    potential = build(name, atomic_numbers, **options)
    if not isinstance(potential, EwaldPotential):
        return dict(options)
    return {**options, "ewald": asdict(potential.settled(atomic_numbers, cell, options.get("ewald") or {}))}


def require_known(name: str, options: Iterable[str] = ()) -> None:
    """Refuse a name that `build` does not know, and options that its potential does not have.

    Raises
    ------
    ValueError
        Naming the nearest right one.
    """
    if learned.is_learned(name):
        learned.fingerprint(learned.path_of(name))  # there is such a file
        builder = learned.build
    else:
        _require("potential", name, [*_BUILDERS, f"{learned.PREFIX}PATH"])
        builder = _BUILDERS[name]
    parameters = inspect.signature(builder).parameters.values()
    if "coulomb" in options and "coulomb" not in inspect.signature(builder).parameters:
        offering = [one for one, build in _BUILDERS.items() if "coulomb" in inspect.signature(build).parameters]
        raise ValueError(
            f"the Coulomb sum of potential '{name}' is part of the model and cannot be chosen; `coulomb` goes with"
            f" {' and '.join(offering)}"
        )
    known = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    for option in options:
        _require(f"option of potential '{name}'", option, known)


def _require(what: str, name: str, known: Iterable[str]) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.4)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise ValueError(f"unknown {what} '{name}', known are {', '.join(known)}{hint}")
