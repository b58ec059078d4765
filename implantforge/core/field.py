"""An implant is a field: points in mm to signed distance in mm, negative inside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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

    def _join(self, other: Field, rule: Callable, bounds: Array, exact: bool, form: Form | None) -> Field:
        lipschitz = max(self.lipschitz, other.lipschitz)
        return Field(lambda p: rule(self.evaluate(p), other.evaluate(p)), bounds, lipschitz, exact, form)


def made(step: str, *fields: Field, numbers: tuple[float, ...] = ()) -> Form | None:
    """Form of a step on fields; None when one of them has none."""
    parts = tuple(field.form for field in fields if field.form is not None)
    return Form(step, numbers, parts) if len(parts) == len(fields) else None
