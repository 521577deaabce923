"""Choosing few of many configurations: far from each other, and from every temperature range alike."""

from __future__ import annotations

import numpy as np

from ..errors import ConfigError


def farthest_points(features: np.ndarray, n: int, chosen: np.ndarray | None = None) -> np.ndarray:
    """Choose points one by one, each the farthest from all chosen before it.

        next = argmax_i min_{j chosen} |x_i − x_j|

    Parameters
    ----------
    features : ndarray, (n_points, n_features)
        x.
    n : int
        How many to choose.
    chosen : ndarray of int, optional
        Points that count as chosen already. Without any, the first is the one nearest to the mean of all.

    Returns
    -------
    ndarray, (n,) int64
        In the order of choice. Of points equally far the first is taken, so the result depends on nothing else.

    Raises
    ------
    ConfigError
        More points are asked for than there are.
    """
    strata = np.zeros(len(features), dtype=np.int64)
    return stratified(features, strata, n, chosen)


def stratified(features: np.ndarray, strata: np.ndarray, n: int, chosen: np.ndarray | None = None) -> np.ndarray:
    """Choose farthest points, as many from each stratum as from another as far as they last.

    The next point comes from the stratum of which the fewest have been chosen, and is the one in it that is farthest
    from everything chosen so far, in whichever stratum.

    Parameters
    ----------
    features, n, chosen
        As for `farthest_points`.
    strata : ndarray, (n_points,) int
        Number of the stratum of each point.

    Returns
    -------
    ndarray, (n,) int64

    Raises
    ------
    ConfigError
        More points are asked for than there are.

    Notes
    -----
    n × n_points distances; two arrays of the size of the features.
    """
    features, strata = np.asarray(features, dtype=np.float64), np.asarray(strata)
    before = np.zeros(0, dtype=np.int64) if chosen is None else np.asarray(chosen)
    free = np.ones(len(features), dtype=bool)
    free[before] = False
    if n > free.sum():
        raise ConfigError(f"{n} configurations are wanted, but there are only {int(free.sum())} to choose from")
    nearest = np.full(len(features), np.inf)
    for index in before:
        nearest = np.minimum(nearest, _squares(features, index))
    names, codes = np.unique(strata, return_inverse=True)
    taken, left = np.zeros(len(names), dtype=np.int64), np.bincount(codes[free], minlength=len(names))
    picked = []
    for _ in range(n):
        turn = int(np.argmin(np.where(left > 0, taken, np.iinfo(np.int64).max)))
        open_ = np.flatnonzero(free & (codes == turn))
        if np.isinf(nearest[open_[0]]):  # nothing has been chosen yet
            centre = ((features[open_] - features[open_].mean(axis=0)) ** 2).sum(axis=1)
            index = int(open_[np.argmin(centre)])
        else:
            index = int(open_[np.argmax(nearest[open_])])
        picked.append(index)
        free[index] = False
        taken[turn] += 1
        left[turn] -= 1
        nearest = np.minimum(nearest, _squares(features, index))
    return np.array(picked, dtype=np.int64)


def representative(strata: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Choose points at random, as many from each stratum as from another as far as they last.

    For valid and test sets: their errors should be those of the runs, not of the rarest configurations.

    Raises
    ------
    ConfigError
        More points are asked for than there are.
    """
    strata = np.asarray(strata)
    if n > len(strata):
        raise ConfigError(f"{n} configurations are wanted, but there are only {len(strata)} to choose from")
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(strata))
    rank = np.empty(len(strata), dtype=np.int64)  # which of its stratum a point is, in the order drawn
    for name in np.unique(strata):
        members = order[strata[order] == name]
        rank[members] = np.arange(len(members))
    return np.sort(order[np.argsort(rank[order], kind="stable")][:n])


def temperature_strata(temperature: np.ndarray, n: int) -> np.ndarray:
    """Number the ranges of equal width, from the lowest to the highest temperature, that points lie in."""
    low, high = float(np.min(temperature)), float(np.max(temperature))
    if high <= low:
        return np.zeros(len(temperature), dtype=np.int64)
    return np.minimum((n * (np.asarray(temperature) - low) / (high - low)).astype(np.int64), n - 1)


def coverage(features: np.ndarray, chosen: np.ndarray) -> dict[str, float]:
    """Distances of all points from the nearest chosen one: their mean and the largest (the covering radius)."""
    nearest = np.full(len(features), np.inf)
    for index in chosen:
        nearest = np.minimum(nearest, _squares(features, index))
    distance = np.sqrt(nearest)
    return {"mean_distance": float(distance.mean()), "largest_distance": float(distance.max())}


def _squares(features: np.ndarray, index: int) -> np.ndarray:
    return ((features - features[index]) ** 2).sum(axis=1)
