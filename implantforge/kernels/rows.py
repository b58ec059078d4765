"""Meshing passes over fields that are lists of steps (kernels/steps.py): bounds, samples of blocks, vertices on edges.

`steps`, `numbers`, `samples` are as there; `depth` (6,) int64 = rows, frames, the answer's row, the addresses of the doors
run and prune, and how long the array of a ball is. Kernels do a run first..last of points or blocks, for jit.shared.
"""

import numpy as np

from implantforge.kernels.jit import call, inlined, kernel, lean, lowest


@inlined
def _run(steps, start, numbers, samples, depth, at, row, n, room, rows):  # type: ignore[no-untyped-def]
    """rows = values of steps[start:] at n points at[0]: see steps.run."""
    call(depth[3], steps.ctypes.data + 64 * start, len(steps) - start, numbers.ctypes.data, samples.ctypes.data,
         at.ctypes.data, row, n, room.ctypes.data, rows.ctypes.data)  # fmt: skip


@inlined
def _pruned(steps, numbers, samples, depth, ball, kept):  # type: ignore[no-untyped-def]
    """Where the steps start, in kept, that matter in the ball: see steps.prune."""
    return call(depth[4], steps.ctypes.data, len(steps), numbers.ctypes.data, samples.ctypes.data, depth[0], depth[1],
                depth[2], ball.ctypes.data, kept.ctypes.data)  # fmt: skip


@lean
def _ranges(first, last, field, points, radius, scratch, out):  # type: ignore[no-untyped-def]
    """See ranges."""
    (steps, numbers, samples, depth), (ball, kept, rows, at, room) = field, scratch
    answer = rows[depth[2]]
    if radius > 0:
        for n in range(first, last):
            ball[0], ball[1], ball[2], ball[3] = points[n, 0], points[n, 1], points[n, 2], radius
            _pruned(steps, numbers, samples, depth, ball, kept)
            out[n, 0], out[n, 1] = ball[4], ball[5]
    else:
        for c in range(first, last, 512):
            many = min(512, last - c)
            for i in range(many):
                at[0, 0, i], at[0, 1, i], at[0, 2, i] = points[c + i, 0], points[c + i, 1], points[c + i, 2]
            _run(steps, 0, numbers, samples, depth, at, 0, many, room, rows)
            for i in range(many):
                out[c + i, 0] = out[c + i, 1] = answer[i]


@kernel
def ranges(first, last, steps, numbers, samples, depth, points, radius, out):  # type: ignore[no-untyped-def]
    """out (n,2) = bounds of the field in balls of radius mm about points (n,3); for radius 0 its value, twice."""
    rows, at = np.empty((depth[0], 512), np.float32), np.empty((depth[1], 3, 512), np.float32)
    room, kept, ball = np.empty((20, 144), np.float32), np.empty_like(steps), np.empty(depth[5], np.float32)
    _ranges(first, last, (steps, numbers, samples, depth), points, radius, (ball, kept, rows, at, room), out)


@inlined
def _brick(low, h, i, j, at):  # type: ignore[no-untyped-def]
    """Points of planes i to i + 3, rows j to j + 7 of a block with its low corner at low (3,)."""
    for n in range(512):
        at[0, n] = np.float32(low[0] + h * (i + (n >> 7)))
        at[1, n] = np.float32(low[1] + h * (j + (n >> 4 & 7)))
        at[2, n] = np.float32(low[2] + h * (n & 15))


@inlined
def _keep_near(f, line, scale, at, near, quads, bits):  # type: ignore[no-untyped-def]
    """near[at:at+128] int16 = eight rows of values f[line:] in units of 1 / scale, never 0, and bits of those rows: the
    sign bits of near, which quads reads four at a time."""
    one, most = np.float32(1), np.float32(32767)
    for k in range(np.uint64(128)):
        value = f[line + k]
        size = min(max(abs(value * scale), one), most)
        near[at + k] = np.int16(-size if value < 0 else size)
    pick, move, low = np.uint64(0x0001000100010001), np.uint64(0x0001000200040008), np.uint64(15)
    quad, row = at >> np.uint64(2), at >> np.uint64(4)
    for v in range(np.uint64(8)):
        word = np.uint64(0)
        for q in range(np.uint64(4)):
            # the product moves the four bits side by side, to 48 and up
            four = (quads[quad + np.uint64(4) * v + q] >> low & pick) * move
            word |= (four >> np.uint64(48) & low) << np.uint64(4) * q
        bits[row + v] = word


@lean
def _near(first, last, field, blocks, origin, h, scratch, bits, quads, out):  # type: ignore[no-untyped-def]
    """See near."""
    (steps, numbers, samples, depth), (ball, kept, rows, at, room, low) = field, scratch
    f, points = rows[depth[2]], at[0]
    scale = np.float32(4096 / h)
    for b in range(first, last):
        for a in range(3):
            low[a] = origin[a] + h * (16 * blocks[b, a])
        ball[2], ball[3] = low[2] + 7.5 * h, 9.15 * h
        for q in range(4):
            i, j = 8 * (q >> 1), 8 * (q & 1)
            ball[0], ball[1] = low[0] + h * (i + 3.5), low[1] + h * (j + 3.5)
            start = _pruned(steps, numbers, samples, depth, ball, kept)
            away = 0 if ball[4] > 2 * h else (1 if ball[5] < -2 * h else -1)
            for u in range(i, i + 8):
                line = np.uint64(128 * (u & 3))
                place = np.uint64((b * 16 + u) * 256 + 16 * j)
                if away >= 0:
                    flat, whole = np.int16(32767 if away == 0 else -32767), np.uint16(65535 * away)
                    for k in range(np.uint64(128)):
                        out[place + k] = flat
                    for k in range(np.uint64(8)):
                        bits[(place >> np.uint64(4)) + k] = whole
                    continue
                if line == 0:
                    _brick(low, h, u, j, points)
                    _run(kept, start, numbers, samples, depth, at, 16, 512, room, rows)
                _keep_near(f, line, scale, place, out, quads, bits)


@kernel
def near(first, last, steps, numbers, samples, depth, blocks, origin, h, bits, quads, out):  # type: ignore[no-untyped-def]
    """out (n * 4096,) int16 = field at the samples of each block in h / 4096, within 8 h and never 0; bits (n * 256,) its
    signs, 16 to a word, set inside. quads is out as uint64."""
    rows, at = np.empty((depth[0], 512), np.float32), np.empty((depth[1], 3, 512), np.float32)
    room, kept, ball = np.empty((20, 144), np.float32), np.empty_like(steps), np.empty(depth[5], np.float32)
    scratch = (ball, kept, rows, at, room, np.empty(3))
    _near(first, last, (steps, numbers, samples, depth), blocks, origin, h, scratch, bits, quads, out)


@inlined
def _around(values, blocks, lookup, b, scale, out):  # type: ignore[no-untyped-def]
    """out (17 * 340,) float32 mm = samples of block b and the planes above it, 340 a plane and 20 a row; where no block is
    active no edge crosses, and the block after the last is read."""
    here, none = np.uint64(4096 * b), len(blocks)
    x, y, z = blocks[b, 0], blocks[b, 1], blocks[b, 2]
    above, beside, over = lookup[x + 1, y, z], lookup[x, y + 1, z], lookup[x, y, z + 1]
    first, second = (
        np.uint64(4096 * (above if above >= 0 else none)),
        np.uint64(4096 * (beside if beside >= 0 else none)),
    )
    third = np.uint64(4096 * (over if over >= 0 else none))
    for i in range(np.uint64(16)):
        plane, to = np.uint64(256) * i, np.uint64(340) * i
        for j in range(np.uint64(16)):
            at = plane + np.uint64(16) * j
            row = to + np.uint64(20) * j
            for k in range(np.uint64(16)):
                out[row + k] = scale * np.float32(values[here + at + k])
            out[row + np.uint64(16)] = scale * np.float32(values[third + at])
        row, at = np.uint64(16) * i, np.uint64(5440) + np.uint64(20) * i
        for k in range(np.uint64(16)):
            out[at + k] = scale * np.float32(values[first + row + k])
            out[to + np.uint64(320) + k] = scale * np.float32(values[second + plane + k])


@inlined
def _crossed(words, at, code, n, codes):  # type: ignore[no-untyped-def]
    """Adds a row's crossed edges to the list of n, as code + 16 * axis + place; their count then."""
    left = np.uint64(words[at]) | np.uint64(words[at + np.uint64(1)]) << np.uint64(16)
    left |= np.uint64(words[at + np.uint64(2)]) << np.uint64(32)
    while left:
        codes[n] = code + np.int32(lowest(left))
        left &= left - np.uint64(1)
        n += np.uint64(1)
    return n


@inlined
def _ends(codes, n, values, edge):  # type: ignore[no-untyped-def]
    """Rows 1 and 2 of edge = values at the ends of the first n edges, row 0 the linear guess between them. Rows are 512
    long and lie in one array: loops over several arrays are not done in wide words."""
    for i in range(np.uint64(n)):
        c = codes[i]
        on = c >> np.int32(4) & np.int32(3)
        at = np.int32(340) * (c >> np.int32(10)) + np.int32(20) * (c >> np.int32(6) & np.int32(15)) + (c & np.int32(15))
        step = np.int32(340) if on == 0 else (np.int32(20) if on == 1 else np.int32(1))
        edge[i + np.uint64(512)] = values[np.uint64(at)]
        edge[i + np.uint64(1024)] = values[np.uint64(at + step)]
    for i in range(np.uint64(n)):
        edge[i] = edge[i + np.uint64(512)] / (edge[i + np.uint64(512)] - edge[i + np.uint64(1024)])


@lean
def _point(codes, t, n, low, h, at):  # type: ignore[no-untyped-def]
    """Points at, x, y and z 512 apart, at shares t along the first n edges of a block with its low corner at low (3,)."""
    zero, a, b, d = np.float32(0), low[0], low[1], low[2]
    for i in range(np.uint64(n)):
        c, s = codes[i], t[i]
        on = c >> np.int32(4) & np.int32(3)
        at[i] = a + h * (np.float32(c >> np.int32(10)) + (s if on == 0 else zero))
        at[i + np.uint64(512)] = b + h * (np.float32(c >> np.int32(6) & np.int32(15)) + (s if on == 1 else zero))
        at[i + np.uint64(1024)] = d + h * (np.float32(c & np.int32(15)) + (s if on == 2 else zero))


@inlined
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


@inlined
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


@inlined
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


@inlined
def _solve(steps, start, numbers, samples, depth, codes, low, h, edge, n, left, at, room, rows, f):  # type: ignore[no-untyped-def]
    """Row 7 of edge = the zero along each edge, from the guess in row 0 and the values at its ends in rows 1 and 2."""
    done, tried, again = edge[3584:], edge[4096:], codes[n:]
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


@inlined
def _write(codes, low, limits, h, edge, n, margin, at, out, first):  # type: ignore[no-untyped-def]
    """out (3 n,) from first on = the vertices at shares row 7 of the first n edges; whether one is beyond limits (6,)."""
    one = np.float32(1)
    for i in range(np.uint64(n)):
        edge[i + np.uint64(3584)] = min(max(edge[i + np.uint64(3584)], margin), one - margin)
    _point(codes, edge[3584:], n, low, h, at)
    a, b, c, d, e, f = limits[0], limits[1], limits[2], limits[3], limits[4], limits[5]
    beyond = np.uint8(0)
    for i in range(np.uint64(n)):
        x, y, z = at[i], at[i + np.uint64(512)], at[i + np.uint64(1024)]
        beyond |= np.uint8((x < a) | (y < b) | (z < c) | (x > d) | (y > e) | (z > f))
    for i in range(np.uint64(n)):
        q = first + np.uint64(3) * i
        out[q], out[q + np.uint64(1)], out[q + np.uint64(2)] = at[i], at[i + np.uint64(512)], at[i + np.uint64(1024)]
    return beyond


@lean
def _vertices(first, last, field, blocks, lookup, values, words, offsets, place, began, scratch, beyond, flat):  # type: ignore[no-untyped-def]
    """See vertices."""
    (steps, numbers, samples, depth), (origin, h, margin, shift, limits) = field, place
    ball, kept, rows, at, room, edge, near, low, moved, codes, left = scratch
    step, small, f = np.float32(h), np.float32(margin), rows[depth[2]]
    for b in range(first, last):
        for a in range(3):
            low[a] = np.float32(origin[a] + h * (16 * blocks[b, a]))
            ball[a] = low[a] + 8 * h
            moved[a] = low[a] + shift[a]
        ball[3] = 13.95 * h
        start = _pruned(steps, numbers, samples, depth, ball, kept)
        _around(values, blocks, lookup, b, np.float32(h / 4096), near)
        n, to, wrong = np.uint64(0), np.uint64(offsets[b] - offsets[began]), np.uint8(0)
        for row in range(256):
            n = _crossed(words, np.uint64(1024 * b + 4 * row), np.int32(row << 6), n, codes)
            if n > 464 or row == 255:
                _ends(codes, n, near, edge)
                _solve(kept, start, numbers, samples, depth, codes, low, step, edge, n, left, at, room, rows, f)
                wrong |= _write(codes, moved, limits, step, edge, n, small, at, flat, np.uint64(3) * to)
                to += n
                n = np.uint64(0)
        beyond[b] = wrong


@kernel
def vertices(  # type: ignore[no-untyped-def]
    first, last, steps, numbers, samples, depth, blocks, lookup, values, words, offsets, place, began, beyond, out
):
    """Vertices (m,3) float32 mm of blocks first..last, in the order of flying.edges, those of block `began` first: linear
    guess from values ((n + 1) * 4096,) as near() gives them, 32767 in the last block, then looks at the field. place =
    (origin (3,), h, margin, what to add (3,) float32, limits (6,) float32); beyond (n,) = whether a vertex of a block is
    outside the limits."""
    rows, at = np.empty((depth[0], 512), np.float32), np.empty(1536 * depth[1], np.float32)
    room, kept, ball = np.empty((20, 144), np.float32), np.empty_like(steps), np.empty(depth[5], np.float32)
    low, moved = np.empty(3, np.float32), np.empty(3, np.float32)
    edge, near = np.empty(4608, np.float32), np.empty(5780, np.float32)
    scratch = (ball, kept, rows, at, room, edge, near, low, moved, np.empty(1024, np.int32), np.empty(513, np.int32))
    field = (steps, numbers, samples, depth)
    _vertices(
        first, last, field, blocks, lookup, values, words, offsets, place, began, scratch, beyond, out.reshape(-1)
    )
