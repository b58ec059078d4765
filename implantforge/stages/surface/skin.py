"""Triangle skins as graphs: normals, bend, averages over neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from implantforge.core import Array

Faces = NDArray[np.int32]


class Skin:
    """Connectivity of a closed mesh whose vertices move: averages and normals are made from it."""

    def __init__(self, faces: Faces, count: int) -> None:
        """faces (m,3) int32 over count vertices."""
        self.faces, self.count = faces, count
        i, j = faces.ravel(), faces[:, [1, 2, 0]].ravel()
        link = sparse.csr_matrix((np.ones(len(i), np.float32), (i, j)), shape=(count, count))
        link = link + link.T
        link.data[:] = 1.0
        self.link = link.tocsr().astype(np.float64)
        self.degree = np.maximum(np.diff(self.link.indptr), 1).astype(np.float64)
        corner = sparse.csr_matrix(
            (np.ones(faces.size), (faces.ravel(), np.repeat(np.arange(len(faces)), 3))), shape=(count, len(faces))
        )
        self._corner = corner

    def mean(self, values: Array) -> Array:
        """Mean over the neighbours of each vertex, (n,) or (n,k)."""
        total = self.link @ values
        return total / (self.degree if values.ndim == 1 else self.degree[:, None])

    def normals(self, vertices: Array) -> Array:
        """Unit outward normals (n,3), weighted by area."""
        a, b, c = (vertices[self.faces[:, q]] for q in range(3))
        normal = self._corner @ np.cross(b - a, c - a)
        return normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)

    def bend(self, vertices: Array, normals: Array) -> Array:
        """Mean curvature (n,) 1/mm, positive where the body is convex: fall of the neighbours below the tangent plane,
        smoothed over three rings and limited to 1/3 mm."""
        inner = np.einsum("ij,ij->i", vertices, normals)
        fall = inner * self.degree - np.einsum("ij,ij->i", self.link @ vertices, normals)
        square = np.einsum("ij,ij->i", vertices, vertices)
        ring = square * self.degree + self.link @ square - 2 * np.einsum("ij,ij->i", vertices, self.link @ vertices)
        for _ in range(3):
            fall, ring = fall + self.link @ fall, ring + self.link @ ring
        return np.clip(2.0 * fall / np.maximum(ring, 1e-9), -0.33, 0.33)

    def spread(self, values: Array, weights: Array, rounds: int) -> Array:
        """Weighted mean of values (n,k) over the vertices around each, `rounds` steps of diffusion wide."""
        both = np.stack([values * weights, weights.astype(np.float64)]).reshape(2, len(values), -1)
        both = np.concatenate(list(both), axis=1)
        for _ in range(rounds):
            both = 0.5 * (both + (self.link @ both) / self.degree[:, None])
        width = both.shape[1] // 2
        return (both[:, :width] / np.maximum(both[:, width:], 1e-300)).reshape(values.shape)
