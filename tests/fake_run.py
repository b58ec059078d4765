"""A Run folder made without the pipeline: an analytic left femur with a tapered stem, its CT and its JSON files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Pose

SHAFT_MM, HEAD_MM, HEAD_RADIUS_MM = 150.0, np.array([-40.0, -9.0, 36.0]), 23.5
TILT_DEG, ORIGIN_MM = 6.0, np.array([92.0, 14.0, 700.0])
STEM_MM = 128.0


def pose() -> Pose:
    """Femur-local (shaft along z, left femur: medial is -x) to patient LPS."""
    a = np.radians(TILT_DEG)
    return Pose(np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]]), ORIGIN_MM)


def _cone(p: NDArray, a: NDArray, b: NDArray, ra: float, rb: float) -> NDArray:
    """Round cone from a to b, distance within a few percent."""
    way = b - a
    t = np.clip((p - a) @ way / (way @ way), 0, 1)
    return np.linalg.norm(p - a - t[:, None] * way, axis=1) - (ra + (rb - ra) * t)


def _blend(a: NDArray, b: NDArray, k: float) -> NDArray:
    h = np.maximum(k - np.abs(a - b), 0) / k
    return np.minimum(a, b) - h * h * k / 4


def bone(p: NDArray) -> NDArray:
    """Outer surface of the femur."""
    low, knee = np.array([0.0, 0, -SHAFT_MM - 30]), np.array([0.0, 0, 0])
    f = _cone(p, low, knee, 13.5, 17.0)
    f = _blend(f, _cone(p, np.array([0.0, 0, -4]), HEAD_MM, 17.0, 14.0), 12.0)
    f = _blend(f, _cone(p, np.array([10.0, 3, -12]), np.array([17.0, 5, 22]), 13.0, 11.0), 10.0)
    f = _blend(f, np.linalg.norm(p - [-15.0, 11, -42], axis=1) - 8.0, 10.0)
    f = _blend(f, np.linalg.norm(p - HEAD_MM, axis=1) - HEAD_RADIUS_MM, 3.0)
    return np.maximum(f, -(p[:, 2] + SHAFT_MM))


def canal(p: NDArray) -> NDArray:
    """Endosteal surface, negative inside the canal: the stem with a gap that varies round it, then a tube below."""
    turn = np.arctan2(p[:, 1], p[:, 0])
    gap = 0.25 + 0.35 * np.sin(2 * turn + p[:, 2] / 18) - 0.3 * np.sin(p[:, 2] / 25)
    below = np.where(p[:, 2] < -100, np.hypot(p[:, 0], p[:, 1]) - 6.4, 9.0)
    above = np.where(p[:, 2] > -8, bone(p) + 3.0, 9.0)
    return np.maximum(np.minimum(np.minimum(stem(p) - gap, below), above), bone(p) + 1.5)


def stem(p: NDArray, inset: float = 0.0) -> NDArray:
    """Body of the stem without neck; inset shrinks it."""
    z = np.clip(p[:, 2], -STEM_MM, 4.0)
    ml = np.interp(z, [-STEM_MM, -105, -50, 0], [4.0, 6.2, 8.6, 14.2]) - inset
    ap = np.interp(z, [-STEM_MM, -105, -50, 0], [4.0, 6.0, 7.4, 9.0]) - inset
    x = p[:, 0] + np.interp(z, [-50, 0], [0.0, 1.5])
    q = ((np.abs(x) / ml) ** 2.6 + (np.abs(p[:, 1]) / ap) ** 2.6) ** (1 / 2.6)
    return np.maximum((q - 1) * np.minimum(ml, ap), np.abs(p[:, 2] - (4 - STEM_MM) / 2) - (4 + STEM_MM) / 2 + inset)


def implant(p: NDArray, cell_mm: float, coat_mm: float = 1.2) -> NDArray:
    """Stem with neck and a network gyroid skin on its upper half."""
    k = 2 * np.pi / cell_mm
    x, y, z = (p * k).T
    wave = np.sin(x) * np.cos(y) + np.sin(y) * np.cos(z) + np.sin(z) * np.cos(x)
    outer = stem(p)
    coat = np.maximum(np.maximum(outer, (wave + 0.62) / (1.5 * k)), np.abs(p[:, 2] + 30) - 30)
    body = np.where(p[:, 2] > -60, np.maximum(stem(p, coat_mm), np.abs(p[:, 2] + 30) - 34), outer)
    neck = _cone(p, np.array([-6.0, -1.5, 2]), HEAD_MM - [-3.0, -0.7, 3.0], 8.0, 6.3)
    neck = np.maximum(neck, (p - HEAD_MM) @ (HEAD_MM / np.linalg.norm(HEAD_MM)) - 1.0)
    return np.minimum(np.minimum(body, neck), coat)


def _mesh(field, lo: list[float], hi: list[float], h: float) -> tuple[NDArray, NDArray]:
    from skimage.measure import marching_cubes

    axes = [np.arange(a, b + h, h) for a, b in zip(lo, hi)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    values = np.concatenate([field(c) for c in np.array_split(points, max(len(points) // 500_000, 1))])
    v, f, _, _ = marching_cubes(values.reshape([len(a) for a in axes]), 1e-6, gradient_direction="descent")
    return v * h + np.array(lo), f


def write_stl(path: Path, vertices: NDArray, faces: NDArray) -> None:
    record = np.dtype([("n", "<f4", 3), ("v", "<f4", (3, 3)), ("a", "<u2")])
    data = np.zeros(len(faces), record)
    data["v"] = vertices[faces]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\0" * 80 + np.uint32(len(faces)).tobytes() + data.tobytes())


def _ct(h: float) -> tuple[NDArray, NDArray, NDArray]:
    """HU int16, labels uint8 and the LPS origin of an axis-aligned grid, with blur and noise of a scanner."""
    from scipy.ndimage import gaussian_filter

    place = pose()
    lo, hi = ORIGIN_MM - [85, 55, SHAFT_MM + 10], ORIGIN_MM + np.array([55, 60, 75])
    axes = [np.arange(a, b, h) for a, b in zip(lo, hi)]
    shape = [len(a) for a in axes]
    p = place.inverse_apply(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3))
    outer, inner = bone(p), canal(p)
    marrow = np.interp(p[:, 2], [-90, -30, 20], [-60, 120, 320])
    muscle = np.hypot((p[:, 0] - 3) / 52, (p[:, 1] + 2) / 45) < 1
    hu = np.where(outer < 0, np.where(inner < 0, marrow, 1350.0), np.where(muscle, 55.0, -95.0))
    hu = gaussian_filter(hu.reshape(shape), 0.55 / h) + np.random.default_rng(7).normal(0, 16, shape)
    return hu.round().astype(np.int16), (outer < 0).reshape(shape).astype(np.uint8), lo


def _nrrd(path: Path, data: NDArray, lo: NDArray, h: float, **more: str) -> None:
    import nrrd

    header = {
        "space": "left-posterior-superior", "space directions": np.eye(3) * h, "space origin": lo,
        "kinds": ["domain"] * 3, "encoding": "gzip", **more,
    }  # fmt: skip
    nrrd.write(str(path), data, header)


def fit_json(samples: int = 2000) -> dict:
    """fit.json of the fake stem, with gaps measured to the analytic canal."""
    rng = np.random.default_rng(3)
    z, turn = rng.uniform(-STEM_MM + 2, -9, samples), rng.uniform(-np.pi, np.pi, samples)
    way = np.column_stack([np.cos(turn), np.sin(turn), np.zeros(samples)])
    near, far = np.zeros(samples), np.full(samples, 30.0)
    for _ in range(40):
        mid = (near + far) / 2
        inside = stem(way * mid[:, None] + np.outer(z, [0, 0, 1])) < 0
        near, far = np.where(inside, mid, near), np.where(inside, far, mid)
    p = way * near[:, None] + np.outer(z, [0, 0, 1])
    gap = -canal(p)
    return {
        "implant": "hip_stem", "side": "left", "params": {"size": 11, "neck_mm": 38.5, "offset": "standard"},
        "pose": {"rotation": pose().rotation.tolist(), "origin_mm": ORIGIN_MM.tolist()},
        "metrics": {
            "size": 11, "head_centre_error_mm": 0.84, "offset_change_mm": 0.6, "leg_length_change_mm": -0.7,
            "fill_mid_pct": 86.2, "fill_proximal_pct": 81.4, "fit_gap_mean_mm": float(np.abs(gap).mean()),
            "fit_gap_p95_mm": float(np.percentile(np.abs(gap), 95)), "contact_pct": 61.3,
        },
        "alternatives": [
            {"size": 11, "score": 0.91, "fill_mid_pct": 86.2, "fit_gap_p95_mm": 0.93, "head_centre_error_mm": 0.84,
             "why": "fills the canal without cutting cortex"},
            {"size": 10, "score": 0.74, "fill_mid_pct": 79.1, "fit_gap_p95_mm": 1.42, "head_centre_error_mm": 0.86,
             "why": "canal fill under 80 %"},
            {"size": 12, "score": 0.38, "fill_mid_pct": 92.8, "fit_gap_p95_mm": 0.71, "head_centre_error_mm": 1.31,
             "why": "overlaps cortex by 1.6 mm at mid-stem"},
        ],
        "reason": "Size 11 is the largest that stays inside the cortex and fills the canal above 80 %.",
        "gap_samples": {"points_mm": pose().apply(p).round(3).tolist(), "gap_mm": gap.round(3).tolist()},
    }  # fmt: skip


def anatomy_json() -> dict:
    """anatomy.json with landmarks, measures and one refusal."""
    at = {"head_center": HEAD_MM, "neck_center": HEAD_MM / 2, "lesser_trochanter": np.array([-15.0, 17, -42]),
          "greater_trochanter": np.array([20.0, 6, 30]), "canal_isthmus": np.array([0.0, 0, -105])}  # fmt: skip
    marks = {
        name: {
            "at_mm": pose().apply(p).round(2).tolist(),
            "sigma_mm": 0.4,
            "method": "sphere_fit" if i == 0 else "section",
        }
        for i, (name, p) in enumerate(at.items())
    }
    measures = {
        "head_radius_mm": 23.5, "neck_shaft_angle_deg": 131.2, "anteversion_deg": 12.6, "offset_mm": 40.9,
        "canal_flare_index": 3.4, "isthmus_diameter_mm": 13.0,
    }  # fmt: skip
    refused = {"medial_epicondyle": "the scan ends 150 mm below the neck, above the condyles"}
    frame = {"canal": {"origin_mm": ORIGIN_MM.tolist(), "rotation": pose().rotation.tolist()}}
    return {"femur_left": {"landmarks": marks, "frames": frame, "measures": measures, "curves": {}, "refused": refused}}


def manifest_json(status: str = "ok") -> dict:
    """A manifest with one failed check when status says so, and one flag."""
    failed = status != "ok"
    rows = [
        ("canal_fill", 86.2, "%", 80, ">=", True, "Khalily 1996"),
        ("gap_p95", 0.93, "mm", 1.0, "<=", True, "Dalton 1995"),
        ("cortex_left", 1.7 if failed else 2.6, "mm", 2.0, ">=", not failed, "project limit"),
        ("head_centre", 0.84, "mm", 2.0, "<=", True, "project limit"),
        ("pore_size_min", 640, "um", 300, ">=", True, "Taniguchi 2016"),
        ("strut_min", 340, "um", 300, ">=", True, "machine profile"),
        ("trapped_powder", 0, "mm3", 0, "<=", True, "ASTM F3335"),
    ]
    checks = [dict(zip(("name", "value", "unit", "limit", "sense", "passed", "source"), row)) for row in rows]
    checks.append(
        {
            "name": "slice_spacing",
            "value": 1.1,
            "unit": "mm",
            "limit": 1.0,
            "sense": "<=",
            "passed": False,
            "source": "project limit",
            "severity": "flag",
        }
    )
    return {
        "implantforge": "0.1.0",
        "implant": "hip_stem",
        "side": "left",
        "status": status,
        "ct": {
            "series_uid_hash": "5f2c" * 16,
            "shape": [482, 482, 361],
            "spacing_mm": [0.85, 0.85, 1.1],
            "verdict": "flagged",
            "reasons": ["slice spacing 1.10 mm is over 1.00 mm: planning only above 1.25 mm"],
        },
        "stages": [{"name": "load", "seconds": 2.1, "cached": False}, {"name": "fit", "seconds": 9.9, "cached": True}],
        "peak_memory_mb": 2210,
        "metrics": {
            "part_volume_mm3": 30120.4,
            "part_mass_g": 133.4,
            "solid_equivalent_mass_g": 161.9,
            "mass_saving_pct": 17.6,
            "lattice_porosity_pct": 69.8,
            "lattice_pore_size_um": 655,
            "lattice_wall_um": 352,
            "triangles": 2013344,
            "bone_overlap_mm3": 214.0,
            "process_powder_loss_pct": 2.9,
            "total_additive_waste_pct": 17.7,
            "buy_to_fly": 1.22,
            "milled_waste_pct": 88.7,
        },
        "checks": checks,
        "assumptions": [
            {"name": "titanium density", "value": 4.43, "unit": "g/cm3", "tag": "M", "source": "ISO 5832-3"},
            {"name": "gap limit", "value": 1.0, "unit": "mm", "tag": "M", "source": "Dalton 1995"},
            {"name": "remaining cortex", "value": 2.0, "unit": "mm", "tag": "P", "source": "project default"},
            {"name": "powder loss", "value": 0.03, "unit": "1", "tag": "P", "source": "machine profile, not measured"},
        ],
        "machined": [
            {
                "name": "taper 12/14",
                "angle_deg": 5.667,
                "small_diameter_mm": 12.7,
                "length_mm": 14.0,
                "stock_mm": 0.7,
                "tolerance": "angle +-4', roundness 8 um",
            }
        ],
        "part": {"build_direction": [0.1, 0.0, 0.995], "frame": "LPS mm"},
        "inputs": [{"path": "Ivanenko_Petro/CT", "sha256": "ab" * 32}],
        "files": [],
    }


def make(
    folder: Path, *, status: str = "ok", part_h_mm: float = 1.0, cell_mm: float = 5.0, ct_h_mm: float = 1.6
) -> Path:
    """Write a whole Run folder (without report.html) and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    v, f = _mesh(bone, [-68, -36, -SHAFT_MM - 4], [36, 30, 64], 1.5)
    write_stl(folder / "bones/femur_left.stl", pose().apply(v), f)
    v, f = _mesh(lambda p: implant(p, cell_mm), [-46, -16, -STEM_MM - 2], [18, 16, 40], part_h_mm)
    write_stl(folder / "part.stl", pose().apply(v), f)
    hu, labels, lo = _ct(ct_h_mm)
    _nrrd(folder / "ct.nrrd", hu, lo, ct_h_mm)
    _nrrd(folder / "labels.seg.nrrd", labels, lo, ct_h_mm, Segment0_Name="femur_left", Segment0_LabelValue="1")
    manifest = manifest_json(status)
    for name, content in (("fit.json", fit_json()), ("anatomy.json", anatomy_json())):
        (folder / name).write_text(json.dumps(content))
    (folder / "recipe.toml").write_text('implant = "hip_stem"\n')
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json"):
        data = path.read_bytes()
        row = {
            "path": path.relative_to(folder).as_posix(),
            "sha256": hashlib.sha256(data).hexdigest(),
            "bytes": len(data),
        }
        manifest["files"].append(row)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
