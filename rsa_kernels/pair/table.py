"""Tables of pair functions: quintic Hermite interpolation, refined block by block until a stated error holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from .. import _checks

RECORD = 8
BLOCKS = 16
MAX_SPECIES = 64
MAX_INTERVALS_IN_BLOCK = 1 << 12
MIN_PROBES_IN_BLOCK = 1 << 9
_FLOOR = 1e-3
"""The stated error is relative to the value or to 1 meV (1 meV/Å), whichever is larger."""
_SAFETY = 1.1
"""The error between the probes may be a little larger than at them."""
_BLOCK_HAIR = 1e-10
"""Closer than this (in blocks) to the end of a block is the next block: rounding must not mix two blocks' widths."""
_PROBES = (0.0, 0.1, 0.276, 0.4, 0.5, 0.6, 0.724, 0.9, 1.0)
"""Where errors are looked at: the energy's is largest near t = ½, the slope's near ½ ± 1/√20 = 0.276 and 0.724."""

PairFunction = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PairTable:
    """Pair functions of a set of elements, tabulated.

    The range from r_min to the cutoff is cut into 16 blocks of equal width; block b is cut into as many equal
    intervals as the tolerance needs there (many in the repulsive core and where a function is switched off, few
    between). With u = 16 (r − r_min)/(cutoff − r_min), b = ⌊u⌋ and v = first_b + (u − b) count_b, the interval is
    ⌊v⌋ and t = v − ⌊v⌋ in [0, 1):

    E(t) = c₀ + d₁ t + d₂/2 t² + d₃/3 t³ + d₄/4 t⁴ + d₅/5 t⁵ ,   dE/dt = d₁ + d₂ t + d₃ t² + d₄ t³ + d₅ t⁴.

    The force is the exact derivative of the energy that is used; both, and the force's own derivative, are continuous.
    One interval is one record ``d₁ d₂ d₃ d₄ d₅ c₀ 0 0``, a cache line of 64 bytes.

    Attributes
    ----------
    atomic_numbers : tuple of int
        Elements, in the order of the species index.
    coefficients : Tensor
        (n_tables, n_intervals + 1, 8) float64; the last record, at and beyond the cutoff, is zero.
    blocks : Tensor
        (2, 16) float64: first interval and number of intervals of every block, the same for all pairs.
    pair_index : Tensor
        (n_species, n_species) int32, species pair to table.
    species_of : Tensor
        (120,) int32, atomic number to species, −1 where the table has none (always at 0 and 119).
    r_min, cutoff : float
        Å; the range that is tabulated. Pairs closer than r_min are refused when they are met.
    tolerance : float
        The largest interpolation error is at most this times max(|value|, 1 meV or 1 meV/Å).
    """

    atomic_numbers: tuple[int, ...]
    coefficients: Tensor
    blocks: Tensor
    pair_index: Tensor
    species_of: Tensor
    r_min: float
    cutoff: float
    tolerance: float

    @property
    def n_intervals(self) -> int:
        """Intervals between r_min and the cutoff."""
        return self.coefficients.shape[1] - 1

    def to(self, device) -> PairTable:
        """Return the same table on another device."""
        device = torch.device(device)
        moved = {
            name: getattr(self, name).to(device) for name in ("coefficients", "blocks", "pair_index", "species_of")
        }
        return replace(self, **moved)

    def species(self, atomic_numbers: Tensor) -> Tensor:
        """Species index of every atom, int32; −1 for an element the table does not have."""
        return self.species_of[atomic_numbers.clamp(0, 119)]

    @classmethod
    def from_functions(
        cls,
        species: Sequence[int],
        functions: Mapping[tuple[int, int], PairFunction | None],
        r_min: float,
        cutoff: float,
        tolerance: float = 1e-7,
    ) -> PairTable:
        """Tabulate pair functions.

        Parameters
        ----------
        species : sequence of int
            Atomic numbers, each once.
        functions : mapping
            (Z₁, Z₂), in either order, to E(r): a function of a float64 tensor of distances (Å) that returns energies
            (eV) and that torch can differentiate twice. None: the pair does not interact. It is taken as 0 at and
            beyond the cutoff; a jump there (a truncated potential) is kept as a jump.
        r_min, cutoff : float
            Å; tabulated range.
        tolerance : float
            Largest error of energy and of force over the whole range, relative to the value or to 1 meV (1 meV/Å),
            whichever is larger.

        Returns
        -------
        PairTable
            With about as few intervals in each block as the tolerance allows, the same for every pair.

        Raises
        ------
        ValueError
            A pair is missing or listed twice, a range is empty, a function is not finite somewhere, or cannot be
            interpolated to the tolerance (it has a jump or a kink inside the range); the message says where.
        """
        numbers = tuple(int(number) for number in species)
        if not numbers or len(set(numbers)) != len(numbers) or len(numbers) > MAX_SPECIES:
            raise ValueError(f"`species` must be 1 to {MAX_SPECIES} different atomic numbers, got {list(species)}")
        if not all(0 < number < 119 for number in numbers):
            raise ValueError(f"`species` must be atomic numbers between 1 and 118, got {list(species)}")
        r_min, cutoff = _checks.positive("r_min", r_min, "Å"), _checks.positive("cutoff", cutoff, "Å")
        if r_min >= cutoff:
            raise ValueError(f"`r_min` must be smaller than `cutoff`, got {r_min} and {cutoff} Å")
        tolerance = _checks.positive("tolerance", tolerance)
        pairs = _collect(numbers, functions)
        distinct = list(dict.fromkeys(pairs.values()))
        edges = torch.linspace(r_min, cutoff, BLOCKS + 1, dtype=torch.float64).tolist()
        # The value at the cutoff is the limit from inside: what is written as "0 beyond" must not leak in.
        edges[-1] = math.nextafter(cutoff, 0.0)
        counts = [1] * BLOCKS
        for function in distinct:
            if function is not None:
                name = _name_of(function, pairs)
                for block, (low, high) in enumerate(pairwise(edges)):
                    counts[block] = _intervals_needed(function, name, low, high, tolerance, counts[block])
        records = [_tabulate(function, edges, counts) for function in distinct]
        first = torch.tensor([0, *counts]).cumsum(0)[:-1]
        blocks = torch.stack([first, torch.tensor(counts)]).to(torch.float64)
        index = torch.zeros((len(numbers), len(numbers)), dtype=torch.int32)
        for (first, second), function in pairs.items():
            a, b = numbers.index(first), numbers.index(second)
            index[a, b] = index[b, a] = distinct.index(function)
        species_of = torch.full((120,), -1, dtype=torch.int32)
        species_of[torch.tensor(numbers)] = torch.arange(len(numbers), dtype=torch.int32)
        return cls(numbers, torch.stack(records), blocks, index, species_of, r_min, cutoff, tolerance)


def _collect(numbers: tuple[int, ...], functions: Mapping) -> dict[tuple[int, int], PairFunction | None]:
    """One function for every unordered pair of species."""
    pairs: dict[tuple[int, int], PairFunction | None] = {}
    for (first, second), function in functions.items():
        if first not in numbers or second not in numbers:
            raise ValueError(f"`functions` has the pair ({first}, {second}), which is not of `species` {list(numbers)}")
        key = (min(first, second), max(first, second))
        if key in pairs:
            raise ValueError(f"`functions` has the pair {key} twice; give each unordered pair once")
        pairs[key] = function
    wanted = {(min(a, b), max(a, b)) for a in numbers for b in numbers}
    missing = sorted(wanted - set(pairs))
    if missing:
        raise ValueError(f"`functions` lacks the pairs {missing}; give None for a pair that does not interact")
    return pairs


def _name_of(function: PairFunction | None, pairs: Mapping) -> str:
    return ", ".join(str(pair) for pair, candidate in pairs.items() if candidate is function)


def derivatives(function: PairFunction, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """E, dE/dr and d²E/dr² of a pair function at the distances `r` (float64), by automatic differentiation."""
    with torch.enable_grad():
        r = r.detach().requires_grad_()
        value = function(r)
        if not isinstance(value, Tensor) or value.shape != r.shape or value.dtype != torch.float64:
            raise ValueError(
                "a pair function must map a float64 tensor of distances to a float64 tensor of the same shape"
            )
        first = torch.zeros_like(r)
        second = torch.zeros_like(r)
        if value.requires_grad:
            (first,) = torch.autograd.grad(value.sum(), r, create_graph=True)
            if first.requires_grad:
                (second,) = torch.autograd.grad(first.sum(), r)
    return value.detach(), first.detach(), second.detach()


def _tabulate(function: PairFunction | None, edges: Sequence[float], counts: Sequence[int]) -> Tensor:
    """Records (n_intervals + 1, 8) of one function over all blocks, the last one zero."""
    blocks = [
        _hermite(function, low, high, count)
        if function is not None
        else torch.zeros((count, RECORD), dtype=torch.float64)
        for (low, high), count in zip(pairwise(edges), counts, strict=True)
    ]
    return torch.cat([*blocks, torch.zeros((1, RECORD), dtype=torch.float64)])


def _hermite(function: PairFunction, low: float, high: float, n_intervals: int) -> Tensor:
    """Records (n_intervals, 8) of the quintic Hermite interpolant of one function over one block."""
    h = (high - low) / n_intervals
    nodes = torch.linspace(low, high, n_intervals + 1, dtype=torch.float64)
    value, slope, bend = derivatives(function, nodes)
    f0, f1 = value[:-1], value[1:]
    s0, s1 = h * slope[:-1], h * slope[1:]
    b0, b1 = h * h * bend[:-1], h * h * bend[1:]
    rise = f1 - f0
    records = torch.zeros((n_intervals, RECORD), dtype=torch.float64)
    records[:, 0] = s0
    records[:, 1] = b0
    records[:, 2] = 3 * (10 * rise - 6 * s0 - 4 * s1 - 1.5 * b0 + 0.5 * b1)
    records[:, 3] = 4 * (-15 * rise + 8 * s0 + 7 * s1 + 1.5 * b0 - b1)
    records[:, 4] = 5 * (6 * rise - 3 * s0 - 3 * s1 - 0.5 * b0 + 0.5 * b1)
    records[:, 5] = f0
    return records


def _intervals_needed(
    function: PairFunction, name: str, low: float, high: float, tolerance: float, n_intervals: int
) -> int:
    """Fewest intervals, from `n_intervals` up in steps of a fifth, that meet the tolerance in one block."""
    while True:
        n_probes = max(len(_PROBES), MIN_PROBES_IN_BLOCK // n_intervals)
        probes = torch.tensor(_PROBES, dtype=torch.float64)
        if n_probes > len(_PROBES):
            probes = torch.linspace(0.0, 1.0, n_probes, dtype=torch.float64)
        nodes = torch.linspace(low, high, n_intervals + 1, dtype=torch.float64)[:-1]
        r = (nodes[:, None] + (high - low) / n_intervals * probes).clamp(max=high)
        value, slope, _ = derivatives(function, r)
        d1, d2, d3, d4, d5, c0 = _hermite(function, low, high, n_intervals)[:, None, :6].unbind(-1)
        t = probes
        energy = c0 + t * (d1 + t * (d2 / 2 + t * (d3 / 3 + t * (d4 / 4 + t * (d5 / 5)))))
        energy_slope = (d1 + t * (d2 + t * (d3 + t * (d4 + t * d5)))) * (n_intervals / (high - low))
        error = torch.maximum(
            (energy - value).abs() / _smallest(value), (energy_slope - slope).abs() / _smallest(slope)
        )
        if not bool(torch.isfinite(error).all()):
            where = float(r[~torch.isfinite(error)][0])
            raise ValueError(
                f"the pair function of {name} is not finite near r = {where:.4f} Å; raise `r_min` or mend it"
            )
        worst = float(error.max())
        if _SAFETY * worst <= tolerance:
            return n_intervals
        if n_intervals > MAX_INTERVALS_IN_BLOCK:
            raise ValueError(
                f"the pair function of {name} cannot be interpolated to {tolerance:g}: error {worst:.2g} at"
                f" r = {float(r.flatten()[error.argmax()]):.4f} Å. It needs two continuous derivatives between"
                " `r_min` and `cutoff`; give parts with different cutoffs tables of their own"
            )
        n_intervals = max(n_intervals + 1, int(n_intervals * 1.2))


def _smallest(values: Tensor) -> Tensor:
    """Smallest magnitude in every interval (0 where the sign changes), but at least the floor."""
    magnitude = values.abs().min(dim=1, keepdim=True).values
    low, high = values.min(dim=1, keepdim=True).values, values.max(dim=1, keepdim=True).values
    return magnitude.masked_fill((low < 0) & (high > 0), 0.0).clamp(min=_FLOOR)


def locate(r: Tensor, blocks: Tensor, r_min: float, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """Interval index (int64), t in [0, 1) and dt/dr of distances `r`; beyond the range the ends are extended."""
    per_angstrom = BLOCKS / (cutoff - r_min)
    u = (r - r_min) * per_angstrom
    block = (u.detach() + _BLOCK_HAIR).floor().clamp(0, BLOCKS - 1)
    first, count = blocks[:, block.to(torch.int64)]
    v = first + (u - block) * count
    last = int(blocks[:, -1].sum())
    interval = torch.maximum(v.detach(), first).floor().clamp(max=last)
    return interval.to(torch.int64), v - interval, count * per_angstrom
