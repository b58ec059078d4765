"""Signed distance of closed meshes on regular axis-aligned grids, near the surface and through the inside."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d
from scipy.spatial import cKDTree

from implantforge.core import Array, Mesh

Float = NDArray[np.float32]


def inside(mesh: Mesh, origin: Array, spacing: Array, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """True where a sample at origin + (i,j,k) * spacing is wound about; overlapping parts of a mesh stay inside."""
    # an irrational shift keeps scan lines off vertices and edges
    p = (mesh.vertices - origin) / spacing + np.array([7.1e-5, 3.3e-5, 0.0]) * np.sqrt(2)
    a, b, c = (p[mesh.faces[:, i]] for i in range(3))
    lo = np.ceil(np.minimum(np.minimum(a, b), c)[:, :2]).astype(int).clip(0)
    hi = np.minimum(np.floor(np.maximum(np.maximum(a, b), c)[:, :2]).astype(int), np.array(shape[:2]) - 1)
    size = (hi - lo + 1).clip(0)
    count = size[:, 0] * size[:, 1]
    face = np.repeat(np.arange(len(a)), count)
    step = np.arange(len(face)) - np.repeat(np.cumsum(count) - count, count)
    width = np.maximum(size[face, 1], 1)
    i, j = lo[face, 0] + step // width, lo[face, 1] + step % width
    a, b, c = a[face], b[face], c[face]
    area = _cross2(b - a, c - a)
    with np.errstate(divide="ignore", invalid="ignore"):
        v = ((i - a[:, 0]) * (c - a)[:, 1] - (j - a[:, 1]) * (c - a)[:, 0]) / area
        w = ((b - a)[:, 0] * (j - a[:, 1]) - (b - a)[:, 1] * (i - a[:, 0])) / area
        hit = (v >= 0) & (w >= 0) & (v + w < 1)
    a, b, c, v, w = a[hit, 2], b[hit, 2], c[hit, 2], v[hit], w[hit]
    k = np.ceil(a + v * (b - a) + w * (c - a)).astype(int)
    winding = np.zeros((shape[0], shape[1], shape[2] + 1), dtype=np.int16)
    np.add.at(winding, (i[hit], j[hit], k.clip(0, shape[2])), -np.sign(area[hit]).astype(np.int16))
    return np.cumsum(winding, axis=2, dtype=np.int16)[:, :, :-1] > 0


def _cross2(a: Array, b: Array) -> Array:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def signed(
    mesh: Mesh, origin: Array, spacing: Array, shape: tuple[int, int, int], *, inner_mm: float, outer_mm: float
) -> Float:
    """Distance float32 [i,j,k], negative inside, measured within inner_mm and outer_mm of the surface.

    Beyond that it is clipped to a value no nearer than the band.
    """
    within = inside(mesh, origin, spacing, shape)
    out = np.where(within, np.float32(-inner_mm), np.float32(outer_mm))
    edge = np.zeros(shape, dtype=bool)
    index = np.rint((_dense(mesh, float(spacing.min())) - origin) / spacing).astype(int)
    index = index[((index >= 0) & (index < shape)).all(axis=1)]
    edge[tuple(index.T)] = True
    near = _grow(edge, spacing, outer_mm) & ~within
    near |= (_grow(edge, spacing, inner_mm) if inner_mm < 12 else True) & within
    where = np.argwhere(near)
    distance = unsigned(mesh, origin + where * spacing, max(inner_mm, outer_mm) + 3.0)
    limit = np.where(within[near], inner_mm, outer_mm)
    out[near] = np.minimum(distance, limit) * np.where(within[near], -1, 1)
    return out


def _dense(mesh: Mesh, step: float) -> Array:
    """Vertices, edge midpoints and centroids: enough to mark every voxel row the surface comes near."""
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    if np.sqrt(np.linalg.norm(mesh.face_cross, axis=1).mean()) < 2 * step:
        return np.concatenate([mesh.vertices, (a + b + c) / 3])
    return np.concatenate([mesh.vertices, (a + b) / 2, (b + c) / 2, (c + a) / 2, (a + b + c) / 3])


def _grow(edge: NDArray[np.bool_], spacing: Array, mm: float) -> NDArray[np.bool_]:
    """Dilated by at least mm: box steps are cheap and only ever too generous."""
    out = edge.view(np.uint8)
    for axis in range(3):
        out = maximum_filter1d(out, 2 * int(np.ceil((mm + 1.0) / spacing[axis])) + 1, axis=axis)
    return out > 0


def unsigned(mesh: Mesh, points: Array, limit_mm: float = np.inf, chunk: int = 100_000) -> Array:
    """Distance (n,) mm to the surface, exact to the triangles and edges that meet at the nearest vertex.

    Points whose nearest vertex is farther than limit_mm get inf.
    """
    corner = np.argsort(mesh.faces.ravel(), kind="stable")
    start = np.searchsorted(mesh.faces.ravel()[corner], np.arange(len(mesh.vertices) + 1))
    face, turn = corner // 3, corner % 3
    a, b, c = (mesh.vertices[mesh.faces[face, (turn + i) % 3]] for i in range(3))
    ab, ac = b - a, c - a
    bb, bc, cc = (np.einsum("ij,ij->i", p, q) for p, q in ((ab, ab), (ab, ac), (ac, ac)))
    inverse = 1.0 / np.maximum(bb * cc - bc * bc, 1e-30)
    tree = cKDTree(mesh.vertices)
    out = np.full(len(points), np.inf)
    for s in range(0, len(points), chunk):
        p = points[s : s + chunk]
        distance, nearest = tree.query(p, workers=2, distance_upper_bound=limit_mm)
        some = np.flatnonzero(np.isfinite(distance))
        nearest, ap, square = nearest[some], p[some] - mesh.vertices[nearest[some]], distance[some] ** 2
        count = start[nearest + 1] - start[nearest]
        offset = np.cumsum(count) - count
        row = np.repeat(np.arange(len(some)), count)
        ring = np.arange(len(row)) + np.repeat(start[nearest] - offset, count)
        d1 = np.einsum("ij,ij->i", ap[row], ab[ring])
        d2 = np.einsum("ij,ij->i", ap[row], ac[ring])
        b2, x2, c2, scale = bb[ring], bc[ring], cc[ring], inverse[ring]
        t = (d1 / np.maximum(b2, 1e-30)).clip(0, 1)
        less = t * (2 * d1 - t * b2)
        v, w = (d1 * c2 - d2 * x2) * scale, (d2 * b2 - d1 * x2) * scale
        less = np.where((v >= 0) & (w >= 0) & (v + w <= 1), np.maximum(less, v * d1 + w * d2), less)
        out[s + some] = np.sqrt(np.maximum(square - np.maximum.reduceat(less, offset), 0.0))
    return out
