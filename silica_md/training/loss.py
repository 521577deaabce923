"""The loss: weighted mean squared errors, each mean over all processes' share of a step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .graphs import Batch


def loss(
    output: Mapping[str, Tensor], batch: Batch, weights: Mapping[str, float], n_frames: int, n_atoms: int
) -> Tensor:
    """Contribution of a batch to the loss

        L = w_E/n Σ_s c_s (ΔE_s/N_s)² + w_F/(3 N) Σ_i c_s(i) |ΔF_i|² + w_σ/(9 n) Σ_s c_s |Δσ_s|²

    as `mace_run_train` has it ("weighted" and "stress").

    ==========  =========================================
    symbol      argument
    ==========  =========================================
    w           ``weights`` ("energy", "forces", "stress")
    n, N        ``n_frames``, ``n_atoms``
    c_s         ``batch.weight``
    ==========  =========================================

    Parameters
    ----------
    output : mapping
        Of the model: "interaction_energy" (the energy beyond the isolated atoms, eV), "forces", "stress".
    batch : Batch
        Labels.
    weights : mapping
        Terms that are left out are not computed.
    n_frames, n_atoms : int
        Of the whole step, whoever works on it: the sum of this over processes is the loss of the step, however the
        frames are shared out.

    Returns
    -------
    Tensor
        A scalar.
    """
    total = batch.energy.new_zeros(())
    if "energy" in weights:
        difference = (output["interaction_energy"] - batch.energy) / batch.n_atoms
        total = total + weights["energy"] / n_frames * (batch.weight * difference.square()).sum()
    if "forces" in weights:
        per_atom = torch.repeat_interleave(batch.weight, batch.n_atoms.to(torch.int64))
        squared = (output["forces"] - batch.forces).square().sum(dim=1)
        total = total + weights["forces"] / (3 * n_atoms) * (per_atom * squared).sum()
    if "stress" in weights:
        squared = (output["stress"] - batch.stress).square().sum(dim=(1, 2))
        total = total + weights["stress"] / (9 * n_frames) * (batch.weight * squared).sum()
    return total
