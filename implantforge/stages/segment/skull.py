"""Skull and mandible: the bone around the cranial cavity, and what hangs below it in front."""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from implantforge.core import Array
from implantforge.geom import flooding
from implantforge.stages.segment.flood import LEVEL_MM, without_crumbs
from implantforge.stages.segment.names import NAMES

BONE_HU = 300.0
"""Bone of the vault and face; cushions, holders and contrast-filled vessels stay below it."""
CAVITY_MM2 = 5000.0
"""An axial slice through the brain is 8,000-20,000 mm2 inside the bone; no other closed ring of the body is as large."""
LEAST_HEIGHT_MM = 15.0
CHIN_MM, NECK_MM = 95.0, 75.0
"""Below the orbits' roof: the mandible's body begins about 90 mm, the upper neck 50-60 mm under it."""
DIPLOE_MM2 = 150.0
AIR_HU = -200.0
REST = 255


@dataclass(frozen=True, eq=False)
class Cavity:
    """Where the brain lies: boolean mask [i,j,k], lowest and highest slice, and its middle (i,j)."""

    mask: NDArray[np.bool_]
    low: int
    high: int
    middle: Array


def find_cavity(smooth: NDArray[np.float32], spacing_mm: Array) -> Cavity | None:
    """The cranial cavity: holes of 5,000 mm2 and more in the bone of at least 15 mm of axial slices; None without one."""
    step = 2
    bone = smooth[::step, ::step] > BONE_HU
    # a saw cut or a suture must not open the ring of a slice
    bone = ndimage.maximum_filter1d(bone.view(np.uint8), 2 * round(3.0 / float(spacing_mm[2])) + 1, axis=2) > 0
    close = max(1, round(1.5 / float(spacing_mm[0] * step)))
    pixel_mm2 = float(spacing_mm[0] * spacing_mm[1]) * step**2
    mask = np.zeros(bone.shape, dtype=bool)
    for k in range(bone.shape[2]):
        if bone[:, :, k].sum() * pixel_mm2 < 400.0:
            continue
        shut = ndimage.binary_dilation(bone[:, :, k], iterations=close)
        holes = cc3d.connected_components(~shut, connectivity=4)
        size = np.bincount(holes.ravel())
        size[0] = 0
        size[np.unique(np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]]))] = 0
        mask[:, :, k] = np.isin(holes, np.flatnonzero(size * pixel_mm2 > CAVITY_MM2))
    pieces, count = cc3d.connected_components(mask, connectivity=6, return_N=True)
    if not count:
        return None
    mask = pieces == 1 + int(np.bincount(pieces.ravel())[1:].argmax())
    slices = np.flatnonzero(mask.any(axis=(0, 1)))
    if len(slices) * spacing_mm[2] < LEAST_HEIGHT_MM:
        return None
    middle = np.argwhere(mask).mean(axis=0)[:2] * step
    full = np.repeat(np.repeat(mask, step, axis=0), step, axis=1)[: smooth.shape[0], : smooth.shape[1]]
    return Cavity(full, int(slices[0]), int(slices[-1]), middle)


def split(smooth: NDArray[np.float32], spacing_mm: Array, cavity: Cavity) -> NDArray[np.uint8]:
    """Values of skull and mandible. Diploe is filled, sinuses and the cavity are not; the spine is left out.

    The mandible is what a flood on depth reaches from the bone in front that lies more than 95 mm below the lowest
    slice the cavity closes in (the orbits' roof); joints and teeth that touch are cut where the
    bone between is thinnest. A sawn vault stays one label.
    """
    bone = _solid(smooth, spacing_mm)
    depth = edt.edt(bone, anisotropy=tuple(float(s) for s in spacing_mm), parallel=2)
    seeds = np.zeros(bone.shape, dtype=np.uint8)
    floor = cavity.low
    around = ndimage.binary_dilation(cavity.mask[::2, ::2], iterations=round(4.0 / float(spacing_mm[0])))
    around = np.repeat(np.repeat(around, 2, axis=0), 2, axis=1)[: bone.shape[0], : bone.shape[1]]
    seeds[around & bone & (depth > 0.3 * float(spacing_mm.min()))] = NAMES["skull"]
    y = (np.arange(bone.shape[1]) - cavity.middle[1]) * spacing_mm[1]
    below = floor - round(CHIN_MM / float(spacing_mm[2]))
    front, back = (y < 5.0)[None, :, None], (y > 15.0)[None, :, None]
    if below > 0:
        seeds[:, :, :below][(bone & front)[:, :, :below] & (depth[:, :, :below] > 1.5)] = NAMES["mandible"]
    low = floor - round(NECK_MM / float(spacing_mm[2]))
    if low > 0:
        seeds[:, :, :low][(bone & back)[:, :, :low] & (depth[:, :, :low] > 1.5)] = REST
    if len(np.unique(seeds)) > 2:
        values = flooding.flooded(depth, seeds, bone, LEVEL_MM)
        values[values == REST] = 0
        return values
    pieces = cc3d.connected_components(bone, connectivity=6)
    keep = np.zeros(int(pieces.max()) + 1, dtype=bool)
    keep[pieces[seeds > 0]] = True
    return np.where(keep[pieces], np.uint8(NAMES["skull"]), np.uint8(0))


def _solid(smooth: NDArray[np.float32], spacing_mm: Array) -> NDArray[np.bool_]:
    """Bone above BONE_HU without crumbs, small holes of axial slices filled unless they hold air."""
    mask = without_crumbs(smooth > BONE_HU, spacing_mm)
    limit = DIPLOE_MM2 / float(spacing_mm[0] * spacing_mm[1])
    out = mask.copy()
    for k in range(mask.shape[2]):
        if not mask[:, :, k].any():
            continue
        holes = cc3d.connected_components(~mask[:, :, k], connectivity=4)
        size = np.bincount(holes.ravel())
        mean = np.bincount(holes.ravel(), smooth[:, :, k].ravel()) / np.maximum(size, 1)
        fill = (size < limit) & (mean > AIR_HU)
        fill[0] = False
        out[:, :, k] |= fill[holes]
    return out
