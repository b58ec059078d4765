"""Bones drawn from the shape model with the truth of their own corresponding points: whole or cut, any pose, either side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import manifold3d
import numpy as np
from scipy.spatial.transform import Rotation

from implantforge.core import Array, Mesh, Pose
from implantforge.geom import shapemodel
from implantforge.stages.anatomy import marks
from implantforge.stages.anatomy.atlas import mean as atlas_of
from implantforge.stages.anatomy.atlas import vertex_normals
from implantforge.stages.anatomy.marks import ball

MODEL = {"femur": "femur_left", "hip": "hip_left", "tibia": "tibia_left", "fibula": "fibula_left",
         "patella": "patella_left", "sacrum": "sacrum"}  # fmt: skip


@dataclass
class Drawn:
    """A bone as given to the program, and what is known of it: truth in the same coordinates."""

    mesh: Mesh
    kind: str
    side: str
    part: str
    share: float
    points: dict[str, Array]
    up: Array


def cut(mesh: Mesh, normal: Array, beyond: float, capped: bool) -> Mesh:
    """What lies beyond a plane: closed by a flat face, or open with torn edges."""
    if capped:
        body = manifold3d.Manifold(manifold3d.Mesh64(mesh.vertices.copy(), mesh.faces.astype(np.uint64)))
        if body.status() == manifold3d.Error.NoError and not body.is_empty():
            left = body.trim_by_plane(normal, float(beyond)).to_mesh64()
            return Mesh(np.asarray(left.vert_properties)[:, :3], np.asarray(left.tri_verts).astype(np.int32))
    return compact(mesh, ((mesh.vertices @ normal > beyond)[mesh.faces]).all(axis=1))


def compact(mesh: Mesh, keep: Array) -> Mesh:
    """The chosen faces and their own vertices."""
    used = np.unique(mesh.faces[keep])
    back = np.zeros(len(mesh.vertices), np.int32)
    back[used] = np.arange(len(used), dtype=np.int32)
    return Mesh(mesh.vertices[used], back[mesh.faces[keep]])


def truth_points(kind: str, vertices: Array) -> dict[str, Array]:
    """The model's own corresponding points of a sample: vertices by number, the head's sphere by least squares."""
    mine = marks.of(kind, 1)
    out = {name: vertices[index] for name, index in mine.vertex.items()}
    area = atlas_of(kind, 1).area
    if kind == "femur":
        zone = mine.zone["head"]
        out["head_center"] = ball(vertices[zone], area[zone])[0]
    if kind == "hip":
        zone = mine.zone["cup"]
        out["acetabulum_center"] = ball(vertices[zone], area[zone])[0]
    return out


def bumpy(mesh: Mesh, rng: np.random.Generator, count: int) -> Mesh:
    """The surface with `count` round bumps of 1-4 mm height and 5-12 mm width at random places: osteophytes."""
    normals, _ = vertex_normals(mesh.vertices, mesh.faces)
    lift = np.zeros(len(mesh.vertices))
    for at in mesh.vertices[rng.integers(0, len(mesh.vertices), count)]:
        away = np.linalg.norm(mesh.vertices - at, axis=1)
        lift = np.maximum(lift, rng.uniform(1.0, 4.0) * np.exp(-0.5 * (away / rng.uniform(2.5, 6.0)) ** 2))
    return Mesh(mesh.vertices + lift[:, None] * normals, mesh.faces)


def draw(rng: np.random.Generator, kind: str = "femur", part: str | None = None, side: str | None = None,
         bumps: int = 0, size: float = 1.0) -> Drawn:  # fmt: skip
    """A sample of the model; part: whole, proximal, distal, or drawn; cut between 20 and 90 % of the length. bumps: how
    many osteophytes; size: of the whole bone, below 1 a child's."""
    shape, bones = shapemodel.load(1)
    weights = rng.standard_normal(len(shape.sd)).clip(-2.5, 2.5)
    matrix, faces = bones[MODEL[kind]]
    full = Mesh(size * np.asarray(matrix @ shape.nodes(weights)), faces)
    points, share = truth_points(kind, full.vertices), 1.0
    full = bumpy(full, rng, bumps) if bumps else full
    mesh = full
    if part is None:
        part = str(rng.choice(["whole", "proximal", "distal"], p=[0.4, 0.35, 0.25]))
    if part != "whole":
        tilt = Rotation.from_rotvec(np.radians(rng.uniform(-8.0, 8.0, 3))).as_matrix()
        share = float(rng.uniform(0.2, 0.9))
        normal = tilt @ np.array([0.0, 0.0, 1.0 if part == "proximal" else -1.0])
        height = full.vertices @ normal
        mesh = cut(full, normal, height.max() - share * np.ptp(height), bool(rng.random() < 0.5))
    if side is None:
        side = "right" if rng.random() < 0.5 else "left"
    if side == "right":
        mesh = mesh.mirrored_x()
        points = {name: at * [-1.0, 1.0, 1.0] for name, at in points.items()}
    pose = Pose(Rotation.random(random_state=rng).as_matrix(), rng.uniform(-800.0, 800.0, 3))
    points = {name: pose.apply(at) for name, at in points.items()}
    return Drawn(mesh.moved(pose), kind, side, part, share, points, pose.rotation[:, 2])


def spoiled(rng: np.random.Generator) -> tuple[str, Mesh, str]:
    """(how, mesh, name given) of a bone that must be refused."""
    how = str(rng.choice(["other side", "metres", "inches", "wrong bone", "shaft only", "centimetres"]))
    if how == "wrong bone":
        kind = str(rng.choice(["tibia", "hip", "fibula", "patella", "sacrum"]))
        wrong = draw(rng, kind, None if kind in ("tibia", "fibula") else "whole")
        return f"{how}: {kind} {wrong.part} {wrong.share:.2f}", wrong.mesh, f"femur_{wrong.side}"
    given = draw(rng)
    name: Any = f"femur_{given.side}"
    if how == "other side":
        return (
            f"{how}: {given.part} {given.share:.2f}",
            given.mesh,
            "femur_left" if given.side == "right" else "femur_right",
        )
    if how == "shaft only":
        whole = draw(rng, part="whole")
        height = whole.mesh.vertices @ whole.up
        low, high = np.quantile(height, 0.0) + np.ptp(height) * np.array([0.25, 0.75])
        middle = cut(cut(whole.mesh, whole.up, float(low), True), -whole.up, float(-high), False)
        return how, middle, f"femur_{whole.side}"
    factor = {"metres": 1e-3, "inches": 1 / 25.4, "centimetres": 0.1}[how]
    return how, Mesh(given.mesh.vertices * factor, given.mesh.faces), name
