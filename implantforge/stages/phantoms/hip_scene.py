"""A hip patient around the drawn bones: what the scan covers, cancellous bone, torso, thighs, muscle and bowel."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from implantforge.core import Array, Grid, Pose
from implantforge.stages.phantoms.bones import PELVIS, SIDES, Bones
from implantforge.stages.phantoms.distance import Float
from implantforge.stages.phantoms.paint import COARSE_MM, Scanner, Scene, blend_min, fade, speckle

LABELS = {"femur_left": 1, "femur_right": 2, "hip_left": 3, "hip_right": 4, "sacrum": 5}


def scene(
    bones: Bones, spacing_mm: tuple[float, float, float], scanner: Scanner, bottom_mm: float | None = None
) -> Scene:
    """How to paint a hip patient, down to bottom_mm where that is given."""
    grid, torso = field_of_view(bones, spacing_mm, scanner.fat_mm, bottom_mm)
    return Scene(
        LABELS, grid, torso, partial(_cancellous, bones, scanner), partial(_tissue, bones, grid, torso, scanner)
    )


def field_of_view(
    bones: Bones, spacing: tuple[float, float, float], fat_mm: float, bottom_mm: float | None = None
) -> tuple[Grid, Array]:
    """The CT grid up to the iliac crest from bottom_mm, or 220 mm below the lower trochanter; torso centre and half axes.

    Axes lie along the patient's; rows and columns differ in number so that a swapped axis shows.
    """
    step = np.array(spacing)
    hips = np.concatenate([bones.meshes[name].vertices for name in PELVIS])
    femora = np.concatenate([bones.meshes[f"femur_{side}"].vertices for side in SIDES])
    bottom = min(float((bones.femur[side].trochanter + 220 * bones.femur[side].distal)[2]) for side in SIDES)
    bottom = bottom if bottom_mm is None else bottom_mm
    top = float(hips[:, 2].max()) + 8.0
    upper = femora[femora[:, 2] > bones.femur["left"].head[2] - 80]
    lo, hi = np.minimum(hips.min(axis=0), upper.min(axis=0)), np.maximum(hips.max(axis=0), upper.max(axis=0))
    centre = (lo + hi) / 2
    half = np.array([(hi - lo)[0] / 2 + fat_mm + 12, (hi - lo)[1] / 2 + fat_mm + 24])
    low = np.array([centre[0] - half[0] - 10, centre[1] - half[1] - 10, bottom])
    high = np.array([centre[0] + half[0] + 10, centre[1] + half[1] + 32, top])
    size = np.ceil((high - low) / step / 2).astype(int) * 2
    grid = Grid(
        Pose(np.eye(3), np.round(low, 2)), step, (int(size[0]), int(size[1]), int(np.ceil((top - bottom) / step[2])))
    )
    return grid, np.array([centre[0], centre[1], half[0], half[1]])


def _cancellous(
    bones: Bones, scanner: Scanner, name: str, points: Array, under: NDArray, grain: NDArray
) -> NDArray[np.float64]:
    """CT number inside the cortex: dense head, sparser trochanters, marrow fat down the shaft."""
    if not name.startswith("femur"):
        base = 230 if name.startswith("hip") else 170
        return scanner.cancellous_hu * (base + 90 * np.exp(-under.clip(0) / 3.0)) + 38 * grain
    frame = bones.femur[name.removeprefix("femur_")]
    below = frame.below(points)
    head = np.linalg.norm(points - frame.head, axis=1)
    dense = 150 + 230 * fade(head, 14, 48) + 90 * np.exp(-under.clip(0) / 3.5)
    spongy = scanner.cancellous_hu * dense + 42 * grain
    # trabeculae reach further down along the wall than in the middle
    solid = fade(below - 8 * np.exp(-under.clip(0) / 3.0), -5, 55)
    return spongy * solid + (scanner.marrow_hu + 10 * grain) * (1 - solid)


def _body(bones: Bones, grid: Grid, torso: Array, fat_mm: float, low: Array, shape: tuple[int, ...]) -> Float:
    """Approximate distance to the skin on the coarse lattice: a torso that tapers upward, and two thighs."""
    x, y, z = np.meshgrid(*(low[a] + np.arange(shape[a]) * COARSE_MM for a in range(3)), indexing="ij", sparse=True)
    hip_z = float(np.mean([bones.femur[side].head[2] for side in SIDES]))
    wide = 1 - 0.10 * (1 - fade(z, hip_z - 20, hip_z + 130))
    out = (np.hypot((x - torso[0]) / (torso[2] * wide), (y - torso[1]) / torso[3]) - 1) * torso[3]
    out = out + 1.2 * (hip_z - 45 - z).clip(0)
    for side in SIDES:
        frame, sign = bones.femur[side], 1 if side == "left" else -1
        along = (frame.trochanter[2] - z) / -frame.distal[2]
        cx = frame.trochanter[0] + along * frame.distal[0] - 4 * sign
        cy = frame.trochanter[1] + along * frame.distal[1] - 8
        taper = 1 - 0.10 * (along / 220).clip(0, 1.2)
        rx, ry = (60 + fat_mm) * taper, (66 + fat_mm) * taper
        thigh = (np.hypot((x - cx) / rx, (y - cy) / ry) - 1) * rx
        out = blend_min(out, np.maximum(thigh, z - hip_z - 20), 14.0)
    return np.broadcast_to(out, shape).astype(np.float32)


def _tissue(
    bones: Bones, grid: Grid, torso: Array, scanner: Scanner, labels: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[Array, Float, Float]:
    """Coarse lattice origin, skin level and muscle level (negative inside)."""
    low = grid.pose.origin_mm - COARSE_MM
    extent = np.array(grid.shape) * grid.spacing_mm + 2 * COARSE_MM
    size = np.ceil(extent / COARSE_MM).astype(int) + 1
    shape = (int(size[0]), int(size[1]), int(size[2]))
    body = _body(bones, grid, torso, scanner.fat_mm, low, shape)
    index = [
        ((low[a] + np.arange(shape[a]) * COARSE_MM - grid.pose.origin_mm[a]) / grid.spacing_mm[a]) for a in range(3)
    ]
    take = np.ix_(*(np.rint(i).astype(int).clip(0, n - 1) for i, n in zip(index, grid.shape)))
    bone = labels[take] > 0
    away = distance_transform_edt(~bone, COARSE_MM).astype(np.float32)
    broad, fine = speckle(rng, shape, 4.0), speckle(rng, shape, 1.6)
    z = low[2] + np.arange(shape[2]) * COARSE_MM
    hip_z = float(np.mean([bones.femur[side].head[2] for side in SIDES]))
    reach = 36 + 40 * fade(z, hip_z - 120, hip_z - 40)
    muscle = np.maximum(away - reach + 7 * broad, body + scanner.fat_mm * (1 + 0.2 * broad))
    x = low[0] + np.arange(shape[0]) * COARSE_MM
    pelvic = (np.abs(x - torso[0])[:, None, None] < 70) & (z > hip_z - 40)
    bowel = np.maximum(6 * (fine - 0.1), body + scanner.fat_mm + 12)
    muscle = np.where(pelvic, np.minimum(muscle, bowel), muscle)
    # fat planes between muscles, kept off the bones so that every bone edge borders on one tissue
    septa = 2.2 - 9.0 * np.abs(gaussian_filter(broad + 0.8 * fine, 0.6)) - 0.5 * (8 - away).clip(0)
    return low, body, np.maximum(muscle, septa).astype(np.float32)
