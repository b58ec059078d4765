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
def _apart(word):  # type: ignore[no-untyped-def]
    """Sixteen bits spread to every fourth place of 64."""
    x = np.uint64(word) & np.uint64(65535)
    x = (x | x << np.uint64(24)) & np.uint64(0x000000FF000000FF)
    x = (x | x << np.uint64(12)) & np.uint64(0x000F000F000F000F)
    x = (x | x << np.uint64(6)) & np.uint64(0x0303030303030303)
    return (x | x << np.uint64(3)) & np.uint64(0x1111111111111111)


@helper
def _nibbles(s, i, j):  # type: ignore[no-untyped-def]
    """Sign patterns of the 16 cell floors between four rows, a nibble each, and of the ceiling of the last, moved to the
    place above."""
    a, b, c, d = s[i, j], s[i + 1, j], s[i, j + 1], s[i + 1, j + 1]
    low = _apart(a) | _apart(b) << np.uint64(1) | _apart(c) << np.uint64(2) | _apart(d) << np.uint64(3)
    e = np.uint32(16)
    top = (a >> e) | (b >> e) << np.uint32(1) | (c >> e) << np.uint32(2) | (d >> e) << np.uint32(3)
    return low, np.uint64(top) << np.uint64(4)


@helper
def _case(low, top, k):  # type: ignore[no-untyped-def]
    """Sign pattern of cell k: bit n set when corner n, at (n & 1, n >> 1 & 1, n >> 2), is inside."""
    return np.uint64((low >> np.uint64(4 * k) | (top if k == 15 else np.uint64(0))) & np.uint64(255))


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
                here, ahead, beside = s[i, j], s[i + 1, j], s[i, j + 1]
                x = (here ^ ahead) & np.uint32(65535)
                y = (here ^ beside) & np.uint32(65535)
                z = (here ^ here >> np.uint32(1)) & np.uint32(65535)
                words[b, i, j, 0], words[b, i, j, 1], words[b, i, j, 2] = x, y, z
                words[b, i, j, 3] = vertices
                vertices += ones(x) + ones(y) + ones(z)
                cells = _active(here, ahead, beside, s[i + 1, j + 1])
                if cells:
                    low, top = _nibbles(s, i, j)
                    while cells:
                        triangles += tri_count[_case(low, top, lowest(cells))]
                        cells &= cells - np.uint32(1)
        counts[b, 0] = vertices
        counts[b, 1] = triangles


@helper
def _number(word, first, to, step):  # type: ignore[no-untyped-def]
    """Numbers the crossed edges of a row from `first` on, every third place of to; the number after."""
    left = np.uint32(word)
    while left:
        to[np.uint64(3 * lowest(left) + step)] = first
        left &= left - np.uint32(1)
        first += 1
    return first


@helper
def _plane(words, blocks, lookup, offsets, b, i, ids):  # type: ignore[no-untyped-def]
    """ids (17,51) = vertex numbers of plane i of block b: x, y, z edges from each sample, where crossed."""
    x, y, z, di = blocks[b, 0], blocks[b, 1], blocks[b, 2], i >> 4
    for j in range(17):
        dj = j >> 4
        here, above = lookup[x + di, y + dj, z], lookup[x + di, y + dj, z + 1]
        if here >= 0:
            row = words[here, i & 15, j & 15]
            first = offsets[here] + row[3]
            for a in range(3):
                first = _number(row[a], first, ids[j], a)
        if above >= 0:
            row = words[above, i & 15, j & 15]
            first = offsets[above] + row[3]
            ids[j, 48], ids[j, 49] = first, first + ones(np.uint32(row[0]))


@parallel_kernel
def faces(bits, words, blocks, lookup, tables, vertex_offsets, face_offsets, start, stop, out):  # type: ignore[no-untyped-def]
    """Triangles (m,3) int32 of blocks start..stop; tables = (tri_count, places (2,256,3 most) in two planes of vertex
    numbers, for cells whose low plane is the first or the second)."""
    tri_count, places = tables
    for b in prange(start, stop):
        s, ids = np.empty((17, 17), np.uint32), np.zeros((2, 17, 51), np.int32)
        _signs(bits, blocks, lookup, b, s)
        n, flat = np.uint64(face_offsets[b] - face_offsets[start]), ids.reshape(-1)
        _plane(words, blocks, lookup, vertex_offsets, b, 0, ids[0])
        for i in range(16):
            _plane(words, blocks, lookup, vertex_offsets, b, i + 1, ids[(i + 1) & 1])
            for j in range(16):
                cells = _active(s[i, j], s[i + 1, j], s[i, j + 1], s[i + 1, j + 1])
                if cells == 0:
                    continue
                low, top = _nibbles(s, i, j)
                while cells:
                    k = lowest(cells)
                    cells &= cells - np.uint32(1)
                    case = _case(low, top, k)
                    base = 51 * j + 3 * k
                    for t in range(np.uint64(tri_count[case])):
                        for q in range(np.uint64(3)):
                            out[n, q] = flat[np.uint64(base + places[i & 1, case, np.uint64(3) * t + q])]
                        n += np.uint64(1)


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
