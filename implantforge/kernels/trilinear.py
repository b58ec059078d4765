"""Trilinear reading of a sampled volume at points in mm."""

import numpy as np

from implantforge.kernels.jit import helper, kernel, parallel_kernel, prange


@helper
def _read(values, rotation, origin, spacing, px, py, pz):  # type: ignore[no-untyped-def]
    """One value; beyond the samples the nearest border value plus the distance to it."""
    dx, dy, dz = px - origin[0], py - origin[1], pz - origin[2]
    u = (dx * rotation[0, 0] + dy * rotation[1, 0] + dz * rotation[2, 0]) / spacing[0]
    v = (dx * rotation[0, 1] + dy * rotation[1, 1] + dz * rotation[2, 1]) / spacing[1]
    w = (dx * rotation[0, 2] + dy * rotation[1, 2] + dz * rotation[2, 2]) / spacing[2]
    cu = min(max(u, 0.0), float(values.shape[0] - 1))
    cv = min(max(v, 0.0), float(values.shape[1] - 1))
    cw = min(max(w, 0.0), float(values.shape[2] - 1))
    i = min(int(cu), values.shape[0] - 2)
    j = min(int(cv), values.shape[1] - 2)
    k = min(int(cw), values.shape[2] - 2)
    x, y, z = cu - i, cv - j, cw - k
    low = (values[i, j, k] * (1 - z) + values[i, j, k + 1] * z) * (1 - y) + (
        values[i, j + 1, k] * (1 - z) + values[i, j + 1, k + 1] * z
    ) * y
    high = (values[i + 1, j, k] * (1 - z) + values[i + 1, j, k + 1] * z) * (1 - y) + (
        values[i + 1, j + 1, k] * (1 - z) + values[i + 1, j + 1, k + 1] * z
    ) * y
    away = ((u - cu) * spacing[0]) ** 2 + ((v - cv) * spacing[1]) ** 2 + ((w - cw) * spacing[2]) ** 2
    return low * (1 - x) + high * x + np.sqrt(away)


@kernel
def trilinear_few(values, rotation, origin, spacing, points, out):  # type: ignore[no-untyped-def]
    """out (n,) = values [i,j,k] read at points (n,3) by one thread: waking a second costs more than a few thousand
    reads."""
    for n in range(len(points)):
        out[n] = _read(values, rotation, origin, spacing, points[n, 0], points[n, 1], points[n, 2])


@parallel_kernel
def trilinear(values, rotation, origin, spacing, points, out):  # type: ignore[no-untyped-def]
    """out (n,) = values [i,j,k] read at points (n,3)."""
    for n in prange(len(points)):
        out[n] = _read(values, rotation, origin, spacing, points[n, 0], points[n, 1], points[n, 2])
