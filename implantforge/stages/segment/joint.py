"""The joint space of a hip in polar coordinates around the head: where a ray leaves the femur and meets the pelvis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from implantforge.core import Array
from implantforge.stages.segment.heads import BONE_HU, Head

STEP_MM = 0.4
REACH_MM = (-3.0, 11.0)
"""Rays are read from 3 mm inside the head's sphere to 11 mm outside: cartilage is 4.5 mm, the fossa up to 8 mm deep."""
POLAR, AZIMUTH = 120, 240


@dataclass(frozen=True, eq=False)
class JointSpace:
    """Per direction (POLAR, AZIMUTH): gap_mm, radius of the darkest point between the bones, NaN where there is no
    bone beyond; soft_mm (2, ...), the run of soft tissue around it (empty where both bones' blur fills the gap)."""

    head: Head
    gap_mm: Array
    soft_mm: Array


def joint_space(smooth: NDArray[np.float32], spacing_mm: Array, head: Head) -> JointSpace:
    """The first valley of HU beyond the head's subchondral plate along every ray that then meets bone again."""
    polar = (np.arange(POLAR) + 0.5) * np.pi / POLAR
    azimuth = (np.arange(AZIMUTH) + 0.5) * 2.0 * np.pi / AZIMUTH
    sine = np.sin(polar)[:, None]
    rays = np.stack(
        [sine * np.cos(azimuth), sine * np.sin(azimuth), np.broadcast_to(np.cos(polar)[:, None], (POLAR, AZIMUTH))], -1
    )
    radii = head.radius_mm + np.arange(*REACH_MM, STEP_MM)
    at = (head.at_mm + rays[..., None, :] * radii[:, None]) / spacing_mm
    profile = ndimage.map_coordinates(smooth, at.reshape(-1, 3).T, order=1, mode="nearest")
    profile = profile.reshape(POLAR, AZIMUTH, len(radii))
    start = round((2.0 - REACH_MM[0]) / STEP_MM)
    plate = profile[..., :start].argmax(axis=-1)
    valley, found = _first_valley(profile, plate)
    gap = np.where(found, radii[valley], np.nan)
    gap = _regular(gap)
    index = np.clip(np.nan_to_num((gap - radii[0]) / STEP_MM), 0, len(radii) - 1).round().astype(int)
    return JointSpace(head, gap, _soft_run(profile, radii, index, gap))


def _first_valley(profile: NDArray, plate: NDArray) -> tuple[NDArray, NDArray]:
    """Index of the lowest sample after the plate and before bone begins again, and whether it does begin again."""
    count = profile.shape[-1]
    beyond = np.arange(count) > plate[..., None]
    masked = np.where(beyond, profile, np.inf)
    lowest = np.minimum.accumulate(masked, axis=-1)
    peak = np.take_along_axis(profile, plate[..., None], -1)
    rise = (profile > 1.25 * lowest + 40.0) & (profile > BONE_HU) & (lowest < 0.8 * peak - 20.0) & beyond
    found = rise.any(axis=-1) & (peak[..., 0] > BONE_HU)
    end = np.where(found, rise.argmax(axis=-1), count)
    before = np.where(np.arange(count) < end[..., None], masked, np.inf)
    return before.argmin(axis=-1), found


def _regular(gap: Array) -> Array:
    """Holes of the map filled and outliers removed by the median of a 7 x 7 neighbourhood that is half known."""
    padded = np.pad(gap, ((0, 0), (3, 3)), mode="wrap")
    padded = np.pad(padded, ((3, 3), (0, 0)), mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, (7, 7)).reshape(*gap.shape, 49)
    known = np.isfinite(around).sum(axis=-1)
    middle = np.full(gap.shape, np.nan)
    enough = known >= 20
    middle[enough] = np.nanmedian(around[enough], axis=-1)
    keep = np.abs(gap - middle) < 2.5
    return np.where(enough, np.where(keep, gap, middle), np.nan)


def _soft_run(profile: NDArray, radii: Array, index: NDArray, gap: Array) -> Array:
    """Radii (2, POLAR, AZIMUTH) between which the ray stays below BONE_HU around the gap; NaN where it never does."""
    count = profile.shape[-1]
    bone = profile >= BONE_HU
    order = np.arange(count)
    inner = np.where(bone & (order <= index[..., None]), order, -1).max(axis=-1) + 1
    outer = np.where(bone & (order >= index[..., None]), order, count).min(axis=-1) - 1
    empty = ~np.isfinite(gap) | (outer < inner)
    run = np.stack([radii[np.clip(inner, 0, count - 1)], radii[np.clip(outer, 0, count - 1)]])
    return np.where(empty, np.nan, run)


def shell(
    space: JointSpace, shape: tuple[int, ...], spacing_mm: Array
) -> tuple[tuple[slice, ...], Array, Array, Array]:
    """A window of the image around the head and, per voxel of it, radius, gap radius and soft run (2, ...) in mm."""
    head = space.head
    reach = head.radius_mm + REACH_MM[1]
    lo = np.maximum(np.floor((head.at_mm - reach) / spacing_mm).astype(int), 0)
    hi = np.minimum(np.ceil((head.at_mm + reach) / spacing_mm).astype(int) + 1, shape)
    x, y, z = (np.arange(a, b) * s - c for a, b, s, c in zip(lo, hi, spacing_mm, head.at_mm))
    x, y, z = x[:, None, None], y[None, :, None], z[None, None, :]
    radius = np.sqrt(x**2 + y**2 + z**2)
    row = np.minimum((np.arccos(np.clip(z / np.maximum(radius, 1e-9), -1, 1)) * POLAR / np.pi).astype(int), POLAR - 1)
    turn = np.mod(np.arctan2(y, x), 2.0 * np.pi) * AZIMUTH / (2.0 * np.pi)
    column = np.broadcast_to(np.minimum(turn.astype(int), AZIMUTH - 1), radius.shape)
    window = tuple(slice(a, b) for a, b in zip(lo, hi))
    return window, radius, space.gap_mm[row, column], space.soft_mm[:, row, column]
