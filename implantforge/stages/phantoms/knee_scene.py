"""A knee patient around the drawn bones: what the scan covers, cancellous bone, the leg's skin, muscle and fat."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter, gaussian_filter1d

from implantforge.core import Array, Grid, Pose, Side
from implantforge.stages.phantoms.bones import Bones
from implantforge.stages.phantoms.distance import Float
from implantforge.stages.phantoms.knee_bones import KNEE, KneeFrame
from implantforge.stages.phantoms.paint import COARSE_MM, Scanner, Scene, fade, speckle

REACH_MM = 125.0
"""The scan covers this much above and below the joint line; protocols ask for 100."""
_FRONT_MM, _BACK_MM, _ASIDE_MM = 9.0, 34.0, 15.0


def scene(
    bones: Bones, frame: KneeFrame, side: Side, spacing_mm: tuple[float, float, float], scanner: Scanner
) -> Scene:
    """How to paint one knee, cut through both shafts."""
    labels = {f"{name}_{side}": value for value, name in enumerate(KNEE, 1)}
    grid, leg = field_of_view(bones, frame, spacing_mm, scanner.fat_mm)
    return Scene(labels, grid, leg, partial(cancellous, frame, scanner), partial(_tissue, grid, scanner))


def field_of_view(
    bones: Bones, frame: KneeFrame, spacing_mm: tuple[float, float, float], fat_mm: float
) -> tuple[Grid, Array]:
    """The CT grid around one leg; middle of the leg and its half axes, mm. Rows and columns differ in number."""
    step = np.array(spacing_mm)
    v = np.concatenate([mesh.vertices for mesh in bones.meshes.values()])
    v = v[np.abs(v[:, 2] - frame.middle[2]) < REACH_MM]
    lo, hi = v.min(axis=0), v.max(axis=0)
    aside = _ASIDE_MM + fat_mm + 12
    low = np.array([lo[0] - aside, lo[1] - _FRONT_MM - 22, frame.middle[2] - REACH_MM])
    high = np.array([hi[0] + aside, hi[1] + _BACK_MM + fat_mm + 36, frame.middle[2] + REACH_MM])
    size = np.ceil((high - low) / step / 2).astype(int) * 2
    size[1] += 2 * (size[0] == size[1])
    grid = Grid(Pose(np.eye(3), np.round(low, 2)), step, (int(size[0]), int(size[1]), int(size[2])))
    front, back = lo[1] - _FRONT_MM, hi[1] + _BACK_MM + 0.5 * fat_mm
    return grid, np.array([(lo[0] + hi[0]) / 2, (front + back) / 2, (hi[0] - lo[0]) / 2 + aside, (back - front) / 2])


def cancellous(
    frame: KneeFrame, scanner: Scanner, name: str, points: Array, under: NDArray, grain: NDArray
) -> NDArray[np.float64]:
    """CT number inside the cortex: dense under the joint, sparse in the metaphyses, marrow fat down the shafts."""
    if name.startswith("patella"):
        return scanner.cancellous_hu * (240 + 120 * np.exp(-under.clip(0) / 3.0)) + 42 * grain
    away = np.abs(frame.above(points))
    dense = 110 + 150 * fade(away, 8, 42) + 110 * np.exp(-under.clip(0) / 3.5)
    solid = fade(away - 10 * np.exp(-under.clip(0) / 3.0), 34, 85)
    if name.startswith("fibula"):
        dense = dense - 40
    return (scanner.cancellous_hu * dense + 42 * grain) * solid + (scanner.marrow_hu + 10 * grain) * (1 - solid)


def _extents(bone: NDArray[np.bool_], axis: int, origin: float) -> tuple[NDArray, NDArray]:
    """Lowest and highest bone along an axis (mm) at every level of the lattice; empty levels like their neighbours."""
    flat: NDArray[np.bool_] = np.asarray(bone.any(axis=1 - axis))
    some = np.flatnonzero(flat.any(axis=0))
    first, last = flat.argmax(axis=0), len(flat) - 1 - flat[::-1].argmax(axis=0)
    levels = np.arange(flat.shape[1])
    low, high = (np.interp(levels, some, edge[some]) * COARSE_MM + origin for edge in (first, last))
    return gaussian_filter1d(low, 3.0, mode="nearest"), gaussian_filter1d(high, 3.0, mode="nearest")


def skin(bone: NDArray[np.bool_], x: Array, y: Array, fat_mm: float) -> Float:
    """Approximate distance to the skin of a leg that follows its bones, on the coarse lattice with axes x and y."""
    left, right = _extents(bone, 0, float(x[0]))
    front, back = _extents(bone, 1, float(y[0]))
    front, back = front - _FRONT_MM, back + _BACK_MM + 0.5 * fat_mm
    middle, depth = (front + back) / 2, np.maximum((back - front) / 2, 52)
    centre, width = (left + right) / 2, np.maximum((right - left) / 2 + _ASIDE_MM + 0.6 * fat_mm, 50)
    r = np.hypot((x[:, None, None] - centre) / width, (y[None, :, None] - middle) / depth)
    return np.asarray((r - 1) * np.minimum(width, depth), dtype=np.float32)


def _tissue(
    grid: Grid, scanner: Scanner, labels: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[Array, Float, Float]:
    """Coarse lattice origin, skin level and muscle level (negative inside): a leg that follows its bones."""
    low = grid.pose.origin_mm - COARSE_MM
    extent = np.array(grid.shape) * grid.spacing_mm + 2 * COARSE_MM
    size = np.ceil(extent / COARSE_MM).astype(int) + 1
    shape = (int(size[0]), int(size[1]), int(size[2]))
    axes = [low[a] + np.arange(shape[a]) * COARSE_MM for a in range(3)]
    index = [(axes[a] - grid.pose.origin_mm[a]) / grid.spacing_mm[a] for a in range(3)]
    take = np.ix_(*(np.rint(i).astype(int).clip(0, n - 1) for i, n in zip(index, grid.shape)))
    bone = labels[take] > 0
    body = skin(bone, axes[0], axes[1], scanner.fat_mm)
    front = _extents(bone, 1, float(low[1]))[0] - _FRONT_MM
    away = distance_transform_edt(~bone, COARSE_MM).astype(np.float32)
    broad, fine = speckle(rng, shape, 4.0), speckle(rng, shape, 1.6)
    rind = 0.6 * scanner.fat_mm * (1 + 0.2 * broad)
    muscle = np.maximum(np.maximum(away - 30 + 7 * broad, body + rind), 6.0 - axes[1][None, :, None] + front)
    septa = 2.2 - 9.0 * np.abs(gaussian_filter(broad + 0.8 * fine, 0.6)) - 0.5 * (8 - away).clip(0)
    return low, body, np.maximum(muscle, septa).astype(np.float32)
