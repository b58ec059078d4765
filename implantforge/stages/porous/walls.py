"""Local thickness in 3D (Hildebrand and Rueegsegger 1997) from distances finer than the voxels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from implantforge.kernels import spheres

SLACK = 0.5  # steps: centres stand steps apart, so the union of balls lies this much inside the faces
THINNED = 2.0  # steps: from here on every second centre is enough, from four times that every fourth
SLABS = 16

Samples = NDArray[np.float32]


def distance(values: NDArray, step: float = 0.0, side: int = 0) -> Samples:
    """Distance (steps) to the surface where values (i,j,k) change sign, positive where they are negative.

    values are signed distances at samples a step apart, or with step 0 any level that is near linear at the surface;
    masks go through `levels`. Measured from the points where grid lines cross the surface, exactly, and by the values
    themselves near it; what lies beyond the array has no surface. side 1 (negative values) or -1: the other side is right
    within two steps only, and sooner done.
    """
    values = np.ascontiguousarray(values)
    inside, between = np.empty(values.shape, np.int32), np.empty(values.shape, np.int32)
    spheres.in_planes(values, side, inside)
    spheres.between_planes(values, side, between)
    out = np.empty(values.shape, np.float32)
    spheres.nearest(values, step, between, inside, out)
    return out


def thickness(away: Samples, side: int = 1) -> Samples:
    """Diameter (steps) of the largest ball in {side away > 0} that covers each sample, 0 elsewhere.

    away is what `distance` gives; side 1 measures the walls, -1 the pores. Balls stand on the ridge between samples.
    """
    count, keep = np.empty(away.shape[0], np.int64), np.empty(away.shape, np.bool_)
    spheres.ridge(away, float(side), THINNED, count, keep)
    offsets = np.concatenate([[0], np.cumsum(count)])
    balls = np.empty((offsets[-1], 4), np.float32)
    spheres.centres(away, float(side), keep, offsets, 0.9, balls)
    out = np.empty(away.shape, np.float32)
    edges = np.linspace(0, away.shape[0], min(SLABS, away.shape[0]) + 1).astype(np.int64)
    spheres.paint(balls, offsets, edges, away, float(side), SLACK, out)
    return out


def levels(mask: NDArray[np.bool_]) -> Samples:
    """What `distance` takes when only voxels are known: their steps are softened over one voxel."""
    out = np.empty(mask.shape, np.float32)
    spheres.soften(np.ascontiguousarray(mask), out)
    return out
