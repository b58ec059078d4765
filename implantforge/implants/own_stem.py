"""A maker's own hip stem, given as closed meshes: planned, gapped, coated and exported like the parametric one."""

from __future__ import annotations

from typing import Any

import numpy as np

from implantforge.core import Array, Check, Design, Field, Fit, FitError, Lattice, Mesh, Pose, check
from implantforge.geom import shapes
from implantforge.implants import Case, Implant, _maker, choice, mm, number
from implantforge.stages import fit as seating
from implantforge.stages import templates
from implantforge.stages.anatomy.canal import cavity
from implantforge.stages.bearings import LENGTHS_MM
from implantforge.stages.phantoms import hip

POINTS_MM, COARSE_MM = 2.0, 4.0
CUT_MM, CUT_FIRST_MM = (8.0, 15.0), 12.0
"""Neck cut above the lesser trochanter: how far it may move so that the head comes to its height, and where it begins."""


class OwnStemParams(_maker.MakerParams):
    """What an engineer may set; the size is found when absent."""

    head_length: str | None = choice(None, tuple(LENGTHS_MM), "head length; the nearest to the patient's when absent")
    resection_above_trochanter_mm: float | None = mm(None, 5.0, 25.0, "neck cut above the lesser trochanter on the calcar; "
                                                     "found within 8-15, for the head's height, when absent", tag="M",
                                                     source="8-15 mm customary")  # fmt: skip
    endosteal_hu: float = number(700.0, 400.0, 900.0, "HU that bounds the canal; its wall then stands at "
                                 "half height between marrow and bone, within 0.4 mm", unit="HU",
                                 source="endosteal boundary 500-700 HU")  # fmt: skip
    cortex_mm: float = mm(
        2.0, 1.0, 5.0, "bone left between cavity and outer surface", source="remaining cortex >= 2 mm"
    )
    press_fit_mm: float = mm(0.3, 0.0, 0.8, "overlap with the canal wall wanted at the most", tag="M",
                             source="0.3-0.8 mm a side")  # fmt: skip
    overlap_limit_mm: float = mm(
        0.65, 0.0, 1.0, "overlap with the canal wall accepted, mean of the deepest 2 %", source="<= 1 mm local"
    )


def resolve(params: OwnStemParams) -> OwnStemParams:
    """As `_maker.read`, of stems."""
    return _maker.read(params, "stem")


def plan(case: Case, params: OwnStemParams) -> Fit:
    """Every size seated in the canal; the winner is the one with the best fill among those within the overlap limit, with
    the cut and head that bring its centre nearest to the patient's. FitError when none fits; AnatomyError when the femur
    lacks a landmark; InputError when the template is made for the other side."""
    template = _maker.template(params, "stem")
    sizes = {one.size: one for one in template.for_side(case.side, params.size)}
    bone = f"femur_{case.side}"
    anatomy = case.anatomy[bone]
    wall = cavity(case.volume, case.bones[bone], anatomy, params.endosteal_hu, params.cortex_mm)
    target = anatomy.at("head_center")
    rows = [_placed(case, one, template, params, wall, target) for one in sizes.values()]
    fitting = sorted((row for row in rows if row["overlap_mm"] <= params.overlap_limit_mm),
                     key=lambda row: (-round(row["score"], 6), row["size"]))  # fmt: skip
    if not fitting:
        least = min(rows, key=lambda row: row["overlap_mm"])
        raise FitError(
            f"own_stem: no size of {template.name} fits {bone}: the best, size {least['size']}, passes the canal wall by "
            f"{least['overlap_mm']:.1f} mm (limit {params.overlap_limit_mm}) or leaves the scan"
        )
    best = fitting[0]
    ranked = [*fitting, *sorted((row for row in rows if row not in fitting), key=lambda row: row["overlap_mm"])]
    told = tuple(_told(row, best, params) | {"rank": n} for n, row in enumerate(ranked[:8], start=1))
    metrics, samples = _measure(sizes[best["size"]], best["pose"], wall, template)
    metrics |= {key: best[key] for key in best if isinstance(best[key], (int, float)) and key != "score"}
    chosen = {**_maker.named(template, params), "size": best["size"],
              "head_length": best["head_length"], "head_target_mm": target.tolist(), "side": case.side,
              "cut_mm": best["cut_mm"], "gap_samples": samples}  # fmt: skip
    return Fit("own_stem", chosen, best["pose"], metrics, told, told[0]["why"])


def _placed(
    case: Case, one: templates.Size, template: templates.Template, params: OwnStemParams, wall: Field, target: Array
) -> dict[str, Any]:
    """One size at rest: pose, overlap, fill, the head and what it misses of the patient's centre."""
    anatomy, level = case.anatomy[f"femur_{case.side}"], params.resection_above_trochanter_mm or CUT_FIRST_MM
    normal = seating.cut_normal(template.cut_angle_deg)
    for _ in range(2):
        start = seating.on_canal(anatomy, level, template.cut_angle_deg)
        pose = start
        # turned to the head it rests no more: once more, and closely
        for spacing, reach_mm, reach_deg in ((COARSE_MM, 6.0, 4.0), (POINTS_MM, 2.0, 1.5)):
            rest = seating.seat(_points(one.mesh, normal, spacing), wall, pose, press_mm=params.press_fit_mm,
                                reach_mm=reach_mm, reach_deg=reach_deg)  # fmt: skip
            pose = seating.turned_to(rest.pose, target)
        if params.resection_above_trochanter_mm is not None:
            break
        wanted = float(np.clip(level + pose.inverse_apply(target)[2] - one.head_mm[2], *CUT_MM))
        if abs(wanted - level) < 0.1:
            break
        level = wanted
    placed = pose.apply(_points(one.mesh, normal, POINTS_MM))
    fills = _fills(one.mesh, pose, wall)
    return {
        "size": one.size, "pose": pose, "cut_mm": level, **fills, **_head(one, pose, target, params),
        "overlap_mm": seating.overlap_mm(wall, placed, params.overlap_limit_mm),
        "score": fills["fill_mid_pct"] + 0.3 * (fills["fill_proximal_pct"] + fills["fill_distal_pct"]),
    }  # fmt: skip


def _head(one: templates.Size, pose: Pose, target: Array, params: OwnStemParams) -> dict[str, Any]:
    """The head length whose centre comes nearest, and what it misses: medial and up are positive."""
    way = one.head_mm / np.linalg.norm(one.head_mm)
    names = (params.head_length,) if params.head_length else tuple(LENGTHS_MM)
    wanted = pose.inverse_apply(target)
    away = {name: one.head_mm + LENGTHS_MM[name] * way - wanted for name in names}
    name = min(names, key=lambda key: (round(float(np.linalg.norm(away[key])), 6), LENGTHS_MM[key]))
    return {"head_length": name, "head_extra_mm": LENGTHS_MM[name], "offset_change_mm": float(away[name][0]),
            "leg_length_change_mm": float(away[name][2]), "head_error_mm": float(np.linalg.norm(away[name]))}  # fmt: skip


def _points(mesh: Mesh, normal: Array, spacing_mm: float) -> Array:
    """Points (n,3) of the surface under the neck cut, at most one in a cube of spacing_mm."""
    found = _maker.points(mesh, spacing_mm)
    return found[found @ normal < -0.5]


def _fills(mesh: Mesh, pose: Pose, wall: Field) -> dict[str, float]:
    """Share of the canal's area that the stem takes at a quarter, half and four fifths of its length under the cut."""
    solid = shapes.from_mesh(mesh, 0.8, 1.6)
    length, out = -float(mesh.bounds[0, 2]), {}
    for name, share in (("proximal", 0.25), ("mid", 0.5), ("distal", 0.8)):
        canal = seating.section(wall, pose, -share * length)[0]
        own = seating.section(solid, Pose(), -share * length)[0]
        out[f"fill_{name}_pct"] = 100.0 * own / canal if canal else 0.0
    return out


def _measure(
    one: templates.Size, pose: Pose, wall: Field, template: templates.Template
) -> tuple[dict[str, float], dict[str, Any]]:
    """Gaps to the canal wall, of the whole stem and of its coat, and the samples themselves."""
    local = _points(one.mesh, seating.cut_normal(template.cut_angle_deg), POINTS_MM)
    points = pose.apply(local)
    gap = -wall(points)
    coat = gap[(local[:, 2] > template.coat_mm[0]) & (local[:, 2] < template.coat_mm[1])]
    metrics = {
        "fit_gap_mean_mm": float(np.maximum(gap, 0).mean()), "fit_gap_p95_mm": float(np.percentile(np.maximum(gap, 0), 95)),
        "contact_pct": float(100 * np.mean(gap <= seating.CONTACT_MM)), "canal_overlap_max_mm": float(-gap.min()),
    }  # fmt: skip
    if len(coat):
        metrics["coat_contact_pct"] = float(100 * np.mean(coat <= seating.CONTACT_MM))
    return metrics, {"points_mm": points.round(3).tolist(), "gap_mm": gap.round(3).tolist()}


def _told(row: dict[str, Any], best: dict[str, Any], params: OwnStemParams) -> dict[str, Any]:
    kept = {key: value for key, value in row.items() if key != "pose"}
    if row is best:
        how = "as asked" if params.size is not None else "best fill of those that fit"
        why = (
            f"size {row['size']}, {how} ({row['fill_mid_pct']:.0f} % at mid-stem), overlap {row['overlap_mm']:.2f} mm, "
            f"head {row['head_length']} {row['head_error_mm']:.1f} mm from the centre, leg "
            f"{row['leg_length_change_mm']:+.1f} mm, offset {row['offset_change_mm']:+.1f} mm"
        )
    elif row["overlap_mm"] > params.overlap_limit_mm:
        why = f"passes the canal wall by {row['overlap_mm']:.2f} mm, limit {params.overlap_limit_mm}"
    elif best["score"] - row["score"] < 0.05:
        why = "fills as well: of equals the smaller goes first"
    else:
        less = {part: best[f"fill_{part}_pct"] - row[f"fill_{part}_pct"] for part in ("mid", "proximal", "distal")}
        worst = max(less, key=lambda part: less[part])
        why = f"fills {less[worst]:.1f} points less of the {worst} canal"
    return kept | {"why": why}


def design(fit: Fit, params: OwnStemParams) -> Design:
    """The maker's surface as it is; its outer coat_depth_mm between the template's coat limits is left for the lattice."""
    template = _maker.template(params, "stem")
    whole = _maker.body(_maker.chosen(fit, params, "stem").mesh, params)
    normal = seating.cut_normal(template.cut_angle_deg)
    band = _maker.slab(*template.coat_mm) & shapes.half_space(-1.2 * normal, normal)
    porous = shapes.shared((whole - whole.offset(-params.coat_depth_mm)) & band)
    return Design(whole - porous, porous, whole, Lattice(), shapes.half_space(np.zeros(3), -normal))


def checks(case: Case, fit: Fit, made: Design, part: Mesh, params: OwnStemParams) -> tuple[Check, ...]:
    """Fit of this stem against the limits in use, and whether the printed mesh is the maker's shape."""
    m, bone = fit.metrics, case.bones[f"femur_{case.side}"]
    return (
        check("bone_overlap_mm3", seating.outside_mm3(bone, made, fit.pose), "mm3", "<=", 0.0,
              "no metal outside the outer cortex below the neck cut (perforation = refuse)"),
        check("canal_fill_mid_pct", m["fill_mid_pct"], "%", ">=", 70.0, "canal fill at mid-stem: >= 80 target, < 70 refuse"),
        check("canal_overlap_mm", m["canal_overlap_max_mm"], "mm", "<=", seating.LOCAL_MM,
              "press-fit 0.3-0.8 mm, local overlap with the cortex <= 1 mm"),
        check("head_center_error_mm", m["head_error_mm"], "mm", "<=", 5.0, "head centre: target <= 2 mm, limit 5 mm"),
        check("head_center_target_mm", m["head_error_mm"], "mm", "<=", 2.0, "head centre: target <= 2 mm", severity="flag"),
        *_maker.checks(made, fit.pose.inverse_apply(part.vertices)),
    )  # fmt: skip


IMPLANT = Implant(
    name="own_stem",
    summary="a maker's own hip stem given as closed meshes with a datum frame: planned, coated and exported like ours",
    region="hip",
    needs=("femur_{side}",),
    Params=OwnStemParams,
    plan=plan,
    design=design,
    checks=checks,
    phantom=hip,
    resolve=resolve,
)
