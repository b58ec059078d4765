"""Lattices through a chart, or with levels or walls that change: the value over its own slope, so that walls stay true."""

from __future__ import annotations

import numpy as np

from implantforge.core import Array, Field, Pose
from implantforge.core.field import Form
from implantforge.geom import shapes
from implantforge.kernels.tpms import tpms_level
from implantforge.stages.lattice import spinodoid
from implantforge.stages.lattice.filling import middle
from implantforge.stages.lattice.placing import Chart
from implantforge.stages.lattice.solving import SolvedLattice, cut
from implantforge.stages.lattice.surfaces import SURFACES
from implantforge.stages.lattice.waves import WAVES

Knots = tuple[Field, Array, Array, Array]

CLIP = 0.1  # cells; values are cut off here, as farther out they are no distances
LIPSCHITZ = 2.0
STEP = 0.004  # cells to either side for the slope
LEAST = 0.3  # a slope that is flatter, a mm of distance or a cell of level, is taken for 1
MOST_STEEP = 2.2  # a placement makes distances no steeper than it presses cells
FAR_MM = 1e4
X, Y, Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


def bent(solved: SolvedLattice, bounds: Array, chart: Chart, knots: Knots | None, widest_mm: float) -> Field:
    """The lattice laid by the chart inside bounds (2,3) mm. knots are what the grade reads, where, and the thin_mm and
    porosity there; widest_mm is the widest wall."""
    cell, sheet = solved.cell_mm, solved.form == "sheet"
    value = middle(solved, widest_mm / 2, bounds) if sheet else _level(solved, bounds)
    if knots is None:
        by, at = shapes.half_space((0, 0, 0), Z), np.array([0.0, 1.0])
        goal = np.array([solved.thin_mm / 2 if sheet else solved.level] * 2)
    else:
        by, at = knots[0], knots[1]
        levels = [cut(solved.kind, solved.form, solved.seed, 1 - porosity) for porosity in knots[3]]
        goal = knots[2] / 2 if sheet else np.array(levels)
    eps, most = STEP * cell, CLIP * cell + (widest_mm / 2 if sheet else 0.0)
    target = by.ramp(at, goal)

    def evaluate(p: Array) -> Array:
        here = np.asarray(p, np.float64)
        middle_value, slope = value(chart.read(here)), np.zeros(len(here))
        for step in eps * np.eye(3):
            rise = value(chart.read(here + step)) - value(chart.read(here - step))
            slope += (rise / (2 * eps)) ** 2
        unit = 1.0 if sheet else 1.0 / cell
        steep = np.sqrt(slope)
        flat = steep < LEAST * unit
        if (
            sheet
        ):  # distances leap where two sheets are equally near, and a leap over a slope would be metal in the pore
            flat |= steep > MOST_STEEP
        steep = np.where(flat, unit, steep)
        goal = target(here)
        out = np.abs(middle_value) / steep - goal if sheet else (middle_value - goal) / steep
        return np.clip(out, -most, most)

    # sheets have none yet: their distances jump where they are cut off, and slopes there depend on how they are read
    form = None if sheet else _form(read_in(chart, value, bounds), target, eps, most, 1.0 / cell)
    return Field(evaluate, bounds, LIPSCHITZ, form=form)


def _form(value: Field, target: Field, eps: float, most: float, unit: float) -> Form | None:
    """What evaluate does, as steps."""
    if value.form is None or target.form is None:
        return None
    steep: Form | None = None
    for way in np.eye(3):
        ahead, behind = (value.moved(Pose(origin_mm=-side * eps * way)) for side in (1, -1))
        rise = ahead.plus(behind.scaled(-1.0)).scaled(0.5 / eps).form
        assert rise is not None
        steep = rise if steep is None else Form("length", (), (steep, rise))
    assert steep is not None
    aim = Form("scale", (-1.0,), (target.form,))
    return Form("over", (most, LEAST * unit, unit), (Form("sum", (), (value.form, aim)), steep))


def read_in(chart: Chart, value: Field, bounds: Array) -> Field:
    """A field of lattice coordinates as a field of points: value at chart.read, as steps."""
    x, y, z = (shapes.half_space((0, 0, 0), way) for way in (X, Y, Z))
    grown = value
    if chart.phase is not None:
        at, to = chart.phase[:, 0], chart.phase[:, 1]
        rates = [(to[1] - to[0]) / (at[1] - at[0]), (to[-1] - to[-2]) / (at[-1] - at[-2])]
        at = np.concatenate([[at[0] - FAR_MM], at, [at[-1] + FAR_MM]])
        to = np.concatenate([[to[0] - FAR_MM * rates[0]], to, [to[-1] + FAR_MM * rates[1]]])
        grown = value.warped(x.ramp(at, to), y, z, bounds)
    if chart.placement == "cartesian":
        return value if chart.phase is None else grown.warped(z, x, y, bounds).moved(chart.pose)
    near = 1e-3 * chart.radius_mm
    if chart.placement == "spherical":
        return grown.spherical(chart.pose, chart.radius_mm, bounds, near)
    if chart.placement == "cylindrical":
        return grown.cylindrical(chart.pose, chart.radius_mm, bounds, near)
    around, along = y.cylindrical(chart.pose, chart.radius_mm, bounds, near), z.moved(chart.pose)
    return grown.warped(chart.surface.scaled(-1.0), around, along, bounds)


def _level(solved: SolvedLattice, bounds: Array) -> Field:
    """f of a network by lattice coordinates."""
    if solved.kind not in SURFACES:
        edge = spinodoid.SIDE * solved.cell_mm
        return shapes.periodic(spinodoid.waves(solved.seed), (edge,) * 3, bounds)
    row = SURFACES.index(solved.kind)
    sums = shapes.waves(WAVES[solved.kind], (solved.cell_mm,) * 3, bounds)

    def evaluate(p: Array) -> Array:
        out = np.empty(len(p))
        tpms_level(row, solved.cell_mm, np.ascontiguousarray(p, np.float64), out)
        return out

    return Field(evaluate, bounds, sums.lipschitz, form=sums.form)
