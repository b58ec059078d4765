"""Bones with their landmarks, axes and angles as one picture, drawn without OpenGL."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from implantforge.core import Anatomy, Array, Mesh
from implantforge.geom.render import Camera, camera, render
from implantforge.report import canvas

BONE = (0.93, 0.89, 0.80)
AXIS, DOT, HAND = (31, 88, 160), (190, 40, 40), (20, 130, 60)
_TOLD = {
    "femur": ("neck_shaft_angle_deg", "anteversion_deg", "mldfa_deg", "offset_mm", "head_radius_mm", "length_mm"),
    "hip": ("inclination_deg", "anteversion_deg", "acetabulum_radius_mm", "pelvic_tilt_deg"),
    "tibia": ("mmpta_deg", "posterior_slope_deg", "tibial_torsion_deg", "length_mm", "hka_deg"),
    "skull": ("symmetry_rms_mm", "symmetric_pct"),
}
_MAIN = ("head_center", "greater_trochanter", "lesser_trochanter", "knee_center", "asis", "psis", "pubic_tubercle",
         "acetabulum_center", "plateau_center", "tuberosity", "ankle_center")  # fmt: skip
"""Named in a picture of many bones."""
_LINES = (("head_center", "knee_center"), ("head_center", "neck_center"), ("medial_epicondyle", "lateral_epicondyle"),
          ("posterior_medial_condyle", "posterior_lateral_condyle"), ("plateau_center", "ankle_center"),
          ("medial_plateau", "lateral_plateau"), ("medial_malleolus", "lateral_malleolus"), ("asis", "pubic_tubercle"),
          ("cruciate", "tendon_medial_border"))  # fmt: skip


def measured(meshes: Mapping[str, Mesh], found: Mapping[str, Anatomy], height: int = 1100) -> bytes:
    """A PNG of all bones from the front and from the left, as they lie, with landmarks, axes and a table of angles."""
    around = list(meshes.values())
    front = camera(around, "anterior", height)
    panels = [_panel(meshes, found, _cropped(around, view, front.mm_per_px)) for view in ("anterior", "left")]
    return canvas.png(canvas.beside([*panels, _table(found, max(panel.height for panel in panels))]))


def _cropped(around: list[Mesh], view: str, mm_per_px: float) -> Camera:
    """An eye of the same scale whose picture is as small as the bones and their words allow."""
    eye = camera(around, view, 100, mm_per_px=mm_per_px)
    points = np.concatenate([mesh.bounds[[[0, 0, 0], [1, 1, 1]], [0, 1, 2]] for mesh in around])
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    low, high = points.min(axis=0), points.max(axis=0)
    px = eye.to_pixel(low + corners * (high - low))
    across, down = np.ptp(px, axis=0)
    return camera(around, view, (int(down) + 70, max(int(across) + 190, 320)), mm_per_px=mm_per_px)


def _panel(meshes: Mapping[str, Mesh], found: Mapping[str, Anatomy], eye: Camera) -> Image.Image:
    layers = [(mesh, BONE, 1.0, None) for mesh in meshes.values()]
    image = Image.fromarray(render(layers, eye, samples=2, occlusion_mm=15.0, rays=32))
    for page in found.values():
        canvas.strokes(image, _axes(page, eye), AXIS, 2.0)
    words = []
    draw = ImageDraw.Draw(image)
    for page in found.values():
        radius = page.measures.get("head_radius_mm") or page.measures.get("acetabulum_radius_mm")
        for name, mark in page.landmarks.items():
            x, y = eye.to_pixel(mark.at_mm)[0]
            ink = HAND if "by hand" in mark.method else DOT
            draw.ellipse([x - 3.5, y - 3.5, x + 3.5, y + 3.5], fill=ink, outline=canvas.PAPER)
            if len(found) < 3 or name in _MAIN or ink == HAND:
                words.append((x, y, name.replace("_", " "), ink))
            if radius and name in ("head_center", "acetabulum_center"):
                r = radius / eye.mm_per_px
                draw.ellipse([x - r, y - r, x + r, y + r], outline=ink)
    _write_apart(image, words)
    canvas.orient(image, eye)
    canvas.scale_bar(image, eye.mm_per_px)
    return image


def _axes(page: Anatomy, eye: Camera) -> Array:
    """Lines between landmarks and along the shaft, (n,2,2) pixels."""
    marks = page.landmarks
    ends = [(marks[a].at_mm, marks[b].at_mm) for a, b in _LINES if a in marks and b in marks]
    if "shaft" in page.frames:
        pose = page.frames["shaft"]
        ends.append((pose.apply(np.array([0.0, 0.0, -110.0])), pose.apply(np.array([0.0, 0.0, 170.0]))))
    if "acetabulum" in page.frames:
        pose = page.frames["acetabulum"]
        ends.append((pose.origin_mm, pose.apply(np.array([0.0, 0.0, 45.0]))))
    if "midsagittal" in page.frames:
        pose = page.frames["midsagittal"]
        ends += [(pose.apply(-90.0 * way), pose.apply(90.0 * way)) for way in np.eye(3)[1:]]
    return np.array([eye.to_pixel(np.array(pair)) for pair in ends]).reshape(-1, 2, 2)


def _write_apart(image: Image.Image, words: list[tuple[float, float, str, tuple[int, int, int]]]) -> None:
    """Names beside their dots, moved down where they would lie on each other."""
    taken: list[tuple[float, float]] = []
    for x, y, text, ink in sorted(words, key=lambda word: (word[1], word[0])):
        right = x < image.width * 0.62
        at_x, at_y = (x + 9, y) if right else (x - 9, y)
        while any(abs(at_y - other_y) < 12 and abs(at_x - other_x) < 150 for other_x, other_y in taken):
            at_y += 3
        taken.append((at_x, at_y))
        canvas.write(image, (at_x, at_y), text, size=11, anchor="lm" if right else "rm", ink=ink)


def _table(found: Mapping[str, Anatomy], height: int) -> Image.Image:
    image = Image.new("RGB", (360, height), canvas.PAPER)
    y = 24
    for name, page in found.items():
        canvas.write(image, (12, y), name, size=16, anchor="lm", bold=True, halo=None)
        y += 24
        for key in _TOLD.get(name.partition("_")[0], ()):
            if key in page.measures:
                word, _, unit = key.rpartition("_")
                canvas.write(image, (20, y), word.replace("_", " "), size=14, anchor="lm", halo=None)
                canvas.write(image, (340, y), f"{page.measures[key]:.1f} {unit}", size=14, anchor="rm", halo=None)
                y += 20
        if page.refused:
            canvas.write(
                image, (20, y), f"refused: {len(page.refused)}", size=13, anchor="lm", halo=None, ink=(120, 120, 120)
            )
            y += 20
        y += 8
    return image
