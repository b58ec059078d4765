"""Knees found in the image by their shape alone: a broad joint between two single shafts."""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from implantforge.core import Array
from implantforge.stages.segment.heads import BONE_HU

_CELL_MM = 2.5
_BOX_MM = 90.0
"""A knee and its patella fit into this square; the other leg does not."""
JOINT_MM2 = 2000.0
"""Bone on axial slices around the joint, mean over 40 mm: knees 2400-4500 mm2, elbows and ankles under 1500."""
SHAFT_MM2 = (200.0, 1800.0)
SHAFT_WIDEST_MM = 62.0
"""A shaft's outline fits into this; the wing of an ilium, a foot or a skull does not."""
SHAFT_SHARE = 0.6
_ABOVE_MM, _BELOW_MM = (50.0, 85.0), (68.0, 105.0)
"""Where the shafts are looked for: the broad part's middle lies some 15 mm above the joint line."""


@dataclass(frozen=True, eq=False)
class Knee:
    """A knee in the image: middle of its broad part in mm from the first voxel (within about 15 mm of the joint line),
    bone on its slices relative to its shafts' (2.5 and more), share of shaft slices that show a single slim outline."""

    at_mm: Array
    broad: float
    support: float


def find_knees(smooth: NDArray[np.float32], spacing_mm: Array) -> list[Knee]:
    """Knees from the patient's right to left, none, one or two. Axes near left, posterior, superior; HU smoothed.

    Each has 40 mm of broad bone between two slim shafts; no other joint has.
    """
    step = np.maximum(np.floor(_CELL_MM / spacing_mm + 0.25).astype(int), 1)
    cell = step * spacing_mm
    bone = _filled_slices(_pooled(smooth > BONE_HU, step))
    area = _box_area(bone, cell)
    broad, shafts = _profile(area, float(cell[2]))
    score = np.where((broad > JOINT_MM2) & shafts[1], broad, 0.0)
    found: list[Knee] = []
    for _ in range(8):
        peak = np.unravel_index(int(score.argmax()), score.shape)
        if score[peak] <= 0.0 or len(found) == 2:
            break
        at = _middle(bone, peak, cell)
        support = min(_slim(bone, at, cell, sign) for sign in (1, -1))
        if support >= SHAFT_SHARE:
            found.append(Knee(at * cell + (step - 1) / 2 * spacing_mm, float(broad[peak] / shafts[0][peak]), support))
        reach = np.ceil(np.array([70.0, 70.0, 90.0]) / cell).astype(int)
        score[tuple(slice(max(0, p - r), p + r + 1) for p, r in zip(peak, reach))] = 0.0
    return sorted(found, key=lambda knee: float(knee.at_mm[0]))


def _pooled(mask: NDArray[np.bool_], step: NDArray) -> NDArray[np.bool_]:
    """True where any voxel of a block is."""
    size = np.array(mask.shape) // step
    for axis in range(3):
        shape = list(mask.shape)
        mask = mask.take(range(size[axis] * step[axis]), axis) if shape[axis] % step[axis] else mask
        shape[axis : axis + 1] = [int(size[axis]), int(step[axis])]
        mask = np.asarray(mask.reshape(shape).any(axis=axis + 1))
    return mask


def _filled_slices(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Holes of axial slices filled."""
    out = mask.copy()
    for k in range(mask.shape[2]):
        if mask[:, :, k].any():
            out[:, :, k] = ndimage.binary_fill_holes(mask[:, :, k])
    return out


def _box_area(bone: NDArray[np.bool_], cell: Array) -> NDArray[np.float32]:
    """Bone (mm2) in a square around every cell, slice by slice."""
    out = bone.astype(np.float32)
    for axis in (0, 1):
        size = int(_BOX_MM / cell[axis]) | 1
        out = ndimage.uniform_filter1d(out, size, axis, mode="constant") * np.float32(size * cell[axis])
    return out


def _profile(area: NDArray[np.float32], cell_mm: float) -> tuple[NDArray, tuple[NDArray, NDArray]]:
    """Mean area from 15 mm below to 25 mm above every cell; the larger shaft's area, and whether both are shafts."""
    total = np.concatenate([np.zeros((*area.shape[:2], 1)), np.cumsum(area, axis=2, dtype=np.float64)], axis=2)
    k = np.arange(area.shape[2])

    def mean(low_mm: float, high_mm: float) -> NDArray:
        a, b = ((k + round(s / cell_mm)).clip(0, area.shape[2]) for s in (low_mm, high_mm))
        return (total[:, :, b] - total[:, :, a]) / np.maximum(b - a, 1)

    above, below = mean(*_ABOVE_MM), mean(-_BELOW_MM[1], -_BELOW_MM[0])
    thin = (above > SHAFT_MM2[0]) & (above < SHAFT_MM2[1]) & (below > SHAFT_MM2[0]) & (below < SHAFT_MM2[1] * 1.3)
    return mean(-15.0, 25.0), (np.maximum(above, below), thin)


def _middle(bone: NDArray[np.bool_], peak: tuple, cell: Array) -> Array:
    """Centroid (in cells) of the bone in the box around a peak."""
    half = (np.array([_BOX_MM / 2, _BOX_MM / 2, 20.0]) / cell).astype(int)
    lo = np.maximum(np.array(peak) - half, 0)
    box = bone[tuple(slice(int(a), int(p + h + 1)) for a, p, h in zip(lo, peak, half))]
    return np.asarray(np.argwhere(box).mean(axis=0) + lo)


def _slim(bone: NDArray[np.bool_], at: Array, cell: Array, sign: int) -> float:
    """Share of slices well above (sign 1) or below the joint whose largest outline nearby is a shaft's."""
    half = (60.0 / cell[:2]).astype(int)
    lo = np.maximum(at[:2].astype(int) - half, 0)
    good = count = 0
    for s in np.arange(*(_ABOVE_MM if sign > 0 else _BELOW_MM), cell[2]):
        k = round(float(at[2] + sign * s / cell[2]))
        if not 0 <= k < bone.shape[2]:
            continue
        count += 1
        part = bone[lo[0] : int(at[0]) + half[0] + 1, lo[1] : int(at[1]) + half[1] + 1, k]
        piece, number = cc3d.connected_components(np.ascontiguousarray(part), connectivity=8, return_N=True)
        if not number:
            continue
        sizes = np.bincount(piece.ravel())
        sizes[0] = 0
        extent = np.ptp(np.argwhere(piece == sizes.argmax()), axis=0) * cell[:2]
        area = float(sizes.max() * cell[0] * cell[1])
        rest = float(np.sort(sizes)[:-1].sum() * cell[0] * cell[1])
        slim = SHAFT_MM2[0] < area < SHAFT_MM2[1] and np.linalg.norm(extent) < SHAFT_WIDEST_MM * 1.2
        good += int(slim and rest < 0.8 * area + 200.0)
    return good / count if count > 3 else 0.0
