"""Fourier transforms between a real mesh and the modes of a band around zero.

Only modes |n_y| ≤ n_y,max and 0 ≤ n_z ≤ n_z,max are wanted, a small part of what the mesh resolves: from z to y to x
everything else is dropped (or on the way back, is zero) as soon as it can be. On the CPU a few planes at a
time go through the steps along z and y, in the caches.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_BLOCK_BYTES = 1 << 21
"""Planes transformed together: some megabytes, so that they and their transforms stay in the caches."""


class BandFourier:
    """Σ over the mesh of exp(−2πi n·m/g), and back, for n in a band; half space n_z ≥ 0 of real meshes.

    Parameters
    ----------
    mesh : tuple of int
        Mesh points along each axis.
    band : tuple of int
        Largest |n| along each axis, less than half the mesh.

    Attributes
    ----------
    shape : tuple of int
        Of a spectrum without its channels: n_x = 0 … g_x − 1 (modulo g_x), n_y = 0 … band, −band … −1, n_z = 0 … band.
    """

    def __init__(self, mesh: tuple[int, int, int], band: tuple[int, int, int]):
        self.mesh, self.band = mesh, band
        self.shape = (mesh[0], 2 * band[1] + 1, band[2] + 1)

    def places(self, n: Tensor) -> Tensor:
        """Where in a flattened spectrum the modes n (M, 3) with n_z ≥ 0 stand."""
        sizes = torch.tensor(self.shape, device=n.device)
        x, y, z = (n % sizes).unbind(1)
        return (x * self.shape[1] + y) * self.shape[2] + z

    def together(self, mesh: Tensor) -> list[slice]:
        """Channels to transform at a time: on the CPU one, or as many as have some megabytes."""
        channels = mesh.shape[0]
        width = channels if mesh.device.type != "cpu" else _BLOCK_BYTES // (math.prod(self.mesh) * mesh.itemsize)
        width = max(width, 1)
        return [slice(c, min(c + width, channels)) for c in range(0, channels, width)]

    def _blocks(self, mesh: Tensor) -> list[slice]:
        planes = self.mesh[0]
        width = planes
        if mesh.device.type == "cpu" and mesh.shape[0] == 1:
            width = max(_BLOCK_BYTES // (self.mesh[1] * self.mesh[2] * mesh.itemsize), 1)
        return [slice(x, min(x + width, planes)) for x in range(0, planes, width)]

    def forward(self, rho: Tensor) -> Tensor:
        """Real meshes (C, gx, gy, gz) to spectra (C, *shape)."""
        y, z = self.band[1:]
        out = torch.empty((rho.shape[0], *self.shape), dtype=rho.dtype.to_complex(), device=rho.device)
        for x in self._blocks(rho):
            rows = torch.fft.fft(torch.fft.rfft(rho[:, x], dim=3)[..., : z + 1], dim=2)
            out[:, x, : y + 1] = rows[:, :, : y + 1]
            out[:, x, y + 1 :] = rows[:, :, self.mesh[1] - y :]
        return torch.fft.fft(out, dim=1)

    def backward(self, spectrum: Tensor, out: Tensor) -> Tensor:
        """Spectra to real meshes, into `out`: Re Σ over n_z ≥ 0, counted twice where n_z > 0, of … exp(+2πi n·m/g)."""
        y, z = self.band[1:]
        columns = torch.fft.ifft(spectrum, dim=1, norm="forward")
        blocks = self._blocks(out)
        padded = spectrum.new_zeros((spectrum.shape[0], blocks[0].stop, self.mesh[1], z + 1))
        for x in blocks:
            rows = padded[:, : x.stop - x.start]
            rows[:, :, : y + 1] = columns[:, x, : y + 1]
            rows[:, :, self.mesh[1] - y :] = columns[:, x, y + 1 :]
            lines = torch.fft.ifft(rows, dim=2, norm="forward")
            torch.fft.irfft(lines, n=self.mesh[2], dim=3, norm="forward", out=out[:, x])
        return out
