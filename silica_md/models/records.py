"""What can be read from the records of an unpickled module: tensors by name, children, irreps, settings of MACE."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..errors import PublishedModelError
from .unpickle import Global, Record

MOST_MODULES = 100_000
"""More than any model has; a file whose modules contain one another in a ring ends here."""

BLOCKS = {
    *("LinearNodeEmbeddingBlock", "RadialEmbeddingBlock", "AtomicEnergiesBlock", "ScaleShiftBlock"),
    *("EquivariantProductBasisBlock", "SymmetricContraction", "Contraction", "reduce_graph_module"),
    *("LinearReadoutBlock", "NonLinearReadoutBlock", "NonLinearBiasReadoutBlock", "reshape_irreps"),
    *("BesselBasis", "GaussianBasis", "ChebychevBasis", "PolynomialCutoff", "RadialMLP"),
    *("AgnesiTransform", "SoftTransform", "ZBLBasis", "GatedEquivariantBlock"),
    *("RealAgnosticInteractionBlock", "RealAgnosticResidualInteractionBlock"),
    *("RealAgnosticDensityInteractionBlock", "RealAgnosticDensityResidualInteractionBlock"),
    *("RealAgnosticAttResidualInteractionBlock", "RealAgnosticResidualNonLinearInteractionBlock"),
    *("ReciprocalSpaceGatedAttention", "EwaldPotentialTriclinic"),
}
"""Classes of mace and of the published layers whose equations the networks here have."""

_RADIAL = {"BesselBasis": "bessel", "GaussianBasis": "gaussian", "ChebychevBasis": "chebyshev"}
_TRANSFORMS = {"AgnesiTransform": "Agnesi", "SoftTransform": "Soft"}
_FLAGS = {
    "apply_cutoff": True,
    "use_so3": False,
    "use_agnostic_product": False,
    "use_last_readout_only": False,
    "use_edge_irreps_first": False,
}
"""Switches of `mace.modules.MACE` and what a file from before them means."""

_RSGA = {
    "auto_sigma": True,
    "auto_cut": True,
    "eps_real": 1e-4,
    "eps_k": 1e-3,
    "eps_mass": 1e-6,
    "normalize_weights": False,
    "M_cap": 1024,
}
"""Settings of the waves of published RSGA layers; others are not what ``norm="rsga"`` computes."""


def fields(module: object) -> dict:
    """Attributes of a module's record, those of a compiled graph included.

    Raises
    ------
    PublishedModelError
        It is no module.
    """
    if isinstance(module, Record):
        state = module.state
        if state is None and module.kind.name == "reduce_graph_module" and module.arguments:
            state = module.arguments[0]
        if isinstance(state, dict) and isinstance(state.get("_modules"), dict):
            return state
    raise PublishedModelError(f"a {_kind(module)} stands where a module should be")


def modules(root: Record) -> Iterator[tuple[str, Record]]:
    """Names and records of a module and all it holds, in torch's order."""
    stack, count = [("", root)], 0
    while stack:
        name, module = stack.pop()
        count += 1
        if count > MOST_MODULES:
            raise PublishedModelError(f"there are more than {MOST_MODULES} modules, or they contain one another")
        yield name, module
        children = [(f"{name}.{key}" if name else str(key), one) for key, one in fields(module)["_modules"].items()]
        stack += [(key, one) for key, one in reversed(children) if one is not None]


def tensors(root: Record) -> dict[str, Tensor]:
    """Parameters and persistent buffers under the names that ``state_dict()`` gives them."""
    state = {}
    for name, module in modules(root):
        held = fields(module)
        skipped = held.get("_non_persistent_buffers_set") or ()
        for kind in ("_parameters", "_buffers"):
            for key, value in held.get(kind, {}).items():
                if value is None or (kind == "_buffers" and key in skipped):
                    continue
                if not isinstance(value, Tensor):
                    raise PublishedModelError(f"{name}.{key} is a {_kind(value)}, not a tensor")
                state[f"{name}.{key}" if name else str(key)] = value.detach()
    return state


def settings(root: Record) -> dict:
    """What `ModelConfig` needs to know of a pickled `mace.modules` model, from its attributes and its tensors.

    Raises
    ------
    PublishedModelError
        Its class, a class of its parts, or a setting is not one the networks here have; the message names it.
    """
    for name, module in modules(root):
        package = module.kind.module.split(".")[0]
        if name and package == "mace" and module.kind.name not in BLOCKS:
            raise PublishedModelError(f"`{name}` is a {module.kind}, which is not supported")
    top, state = fields(root), tensors(root)
    children = {name: dict(modules(root)).get(name) for name in _NEEDED}
    missing = [name for name, found in children.items() if found is None]
    if missing:
        raise PublishedModelError(f"a {root.kind} without `{missing[0]}` is not supported")
    if top.get("embedding_specs") or "joint_embedding" in top["_modules"]:
        raise PublishedModelError("`embedding_specs` (embeddings of charge, spin and the like) are not supported")
    layers = list(fields(children["interactions"])["_modules"].values())
    products = list(fields(children["products"])["_modules"].values())
    readouts = list(fields(children["readouts"])["_modules"].values())
    for part in (*layers, *products):
        if _enabled(fields(part).get("cueq_config")) or _enabled(fields(part).get("oeq_config")):
            raise PublishedModelError(
                "its blocks are those of cuequivariance or openequivariance; convert it back with mace_cueq_to_e3nn"
                " (python -m mace.cli.convert_cueq_e3nn) first"
            )
    outputs = [irreps_text(fields(fields(one)["_modules"]["linear"])["irreps_out"]) for one in products]
    heads = tuple(str(one) for one in top.get("heads") or ("Default",))
    found = {
        "r_max": number(state["r_max"]),
        "atomic_numbers": tuple(int(one) for one in state["atomic_numbers"]),
        "atomic_energies": plain(state["atomic_energies_fn.atomic_energies"]),
        "num_cutoff_basis": int(state["radial_embedding.cutoff_fn.p"]),
        "max_ell": int(fields(children["spherical_harmonics"])["_lmax"]),
        "interaction_first": layers[0].kind.name,
        "interaction": _same("interaction classes", [one.kind.name for one in layers[1:] or layers]),
        "num_interactions": len(layers),
        "hidden_irreps": outputs[0],
        "keep_last_layer_irreps": len(outputs) > 1 and outputs[-1] == outputs[0] and "+" in outputs[0],
        "correlation": _correlation(state, len(layers)),
        "avg_num_neighbors": _same(
            "`avg_num_neighbors` of the interactions", [number(fields(one)["avg_num_neighbors"]) for one in layers]
        ),
        "heads": heads,
        "use_reduced_cg": False,
        "edge_irreps": irreps_text(top["edge_irreps"]) if top.get("edge_irreps") is not None else "",
        "pair_repulsion": "pair_repulsion_fn" in top["_modules"],
        "radial_MLP": _same("`radial_MLP` of the interactions", [_widths(one) for one in layers]),
    }
    found |= {flag: bool(top.get(flag, default)) for flag, default in _FLAGS.items()}
    return found | _radial(children["radial_embedding"], state) | _readout(readouts[-1], len(heads))


_NEEDED = ("interactions", "products", "readouts", "radial_embedding", "spherical_harmonics", "atomic_energies_fn")


def check_rsga(root: Record) -> None:
    """Refuse published gated attention with other waves or channels than ``norm="rsga"`` has.

    Raises
    ------
    PublishedModelError
        Naming the setting.
    """
    r_max, layers = number(tensors(root)["r_max"]), fields(fields(root)["_modules"]["rsga"])["_modules"]
    for name, layer in layers.items():
        own = fields(layer)
        waves = fields(own["_modules"]["kspace_freq"])
        for key, expected in _RSGA.items():
            if waves.get(key) != expected:
                raise PublishedModelError(f"rsga.{name} has {key} = {waves.get(key)}, only {expected} is supported")
        if number(own["r_cut"]) != r_max:
            raise PublishedModelError(f"rsga.{name} has r_cut = {number(own['r_cut'])}, not r_max = {r_max}")
        if own["scalar_sl"] != slice(0, own["H"], None) or fields(own["_modules"]["in_proj"])["_parameters"]:
            raise PublishedModelError(f"rsga.{name} acts on other channels than the leading scalars")


def irreps_text(irreps: object) -> str:
    """Irreps of e3nn, from their record, as e3nn writes them: "8x0e+8x1o"."""
    try:
        (parts,) = irreps.arguments
        pairs = [part.arguments[0] for part in parts]
        return "+".join(f"{mul}x{ir.arguments[0][0]}{'e' if ir.arguments[0][1] == 1 else 'o'}" for mul, ir in pairs)
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        raise PublishedModelError(f"a {_kind(irreps)} stands where irreps should be") from error


def number(value: object) -> float:
    """A number, however it was kept: as itself, a tensor or a NumPy scalar."""
    if isinstance(value, Record) and value.kind.name == "scalar":
        return _numpy_scalar(value)
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise PublishedModelError(f"a {_kind(value)} stands where a number should be")


def plain(value: Tensor) -> float | tuple:
    """A tensor as nested tuples, a number where it has no dimension."""
    return value.item() if value.dim() == 0 else tuple(plain(one) for one in value.double())


def _numpy_scalar(record: Record) -> float:
    import numpy as np

    dtype, content = record.arguments
    code = dtype.arguments[0] if isinstance(dtype, Record) else None
    if code not in ("f8", "f4", "i8", "i4") or not isinstance(content, bytes):
        raise PublishedModelError("a NumPy scalar of another kind than a number")
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "<"
    return float(np.frombuffer(content, dtype=("<" if order == "=" else order) + code)[0])


def _same(what: str, values: list):
    if any(one != values[0] for one in values):
        raise PublishedModelError(f"{what} differ from layer to layer, which is not supported: {values}")
    return values[0]


def _enabled(config: object) -> bool:
    held = config.state if isinstance(config, Record) else config
    return bool(held.get("enabled", True)) if isinstance(held, dict) else held is not None


def _correlation(state: dict[str, Tensor], layers: int) -> int | tuple[int, ...]:
    each = []
    for layer in range(layers):
        start = f"products.{layer}.symmetric_contractions.contractions.0.weights."
        each.append(1 + sum(name.startswith(start) for name in state))
    return each[0] if len(set(each)) == 1 else tuple(each)


def _widths(layer: Record) -> tuple[int, ...]:
    given = fields(layer).get("radial_MLP")
    if given is not None:
        return tuple(int(one) for one in given)
    network = fields(fields(layer)["_modules"]["conv_tp_weights"])
    return tuple(int(one) for one in network["hs"][1:-1])


def _radial(embedding: Record, state: dict[str, Tensor]) -> dict:
    parts = fields(embedding)["_modules"]
    kind = parts["bessel_fn"].kind.name
    if kind not in _RADIAL:
        raise PublishedModelError(f"radial functions {kind} are not supported")
    transform = "None"
    if "distance_transform" in parts:
        transform = _TRANSFORMS[parts["distance_transform"].kind.name]
    weights = {"bessel": "bessel_weights", "gaussian": "gaussian_weights", "chebyshev": "n"}[_RADIAL[kind]]
    return {
        "radial_type": _RADIAL[kind],
        "num_radial_basis": state[f"radial_embedding.bessel_fn.{weights}"].numel(),
        "distance_transform": transform,
    }


def _readout(last: Record, heads: int) -> dict:
    held = fields(last)
    if last.kind.name == "LinearReadoutBlock":  # a network of one interaction has no other
        return {}
    scalars = irreps_text(held["hidden_irreps"])
    channels, _, irrep = scalars.partition("x")
    if irrep != "0e" or int(channels) % heads:
        raise PublishedModelError(f"a readout with hidden irreps {scalars} and {heads} heads is not supported")
    return {
        "readout": last.kind.name,
        "MLP_irreps": f"{int(channels) // heads}x0e",
        "gate": _gate(fields(fields(held["_modules"]["non_linearity"])["_modules"]["acts"])["_modules"]["0"]),
    }


def _gate(act: Record | None) -> str:
    function = None if act is None else fields(act).get("f", fields(act)["_modules"].get("f"))
    if function is None:
        return "None"
    name = function.name if isinstance(function, Global) else _kind(function).lower()
    if name not in ("silu", "tanh", "abs"):
        raise PublishedModelError(f"the activation {name} of the readout is not supported")
    return name


def _kind(value: object) -> str:
    return value.kind.name if isinstance(value, Record) else type(value).__name__


def floating_dtype(state: dict[str, Tensor]) -> torch.dtype:
    """The one type of the weights.

    Raises
    ------
    PublishedModelError
        It is neither float64 nor float32.
    """
    weights = [value for name, value in state.items() if value.is_floating_point() and "weight" in name]
    kinds = {value.dtype for value in weights if value.numel()}
    if kinds not in ({torch.float64}, {torch.float32}):
        raise PublishedModelError(f"weights are {', '.join(sorted(map(str, kinds)))}; float64 or float32 is expected")
    return kinds.pop()


def constants(root: Record) -> dict[str, tuple[float, ...]]:
    """Normalisation factors that modules of e3nn hold as numbers: of activations, and of the paths of products."""
    found = {}
    for name, module in modules(root):
        held = fields(module)
        if module.kind.name == "normalize2mom":
            found[name] = (number(held["cst"]),)
        elif isinstance(held.get("instructions"), list):
            found[name] = tuple(_path_weight(one.arguments) for one in held["instructions"])
    return found


def own_constants(module: torch.nn.Module) -> tuple[float, ...]:
    """The same of a module of ours."""
    return (module.cst,) if hasattr(module, "cst") else tuple(_path_weight(one) for one in module.instructions)


def _path_weight(instruction: tuple) -> float:
    # The one float among indices, a mode and a shape.
    return next((one for one in instruction if isinstance(one, float)), 1.0)
