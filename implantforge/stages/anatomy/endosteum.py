"""Where a cortex ends inside: the endosteal edge between samples, at half height between marrow and bone."""

from __future__ import annotations

from collections.abc import Callable

import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from implantforge.core import Array

BAND_MM = 2.0
"""Distances are those to the edge itself this near it; further off, those of the voxels."""
OUT_MM, IN_MM, BLUR_MM, STEP_MM = 3.0, 2.5, 1.25, 0.25
"""Along the edge's normal: where bone and marrow are read, marrow BLUR_MM and more off the edge; how finely."""
MOST_HU, MOST_MM = 200.0, 0.4
"""How far half height may lie from the threshold, and how far it may move the edge."""
CELL_MM, SHARED_MM = 1.5, 1.5
"""Over what profiles are averaged, and what is read from them (one sigma)."""


def distance(
    hu: NDArray[np.float32],
    read: Callable[[Array], Array],
    depth_mm: NDArray[np.float32],
    edge_hu: float,
    cortex_mm: float,
    spacing_mm: float,
) -> NDArray[np.float32] | None:
    """Signed distance (mm, negative within) on cubic samples (i,j,k) to the wall of the largest cavity in a bone.

    hu may be smoothed; read gives HU as scanned at points (n,3) in samples.

    The cavity is what lies below edge_hu and deeper than cortex_mm under the outer surface, its holes filled. Its edge
    is then moved to half height between the marrow and the bone beside it: a fixed HU finds a canal wide or narrow with
    a scanner's calibration, a kernel's blur and a thin cortex, half height does not (Prevrhal 1999). None without a cavity.
    """
    level = np.maximum((hu - edge_hu) / 700.0, cortex_mm - depth_mm)
    pieces, count = ndimage.label(level < 0.0)
    if not count:
        return None
    open_ = ndimage.binary_fill_holes(pieces == 1 + np.bincount(pieces.ravel())[1:].argmax())
    # what was dropped or filled must not cross nought
    level = np.where(open_, np.minimum(level, -0.02), np.maximum(level, 0.02)).astype(np.float32)
    out, within = (edt.edt(m, parallel=2) for m in (~open_, open_))
    far = np.where(open_, 0.5 - within, out - 0.5)
    at, normal = _edge(level)
    moved = _half_height(read, at, normal, edge_hu, spacing_mm)
    moved = _shared(moved, at, hu.shape, SHARED_MM / spacing_mm)
    room = ndimage.map_coordinates(depth_mm, at.T, order=1, mode="nearest") - cortex_mm
    moved = np.where(room < 0.05, 0.0, np.minimum(moved, room)) / spacing_mm
    near = np.abs(far) < BAND_MM / spacing_mm
    points = np.argwhere(near).astype(np.float64)
    _, foot = cKDTree(at).query(points, workers=2)
    far[near] = np.einsum("ij,ij->i", points - at[foot], normal[foot]) - moved[foot]
    return ndimage.gaussian_filter(far * spacing_mm, 0.5).astype(np.float32)


def _edge(level: NDArray[np.float32]) -> tuple[Array, Array]:
    """Points (n,3), in samples, where the level crosses nought between neighbours, and unit normals toward more."""
    found = []
    for axis in range(3):
        a, b = np.delete(level, -1, axis), np.delete(level, 0, axis)
        which = np.nonzero((a < 0) != (b < 0))
        points = np.stack(which, axis=1).astype(np.float64)
        points[:, axis] += a[which] / (a[which] - b[which])
        found.append(points)
    at = np.concatenate(found)
    sides = [[ndimage.map_coordinates(level, (at + way * half).T, order=1, mode="nearest") for way in (0.5, -0.5)]
             for half in np.eye(3)]  # fmt: skip
    steep = np.stack([ahead - behind for ahead, behind in sides], axis=1).astype(np.float64)
    return at, steep / np.maximum(np.linalg.norm(steep, axis=1), 1e-9)[:, None]


def _half_height(read: Callable[[Array], Array], at: Array, normal: Array, edge_hu: float, spacing_mm: float) -> Array:
    """(n,) mm along the normals from points on the threshold to half height between marrow and bone, both read from
    profiles averaged over cells of the edge: noise alone would make a peak."""
    along = np.arange(-IN_MM, OUT_MM + STEP_MM / 2, STEP_MM)
    middle = (at.min(axis=0) + at.max(axis=0)) / 2.0
    # about the middle, so that the mirrored bone falls into the mirrored cells
    cells, own, count = np.unique(np.floor((at - middle) * (spacing_mm / CELL_MM) + 0.5), axis=0, return_inverse=True,
                                  return_counts=True)  # fmt: skip
    own = own.reshape(-1)
    seen = np.stack([np.bincount(own, read(at + s / spacing_mm * normal), len(cells)) / count for s in along])
    half = (seen[along >= 0.0].max(axis=0) + seen[along < -BLUR_MM].mean(axis=0)) / 2.0
    half = half.clip(edge_hu - MOST_HU, edge_hu + MOST_HU)
    below, above = seen[:-1] - half, seen[1:] - half
    crosses = (below < 0) & (above >= 0)
    where = along[:-1, None] + STEP_MM * below / np.where(crosses, below - above, 1.0)
    where[~crosses] = np.inf
    moved = where[np.abs(where).argmin(axis=0), np.arange(len(cells))]
    return np.where(np.isfinite(moved), moved.clip(-MOST_MM, MOST_MM), 0.0)[own]


def _shared(values: Array, at: Array, shape: tuple[int, ...], sigma: float) -> Array:
    """(n,) values averaged with those around them."""
    cell = tuple(np.rint(at).astype(int).T)
    total, count = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    np.add.at(total, cell, values)
    np.add.at(count, cell, 1.0)
    total, count = (ndimage.gaussian_filter(grid, sigma, truncate=2.0) for grid in (total, count))
    return (total[cell] / count[cell]).astype(np.float64)
