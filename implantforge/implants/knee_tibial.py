"""Tibial tray of a knee: a D on the cut face, solid over a porous underside; keel, stem or pegs; locking rim with stock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtr

from implantforge.core import Array, Check, Design, Field, Fit, FitError, Grid, Lattice, Mesh, Pose, Side, check
from implantforge.core.field import Form
from implantforge.geom import shapes
from implantforge.geom.inside import inside
from implantforge.implants import Case, Implant, Params, choice, deg, mm
from implantforge.stages.knee import cover, frames, sizes, tibial
from implantforge.stages.phantoms import knee
from implantforge.stages.socket import hu_at

RIM_WIDTH_MM, RIM_HEIGHT_MM = 2.5, 3.5
"""Of the wall that locks the insert."""
STEM_MM, TIP_MM, PEG_MM, PEG_LENGTH_MM, WING_MM = 13.0, 8.0, 9.0, 14.0, 3.5
RESECTION_MM = (8.0, 10.0)
"""Customary depth under the higher (less worn) plateau."""
KEEL_LENGTHS_MM = (45.0, 40.0, 35.0, 30.0, 25.0)
"""Tried from the longest: 25-50 mm."""
CLEAR_MM = 2.0
"""Bone left between a keel and the outer surface."""
OVERHANG_SIGMA_MM = 0.12
"""Of the overhang of a tray laid on a cut face: borders from CT (0.10 mm at 95 %), cut and turn by landmarks (drawn knees:
0.05 mm)."""


class TibialParams(Params):
    """What an engineer may set; what is left out is found from the patient."""

    size: int | None = choice(None, (None, *(int(w) for w in sizes.TRAY_ML_MM)), "width of the tray; found when absent",
                              source="vendors\' catalogues: 58-85 mm")  # fmt: skip
    alignment: str | None = choice(None, (None, "mechanical", "kinematic"), "across the mechanical axis, or along the "
                                   "plateaus; mechanical when absent, in a whole knee the whole's")  # fmt: skip
    slope_deg: float | None = deg(None, 0.0, 10.0, "posterior slope; 3 when absent, kinematic: the patient's own within 0-7",
                                  tag="M", source="0-7, CR 3-7, PS 0-3, default 3")  # fmt: skip
    valgus_deg: float | None = deg(None, -8.0, 8.0, "valgus against the long axis; by the alignment when absent")
    resection_mm: float = mm(9.0, 4.0, 16.0, "under the higher (less worn) plateau's middle, as CT shows it", tag="M",
                             source="8-10 mm")  # fmt: skip
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
    """The cut by the alignment, turned along Akagi's line; the largest tray that hangs over by at most 1 mm where least of
    it does; the longest keel that stays in the bone. FitError with numbers when none fits."""
    name = f"tibia_{case.side}"
    mesh = case.bones[name]
    frame, slope, native, valgus, cut, medial, lateral = resected(case, params)
    face = cover.face(mesh, cut)
    found = tibial.rows(face, case.side, None if params.size is None else float(params.size))
    best = found[0]
    if best["overhang_mm"] > tibial.OVERHANG_MOST_MM:
        which = f"no tray fits {name}: even the {best['size']} mm one"
        if params.size is not None:
            which = f"the tray asked, {params.size} mm, does not fit {name} (leave size out to see those that do): it"
        raise FitError(f"knee_tibial: {which} hangs over by "
                       f"{best['overhang_mm']:.1f} mm ({tibial.OVERHANG_MOST_MM:.0f} allowed)")  # fmt: skip
    pose = Pose(cut.rotation, cut.apply(np.array([best["x_mm"], best["y_mm"], 0.0])))
    keel = _keel(case, mesh, pose, best["ml_mm"], params)
    metrics, gap = _measure(case, face, pose, best)
    metrics |= _chances(found, best) | {
        "resection_medial_mm": medial, "resection_lateral_mm": lateral, "slope_deg": slope, "valgus_deg": valgus,
        "native_valgus_deg": native, "mpta_before_deg": 90.0 + native, "mpta_after_deg": 90.0 + valgus,
        "axis_sigma_deg": frame.sigma_deg, "axis_assumed": float(frame.assumed), "keel_length_mm": keel[0],
        "keel_clear_mm": keel[1], "cut_area_mm2": face.area_mm2,
    }  # fmt: skip
    told = tuple(_told(row, rank, best) for rank, row in enumerate(found, start=1))
    row = {"name": "tibia", "kind": "cut plane", "frame": "patient LPS mm", "bone": "tibia",
           "point_mm": cut.origin_mm.tolist(), "normal": cut.rotation[:, 2].tolist(),
           "removed_medial_mm": medial, "removed_lateral_mm": lateral}  # fmt: skip
    values: dict[str, Any] = {
        "size": best["size"], "ml_mm": best["ml_mm"], "ap_mm": best["ap_mm"], "side": case.side, "axis": frame.how,
        "keel_length_mm": keel[0], "bone_rotation": frame.pose.rotation.tolist(),
        "stack_mm": params.tray_mm + params.coat_mm, "cuts": [row], "gap_samples": gap,
        "told": [f"Given, not by the alignment: {', '.join(rows)}." for rows in [given(params)] if rows],
    }  # fmt: skip
    if remark := resection_remark(metrics):
        values["told"].append(f"{remark[0].upper()}{remark[1:]}.")
        told[0]["why"] += f"; {remark}"
    return Fit("knee_tibial", values, pose, metrics, told, told[0]["why"])


def given(params: TibialParams) -> list[str]:
    """The angles that a person gave, as they are told."""
    rows = ((params.valgus_deg, "+.1f", "valgus"), (params.slope_deg, ".1f", "slope"))
    return [f"{value:{form}} deg of {name}" for value, form, name in rows if value is not None]


def resection_remark(metrics: Mapping[str, Any]) -> str:
    """Said of a cut that lies more than 1 mm outside the customary depth; empty of others."""
    removed = max(metrics["resection_medial_mm"], metrics["resection_lateral_mm"])
    low, high = RESECTION_MM
    if low - 1.0 <= removed <= high + 1.0:
        return ""
    return f"the tibia is cut {removed:.1f} mm under its higher plateau, where {low:.0f}-{high:.0f} mm are customary"


class Resected(NamedTuple):
    """The cut by the recipe: the bone's frame, slope, native and planned valgus, the cut's pose, what it removes."""

    frame: frames.Frame
    slope_deg: float
    native_deg: float
    valgus_deg: float
    cut: Pose
    medial_mm: float
    lateral_mm: float


def resected(case: Case, params: TibialParams) -> Resected:
    """The cut of a case, before any tray is laid on it. AnatomyError as `frames.tibia`."""
    anatomy = case.anatomy[f"tibia_{case.side}"]
    frame = frames.tibia(case.bones[anatomy.bone], anatomy, frames.akagi(anatomy))
    slope = slope_of(anatomy.measures, params)
    native = tibial.native_valgus_deg(anatomy, frame, slope)
    valgus = params.valgus_deg
    if valgus is None:
        valgus = native if params.alignment == "kinematic" else 0.0
    return Resected(frame, slope, native, valgus, *tibial.cut(anatomy, frame, slope, valgus, params.resection_mm))


def slope_of(measures: Any, params: TibialParams) -> float:
    """The slope by the recipe: asked, or 3 deg, or (kinematic) the patient's own where it was measured."""
    if params.slope_deg is not None:
        return params.slope_deg
    own = measures.get("posterior_slope_mechanical_deg", measures.get("posterior_slope_deg", 3.0))
    return float(np.clip(own, 0.0, 7.0)) if params.alignment == "kinematic" else 3.0


def _keel(case: Case, mesh: Mesh, pose: Pose, ml_mm: float, params: TibialParams) -> tuple[float, float]:
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
        if clear >= CLEAR_MM:
            return length, clear
    if clear > 0.5:
        return lengths[-1], clear
    raise FitError(f"knee_tibial: a {params.fixation} {lengths[-1]:.0f} mm long leaves tibia_{case.side} "
                   f"({clear:.1f} mm of bone; 0.5 needed); choose another fixation")  # fmt: skip


def _measure(case: Case, face: cover.Plate, pose: Pose, best: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metrics of the winner, and points under the tray with their gap to the cut face (0 on it)."""
    outline = sizes.tray(best["ml_mm"], frames.handed(case.side)).outline
    shift = np.array([best["x_mm"], best["y_mm"]])
    at, off = tibial.face_points(face, outline, shift)
    local = np.column_stack([at, np.zeros(len(at))])
    hu = hu_at(case.volume, pose.apply(local - np.array([0.0, 0.0, 2.0]))[off < -2.0])
    hu = hu[np.isfinite(hu)]
    gap = np.maximum(off, 0.0)
    metrics: dict[str, Any] = {
        "size": best["ml_mm"], "overhang_mm": best["overhang_mm"], "coverage_pct": best["coverage_pct"],
        "fit_gap_mean_mm": float(gap.mean()), "fit_gap_p95_mm": float(np.percentile(gap, 95)),
        "contact_pct": float(100.0 * np.mean(off <= 0.0)),
    }  # fmt: skip
    if len(hu):
        metrics |= {"contact_hu_median": float(np.median(hu)), "contact_hu_p10": float(np.percentile(hu, 10))}
    return metrics, {"points_mm": pose.apply(local).round(3).tolist(), "gap_mm": gap.round(3).tolist()}


def _chances(found: list[dict[str, Any]], best: dict[str, Any]) -> dict[str, float]:
    """How likely this tray and its neighbours are: by how much the overhang of each lies off the limit."""
    by = {row["ml_mm"]: row["overhang_mm"] for row in found}
    above = [w for w in by if w > best["ml_mm"]]
    larger = float(ndtr((tibial.OVERHANG_MM - by[min(above)]) / OVERHANG_SIGMA_MM)) if above else 0.0
    below = any(w < best["ml_mm"] for w in by)
    smaller = float(ndtr((best["overhang_mm"] - tibial.OVERHANG_MM) / OVERHANG_SIGMA_MM)) if below else 0.0
    rounded = [round(100 * share, 2) for share in (smaller, larger)]
    return {"size_smaller_probability_pct": rounded[0], "size_larger_probability_pct": rounded[1],
            "size_probability_pct": round(100 - sum(rounded), 2)}  # fmt: skip


def _series_ends(width_mm: float, overhang_mm: float) -> str:
    """Said of the widest tray where the bone would carry a wider one."""
    if width_mm < sizes.TRAY_ML_MM[-1] or overhang_mm > 0.0:
        return ""
    return f"; the series ends at {width_mm:.0f} mm and the bone reaches {-overhang_mm:.1f} mm past it everywhere"


def _told(row: dict[str, Any], rank: int, best: dict[str, Any]) -> dict[str, Any]:
    """A row as people read it."""
    lies = f"covers {row['coverage_pct']:.0f} %, overhang {row['overhang_mm']:+.1f} mm"
    if row["overhang_mm"] > tibial.OVERHANG_MM:
        why = f"hangs over by {row['overhang_mm']:.1f} mm (1 allowed), covers {row['coverage_pct']:.0f} %"
    elif row is best:
        why = f"{row['size']} mm: the largest that hangs over by at most 1 mm ({lies})"
        why += _series_ends(row["ml_mm"], row["overhang_mm"])
    else:
        why = f"{lies}: covers {best['coverage_pct'] - row['coverage_pct']:.0f} points less"
    shown = {key: round(float(row[key]), 3) for key in ("ml_mm", "ap_mm", "overhang_mm", "coverage_pct")}
    score = row["coverage_pct"] - 20.0 * max(0.0, row["overhang_mm"] - tibial.OVERHANG_MM)
    return {"rank": rank, "size": row["size"], **shown, "score": round(float(score), 3), "why": why}


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


def outside_mm3(bone: Mesh, made: Design, pose: Pose, step_mm: float = 0.6) -> tuple[float, float]:
    """Metal in bone outside the cut and the keel's bed, and metal under the cut face beyond the bone's surface, mm3."""
    low, high = made.envelope.bounds
    axes = [np.arange(a + step_mm / 2, b, step_mm) for a, b in zip(low, [*high[:2], -0.02])]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    points = points[made.envelope(points) < 0.0]
    assert made.bone_cut is not None
    within = inside(bone, pose.apply(points))
    uncut = within & (made.bone_cut(points) > 0.02)
    return float(uncut.sum()) * step_mm**3, float((~within).sum()) * step_mm**3


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
    m = fit.metrics
    uncut, beyond = outside_mm3(case.bones[f"tibia_{case.side}"], made, fit.pose)
    local = fit.pose.inverse_apply(part.vertices)
    least, most = RESECTION_MM
    removed = max(m["resection_medial_mm"], m["resection_lateral_mm"])
    return (
        check("bone_overlap_mm3", uncut, "mm3", "<=", 0.0, "no metal in bone outside the planned cut"),
        check("fixation_outside_bone_mm3", beyond, "mm3", "<=", 0.0, "keel within the outer cortex"),
        check("keel_clear_mm", m["keel_clear_mm"], "mm", ">=", CLEAR_MM, "bone left around the keel >= 2 mm",
              severity="flag"),
        check("overhang_mm", m["overhang_mm"], "mm", "<=", tibial.OVERHANG_MM,
              "tray overhang <= 1 mm (3 mm anywhere at most)"),
        check("coverage_pct", m["coverage_pct"], "%", ">=", tibial.COVERAGE_PCT,
              f"tibial coverage >= 85 %{_series_ends(m['size'], m['overhang_mm'])}"),
        check("tray_mm", params.tray_mm, "mm", ">=", 3.0, "printed tray >= 3 mm solid under load"),
        check("slope_deg", m["slope_deg"], "deg", "<=", 7.0, "slope 0-7 deg"),
        check("resection_least_mm", removed, "mm", ">=", least - 1.0, "8-10 mm under the higher plateau", severity="flag"),
        check("resection_most_mm", removed, "mm", "<=", most + 1.0, "8-10 mm under the higher plateau", severity="flag"),
        check("rim_stock_mm", params.rim_stock_mm, "mm", ">=", 0.3, "machined faces carry >= 0.3 mm stock"),
        check("datum_error_mm", datum_error_mm(local, m["size"], frames.handed(case.side), params), "mm", "<=", 0.03,
              "floor and bone face of the mesh against their datums plus stock: 0.02 mm, 0.01 mm for merged triangles"),
        check("mechanical_axis_measured", 1.0 - m["axis_assumed"], "axes", ">=", 1.0, f"axis {fit.params['axis']}",
              severity="flag"),
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
