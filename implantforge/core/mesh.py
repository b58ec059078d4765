"""A triangle surface in LPS mm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from implantforge.core.errors import GeometryError
from implantforge.core.space import Array, Pose, frozen


@dataclass(frozen=True, eq=False)
class Mesh:
    """vertices (n,3) float64 mm, faces (m,3) int32, counter-clockwise seen from outside."""

    vertices: Array
    faces: NDArray[np.int32]

    def __post_init__(self) -> None:
        object.__setattr__(self, "vertices", frozen(self.vertices, (-1, 3)))
        object.__setattr__(self, "faces", frozen(self.faces, (-1, 3), np.int32))
        if len(self.faces) and (self.faces.min() < 0 or self.faces.max() >= len(self.vertices)):
            raise GeometryError(f"mesh: face refers to vertex outside 0..{len(self.vertices) - 1}")

    @property
    def volume_mm3(self) -> float:
        """Signed volume by the divergence theorem; positive when faces look outward."""
        if not len(self.faces):
            return 0.0
        a, b, c = (self.vertices[self.faces[:, i]] - self.vertices[0] for i in range(3))
        return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6.0)

    @property
    def area_mm2(self) -> float:
        """Surface area."""
        return float(np.linalg.norm(self.face_cross, axis=1).sum() / 2.0)

    @property
    def face_cross(self) -> Array:
        """(m,3) outward normals, twice the face area long."""
        a, b, c = (self.vertices[self.faces[:, i]] for i in range(3))
        return np.cross(b - a, c - a)

    @property
    def bounds(self) -> Array:
        """(2,3) lowest and highest corner, mm."""
        return np.array([self.vertices.min(axis=0), self.vertices.max(axis=0)])

    def moved(self, pose: Pose) -> Mesh:
        """The same surface carried by a rigid pose."""
        return Mesh(pose.apply(self.vertices), self.faces)

    def mirrored_x(self) -> Mesh:
        """The mirror image in the plane x = 0, faces still outward. Named, so that no mirror is ever silent."""
        return Mesh(self.vertices * [-1.0, 1.0, 1.0], self.faces[:, ::-1])
