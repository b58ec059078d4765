"""A drawn patient's bones: femora seated in their sockets with a joint gap, each bone closed and clear of the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from implantforge.core import Array, GeometryError, Mesh, Pose
from implantforge.stages.phantoms import contact, model
from implantforge.stages.phantoms.distance import Float
from implantforge.stages.phantoms.solids import (
    BAND_MM,
    basis,
    cavity,
    common,
    field_of,
    normals,
    part,
    polygonise,
    smoothed,
    sphere,
)

SIDES = ("left", "right")
PELVIS = ("hip_left", "hip_right", "sacrum")
_CLEARANCE_MM = 2.1  # carved between pelvic bones; smoothing and meshing may take 0.5 of it
_FEMUR_CLEARANCE_MM = 2.4  # the same between femur and pelvis


@dataclass
class Bones:
    """meshes by name (LPS mm), cortex thickness (n,3) mm to (n,) mm by name, cavities, and what was drawn."""

    meshes: dict[str, Mesh]
    cortex: dict[str, Callable[[Array], Array]]
    femur: dict[str, FemurFrame]
    cavities: dict[str, Mesh] = field(default_factory=dict)
    drawn: dict[str, float] = field(default_factory=dict)


@dataclass
class FemurFrame:
    """Head centre and radius as planted, lesser trochanter, unit distal shaft axis; LPS mm."""

    head: Array
    radius: float
    trochanter: Array
    distal: Array

    def moved(self, pose: Pose) -> FemurFrame:
        """Carried by a rigid pose."""
        return FemurFrame(pose.apply(self.head), self.radius, pose.apply(self.trochanter), pose.rotation @ self.distal)

    def below(self, points: Array) -> Array:
        """Millimetres distal to the lesser trochanter, along the shaft."""
        return (points - self.trochanter) @ self.distal


@lru_cache(maxsize=1)
def landmarks() -> dict[str, NDArray]:
    """Vertex numbers on the mean bones: heads, cups and lesser trochanter keep their numbers in every sample."""
    shape, bones = model.load()
    mesh = Mesh(bones["femur_left"][0] @ shape.mean, bones["femur_left"][1])
    v, n = mesh.vertices, normals(mesh)
    up = v @ np.array([-1.0, 0.0, 1.0])
    head = up > up.max() - 35
    for _ in range(20):
        centre, radius = sphere(v[head])
        r = np.linalg.norm(v - centre, axis=1)
        head = (np.einsum("ij,ij->i", v - centre, n) > 0.95 * r) & (np.abs(r - radius) < 2.0)
    d = v - centre
    r = np.linalg.norm(d, axis=1)
    pole = -d[(r > 1.2 * radius) & (r < 1.7 * radius)].mean(axis=0)
    pole /= np.linalg.norm(pole)
    out: dict[str, NDArray] = {"head": np.flatnonzero((np.abs(r - radius) < 4) & (d @ pole > 0.0))}
    z = v[:, 2]
    shaft = (z > z.max() - 200) & (z < z.max() - 120)
    middle = v[shaft].mean(axis=0)
    zone = np.flatnonzero((z < centre[2] - 35) & (z > centre[2] - 75) & (v[:, 1] > middle[1]) & (v[:, 0] < middle[0]))
    out["trochanter"] = zone[np.argmax(np.linalg.norm((v[zone] - middle)[:, :2], axis=1))][None]
    for side in SIDES:
        matrix, faces = bones[f"hip_{side}"]
        hip = Mesh(matrix @ shape.mean, faces)
        start = centre if side == "left" else centre * [-1, 1, 1] + [2 * float(_middle(shape.mean)), 0, 0]
        out[f"cup_{side}"] = _cup(hip, start)
    return out


def _middle(mean: Array) -> float:
    """x of the midline of the mean pelvis."""
    return float((mean[:1946, 0].min() + mean[:1946, 0].max()) / 2)


def _cup(hip: Mesh, start: Array) -> NDArray:
    """Vertex numbers of the lunate surface near a guessed hip centre."""
    v, n = hip.vertices, normals(hip)
    cup = (np.linalg.norm(v - start, axis=1) < 38) & (np.einsum("ij,ij->i", start - v, n) > 12)
    for _ in range(30):
        centre, radius = sphere(v[cup])
        r = np.linalg.norm(v - centre, axis=1)
        cup = (np.abs(r - radius) < 3) & (np.einsum("ij,ij->i", centre - v, n) > 0.9 * r)
    return np.flatnonzero(cup)


def _toward_sphere(v: Array, chosen: NDArray, centre: Array, radius: float, reach_mm: float) -> Array:
    """Chosen vertices moved radially onto the sphere, the rest following smoothly within about reach_mm."""
    near = np.flatnonzero(np.linalg.norm(v - centre, axis=1) < 2.0 * radius)
    out = v.copy()
    weight = np.exp(-0.5 * ((v[near, None] - v[None, chosen]) ** 2).sum(axis=2) / reach_mm**2)
    weight /= (weight.sum(axis=1) + 0.3)[:, None]
    for _ in range(6):
        d = out[chosen] - centre
        r = np.linalg.norm(d, axis=1, keepdims=True)
        out[near] += weight @ (d / r * (radius - r))
    return out


def _thickened(mesh: Mesh, least_mm: float) -> Mesh:
    """Walls thinner than least_mm, or turned inside out by the sampling, pushed apart along their normals."""
    v, n = mesh.vertices, normals(mesh)
    distance, near = cKDTree(v).query(v, k=40, distance_upper_bound=3 * least_mm, workers=2)
    found = np.isfinite(distance)
    near = np.where(found, near, 0)
    gap = v[:, None] - v[near]
    depth = np.einsum("ikj,ij->ik", gap, n)
    aside = np.sqrt(np.maximum((gap**2).sum(axis=2) - depth**2, 0))
    aside[~found | (np.einsum("ikj,ij->ik", n[near], n) > -0.7) | (aside > 4.0)] = np.inf
    opposite = np.argmin(aside, axis=1)
    rows = np.arange(len(v))
    push = np.where(np.isfinite(aside[rows, opposite]), (least_mm - depth[rows, opposite]) / 2, 0).clip(0)
    i, j = mesh.faces.ravel(), np.roll(mesh.faces, -1, axis=1).ravel()
    ring = csr_matrix((np.ones(len(i)), (i, j)), (len(v), len(v)))
    degree = np.asarray(ring.sum(axis=1)).ravel()
    for _ in range(6):
        push = np.maximum(push * 0.9, 0.5 * push + 0.5 * (ring @ push) / degree)
    return Mesh(v + push[:, None] * n, mesh.faces)


def _widened(v: Array, centre: Array, scale: float, radius: float) -> Array:
    """Space scaled about centre, fully out to 1.2 radius and not at all beyond 2.6 radius."""
    d = v - centre
    t = ((np.linalg.norm(d, axis=1) / radius - 1.2) / 1.4).clip(0, 1)
    fall = 1 - t * t * (3 - 2 * t)
    return centre + d * (1 + (scale - 1) * fall)[:, None]


def posed_femur(v: Array, marks: dict[str, NDArray], rng: np.random.Generator) -> tuple[Array, FemurFrame]:
    """A left femur with a round head at the origin, posed as in a supine patient: adduction, flexion, rotation."""
    centre, radius = sphere(v[marks["head"]])
    v = _toward_sphere(v, marks["head"], centre, radius, 2.5) - centre
    z, length = v[:, 2], np.ptp(v[:, 2])
    levels = [v[np.abs(z - (z.max() - f * length)) < 4].mean(axis=0) for f in np.linspace(0.3, 0.65, 15)]
    axis = np.linalg.svd(np.array(levels) - np.mean(levels, axis=0))[2][0]
    axis *= -np.sign(axis[2])
    low = v[v @ axis > (v @ axis).max() - 60]
    inner, outer = low[low[:, 0] < np.median(low[:, 0])], low[low[:, 0] >= np.median(low[:, 0])]
    condyles = outer[np.argmax(outer[:, 1])] - inner[np.argmax(inner[:, 1])]
    canonical = basis(-axis, condyles)  # x lateral along the condyles, z proximal
    adduct, flex, turn = rng.uniform(3, 8), rng.uniform(-3, 4), rng.uniform(-2, 14)
    # distal end goes medial, forward, toes outward
    pose = Rotation.from_euler("xyz", [-flex, adduct, 0], degrees=True).as_matrix()
    pose = pose @ Rotation.from_euler("z", -turn, degrees=True).as_matrix() @ canonical.T
    v = v @ pose.T
    return v, FemurFrame(np.zeros(3), radius, v[marks["trochanter"][0]], pose @ axis)


def _separate(fields: dict[str, tuple[NDArray, Float]]) -> None:
    """Pelvic bones yield to the femora; hips and sacrum share the loss. Any two end at least the clearance apart."""
    for i, a in enumerate(PELVIS):
        for b in PELVIS[i + 1 :]:
            part(fields[a], fields[b], _CLEARANCE_MM)
    for femur in ("femur_left", "femur_right"):
        for bone in PELVIS:
            views = common(fields[bone], fields[femur])
            if views is not None:
                views[0][:] = np.maximum(views[0], _FEMUR_CLEARANCE_MM - views[1])


def _raw(rng: np.random.Generator) -> tuple[dict[str, Mesh], dict[str, FemurFrame], dict[str, float]]:
    """Sampled and seated bones with the middle of both hip centres at the origin, still overlapping where they do."""
    shape, atlas = model.load()
    marks = landmarks()
    weights = rng.standard_normal(len(shape.sd)).clip(-2, 2)
    nodes = shape.nodes(weights)
    points = {name: atlas[name][0] @ nodes for name in PELVIS}
    centres = {side: sphere(points[f"hip_{side}"][marks[f"cup_{side}"]]) for side in SIDES}
    origin = (centres["left"][0] + centres["right"][0]) / 2
    frame = basis(centres["left"][0] - centres["right"][0], np.array([0.0, 1.0, 0.0]))
    level = np.stack([frame[:, 2], frame[:, 0], frame[:, 1]])  # rows: left, posterior, superior
    points = {name: (v - origin) @ level.T for name, v in points.items()}
    meshes, frames, drawn = {}, {}, {}
    for side in SIDES:
        own = (weights + 0.15 * rng.standard_normal(len(weights))).clip(-2, 2)
        femur, pose = posed_femur(atlas["femur_left"][0] @ shape.nodes(own), marks, rng)
        faces = atlas["femur_left"][1]
        if side == "right":
            flip = np.array([-1.0, 1.0, 1.0])
            femur, faces = femur * flip, faces[:, ::-1]
            pose = FemurFrame(pose.head, pose.radius, pose.trochanter * flip, pose.distal * flip)
        gap = float(rng.uniform(2.6, 3.6))
        centre = level @ (centres[side][0] - origin)
        cup, target = marks[f"cup_{side}"], pose.radius + gap
        hip = _widened(points[f"hip_{side}"], centre, target / centres[side][1], centres[side][1])
        hip = _toward_sphere(hip, cup, centre, target, 4.0)
        meshes[f"femur_{side}"] = Mesh(femur + centre, faces)
        meshes[f"hip_{side}"] = _thickened(Mesh(hip, atlas[f"hip_{side}"][1]), 3.6)
        frames[side] = pose.moved(Pose(np.eye(3), centre))
        drawn[f"joint_gap_planted_{side}_mm"] = gap
    meshes["sacrum"] = _thickened(Mesh(points["sacrum"], atlas["sacrum"][1]), 3.0)
    return meshes, frames, drawn


def draw(rng: np.random.Generator, mesh_mm: float, contact_mm2: float | None = None) -> Bones:
    """A patient's five bones and two femoral cavities in a random overall pose. GeometryError if a bone is lost.

    With contact_mm2 both femora are pressed up into their sockets until that area touches.
    """
    meshes, frames, drawn = _raw(rng)
    fields = {name: field_of(mesh, mesh_mm) for name, mesh in meshes.items()}
    for side in SIDES:
        socket = frames[side].radius + drawn[f"joint_gap_planted_{side}_mm"]
        cup = meshes[f"hip_{side}"].vertices[landmarks()[f"cup_{side}"]]
        _line_socket(*fields[f"hip_{side}"], mesh_mm, frames[side].head, socket, cup)
    _separate(fields)
    angles = rng.uniform(-4, 4, 3)
    pose = Pose(Rotation.from_euler("xyz", angles, degrees=True).as_matrix(), rng.uniform(-12, 12, 3))
    final = {}
    for name, (start, values) in fields.items():
        smooth = smoothed(values, 0.5 / mesh_mm) if name in PELVIS else values
        final[name] = polygonise(smooth, start, mesh_mm).moved(pose)
        if final[name].volume_mm3 < 0.5 * meshes[name].volume_mm3:
            raise GeometryError(f"{name}: {final[name].volume_mm3:.0f} mm3 left of {meshes[name].volume_mm3:.0f}")
    bones = Bones(final, {}, {side: frame.moved(pose) for side, frame in frames.items()}, drawn=drawn)
    if contact_mm2 is not None:
        press(bones, contact_mm2)
    give_cortex(bones, rng)
    for side in SIDES:
        femur = bones.meshes[f"femur_{side}"]
        bones.cavities[f"canal_{side}"] = cavity(femur, bones.cortex[f"femur_{side}"], mesh_mm)
    return bones


def press(bones: Bones, contact_mm2: float) -> None:
    """Both femora moved up and a little inward in `bones` until they lie on the pelvis over contact_mm2."""
    for side, inward in (("left", -0.35), ("right", 0.35)):
        way = np.array([inward, 0.1, 1.0])
        ball, socket = f"femur_{side}", f"hip_{side}"
        bones.meshes[ball], bones.meshes[socket], moved = contact.press(
            bones.meshes[ball], bones.meshes[socket], way, contact_mm2
        )
        shift = Pose(np.eye(3), moved * way / np.linalg.norm(way))
        bones.femur[side] = bones.femur[side].moved(shift)
        bones.drawn[f"contact_planted_{side}_mm2"] = contact_mm2


def _line_socket(start: NDArray, values: Float, h: float, centre: Array, radius: float, cup: Array) -> None:
    """Carve the socket's ball out of the hip and make the wall behind its joint surface at least 3 mm thick."""
    r = _ball(start, values.shape, h, centre)
    near = np.argwhere(r < radius + 6)
    from_cup = cKDTree(cup).query((near + start) * h, workers=2)[0]
    ring = r[tuple(near.T)]
    wall = np.maximum(np.abs(ring - radius - 1.6) - 1.6, from_cup - 6.0)
    here = values[tuple(near.T)]
    values[tuple(near.T)] = np.minimum(here, wall)
    np.maximum(values, (radius - 0.2 - r).clip(-BAND_MM, BAND_MM), out=values)


def _ball(start: NDArray, shape: tuple[int, ...], h: float, centre: Array) -> Float:
    """Distance of every lattice sample from a point."""
    x, y, z = (((np.arange(n) + s) * h - c) ** 2 for n, s, c in zip(shape, start, centre))
    return np.sqrt(x[:, None, None] + y[None, :, None] + z[None, None, :]).astype(np.float32)


def give_cortex(bones: Bones, rng: np.random.Generator) -> None:
    """Thickness of every bone's cortex: thin at the joints, thickest at the isthmus, whose canal is 10-14 mm wide."""
    for side in SIDES:
        frame = bones.femur[side]
        depth = np.arange(60.0, 191.0, 10.0)
        outer = np.array([_mean_radius(bones.meshes[f"femur_{side}"], frame, s) for s in depth])
        share = PchipInterpolator(
            [-300, -40, -15, 10, 35, 65, 110, 170, 240, 310, 600],
            [0.19, 0.19, 0.24, 0.34, 0.58, 0.83, 1.0, 0.88, 0.6, 0.2, 0.2],
        )
        width = float(rng.uniform(11.2, 14.0))
        thick = float(((outer - width / 2) / share(depth)).min().clip(4.5, 9.5))
        bones.cortex[f"femur_{side}"] = partial(_femoral, share, thick, frame)
    hip = float(rng.uniform(1.2, 1.7))
    heads = cKDTree(np.array([bones.femur[side].head for side in SIDES]))
    reach = max(bones.femur[side].radius for side in SIDES) + 8

    def pelvic(points: Array) -> Array:
        """Subchondral plate of the cup 0.5 mm thicker."""
        away = heads.query(points)[0]
        return hip + 0.5 * (1 - ((away - reach) / 10).clip(0, 1))

    bones.cortex |= {"hip_left": pelvic, "hip_right": pelvic, "sacrum": _sacral}


def _sacral(points: Array) -> Array:
    """Cortex of the sacrum at points."""
    return np.full(len(points), 1.1)


def _femoral(share: PchipInterpolator, thick: float, frame: FemurFrame, points: Array) -> Array:
    """Cortex of a femur at points, 1.1 mm at least."""
    return np.maximum(thick * share(frame.below(points).clip(-300, 600)), 1.1)


def _mean_radius(mesh: Mesh, frame: FemurFrame, below: float) -> float:
    """Mean distance (mm) of the shaft's outer surface from its middle at a depth below the lesser trochanter."""
    v = mesh.vertices
    ring = v[np.abs(frame.below(v) - below) < 2.5]
    radial = ring - ring.mean(axis=0)
    radial -= np.outer(radial @ frame.distal, frame.distal)
    return float(np.linalg.norm(radial, axis=1).mean())
