"""Measures and frames from landmarks alone: after a correction, and of several bones of one leg together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from implantforge.core import Anatomy, Array, InputError, Landmark, Pose
from implantforge.stages.anatomy import hip

MIDDLES = {
    "knee_center": ("medial_epicondyle", "lateral_epicondyle"),
    "ankle_center": ("medial_malleolus", "lateral_malleolus"),
    "plateau_center": ("medial_plateau", "lateral_plateau"),
}


def anew(page: Anatomy, moved: set[str]) -> Anatomy:
    """The page with what follows from its landmarks as they stand now: centres, lengths between them, angles, the ISB frame.
    What needs the surface as well (length, sections, the head's radius) stays."""
    marks = dict(page.landmarks)
    for name, (one, other) in MIDDLES.items():
        if name not in moved and moved & {one, other} and one in marks and other in marks:
            at = (marks[one].at_mm + marks[other].at_mm) / 2
            sigma = float(np.hypot(marks[one].sigma_mm, marks[other].sigma_mm) / 2)
            marks[name] = Landmark(name, at, sigma, "middle, an end corrected by hand")
    page = replace(page, landmarks=marks)
    measures, frames = dict(page.measures), dict(page.frames)
    if page.bone.startswith("femur"):
        _femur(page, measures, frames)
    if page.bone.startswith("hip") and "acetabulum" in frames:
        _hip(page, frames)
    if page.bone.startswith("tibia"):
        from implantforge.stages.anatomy import tibia

        tibia.reckon(page.side, page.landmarks, frames, measures)
    refused = {name: why for name, why in page.refused.items() if name not in measures and name not in frames}
    return replace(page, measures=measures, frames=frames, refused=refused)


def _at(page: Anatomy, name: str) -> Array | None:
    return page.landmarks[name].at_mm if name in page.landmarks else None


def _angle(a: Array, b: Array) -> float:
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)))


def _hip(page: Anatomy, frames: dict[str, Pose]) -> None:
    """The socket's axis from its corrected centre; angles follow from both hip bones (`hip.paired`)."""
    centre = _at(page, "acetabulum_center")
    if centre is not None:
        frames["acetabulum"] = Pose(frames["acetabulum"].rotation, centre)


def _femur(page: Anatomy, measures: dict[str, float], frames: dict[str, Pose]) -> None:
    head, neck, knee = _at(page, "head_center"), _at(page, "neck_center"), _at(page, "knee_center")
    shaft = frames.get("shaft")
    if head is not None and shaft is not None:
        up = shaft.rotation[:, 2]
        measures["offset_mm"] = float(np.linalg.norm(np.cross(head - shaft.origin_mm, up)))
        if neck is not None:
            _neck_shaft(page, head - neck, up, measures, frames)
        small = _at(page, "lesser_trochanter")
        if small is not None:
            measures["head_height_above_lesser_trochanter_mm"] = float((head - small) @ up)
    inner, outer = _at(page, "medial_epicondyle"), _at(page, "lateral_epicondyle")
    if inner is not None and outer is not None:
        measures["epicondylar_width_mm"] = float(np.linalg.norm(outer - inner))
    if head is None or knee is None or inner is None or outer is None:
        return
    y = (head - knee) / np.linalg.norm(head - knee)
    right = (outer - inner) if page.side == "right" else (inner - outer)
    z = right - (right @ y) * y
    z /= np.linalg.norm(z)
    frames["isb"] = Pose(np.stack([np.cross(y, z), y, z], axis=1), head)
    back = _at(page, "posterior_medial_condyle"), _at(page, "posterior_lateral_condyle")
    if back[0] is None or back[1] is None or shaft is None:
        return
    lateral = back[1] - back[0]
    lateral = lateral - (lateral @ y) * y
    lateral /= np.linalg.norm(lateral)
    front = np.cross(lateral, y) * (1.0 if page.side == "left" else -1.0)
    for name, foot in (("anteversion_deg", "shaft_below_trochanter"), ("version_lee_deg", "neck_base")):
        base = _at(page, foot)
        if base is not None:
            measures[name] = float(np.degrees(np.arctan2((head - base) @ front, -((head - base) @ lateral))))
    low = _at(page, "distal_medial_condyle"), _at(page, "distal_lateral_condyle")
    if low[0] is not None and low[1] is not None:
        line = low[1] - low[0]
        measures["mldfa_deg"] = float(90.0 - np.degrees(np.arctan2(line @ y, line @ lateral)))
    measures["mechanical_to_shaft_deg"] = _angle(y, shaft.rotation[:, 2])
    epi = outer - inner
    measures["epicondylar_to_condylar_deg"] = float(np.degrees(np.arctan2(-(epi @ front), epi @ lateral)))


def _neck_shaft(page: Anatomy, neck: Array, up: Array, measures: dict[str, float], frames: dict[str, Pose]) -> None:
    """Both angles of a corrected neck, by the same line as before."""
    if "subtrochanteric" in frames:
        short = _angle(neck, -frames["subtrochanteric"].rotation[:, 2])
        measures["neck_shaft_angle_proximal_deg"] = short
        if "neck_shaft_angle_shaft_deg" in page.refused:
            measures["neck_shaft_angle_deg"] = short
            return
    measures["neck_shaft_angle_deg"] = _angle(neck, -up)


HEAD_MM, KNEE_MM, HIPS_MM = 60.0, 80.0, 260.0
"""Farthest that head and socket (a dislocated hip), knee and plateau, and both hip centres may lie apart."""


def legs(found: Mapping[str, Anatomy]) -> dict[str, dict[str, float]]:
    """`leg_left`, `leg_right`, `pelvis`: what needs more than one bone.

    leg: hka_deg (180 straight, less is varus), joint_line_convergence_deg, leg_length_mm (head to ankle),
    hip_offset_mm. pelvis: leg_length_difference_mm, right less left. InputError where bones do not lie as in one body.
    """
    out: dict[str, dict[str, float]] = {}
    for side in ("left", "right"):
        page = _leg(found.get(f"femur_{side}"), found.get(f"tibia_{side}"), found.get(f"hip_{side}"))
        if page:
            out[f"leg_{side}"] = page
    if all("leg_length_mm" in out.get(f"leg_{side}", {}) for side in ("left", "right")):
        gap = out["leg_right"]["leg_length_mm"] - out["leg_left"]["leg_length_mm"]
        out["pelvis"] = {"leg_length_difference_mm": gap}
    both = [found.get(f"hip_{side}") for side in ("left", "right")]
    if both[0] is not None and both[1] is not None and "app" in both[0].frames:
        centres = [_at(page, "acetabulum_center") for page in both if page is not None]
        if centres[0] is not None and centres[1] is not None:
            page = out.setdefault("pelvis", {})
            page["hip_centres_apart_mm"] = _near(both[0], both[1], centres[0], centres[1], HIPS_MM)
    return out


def _near(one: Anatomy, other: Anatomy, a: Array, b: Array, most_mm: float) -> float:
    """How far two bones' ends of a joint lie apart; InputError where no joint is that wide."""
    apart = float(np.linalg.norm(a - b))
    if apart > most_mm:
        raise InputError(
            f"landmarks: {one.bone} and {other.bone} lie {apart:.0f} mm apart where they should meet (at most "
            f"{most_mm:.0f}): they are not of one scan, or not in the same coordinates; give each alone"
        )
    return apart


def _leg(femur: Anatomy | None, tibia: Anatomy | None, pelvis: Anatomy | None) -> dict[str, float]:
    out: dict[str, float] = {}
    if femur is not None and pelvis is not None:
        head, socket = _at(femur, "head_center"), _at(pelvis, "acetabulum_center")
        if head is not None and socket is not None:
            out["head_from_socket_mm"] = _near(femur, pelvis, head, socket, HEAD_MM)
    if femur is None or tibia is None:
        return out
    head, knee, inner = _at(femur, "head_center"), _at(femur, "knee_center"), _at(femur, "medial_epicondyle")
    plateau, ankle, outer = _at(tibia, "plateau_center"), _at(tibia, "ankle_center"), _at(femur, "lateral_epicondyle")
    if head is None or knee is None or ankle is None or plateau is None or inner is None or outer is None:
        return out
    _near(femur, tibia, knee, plateau, KNEE_MM)
    out["leg_length_mm"] = float(np.linalg.norm(head - ankle))
    thigh, shin = head - knee, plateau - ankle
    # in the frontal plane of the leg: varus or valgus, not flexion
    across = (outer - inner) - ((outer - inner) @ thigh) / (thigh @ thigh) * thigh
    across /= np.linalg.norm(across)
    front = np.cross(across, thigh)
    front /= np.linalg.norm(front)
    flat = [way - (way @ front) * front for way in (thigh, shin)]
    lean = float(np.degrees(np.arctan2(flat[1] @ across, flat[1] @ thigh / np.linalg.norm(thigh))))
    out["hka_deg"] = 180.0 - lean
    lines = [(_at(femur, "distal_medial_condyle"), _at(femur, "distal_lateral_condyle")),
             (_at(tibia, "medial_plateau"), _at(tibia, "lateral_plateau"))]  # fmt: skip
    tilts = []
    for one, other in lines:
        if one is not None and other is not None:
            way = other - one
            tilts.append(float(np.degrees(np.arctan2(way @ thigh / np.linalg.norm(thigh), way @ across))))
    if len(tilts) == 2:
        out["joint_line_convergence_deg"] = tilts[0] - tilts[1]
    return out


def paired(found: Mapping[str, Anatomy]) -> dict[str, Anatomy]:
    """The same pages; two hip bones with their common anterior pelvic plane."""
    out = dict(found)
    if "hip_left" in out and "hip_right" in out:
        out |= hip.paired(out)
    for side in ("left", "right"):
        femur, tibia = out.get(f"femur_{side}"), out.get(f"tibia_{side}")
        if femur is not None and tibia is not None:
            hka = _leg(femur, tibia, None).get("hka_deg")
            if hka is not None:
                out[tibia.bone] = replace(tibia, measures={**tibia.measures, "hka_deg": hka})
                out[femur.bone] = replace(femur, measures={**femur.measures, "hka_deg": hka})
    return out
