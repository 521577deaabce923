"""What a model is, as plain data: all that decides its architecture, and the statistics it was set up with."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

KINDS = ("rsa", "rsga", "sog", "latent_ewald")
"""Long-range layers there are; a model without one is "sr"."""


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of a model. Names follow ``mace_run_train`` where they mean the same.

    Attributes
    ----------
    atomic_numbers : tuple of int
        Elements, ascending.
    atomic_energies : tuple
        E0 of each element, eV; one tuple per head where there are several.
    r_max : float
        Cutoff of the short-range network, Å; messages travel `num_interactions` times as far.
    num_radial_basis, num_cutoff_basis : int
        Radial functions, and the power of the cutoff polynomial.
    max_ell : int
        Highest degree of the spherical harmonics.
    interaction, interaction_first, readout : str
        Classes of `mace.modules`.
    num_interactions : int
        Rounds of messages.
    hidden_irreps, MLP_irreps, edge_irreps : str
        As in e3nn, such as "32x0e + 32x1o"; `edge_irreps` "" for none.
    correlation : int or tuple of int
        Body order of the product basis, of every interaction.
    gate : {"silu", "tanh", "abs", "None"}
        Of the last readout.
    radial_type : {"bessel", "gaussian", "chebyshev"}
        Radial functions.
    radial_MLP : tuple of int
        Widths of the radial network.
    pair_repulsion, pair_repulsion_after_scale : bool
        Whether the ZBL energy is added, and whether after scale and shift (as in published RSGA checkpoints) or before
        (as in mace-torch).
    distance_transform : {"None", "Agnesi", "Soft"}
        Of the distances that enter the radial functions.
    avg_num_neighbors : float
        By which messages are divided.
    scale, shift : float or tuple of float
        Of the interaction energy, eV; one of each per head where there are several.
    heads : tuple of str
        Names of the heads.
    apply_cutoff, use_reduced_cg, use_so3, use_agnostic_product, use_last_readout_only, use_edge_irreps_first, \
    keep_last_layer_irreps : bool
        Switches of `mace.modules.MACE` of the same names.
    long_range : mapping
        Empty for a short-range model; else "kind" ("rsa", "rsga", "sog", "latent_ewald") and the options of that class
        in `silica_md.models.long_range`.
    dispersion : str
        What dispersion the training labels hold, such as "PBE-D3(BJ)"; "" for none. Adding it once more is refused.

    Raises
    ------
    ValueError
        Naming the attribute, what was expected and what came.
    """

    atomic_numbers: tuple[int, ...]
    atomic_energies: tuple
    r_max: float = 5.0
    num_radial_basis: int = 8
    num_cutoff_basis: int = 5
    max_ell: int = 3
    interaction: str = "RealAgnosticResidualInteractionBlock"
    interaction_first: str = "RealAgnosticResidualInteractionBlock"
    readout: str = "NonLinearReadoutBlock"
    num_interactions: int = 2
    hidden_irreps: str = "32x0e"
    MLP_irreps: str = "16x0e"
    edge_irreps: str = ""
    correlation: int | tuple[int, ...] = 3
    gate: str = "silu"
    radial_type: str = "bessel"
    radial_MLP: tuple[int, ...] = (64, 64, 64)
    pair_repulsion: bool = False
    pair_repulsion_after_scale: bool = False
    distance_transform: str = "None"
    avg_num_neighbors: float = 1.0
    scale: float | tuple[float, ...] = 1.0
    shift: float | tuple[float, ...] = 0.0
    heads: tuple[str, ...] = ("Default",)
    apply_cutoff: bool = True
    use_reduced_cg: bool = False  # True is another architecture where cuequivariance is installed
    use_so3: bool = False
    use_agnostic_product: bool = False
    use_last_readout_only: bool = False
    use_edge_irreps_first: bool = False
    keep_last_layer_irreps: bool = False
    long_range: Mapping = field(default_factory=dict)
    dispersion: str = ""

    def __post_init__(self):
        for name in _TUPLES:
            object.__setattr__(self, name, _frozen(getattr(self, name)))
        object.__setattr__(self, "long_range", dict(self.long_range))
        numbers = self.atomic_numbers
        if not numbers or list(numbers) != sorted(set(numbers)) or min(numbers) < 1 or max(numbers) > 118:
            raise ValueError(f"`atomic_numbers` must be ascending atomic numbers of elements, got {numbers}")
        rows = self.atomic_energies if isinstance(self.atomic_energies[0], tuple) else (self.atomic_energies,)
        if len(rows) != len(self.heads) or any(len(row) != len(numbers) for row in rows):
            raise ValueError(
                f"`atomic_energies` must hold one energy for each of the {len(numbers)} elements"
                f" {f'and {len(self.heads)} heads' if len(self.heads) > 1 else ''}, got {self.atomic_energies}"
            )
        if not re.match(r"\s*([0-9]+x)?0e\b", self.hidden_irreps):
            raise ValueError(f"`hidden_irreps` must begin with scalars, such as 32x0e, got {self.hidden_irreps!r}")
        for name in ("r_max", "avg_num_neighbors"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must be positive and finite, got {getattr(self, name)}")
        for name in ("num_radial_basis", "num_cutoff_basis", "num_interactions"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        if self.long_range and self.kind not in KINDS:
            raise ValueError(f"`long_range` must have a kind of {', '.join(KINDS)}, got {self.kind!r}")

    @property
    def kind(self) -> str:
        """The long-range layer, "sr" where there is none."""
        return self.long_range.get("kind", "") if self.long_range else "sr"

    @property
    def published(self) -> str:
        """The published norm the long-range layer has, "" for an intensive one or none."""
        norm = self.long_range.get("norm", "intensive")
        return "" if norm == "intensive" else norm

    def to_dict(self) -> dict:
        """Plain data, for JSON."""
        return {one.name: _plain(getattr(self, one.name)) for one in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, data: Mapping) -> ModelConfig:
        """Make one of plain data; an unknown key is refused, and the nearest right one named."""
        known = [one.name for one in dataclasses.fields(cls)]
        for key in data:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
                raise ValueError(f"unknown key `{key}` of a model{f'; did you mean `{near[0]}`?' if near else ''}")
        for key in ("atomic_numbers", "atomic_energies"):
            if key not in data:
                raise ValueError(f"the key `{key}` of a model is missing")
        return cls(**data)


_TUPLES = ("atomic_numbers", "atomic_energies", "correlation", "radial_MLP", "scale", "shift", "heads")


def _frozen(value):
    return tuple(_frozen(one) for one in value) if isinstance(value, (list, tuple)) else value


def _plain(value):
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value
