"""The one door to mace-torch and e3nn: imports what the models use, and leaves the process as it was."""

import contextlib
import io
import os
import warnings

_FORCE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
"""e3nn unpickles its own constants while it imports.
Left set, as mace-torch leaves it, every later torch.load would unpickle anything."""

_before = os.environ.get(_FORCE)
try:
    os.environ[_FORCE] = "1"
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        from e3nn import get_optimization_defaults, o3, set_optimization_defaults
        from mace import modules
        from mace.modules.blocks import LinearReadoutBlock, NonLinearReadoutBlock
        from mace.modules.utils import get_outputs, prepare_graph
        from mace.tools.scatter import scatter_sum
except ImportError as error:
    raise ImportError(
        f"learned potentials need mace-torch, which does not load here ({error}); pip install 'silica-md[mace]'"
    ) from error
finally:
    os.environ.pop(_FORCE, None)
    if _before is not None:
        os.environ[_FORCE] = _before

__all__ = [
    "LinearReadoutBlock",
    "NonLinearReadoutBlock",
    "get_optimization_defaults",
    "get_outputs",
    "modules",
    "o3",
    "prepare_graph",
    "scatter_sum",
    "set_optimization_defaults",
]
