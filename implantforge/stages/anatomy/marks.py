"""Where the landmarks lie on the mean bones of the shape model: found there by their definitions, carried by registration.

All in the model's frame: a left bone, +x left (lateral for a limb, away from the midline for a hip), +y back, +z up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array
from implantforge.geom import shapemodel
from implantforge.stages.anatomy.atlas import Atlas, bending, mean

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Marks:
    """Vertex of each landmark, masks (n,) of the surfaces that spheres and planes are fitted to, and the bone's own way:
    columns left, posterior, superior in the model's frame."""

    vertex: Mapping[str, int]
    zone: Mapping[str, Mask]
    axes: Array = field(default_factory=lambda: np.eye(3))


@lru_cache(maxsize=16)
def of(name: str, coarser: int = 2) -> Marks:
    """Marks of the mean `femur`, `hip` or `tibia`; empty for other bones."""
    atlas = mean(name, coarser)
    known = {"femur": _femur, "tibia": _tibia}
    if name == "hip":
        return _hip(atlas, _cup_guess(atlas, coarser))
    return known[name](atlas) if name in known else Marks({}, {})


@lru_cache(maxsize=8)
def bone(name: str) -> Atlas:
    """The atlas of a left bone with its modes and landmarks; of a tibia also the tip of the fibula."""
    points = {mark: (name, vertex) for mark, vertex in of(name, 1).vertex.items()}
    if name == "tibia":
        fibula = mean("fibula", 1)
        points["lateral_malleolus"] = ("fibula", int(fibula.mean[:, 2].argmin()))
    return bending(mean(name), points)


def _pick(among: Mask, value: Array) -> int:
    """The vertex with the largest value among the chosen."""
    at = np.flatnonzero(among)
    return int(at[value[at].argmax()])


def ball(points: Array, weight: Array) -> tuple[Array, float]:
    """Centre and radius of the weighted least-squares sphere."""
    middle = weight @ points / weight.sum()
    away = points - middle
    root = np.sqrt(weight)
    matrix = np.column_stack([2.0 * away, np.ones(len(away))]) * root[:, None]
    solved = np.linalg.lstsq(matrix, (away**2).sum(axis=1) * root, rcond=None)[0]
    return middle + solved[:3], float(np.sqrt(max(solved[3] + solved[:3] @ solved[:3], 1e-12)))


def _articular(atlas: Atlas, zone: Mask, inward: float) -> tuple[Array, float, Mask]:
    """Sphere of a joint on the mean bone and the vertices that follow it within 1.2 mm and 18 deg, from a first guess."""
    v, n = atlas.mean, atlas.normals
    for band, cosine in ((6.0, 0.8), (4.0, 0.9), (2.5, 0.95), *[(1.5, 0.95)] * 15):
        centre, radius = ball(v[zone], atlas.area[zone])
        away = v - centre
        far = np.linalg.norm(away, axis=1)
        zone = (np.abs(far - radius) < band) & (inward * np.einsum("ij,ij->i", away, n) > cosine * far)
    return centre, radius, zone


def _across(up: Array, behind: Array) -> tuple[Array, Array, Array]:
    """Orthonormal (x, y, z) with z along up, y as near to behind as can be."""
    z = up / np.linalg.norm(up)
    y = behind - (behind @ z) * z
    y = y / np.linalg.norm(y)
    return np.cross(y, z), y, z


def _femur(atlas: Atlas) -> Marks:
    v = atlas.mean
    slope = v @ np.array([-1.0, 0.0, 1.0])
    head, _, zone = _articular(atlas, slope > slope.max() - 20.0, 1.0)
    low = v[:, 2].min()
    knee = v[v[:, 2] < low + 40.0].mean(axis=0)
    x, y, z = _across(head - knee, np.array([0.0, 1.0, 0.0]))
    for _ in range(5):
        local = (v - knee) @ np.stack([x, y, z], axis=1)
        below = local[:, 2] < local[:, 2].min() + 45.0
        middle = float((local[below, 0].min() + local[below, 0].max()) / 2)
        lateral, medial = local[:, 0] > middle + 5.0, local[:, 0] < middle - 5.0
        posterior = {side: _pick(below & own, local[:, 1]) for side, own in (("lateral", lateral), ("medial", medial))}
        distal = {side: _pick(below & own, -local[:, 2]) for side, own in (("lateral", lateral), ("medial", medial))}
        knee = (v[distal["lateral"]] + v[distal["medial"]]) / 2
        line = v[posterior["lateral"]] - v[posterior["medial"]]
        x, y, z = _across(head - knee, np.cross(head - knee, line))
    local = (v - knee) @ np.stack([x, y, z], axis=1)
    h = local[:, 2]
    band = (h > 12.0) & (h < 45.0)
    middle = float((local[posterior["lateral"], 0] + local[posterior["medial"], 0]) / 2)
    strip = (np.abs(local[:, 0] - middle) < 4.0) & (h < 30.0) & (local[:, 1] < local[posterior["medial"], 1] - 10.0)
    centre = (head - knee) @ np.stack([x, y, z], axis=1)
    shaft = (h > centre[2] - 160.0) & (h < centre[2] - 100.0)
    axis = local[shaft].mean(axis=0)
    trochanter = (h > centre[2] - 60.0) & (local[:, 0] > axis[0] + 5.0)
    bump = (h < centre[2] - 40.0) & (h > centre[2] - 75.0)
    inward_back = np.array([-np.cos(np.radians(35.0)), np.sin(np.radians(35.0))])
    vertex = {
        "greater_trochanter": _pick(trochanter, h),
        "lesser_trochanter": _pick(bump, local[:, :2] @ inward_back),
        "medial_epicondyle": _pick(band, -local[:, 0]),
        "lateral_epicondyle": _pick(band, local[:, 0]),
        "posterior_medial_condyle": posterior["medial"],
        "posterior_lateral_condyle": posterior["lateral"],
        "distal_medial_condyle": distal["medial"],
        "distal_lateral_condyle": distal["lateral"],
        "intercondylar_notch": _pick(strip, local[:, 1] - h),
    }
    return Marks(vertex, {"head": zone})


def _hip(atlas: Atlas, guess: Array) -> Marks:
    v, n = atlas.mean, atlas.normals
    zone = (np.linalg.norm(v - guess, axis=1) < 38.0) & (np.einsum("ij,ij->i", guess - v, n) > 12.0)
    cup, radius = guess, 24.0
    for _ in range(30):
        cup, radius = ball(v[zone], atlas.area[zone])
        away = v - cup
        far = np.linalg.norm(away, axis=1)
        zone = (np.abs(far - radius) < 2.5) & (-np.einsum("ij,ij->i", away, n) > 0.9 * far)
    axes = _pelvis(atlas)
    local = (v - cup) @ axes
    aside, ahead, height = local[:, 0], -local[:, 1], local[:, 2]
    asis = _pick((height > 25.0) & (aside > 0.0), ahead)
    psis = _pick((height > 30.0) & (ahead < -20.0), -ahead)
    inner = aside - aside[(height < 5.0) & (ahead > 20.0)].min()
    vertex = {
        "asis": asis,
        # the crest's outer end: the upper, front, outer corner of the body of the pubis
        "pubic_tubercle": _pick(
            (height < 10.0) & (inner > 15.0) & (inner < 40.0) & (ahead > 20.0), ahead + 0.5 * height + 0.5 * aside
        ),
        "psis": psis,
        "ischial_spine": _pick((np.abs(height + 8.0) < 22.0) & (ahead < -15.0), -ahead - aside),
        "aiis": _pick((height > 21.0) & (height < 36.0) & (aside < 30.0), ahead),
        "piis": _pick((height > height[psis] - 48.0) & (height < height[psis] - 26.0) & (ahead < -20.0), -ahead),
    }
    return Marks(vertex, {"cup": zone}, axes)


@lru_cache(maxsize=4)
def _pelvis_of(coarser: int) -> Array:
    """Columns left, posterior, superior of the mean pelvis: across both spines, in the plane they touch with the pubes."""
    _, bones = shapemodel.load(coarser)
    model, _ = shapemodel.load(coarser)
    sides = [np.asarray(bones[f"hip_{side}"][0] @ model.mean) for side in ("left", "right")]
    axes = np.eye(3)
    middle = (sides[0].mean(axis=0) + sides[1].mean(axis=0)) / 2
    for _ in range(12):
        spines, pubes = [], []
        for v in sides:
            local = (v - middle) @ axes
            upper = local[:, 2] > np.quantile(local[:, 2], 0.5)
            spines.append(v[_pick(upper, -local[:, 1])])
            pubes.append(v[_pick(~upper, -local[:, 1])])
        x = spines[0] - spines[1]
        x = x / np.linalg.norm(x)
        z = (spines[0] + spines[1] - pubes[0] - pubes[1]) / 2
        z = z - (z @ x) * x
        z /= np.linalg.norm(z)
        axes = np.stack([x, np.cross(z, x), z], axis=1)
    return axes


def _pelvis(atlas: Atlas) -> Array:
    return _pelvis_of(1 if len(atlas.mean) > 5000 else 2)


def _cup_guess(atlas: Atlas, coarser: int) -> Array:
    """Where the head of the mean femur lies in the frame of the hip."""
    thigh = mean("femur", coarser)
    marks = of("femur", coarser)
    centre, _ = ball(thigh.mean[marks.zone["head"]], thigh.area[marks.zone["head"]])
    return centre + thigh.origin - atlas.origin


def _tibia(atlas: Atlas) -> Marks:
    v, n = atlas.mean, atlas.normals
    h = v[:, 2] - v[:, 2].max()
    ankle_h = v[:, 2] - v[:, 2].min()
    top = h > -25.0
    middle = v[top].mean(axis=0)
    flat = top & (n[:, 2] > np.cos(np.radians(25.0)))
    zone = {}
    vertex: dict[str, int] = {}
    for side, sign in (("medial", -1.0), ("lateral", 1.0)):
        aside = sign * (v[:, 0] - middle[0])
        own = flat & (aside > 13.0) & (aside < 36.0)
        own &= h > np.percentile(h[own], 98) - 6.0
        zone[f"{side}_plateau"] = own
        vertex[f"{side}_spine"] = _pick(top & (aside > 1.0) & (aside < 12.0), h)
        vertex[f"posterior_{side}_tibia"] = _pick((h > -30.0) & (aside > 8.0), v[:, 1])
    rim = _pick(top, -v[:, 1])
    shin = _pick((h < -85.0) & (h > -95.0), -v[:, 1])
    chord = v[rim, 1] + (v[shin, 1] - v[rim, 1]) * (h - h[rim]) / (h[shin] - h[rim])
    vertex["tuberosity"] = bump = _pick((h < -35.0) & (h > -60.0), chord - v[:, 1])
    inner = (np.abs(h - h[bump]) < 5.0) & (np.abs(v[:, 0] - v[bump, 0] + 10.0) < 2.5)
    vertex["tendon_medial_border"] = _pick(inner, -v[:, 1])
    vertex["medial_malleolus"] = _pick(ankle_h < 25.0, -v[:, 2])
    # the model's tibia stands turned outward: between the plateaus is told by their own line, not by the model's x
    line = v[zone["lateral_plateau"]].mean(axis=0) - v[zone["medial_plateau"]].mean(axis=0)
    line = line[:2] / np.linalg.norm(line[:2])
    flat_at = (v - (v[zone["lateral_plateau"]].mean(axis=0) + v[zone["medial_plateau"]].mean(axis=0)) / 2)[:, :2]
    notch = (h > -25.0) & (np.abs(flat_at @ line) < 3.0)
    vertex["cruciate"] = _pick(notch, flat_at @ np.array([-line[1], line[0]]) + 0.5 * v[:, 2])
    dome = (ankle_h < 30.0) & (n[:, 2] < -np.cos(np.radians(25.0))) & (ankle_h > 6.0)
    zone["ankle"] = dome
    return Marks(vertex, zone)
