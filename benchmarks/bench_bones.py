"""Bones of CTs painted on a real subject, against the surfaces and labels they were painted from: whole line from file
to labelled surfaces. Skips without the shared data."""

from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from scipy.spatial import cKDTree

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
FILES = {"femur": "Femur", "hip": "Hip", "tibia": "Tibia", "fibula": "Fibula", "patella": "Patella", "sacrum": "Sacrum"}


def truth_mesh(name: str) -> Any:
    """The subject's own surface of a bone."""
    bone, _, side = name.partition("_")
    return trimesh.load(SHARED / "meshes" / "vsd_z027" / f"{FILES[bone]}{'_' + side[0].upper() if side else ''}.stl")


def distances_mm(points: np.ndarray, body: Any) -> np.ndarray:
    """Distance of points to a surface: to the plane of the nearest of its densely sampled points."""
    samples, face = trimesh.sample.sample_surface(body, 800_000, seed=0)
    near = cKDTree(samples).query(points)[1]
    return np.abs(np.einsum("ij,ij->i", points - samples[near], body.face_normals[face[near]]))


def both_ways(made: Any, true: Any, low: float, high: float) -> tuple[float, float]:
    """Mean and 95th percentile (mm) of the two-sided distance between low and high (z, mm)."""
    parts = []
    for one, two in ((made, true), (true, made)):
        at = trimesh.sample.sample_surface(one, 60_000, seed=1)[0]
        parts.append(distances_mm(at[(at[:, 2] > low) & (at[:, 2] < high)], two))
    both = np.concatenate(parts)
    return float(both.mean()), float(np.percentile(both, 95))


def measured(scan: str) -> dict[str, dict[str, float]]:
    """Per bone: Dice, mean and p95 of the distance, share of the true surface within two sigma."""
    from implantforge.pipeline import imaging

    path = SHARED / "ct" / f"{scan}_z027.zip"
    if not path.exists():
        raise SystemExit(f"bones: no {path.name}; this suite needs the shared test data beside the project")
    found = imaging.bones(path)
    page = np.load(SHARED / "ct" / f"{scan}_z027_truth.npz")
    labels = page["labels"].transpose(2, 1, 0)
    low = float(found.volume.grid.pose.origin_mm[2]) + 4.0
    high = low - 8.0 + labels.shape[2] * float(found.volume.grid.spacing_mm[2])
    out = {}
    for number, name in enumerate(map(str, page["names"]), 1):
        if name not in found.surfaces:
            raise SystemExit(f"bones: {name} was not found in {scan}_z027")
        one, true = found.surfaces[name], truth_mesh(name)
        mine, theirs = found.labels.mask(name), labels == number
        mean, p95 = both_ways(trimesh.Trimesh(one.mesh.vertices, one.mesh.faces, process=False), true, low, high)
        inner = (one.mesh.vertices[:, 2] > low) & (one.mesh.vertices[:, 2] < high)
        off = distances_mm(one.mesh.vertices[inner], true)
        out[name] = {
            "dice": float(2.0 * (mine & theirs).sum() / (mine.sum() + theirs.sum())), "mean": mean, "p95": p95,
            "covered": float(100.0 * (off < 2.0 * one.sigma_mm[inner]).mean()),
        }  # fmt: skip
    return out


class Bones:
    """hip_z027 and knee_z027."""

    timeout = 1800
    params = ("hip femur_left", "hip femur_right", "hip hip_left", "hip hip_right", "hip sacrum", "knee femur_left",
              "knee tibia_left", "knee fibula_left", "knee patella_left")  # fmt: skip
    param_names = ("scan_bone",)

    def setup_cache(self) -> dict[str, dict[str, dict[str, float]]]:
        return {scan: measured(scan) for scan in ("hip", "knee")}

    def _of(self, found: dict[str, Any], which: str, key: str) -> float:
        scan, bone = which.split()
        return float(found[scan][bone][key])

    def track_dice(self, found: dict[str, Any], which: str) -> float:
        return self._of(found, which, "dice")

    def track_surface_mean_mm(self, found: dict[str, Any], which: str) -> float:
        return self._of(found, which, "mean")

    def track_surface_p95_mm(self, found: dict[str, Any], which: str) -> float:
        return self._of(found, which, "p95")

    def track_within_two_sigma_pct(self, found: dict[str, Any], which: str) -> float:
        return self._of(found, which, "covered")


class Contact:
    """The subject's hips painted anew with the femoral heads pressed into contact over an area: how far the borders of
    head and socket lie from the truth where they face each other within 5 mm, and how much of one bone became the other."""

    timeout = 1800
    params = (["gap", "0", "25", "100"], ["left", "right"])
    param_names = ("contact_mm2", "side")

    def setup_cache(self) -> dict[str, dict[str, dict[str, float]]]:
        if not (SHARED / "meshes" / "vsd_z027").is_dir():
            raise SystemExit("bones: this suite needs the shared test data beside the project")
        return {area: pressed(None if area == "gap" else float(area)) for area in self.params[0]}

    def track_head_border_mm(self, found: dict[str, Any], area: str, side: str) -> float:
        return float(found[area][side]["head"])

    def track_socket_border_mm(self, found: dict[str, Any], area: str, side: str) -> float:
        return float(found[area][side]["socket"])

    def track_contact_border_mm(self, found: dict[str, Any], area: str, side: str) -> float:
        return float(found[area][side]["touch"])

    def track_crossed_voxels(self, found: dict[str, Any], area: str, side: str) -> float:
        return float(found[area][side]["crossed"])


def pressed(area: float | None) -> dict[str, dict[str, float]]:
    """Border errors (mm) of both hips at one contact area."""
    from implantforge.core import Mesh
    from implantforge.stages import phantoms, segment, surface
    from implantforge.stages.anatomy import femur

    meshes = {}
    for name in ("femur_left", "femur_right", "hip_left", "hip_right", "sacrum"):
        body = truth_mesh(name)
        meshes[name] = Mesh(np.asarray(body.vertices), np.asarray(body.faces))
    frames = {}
    for side in ("left", "right"):
        found = femur.measure(meshes[f"femur_{side}"], side)
        at, below = meshes[f"femur_{side}"].vertices, found.at("lesser_trochanter")
        ends = [at[np.abs(at[:, 2] - below[2] + depth) < 3.0].mean(axis=0) for depth in (50.0, 150.0)]
        down = (ends[1] - ends[0]) / np.linalg.norm(ends[1] - ends[0])
        frames[side] = phantoms.FemurFrame(found.at("head_center"), found.measures["head_radius_mm"], below, down)
    made = phantoms.hip_of(meshes, frames, 0, contact_mm2=area)
    labels = segment.bones(made.volume)
    skins = surface.bones(made.volume, labels, [n for n in labels.names if n != "sacrum"])
    return {side: _border(made, labels, skins, side) for side in ("left", "right")}


def _border(made: Any, labels: Any, skins: Any, side: str) -> dict[str, float]:
    names = (f"femur_{side}", f"hip_{side}")
    true = {n: trimesh.Trimesh(made.meshes[n].vertices, made.meshes[n].faces, process=False) for n in names}
    out = {}
    touch = []
    for key, own, other in (("head", *names), ("socket", *names[::-1])):
        at = skins[own].mesh.vertices
        facing = cKDTree(true[other].sample(200_000, seed=2)).query(at)[0]
        off = distances_mm(at[facing < 5.0], true[own])
        out[key] = float(off.mean())
        touch.append(off[facing[facing < 5.0] < 1.0])
    near = np.concatenate(touch)
    out["touch"] = float(near.mean()) if len(near) else 0.0
    mine, theirs = (made.labels.values == made.labels.names[n] for n in names)
    out["crossed"] = float((mine & labels.mask(names[1])).sum() + (theirs & labels.mask(names[0])).sum())
    return out
