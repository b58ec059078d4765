"""Knees drawn from the shape model with the landmarks of their corresponding points: whole legs, any pose, either side."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from implantforge.core import Anatomy, Array, Grid, Labels, Landmark, Mesh, Pose, Volume
from implantforge.geom import shapemodel
from implantforge.implants import Case
from implantforge.stages.anatomy import marks
from implantforge.stages.anatomy.atlas import mean as atlas_of
from implantforge.stages.anatomy.marks import ball


def true_points(kind: str, vertices: Array) -> dict[str, Array]:
    """Landmarks of a sample by its corresponding vertices."""
    mine, area = marks.of(kind, 1), atlas_of(kind, 1).area
    out = {name: vertices[index] for name, index in mine.vertex.items()}
    if kind == "femur":
        out["head_center"] = ball(vertices[mine.zone["head"]], area[mine.zone["head"]])[0]
        out["knee_center"] = (out["medial_epicondyle"] + out["lateral_epicondyle"]) / 2
    else:
        for part in ("medial", "lateral"):
            zone = mine.zone[f"{part}_plateau"]
            out[f"{part}_plateau"] = area[zone] @ vertices[zone] / area[zone].sum()
    return out


def draw(seed: int) -> tuple[str, dict[str, Mesh], dict[str, dict[str, Array]]]:
    """Side, bones and true landmarks of a seed."""
    rng = np.random.default_rng([seed, 605])
    shape, bones = shapemodel.load(1)
    nodes = shape.nodes(rng.standard_normal(len(shape.sd)).clip(-2.5, 2.5))
    side = "right" if seed % 2 else "left"
    pose = Pose(Rotation.from_rotvec(rng.normal(0.0, 0.3, 3)).as_matrix(), rng.uniform(-300.0, 300.0, 3))
    flip = np.array([-1.0 if side == "right" else 1.0, 1.0, 1.0])
    meshes, truth = {}, {}
    for kind in ("femur", "tibia"):
        matrix, faces = bones[f"{kind}_left"]
        mesh = Mesh(np.asarray(matrix @ nodes), faces)
        points = true_points(kind, mesh.vertices)
        if kind == "tibia":
            fibula = np.asarray(bones["fibula_left"][0] @ nodes)
            points["lateral_malleolus"] = fibula[fibula[:, 2].argmin()]
            points["ankle_center"] = (points["medial_malleolus"] + points["lateral_malleolus"]) / 2
        mesh = mesh.mirrored_x() if side == "right" else mesh
        meshes[f"{kind}_{side}"] = mesh.moved(pose)
        truth[f"{kind}_{side}"] = {name: pose.apply(at * flip) for name, at in points.items()}
    return side, meshes, truth


def empty() -> tuple[Volume, Labels]:
    """No CT: a speck far away."""
    grid = Grid(Pose(np.eye(3), np.full(3, 9e3)), np.ones(3), (2, 2, 2))
    return Volume(grid, np.zeros(grid.shape, np.int16)), Labels(grid, np.zeros(grid.shape, np.uint8), {})


def pages(side: Any, truth: dict[str, dict[str, Array]]) -> dict[str, Anatomy]:
    """Anatomy of the true landmarks."""
    return {
        bone: Anatomy(bone, side, {name: Landmark(name, at, 0.3, "truth") for name, at in points.items()})
        for bone, points in truth.items()
    }


def case(side: Any, meshes: dict[str, Mesh], found: dict[str, Anatomy]) -> Case:
    """A case without a CT."""
    return Case(side, *empty(), meshes, found)
