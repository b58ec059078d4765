"""Mutations of what the pixels are: rescale, paint, cut files, mixtures, layout, encoding."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import numpy as np
from faults import (
    Fault,
    bits,
    compressed,
    cut,
    every,
    fault,
    one,
    overwritten,
    place,
    put,
    put_pixels,
    renamed,
    repainted,
    some,
    stranger,
)
from series import encoded, pixels, set_pixels, twin


def contents() -> Iterator[Fault]:
    """Every such fault, grouped by what was done."""
    yield from _rescale()
    yield from _paint()
    yield from _cuts()
    yield from _mixtures()
    yield from _layout()
    yield from _encoding()


def _rescale() -> Iterator[Fault]:
    hu = "refused: hu_air hu_deep hu_tissue hu_range hu_window rescale_odd"
    yield fault(
        "rescale removed",
        hu,
        lambda s: [delattr(d, t) for d in s for t in ("RescaleSlope", "RescaleIntercept")],
    )
    yield fault("intercept removed", hu, every("RescaleIntercept", None))
    yield fault("slope removed", "corrected: rescale_missing", every("RescaleSlope", None))
    yield fault("slope nan", "corrected: rescale_missing", every("RescaleSlope", b"nan "))
    yield fault("intercept nan", hu, every("RescaleIntercept", b"nan "))
    yield fault("intercept text", hu, every("RescaleIntercept", b"none"))
    for value in (0, -824, -900, -1124, -1200, -2048, 1024, -8192, -950):
        yield fault(f"intercept {value}", hu, every("RescaleIntercept", value))
    for value in (0, 2, 3, 0.5, 0.1, 10, -1, 0.001, 1e9):
        yield fault(f"slope {value}", hu + " undecodable", every("RescaleSlope", value))
    for value in (1.1, 0.9, 1.02):
        yield fault(f"slope {value}", "told: rescale_odd", every("RescaleSlope", value))
    for k in range(0, 20, 3):
        yield fault(f"intercept of slice {k}", "refused: rescale_varies", one(k, "RescaleIntercept", -1000))
        yield fault(f"slope of slice {k}", "refused: rescale_varies", one(k, "RescaleSlope", 1.2))
        yield fault(f"no intercept in slice {k}", "refused: rescale_varies", one(k, "RescaleIntercept", None))
    for unit in ("MGML", "HU_MOD", "OD", "Z_EFF", "PCT"):
        yield fault(f"unit {unit}", "refused: rescale_unit", every("RescaleType", unit))
    for unit in ("HU", "US"):
        yield fault(f"unit {unit}", "corrected", every("RescaleType", unit))
    yield fault(
        "stored as HU / 0.5",
        "corrected",
        lambda s: [(set_pixels(d, pixels(d) * 2), put(d, "RescaleSlope", 0.5)) for d in s] + [bits(s, 16, 15)],
    )
    for name, how in {
        "windowed": lambda v: np.clip(v, 824, 1424),
        "eight bits": lambda v: v // 16,
        "flat": lambda v: v * 0 + 1000,
        "inverted": lambda v: 4095 - v,
        "squared": lambda v: v * v // 4096,
        "bytes swapped": lambda v: (v >> 8) | (v & 255) << 8,
        "random": lambda v: np.random.default_rng(1).integers(0, 4096, v.shape),
    }.items():
        yield fault(f"pixels {name}", hu + " undecodable out_of_order scrambled_rows", repainted(range(20), how))
    for k in (5, 9, 14):
        for by in (150, 400, -150):
            yield fault(
                f"slice {k} brighter by {by}",
                "refused: out_of_order",
                repainted([k], lambda v, b=by: np.clip(v + b, 0, 4095)),
            )


def _paint() -> Iterator[Fault]:
    rng = np.random.default_rng(3)
    harms: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "mirrored": np.fliplr,
        "upside down": np.flipud,
        "turned": lambda v: np.rot90(v, 2),
        "black": lambda v: v * 0,
        "noise": lambda v: rng.integers(0, 2000, v.shape),
        "inverted": lambda v: np.clip(2100 - v, 0, 4095),
        "half black": lambda v: np.where(np.arange(len(v))[:, None] < 60, v, 0),
        "moved": lambda v: np.roll(v, 12, 1),
        "rows rolled": lambda v: np.roll(v, 15, 0),
        "half rolled": lambda v: np.where(np.arange(len(v))[:, None] < 60, v, np.roll(v, 30, 1)),
    }
    for name, how in harms.items():
        for k in (4, 8, 13, 15):
            yield fault(f"slice {k} {name}", "refused: out_of_order jump_max scrambled_rows", repainted([k], how))
    for n in (3, 8, 40, 64):
        yield fault(
            f"rows of {128 + n} cut as rows of 128",
            "refused: scrambled_rows",
            repainted(range(20), lambda v, n=n: np.resize(np.pad(v, ((0, 8), (0, n)), mode="edge").ravel(), v.shape)),
        )


def _cuts() -> Iterator[Fault]:
    for k in (3, 9, 16):
        for share in (0.0, 0.005, 0.01, 0.02, 0.04, 0.3, 0.7, 0.99):
            yield fault(
                f"slice {k} cut at {share}",
                "refused: missing_slices pixel_length no_pixels no_geometry undecodable",
                cut(k, share),
            )
    for k in (2, 10, 17):
        yield fault(
            f"pixels of slice {k} short",
            "refused: pixel_length",
            lambda s, k=k: put_pixels(s[k], s[k].PixelData[:-500]),
        )
        yield fault(
            f"pixels of slice {k} long",
            "refused: pixel_length",
            lambda s, k=k: put_pixels(s[k], s[k].PixelData + bytes(256)),
        )
        yield fault(f"no pixels in slice {k}", "refused: no_pixels", one(k, "PixelData", None))
        yield fault(
            f"garbage in the header of slice {k}",
            "refused: missing_slices pixel_length no_pixels no_geometry undecodable",
            lambda s, k=k: [overwritten(encoded(d), 400) if n == k else d for n, d in enumerate(s)],
        )
        yield fault(
            f"slice {k} is text",
            "refused: missing_slices",
            lambda s, k=k: [b"not DICOM " * 99 if n == k else d for n, d in enumerate(s)],
        )
    yield fault("all cut", "refused: pixel_length no_pixels undecodable", lambda s: [encoded(d)[:9000] for d in s])
    for k in (0, 19):
        yield fault(f"end slice {k} cut in its header", "corrected", cut(k, 0.01))


def _mixtures() -> Iterator[Fault]:
    for tag, value in (
        ("PatientID", "other"),
        ("PatientName", "Other^One"),
        ("PatientBirthDate", "19700101"),
        ("PatientSex", "M"),
    ):
        for k in (0, 9, 19):
            yield fault(f"other {tag} in slice {k}", "refused: mixed_patients", one(k, tag, value))
            yield fault(f"no {tag} in slice {k}", "refused: identity_partly_missing", one(k, tag, ""))
        yield fault(f"other {tag} in half", "refused: mixed_patients", some(range(10), tag, value))
    for tag, rule in (
        ("StudyInstanceUID", "mixed_studies"),
        ("FrameOfReferenceUID", "mixed_frame_of_reference"),
        ("ConvolutionKernel", "mixed_kernels"),
    ):
        for k in (0, 8, 19):
            yield fault(
                f"other {tag} in slice {k}", f"refused: {rule}", one(k, tag, "1.2.9" if "UID" in tag else "B20s")
            )
        yield fault(
            f"other {tag} in half", f"refused: {rule}", some(range(10), tag, "1.2.9" if "UID" in tag else "B20s")
        )
    for k in (3, 11, 16):
        yield fault(f"slice {k} of another series", "refused: missing_slices", one(k, "SeriesInstanceUID", "1.2.9"))
        yield fault(f"slice {k} of another modality", "refused: missing_slices", one(k, "Modality", "MR"))
        yield fault(
            f"slice {k} a localizer",
            "refused: missing_slices",
            one(k, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        )
        yield fault(f"slice {k} in colour", "refused: missing_slices mixed_spacing", one(k, "SamplesPerPixel", 3))
        yield fault(f"other voltage in slice {k}", "corrected: mixed_kvp", one(k, "KVP", 80))
        yield fault(
            f"slice {k} from another scan", "refused: out_of_order", lambda s, k=k: put_pixels(s[k], stranger())
        )
    for patient in ({"PatientID": "x"}, {"PatientName": "X^Y", "PatientID": "x"}, {"PatientBirthDate": "19010101"}):
        yield fault(
            f"two patients {sorted(patient)}",
            "refused: mixed_patients",
            lambda s, p=patient: s + [twin(d, SeriesInstanceUID="1.2.9", **p) for d in s],
        )
    for up in (0.5, 0.25, 20.0, 21.0, 30.0):
        yield fault(
            f"series twice, {up} mm apart",
            "refused: uneven_slices missing_slices out_of_order repeated_slices jump_max",
            lambda s, u=up: s + [twin(d, ImagePositionPatient=[*place(d)[:2], place(d)[2] + u]) for d in s],
        )
    yield fault(
        "second series of one patient",
        "corrected",
        lambda s: s + [twin(d, SeriesInstanceUID="1.2.9", ConvolutionKernel="B20s") for d in s],
    )
    yield fault(
        "a scout beside",
        "corrected",
        lambda s: [
            *s,
            twin(s[0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], ImageOrientationPatient=[1, 0, 0, 0, 0, -1]),
        ],
    )


def _layout() -> Iterator[Fault]:
    wrong = "refused: pixel_length scrambled_rows undecodable field_of_view_min few_bits"
    for tag, values in {"Rows": (0, 1, 60, 119, 121, 240, 65535), "Columns": (0, 1, 64, 127, 129, 256, 65535)}.items():
        for value in values:
            yield fault(f"{tag} {value}", wrong, every(tag, value))
        yield fault(f"{tag} off by one in slice 7", "refused: missing_slices mixed_spacing", one(7, tag, 121))
        yield fault(f"{tag} missing", wrong, every(tag, None))
    yield fault(
        "rows and columns exchanged",
        "refused: scrambled_rows",
        lambda s: [(put(d, "Rows", 128), put(d, "Columns", 120)) for d in s],
    )
    yield fault(
        "twice the rows, half the columns",
        "refused: scrambled_rows",
        lambda s: [(put(d, "Rows", 240), put(d, "Columns", 64)) for d in s],
        spacing=(1.4, 0.7, 1.0),
    )
    yield fault(
        "half the rows, twice the columns",
        "refused: scrambled_rows",
        lambda s: [(put(d, "Rows", 60), put(d, "Columns", 256)) for d in s],
    )
    for value in (0, 1, 8, 32, 64, 12, 15, None):
        yield fault(f"BitsAllocated {value}", wrong + " bit_layout", every("BitsAllocated", value))
    for value in (8, 10, 11):
        yield fault(
            f"BitsStored {value}", "refused: undecodable few_bits bit_layout", lambda s, v=value: bits(s, v, v - 1)
        )
    for value in (13, 14, 15, 16):
        yield fault(f"BitsStored {value}", "corrected", lambda s, v=value: bits(s, v, v - 1))
    for high in (7, 10, 15, 0):
        yield fault(f"HighBit {high}", "refused: bit_layout", every("HighBit", high))
    yield fault("signed, twelve bits", "refused: undecodable", every("PixelRepresentation", 1))
    yield fault("signed, sixteen bits", "corrected", lambda s: (bits(s, 16, 15), every("PixelRepresentation", 1)(s)))
    yield fault(
        "signed values called unsigned",
        "refused: undecodable hu_air hu_tissue",
        lambda s: [(put(d, "RescaleIntercept", 0), set_pixels(d, pixels(d).astype(int) - 1024)) for d in s],
    )
    yield fault("PixelRepresentation missing", "refused: undecodable", every("PixelRepresentation", None))
    for value in (3, 4):
        yield fault(f"SamplesPerPixel {value}", "refused: colour", every("SamplesPerPixel", value))
    for value in ("RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422"):
        yield fault(f"photometric {value}", "refused: colour", every("PhotometricInterpretation", value))
    yield fault("photometric MONOCHROME1", "corrected: monochrome1", every("PhotometricInterpretation", "MONOCHROME1"))
    for value in (2, 5, 100_000, 2_000_000_000):
        yield fault(f"NumberOfFrames {value}", "refused: pixel_length no_geometry", every("NumberOfFrames", value))
    for value, outcome in (
        (-2000, "corrected"),
        (24, "corrected"),
        (1064, "corrected: padding_in_range"),
        (3000, "corrected: padding_in_range"),
    ):
        yield fault(f"padding value {value}", outcome, every("PixelPaddingValue", value))
    yield fault(
        "padding range over all",
        "corrected: padding_in_range",
        lambda s: [(put(d, "PixelPaddingValue", 0), put(d, "PixelPaddingRangeLimit", 4000)) for d in s],
    )
    for kind, rule in (
        (["ORIGINAL", "PRIMARY", "LOCALIZER"], "localizer"),
        (["DERIVED", "SECONDARY", "MPR"], "derived"),
        (["DERIVED", "PRIMARY", "MIP"], "derived"),
        (["ORIGINAL", "PRIMARY", "MINIP"], "derived"),
    ):
        yield fault(f"image type {kind}", f"refused: {rule}", every("ImageType", kind))
    for modality in ("MR", "PT", "SEG", "OT", "SR"):
        yield fault(f"modality {modality}", "refused: modality", every("Modality", modality))
    yield fault("secondary capture", "refused: secondary_capture", every("SOPClassUID", "1.2.840.10008.5.1.4.1.1.7"))


def _encoding() -> Iterator[Fault]:
    for uid, name in (
        ("1.2.840.10008.1.2", "implicit"),
        ("1.2.840.10008.1.2.2", "big endian"),
        ("1.2.840.10008.1.2.1.99", "deflated"),
        ("1.2.840.10008.1.2.4.80", "JPEG-LS"),
        ("1.2.840.10008.1.2.4.90", "JPEG 2000"),
        ("1.2.840.10008.1.2.5", "RLE"),
        ("1.2.840.10008.1.2.4.100", "MPEG-2"),
        ("1.2.3.4", "unknown"),
        ("1.2.840.10008.1.2.4.51", "JPEG 12 bit"),
    ):
        yield fault(
            f"uncompressed slices called {name}",
            "corrected"
            if name == "implicit"
            else "refused: syntax undecodable no_pixels pixel_length hu_air hu_tissue modality",
            lambda s, u=uid: [
                encoded(d).replace(b"1.2.840.10008.1.2.1\0", (u + "\0" * (20 - len(u))).encode()[:20])
                if len(u) <= 20
                else renamed(d, u)
                for d in s
            ],
        )
    streams = {
        "half": lambda b: b[: len(b) // 2],
        "tenth": lambda b: b[: len(b) // 10],
        "empty": lambda b: bytes(2),
        "noise": lambda b: b[:64] + random.Random(2).randbytes(len(b) - 64),
        "text": lambda b: b"x" * len(b),
    }
    for syntax, name in (
        ("1.2.840.10008.1.2.4.80", "JPEG-LS"),
        ("1.2.840.10008.1.2.4.90", "JPEG 2000"),
        ("1.2.840.10008.1.2.5", "RLE"),
    ):
        for how, harm in streams.items():
            for k in (5, 12):
                yield fault(
                    f"{name} of slice {k}: {how}",
                    "refused: undecodable out_of_order pixel_length no_pixels scrambled_rows",
                    compressed(syntax, k, harm),
                )
