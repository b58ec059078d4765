"""Scan conversion of a triangle mesh: which samples lie inside."""

import numpy as np

from implantforge.kernels.jit import helper, parallel_kernel, prange


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
