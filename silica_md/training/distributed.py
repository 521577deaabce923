"""Processes that train together: the only file of silica_md that knows torch.distributed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

import torch
import torch.distributed
from torch import Tensor


class Group:
    """The processes of a training; alone unless torchrun has started several."""

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size

    @property
    def leads(self) -> bool:
        """Whether this process writes the files and speaks."""
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> Tensor:
        """Add up a tensor of all processes, in place; every process gets the same bits."""
        if self.size > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def wait(self) -> None:
        """Wait for the others."""
        if self.size > 1:
            torch.distributed.barrier()

    def sum_gradients(self, parameters: Sequence[Tensor], extra: Tensor) -> Tensor:
        """Add up gradients in one message; a gradient that no process has stays None. Returns the sum of `extra`.

        A process without frames has no gradients, which counts as zero.
        """
        if self.size == 1:
            return extra
        held = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=extra.dtype)
        parts = [
            parameter.new_zeros(parameter.numel()) if parameter.grad is None else parameter.grad.reshape(-1)
            for parameter in parameters
        ]
        flat = self.sum_(torch.cat([*parts, held.to(extra.device), extra]))
        sizes = [parameter.numel() for parameter in parameters]
        *summed, held, extra = flat.split([*sizes, len(parameters), len(extra)])
        for parameter, gradient, count in zip(parameters, summed, held.tolist(), strict=True):
            parameter.grad = gradient.view_as(parameter) if count else None
        return extra


def local_rank() -> int:
    """Number of this process among those of its machine; 0 alone."""
    return int(os.environ.get("LOCAL_RANK", 0)) if "TORCHELASTIC_RUN_ID" in os.environ else 0


@contextlib.contextmanager
def group(device: torch.device) -> Iterator[Group]:
    """Join the processes torchrun has started (gloo on CPUs, NCCL on GPUs), or be alone.

    A process group that the caller has made is used as it is.
    """
    ours = not torch.distributed.is_initialized()
    if ours and "TORCHELASTIC_RUN_ID" not in os.environ:
        yield Group()
        return
    if ours:
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Group(torch.distributed.get_rank(), torch.distributed.get_world_size())
    finally:
        if ours:
            torch.distributed.destroy_process_group()
