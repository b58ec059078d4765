"""Planned bone cuts: CT sections square to the component with every cut drawn and its depth beside it, and a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from implantforge.core import Array, Mesh, Volume
from implantforge.geom.render import Camera, camera
from implantforge.report import canvas
from implantforge.report.pictures import Picture
from implantforge.report.slices import BLACK, LEVEL_INK, WHITE, section
from implantforge.report.words import label, number, ukrainian

SPAN_MM, SIZE, REACH_MM = 130.0, 620, 44.0
"""Side of a picture; how far a cut is drawn from its own point."""


class Cut(NamedTuple):
    """A planned cut: its name, the bone, a point and the normal out of the bone that stays, patient LPS mm; what it takes
    of the medial and of the lateral side (None: not told)."""

    name: str
    bone: str
    point_mm: Array
    normal: Array
    medial_mm: float | None
    lateral_mm: float | None


def planned(fit: Mapping[str, Any]) -> list[Cut]:
    """The cuts of a fit.json, in order; none where the plan cuts no planes."""
    rows = (fit.get("params") or {}).get("cuts") or ()
    return [Cut(str(r["name"]), str(r.get("bone", "")), np.array(r["point_mm"], float), np.array(r["normal"], float),
                r.get("removed_medial_mm"), r.get("removed_lateral_mm")) for r in rows
            if isinstance(r, Mapping) and len(r.get("point_mm", ())) == 3 and len(r.get("normal", ())) == 3]  # fmt: skip


def axes(fit: Mapping[str, Any]) -> tuple[Array, Array] | None:
    """Rotation (columns left, posterior, superior) and origin of the component that the pictures are square to."""
    pose = fit.get("pose") or {}
    rotation, origin = np.array(pose.get("rotation", ()), float), np.array(pose.get("origin_mm", ()), float)
    return (rotation, origin) if rotation.shape == (3, 3) and origin.shape == (3,) else None


def views(rotation: Array, side: str | None) -> dict[str, tuple[Array, Array]]:
    """(look, up) by name: from the front, from the outer side, from below."""
    left, back, up = rotation.T
    return {"front": (back, up), "outer": (left if side == "right" else -left, up), "below": (up, -back)}


def pictures(
    run_fit: Mapping[str, Any], ct: Volume, part: Mesh, bones: Mapping[str, Mesh], side: str | None
) -> list[Picture]:
    """The front view through the condyles, both condyles from the outer side, and the view from below."""
    frame, rows = axes(run_fit), planned(run_fit)
    if frame is None or not rows:
        return []
    rotation, origin = frame
    eyes, lateral = views(rotation, side), 1.0 if side == "left" else -1.0
    aside, behind = 18.0 * lateral * rotation[:, 0], 8.0 * rotation[:, 1]
    kinds = (
        ("Square to the component, from the front", "Перпендикулярно до компонента, спереду", "front", behind),
        ("The same through the medial condyle", "Через медіальний виросток", "outer", -aside),
        ("The same through the lateral condyle", "Через латеральний виросток", "outer", aside),
        ("From below, 20 mm above the joint", "Знизу, 20 мм над суглобом", "below", 20.0 * rotation[:, 2]),
    )
    out = []
    for title, title_uk, view, off in kinds:
        look, up = eyes[view]
        eye = camera((origin + off)[None], (look, up), (SIZE, SIZE), mm_per_px=SPAN_MM / SIZE)
        image = section(ct, part, bones, eye)
        sides = {"front": lateral, "below": lateral}.get(view)
        draw(image, eye, rows, None if sides is None else sides * rotation[:, 0])
        if sides is not None:
            _sides(image, eye, sides * rotation[:, 0])
        canvas.orient(image, eye, WHITE, BLACK)
        canvas.scale_bar(image, eye.mm_per_px, WHITE, BLACK)
        out.append(Picture(canvas.png(image, 128), image.size, title, title_uk))
    return out


def draw(image: Image.Image, eye: Camera, rows: list[Cut], lateral: Array | None) -> None:
    """Each cut that stands square to the picture as a line with its name; with `lateral` (unit vector) what it takes stands
    at its medial and at its lateral end."""
    taken: list[Array] = []
    for row in rows:
        along = np.cross(row.normal, eye.look)
        if np.linalg.norm(along) < 0.9 or (lateral is not None and abs(row.normal @ lateral) > 0.5):
            continue
        along = along / np.linalg.norm(along)
        # the point of the cut nearest its own, in the plane of the picture
        slope = row.normal - (row.normal @ eye.look) * eye.look
        far = (eye.centre_mm - row.point_mm) @ eye.look
        at = row.point_mm + far * (eye.look - (row.normal @ eye.look) / (slope @ slope) * slope)
        ends = at + np.array([[-REACH_MM], [REACH_MM]]) * along * (1.0 if lateral is not None else 0.5)
        pixels = eye.to_pixel(ends)
        canvas.strokes(image, pixels[None], LEVEL_INK, 1.5)
        names = [row.name if lateral is None else "", ""]
        if lateral is not None:
            order = np.argsort((ends - at) @ lateral)
            for place, value in ((order[0], row.medial_mm), (order[1], row.lateral_mm)):
                names[place] = "" if value is None else f"{value:.1f}"
            names[order[1]] = f"{row.name} {names[order[1]]}".strip()
        for end, name in zip(pixels, names):
            if name:
                _label(image, end, name, taken)


def _sides(image: Image.Image, eye: Camera, lateral: Array) -> None:
    """The words medial and lateral at the edges they belong to."""
    right = bool(eye.right @ lateral > 0)
    for word, at_right in (("lateral", right), ("medial", not right)):
        x, anchor = (image.width - 6, "rm") if at_right else (6, "lm")
        canvas.write(image, (x, image.height / 2 + 24), word, size=15, anchor=anchor, ink=WHITE, halo=BLACK)


def _label(image: Image.Image, at: Array, text: str, taken: list[Array]) -> None:
    """Text near a place, inside the picture, below what stands there already."""
    half = canvas.font(15, True).getlength(text) / 2
    x = float(np.clip(at[0], half + 4, image.width - half - 4))
    y = float(np.clip(at[1] - 12, 40, image.height - 40))
    while any(abs(x - other[0]) < half + other[2] and abs(y - other[1]) < 17 for other in taken):
        y += 17
    taken.append(np.array([x, y, half]))
    canvas.write(image, (x, y), text, size=15, ink=LEVEL_INK, halo=BLACK, bold=True)


def table(fit: Mapping[str, Any]) -> list[dict[str, str]]:
    """Rows of cuts and gaps: name, medial, lateral, difference, all in mm; empty without cuts."""
    metrics = fit.get("metrics") or {}
    pairs = [(row.name, row.medial_mm, row.lateral_mm) for row in planned(fit)]
    pairs += [(f"gap in {way}", metrics.get(f"gap_{way}_medial_mm"), metrics.get(f"gap_{way}_lateral_mm"))
              for way in ("extension", "flexion")]  # fmt: skip
    return [
        {"name": label(name), "uk": ukrainian(name.replace(" ", "_")), "medial": number(medial, "mm"),
         "lateral": number(lateral, "mm"), "off": number(medial - lateral, "mm")}
        for name, medial, lateral in pairs if medial is not None and lateral is not None
    ]  # fmt: skip
