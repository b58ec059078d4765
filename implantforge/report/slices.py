"""CT sections with the exact outline of the implant drawn on them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from implantforge.core import Array, Mesh, Volume
from implantforge.geom import sections
from implantforge.geom.render import Camera, camera
from implantforge.geom.viewing import own_plane, plane_hu
from implantforge.report import canvas
from implantforge.report.pictures import Picture

WINDOW_HU, LEVEL_HU = 2400.0, 600.0
IMPLANT_INK, BONE_INK, LEVEL_INK = (255, 150, 30), (70, 200, 215), (245, 245, 130)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
_OUTSIDE = 66


def grey(hu: Array) -> NDArray[np.uint8]:
    """The bone window; a flat dark blue-grey where there is no scan is added by the caller through NaN."""
    share = (hu - (LEVEL_HU - WINDOW_HU / 2)) / WINDOW_HU
    out = np.where(np.isnan(hu), _OUTSIDE, np.clip(share, 0, 1) * 255)
    return np.repeat(out.round().astype(np.uint8)[..., None], 3, axis=2)


def section(ct: Volume, part: Mesh | None, bones: Mapping[str, Mesh], eye: Camera) -> Image.Image:
    """The CT in the plane of the eye, outlines of bones (thin) and of the implant on top."""
    image = Image.fromarray(grey(plane_hu(ct, eye.centre_mm, eye.right, eye.up, eye.mm_per_px, eye.size)))
    meshes = [(m, BONE_INK, 1.3) for m in bones.values()] + ([(part, IMPLANT_INK, 1.7)] if part else [])
    for mesh, ink, width in meshes:
        pieces = sections.section(mesh, eye.centre_mm, eye.look)[0]
        pixels = eye.to_pixel(pieces.reshape(-1, 3)).reshape(-1, 2, 2)
        inside = ((pixels > -20) & (pixels < [eye.size[1] + 20, eye.size[0] + 20])).all(axis=(1, 2))
        canvas.strokes(image, pixels[inside], ink, width)
    return image


def _dress(image: Image.Image, eye: Camera, label: str = "") -> None:
    canvas.orient(image, eye, WHITE, BLACK)
    canvas.scale_bar(image, eye.mm_per_px, WHITE, BLACK)
    if label:
        canvas.write(image, (8, 14), label, size=16, anchor="lm", ink=LEVEL_INK, halo=BLACK, bold=True)


def centre(part: Mesh) -> Array:
    """The point that the three planes share: the middle of the surface, which lies on the axis of a stem."""
    return np.median(part.vertices[:: max(len(part.vertices) // 200_000, 1)], axis=0)


def planes(ct: Volume, part: Mesh, light: Mesh, bones: Mapping[str, Mesh], levels_mm: Array) -> list[Picture]:
    """Coronal and sagittal through the implant, then its own plane when it is long (slices follow it), or axial.
    light is a coarse copy of the part, to aim with; outlines are those of the part itself."""
    middle = centre(part)
    span = part.bounds[1] - part.bounds[0]
    scale = float(max(span[2] + 36, 90.0) / 620)
    tall, wide = 620, round((max(span[0], span[1]) + 60) / scale)
    kinds: list[tuple[str, str, str | tuple[Array, Array]]] = [
        ("Coronal", "Корональна", "anterior"), ("Sagittal", "Сагітальна", "left"),
    ]  # fmt: skip
    own = own_plane(light)
    if own:
        turn = np.degrees(np.arccos(min(abs(float(own[0][1])), 1.0)))
        kinds.append(
            (f"Implant's own plane ({turn:.0f}° from coronal)", f"Площина імпланта ({turn:.0f}° до корональної)", own)
        )
    out = []
    for title, title_uk, view in kinds:
        found = camera([light], view, (tall, wide), mm_per_px=scale)
        eye = _through(found, middle)
        image = section(ct, part, bones, eye)
        if view == "anterior":
            _levels(image, eye, levels_mm)
        _dress(image, eye)
        out.append(Picture(canvas.png(image, 128), image.size, title, title_uk))
    if own is None:
        eye = camera(middle[None], "inferior", (tall, tall), mm_per_px=scale)
        image = section(ct, part, bones, eye)
        _dress(image, eye)
        out.append(Picture(canvas.png(image, 128), image.size, "Axial", "Аксіальна"))
    return out


def _through(eye: Camera, point: Array) -> Camera:
    """The same eye with its picture plane moved along the view to hold the point."""
    moved = eye.centre_mm + eye.look * ((point - eye.centre_mm) @ eye.look)
    return Camera(moved, eye.right, eye.up, eye.look, eye.mm_per_px, eye.size)


def _levels(image: Image.Image, eye: Camera, levels_mm: Array) -> None:
    """Ticks and numbers of the axial slices at the right edge."""
    for number, z in enumerate(levels_mm, 1):
        y = float(eye.to_pixel(np.array([[*eye.centre_mm[:2], z]]))[0, 1])
        ends = np.array([[[image.width - 22, y], [image.width, y]]])
        canvas.strokes(image, ends, LEVEL_INK, 2)
        canvas.write(image, (image.width - 32, y), str(number), size=15, ink=LEVEL_INK, halo=BLACK, bold=True)


def levels(part: Mesh, count: int = 6) -> Array:
    """Heights z (mm, top first) of axial slices spread over the implant, away from its ends."""
    lo, hi = part.bounds[:, 2]
    return hi - (np.arange(count) + 0.6) / (count + 0.2) * (hi - lo)


def axial(ct: Volume, part: Mesh, bones: Mapping[str, Mesh], levels_mm: Array) -> list[Picture]:
    """Slices along the implant, seen from the feet, 64 mm wide, centred on it."""
    out, size, scale = [], 320, 64 / 320
    top = part.bounds[1, 2]
    for number, z in enumerate(levels_mm, 1):
        pieces = sections.section(part, np.array([0, 0, z]), np.array([0.0, 0, 1]))[0]
        at = (
            (pieces.reshape(-1, 3).min(axis=0) + pieces.reshape(-1, 3).max(axis=0)) / 2 if len(pieces) else centre(part)
        )
        eye = camera(np.array([[at[0], at[1], z]]), "inferior", (size, size), mm_per_px=scale)
        image = section(ct, part, bones, eye)
        _dress(image, eye, f"{number}")
        below = f"{top - z:.0f} mm below the top of the implant"
        out.append(Picture(canvas.png(image, 96), image.size, f"{number}: {below}", "", ""))
    return out
