"""Plane sections of closed meshes: oriented segments, loops, areas and centroids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from implantforge.core import Array, Mesh


@dataclass(frozen=True, eq=False)
class Loop:
    """One closed curve of a section: area (mm2, positive for metal or bone inside), centroid (3,) and points (n,3) mm."""

    area_mm2: float
    centroid_mm: Array
    points_mm: Array


def plane_basis(normal: Array) -> tuple[Array, Array, Array]:
    """Right-handed unit vectors (u, v, n) with n along `normal`; the choice of u depends on the normal alone."""
    n = np.asarray(normal, dtype=float) / np.linalg.norm(normal)
    helper = np.eye(3)[int(np.abs(n).argmin())]
    u = np.cross(helper, n)
    u /= np.linalg.norm(u)
    return u, np.cross(n, u), n


def section(mesh: Mesh, origin_mm: Array, normal: Array) -> tuple[Array, NDArray[np.int64]]:
    """Oriented segments (m,2,3) mm where the plane cuts the faces, and the mesh edge keys (m,2) of their ends.

    Seen against the normal the material lies to the left of each segment. Vertices on the plane count as above.
    """
    n = np.asarray(normal, dtype=float) / np.linalg.norm(normal)
    height = (mesh.vertices - origin_mm) @ n
    above = height >= 0.0
    corner = above[mesh.faces]
    cut = np.flatnonzero(corner.any(axis=1) & ~corner.all(axis=1))
    faces, corner = mesh.faces[cut].astype(np.int64), corner[cut]
    odd = np.where(corner.sum(axis=1) == 1, corner.argmax(axis=1), (~corner).argmax(axis=1))
    rows = np.arange(len(cut))
    tip, left, right = (faces[rows, (odd + k) % 3] for k in range(3))
    ends = []
    keys = []
    for a, b in ((tip, left), (tip, right)):
        low, high = np.minimum(a, b), np.maximum(a, b)
        t = height[low] / (height[low] - height[high])
        ends.append(mesh.vertices[low] + t[:, None] * (mesh.vertices[high] - mesh.vertices[low]))
        keys.append(low * len(mesh.vertices) + high)
    segments, key = np.stack(ends, axis=1), np.stack(keys, axis=1)
    flip = ~corner[rows, odd]
    segments[flip], key[flip] = segments[flip][:, ::-1], key[flip][:, ::-1]
    return segments, key


def loops(mesh: Mesh, origin_mm: Array, normal: Array) -> list[Loop]:
    """Closed curves of the section, largest area first; holes have negative area."""
    u, v, _ = plane_basis(normal)
    origin = np.asarray(origin_mm, dtype=float)
    found = [Loop(*_moments(piece, origin, u, v), piece[:, 0]) for piece in _pieces(mesh, origin, normal)]
    return sorted(found, key=lambda loop: -loop.area_mm2)


def loop_around(mesh: Mesh, origin_mm: Array, normal: Array) -> Loop | None:
    """The section loop that winds around origin_mm, the smallest one if several do; None if none does."""
    u, v, _ = plane_basis(normal)
    origin = np.asarray(origin_mm, dtype=float)
    found = []
    for piece in _pieces(mesh, origin, normal):
        a, b = ((piece[:, k] - origin) @ np.stack([u, v], axis=1) for k in (0, 1))
        turn = np.arctan2(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0], (a * b).sum(axis=1)).sum()
        if abs(turn) > np.pi:
            found.append(Loop(*_moments(piece, origin, u, v), piece[:, 0]))
    return min(found, key=lambda loop: abs(loop.area_mm2)) if found else None


def rings(mesh: Mesh, origin_mm: Array, normal: Array) -> list[Array]:
    """Points (n,3) of each closed curve of the section in their order along it, metal to the left seen against the normal.
    The mesh must be closed."""
    segments, keys = section(mesh, origin_mm, normal)
    after = dict(zip(keys[:, 0].tolist(), range(len(keys))))
    out = []
    while after:
        first, at = after.popitem()
        row = [at]
        while (key := int(keys[at, 1])) != first:
            at = after.pop(key)
            row.append(at)
        out.append(segments[row, 0])
    return out


def _pieces(mesh: Mesh, origin_mm: Array, normal: Array) -> list[Array]:
    """The section's segments, one array (m,2,3) for each closed curve."""
    segments, keys = section(mesh, origin_mm, normal)
    if not len(segments):
        return []
    _, number = np.unique(keys, return_inverse=True)
    number = number.reshape(keys.shape)
    size = int(number.max()) + 1
    link = sparse.csr_matrix((np.ones(len(number)), (number[:, 0], number[:, 1])), shape=(size, size))
    count, part = connected_components(link, directed=False)
    of_segment = part[number[:, 0]]
    order = np.argsort(of_segment, kind="stable")
    return np.split(segments[order], np.cumsum(np.bincount(of_segment, minlength=count))[:-1])


def _moments(segments: Array, origin_mm: Array, u: Array, v: Array) -> tuple[float, Array]:
    """Signed area and centroid of oriented segments that close, by Green's theorem."""
    a, b = ((segments[:, k] - origin_mm) @ np.stack([u, v], axis=1) for k in (0, 1))
    cross = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    area = 0.5 * float(cross.sum())
    if abs(area) < 1e-12:
        return 0.0, origin_mm
    flat = ((a + b) * cross[:, None]).sum(axis=0) / (6.0 * area)
    return area, origin_mm + flat[0] * u + flat[1] * v
