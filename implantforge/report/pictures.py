"""The pictures of bone and implant in a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from implantforge.core import Array, Mesh
from implantforge.geom.render import Camera, Layer, camera, render
from implantforge.geom.viewing import GAP_STOPS, GapMap, coarse
from implantforge.report import canvas

BONE, BONE_2, TITANIUM = (0.93, 0.87, 0.74), (0.80, 0.84, 0.86), (0.66, 0.69, 0.74)
_FINE_FACES = 600_000

GAP_LO, GAP_HI = GAP_STOPS[0][0], GAP_STOPS[-1][0]
UNKNOWN = (0.72, 0.73, 0.75)


@dataclass(frozen=True)
class Picture:
    """PNG bytes, its size in pixels, what it shows (English, Ukrainian)."""

    png: bytes
    size: tuple[int, int]
    title: str
    title_uk: str
    note: str = ""

    @property
    def uri(self) -> str:
        """data: address for an <img>."""
        return canvas.uri(self.png)


def gap_table(count: int = 240) -> NDArray[np.uint8]:
    """Colours (count,3) from GAP_LO to GAP_HI."""
    at = np.linspace(GAP_LO, GAP_HI, count)
    stops = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for _, c in GAP_STOPS], float)
    where = [mm for mm, _ in GAP_STOPS]
    return np.column_stack([np.interp(at, where, stops[:, i]) for i in range(3)]).round().astype(np.uint8)


def gap_paint(gaps: GapMap) -> Callable[[Array], Array]:
    """Points (n,3) mm to colours 0..1; grey where no gap was measured."""
    table = gap_table() / 255.0

    def paint(points_mm: Array) -> Array:
        gap = gaps(points_mm)
        share = np.clip((np.nan_to_num(gap) - GAP_LO) / (GAP_HI - GAP_LO), 0, 1)
        colour = table[np.minimum((share * len(table)).astype(int), len(table) - 1)]
        return np.where(np.isnan(gap)[:, None], UNKNOWN, colour)

    return paint


def for_pictures(mesh: Mesh, px_mm: float) -> Mesh:
    """The mesh, or a coarse copy (a pixel wide) when it is very fine."""
    return mesh if len(mesh.faces) <= _FINE_FACES else coarse(mesh, px_mm)


def finish(image: NDArray[np.uint8], eye: Camera, title: str, title_uk: str, note: str = "") -> Picture:
    """Letters and a scale bar on a rendered picture."""
    picture = Image.fromarray(image)
    canvas.orient(picture, eye)
    canvas.scale_bar(picture, eye.mm_per_px)
    return Picture(canvas.png(picture), picture.size, title, title_uk, note)


Views = tuple[tuple[Array, Array], tuple[Array, Array]]
"""(look, up) from the front and from the outer side, where the patient's own will not do."""


def in_bone(part: Mesh, bones: Mapping[str, Mesh], side: str | None, views: Views | None = None) -> list[Picture]:
    """The implant inside see-through bone from the front and from the outer side."""
    host = _host(part, bones)
    lateral = side if side in ("left", "right") else "left"
    named = _named(views, lateral, "From the front", "Спереду", f"From the {lateral}", f"Збоку, {_SIDE_UK[lateral]}")
    lo, hi = part.bounds + np.array([[-28.0], [28.0]])
    seen = [m.vertices[((m.vertices > lo) & (m.vertices < hi)).all(axis=1)] for m in bones.values()]
    around = np.concatenate([part.vertices, *seen])
    out = []
    for view, title, title_uk in named:
        eye = camera(around, view, (780, 560), margin=0.05)
        layers: list[Layer] = [(part, TITANIUM, 1.0, None)]
        layers += [(m, BONE if n == host else BONE_2, 0.26 if n == host else 0.10, None) for n, m in bones.items()]
        out.append(finish(render(layers, eye, occlusion_mm=8), eye, title, title_uk))
    return out


def _named(
    views: Views | None, lateral: str, front: str, front_uk: str, outer: str, outer_uk: str
) -> tuple[tuple[str | tuple[Array, Array], str, str], ...]:
    """Both views with their titles; the component's own are said to be that."""
    if views is None:
        return ("anterior", front, front_uk), (lateral, outer, outer_uk)
    own, own_uk = " (along the component's axes)", " (за осями компонента)"
    return (views[0], front + own, front_uk + own_uk), (views[1], outer + own, outer_uk + own_uk)


def bones_only(bones: Mapping[str, Mesh], part: Mesh | None, side: str | None) -> list[Picture]:
    """The bones as segmented, opaque, from the front and the outer side."""
    lateral = side if side in ("left", "right") else "left"
    out = []
    for view, title, title_uk in (
        ("anterior", "Bones from the front", "Кістки спереду"),
        (lateral, f"Bones from the {lateral}", f"Кістки збоку, {_SIDE_UK[lateral]}"),
    ):
        eye = camera(list(bones.values()), view, (560, 460))
        out.append(finish(render([(m, BONE, 1.0, None) for m in bones.values()], eye), eye, title, title_uk))
    return out


_SIDE_UK = {"left": "ліворуч", "right": "праворуч"}


SIGMA_MM = 0.3


def uncertainty(bones: Mapping[str, tuple[Mesh, Array]], side: str | None) -> list[Picture]:
    """The bones' surfaces by their standard deviation: pale where it is small, red from SIGMA_MM up."""
    lateral = side if side in ("left", "right") else "left"
    pale, red = np.array([0.88, 0.88, 0.85]), np.array([0.80, 0.10, 0.10])
    table = (255 * (pale + np.linspace(0, 1, 240)[:, None] * (red - pale))).round().astype(np.uint8)
    layers: list[Layer] = []
    for mesh, sigma in bones.values():
        share = np.clip(sigma / SIGMA_MM, 0.0, 1.0)[:, None]
        layers.append((mesh, BONE, 1.0, pale + share * (red - pale)))
    out = []
    for view, title, title_uk in (
        ("anterior", "Uncertainty of the bone surface, from the front", "Невизначеність поверхні кістки, спереду"),
        (lateral, f"The same from the {lateral}", f"Те саме збоку, {_SIDE_UK[lateral]}"),
    ):
        eye = camera([layer[0] for layer in layers], view, (560, 460))
        image = Image.fromarray(render(layers, eye))
        canvas.orient(image, eye)
        canvas.scale_bar(image, eye.mm_per_px)
        ticks = [(t, f"{t:.1f} mm") for t in (0.0, 0.1, 0.2, 0.3)]
        whole = canvas.beside([image, canvas.colour_bar(image.height, table, 0.0, SIGMA_MM, ticks, "1 σ")])
        out.append(Picture(canvas.png(whole), whole.size, title, title_uk))
    return out


def _host(part: Mesh, bones: Mapping[str, Mesh]) -> str:
    """The bone whose box shares most with the implant's."""

    def shared(mesh: Mesh) -> float:
        width = np.minimum(mesh.bounds[1], part.bounds[1]) - np.maximum(mesh.bounds[0], part.bounds[0])
        return float(np.prod(np.clip(width, 0, None)))

    return max(bones, key=lambda n: shared(bones[n]), default="")


def alone(part: Mesh, side: str | None, views: Views | None = None) -> list[Picture]:
    """The implant from the front and the outer side, at one scale."""
    lateral = side if side in ("left", "right") else "left"
    named = _named(views, lateral, "Implant, from the front", "Імплант спереду", f"Implant, from the {lateral}",
                   f"Імплант збоку, {_SIDE_UK[lateral]}")  # fmt: skip
    height = 620
    scale = max(camera([part], view, (height, 330)).mm_per_px for view, _, _ in named)
    out = []
    for view, title, title_uk in named:
        eye = camera([part], view, (height, 330), mm_per_px=scale)
        out.append(finish(render([(part, TITANIUM, 1.0, None)], eye, occlusion_mm=6), eye, title, title_uk))
    return out


def close_up(part: Mesh, side: str | None, width_mm: float = 11.0) -> Picture | None:
    """The porous coat, large; None when no part of the surface is much denser than a smooth one."""
    cell, size = 5.0, (620, 330)
    step = max(len(part.faces) // 400_000, 1)  # where the coat lies needs no more
    a, b, c = (part.vertices[part.faces[::step, i]] for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2 * step
    area[area > 0.4 * step] = 0.0  # a wide face is no coat, and would count in one cell only
    index = np.floor((a - part.bounds[0]) / cell).astype(np.int64)
    shape = tuple(index.max(axis=0) + 1)
    per_cell = np.bincount(np.ravel_multi_index(tuple(index.T), shape), area)
    if per_cell.max() < 2.2 * cell**2:
        return None
    dense = np.flatnonzero(per_cell > 0.6 * per_cell.max())
    target = np.median(np.column_stack(np.unravel_index(dense, shape)), axis=0) * cell + part.bounds[0] + cell / 2
    view = side if side in ("left", "right") else "anterior"
    eye = camera(target[None], view, size, mm_per_px=width_mm / size[1])
    from_target = part.vertices - target
    near = np.abs(from_target @ eye.right) < width_mm * 0.6
    near &= np.abs(from_target @ eye.up) < width_mm * 1.1
    near &= from_target @ eye.look < 2.0  # the near half; the far one is never seen
    crop = part.faces[near[part.faces].any(axis=1)]
    if not len(crop):
        return None
    used, faces = np.unique(crop, return_inverse=True)
    piece = Mesh(part.vertices[used], faces.reshape(-1, 3).astype(np.int32))
    image = render([(piece, TITANIUM, 1.0, None)], eye, occlusion_mm=2.0, rays=32)
    return finish(image, eye, "Porous coat, close", "Пористе покриття зблизька")


def heat_map(
    part: Mesh, gaps: GapMap, side: str | None, limit_mm: float | None, rotation: Array | None = None
) -> Picture:
    """The implant coloured by its gap to cortex, from four sides, with a bar in mm; with the rotation of a component on cut
    bone by its gap to that, seen from where its bone faces show."""
    outer = side if side in ("left", "right") else "left"
    inner = {"left": "right", "right": "left"}[outer]
    views: list[tuple[str | tuple[Array, Array], str]] = [
        ("anterior", "front"), ("posterior", "back"), (inner, f"from the {inner}"), (outer, f"from the {outer}"),
    ]  # fmt: skip
    to, to_uk, rest = "cortex", "кортикальною кісткою", "neck and parts outside the bone"
    if rotation is not None:
        left, back, up = rotation.T
        views = [
            ((-up, -back), "from above"),
            ((up, -back), "from below"),
            ((-back, up), "back"),
            ((back, up), "front"),
        ]
        to, to_uk, rest = "the cut bone", "розпиляною кісткою", "faces that no cut bone carries"
    size, paint = (560, 215), gap_paint(gaps)
    scale = max(camera([part], v, size, margin=0.09).mm_per_px for v, _ in views)
    images = []
    for view, title in views:
        eye = camera([part], view, size, mm_per_px=scale)
        image = Image.fromarray(render([(part, TITANIUM, 1.0, paint)], eye, occlusion_mm=0))
        left, right, top, _ = eye.letters
        for letter, x in ((left, 12), (right, size[1] - 12)):
            canvas.write(image, (x, size[0] / 2), letter, size=18, bold=True)
        canvas.write(image, (size[1] / 2, 14), top, size=18, bold=True)
        canvas.write(image, (size[1] / 2, size[0] - 12), title, size=15)
        images.append(image)
    canvas.scale_bar(images[0], scale)
    ticks = [(-1.0, "≤ −1.0"), (-0.5, "−0.5 overlap"), (0.0, "0 contact"), (0.5, "0.5"), (1.0, "1.0"), (1.5, "1.5 gap"),
             (2.0, "≥ 2.0")]  # fmt: skip
    if limit_mm is not None and GAP_LO < limit_mm < GAP_HI:
        ticks = [t for t in ticks if abs(t[0] - limit_mm) > 0.2] + [(limit_mm, f"{limit_mm:g} limit")]
    images.append(canvas.colour_bar(size[0], gap_table(), GAP_LO, GAP_HI, ticks, f"mm to {to.removeprefix('the ')}"))
    whole = canvas.beside(images)
    return Picture(
        canvas.png(whole),
        whole.size,
        f"Gap between implant and {to}",
        f"Зазор між імплантом і {to_uk}",
        f"All four views at one scale; the implant is {part.bounds[1, 2] - part.bounds[0, 2]:.0f} mm high. "
        f"Grey: not measured ({rest}).",
    )
