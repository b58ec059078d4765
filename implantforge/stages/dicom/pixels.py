"""Stored values to HU: one slice at a time, by a named decoder, into the turned volume."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from implantforge.core import InputError, Volume
from implantforge.geom import grids
from implantforge.stages.dicom import geometry
from implantforge.stages.dicom.headers import Frame, dataset_of
from implantforge.stages.dicom.rules import FLOOR_HU, RULES

# Transfer syntax: name, decoder ("" is pydicom's own), lossy. What is not here is refused by name: 12-bit lossy JPEG
# (Extended, 4.51) has no decoder under a permissive licence.
SYNTAXES: dict[str, tuple[str, str, bool]] = {
    "1.2.840.10008.1.2": ("Implicit VR Little Endian", "", False),
    "1.2.840.10008.1.2.1": ("Explicit VR Little Endian", "", False),
    "1.2.840.10008.1.2.1.99": ("Deflated Explicit VR Little Endian", "", False),
    "1.2.840.10008.1.2.2": ("Explicit VR Big Endian", "", False),
    "1.2.840.10008.1.2.5": ("RLE Lossless", "pydicom", False),
    "1.2.840.10008.1.2.4.50": ("JPEG Baseline", "gdcm", True),
    "1.2.840.10008.1.2.4.57": ("JPEG Lossless", "gdcm", False),
    "1.2.840.10008.1.2.4.70": ("JPEG Lossless SV1", "gdcm", False),
    "1.2.840.10008.1.2.4.80": ("JPEG-LS Lossless", "gdcm", False),
    "1.2.840.10008.1.2.4.81": ("JPEG-LS Near Lossless", "gdcm", True),
    "1.2.840.10008.1.2.4.90": ("JPEG 2000 Lossless", "pylibjpeg", False),
    "1.2.840.10008.1.2.4.91": ("JPEG 2000", "pylibjpeg", True),
    "1.2.840.10008.1.2.4.201": ("HTJ2K Lossless", "pylibjpeg", False),
    "1.2.840.10008.1.2.4.202": ("HTJ2K RPCL Lossless", "pylibjpeg", False),
    "1.2.840.10008.1.2.4.203": ("HTJ2K", "pylibjpeg", True),
}
# Strided writes of single slices are slow: so many go into the volume at once.
BLOCK = 32


def syntax_name(uid: str) -> str:
    """The plain name of a transfer syntax, or its UID where it has none here."""
    if uid in SYNTAXES:
        return SYNTAXES[uid][0]
    from pydicom.uid import UID

    return UID(uid).name


def volume(stack: geometry.Stack, series_uid: str) -> tuple[Volume, int]:
    """The stack's HU on its canonical grid (tilt straightened), and how many voxels were padding or below -1024 HU."""
    axes, spacing = stack.axes, stack.spacing_mm
    columns, rows, slices = stack.shape
    low, grow = sheared(stack)
    shape = (columns + int(grow[0]), rows + int(grow[1]), slices)
    origin = stack.origin_mm + axes[0] * low[0] * spacing[0] + axes[1] * low[1] * spacing[1]
    grid = grids.canonical(axes, spacing, origin, shape)
    hu = np.empty(grid.shape, np.int16)
    raw = grids.raw_view(hu, axes)
    block = np.full((min(BLOCK, slices), shape[1], shape[0]), FLOOR_HU, np.int16)
    filled, padded = 0, 0
    for k, stored in enumerate(stored_slices(stack.frames)):
        plane, count = to_hu(stored, stack.frames[k])
        padded += count
        block[filled] = plane if not stack.shear_mm.any() else straightened(plane, stack, k, low, block.shape[1:])
        filled += 1
        if filled == len(block) or k == slices - 1:
            raw[:, :, k + 1 - filled : k + 1] = block[:filled].transpose(2, 1, 0)
            filled = 0
    return Volume(grid, hu, series_uid, stack.frames[0].patient), padded


def stored_slices(frames: tuple[Frame, ...] | list[Frame]) -> Iterator[NDArray]:
    """Stored values (rows, columns) of each frame in turn; a multi-frame file is parsed once per run of its frames."""
    dataset, held = None, None
    for frame in frames:
        if frame.member is not held:
            dataset = None  # let go of the last file before the next is read
            dataset, held = dataset_of(frame.member), frame.member
        yield decode(dataset, frame)


def decode(dataset: Any, frame: Frame) -> NDArray:
    """One frame's stored values (rows, columns); InputError names the file number and the transfer syntax."""
    from pydicom.pixels import get_decoder

    if frame.syntax not in SYNTAXES:
        raise InputError(
            f"CT: transfer syntax {syntax_name(frame.syntax)} cannot be decoded: convert to JPEG-LS or uncompressed"
        )
    name, plugin, _ = SYNTAXES[frame.syntax]
    try:
        decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
        stored, _ = decoder.as_array(dataset, index=frame.index, raw=True, decoding_plugin=plugin)
    except Exception as error:
        raise InputError(f"CT: pixels of file {frame.member.number}, frame {frame.index + 1} ({name}) cannot be "
                         f"decoded ({type(error).__name__}): export the series again") from None  # fmt: skip
    if stored.shape != (frame.rows, frame.columns):
        raise InputError(
            f"CT: file {frame.member.number} decodes to {stored.shape}, header says {(frame.rows, frame.columns)}"
        )
    return stored


def to_hu(stored: NDArray, frame: Frame) -> tuple[NDArray[np.int16], int]:
    """HU int16 with padding and all below -1024 set to -1024, and the count of those."""
    slope, intercept = frame.slope or 1.0, frame.intercept or 0.0
    if slope == 1.0 and float(intercept).is_integer() and stored.dtype.kind in "iu":
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
    drift = stack.shear_mm / stack.spacing_mm[:2] * (len(stack.frames) - 1)
    low, high = np.floor(np.minimum(drift, 0.0)), np.ceil(np.maximum(drift, 0.0))
    return low, high - low


def straightened(
    plane: NDArray[np.int16], stack: geometry.Stack, k: int, low: NDArray, shape: tuple[int, ...]
) -> NDArray[np.int16]:
    """Slice k moved in its plane to where it truly lies on the rectangular grid; -1024 HU where nothing was scanned.

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
