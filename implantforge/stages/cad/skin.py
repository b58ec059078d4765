"""A blended body as one smooth face: points of its surface along a spine, a cubic through them, turned ends sewn on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline

from implantforge.core import Array, Field, GeometryError

AROUND = 192
LEVEL_MM, FINE_MM, FINE_OVER_MM, FAN_DEG = 2.0, 0.4, 20.0, 0.6
"""Between sections of the shaft, between those of its top where the neck cut begins, and between rays of a fan."""
POLE_MM, TIP_MM = 0.02, 6.0
"""The lowest section stands this far above the tip and is closed flat; the tip's fan starts this far above it."""
BULLET_MM = 8.0
"""Over the tip's fan the end of its rounding is looked at as finely as the top."""
REACH_MM, STEP_MM = 70.0, 0.5
SEWN_MM = 1e-3


@dataclass(frozen=True, eq=False)
class Spine:
    """How a stem is looked at: rays leave the z axis level from the tip up to centre_z_mm, and from there fan out to a ring
    of ring_radius_mm about neck_mm (y = 0), where everything further along `axis` turns about that axis."""

    tip_z_mm: float
    centre_z_mm: float
    neck_mm: Array
    axis: Array
    ring_radius_mm: float

    @property
    def medial(self) -> Array:
        """Across the neck, toward medial."""
        return np.array([self.axis[2], 0.0, -self.axis[0]])


def points(field: Field, spine: Spine, around: int = AROUND) -> Array:
    """(rows, around, 3) points on the surface from the tip's ring to the neck's. GeometryError when a ray does not leave
    the body once, so that one skin cannot show it."""
    starts, ways = _rays(spine, around)
    shape = starts.shape
    starts, ways = starts.reshape(-1, 3), ways.reshape(-1, 3)
    steps = np.arange(0.0, REACH_MM, STEP_MM)
    inside = np.stack([_inside(field, spine, starts + s * ways) for s in steps], axis=1)
    once = inside[:, 0] & ((inside[:, :-1] & ~inside[:, 1:]).sum(axis=1) == 1) & ~inside[:, -1]
    if not once.all():
        again = starts[~once] + steps[inside[~once].argmin(axis=1)][:, None] * ways[~once]
        raise GeometryError(
            f"cad: {int((~once).sum())} of {len(once)} rays from the stem's axis leave it more than once, or never, at z = "
            f"{again[:, 2].min():.1f} to {again[:, 2].max():.1f} mm (the neck cut meets the axis at 0): a ledge stands out "
            "there, a collar's or that of a neck thicker than the body, and one skin does not show it; take a larger size, "
            "or no collar"
        )
    low = steps[inside.sum(axis=1) - 1]
    high = low + STEP_MM
    for _ in range(36):
        middle = 0.5 * (low + high)
        within = field(starts + middle[:, None] * ways) < 0
        low, high = np.where(within, middle, low), np.where(within, high, middle)
    found = (starts + (0.5 * (low + high))[:, None] * ways).reshape(shape)
    off = float(np.abs(np.linalg.norm(found[-1] - spine.neck_mm, axis=1) - spine.ring_radius_mm).max())
    if off > SEWN_MM:
        raise GeometryError(f"cad: the neck is {off:.3f} mm off the ring that its turned end is sewn to")
    found[-1] = _ring(spine, around)
    return found


def _inside(field: Field, spine: Spine, at: Array) -> NDArray[np.bool_]:
    """Within the body, and not beyond the ring."""
    return (field(at) < 0) & ((at - spine.neck_mm) @ spine.axis < STEP_MM)


def _ring(spine: Spine, around: int) -> Array:
    turn = 2 * np.pi * np.arange(around)[:, None] / around
    return spine.neck_mm + spine.ring_radius_mm * (
        np.cos(turn) * spine.medial + np.sin(turn) * np.array([0.0, 1.0, 0.0])
    )


def _rays(spine: Spine, around: int) -> tuple[Array, Array]:
    """Starts and unit ways (rows, around, 3)."""
    turn = 2 * np.pi * np.arange(around) / around
    level = np.stack([np.cos(turn), np.sin(turn), np.zeros(around)], axis=1)
    down, rows = np.array([0.0, 0.0, -1.0]), []
    rows.append((spine.tip_z_mm + POLE_MM, level))
    for polar in np.arange(8.0, 90.0, 2.5):
        rows.append((spine.tip_z_mm + TIP_MM, np.cos(np.radians(polar)) * down + np.sin(np.radians(polar)) * level))
    first, last = spine.tip_z_mm + TIP_MM, spine.centre_z_mm
    top = last - FINE_OVER_MM
    bullet = first + BULLET_MM
    for z in (
        *np.arange(first, bullet, FINE_MM),
        *np.arange(bullet, top, LEVEL_MM),
        *np.linspace(top, last, int(np.ceil(FINE_OVER_MM / FINE_MM)) + 1),
    ):
        rows.append((z, level))
    centre = np.array([0.0, 0.0, last])
    to = _ring(spine, around) - centre
    to /= np.linalg.norm(to, axis=1, keepdims=True)
    angle = np.arccos(np.clip((level * to).sum(axis=1, keepdims=True), -1, 1))
    count = int(np.ceil(np.degrees(angle.max()) / FAN_DEG))
    for share in np.arange(1, count + 1) / count:
        way = (np.sin((1 - share) * angle) * level + np.sin(share * angle) * to) / np.sin(angle)
        rows.append((last, way))
    starts = np.stack([np.broadcast_to([0.0, 0.0, z], (around, 3)) for z, _ in rows])
    return starts, np.stack([way for _, way in rows])


def spline(rows: Array) -> tuple[Array, Array, Array]:
    """Cubic through (m, n, 3) points, closed along n: poles (n+3, m, 3) and clamped knots of both ways."""
    n = rows.shape[1]
    round_ = make_interp_spline(
        np.arange(n + 1), np.concatenate([rows, rows[:, :1]], axis=1), k=3, axis=1, bc_type="periodic"
    )
    around = np.concatenate([np.zeros(3), np.arange(n + 1), np.full(3, n)]).astype(float)
    greville = np.array([around[i + 1 : i + 4].mean() for i in range(n + 3)])
    across = make_interp_spline(greville, round_(greville), k=3, t=around, axis=1).c
    steps = np.linalg.norm(np.diff(rows, axis=0), axis=2).mean(axis=1)
    heights = np.concatenate([[0.0], np.cumsum(steps)])
    along = make_interp_spline(heights, np.swapaxes(across, 0, 1), k=3)  # coefficients come first axis first
    return np.swapaxes(along.c, 0, 1), around, along.t


def _face(bd: Any, poles: Array, around: Array, along: Array) -> Any:
    from OCP.BRepBuilderAPI import BRepBuilderAPI_MakeFace
    from OCP.collections import Array1_double, Array1_int, Array2_gp_Pnt
    from OCP.Geom import Geom_BSplineSurface
    from OCP.gp import gp_Pnt

    grid = Array2_gp_Pnt(1, poles.shape[0], 1, poles.shape[1])
    for i, row in enumerate(poles, 1):
        for j, at in enumerate(row, 1):
            grid.SetValue(i, j, gp_Pnt(*map(float, at)))
    lists: list[Any] = []
    for knots in (around, along):
        values, counts = np.unique(knots, return_counts=True)
        real, whole = Array1_double(1, len(values)), Array1_int(1, len(values))
        for i, (value, count) in enumerate(zip(values, counts), 1):
            real.SetValue(i, float(value))
            whole.SetValue(i, int(count))
        lists.append((real, whole))
    surface = Geom_BSplineSurface(grid, lists[0][0], lists[1][0], lists[0][1], lists[1][1], 3, 3)
    return bd.Face(BRepBuilderAPI_MakeFace(surface, 1e-6).Face())


def solid(bd: Any, field: Field, spine: Spine, turned: Callable[..., Any]) -> Any:
    """The stem: one skin from tip to neck, closed flat at the tip, the turned rest of the neck sewn on."""
    skin = _face(bd, *spline(points(field, spine)))
    ends = sorted((edge for edge in skin.edges() if edge.is_closed), key=lambda edge: edge.center().Z)
    cap = bd.Face(bd.Wire([ends[0]]))
    box = np.array(field.bounds) + [[-2.0], [2.0]]
    neck = turned(bd, field, spine.neck_mm, spine.axis, box, 0.0, spine.medial)
    rest = [face for face in neck.faces()
            if abs((np.array(tuple(face.center())) - spine.neck_mm) @ spine.axis) > 1e-3]  # fmt: skip
    shell = bd.Shell([skin, cap, *rest])
    return bd.Solid(shell)
