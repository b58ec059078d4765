"""Knees drawn from the shape model: are size and place what the plan's own rule gives on the true landmarks? asv names.

IMPLANTFORGE_KNEES (default 100) says how many seeds, from 0. Bones are the model's surfaces, any pose, sides in turn; no CT.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from implantforge.core import Anatomy, ImplantForgeError, Mesh
from implantforge.implants import knee_total
from implantforge.stages import anatomy

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import drawn_knees

ALIGNMENTS = ("mechanical", "functional")
COUNT = int(os.environ.get("IMPLANTFORGE_KNEES", "100"))


def planned(side: Any, meshes: dict[str, Mesh], found: dict[str, Anatomy], params: Any) -> Any:
    """The plan of one knee."""
    return knee_total.plan(drawn_knees.case(side, meshes, found), params)


def one(seed: int) -> dict[str, dict[str, Any]]:
    """One knee by every alignment, planned on what was found and on the truth, and how far they are apart."""
    side, meshes, truth = drawn_knees.draw(seed)
    pages = drawn_knees.pages(side, truth)
    row: dict[str, Any] = {"seed": seed, "side": side, "refused": ""}
    began = time.process_time()
    try:
        found = {name: anatomy.examine(name, mesh) for name, mesh in meshes.items()}
    except ImplantForgeError as error:
        return {name: row | {"refused": str(error)} for name in ALIGNMENTS}
    row["anatomy_s"] = time.process_time() - began
    return {name: row | compared(side, meshes, found, pages, name, row["anatomy_s"]) for name in ALIGNMENTS}


def compared(side: Any, meshes: Any, found: Any, pages: Any, alignment: str, anatomy_s: float) -> dict[str, Any]:
    """The plan on what was found beside that on the truth, by one alignment."""
    params = knee_total.TotalParams(alignment=alignment)
    row: dict[str, Any] = {}
    began = time.process_time()
    try:
        mine = planned(side, meshes, found, params)
        row["seconds"] = time.process_time() - began + anatomy_s
        right = planned(side, meshes, pages, params)
    except ImplantForgeError as error:
        return {"refused": str(error)}
    for name in ("femoral", "tibial"):
        a, b = mine.parts[name], right.parts[name]
        row |= {f"{name}_size": a.params["size"], f"{name}_true_size": b.params["size"]}
        steps = {"femoral": 2.0, "tibial": 3.0}[name]
        row[f"{name}_off"] = abs(a.metrics["size"] - b.metrics["size"]) / steps
        row[f"{name}_told"] = a.metrics["size_probability_pct"] / 100
        turn = a.pose.rotation.T @ b.pose.rotation
        row[f"{name}_deg"] = float(np.degrees(Rotation.from_matrix(turn).magnitude()))
        if a.params["size"] != b.params["size"] or mine.params["insert_mm"] != right.params["insert_mm"]:
            # the place of the same choice
            asked = {"size": int(a.metrics["size"])} | ({"width": _width(a)} if name == "femoral" else {})
            part = getattr(params, name).model_copy(update=asked)
            same = {name: part, "insert_mm": mine.params["insert_mm"]}
            b = planned(side, meshes, pages, params.model_copy(update=same)).parts[name]
        row[f"{name}_mm"] = float(np.linalg.norm(a.pose.origin_mm - b.pose.origin_mm))
        row[f"{name}_overhang_mm"] = a.metrics["overhang_mm"]
        row[f"{name}_sways_mm"] = _deciding(a) - _deciding(b)
    m = mine.metrics
    row |= {
        key: m[key] for key in ("gap_difference_mm", "imbalance_extension_mm", "imbalance_flexion_mm", "hka_after_deg")
    }
    row |= {"insert_mm": m["insert_mm"], "insert_true_mm": right.metrics["insert_mm"],
            "coverage_pct": mine.parts["tibial"].metrics["coverage_pct"],
            "proud_mm": mine.parts["femoral"].metrics["flange_proud_mm"]}  # fmt: skip
    return row


def _deciding(fit: Any) -> float:
    """What the size hangs on: depth between flange and front cortex, or the tray's overhang."""
    m = fit.metrics
    return float(m["flange_proud_mm"] - m["shift_mm"] if "shift_mm" in m else m["overhang_mm"])


def _width(fit: Any) -> str:
    return "narrow" if fit.params["narrow"] else "standard"


def rows(count: int = COUNT) -> dict[str, list[dict[str, Any]]]:
    """Every seed 0..count-1 by alignment; a refusal is a row with its reason."""
    out: dict[str, list[dict[str, Any]]] = {name: [] for name in ALIGNMENTS}
    for seed in range(count):
        for name, row in one(seed).items():
            out[name].append(row)
            told = "  ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
            print(f"  {name}  {told}", flush=True)
    return out


class Knees:
    """Sizes, places and gaps over all knees, mechanically aligned and functionally."""

    timeout = 7200
    repeat = 1
    params = ALIGNMENTS
    param_names = ("alignment",)

    def setup_cache(self) -> dict[str, list[dict[str, Any]]]:
        return rows()

    def _good(self, found: dict[str, list[dict[str, Any]]], name: str) -> list[dict[str, Any]]:
        return [row for row in found[name] if not row["refused"]]

    def _all(self, found: dict[str, list[dict[str, Any]]], name: str, key: str) -> np.ndarray:
        return np.abs([row[key] for row in self._good(found, name)])

    def track_knees(self, found: dict[str, list[dict[str, Any]]], name: str) -> float:
        return len(found[name])

    def track_refused(self, found: dict[str, list[dict[str, Any]]], name: str) -> float:
        return len(found[name]) - len(self._good(found, name))

    def track_femoral_exact_pct(self, found: dict[str, list[dict[str, Any]]], name: str) -> float:
        return 100.0 * float(np.mean([r["femoral_size"] == r["femoral_true_size"] for r in self._good(found, name)]))

    def track_tibial_exact_pct(self, found: dict[str, list[dict[str, Any]]], name: str) -> float:
        return 100.0 * float(np.mean([r["tibial_size"] == r["tibial_true_size"] for r in self._good(found, name)]))

    def track_insert_exact_pct(self, found: dict[str, list[dict[str, Any]]], name: str) -> float:
        return 100.0 * float(np.mean([r["insert_mm"] == r["insert_true_mm"] for r in self._good(found, name)]))

    def track_within_one_pct(self, found: dict[str, list[dict[str, Any]]], name: str) -> float:
        off = np.maximum(self._all(found, name, "femoral_off"), self._all(found, name, "tibial_off"))
        return 100.0 * float((off <= 1.0).mean())

    def track_place_worst_mm(self, found: dict[str, list[dict[str, Any]]], name: str) -> float:
        return float(max(self._all(found, name, "femoral_mm").max(), self._all(found, name, "tibial_mm").max()))

    def track_turn_worst_deg(self, found: dict[str, list[dict[str, Any]]], name: str) -> float:
        return float(max(self._all(found, name, "femoral_deg").max(), self._all(found, name, "tibial_deg").max()))

    def track_gap_difference_worst_mm(self, found: dict[str, list[dict[str, Any]]], name: str) -> float:
        return float(self._all(found, name, "gap_difference_mm").max())

    def track_imbalance_median_mm(self, found: dict[str, list[dict[str, Any]]], name: str) -> float:
        both = [self._all(found, name, f"imbalance_{way}_mm") for way in ("extension", "flexion")]
        return float(np.median(np.maximum(*both)))

    def track_imbalance_over_half_mm_pct(self, found: dict[str, list[dict[str, Any]]], name: str) -> float:
        both = [self._all(found, name, f"imbalance_{way}_mm") for way in ("extension", "flexion")]
        return 100.0 * float((np.maximum(*both) > 0.5).mean())

    def track_tray_overhang_worst_mm(self, found: dict[str, list[dict[str, Any]]], name: str) -> float:
        return float(max(row["tibial_overhang_mm"] for row in self._good(found, name)))

    def track_femoral_overhang_over_1_pct(self, found: dict[str, list[dict[str, Any]]], name: str) -> float:
        return 100.0 * float(np.mean([row["femoral_overhang_mm"] > 1.0 for row in self._good(found, name)]))

    def track_coverage_least_pct(self, found: dict[str, list[dict[str, Any]]], name: str) -> float:
        return float(self._all(found, name, "coverage_pct").min())

    def track_coverage_under_85_count(self, found: dict[str, list[dict[str, Any]]], name: str) -> float:
        return float((self._all(found, name, "coverage_pct") < 85.0).sum())

    def _odds(self, found: dict[str, list[dict[str, Any]]], name: str) -> tuple[np.ndarray, np.ndarray]:
        """The odds told of every component, 0 to 1, and whether its size (depth, width) was the right one."""
        rows_ = [(row[f"{part}_told"], row[f"{part}_off"] == 0.0) for row in self._good(found, name)
                 for part in ("femoral", "tibial")]  # fmt: skip
        told, held = np.array(rows_, float).T
        return told, held

    def track_odds_told_mean_pct(self, found: dict[str, list[dict[str, Any]]], name: str) -> float:
        return 100.0 * float(self._odds(found, name)[0].mean())

    def track_odds_held_mean_pct(self, found: dict[str, list[dict[str, Any]]], name: str) -> float:
        return 100.0 * float(self._odds(found, name)[1].mean())

    def track_odds_under_90_told_pct(self, found: dict[str, list[dict[str, Any]]], name: str) -> float:
        told, _ = self._odds(found, name)
        return 100.0 * float(told[told < 0.9].mean())

    def track_odds_under_90_held_pct(self, found: dict[str, list[dict[str, Any]]], name: str) -> float:
        told, held = self._odds(found, name)
        return 100.0 * float(held[told < 0.9].mean())

    def track_odds_under_90_count(self, found: dict[str, list[dict[str, Any]]], name: str) -> float:
        return float((self._odds(found, name)[0] < 0.9).sum())

    def track_odds_brier(self, found: dict[str, list[dict[str, Any]]], name: str) -> float:
        told, held = self._odds(found, name)
        return float(((told - held) ** 2).mean())

    def track_femoral_sway_mm(self, found: dict[str, list[dict[str, Any]]], name: str) -> float:
        return float(np.sqrt((self._all(found, name, "femoral_sways_mm") ** 2).mean()))

    def track_tibial_sway_mm(self, found: dict[str, list[dict[str, Any]]], name: str) -> float:
        return float(np.sqrt((self._all(found, name, "tibial_sways_mm") ** 2).mean()))

    def track_seconds_median(self, found: dict[str, list[dict[str, Any]]], name: str) -> float:
        return float(np.median(self._all(found, name, "seconds")))


def real() -> dict[str, float]:
    """The whole knee, functionally aligned, on the CT painted on a real subject's bones; cuts held against the subject's
    own whole femur and tibia, which the CT does not show."""
    import trimesh

    from implantforge.geom import meshing
    from implantforge.implants import Case, knee_femoral, knee_tibial
    from implantforge.stages import dicom, segment, surface

    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (shared / "ct" / "knee_z027.zip").exists():
        raise SystemExit("knees: no knee_z027.zip; this suite needs the shared test data beside the project")
    volume = dicom.load(shared / "ct" / "knee_z027.zip").volume
    labels = segment.bones(volume)
    bones = {name: surface.bone(volume, labels, name) for name in ("femur_left", "tibia_left", "patella_left")}
    found = {name: anatomy.examine(name, bones[name], volume) for name in ("femur_left", "tibia_left")}
    case, params = Case("left", volume, labels, bones, found), knee_total.TotalParams(alignment="functional")
    fit = knee_total.plan(case, params)
    m = fit.metrics
    gaps = [m[f"gap_{way}_{part}_mm"] for way in ("extension", "flexion") for part in ("medial", "lateral")]
    out = {"gap_spread_mm": float(np.ptp(gaps)), "hka_after_deg": m["hka_after_deg"], "insert_mm": m["insert_mm"]}
    for name, module in (("femoral", knee_femoral), ("tibial", knee_tibial)):
        part, own = fit.parts[name], getattr(params, name)
        made = module.design(part, own)
        mesh = meshing.polygonise(made.envelope, 0.5).moved(part.pose)
        rows_ = {row.name: row.value for row in module.checks(case, part, made, mesh, own)}
        out |= {f"{name}_overhang_mm": part.metrics["overhang_mm"],
                f"{name}_outside_mm3": rows_["bone_overlap_mm3"] + rows_["fixation_outside_bone_mm3"]}  # fmt: skip
    out["coverage_pct"] = fit.parts["tibial"].metrics["coverage_pct"]
    whole = {}
    for name in ("Femur", "Tibia"):
        body = trimesh.load(shared / "meshes" / "vsd_z027" / f"{name}_L.stl")
        key = f"{name.lower()}_left"
        whole[key] = anatomy.examine(key, Mesh(np.asarray(body.vertices), np.asarray(body.faces)))
    thigh, shin = whole["femur_left"], whole["tibia_left"]
    ups = {"femoral": thigh.at("head_center") - thigh.at("intercondylar_notch"),
           "tibial": (shin.at("medial_spine") + shin.at("lateral_spine")) / 2 - shin.at("ankle_center")}  # fmt: skip
    for name, up in ups.items():
        local = fit.parts[name].pose.rotation.T @ up
        out[f"{name}_true_valgus_deg"] = float(np.degrees(np.arctan2(-local[0], local[2]))) * (
            1 if name == "tibial" else -1
        )
    return out


class RealKnee:
    """knee_z027."""

    timeout = 1200
    params = (
        "gap_spread_mm", "hka_after_deg", "insert_mm", "femoral_overhang_mm", "femoral_outside_mm3", "tibial_overhang_mm",
        "tibial_outside_mm3", "coverage_pct", "femoral_true_valgus_deg", "tibial_true_valgus_deg",
    )  # fmt: skip
    param_names = ("figure",)

    def setup_cache(self) -> dict[str, float]:
        return real()

    def track_value(self, found: dict[str, float], figure: str) -> float:
        return found[figure]
