"""What every region's segmentation shares: bone filled slice by slice, bones in one piece each."""

from __future__ import annotations

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from implantforge.core import Array

LARGEST_HOLE_MM2 = 3500.0
"""Holes of an axial slice up to this area are bone interior: a head is 1700 mm2, the pelvic inlet above 8000 mm2."""


def filled(mask: NDArray[np.bool_], spacing_mm: Array) -> NDArray[np.bool_]:
    """Crumbs under 300 mm3 dropped, holes of axial slices up to LARGEST_HOLE_MM2 filled."""
    mask = cc3d.dust(mask, threshold=int(300.0 / float(np.prod(spacing_mm))), connectivity=6)
    limit = LARGEST_HOLE_MM2 / float(spacing_mm[0] * spacing_mm[1])
    out = np.empty_like(mask)
    for k in range(mask.shape[2]):
        holes = cc3d.connected_components(~mask[:, :, k], connectivity=4)
        keep = np.bincount(holes.ravel()) > limit
        keep[np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]])] = True
        keep[0] = False
        out[:, :, k] = mask[:, :, k] | ~keep[holes]
    return out


def in_one_piece(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pieces of a bone that hang on another bone are that bone's; pieces that hang on nothing are dropped."""
    pieces, count = cc3d.connected_components(values, connectivity=6, return_N=True)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    owner = np.zeros(count + 1, dtype=np.uint8)
    owner[pieces.ravel()] = values.ravel()
    largest = {int(v): int(max(np.flatnonzero(owner == v), key=lambda n: sizes[n])) for v in np.unique(owner) if v}
    new = np.where(np.isin(np.arange(count + 1), list(largest.values())), owner, 0).astype(np.uint8)
    touch: dict[int, dict[int, int]] = {}
    for (one, two), faces in cc3d.contacts(pieces, connectivity=6).items():
        for piece, other in ((one, two), (two, one)):
            if new[piece] == 0 and new[other]:
                mine = touch.setdefault(int(piece), {})
                mine[int(new[other])] = mine.get(int(new[other]), 0) + int(faces)
    for piece, mine in touch.items():
        new[piece] = max(sorted(mine), key=lambda v: mine[v])
    return new[pieces]


def ball(shape: tuple[int, ...], spacing_mm: Array, at_mm: Array, radius_mm: float) -> tuple[NDArray, ...]:
    """Indices of the voxels within radius_mm of at_mm."""
    lo = np.maximum(np.floor((at_mm - radius_mm) / spacing_mm).astype(int), 0)
    hi = np.minimum(np.ceil((at_mm + radius_mm) / spacing_mm).astype(int) + 1, shape)
    index = np.stack(np.meshgrid(*[np.arange(a, b) for a, b in zip(lo, hi)], indexing="ij"), axis=-1).reshape(-1, 3)
    near = np.linalg.norm(index * spacing_mm - at_mm, axis=1) < radius_mm
    return tuple(index[near].T)


def flooded(height: NDArray[np.float32], seeds: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Marker watershed from the highest ground down within the mask. Pieces of the mask that hold one bone's seeds alone
    need no flood and get none."""
    pieces, count = cc3d.connected_components(mask, connectivity=6, return_N=True)
    at = np.flatnonzero(seeds)
    owner, value = pieces.ravel()[at], seeds.ravel()[at]
    least, most = np.full(count + 1, 255, np.uint8), np.zeros(count + 1, np.uint8)
    np.minimum.at(least, owner, value)
    np.maximum.at(most, owner, value)
    least[0] = most[0] = 0
    values = np.where(least == most, most, 0).astype(np.uint8)[pieces]
    mixed = np.flatnonzero(least < most)
    boxes = cc3d.statistics(pieces)["bounding_boxes"] if len(mixed) else []
    for piece in mixed:
        box = boxes[piece]
        own = pieces[box] == piece
        values[box][own] = watershed(-height[box], seeds[box] * own, mask=own)[own]
    return values


def grown_into(values: NDArray[np.uint8], mask: NDArray[np.bool_], smooth: NDArray[np.float32]) -> None:
    """Unlabelled voxels of the mask given to the bone they are joined to by the brightest way, in place."""
    bare = mask & (values == 0)
    rim = ndimage.binary_dilation(bare) & (values > 0)
    found = watershed(-smooth, np.where(rim, values, 0), mask=bare | rim)
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
