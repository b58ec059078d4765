"""From any storage order to the one canonical order: index axes near +L, +P, +S, never mirrored."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array, Grid, InputError, Labels, Pose

Turn = tuple[tuple[int, int, int], tuple[bool, bool, bool]]


def turn(axes: Array) -> Turn:
    """(order, flip): canonical axis a is raw axis order[a], reversed where flip[a].

    axes rows are the unit LPS directions of the raw indices, of either handedness; of the orders that come out
    right-handed the one nearest to +L, +P, +S is taken.
    """
    best: tuple[float, tuple[int, ...], tuple[int, ...]] | None = None
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            matrix = np.array([axes[o] * s for o, s in zip(order, signs)])
            # Rounded, so that noise in a 45 degree direction cannot change the order from machine to machine.
            score = round(float(np.trace(matrix)), 9)
            if np.linalg.det(matrix) > 0 and (best is None or score > best[0]):
                best = (score, order, signs)
    assert best is not None
    return best[1], tuple(s < 0 for s in best[2])  # type: ignore[return-value]


def canonical(axes: Array, spacing_mm: Array, origin_mm: Array, shape: tuple[int, ...]) -> Grid:
    """The canonical grid of an array, from its raw index directions (rows of axes), spacing, index 0 and shape."""
    order, flip = turn(axes)
    origin = np.array(origin_mm, dtype=np.float64)
    rotation = np.empty((3, 3))
    for a, (o, reverse) in enumerate(zip(order, flip)):
        rotation[:, a] = -axes[o] if reverse else axes[o]
        if reverse:
            origin = origin + axes[o] * spacing_mm[o] * (shape[o] - 1)
    # + 0.0 makes -0.0 into 0.0, so that equal grids have equal bytes
    pose = Pose(rotation + 0.0, origin + 0.0)
    return Grid(pose, np.asarray(spacing_mm)[list(order)], tuple(shape[o] for o in order))  # type: ignore[arg-type]


def raw_view(values: NDArray, axes: Array) -> NDArray:
    """A view in raw index order of an array on the canonical grid: what is written into it lands turned."""
    order, flip = turn(axes)
    return values[tuple(slice(None, None, -1 if f else 1) for f in flip)].transpose(np.argsort(order))


def from_affine(affine: Array, tolerance: float = 1e-3) -> tuple[Array, Array] | str:
    """(unit directions as rows, spacing mm) of an index-to-LPS affine, or in words why it is no rectangular grid."""
    columns = np.asarray(affine, dtype=np.float64)[:3, :3]
    if not np.isfinite(affine).all():
        return "the affine holds numbers that are not finite"
    spacing = np.linalg.norm(columns, axis=0)
    if (spacing <= 1e-6).any():
        return f"voxel spacing {', '.join(f'{s:g}' for s in spacing)} mm: must be positive"
    axes = (columns / spacing).T
    skew = np.abs(axes @ axes.T - np.eye(3)).max()
    if skew > tolerance:
        return f"axes are {np.degrees(np.arcsin(min(skew, 1.0))):.2f} deg off a right angle: a sheared grid"
    left, _, right = np.linalg.svd(axes)
    return left @ right, spacing


def resampled(labels: Labels, grid: Grid) -> Labels:
    """The nearest label at each place of `grid`, 0 outside the map; InputError when the two do not meet."""
    own, values = labels.grid, labels.values
    if own.shape == grid.shape and np.allclose(own.affine, grid.affine, atol=1e-3):
        return Labels(grid, values, labels.names)
    out = np.zeros(grid.shape, np.uint8)
    plane = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape[:2]), indexing="ij"), axis=-1).reshape(-1, 2)
    met = False
    for k in range(grid.shape[2]):
        at = np.column_stack([plane, np.full(len(plane), k)])
        index = np.rint(own.to_index(grid.to_patient(at))).astype(np.int64)
        inside = ((index >= 0) & (index < own.shape)).all(axis=1)
        met |= bool(inside.any())
        layer = np.zeros(len(plane), np.uint8)
        layer[inside] = values[tuple(index[inside].T)]
        out[:, :, k] = layer.reshape(grid.shape[:2])
    if not met:
        raise InputError("labels: the map and the CT lie in different places: not of the same scan")
    return Labels(grid, out, labels.names)
