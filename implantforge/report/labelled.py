"""One picture of a segmented scan: the bones in colour, where their surface is uncertain, and their outlines on slices."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw
from skimage.measure import marching_cubes

from implantforge.core import Array, Labels, Mesh, Volume
from implantforge.geom import sections
from implantforge.geom.render import Camera, camera, render
from implantforge.geom.viewing import plane_hu
from implantforge.report import canvas
from implantforge.report.slices import BLACK, WHITE, grey

SIZE = 560
LARGEST_SIGMA_MM = 0.3
_METAL_INK = (0.20, 0.30, 0.90)
_INKS = ((0.91, 0.76, 0.44), (0.45, 0.72, 0.86), (0.80, 0.56, 0.76), (0.52, 0.79, 0.56), (0.93, 0.58, 0.50),
         (0.62, 0.62, 0.83), (0.86, 0.84, 0.52), (0.50, 0.80, 0.78))  # fmt: skip


def picture(
    volume: Volume, surfaces: Mapping[str, Mesh], labels: Labels, sigma_mm: Mapping[str, Array] | None = None
) -> bytes:
    """PNG: bones from the front and from behind, their sigma where given, and three slices with their outlines.

    Labels without a surface (metal, bones that were not parted) are drawn from their voxels.
    """
    bodies = dict(surfaces) | {
        name: _voxels(labels, name) for name in sorted(labels.names) if name not in surfaces and labels.mask(name).any()
    }
    inks = {name: _METAL_INK if name == "metal" else _INKS[n % len(_INKS)] for n, name in enumerate(sorted(bodies))}
    through = 0.3 if "metal" in bodies else 1.0  # metal lies within bone
    layers = [(mesh, inks[name], 1.0 if name == "metal" else through, None) for name, mesh in bodies.items()]
    top = [_titled(Image.fromarray(render(layers, view, SIZE)), camera(list(bodies.values()), view, SIZE), view)
           for view in ("anterior", "posterior")]  # fmt: skip
    if sigma_mm:
        painted = [
            (mesh, (0.8, 0.8, 0.8), 1.0, _heat(sigma_mm[name])) for name, mesh in surfaces.items() if name in sigma_mm
        ]
        eye = camera([layer[0] for layer in painted], "anterior", SIZE)
        image = Image.fromarray(render(painted, eye))
        top.append(_titled(image, eye, f"1 sigma: grey 0, red {LARGEST_SIGMA_MM:g} mm and more"))
    top.append(_legend(inks))
    middle = np.concatenate([mesh.bounds for mesh in bodies.values()]).mean(axis=0)
    below = [_slice(volume, bodies, inks, middle, view) for view in ("anterior", "left", "inferior")]
    rows = [canvas.beside(top), canvas.beside(below)]
    out = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows) + 8), canvas.PAPER)
    out.paste(rows[0], (0, 0))
    out.paste(rows[1], (0, rows[0].height + 8))
    return canvas.png(out)


def _heat(sigma_mm: Array) -> Array:
    """Colours (n,3) from grey to red."""
    share = np.clip(sigma_mm / LARGEST_SIGMA_MM, 0.0, 1.0)[:, None]
    return (1.0 - share) * np.array([0.85, 0.85, 0.83]) + share * np.array([0.85, 0.12, 0.10])


def _voxels(labels: Labels, name: str) -> Mesh:
    """A rough surface of a label's voxels."""
    soft = np.pad(labels.mask(name), 1).astype(np.float32)
    vertices, faces, _, _ = marching_cubes(soft, 0.5, gradient_direction="ascent", step_size=1)
    return Mesh(labels.grid.to_patient(vertices - 1.0), faces)


def _slice(
    volume: Volume, bodies: Mapping[str, Mesh], inks: Mapping[str, tuple[float, float, float]], at_mm: Array, view: str
) -> Image.Image:
    """The CT through at_mm with the outline of every bone."""
    eye = camera(np.concatenate([mesh.bounds for mesh in bodies.values()]), view, SIZE)
    eye = Camera(at_mm, eye.right, eye.up, eye.look, eye.mm_per_px, eye.size)
    image = Image.fromarray(grey(plane_hu(volume, at_mm, eye.right, eye.up, eye.mm_per_px, eye.size)))
    for name, mesh in bodies.items():
        pieces = sections.section(mesh, at_mm, eye.look)[0]
        pixels = eye.to_pixel(pieces.reshape(-1, 3)).reshape(-1, 2, 2)
        red, green, blue = (round(255 * share) for share in inks[name])
        canvas.strokes(image, pixels, (red, green, blue), 1.3)
    canvas.orient(image, eye, WHITE, BLACK)
    canvas.scale_bar(image, eye.mm_per_px, WHITE, BLACK)
    return image


def _titled(image: Image.Image, eye: Camera, text: str) -> Image.Image:
    canvas.orient(image, eye)
    canvas.scale_bar(image, eye.mm_per_px)
    canvas.write(image, (8, 36), text, size=16, anchor="lm", bold=True)
    return image


def _legend(inks: Mapping[str, tuple[float, float, float]]) -> Image.Image:
    image = Image.new("RGB", (190, SIZE), canvas.PAPER)
    draw = ImageDraw.Draw(image)
    for n, (name, ink) in enumerate(inks.items()):
        y = 24 + 30 * n
        draw.rectangle([8, y - 9, 28, y + 9], fill=tuple(round(255 * share) for share in ink))
        canvas.write(image, (38, y), name, size=16, anchor="lm")
    return image
