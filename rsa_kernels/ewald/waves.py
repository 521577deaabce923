"""The sum over waves for molecular dynamics: forces, virial and potential in one pass, without differentiation."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .. import _checks, cells
from ..errors import NonFiniteError
from ..reciprocal import costs, reciprocal_modes, spectra
from ..reciprocal.grid import Sites, mesh_functions
from ..reciprocal.grid_plan import GridPlan, plan_grid
from ..reciprocal.methods import streams
from ..reciprocal.modes import wave_vectors, window
from ..units import COULOMB
from .parameters import METHODS, WINDOW_START


class WaveResult(NamedTuple):
    """The part of an Ewald sum that waves carry; self terms and background are not in it."""

    energy: Tensor
    """(n_systems,) eV."""
    forces: Tensor
    """(n_atoms, 3) eV/Å."""
    virial: Tensor | None
    """(n_systems, 3, 3) eV, −dE/dε; None where not asked for."""
    potential: Tensor
    """(n_atoms,) V: ∂E/∂q, each charge's own waves included."""


class EwaldWaves:
    """Waves of one or more cells with their Ewald weights, ready to sum charges over; see `ewald_waves`.

    Attributes
    ----------
    modes : Modes
        Triplets and weights.
    virial : Tensor
        (n_modes, 3, 3): −∂w/∂ε of every wave as the cell is strained.
    inverse : Tensor
        (n_systems, 3, 3), A⁻¹, 1/Å.
    batch_ptr : Tensor
        (n_systems + 1,) offsets of the systems in the atoms.
    method : str
        "spectral" or "grid".
    """

    def __init__(self, modes, virial: Tensor, inverse: Tensor, batch_ptr: Tensor, method: str, tolerance: float):
        self.modes, self.virial, self.inverse, self.batch_ptr = modes, virial, inverse, batch_ptr
        atoms, waves = batch_ptr.tolist(), modes.mode_ptr.tolist()
        self._systems = [(slice(atoms[k], atoms[k + 1]), slice(waves[k], waves[k + 1])) for k in range(modes.n_systems)]
        sizes = tuple((a.stop - a.start, m.stop - m.start) for a, m in self._systems)
        there = tuple((n, m) for n, m in sizes if n and m)
        leaf = modes.weights.new_empty((0, 1, 1))
        self.method = costs.resolve(method, there, leaf, 1, tolerance, with_pairs=False)
        kind = _Mesh if self.method == "grid" else _Direct
        self._sums = [
            kind(modes.miller[m], modes.weights[m], n, tolerance) if n and modes.miller[m].numel() else None
            for (n, _), (_, m) in zip(sizes, self._systems, strict=True)
        ]


def ewald_waves(
    cell: Tensor, batch_ptr: Tensor, sigma: float, k_cut: float, *, method: str = "auto", tolerance: float = 1e-5
) -> EwaldWaves:
    """Prepare the waves |k| < k_cut of cells for `evaluate_waves`; they serve as long as the cells do not change.

    Parameters
    ----------
    cell : Tensor
        (3, 3) or (n_systems, 3, 3) Å.
    batch_ptr : Tensor
        (n_systems + 1,) int64 offsets of the systems in the atoms; [0, n_atoms] for one.
    sigma, k_cut, tolerance : float
        Å and 1/Å, and the relative error a mesh may make; from `parameters`.
    method : {"auto", "spectral", "grid"}
        Direct sums or a particle mesh; "auto" decides by size.

    Raises
    ------
    ValueError, TypeError
        An argument is wrong, or the tolerance out of reach of a mesh.
    rsa_kernels.errors.CapacityError
        More waves than memory.
    """
    _checks.tensor("cell", cell, dtypes=(torch.float64, torch.float32))
    _checks.tensor("batch_ptr", batch_ptr, dtypes=(torch.int64,), device=cell.device)
    _checks.positive("tolerance", tolerance)
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {', '.join(METHODS)}, got {method!r}")
    h, count = cell.detach().to(torch.float64), batch_ptr.numel() - 1
    spectrum = spectra.ewald(sigma)
    modes = reciprocal_modes(h, k_cut, spectrum, window_start=WINDOW_START, n_systems=count)
    if modes.n_systems != count:
        raise ValueError(f"`cell` must be of the {count} systems of `batch_ptr`, got {modes.n_systems}")
    batched, _ = cells.as_batch(h, True, count)
    inverse = torch.linalg.inv(batched)
    system = torch.repeat_interleave(torch.arange(count, device=h.device), modes.mode_ptr.diff())
    vectors = wave_vectors(modes.miller, inverse, system)
    # w = ŵ(|k|)/V; a strain ε turns k into (1 − ε) k and V into (1 + tr ε) V, so −∂w/∂ε = w 1 + (ŵ'/V) k ⊗ k/|k|.
    with torch.enable_grad():
        length = vectors.norm(dim=1).requires_grad_()
        (slope,) = torch.autograd.grad((spectrum(length) * window(length / k_cut, WINDOW_START)).sum(), length)
    slope = slope / (length.detach() * cells.volume(batched)[system])
    virial = slope.view(-1, 1, 1) * vectors.unsqueeze(2) * vectors.unsqueeze(1)
    virial = virial + modes.weights.view(-1, 1, 1) * torch.eye(3, dtype=h.dtype, device=h.device)
    return EwaldWaves(modes, virial, inverse, batch_ptr, method, float(tolerance))


@torch.no_grad()
def evaluate_waves(positions: Tensor, charges: Tensor, waves: EwaldWaves, *, virial: bool = True) -> WaveResult:
    """Energy k_e Σ_m w_m |S_m|² of charges in the waves of their cells, with forces, virial and potential.

    Parameters
    ----------
    positions : Tensor
        (n_atoms, 3) Å, float64; wrapped or not.
    charges : Tensor
        (n_atoms,) e, float64.
    waves : EwaldWaves
        Of the cells the atoms are in now.
    virial : bool
        Whether to compute it.

    Returns
    -------
    WaveResult
        Not differentiable (see `ewald_energy`). Forces are the derivative of the energy that is computed, to rounding,
        with a mesh as well.

    Raises
    ------
    ValueError, TypeError
        An argument is wrong.
    rsa_kernels.errors.NonFiniteError
        A position is NaN or infinite (on a CPU).

    Notes
    -----
    Once from atoms to waves and once back, for one channel; a mesh takes two Fourier transforms.
    """
    if not isinstance(waves, EwaldWaves):
        raise TypeError(f"`waves` must be EwaldWaves, from ewald_waves(...), got {type(waves).__name__}")
    device, n_atoms = waves.inverse.device, int(waves._systems[-1][0].stop)
    _checks.tensor("positions", positions, dtypes=(torch.float64,), device=device)
    _checks.shape("positions", positions, n_atoms, 3)
    _checks.tensor("charges", charges, dtypes=(torch.float64,), device=device)
    _checks.shape("charges", charges, n_atoms)
    if positions.requires_grad or charges.requires_grad:
        raise ValueError("`positions` and `charges` must not require gradients here; ewald_energy is differentiable")
    potential, forces = torch.zeros_like(charges), torch.zeros_like(positions)
    virials = charges.new_zeros((len(waves._systems), 3, 3)) if virial else None
    energy = charges.new_zeros(len(waves._systems))
    for k, ((atoms, modes), sums) in enumerate(zip(waves._systems, waves._sums, strict=True)):
        if sums is None:
            continue
        fractional, x = positions[atoms] @ waves.inverse[k], charges[atoms].unsqueeze(1)
        if device.type == "cpu" and not bool(torch.isfinite(fractional).all()):
            raise NonFiniteError("`positions` holds NaN or infinite values")
        y, slope, power = sums(fractional, x, virial)
        potential[atoms] = COULOMB * y.squeeze(1)
        # f = r A⁻¹, so ∂E/∂r = ∂E/∂f A⁻ᵀ.
        forces[atoms] = -COULOMB * (slope @ waves.inverse[k].T)
        energy[k] = 0.5 * (charges[atoms] @ potential[atoms])
        if virial:
            virials[k] = COULOMB * (power @ waves.virial[modes].flatten(1)).view(3, 3)
    return WaveResult(energy, forces, virials, potential)


class _Direct:
    """y_i = Σ_m 2 w_m Re(S_m e^{−iθ_im}), the slope ∂/∂f of ½ Σ x_i y_i, and |S_m|² of one system."""

    def __init__(self, miller: Tensor, weights: Tensor, n_atoms: int, tolerance: float):
        self.miller, self.weights = miller, weights

    def __call__(self, fractional: Tensor, x: Tensor, want_power: bool):
        y, slope, powers = torch.zeros_like(x), torch.zeros_like(fractional), []
        for modes, transform, _ in streams("spectral", fractional, self.miller, x.unsqueeze(2), 1, 1.0, 0):
            states = transform.accumulate(x)
            powers.append(states.square().sum(dim=(0, 2)))
            part, pull = transform.gather(transform.field(states * (2.0 * self.weights[modes]).view(1, -1, 1)), x)
            y += part
            slope += pull
        return y, slope, torch.cat(powers)


class _Mesh:
    """The same through a mesh: all waves at once, as one factor on the mesh's spectrum."""

    def __init__(self, miller: Tensor, weights: Tensor, n_atoms: int, tolerance: float):
        self.plan = plan_grid(miller.abs().amax(dim=0).tolist(), tolerance, weights.dtype, n_atoms=n_atoms, channels=1)
        # Deconvolution on the way to the waves and on the way back.
        self.squared = _deconvolution(self.plan, miller).square()
        # The half spectrum of a real mesh holds n_z ≥ 0, a wave or its mirror image; both where n_z = 0.
        kept = torch.where(miller[:, 2:] < 0, -miller, miller).to(torch.int64)
        flat = (kept[:, 2] == 0).nonzero().flatten()
        gx, gy, gz = self.plan.mesh
        sizes = torch.tensor([gx, gy, gz // 2 + 1], device=miller.device)
        influence = weights.new_zeros((gx, gy, gz // 2 + 1))
        self.places = (kept % sizes).unbind(1)
        influence[self.places] = weights * self.squared
        influence[(-kept[flat] % sizes).unbind(1)] = (weights * self.squared)[flat]
        self.influence = influence

    def __call__(self, fractional: Tensor, x: Tensor, want_power: bool):
        sites, axes = Sites(fractional, self.plan), (1, 2, 3)
        through = mesh_functions(sites)
        spectrum = torch.fft.rfftn(through.spread(x, sites), dim=axes)
        power = None
        if want_power:
            power = self.squared * torch.view_as_real(spectrum[0][self.places]).square().sum(dim=1)
        field = torch.fft.irfftn(spectrum * self.influence, s=self.plan.mesh, dim=axes, norm="forward")
        return *through.interpolate(field, sites, x), power


def _deconvolution(plan: GridPlan, miller: Tensor) -> Tensor:
    """b(n) of every wave, the product of those along the axes."""
    b = torch.ones(miller.shape[0], dtype=torch.float64)
    for axis, column in enumerate(miller.cpu().unbind(1)):
        unique, inverse = column.unique(return_inverse=True)
        b *= torch.from_numpy(plan.deconvolution(axis, unique.numpy()))[inverse]
    return b.to(miller.device)
