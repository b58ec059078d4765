"""Sampled patients with planted truth: is every stem where it belongs, and does the anatomy agree? asv names.

IMPLANTFORGE_PATIENTS (default 20) says how many seeds; a patient takes about a minute on two cores.
"""

import os
import time
from typing import Any

import numpy as np

from implantforge.core import ImplantForgeError
from implantforge.implants import Case, hip_stem
from implantforge.stages import anatomy, phantoms, segment, surface
from implantforge.stages import fit as seating

COUNT = int(os.environ.get("IMPLANTFORGE_PATIENTS", "20"))


def side_of(patient: Any, labels: Any, side: str) -> dict[str, Any]:
    """One hip from labels to planned stem, against what was planted."""
    name, truth = f"femur_{side}", patient.truth[f"femur_{side}"]
    began = time.perf_counter()
    mesh = surface.bone(patient.volume, labels, name)
    found = anatomy.examine(name, mesh, patient.volume)
    params = hip_stem.StemParams()
    fit = hip_stem.plan(Case(side, patient.volume, labels, {name: mesh}, {name: found}), params)
    seconds = time.perf_counter() - began
    made = hip_stem.design(fit, params)
    head = found.at("head_center") - truth["head_center_mm"]
    return {
        "seed": patient.truth["seed"], "side": side, "refused": "", "seconds": seconds,
        "head_center_mm": float(np.linalg.norm(head)),
        "neck_shaft_angle_deg": found.measures["neck_shaft_angle_deg"] - truth["neck_shaft_angle_deg"],
        "isthmus_mm": found.measures["isthmus_diameter_mm"] - truth["isthmus_width_mm"],
        "outside_mm3": seating.outside_mm3(patient.meshes[name], made, fit.pose),
        "fill_mid_pct": fit.metrics["fill_mid_pct"], "size": fit.params["size"],
        "coat_contact_pct": fit.metrics["coat_contact_pct"],
    }  # fmt: skip


def rows(count: int = COUNT) -> list[dict[str, Any]]:
    """Every side of seeds 0..count-1; a refusal is a row with its reason."""
    out: list[dict[str, Any]] = []
    for seed in range(count):
        patient = phantoms.hip(seed)
        labels = None
        for side in ("left", "right"):
            try:
                labels = labels or segment.bones(patient.volume)
                out.append(side_of(patient, labels, side))
            except ImplantForgeError as error:
                out.append({"seed": seed, "side": side, "refused": str(error)})
            print("  " + "  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in out[-1].items()))
    return out


class Patients:
    """Medians and worst cases over all sides; `track_refused` must be 0."""

    timeout = 7200
    repeat = 1

    def setup_cache(self) -> list[dict[str, Any]]:
        return rows()

    def _values(self, found: list[dict[str, Any]], key: str) -> np.ndarray:
        return np.abs([row[key] for row in found if not row["refused"]])

    def track_sides(self, found: list[dict[str, Any]]) -> float:
        return len(found)

    def track_refused(self, found: list[dict[str, Any]]) -> float:
        return sum(bool(row["refused"]) for row in found)

    def track_head_center_median_mm(self, found: list[dict[str, Any]]) -> float:
        return float(np.median(self._values(found, "head_center_mm")))

    def track_head_center_worst_mm(self, found: list[dict[str, Any]]) -> float:
        return float(self._values(found, "head_center_mm").max())

    def track_neck_shaft_angle_median_deg(self, found: list[dict[str, Any]]) -> float:
        return float(np.median(self._values(found, "neck_shaft_angle_deg")))

    def track_neck_shaft_angle_worst_deg(self, found: list[dict[str, Any]]) -> float:
        return float(self._values(found, "neck_shaft_angle_deg").max())

    def track_isthmus_median_mm(self, found: list[dict[str, Any]]) -> float:
        return float(np.median(self._values(found, "isthmus_mm")))

    def track_stems_outside_femur(self, found: list[dict[str, Any]]) -> float:
        return float((self._values(found, "outside_mm3") > 0).sum())

    def track_canal_fill_mid_median_pct(self, found: list[dict[str, Any]]) -> float:
        return float(np.median(self._values(found, "fill_mid_pct")))

    def track_canal_fill_mid_least_pct(self, found: list[dict[str, Any]]) -> float:
        return float(self._values(found, "fill_mid_pct").min())

    def track_seconds_median_s(self, found: list[dict[str, Any]]) -> float:
        return float(np.median(self._values(found, "seconds")))
