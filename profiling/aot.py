"""Compiles the Triton kernels for GPUs that are not there and tables their registers, shared memory and spills.

`python -m profiling.aot` prints the table, `--write` keeps it in results/triton_resources.csv.
"""

from __future__ import annotations

import argparse
import csv
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch
import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from rsa_kernels.pair import triton_pair
from rsa_kernels.reciprocal import triton_grid, triton_pairwise, triton_spectral

CAPABILITIES = (80, 90, 100)
TABLE = Path(__file__).with_name("results") / "triton_resources.csv"

_POINTERS = {
    "*i32": ("species", "owners", "shifts", "columns", "pair_index"),
    "*i64": ("batch", "rows"),
    "*fp64": (
        "positions", "cells", "extended", "weights", "coefficients", "blocks", "forces", "gradient", "per_atom", "sums",
        "out",
    ),
}  # fmt: skip
_TYPE_OF = {f"{name}_ptr": kind for kind, names in _POINTERS.items() for name in names}


@dataclass(frozen=True)
class Variant:
    """One kernel with its flags and tiles, launched as the package launches it."""

    kernel: Callable
    flags: Mapping[str, bool | int]
    options: Mapping[str, int | bool]
    types: Mapping[str, str] = field(default_factory=lambda: _TYPE_OF)
    precision: str = ""

    @property
    def name(self) -> str:
        """Name of the kernel, its precision where it has several, and the flags that are set."""
        switched = [flag for flag, value in self.flags.items() if value is True]
        return " ".join(filter(None, [self.kernel.__name__, self.precision, *switched]))


def _pair(kernel, **flags) -> Variant:
    return Variant(kernel, {**flags, **triton_pair.TILES}, triton_pair.OPTIONS)


VARIANTS = (
    Variant(triton_pair._pair_place_kernel, {"BLOCK": triton_pair.BLOCK}, triton_pair.OPTIONS),
    _pair(triton_pair._pair_fwd_kernel, ENERGY=False, VIRIAL=False, PER_ATOM=False),
    _pair(triton_pair._pair_fwd_kernel, ENERGY=True, VIRIAL=True, PER_ATOM=False),
    _pair(triton_pair._pair_fwd_kernel, ENERGY=True, VIRIAL=True, PER_ATOM=True),
    _pair(triton_pair._pair_bwd_kernel),
    Variant(triton_pair._pair_sum_kernel, {"BLOCK": triton_pair.BLOCK}, triton_pair.OPTIONS),
)


def _reciprocal(dtype: torch.dtype) -> Iterator[Variant]:
    """Every kernel of reciprocal space with the tiles of narrow and of wide heads and channels."""
    precision = {torch.float32: "fp32", torch.float64: "fp64"}[dtype]
    integer = {torch.float32: "*i32", torch.float64: "*i64"}[dtype]
    pointers = (
        (f"*{precision}", ("q", "k", "v", "g", "weights", "x", "y", "z", "phi", "rho", "slopes")),
        ("*fp64", ("u", "gq", "gk", "gv", "gf", "gw", "per_tile", "pull", "fractional", "tables")),
        (integer, ("turns", "along")),
        ("*i32", ("miller", "first")),
        ("*i64", ("tiles", "tile_ranges", "mode", "atom", "brick")),
    )
    types = {f"{name}_ptr": kind for kind, names in pointers for name in names}

    def variant(module, kernel, types=types, **flags):
        return Variant(kernel, flags, module.OPTIONS, types, precision)

    for width in (16, 32):
        tiles = triton_pairwise.tiles(dtype, width, width)
        yield variant(triton_pairwise, triton_pairwise._pairwise_fwd_kernel, **tiles)
        yield variant(triton_pairwise, triton_pairwise._pairwise_bwd_kernel, **tiles)
        yield variant(triton_pairwise, triton_pairwise._pairwise_bwd_waves_kernel, **tiles)
    if dtype == torch.float64:
        yield variant(triton_pairwise, triton_pairwise._pairwise_modes_kernel, BLOCK_M=triton_pairwise.BLOCK_SUM)
    for tangent in (False, True):
        kinds = {**types, "along_ptr": f"*{precision}"} if tangent else types
        for channels in (16, 64):
            for kernel, tile in (
                (triton_spectral._accumulate_fwd_kernel, triton_spectral.accumulate_tile(dtype, channels)),
                (triton_spectral._gather_fwd_kernel, triton_spectral.gather_tile(dtype, channels)),
            ):
                yield variant(triton_spectral, kernel, kinds, TANGENT=tangent, SEGMENT=triton_spectral.SEGMENT, **tile)
        yield variant(
            triton_spectral, triton_spectral._pull_kernel, kinds, TANGENT=tangent, **triton_spectral.PULL_TILE
        )
    sites = {"BLOCK": triton_grid.SITES, "LANES": triton_grid.LANES}
    yield variant(triton_grid, triton_grid._grid_sites_kernel, **sites)
    for channels in (16, 32) if dtype == torch.float32 else (16,):
        tile = triton_grid.spread_tile(dtype, channels)
        yield variant(triton_grid, triton_grid._grid_spread_kernel, BRICK=triton_grid.BRICK, **tile)
    for pull in (False, True):
        for order in (8, 16):
            tile = triton_grid.interpolate_tile(order)
            yield variant(triton_grid, triton_grid._grid_interpolate_kernel, PULL=pull, **tile)


RECIPROCAL = (*_reciprocal(torch.float32), *_reciprocal(torch.float64))


@dataclass(frozen=True)
class Resources:
    """What one compiled kernel takes of a GPU; a spill shows as stack or local bytes."""

    kernel: str
    target: str
    tile: str
    warps: int
    registers: int
    shared_bytes: int
    stack_bytes: int
    local_bytes: int
    triton: str
    ptxas: str

    @property
    def spills(self) -> bool:
        """Whether registers went to memory."""
        return self.stack_bytes + self.local_bytes > 0


def compile_ahead(variant: Variant, capability: int):
    """Compile as a launch would, without a GPU: pointers 16-byte aligned, scalars of the types annotated."""
    signature, alignment = {}, {}
    for place, parameter in enumerate(variant.kernel.params):
        if parameter.name in variant.flags:
            signature[parameter.name] = "constexpr"
        elif parameter.name.endswith("_ptr"):
            signature[parameter.name] = variant.types[parameter.name]
            if not parameter.do_not_specialize_on_alignment:
                alignment[(place,)] = [["tt.divisibility", 16]]
        else:
            signature[parameter.name] = parameter.annotation_type
    source = ASTSource(variant.kernel, signature, dict(variant.flags), alignment)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=dict(variant.options))


def resources(variant: Variant, capability: int) -> Resources:
    """Compile and read what the machine code says about itself."""
    compiled = compile_ahead(variant, capability)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        dump = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {key: int(value) for key, value in re.findall(r"\b(REG|STACK|SHARED|LOCAL):(\d+)", dump)}
    tile = "x".join(str(value) for key, value in variant.flags.items() if key.startswith("BLOCK"))
    assembler = knobs.nvidia.ptxas_blackwell if capability >= 100 else knobs.nvidia.ptxas
    return Resources(
        kernel=variant.name,
        target=f"sm_{capability}",
        tile=tile,
        warps=variant.options["num_warps"],
        registers=found["REG"],
        # What a launch asks for comes on top of what is fixed in the machine code.
        shared_bytes=max(found["SHARED"], compiled.metadata.shared),
        stack_bytes=found["STACK"],
        local_bytes=found["LOCAL"],
        triton=triton.__version__,
        ptxas=assembler.version,
    )


def read(path: Path = TABLE) -> list[Resources]:
    """Read a table that `write` has written."""
    kinds = {field.name: {"int": int, "str": str}[field.type] for field in fields(Resources)}
    with path.open(encoding="utf-8", newline="") as file:
        return [Resources(**{name: kinds[name](value) for name, value in row.items()}) for row in csv.DictReader(file)]


def write(rows: list[Resources], path: Path = TABLE) -> None:
    """Write the table, one line a kernel and target."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Resources)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 if a kernel spills."""
    parser = argparse.ArgumentParser(prog="python -m profiling.aot", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"keep the table in profiling/results/{TABLE.name}")
    options = parser.parse_args(arguments)
    rows = [resources(variant, capability) for variant in (*VARIANTS, *RECIPROCAL) for capability in CAPABILITIES]
    print(f"Triton {triton.__version__}; registers a thread, bytes a block; compiled, not run")
    columns = ("kernel", "target", "tile", "warps", "registers", "shared_bytes", "stack_bytes", "local_bytes")
    print("{:<42} {:<7} {:<11} {:>5} {:>9} {:>12} {:>11} {:>11}".format(*columns))
    for row in rows:
        line = "{:<42} {:<7} {:<11} {:>5} {:>9} {:>12} {:>11} {:>11}".format(*(getattr(row, name) for name in columns))
        print(line + ("  SPILLS" if row.spills else ""))
    if options.write:
        write(rows)
    return int(any(row.spills for row in rows))


if __name__ == "__main__":
    sys.exit(main())
