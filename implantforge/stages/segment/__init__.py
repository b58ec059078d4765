"""Bone labels from HU: femora, hip bones and sacrum apart, left and right apart, interiors filled."""

from __future__ import annotations

import cc3d
import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from implantforge.core import Array, InputError, Labels, Side, Volume
from implantforge.stages.segment.heads import BONE_HU, Head, find_heads
from implantforge.stages.segment.joint import joint_space, shell

__all__ = ["bones"]

COARSEST_MM = 2.5
"""A hip's joint space is 2-5 mm; wider voxels do not show it."""
LARGEST_HOLE_MM2 = 3500.0
"""Holes of an axial slice up to this area are bone interior: a head is 1700 mm2, the pelvic inlet above 8000 mm2."""
NAMES = {"femur_left": 1, "femur_right": 2, "hip_left": 3, "hip_right": 4, "sacrum": 5}


def bones(volume: Volume) -> Labels:
    """Labels uint8 on the volume's grid with TotalSegmentator names.

    Femoral heads are spheres that bone edges vote for; the joint space is the first valley of HU around them; the
    bones come from a marker watershed on depth. InputError when the scan shows no bone or no femur. The grid's axes
    must run near left, posterior, superior, as every volume from stages.dicom does.
    """
    if volume.grid.spacing_mm.max() > COARSEST_MM:
        raise InputError(
            f"segment: voxels of {volume.grid.spacing_mm.max():.1f} mm are too coarse to tell femur from pelvis "
            f"(at most {COARSEST_MM} mm); scan again with thin slices"
        )
    start, stop = _bone_box(volume)
    crop = volume.crop(start, stop)
    spacing = crop.grid.spacing_mm
    smooth = ndimage.gaussian_filter(crop.hu.astype(np.float32), 0.6 / spacing, truncate=3.0)
    heads = find_heads(smooth, spacing)
    if not heads:
        raise InputError("segment: no femur in this scan (no head: no bony sphere of 17-31 mm radius)")
    values = np.zeros(volume.grid.shape, dtype=np.uint8)
    window = tuple(slice(a, b) for a, b in zip(start, stop))
    values[window] = _split(smooth, spacing, heads)
    present = set(np.unique(values[window]).tolist())
    names = {name: value for name, value in NAMES.items() if value in present}
    if not any(name.startswith("femur") for name in names):
        raise InputError("segment: no femur in this scan (a head was seen, but no shaft below it)")
    return Labels(volume.grid, values, names)


def _bone_box(volume: Volume) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Index box around dense bone, 8 mm wider, so that air and flesh far away cost nothing."""
    pieces, count = cc3d.connected_components(volume.hu[::2, ::2, ::2] > 400, connectivity=26, return_N=True)
    voxel_mm3 = 8.0 * float(np.prod(volume.grid.spacing_mm))
    stats = cc3d.statistics(pieces)
    boxes = [stats["bounding_boxes"][n] for n in range(1, count + 1) if stats["voxel_counts"][n] * voxel_mm3 > 2000.0]
    if not boxes:
        raise InputError("segment: no bone in this scan (nothing above 400 HU is larger than 2 cm3)")
    margin = np.ceil(8.0 / volume.grid.spacing_mm).astype(int)
    lo = [max(0, 2 * min(b[a].start for b in boxes) - margin[a]) for a in range(3)]
    hi = [min(volume.grid.shape[a], 2 * max(b[a].stop for b in boxes) + margin[a]) for a in range(3)]
    return tuple(lo), tuple(hi)


def _filled(mask: NDArray[np.bool_], spacing_mm: Array) -> NDArray[np.bool_]:
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


def _split(smooth: NDArray[np.float32], spacing_mm: Array, heads: list[Head]) -> NDArray[np.uint8]:
    """One value a bone: a flood on depth that the joint spaces stop, then each side of a joint given its own voxels."""
    sides = _sides(smooth, spacing_mm, heads)
    bone = _filled(smooth > BONE_HU, spacing_mm)
    free = bone.copy()
    shells = [
        shell(joint_space(smooth, spacing_mm, head, 1.0 if side == "left" else -1.0), smooth.shape, spacing_mm)
        for head, side in zip(heads, sides)
    ]
    wall_mm = 0.9 * float(spacing_mm.max())
    for window, radius, gap, soft in shells:
        bone[window] &= ~((radius > soft[0]) & (radius < soft[1]))
        free[window] &= bone[window] & ~(np.abs(radius - gap) < wall_mm)
    back, sheet = _sacroiliac_sheet(smooth, spacing_mm, heads, sides)
    free[back] &= ~sheet
    depth = edt.edt(free, anisotropy=tuple(spacing_mm), parallel=2)
    seeds = _seeds(depth, spacing_mm, heads, sides)
    values = watershed(-depth, seeds, mask=free).astype(np.uint8)
    values[back] = watershed(-smooth[back], values[back], mask=bone[back])
    for (window, radius, gap, _), side in zip(shells, sides):
        jointed = bone[window] & np.isfinite(gap)
        values[window][jointed] = np.where(radius < gap, NAMES[f"femur_{side}"], NAMES[f"hip_{side}"])[jointed]
    return _in_one_piece(values)


def _in_one_piece(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
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


def _sacroiliac_sheet(
    smooth: NDArray[np.float32], spacing_mm: Array, heads: list[Head], sides: list[Side]
) -> tuple[tuple[slice, ...], NDArray[np.bool_]]:
    """Window behind and above the heads, and in it the dark sheets thinner than 4 mm: sacroiliac joints among them."""
    middle, _ = _pelvic_axis(heads, sides)
    lo = np.clip(((middle - [95.0, 0.0, 0.0]) / spacing_mm).astype(int), 0, smooth.shape)
    hi = np.clip(((middle + [95.0, 150.0, 200.0]) / spacing_mm).astype(int), 0, smooth.shape)
    window = tuple(slice(a, b) for a, b in zip(lo, hi))
    block = np.minimum(smooth[window], 700.0)
    if min(block.shape) < 5:
        return window, np.zeros(block.shape, dtype=bool)
    sheet = np.zeros(block.shape, dtype=bool)
    for axis in range(3):
        reach = round(3.5 / spacing_mm[axis])
        rim = [np.roll(block, step, axis) for step in (-reach, reach)]
        sheet |= (np.minimum(*rim) - block) > 150.0
    return window, sheet


def _seeds(depth: NDArray[np.float32], spacing_mm: Array, heads: list[Head], sides: list[Side]) -> NDArray[np.uint8]:
    """Where each bone certainly is, from the heads: their cores, ilium above, ischium beside, sacrum behind."""
    x, y = (np.arange(n) * s for n, s in zip(depth.shape[:2], spacing_mm))
    middle, across = _pelvic_axis(heads, sides)
    outward = (x[:, None] - middle[0]) * across[0] + (y[None, :] - middle[1]) * across[1]
    behind = (y[None, :] - middle[1]) * across[0] - (x[:, None] - middle[0]) * across[1]
    seeds = np.zeros(depth.shape, dtype=np.uint8)
    deep = depth > 1.5

    def plant(where: NDArray[np.bool_], above_mm: float, name: str) -> None:
        low = max(0, int(above_mm / spacing_mm[2]) + 1)
        region = deep[:, :, low:] & where[:, :, None] & (seeds[:, :, low:] == 0)
        seeds[:, :, low:][region] = NAMES[name]

    plant((np.abs(outward) < 22.0) & (behind > 25.0), middle[2] + 10.0, "sacrum")
    for head, side in zip(heads, sides):
        lateral = outward if side == "left" else -outward
        head_out = abs(float((head.at_mm - middle) @ across))
        plant((lateral > 35.0) & (behind < 20.0), head.at_mm[2] + head.radius_mm + 30.0, f"hip_{side}")
        inside = (lateral > 12.0) & (lateral < head_out - head.radius_mm - 6.0) & (behind < 25.0)
        plant(inside, head.at_mm[2] - 60.0, f"hip_{side}")
        seeds[_ball(depth.shape, spacing_mm, head.at_mm, 0.7 * head.radius_mm)] = NAMES[f"femur_{side}"]
    return seeds


def _pelvic_axis(heads: list[Head], sides: list[Side]) -> tuple[Array, Array]:
    """Point between the heads (mm) and the horizontal unit vector to the patient's left; one head alone: 90 mm from it."""
    if len(heads) == 1:
        return heads[0].at_mm - np.array([90.0 if sides[0] == "left" else -90.0, 0.0, 0.0]), np.array([1.0, 0.0, 0.0])
    left, right = (heads[sides.index(side)].at_mm for side in ("left", "right"))
    across = (left - right) * [1.0, 1.0, 0.0]
    return (left + right) / 2.0, across / np.linalg.norm(across)


def _ball(shape: tuple[int, ...], spacing_mm: Array, at_mm: Array, radius_mm: float) -> tuple[NDArray, ...]:
    """Indices of the voxels within radius_mm of at_mm."""
    lo = np.maximum(np.floor((at_mm - radius_mm) / spacing_mm).astype(int), 0)
    hi = np.minimum(np.ceil((at_mm + radius_mm) / spacing_mm).astype(int) + 1, shape)
    index = np.stack(np.meshgrid(*[np.arange(a, b) for a, b in zip(lo, hi)], indexing="ij"), axis=-1).reshape(-1, 3)
    near = np.linalg.norm(index * spacing_mm - at_mm, axis=1) < radius_mm
    return tuple(index[near].T)


def _sides(smooth: NDArray[np.float32], spacing_mm: Array, heads: list[Head]) -> list[Side]:
    """Each head's side from shape: the shaft lies lateral of its head. InputError when left and right contradict it."""
    sides: list[Side] = []
    for head in heads:
        low, high = (max(0, int((head.at_mm[2] - d) / spacing_mm[2])) for d in (90.0, 60.0))
        at = np.argwhere(smooth[:, :, low:high] > 600.0) * spacing_mm
        offset = at[:, 0] - head.at_mm[0]
        near = np.abs(offset) < 70.0
        if near.sum() < 50:
            raise InputError("segment: no femur in this scan (a head was seen, but no shaft 60-90 mm below it)")
        sides.append("left" if np.median(offset[near]) > 0 else "right")
    if len(heads) == 2 and (sides[0] == sides[1] or (heads[0].at_mm[0] > heads[1].at_mm[0]) != (sides[0] == "left")):
        raise InputError("segment: left and right disagree with the shape of the femora; is the scan mirrored?")
    return sides
