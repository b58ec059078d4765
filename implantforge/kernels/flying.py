"""Marching cubes on sign bits: which edges are crossed, how many triangles, and the triangles with shared vertices.

A block is 16 x 16 x 16 cells and owns the samples at its low side, whose signs are 256 words of 16 bits (set: inside),
and the three edges that leave each sample upward. `blocks` (n,3) are block coordinates, `lookup` their rows in a dense
map padded by one; where no surface runs it holds -1 (outside) or -2 (inside). Vertices are numbered by block, row, axis
and place along the row, so that a popcount finds any of them and nothing depends on the number of threads. Kernels do a
run first..last of blocks, for jit.shared.
"""

import numpy as np

from implantforge.kernels.jit import inlined, kernel, lean, lowest, ones


@kernel
def pack_signs(first, last, values, bits):  # type: ignore[no-untyped-def]
    """bits (n,16,16) uint16 of values (n,16,16,16)."""
    for b in range(first, last):
        for i in range(16):
            for j in range(16):
                word, row = 0, values[b, i, j]
                for k in range(16):
                    word |= int(row[k] < 0) << k
                bits[b, i, j] = word


@lean
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


@inlined
def _active(a, b, c, d):  # type: ignore[no-untyped-def]
    """Cells between four rows of signs that hold surface."""
    some, every = a | b | c | d, a & b & c & d
    return (some | some >> np.uint32(1)) & ~(every & every >> np.uint32(1)) & np.uint32(65535)


@inlined
def _apart(word):  # type: ignore[no-untyped-def]
    """Sixteen bits spread to every fourth place of 64."""
    x = np.uint64(word) & np.uint64(65535)
    x = (x | x << np.uint64(24)) & np.uint64(0x000000FF000000FF)
    x = (x | x << np.uint64(12)) & np.uint64(0x000F000F000F000F)
    x = (x | x << np.uint64(6)) & np.uint64(0x0303030303030303)
    return (x | x << np.uint64(3)) & np.uint64(0x1111111111111111)


@lean
def _nibbles(s, i, j):  # type: ignore[no-untyped-def]
    """Sign patterns of the 16 cell floors between four rows, a nibble each, and of the ceiling of the last, moved to the
    place above."""
    a, b, c, d = s[i, j], s[i + 1, j], s[i, j + 1], s[i + 1, j + 1]
    low = _apart(a) | _apart(b) << np.uint64(1) | _apart(c) << np.uint64(2) | _apart(d) << np.uint64(3)
    e = np.uint32(16)
    top = (a >> e) | (b >> e) << np.uint32(1) | (c >> e) << np.uint32(2) | (d >> e) << np.uint32(3)
    return low, np.uint64(top) << np.uint64(4)


@inlined
def _case(low, top, k):  # type: ignore[no-untyped-def]
    """Sign pattern of cell k: bit n set when corner n, at (n & 1, n >> 1 & 1, n >> 2), is inside."""
    return np.uint64((low >> np.uint64(4 * k) | (top if k == 15 else np.uint64(0))) & np.uint64(255))


@lean
def _count(first, last, bits, blocks, lookup, places, s, words, counts):  # type: ignore[no-untyped-def]
    """See count."""
    for b in range(first, last):
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
                        triangles += np.int64(places[np.uint64(16) * _case(low, top, lowest(cells)) + np.uint64(15)])
                        cells &= cells - np.uint32(1)
        counts[b, 0] = vertices
        counts[b, 1] = triangles


@kernel
def count(first, last, bits, blocks, lookup, places, words, counts):  # type: ignore[no-untyped-def]
    """words (n,16,16,4) uint16: crossed x, y and z edges of each row, and vertices of the block before it; counts (n,2)
    vertices and triangles of each block."""
    _count(first, last, bits, blocks, lookup, places, np.empty((17, 17), np.uint32), words, counts)


@inlined
def _row(words, at, number, wide, ids, to):  # type: ignore[no-untyped-def]
    """ids from `to` on: numbers of the x, y and z edges of a row, 17 apart, from the first one on, crossed or not: a
    count of the bits below each place needs no branch. wide = 16, which the compiler must not know: it would undo the
    loop and count bit by bit."""
    x, y, z = np.uint32(words[at]), np.uint32(words[at + np.uint64(1)]), np.uint32(words[at + np.uint64(2)])
    after = number + np.int32(ones(x))
    last = after + np.int32(ones(y))
    for k in range(np.uint64(wide)):
        below = (np.uint32(1) << np.uint32(k)) - np.uint32(1)
        ids[to + k] = number + np.int32(ones(x & below))
        ids[to + k + np.uint64(17)] = after + np.int32(ones(y & below))
        ids[to + k + np.uint64(34)] = last + np.int32(ones(z & below))


@lean
def _plane(words, blocks, lookup, offsets, b, i, wide, ids, to):  # type: ignore[no-untyped-def]
    """ids (17,56) from `to` on = vertex numbers of plane i of block b: 17 x, 17 y, 16 z edges of each row of samples."""
    x, y, z = blocks[b, 0] + (i >> 4), blocks[b, 1], blocks[b, 2]
    for j in range(17):
        here, above = lookup[x, y + (j >> 4), z], lookup[x, y + (j >> 4), z + 1]
        row, at = np.uint64(64 * (i & 15) + 4 * (j & 15)), np.uint64(to + 56 * j)
        if here >= 0:
            first = np.uint64(1024 * here) + row
            number = np.int32(offsets[here]) + np.int32(words[first + np.uint64(3)])
            _row(words, first, number, wide, ids, at)
        if above >= 0:
            first = np.uint64(1024 * above) + row
            number = np.int32(offsets[above]) + np.int32(words[first + np.uint64(3)])
            ids[at + np.uint64(16)] = number
            ids[at + np.uint64(33)] = number + np.int32(ones(np.uint32(words[first])))


@lean
def _faces(first, last, bits, words, blocks, lookup, places, wide, vertex_offsets, face_offsets, start, s, ids, out):  # type: ignore[no-untyped-def]
    """See faces."""
    most = np.uint64(12)
    for b in range(first, last):
        _signs(bits, blocks, lookup, b, s)
        n = np.uint64(3 * (face_offsets[b] - face_offsets[start]))
        stop = np.uint64(3 * (face_offsets[b + 1] - face_offsets[start]))
        _plane(words, blocks, lookup, vertex_offsets, b, 0, wide, ids, 0)
        for i in range(16):
            _plane(words, blocks, lookup, vertex_offsets, b, i + 1, wide, ids, 952 * ((i + 1) & 1))
            side = np.uint64(4096 * (i & 1))
            for j in range(16):
                cells = _active(s[i, j], s[i + 1, j], s[i, j + 1], s[i + 1, j + 1])
                if cells == 0:
                    continue
                low, top = _nibbles(s, i, j)
                while cells:
                    k = lowest(cells)
                    cells &= cells - np.uint32(1)
                    at = side + np.uint64(16) * _case(low, top, k)
                    base, many = np.uint64(56 * j + k), np.uint64(3) * np.uint64(places[at + np.uint64(15)])
                    if n + most <= stop and many <= most:
                        # four triangles always, the next cell writes over what is too much: no branch to guess
                        for q in range(most):
                            out[n + q] = ids[base + np.uint64(places[at + q])]
                    else:
                        for q in range(many):
                            out[n + q] = ids[base + np.uint64(places[at + q])]
                    n += many


@kernel
def faces(first, last, bits, words, blocks, lookup, places, wide, vertex_offsets, face_offsets, start, out):  # type: ignore[no-untyped-def]
    """Triangles (3 m,) int32 of blocks first..last, those of block `start` at the start of out; words (n * 1024,); places
    (2 * 256 * 16,) uint16: up to 15 corners of each case in two planes of vertex numbers, for cells whose low plane is the
    first or the second, and how many triangles; wide = 16."""
    s, ids = np.empty((17, 17), np.uint32), np.zeros(1904, np.int32)
    given = (bits, words, blocks, lookup, places, wide, vertex_offsets, face_offsets, start)
    _faces(first, last, *given, s, ids, out)


@kernel
def edges(first, last, blocks, words, start, offsets, origin, h, axis, low):  # type: ignore[no-untyped-def]
    """Crossed edges of blocks first..last in the order of their vertices, those of block `start` first: axis (n,) and low
    (n,3) mm low end."""
    for b in range(first, last):
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
