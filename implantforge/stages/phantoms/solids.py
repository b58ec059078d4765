"""Closed solids as sampled distance: smoothed, carved clear of each other, polygonised, hollowed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, label
from scipy.sparse import csr_matrix
from skimage.measure import marching_cubes

from implantforge.core import Array, Mesh
from implantforge.stages.phantoms.distance import Float, signed

BAND_MM = 3.0
"""Distances are measured this far from a surface."""


def sphere(points: Array) -> tuple[Array, float]:
    """Least-squares centre and radius."""
    middle = points.mean(axis=0)
    p = points - middle
    x = np.linalg.lstsq(np.c_[2 * p, np.ones(len(p))], (p**2).sum(axis=1), rcond=None)[0]
    return x[:3] + middle, float(np.sqrt(x[3] + x[:3] @ x[:3]))


def normals(mesh: Mesh) -> Array:
    """Unit outward vertex normals weighted by area."""
    out = np.zeros_like(mesh.vertices)
    for corner in range(3):
        np.add.at(out, mesh.faces[:, corner], mesh.face_cross)
    return out / np.maximum(np.linalg.norm(out, axis=1), 1e-12)[:, None]


def basis(z: Array, x: Array) -> Array:
    """Right-handed axes as columns: z kept, x made perpendicular."""
    z = z / np.linalg.norm(z)
    x = x - z * (x @ z)
    x = x / np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], axis=1)


def field_of(mesh: Mesh, h: float) -> tuple[NDArray[np.int64], Float]:
    """Smoothed signed distance on the common lattice of pitch h, and the lattice index of its first sample."""
    start = np.floor(mesh.bounds[0] / h).astype(int) - 6
    shape = np.ceil(mesh.bounds[1] / h).astype(int) + 6 - start
    size = (int(shape[0]), int(shape[1]), int(shape[2]))
    values = signed(mesh, start * h, np.full(3, h), size, inner_mm=BAND_MM, outer_mm=BAND_MM)
    return start, smoothed(values, 0.8 / h)


def smoothed(values: Float, width: float) -> Float:
    """Rounded field whose surface recedes by 0.2 mm at most, so that thin walls stay whole."""
    return np.minimum(gaussian_filter(values, width), values + np.float32(0.2))


def common(a: tuple[NDArray, Float], b: tuple[NDArray, Float]) -> tuple[Float, Float] | None:
    """Views of two fields where their boxes overlap."""
    lo = np.maximum(a[0], b[0])
    hi = np.minimum(a[0] + a[1].shape, b[0] + b[1].shape)
    if (hi <= lo).any():
        return None
    va, vb = (f[1][tuple(slice(int(p), int(q)) for p, q in zip(lo - f[0], hi - f[0]))] for f in (a, b))
    return va, vb


def part(a: tuple[NDArray, Float], b: tuple[NDArray, Float], clearance_mm: float) -> None:
    """Two fields carved in place until they are clearance_mm apart; both share the loss."""
    views = common(a, b)
    if views is not None:
        gap = (views[0] - views[1]) / 2
        views[0][:] = np.maximum(views[0], gap + clearance_mm / 2)
        views[1][:] = np.maximum(views[1], clearance_mm / 2 - gap)


def polygonise(values: Float, start: NDArray, h: float) -> Mesh:
    """Closed zero surface of the largest body of a field on the lattice."""
    body, count = label(values < 0)
    if count > 1:
        keep = np.argmax(np.bincount(body.ravel())[1:]) + 1
        values = np.where((body > 0) & (body != keep), np.float32(0.5), values)
    values = np.where(np.abs(values) < 1e-4, np.float32(1e-4), values)
    vertices, faces, _, _ = marching_cubes(values, 0.0, spacing=(h, h, h), gradient_direction="ascent")
    mesh = Mesh(vertices + start * h, faces)
    return _evened(mesh if mesh.volume_mm3 > 0 else Mesh(mesh.vertices, mesh.faces[:, ::-1]))


def _evened(mesh: Mesh, rounds: int = 4) -> Mesh:
    """Vertices slid within the surface toward their neighbours' middle: no slivers, same shape."""
    n = len(mesh.vertices)
    i, j = mesh.faces.ravel(), np.roll(mesh.faces, -1, axis=1).ravel()
    ring = csr_matrix((np.ones(len(i)), (i, j)), (n, n))
    degree = np.asarray(ring.sum(axis=1))
    for _ in range(rounds):
        normal = normals(mesh)
        move = ring @ mesh.vertices / degree - mesh.vertices
        move -= np.einsum("ij,ij->i", move, normal)[:, None] * normal
        mesh = Mesh(mesh.vertices + 0.6 * move, mesh.faces)
    return mesh


def cavity(mesh: Mesh, cortex: Callable[[Array], Array], h: float) -> Mesh:
    """Endosteal surface: depth under the outer surface equal to the cortex there."""
    start = np.floor(mesh.bounds[0] / h).astype(int) - 2
    shape = np.ceil(mesh.bounds[1] / h).astype(int) + 2 - start
    size = (int(shape[0]), int(shape[1]), int(shape[2]))
    d = signed(mesh, start * h, np.full(3, h), size, inner_mm=50.0, outer_mm=3.0)
    where = np.argwhere(d < 3.0)
    d[tuple(where.T)] += cortex((where + start) * h).astype(np.float32)
    return polygonise(d, start, h)
