"""Bone beside the box of a stabilised femoral component: how much each condyle keeps, and where the box leaves the bone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array, Mesh, Pose
from implantforge.geom.inside import inside
from implantforge.stages.knee.condyles import Shape, box_mm
from implantforge.stages.knee.sizes import FEMORAL_MM, Femoral

BESIDE_MM = 12.0
"""Least bone beside a box: half of what drawn knees keep (20-29 mm); narrow condyles break there (Lombardi 1995)."""
STEP_MM, ACROSS_MM = 1.5, 0.5


@dataclass(frozen=True, eq=False)
class Beside:
    """stations (n,2: y, z) on the walls of a box and a step around; right_mm, left_mm (n,): bone beyond the wall toward -x
    and +x of the component's frame, gaps not counted; kept (n,): the station lies on a wall in bone that the cuts leave."""

    stations: Array
    right_mm: Array
    left_mm: Array
    kept: NDArray[np.bool_]

    @property
    def least_mm(self) -> tuple[float, float]:
        """Least bone on the right and on the left of the box."""
        return float(self.right_mm[self.kept].min()), float(self.left_mm[self.kept].min())

    def flanked(self, points: Array) -> NDArray[np.bool_]:
        """Points (n,3) that have bone on both sides of the box: those lie in the notch, others have left the bone."""
        both = {tuple(key) for key in np.rint(self.stations[(self.right_mm > 0) & (self.left_mm > 0)] / STEP_MM)}
        keys, back = np.unique(np.rint(points[:, 1:] / STEP_MM), axis=0, return_inverse=True)
        return np.array([tuple(key) in both for key in keys], bool)[back.ravel()]


def beside(bone: Mesh, pose: Pose, size: Femoral, shape: Shape) -> Beside:
    """The bone that the five cuts and the box leave on each side of it, by lines across; shape has a housing."""
    assert shape.housing is not None
    low, high = shape.housing.bounds
    # whole steps, so that points find their station again
    axes = [np.arange(np.floor(a / STEP_MM), np.ceil(b / STEP_MM) + 1) * STEP_MM for a, b in zip(low[1:], high[1:])]
    places = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    middle = np.column_stack([np.zeros(len(places)), places])
    walls = np.maximum(np.maximum(shape.housing(middle), shape.kept(middle)), FEMORAL_MM - places[:, 1])
    near = walls < STEP_MM  # points at the rim find a station too
    places, walls, wide = places[near], walls[near], box_mm(size)[1]
    x = np.arange(wide + ACROSS_MM / 2, 0.75 * size.ml_mm, ACROSS_MM)
    counts = []
    for sign in (-1.0, 1.0):
        points = np.empty((len(places), len(x), 3))
        points[..., 0], points[..., 1:] = sign * x, places[:, None]
        flat = points.reshape(-1, 3)
        counts.append(inside(bone, pose.apply(flat)).reshape(len(places), -1).sum(axis=1) * ACROSS_MM)
    return Beside(places, counts[0], counts[1], walls < 0.0)
