"""What decides a training: the keys of its configuration file, named as `mace_run_train` names its flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ase.data import atomic_numbers as NUMBERS
from ase.data import chemical_symbols

from ..checked import checked, read_toml
from ..errors import ConfigError

MODELS = ("sr", "rsa", "rsga", "sog", "latent_ewald")


@dataclass(frozen=True)
class Settings:
    """Everything that decides a training; the attributes are the keys of the configuration file.

    A key that `mace_run_train` knows as a flag means here what it means there, but for these: `batch_size` counts
    the frames of all processes together; the last, smaller batch of an epoch is used too; `scheduler_patience` and
    `patience` count evaluations; a `clip_grad` of 0 does not clip.

    Attributes
    ----------
    train_file, valid_file, test_file : tuple of str
        Extended XYZ; one name or a list of them.
    valid_fraction : float
        Share of the training frames, drawn by `seed`, that is set aside where there is no `valid_file`.
    energy_key, forces_key, stress_key : str
        Names of the labels: energy (eV) and stress (eV/Å³, positive in tension; 3 × 3 or xx yy zz yz xz xy) of a
        frame, forces (eV/Å) of its atoms.
    config_type_weights : dict
        Weight of the frames by their ``config_type``; 1 where nothing is said. A frame's own ``config_weight``
        multiplies it.
    allow_small_cells : bool
        Take periodic cells narrower than `r_max`. Images are then counted as neighbours, which is exact; without
        this such a cell is refused, for it is more often a mistake.
    atomic_numbers : tuple of int
        Elements of the model; by default those of the training frames.
    E0s : str or dict
        Energies of the isolated atoms: "average", fitted to the training energies by least squares, or a table
        such as ``{O = -2.0, Si = -0.9}`` in eV.
    labels_contain_dispersion : str
        Dispersion that the labels hold, "PBE-D3(BJ)": it is written into the model, and adding it once more is
        refused there. "" for none.
    model : str
        "sr", or a long-range layer: "rsa", "rsga", "sog", "latent_ewald".
    long_range : dict
        Options of the long-range layer; see ``silica_md.models``.
    r_max, num_radial_basis, num_cutoff_basis, max_ell, interaction, interaction_first, num_interactions, \
    hidden_irreps, MLP_irreps, correlation, gate, radial_type, radial_MLP, pair_repulsion, distance_transform
        Of the short-range network, as in ``silica_md.models.ModelConfig``; `r_max` in Å.
    avg_num_neighbors : float, optional
        By default the mean of the training frames.
    scaling : str
        What the output is scaled with: "rms_forces_scaling", "std_scaling" (of the energy an atom) or "no_scaling".
    loss : str
        "weighted" (energies and forces) or "stress" (stresses too).
    energy_weight, forces_weight, stress_weight : float
        Weights in the loss; with 0 no such labels are needed.
    compute_stress : bool
        Ask for stress labels and report errors of the stress also where the loss has none.
    swa : bool
        A second stage with other weights and its own learning rate; see the next keys.
    start_swa : int, optional
        First epoch of the second stage; by default after three quarters of `max_num_epochs`.
    swa_lr, swa_energy_weight, swa_forces_weight, swa_stress_weight : float
        Learning rate and weights of the second stage.
    optimizer : str
        "adam" or "adamw".
    lr, weight_decay, amsgrad, beta
        Of the optimizer; only linear weights of the interactions and weights of the products decay.
    scheduler : str
        "ReduceLROnPlateau" (`lr_factor`, `scheduler_patience`) or "ExponentialLR" (`lr_scheduler_gamma`).
    ema, ema_decay
        Average the weights along the way; the average is what is evaluated and saved.
    clip_grad : float
        Largest norm of the gradient; 0: any.
    max_num_epochs, patience, batch_size, valid_batch_size, eval_interval : int
        Epochs; evaluations without improvement before the end (or the second stage); frames a step and an
        evaluation step; epochs between evaluations.
    seed : int
        Of the weights, the order of the frames and the split.
    default_dtype : str
        "float64" or "float32".
    device : str
        "auto", "cpu" or "cuda".
    threads : int
        CPU threads; 0 leaves them as they are.
    checkpoint_seconds : float
        Time between checkpoints; the end of a stage gives one too.
    """

    train_file: tuple[str, ...]
    valid_file: tuple[str, ...] = ()
    test_file: tuple[str, ...] = ()
    valid_fraction: float = 0.1
    energy_key: str = "REF_energy"
    forces_key: str = "REF_forces"
    stress_key: str = "REF_stress"
    config_type_weights: dict = field(default_factory=dict)
    allow_small_cells: bool = False
    atomic_numbers: tuple[int, ...] = ()
    E0s: str | dict = "average"
    labels_contain_dispersion: str = ""
    model: str = "sr"
    long_range: dict = field(default_factory=dict)
    r_max: float = 5.0
    num_radial_basis: int = 8
    num_cutoff_basis: int = 5
    max_ell: int = 3
    interaction: str = "RealAgnosticResidualInteractionBlock"
    interaction_first: str = "RealAgnosticResidualInteractionBlock"
    num_interactions: int = 2
    hidden_irreps: str = "32x0e"
    MLP_irreps: str = "16x0e"
    correlation: int = 3
    gate: str = "silu"
    radial_type: str = "bessel"
    radial_MLP: tuple[int, ...] = (64, 64, 64)
    pair_repulsion: bool = False
    distance_transform: str = "None"
    avg_num_neighbors: float | None = None
    scaling: str = "rms_forces_scaling"
    loss: str = "weighted"
    energy_weight: float = 1.0
    forces_weight: float = 100.0
    stress_weight: float = 1.0
    compute_stress: bool = False
    swa: bool = False
    start_swa: int | None = None
    swa_lr: float = 1e-3
    swa_energy_weight: float = 1000.0
    swa_forces_weight: float = 100.0
    swa_stress_weight: float = 10.0
    optimizer: str = "adam"
    lr: float = 0.01
    weight_decay: float = 5e-7
    amsgrad: bool = True
    beta: float = 0.9
    scheduler: str = "ReduceLROnPlateau"
    lr_factor: float = 0.8
    scheduler_patience: int = 50
    lr_scheduler_gamma: float = 0.9993
    ema: bool = False
    ema_decay: float = 0.99
    clip_grad: float = 10.0
    max_num_epochs: int = 2048
    patience: int = 2048
    batch_size: int = 10
    valid_batch_size: int = 10
    eval_interval: int = 1
    seed: int = 123
    default_dtype: str = "float64"
    device: str = "auto"
    threads: int = 0
    checkpoint_seconds: float = 20.0

    def __post_init__(self):
        def refuse(text):
            raise ConfigError(text)

        if not self.train_file:
            refuse("`train_file` must name at least one file")
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                refuse(f"`{name}` must be {' or '.join(allowed)}, got '{value}'")
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                refuse(f"`{name}` must be positive and finite, got {value}")
        for name in _NOT_NEGATIVE:
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                refuse(f"`{name}` must not be negative, nor infinite, got {value}")
        for name in _FRACTIONS:
            if not 0.0 < getattr(self, name) < 1.0:
                refuse(f"`{name}` must be between 0 and 1, got {getattr(self, name)}")
        if self.model == "sr" and self.long_range:
            refuse('`long_range` has no use with model = "sr"; choose a long-range model, or leave the table out')
        if "kind" in self.long_range:
            refuse("`long_range` must not hold `kind`; `model` says it")
        if isinstance(self.E0s, str) and self.E0s != "average":
            refuse(f"`E0s` must be \"average\" or a table such as {{O = -2.0, Si = -0.9}}, got '{self.E0s}'")
        if self.needs("forces") is False and self.needs("energy") is False:
            refuse("`energy_weight` and `forces_weight` are both 0: there is nothing to learn")
        if self.scaling == "rms_forces_scaling" and not self.needs("forces"):
            refuse('`scaling` "rms_forces_scaling" needs forces, but `forces_weight` is 0; use "std_scaling"')
        if self.swa and not 0 < self.first_epoch_of_stage_two < self.max_num_epochs:
            refuse(
                f"`start_swa` must be between 1 and `max_num_epochs` - 1, got {self.first_epoch_of_stage_two} with "
                f"`max_num_epochs` {self.max_num_epochs}"
            )
        if self.start_swa is not None and not self.swa:
            refuse("`start_swa` has no use without swa = true")

    @property
    def first_epoch_of_stage_two(self) -> int:
        """Epoch at which the second stage begins; `max_num_epochs` where there is none."""
        if not self.swa:
            return self.max_num_epochs
        return self.start_swa if self.start_swa is not None else max(1, self.max_num_epochs // 4 * 3)

    def needs(self, label: str) -> bool:
        """Whether "energy", "forces" or "stress" labels are asked for."""
        if label == "stress":
            return self.loss == "stress" or self.compute_stress
        return getattr(self, f"{label}_weight") > 0 or (self.swa and getattr(self, f"swa_{label}_weight") > 0)

    def weights(self, stage: int) -> dict[str, float]:
        """Weights of the loss in stage 1 or 2; labels that are not asked for are left out."""
        prefix = "swa_" if stage == 2 else ""
        names = ("energy", "forces", "stress") if self.loss == "stress" else ("energy", "forces")
        return {name: getattr(self, f"{prefix}{name}_weight") for name in names if self.needs(name)}

    def isolated_energies(self) -> dict[int, float] | None:
        """Energies of the isolated atoms by atomic number (eV); None where they are to be fitted."""
        if isinstance(self.E0s, str):
            return None
        return {_number_of(name): float(value) for name, value in self.E0s.items()}

    def to_dict(self) -> dict:
        """Plain data, for JSON and TOML."""
        plain = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}


_CHOICES = {
    "model": MODELS,
    "scaling": ("rms_forces_scaling", "std_scaling", "no_scaling"),
    "loss": ("weighted", "stress"),
    "optimizer": ("adam", "adamw"),
    "scheduler": ("ReduceLROnPlateau", "ExponentialLR"),
    "default_dtype": ("float64", "float32"),
    "device": ("auto", "cpu", "cuda"),
}
_POSITIVE = (
    "r_max", "num_radial_basis", "num_cutoff_basis", "num_interactions", "correlation", "avg_num_neighbors", "swa_lr",
    "lr", "lr_factor", "lr_scheduler_gamma", "max_num_epochs", "patience", "batch_size", "valid_batch_size",
    "eval_interval", "checkpoint_seconds",
)  # fmt: skip
_NOT_NEGATIVE = (
    "max_ell", "energy_weight", "forces_weight", "stress_weight", "swa_energy_weight", "swa_forces_weight",
    "swa_stress_weight", "weight_decay", "scheduler_patience", "clip_grad", "seed", "threads",
)  # fmt: skip
_FRACTIONS = ("valid_fraction", "beta", "ema_decay")
_FILES = ("train_file", "valid_file", "test_file")


def load(path: str | Path) -> Settings:
    """Read the settings of a training from a TOML file.

    Raises
    ------
    ConfigError
        The file cannot be read; a key is unknown (the nearest right one is named); a value is of the wrong kind or
        out of range.
    """
    return from_dict(read_toml(path))


def from_dict(data: Mapping) -> Settings:
    """Make `Settings` of plain data; see `load`."""
    listed = {key: (value,) if key in _FILES and isinstance(value, str) else value for key, value in data.items()}
    values = checked(Settings, listed, required=("train_file",))
    for key in (*_FILES, "radial_MLP", "atomic_numbers"):
        kind = str if key in _FILES else int
        for item in values.get(key, ()):
            if not isinstance(item, kind) or isinstance(item, bool):
                raise ConfigError(f"`{key}` must be a list of {'names' if kind is str else 'whole numbers'}")
    for table in ("config_type_weights", "E0s"):
        for name, value in values[table].items() if isinstance(values.get(table), dict) else ():
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise ConfigError(f"`{table}.{name}` must be a number, got {value!r}")
            if table == "E0s":
                _number_of(name)
    return Settings(**values)


def _number_of(name: str) -> int:
    """Atomic number of "Si" or "14"."""
    if name in NUMBERS and name != "X":
        return NUMBERS[name]
    if name.isdigit() and 0 < int(name) < len(chemical_symbols):
        return int(name)
    raise ConfigError(f"`E0s` has the key `{name}`, which is no element")
