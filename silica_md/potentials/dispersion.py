"""D3(BJ) dispersion as a potential that sums with any other one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import torch

import rsa_kernels as rk
from rsa_kernels.dispersion import DispersionTable

from . import dispersion_nvalchemi as nvalchemi
from .composition import composition
from .d3_parameters import LARGEST_NUMBER, Damping, damping_of, table_of
from .protocol import Evaluation, Potential, SumPotential

KERNELS = ("auto", "rsa_kernels", "nvalchemi")


@dataclass(frozen=True)
class DispersionSettings:
    """How dispersion is summed; what is None follows from the functional.

    Attributes
    ----------
    cutoff : float
        Å. On silica glass with PBE and a width of 1 Å, energy and pressure are off by 0.9 meV/atom and 0.009 GPa
        at 15 Å, 2.0 and 0.020 at 12 Å, 5.4 and 0.056 at 9 Å, against 30 Å.
    width : float
        Å below the cutoff over which pairs fade; 0: they end abruptly.
    kernel : {"auto", "rsa_kernels", "nvalchemi"}
        "auto" is our own (float64, CPU) on a CPU and that of nvalchemi-toolkit-ops (float32, CPU and GPU) on a GPU.
    s6, s8, a1, a2 : float, optional
        Damping, as published; a2 in bohr.
    """

    cutoff: float = 15.0
    width: float = 1.0
    kernel: str = "auto"
    s6: float | None = None
    s8: float | None = None
    a1: float | None = None
    a2: float | None = None

    @classmethod
    def of(cls, functional: str, given: Mapping) -> DispersionSettings:
        """Settings with what is not given filled in from the functional.

        Raises
        ------
        ValueError
            Unknown functional, setting or kernel.
        """
        known = [field.name for field in fields(cls)]
        unknown = [key for key in given if key not in known]
        if unknown:
            raise ValueError(f"unknown option `{unknown[0]}` of D3, known are {', '.join(known)}")
        kernel = given.get("kernel", "auto")
        if kernel not in KERNELS:
            raise ValueError(f"`kernel` of D3 must be one of {', '.join(KERNELS)}, got {kernel!r}")
        numbers = {key: value for key, value in given.items() if key != "kernel" and value is not None}
        for key, value in numbers.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"`{key}` of D3 must be a number, got {value!r}")
        settings = cls(kernel=kernel, **{key: float(value) for key, value in numbers.items()})
        open_ones = [name for name in Damping._fields if getattr(settings, name) is None]
        published = damping_of(functional)._asdict() if open_ones else {}
        return cls(**asdict(settings) | {name: published[name] for name in open_ones})


class Dispersion:
    """Pairwise D3 dispersion with Becke–Johnson damping; the sum is written out at `rsa_kernels.dispersion.evaluate`.

    Parameters
    ----------
    functional : str
        Whose damping: "pbe", "revpbe", "rpbe", "pbe0", "b3lyp", "blyp", "scan", "r2scan", "hse06", …
    atomic_numbers : sequence of int or torch.Tensor, (n_atoms,)
        The atoms it is for.
    settings : DispersionSettings
        Complete ones.

    Notes
    -----
    Without the three-body term. Both sums that end at the cutoff fade smoothly: the pair energy, and the count of
    neighbours from which C6 follows. Far neighbours count too, by 1e-7 and more each, so that forces depend on where
    the count ends: by 3e-5 eV/Å (RMS) between 20 and 30 Å.

    Kernel "nvalchemi" ends the count abruptly, at the cutoff (by 8e-6 of a neighbour at 9 Å, 3e-6 at 12 Å), leaves out
    reference systems that weigh less than exp(−12), and is float32 but for the sum over atoms. On silica glass its
    energy is within 2e-8 eV/atom and its forces within 1e-5 eV/Å of our kernel's with width 0; with a width of 1 Å,
    where the counts differ, within 3e-7 eV/atom and 1.2e-4 eV/Å at 9 Å.

    References
    ----------
    S. Grimme et al., J. Chem. Phys. 132 (2010) 154104; S. Grimme, S. Ehrlich, L. Goerigk, J. Comput. Chem. 32 (2011)
    1456. Damping by functional: the table of simple-dftd3, as tad-dftd3 has it.
    """

    name = "d3"

    def __init__(self, functional: str, atomic_numbers, settings: DispersionSettings):
        numbers = composition(self.name, atomic_numbers, range(1, LARGEST_NUMBER + 1))
        damping = Damping(*(getattr(settings, name) for name in Damping._fields))
        self.functional, self.settings = functional, settings
        self.table: DispersionTable = table_of(tuple(sorted(numbers)), damping, settings.cutoff, settings.width)
        self.cutoff = self.table.cutoff
        self.dispersion = f"{functional.upper()}-D3(BJ)"

    @property
    def description(self) -> str:
        """What is summed, for people."""
        how = self.settings
        return (
            f"{self.dispersion}: s6 {how.s6:g}, s8 {how.s8:g}, a1 {how.a1:g}, a2 {how.a2:g} bohr,"
            f" pairs to {how.cutoff:g} Å, fading over the last {how.width:g} Å"
        )

    def check_composition(self, atomic_numbers: torch.Tensor) -> None:
        """Refuse elements it was not made for."""
        composition(self.name, atomic_numbers, self.table.numbers)

    def evaluate(self, state, neighbors, *, energy=True, virial=True, per_atom_energy=False) -> Evaluation:
        """Return energy, forces and virial of `state`; `neighbors` must reach at least `cutoff`."""
        on_gpu = state.positions.is_cuda
        if self.settings.kernel == "nvalchemi" or (self.settings.kernel == "auto" and on_gpu):
            return nvalchemi.evaluate(self.table, state, neighbors, energy, virial, per_atom_energy)
        result = rk.dispersion.evaluate(self.table, state.positions, state.cell, state.atomic_numbers, neighbors)
        return Evaluation(
            result.energy[0] if energy else None,
            result.forces,
            result.virial[0] if virial else None,
            result.per_atom_energy if per_atom_energy else None,
        )


def dispersion(functional: str, atomic_numbers, **options) -> Dispersion:
    """Return D3(BJ) dispersion of a functional for a set of atoms; options are those of `DispersionSettings`.

    Raises
    ------
    ValueError
        Unknown functional, option or element.
    rsa_kernels.errors.BackendUnavailableError
        tad-dftd3 is not installed.

    Examples
    --------
    >>> dispersion("pbe", [14, 8, 8]).dispersion
    'PBE-D3(BJ)'
    """
    return Dispersion(functional, atomic_numbers, DispersionSettings.of(functional, options))


def settled_dispersion(functional: str, options: Mapping) -> dict:
    """Options of `dispersion` with everything written out, the damping of the functional among it."""
    return asdict(DispersionSettings.of(functional, options))


def with_dispersion(potential: Potential, functional: str, atomic_numbers, **options) -> SumPotential:
    """Return a potential plus D3(BJ) dispersion.

    Raises
    ------
    ValueError
        The potential contains dispersion already, or as for `dispersion`.
    """
    if contained := getattr(potential, "dispersion", ""):
        raise ValueError(
            f"potential '{potential.name}' already contains {contained}: its labels or parameters hold dispersion,"
            f" and D3 of '{functional}' on top would count it twice; leave `d3` out"
        )
    return SumPotential([potential, dispersion(functional, atomic_numbers, **options)])
