"""One look at the structure of a running simulation: S(Q), rings, Qn, coordination, angles, density."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from ase.data import atomic_numbers
from torch import Tensor

import rsa_kernels as rk
from rsa_kernels import _library
from rsa_kernels._nvtx import annotated

from .analysis import weights
from .analysis.bond_angles import bond_angles
from .analysis.bonds import bonded_pairs, bonds_among, default_cutoff
from .analysis.composition import Composition, label
from .analysis.coordination import bond_lengths, neighbour_counts
from .analysis.first_peak import first_sharp_diffraction_peak
from .analysis.neighbors import Pairs, pairs_of
from .analysis.qn import bridging_counts
from .analysis.rings import CRITERIA, MAX_SIZE, silicon_rings
from .state import State

Q_MAX, DQ = 5.0, 0.05
"""Å⁻¹: the first two peaks. What lies beyond changes little in the network, and costs like Q³."""
TOLERANCE = 1e-5
"""Of the mode amplitudes; S(Q) of a cell of 3,000 atoms scatters by more than a thousand times as much."""
MOST_NEIGHBOURS = 12
ANGLE_WIDTH = 2.0
"""Degrees."""
PEAK = {
    "position": ("1/angstrom", "where the fitted peak has its maximum"),
    "height": ("1", "S(Q) at the maximum of the fit"),
    "width": ("1/angstrom", "full width at half maximum"),
    "position_error": ("1/angstrom", "one standard deviation of the fit"),
}


@dataclass(frozen=True)
class Column:
    """What one sample holds under a name.

    Attributes
    ----------
    name : str
        With the group it stands in: "rings/king".
    dtype : str
        As numpy writes it.
    shape : tuple of int
        Of one sample; () for a number.
    unit, description : str
        For the file.
    axis : str
        Name of what the last dimension runs over, "" for a number.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    unit: str
    description: str
    axis: str = ""


class StructureSampler:
    """Measures the structure of a state, always the same quantities.

    Bonds reach to fixed cutoffs (2.2 Å for Si–O), so that samples of a run can be compared; an analysis of a
    finished glass takes the minimum of its g(r) instead.

    Parameters
    ----------
    numbers : Tensor
        Atomic numbers, (n_atoms,) int64.

    Attributes
    ----------
    columns : list of Column
        What `take` returns.
    axes : dict of str to (ndarray, str, str)
        What the last dimensions of the columns run over, with unit and description.
    cutoffs : dict of str to float
        Å.

    Notes
    -----
    Nothing of the state or of a neighbour list is changed and no random number is drawn, so a run ends in the
    same bits with samples and without. All bonds come from one neighbour search at the longest cutoff. On a CPU the
    same state gives the same sample to the bit, on any number of threads. For a state on a GPU, S(Q) and rings are
    done there if the packages they take (cufinufft, CuPy) are installed, else on the host (not yet run on a GPU).
    Cost: `python -m profiling bench observers`.
    """

    def __init__(self, numbers: Tensor):
        self.composition = Composition.of_numbers(numbers.cpu().numpy())
        self.cutoffs = {label(*pair): default_cutoff(*pair) for pair in bonded_pairs(self.composition)}
        self._network = {"Si", "O"} <= set(self.composition.species)
        self._ordered = list(dict.fromkeys(p for a, b in bonded_pairs(self.composition) for p in ((a, b), (b, a))))
        self._angles = ("O-Si-O", "Si-O-Si") if self._network else ()
        edges = np.linspace(0.0, 180.0, round(180.0 / ANGLE_WIDTH) + 1)
        self.axes = {
            "q": (DQ * np.arange(1, round(Q_MAX / DQ) + 1), "1/angstrom", "centres of the bins of S(Q)"),
            "angle": ((edges[:-1] + edges[1:]) / 2, "degree", "centres of the bins of the angles"),
            "ring_size": (np.arange(MAX_SIZE + 1), "1", "silicon atoms in a ring"),
            "neighbours": (np.arange(MOST_NEIGHBOURS + 1), "1", "neighbours; the last bin holds more as well"),
        }
        self.columns = self._columns()

    def _columns(self) -> list[Column]:
        n_q, n_angles, n_neighbours = (len(self.axes[name][0]) for name in ("q", "angle", "neighbours"))
        columns = [
            Column("density", "f8", (), "g/cm^3", "mass density"),
            Column("cell", "f8", (3, 3), "angstrom", "rows a, b, c"),
            Column("sq/neutron", "f4", (n_q,), "1", "S(Q), neutron-weighted; NaN: the bin holds no k-vector", "q"),
            Column("sq/k_count", "i4", (n_q,), "1", "k-vectors of the cell in the bin, k and -k counted both", "q"),
        ]
        columns += [
            Column(f"sq/partial/{label(*pair)}", "f4", (n_q,), "1", f"Faber-Ziman A(Q) of {label(*pair)}", "q")
            for pair in self.composition.pairs
        ]
        columns += [
            Column(f"first_peak/{name}", "f8", (), unit, f"first sharp diffraction peak: {text}; NaN: no peak")
            for name, (unit, text) in PEAK.items()
        ]
        for centre, around in self._ordered:
            name = label(centre, around)
            columns += [
                Column(
                    f"coordination/{name}", "i4", (n_neighbours,), "1", f"{centre} with so many {around}", "neighbours"
                ),
                Column(f"coordination_mean/{name}", "f8", (), "1", f"mean number of {around} around {centre}"),
            ]
        for name in self.cutoffs:
            columns += [
                Column(f"bond_length/{name}/mean", "f8", (), "angstrom", "mean bond length; NaN: no bonds"),
                Column(f"bond_length/{name}/width", "f8", (), "angstrom", "standard deviation"),
            ]
        for name in self._angles:
            columns += [
                Column(f"angle/{name}/counts", "i4", (n_angles,), "1", "angles in the bin", "angle"),
                Column(f"angle/{name}/mean", "f8", (), "degree", "mean angle; NaN: no angles"),
                Column(f"angle/{name}/width", "f8", (), "degree", "standard deviation"),
            ]
        if self._network:
            columns.append(
                Column("qn", "i4", (n_neighbours,), "1", "silicon atoms with so many bridging oxygens", "neighbours")
            )
            columns += [
                Column(f"rings/{name}", "i4", (MAX_SIZE + 1,), "1", f"distinct {name} rings in the cell", "ring_size")
                for name in CRITERIA
            ]
        return columns

    @annotated("structure sample")
    def take(self, state: State) -> dict[str, np.ndarray | float]:
        """Measure `state`.

        Returns
        -------
        dict
            A value for each of `columns`, by name.

        Raises
        ------
        rsa_kernels.errors.NonFiniteError
            A position or the cell is NaN or infinite.
        """
        sample = {"density": float(state.density()), "cell": state.cell.cpu().numpy()}
        return sample | self._scattering(state) | self.bonding(state)

    def _scattering(self, state):
        """S(Q) and its first peak."""
        where = kernel_device("structure_sums", state.positions.device)
        atoms = (x.to(where) for x in (state.positions, state.cell, state.atomic_numbers))
        with one_thread(), torch.no_grad():
            factor = rk.structure_factor(*atoms, Q_MAX, DQ, tolerance=TOLERANCE)
        partials = {label(a, b): self._partial(factor, a, b) for a, b in self.composition.pairs}
        neutron = weights.neutron(partials, self.composition)
        # The stored curve is fitted, so that whoever fits it again finds the same.
        stored = neutron.astype(np.float32)
        peak = first_sharp_diffraction_peak(self.axes["q"][0], stored.astype(np.float64), resolution=factor.q_min)
        sample = {"sq/neutron": stored, "sq/k_count": factor.counts.cpu().numpy()}
        sample |= {f"sq/partial/{name}": partial for name, partial in partials.items()}
        return sample | {f"first_peak/{name}": _number(peak[name]) for name in PEAK}

    def _partial(self, factor, first, second):
        return factor[atomic_numbers[first], atomic_numbers[second]].cpu().numpy()

    def bonding(self, state: State) -> dict[str, np.ndarray | float]:
        """Measure what follows from the bonds, S(Q) left out: coordination, bond lengths, angles, Qn, rings."""
        bonds, composition = self.bonds(state), self.composition
        lengths = bond_lengths([bonds], composition)
        angles = bond_angles([bonds], composition, ANGLE_WIDTH)
        nothing = (np.nan, np.nan)
        sample = {}
        for centre, around in self._ordered:
            counts, name = neighbour_counts(bonds, composition, centre, around), label(centre, around)
            sample[f"coordination/{name}"] = _histogram(counts)
            sample[f"coordination_mean/{name}"] = float(counts.mean())
        for name in self.cutoffs:
            sample[f"bond_length/{name}/mean"], sample[f"bond_length/{name}/width"] = lengths.get(name, nothing)
        for name in self._angles:
            sample[f"angle/{name}/counts"] = angles.counts.get(name, np.zeros(len(angles.degrees)))
            sample[f"angle/{name}/mean"], sample[f"angle/{name}/width"] = angles.means.get(name, nothing)
        if self._network:
            sample["qn"] = _histogram(bridging_counts(bonds, composition))
            sample |= {f"rings/{name}": counts for name, counts in self._rings(bonds, state.positions.device).items()}
        return sample

    def _rings(self, bonds, device):
        return silicon_rings(bonds, self.composition, device=kernel_device("ring_count", device))

    def bonds(self, state: State) -> Pairs:
        """All bonds of a state, both directions, sorted by the first atom."""
        # A search of its own, as far as bonds reach, takes half as long as picking the bonds out of the force field's
        # list with `within`: that one reaches five times as far and holds a hundred times as many pairs.
        with one_thread():  # a millisecond's work, done before a second thread is awake
            nl = rk.neighbor_list(state.positions, state.cell, state.pbc, max(self.cutoffs.values()))
            return bonds_among(pairs_of(nl, state.positions, state.cell), self.composition, self.cutoffs)


def kernel_device(op: str, device: torch.device) -> torch.device:
    """Where an op is done for a state on `device`: there, or on the host where a GPU lacks the packages it takes."""
    return device if why_on_host(op, device) is None else torch.device("cpu")


def why_on_host(op: str, device: torch.device) -> str | None:
    """Why an op is not done on the device of a state but on the host; None if it is done there."""
    kernel = _library.REGISTRY[op].kernels.get(device.type)
    return "it has no kernel for the device" if kernel is None else kernel.missing()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread, so that sums are the same however threads take turns: finufft's are not otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _histogram(counts: np.ndarray) -> np.ndarray:
    """Number of atoms with n neighbours, those with more than the last bin's in the last bin."""
    return np.bincount(np.minimum(counts, MOST_NEIGHBOURS), minlength=MOST_NEIGHBOURS + 1)


def _number(value: float | None) -> float:
    return np.nan if value is None else value
