"""What a structure factor is returned as, and what follows from it: other normalisations, totals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from . import weights
from .bins import pairs_of


@dataclass(frozen=True)
class StructureFactor:
    """Partial structure factors of one system, or of a batch.

    Attributes
    ----------
    q : Tensor
        (n_bins,) bin centres dq, 2 dq, …, Å⁻¹; from `structure_factor_at` the lengths of the vectors given.
    species : tuple of int
        Labels that occur, ascending.
    pairs : list of (int, int)
        Unordered pairs of labels, in the order of `partials`.
    partials : Tensor
        (n_pairs, n_bins), [batched: (n_systems, n_pairs, n_bins)], Faber–Ziman S_ab(Q) → 1; NaN in a bin without
        k-vectors, and for a pair of which a system has no atoms. Differentiable with respect to the positions.
    counts : Tensor
        (n_bins,) [(n_systems, n_bins)] int64, k-vectors that were summed, k and −k both.
    available : Tensor
        The same shape: all that the lattice has.
    errors : Tensor or None
        Standard error of `partials` where a bin was sampled, 0 where all vectors were summed; None where nothing was
        sampled. Of partials only: totals and other normalisations have none.
    method : str
        What ran: "grid", "direct", "sampled", or "grid+sampled".
    reason : str
        Why, and where the routes meet.
    q_min : float or Tensor
        Length of the shortest k-vector, Å⁻¹; (n_systems,) of a batch. Nothing is known below it.
    fractions : Tensor
        (n_species,) [(n_systems, n_species)] atomic fractions c_a, float64.
    boxes : Tensor
        (n_boxes, 9) int64, for reproduction: system, lowest Miller indices and edges of the boxes of modes that were
        summed, on the reduced basis of the cell (`rsa_kernels.structure.lattice.reduced`), and the first and last bin
        (from 1) they were summed for.
    """

    q: Tensor
    species: tuple[int, ...]
    pairs: list[tuple[int, int]]
    partials: Tensor
    counts: Tensor
    available: Tensor
    errors: Tensor | None
    method: str
    reason: str
    q_min: float | Tensor
    fractions: Tensor
    boxes: Tensor | None = field(default=None, repr=False)

    def __getitem__(self, pair: tuple[int, int]) -> Tensor:
        """S_ab(Q) of a pair of labels in either order, (n_bins,) [(n_systems, n_bins)]."""
        a, b = sorted(pair)
        if (a, b) not in self.pairs:
            raise KeyError(f"no pair {pair}; there are {self.pairs}")
        return self.partials[..., self.pairs.index((a, b)), :]

    def ashcroft_langreth(self) -> Tensor:
        """S^AL_ab = δ_ab + (c_a c_b)^½ (S_ab − 1), like `partials`: Re⟨ρ_a ρ_b*⟩ / (N_a N_b)^½."""
        rows = []
        for row, (a, b) in enumerate(pairs_of(len(self.species))):
            c = (self.fractions[..., a] * self.fractions[..., b]).sqrt().unsqueeze(-1).to(self.partials.dtype)
            rows.append((1.0 if a == b else 0.0) + c * (self.partials[..., row, :] - 1.0))
        return torch.stack(rows, dim=-2)

    def neutron(self, lengths: Mapping[int, float] | None = None) -> Tensor:
        """Neutron-weighted total S(Q), (n_bins,) [(n_systems, n_bins)].

        Parameters
        ----------
        lengths : mapping, optional
            Scattering length of each label, fm. None: those of the natural elements, labels being atomic numbers.
        """
        lengths = {s: weights.scattering_length(s) for s in self.species} if lengths is None else lengths
        return self.weighted(lengths)

    def xray(self, form_factors: Mapping[int, Tensor] | None = None) -> Tensor:
        """X-ray-weighted total S(Q), (n_bins,) [(n_systems, n_bins)].

        Parameters
        ----------
        form_factors : mapping, optional
            f(Q) at `q` of each label, electrons. None: those of neutral atoms, labels being atomic numbers.
        """
        if form_factors is None:
            form_factors = {s: weights.form_factor(s, self.q) for s in self.species}
        return self.weighted(form_factors)

    def weighted(self, amplitudes: Mapping[int, float | Tensor]) -> Tensor:
        """S(Q) = 1 + Σ_ab c_a c_b w_a w_b [S_ab(Q) − 1] / (Σ_a c_a w_a)² for amplitudes w_a of each label.

        Raises ValueError where one is missing, or their mean Σ_a c_a w_a is 0, infinite or NaN.
        """
        missing = [s for s in self.species if s not in amplitudes]
        if missing:
            raise ValueError(f"`amplitudes` must name every species, {list(self.species)}; {missing} are missing")
        like = dict(dtype=torch.float64, device=self.q.device)
        waves = [torch.as_tensor(amplitudes[s], **like).expand(self.q.shape) for s in self.species]
        fractions = [self.fractions[..., a].unsqueeze(-1) for a in range(len(self.species))]
        mean = sum((c * w for c, w in zip(fractions, waves, strict=True)), start=torch.zeros((), **like))
        size = sum((c * w.abs() for c, w in zip(fractions, waves, strict=True)), start=torch.zeros((), **like))
        # Rounding of a mean that cancels is not a mean; a system of a batch without atoms has fractions NaN.
        there = torch.isfinite(self.fractions).all(dim=-1).view(*self.fractions.shape[:-1], 1)
        refused = there & ~((mean.abs() > 1e-12 * size) & torch.isfinite(mean))
        if bool(refused.any()):
            raise ValueError(
                "`amplitudes` must be finite and have a mean Σ_a c_a w_a other than 0, by whose square totals are "
                f"divided; got a mean of {float(mean.broadcast_to(refused.shape)[refused][0])}"
            )
        total = torch.ones((), **like)
        for row, weight in enumerate(weights.pair_weights(fractions, waves)):
            term = weight.to(self.partials.dtype) * (self.partials[..., row, :] - 1.0)
            # A pair that a system of a batch has no atoms of has weight 0 and value NaN.
            total = total + torch.where(weight == 0.0, torch.zeros_like(term), term)
        known = self.counts > 0
        return torch.where(known, total, torch.full_like(total, torch.nan)).to(self.partials.dtype)

    def detach(self) -> StructureFactor:
        """Return the same without the graph."""
        return replace(self, partials=self.partials.detach())

    def __repr__(self) -> str:
        q = f"{float(self.q.min()):.3g}–{float(self.q.max()):.3g}" if self.q.numel() else "no"
        return f"StructureFactor({len(self.pairs)} pairs, {q} 1/Å, {self.method}: {self.reason})"
