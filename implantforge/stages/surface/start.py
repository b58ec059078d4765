"""The first surface of a bone: crop, largest piece, softened label, and which vertices lie on the border of the scan."""

from __future__ import annotations

from typing import NamedTuple

import cc3d
import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import marching_cubes

from implantforge.core import Array, GeometryError, Labels, Volume

MARGIN_MM = 6.0
COARSE = 2
LEAST_MM = 1.0
"""Vertices this far apart follow a bone's form to 0.03 mm (radius 5 mm); a finer scan still sets where they lie."""


class Start(NamedTuple):
    """A box of the scan around one bone and the first closed surface in the box's own frame (index times spacing). cut
    (n,): vertices on the scan's border, cut_axis (n,3) across which axes, still (n,): those on the flat end itself."""

    name: str
    volume: Volume
    labels: NDArray[np.uint8]
    own: int
    vertices: Array
    faces: NDArray[np.int32]
    cut: NDArray[np.bool_]
    cut_axis: NDArray[np.bool_]
    still: NDArray[np.bool_]


Boxes = list[tuple[slice, slice, slice] | None]


def boxes(labels: Labels) -> Boxes:
    """Box of each label value, from 1 up."""
    found: Boxes = ndimage.find_objects(labels.values, max_label=max(labels.names.values(), default=0))
    return found


def start(volume: Volume, labels: Labels, name: str, known: Boxes | None = None) -> Start:
    """Softened label of the bone's largest piece; GeometryError when it has no voxel, InputError for an unknown name.
    known: what `boxes` gave, if it was asked before."""
    if name not in labels.names:
        labels.mask(name)
    own = labels.names[name]
    box = (boxes(labels) if known is None else known)[own - 1]
    if box is None:
        raise GeometryError(f"surface: {name} has no voxel")
    spacing = volume.grid.spacing_mm
    margin = np.ceil(MARGIN_MM / spacing).astype(int)
    low = tuple(max(0, s.start - m) for s, m in zip(box, margin))
    high = tuple(min(n, s.stop + m) for s, m, n in zip(box, margin, labels.values.shape))
    window = tuple(slice(a, b) for a, b in zip(low, high))
    crop = volume.crop(low, high)
    values = labels.values[window]
    mask = values == own
    pieces, count = cc3d.connected_components(mask, connectivity=6, return_N=True)
    if count > 1:
        crumbs = mask & (pieces != 1 + int(np.bincount(pieces.ravel())[1:].argmax()))
        values = np.where(crumbs, np.uint8(0), values)
        mask = mask & ~crumbs
    del pieces
    vertices, faces = _first(mask, spacing)
    index = vertices / spacing + np.array(low)
    cut_axis: NDArray[np.bool_] = (index < -0.1) | (index > np.array(volume.grid.shape) - 0.9)
    cut: NDArray[np.bool_] = np.any(cut_axis, axis=1)
    return Start(
        name, crop, np.ascontiguousarray(values), own, vertices, faces, cut, cut_axis, _flat(vertices, faces, cut)
    )


def _flat(vertices: Array, faces: NDArray[np.int32], cut: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Vertices all of whose faces lie on the cut."""
    flat = cut.copy()
    flat[faces[~cut[faces].all(axis=1)].ravel()] = False
    return flat


def _first(mask: NDArray[np.bool_], spacing_mm: Array) -> tuple[Array, NDArray[np.int32]]:
    """Closed surface of the softened mask, mm; the array's own border closes bones cut by the scan."""
    coarse = int(np.argmax(spacing_mm))
    step = spacing_mm.copy()
    share = round(float(spacing_mm[coarse] / spacing_mm.min()))
    if share >= COARSE:
        soft = _between_slices(mask, coarse, spacing_mm, share)
        step[coarse] /= share
    else:
        soft = mask.astype(np.float32)
    soft = ndimage.gaussian_filter(soft, np.clip(0.6 / step, 0.6, 1.2), truncate=3.0, mode="nearest")
    size = soft.shape
    for axis in range(3):
        soft = _thinned(soft, axis, step[axis])
    thin = soft.shape
    soft = np.pad(soft, 1)
    soft[soft == 0.5] = 0.5001
    vertices, faces, _, _ = marching_cubes(soft, 0.5, gradient_direction="ascent")
    index = _widened(vertices.astype(np.float64) - 1.0, thin, size)
    if share >= COARSE:
        index[:, coarse] -= 0.5 * (share - 1)
    return index * step, np.ascontiguousarray(faces, dtype=np.int32)


def _thinned(soft: NDArray[np.float32], axis: int, step_mm: float) -> NDArray[np.float32]:
    """Samples along one axis about LEAST_MM apart where they lie closer, first and last kept."""
    count = soft.shape[axis]
    fewer = int((count - 1) * step_mm / LEAST_MM) + 1
    if step_mm > 0.95 * LEAST_MM or fewer < 4:
        return soft
    at = np.linspace(0.0, count - 1.0, fewer)
    low = np.minimum(at.astype(int), count - 2)
    part = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    return np.asarray(soft.take(low, axis) * (1 - part) + soft.take(low + 1, axis) * part)


def _widened(index: Array, thin: tuple[int, ...], size: tuple[int, ...]) -> Array:
    """Indices on a thinned lattice as indices on the full one; what lies beyond its ends stays that far beyond."""
    last = np.array(thin) - 1.0
    inside = np.clip(index, 0.0, last)
    return np.asarray(inside * (np.array(size) - 1.0) / last + (index - inside))


def _between_slices(mask: NDArray[np.bool_], axis: int, spacing_mm: Array, share: int) -> NDArray[np.float32]:
    """Mask with each thick slice cut into `share` thin ones (their middles spread evenly over it): signed distances in
    the slices, interpolated from slice to slice (Raya and Udupa 1990), as 0..1 over a voxel's width."""
    flat = np.moveaxis(mask, axis, 0)
    plane = tuple(float(s) for s in np.delete(spacing_mm, axis))
    limit = 2.0 * float(spacing_mm[axis])
    level = np.empty(flat.shape, np.float32)
    for number, one in enumerate(flat):
        here = np.ascontiguousarray(one)
        apart = edt.edt(here, anisotropy=plane) - edt.edt(~here, anisotropy=plane)
        level[number] = np.clip(apart, -limit, limit)
    at = (np.arange(len(flat) * share) + 0.5) / share - 0.5
    at = np.clip(at, 0, len(flat) - 1)
    low = np.minimum(at.astype(int), max(len(flat) - 2, 0))
    part = (at - low).astype(np.float32)[:, None, None]
    fine = level[low] * (1 - part) + level[np.minimum(low + 1, len(flat) - 1)] * part
    return np.ascontiguousarray(np.moveaxis(np.clip(0.5 + fine / (2 * max(plane)), 0, 1), 0, axis))
