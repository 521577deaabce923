"""From atoms to waves and back: the protocol both linear-memory methods follow, and the direct (spectral) one.

Every formula of `mode_space` is written on a `Transform`; the derivatives of the attention need nothing else.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor

_ATOM_BLOCK = 16384
"""Atoms summed in the dtype of the channels before the sum continues in float64."""


class Transform(Protocol):
    """Waves θ_jm = 2π n_m·f_j of one system, for channels x (n_atoms, C) and states z (2, n_modes, C).

    `gather` is the transpose of `accumulate`, its pull and all tangents are exact derivatives of what the transform
    computes, be it approximate or not: forces are the gradient of the energy to rounding.
    """

    def accumulate(self, x: Tensor) -> Tensor:
        """Z_m = Σ_j (cos θ_jm, sin θ_jm) x_j, (2, n_modes, C)."""

    def accumulate_tangent(self, x: Tensor, a: Tensor) -> Tensor:
        """Rate of `accumulate` as the fractional coordinates move along a, (n_atoms, 3) float64."""

    def field(self, z: Tensor) -> Any:
        """Whatever `gather` wants prepared once for states z."""

    def gather(self, field: Any, x: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """y_i = Σ_m cos θ_im z_0m + sin θ_im z_1m, (n_atoms, C); given x also ∂(Σ_i x_i·y_i)/∂f, (n_atoms, 3)."""

    def gather_tangent(self, field: Any, a: Tensor, x: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Rates of both results of `gather` as the fractional coordinates move along a."""


def waves(fractional: Tensor, miller: Tensor, out: Tensor) -> Tensor:
    """[cos θ | sin θ] into (n_atoms, 2 n_modes); phases are reduced to half a turn in float64."""
    phases = fractional @ miller.to(fractional.dtype).T
    phases = phases.sub_(phases.round()).mul_(2.0 * math.pi).to(out.dtype)
    cos, sin = _halves(out)
    torch.cos(phases, out=cos)
    torch.sin(phases, out=sin)
    return out


def _halves(both: Tensor) -> tuple[Tensor, Tensor]:
    n_modes = both.shape[1] // 2
    return both[:, :n_modes], both[:, n_modes:]


def turned(both: Tensor, rates: Tensor) -> Tensor:
    """Rate of `waves` when phases change at `rates` (n_atoms, n_modes): [−sin θ · rate | cos θ · rate]."""
    n_modes = rates.shape[1]
    out = torch.empty_like(both)
    torch.mul(both[:, n_modes:], rates, out=out[:, :n_modes]).neg_()
    torch.mul(both[:, :n_modes], rates, out=out[:, n_modes:])
    return out


class SpectralTransform:
    """The direct sum, as matrix products: 4 n_atoms n_modes C flops each way, 2 n_atoms n_modes numbers kept.

    Parameters
    ----------
    fractional : Tensor
        (n_atoms, 3) float64.
    miller : Tensor
        (n_modes, 3) int32, all modes of a system or a chunk of them.
    dtype : torch.dtype
        Of the channels.
    """

    def __init__(self, fractional: Tensor, miller: Tensor, dtype: torch.dtype):
        self.turns = 2.0 * math.pi * miller.to(torch.float64)
        out = torch.empty((len(fractional), 2 * len(miller)), dtype=dtype, device=fractional.device)
        self.waves = waves(fractional - fractional.floor(), miller, out)

    def accumulate(self, x: Tensor) -> Tensor:
        """Z_m = Σ_j (cos θ_jm, sin θ_jm) x_j."""
        return self._sum(self.waves, x)

    def accumulate_tangent(self, x: Tensor, a: Tensor) -> Tensor:
        """Rate of `accumulate` along a."""
        return self._sum(turned(self.waves, self._rates(a)), x)

    def field(self, z: Tensor) -> Tensor:
        """The states as rows of a matrix."""
        return z.reshape(-1, z.shape[-1]).to(self.waves.dtype)

    def gather(self, field: Tensor, x: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """y and pull, see `Transform`."""
        y = self.waves @ field
        if x is None:
            return y, None
        (cos, sin), (of_cos, of_sin) = _halves(self.waves), _halves(x @ field.T)
        return y, self._along((cos * of_sin).sub_(sin * of_cos))

    def gather_tangent(self, field: Tensor, a: Tensor, x: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Rates of y and pull along a."""
        rates = self._rates(a)
        dy = turned(self.waves, rates) @ field
        if x is None:
            return dy, None
        (cos, sin), (of_cos, of_sin) = _halves(self.waves), _halves(x @ field.T)
        return dy, self._along((cos * of_cos).add_(sin * of_sin).mul_(rates).neg_())

    def _rates(self, a: Tensor) -> Tensor:
        """dθ/dε of every atom and mode, in the dtype of the channels."""
        return (a @ self.turns.T).to(self.waves.dtype)

    def _along(self, per_phase: Tensor) -> Tensor:
        """Σ_m 2π n_m ∂/∂θ_im: from derivatives by phase to those by fractional coordinate."""
        return (per_phase @ self.turns.to(per_phase.dtype)).to(torch.float64)

    def _sum(self, both: Tensor, x: Tensor) -> Tensor:
        blocks = zip(both.split(_ATOM_BLOCK), x.split(_ATOM_BLOCK), strict=True)
        if len(x) <= _ATOM_BLOCK:
            total = both.T @ x
        else:
            total = torch.zeros((both.shape[1], x.shape[1]), dtype=torch.float64, device=x.device)
            for part, channels in blocks:
                total += part.T @ channels
            total = total.to(x.dtype)
        return total.view(2, -1, x.shape[1])
