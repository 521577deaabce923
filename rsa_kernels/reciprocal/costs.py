"""The cost and memory model behind method="auto", and what it says for itself.

Seconds of one forward and one backward pass, from the sizes of the systems alone: the passes of an op agree on the
method, and two runs on one machine take the same one. The constants of a machine come from `calibrate`, which writes
them to a file; without the file the built-in ones hold, measured on two cores of a Zen 5 server.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from .. import _checks
from . import grid_plan, pairwise
from .modes import Modes

CALIBRATION = Path(os.path.expanduser("~/.cache/rsa_kernels/reciprocal_costs.json"))
"""Written by `python -m rsa_kernels.reciprocal.calibrate`, by nothing else."""


@dataclass(frozen=True)
class Rates:
    """Constants of one device and dtype, in seconds.

    Attributes
    ----------
    product : float
        A multiplication and addition of a large matrix product.
    wave : float
        Cosine and sine of one atom and wave, with what is done to them one by one.
    pair : float
        One pair of atoms in one head, outside matrix products.
    channel : float
        One atom and channel of the outer products and their sums.
    mesh : float
        The grid model's estimate of an accumulate or gather is multiplied by this.
    call : float
        A system, whatever its size.
    """

    product: float
    wave: float
    pair: float
    channel: float
    mesh: float
    call: float


BUILT_IN = {
    "cpu float64": Rates(product=2.3e-11, wave=3.7e-9, pair=4.0e-9, channel=0.0, mesh=0.69, call=7.3e-4),
    "cpu float32": Rates(product=1.2e-11, wave=2.2e-9, pair=2.6e-9, channel=0.0, mesh=0.83, call=8.0e-4),
}
NOT_MEASURED = Rates(product=1e-13, wave=1e-11, pair=1e-12, channel=1e-11, mesh=0.02, call=1e-4)
"""For devices never calibrated; on a GPU a guess from data sheets (not yet run on a GPU)."""


@dataclass(frozen=True)
class Explanation:
    """What "auto" chooses and why.

    Attributes
    ----------
    method : str
        The choice: the fastest of those that fit into half the main memory, of all where none does.
    seconds : dict
        Estimated time of a forward and a backward pass by method.
    bytes : dict
        Estimated temporary memory by method.
    source : str
        Where the constants come from.
    """

    method: str
    seconds: dict[str, float]
    bytes: dict[str, float]
    source: str

    def __str__(self) -> str:
        lines = [f"method {self.method}: the fastest, of those that fit into {_memory() / 2**30:.1f} GiB if any do"]
        for name in sorted(self.seconds, key=self.seconds.get):
            lines.append(f"  {name:<9} {self.seconds[name]:9.3g} s  {self.bytes[name] / 2**20:8.0f} MiB")
        return "\n".join([*lines, f"  constants: {self.source}"])


def explain(
    q: Tensor, k: Tensor, v: Tensor, modes: Modes, batch_ptr: Tensor | None = None, *, tolerance: float = 1e-5
) -> Explanation:
    """Say which method `reciprocal_attention` with "auto" takes for these arguments, and what the others would cost.

    Parameters are those of `reciprocal_attention`; only shapes, dtype and device matter.

    Returns
    -------
    Explanation
        Prints as a table.
    """
    _checks.tensor("q", q)
    _checks.shape("q", q, "n_atoms", "heads", "d")
    _checks.tensor("v", v)
    if not isinstance(modes, Modes):
        raise TypeError(f"`modes` must be Modes, from reciprocal_modes(...), got {type(modes).__name__}")
    pointers = torch.tensor([0, len(q)]) if batch_ptr is None else batch_ptr
    atoms = _checks.offsets("batch_ptr", pointers, len(q), "atoms")
    waves = _checks.offsets("modes.mode_ptr", modes.mode_ptr, modes.n_modes, "modes")
    sizes = tuple((a[1] - a[0], m[1] - m[0]) for a, m in zip(atoms, waves, strict=True))
    sizes = tuple((n, m) for n, m in sizes if n and m)
    dtype = torch.float32 if q.dtype == torch.bfloat16 else q.dtype
    return _choose(sizes, *q.shape[1:], v.shape[-1], dtype, q.device.type, float(tolerance), True)


def resolve(method: str, sizes, q: Tensor, d_v: int, tolerance: float, *, with_pairs: bool) -> str:
    """Return the method that "auto" stands for, or the one asked for."""
    if method != "auto" or not sizes:
        return "spectral" if method == "auto" else method
    return _choose(tuple(sizes), *q.shape[1:], d_v, q.dtype, q.device.type, tolerance, with_pairs).method


@functools.lru_cache(maxsize=1024)
def _choose(sizes, heads, d, d_v, dtype, device, tolerance, with_pairs) -> Explanation:
    table, source = rates()
    name = f"{device} {str(dtype).removeprefix('torch.')}"
    constants = table.get(name, NOT_MEASURED)
    if name not in table:
        source = f"a guess: {name} was never calibrated here; python -m rsa_kernels.reciprocal.calibrate"
    taken, needed = {}, {}
    for method in ("pairwise", "spectral", "grid") if with_pairs else ("spectral", "grid"):
        shapes = [(method, n, m, heads, d, d_v, dtype, tolerance) for n, m in sizes]
        taken[method] = sum(seconds(counts(*shape), constants) for shape in shapes)
        needed[method] = max((_bytes(*shape) for shape in shapes), default=0.0)
    able = [name for name in taken if taken[name] < math.inf]
    fitting = [name for name in able if needed[name] <= _memory()]
    return Explanation(min(fitting or able, key=taken.get), taken, needed, source)


def counts(method: str, n: int, m: int, heads: int, d: int, d_v: int, dtype, tolerance: float) -> Rates | None:
    """How often a forward and a backward of one system pay each of `Rates`; None where the tolerance is too low."""
    channels = heads * d * d_v
    if method == "pairwise":
        # K twice and (B + Bᵀ) E, products by head; waves anew for each pair of tiles.
        products = n * n * (4.0 * m + heads * (4.0 * d + 3.0 * d_v))
        waves = 2.0 * n * m * (1.0 + 0.5 * n / pairwise.tile_size(n, heads, m))
        return Rates(product=products, wave=waves, pair=n * n * heads, channel=0.0, mesh=0.0, call=1.0)
    if method == "spectral":
        # Eight products of atoms, waves (cosine and sine) and channels; waves made twice, and two pulls through them.
        return Rates(
            product=16.0 * n * m * channels, wave=4.0 * n * m, pair=0.0, channel=n * channels, mesh=0.0, call=1.0
        )
    try:
        plan = _plan(n, m, channels, dtype, tolerance)
    except ValueError:
        return None
    # Eight transforms of every channel.
    mesh = 8.0e-9 * channels * grid_plan.plan_cost(plan.order, plan.mesh, n, dtype, channels)
    return Rates(product=0.0, wave=0.0, pair=0.0, channel=n * channels, mesh=mesh, call=4.0)


def seconds(paid: Rates | None, rates_: Rates) -> float:
    """Return the time of so many of each of the constants."""
    return math.inf if paid is None else sum(x * y for x, y in zip(astuple(paid), astuple(rates_), strict=True))


def _plan(n: int, m: int, channels: int, dtype, tolerance: float) -> grid_plan.GridPlan:
    """Plan for a cube with as many waves: 2m = 4π/3 n_max³."""
    reach = round((1.5 * m / math.pi) ** (1.0 / 3.0))
    return grid_plan.plan_grid((reach,) * 3, tolerance, dtype, n_atoms=n, channels=channels)


def _bytes(method: str, n: int, m: int, heads: int, d: int, d_v: int, dtype, tolerance: float) -> float:
    """Temporary memory of a backward, which `methods` bounds by chunks."""
    from .methods import CHANNELS, MESH_BYTES, WAVES

    size, channels = dtype.itemsize, heads * d * d_v
    if method == "pairwise":
        tile = pairwise.tile_size(n, heads, m)
        return size * (tile * m * 2 * 6 + 3 * heads * tile * tile + 8 * n * heads * (d + d_v))
    block = n * min(channels, max(CHANNELS // n, d_v))
    if method == "spectral":
        return size * (4 * min(2 * n * m, max(2 * WAVES, 2 * n)) + 6 * block)
    try:
        mesh = math.prod(_plan(n, m, channels, dtype, tolerance).mesh)
    except ValueError:
        return math.inf
    return size * 6 * block + min(MESH_BYTES, 4.0 * size * mesh * channels)


@functools.cache
def rates() -> tuple[dict[str, Rates], str]:
    """Return the constants in force and where they come from."""
    try:
        saved = json.loads(CALIBRATION.read_text())
        table = {name: Rates(**{key: float(value) for key, value in one.items()}) for name, one in saved.items()}
    except FileNotFoundError:
        return BUILT_IN, "built in (2 cores, Zen 5); python -m rsa_kernels.reciprocal.calibrate measures this machine"
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{CALIBRATION} is not a calibration ({error}); remove it or calibrate again") from error
    return {**BUILT_IN, **table}, f"measured here, {CALIBRATION}"


def save(table: dict[str, Rates]) -> Path:
    """Keep constants for this machine's later runs."""
    CALIBRATION.parent.mkdir(parents=True, exist_ok=True)
    CALIBRATION.write_text(json.dumps({name: asdict(one) for name, one in table.items()}, indent=1))
    rates.cache_clear()
    _choose.cache_clear()
    return CALIBRATION


@functools.cache
def _memory() -> float:
    """Half the main memory: a fixed number, so that the choice does not depend on what else runs."""
    return 0.5 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def fit(samples: Sequence[tuple[Rates, float]]) -> Rates:
    """Constants ≥ 0 that make counts · constants match measured seconds, in relative least squares."""
    from scipy.optimize import nnls

    paid = torch.tensor([astuple(one) for one, _ in samples], dtype=torch.float64)
    taken = torch.tensor([value for _, value in samples], dtype=torch.float64)
    scale = paid.amax(dim=0).clamp_min(1e-300)
    solution, _ = nnls(
        (paid / scale / taken.unsqueeze(1)).numpy(), torch.ones(len(samples), dtype=torch.float64).numpy()
    )
    return Rates(
        **dict(zip((one.name for one in fields(Rates)), (torch.from_numpy(solution) / scale).tolist(), strict=True))
    )
