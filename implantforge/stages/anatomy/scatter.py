"""How sure a landmark and a measure are: raters' scatter, and each uncertainty carried into the measures on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from implantforge.core import Anatomy, Array, Landmark, Pose
from implantforge.stages.anatomy import lines

RATERS_MM = {
    "greater_trochanter": 5.2, "lesser_trochanter": 2.5, "posterior_lateral_condyle": 2.6, "posterior_medial_condyle": 2.8,
    "lateral_epicondyle": 3.4, "medial_epicondyle": 4.8, "intercondylar_notch": 3.1, "distal_lateral_condyle": 8.2,
    "distal_medial_condyle": 4.4, "asis": 3.6, "aiis": 2.5, "psis": 3.1, "pubic_tubercle": 2.6, "piis": 4.6,
    "ischial_spine": 1.3,
}  # fmt: skip
"""One sigma (distance) of what people disagree on: five raters on one femur and pelvis (VSDFullBodyBoneModels, subject
z027), of both sides the mean. It is the scatter of the definition: the program's own `sigma_mm` does not hold it."""
HAND = "corrected by hand"
UNRATED_MM = {"tuberosity": 2.5, "medial_malleolus": 1.5, "medial_spine": 1.5, "lateral_spine": 1.5, "cruciate": 3.0,
              "posterior_medial_tibia": 1.5, "posterior_lateral_tibia": 1.5, "tendon_medial_border": 3.0}  # fmt: skip
"""The same of a tibia's, which no rater set: a project estimate."""
DEFINITION_MM = {**RATERS_MM, **UNRATED_MM}
EXTREMES = ("posterior_lateral_condyle", "posterior_medial_condyle", "distal_lateral_condyle", "distal_medial_condyle",
            "greater_trochanter")  # fmt: skip
"""Furthest points of round surfaces: raters scatter along the surface, which leaves lines and planes on it where they are,
so their scatter is not carried into measures."""
AXIS_DEG = {"shaft": 0.5, "subtrochanteric": 1.0, "proximal_shaft": 0.7}
"""One sigma of axes that are lines through section middles, about either axis across them."""


def definition_mm(mark: Landmark) -> float:
    """What raters disagree on where a landmark of this name lies (a tibia's: our estimate); of a middle that of its ends; 0
    for centres of spheres, and for one that a person set, whose sigma is this already."""
    if mark.method == HAND:
        return 0.0
    if mark.name in lines.MIDDLES:
        one, other = (DEFINITION_MM.get(end, 0.0) for end in lines.MIDDLES[mark.name])
        return float(np.hypot(one, other) / 2)
    return DEFINITION_MM.get(mark.name, 0.0)


def of_measures(found: Mapping[str, Anatomy]) -> dict[str, dict[str, float]]:
    """Bone (and `leg_left`, `leg_right`, `pelvis`) -> measure -> one sigma, of what rests on landmarks and axes: each is
    moved by its own sigma and the definition's along x, y and z, and what all that changes is added in squares.

    Radii take the sigma of their centre along one axis. What is read off the surface directly (lengths over all, residuals)
    has none.
    """
    still = {bone: lines.anew(page, set()) for bone, page in found.items()}
    base = _values(still)
    square: dict[tuple[str, str], float] = {}
    for bone, page in found.items():
        for moved in _moved(page):
            for key, value in _values({**still, bone: moved}).items():
                square[key] = square.get(key, 0.0) + (value - base.get(key, value)) ** 2
    out: dict[str, dict[str, float]] = {}
    for (bone, name), value in square.items():
        if value > 1e-16:
            out.setdefault(bone, {})[name] = float(np.sqrt(value))
    for bone, page in found.items():
        for centre, name in (("head_center", "head_radius_mm"), ("acetabulum_center", "acetabulum_radius_mm")):
            if centre in page.landmarks and name in page.measures:
                out.setdefault(bone, {})[name] = page.landmarks[centre].sigma_mm / 3.0**0.5
    return out


def _values(found: Mapping[str, Anatomy]) -> dict[tuple[str, str], float]:
    pages = lines.paired(found)
    out = {(bone, name): value for bone, page in pages.items() for name, value in page.measures.items()}
    return out | {(part, name): value for part, page in lines.legs(pages).items() for name, value in page.items()}


def _moved(page: Anatomy) -> Iterator[Anatomy]:
    """The page with one landmark moved by its sigma, or one axis turned by its own, for each way that it can."""
    for name, mark in page.landmarks.items():
        ends = lines.MIDDLES.get(name)
        if ends is not None and set(ends) <= set(page.landmarks) and mark.method != HAND:
            continue
        more = 0.0 if name in EXTREMES else definition_mm(mark)
        step = float(np.hypot(mark.sigma_mm, more)) / 3.0**0.5
        for way in np.eye(3):
            marks = {**page.landmarks, name: replace(mark, at_mm=mark.at_mm + step * way)}
            yield lines.anew(replace(page, landmarks=marks), {name})
    for name, pose in page.frames.items():
        sigma = _axis_deg(page, name)
        if sigma:
            for column in (0, 1):
                turned = Pose(_about(pose.rotation[:, column], np.radians(sigma)) @ pose.rotation, pose.origin_mm)
                yield lines.anew(replace(page, frames={**page.frames, name: turned}), set())


def _axis_deg(page: Anatomy, name: str) -> float:
    """One sigma of a frame's z: of planes, what their residual leaves over their breadth, their points counted as nine."""
    if name in AXIS_DEG:
        return AXIS_DEG[name]
    measures = page.measures
    if name == "acetabulum" and "rim_residual_mm" in measures and "acetabulum_radius_mm" in measures:
        return float(np.degrees(measures["rim_residual_mm"] / (0.7 * measures["acetabulum_radius_mm"]) / 3.0))
    if f"{name}_residual_mm" in measures and name.endswith("_plateau"):
        return float(np.degrees(measures[f"{name}_residual_mm"] / 7.0 / 3.0))
    return 0.0


def _about(axis: Array, angle: float) -> Array:
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    out: Array = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return out
