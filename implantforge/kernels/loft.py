"""Distance to a body of stacked superellipse sections with a bullet tip below and a flat top."""

import numpy as np

from implantforge.kernels.jit import helper, parallel_kernel, prange


@helper
def _section(table, z_low, step, z, out):  # type: ignore[no-untyped-def]
    """out (8,): centre, medial, lateral, depth and their slopes at z, cubic Hermite between nodes of table (m,8)."""
    m = len(table)
    u = (z - z_low) / step
    if u <= 0.0 or u >= m - 1:
        row = 0 if u <= 0.0 else m - 1
        for c in range(4):
            out[c] = table[row, c]
            out[4 + c] = 0.0
        return
    i = int(u)
    t = u - i
    for c in range(4):
        p, q = table[i, c], table[i + 1, c]
        dp, dq = table[i, 4 + c] * step, table[i + 1, 4 + c] * step
        c2, c3 = 3 * (q - p) - 2 * dp - dq, 2 * (p - q) + dp + dq
        out[c] = p + t * (dp + t * (c2 + t * c3))
        out[4 + c] = (dp + t * (2 * c2 + t * 3 * c3)) / step


@helper
def _implicit(table, z_low, step, tip, exponent, p, s, g):  # type: ignore[no-untyped-def]
    """Gauge minus one at p (3,), negative inside; g (3,) its gradient; s (8,) scratch."""
    _section(table, z_low, step, p[2], s)
    x = p[0] - s[0]
    side = 1 if x >= 0 else 2
    width, depth = s[side], s[3]
    u, v = abs(x) / width, abs(p[1]) / depth
    un, vn = u ** (exponent - 1), v ** (exponent - 1)
    total = un * u + vn * v
    if total <= 0.0:
        g[0] = g[1] = 0.0
        f = 0.0
        g[2] = 0.0
    else:
        f = total ** (1.0 / exponent)
        scale = f / total
        g[0] = scale * un / width * (1.0 if x >= 0 else -1.0)
        g[1] = scale * vn / depth * (1.0 if p[1] >= 0 else -1.0)
        g[2] = -g[0] * s[4] - scale * (un * u * s[4 + side] / width + vn * v * s[7] / depth)
    tau = (z_low + tip - p[2]) / tip
    if tau > 0.0:
        whole = np.sqrt(f * f + tau * tau)
        for c in range(3):
            g[c] *= f / whole
        g[2] -= tau / (whole * tip)
        return whole - 1.0
    return f - 1.0


@helper
def _straight(s, exponent, room, p):  # type: ignore[no-untyped-def]
    """Way from an inner point to the section's outline along y or x: bounds the distance where the walk took a far
    foot."""
    x = p[0] - s[0]
    width = s[1] if x >= 0 else s[2]
    u, v = abs(x) / width, abs(p[1]) / s[3]
    along_y = s[3] * (max(room**exponent - u**exponent, 0.0) ** (1 / exponent) - v)
    along_x = width * (max(room**exponent - v**exponent, 0.0) ** (1 / exponent) - u)
    return max(min(along_x, along_y), 0.0)


@helper
def _side_distance(table, z_low, step, tip, exponent, z_top, rounds, p, q, s, g):  # type: ignore[no-untyped-def]
    """Signed distance from p to the side and tip, by walking q along the surface towards the foot of p."""
    value = _implicit(table, z_low, step, tip, exponent, p, s, g)
    inside = value < 0
    for c in range(3):
        q[c] = p[c]
    best = 1e30
    for turn in range(rounds):
        if turn:
            gg = g[0] * g[0] + g[1] * g[1] + g[2] * g[2] + 1e-30
            dot = ((p[0] - q[0]) * g[0] + (p[1] - q[1]) * g[1] + (p[2] - q[2]) * g[2]) / gg
            for c in range(3):
                q[c] += 0.7 * (p[c] - q[c] - dot * g[c])
        for again in range(2 if turn < 2 else 1):
            if q[2] > z_top:
                q[2] = z_top
            if turn or again:
                value = _implicit(table, z_low, step, tip, exponent, q, s, g)
            if q[2] >= z_top:
                g[2] = 0.0
            gg = g[0] * g[0] + g[1] * g[1] + g[2] * g[2]
            if gg < 1e-12:  # on the axis every direction is as good
                g[0] = 1.0 / s[1]
                gg = g[0] * g[0]
            for c in range(3):
                q[c] -= value * g[c] / gg
        far = (p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2 + (p[2] - q[2]) ** 2
        settled = far > best * 0.999 or far < 1e-4 * s[3] * s[3]
        best = min(best, far)
        if settled:
            break
    if not inside:
        return np.sqrt(best)
    _section(table, z_low, step, p[2], s)
    tau = max((z_low + tip - p[2]) / tip, 0.0)
    room = np.sqrt(max(1.0 - tau * tau, 0.0))
    return -min(np.sqrt(best), _straight(s, exponent, room, p))


@parallel_kernel
def loft_distance(table, z_low, step, z_top, tip, exponent, rounds, points, out):  # type: ignore[no-untyped-def]
    """out (n,) signed mm at points (n,3); table (m,8) centre, medial, lateral, depth and slopes at z_low + step *
    row."""
    for n in prange(len(points)):
        p, q, g, s = np.empty(3), np.empty(3), np.empty(3), np.empty(8)
        for c in range(3):
            p[c] = points[n, c]
        above = p[2] - z_top
        if above > 0.0:
            p[2] = z_top
        side = _side_distance(table, z_low, step, tip, exponent, z_top, rounds, p, q, s, g)
        if above > 0.0:
            out[n] = np.sqrt(above * above + max(side, 0.0) ** 2)
        else:
            out[n] = max(side, above)
