"""CT painted on a real subject's bones, with the surfaces it was painted from as truth. Skips without the shared data."""

from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from scipy.spatial import cKDTree

from implantforge.core import Mesh
from implantforge.implants import Case, hip_stem
from implantforge.stages import anatomy, dicom, segment, surface
from implantforge.stages import fit as seating
from implantforge.stages.anatomy import femur

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def distances_mm(points: np.ndarray, truth: Mesh) -> np.ndarray:
    """Distance of points to a surface: to the plane of the nearest of its densely sampled points."""
    body = trimesh.Trimesh(truth.vertices, truth.faces, process=False)
    samples, face = trimesh.sample.sample_surface(body, 800_000, seed=0)
    near = cKDTree(samples).query(points)[1]
    return np.abs(np.einsum("ij,ij->i", points - samples[near], body.face_normals[face[near]]))


def side_of(volume: Any, labels: Any, side: str) -> dict[str, float]:
    """Errors of one femur and its planned stem."""
    name = f"femur_{side}"
    mesh = surface.bone(volume, labels, name)
    body = trimesh.load(SHARED / "meshes" / "vsd_z027" / f"Femur_{side[0].upper()}.stl")
    truth = Mesh(np.asarray(body.vertices), np.asarray(body.faces))
    lowest = volume.grid.pose.origin_mm[2] + 4.0
    ours = distances_mm(mesh.vertices[mesh.vertices[:, 2] > lowest], truth)
    samples = trimesh.sample.sample_surface(body, 60_000, seed=1)[0]
    theirs = distances_mm(samples[samples[:, 2] > lowest], mesh)
    both = np.concatenate([ours, theirs])
    found = anatomy.examine(name, mesh, volume)
    params = hip_stem.StemParams()
    fit = hip_stem.plan(Case(side, volume, labels, {name: mesh}, {name: found}), params)
    head = found.at("head_center") - femur.measure(truth, side).at("head_center")
    return {
        "surface_mean_mm": float(both.mean()), "surface_p95_mm": float(np.percentile(both, 95)),
        "head_center_mm": float(np.linalg.norm(head)),
        "outside_mm3": seating.outside_mm3(truth, hip_stem.design(fit, params), fit.pose),
        "fill_mid_pct": fit.metrics["fill_mid_pct"],
    }  # fmt: skip


class RealBones:
    """Both femora of hip_z027."""

    timeout = 1200
    params = ("left", "right")
    param_names = ("side",)

    def setup_cache(self) -> dict[str, dict[str, float]]:
        path = SHARED / "ct" / "hip_z027.zip"
        if not path.exists():
            raise SystemExit(f"real_bones: no {path.name}; this suite needs the shared test data beside the project")
        volume = dicom.load(path).volume
        labels = segment.bones(volume)
        return {side: side_of(volume, labels, side) for side in ("left", "right")}

    def track_surface_mean_mm(self, found: dict[str, dict[str, float]], side: str) -> float:
        return found[side]["surface_mean_mm"]

    def track_surface_p95_mm(self, found: dict[str, dict[str, float]], side: str) -> float:
        return found[side]["surface_p95_mm"]

    def track_head_center_mm(self, found: dict[str, dict[str, float]], side: str) -> float:
        return found[side]["head_center_mm"]

    def track_stem_outside_bone_mm3(self, found: dict[str, dict[str, float]], side: str) -> float:
        return found[side]["outside_mm3"]

    def track_canal_fill_mid_pct(self, found: dict[str, dict[str, float]], side: str) -> float:
        return found[side]["fill_mid_pct"]
