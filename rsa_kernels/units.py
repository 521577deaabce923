"""Physical constants in the package's units: Å, fs, amu, eV, K, elementary charges.

Values are CODATA 2018 (exact where the SI defines them). ``COULOMB`` is kept at the digits used by the
reference lattice energies, 14.3996454785 eV Å (CODATA 2018: 14.39964548).
"""

BOLTZMANN = 8.617333262e-5
"""Boltzmann constant, eV/K."""

COULOMB = 14.3996454785
"""e² / (4π ε₀), eV Å."""

ACCELERATION = 9.648533212331002e-3
"""1 eV/Å per amu, in Å/fs²."""

EV_PER_A3_IN_GPA = 160.2176634
"""1 eV/Å³ in GPa."""

AMU_PER_A3_IN_G_PER_CM3 = 1.66053906660
"""1 amu/Å³ in g/cm³."""

BOHR_IN_A = 0.529177210903
"""1 bohr in Å."""

HARTREE_IN_EV = 27.211386245988
"""1 hartree in eV."""

KCAL_PER_MOL_IN_EV = 0.04336410390059322
"""1 kcal/mol in eV (thermochemical calorie, 4.184 J)."""
