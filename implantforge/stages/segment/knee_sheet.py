"""The joint space between two bones as a smooth sheet: found where HU dips, carried across where bone lies on bone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_matrix, csc_matrix, diags, identity
from scipy.sparse.linalg import spsolve
from scipy.spatial import cKDTree

from implantforge.core import Array
from implantforge.stages.segment.heads import BONE_HU

PITCH_MM, STEP_MM = 0.8, 0.4
WIDEST_MM = 11.0
"""Bones farther apart along a column need no sheet."""
SEARCH_MM = 4.0
DIP_HU = 120.0
"""A valley this deep under the lower of its two rims is believed as it stands, a shallower one in proportion."""
LEAST_EVEN = 0.25
"""A joint space lies between two plates; a dip whose lower rim is less than this share of the higher is cancellous bone."""
STIFFNESS = 3.0
"""Weight of bending against data: features under about 1.3 columns are smoothed away."""
_ROUNDS = 3


@dataclass(frozen=True, eq=False)
class Sheet:
    """A joint space in its own frame: rows of axes are u, v and w (from the lower to the upper bone), origin_mm on it.

    height_mm (n,m): w of the middle of the joint on columns PITCH_MM apart, NaN where the bones do not face each other;
    soft_mm (2,n,m): w between which the column is not bone, empty (low above high) where the bones' blur fills the gap;
    trust (n,m): 1 where the valley was seen, 0 where the sheet was only carried across.
    """

    origin_mm: Array
    axes: Array
    corner_mm: Array
    height_mm: Array
    soft_mm: Array
    trust: Array


def facing(lower: Array, upper: Array, within_mm: float) -> tuple[Array, Array]:
    """Middle and mean direction, lower to upper, of the nearest pairs of two point sets (n,3) mm; NaN where none is near."""
    distance, nearest = cKDTree(lower).query(upper, distance_upper_bound=within_mm)
    near = np.isfinite(distance)
    if near.sum() < 3:
        return np.full(3, np.nan), np.full(3, np.nan)
    gap = upper[near] - lower[nearest[near]]
    direction = gap.mean(axis=0)
    return (upper[near] - gap / 2).mean(axis=0), direction / np.linalg.norm(direction)


def find_sheet(
    smooth: NDArray[np.float32], spacing_mm: Array, rough: NDArray[np.uint8], rough_mm: Array, shift_mm: Array,
    bones: tuple[int, int], within_mm: float,
) -> Sheet | None:  # fmt: skip
    """The sheet between bones (lower, upper) of a rough label map, its first voxel shift_mm from that of smooth.

    None where the two do not come within within_mm of each other.
    """
    lower, upper = (_rim(rough, value) * rough_mm + shift_mm for value in bones)
    if not len(lower) or not len(upper):
        return None
    origin, w = facing(lower, upper, within_mm)
    if not np.isfinite(w).all():
        return None
    u = np.cross([0.0, 1.0, 0.0] if abs(w[1]) < 0.7 else [0.0, 0.0, 1.0], w)
    u /= np.linalg.norm(u)
    axes = np.stack([u, np.cross(w, u), w])
    near = upper[cKDTree(lower).query(upper, distance_upper_bound=within_mm + 4.0)[0] < np.inf]
    local = (near - origin) @ axes.T
    lo, hi = local.min(axis=0) - 3.0, local.max(axis=0) + 3.0
    lo[2], hi[2] = lo[2] - 10.0, hi[2] + 6.0
    count = np.ceil((hi - lo) / [PITCH_MM, PITCH_MM, STEP_MM]).astype(int) + 1
    w_mm = lo[2] + np.arange(count[2]) * STEP_MM
    grid = np.meshgrid(
        lo[0] + np.arange(count[0]) * PITCH_MM, lo[1] + np.arange(count[1]) * PITCH_MM, w_mm, indexing="ij"
    )
    at = np.stack([g.ravel() for g in grid], axis=1) @ axes + origin
    shape = tuple(int(n) for n in count)
    label = _nearest(rough, (at - shift_mm) / rough_mm).reshape(shape)
    profile = ndimage.map_coordinates(smooth, (at / spacing_mm).T, order=1, mode="nearest").reshape(shape)
    guess, width = _guess(label, bones)
    valid = _domain(np.isfinite(guess))
    if valid.sum() < 12:
        return None
    height, trust = _settle(profile, guess, width, valid)
    soft = _soft(profile, height, lo[2])
    return Sheet(origin, axes, lo[:2], np.where(valid, lo[2] + height * STEP_MM, np.nan), soft, trust)


def _rim(rough: NDArray[np.uint8], value: int) -> NDArray:
    """Indices of a bone's outermost voxels."""
    mask = rough == value
    return np.argwhere(mask & ~ndimage.binary_erosion(mask, border_value=1))


def _nearest(values: NDArray, index: Array) -> NDArray:
    """Values at rounded indices, 0 outside."""
    at = np.rint(index).astype(np.int64)
    inside = ((at >= 0) & (at < values.shape)).all(axis=1)
    out = np.zeros(len(at), dtype=values.dtype)
    out[inside] = values[tuple(at[inside].T)]
    return out


def _guess(label: NDArray[np.uint8], bones: tuple[int, int]) -> tuple[Array, Array]:
    """Sample number halfway between the top of the lower bone and the upper bone above it, and their distance in mm."""
    order = np.arange(label.shape[2])
    last = np.where(label == bones[0], order, -1).max(axis=2)
    above = (label == bones[1]) & (order > last[..., None])
    first = np.where(above.any(axis=2), above.argmax(axis=2), label.shape[2] + 10_000)
    width = (first - last - 1) * STEP_MM
    found = (last >= 0) & (width < WIDEST_MM)
    return np.where(found, (last + first) / 2.0, np.nan), width


def _domain(found: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Columns in which both bones were met, pinholes closed, crumbs dropped."""
    closed = ndimage.binary_closing(np.pad(found, 4), iterations=2)[4:-4, 4:-4] | found
    piece, count = ndimage.label(closed)
    sizes = np.bincount(piece.ravel(), minlength=count + 1)
    sizes[0] = 0
    return np.asarray(sizes[piece] >= 12)


def _settle(profile: NDArray, guess: Array, width: Array, valid: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Height in samples and trust per column: valley, stiff sheet through it, valley near the sheet, and so on."""
    number = np.full(valid.shape, -1)
    number[valid] = np.arange(valid.sum())
    bend = _bending(number)
    start = np.where(np.isfinite(guess), guess, 0.0)[valid]
    known = np.isfinite(guess)[valid].astype(float)
    sheet = _solve(bend, known, start)
    columns = profile[valid]
    wide = width[valid] > 3.0
    for turn in range(_ROUNDS):
        reach = (SEARCH_MM, 3.0, 2.0)[turn]
        found, quality = _valley(columns, sheet, reach)
        found = np.where(wide & (quality < DIP_HU), start, found)
        weight = np.clip(quality / DIP_HU, 0.0, 1.0) ** 2
        weight = np.where(wide & (known > 0), np.maximum(weight, 0.5), weight)
        off = np.abs(found - sheet) * STEP_MM
        weight = weight * (1.0 / (1.0 + (off / 1.5) ** 2) if turn else 1.0) + 1e-4 * known
        sheet = _solve(
            bend, weight, np.where(weight > 0, found if turn < 0 else np.where(quality > 0, found, start), 0.0)
        )
    height, trust = np.full(valid.shape, np.nan), np.zeros(valid.shape)
    height[valid], trust[valid] = sheet, weight
    return height, trust


def _bending(number: NDArray) -> csc_matrix:
    """Matrix of the squared Laplacian on the numbered columns, free at their rim."""
    rows, cols = [], []
    for a, b in ((number[1:], number[:-1]), (number[:, 1:], number[:, :-1])):
        both = (a >= 0) & (b >= 0)
        rows += [a[both], b[both]]
        cols += [b[both], a[both]]
    n = int(number.max()) + 1
    i, j = np.concatenate(rows), np.concatenate(cols)
    near = coo_matrix((np.ones(len(i)), (i, j)), (n, n)).tocsc()
    laplace = diags(np.asarray(near.sum(axis=1)).ravel()) - near
    return csc_matrix(laplace.T @ laplace)


def _solve(bend: csc_matrix, weight: Array, target: Array) -> Array:
    """The stiff sheet nearest to weighted targets."""
    matrix = STIFFNESS * bend + diags(weight) + 1e-7 * identity(len(weight))
    return np.asarray(spsolve(csc_matrix(matrix), weight * target))


def _valley(columns: NDArray, around: Array, reach_mm: float) -> tuple[Array, Array]:
    """Middle (in samples) of each column's dip near `around`, and its depth under the lower rim in HU, less if uneven."""
    half = round((reach_mm + 3.0) / STEP_MM)
    offset = np.arange(-half, half + 1)
    index = np.clip(np.rint(around).astype(int)[:, None] + offset, 0, columns.shape[1] - 1)
    window = np.take_along_axis(columns, index, axis=1).astype(np.float64)
    inside = np.abs(offset) * STEP_MM <= reach_mm
    cost = np.where(inside, window + 25.0 * (offset * STEP_MM) ** 2, np.inf)
    low = cost.argmin(axis=1)
    order = np.arange(len(offset))
    floor = np.take_along_axis(window, low[:, None], axis=1)[:, 0]
    left = np.where(order <= low[:, None], window, -np.inf).max(axis=1)
    right = np.where(order >= low[:, None], window, -np.inf).max(axis=1)
    quality = np.minimum(left, right) - floor
    even = quality / np.maximum(np.maximum(left, right) - floor, 1.0)
    over = window > (floor + 0.5 * quality)[:, None]
    before = np.where(over & (order < low[:, None]), order, -1).max(axis=1)
    after = np.where(over & (order > low[:, None]), order, len(order)).min(axis=1)
    middle = (before + after) / 2.0 - half
    return np.rint(around) + middle, quality * ((even - LEAST_EVEN) / LEAST_EVEN).clip(0.0, 1.0)


def _soft(profile: NDArray, height: Array, start_mm: float) -> Array:
    """w (2,n,m) in mm between which a column stays under BONE_HU around the sheet; low above high where it never does."""
    order = np.arange(profile.shape[2])
    at = np.rint(np.nan_to_num(height)).astype(int)[..., None]
    bone = profile >= BONE_HU
    low = np.where(bone & (order <= at), order, -1).max(axis=2) + 0.5
    high = np.where(bone & (order >= at), order, len(order)).min(axis=2) - 0.5
    return np.stack([low, high]) * STEP_MM + start_mm


def apply_sheet(
    sheet: Sheet, labels: NDArray[np.uint8], spacing_mm: Array, bones: tuple[int, int], reach_mm: float = 5.0
) -> NDArray[np.intp]:
    """Voxels of the two bones within reach_mm of the sheet given to the side they lie on, in place.

    Returns flat indices of the voxels that lie in the soft joint space and should be no bone at all.
    """
    n, m = sheet.height_mm.shape
    middle = np.nanmedian(sheet.height_mm)
    tall = np.nanmax(np.abs(sheet.height_mm - middle)) + reach_mm
    ends = np.array(
        [[a, b, c] for a in (0, n * PITCH_MM) for b in (0, m * PITCH_MM) for c in (middle - tall, middle + tall)]
    )
    ends[:, :2] += sheet.corner_mm
    box = (ends @ sheet.axes + sheet.origin_mm) / spacing_mm
    lo = np.clip(np.floor(box.min(axis=0)).astype(int), 0, labels.shape)
    hi = np.clip(np.ceil(box.max(axis=0)).astype(int) + 1, 0, labels.shape)
    window = labels[tuple(slice(a, b) for a, b in zip(lo, hi))]
    index = np.argwhere((window == bones[0]) | (window == bones[1])) + lo
    local = (index * spacing_mm - sheet.origin_mm) @ sheet.axes.T
    cell = (local[:, :2] - sheet.corner_mm) / PITCH_MM
    height = ndimage.map_coordinates(_extended(sheet.height_mm), cell.T, order=1, mode="nearest")
    near = np.rint(cell).astype(int).clip(0, [n - 1, m - 1])
    column = (near[:, 0], near[:, 1])
    known = np.isfinite(sheet.height_mm[column]) & (cell > -1).all(axis=1) & (cell < [n, m]).all(axis=1)
    known &= np.abs(local[:, 2] - height) < reach_mm
    index, w, height, column = index[known], local[known, 2], height[known], tuple(c[known] for c in column)
    labels[tuple(index.T)] = np.where(w > height, bones[1], bones[0])
    gap = (w > sheet.soft_mm[0][column]) & (w < sheet.soft_mm[1][column])
    return np.ravel_multi_index(tuple(index[gap].T), labels.shape)


def _extended(height: Array) -> Array:
    """Heights with the unknown columns set to the nearest known one."""
    unknown = ~np.isfinite(height)
    nearest = ndimage.distance_transform_edt(unknown, return_distances=False, return_indices=True)
    return np.asarray(height[tuple(nearest)])
