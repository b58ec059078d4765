"""Femora, hip bones and sacrum: a flood on depth that the joint spaces stop."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import edt
import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array, InputError, Side
from implantforge.stages.segment.flood import ball, filled, flooded, grown_into, hollow_filled, in_one_piece
from implantforge.stages.segment.heads import Head
from implantforge.stages.segment.joint import joint_space, neck_side, shell
from implantforge.stages.segment.names import NAMES

REST = 255
SPINE_MM = 140.0
"""Height above the hip centres where the spine is certain: L5's lower end plate lies 90-120 mm above them."""


def split(
    smooth: NDArray[np.float32], dense: NDArray[np.bool_], spacing_mm: Array, heads: list[Head]
) -> NDArray[np.uint8]:
    """One value a bone: a flood on depth that the joint spaces stop, then each side of a joint given its own voxels.
    dense: where smooth is above BONE_HU, without crumbs."""
    sides = sides_of(smooth, spacing_mm, heads)
    with ThreadPoolExecutor(2) as pool:
        joints = pool.map(lambda head, side: _joint(smooth, spacing_mm, head, side), heads, sides)
        bone = filled(dense, spacing_mm)
        shells = list(joints)
    free = bone.copy()
    wall_mm = 0.9 * float(spacing_mm.max())
    for window, radius, gap, soft in shells:
        bone[window] &= ~((radius > soft[0]) & (radius < soft[1]))
        free[window] &= bone[window] & ~(np.abs(radius - gap) < wall_mm)
    back, sheet = _sacroiliac_sheet(smooth, spacing_mm, heads, sides)
    free[back] &= ~sheet
    depth = edt.edt(free, anisotropy=tuple(spacing_mm), parallel=2)
    seeds = _seeds(depth, spacing_mm, heads, sides)
    values = flooded(depth, seeds, free)
    grown_into(values[back], bone[back], smooth[back])
    for (window, radius, gap, _), side in zip(shells, sides):
        jointed = bone[window] & np.isfinite(gap)
        values[window][jointed] = np.where(radius < gap, NAMES[f"femur_{side}"], NAMES[f"hip_{side}"])[jointed]
    values[values == REST] = 0
    values = in_one_piece(values)
    hollow_filled(values, NAMES["sacrum"], spacing_mm)
    return values


def _joint(
    smooth: NDArray[np.float32], spacing_mm: Array, head: Head, side: Side
) -> tuple[tuple[slice, ...], Array, Array, Array]:
    """The joint space of one hip on the voxels around its head."""
    return shell(joint_space(smooth, spacing_mm, head, 1.0 if side == "left" else -1.0), smooth.shape, spacing_mm)


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

    def plant(where: NDArray[np.bool_], low_mm: float, high_mm: float, name: str) -> None:
        low, high = (max(0, int(min(z, 9999.0) / spacing_mm[2]) + 1) for z in (low_mm, high_mm))
        region = deep[:, :, low:high] & where[:, :, None] & (seeds[:, :, low:high] == 0)
        seeds[:, :, low:high][region] = NAMES.get(name, REST)

    up = np.inf
    plant((np.abs(outward) < 35.0) & (behind > -30.0), middle[2] + SPINE_MM, up, "spine")
    plant((np.abs(outward) < 22.0) & (behind > 25.0), middle[2] + 10.0, up, "sacrum")
    for head, side in zip(heads, sides):
        lateral = outward if side == "left" else -outward
        head_out = abs(float((head.at_mm - middle) @ across))
        # the sacrum's wings reach 60 mm aside at most, and forward as far as the hip centres
        wing = lateral > max(0.75 * head_out, 62.0)
        plant(wing & (behind < 20.0), head.at_mm[2] + head.radius_mm + 30.0, up, f"hip_{side}")
        inside = (lateral > 12.0) & (lateral < head_out - head.radius_mm - 6.0) & (behind < 25.0)
        plant(inside, head.at_mm[2] - 60.0, head.at_mm[2] + 10.0, f"hip_{side}")
        seeds[ball(depth.shape, spacing_mm, head.at_mm, 0.7 * head.radius_mm)] = NAMES[f"femur_{side}"]
    return seeds


def _pelvic_axis(heads: list[Head], sides: list[Side]) -> tuple[Array, Array]:
    """Point between the heads (mm) and the horizontal unit vector to the patient's left; one head alone: 90 mm from it."""
    if len(heads) == 1:
        return heads[0].at_mm - np.array([90.0 if sides[0] == "left" else -90.0, 0.0, 0.0]), np.array([1.0, 0.0, 0.0])
    left, right = (heads[sides.index(side)].at_mm for side in ("left", "right"))
    across = (left - right) * [1.0, 1.0, 0.0]
    return (left + right) / 2.0, across / np.linalg.norm(across)


def sides_of(smooth: NDArray[np.float32], spacing_mm: Array, heads: list[Head]) -> list[Side]:
    """Each head's side from shape: shaft and neck lie lateral of it. InputError when left and right contradict that."""
    sides: list[Side] = []
    for head in heads:
        low, high = (max(0, int((head.at_mm[2] - d) / spacing_mm[2])) for d in (90.0, 60.0))
        at = np.argwhere(smooth[:, :, low:high] > 600.0) * spacing_mm
        offset = at[:, 0] - head.at_mm[0]
        near = np.abs(offset) < 70.0
        lateral = float(np.median(offset[near])) if near.sum() >= 50 else neck_side(smooth, spacing_mm, head)
        if lateral == 0.0:
            raise InputError("segment: no femur in this scan (a head was seen, but neither neck nor shaft beside it)")
        sides.append("left" if lateral > 0 else "right")
    if len(heads) == 2 and (sides[0] == sides[1] or (heads[0].at_mm[0] > heads[1].at_mm[0]) != (sides[0] == "left")):
        raise InputError("segment: left and right disagree with the shape of the femora; is the scan mirrored?")
    return sides
