"""Landmarks, axes and angles of a femur from its surface alone; what the bone does not show is refused by name."""

from __future__ import annotations

import numpy as np
from scipy.signal import find_peaks

from implantforge.core import Anatomy, AnatomyError, Array, Landmark, Mesh, Pose, Side
from implantforge.geom.sections import loop_around
from implantforge.stages.anatomy.sphere import fit_sphere, vote_sphere

HEAD_RESIDUAL_LIMIT_MM = 2.0
"""Refuse the head above this RMS (fact S-5: flag above 1 mm, refuse above 2 mm)."""
WHOLE_FEMUR_MM = 330.0
"""A shaft that reaches this far below the head carries condyles; femora measure 360-510 mm."""


def measure(mesh: Mesh, side: Side) -> Anatomy:
    """Anatomy of one femur in the mesh's own LPS mm; the bone may be cut anywhere below the lesser trochanter.

    Head: sphere by least squares on its articular surface. Neck axis: head centre to the centroid of the smallest
    neck section (Cerveri 2010). Shaft axis: line through outer section centroids from 75 mm below the head. Neck-shaft
    angle in 3D. Raises AnatomyError when there is no head, or its side contradicts the name.
    """
    bone = f"femur_{side}"
    center, radius, residual, inliers = _head(mesh, bone)
    shaft_at, shaft_up = _shaft(mesh, center, bone)
    medial, posterior = _directions(center, shaft_at, shaft_up, side, bone)
    neck_at, neck_out = _neck(mesh, center, radius, shaft_at, shaft_up, bone)
    landmarks = {
        "head_center": Landmark(
            "head_center", center, residual / np.sqrt(max(inliers, 1) / 100.0) + 0.05, "sphere-lsq"
        ),
        "neck_center": Landmark("neck_center", neck_at, 0.5, "Cerveri2010-smallest-section"),
    }
    measures = {
        "head_radius_mm": radius,
        "head_residual_mm": residual,
        "neck_shaft_angle_deg": _angle(neck_out, -shaft_up),
        "offset_mm": float(np.linalg.norm(np.cross(center - shaft_at, shaft_up))),
        "shaft_length_below_head_mm": float(((center - mesh.vertices) @ shaft_up).max()),
    }
    refused: dict[str, str] = {}
    _add_trochanters(bone, mesh, center, shaft_at, shaft_up, medial, posterior, landmarks, refused)
    if "lesser_trochanter" in landmarks:
        measures["head_height_above_lesser_trochanter_mm"] = float(
            (center - landmarks["lesser_trochanter"].at_mm) @ shaft_up
        )
    refused |= dict.fromkeys(("canal_isthmus", "isthmus_diameter_mm", "canal_flare_index"),
                             "the marrow canal shows in a CT only")  # fmt: skip
    reason = f"the bone ends {measures['shaft_length_below_head_mm']:.0f} mm below the head, above the condyles"
    if measures["shaft_length_below_head_mm"] >= WHOLE_FEMUR_MM:
        reason = "condyles are there, but this version does not measure them"
    refused |= dict.fromkeys(
        ("medial_epicondyle", "lateral_epicondyle", "posterior_medial_condyle", "posterior_lateral_condyle",
         "intercondylar_notch", "knee_center", "anteversion_deg", "length_mm"), reason
    )  # fmt: skip
    frames = {"shaft": Pose(np.stack([medial, np.cross(shaft_up, medial), shaft_up], axis=1), shaft_at)}
    return Anatomy(bone, side, landmarks, frames, measures, {}, refused)


def _angle(a: Array, b: Array) -> float:
    cosine = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def _head(mesh: Mesh, bone: str) -> tuple[Array, float, float, int]:
    """Centre, radius, RMS residual and number of vertices of the head's sphere."""
    guess, radius = vote_sphere(mesh, (17.0, 31.0))
    center, radius, residual, inliers = fit_sphere(mesh, guess, radius)
    if residual > HEAD_RESIDUAL_LIMIT_MM or not 16.0 < radius < 32.0 or inliers < 100:
        raise AnatomyError(
            f"{bone}: no femoral head: best sphere has radius {radius:.1f} mm (17-31), residual {residual:.1f} mm "
            f"(limit {HEAD_RESIDUAL_LIMIT_MM} mm), {inliers} vertices"
        )
    return center, radius, residual, inliers


def _shaft(mesh: Mesh, center: Array, bone: str) -> tuple[Array, Array]:
    """A point on the shaft axis and its unit vector toward the head's end."""
    far = mesh.vertices[int(np.linalg.norm(mesh.vertices - center, axis=1).argmax())]
    up = (center - far) / np.linalg.norm(center - far)
    at = far
    centroids = np.zeros((0, 3))
    for _ in range(4):
        reach = float(((center - mesh.vertices) @ up).max())
        low, high = min(reach - 8.0, 230.0), 75.0
        if low - high < 25.0:
            raise AnatomyError(
                f"{bone}: the shaft is seen only to {reach:.0f} mm below the head; 110 mm are needed for its axis"
            )
        found = []
        for below in np.linspace(low, high, 24):
            near = center - below * up
            near = near + (np.eye(3) - np.outer(up, up)) @ (at - near) if len(centroids) else _middle(mesh, near, up)
            loop = loop_around(mesh, near, up)
            if loop is not None and 200.0 < loop.area_mm2 < 2500.0:
                found.append(loop.centroid_mm)
        if len(found) < 8:
            raise AnatomyError(f"{bone}: no shaft: {len(found)} of 24 sections below the head are a single ring")
        centroids = np.array(found)
        at = centroids.mean(axis=0)
        direction = np.linalg.svd(centroids - at)[2][0]
        up = direction * np.sign(direction @ up)
    return at, up


def _middle(mesh: Mesh, near: Array, up: Array) -> Array:
    """Mean of the vertices within 4 mm of the plane: a point inside the ring for a first look."""
    height = (mesh.vertices - near) @ up
    band = mesh.vertices[np.abs(height) < 4.0]
    return band.mean(axis=0) if len(band) else near


def _directions(center: Array, at: Array, up: Array, side: Side, bone: str) -> tuple[Array, Array]:
    """Unit vectors from shaft to head (medial) and toward the back, both across the shaft."""
    across = (center - at) - ((center - at) @ up) * up
    if np.linalg.norm(across) < 10.0:
        raise AnatomyError(f"{bone}: the head lies {np.linalg.norm(across):.0f} mm from the shaft axis (10 mm needed)")
    medial = across / np.linalg.norm(across)
    turned = np.cross(up, medial)
    return medial, turned if side == "right" else -turned


def _neck(mesh: Mesh, center: Array, radius: float, at: Array, up: Array, bone: str) -> tuple[Array, Array]:
    """Centroid of the smallest neck section and the neck's unit vector toward the head; iterated until it rests."""
    foot = at + ((center - at) @ up) * up
    offset = float(np.linalg.norm(center - foot))
    outward = center - (foot - 0.75 * offset * up)
    outward /= np.linalg.norm(outward)
    best = center
    for _ in range(12):
        rings = []
        for step in np.linspace(0.75, 2.1, 28):
            loop = loop_around(mesh, center - step * radius * outward, outward)
            if loop is not None:
                rings.append((loop.area_mm2, loop.centroid_mm))
        if not rings:
            raise AnatomyError(f"{bone}: no neck: no closed section below the head")
        best = min(rings, key=lambda ring: ring[0])[1]
        new = (center - best) / np.linalg.norm(center - best)
        turn = _angle(new, outward)
        outward = new
        if turn < 0.05:
            break
    return best, outward


def _add_trochanters(
    bone: str, mesh: Mesh, center: Array, at: Array, up: Array, medial: Array, posterior: Array,
    landmarks: dict[str, Landmark], refused: dict[str, str],
) -> None:  # fmt: skip
    """Greater trochanter: highest point lateral of the shaft axis. Lesser: the bump that stands out behind and medially."""
    local = mesh.vertices - at
    height = local @ up - float((center - at) @ up)
    x, y = local @ medial, local @ posterior
    lateral = (x < 8.0) & (height > -60.0)
    if lateral.any():
        tip = mesh.vertices[lateral][int(height[lateral].argmax())]
        landmarks["greater_trochanter"] = Landmark("greater_trochanter", tip, 1.5, "highest-lateral-vertex")
    own, where = _bump(mesh, height, x, y)
    other, _ = _bump(mesh, height, x, -y)
    if other > max(2.0 * own, 2.0):
        raise AnatomyError(
            f"{bone}: the lesser trochanter stands out {other:.1f} mm on what would be the front and {own:.1f} mm behind: "
            f"this is the bone of the other side, or mirrored"
        )
    if where is None:
        refused["lesser_trochanter"] = "no bump of 1 mm or more 25-95 mm below the head on the posteromedial side"
    else:
        landmarks["lesser_trochanter"] = Landmark("lesser_trochanter", where, 1.5, "most-prominent-posteromedial-bump")


def _bump(mesh: Mesh, height: Array, x: Array, y: Array) -> tuple[float, Array | None]:
    """Prominence (mm) and place of what stands out most 25-95 mm below the head, 60-105 deg from medial toward y."""
    levels = np.arange(-95.0, -25.0, 1.0)
    best: tuple[float, Array | None] = (0.0, None)
    for turn_deg in (60.0, 75.0, 90.0, 105.0):
        turn = np.radians(turn_deg)
        reach = np.cos(turn) * x + np.sin(turn) * y
        profile = np.array([reach[np.abs(height - level) < 1.0].max(initial=-np.inf) for level in levels])
        if not np.isfinite(profile).all():
            continue
        peaks, found = find_peaks(profile, prominence=1.0)
        for peak, prominence in zip(peaks, found["prominences"]):
            if prominence > best[0]:
                near = np.flatnonzero(np.abs(height - levels[peak]) < 1.0)
                best = (float(prominence), mesh.vertices[near[reach[near].argmax()]])
    return best
