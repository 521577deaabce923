"""Reciprocal-space attention: every atom attends to all others through the waves of the cell."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import silu

from .. import _checks
from ..reciprocal import Modes, published, reciprocal_attention, spectra
from ..reciprocal.spectra import Spectrum
from .waves import WaveModule, check_features, check_norm


class AttentionModule(WaveModule):
    """What the gated and the plain layer share: heads, queries, keys and values, and the norm."""

    def __init__(
        self,
        hidden: int,
        heads: int,
        norm: str,
        published_norm: str,
        *,
        k_cut: float | None,
        sigma: float | None,
        spectrum: Spectrum | None,
        window_start: float,
        method: str,
        tolerance: float,
        device,
        dtype,
    ):
        check_norm(norm, published_norm)
        given = {"k_cut": k_cut, "sigma": sigma, "spectrum": spectrum}
        if norm == "intensive":
            if k_cut is None:
                raise ValueError(
                    "`k_cut` must be given in 1/Å for norm='intensive': all waves shorter than it are used"
                )
            if (sigma is None) == (spectrum is None):
                raise ValueError("give either `sigma` in Å, for w = exp(−σ²k²/2)/k², or `spectrum`, a callable of |k|")
        elif any(one is not None for one in given.values()):
            names = ", ".join(f"`{one}`" for one, value in given.items() if value is not None)
            raise ValueError(f"norm={norm!r} fixes its waves and weights itself; leave out {names}")
        super().__init__(k_cut, window_start, method, tolerance)
        for name, value in (("hidden", hidden), ("heads", heads)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` must be a positive int, got {value!r}")
        if hidden % heads:
            raise ValueError(f"`heads` must divide the {hidden} channels, got {heads}")
        if norm != "intensive" and (hidden // heads) % 2:
            raise ValueError(
                f"norm={norm!r} rotates pairs of channels: heads must be of even width, got {hidden // heads}"
            )
        self.norm, self.hidden, self.heads, self.sigma = norm, hidden, heads, sigma
        if sigma is not None:
            _checks.positive("sigma", sigma, "Å")
        self.weighting = spectrum
        self.qkv = nn.Linear(hidden, 3 * hidden, bias=False, device=device, dtype=dtype)

    def spectrum(self) -> Spectrum:
        """w(|k|), of norm "intensive"."""
        return spectra.gaussian(self.sigma) if self.weighting is None else self.weighting

    def extra_repr(self) -> str:
        """Settings, for printing."""
        waves = f", k_cut={self.k_cut:g}, sigma={self.sigma}" if self.norm == "intensive" else ""
        return f"hidden={self.hidden}, heads={self.heads}, norm={self.norm!r}{waves}, method={self.method!r}"

    def _attend(self, x: Tensor, gate: Tensor | None, positions, cell, batch_ptr, modes) -> Tensor:
        """Return the update in heads, (n_atoms, heads, hidden / heads), of features x with values times `gate`."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if gate is not None:
            v = v * gate
        q, k, v = (y.unflatten(-1, (self.heads, -1)) for y in (silu(q), silu(k), v))
        attention = reciprocal_attention if self.norm == "intensive" else published.rotary_attention
        return attention(q, k, v, positions, cell, modes, batch_ptr, self.method, tolerance=self.tolerance)


class ReciprocalSpaceAttention(AttentionModule):
    """RSA: attention of every atom to all others, weighted by a sum over the waves of the cell.

        [q, k, v] = x W_qkvᵀ,   q ← SiLU(q),  k ← SiLU(k)
        u_i = (1/√d) Σ_j (q_i·k_j) K(r_i − r_j) v_j,   K(r) = (1/V) Σ_{0<|k|<k_cut} w(|k|) W(|k|/k_cut) cos k·r

    per head of width d. `norm="rsa"` is the published block instead: the six shortest waves of an orthorhombic box,
    weight 1.

    =============  =====================================
    symbol         argument
    =============  =====================================
    k_cut          ``k_cut``
    w              ``spectrum``, or exp(−σ²k²/2)/k² from ``sigma``
    W              ``window_start``
    W_qkv          parameter ``qkv.weight``
    =============  =====================================

    Parameters
    ----------
    hidden : int
        Channels of the features that come in and of the update.
    heads : int
        Divides `hidden`; more heads cost less. 1 in the published block.
    norm : {"intensive", "rsa"}
        "intensive": the same in a cell and in its supercell, right stress, any cell. "rsa": for old checkpoints.
    k_cut : float
        1/Å; "intensive" only.
    sigma : float
        Å; "intensive" only. At a distance of some σ·√2 the layer takes over from the short-range model.
    spectrum : callable, optional
        w(|k|), in place of `sigma`; an nn.Module of |k| is trained with the layer, as ``weighting``.
    window_start : float
        Fraction of k_cut from which weights fall smoothly to zero.
    method, tolerance
        See `rsa_kernels.reciprocal_attention`.
    device, dtype
        Of the parameters.

    References
    ----------
    arXiv 2510.13055.
    """

    def __init__(
        self,
        hidden: int,
        *,
        heads: int = 1,
        norm: str = "intensive",
        k_cut: float | None = None,
        sigma: float | None = None,
        spectrum: Spectrum | None = None,
        window_start: float = 0.8,
        method: str = "auto",
        tolerance: float = 1e-5,
        device=None,
        dtype=None,
    ):
        super().__init__(
            hidden,
            heads,
            norm,
            "rsa",
            k_cut=k_cut,
            sigma=sigma,
            spectrum=spectrum,
            window_start=window_start,
            method=method,
            tolerance=tolerance,
            device=device,
            dtype=dtype,
        )

    def modes(self, cell: Tensor, n_systems: int | None = None, pbc=True) -> Modes | published.PublishedModes:
        """Return the waves the layer sees in these cells; see `WaveModule.modes`."""
        if self.norm == "rsa":
            return published.rsa_modes(cell, pbc=pbc, n_systems=n_systems)
        return super().modes(cell, n_systems, pbc)

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        cell: Tensor,
        batch_ptr: Tensor | None = None,
        modes: Modes | published.PublishedModes | None = None,
        *,
        pbc=True,
    ) -> Tensor:
        """Return the update of every atom.

        Parameters
        ----------
        x : Tensor
            (n_atoms, hidden), invariant features, dtype of the parameters.
        positions : Tensor
            (n_atoms, 3) Å, float64 or float32, wrapped or not.
        cell : Tensor
            (3, 3) or (n_systems, 3, 3) Å.
        batch_ptr : Tensor, optional
            (n_systems + 1,) int64; None means one system. See `batch_pointers`.
        modes : optional
            From `self.modes`, to share them among layers.
        pbc : bool or sequence of bool
            Must be periodic in every direction.

        Returns
        -------
        Tensor
            (n_atoms, hidden), to be added to the features, or to enter a product with them.
        """
        check_features("x", x, self.hidden, self.qkv.weight)
        modes = self._modes_of(cell, batch_ptr, modes, pbc)
        return self._attend(x, None, positions, cell, batch_ptr, modes).flatten(1)
