"""A phantom on disk: a CT DICOM series that reads like a scanner's, the truth beside it, the same bytes every time."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from implantforge.core import InputError, Labels, Mesh

if TYPE_CHECKING:
    from implantforge.stages.phantoms import Phantom

_SYNTAX = {
    "raw": "1.2.840.10008.1.2.1",
    "rle": "1.2.840.10008.1.2.5",
    "jpegls": "1.2.840.10008.1.2.4.80",
    "j2k": "1.2.840.10008.1.2.4.90",
}
_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"


def write(
    phantom: Phantom, folder: str | Path, *, transfer_syntax: str = "jpegls", meshes: bool = False, zipped: bool = False
) -> Path:
    """CT series (folder ct, or ct.zip), truth.json, truth_labels.nii.gz and on request truth_meshes/*.stl.

    transfer_syntax is raw, rle, j2k or jpegls, all lossless. Patient name and ID are SAMPLE^HIP and SAMPLE-HIP-<seed>,
    with the region's name.
    Returns the folder. InputError for an unknown syntax.
    """
    if transfer_syntax not in _SYNTAX:
        raise InputError(f"phantom: no transfer syntax {transfer_syntax}, choose from {', '.join(_SYNTAX)}")
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    (out / "truth.json").write_text(json.dumps(phantom.truth, indent=1) + "\n", "utf-8")
    _write_labels(phantom.labels, out / "truth_labels.nii.gz")
    if zipped:
        with zipfile.ZipFile(out / "ct.zip", "w") as archive:
            for k in range(phantom.volume.grid.shape[2]):
                entry = zipfile.ZipInfo(f"ct/{k + 1:04d}.dcm", (2020, 1, 1, 0, 0, 0))
                entry.external_attr, entry.create_system = 0o644 << 16, 3
                archive.writestr(entry, slice_bytes(phantom, k, transfer_syntax), zipfile.ZIP_DEFLATED, 6)
    else:
        (out / "ct").mkdir(exist_ok=True)
        for k in range(phantom.volume.grid.shape[2]):
            (out / "ct" / f"{k + 1:04d}.dcm").write_bytes(slice_bytes(phantom, k, transfer_syntax))
    if meshes:
        (out / "truth_meshes").mkdir(exist_ok=True)
        for name, mesh in phantom.meshes.items():
            (out / "truth_meshes" / f"{name}.stl").write_bytes(_stl(mesh))
    return out


def _uid(phantom: Phantom, *what: object) -> str:
    from pydicom.uid import generate_uid

    entropy = ["implantforge phantom", phantom.truth["version"], json.dumps(phantom.truth), *what]
    return str(generate_uid(entropy_srcs=[str(item) for item in entropy]))


def slice_bytes(phantom: Phantom, k: int, transfer_syntax: str) -> bytes:
    """One axial slice as a DICOM Part 10 file; slices are numbered from the top, as they are scanned."""
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.uid import UID

    grid, seed = phantom.volume.grid, phantom.truth["seed"]
    number = grid.shape[2] - k
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(_CT_IMAGE)
    meta.MediaStorageSOPInstanceUID = UID(_uid(phantom, "instance", number))
    meta.TransferSyntaxUID = UID(_SYNTAX["raw"])
    meta.ImplementationClassUID = UID("1.2.826.0.1.3680043.8.498.1")
    meta.ImplementationVersionName = "IMPLANTFORGE"
    data = FileDataset("", Dataset(), preamble=b"\0" * 128, file_meta=meta)
    for keyword, value in _header(phantom, seed, number, grid.to_patient(np.array([0.0, 0.0, k]))).items():
        setattr(data, keyword, value)
    # stored as unsigned with intercept -1024, as most scanners do; rows are y, columns x
    stored = np.ascontiguousarray((phantom.volume.hu[:, :, k].T.astype(np.int32) + 1024).astype("<u2"))
    data.PixelData = stored.tobytes()
    if transfer_syntax != "raw":
        _compress(data, stored, transfer_syntax)
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _header(phantom: Phantom, seed: int, number: int, position: Any) -> dict[str, Any]:
    """Attributes of one slice, by DICOM keyword."""
    grid, region = phantom.volume.grid, str(phantom.truth["phantom"])
    tag = region.upper()
    dx, dy, dz = (round(float(s), 6) for s in grid.spacing_mm)
    return {
        "SpecificCharacterSet": "ISO_IR 100", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "SOPClassUID": _CT_IMAGE,
        "SOPInstanceUID": _uid(phantom, "instance", number), "StudyDate": "20200101", "SeriesDate": "20200101",
        "AcquisitionDate": "20200101", "ContentDate": "20200101", "StudyTime": "120000", "SeriesTime": "120000",
        "AcquisitionTime": "120000", "ContentTime": "120000", "AccessionNumber": f"SAMPLE{seed}", "Modality": "CT",
        "Manufacturer": "IMPLANTFORGE SYNTHETIC", "ReferringPhysicianName": "", "StudyDescription": f"Synthetic {region}",
        "SeriesDescription": f"Synthetic {region}, bone", "ManufacturerModelName": "Phantom",
        "PatientName": f"SAMPLE^{tag}", "PatientID": f"SAMPLE-{tag}-{seed}",
        "PatientBirthDate": "19600101", "PatientSex": "O", "PatientAge": "060Y",
        "BodyPartExamined": tag, "SliceThickness": dz, "KVP": 120, "SpacingBetweenSlices": dz,
        "ConvolutionKernel": "STANDARD", "PatientPosition": "HFS", "GantryDetectorTilt": 0, "StudyID": "1",
        "StudyInstanceUID": _uid(phantom, "study"), "SeriesInstanceUID": _uid(phantom, "series"), "SeriesNumber": 2,
        "AcquisitionNumber": 1, "InstanceNumber": number,
        "ImagePositionPatient": [round(float(p), 4) for p in position],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "FrameOfReferenceUID": _uid(phantom, "frame"),
        "PositionReferenceIndicator": "", "SliceLocation": round(float(position[2]), 4), "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2", "Rows": grid.shape[1], "Columns": grid.shape[0],
        "PixelSpacing": [dy, dx], "BitsAllocated": 16, "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0,
        "WindowCenter": 300, "WindowWidth": 1500, "RescaleIntercept": -1024, "RescaleSlope": 1, "RescaleType": "HU",
    }  # fmt: skip


def _compress(data: Any, stored: Any, transfer_syntax: str) -> None:
    """Pixel data of a slice replaced by its lossless compressed form."""
    from pydicom.encaps import encapsulate

    if transfer_syntax == "jpegls":
        data.PixelData = encapsulate([_jpegls(stored)])
        data["PixelData"].is_undefined_length = True
        data["PixelData"].VR = "OB"
        data.file_meta.TransferSyntaxUID = _SYNTAX["jpegls"]
    else:
        plugin = "pydicom" if transfer_syntax == "rle" else "pylibjpeg"
        data.compress(_SYNTAX[transfer_syntax], encoding_plugin=plugin, generate_instance_uid=False)


def _jpegls(stored: Any) -> bytes:
    """A JPEG-LS lossless codestream of a uint16 image with 12 bits in use."""
    import gdcm

    writer = gdcm.ImageWriter()  # owns the image: a bare gdcm.Image aborts the process when it is collected
    image = writer.GetImage()
    image.SetNumberOfDimensions(2)
    image.SetDimension(0, stored.shape[1])
    image.SetDimension(1, stored.shape[0])
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, 12, 11, 0))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ExplicitVRLittleEndian))
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetByteStringValue(stored.tobytes())
    image.SetDataElement(element)
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLSLossless))
    change.SetInput(image)
    if not change.Change():
        raise InputError("phantom: JPEG-LS encoding failed, choose another transfer syntax")
    fragment = change.GetOutput().GetDataElement().GetSequenceOfFragments().GetFragment(0)
    stream = fragment.GetByteValue().GetBuffer()
    return stream.encode("utf-8", "surrogateescape") if isinstance(stream, str) else bytes(stream)


def _write_labels(labels: Labels, path: Path) -> None:
    """NIfTI with a RAS affine; gzip without a time stamp."""
    import gzip

    import nibabel

    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ labels.grid.affine
    image = nibabel.Nifti1Image(np.asarray(labels.values), affine)
    image.header.set_xyzt_units("mm")
    path.write_bytes(gzip.compress(image.to_bytes(), 6, mtime=0))


def _stl(mesh: Mesh) -> bytes:
    """Binary STL."""
    record = np.zeros(len(mesh.faces), dtype=[("normal", "<f4", 3), ("corner", "<f4", (3, 3)), ("spare", "<u2")])
    record["normal"] = mesh.face_cross / np.maximum(np.linalg.norm(mesh.face_cross, axis=1), 1e-12)[:, None]
    record["corner"] = mesh.vertices[mesh.faces]
    return b"implantforge phantom, LPS mm".ljust(80) + np.uint32(len(record)).tobytes() + record.tobytes()
