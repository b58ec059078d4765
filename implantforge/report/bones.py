"""Bones with their landmarks, axes and angles as one picture, drawn without OpenGL."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from implantforge.core import Anatomy, Array, Mesh
from implantforge.geom.render import Camera, camera, render
from implantforge.report import canvas

BONE = (0.93, 0.89, 0.80)
AXIS, DOT, HAND, ANGLE, LEAD = (31, 88, 160), (190, 40, 40), (20, 130, 60), (120, 40, 150), (120, 120, 120)
MARGIN_PX, ARC_MM = 215, 24.0
_TOLD = {
    "femur": ("neck_shaft_angle_deg", "anteversion_deg", "mldfa_deg", "offset_mm", "head_radius_mm", "length_mm"),
    "hip": ("inclination_deg", "anteversion_deg", "acetabulum_radius_mm", "pelvic_tilt_deg"),
    "tibia": ("mmpta_deg", "posterior_slope_deg", "tibial_torsion_deg", "length_mm"),
    "skull": ("symmetry_rms_mm", "symmetric_pct"),
    "leg": ("hka_deg", "leg_length_mm", "joint_line_convergence_deg"),
    "pelvis": ("leg_length_difference_mm", "hip_centres_apart_mm"),
}
_MAIN = ("head_center", "greater_trochanter", "lesser_trochanter", "knee_center", "asis", "psis", "pubic_tubercle",
         "acetabulum_center", "plateau_center", "tuberosity", "ankle_center")  # fmt: skip
"""Named in a picture of many bones."""
_LINES = (("head_center", "knee_center"), ("head_center", "neck_center"), ("medial_epicondyle", "lateral_epicondyle"),
          ("posterior_medial_condyle", "posterior_lateral_condyle"), ("plateau_center", "ankle_center"),
          ("medial_plateau", "lateral_plateau"), ("medial_malleolus", "lateral_malleolus"), ("asis", "pubic_tubercle"),
          ("distal_medial_condyle", "distal_lateral_condyle"), ("cruciate", "tendon_medial_border"),
          ("porion_left", "porion_right"), ("porion_left", "orbitale_left"), ("porion_right", "orbitale_right"))  # fmt: skip


SAYS = ("Numbers are true angles in space or in the plane of their definition, ± one sigma with the raters' scatter of "
        "landmarks. An arc is drawn in its own plane: where that is not across the line of sight it looks narrower or "
        "wider; where it is edge-on it is left out.",)  # fmt: skip
_LOOKS: dict[str, dict[str, Any]] = {
    "head": {"size": 16, "bold": True},
    "row": {"size": 14},
    "note": {"size": 12, "ink": LEAD},
}
Corner = tuple[Array, Array, Array, float]
"""Where (LPS mm), the two ways that enclose an angle, and the measure in degrees."""
Numbers = Mapping[str, Mapping[str, float]]


def measured(meshes: Mapping[str, Mesh], found: Mapping[str, Anatomy], height: int = 1100, legs: Numbers | None = None,
             sigmas: Numbers | None = None, said: tuple[str, ...] = ()) -> bytes:  # fmt: skip
    """A PNG of all bones from the front and from the left, as they are given, with landmarks, axes, a legend and a table.

    legs: measures of several bones together (`leg_left`, ...); sigmas: one sigma of measures, by bone; said: lines of text
    under the legend. Angles are written as measured; their arcs are drawn in their own plane.
    """
    around = list(meshes.values())
    front = camera(around, "anterior", height)
    legs, sigmas = legs or {}, sigmas or {}
    panels = [_panel(meshes, found, _cropped(around, view, front.mm_per_px), legs) for view in ("anterior", "left")]
    table = _table(found, legs, sigmas, said, max(panel.height for panel in panels))
    # all colours: a palette loses those of a few dots
    return canvas.png(canvas.beside([*panels, table]), None)


def _cropped(around: list[Mesh], view: str, mm_per_px: float) -> Camera:
    """An eye of the same scale whose picture holds the bones and a margin for names on either side."""
    eye = camera(around, view, 100, mm_per_px=mm_per_px)
    points = np.concatenate([mesh.bounds[[[0, 0, 0], [1, 1, 1]], [0, 1, 2]] for mesh in around])
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    low, high = points.min(axis=0), points.max(axis=0)
    px = eye.to_pixel(low + corners * (high - low))
    across, down = np.ptp(px, axis=0)
    return camera(around, view, (int(down) + 70, int(across) + 2 * MARGIN_PX), mm_per_px=mm_per_px)


def _panel(meshes: Mapping[str, Mesh], found: Mapping[str, Anatomy], eye: Camera, legs: Numbers) -> Image.Image:
    layers = [(mesh, BONE, 1.0, None) for mesh in meshes.values()]
    image = Image.fromarray(render(layers, eye, samples=2, occlusion_mm=15.0, rays=32))
    corners = [corner for page in found.values() for corner in _angles(page) if _faces(corner, eye)]
    for page in found.values():
        canvas.strokes(image, _axes(page, eye), AXIS, 2.0)
    canvas.strokes(image, _arcs(corners, eye), ANGLE, 2.0)
    words = []
    draw = ImageDraw.Draw(image)
    twice = {name.partition("_")[0] for name in found if name.endswith("_left") and f"{name[:-4]}right" in found}
    for bone, page in found.items():
        radius = page.measures.get("head_radius_mm") or page.measures.get("acetabulum_radius_mm")
        side = f" {bone[len(bone.partition('_')[0]) + 1].upper()}" if bone.partition("_")[0] in twice else ""
        for name, mark in page.landmarks.items():
            x, y = eye.to_pixel(mark.at_mm)[0]
            ink = HAND if "by hand" in mark.method else DOT
            if radius and name in ("head_center", "acetabulum_center"):
                r = radius / eye.mm_per_px
                draw.ellipse([x - r, y - r, x + r, y + r], outline=ink)
            draw.ellipse([x - 3.5, y - 3.5, x + 3.5, y + 3.5], fill=ink, outline=canvas.PAPER)
            if len(found) < 3 or name in _MAIN or ink == HAND:
                words.append((x, y, name.replace("_", " ") + side, ink))
    _write_beside(image, words)
    taken = [Box(x - 5.0, y - 5.0, x + 5.0, y + 5.0) for page in found.values() for mark in page.landmarks.values()
             for x, y in eye.to_pixel(mark.at_mm)]  # fmt: skip
    if eye.letters[0] == "R":
        _write_knees(image, found, legs, eye, taken)
    _write_angles(image, corners, eye, taken)
    canvas.orient(image, eye)
    canvas.scale_bar(image, eye.mm_per_px)
    return image


class Box(NamedTuple):
    """Left, top, right and bottom in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        """Whether the two share a pixel."""
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.bottom <= other.top or other.bottom <= self.top)


def _write_free(image: Image.Image, text: str, at: Array, way: Array, taken: list[Box]) -> None:
    """A measure in the first place from `at` along `way` (pixels) where it lies on nothing taken, which it then takes; where
    100 pixels hold none, where it lies on least."""
    left, top, right, bottom = canvas.font(14, True).getbbox(text, anchor="mm")
    way = way / max(float(np.linalg.norm(way)), 1e-9)
    places = [at + step * way for step in range(0, 101, 4)]
    boxes = [Box(x + left - 3, y + top - 3, x + right + 3, y + bottom + 3) for x, y in places]
    met = [sum(box.meets(other) for other in taken) for box in boxes]
    best = int(np.argmin(met))
    taken.append(boxes[best])
    canvas.write(image, (float(places[best][0]), float(places[best][1])), text, size=14, bold=True, ink=ANGLE)


def _write_knees(
    image: Image.Image, found: Mapping[str, Anatomy], legs: Numbers, eye: Camera, taken: list[Box]
) -> None:
    """The hip-knee-ankle angle beside each knee, on its inner side; of two legs each with its letter."""
    both = all("hka_deg" in legs.get(f"leg_{side}", {}) for side in ("left", "right"))
    for side, inward in (("left", -1.0), ("right", 1.0)):
        femur, page = found.get(f"femur_{side}"), legs.get(f"leg_{side}", {})
        if femur is None or "hka_deg" not in page or "knee_center" not in femur.landmarks:
            continue
        at = eye.to_pixel(femur.at("knee_center") + [inward * 78.0, 0.0, 30.0])[0]
        letter = f" {side[0].upper()}" if both else ""
        _write_free(image, f"HKA{letter} {page['hka_deg']:.0f}°", at, np.array([0.0, -1.0]), taken)


def _write_angles(image: Image.Image, corners: list[Corner], eye: Camera, taken: list[Box]) -> None:
    """The degrees of each corner outside its arc; none lies on another or on what is taken already."""
    for middle, one, other, degrees in corners:
        way = one / np.linalg.norm(one) + other / np.linalg.norm(other)
        at = eye.to_pixel(middle + ARC_MM * way / max(float(np.linalg.norm(way)), 1e-9))[0]
        out = at - eye.to_pixel(middle)[0]
        at = at + 22.0 * out / max(float(np.linalg.norm(out)), 1e-9)
        _write_free(image, f"{degrees:.0f}°", at, out, taken)


def _axes(page: Anatomy, eye: Camera) -> Array:
    """Lines between landmarks and along the shaft, (n,2,2) pixels."""
    marks = page.landmarks
    ends = [(marks[a].at_mm, marks[b].at_mm) for a, b in _LINES if a in marks and b in marks]
    if "shaft" in page.frames:
        pose = page.frames["shaft"]
        corner = _neck_corner(page)
        top = pose.apply(np.array([0.0, 0.0, 170.0])) if corner is None else corner[0]
        ends.append((pose.apply(np.array([0.0, 0.0, -110.0])), top))
        if corner is not None:
            ends.append((marks["head_center"].at_mm, corner[0] + corner[1]))
    if "acetabulum" in page.frames:
        pose = page.frames["acetabulum"]
        ends.append((pose.origin_mm, pose.apply(np.array([0.0, 0.0, 45.0]))))
    if "midsagittal" in page.frames:
        pose = page.frames["midsagittal"]
        ends += [(pose.apply(-90.0 * way), pose.apply(90.0 * way)) for way in np.eye(3)[1:]]
    return np.array([eye.to_pixel(np.array(pair)) for pair in ends]).reshape(-1, 2, 2)


def _neck_corner(page: Anatomy) -> tuple[Array, Array] | None:
    """Where the neck axis passes the shaft axis: the point of the shaft, and the way from it to the neck axis."""
    marks = page.landmarks
    if "head_center" not in marks or "neck_center" not in marks or "shaft" not in page.frames:
        return None
    shaft = page.frames["shaft"]
    up, head = shaft.rotation[:, 2], marks["head_center"].at_mm
    neck = marks["neck_center"].at_mm - head
    both = np.column_stack([up, -neck])
    along, far = np.linalg.lstsq(both, head - shaft.origin_mm, rcond=None)[0]
    at = shaft.origin_mm + along * up
    return at, head + far * neck - at


def _angles(page: Anatomy) -> list[Corner]:
    """Corners to mark: where (LPS mm), the two ways that enclose the angle, and the measure in degrees."""
    marks, out = page.landmarks, []

    def between(middle: str, one: tuple[str, str], other: tuple[str, str], measure: str) -> None:
        if {middle, *one, *other} <= set(marks) and measure in page.measures:
            a, b = (marks[end].at_mm - marks[start].at_mm for start, end in (one, other))
            out.append((marks[middle].at_mm, a, b, page.measures[measure]))

    corner = _neck_corner(page)
    if corner is not None and "neck_shaft_angle_deg" in page.measures:
        neck = marks["head_center"].at_mm - marks["neck_center"].at_mm
        out.append((corner[0], neck, -page.frames["shaft"].rotation[:, 2], page.measures["neck_shaft_angle_deg"]))
    between("knee_center", ("knee_center", "head_center"), ("distal_medial_condyle", "distal_lateral_condyle"),
            "mldfa_deg")  # fmt: skip
    between("plateau_center", ("plateau_center", "ankle_center"), ("lateral_plateau", "medial_plateau"), "mmpta_deg")
    frame = page.frames.get("app", page.frames.get("pelvis"))
    if frame is not None and "acetabulum" in page.frames and "inclination_deg" in page.measures:
        socket, behind = page.frames["acetabulum"], frame.rotation[:, 1]
        # radiographic: as it looks from the front
        way = socket.rotation[:, 2] - (socket.rotation[:, 2] @ behind) * behind
        out.append((socket.origin_mm, way, -frame.rotation[:, 2], page.measures["inclination_deg"]))
    return out


def _faces(corner: Corner, eye: Camera) -> bool:
    """Whether the plane of an angle lies nearly across the line of sight, so that what is drawn looks like the angle."""
    middle, one, other, _ = corner
    normal = np.cross(one, other)
    frame = np.linalg.svd(normal[None] / max(float(np.linalg.norm(normal)), 1e-9))[2][1:]
    (ax, ay), (bx, by) = (eye.to_pixel(middle + way)[0] - eye.to_pixel(middle)[0] for way in frame)
    return bool(abs(ax * by - ay * bx) * eye.mm_per_px**2 > 0.75)


def _arcs(corners: list[Corner], eye: Camera) -> Array:
    """Arcs of ARC_MM between the ways of each corner, as (n,2,2) pixels."""
    pieces = []
    for middle, one, other, _ in corners:
        a, b = one / np.linalg.norm(one), other / np.linalg.norm(other)
        turn = float(np.arccos(np.clip(a @ b, -1.0, 1.0)))
        side = b - (b @ a) * a
        side = side / max(float(np.linalg.norm(side)), 1e-9)
        t = np.linspace(0.0, turn, 25)[:, None]
        px = eye.to_pixel(middle + ARC_MM * (np.cos(t) * a + np.sin(t) * side))
        pieces.append(np.stack([px[:-1], px[1:]], axis=1))
    return np.concatenate(pieces) if pieces else np.zeros((0, 2, 2))


def _write_beside(image: Image.Image, words: list[tuple[float, float, str, tuple[int, int, int]]]) -> None:
    """Names in a column on either side, each joined to its dot by a thin line; none lies on another."""
    sides = sorted(words, key=lambda word: word[0])
    half = len(sides) // 2
    for left, mine in ((True, sides[:half]), (False, sides[half:])):
        mine = sorted(mine, key=lambda word: (word[1], word[0]))
        levels = spaced(np.array([word[1] for word in mine]), 34.0, image.height - 62.0, 15.0)
        at_x = MARGIN_PX - 22.0 if left else image.width - MARGIN_PX + 22.0
        lead = at_x + (4.0 if left else -4.0)
        lines = [[[lead, level], [x, y]] for (x, y, _, _), level in zip(mine, levels)]
        canvas.strokes(image, np.array(lines).reshape(-1, 2, 2), LEAD, 0.8)
        for (_, _, text, ink), level in zip(mine, levels):
            canvas.write(image, (at_x, float(level)), text, size=12, anchor="rm" if left else "lm", ink=ink)


def spaced(levels: Array, low: float, high: float, gap: float) -> Array:
    """Sorted levels moved as little as a push needs, so that none is nearer to the next than `gap` (less where there is no
    room) and all lie from low to high."""
    if not len(levels):
        return levels
    gap = min(gap, (high - low) / max(len(levels) - 1, 1))
    steps = gap * np.arange(len(levels))
    # between neighbours `gap` apart: the nearest levels that do not fall, by pooling those that would
    pools: list[list[float]] = []
    for value in (levels - steps).tolist():
        pools.append([value, 1.0])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            mean, count = pools.pop()
            before, many = pools.pop()
            pools.append([(before * many + mean * count) / (many + count), many + count])
    flat = np.concatenate([np.full(int(count), mean) for mean, count in pools])
    out: Array = flat.clip(low, high - steps[-1]) + steps
    return out


def _table(
    found: Mapping[str, Anatomy], legs: Numbers, sigmas: Numbers, said: tuple[str, ...], height: int
) -> Image.Image:
    """Measures with one sigma, bone by bone, what was refused by name, the legend, and what else is to be said."""
    rows: list[tuple[str, str, str]] = []
    pages = [(name, page.measures, page) for name, page in found.items()] + [
        (name, page, None) for name, page in legs.items()
    ]
    for name, measures, page in pages:
        rows.append(("head", name.replace("_", " "), ""))
        known = sigmas.get(name, {})
        for key in _TOLD.get(name.partition("_")[0], ()):
            if key in measures:
                word, _, unit = key.rpartition("_")
                sure = f" ± {known[key]:.1f}" if key in known else ""
                rows.append(("row", word.replace("_", " "), f"{measures[key]:.1f}{sure} {unit}"))
        if page is not None and page.refused:
            names = ", ".join(key.replace("_", " ") for key in page.refused)
            rows += [("note", line, "") for line in textwrap.wrap(f"refused: {names}", 50)]
    legend = [("dot", DOT, "landmark found by the program"), ("dot", HAND, "landmark set by a person"),
              ("ring", DOT, "sphere of head or socket"), ("line", AXIS, "axes and lines between landmarks"),
              ("line", ANGLE, "angle, in its own plane")]  # fmt: skip
    text = [line for words in (*said, *SAYS) for line in textwrap.wrap(words, 50)]
    tall = (
        24
        + sum({"head": 32, "row": 20, "note": 17}[kind] for kind, _, _ in rows)
        + 20 * len(legend)
        + 17 * len(text)
        + 40
    )
    image = Image.new("RGB", (400, max(height, tall)), canvas.PAPER)
    y = 24
    for kind, left, right in rows:
        y += 8 if kind == "head" and y > 24 else 0
        look = _LOOKS[kind]
        canvas.write(image, (12 if kind == "head" else 20, y), left, anchor="lm", halo=None, **look)
        if right:
            canvas.write(image, (388, y), right, size=14, anchor="rm", halo=None)
        y += {"head": 24, "row": 20, "note": 17}[kind]
    y += 14
    draw = ImageDraw.Draw(image)
    for kind, ink, words in legend:
        if kind == "dot":
            draw.ellipse([22, y - 4, 30, y + 4], fill=ink)
        elif kind == "ring":
            draw.ellipse([20, y - 6, 32, y + 6], outline=ink)
        else:
            draw.line((16, y, 36, y), fill=ink, width=3)
        canvas.write(image, (46, y), words, size=12, anchor="lm", halo=None)
        y += 20
    for line in text:
        canvas.write(image, (20, y), line, size=12, anchor="lm", halo=None, ink=LEAD)
        y += 17
    return image
