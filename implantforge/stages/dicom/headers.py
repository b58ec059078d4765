"""DICOM headers as frames: one record per image, with identity already hashed and free text already dropped."""

from __future__ import annotations

import hashlib
import io
import logging
import math
import re
import warnings
from collections.abc import Iterator, MutableSequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from implantforge.core import InputError, Patient
from implantforge.stages.dicom.sources import Member

_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "Modality", "ImageType", "SeriesInstanceUID", "StudyInstanceUID",
    "FrameOfReferenceUID", "Rows", "Columns", "NumberOfFrames", "PixelSpacing", "ImageOrientationPatient",
    "ImagePositionPatient", "SliceThickness", "ConvolutionKernel", "KVP", "RescaleSlope", "RescaleIntercept",
    "RescaleType", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
    "PhotometricInterpretation", "PixelPaddingValue", "PixelPaddingRangeLimit", "LossyImageCompression",
    "PatientPosition", "AcquisitionNumber", "TemporalPositionIdentifier", "ContrastBolusAgent",
    "ContrastBolusAgentSequence", "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge",
    "StudyDate", "AcquisitionDate", "Laterality", "ImageLaterality", "PlanarConfiguration", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "ReconstructionDiameter", "ReconstructionTargetCenterPatient", "PixelData",
    "FloatPixelData", "DoubleFloatPixelData",
]  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """One image of one file. Vectors are tuples in LPS mm; None where the file does not say."""

    member: Member
    index: int
    series_uid: str
    study: str
    frame_of_reference: str
    sop_class: str
    sop_uid: str
    modality: str
    image_type: tuple[str, ...]
    rows: int
    columns: int
    row_spacing_mm: float | None
    column_spacing_mm: float | None
    orientation: tuple[float, ...] | None
    position: tuple[float, ...] | None
    thickness_mm: float | None
    kernel: str
    kvp: float | None
    slope: float | None
    intercept: float | None
    rescale_type: str
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    samples: int
    photometric: str
    padding: tuple[int, int] | None
    syntax: str
    lossy: bool
    frames: int
    pixel_bytes: int
    patient_position: str
    phase: tuple[str, ...]
    contrast: bool
    identity: tuple[str, str, str, str]
    patient: Patient
    diameter_mm: float | None = None
    centre_mm: tuple[float, ...] | None = None
    month: int | None = None  # of acquisition, counted from year 0: never the day


@contextmanager
def quiet() -> Iterator[None]:
    """pydicom's warnings quote header values, names and dates among them: nothing of that may reach a log."""
    from pydicom import config

    mode, log = config.settings.reading_validation_mode, logging.getLogger("pydicom")
    level = log.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config.settings.reading_validation_mode = config.IGNORE
        log.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            config.settings.reading_validation_mode = mode
            log.setLevel(level)


def plausible(head: bytes) -> bool:
    """Whether the first bytes can be DICOM, with or without the preamble."""
    if head[128:132] == b"DICM":
        return True
    if len(head) < 16:
        return False
    little, big = int.from_bytes(head[:2], "little"), int.from_bytes(head[:2], "big")
    if little in (2, 8):
        element = int.from_bytes(head[2:4], "little")
    elif big == 8:
        element = int.from_bytes(head[2:4], "big")
    else:
        return False
    # Data sets start with a low element of group 0008 (or the file meta's 0002) and a short value.
    return element <= 0x0070


def read(member: Member) -> tuple[Frame, ...] | None:
    """The frames of a file, () for a DICOM object without an image's tags, None when it is not DICOM."""
    if member.size < 140 or not plausible(member.read(256)):
        return None
    dataset = dataset_of(member, _TAGS)
    if dataset is None:
        return None
    try:
        return _frames(member, dataset)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"CT: file {member.number} has a damaged header ({type(error).__name__})") from None


def dataset_of(member: Member, tags: list[str] | None = None) -> Any:
    """The parsed data set (restricted to tags), None when the bytes are no DICOM; InputError when they are cut off."""
    import pydicom
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    data = member.read()
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=True, specific_tags=tags)
        if not any(tag in dataset for tag in ("SOPClassUID", "Modality", "Rows")):
            return None
        if "TransferSyntaxUID" not in dataset.file_meta:
            implicit, little = dataset.original_encoding
            dataset.file_meta.TransferSyntaxUID = (
                ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
            )
    except Exception as error:
        if data[128:132] != b"DICM":
            return None
        raise InputError(f"CT: file {member.number} is cut off or damaged ({type(error).__name__})") from None
    return dataset


def _frames(member: Member, ds: Any) -> tuple[Frame, ...]:
    shared = _first(ds, "SharedFunctionalGroupsSequence")
    per_frame = ds.get("PerFrameFunctionalGroupsSequence") or []
    count = max(_int(ds, "NumberOfFrames") or 1, 1)
    if count > 100_000 or (per_frame and len(per_frame) != count):
        raise InputError(f"CT: file {member.number} claims {count} frames but describes {len(per_frame)}")
    base = _base(member, ds, count)
    if shared is None and not per_frame:
        if count == 1:
            return (replace(base, **_plain(ds)),)
        return tuple(replace(base, index=n, position=None, orientation=None) for n in range(count))
    groups = per_frame or [None]
    return tuple(replace(base, index=n, **_functional(shared, group)) for n, group in enumerate(groups))


def _base(member: Member, ds: Any, count: int) -> Frame:
    pixels = next((ds[tag].value for tag in ("PixelData", "FloatPixelData", "DoubleFloatPixelData") if tag in ds), None)
    signed = bool(_int(ds, "PixelRepresentation"))
    stored = _int(ds, "BitsStored") or 0
    high = _int(ds, "HighBit")
    high = stored - 1 if high is None else high
    return Frame(
        member=member, index=0, series_uid=_text(ds, "SeriesInstanceUID"), study=_text(ds, "StudyInstanceUID"),
        frame_of_reference=_text(ds, "FrameOfReferenceUID"), sop_class=_text(ds, "SOPClassUID"),
        sop_uid=_text(ds, "SOPInstanceUID"), modality=_code(_text(ds, "Modality")),
        image_type=tuple(_code(t) for t in _many(ds, "ImageType")), rows=_int(ds, "Rows") or 0,
        columns=_int(ds, "Columns") or 0, row_spacing_mm=None, column_spacing_mm=None, orientation=None, position=None,
        thickness_mm=None, kernel=_code(" ".join(_many(ds, "ConvolutionKernel"))), kvp=_number(ds, "KVP"), slope=None,
        intercept=None, rescale_type=_code(_text(ds, "RescaleType")), bits_allocated=_int(ds, "BitsAllocated") or 0,
        bits_stored=stored, high_bit=high, signed=signed, samples=_int(ds, "SamplesPerPixel") or 1,
        photometric=_code(_text(ds, "PhotometricInterpretation")), padding=_padding(ds, stored, signed),
        syntax=str(ds.file_meta.TransferSyntaxUID), lossy=_text(ds, "LossyImageCompression") == "01", frames=count,
        pixel_bytes=0 if pixels is None else len(pixels), patient_position=_code(_text(ds, "PatientPosition")),
        phase=(_text(ds, "AcquisitionNumber"), _text(ds, "TemporalPositionIdentifier")),
        contrast=bool(_text(ds, "ContrastBolusAgent")) or bool(ds.get("ContrastBolusAgentSequence")),
        identity=_identity(ds), patient=_patient(ds), month=_month(ds),
    )  # fmt: skip


def _plain(ds: Any) -> dict[str, Any]:
    spacing = _numbers(ds, "PixelSpacing", 2) or (None, None)
    return {
        "row_spacing_mm": spacing[0], "column_spacing_mm": spacing[1],
        "orientation": _numbers(ds, "ImageOrientationPatient", 6), "position": _numbers(ds, "ImagePositionPatient", 3),
        "thickness_mm": _number(ds, "SliceThickness"), "slope": _number(ds, "RescaleSlope"),
        "intercept": _number(ds, "RescaleIntercept"), "diameter_mm": _number(ds, "ReconstructionDiameter"),
        "centre_mm": _numbers(ds, "ReconstructionTargetCenterPatient", 3),
    }  # fmt: skip


def _functional(shared: Any, own: Any) -> dict[str, Any]:
    """Geometry and rescale of one frame of a multi-frame object; its own groups win over shared ones."""

    def group(name: str) -> Any:
        return _first(own, name) if _first(own, name) is not None else _first(shared, name)

    measures, plane = group("PixelMeasuresSequence"), group("PlanePositionSequence")
    turn, rescale = group("PlaneOrientationSequence"), group("PixelValueTransformationSequence")
    content, kind = group("FrameContentSequence"), group("CTImageFrameTypeSequence")
    kernel, volt = group("CTReconstructionSequence"), group("CTXRayDetailsSequence")
    spacing = _numbers(measures, "PixelSpacing", 2) or (None, None)
    out: dict[str, Any] = {
        "row_spacing_mm": spacing[0], "column_spacing_mm": spacing[1],
        "orientation": _numbers(turn, "ImageOrientationPatient", 6),
        "position": _numbers(plane, "ImagePositionPatient", 3), "thickness_mm": _number(measures, "SliceThickness"),
        "slope": _number(rescale, "RescaleSlope"), "intercept": _number(rescale, "RescaleIntercept"),
        "diameter_mm": _number(kernel, "ReconstructionDiameter"),
        "phase": (_text(content, "StackID"), _text(content, "TemporalPositionIndex")),
    }  # fmt: skip
    if _text(rescale, "RescaleType"):
        out["rescale_type"] = _code(_text(rescale, "RescaleType"))
    if _many(kernel, "ConvolutionKernel"):
        out["kernel"] = _code(" ".join(_many(kernel, "ConvolutionKernel")))
    if _number(volt, "KVP"):
        out["kvp"] = _number(volt, "KVP")
    if _many(kind, "FrameType"):
        out["image_type"] = tuple(_code(t) for t in _many(kind, "FrameType"))
    return out


def _identity(ds: Any) -> tuple[str, str, str, str]:
    """Salt-free hashes are enough here: they live in memory, are compared once and are never written."""
    name = re.sub(r"[\s^=]+", " ", _text(ds, "PatientName")).strip().casefold()
    values = (_text(ds, "PatientID"), name, _text(ds, "PatientBirthDate"), _text(ds, "PatientSex").upper())
    return tuple(hashlib.sha256(v.encode()).hexdigest() if v else "" for v in values)  # type: ignore[return-value]


def _patient(ds: Any) -> Patient:
    sex = {"M": "male", "F": "female", "O": "other"}.get(_text(ds, "PatientSex").upper(), "unknown")
    laterality = _text(ds, "ImageLaterality") or _text(ds, "Laterality")
    return Patient(sex, _age_band(ds), {"L": "left", "R": "right", "B": "both"}.get(laterality.upper(), "unknown"))


def _month(ds: Any) -> int | None:
    """Month of the scan, None where no date stands."""
    for tag in ("AcquisitionDate", "StudyDate"):
        date = re.fullmatch(r"(\d{4})(\d{2})\d{2}", _text(ds, tag))
        if date and int(date[1]) >= 1900 and 1 <= int(date[2]) <= 12:
            return int(date[1]) * 12 + int(date[2]) - 1
    return None


def _age_band(ds: Any) -> str:
    age = re.fullmatch(r"(\d{1,3})([DWMY])", _text(ds, "PatientAge").upper())
    if age and int(age[1]) > 0:
        years = int(age[1]) // {"D": 365, "W": 52, "M": 12, "Y": 1}[age[2]]
    else:
        born, study = (re.fullmatch(r"(\d{4})(\d{4})", _text(ds, tag)) for tag in ("PatientBirthDate", "StudyDate"))
        if not born or not study:
            return "unknown"
        years = int(study[1]) - int(born[1]) - (study[2] < born[2])
    if not 0 <= years <= 130:
        return "unknown"
    return "90+" if years >= 90 else f"{years // 10 * 10}-{years // 10 * 10 + 9}"


def _padding(ds: Any, bits: int, signed: bool) -> tuple[int, int] | None:
    """Lowest and highest stored padding value, read in the sign of the pixels whatever VR the file used."""
    values = [_int(ds, tag) for tag in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    first = values[0]
    if first is None:
        return None
    last = first if values[1] is None else values[1]
    span = 1 << (bits if 0 < bits <= 16 else 16)
    turned = []
    for value in (first, last):
        if signed and value >= 32768:
            value -= 65536
        elif not signed and value < 0:
            value += 65536 if span == 65536 else span
        turned.append(value)
    return min(turned), max(turned)


def _first(ds: Any, name: str) -> Any:
    sequence = ds.get(name) if ds is not None else None
    return sequence[0] if sequence else None


def _many(ds: Any, name: str) -> list[str]:
    value = ds.get(name) if ds is not None else None
    if value is None or value == "":
        return []
    return [str(v) for v in value] if isinstance(value, MutableSequence) else [str(value)]


def _text(ds: Any, name: str) -> str:
    values = _many(ds, name)
    return "\\".join(values).strip().strip("\0")


def _code(text: str) -> str:
    """A code string kept short and free of anything but code characters."""
    return re.sub(r"[^A-Za-z0-9 _+./\-]", "", text).strip()[:24]


def _numbers(ds: Any, name: str, count: int) -> tuple[float, ...] | None:
    values = _many(ds, name)
    try:
        numbers = tuple(float(v) for v in values)
    except ValueError:
        return None
    return numbers if len(numbers) == count and all(math.isfinite(v) for v in numbers) else None


def _number(ds: Any, name: str) -> float | None:
    values = _numbers(ds, name, 1)
    return values[0] if values else None


def _int(ds: Any, name: str) -> int | None:
    value = _number(ds, name)
    return None if value is None else int(value)
