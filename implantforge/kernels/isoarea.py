"""Area of the surface where sampled values change sign, cell by cell, without a mesh."""

import numpy as np

from implantforge.kernels.jit import helper, parallel_kernel, prange


@helper
def _point(corners, values, a, b, out):  # type: ignore[no-untyped-def]
    """Where the surface cuts the edge from corner a to b."""
    part = values[a] / (values[a] - values[b])
    for axis in range(3):
        out[axis] = corners[a, axis] + part * (corners[b, axis] - corners[a, axis])


@helper
def _triangle(p, q, r):  # type: ignore[no-untyped-def]
    """Area of a triangle."""
    x = (q[1] - p[1]) * (r[2] - p[2]) - (q[2] - p[2]) * (r[1] - p[1])
    y = (q[2] - p[2]) * (r[0] - p[0]) - (q[0] - p[0]) * (r[2] - p[2])
    z = (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])
    return 0.5 * np.sqrt(x * x + y * y + z * z)


@helper
def _cell(corners, values, order, points):  # type: ignore[no-untyped-def]
    """Area in one cube, cut into six tetrahedra around its diagonal."""
    total = 0.0
    for t in range(6):
        low, high = np.zeros(4, np.int64), np.zeros(4, np.int64)
        below = above = 0
        for n in range(4):
            corner = order[t, n]
            if values[corner] < 0:
                low[below] = corner
                below += 1
            else:
                high[above] = corner
                above += 1
        if below == 1 or above == 1:
            one, three = (low[0], high) if below == 1 else (high[0], low)
            for n in range(3):
                _point(corners, values, one, three[n], points[n])
            total += _triangle(points[0], points[1], points[2])
        elif below == 2:
            _point(corners, values, low[0], high[0], points[0])
            _point(corners, values, low[0], high[1], points[1])
            _point(corners, values, low[1], high[1], points[2])
            _point(corners, values, low[1], high[0], points[3])
            total += _triangle(points[0], points[1], points[2]) + _triangle(points[0], points[2], points[3])
    return total


@parallel_kernel
def area(values, order, out):  # type: ignore[no-untyped-def]
    """out (i,) = area (steps^2) of the linear surface in each layer of cells; order (6,4) the corners of the tetrahedra, a
    corner being 4 i + 2 j + k."""
    ni, nj, nk = values.shape
    for i in prange(ni - 1):
        corners, eight, points = np.zeros((8, 3)), np.zeros(8), np.zeros((4, 3))
        for corner in range(8):
            corners[corner, 0], corners[corner, 1], corners[corner, 2] = corner >> 2, (corner >> 1) & 1, corner & 1
        total = 0.0
        for j in range(nj - 1):
            for k in range(nk - 1):
                below = 0
                for corner in range(8):
                    below += values[i + (corner >> 2), j + ((corner >> 1) & 1), k + (corner & 1)] < 0
                if 0 < below < 8:
                    for corner in range(8):
                        eight[corner] = values[i + (corner >> 2), j + ((corner >> 1) & 1), k + (corner & 1)]
                    # a cell with a corner that is no number does not count
                    if eight.sum() == eight.sum():
                        total += _cell(corners, eight, order, points)
        out[i] = total
