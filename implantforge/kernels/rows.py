"""Fields that are evaluated without Python: a short list of steps on a stack of rows, and meshing passes that run it.

`steps` (m,2) int64 is an operation and where its numbers begin in `numbers`; `samples` holds all sampled arrays one
after the other. Points come in chunks of at most 256, all steps are loops over the chunk. Operations, in the order of
geom/program.py: sphere, plane, box, cone, round_cone, torus, capsule, samples, periodic, add, negative, absolute, scale,
ramp, min, max, smooth_min, smooth_max, sum, keep, load, and the frames moved, cylindrical, spherical, warped; leave.
"""

import numpy as np

from implantforge.kernels.jit import helper, lowest, parallel_kernel, prange


@helper
def _box(p, x, y, z, n, out):  # type: ignore[no-untyped-def]
    for i in range(n):
        a, b, c = abs(x[i] - p[0]) - p[3], abs(y[i] - p[1]) - p[4], abs(z[i] - p[2]) - p[5]
        u, v, w = (a if a > 0 else 0.0), (b if b > 0 else 0.0), (c if c > 0 else 0.0)
        most = a if a > b else b
        most = c if c > most else most
        out[i] = np.sqrt(u * u + v * v + w * w) + (most if most < 0 else 0.0)


@helper
def _about(p, x, y, z, i):  # type: ignore[no-untyped-def]
    """Radius and height of a point about the axis p[3:6] through p[0:3]."""
    a, b, c = x[i] - p[0], y[i] - p[1], z[i] - p[2]
    t = a * p[3] + b * p[4] + c * p[5]
    r = a * a + b * b + c * c - t * t
    return np.sqrt(r if r > 0 else 0.0), t


@helper
def _revolved(op, p, x, y, z, n, out):  # type: ignore[no-untyped-def]
    """cone (3), round_cone (4), torus (5), capsule (6); p = start, axis, then length and radii."""
    length, ra, rb = p[6], p[7], p[8]
    slope = rb - ra
    square = slope * slope + length * length
    for i in range(n):
        r, t = _about(p, x, y, z, i)
        if op == 3:
            cap = max(r - (ra if t < length / 2 else rb), 0.0)
            end = min(abs(t), abs(t - length))
            u = min(max(((r - ra) * slope + t * length) / square, 0.0), 1.0)
            e, f = r - ra - u * slope, t - u * length
            away = np.sqrt(min(cap * cap + end * end, e * e + f * f))
            inside = t > 0 and t < length and (r - ra) * length < t * slope
            out[i] = -away if inside else away
        elif op == 4:
            sine = (ra - rb) / length
            cosine = np.sqrt(1 - sine * sine)
            k = t * cosine - r * sine
            if k < 0:
                out[i] = np.sqrt(r * r + t * t) - ra
            elif k > cosine * length:
                out[i] = np.sqrt(r * r + (t - length) * (t - length)) - rb
            else:
                out[i] = r * cosine + t * sine - ra
        elif op == 5:
            out[i] = np.sqrt((r - ra) * (r - ra) + t * t) - rb
        else:
            t -= min(max(t, 0.0), length)
            out[i] = np.sqrt(r * r + t * t) - ra


@helper
def _eight(v, at, step, line, x, y, z):  # type: ignore[no-untyped-def]
    """Trilinear value between the eight samples from v[at] on; step and line are the strides of the first two axes."""
    one = np.uint64(1)  # unsigned: no test for places counted from the end
    a = np.uint64(at)
    b, c = a + np.uint64(line), a + np.uint64(step)
    d = c + np.uint64(line)
    p, q, r, s = v[a], v[b], v[c], v[d]
    p, q = p + (v[a + one] - p) * z, q + (v[b + one] - q) * z
    r, s = r + (v[c + one] - r) * z, s + (v[d + one] - s) * z
    p, r = p + (q - p) * y, r + (s - r) * y
    return p + (r - p) * x


@helper
def _samples(p, v, x, y, z, n, out):  # type: ignore[no-untyped-def]
    """p = rotation (9), origin (3), spacing (3), shape (3), place; beyond the samples the distance to them is added."""
    ni, nj, nk, place = int(p[15]), int(p[16]), int(p[17]), int(p[18])
    for q in range(n):
        a, b, c = x[q] - p[9], y[q] - p[10], z[q] - p[11]
        u = (a * p[0] + b * p[3] + c * p[6]) / p[12]
        s = (a * p[1] + b * p[4] + c * p[7]) / p[13]
        w = (a * p[2] + b * p[5] + c * p[8]) / p[14]
        cu, cs, cw = min(max(u, 0.0), ni - 1.0), min(max(s, 0.0), nj - 1.0), min(max(w, 0.0), nk - 1.0)
        i, j, k = min(int(cu), ni - 2), min(int(cs), nj - 2), min(int(cw), nk - 2)
        away = ((u - cu) * p[12]) ** 2 + ((s - cs) * p[13]) ** 2 + ((w - cw) * p[14]) ** 2
        a, b, c = np.float32(cu - i), np.float32(cs - j), np.float32(cw - k)
        out[q] = _eight(v, place + (i * nj + j) * nk + k, nj * nk, nk, a, b, c) + np.sqrt(away)


@helper
def _within(x, scale):  # type: ignore[no-untyped-def]
    """Share of the cell passed at x; never 1."""
    u = x * scale
    return min(u - np.floor(u), 0.9999999999)


@helper
def _periodic(p, v, x, y, z, n, out):  # type: ignore[no-untyped-def]
    """p = lengths (3), nodes (3), place: a tile sampled on nodes + 1 points an axis."""
    ni, nj, nk, place = int(p[3]), int(p[4]), int(p[5]), int(p[6])
    line = nk + 1
    step = line * (nj + 1)
    for q in range(n):
        a, b, c = ni * _within(x[q], 1 / p[0]), nj * _within(y[q], 1 / p[1]), nk * _within(z[q], 1 / p[2])
        i, j, k = int(a), int(b), int(c)
        out[q] = _eight(v, place + i * step + j * line + k, step, line,
                        np.float32(a - i), np.float32(b - j), np.float32(c - k))  # fmt: skip


@helper
def _periodic_rows(p, v, x, y, z, n, row, room, out):  # type: ignore[no-untyped-def]
    """As _periodic, for rows of `row` points along z: the tile is interpolated across once, then along."""
    ni, nj, nodes, place = int(p[3]), int(p[4]), int(p[5]), int(p[6])
    side, one, scale = nodes + 1, np.float32(1.0), 1 / p[2]
    low = nodes * _within(z[0], scale)
    first = int(low)
    count = int(low + nodes * scale * (z[row - 1] - z[0])) - first + 2
    pitch = nodes * scale * (z[1] - z[0])
    line, places, parts = room[0], room[1], room[2]
    for q in range(row):
        c = low - first + q * pitch
        places[q] = int(c)
        parts[q] = c - int(c)
    for r in range(0, n, row):
        a, b = ni * _within(x[r], 1 / p[0]), nj * _within(y[r], 1 / p[1])
        i, j = int(a), int(b)
        base = place + (i * (nj + 1) + j) * side
        wa, wb = np.float32(a - i), np.float32(b - j)
        w00, w01, w10, w11 = (one - wa) * (one - wb), (one - wa) * wb, wa * (one - wb), wa * wb
        done, k = 0, first
        while done < count:
            some = min(nodes - k, count - done)
            lo, lu = v[base + k : base + k + some], v[base + side + k : base + side + k + some]
            far = base + side * (nj + 1) + k
            hi, hu, to = v[far : far + some], v[far + side : far + side + some], line[done : done + some]
            for m in range(some):
                to[m] = w00 * lo[m] + w01 * lu[m] + w10 * hi[m] + w11 * hu[m]
            done += some
            k = 0
        to = out[r : r + row]
        for q in range(row):
            m = np.uint64(places[q])
            here = line[m]
            to[q] = here + parts[q] * (line[m + np.uint64(1)] - here)


@helper
def _leaf(op, p, samples, x, y, z, n, row, room, out):  # type: ignore[no-untyped-def]
    if op == 0:
        for i in range(n):
            a, b, c = x[i] - p[0], y[i] - p[1], z[i] - p[2]
            out[i] = np.sqrt(a * a + b * b + c * c) - p[3]
    elif op == 1:
        for i in range(n):
            out[i] = x[i] * p[0] + y[i] * p[1] + z[i] * p[2] - p[3]
    elif op == 2:
        _box(p, x, y, z, n, out)
    elif op < 7:
        _revolved(op, p, x, y, z, n, out)
    elif op == 7:
        _samples(p, samples, x, y, z, n, out)
    elif row and row < n + 1 and (z[row - 1] - z[0]) * p[5] / p[2] < 126 and (z[1] - z[0]) * p[5] / p[2] < 8:
        _periodic_rows(p, samples, x, y, z, n, row, room, out)
    else:
        _periodic(p, samples, x, y, z, n, out)


@helper
def _ramped(p, x):  # type: ignore[no-untyped-def]
    """Value at x of the line through p[0] knots (x, y from p[1] on), level beyond the ends."""
    knots = int(p[0])
    if not x > p[1]:
        return p[2] + (x - x)  # NaN stays NaN
    for k in range(1, knots):
        a, b = p[2 * k - 1], p[2 * k + 1]
        if x < b:
            return p[2 * k] + (p[2 * k + 2] - p[2 * k]) * (x - a) / (b - a)
    return p[2 * knots]


@helper
def _change(op, p, a, n):  # type: ignore[no-untyped-def]
    """a = a + p[0] (9), -a (10), |a| (11), p[0] a (12), or the ramp of a (13)."""
    if op == 13:
        for i in range(n):
            a[i] = _ramped(p, a[i])
        return
    add, turn = (p[0] if op == 9 else 0.0), (-1.0 if op == 10 else (p[0] if op == 12 else 1.0))
    for i in range(n):
        a[i] = abs(a[i]) if op == 11 else turn * a[i] + add


@helper
def _join(op, radius, a, b, n):  # type: ignore[no-untyped-def]
    """a = min (14), max (15), their smooth forms (16, 17), or the sum (18) of a and b."""
    if op == 14:
        for i in range(n):
            a[i] = b[i] if b[i] < a[i] else a[i]
    elif op == 15:
        for i in range(n):
            a[i] = b[i] if b[i] > a[i] else a[i]
    elif op == 18:
        for i in range(n):
            a[i] += b[i]
    else:
        sign = 1.0 if op == 17 else -1.0
        for i in range(n):
            apart = abs(a[i] - b[i])
            blend = radius - apart if radius > apart else 0.0
            a[i] = 0.5 * (a[i] + b[i] + sign * apart) + sign * blend * blend / (4 * radius)


@helper
def _enter(op, p, old, new, n):  # type: ignore[no-untyped-def]
    """Points in a frame: moved (21), cylindrical (22), spherical (23); p = rotation (9), origin (3), reference radius.
    Cylindrical are (radius, arc at the reference radius, height), spherical (radius, arc along, arc up)."""
    for i in range(n):
        a, b, c = old[0, i] - p[9], old[1, i] - p[10], old[2, i] - p[11]
        u = a * p[0] + b * p[3] + c * p[6]
        v = a * p[1] + b * p[4] + c * p[7]
        w = a * p[2] + b * p[5] + c * p[8]
        if op > 21:
            r = np.sqrt(u * u + v * v)
            u, v = r, p[12] * np.arctan2(v, u)
            if op == 23:
                u, w = np.sqrt(r * r + w * w), p[12] * np.arctan2(w, r)
        new[0, i], new[1, i], new[2, i] = u, v, w


@helper
def _reach(op, p, at, radius):  # type: ignore[no-untyped-def]
    """Radius in the frame of a ball about point at (3,1): what the axis makes of it without bound near itself."""
    if op == 21:
        return radius
    a, b, c = at[0, 0] - p[9], at[1, 0] - p[10], at[2, 0] - p[11]
    t = a * p[2] + b * p[5] + c * p[8]
    square = a * a + b * b + c * c - t * t
    away = np.sqrt(square if square > 0 else 0.0) - radius
    if radius == 0.0:
        return 0.0
    return radius * max(1.0, p[12] / away) if away > 1e-9 else np.inf


@helper
def _run(steps, numbers, samples, at, row, n, room, stack):  # type: ignore[no-untyped-def]
    """stack[0, :n] = field at points at[0] (3,n); at[1:] and room are for use; row = points to a row, or 0."""
    top, level = -1, 0
    for s in range(len(steps)):
        op = steps[s, 0]
        p = numbers[steps[s, 1] :]
        if op < 9:
            top += 1
            straight = row if level == 0 else 0
            _leaf(op, p, samples, at[level, 0], at[level, 1], at[level, 2], n, straight, room, stack[top])
        elif op < 14:
            _change(op, p, stack[top], n)
        elif op < 19:
            top -= 1
            _join(op, p[0], stack[top], stack[top + 1], n)
        elif op == 19:
            stack[int(p[0]), :n] = stack[top, :n]
        elif op == 20:
            top += 1
            stack[top, :n] = stack[int(p[0]), :n]
        elif op < 24:
            _enter(op, p, at[level], at[level + 1], n)
            level += 1
        elif op == 24:
            top -= 3
            level += 1
            at[level, :, :n] = stack[top + 1 : top + 4, :n]
        else:
            level -= 1


@helper
def _range(op, p, a, b):  # type: ignore[no-untyped-def]
    """Applies a step that is no leaf to ranges a (2,) and, for a join, b (2,)."""
    if op == 10:
        a[0], a[1] = -a[1], -a[0]
    elif op == 11:
        a[0], a[1] = max(a[0], -a[1], 0.0), max(-a[0], a[1])
    elif op == 12:
        u, v = p[0] * a[0], p[0] * a[1]
        a[0], a[1] = (u, v) if p[0] >= 0 else (v, u)
    elif op == 13:
        u, v = _ramped(p, a[0]), _ramped(p, a[1])
        low, high = min(u, v), max(u, v)
        for k in range(int(p[0])):
            if a[0] < p[2 * k + 1] < a[1]:
                low, high = min(low, p[2 * k + 2]), max(high, p[2 * k + 2])
        a[0], a[1] = low, high
    elif op < 14:
        _change(op, p, a, 2)
    else:
        _join(op, p[0], a, b, 2)


@helper
def _drop(kept, a, b, count, more):  # type: ignore[no-untyped-def]
    """Takes steps a..b and the last `more` out of kept, unless something they keep is loaded later; the new count."""
    for s in range(a, b):
        if kept[s, 0] == 19:
            return count
    for s in range(b, count):
        kept[a + s - b] = kept[s]
    return count - (b - a) - more


@helper
def _pruned(steps, numbers, samples, depth, x, y, z, radius, kept):  # type: ignore[no-untyped-def]
    """kept (m,2) = the steps that matter within radius mm of a point, their count, and bounds of the field there. Before a
    leaf's numbers stand its steepest slope and its largest size."""
    stack, at, room = np.empty((depth[0], 2)), np.empty((depth[1], 3, 1)), np.empty((3, 1), np.float32)
    value, begin, count = np.empty(1), np.zeros(depth[0] + 1, np.int64), 0
    reach, entered = np.empty(depth[1]), np.zeros(depth[1], np.int64)
    at[0, 0, 0], at[0, 1, 0], at[0, 2, 0] = x, y, z
    reach[0] = radius
    top, level = -1, 0
    for s in range(len(steps)):
        op, first = steps[s, 0], steps[s, 1]
        p = numbers[first:]
        kept[count, 0], kept[count, 1] = op, first
        count += 1
        if op < 9:
            top += 1
            begin[top] = count - 1
            _leaf(op, p, samples, at[level, 0], at[level, 1], at[level, 2], 1, 0, room, value)
            slope, size = numbers[first - 2] * reach[level], numbers[first - 1]
            stack[top, 0] = max(value[0] - slope, -size) if value[0] == value[0] else value[0]
            stack[top, 1] = min(value[0] + slope, size)
        elif op < 14:
            _range(op, p, stack[top], stack[top])
        elif op < 19:
            top -= 1
            a, b = stack[top], stack[top + 1]
            blend = p[0] if op > 15 else 0.0  # smooth joins differ from plain ones within it
            first_wins = a[1] + blend < b[0] if op & 1 == 0 else a[0] > b[1] + blend
            second_wins = b[1] + blend < a[0] if op & 1 == 0 else b[0] > a[1] + blend
            if first_wins and op < 18:
                count = _drop(kept, begin[top + 1], count, count, 0)
            elif second_wins and op < 18:
                count = _drop(kept, begin[top], begin[top + 1], count, 1)
            _range(op, p, a, b)
        elif op == 19:
            stack[int(p[0])] = stack[top]
        elif op == 20:
            top += 1
            begin[top] = count - 1
            stack[top] = stack[int(p[0])]
        elif op < 24:
            entered[level + 1] = count - 1
            reach[level + 1] = _reach(op, p, at[level], reach[level])
            _enter(op, p, at[level], at[level + 1], 1)
            level += 1
        elif op == 24:
            top -= 3
            level += 1
            entered[level], square = begin[top + 1], 0.0
            for c in range(3):
                low, high = stack[top + 1 + c, 0], stack[top + 1 + c, 1]
                at[level, c, 0] = 0.5 * (low + high)
                square += 0.25 * (high - low) * (high - low)
            reach[level] = np.sqrt(square)
        else:
            begin[top] = entered[level]
            level -= 1
    return count, stack[0, 0], stack[0, 1]


@parallel_kernel
def ranges(steps, numbers, samples, depth, points, radius, out):  # type: ignore[no-untyped-def]
    """out (n,2) = bounds of the field in balls of radius mm about points (n,3)."""
    for c in prange((len(points) + 255) // 256):
        kept = np.empty_like(steps)
        for n in range(np.int64(c) * 256, min(np.int64(c) * 256 + 256, len(points))):
            x, y, z = points[n, 0], points[n, 1], points[n, 2]
            _, low, high = _pruned(steps, numbers, samples, depth, x, y, z, radius, kept)
            out[n, 0], out[n, 1] = low, high


@helper
def _brick(block, i, j, origin, h, at):  # type: ignore[no-untyped-def]
    """Points of planes i and i + 1, rows j to j + 7 of a block."""
    n = 0
    for u in range(2):
        for v in range(8):
            for k in range(16):
                at[0, n] = origin[0] + h * (block[0] * 16 + i + u)
                at[1, n] = origin[1] + h * (block[1] * 16 + j + v)
                at[2, n] = origin[2] + h * (block[2] * 16 + k)
                n += 1


@parallel_kernel
def near(steps, numbers, samples, depth, blocks, origin, h, out):  # type: ignore[no-untyped-def]
    """out (n,16,16,16) int8 = field at the samples of each block in h / 80, at most 127 and never 0."""
    for b in prange(len(blocks)):
        stack, at, room = np.empty((depth[0], 256)), np.empty((depth[1], 3, 256)), np.empty((3, 130), np.float32)
        kept, radius = np.empty_like(steps), 9.1 * h
        for q in range(4):
            i, j = 8 * (q >> 1), 8 * (q & 1)
            x = origin[0] + h * (blocks[b, 0] * 16 + i + 3.5)
            y = origin[1] + h * (blocks[b, 1] * 16 + j + 3.5)
            z = origin[2] + h * (blocks[b, 2] * 16 + 7.5)
            count, low, high = _pruned(steps, numbers, samples, depth, x, y, z, radius, kept)
            if low > 1.6 * h or high < -1.6 * h:
                out[b, i : i + 8, j : j + 8] = 127 if low > 0 else -127
                continue
            for u in range(i, i + 8, 2):
                _brick(blocks[b], u, j, origin, h, at[0])
                _run(kept[:count], numbers, samples, at, 16, 256, room, stack)
                f = stack[0]
                for v in range(16):
                    to = out[b, u + (v >> 3), j + (v & 7)]
                    for k in range(16):
                        value = f[16 * v + k]
                        size = min(max(abs(value) * 80 / h, 1.0), 127.0)
                        to[k] = np.int8(-size if value < 0 else size)


@helper
def _first_look(f, edge, n, rows):  # type: ignore[no-untyped-def]
    """Newton step along each edge with the slope of the parabola through both ends and the look; rows of edges where
    these do not agree well enough, and how many."""
    t, low, high, step, doubt = edge[3], edge[5], edge[7], edge[4], edge[6]
    for i in range(n):
        before, after = (f[i] - low[i]) / t[i], (high[i] - f[i]) / (1 - t[i])
        slope = before + (after - before) * t[i]
        step[i] = -f[i] / slope
        doubt[i] = abs(after - before) - 0.35 * abs(slope)
    left = 0
    for i in range(n):
        good = doubt[i] <= 0 and abs(step[i]) <= 0.15 and 0 < t[i] + step[i] < 1
        if good or f[i] == 0.0:
            t[i] += step[i] if good else 0.0
        else:
            rows[left] = i
            left += 1
            # the bracket after this look
            inner = (f[i] < 0) == (low[i] < 0)
            edge[4, i], edge[6, i] = (t[i], 1.0) if inner else (0.0, t[i])
            edge[5, i], edge[7, i] = (f[i], high[i]) if inner else (low[i], f[i])
            t[i] = _straight(edge, i)
    return left


@helper
def _straight(edge, i):  # type: ignore[no-untyped-def]
    """Zero of the chord over the bracket."""
    return edge[4, i] + (edge[6, i] - edge[4, i]) * edge[5, i] / (edge[5, i] - edge[7, i])


@helper
def _next_look(f, edge, i, halve, tolerance):  # type: ignore[no-untyped-def]
    """Shrinks the bracket by a look and moves t inside it; whether that is good enough."""
    t = edge[3, i]
    if f == 0.0 or not (edge[4, i] < t < edge[6, i]):
        return True
    if (f < 0) == (edge[5, i] < 0):
        edge[4, i], edge[5, i] = t, f
    else:
        edge[6, i], edge[7, i] = t, f
    guess = _straight(edge, i)
    if abs(f) <= tolerance:
        edge[3, i] = guess if abs(guess - t) <= 0.05 else t  # grazing edge: nothing would check a leap
        return True
    edge[3, i] = 0.5 * (edge[4, i] + edge[6, i]) if halve else guess
    return False


@helper
def _solve(steps, numbers, samples, h, edge, axis, n, at, room, stack):  # type: ignore[no-untyped-def]
    """Moves t = edge[3,:n] to the zero along each edge; edge rows: low end x y z, t, bracket lo, f, hi, f."""
    rows = np.arange(n)
    left, look = n, 0
    while left and look < 8:
        for m in range(left):
            i = rows[m]
            at[0, 0, m], at[0, 1, m], at[0, 2, m] = edge[0, i], edge[1, i], edge[2, i]
            at[0, axis[i], m] += h * edge[3, i]
        _run(steps, numbers, samples, at, 0, left, room, stack)
        kept = _first_look(stack[0], edge, n, rows) if look == 0 else 0
        for m in range(left if look else 0):
            i = rows[m]
            rows[kept] = i
            kept += not _next_look(stack[0, m], edge, i, look > 1 and look % 2 == 0, 5e-3 * h)
        left = kept
        look += 1


@helper
def _write(edge, axis, n, h, margin, first, out):  # type: ignore[no-untyped-def]
    for i in range(n):
        for a in range(3):
            out[first + i, a] = edge[a, i]
        out[first + i, axis[i]] = edge[axis[i], i] + h * min(max(edge[3, i], margin), 1.0 - margin)


@helper
def _far_values(values, blocks, lookup, b, a, out):  # type: ignore[no-untyped-def]
    """out (16,16) = first plane across axis a of the block above b; where none is active no edge crosses."""
    other = lookup[blocks[b, 0] + (a == 0), blocks[b, 1] + (a == 1), blocks[b, 2] + (a == 2)]
    for i in range(16):
        for j in range(16):
            if other < 0:
                out[i, j] = 127 if other == -1 else -127
            else:
                u, v, w = (0, i, j) if a == 0 else ((i, 0, j) if a == 1 else (i, j, 0))
                out[i, j] = values[other, u, v, w]


@parallel_kernel
def vertices(steps, numbers, samples, depth, blocks, lookup, values, words, offsets, place, out):  # type: ignore[no-untyped-def]
    """Vertices (m,3) mm of all blocks, in the order of flying.edges: linear guess from values as near() gives them, then
    looks at the field. place = (origin (3,), h, margin)."""
    origin, h, margin = place
    for b in prange(len(blocks)):
        stack, at, room = np.empty((depth[0], 256)), np.empty((depth[1], 3, 256)), np.empty((3, 1), np.float32)
        far, edge, axis = np.empty((3, 16, 16), np.int8), np.empty((8, 256)), np.empty(256, np.int64)
        low, kept = np.empty(3), np.empty_like(steps)
        for a in range(3):
            low[a] = origin[a] + h * (blocks[b, a] * 16)
            _far_values(values, blocks, lookup, b, a, far[a])
        x, y, z = low[0] + 8 * h, low[1] + 8 * h, low[2] + 8 * h
        count = _pruned(steps, numbers, samples, depth, x, y, z, 13.9 * h, kept)[0]
        n, first = 0, offsets[b]
        for i in range(16):
            for j in range(16):
                for a in range(3):
                    left = np.uint32(words[b, i, j, a])
                    row = values[b, i, j]
                    ahead = row
                    if a == 0:
                        ahead = values[b, i + 1, j] if i < 15 else far[0, j]
                    elif a == 1:
                        ahead = values[b, i, j + 1] if j < 15 else far[1, i]
                    while left:
                        k = lowest(left)
                        left &= left - np.uint32(1)
                        edge[0, n], edge[1, n], edge[2, n] = low[0] + h * i, low[1] + h * j, low[2] + h * k
                        f, g = np.float64(row[k]), np.float64(ahead[k])
                        if a == 2:
                            g = np.float64(row[k + 1] if k < 15 else far[2, i, j])
                        edge[3, n] = f / (f - g)
                        edge[5, n], edge[7, n] = f * h / 80, g * h / 80
                        axis[n] = a
                        n += 1
                        if n == 256:
                            _solve(kept[:count], numbers, samples, h, edge, axis, n, at, room, stack)
                            _write(edge, axis, n, h, margin, first, out)
                            first += n
                            n = 0
        _solve(kept[:count], numbers, samples, h, edge, axis, n, at, room, stack)
        _write(edge, axis, n, h, margin, first, out)
