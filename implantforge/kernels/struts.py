"""Distance to the centre lines of struts on the nodes of a tile."""

import numpy as np

from implantforge.kernels.jit import helper, kernel, parallel_kernel, prange


@parallel_kernel
def line_distance(lines, step, reach, out):  # type: ignore[no-untyped-def]
    """out (i,j,k) = distance of node step * (i,j,k) to the nearest line of lines (n,6) = start, end; at most reach."""
    for i in prange(out.shape[0]):
        plane = out[i]
        x = step * i
        plane[:] = reach * reach
        for n in range(len(lines)):
            a, d = lines[n, :3], lines[n, 3:] - lines[n, :3]
            if x < min(a[0], a[0] + d[0]) - reach or x > max(a[0], a[0] + d[0]) + reach:
                continue
            j0 = max(int(np.ceil((min(a[1], a[1] + d[1]) - reach) / step)), 0)
            j1 = min(int(np.floor((max(a[1], a[1] + d[1]) + reach) / step)) + 1, out.shape[1])
            k0 = max(int(np.ceil((min(a[2], a[2] + d[2]) - reach) / step)), 0)
            k1 = min(int(np.floor((max(a[2], a[2] + d[2]) + reach) / step)) + 1, out.shape[2])
            dd = max(d[0] * d[0] + d[1] * d[1] + d[2] * d[2], 1e-30)
            u = x - a[0]
            for j in range(j0, j1):
                v = step * j - a[1]
                first = (u * d[0] + v * d[1]) / dd
                for k in range(k0, k1):
                    w = step * k - a[2]
                    t = min(max(first + w * d[2] / dd, 0.0), 1.0)
                    p, q, r = u - t * d[0], v - t * d[1], w - t * d[2]
                    square = p * p + q * q + r * r
                    if square < plane[j, k]:
                        plane[j, k] = square
        for j in range(out.shape[1]):
            for k in range(out.shape[2]):
                plane[j, k] = np.sqrt(plane[j, k])


@helper
def _bin_span(s, low, bin_mm, shape, reach, out):  # type: ignore[no-untyped-def]
    """out (6,) = first and last bin along each axis that a strut may come within reach of."""
    for a in range(3):
        first = np.floor((min(s[a], s[3 + a]) - reach - low[a]) / bin_mm)
        last = np.floor((max(s[a], s[3 + a]) + reach - low[a]) / bin_mm)
        out[a], out[3 + a] = max(int(first), 0), min(int(last), shape[a] - 1)


@kernel
def net_bins(struts, low, bin_mm, shape, reach, starts, items):  # type: ignore[no-untyped-def]
    """Struts (m,8) that come within reach of each bin's middle and half its diagonal: starts (bins + 1,) of their numbers
    in items. With no items, starts alone is worked out."""
    span = np.empty(6, np.int64)
    wide = (reach + 0.8661 * bin_mm) ** 2
    fill = len(items) > 0
    for m in range(len(struts)):
        s = struts[m]
        _bin_span(s, low, bin_mm, shape, reach, span)
        d, e, f = s[3] - s[0], s[4] - s[1], s[5] - s[2]
        inverse = 1.0 / (d * d + e * e + f * f + 1e-30)
        for i in range(span[0], span[3] + 1):
            u = low[0] + (i + 0.5) * bin_mm - s[0]
            for j in range(span[1], span[4] + 1):
                v = low[1] + (j + 0.5) * bin_mm - s[1]
                for k in range(span[2], span[5] + 1):
                    w = low[2] + (k + 0.5) * bin_mm - s[2]
                    t = min(max((u * d + v * e + w * f) * inverse, 0.0), 1.0)
                    if (u - t * d) ** 2 + (v - t * e) ** 2 + (w - t * f) ** 2 < wide:
                        b = (i * shape[1] + j) * shape[2] + k
                        if fill:
                            items[starts[b]] = m
                            starts[b] += 1
                        else:
                            starts[b + 1] += 1
    if fill:
        # filled starts are the next ones'
        for b in range(len(starts) - 1, 0, -1):
            starts[b] = starts[b - 1]
        starts[0] = 0
    else:
        for b in range(1, len(starts)):
            starts[b] += starts[b - 1]


@parallel_kernel
def net_distance(struts, starts, items, origin, bin_mm, shape, reach, points, out):  # type: ignore[no-untyped-def]
    """out (n,) = distance of points (n,3) to the nearest strut of struts (m,9) = start, way, radius at the start, its
    growth to the end, 1 / length^2; at most reach. Struts near bin b are items[starts[b]:starts[b + 1]]."""
    each = 1.0 / bin_mm
    for c in prange((len(points) + 255) // 256):
        for n in range(np.int64(c) * 256, min(np.int64(c) * 256 + 256, len(points))):
            x, y, z = points[n, 0], points[n, 1], points[n, 2]
            i = int(np.floor((x - origin[0]) * each))
            j = int(np.floor((y - origin[1]) * each))
            k = int(np.floor((z - origin[2]) * each))
            best = reach
            if 0 <= i < shape[0] and 0 <= j < shape[1] and 0 <= k < shape[2]:
                b = (i * shape[1] + j) * shape[2] + k
                for m in range(starts[b], starts[b + 1]):
                    q = items[m]
                    u, v, w = x - struts[q, 0], y - struts[q, 1], z - struts[q, 2]
                    d, e, f = struts[q, 3], struts[q, 4], struts[q, 5]
                    t = min(max((u * d + v * e + w * f) * struts[q, 8], 0.0), 1.0)
                    u, v, w = u - t * d, v - t * e, w - t * f
                    radius = struts[q, 6] + t * struts[q, 7]
                    square, near = u * u + v * v + w * w, best + radius
                    if square < near * near and near > 0:
                        best = np.sqrt(square) - radius
            out[n] = best
