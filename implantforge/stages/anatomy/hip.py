"""One hip bone: spines, tubercle, acetabulum, and the angles of its rim after Murray 1993."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from implantforge.core import Anatomy, AnatomyError, Array, Mesh, Pose, Side
from implantforge.stages.anatomy import identify
from implantforge.stages.anatomy.marks import ball
from implantforge.stages.anatomy.seen import Seen
from implantforge.stages.anatomy.sphere import hollow_sphere

SHARE = {"asis": 1.15, "psis": 0.95, "pubic_tubercle": 0.95, "ischial_spine": 0.75, "aiis": 0.75, "piis": 1.1}
"""One sigma over the bone's distance from the bent model; see `Seen.carry`."""
ANGLES = ("inclination_deg", "anteversion_deg", "inclination_anatomic_deg", "anteversion_anatomic_deg",
          "inclination_operative_deg", "anteversion_operative_deg")  # fmt: skip
LONE = "from one hip bone left and right of the body are guessed, and angles came out up to 11 deg low"
"""Measured on one real pelvis: inclination 4.3 and 4.6, radiographic version 11.3 and 9.6 deg low with one side alone."""
_SECTORS = 36


def measure(mesh: Mesh, side: Side) -> Anatomy:
    """Anatomy of one hip bone in the mesh's own LPS mm and in any pose.

    Acetabulum: sphere by robust least squares on the lunate surface. Rim: where the socket ends in 36 sectors around its
    axis, the notch left out; plane by trimmed least squares. Its angles stand against the anterior pelvic plane, which
    needs both hip bones (`paired`): of one alone they are refused, for what the shape model knows of the other turns the
    plane by 6 and 9 deg on a real pelvis, and its mean by 11 and 12.
    AnatomyError as in `identify`.
    """
    return of(identify.one(mesh, f"hip_{side}"))


def of(seen: Seen) -> Anatomy:
    """Anatomy of a hip bone that is already identified."""
    side: Side = "left" if seen.side == "left" else "right"
    for name, share in SHARE.items():
        seen.carry(name, share)
    _acetabulum(seen)
    out = Anatomy(seen.bone, side, seen.landmarks, seen.frames, seen.measures, {}, seen.refused)
    if not seen.landmarks:
        raise AnatomyError(f"{seen.bone}: no landmark of a hip bone is on this surface")
    rim = seen.frames.pop("_rim", None)
    if rim is None:
        return out
    seen.frames["acetabulum"] = rim
    other = "hip_right" if side == "left" else "hip_left"
    seen.refused["app"] = f"needs {other} too: its asis and pubic_tubercle"
    why = f"needs the anterior pelvic plane, that is {other} too (or both as pelvis): {LONE}"
    seen.refused |= dict.fromkeys(ANGLES, why)
    return out


def plane(left: Array, up: Array) -> Array:
    """Rotation of the anterior pelvic plane: columns left, posterior, superior; up lies in the plane."""
    x = left / np.linalg.norm(left)
    z = up - (up @ x) * x
    z /= np.linalg.norm(z)
    return np.stack([x, np.cross(z, x), z], axis=1)


def angles(opening: Array, frame: Array, side: str) -> dict[str, float]:
    """Murray's three pairs (deg) of the way a socket opens, in a frame with columns left, posterior, superior.

    `inclination_deg` and `anteversion_deg` are radiographic.
    """
    x, y, z = opening @ frame
    across, ahead = (x if side == "left" else -x), -y
    values = (np.arctan2(across, -z), np.arcsin(ahead), np.arccos(-z), np.arctan2(ahead, across),
              np.arcsin(across), np.arctan2(ahead, -z))  # fmt: skip
    return {name: float(np.degrees(value)) for name, value in zip(ANGLES, values)}


def _acetabulum(seen: Seen) -> None:
    shown = seen.shown("cup")
    if shown < 0.5:
        why = f"cut off: {100 * shown:.0f} % of the lunate surface is there (50 % needed)"
        seen.refused |= dict.fromkeys(("acetabulum_center", "acetabulum_radius_mm", *ANGLES), why)
        seen.take("acetabulum_center")
        return
    zone = seen.shape[seen.marks.zone["cup"]]
    guess, _ = ball(zone, np.ones(len(zone)))
    opening = guess - zone.mean(axis=0)
    opening /= np.linalg.norm(opening)
    size = min(seen.match.scale, 1.1)
    cloud = seen.dense(guess, 48.0 * size, 8000)
    found = hollow_sphere(cloud.points, cloud.normals, np.ones(len(cloud.points)), guess, opening, size)
    if not found.residual_mm < 2.0:
        why = "no socket: no part of the surface looks into a sphere"
        seen.refused |= dict.fromkeys(("acetabulum_center", "acetabulum_radius_mm", *ANGLES), why)
        seen.take("acetabulum_center")
        return
    centre = seen.add("acetabulum_center", found.center_mm, 0.3 + 0.5 * (found.residual_mm + found.rival_mm),
                      "sphere-robust-lsq")  # fmt: skip
    if "acetabulum_center" in seen.given:
        found = found.about(centre, cloud.points)
    seen.measures["acetabulum_radius_mm"] = found.radius_mm
    seen.measures["acetabulum_residual_mm"] = found.residual_mm
    rim = _rim(seen, found.center_mm, found.radius_mm, opening)
    if rim is None:
        seen.refused |= dict.fromkeys(ANGLES, "the socket's rim is not seen all round")
        return
    seen.frames["_rim"], seen.measures["rim_residual_mm"], seen.measures["rim_sectors"] = rim


def _rim(seen: Seen, centre: Array, radius: float, way: Array) -> tuple[Pose, float, float] | None:
    """Plane of the rim (z looks out of the socket), RMS of its points, and how many of 36 sectors it rests on."""
    cloud = seen.dense(centre, 1.25 * radius, 12000)
    away = cloud.points - centre
    far = np.linalg.norm(away, axis=1)
    inner = np.einsum("ij,ij->i", away, cloud.normals) < -0.5 * far
    points = away[inner & (np.abs(far - radius) < 0.16 * radius)]
    if len(points) < 500:
        return None
    least = len(points) // (8 * _SECTORS)
    rotation, residual, used = np.eye(3), 0.0, 0
    for _ in range(20):
        across = np.cross(way, seen.way(np.array([0.0, 1.0, 0.0])))
        across /= np.linalg.norm(across)
        rotation = np.stack([across, np.cross(way, across), way], axis=1)
        local = points @ rotation
        sector = ((np.arctan2(local[:, 1], local[:, 0]) / (2 * np.pi) + 0.5) * _SECTORS).astype(int) % _SECTORS
        edge = []
        for number in range(_SECTORS):
            own = sector == number
            if own.sum() < 2 * least:
                continue
            # the highest part of the socket's own surface in this sector, not its highest point
            first = np.flatnonzero(own)[np.argsort(-local[own, 2])[:least]]
            edge.append(points[first].mean(axis=0))
        if len(edge) < _SECTORS // 2:
            return None
        new, residual, used = _trimmed(np.array(edge), way)
        turn = float(np.linalg.norm(new - way))
        way = new
        if turn < 1e-5:
            break
    return Pose(rotation, centre), residual, float(used)


def _trimmed(edge: Array, way: Array) -> tuple[Array, float, int]:
    """Unit normal of the plane through the rim's points without those sunk in the notch; RMS mm; how many it rests on."""
    keep = np.ones(len(edge), bool)
    normal, gap = way, np.zeros(len(edge))
    for _ in range(12):
        middle = edge[keep].mean(axis=0)
        normal = np.linalg.svd(edge[keep] - middle)[2][2]
        normal = normal * np.sign(normal @ way)
        gap = (edge - middle) @ normal
        fresh = np.abs(gap) < max(2.0, 1.5 * float(np.sqrt(np.mean(gap[keep] ** 2))))
        if fresh.sum() < len(edge) // 2 or (fresh == keep).all():
            break
        keep = fresh
    return normal, float(np.sqrt(np.mean(gap[keep] ** 2))), int(keep.sum())


def paired(found: Mapping[str, Anatomy]) -> dict[str, Anatomy]:
    """Both hip bones with the plane through their four landmarks: frame `app` (origin between the spines, columns left,
    posterior, superior), tilt against the mesh's own vertical, and the rims' angles against it."""
    both = [found["hip_left"], found["hip_right"]]
    marks = [page.landmarks for page in both]
    missing = [f"{page.bone}.{name}" for page, mark in zip(both, marks) for name in ("asis", "pubic_tubercle")
               if name not in mark]  # fmt: skip
    out = {}
    for page in both:
        refused, frames, measures = dict(page.refused), dict(page.frames), dict(page.measures)
        if missing:
            refused["app"] = f"needs both asis and pubic_tubercle; {', '.join(missing)} is refused"
            if "acetabulum" in frames:
                refused |= dict.fromkeys(ANGLES, refused["app"])
        else:
            spines = [mark["asis"].at_mm for mark in marks]
            tubercles = (marks[0]["pubic_tubercle"].at_mm + marks[1]["pubic_tubercle"].at_mm) / 2
            middle = (spines[0] + spines[1]) / 2
            frame = plane(spines[0] - spines[1], middle - tubercles)
            refused.pop("app", None)
            frames["app"] = Pose(frame, middle)
            measures["pelvic_tilt_deg"] = float(np.degrees(np.arctan2(frame[1, 2], frame[2, 2])))
            if "acetabulum" in frames:
                measures |= angles(frames["acetabulum"].rotation[:, 2], frame, page.side)
                refused = {name: why for name, why in refused.items() if name not in ANGLES}
        out[page.bone] = Anatomy(page.bone, page.side, page.landmarks, frames, measures, page.curves, refused)
    return out
