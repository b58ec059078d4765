"""Triangles in a grid of cells: distance to the nearest one within a limit, and triangles that pass through each other."""

import numpy as np

from implantforge.kernels.jit import helper, kernel


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


@kernel
def cell_boxes(corners, low, size, shape, margin, boxes):  # type: ignore[no-untyped-def]
    """boxes (m,6) = first and last cell along each axis that triangles (m,3,3), margin wider, reach."""
    for f in range(len(corners)):
        t = corners[f]
        for a in range(3):
            lo = min(t[0, a], t[1, a], t[2, a]) - margin - low[a]
            hi = max(t[0, a], t[1, a], t[2, a]) + margin - low[a]
            boxes[f, a] = min(max(int(np.floor(lo / size)), 0), shape[a] - 1)
            boxes[f, 3 + a] = min(max(int(np.floor(hi / size)), 0), shape[a] - 1)


@kernel
def count_cells(boxes, shape, out):  # type: ignore[no-untyped-def]
    """Adds to out (cells,) how many boxes (m,6) reach each cell."""
    for b in boxes:
        for i in range(b[0], b[3] + 1):
            for j in range(b[1], b[4] + 1):
                for k in range(b[2], b[5] + 1):
                    out[(i * shape[1] + j) * shape[2] + k] += 1


@kernel
def fill_cells(boxes, shape, begin, out):  # type: ignore[no-untyped-def]
    """out: numbers of the boxes that reach each cell, rising, from begin[cell] on; begin moves on to each cell's end."""
    for f in range(len(boxes)):
        b = boxes[f]
        for i in range(b[0], b[3] + 1):
            for j in range(b[1], b[4] + 1):
                for k in range(b[2], b[5] + 1):
                    cell = (i * shape[1] + j) * shape[2] + k
                    out[begin[cell]] = f
                    begin[cell] += 1


@kernel
def near_triangle(corners, held, start, low, size, shape, points, limit, out):  # type: ignore[no-untyped-def]
    """out (n,) = distance from points (n,3) to the nearest triangle, `limit` where none is nearer. held[start[c]:
    start[c+1]] are the triangles that reach cell c within limit."""
    for v in range(len(points)):
        p = points[v]
        best, reach = limit * limit, limit
        i, j, k = (
            int(np.floor((p[0] - low[0]) / size)),
            int(np.floor((p[1] - low[1]) / size)),
            int(np.floor((p[2] - low[2]) / size)),
        )
        if 0 <= i < shape[0] and 0 <= j < shape[1] and 0 <= k < shape[2]:
            cell = (i * shape[1] + j) * shape[2] + k
            for q in range(start[cell], start[cell + 1]):
                t = corners[held[q]]
                far = False
                for a in range(3):
                    far |= min(t[0, a], t[1, a], t[2, a]) - p[a] > reach
                    far |= p[a] - max(t[0, a], t[1, a], t[2, a]) > reach
                if not far:
                    d = _to_triangle(p[0], p[1], p[2], t[0], t[1], t[2])
                    if d < best:
                        best, reach = d, np.sqrt(d)
        out[v] = np.sqrt(best)


@helper
def _pierces(p, q, a, b, c):  # type: ignore[no-untyped-def]
    """Whether the segment p-q passes through triangle a b c (Moeller and Trumbore 1997), borders included."""
    dx, dy, dz = q[0] - p[0], q[1] - p[1], q[2] - p[2]
    ux, uy, uz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    vx, vy, vz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
    hx, hy, hz = dy * vz - dz * vy, dz * vx - dx * vz, dx * vy - dy * vx
    det = ux * hx + uy * hy + uz * hz
    wide = np.sqrt((ux * ux + uy * uy + uz * uz) * (hx * hx + hy * hy + hz * hz))
    if abs(det) <= 1e-11 * wide:  # along the plane: rounding alone would say where
        return False
    sx, sy, sz = p[0] - a[0], p[1] - a[1], p[2] - a[2]
    u = (sx * hx + sy * hy + sz * hz) / det
    if u < 0.0 or u > 1.0:
        return False
    gx, gy, gz = sy * uz - sz * uy, sz * ux - sx * uz, sx * uy - sy * ux
    v = (dx * gx + dy * gy + dz * gz) / det
    if v < 0.0 or u + v > 1.0:
        return False
    t = (vx * gx + vy * gy + vz * gz) / det
    return 0.0 <= t <= 1.0


@helper
def _beside(points, f, g):  # type: ignore[no-untyped-def]
    """Whether all vertices of g that f does not share lie strictly on one side of the plane of f."""
    a, b, c = points[f[0]], points[f[1]], points[f[2]]
    ux, uy, uz, vx, vy, vz = b[0] - a[0], b[1] - a[1], b[2] - a[2], c[0] - a[0], c[1] - a[1], c[2] - a[2]
    nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    above, below = False, False
    for s in range(3):
        if g[s] != f[0] and g[s] != f[1] and g[s] != f[2]:
            p = points[g[s]]
            side = (p[0] - a[0]) * nx + (p[1] - a[1]) * ny + (p[2] - a[2]) * nz
            if side >= 0.0:
                above = True
            if side <= 0.0:
                below = True
    return not (above and below)


@helper
def _normal(a, b, c):  # type: ignore[no-untyped-def]
    """Cross product of two sides."""
    ux, uy, uz, vx, vy, vz = b[0] - a[0], b[1] - a[1], b[2] - a[2], c[0] - a[0], c[1] - a[1], c[2] - a[2]
    return uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx


@helper
def _flat(points, f, g):  # type: ignore[no-untyped-def]
    """The axis along which both faces are seen widest where they lie in one plane to rounding, else -1."""
    a, b, c = points[f[0]], points[f[1]], points[f[2]]
    nx, ny, nz = _normal(a, b, c)
    long = np.sqrt(nx * nx + ny * ny + nz * nz)
    size = (
        abs(b[0] - a[0]) + abs(b[1] - a[1]) + abs(b[2] - a[2]) + abs(c[0] - a[0]) + abs(c[1] - a[1]) + abs(c[2] - a[2])
    )
    within = long * (1e-8 * size + 1e-13 * (abs(a[0]) + abs(a[1]) + abs(a[2])))
    for s in range(3):
        p = points[g[s]]
        if abs((p[0] - a[0]) * nx + (p[1] - a[1]) * ny + (p[2] - a[2]) * nz) > within:
            return -1
    if abs(nx) >= abs(ny) and abs(nx) >= abs(nz):
        return 0
    return 1 if abs(ny) >= abs(nz) else 2


@helper
def _overlap(points, f, g, axis):  # type: ignore[no-untyped-def]
    """Whether two faces of one plane share more than their borders: no side of either parts them, seen along axis."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    for turn in range(2):
        mine = f if turn == 0 else g
        for r in range(3):
            p, q = points[mine[r]], points[mine[(r + 1) % 3]]
            x, y = q[j] - p[j], p[i] - q[i]
            low_f, high_f, low_g, high_g = np.inf, -np.inf, np.inf, -np.inf
            for s in range(3):
                u = (points[f[s], i] - p[i]) * x + (points[f[s], j] - p[j]) * y
                v = (points[g[s], i] - p[i]) * x + (points[g[s], j] - p[j]) * y
                low_f, high_f, low_g, high_g = min(low_f, u), max(high_f, u), min(low_g, v), max(high_g, v)
            slack = 1e-7 * max(high_f - low_f, high_g - low_g)
            if high_f <= low_g + slack or high_g <= low_f + slack:
                return False
    return True


@helper
def _meet(points, f, g):  # type: ignore[no-untyped-def]
    """Whether faces f and g (three vertex numbers each) meet outside what they share, or fold flat onto each other."""
    shared = 0
    for r in range(3):
        for s in range(3):
            if f[r] == g[s]:
                shared += 1
    if shared == 2:
        a, b, c = points[f[0]], points[f[1]], points[f[2]]
        d, e, h = points[g[0]], points[g[1]], points[g[2]]
        nx, ny, nz = _normal(a, b, c)
        mx, my, mz = _normal(d, e, h)
        both = np.sqrt((nx * nx + ny * ny + nz * nz) * (mx * mx + my * my + mz * mz))
        return nx * mx + ny * my + nz * mz < -0.9999 * both
    if shared == 3:
        return False
    axis = _flat(points, f, g)
    if axis >= 0:
        return _overlap(points, f, g, axis)
    if _beside(points, f, g) or _beside(points, g, f):
        return False
    for turn in range(2):
        one, two = (f, g) if turn == 0 else (g, f)
        a, b, c = points[two[0]], points[two[1]], points[two[2]]
        for r in range(3):
            p, q = one[r], one[(r + 1) % 3]
            touching = False
            for s in range(3):
                if two[s] == p or two[s] == q:
                    touching = True
            if not touching and _pierces(points[p], points[q], a, b, c):
                return True
    return False


@kernel
def self_crossing(points, faces, boxes, held, start, shape, out):  # type: ignore[no-untyped-def]
    """out (m,) = a face of higher number that each passes through or folds flat onto, -1 for none. boxes (m,6), held and
    start as from cell_boxes, held in rising order within a cell."""
    low, high = np.empty(3), np.empty(3)
    for f in range(len(faces)):
        found = -1
        mine, box = faces[f], boxes[f]
        for a in range(3):
            low[a] = min(points[mine[0], a], points[mine[1], a], points[mine[2], a])
            high[a] = max(points[mine[0], a], points[mine[1], a], points[mine[2], a])
        for i in range(box[0], box[3] + 1):
            for j in range(box[1], box[4] + 1):
                for k in range(box[2], box[5] + 1):
                    cell = (i * shape[1] + j) * shape[2] + k
                    q = start[cell + 1] - 1
                    while q >= start[cell] and held[q] > f and found < 0:
                        other = faces[held[q]]
                        apart = False
                        for a in range(3):
                            u, v, w = points[other[0], a], points[other[1], a], points[other[2], a]
                            if max(u, v, w) < low[a] or min(u, v, w) > high[a]:
                                apart = True
                                break
                        if not apart and _meet(points, mine, other):
                            found = int(held[q])
                        q -= 1
        out[f] = found
