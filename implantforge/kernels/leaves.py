"""Shapes, samples and waves as leaves of a list of steps (kernels/steps.py), each a door reached by address.

A leaf is (op, numbers, samples, points (3,512), n, row, room (20,144), out (512,)): out = values at n points; row =
points to a straight row along z, or 0. All float32.
"""

import numpy as np

from implantforge.kernels.jit import at_address, door, inlined, lean


@door
def solid(op, numbers_at, samples_at, points_at, n, row, room_at, out_at, _):  # type: ignore[no-untyped-def]
    """sphere (0), plane (1) or box (2)."""
    p, at = at_address(numbers_at, (1 << 10,), np.float32), at_address(points_at, (3, 512), np.float32)
    out, x, y, z = at_address(out_at, (512,), np.float32), at[0], at[1], at[2]
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
    return 0


@door
def revolved(op, numbers_at, samples_at, points_at, n, row, room_at, out_at, _):  # type: ignore[no-untyped-def]
    """cone (3), round_cone (4), torus (5), capsule (6); p = start, axis, then length and radii."""
    p, at = at_address(numbers_at, (1 << 10,), np.float32), at_address(points_at, (3, 512), np.float32)
    out, x, y, z = at_address(out_at, (512,), np.float32), at[0], at[1], at[2]
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
    return 0


@inlined
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


@inlined
def _sampled_points(p, v, x, y, z, n, out):  # type: ignore[no-untyped-def]
    """Samples at any points."""
    zero, one, two = np.float32(0), np.float32(1), np.float32(2)
    su, ss, sw = one / p[12], one / p[13], one / p[14]
    nu, ns, nw = p[15] - one, p[16] - one, p[17] - one
    line, start = np.uint64(p[17]), np.uint64(0)
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


@inlined
def _sampled_rows(p, v, x, y, z, n, row, flat, out):  # type: ignore[no-untyped-def]
    """As _sampled_points for samples along the axes and rows of `row` points along z: samples are interpolated across
    once, then along."""
    zero, one, two = np.float32(0), np.float32(1), np.float32(2)
    su, ss, sw, least = one / p[12], one / p[13], one / p[14], p[17] - two
    nu, ns, nw = p[15] - one, p[16] - one, p[17] - one
    line = np.uint64(p[17])
    step = np.uint64(p[16]) * line
    for q in range(np.uint64(row)):
        w = (z[q] - p[11]) * sw
        c = min(max(w, zero), nw)
        k, g = min(np.floor(c), least), (w - c) * p[14]
        flat[q], flat[q + np.uint64(144)], flat[q + np.uint64(288)] = k, c - k, g * g
    first = int(flat[0])
    count = int(flat[row - 1]) - first + 2
    for r in range(0, n, row):
        u, s = (x[r] - p[9]) * su, (y[r] - p[10]) * ss
        cu, cs = min(max(u, zero), nu), min(max(s, zero), ns)
        e, f = (u - cu) * p[12], (s - cs) * p[13]
        i, j, away = min(np.floor(cu), p[15] - two), min(np.floor(cs), p[16] - two), e * e + f * f
        wu, ws = cu - i, cs - j
        at = np.uint64(i) * step + np.uint64(j) * line + np.uint64(first)
        for m in range(np.uint64(count)):
            a, b = v[at + m], v[at + m + step]
            a, b = a + (v[at + m + line] - a) * ws, b + (v[at + m + step + line] - b) * ws
            flat[np.uint64(432) + m] = a + (b - a) * wu
        for q in range(np.uint64(row)):
            m = np.uint64(432) + np.uint64(np.int64(flat[q]) - first)
            low = flat[m]
            near = low + flat[q + np.uint64(144)] * (flat[m + np.uint64(1)] - low)
            out[np.uint64(r) + q] = near + np.sqrt(away + flat[q + np.uint64(288)])


@door
def sampled(op, numbers_at, samples_at, points_at, n, row, room_at, out_at, _):  # type: ignore[no-untyped-def]
    """p = rotation (9), origin (3), spacing (3), shape (3); beyond the samples the distance to them is added."""
    p, at = at_address(numbers_at, (1 << 10,), np.float32), at_address(points_at, (3, 512), np.float32)
    out, x, y, z = at_address(out_at, (512,), np.float32), at[0], at[1], at[2]
    v, flat = at_address(samples_at, (1 << 40,), np.float32), at_address(room_at, (2880,), np.float32)
    if row and p[0] == 1 and p[4] == 1 and p[8] == 1 and z[row - 1] - z[0] < 125 * p[14]:
        _sampled_rows(p, v, x, y, z, n, row, flat, out)
    else:
        _sampled_points(p, v, x, y, z, n, out)
    return 0


@inlined
def _share(x, scale, shift, nodes):  # type: ignore[no-untyped-def]
    """How far into its tile x lies, in nodes; never at its end."""
    u = x * scale + shift
    return nodes * min(u - np.floor(u), np.float32(0.9999999))


@inlined
def _periodic_points(p, place, v, x, y, z, n, out):  # type: ignore[no-untyped-def]
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


@inlined
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


@door
def periodic(op, numbers_at, samples_at, points_at, n, row, room_at, out_at, _):  # type: ignore[no-untyped-def]
    """A tile in all directions."""
    p, at = at_address(numbers_at, (1 << 10,), np.float32), at_address(points_at, (3, 512), np.float32)
    out, x, y, z = at_address(out_at, (512,), np.float32), at[0], at[1], at[2]
    v, room = at_address(samples_at, (1 << 40,), np.float32), at_address(room_at, (20, 144), np.float32)
    if row and (z[row - 1] - z[0]) * p[5] / p[2] < 125 and (z[1] - z[0]) * p[5] / p[2] < 8:
        _periodic_rows(p, 0, v, x, y, z, n, row, room, out)
    else:
        _periodic_points(p, 0, v, x, y, z, n, out)
    return 0


@lean
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


@inlined
def _wave_points(p, x, y, z, n, flat, out):  # type: ignore[no-untyped-def]
    """Sum of products of waves along the axes: p = waves a mm (3), shift (3) in waves, whether there are double angles,
    how many terms there are, then for each its weight and which row of _wave each factor is."""
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


@inlined
def _wave_rows(p, x, y, z, n, row, flat, out):  # type: ignore[no-untyped-def]
    """As _wave_points, for rows of `row` points along z: the factor of each wave along z is worked out once a
    row."""
    count, zero = n // row, np.float32(0)
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


@door
def waves(op, numbers_at, samples_at, points_at, n, row, room_at, out_at, _):  # type: ignore[no-untyped-def]
    """Sums of products of waves."""
    p, at = at_address(numbers_at, (1 << 10,), np.float32), at_address(points_at, (3, 512), np.float32)
    out, x, y, z = at_address(out_at, (512,), np.float32), at[0], at[1], at[2]
    flat = at_address(room_at, (2880,), np.float32)
    if row:
        _wave_rows(p, x, y, z, n, row, flat, out)
    else:
        _wave_points(p, x, y, z, n, flat, out)
    return 0
