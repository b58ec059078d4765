"""Distance to the centre lines of struts on the nodes of a tile."""

import numpy as np

from implantforge.kernels.jit import parallel_kernel, prange


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


@parallel_kernel
def net_distance(struts, starts, items, origin, bin_mm, shape, reach, points, out):  # type: ignore[no-untyped-def]
    """out (n,) = distance of points (n,3) to the nearest strut of struts (m,8) = start, end, radius at each, at most
    reach. Struts near bin b are items[starts[b]:starts[b + 1]]."""
    for c in prange((len(points) + 255) // 256):
        for n in range(np.int64(c) * 256, min(np.int64(c) * 256 + 256, len(points))):
            x, y, z = points[n, 0], points[n, 1], points[n, 2]
            i = int(np.floor((x - origin[0]) / bin_mm))
            j = int(np.floor((y - origin[1]) / bin_mm))
            k = int(np.floor((z - origin[2]) / bin_mm))
            best = reach
            if 0 <= i < shape[0] and 0 <= j < shape[1] and 0 <= k < shape[2]:
                b = (i * shape[1] + j) * shape[2] + k
                for m in range(starts[b], starts[b + 1]):
                    s = struts[items[m]]
                    u, v, w = x - s[0], y - s[1], z - s[2]
                    d, e, f = s[3] - s[0], s[4] - s[1], s[5] - s[2]
                    t = (u * d + v * e + w * f) / (d * d + e * e + f * f + 1e-30)
                    t = min(max(t, 0.0), 1.0)
                    u, v, w = u - t * d, v - t * e, w - t * f
                    away = np.sqrt(u * u + v * v + w * w) - s[6] - t * (s[7] - s[6])
                    best = away if away < best else best
            out[n] = best
