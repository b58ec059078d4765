"""An implant is a field: points in mm to signed distance in mm, negative inside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from implantforge.core.errors import GeometryError
from implantforge.core.space import Array, Pose, frozen

Evaluate = Callable[[Array], NDArray]


@dataclass(frozen=True, eq=False)
class Form:
    """How a field is made: a step by name (geom/program.py lists them), its numbers in mm, the forms it is made from, and
    sampled values (i,j,k) where the step reads any. slope bounds the steepness of a shape. Whoever meets one form twice
    may evaluate it once."""

    step: str
    numbers: tuple[float, ...] = ()
    parts: tuple[Form, ...] = ()
    samples: NDArray[np.float32] | None = None
    slope: float = 1.0


@dataclass(frozen=True, eq=False)
class Field:
    """evaluate maps (n,3) mm to (n,) mm; the solid {f < 0} lies inside bounds (2,3).

    lipschitz bounds |f(a) - f(b)| / |a - b| and lets meshing skip space; exact says that f is the true Euclidean
    distance near the surface and outside, so that offsets and walls in mm may be promised. form, where there is one,
    describes the same function to the mesher, which then needs no Python per point.
    """

    evaluate: Evaluate
    bounds: Array
    lipschitz: float = 1.0
    exact: bool = False
    form: Form | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "bounds", frozen(self.bounds, (2, 3)))

    def __call__(self, points_mm: Array) -> NDArray:
        return self.evaluate(np.asarray(points_mm))

    def __or__(self, other: Field) -> Field:
        """Union."""
        bounds = [np.minimum(self.bounds[0], other.bounds[0]), np.maximum(self.bounds[1], other.bounds[1])]
        return self._join(other, np.minimum, np.array(bounds), self.exact and other.exact, made("min", self, other))

    def __and__(self, other: Field) -> Field:
        """Intersection; bounds shrink to the common box."""
        lo = np.maximum(self.bounds[0], other.bounds[0])
        hi = np.maximum(np.minimum(self.bounds[1], other.bounds[1]), lo)
        return self._join(other, np.maximum, np.array([lo, hi]), False, made("max", self, other))

    def __sub__(self, other: Field) -> Field:
        """This without the other."""
        rest = made("negative", other)
        form = Form("max", (), (self.form, rest)) if self.form and rest else None
        return self._join(other, lambda a, b: np.maximum(a, -b), self.bounds, False, form)

    def offset(self, mm: float) -> Field:
        """Grown by mm (shrunk when negative)."""
        grow = max(mm, 0.0)
        bounds, form = self.bounds + [[-grow], [grow]], made("add", self, numbers=(-mm,))
        return Field(lambda p: self.evaluate(p) - mm, bounds, self.lipschitz, self.exact, form)

    def moved(self, pose: Pose) -> Field:
        """Carried by a rigid pose; bounds become the box around the carried box."""
        corners = np.array(np.meshgrid(*self.bounds.T)).reshape(3, -1).T
        far = pose.apply(corners)
        bounds = np.array([far.min(axis=0), far.max(axis=0)])
        form = made("moved", self, numbers=(*pose.rotation.ravel().tolist(), *pose.origin_mm.tolist()))
        return Field(lambda p: self.evaluate(pose.inverse_apply(p)), bounds, self.lipschitz, self.exact, form)

    def plus(self, other: Field) -> Field:
        """Sum of the two, e.g. a sheet less a wall that varies; bounds are this field's."""
        steep, form = self.lipschitz + other.lipschitz, made("sum", self, other)
        return Field(lambda p: self.evaluate(p) + other.evaluate(p), self.bounds, steep, form=form)

    def scaled(self, factor: float) -> Field:
        """Values times a factor; bounds stay."""
        form = made("scale", self, numbers=(float(factor),))
        return Field(lambda p: factor * self.evaluate(p), self.bounds, abs(factor) * self.lipschitz, form=form)

    def ramp(self, at_mm: Array, values_mm: Array) -> Field:
        """The line through knots at_mm (n,) -> values_mm (n,), at_mm rising, read at this field's value; level beyond
        the ends. GeometryError for knots that do not rise."""
        x, y = np.asarray(at_mm, np.float64), np.asarray(values_mm, np.float64)
        if x.ndim != 1 or x.shape != y.shape or len(x) < 2 or not (np.diff(x) > 0).all():
            raise GeometryError(f"ramp: needs two or more rising knots and a value for each, got {x.tolist()}")
        steep = self.lipschitz * float(np.abs(np.diff(y) / np.diff(x)).max())
        numbers = (float(len(x)), *np.stack([x, y], axis=1).ravel().tolist())
        form = made("ramp", self, numbers=numbers)
        return Field(lambda p: np.interp(self.evaluate(p), x, y), self.bounds, steep, form=form)

    def cylindrical(self, pose: Pose, radius_mm: float, bounds: Array, nearest_mm: float) -> Field:
        """This field read at (radius, arc, height) about the z axis of a pose; arcs are measured at radius_mm, so that
        periods close where a whole number of them makes the turn. Nearer than nearest_mm to the axis, where arcs are
        stretched most, the field is steeper than promised."""
        return self._around("cylindrical", pose, radius_mm, bounds, nearest_mm)

    def spherical(self, pose: Pose, radius_mm: float, bounds: Array, nearest_mm: float) -> Field:
        """This field read at (radius, arc along, arc up) about the origin of a pose, arcs measured at radius_mm: arcs
        along shrink by the cosine of the latitude. nearest_mm is a distance from the z axis, as for cylindrical."""
        return self._around("spherical", pose, radius_mm, bounds, nearest_mm)

    def warped(self, u: Field, v: Field, w: Field, bounds: Array) -> Field:
        """This field read at (u, v, w) in place of (x, y, z): with w a depth, layers follow the surface it belongs to."""

        def evaluate(p: Array) -> NDArray:
            return self.evaluate(np.stack([u.evaluate(p), v.evaluate(p), w.evaluate(p)], axis=1))

        steep = self.lipschitz * float(np.linalg.norm([f.lipschitz for f in (u, v, w)]))
        return Field(evaluate, bounds, steep, form=made("warped", u, v, w, self))

    def _around(self, step: str, pose: Pose, radius_mm: float, bounds: Array, nearest_mm: float) -> Field:
        if not (radius_mm > 0 and nearest_mm > 0):
            raise GeometryError(f"{step}: radius and nearest must be positive, got {radius_mm}, {nearest_mm} mm")
        inner, ball = self.evaluate, step == "spherical"

        def evaluate(p: Array) -> NDArray:
            x, y, z = pose.inverse_apply(p).T
            r = np.hypot(x, y)
            away, up = (np.hypot(r, z), radius_mm * np.arctan2(z, r)) if ball else (r, z)
            return inner(np.stack([away, radius_mm * np.arctan2(y, x), up], axis=1))

        numbers = (*pose.rotation.ravel().tolist(), *pose.origin_mm.tolist(), float(radius_mm))
        steep = self.lipschitz * max(1.0, radius_mm / nearest_mm)
        return Field(evaluate, bounds, steep, form=made(step, self, numbers=numbers))

    def _join(self, other: Field, rule: Callable, bounds: Array, exact: bool, form: Form | None) -> Field:
        lipschitz = max(self.lipschitz, other.lipschitz)
        return Field(lambda p: rule(self.evaluate(p), other.evaluate(p)), bounds, lipschitz, exact, form)


def made(step: str, *fields: Field, numbers: tuple[float, ...] = ()) -> Form | None:
    """Form of a step on fields; None when one of them has none."""
    parts = tuple(field.form for field in fields if field.form is not None)
    return Form(step, numbers, parts) if len(parts) == len(fields) else None
