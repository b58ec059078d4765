"""Point-in-mesh by counting the faces above a point. Triangles are binned in x-y columns by the caller."""

from __future__ import annotations

from typing import Any

from implantforge.kernels.jit import helper, parallel_kernel, prange


@helper
def _side(ax: float, ay: float, bx: float, by: float, px: float, py: float) -> float:
    """Twice the area of (a, b, p); evaluated in one order for both faces of an edge so that no crossing is lost."""
    if ax < bx or (ax == bx and ay < by):
        return (bx - ax) * (py - ay) - (by - ay) * (px - ax)
    return -((ax - bx) * (py - by) - (ay - by) * (px - bx))


@parallel_kernel
def crossing_parity(
    triangles: Any, owner: Any, start: Any, low: Any, size: Any, cells: int, points: Any, out: Any
) -> None:
    """out[i] = whether an odd number of triangles (m,3,3) lies above points[i] (n,3).

    owner[start[c]:start[c+1]] are the triangles whose box touches column c of the cells x cells grid at `low`.
    """
    for i in prange(points.shape[0]):
        px, py, pz = points[i, 0], points[i, 1], points[i, 2]
        column = int((px - low[0]) // size[0])
        row = int((py - low[1]) // size[1])
        odd = False
        if -1 <= column <= cells and -1 <= row <= cells:
            column = min(max(column, 0), cells - 1)
            row = min(max(row, 0), cells - 1)
            cell = column * cells + row
            for k in range(start[cell], start[cell + 1]):
                t = triangles[owner[k]]
                d0 = _side(t[0, 0], t[0, 1], t[1, 0], t[1, 1], px, py)
                d1 = _side(t[1, 0], t[1, 1], t[2, 0], t[2, 1], px, py)
                d2 = _side(t[2, 0], t[2, 1], t[0, 0], t[0, 1], px, py)
                # half-open rule: zero counts as positive on both faces of an edge, with opposite signs, so once
                if (d0 >= 0) == (d1 >= 0) and (d1 >= 0) == (d2 >= 0):
                    total = d0 + d1 + d2
                    if total != 0.0:
                        z = (t[2, 2] * d0 + t[0, 2] * d1 + t[1, 2] * d2) / total
                        if z > pz:
                            odd = not odd
        out[i] = odd
