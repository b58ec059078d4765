"""A registered bone: its landmarks carried to the surface that was given, or refused where it does not show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.spatial import cKDTree

from implantforge.core import Array, Landmark, Mesh, Pose
from implantforge.stages.anatomy import edges, marks
from implantforge.stages.anatomy.atlas import vertex_normals
from implantforge.stages.anatomy.register import Cloud, Match, sample

LOST_MM = 8.0
"""A landmark further than this from the surface is cut off or lies over a hole."""
SLID_MM = 2.5
"""So is one that the nearest surface misses by more than this sideways, that is across the normal it should have, where the
surface ends: on a whole bone the model is that far out."""
FACE_MM, FLAT = 10.0, 0.25
"""A cut's face: this share of the surface that near lies in one plane within 4 deg. Of bone 0.00-0.10 does."""
BESIDE_MM, BESIDE_SHARE = 8.0, 0.12
"""A landmark this near an open edge is less sure by this share of how much nearer it is. With holes of 8-24 mm at landmarks
of drawn bones those that are not refused are at most 0.9 mm off."""
INSIDE = ("_center", "neck_base", "shaft_below_trochanter")
"""Landmarks within the bone or a joint, not on the surface."""
GRAIN_MM = 0.5
"""How far triangles lie from the surface they stand for: a gap this small to the bent model is theirs, not the bone's."""


@dataclass(eq=False)
class Seen:
    """What was found so far on one bone, in patient LPS mm."""

    bone: str
    side: str
    mesh: Mesh
    cloud: Cloud
    match: Match
    landmarks: dict[str, Landmark] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    measures: dict[str, float] = field(default_factory=dict)
    frames: dict[str, Pose] = field(default_factory=dict)
    given: Mapping[str, Landmark] = field(default_factory=dict)
    notes: Mapping[str, float] = field(default_factory=dict)
    torn: Array = field(default_factory=lambda: np.zeros((0, 3)))

    def __post_init__(self) -> None:
        self.measures |= self.notes
        self.normals, self.area = vertex_normals(self.mesh.vertices, self.mesh.faces)
        self.shape = self.match.to_patient(self.match.model_shape())
        self.outward, _ = vertex_normals(self.match.model_shape(), self.match.atlas.faces)
        self.marks = marks.of(self.match.atlas.name)
        shown = 1.0 if self.match.seen is None else float(self.match.seen.mean())
        # the share of the bone that is cut off; the ends of a whole one count as unseen
        self.lost = max(0.0, 0.9 - shown)

    def anew(self, given: Mapping[str, Landmark]) -> Seen:
        """The same bone, nothing found yet, with landmarks that stand in place of ours."""
        return replace(self, landmarks={}, refused={}, measures={}, frames={}, given=given)

    def add(self, name: str, at_mm: Array, sigma_mm: float, method: str) -> Array:
        """A landmark found, with its one-sigma uncertainty; where one is given, that one. Where it lies."""
        apart = self._torn_mm(at_mm)
        if apart < BESIDE_MM and not name.endswith(INSIDE):
            sigma_mm = float(np.hypot(sigma_mm, BESIDE_SHARE * (BESIDE_MM - apart)))
            method = f"{method}, {edges.BESIDE}"
        mine = Landmark(name, at_mm, round(float(sigma_mm), 3), method)
        self.landmarks[name] = self.given.get(name, mine)
        return self.landmarks[name].at_mm

    def take(self, *names: str) -> None:
        """The given ones of these landmarks, that ours may be missing of."""
        for name in names:
            if name in self.given:
                self.landmarks[name] = self.given[name]
                self.refused.pop(name, None)

    def at(self, name: str) -> Array | None:
        """Where a landmark lies, or None."""
        return self.landmarks[name].at_mm if name in self.landmarks else None

    def middle(self, one: str, other: str) -> float:
        """One sigma (mm) of the middle between two landmarks."""
        return float(np.hypot(self.landmarks[one].sigma_mm, self.landmarks[other].sigma_mm) / 2)

    def way(self, model_axis: Array) -> Array:
        """A direction of the model's left bone (x lateral, y back, z up) in the patient."""
        return self.match.turn(np.asarray(model_axis, float))

    def carry(self, name: str, share: float) -> None:
        """A landmark of the mean bone, carried by the bent model and laid on the surface; refused where there is none.

        share: one sigma in parts of how far the bone lies from the bent model (RMS mm), so that a bone unlike the model is
        less sure; measured on drawn bones, with all modes of the model and with half of them (`bench_anatomy`).
        """
        if name in self.given:
            self.take(name)
            return
        guess = self.guess(name)
        vertex = self.match.atlas.tree.query(self.match.atlas.marks[name][0])[1]
        out = self.match.turn(self.outward[vertex])
        found, normal = self.onto(guess, out)
        gap = float(np.linalg.norm(found - guess))
        agree = float(normal @ out)
        size = max(self.match.scale, 0.5)
        aside = float(np.linalg.norm((found - guess) - ((found - guess) @ out) * out))
        slid = gap > SLID_MM * size and aside > 0.8 * gap
        if gap > LOST_MM * size or (slid and self._ends(found, normal)):
            self.refused[name] = f"not on this surface: it should lie {gap:.0f} mm beyond it (cut off or a hole)"
        elif agree < 0.0:
            self.refused[name] = f"cut off: the surface {gap:.1f} mm from where it should lie is a cut face"
        else:
            # along the normal alone: on an edge the nearest point slides with the triangles. The bent model averages 15 mm
            # of the surface: where it lies within the grain of the triangles it is believed, else the surface is
            along, left = float((found - guess) @ out), 0.0
            if not slid:
                left = along * GRAIN_MM**2 / (along**2 + GRAIN_MM**2)
                found = guess + (along - left) * out
            sigma = float(np.hypot(share * max(gap, self.match.residual_mm), left))
            self.add(name, found, sigma * (1.0 + 0.9 * self.lost), "shape-model+surface")

    def _torn_mm(self, at_mm: Array) -> float:
        """How far the nearest open edge is."""
        return float(np.linalg.norm(self.torn - at_mm, axis=1).min()) if len(self.torn) else np.inf

    def _ends(self, at_mm: Array, normal: Array) -> bool:
        """Whether the surface ends near a point of it: at an open edge, or at a cut's flat face."""
        if self._torn_mm(at_mm) < LOST_MM:
            return True
        piece = near(self.mesh, at_mm, FACE_MM)
        area = np.linalg.norm(piece.face_cross, axis=1)
        flat = piece.face_cross @ normal > np.cos(np.radians(4.0)) * area
        return bool(area[flat].sum() > FLAT * area.sum())

    def guess(self, name: str) -> Array:
        """Where the bent model has a landmark, on the surface or not."""
        return self.match.to_patient(self.match.mark(name))

    def onto(self, point: Array, out: Array | None = None) -> tuple[Array, Array]:
        """The point of the surface nearest to a point, and the outward normal of its triangle. With `out` the other side
        of a thin edge does not count as near."""
        away = np.linalg.norm(self.mesh.vertices - point, axis=1)
        nearest = float(away.min())
        touched = (away < nearest + 8.0)[self.mesh.faces].any(axis=1)
        corners = self.mesh.vertices[self.mesh.faces[touched]]
        feet = closest(corners, point)
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        cost = np.linalg.norm(feet - point, axis=1)
        if out is not None:
            cost = cost + 4.0 * np.maximum(-normal @ out, 0.0)
        best = int(cost.argmin())
        return feet[best], normal[best]

    def dense(self, at_mm: Array, reach_mm: float, count: int = 5000) -> Cloud:
        """Points spread evenly over the surface within reach of a point: what is read from them hardly depends on the
        triangles."""
        return sample(near(self.mesh, at_mm, reach_mm), count)

    def shown(self, zone: str) -> float:
        """Share of a zone of the mean bone that the surface shows within 5 mm."""
        chosen = self.marks.zone[zone]
        points = self.shape[chosen]
        mine = self.cloud.points
        low, high = points.min(axis=0) - 8.0, points.max(axis=0) + 8.0
        near = mine[((mine > low) & (mine < high)).all(axis=1)]
        if not len(near):
            return 0.0
        gap = cKDTree(near).query(points)[0]
        return float((gap < 7.0 * max(self.match.scale, 0.5)).mean())


def near(mesh: Mesh, at_mm: Array, reach_mm: float) -> Mesh:
    """The faces with a vertex within reach of a point."""
    close = (np.linalg.norm(mesh.vertices - at_mm, axis=1) < reach_mm)[mesh.faces].any(axis=1)
    used = np.unique(mesh.faces[close])
    back = np.zeros(len(mesh.vertices), np.int32)
    back[used] = np.arange(len(used), dtype=np.int32)
    return Mesh(mesh.vertices[used], back[mesh.faces[close]])


def closest(corners: Array, point: Array) -> Array:
    """(n,3) points of triangles (n,3,3) nearest to a point (Ericson, Real-Time Collision Detection, 5.1.5)."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    ab, ac, ap = b - a, c - a, point - a

    def dot(u: Array, v: Array) -> Array:
        out: Array = np.einsum("ij,ij->i", u, v)
        return out

    # inside: barycentric foot on the plane; else the nearest of the three edges
    d00, d01, d11, d20, d21 = dot(ab, ab), dot(ab, ac), dot(ac, ac), dot(ap, ab), dot(ap, ac)
    under = np.maximum(d00 * d11 - d01 * d01, 1e-18)
    v, w = (d11 * d20 - d01 * d21) / under, (d00 * d21 - d01 * d20) / under
    best = a + v[:, None] * ab + w[:, None] * ac
    gap = ((best - point) ** 2).sum(axis=1)
    gap[(v < 0) | (w < 0) | (v + w > 1)] = np.inf
    for p, q in ((a, b), (b, c), (c, a)):
        edge = q - p
        t = (dot(point - p, edge) / np.maximum(dot(edge, edge), 1e-18)).clip(0, 1)
        foot = p + t[:, None] * edge
        mine = ((foot - point) ** 2).sum(axis=1)
        better = mine < gap
        best[better], gap[better] = foot[better], mine[better]
    return best
