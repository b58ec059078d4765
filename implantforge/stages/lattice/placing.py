"""Where the cells of a lattice lie and what changes from place to place: charts, coordinates and ramps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from implantforge.core import Array, Field, GeometryError, Grade, InputError, Lattice, Pose
from implantforge.geom import shapes
from implantforge.stages.lattice.solving import middle_asked, only, solve

LEAST_STRETCH, MOST_STRETCH = 0.5, 2.0  # of a cell's edge by a placement, at 98 of 100 points of the region
GRADED = ("wall_mm", "porosity", "cell_mm")
PARTS = 8  # pieces a graded stretch between two knots is solved in
# which coordinate cells may grow along, by placement
ALONG = {"cartesian": "along", "cylindrical": "axis", "spherical": "point", "conformal": "depth"}


@dataclass(frozen=True, eq=False)
class Chart:
    """Coordinates that cells lie along. pose has its z axis along the lattice's axis; radius_mm is where arcs are true;
    surface, for conformal, is what depths are under; phase (k,2) carries the first coordinate to lengths of cells."""

    placement: str
    pose: Pose
    radius_mm: float
    surface: Field
    phase: Array | None = None

    def read(self, points_mm: Array) -> Array:
        """Lattice coordinates (n,3) mm of points (n,3) mm."""
        x, y, z = self.pose.inverse_apply(points_mm).T
        if self.placement == "cartesian":
            out = np.stack([z, x, y], axis=1) if self.phase is not None else np.array(points_mm, np.float64)
        else:
            r, up = np.hypot(x, y), z
            first = r
            if self.placement == "spherical":
                first, up = np.hypot(r, z), self.radius_mm * np.arctan2(z, r)
            elif self.placement == "conformal":
                first = -self.surface.evaluate(points_mm)
            out = np.stack([first, self.radius_mm * np.arctan2(y, x), up], axis=1)
        if self.phase is not None:
            out[:, 0] = _line(out[:, 0], self.phase[:, 0], self.phase[:, 1])
        return out

    def place(self, coordinates: Array) -> Array:
        """Points (n,3) mm of lattice coordinates; NaN where there is no such point."""
        c = np.array(coordinates, np.float64)
        if self.phase is not None:
            c[:, 0] = _line(c[:, 0], self.phase[:, 1], self.phase[:, 0])
        if self.placement == "cartesian":
            return self.pose.apply(c[:, [1, 2, 0]]) if self.phase is not None else c
        angle = c[:, 1] / self.radius_mm
        way = np.stack([np.cos(angle), np.sin(angle), np.zeros(len(c))], axis=1)
        if self.placement == "spherical":
            tilt = c[:, 2] / self.radius_mm
            out = c[:, :1] * (way * np.cos(tilt)[:, None] + np.sin(tilt)[:, None] * [0, 0, 1])
            out[(np.abs(tilt) > np.pi / 2) | (c[:, 0] < 0)] = np.nan
            return self.pose.apply(out)
        level = c[:, 2:] * [0.0, 0.0, 1.0]
        if self.placement == "cylindrical":
            out = c[:, :1] * way + level
            out[c[:, 0] < 0] = np.nan
            return self.pose.apply(out)
        return self._at_depth(way, level, c[:, 0])

    def _at_depth(self, way: Array, level: Array, depth: Array) -> Array:
        """Points at a depth under the surface on rays from the axis, the outermost of each ray."""
        far = float(np.linalg.norm(np.ptp(self.surface.bounds, axis=0)))
        radii = np.linspace(far, 0.0, 160)
        low, high = np.full(len(way), np.nan), np.full(len(way), np.nan)
        before = None
        for r in radii:
            value = self.surface.evaluate(self.pose.apply(r * way + level)) + depth
            if before is not None:
                new = (before > 0) & (value <= 0) & np.isnan(low)
                low[new], high[new] = r, r + radii[0] - radii[1]
            before = value
        for _ in range(24):
            middle = 0.5 * (low + high)
            inside = self.surface.evaluate(self.pose.apply(middle[:, None] * way + level)) + depth <= 0
            low, high = np.where(inside, middle, low), np.where(inside, high, middle)
        return self.pose.apply(low[:, None] * way + level)

    def stretch(self, points_mm: Array, step_mm: float) -> Array:
        """How many mm of lattice a mm makes at points (n,3): the least and the most by direction (n,2)."""
        here = self.read(points_mm)
        turn = 2 * np.pi * self.radius_mm
        columns = []
        for axis in range(3):
            moved = points_mm.copy()
            moved[:, axis] += step_mm
            gap = self.read(moved) - here
            if self.placement != "cartesian":
                gap[:, 1] -= turn * np.round(gap[:, 1] / turn)
            columns.append(gap / step_mm)
        found: Array = np.linalg.svd(np.stack(columns, axis=2), compute_uv=False)[:, [2, 0]]
        return found


def _line(x: Array, at: Array, values: Array) -> Array:
    """Straight lines through rising knots, carried on beyond both ends."""
    first = (values[1] - values[0]) / (at[1] - at[0])
    last = (values[-1] - values[-2]) / (at[-1] - at[-2])
    out = np.interp(x, at, values)
    out = np.where(x < at[0], values[0] + (x - at[0]) * first, out)
    return np.where(x > at[-1], values[-1] + (x - at[-1]) * last, out)


def inner_points(region: Field, count: int = 4000) -> Array:
    """Up to count points (n,3) inside the region, the same each time; GeometryError when none is found."""
    rng = np.random.default_rng(7)
    low, high = region.bounds
    found: list[Array] = []
    for _ in range(40):
        p = rng.uniform(low, high, (20_000, 3))
        found.append(p[region.evaluate(p) < 0])
        if sum(map(len, found)) >= count:
            break
    points = np.concatenate(found)[:count]
    if not len(points):
        raise GeometryError("lattice: the region to be filled holds no point; is it thinner than its sampling?")
    return points


def frame(axis: tuple[float, float, float], origin: Array) -> Pose:
    """A pose at origin whose z axis is the axis."""
    z = np.asarray(axis, np.float64)
    if not np.linalg.norm(z) > 0:
        raise GeometryError(f"lattice: axis {list(axis)} has no length")
    z = z / np.linalg.norm(z)
    x = np.cross([0.0, 1.0, 0.0] if abs(z[1]) < 0.9 else [1.0, 0.0, 0.0], z)
    x /= np.linalg.norm(x)
    return Pose(np.stack([x, np.cross(z, x), z], axis=1), origin)


def chart(asked: Lattice, region: Field, surface: Field) -> Chart:
    """The chart of a placement over a region. Whole cells make the turn. GeometryError where cells would be stretched out
    of shape, or grow along a coordinate that the placement does not have."""
    if asked.placement not in ALONG:
        raise GeometryError(f"lattice: no placement {asked.placement!r}; there are {', '.join(ALONG)}")
    cells = [grade for grade in asked.grades if grade.what == "cell_mm"]
    own = [grade for grade in asked.grades if grade.by in ("axis", "point", "along")]
    leader = (cells or own or [Grade("wall_mm", "", (), axis=asked.axis)])[0]
    inner = inner_points(region)
    centre = np.asarray(leader.at_mm) if own or cells else region.bounds.mean(axis=0)
    pose = frame(leader.axis, centre)
    made = Chart(asked.placement, pose, 1.0, surface)
    if asked.placement != "cartesian":
        local = pose.inverse_apply(inner)
        away = np.linalg.norm(local if asked.placement == "spherical" else local[:, :2], axis=1)
        count = max(round(2 * np.pi * float(np.median(away)) / asked.cell_mm), 1)
        made = replace(made, radius_mm=count * asked.cell_mm / (2 * np.pi))
        _judged(made, inner, asked)
    if cells:
        if len(cells) > 1 or cells[0].by != ALONG[asked.placement]:
            raise GeometryError(
                f"lattice: cells of a {asked.placement} lattice grow by {ALONG[asked.placement]!r} alone, not by "
                f"{', '.join(grade.by for grade in cells)!r}"
            )
        made = replace(made, phase=_phase(cells[0], asked.cell_mm))
    return made


def _judged(made: Chart, inner: Array, asked: Lattice) -> None:
    low, high = made.stretch(inner, 1e-3 * asked.cell_mm).T
    least, most = 1 / float(np.percentile(high, 98)), 1 / max(float(np.percentile(low, 2)), 1e-9)
    if least < LEAST_STRETCH or most > MOST_STRETCH:
        raise GeometryError(
            f"lattice: {asked.placement} placement stretches cells {least:.2f} to {most:.2f} fold in this region "
            f"(allowed {LEAST_STRETCH}..{MOST_STRETCH}): choose another axis, a thinner layer or cartesian"
        )


def _phase(grade: Grade, cell_mm: float) -> Array:
    """Knots (k,2): coordinate in mm, and the same counted in cells times cell_mm."""
    at, cells = _knots(grade)
    if not (cells > 0).all():
        raise GeometryError(f"lattice: graded cell_mm must be positive, got {cells.tolist()}")
    fine = np.unique(np.concatenate([np.linspace(a, b, 33) for a, b in pairwise(at)]))
    rate = cell_mm / np.interp(fine, at, cells)
    return np.stack([fine, np.concatenate([[0.0], np.cumsum(np.diff(fine) * 0.5 * (rate[1:] + rate[:-1]))])], axis=1)


def _knots(grade: Grade) -> tuple[Array, Array]:
    table = np.asarray(grade.knots, np.float64)
    if table.ndim != 2 or table.shape[1:] != (2,) or len(table) < 2 or not (np.diff(table[:, 0]) > 0).all():
        raise GeometryError(f"lattice: a grade needs two or more knots at rising places, got {list(grade.knots)}")
    return table[:, 0], table[:, 1]


def coordinate(grade: Grade, surface: Field, sources: Mapping[str, Field]) -> Field:
    """What a grade reads, as a field in mm (or in the unit of its source)."""
    at, axis = np.asarray(grade.at_mm), np.asarray(grade.axis, np.float64)
    if grade.by == "depth":
        return surface.scaled(-1.0)
    if grade.by == "point":
        return shapes.sphere(at, 1e-9)
    if grade.by == "axis":
        way = 1e4 * axis / max(float(np.linalg.norm(axis)), 1e-12)
        return shapes.capsule(at - way, at + way, 1e-9)
    if grade.by == "along":
        return shapes.half_space(at, axis)
    if grade.by in sources:
        return sources[grade.by]
    known = ("depth", "point", "axis", "along", *sources)
    raise GeometryError(f"lattice: cannot grade by {grade.by!r}; there are {', '.join(known)}")


def walls(asked: Lattice, grade: Grade) -> tuple[Array, Array, Array, Array]:
    """Knots of the graded coordinate, wall_mm, thin_mm and porosity at each; GeometryError names the knot that cannot be
    made."""
    at, values = _knots(grade)
    fine = np.unique(np.concatenate([np.linspace(a, b, PARTS + 1) for a, b in pairwise(at)]))
    if grade.what == "wall_mm":
        fine = at
    cells = next((g for g in asked.grades if g.what == "cell_mm" and g.by == grade.by), None)
    found = []
    for place in fine:
        cell = float(np.interp(place, *_knots(cells))) if cells else asked.cell_mm
        value = float(np.interp(place, at, values))
        here = only(replace(middle_asked(asked), cell_mm=cell), grade.what, value)
        try:
            made = solve(here)
        except GeometryError as error:
            raise GeometryError(f"{error} (graded by {grade.by}, at {place:g})") from error
        found.append((made.wall_mm, made.thin_mm, made.porosity))
    return (fine, *np.array(found).T)


def parse_grade(text: str, axis: tuple[float, float, float] = (0.0, 0.0, 1.0)) -> Grade:
    """A Grade from WHAT=BY:AT:VALUE,AT:VALUE[@X,Y,Z[/I,J,K]], e.g. wall_mm=depth:0:0.25,3:0.5; InputError otherwise."""
    what, equals, rest = text.partition("=")
    rest, _, place = rest.partition("@")
    by, colon, knots = rest.partition(":")
    at, _, way = place.partition("/")
    try:
        rows = tuple((float(a), float(b)) for a, b in (pair.split(":") for pair in knots.split(",")))
        centre, along = (tuple(float(word) for word in one.split(",")) for one in (at or "0,0,0", way or "0,0,1"))
    except ValueError:
        rows = ()
    if not (equals and colon and rows and len(centre) == len(along) == 3) or what not in GRADED:
        raise InputError(f"lattice: grade {text!r} must look like wall_mm=depth:0:0.25,3:0.5 ({', '.join(GRADED)})")
    return Grade(what, by, rows, centre, along if way else axis)  # type: ignore[arg-type]
