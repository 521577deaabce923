"""What a potential is: the protocol every energy model follows, pair potentials, and sums of potentials."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import torch

import rsa_kernels as rk
from rsa_kernels.pair import PairTable

from .composition import check_neutral, composition
from .functions import PairFunction

if TYPE_CHECKING:
    from ..state import State


class Evaluation(NamedTuple):
    """What a potential returns for one state.

    Attributes
    ----------
    energy : torch.Tensor or None
        Potential energy, 0-d float64, eV.
    forces : torch.Tensor
        −dE/dr, (n_atoms, 3), eV/Å.
    virial : torch.Tensor or None
        W = −dE/dε (ε the strain), (3, 3) symmetric, eV. Pressure is (2 E_kin/3 + tr W/3)/V, static stress
        −W/V.
    per_atom_energy : torch.Tensor or None
        Energies that add up to `energy`, (n_atoms,), eV.
    clearance : torch.Tensor or None
        How much farther apart than the potential needs the closest pair is, 0-d, Å. Negative or NaN: the forces
        are not meaningful. Set where a GPU has not been waited for; elsewhere an error has been raised instead.
    """

    energy: torch.Tensor | None
    forces: torch.Tensor
    virial: torch.Tensor | None = None
    per_atom_energy: torch.Tensor | None = None
    clearance: torch.Tensor | None = None


@runtime_checkable
class Potential(Protocol):
    """An energy model of a state.

    `cutoff` (Å) is the range of the neighbour list the model wants, 0 when it needs none. What is not asked
    for may be None. A model whose parameters or training labels contain dispersion may say so in an attribute
    `dispersion`, such as "PBE-D3(BJ)"; it is then not added a second time.
    """

    name: str
    cutoff: float

    def evaluate(
        self,
        state: State,
        neighbors,
        *,
        energy: bool = True,
        virial: bool = True,
        per_atom_energy: bool = False,
    ) -> Evaluation:
        """Return the forces on the atoms of `state` and what else is asked for."""
        ...


class PairPotential:
    """A sum over pairs of tabulated functions, plus one constant per atom.

        E = Σ_{i<j, r_ij<rc} f_{ab}(r_ij) + Σ_i s_a        (a, b the species of i, j)

    Parameters
    ----------
    name, citation : str
        What the potential is called and where it was published.
    functions : mapping of (int, int) to callable
        f_ab, one per pair of atomic numbers: distance (Å) -> energy (eV), in torch.
    r_min, cutoff : float
        Shortest distance the potential is defined for and the cutoff rc, Å. An approach below `r_min` stops a
        run.
    charges : mapping of int to float
        Charge of each species, e; what neutrality is checked with.
    self_energies : mapping of int to float, optional
        s_a, eV; the self terms of a truncated Coulomb sum.
    tolerance : float
        Largest interpolation error of the table, relative to the value or to 1 meV (1 meV/Å for the force),
        whichever is larger.

    Notes
    -----
    `functions` define the potential; `table`, built from them on first use, is what runs. The virial of the
    constants is zero.
    """

    def __init__(
        self,
        name: str,
        functions: Mapping[tuple[int, int], PairFunction],
        *,
        r_min: float,
        cutoff: float,
        charges: Mapping[int, float],
        self_energies: Mapping[int, float] | None = None,
        citation: str = "",
        tolerance: float = 1e-7,
    ):
        self.name = name
        self.citation = citation
        self.functions = dict(functions)
        self.r_min = float(r_min)
        self.cutoff = float(cutoff)
        self.charges = dict(charges)
        self.self_energies = {z: e for z, e in (self_energies or {}).items() if e != 0.0}
        self.tolerance = float(tolerance)
        self._moved: dict[torch.device, tuple[PairTable, torch.Tensor]] = {}

    @property
    def species(self) -> tuple[int, ...]:
        """Atomic numbers the potential knows, ascending."""
        return tuple(sorted({z for pair in self.functions for z in pair}))

    @functools.cached_property
    def table(self) -> PairTable:
        """The pair functions, tabulated to `tolerance`."""
        return PairTable.from_functions(
            species=self.species,
            functions=self.functions,
            r_min=self.r_min,
            cutoff=self.cutoff,
            tolerance=self.tolerance,
        )

    @functools.cached_property
    def _constants(self) -> torch.Tensor:
        """s_a by atomic number."""
        constants = torch.zeros(max(self.species) + 1, dtype=torch.float64)
        for z, value in self.self_energies.items():
            constants[z] = value
        return constants

    def _on(self, device: torch.device) -> tuple[PairTable, torch.Tensor]:
        """Table and constants on a device, moved there once."""
        if device not in self._moved:
            self._moved[device] = self.table.to(device), self._constants.to(device)
        return self._moved[device]

    def check_composition(self, atomic_numbers: torch.Tensor) -> None:
        """Refuse elements without parameters and a total charge that is not zero.

        Raises
        ------
        ValueError
            Naming the element, or the charge left over.
        """
        check_neutral(self.name, self.charges, composition(self.name, atomic_numbers, self.species))

    def evaluate(
        self,
        state: State,
        neighbors,
        *,
        energy: bool = True,
        virial: bool = True,
        per_atom_energy: bool = False,
    ) -> Evaluation:
        """Return energy, forces, virial of `state`; `neighbors` must reach at least `cutoff`."""
        table, constants = self._on(state.positions.device)
        result = rk.pair.evaluate(
            table,
            state.positions,
            state.cell,
            state.atomic_numbers,
            neighbors,
            energy=energy,
            virial=virial,
            per_atom_energy=per_atom_energy,
        )
        total = result.energy[0] if energy else None
        atomic = result.per_atom_energy
        if self.self_energies and (energy or per_atom_energy):
            own = constants[state.atomic_numbers]
            total = total + own.sum() if energy else None
            atomic = atomic + own if per_atom_energy else None
        clearance = result.closest - table.r_min if state.positions.is_cuda else None
        return Evaluation(total, result.forces, result.virial[0] if virial else None, atomic, clearance)


class SumPotential:
    """The sum of several potentials, for instance a machine-learned short range and an analytic long range.

    One neighbour list serves all: its range is the largest of their cutoffs, and a part with a shorter one is handed
    the pairs within that (and the skin), taken out once after every rebuild.

    Attributes
    ----------
    dispersion : str
        That of the part which contains dispersion; "" where none does.

    Raises
    ------
    ValueError
        There are no parts, or two of them contain dispersion.
    """

    def __init__(self, potentials: Sequence[Potential], name: str | None = None):
        if not potentials:
            raise ValueError("`potentials` must name at least one potential, got an empty sequence")
        self.potentials = tuple(potentials)
        found = [(p.name, p.dispersion) for p in self.potentials if getattr(p, "dispersion", "")]
        if len(found) > 1:
            (one, its), (other, too) = found[:2]
            raise ValueError(
                f"dispersion would be counted twice: potential '{one}' contains {its}, potential '{other}' {too};"
                " leave one of them out"
            )
        self.dispersion = found[0][1] if found else ""
        self._shorter: dict[float, tuple[torch.Tensor, rk.NeighborList]] = {}
        self.name = name or "+".join(p.name for p in self.potentials)
        self.cutoff = max(p.cutoff for p in self.potentials)

    def check_composition(self, atomic_numbers: torch.Tensor) -> None:
        """Let every part refuse a composition it is not made for."""
        for potential in self.potentials:
            if hasattr(potential, "check_composition"):
                potential.check_composition(atomic_numbers)

    def evaluate(
        self,
        state: State,
        neighbors,
        *,
        energy: bool = True,
        virial: bool = True,
        per_atom_energy: bool = False,
    ) -> Evaluation:
        """Return the sums of what the parts return."""
        asked = {"energy": energy, "virial": virial, "per_atom_energy": per_atom_energy}
        parts = [p.evaluate(state, self._list_of(p, neighbors), **asked) for p in self.potentials]
        *columns, clearances = zip(*parts, strict=True)
        sums = [None if any(value is None for value in column) else sum(column) for column in columns]
        known = [clearance for clearance in clearances if clearance is not None]
        return Evaluation(*sums, functools.reduce(torch.minimum, known) if known else None)

    def _list_of(self, part: Potential, neighbors):
        """Pairs for one part: those of the list, or those within its shorter cutoff."""
        if not isinstance(neighbors, rk.NeighborList) or not 0.0 < part.cutoff < self.cutoff:
            return neighbors
        built_from, shorter = self._shorter.get(part.cutoff, (None, None))
        if built_from is not neighbors.rows:  # new rows: the list has been rebuilt, or is another one
            shorter = neighbors.within(part.cutoff, skin=neighbors.skin)
            self._shorter[part.cutoff] = neighbors.rows, shorter
        return shorter
