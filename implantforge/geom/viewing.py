"""What pictures need: CT numbers on a plane, gaps on a surface, coarse copies, the plane a part lies in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

from implantforge.core import Array, GeometryError, Mesh, Volume


def plane_hu(
    volume: Volume, centre_mm: Array, right: Array, up: Array, mm_per_px: float, size: tuple[int, int]
) -> Array:
    """CT numbers (height, width) float32 on a plane, linear between samples, NaN outside the scan.

    Pixel (row 0, column 0) is the upper left; pixel centres lie symmetrically about centre_mm.
    """
    height, width = size
    x = (np.arange(width) - (width - 1) / 2) * mm_per_px
    y = ((height - 1) / 2 - np.arange(height)) * mm_per_px
    points = np.asarray(centre_mm) + y[:, None, None] * np.asarray(up) + x[None, :, None] * np.asarray(right)
    index = volume.grid.to_index(points.reshape(-1, 3))
    hu = map_coordinates(volume.hu, index.T, output=np.float32, order=1, mode="nearest")
    last = np.array(volume.grid.shape) - 1
    hu[((index < -0.5) | (index > last + 0.5)).any(axis=1)] = np.nan
    return hu.reshape(height, width)


# mm and colour: blue is overlap (press-fit), pale is contact, yellow to dark red is a gap; safe for colour-blind eyes
GAP_STOPS = (
    (-1.0, "#2b4aa0"),
    (-0.4, "#7fa9e0"),
    (0.0, "#f3f1e2"),
    (0.5, "#f7d070"),
    (1.0, "#e8743b"),
    (2.0, "#8e1022"),
)


@dataclass(frozen=True, eq=False)
class GapMap:
    """Gaps measured at points (n,3) mm of a surface, readable anywhere near it."""

    tree: cKDTree
    gap_mm: Array
    reach_mm: float

    def __call__(self, points_mm: Array) -> Array:
        """Gap in mm at points (n,3): inverse distance mean of near samples, NaN where none is within reach_mm."""
        if not len(points_mm):
            return np.empty(0)
        distance, index = self.tree.query(points_mm, k=min(4, len(self.gap_mm)), distance_upper_bound=self.reach_mm)
        distance, index = distance.reshape(len(points_mm), -1), index.reshape(len(points_mm), -1)
        weight = np.where(np.isfinite(distance), 1 / (distance + 1e-3) ** 2, 0.0)
        gap = np.append(self.gap_mm, 0.0)[index]
        total = weight.sum(axis=1)
        with np.errstate(invalid="ignore"):
            return np.where(total > 0, (weight * gap).sum(axis=1) / total, np.nan)


def gap_map(points_mm: Array, gap_mm: Array) -> GapMap:
    """A GapMap that reaches three times the usual distance between samples (2 mm at least)."""
    points, gap = np.asarray(points_mm, float).reshape(-1, 3), np.asarray(gap_mm, float).ravel()
    keep = np.isfinite(gap) & np.isfinite(points).all(axis=1) if len(points) == len(gap) else np.zeros(0, bool)
    if not keep.any():
        raise GeometryError(f"gap map: {len(points)} points and {len(gap)} gaps, none usable")
    tree = cKDTree(points[keep])
    spacing = np.median(tree.query(points[keep], k=min(2, keep.sum()))[0].reshape(keep.sum(), -1)[:, -1])
    return GapMap(tree, gap[keep], float(max(3 * spacing, 2.0)))


def coarse(mesh: Mesh, step_mm: float) -> Mesh:
    """For pictures only: vertices that share a cell of step_mm become one; details below a pixel go, the shape stays.
    The result may touch itself and is never meant to be printed."""
    cell = np.floor((mesh.vertices - mesh.bounds[0]) / step_mm).astype(np.int64)
    key = (cell[:, 0] << 42) | (cell[:, 1] << 21) | cell[:, 2]
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    faces = inverse[mesh.faces]
    keep = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    means = [np.bincount(inverse, mesh.vertices[:, i], len(first)) for i in range(3)]
    vertices = np.column_stack(means) / np.bincount(inverse, minlength=len(first))[:, None]
    return Mesh(vertices, faces[keep].astype(np.int32))


def own_plane(mesh: Mesh) -> tuple[NDArray, NDArray] | None:
    """(normal, long axis) of the plane a long part lies in, or None when it is not clearly long.

    Both look left, posterior or superior, whichever they are nearest to."""
    cells = np.round((mesh.vertices - mesh.bounds[0]) / 3.0).astype(np.int64)  # thinned: a fine coat must not outweigh
    flat = np.unique((cells[:, 0] << 42) | (cells[:, 1] << 21) | cells[:, 2])
    points = np.column_stack([flat >> 42, (flat >> 21) & 0x1FFFFF, flat & 0x1FFFFF]) * 3.0
    values, axes = np.linalg.eigh(np.cov(points.T))
    if len(points) < 12 or values[2] < 2.5 * values[1]:
        return None
    normal, along = axes[:, 0], axes[:, 2]
    return normal * np.sign(normal[np.abs(normal).argmax()]), along * np.sign(along[np.abs(along).argmax()])
