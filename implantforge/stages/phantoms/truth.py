"""What was planted, measured on the final noise-free meshes with plain code of its own, apart from stages/anatomy."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from implantforge.core import Array, Mesh
from implantforge.stages.phantoms.bones import PELVIS, SIDES, Bones, FemurFrame, sphere
from implantforge.stages.phantoms.distance import unsigned

VERSION = "1"
DEFINITIONS = {
    "coordinates": "patient LPS, mm",
    "head_center_mm": "least-squares sphere over mesh vertices of the head, 70 deg about the pole of the neck axis",
    "neck_center_mm": "centroid of the smallest section across the neck, perpendicular to the neck axis",
    "shaft_axis": "line through centroids of outer sections 40 to 160 mm below the lesser trochanter, distally",
    "neck_shaft_angle_deg": "180 deg minus the 3D angle between neck axis (head to neck centre) and distal shaft axis",
    "offset_mm": "distance of the head centre from the shaft axis, perpendicular to it",
    "canal_axis": "line through centroids of cavity sections 40 mm below the lesser trochanter to the isthmus",
    "isthmus_width_mm": "smallest equivalent diameter 2*sqrt(area/pi) of the cavity, 50 to 190 mm below the trochanter",
    "isthmus_width_ml_mm": "extent of that section along the medial-lateral (head) direction",
    "canal_flare_index": "medial-lateral cavity width 20 mm above the lesser trochanter over that at the isthmus",
    "lesser_trochanter_mm": "vertex of the posteromedial prominence farthest from the shaft axis",
    "joint_gap_min_mm": "smallest distance between femur and hip surfaces",
    "cup_center_mm": "centre of the ball the socket was carved with; planted concentric with the head",
}


def section(mesh: Mesh, point: Array, normal: Array) -> list[tuple[float, Array, Array]]:
    """Closed outlines where a plane cuts a mesh: area mm2 (holes negative), centroid (3,), outline points (n,3)."""
    height = (mesh.vertices - point) @ normal
    height = np.where(np.abs(height) < 1e-9, 1e-9, height)
    above = height[mesh.faces] > 0
    faces = mesh.faces[above.any(axis=1) & ~above.all(axis=1)]
    if not len(faces):
        return []
    above = height[faces] > 0
    lone = np.where(above.sum(axis=1) == 1, np.argmax(above, axis=1), np.argmin(above, axis=1))
    rows = np.arange(len(faces))
    apex, left, right = (faces[rows, (lone + i) % 3] for i in range(3))
    ends = []
    for other in (left, right):
        lo, hi = np.minimum(apex, other), np.maximum(apex, other)
        t = (height[lo] / (height[lo] - height[hi]))[:, None]
        ends.append((lo * len(mesh.vertices) + hi, mesh.vertices[lo] * (1 - t) + mesh.vertices[hi] * t))
    up = above[rows, lone]
    start = np.where(up[:, None], ends[0][1], ends[1][1])
    stop = np.where(up[:, None], ends[1][1], ends[0][1])
    _, number = np.unique(np.concatenate([ends[0][0], ends[1][0]]), return_inverse=True)
    a, b = number[: len(faces)], number[len(faces) :]
    count, loop = connected_components(csr_matrix((np.ones(len(a)), (a, b)), (number.max() + 1,) * 2), directed=False)
    out = []
    for body in range(count):
        own = loop[a] == body
        p, q = start[own] - point, stop[own] - point
        twice = np.cross(p, q) @ normal
        area = float(twice.sum() / 2)
        centroid = ((p + q) * twice[:, None]).sum(axis=0) / (6 * area) if area else p.mean(axis=0)
        out.append((area, point + centroid, start[own]))
    return out


def _largest(mesh: Mesh, point: Array, normal: Array) -> tuple[float, Array, Array]:
    """The largest outline of a section, its area positive."""
    area, centre, outline = max(section(mesh, point, normal), key=lambda loop: abs(loop[0]))
    return abs(area), centre, outline


def _nearest(mesh: Mesh, point: Array, normal: Array) -> tuple[float, Array, Array]:
    """The outline whose centroid lies nearest to the point."""
    area, centre, outline = min(section(mesh, point, normal), key=lambda loop: float(np.linalg.norm(loop[1] - point)))
    return abs(area), centre, outline


def _line(points: Array, toward: Array) -> tuple[Array, Array]:
    """Centroid and unit direction of a best line, pointing along toward."""
    middle = points.mean(axis=0)
    direction = np.linalg.svd(points - middle)[2][0]
    return middle, direction * np.sign(direction @ toward)


def _axis(mesh: Mesh, frame: FemurFrame, top: float, bottom: float) -> tuple[Array, Array]:
    """Line through section centroids from top to bottom mm below the lesser trochanter."""
    spine = frame.trochanter + 60 * frame.distal
    spine = _largest(mesh, spine, frame.distal)[1] - 60 * frame.distal
    centres = [_largest(mesh, spine + s * frame.distal, frame.distal)[1] for s in np.linspace(top, bottom, 16)]
    return _line(np.array(centres), frame.distal)


def _head(mesh: Mesh, guess: Array, radius: float, neck: Array) -> tuple[Array, float, float]:
    """Centre, radius and largest deviation (mm) of the head's sphere, away from the neck."""
    d = mesh.vertices - guess
    r = np.linalg.norm(d, axis=1)
    cap = (np.abs(r - radius) < 2) & (d @ neck < -0.34 * r)
    centre, fitted = sphere(mesh.vertices[cap])
    return centre, fitted, float(np.abs(np.linalg.norm(mesh.vertices[cap] - centre, axis=1) - fitted).max())


def _neck(mesh: Mesh, head: Array, radius: float, base: Array) -> Array:
    """Centroid of the smallest section between the head and the neck's base."""
    best, direction = base, (base - head) / np.linalg.norm(base - head)
    for _ in range(3):
        cuts = [_nearest(mesh, head + s * direction, direction) for s in np.arange(0.7, 1.9, 0.04) * radius]
        best = min(cuts, key=lambda cut: cut[0])[1]
        direction = (best - head) / np.linalg.norm(best - head)
    return best


def _femur(bones: Bones, side: str) -> dict[str, Any]:
    """Planted values of one femur and its joint."""
    mesh, cavity, frame = bones.meshes[f"femur_{side}"], bones.cavities[f"canal_{side}"], bones.femur[side]
    point, shaft = _axis(mesh, frame, 40, 160)
    level = point + shaft * ((frame.trochanter - point) @ shaft)
    neck = _neck(mesh, frame.head, frame.radius, (frame.trochanter + 2 * (level + (frame.head - level) * 0.25)) / 3)
    head, radius, residual = _head(
        mesh, frame.head, frame.radius, (neck - frame.head) / np.linalg.norm(neck - frame.head)
    )
    neck = _neck(mesh, head, radius, neck)
    along = (neck - head) / np.linalg.norm(neck - head)
    near = mesh.vertices[np.linalg.norm(mesh.vertices - frame.trochanter, axis=1) < 10]
    lesser = near[np.argmax(np.linalg.norm(np.cross(near - point, shaft), axis=1))]
    medial = head - point - shaft * ((head - point) @ shaft)
    offset = float(np.linalg.norm(medial))
    medial /= offset
    foot = point + shaft * ((lesser - point) @ shaft)
    depths = np.arange(50, 191, 2.0)
    cuts = [_largest(cavity, foot + s * shaft, shaft) for s in depths]
    thin = int(np.argmin([cut[0] for cut in cuts]))
    canal_point, canal = _axis(cavity, FemurFrame(head, radius, lesser, shaft), 40, max(float(depths[thin]), 80.0))
    flare = np.ptp(_largest(cavity, foot - 20 * shaft, shaft)[2] @ medial)
    narrow = np.ptp(cuts[thin][2] @ medial)
    hip = bones.meshes[f"hip_{side}"]
    close = hip.vertices[np.linalg.norm(hip.vertices - head, axis=1) < 90]
    return {
        "side": side, "head_center_mm": head, "head_radius_mm": radius, "head_residual_max_mm": residual,
        "neck_center_mm": neck, "neck_shaft_angle_deg": 180 - np.degrees(np.arccos(along @ shaft)), "offset_mm": offset,
        "shaft_axis": {"point_mm": point, "direction": shaft},
        "canal_axis": {"point_mm": canal_point, "direction": canal},
        "isthmus_width_mm": 2 * np.sqrt(cuts[thin][0] / np.pi), "isthmus_width_ml_mm": narrow,
        "isthmus_center_mm": cuts[thin][1], "isthmus_below_lesser_trochanter_mm": depths[thin],
        "canal_flare_index": flare / narrow, "lesser_trochanter_mm": lesser, "cup_center_mm": frame.head,
        "cup_radius_mm": frame.radius + bones.drawn[f"joint_gap_planted_{side}_mm"],
        "joint_gap_planted_mm": bones.drawn[f"joint_gap_planted_{side}_mm"],
        "joint_gap_min_mm": unsigned(mesh, close).min(),
    }  # fmt: skip


def clearances(bones: Bones) -> dict[str, float]:
    """Smallest distance (mm) between every two bones that come within 30 mm of each other."""
    names = [*PELVIS, *(f"femur_{side}" for side in SIDES)]
    trees = {name: cKDTree(bones.meshes[name].vertices) for name in names}
    out = {}
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            v = bones.meshes[a].vertices
            far = trees[b].query(v, distance_upper_bound=30, workers=2)[0]
            if np.isfinite(far).any():
                out[f"{a}-{b}"] = float(unsigned(bones.meshes[b], v[far < far.min() + 2.5]).min())
    return out


def measure(bones: Bones, seed: int, spacing_mm: tuple[float, float, float]) -> dict[str, Any]:
    """Truth as plain JSON data: seed, spacing, version, definitions, both femora, clearances, bone volumes."""
    return plain({
        "phantom": "hip", "seed": seed, "spacing_mm": list(spacing_mm), "version": VERSION, "definitions": DEFINITIONS,
        "femur_left": _femur(bones, "left"), "femur_right": _femur(bones, "right"), "clearance_mm": clearances(bones),
        "volume_mm3": {name: mesh.volume_mm3 for name, mesh in (bones.meshes | bones.cavities).items()},
    })  # fmt: skip


def plain(value: Any) -> Any:
    """Numbers rounded to a nanometre, arrays as lists: what json can write, the same on every machine."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    return round(float(value), 6) if isinstance(value, (float, np.floating)) else value
