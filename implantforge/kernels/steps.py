"""Fields that are evaluated without Python: a short list of steps on a few rows of values.

`steps` (m,7) int64 is an operation, where its numbers begin in `numbers`, the row it writes, up to two rows it reads, the
frame of coordinates a shape is read in, and where its samples begin; `samples` holds all sampled arrays one after the
other. Everything is float32 about a centre near by. Points come in chunks, all steps are loops over the chunk, and a
chunk runs only the steps that can matter there. Operations, in the order of geom/program.py: sphere, plane, box, cone,
round_cone, torus, capsule, samples, periodic, waves, add, negative, absolute, scale, ramp, min, max, smooth_min,
smooth_max, sum, length, over, moved, cylindrical, spherical, warped, copy.

Kernels call the two doors at the end by address (jit.call), so that this code is compiled once and not into each of them.
"""

import numpy as np

from implantforge.kernels.jit import at_address, door, helper


@helper
def _solid(op, p, x, y, z, n, out):  # type: ignore[no-untyped-def]
    """sphere (0), plane (1) or box (2)."""
    zero = np.float32(0)
    p0, p1, p2, p3 = p[0], p[1], p[2], p[3]
    if op == 0:
        for i in range(n):
            a, b, c = x[i] - p0, y[i] - p1, z[i] - p2
            out[i] = np.sqrt(a * a + b * b + c * c) - p3
    elif op == 1:
        for i in range(n):
            out[i] = x[i] * p0 + y[i] * p1 + z[i] * p2 - p3
    else:
        p4, p5 = p[4], p[5]
        for i in range(n):
            a, b, c = abs(x[i] - p0) - p3, abs(y[i] - p1) - p4, abs(z[i] - p2) - p5
            u, v, w = max(a, zero), max(b, zero), max(c, zero)
            out[i] = np.sqrt(u * u + v * v + w * w) + min(max(a, b, c), zero)


@helper
def _revolved(op, p, x, y, z, n, out):  # type: ignore[no-untyped-def]
    """cone (3), round_cone (4), torus (5), capsule (6); p = start, axis, then length and radii."""
    length, ra, rb, zero, one = p[6], p[7], p[8], np.float32(0), np.float32(1)
    slope = rb - ra
    square, sine = slope * slope + length * length, -slope / length
    cosine = np.sqrt(max(one - sine * sine, zero))
    for i in range(n):
        a, b, c = x[i] - p[0], y[i] - p[1], z[i] - p[2]
        t = a * p[3] + b * p[4] + c * p[5]
        r = np.sqrt(max(a * a + b * b + c * c - t * t, zero))
        if op == 3:
            cap = max(r - (ra if t + t < length else rb), zero)
            end = min(abs(t), abs(t - length))
            u = min(max(((r - ra) * slope + t * length) / square, zero), one)
            e, f = r - ra - u * slope, t - u * length
            away = np.sqrt(min(cap * cap + end * end, e * e + f * f))
            out[i] = -away if t > zero and t < length and (r - ra) * length < t * slope else away
        elif op == 4:
            k = t * cosine - r * sine
            if k < zero:
                out[i] = np.sqrt(r * r + t * t) - ra
            elif k > cosine * length:
                out[i] = np.sqrt(r * r + (t - length) * (t - length)) - rb
            else:
                out[i] = r * cosine + t * sine - ra
        elif op == 5:
            out[i] = np.sqrt((r - ra) * (r - ra) + t * t) - rb
        else:
            t -= min(max(t, zero), length)
            out[i] = np.sqrt(r * r + t * t) - ra


@helper
def _eight(v, a, step, line, x, y, z):  # type: ignore[no-untyped-def]
    """Trilinear value between the eight samples from v[a] on; step and line are the strides of the first two axes, all
    unsigned: no test for places counted from the end."""
    one = np.uint64(1)
    b, c = a + line, a + step
    d = c + line
    p, q, r, s = v[a], v[b], v[c], v[d]
    p, q = p + (v[a + one] - p) * z, q + (v[b + one] - q) * z
    r, s = r + (v[c + one] - r) * z, s + (v[d + one] - s) * z
    p, r = p + (q - p) * y, r + (s - r) * y
    return p + (r - p) * x


@helper
def _samples(p, place, v, x, y, z, n, out):  # type: ignore[no-untyped-def]
    """p = rotation (9), origin (3), spacing (3), shape (3); beyond the samples the distance to them is added."""
    zero, one, two = np.float32(0), np.float32(1), np.float32(2)
    su, ss, sw = one / p[12], one / p[13], one / p[14]
    nu, ns, nw = p[15] - one, p[16] - one, p[17] - one
    line, start = np.uint64(p[17]), np.uint64(place)
    step = np.uint64(p[16]) * line
    for q in range(n):
        a, b, c = x[q] - p[9], y[q] - p[10], z[q] - p[11]
        u = (a * p[0] + b * p[3] + c * p[6]) * su
        s = (a * p[1] + b * p[4] + c * p[7]) * ss
        w = (a * p[2] + b * p[5] + c * p[8]) * sw
        cu, cs, cw = min(max(u, zero), nu), min(max(s, zero), ns), min(max(w, zero), nw)
        e, f, g = (u - cu) * p[12], (s - cs) * p[13], (w - cw) * p[14]
        away = e * e + f * f + g * g
        i, j, k = min(np.floor(cu), p[15] - two), min(np.floor(cs), p[16] - two), min(np.floor(cw), p[17] - two)
        at = start + np.uint64(i) * step + np.uint64(j) * line + np.uint64(k)
        out[q] = _eight(v, at, step, line, cu - i, cs - j, cw - k) + np.sqrt(away)


@helper
def _share(x, scale, shift, nodes):  # type: ignore[no-untyped-def]
    """How far into its tile x lies, in nodes; never at its end."""
    u = x * scale + shift
    return nodes * min(u - np.floor(u), np.float32(0.9999999))


@helper
def _periodic(p, place, v, x, y, z, n, out):  # type: ignore[no-untyped-def]
    """p = lengths (3), nodes (3), shift (3) in tiles: a tile sampled on nodes + 1 points an axis."""
    one = np.float32(1)
    ni, nj, nk, sx, sy, sz = p[3], p[4], p[5], one / p[0], one / p[1], one / p[2]
    px, py, pz = p[6], p[7], p[8]
    line, start = np.uint32(nk) + np.uint32(1), np.uint64(place)
    step = line * (np.uint32(nj) + np.uint32(1))
    far, beside = np.uint64(step), np.uint64(line)
    for q in range(n):
        a, b, c = _share(x[q], sx, px, ni), _share(y[q], sy, py, nj), _share(z[q], sz, pz, nk)
        i, j, k = np.int32(a), np.int32(b), np.int32(c)
        at = np.uint32(i) * step + np.uint32(j) * line + np.uint32(k)
        out[q] = _eight(v, start + np.uint64(at), far, beside, a - np.float32(i), b - np.float32(j), c - np.float32(k))


@helper
def _periodic_rows(p, place, v, x, y, z, n, row, room, out):  # type: ignore[no-untyped-def]
    """As _periodic, for rows of `row` points along z: the tile is interpolated across once, then along."""
    ni, nj, nodes, side, one = p[3], p[4], int(p[5]), int(p[5]) + 1, np.float32(1)
    low, pitch = _share(z[0], one / p[2], p[8], p[5]), (z[1] - z[0]) * p[5] / p[2]
    first = int(low)
    count = int(low + pitch * np.float32(row - 1)) - first + 3
    line, places, parts = room[0], room[1], room[2]
    for q in range(row):
        c = low - np.float32(first) + np.float32(q) * pitch
        places[q] = np.floor(c)
        parts[q] = c - places[q]
    beside, ahead = np.uint64(side), np.uint64(side * (int(nj) + 1))
    for r in range(0, n, row):
        a, b = _share(x[r], one / p[0], p[6], ni), _share(y[r], one / p[1], p[7], nj)
        i, j = int(a), int(b)
        base = place + (i * (int(nj) + 1) + j) * side
        wa, wb = a - np.float32(i), b - np.float32(j)
        w00, w01, w10, w11 = (one - wa) * (one - wb), (one - wa) * wb, wa * (one - wb), wa * wb
        done, k = 0, first
        while done < count:
            some = min(nodes - k, count - done)
            here, to = np.uint64(base + k), np.uint64(done)
            for m in range(np.uint64(some)):
                q = here + m
                line[to + m] = w00 * v[q] + w01 * v[q + beside] + w10 * v[q + ahead] + w11 * v[q + ahead + beside]
            done += some
            k = 0
        for q in range(row):
            m = np.uint64(places[q])
            out[r + q] = line[m] + parts[q] * (line[m + np.uint64(1)] - line[m])


@helper
def _wave(x, scale, shift, n, stride, doubled, out):  # type: ignore[no-untyped-def]
    """Rows of 144 of out = 1, sine, cosine and, where doubled, those of twice the angle; x counts turns once scaled and
    shifted. Polynomials over a quarter turn to either side, within 1e-6."""
    zero, half, quarter, one, two = np.float32(0), np.float32(0.5), np.float32(0.25), np.float32(1), np.float32(2)
    c1, c3, c5 = np.float32(6.283185160), np.float32(-41.34165503), np.float32(81.60100407)
    c7, c9 = np.float32(-76.54978228), np.float32(39.53670599)
    for i in range(np.uint64(n)):
        u = x[i * np.uint64(stride)] * scale + shift
        u -= np.floor(u + half)
        away = abs(u)
        a, b = (half - away if away > quarter else away), quarter - away
        a = -a if u < zero else a
        p, q = a * a, b * b
        sine = a * (c1 + p * (c3 + p * (c5 + p * (c7 + p * c9))))
        cosine = b * (c1 + q * (c3 + q * (c5 + q * (c7 + q * c9))))
        out[i], out[i + np.uint64(144)], out[i + np.uint64(288)] = one, sine, cosine
        if doubled:
            out[i + np.uint64(432)] = two * sine * cosine
            out[i + np.uint64(576)] = one - two * sine * sine


@helper
def _waves(p, x, y, z, n, room, out):  # type: ignore[no-untyped-def]
    """Sum of products of waves along the axes: p = waves a mm (3), shift (3) in waves, whether there are double angles,
    how many terms there are, then for each its weight and which row of _wave each factor is."""
    flat = room.reshape(-1)
    for first in range(0, n, 128):
        many = min(n - first, 128)
        for a in range(3):
            axis = x if a == 0 else (y if a == 1 else z)
            _wave(axis[first:], p[a], p[3 + a], many, 1, p[6] > 0, flat[720 * a :])
        here = out[first : first + many]
        for t in range(int(p[7])):
            q, weight = 8 + 4 * t, p[8 + 4 * t]
            u = np.uint64(144 * int(p[q + 1]))
            v, w = np.uint64(720 + 144 * int(p[q + 2])), np.uint64(1440 + 144 * int(p[q + 3]))
            if t == 0:
                for i in range(np.uint64(many)):
                    here[i] = weight * flat[u + i] * flat[v + i] * flat[w + i]
            else:
                for i in range(np.uint64(many)):
                    here[i] += weight * flat[u + i] * flat[v + i] * flat[w + i]


@helper
def _wave_rows(p, x, y, z, n, row, room, out):  # type: ignore[no-untyped-def]
    """As _waves, for rows of `row` points along z: what each wave along z is multiplied with is worked out once a row."""
    flat, count, zero = room.reshape(-1), n // row, np.float32(0)
    _wave(x, p[0], p[3], count, row, p[6] > 0, flat)
    _wave(y, p[1], p[4], count, row, p[6] > 0, flat[720:])
    _wave(z, p[2], p[5], row, 1, p[6] > 0, flat[1440:])
    for i in range(np.uint64(720)):
        flat[np.uint64(2160) + i] = zero
    for t in range(int(p[7])):
        q, weight = 8 + 4 * t, p[8 + 4 * t]
        u, v = np.uint64(144 * int(p[q + 1])), np.uint64(720 + 144 * int(p[q + 2]))
        to = np.uint64(2160 + 144 * int(p[q + 3]))
        for i in range(np.uint64(count)):
            flat[to + i] += weight * flat[u + i] * flat[v + i]
    for r in range(np.uint64(count)):
        c, here = flat[np.uint64(2160) + r :], out[np.uint64(row) * r :]
        c0, c1, c2, c3, c4 = c[0], c[144], c[288], c[432], c[576]
        for i in range(np.uint64(row)):
            here[i] = c0 + c1 * flat[np.uint64(1584) + i] + c2 * flat[np.uint64(1728) + i]
        if p[6] > zero:
            for i in range(np.uint64(row)):
                here[i] += c3 * flat[np.uint64(1872) + i] + c4 * flat[np.uint64(2016) + i]


@helper
def _leaf(op, p, place, samples, at, n, row, room, out):  # type: ignore[no-untyped-def]
    x, y, z = at[0], at[1], at[2]
    if op < 3:
        _solid(op, p, x, y, z, n, out)
    elif op < 7:
        _revolved(op, p, x, y, z, n, out)
    elif op == 7:
        _samples(p, place, samples, x, y, z, n, out)
    elif op == 9 and row:
        _wave_rows(p, x, y, z, n, row, room, out)
    elif op == 9:
        _waves(p, x, y, z, n, room, out)
    elif row and (z[row - 1] - z[0]) * p[5] / p[2] < 125 and (z[1] - z[0]) * p[5] / p[2] < 8:
        _periodic_rows(p, place, samples, x, y, z, n, row, room, out)
    else:
        _periodic(p, place, samples, x, y, z, n, out)


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
def _change(op, p, a, n, to):  # type: ignore[no-untyped-def]
    """to = a + p[0] (10), -a (11), |a| (12), p[0] a (13), the ramp of a (14), or a (26)."""
    if op == 14:
        for i in range(n):
            to[i] = _ramped(p, a[i])
    elif op == 12:
        for i in range(n):
            to[i] = abs(a[i])
    else:
        zero, one = np.float32(0), np.float32(1)
        add, turn = (p[0] if op == 10 else zero), (-one if op == 11 else (p[0] if op == 13 else one))
        for i in range(n):
            to[i] = turn * a[i] + add


@helper
def _join(op, p, a, b, n, to):  # type: ignore[no-untyped-def]
    """to = min (15), max (16), their smooth forms (17, 18), the sum (19), the length (20), or a over b (21): clipped at
    p[0], and over p[2] where b is less than p[1]."""
    radius = p[0]
    if op == 15:
        for i in range(n):
            to[i] = b[i] if b[i] < a[i] else a[i]
    elif op == 16:
        for i in range(n):
            to[i] = b[i] if b[i] > a[i] else a[i]
    elif op == 19:
        for i in range(n):
            to[i] = a[i] + b[i]
    elif op == 20:
        for i in range(n):
            to[i] = np.sqrt(a[i] * a[i] + b[i] * b[i])
    elif op == 21:
        least, instead = p[1], p[2]
        for i in range(n):
            to[i] = min(max(a[i] / (instead if b[i] < least else b[i]), -radius), radius)
    else:
        half, zero = np.float32(0.5 if op == 18 else -0.5), np.float32(0)
        share = half / (radius + radius)
        for i in range(n):
            apart = abs(a[i] - b[i])
            blend = max(radius - apart, zero)
            to[i] = np.float32(0.5) * (a[i] + b[i]) + half * apart + share * blend * blend


@helper
def _enter(op, p, old, new, n):  # type: ignore[no-untyped-def]
    """Points in a frame: moved (22), cylindrical (23), spherical (24); p = rotation (9), origin (3), reference radius.
    Cylindrical are (radius, arc at the reference radius, height), spherical (radius, arc along, arc up)."""
    for i in range(n):
        a, b, c = old[0, i] - p[9], old[1, i] - p[10], old[2, i] - p[11]
        u = a * p[0] + b * p[3] + c * p[6]
        v = a * p[1] + b * p[4] + c * p[7]
        w = a * p[2] + b * p[5] + c * p[8]
        if op > 22:
            r = np.sqrt(u * u + v * v)
            u, v = r, p[12] * np.arctan2(v, u)
            if op == 24:
                u, w = np.sqrt(r * r + w * w), p[12] * np.arctan2(w, r)
        new[0, i], new[1, i], new[2, i] = u, v, w


@helper
def _run(steps, numbers, samples, at, row, n, room, rows):  # type: ignore[no-untyped-def]
    """rows[:, :n] = values of the steps at points at[0] (3,n); at[1:] and room are for use; row = points to a row, or 0."""
    for s in range(len(steps)):
        op, to, a, b = steps[s, 0], steps[s, 2], steps[s, 3], steps[s, 4]
        p = numbers[steps[s, 1] :]
        if op < 10:
            frame = steps[s, 5]
            _leaf(op, p, steps[s, 6], samples, at[frame], n, 0 if frame else row, room, rows[to])
        elif op < 15 or op == 26:
            _change(op, p, rows[a], n, rows[to])
        elif op < 22:
            _join(op, p, rows[a], rows[b], n, rows[to])
        elif op < 25:
            _enter(op, p, at[a], at[to], n)
        else:
            at[to, 0, :n], at[to, 1, :n], at[to, 2, :n] = rows[a, :n], rows[b, :n], rows[steps[s, 5], :n]


@helper
def _range(op, p, a, b, to):  # type: ignore[no-untyped-def]
    """to (2,) = range of a step that is no leaf, of ranges a and b (2,)."""
    low, high = a[0], a[1]
    if op == 11:
        to[0], to[1] = -high, -low
    elif op == 12:
        to[0], to[1] = max(low, -high, np.float32(0)), max(-low, high)
    elif op == 13 and p[0] < 0:
        to[0], to[1] = p[0] * high, p[0] * low
    elif op == 14:
        u, v = _ramped(p, low), _ramped(p, high)
        to[0], to[1] = min(u, v), max(u, v)
        for k in range(int(p[0])):
            if low < p[2 * k + 1] < high:
                to[0], to[1] = min(to[0], p[2 * k + 2]), max(to[1], p[2 * k + 2])
    elif op < 15:
        _change(op, p, a, 2, to)
    else:
        _join(op, p, a, b, 2, to)
    if op == 20:
        high = max(max(-a[0], a[1]), max(-b[0], b[1]))
        to[0], to[1] = np.float32(0), high + high
    elif op == 21:
        # nothing is known of a slope over a whole ball
        to[0], to[1] = -p[0], p[0]


@helper
def _reach(op, p, at, radius):  # type: ignore[no-untyped-def]
    """Radius in the frame of a ball about point at (3,1); without bound where the ball meets the frame's axis."""
    if op == 22 or radius == 0:
        return radius
    a, b, c = at[0, 0] - p[9], at[1, 0] - p[10], at[2, 0] - p[11]
    t = a * p[2] + b * p[5] + c * p[8]
    away = np.sqrt(max(a * a + b * b + c * c - t * t, np.float32(0))) - radius
    return radius * max(np.float32(1), p[12] / away) if away > 1e-6 else np.float32(np.inf)


@helper
def _bounds(steps, numbers, samples, at, reach, bound, won):  # type: ignore[no-untyped-def]
    """bound (rows,2) of all steps in the ball of reach[0] about at[0] (3,1), and which side of a join won there: 0 both,
    1 the first, 2 the second. Before a leaf's numbers stand its steepest slope and its largest size."""
    value, room = np.empty(1, np.float32), np.empty((20, 144), np.float32)
    for s in range(len(steps)):
        op, first, to, a, b = steps[s, 0], steps[s, 1], steps[s, 2], steps[s, 3], steps[s, 4]
        p = numbers[first:]
        won[s] = 0
        if op < 10:
            frame = steps[s, 5]
            _leaf(op, p, steps[s, 6], samples, at[frame], 1, 0, room, value)
            f, size = value[0], numbers[first - 1]
            # a little more than the slope allows: the ends are rounded
            slope = numbers[first - 2] * reach[frame] * np.float32(1.00001)
            slope += np.float32(1e-6) * abs(f) if reach[frame] > 0 else np.float32(0)
            bound[to, 0] = max(f - slope, -size) if f == f else f
            bound[to, 1] = min(f + slope, size)
        elif op < 15:
            _range(op, p, bound[a], bound[a], bound[to])
        elif op < 22:
            blend = p[0] if op > 16 else np.float32(0)  # smooth joins differ from plain ones within it
            one, two = (a, b) if op & 1 else (b, a)
            below, above = bound[one, 1] + blend < bound[two, 0], bound[two, 1] + blend < bound[one, 0]
            if op < 19 and (below or above):
                won[s] = 1 if below else 2
            _range(op, p, bound[a], bound[b], bound[to])
        elif op < 25:
            reach[to] = _reach(op, p, at[a], reach[a])
            _enter(op, p, at[a], at[to], 1)
        else:
            square = np.float32(0)
            for c in range(3):
                part = bound[a if c == 0 else (b if c == 1 else steps[s, 5])]
                half = np.float32(0.5) * (part[1] - part[0])
                at[to, c, 0] = part[0] + half
                square += half * half
            reach[to] = np.sqrt(square)


@helper
def _kept(steps, answer, won, live, frames, kept):  # type: ignore[no-untyped-def]
    """kept = the steps that the answer needs where joins are won, in order, from its end; returns where they start."""
    live[:], frames[:] = False, False
    live[answer] = True
    left = len(kept)
    for s in range(len(steps) - 1, -1, -1):
        op, to, a, b = steps[s, 0], steps[s, 2], steps[s, 3], steps[s, 4]
        if op >= 22:
            if not frames[to]:
                continue
            if op < 25:
                frames[a] = True
            else:
                live[a], live[b], live[steps[s, 5]] = True, True, True
        elif not live[to]:
            continue
        elif op < 10:
            live[to] = False
            frames[steps[s, 5]] = True
        else:
            live[to] = False
            winner = a if won[s] == 1 else b
            if won[s]:
                live[winner] = True
                if winner == to:
                    continue
            else:
                live[a] = True
                if op >= 15:
                    live[b] = True
        left -= 1
        kept[left] = steps[s]
        if won[s]:
            kept[left, 0], kept[left, 3] = 26, winner
    return left


@door
def run(steps_at, count, numbers_at, samples_at, points_at, row, n, room_at, rows_at):  # type: ignore[no-untyped-def]
    """rows (.,512) float32: values of `count` steps at the first n of points (frames,3,512) float32, whose frame 0 is
    given; row = points to a straight row along z, or 0; room (20,144) float32 is for use."""
    steps, numbers = at_address(steps_at, (count, 7), np.int64), at_address(numbers_at, (1 << 30,), np.float32)
    samples, at = at_address(samples_at, (1 << 40,), np.float32), at_address(points_at, (1 << 10, 3, 512), np.float32)
    room, rows = at_address(room_at, (20, 144), np.float32), at_address(rows_at, (1 << 10, 512), np.float32)
    _run(steps, numbers, samples, at, row, n, room, rows)
    return 0


@door
def prune(steps_at, count, numbers_at, samples_at, rows, frames, answer, ball_at, kept_at):  # type: ignore[no-untyped-def]
    """kept (count,7) = the steps that the answer's row needs in a ball, from the place returned on. ball (6,) float32 is
    its middle, its radius, and takes the bounds of the answer in it."""
    steps, numbers = at_address(steps_at, (count, 7), np.int64), at_address(numbers_at, (1 << 30,), np.float32)
    samples, ball = at_address(samples_at, (1 << 40,), np.float32), at_address(ball_at, (6,), np.float32)
    bound, reach = np.empty((rows, 2), np.float32), np.empty(frames, np.float32)
    won, at = np.empty(count, np.int8), np.empty((frames, 3, 1), np.float32)
    for a in range(3):
        at[0, a, 0] = ball[a]
    reach[0] = ball[3]
    _bounds(steps, numbers, samples, at, reach, bound, won)
    ball[4], ball[5] = bound[answer, 0], bound[answer, 1]
    if kept_at == 0:
        return 0
    live, used = np.empty(rows, np.bool_), np.empty(frames, np.bool_)
    return _kept(steps, answer, won, live, used, at_address(kept_at, (count, 7), np.int64))
