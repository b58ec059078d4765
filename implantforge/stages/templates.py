"""A maker's own implant as a folder: `template.toml` says what it is and where its datum frame lies, one closed mesh a size.

name = "Straight stem A"
kind = "stem"
unit = "mm"
side = "both"               # or the one it is made for: nothing is mirrored
cut_angle_deg = 45.0
[frame]                     # in the files' coordinates
origin = [0, 0, 0]          # where the neck cut meets the stem's axis
up = [0, 0, 1]              # from the tip to the neck
medial = [1, 0, 0]          # toward the head
[coat]
from_mm = -45.0             # along `up`
to_mm = -2.0
[[sizes]]
size = 1
file = "a1.stl"
head = [40, 0, 31]          # centre of a head of neutral length, in the files' coordinates
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from implantforge.core import Array, InputError, Mesh, Pose
from implantforge.geom import measure, solidfile

FILE = "template.toml"
UNITS = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "inch": 25.4}
SUFFIXES = (".stl", ".3mf", ".ply", ".obj")
MOST_SIZES = 60
STEM_MM = (70.0, 400.0)
"""Longest side of a stem: short stems from 80, revision stems to 260 mm, neck and taper on top."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


_Point = tuple[float, float, float]


class _Frame(_Strict):
    origin: _Point = (0.0, 0.0, 0.0)
    up: _Point = (0.0, 0.0, 1.0)
    medial: _Point = (1.0, 0.0, 0.0)


class _Coat(_Strict):
    from_mm: float
    to_mm: float


class _Size(_Strict):
    size: int = Field(ge=1, le=99)
    file: str
    head: _Point


class _Page(_Strict):
    name: str = Field(min_length=1, max_length=80)
    kind: str
    unit: str = "mm"
    side: str = "both"
    cut_angle_deg: float = Field(45.0, ge=0.0, le=70.0)
    frame: _Frame = _Frame()
    coat: _Coat
    sizes: list[_Size] = Field(min_length=1, max_length=MOST_SIZES)


@dataclass(frozen=True, eq=False)
class Size:
    """One size in the implant's axes (x medial, z up, origin where the neck cut meets the axis), mm."""

    size: int
    mesh: Mesh
    head_mm: Array


@dataclass(frozen=True, eq=False)
class Template:
    """A maker's stem: the side it is for, sizes from small to large; coat_mm: lowest and highest z that is coated; sha256
    of all its files."""

    name: str
    side: str
    sizes: tuple[Size, ...]
    cut_angle_deg: float
    coat_mm: tuple[float, float]
    sha256: str

    def of(self, size: int) -> Size:
        """The size of that number; InputError names those there are."""
        for one in self.sizes:
            if one.size == size:
                return one
        raise InputError(
            f"template: {self.name} has no size {size} (it has {', '.join(str(s.size) for s in self.sizes)})"
        )


def read(folder: Path) -> Template:
    """The template of a folder. InputError, one line: no such folder, an unknown key, a file outside the folder, a mesh that
    is open, crosses itself, is not in one piece or not in mm, axes that are not at right angles, sizes that do not grow.
    The last one read is kept while its files stay as they are."""
    return _read(folder, sha256(folder))


@lru_cache(maxsize=1)
def _read(folder: Path, digest: str) -> Template:
    page = _page(folder)
    if page.kind != "stem":
        raise InputError(f"template: kind = {page.kind!r}; only 'stem' can be planned")
    if page.unit not in UNITS:
        raise InputError(f"template: unit = {page.unit!r}; units are {', '.join(UNITS)}")
    if page.side not in ("both", "left", "right"):
        raise InputError(f"template: side = {page.side!r}; it is both, left or right")
    if not page.coat.from_mm < page.coat.to_mm:
        raise InputError(f"template: coat from {page.coat.from_mm} to {page.coat.to_mm} mm is empty")
    frame, scale = _frame(page.frame, UNITS[page.unit]), UNITS[page.unit]
    sizes = tuple(
        Size(row.size, _mesh(folder, row.file, frame, scale), frame.inverse_apply(np.array(row.head) * scale))
        for row in sorted(page.sizes, key=lambda row: row.size)
    )
    _grow(sizes)
    for one in sizes:
        if one.head_mm[0] < 10.0 or abs(one.head_mm[1]) > 10.0:
            raise InputError(f"template: size {one.size}: the head lies at {one.head_mm.round(1).tolist()} mm in the stem's "
                             "axes; it must lie medial of the stem; check frame.medial and head")  # fmt: skip
    return Template(page.name, page.side, sizes, page.cut_angle_deg, (page.coat.from_mm, page.coat.to_mm), digest)


def sha256(folder: Path) -> str:
    """Of the page and of every mesh it names, in order of size; errors as in `read`."""
    page = _page(folder)
    names = [FILE, *(row.file for row in sorted(page.sizes, key=lambda row: row.size))]
    sums = [hashlib.sha256(_inside(folder, name).read_bytes()).hexdigest() for name in names]
    return hashlib.sha256("".join(sums).encode()).hexdigest()


def _page(folder: Path) -> _Page:
    path = folder / FILE
    if not path.is_file():
        raise InputError(f"template: {folder} holds no {FILE}")
    try:
        return _Page(**tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"template: {path} is not TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        raise InputError(f"template: {path.name}: {at}: {str(first['msg']).lower()}") from error


def _inside(folder: Path, name: str) -> Path:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise InputError(f"template: {name} lies outside the template's folder")
    if path.suffix.lower() not in (*SUFFIXES, ".toml"):
        raise InputError(f"template: {name} is none of {', '.join(SUFFIXES)} (write STEP as STL at 0.01 mm first)")
    if not path.is_file():
        raise InputError(f"template: {name} is not in {folder}")
    return path


def _frame(given: _Frame, scale: float) -> Pose:
    up, medial = np.array(given.up), np.array(given.medial)
    lengths = np.linalg.norm(up), np.linalg.norm(medial)
    if min(lengths) < 1e-9 or abs(up @ medial) > 1e-3 * lengths[0] * lengths[1]:
        raise InputError(f"template: frame.up {given.up} and frame.medial {given.medial} must be at right angles")
    z, x = up / lengths[0], medial / lengths[1]
    x = x - (x @ z) * z
    x /= np.linalg.norm(x)
    return Pose(np.stack([x, np.cross(z, x), z], axis=1), np.array(given.origin) * scale)


def _mesh(folder: Path, name: str, frame: Pose, scale: float) -> Mesh:
    vertices, faces, stated = solidfile.triangles(_inside(folder, name), "template")
    if stated is not None and UNITS.get(stated) != scale:
        raise InputError(
            f"template: {name} says it is in {stated}, the template says otherwise; give unit = {stated!r}"
        )
    mesh = solidfile.closed(name, Mesh(frame.inverse_apply(vertices * scale), faces), "template")
    _sound(name, mesh)
    return mesh


def _sound(name: str, mesh: Mesh) -> None:
    if (pieces := len(measure.components(mesh)[1])) != 1:
        raise InputError(f"template: {name} is made of {pieces} pieces; a stem is one")
    size = np.ptp(mesh.bounds, axis=0)
    if not STEM_MM[0] <= size.max() <= STEM_MM[1]:
        raise InputError(f"template: {name} measures {' x '.join(f'{x:.4g}' for x in size)} mm; a stem is "
                         f"{STEM_MM[0]:.0f}-{STEM_MM[1]:.0f} mm long; check unit")  # fmt: skip
    low, high = mesh.bounds[:, 2]
    if not (low < -40.0 < 5.0 < high):
        raise InputError(f"template: {name} reaches from {low:.0f} to {high:.0f} mm along frame.up; the origin is where the "
                         "neck cut meets the axis, most of the stem lies below it and the neck above")  # fmt: skip


def _grow(sizes: tuple[Size, ...]) -> None:
    if len({one.size for one in sizes}) != len(sizes):
        raise InputError("template: two sizes have the same number")
    volumes = [one.mesh.volume_mm3 for one in sizes]
    for small, large, a, b in zip(sizes, sizes[1:], volumes, volumes[1:]):
        if b <= a:
            raise InputError(
                f"template: size {large.size} ({b:.0f} mm3) is no larger than size {small.size} ({a:.0f} mm3)"
            )
