"""One bone of the lower-limb shape model: mean, modes of its own shape without pose and size, fragments to start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack
from scipy.spatial import cKDTree

from implantforge.core import Array
from implantforge.geom import shapemodel

LONG = ("femur", "tibia", "fibula")
NAMES = ("femur", "hip", "tibia", "fibula", "patella", "sacrum")
MODEL_NAME = {"femur": "femur_left", "hip": "hip_left", "tibia": "tibia_left", "fibula": "fibula_left",
               "patella": "patella_left", "sacrum": "sacrum"}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Fragment:
    """A part of the mean bone as the eye of a registration: centroid, axes (columns, longest first), spread (3,)."""

    label: str
    centre: Array
    axes: Array
    spread: Array


@dataclass(frozen=True, eq=False)
class Atlas:
    """The mean of a left bone, centred, in LPS mm; modes (k,n,3) are one standard deviation each.

    marks: landmarks that move with the shape, as mean (3,) and modes (k,3).
    """

    name: str
    mean: Array
    faces: NDArray[np.int32]
    modes: Array
    normals: Array
    area: Array
    origin: Array
    tree: cKDTree
    fragments: tuple[Fragment, ...] = field(repr=False)
    marks: Mapping[str, tuple[Array, Array]] = field(repr=False)

    def shape(self, weights: Array) -> Array:
        """Vertices (n,3) for weights in standard deviations."""
        return self.mean + np.tensordot(weights, self.modes, axes=1)

    @cached_property
    def _corners(self) -> csr_matrix:
        """Vertices by faces, one where they meet."""
        count = len(self.faces)
        return csr_matrix(
            (np.ones(3 * count), (self.faces.ravel(), np.repeat(np.arange(count), 3))), (len(self.mean), count)
        )

    def normals_of(self, shape: Array) -> Array:
        """Unit normals (n,3) of the bent bone."""
        corners = shape[self.faces]
        one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        cross = np.empty_like(one)
        for k in range(3):
            i, j = (k + 1) % 3, (k + 2) % 3
            cross[:, k] = one[:, i] * two[:, j] - one[:, j] * two[:, i]
        normals = self._corners @ cross
        out: Array = normals / np.maximum(np.sqrt(np.einsum("ij,ij->i", normals, normals)), 1e-12)[:, None]
        return out

    def mark(self, name: str, weights: Array) -> Array:
        """A landmark (3,) for weights in standard deviations."""
        mean, modes = self.marks[name]
        return mean + weights @ modes


def vertex_normals(vertices: Array, faces: NDArray[np.int32]) -> tuple[Array, Array]:
    """Unit normals (n,3) and the area (n,) mm2 each vertex stands for."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    cross = np.cross(b - a, c - a)
    flat, count = faces.ravel(), len(vertices)
    normals = np.stack([np.bincount(flat, np.repeat(cross[:, i], 3), count) for i in range(3)], axis=1)
    area = np.bincount(flat, np.repeat(np.linalg.norm(cross, axis=1) / 6.0, 3), count).astype(np.float64)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12), area


def spread_of(points: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Weighted centroid, principal axes (columns, longest first, right-handed) and standard deviations along them."""
    total = weight.sum()
    centre = weight @ points / total
    away = points - centre
    values, axes = np.linalg.eigh((away * weight[:, None]).T @ away / total)
    axes = axes[:, ::-1].copy()
    if np.linalg.det(axes) < 0:
        axes[:, 2] = -axes[:, 2]
    return centre, axes, np.sqrt(np.maximum(values[::-1], 1e-12))


def _fragments(name: str, mean: Array, area: Array) -> tuple[Fragment, ...]:
    out = [Fragment("whole", *spread_of(mean, area))]
    if name not in LONG:
        return tuple(out)
    # the model stands upright: z is the long axis
    top, length = mean[:, 2].max(), np.ptp(mean[:, 2])
    for share in (0.22, 0.32, 0.45, 0.6, 0.8):
        upper = mean[:, 2] > top - share * length
        lower = mean[:, 2] < top - (1 - share) * length
        out += [Fragment(f"proximal {share}", *spread_of(mean[upper], area[upper])),
                Fragment(f"distal {share}", *spread_of(mean[lower], area[lower]))]  # fmt: skip
    middle = (mean[:, 2] < top - 0.25 * length) & (mean[:, 2] > top - 0.75 * length)
    out.append(Fragment("shaft", *spread_of(mean[middle], area[middle])))
    return tuple(out)


@lru_cache(maxsize=16)
def mean(name: str, coarser: int = 2) -> Atlas:
    """The mean of a left `femur`, `hip`, `tibia`, `fibula` or `patella`, or of the sacrum, that does not bend."""
    model, bones = shapemodel.load(coarser)
    matrix, faces = bones[MODEL_NAME[name]]
    vertices = np.asarray(matrix @ model.mean)
    normals, area = vertex_normals(vertices, faces)
    origin = area @ vertices / area.sum()
    vertices = vertices - origin
    return Atlas(
        name, vertices, faces, np.zeros((0, len(vertices), 3)), normals, area, origin, cKDTree(vertices), (), {}
    )


def bending(still: Atlas, points: Mapping[str, tuple[str, int]]) -> Atlas:
    """The atlas with its modes: what bends the bone, without what moves, turns or scales the whole of it (registration
    finds that itself). points: landmark -> (bone, vertex of that bone's finest mesh)."""
    model, bones = shapemodel.load(2)
    _, fine = shapemodel.load(1)
    matrix = bones[MODEL_NAME[still.name]][0]
    raw = np.stack([np.asarray(matrix @ mode) * sd for mode, sd in zip(model.modes, model.sd)])
    rows = vstack([fine[MODEL_NAME[bone]][0][vertex] for bone, vertex in points.values()]) if points else None
    count = len(points)
    at = np.asarray(rows @ model.mean) - still.origin if rows is not None else np.zeros((0, 3))
    apart = (
        np.stack([np.asarray(rows @ mode) * sd for mode, sd in zip(model.modes, model.sd)])
        if rows is not None
        else (np.zeros((len(raw), 0, 3)))
    )
    basis, upper = np.linalg.qr(_rigid(still.mean))
    share = (raw.reshape(len(raw), -1) @ basis) @ np.linalg.inv(upper).T
    flat = raw.reshape(len(raw), -1) - share @ _rigid(still.mean).T
    apart = apart - (share @ _rigid(at).T).reshape(len(raw), count, 3)
    turn, size, _ = np.linalg.svd(flat, full_matrices=False)
    turn = turn[:, size > 1e-3 * size[0]].T
    modes = (turn @ flat).reshape(len(turn), -1, 3)
    own = np.tensordot(turn, apart, axes=1)
    marks = {name: (at[k], own[:, k]) for k, name in enumerate(points)}
    fragments = _fragments(still.name, still.mean, still.area)
    if still.name == "tibia":
        fragments += _with_fibula(still)
    return replace(still, modes=modes, marks=marks, fragments=fragments)


def _with_fibula(tibia: Atlas) -> tuple[Fragment, ...]:
    """The tibia with its fibula grown to it, whole and its upper and lower parts: the fibula turns the axes."""
    fibula = mean("fibula")
    points = np.concatenate([tibia.mean, fibula.mean + fibula.origin - tibia.origin])
    area = np.concatenate([tibia.area, fibula.area])
    top, length = points[:, 2].max(), np.ptp(points[:, 2])
    out = [Fragment("whole with fibula", *spread_of(points, area))]
    for share in (0.45, 0.7):
        upper, lower = points[:, 2] > top - share * length, points[:, 2] < top - (1 - share) * length
        out += [Fragment(f"proximal {share} with fibula", *spread_of(points[upper], area[upper])),
                Fragment(f"distal {share} with fibula", *spread_of(points[lower], area[lower]))]  # fmt: skip
    return tuple(out)


def _rigid(points: Array) -> Array:
    """(3n, 7) changes of points by small turns, shifts and growth."""
    turns = [np.cross(axis, points) for axis in np.eye(3)]
    shifts = [np.broadcast_to(axis, points.shape) for axis in np.eye(3)]
    return np.stack([*turns, *shifts, points]).reshape(7, -1).T
