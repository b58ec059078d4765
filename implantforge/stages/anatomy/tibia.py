"""A tibia: plateau, slope, tuberosity, Akagi's line, malleoli; the fibula's tip where it is fused, else a guess."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from implantforge.core import Anatomy, AnatomyError, Array, Mesh, Pose, Side
from implantforge.stages.anatomy import identify, rings
from implantforge.stages.anatomy.seen import Seen

SIGMA_MM = {"tuberosity": 2.5, "medial_malleolus": 1.5, "medial_spine": 1.5, "lateral_spine": 1.5,
            "posterior_medial_tibia": 1.5, "posterior_lateral_tibia": 1.5, "cruciate": 3.0,
            "tendon_medial_border": 3.0}  # fmt: skip


def measure(mesh: Mesh, side: Side) -> Anatomy:
    """Anatomy of one tibia, whole, proximal or distal, in the mesh's own LPS mm and in any pose, alone or fused with its
    fibula.

    Plateaus: centroid and plane of the joint surface of each compartment. Slope of each against the proximal
    anatomical axis (middles of the shaft 50-150 mm below the joint), in the plane across the posterior condyles; also
    against the line from the spines to the ankle, which reads 1-2 deg less (9.4 and 10.5 deg on 196 knees). Ankle
    centre: the middle of the malleoli (Wu 2002); the lateral one is the shape model's guess where the fibula is not
    part of the mesh, and its sigma says so. AnatomyError as in `identify`.
    """
    return of(identify.one(mesh, f"tibia_{side}"))


def of(seen: Seen) -> Anatomy:
    """Anatomy of a tibia that is already identified."""
    side: Side = "left" if seen.side == "left" else "right"
    for name, sigma in SIGMA_MM.items():
        seen.carry(name, sigma)
    _plateaus(seen)
    _ankle(seen)
    if not seen.landmarks:
        raise AnatomyError(f"{seen.bone}: neither the plateau nor the ankle is on this surface")
    _axes(seen)
    return Anatomy(seen.bone, side, seen.landmarks, seen.frames, seen.measures, {}, seen.refused)


def _plateaus(seen: Seen) -> None:
    normals = {}
    for part in ("medial", "lateral"):
        zone = seen.shape[seen.marks.zone[f"{part}_plateau"]]
        shown = seen.shown(f"{part}_plateau")
        name = f"{part}_plateau"
        if shown < 0.6:
            seen.refused[name] = f"cut off: {100 * shown:.0f} % of it is there (60 % needed)"
            continue
        at, normal, residual = _flat(seen, zone)
        seen.add(name, at, 0.8 + 0.5 * seen.match.residual_mm, "joint-surface-centroid")
        seen.measures[f"{name}_residual_mm"] = residual
        normals[part] = normal
    if len(normals) == 2:
        middle = (seen.landmarks["medial_plateau"].at_mm + seen.landmarks["lateral_plateau"].at_mm) / 2
        seen.add("plateau_center", middle, 1.0, "mid-plateaus")
        for part, normal in normals.items():
            seen.frames[f"_{part}"] = Pose(np.eye(3), normal)
    else:
        seen.refused["plateau_center"] = next(seen.refused[f"{part}_plateau"] for part in ("medial", "lateral")
                                              if f"{part}_plateau" in seen.refused)  # fmt: skip


def _flat(seen: Seen, zone: Array) -> tuple[Array, Array, float]:
    """Centroid, upward normal and RMS of the surface within a few mm of where the joint surface is expected."""
    up = seen.way(np.array([0.0, 0.0, 1.0]))
    middle = zone.mean(axis=0)
    cloud = seen.dense(middle, 8.0 + float(np.linalg.norm(zone - middle, axis=1).max()), 20000)
    points = cloud.points
    across = np.eye(3) - np.outer(up, up)
    gap = cKDTree(zone @ across).query(points @ across)[0]
    height = np.abs((points - middle) @ up)
    weight = (
        ((6.0 - gap) / 5.0).clip(0, 1)
        * ((cloud.normals @ up - 0.6) / 0.3).clip(0, 1)
        * ((10.0 - height) / 3.0).clip(0, 1)
    )
    if weight.sum() <= 0:
        return middle, up, float("inf")
    at = weight @ points / weight.sum()
    away = points - at
    normal = np.linalg.eigh((away * weight[:, None]).T @ away)[1][:, 0]
    normal = normal * np.sign(normal @ up)
    return at, normal, float(np.sqrt(weight @ (away @ normal) ** 2 / weight.sum()))


def _ankle(seen: Seen) -> None:
    inner = seen.at("medial_malleolus")
    if inner is None:
        why = f"medial_malleolus: {seen.refused['medial_malleolus']}"
        seen.refused |= dict.fromkeys(("lateral_malleolus", "ankle_center", "length_mm"), why)
        return
    guess = seen.guess("lateral_malleolus")
    foot, _ = seen.onto(guess)
    if np.linalg.norm(foot - guess) < 6.0:
        seen.add("lateral_malleolus", foot, 2.5, "fused-fibula")
        seen.add("ankle_center", (inner + foot) / 2, 1.5, "Wu2002-mid-malleoli")
        return
    seen.add("lateral_malleolus", guess, 5.0, "shape-model-guess: it lies on the fibula")
    seen.add("ankle_center", (inner + guess) / 2, 3.0, "Wu2002-mid-malleoli, lateral one guessed")


def _axes(seen: Seen) -> None:
    """Long axis, slopes, Akagi's line, torsion, ISB frame."""
    medial, lateral = seen.frames.pop("_medial", None), seen.frames.pop("_lateral", None)
    spine, ankle = _spine(seen), seen.at("ankle_center")
    up = seen.way(np.array([0.0, 0.0, 1.0]))
    if spine is not None and ankle is not None:
        up = (spine - ankle) / np.linalg.norm(spine - ankle)
        top = float((seen.mesh.vertices @ up).max())
        seen.measures["length_mm"] = top - float(seen.landmarks["medial_malleolus"].at_mm @ up)
    elif ankle is not None:
        seen.refused["length_mm"] = "the plateau is not on this surface"
    inner, outer = seen.at("posterior_medial_tibia"), seen.at("posterior_lateral_tibia")
    if medial is None or lateral is None or inner is None or outer is None:
        seen.refused["posterior_slope_deg"] = seen.refused.get("plateau_center", "the plateau is not on this surface")
        seen.refused["isb"] = "needs the plateau and the ankle"
        return
    across = outer - inner
    across = across - (across @ up) * up
    across /= np.linalg.norm(across)
    front = np.cross(across, up)
    front *= np.sign(-front @ seen.way(np.array([0.0, 1.0, 0.0])))
    _slopes(seen, {"medial": medial.origin_mm, "lateral": lateral.origin_mm}, front, up)
    joint = seen.landmarks["lateral_plateau"].at_mm - seen.landmarks["medial_plateau"].at_mm
    seen.measures["mmpta_deg"] = float(90.0 - np.degrees(np.arctan2(joint @ up, joint @ across)))
    back, border = seen.at("cruciate"), seen.at("tendon_medial_border")
    if back is not None and border is not None:
        line = border - back
        seen.measures["akagi_to_posterior_tibia_deg"] = float(np.degrees(np.arctan2(line @ across, line @ front)))
    _isb(seen, across, front, up)


def _slopes(seen: Seen, normals: dict[str, Array], front: Array, up: Array) -> None:
    """Both compartments against the proximal anatomical axis, and their mean against the mechanical one."""

    def slope(normal: Array, axis: Array) -> float:
        ahead = front - (front @ axis) * axis
        return float(np.degrees(np.arctan2(-(normal @ ahead) / np.linalg.norm(ahead), normal @ axis)))

    if seen.at("ankle_center") is not None:
        seen.measures["posterior_slope_mechanical_deg"] = (
            slope(normals["medial"], up) + slope(normals["lateral"], up)
        ) / 2
    axis = _shaft(seen, up)
    if axis is None:
        seen.refused["posterior_slope_deg"] = "the shaft is cut off less than 150 mm below the plateau"
        return
    for part, normal in normals.items():
        seen.measures[f"posterior_slope_{part}_deg"] = slope(normal, axis)
    both = [seen.measures[f"posterior_slope_{part}_deg"] for part in normals]
    seen.measures["posterior_slope_deg"] = sum(both) / len(both)


def _shaft(seen: Seen, up: Array) -> Array | None:
    """Unit vector up the proximal shaft through its section middles; None when they are not all there."""
    size = min(seen.match.scale, 1.2)
    top, starts = seen.landmarks["plateau_center"].at_mm, []
    for below in np.linspace(50.0, 150.0, 11) * size:
        beside = seen.shape[np.abs((seen.shape - (top - below * up)) @ up) < 6.0]
        if len(beside):
            starts.append(beside.mean(axis=0))
    found = [ring for ring in rings.around(seen.mesh, np.array(starts), up) if ring is not None]
    points = np.array([ring.centroid_mm for ring in found if 150.0 < abs(ring.area_mm2) < 2500.0])
    if len(points) < 9:
        return None
    way: Array = np.linalg.svd(points - points.mean(axis=0))[2][0]
    return way * np.sign(way @ up)


def _spine(seen: Seen) -> Array | None:
    inner, outer = seen.at("medial_spine"), seen.at("lateral_spine")
    return None if inner is None or outer is None else (inner + outer) / 2


def _isb(seen: Seen, across: Array, front: Array, up: Array) -> None:
    """Wu 2002: origin between the malleoli, z to the right along them, x forward out of the plane through them and the
    middle of the plateau."""
    ankle, inner, outer, top = (seen.at(name) for name in
                                ("ankle_center", "medial_malleolus", "lateral_malleolus", "plateau_center"))  # fmt: skip
    if ankle is None or inner is None or outer is None or top is None:
        seen.refused["isb"] = "needs the plateau and the ankle"
        return
    line = outer - inner
    seen.measures["tibial_torsion_deg"] = float(np.degrees(np.arctan2(-(line @ front), line @ across)))
    z = (line if seen.side == "right" else -line) / np.linalg.norm(line)
    x = np.cross(top - ankle, z)
    x /= np.linalg.norm(x)
    x *= np.sign(x @ front)
    seen.frames["isb"] = Pose(np.stack([x, np.cross(z, x), z], axis=1), ankle)
