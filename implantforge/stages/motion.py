"""How far a replaced hip moves before something touches: neck on liner by geometry, bone on bone by samples in a field.

Angles stand in the pelvis's frame (columns left, posterior, superior): nought is the femur's long axis along the frame's
vertical. Motions follow the clinic: flexion brings the knee forward, abduction away, internal rotation the toes inward.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array, Field

Way = Literal["flexion", "extension", "internal", "external", "abduction", "adduction"]


class Motion(NamedTuple):
    """One motion: what turns, from how much flexion, how far it is followed, and what is wanted (deg)."""

    way: Way
    flexed_deg: float
    most_deg: float
    wanted_deg: float


MOTIONS = {
    "flexion": Motion("flexion", 0.0, 150.0, 110.0),
    "extension": Motion("extension", 0.0, 90.0, 30.0),
    "internal_rotation_at_90": Motion("internal", 90.0, 90.0, 30.0),
    "external_rotation": Motion("external", 0.0, 120.0, 40.0),
    "abduction": Motion("abduction", 0.0, 100.0, 45.0),
    "adduction": Motion("adduction", 0.0, 90.0, 20.0),
}
"""Flexion, extension, rotations: the range that Yoshimine (2006, J Biomech 39:1315) asks of a hip; abduction: what well
placed hips reached in Bunn et al. (2012, Clin Orthop 470:418); adduction: project default."""
STEP_DEG, FINE_DEG = 2.0, 0.05


@dataclass(frozen=True, eq=False)
class Joint:
    """A replaced joint at rest, pelvic frame with the head centre at the origin.

    opening: unit vector out of the cup; neck: unit vector from the head to the neck's foot; tilt_deg: how far the neck
    may lean from the opening (see `lean_deg`); femur (n,3): points of what moves; still: what does not, negative inside;
    handed: 1 left, -1 right.
    """

    opening: Array
    neck: Array
    tilt_deg: float
    femur: Array
    still: Field | Callable[[Array], NDArray]
    handed: float


class Reach(NamedTuple):
    """Where a motion ends: by the prosthesis, by bone (both deg, the motion's own end where nothing touches), and where
    the first of them touched (pelvic frame, mm from the head centre; None for the neck on the liner, or nothing)."""

    prosthetic_deg: float
    bony_deg: float
    at_mm: Array | None

    @property
    def deg(self) -> float:
        """The nearer of the two."""
        return min(self.prosthetic_deg, self.bony_deg)


def turned(motion: Motion, angle_deg: float, handed: float) -> Array:
    """Rotation (3,3) of the femur in the pelvic frame, `angle_deg` into a motion."""
    angle = np.radians(angle_deg)
    out = {
        "flexion": lambda: _about(0, -angle), "extension": lambda: _about(0, angle),
        "abduction": lambda: _about(1, -handed * angle), "adduction": lambda: _about(1, handed * angle),
        "internal": lambda: _about(2, -handed * angle), "external": lambda: _about(2, handed * angle),
    }[motion.way]()  # fmt: skip
    return _about(0, -np.radians(motion.flexed_deg)) @ out


def _about(axis: int, angle: float) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    out = np.eye(3)
    out[i, i], out[j, j], out[i, j], out[j, i] = c, c, -s, s
    return out


def lean_deg(rim: Sequence[tuple[float, float]], neck: Sequence[tuple[float, float]]) -> float:
    """How far a neck may lean from the cup's axis before it touches a rim circle, to 0.001 deg.

    rim: (radius, height along the opening) of edges about the head centre; neck: (distance from the head centre, radius)
    along the neck's axis, linear between, level beyond. For a cylinder of radius r and an edge (R, 0) this is
    acos(r / R).
    """
    at, radius = np.array(neck, float).T

    def clear(lean: float) -> bool:
        c, s = np.cos(np.radians(lean)), np.sin(np.radians(lean))
        away = [(r * s + h * c, r * c - h * s) for r, h in rim]
        return all(across > np.interp(along, at, radius) for along, across in away)

    leans = np.arange(0.0, 120.0, 0.5)
    first = next((lean for lean in leans if not clear(lean)), 120.0)
    low, high = max(first - 0.5, 0.0), float(first)
    while high - low > 1e-3:
        middle = (low + high) / 2.0
        low, high = (middle, high) if clear(middle) else (low, middle)
    return low


def reach(joint: Joint, motion: Motion) -> Reach:
    """Where a motion ends; 0 where it cannot begin."""
    limit = np.cos(np.radians(joint.tilt_deg))

    def leans(angle: float) -> bool:
        return float((turned(motion, angle, joint.handed) @ joint.neck) @ joint.opening) < limit

    def touches(angle: float) -> bool:
        return bool((joint.still(joint.femur @ turned(motion, angle, joint.handed).T) < 0.0).any())

    prosthetic = _first(leans, motion.most_deg)
    bony = _first(touches, motion.most_deg) if len(joint.femur) else motion.most_deg
    at = None
    if bony <= prosthetic and bony < motion.most_deg:
        placed = joint.femur @ turned(motion, bony + FINE_DEG, joint.handed).T
        at = placed[int(np.argmin(joint.still(placed)))]
    return Reach(prosthetic, bony, at)


def _first(bad: Callable[[float], bool], most: float) -> float:
    """The last angle before the first bad one of a sweep, to FINE_DEG."""
    steps = np.arange(0.0, most + STEP_DEG / 2, STEP_DEG)
    hit = next((angle for angle in steps if bad(float(angle))), None)
    if hit is None:
        return most
    low, high = max(float(hit) - STEP_DEG, 0.0), float(hit)
    while high - low > FINE_DEG:
        middle = (low + high) / 2.0
        low, high = (low, middle) if bad(middle) else (middle, high)
    return low


def all_of(joint: Joint, motions: Mapping[str, Motion] = MOTIONS) -> dict[str, Reach]:
    """Every motion by name."""
    return {name: reach(joint, motion) for name, motion in motions.items()}


def upright(up: Array, lateral: Array, handed: float) -> Array:
    """Rotation (3,3), pelvic frame, that brings a femur to nought: its long axis (unit, proximal) to the vertical, a line
    across the knee (unit, toward lateral, square to it) to the frame's."""
    left = handed * lateral
    return np.stack([left, np.cross(up, left), up])
