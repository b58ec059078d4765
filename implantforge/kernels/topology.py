"""Connected pieces and edge pairing of triangle meshes."""

import numpy as np

from implantforge.kernels.jit import helper, kernel, parallel_kernel, prange


@helper
def _root(parent, v):  # type: ignore[no-untyped-def]
    while parent[v] != v:
        parent[v] = parent[parent[v]]
        v = parent[v]
    return v


@kernel
def label_pieces(faces, parent, labels):  # type: ignore[no-untyped-def]
    """labels (v,) = piece of each vertex, numbered by lowest vertex; returns the number of pieces. parent (v,)
    scratch."""
    for v in range(len(parent)):
        parent[v] = v
    for f in range(len(faces)):
        for q in range(2):
            a, b = _root(parent, faces[f, q]), _root(parent, faces[f, q + 1])
            if a < b:
                parent[b] = a
            elif b < a:
                parent[a] = b
    pieces = 0
    for v in range(len(parent)):
        r = _root(parent, v)
        if r == v:
            labels[v] = pieces
            pieces += 1
        else:
            labels[v] = labels[r]
    return pieces


@kernel
def piece_volumes(vertices, faces, labels, first, volumes):  # type: ignore[no-untyped-def]
    """volumes (pieces,) signed mm3; first (pieces,) a vertex of each, taken as its origin for accuracy."""
    first[:] = -1
    for v in range(len(labels)):
        if first[labels[v]] < 0:
            first[labels[v]] = v
    for f in range(len(faces)):
        piece = labels[faces[f, 0]]
        o, a, b, c = vertices[first[piece]], vertices[faces[f, 0]], vertices[faces[f, 1]], vertices[faces[f, 2]]
        ax, ay, az = a[0] - o[0], a[1] - o[1], a[2] - o[2]
        bx, by, bz = b[0] - o[0], b[1] - o[1], b[2] - o[2]
        cx, cy, cz = c[0] - o[0], c[1] - o[1], c[2] - o[2]
        volumes[piece] += (ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)) / 6


@kernel
def outgoing(faces, offsets, ends):  # type: ignore[no-untyped-def]
    """ends (3m,) = heads of the directed edges that leave each vertex; offsets (v+1,) from a count, used up on the
    way."""
    for f in range(len(faces)):
        for q in range(3):
            a = faces[f, q]
            ends[offsets[a]] = faces[f, (q + 1) % 3]
            offsets[a] += 1


@parallel_kernel
def bad_edges(offsets, ends, bad):  # type: ignore[no-untyped-def]
    """bad (v,) = directed edges at each vertex that are doubled or have no opposite. offsets (v+1,), ends (3m,)."""
    for v in prange(len(bad)):
        wrong = 0
        for i in range(offsets[v], offsets[v + 1]):
            w = ends[i]
            same = 0
            for j in range(offsets[v], offsets[v + 1]):
                same += ends[j] == w
            back = 0
            for j in range(offsets[w], offsets[w + 1]):
                back += ends[j] == np.int64(v)
            wrong += same != 1 or back != 1 or w == np.int64(v)
        bad[v] = wrong
