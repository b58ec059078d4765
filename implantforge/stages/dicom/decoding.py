"""Stored values of one image by a named decoder, or a refusal that names the transfer syntax."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from implantforge.core import InputError
from implantforge.stages.dicom.headers import Frame, dataset_of

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
# Below this no CT number lies; a single such value is padding.
LOWEST_HU = -1300


def syntax_name(uid: str) -> str:
    """The plain name of a transfer syntax, or its UID where it has none here."""
    if uid in SYNTAXES:
        return SYNTAXES[uid][0]
    from pydicom.uid import UID

    return UID(uid).name


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
        if not frame.photometric:  # one sample a pixel was checked: grey is what is left
            dataset.PhotometricInterpretation = "MONOCHROME2"
        decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
        # Unused bits are looked at below: masking them would turn metal into soft tissue where BitsStored is too small.
        options: Any = {"raw": True, "decoding_plugin": plugin, "correct_unused_bits": False}
        stored, _ = decoder.as_array(dataset, index=frame.index, **options)
    except Exception as error:
        raise InputError(f"CT: pixels of file {frame.member.number}, frame {frame.index + 1} ({name}) cannot be "
                         f"decoded ({type(error).__name__}): export the series again") from None  # fmt: skip
    if stored.shape != (frame.rows, frame.columns):
        raise InputError(
            f"CT: file {frame.member.number} decodes to {stored.shape}, header says {(frame.rows, frame.columns)}"
        )
    return _within_bits(stored, frame)


def plain(dataset: Any, index: int, syntax: str, number: int) -> NDArray:
    """One frame as stored, whatever its size; InputError names the file number."""
    from pydicom.pixels import get_decoder

    try:
        options: Any = {"raw": True, "decoding_plugin": SYNTAXES[syntax][1]}
        return get_decoder(dataset.file_meta.TransferSyntaxUID).as_array(dataset, index=index, **options)[0]
    except Exception as error:
        raise InputError(f"SEG: pixels of file {number}, frame {index + 1} ({SYNTAXES[syntax][0]}) cannot be decoded "
                         f"({type(error).__name__})") from None  # fmt: skip


def _within_bits(stored: NDArray, frame: Frame) -> NDArray:
    """Values that fit BitsStored, signs extended where the writer left them out; InputError where the header is wrong.

    Padding may lie outside: scanners do that.
    """
    bits = frame.bits_stored
    if stored.dtype.kind not in "iu" or not 0 < bits < frame.bits_allocated:
        return stored
    half, full = 1 << (bits - 1), 1 << bits
    low, high = int(stored.min()), int(stored.max())
    if (not frame.signed and low >= 0 and high < full) or (frame.signed and -half <= low and high < half):
        return stored
    if frame.signed and low >= 0 and high < full:
        restored = np.where(stored >= half, stored - full, stored).astype(stored.dtype)
        _believable(restored, frame)
        return restored
    pad = frame.padding or (0, 0)
    over = (stored >= (half if frame.signed else full)) & ((stored < pad[0]) | (stored > pad[1]))
    if over.any():
        raise InputError(f"CT: file {frame.member.number} holds numbers up to {high} where its header allows {bits} "
                         "bits: export the series again")  # fmt: skip
    return stored


def _believable(restored: NDArray, frame: Frame) -> None:
    """InputError when sign bits that were put back make numbers no CT has: then the pixels were unsigned after all."""
    negative = restored[restored < 0]
    hu = negative * (frame.slope or 1.0) + (frame.intercept or 0.0)
    odd = hu < LOWEST_HU
    if odd.any() and len(np.unique(negative[odd])) > 1:
        raise InputError(f"CT: file {frame.member.number} says signed, yet {int(odd.sum())} numbers then mean "
                         f"{float(hu.min()):.0f} HU and less: its pixel representation is wrong, export again")  # fmt: skip
