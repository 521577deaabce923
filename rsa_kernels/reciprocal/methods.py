"""Cuts a batch into its systems, and a sum over waves into chunks of modes and channels that fit into memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from .. import _checks
from ..errors import NonFiniteError
from . import mode_space
from .grid import GridTransform, grid_bytes
from .grid_plan import plan_grid
from .transform import SpectralTransform

WAVES = 1 << 21
"""Numbers in float32 of a chunk of waves (atoms × modes) that a spectral sum holds at a time, half as many in float64:
8 MiB, which caches hold."""
CHANNELS = 1 << 24
"""Numbers of a block of channels (atoms × channels) at a time: 128 MiB in float64."""
MESH_BYTES = 1 << 31
"""Meshes of a block of channels at a time."""


class Systems:
    """Slices of atoms and modes of every system, checked; empty ones are left out."""

    def __init__(self, fractional: Tensor, miller: Tensor, batch_ptr: Tensor, mode_ptr: Tensor):
        atoms = _checks.offsets("batch_ptr", batch_ptr, fractional.shape[0], "atoms")
        modes = _checks.offsets("modes.mode_ptr", mode_ptr, miller.shape[0], "modes")
        self.pairs = [(slice(*a), slice(*m)) for a, m in zip(atoms, modes, strict=True) if a[0] < a[1] and m[0] < m[1]]
        self.sizes = tuple((a.stop - a.start, m.stop - m.start) for a, m in self.pairs)
        if not fractional.is_cuda and not bool(torch.isfinite(fractional).all()):
            raise NonFiniteError("`positions` or `cell` holds NaN or infinite values, or `cell` is singular")

    def __iter__(self) -> Iterator[tuple[slice, slice]]:
        return iter(self.pairs)


def streams(method: str, fractional: Tensor, miller: Tensor, q: Tensor, d_v: int, tolerance: float, atoms_in_all: int):
    """Transforms of one system by the spectral or the grid method, with the blocks of channels to run on each.

    `atoms_in_all` is the number of atoms of the system in all processes, 0 where this one has them all.
    """
    heads, d = q.shape[1:]
    n_atoms, n_modes = fractional.shape[0], miller.shape[0]
    width = max(CHANNELS // n_atoms, 1)
    if method == "grid":
        plan = plan_grid(
            miller.abs().amax(dim=0).tolist(),
            tolerance,
            q.dtype,
            n_atoms=atoms_in_all or n_atoms,
            channels=heads * d * d_v,
        )
        width = max(min(width, MESH_BYTES // grid_bytes(plan, 1, q.dtype)), 1)
        blocks = tuple(mode_space.channel_blocks(heads, d, d_v, width))
        yield mode_space.Stream(slice(0, n_modes), GridTransform(fractional, miller, q.dtype, plan), blocks)
        return
    transform = _spectral_transform(q.device)
    blocks = tuple(mode_space.channel_blocks(heads, d, d_v, width))
    # As many waves as keep small both what a chunk holds of atoms (nothing in the Triton kernels) and of channels.
    states = 2 * min(width, heads * d * d_v)
    rows = states if q.is_cuda else max(n_atoms, states)
    largest = 4 * WAVES // q.element_size()
    chunk = math.ceil(n_modes / math.ceil(n_modes * rows / largest))
    for low in range(0, n_modes, chunk):
        modes = slice(low, min(low + chunk, n_modes))
        yield mode_space.Stream(modes, transform(fractional, miller[modes], q.dtype), blocks)


def _spectral_transform(device: torch.device):
    if device.type == "cuda":
        from .triton_spectral import TritonSpectralTransform

        return TritonSpectralTransform
    return SpectralTransform
