"""Machine-learned potentials: MACE, short-range or with a long-range layer after every interaction.

`ModelConfig` says what a model is, `build` makes one with new weights, `save` and `load` keep it as safetensors + JSON,
and `accelerate` puts cuequivariance's blocks in. Checkpoints of others: `silica_md.models.published`.
The short-range network is that of mace-torch, which is imported on first use (``pip install 'silica-md[mace]'``).
"""

from __future__ import annotations

from .config import ModelConfig

__all__ = ["Graph", "ModelConfig", "Network", "accelerate", "build", "load", "save"]

_WHERE = {
    "Graph": "network",
    "Network": "network",
    "accelerate": "cueq",
    "build": "network",
    "load": "store",
    "save": "store",
}


def __getattr__(name: str):
    """Import what needs mace-torch when it is asked for."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_WHERE[name]}", __name__), name)
