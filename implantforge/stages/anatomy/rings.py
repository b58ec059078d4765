"""Section rings of many parallel planes at once: one pass over the triangles instead of one a plane."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from implantforge.core import Array, Mesh
from implantforge.geom.sections import plane_basis


class Ring(NamedTuple):
    """A section curve: area_mm2 (positive with bone inside) and its centroid_mm (3,)."""

    area_mm2: float
    centroid_mm: Array


def around(mesh: Mesh, origins: Array, normal: Array) -> list[Ring | None]:
    """For each origin (k,3) the curve of the plane across `normal` that winds around it, the smallest if several do; None
    if none does. The same as `geom.sections.loop_around` for each."""
    origins = np.asarray(origins, dtype=float).reshape(-1, 3)
    out: list[Ring | None] = [None] * len(origins)
    if not len(mesh.faces) or not len(origins):
        return out
    u, v, n = plane_basis(normal)
    ends, keys, plane = _cuts(mesh, origins, n)
    if not len(plane):
        return out
    _, number = np.unique(keys, return_inverse=True)
    number = number.reshape(keys.shape)
    size = int(number.max()) + 1
    link = sparse.csr_matrix((np.ones(len(number)), (number[:, 0], number[:, 1])), shape=(size, size))
    count, part = connected_components(link, directed=False)
    part = part[number[:, 0]]
    away = ends - origins[plane][:, None]
    a, b = away[:, 0] @ np.stack([u, v], axis=1), away[:, 1] @ np.stack([u, v], axis=1)
    cross = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    turn = np.bincount(part, np.arctan2(cross, (a * b).sum(axis=1)), count)
    area = 0.5 * np.bincount(part, cross, count)
    flat = np.stack([np.bincount(part, (a + b)[:, k] * cross, count) for k in (0, 1)], axis=1)
    of_plane = np.zeros(count, np.int64)
    of_plane[part] = plane
    for one in np.flatnonzero((np.abs(turn) > np.pi) & (np.abs(area) > 1e-12)):
        k = int(of_plane[one])
        known = out[k]
        if known is None or abs(area[one]) < abs(known.area_mm2):
            at = flat[one] / (6.0 * area[one])
            out[k] = Ring(float(area[one]), origins[k] + at[0] * u + at[1] * v)
    return out


def _cuts(mesh: Mesh, origins: Array, n: Array) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]]:
    """Oriented segments (m,2,3) of all planes, keys (m,2) of the edges they end on, and the plane (m,) of each."""
    height = mesh.vertices @ n
    levels = origins @ n
    tall = height[mesh.faces]
    low, high = tall.min(axis=1), tall.max(axis=1)
    # vertices on the plane count as above
    chosen = [np.flatnonzero((low < level) & (high >= level)) for level in levels]
    plane = np.repeat(np.arange(len(levels)), [len(one) for one in chosen])
    cut = np.concatenate(chosen)
    faces = mesh.faces[cut].astype(np.int64)
    above = tall[cut] >= levels[plane][:, None]
    odd = np.where(above.sum(axis=1) == 1, above.argmax(axis=1), (~above).argmax(axis=1))
    rows = np.arange(len(cut))
    tip, left, right = (faces[rows, (odd + k) % 3] for k in range(3))
    ends, keys, many = [], [], len(mesh.vertices)
    for a, b in ((tip, left), (tip, right)):
        one, two = np.minimum(a, b), np.maximum(a, b)
        t = (height[one] - levels[plane]) / (height[one] - height[two])
        ends.append(mesh.vertices[one] + t[:, None] * (mesh.vertices[two] - mesh.vertices[one]))
        keys.append((plane * many + one) * many + two)
    segments, key = np.stack(ends, axis=1), np.stack(keys, axis=1)
    flip = ~above[rows, odd]
    segments[flip], key[flip] = segments[flip][:, ::-1], key[flip][:, ::-1]
    return segments, key, plane
