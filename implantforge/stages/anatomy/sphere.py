"""Spheres on bone surfaces: found by votes, then fitted by least squares on the articular part alone."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from implantforge.core import AnatomyError, Array, Mesh

INLIER_MM = 1.0
ALIGNED = 0.975
"""A vertex belongs to the sphere when its normal is within 13 deg of the radius (cos 0.975)."""


def vertex_normals(mesh: Mesh) -> tuple[Array, Array]:
    """Unit normals (n,3) and the area (n,) mm2 each vertex stands for."""
    cross = mesh.face_cross
    flat = mesh.faces.ravel()
    count = len(mesh.vertices)
    normals = np.stack([np.bincount(flat, np.repeat(cross[:, a], 3), count) for a in range(3)], axis=1)
    area = np.bincount(flat, np.repeat(np.linalg.norm(cross, axis=1) / 6.0, 3), count).astype(np.float64)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12), area


def vote_sphere(mesh: Mesh, radius_mm: tuple[float, float]) -> tuple[Array, float]:
    """Centre and radius of the sphere that the largest share of its own area votes for along its normals."""
    normals, area = vertex_normals(mesh)
    cell = 2.0
    low, high = mesh.bounds
    low = low - 10.0
    extent = np.ceil((high + 10.0 - low) / cell).astype(int) + 1
    best, where, best_radius = 0.0, None, 0.0
    for radius in np.arange(radius_mm[0], radius_mm[1] + 0.5, 1.0):
        target = np.rint((mesh.vertices - radius * normals - low) / cell).astype(np.int64)
        ok = ((target >= 0) & (target < extent)).all(axis=1)
        flat = np.ravel_multi_index(tuple(target[ok].T), tuple(extent))
        votes = np.bincount(flat, area[ok], int(np.prod(extent))).reshape(extent)
        votes = ndimage.uniform_filter(votes, 3) * 27.0 / (4.0 * np.pi * radius**2)
        peak = int(votes.argmax())
        if votes.ravel()[peak] > best:
            best, where, best_radius = float(votes.ravel()[peak]), np.array(np.unravel_index(peak, votes.shape)), radius
    if where is None:
        raise AnatomyError("no sphere: the surface has no area")
    return low + where * cell, float(best_radius)


def fit_sphere(mesh: Mesh, center_mm: Array, radius_mm: float) -> tuple[Array, float, float, int]:
    """Centre, radius, RMS residual (mm) and vertex count of the least-squares sphere on the surface that follows it.

    Reweighted: vertices further than INLIER_MM from the sphere or with a normal off the radius (fovea, rim, neck) drop out.
    """
    normals, area = vertex_normals(mesh)
    center, radius = np.asarray(center_mm, dtype=float), float(radius_mm)
    keep = np.zeros(len(area), dtype=bool)
    for band in (3.0, 2.0, 1.5, *[INLIER_MM] * 12):
        away = mesh.vertices - center
        length = np.linalg.norm(away, axis=1)
        aligned = np.einsum("ij,ij->i", away, normals) > ALIGNED * length
        keep = aligned & (np.abs(length - radius) < band)
        if keep.sum() < 20:
            break
        weight = np.sqrt(area[keep])
        matrix = np.column_stack([2.0 * away[keep], np.ones(keep.sum())]) * weight[:, None]
        solved = np.linalg.lstsq(matrix, (away[keep] ** 2).sum(axis=1) * weight, rcond=None)[0]
        moved = solved[:3]
        radius = float(np.sqrt(max(solved[3] + moved @ moved, 1e-9)))
        center = center + moved
        if np.linalg.norm(moved) < 1e-4 and band == INLIER_MM:
            break
    residual = np.linalg.norm(mesh.vertices[keep] - center, axis=1) - radius if keep.any() else np.array([np.inf])
    return center, radius, float(np.sqrt(np.mean(residual**2))), int(keep.sum())
