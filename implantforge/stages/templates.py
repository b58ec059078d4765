"""A maker's own implant as a folder: `template.toml` says what it is and where its datum frame lies, one closed mesh a size.

name = "Straight stem A"
kind = "stem"               # or "cup", "tray"
unit = "mm"
side = "both"               # or the one it is made for: nothing is mirrored; a size may say its own
cut_angle_deg = 45.0        # stems
[frame]                     # in the files' coordinates
origin = [0, 0, 0]          # stem: where the neck cut meets its axis; cup: middle of head and dome; tray: middle of the face
up = [0, 0, 1]              # stem: from the tip to the neck; cup: out of it; tray: off the bone
medial = [1, 0, 0]          # stem: toward the head; cup: front, toward the front spine; tray: posterior
[coat]                      # not of trays: those are coated under the plate
from_mm = -45.0             # along `up`
to_mm = -2.0
[[sizes]]
size = 1
file = "a1.stl"
head = [40, 0, 31]          # stem: centre of a head of neutral length, in the files' coordinates; cup: outer_mm = 52
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from scipy.spatial import ConvexHull

from implantforge.core import Array, InputError, Mesh, Pose
from implantforge.geom import measure, sections, solidfile
from implantforge.geom.inside import inside

FILE = "template.toml"
UNITS = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "inch": 25.4}
SUFFIXES = (".stl", ".3mf", ".ply", ".obj")
MOST_SIZES = 60
LONGEST_MM = {"stem": (70.0, 400.0), "cup": (34.0, 90.0), "tray": (50.0, 160.0)}
"""Longest side: short stems from 80, revision stems to 260 mm, neck and taper on top; cups 36-80 mm; trays 50-95 mm wide, or
as long as plate and stem."""
HEAD_MM = (5.0, 80.0)
"""A head's centre above the plane of the neck cut."""
COATS_MM = 400.0
DOME_MM = ((0.5, -0.4, 1.5), (0.75, -3.0, 0.6))
"""Depth over the radius, and how much narrower or wider than a ball of its diameter a cup's dome may be there: an
equator may be up to 1 mm wider, a pole flat."""
ASIDE_MM = 1.5
KEEL_MM = 90.0

_Point = tuple[float, float, float]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class _Coat(_Strict):
    from_mm: float = Field(ge=-COATS_MM, le=COATS_MM)
    to_mm: float = Field(ge=-COATS_MM, le=COATS_MM)


class _Frame(_Strict):
    origin: _Point = (0.0, 0.0, 0.0)
    up: _Point = (0.0, 0.0, 1.0)


class _StemFrame(_Frame):
    medial: _Point = (1.0, 0.0, 0.0)


class _CupFrame(_Frame):
    front: _Point = (1.0, 0.0, 0.0)


class _TrayFrame(_Frame):
    posterior: _Point = (0.0, 1.0, 0.0)


class _Size(_Strict):
    size: int = Field(ge=1, le=99)
    file: str
    side: Literal["both", "left", "right"] | None = None


class _StemSize(_Size):
    head: _Point


class _CupSize(_Size):
    outer_mm: float = Field(ge=36.0, le=80.0)


class _Page(_Strict):
    name: str = Field(min_length=1, max_length=80)
    kind: str
    unit: Literal["mm", "cm", "m", "inch"] = "mm"
    side: Literal["both", "left", "right"] = "both"


class _StemPage(_Page):
    cut_angle_deg: float = Field(45.0, ge=0.0, le=70.0)
    frame: _StemFrame = _StemFrame()
    coat: _Coat
    sizes: list[_StemSize] = Field(min_length=1, max_length=MOST_SIZES)


class _CupPage(_Page):
    frame: _CupFrame = _CupFrame()
    coat: _Coat
    sizes: list[_CupSize] = Field(min_length=1, max_length=MOST_SIZES)


class _TrayPage(_Page):
    frame: _TrayFrame = _TrayFrame()
    sizes: list[_Size] = Field(min_length=1, max_length=MOST_SIZES)


_OfKind = _StemPage | _CupPage | _TrayPage
PAGES: dict[str, type[_OfKind]] = {"stem": _StemPage, "cup": _CupPage, "tray": _TrayPage}


@dataclass(frozen=True, eq=False)
class Size:
    """One size in the implant's axes (z up; x medial, or toward the front spine, or patient-left), mm. head_mm of a stem,
    outer_mm (diameter) of a cup; row: how messages name it."""

    size: int
    side: str
    mesh: Mesh
    row: str
    head_mm: Array
    outer_mm: float = 0.0


@dataclass(frozen=True, eq=False)
class Template:
    """A maker's implant: sizes from small to large; coat_mm: lowest and highest z of the coat; sha256 of all its files."""

    name: str
    kind: str
    sizes: tuple[Size, ...]
    cut_angle_deg: float
    coat_mm: tuple[float, float]
    sha256: str

    def for_side(self, side: str, size: int | None = None) -> tuple[Size, ...]:
        """The sizes made for a side, or the one asked; InputError names those there are."""
        mine = tuple(one for one in self.sizes if one.side in ("both", side))
        if not mine:
            made = " and ".join(sorted({one.side for one in self.sizes}))
            raise InputError(f"template: {self.name} is made for the {made} side; this is the {side} one")
        if size is None:
            return mine
        if not (found := tuple(one for one in mine if one.size == size)):
            names = ", ".join(str(one.size) for one in mine)
            raise InputError(f"template: {self.name} has no size {size} for the {side} side (it has {names})")
        return found


def read(folder: Path, kind: str) -> Template:
    """The template of a folder, which must be of that kind. InputError, one line that names file and key: no such folder,
    another kind, an unknown key, a value that cannot be, a file outside the folder, a mesh that is open, crosses itself, is
    not in one piece or not in mm, axes that are not at right angles, sizes that do not grow. The last one read is kept while
    its files stay as they are."""
    return _read(folder, kind, sha256(folder, kind))


@lru_cache(maxsize=1)
def _read(folder: Path, kind: str, digest: str) -> Template:
    page = _page(folder, kind)
    frame, scale = _frame(page), UNITS[page.unit]
    sizes = []
    for row, at in _rows(page):
        mesh = _mesh(folder, row.file, frame, scale, page)
        head = frame.inverse_apply(np.array(row.head) * scale) if isinstance(row, _StemSize) else np.zeros(3)
        outer = row.outer_mm if isinstance(row, _CupSize) else 0.0
        one = Size(row.size, row.side or page.side, mesh, at, head, outer)
        LOOKS[page.kind](one, page)
        sizes.append(one)
    _grow(sizes)
    angle = page.cut_angle_deg if isinstance(page, _StemPage) else 0.0
    coat = (0.0, 0.0) if isinstance(page, _TrayPage) else (page.coat.from_mm, page.coat.to_mm)
    return Template(page.name, page.kind, tuple(sizes), angle, coat, digest)


def sha256(folder: Path, kind: str) -> str:
    """Of the page and of every mesh it names, in order of size; errors as in `read`."""
    names = [FILE, *(row.file for row, _ in _rows(_page(folder, kind)))]
    sums = [hashlib.sha256(_inside(folder, name).read_bytes()).hexdigest() for name in names]
    return hashlib.sha256("".join(sums).encode()).hexdigest()


def _no(at: str, what: str) -> InputError:
    return InputError(f"template: {FILE}: {at}: {what}")


def _page(folder: Path, kind: str) -> _OfKind:
    """The page with all that can be told without its meshes."""
    path = folder / FILE
    if not path.is_file():
        raise InputError(f"template: {folder} holds no {FILE}")
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"template: {path} is not TOML: {error}") from error
    found = given.get("kind")
    if found not in PAGES:
        raise _no("kind", f"{found!r} is none of {', '.join(PAGES)}")
    if found != kind:
        raise _no("kind", f"this is a {found}: say `implantforge build own_{found}`, or give a folder with a {kind}")
    try:
        page = PAGES[found](**given)
    except ValidationError as error:
        raise _no(*_fault(error.errors()[0], kind)) from error
    _rows(page)
    if not isinstance(page, _TrayPage) and not page.coat.from_mm < page.coat.to_mm:
        raise _no("coat", f"from_mm = {page.coat.from_mm:g} must lie below to_mm = {page.coat.to_mm:g}, along frame.up")
    _frame(page)
    return page


def _fault(first: Any, kind: str) -> tuple[str, str]:
    """Where on the page a value cannot be, and why, as a person would say it."""
    names = [f"row {part + 1}" if isinstance(part, int) else str(part) for part in first["loc"]]
    if isinstance(first["loc"][-1], int) and len(names) > 2:  # one of a point's coordinates
        return ".".join(names[:-1]), "needs three numbers, [x, y, z]"
    at, limits = ".".join(names), first.get("ctx", {})
    got = f", got {first['input']!r}" if isinstance(first["input"], (int, float, str)) else ""
    words = {
        "missing": f"is missing; every {kind} needs it",
        "extra_forbidden": f"is no key of a {kind}'s template",
        "literal_error": f"is none of {limits.get('expected', '')}{got}",
        "greater_than_equal": f"must be {limits.get('ge', 0):g} or more{got}",
        "less_than_equal": f"must be {limits.get('le', 0):g} or less{got}",
        "string_too_short": "must not be empty",
        "string_too_long": f"must have {limits.get('max_length', 0)} letters or fewer",
        "too_short": "needs at least one row", "too_long": f"has more than {limits.get('max_length', 0)} rows",
        "tuple_type": "needs three numbers, [x, y, z]" + got, "list_type": "needs rows, [[sizes]]" + got,
        "model_type": f"is a table, [{at}]{got}", "string_type": f"needs a text in quotes{got}",
    }  # fmt: skip
    whole = first["type"].startswith("int")
    return at, words.get(first["type"], f"needs a {'whole ' if whole else ''}number{got}")


def _rows(page: _OfKind) -> list[tuple[_Size, str]]:
    """The rows of `sizes` from small to large with how messages name them; none may stand twice."""
    seen: dict[tuple[object, str], str] = {}
    rows = [(row, f"sizes.row {number}") for number, row in enumerate(page.sizes, 1)]
    for row, at in rows:
        for side in ("left", "right") if (row.side or page.side) == "both" else (row.side or page.side,):
            for what, key in ((f"size {row.size}", row.size), (f"file {row.file!r}", row.file)):
                if (key, side) in seen:
                    raise _no(at, f"{what} stands in {seen[key, side]} already, for the {side} side; each stands once")
                seen[key, side] = at
    return sorted(rows, key=lambda found: found[0].size)


def _inside(folder: Path, name: str) -> Path:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise InputError(f"template: {name} lies outside the template's folder")
    if path.suffix.lower() not in (*SUFFIXES, ".toml"):
        raise InputError(f"template: {name} is none of {', '.join(SUFFIXES)} (write STEP as STL at 0.01 mm first)")
    if not path.is_file():
        raise InputError(f"template: {name} is not in {folder}")
    return path


def _frame(page: _OfKind) -> Pose:
    """Pose of the implant's axes in the files' coordinates, mm."""
    given = page.frame
    name = next(key for key in type(given).model_fields if key not in ("origin", "up"))
    up, second = np.array(given.up), np.array(getattr(given, name))
    lengths = np.linalg.norm(up), np.linalg.norm(second)
    if min(lengths) < 1e-9 or abs(up @ second) > 1e-3 * lengths[0] * lengths[1]:
        raise _no(
            "frame", f"up {given.up} and {name} {getattr(given, name)} must be at right angles, neither of no length"
        )
    z, way = up / lengths[0], second / lengths[1]
    x = np.cross(way, z) if name == "posterior" else way - (way @ z) * z
    x /= np.linalg.norm(x)
    return Pose(np.stack([x, np.cross(z, x), z], axis=1), np.array(given.origin) * UNITS[page.unit])


def _mesh(folder: Path, name: str, frame: Pose, scale: float, page: _OfKind) -> Mesh:
    vertices, faces, stated = solidfile.triangles(_inside(folder, name), "template")
    if stated is not None and UNITS.get(stated) != scale:
        raise InputError(
            f"template: {name} says it is in {stated}, the template says otherwise; give unit = {stated!r}"
        )
    spans, (low, high) = np.ptp(vertices, axis=0) * scale, LONGEST_MM[page.kind]
    if not low <= spans.max() <= high:
        raise InputError(
            f"template: {name} measures {' x '.join(f'{x:.4g}' for x in spans)} mm; the longest side of a {page.kind} is "
            f"{low:.0f}-{high:.0f} mm; {_other_unit(float(spans.max()), page)}"
        )
    mesh = solidfile.closed(name, Mesh(frame.inverse_apply(vertices * scale), faces), "template")
    if (pieces := len(measure.components(mesh)[1])) != 1:
        raise InputError(f"template: {name} is made of {pieces} pieces; a {page.kind} is one")
    return mesh


def _other_unit(longest_mm: float, page: _OfKind) -> str:
    """The unit in which a file would be of a fitting size."""
    low, high = LONGEST_MM[page.kind]
    fits = [unit for unit, scale in UNITS.items() if low <= longest_mm / UNITS[page.unit] * scale <= high]
    return f"check unit (unit = {fits[0]!r} would fit)" if fits else "check unit and file"


def _look_stem(one: Size, page: Any) -> None:
    low, high = one.mesh.bounds[:, 2]
    if not (low < -40.0 < 5.0 < high):
        raise _no("frame", f"size {one.size} reaches from {low:.0f} to {high:.0f} mm along frame.up; the origin is where "
                           "the neck cut meets the axis, most of the stem lies below it and the neck above")  # fmt: skip
    at, angle = f"{one.row}.head", np.radians(page.cut_angle_deg)
    above = float(one.head_mm @ [np.sin(angle), 0.0, np.cos(angle)])
    if one.head_mm[0] < 10.0 or abs(one.head_mm[1]) > 10.0:
        raise _no(at, f"lies at {one.head_mm.round(1).tolist()} mm in the stem's axes; it must lie medial of the stem; "
                      "check frame.medial and head")  # fmt: skip
    if not HEAD_MM[0] <= above <= HEAD_MM[1]:
        raise _no(at, f"lies {above:.1f} mm above the neck cut; heads lie {HEAD_MM[0]:.0f}-{HEAD_MM[1]:.0f} mm above it; "
                      "check head, frame.origin and cut_angle_deg")  # fmt: skip
    _meets(one, page, low, high)


def _look_cup(one: Size, page: Any) -> None:
    radius, (low, high) = one.outer_mm / 2.0, one.mesh.bounds[:, 2]
    if not (-radius - ASIDE_MM <= low <= -0.8 * radius and -0.3 * radius <= high <= 10.0):
        raise _no("frame", f"size {one.size} reaches from {low:.1f} to {high:.1f} mm along frame.up, where a cup of "
                           f"outer_mm = {one.outer_mm:g} reaches from {-radius:.1f} to about 0; the origin is the middle of "
                           "its dome, up points out of it; check frame, outer_mm and unit")  # fmt: skip
    for depth, least, most in DOME_MM:
        hull = _hull(one.mesh, -depth * radius)
        middle, wide = (hull.min(axis=0) + hull.max(axis=0)) / 2.0, float(np.ptp(hull, axis=0).mean()) / 2.0
        wanted = radius * (1.0 - depth**2) ** 0.5
        if np.linalg.norm(middle) > ASIDE_MM or not least <= wide - wanted <= most:
            raise _no(
                f"{one.row}.outer_mm",
                f"{depth * radius:.0f} mm under the origin the dome is {2 * wide:.1f} mm wide about "
                f"{middle.round(1).tolist()}; one of {one.outer_mm:g} mm is {2 * wanted:.1f} about the axis; check outer_mm "
                "and frame",
            )
    if inside(one.mesh, np.array([[0.0, 0.0, -0.3 * radius]]))[0]:
        raise _no(one.row, f"size {one.size} is solid where the liner goes; a cup is a shell")
    _meets(one, page, low, high)


def _look_tray(one: Size, page: Any) -> None:
    low, high = one.mesh.bounds[:, 2]
    face, under = (_area(one.mesh, z) for z in (0.3, -0.3))
    sound = 2.0 <= high <= 25.0 and face >= 800.0 and under <= 0.5 * face
    if sound and low < -KEEL_MM:
        raise _no(one.row, f"the keel of size {one.size} is {-low:.0f} mm long; {KEEL_MM:.0f} mm are taken at the most")
    if not sound or low >= 2.0:
        raise _no("frame", f"size {one.size} reaches from {low:.1f} to {high:.1f} mm along frame.up, with {face:.0f} mm2 of "
                           f"metal 0.3 mm above the origin and {under:.0f} as much below it; the origin lies on the face "
                           "that meets the bone, up points off it, and only the keel lies below")  # fmt: skip
    flat = outline(one.mesh)
    size, middle = np.ptp(flat, axis=0), (flat.min(axis=0) + flat.max(axis=0)) / 2.0
    if not (50.0 <= size[0] <= 95.0 and 30.0 <= size[1] <= size[0]) or np.abs(middle).max() > 5.0:
        raise _no("frame", f"the plate of size {one.size} measures {size[0]:.1f} mm across and {size[1]:.1f} along "
                           f"frame.posterior about {middle.round(1).tolist()}; trays are 50-95 mm wide, less deep, and the "
                           "origin is their middle; check frame and unit")  # fmt: skip


LOOKS: dict[str, Callable[[Size, _OfKind], None]] = {"stem": _look_stem, "cup": _look_cup, "tray": _look_tray}


def _meets(one: Size, page: Any, low: float, high: float) -> None:
    if page.coat.to_mm <= low or page.coat.from_mm >= high:
        raise _no("coat", f"{page.coat.from_mm:g} to {page.coat.to_mm:g} mm misses size {one.size}, which reaches from "
                          f"{low:.1f} to {high:.1f} mm along frame.up (always mm, whatever unit says)")  # fmt: skip


def _hull(mesh: Mesh, z_mm: float) -> Array:
    """Corners (n,2) of the convex hull of a level section."""
    segments, _ = sections.section(mesh, np.array([0.0, 0.0, z_mm]), np.array([0.0, 0.0, 1.0]))
    flat = segments.reshape(-1, 3)[:, :2]
    return np.asarray(flat[ConvexHull(flat).vertices])


def _area(mesh: Mesh, z_mm: float) -> float:
    """Metal in a level section, mm2."""
    return sum(loop.area_mm2 for loop in sections.loops(mesh, np.array([0.0, 0.0, z_mm]), np.array([0.0, 0.0, 1.0])))


def outline(mesh: Mesh, count: int = 360) -> NDArray[np.float64]:
    """The outer curve (count,2) of a plate where it is widest within 2.5 mm of the face that meets the bone (an edge may be
    rounded there), evenly spaced from the farthest along +x, anticlockwise."""
    up = np.array([0.0, 0.0, 1.0])
    found = [ring[:, :2] for z in (0.5, 1.5, 2.5) for ring in sections.rings(mesh, z * up, up)]
    ring = max(found, key=lambda points: float(np.prod(np.ptp(points, axis=0))))
    ring = np.roll(ring, -int(ring[:, 0].argmax()), axis=0)
    closed = np.vstack([ring, ring[:1]])
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    at = np.linspace(0.0, along[-1], count, endpoint=False)
    return np.stack([np.interp(at, along, closed[:, k]) for k in (0, 1)], axis=1)


def _grow(sizes: list[Size]) -> None:
    for side in ("left", "right"):
        mine = [one for one in sizes if one.side in ("both", side)]
        for small, large in pairwise(mine):
            a, b = small.mesh.volume_mm3, large.mesh.volume_mm3
            if b <= a or large.outer_mm < small.outer_mm:
                raise _no(
                    large.row, f"size {large.size} ({b:.0f} mm3) is no larger than size {small.size} ({a:.0f} mm3)"
                )
