"""Local thickness in 3D (Hildebrand and Rueegsegger 1997) from distances finer than the voxels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from implantforge.kernels import spheres

SLACK = 0.3  # steps: centres stand a step apart, so the union of balls lies this much inside the faces
SLABS = 16

Samples = NDArray[np.float32]


def distance(values: NDArray, step: float = 0.0) -> Samples:
    """Distance (steps) to the surface where values (i,j,k) change sign, positive where they are negative.

    values are signed distances at samples a step apart, or with step 0 any level that is near linear at the surface;
    masks go through `levels`. Measured from the points where grid lines cross the surface, exactly, and by the values
    themselves near it; what lies beyond the array has no surface.
    """
    values = np.ascontiguousarray(values)
    inside, between = np.empty(values.shape, np.int32), np.empty(values.shape, np.int32)
    spheres.in_planes(values, inside)
    spheres.between_planes(values, between)
    out = np.empty(values.shape, np.float32)
    spheres.nearest(values, step, between, inside, out)
    return out


def thickness(away: Samples, side: int = 1) -> Samples:
    """Diameter (steps) of the largest ball in {side away > 0} that covers each sample, 0 elsewhere.

    away is what `distance` gives; side 1 measures the walls, -1 the pores. Balls stand on the ridge between samples.
    """
    keep = np.empty(away.shape, np.bool_)
    spheres.ridge(away, float(side), keep)
    rows = np.argwhere(keep)
    balls = np.empty((len(rows), 4), np.float32)
    spheres.centres(away, float(side), rows, 0.9, balls)
    out = np.empty(away.shape, np.float32)
    edges = np.linspace(0, away.shape[0], min(SLABS, away.shape[0]) + 1).astype(np.int64)
    spheres.paint(balls, edges, away, float(side), SLACK, out)
    return out


def levels(mask: NDArray[np.bool_]) -> Samples:
    """What `distance` takes when only voxels are known: their steps are softened over one voxel."""
    out = np.empty(mask.shape, np.float32)
    spheres.soften(np.ascontiguousarray(mask), out)
    return out
