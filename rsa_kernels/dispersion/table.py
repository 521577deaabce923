"""What D3(BJ) knows of the elements and of a functional, as tensors in Å and eV."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _checks

MAX_REFERENCES = 8
"""Reference systems of an element, at most."""

STEEPNESS = 16.0
"""k₁ of the count of neighbours."""

SHARPNESS = 4.0
"""k₃ of the weights of reference systems."""

_LARGEST_NUMBER = 119


@dataclass(frozen=True)
class DispersionTable:
    """Parameters of pairwise D3(BJ) for some elements, one functional and one cutoff.

    Attributes
    ----------
    numbers : tuple of int
        Atomic numbers, ascending; the species of the kernels are places in it.
    radii : Tensor
        (n_species,) R_a, covalent radii with D3's factor 4/3, Å.
    moments : Tensor
        (n_species,) Q_a = (√Z/2 ⟨r⁴⟩/⟨r²⟩)^½, Å, so that C8 = 3 Q_a Q_b C6.
    reference_cn : Tensor
        (n_species, n_references) coordination numbers of the reference systems; negative: there is none.
    c6 : Tensor
        (n_species, n_species, n_references, n_references) C6 of pairs of reference systems, eV Å⁶; c6[a, b, p, q] =
        c6[b, a, q, p].
    s6, s8, a1, a2 : float
        Of the functional; a2 in Å.
    cutoff, width : float
        r_c, Å, and how far below it the switch begins, Å; width 0: pairs end abruptly.

    Raises
    ------
    ValueError, TypeError
        A tensor has a wrong shape or dtype, an element has no reference, c6 is not symmetric, a value is out of range.
    """

    numbers: tuple[int, ...]
    radii: Tensor
    moments: Tensor
    reference_cn: Tensor
    c6: Tensor
    s6: float
    s8: float
    a1: float
    a2: float
    cutoff: float
    width: float

    def __post_init__(self):
        n = len(self.numbers)
        if not n or list(self.numbers) != sorted({z for z in self.numbers if 0 < z < _LARGEST_NUMBER}):
            raise ValueError(f"`numbers` must be ascending atomic numbers from 1 to 118, got {self.numbers}")
        for name in ("radii", "moments", "reference_cn", "c6"):
            _checks.tensor(name, getattr(self, name), dtypes=(torch.float64,))
        _checks.shape("radii", self.radii, n)
        _checks.shape("moments", self.moments, n)
        _checks.shape("reference_cn", self.reference_cn, n, "n_references")
        k = self.reference_cn.shape[1]
        _checks.shape("c6", self.c6, n, n, k, k)
        if not 0 < k <= MAX_REFERENCES:
            raise ValueError(f"`reference_cn` must have 1 to {MAX_REFERENCES} references an element, got {k}")
        if not bool((self.reference_cn >= 0.0).any(dim=1).all()):
            raise ValueError("`reference_cn` must hold a reference (a value that is not negative) of every element")
        if not torch.equal(self.c6, self.c6.permute(1, 0, 3, 2)):
            raise ValueError("`c6` must be symmetric, c6[a, b, p, q] = c6[b, a, q, p]")
        for name in ("s6", "s8", "a1"):
            if not torch.isfinite(torch.tensor(getattr(self, name))):
                raise ValueError(f"`{name}` must be finite, got {getattr(self, name)}")
        _checks.not_negative("a2", self.a2, "Å")
        _checks.positive("cutoff", self.cutoff, "Å")
        if not 0.0 <= self.width < self.cutoff:
            raise ValueError(f"`width` must be from 0 to below the cutoff of {self.cutoff} Å, got {self.width}")

    @property
    def damping_radii(self) -> Tensor:
        """(n_species, n_species) f_ab = a1 √(3 Q_a Q_b) + a2, Å."""
        return self.a1 * self.moment_products.sqrt() + self.a2

    @property
    def moment_products(self) -> Tensor:
        """(n_species, n_species) C8/C6 = 3 Q_a Q_b, Å²."""
        return 3.0 * torch.outer(self.moments, self.moments)

    def species(self, atomic_numbers: Tensor) -> Tensor:
        """Species of every atom, int32; −1 for an element the table does not have."""
        return self._species_of.to(atomic_numbers.device)[atomic_numbers.clamp(0, _LARGEST_NUMBER)]

    @functools.cached_property
    def _species_of(self) -> Tensor:
        species_of = torch.full((_LARGEST_NUMBER + 1,), -1, dtype=torch.int32)
        species_of[torch.tensor(self.numbers)] = torch.arange(len(self.numbers), dtype=torch.int32)
        return species_of

    @functools.cached_property
    def packed(self) -> tuple[Tensor, Tensor, Tensor, int]:
        """Pairs, C6 and reference coordination numbers as `csrc/dispersion.hpp` reads them, and how many references."""
        n, k = self.reference_cn.shape
        stride = max(8, n)  # a row of eight is read whole
        radii, f = self.radii[:, None] + self.radii[None, :], self.damping_radii
        pairs = torch.zeros((n, 4, stride), dtype=torch.float64)
        for field, values in enumerate((radii, f**6, f**8, self.s8 * self.moment_products)):
            pairs[:, field, :n] = values
        c6 = torch.zeros((n, n, MAX_REFERENCES, MAX_REFERENCES), dtype=torch.float64)
        c6[:, :, :k, :k] = self.c6
        reference_cn = torch.full((n, MAX_REFERENCES), -1.0, dtype=torch.float64)
        reference_cn[:, :k] = self.reference_cn
        return pairs, c6, reference_cn, k
