"""Seating a shape in a cavity: the small rigid move that leaves the least of it beyond the wall, and what is then seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.optimize import least_squares

from implantforge.core import Anatomy, Array, Design, Field, Mesh, Pose
from implantforge.geom.inside import inside

LOCAL_MM = 1.0
"""No point of a body may pass the canal wall by more."""
DEEPEST = 0.02
"""Share of the surface whose mean overlap is held to a limit: one voxel's noise does not decide."""
CONTACT_MM = 1.0
"""A surface this near the canal wall counts as contact (share of perimeter within 1 mm of cortex; a custom-design study)."""


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


def cut_normal(angle_deg: float) -> Array:
    """Unit normal of the neck cut in a stem's axes (x medial, z up), out of the bone that stays."""
    angle = np.radians(angle_deg)
    return np.array([np.sin(angle), 0.0, np.cos(angle)])


def on_canal(anatomy: Anatomy, above_trochanter_mm: float, angle_deg: float) -> Pose:
    """On the canal axis, turned to the head, origin where a neck cut that far above the lesser trochanter crosses the
    axis. AnatomyError where a landmark is missing."""
    frame = turned_to(anatomy.frames["canal"], anatomy.at("head_center"))
    trochanter = frame.inverse_apply(anatomy.at("lesser_trochanter"))
    calcar = abs(trochanter[0]) + 2.0
    height = trochanter[2] + above_trochanter_mm + calcar * np.tan(np.radians(angle_deg))
    return frame.compose(Pose(np.eye(3), np.array([0.0, 0.0, height])))


def outside_mm3(bone: Mesh, made: Design, pose: Pose, step_mm: float = 0.5) -> float:
    """Metal (nominal envelope) below the neck cut and outside the bone surface, counted on a step_mm lattice of points."""
    low, high = made.envelope.bounds
    axes = [np.arange(a + step_mm / 2, b, step_mm) for a, b in zip(low, high)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    assert made.bone_cut is not None
    points = points[made.bone_cut(points) > 0.0]
    points = points[made.envelope(points) < 0.0]
    return float((~inside(bone, pose.apply(points))).sum()) * step_mm**3


def overlap_mm(wall: Field, points_mm: Array, limit_mm: float) -> float:
    """Mean overlap of the deepest points (n,3, where they lie in the patient) with a wall: over limit_mm where the deepest
    passes LOCAL_MM, infinite where a point leaves what is known of the wall."""
    low, high = wall.bounds
    if not ((points_mm > low) & (points_mm < high)).all():
        return float("inf")
    beyond = np.sort(wall(points_mm))[-max(int(DEEPEST * len(points_mm)), 1) :]
    return max(float(beyond.mean()), float(beyond[-1]) + limit_mm - LOCAL_MM)
