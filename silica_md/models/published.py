"""Checkpoints of others: read without running their code, checked, and made into networks of this package.

Two routes lead to the same tensors: the pickled model itself, through `unpickle`, and a state dict with the settings of
its constructor. What they hold is renamed, compared with a network built from the settings, and loaded into it: every
parameter of the file has its place, every parameter of the network comes from the file, and every constant of the file
(coupling coefficients, masks, tables) is what the construction gives.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import torch
from torch import Tensor

from ..errors import PublishedModelError
from . import records
from .config import ModelConfig
from .product_basis import fit_product_basis, spans_couplings
from .unpickle import Record, read_pickle

if TYPE_CHECKING:
    from .network import Network

CLASSES = {"ScaleShiftMACE": "", "MACE": "", "MACERSGA": "rsga"}
"""Classes of models that can be read, and their long-range layer."""

WARNINGS = {
    "rsga": "the published norm is kept: not size-consistent (long-range energy per atom falls as 1/N, at most 1,024"
    " waves): use it at the size it was trained at; stress here is the derivative of the energy, in the code it comes"
    " from it was not, so NPT results made there differ",
}
"""What is known to be wrong with published layers, one line each."""

TOLERANCE = 1e-5
"""Largest difference of a constant in the file from ours, relative where it is above one: float32 models hold tables
rounded to 6e-8, and sums of such; a table of another definition differs by more than a hundredth."""

_SETTINGS = {
    "num_bessel": "num_radial_basis",
    "num_polynomial_cutoff": "num_cutoff_basis",
    "interaction_cls": "interaction",
    "interaction_cls_first": "interaction_first",
    "readout_cls": "readout",
    "atomic_inter_scale": "scale",
    "atomic_inter_shift": "shift",
}
"""Names of the constructor of `mace.modules` and ours, where they differ."""

_MADE = re.compile(
    r"(.*\.)?(output_mask|weights_(max|\d+)_zeroed|bias|weight|cutoff_fn\.r_max|bessel_fn\.(r_max|prefactor))"
    r"|.*\._w3j_\d+_\d+_\d+"
)
"""Buffers that files may lack and the construction gives: masks, flags, empty biases of e3nn, copies of r_max in older
ones; Clebsch–Gordan coefficients, which pickled models hold inside of TorchScript."""

_DROPPED = {"pair_repulsion_fn.r_max"}
"""Buffers of older files that nothing reads any more."""

_FREE = re.compile(
    r"radial_embedding\.(bessel_fn\.\w+_weights|distance_transform\.(q|p|a|alpha))|pair_repulsion_fn\.a_\w+"
    r"|scale_shift\.\w+|atomic_energies_fn\.\w+"
)
"""Buffers that may be trained or fitted, and so have any value."""


@dataclass(frozen=True)
class Published:
    """A checkpoint that was read, before it becomes a network.

    Attributes
    ----------
    config : ModelConfig
        Its architecture and statistics.
    state : dict of str to Tensor
        Its tensors, under the names of `Network`.
    source : dict
        Plain data: class, file, SHA-256 and route.
    constants : dict of str to tuple of float
        Normalisation factors that its modules hold as numbers, by module; only a pickled model has them.
    """

    config: ModelConfig
    state: dict[str, Tensor]
    source: dict
    constants: dict[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return records.floating_dtype(self.state)


def read_pickled(path: str | Path | BinaryIO, *, allow_pickle: bool = False) -> Published:
    """Read a model that ``torch.save(model, path)`` wrote, without running anything of it.

    Parameters
    ----------
    path : str, Path or binary file
        A `ScaleShiftMACE` or `MACE` of mace-torch, or a `MACERSGA`.
    allow_pickle : bool
        Must be True: says that the file may be one whose loading by torch itself would run its code.

    Raises
    ------
    PublishedModelError
        It is not allowed, cannot be read, or is of a kind or has a setting that is not supported; the message says
        which.
    RefusedPickleError
        It names something that no model needs.
    """
    if not allow_pickle:
        raise PublishedModelError(
            f"{path} is read as a pickled model only when asked to (--from-pickle, allow_pickle=True); nothing in it"
            " will be executed"
        )
    root = read_pickle(path)
    if not isinstance(root, Record):
        raise PublishedModelError(
            f"{path} holds a {type(root).__name__}, not a model; for a state dict use --state with --settings"
        )
    kind = _known_class(root.kind.name)
    try:
        settings = records.settings(root)
        if kind == "rsga":
            records.check_rsga(root)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise PublishedModelError(f"{path} is no {root.kind.name} as mace-torch makes it ({error!r})") from error
    source = {"class": str(root.kind), "route": "pickle", **_file(path)}
    return _published(settings, kind, records.tensors(root), source, records.constants(root))


def read_state(path: str | Path, settings: str | Path | Mapping) -> Published:
    """Read a state dict and the settings of the constructor it belongs to; no pickle is involved.

    Parameters
    ----------
    path : str or Path
        ``.npz`` or ``.safetensors``, names as from ``state_dict()``.
    settings : str, Path or mapping
        Arguments of the constructor in `mace.modules` as JSON; "class" where it is not `ScaleShiftMACE` and the names
        of the tensors do not say so.

    Raises
    ------
    PublishedModelError
        A file cannot be read, or a setting is unknown or contradicts another.
    """
    given = _json(settings) if isinstance(settings, (str, Path)) else dict(settings)
    state = _tensors(Path(path))
    gated = any(name.startswith("rsga.") for name in state)
    kind = _known_class(given.pop("class", "MACERSGA" if gated else "ScaleShiftMACE"))
    elements = given.pop("num_elements", None)
    if elements is not None and elements != len(given.get("atomic_numbers", ())):
        raise PublishedModelError(
            f"`num_elements` is {elements}, but `atomic_numbers` is {given.get('atomic_numbers')}"
        )
    known = {
        one: one for one in ModelConfig.__dataclass_fields__ if one not in ("long_range", "dispersion")
    } | _SETTINGS
    for key in given:
        if key not in known or key in _SETTINGS.values():
            near = difflib.get_close_matches(key, [one for one in known if one not in _SETTINGS.values()], n=1)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            raise PublishedModelError(f"unknown setting `{key}` of the constructor{hint}")
    named = {"use_reduced_cg": False} | {known[key]: value for key, value in given.items() if value is not None}
    classes = {key: str(named[key]).rpartition(".")[2] for key in ("interaction", "interaction_first") if key in named}
    source = {"class": next(name for name, layer in CLASSES.items() if layer == kind), "route": "state", **_file(path)}
    return _published(named | classes, kind, state, source, {})


def _published(settings: dict, kind: str, state: dict[str, Tensor], source: dict, constants: dict) -> Published:
    """Name things as the networks here do."""
    settings = dict(settings)
    if kind == "rsga":
        settings |= {"long_range": {"kind": "rsga", "norm": "rsga"}}
        settings["pair_repulsion_after_scale"] = bool(settings.get("pair_repulsion"))
    elif any(name.startswith("rsga.") for name in state):
        raise PublishedModelError(f"a {source['class']} has no tensors rsga.*: is it a MACERSGA?")
    state = {_renamed(name): value for name, value in state.items() if name not in _DROPPED}
    if "scale_shift.scale" not in state:  # of the class MACE, which has neither
        state |= {"scale_shift.scale": torch.tensor(1.0), "scale_shift.shift": torch.tensor(0.0)}
    settings |= {key: records.plain(state[f"scale_shift.{key}"]) for key in ("scale", "shift") if key not in settings}
    try:
        config = ModelConfig.from_dict(settings)
    except (ValueError, TypeError) as error:
        raise PublishedModelError(f"the settings are not those of a model: {error}") from error
    return Published(config, state, source, constants)


def _renamed(name: str) -> str:
    return re.sub(r"^rsga\.(\d+)\.", r"long_range.layers.\1.", name)


def to_network(published: Published) -> Network:
    """Build the network of a checkpoint and fill it, in the type of its weights.

    Raises
    ------
    PublishedModelError
        A tensor is missing or left over, has another shape, or a constant is not what the construction gives; the
        message names it.
    """
    from .network import build

    try:
        model = build(published.config, dtype=published.dtype)
    except (ValueError, TypeError, RuntimeError) as error:
        raise PublishedModelError(f"no network can be built from the settings: {error}") from error
    own = model.state_dict()
    state = {name: value for name, value in published.state.items() if name in own or "._w3j_" not in name}
    extra = sorted(set(state) - set(own))
    if extra:
        raise PublishedModelError(f"the file holds tensors that the network has not: {', '.join(extra[:5])}")
    buffers = dict(model.named_buffers())
    made = {name: value for name, value in buffers.items() if name not in state and _MADE.fullmatch(name)}
    missing = sorted(set(own) - set(state) - set(made))
    if missing:
        raise PublishedModelError(f"the file lacks tensors of the network: {', '.join(missing[:5])}")
    state |= made
    if fit_product_basis(model, state):
        model.config = replace(published.config, use_reduced_cg=True)
    _compare(published, model, own, state, set(buffers))
    model.load_state_dict(state, strict=True)
    return model.eval()


def _compare(published: Published, model: Network, own: dict, state: dict, buffers: set[str]) -> None:
    """Refuse shapes, constants and normalisation factors that are not those of the construction."""
    fitted = model.state_dict()
    for name, value in state.items():
        if value.shape != fitted[name].shape:
            raise PublishedModelError(
                f"`{name}` has shape {tuple(value.shape)}, the settings give {tuple(fitted[name].shape)}"
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise PublishedModelError(f"`{name}` holds values that are not finite")
        if name in buffers and not _FREE.fullmatch(name) and not _same_constant(name, own[name], value):
            raise PublishedModelError(f"the constant `{name}` is not what the settings give")
    for name, given in published.constants.items():
        ours = records.own_constants(model.get_submodule(name))
        if len(ours) != len(given) or any(abs(a - b) > 1e-10 * abs(a) for a, b in zip(ours, given, strict=True)):
            raise PublishedModelError(f"the normalisation of `{name}` is {given}, here it is {ours}")


def _same_constant(name: str, ours: Tensor, given: Tensor) -> bool:
    if ".U_matrix_" in name and ours.shape != given.shape:
        return spans_couplings(ours, given, int(name.rpartition("_")[2]))
    ours, given = ours.double(), given.double()
    return bool((ours - given).abs().le(TOLERANCE * ours.abs().clamp(min=1.0)).all())


def select_head(published: Published, head: str) -> Published:
    """Leave one head of a model with several.

    The readouts of the others are cut away. The last layer's weights are divided by √heads: e3nn normalises by the
    number of inputs, of which the other heads' are always zero. Energies stay the same to rounding.

    Raises
    ------
    PublishedModelError
        There is no such head.
    """
    config, heads = published.config, published.config.heads
    if head not in heads:
        raise PublishedModelError(f"there is no head {head!r}; the model has {', '.join(heads)}")
    which, count = heads.index(head), len(heads)
    if count == 1:
        return published
    if config.readout != "NonLinearReadoutBlock":
        raise PublishedModelError(f"one head cannot be cut out of a {config.readout}; convert all heads (--all-heads)")
    state, width = dict(published.state), int(config.MLP_irreps.partition("x")[0])
    for name, value in published.state.items():
        match = re.fullmatch(r"readouts\.(\d+)\.(linear|linear_1|linear_2)\.(weight|output_mask)", name)
        if match and match[2] == "linear_2" and match[3] == "weight":
            square = value.reshape(count, width, count)[which, :, which]
            state[name] = (square.double() / count**0.5).to(value.dtype).contiguous()
        elif match:
            each = width if match[2] == "linear_1" else 1
            kept = value.reshape(-1, count, each)[:, which]
            state[name] = kept.reshape(-1).contiguous()
    for name in ("scale_shift.scale", "scale_shift.shift", "atomic_energies_fn.atomic_energies"):
        value = published.state[name]
        many = value.dim() > (1 if name.startswith("atomic") else 0) and value.shape[0] == count
        state[name] = value[which].clone() if many else value
    chosen = replace(
        config,
        heads=(head,),
        scale=records.plain(state["scale_shift.scale"]),
        shift=records.plain(state["scale_shift.shift"]),
        atomic_energies=records.plain(state["atomic_energies_fn.atomic_energies"]),
    )
    # Constants of the readouts depend on the number of heads, which is now another.
    kept = {name: value for name, value in published.constants.items() if not name.startswith("readouts.")}
    return Published(chosen, state, published.source | {"head": head, "heads": list(heads)}, kept)


def to_mace(model: Network) -> torch.nn.Module:
    """Return a copy of a short-range network as `mace.modules.ScaleShiftMACE`, for ``torch.save``.

    Raises
    ------
    PublishedModelError
        It has a long-range layer, or repulsion after the scale: mace-torch has neither.
    """
    from ._mace import modules

    if model.config.kind != "sr" or model.config.pair_repulsion_after_scale:
        raise PublishedModelError("only short-range models, with repulsion before the scale, go back to mace-torch")
    if getattr(model, "accelerated", False):
        raise PublishedModelError("`model` must be the one that `accelerate` was given")
    plain = copy.deepcopy(model)
    del plain.config, plain.long_range
    plain.__class__ = modules.ScaleShiftMACE
    return plain


def _known_class(name: str) -> str:
    if name not in CLASSES:
        raise PublishedModelError(f"models of the class {name} are not supported, only {', '.join(CLASSES)}")
    return CLASSES[name]


def _file(path: str | Path | BinaryIO) -> dict:
    if not isinstance(path, (str, Path)):
        return {}
    content = Path(path).read_bytes()
    return {"file": Path(path).name, "sha256": hashlib.sha256(content).hexdigest()}


def _json(path: str | Path) -> dict:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise PublishedModelError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise PublishedModelError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise PublishedModelError(f"{path} must hold the arguments of the constructor as one JSON object")
    return content


def _tensors(path: Path) -> dict[str, Tensor]:
    import numpy as np

    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return {name: torch.from_numpy(archive[name].copy()) for name in archive.files}
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
    except OSError as error:
        raise PublishedModelError(f"{path} cannot be read ({error.strerror or error})") from error
    except Exception as error:  # np.load and safetensors raise many; none may pass as anything but a bad file
        raise PublishedModelError(f"{path} holds no plain tensors: {error}") from error
    raise PublishedModelError(f"{path} must be .npz or .safetensors; a file of torch.save goes with --from-pickle")
