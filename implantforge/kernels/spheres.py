"""Distance to a surface from the points where grid lines cross it, and spheres painted over a grid."""

import numpy as np

from implantforge.kernels.jit import helper, parallel_kernel, prange


@parallel_kernel
def soften(mask, out):  # type: ignore[no-untyped-def]
    """out (i,j,k) float32 = 1/2 less the share of mask around a sample, weights 1 2 1 along each axis; negative in the mask
    and positive elsewhere even where the share disagrees."""
    ni, nj, nk = mask.shape
    for i in prange(ni):
        low, high = mask[max(i - 1, 0)], mask[min(i + 1, ni - 1)]
        here = mask[i]
        rows = np.empty((nj, nk), np.float32)
        for j in range(nj):
            for k in range(nk):
                rows[j, k] = low[j, k] + 2 * here[j, k] + high[j, k]
        for j in range(nj):
            before, after = rows[max(j - 1, 0)], rows[min(j + 1, nj - 1)]
            line = before + 2 * rows[j] + after
            for k in range(nk):
                share = line[max(k - 1, 0)] + 2 * line[k] + line[min(k + 1, nk - 1)]
                value = np.float32(0.5) - np.float32(share) / np.float32(64)
                out[i, j, k] = min(value, np.float32(-0.05)) if here[j, k] else max(value, np.float32(0.05))


@helper
def _sweep(values, out):  # type: ignore[no-untyped-def]
    """out (m,k): squared distance along m to the nearest change of sign of values, in 1/256 step^2."""
    far = np.float32(2000.0)
    count, width = values.shape
    since = np.full(width, far, np.float32)
    for m in range(count):
        for k in range(width):
            if m > 0 and (values[m, k] < 0) != (values[m - 1, k] < 0):
                since[k] = np.float32(values[m, k]) / np.float32(values[m, k] - values[m - 1, k])
            else:
                since[k] = min(since[k] + np.float32(1), far)
            out[m, k] = np.int32(256 * since[k] * since[k])
    since[:] = far
    for m in range(count - 2, -1, -1):
        for k in range(width):
            if (values[m, k] < 0) != (values[m + 1, k] < 0):
                since[k] = np.float32(values[m, k]) / np.float32(values[m, k] - values[m + 1, k])
            else:
                since[k] = min(since[k] + np.float32(1), far)
            out[m, k] = min(out[m, k], np.int32(256 * since[k] * since[k]))


@helper
def _nearer(count, width, squared, row):  # type: ignore[no-untyped-def]
    """squared (m,k) = min over n of squared (n,k) + 256 (m-n)^2, in place; row (m,k) is room to work in."""
    for m in range(count):
        for k in range(width):
            row[m, k] = squared[m, k]
    for m in range(count):
        here = squared[m]
        top = np.int32(0)
        for k in range(width):
            top = max(top, here[k])
        s = 1
        while s < count and 256 * s * s < top:
            add = np.int32(256 * s * s)
            if m >= s:
                there = row[m - s]
                for k in range(width):
                    here[k] = min(here[k], there[k] + add)
            if m + s < count:
                there = row[m + s]
                for k in range(width):
                    here[k] = min(here[k], there[k] + add)
            top = np.int32(0)
            for k in range(width):
                top = max(top, here[k])
            s += 1


@helper
def _nearer_along(plane, turned, room):  # type: ignore[no-untyped-def]
    """As _nearer, along the second axis of plane (j,k), in place; turned and room (k,j) are room to work in."""
    nj, nk = plane.shape
    for j in range(nj):
        for k in range(nk):
            turned[k, j] = plane[j, k]
    _nearer(nk, nj, turned, room)
    for j in range(nj):
        for k in range(nk):
            plane[j, k] = turned[k, j]


@parallel_kernel
def in_planes(values, out):  # type: ignore[no-untyped-def]
    """out (i,j,k) int32: squared distance, within planes of one i, to the nearest change of sign along j or k; 1/256
    step^2."""
    ni, nj, nk = values.shape
    for i in prange(ni):
        turned, room = np.empty((nk, nj), np.int32), np.empty((nk, nj), np.int32)
        across = np.empty((nk, nj), values.dtype)
        plane, other = np.empty((nj, nk), np.int32), np.empty((nj, nk), np.int32)
        _sweep(values[i], plane)
        _nearer_along(plane, turned, room)
        for j in range(nj):
            for k in range(nk):
                across[k, j] = values[i, j, k]
        _sweep(across, turned)
        for j in range(nj):
            for k in range(nk):
                out[i, j, k] = turned[k, j]
        _nearer(nj, nk, out[i], other)
        for j in range(nj):
            for k in range(nk):
                out[i, j, k] = min(out[i, j, k], plane[j, k])


@parallel_kernel
def between_planes(values, out):  # type: ignore[no-untyped-def]
    """out (i,j,k) int32: squared distance to the nearest change of sign along i, over all of j and k; 1/256 step^2."""
    ni, nj, nk = values.shape
    for j in prange(nj):
        _sweep(values[:, j], out[:, j])
    for i in prange(ni):
        turned, room = np.empty((nk, nj), np.int32), np.empty((nk, nj), np.int32)
        other = np.empty((nj, nk), np.int32)
        _nearer(nj, nk, out[i], other)
        _nearer_along(out[i], turned, room)


@parallel_kernel
def nearest(values, step, between, inside, out):  # type: ignore[no-untyped-def]
    """out (i,j,k) float32: distance in steps, positive where values < 0, from the squared distances of between_planes and
    of in_planes. Those miss the surface between its crossings, always to the far side; where values / step is a little
    less, it is the distance (step 0: values are no distances)."""
    ni, nj, nk = values.shape
    for j in prange(nj):
        plane = np.empty((ni, nk), np.int32)
        for i in range(ni):
            for k in range(nk):
                plane[i, k] = inside[i, j, k]
        _nearer(ni, nk, plane, np.empty((ni, nk), np.int32))
        for i in range(ni):
            for k in range(nk):
                squared = np.float32(min(plane[i, k], between[i, j, k]))
                away = max(np.float32(np.sqrt(squared)) * np.float32(0.0625), np.float32(0.03))
                if step > 0:
                    told = abs(values[i, j, k]) / step
                    if away - 0.6 < told < away + 0.05:
                        away = max(np.float32(told), np.float32(0.03))
                out[i, j, k] = away if values[i, j, k] < 0 else -away


@helper
def _read(field, side, x, y, z):  # type: ignore[no-untyped-def]
    """side times field read between its samples, clamped at its faces."""
    ni, nj, nk = field.shape
    x, y, z = min(max(x, 0.0), ni - 1.0), min(max(y, 0.0), nj - 1.0), min(max(z, 0.0), nk - 1.0)
    i, j, k = min(int(x), max(ni - 2, 0)), min(int(y), max(nj - 2, 0)), min(int(z), max(nk - 2, 0))
    u, v, w = min(i + 1, ni - 1), min(j + 1, nj - 1), min(k + 1, nk - 1)
    x, y, z = x - i, y - j, z - k
    near = (field[i, j, k] * (1 - z) + field[i, j, w] * z) * (1 - y) + (
        field[i, v, k] * (1 - z) + field[i, v, w] * z
    ) * y
    far = (field[u, j, k] * (1 - z) + field[u, j, w] * z) * (1 - y) + (
        field[u, v, k] * (1 - z) + field[u, v, w] * z
    ) * y
    return side * (near * (1 - x) + far * x)


@helper
def _peak(field, side, i, j, k, way):  # type: ignore[no-untyped-def]
    """Steps from a sample uphill to the ridge of side times field, which falls beyond it as it rose; way (3,) = uphill.

    On the ridge itself uphill is read off one side: two steps away along the axis on which the field changes most.
    """
    here = side * field[i, j, k]
    ni, nj, nk = field.shape
    x, y, z, most = float(i), float(j), float(k), -1.0
    for axis in range(3):
        a, b, c = (axis == 0), (axis == 1), (axis == 2)
        up = side * field[min(i + a, ni - 1), min(j + b, nj - 1), min(k + c, nk - 1)] - here
        down = side * field[max(i - a, 0), max(j - b, 0), max(k - c, 0)] - here
        # on a ridge both sides fall: the side away from it falls by the whole slope
        slope = up if abs(up) > abs(down) else -down
        if abs(slope) > most:
            most = abs(slope)
            back = 2.0 if slope > 0 else -2.0
            x, y, z = i - back * a, j - back * b, k - back * c
    e = 0.75
    way[0] = _read(field, side, x + e, y, z) - _read(field, side, x - e, y, z)
    way[1] = _read(field, side, x, y + e, z) - _read(field, side, x, y - e, z)
    way[2] = _read(field, side, x, y, z + e) - _read(field, side, x, y, z - e)
    steep = max(np.sqrt(way[0] ** 2 + way[1] ** 2 + way[2] ** 2), 1e-6)
    for axis in range(3):
        way[axis] /= steep
    ahead = _read(field, side, i + 2 * way[0], j + 2 * way[1], k + 2 * way[2])
    return 0.5 * (ahead - here + 2)


@parallel_kernel
def ridge(field, side, keep):  # type: ignore[no-untyped-def]
    """keep (i,j,k) bool = samples of {side field > 0} within a step of the ridge; of wide ones one in a block of eight,
    the first of the largest."""
    ni, nj, nk = field.shape
    for block in prange((ni + 1) // 2):
        way = np.empty(3)
        for j0 in range(0, nj, 2):
            for k0 in range(0, nk, 2):
                best, bi, bj, bk = 0.0, 0, 0, 0
                for i in range(2 * block, min(2 * block + 2, ni)):
                    for j in range(j0, min(j0 + 2, nj)):
                        for k in range(k0, min(k0 + 2, nk)):
                            keep[i, j, k] = False
                            r = side * field[i, j, k]
                            if r <= 0:
                                continue
                            top = -r
                            if r > 1.0:
                                a, b = side * field[min(i + 1, ni - 1), j, k], side * field[max(i - 1, 0), j, k]
                                c, d = side * field[i, min(j + 1, nj - 1), k], side * field[i, max(j - 1, 0), k]
                                e, f = side * field[i, j, min(k + 1, nk - 1)], side * field[i, j, max(k - 1, 0)]
                                # away from the ridge the slope is 1
                                if (a - b) * (a - b) + (c - d) * (c - d) + (e - f) * (e - f) > 3.6:
                                    continue
                                top = max(max(max(a, b), max(c, d)), max(e, f))
                            past = _peak(field, side, i, j, k, way)
                            if top > r and past > (0.6 if r < 5.0 else 0.9):
                                continue
                            if r < 5.0:
                                keep[i, j, k] = True
                            elif r + past > best:
                                best, bi, bj, bk = r + past, i, j, k
                if best > 0:
                    keep[bi, bj, bk] = True


@parallel_kernel
def centres(field, side, rows, most, out):  # type: ignore[no-untyped-def]
    """out (n,4) float32: centre (steps) and radius of the largest sphere near samples rows (n,3), at most `most` steps
    away."""
    for n in prange(len(rows)):
        i, j, k = rows[n, 0], rows[n, 1], rows[n, 2]
        way = np.empty(3)
        past = min(max(_peak(field, side, i, j, k, way), 0.0), most)
        for axis in range(3):
            out[n, axis] = rows[n, axis] + past * way[axis]
        out[n, 3] = side * field[i, j, k] + past


@parallel_kernel
def paint(balls, edges, field, side, slack, out):  # type: ignore[no-untyped-def]
    """out (i,j,k) float32: diameter of the largest ball (n,4: centre and radius, steps) that covers a sample of {side
    field > 0}, at least twice its own distance; balls reach slack farther. edges (m+1,) cut the first axis in slabs."""
    for slab in prange(len(edges) - 1):
        first, last = edges[slab], edges[slab + 1]
        for i in range(first, last):
            for j in range(out.shape[1]):
                for k in range(out.shape[2]):
                    out[i, j, k] = max(np.float32(2 * side * field[i, j, k]), np.float32(0))
        for n in range(len(balls)):
            x, y, z, r = balls[n, 0], balls[n, 1], balls[n, 2], balls[n, 3]
            wide = r + slack
            value = np.float32(2 * r)
            for i in range(max(first, int(np.ceil(x - wide))), min(last, int(np.floor(x + wide)) + 1)):
                rest = wide * wide - (i - x) * (i - x)
                half = np.sqrt(max(rest, 0.0))
                for j in range(max(0, int(np.ceil(y - half))), min(out.shape[1], int(np.floor(y + half)) + 1)):
                    reach = np.sqrt(max(rest - (j - y) * (j - y), 0.0))
                    low, high = max(0, int(np.ceil(z - reach))), min(out.shape[2], int(np.floor(z + reach)) + 1)
                    row = out[i, j]
                    for k in range(low, high):
                        row[k] = value if row[k] < value else row[k]
        for i in range(first, last):
            for j in range(out.shape[1]):
                for k in range(out.shape[2]):
                    if side * field[i, j, k] <= 0:
                        out[i, j, k] = 0
