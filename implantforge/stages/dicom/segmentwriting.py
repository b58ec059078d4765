"""Labels as a binary DICOM Segmentation that viewers open; nothing of a person in it, same input same bytes."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np

from implantforge.core import InputError, Labels
from implantforge.geom import bonenames, imagefile
from implantforge.stages.dicom.segmentation import STORAGE

# DICOM wants a date where none is to be told.
NO_DATE, NO_TIME = "20000101", "000000"
_COLOURS = ((56000, 36000, 35000), (49000, 31000, 30000), (52000, 30000, 40000), (50000, 40000, 30000))  # CIELab


def write_segmentation(labels: Labels, path: str | Path, *, frame_of_reference: str = "") -> None:
    """A SEG of all bones that have a voxel, one segment each, with SNOMED codes and laterality.

    It carries no patient, date or original UID: its UIDs are made from the labels themselves (same input, same file), so
    viewers place it by coordinates and do not attach it to the CT. Pass the CT's own FrameOfReferenceUID, which
    identifies the scan, to have it overlaid. InputError when there is no labelled voxel.
    """
    present = sorted((value, name) for name, value in labels.names.items() if (labels.values == value).any())
    if not present:
        raise InputError("SEG: no labelled voxel to write")
    digest = hashlib.sha256(labels.values.tobytes() + labels.grid.affine.tobytes() + repr(present).encode()).digest()
    frames = [(number, int(k)) for number, (value, _) in enumerate(present, 1)
              for k in np.flatnonzero((labels.values == value).any(axis=(0, 1)))]  # fmt: skip
    masks = np.zeros((len(frames), labels.grid.shape[1], labels.grid.shape[0]), np.bool_)
    for n, (number, k) in enumerate(frames):
        masks[n] = present[number - 1][0] == labels.values[:, :, k].T
    data = np.packbits(masks, bitorder="little")
    ds = _header(digest, frame_of_reference or _uid(digest, "frame of reference"))
    _pixels(ds, labels, frames, data.tobytes())
    ds.SegmentSequence = [_segment(number, name) for number, (_, name) in enumerate(present, 1)]
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    with imagefile.replacing(Path(path)) as stream:
        stream.write(buffer.getvalue())


def _uid(digest: bytes, what: str) -> str:
    """A UID below 2.25, as PS3.5 B.2 makes them from a number."""
    return f"2.25.{int.from_bytes(hashlib.sha256(digest + what.encode()).digest()[:16], 'big')}"


def _item(**tags: Any) -> Any:
    from pydicom.dataset import Dataset

    out = Dataset()
    for name, value in tags.items():
        setattr(out, name, value)
    return out


def _code(value: str, meaning: str) -> list[Any]:
    return [_item(CodeValue=value, CodingSchemeDesignator="SCT", CodeMeaning=meaning)]


def _header(digest: bytes, frame_of_reference: str) -> Any:
    """The modules that describe no pixel; what must stand there and would tell of a person stays empty."""
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(STORAGE), UID(_uid(digest, "instance"))
    meta.TransferSyntaxUID, meta.ImplementationVersionName = ExplicitVRLittleEndian, "IMPLANTFORGE"
    meta.ImplementationClassUID = UID("1.2.826.0.1.3680043.8.498.1")
    ds = FileDataset("", Dataset(), preamble=b"\0" * 128, file_meta=meta)
    known: dict[str, Any] = {
        "SpecificCharacterSet": "ISO_IR 192", "ImageType": ["DERIVED", "PRIMARY"], "SOPClassUID": STORAGE,
        "SOPInstanceUID": _uid(digest, "instance"), "StudyDate": "", "StudyTime": "", "AccessionNumber": "",
        "ContentDate": NO_DATE, "ContentTime": NO_TIME, "Modality": "SEG", "Manufacturer": "ImplantForge",
        "ManufacturerModelName": "ImplantForge", "DeviceSerialNumber": "0", "SoftwareVersions": "1",
        "ReferringPhysicianName": "", "PatientName": "", "PatientID": "", "PatientBirthDate": "", "PatientSex": "",
        "PatientIdentityRemoved": "YES", "DeidentificationMethod": "made without identity", "StudyID": "",
        "StudyInstanceUID": _uid(digest, "study"), "SeriesInstanceUID": _uid(digest, "series"), "SeriesNumber": 1,
        "InstanceNumber": 1, "FrameOfReferenceUID": frame_of_reference, "PositionReferenceIndicator": "",
        "ContentLabel": "BONES", "ContentDescription": "Bone segmentation", "ContentCreatorName": "",
        "LossyImageCompression": "00", "SegmentationType": "BINARY", "SegmentsOverlap": "NO",
    }  # fmt: skip
    for name, value in known.items():
        setattr(ds, name, value)
    return ds


def _pixels(ds: Any, labels: Labels, frames: list[tuple[int, int]], data: bytes) -> None:
    """Pixels and where each frame lies; a frame is a slice k with rows along j, columns along i."""
    grid, dimension = labels.grid, _uid(labels.grid.affine.tobytes(), "dimension")
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 1, 1, 0
    ds.Rows, ds.Columns, ds.NumberOfFrames = grid.shape[1], grid.shape[0], len(frames)
    across, down, step = (float(s) for s in grid.spacing_mm)
    turn = [f"{v:.10f}" for v in [*grid.pose.rotation[:, 0], *grid.pose.rotation[:, 1]]]
    ds.SharedFunctionalGroupsSequence = [_item(
        PlaneOrientationSequence=[_item(ImageOrientationPatient=turn)],
        PixelMeasuresSequence=[_item(PixelSpacing=[_ds(down), _ds(across)], SliceThickness=_ds(step),
                                     SpacingBetweenSlices=_ds(step))],
    )]  # fmt: skip
    slices = sorted({k for _, k in frames})
    per_frame = []
    for number, k in frames:
        at = grid.to_patient(np.array([0.0, 0.0, float(k)]))
        per_frame.append(_item(
            FrameContentSequence=[_item(DimensionIndexValues=[number, slices.index(k) + 1])],
            PlanePositionSequence=[_item(ImagePositionPatient=[_ds(v) for v in at])],
            SegmentIdentificationSequence=[_item(ReferencedSegmentNumber=number)],
        ))  # fmt: skip
    ds.PerFrameFunctionalGroupsSequence = per_frame
    ds.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=dimension)]
    ds.DimensionIndexSequence = [
        _item(DimensionOrganizationUID=dimension, DimensionIndexPointer=0x0062000B, FunctionalGroupPointer=0x0062000A,
              DimensionDescriptionLabel="Segment"),
        _item(DimensionOrganizationUID=dimension, DimensionIndexPointer=0x00200032, FunctionalGroupPointer=0x00209113,
              DimensionDescriptionLabel="Position"),
    ]  # fmt: skip
    ds.add_new(0x7FE00010, "OB", data + b"\0" * (len(data) % 2))


def _ds(value: float) -> str:
    """A number of at most 16 characters, as DICOM's decimal string wants."""
    value = float(value) + 0.0
    text = repr(value)
    return text if len(text) <= 16 else next(t for d in range(14, 0, -1) if len(t := f"{value:.{d}g}") <= 16)


def _segment(number: int, name: str) -> Any:
    """One segment: label, algorithm, and the bone's code with its side where there is one."""
    bone, side = bonenames.parted(name)
    code = bonenames.CODES.get(bone)
    kind = _code(code[0][0] if code else "272673000", bone.replace("_", " ").capitalize() if code else "Bone")
    if side:
        turn = {"left": "7771000", "right": "24028007"}[side]
        kind[0].SegmentedPropertyTypeModifierCodeSequence = _code(turn, side.capitalize())
    return _item(
        SegmentNumber=number, SegmentLabel=name[:64], SegmentAlgorithmType="AUTOMATIC", SegmentAlgorithmName="ImplantForge",
        SegmentedPropertyCategoryCodeSequence=_code("123037004", "Anatomical Structure"),
        SegmentedPropertyTypeCodeSequence=kind, RecommendedDisplayCIELabValue=list(_COLOURS[number % len(_COLOURS)]),
    )  # fmt: skip
