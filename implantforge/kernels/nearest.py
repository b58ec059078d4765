"""Distances to a triangle mesh on a grid, far from it too: exact beside the mesh, and from sample to sample outward."""

import numpy as np

from implantforge.kernels.jit import helper, parallel_kernel, prange


@helper
def _to_triangle(px, py, pz, t):  # type: ignore[no-untyped-def]
    """Squared distance from a point to a triangle, by the region the point projects to (Ericson 2005, 5.1.5)."""
    abx, aby, abz = t[1, 0] - t[0, 0], t[1, 1] - t[0, 1], t[1, 2] - t[0, 2]
    acx, acy, acz = t[2, 0] - t[0, 0], t[2, 1] - t[0, 1], t[2, 2] - t[0, 2]
    apx, apy, apz = px - t[0, 0], py - t[0, 1], pz - t[0, 2]
    d1, d2 = abx * apx + aby * apy + abz * apz, acx * apx + acy * apy + acz * apz
    bpx, bpy, bpz = px - t[1, 0], py - t[1, 1], pz - t[1, 2]
    d3, d4 = abx * bpx + aby * bpy + abz * bpz, acx * bpx + acy * bpy + acz * bpz
    cpx, cpy, cpz = px - t[2, 0], py - t[2, 1], pz - t[2, 2]
    d5, d6 = abx * cpx + aby * cpy + abz * cpz, acx * cpx + acy * cpy + acz * cpz
    va, vb, vc = d3 * d6 - d5 * d4, d5 * d2 - d1 * d6, d1 * d4 - d3 * d2
    if d1 <= 0 and d2 <= 0:
        v, w = 0.0, 0.0
    elif d3 >= 0 and d4 <= d3:
        v, w = 1.0, 0.0
    elif d6 >= 0 and d5 <= d6:
        v, w = 0.0, 1.0
    elif vc <= 0 and d1 >= 0 and d3 <= 0:
        v, w = d1 / (d1 - d3), 0.0
    elif vb <= 0 and d2 >= 0 and d6 <= 0:
        v, w = 0.0, d2 / (d2 - d6)
    elif va <= 0 and d4 - d3 >= 0 and d5 - d6 >= 0:
        w = (d4 - d3) / ((d4 - d3) + (d5 - d6))
        v = 1.0 - w
    else:
        total = va + vb + vc
        v, w = vb / total, vc / total
    x, y, z = apx - v * abx - w * acx, apy - v * aby - w * acy, apz - v * abz - w * acz
    return x * x + y * y + z * z


@parallel_kernel
def seed(corners, order, starts, slab, band, owner, square):  # type: ignore[no-untyped-def]
    """square (i,j,k) = least squared distance to triangles within band, owner their number (-1: none). corners (m,3,3)
    in samples; order[starts[s]:...] are the triangles that reach slab s of `slab` planes."""
    for s in prange(len(starts) - 1):
        for at in range(starts[s], starts[s + 1]):
            f = order[at]
            t = corners[f]
            low, high = np.empty(3, np.int64), np.empty(3, np.int64)
            for c in range(3):
                low[c] = max(int(np.ceil(min(t[0, c], t[1, c], t[2, c]) - band)), 0)
                high[c] = min(int(np.floor(max(t[0, c], t[1, c], t[2, c]) + band)) + 1, square.shape[c])
            for i in range(max(low[0], np.int64(s) * slab), min(high[0], (np.int64(s) + 1) * slab)):
                for j in range(low[1], high[1]):
                    for k in range(low[2], high[2]):
                        d = _to_triangle(i, j, k, t)
                        if d < square[i, j, k]:
                            square[i, j, k] = d
                            owner[i, j, k] = f


@parallel_kernel
def spread(corners, fresh, old_owner, old_square, owner, square):  # type: ignore[no-untyped-def]
    """square and owner (i,j,k) = the nearest of the triangles that own the 26 samples around each, of the last state;
    samples that have an owner stay as they are where fresh is set, those of owner -2 always."""
    ni, nj, nk = square.shape
    for i in prange(ni):
        for j in range(nj):
            for k in range(nk):
                mine, best = old_owner[i, j, k], old_square[i, j, k]
                if mine != -2 and (not fresh or mine < 0):
                    seen = mine
                    for u in range(max(np.int64(i) - 1, 0), min(np.int64(i) + 2, ni)):
                        for v in range(max(j - 1, 0), min(j + 2, nj)):
                            for w in range(max(k - 1, 0), min(k + 2, nk)):
                                f = old_owner[u, v, w]
                                if f >= 0 and f != mine and f != seen:
                                    seen = f
                                    d = np.float32(_to_triangle(i, j, k, corners[f]))
                                    if d < best or (d == best and f < mine):
                                        best, mine = d, f
                owner[i, j, k], square[i, j, k] = mine, best
