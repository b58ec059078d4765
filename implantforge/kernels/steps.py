"""Fields that are evaluated without Python: a short list of steps on a few rows of values.

`steps` (m,8) int64 is an operation, where its numbers begin in `numbers`, the row it writes, up to two rows it reads, the
frame of coordinates a shape is read in, where its samples begin, and the address of its door; `samples` holds all sampled
arrays one after the other. Everything is float32 about a centre near by. Points come in chunks, all steps are loops over
the chunk, and a chunk runs only the steps that can matter there. Operations, in the order of geom/program.py: sphere,
plane, box, cone, round_cone, torus, capsule, samples, periodic, waves, add, negative, absolute, scale, ramp, min, max,
smooth_min, smooth_max, sum, length, over, moved, cylindrical, spherical, warped, copy.

Each kind of operation is a door, reached by address (jit.call): compiled once, and only when a field has such a step.
Leaves stand in kernels/leaves.py; changes and joins are (op, numbers, a, b, n, out), frames (op, numbers, old points, new
points, n). Rows and points are float32, 512 apart.
"""

import numpy as np

from implantforge.kernels.jit import at_address, call, door, inlined


@inlined
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


@door
def change(op, numbers_at, a_at, b_at, n, to_at, _, __, ___):  # type: ignore[no-untyped-def]
    """to = a + p[0] (10), -a (11), |a| (12), p[0] a (13) or the ramp of a (14)."""
    p, a = at_address(numbers_at, (1 << 10,), np.float32), at_address(a_at, (512,), np.float32)
    to = at_address(to_at, (512,), np.float32)
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
    return 0


@door
def join(op, numbers_at, a_at, b_at, n, to_at, _, __, ___):  # type: ignore[no-untyped-def]
    """to = min (15), max (16), their smooth forms (17, 18), the sum (19), the length (20), or a over b (21): clipped at
    p[0], and over p[2] where b is less than p[1]."""
    p, a = at_address(numbers_at, (1 << 10,), np.float32), at_address(a_at, (512,), np.float32)
    b, to = at_address(b_at, (512,), np.float32), at_address(to_at, (512,), np.float32)
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
    return 0


@door
def enter(op, numbers_at, old_at, new_at, n, _, __, ___, ____):  # type: ignore[no-untyped-def]
    """Points in a frame: moved (22), cylindrical (23), spherical (24); p = rotation (9), origin (3), reference radius.
    Cylindrical are (radius, arc at the reference radius, height), spherical (radius, arc along, arc up)."""
    p, old = at_address(numbers_at, (1 << 10,), np.float32), at_address(old_at, (3, 512), np.float32)
    new = at_address(new_at, (3, 512), np.float32)
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
    return 0


@door
def run(steps_at, count, numbers_at, samples_at, points_at, row, n, room_at, rows_at):  # type: ignore[no-untyped-def]
    """rows (.,512) float32: values of `count` steps at the first n of points (frames,3,512) float32, whose frame 0 is
    given; row = points to a straight row along z, or 0; room (20,144) float32 is for use."""
    steps, rows = at_address(steps_at, (count, 8), np.int64), at_address(rows_at, (1 << 20,), np.float32)
    at = at_address(points_at, (1 << 20,), np.float32)
    for s in range(count):
        op, to, a, b, c = steps[s, 0], steps[s, 2], steps[s, 3], steps[s, 4], steps[s, 5]
        p, to_at, a_at = numbers_at + 4 * steps[s, 1], rows_at + 2048 * to, rows_at + 2048 * a
        if op < 10:
            straight = 0 if c else row
            first = samples_at + 4 * steps[s, 6]
            call(steps[s, 7], op, p, first, points_at + 6144 * c, n, straight, room_at, to_at, 0)
        elif op < 22:
            call(steps[s, 7], op, p, a_at, rows_at + 2048 * b, n, to_at, 0, 0, 0)
        elif op < 25:
            call(steps[s, 7], op, p, points_at + 6144 * a, points_at + 6144 * to, n, 0, 0, 0, 0)
        elif op == 25:
            for i in range(n):
                q = 1536 * to + i
                at[q], at[q + 512], at[q + 1024] = rows[512 * a + i], rows[512 * b + i], rows[512 * c + i]
        else:
            for i in range(n):
                rows[512 * to + i] = rows[512 * a + i]
    return 0


@inlined
def _range(step, numbers, numbers_at, bound, bound_at):  # type: ignore[no-untyped-def]
    """Range of a step that is no leaf, from those of the rows it reads; the low end and the high end of rows of 512."""
    op, p, to, a, b = step[0], numbers[step[1] :], 512 * step[2], 512 * step[3], 512 * step[4]
    low, high, zero = bound[a], bound[a + 1], np.float32(0)
    if op == 11:
        bound[to], bound[to + 1] = -high, -low
    elif op == 12:
        bound[to], bound[to + 1] = max(low, -high, zero), max(-low, high)
    elif op == 20:
        top = max(max(-low, high), max(-bound[b], bound[b + 1]))
        bound[to], bound[to + 1] = zero, top + top
    elif op == 21:
        # nothing is known of a slope over a whole ball
        bound[to], bound[to + 1] = -p[0], p[0]
    else:
        call(step[7], op, numbers_at + 4 * step[1], bound_at + 4 * a, bound_at + 4 * b, 2, bound_at + 4 * to, 0, 0, 0)
        u, v = bound[to], bound[to + 1]
        if op < 15:
            bound[to], bound[to + 1] = min(u, v), max(u, v)  # falling ramps and negative scales turn the ends round
        if op == 14:
            for k in range(int(p[0])):
                if low < p[2 * k + 1] < high:
                    u = p[2 * k + 2]
                    bound[to], bound[to + 1] = min(bound[to], u), max(bound[to + 1], u)


@inlined
def _reach(op, p, at, radius):  # type: ignore[no-untyped-def]
    """Radius in the frame of a ball about a point, coordinates 512 apart; without bound where the ball meets the frame's
    axis."""
    if op == 22 or radius == 0:
        return radius
    a, b, c = at[0] - p[9], at[512] - p[10], at[1024] - p[11]
    t = a * p[2] + b * p[5] + c * p[8]
    away = np.sqrt(max(a * a + b * b + c * c - t * t, np.float32(0))) - radius
    return radius * max(np.float32(1), p[12] / away) if away > 1e-6 else np.float32(np.inf)


@inlined
def _bounds(steps, numbers, addresses, at, reach, bound, won):  # type: ignore[no-untyped-def]
    """bound, rows of 512, = ranges of all steps in the ball of reach[0] about at, and which side of a join won there: 0
    both, 1 the first, 2 the second. Before a leaf's numbers stand its steepest slope and its largest size. addresses of
    numbers, samples, at, room, bound."""
    numbers_at, samples_at, points_at, room_at, bound_at = addresses
    for s in range(len(steps)):
        op, first, to, a, b = steps[s, 0], steps[s, 1], 512 * steps[s, 2], steps[s, 3], steps[s, 4]
        p_at = numbers_at + 4 * first
        won[s] = 0
        if op < 10:
            frame, size = steps[s, 5], numbers[first - 1]
            samples = samples_at + 4 * steps[s, 6]
            call(steps[s, 7], op, p_at, samples, points_at + 6144 * frame, 1, 0, room_at, bound_at + 4 * to, 0)
            f = bound[to]
            # a little more than the slope allows: the ends are rounded
            slope = numbers[first - 2] * reach[frame] * np.float32(1.00001)
            slope += np.float32(1e-6) * abs(f) if reach[frame] > 0 else np.float32(0)
            bound[to] = max(f - slope, -size) if f == f else f
            bound[to + 1] = min(f + slope, size)
        elif op < 22:
            blend = numbers[first] if op > 16 else np.float32(0)  # smooth joins differ from plain ones within it
            one, two = (512 * a, 512 * b) if op & 1 else (512 * b, 512 * a)
            below, above = bound[one + 1] + blend < bound[two], bound[two + 1] + blend < bound[one]
            if 15 <= op < 19 and (below or above):
                won[s] = 1 if below else 2
            _range(steps[s], numbers, numbers_at, bound, bound_at)
        elif op < 25:
            reach[steps[s, 2]] = _reach(op, numbers[first:], at[1536 * a :], reach[a])
            call(steps[s, 7], op, p_at, points_at + 6144 * a, points_at + 6144 * steps[s, 2], 1, 0, 0, 0, 0)
        else:
            square = np.float32(0)
            for c in range(3):
                part = 512 * (a if c == 0 else (b if c == 1 else steps[s, 5]))
                half = np.float32(0.5) * (bound[part + 1] - bound[part])
                at[3 * to + 512 * c] = bound[part] + half
                square += half * half
            reach[steps[s, 2]] = np.sqrt(square)


@inlined
def _kept(steps, answer, won, live, frames, kept):  # type: ignore[no-untyped-def]
    """kept = the steps that the answer needs where joins are won, in order, from its end; returns where they start."""
    live[answer] = 1
    left = len(kept)
    for s in range(len(steps) - 1, -1, -1):
        op, to, a, b = steps[s, 0], steps[s, 2], steps[s, 3], steps[s, 4]
        if op >= 22:
            if frames[to] == 0:
                continue
            if op < 25:
                frames[a] = 1
            else:
                live[a], live[b], live[steps[s, 5]] = 1, True, True
        elif live[to] == 0:
            continue
        elif op < 10:
            live[to] = 0
            frames[steps[s, 5]] = 1
        else:
            live[to] = 0
            winner = a if won[s] == 1 else b
            if won[s] > 0:
                live[winner] = 1
                if winner == to:
                    continue
            else:
                live[a] = 1
                if op >= 15:
                    live[b] = 1
        left -= 1
        for c in range(8):
            kept[left, c] = steps[s, c]
        if won[s] > 0:
            kept[left, 0], kept[left, 3] = 26, winner
    return left


@door
def prune(steps_at, count, numbers_at, samples_at, rows, frames, answer, ball_at, kept_at):  # type: ignore[no-untyped-def]
    """kept (count,8) = the steps that the answer's row needs in a ball, from the place returned on. ball float32 is its
    middle (3), its radius, and takes the bounds of the answer in it (2); after these it is room for use: 2886 + 1538 frames
    + 513 rows + count."""
    steps, numbers = at_address(steps_at, (count, 8), np.int64), at_address(numbers_at, (1 << 30,), np.float32)
    ball = at_address(ball_at, (1 << 20,), np.float32)
    points, marks = 2886, 2886 + 1536 * frames + 512 * rows
    at, bound, reach = ball[points:], ball[points + 1536 * frames :], ball[marks:]
    used, live, won = ball[marks + frames :], ball[marks + 2 * frames :], ball[marks + 2 * frames + rows :]
    for a in range(3):
        at[512 * a] = ball[a]
    reach[0] = ball[3]
    bound_at = ball_at + 4 * (points + 1536 * frames)
    addresses = (numbers_at, samples_at, ball_at + 4 * points, ball_at + 24, bound_at)
    _bounds(steps, numbers, addresses, at, reach, bound, won)
    ball[4], ball[5] = bound[512 * answer], bound[512 * answer + 1]
    if kept_at == 0:
        return 0
    for r in range(rows):
        live[r] = 0
    for f in range(frames):
        used[f] = 0
    return _kept(steps, answer, won, live, used, at_address(kept_at, (count, 8), np.int64))
