"""A shape with its porous part: lattice laid by chart and grades, bonded to core, rim and skin, no end in the air."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from implantforge.core import Array, Field, GeometryError, Lattice
from implantforge.core.field import Form
from implantforge.geom import shapes
from implantforge.stages.lattice import ends, nets, placing
from implantforge.stages.lattice.bending import Knots, bent
from implantforge.stages.lattice.filling import LATTICE_LIPSCHITZ, field, middle
from implantforge.stages.lattice.nets import BORDERS, Net
from implantforge.stages.lattice.placing import Chart
from implantforge.stages.lattice.solving import SolvedLattice, form_of, middle_asked, solve

EDGE_MM = 0.1
"""Where the envelope cuts a strut its edge is blunted over this width: no feather edge that a melt pool could not make."""


@dataclass(frozen=True, eq=False)
class Coat:
    """metal to be meshed; porous, the lattice in it alone; region that was to be filled; core that is solid (None when
    there is none); the struts one by one where there are any; the lattice at the middle of its grades; walls asked, least
    and most; the thinnest place of all; ends of struts or of a network that are left in the air (None: a sheet has none)."""

    metal: Field
    porous: Field
    region: Field
    core: Field | None
    net: Net | None
    solved: SolvedLattice
    wall_span_mm: tuple[float, float]
    thinnest_mm: float
    loose_ends: int | None = None


def coat(
    asked: Lattice,
    shape: Field,
    *,
    depths: Field | None = None,
    depth_mm: float | None = None,
    selected: Field | None = None,
    sources: Mapping[str, Field] | None = None,
    skin_mm: float = 0.0,
    rim_mm: float = 0.0,
    fillet_mm: float = 0.0,
    border: str = "cap",
    min_feature_mm: float = 0.0,
) -> Coat:
    """The shape filled with the lattice: all of it, its outer depth_mm on a solid core, or where it is `selected`. depths
    is the same shape true farther in, where it is another field.

    skin_mm leaves the surface solid, rim_mm a solid border within the selection, fillet_mm rounds where the lattice
    meets what is solid. GeometryError when nothing is left to fill, a layer is thinner than a cell, or the lattice is
    thinner than min_feature_mm.
    """
    if border not in BORDERS:
        raise GeometryError(f"lattice: no border rule {border!r}; there are {', '.join(BORDERS)}")
    if form_of(asked) == "network" and border == "trim":
        raise GeometryError(
            "lattice: a network has no strut that could be left out; border cap joins its ends, cut leaves them"
        )
    _layer(asked, depth_mm, skin_mm)
    deep = depths if depths is not None else shape
    core = _core(shape, deep, depth_mm, selected, skin_mm, rim_mm)
    region = shape if core is None else shape - core
    if selected is not None:
        region = replace(region, bounds=(shape & selected).bounds)
    border = border if skin_mm <= 0 else "cut"
    laid = _laid(asked, region, (shape, deep), core, sources or {}, border)
    if laid.thinnest_mm < min_feature_mm:
        raise GeometryError(
            f"lattice: {asked.kind} of {laid.thinnest_mm:.3f} mm at its thinnest < printable {min_feature_mm:.3f} mm; raise "
            "wall_mm or cell_mm, or lower the porosity"
        )
    if laid.solved.form == "network":
        laid = _ended(laid, shape, border, skin_mm)
    if laid.net is None:
        porous = shapes.smooth_intersection(laid.metal, shape, EDGE_MM)
    else:
        porous = laid.metal & shape
    if core is None:
        return replace(laid, metal=replace(porous, bounds=shape.bounds), porous=porous)
    metal = shapes.smooth_union(core, porous, fillet_mm) & shape if fillet_mm > 0 else core | porous
    return replace(laid, metal=replace(metal, bounds=shape.bounds), porous=porous)


def _ended(laid: Coat, shape: Field, border: str, skin_mm: float) -> Coat:
    """A network with its cut ends counted and, for the border cap, joined under the surface; under a skin there are
    none."""
    if skin_mm > 0:
        return replace(laid, loose_ends=0)
    layers = ends.Layers(shape, laid.core, laid.solved.cell_mm, laid.thinnest_mm)
    if border == "cut":
        return replace(laid, loose_ends=layers.ends(laid.metal, laid.metal).count)
    metal, left = layers.capped(laid.metal)
    return replace(laid, metal=metal, loose_ends=left)


def _layer(asked: Lattice, depth_mm: float | None, skin_mm: float) -> None:
    if depth_mm is None:
        return
    cell = min([asked.cell_mm, *(v for g in asked.grades if g.what == "cell_mm" for _, v in g.knots)])
    if depth_mm - skin_mm < cell * (1 - 1e-9):
        raise GeometryError(
            f"lattice: a layer of {depth_mm - skin_mm:g} mm holds no whole cell of {cell:g} mm; take a smaller cell or a "
            "deeper layer"
        )


def _core(
    shape: Field, deep: Field, depth_mm: float | None, selected: Field | None, skin_mm: float, rim_mm: float
) -> Field | None:
    """What stays solid."""
    parts = []
    if depth_mm is not None:
        parts.append(deep.offset(-depth_mm))
    if selected is not None:
        parts.append(shape - (selected.offset(-rim_mm) if rim_mm > 0 else selected))
    if skin_mm > 0:
        parts.append(shape - shape.offset(-skin_mm))
    out = None
    for part in parts:
        out = part if out is None else out | part
    return out


def _laid(
    asked: Lattice,
    region: Field,
    shapes_of: tuple[Field, Field],
    core: Field | None,
    sources: Mapping[str, Field],
    border: str,
) -> Coat:
    """The lattice over the region, not yet clipped."""
    shape, deep = shapes_of
    solved = solve(middle_asked(asked))
    chart = placing.chart(asked, region, deep)
    grade = [g for g in asked.grades if g.what != "cell_mm"]
    if len(grade) > 1:
        raise GeometryError("lattice: grade one of wall_mm or porosity, once")
    knots, walls, thin = None, np.full(2, solved.wall_mm), np.full(2, solved.thin_mm)
    if grade:
        at, walls, thin, porosities = placing.walls(asked, grade[0])
        knots = (placing.coordinate(grade[0], deep, sources), at, thin, porosities)
    elif any(g.what == "cell_mm" for g in asked.grades) and asked.wall_mm is None:
        raise GeometryError("lattice: with graded cells give wall_mm, or grade wall_mm or porosity too")
    span, widest = (float(walls.min()), float(walls.max())), float(thin.max())
    if solved.form == "strut":
        net = _netted(solved, region, chart, knots)
        net = nets.bordered(net, shape, core, border)
        made = nets.field(net, solved.cell_mm)
        return Coat(made, made, region, core, net, solved, span, float(thin.min()), nets.dangling(net, core))
    straight = chart.placement == "cartesian" and chart.phase is None
    if straight and (knots is None or solved.form == "sheet"):
        made = _straight(solved, region.bounds, knots, widest)
    else:
        made = bent(solved, region.bounds, chart, knots, widest)
    return Coat(made, made, region, core, None, solved, span, float(thin.min()))


def laid(asked: Lattice, region: Field, envelope: Field) -> Coat:
    """The lattice of an implant over its porous region as placed and graded; depths are under the envelope. Struts are
    left for the envelope to cut."""
    return _laid(asked, region, (envelope, envelope), None, {}, "cut")


def _straight(solved: SolvedLattice, bounds: Array, knots: Knots | None, widest_mm: float) -> Field:
    """Without bending; sheets may change their wall."""
    if knots is None:
        return field(solved, bounds)
    base = middle(solved, widest_mm / 2, bounds)
    form = Form("absolute", (), (base.form,)) if base.form else None
    sheet = Field(lambda p: np.abs(base.evaluate(p)), bounds, LATTICE_LIPSCHITZ, form=form)
    return sheet.plus(knots[0].ramp(knots[1], -knots[2] / 2))


def _netted(solved: SolvedLattice, region: Field, chart: Chart, knots: Knots | None) -> Net:
    """Every strut about the region, with its radii."""
    low, high = region.bounds
    axes = [np.linspace(a - solved.cell_mm, b + solved.cell_mm, 24) for a, b in zip(low, high)]
    seen = chart.read(np.array(list(product(*axes))))
    box = np.array([seen.min(axis=0), seen.max(axis=0)])
    if chart.placement != "cartesian":
        half = np.pi * chart.radius_mm
        box[:, 1] = -half, half - 1e-6 * half
    net = nets.grown(solved, box, chart)
    radius = np.full(len(net.joints), solved.thin_mm / 2)
    if knots is not None:
        radius = np.interp(knots[0].evaluate(net.joints), knots[1], knots[2]) / 2
    net = Net(net.joints, radius, net.struts)
    near = region.evaluate(net.joints) < 1.5 * solved.cell_mm
    return net.only(near[net.struts[:, 0]] | near[net.struts[:, 1]])
