"""From the form of a field to a solid of flat, turned and swept faces, and to a STEP file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from shapely import Polygon

from implantforge.core import Array, Field, GeometryError, InputError, Pose
from implantforge.core.field import Form
from implantforge.geom import shapes
from implantforge.stages.cad import skin, turned
from implantforge.stages.cad.skin import Spine

STAMP = "1980-01-01T00:00:00"
AROUND_MM = 2.0
"""Half-spaces end this far beyond the box of the whole."""
_TURNED = ("cone", "round_cone", "torus", "capsule")
_LINE = 1e-6
_COUNTED = re.compile(r"(NEXT_ASSEMBLY_USAGE_OCCURRENCE\()'\d+'")
_WORDS = {"samples": "sampled distances", "smooth_min": "a blend of two bodies", "smooth_max": "a rounded edge"}


def library() -> Any:
    """build123d; InputError says how to install it."""
    try:
        import build123d
    except ImportError as error:
        raise InputError(
            "STEP needs the optional extra cad (build123d): say pip install '.[cad]' in a clone of ImplantForge"
        ) from error
    return build123d


class NoFace(GeometryError):
    """No CAD face stands for a step of a form."""


def placed(shape: Any, pose: Pose) -> Any:
    """The solid carried by a rigid pose."""
    bd = library()
    at = bd.Plane(origin=tuple(pose.origin_mm), x_dir=tuple(pose.rotation[:, 0]), z_dir=tuple(pose.rotation[:, 2]))
    return shape.moved(bd.Location(at))


def write(path: Path, shape: Any) -> None:
    """Writes a solid as STEP AP214, mm; equal shapes give equal bytes."""
    bd = library()
    shape.label = path.stem
    path.parent.mkdir(parents=True, exist_ok=True)
    bd.export_step(shape, str(path), timestamp=STAMP)
    # the library counts what it has written since it was loaded
    path.write_text(_COUNTED.sub(r"\1'1'", path.read_text(encoding="ascii")), encoding="ascii")


def solid(field: Field, spine: Spine | None = None) -> Any:
    """The solid {field < 0} as a build123d Solid; with a spine, the blended body along it as one skin.

    GeometryError names the step of the form that no CAD face stands for.
    """
    bd = library()
    if spine is not None:
        return _checked(skin.solid(bd, field, spine, _turned))
    if field.form is None:
        raise NoFace("its shape has no form, only values")
    return _checked(_Walk(bd, np.array(field.bounds) + [[-AROUND_MM], [AROUND_MM]]).solid(field.form))


def _checked(shape: Any) -> Any:
    solids = shape.solids()
    if len(solids) != 1 or not solids[0].is_valid or not solids[0].volume > 0:
        raise GeometryError(f"cad: the shape came out as {len(solids)} solids, not one valid one")
    return solids[0]


@dataclass(frozen=True)
class _Axis:
    point: Array
    way: Array


class _Walk:
    """Depth first through a form: what turns about one axis is turned from its outline, the rest is joined or cut."""

    def __init__(self, bd: Any, box: Array) -> None:
        self.bd, self.box = bd, box

    def solid(self, form: Form) -> Any:
        """The solid of a form within the box."""
        axis = _axis(form)
        if axis is not None:
            return _turned(self.bd, _rebuilt(form), axis.point, axis.way, self.box)
        if form.step == "plane":
            return self.half(form)
        if form.step == "box":
            low, size = np.array(form.numbers[:3]), 2 * np.array(form.numbers[3:])
            return self.bd.Solid.make_box(*size).translate(tuple(low - size / 2))
        if form.step == "moved":
            return self.moved(form)
        if (outline := _outline(form)) is not None:
            return self.prism(outline)
        if form.step == "min":
            return self.joined(form)
        if form.step == "max":
            return self.common(form)
        raise NoFace(f"its shape is made with {_WORDS.get(form.step, form.step)}, for which there is no face")

    def joined(self, form: Form) -> Any:
        """Union of all that one run of unions joins."""
        first, *rest = [self.solid(part) for part in _flat(form, "min")]
        return first.fuse(*rest).clean() if rest else first

    def common(self, form: Form) -> Any:
        """What one run of intersections leaves: turned parts first, then planes, then what is taken away."""
        parts = _flat(form, "max")
        kept = [part for part in parts if part.step != "negative"]
        away = [part.parts[0] for part in parts if part.step == "negative"]
        out = None
        for group in sorted(kept, key=lambda row: row.step == "plane"):
            out = self.solid(group) if out is None else out & self.solid(group)
        if out is None:
            raise GeometryError("cad: a shape made of what is taken away alone")
        for part in away:
            out = out - self.solid(part)
        return out

    def half(self, form: Form) -> Any:
        """A half-space as a block that reaches over the box."""
        normal, level = np.array(form.numbers[:3]), form.numbers[3]
        middle = self.box.mean(axis=0)
        reach = float(np.linalg.norm(np.ptp(self.box, axis=0)))
        foot = middle + (level - middle @ normal) * normal
        plane = self.bd.Plane(origin=tuple(foot), z_dir=tuple(-normal))
        corner = -reach * (np.array(tuple(plane.x_dir)) + np.array(tuple(plane.y_dir)))
        return self.bd.Solid.make_box(2 * reach, 2 * reach, 2 * reach, plane).translate(tuple(corner))

    def prism(self, outline: Array) -> Any:
        """A closed outline (n,2), smooth, from the bottom of the box to its top."""
        low, high = self.box[:, 2]
        edge = self.bd.Edge.make_spline([(x, y, low) for x, y in outline], periodic=True)
        return self.bd.Solid.extrude(self.bd.Face(self.bd.Wire([edge])), self.bd.Vector(0.0, 0.0, high - low))

    def moved(self, form: Form) -> Any:
        """A part carried by a rigid pose."""
        pose = Pose(np.array(form.numbers[:9]).reshape(3, 3), np.array(form.numbers[9:12]))
        corners = np.array(np.meshgrid(*self.box.T)).reshape(3, -1).T
        own = pose.inverse_apply(corners)
        inner = _Walk(self.bd, np.array([own.min(axis=0), own.max(axis=0)])).solid(form.parts[0])
        return placed(inner, pose)


def _outline(form: Form) -> Array | None:
    """Points (n,2) of the outline that a form goes straight up from, grown or shrunk as the form says; None for others."""
    if form.step == "add" and (inner := _outline(form.parts[0])) is not None:
        grown = Polygon(inner).buffer(-form.numbers[0], quad_segs=64).exterior.segmentize(0.4)
        return np.asarray(grown.simplify(1e-4).segmentize(0.7).coords)[:-1]
    if form.step == "samples" and form.parts and form.parts[0].step == "prism":
        return np.array(form.parts[0].numbers).reshape(-1, 2)
    return None


def _flat(form: Form, step: str) -> list[Form]:
    """Parts of a run of one step, in order; those that turn about one axis together stay together."""
    if form.step != step or _axis(form) is not None:
        return [form]
    return [part for inner in form.parts for part in _flat(inner, step)]


def _rebuilt(form: Form) -> Field:
    """The field of a form that turns, in double precision."""
    n, parts = np.array(form.numbers), [_rebuilt(part) for part in form.parts]
    if form.step == "sphere":
        return shapes.sphere(n[:3], n[3])
    if form.step == "plane":
        return shapes.half_space(n[3] * n[:3], n[:3])
    if form.step == "torus":
        return shapes.torus(n[:3], n[3:6], n[7], n[8])
    if form.step in _TURNED:
        maker = {"cone": shapes.frustum, "round_cone": shapes.round_cone}.get(form.step)
        end = n[:3] + n[6] * n[3:6]
        return maker(n[:3], end, n[7], n[8]) if maker else shapes.capsule(n[:3], end, n[7])
    if form.step == "smooth_min":
        return shapes.smooth_union(parts[0], parts[1], n[0])
    if form.step == "smooth_max":
        return shapes.smooth_intersection(parts[0], parts[1], n[0])
    if form.step == "min":
        return parts[0] | parts[1]
    if form.step == "max":
        return parts[0] & parts[1]
    if form.step == "add":
        return parts[0].offset(-n[0])
    return parts[0].scaled(n[0] if form.step == "scale" else -1.0)


def _axis(form: Form) -> _Axis | None:
    """The axis about which a form turns, None when there is none or when it is a plane alone."""
    points, ways = _leaves(form)
    if points is None or not points:
        return None
    way = ways[0] if ways else np.array([0.0, 0.0, 1.0])
    for other in ways:
        if np.linalg.norm(np.cross(way, other)) > _LINE:
            return None
    for point in points:
        if np.linalg.norm(np.cross(point - points[0], way)) > 1e-5:
            return None
    return _Axis(points[0], way)


def _leaves(form: Form) -> tuple[list[Array] | None, list[Array]]:
    """Points that the axis goes through and ways it goes, of every leaf; None when a leaf does not turn."""
    n = np.array(form.numbers)
    if form.step == "sphere":
        return [n[:3]], []
    if form.step == "plane":
        return [], [n[:3]]
    if form.step in _TURNED:
        return [n[:3]], [n[3:6]]
    if form.step not in ("min", "max", "smooth_min", "smooth_max", "add", "negative", "scale"):
        return None, []
    points: list[Array] = []
    ways: list[Array] = []
    for part in form.parts:
        inner, own = _leaves(part)
        if inner is None:
            return None, []
        points, ways = points + inner, ways + own
    return points, ways


def _turned(bd: Any, field: Field, point: Array, way: Array, box: Array, low_mm: float | None = None,
            side: Array | None = None) -> Any:  # fmt: skip
    """The body of revolution that a field is within a box, about an axis; from low_mm up when given."""
    side = np.cross(way, np.eye(3)[int(np.abs(way).argmin())]) if side is None else side
    side /= np.linalg.norm(side)
    corners = np.array(np.meshgrid(*box.T)).reshape(3, -1).T - point
    along = corners @ way
    radius = float(np.linalg.norm(corners - along[:, None] * way, axis=1).max())
    pieces = turned.outline(
        lambda p: field(point + p[:, :1] * side + p[:, 1:] * way),
        radius, float(along.min()) if low_mm is None else low_mm, float(along.max()),
    )  # fmt: skip
    return _revolved(bd, pieces, point, side, way)


def _revolved(bd: Any, pieces: Sequence[turned.Piece], point: Array, side: Array, way: Array) -> Any:
    """The outline turned once round."""
    edges = []
    for piece in pieces:
        at = [tuple(point + r * side + t * way) for r, t in piece.points]
        if piece.kind == "line":
            edges.append(bd.Edge.make_line(*at))
        elif piece.kind == "arc":
            edges.append(bd.Edge.make_three_point_arc(*at))
        else:
            edges.append(bd.Edge.make_spline(at))
    face = bd.Face(bd.Wire(edges))
    return bd.Solid.revolve(face, 360.0, bd.Axis(tuple(point), tuple(way)))
