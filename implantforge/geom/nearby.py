"""How near two surfaces run, where a surface passes through itself, and simplification held to a measured bound."""

from __future__ import annotations

from threading import Lock
from typing import NamedTuple

import fast_simplification
import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array, Mesh
from implantforge.geom import measure
from implantforge.kernels import proximity

_ONE_AT_A_TIME = Lock()
"""The library keeps its mesh in variables of its module: two threads would simplify each other's."""


class _Cells(NamedTuple):
    low: Array
    size: float
    shape: NDArray[np.int64]
    boxes: NDArray[np.int32]
    held: NDArray[np.int32]
    start: NDArray[np.int64]


def _cells(corners: Array, margin: float) -> _Cells:
    """Triangles (m,3,3) sorted into cubes about two mean edges wide."""
    flat = corners.reshape(-1, 3)
    low = flat.min(axis=0) - margin - 1e-6
    extent = flat.max(axis=0) + margin + 1e-6 - low
    edge = float(
        np.sqrt(np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).mean())
    )
    size = max(1.5 * edge, 2 * margin, float(np.cbrt(extent.prod() / 2e7)), 1e-6)
    shape = np.maximum(np.ceil(extent / size).astype(np.int64), 1)
    boxes = np.empty((len(corners), 6), np.int32)
    proximity.cell_boxes(corners, low, size, shape, margin, boxes)
    start = np.zeros(int(shape.prod()) + 1, np.int64)
    proximity.count_cells(boxes, shape, start[1:])
    np.cumsum(start, out=start)
    held = np.empty(start[-1], np.int32)
    proximity.fill_cells(boxes, shape, start[:-1].copy(), held)
    return _Cells(low, size, shape, boxes, held, start)


def crossing_faces(mesh: Mesh) -> NDArray[np.bool_]:
    """(m,) faces that pass through, or fold flat onto, another face of the same mesh, with the first one found."""
    corners = np.ascontiguousarray(mesh.vertices[mesh.faces])
    cells = _cells(corners, 0.0)
    partner = np.empty(len(mesh.faces), np.int32)
    proximity.self_crossing(mesh.vertices, mesh.faces, cells.boxes, cells.held, cells.start, cells.shape, partner)
    out = partner >= 0
    out[partner[out]] = True
    return out


def distance_within(points_mm: Array, mesh: Mesh, limit_mm: float) -> Array:
    """(n,) distance of points (n,3) to the nearest triangle, limit_mm where that is further."""
    corners = np.ascontiguousarray(mesh.vertices[mesh.faces])
    cells = _cells(corners, limit_mm)
    out = np.empty(len(points_mm))
    points = np.ascontiguousarray(points_mm, np.float64)
    proximity.near_triangle(corners, cells.held, cells.start, cells.low, cells.size, cells.shape, points, limit_mm, out)
    return out


def apart_mm(fine: Mesh, coarse: Mesh, limit_mm: float) -> float:
    """Largest distance between two surfaces, limit_mm when it is further somewhere: vertices and middles of the fine
    one's faces against the coarse one, and ten points of each of the coarse one's faces against the fine one."""
    a, b, c = (fine.vertices[fine.faces[:, q]] for q in range(3))
    there = distance_within(np.concatenate([fine.vertices, (a + b + c) / 3]), coarse, limit_mm)
    a, b, c = (coarse.vertices[coarse.faces[:, q]] for q in range(3))
    middle = (a + b + c) / 3
    read = [coarse.vertices, middle, (a + b) / 2, (b + c) / 2, (c + a) / 2, *((middle + q) / 2 for q in (a, b, c))]
    back = distance_within(np.concatenate(read), fine, limit_mm)
    return float(max(there.max(), back.max()))


class Simplified(NamedTuple):
    """A mesh of fewer triangles, and the measured largest distance between it and the one it came from."""

    mesh: Mesh
    bound_mm: float


def simplify_within(mesh: Mesh, bound_mm: float) -> Simplified:
    """Fewest triangles found within bound_mm of the surface, both ways, closed and free of self-crossings as the mesh
    given was; the mesh itself when that cannot be had. Quadric edge collapse (Garland and Heckbert 1997)."""
    square = (0.9 * bound_mm) ** 2
    for _ in range(6 if bound_mm > 0 else 0):
        # the library's threshold is 1e-9 (round + 3)^aggressiveness in the 100th round; 2.4 mm2 a mm2 was measured
        eagerness = float(np.log(max(2.4e9 * square, 1e3)) / np.log(103.0))
        with _ONE_AT_A_TIME:
            points, faces = fast_simplification.simplify(
                np.array(mesh.vertices), np.array(mesh.faces), 0.95, agg=eagerness
            )
        if not len(faces):
            square *= 0.5
            continue
        out = Mesh(points, faces)
        bound = apart_mm(mesh, out, 3 * bound_mm)
        if bound <= bound_mm and measure.is_manifold(out) and not crossing_faces(out).any():
            return Simplified(out, bound)
        square *= min(0.8, (0.97 * bound_mm / bound) ** 2) if bound > bound_mm else 0.7
    return Simplified(mesh, 0.0)
