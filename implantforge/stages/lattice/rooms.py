"""Sizes read off depths: how far each point of a periodic tile lies inside the metal or the void, in cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from implantforge.core import Array
from implantforge.kernels import thickness


def points(n: int, side: int = 1, shift: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Array:
    """Points (m,3) of a grid of n points a cell over a tile of side cells, shifted by parts of a step."""
    return (np.indices((n * side,) * 3).reshape(3, -1).T + np.array(shift)) / n


def passing(depth: NDArray) -> float:
    """Largest depth whose region runs through two tiles from face to face."""
    tiled = np.tile(depth, (2, 2, 2) if len(depth) < 50 else (2, 1, 1))
    levels = np.unique(depth[depth > 0].round(4))
    low, high = -1, len(levels) - 1
    while low < high:
        middle = (low + high + 1) // 2
        labels = ndimage.label(tiled >= levels[middle], np.ones((3, 3, 3)))[0]
        if len(np.intersect1d(labels[0][labels[0] > 0], labels[-1])):
            low = middle
        else:
            high = middle - 1
    return float(levels[low]) if low >= 0 else 0.0


def median_thickness(depth: NDArray, step: float, share: float = 50.0) -> float:
    """Median (or another percentile) over the region of the largest ball in it that covers a point: diameter in cells,
    samples step apart."""
    inside = depth > 0
    if not inside.any():
        return 0.0
    pad = int(depth.max() / step) + 2
    grid = np.pad(depth, pad, mode="wrap").astype(np.float64)
    spacing, keep = np.full(3, step), np.empty(grid.shape, np.bool_)
    thickness.ridge(grid, spacing, keep)
    centres, radii = np.argwhere(keep), grid[keep]
    order = np.argsort(-radii, kind="stable")
    out = np.zeros(grid.shape, np.float32)
    thickness.paint_balls(centres[order], radii[order], spacing, out)
    middle = out[(slice(pad, -pad),) * 3]
    return 2 * float(np.percentile(middle[inside], share))


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
