"""Cementless press-fit cup: hemispherical shell with a porous dome, a liner seat left with stock, and three screw holes."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtr

from implantforge.core import AnatomyError, Array, Check, Design, Field, Fit, FitError, Lattice, Mesh, Pose, check
from implantforge.geom import shapes
from implantforge.implants import Case, Implant, Params, choice, deg, flag, mm, number
from implantforge.stages import bearings, socket
from implantforge.stages.anatomy.hip import angles, plane
from implantforge.stages.phantoms import hip
from implantforge.stages.socket import Socket

SIZES = tuple(range(44, 67, 2))
"""Outer diameters, mm."""
OVER_MM, OVER_LEAST_MM, OVER_MOST_MM = 4.0, 2.0, 6.0
"""Outer diameter over the bony socket's: reamed to bleeding bone, 2-6 mm."""
LATERAL_MM, MEDIAL_MM = 3.0, 5.0
"""How far the centre may leave the native one; 5 mm is customary."""
TAPER_DEG, TAPER_HEIGHT_MM = 18.0, 5.0
RIM_BAND_MM = 3.0
"""Solid under the rim, no porous: the locking groove stands here."""
GROOVE_AT_MM, GROOVE_WIDTH_MM, GROOVE_DEPTH_MM = 1.2, 1.4, 0.6
PILOT_MM, THREAD_MM, THREAD_PITCH_MM = 6.2, 8.0, 1.25
"""Polar hole printed as a pilot for an M8 thread: core 6.65 mm less 0.45."""
SCREWS_DEG = ((38.0, 45.0), (60.0, 9.0), (60.0, 81.0))
"""Screw holes: angle from the pole, angle from the line to the front spine toward posterior. Postero-superior lies
between 0 and 90 (Wasielewski et al. 1990, J Bone Joint Surg Am 72:501)."""
SEAT_MM, SEAT_DEPTH_MM, COLLAR_MM = 8.6, 1.7, 1.5
"""Seat of a screw's head: 8 mm heads of 6.5 mm screws with 0.3 mm a side; solid around it through the porous."""
FINS, FIN_THICK_MM = 12, 1.2


class CupParams(Params):
    """What an engineer may set; the size left out is found from the patient."""

    size: int | None = choice(None, SIZES, "outer diameter; found by fit when absent", unit="mm",
                              source="vendors' catalogues: 44-66 by 2 mm")  # fmt: skip
    inclination_deg: float = deg(40.0, 25.0, 60.0, "radiographic inclination (Murray 1993)", tag="R",
                                 source="Lewinnek 40 +/- 10")  # fmt: skip
    anteversion_deg: float = deg(15.0, 0.0, 35.0, "radiographic anteversion (Murray 1993)", tag="R",
                                 source="Lewinnek 15 +/- 10")  # fmt: skip
    frame: str = choice(
        "pelvic", ("pelvic", "scan"), "angles stand against the anterior pelvic plane, or the scan's axes"
    )
    press_fit_mm: float = mm(1.0, 0.0, 3.0, "reamer smaller than the cup, in diameter", tag="R",
                             source="under-reamed 1-2 mm, 1-3 mm reported")  # fmt: skip
    elliptic_mm: float = mm(
        0.0, 0.0, 2.0, "equator wider than the dome asks, in diameter", tag="M", source="dual radius +1-2 mm"
    )
    coverage_pct: float = number(
        75.0, 50.0, 95.0, "porous dome that must meet bone", unit="%", tag="M", source="70-80 %"
    )
    floor_mm: float = mm(2.0, 1.0, 6.0, "bone left behind the reamed floor", tag="M", source=">= 2 mm")
    coat_mm: float = mm(1.2, 1.0, 1.5, "porous layer", tag="R", source="printed cups 1.0-1.3 mm", of="design")
    wall_mm: float = mm(2.5, 2.5, 4.0, "solid wall once machined", tag="M", source="2.5-4 mm", of="design")
    bore_stock_mm: float = mm(0.7, 0.3, 1.0, "machining stock in the bore", tag="M", source="+0.5-1.0 mm", of="design")
    rim_stock_mm: float = mm(0.5, 0.3, 1.0, "machining stock on the rim", tag="M", source="+0.3-0.5 mm", of="design")
    screw_holes: bool = flag(True, "three holes in the postero-superior quadrant", of="design")
    screw_hole_mm: float = mm(6.8, 6.6, 7.2, "hole for a 6.5 mm screw", tag="M", source="6.6-7.0 mm", of="design")
    rim_fins: bool = flag(False, "fins under the rim against turning", of="design")
    fin_mm: float = mm(0.8, 0.4, 1.5, "how far fins stand out", of="design")


class Shell(NamedTuple):
    """Radii of one size once machined, mm: outer dome, solid under the porous, bore sphere, bore cone at the sphere and
    at the rim; ring is half of what the equator is wider by."""

    outer: float
    solid: float
    bore: float
    cone_small: float
    cone_large: float
    ring: float


def shell(size: float, params: CupParams) -> Shell:
    """The radii of a size."""
    outer = size / 2.0
    solid = outer - params.coat_mm
    bore = solid - params.wall_mm
    slope = float(np.tan(np.radians(TAPER_DEG / 2)))
    # the cone meets the bore's ball, and above it stays within that ball as far up as there is porous outside
    small = min((bore**2 - TAPER_HEIGHT_MM**2) ** 0.5,
                (bore**2 - RIM_BAND_MM**2) ** 0.5 - slope * (TAPER_HEIGHT_MM - RIM_BAND_MM))  # fmt: skip
    large = small + TAPER_HEIGHT_MM * slope
    return Shell(outer, solid, bore, small, large, params.elliptic_mm / 2.0)


def solid_wall_mm(size: float, params: CupParams) -> float:
    """Thinnest solid wall of a size once every face is machined: dome, cone under the porous, cone at the rim, groove."""
    r = shell(size, params)
    slope = (r.cone_large - r.cone_small) / TAPER_HEIGHT_MM

    def cone(z: float) -> float:
        return r.cone_large - slope * z

    depths = np.linspace(RIM_BAND_MM, TAPER_HEIGHT_MM, 21)
    under = [np.hypot(cone(z), z) for z in depths]
    low = GROOVE_AT_MM + GROOVE_WIDTH_MM
    groove = r.outer - float(np.hypot(cone(GROOVE_AT_MM) + GROOVE_DEPTH_MM, low))
    rim = r.outer - float(np.hypot(r.cone_large, RIM_BAND_MM))
    return float(min(r.solid - r.bore, r.solid - max(under), groove, rim))


def screw_ways(handed: float) -> Array:
    """(3,3) unit vectors of the screw holes in implant-local axes (handed: 1 left, -1 right)."""
    away, around = np.radians(np.array(SCREWS_DEG)).T
    return np.stack([np.sin(away) * np.cos(around), -handed * np.sin(away) * np.sin(around), -np.cos(away)], axis=1)


class Pelvis(NamedTuple):
    """rotation: columns left, posterior, superior of the frame the angles stand in; how it was found; tilt_deg against
    the scan's vertical; middle_mm between the front spines, where both are seen."""

    rotation: Array
    how: str
    tilt_deg: float
    middle_mm: Array | None = None


def pelvis(case: Case, params: CupParams) -> Pelvis:
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


def plan(case: Case, params: CupParams) -> Fit:
    """Every size at the shift nearest the native centre that covers its dome and spares the floor; the winner is nearest
    the socket's diameter plus 4 mm.

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
    rows = _ranked([_placed(size, seat, centre, socket_mm, params) for size in _sizes(params)])
    if rows[0]["why_not"]:
        tried = "; ".join(f"{row['size']}: {row['why_not']}" for row in rows[:3])
        raise FitError(f"hip_cup: no size fits {bone} (socket {socket_mm:.1f} mm wide): {tried}")
    best = rows[0]
    origin = centre + best["medial_mm"] * medial
    pose = Pose(_axes(way, case, origin, frame.rotation), origin)
    chance = _chances(rows, socket_mm, anatomy.landmarks["acetabulum_center"].sigma_mm)
    metrics, gap = _measure(case, seat, pose, best, frame, params)
    metrics |= chance | {"pelvic_tilt_deg": frame.tilt_deg, "socket_diameter_mm": socket_mm, "center_sigma_mm": sigma,
                         "inclination_deg": params.inclination_deg, "anteversion_deg": params.anteversion_deg}  # fmt: skip
    if np.isfinite(apart):
        metrics["head_to_socket_mm"] = apart
    alternatives = tuple(_told(row, rank, best) for rank, row in enumerate(rows, start=1))
    inner = shell(best["size"], params)
    values = {
        "size": best["size"], "side": case.side, "frame": frame.how, "frame_rotation": frame.rotation.tolist(),
        "native_center_mm": centre.tolist(), "head_center_mm": origin.tolist(), "opening": way.tolist(),
        "reamed_diameter_mm": best["size"] - params.press_fit_mm, "liner_bore_center_mm": origin.tolist(),
        "bearings": bearings.rows(2 * inner.bore), "gap_samples": gap,
    }  # fmt: skip
    return Fit("hip_cup", values, pose, metrics, alternatives, alternatives[0]["why"])


def _sizes(params: CupParams) -> tuple[int, ...]:
    return SIZES if params.size is None else (params.size,)


def _placed(size: int, seat: Socket, centre: Array, socket_mm: float, params: CupParams) -> dict[str, Any]:
    """One size at the shift nearest nought that meets coverage and floor, with what it gives and why it does not fit."""
    over, reamed = size - socket_mm, (size - params.press_fit_mm) / 2.0
    ask = socket.Asked(params.coverage_pct, params.floor_mm, RIM_BAND_MM, (-LATERAL_MM, MEDIAL_MM))
    shift, cover, left = socket.place(seat, centre, size / 2.0, reamed, ask)
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
        why = (f"nearest the socket plus {OVER_MM:.0f} mm ({row['over_socket_mm']:+.1f}) with the least shift "
               f"({row['medial_mm']:+.1f} mm medial): {row['coverage_pct']:.0f} % covered")  # fmt: skip
    else:
        why = f"fits, {row['cost_mm'] - best['cost_mm']:.1f} mm further from socket plus {OVER_MM:.0f} mm and native centre"
    shown = {
        key: round(value, 3) if isinstance(value, float) else value
        for key, value in row.items()
        if key not in ("why_not", "seated")
    }
    return {"rank": rank, **shown, "score": round(-row["cost_mm"], 3), "why": why}


def _chances(rows: list[dict[str, Any]], socket_mm: float, sigma_mm: float) -> dict[str, float]:
    """How likely this size and its neighbours are, from the sigma of the socket's diameter: the borders lie where a
    neighbour's cost is the same. A neighbour short of coverage or floor is no candidate."""
    best = rows[0]
    sigma = max(2.0 * sigma_mm / 3.0**0.5, 1e-6)
    fitting = {row["size"]: row for row in rows if row["seated"]}
    out = {"socket_sigma_mm": sigma}
    left = 1.0
    for name, step in (("smaller", -2), ("larger", 2)):
        other = fitting.get(best["size"] + step)
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
    case: Case, seat: Socket, pose: Pose, best: dict[str, Any], frame: Pelvis, params: CupParams
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metrics of the winner, and its dome's points with their gap to the reamed bone (negative: press-fit)."""
    at, outer, reamed = pose.origin_mm, best["size"] / 2.0, (best["size"] - params.press_fit_mm) / 2.0
    dome, met = seat.dome(outer, RIM_BAND_MM), seat.covered(at, outer)
    surface = seat.surface_mm(outer, params.elliptic_mm / 2.0)
    gap = seat.gaps_mm(at, reamed, surface)
    shift = (at - native_centre(case)[0]) @ frame.rotation
    hu = socket.hu_at(case.volume, at + (reamed + 2.0) * seat.ways[dome & met])
    hu = hu[np.isfinite(hu)]
    seen = np.where(np.isnan(gap), 3.0, gap)[dome]
    handed = 1.0 if case.side == "left" else -1.0
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
    if params.screw_holes:
        held = [seat.bone_along_mm(at, way, outer) for way in screw_ways(handed) @ pose.rotation.T]
        metrics |= {f"screw_{i}_bone_mm": length for i, length in enumerate(held, start=1)}
    native = case.anatomy[f"hip_{case.side}"].frames.get("acetabulum")
    if native is not None:
        found = angles(native.rotation[:, 2], frame.rotation, case.side)
        metrics |= {f"native_{name}": found[name] for name in ("inclination_deg", "anteversion_deg")}
    points = at + surface[:, None] * seat.ways
    kept = dome & np.isfinite(gap)
    return metrics, {"points_mm": points[kept].round(3).tolist(), "gap_mm": gap[kept].round(3).tolist()}


def design(fit: Fit, params: CupParams) -> Design:
    """Fields in local mm (z out of the cup, x toward the front spine, origin at the centre of head and bore): shell with
    its bore and rim as printed, holes through solid and porous, the porous dome."""
    size, handed = float(fit.params["size"]), 1.0 if fit.params["side"] == "left" else -1.0
    r = shell(size, params)
    origin, z = np.zeros(3), np.array([0.0, 0.0, 1.0])
    outer = shapes.sphere(origin, r.outer) if r.ring == 0 else shapes.torus(origin, z, r.ring, r.outer)
    rim = shapes.half_space(params.rim_stock_mm * z, z)
    holes, collars = _holes(r, handed, params)
    whole = shapes.smooth_intersection(outer, rim, 1.5)
    layer = (outer - outer.offset(-params.coat_mm)) & shapes.half_space(-RIM_BAND_MM * z, z)
    porous = layer - collars
    if params.rim_fins:
        fins = _fins(outer, r, params)
        whole, porous = whole | fins, porous - fins.offset(0.3)
    envelope = shapes.shared(whole - _bore(r, params.bore_stock_mm) - holes)
    porous = shapes.shared(porous)
    reamed = (size - params.press_fit_mm) / 2.0
    cut = shapes.sphere(origin, reamed) | shapes.cylinder(origin, 60.0 * z, reamed)
    return Design(envelope - porous, porous, envelope, Lattice(), cut, _machined(r, handed, fit.pose, params))


def _bore(r: Shell, stock: float) -> Field:
    """What is open inside: ball up to the cone, cone through the rim."""
    slope, low, high = np.tan(np.radians(TAPER_DEG / 2)), -TAPER_HEIGHT_MM, 6.0
    lean = stock / np.cos(np.radians(TAPER_DEG / 2))
    ball = shapes.sphere(np.zeros(3), r.bore - stock) & shapes.half_space([0, 0, low + 0.05], [0, 0, 1.0])
    large = r.cone_large + high * slope
    return ball | shapes.frustum([0, 0, low], [0, 0, high], r.cone_small - lean, large - lean)


def _holes(r: Shell, handed: float, params: CupParams) -> tuple[Field, Field]:
    """Polar pilot and screw holes with their seats, and the solid collars around them."""
    far = r.outer + 4.0
    pole = np.array([0.0, 0.0, -1.0])
    holes = shapes.cylinder(0.5 * r.bore * pole, far * pole, PILOT_MM / 2)
    collars = shapes.cylinder(0.5 * r.bore * pole, far * pole, THREAD_MM / 2 + COLLAR_MM)
    if not params.screw_holes:
        return holes, collars
    for way in screw_ways(handed):
        seat, hole, floor = SEAT_MM / 2, params.screw_hole_mm / 2, r.bore + SEAT_DEPTH_MM
        holes |= shapes.cylinder(0.7 * r.bore * way, floor * way, seat)
        holes |= shapes.frustum((floor - 0.01) * way, (floor + seat - hole) * way, seat, hole)
        holes |= shapes.cylinder(0.7 * r.bore * way, far * way, hole)
        collars |= shapes.cylinder(0.5 * r.bore * way, far * way, seat + COLLAR_MM)
    return holes, collars


def _fins(outer: Field, r: Shell, params: CupParams) -> Field:
    """Upright blades around the rim."""
    deep = 0.25 * r.outer
    size = [params.fin_mm + 0.12 * r.outer, FIN_THICK_MM, deep]
    blade = shapes.box([r.outer + r.ring + params.fin_mm - size[0] / 2, 0.0, -1.0 - deep / 2], size)
    ways = [(np.cos(turn), np.sin(turn)) for turn in np.arange(FINS) * 2 * np.pi / FINS]
    blades = [blade.moved(Pose(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]]))) for c, s in ways]
    return reduce(or_, blades) & outer.offset(params.fin_mm)


def _machined(r: Shell, handed: float, pose: Pose, params: CupParams) -> tuple[dict[str, Any], ...]:
    """What a shop finishes, as plain data in patient LPS: bore, taper, groove, rim, thread, screw holes."""
    s, high = params.bore_stock_mm, TAPER_HEIGHT_MM
    way, at = pose.rotation[:, 2], pose.origin_mm

    def cap(radius: float) -> float:
        return np.pi * (2 * radius**3 / 3 - high * radius**2 + high**3 / 3)

    def cone(small: float, large: float) -> float:
        return np.pi * high * (small**2 + small * large + large**2) / 3

    def point(depth: float) -> list[float]:
        return (at - depth * way).tolist()

    groove = r.cone_large - (GROOVE_AT_MM + GROOVE_WIDTH_MM / 2) * (r.cone_large - r.cone_small) / high
    groove_mm3 = np.pi * ((groove + GROOVE_DEPTH_MM) ** 2 - groove**2) * GROOVE_WIDTH_MM
    rim_mm3 = np.pi * ((r.outer + r.ring) ** 2 - r.cone_large**2) * params.rim_stock_mm
    frame = {"frame": "patient LPS mm, as part.stl", "axis": way.tolist()}
    rows: list[dict[str, Any]] = [
        {"name": "liner bore", "kind": "sphere", **frame, "center_mm": at.tolist(), "diameter_mm": 2 * r.bore,
         "below_rim_mm": high, "stock_radius_mm": s, "stock_mm3": cap(r.bore) - cap(r.bore - s)},
        {"name": "liner taper", "kind": "cone", **frame, "included_angle_deg": TAPER_DEG, "base_mm": point(high),
         "length_mm": high, "small_diameter_mm": 2 * r.cone_small, "large_diameter_mm": 2 * r.cone_large,
         "stock_radius_mm": s, "stock_mm3": cone(r.cone_small, r.cone_large) - cone(r.cone_small - s, r.cone_large - s)},
        {"name": "locking groove", "kind": "groove", **frame, "at_mm": point(GROOVE_AT_MM + GROOVE_WIDTH_MM / 2),
         "width_mm": GROOVE_WIDTH_MM, "depth_mm": GROOVE_DEPTH_MM, "diameter_mm": 2 * (groove + GROOVE_DEPTH_MM),
         "stock_mm3": groove_mm3, "note": "not printed: turned after the taper"},
        {"name": "rim face", "kind": "plane", **frame, "at_mm": at.tolist(), "stock_length_mm": params.rim_stock_mm,
         "stock_mm3": rim_mm3},
        {"name": "inserter thread M8", "kind": "thread", **frame, "at_mm": point(r.bore), "diameter_mm": THREAD_MM,
         "pitch_mm": THREAD_PITCH_MM, "pilot_diameter_mm": PILOT_MM, "note": "right-hand on both sides, never mirrored"},
    ]  # fmt: skip
    for number_, local in enumerate(screw_ways(handed) if params.screw_holes else (), start=1):
        rows.append({"name": f"screw hole {number_}", "kind": "hole", "frame": frame["frame"],
                     "axis": (pose.rotation @ local).tolist(), "at_mm": pose.apply(r.bore * local).tolist(),
                     "diameter_mm": params.screw_hole_mm, "seat_diameter_mm": SEAT_MM, "seat_depth_mm": SEAT_DEPTH_MM,
                     "note": "6.5 mm screw, 8 mm head; a head higher than the seat stands into the liner"})  # fmt: skip
    return tuple(rows)


def checks(case: Case, fit: Fit, made: Design, part: Mesh, params: CupParams) -> tuple[Check, ...]:
    """Fit and geometry of this cup against the limits in use, on the printed mesh where it matters."""
    m, size = fit.metrics, float(fit.params["size"])
    r = shell(size, params)
    local = fit.pose.inverse_apply(part.vertices)
    turned = _mesh_angles(local, fit, params)
    best = bearings.advised(2 * r.bore)
    liner = best.liner_mm if best else 0.0
    shift = float(np.linalg.norm(np.subtract(fit.params["head_center_mm"], fit.params["native_center_mm"])))
    rows = [
        check("cup_coverage_pct", m["coverage_pct"], "%", ">=", params.coverage_pct, "host bone on >= 70-80 % of the dome"),
        check("coverage_superior_pct", m["coverage_superior_pct"], "%", ">=", 70.0,
              "uncovered superolateral <= 20-30 %, else augment", severity="flag"),
        check("bone_overlap_mm3", m["metal_through_floor_mm3"], "mm3", "<=", 0.0,
              "no metal beyond the pelvic side of the bone (perforation = refuse)"),
        check("bone_left_medial_mm", m["bone_left_medial_mm"], "mm", ">=", params.floor_mm, "bone left medial >= 2 mm"),
        check("inclination_error_deg", abs(turned[0] - params.inclination_deg), "deg", "<=", 0.5,
              "rim of the mesh against the target, radiographic (Murray 1993)"),
        check("anteversion_error_deg", abs(turned[1] - params.anteversion_deg), "deg", "<=", 0.5,
              "rim of the mesh against the target, radiographic (Murray 1993)"),
        check("center_shift_mm", shift, "mm", "<=", 5.0, "hip centre restored: <= 5 mm medial, <= 5 mm superior"),
        check("over_socket_mm", m["over_socket_mm"], "mm", "<=", OVER_MOST_MM, "cup = socket + 2-6 mm", severity="flag"),
        check("solid_wall_mm", solid_wall_mm(size, params), "mm", ">=", 2.5 - 1e-6, "solid wall 2.5-4 mm after machining"),
        check("liner_thickness_mm", liner, "mm", ">=", bearings.LEAST_MM, "cross-linked polyethylene >= 4 mm absolute"),
        check("liner_target_mm", liner, "mm", ">=", bearings.TARGET_MM, "polyethylene 5-6 mm wanted", severity="flag"),
        check("liner_bore_stock_mm", params.bore_stock_mm, "mm", ">=", 0.3, "machined faces carry >= 0.3 mm stock"),
        check("liner_bore_error_mm", bore_error_mm(local, r, params), "mm", "<=", 0.02 + 0.01,
              "bore of the mesh against the datum plus stock: 0.02 mm, 0.01 mm for merged triangles"),
        check("pelvic_planes", float(fit.params["frame"].startswith("anterior")), "planes", ">=", 1.0,
              f"angles stand against: {fit.params['frame']}", severity="flag"),
    ]  # fmt: skip
    if "head_to_socket_mm" in m:
        why = "head and socket share a centre, else the native one is the socket's"
        rows.append(check("head_to_socket_mm", m["head_to_socket_mm"], "mm", "<=", 3.0, why, severity="flag"))
    if params.screw_holes:
        rows += _screw_checks(m, r, params)
    return tuple(rows)


def _screw_checks(m: Any, r: Shell, params: CupParams) -> list[Check]:
    ways = np.vstack([screw_ways(1.0), [0.0, 0.0, -1.0]])
    radii = np.array([SEAT_MM / 2] * 3 + [THREAD_MM / 2])
    between = [r.bore * np.linalg.norm(ways[i] - ways[j]) - radii[i] - radii[j] for i in range(4) for j in range(i)]
    around = [row[1] for row in SCREWS_DEG]
    rows = [
        check("screw_hole_bridge_mm", min(between), "mm", ">=", 2.0, "wall between holes >= 2 mm"),
        check("screw_quadrant_deg", min(min(around), 90.0 - max(around)), "deg", ">=", 0.0,
              "axes within the postero-superior quadrant (Wasielewski et al. 1990, J Bone Joint Surg Am 72:501)"),
        check("screw_bone_mm", max(m[f"screw_{i}_bone_mm"] for i in (1, 2, 3)), "mm", ">=", 15.0,
              "one screw at least finds 15 mm of bone", severity="flag"),
    ]  # fmt: skip
    return rows


def _mesh_angles(local: Array, fit: Fit, params: CupParams) -> tuple[float, float]:
    """Radiographic inclination and anteversion (deg) of the plane through the mesh's rim, in the frame of the plan."""
    rim = local[local[:, 2] > params.rim_stock_mm - 0.02]
    if len(rim) < 3:
        return float("nan"), float("nan")
    normal = np.linalg.svd(rim - rim.mean(axis=0), full_matrices=False)[2][2]
    way = fit.pose.rotation @ (normal * np.sign(normal[2]))
    found = angles(way, np.array(fit.params["frame_rotation"]), fit.params["side"])
    return found["inclination_deg"], found["anteversion_deg"]


def bore_error_mm(local: Array, r: Shell, params: CupParams) -> float:
    """Largest distance of the mesh's bore (implant-local vertices) from the datum sphere less its stock, off the holes."""
    far = np.linalg.norm(local, axis=1)
    want = r.bore - params.bore_stock_mm
    bore = (np.abs(far - want) < 0.15) & (local[:, 2] < -TAPER_HEIGHT_MM - 1.0)
    way = local / np.maximum(far, 1e-9)[:, None]
    ways = np.vstack([screw_ways(1.0), screw_ways(-1.0), [0.0, 0.0, -1.0]])
    bore &= (np.linalg.norm(way[:, None] - ways[None], axis=2).min(axis=1) * want) > SEAT_MM / 2 + 0.8
    return float(np.abs(far[bore] - want).max()) if bore.any() else float("nan")


IMPLANT = Implant(
    name="hip_cup",
    summary="cementless press-fit cup with a porous dome, a liner seat left with stock and screw holes",
    region="hip",
    needs=("hip_{side}",),
    also=("hip_{other}", "femur_{side}"),
    Params=CupParams,
    plan=plan,
    design=design,
    checks=checks,
    phantom=hip,
    blank=lambda side, params: Fit("hip_cup", {"size": _sizes(params)[0], "side": side}, Pose(), {}),
)
