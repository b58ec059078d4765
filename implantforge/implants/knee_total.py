"""Whole knee: femoral component and tray planned together, the insert between them chosen so that the gaps match."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import model_validator

from implantforge.core import AnatomyError, Check, Design, Fit, FitError, check
from implantforge.implants import Case, Params, System, _tray, choice, deg, knee_femoral, knee_tibial, mm
from implantforge.implants.knee_femoral import FemoralParams
from implantforge.implants.knee_tibial import TibialParams
from implantforge.stages.knee import distal, femoral, frames, sizes, tibial
from implantforge.stages.phantoms import knee

GAP_TOLERANCE_MM = 0.5
CONDYLES_APART_MM = 46.0
SLOPE_DEG = {"CR": (3.0, 7.0), "PS": (0.0, 3.0)}
"""Of the tibial cut: a kept cruciate needs slope, a cam hits its post with too much of it."""
TURN_DEG = (-3.6, 9.0)
"""Epicondyles lie within this of the hindmost points: a turn that balances goes no further."""


class TotalParams(Params):
    """Alignment and gaps of the whole; parts keep their own values: angles given there win over the alignment, which is
    set here for both."""

    femoral: FemoralParams = FemoralParams()
    tibial: TibialParams = TibialParams()
    alignment: str = choice("functional", ("mechanical", "kinematic", "functional"), "across the mechanical axes; "
                            "resurfaced; or near mechanical so that medial and lateral gaps match")  # fmt: skip
    limit_deg: float = deg(
        3.0, 0.0, 6.0, "farthest a functional cut leaves the mechanical one", tag="M", source="HKA 180 +- 3"
    )
    joint_space_mm: float = mm(4.0, 2.0, 8.0, "cartilage of both bones between the surfaces that a CT shows, "
                               "ligaments taut", source="2 mm a bone; wear does not shorten ligaments")  # fmt: skip
    insert_mm: float | None = choice(None, (None, *sizes.INSERTS_MM), "insert; nearest the resection when absent", "mm",
                                     tag="M", source="8-20 mm")  # fmt: skip
    depth_reach_mm: float = mm(4.0, 0.0, 5.0, "how far the tibial cut may leave the one asked, to match the gaps")

    @model_validator(mode="after")
    def _one_alignment(self) -> TotalParams:
        """A part's alignment is the whole's."""
        for name in ("femoral", "tibial"):
            own = getattr(self, name).alignment
            if own not in (None, self.alignment):
                raise ValueError(f"{name}.alignment = {own} beside alignment = {self.alignment}: one serves both parts; "
                                 f"give alignment = {own}, or {name}.valgus_deg for that part's own cut")  # fmt: skip
        return self


def plan(case: Case, params: TotalParams) -> Fit:
    """Both components by one alignment; then the insert whose stack fills the gap with the least change of the tibial cut,
    and the cut at exactly that depth.

    Gap of a compartment: what is removed of femur and tibia there plus joint_space_mm; in flexion with the posterior
    condyles. Both are measured square to the tibial cut under the plateaus' middles, about which slope turns it: slope does
    not widen the flexion gap here, as it does where the femur rolls back. Ranked alternatives are inserts. FitError when
    no insert fits within depth_reach_mm.
    """
    own = _aligned(case, params)
    thigh = knee_femoral.plan(case, own.femoral)
    asked = _tray.resected(case, own.tibial)
    gap = _gaps(thigh, (asked.medial_mm, asked.lateral_mm), params)["gap_extension_mm"]
    rows = _inserts(gap, own.tibial.tray_mm + own.tibial.coat_mm, params)
    best = rows[0]
    if not best["fits"]:
        which = f"no insert fills a gap of {gap:.1f} mm: the nearest, {best['insert_mm']:.0f} mm,"
        if params.insert_mm is not None:
            which = f"the insert asked, {params.insert_mm:.0f} mm, does not fill a gap of {gap:.1f} mm: it"
        raise FitError(f"knee_total: {which} asks for a tibial cut {_beyond(best['deeper_mm'], params.depth_reach_mm)} mm "
                       f"deeper ({params.depth_reach_mm:g} allowed)")  # fmt: skip
    deeper = own.tibial.model_copy(update={"resection_mm": own.tibial.resection_mm + best["deeper_mm"]})
    shin = knee_tibial.plan(case, deeper)
    gaps = _gaps(thigh, (shin.metrics["resection_medial_mm"], shin.metrics["resection_lateral_mm"]), params)
    metrics = gaps | _alignment(case, thigh, shin) | {
        "insert_mm": best["insert_mm"], "insert_thinnest_mm": best["insert_mm"] - sizes.DISH_MM,
        "stack_mm": best["stack_mm"], "laxity_extension_mm": gaps["gap_extension_mm"] - best["stack_mm"],
        "laxity_flexion_mm": gaps["gap_flexion_mm"] - best["stack_mm"], "tibial_cut_deeper_mm": best["deeper_mm"],
    }  # fmt: skip
    metrics |= _patella(case)
    told = tuple(_told(row, rank, best, params.depth_reach_mm) for rank, row in enumerate(rows, start=1))
    told[0]["why"] += f"; {knee_femoral.cruciate(thigh.metrics, params.femoral)}"
    release = _release(metrics, params)
    values = {
        "told": _sentences(case, metrics, thigh, shin, params, release), "release": release,
        "side": case.side, "alignment": params.alignment, "insert_mm": best["insert_mm"],
        "cuts": [*thigh.params["cuts"], *shin.params["cuts"]], "femur_axis": thigh.params["axis"],
        "tibia_axis": shin.params["axis"], "size": f"femur {thigh.params['size']}, tray {shin.params['size']}",
        "patella_buttons_mm": {str(d): t for d, t in sizes.PATELLA_MM.items()},
    }  # fmt: skip
    parts = {"femoral": _untold(thigh), "tibial": _untold(shin)}
    return Fit("knee_total", values, thigh.pose, metrics, told, told[0]["why"], parts)


def _untold(part: Fit) -> Fit:
    """A part's plan without its own sentences: here the whole's are told, and what it sets is not given by a person."""
    return replace(part, params={name: value for name, value in part.params.items() if name != "told"})


def _aligned(case: Case, params: TotalParams) -> TotalParams:
    """The parts' parameters with the alignment of the whole; functional: valgus and turn solved for equal gaps, those
    given kept."""
    plain = "kinematic" if params.alignment == "kinematic" else "mechanical"
    thigh = params.femoral.model_copy(update={"alignment": plain})
    shin = params.tibial.model_copy(update={"alignment": plain})
    if params.alignment == "functional":
        femur, tibia, turn = _balanced(case, thigh, shin, params.limit_deg)
        thigh = thigh.model_copy(
            update={"valgus_deg": femur, "turn_deg": turn, "external_deg": None, "rotation": "pca"}
        )
        shin = shin.model_copy(update={"valgus_deg": tibia})
    return params.model_copy(update={"femoral": thigh, "tibial": shin})


def _balanced(case: Case, thigh: FemoralParams, shin: TibialParams, most: float) -> tuple[float, float, float]:
    """Valgus of both cuts, shared evenly within most, and outward turn, at which both gaps are as wide medially as
    laterally: what one cut gives the other takes. Where the limit leaves a slant, flexion is turned to the same one, so
    that one release evens both gaps. Angles that are given stay, and the others do what is left to do."""
    femur, tibia = case.anatomy[f"femur_{case.side}"], case.anatomy[f"tibia_{case.side}"]
    top = frames.femur(case.bones[femur.bone], femur, thigh.shaft_valgus_deg)
    low = frames.tibia(case.bones[tibia.bone], tibia, frames.akagi(tibia))
    bone = distal.of(case.bones[femur.bone], top.pose)
    slope = _tray.slope_of(tibia.measures, shin)
    asked = femoral.Asked(thigh.distal_mm, 0.0, None, None)
    held = knee_femoral.given_turn(femur, top, thigh)
    valgus, turn = 0.0, knee_femoral.EXTERNAL_DEG if held is None else held
    shares = (0.0, 0.0)
    for _ in range(8):
        shares = _shared(valgus, most, thigh.valgus_deg, shin.valgus_deg)
        axes = femoral.axes(top, case.side, femoral.Angles(shares[0], turn))
        levels = femoral.levels(bone, axes, case.side, asked)
        _, medial, lateral = tibial.cut(tibia, low, slope, shares[1], shin.resection_mm)
        off = levels.distal_medial_mm - levels.distal_lateral_mm + medial - lateral
        behind = levels.posterior_medial_mm - levels.posterior_lateral_mm
        behind -= levels.distal_medial_mm - levels.distal_lateral_mm
        valgus = float(np.clip(valgus + np.degrees(off / CONDYLES_APART_MM), -most, most))
        if held is None:
            turn = float(np.clip(turn - np.degrees(behind / CONDYLES_APART_MM), *TURN_DEG))
    return shares[0], shares[1], turn


def _shared(valgus: float, most: float, femur: float | None, tibia: float | None) -> tuple[float, float]:
    """Valgus of both cuts: half each, or what is given and the rest, found ones within most of the axes."""
    if femur is None:
        femur = float(np.clip(valgus / 2 if tibia is None else valgus - tibia, -most, most))
    return femur, float(np.clip(valgus - femur, -most, most)) if tibia is None else tibia


def _gaps(thigh: Fit, removed: tuple[float, float], params: TotalParams) -> dict[str, float]:
    """Gaps between the cuts by compartment, their means and differences, mm; removed: of the medial and lateral tibia."""
    f, space = thigh.metrics, params.joint_space_mm
    out: dict[str, float] = {}
    for way, face in (("extension", "distal"), ("flexion", "posterior")):
        both = [f[f"{face}_{part}_mm"] + low + space for part, low in zip(("medial", "lateral"), removed)]
        out |= {f"gap_{way}_medial_mm": both[0], f"gap_{way}_lateral_mm": both[1], f"gap_{way}_mm": sum(both) / 2,
                f"imbalance_{way}_mm": both[0] - both[1]}  # fmt: skip
    out["gap_difference_mm"] = out["gap_flexion_mm"] - out["gap_extension_mm"]
    return out


def _release(m: Mapping[str, Any], params: TotalParams) -> str:
    """What evens medial and lateral gaps that the cuts leave uneven; empty where they are even."""
    tight = {way: -m[f"imbalance_{way}_mm"] for way in ("extension", "flexion")}
    told = [f"{'medial' if off > 0 else 'lateral'} side {abs(off):.1f} mm tighter in {way}" for way, off in tight.items()
            if abs(off) > GAP_TOLERANCE_MM]  # fmt: skip
    if not told:
        return ""
    sides = {off > 0 for off in tight.values() if abs(off) > GAP_TOLERANCE_MM}
    if len(sides) == 2:
        what = "no release serves both"
    else:
        most = max(tight.values(), key=abs)
        what = f"release the {'medial' if most > 0 else 'lateral'} side until it opens {abs(most):.1f} mm"
    if params.alignment == "functional":
        other = f"or let the cuts leave the axes by more than limit_deg = {params.limit_deg:g}"
    else:
        other = 'or plan alignment = "functional"'
    return f"{', '.join(told)}: {what}, {other}"


def _remarks(thigh: Fit, shin: Fit, params: TotalParams) -> list[str]:
    """What a surgeon must not miss: the cruciate, angles that were given, a slope or a cut out of the ordinary."""
    out = [knee_femoral.cruciate(thigh.metrics, params.femoral)]
    if hand := _given(thigh, shin, params):
        out.append(f"given, not found by the {params.alignment} alignment: {hand}")
    slope, kind = shin.metrics["slope_deg"], params.femoral.cruciate
    low, high = SLOPE_DEG[kind]
    if not low <= slope <= high:
        out.append(f"{slope:.1f} deg of slope, where {kind} asks for {low:.0f}-{high:.0f}")
    return [*out, *filter(None, [_tray.resection_remark(shin.metrics)])]


def _given(thigh: Fit, shin: Fit, params: TotalParams) -> str:
    """The angles that a person gave, as they are told; empty without any."""
    parts = {"femoral component": knee_femoral.given(thigh, params.femoral), "tray": _tray.given(params.tibial)}
    return "; ".join(f"{name} {', '.join(rows)}" for name, rows in parts.items() if rows)


def _sentences(case: Case, m: Mapping[str, Any], thigh: Fit, shin: Fit, params: TotalParams, release: str) -> list[str]:
    """The plan as a surgeon reads it first."""
    f, t = thigh.metrics, shin.metrics
    before = f"{m['hka_before_deg']:.1f}" if "hka_before_deg" in m else "not measured, hip or ankle is not in the scan"
    after = "" if "hka_before_deg" in m else ", as sure as the axes assumed"
    out = [
        f"Insert {m['insert_mm']:.0f} mm, {m['insert_thinnest_mm']:.0f} mm at its thinnest.",
        f"Hip-knee-ankle angle {m['hka_after_deg']:.1f} deg after{after} (before: {before}).",
        f"Bone removed, medial / lateral: distal femur {f['distal_medial_mm']:.1f} / {f['distal_lateral_mm']:.1f} mm, "
        f"posterior femur {f['posterior_medial_mm']:.1f} / {f['posterior_lateral_mm']:.1f} mm, tibia "
        f"{t['resection_medial_mm']:.1f} / {t['resection_lateral_mm']:.1f} mm with {t['slope_deg']:.0f} deg of slope.",
        f"Femoral component {abs(f['valgus_deg']):.1f} deg {_way(f['valgus_deg'], 'valgus', 'varus')} and "
        f"{abs(f['external_to_condyles_deg']):.1f} deg "
        f"{_way(f['external_to_condyles_deg'], 'outward', 'inward')} of the hindmost condyles; tray "
        f"{abs(t['valgus_deg']):.1f} deg {_way(t['valgus_deg'], 'valgus', 'varus')}.",
        f"Gaps, medial / lateral: extension {m['gap_extension_medial_mm']:.1f} / {m['gap_extension_lateral_mm']:.1f} mm, "
        f"flexion {m['gap_flexion_medial_mm']:.1f} / {m['gap_flexion_lateral_mm']:.1f} mm, both square to the tibial cut "
        "under the plateaus' middles: slope does not widen the flexion gap told here.",
    ]
    out += [
        f"{line[0].upper()}{line[1:]}."
        for line in [*_remarks(thigh, shin, params), knee_femoral.odds_told(thigh)]
        if line
    ]
    if release:
        out.append(f"Uneven gaps: {release}.")
    if "patella_button_mm" in m:
        out.append(
            f"Patella {m['patella_thickness_mm']:.1f} mm thick: a {m['patella_button_mm']:.0f} mm button takes off "
            f"{m['patella_button_thickness_mm']:.1f} mm, restores the thickness and leaves "
            f"{m['patella_bone_left_mm']:.1f} mm of bone."
        )
    elif "patella_thickness_mm" in m:
        out.append(
            f"Patella {m['patella_thickness_mm']:.1f} mm thick: no button leaves {sizes.PATELLA_LEFT_MM:.0f} mm of bone; "
            "leave it unresurfaced."
        )
    else:
        out.append(f"Patella: not seen beside the {case.side} knee, no button planned.")
    return out


def _way(value: float, positive: str, negative: str) -> str:
    return positive if value >= 0 else negative


def _inserts(gap: float, tray_mm: float, params: TotalParams) -> list[dict[str, Any]]:
    """Every insert with the depth of tibial cut at which the stack fills the mean extension gap, best first."""
    found = []
    for insert in sizes.INSERTS_MM if params.insert_mm is None else (params.insert_mm,):
        stack = sizes.FEMORAL_MM + insert - sizes.DISH_MM + tray_mm
        deeper = stack - gap
        found.append(
            {"insert_mm": insert, "stack_mm": stack, "deeper_mm": deeper, "fits": abs(deeper) <= params.depth_reach_mm}
        )
    return sorted(found, key=lambda row: (not row["fits"], abs(row["deeper_mm"]), row["insert_mm"]))


def _beyond(value: float, most: float) -> str:
    """A signed length beyond a limit with as many digits as show it, three at most: there it is rounded outward."""
    outward = float(np.copysign(np.ceil(1e3 * abs(value)) / 1e3, value))
    return next((text for digits in (1, 2) if abs(float(text := f"{value:+.{digits}f}")) > most), f"{outward:+.3f}")


def _told(row: dict[str, Any], rank: int, best: dict[str, Any], most: float) -> dict[str, Any]:
    """A row as people read it."""
    if not row["fits"]:
        why = f"asks for a tibial cut {_beyond(row['deeper_mm'], most)} mm deeper: too far ({most:g} allowed)"
    elif row is best:
        why = (
            f"{row['insert_mm']:.0f} mm insert: fills the gaps, tibial cut {row['deeper_mm']:+.1f} mm off the one asked"
        )
    else:
        why = f"fills the gaps with the tibial cut {row['deeper_mm']:+.1f} mm off the one asked"
    shown = {key: round(float(row[key]), 3) for key in ("insert_mm", "stack_mm", "deeper_mm")}
    return {"rank": rank, "size": f"{row['insert_mm']:.0f} mm insert", **shown, "score": round(-abs(row["deeper_mm"]), 3),
            "why": why}  # fmt: skip


def _alignment(case: Case, thigh: Fit, shin: Fit) -> dict[str, float]:
    """Hip-knee-ankle angle after (180 straight, less is varus), before where head and ankle are seen, and how the tray is
    turned against the epicondyles and against the femoral component."""
    out = {"hka_after_deg": 180.0 + thigh.metrics["valgus_deg"] + shin.metrics["valgus_deg"]}
    femur, tibia = case.anatomy[f"femur_{case.side}"], case.anatomy[f"tibia_{case.side}"]
    sign = frames.handed(case.side)
    if not thigh.metrics["axis_assumed"] and not shin.metrics["axis_assumed"]:
        up = femur.at("head_center") - femur.at("intercondylar_notch")
        shank = (tibia.at("medial_spine") + tibia.at("lateral_spine")) / 2 - tibia.at("ankle_center")
        axes = np.array(thigh.params["bone_rotation"])
        lean = [float(np.degrees(np.arctan2(way @ axes[:, 0], way @ axes[:, 2]))) for way in (up, shank)]
        out["hka_before_deg"] = 180.0 - sign * (lean[1] - lean[0])
    else:
        # what the joint lines say when they lie on each other
        out["hka_joint_lines_deg"] = 180.0 + thigh.metrics["native_valgus_deg"] + shin.metrics["native_valgus_deg"]
    for name, line in (("epicondyles", _epicondyles(femur, sign)), ("femoral", thigh.pose.rotation[:, 0])):
        if line is not None:
            flat = line @ shin.pose.rotation
            out[f"tray_external_to_{name}_deg"] = -sign * float(np.degrees(np.arctan2(flat[1], flat[0])))
    return out


def _epicondyles(femur: Any, sign: float) -> Any:
    try:
        return sign * (femur.at("lateral_epicondyle") - femur.at("medial_epicondyle"))
    except AnatomyError:
        return None


def _patella(case: Case) -> dict[str, float]:
    """The button for the patella that is seen, and the bone it leaves; nothing without one."""
    mesh = case.bones.get(f"patella_{case.side}")
    if mesh is None:
        return {}
    away = mesh.vertices - mesh.vertices.mean(axis=0)
    axes = np.linalg.svd(away, full_matrices=False)[2]
    spans = sorted(float(np.ptp(away @ way)) for way in axes)
    out = {"patella_thickness_mm": spans[0], "patella_width_mm": spans[1]}
    button = sizes.button(spans[1], spans[0])
    return out if button is None else out | {"patella_button_mm": button.diameter_mm, "patella_button_thickness_mm":
                                             button.thickness_mm, "patella_bone_left_mm": button.bone_left_mm}  # fmt: skip


def checks(case: Case, fit: Fit, designs: Mapping[str, Design], params: TotalParams) -> tuple[Check, ...]:
    """Gaps, alignment and insert of the whole."""
    m = fit.metrics
    most = max(abs(m["imbalance_extension_mm"]), abs(m["imbalance_flexion_mm"]))
    mechanical = params.alignment != "kinematic"
    rows = [
        check("gap_difference_mm", abs(m["gap_difference_mm"]), "mm", "<=", GAP_TOLERANCE_MM + 1e-6,
              "flexion gap = extension gap"),
        check("gap_imbalance_mm", most, "mm", "<=", GAP_TOLERANCE_MM,
              f"medial = lateral{': ' if fit.params['release'] else ''}{fit.params['release']}", severity="flag"),
        check("stack_to_gap_mm", abs(m["laxity_extension_mm"]), "mm", "<=", GAP_TOLERANCE_MM,
              "components and insert fill the gap"),
        check("insert_thinnest_mm", m["insert_thinnest_mm"], "mm", ">=", 6.0, "polyethylene >= 6-8 mm at the thinnest"),
        check("hka_off_straight_deg", abs(m["hka_after_deg"] - 180.0), "deg", "<=", 3.0 if mechanical else 5.0,
              "HKA 180 +- 3 (mechanical), +- 5 (kinematic)", severity="fail" if mechanical else "flag"),
    ]  # fmt: skip
    slope, kind = fit.parts["tibial"].metrics["slope_deg"], params.femoral.cruciate
    low, high = SLOPE_DEG[kind]
    if kind == "PS":
        rows.append(
            check("slope_stabilised_deg", slope, "deg", "<=", high, "slope 0-3 deg with PS: give tibial.slope_deg")
        )
    else:
        rows.append(check("slope_cruciate_kept_deg", slope, "deg", ">=", low, "slope 3-7 deg with CR", severity="flag"))
    if not mechanical or _given(fit.parts["femoral"], fit.parts["tibial"], params):
        f, t = fit.parts["femoral"].metrics, fit.parts["tibial"].metrics
        rows += [
            check(
                "ldfa_off_deg",
                abs(f["ldfa_after_deg"] - 89.0),
                "deg",
                "<=",
                4.0,
                "restricted: LDFA 85-93",
                severity="flag",
            ),
            check(
                "mpta_off_deg",
                abs(t["mpta_after_deg"] - 88.5),
                "deg",
                "<=",
                3.5,
                "restricted: MPTA 85-92",
                severity="flag",
            ),
        ]
    if "tray_external_to_epicondyles_deg" in m:
        rows.append(check("tray_to_epicondyles_deg", abs(m["tray_external_to_epicondyles_deg"]), "deg", "<=", 8.4,
                          "Akagi's line across the epicondyles: 0.0 +- 2.8, three sigma", severity="flag"))  # fmt: skip
    return tuple(rows)


IMPLANT = System(
    name="knee_total",
    summary="femoral component, tray and insert planned together: cuts, gaps, rotation",
    region="knee",
    needs=("femur_{side}", "tibia_{side}"),
    also=("patella_{side}",),
    Params=TotalParams,
    parts={"femoral": knee_femoral.IMPLANT, "tibial": knee_tibial.IMPLANT},
    plan=plan,
    checks=checks,
    phantom=knee,
)
