"""Seating a shape in a cavity: the small rigid move that leaves the least of it beyond the wall, and what is then seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.optimize import least_squares

from implantforge.core import Array, Field, Pose


@dataclass(frozen=True, eq=False)
class Seat:
    """Where a shape came to rest: pose, the deepest overlap with the wall (mm, negative when free all round), its RMS."""

    pose: Pose
    overlap_mm: float
    rms_mm: float


def seat(points_mm: Array, wall: Field, start: Pose, *, press_mm: float, reach_mm: float, reach_deg: float) -> Seat:
    """Move local surface points (n,3) across x and y and tilt about x and y until least of them pass the wall.

    Overlap up to press_mm costs nothing; reach_mm and reach_deg bound the move away from `start`. Deterministic
    (trust-region least squares from the start pose).
    """
    scale = np.array([reach_mm, reach_mm, np.radians(reach_deg), np.radians(reach_deg)])

    def placed(move: Array) -> Pose:
        return nudged(start, *(move * scale))

    def cost(move: Array) -> Array:
        turn = start.rotation @ _tilt(*(move[2:] * scale[2:]))
        at = start.origin_mm + start.rotation[:, :2] @ (move[:2] * scale[:2])
        beyond = wall(points_mm @ turn.T + at)
        # a hinge for the wall, and a whisper that keeps clear of it so that the rest position is unique
        return np.concatenate(
            [np.maximum(beyond - press_mm, 0.0), 0.03 * np.exp(np.clip(beyond, -6.0, 2.0)), 0.01 * move]
        )

    solved = least_squares(cost, np.zeros(4), bounds=(-1.0, 1.0), diff_step=1e-3, xtol=1e-3, ftol=1e-4, max_nfev=15)
    pose = placed(solved.x)
    beyond = wall(pose.apply(points_mm))
    over = np.maximum(beyond, 0.0)
    return Seat(pose, float(beyond.max()), float(np.sqrt(np.mean(over**2))))


def nudged(start: Pose, x_mm: float, y_mm: float, about_x_rad: float, about_y_rad: float) -> Pose:
    """`start` moved in its own frame: shifted across, tilted about its x and y axes through its origin."""
    return start.compose(Pose(_tilt(about_x_rad, about_y_rad), np.array([x_mm, y_mm, 0.0])))


def _tilt(about_x_rad: float, about_y_rad: float) -> Array:
    cx, sx, cy, sy = np.cos(about_x_rad), np.sin(about_x_rad), np.cos(about_y_rad), np.sin(about_y_rad)
    return np.array([[cy, sy * sx, sy * cx], [0.0, cx, -sx], [-sy, cy * sx, cy * cx]])


def turned_to(pose: Pose, target_mm: Array) -> Pose:
    """`pose` turned about its own z axis until target_mm lies in its x-z half-plane, x positive."""
    x, y, _ = pose.inverse_apply(target_mm)
    angle = np.arctan2(y, x)
    c, s = np.cos(angle), np.sin(angle)
    return pose.compose(Pose(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]]), np.zeros(3)))


def section(wall: Field, pose: Pose, z_mm: float, half_mm: float = 34.0, step_mm: float = 0.5) -> tuple[float, float]:
    """Area (mm2) of {wall < 0} in the local plane z = z_mm and its width (mm) along the local x axis through the local
    axis: the piece that holds the local axis or else the largest; 0, 0 without one."""
    axis = np.arange(-half_mm, half_mm + step_mm / 2, step_mm)
    u, v = np.meshgrid(axis, axis, indexing="ij")
    points = np.stack([u.ravel(), v.ravel(), np.full(u.size, z_mm)], axis=1)
    open_ = (wall(pose.apply(points)) < 0.0).reshape(u.shape)
    pieces, count = ndimage.label(open_)
    if not count:
        return 0.0, 0.0
    middle = pieces[len(axis) // 2, len(axis) // 2]
    label = int(middle) if middle else 1 + int(np.bincount(pieces.ravel())[1:].argmax())
    own = pieces == label
    return float(own.sum()) * step_mm**2, float(own[:, len(axis) // 2].sum()) * step_mm
