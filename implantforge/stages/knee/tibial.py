"""Where a tray lies: the cut by rule, every size where least of it hangs over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from implantforge.core import Anatomy, Array, Mesh, Pose
from implantforge.stages.knee import cover, frames, sizes
from implantforge.stages.knee.cover import Plate
from implantforge.stages.knee.frames import Frame

OVERHANG_MM, OVERHANG_MOST_MM, COVERAGE_PCT = 1.0, 3.0, 85.0


def native_valgus_deg(anatomy: Anatomy, frame: Frame, slope_deg: float) -> float:
    """Valgus of the line over the middles of both plateaus, in the sloped plane; varus is negative."""
    pose = frames.turned(frame.pose, 0, -slope_deg)
    line = (anatomy.at("lateral_plateau") - anatomy.at("medial_plateau")) @ pose.rotation
    return float(np.degrees(np.arctan2(-line[2], abs(line[0]))))


def cut(
    anatomy: Anatomy, frame: Frame, slope_deg: float, valgus_deg: float, below_mm: float
) -> tuple[Pose, float, float]:
    """The cut's pose (z its normal, up), below_mm under the higher plateau, and what it removes of the medial and of the
    lateral one. Its origin lies under the middle of both."""
    pose = frames.turned(frame.pose, 0, -slope_deg)
    pose = frames.turned(pose, 1, frames.handed(anatomy.side) * valgus_deg)
    up = pose.rotation[:, 2]
    heights = [float((anatomy.at(f"{part}_plateau") - pose.origin_mm) @ up) for part in ("medial", "lateral")]
    level = max(heights) - below_mm
    return Pose(pose.rotation, pose.origin_mm + level * up), heights[0] - level, heights[1] - level


def rows(bone: Plate, trays: Sequence[sizes.Tray]) -> list[dict[str, Any]]:
    """Every tray (outlines as for the side) where least of it hangs over, best first: the largest that hangs over by at most
    1 mm."""
    start, found = bone.middle, []
    for tray in trays:
        laid = cover.lay(bone, tray.outline, start)
        start = laid.shift_mm
        found.append({"size": tray.name, "ml_mm": tray.ml_mm, "ap_mm": tray.ap_mm, "overhang_mm": laid.overhang_mm,
                      "coverage_pct": laid.coverage_pct, "x_mm": float(laid.shift_mm[0]), "y_mm": float(laid.shift_mm[1]),
                      "worst_mm": laid.worst_mm})  # fmt: skip
    return sorted(found, key=_rank)


def _rank(row: dict[str, Any]) -> tuple[bool, float]:
    fits = row["overhang_mm"] <= OVERHANG_MM
    return (not fits, -row["ml_mm"] if fits else row["overhang_mm"])


def face_points(bone: Plate, outline: Array, shift: Array, step_mm: float = 4.0) -> tuple[Array, Array]:
    """Points (n,2) under an outline that is shifted, in its own coordinates, and their distance to the cut face, negative
    on it."""
    tray = cover.of_outline(outline)
    low, high = outline.min(axis=0), outline.max(axis=0)
    grid = np.stack(
        np.meshgrid(*[np.arange(a, b, step_mm) for a, b in zip(low, high)], indexing="ij"), axis=-1
    ).reshape(-1, 2)
    points = grid[tray(grid) < -1.0]
    return points, bone(points + shift)


def keel_clear_mm(mesh: Mesh, points: Array) -> float:
    """Least distance of points (n,3) inside a bone to its surface, up to 12 mm; minus 1 where one lies outside."""
    from implantforge.geom.inside import inside
    from implantforge.geom.nearby import distance_within

    if not inside(mesh, points).all():
        return -1.0
    return float(distance_within(points, mesh, 12.0).min())
