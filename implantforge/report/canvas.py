"""Drawing on pictures: letters, scale bars, outlines, colour bars; PNG bytes that do not change from run to run."""

from __future__ import annotations

import base64
import io
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from implantforge.core import Array
from implantforge.geom.render import Camera

INK, PAPER = (32, 38, 46), (255, 255, 255)


@lru_cache(maxsize=16)
def font(size: int, bold: bool = False) -> Any:
    """DejaVu Sans (Latin and Cyrillic) as matplotlib carries it."""
    spec = find_spec("matplotlib")
    home = Path(str(spec.origin)).parent if spec and spec.origin else Path()
    file = home / "mpl-data/fonts/ttf" / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")
    return ImageFont.truetype(str(file), size) if file.is_file() else ImageFont.load_default(size)


def write(image: Image.Image, xy: tuple[float, float], text: str, *, size: int = 17, anchor: str = "mm",
          ink: tuple = INK, halo: tuple | None = PAPER, bold: bool = False) -> None:  # fmt: skip
    """Text with a halo, readable on light and dark."""
    ImageDraw.Draw(image).text(xy, text, font=font(size, bold), fill=ink, anchor=anchor, stroke_width=2 if halo else 0,
                              stroke_fill=halo)  # fmt: skip


def orient(image: Image.Image, eye: Camera, ink: tuple = INK, halo: tuple = PAPER) -> None:
    """Patient letters in the middle of the four edges."""
    width, height = image.size
    left, right, top, bottom = eye.letters
    for letters, xy in ((left, (16, height / 2)), (right, (width - 16, height / 2)), (top, (width / 2, 15)),
                        (bottom, (width / 2, height - 15))):  # fmt: skip
        write(image, xy, letters, size=19, ink=ink, halo=halo, bold=True)


def scale_bar(image: Image.Image, mm_per_px: float, ink: tuple = INK, halo: tuple = PAPER) -> None:
    """A bar of a round length, lower left, with its length in mm."""
    width, height = image.size
    length = max(n for n in (0.5, 1, 2, 5, 10, 20, 50, 100, 200) if n / mm_per_px <= width * 0.36 or n == 0.5)
    draw = ImageDraw.Draw(image)
    x, y, end = 12, height - 14, 12 + round(length / mm_per_px)
    draw.rectangle([x - 2, y - 4, end + 2, y + 4], fill=halo)
    draw.rectangle([x, y - 2, end, y + 2], fill=ink)
    write(image, ((x + end) / 2, y - 15), f"{length:g} mm", size=15, ink=ink, halo=halo)


def strokes(image: Image.Image, pieces_px: Array, ink: tuple[int, int, int], width: float = 1.6) -> None:
    """Straight pieces (n,2,2) in pixels, drawn smooth (three samples a pixel) over the picture."""
    if not len(pieces_px):
        return
    fine = 3
    cover = Image.new("L", (image.width * fine, image.height * fine))
    draw = ImageDraw.Draw(cover)
    for (xa, ya), (xb, yb) in (pieces_px * fine).tolist():
        draw.line((xa, ya, xb, yb), fill=255, width=round(width * fine))
    image.paste(ink, mask=cover.resize(image.size, Image.Resampling.BOX))


def colour_bar(
    height: int, table: NDArray, lo: float, hi: float, ticks: list[tuple[float, str]], title: str
) -> Image.Image:
    """An upright bar: table (n,3) uint8 from lo (below) to hi, ticks at (value, text)."""
    width, top, bar = 210, 44, 26
    image = Image.new("RGB", (width, height), PAPER)
    span = height - top - 24
    rows = np.clip(((1 - (np.arange(span) + 0.5) / span) * len(table)).astype(int), 0, len(table) - 1)
    image.paste(Image.fromarray(np.repeat(table[rows][:, None], bar, axis=1)), (14, top))
    draw = ImageDraw.Draw(image)
    draw.rectangle([13, top - 1, 14 + bar, top + span], outline=INK)
    write(image, (12, 18), title, size=16, anchor="lm", bold=True)
    for value, text in ticks:
        y = top + (1 - (value - lo) / (hi - lo)) * span
        draw.line((14 + bar, y, 22 + bar, y), fill=INK, width=2)
        write(image, (28 + bar, y), text, size=15, anchor="lm")
    return image


def beside(images: list[Image.Image], gap: int = 8) -> Image.Image:
    """Pictures in one row on white, tops level."""
    out = Image.new(
        "RGB", (sum(i.width for i in images) + gap * (len(images) - 1), max(i.height for i in images)), PAPER
    )
    x = 0
    for image in images:
        out.paste(image, (x, 0))
        x += image.width + gap
    return out


def png(image: Image.Image, colours: int | None = 256) -> bytes:
    """PNG bytes; with `colours` the palette is reduced (no dither), which halves the size unseen."""
    if colours:
        image = image.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


def uri(data: bytes) -> str:
    """A PNG as a data: address."""
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")
