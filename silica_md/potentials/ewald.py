"""Potentials of fixed charges with Ewald sums: pairs from a table, waves from `rsa_kernels.ewald`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial

import torch
from ase.data import atomic_numbers as number_of
from torch import Tensor

import rsa_kernels as rk
from rsa_kernels.ewald.parameters import METHODS

from .charged import PairFunctions, charged_pairs, checked_cutoff, shifted_to_zero
from .composition import check_neutral, composition
from .protocol import Evaluation, PairPotential, SumPotential

ATOMS_PER_A3 = 0.0662
"""Density of vitreous silica, for which settings are chosen where no cell is at hand; the error goes as its root."""


SCREENING = 12.0
"""How much coarser than for charges at random a mesh may be. In a glass or melt long waves, which a mesh carries with
the largest absolute error, are weak: that error is 25 times smaller (measured at equal mesh on SiO2 and 5 % Na2O)."""


@dataclass(frozen=True)
class EwaldSettings:
    """How an Ewald sum is done; what is None or "auto" is chosen by `complete`.

    Attributes
    ----------
    accuracy : float
        RMS error of the forces in units of 14.4 eV/Å, from which the others follow.
    sigma : float, optional
        σ, Å.
    k_cut : float, optional
        Cutoff of the waves, 1/Å.
    method : {"auto", "grid", "spectral"}
        Particle mesh or direct sum.
    mesh_tolerance : float, optional
        Relative error a mesh may make.
    """

    accuracy: float = 1e-5
    sigma: float | None = None
    k_cut: float | None = None
    method: str = "auto"
    mesh_tolerance: float | None = None

    @classmethod
    def of(cls, given: Mapping) -> EwaldSettings:
        """Make settings of plain data, refusing a key that is none of theirs."""
        known = [field.name for field in fields(cls)]
        unknown = [key for key in given if key not in known]
        if unknown:
            raise ValueError(f"unknown setting `{unknown[0]}` of `ewald`, known are {', '.join(known)}")
        return cls(**given)

    def complete(self, charges: Tensor, cell: Tensor, cutoff: float) -> EwaldSettings:
        """Choose what is open for atoms of these charges (e) in a cell (Å), pairs being cut off at `cutoff` (Å)."""
        chosen = rk.ewald.parameters(
            charges, cell, accuracy=self.accuracy, cutoff=cutoff, sigma=self.sigma, k_cut=self.k_cut
        )
        tolerance = min(SCREENING * chosen.tolerance, 1e-2) if self.mesh_tolerance is None else self.mesh_tolerance
        method = self.method
        if method not in METHODS:
            raise ValueError(f"`method` must be one of {', '.join(METHODS)}, got {method!r}")
        if method == "auto":
            ends = torch.tensor([0, len(charges)])
            method = rk.ewald.ewald_waves(cell, ends, chosen.sigma, chosen.k_cut, tolerance=tolerance).method
        return EwaldSettings(self.accuracy, chosen.sigma, chosen.k_cut, method, tolerance)


class ChargesInWaves:
    """The part of an Ewald sum that waves carry: E = k_e Σ_m w_m |Σ_j q_j exp(i k_m·r_j)|².

    Parameters
    ----------
    charges : mapping of int to float
        Charge of each species, e.
    settings : EwaldSettings
        Complete ones. As the cell changes waves fade in and out; σ and k_cut stay.

    Notes
    -----
    Energies per atom are half of charge times potential. Waves and their weights are kept while the cell stays as it
    is; on a GPU looking whether it did waits for the device.
    """

    name = "waves"
    cutoff = 0.0

    def __init__(self, charges: Mapping[int, float], settings: EwaldSettings):
        self.charges, self.settings = dict(charges), settings
        self._by_number = torch.zeros(max(charges) + 1, dtype=torch.float64)
        for number, charge in charges.items():
            self._by_number[number] = charge
        self._kept: tuple[Tensor, Tensor, rk.ewald.EwaldWaves] | None = None

    def evaluate(self, state, neighbors, *, energy=True, virial=True, per_atom_energy=False) -> Evaluation:
        """Return energy, forces and virial of `state`, whose cell must be periodic in every direction."""
        charges, waves = self._prepared(state)
        result = rk.ewald.evaluate_waves(state.positions, charges, waves, virial=virial)
        return Evaluation(
            result.energy[0] if energy else None,
            result.forces,
            result.virial[0] if virial else None,
            0.5 * charges * result.potential if per_atom_energy else None,
        )

    def _prepared(self, state) -> tuple[Tensor, rk.ewald.EwaldWaves]:
        """Charges of the atoms and waves of the cell, made anew when either has changed."""
        kept = self._kept
        if kept is None or kept[0].shape != state.atomic_numbers.shape or not torch.equal(kept[1], state.cell):
            if not bool(state.pbc.all()):
                raise ValueError("Ewald sums need a cell that is periodic in every direction; use coulomb 'dsf'")
            ends = torch.tensor([0, state.n_atoms], device=state.cell.device)
            how = self.settings
            waves = rk.ewald.ewald_waves(
                state.cell, ends, how.sigma, how.k_cut, method=how.method, tolerance=how.mesh_tolerance
            )
            kept = self._kept = (state.atomic_numbers, state.cell.clone(), waves)
        return self._by_number.to(state.positions.device)[state.atomic_numbers], kept[2]


class EwaldPotential(SumPotential):
    """Tabulated pairs and waves, together one potential.

    Attributes
    ----------
    pairs : PairPotential
        Short range and the erfc part of the Coulomb energy, self terms included.
    waves : ChargesInWaves
        The rest.
    settings : EwaldSettings
        Complete ones.
    """

    def __init__(self, pairs: PairPotential, waves: ChargesInWaves):
        super().__init__([pairs, waves], pairs.name)
        self.pairs, self.waves = pairs, waves
        self.charges, self.citation, self.settings = pairs.charges, pairs.citation, waves.settings

    @property
    def description(self) -> str:
        """How it sums, for people."""
        how = self.settings
        return (
            f"Ewald sums: σ {how.sigma:.4g} Å, pairs to {self.cutoff:g} Å, waves to {how.k_cut:.4g} 1/Å"
            f" ({how.method}), forces to {how.accuracy:g} × 14.4 eV/Å"
        )

    def settled(self, atomic_numbers: Tensor, cell: Tensor, given: Mapping) -> EwaldSettings:
        """Settings for these atoms in a cell: those given, the others chosen for its density."""
        charges = torch.tensor([self.charges[z] for z in torch.as_tensor(atomic_numbers).tolist()], dtype=torch.float64)
        return EwaldSettings.of(given).complete(charges, cell.cpu(), self.cutoff)


def ewald_potential(
    name: str,
    published: Mapping,
    atomic_numbers,
    *short_ranges: PairFunctions,
    settings: EwaldSettings,
    cutoff: float,
    r_min: float,
    shifted: bool = False,
    tolerance: float = 1e-7,
) -> EwaldPotential:
    """Return a potential of fixed charges with Ewald sums.

    Parameters
    ----------
    name, published, atomic_numbers, *short_ranges, r_min, shifted, tolerance
        As for `dsf_potential`.
    settings : EwaldSettings
        What is open in them is chosen for so many atoms at the density of vitreous silica.
    cutoff : float
        Of the short range and of the erfc part, which is zero there, Å.

    Raises
    ------
    ValueError
        A setting out of range, an element without parameters, or charges that do not cancel.
    """
    checked_cutoff(name, cutoff, r_min)
    charges = {number_of[element]: charge for element, charge in published["charges"].items()}
    count = composition(name, atomic_numbers, charges)
    check_neutral(name, charges, count)
    charges = {z: charges[z] for z in count}
    edge = (sum(count.values()) / ATOMS_PER_A3) ** (1.0 / 3.0)
    settings = settings.complete(_charges_of(charges, count), edge * torch.eye(3, dtype=torch.float64), cutoff)
    coulomb = partial(rk.ewald.real_space, sigma=settings.sigma, cutoff=cutoff)
    pairs = PairPotential(
        name,
        charged_pairs(charges, count, coulomb, *(shifted_to_zero(short_ranges, cutoff) if shifted else short_ranges)),
        r_min=r_min,
        cutoff=cutoff,
        charges=charges,
        self_energies={z: rk.ewald.self_energy(charges[z], settings.sigma, cutoff) for z in count},
        citation=published["citation"],
        tolerance=tolerance,
    )
    return EwaldPotential(pairs, ChargesInWaves(charges, settings))


def _charges_of(charges: Mapping[int, float], count: Mapping[int, int]) -> Tensor:
    """Charges of all atoms, in no order that matters."""
    return torch.cat([torch.full((n,), charges[z], dtype=torch.float64) for z, n in count.items()])
