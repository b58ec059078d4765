"""Field to mesh beside the usual ways: seconds, volume error, added memory, open edges. asv names.

One solid for all: |gyroid| <= 0.8917 (cell 1.5 mm, walls of about 0.30 mm) in a cube of 20 mm and in a hemispherical cup
of 60 mm, radii 30 and 27 mm, meshed at 0.1 mm. Peers get a float32 field by broadcasting, the fastest numpy has. `true
wall` is what a build uses: every wall 0.30 mm by distance, which the level set alone does not give. Volume errors are
against the share of 2 x 10^7 jittered points, which share no period with cell or h. Seconds are medians of five fresh
processes, the methods taking turns; one that needs more than TURN_S a turn has one turn.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Field, Lattice, Mesh, Pose
from implantforge.core.field import Form
from implantforge.geom import measure, shapes
from implantforge.geom.meshing import polygonise, surface, triangles
from implantforge.kernels.tpms import tpms_level
from implantforge.stages import export, lattice
from implantforge.stages.lattice.waves import WAVES

sys.path.insert(0, str(Path(__file__).resolve().parent))
from run import added_mb

CELL, LEVEL, H = 1.5, 0.8917, 0.1
BOXES = {"cube": ((-10, -10, -10), (10, 10, 10)), "cup": ((-30, -30, 0), (30, 30, 30)), "bead": ((-1, -1, -1),
         (1, 1, 1))}  # fmt: skip
SHIFT = np.array([1.382, 1.3819, 1.3821])  # in h: keeps flat faces off the samples, and leaves a margin outside
Meshed = tuple[NDArray, NDArray]


def region(part: str) -> Callable[[Any, Any, Any], Any]:
    """Distance-like function of the solid to be filled, for arrays that broadcast."""
    low, high = np.array(BOXES[part], np.float32)

    def block(x: Any, y: Any, z: Any) -> Any:
        sides = [np.abs(c - (a + b) / 2) - (b - a) / 2 for c, a, b in zip((x, y, z), low, high)]
        return np.maximum(np.maximum(sides[0], sides[1]), sides[2])

    def shell(x: Any, y: Any, z: Any) -> Any:
        r = np.sqrt(x * x + y * y + z * z)
        return np.maximum(np.abs(r - np.float32(28.5)) - np.float32(1.5), -z)

    return shell if part == "cup" else block


def dense(
    part: str, h: float, within: Callable[[Any, Any, Any], Any] | None = None
) -> tuple[NDArray[np.float32], NDArray]:
    """The field at every sample of the box, plane by plane, and where sample (0,0,0) stands."""
    low, high = (np.array(c, float) for c in BOXES[part])
    origin = low - SHIFT * h
    x, y, z = (np.arange(a, b + 2 * h, h).astype(np.float32) for a, b in zip(origin, high))
    w, within = np.float32(2 * np.pi / CELL), within or region(part)
    sx, cx, sy, cy = np.sin(w * x), np.cos(w * x), np.sin(w * y)[:, None], np.cos(w * y)[:, None]
    sz, cz = np.sin(w * z), np.cos(w * z)
    scale, level = np.float32(1 / w), np.float32(LEVEL)
    out = np.empty((len(x), len(y), len(z)), np.float32)
    fixed, column, row = sy * cz, y[:, None], z
    for i in range(len(x)):
        sheet = (np.abs(sx[i] * cy + fixed + sz * cx[i]) - level) * scale
        np.maximum(sheet, within(x[i], column, row), out=out[i])
    return out, origin


def flying_edges(part: str, h: float) -> Meshed:
    """VTK through pyvista."""
    pyvista = optional("pyvista")
    values, origin = dense(part, h)
    # the last axis runs fastest in memory, so the image is read with its axes swapped, and turned back afterwards
    image = pyvista.ImageData(dimensions=values.shape[::-1], spacing=(h, h, h), origin=origin[::-1])
    image.point_data["f"] = values.ravel()
    found = image.contour([0.0], scalars="f", method="flying_edges", compute_normals=False, compute_scalars=False)
    return found.points[:, ::-1], found.regular_faces[:, ::-1]


def flying_edges_file(part: str, h: float) -> Meshed:
    """The same, to a binary STL."""
    pyvista = optional("pyvista")
    points, faces = flying_edges(part, h)
    with tempfile.TemporaryDirectory() as room:
        pyvista.PolyData.from_regular_faces(points, faces).save(Path(room) / "a.stl")
    return points, faces


def marching_cubes(part: str, h: float) -> Meshed:
    """scikit-image."""
    skimage = optional("skimage.measure")
    values, origin = dense(part, h)
    vertices, faces, _, _ = skimage.marching_cubes(values, 0.0, spacing=(h, h, h))
    return vertices + origin.astype(np.float32), faces


def level_set(part: str, h: float) -> Meshed:
    """manifold3d, which calls a Python function for every point."""
    if part == "cup":
        raise NotImplementedError("manifold3d level_set: a Python call for each of 2 x 10^8 points; the cube only")
    manifold3d = optional("manifold3d")
    w, scale, half = 2 * math.pi / CELL, CELL / (2 * math.pi), BOXES[part][1][0]
    sin, cos = math.sin, math.cos

    def inside(x: float, y: float, z: float) -> float:
        a, b, c = w * x, w * y, w * z
        sheet = (abs(sin(a) * cos(b) + sin(b) * cos(c) + sin(c) * cos(a)) - LEVEL) * scale
        return -max(sheet, abs(x) - half, abs(y) - half, abs(z) - half)

    found = manifold3d.Manifold.level_set(inside, [-half - h] * 3 + [half + h] * 3, h).to_mesh()
    return found.vert_properties[:, :3], found.tri_verts


def ours(part: str, h: float) -> Meshed:
    """The same level set, arrays of the peers' kind (float32)."""
    return triangles(level_field(part), h)


def ours_file(part: str, h: float) -> Meshed | None:
    """The same, to a binary STL layer by layer; no mesh is held."""
    with tempfile.TemporaryDirectory() as room:
        export.stream_stl(Path(room) / "a.stl", surface(level_field(part), h))
    return None


def true_wall(part: str, h: float) -> Meshed:
    """What a build makes: walls by distance."""
    lattice.surfaces.table.cache_clear()
    lattice.filling._scaled.cache_clear()
    return triangles(wall_field(part), h)


@lru_cache(maxsize=1)
def given_mesh(part: str) -> Mesh:
    """The outside of the cup as a file would bring it: a half ball of 20,000 or 200,000 triangles."""
    ball = shapes.sphere((0, 0, 0), 30) & shapes.half_space((0, 0, 0), (0, 0, -1))
    return polygonise(replace(ball, bounds=np.array(BOXES["cup"], float)), GIVEN[part])


def mesh_ours(part: str, h: float) -> Meshed:
    """A coat of 3 mm under that mesh, distances of samples 0.5 mm apart included."""
    depth = shapes.from_mesh(given_mesh(part), SDF_H, 3.6, inward=True)
    coat = (depth - depth.offset(-3.0)) & level_cell("cup").offset(LEVEL * CELL / (2 * np.pi))
    return triangles(replace(coat, bounds=np.array(BOXES["cup"], float)), h)


def mesh_peer(part: str, h: float, distance: Callable[[NDArray], NDArray]) -> Meshed:
    """Signed distances at samples 0.5 mm apart where the coat can be, found from a look at every fourth, read linearly
    between, then VTK."""
    pyvista = optional("pyvista")
    values, origin = dense("cup", h, lambda x, y, z: np.float32(-1))
    low = np.array(BOXES["cup"][0]) - 1.0
    count = 4 * np.ceil((np.array(BOXES["cup"][1]) + 1.0 - low) / (4 * SDF_H)).astype(int) + 1
    step = np.indices(tuple(count // 4 + 1)).reshape(3, -1).T
    first = distance(4 * SDF_H * step + low).reshape(count // 4 + 1)
    coarse = first.repeat(4, 0).repeat(4, 1).repeat(4, 2)[2:-1, 2:-1, 2:-1].astype(np.float32)
    # a sample lies within 2 sqrt(3) of its own from the one looked at, and is asked for in -3 - 2 h .. 2 h
    reach = (2 * math.sqrt(3) + 2) * SDF_H
    near = (coarse > -3.0 - reach) & (coarse < reach)
    coarse[near] = distance(np.argwhere(near) * SDF_H + low)
    for i in range(len(values)):
        depth = plane_between(coarse, (origin - low) / SDF_H, h / SDF_H, i, values.shape)
        np.maximum(values[i], np.maximum(depth, -3.0 - depth), out=values[i])
    image = pyvista.ImageData(dimensions=values.shape[::-1], spacing=(h, h, h), origin=origin[::-1])
    image.point_data["f"] = values.ravel()
    found = image.contour([0.0], scalars="f", method="flying_edges", compute_normals=False, compute_scalars=False)
    return found.points[:, ::-1], found.regular_faces[:, ::-1]


def mesh_libigl(part: str, h: float) -> Meshed:
    """Distances by libigl."""
    igl, mesh = optional("igl"), given_mesh(part)
    faces = mesh.faces.astype(np.int64)
    return mesh_peer(part, h, lambda p: igl.signed_distance(p.astype(float), mesh.vertices, faces)[0])


def mesh_open3d(part: str, h: float) -> Meshed:
    """Distances by Open3D, that is Embree."""
    open3d, mesh = optional("open3d"), given_mesh(part)
    scene, tensor = open3d.t.geometry.RaycastingScene(), open3d.core.Tensor
    scene.add_triangles(tensor(mesh.vertices.astype(np.float32)), tensor(mesh.faces.astype(np.uint32)))
    return mesh_peer(part, h, lambda p: scene.compute_signed_distance(tensor(p.astype(np.float32))).numpy())


def plane_between(coarse: NDArray, start: NDArray, step: float, i: int, shape: tuple[int, ...]) -> NDArray:
    """Plane i of coarse samples read linearly on the fine grid."""

    def places(axis: int, n: int) -> tuple[NDArray, NDArray]:
        at = np.clip(start[axis] + step * np.arange(n), 0, coarse.shape[axis] - 1.001)
        return at.astype(int), (at - at.astype(int)).astype(np.float32)

    (a, x), (b, y), (c, z) = places(0, i + 1), places(1, shape[1]), places(2, shape[2])
    plane = coarse[a[-1]] * (1 - x[-1]) + coarse[a[-1] + 1] * x[-1]
    rows = plane[b] * (1 - y[:, None]) + plane[b + 1] * y[:, None]
    return rows[:, c] * (1 - z) + rows[:, c + 1] * z


SDF_H = 0.5
TURNS, TURN_S, LIMIT_S = 5, 5.0, 45.0
GIVEN = {"mesh of 20,000": 1.04, "mesh of 200,000": 0.33}
METHODS: dict[str, Callable[[str, float], Meshed | None]] = {
    "numpy + VTK flying edges": flying_edges, "numpy + VTK flying edges to a file": flying_edges_file,
    "numpy + scikit-image": marching_cubes, "manifold3d level_set": level_set, "implantforge": ours,
    "implantforge to a file": ours_file, "implantforge true wall": true_wall,
}  # fmt: skip
ON_MESHES: dict[str, Callable[[str, float], Meshed | None]] = {
    "libigl + VTK flying edges": mesh_libigl, "Open3D + VTK flying edges": mesh_open3d, "implantforge": mesh_ours,
}  # fmt: skip


def optional(name: str) -> Any:
    """A library that may be absent; NotImplementedError (skip) then."""
    try:
        return __import__(name, fromlist=["_"])
    except ImportError as error:
        raise NotImplementedError(f"{name} is not installed") from error


def clipped(part: str, sheet: Field) -> Field:
    """A sheet inside the part."""
    box = np.array(BOXES[part], float)
    whole = shapes.box(box.mean(axis=0), box[1] - box[0])
    if part == "cup":
        shell = shapes.sphere((0, 0, 0), 30) - shapes.sphere((0, 0, 0), 27)
        whole = shell & shapes.half_space((0, 0, 0), (0, 0, -1))
    made = whole & sheet
    return Field(made.evaluate, box, made.lipschitz, form=made.form)


def level_cell(part: str) -> Field:
    """|gyroid| in mm by the mean gradient; its steepest phase gradient is sqrt 3."""
    scale = CELL / (2 * np.pi)

    def sheet(p: NDArray) -> NDArray:
        out = np.empty(len(p))
        tpms_level(0, CELL, np.ascontiguousarray(p), out)
        return np.abs(out) * scale

    terms = [(scale * w, *rest) for w, *rest in WAVES["gyroid"]]
    box = np.array(BOXES[part], float)
    cell = shapes.waves(terms, (CELL,) * 3, box, math.sqrt(3))
    assert cell.form is not None
    return Field(sheet, box, math.sqrt(3), form=Form("absolute", (), (cell.form,)))


def level_field(part: str) -> Field:
    """The peers' solid."""
    return clipped(part, level_cell(part).offset(LEVEL * CELL / (2 * np.pi)))


def mesh_field() -> Field:
    """The coat under a given mesh, of the shape that the mesh is of."""
    ball = shapes.sphere((0, 0, 0), 30) & shapes.half_space((0, 0, 0), (0, 0, -1))
    coat = (ball - ball.offset(-3.0)) & level_cell("cup").offset(LEVEL * CELL / (2 * np.pi))
    return replace(coat, bounds=np.array(BOXES["cup"], float))


def wall_field(part: str) -> Field:
    """Sheet of 0.30 mm measured by distance."""
    solved = lattice.solve(Lattice("gyroid", "sheet", CELL, wall_mm=0.3))
    return clipped(part, lattice.field(solved, np.array(BOXES[part], float)))


def volume_mm3(field: Field, points: float = 2e7) -> float:
    """Volume of {field < 0} by one random point in each cell of a fine grid."""
    low, high = field.bounds
    step = float(np.cbrt(np.prod(high - low) / points))
    count = np.ceil((high - low) / step).astype(int)
    cell = (high - low) / count
    plane = np.indices((1, *count[1:])).reshape(3, -1).T.astype(float)
    random, inside = np.random.default_rng(0), 0
    for i in range(count[0]):
        p = low + (plane + [i, 0, 0] + random.random(plane.shape)) * cell
        inside += int((field.evaluate(p) < 0).sum())
    return float(inside * cell.prod())


def figures(part: str, method: str, again: bool = False) -> dict[str, Any]:
    """Figures of one method, run once in this process, without those that do not change when it is run again; processor_s
    are those of all threads together."""
    work = (ON_MESHES if part in GIVEN else METHODS)[method]
    if part in GIVEN:
        given_mesh(part)
    # compiles and imports, on something small; a mesh is a mesh
    work(part if part in GIVEN else "bead", 10 * H)
    found: list[Meshed | None] = []
    taken: list[float] = []

    def once() -> None:
        began = time.perf_counter(), time.process_time()
        found[:] = [work(part, H)]
        taken[:] = [time.perf_counter() - began[0], time.process_time() - began[1]]

    added = added_mb(once)
    if again:
        return {"seconds": taken[0], "processor_s": taken[1], "added_MB": added}
    points, faces = found[0] or ours(part, H)
    mesh = Mesh(np.asarray(points, float), np.asarray(faces))
    return {"seconds": taken[0], "processor_s": taken[1], "added_MB": added, "volume_mm3": abs(mesh.volume_mm3),
            "open_edges": measure.bad_edges(mesh), "triangles": len(mesh.faces)}  # fmt: skip


def fresh(*arguments: str, limit_s: float | None = None) -> dict[str, Any]:
    """This file run in a process of its own; {'skip': why} where a method is not to be had or not done in time."""
    try:
        done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=False,
                              timeout=limit_s)  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"skip": f"not done within {limit_s:.0f} s"}
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    out: dict[str, Any] = json.loads(done.stdout)
    return out


def taking_turns(part: str) -> dict[str, dict[str, Any]]:
    """Median figures of each method on a part, every turn in a fresh process, the methods one after the other."""
    turns: dict[str, list[dict[str, Any]]] = {method: [] for method in (ON_MESHES if part in GIVEN else METHODS)}
    for turn in range(TURNS):
        for method, rows in turns.items():
            if turn == 0 or ("skip" not in rows[0] and rows[0]["seconds"] < TURN_S):
                rows.append(fresh(part, method, *["again"] * min(turn, 1), limit_s=LIMIT_S))
    return {method: median_row(rows) for method, rows in turns.items()}


def median_row(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure over turns."""
    there = [row for row in rows if "skip" not in row]
    if not there:
        return rows[0]
    return {key: float(np.median([row[key] for row in there if key in row])) for key in there[0]}


class Peers:
    """Each method of METHODS on cube and cup, h 0.1 mm, in a process of its own."""

    params = (("cup", "cube"), tuple(METHODS))
    param_names = ("part", "method")
    timeout = 3600

    def setup_cache(self) -> dict[str, dict[str, Any]]:
        return self.all_rows()

    def all_rows(self) -> dict[str, dict[str, Any]]:
        """Figures by part and method."""
        out = {}
        for part in self.params[0]:
            truth = fresh(part, "truth")
            for method, row in taking_turns(part).items():
                if "skip" not in row:
                    solid = truth["wall" if method.endswith("wall") else "level"]
                    row["volume_error_pct"] = 100 * (row["volume_mm3"] / solid - 1)
                out[f"{part} {method}"] = row
        return out

    def setup(self, found: dict[str, dict[str, Any]], part: str, method: str) -> None:
        self.row = found[f"{part} {method}"]
        if "skip" in self.row:
            raise NotImplementedError(self.row["skip"])

    def track_seconds_s(self, found: dict[str, dict[str, Any]], part: str, method: str) -> float:
        return float(self.row["seconds"])

    def track_processor_s(self, found: dict[str, dict[str, Any]], part: str, method: str) -> float:
        return float(self.row["processor_s"])

    def track_volume_error_pct(self, found: dict[str, dict[str, Any]], part: str, method: str) -> float:
        return float(self.row["volume_error_pct"])

    def track_added_memory_MB(self, found: dict[str, dict[str, Any]], part: str, method: str) -> float:
        return float(self.row["added_MB"])

    def track_open_edges(self, found: dict[str, dict[str, Any]], part: str, method: str) -> float:
        return float(self.row["open_edges"])

    def track_triangles(self, found: dict[str, dict[str, Any]], part: str, method: str) -> float:
        return float(self.row["triangles"])


class MeshPeers(Peers):
    """The cup's coat on its outside given as a mesh, distances included; volumes beside the same coat of true shapes."""

    params = (tuple(GIVEN), tuple(ON_MESHES))

    def setup_cache(self) -> dict[str, dict[str, Any]]:
        return self.all_rows()


def graded_coat() -> Field:
    """20 cm3 between half balls of 31 and 27.25 mm, walls growing from 0.17 to 0.27 mm (by the mean gradient) inward."""
    ball = shapes.sphere((0, 0, 0), 31)
    whole = (ball - shapes.sphere((0, 0, 0), 27.25)) & shapes.half_space((0, 0, 0), (0, 0, -1))
    sheet = level_cell("cup").plus(ball.ramp(np.array([-3.5, -0.5]), np.array([-0.27, -0.17])))
    return replace(whole & sheet, bounds=np.array([[-31.0, -31.0, 0.0], [31.0, 31.0, 31.0]]))


class Streamed:
    """That coat to a file, made layer by layer: seconds and what is added to memory."""

    params = (("stl", "3mf"), (0.1, 0.05))
    param_names = ("kind", "h_mm")
    timeout = 1800
    repeat = 1

    def setup(self, kind: str, h_mm: float) -> None:
        self.room = tempfile.TemporaryDirectory()
        self.work(kind, 1.0)

    def work(self, kind: str, h_mm: float) -> int:
        found, path = surface(graded_coat(), h_mm), Path(self.room.name) / f"coat.{kind}"
        if kind == "stl":
            export.stream_stl(path, found)
        else:
            export.stream_3mf(path, found, Pose(), {})
        return found.face_count

    def time_stream(self, kind: str, h_mm: float) -> None:
        self.work(kind, h_mm)

    def peakmem_stream(self, kind: str, h_mm: float) -> None:
        self.work(kind, h_mm)

    def track_triangles(self, kind: str, h_mm: float) -> int:
        return self.work(kind, h_mm)


class Sphere:
    """Relative volume error of a ball of 10 mm: a quarter for every halving of h."""

    params = (1.0, 0.5, 0.25)
    param_names = ("h_mm",)
    unit = "%"

    def track_volume_error(self, h_mm: float) -> float:
        return 100 * abs(polygonise(shapes.sphere((0, 0, 0), 10), h_mm).volume_mm3 / (4e3 / 3 * np.pi) - 1)


def main() -> None:
    """`bench_meshing.py PART METHOD` prints one method's figures, `PART truth` the volumes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part")
    parser.add_argument("method")
    parser.add_argument("again", nargs="?")
    given = parser.parse_args()
    row: dict[str, Any]
    try:
        if given.method == "truth":
            row = {"level": volume_mm3(mesh_field() if given.part in GIVEN else level_field(given.part))}
            if given.part not in GIVEN:
                row["wall"] = volume_mm3(wall_field(given.part))
        else:
            row = figures(given.part, given.method, bool(given.again))
    except NotImplementedError as reason:
        row = {"skip": str(reason)}
    print(json.dumps(row))


if __name__ == "__main__":
    main()
