"""The joint space of a hip, read along rays from the head's centre, also where it is narrow or gone.

Each ray gives the outer edge of the femoral head and, beyond it, the valley of HU before the pelvis begins. Where bone
lies on bone there is no valley: the head's edge is carried over from the rays around, because a head is a smooth, nearly
round body (0.5 mm: Menschik 1997, J Biomech 30:971), and the border runs along it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from implantforge.core import Array
from implantforge.stages.segment.heads import BONE_HU, Head

RAYS = 5000
STEP_MM = 0.3
REACH_MM = (-5.0, 11.0)
"""Rays are read from 5 mm inside the head's sphere to 11 mm outside: cartilage is 4.5 mm, the fossa up to 8 mm deep."""
SOFT_HU = 150.0
"""Flesh and joint fluid stay below; the spongy bone of a socket lies above."""
STIFFNESS = 120.0
"""Weight of the squared difference between a ray's radius and its neighbours' mean against that of one clear ray."""
SPREAD_DEG = 20.0
"""Fused patches up to twice this wide inside the socket are bridged: 20 degrees on a head of 24 mm is a patch of 220 mm2."""
NECK_DEG = 50.0
FUSED_DEG = 62.0
"""Nearer than this to the neck's axis bone outside the sphere may be the femur's own, and is not taken for a fused joint."""


@dataclass(frozen=True, eq=False)
class JointSpace:
    """Per ray: gap_mm, radius of the border between femur and pelvis, NaN where no pelvis lies beyond; soft_mm (2, n),
    the run of soft tissue around it, NaN where the bones' blur fills the gap. head is the refined sphere."""

    head: Head
    rays: Array
    gap_mm: Array
    soft_mm: Array


@dataclass(frozen=True, eq=False)
class _Read:
    """What the rays show: edge_mm and valley_mm (n,) radii, weight (n,) 0..1 of a valley before bone, free (n,) leaves the
    head into soft tissue, bone beyond or not, soft_mm (2, n), closed (n,) bone all along."""

    edge_mm: Array
    valley_mm: Array
    weight: Array
    free: NDArray[np.bool_]
    soft_mm: Array
    closed: NDArray[np.bool_]


def joint_space(smooth: NDArray[np.float32], spacing_mm: Array, head: Head, lateral: float) -> JointSpace:
    """The border between head and socket on a sphere of rays. lateral is +1 for a left hip, -1 for a right one."""
    rays = directions(RAYS)
    tree = cKDTree(rays)
    around = tree.query(rays, k=7)[1][:, 1:]
    bend = _bending(around)
    for _ in range(6):
        found = _read(smooth, spacing_mm, head, rays)
        neck = _neck(rays, found.closed, lateral)
        away = rays @ neck < np.cos(np.radians(NECK_DEG))
        head = _sphere(head, rays, found, away)
    found = _read(smooth, spacing_mm, head, rays)
    edge, weight = _head_edge(found, away, head.radius_mm, bend)
    clear = (weight > 0.2) & (found.weight > 0.2)
    fused = _bone_outside(smooth, spacing_mm, head, rays, edge) & (rays @ neck < np.cos(np.radians(FUSED_DEG)))
    covered = _closed((clear & away) | fused, rays, tree) & away
    # rays that show neither a valley nor bone beyond look past the socket: nothing of the head may lie outside there
    border = np.where(clear, np.maximum(found.valley_mm, edge), np.where(fused, edge, edge + 1.5))
    soft = np.where(clear & covered, found.soft_mm, np.nan)
    return JointSpace(head, rays, np.where(covered, border, np.nan), soft)


def directions(count: int) -> Array:
    """Unit vectors (count, 3), evenly spread over the sphere on a Fibonacci spiral."""
    n = np.arange(count) + 0.5
    z = 1.0 - 2.0 * n / count
    turn = np.pi * (1.0 + np.sqrt(5.0)) * n
    ring = np.sqrt(1.0 - z**2)
    return np.stack([ring * np.cos(turn), ring * np.sin(turn), z], axis=1)


def _read(smooth: NDArray[np.float32], spacing_mm: Array, head: Head, rays: Array) -> _Read:
    """Profiles along the rays, and what they show."""
    radii = head.radius_mm + np.arange(*REACH_MM, STEP_MM)
    at = (head.at_mm + rays[:, None, :] * radii[:, None]) / spacing_mm
    profile = ndimage.map_coordinates(smooth, at.reshape(-1, 3).T, order=1, mode="nearest").reshape(len(rays), -1)
    count = len(radii)
    order = np.arange(count)
    plate = profile[:, : round((2.0 - REACH_MM[0]) / STEP_MM)].argmax(axis=1)
    peak = np.take_along_axis(profile, plate[:, None], 1)
    beyond = order > plate[:, None]
    masked = np.where(beyond, profile, np.inf)
    lowest = np.minimum.accumulate(masked, axis=1)
    rise = (profile > 1.25 * lowest + 40.0) & (profile > BONE_HU) & (lowest < 0.8 * peak - 20.0) & beyond
    seen = rise.any(axis=1) & (peak[:, 0] > BONE_HU)
    end = np.where(seen, rise.argmax(axis=1), count)
    valley = np.where(order < end[:, None], masked, np.inf).argmin(axis=1)
    floor = np.take_along_axis(profile, valley[:, None], 1)
    half = 0.5 * (peak + floor)
    below = (profile < half) & beyond
    after = np.maximum(below.argmax(axis=1), 1)
    rows = np.arange(len(rays))
    high, low = profile[rows, after - 1], profile[rows, after]
    edge = radii[after - 1] + STEP_MM * np.clip((high - half[:, 0]) / np.maximum(high - low, 1e-3), 0.0, 1.0)
    depth = 1.0 - (floor[:, 0] - SOFT_HU) / np.maximum(peak[:, 0] - SOFT_HU, 1.0)
    weight = np.where(seen, np.clip(depth, 0.0, 1.0), 0.0)
    soft = _soft_run(profile, radii, valley, weight > 0)
    free = (peak[:, 0] > BONE_HU) & (floor[:, 0] < SOFT_HU)
    return _Read(edge, radii[valley], weight, free, soft, (profile > BONE_HU).all(axis=1))


def _bone_outside(
    smooth: NDArray[np.float32], spacing_mm: Array, head: Head, rays: Array, edge: Array
) -> NDArray[np.bool_]:
    """Rays (n,) that are still in bone 1.2 mm outside the head's edge."""
    at = (head.at_mm + rays * (edge[:, None] + 1.2)) / spacing_mm
    found: NDArray[np.bool_] = ndimage.map_coordinates(smooth, at.T, order=1, mode="nearest") > BONE_HU
    return found


def _soft_run(profile: NDArray, radii: Array, index: NDArray, seen: NDArray[np.bool_]) -> Array:
    """Radii (2, n) between which the ray stays below BONE_HU around the valley; NaN where it never does."""
    count = profile.shape[1]
    bone = profile >= BONE_HU
    order = np.arange(count)
    inner = np.where(bone & (order <= index[:, None]), order, -1).max(axis=1) + 1
    outer = np.where(bone & (order >= index[:, None]), order, count).min(axis=1) - 1
    run = np.stack([radii[np.clip(inner, 0, count - 1)], radii[np.clip(outer, 0, count - 1)]])
    return np.where(~seen | (outer < inner), np.nan, run)


def _neck(rays: Array, closed: NDArray[np.bool_], lateral: float) -> Array:
    """Unit direction of the neck: the middle of the rays that never leave bone, lateral of and below the centre."""
    guess = np.array([0.75 * lateral, 0.1, -0.65])
    mine = closed & (rays @ guess > 0.5)
    axis = guess if mine.sum() < 50 else rays[mine].mean(axis=0) + 0.15 * guess
    return axis / np.linalg.norm(axis)


def neck_side(smooth: NDArray[np.float32], spacing_mm: Array, head: Head) -> float:
    """Which way along x the neck leaves the head: positive to the left, 0 where no neck is seen."""
    rays = directions(RAYS)
    closed = _read(smooth, spacing_mm, head, rays).closed & (rays[:, 2] < 0.2)
    return float(rays[closed, 0].mean()) if closed.sum() >= 50 else 0.0


def _sphere(head: Head, rays: Array, found: _Read, away: NDArray[np.bool_]) -> Head:
    """The sphere through the head's edge where rays leave it into soft tissue, outliers weighed down (Geman-McClure)."""
    use = found.free & away & (np.abs(found.edge_mm - head.radius_mm) < 4.0)
    if use.sum() < 0.1 * len(rays):
        return head
    points = rays[use] * found.edge_mm[use, None]
    system = np.c_[2.0 * points, np.ones(len(points))]
    right = (points**2).sum(axis=1)
    trust = np.ones(len(points))
    for _ in range(12):
        x = np.linalg.lstsq(system * trust[:, None], right * trust, rcond=None)[0]
        radius = float(np.sqrt(max(x[3] + x[:3] @ x[:3], 1.0)))
        off = np.linalg.norm(points - x[:3], axis=1) - radius
        trust = 1.0 / (1.0 + off**2)
    if np.linalg.norm(x[:3]) > 4.0 or not 15.0 < radius < 33.0:
        return head
    return replace(head, at_mm=head.at_mm + x[:3], radius_mm=radius)


def _bending(around: NDArray) -> sparse.csr_matrix:
    """Sum of squared differences between a ray's value and its neighbours' mean, as a matrix."""
    count, near = around.shape
    rows = np.repeat(np.arange(count), near)
    mean = sparse.csr_matrix((np.full(count * near, 1.0 / near), (rows, around.ravel())), shape=(count, count))
    lap = sparse.identity(count) - mean
    return (lap.T @ lap).tocsr()


def _head_edge(found: _Read, away: NDArray[np.bool_], radius_mm: float, bend: sparse.csr_matrix) -> tuple[Array, Array]:
    """Smooth radius (n,) of the head's outer edge, and each ray's weight once rays that contradict it are let go."""
    off = found.edge_mm - radius_mm
    base = np.where(away, np.where(found.free, 1.0, found.weight), 0.0)
    smooth = np.zeros_like(off)
    for _ in range(6):
        # where bone lies on bone the edge seen is the far side of both plates: errors point outward
        odd = (off - smooth) / np.where(off > smooth, 0.6, 1.0)
        weight = base / (1.0 + odd**2) ** 2
        system = sparse.diags(weight + 0.02) + STIFFNESS * bend
        factor = splu(system.tocsc(), "MMD_AT_PLUS_A", 0.0, options={"SymmetricMode": True})
        smooth = factor.solve(weight * off)
    return radius_mm + smooth, weight


def _closed(mask: NDArray[np.bool_], rays: Array, tree: cKDTree) -> NDArray[np.bool_]:
    """Morphological closing of a set of rays by SPREAD_DEG."""
    chord = 2.0 * np.sin(np.radians(SPREAD_DEG) / 2.0)
    if not mask.any():
        return mask
    wide = cKDTree(rays[mask]).query(rays)[0] < chord
    if wide.all():
        return wide
    return cKDTree(rays[~wide]).query(rays)[0] >= chord


def shell(
    space: JointSpace, shape: tuple[int, ...], spacing_mm: Array
) -> tuple[tuple[slice, ...], Array, Array, Array]:
    """A window of the image around the head and, per voxel of it, radius, border radius and soft run (2, ...) in mm."""
    head = space.head
    reach = head.radius_mm + REACH_MM[1]
    lo = np.maximum(np.floor((head.at_mm - reach) / spacing_mm).astype(int), 0)
    hi = np.minimum(np.ceil((head.at_mm + reach) / spacing_mm).astype(int) + 1, shape)
    axes = np.meshgrid(*[np.arange(a, b) * s - c for a, b, s, c in zip(lo, hi, spacing_mm, head.at_mm)], indexing="ij")
    place = np.stack(axes, axis=-1)
    radius = np.linalg.norm(place, axis=-1)
    window = tuple(slice(a, b) for a, b in zip(lo, hi))
    gap, soft = np.full(radius.shape, np.nan), np.full((2, *radius.shape), np.nan)
    near = (radius > head.radius_mm + REACH_MM[0] - 2.0) & (radius < reach)
    ray = cKDTree(space.rays).query(place[near] / radius[near, None])[1]
    gap[near], soft[:, near] = space.gap_mm[ray], space.soft_mm[:, ray]
    return window, radius, gap, soft
