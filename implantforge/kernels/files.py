"""Rows of mesh files: binary STL records, and 3MF lines of one width, so that every row knows its place."""

import numpy as np

from implantforge.kernels.jit import helper, parallel_kernel, prange


@parallel_kernel
def stl_rows(vertices, halves, faces, base, out):  # type: ignore[no-untyped-def]
    """out (m,25) uint16 = normal, corners and a zero for faces (m,3) of vertices (n,3) float32, which are numbered from
    base; halves (n,6) are the vertices as uint16."""
    for c in prange((len(faces) + 1023) // 1024):
        normal = np.empty(3, np.float32)
        words = normal.view(np.uint16)
        for m in range(np.int64(c) * 1024, min(np.int64(c) * 1024 + 1024, len(faces))):
            i, j, k = faces[m, 0] - base, faces[m, 1] - base, faces[m, 2] - base
            x, y, z = np.float64(vertices[i, 0]), np.float64(vertices[i, 1]), np.float64(vertices[i, 2])
            ax, ay, az = vertices[j, 0] - x, vertices[j, 1] - y, vertices[j, 2] - z
            bx, by, bz = vertices[k, 0] - x, vertices[k, 1] - y, vertices[k, 2] - z
            nx, ny, nz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
            size = np.sqrt(nx * nx + ny * ny + nz * nz)
            size = 1 / size if size > 0 else 0.0
            normal[0], normal[1], normal[2] = nx * size, ny * size, nz * size
            for q in range(6):
                out[m, q] = words[q]
                out[m, 6 + q], out[m, 12 + q], out[m, 18 + q] = halves[i, q], halves[j, q], halves[k, q]
            out[m, 24] = 0


@helper
def _put(text, at, row, line):  # type: ignore[no-untyped-def]
    """Copies text into a row of bytes; the place after it."""
    for n in range(len(text)):
        row[line, at + n] = text[n]
    return at + len(text)


@helper
def _digits(value, least, row, line, at):  # type: ignore[no-untyped-def]
    """Writes a whole number of at least so many digits; the place after it."""
    size, rest = 1, value // 10
    while rest > 0 or size < least:
        size += 1
        rest //= 10
    for n in range(size):
        row[line, at + size - 1 - n] = 48 + value % 10
        value //= 10
    return at + size


@parallel_kernel
def vertex_lines(vertices, words, out):  # type: ignore[no-untyped-def]
    """out (n,64) uint8 = vertices (n,3) mm, five decimals, between the words (4,k) of a line, spaces before the last."""
    for n in prange(len(vertices)):
        at = 0
        for a in range(3):
            at = _put(words[a], at, out, n)
            value = np.int64(np.rint(np.float64(vertices[n, a]) * 1e5))
            if value < 0:
                out[n, at] = 45
                at, value = at + 1, -value
            at = _digits(value // 100000, 1, out, n, at)
            out[n, at] = 46
            at = _digits(value % 100000, 5, out, n, at + 1)
        at = _put(words[3][:1], at, out, n)
        while at < 64 - len(words[3]) + 1:
            out[n, at] = 32
            at += 1
        _put(words[3][1:], at, out, n)


@parallel_kernel
def face_lines(faces, words, out):  # type: ignore[no-untyped-def]
    """out (m,60) uint8 = faces (m,3) between the words of a line, as vertex_lines."""
    for n in prange(len(faces)):
        at = 0
        for a in range(3):
            at = _put(words[a], at, out, n)
            at = _digits(np.int64(faces[n, a]), 1, out, n, at)
        at = _put(words[3][:1], at, out, n)
        while at < 60 - len(words[3]) + 1:
            out[n, at] = 32
            at += 1
        _put(words[3][1:], at, out, n)
