"""Leg length and offset of a hip: what each side gives, and what moving the femur in its socket changes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from implantforge.core import Anatomy, Array

VALGUS_DEG = 6.0
"""Shaft axis to mechanical axis, where the knee is not seen (5-7 deg in adults)."""


class Share(NamedTuple):
    """What one hip gives to a leg's length and to its distance from the midline, mm. Both are read along the femur's own
    axis below the hip centre and in the pelvis's frame above it, so that how the leg lay in the scan does not matter."""

    length_mm: float
    offset_mm: float


class Axis(NamedTuple):
    """A femur's mechanical axis: unit vector toward the head, unit vector across the knee toward lateral, whether the
    condyles told it, and how both were found."""

    up: Array
    lateral: Array
    seen: bool
    how: str


def share(centre_mm: Array, femur: Anatomy, pelvis: Array, middle_mm: Array) -> Share:
    """A side's share from its hip centre and its femur's landmarks; pelvis: columns left, posterior, superior; middle_mm:
    a point of the midline. AnatomyError where head or lesser trochanter are missing."""
    head, trochanter = femur.at("head_center"), femur.at("lesser_trochanter")
    shaft = femur.frames.get("proximal_shaft", femur.frames["shaft"])
    up = shaft.rotation[:, 2]
    beside = head - shaft.origin_mm
    offset = float(np.linalg.norm(beside - (beside @ up) * up))
    away = (centre_mm - middle_mm) @ pelvis
    return Share(float((head - trochanter) @ up) - float(away[2]), abs(float(away[0])) + offset)


def change(moved_mm: Array, pelvis: Array, side: str) -> Share:
    """What a shift of the femur (patient LPS) changes: longer and further out are positive."""
    left, _, up = moved_mm @ pelvis
    return Share(-float(up), float(left if side == "left" else -left))


def shift(wanted: Share, pelvis: Array, side: str) -> Array:
    """The shift of the femur (patient LPS) that changes leg length and offset by so much, and nothing else."""
    handed = 1.0 if side == "left" else -1.0
    return pelvis @ np.array([handed * wanted.offset_mm, 0.0, -wanted.length_mm])


def mechanical(femur: Anatomy, antetorsion_deg: float) -> Axis:
    """The axis from knee to head, from the shaft turned by VALGUS_DEG toward the head where the knee is not seen; and the
    line across, from the native neck turned by its antetorsion where no condyles are seen."""
    marks, head = femur.landmarks, femur.at("head_center")
    if "knee_center" in marks:
        up, how = head - marks["knee_center"].at_mm, "knee to head"
    else:
        shaft = femur.frames["shaft"]
        z, angle = shaft.rotation[:, 2], np.radians(VALGUS_DEG)
        toward = _across(head - shaft.origin_mm, z)
        up = np.cos(angle) * z + np.sin(angle) * toward
        how = f"shaft and {VALGUS_DEG:.0f} deg of valgus (knee not seen)"
    up = up / np.linalg.norm(up)
    behind = [marks.get(f"posterior_{which}_condyle") for which in ("medial", "lateral")]
    if behind[0] is not None and behind[1] is not None:
        return Axis(up, _across(behind[1].at_mm - behind[0].at_mm, up), True, f"{how}; posterior condyles")
    neck = _across(head - femur.at("neck_center"), up)
    angle = np.radians(antetorsion_deg) * (1.0 if femur.side == "left" else -1.0)
    medial = np.cos(angle) * neck - np.sin(angle) * np.cross(up, neck)
    return Axis(up, -medial, False, f"{how}; native antetorsion taken as {antetorsion_deg:.0f} deg (condyles not seen)")


def _across(vector: Array, axis: Array) -> Array:
    """Unit vector of what of a vector lies across an axis."""
    out = vector - (vector @ axis) * axis
    return out / np.linalg.norm(out)


def version_deg(neck: Array, side: str) -> float:
    """Antetorsion of a neck (unit vector from head to foot, pelvic frame, femur upright): its angle in front of the line
    across."""
    left, back, _ = -neck
    return float(np.degrees(np.arctan2(-back, -left if side == "left" else left)))
