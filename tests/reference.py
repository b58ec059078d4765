"""Slow, plain twins of the kernels, written from the formulas."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def tpms_level(kind: str, cell: float, points: Array) -> Array:
    """f at points (n,3) mm, in library trigonometry."""
    x, y, z = (2 * np.pi / cell * points).T
    sin, cos = np.sin, np.cos
    if kind == "gyroid":
        return sin(x) * cos(y) + sin(y) * cos(z) + sin(z) * cos(x)
    if kind == "diamond":
        return sin(x) * sin(y) * sin(z) + sin(x) * cos(y) * cos(z) + cos(x) * sin(y) * cos(z) + cos(x) * cos(y) * sin(z)
    if kind == "primitive":
        return cos(x) + cos(y) + cos(z)
    return 2 * (cos(x) * cos(y) + cos(y) * cos(z) + cos(z) * cos(x)) - (cos(2 * x) + cos(2 * y) + cos(2 * z))


def tpms_distance(kind: str, cell: float, level: float, steps: int, points: Array) -> Array:
    """Signed distance by the same walk, gradients by central differences."""

    def gradient(at: Array) -> Array:
        e = 1e-5 * cell
        shifts = np.eye(3) * e
        sides = [tpms_level(kind, cell, at + d) - tpms_level(kind, cell, at - d) for d in shifts]
        return np.stack(sides, axis=1) / (2 * e)

    foot = points.copy()
    sign = np.where(tpms_level(kind, cell, points) < level, -1.0, 1.0)
    for _ in range(steps + 1):
        g = gradient(foot)
        f = tpms_level(kind, cell, foot) - level
        s = (f + ((points - foot) * g).sum(axis=1)) / (g * g).sum(axis=1)
        foot = points - s[:, None] * g
    return sign * np.linalg.norm(points - foot, axis=1)


def trilinear(values: Array, at: Array) -> Array:
    """values (i,j,k) read at fractional indices (n,3) inside the grid."""
    base = np.minimum(at.astype(int), np.array(values.shape) - 2)
    part = at - base
    out = np.zeros(len(at))
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(np.array(corner) == 1, part, 1 - part), axis=1)
        out += weight * values[tuple((base + corner).T)]
    return out


def edge_count_manifold(faces: NDArray[np.int32]) -> bool:
    """Every directed edge once, and its opposite once."""
    directed = [(int(a), int(b)) for f in faces for a, b in zip(f, np.roll(f, -1))]
    return len(set(directed)) == len(directed) and {(b, a) for a, b in directed} == set(directed)


def local_thickness(mask: NDArray[np.bool_], radius: Array) -> Array:
    """Largest radius of the balls (radius (i,j,k), voxels) that cover each voxel, by comparing all pairs."""
    inside = np.argwhere(mask)
    r = radius[mask]
    gaps = np.linalg.norm(inside[:, None] - inside[None], axis=2)
    out = np.zeros(mask.shape)
    out[mask] = np.where(gaps < r[None], r[None], 0).max(axis=1)
    return out
