"""Compiles csrc/cuda/*.cu when one of its kernels is first used, and launches kernels on torch's current stream.

The sources share their algorithms with the CPU library: a .cu file holds thin ``extern "C" __global__`` wrappers around
the HOST_DEVICE functions of a header in csrc/. CuPy compiles them (NVRTC) and keeps the machine code in its cache.
Nothing here waits for the device, so launches can be captured in a CUDA graph once a kernel has been used.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .errors import BackendUnavailableError

OPTIONS = ("-std=c++17", "-default-device", "--fmad=true")
"""Fused multiply-adds are stated here; nothing of -use_fast_math."""
BLOCK = 128
"""Threads of a block, unless a launch says otherwise."""

_PACKAGE = Path(__file__).resolve().parent


def source_folder() -> Path:
    """Where csrc lies: in the installed package, or beside it in a checkout."""
    packaged = _PACKAGE / "_csrc"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "csrc"


def missing() -> str | None:
    """Why CUDA sources cannot be compiled here, or None if they can; looks without importing."""
    if importlib.util.find_spec("cupy") is None:
        version = (torch.version.cuda or "13").split(".")[0]
        return f"CuPy is not installed; pip install cupy-cuda{version}x"
    return None


@functools.cache
def _module(source: str, device: int):
    """Return the compiled module of csrc/cuda/<source>.cu on one device."""
    reason = missing()
    if reason is not None:
        raise BackendUnavailableError(f"csrc/cuda/{source}.cu cannot be compiled: {reason}")
    import cupy

    folder = source_folder()
    # The file is included, not pasted, so that its messages name it; headers are part of CuPy's cache key only
    # through the text handed over, which therefore lists what they hold.
    code = f'// {_fingerprint(source)}\n#include "cuda/{source}.cu"\n'
    with cupy.cuda.Device(device):
        return cupy.RawModule(code=code, options=(*OPTIONS, f"-I{folder}"), backend="nvrtc")


@functools.cache
def _fingerprint(source: str) -> str:
    """Digest of a source and of every header it may include."""
    import hashlib

    digest = hashlib.sha256()
    for path in [source_folder() / "cuda" / f"{source}.cu", *sorted(source_folder().glob("*.hpp"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


@functools.cache
def _kernel(source: str, name: str, device: int):
    return _module(source, device).get_function(name)


def launch(source: str, name: str, n_threads: int, *arguments, block: int = BLOCK, device: torch.device) -> None:
    """Run one kernel with at least `n_threads` threads on torch's current stream; returns at once.

    Parameters
    ----------
    source : str
        ``"neighbors"`` for csrc/cuda/neighbors.cu.
    name : str
        Its ``extern "C" __global__`` function. It checks its own thread index against a bound among its arguments.
    n_threads : int
        Threads wanted; zero launches nothing.
    *arguments
        In the kernel's order: tensors on `device` (contiguous; passed as pointers), None (a null pointer), int
        (int64_t) and float (double).
    block : int
        Threads of a block.
    device : torch.device
        A CUDA device.
    """
    if n_threads <= 0:
        return
    import cupy

    index = torch.cuda.current_device() if device.index is None else device.index
    stream = torch.cuda.current_stream(device).cuda_stream
    values = tuple(_plain(name, argument, device) for argument in arguments)
    kernel = _kernel(source, name, index)
    with cupy.cuda.Device(index), cupy.cuda.ExternalStream(stream, index):
        kernel((-(-n_threads // block),), (block,), values)


def _plain(kernel: str, argument, device: torch.device):
    """Return an argument as the machine takes it."""
    if argument is None:
        return np.uint64(0)
    if isinstance(argument, Tensor):
        if argument.device != device or not argument.is_contiguous():
            raise ValueError(
                f"`{kernel}` takes contiguous tensors on {device}, got {tuple(argument.shape)} on {argument.device}"
                f" with strides {argument.stride()}"
            )
        return np.uint64(argument.data_ptr())
    if isinstance(argument, float):
        return np.float64(argument)
    return np.int64(argument)
