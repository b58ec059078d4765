"""Tiny CT series made in memory from an analytic world, so that every voxel's right number is known."""

from __future__ import annotations

import copy
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CENTRE_MM = np.array([12.0, -30.0, 450.0])
MARKERS_MM = CENTRE_MM + np.array([[14.0, 3.0, 1.0], [-9.0, 12.0, -2.0], [-4.0, -15.0, 2.5]])
SECRETS = ("Zebedee^Quagga", "QX-778-ID", "19611224", "Secret Clinic of Nowhere", "knee of Zebedee")


def world_hu(points_mm: np.ndarray) -> np.ndarray:
    """HU of the test world at LPS points (...,3): air, a soft body with a smooth skin, three unequal bony balls."""
    away = np.linalg.norm((points_mm - CENTRE_MM) / [30.0, 26.0, 200.0], axis=-1)
    hu = -1000.0 + 1040.0 / (1.0 + np.exp((away - 1.0) * 12.0))
    for n, marker in enumerate(MARKERS_MM):
        apart = np.linalg.norm(points_mm - marker, axis=-1)
        hu += (900.0 + 200.0 * n) / (1.0 + np.exp((apart - 4.0 - n) / 0.6))
    return hu


def make_series(
    shape: tuple[int, int, int] = (132, 128, 12),
    spacing_mm: tuple[float, float, float] = (0.66, 0.65, 1.0),
    orientation: tuple[float, ...] = AXIAL,
    step_mm: tuple[float, ...] | None = None,
    **tags: Any,
) -> list[Dataset]:
    """Slices of the world. shape is columns, rows, slices; spacing is between columns, between rows, between slices.

    step_mm is the vector from slice to slice (default: along the normal). tags override or add DICOM attributes;
    None removes one.
    """  # fmt: skip
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    step = np.cross(row, column) * spacing_mm[2] if step_mm is None else np.array(step_mm)
    middle = [(n - 1) / 2 for n in shape]
    first = CENTRE_MM - row * spacing_mm[0] * middle[0] - column * spacing_mm[1] * middle[1] - step * middle[2]
    i, j = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]))
    out = []
    for k in range(shape[2]):
        points = first + k * step + i[..., None] * spacing_mm[0] * row + j[..., None] * spacing_mm[1] * column
        out.append(_slice(k, first + k * step, np.rint(world_hu(points)), orientation, spacing_mm, tags))
    return out


def _slice(k: int, at: np.ndarray, hu: np.ndarray, orientation: Any, spacing_mm: Any, tags: dict[str, Any]) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = CTImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = f"1.2.826.0.1.3680043.8.498.7.{k + 1}"
    ds.Modality, ds.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.InstitutionName, ds.SeriesDescription = SECRETS
    ds.PatientSex, ds.StudyDate, ds.Laterality = "F", "20240301", "L"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3.4.50", "1.2.3.4.51", "1.2.3.4.52"
    # Traps: numbers and names that must not order the slices or space them.
    ds.InstanceNumber, ds.SliceLocation, ds.SpacingBetweenSlices = (k * 7) % 11, -k, 9.0
    ds.SliceThickness, ds.ConvolutionKernel, ds.KVP, ds.PatientPosition = spacing_mm[2], "B60s", 120, "FFS"
    ds.ImagePositionPatient = [f"{v:.6f}" for v in at]
    ds.ImageOrientationPatient = [f"{v:.10f}" for v in orientation]
    ds.PixelSpacing = [spacing_mm[1], spacing_mm[0]]
    ds.Rows, ds.Columns = hu.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    set_pixels(ds, hu + 1024)
    for name, value in tags.items():
        if value is None:
            delattr(ds, name)
        else:
            setattr(ds, name, value)
    return ds


def set_pixels(ds: Dataset, stored: np.ndarray) -> None:
    """Replace a slice's stored values."""
    kind = "<i2" if ds.PixelRepresentation else "<u2"
    ds.PixelData = np.asarray(stored).astype(kind).tobytes()
    ds["PixelData"].VR = "OW"


def pixels(ds: Dataset) -> np.ndarray:
    """A slice's stored values, to change and set again."""
    return np.frombuffer(ds.PixelData, "<i2" if ds.PixelRepresentation else "<u2").reshape(ds.Rows, ds.Columns).copy()


def twin(ds: Dataset, **tags: Any) -> Dataset:
    """A deep copy with other attributes."""
    other = copy.deepcopy(ds)
    for name, value in tags.items():
        setattr(other, name, value)
    return other


def encoded(ds: Dataset, bare: bool = False) -> bytes:
    """The file's bytes; bare leaves out preamble and file meta."""
    buffer = io.BytesIO()
    if bare:
        naked = Dataset(ds)
        naked.save_as(buffer, implicit_vr=True, little_endian=True, enforce_file_format=False)
    else:
        pydicom.dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def write_folder(folder: Path, series: list[Dataset], name: str = "f{:04d}.dcm", bare: bool = False) -> Path:
    """One file per slice, in an order that is not the order of positions."""
    folder.mkdir(parents=True, exist_ok=True)
    for n, ds in enumerate(series):
        (folder / name.format((n * 5 + 3) % 1009)).write_bytes(encoded(ds, bare))
    return folder


def write_zip(path: Path, series: list[Dataset]) -> Path:
    """The same as a zip."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for n, ds in enumerate(series):
            archive.writestr(f"a/b{(n * 5 + 3) % 1009}", encoded(ds))
    return path


def worst_hu(volume: Any) -> float:
    """Largest difference between a loaded volume and the world at its own grid points."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in volume.grid.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    truth = world_hu(volume.grid.to_patient(index)).reshape(volume.grid.shape)
    return float(np.abs(volume.hu - truth).max())
