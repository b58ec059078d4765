"""Triply periodic surfaces: values, gradients, and true distance in mm by Newton steps to the surface.

kind 0 gyroid, 1 diamond, 2 primitive, 3 I-WP (the order of LATTICES in stages/lattice). Phases are 2 pi x / cell.
"""

import numpy as np

from implantforge.kernels.jit import helper, parallel_kernel, prange


@helper
def _level(kind, x, y, z, g):  # type: ignore[no-untyped-def]
    """f at phases (x,y,z); g (3,) its gradient by phase."""
    sx, cx, sy, cy, sz, cz = np.sin(x), np.cos(x), np.sin(y), np.cos(y), np.sin(z), np.cos(z)
    if kind == 0:
        g[0] = cx * cy - sz * sx
        g[1] = cy * cz - sx * sy
        g[2] = cz * cx - sy * sz
        return sx * cy + sy * cz + sz * cx
    if kind == 1:
        g[0] = cx * sy * sz + cx * cy * cz - sx * sy * cz - sx * cy * sz
        g[1] = sx * cy * sz - sx * sy * cz + cx * cy * cz - cx * sy * sz
        g[2] = sx * sy * cz - sx * cy * sz - cx * sy * sz + cx * cy * cz
        return sx * sy * sz + sx * cy * cz + cx * sy * cz + cx * cy * sz
    if kind == 2:
        g[0], g[1], g[2] = -sx, -sy, -sz
        return cx + cy + cz
    g[0] = -2 * sx * (cy + cz) + 4 * sx * cx
    g[1] = -2 * sy * (cx + cz) + 4 * sy * cy
    g[2] = -2 * sz * (cx + cy) + 4 * sz * cz
    return 2 * (cx * cy + cy * cz + cz * cx) - 2 * (cx * cx + cy * cy + cz * cz) + 3


@parallel_kernel
def tpms_level(kind, cell, points, out):  # type: ignore[no-untyped-def]
    """out (n,) = f at points (n,3) mm."""
    w = 2 * np.pi / cell
    for n in prange(len(points)):
        out[n] = _level(kind, w * points[n, 0], w * points[n, 1], w * points[n, 2], np.empty(3))


@parallel_kernel
def tpms_distance(kind, cell, level, limit, steps, points, out):  # type: ignore[no-untyped-def]
    """out (n,) = signed mm to the surface f = level (negative where f < level), cut off at +-limit mm.

    Each step goes to the point nearest to the query on the plane where the linear model at the last point vanishes: step 0
    is f / |grad f|, two more bring sheet walls within 1 %."""
    w = 2 * np.pi / cell
    most = 1.5 * limit * w
    for n in prange(len(points)):
        g = np.empty(3)
        px, py, pz = w * points[n, 0], w * points[n, 1], w * points[n, 2]
        f = _level(kind, px, py, pz, g) - level
        sign = -1.0 if f < 0 else 1.0
        x, y, z = px, py, pz
        far = 0.0
        for step in range(steps + 1):
            if step:
                f = _level(kind, x, y, z, g) - level
            gg = g[0] * g[0] + g[1] * g[1] + g[2] * g[2] + 1e-12
            s = (f + (px - x) * g[0] + (py - y) * g[1] + (pz - z) * g[2]) / gg
            x, y, z = px - s * g[0], py - s * g[1], pz - s * g[2]
            far = abs(s) * np.sqrt(gg)
            if far > most:
                far = most
                break
        out[n] = sign * min(far / w, limit)
