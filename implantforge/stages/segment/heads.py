"""Femoral heads found in the image as spheres, before any bone has a name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from implantforge.core import Array

BONE_HU = 200.0
"""Periosteal seed threshold, epiphysis and pelvis 200-250 HU; the surface stage finds the true edge."""
HEAD_RADIUS_MM = (17.0, 31.0)
"""Femoral head radius: mean 23 mm, 3.5 SD of 2.4 mm either way (Noble 1988)."""
HEAD_SUPPORT = 0.28
"""Share of the head's sphere that must vote for it; heads reach 0.45, the next best spheres in a pelvis 0.17."""


@dataclass(frozen=True, eq=False)
class Head:
    """A femoral head in the image: centre in mm from the first voxel, radius, share of the sphere that voted for it."""

    at_mm: Array
    radius_mm: float
    support: float


def find_heads(smooth: NDArray[np.float32], bone: NDArray[np.bool_], spacing_mm: Array) -> list[Head]:
    """Femoral heads by a Hough vote, best first, at most two: each bone edge votes one radius along its inward normal.
    bone: where smooth is above BONE_HU, without crumbs."""
    at, inward = _edges(smooth, bone, spacing_mm)
    cell_mm = 2.0
    extent = np.ceil(np.asarray(smooth.shape) * spacing_mm / cell_mm).astype(int) + 1
    best = np.zeros(tuple(extent), dtype=np.float32)
    radius_of = np.zeros(tuple(extent), dtype=np.float32)
    voxel_mm2 = float(np.prod(spacing_mm)) ** (2 / 3)
    for radius in np.arange(*HEAD_RADIUS_MM, 1.0):
        target = np.rint((at + radius * inward) / cell_mm).astype(np.int64)
        flat = np.ravel_multi_index(tuple(target[((target >= 0) & (target < extent)).all(axis=1)].T), tuple(extent))
        votes = np.bincount(flat, minlength=int(np.prod(extent))).reshape(extent).astype(np.float32)
        votes = ndimage.uniform_filter(votes, 3) * np.float32(27.0 * voxel_mm2 / (4.0 * np.pi * radius**2))
        better = votes > best
        best[better], radius_of[better] = votes[better], radius
    heads: list[Head] = []
    for _ in range(2):
        peak = np.unravel_index(int(best.argmax()), best.shape)
        if best[peak] < HEAD_SUPPORT:
            break
        heads.append(Head(np.array(peak, dtype=np.float64) * cell_mm, float(radius_of[peak]), float(best[peak])))
        best[tuple(slice(max(0, c - 25), c + 25) for c in peak)] = 0.0
    return heads


def _edges(smooth: NDArray[np.float32], bone: NDArray[np.bool_], spacing_mm: Array) -> tuple[Array, Array]:
    """Bone voxels next to flesh: positions (n,3) mm and unit gradients (n,3) pointing into the bone."""
    inner = bone.copy()
    inner[1:-1, 1:-1, 1:-1] = (
        bone[:-2, 1:-1, 1:-1] & bone[2:, 1:-1, 1:-1] & bone[1:-1, :-2, 1:-1] & bone[1:-1, 2:, 1:-1]
        & bone[1:-1, 1:-1, :-2] & bone[1:-1, 1:-1, 2:]
    )  # fmt: skip
    index = np.argwhere(bone & ~inner)
    top = np.asarray(smooth.shape) - 1
    gradient = np.empty(index.shape)
    for axis, step in enumerate(np.eye(3, dtype=int)):
        after, before = np.minimum(index + step, top), np.maximum(index - step, 0)
        gradient[:, axis] = (smooth[tuple(after.T)] - smooth[tuple(before.T)]) / (2.0 * spacing_mm[axis])
    steep = np.linalg.norm(gradient, axis=1)
    keep = steep > 60.0
    return index[keep] * spacing_mm, gradient[keep] / steep[keep, None]
