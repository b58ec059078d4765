"""Bone surfaces at sub-voxel precision: every vertex moves to the half-maximum of its own HU profile."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from skimage.measure import marching_cubes

from implantforge.core import Array, GeometryError, Labels, Mesh, Volume

STEP_MM = 0.15
INWARD_MM, OUTWARD_MM = 3.0, 2.6
LEAST_EDGE_HU = 150.0
"""A profile that rises less than this shows no edge; the vertex follows its neighbours."""
LARGEST_MOVE_MM = 1.6
ROUNDS = 3


def bone(volume: Volume, labels: Labels, name: str) -> Mesh:
    """Closed, outward-facing surface of one labelled bone in LPS mm.

    The label's own boundary gives topology; position comes from the CT: along each normal the edge lies where HU is
    halfway between the flesh outside and the cortex inside, whatever their values (half-maximum of a blurred step).
    Ends cut by the scan stay flat. Raises InputError for a bone not in the labels, GeometryError for an empty one.
    """
    crop, mask = _around(volume, labels, name)
    mesh_index, faces = _start(mask, crop.grid.spacing_mm)
    spacing = crop.grid.spacing_mm
    vertices = mesh_index * spacing
    open_ends = _at_scan_edge(vertices, crop, volume)
    hu = np.minimum(crop.hu, 2500).astype(np.float32)
    average = _averaging(faces, len(vertices))
    for _ in range(ROUNDS):
        normals = _normals(vertices, faces)
        shift, seen = _shift(hu, spacing, vertices, normals)
        shift[open_ends] = 0.0
        shift = _spread(shift, seen | open_ends, average)
        moved = vertices + shift[:, None] * normals
        slide = average @ moved - moved
        slide -= np.einsum("ij,ij->i", slide, normals)[:, None] * normals
        slide[open_ends] = 0.0
        vertices = moved + 0.4 * slide
    mesh = Mesh(crop.grid.pose.apply(vertices), faces)
    if mesh.volume_mm3 <= 0:
        raise GeometryError(f"surface: {name} came out inside out ({mesh.volume_mm3:.0f} mm3)")
    return mesh


def _around(volume: Volume, labels: Labels, name: str) -> tuple[Volume, NDArray[np.bool_]]:
    """The scan and the mask in a box 6 mm wider than the bone, its largest piece only."""
    mask = labels.mask(name)
    box = ndimage.find_objects(mask.astype(np.uint8))[0] if mask.any() else None
    if box is None:
        raise GeometryError(f"surface: {name} has no voxel")
    margin = np.ceil(6.0 / volume.grid.spacing_mm).astype(int)
    start = tuple(max(0, s.start - m) for s, m in zip(box, margin))
    stop = tuple(min(n, s.stop + m) for s, m, n in zip(box, margin, mask.shape))
    window = tuple(slice(a, b) for a, b in zip(start, stop))
    pieces, count = ndimage.label(mask[window])
    largest = 1 + int(np.bincount(pieces.ravel())[1:].argmax()) if count > 1 else 1
    return volume.crop(start, stop), pieces == largest


def _start(mask: NDArray[np.bool_], spacing_mm: Array) -> tuple[Array, NDArray[np.int32]]:
    """Closed surface of the softened mask, in voxel indices; one voxel of padding closes bones cut by the scan."""
    soft = ndimage.gaussian_filter(np.pad(mask, 2).astype(np.float32), 0.7 / spacing_mm.min())
    hard = np.pad(np.ones(tuple(n + 2 for n in mask.shape), dtype=np.float32), 1)
    soft = np.minimum(soft, hard)
    soft[soft == 0.5] = 0.5001
    vertices, faces, _, _ = marching_cubes(soft, 0.5, gradient_direction="ascent")
    return vertices - 2.0, np.ascontiguousarray(faces, dtype=np.int32)


def _at_scan_edge(vertices: Array, crop: Volume, volume: Volume) -> NDArray[np.bool_]:
    """Vertices within 1.2 voxels of the scan's own border: there is no flesh beyond to show an edge."""
    index = volume.grid.to_index(crop.grid.to_patient(vertices / crop.grid.spacing_mm))
    beyond: NDArray[np.bool_] = (index < 1.2) | (index > np.asarray(volume.grid.shape) - 2.2)
    return np.any(beyond, axis=1)


def _normals(vertices: Array, faces: NDArray[np.int32]) -> Array:
    cross = Mesh(vertices, faces).face_cross
    normals = np.stack([np.bincount(faces.ravel(), np.repeat(cross[:, a], 3), len(vertices)) for a in range(3)], axis=1)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def _averaging(faces: NDArray[np.int32], count: int) -> sparse.csr_matrix:
    """Row-stochastic matrix that replaces a vertex value by the mean of its neighbours'."""
    i, j = faces[:, [0, 1, 2]].ravel(), faces[:, [1, 2, 0]].ravel()
    ones = np.ones(len(i))
    link = sparse.csr_matrix((ones, (i, j)), shape=(count, count))
    link = ((link + link.T) > 0).astype(np.float64)
    return sparse.diags(1.0 / np.maximum(np.asarray(link.sum(axis=1)).ravel(), 1.0)) @ link


def _shift(
    hu: NDArray[np.float32], spacing_mm: Array, vertices: Array, normals: Array
) -> tuple[Array, NDArray[np.bool_]]:
    """Signed way (mm) along each normal to the half-maximum edge, and which vertices show one."""
    t = np.arange(-INWARD_MM, OUTWARD_MM + STEP_MM / 2, STEP_MM)
    shift = np.zeros(len(vertices))
    seen = np.zeros(len(vertices), dtype=bool)
    for part in np.array_split(np.arange(len(vertices)), max(1, len(vertices) // 20000)):
        at = (vertices[part, None, :] + t[:, None] * normals[part, None, :]) / spacing_mm
        profile = ndimage.map_coordinates(hu, at.reshape(-1, 3).T, order=1, mode="nearest").reshape(len(part), -1)
        shift[part], seen[part] = edge_of_profiles(profile, t)
    return shift, seen


def edge_of_profiles(profile: NDArray[np.float32], t_mm: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Where profiles (n, len(t)), read from inside to outside, fall through half of their own step.

    Returns (n,) positions on t, limited to LARGEST_MOVE_MM, and whether there is an edge of at least LEAST_EDGE_HU.
    The peak is the highest sample up to 0.5 mm outside; the flesh is the lowest beyond it.
    """
    rows = np.arange(len(profile))
    inside = t_mm <= 0.75
    peak = np.where(inside, profile, -np.inf).argmax(axis=1)
    beyond = np.arange(len(t_mm)) > peak[:, None]
    low = np.where(beyond & (t_mm <= 2.0), profile, np.inf)
    # the first trough only: the next bone across a joint is not this one's flesh
    trough = low.argmin(axis=1)
    top, bottom = profile[rows, peak], profile[rows, trough]
    half = 0.5 * (top + bottom)
    between = beyond & (np.arange(len(t_mm)) <= trough[:, None]) & (profile < half[:, None])
    after = between.argmax(axis=1)
    before = np.maximum(after - 1, 0)
    high_value, low_value = profile[rows, before], profile[rows, after]
    fraction = np.clip((high_value - half) / np.maximum(high_value - low_value, 1e-6), 0.0, 1.0)
    edge = t_mm[before] + fraction * (t_mm[1] - t_mm[0])
    seen = between.any(axis=1) & (top - bottom > LEAST_EDGE_HU) & (np.abs(edge) < LARGEST_MOVE_MM)
    return np.where(seen, edge, 0.0), seen


def _spread(shift: Array, seen: NDArray[np.bool_], average: sparse.csr_matrix) -> Array:
    """Outliers pulled to their neighbours' mean, unseen vertices filled from the seen ones around them."""
    weight = seen.astype(float)
    value = np.where(seen, shift, 0.0)
    for _ in range(20):
        if (weight > 0).all():
            break
        spread_weight, spread_value = average @ weight, average @ (value * weight)
        fill = (weight == 0) & (spread_weight > 0)
        value[fill] = spread_value[fill] / spread_weight[fill]
        weight[fill] = 0.5
    mean = average @ (average @ value)
    odd = np.abs(value - mean) > 0.35
    value = np.where(odd, mean, value)
    return 0.5 * value + 0.5 * (average @ value)
