"""Trilinear reading of a sampled volume at points in mm."""

import numpy as np

from implantforge.kernels.jit import parallel_kernel, prange


@parallel_kernel
def trilinear(values, rotation, origin, spacing, points, out):  # type: ignore[no-untyped-def]
    """out (n,) = values [i,j,k] read at points (n,3); beyond the samples the nearest border value plus the distance to it."""
    for n in prange(len(points)):
        corner = 0.0
        base = np.empty(3, np.int64)
        part = np.empty(3)
        for a in range(3):
            x = 0.0
            for c in range(3):
                x += (points[n, c] - origin[c]) * rotation[c, a]
            u = x / spacing[a]
            top = values.shape[a] - 1
            clamped = min(max(u, 0.0), float(top))
            corner += ((u - clamped) * spacing[a]) ** 2
            base[a] = min(int(clamped), top - 1)
            part[a] = clamped - base[a]
        i, j, k = base[0], base[1], base[2]
        x, y, z = part[0], part[1], part[2]
        low = (values[i, j, k] * (1 - z) + values[i, j, k + 1] * z) * (1 - y) + (
            values[i, j + 1, k] * (1 - z) + values[i, j + 1, k + 1] * z
        ) * y
        high = (values[i + 1, j, k] * (1 - z) + values[i + 1, j, k + 1] * z) * (1 - y) + (
            values[i + 1, j + 1, k] * (1 - z) + values[i + 1, j + 1, k + 1] * z
        ) * y
        out[n] = low * (1 - x) + high * x + np.sqrt(corner)
