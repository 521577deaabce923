"""`silica-md convert`: checkpoints of others become models of this package, and short-range models go back to MACE."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import PublishedModelError

if TYPE_CHECKING:
    from .network import Network
    from .published import Published


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--from-pickle", metavar="FILE", help="a model that torch.save wrote; nothing in it is executed"
    )
    source.add_argument("--state", metavar="FILE", help="a state dict, .npz or .safetensors; with --settings")
    source.add_argument(
        "--foundation", metavar="NAME|FILE", help="a MACE foundation model: small, medium, ... or a file"
    )
    source.add_argument("--to-mace", metavar="MODEL", help="write a short-range model as a pickled ScaleShiftMACE")
    parser.add_argument("--settings", metavar="FILE", help="JSON of the constructor's arguments, with --state")
    parser.add_argument("--out", required=True, metavar="NAME", help="what to write; nothing is overwritten")
    parser.add_argument("--head", metavar="NAME", help="keep this head of a model with several")
    parser.add_argument("--all-heads", action="store_true", help="keep all heads of a model with several")
    parser.add_argument(
        "--dispersion", default="", metavar="TEXT", help='dispersion in its training labels, such as "PBE-D3(BJ)"'
    )


def convert(options: argparse.Namespace) -> int:
    """Read, check, write, and say what was found."""
    try:
        return _convert(options)
    except ImportError as error:  # of mace-torch, with the line that installs it
        raise PublishedModelError(str(error)) from error


def _convert(options: argparse.Namespace) -> int:
    if bool(options.settings) != bool(options.state):
        raise PublishedModelError("--state and --settings go together")
    if options.to_mace:
        return _to_mace(options)
    from . import store

    targets = store.files_of(options.out)
    _refuse_taken(*targets)
    found = one_head(_read(options), options.head, options.all_heads)
    model, source = network_of(found, options.dispersion)
    sys.stdout.write(described(model, source) + "\n")
    warning = known_faults(model)
    if warning:
        sys.stdout.write(f"known: {warning}\n")
    record = store.save(model, options.out, extra={"source": source})
    sys.stdout.write(f"{targets[0]} and {record} written\n")
    return 0


def _read(options: argparse.Namespace) -> Published:
    from . import foundation, published

    if options.state:
        return published.read_state(options.state, options.settings)
    path = options.from_pickle or foundation.locate(options.foundation)
    return published.read_pickled(path, allow_pickle=True)


def one_head(found: Published, head: str | None, keep_all: bool) -> Published:
    """Leave the head that was asked for.

    Raises
    ------
    PublishedModelError
        There are several and none was asked for, or there is no such head.
    """
    from . import published

    heads = found.config.heads
    if head and keep_all:
        raise PublishedModelError("--head and --all-heads exclude each other")
    if head:
        return published.select_head(found, head)
    if len(heads) > 1 and not keep_all:
        raise PublishedModelError(f"the model has the heads {', '.join(heads)}: choose one with --head, or --all-heads")
    return found


def network_of(found: Published, dispersion: str = "") -> tuple[Network, dict]:
    """Return the network of a checkpoint, and its provenance as plain data."""
    from dataclasses import replace

    from . import published

    found = replace(found, config=replace(found.config, dispersion=dispersion))
    return published.to_network(found), found.source


def described(model: Network, source: dict) -> str:
    """What a model is, in a few lines."""
    from ase.data import chemical_symbols

    config = model.config
    elements = [chemical_symbols[number] for number in config.atomic_numbers]
    shown = ", ".join(elements) if len(elements) <= 12 else f"{len(elements)} from {elements[0]} to {elements[-1]}"
    rows = [
        ("found", f"{source['class']} in {source.get('file', 'memory')} ({source['route']})"),
        ("elements", shown),
        ("network", f"{config.num_interactions} × {config.interaction}, {config.hidden_irreps}, l ≤ {config.max_ell}"),
        ("cutoff", f"{config.r_max:g} Å, {config.radial_type}, {config.num_radial_basis} functions"),
        ("body order", f"correlation {config.correlation}"),
        ("parameters", f"{sum(one.numel() for one in model.parameters()):,} in {str(model.dtype)[6:]}"),
        ("heads", ", ".join(config.heads)),
        ("repulsion", "ZBL" if config.pair_repulsion else "none"),
        ("long range", "none" if config.kind == "sr" else f"{config.kind}, norm {config.published or 'intensive'}"),
        ("dispersion", config.dispersion or "none recorded in the training labels"),
    ]
    return "\n".join(f"{name:11s} {text}" for name, text in rows)


def known_faults(model: Network) -> str:
    """Return what is known to be wrong with the published layer of a model, "" for any other."""
    from .published import WARNINGS

    return WARNINGS.get(model.config.published, "")


def _to_mace(options: argparse.Namespace) -> int:
    import torch

    from . import store
    from .published import to_mace

    if options.head or options.all_heads or options.dispersion:
        raise PublishedModelError("--to-mace takes no other flag than --out")
    out = Path(options.out)
    _refuse_taken(out)
    model, _ = store.load(options.to_mace)
    plain = to_mace(model)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("xb") as file:
        torch.save(plain, file)
    sys.stdout.write(f"{out} written: a pickled ScaleShiftMACE, for mace.calculators.MACECalculator\n")
    return 0


def _refuse_taken(*paths: Path) -> None:
    for path in paths:
        if path.exists():
            raise PublishedModelError(f"{path} is there already and is not overwritten; choose another --out")
