"""Parameters of D3(BJ): of functionals by name, and of the elements, in Å and eV. The data are those of tad-dftd3."""

from __future__ import annotations

import difflib
import importlib
import importlib.resources
import sys
from typing import NamedTuple

import torch

from rsa_kernels.dispersion import DispersionTable
from rsa_kernels.errors import BackendUnavailableError
from rsa_kernels.units import BOHR_IN_A, HARTREE_IN_EV

from .composition import symbol

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LARGEST_NUMBER = 103

_PACKAGES = {
    "tad_dftd3": "tad-dftd3",
    "tad_mctc": "tad-dftd3",
    "warp": "nvalchemi-toolkit-ops",
    "nvalchemiops": "nvalchemi-toolkit-ops",
}


class Damping(NamedTuple):
    """Parameters of a functional, as published."""

    s6: float
    s8: float
    a1: float
    a2: float
    """bohr"""


def package(name: str):
    """Import a package that only dispersion needs.

    Raises
    ------
    BackendUnavailableError
        It is not installed; the message has the line that mends it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        wanted = _PACKAGES[name.split(".")[0]]
        raise BackendUnavailableError(
            f"D3 dispersion needs {wanted}, which cannot be imported ({error}); pip install 'silica-md[d3]'"
        ) from error


def damping_of(functional: str) -> Damping:
    """Becke–Johnson damping of a functional: "pbe", "revpbe", "r2scan", "b3lyp", …; hyphens and case do not matter.

    Raises
    ------
    ValueError
        There is no such functional (the nearest one is named), or none with this damping.
    BackendUnavailableError
        tad-dftd3 is not installed.
    """
    parameters = package("tad_dftd3.param")
    try:
        found = parameters.get_functional_params(functional, damping="bj", dtype=torch.float64)
    except KeyError:
        known = functionals()
        near = difflib.get_close_matches(functional.lower().replace("-", ""), known, n=1, cutoff=0.4)
        hint = f"; did you mean '{near[0]}'?" if near else f"; known are {', '.join(known)}"
        raise ValueError(f"unknown functional '{functional}' of D3(BJ){hint}") from None
    except ValueError:
        raise ValueError(f"functional '{functional}' has no Becke–Johnson damping of D3") from None
    return Damping(*(float(found[name]) for name in Damping._fields))


def functionals() -> list[str]:
    """Names of the functionals with Becke–Johnson damping."""
    package("tad_dftd3.param")
    text = importlib.resources.files("tad_dftd3.param").joinpath("parameters.toml").read_text(encoding="utf-8")
    return sorted(name for name, entry in tomllib.loads(text)["parameter"].items() if "bj" in entry.get("d3", {}))


def table_of(numbers: tuple[int, ...], damping: Damping, cutoff: float, width: float) -> DispersionTable:
    """Return what the kernels need for these elements.

    Parameters
    ----------
    numbers : tuple of int
        Atomic numbers, ascending.
    damping : Damping
    cutoff, width : float
        Å; where pairs end and how far below it they begin to fade.

    Raises
    ------
    ValueError
        D3 has no parameters for an element, or the cutoff or width is out of range.
    """
    d3, radii, length = package("tad_dftd3"), package("tad_mctc.data.radii"), package("tad_mctc.units.length")
    reference = d3.reference.Reference(dtype=torch.float64)
    unknown = [z for z in numbers if not 0 < z <= LARGEST_NUMBER or not bool((reference.cn[z] >= 0.0).any())]
    if unknown:
        raise ValueError(f"D3 has parameters for H to Lr, got {', '.join(symbol(z) for z in unknown)}")
    z = torch.tensor(numbers)
    references = int((reference.cn[z] >= 0.0).sum(dim=1).max())
    c6 = reference.c6[z][:, z, :references, :references] * (HARTREE_IN_EV * BOHR_IN_A**6)
    return DispersionTable(
        numbers=numbers,
        # Covalent radii are defined in Å; they are taken back with the constant they were turned into bohr with.
        radii=radii.COV_D3(dtype=torch.float64)[z] * length.AU2AA,
        moments=d3.data.R4R2(dtype=torch.float64)[z] * BOHR_IN_A,
        reference_cn=reference.cn[z, :references],
        c6=0.5 * (c6 + c6.permute(1, 0, 3, 2)),  # symmetric but for the last digit
        s6=damping.s6,
        s8=damping.s8,
        a1=damping.a1,
        a2=damping.a2 * BOHR_IN_A,
        cutoff=cutoff,
        width=width,
    )
