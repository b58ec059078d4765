"""Every kernel beside its plain numpy twin, and beside a library where one does the same. asv names.

`numpy` is the twin of tests/reference.py (or its fastest plain form), `kernel` ours, `library` what the class names.
Errors are against analytic truth where the docstring says so, else against the twin. Kernels use all cores; numpy one.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from implantforge.core import Mesh
from implantforge.geom import inside, measure, meshing, shapes
from implantforge.kernels import loft, nearest, scan, thickness, topology, tpms, trilinear

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import reference
from beside import Work, _Kernel, filled


class TpmsLevel(_Kernel):
    """Gyroid at 10^6 points; error: largest, against library trigonometry."""

    unit = "1"

    def prepare(self, size: int) -> dict[str, Work]:
        p = np.random.default_rng(0).uniform(-30, 30, (size, 3))
        self.truth = reference.tpms_level("gyroid", 1.5, p)
        return {"numpy": lambda: reference.tpms_level("gyroid", 1.5, p),
                "kernel": lambda: filled(tpms.tpms_level, size, 0, 1.5, p)}  # fmt: skip

    def error(self, result: Any) -> float:
        return float(np.abs(result - self.truth).max())


class TpmsDistance(_Kernel):
    """Distance to a gyroid of 1.5 mm, points planted up to 0.16 mm along normals; error: 99th percentile, um."""

    unit = "um"
    sizes = (1000, 200_000)

    def prepare(self, size: int) -> dict[str, Work]:
        random = np.random.default_rng(1)
        foot = random.uniform(0, 15, (size, 3))
        for _ in range(12):
            slope = self.slope(foot)
            foot -= (reference.tpms_level("gyroid", 1.5, foot) / (slope**2).sum(axis=1))[:, None] * slope
        slope = self.slope(foot)
        self.truth = random.uniform(-0.16, 0.16, size)
        p = foot + self.truth[:, None] * slope / np.linalg.norm(slope, axis=1, keepdims=True)
        return {"numpy": lambda: reference.tpms_distance("gyroid", 1.5, 0.0, 3, p),
                "kernel": lambda: filled(tpms.tpms_distance, size, 0, 1.5, 0.0, 0.3, 3, p)}  # fmt: skip

    def slope(self, p: NDArray) -> NDArray:
        """Gradient of the level."""
        (x, y, z), w = (2 * np.pi / 1.5 * p).T, 2 * np.pi / 1.5
        sin, cos = np.sin, np.cos
        parts = (cos(x) * cos(y) - sin(z) * sin(x), cos(y) * cos(z) - sin(x) * sin(y), cos(z) * cos(x)
                 - sin(y) * sin(z))  # fmt: skip
        return w * np.stack(parts, axis=1)

    def error(self, result: Any) -> float:
        return 1e3 * float(np.percentile(np.abs(result - self.truth), 99))


class Trilinear(_Kernel):
    """10^6 points in rows across 128^3 samples of a plane (exact but for float32), as a mesher asks; library: scipy
    map_coordinates."""

    params = ("numpy", "library", "kernel")
    unit = "um"
    reader = staticmethod(trilinear.trilinear)

    def prepare(self, size: int) -> dict[str, Work]:
        i, j, k = np.indices((128,) * 3)
        values = (0.3 * i - 0.2 * j + 0.1 * k).astype(np.float32)
        side = round(size ** (1 / 3))
        at = np.indices((side,) * 3).reshape(3, -1).T * (126.7 / side) + [0.11, 0.23, 0.31]
        self.truth = at @ [0.3, -0.2, 0.1]
        given = (values, np.eye(3), np.zeros(3), np.ones(3), at)
        return {"numpy": lambda: reference.trilinear(values, at),
                "library": lambda: ndimage.map_coordinates(values, at.T, order=1, output=np.float64),
                "kernel": lambda: filled(self.reader, len(at), *given)}  # fmt: skip

    def error(self, result: Any) -> float:
        return 1e3 * float(np.abs(result - self.truth).max())


class TrilinearFew(Trilinear):
    """As above for 2197 points, one thread."""

    sizes = (125, 2197)
    repeat = 200
    reader = staticmethod(trilinear.trilinear_few)


class LoftDistance(_Kernel):
    """Loft with circular sections, so a capsule with a flat top: points within 2 mm of it; error: largest, um."""

    unit = "um"
    sizes = (200, 20_000)

    def prepare(self, size: int) -> dict[str, Work]:
        table = np.zeros((201, 8))
        table[:, 1:4] = 6.0
        random = np.random.default_rng(3)
        p = random.uniform([-9, -9, -3], [9, 9, 53], (20 * size, 3))
        rim, low = np.hypot(p[:, 0], p[:, 1]) - 6, np.linalg.norm(p - [0, 0, 6], axis=1) - 6
        side = np.where(p[:, 2] < 6, low, rim)
        corner = np.hypot(np.maximum(side, 0), np.maximum(p[:, 2] - 50, 0))
        truth = np.where((side > 0) & (p[:, 2] > 50), corner, np.maximum(side, p[:, 2] - 50))
        near = np.flatnonzero(np.abs(truth) < 2)[:size]
        p, self.truth = np.ascontiguousarray(p[near]), truth[near]
        return {"numpy": lambda: reference.loft_distance(table, 0.0, 0.25, 6.0, 2.0, p, 0.1),
                "kernel": lambda: filled(loft.loft_distance, len(p), table, 0.0, 0.25, 50.0, 6.0, 2.0, 8, p)}  # fmt: skip

    def error(self, result: Any) -> float:
        return 1e3 * float(np.abs(result - self.truth).max())


def ring(h: float) -> tuple[Mesh, Any]:
    """A torus as mesh and as field, off every symmetry."""
    body = shapes.torus((0.1, 0.2, 0.3), (1, 2, 3), 18.0, 7.5)
    return meshing.polygonise(body, h), body


class CrossingParity(_Kernel):
    """1500 points and a torus of 16,000 triangles; library: trimesh with embree. Error: points on the wrong side of the
    analytic torus (0.1 mm and nearer do not count), the binning of triangles included in time."""

    params: tuple[Any, ...] = ("numpy", "library", "kernel")
    unit = "points"
    sizes = (50, 1500)

    def prepare(self, size: int) -> dict[str, Work]:
        import trimesh

        mesh, body = ring(1.0)
        p = np.random.default_rng(4).uniform(-26, 26, (size, 3))
        self.truth = body(p)
        triangles = mesh.vertices[mesh.faces]

        def library() -> NDArray:
            # made anew, because a mesh of trimesh keeps its search tree and ours is binned at every call
            found: NDArray = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).contains(p)
            return found

        return {"numpy": lambda: reference.crossing_parity(triangles, p), "library": library,
                "kernel": lambda: inside.inside(mesh, p)}  # fmt: skip

    def error(self, result: Any) -> float:
        return float(((self.truth < 0) != result)[np.abs(self.truth) > 0.1].sum())


class CrossingParityMany(CrossingParity):
    """As above with 300,000 points, where the twin would take minutes."""

    params = ("library", "kernel")
    sizes = (50, 300_000)


class _Scan(_Kernel):
    """A torus in samples of `size` along its longest axis."""

    sizes = (16, 72)

    def grid(self, size: int) -> None:
        mesh, body = ring(2.25)
        self.low, self.h = np.full(3, -27.0), 54 / (size - 1)
        self.corners = ((mesh.vertices - self.low) / self.h)[mesh.faces]
        self.shape, self.band, self.nudge = (size,) * 3, 3.0, np.array([1.7e-5, 2.9e-5])
        self.order, self.starts = shapes._slabs(self.corners[:, :, 0], self.band, size)
        self.mesh, self.body = mesh, body

    def image(self) -> tuple[Any, Any]:
        """The grid and the mesh for VTK."""
        import pyvista

        image = pyvista.ImageData(dimensions=self.shape, spacing=(self.h,) * 3, origin=self.low)
        return image, pyvista.PolyData.from_regular_faces(self.mesh.vertices, np.asarray(self.mesh.faces, int))


class NearDistances(_Scan):
    """Distances within 3 samples of a torus of 3200 triangles on 72^3; library: VTK implicit distance at the same
    samples, by its own search tree. Error: largest against the twin, um."""

    params = ("numpy", "library", "kernel")
    unit = "um"

    def prepare(self, size: int) -> dict[str, Work]:
        self.grid(size)
        band2 = self.band**2
        want = reference.near_distances(self.corners, self.band, self.shape)
        self.near = np.flatnonzero((want < band2).ravel())
        self.truth = np.sqrt(want.ravel()[self.near])

        def kernel() -> NDArray:
            owner, out = np.full(self.shape, -1, np.int32), np.full(self.shape, band2, np.float32)
            nearest.seed(self.corners, self.order, self.starts, shapes.SLAB, self.band, owner, out)
            return np.sqrt(out.ravel()[self.near])

        def library() -> NDArray:
            import pyvista

            points = np.stack(np.unravel_index(self.near, self.shape), axis=1) * self.h + self.low
            found = pyvista.PolyData(points).compute_implicit_distance(self.image()[1])
            return np.abs(found["implicit_distance"]) / self.h

        def plain() -> NDArray:
            return np.sqrt(reference.near_distances(self.corners, self.band, self.shape).ravel()[self.near])

        return {"numpy": plain, "library": library, "kernel": kernel}

    def error(self, result: Any) -> float:
        return 1e3 * self.h * float(np.abs(result - self.truth).max())


class ScanInside(_Scan):
    """Samples of 72^3 inside a torus; library: VTK's stencil of a polygon mesh. Error: samples on the wrong side of the
    analytic torus, 0.3 mm and nearer not counted."""

    params = ("numpy", "library", "kernel")
    unit = "points"

    def prepare(self, size: int) -> dict[str, Work]:
        self.grid(size)
        at = np.indices(self.shape).reshape(3, -1).T * self.h + self.low
        self.truth = self.body(at).reshape(self.shape)

        def kernel() -> NDArray:
            out = np.zeros(self.shape, np.bool_)
            scan.crossings(self.corners, self.order, self.starts, shapes.SLAB, self.nudge, out)
            return out

        def library() -> NDArray:
            image, body = self.image()
            mask = body.voxelize_binary_mask(reference_volume=image)
            return mask.point_data["mask"].reshape(self.shape, order="F") > 0

        return {"numpy": lambda: reference.scan_inside(self.corners, self.shape, self.nudge), "library": library,
                "kernel": kernel}  # fmt: skip

    def error(self, result: Any) -> float:
        return float(((self.truth < 0) != result)[np.abs(self.truth) > 0.3].sum())


def sheet_radius(size: int) -> NDArray:
    """Distance transform of a gyroid sheet on size^3 voxels of 0.05 mm."""
    p = np.asarray(np.indices((size,) * 3).reshape(3, -1).T * 0.05, np.float64)
    solid = np.abs(reference.tpms_level("gyroid", 1.5, p)).reshape((size,) * 3) < 0.9
    return np.asarray(edt.edt(solid, anisotropy=(0.05,) * 3, black_border=False))


class Ridge(_Kernel):
    """Balls of a gyroid sheet, 128^3 voxels, that no neighbour swallows; error: voxels that differ from the twin."""

    unit = "voxels"
    sizes = (16, 128)

    def prepare(self, size: int) -> dict[str, Work]:
        radius, spacing = sheet_radius(size), np.full(3, 0.05)
        self.truth = reference.ridge(radius, spacing)
        return {"numpy": lambda: reference.ridge(radius, spacing),
                "kernel": lambda: filled(thickness.ridge, radius.shape, radius, spacing, dtype=np.bool_)}  # fmt: skip

    def error(self, result: Any) -> float:
        return float((result != self.truth).sum())


class PaintBalls(_Kernel):
    """The balls of 48^3 voxels painted, largest first; error: share of voxels of another radius than the twin's (ties
    at a ball's rim), %."""

    unit = "%"
    sizes = (16, 48)

    def prepare(self, size: int) -> dict[str, Work]:
        radius, spacing = sheet_radius(size), np.full(3, 0.05)
        keep = reference.ridge(radius, spacing)
        centres, radii = np.argwhere(keep), radius[keep].astype(float)
        order = np.argsort(-radii, kind="stable")
        centres, radii = centres[order], radii[order]
        self.truth: NDArray | None = None
        self.twin = lambda: reference.paint_balls(centres, radii, spacing, radius.shape)

        def kernel() -> NDArray:
            out = np.zeros(radius.shape, np.float32)
            thickness.paint_balls(centres, radii, spacing, out)
            return out

        return {"numpy": self.twin, "kernel": kernel}

    def error(self, result: Any) -> float:
        return 100 * float((result != self.twin()).mean())


def balls(size: int) -> Mesh:
    """size^3 loose balls of 2 mm as one mesh."""
    one = meshing.polygonise(shapes.sphere((0, 0, 0), 2.0), 0.25)
    shifts = np.indices((size,) * 3).reshape(3, -1).T * 5.0
    vertices = (shifts[:, None] + one.vertices).reshape(-1, 3)
    faces = (np.arange(len(shifts))[:, None, None] * len(one.vertices) + one.faces).reshape(-1, 3)
    return Mesh(vertices, faces)


class LabelPieces(_Kernel):
    """Connected pieces of 216 balls, 530,000 triangles; library: scipy's connected_components on the edges. Error: pieces
    too many or too few."""

    params = ("numpy", "library", "kernel")
    unit = "pieces"
    sizes = (1, 6)

    def prepare(self, size: int) -> dict[str, Work]:
        mesh, self.truth = balls(size), size**3
        n, f = len(mesh.vertices), mesh.faces

        def library() -> NDArray:
            rows, columns = np.concatenate([f[:, 0], f[:, 1]]), np.concatenate([f[:, 1], f[:, 2]])
            graph = sparse.coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(n, n))
            found: NDArray = sparse.csgraph.connected_components(graph, directed=False)[1]
            return found

        def kernel() -> NDArray:
            return filled(topology.label_pieces, n, f, np.empty(n, np.int32), dtype=np.int32)

        return {"numpy": lambda: reference.label_pieces(f, n), "library": library, "kernel": kernel}

    def error(self, result: Any) -> float:
        return abs(float(result.max()) + 1 - self.truth)


class PieceVolumes(_Kernel):
    """Volumes of those balls; error: against one ball meshed alone, largest, mm3."""

    unit = "mm3"
    sizes = (1, 6)

    def prepare(self, size: int) -> dict[str, Work]:
        mesh = balls(size)
        labels = np.repeat(np.arange(size**3, dtype=np.int32), len(mesh.vertices) // size**3)
        self.truth = balls(1).volume_mm3

        def kernel() -> NDArray:
            out = np.zeros(size**3)
            topology.piece_volumes(mesh.vertices, mesh.faces, labels, np.empty(size**3, np.int64), out)
            return out

        return {"numpy": lambda: reference.piece_volumes(mesh.vertices, mesh.faces, labels), "kernel": kernel}

    def error(self, result: Any) -> float:
        return float(np.abs(result - self.truth).max())


class BadEdges(_Kernel):
    """Open and doubled edges of those balls with 100 triangles missing (three directed edges each); library: trimesh's
    grouping of edges, which finds unpaired ones. Error: edges too many or too few."""

    params = ("numpy", "library", "kernel")
    unit = "edges"
    sizes = (1, 6)

    def prepare(self, size: int) -> dict[str, Work]:
        import trimesh

        whole = balls(size)
        holes = np.linspace(0, len(whole.faces) - 1, 100 if size > 1 else 5).astype(int)
        mesh = Mesh(whole.vertices, np.delete(whole.faces, holes, axis=0))
        self.truth = 3 * len(holes)

        def library() -> int:
            return len(trimesh.grouping.group_rows(np.sort(trimesh.geometry.faces_to_edges(mesh.faces), axis=1), 1))

        return {"numpy": lambda: reference.bad_edges(mesh.faces), "library": library,
                "kernel": lambda: measure.bad_edges(mesh)}  # fmt: skip

    def error(self, result: Any) -> float:
        return abs(float(result) - self.truth)
