"""A maker's own tibial tray, given as closed meshes: planned like the parametric one, coated and exported as given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from implantforge.core import Check, Design, Field, Fit, FitError, Grid, Lattice, Mesh, Pose, check
from implantforge.geom import shapes
from implantforge.implants import Case, Implant, _maker, _tray
from implantforge.stages import templates
from implantforge.stages.knee import cover, sizes, tibial
from implantforge.stages.phantoms import knee

RIM_MM = 1.0
"""Solid all round the coat, and around the keel."""
UNDER_MM = 0.3
"""The keel is what lies this far below the bone face."""


class OwnTrayParams(_tray.TrayPlan, _maker.MakerParams):
    """What an engineer may set; the size is found when absent."""


def resolve(params: OwnTrayParams) -> OwnTrayParams:
    """As `_maker.read`, of trays."""
    return _maker.read(params, "tray")


def plan(case: Case, params: OwnTrayParams) -> Fit:
    """Where `_tray.plan` lays it. FitError with numbers when no size fits, or the keel leaves the bone; InputError when the
    template has none for this side."""
    template = _maker.template(params, "tray")
    every = {str(one.size): one for one in template.for_side(case.side)}
    trays = {name: _tray_of(one) for name, one in every.items()}
    asked = [trays[str(one.size)] for one in template.for_side(case.side, params.size)]

    def keel(size: str, pose: Pose) -> _tray.Keel:
        found = _maker.points(every[size].mesh, 1.5)
        found = found[found[:, 2] < -1.0]
        if not len(found):
            return _tray.Keel(0.0, 12.0)
        clear = tibial.keel_clear_mm(case.bones[f"tibia_{case.side}"], pose.apply(found))
        if clear <= 0.5:
            raise FitError(f"own_tray: the keel of size {size} leaves tibia_{case.side} ({clear:.1f} mm of bone; 0.5 "
                           "needed); ask for a smaller one (params.size) or give one with a shorter keel")  # fmt: skip
        return _tray.Keel(-float(every[size].mesh.bounds[0, 2]), clear)

    fit = _tray.plan(case, params, "own_tray", asked, max(tray.ml_mm for tray in trays.values()), keel)
    size = {"size": int(fit.params["size"]), "width_mm": fit.params["ml_mm"]}
    return replace(fit, params={**fit.params, **_maker.named(template, params)}, metrics={**fit.metrics, **size})


def _tray_of(one: templates.Size) -> sizes.Tray:
    """A size's own outline at the bone face."""
    flat = templates.outline(one.mesh)
    wide, deep = np.ptp(flat, axis=0)
    return sizes.Tray(str(one.size), float(wide), float(deep), flat)


def design(fit: Fit, params: OwnTrayParams) -> Design:
    """The maker's surface as it is; coat_depth_mm of its plate's underside is left for the lattice, but for 1 mm all round
    and around the keel. The bone cut is all above the face and the keel's bed."""
    mesh = _maker.chosen(fit, params, "tray").mesh
    whole, up = _maker.body(mesh, params), np.array([0.0, 0.0, 1.0])
    porous = _upright(mesh, 0.5).offset(-RIM_MM) & whole & _maker.slab(0.0, params.coat_depth_mm)
    if mesh.bounds[0, 2] < -UNDER_MM:
        porous = porous - _upright(mesh, -UNDER_MM).offset(RIM_MM)
    porous = shapes.shared(porous)
    return Design(whole - porous, porous, whole, Lattice(), shapes.half_space(np.zeros(3), -up) | whole)


def _upright(mesh: Mesh, z_mm: float) -> Field:
    """What a level section bounds, carried straight up and down."""
    plate = cover.face(mesh, Pose(np.eye(3), np.array([0.0, 0.0, z_mm])))
    values = np.repeat(plate.values[:, :, None], 3, axis=2)
    grid = Grid(Pose(np.eye(3), np.array([*plate.low, -80.0])), np.array([cover.STEP_MM, cover.STEP_MM, 80.0]),
                values.shape)  # fmt: skip
    return shapes.from_samples(grid, values)


def checks(case: Case, fit: Fit, made: Design, part: Mesh, params: OwnTrayParams) -> tuple[Check, ...]:
    """Fit of this tray against the limits in use, what the coat leaves of its plate, and whether the printed mesh is the
    maker's shape."""
    every = _maker.template(params, "tray").for_side(fit.params["side"])
    return (
        *_tray.checks(case, fit, made, max(_tray_of(one).ml_mm for one in every)),
        check("tray_mm", _plate_mm(made, params), "mm", ">=", 3.0, "printed tray >= 3 mm solid under load"),
        *_maker.checks(made, fit.pose.inverse_apply(part.vertices)),
    )


def _plate_mm(made: Design, params: OwnTrayParams) -> float:
    """Solid metal above the coat, upward from it, where there is a coat: the median."""
    low, high = made.porous.bounds
    at = np.stack(np.meshgrid(np.arange(low[0], high[0], 2.0), np.arange(low[1], high[1], 2.0), indexing="ij"), axis=-1)
    flat = at.reshape(-1, 2)
    flat = flat[made.porous(np.column_stack([flat, np.full(len(flat), params.coat_depth_mm / 2.0)])) < 0]
    z = np.arange(params.coat_depth_mm, params.coat_depth_mm + 8.0, 0.05) + 0.025
    points = np.column_stack([np.repeat(flat, len(z), axis=0), np.tile(z, len(flat))])
    metal = (made.solid(points) < 0).reshape(len(flat), -1)
    return float(np.median(0.05 * np.argmin(np.column_stack([metal, np.zeros(len(flat), bool)]), axis=1)))


IMPLANT = Implant(
    name="own_tray",
    summary="a maker's own tibial tray given as closed meshes with a datum frame: planned, coated and exported like ours",
    region="knee",
    needs=("tibia_{side}",),
    Params=OwnTrayParams,
    plan=plan,
    design=design,
    checks=checks,
    phantom=knee,
    resolve=resolve,
)
