"""Meshing passes over fields that are lists of steps (kernels/steps.py): bounds, samples of blocks, vertices on edges.

`steps`, `numbers`, `samples` are as there; `depth` (5,) int64 = rows, frames, the answer's row, and the addresses of the
doors run and prune.
"""

import numpy as np

from implantforge.kernels.jit import call, helper, lowest, parallel_kernel, prange


@helper
def _run(steps, start, numbers, samples, depth, at, row, n, room, rows):  # type: ignore[no-untyped-def]
    """rows = values of steps[start:] at n points at[0]: see steps.run."""
    call(depth[3], steps.ctypes.data + 56 * start, len(steps) - start, numbers.ctypes.data, samples.ctypes.data,
         at.ctypes.data, row, n, room.ctypes.data, rows.ctypes.data)  # fmt: skip


@helper
def _pruned(steps, numbers, samples, depth, ball, kept):  # type: ignore[no-untyped-def]
    """Where the steps start, in kept, that matter in the ball: see steps.prune."""
    return call(depth[4], steps.ctypes.data, len(steps), numbers.ctypes.data, samples.ctypes.data, depth[0], depth[1],
                depth[2], ball.ctypes.data, kept.ctypes.data)  # fmt: skip


@parallel_kernel
def ranges(steps, numbers, samples, depth, points, radius, out):  # type: ignore[no-untyped-def]
    """out (n,2) = bounds of the field in balls of radius mm about points (n,3); for radius 0 its value, twice."""
    for c in prange((len(points) + 511) // 512):
        ball, kept, first = np.empty(6, np.float32), np.empty_like(steps), np.int64(c) * 512
        last = min(first + 512, len(points))
        if radius > 0:
            for n in range(first, last):
                ball[0], ball[1], ball[2], ball[3] = points[n, 0], points[n, 1], points[n, 2], radius
                _pruned(steps, numbers, samples, depth, ball, kept)
                out[n, 0], out[n, 1] = ball[4], ball[5]
        else:
            rows, at = np.empty((depth[0], 512), np.float32), np.empty((depth[1], 3, 512), np.float32)
            room = np.empty((20, 144), np.float32)
            for n in range(first, last):
                at[0, 0, n - first], at[0, 1, n - first], at[0, 2, n - first] = points[n, 0], points[n, 1], points[n, 2]
            _run(steps, 0, numbers, samples, depth, at, 0, last - first, room, rows)
            for n in range(first, last):
                out[n, 0] = out[n, 1] = rows[depth[2], n - first]


@helper
def _brick(low, h, i, j, at):  # type: ignore[no-untyped-def]
    """Points of planes i to i + 3, rows j to j + 7 of a block with its low corner at low (3,)."""
    for n in range(512):
        at[0, n] = np.float32(low[0] + h * (i + (n >> 7)))
        at[1, n] = np.float32(low[1] + h * (j + (n >> 4 & 7)))
        at[2, n] = np.float32(low[2] + h * (n & 15))


@helper
def _keep_near(f, scale, at, near, quads, bits):  # type: ignore[no-untyped-def]
    """near[at:at+128] int16 = eight rows of values f (128,) in units of 1 / scale, never 0, and bits of those rows: the
    sign bits of near, which quads reads four at a time."""
    one, most = np.float32(1), np.float32(32767)
    for k in range(np.uint64(128)):
        size = min(max(abs(f[k] * scale), one), most)
        near[at + k] = np.int16(-size if f[k] < 0 else size)
    pick, move, low = np.uint64(0x0001000100010001), np.uint64(0x0001000200040008), np.uint64(15)
    quad, row = at >> np.uint64(2), at >> np.uint64(4)
    for v in range(np.uint64(8)):
        word = np.uint64(0)
        for q in range(np.uint64(4)):
            # the product moves the four bits side by side, to 48 and up
            four = (quads[quad + np.uint64(4) * v + q] >> low & pick) * move
            word |= (four >> np.uint64(48) & low) << np.uint64(4) * q
        bits[row + v] = word


@parallel_kernel
def near(steps, numbers, samples, depth, blocks, origin, h, bits, quads, out):  # type: ignore[no-untyped-def]
    """out (n * 4096,) int16 = field at the samples of each block in h / 4096, within 8 h and never 0; bits (n * 256,) its
    signs, 16 to a word, set inside. quads is out as uint64."""
    for b in prange(len(blocks)):
        rows, at = np.empty((depth[0], 512), np.float32), np.empty((depth[1], 3, 512), np.float32)
        room, kept = np.empty((20, 144), np.float32), np.empty_like(steps)
        low, ball, f = np.empty(3), np.empty(6, np.float32), rows[depth[2]]
        for a in range(3):
            low[a] = origin[a] + h * (16 * blocks[b, a])
        ball[2], ball[3] = low[2] + 7.5 * h, 9.15 * h
        for q in range(4):
            i, j = 8 * (q >> 1), 8 * (q & 1)
            ball[0], ball[1] = low[0] + h * (i + 3.5), low[1] + h * (j + 3.5)
            start = _pruned(steps, numbers, samples, depth, ball, kept)
            away = 0 if ball[4] > 2 * h else (1 if ball[5] < -2 * h else -1)
            for u in range(i, i + 8):
                line = 128 * (u & 3)
                first = np.uint64((np.int64(b) * 16 + u) * 256 + 16 * j)
                if away >= 0:
                    out[first : first + np.uint64(128)] = 32767 if away == 0 else -32767
                    bits[first >> np.uint64(4) : (first >> np.uint64(4)) + np.uint64(8)] = 65535 * away
                    continue
                if line == 0:
                    _brick(low, h, u, j, at[0])
                    _run(kept, start, numbers, samples, depth, at, 16, 512, room, rows)
                _keep_near(f[line:], np.float32(4096 / h), first, out, quads, bits)


@helper
def _around(values, blocks, lookup, b, out):  # type: ignore[no-untyped-def]
    """out (17 * 340,) int16 = samples of block b and the planes above it, 340 a plane and 20 a row; where no block is
    active no edge crosses."""
    for i in range(16):
        for j in range(16):
            at = np.uint64(340 * i + 20 * j)
            for k in range(np.uint64(16)):
                out[at + k] = values[b, i, j, k]
    x, y, z = blocks[b, 0], blocks[b, 1], blocks[b, 2]
    above, beside, over = lookup[x + 1, y, z], lookup[x, y + 1, z], lookup[x, y, z + 1]
    for i in range(16):
        for k in range(16):
            out[5440 + 20 * i + k] = values[above, 0, i, k] if above >= 0 else 32767
            out[340 * i + 320 + k] = values[beside, i, 0, k] if beside >= 0 else 32767
            out[340 * i + 20 * k + 16] = values[over, i, k, 0] if over >= 0 else 32767


@helper
def _crossed(row, code, n, codes):  # type: ignore[no-untyped-def]
    """Adds a row's crossed edges to the list of n, as code + 16 * axis + place; their count then."""
    left = np.uint64(row[0]) | np.uint64(row[1]) << np.uint64(16) | np.uint64(row[2]) << np.uint64(32)
    while left:
        codes[n] = code + np.int32(lowest(left))
        left &= left - np.uint64(1)
        n += np.uint64(1)
    return n


@helper
def _ends(codes, n, values, scale, edge):  # type: ignore[no-untyped-def]
    """Rows 1 and 2 of edge = values at the ends of the first n edges, row 0 the linear guess between them. Rows are 512
    long and lie in one array: loops over several arrays are not done in wide words."""
    for i in range(np.uint64(n)):
        c = codes[i]
        on = c >> np.int32(4) & np.int32(3)
        at = np.int32(340) * (c >> np.int32(10)) + np.int32(20) * (c >> np.int32(6) & np.int32(15)) + (c & np.int32(15))
        step = np.int32(340) if on == 0 else (np.int32(20) if on == 1 else np.int32(1))
        edge[i + np.uint64(512)] = scale * np.float32(values[np.uint64(at)])
        edge[i + np.uint64(1024)] = scale * np.float32(values[np.uint64(at + step)])
    for i in range(np.uint64(n)):
        edge[i] = edge[i + np.uint64(512)] / (edge[i + np.uint64(512)] - edge[i + np.uint64(1024)])


@helper
def _point(codes, t, n, low, h, at):  # type: ignore[no-untyped-def]
    """Points at, x, y and z 512 apart, at shares t along the first n edges of a block with its low corner at low (3,)."""
    zero, a, b, d = np.float32(0), low[0], low[1], low[2]
    for i in range(np.uint64(n)):
        c, s = codes[i], t[i]
        on = c >> np.int32(4) & np.int32(3)
        at[i] = a + h * (np.float32(c >> np.int32(10)) + (s if on == 0 else zero))
        at[i + np.uint64(512)] = b + h * (np.float32(c >> np.int32(6) & np.int32(15)) + (s if on == 1 else zero))
        at[i + np.uint64(1024)] = d + h * (np.float32(c & np.int32(15)) + (s if on == 2 else zero))


@helper
def _first_look(f, edge, n, left):  # type: ignore[no-untyped-def]
    """Row 4 of edge = where the parabola through both ends and the look at row 0 vanishes; the places of edges that it
    does not describe well enough in left, and how many they are."""
    zero, one, four, two = np.float32(0), np.float32(1), np.float32(4), np.float32(2)
    for i in range(np.uint64(n)):
        t, low, high, here = edge[i], edge[i + np.uint64(512)], edge[i + np.uint64(1024)], f[i]
        before, after = (here - low) / t, (high - here) / (one - t)
        bend = after - before
        slope = one / (before + bend * t)
        step = -here * slope
        doubt = step * bend * slope
        step = two * step / (one + np.sqrt(max(one + four * doubt, zero)))
        there = t + step
        good = (abs(doubt) <= np.float32(0.06)) & (abs(step) <= np.float32(0.3)) & (there > zero) & (there < one)
        edge[i + np.uint64(1536)] = zero if good | (here == zero) else one
        edge[i + np.uint64(2048)] = there if good else t
    many = np.uint64(0)
    for i in range(np.uint64(n)):
        left[many] = i
        many += np.uint64(edge[i + np.uint64(1536)] > zero)
    return np.int64(many)


@helper
def _bracket(f, edge, left, many):  # type: ignore[no-untyped-def]
    """Rows 3 to 6 of edge = bracket after the first look, lo, hi and their values, and row 0 the linear guess in it."""
    zero, one = np.float32(0), np.float32(1)
    for m in range(many):
        i = left[m]
        t, low, high, here = edge[i], edge[512 + i], edge[1024 + i], f[i]
        a, b, fa, fb = zero, t, low, here
        if (here < zero) == (low < zero):
            a, b, fa, fb = t, one, here, high
        edge[1536 + i], edge[2048 + i], edge[2560 + i], edge[3072 + i] = a, b, fa, fb
        edge[i] = a + (b - a) * fa / (fa - fb)


@helper
def _next_look(f, edge, i, halve, tolerance):  # type: ignore[no-untyped-def]
    """Shrinks the bracket by a look at t and moves t inside it; whether that is good enough."""
    t, a, b, fa = edge[i], edge[1536 + i], edge[2048 + i], edge[2560 + i]
    if f == 0 or not (a < t < b):
        return True
    side = i if (f < 0) == (fa < 0) else 512 + i
    edge[1536 + side], edge[2560 + side] = t, f
    a, b, fa, fb = edge[1536 + i], edge[2048 + i], edge[2560 + i], edge[3072 + i]
    guess = a + (b - a) * fa / (fa - fb)
    if abs(f) <= tolerance:
        edge[i] = guess if abs(guess - t) <= np.float32(0.05) else t  # grazing edge: nothing would check a leap
        return True
    edge[i] = np.float32(0.5) * (a + b) if halve else guess
    return False


@helper
def _solve(steps, start, numbers, samples, depth, codes, low, h, edge, n, left, at, room, rows):  # type: ignore[no-untyped-def]
    """Row 7 of edge = the zero along each edge, from the guess in row 0 and the values at its ends in rows 1 and 2."""
    f, done, tried, again = rows[depth[2]], edge[3584:], edge[4096:], codes[n:]
    _point(codes, edge, n, low, h, at)
    _run(steps, start, numbers, samples, depth, at, 0, n, room, rows)
    many = _first_look(f, edge, n, left)
    for i in range(np.uint64(n)):
        done[i] = edge[i + np.uint64(2048)]
    _bracket(f, edge, left, many)
    for look in range(12):  # odd last: after a halving the end would be unchecked
        if many == 0:
            break
        for m in range(many):
            again[m], tried[m] = codes[left[m]], edge[left[m]]
        _point(again, tried, many, low, h, at)
        _run(steps, start, numbers, samples, depth, at, 0, many, room, rows)
        kept = 0
        for m in range(many):
            i = left[m]
            left[kept] = i
            kept += not _next_look(f[m], edge, i, look > 1 and look % 2 == 0, np.float32(5e-3) * h)
            done[i] = edge[i]
        many = kept


@helper
def _write(codes, low, h, edge, n, margin, at, out):  # type: ignore[no-untyped-def]
    """out (3 n,) = the vertices at shares row 7 of the first n edges."""
    for i in range(np.uint64(n)):
        edge[i + np.uint64(3584)] = min(max(edge[i + np.uint64(3584)], margin), np.float32(1) - margin)
    _point(codes, edge[3584:], n, low, h, at)
    for i in range(np.uint64(n)):
        q = np.uint64(3) * i
        out[q], out[q + np.uint64(1)], out[q + np.uint64(2)] = at[i], at[i + np.uint64(512)], at[i + np.uint64(1024)]


@parallel_kernel
def vertices(steps, numbers, samples, depth, blocks, lookup, values, words, offsets, place, first, last, out):  # type: ignore[no-untyped-def]
    """Vertices (m,3) float32 mm of blocks first..last, in the order of flying.edges: linear guess from values as near()
    gives them, then looks at the field. place = (origin (3,), h, margin, what to add (3,) float32)."""
    origin, h, margin, shift = place
    flat = out.reshape(-1)
    for b in prange(first, last):
        rows, at = np.empty((depth[0], 512), np.float32), np.empty(1536 * depth[1], np.float32)
        edge, codes, left = np.empty(4608, np.float32), np.empty(1024, np.int32), np.empty(513, np.int32)
        room, near, scale = np.empty((20, 144), np.float32), np.empty(5780, np.int16), np.float32(h / 4096)
        ball, kept, low, step = np.empty(6, np.float32), np.empty_like(steps), np.empty(3, np.float32), np.float32(h)
        moved = np.empty(3, np.float32)
        for a in range(3):
            low[a] = np.float32(origin[a] + h * (16 * blocks[b, a]))
            ball[a] = low[a] + 8 * h
            moved[a] = low[a] + shift[a]
        ball[3] = 13.95 * h
        start = _pruned(steps, numbers, samples, depth, ball, kept)
        _around(values, blocks, lookup, b, near)
        n, to = np.uint64(0), np.uint64(offsets[b] - offsets[first])
        for row in range(256):
            n = _crossed(words[b, row >> 4, row & 15], np.int32(row << 6), n, codes)
            if n > 464 or row == 255:
                _ends(codes, n, near, scale, edge)
                _solve(kept, start, numbers, samples, depth, codes, low, step, edge, n, left, at, room, rows)
                _write(codes, moved, step, edge, n, np.float32(margin), at, flat[np.uint64(3) * to :])
                to += n
                n = np.uint64(0)
