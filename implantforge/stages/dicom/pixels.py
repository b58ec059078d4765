"""Stored values to HU, slice by slice into the turned volume; tilt straightened, accepted gaps bridged in place."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Volume
from implantforge.geom import grids
from implantforge.stages.dicom import geometry
from implantforge.stages.dicom.decoding import stored_slices
from implantforge.stages.dicom.headers import Frame
from implantforge.stages.dicom.looking import Look
from implantforge.stages.dicom.rules import FLOOR_HU, RULES

# Strided writes of single slices are slow: so many go into the volume at once.
BLOCK = 32


def volume(stack: geometry.Stack, series_uid: str, look: Look) -> tuple[Volume, int]:
    """The stack's HU on its canonical grid (tilt straightened), and how many voxels were padding or below -1024 HU.

    Every slice passes `look` on its way.
    """
    axes, spacing = stack.axes, stack.spacing_mm
    columns, rows, slices = stack.shape
    low, grow = sheared(stack)
    shape = (columns + int(grow[0]), rows + int(grow[1]), slices)
    origin = stack.origin_mm + axes[0] * low[0] * spacing[0] + axes[1] * low[1] * spacing[1]
    grid = grids.canonical(axes, spacing, origin, shape)
    hu = np.empty(grid.shape, np.int16)
    raw = grids.raw_view(hu, axes)
    planes: list[NDArray[np.int16]] = []
    padded = 0

    def put(first: int, some: list[NDArray[np.int16]]) -> None:
        for plane in some:
            look.add(plane)
        raw[:, :, first : first + len(some)] = np.stack(some).transpose(2, 1, 0)

    # one thread decodes, the other looks and turns; never more than two blocks wait
    with ThreadPoolExecutor(1) as other:
        last: Future[None] | None = None
        for k, (plane, count) in enumerate(_even_planes(stack, low, shape)):
            padded += count
            planes.append(plane)
            if len(planes) == BLOCK or k == slices - 1:
                if last is not None:
                    last.result()
                last = other.submit(put, k + 1 - len(planes), planes)
                planes = []
        if last is not None:
            last.result()
    return Volume(grid, hu, series_uid, stack.frames[0].patient), padded


def look_at(stack: geometry.Stack) -> tuple[Look, int]:
    """What volume() would see, and its count of padded voxels, without holding a volume."""
    look, padded = looker(stack), 0
    low, grow = sheared(stack)
    shape = (stack.shape[0] + int(grow[0]), stack.shape[1] + int(grow[1]), stack.shape[2])
    for plane, count in _even_planes(stack, low, shape):
        look.add(plane)
        padded += count
    return look, padded


def looker(stack: geometry.Stack) -> Look:
    """A Look for the slices of a stack; bridged gaps have no order to judge."""
    across, down, step = (float(v) for v in stack.spacing_mm)
    return Look((across, down, step), _top_hu(stack.frames[0]), ordered=not stack.uneven)


def _top_hu(frame: Frame) -> float | None:
    """HU of the largest storable value, None where the number range is too wide to saturate."""
    if not 0 < frame.bits_stored < 16:
        return None
    top = (1 << (frame.bits_stored - int(frame.signed))) - 1
    return top * (frame.slope or 1.0) + (frame.intercept or 0.0)


def _even_planes(stack: geometry.Stack, low: NDArray, shape: tuple[int, ...]) -> Iterator[tuple[NDArray, int]]:
    """(plane, padded voxels) at each even step: the slice that lies there, else (gaps that a person accepted) the two
    neighbours weighed by distance, so that no slice ever moves from its place."""
    planes = _planes(stack, low, shape)
    if not stack.uneven:
        yield from planes
        return
    at = stack.along_mm / stack.spacing_mm[2]
    (before, count), (after, more), n = next(planes), next(planes), 0
    for k in range(stack.shape[2]):
        while k > at[n + 1] and n + 2 < len(at):
            (before, count), (after, more), n = (after, more), next(planes), n + 1
        t = float(np.clip((k - at[n]) / (at[n + 1] - at[n]), 0.0, 1.0))
        mixed = np.rint(before * np.float32(1 - t) + after * np.float32(t)).astype(np.int16)
        yield mixed, count if t < 0.5 else more


def _planes(stack: geometry.Stack, low: NDArray, shape: tuple[int, ...]) -> Iterator[tuple[NDArray, int]]:
    """(HU plane, padded voxels) of each slice there is, moved in its plane when the stack is sheared."""
    at = stack.along_mm / stack.spacing_mm[2]
    for k, stored in enumerate(stored_slices(stack.frames)):
        plane, count = to_hu(stored, stack.frames[k])
        yield (straightened(plane, stack, float(at[k]), low, shape[1::-1]) if stack.shear_mm.any() else plane), count


def to_hu(stored: NDArray, frame: Frame) -> tuple[NDArray[np.int16], int]:
    """HU int16 with padding and all below -1024 set to -1024, and the count of those."""
    slope, intercept = frame.slope or 1.0, frame.intercept or 0.0
    if slope == 1.0 and float(intercept).is_integer() and abs(intercept) < 1e6 and stored.dtype.kind in "iu":
        hu = stored.astype(np.int32) + int(intercept)
    else:
        hu = np.rint(stored * np.float64(slope) + intercept)
        hu = np.nan_to_num(hu, nan=FLOOR_HU, posinf=32767, neginf=FLOOR_HU)
    below = hu < FLOOR_HU
    pad = padding_hu(frame)
    if pad is not None and pad <= RULES["padding_in_range"].threshold and frame.padding is not None:
        below |= (stored >= frame.padding[0]) & (stored <= frame.padding[1])
    hu[below] = FLOOR_HU
    return np.minimum(hu, 32767).astype(np.int16), int(np.count_nonzero(below))


def padding_hu(frame: Frame) -> float | None:
    """The highest HU that the padding values stand for, None without padding."""
    if frame.padding is None:
        return None
    return max(v * (frame.slope or 1.0) + (frame.intercept or 0.0) for v in frame.padding)


def sheared(stack: geometry.Stack) -> tuple[NDArray, NDArray]:
    """(first index, extra size) in pixels, along columns and rows, of the box around all slices of a sheared stack."""
    drift = stack.shear_mm / stack.spacing_mm[:2] * (stack.along_mm[-1] / stack.spacing_mm[2])
    low, high = np.floor(np.minimum(drift, 0.0)), np.ceil(np.maximum(drift, 0.0))
    return low, high - low


def straightened(
    plane: NDArray[np.int16], stack: geometry.Stack, k: float, low: NDArray, shape: tuple[int, ...]
) -> NDArray[np.int16]:
    """The slice at step k moved in its plane to where it truly lies; -1024 HU where nothing was scanned.

    Cubic (Catmull-Rom) along each drifting axis: no prefilter, so that nothing rings beyond two pixels of an edge.
    """
    drift = stack.shear_mm / stack.spacing_mm[:2] * k - low
    out = np.full(shape, FLOOR_HU, np.float32)
    whole = np.floor(drift).astype(int)
    out[whole[1] : whole[1] + plane.shape[0], whole[0] : whole[0] + plane.shape[1]] = plane
    for axis, part in ((1, drift[0] - whole[0]), (0, drift[1] - whole[1])):
        if part > 1e-6:
            out = _shifted(out, float(part), axis)
    return np.clip(np.rint(out), FLOOR_HU, 32767).astype(np.int16)


def _shifted(values: NDArray, t: float, axis: int) -> NDArray:
    """values moved by t in (0,1) samples towards higher index: out[n] = v(n - t)."""
    s = 1.0 - t  # position between n-1 and n
    weights = (
        -s * (1 - s) ** 2 / 2,
        (2 - 5 * s**2 + 3 * s**3) / 2,
        s * (1 + 4 * s - 3 * s**2) / 2,
        -(s**2) * (1 - s) / 2,
    )
    pad = [(0, 0), (0, 0)]
    pad[axis] = (2, 1)
    wide = np.pad(values, pad, mode="edge")
    size = values.shape[axis]
    parts = (wide[n : n + size] if axis == 0 else wide[:, n : n + size] for n in range(4))
    out = np.zeros_like(values)
    for weight, part in zip(weights, parts):
        out += np.float32(weight) * part
    return out
