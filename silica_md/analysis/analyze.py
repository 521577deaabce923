"""The analysis from top to bottom: frames in, `Analysis` out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from . import goodness, measured, neighbors, weights
from .bonds import bond_cutoffs, bonded_pairs, bonds_of
from .composition import Composition, mass_density, number_density
from .coordination import mean_of
from .first_peak import first_sharp_diffraction_peak
from .frames import check_frames
from .network import Network
from .pair_distribution import MAX_PAIRS, PairMean
from .progress import Progress
from .real_space import correlation_function
from .result import Analysis
from .structure_factor import structure_factor

R_GRID = np.arange(1, 501) * 0.02


def analyze(
    frames: Sequence[Atoms],
    q_max: float = 25.0,
    dq: float = 0.05,
    r_max: float | None = None,
    dr: float = 0.02,
    cutoffs: dict[str, float] | None = None,
    progress: Progress | None = None,
) -> Analysis:
    """Structure of a periodic system, averaged over frames, compared with the measurement where there is one.

    Parameters
    ----------
    frames : sequence of ase.Atoms
        Periodic, one composition; see `read_frames`. Passed over four times, one frame at a time.
    q_max, dq : float
        Range and bin width of S(Q), Å⁻¹. The measured curve has bins of 0.05; another `dq` compares with the
        measurement interpolated at the bin centres.
    r_max, dr : float
        Range (by default half the shortest perpendicular width) and bin width of g(r), Å.
    cutoffs : dict of str to float, optional
        Bond cutoffs in Å, e.g. ``{"Si-O": 2.2}``; by default the first minimum of each g(r).
    progress : Progress, optional
        Is told of each stage and frame.

    Returns
    -------
    Analysis

    Raises
    ------
    ValueError, TypeError
        The frames cannot be analysed; see `check_frames`.

    Notes
    -----
    S(Q) takes nearly all of the time; see `structure_factor`.
    """
    check_frames(frames)
    composition = Composition.of(frames[0])

    progress = progress or Progress()
    progress.plan(expected_seconds(frames, q_max, r_max))
    cells, densities, numbers, segments = [], [], [], {}
    for atoms in progress.stage("reading", frames):
        if "segment" in atoms.info:
            segments[str(atoms.info["segment"])] = None
        cells.append(np.array(atoms.cell))
        densities.append(mass_density(atoms))
        numbers.append(number_density(atoms))
    pairs = PairMean(composition, cells, r_max, dr)
    for atoms in progress.stage("g(r)", frames):
        pairs.add(atoms)
    distribution = pairs.result()
    lengths, sources = bond_cutoffs(composition, distribution, cutoffs)
    network = Network(composition, bonded_pairs(composition))
    for atoms in progress.stage("bonds and rings", frames):
        network.add(bonds_of(atoms, lengths))
    coordination, angles = network.coordination, network.angles
    factor = structure_factor(progress.stage("S(Q)", frames), q_max, dq)
    progress.done()

    neutron_sq = weights.neutron(factor.partials, composition)
    peak = first_sharp_diffraction_peak(factor.q, neutron_sq, resolution=factor.q_min)
    na2o = composition.na2o_fraction()
    curve = measured.neutron_silica() if na2o == 0 else None

    known = factor.q[np.isfinite(neutron_sq)]
    if not len(known):
        raise ValueError(f"`q_max` must reach the shortest k-vector of the cell, {factor.q_min:.3f} 1/Å, got {q_max}")
    tr_range = (
        float(max(known[0], curve.q[0] if curve else 0.0)),
        float(min(factor.q_max_reached, curve.q[-1] if curve else np.inf)),
    )
    tr = correlation_function(factor.q, neutron_sq, R_GRID, float(np.mean(numbers)), *tr_range)
    reference = _measurement(curve, frames[0], composition, tr_range) if curve else None

    return Analysis(
        density=float(np.mean(densities)),
        n_atoms=composition.n_atoms,
        formula=composition.formula,
        n_frames=len(frames),
        na2o_fraction=na2o,
        r=distribution.r,
        partial_gr=distribution.partials,
        cutoffs=lengths,
        cutoff_sources=sources,
        coordination=coordination,
        mean_coordination={name: mean_of(found) for name, found in coordination.items()},
        bond_length=network.bond_length,
        angles_deg=angles.degrees,
        angle_distribution=angles.distributions,
        angle_mean=angles.means,
        qn=network.qn,
        rings=network.rings,
        q=factor.q,
        k_counts=factor.counts,
        partial_sq=factor.partials,
        neutron_sq=neutron_sq,
        xray_sq=weights.xray(factor.partials, composition, factor.q),
        q_min=factor.q_min,
        q_max_reached=factor.q_max_reached,
        reason=factor.reason,
        r_tr=R_GRID.copy(),
        tr_neutron=tr,
        tr_q_range=tr_range,
        fsdp=peak,
        measured=reference,
        r_chi_sq=_r_chi_sq(factor.q, neutron_sq, curve),
        r_chi_tr=goodness.r_chi(R_GRID, tr, reference["tr"], goodness.R_RANGE) if reference else None,
        notes=_notes(len(frames), segments, distribution, factor, tr_range, peak),
    )


def expected_seconds(frames: Sequence[Atoms], q_max: float, r_max: float | None) -> dict[str, float]:
    """About how long each stage of an analysis takes on two cores; their ratios tell how far it has come."""
    n_atoms, volume = len(frames[0]), frames[0].get_volume()
    reach = r_max or neighbors.perpendicular_widths(np.array(frames[0].cell)).min() / 2
    pairs = min(n_atoms**2 / volume * 4 / 3 * np.pi * reach**3, MAX_PAIRS)
    vectors = min(volume * q_max**3 / (12 * np.pi**2), 150e6)
    reading = 0.0 if getattr(frames, "held", True) else 2.5e-6 * n_atoms
    one_frame = {
        "reading": reading + 1e-7 * n_atoms,
        "g(r)": reading + 2.5e-9 * pairs,
        "bonds and rings": reading + 1.5e-5 * n_atoms,
        "S(Q)": reading + 3e-7 * vectors + 1e-5 * n_atoms,
    }
    return {name: seconds * len(frames) for name, seconds in one_frame.items()}


def _measurement(curve, atoms, composition, tr_range):
    """The measured curve with its T(r), transformed from the same Q range as the simulation's."""
    density = measured.density(0.0)
    # Same atoms at the measured density.
    number = number_density(atoms) * density / mass_density(atoms)
    return {
        "q": curve.q,
        "sq": curve.sq,
        "sigma": curve.sigma,
        "r": R_GRID.copy(),
        "tr": correlation_function(curve.q, curve.sq, R_GRID, number, *tr_range),
        "fsdp": first_sharp_diffraction_peak(curve.q, curve.sq),
        "density": density,
        "citation": curve.citation,
    }


def _r_chi_sq(q, sq, curve):
    if curve is None:
        return None
    return goodness.r_chi(q, sq, np.interp(q, curve.q, curve.sq), goodness.Q_RANGE)


def _notes(n_frames, segments, distribution, factor, tr_range, peak):
    empty = int((factor.counts == 0).sum())
    fit = [f"No first sharp diffraction peak: {peak['reason']}."] if peak["reason"] else []
    averaged = "1 frame" if n_frames == 1 else f"Mean of {n_frames} frames"
    return [
        f"{averaged}{' of the segment ' + ', '.join(segments) if segments else ''}.",
        f"g(r) reaches {distribution.r_max:.2f} Å: {distribution.reason}.",
        f"S(Q) is known from {factor.q_min:.3f} Å⁻¹, the shortest k-vector of the cell, to "
        f"{factor.q_max_reached:g} Å⁻¹: {factor.reason}.",
        f"{empty} of {len(factor.q)} Q bins hold no k-vector; R_χ leaves them out, T(r) bridges them "
        "by straight lines.",
        f"T(r) is transformed from {tr_range[0]:g}–{tr_range[1]:g} Å⁻¹ with the Lorch window, a measured curve alike.",
        "X-ray S(Q) uses form factors of neutral atoms; no measured X-ray curve is compared.",
        *fit,
    ]
