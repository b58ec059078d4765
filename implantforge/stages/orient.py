"""Which way is up on the build plate: little support, none where it must not be, low height."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array, GeometryError, Mesh, Pose

SELF_SUPPORTING_DEG = 45.0  # facets at least this steep against the plate stand without support
_SUPPORT_DENSITY = 0.2  # solid share of a hatched support block
_STAND_OFF_MM = 5.0
# Shares of the whole (area, area, box) are weighed so that surface quality goes before build time, porous faces first.
_WEIGHT_FORBIDDEN = 4.0
_WEIGHT_OVERHANG = 4.0
_WEIGHT_HEIGHT = 0.2


def choose(
    mesh: Mesh,
    *,
    keep_clear: NDArray[np.bool_] | None = None,
    axes: Array | None = None,
    angle_deg: float = SELF_SUPPORTING_DEG,
) -> tuple[Array, dict[str, float]]:
    """The build direction (3,), a unit vector in the frame of the mesh that points off the plate, and its numbers.

    Candidates are both ways along `axes` (n,3) (default: the principal axes) and the 162 corners of an icosphere.
    keep_clear (m,) marks faces that take no support: porous surfaces, tapers. Equal scores go to the earlier candidate.
    """
    if not len(mesh.faces):
        raise GeometryError("orient: the part has no faces")
    if keep_clear is None:
        keep_clear = np.zeros(len(mesh.faces), bool)
    ways = _candidates(mesh, axes)
    cross = mesh.face_cross
    rows = [_numbers(mesh, cross, way, keep_clear, angle_deg) for way in ways]
    size = float(np.linalg.norm(mesh.bounds[1] - mesh.bounds[0]))
    scale = size * mesh.area_mm2 * _SUPPORT_DENSITY
    clear = max(float(np.linalg.norm(cross[keep_clear], axis=1).sum()) / 2.0, 1e-9)
    score = [
        row["support_volume_mm3"] / scale
        + _WEIGHT_OVERHANG * row["overhang_area_mm2"] / mesh.area_mm2
        + _WEIGHT_FORBIDDEN * row["support_on_clear_mm2"] / clear
        + _WEIGHT_HEIGHT * row["height_mm"] / size
        for row in rows
    ]
    best = int(np.argmin(np.round(score, 9)))
    return ways[best], {**rows[best], "candidates": float(len(ways))}


def measure(
    mesh: Mesh, way: Array, *, keep_clear: NDArray[np.bool_] | None = None, angle_deg: float = SELF_SUPPORTING_DEG
) -> dict[str, float]:
    """Numbers of one direction: height_mm, overhang_area_mm2 (faces turned down and flatter than angle_deg),
    support_on_clear_mm2, support_volume_mm3 (columns down to the plate, hatched)."""
    return _numbers(mesh, mesh.face_cross, np.asarray(way, float), keep_clear, angle_deg)


def _numbers(
    mesh: Mesh, cross: Array, way: Array, keep_clear: NDArray[np.bool_] | None, angle_deg: float
) -> dict[str, float]:
    down = cross @ way  # twice the area times the cosine against the build direction
    area = np.linalg.norm(cross, axis=1) / 2.0
    over = down < -np.cos(np.radians(angle_deg)) * 2.0 * area * (1 + 1e-9) - 1e-12
    height = mesh.vertices @ way
    low = float(height.min())
    middle = height[mesh.faces[over]].mean(axis=1) - low + _STAND_OFF_MM
    return {
        "height_mm": float(height.max()) - low,
        "overhang_area_mm2": float(area[over].sum()),
        "support_on_clear_mm2": 0.0 if keep_clear is None else float(area[over & keep_clear].sum()),
        "support_volume_mm3": float((-down[over] / 2.0 * middle).sum()) * _SUPPORT_DENSITY,
    }


def build_pose(mesh: Mesh, way: Array) -> Pose:
    """The rigid pose that stands the mesh on the plate: `way` turns to +z, longest horizontal side along x,
    and the part touches the three planes x = 0, y = 0, z = 0 from the positive side."""
    turn = _rotation_to_z(np.asarray(way, float) / np.linalg.norm(way))
    flat = (mesh.vertices @ turn.T)[:, :2]
    spin = _about_z(-_longest_side_rad(flat)) @ turn
    return Pose(spin, -(mesh.vertices @ spin.T).min(axis=0))


def hull_2d(points: Array) -> Array:
    """Corners of the convex hull of points (n,2), counter-clockwise."""
    from scipy.spatial import ConvexHull, QhullError

    try:
        return points[ConvexHull(points).vertices]
    except QhullError as error:
        raise GeometryError("orient: the part is flat when seen from above") from error


def _longest_side_rad(flat: Array) -> float:
    """Direction of the long side of the smallest box around points (n,2)."""
    hull = hull_2d(flat)
    edges = np.roll(hull, -1, axis=0) - hull
    best, angle = np.inf, 0.0
    for turn in np.unique(np.round(np.arctan2(edges[:, 1], edges[:, 0]) % (np.pi / 2), 9)):
        c, s = np.cos(turn), np.sin(turn)
        x, y = hull @ [c, s], hull @ [-s, c]
        width, depth = np.ptp(x), np.ptp(y)
        if width * depth < best - 1e-9:
            best, angle = width * depth, turn + (0.0 if width >= depth else np.pi / 2)
    return float(angle)


def _about_z(angle_rad: float) -> Array:
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _rotation_to_z(way: Array) -> Array:
    """The smallest turn that carries the unit vector `way` to +z."""
    axis = np.cross(way, [0.0, 0.0, 1.0])
    sine, cosine = float(np.linalg.norm(axis)), float(way[2])
    if sine < 1e-12:
        return np.eye(3) if cosine > 0 else np.diag([1.0, -1.0, -1.0])
    x, y, z = axis / sine
    k = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + sine * k + (1 - cosine) * k @ k


def _candidates(mesh: Mesh, axes: Array | None) -> Array:
    if axes is None:
        centred = mesh.vertices - mesh.vertices.mean(axis=0)
        axes = np.linalg.svd(centred.T @ centred)[0].T
        axes = axes * np.where(axes[np.arange(3), np.abs(axes).argmax(axis=1)] < 0, -1.0, 1.0)[:, None]
    axes = np.asarray(axes, float)
    axes = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    return np.concatenate([axes, -axes, _icosphere()])


def _icosphere() -> Array:
    """The 162 corners of an icosahedron split twice, on the unit sphere, in a fixed order."""
    g = (1 + 5**0.5) / 2
    corners = np.array([[s, t * g, 0.0] for s in (-1, 1) for t in (-1, 1)])
    points = np.concatenate([corners, corners[:, [2, 0, 1]], corners[:, [1, 2, 0]]]) / np.sqrt(1 + g * g)
    for longest_edge in (1.06, 0.63):
        gap = np.linalg.norm(points[:, None] - points[None], axis=2)
        first, second = np.nonzero(np.triu((gap > 1e-6) & (gap < longest_edge)))
        middle = points[first] + points[second]
        points = np.concatenate([points, middle / np.linalg.norm(middle, axis=1, keepdims=True)])
    return points
