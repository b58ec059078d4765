"""Labels spread over ground from the highest down, within a mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from implantforge.kernels import flood


def flooded(
    height: NDArray[np.float32], seeds: NDArray[np.uint8], mask: NDArray[np.bool_], step: float
) -> NDArray[np.uint8]:
    """Marker watershed (Meyer 1991) from the highest ground down: the seeds' values (i,j,k) carried to every voxel of the
    mask that is joined to one by faces, 0 elsewhere. Heights count in whole steps; equal ones in the order of arrival.
    """
    used = (
        np.flatnonzero(mask.any(axis=(1, 2))),
        np.flatnonzero(mask.any(axis=(0, 2))),
        np.flatnonzero(mask.any(axis=(0, 1))),
    )
    out = np.zeros(mask.shape, np.uint8)
    if not len(used[0]):
        return out
    box = tuple(slice(int(at[0]), int(at[-1]) + 1) for at in used)
    inside = mask[box]
    values = np.full(np.array(inside.shape) + 2, -1, np.int16)
    inner = values[1:-1, 1:-1, 1:-1]
    inner[inside] = seeds[box][inside]
    ground = height[box][inside]
    bins = np.floor((ground - ground.min()) / np.float32(step)).astype(np.int32)
    level = np.zeros(values.shape, np.int32)
    level[1:-1, 1:-1, 1:-1][inside] = bins
    steps = np.array([-1, 1, -values.shape[2], values.shape[2], -values.shape[1] * values.shape[2],
                      values.shape[1] * values.shape[2]])  # fmt: skip
    item, after = np.empty(len(bins), np.int64), np.empty(len(bins), np.int32)
    head, tail = np.full((2, int(bins.max()) + 1), -1, np.int32)
    flood.flood(level.ravel(), steps, item, after, head, tail, values.ravel())
    out[box][inside] = inner[inside]
    return out
