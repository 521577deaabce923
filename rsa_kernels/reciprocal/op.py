"""Public functions of reciprocal-space attention, and the registered ops with their derivatives."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _checks, cells
from . import mode_space, pairwise
from .chain import define_chain
from .modes import Modes

METHODS = ("auto", "pairwise", "spectral", "grid")
DTYPES = (torch.float64, torch.float32, torch.bfloat16)


def reciprocal_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    positions: Tensor,
    cell: Tensor,
    modes: Modes,
    batch_ptr: Tensor | None = None,
    method: str = "auto",
    *,
    tolerance: float = 1e-5,
) -> Tensor:
    """Attention of every atom to all others through the waves of the cell.

        u_i = (1/√d) Σ_j (q_i·k_j) K(r_i − r_j) v_j,    K(r) = Σ_m 2 w_m cos k_m·r

    =============  ===========================================
    symbol         argument
    =============  ===========================================
    q, k, v        ``q``, ``k``, ``v``, per head
    r_i, rows of A ``positions``, ``cell``; k_m·r = 2π n_m·(r A⁻¹)
    n_m, w_m       ``modes.miller``, ``modes.weights``
    =============  ===========================================

    Parameters
    ----------
    q, k : Tensor
        (n_atoms, heads, d), float64, float32 or bfloat16 (computed in float32).
    v : Tensor
        (n_atoms, heads, d_v), dtype of q.
    positions : Tensor
        (n_atoms, 3) Å, float64 or float32; unwrapped positions give the same result.
    cell : Tensor
        (3, 3) or (n_systems, 3, 3) Å.
    modes : Modes
        From `reciprocal_modes`, of the same cell.
    batch_ptr : Tensor, optional
        (n_systems + 1,) int64; None means one system.
    method : {"auto", "pairwise", "spectral", "grid"}
        Tiles over pairs, sum over waves, or particle mesh; "auto" is what `explain` says.
    tolerance : float
        Relative error (root mean square over atoms, of u and forces) that the grid method plans for: an estimate for a
        flat spectrum. Spectra that fall leave less; single systems, and skewed cells with a flat spectrum, more: up
        to 10 times for forces in the tests. The other methods are exact.

    Returns
    -------
    Tensor
        (n_atoms, heads, d_v) in the dtype of q.

    Raises
    ------
    ValueError, TypeError
        An argument is wrong.
    rsa_kernels.errors.NonFiniteError
        A position or the cell is NaN or infinite (on a CPU).

    Notes
    -----
    First and second derivatives with respect to q, k, v, positions, cell and weights; the third raises. With the
    weights of `reciprocal_modes(cell, …)` of the same cell tensor the strain derivative is the true stress.

    Flops of a forward pass, N atoms, M waves, H heads, C = H·d·d_v: pairwise N²(2M + 2H(d + d_v)), spectral 8·N·M·C,
    grid some N·p³·C + C·G log G on a mesh of G points. Temporary memory besides the results, in float64: pairwise a few
    tiles of 512 × 2M and H × 512² numbers (measured up to 80 MiB), spectral some blocks of 2²⁴ atoms × channels (up to
    530 MiB), grid such blocks and meshes of up to 2 GiB; second derivatives two to four times that. Two calls give
    the same bits.

    References
    ----------
    arXiv 2510.13055 (RSA), arXiv 2604.21222 (RSGA); U. Essmann et al., J. Chem. Phys. 103 (1995) 8577 (meshes).
    """
    heads, d = _check_leaf("q", q)
    _check_leaf("k", k, like=q, shape=(q.shape[0], heads, d))
    _check_leaf("v", v, like=q, shape=(q.shape[0], heads, "d_v"))
    geometry = _geometry(positions, cell, modes, batch_ptr, q, method, tolerance)
    fractional, weights, pointers = geometry
    dtype = q.dtype
    q, k, v = (x.float() if dtype == torch.bfloat16 else x for x in (q, k, v))
    u = attention_op(q, k, v, fractional, modes.miller, weights, *pointers, method, float(tolerance), 0)
    return u.to(dtype)


def accumulate_modes(
    k: Tensor,
    v: Tensor,
    positions: Tensor,
    cell: Tensor,
    modes: Modes,
    batch_ptr: Tensor | None = None,
    method: str = "auto",
    *,
    tolerance: float = 1e-5,
    atoms_in_all: int | None = None,
) -> Tensor:
    """First half of the attention: what the atoms write into every wave.

        C_m = Σ_j cos(k_m·r_j) k_j ⊗ v_j,    S_m = Σ_j sin(k_m·r_j) k_j ⊗ v_j

    Parameters as in `reciprocal_attention`; "auto" chooses between "spectral" and "grid", and "pairwise" is refused.
    `atoms_in_all` is for atoms shared out among processes: the number in each system (about, where they differ), by
    which all processes choose the same method and mesh. None: all atoms are here.

    Returns
    -------
    Tensor
        (2, n_modes, heads, d, d_v): C and S, float32 for leaves in bfloat16. They are sums over atoms: atoms shared out
        among processes need one all-reduce of them before `gather_modes`, whose backward is again an all-reduce.

    Notes
    -----
    First and second derivatives with respect to k, v, positions and cell.
    """
    heads, _ = _check_leaf("k", k)
    _check_leaf("v", v, like=k, shape=(k.shape[0], heads, "d_v"))
    _check_half(method)
    fractional, _, pointers = _geometry(positions, cell, modes, batch_ptr, k, method, tolerance)
    k, v = (x.float() if x.dtype == torch.bfloat16 else x for x in (k, v))
    return accumulate_op(k, v, fractional, modes.miller, *pointers, method, float(tolerance), _in_all(atoms_in_all))


def gather_modes(
    q: Tensor,
    states: Tensor,
    positions: Tensor,
    cell: Tensor,
    modes: Modes,
    batch_ptr: Tensor | None = None,
    method: str = "auto",
    *,
    tolerance: float = 1e-5,
    atoms_in_all: int | None = None,
) -> Tensor:
    """Second half of the attention: what every atom reads from the waves.

        u_i = (1/√d) Σ_m 2 w_m [cos(k_m·r_i) q_i C_m + sin(k_m·r_i) q_i S_m]

    Parameters as in `reciprocal_attention` and, from `accumulate_modes`, `states` (2, n_modes, heads, d, d_v).
    `atoms_in_all` as in `accumulate_modes`.

    Returns
    -------
    Tensor
        (n_atoms, heads, d_v).

    Notes
    -----
    First and second derivatives with respect to q, states, positions, cell and weights.
    """
    heads, d = _check_leaf("q", q)
    dtype, q = q.dtype, q.float() if q.dtype == torch.bfloat16 else q
    _checks.tensor("states", states, dtypes=(q.dtype,), device=q.device)
    _checks.shape("states", states, 2, modes.n_modes if isinstance(modes, Modes) else "n_modes", heads, d, "d_v")
    _check_half(method)
    fractional, weights, pointers = _geometry(positions, cell, modes, batch_ptr, q, method, tolerance)
    return gather_op(
        q, states, fractional, modes.miller, weights, *pointers, method, float(tolerance), _in_all(atoms_in_all)
    ).to(dtype)


def _check_leaf(name: str, x: Tensor, like: Tensor | None = None, shape: tuple = ()) -> tuple[int, int]:
    if like is None:
        _checks.tensor(name, x, dtypes=DTYPES)
        _checks.shape(name, x, "n_atoms", "heads", "d")
    else:
        _checks.tensor(name, x, dtypes=(like.dtype,), device=like.device)
        _checks.shape(name, x, *shape)
    if x.shape[1] == 0 or x.shape[2] == 0:
        raise ValueError(f"`{name}` must have at least one head and one channel, got shape {tuple(x.shape)}")
    return x.shape[1], x.shape[2]


def _in_all(atoms_in_all: int | None) -> int:
    if atoms_in_all is None:
        return 0
    if not isinstance(atoms_in_all, int) or isinstance(atoms_in_all, bool) or atoms_in_all < 1:
        raise ValueError(f"`atoms_in_all` must be a positive integer or None, got {atoms_in_all!r}")
    return atoms_in_all


def _check_half(method: str) -> None:
    if method == "pairwise":
        raise ValueError("`method` 'pairwise' has no states to accumulate or gather; use 'spectral', 'grid' or 'auto'")


def _geometry(positions, cell, modes, batch_ptr, like, method, tolerance) -> tuple[Tensor, Tensor, tuple]:
    """Fractional coordinates and weights in float64, and the offsets of atoms and modes."""
    device = like.device
    if not isinstance(modes, Modes):
        raise TypeError(f"`modes` must be Modes, from reciprocal_modes(...), got {type(modes).__name__}")
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {', '.join(METHODS)}, got {method!r}")
    _checks.positive("tolerance", tolerance)
    _checks.tensor("positions", positions, dtypes=(torch.float64, torch.float32), device=device)
    _checks.shape("positions", positions, like.shape[0], 3)
    _checks.tensor("cell", cell, dtypes=(torch.float64, torch.float32), device=device)
    _checks.tensor("modes.weights", modes.weights, dtypes=(torch.float64,), device=device)
    if batch_ptr is None:
        batch_ptr = torch.tensor([0, like.shape[0]], dtype=torch.int64, device=device)
    else:
        _checks.tensor("batch_ptr", batch_ptr, dtypes=(torch.int64,), device=device)
        _checks.shape("batch_ptr", batch_ptr, "n_systems + 1")
    n_systems = batch_ptr.shape[0] - 1
    if modes.n_systems != n_systems:
        raise ValueError(f"`modes` must be of the {n_systems} systems of `batch_ptr`, got modes of {modes.n_systems}")
    batched, _ = cells.as_batch(cell, True, n_systems)
    fractional = _fractional(positions, batched, batch_ptr)
    return fractional, modes.weights, (batch_ptr, modes.mode_ptr)


def _fractional(positions: Tensor, batched: Tensor, batch_ptr: Tensor) -> Tensor:
    """f = r A⁻¹ in float64, differentiable."""
    inverse = cells.inverse(batched.to(torch.float64))
    positions = positions.to(torch.float64)
    if inverse.shape[0] == 1:
        return positions @ inverse[0]
    atom = torch.arange(positions.shape[0], device=positions.device)
    system = torch.bucketize(atom, batch_ptr[1:].contiguous(), right=True).clamp_max(inverse.shape[0] - 1)
    return (positions.unsqueeze(1) @ inverse[system]).squeeze(1)


attention_op = define_chain(
    "reciprocal_attention",
    inputs=("q", "k", "v", "f", "n", "w"),
    differentiable=("q", "k", "v", "f", "w"),
    waves=(mode_space.attention, mode_space.attention_backward, mode_space.attention_backward_backward),
    pairs=(pairwise.forward, pairwise.backward, pairwise.backward_backward),
)
accumulate_op = define_chain(
    "accumulate_modes",
    inputs=("k", "v", "f", "n"),
    differentiable=("k", "v", "f"),
    waves=(mode_space.accumulate, mode_space.accumulate_backward, mode_space.accumulate_backward_backward),
)
gather_op = define_chain(
    "gather_modes",
    inputs=("q", "s", "f", "n", "w"),
    differentiable=("q", "s", "f", "w"),
    waves=(mode_space.gather, mode_space.gather_backward, mode_space.gather_backward_backward),
)
