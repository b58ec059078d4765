"""Reading a series from disk: time and memory beside SimpleITK's reader, on a written 512 x 512 x 600 series."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

SHAPE = (512, 512, 600)
SPACING_MM = (0.7, 0.7, 0.6)


def slice_file(k: int, syntax: str) -> bytes:
    """Slice k of a leaning, tapering thigh with noise, stored as scanners do."""
    import io

    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID

    rng = np.random.default_rng(k)
    j, i = np.indices(SHAPE[:2])
    x, y = (i - 256) * 0.7, (j - 256) * 0.7
    hu = np.where(np.hypot(x / (150 + 0.05 * k), y / 110) < 1, 45.0, -1000.0)
    for lean, radius in ((0.06, 15.0), (-0.05, 15.0)):
        apart = np.hypot(x - np.sign(lean) * 60 - lean * k, y - 0.03 * k)
        hu[apart < radius], hu[apart < radius - 5] = 1300.0, -40.0
    stored = np.clip(np.rint(hu + rng.normal(0, 12, hu.shape) + 1024), 0, 4095).astype("<u2")
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        UID("1.2.840.10008.5.1.4.1.1.2"),
        UID(f"1.2.3.{k + 1}"),
    )
    meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1")
    ds: Any = FileDataset("", {}, preamble=b"\0" * 128, file_meta=meta)
    known = {
        "SOPClassUID": meta.MediaStorageSOPClassUID, "SOPInstanceUID": meta.MediaStorageSOPInstanceUID, "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "PatientID": "B", "PatientName": "B", "StudyInstanceUID": "1.2.1",
        "SeriesInstanceUID": "1.2.2", "FrameOfReferenceUID": "1.2.4", "InstanceNumber": k + 1, "Rows": 512, "Columns": 512,
        "SliceThickness": 0.6, "KVP": 120, "ConvolutionKernel": "B50s", "PatientPosition": "HFS", "PixelSpacing": [0.7, 0.7],
        "ImagePositionPatient": [-179.2, -179.2, round(0.6 * k, 4)], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 12,
        "HighBit": 11, "PixelRepresentation": 0, "RescaleSlope": 1, "RescaleIntercept": -1024,
    }  # fmt: skip
    for name, value in known.items():
        setattr(ds, name, value)
    ds.PixelData = stored.tobytes()
    if syntax != "uncompressed":
        ds.compress(
            {"rle": "1.2.840.10008.1.2.5", "jpegls": "1.2.840.10008.1.2.4.80"}[syntax], generate_instance_uid=False
        )
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


class _Series:
    params = ("uncompressed", "jpegls")
    param_names = ("syntax",)
    repeat, timeout = 2, 600

    def setup_cache(self) -> str:
        folder = Path(tempfile.gettempdir()) / "implantforge_bench_ingest"
        for syntax in self.params:
            place = folder / syntax
            if place.is_dir() and len(list(place.iterdir())) == SHAPE[2]:
                continue
            place.mkdir(parents=True, exist_ok=True)
            for k in range(SHAPE[2]):
                (place / f"{(k * 7) % SHAPE[2]:04d}").write_bytes(slice_file(k, syntax))
        return str(folder)


class Ours(_Series):
    """implantforge.stages.dicom.load: every check and every slice looked at."""

    def setup(self, folder: str, syntax: str) -> None:
        from implantforge.stages import dicom

        self.read = lambda: dicom.load(Path(folder) / syntax)

    def time_load(self, folder: str, syntax: str) -> None:
        scan = self.read()
        assert scan.volume.hu.shape == SHAPE and scan.report.verdict == "accepted", scan.report.reasons

    def peakmem_load(self, folder: str, syntax: str) -> None:
        self.read()


class OursInspect(_Series):
    """implantforge.stages.dicom.survey: the same look without a volume."""

    def time_survey(self, folder: str, syntax: str) -> None:
        from implantforge.stages import dicom

        dicom.survey(Path(folder) / syntax)


class SimpleITK(_Series):
    """ImageSeriesReader with GDCM's file order: geometry from the first two slices, no checks."""

    def setup(self, folder: str, syntax: str) -> None:
        try:
            import SimpleITK as sitk
        except ImportError as error:
            raise NotImplementedError("SimpleITK is not installed") from error
        self.sitk = sitk

    def _read(self, folder: str, syntax: str) -> Any:
        reader = self.sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(Path(folder) / syntax)))
        return reader.Execute()

    def time_load(self, folder: str, syntax: str) -> None:
        self._read(folder, syntax)

    def peakmem_load(self, folder: str, syntax: str) -> None:
        self._read(folder, syntax)
