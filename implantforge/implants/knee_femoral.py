"""Femoral component of a knee: joint surface swept along a curve of arcs, porous box of five cuts, lugs; cruciate kept or
replaced by a box. Titanium does not articulate: exported as a trial or as the body under a coating."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import model_validator
from scipy.special import ndtr

from implantforge.core import Anatomy, Array, Check, Design, Fit, FitError, Lattice, Mesh, Pose, check
from implantforge.geom import shapes
from implantforge.geom.inside import inside
from implantforge.implants import Case, Implant, Params, choice, count, deg, mm
from implantforge.stages.knee import box, condyles, distal, femoral, frames, sizes
from implantforge.stages.phantoms import knee
from implantforge.stages.socket import hu_at

DEPTH_SIGMA_MM = 0.15
"""Of a depth read between two surfaces of one bone from CT (0.10 mm at 95 % each), with cuts that hang on landmarks of the
tibia too (drawn knees: 0.10 mm)."""
EXTERNAL_DEG = 3.0
"""Outward turn where nobody gives one (2.7 +- 2.1 measured)."""


class FemoralParams(Params):
    """What an engineer may set; what is left out is found from the patient."""

    size: int | None = count(
        None, 52, 76, "depth (AP) of the component, even; found when absent", source="vendors' catalogues: 52-76"
    )
    width: str = choice("auto", ("auto", "standard", "narrow"), "the narrow variant is 4 mm narrower", tag="M",
                        source="2-5 mm")  # fmt: skip
    alignment: str | None = choice(None, (None, "mechanical", "kinematic"), "across the mechanical axis, or resurfaced; "
                                   "mechanical when absent, in a whole knee the whole's")  # fmt: skip
    rotation: str = choice(
        "pca", ("pca", "tea"), "turned from the hindmost points of the condyles, or along the epicondyles"
    )
    external_deg: float | None = deg(None, 0.0, 8.0, "outward turn against the hindmost points (pca); 3 when "
                                     "absent, or by the alignment", tag="R",
                                     source="3 deg by default; 2.7 +- 2.1 measured")  # fmt: skip
    valgus_deg: float | None = deg(None, -8.0, 8.0, "valgus against the long axis; by the alignment when absent")
    turn_deg: float | None = deg(None, -8.0, 12.0, "outward turn, as external_deg but either way; by the alignment when "
                                 "absent")  # fmt: skip
    shaft_valgus_deg: float = deg(6.0, 3.0, 9.0, "shaft to mechanical axis, where the head is not in the scan", tag="R",
                                  source="5.99 +- 0.70, median 5.0; drawn knees 5.7 +- 2.4")  # fmt: skip
    distal_mm: float = mm(
        9.0, 5.0, 12.0, "resection above the lower condyle", tag="M", source="the component's thickness"
    )
    cartilage_mm: float = mm(2.0, 0.0, 4.0, "cartilage that a CT does not show, taken off kinematic resections")
    shift_mm: float = mm(
        0.5, 0.0, 1.5, "forward shift accepted for a smaller size", source="<= 1.5 mm; 0.5 keeps the gaps"
    )
    cruciate: str = choice("CR", ("CR", "PS"), "posterior cruciate kept, or replaced by a box and cam")
    coat_mm: float = mm(1.2, 0.8, 1.6, "porous layer on the cut faces", tag="M", source="0.8-2.0 mm", of="design")
    lug_mm: float = mm(7.0, 6.0, 8.0, "diameter of the lugs", tag="M", source="6-8 x 10-14 mm", of="design")
    bearing_stock_mm: float = mm(0.5, 0.4, 1.0, "stock on the joint surface, for machining and polishing", tag="M",
                                 source="+0.3-0.5 mm and more", of="design")  # fmt: skip

    @model_validator(mode="after")
    def _one_turn(self) -> FemoralParams:
        """One setting at most says the outward turn."""
        both = [
            f"{name} = {value:g}" for name in ("turn_deg", "external_deg") if (value := getattr(self, name)) is not None
        ]
        both += ["rotation = tea"] if self.rotation == "tea" else []
        if len(both) > 1:
            raise ValueError(f"{' and '.join(both)} both set the outward turn; give one")
        return self


def given_turn(anatomy: Anatomy, frame: frames.Frame, params: FemoralParams) -> float | None:
    """The outward turn that a person gives, deg, by whichever setting; None: the alignment's. AnatomyError when the
    epicondyles asked for are not on the bone."""
    if params.rotation == "tea":
        return femoral.epicondylar_deg(anatomy, frame)
    return params.external_deg if params.turn_deg is None else params.turn_deg


def angles(bone: distal.Distal, frame: frames.Frame, case: Case, params: FemoralParams) -> femoral.Angles:
    """Valgus and outward turn by the recipe: what is given wins, the rest is by the alignment."""
    kinematic = params.alignment == "kinematic"
    valgus, turn = params.valgus_deg, given_turn(case.anatomy[f"femur_{case.side}"], frame, params)
    if valgus is None:
        valgus = femoral.native_valgus_deg(bone, frame.pose, case.side) if kinematic else 0.0
    if turn is None:
        turn = 0.0 if kinematic else EXTERNAL_DEG
    return femoral.Angles(valgus, turn)


def given(fit: Fit, params: FemoralParams) -> list[str]:
    """The angles of a plan that a person gave, as they are told."""
    out = [] if params.valgus_deg is None else [f"{params.valgus_deg:+.1f} deg of valgus"]
    turned = f"turned {fit.metrics['external_to_condyles_deg']:+.1f} deg outward"
    if params.rotation == "tea":
        return [*out, f"{turned}, along the epicondyles"]
    return out if params.turn_deg is None and params.external_deg is None else [*out, turned]


def plan(case: Case, params: FemoralParams) -> Fit:
    """Cut planes by the alignment, then every size at its place: the one whose flange lies on the front cortex without a
    notch and that hangs over by at most 1 mm wins.

    Gaps: the posterior cut takes of both condyles together what the distal one takes. FitError with numbers when no size
    fits, AnatomyError when axis or condyles are not on the bone.
    """
    name = f"femur_{case.side}"
    anatomy, mesh = case.anatomy[name], case.bones[name]
    frame = frames.femur(mesh, anatomy, params.shaft_valgus_deg)
    bone = distal.of(mesh, frame.pose)
    turned = angles(bone, frame, case, params)
    axes = femoral.axes(frame, case.side, turned)
    asked = femoral.Asked(resection_mm(params), params.shift_mm, _depth(params), _narrow(params))
    found = femoral.rows(bone, axes, case.side, asked)
    best = found[0]
    if best["notch_mm"] > 0.5 or not np.isfinite(best["overhang_mm"]):
        which = f"no size fits {name}: the nearest, {best['size']},"
        if params.size is not None:
            which = f"the size asked, {params.size}, does not fit {name} (leave it out to see those that do): it"
        raise FitError(
            f"knee_femoral: {which} notches the front cortex by {best['notch_mm']:.1f} mm and hangs over by "
            f"{best['overhang_mm']:.1f} mm"
        )
    size = sizes.femoral(best["ap_mm"], best["narrow"])
    pose = Pose(axes.rotation, axes.apply(np.array([best["x_mm"], best["y_mm"], best["z_mm"]])))
    metrics, gap = _measure(case, bone, pose, size, best)
    native = femoral.native_valgus_deg(bone, frame.pose, case.side)
    chances, odds = _chances(found, best, size, frames.BOW_SIGMA_DEG if frame.assumed else frame.sigma_deg, params)
    metrics |= chances | _box_bone(mesh, pose, size, case.side, params) | {
        "valgus_deg": turned.valgus_deg, "external_to_condyles_deg": turned.external_deg, "native_valgus_deg": native,
        "ldfa_before_deg": 90.0 - native, "ldfa_after_deg": 90.0 - turned.valgus_deg, "axis_sigma_deg": frame.sigma_deg,
        "axis_assumed": float(frame.assumed),
    }  # fmt: skip
    if "lateral_epicondyle" in anatomy.landmarks and "medial_epicondyle" in anatomy.landmarks:
        metrics["external_to_epicondyles_deg"] = turned.external_deg - femoral.epicondylar_deg(anatomy, frame)
    told = tuple(_told(row, rank, best, odds) for rank, row in enumerate(_worth_telling(found, odds), start=1))
    told[0]["why"] += f"; {cruciate(metrics, params)}"
    values: dict[str, Any] = {
        "size": size.name, "ap_mm": size.ap_mm, "ml_mm": size.ml_mm, "narrow": best["narrow"], "side": case.side,
        "axis": frame.how, "bone_rotation": frame.pose.rotation.tolist(), "bone_origin_mm": frame.pose.origin_mm.tolist(),
        "cuts": femoral.cut_rows(size, pose, best["planes"]), "gap_samples": gap, "depth_odds_pct": odds,
    }  # fmt: skip
    fit = Fit("knee_femoral", values, pose, metrics, told, told[0]["why"])
    said = [cruciate(metrics, params), odds_told(fit)]
    said += [f"given, not by the alignment: {', '.join(rows)}" for rows in [given(fit, params)] if rows]
    values["told"] = [f"{line[0].upper()}{line[1:]}." for line in said if line]
    return fit


def cruciate(metrics: Mapping[str, Any], params: FemoralParams) -> str:
    """What becomes of the posterior cruciate, and the bone that a box leaves, as it is told."""
    if params.cruciate == "CR":
        return "posterior cruciate kept (CR)"
    left = " / ".join(f"{metrics[f'box_bone_{part}_mm']:.1f}" for part in ("medial", "lateral"))
    return f"posterior cruciate replaced (PS): its box leaves {left} mm of bone beside it, medial / lateral"


def odds_told(fit: Fit) -> str:
    """How likely each depth is, as it is told; empty where a size was asked."""
    rows = sorted(fit.params["depth_odds_pct"].items(), key=lambda row: -row[1])
    return f"odds of the femoral depth: {', '.join(f'{ap} {share:.0f} %' for ap, share in rows)}" if rows else ""


def _box_bone(bone: Mesh, pose: Pose, size: sizes.Femoral, side: str, params: FemoralParams) -> dict[str, float]:
    """Bone beside the box, mm; nothing without a box."""
    s = condyles.shape(size, frames.handed(side), params.cruciate == "PS", params.lug_mm)
    if s.housing is None:
        return {}
    left = femoral.by_side(box.beside(bone, pose, size, s).least_mm, side)
    return {f"box_bone_{name}_mm": value for name, value in zip(("medial", "lateral"), left)}


def resection_mm(params: FemoralParams) -> float:
    """From the bone's lower condyle; resurfacing counts the cartilage that is not seen."""
    return params.distal_mm - (params.cartilage_mm if params.alignment == "kinematic" else 0.0)


def _depth(params: FemoralParams) -> float | None:
    if params.size is not None and params.size not in sizes.FEMORAL_AP_MM:
        raise FitError(f"knee_femoral: no size {params.size}; there are 52-76 by 2 mm")
    return None if params.size is None else float(params.size)


def _narrow(params: FemoralParams) -> bool | None:
    return None if params.width == "auto" else params.width == "narrow"


def _measure(
    case: Case, bone: distal.Distal, pose: Pose, size: sizes.Femoral, best: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metrics of the winner, and points of its porous faces with their gap to the cut bone."""
    local, gap = femoral.face_points(bone, pose, size, frames.handed(case.side))
    points = pose.apply(local)
    hu = hu_at(case.volume, pose.apply(local + np.array([0.0, 0.0, 2.0]))[gap < -2.0])
    hu = hu[np.isfinite(hu)]
    planes = best["planes"]
    metrics: dict[str, Any] = {
        "size": size.ap_mm, "ml_mm": size.ml_mm, "overhang_mm": best["overhang_mm"], "underhang_mm": best["underhang_mm"],
        "flange_proud_mm": best["flange_proud_mm"], "notch_mm": best["notch_mm"], "shift_mm": best["shift_mm"],
        **{key: getattr(planes, key) for key in planes._fields if key.endswith("al_mm")},
        "fit_gap_mean_mm": float(np.maximum(gap, 0).mean()), "fit_gap_p95_mm": float(np.percentile(np.maximum(gap, 0), 95)),
        "contact_pct": float(100.0 * np.mean(gap <= 0.0)),
    }  # fmt: skip
    if len(hu):
        metrics |= {"contact_hu_median": float(np.median(hu)), "contact_hu_p10": float(np.percentile(hu, 10))}
    return metrics, {"points_mm": points.round(3).tolist(), "gap_mm": np.maximum(gap, 0.0).round(3).tolist()}


def _chances(
    found: list[dict[str, Any]], best: dict[str, Any], size: sizes.Femoral, sigma_deg: float, params: FemoralParams
) -> tuple[dict[str, float], dict[str, float]]:
    """How likely this depth is, any smaller one and any larger one; and each depth of 1 % or more by itself. A forward tilt
    of the axis moves the front cortex at the flange's top. Of a size that was asked only the sigma is told."""
    sigma = float(np.hypot(DEPTH_SIGMA_MM, np.radians(sigma_deg) * size.top_mm))
    if params.size is not None:
        return {"size_sigma_mm": sigma}, {}
    own = int(size.ap_mm)
    shares = _shares(found, best, sigma, params.shift_mm, False)
    if max(shares.values()) > shares[own]:
        # a step that is the same for every bone may contradict the rank; what each size leaves on this bone does not
        shares = _shares(found, best, sigma, params.shift_mm, True)
    smaller = round(100 * sum(share for ap, share in shares.items() if ap < own), 2)
    larger = round(100 * sum(share for ap, share in shares.items() if ap > own), 2)
    out = {"size_smaller_probability_pct": smaller, "size_larger_probability_pct": larger, "size_sigma_mm": sigma,
           "size_probability_pct": round(100 - smaller - larger, 2)}  # fmt: skip
    return out, {str(ap): round(100 * share, 2) for ap, share in shares.items() if share >= 0.01}


def _shares(
    found: list[dict[str, Any]], best: dict[str, Any], sigma: float, shift_mm: float, read: bool
) -> dict[int, float]:
    """Share of each depth, 0 to 1: it does not notch when shifted and the next smaller one does. read: by what every size
    leaves in front of this bone, else by the step between sizes on a level one."""
    proud = {row["ap_mm"]: row["flange_proud_mm"] - row["shift_mm"] for row in found}
    here, step = proud[best["ap_mm"]], 2.0 + 1.44 * np.tan(np.radians(sizes.DIVERGENCE_DEG))
    fits, before = {}, 0.0
    for ap in sizes.FEMORAL_AP_MM:
        at = proud.get(ap, np.nan)
        at = at if read and np.isfinite(at) else here + (ap - best["ap_mm"]) / 2 * step
        up_to = 1.0 if ap == sizes.FEMORAL_AP_MM[-1] else max(before, float(ndtr((at + shift_mm) / sigma)))
        fits[ap], before = up_to - before, up_to
    return fits


def _worth_telling(found: list[dict[str, Any]], odds: Mapping[str, float]) -> list[dict[str, Any]]:
    """The first eight rows, and the best row of every depth that the odds name; in their order."""
    first = {row["ap_mm"]: row for row in reversed(found)}
    named = [first[ap] for ap in map(int, odds) if ap in first]
    return [row for rank, row in enumerate(found) if rank < 8 or any(row is one for one in named)]


def _told(row: dict[str, Any], rank: int, best: dict[str, Any], odds: Mapping[str, float]) -> dict[str, Any]:
    """A row as people read it; odds are its depth's, both widths together."""
    lies = f"flange {row['flange_proud_mm']:.1f} mm in front of the cortex, overhang {row['overhang_mm']:+.1f} mm"
    if row["notch_mm"] > 0:
        why = f"does not fit: notches the front cortex by {row['notch_mm']:.1f} mm"
    elif row is best:
        why = f"size {row['size']}: nearest the front cortex without a notch ({lies}, {row['shift_mm']:.1f} mm forward)"
    else:
        why = f"{lies}: {row['cost'] - best['cost']:.1f} mm worse in all"
    kept = {key: row[key] for key in ("size", "ap_mm", "ml_mm", "flange_proud_mm", "notch_mm", "shift_mm", "overhang_mm",
                                      "underhang_mm")}  # fmt: skip
    kept |= {key: getattr(row["planes"], key) for key in row["planes"]._fields if key.endswith("al_mm")}
    shown = {key: round(value, 3) if isinstance(value, float) else value for key, value in kept.items()}
    if odds:
        shown["odds_pct"] = odds.get(f"{row['ap_mm']:.0f}", 0.0)
    return {"rank": rank, **shown, "score": round(-row["cost"], 3), "why": why}


def _shape(fit: Fit, params: FemoralParams) -> tuple[sizes.Femoral, condyles.Shape]:
    size = sizes.femoral(float(fit.params["ap_mm"]), bool(fit.params["narrow"]))
    return size, condyles.shape(size, frames.handed(fit.params["side"]), params.cruciate == "PS", params.lug_mm)


def design(fit: Fit, params: FemoralParams) -> Design:
    """Fields in local mm (x patient-left, y posterior, z up, origin on the lowest joint surface between the condyles):
    body between the joint surface with its stock and the five cuts, lugs, porous layer on the cut faces."""
    size, s = _shape(fit, params)
    printed = shapes.shared(s.joint.offset(params.bearing_stock_mm))
    body = printed - s.kept - s.notch
    solid_only = s.lugs.offset(1.0) | s.notch.offset(condyles.RIM_MM)
    fixed = s.lugs
    if s.housing is not None and s.hollow is not None and s.cam is not None:
        body = (body | (s.housing & printed)) - s.hollow | (s.cam & printed)
        solid_only |= s.housing.offset(1.0)
    envelope = shapes.shared(body | fixed)
    layer = (s.kept.offset(params.coat_mm) - s.kept) & s.joint.offset(-condyles.SKIN_MM)
    porous = shapes.shared(layer - solid_only)
    cut = condyles.removed(size) | s.lugs
    if s.housing is not None:
        cut |= s.housing
    return Design(envelope - porous, porous, envelope, Lattice(), cut, _machined(fit, size, params))


def _machined(fit: Fit, size: sizes.Femoral, params: FemoralParams) -> tuple[dict[str, Any], ...]:
    """The joint surface a shop finishes and polishes, and the planes a guide cuts, as plain data in patient LPS."""
    pose, frame = fit.pose, "patient LPS mm, as part.stl"
    curve = sizes.curve_points(size.radii, size.top_mm)
    long = float(np.linalg.norm(np.diff(curve, axis=0), axis=1).sum())
    bearing = {
        "name": "joint surface", "kind": "swept arcs", "frame": frame, "origin_mm": pose.origin_mm.tolist(),
        "posterior": pose.rotation[:, 1].tolist(), "up": pose.rotation[:, 2].tolist(),
        "arcs_mm": dict(zip(("distal", "middle", "posterior", "anterior"), size.radii)),
        "arc_ends_deg": [sizes.FIRST_DEG, sizes.SECOND_DEG, sizes.LAST_DEG],
        "coronal_radius_mm": condyles.coronal_radius_mm(size),
        "condyle_aside_mm": condyles.aside_mm(size), "stock_mm": params.bearing_stock_mm,
        "stock_mm3": 0.8 * long * size.ml_mm * params.bearing_stock_mm,
        "note": "titanium does not articulate: coat (TiN, oxidised) and validate, or use as a trial",
    }  # fmt: skip
    return (bearing, *({**row, "stock_mm3": 0.0} for row in fit.params["cuts"]))


def thinnest_mm(size: sizes.Femoral, s: condyles.Shape, sign: float) -> float:
    """Least metal between the cut faces and the finished joint surface, 5 mm inside the sides."""
    places = femoral.stations(size, 1.0)
    places = places[places[:, 1] < size.tip_mm - 4.0]
    rows = []
    for y, z in places:
        x = np.arange(-0.5, 0.501, 0.05) * 2 * (float(size.half_width(y, z)) - 5.0) + sign * float(size.middle(y))
        rows.append(np.stack(np.broadcast_arrays(x, y, z), axis=1))
    points = np.concatenate(rows)
    points = points[(s.notch(points) > 2.0)]
    return float((-s.joint(points)).min())


def outside_mm3(
    bone: Mesh, made: Design, pose: Pose, s: condyles.Shape, beside: box.Beside | None = None, step_mm: float = 0.6
) -> tuple[float, float]:
    """Metal in bone that is not cut, and metal of lugs and box beyond the bone's surface, mm3 on a lattice of points.
    beside: of a box, which may stand in the open notch with bone on both sides of it."""
    low, high = made.envelope.bounds
    axes = [np.arange(a + step_mm / 2, b, step_mm) for a, b in zip(low, high)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    points = points[s.kept(points) < -0.02]
    points = points[made.envelope(points) < 0.0]
    assert made.bone_cut is not None
    within = inside(bone, pose.apply(points))
    uncut = within & (made.bone_cut(points) > 0.02)
    if s.housing is not None and beside is not None:
        within |= (s.housing(points) < 0.05) & beside.flanked(points)
    return float(uncut.sum()) * step_mm**3, float((~within).sum()) * step_mm**3


def checks(case: Case, fit: Fit, made: Design, part: Mesh, params: FemoralParams) -> tuple[Check, ...]:
    """Fit and geometry of this component against the limits in use."""
    m, sign = fit.metrics, frames.handed(case.side)
    size, s = _shape(fit, params)
    bone = case.bones[f"femur_{case.side}"]
    beside = None if s.housing is None else box.beside(bone, fit.pose, size, s)
    uncut, beyond = outside_mm3(bone, made, fit.pose, s, beside)
    rows = [
        check("bone_overlap_mm3", uncut, "mm3", "<=", 0.0, "no metal in bone outside the planned cuts"),
        check("fixation_outside_bone_mm3", beyond, "mm3", "<=", 0.0, "lugs and box within the outer cortex or the notch"),
        check("overhang_mm", m["overhang_mm"], "mm", "<=", femoral.OVERHANG_MOST_MM,
              "femoral overhang <= 3 mm (Mahoney 2010)"),
        check("overhang_target_mm", m["overhang_mm"], "mm", "<=", femoral.OVERHANG_MM,
              "no overhang > 1 mm wanted", severity="flag"),
        check("notch_mm", m["notch_mm"], "mm", "<=", 0.0, "no notch: flange not under the front cortex"),
        check("flange_proud_mm", m["flange_proud_mm"], "mm", "<=", 1.0, "anterior plane 0-1 mm in front of the cortex",
              severity="flag"),
        check("wall_mm", thinnest_mm(size, s, sign), "mm", ">=", condyles.SKIN_MM,
              "metal once polished >= 2 mm, the solid skin over the porous layer"),
        check("flange_mm", sizes.FLANGE_MM, "mm", ">=", 4.0, "anterior flange 4-7 mm"),
        check("bearing_stock_mm", stock_left_mm(part, fit, size, s, params), "mm", ">=", 0.3,
              "machined faces carry >= 0.3 mm"),
        check("bearing_material", 0.0, "coated", ">=", 1.0, "plain Ti-6Al-4V is unsuitable as an articulating surface: "
              "this is a trial or the body under a coating", severity="flag"),
        check("mechanical_axis_measured", 1.0 - m["axis_assumed"], "axes", ">=", 1.0, f"axis {fit.params['axis']}",
              severity="flag"),
        check("femur_rotation_deg", m["external_to_condyles_deg"], "deg", "<=", 9.0,
              "turn to the hindmost points: -3.6 to +9.0", severity="flag"),
    ]  # fmt: skip
    if "external_to_epicondyles_deg" in m:
        off = abs(m["external_to_epicondyles_deg"])
        rows.append(check("epicondylar_deviation_deg", off, "deg", "<=", 3.0, "within 3 deg of the epicondyles' line",
                          severity="flag"))  # fmt: skip
    if beside is not None:
        for name, left in zip(("medial", "lateral"), femoral.by_side(beside.least_mm, case.side)):
            rows.append(check(f"box_bone_{name}_mm", left, "mm", ">=", box.BESIDE_MM,
                              "[P] condyle left beside the box >= 12 mm, half of what drawn knees keep; narrow ones break "
                              "there (Lombardi 1995): choose CR or a narrower component"))  # fmt: skip
    return tuple(rows)


def stock_left_mm(part: Mesh, fit: Fit, size: sizes.Femoral, s: condyles.Shape, params: FemoralParams) -> float:
    """Least distance of the printed joint surface of the condyles to the finished one, along their middles."""
    local = fit.pose.inverse_apply(part.vertices)
    near = np.abs(np.abs(local[:, 0]) - condyles.aside_mm(size)) < 3.0
    values: Array = np.asarray(s.joint(local[near]))
    outer = values[(values > 0.5 * params.bearing_stock_mm) & (local[near][:, 2] < 0.6 * size.tip_mm)]
    return float(outer.min()) if len(outer) else float("nan")


IMPLANT = Implant(
    name="knee_femoral",
    summary="femoral component of a knee: porous box of five cuts, joint surface with stock; a trial or a body to be coated",
    region="knee",
    needs=("femur_{side}",),
    Params=FemoralParams,
    plan=plan,
    design=design,
    checks=checks,
    phantom=knee,
)
