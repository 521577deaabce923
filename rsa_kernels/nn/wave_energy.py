"""Energy of latent charges through the waves of the cell: what SOG-Net and latent Ewald summation share."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _checks
from ..reciprocal import Modes, accumulate_modes, reciprocal_attention
from .waves import WaveModule, check_norm


class WaveEnergy(WaveModule):
    """Energy of latent charges through the waves of the cell, E = (scale/V) Σ_k w(|k|) |Σ_i q_i exp(ik·r_i)|²."""

    def __init__(self, norm, published_norm, k_cut, scale, window_start, method, tolerance):
        check_norm(norm, published_norm)
        if method == "pairwise":
            raise ValueError("`method` 'pairwise' does not pay for an energy of few channels; use 'auto'")
        _checks.positive("k_cut", k_cut, "1/Å")
        super().__init__(k_cut, window_start if norm == "intensive" else 1.0, method, tolerance)
        self.norm = norm
        self.scale = _checks.positive("scale", scale)
        self.self_energy = 0.0

    def forward(
        self,
        charges: Tensor,
        positions: Tensor,
        cell: Tensor,
        batch_ptr: Tensor | None = None,
        modes: Modes | None = None,
        *,
        pbc=True,
    ) -> Tensor:
        """Return the energy of every system.

        Parameters
        ----------
        charges : Tensor
            Latent charges, (n_atoms,) or (n_atoms, channels): the network's output for every atom, any dtype of the op.
        positions : Tensor
            (n_atoms, 3) Å, float64 or float32, wrapped or not.
        cell : Tensor
            (3, 3) or (n_systems, 3, 3) Å.
        batch_ptr : Tensor, optional
            (n_systems + 1,) int64; None means one system. See `batch_pointers`.
        modes : Modes, optional
            From `self.modes`.
        pbc : bool or sequence of bool
            Must be periodic in every direction.

        Returns
        -------
        Tensor
            (n_systems,) in the dtype of `charges`; summed over the channels, in float64.
        """
        charges = _channels(charges)
        modes = self._modes_of(cell, batch_ptr, modes, pbc)
        v = charges.unsqueeze(1)
        states = accumulate_modes(
            torch.ones_like(v[..., :1]), v, positions, cell, modes, batch_ptr, self.method, tolerance=self.tolerance
        )
        # The other half of space doubles every wave.
        of_waves = 2.0 * self.scale * modes.weights * states.to(torch.float64).square().sum(dim=(0, 2, 3, 4))
        energy = _sums(of_waves, modes.mode_ptr)
        if self.self_energy:
            of_atoms = self.self_energy * charges.to(torch.float64).square().sum(dim=1)
            energy = energy - _sums(of_atoms, _checks.batch(batch_ptr, len(charges), charges.device))
        return energy.to(charges.dtype)

    def per_atom(
        self,
        charges: Tensor,
        positions: Tensor,
        cell: Tensor,
        batch_ptr: Tensor | None = None,
        modes: Modes | None = None,
        *,
        pbc=True,
    ) -> Tensor:
        """Return energies of the atoms that add up to those of the systems: half of charge times potential.

            E_i = scale Σ_j q_i q_j K(r_i − r_j),   K(r) = (1/V) Σ_k w(|k|) cos k·r

        Parameters as in `forward`. Returns (n_atoms,) in the dtype of `charges`. Takes the second half of the sums
        over waves as well, so about twice the time of `forward`.
        """
        charges = _channels(charges)
        modes = self._modes_of(cell, batch_ptr, modes, pbc)
        v = charges.unsqueeze(1)
        one = torch.ones_like(v[..., :1])
        potential = reciprocal_attention(
            one, one, v, positions, cell, modes, batch_ptr, self.method, tolerance=self.tolerance
        )
        energy = self.scale * (v * potential).sum(dim=(1, 2))
        return energy - self.self_energy * charges.square().sum(dim=1) if self.self_energy else energy


def _channels(charges: Tensor) -> Tensor:
    """Latent charges as (n_atoms, channels)."""
    _checks.tensor("charges", charges)
    if charges.dim() == 1:
        charges = charges.unsqueeze(1)
    _checks.shape("charges", charges, "n_atoms", "channels")
    return charges


def _sums(values: Tensor, pointers: Tensor) -> Tensor:
    """Sum of the values of every system."""
    counts = pointers.diff()
    system = torch.repeat_interleave(counts, output_size=values.shape[0])
    return values.new_zeros(counts.shape[0]).scatter_add(0, system, values)
