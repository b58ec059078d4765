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
    far, one, scale = np.float32(2000.0), np.float32(1), np.float32(256)
    count, width = values.shape
    since = np.full(width, far, np.float32)
    for k in range(width):
        out[0, k] = np.int32(scale * far * far)
    for m in range(1, count):
        here, last, told = values[m], values[m - 1], out[m]
        for k in range(width):
            part = np.float32(here[k]) / np.float32(here[k] - last[k])
            went = min(since[k] + one, far)
            since[k] = part if (here[k] < 0) != (last[k] < 0) else went
            told[k] = np.int32(scale * since[k] * since[k])
    since[:] = far
    for back in range(1, count):
        m = count - 1 - back
        here, last, told = values[m], values[m + 1], out[m]
        for k in range(width):
            part = np.float32(here[k]) / np.float32(here[k] - last[k])
            went = min(since[k] + one, far)
            since[k] = part if (here[k] < 0) != (last[k] < 0) else went
            told[k] = min(told[k], np.int32(scale * since[k] * since[k]))


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
def _nearer_along(plane, room):  # type: ignore[no-untyped-def]
    """As _nearer, along the second axis of plane (j,k), in place; room (k,) is room to work in."""
    nj, nk = plane.shape
    for j in range(nj):
        here = plane[j]
        top = np.int32(0)
        for k in range(nk):
            room[k] = here[k]
            top = max(top, here[k])
        s = 1
        while s < nk and 256 * s * s < top:
            add = np.int32(256 * s * s)
            right, left, before, after = here[s:], here[: nk - s], room[: nk - s], room[s:]
            for k in range(nk - s):
                right[k] = min(right[k], before[k] + add)
            for k in range(nk - s):
                left[k] = min(left[k], after[k] + add)
            top = np.int32(0)
            for k in range(nk):
                top = max(top, here[k])
            s += 1


@helper
def _sweep_along(values, near, out):  # type: ignore[no-untyped-def]
    """As _sweep, along the second axis of values (j,k); near (k,) int32 is room to work in, 1/1024 step."""
    far, one, scale = np.int32(2048000), np.int32(1024), np.float32(1 / 1024)
    nj, nk = values.shape
    for j in range(nj):
        row, told = values[j], out[j]
        here, beyond, left, right = row[: nk - 1], row[1:], near[: nk - 1], near[1:]
        near[:] = far
        for k in range(nk - 1):
            part = np.int32(np.float32(1024) * np.float32(here[k]) / np.float32(here[k] - beyond[k]))
            left[k] = part if (here[k] < 0) != (beyond[k] < 0) else far
        for m in range(nk - 1):
            k = nk - 2 - m
            # the way to the change of sign behind is the rest of the way in front of the sample before
            right[k] = min(right[k], max(one - left[k], np.int32(0))) if left[k] < far else right[k]
        since = far
        for k in range(nk):
            since = min(since + one, near[k])
            near[k] = since
        since = far
        for m in range(nk):
            k = nk - 1 - m
            since = min(since + one, near[k])
            near[k] = since
        for k in range(nk):
            away = min(np.float32(near[k]), np.float32(2048000)) * scale
            told[k] = np.int32(np.float32(256) * away * away)


@helper
def _capped(values, side, squared):  # type: ignore[no-untyped-def]
    """squared (m,k) at most two steps where values lie on the side that is not asked for (1 asks for values < 0, -1 for
    the others, 0 for both): a way through there ends at a nearer change of sign."""
    if side != 0:
        for m in range(values.shape[0]):
            for k in range(values.shape[1]):
                if (values[m, k] < 0) != (side > 0):
                    squared[m, k] = min(squared[m, k], np.int32(1024))


@parallel_kernel
def in_planes(values, side, out):  # type: ignore[no-untyped-def]
    """out (i,j,k) int32: squared distance, within planes of one i, to the nearest change of sign along j or k; 1/256
    step^2. Beyond two steps only on the side asked for: 1 where values < 0, -1 elsewhere, 0 both."""
    ni, nj, nk = values.shape
    for i in prange(ni):
        plane, other, room = np.empty((nj, nk), np.int32), np.empty((nj, nk), np.int32), np.empty(nk, np.int32)
        _sweep(values[i], plane)
        _capped(values[i], side, plane)
        _nearer_along(plane, room)
        _sweep_along(values[i], room, out[i])
        _capped(values[i], side, out[i])
        _nearer(nj, nk, out[i], other)
        for j in range(nj):
            for k in range(nk):
                out[i, j, k] = min(out[i, j, k], plane[j, k])


@parallel_kernel
def between_planes(values, side, out):  # type: ignore[no-untyped-def]
    """out (i,j,k) int32: squared distance to the nearest change of sign along i, over all of j and k; 1/256 step^2; side
    as in in_planes."""
    ni, nj, nk = values.shape
    for j in prange(nj):
        _sweep(values[:, j], out[:, j])
        _capped(values[:, j], side, out[:, j])
    for i in prange(ni):
        other, room = np.empty((nj, nk), np.int32), np.empty(nk, np.int32)
        _nearer(nj, nk, out[i], other)
        _nearer_along(out[i], room)


@parallel_kernel
def nearest(values, step, between, inside, out):  # type: ignore[no-untyped-def]
    """out (i,j,k) float32: distance in steps, positive where values < 0, from the squared distances of between_planes and
    of in_planes. Those miss the surface between its crossings, always to the far side; where values / step is a little
    less, it is the distance (step 0: values are no distances)."""
    ni, nj, nk = values.shape
    for j in prange(nj):
        plane, room = np.empty((ni, nk), np.int32), np.empty((ni, nk), np.int32)
        for i in range(ni):
            for k in range(nk):
                plane[i, k] = inside[i, j, k]
        _nearer(ni, nk, plane, room)
        for i in range(ni):
            for k in range(nk):
                squared = np.float32(min(plane[i, k], between[i, j, k]))
                away = max(np.float32(np.sqrt(squared)) * np.float32(0.0625), np.float32(0.03))
                if step > 0:
                    told = abs(values[i, j, k]) / np.float32(step)
                    if away - np.float32(0.6) < told < away + np.float32(0.05):
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
    """Steps from a sample uphill to the ridge of side times field, which falls beyond it as it rose; way (4,) = uphill and
    twice the slope there.

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
    u, v, w = min(max(int(x), 0), ni - 1), min(max(int(y), 0), nj - 1), min(max(int(z), 0), nk - 1)
    way[0] = side * (field[min(u + 1, ni - 1), v, w] - field[max(u - 1, 0), v, w])
    way[1] = side * (field[u, min(v + 1, nj - 1), w] - field[u, max(v - 1, 0), w])
    way[2] = side * (field[u, v, min(w + 1, nk - 1)] - field[u, v, max(w - 1, 0)])
    way[3] = max(np.sqrt(way[0] ** 2 + way[1] ** 2 + way[2] ** 2), 1e-6)
    for axis in range(3):
        way[axis] /= way[3]
    ahead = _read(field, side, i + 2 * way[0], j + 2 * way[1], k + 2 * way[2])
    return 0.5 * (ahead - here + 2)


@helper
def _candidates(field, side, i, j, score):  # type: ignore[no-untyped-def]
    """score (k,) = 1 for samples of row i, j of {side field > 0} where the field does not rise as beside a wall, else 0."""
    ni, nj, nk = field.shape
    here, half = field[i, j], np.float32(3.6)
    a, b = field[min(i + 1, ni - 1), j], field[max(i - 1, 0), j]
    c, d = field[i, min(j + 1, nj - 1)], field[i, max(j - 1, 0)]
    side = np.float32(side)
    for k in range(1, nk - 1):
        x, y, z = a[k] - b[k], c[k] - d[k], here[k + 1] - here[k - 1]
        flat = x * x + y * y + z * z <= half
        score[k] = np.float32(1) if flat and side * here[k] > 0 else np.float32(0)
    for k in (0, nk - 1):
        x, y, z = a[k] - b[k], c[k] - d[k], here[min(k + 1, nk - 1)] - here[max(k - 1, 0)]
        flat = x * x + y * y + z * z <= half
        score[k] = np.float32(1) if flat and side * here[k] > 0 else np.float32(0)


@helper
def _scored(field, side, i, j, k, way):  # type: ignore[no-untyped-def]
    """Radius of the ball near a sample within a step of the ridge, else 0."""
    ni, nj, nk = field.shape
    r = side * field[i, j, k]
    a, b = side * field[min(i + 1, ni - 1), j, k], side * field[max(i - 1, 0), j, k]
    c, d = side * field[i, min(j + 1, nj - 1), k], side * field[i, max(j - 1, 0), k]
    e, f = side * field[i, j, min(k + 1, nk - 1)], side * field[i, j, max(k - 1, 0)]
    top = max(max(max(a, b), max(c, d)), max(e, f))
    past = _peak(field, side, i, j, k, way)
    if top > r and past > (0.6 if r < 5.0 else 0.9):
        return 0.0
    return r + max(past, 0.0)


@helper
def _deepest(score, i, j, k, size):  # type: ignore[no-untyped-def]
    """Whether score[i,j,k] is the first of the largest in its block of size^3."""
    ni, nj, nk = score.shape
    here = score[i, j, k]
    i0, j0, k0 = i - i % size, j - j % size, k - k % size
    for u in range(i0, min(i0 + size, ni)):
        for v in range(j0, min(j0 + size, nj)):
            for w in range(k0, min(k0 + size, nk)):
                there = score[u, v, w]
                if there > here:
                    return False
                if there == here:
                    return u == i and v == j and w == k
    return True


@parallel_kernel
def ridge(field, side, wide, count, keep):  # type: ignore[no-untyped-def]
    """keep (i,j,k) bool = samples of {side field > 0} within a step of the ridge: all of those less than `wide` deep, the
    deepest in each block of 2^3 up to four times that, in each of 4^3 beyond; the first of several. count (i,) = how
    many."""
    ni, nj, nk = field.shape
    for block in prange((ni + 3) // 4):
        way = np.empty(4)
        low, high = 4 * block, min(4 * block + 4, ni)
        score = np.zeros((high - low, nj, nk), np.float32)
        for i in range(low, high):
            for j in range(nj):
                row = score[i - low, j]
                _candidates(field, side, i, j, row)
                for k in range(nk):
                    if row[k] > 0:
                        row[k] = _scored(field, side, i, j, k, way)
        for i in range(low, high):
            total = 0
            for j in range(nj):
                row = score[i - low, j]
                for k in range(nk):
                    kept = row[k] > 0
                    if row[k] >= wide:
                        kept = _deepest(score, i - low, j, k, 2 if row[k] < 4 * wide else 4)
                    keep[i, j, k] = kept
                    total += kept
            count[i] = total


@helper
def _top(field, side, i, j, k, most, way):  # type: ignore[no-untyped-def]
    """Steps uphill from a sample to the ridge, at most `most`, and the height there; way (4,) as in _peak.

    Where two surfaces face each other both sides of the ridge are as steep as distances can be; where more of them do, in
    the middle of a pore, neither is. Slopes read between samples are a little too flat, hence the factors.
    """
    here = side * field[i, j, k]
    past = min(max(_peak(field, side, i, j, k, way), 0.0), most)
    if past <= 0:
        return past, here
    a = _read(field, side, i + 2 * way[0], j + 2 * way[1], k + 2 * way[2])
    b = _read(field, side, i + 3 * way[0], j + 3 * way[1], k + 3 * way[2])
    down, up = min(max(1.1 * (a - b), 0.3), 1.0), min(max(0.53 * way[3], 0.3), 1.0)
    past = min(max((a - here + 2 * down) / (up + down), 0.0), most)
    return past, here + up * past


@parallel_kernel
def centres(field, side, keep, offsets, most, out):  # type: ignore[no-untyped-def]
    """out (n,4) float32: centre (steps) and radius of the largest sphere near samples keep (i,j,k), at most `most` steps
    away, in the order of the samples; offsets (i+1,) = where each plane begins."""
    ni, nj, nk = field.shape
    for i in prange(ni):
        way, n = np.empty(4), offsets[i]
        for j in range(nj):
            for k in range(nk):
                if keep[i, j, k]:
                    past, height = _top(field, side, i, j, k, most, way)
                    out[n, 0], out[n, 1], out[n, 2] = i + past * way[0], j + past * way[1], k + past * way[2]
                    out[n, 3] = height
                    n += 1


@helper
def _raise(row, low, high, value):  # type: ignore[no-untyped-def]
    """row[low:high] = the larger of itself and value. In words of eight, the last of which may overlap the one before."""
    if high - low >= 8:
        word = low
        while word < high:
            at = np.uint64(min(word, high - 8))
            for m in range(8):
                k = at + np.uint64(m)
                row[k] = value if row[k] < value else row[k]
            word += 8
    else:
        for k in range(low, high):
            row[k] = value if row[k] < value else row[k]


@parallel_kernel
def paint(balls, offsets, edges, field, side, slack, out):  # type: ignore[no-untyped-def]
    """out (i,j,k) float32: diameter of the largest ball (n,4: centre and radius, steps) that covers a sample of {side
    field > 0}, at least twice its own distance; balls reach slack farther. Balls lie within a step of their plane, and
    offsets (i+1,) say where a plane's begin; edges (m+1,) cut the first axis in slabs."""
    ni, nj, nk = out.shape
    largest = np.float32(0)
    for n in range(len(balls)):
        largest = max(largest, balls[n, 3])
    reach_most = int(np.ceil(largest + slack)) + 1
    for slab in prange(len(edges) - 1):
        first, last = edges[slab], edges[slab + 1]
        for i in range(first, last):
            for j in range(nj):
                for k in range(nk):
                    out[i, j, k] = max(np.float32(2 * side * field[i, j, k]), np.float32(0))
        for n in range(offsets[max(first - reach_most, 0)], offsets[min(last + reach_most, ni)]):
            x, y, z, r = balls[n, 0], balls[n, 1], balls[n, 2], balls[n, 3]
            wide = r + np.float32(slack)
            value = np.float32(2) * r
            for i in range(max(first, int(np.ceil(x - wide))), min(last, int(np.floor(x + wide)) + 1)):
                rest = wide * wide - (i - x) * (i - x)
                half = np.sqrt(max(rest, 0.0))
                for j in range(max(0, int(np.ceil(y - half))), min(nj, int(np.floor(y + half)) + 1)):
                    reach = np.sqrt(max(rest - (j - y) * (j - y), 0.0))
                    low, high = max(0, int(np.ceil(z - reach))), min(nk, int(np.floor(z + reach)) + 1)
                    _raise(out[i, j], low, high, value)
        for i in range(first, last):
            for j in range(nj):
                for k in range(nk):
                    if side * field[i, j, k] <= 0:
                        out[i, j, k] = 0
