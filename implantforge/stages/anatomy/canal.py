"""The medullary cavity of a femur: where a stem may go, and how wide it is along the shaft."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from implantforge.core import Anatomy, AnatomyError, Array, Field, Grid, Landmark, Mesh, Pose, Volume
from implantforge.geom.inside import inside
from implantforge.geom.shapes import from_samples
from implantforge.stages.anatomy import endosteum
from implantforge.stages.anatomy.atlas import vertex_normals

SPACING_MM = 0.5
CURVE = ("height_above_lesser_trochanter_mm", "x_mm", "y_mm", "z_mm", "width_ml_mm", "width_ap_mm", "area_mm2")
"""Columns of Anatomy.curves["canal"]; widths across the shaft axis, toward the head (ML) and at right angles (AP)."""
CANAL_MEASURES = ("canal_isthmus", "isthmus_diameter_mm", "canal_flare_index", "isthmus_below_lesser_trochanter_mm")
REACH_BELOW_HEAD_MM = 260.0


def cavity(volume: Volume, mesh: Mesh, anatomy: Anatomy, endosteal_hu: float = 600.0, cortex_mm: float = 2.0) -> Field:
    """Signed distance (mm, negative inside) to the wall a stem must respect, on a 0.5 mm grid around the proximal femur.

    Inside means HU below the endosteal threshold and deeper than cortex_mm under the outer surface; islands of dense
    cancellous bone count as cavity; the wall itself stands at half height (`endosteum`). AnatomyError when there is none
    (solid or unseen canal).
    """
    grid = _grid(volume, mesh, anatomy)

    def read(samples: Array) -> Array:
        index = volume.grid.to_index(grid.to_patient(samples))
        return ndimage.map_coordinates(volume.hu, index.T, np.float32, order=1, mode="nearest")

    wall = endosteum.distance(_resampled(volume, grid), read, _depth(mesh, grid), endosteal_hu, cortex_mm, SPACING_MM)
    if wall is None:
        raise AnatomyError(f"{anatomy.bone}: no marrow cavity below {endosteal_hu:.0f} HU and {cortex_mm} mm deep")
    return from_samples(grid, wall)


def _grid(volume: Volume, mesh: Mesh, anatomy: Anatomy) -> Grid:
    """0.5 mm grid along the scan's own axes over the proximal femur, within the scan's slices."""
    axes = Pose(volume.grid.pose.rotation, np.zeros(3))
    local = axes.inverse_apply(mesh.vertices)
    low, high = local.min(axis=0) - 2.0, local.max(axis=0) + 2.0
    low[2] = max(low[2], axes.inverse_apply(anatomy.at("head_center"))[2] - REACH_BELOW_HEAD_MM)
    corners = axes.inverse_apply(volume.grid.to_patient(np.array([[0, 0, 0], np.asarray(volume.grid.shape) - 1.0])))
    low = np.maximum(low, corners.min(axis=0))
    high = np.minimum(high, corners.max(axis=0))
    i, j, k = np.maximum(np.ceil((high - low) / SPACING_MM).astype(int), 2)
    # about the middle, so that the mirrored bone is sampled at the mirrored points
    first = (low + high) / 2.0 - (np.array([i, j, k]) - 1.0) / 2.0 * SPACING_MM
    return Grid(Pose(axes.rotation, axes.apply(first)), np.full(3, SPACING_MM), (int(i), int(j), int(k)))


def _resampled(volume: Volume, grid: Grid) -> NDArray[np.float32]:
    """HU, smoothed by 0.5 mm, at the points of a grid."""
    ends = volume.grid.to_index(grid.to_patient(np.array([[0, 0, 0], np.asarray(grid.shape) - 1.0])))
    lo = np.maximum(np.floor(ends.min(axis=0)).astype(int) - 2, 0)
    hi = np.minimum(np.ceil(ends.max(axis=0)).astype(int) + 3, volume.grid.shape)
    crop = volume.crop(tuple(lo), tuple(hi))
    smooth = ndimage.gaussian_filter(crop.hu.astype(np.float32), 0.5 / crop.grid.spacing_mm)
    step = crop.grid.pose.rotation.T @ (grid.pose.rotation * grid.spacing_mm) / crop.grid.spacing_mm[:, None]
    start = crop.grid.to_index(grid.pose.origin_mm)
    return ndimage.affine_transform(smooth, step, start, grid.shape, order=1, mode="nearest", prefilter=False)


def _depth(mesh: Mesh, grid: Grid) -> NDArray[np.float32]:
    """Depth (mm, positive inside) under the outer surface: found on a coarse grid by nearest vertices, interpolated."""
    ratio = 4
    across_i, across_j, across_k = (int(np.ceil(n / ratio)) + 1 for n in grid.shape)
    shape = (across_i, across_j, across_k)
    before = ((np.array(shape) - 1.0) * ratio - (np.array(grid.shape) - 1.0)) / 2.0
    start = Pose(grid.pose.rotation, grid.to_patient(-before))
    coarse = Grid(start, grid.spacing_mm * ratio, shape)
    points = coarse.to_patient(np.indices(shape).reshape(3, -1).T.astype(float))
    limit_mm = 7.0
    normals, _ = vertex_normals(mesh.vertices, mesh.faces)
    far, nearest = cKDTree(mesh.vertices).query(points, distance_upper_bound=limit_mm, workers=2)
    close = far < limit_mm
    across = np.full(len(points), limit_mm)
    across[close] = np.einsum("ij,ij->i", mesh.vertices[nearest[close]] - points[close], normals[nearest[close]]).clip(
        -far[close], far[close]
    )
    signed = np.where(inside(mesh, points), np.abs(across), -np.abs(across))
    depth = signed.reshape(shape).astype(np.float32)
    return ndimage.affine_transform(depth, np.full(3, 1.0 / ratio), before / ratio, grid.shape, order=1, mode="nearest")


def with_canal(anatomy: Anatomy, wall: Field) -> Anatomy:
    """The anatomy with curve `canal` (columns CURVE, from the neck down), frame `canal`, isthmus and flare.

    Canal axis: line through section centroids from 10 to 90 mm below the lesser trochanter. Flare index: ML width
    20 mm above the trochanter over that of the isthmus (Noble 1988).
    """
    trochanter = anatomy.at("lesser_trochanter")
    shaft = anatomy.frames.get("proximal_shaft", anatomy.frames["shaft"])
    foot = shaft.origin_mm + ((trochanter - shaft.origin_mm) @ shaft.rotation[:, 2]) * shaft.rotation[:, 2]
    rows = []
    for height in np.arange(30.0, -180.0, -2.0):
        row = _level(wall, foot + height * shaft.rotation[:, 2], shaft.rotation)
        if row is not None:
            rows.append([height, *row])
    curve = np.array(rows)
    middle = curve[(curve[:, 0] < -10.0) & (curve[:, 0] > -90.0)] if len(curve) else curve
    if len(middle) < 10:
        raise AnatomyError(
            f"{anatomy.bone}: the canal is seen on {len(middle)} of 40 levels below the lesser trochanter"
        )
    at = middle[:, 1:4].mean(axis=0)
    up = np.linalg.svd(middle[:, 1:4] - at)[2][0]
    up *= np.sign(up @ shaft.rotation[:, 2])
    medial = shaft.rotation[:, 0] - (shaft.rotation[:, 0] @ up) * up
    medial /= np.linalg.norm(medial)
    frame = Pose(np.stack([medial, np.cross(up, medial), up], axis=1), at)
    low = curve[curve[:, 0] < -20.0]
    narrow = low[low[:, 6].argmin()]
    above = curve[np.abs(curve[:, 0] - 20.0).argmin()]
    measures = dict(anatomy.measures)
    measures["isthmus_diameter_mm"] = float(np.sqrt(4.0 * narrow[6] / np.pi))
    measures["isthmus_below_lesser_trochanter_mm"] = float(-narrow[0])
    measures["canal_flare_index"] = float(above[4] / narrow[4])
    landmarks = dict(anatomy.landmarks)
    landmarks["canal_isthmus"] = Landmark("canal_isthmus", narrow[1:4], 2.0, "smallest-canal-section")
    refused = {name: why for name, why in anatomy.refused.items() if name not in CANAL_MEASURES}
    if narrow[0] <= low[-1, 0] + 4.0:
        refused["canal_isthmus"] = (
            f"the canal still narrows where the scan ends, {-narrow[0]:.0f} mm below the trochanter"
        )
        landmarks.pop("canal_isthmus")
        for name in CANAL_MEASURES[1:]:
            refused[name] = refused["canal_isthmus"]
            measures.pop(name, None)
    return replace(
        anatomy, landmarks=landmarks, measures=measures, refused=refused,
        frames={**anatomy.frames, "canal": frame}, curves={**anatomy.curves, "canal": curve},
    )  # fmt: skip


def _level(wall: Field, at: Array, rotation: Array) -> list[float] | None:
    """Centroid, widths and area of the cavity in one plane, the piece nearest the shaft axis; None when there is none."""
    step, half = 0.5, 34.0
    axis = np.arange(-half, half + step / 2, step)
    u, v = np.meshgrid(axis, axis, indexing="ij")
    points = at + u.reshape(-1, 1) * rotation[:, 0] + v.reshape(-1, 1) * rotation[:, 1]
    low, high = wall.bounds
    if not ((at >= low) & (at <= high)).all():
        return None
    open_ = (wall(points) < 0.0).reshape(u.shape)
    pieces, count = ndimage.label(open_)
    if not count:
        return None
    sizes = np.bincount(pieces.ravel())[1:]
    big = 1 + int(sizes.argmax())
    inside = pieces == big
    area = float(inside.sum()) * step**2
    if area < 20.0:
        return None
    center = at + u[inside].mean() * rotation[:, 0] + v[inside].mean() * rotation[:, 1]
    widths = [float(np.ptp(w[inside])) + step for w in (u, v)]
    return [*center.tolist(), *widths, area]
