"""What was planted in a knee, measured on the final noise-free meshes."""

from __future__ import annotations

from typing import Any

import numpy as np

from implantforge.core import Array, Mesh, Side
from implantforge.stages.phantoms.bones import Bones
from implantforge.stages.phantoms.distance import unsigned
from implantforge.stages.phantoms.knee_bones import KNEE, KneeFrame
from implantforge.stages.phantoms.solids import normals
from implantforge.stages.phantoms.truth import VERSION, plain

DEFINITIONS = {
    "coordinates": "patient LPS, mm",
    "up": "unit vector from the middle between the lowest points of both condyles to the planted centre of the head",
    "out": "unit vector of the line over the most posterior points of both condyles, made perpendicular to up, lateral",
    "front": "unit vector perpendicular to both, anterior",
    "joint_middle_mm": "middle between the lowest points of both condyles",
    "condyle_distal_*_mm": "vertex of the condyle lowest along up",
    "condyle_posterior_*_mm": "vertex of the condyle farthest against front, at most 45 mm above the joint",
    "epicondyle_*_mm": "vertex farthest along out (lateral) or against it (medial), 12 to 45 mm above the joint",
    "plateau_center_*_mm": "mean of tibial vertices facing up within 25 deg, 8 to 38 mm aside, 6 mm below their top 2 %",
    "eminence_mm": "highest vertex of the tibia along up",
    "tuberosity_mm": "tibial vertex farthest along front, 20 to 60 mm below the eminence",
    "fibula_tip_mm": "highest vertex of the fibula along up",
    "patella_center_mm": "mean of the patella's vertices",
    "patella_apex_mm": "lowest vertex of the patella along up",
    "gap_*_mm": "smallest distance between the surfaces of two bones; medial and lateral 5 mm aside of the middle",
    "contact_mm2": "area of the femur within 0.1 mm of the tibia",
    "contact_center_mm": "where that contact was planted, null for a sound joint",
}


def _facing(mesh: Mesh, direction: Array, angle_deg: float) -> Array:
    return np.asarray(normals(mesh) @ direction > np.cos(np.radians(angle_deg)))


def _femur(mesh: Mesh, frame: KneeFrame) -> dict[str, Any]:
    v = mesh.vertices
    above, aside, ahead = frame.above(v), (v - frame.middle) @ frame.out, (v - frame.middle) @ frame.front
    out = {}
    for name, sign in (("medial", -1.0), ("lateral", 1.0)):
        own, body = aside * sign > 5, (above > 12) & (above < 45)
        out[f"condyle_distal_{name}_mm"] = v[own][np.argmin(above[own])]
        behind = own & (above < 45)
        out[f"condyle_posterior_{name}_mm"] = v[behind][np.argmin(ahead[behind])]
        out[f"epicondyle_{name}_mm"] = v[body][np.argmax(aside[body] * sign)]
    return out


def _tibia(mesh: Mesh, frame: KneeFrame) -> dict[str, Any]:
    v = mesh.vertices
    above, aside, ahead = frame.above(v), (v - frame.middle) @ frame.out, (v - frame.middle) @ frame.front
    flat = _facing(mesh, frame.up, 25.0) & (above > above.max() - 25)
    out: dict[str, Any] = {"eminence_mm": v[np.argmax(above)]}
    for name, sign in (("medial", -1.0), ("lateral", 1.0)):
        own = flat & (aside * sign > 8) & (aside * sign < 38)
        own &= above > np.percentile(above[own], 98) - 6
        out[f"plateau_center_{name}_mm"] = v[own].mean(axis=0)
    shin = (above < above.max() - 20) & (above > above.max() - 60)
    out["tuberosity_mm"] = v[shin][np.argmax(ahead[shin])]
    return out


def _gaps(meshes: dict[str, Mesh], frame: KneeFrame) -> dict[str, float]:
    def near(name: str) -> Array:
        v = meshes[name].vertices
        return v[np.linalg.norm(v - frame.middle, axis=1) < 80]

    top = near("tibia")
    aside, to_femur = (top - frame.middle) @ frame.out, unsigned(meshes["femur"], top)
    face = meshes["femur"].vertices[meshes["femur"].faces].mean(axis=1)
    close = np.linalg.norm(face - frame.middle, axis=1) < 60
    touching = unsigned(meshes["tibia"], face[close]) < 0.1
    return {
        "gap_medial_mm": to_femur[aside < -5].min(),
        "gap_lateral_mm": to_femur[aside > 5].min(),
        "gap_patella_mm": unsigned(meshes["femur"], near("patella")).min(),
        "gap_fibula_mm": unsigned(meshes["tibia"], near("fibula")).min(),
        "contact_mm2": float((np.linalg.norm(meshes["femur"].face_cross[close], axis=1)[touching] / 2.0).sum()),
    }


def knee(bones: Bones, frame: KneeFrame, side: Side) -> dict[str, Any]:
    """Landmarks and gaps of one knee."""
    meshes = {name: bones.meshes[f"{name}_{side}"] for name in KNEE}
    fibula, patella = meshes["fibula"].vertices, meshes["patella"].vertices
    return {
        "side": side, "up": frame.up, "out": frame.out, "front": frame.front, "joint_middle_mm": frame.middle,
        "head_center_mm": bones.femur[side].head, **_femur(meshes["femur"], frame), **_tibia(meshes["tibia"], frame),
        "fibula_tip_mm": fibula[np.argmax(frame.above(fibula))], "patella_center_mm": patella.mean(axis=0),
        "patella_apex_mm": patella[np.argmin(frame.above(patella))], **_gaps(meshes, frame),
        "contact_center_mm": frame.contact, "planted": bones.drawn,
    }  # fmt: skip


def measure(
    bones: Bones, frame: KneeFrame, side: Side, seed: int, spacing_mm: tuple[float, float, float]
) -> dict[str, Any]:
    """Truth as plain JSON data: seed, spacing, version, definitions, the knee, bone volumes."""
    return plain({
        "phantom": "knee", "seed": seed, "spacing_mm": list(spacing_mm), "version": VERSION,
        "definitions": DEFINITIONS, f"knee_{side}": knee(bones, frame, side),
        "volume_mm3": {name: mesh.volume_mm3 for name, mesh in bones.meshes.items()},
    })  # fmt: skip
