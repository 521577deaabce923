"""Primitive cells by translations of a structure onto itself, without a symmetry library."""

import itertools

import numpy as np
from ase import Atoms

TOLERANCE = 0.02  # Å; coordinates of a CIF are rounded to about 0.001


def primitive_cell(atoms: Atoms) -> Atoms:
    """The smallest cell whose lattice maps the structure onto itself."""
    vectors = [*atoms.cell, *_translations(atoms)]
    vectors.sort(key=np.linalg.norm)
    best, volume = np.array(atoms.cell), abs(np.linalg.det(atoms.cell))
    for triple in itertools.combinations(vectors, 3):
        smaller = abs(np.linalg.det(triple))
        if 1e-3 < smaller < 0.99 * volume:
            best, volume = np.array(triple), smaller
    kept: list[int] = []
    inverse = np.linalg.inv(best)
    for k in range(len(atoms)):
        if not any(_is_integer((atoms.positions[k] - atoms.positions[m]) @ inverse, best) for m in kept):
            kept.append(k)
    cell = atoms[kept]
    cell.set_cell(best)
    return cell


def _translations(atoms: Atoms) -> list[np.ndarray]:
    """Vectors to images of the first atom, inside the cell, that map every atom onto one of its kind."""
    cell, inverse = np.array(atoms.cell), np.linalg.inv(atoms.cell)
    kinds = [atoms.positions[atoms.numbers == number] for number in set(atoms.numbers.tolist())]
    rarest = min(kinds, key=len)
    found = []
    for other in rarest[1:]:
        step = other - rarest[0]
        if all(_is_integer((points[:, None] + step - points[None]) @ inverse, cell).any(1).all() for points in kinds):
            reduced = step @ inverse
            images = itertools.product(*[(x, x - np.sign(x)) if abs(x) > 1e-6 else (0.0,) for x in reduced])
            found += [np.array(image) @ cell for image in images]
    return found


def _is_integer(fractional: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Whether points are lattice vectors, within `TOLERANCE`."""
    return np.linalg.norm((fractional - np.round(fractional)) @ cell, axis=-1) < TOLERANCE
