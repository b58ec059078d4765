"""Where up, lateral and front are on a femur and a tibia: from head and ankle where seen, else from the shaft, said so."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from implantforge.core import Anatomy, AnatomyError, Array, Mesh, Pose
from implantforge.geom.sections import loop_around

FEMUR_SHAFT_MM, TIBIA_SHAFT_MM = (62.0, 170.0), (45.0, 170.0)
"""Heights off the joint between which a shaft axis is read, as far as the bone goes."""
LEAST_SHAFT_MM = 35.0
FEMUR_BOW_DEG, FEMUR_SIGMA_DEG, BOW_SIGMA_DEG = 1.5, 2.9, 1.7
"""What shows of a femur above a knee leans this much forward of the line to the head, and how much knees differ (24 drawn
from the shape model: 5.7 +- 2.4 outward, 1.5 +- 1.7 forward); of that, what tilts forward."""
TIBIA_LEAN_DEG, TIBIA_BOW_DEG, TIBIA_SIGMA_DEG = 1.8, 2.0, 1.5
"""The same of a tibia against the line from the ankle: outward, forward (1.8 +- 0.8, 2.0 +- 1.3)."""


class Frame(NamedTuple):
    """pose: columns patient-left, posterior, superior of this bone, origin at its joint; how its long axis was found;
    sigma_deg of that; assumed: it was not measured."""

    pose: Pose
    how: str
    sigma_deg: float
    assumed: bool


def handed(side: str) -> float:
    """1 for a left knee, -1 for a right one: lateral is handed * x of every frame here."""
    return 1.0 if side == "left" else -1.0


def square(up: Array, left: Array) -> Array:
    """(3,3) columns left, posterior, superior: up kept, left made perpendicular to it."""
    z = up / np.linalg.norm(up)
    x = left - (left @ z) * z
    x = x / np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], axis=1)


def shaft(mesh: Mesh, at: Array, up: Array, span: tuple[float, float]) -> tuple[Array, float]:
    """Unit vector up a shaft through the middles of its sections, span mm off `at` along up (negative: below), and the
    length they cover; 0 where fewer than five are closed."""
    away = (mesh.vertices - at) @ up
    sign = 1.0 if span[1] > 0 else -1.0
    low, high = sorted((span[0], span[1]))
    low, high = max(low, float(away.min()) + 3.0), min(high, float(away.max()) - 3.0)
    rings = []
    for height in np.linspace(low, high, 16) if high - low > 10.0 else ():
        near = mesh.vertices[np.abs(away - height) < 4.0]
        if len(near) < 3:
            continue
        middle = near.mean(axis=0)
        loop = loop_around(mesh, middle + (height - (middle - at) @ up) * up, up)
        if loop is not None and 100.0 < abs(loop.area_mm2) < 3500.0:
            rings.append(loop.centroid_mm)
    if len(rings) < 5:
        return up, 0.0
    points = np.array(rings)
    way = np.linalg.svd(points - points.mean(axis=0))[2][0]
    way = way * np.sign(way @ up)
    return way, float(np.ptp(points @ way)) if sign else 0.0


@lru_cache(maxsize=2)
def femur(mesh: Mesh, anatomy: Anatomy, valgus_deg: float) -> Frame:
    """Frame of a femur: up to the head from the notch; where the head is not seen, the shaft's axis turned valgus_deg
    toward it. Left along the posterior condyles. AnatomyError when neither axis or no condyle shows."""
    sign = handed(anatomy.side)
    notch = anatomy.at("intercondylar_notch")
    across = sign * (anatomy.at("posterior_lateral_condyle") - anatomy.at("posterior_medial_condyle"))
    head = anatomy.landmarks.get("head_center")
    if head is not None:
        up = head.at_mm - notch
        far = float(np.linalg.norm(up))
        sigma = float(np.degrees(np.hypot(head.sigma_mm, anatomy.landmarks["intercondylar_notch"].sigma_mm) / far))
        frame = Frame(_condyles(mesh, anatomy, up / far, across), "mechanical: notch to head centre", sigma, False)
        return frame
    middle = anatomy.at("knee_center")
    low = (anatomy.at("distal_medial_condyle") + anatomy.at("distal_lateral_condyle")) / 2
    up = middle - low
    for _ in range(3):
        way, length = shaft(mesh, low, up / np.linalg.norm(up), FEMUR_SHAFT_MM)
        if length < LEAST_SHAFT_MM:
            raise AnatomyError(
                f"{anatomy.bone}: no mechanical axis: {anatomy.refused.get('head_center', 'head not seen')}, and only "
                f"{length:.0f} mm of straight shaft show ({LEAST_SHAFT_MM:.0f} needed); scan the hip or more thigh too"
            )
        up = way
    axes = square(up, across)
    # the head lies medial of the shaft's line and behind where the bowed shaft points
    up = _leant(axes, -sign * valgus_deg, -FEMUR_BOW_DEG)
    how = (f"assumed: shaft axis {valgus_deg:.1f} deg valgus and {FEMUR_BOW_DEG:.1f} deg bowed, for the head is not "
           f"in the scan")  # fmt: skip
    return Frame(_condyles(mesh, anatomy, up, across), how, FEMUR_SIGMA_DEG, True)


def _condyles(mesh: Mesh, anatomy: Anatomy, up: Array, across: Array) -> Pose:
    """The frame whose left runs over the most posterior points of both condyles, origin at the notch's middle on the level
    of the lower condyle."""
    origin = anatomy.at("intercondylar_notch")
    axes = square(up, across)
    near = mesh.vertices[np.linalg.norm(mesh.vertices - origin, axis=1) < 75.0]
    for _ in range(4):
        local = (near - origin) @ axes
        ends = []
        for sign in (-1.0, 1.0):
            own = local[(sign * local[:, 0] > 8.0) & (local[:, 2] < 28.0)]
            ends.append(own[own[:, 1].argmax()])
        axes = square(axes[:, 2], axes @ (ends[1] - ends[0]))
    low = float(((near - origin) @ axes)[:, 2].min())
    return Pose(axes, origin + low * axes[:, 2])


def akagi(anatomy: Anatomy) -> Array:
    """From the tendon's medial border back to the middle of the posterior cruciate (Akagi 2004): the tray's posterior."""
    return anatomy.at("cruciate") - anatomy.at("tendon_medial_border")


def tibia(mesh: Mesh, anatomy: Anatomy, posterior: Array) -> Frame:
    """Frame of a tibia: up from the ankle to the spines; where the ankle is not seen, the shaft's axis. posterior is its
    way back. Origin between the plateaus. AnatomyError as `femur`."""
    medial, lateral = anatomy.at("medial_plateau"), anatomy.at("lateral_plateau")
    middle = (medial + lateral) / 2
    ankle = anatomy.landmarks.get("ankle_center")
    if ankle is not None:
        top = (anatomy.at("medial_spine") + anatomy.at("lateral_spine")) / 2
        up = top - ankle.at_mm
        sigma = float(np.degrees(np.hypot(ankle.sigma_mm, 1.0) / np.linalg.norm(up)))
        return Frame(_seated(up, posterior, middle), f"mechanical: ankle ({ankle.method}) to spines", sigma, False)
    across = lateral - medial
    back = posterior - (posterior @ across) * across / (across @ across)
    up = np.cross(across, back) * handed(anatomy.side)
    up = up / np.linalg.norm(up)
    for _ in range(3):
        way, length = shaft(mesh, middle, up, (-TIBIA_SHAFT_MM[1], -TIBIA_SHAFT_MM[0]))
        if length < LEAST_SHAFT_MM:
            raise AnatomyError(
                f"{anatomy.bone}: no mechanical axis: {anatomy.refused.get('ankle_center', 'ankle not seen')}, and only "
                f"{length:.0f} mm of shaft show ({LEAST_SHAFT_MM:.0f} needed); scan the ankle or more shin too"
            )
        up = way
    axes = _seated(up, posterior, middle).rotation
    up = _leant(axes, -handed(anatomy.side) * TIBIA_LEAN_DEG, -TIBIA_BOW_DEG)
    how = (f"assumed: shaft axis less {TIBIA_LEAN_DEG:.1f} deg outward and {TIBIA_BOW_DEG:.1f} deg forward, for the ankle "
           f"is not in the scan")  # fmt: skip
    return Frame(_seated(up, posterior, middle), how, TIBIA_SIGMA_DEG, True)


def _leant(axes: Array, left_deg: float, forward_deg: float) -> Array:
    """The up of a frame leant to its left and forward."""
    tilt = Rotation.from_rotvec(np.radians(left_deg) * axes[:, 1])
    bow = Rotation.from_rotvec(np.radians(forward_deg) * axes[:, 0])
    return np.asarray(bow.as_matrix() @ tilt.as_matrix() @ axes[:, 2])


def _seated(up: Array, posterior: Array, origin: Array) -> Pose:
    z = up / np.linalg.norm(up)
    y = posterior - (posterior @ z) * z
    y = y / np.linalg.norm(y)
    return Pose(np.stack([np.cross(y, z), y, z], axis=1), origin)


def turned(pose: Pose, axis: int, angle_deg: float) -> Pose:
    """The pose turned about one of its own axes through its origin."""
    turn = Rotation.from_rotvec(np.radians(angle_deg) * np.eye(3)[axis]).as_matrix()
    return Pose(pose.rotation @ turn, pose.origin_mm)
