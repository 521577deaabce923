"""The differentiable Ewald energy of point charges."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _checks, cells
from ..neighbors import NeighborList, neighbor_list
from ..reciprocal import accumulate_modes, reciprocal_modes, spectra
from ..units import COULOMB
from .kernel import background_energy, real_space, self_energy
from .parameters import WINDOW_START, parameters


def ewald_energy(
    positions: Tensor,
    charges: Tensor,
    cell: Tensor,
    batch_ptr: Tensor | None = None,
    *,
    neighbors: NeighborList | None = None,
    accuracy: float = 1e-6,
    sigma: float | None = None,
    k_cut: float | None = None,
    cutoff: float | None = None,
    method: str = "auto",
) -> Tensor:
    """Electrostatic energy of point charges in a periodic cell, with conducting (tin-foil) surroundings.

        E = k_e { Σ_pairs qᵢqⱼ φ(rᵢⱼ) + Σ_m w_m |S_m|² − ½ψ(0) Σ qᵢ² − Q²/(2V) ∫φ },   S_m = Σ_j qⱼ exp(i k_m·rⱼ)
        φ = erfc(r/√2σ)/r − c inside the cutoff,   w_m = 4π exp(−σ²k²/2)/(k²V), windowed,   waves of one half space

    =====================  =================================
    symbol                 argument
    =====================  =================================
    r_i, q_i               ``positions``, ``charges``
    rows of the cell       ``cell``
    σ, rc, k_cut           ``sigma``, ``cutoff``, ``k_cut``
    =====================  =================================

    Parameters
    ----------
    positions : Tensor
        (n_atoms, 3) Å, float64 or float32; the sum is done in float64.
    charges : Tensor
        (n_atoms,) e, in the dtype of the positions. They need not cancel: a charged cell is made neutral by a uniform
        background (the last term), whose energy and pressure depend on the volume.
    cell : Tensor
        (3, 3) or (n_systems, 3, 3) Å, periodic in every direction.
    batch_ptr : Tensor, optional
        (n_systems + 1,) int64; None means one system.
    neighbors : NeighborList, optional
        Of these positions, half or full, reaching at least `cutoff`, which is the list's where not given. Made here if
        left out.
    accuracy : float
        RMS error of the forces in units of 14.4 eV/Å, from which what is not given of the next three follows; see
        `rsa_kernels.ewald.parameters`.
    sigma, cutoff, k_cut : float, optional
        σ and the cutoff of pairs, Å; cutoff of waves, 1/Å. Choose them once for all steps of a simulation or all
        points of a curve, or the energy jumps by its error whenever the choice changes.
    method : {"auto", "spectral", "grid"}
        How the waves are summed, as in `rsa_kernels.accumulate_modes`.

    Returns
    -------
    Tensor
        (n_systems,) eV, in the dtype of the positions.

    Raises
    ------
    ValueError, TypeError
        An argument is wrong, or `neighbors` too short, of another batch or not periodic.
    rsa_kernels.errors.CapacityError
        More waves or pairs than memory.
    rsa_kernels.errors.NonFiniteError
        A position or the cell is NaN or infinite.

    Notes
    -----
    First and second derivatives with respect to positions, charges and cell; σ and the cutoffs are constants. With the
    cell's derivative the stress is right, the derivative of waves and volume included.

    The pairs take 28 bytes each and some 10 temporaries, the waves what `accumulate_modes` takes. For molecular
    dynamics with charges that do not change, `rsa_kernels.pair.evaluate` with `real_space` in its table and
    `evaluate_waves` give energy, forces and virial without automatic differentiation.

    References
    ----------
    P. P. Ewald, Ann. Phys. 369 (1921) 253; D. Wolf et al., J. Chem. Phys. 110 (1999) 8254 (why φ is shifted to zero).
    """
    _checks.tensor("positions", positions, dtypes=(torch.float64, torch.float32))
    _checks.shape("positions", positions, "n_atoms", 3)
    _checks.tensor("charges", charges, dtypes=(positions.dtype,), device=positions.device)
    _checks.shape("charges", charges, positions.shape[0])
    _checks.tensor("cell", cell, dtypes=(torch.float64, torch.float32), device=positions.device)
    batch_ptr = _checks.batch(batch_ptr, positions.shape[0], positions.device)
    n_systems = batch_ptr.numel() - 1
    if neighbors is not None:
        _check_list(neighbors, positions, batch_ptr, cutoff)
        cutoff = neighbors.cutoff if cutoff is None else cutoff
    chosen = parameters(
        charges, cell, batch_ptr, accuracy=accuracy, sigma=sigma, cutoff=cutoff, k_cut=k_cut, method=method
    )
    x, q, h = (tensor.to(torch.float64) for tensor in (positions, charges, cell))
    if neighbors is None:
        neighbors = neighbor_list(x.detach(), h.detach(), True, chosen.cutoff, batch_ptr, half=True)
    atom = torch.arange(x.shape[0], device=x.device)
    system = torch.bucketize(atom, batch_ptr[1:], right=True)

    edge_system, pairs = _pairs(x, q, h, system, neighbors, chosen.sigma, chosen.cutoff)
    spectrum = spectra.ewald(chosen.sigma)
    modes = reciprocal_modes(h, chosen.k_cut, spectrum, window_start=WINDOW_START, n_systems=n_systems)
    leaf = q.view(-1, 1, 1)
    states = accumulate_modes(torch.ones_like(leaf), leaf, x, h, modes, batch_ptr, method, tolerance=chosen.tolerance)
    waves = COULOMB * modes.weights * states.square().sum(dim=(0, 2, 3, 4))
    mode_system = torch.repeat_interleave(torch.arange(n_systems, device=x.device), modes.mode_ptr.diff())

    none = torch.zeros(n_systems, dtype=torch.float64, device=x.device)
    total = none.index_add(0, edge_system, pairs).index_add(0, mode_system, waves)
    total = total.index_add(0, system, self_energy(1.0, chosen.sigma, chosen.cutoff) * q.square())
    batched, _ = cells.as_batch(h, True, n_systems)
    net = none.index_add(0, system, q)
    total = total + background_energy(net, cells.volume(batched), chosen.sigma, chosen.cutoff)
    return total.to(positions.dtype)


def _pairs(x, q, h, system, neighbors: NeighborList, sigma: float, cutoff: float) -> tuple[Tensor, Tensor]:
    """System and energy of every listed pair within the cutoff."""
    i, j = neighbors.edge_index
    vectors = neighbors.vectors(x, h)
    inside = (vectors.detach().square().sum(-1) < cutoff * cutoff).nonzero().flatten()
    i, j = i[inside], j[inside]
    energy = real_space(vectors[inside].norm(dim=-1), q[i] * q[j], sigma, cutoff)
    return system[i], energy if neighbors.half else 0.5 * energy


def _check_list(neighbors, positions: Tensor, batch_ptr: Tensor, cutoff: float | None) -> None:
    if not isinstance(neighbors, NeighborList):
        raise TypeError(f"`neighbors` must be a NeighborList, got {type(neighbors).__name__}")
    if not torch.equal(neighbors.batch_ptr, batch_ptr):
        raise ValueError(
            f"`neighbors` must be of the systems of `batch_ptr` {batch_ptr.tolist()},"
            f" got {neighbors.batch_ptr.tolist()}"
        )
    if not bool(neighbors.pbc.all()):
        raise ValueError("`neighbors` must be periodic in every direction, as the sum over waves is")
    if cutoff is not None and neighbors.cutoff < cutoff:
        raise ValueError(f"`neighbors` reaches {neighbors.cutoff} Å, but `cutoff` is {cutoff} Å")
