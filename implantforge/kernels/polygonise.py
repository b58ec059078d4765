"""Block-sparse marching cubes: sample points, edge vertices and triangles of many small blocks at once.

A block is B x B x B cells with (B+1)^3 samples; it owns the B^3 samples at its low side and the three edges that leave
each of them upward. `blocks` (n,3) are block coordinates, `lookup` their rows in a dense map padded by one (-1:
inactive). Every output slot belongs to one block, so nothing depends on the number of threads.
"""

import numpy as np

from implantforge.kernels.jit import helper, parallel_kernel, prange


@helper
def _owner(blocks, lookup, b, i, j, k, size):  # type: ignore[no-untyped-def]
    """Row of the block that owns sample (i,j,k) of block b, -1 when that block is inactive."""
    return np.int64(lookup[blocks[b, 0] + i // size, blocks[b, 1] + j // size, blocks[b, 2] + k // size])


@parallel_kernel
def count_points(blocks, lookup, size, counts):  # type: ignore[no-untyped-def]
    """counts[b] = samples block b must evaluate: its own, and those of inactive neighbours it borders on."""
    for b in prange(len(blocks)):
        n = size * size * size
        for i in range(size + 1):
            for j in range(size + 1):
                for k in range(size + 1):
                    if (i == size or j == size or k == size) and _owner(blocks, lookup, b, i, j, k, size) < 0:
                        n += 1
        counts[b] = n


@parallel_kernel
def list_points(blocks, lookup, size, first, last, offsets, origin, h, slots, points):  # type: ignore[no-untyped-def]
    """points (n,3) mm of blocks first..last and slots (n,) into the flat sample array; offsets as from count_points."""
    side = size + 1
    for b in prange(first, last):
        n = offsets[b] - offsets[first]
        for i in range(side):
            for j in range(side):
                for k in range(side):
                    border = i == size or j == size or k == size
                    if border and _owner(blocks, lookup, b, i, j, k, size) >= 0:
                        continue
                    slots[n] = ((b * side + i) * side + j) * side + k
                    points[n, 0] = origin[0] + h * (blocks[b, 0] * size + i)
                    points[n, 1] = origin[1] + h * (blocks[b, 1] * size + j)
                    points[n, 2] = origin[2] + h * (blocks[b, 2] * size + k)
                    n += 1


@parallel_kernel
def share_samples(blocks, lookup, size, values):  # type: ignore[no-untyped-def]
    """Copies to each block's high sides the samples its neighbours own. values (n, B+1, B+1, B+1)."""
    for b in prange(len(blocks)):
        for i in range(size + 1):
            for j in range(size + 1):
                for k in range(size + 1):
                    if i == size or j == size or k == size:
                        o = _owner(blocks, lookup, b, i, j, k, size)
                        if o >= 0:
                            values[b, i, j, k] = values[o, i % size, j % size, k % size]


@helper
def _case(v, i, j, k):  # type: ignore[no-untyped-def]
    """Sign pattern of a cell: bit c set when corner c is inside."""
    case = 0
    for c in range(8):
        if v[i + (c & 1), j + (c >> 1 & 1), k + (c >> 2)] < 0:
            case |= 1 << c
    return case


@parallel_kernel
def count_surface(values, tri_count, words, counts):  # type: ignore[no-untyped-def]
    """words (n,B,B,B) uint16 = vertices of the block before this sample * 8 + which of its x,y,z edges are crossed;
    counts (n,2) vertices and triangles of each block."""
    size = values.shape[1] - 1
    for b in prange(len(values)):
        v = values[b]
        vertices = 0
        triangles = 0
        for i in range(size):
            for j in range(size):
                for k in range(size):
                    s = v[i, j, k] < 0
                    x = int(s != (v[i + 1, j, k] < 0))
                    y = int(s != (v[i, j + 1, k] < 0))
                    z = int(s != (v[i, j, k + 1] < 0))
                    words[b, i, j, k] = vertices << 3 | x | y << 1 | z << 2
                    vertices += x + y + z
                    triangles += tri_count[_case(v, i, j, k)]
        counts[b, 0] = vertices
        counts[b, 1] = triangles


@parallel_kernel
def edge_vertices(blocks, values, words, first, last, offsets, origin, h, axis, ends, low):  # type: ignore[no-untyped-def]
    """Crossed edges of blocks first..last: low (n,3) mm low end, axis (n,), ends (n,2) field at both ends."""
    size = values.shape[1] - 1
    for b in prange(first, last):
        v = values[b]
        n = offsets[b] - offsets[first]
        for i in range(size):
            for j in range(size):
                for k in range(size):
                    flags = words[b, i, j, k] & 7
                    for a in range(3):
                        if flags >> a & 1:
                            axis[n] = a
                            ends[n, 0] = v[i, j, k]
                            ends[n, 1] = v[i + (a == 0), j + (a == 1), k + (a == 2)]
                            low[n, 0] = origin[0] + h * (blocks[b, 0] * size + i)
                            low[n, 1] = origin[1] + h * (blocks[b, 1] * size + j)
                            low[n, 2] = origin[2] + h * (blocks[b, 2] * size + k)
                            n += 1


@parallel_kernel
def faces(blocks, lookup, values, words, tables, vertex_offsets, face_offsets, out):  # type: ignore[no-untyped-def]
    """Triangles (m,3) int32 of all blocks; tables = (tri_count, triangles, edge_corners)."""
    tri_count, table, corners = tables
    size = values.shape[1] - 1
    for b in prange(len(blocks)):
        v = values[b]
        n = face_offsets[b]
        for i in range(size):
            for j in range(size):
                for k in range(size):
                    case = _case(v, i, j, k)
                    for t in range(tri_count[case]):
                        for q in range(3):
                            e = table[case, t, q]
                            c = corners[e, 0]
                            ci, cj, ck = i + (c & 1), j + (c >> 1 & 1), k + (c >> 2)
                            o = np.int64(b)
                            if ci == size or cj == size or ck == size:
                                o = _owner(blocks, lookup, b, ci, cj, ck, size)
                            word = words[o, ci % size, cj % size, ck % size]
                            a = e >> 2
                            before = (a > 0) * (word & 1) + (a > 1) * (word >> 1 & 1)
                            out[n, q] = vertex_offsets[o] + (word >> 3) + before
                        n += 1


@parallel_kernel
def edge_points(low, axis, h, t, points):  # type: ignore[no-untyped-def]
    """points (n,3) mm at t along each edge."""
    for n in prange(len(t)):
        for c in range(3):
            points[n, c] = low[n, c]
        points[n, axis[n]] += h * t[n]


@helper
def _inverse_quadratic(a, fa, b, fb, c, fc):  # type: ignore[no-untyped-def]
    """Zero of the parabola t(f) through three samples (NaN or inf when two values agree)."""
    return (
        a * fb * fc / ((fa - fb) * (fa - fc))
        + b * fa * fc / ((fb - fa) * (fb - fc))
        + c * fa * fb / ((fc - fa) * (fc - fb))
    )


@parallel_kernel
def tighten(found, halve, tolerance, bracket, ends, t):  # type: ignore[no-untyped-def]
    """One safeguarded root-finding step: found = field at t; bracket (n,2) and ends (n,2) shrink, t moves inside them
    (to the middle when halve and not yet within tolerance: kinks defeat interpolation)."""
    for n in prange(len(t)):
        at, f = t[n], found[n]
        lo, hi, fl, fh = bracket[n, 0], bracket[n, 1], ends[n, 0], ends[n, 1]
        if not (lo < at < hi) or f == 0.0:
            continue
        guess = _inverse_quadratic(lo, fl, at, f, hi, fh)
        if (f < 0) == (fl < 0):
            lo, fl = at, f
        else:
            hi, fh = at, f
        if halve and abs(f) > tolerance:
            guess = 0.5 * (lo + hi)
        elif not (lo < guess < hi):
            guess = lo + (hi - lo) * fl / (fl - fh)
        if abs(f) <= tolerance and abs(guess - at) > 0.05:
            guess = at  # grazing edge: good enough here, and nothing will check the leap
        bracket[n, 0], bracket[n, 1], ends[n, 0], ends[n, 1] = lo, hi, fl, fh
        t[n] = guess
