"""Bone labels from HU: every region found by itself, each bone its own label, left and right apart, interiors filled."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Literal

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from implantforge.core import Array, InputError, Labels, Volume
from implantforge.stages.segment import hip, knee_split, skull
from implantforge.stages.segment.flood import blurred, filled, without_crumbs
from implantforge.stages.segment.heads import BONE_HU, Head, find_heads
from implantforge.stages.segment.knee import Knee, find_knees
from implantforge.stages.segment.metal import Artefact, artefacts, metal_mask
from implantforge.stages.segment.names import METAL, NAMES, UNDIVIDED

__all__ = ["REGIONS", "Artefact", "artefacts", "bones"]

Region = Literal["auto", "hip", "knee", "skull"]
REGIONS: tuple[Region, ...] = ("auto", "hip", "knee", "skull")
COARSEST_MM = 2.5
"""Coarser voxels do not show a joint space of 2-5 mm: bones stay one label, a picture to plan by."""


def bones(volume: Volume, region: Region = "auto") -> Labels:
    """Labels uint8 on the volume's grid with TotalSegmentator names, `metal` beside them where there is some.

    region "auto" takes every region the scan shows. Voxels coarser than 2.5 mm give the one label `bone`. InputError
    when the scan shows no bone, or not the region asked for. The grid's axes must run near left, posterior, superior,
    as every volume from stages.dicom does.
    """
    start, stop = _bone_box(volume)
    crop = volume.crop(start, stop)
    spacing = crop.grid.spacing_mm
    smooth = blurred(crop.hu, spacing)
    if spacing.max() > COARSEST_MM:
        found = filled(without_crumbs(smooth > BONE_HU, spacing), spacing).astype(np.uint8) * np.uint8(NAMES[UNDIVIDED])
    else:
        found = _regions(smooth, spacing, region)
    values = np.zeros(volume.grid.shape, dtype=np.uint8)
    window = tuple(slice(a, b) for a, b in zip(start, stop))
    values[window] = found
    values[metal_mask(volume)] = NAMES[METAL]
    present = ndimage.find_objects(values, max_label=255)
    return Labels(volume.grid, values, {name: value for name, value in NAMES.items() if present[value - 1]})


def _regions(smooth: NDArray[np.float32], spacing_mm: Array, region: Region) -> NDArray[np.uint8]:
    """Label values of every region asked for that the image shows; InputError naming what was looked for."""
    bone = without_crumbs(smooth > BONE_HU, spacing_mm)
    with ThreadPoolExecutor(1) as other:
        legs = other.submit(find_knees, smooth, spacing_mm) if region in ("auto", "knee") else None
        heads = find_heads(smooth, bone, spacing_mm) if region in ("auto", "hip") else []
        knees = legs.result() if legs else []
    if region in ("auto", "skull") and not heads:
        cavity = skull.find_cavity(smooth, spacing_mm)
        if cavity is not None:
            return skull.split(smooth, spacing_mm, cavity)
    if heads and knees:
        low, high = max(knee.at_mm[2] for knee in knees), min(head.at_mm[2] for head in heads)
        if low < high:
            return _leg(smooth, bone, spacing_mm, heads, knees, round(0.5 * (low + high) / float(spacing_mm[2])))
        knees = []
    if heads:
        return hip.split(smooth, bone, spacing_mm, heads)
    if knees:
        return knee_split.split(smooth, spacing_mm, knees)
    raise InputError(f"segment: {_MISSING[region]}")


def _leg(
    smooth: NDArray[np.float32],
    bone: NDArray[np.bool_],
    spacing_mm: Array,
    heads: list[Head],
    knees: list[Knee],
    cut: int,
) -> NDArray[np.uint8]:
    """Hips and knees of one scan, parted at a slice through the femoral shafts, where both give the same label."""
    above = [replace(head, at_mm=head.at_mm - [0.0, 0.0, cut * spacing_mm[2]]) for head in heads]
    upper = hip.split(smooth[:, :, cut:], bone[:, :, cut:], spacing_mm, above)
    lower = knee_split.split(smooth[:, :, :cut], spacing_mm, knees)
    return np.concatenate([lower, upper], axis=2)


_MISSING: dict[Region, str] = {
    "auto": "no bone of this scan is known: no femur (no head: no bony sphere of 17-31 mm radius), no knee, no skull",
    "hip": "no femur in this scan (no head: no bony sphere of 17-31 mm radius)",
    "knee": "no knee in this scan",
    "skull": "no skull in this scan (no bone around a cavity of 50 cm2 and more)",
}


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
