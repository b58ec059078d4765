"""Where a femoral component lies: cut planes by rule, every size at its place, what it leaves and what hangs over."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from implantforge.core import Anatomy, Array, Pose
from implantforge.stages.knee import frames, sizes
from implantforge.stages.knee.distal import Distal
from implantforge.stages.knee.frames import Frame
from implantforge.stages.knee.sizes import FEMORAL_MM, Femoral, notch_mm

NOTCH_LEAST_MM = 0.0
"""The flange's back never lies under the front cortex."""
OVERHANG_MM, OVERHANG_MOST_MM = 1.0, 3.0
REACH_MM = 12.0
"""How far from the middle of the condyles a component is looked for sideways."""
TIP_MM = 5.0
"""The hind tips round off: no bone is expected that near their ends."""


class Asked(NamedTuple):
    """What the plan holds to: distal resection from the lower condyle, how far forward a component may be moved for a
    smaller size, and a size or a variant that was asked for (None: found)."""

    distal_mm: float
    shift_mm: float
    ap_mm: float | None
    narrow: bool | None


class Angles(NamedTuple):
    """How a component stands on its bone: valgus against the long axis, outward turn against the hindmost points of the
    condyles."""

    valgus_deg: float
    external_deg: float


def axes(frame: Frame, side: str, angles: Angles) -> Pose:
    """The component's axes on the bone's origin."""
    sign = frames.handed(side)
    out = frames.turned(frame.pose, 1, -sign * angles.valgus_deg)
    return frames.turned(out, 2, sign * angles.external_deg)


def native_valgus_deg(bone: Distal, pose: Pose, side: str) -> float:
    """Valgus of the line over the lowest points of both condyles against the frame's up."""
    valgus = 0.0
    for _ in range(3):
        tilted = frames.turned(pose, 1, -frames.handed(side) * valgus)
        medial, lateral = by_side(bone.lows(tilted), side)
        valgus += float(np.degrees(np.arctan2(lateral[2] - medial[2], abs(lateral[0] - medial[0]))))
    return valgus


def epicondylar_deg(anatomy: Anatomy, frame: Frame) -> float:
    """Outward turn of the line over both epicondyles against the hindmost points of the condyles."""
    sign = frames.handed(anatomy.side)
    line = sign * (anatomy.at("lateral_epicondyle") - anatomy.at("medial_epicondyle")) @ frame.pose.rotation
    return sign * float(np.degrees(np.arctan2(line[1], line[0])))


def by_side(pair: tuple[Any, Any], side: str) -> tuple[Any, Any]:
    """(right, left) of a frame as (medial, lateral)."""
    return (pair[0], pair[1]) if side == "left" else (pair[1], pair[0])


class Levels(NamedTuple):
    """The distal and the posterior plane in the component's axes (z and y, mm) and what they remove of each condyle."""

    distal_z: float
    posterior_y: float
    distal_medial_mm: float
    distal_lateral_mm: float
    posterior_medial_mm: float
    posterior_lateral_mm: float


def levels(bone: Distal, pose: Pose, side: str, asked: Asked, shift_mm: float = 0.0) -> Levels:
    """Planes: distal above the lower condyle; posterior so that both condyles together lose behind what they lose below
    (flexion gap = extension gap), plus a shift forward."""
    low, back = by_side(bone.lows(pose), side), by_side(bone.backs(pose), side)
    z = min(low[0][2], low[1][2]) + asked.distal_mm
    below = [z - at[2] for at in low]
    y = (back[0][1] + back[1][1]) / 2 - sum(below) / 2 - shift_mm
    return Levels(float(z), float(y), *map(float, below), *(float(at[1] - y) for at in back))


def rows(bone: Distal, pose: Pose, side: str, asked: Asked) -> list[dict[str, Any]]:
    """Every size and variant at its place in the component's axes, best first: the flange nearest the front cortex without
    notching it, then the wider one that hangs over by at most 1 mm."""
    depths = sizes.FEMORAL_AP_MM if asked.ap_mm is None else (asked.ap_mm,)
    plain = levels(bone, pose, side, asked)
    found = []
    for ap in depths:
        size = sizes.femoral(float(ap))
        proud = _proud(bone, pose, size, plain)
        shift = float(np.clip(NOTCH_LEAST_MM - proud, 0.0, asked.shift_mm)) if np.isfinite(proud) else 0.0
        planes = levels(bone, pose, side, asked, shift)
        proud = max(_proud(bone, pose, size, planes), 0.0) if 0 < shift < asked.shift_mm else proud + shift
        for narrow in (False, True) if asked.narrow is None else (asked.narrow,):
            found.append(_row(bone, pose, side, sizes.femoral(float(ap), narrow), planes, shift, proud))
    return sorted(found, key=lambda row: (row["notch_mm"] > 1e-6, round(row["cost"], 9), row["ap_mm"], row["narrow"]))


def _origin(size: Femoral, planes: Levels) -> Array:
    """Where the component's origin lies in its axes, in the middle."""
    return np.array([0.0, planes.posterior_y - (size.back_mm - FEMORAL_MM), planes.distal_z - FEMORAL_MM])


def _proud(bone: Distal, pose: Pose, size: Femoral, planes: Levels) -> float:
    """How far the flange's back lies in front of the cortex at its top; negative: a notch."""
    at = _origin(size, planes)
    cortex = bone.cortex_y(Pose(pose.rotation, pose.apply(at)), size.top_mm)
    return cortex - size.cuts["anterior"][0][0]


def _row(bone: Distal, pose: Pose, side: str, size: Femoral, planes: Levels, shift: float, proud: float) -> dict:
    at = _origin(size, planes)
    sign = frames.handed(side)
    x, over, under, worst = across(bone, Pose(pose.rotation, pose.apply(at)), size, sign)
    notch = max(0.0, -proud) if np.isfinite(proud) else 9.0
    cost = 10.0 * notch + max(0.0, proud if np.isfinite(proud) else 9.0) + 2.0 * shift
    cost += 4.0 * max(0.0, over - OVERHANG_MM) + 0.2 * max(0.0, OVERHANG_MM - over)
    return {
        "size": size.name, "ap_mm": size.ap_mm, "ml_mm": size.ml_mm, "narrow": size.name.endswith("N"),
        "cost": cost,
        "x_mm": x, "y_mm": float(at[1]), "z_mm": float(at[2]), "shift_mm": shift,
        "flange_proud_mm": float(proud), "notch_mm": float(notch),
        "overhang_mm": over, "underhang_mm": under, "overhang_at": worst, "planes": planes,
    }  # fmt: skip


def stations(size: Femoral, step_mm: float = 2.0) -> Array:
    """(n,2) places (y, z) along the inner outline where cut bone is expected: up the flange only as far as bone is cut."""
    corners = size.corners()
    out = []
    for i, (a, b) in enumerate(pairwise(corners)):
        long = float(np.linalg.norm(b - a))
        out.append(a + np.arange(0.0, 0.1 * long if i == 4 else long, step_mm)[:, None] * (b - a) / long)
    places = np.concatenate(out)
    return places[places[:, 1] < np.where(places[:, 0] > 0, size.tip_mm - TIP_MM, size.top_mm)]


def across(bone: Distal, pose: Pose, size: Femoral, sign: float) -> tuple[float, float, float, tuple[float, float]]:
    """The sideways place at which least hangs over, the largest overhang there, the mean underhang, and where (y, z)."""
    places = stations(size)
    lines = bone.lines(pose, places)
    half, middle = size.half_width(places[:, 0], places[:, 1]), sign * size.middle(places[:, 0])

    def over(x: float) -> tuple[Array, Array]:
        return lines.over(x + middle - half, -1), lines.over(x + middle + half, 1)

    if np.isnan(lines.edges).all():
        return 0.0, float("inf"), 0.0, (0.0, 0.0)
    # further right, less hangs over on the left: halved until both sides are as bad
    low, high = -REACH_MM, REACH_MM
    for _ in range(24):
        x = (low + high) / 2
        left, right = over(x)
        low, high = (low, x) if right.max() > left.max() else (x, high)
    x = (low + high) / 2
    left, right = over(x)
    worst = places[int(np.maximum(left, right).argmax())]
    under = np.concatenate([-left, -right]).clip(0).mean()
    return x, float(max(left.max(), right.max())), float(under), (float(worst[0]), float(worst[1]))


def cut_rows(size: Femoral, pose: Pose, planes: Levels) -> list[dict[str, Any]]:
    """The five cut planes as plain data in patient LPS, and what the distal and posterior ones remove of each condyle."""
    out = []
    for name, (point, normal) in size.cuts.items():
        row: dict[str, Any] = {
            "name": f"femur {name}", "kind": "cut plane", "frame": "patient LPS mm", "bone": "femur",
            "point_mm": pose.apply(np.array([0.0, *point])).tolist(),
            "normal": (pose.rotation @ np.array([0.0, *normal])).tolist(),
        }  # fmt: skip
        if name in ("distal", "posterior"):
            row["removed_medial_mm"] = getattr(planes, f"{name}_medial_mm")
            row["removed_lateral_mm"] = getattr(planes, f"{name}_lateral_mm")
        out.append(row)
    return out


def face_points(bone: Distal, pose: Pose, size: Femoral, sign: float, step_mm: float = 4.0) -> tuple[Array, Array]:
    """Points (n,3) in the component's frame over its porous faces, and their distance to the bone as it was."""
    places = stations(size, step_mm)
    rows_ = []
    for (y, z), half, middle in zip(
        places, size.half_width(places[:, 0], places[:, 1]), sign * size.middle(places[:, 0])
    ):
        x = np.arange(-half + 2.0, half - 1.0, step_mm) + middle
        rows_.append(np.stack(np.broadcast_arrays(x, y, z), axis=1))
    points = np.concatenate(rows_)
    # between the condyles is neither metal nor bone
    half, at = notch_mm(size)
    half += 1.0
    open_ = (np.hypot(points[:, 0], points[:, 1] - at) < half) | ((np.abs(points[:, 0]) < half) & (points[:, 1] > at))
    points = points[~open_]
    return points, bone.inside(pose, points)
