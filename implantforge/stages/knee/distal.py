"""A femur seen from a component's frame: lowest and hindmost points of its condyles, its front cortex, its width."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from implantforge.core import Array, Field, Mesh, Pose
from implantforge.geom import shapes

FIELD_MM, BAND_MM, REACH_MM, ASIDE_MM = 1.0, 4.0, 120.0, 56.0
GRAZING = 1.25
"""The side of a bone counts as steep within 37 deg (1 / cos) of square to the line across it."""
CONDYLE_MM = (8.0, 48.0)
"""How far aside of the middle a condyle lies."""
STEP_MM = 0.5


@dataclass(frozen=True, eq=False)
class Lines:
    """Lines across a bone: edges (n,2), lowest and highest x of the bone (nan without any); value (n,m) distance to the
    bone at x = -ASIDE_MM + STEP_MM i, negative inside, a lower bound of it beyond BAND_MM."""

    edges: Array
    value: Array

    def over(self, x: Array, side: int) -> Array:
        """How far metal that ends at x (n,) on side -1 (toward -x) or 1 hangs over, negative: stays short, mm. Along the
        line where the bone's side is steep; where the line grazes the bone, GRAZING times what lies under the edge."""
        along = (x - self.edges[:, 1]) if side > 0 else (self.edges[:, 0] - x)
        along = np.where(np.isnan(along), 2.0 * ASIDE_MM, along)
        at = np.clip((x + ASIDE_MM) / STEP_MM, 0, self.value.shape[1] - 1.001)
        i, row = at.astype(int), np.arange(len(x))
        off = self.value[row, i] + (at - i) * (self.value[row, i + 1] - self.value[row, i])
        return np.asarray(np.where(along > 0, np.minimum(along, GRAZING * np.maximum(off, 0.0)), along))


@dataclass(frozen=True, eq=False)
class Distal:
    """The lower end of a femur: vertices (n,3) and distance field, both in the frame `pose` (left, posterior, superior)."""

    pose: Pose
    vertices: Array
    field: Field

    def seen(self, pose: Pose) -> Array:
        """Vertices (n,3) in another patient-to-local frame."""
        return pose.inverse_apply(self.pose.apply(self.vertices))

    def inside(self, pose: Pose, points: Array) -> Array:
        """(n,) distance to the bone at points (n,3) of another frame, negative inside."""
        return np.asarray(self.field(self.pose.inverse_apply(pose.apply(points))))

    def lows(self, pose: Pose) -> tuple[Array, Array]:
        """Lowest points (3,) of the condyles on the right and on the left, in a frame."""
        local = self.seen(pose)
        rows = [_condyle(local, sign, 60.0) for sign in (-1.0, 1.0)]
        a, b = (own[own[:, 2].argmin()] for own in rows)
        return a, b

    def backs(self, pose: Pose) -> tuple[Array, Array]:
        """Hindmost points (3,) of the condyles on the right and on the left, in a frame."""
        local = self.seen(pose)
        rows = [_condyle(local, sign, 28.0) for sign in (-1.0, 1.0)]
        a, b = (own[own[:, 1].argmax()] for own in rows)
        return a, b

    def cortex_y(self, pose: Pose, height_mm: float, half_mm: float = 9.0) -> float:
        """How far back the front cortex begins at a height of a frame, within half_mm of the middle: its foremost point."""
        x = np.linspace(-half_mm, half_mm, 7)
        y = np.arange(-70.0, 20.0, STEP_MM)
        grid = np.stack(np.broadcast_arrays(x[:, None], y[None], height_mm), axis=-1).reshape(-1, 3)
        value = self.inside(pose, grid).reshape(len(x), len(y))
        first = [_crossing(y, row) for row in value if (row < 0).any()]
        return float(min(first)) if first else float("nan")

    def lines(self, pose: Pose, stations: Array) -> Lines:
        """The bone on lines along x through stations (n,2: y, z) of a frame."""
        x = np.arange(-ASIDE_MM, ASIDE_MM + STEP_MM / 2, STEP_MM)
        points = np.empty((len(stations), len(x), 3))
        points[..., 0] = x
        points[..., 1:] = stations[:, None]
        value = self.inside(pose, points.reshape(-1, 3)).reshape(len(stations), len(x))
        edges = np.full((len(stations), 2), np.nan)
        for row, line in enumerate(value):
            if (line < 0).any():
                edges[row] = _crossing(x, line), -_crossing(-x[::-1], line[::-1])
        return Lines(edges, value)


def _condyle(local: Array, sign: float, below: float) -> Array:
    aside = sign * local[:, 0]
    low = local[:, 2].min()
    return local[(aside > CONDYLE_MM[0]) & (aside < CONDYLE_MM[1]) & (local[:, 2] < low + below)]


def _crossing(at: Array, value: Array) -> float:
    """Where values first pass below zero, between samples."""
    i = int(np.argmax(value < 0))
    if i == 0:
        return float(at[0])
    share = value[i - 1] / (value[i - 1] - value[i])
    return float(at[i - 1] + share * (at[i] - at[i - 1]))


@lru_cache(maxsize=2)
def of(mesh: Mesh, pose: Pose) -> Distal:
    """The lower REACH_MM of a femur in its own frame. What is cut off above is left open: columns are counted from
    below. The last ones are remembered: a plan asks for the same bone more than once."""
    local = pose.inverse_apply(mesh.vertices)
    keep = (local[:, 2] < REACH_MM)[mesh.faces].any(axis=1)
    used = np.unique(mesh.faces[keep])
    back = np.zeros(len(local), np.int32)
    back[used] = np.arange(len(used), dtype=np.int32)
    part = Mesh(local[used], back[mesh.faces[keep]])
    return Distal(pose, np.asarray(part.vertices), shapes.from_mesh(part, FIELD_MM, BAND_MM))
