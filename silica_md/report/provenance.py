"""With what a result was made: versions, machine, threads, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import torch

from rsa_kernels.doctor import processor, version_of

_PACKAGES = ("silica-md", "torch", "numpy", "scipy", "ase", "finufft", "h5py", "periodictable", "matplotlib")


def provenance() -> dict[str, str]:
    """Return versions and machine as {name: text}; what cannot be found out is left out."""
    facts = {name: version_of(name) for name in _PACKAGES}
    facts |= {
        "git commit": _commit(),
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} ({platform.machine()})",
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "threads": str(torch.get_num_threads()),
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    return {name: text for name, text in facts.items() if text}


def _commit():
    """The commit of the source tree this package is imported from, with "+" when files were changed since."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        commit = _git(folder, "rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder, *arguments):
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
