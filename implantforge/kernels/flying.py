"""Marching cubes on sign bits: which edges are crossed, how many triangles, and the triangles with shared vertices.

A block is 16 x 16 x 16 cells and owns the samples at its low side, whose signs are 256 words of 16 bits (set: inside),
and the three edges that leave each sample upward. `blocks` (n,3) are block coordinates, `lookup` their rows in a dense
map padded by one; where no surface runs it holds -1 (outside) or -2 (inside). Vertices are numbered by block, row, axis
and place along the row, so that a popcount finds any of them and nothing depends on the number of threads.
"""

import numpy as np

from implantforge.kernels.jit import helper, lowest, ones, parallel_kernel, prange


@parallel_kernel
def pack_signs(values, bits):  # type: ignore[no-untyped-def]
    """bits (n,16,16) uint16 of values (n,16,16,16)."""
    for b in prange(len(values)):
        for i in range(16):
            for j in range(16):
                word, row = 0, values[b, i, j]
                for k in range(16):
                    word |= int(row[k] < 0) << k
                bits[b, i, j] = word


@helper
def _signs(bits, blocks, lookup, b, out):  # type: ignore[no-untyped-def]
    """out (17,17) uint32: 17 signs of each row of block b, those on its high sides from its neighbours."""
    x, y, z = blocks[b, 0], blocks[b, 1], blocks[b, 2]
    for di in range(2):
        for dj in range(2):
            here, above = lookup[x + di, y + dj, z], lookup[x + di, y + dj, z + 1]
            for i in range(16 * di, 16 + di):
                for j in range(16 * dj, 16 + dj):
                    low = np.uint32(bits[here, i - 16 * di, j - 16 * dj] if here >= 0 else 65535 * (here == -2))
                    top = np.uint32(
                        bits[above, i - 16 * di, j - 16 * dj] & 1 if above >= 0 else here * 0 + (above == -2)
                    )
                    out[i, j] = low | top << np.uint32(16)


@helper
def _active(a, b, c, d):  # type: ignore[no-untyped-def]
    """Cells between four rows of signs that hold surface."""
    some, every = a | b | c | d, a & b & c & d
    return (some | some >> np.uint32(1)) & ~(every & every >> np.uint32(1)) & np.uint32(65535)


@helper
def _case(a, b, c, d, k):  # type: ignore[no-untyped-def]
    """Sign pattern of cell k: bit n set when corner n, at (n & 1, n >> 1 & 1, n >> 2), is inside."""
    s = np.uint32(k)
    low = (a >> s & np.uint32(3)), (b >> s & np.uint32(3)), (c >> s & np.uint32(3)), (d >> s & np.uint32(3))
    out = np.uint32(0)
    for n in range(4):
        out |= (low[n] & np.uint32(1)) << np.uint32(n) | (low[n] >> np.uint32(1)) << np.uint32(n + 4)
    return np.int64(out)


@parallel_kernel
def count(bits, blocks, lookup, tri_count, words, counts):  # type: ignore[no-untyped-def]
    """words (n,16,16,4) uint16: crossed x, y and z edges of each row, and vertices of the block before it; counts (n,2)
    vertices and triangles of each block."""
    for b in prange(len(bits)):
        s = np.empty((17, 17), np.uint32)
        _signs(bits, blocks, lookup, b, s)
        vertices, triangles = 0, 0
        for i in range(16):
            for j in range(16):
                here, ahead, beside, across = s[i, j], s[i + 1, j], s[i, j + 1], s[i + 1, j + 1]
                x = (here ^ ahead) & np.uint32(65535)
                y = (here ^ beside) & np.uint32(65535)
                z = (here ^ here >> np.uint32(1)) & np.uint32(65535)
                words[b, i, j, 0] = x
                words[b, i, j, 1] = y
                words[b, i, j, 2] = z
                words[b, i, j, 3] = vertices
                vertices += ones(x) + ones(y) + ones(z)
                cells = _active(here, ahead, beside, across)
                while cells:
                    k = lowest(cells)
                    cells &= cells - np.uint32(1)
                    triangles += tri_count[_case(here, ahead, beside, across, k)]
        counts[b, 0] = vertices
        counts[b, 1] = triangles


@helper
def _numbers(words, blocks, lookup, offsets, b, masks, first):  # type: ignore[no-untyped-def]
    """masks (17,17,3) and first (17,17,5): crossed edges of each row, and the numbers of its first x, y, z vertex and of
    the x and y vertex at its far end."""
    x, y, z = blocks[b, 0], blocks[b, 1], blocks[b, 2]
    for di in range(2):
        for dj in range(2):
            here, above = lookup[x + di, y + dj, z], lookup[x + di, y + dj, z + 1]
            for i in range(16 * di, 16 + di):
                for j in range(16 * dj, 16 + dj):
                    if here >= 0:
                        row = words[here, i - 16 * di, j - 16 * dj]
                        p, q = np.uint32(row[0]), np.uint32(row[1])
                        masks[i, j, 0], masks[i, j, 1], masks[i, j, 2] = p, q, np.uint32(row[2])
                        first[i, j, 0] = offsets[here] + row[3]
                        first[i, j, 1] = first[i, j, 0] + ones(p)
                        first[i, j, 2] = first[i, j, 1] + ones(q)
                    if above >= 0:
                        top = words[above, i - 16 * di, j - 16 * dj]
                        first[i, j, 3] = offsets[above] + top[3]
                        first[i, j, 4] = first[i, j, 3] + ones(np.uint32(top[0]))


@helper
def _cell_vertices(masks, first, i, j, k, ids):  # type: ignore[no-untyped-def]
    """ids (12,) = vertex numbers of the cell's edges in the order of edge_corners (any number where not crossed)."""
    below = (np.uint32(1) << np.uint32(k)) - np.uint32(1)
    upto = below << np.uint32(1) | np.uint32(1)
    top = k == 15
    for n in range(2):
        m = masks[i, j + n, 0]
        ids[n] = first[i, j + n, 0] + ones(m & below)
        ids[n + 2] = first[i, j + n, 3] if top else first[i, j + n, 0] + ones(m & upto)
        m = masks[i + n, j, 1]
        ids[n + 4] = first[i + n, j, 1] + ones(m & below)
        ids[n + 6] = first[i + n, j, 4] if top else first[i + n, j, 1] + ones(m & upto)
        ids[n + 8] = first[i + n, j, 2] + ones(masks[i + n, j, 2] & below)
        ids[n + 10] = first[i + n, j + 1, 2] + ones(masks[i + n, j + 1, 2] & below)


@parallel_kernel
def faces(bits, words, blocks, lookup, tables, vertex_offsets, face_offsets, out):  # type: ignore[no-untyped-def]
    """Triangles (m,3) int32 of all blocks; tables = (tri_count, triangles flattened to (256, 3 most))."""
    tri_count, table = tables
    for b in prange(len(bits)):
        s, ids = np.empty((17, 17), np.uint32), np.empty(12, np.int32)
        masks, first = np.empty((17, 17, 3), np.uint32), np.empty((17, 17, 5), np.int32)
        _signs(bits, blocks, lookup, b, s)
        _numbers(words, blocks, lookup, vertex_offsets, b, masks, first)
        n = face_offsets[b]
        for i in range(16):
            for j in range(16):
                here, ahead, beside, across = s[i, j], s[i + 1, j], s[i, j + 1], s[i + 1, j + 1]
                cells = _active(here, ahead, beside, across)
                while cells:
                    k = lowest(cells)
                    cells &= cells - np.uint32(1)
                    case = _case(here, ahead, beside, across, k)
                    _cell_vertices(masks, first, i, j, k, ids)
                    for t in range(tri_count[case]):
                        for q in range(3):
                            out[n, q] = ids[table[case, 3 * t + q]]
                        n += 1


@parallel_kernel
def edges(blocks, words, start, stop, offsets, origin, h, axis, low):  # type: ignore[no-untyped-def]
    """Crossed edges of blocks start..stop in the order of their vertices: axis (n,) and low (n,3) mm low end."""
    for b in prange(start, stop):
        n = offsets[b] - offsets[start]
        for i in range(16):
            for j in range(16):
                for a in range(3):
                    left = np.uint32(words[b, i, j, a])
                    while left:
                        k = lowest(left)
                        left &= left - np.uint32(1)
                        axis[n] = a
                        low[n, 0] = origin[0] + h * (blocks[b, 0] * 16 + i)
                        low[n, 1] = origin[1] + h * (blocks[b, 1] * 16 + j)
                        low[n, 2] = origin[2] + h * (blocks[b, 2] * 16 + k)
                        n += 1


@parallel_kernel
def extent(vertices, out):  # type: ignore[no-untyped-def]
    """out (m,2,3) = lowest and highest coordinates of each 65536 of the vertices (n,3)."""
    for c in prange(len(out)):
        first = np.int64(c) * 65536
        for a in range(3):
            low = high = vertices[first, a]
            for n in range(first, min(first + 65536, len(vertices))):
                low, high = min(low, vertices[n, a]), max(high, vertices[n, a])
            out[c, 0, a] = low
            out[c, 1, a] = high
