"""A 512 x 512 x 600 hip CT from DICOM to labelled surfaces, and the route people take today on the same files.

The other route: SimpleITK reads the series, threshold 200 HU, closing, largest components, scikit-image marching cubes,
fast-simplification. Both run as fresh processes; errors are distances to the surfaces the CT was painted from. SimpleITK
is not a dependency of the project: without it that column is skipped.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SHAPE = (512, 512, 600)
SPACING = (0.75, 0.75, 0.7)
BONES = ("femur_left", "femur_right", "hip_left", "hip_right", "sacrum")


def make(folder: Path) -> None:
    """The phantom padded with air to SHAPE, as uncompressed DICOM, and its true surfaces."""
    from implantforge.core import Grid, Labels, Pose, Volume
    from implantforge.stages import phantoms

    made = phantoms.hip(11, spacing_mm=SPACING)
    grid, hu = made.volume.grid, made.volume.hu
    before = np.maximum((np.array(SHAPE) - hu.shape) // 2, 0)
    before[2] = 0
    full = np.full(SHAPE, -1000, np.int16)
    into = tuple(slice(int(b), int(b) + min(n, t - int(b))) for b, n, t in zip(before, hu.shape, SHAPE))
    top = hu.shape[2] - (into[2].stop - into[2].start)  # a tall patient's lower shafts do not fit
    part = hu[: into[0].stop - into[0].start, : into[1].stop - into[1].start, top:]
    full[into] = part
    origin = grid.pose.origin_mm + (np.array([0, 0, top]) - before) * grid.spacing_mm
    padded = Volume(Grid(Pose(np.eye(3), origin), grid.spacing_mm, SHAPE), full)
    empty = Labels(padded.grid, np.zeros(SHAPE, np.uint8), {})
    phantoms.write(phantoms.Phantom(padded, empty, made.meshes, made.truth), folder, transfer_syntax="raw")
    low = origin[2] + 6.0
    np.savez(folder / "truth.npz", low=low, **{f"{n}_v": made.meshes[n].vertices for n in BONES},
             **{f"{n}_f": made.meshes[n].faces for n in BONES})  # fmt: skip


def ours(folder: Path) -> dict[str, Any]:
    """Vertices and faces of every bone, by name."""
    from implantforge.pipeline import imaging

    found = imaging.bones(folder / "ct")
    return {name: (one.mesh.vertices, one.mesh.faces) for name, one in found.surfaces.items()}


def theirs(folder: Path) -> dict[str, Any]:
    """Vertices and faces of the largest components, LPS mm."""
    import fast_simplification
    import SimpleITK as sitk
    from skimage.measure import marching_cubes

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder / "ct")))
    image = reader.Execute()
    mask = sitk.BinaryMorphologicalClosing(image > 200, [2, 2, 2])
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(mask), sortByObjectSize=True)
    out = {}
    for number in range(1, 4):
        body = sitk.GetArrayViewFromImage(parts) == number
        if body.sum() < 20000:
            continue
        vertices, faces, _, _ = marching_cubes(np.pad(body, 1).astype(np.float32), 0.5)
        fewer, triangles = fast_simplification.simplify(vertices.astype(np.float32), faces, target_reduction=0.7)
        at = (fewer[:, ::-1] - 1.0) * image.GetSpacing() + image.GetOrigin()
        out[f"piece_{number}"] = (at, triangles)
    return out


def _child(route: str, folder: Path) -> None:
    """Runs one route and prints seconds, peak memory and errors as JSON."""
    from run import memory_mb

    began = time.perf_counter()
    found = {"ours": ours, "simpleitk": theirs}[route](folder)
    seconds, peak = time.perf_counter() - began, memory_mb("VmHWM")
    truth = np.load(folder / "truth.npz")
    low = float(truth["low"])
    names = ("femur_left", "femur_right", "hip_left", "hip_right")
    errors = [_error(found, route, truth, name, low) for name in names]
    print(json.dumps({"seconds": seconds, "peak_mb": peak, "bodies": len(found), "mean_mm": float(np.mean(errors)),
                      **{f"{name}_mm": error for name, error in zip(names, errors)}}))  # fmt: skip


def _error(found: dict[str, Any], route: str, truth: Any, name: str, low: float) -> float:
    """Mean distance (mm) from the bone's true outer surface to the nearest surface that was made (to the plane of the
    nearest of its samples): of the bone itself when the route knows bones, of any piece when it does not."""
    import trimesh
    from scipy.spatial import cKDTree

    made = [found[name]] if route == "ours" else list(found.values())
    points, normals = [], []
    for vertices, faces in made:
        body = trimesh.Trimesh(vertices, faces, process=False)
        at, face = trimesh.sample.sample_surface(body, 1_000_000, seed=0)
        points.append(at)
        normals.append(body.face_normals[face])
    true = trimesh.Trimesh(truth[f"{name}_v"], truth[f"{name}_f"], process=False)
    at = trimesh.sample.sample_surface(true, 40_000, seed=1)[0]
    at = at[at[:, 2] > low]
    cloud = np.concatenate(points)
    near = cKDTree(cloud).query(at)[1]
    return float(np.abs(np.einsum("ij,ij->i", at - cloud[near], np.concatenate(normals)[near])).mean())


class CtToSurfaces:
    """Seconds, peak memory, bodies found and mean error of both routes on one machine in one run."""

    timeout = 1800
    params = ("ours", "simpleitk")
    param_names = ("route",)

    def setup_cache(self) -> dict[str, dict[str, float]]:
        out: dict[str, dict[str, float]] = {}
        with tempfile.TemporaryDirectory() as name:
            make(Path(name))
            subprocess.run([sys.executable, __file__, "ours", name], capture_output=True, check=False)  # compiles
            for route in self.params:
                done = subprocess.run(
                    [sys.executable, __file__, route, name], capture_output=True, text=True, check=False
                )
                if done.returncode == 0:
                    out[route] = json.loads(done.stdout.strip().splitlines()[-1])
                else:
                    print(done.stderr[-2000:], file=sys.stderr)
        return out

    def _of(self, found: dict[str, dict[str, float]], route: str, key: str) -> float:
        if route not in found:
            raise NotImplementedError(f"{route} did not run here")
        return found[route][key]

    def track_seconds_s(self, found: dict[str, dict[str, float]], route: str) -> float:
        return self._of(found, route, "seconds")

    def track_peak_MB(self, found: dict[str, dict[str, float]], route: str) -> float:
        return self._of(found, route, "peak_mb")

    def track_bodies(self, found: dict[str, dict[str, float]], route: str) -> float:
        return self._of(found, route, "bodies")

    def track_error_mean_mm(self, found: dict[str, dict[str, float]], route: str) -> float:
        return self._of(found, route, "mean_mm")

    def track_error_femur_mm(self, found: dict[str, dict[str, float]], route: str) -> float:
        return self._of(found, route, "femur_left_mm")

    def track_error_hip_mm(self, found: dict[str, dict[str, float]], route: str) -> float:
        return self._of(found, route, "hip_left_mm")


if __name__ == "__main__":
    _child(sys.argv[1], Path(sys.argv[2]))
