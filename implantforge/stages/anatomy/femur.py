"""Landmarks, axes and angles of a femur from its surface alone; what the bone does not show is refused by name."""

from __future__ import annotations

import numpy as np

from implantforge.core import Anatomy, AnatomyError, Array, Mesh, Pose, Side
from implantforge.stages.anatomy import identify, rings
from implantforge.stages.anatomy.seen import Seen, near
from implantforge.stages.anatomy.sphere import robust_sphere

HEAD_RESIDUAL_LIMIT_MM = 2.0
"""Refuse the head above this RMS (fact S-5: flag above 1 mm, refuse above 2 mm)."""
CONDYLES = ("medial_epicondyle", "lateral_epicondyle", "posterior_medial_condyle", "posterior_lateral_condyle",
            "distal_medial_condyle", "distal_lateral_condyle", "intercondylar_notch")  # fmt: skip
SHARE = {"medial_epicondyle": 1.4, "lateral_epicondyle": 1.25, "posterior_medial_condyle": 1.3,
         "posterior_lateral_condyle": 0.8, "distal_medial_condyle": 1.25, "distal_lateral_condyle": 1.65,
         "intercondylar_notch": 0.55, "greater_trochanter": 1.5, "lesser_trochanter": 1.5}  # fmt: skip
"""One sigma over the bone's distance from the bent model; see `Seen.carry`."""
TIP_MM = 1.4
"""One sigma of the lesser trochanter's tip, moved to where it stands furthest from the shaft."""
SHAFT_SHARE = 0.5
CANAL = ("canal_isthmus", "isthmus_diameter_mm", "canal_flare_index")


def measure(mesh: Mesh, side: Side) -> Anatomy:
    """Anatomy of one femur, whole, proximal or distal, in the mesh's own LPS mm and in any pose.

    Bone, side and up are found by shape (`identify`); AnatomyError when they contradict the name. Head: sphere by robust
    least squares on its articular surface. Neck axis: head centre to the middle of the neck's smallest sections
    (Cerveri 2010). Shaft axis: line through section centroids from a quarter to three quarters of the bone's length.
    Neck-shaft angle in 3D between the two; `neck_shaft_angle_proximal_deg` takes the subtrochanteric line instead (see
    `_subtrochanteric`), and so does `neck_shaft_angle_deg` of a bone that ends before half of the shaft: its shaft axis
    would be the shape model's guess. Version: `anteversion_deg` by Murphy 1987, `version_lee_deg` by Lee 1992, both
    against the posterior condyles across the mechanical axis.
    """
    seen = identify.one(mesh, f"femur_{side}")
    return of(seen)


def of(seen: Seen) -> Anatomy:
    """Anatomy of a femur that is already identified."""
    side: Side = "left" if seen.side == "left" else "right"
    head = _head(seen)
    for name in ("greater_trochanter", "lesser_trochanter", *CONDYLES):
        seen.carry(name, SHARE[name])
    if head is None and not any(name in seen.landmarks for name in CONDYLES):
        raise AnatomyError(
            f"{seen.bone}: neither the head nor the condyles are on this surface; {seen.refused['head_center']}"
        )
    axis = _shaft(seen)
    _tip(seen, axis)
    if head is not None:
        _proximal(seen, head, axis)
    _distal(seen)
    if head is not None:
        _whole(seen, head, axis)
    else:
        needs = ("length_mm", "anteversion_deg", "version_lee_deg")
        seen.refused |= dict.fromkeys(needs, f"head_center: {seen.refused['head_center']}")
    _frames(seen, axis)
    seen.refused |= dict.fromkeys(CANAL, "the marrow canal shows in a CT only")
    return Anatomy(seen.bone, side, seen.landmarks, seen.frames, seen.measures, {}, seen.refused)


def angle(a: Array, b: Array) -> float:
    """Degrees between two vectors."""
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)))


def _head(seen: Seen) -> Array | None:
    """The head's centre; None, and refused by name, when it is not on the surface."""
    shown = seen.shown("head")
    if shown < 0.45 and "head_center" in seen.given:
        seen.take("head_center")
        seen.refused["head_radius_mm"] = f"cut off: {100 * shown:.0f} % of the head's surface is there (45 % needed)"
        return seen.at("head_center")
    if shown < 0.45:
        why = f"cut off: {100 * shown:.0f} % of the head's surface is there (45 % needed)"
        for name in ("head_center", "neck_center", "head_radius_mm", "neck_shaft_angle_deg", "offset_mm"):
            seen.refused[name] = why
        return None
    zone = seen.shape[seen.marks.zone["head"]]
    middle = zone.mean(axis=0)
    cloud = seen.dense(middle, 6.0 + float(np.linalg.norm(zone - middle, axis=1).max()))
    found = robust_sphere(cloud.points, cloud.normals, np.ones(len(cloud.points)), zone)
    limits = np.array([13.0, 36.0]) * min(seen.match.scale, 1.0) * np.array([1.0, 1.0])
    if found.residual_mm > HEAD_RESIDUAL_LIMIT_MM or not limits[0] < found.radius_mm < 36.0:
        raise AnatomyError(
            f"{seen.bone}: no femoral head: best sphere has radius {found.radius_mm:.1f} mm ({limits[0]:.0f}-36), residual "
            f"{found.residual_mm:.1f} mm (limit {HEAD_RESIDUAL_LIMIT_MM} mm)"
        )
    sigma = 0.1 + found.residual_mm * 0.25 + 2.0 * max(0.0, 0.9 - shown)
    centre = seen.add("head_center", found.center_mm, sigma, "sphere-robust-lsq")
    if "head_center" in seen.given:
        found = found.about(centre, cloud.points)
    seen.measures["head_radius_mm"] = found.radius_mm
    seen.measures["head_residual_mm"] = found.residual_mm
    seen.measures["head_shown_pct"] = 100.0 * shown
    return centre


def _shaft(seen: Seen) -> tuple[Array, Array, float]:
    """A point on the shaft axis, its unit vector toward the head's end, and the share of its levels on the surface."""
    top, length = float(seen.match.model_shape()[:, 2].max()), float(np.ptp(seen.match.model_shape()[:, 2]))
    bent = Mesh(seen.shape, seen.match.atlas.faces if not seen.match.mirrored else seen.match.atlas.faces[:, ::-1])
    up = seen.way(np.array([0.0, 0.0, 1.0]))
    along = (seen.mesh.vertices - seen.shape.mean(axis=0)) @ up
    low, high = along.min() + 4.0, along.max() - 4.0
    levels = np.zeros((21, 3))
    levels[:, 2] = top - np.linspace(0.25, 0.75, 21) * length
    middle = seen.shape.mean(axis=0)
    expected = _rings(bent, _beside(bent, seen.match.to_patient(levels), up), up)
    points = np.array([point for point in expected if point is not None])
    height = (points - middle) @ up
    there = (height > low) & (height < high)
    own = np.zeros(len(points), bool)
    for number, found in zip(np.flatnonzero(there), _rings(seen.mesh, points[there], up)):
        if found is not None and np.linalg.norm(found - points[number]) <= 5.0:
            points[number], own[number] = found, True
    at = points.mean(axis=0)
    way = np.linalg.svd(points - at)[2][0]
    return at, way * np.sign(way @ up), float(np.mean(own))


def _rings(mesh: Mesh, at: Array, up: Array) -> list[Array | None]:
    """Centroids of the section rings around points, where they are no larger than a shaft's."""
    found = rings.around(mesh, at, up)
    return [None if ring is None or not 60.0 < abs(ring.area_mm2) < 3500.0 else ring.centroid_mm for ring in found]


def _beside(mesh: Mesh, at: Array, up: Array) -> Array:
    """Points at the same heights in the middle of the mesh within 25 mm of each."""
    out = at.copy()
    height = mesh.vertices @ up
    for number, point in enumerate(at):
        band = np.abs(height - point @ up) < 25.0
        if band.any():
            away = (mesh.vertices[band] - point).mean(axis=0)
            out[number] += away - (away @ up) * up
    return out


def _tip(seen: Seen, axis: tuple[Array, Array, float]) -> None:
    """The lesser trochanter moved to where its bump stands furthest from the shaft axis; the highest millimetre of an even
    sample counts, so that a new triangulation moves it little."""
    mark = seen.landmarks.get("lesser_trochanter")
    if mark is None:
        return
    at, up, _ = axis
    reach = 10.0 * min(seen.match.scale, 1.0)
    found = mark.at_mm
    for _ in range(12):  # each step forgets half of where the search began
        cloud = seen.dense(found, reach, 4000)
        away = cloud.points - at
        across = away - np.outer(away @ up, up)
        far = np.linalg.norm(across, axis=1)
        gap = np.linalg.norm(cloud.points - found, axis=1) / reach
        height = far - 4.0 * gap**2
        own = (gap < 1.0) & (np.einsum("ij,ij->i", across, cloud.normals) > 0.3 * far)
        if own.sum() < 30:
            return
        weight = np.exp((height[own] - height[own].max()) / 0.75)
        before, found = found, weight @ cloud.points[own] / weight.sum()
        if np.linalg.norm(found - before) < 0.03:
            break
    sigma = float(np.hypot(mark.sigma_mm, TIP_MM * min(seen.match.scale, 1.0))) * (1.0 + 0.9 * seen.lost)
    seen.add("lesser_trochanter", found, sigma, "furthest-from-shaft")


def _proximal(seen: Seen, head: Array, axis: tuple[Array, Array, float]) -> None:
    """Neck, neck-shaft angle, offset, and the head's height above the trochanter."""
    at, up, own = axis
    radius = seen.measures.get("head_radius_mm", 23.0 * seen.match.scale)
    piece = near(seen.mesh, head, 3.2 * radius)
    foot = at + ((head - at) @ up) * up
    out = head - (foot - 0.75 * np.linalg.norm(head - foot) * up)
    found = _neck(piece, head, radius, out / np.linalg.norm(out))
    if found is None:
        why = "cut off or open: no closed section of the neck"
        seen.refused |= dict.fromkeys(("neck_center", "neck_shaft_angle_deg"), why)
        seen.take("neck_center", "neck_base")
    else:
        seen.add("neck_center", found[0], 0.7, "Cerveri2010-smallest-sections")
        seen.add("neck_base", found[1], 1.5, "section-a-quarter-wider-than-the-neck")
    neck = seen.at("neck_center")
    if neck is not None:
        seen.refused.pop("neck_shaft_angle_deg", None)
        _neck_shaft(seen, head - neck, axis)
    seen.measures["offset_mm"] = float(np.linalg.norm(np.cross(head - at, up)))
    seen.measures["shaft_axis_seen_pct"] = 100.0 * own
    seen.measures["shaft_length_below_head_mm"] = float(((head - seen.mesh.vertices) @ up).max())
    small = seen.at("lesser_trochanter")
    if small is not None:
        seen.measures["head_height_above_lesser_trochanter_mm"] = float((head - small) @ up)


def _neck_shaft(seen: Seen, neck: Array, axis: tuple[Array, Array, float]) -> None:
    """The angle between neck and shaft, by the whole shaft where it is there and by the subtrochanteric line."""
    at, up, own = axis
    short = _subtrochanteric(seen, at, up)
    if short is not None:
        seen.measures["neck_shaft_angle_proximal_deg"] = angle(neck, -short.rotation[:, 2])
        seen.frames["subtrochanteric"] = short
    if own >= SHAFT_SHARE or short is None:
        seen.measures["neck_shaft_angle_deg"] = angle(neck, -up)
        return
    seen.measures["neck_shaft_angle_deg"] = seen.measures["neck_shaft_angle_proximal_deg"]
    seen.refused["neck_shaft_angle_shaft_deg"] = (
        f"cut off: {100 * own:.0f} % of the shaft's middle half is there ({100 * SHAFT_SHARE:.0f} % needed); "
        "neck_shaft_angle_deg takes the subtrochanteric line, which reads about 3 deg more"
    )


def _subtrochanteric(seen: Seen, at: Array, up: Array) -> Pose | None:
    """The line (z) through the middles of the sections from 16 mm above the lesser trochanter, where the centreline of a
    proximal femur leaves the neck (two lines of least squares, as LibHip 2022 measures the angle), to 50 mm below it,
    where the subtrochanteric region ends (Fielding 1973); None when that is not there."""
    small = seen.at("lesser_trochanter")
    if small is None:
        return None
    size = min(seen.match.scale, 1.2)
    levels = small - np.linspace(-16.0, 50.0, 23)[:, None] * size * up
    levels = levels + (at - levels) @ (np.eye(3) - np.outer(up, up))
    piece = near(seen.mesh, small, 95.0 * size)
    points = np.array([ring.centroid_mm for ring in rings.around(piece, levels, up) if ring is not None])
    if len(points) < 18:
        return None
    way = np.linalg.svd(points - points.mean(axis=0))[2][0]
    way = way * np.sign(way @ up)
    across = np.cross(way, seen.way(np.array([0.0, 1.0, 0.0])))
    across /= np.linalg.norm(across)
    return Pose(np.stack([across, np.cross(way, across), way], axis=1), points.mean(axis=0))


def _neck(mesh: Mesh, center: Array, radius: float, outward: Array) -> tuple[Array, Array] | None:
    """Middle of the neck's smallest sections, and of the section at its base where the area has grown by a quarter."""
    middle, base = None, None
    for _ in range(8):
        levels = center - np.linspace(0.75, 1.9, 24)[:, None] * radius * outward
        found = [ring for ring in rings.around(mesh, levels, outward) if ring is not None]
        if len(found) < 4:
            return None
        area = np.array([abs(ring.area_mm2) for ring in found])
        points = np.array([ring.centroid_mm for ring in found])
        # a soft minimum: sections within a few percent of the smallest count, so that a new triangulation moves little
        weight = np.exp(-0.5 * ((area / area.min() - 1.0) / 0.04) ** 2)
        middle = weight @ points / weight.sum()
        wide = np.flatnonzero((area > 1.25 * area.min()) & (np.arange(len(area)) > area.argmin()))
        base = points[-1]
        if len(wide):
            one, other = wide[0] - 1, wide[0]
            share = (1.25 * area.min() - area[one]) / max(area[other] - area[one], 1e-9)
            base = points[one] + share * (points[other] - points[one])
        new = (center - middle) / np.linalg.norm(center - middle)
        turn = angle(new, outward)
        outward = new
        if turn < 0.01:
            break
    assert middle is not None and base is not None
    return middle, base


def _distal(seen: Seen) -> None:
    """Knee centre: the middle between the epicondyles (Wu 2002)."""
    medial, lateral = seen.at("medial_epicondyle"), seen.at("lateral_epicondyle")
    if medial is None or lateral is None:
        missing = "medial_epicondyle" if medial is None else "lateral_epicondyle"
        seen.refused["knee_center"] = f"{missing}: {seen.refused[missing]}"
        seen.take("knee_center")
        return
    seen.add("knee_center", (medial + lateral) / 2, seen.middle("medial_epicondyle", "lateral_epicondyle"),
             "Wu2002-mid-epicondyles")  # fmt: skip
    seen.measures["epicondylar_width_mm"] = float(np.linalg.norm(lateral - medial))


def _whole(seen: Seen, head: Array, axis: tuple[Array, Array, float]) -> None:
    """What needs both ends: length, version, angles of the knee to the mechanical axis."""
    knee = seen.at("knee_center")
    inner, outer = seen.at("posterior_medial_condyle"), seen.at("posterior_lateral_condyle")
    if knee is None or inner is None or outer is None:
        why = f"needs the condyles: {seen.refused.get('knee_center', 'the posterior ones are not on this surface')}"
        seen.refused |= dict.fromkeys(("length_mm", "anteversion_deg", "version_lee_deg"), why)
        return
    up = (head - knee) / np.linalg.norm(head - knee)
    lateral = outer - inner
    lateral = lateral - (lateral @ up) * up
    lateral /= np.linalg.norm(lateral)
    forward = -seen.way(np.array([0.0, 1.0, 0.0]))
    front = np.cross(lateral, up)
    front *= np.sign(front @ forward)
    seen.measures["length_mm"] = float(np.ptp(seen.mesh.vertices @ up))

    def version(base: Array) -> float:
        return float(np.degrees(np.arctan2((head - base) @ front, -((head - base) @ lateral))))

    at, shaft, _ = axis
    small = seen.at("lesser_trochanter")
    if small is not None:
        foot = at + ((small - at) @ shaft - 15.0 * seen.match.scale) * shaft
        ring = rings.around(seen.mesh, foot, shaft)[0]
        seen.add("shaft_below_trochanter", foot if ring is None else ring.centroid_mm, 1.0, "section-centroid")
        seen.measures["anteversion_deg"] = version(seen.landmarks["shaft_below_trochanter"].at_mm)
    else:
        seen.refused["anteversion_deg"] = f"lesser_trochanter: {seen.refused['lesser_trochanter']}"
    base = seen.at("neck_base")
    if base is not None:
        seen.measures["version_lee_deg"] = version(base)
    ends = seen.at("medial_epicondyle"), seen.at("lateral_epicondyle")
    if ends[0] is not None and ends[1] is not None:
        epi = ends[1] - ends[0]
        seen.measures["epicondylar_to_condylar_deg"] = float(np.degrees(np.arctan2(epi @ -front, epi @ lateral)))
    low = (seen.at("distal_medial_condyle"), seen.at("distal_lateral_condyle"))
    if low[0] is not None and low[1] is not None:
        line = low[1] - low[0]
        seen.measures["mldfa_deg"] = float(90.0 - np.degrees(np.arctan2(line @ up, line @ lateral)))
    seen.measures["mechanical_to_shaft_deg"] = angle(up, shaft)


def _frames(seen: Seen, axis: tuple[Array, Array, float]) -> None:
    """`shaft`: x toward the head (of a distal piece: medial), z up. `isb`: Wu 2002, origin at the head."""
    at, up, _ = axis
    head, knee = seen.at("head_center"), seen.at("knee_center")
    medial = seen.way(np.array([-1.0, 0.0, 0.0])) if head is None else head - at
    medial = medial - (medial @ up) * up
    if head is not None and np.linalg.norm(medial) < 8.0 * min(seen.match.scale, 1.0):
        raise AnatomyError(
            f"{seen.bone}: the head lies {np.linalg.norm(medial):.0f} mm from the shaft axis (8 mm needed)"
        )
    medial /= np.linalg.norm(medial)
    seen.frames["shaft"] = Pose(np.stack([medial, np.cross(up, medial), up], axis=1), at)
    if head is not None:
        _stem_frame(seen, head, at, up)
    ends = seen.at("medial_epicondyle"), seen.at("lateral_epicondyle")
    if head is None or knee is None or ends[0] is None or ends[1] is None:
        seen.refused["isb"] = "needs the head and both epicondyles"
        return
    y = (head - knee) / np.linalg.norm(head - knee)
    right = ends[1] - ends[0]
    right = right if seen.side == "right" else -right
    z = right - (right @ y) * y
    z /= np.linalg.norm(z)
    seen.frames["isb"] = Pose(np.stack([np.cross(y, z), y, z], axis=1), head)


def _stem_frame(seen: Seen, head: Array, at: Array, up: Array) -> None:
    """Frame `proximal_shaft`, where a stem goes: the shaft from 75 to 230 mm below the head, less where it is cut; the bow
    below turns the axis of the whole shaft a few degrees from it."""
    size = min(seen.match.scale, 1.2)
    reach = float(((head - seen.mesh.vertices) @ up).max())
    low, high = min(reach - 8.0, 230.0 * size), 75.0 * size
    if low - high < 25.0:
        return
    piece = near(seen.mesh, head, 270.0 * size)
    for _ in range(4):
        levels = head - np.linspace(low, high, 24)[:, None] * up
        levels = levels + (at - levels) @ (np.eye(3) - np.outer(up, up))
        found = [ring for ring in rings.around(piece, levels, up) if ring is not None]
        points = np.array([ring.centroid_mm for ring in found if 60.0 < abs(ring.area_mm2) < 2500.0])
        if len(points) < 8:
            return
        at = points.mean(axis=0)
        way = np.linalg.svd(points - at)[2][0]
        up = way * np.sign(way @ up)
    medial = head - at - ((head - at) @ up) * up
    medial /= np.linalg.norm(medial)
    seen.frames["proximal_shaft"] = Pose(np.stack([medial, np.cross(up, medial), up], axis=1), at)
