"""Linear elasticity on a periodic grid of cubes: trilinear displacements, a solid share per cube, no matrix."""

import numpy as np

from implantforge.kernels.jit import helper, parallel_kernel, prange


@helper
def _forces(lam, mu, mode, force):  # type: ignore[no-untyped-def]
    """force (3,7): slope of the strain energy of a unit cube by mode (3,7), coefficients of x, y, z, xy, xz, yz, xyz."""
    w, v = 1.0 / 12.0, 1.0 / 144.0
    trace = lam * (mode[0, 0] + mode[1, 1] + mode[2, 2])
    xy, xz, yz = mu * (mode[0, 1] + mode[1, 0]), mu * (mode[0, 2] + mode[2, 0]), mu * (mode[1, 2] + mode[2, 1])
    force[0, 0], force[0, 1], force[0, 2] = trace + 2 * mu * mode[0, 0], xy, xz
    force[1, 0], force[1, 1], force[1, 2] = xy, trace + 2 * mu * mode[1, 1], yz
    force[2, 0], force[2, 1], force[2, 2] = xz, yz, trace + 2 * mu * mode[2, 2]
    tx, ty, tz = lam * (mode[1, 3] + mode[2, 4]), lam * (mode[0, 3] + mode[2, 5]), lam * (mode[0, 4] + mode[1, 5])
    a, b, c = mode[0, 5] + mode[1, 4], mode[0, 5] + mode[2, 3], mode[1, 4] + mode[2, 3]
    force[0, 3], force[0, 4], force[0, 5] = (
        w * (ty + 3 * mu * mode[0, 3]),
        w * (tz + 3 * mu * mode[0, 4]),
        w * mu * (a + b),
    )
    force[1, 3], force[1, 4], force[1, 5] = (
        w * (tx + 3 * mu * mode[1, 3]),
        w * mu * (a + c),
        w * (tz + 3 * mu * mode[1, 5]),
    )
    force[2, 3], force[2, 4], force[2, 5] = (
        w * mu * (b + c),
        w * (tx + 3 * mu * mode[2, 4]),
        w * (ty + 3 * mu * mode[2, 5]),
    )
    for axis in range(3):
        force[axis, 6] = v * (lam + 4 * mu) * mode[axis, 6]


@helper
def _plane(i, u, share, strain, lam, mu, out):  # type: ignore[no-untyped-def]
    """Adds the forces of the cubes of plane i to out; returns u times those forces."""
    _, _, nj, nk = u.shape[0], u.shape[1], u.shape[2], u.shape[3]
    up = i + 1 if i + 1 < u.shape[1] else 0
    low, high = np.zeros((3, 4), u.dtype), np.zeros((3, 4), u.dtype)
    mode, force = np.zeros((3, 7), u.dtype), np.zeros((3, 7), u.dtype)
    lam, mu = u.dtype.type(lam), u.dtype.type(mu)
    work = 0.0
    for j in range(nj):
        over = j + 1 if j + 1 < nj else 0
        for k in range(nk):
            solid = share[i, j, k]
            if solid == 0:
                continue
            next_k = k + 1 if k + 1 < nk else 0
            for a in range(3):
                p00, p10, p01, p11 = u[a, i, j, k], u[a, up, j, k], u[a, i, over, k], u[a, up, over, k]
                q00, q10, q01, q11 = (
                    u[a, i, j, next_k],
                    u[a, up, j, next_k],
                    u[a, i, over, next_k],
                    u[a, up, over, next_k],
                )
                low[a, 0], low[a, 1] = p00 + p10 + p01 + p11, p10 + p11 - p00 - p01
                low[a, 2], low[a, 3] = p01 + p11 - p00 - p10, p00 + p11 - p10 - p01
                high[a, 0], high[a, 1] = q00 + q10 + q01 + q11, q10 + q11 - q00 - q01
                high[a, 2], high[a, 3] = q01 + q11 - q00 - q10, q00 + q11 - q10 - q01
                mode[a, 0] = (low[a, 1] + high[a, 1]) * 0.25 + strain[a, 0]
                mode[a, 1] = (low[a, 2] + high[a, 2]) * 0.25 + strain[a, 1]
                mode[a, 2] = (high[a, 0] - low[a, 0]) * 0.25 + strain[a, 2]
                mode[a, 3] = (low[a, 3] + high[a, 3]) * 0.5
                mode[a, 4] = (high[a, 1] - low[a, 1]) * 0.5
                mode[a, 5] = (high[a, 2] - low[a, 2]) * 0.5
                mode[a, 6] = high[a, 3] - low[a, 3]
            _forces(lam, mu, mode, force)
            for a in range(3):
                for m in range(7):
                    work += solid * mode[a, m] * force[a, m]
            for a in range(3):
                x, y, z = force[a, 0] * 0.25 * solid, force[a, 1] * 0.25 * solid, force[a, 2] * 0.25 * solid
                xy, xz, yz, xyz = (
                    force[a, 3] * 0.5 * solid,
                    force[a, 4] * 0.5 * solid,
                    force[a, 5] * 0.5 * solid,
                    force[a, 6] * solid,
                )
                out[a, i, j, k] += -x - y + xy - z + xz + yz - xyz
                out[a, up, j, k] += x - y - xy - z - xz + yz + xyz
                out[a, i, over, k] += -x + y - xy - z + xz - yz + xyz
                out[a, up, over, k] += x + y + xy - z - xz - yz - xyz
                out[a, i, j, next_k] += -x - y + xy + z - xz - yz + xyz
                out[a, up, j, next_k] += x - y - xy + z + xz - yz - xyz
                out[a, i, over, next_k] += -x + y - xy + z - xz + yz - xyz
                out[a, up, over, next_k] += x + y + xy + z + xz + yz + xyz
    return work


@parallel_kernel
def stiffness(u, share, strain, lam, mu, work, out):  # type: ignore[no-untyped-def]
    """out (3,i,j,k) = forces of a displacement u at the corners of cubes with a solid share, under a mean strain.

    work (i,) = twice the strain energy by plane. Planes of one parity share no corner, so threads do not meet.
    """
    n = u.shape[1]
    for i in prange(n):
        out[:, i] = 0
    for half in range(2):
        for m in prange(n // 2):
            work[2 * m + half] = _plane(2 * m + half, u, share, strain, lam, mu, out)


@parallel_kernel
def green(inverse, f):  # type: ignore[no-untyped-def]
    """f (3,i,j,k) in the Fourier domain times symmetric matrices inverse (6,i,j,k): xx yy zz yz xz xy, in place."""
    for i in prange(f.shape[1]):
        for j in range(f.shape[2]):
            for k in range(f.shape[3]):
                x, y, z = f[0, i, j, k], f[1, i, j, k], f[2, i, j, k]
                yz, xz, xy = inverse[3, i, j, k], inverse[4, i, j, k], inverse[5, i, j, k]
                f[0, i, j, k] = inverse[0, i, j, k] * x + xy * y + xz * z
                f[1, i, j, k] = xy * x + inverse[1, i, j, k] * y + yz * z
                f[2, i, j, k] = xz * x + yz * y + inverse[2, i, j, k] * z


@parallel_kernel
def dots(a, b, out):  # type: ignore[no-untyped-def]
    """out (i,) float64 = sum of a b by plane, a and b (3,i,j,k); their sum does not depend on the number of threads."""
    for i in prange(a.shape[1]):
        total = 0.0
        for axis in range(a.shape[0]):
            for j in range(a.shape[2]):
                row = a.dtype.type(0.0)
                for k in range(a.shape[3]):
                    row += a[axis, i, j, k] * b[axis, i, j, k]
                total += row
        out[i] = total


@parallel_kernel
def advance(step, p, q, u, r):  # type: ignore[no-untyped-def]
    """u += step p and r -= step q, all (3,i,j,k)."""
    step = u.dtype.type(step)
    for i in prange(u.shape[1]):
        for axis in range(u.shape[0]):
            for j in range(u.shape[2]):
                for k in range(u.shape[3]):
                    u[axis, i, j, k] += step * p[axis, i, j, k]
                    r[axis, i, j, k] -= step * q[axis, i, j, k]


@parallel_kernel
def turn(share, z, p):  # type: ignore[no-untyped-def]
    """p = z + share p, all (3,i,j,k)."""
    share = p.dtype.type(share)
    for i in prange(p.shape[1]):
        for axis in range(p.shape[0]):
            for j in range(p.shape[2]):
                for k in range(p.shape[3]):
                    p[axis, i, j, k] = z[axis, i, j, k] + share * p[axis, i, j, k]
