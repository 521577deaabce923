"""The sum over waves for molecular dynamics: energy, forces, virial and potential in one pass, no differentiation."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .. import _checks, cells
from .._library import Kernel, define_op, triton_missing
from ..reciprocal import Modes, costs, reciprocal_modes, spectra
from ..reciprocal.methods import Systems, streams
from ..reciprocal.modes import wave_vectors, window
from ..units import COULOMB
from .parameters import WINDOW_START


class EwaldWaves(NamedTuple):
    """Waves of one or more cells, from `ewald_waves`."""

    modes: Modes
    """Triplets and weights w."""
    virial: Tensor
    """(n_modes, 3, 3): −∂w/∂ε of every wave as the cell is strained, w δ + w' k ⊗ k/|k|, with w' the slope of w V."""
    inverse: Tensor
    """(n_systems, 3, 3), A⁻¹, 1/Å."""


class WaveResult(NamedTuple):
    """Part of an Ewald sum that waves carry; the self terms are not in it."""

    energy: Tensor
    """(n_systems,) eV."""
    forces: Tensor
    """(n_atoms, 3) eV/Å."""
    virial: Tensor
    """(n_systems, 3, 3) eV, −dE/dε."""
    potential: Tensor
    """(n_atoms,) V: ∂E/∂q, the self terms included in the waves."""


def ewald_waves(cell: Tensor, sigma: float, k_cut: float, n_systems: int | None = None) -> EwaldWaves:
    """Waves |k| < k_cut of the cells with the weights of an Ewald sum, to be kept as long as the cell does not change.

    Parameters
    ----------
    cell : Tensor
        (3, 3) or (n_systems, 3, 3) Å.
    sigma, k_cut : float
        Å and 1/Å; from `parameters`.
    n_systems : int, optional
        Where one cell serves for several systems.
    """
    h = cell.detach().to(torch.float64)
    spectrum = spectra.ewald(sigma)
    modes = reciprocal_modes(h, k_cut, spectrum, window_start=WINDOW_START, n_systems=n_systems)
    count = modes.n_systems
    batched, _ = cells.as_batch(h, True, count)
    inverse = torch.linalg.inv(batched)
    system = torch.repeat_interleave(torch.arange(count, device=h.device), modes.mode_ptr.diff())
    vectors = wave_vectors(modes.miller, inverse, system)
    with torch.enable_grad():
        length = vectors.norm(dim=1).requires_grad_()
        (slope,) = torch.autograd.grad((spectrum(length) * window(length / k_cut, WINDOW_START)).sum(), length)
    slope = slope / (length.detach() * cells.volume(batched)[system])
    virial = slope.view(-1, 1, 1) * vectors.unsqueeze(2) * vectors.unsqueeze(1)
    virial = virial + modes.weights.view(-1, 1, 1) * torch.eye(3, dtype=h.dtype, device=h.device)
    return EwaldWaves(modes, virial, inverse)


def evaluate_waves(
    positions: Tensor,
    charges: Tensor,
    waves: EwaldWaves,
    batch_ptr: Tensor | None = None,
    *,
    method: str = "auto",
    tolerance: float = 1e-5,
) -> WaveResult:
    """Energy k_e Σ_m w_m |S_m|² of charges in the waves of their cell, its forces, virial and potential.

    Parameters
    ----------
    positions : Tensor
        (n_atoms, 3) Å, float64.
    charges : Tensor
        (n_atoms,) e, float64.
    waves : EwaldWaves
        Of the cell the atoms are in now.
    batch_ptr : Tensor, optional
        (n_systems + 1,) int64.
    method, tolerance
        As in `rsa_kernels.accumulate_modes`.

    Returns
    -------
    WaveResult
        Not differentiable (see `ewald_energy`). Forces are the derivative of the energy that is computed, whatever the
        method.

    Notes
    -----
    Once from atoms to waves and once back, for one channel.
    """
    if not isinstance(waves, EwaldWaves):
        raise TypeError(f"`waves` must be EwaldWaves, from ewald_waves(...), got {type(waves).__name__}")
    device = waves.inverse.device
    _checks.tensor("positions", positions, dtypes=(torch.float64,), device=device)
    _checks.shape("positions", positions, "n_atoms", 3)
    _checks.tensor("charges", charges, dtypes=(torch.float64,), device=device)
    _checks.shape("charges", charges, positions.shape[0])
    if positions.requires_grad or charges.requires_grad:
        raise ValueError("`positions` and `charges` must not require gradients here; ewald_energy is differentiable")
    batch_ptr = _checks.batch(batch_ptr, positions.shape[0], device)
    modes, n_systems = waves.modes, batch_ptr.numel() - 1
    if modes.n_systems != n_systems:
        raise ValueError(f"`waves` must be of the {n_systems} systems of `batch_ptr`, got waves of {modes.n_systems}")
    if n_systems == 1:
        inverse, fractional = waves.inverse[0], positions @ waves.inverse[0]
    else:
        atom = torch.arange(positions.shape[0], device=device)
        inverse = waves.inverse[torch.bucketize(atom, batch_ptr[1:], right=True)]
        fractional = (positions.unsqueeze(1) @ inverse).squeeze(1)
    power, slope, potential = wave_sums(
        charges, fractional, modes.miller, modes.weights, batch_ptr, modes.mode_ptr, method, float(tolerance)
    )
    # f = r A⁻¹, so ∂E/∂r = ∂E/∂f A⁻ᵀ.
    if n_systems == 1:
        forces = slope @ inverse.T
        energy = (modes.weights @ power).view(1)
        virial = (power @ waves.virial.flatten(1)).view(1, 3, 3)
    else:
        forces = (slope.unsqueeze(1) @ inverse.transpose(1, 2)).squeeze(1)
        system = torch.repeat_interleave(torch.arange(n_systems, device=device), modes.mode_ptr.diff())
        energy = power.new_zeros(n_systems).index_add(0, system, modes.weights * power)
        virial = power.new_zeros((n_systems, 3, 3)).index_add(0, system, power.view(-1, 1, 1) * waves.virial)
    return WaveResult(COULOMB * energy, -COULOMB * forces, COULOMB * virial, COULOMB * potential)


def _wave_sums(charges, fractional, miller, weights, batch_ptr, mode_ptr, method: str, tolerance: float):
    """|S_m|², ∂(Σ w|S|²)/∂f and Σ_m 2 w_m Re(S_m e^{−iθ_im})."""
    leaf = charges.view(-1, 1, 1)
    power, slope, potential = torch.zeros_like(weights), torch.zeros_like(fractional), torch.zeros_like(charges)
    systems = Systems(fractional, miller, batch_ptr, mode_ptr)
    choice = costs.resolve(method, systems.sizes, leaf, 1, tolerance, with_pairs=False)
    for atoms, modes in systems:
        x = charges[atoms].unsqueeze(1)
        for part, transform, _ in streams(choice, fractional[atoms], miller[modes], leaf[atoms], 1, tolerance):
            states = transform.accumulate(x)
            power[modes][part] = states.square().sum(dim=(0, 2))
            y, pull = transform.gather(transform.field(states * (2.0 * weights[modes][part]).view(1, -1, 1)), x)
            potential[atoms] += y.squeeze(1)
            slope[atoms] += pull
    return power, slope, potential


wave_sums = define_op(
    "ewald_wave_sums(Tensor charges, Tensor f, Tensor n, Tensor w, Tensor batch_ptr, Tensor mode_ptr, str method,"
    " float tolerance) -> (Tensor power, Tensor slope, Tensor potential)",
    kernels={
        "cpu": Kernel(_wave_sums, "matrix products and C++ meshes, all cores"),
        "cuda": Kernel(_wave_sums, "Triton kernels", triton_missing),
    },
    fake=lambda charges, f, n, w, *rest: (torch.empty_like(w), torch.empty_like(f), torch.empty_like(charges)),
)
