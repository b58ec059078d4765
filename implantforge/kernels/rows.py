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
            room = np.empty((3, 144), np.float32)
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
        room, kept = np.empty((3, 144), np.float32), np.empty_like(steps)
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
def _guess(codes, low, h, edge, n, at):  # type: ignore[no-untyped-def]
    """Points at of the linear guess edge[0] on the first n edges, from the values edge[1] and edge[2] at their ends."""
    zero, x, y, z, t = np.float32(0), low[0], low[1], low[2], edge[0]
    for i in range(n):
        c = codes[i]
        t[i] = edge[1, i] / (edge[1, i] - edge[2, i])
        on = c & np.int32(3)
        at[0, i] = x + h * (np.float32(c >> np.int32(10)) + (t[i] if on == 0 else zero))
        at[1, i] = y + h * (np.float32(c >> np.int32(6) & np.int32(15)) + (t[i] if on == 1 else zero))
        at[2, i] = z + h * (np.float32(c >> np.int32(2) & np.int32(15)) + (t[i] if on == 2 else zero))


@helper
def _first_look(f, edge, n, left):  # type: ignore[no-untyped-def]
    """Newton step along each edge with the slope of the parabola through both ends and the look; places of edges where
    these do not agree well enough, and how many."""
    zero, one = np.float32(0), np.float32(1)
    t, low, high, bad = edge[0], edge[1], edge[2], edge[3]
    for i in range(n):
        before, after = (f[i] - low[i]) / t[i], (high[i] - f[i]) / (one - t[i])
        slope = before + (after - before) * t[i]
        step = -f[i] / slope
        doubt = abs(step * (after - before)) - np.float32(0.03) * abs(slope)
        good = (doubt <= zero) & (abs(step) <= np.float32(0.3)) & (t[i] + step > zero) & (t[i] + step < one)
        bad[i] = zero if good or f[i] == zero else one
        edge[4, i] = t[i] + step if good else t[i]
    many = 0
    for i in range(n):
        left[many] = i
        many += bad[i] > zero
    for m in range(many):
        i = left[m]
        # the bracket after this look; rows 3 to 6 are lo, hi and their values
        inner = (f[i] < zero) == (low[i] < zero)
        edge[3, i], edge[4, i], edge[5, i], edge[6, i] = zero, t[i], low[i], f[i]
        if inner:
            edge[3, i], edge[4, i], edge[5, i], edge[6, i] = t[i], one, f[i], high[i]
    return many


@helper
def _next_look(f, edge, i, halve, tolerance):  # type: ignore[no-untyped-def]
    """Shrinks the bracket by a look at t and moves t inside it; whether that is good enough."""
    t = edge[0, i]
    if f == 0 or not (edge[3, i] < t < edge[4, i]):
        return True
    side = 3 if (f < 0) == (edge[5, i] < 0) else 4
    edge[side, i], edge[side + 2, i] = t, f
    guess = edge[3, i] + (edge[4, i] - edge[3, i]) * edge[5, i] / (edge[5, i] - edge[6, i])
    if abs(f) <= tolerance:
        edge[0, i] = guess if abs(guess - t) <= np.float32(0.05) else t  # grazing edge: nothing would check a leap
        return True
    edge[0, i] = np.float32(0.5) * (edge[3, i] + edge[4, i]) if halve else guess
    return False


@helper
def _solve(steps, start, numbers, samples, depth, codes, low, h, edge, n, left, at, room, rows):  # type: ignore[no-untyped-def]
    """edge[4,:n] = the zero along each edge; edge[1] and edge[2] are the values at its ends."""
    many = n
    for look in range(13):  # even last: after a halving the end would be unchecked
        if look:
            for m in range(many):
                i = left[m]
                c = codes[i]
                if look == 1:
                    t = edge[3, i] + (edge[4, i] - edge[3, i]) * edge[5, i] / (edge[5, i] - edge[6, i])
                    edge[0, i] = t
                at[0, 0, m] = low[0] + h * np.float32(c >> np.int32(10))
                at[0, 1, m] = low[1] + h * np.float32(c >> np.int32(6) & np.int32(15))
                at[0, 2, m] = low[2] + h * np.float32(c >> np.int32(2) & np.int32(15))
                at[0, c & 3, m] += h * edge[0, i]
        else:
            _guess(codes, low, h, edge, n, at[0])
        _run(steps, start, numbers, samples, depth, at, 0, many, room, rows)
        if look == 0:
            many = _first_look(rows[depth[2]], edge, n, left)
            done = edge[4, :n].copy()
        else:
            kept = 0
            for m in range(many):
                i = left[m]
                left[kept] = i
                kept += not _next_look(rows[depth[2], m], edge, i, look > 2 and look % 2 == 1, np.float32(5e-3) * h)
                done[i] = edge[0, i]
            many = kept
        if many == 0:
            break
    edge[4, :n] = done


@helper
def _far_values(values, blocks, lookup, b, a, out):  # type: ignore[no-untyped-def]
    """out (16,16) = first plane across axis a of the block above b; where none is active no edge crosses."""
    other = lookup[blocks[b, 0] + (a == 0), blocks[b, 1] + (a == 1), blocks[b, 2] + (a == 2)]
    for i in range(16):
        for j in range(16):
            if other < 0:
                out[i, j] = 32767 if other == -1 else -32767
            else:
                u, v, w = (0, i, j) if a == 0 else ((i, 0, j) if a == 1 else (i, j, 0))
                out[i, j] = values[other, u, v, w]


@helper
def _row_edges(row, ahead, word, code, n, edge, codes):  # type: ignore[no-untyped-def]
    """Adds the crossed edges between two rows of values to the list of n; their count then."""
    left = np.uint32(word)
    while left:
        k = np.uint64(lowest(left))
        left &= left - np.uint32(1)
        edge[1, n], edge[2, n], codes[n] = row[k], ahead[k], code + 4 * k
        n += 1
    return n


@helper
def _write(codes, low, h, edge, n, margin, shift, first, out):  # type: ignore[no-untyped-def]
    zero, one = np.float32(0), np.float32(1)
    for i in range(n):
        c, t = codes[i], min(max(edge[4, i], margin), one - margin)
        on = c & np.int32(3)
        x = np.float32(c >> np.int32(10)) + (t if on == 0 else zero)
        y = np.float32(c >> np.int32(6) & np.int32(15)) + (t if on == 1 else zero)
        z = np.float32(c >> np.int32(2) & np.int32(15)) + (t if on == 2 else zero)
        out[first + i, 0], out[first + i, 1] = low[0] + h * x + shift[0], low[1] + h * y + shift[1]
        out[first + i, 2] = low[2] + h * z + shift[2]


@parallel_kernel
def vertices(steps, numbers, samples, depth, blocks, lookup, values, words, offsets, place, first, last, out):  # type: ignore[no-untyped-def]
    """Vertices (m,3) float32 mm of blocks first..last, in the order of flying.edges: linear guess from values as near()
    gives them, then looks at the field. place = (origin (3,), h, margin, what to add (3,) float32)."""
    origin, h, margin, shift = place
    for b in prange(first, last):
        rows, at = np.empty((depth[0], 512), np.float32), np.empty((depth[1], 3, 512), np.float32)
        edge, codes, left = np.empty((7, 512), np.float32), np.empty(512, np.int32), np.empty(513, np.int32)
        room, far, line = np.empty((3, 144), np.float32), np.empty((3, 16, 16), np.int16), np.empty(17, np.int16)
        ball, kept, low = np.empty(6, np.float32), np.empty_like(steps), np.empty(3, np.float32)
        unit, step = np.float32(h / 4096), np.float32(h)
        for a in range(3):
            low[a] = np.float32(origin[a] + h * (16 * blocks[b, a]))
            ball[a] = low[a] + 8 * h
            _far_values(values, blocks, lookup, b, a, far[a])
        ball[3] = 13.95 * h
        start = _pruned(steps, numbers, samples, depth, ball, kept)
        n, at_first = 0, offsets[b] - offsets[first]
        for i in range(16):
            for j in range(16):
                row, code, word = values[b, i, j], i << 10 | j << 6, words[b, i, j]
                over = values[b, i + 1, j] if i < 15 else far[0, j]
                beside = values[b, i, j + 1] if j < 15 else far[1, i]
                n = _row_edges(row, over, word[0], code, n, edge, codes)
                n = _row_edges(row, beside, word[1], code | 1, n, edge, codes)
                if word[2]:
                    line[:16] = row
                    line[16] = far[2, i, j]
                    n = _row_edges(row, line[1:], word[2], code | 2, n, edge, codes)
                if n > 464 or (i == 15 and j == 15):
                    for m in range(n):
                        edge[1, m] *= unit
                        edge[2, m] *= unit
                    _solve(kept, start, numbers, samples, depth, codes, low, step, edge, n, left, at, room, rows)
                    _write(codes, low, step, edge, n, np.float32(margin), shift, at_first, out)
                    at_first += n
                    n = 0
