"""Scan conversion of a triangle mesh: exact distances near it, and which samples lie inside."""

import numpy as np

from implantforge.kernels.jit import helper, parallel_kernel, prange


@helper
def _to_triangle(px, py, pz, a, b, c):  # type: ignore[no-untyped-def]
    """Squared distance from a point to a triangle, by the region the point projects to (Ericson 2005, 5.1.5)."""
    abx, aby, abz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    acx, acy, acz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
    apx, apy, apz = px - a[0], py - a[1], pz - a[2]
    d1, d2 = abx * apx + aby * apy + abz * apz, acx * apx + acy * apy + acz * apz
    bpx, bpy, bpz = px - b[0], py - b[1], pz - b[2]
    d3, d4 = abx * bpx + aby * bpy + abz * bpz, acx * bpx + acy * bpy + acz * bpz
    cpx, cpy, cpz = px - c[0], py - c[1], pz - c[2]
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
def near_distances(corners, order, starts, slab, band, square):  # type: ignore[no-untyped-def]
    """square (i,j,k) = least squared distance to triangles within band. corners (m,3,3) in samples;
    order[starts[s]:...] are the triangles that reach slab s of `slab` planes."""
    for s in prange(len(starts) - 1):
        for at in range(starts[s], starts[s + 1]):
            t = corners[order[at]]
            low, high = np.empty(3, np.int64), np.empty(3, np.int64)
            for c in range(3):
                low[c] = max(int(np.ceil(min(t[0, c], t[1, c], t[2, c]) - band)), 0)
                high[c] = min(int(np.floor(max(t[0, c], t[1, c], t[2, c]) + band)) + 1, square.shape[c])
            for i in range(max(low[0], np.int64(s) * slab), min(high[0], (np.int64(s) + 1) * slab)):
                for j in range(low[1], high[1]):
                    for k in range(low[2], high[2]):
                        d = _to_triangle(i, j, k, t[0], t[1], t[2])
                        if d < square[i, j, k]:
                            square[i, j, k] = d


@helper
def _edge_side(ax, ay, bx, by, x, y):  # type: ignore[no-untyped-def]
    return (bx - ax) * (y - ay) - (by - ay) * (x - ax)


@parallel_kernel
def crossings(corners, order, starts, slab, nudge, odd):  # type: ignore[no-untyped-def]
    """odd (i,j,k) bool: samples inside, by counting crossings of the column below each. nudge (2,) shifts columns off
    vertices and edges."""
    ni, nj, nk = odd.shape
    for s in prange(len(starts) - 1):
        first, last = np.int64(s) * slab, min((np.int64(s) + 1) * slab, ni)
        for at in range(starts[s], starts[s + 1]):
            t = corners[order[at]]
            ilow = max(int(np.ceil(min(t[0, 0], t[1, 0], t[2, 0]) - nudge[0])), first)
            ihigh = min(int(np.floor(max(t[0, 0], t[1, 0], t[2, 0]) - nudge[0])) + 1, last)
            jlow = max(int(np.ceil(min(t[0, 1], t[1, 1], t[2, 1]) - nudge[1])), 0)
            jhigh = min(int(np.floor(max(t[0, 1], t[1, 1], t[2, 1]) - nudge[1])) + 1, nj)
            for i in range(ilow, ihigh):
                for j in range(jlow, jhigh):
                    x, y = i + nudge[0], j + nudge[1]
                    u = _edge_side(t[1, 0], t[1, 1], t[2, 0], t[2, 1], x, y)
                    v = _edge_side(t[2, 0], t[2, 1], t[0, 0], t[0, 1], x, y)
                    w = _edge_side(t[0, 0], t[0, 1], t[1, 0], t[1, 1], x, y)
                    if (u > 0 and v > 0 and w > 0) or (u < 0 and v < 0 and w < 0):
                        z = (u * t[0, 2] + v * t[1, 2] + w * t[2, 2]) / (u + v + w)
                        k = max(int(np.ceil(z)), 0)
                        if k < nk:
                            odd[i, j, k] = not odd[i, j, k]
        for i in range(first, last):
            for j in range(nj):
                for k in range(1, nk):
                    odd[i, j, k] = odd[i, j, k] != odd[i, j, k - 1]
