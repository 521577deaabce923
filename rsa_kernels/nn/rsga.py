"""Reciprocal-space gated attention: reciprocal-space attention whose values, update and share are gated."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .. import _checks
from ..reciprocal import Modes, published
from ..reciprocal.spectra import Spectrum
from .rsa import AttentionModule
from .waves import check_features


class GatedUpdate(NamedTuple):
    """What the gated layer returns; the published model adds one times the other: h ← h + mix_gate · update.

    Attributes
    ----------
    update : Tensor
        (n_atoms, hidden).
    mix_gate : Tensor
        (n_atoms, 1), in (0, 1): the share of the long-range channel.
    """

    update: Tensor
    mix_gate: Tensor


class ReciprocalSpaceGatedAttention(AttentionModule):
    """RSGA: reciprocal-space attention with gates on values, update and mixing.

        [q, k, v] = x W_qkvᵀ,   q ← SiLU(q),  k ← SiLU(k),  v ← v · sigmoid(val_gate(x))
        u_i = (1/√d) Σ_j (q_i·k_j) K(r_i − r_j) v_j,   K(r) = (1/V) Σ_{0<|k|<k_cut} w(|k|) W(|k|/k_cut) cos k·r
        update = u · (1 + 0.2 tanh(head_gate(x))),   mix_gate = sigmoid(mix_gate_node(x))

    per head of width d. `norm="rsga"` is the published block instead: at most 1,024 waves, u divided by the number of
    atoms. Parameters carry the published names: ``qkv``, ``val_gate``, ``head_gate``, ``mix_gate_node``, ``in_proj``.

    Parameters
    ----------
    width : int
        Channels of the features that come in.
    hidden : int, optional
        Channels of the attention and of the update; x is projected to them first where they differ from `width`.
    heads : int
        Divides `hidden`; each has its own head gate. 1 in the published block.
    norm : {"intensive", "rsga"}
        "intensive": the same in a cell and in its supercell, right stress, continuous. "rsga": for old checkpoints.
    k_cut : float
        1/Å; "intensive" only.
    sigma : float
        Å; "intensive" only. `rsa_kernels.reciprocal.published.rsga_sigma` gives the paper's for a short-range cut-off.
    spectrum : callable, optional
        w(|k|), in place of `sigma`; an nn.Module of |k| is trained with the layer, as ``weighting``.
    r_max : float
        Cut-off of the short-range model, Å; "rsga" only, which derives σ and the waves from it.
    window_start : float
        Fraction of k_cut from which weights fall smoothly to zero.
    method, tolerance
        See `rsa_kernels.reciprocal_attention`.
    device, dtype
        Of the parameters.

    References
    ----------
    arXiv 2604.21222.
    """

    def __init__(
        self,
        width: int,
        hidden: int | None = None,
        *,
        heads: int = 1,
        norm: str = "intensive",
        k_cut: float | None = None,
        sigma: float | None = None,
        spectrum: Spectrum | None = None,
        r_max: float | None = None,
        window_start: float = 0.8,
        method: str = "auto",
        tolerance: float = 1e-5,
        device=None,
        dtype=None,
    ):
        hidden = width if hidden is None else hidden
        factory = {"device": device, "dtype": dtype}
        super().__init__(
            hidden,
            heads,
            norm,
            "rsga",
            k_cut=k_cut,
            sigma=sigma,
            spectrum=spectrum,
            window_start=window_start,
            method=method,
            tolerance=tolerance,
            **factory,
        )
        if not isinstance(width, int) or width < 1 or (norm == "rsga" and width % 2):
            kind = "an even" if norm == "rsga" else "a positive"
            raise ValueError(f"`width` must be {kind} int, got {width!r}")
        if (r_max is None) == (norm == "rsga"):
            raise ValueError(f"`r_max` goes with norm='rsga' and nothing else, got norm={norm!r}, r_max={r_max}")
        if r_max is not None:
            _checks.positive("r_max", r_max, "Å")
        self.width, self.r_max = width, r_max
        self.in_proj = nn.Identity() if hidden == width else nn.Linear(width, hidden, bias=False, **factory)
        self.val_gate = nn.Linear(hidden, hidden, **factory)
        self.head_gate = nn.Linear(hidden, heads, **factory)
        self.mix_gate_node = nn.Linear(hidden, 1, **factory)
        # Values pass, the update is unscaled, the long-range channel is nearly closed: as published.
        for gate, bias in ((self.val_gate, 2.0), (self.head_gate, 0.0), (self.mix_gate_node, -5.0)):
            nn.init.zeros_(gate.weight)
            nn.init.constant_(gate.bias, bias)

    def modes(self, cell: Tensor, n_systems: int | None = None, pbc=True) -> Modes | published.PublishedModes:
        """Return the waves the layer sees in these cells; see `WaveModule.modes`."""
        if self.norm == "rsga":
            return published.rsga_modes(cell, self.r_max, pbc=pbc, n_systems=n_systems)
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
    ) -> GatedUpdate:
        """Return the update of every atom and its share.

        Parameters
        ----------
        x : Tensor
            (n_atoms, width), invariant features, dtype of the parameters.
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
        GatedUpdate
            `update` (n_atoms, hidden) and `mix_gate` (n_atoms, 1); use as h + mix_gate * update.
        """
        check_features("x", x, self.width, self.qkv.weight)
        modes = self._modes_of(cell, batch_ptr, modes, pbc)
        x = self.in_proj(x)
        u = self._attend(x, torch.sigmoid(self.val_gate(x)), positions, cell, batch_ptr, modes)
        if self.norm == "rsga":
            u = u / _atoms_of_own_system(x, batch_ptr).view(-1, 1, 1)
        u = u * (1.0 + 0.2 * torch.tanh(self.head_gate(x))).unsqueeze(-1)
        return GatedUpdate(u.flatten(1), torch.sigmoid(self.mix_gate_node(x)))


def _atoms_of_own_system(x: Tensor, batch_ptr: Tensor | None) -> Tensor:
    """Return the number of atoms in the system of every atom, (n_atoms,)."""
    if batch_ptr is None:
        return x.new_full((x.shape[0],), x.shape[0])
    counts = batch_ptr.diff()
    return torch.repeat_interleave(counts, counts, output_size=x.shape[0]).to(x.dtype)
