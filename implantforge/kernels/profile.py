"""Bone edges fitted to raw voxels: a layer (marrow, cortex, flesh) behind a gaussian blur, one least-squares fit a vertex.

The voxels around a normal are compared with the blurred layer at their own depth, so nothing is interpolated and the
blur is the scanner's alone. The model after Treece et al. 2010 (Med Image Anal 14:276); the far side of thin plates and
the bone beyond a joint space are layers of the same model.
"""

import numpy as np

from implantforge.kernels.jit import helper, kernel


@helper
def _step(table, z):  # type: ignore[no-untyped-def]
    """Cumulative normal and its density at z, from a table over -5..5 in steps of 1/64."""
    x = (z + 5.0) * 64.0
    if x <= 0.0:
        return 0.0, 0.0
    if x >= 639.0:
        return 1.0, 0.0
    i = int(x)
    rise = table[i + 1] - table[i]
    return table[i] + (x - i) * rise, 64.0 * rise


@helper
def _walk(labels, own, spacing, p, n, first, last, step):  # type: ignore[no-untyped-def]
    """Way along n from first to last (mm) to the first voxel that is not own (step < 0) or is another bone (step > 0);
    1e9 when there is none."""
    t = first
    while (step > 0 and t <= last) or (step < 0 and t >= last):
        i = int(np.floor((p[0] + t * n[0]) / spacing[0] + 0.5))
        j = int(np.floor((p[1] + t * n[1]) / spacing[1] + 0.5))
        k = int(np.floor((p[2] + t * n[2]) / spacing[2] + 0.5))
        if 0 <= i < labels.shape[0] and 0 <= j < labels.shape[1] and 0 <= k < labels.shape[2]:
            value = labels[i, j, k]
            if (step < 0 and value != own) or (step > 0 and value != own and value != 0):
                return t
        t += step
    return 1e9


@helper
def _gather(hu, labels, own, spacing, p, n, reach, gap, bend, ts, values, weights):  # type: ignore[no-untyped-def]
    """Voxels around the normal: depth t (mm, outward), HU and weight; returns how many. reach = (inward, outward) mm."""
    a = 0
    for c in range(3):
        if abs(n[c]) / spacing[c] > abs(n[a]) / spacing[a]:
            a = c
    b, c = (a + 1) % 3, (a + 2) % 3
    rate = n[a] / spacing[a]
    at = p[a] / spacing[a]
    lo, hi = at - reach[0] * rate, at + reach[1] * rate
    if lo > hi:
        lo, hi = hi, lo
    count = 0
    index = np.empty(3, np.int64)
    for layer in range(max(int(np.ceil(lo)), 0), min(int(np.floor(hi)), hu.shape[a] - 1) + 1):
        t0 = (layer - at) / rate
        ub, uc = (p[b] + t0 * n[b]) / spacing[b], (p[c] + t0 * n[c]) / spacing[c]
        ib, ic = int(np.floor(ub)), int(np.floor(uc))
        index[a] = layer
        for q in range(4):
            index[b], index[c] = ib + (q & 1), ic + (q >> 1)
            weight = (1.0 - abs(index[b] - ub)) * (1.0 - abs(index[c] - uc))
            if weight < 0.02 or index[b] < 0 or index[c] < 0:
                continue
            if index[b] >= hu.shape[b] or index[c] >= hu.shape[c]:
                continue
            t, square = 0.0, 0.0
            for d in range(3):
                way = index[d] * spacing[d] - p[d]
                t += way * n[d]
                square += way * way
            t += 0.5 * bend * max(square - t * t, 0.0)
            if t < -reach[0] or t > reach[1] or t > gap + 0.4:
                continue
            ts[count] = t
            values[count] = hu[index[0], index[1], index[2]]
            weights[count] = weight
            count += 1
    return count


@helper
def _model(table, x, thick, narrow, t, use, slope):  # type: ignore[no-untyped-def]
    """HU at depth t and its slope by the parameters x = edge, ln cortex thickness, marrow, cortex, flesh, far edge,
    next bone's edge, next bone's level, ln blur; thick = exp(x[1]), narrow = exp(-x[8])."""
    far, near = use[5] > 0, use[6] > 0
    solid = far and 2.0 * thick >= x[0] - x[5]
    outer, outer_d = _step(table, (t - x[0]) * narrow)
    inner, inner_d = 0.0, 0.0
    back, back_d, rear, rear_d = 1.0, 0.0, 1.0, 0.0
    if not solid:
        inner, inner_d = _step(table, (t - x[0] + thick) * narrow)
        if far:
            back, back_d = _step(table, (t - x[5] - thick) * narrow)
    if far:
        rear, rear_d = _step(table, (t - x[5]) * narrow)
    marrow = 0.0 if solid else back - inner
    flesh = outer + 1.0 - rear
    cortex = 1.0 - marrow - flesh
    step_in, step_out = x[3] - x[2], x[4] - x[3]
    slope[0] = -(step_in * inner_d + step_out * outer_d) * narrow
    slope[1] = step_in * (inner_d + back_d) * thick * narrow
    slope[2], slope[3], slope[4] = marrow, cortex, flesh
    slope[5] = (step_out * rear_d + step_in * back_d) * narrow
    slope[8] = -(step_in * inner_d * (t - x[0] + thick) + step_out * outer_d * (t - x[0])) * narrow
    slope[8] += (step_in * back_d * (t - x[5] - thick) + step_out * rear_d * (t - x[5])) * narrow
    slope[6] = slope[7] = 0.0
    value = x[2] * marrow + x[3] * cortex + x[4] * flesh
    if near:
        beyond, beyond_d = _step(table, (t - x[6]) * narrow)
        value += (x[7] - x[4]) * beyond
        slope[4] -= beyond
        slope[6] = -(x[7] - x[4]) * beyond_d * narrow
        slope[7] = beyond
        slope[8] -= (x[7] - x[4]) * beyond_d * (t - x[6]) * narrow
    return value


@helper
def _plain(table, x, ts, values, weights, count, matrix, right):  # type: ignore[no-untyped-def]
    """Adds the data's part of _normal where the bone has no far side and no neighbour and its blur is held: the usual
    case, in scalars, which takes half the time."""
    thick, narrow = np.exp(x[1]), np.exp(-x[8])
    step_in, step_out = x[3] - x[2], x[4] - x[3]
    cost = 0.0
    m00 = m10 = m11 = m20 = m21 = m22 = m30 = m31 = m32 = m33 = m40 = m41 = m42 = m43 = m44 = 0.0
    r0 = r1 = r2 = r3 = r4 = 0.0
    for v in range(count):
        t = (ts[v] - x[0]) * narrow
        outer, outer_d = _step(table, t)
        inner, inner_d = _step(table, t + thick * narrow)
        marrow, cortex = 1.0 - inner, inner - outer
        a = -(step_in * inner_d + step_out * outer_d) * narrow
        b = step_in * inner_d * thick * narrow
        miss = values[v] - x[2] * marrow - x[3] * cortex - x[4] * outer
        w = weights[v]
        cost += w * miss * miss
        wa, wb, wc, wd, we = w * a, w * b, w * marrow, w * cortex, w * outer
        r0, r1, r2, r3, r4 = r0 + wa * miss, r1 + wb * miss, r2 + wc * miss, r3 + wd * miss, r4 + we * miss
        m00 += wa * a
        m10, m11 = m10 + wb * a, m11 + wb * b
        m20, m21, m22 = m20 + wc * a, m21 + wc * b, m22 + wc * marrow
        m30, m31, m32, m33 = m30 + wd * a, m31 + wd * b, m32 + wd * marrow, m33 + wd * cortex
        m40, m41, m42, m43, m44 = m40 + we * a, m41 + we * b, m42 + we * marrow, m43 + we * cortex, m44 + we * outer
    rows = ((m00, 0.0, 0.0, 0.0, 0.0), (m10, m11, 0.0, 0.0, 0.0), (m20, m21, m22, 0.0, 0.0), (m30, m31, m32, m33, 0.0),
            (m40, m41, m42, m43, m44))  # fmt: skip
    rights = (r0, r1, r2, r3, r4)
    for r in range(5):
        right[r] += rights[r]
        for c in range(r + 1):
            matrix[r, c] += rows[r][c]
    return cost


@helper
def _normal(table, x, mean, tight, use, size, ts, values, weights, count, matrix, right, slope):  # type: ignore[no-untyped-def]
    """Cost at x, and the normal matrix and right side (data and prior) there; the first `size` parameters only."""
    cost = 0.0
    for r in range(size):
        off = mean[r] - x[r]
        pull = tight[r] * use[r]
        cost += pull * off * off
        right[r] = pull * off
        for c in range(r):
            matrix[r, c] = 0.0
        matrix[r, r] = pull
    if size == 5:
        return cost + _plain(table, x, ts, values, weights, count, matrix, right)
    thick, narrow = np.exp(x[1]), np.exp(-x[8])
    for v in range(count):
        miss = values[v] - _model(table, x, thick, narrow, ts[v], use, slope)
        cost += weights[v] * miss * miss
        for r in range(size):
            w = weights[v] * slope[r]
            right[r] += w * miss
            for c in range(r + 1):
                matrix[r, c] += w * slope[c]
    return cost


@helper
def _solve(matrix, use, size, damp, right, factor, out):  # type: ignore[no-untyped-def]
    """out = damped solution by Cholesky over the parameters in use; False when the matrix is not positive."""
    for r in range(size):
        out[r] = 0.0
        if use[r] == 0:
            continue
        for c in range(r + 1):
            if use[c] == 0:
                continue
            total = matrix[r, c] * (1.0 + damp if r == c else 1.0)
            for m in range(c):
                if use[m] > 0:
                    total -= factor[r, m] * factor[c, m]
            if r == c:
                if total <= 0.0:
                    return False
                factor[r, r] = np.sqrt(total)
            else:
                factor[r, c] = total / factor[c, c]
    for r in range(size):
        if use[r] > 0:
            total = right[r]
            for m in range(r):
                if use[m] > 0:
                    total -= factor[r, m] * out[m]
            out[r] = total / factor[r, r]
    for q in range(size):
        r = size - 1 - q
        if use[r] > 0:
            total = out[r]
            for m in range(r + 1, size):
                if use[m] > 0:
                    total -= factor[m, r] * out[m]
            out[r] = total / factor[r, r]
    return True


@helper
def _descend(  # type: ignore[no-untyped-def]
    table, x, mean, tight, use, size, ts, values, weights, count, rounds, near, state, trial, move, slope, factor
):
    """Levenberg-Marquardt from x, in place, until the edge moves less than `near`; returns the cost. state (2,10,9):
    normal matrix and right side (row 9) at x in the first, at the trial in the second."""
    damp = 1e-2
    cost = _normal(table, x, mean, tight, use, size, ts, values, weights, count, state[0, :9], state[0, 9], slope)
    trial[:] = x
    for _ in range(rounds):
        if not _solve(state[0, :9], use, size, damp, state[0, 9], factor, move):
            break
        for r in range(size):
            trial[r] = x[r] + move[r]
        trial[1] = min(max(trial[1], -1.6), 2.3)
        trial[8] = min(max(trial[8], -2.0), 1.5)
        fresh = _normal(
            table, trial, mean, tight, use, size, ts, values, weights, count, state[1, :9], state[1, 9], slope
        )
        if fresh < cost:
            small = abs(trial[0] - x[0]) < near and cost - fresh < 1e-3 * cost
            x[:] = trial
            state[0] = state[1]
            cost = fresh
            damp *= 0.2
            if small:
                break
        else:
            damp = max(10.0 * damp, 1e-2)
            if damp > 1e4:
                break
    return cost


@helper
def _guess(ts, values, count, x):  # type: ignore[no-untyped-def]
    """Edge, thickness and cortex level put into x by half-maximum over bins of 0.5 mm, where they show."""
    total, many = np.zeros(24), np.zeros(24)
    for v in range(count):
        q = min(max(int((ts[v] + 6.0) * 2.0), 0), 23)
        total[q] += values[v]
        many[q] += 1.0
    peak, where = -1e9, -1
    for q in range(6, 14):
        if many[q] > 0 and total[q] / many[q] > peak:
            peak, where = total[q] / many[q], q
    low = peak
    for q in range(where + 1, 24):
        if many[q] > 0 and where >= 0:
            low = min(low, total[q] / many[q])
    if where < 0 or peak - low < 60.0:
        return
    half = 0.5 * (peak + low)
    ends = np.zeros(2)
    for way in range(2):
        last, at = peak, 0.5 * where - 5.75
        ends[way] = 9.0 if way == 0 else -9.0
        q = where
        while 0 < q < 23:
            q += 1 if way == 0 else -1
            if many[q] > 0:
                now = total[q] / many[q]
                if now < half:
                    ends[way] = at + (last - half) / max(last - now, 1.0) * (0.5 * q - 5.75 - at)
                    break
                last, at = now, 0.5 * q - 5.75
    if ends[0] < 8.0:
        x[0] = min(max(ends[0], -1.8), 1.8)
        x[3] = max(peak, 300.0)
        x[1] = np.log(min(max(ends[0] - ends[1] - 0.4, 0.8), 4.5))


@helper
def _expect(n, spacing, blur, gap, far, centre, pull, use):  # type: ignore[no-untyped-def]
    """Completes the prior by what is around: blur along the normal, far side, next bone; and which parameters count."""
    square, pixel = 0.0, 0.0
    for c in range(3):
        square += (blur[c] * n[c]) ** 2
        pixel += abs(n[c]) * spacing[c]
    use[8] = int(pull[8] >= 0.0)
    use[5] = int(far < 1e8)
    use[6] = use[7] = int(gap < 1e8)
    centre[8], pull[8] = 0.5 * np.log(square), max(pull[8], 0.0)
    centre[5], pull[5] = far + 0.1, 1.0 / (0.5 * pixel) ** 2
    centre[6], pull[6] = gap - 0.1, 1.0 / (0.5 * pixel) ** 2
    centre[7], pull[7] = centre[3], 1.0 / 400.0**2


@helper
def _weigh(ts, count, noise, weights):  # type: ignore[no-untyped-def]
    """Weights divided by the variance expected at each depth; returns their sum in units of a voxel's noise."""
    total = 0.0
    for q in range(count):
        inner, outer = min(max((-ts[q] - 1.2) / 2.0, 0.0), 1.0), min(max((ts[q] - 0.8) / 1.2, 0.0), 1.0)
        weights[q] /= noise[0] ** 2 + (noise[1] * inner) ** 2 + (noise[2] * outer) ** 2
        total += weights[q] * noise[0] ** 2
    return max(total, 1e-9)


@helper
def _doubts(x, centre, pull, use, size, matrix, right, unit, factor, move, out):  # type: ignore[no-untyped-def]
    """Variances of edge and ln blur at the solution, then what the scan alone says of cortex and flesh: one step without
    what was expected of them and of the thickness. Uses matrix and right up."""
    unit[:] = 0.0
    unit[0] = 1.0
    out[9] = move[0] if _solve(matrix, use, size, 0.0, unit, factor, move) else 1e9
    unit[0], unit[8] = 0.0, 1.0
    out[18] = move[8] if use[8] > 0 and _solve(matrix, use, size, 0.0, unit, factor, move) else 1e9
    for r in (1, 3, 4):
        matrix[r, r] += 1e-9 - pull[r]
        right[r] -= pull[r] * (centre[r] - x[r])
    for r in (3, 4):
        out[2 * r + 4], out[2 * r + 5] = x[r], 1e9
        unit[:] = 0.0
        unit[r] = 1.0
        if _solve(matrix, use, size, 0.0, unit, factor, move) and move[r] < 1e6:
            out[2 * r + 5] = move[r]
            if _solve(matrix, use, size, 0.0, right, factor, move):
                out[2 * r + 4] = x[r] + move[r]


@kernel
def fit_edges(  # type: ignore[no-untyped-def]
    hu, labels, own, spacing, points, normals, bend, blur, reach, noise, mean, tight, begin, rounds, search, table, out
):
    """out (n,19) of the layer fitted at points (n,3) mm along normals: parameters 0-8 as in _model, variance of the edge,
    cortex and its variance by the scan alone, flesh and its variance likewise, residual over noise, voxels read, way to
    the next bone's label and to the far side's (1e9: none), variance of ln blur.

    hu int16, labels uint8 [i,j,k]; bend (n,) mean curvature 1/mm; blur (3,) standard deviation along the axes, mm;
    reach (2,) mm; noise (3,) HU: of a voxel, of marrow structure, of soft tissue; mean, tight (n,9) prior and its
    inverse variance (ln blur: tight >= 0 frees it, < 0 holds it); begin (n,9) where the descent of at most `rounds`
    starts; search: guess edge, thickness and cortex first. One thread: callers share points out among threads.
    """
    ts, values, weights = np.empty(400), np.empty(400), np.empty(400)
    x, trial, move, slope = np.empty(9), np.empty(9), np.empty(9), np.empty(9)
    state, factor = np.zeros((2, 10, 9)), np.zeros((9, 9))
    centre, pull, use = np.empty(9), np.empty(9), np.empty(9, np.int64)
    for v in range(len(points)):
        p, n = points[v], normals[v]
        state[:], factor[:] = 0.0, 0.0
        centre[:], pull[:], use[:] = mean[v], tight[v], 1
        gap = _walk(labels, own, spacing, p, n, 0.15, reach[1] + 1.2, 0.2)
        far = _walk(labels, own, spacing, p, n, -0.9, -reach[0] - 0.6, -0.2)
        count = _gather(hu, labels, own, spacing, p, n, reach, gap, bend[v], ts, values, weights)
        total = _weigh(ts, count, noise, weights)
        _expect(n, spacing, blur, gap, far, centre, pull, use)
        x[:5], x[5:] = begin[v, :5], centre[5:]
        if search:
            _guess(ts, values, count, x)
            if use[6] > 0:
                x[0] = min(x[0], 0.5 * gap)
        size = 9 if use[5] + use[6] + use[8] > 0 else 5
        cost = _descend(
            table, x, centre, pull, use, size, ts, values, weights, count, rounds, 0.01 if search else 0.002,
            state, trial, move, slope, factor,
        )  # fmt: skip
        out[v, :9] = x
        out[v, 14], out[v, 15], out[v, 16], out[v, 17] = cost / total, count, gap, far
        _doubts(x, centre, pull, use, size, state[0, :9], state[0, 9], trial, factor, move, out[v])
