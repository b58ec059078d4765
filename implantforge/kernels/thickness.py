"""Local thickness: the largest ball inside the mask that covers each voxel."""

import numpy as np

from implantforge.kernels.jit import kernel, parallel_kernel, prange


@parallel_kernel
def ridge(radius, spacing, keep):  # type: ignore[no-untyped-def]
    """keep (i,j,k) = balls not swallowed by the ball of one of the 26 neighbours."""
    ni, nj, nk = radius.shape
    for i in prange(ni):
        for j in range(nj):
            for k in range(nk):
                r = radius[i, j, k]
                alive = r > 0
                for a in range(-1, 2):
                    for b in range(-1, 2):
                        for c in range(-1, 2):
                            u, v, w = i + a, j + b, k + c
                            if alive and (a or b or c) and 0 <= u < ni and 0 <= v < nj and 0 <= w < nk:
                                step = np.sqrt((a * spacing[0]) ** 2 + (b * spacing[1]) ** 2 + (c * spacing[2]) ** 2)
                                alive = radius[u, v, w] < r + step - 1e-6
                keep[i, j, k] = alive


@kernel
def paint_balls(centres, radii, spacing, out):  # type: ignore[no-untyped-def]
    """out (i,j,k) = radius of the largest ball covering a voxel; centres (n,3) voxels, radii (n,) mm, largest first."""
    for n in range(len(radii)):
        r = radii[n]
        low, high = np.empty(3, np.int64), np.empty(3, np.int64)
        for a in range(3):
            m = int(r / spacing[a])
            low[a] = max(centres[n, a] - m, 0)
            high[a] = min(centres[n, a] + m + 1, out.shape[a])
        for i in range(low[0], high[0]):
            for j in range(low[1], high[1]):
                rest = r * r - ((i - centres[n, 0]) * spacing[0]) ** 2 - ((j - centres[n, 1]) * spacing[1]) ** 2
                for k in range(low[2], high[2]):
                    if out[i, j, k] < r and ((k - centres[n, 2]) * spacing[2]) ** 2 < rest:
                        out[i, j, k] = r
