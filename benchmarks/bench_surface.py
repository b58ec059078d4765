"""Bone surfaces against truth: painted tubes, sampled patients, a real subject's bones; time and memory. asv names.

Errors are signed distances of our vertices to the truth (radius_error) or unsigned distances both ways (mean, p95), mm.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from scipy import ndimage
from scipy.spatial import cKDTree

from implantforge.core import Grid, Labels, Mesh, Volume
from implantforge.geom import edges, flooding, nearby
from implantforge.stages import dicom, phantoms, surface

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import reference
from beside import Work, _Kernel
from painted import Bone, Scan, ball, rod, scan

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
TILT = (0.2, 0.25, 1.0)
TUBES = {
    "0.4 mm": ((0.4, 0.4, 0.4), 0.6, 1200.0, 1.0), "0.8x0.8x1": ((0.8, 0.8, 1.0), 0.8, 1200.0, 1.0),
    "sharp dense": ((0.8, 0.8, 1.0), 0.6, 1800.0, 1.0), "sharp faint": ((0.8, 0.8, 1.0), 0.6, 600.0, 1.0),
    "blurred dense": ((0.8, 0.8, 1.0), 1.2, 1800.0, 1.0), "blurred faint": ((0.8, 0.8, 1.0), 1.2, 600.0, 1.0),
    "wall 1.5": ((0.8, 0.8, 1.0), 1.0, 1200.0, 1.5), "0.6x0.6x1.25": ((0.6, 0.6, 1.25), 0.8, 1200.0, 1.0),
    "1.25 mm": ((1.25, 1.25, 1.25), 0.8, 1200.0, 1.0), "1.25 mm wall 2": ((1.25, 1.25, 1.25), 0.8, 1200.0, 2.0),
}  # fmt: skip


class Tubes:
    """A tube of 9 mm radius with the wall named (1 mm unless said), beside a thick one; 18 HU of grain, or none."""

    params = (tuple(TUBES), (0, 18))
    param_names = ("scan", "noise_hu")
    unit = "mm"

    def _off(self, which: str, noise: int) -> tuple[np.ndarray, surface.Surface, np.ndarray]:
        spacing, fwhm, hu, wall = TUBES[which]
        thin = Bone(rod(9, TILT), wall, hu, offset=(-13, 0, 0))
        volume, labels = scan({"thin": thin, "thick": Bone(rod(9, TILT), 4.0, hu, offset=(11, 0, 0))}, (25, 13, 9),
                              Scan(spacing, fwhm, max(fwhm, spacing[2]), float(noise)))  # fmt: skip
        found = surface.one(volume, labels, "thin", simplify_mm=0.0)
        at = found.mesh.vertices - thin.offset
        keep = np.abs(at[:, 2]) < 6
        return thin.distance(*at[keep].T), found, keep

    def track_radius_error(self, which: str, noise: int) -> float:
        return float(self._off(which, noise)[0].mean())

    def track_spread(self, which: str, noise: int) -> float:
        return float(self._off(which, noise)[0].std())


class Staircase:
    """A cylinder tilted by 28 degrees: RMS about its mean radius."""

    params = ("0.8x1.0", "0.6x1.25", "0.5x2.0", "0.5x3.0")
    param_names = ("plane_and_slice_mm",)
    unit = "mm"

    def track_rms(self, plane_and_slice: str) -> float:
        spacing = [float(part) for part in plane_and_slice.split("x")]
        bone = Bone(rod(11, (0.5, 0.2, 1.0)), 3.5, 1300.0)
        how = Scan((spacing[0], spacing[0], spacing[1]), 0.8, spacing[1], 15.0)
        volume, labels = scan({"rod": bone}, (24, 16, 18), how)
        at = surface.one(volume, labels, "rod", simplify_mm=0.0).mesh.vertices
        return float(bone.distance(*at[np.abs(at[:, 2]) < 11].T).std())


def _samples(mesh: Mesh, count: int) -> tuple[np.ndarray, np.ndarray]:
    body = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    points, face = trimesh.sample.sample_surface(body, count, seed=0)
    return points, body.face_normals[face]


def _away(points: np.ndarray, samples: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    near = cKDTree(samples[0]).query(points)[1]
    return np.einsum("ij,ij->i", points - samples[0][near], samples[1][near])


def compared(found: dict[str, surface.Surface], truth: dict[str, Mesh], labels: Labels) -> dict[str, dict[str, float]]:
    """Errors and coverage of each bone, 4 mm off the scan's border."""
    low, high = labels.grid.to_patient(np.array([[0, 0, 0], np.array(labels.grid.shape) - 1.0])) + [[4.0], [-4.0]]
    again = surface.relabel(labels, found)
    rows: dict[str, dict[str, float]] = {}
    for name, one in found.items():
        theirs, ours = _samples(truth[name], 500_000), _samples(one.mesh, 500_000)
        at = one.mesh.vertices
        at = at[((at > low) & (at < high)).all(axis=1)]
        spots = theirs[0][::12]
        spots = spots[((spots > low) & (spots < high)).all(axis=1)]
        forth, back = _away(at, theirs), np.abs(_away(spots, ours))
        sigma = one.sigma_mm[cKDTree(one.mesh.vertices).query(spots)[1]]
        both = np.concatenate([np.abs(forth), back])
        a, b = again.mask(name), labels.mask(name)
        rows[name] = {
            "bias": float(forth.mean()), "mean": float(both.mean()), "p95": float(np.percentile(both, 95)),
            "in_2_sigma": 100 * float((back <= 2 * sigma).mean()), "sigma": float(np.median(one.sigma_mm)),
            "dice": float(2 * (a & b).sum() / (a.sum() + b.sum())), "triangles": float(len(one.mesh.faces)),
        }  # fmt: skip
    return rows


class _Compared:
    timeout = 1800
    param_names = ("bone", "figure")
    figures = ("bias", "mean", "p95", "in_2_sigma", "sigma", "dice", "triangles")
    unit = "mm, %"

    def track_figure(self, rows: dict[str, Any], bone: str, figure: str) -> float:
        return rows[bone][figure]


class _Real(_Compared):
    scan = ""

    def read(self) -> dict[str, dict[str, float]]:
        path = SHARED / "ct" / f"{self.scan}.zip"
        if not path.exists():
            raise SystemExit(f"surface: no {path.name}; this row needs the shared test data beside the project")
        volume = dicom.load(path).volume
        page = np.load(SHARED / "ct" / f"{self.scan}_truth.npz")
        values = np.ascontiguousarray(page["labels"].transpose(2, 1, 0)).astype(np.uint8)
        labels = Labels(volume.grid, values, {str(name): n for n, name in enumerate(page["names"], 1)})
        names = self.params[0]
        truth = {}
        for name in names:
            kind, side = name.split("_")
            body = trimesh.load(SHARED / "meshes" / "vsd_z027" / f"{kind.capitalize()}_{side[0].upper()}.stl")
            truth[name] = Mesh(np.asarray(body.vertices), np.asarray(body.faces))
        return compared(surface.bones(volume, labels, names), truth, labels)


class RealHip(_Real):
    """hip_z027, truth labels."""

    scan = "hip_z027"
    params = (("femur_left", "femur_right", "hip_left", "hip_right"), _Compared.figures)

    def setup_cache(self) -> dict[str, Any]:
        return self.read()


class RealKnee(_Real):
    """knee_z027, truth labels."""

    scan = "knee_z027"
    params = (("femur_left", "tibia_left", "fibula_left", "patella_left"), _Compared.figures)

    def setup_cache(self) -> dict[str, Any]:
        return self.read()


class Phantom(_Compared):
    """Sampled patient 11, never looked at while the model of sigma was made."""

    params = (("femur_left", "hip_left", "sacrum"), _Compared.figures)

    def setup_cache(self) -> dict[str, Any]:
        made = phantoms.hip(11)
        names = self.params[0]
        return compared(surface.bones(made.volume, made.labels, names), {n: made.meshes[n] for n in names}, made.labels)


class BigHip:
    """Five bones of hip_z027 resampled to 512x512x600 voxels of 0.8x0.8x0.6 mm."""

    timeout = 1200
    repeat = 1

    def setup(self) -> None:
        if not (SHARED / "ct" / "hip_z027.zip").exists():
            raise SystemExit("surface: no hip_z027.zip; this row needs the shared test data beside the project")
        volume = dicom.load(SHARED / "ct" / "hip_z027.zip").volume
        page = np.load(SHARED / "ct" / "hip_z027_truth.npz")
        values = np.ascontiguousarray(page["labels"].transpose(2, 1, 0)).astype(np.uint8)
        step = np.array([0.8, 0.8, 0.6])
        grid = Grid(volume.grid.pose, step, (512, 512, 600))
        scale, shape = step / volume.grid.spacing_mm, grid.shape
        hu = ndimage.affine_transform(volume.hu, scale, output_shape=shape, order=1, mode="nearest")
        labels = ndimage.affine_transform(values, scale, output_shape=shape, order=0, mode="nearest")
        self.case = Volume(grid, hu), Labels(grid, labels, {str(name): n for n, name in enumerate(page["names"], 1)})
        small, drawn = scan({"rod": Bone(rod(6, TILT), 2.0)}, (9, 9, 9), Scan())
        surface.relabel(drawn, surface.bones(small, drawn))  # compiled before the clock runs

    def time_five_bones(self) -> None:
        surface.bones(*self.case)

    def peakmem_five_bones(self) -> None:
        self.kept = surface.bones(*self.case)

    def track_relabel_s(self) -> float:
        import time

        found = surface.bones(*self.case)
        began = time.perf_counter()
        surface.relabel(self.case[1], found)
        return time.perf_counter() - began


class LayerFit(_Kernel):
    """Blurred layers at 200 points of a ball of 8 mm; error: mean distance of the edges from the ball, um."""

    unit = "um"
    sizes = (4, 200)

    def prepare(self, size: int) -> dict[str, Work]:
        volume, labels = scan({"a": Bone(ball(8), None, 1200.0)}, (12, 12, 12), Scan(noise_hu=12.0))
        n = np.random.default_rng(1).normal(size=(size, 3))
        n /= np.linalg.norm(n, axis=1, keepdims=True)
        at, reach, blur = 8 * n - volume.grid.pose.origin_mm, (4.0, 2.6), np.array([0.41, 0.41, 0.51])
        given, noise = edges.prior(size, cortex=(1250.0, 200.0), flesh=(50.0, 30.0)), np.array([12.0, 60.0, 40.0])
        how = edges.Scan(volume.hu, labels.values, 1, volume.grid.spacing_mm, blur, 12.0)
        return {
            "numpy": lambda: np.array([reference.layer_fit(volume.hu, how.spacing_mm, p, d, blur, reach, noise, m, s)
                                       for p, d, m, s in zip(at, n, given.mean[:, :5], given.sigma[:, :5])]),
            "kernel": lambda: edges.fit(how, at, n, np.zeros(size), given, reach_mm=reach).parameters,
        }  # fmt: skip

    def error(self, result: Any) -> float:
        return 1e3 * float(np.abs(result[:, 0]).mean())


class Nearest(_Kernel):
    """Distance of points 0.2 mm off a ball of 50,000 faces to it; library: trimesh. Error: largest, um, but for facets."""

    params = ("library", "kernel")
    unit = "um"
    sizes = (10, 20_000)

    def prepare(self, size: int) -> dict[str, Work]:
        body = trimesh.creation.icosphere(6, 20.0)
        mesh = Mesh(np.asarray(body.vertices), np.asarray(body.faces))
        n = np.random.default_rng(1).normal(size=(size, 3))
        at = 20.2 * n / np.linalg.norm(n, axis=1, keepdims=True)
        return {"library": lambda: np.asarray(trimesh.proximity.closest_point(body, at)[1]),
                "kernel": lambda: nearby.distance_within(at, mesh, 0.5)}  # fmt: skip

    def error(self, result: Any) -> float:
        return 1e3 * float(np.abs(result - 0.2).max())


class Flood(_Kernel):
    """Watershed of 125 knobs in a block of bone; library: scikit-image. Error: voxels (of a million) that differ from it."""

    params = ("library", "kernel")
    unit = "voxels in a million"
    sizes = (12, 200)

    def prepare(self, size: int) -> dict[str, Work]:
        from skimage.segmentation import watershed

        x, y, z = (
            np.cos(10 * np.pi * np.linspace(0, 1, size)).reshape(s) for s in ((-1, 1, 1), (1, -1, 1), (1, 1, -1))
        )
        noise = np.random.default_rng(3).normal(0, 0.05, (size, size, size))
        height = (x + y + z + noise).astype(np.float32)
        mask, seeds = height > -2.0, np.zeros(height.shape, np.uint8)
        at = np.arange(5) * (size // 5)
        seeds[np.ix_(at, at, at)] = np.arange(1, 126).reshape(5, 5, 5)
        self.like = watershed(-height, seeds * mask, mask=mask)
        return {"library": lambda: watershed(-height, seeds * mask, mask=mask).astype(np.uint8),
                "kernel": lambda: flooding.flooded(height, seeds, mask, 1e-4)}  # fmt: skip

    def error(self, result: Any) -> float:
        return 1e6 * float((result != self.like).mean())
