"""Tibial tray of a knee: a D on the cut face, solid over a porous underside; keel, stem or pegs; locking rim with stock."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from implantforge.core import Array, Check, Design, Field, Fit, FitError, Grid, Lattice, Mesh, Pose, Side, check
from implantforge.core.field import Form
from implantforge.geom import shapes
from implantforge.implants import Case, Implant, _tray, choice, mm
from implantforge.stages.knee import cover, frames, sizes, tibial
from implantforge.stages.phantoms import knee

RIM_WIDTH_MM, RIM_HEIGHT_MM = 2.5, 3.5
"""Of the wall that locks the insert."""
STEM_MM, TIP_MM, PEG_MM, PEG_LENGTH_MM, WING_MM = 13.0, 8.0, 9.0, 14.0, 3.5
KEEL_LENGTHS_MM = (45.0, 40.0, 35.0, 30.0, 25.0)
"""Tried from the longest: 25-50 mm."""


class TibialParams(_tray.TrayPlan):
    """What an engineer may set; what is left out is found from the patient."""

    size: int | None = choice(None, (None, *(int(w) for w in sizes.TRAY_ML_MM)), "width of the tray; found when absent",
                              source="vendors\' catalogues: 58-85 mm")  # fmt: skip
    fixation: str = choice(
        "keel",
        ("keel", "stem", "pegs"),
        "stem with wings, stem alone, or four pegs",
        tag="M",
        source="keel 25-50 mm, stem 12-16 mm thick, or 4 pegs 8-10 x 12-16 mm",
    )
    tray_mm: float = mm(3.0, 3.0, 4.0, "solid plate", tag="M", source="printed >= 3.0 solid under load")
    coat_mm: float = mm(1.2, 0.8, 1.6, "porous underside", tag="M", source="0.8-2.0 mm")
    rim_stock_mm: float = mm(0.4, 0.3, 0.8, "stock on the locking rim and the floor", tag="M", source="+0.3-0.5 mm",
                             of="design")  # fmt: skip


def plan(case: Case, params: TibialParams) -> Fit:
    """Where `_tray.plan` lays it, on the longest keel that stays in the bone. FitError with numbers when none does."""
    hand = frames.handed(case.side)
    trays = [sizes.tray(float(width), hand) for width in (sizes.TRAY_ML_MM if params.size is None else (params.size,))]

    def keel(size: str, pose: Pose) -> _tray.Keel:
        return _keel(case, case.bones[f"tibia_{case.side}"], pose, float(size), params)

    fit = _tray.plan(case, params, "knee_tibial", trays, sizes.TRAY_ML_MM[-1], keel)
    return replace(fit, params={**fit.params, "stack_mm": params.tray_mm + params.coat_mm})


def _keel(case: Case, mesh: Mesh, pose: Pose, ml_mm: float, params: TibialParams) -> _tray.Keel:
    """The longest keel that leaves CLEAR_MM of bone all round, and what it leaves; FitError when none leaves 0.5 mm."""
    lengths = (PEG_LENGTH_MM,) if params.fixation == "pegs" else KEEL_LENGTHS_MM
    clear = 0.0
    for length in lengths:
        field = _fixation(ml_mm, length, frames.handed(case.side), params)
        low, high = field.bounds
        axes = [np.arange(a, b, 1.5) for a, b in zip(low, np.minimum(high, [1e3, 1e3, -1.0]))]
        points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        value = field(points)
        points = points[(value < 0.0) & (value > -2.0)]
        clear = tibial.keel_clear_mm(mesh, pose.apply(points))
        if clear >= _tray.CLEAR_MM:
            return _tray.Keel(length, clear)
    if clear > 0.5:
        return _tray.Keel(lengths[-1], clear)
    raise FitError(f"knee_tibial: a {params.fixation} {lengths[-1]:.0f} mm long leaves tibia_{case.side} "
                   f"({clear:.1f} mm of bone; 0.5 needed); choose another fixation")  # fmt: skip


def outline_field(ml_mm: float, handed: float) -> Field:
    """Distance to a tray's outline in its plane, the same at every height of interest; negative inside."""
    outline = sizes.tray(ml_mm, handed).outline
    plate = cover.of_outline(outline)
    values = np.repeat(plate.values[:, :, None], 3, axis=2)
    spacing = np.array([cover.STEP_MM, cover.STEP_MM, 80.0])
    grid = Grid(Pose(np.eye(3), np.array([*plate.low, -80.0])), spacing, values.shape)
    return shapes.from_samples(grid, values, Form("prism", tuple(outline.ravel().tolist())))


def shafts(ml_mm: float, length: float, params: TibialParams) -> list[tuple[Array, Array, float, float]]:
    """Stem or pegs as (top, tip, radius at the top, radius at the tip): balls of those radii about both points, and all
    between them, cut off level at the top, which lies inside the plate."""
    top, ap = params.coat_mm + 1.0, sizes.tray_depth(ml_mm)
    if params.fixation == "pegs":
        places = [(x * ml_mm, y * ap) for x in (-0.27, 0.27) for y in (-0.16, 0.18)]
        return [(np.array([x, y, top]), np.array([x, y, -PEG_LENGTH_MM + PEG_MM / 2]), PEG_MM / 2, PEG_MM / 2)
                for x, y in places]  # fmt: skip
    at = np.array([0.0, -0.04 * ap, 0.0])
    return [(at + [0.0, 0.0, top], at - [0.0, 0.0, length - TIP_MM / 2], STEM_MM / 2, TIP_MM / 2)]


def _fixation(ml_mm: float, length: float, handed: float, params: TibialParams) -> Field:
    """Keel, stem or pegs under the plate, from inside it downward."""
    top, down = params.coat_mm + 1.0, np.array([0.0, 0.0, -1.0])
    stem: Field | None = None
    for head, tip, wide, thin in shafts(ml_mm, length, params):
        one = shapes.round_cone(head, tip, wide, thin) & shapes.half_space([0.0, 0.0, top], [0.0, 0.0, 1.0])
        stem = one if stem is None else stem | one
    assert stem is not None
    if params.fixation == "pegs":
        return stem
    at = np.array([0.0, -0.04 * sizes.tray_depth(ml_mm), 0.0])
    if params.fixation == "stem":
        return stem
    span, deep = 0.66 * ml_mm / 2, 0.45 * length
    for side in (-1.0, 1.0):
        way = np.array([side * np.cos(np.radians(18.0)), np.sin(np.radians(18.0)), 0.0])
        across = np.array([-way[1], way[0], 0.0])
        wing = shapes.half_space(at + WING_MM / 2 * across, across) & shapes.half_space(
            at - WING_MM / 2 * across, -across
        )
        # the lower edge rises outward, so that a wing stays in the funnel of the bone
        slant = np.array([way[0] * deep, way[1] * deep, -span]) / np.hypot(deep, span)
        wing &= shapes.half_space(at + 0.55 * deep * down + 0.5 * span * way, slant)
        wing &= shapes.half_space(at + span * way, way) & shapes.half_space(at, -way)
        wing &= shapes.half_space([0.0, 0.0, top], [0.0, 0.0, 1.0])
        reach = span + WING_MM
        box = np.array([[-reach, -reach, -1.2 * deep], [reach, reach, top]]) + [at, at]
        stem = stem | Field(wing.evaluate, box, wing.lipschitz, wing.exact, wing.form)
    return stem


def blank(side: Side, params: TibialParams) -> Fit:
    """A size without a patient: the longest keel, no cut."""
    ml = float(params.size or sizes.TRAY_ML_MM[len(sizes.TRAY_ML_MM) // 2])
    long = PEG_LENGTH_MM if params.fixation == "pegs" else KEEL_LENGTHS_MM[0]
    values: dict[str, Any] = {"size": int(ml), "ml_mm": ml, "side": side, "keel_length_mm": long, "cuts": []}
    return Fit("knee_tibial", values, Pose(), {})


def design(fit: Fit, params: TibialParams) -> Design:
    """Fields in local mm (x patient-left, y posterior, z off the bone, origin on the cut face in the middle of the tray):
    plate over its porous underside, locking rim with stock, keel; the bone cut is all above the face and the keel's bed."""
    ml, sign, stock = float(fit.params["ml_mm"]), frames.handed(fit.params["side"]), params.rim_stock_mm
    out = shapes.shared(outline_field(ml, sign))
    floor = params.coat_mm + params.tray_mm
    up = np.array([0.0, 0.0, 1.0])
    over, under = shapes.half_space(np.zeros(3), -up), shapes.half_space((floor + stock) * up, up)
    plate = out & over & under
    wall = (
        (out - out.offset(-RIM_WIDTH_MM - stock)) & over & shapes.half_space((floor + RIM_HEIGHT_MM + stock) * up, up)
    )
    keel = shapes.shared(_fixation(ml, float(fit.params["keel_length_mm"]), sign, params))
    box = np.array([[*out.bounds[0][:2] - 1.0, 0.0], [*out.bounds[1][:2] + 1.0, floor + RIM_HEIGHT_MM + stock]])
    body = plate | wall
    body = Field(body.evaluate, box, body.lipschitz, body.exact, body.form)
    envelope = shapes.shared(body | keel)
    porous = (out.offset(-1.0) & over & shapes.half_space(params.coat_mm * up, up)) - keel.offset(1.0)
    porous = shapes.shared(Field(porous.evaluate, box, porous.lipschitz, porous.exact, porous.form))
    cut = shapes.half_space(np.zeros(3), -up) | keel
    return Design(envelope - porous, porous, envelope, Lattice(), cut, _machined(fit, ml, sign, params))


def _machined(fit: Fit, ml: float, sign: float, params: TibialParams) -> tuple[dict[str, Any], ...]:
    """Datums and faces a shop finishes, as plain data in patient LPS; the cut plane for a guide."""
    pose, frame = fit.pose, "patient LPS mm, as part.stl"
    up, floor = pose.rotation[:, 2], params.coat_mm + params.tray_mm
    outline = np.asarray(sizes.tray(ml, sign).outline)
    long = float(np.linalg.norm(outline - np.roll(outline, -1, axis=0), axis=1).sum())
    area = 0.5 * abs(
        float(np.sum(outline[:, 0] * np.roll(outline[:, 1], -1) - outline[:, 1] * np.roll(outline[:, 0], -1)))
    )

    def ring(height: float) -> list[list[float]]:
        return pose.apply(np.column_stack([outline[::6], np.full(len(outline[::6]), height)])).round(4).tolist()

    length = float(fit.params["keel_length_mm"])
    named = {"pegs": "peg axis"}.get(params.fixation, "keel axis")
    rods = [
        {"name": f"{named} {number}" if params.fixation == "pegs" else named, "kind": "datum axis", "frame": frame,
         "at_mm": pose.apply(head * [1.0, 1.0, 0.0]).tolist(), "axis": (-up).tolist(), "length_mm": length,
         "top_mm": pose.apply(head).tolist(), "top_diameter_mm": 2 * wide, "tip_mm": pose.apply(tip).tolist(),
         "tip_diameter_mm": 2 * thin, "stock_mm": 0.0, "stock_mm3": 0.0}
        for number, (head, tip, wide, thin) in enumerate(shafts(ml, length, params), 1)
    ]  # fmt: skip
    return (
        {"name": "tray plane", "kind": "plane", "frame": frame, "at_mm": pose.apply(floor * np.eye(3)[2]).tolist(),
         "axis": up.tolist(), "stock_mm": params.rim_stock_mm, "stock_mm3": area * params.rim_stock_mm},
        {"name": "bone face", "kind": "datum plane", "frame": frame, "at_mm": pose.origin_mm.tolist(), "axis": up.tolist(),
         "stock_mm": 0.0, "stock_mm3": 0.0},
        {"name": "locking rim", "kind": "wall", "frame": frame, "outer_outline_mm": ring(floor), "width_mm": RIM_WIDTH_MM,
         "height_mm": RIM_HEIGHT_MM, "axis": up.tolist(), "stock_mm": params.rim_stock_mm,
         "stock_mm3": long * params.rim_stock_mm * (RIM_HEIGHT_MM + RIM_WIDTH_MM),
         "note": "inner face and top carry stock; the undercut that holds the insert is milled"},
        *rods,
        *({**row, "stock_mm3": 0.0} for row in fit.params["cuts"]),
    )  # fmt: skip


def datum_error_mm(local: Array, ml_mm: float, handed: float, params: TibialParams) -> float:
    """How far the mesh's floor and the solid rim of its bone face (implant-local vertices) lie from their datums plus
    stock: the floor's middle value, the lowest of the rim."""
    floor = params.coat_mm + params.tray_mm + params.rim_stock_mm
    edge = outline_field(ml_mm, handed)(local)
    top = local[(np.abs(local[:, 2] - floor) < 0.15) & (edge < -RIM_WIDTH_MM - params.rim_stock_mm - 0.2)][:, 2] - floor
    low = local[(np.abs(local[:, 2]) < 0.15) & (edge > -0.3)][:, 2]
    return float(max(np.abs(np.median(top)), np.abs(low.min()))) if len(top) and len(low) else float("nan")


def checks(case: Case, fit: Fit, made: Design, part: Mesh, params: TibialParams) -> tuple[Check, ...]:
    """Fit and geometry of this tray against the limits in use."""
    local = fit.pose.inverse_apply(part.vertices)
    return (
        *_tray.checks(case, fit, made, sizes.TRAY_ML_MM[-1]),
        check("tray_mm", params.tray_mm, "mm", ">=", 3.0, "printed tray >= 3 mm solid under load"),
        check("rim_stock_mm", params.rim_stock_mm, "mm", ">=", 0.3, "machined faces carry >= 0.3 mm stock"),
        check("datum_error_mm", datum_error_mm(local, fit.metrics["size"], frames.handed(case.side), params), "mm", "<=",
              0.03, "floor and bone face of the mesh against datums plus stock: 0.02 mm, 0.01 mm for merged triangles"),
    )  # fmt: skip


IMPLANT = Implant(
    name="knee_tibial",
    summary="tibial tray of a knee: porous underside, keel, stem or pegs, locking rim with stock",
    region="knee",
    needs=("tibia_{side}",),
    Params=TibialParams,
    plan=plan,
    design=design,
    checks=checks,
    phantom=knee,
    blank=blank,
)
