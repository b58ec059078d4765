"""Cementless press-fit cup: hemispherical shell with a porous dome, a liner seat left with stock, and three screw holes."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from operator import or_
from typing import Any, NamedTuple

import numpy as np

from implantforge.core import Array, Check, Design, Field, Fit, Lattice, Mesh, Pose, check
from implantforge.geom import shapes
from implantforge.implants import Case, Implant, _cup, choice, flag, mm
from implantforge.implants._cup import RIM_BAND_MM
from implantforge.stages import bearings
from implantforge.stages.phantoms import hip

SIZES = tuple(range(44, 67, 2))
"""Outer diameters, mm."""
TAPER_DEG, TAPER_HEIGHT_MM = 18.0, 5.0
GROOVE_AT_MM, GROOVE_WIDTH_MM, GROOVE_DEPTH_MM = 1.2, 1.4, 0.6
PILOT_MM, THREAD_MM, THREAD_PITCH_MM = 6.2, 8.0, 1.25
"""Polar hole printed as a pilot for an M8 thread: core 6.65 mm less 0.45."""
SCREWS_DEG = ((38.0, 45.0), (60.0, 9.0), (60.0, 81.0))
"""Screw holes: angle from the pole, angle from the line to the front spine toward posterior. Postero-superior lies
between 0 and 90 (Wasielewski et al. 1990, J Bone Joint Surg Am 72:501)."""
SEAT_MM, SEAT_DEPTH_MM, COLLAR_MM = 8.6, 1.7, 1.5
"""Seat of a screw's head: 8 mm heads of 6.5 mm screws with 0.3 mm a side; solid around it through the porous."""
FINS, FIN_THICK_MM = 12, 1.2


class CupParams(_cup.CupPlan):
    """What an engineer may set; the size left out is found from the patient."""

    size: int | None = choice(None, SIZES, "outer diameter; found by fit when absent", unit="mm",
                              source="vendors' catalogues: 44-66 by 2 mm")  # fmt: skip
    elliptic_mm: float = mm(
        0.0, 0.0, 2.0, "equator wider than the dome asks, in diameter", tag="M", source="dual radius +1-2 mm"
    )
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


def plan(case: Case, params: CupParams) -> Fit:
    """Where `_cup.plan` lays it, with the heads and liners that go in and what bone the screws find. Errors as there."""
    sizes = {size: float(size) for size in _sizes(params)}
    fit, seat = _cup.plan(case, params, "hip_cup", sizes, params.elliptic_mm / 2.0)
    size, at = fit.params["size"], fit.pose.origin_mm
    held = {}
    if params.screw_holes:
        ways = screw_ways(1.0 if case.side == "left" else -1.0) @ fit.pose.rotation.T
        held = {f"screw_{i}_bone_mm": seat.bone_along_mm(at, way, size / 2.0) for i, way in enumerate(ways, start=1)}
    more = {"liner_bore_center_mm": at.tolist(), "bearings": bearings.rows(2 * shell(size, params).bore)}
    return replace(fit, params={**fit.params, **more}, metrics={**fit.metrics, **held})


def _sizes(params: CupParams) -> tuple[int, ...]:
    return SIZES if params.size is None else (params.size,)


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
    size = float(fit.params["size"])
    r = shell(size, params)
    local = fit.pose.inverse_apply(part.vertices)
    best = bearings.advised(2 * r.bore)
    liner = best.liner_mm if best else 0.0
    rows = [
        *_cup.checks(fit, params, _cup.rim_angles(local, fit)),
        check("solid_wall_mm", solid_wall_mm(size, params), "mm", ">=", 2.5 - 1e-6, "solid wall 2.5-4 mm after machining"),
        check("liner_thickness_mm", liner, "mm", ">=", bearings.LEAST_MM, "cross-linked polyethylene >= 4 mm absolute"),
        check("liner_target_mm", liner, "mm", ">=", bearings.TARGET_MM, "polyethylene 5-6 mm wanted", severity="flag"),
        check("liner_bore_stock_mm", params.bore_stock_mm, "mm", ">=", 0.3, "machined faces carry >= 0.3 mm stock"),
        check("liner_bore_error_mm", bore_error_mm(local, r, params), "mm", "<=", 0.02 + 0.01,
              "bore of the mesh against the datum plus stock: 0.02 mm, 0.01 mm for merged triangles"),
    ]  # fmt: skip
    if params.screw_holes:
        rows += _screw_checks(fit.metrics, r, params)
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
