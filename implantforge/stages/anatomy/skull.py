"""A skull: its plane of symmetry, how well the halves match, and what that says of the bone."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from implantforge.core import Anatomy, AnatomyError, Array, InputError, Mesh, Pose
from implantforge.stages.anatomy import register
from implantforge.stages.anatomy.atlas import spread_of

RMS_LIMIT_MM = 3.0
"""Halves further apart than this are no skull's; a defect in one half does not count, the better half of the gaps does."""
FRANKFORT = "the ear canals' upper rims and the orbits' lower rims are not found on this surface"


def measure(mesh: Mesh) -> Anatomy:
    """Mid-sagittal plane of a skull (whole, or a vault) by symmetry: frame `midsagittal` (x across it, origin on it),
    `symmetry_rms_mm` of the half of the surface that matches best and `symmetric_pct`, the share within 3 mm.

    Which way is front or up is not said: y is the skull's longest axis in the plane, z across it. AnatomyError when no
    plane maps the surface onto itself, InputError when it is hardly in mm.
    """
    body = register.main_body(mesh)
    size = float(np.linalg.norm(np.ptp(body.vertices, axis=0)))
    if not 80.0 <= size <= 500.0:
        raise InputError(f"skull: {size:.4g} from corner to corner, a skull measures 80-500 mm: save the mesh in mm")
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
    measures = {"symmetry_rms_mm": rms, "symmetric_pct": 100.0 * share}
    return Anatomy("skull", "left", {}, {"midsagittal": frame}, measures, {}, {"frankfort": FRANKFORT})


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
