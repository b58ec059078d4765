"""Cementless straight hip stem: tapered body sized to the canal, neck solved for the patient's own head centre."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import model_validator
from scipy.special import ndtr

from implantforge.core import (
    Anatomy,
    AnatomyError,
    Array,
    Check,
    Design,
    Field,
    Fit,
    FitError,
    Lattice,
    Mesh,
    Pose,
    Side,
    check,
)
from implantforge.geom import shapes
from implantforge.implants import Case, Implant, Params, choice, count, deg, flag, mm, number
from implantforge.stages import fit as seating
from implantforge.stages.anatomy.canal import cavity
from implantforge.stages.bearings import HEAD_ABOVE_BASE_MM, TAPER_ANGLE_DEG, TAPER_LENGTH_MM, TAPER_SMALL_MM
from implantforge.stages.cad import Spine
from implantforge.stages.fit import stemsearch
from implantforge.stages.fit.stems import (
    FAMILIES,
    NECKS,
    SHOULDER_MM,
    SIZES,
    Body,
    Style,
    body,
    off_the_shelf,
    surface_points,
)
from implantforge.stages.phantoms import hip
from implantforge.stages.socket import hu_at

NECK_CUT_MM = (8.0, 15.0)
"""Above the lesser trochanter: how far a neck off the shelf may move the cut."""
BLEND_MM = 5.0
"""Rounding of the shoulder."""
WALL_SIGMA_MM = 0.15
"""How well the canal's wall is known, one sigma: surfaces 0.03-0.12 mm, the endosteal edge less well."""


class StemParams(Params):
    """What an engineer may set; sizes and angles left out are found from the patient."""

    size: int | None = count(None, 1, 16, "size of the family; found by fit when absent", source="vendors' catalogues")
    family: str = choice("fit and fill", tuple(FAMILIES), "fit and fill, flat taper wedge, or short stem")
    neck: str = choice("custom", ("custom", *NECKS), "solved for the head centre, or off the shelf: standard or lateral "
                       "offset; the cut is then moved within 8-15 mm so that the head comes to its height")  # fmt: skip
    stem_length_mm: float | None = mm(None, 80.0, 180.0, "resection to tip, 90-180, of a short stem 80-120; the size's own "
                                      "when absent", tag="M", source="vendor envelope 110-180, short 80-120")  # fmt: skip
    neck_shaft_angle_deg: float | None = deg(None, 120.0, 140.0, "neck to stem axis; the patient's, held to 125-135, "
                                             "when absent", tag="M", source="vendor envelope 125-135")  # fmt: skip
    section_exponent: float = number(2.2, 2.0, 5.0, "superellipse exponent of the sections (2 is an ellipse)")
    collar: bool = flag(False, "medial collar resting on the calcar")
    resection_above_trochanter_mm: float = mm(12.0, 5.0, 25.0, "neck cut above the lesser trochanter on the calcar",
                                              tag="M", source="8-15 mm customary")  # fmt: skip
    resection_angle_deg: float = deg(
        45.0, 30.0, 60.0, "neck cut to the plane across the shaft", tag="M", source="45 deg customary"
    )
    endosteal_hu: float = number(700.0, 400.0, 900.0, "HU that bounds the canal; its wall then stands at "
                                 "half height between marrow and bone, within 0.4 mm", unit="HU",
                                 source="endosteal boundary 500-700 HU")  # fmt: skip
    cortex_mm: float = mm(
        2.0, 1.0, 5.0, "bone left between cavity and outer surface", source="remaining cortex >= 2 mm"
    )
    press_fit_mm: float = mm(0.3, 0.0, 0.8, "overlap with the canal wall wanted at the most", tag="M",
                             source="0.3-0.8 mm a side")  # fmt: skip
    overlap_limit_mm: float = mm(0.65, 0.0, 1.0, "overlap with the canal wall accepted, mean of the deepest 2 %",
                                 source="<= 1 mm local")  # fmt: skip
    coat_depth_mm: float = mm(1.5, 0.8, 2.0, "porous coat", tag="M", source="0.8-2.0 mm", of="design")
    coat_share: float = number(1 / 3, 0.2, 0.5, "share of the stem's length that is coated, from the top", tag="M",
                               source="proximal 1/3-1/2", of="design")  # fmt: skip
    neck_diameter_mm: float = mm(12.4, 11.0, 13.5, "solid neck", tag="M", source=">= 11 mm Ti", of="design")
    taper_stock_mm: float = mm(0.7, 0.3, 1.5, "machining stock on the taper's radius", tag="M",
                               source="+0.5-1.0 mm", of="design")  # fmt: skip

    @model_validator(mode="after")
    def _length_of_its_family(self) -> StemParams:
        low, high = FAMILIES[self.family].lengths_mm
        if self.stem_length_mm is not None and not low <= self.stem_length_mm <= high:
            raise ValueError(f"stem_length_mm = {self.stem_length_mm:g} is none of a {self.family} stem's, {low:.0f} to "
                             f"{high:.0f} mm: say another length or family")  # fmt: skip
        return self


def plan(case: Case, params: StemParams) -> Fit:
    """The largest size whose body stays within the canal, turned to the head, with the neck that restores its centre.

    Every style of the family is seated in the canal (geom fields, no mesh); the winner has the best fill at mid-stem.
    FitError when no size fits, AnatomyError when the bone lacks a landmark that the plan needs.
    """
    return planned(case, params, case.anatomy[f"femur_{case.side}"].at("head_center"))


def planned(case: Case, params: StemParams, target_mm: Array, head_extra_mm: float = 0.0) -> Fit:
    """`plan` for another head centre than the patient's own, e.g. that of a planned cup, reached with a head that adds
    head_extra_mm to the neck; the same errors."""
    bone = f"femur_{case.side}"
    anatomy = case.anatomy[bone]
    wall = cavity(case.volume, case.bones[bone], anatomy, params.endosteal_hu, params.cortex_mm)
    fit = seated(wall, anatomy, params, target_mm, head_extra_mm)
    hu = _contact_hu(case, fit)
    return replace(fit, metrics={**fit.metrics, **hu})


def seated(wall: Field, anatomy: Anatomy, params: StemParams, target_mm: Array, head_extra_mm: float = 0.0) -> Fit:
    """`planned` in a canal that is given as a field, negative inside."""
    cut = seating.cut_normal(params.resection_angle_deg)
    asked = stemsearch.Asked(params.family, params.size, params.stem_length_mm, params.section_exponent,
                             params.press_fit_mm, params.overlap_limit_mm)  # fmt: skip

    def search(level_mm: float) -> list[dict]:
        start = seating.on_canal(anatomy, level_mm, params.resection_angle_deg)
        return stemsearch.search(asked, stemsearch.Canal(wall, start, target_mm, cut))

    level = params.resection_above_trochanter_mm
    found = search(level)
    for _ in range(2 if params.neck != "custom" and found else 0):
        height = found[0]["pose"].inverse_apply(target_mm)[2]
        lower = off_the_shelf(params.neck, found[0]["size"])[1] - height
        higher = float(np.clip(level - lower, *NECK_CUT_MM))
        if abs(higher - level) < 0.05:
            break
        level, found = higher, search(higher)
    if not found:
        isthmus = anatomy.measures.get("isthmus_diameter_mm", float("nan"))
        if params.size is not None:
            raise FitError(
                f"hip_stem: size {params.size} of {params.family} does not fit {anatomy.bone}: it passes the canal wall by "
                f"more than {params.overlap_limit_mm} mm, or the scan ends above its tip (isthmus {isthmus:.1f} mm); leave "
                "params.size out and the canal's own size is found"
            )
        raise FitError(
            f"hip_stem: no {params.family} stem fits {anatomy.bone}: even size 1 passes the canal wall by more than "
            f"{params.overlap_limit_mm} mm, or the scan ends above its tip (isthmus {isthmus:.1f} mm)"
        )
    best = found[0]
    stem = body(best["width_mm"], best["length_mm"], best["style"], params.section_exponent)
    pose: Pose = best["pose"]
    metrics, gap = _measure(stem, pose, wall, cut, best | {"coat_mm": best["length_mm"] / 3})
    metrics |= _chances(found, params) | {"canal_size": best["agreed"]}
    low = pose.inverse_apply(anatomy.at("lesser_trochanter"))
    metrics["neck_cut_above_trochanter_mm"] = float(-(low @ cut) / cut[2])
    solved = _neck(best, anatomy, target_mm, params, head_extra_mm)
    told = {f"stem_{name}" if name == "offset_mm" else name: value for name, value in solved.items()}
    chosen = {key: best[key] for key in ("size", "width_mm", "length_mm")} | best["style"]._asdict() | solved
    head = pose.apply(np.array([solved["offset_mm"], 0.0, solved["head_height_mm"]]))
    chosen |= {"family": params.family, "neck": params.neck, "head_target_mm": target_mm.tolist(), "head_mm": head.tolist(),
               "necks": _necks(best, target_mm)}  # fmt: skip
    rows = tuple(_told(row, found) | {"rank": n + 1} for n, row in enumerate(_shown(found)))
    return Fit("hip_stem", chosen | {"gap_samples": gap}, pose, metrics | told, rows, rows[0]["why"])


def _contact_hu(case: Case, fit: Fit) -> dict[str, float]:
    """HU 2 mm behind the wall where the coat meets it: the bone that carries it."""
    samples = fit.params["gap_samples"]
    points, gap = np.array(samples["points_mm"]), np.array(samples["gap_mm"])
    local = fit.pose.inverse_apply(points)
    near = (gap <= seating.CONTACT_MM) & (local[:, 2] > -fit.params["length_mm"] / 3)
    away = points[near] - fit.pose.apply(local[near] * [0.0, 0.0, 1.0])
    away /= np.maximum(np.linalg.norm(away, axis=1), 1e-9)[:, None]
    hu = hu_at(case.volume, points[near] + (np.maximum(gap[near], 0.0)[:, None] + 2.0) * away)
    hu = hu[np.isfinite(hu)]
    return (
        {"contact_hu_median": float(np.median(hu)), "contact_hu_p10": float(np.percentile(hu, 10))} if len(hu) else {}
    )


def _chances(found: list[dict], params: StemParams) -> dict[str, float]:
    """How likely the neighbouring sizes are in truth: how near the styles' mean lies to the border of the next size, in
    sigmas of a wall known to WALL_SIGMA_MM on either side (a size is 1 mm of width)."""
    if params.size is not None:
        return {}
    best = found[0]["size"]
    over = float(np.clip(found[0]["agreed"] - best, -0.5, 0.5))
    step = 2.0 * WALL_SIGMA_MM / (SIZES[2][0] - SIZES[1][0])
    smaller = float(ndtr((-0.5 - over) / step)) if best > min(SIZES) else 0.0
    larger = float(ndtr((over - 0.5) / step)) if best < max(SIZES) else 0.0
    return {"size_smaller_probability_pct": 100 * smaller, "size_larger_probability_pct": 100 * larger,
            "size_probability_pct": 100 * (1.0 - smaller - larger)}  # fmt: skip


def _shown(found: list[dict]) -> list[dict]:
    """The best of the size chosen, then the best of each of the three sizes nearest to it; both by score."""
    best = found[0]["size"]
    others = {row["size"]: row for row in reversed(found) if row["size"] != best}
    near = sorted(others, key=lambda size: (abs(size - best), size))[:3]
    return [row for row in found if row["size"] == best][:5] + sorted(
        (others[size] for size in near), key=lambda row: (-round(row["score"], 6), row["size"])
    )


def _told(row: dict, found: list[dict]) -> dict[str, Any]:
    """An alternative as people read it, with why it stands where it does."""
    best = found[0]
    more = row["fill_mid_pct"] - best["fill_mid_pct"]
    if row is best:
        why = (
            f"size {row['size']}, {row['length_mm']:.0f} mm: the canal asks for {row['agreed']:.1f}, best fill of "
            f"{len(found)} candidates in it ({row['fill_mid_pct']:.0f} % at mid-stem), overlap with the canal wall "
            f"{row['overlap_mm']:.2f} mm"
        )
    elif row["size"] != best["size"]:
        why = (
            f"size {row['size']} where the canal asks for {best['agreed']:.1f}; {more:+.1f} points of fill at mid-stem"
        )
    else:
        less = {name: best[f"fill_{name}_pct"] - row[f"fill_{name}_pct"] for name in ("proximal", "mid", "distal")}
        worst = max(less, key=lambda name: less[name])
        why = f"fills {less[worst]:.1f} points less of the {worst} canal"
        if less[worst] < 0.05:
            why = f"fills as well at all three heights; scores {best['score'] - row['score']:.2g} less"
    kept = {k: v for k, v in row.items() if k not in ("pose", "style", "reach", "score", "agreed", "could_be")}
    return kept | row["style"]._asdict() | {"score": row["score"], "why": why}


def _neck(best: dict, anatomy: Anatomy, target_mm: Array, params: StemParams, extra_mm: float) -> dict[str, float]:
    """Neck numbers: offset and height of the head's centre with a head that adds extra_mm, angle, foot, length. Custom:
    those that put it where it is wanted; off the shelf: those of the size."""
    x, _, z = best["pose"].inverse_apply(target_mm)
    if x < 15.0:
        raise AnatomyError(f"{anatomy.bone}: the head lies {x:.0f} mm from the stem axis; a stem needs 15 mm of offset")
    if params.neck == "custom":
        angle = params.neck_shaft_angle_deg or float(np.clip(anatomy.measures["neck_shaft_angle_deg"], 125.0, 135.0))
        foot = z - x / np.tan(np.radians(180.0 - angle))
    else:
        x, z, foot, angle = off_the_shelf(params.neck, best["size"])
        x, z = np.array([x, z]) * (1.0 + extra_mm / np.hypot(x, z - foot)) - [
            0.0,
            foot * extra_mm / np.hypot(x, z - foot),
        ]
    return {"offset_mm": float(x), "head_height_mm": float(z), "neck_shaft_angle_deg": angle, "neck_foot_mm": float(foot),
            "neck_length_mm": float(np.hypot(x, z - foot)), "head_extra_mm": extra_mm}  # fmt: skip


def _necks(best: dict, target_mm: Array) -> list[dict[str, Any]]:
    """What each neck off the shelf would miss of the head centre at this seat, head of length M."""
    x, _, z = best["pose"].inverse_apply(target_mm)
    rows = ((name, *off_the_shelf(name, best["size"])) for name in NECKS)
    return [{"neck": name, "offset_mm": offset, "neck_shaft_angle_deg": angle, "offset_error_mm": float(offset - x),
             "height_error_mm": float(height - z)} for name, offset, height, _, angle in rows]  # fmt: skip


def _measure(stem: Body, pose: Pose, wall: Field, cut: Array, best: dict) -> tuple[dict[str, float], dict]:
    """Fit metrics of INTERFACE.md and about 2000 surface points with their gap to the canal wall."""
    local = surface_points(stem, cut)
    points = pose.apply(local)
    gap = -wall(points)
    coat = gap[local[:, 2] > -best["coat_mm"]]
    metrics = {
        "size": best["size"], "fit_gap_mean_mm": float(np.maximum(gap, 0).mean()),
        "fit_gap_p95_mm": float(np.percentile(np.maximum(gap, 0), 95)),
        "contact_pct": float(100.0 * np.mean(gap <= seating.CONTACT_MM)), "canal_overlap_max_mm": float(-gap.min()),
        "coat_contact_pct": float(100.0 * np.mean(coat <= seating.CONTACT_MM)),
        "coat_gap_mean_mm": float(np.maximum(coat, 0).mean()),
        **{key: value for key, value in best.items() if "fill_" in key},
    }  # fmt: skip
    return metrics, {"points_mm": points.round(3).tolist(), "gap_mm": gap.round(3).tolist()}


def design(fit: Fit, params: StemParams) -> Design:
    """Fields in local mm (x medial, z up the stem, origin where the neck cut meets the axis): body, neck, taper with
    stock, and the coat region on the top share of the body under the cut."""
    p = fit.params
    stem = body(p["width_mm"], p["length_mm"], Style(*(p[name] for name in Style._fields)), params.section_exponent)
    cut = seating.cut_normal(params.resection_angle_deg)
    zero = np.zeros_like(stem.z)
    exact = shapes.loft(stem.z, zero, stem.medial, stem.lateral, stem.depth, params.section_exponent)
    # deeper than the blends below reach: past the band distances go in steps, which a blend would bring to the surface
    hull = shapes.shared(shapes.sampled(exact, 0.4, band_mm=BLEND_MM + 1.0))
    below = shapes.half_space(np.zeros(3), cut)
    shoulder = shapes.half_space(np.array([0.0, 0.0, SHOULDER_MM - BLEND_MM]), np.array([0.0, 0.0, 1.0]))
    core = shapes.shared(shapes.smooth_intersection(shapes.smooth_intersection(hull, shoulder, BLEND_MM), below, 2.0))
    neck, machined = _neck_fields(fit, params)
    neck = shapes.shared(neck)
    envelope = shapes.smooth_union(core, neck, 2.0)
    if params.collar:
        slab = below & shapes.half_space(-2.5 * cut, -cut)
        medial = shapes.half_space(
            np.array([0.6 * float(stem.at(np.array([0.0]))[0][0]), 0.0, 0.0]), np.array([-1.0, 0, 0])
        )
        envelope = envelope | (hull.offset(2.5) & slab & medial)
    top_rim = shapes.half_space(-1.2 * cut, cut)
    length = float(p["length_mm"])
    coated = top_rim & shapes.half_space(np.array([0.0, 0.0, -params.coat_share * length]), np.array([0.0, 0.0, -1.0]))
    region = (hull - hull.offset(-params.coat_depth_mm)) & coated
    # where the neck runs under the surface the coat gives way, so that the neck stays solid
    porous = shapes.shared((region & core) - neck.offset(0.6))
    envelope = shapes.shared(envelope)
    return Design(envelope - porous, porous, envelope, Lattice(), below_complement(cut), machined)


def below_complement(cut: Array) -> Field:
    """What the neck cut removes from the bone: everything above the plane through the origin."""
    return shapes.half_space(np.zeros(3), -cut)


def _neck_line(fit: Fit) -> tuple[Array, Array, Array]:
    """Where the neck starts on the stem's axis, where its taper starts, and its direction."""
    p = fit.params
    head, foot = np.array([p["offset_mm"], 0.0, p["head_height_mm"]]), np.array([0.0, 0.0, p["neck_foot_mm"]])
    along = (head - foot) / np.linalg.norm(head - foot)
    return foot, head - (HEAD_ABOVE_BASE_MM + p["head_extra_mm"]) * along, along


def spine(fit: Fit, params: StemParams) -> Spine:
    """The stem as CAD sees it: one skin up to a ring on the neck, 4 mm under the taper, the rest turned about the neck."""
    foot, base, along = _neck_line(fit)
    return Spine(-float(fit.params["length_mm"]), min(float(foot[2]), -10.0), base - 4.0 * along, along,
                 params.neck_diameter_mm / 2.0)  # fmt: skip


def blank(side: Side, params: StemParams) -> Fit:
    """A size of the family without a patient: the middle one of its styles, the standard neck unless another is named."""
    styles, size = FAMILIES[params.family].styles, params.size or sorted(SIZES)[len(SIZES) // 2]
    style, (width, length) = styles[len(styles) // 2], SIZES[size]
    offset, height, foot, _ = off_the_shelf("standard" if params.neck == "custom" else params.neck, size)
    values = {"size": size, "width_mm": width, "length_mm": params.stem_length_mm or length * style.length_ratio,
              **style._asdict(), "offset_mm": offset, "head_height_mm": height, "neck_foot_mm": foot, "head_extra_mm": 0.0,
              "side": side}  # fmt: skip
    return Fit("hip_stem", values, Pose(), {})


def _neck_fields(fit: Fit, params: StemParams) -> tuple[Field, tuple[dict[str, Any], ...]]:
    """Neck with the 12/14 taper as printed (with stock), and the taper as it will be machined, as plain data."""
    foot, base, along = _neck_line(fit)
    small, stock = TAPER_SMALL_MM / 2.0, params.taper_stock_mm
    slope = np.tan(np.radians(TAPER_ANGLE_DEG / 2.0))
    large = small + TAPER_LENGTH_MM * slope
    end = base + TAPER_LENGTH_MM * along
    extra = 1.5
    shaft = shapes.cylinder(foot, base, params.neck_diameter_mm / 2.0)
    taper = shapes.frustum(
        base - 0.5 * along, end + extra * along, large + stock + 0.5 * slope, small + stock - extra * slope
    )
    stock_mm3 = (
        np.pi
        / 3.0
        * (
            (TAPER_LENGTH_MM + extra)
            * ((large + stock) ** 2 + (large + stock) * (small + stock) + (small + stock) ** 2)
            - TAPER_LENGTH_MM * (large**2 + large * small + small**2)
        )
    )
    machined = {
        "name": "taper 12/14", "kind": "cone", "included_angle_deg": TAPER_ANGLE_DEG, "frame": "patient LPS mm, as part.stl",
        "base_mm": fit.pose.apply(base).tolist(), "axis": (fit.pose.rotation @ along).tolist(),
        "length_mm": TAPER_LENGTH_MM, "large_diameter_mm": 2 * large,
        "small_diameter_mm": TAPER_SMALL_MM, "stock_radius_mm": stock, "stock_length_mm": extra,
        "stock_mm3": float(stock_mm3),
        "note": "printed with stock; to be machined and validated with the named head (no 12/14 standard exists)",
    }  # fmt: skip
    return shapes.smooth_union(shaft, taper, 2.0), (machined,)


def checks(case: Case, fit: Fit, made: Design, part: Mesh, params: StemParams) -> tuple[Check, ...]:
    """Fit and geometry of this stem against the limits in use, on the printed mesh where it matters."""
    m = fit.metrics
    bone = case.bones[f"femur_{case.side}"]
    low, _ = bone.bounds
    by = FAMILIES[params.family].filled
    filled = m["width_fill_mid_pct" if by == "width" else "fill_mid_pct"]
    tip = fit.pose.apply(np.array([0.0, 0.0, -fit.params["length_mm"]]))
    taper = made.machined[0]
    head = np.array(taper["base_mm"]) + (HEAD_ABOVE_BASE_MM + fit.params["head_extra_mm"]) * np.array(taper["axis"])
    head_error = float(np.linalg.norm(head - fit.params["head_target_mm"]))
    return (
        check("bone_overlap_mm3", seating.outside_mm3(bone, made, fit.pose), "mm3", "<=", 0.0,
              "no metal outside the outer cortex below the neck cut (perforation = refuse)"),
        check("canal_fill_mid_pct", filled, "%", ">=", 70.0, f"canal fill at mid-stem by {by}: >= 80 target, < 70 refuse"),
        check("canal_fill_target_pct", filled, "%", ">=", 80.0, f"canal fill by {by}: target >= 80 %", severity="flag"),
        check("canal_overlap_mm", m["canal_overlap_max_mm"], "mm", "<=", seating.LOCAL_MM,
              "press-fit 0.3-0.8 mm, local overlap with the cortex <= 1 mm"),
        check("head_center_error_mm", head_error, "mm", "<=", 2.0,
              "head centre on the machined taper against the planned one: target <= 2 mm (the neck is solved for it)"),
        check("coat_contact_pct", m["coat_contact_pct"], "%", ">=", 50.0,
              "coat within 1 mm of cortex on >= 50-60 % of the proximal perimeter (design study)", severity="flag"),
        check("neck_length_mm", m["neck_length_mm"], "mm", "<=", 62.0, "neck lever: a longer neck is outside the family"),
        check("neck_diameter_mm", params.neck_diameter_mm, "mm", ">=", 11.0, "solid neck >= 11 mm Ti"),
        check("taper_stock_mm", params.taper_stock_mm, "mm", ">=", 0.3, "machined faces carry >= 0.3 mm stock"),
        check("scan_below_tip_mm", float(tip[2] - low[2]), "mm", ">=", 30.0,
              "scan holds >= 30 mm of femur below the tip", severity="flag"),
    )  # fmt: skip


IMPLANT = Implant(
    name="hip_stem",
    summary="cementless straight femoral stem with a porous proximal coat and a 12/14 taper",
    region="hip",
    needs=("femur_{side}",),
    Params=StemParams,
    plan=plan,
    design=design,
    checks=checks,
    phantom=hip,
    blank=blank,
    spine=spine,
)
