"""Where a cup lies: what an engineer may ask of its place, every size tried in the socket, and what holds of any cup."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtr

from implantforge.core import AnatomyError, Array, Check, Fit, FitError, Pose, check
from implantforge.implants import Case, Params, choice, count, deg, mm, number
from implantforge.stages import socket
from implantforge.stages.anatomy.hip import angles, plane
from implantforge.stages.socket import Socket

OVER_MM, OVER_LEAST_MM, OVER_MOST_MM = 4.0, 2.0, 6.0
"""Outer diameter over the bony socket's: reamed to bleeding bone, 2-6 mm."""
LATERAL_MM, MEDIAL_MM = 3.0, 5.0
"""How far the centre may leave the native one; 5 mm is customary."""
RIM_BAND_MM = 3.0
"""Solid under the rim, no porous: the locking groove stands here."""


class CupPlan(Params):
    """What is asked of a cup's place."""

    size: int | None = count(None, 1, 99, "size; found by fit when absent")
    inclination_deg: float = deg(40.0, 25.0, 60.0, "radiographic inclination (Murray 1993)", tag="R",
                                 source="Lewinnek 40 +/- 10")  # fmt: skip
    anteversion_deg: float = deg(15.0, 0.0, 35.0, "radiographic anteversion (Murray 1993)", tag="R",
                                 source="Lewinnek 15 +/- 10")  # fmt: skip
    frame: str = choice(
        "pelvic", ("pelvic", "scan"), "angles stand against the anterior pelvic plane, or the scan's axes"
    )
    press_fit_mm: float = mm(1.0, 0.0, 3.0, "reamer smaller than the cup, in diameter", tag="R",
                             source="under-reamed 1-2 mm, 1-3 mm reported")  # fmt: skip
    coverage_pct: float = number(
        75.0, 50.0, 95.0, "porous dome that must meet bone", unit="%", tag="M", source="70-80 %"
    )
    floor_mm: float = mm(2.0, 1.0, 6.0, "bone left behind the reamed floor", tag="M", source=">= 2 mm")


class Pelvis(NamedTuple):
    """rotation: columns left, posterior, superior of the frame the angles stand in; how it was found; tilt_deg against
    the scan's vertical; middle_mm between the front spines, where both are seen."""

    rotation: Array
    how: str
    tilt_deg: float
    middle_mm: Array | None = None


def pelvis(case: Case, params: CupPlan) -> Pelvis:
    """The anterior pelvic plane of both hip bones, or the scan's axes when one of them is missing or asked so."""
    marks = [case.anatomy[name].landmarks if name in case.anatomy else {} for name in ("hip_left", "hip_right")]
    if params.frame == "scan":
        return Pelvis(np.eye(3), "scan axes, as asked", 0.0)
    if not all(name in mark for mark in marks for name in ("asis", "pubic_tubercle")):
        return Pelvis(
            np.eye(3), "scan axes: both front spines and pubic tubercles are needed for the pelvic plane", 0.0
        )
    spines = [mark["asis"].at_mm for mark in marks]
    tubercles = (marks[0]["pubic_tubercle"].at_mm + marks[1]["pubic_tubercle"].at_mm) / 2.0
    rotation = plane(spines[0] - spines[1], (spines[0] + spines[1]) / 2.0 - tubercles)
    tilt = float(np.degrees(np.arctan2(rotation[1, 2], rotation[2, 2])))
    return Pelvis(rotation, "anterior pelvic plane of both hip bones", tilt, (spines[0] + spines[1]) / 2.0)


def native_centre(case: Case) -> tuple[Array, float, float]:
    """Centre of rotation, its sigma, and how far head and socket lie apart (nan without a femur): the two weighed by
    their sigmas where they agree within 3 mm, else the socket's."""
    mark = case.anatomy[f"hip_{case.side}"]
    at, sigma = mark.at("acetabulum_center"), mark.landmarks["acetabulum_center"].sigma_mm
    femur = case.anatomy.get(f"femur_{case.side}")
    head = femur.landmarks.get("head_center") if femur else None
    if head is None:
        return at, sigma, float("nan")
    apart = float(np.linalg.norm(head.at_mm - at))
    if apart > 3.0:
        return at, sigma, apart
    a, b = 1.0 / max(sigma, 1e-3) ** 2, 1.0 / max(head.sigma_mm, 1e-3) ** 2
    return (a * at + b * head.at_mm) / (a + b), float((a + b) ** -0.5), apart


def plan(
    case: Case, params: CupPlan, name: str, sizes: Mapping[int, float], ring_mm: float = 0.0
) -> tuple[Fit, Socket]:
    """Every size (name -> outer diameter, mm) at the shift nearest the native centre that covers its dome and spares the
    floor; the winner is nearest the socket's diameter plus 4 mm. ring_mm: half of what the equator is wider by. The plan and
    the socket it stands in.

    FitError with numbers when no size fits, AnatomyError when the socket was not measured.
    """
    bone = f"hip_{case.side}"
    anatomy = case.anatomy[bone]
    centre, sigma, apart = native_centre(case)
    if "acetabulum_radius_mm" not in anatomy.measures:
        raise AnatomyError(
            f"{bone}: no acetabulum_radius_mm: {anatomy.refused.get('acetabulum_radius_mm', 'not measured')}"
        )
    socket_mm = 2.0 * anatomy.measures["acetabulum_radius_mm"]
    frame = pelvis(case, params)
    handed = 1.0 if case.side == "left" else -1.0
    way = socket.opening(frame.rotation, case.side, params.inclination_deg, params.anteversion_deg)
    medial = -handed * frame.rotation[:, 0]
    seat = socket.of(case.bones[bone], way, medial, handed)
    rows = _ranked([_placed(size, outer, seat, centre, socket_mm, params) for size, outer in sizes.items()])
    if rows[0]["why_not"]:
        tried = "; ".join(f"{row['size']}: {row['why_not']}" for row in rows[:3])
        raise FitError(f"{name}: no size fits {bone} (socket {socket_mm:.1f} mm wide): {tried}")
    best = rows[0]
    origin = centre + best["medial_mm"] * medial
    pose = Pose(_axes(way, case, origin, frame.rotation), origin)
    chance = _chances(rows, sizes, socket_mm, anatomy.landmarks["acetabulum_center"].sigma_mm)
    metrics, gap = _measure(case, seat, pose, best, sizes[best["size"]] / 2.0, ring_mm, frame, params)
    metrics |= chance | {"pelvic_tilt_deg": frame.tilt_deg, "socket_diameter_mm": socket_mm, "center_sigma_mm": sigma,
                         "inclination_deg": params.inclination_deg, "anteversion_deg": params.anteversion_deg}  # fmt: skip
    if np.isfinite(apart):
        metrics["head_to_socket_mm"] = apart
    alternatives = tuple(_told(row, rank, best) for rank, row in enumerate(rows, start=1))
    values = {
        "size": best["size"], "side": case.side, "frame": frame.how, "frame_rotation": frame.rotation.tolist(),
        "native_center_mm": centre.tolist(), "head_center_mm": origin.tolist(), "opening": way.tolist(),
        "reamed_diameter_mm": sizes[best["size"]] - params.press_fit_mm, "gap_samples": gap,
    }  # fmt: skip
    return Fit(name, values, pose, metrics, alternatives, alternatives[0]["why"]), seat


def _placed(size: int, outer: float, seat: Socket, centre: Array, socket_mm: float, params: CupPlan) -> dict[str, Any]:
    """One size at the shift nearest nought that meets coverage and floor, with what it gives and why it does not fit."""
    over, reamed = outer - socket_mm, (outer - params.press_fit_mm) / 2.0
    ask = socket.Asked(params.coverage_pct, params.floor_mm, RIM_BAND_MM, (-LATERAL_MM, MEDIAL_MM))
    shift, cover, left = socket.place(seat, centre, outer / 2.0, reamed, ask)
    reasons = []
    if cover < params.coverage_pct:
        reasons.append(f"covers {cover:.0f} % ({params.coverage_pct:.0f} needed)")
    if left < params.floor_mm:
        reasons.append(f"leaves {left:.1f} mm behind the floor ({params.floor_mm:.1f} needed)")
    seated = not reasons
    if not OVER_LEAST_MM <= over <= OVER_MOST_MM and params.size is None:
        reasons.append(f"{over:+.1f} mm over the socket ({OVER_LEAST_MM:.0f} to {OVER_MOST_MM:.0f})")
    return {"size": size, "medial_mm": shift, "coverage_pct": cover, "floor_left_mm": left, "over_socket_mm": over,
            "cost_mm": abs(over - OVER_MM) + abs(shift), "seated": seated, "why_not": ", ".join(reasons)}  # fmt: skip


def _ranked(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (bool(row["why_not"]), round(row["cost_mm"], 9), row["size"]))


def _told(row: dict[str, Any], rank: int, best: dict[str, Any]) -> dict[str, Any]:
    """A row as people read it."""
    if row["why_not"]:
        why = f"does not fit: {row['why_not']}"
    elif row is best:
        why = (f"nearest to socket plus {OVER_MM:.0f} mm ({row['over_socket_mm']:+.1f}) and to the native "
               f"centre ({row['medial_mm']:+.1f} mm medial) together: {row['coverage_pct']:.0f} % covered")  # fmt: skip
    elif row["cost_mm"] - best["cost_mm"] < 5e-3:
        why = "fits as well: of equals the smaller goes first, which takes less bone"
    else:
        why = f"fits, {row['cost_mm'] - best['cost_mm']:.2g} mm further from socket plus {OVER_MM:.0f} mm and native centre"
    shown = {
        key: round(value, 3) if isinstance(value, float) else value
        for key, value in row.items()
        if key not in ("why_not", "seated")
    }
    return {"rank": rank, **shown, "score": round(-row["cost_mm"], 3), "why": why}


def _chances(
    rows: list[dict[str, Any]], sizes: Mapping[int, float], socket_mm: float, sigma_mm: float
) -> dict[str, float]:
    """How likely this size and its neighbours are, from the sigma of the socket's diameter: the borders lie where a
    neighbour's cost is the same. A neighbour short of coverage or floor is no candidate."""
    best = rows[0]
    sigma = max(2.0 * sigma_mm / 3.0**0.5, 1e-6)
    fitting = {row["size"]: row for row in rows if row["seated"]}
    out = {"socket_sigma_mm": sigma}
    left, order = 1.0, sorted(sizes, key=lambda size: sizes[size])
    at = order.index(best["size"])
    for name, beside in (("smaller", order[max(at - 1, 0) : at]), ("larger", order[at + 1 : at + 2])):
        other = fitting.get(beside[0]) if beside else None
        share = 0.0 if other is None else float(ndtr(-(other["cost_mm"] - best["cost_mm"]) / 2.0 / sigma))
        out[f"size_{name}_probability_pct"] = 100.0 * share
        left -= share
    out["size_probability_pct"] = 100.0 * left
    return out


def _axes(way: Array, case: Case, origin: Array, frame: Array) -> Array:
    """Implant axes: z out of the cup, x toward the front spine (superior where that is not seen), so that the quadrants
    of Wasielewski lie along x and y."""
    mark = case.anatomy[f"hip_{case.side}"].landmarks.get("asis")
    toward = mark.at_mm - origin if mark is not None else frame[:, 2]
    x = toward - (toward @ way) * way
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(way, x), way], axis=1)


def _measure(
    case: Case,
    seat: Socket,
    pose: Pose,
    best: dict[str, Any],
    outer: float,
    ring: float,
    frame: Pelvis,
    params: CupPlan,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metrics of the winner, and its dome's points with their gap to the reamed bone (negative: press-fit)."""
    at, reamed = pose.origin_mm, outer - params.press_fit_mm / 2.0
    dome, met = seat.dome(outer, RIM_BAND_MM), seat.covered(at, outer)
    surface = seat.surface_mm(outer, ring)
    gap = seat.gaps_mm(at, reamed, surface)
    shift = (at - native_centre(case)[0]) @ frame.rotation
    hu = socket.hu_at(case.volume, at + (reamed + 2.0) * seat.ways[dome & met])
    hu = hu[np.isfinite(hu)]
    seen = np.where(np.isnan(gap), 3.0, gap)[dome]
    metrics: dict[str, Any] = {
        "size": best["size"], "coverage_pct": best["coverage_pct"], "center_shift_medial_mm": best["medial_mm"],
        "center_shift_superior_mm": float(shift[2]), "bone_left_medial_mm": best["floor_left_mm"],
        "metal_through_floor_mm3": seat.through_mm3(at, outer), "over_socket_mm": best["over_socket_mm"],
        "fit_gap_mean_mm": float(np.maximum(seen, 0).mean()),
        "fit_gap_p95_mm": float(np.percentile(np.maximum(seen, 0), 95)),
        "press_fit_pct": float(100.0 * np.mean(seen <= 0.0)),
        "contact_pct": float(100.0 * np.mean(seen <= socket.CONTACT_MM)),
        **{f"coverage_{name}_pct": value for name, value in seat.by_quarter(frame.rotation, met, dome).items()},
    }  # fmt: skip
    if len(hu):
        metrics |= {"contact_hu_median": float(np.median(hu)), "contact_hu_p10": float(np.percentile(hu, 10))}
    native = case.anatomy[f"hip_{case.side}"].frames.get("acetabulum")
    if native is not None:
        found = angles(native.rotation[:, 2], frame.rotation, case.side)
        metrics |= {f"native_{name}": found[name] for name in ("inclination_deg", "anteversion_deg")}
    points = at + surface[:, None] * seat.ways
    kept = dome & np.isfinite(gap)
    return metrics, {"points_mm": points[kept].round(3).tolist(), "gap_mm": gap[kept].round(3).tolist()}


def checks(fit: Fit, params: CupPlan, turned: tuple[float, float] | None) -> list[Check]:
    """What holds of any cup; turned: radiographic inclination and anteversion (deg) read from its mesh, None where its
    shape does not show them."""
    m = fit.metrics
    shift = float(np.linalg.norm(np.subtract(fit.params["head_center_mm"], fit.params["native_center_mm"])))
    rows = [
        check("cup_coverage_pct", m["coverage_pct"], "%", ">=", params.coverage_pct, "host bone on >= 70-80 % of the dome"),
        check("coverage_superior_pct", m["coverage_superior_pct"], "%", ">=", 70.0,
              "uncovered superolateral <= 20-30 %, else augment", severity="flag"),
        check("bone_overlap_mm3", m["metal_through_floor_mm3"], "mm3", "<=", 0.0,
              "no metal beyond the pelvic side of the bone (perforation = refuse)"),
        check("bone_left_medial_mm", m["bone_left_medial_mm"], "mm", ">=", params.floor_mm, "bone left medial >= 2 mm"),
        check("center_shift_mm", shift, "mm", "<=", 5.0, "hip centre restored: <= 5 mm medial, <= 5 mm superior"),
        check("over_socket_mm", m["over_socket_mm"], "mm", "<=", OVER_MOST_MM, "cup = socket + 2-6 mm", severity="flag"),
        check("pelvic_planes", float(fit.params["frame"].startswith("anterior")), "planes", ">=", 1.0,
              f"angles stand against: {fit.params['frame']}", severity="flag"),
    ]  # fmt: skip
    for name, found in zip(("inclination", "anteversion"), turned or ()):
        error = abs(found - getattr(params, f"{name}_deg"))
        rows.append(check(f"{name}_error_deg", error, "deg", "<=", 0.5,
                          "rim of the mesh against the target, radiographic (Murray 1993)"))  # fmt: skip
    if "head_to_socket_mm" in m:
        why = "head and socket share a centre, else the native one is the socket's"
        rows.append(check("head_to_socket_mm", m["head_to_socket_mm"], "mm", "<=", 3.0, why, severity="flag"))
    return rows


def rim_angles(local: Array, fit: Fit) -> tuple[float, float]:
    """Radiographic inclination and anteversion (deg) of the plane through a mesh's flat rim, in the frame of the plan:
    vertices (n,3) in the implant's axes within 0.02 mm of the highest. nan without a rim."""
    rim = local[local[:, 2] > local[:, 2].max() - 0.02]
    if len(rim) < 8:
        return float("nan"), float("nan")
    normal = np.linalg.svd(rim - rim.mean(axis=0), full_matrices=False)[2][2]
    way = fit.pose.rotation @ (normal * np.sign(normal[2]))
    found = angles(way, np.array(fit.params["frame_rotation"]), fit.params["side"])
    return found["inclination_deg"], found["anteversion_deg"]
