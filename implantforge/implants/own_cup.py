"""A maker's own acetabular cup, given as closed meshes: planned like the parametric one, coated and exported as given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from implantforge.core import Check, Design, Fit, Lattice, Mesh, check
from implantforge.geom import shapes
from implantforge.implants import Case, Implant, _cup, _maker
from implantforge.stages.phantoms import hip


class OwnCupParams(_cup.CupPlan, _maker.MakerParams):
    """What an engineer may set; the size is found when absent."""


def resolve(params: OwnCupParams) -> OwnCupParams:
    """As `_maker.read`, of cups."""
    return _maker.read(params, "cup")


def plan(case: Case, params: OwnCupParams) -> Fit:
    """Where `_cup.plan` lays it. Errors as there; InputError when the template has none for this side."""
    template = _maker.template(params, "cup")
    sizes = {one.size: one.outer_mm for one in template.for_side(case.side, params.size)}
    fit, _ = _cup.plan(case, params, "own_cup", sizes)
    more = {"outer_mm": sizes[fit.params["size"]]}
    return replace(
        fit, params={**fit.params, **more, **_maker.named(template, params)}, metrics={**fit.metrics, **more}
    )


def design(fit: Fit, params: OwnCupParams) -> Design:
    """The maker's surface as it is; of its dome, coat_depth_mm deep between the template's coat limits, is left for the
    lattice. The bone cut is the reamed ball and the way into it."""
    template, one = _maker.template(params, "cup"), _maker.chosen(fit, params, "cup")
    whole, origin = _maker.body(one.mesh, params), np.zeros(3)
    layer = whole - shapes.sphere(origin, one.outer_mm / 2.0 - params.coat_depth_mm)
    porous = shapes.shared(layer & _maker.slab(*template.coat_mm))
    reamed = (one.outer_mm - params.press_fit_mm) / 2.0
    cut = shapes.sphere(origin, reamed) | shapes.cylinder(origin, np.array([0.0, 0.0, 60.0]), reamed)
    return Design(whole - porous, porous, whole, Lattice(), cut)


def checks(case: Case, fit: Fit, made: Design, part: Mesh, params: OwnCupParams) -> tuple[Check, ...]:
    """Fit of this cup against the limits in use, what the coat leaves of its wall, and whether the printed mesh is the
    maker's shape."""
    local = fit.pose.inverse_apply(part.vertices)
    turned = _cup.rim_angles(local, fit)
    return (
        *_cup.checks(fit, params, turned if np.isfinite(turned).all() else None),
        check("wall_under_coat_mm", _wall_mm(fit, made, params), "mm", ">=", 2.5, "solid wall 2.5-4 mm under the coat"),
        *_maker.checks(made, local),
    )


def _wall_mm(fit: Fit, made: Design, params: OwnCupParams) -> float:
    """Solid metal behind the coat, along rays from the centre; the fifth part that is thinnest, as at holes, is left out."""
    template, one = _maker.template(params, "cup"), _maker.chosen(fit, params, "cup")
    turn = np.pi * (1 + 5**0.5) * (np.arange(400) + 0.5)
    low, high = np.clip(template.coat_mm, -one.outer_mm / 2.0, 0.0)
    z = np.linspace(low, high, 402)[1:-1] / (one.outer_mm / 2.0)
    ways = np.stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z], axis=1)
    along = np.arange(0.3 * one.outer_mm, one.outer_mm / 2.0 + 0.5, 0.1)
    metal = (made.solid((along[:, None, None] * ways).reshape(-1, 3)) < 0).reshape(len(along), -1)
    return float(np.percentile(0.1 * metal.sum(axis=0), 20.0))


IMPLANT = Implant(
    name="own_cup",
    summary="a maker's own acetabular cup given as closed meshes with a datum frame: planned, coated and exported like ours",
    region="hip",
    needs=("hip_{side}",),
    also=("hip_{other}", "femur_{side}"),
    Params=OwnCupParams,
    plan=plan,
    design=design,
    checks=checks,
    phantom=hip,
    resolve=resolve,
)
