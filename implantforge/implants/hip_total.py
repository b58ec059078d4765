"""Total hip: cup and stem planned together, so that the leg keeps its length and the hip its offset, and moves freely."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array, Check, Design, Fit, FitError, Pose, Side, check
from implantforge.geom import shapes
from implantforge.implants import Case, Params, System, _cup, choice, deg, hip_cup, hip_stem, mm, odds
from implantforge.stages import bearings, legs, motion
from implantforge.stages import fit as seating
from implantforge.stages.anatomy.hip import angles
from implantforge.stages.phantoms import hip

FIELD_MM, BAND_MM = 1.25, 2.0
MOVING_MM = 150.0
"""Femur further than this from the head is not followed when it moves."""
GRAIN_MM = 2.0


class HipParams(Params):
    """What an engineer may set for the whole; `stem` and `cup` hold each part's own."""

    restore: str = choice("native", ("native", "other side"), "leg length and offset are brought to what this hip had, "
                          "or to what the other has")  # fmt: skip
    leg_length_change_mm: float = mm(0.0, -20.0, 30.0, "leg longer than that by so much")
    offset_change_mm: float = mm(0.0, -15.0, 15.0, "offset larger than that by so much")
    antetorsion_deg: float = deg(15.0, -20.0, 60.0, "native neck to the posterior condyles, where the scan does not show "
                                 "them", tag="M", source="adult femora 15 +/- 9 deg")  # fmt: skip
    head_mm: float | None = choice(None, bearings.HEADS_MM, "head diameter; the largest that leaves 5 mm of liner when "
                                   "absent", unit="mm", source="vendors' catalogues")  # fmt: skip
    head_length: str = choice("M", tuple(bearings.LENGTHS_MM), "length of the head the neck is planned for")
    stem: hip_stem.StemParams = hip_stem.StemParams()
    cup: hip_cup.CupParams = hip_cup.CupParams()


class Setting(NamedTuple):
    """The planned joint in the pelvis's frame: its rotation (columns left, posterior, superior), what is wanted of the
    femur's shift, the axis of the neck (unit, foot to head) and the femur's own axis, patient LPS."""

    frame: Array
    wanted: legs.Share
    neck: Array
    axis: legs.Axis


def plan(case: Case, params: HipParams) -> Fit:
    """The cup first; then the stem whose head, of the length planned for, brings leg length and offset to what is wanted.

    Every head and length is then told with what it would do; ranked by leg length and offset, then by motion. FitError
    and AnatomyError as in hip_cup and hip_stem; FitError when no head of the diameter asked goes into the cup.
    """
    cup = hip_cup.plan(case, params.cup)
    frame, centre = np.array(cup.params["frame_rotation"]), cup.pose.origin_mm
    both = _sides(case, params, cup)
    wanted = legs.Share(params.leg_length_change_mm, params.offset_change_mm)
    if params.restore == "other side":
        if "other" not in both:
            raise FitError("hip_total: restore = 'other side' needs the other femur and hip bone in the scan")
        wanted = legs.Share(*(w + o - n for w, o, n in zip(wanted, both["other"], both["native"])))
    extra = bearings.LENGTHS_MM[params.head_length]
    head = centre - legs.shift(wanted, frame, case.side)
    stem = hip_stem.planned(case, params.stem, head, extra)
    setting = Setting(
        frame, wanted, _neck(stem), legs.mechanical(case.anatomy[f"femur_{case.side}"], params.antetorsion_deg)
    )
    rows = _ranked(_heads(case, params, cup, stem, setting))
    best = rows[0]
    metrics = _measured(case, cup, stem, setting, best, both)
    told = tuple({"rank": rank, **_shown(row), "why": _why(row, best, above)}
                 for rank, (row, above) in enumerate(zip(rows, [None, *rows]), start=1))  # fmt: skip
    middle = both.get("middle", centre)
    values = {
        "side": case.side, "frame": cup.params["frame"], "femur_axis": setting.axis.how, "head_mm": best["head_mm"],
        "head_length": best["head_length"], "liner_mm": best["liner_mm"], "head_center_mm": centre.tolist(),
        "heads": [_shown(row) for row in rows], "told": _sentences(params, cup, stem, setting, best, metrics),
    }  # fmt: skip
    reason = f"{told[0]['why']}; stem: {stem.reason}; cup: {cup.reason}"
    return Fit("hip_total", values, Pose(frame, np.asarray(middle)), metrics, told, reason, {"stem": stem, "cup": cup})


def _sides(case: Case, params: HipParams, cup: Fit) -> dict[str, Any]:
    """Shares of this hip as it was and of the other one, and the middle they are measured from; what is seen of it."""
    seen = _cup.pelvis(case, params.cup)
    if seen.middle_mm is None:
        return {}
    native = np.array(cup.params["native_center_mm"])
    out: dict[str, Any] = {"middle": seen.middle_mm}
    out["native"] = legs.share(native, case.anatomy[f"femur_{case.side}"], seen.rotation, seen.middle_mm)
    other: Side = "right" if case.side == "left" else "left"
    femur, bone = case.anatomy.get(f"femur_{other}"), case.anatomy.get(f"hip_{other}")
    marks = femur.landmarks if femur else {}
    if (
        femur
        and bone
        and "acetabulum_center" in bone.landmarks
        and "lesser_trochanter" in marks
        and "head_center" in marks
    ):
        far = _cup.native_centre(replace(case, side=other))[0]
        out["other"] = legs.share(far, femur, seen.rotation, seen.middle_mm)
    return out


def _neck(stem: Fit) -> Array:
    """Unit vector along the neck, foot to head, patient LPS."""
    p = stem.params
    local = np.array([p["offset_mm"], 0.0, p["head_height_mm"] - p["neck_foot_mm"]])
    return stem.pose.rotation @ (local / np.linalg.norm(local))


def _heads(case: Case, params: HipParams, cup: Fit, stem: Fit, setting: Setting) -> list[dict[str, Any]]:
    """Every head and length that goes into the cup, with what it does to leg, offset and motion."""
    bore = 2 * hip_cup.shell(cup.params["size"], params.cup).bore
    fitting = [row for row in bearings.options(bore) if params.head_mm in (None, row.head_mm)]
    if not fitting:
        raise FitError(f"hip_total: no head of {params.head_mm} mm goes into a {cup.params['size']} mm cup "
                       f"(fit: {', '.join(f'{row.head_mm:.0f}' for row in bearings.options(bore)) or 'none'})")  # fmt: skip
    planned, still = bearings.LENGTHS_MM[params.head_length], _still(case, params, cup, setting.frame)
    out = []
    for name, length in bearings.LENGTHS_MM.items():
        moved = cup.pose.origin_mm - (np.array(stem.params["head_mm"]) + (length - planned) * setting.neck)
        got = legs.change(moved, setting.frame, case.side)
        bony = None
        for row in fitting:
            joint = _joint(case, params, cup, stem, setting, moved, row.head_mm, length)
            joint = replace(joint, still=still, femur=joint.femur if bony is None else joint.femur[:0])
            found = motion.all_of(joint)
            bony = bony or found
            reach = {
                key: motion.Reach(one.prosthetic_deg, bony[key].bony_deg, bony[key].at_mm) for key, one in found.items()
            }
            out.append({"head_mm": row.head_mm, "head_length": name, "liner_mm": row.liner_mm, "wanted": row.wanted,
                        "leg_length_change_mm": got.length_mm, "offset_change_mm": got.offset_mm, "reach": reach,
                        "misfit_mm": float(np.hypot(got.length_mm - setting.wanted.length_mm,
                                                    got.offset_mm - setting.wanted.offset_mm))})  # fmt: skip
    return out


def _joint(
    case: Case, params: HipParams, cup: Fit, stem: Fit, setting: Setting, moved: Array, head_mm: float, length: float
) -> motion.Joint:
    """The joint with one head, as `motion` wants it."""
    frame, handed = setting.frame, 1.0 if case.side == "left" else -1.0
    upright = motion.upright(setting.axis.up @ frame, setting.axis.lateral @ frame, handed)
    bone = case.bones[f"femur_{case.side}"].vertices
    kept = (
        bone[stem.pose.inverse_apply(bone) @ seating.cut_normal(params.stem.resection_angle_deg) < 0.0]
        + moved
        - cup.pose.origin_mm
    )
    kept = kept[np.linalg.norm(kept, axis=1) < MOVING_MM]
    _, first = np.unique(np.floor(kept / GRAIN_MM).astype(np.int64), axis=0, return_index=True)
    return motion.Joint(
        frame.T @ cup.pose.rotation[:, 2], upright @ (-setting.neck @ frame),
        motion.lean_deg([(head_mm / 2, 0.0)], bearings.neck(params.stem.neck_diameter_mm, length)),
        (kept[np.sort(first)] @ frame) @ upright.T, lambda p: np.ones(len(p)), handed,
    )  # fmt: skip


def _still(case: Case, params: HipParams, cup: Fit, frame: Array) -> Any:
    """What does not move, in the pelvis's frame about the head centre: hip bone less what is reamed, and the shell."""
    bone = shapes.from_mesh(case.bones[f"hip_{case.side}"], FIELD_MM, BAND_MM)
    at, way = cup.pose.origin_mm, frame.T @ cup.pose.rotation[:, 2]
    size = float(cup.params["size"])

    def look(points: Array) -> NDArray:
        far, high = np.linalg.norm(points, axis=1), points @ way
        reamed = (
            np.where(high < 0, far, np.sqrt(np.maximum(far**2 - high**2, 0))) - (size - params.cup.press_fit_mm) / 2
        )
        shell = np.maximum(far - size / 2, high)
        return np.minimum(np.maximum(bone(points @ frame.T + at), -reamed), shell)

    return look


def _ranked(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for row in rows:
        short = sum(max(motion.MOTIONS[name].wanted_deg - one.deg, 0.0) for name, one in row["reach"].items())
        row |= {"rom_short_deg": short, "score": -row["misfit_mm"] - 0.05 * short - (0.0 if row["wanted"] else 2.0)}
    return sorted(
        rows, key=lambda row: (-round(row["score"], 6), -row["head_mm"], abs(bearings.LENGTHS_MM[row["head_length"]]))
    )


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A head as people read it."""
    plain = {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()
             if key not in ("reach", "wanted")}  # fmt: skip
    return plain | {f"rom_{name}_deg": _reached(name, one) for name, one in row["reach"].items()}


def _reached(name: str, one: motion.Reach) -> float | str:
    """Where a motion ends, deg; one that nothing ends is told as at least what it was followed to."""
    most = motion.MOTIONS[name].most_deg
    return round(one.deg, 1) if one.deg < most else f">= {most:.0f}"


def _why(row: Mapping[str, Any], best: Mapping[str, Any], above: Mapping[str, Any] | None = None) -> str:
    """Why a head stands where it does; above: the one ranked before it."""
    what = (f"{row['head_mm']:.0f} {row['head_length']}: leg {_signed(row['leg_length_change_mm'])} mm, offset "
            f"{_signed(row['offset_change_mm'])} mm, liner {row['liner_mm']:.1f} mm")  # fmt: skip
    thin = "" if row["wanted"] else f" (under the {bearings.TARGET_MM:.0f} wanted)"
    short = f"{row['rom_short_deg']:.0f} deg of motion short"
    if above is None:
        return f"{what}{thin}: nearest to the leg length and offset wanted, with {short}"
    less = best["score"] - row["score"]
    told = f"{what}{thin}; scores {f'{less:.2g} less' if round(less, 2) > 0 else 'the same'}, {short}"
    if round(above["score"] - row["score"], 6) > 0:
        return told
    rule = "the larger head" if row["head_mm"] != above["head_mm"] else "the length nearer to M"
    return f"{told}: as good as the one above; of equals {rule} goes first"


def _measured(
    case: Case, cup: Fit, stem: Fit, setting: Setting, best: Mapping[str, Any], both: Mapping[str, Any]
) -> dict[str, float]:
    """Numbers of the whole with the head chosen."""
    frame, handed = setting.frame, 1.0 if case.side == "left" else -1.0
    upright = motion.upright(setting.axis.up @ frame, setting.axis.lateral @ frame, handed)
    version = legs.version_deg(upright @ (-setting.neck @ frame), case.side)
    tilted = angles(cup.pose.rotation[:, 2], frame, case.side)
    out = {
        "leg_length_wanted_mm": setting.wanted.length_mm, "offset_wanted_mm": setting.wanted.offset_mm,
        "leg_length_change_mm": best["leg_length_change_mm"], "offset_change_mm": best["offset_change_mm"],
        "head_mm": best["head_mm"], "liner_mm": best["liner_mm"], "head_extra_mm": bearings.LENGTHS_MM[best["head_length"]],
        "stem_version_deg": version, "cup_anteversion_anatomic_deg": tilted["anteversion_anatomic_deg"],
        "combined_version_deg": version + tilted["anteversion_anatomic_deg"],
        "version_seen": float(setting.axis.seen), "pelvic_tilt_deg": cup.metrics["pelvic_tilt_deg"],
        "cup_coverage_pct": cup.metrics["coverage_pct"], "canal_fill_mid_pct": stem.metrics["fill_mid_pct"],
        "neck_cut_above_trochanter_mm": stem.metrics["neck_cut_above_trochanter_mm"],
        "center_shift_medial_mm": cup.metrics["center_shift_medial_mm"], "rom_short_deg": best["rom_short_deg"],
    }  # fmt: skip
    if "other" in both:
        native, other = both["native"], both["other"]
        out |= {"leg_length_difference_before_mm": native.length_mm - other.length_mm,
                "offset_difference_before_mm": native.offset_mm - other.offset_mm}  # fmt: skip
        out["leg_length_difference_mm"] = out["leg_length_difference_before_mm"] + best["leg_length_change_mm"]
        out["offset_difference_mm"] = out["offset_difference_before_mm"] + best["offset_change_mm"]
    for name, one in best["reach"].items():
        out |= {f"rom_{name}_deg": one.deg, f"rom_{name}_prosthetic_deg": one.prosthetic_deg,
                f"rom_{name}_bony_deg": one.bony_deg}  # fmt: skip
    return out


def _sentences(
    params: HipParams, cup: Fit, stem: Fit, setting: Setting, best: Mapping[str, Any], m: Mapping[str, float]
) -> list[str]:
    """The plan as a surgeon reads it first."""
    c, s = cup.metrics, stem.metrics
    beside = "the other side is not in the scan"
    if "leg_length_difference_mm" in m:
        beside = (f"against the other side then {_signed(m['leg_length_difference_mm'])} and "
                  f"{_signed(m['offset_difference_mm'])} mm")  # fmt: skip
    short = []
    for name, one in best["reach"].items():
        if one.deg < motion.MOTIONS[name].wanted_deg:
            by = "bone on bone" if one.bony_deg <= one.prosthetic_deg else "neck on liner"
            short.append(f"{name.replace('_', ' ')} {one.deg:.0f} of {motion.MOTIONS[name].wanted_deg:.0f} deg ({by})")
    return [
        f"Cup {cup.params['size']} mm{odds(c)}, {params.cup.inclination_deg:.0f} deg of inclination and "
        f"{params.cup.anteversion_deg:.0f} of anteversion, radiographic, against the {cup.params['frame']}; "
        f"{c['coverage_pct']:.0f} % covered ({params.cup.coverage_pct:.0f} needed).",
        f"Stem size {stem.params['size']}{odds(s)}, {s['fill_mid_pct']:.0f} % of the canal filled at its middle "
        f"(80 wanted, 70 needed); neck cut {m['neck_cut_above_trochanter_mm']:.0f} mm above the lesser trochanter "
        "(8-15 customary).",
        f"Head {best['head_mm']:.0f} {best['head_length']}, liner {best['liner_mm']:.1f} mm.",
        f"Leg {_signed(m['leg_length_change_mm'])} mm, offset {_signed(m['offset_change_mm'])} mm; {beside}.",
        f"The neck points {m['stem_version_deg']:.0f} deg forward, with the cup's {m['cup_anteversion_anatomic_deg']:.0f} "
        f"(anatomic) {m['combined_version_deg']:.0f} together{_beyond(m['combined_version_deg'])}; femur: "
        f"{setting.axis.how}. It follows the head wanted: a change of offset or length turns it.",
        f"Motion falls short in {'; '.join(short)}." if short else "Motion meets what is wanted in all directions.",
    ]  # fmt: skip


def _beyond(combined_deg: float) -> str:
    """Combined version against what is wanted."""
    return " (25-45 wanted)" if 25.0 <= combined_deg <= 45.0 else ": outside the 25-45 wanted, flagged"


def _signed(value: float) -> str:
    """One decimal with its sign; nought has none."""
    return f"{value:+.1f}" if abs(value) >= 0.05 else "0.0"


def checks(case: Case, fit: Fit, designs: Mapping[str, Design], params: HipParams) -> tuple[Check, ...]:
    """What holds for the whole; each part brings its own checks besides."""
    m = fit.metrics
    axis = fit.params["femur_axis"]
    taper, bore = designs["stem"].machined[0], designs["cup"].machined[0]
    across = np.array(taper["axis"]) * (bearings.HEAD_ABOVE_BASE_MM + bearings.LENGTHS_MM[fit.params["head_length"]])
    head = np.array(taper["base_mm"]) + across
    got = legs.change(np.array(bore["center_mm"]) - head, fit.pose.rotation, case.side)
    rows = [
        check("leg_length_error_mm", abs(got.length_mm - m["leg_length_change_mm"]), "mm", "<=", 0.1,
              "leg length from the machined datums of both parts against the plan"),
        check("offset_error_mm", abs(got.offset_mm - m["offset_change_mm"]), "mm", "<=", 0.1,
              "offset from the machined datums of both parts against the plan"),
        check("leg_length_change_mm", abs(m["leg_length_change_mm"] - fit.metrics["leg_length_wanted_mm"]), "mm", "<=", 5.0,
              "leg length within 5 mm of what is wanted"),
        check("offset_change_mm", abs(m["offset_change_mm"] - fit.metrics["offset_wanted_mm"]), "mm", "<=", 5.0,
              "global offset within 5 mm of what is wanted (loss > 5 mm impairs function)"),
        check("liner_mm", m["liner_mm"], "mm", ">=", bearings.LEAST_MM, "cross-linked polyethylene >= 4 mm absolute"),
        check("combined_version_least_deg", m["combined_version_deg"], "deg", ">=", 25.0,
              f"combined version 25-45 deg (cup anatomic plus stem); femur: {axis}", severity="flag"),
        check("combined_version_most_deg", m["combined_version_deg"], "deg", "<=", 45.0,
              f"combined version 25-45 deg (cup anatomic plus stem); femur: {axis}", severity="flag"),
    ]  # fmt: skip
    for name in ("leg_length_difference_mm", "offset_difference_mm"):
        if name in m:
            rows.append(check(name, abs(m[name]), "mm", "<=", 5.0, "within 5 mm of the other side", severity="flag"))
    for name, one in motion.MOTIONS.items():
        free = f"; followed to {one.most_deg:.0f} deg, nothing touched" if m[f"rom_{name}_deg"] >= one.most_deg else ""
        rows.append(check(f"rom_{name}_deg", m[f"rom_{name}_deg"], "deg", ">=", one.wanted_deg,
                          f"Yoshimine 2006, Bunn 2012: free of contact of neck, liner and bone{free}; femur: {axis}",
                          severity="flag"))  # fmt: skip
    return tuple(rows)


IMPLANT = System(
    name="hip_total",
    summary="cup and stem planned together: leg length, offset, combined version and range of motion",
    region="hip",
    needs=("hip_{side}", "femur_{side}"),
    also=("hip_{other}", "femur_{other}"),
    Params=HipParams,
    parts={"stem": hip_stem.IMPLANT, "cup": hip_cup.IMPLANT},
    plan=plan,
    checks=checks,
    phantom=hip,
)
