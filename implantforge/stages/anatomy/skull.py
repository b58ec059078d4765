"""A skull: its plane of symmetry, how well the halves match, and what that says of the bone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, cKDTree

from implantforge.core import Anatomy, AnatomyError, Array, InputError, Mesh, Pose
from implantforge.stages.anatomy import body as bodies
from implantforge.stages.anatomy import frankfort, register
from implantforge.stages.anatomy.atlas import spread_of
from implantforge.stages.anatomy.marks import ball

RMS_LIMIT_MM = 3.0
"""Halves further apart than this are no skull's; a defect in one half does not count, the better half of the gaps does."""
HOLLOW, DOMED, ROUND = 2.7, 0.5, 0.03
"""A vault: its convex hull holds 2.7 times its bone at least, half of the hull's curved part is its own surface, and it is
no ball (RMS from the best sphere 3 % of its radius). A real skull reaches 4.9, 0.84 and 0.10, pieces of it cut at three
heights 3.3-6.2, 0.61-1.00 and 0.16-0.28; two sacra 2.1 and 2.3, 0.56 and 0.60; a pelvis 5.2 and 0.22; a femur 3.4, 0.26."""


def measure(mesh: Mesh, given: Mapping[str, Array] | None = None) -> Anatomy:
    """Mid-sagittal plane of a skull (whole, or a vault) by symmetry: frame `midsagittal` (x across it, origin on it),
    `symmetry_rms_mm` of the half of the surface that matches best and `symmetric_pct`, the share within 3 mm.

    Which way is front or up is not said: y is the skull's longest axis in the plane, z across it. given: points that a
    person sets (`frankfort`), which make the frame `frankfort` and `porions_uneven_mm`; refused without. AnatomyError when
    no plane maps the surface onto itself or it is no vault, InputError when it is hardly in mm or for points that cannot be.
    """
    body, notes = bodies.one(mesh, "skull")
    size = float(np.linalg.norm(np.ptp(body.vertices, axis=0)))
    if not 80.0 <= size <= 500.0:
        raise InputError(f"skull: {size:.4g} from corner to corner, a skull measures 80-500 mm: save the mesh in mm")
    _a_skull(body, bodies.bone_mm3(mesh))
    cloud = register.sample(body, 4000)
    tree = cKDTree(cloud.points)
    few = cloud.every(500)
    centre, axes, _ = spread_of(cloud.points, np.ones(len(cloud.points)))
    found = [settled(few, tree, cloud, axes @ way, centre) for way in directions()]
    found.sort(key=lambda item: item[2])
    normal, at, rms, share = fine(cloud, tree, *found[0][:2])
    if rms > RMS_LIMIT_MM or share < 0.5:
        raise AnatomyError(
            f"skull: no plane of symmetry: the best leaves {rms:.1f} mm RMS (limit {RMS_LIMIT_MM}) and "
            f"{100 * share:.0f} % of the surface within 3 mm (50 % needed)"
        )
    flat = cloud.points - np.outer((cloud.points - at) @ normal, normal)
    _, inplane, _ = spread_of(flat, np.ones(len(flat)))
    y = inplane[:, 0] - (inplane[:, 0] @ normal) * normal
    y /= np.linalg.norm(y)
    frame = Pose(np.stack([normal, y, np.cross(normal, y)], axis=1), at)
    measures = {"symmetry_rms_mm": rms, "symmetric_pct": 100.0 * share} | notes
    frames = {"midsagittal": frame}
    many = register.sample(body, 40000).points
    marks = frankfort.checked(given or {}, many, normal, at)
    across = frankfort.plane(marks, many)
    if isinstance(across, str):
        return Anatomy("skull", "left", marks, frames, measures, {}, {"frankfort": across})
    left, right = (marks[name].at_mm for name in frankfort.PORIONS)
    uneven = frankfort.apart_mm(left, right, normal, at)
    return Anatomy(
        "skull", "left", marks, frames | {"frankfort": across}, measures | {"porions_uneven_mm": uneven}, {}, {}
    )


def _a_skull(body: Mesh, bone_mm3: float) -> None:
    """AnatomyError for a surface that has not a vault's shape."""
    hull = ConvexHull(body.vertices)
    hollow = hull.volume / max(bone_mm3, 1e-9)
    if hollow < HOLLOW:
        raise AnatomyError(
            f"skull: not a skull as far as the shape shows: solid, its convex hull holds {hollow:.1f} times its volume "
            f"({HOLLOW} at least): the bone with its cranial cavity is needed, not a filled head"
        )
    points, curved = _on_hull(hull)
    center, radius = ball(points, np.ones(len(points)))
    far = np.linalg.norm(points - center, axis=1)
    out_of_round = float(np.sqrt(np.mean((far - radius) ** 2))) / radius
    gap = cKDTree(register.sample(body, 40000).points).query(points[curved])[0]
    domed = float((gap < 4.0).mean()) if curved.sum() > 100 else 0.0
    if domed < DOMED:
        raise AnatomyError(
            f"skull: not a skull as far as the shape shows: {100 * domed:.0f} % of its convex hull's curved part is bone "
            f"({100 * DOMED:.0f} % at least): no vault"
        )
    if out_of_round < ROUND:
        raise AnatomyError(
            f"skull: not a skull: a ball, {100 * out_of_round:.1f} % out of round ({100 * ROUND:.0f} % at least)"
        )


def _on_hull(hull: ConvexHull) -> tuple[Array, NDArray[np.bool_]]:
    """4000 points spread over a convex hull by area, and which lie on its curved part: flat are sides that hold 6 % of it
    within 4 deg, a saw's cut or the end of a scan."""
    corners = hull.points[hull.simplices]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    k = np.arange(4000)
    face = np.searchsorted(np.cumsum(area) / area.sum(), (k + 0.5) / len(k) * (1 - 1e-9))
    r1, r2 = np.sqrt((0.5 + k * 0.7548776662466927) % 1.0), (0.5 + k * 0.5698402909980532) % 1.0
    share = np.stack([1 - r1, r1 * (1 - r2), r1 * r2], axis=1)
    ways = hull.equations[face, :3]
    flat = (ways @ ways.T > np.cos(np.radians(4.0))).mean(axis=1) > 0.06
    return np.einsum("ij,ijk->ik", share, corners[face]), ~flat


def directions() -> Array:
    """40 directions of a half sphere."""
    k = np.arange(40) + 0.5
    z, turn = k / 40, k * np.pi * (3 - np.sqrt(5))
    side = np.sqrt(1 - z * z)
    return np.column_stack([np.cos(turn) * side, np.sin(turn) * side, z])


def _mirrored(points: Array, normal: Array, at: Array) -> Array:
    return points - 2.0 * np.outer((points - at) @ normal, normal)


def settled(few: register.Cloud, tree: cKDTree, cloud: register.Cloud, normal: Array, at: Array,
             rounds: int = 15) -> tuple[Array, Array, float]:  # fmt: skip
    """A plane moved until the mirror image rests on the surface; the middle half of the gaps decides."""
    score = np.inf
    for _ in range(rounds):
        image = _mirrored(few.points, normal, at)
        far, near = tree.query(image)
        keep = far <= np.quantile(far, 0.7)
        score = float(far[keep].mean())
        # the plane that best halves the way from each point to its partner
        chord = few.points[keep] - cloud.points[near[keep]]
        middle = (few.points[keep] + cloud.points[near[keep]]) / 2
        new = np.linalg.eigh(chord.T @ chord - _wobble(middle))[1][:, -1]
        new = new * np.sign(new @ normal)
        at = middle.mean(axis=0)
        done = np.linalg.norm(new - normal) < 1e-7
        normal = new
        if done:
            break
    return normal, at, score


def _wobble(middle: Array) -> Array:
    away = middle - middle.mean(axis=0)
    out: Array = away.T @ away
    return out


def fine(cloud: register.Cloud, tree: cKDTree, normal: Array, at: Array) -> tuple[Array, Array, float, float]:
    """The plane at rest: its unit normal, a point on it, RMS of the half of the surface that matches best, share within
    3 mm."""
    normal, at, _ = settled(cloud, tree, cloud, normal, at, 30)
    for _ in range(40):
        normal, at, turn = _slid(cloud, tree, normal, at)
        if turn < 1e-7:
            break
    image = _mirrored(cloud.points, normal, at)
    far, near = tree.query(image)
    plane = np.abs(np.einsum("ij,ij->i", image - cloud.points[near], cloud.normals[near]))
    half = np.sort(plane)[: len(plane) // 2]
    return normal, at, float(np.sqrt(np.mean(half**2))), float((np.minimum(plane, far) < 3.0).mean())


def _slid(cloud: register.Cloud, tree: cKDTree, normal: Array, at: Array) -> tuple[Array, Array, float]:
    """One Gauss-Newton step of the plane on distances to tangent planes, and how far it turned (rad): surfaces that slide on
    themselves do not hold it back."""
    image = _mirrored(cloud.points, normal, at)
    far, near = tree.query(image)
    n = cloud.normals[near]
    gap = np.einsum("ij,ij->i", image - cloud.points[near], n)
    own = cloud.normals - 2.0 * np.outer(cloud.normals @ normal, normal)
    agree = np.einsum("ij,ij->i", own, n).clip(0, 1)
    scale = max(2.0 * float(np.median(np.abs(gap))), 0.5)
    weight = agree**2 / (1.0 + (gap / scale) ** 2) ** 2 * (far < 15.0)
    e, f = np.linalg.svd(normal[None])[2][1:]
    away = cloud.points - at
    depth = away @ normal
    columns = [-2.0 * ((away @ way) * (n @ normal) + depth * (n @ way)) for way in (e, f)] + [2.0 * (n @ normal)]
    jacobian = np.stack(columns, axis=1)
    left = (jacobian * weight[:, None]).T @ jacobian + 1e-9 * np.eye(3)
    step = -np.linalg.solve(left, (jacobian * weight[:, None]).T @ gap)
    new = normal + step[0] * e + step[1] * f
    return new / np.linalg.norm(new), at + step[2] * normal, float(np.hypot(step[0], step[1]))
