"""Sizes read off depths: how far each point of a periodic tile lies inside the metal or the void, in cells."""

from __future__ import annotations

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from implantforge.core import Array
from implantforge.kernels import spheres

SLACK, THINNED = 0.5, 2.0  # steps: as stages/porous reads local thickness


def points(n: int, side: int = 1, shift: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Array:
    """Points (m,3) of a grid of n points a cell over a tile of side cells, shifted by parts of a step."""
    return (np.indices((n * side,) * 3).reshape(3, -1).T + np.array(shift)) / n


def depths(f: NDArray, level: float) -> NDArray[np.float32]:
    """Distance (steps) of the nodes of a periodic tile to f = level, positive where f is below it."""
    pad = len(f) // 4
    values = np.pad(f - level, pad, mode="wrap").astype(np.float32)
    inside, between = np.empty(values.shape, np.int32), np.empty(values.shape, np.int32)
    out = np.empty(values.shape, np.float32)
    spheres.in_planes(values, 0, inside)
    spheres.between_planes(values, 0, between)
    spheres.nearest(values, 0.0, between, inside, out)
    return np.ascontiguousarray(out[(slice(pad, -pad),) * 3])


def passing(depth: NDArray) -> float:
    """Largest depth whose region runs through two tiles from face to face."""
    tiled = np.tile(depth, (2, 2, 2) if depth.size < 120**3 else (2, 1, 1))
    low, high = 0.0, float(depth.max())
    if not _runs(tiled > 0):
        return 0.0
    while high - low > 1e-3 * high:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _runs(tiled >= middle) else (low, middle)
    return low


def _runs(mask: NDArray[np.bool_]) -> bool:
    labels = cc3d.connected_components(mask, connectivity=26)
    return bool(len(np.intersect1d(labels[0][labels[0] > 0], labels[-1])))


def median_thickness(away: NDArray, step: float) -> float:
    """As thicknesses, the median alone."""
    return thicknesses(away, step, (50.0,))[0]


def thicknesses(away: NDArray, step: float, shares: tuple[float, ...]) -> tuple[float, ...]:
    """Percentiles over {away > 0} of the largest ball in it that covers a point: diameters in cells; away in cells at the
    nodes of a periodic tile, step apart, negative beyond the surface. Balls stand between nodes too."""
    inside = away > 0
    if not inside.any():
        return (0.0,) * len(shares)
    pad = min(int(away.max() / step) + 2, len(away))
    grid = np.pad(away / step, pad, mode="wrap").astype(np.float32)
    count, keep = np.empty(len(grid), np.int64), np.empty(grid.shape, np.bool_)
    spheres.ridge(grid, 1.0, THINNED, count, keep)
    offsets = np.concatenate([[0], np.cumsum(count)])
    balls = np.empty((offsets[-1], 4), np.float32)
    spheres.centres(grid, 1.0, keep, offsets, 0.9, balls)
    out = np.empty(grid.shape, np.float32)
    edges = np.linspace(0, len(grid), min(16, len(grid)) + 1).astype(np.int64)
    spheres.paint(balls, offsets, edges, grid, 1.0, SLACK, out)
    middle = out[(slice(pad, -pad),) * 3]
    return tuple(step * float(size) for size in np.percentile(middle[inside], shares))


def largest_share(mask: NDArray[np.bool_]) -> float:
    """Share of a periodic mask that hangs together, pieces joined across the faces."""
    labels, count = ndimage.label(mask)
    names = np.arange(count + 1)
    for axis in range(3):
        first, last = labels.take(0, axis), labels.take(-1, axis)
        pairs = np.unique(np.stack([first, last], axis=-1)[(first > 0) & (last > 0)], axis=0)
        for a, b in pairs:
            low, high = sorted((names[a], names[b]))
            names[names == high] = low
    sizes = np.bincount(names[labels[labels > 0]])
    return float(sizes.max() / max(sizes.sum(), 1)) if len(sizes) else 0.0
