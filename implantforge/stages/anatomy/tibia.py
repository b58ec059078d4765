"""A tibia: plateau, slope, tuberosity, Akagi's line, malleoli; the fibula's tip where it is fused, else a guess."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.spatial import cKDTree

from implantforge.core import Anatomy, AnatomyError, Array, Landmark, Mesh, Pose, Side
from implantforge.stages.anatomy import identify, rings
from implantforge.stages.anatomy.seen import Seen

SHARE = {"tuberosity": 1.5, "medial_malleolus": 1.2, "medial_spine": 1.1, "lateral_spine": 1.2,
         "posterior_medial_tibia": 2.0, "posterior_lateral_tibia": 1.6, "cruciate": 1.6,
         "tendon_medial_border": 1.4}  # fmt: skip
"""One sigma over the bone's distance from the bent model; see `Seen.carry`."""
SPINE_MM = 0.5
"""The rim of a plateau is the top only where it stands this much above the spines: of two like tops the same one is told."""


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
    for name, share in SHARE.items():
        seen.carry(name, share)
    _plateaus(seen)
    _ankle(seen)
    if not seen.landmarks:
        raise AnatomyError(f"{seen.bone}: neither the plateau nor the ankle is on this surface")
    _axes(seen)
    return Anatomy(seen.bone, side, seen.landmarks, seen.frames, seen.measures, {}, seen.refused)


def _plateaus(seen: Seen) -> None:
    for part in ("medial", "lateral"):
        zone = seen.shape[seen.marks.zone[f"{part}_plateau"]]
        shown = seen.shown(f"{part}_plateau")
        name = f"{part}_plateau"
        if shown < 0.6:
            seen.refused[name] = f"cut off: {100 * shown:.0f} % of it is there (60 % needed)"
            seen.take(name)
            continue
        at, normal, residual = _flat(seen, zone)
        at = seen.add(name, at, 0.8 + 0.5 * seen.match.residual_mm, "joint-surface-centroid")
        seen.measures[f"{name}_residual_mm"] = residual
        seen.frames[name] = Pose(_turned(seen, normal), at)
    if "medial_plateau" in seen.frames and "lateral_plateau" in seen.frames:
        middle = (seen.landmarks["medial_plateau"].at_mm + seen.landmarks["lateral_plateau"].at_mm) / 2
        seen.add("plateau_center", middle, seen.middle("medial_plateau", "lateral_plateau"), "mid-plateaus")
    else:
        why = [seen.refused.get(f"{part}_plateau", "") for part in ("medial", "lateral")]
        seen.refused["plateau_center"] = why[0] or why[1] or "the joint surface is not seen"
        seen.take("plateau_center")


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
    residual = float(np.sqrt(weight @ (away @ normal) ** 2 / weight.sum()))
    # the middle of where the joint surface should be, on the plane: which points count depends on the triangles
    return middle + ((at - middle) @ normal) * normal, normal, residual


def _ankle(seen: Seen) -> None:
    inner = seen.at("medial_malleolus")
    if inner is None:
        why = f"medial_malleolus: {seen.refused['medial_malleolus']}"
        seen.refused |= dict.fromkeys(("lateral_malleolus", "ankle_center", "length_mm"), why)
        seen.take("lateral_malleolus", "ankle_center")
        return
    guess = seen.guess("lateral_malleolus")
    foot, _ = seen.onto(guess)
    if np.linalg.norm(foot - guess) < 6.0:
        outer = seen.add("lateral_malleolus", foot, 2.5, "fused-fibula")
    else:
        outer = seen.add("lateral_malleolus", guess, 5.0, "shape-model-guess: it lies on the fibula")
    said = ", lateral one guessed" if "guess" in seen.landmarks["lateral_malleolus"].method else ""
    sigma = seen.middle("medial_malleolus", "lateral_malleolus")
    seen.add("ankle_center", (inner + outer) / 2, sigma, f"Wu2002-mid-malleoli{said}")


def _axes(seen: Seen) -> None:
    """The frames that measures rest on, then the measures; what is missing is refused by name."""
    spine, ankle = _spine(seen.landmarks), seen.at("ankle_center")
    up = seen.way(np.array([0.0, 0.0, 1.0]))
    if spine is not None and ankle is not None:
        up = (spine - ankle) / np.linalg.norm(spine - ankle)
        seen.add("highest_point", _summit(seen, up), 1.0, "furthest-up")
    elif ankle is not None:
        seen.refused["length_mm"] = "the plateau is not on this surface"
    seen.frames["upright"] = Pose(_turned(seen, up), seen.shape.mean(axis=0))
    joint = all(f"{part}_plateau" in seen.frames for part in ("medial", "lateral"))
    if joint:
        axis = _shaft(seen, up)
        if axis is None:
            seen.refused["posterior_slope_deg"] = "the shaft is cut off less than 150 mm below the plateau"
        else:
            seen.frames["proximal_shaft"] = Pose(_turned(seen, axis), seen.landmarks["plateau_center"].at_mm)
    reckon("left" if seen.side == "left" else "right", seen.landmarks, seen.frames, seen.measures)
    if not joint or "mmpta_deg" not in seen.measures:
        seen.refused["posterior_slope_deg"] = seen.refused.get("plateau_center", "the plateau is not on this surface")
    if "isb" not in seen.frames:
        seen.refused["isb"] = "needs the plateau and the ankle"
    seen.frames.pop("upright")


def _summit(seen: Seen, up: Array) -> Array:
    """The top of the bone: of the higher spine, or of what else stands half a millimetre and more above it. From its highest
    millimetre or so within 8 mm of where the search begins, and not from a vertex: a spine's tip goes with the triangles."""
    spines = [seen.landmarks[name].at_mm for name in ("medial_spine", "lateral_spine")]
    found = _peak(seen, max(spines, key=lambda at: float(at @ up)), up)
    highest: Array = seen.mesh.vertices[(seen.mesh.vertices @ up).argmax()]
    if (highest - found) @ up < SPINE_MM:
        return found
    # along a rim the highest vertex is any: the middle of all that is nearly as high
    points = seen.dense(highest, 15.0, 6000).points
    weight = np.exp((points - highest) @ up / 0.75)
    return _peak(seen, weight @ points / weight.sum(), up)


def _peak(seen: Seen, at: Array, up: Array) -> Array:
    points = seen.dense(at, 12.0, 8000).points
    depth = (points @ up).max() - points @ up
    away = points - at
    aside = away - np.outer(away @ up, up)
    weight = np.exp(-depth) * (1.0 - (aside**2).sum(axis=1) / 64.0).clip(0.0) ** 2
    # of a round top the mean lies as deep as the weight's scale
    return weight @ points / weight.sum() + min(1.0, float(weight @ depth / weight.sum())) * up


def _turned(seen: Seen, up: Array) -> Array:
    """A rotation with z along up and y as near to the back as can be."""
    x = np.cross(seen.way(np.array([0.0, 1.0, 0.0])), up)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(up, x), up], axis=1)


def reckon(side: str, marks: Mapping[str, Landmark], frames: dict[str, Pose], measures: dict[str, float]) -> None:
    """Length, slopes, Akagi's line, torsion and the ISB frame from landmarks and frames as they stand: frames `upright`
    (only where spines or ankle are missing), `medial_plateau`, `lateral_plateau` and `proximal_shaft` with z up."""
    spine, ankle, high = _spine(marks), _of(marks, "ankle_center"), _of(marks, "highest_point")
    inner, outer = _of(marks, "posterior_medial_tibia"), _of(marks, "posterior_lateral_tibia")
    if spine is not None and ankle is not None:
        up = (spine - ankle) / np.linalg.norm(spine - ankle)
        if high is not None and "medial_malleolus" in marks:
            measures["length_mm"] = float((high - marks["medial_malleolus"].at_mm) @ up)
    else:
        known = frames.get("upright", frames.get("proximal_shaft"))
        if known is None:
            return
        up = known.rotation[:, 2]
    parts = [frames.get(f"{part}_plateau") for part in ("medial", "lateral")]
    if parts[0] is None or parts[1] is None or inner is None or outer is None:
        return
    across = outer - inner
    across = across - (across @ up) * up
    across /= np.linalg.norm(across)
    front = np.cross(across, up) * (1.0 if side == "left" else -1.0)
    _slopes(frames, measures, [part.rotation[:, 2] for part in parts if part is not None], front, up)
    joint = marks["lateral_plateau"].at_mm - marks["medial_plateau"].at_mm
    measures["mmpta_deg"] = float(90.0 - np.degrees(np.arctan2(joint @ up, joint @ across)))
    back, border = _of(marks, "cruciate"), _of(marks, "tendon_medial_border")
    if back is not None and border is not None:
        line = border - back
        measures["akagi_to_posterior_tibia_deg"] = float(np.degrees(np.arctan2(line @ across, line @ front)))
    _isb(side, marks, frames, measures, across, front)


def _slopes(frames: dict[str, Pose], measures: dict[str, float], normals: list[Array], front: Array, up: Array) -> None:
    """Both compartments against the proximal anatomical axis, and their mean against the mechanical one."""

    def slope(normal: Array, axis: Array) -> float:
        ahead = front - (front @ axis) * axis
        return float(np.degrees(np.arctan2(-(normal @ ahead) / np.linalg.norm(ahead), normal @ axis)))

    if "upright" not in frames or "length_mm" in measures:
        measures["posterior_slope_mechanical_deg"] = sum(slope(normal, up) for normal in normals) / 2
    if "proximal_shaft" not in frames:
        return
    both = [slope(normal, frames["proximal_shaft"].rotation[:, 2]) for normal in normals]
    measures["posterior_slope_medial_deg"], measures["posterior_slope_lateral_deg"] = both
    measures["posterior_slope_deg"] = sum(both) / 2


def _shaft(seen: Seen, up: Array) -> Array | None:
    """Unit vector up the proximal shaft through its section middles; None when they are not all there."""
    size = min(seen.match.scale, 1.2)
    least = 150.0 * min(size, 1.0) ** 2
    top, starts = seen.landmarks["plateau_center"].at_mm, []
    for below in np.linspace(50.0, 150.0, 11) * size:
        beside = seen.shape[np.abs((seen.shape - (top - below * up)) @ up) < 6.0]
        if len(beside):
            starts.append(beside.mean(axis=0))
    found = [ring for ring in rings.around(seen.mesh, np.array(starts), up) if ring is not None]
    points = np.array([ring.centroid_mm for ring in found if least < abs(ring.area_mm2) < 2500.0])
    if len(points) < 9:
        return None
    way: Array = np.linalg.svd(points - points.mean(axis=0))[2][0]
    return way * np.sign(way @ up)


def _of(marks: Mapping[str, Landmark], name: str) -> Array | None:
    return marks[name].at_mm if name in marks else None


def _spine(marks: Mapping[str, Landmark]) -> Array | None:
    inner, outer = _of(marks, "medial_spine"), _of(marks, "lateral_spine")
    return None if inner is None or outer is None else (inner + outer) / 2


def _isb(side: str, marks: Mapping[str, Landmark], frames: dict[str, Pose], measures: dict[str, float], across: Array,
         front: Array) -> None:  # fmt: skip
    """Wu 2002: origin between the malleoli, z to the right along them, x forward out of the plane through them and the
    middle of the plateau."""
    ankle, inner, outer, top = (_of(marks, name) for name in
                                ("ankle_center", "medial_malleolus", "lateral_malleolus", "plateau_center"))  # fmt: skip
    if ankle is None or inner is None or outer is None or top is None:
        return
    line = outer - inner
    measures["tibial_torsion_deg"] = float(np.degrees(np.arctan2(-(line @ front), line @ across)))
    z = (line if side == "right" else -line) / np.linalg.norm(line)
    x = np.cross(top - ankle, z)
    x /= np.linalg.norm(x)
    x *= np.sign(x @ front)
    frames["isb"] = Pose(np.stack([x, np.cross(z, x), z], axis=1), ankle)
