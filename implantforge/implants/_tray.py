"""Where a tray lies: what an engineer may ask of its cut, every size laid on it, and what holds of any tray."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtr

from implantforge.core import Array, Check, Design, Fit, FitError, Mesh, Pose, check
from implantforge.geom.inside import inside
from implantforge.implants import Case, Params, choice, count, deg, mm
from implantforge.stages.knee import cover, frames, sizes, tibial
from implantforge.stages.socket import hu_at

RESECTION_MM = (8.0, 10.0)
"""Customary depth under the higher (less worn) plateau."""
CLEAR_MM = 2.0
"""Bone left between a keel and the outer surface."""
OVERHANG_SIGMA_MM = 0.12
"""Of the overhang of a tray laid on a cut face: borders from CT (0.10 mm at 95 %), cut and turn by landmarks (drawn knees:
0.05 mm)."""


class TrayPlan(Params):
    """What is asked of a tray's place."""

    size: int | None = count(None, 1, 99, "size; found by fit when absent")
    alignment: str | None = choice(None, (None, "mechanical", "kinematic"), "across the mechanical axis, or along the "
                                   "plateaus; mechanical when absent, in a whole knee the whole's")  # fmt: skip
    slope_deg: float | None = deg(None, 0.0, 10.0, "posterior slope; 3 when absent, kinematic: the patient's own within 0-7",
                                  tag="M", source="0-7, CR 3-7, PS 0-3, default 3")  # fmt: skip
    valgus_deg: float | None = deg(None, -8.0, 8.0, "valgus against the long axis; by the alignment when absent")
    resection_mm: float = mm(9.0, 4.0, 16.0, "under the higher (less worn) plateau's middle, as CT shows it", tag="M",
                             source="8-10 mm")  # fmt: skip


class Keel(NamedTuple):
    """What goes into the bone under a tray: its length, and the least bone left around it, mm (minus 1: outside)."""

    length_mm: float
    clear_mm: float


def plan(
    case: Case,
    params: TrayPlan,
    maker: str,
    trays: Sequence[sizes.Tray],
    widest_mm: float,
    keel: Callable[[str, Pose], Keel],
) -> Fit:
    """The cut by the alignment, turned along Akagi's line; of the trays given (outlines as for this side) the largest that
    hangs over by at most 1 mm where least of it does; keel(size, pose) is asked for what goes into the bone under it;
    the series ends at widest_mm. FitError with numbers when none fits, begun by the implant's name `maker`."""
    name = f"tibia_{case.side}"
    mesh = case.bones[name]
    frame, slope, native, valgus, cut, medial, lateral = resected(case, params)
    face = cover.face(mesh, cut)
    found = tibial.rows(face, trays)
    best = found[0]
    if best["overhang_mm"] > tibial.OVERHANG_MOST_MM:
        which = f"no tray fits {name}: even the {_name(best)} one"
        if params.size is not None:
            which = f"the tray asked, {_name(best)}, does not fit {name} (leave size out to see those that do): it"
        raise FitError(f"{maker}: {which} hangs over by "
                       f"{best['overhang_mm']:.1f} mm ({tibial.OVERHANG_MOST_MM:.0f} allowed)")  # fmt: skip
    pose = Pose(cut.rotation, cut.apply(np.array([best["x_mm"], best["y_mm"], 0.0])))
    under = keel(best["size"], pose)
    outline = next(tray.outline for tray in trays if tray.name == best["size"])
    metrics, gap = _measure(case, face, pose, best, outline)
    metrics |= _chances(found, best) | {
        "resection_medial_mm": medial, "resection_lateral_mm": lateral, "slope_deg": slope, "valgus_deg": valgus,
        "native_valgus_deg": native, "mpta_before_deg": 90.0 + native, "mpta_after_deg": 90.0 + valgus,
        "axis_sigma_deg": frame.sigma_deg, "axis_assumed": float(frame.assumed), "keel_length_mm": under.length_mm,
        "keel_clear_mm": under.clear_mm, "cut_area_mm2": face.area_mm2,
    }  # fmt: skip
    told = tuple(_told(row, rank, best, widest_mm) for rank, row in enumerate(found, start=1))
    row = {"name": "tibia", "kind": "cut plane", "frame": "patient LPS mm", "bone": "tibia",
           "point_mm": cut.origin_mm.tolist(), "normal": cut.rotation[:, 2].tolist(),
           "removed_medial_mm": medial, "removed_lateral_mm": lateral}  # fmt: skip
    values: dict[str, Any] = {
        "size": best["size"], "ml_mm": best["ml_mm"], "ap_mm": best["ap_mm"], "side": case.side, "axis": frame.how,
        "keel_length_mm": under.length_mm, "bone_rotation": frame.pose.rotation.tolist(), "cuts": [row], "gap_samples": gap,
        "told": [f"Given, not by the alignment: {', '.join(rows)}." for rows in [given(params)] if rows],
    }  # fmt: skip
    if remark := resection_remark(metrics):
        values["told"].append(f"{remark[0].upper()}{remark[1:]}.")
        told[0]["why"] += f"; {remark}"
    return Fit(maker, values, pose, metrics, told, told[0]["why"])


def given(params: TrayPlan) -> list[str]:
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


def resected(case: Case, params: TrayPlan) -> Resected:
    """The cut of a case, before any tray is laid on it. AnatomyError as `frames.tibia`."""
    anatomy = case.anatomy[f"tibia_{case.side}"]
    frame = frames.tibia(case.bones[anatomy.bone], anatomy, frames.akagi(anatomy))
    slope = slope_of(anatomy.measures, params)
    native = tibial.native_valgus_deg(anatomy, frame, slope)
    valgus = params.valgus_deg
    if valgus is None:
        valgus = native if params.alignment == "kinematic" else 0.0
    return Resected(frame, slope, native, valgus, *tibial.cut(anatomy, frame, slope, valgus, params.resection_mm))


def slope_of(measures: Any, params: TrayPlan) -> float:
    """The slope by the recipe: asked, or 3 deg, or (kinematic) the patient's own where it was measured."""
    if params.slope_deg is not None:
        return params.slope_deg
    own = measures.get("posterior_slope_mechanical_deg", measures.get("posterior_slope_deg", 3.0))
    return float(np.clip(own, 0.0, 7.0)) if params.alignment == "kinematic" else 3.0


def _measure(
    case: Case, face: cover.Plate, pose: Pose, best: dict[str, Any], outline: Array
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metrics of the winner, and points under the tray with their gap to the cut face (0 on it)."""
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


def _name(row: Mapping[str, Any]) -> str:
    """A size as people know it: ours by its width, a maker's by its number and width."""
    width = f"{row['ml_mm']:.0f}"
    return f"{width} mm" if row["size"] == width else f"size {row['size']} ({width} mm wide)"


def series_ends(width_mm: float, widest_mm: float, overhang_mm: float) -> str:
    """Said of the widest tray where the bone would carry a wider one."""
    if width_mm < widest_mm or overhang_mm > 0.0:
        return ""
    return f"; the series ends at {width_mm:.0f} mm and the bone reaches {-overhang_mm:.1f} mm past it everywhere"


def _told(row: dict[str, Any], rank: int, best: dict[str, Any], widest_mm: float) -> dict[str, Any]:
    """A row as people read it."""
    few = f" (under the {tibial.COVERAGE_PCT:.0f} needed)" if row["coverage_pct"] < tibial.COVERAGE_PCT else ""
    lies = f"covers {row['coverage_pct']:.0f} %{few}, overhang {row['overhang_mm']:+.1f} mm"
    if row["overhang_mm"] > tibial.OVERHANG_MM:
        why = f"hangs over by {row['overhang_mm']:.1f} mm (1 allowed), covers {row['coverage_pct']:.0f} %"
    elif row is best:
        why = f"{_name(row)}: the largest that hangs over by at most 1 mm ({lies})"
        why += series_ends(row["ml_mm"], widest_mm, row["overhang_mm"])
    else:
        why = f"{lies}: covers {best['coverage_pct'] - row['coverage_pct']:.0f} points less"
    shown = {key: round(float(row[key]), 3) for key in ("ml_mm", "ap_mm", "overhang_mm", "coverage_pct")}
    score = row["coverage_pct"] - 20.0 * max(0.0, row["overhang_mm"] - tibial.OVERHANG_MM)
    return {"rank": rank, "size": row["size"], **shown, "score": round(float(score), 3), "why": why}


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


def checks(case: Case, fit: Fit, made: Design, widest_mm: float) -> list[Check]:
    """What holds of any tray; widest_mm: the series ends there."""
    m = fit.metrics
    uncut, beyond = outside_mm3(case.bones[f"tibia_{case.side}"], made, fit.pose)
    least, most = RESECTION_MM
    removed = max(m["resection_medial_mm"], m["resection_lateral_mm"])
    return [
        check("bone_overlap_mm3", uncut, "mm3", "<=", 0.0, "no metal in bone outside the planned cut"),
        check("fixation_outside_bone_mm3", beyond, "mm3", "<=", 0.0, "keel within the outer cortex"),
        check("keel_clear_mm", m["keel_clear_mm"], "mm", ">=", CLEAR_MM, "bone left around the keel >= 2 mm",
              severity="flag"),
        check("overhang_mm", m["overhang_mm"], "mm", "<=", tibial.OVERHANG_MM,
              "tray overhang <= 1 mm (3 mm anywhere at most)"),
        check("coverage_pct", m["coverage_pct"], "%", ">=", tibial.COVERAGE_PCT,
              f"tibial coverage >= 85 %{series_ends(fit.params['ml_mm'], widest_mm, m['overhang_mm'])}"),
        check("slope_deg", m["slope_deg"], "deg", "<=", 7.0, "slope 0-7 deg"),
        check("resection_least_mm", removed, "mm", ">=", least - 1.0, "8-10 mm under the higher plateau", severity="flag"),
        check("resection_most_mm", removed, "mm", "<=", most + 1.0, "8-10 mm under the higher plateau", severity="flag"),
        check("mechanical_axis_measured", 1.0 - m["axis_assumed"], "axes", ">=", 1.0, f"axis {fit.params['axis']}",
              severity="flag"),
    ]  # fmt: skip
