"""What every region's segmentation shares: bone filled slice by slice, bones in one piece each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from implantforge.core import Array
from implantforge.geom import flooding

BRIGHTEST_HU = 2000
"""Metal is cut down to dense cortex, so that its glow does not count as bone all around."""
BLUR_MM, TRUNCATE = 0.6, 3.0
LEVEL_MM, LEVEL_HU = 0.01, 1.0
"""Steps in which a flood sinks."""
LARGEST_HOLE_MM2 = 3500.0
"""Holes of an axial slice up to this area are bone interior: a head is 1700 mm2, the pelvic inlet above 8000 mm2."""


def blurred(hu: NDArray[np.int16], spacing_mm: Array) -> NDArray[np.float32]:
    """HU up to BRIGHTEST_HU behind a gaussian of BLUR_MM, in slabs on two threads: the same to the last bit as in one."""
    sigma = BLUR_MM / spacing_mm
    reach = int(TRUNCATE * sigma[0] + 0.5)
    out = np.empty(hu.shape, np.float32)

    def slab(first: int, last: int) -> None:
        low, high = max(0, first - reach), min(len(hu), last + reach)
        wide = ndimage.gaussian_filter(
            np.minimum(hu[low:high], BRIGHTEST_HU).astype(np.float32), sigma, truncate=TRUNCATE
        )
        out[first:last] = wide[first - low : last - low]

    cuts = np.linspace(0, len(hu), 5).astype(int)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(slab, cuts[:-1], cuts[1:]))
    return out


class _Pieces(NamedTuple):
    """Voxels (flat index) that are not 0, ascending, the connected piece 1..count of each, and the pieces' sizes."""

    at: NDArray[np.int64]
    piece: NDArray[np.unsignedinteger]
    sizes: NDArray[np.int64]


def _pieces(values: NDArray) -> _Pieces:
    """Pieces of equal value joined by faces. Bone is a few per cent of a scan: all else is done on its voxels alone."""
    pieces, count = cc3d.connected_components(values, connectivity=6, return_N=True)
    at = np.flatnonzero(values)
    piece = pieces.ravel()[at]
    return _Pieces(at, piece, np.bincount(piece, minlength=count + 1))


def without_crumbs(mask: NDArray[np.bool_], spacing_mm: Array) -> NDArray[np.bool_]:
    """Mask without its pieces under 300 mm3."""
    found = _pieces(mask)
    out, large = mask.copy(), np.asarray(found.sizes >= int(300.0 / float(np.prod(spacing_mm))))
    out.ravel()[found.at] = large[found.piece]
    return out


def filled(mask: NDArray[np.bool_], spacing_mm: Array) -> NDArray[np.bool_]:
    """Holes of axial slices up to LARGEST_HOLE_MM2 filled."""
    limit = LARGEST_HOLE_MM2 / float(spacing_mm[0] * spacing_mm[1])
    out = mask.copy()
    rows, columns = np.asarray(mask.any(axis=1)), np.asarray(mask.any(axis=0))
    for k in np.flatnonzero(rows.any(axis=0)):
        box = tuple(
            slice(int(at[0]), int(at[-1]) + 1) for at in (np.flatnonzero(rows[:, k]), np.flatnonzero(columns[:, k]))
        )
        plane = mask[:, :, k][box]
        holes = cc3d.connected_components(~plane, connectivity=4)
        # nothing outside the box holds bone, so what reaches its rim reaches the picture's
        keep = np.asarray(cc3d.statistics(holes, no_slice_conversion=True)["voxel_counts"] > limit)
        keep[np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]])] = True
        keep[0] = False
        out[:, :, k][box] = plane | ~keep[holes]
    return out


def in_one_piece(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pieces of a bone that hang on another bone are that bone's; pieces that hang on nothing are dropped."""
    found = _pieces(values)
    owner = np.zeros(len(found.sizes), np.uint8)
    owner[found.piece] = values.ravel()[found.at]
    largest = [max(np.flatnonzero(owner == v), key=lambda n: found.sizes[n]) for v in np.unique(owner) if v]
    new = np.where(np.isin(np.arange(len(owner)), largest), owner, np.uint8(0))
    out = np.zeros_like(values)
    out.ravel()[found.at] = new[found.piece]
    stray = new[found.piece] == 0
    index, piece = np.stack(np.unravel_index(found.at[stray], values.shape)), found.piece[stray].astype(np.int64)
    faces = np.zeros((len(owner), 256), np.int64)
    for axis in range(3):
        for way in (-1, 1):
            beside = index.copy()
            beside[axis] += way
            inside = (beside[axis] >= 0) & (beside[axis] < values.shape[axis])
            np.add.at(faces, (piece[inside], out[tuple(beside[:, inside])]), 1)
    touched = faces[:, 1:].any(axis=1)
    new[touched] = 1 + faces[touched, 1:].argmax(axis=1)
    out.ravel()[found.at] = new[found.piece]
    return out


def ball(shape: tuple[int, ...], spacing_mm: Array, at_mm: Array, radius_mm: float) -> tuple[NDArray, ...]:
    """Indices of the voxels within radius_mm of at_mm."""
    lo = np.maximum(np.floor((at_mm - radius_mm) / spacing_mm).astype(int), 0)
    hi = np.minimum(np.ceil((at_mm + radius_mm) / spacing_mm).astype(int) + 1, shape)
    index = np.stack(np.meshgrid(*[np.arange(a, b) for a, b in zip(lo, hi)], indexing="ij"), axis=-1).reshape(-1, 3)
    near = np.linalg.norm(index * spacing_mm - at_mm, axis=1) < radius_mm
    return tuple(index[near].T)


def flooded(height_mm: NDArray[np.float32], seeds: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Marker watershed from the highest ground down within the mask. Pieces of the mask that hold one bone's seeds alone
    need no flood and get none."""
    found = _pieces(mask)
    value = seeds.ravel()[found.at]
    sown = value > 0
    least, most = np.full(len(found.sizes), 255, np.uint8), np.zeros(len(found.sizes), np.uint8)
    np.minimum.at(least, found.piece[sown], value[sown])
    np.maximum.at(most, found.piece[sown], value[sown])
    mixed = np.asarray(least < most)[found.piece]
    ground = np.zeros_like(mask)
    ground.ravel()[found.at[mixed]] = True
    values = flooding.flooded(height_mm, seeds, ground, LEVEL_MM)
    values.ravel()[found.at[~mixed]] = np.where(least == most, most, np.uint8(0))[found.piece[~mixed]]
    return values


def grown_into(values: NDArray[np.uint8], mask: NDArray[np.bool_], smooth: NDArray[np.float32]) -> None:
    """Unlabelled voxels of the mask given to the bone they are joined to by the brightest way, in place."""
    bare = mask & (values == 0)
    rim = ndimage.binary_dilation(bare) & (values > 0)
    found = flooding.flooded(smooth, np.where(rim, values, np.uint8(0)), bare | rim, LEVEL_HU)
    values[bare] = found[bare]


def hollow_filled(values: NDArray[np.uint8], value: int, spacing_mm: Array) -> None:
    """One bone's axial slices closed over gaps of 5 mm in its rim and filled, in place: spongy bone below the threshold,
    however large. Other bones keep their voxels."""
    slices = np.flatnonzero((values == value).any(axis=(0, 1)))
    if not len(slices):
        return
    box = tuple(slice(int(hits[0]), int(hits[-1]) + 1) for hits in
                (np.flatnonzero((values == value).any(axis=axes)) for axes in ((1, 2), (0, 2))))  # fmt: skip
    rounds = max(1, round(2.5 / float(spacing_mm[0])))
    for k in slices:
        plane = values[:, :, k][box]
        shut = ndimage.binary_closing(np.pad(plane == value, rounds), iterations=rounds)[rounds:-rounds, rounds:-rounds]
        plane[(plane == 0) & ndimage.binary_fill_holes(shut)] = value
