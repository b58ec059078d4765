"""One file with many frames: geometry and rescale from functional groups, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from series import encoded, make_series, twin, worst_hu, write_folder

from implantforge.core import InputError
from implantforge.stages import dicom

ENHANCED, LEGACY = "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"


def item(**tags) -> Dataset:
    """A data set with these attributes."""
    ds = Dataset()
    for name, value in tags.items():
        setattr(ds, name, value)
    return ds


def enhanced(series: list[Dataset], sop_class: str = ENHANCED, shared_plane: bool = True) -> Dataset:
    """The series as one multi-frame object; frames stay in the given order."""
    out = twin(series[0], SOPClassUID=sop_class, NumberOfFrames=len(series))
    out.file_meta.MediaStorageSOPClassUID = sop_class
    first = series[0]
    measures = item(PixelSpacing=first.PixelSpacing, SliceThickness=first.SliceThickness)
    rescale = item(RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU")
    plane = item(ImageOrientationPatient=first.ImageOrientationPatient)
    recon = item(ConvolutionKernel="B60s")
    shared = item(PixelMeasuresSequence=Sequence([measures]), PixelValueTransformationSequence=Sequence([rescale]),
                  CTReconstructionSequence=Sequence([recon]))  # fmt: skip
    if shared_plane:
        shared.PlaneOrientationSequence = Sequence([plane])
    frames = []
    for k, ds in enumerate(series):
        place = item(ImagePositionPatient=ds.ImagePositionPatient)
        frame = item(PlanePositionSequence=Sequence([place]),
                     FrameContentSequence=Sequence([item(StackID="1", InStackPositionNumber=k + 1)]))  # fmt: skip
        if not shared_plane:
            frame.PlaneOrientationSequence = Sequence([plane])
        frames.append(frame)
    out.SharedFunctionalGroupsSequence, out.PerFrameFunctionalGroupsSequence = Sequence([shared]), Sequence(frames)
    out.PixelData = b"".join(ds.PixelData for ds in series)
    for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept",
                "SliceThickness", "ConvolutionKernel"):  # fmt: skip
        delattr(out, tag)
    return out


@pytest.mark.parametrize("sop_class", [ENHANCED, LEGACY])
@pytest.mark.parametrize("shared_plane", [True, False])
def test_frames_are_placed_by_their_groups(tmp_path: Path, sop_class: str, shared_plane: bool) -> None:
    series = make_series()
    order = np.random.default_rng(5).permutation(len(series))
    (tmp_path / "e.dcm").write_bytes(encoded(enhanced([series[n] for n in order], sop_class, shared_plane)))
    scan = dicom.load(tmp_path / "e.dcm")
    classic = dicom.load(write_folder(tmp_path / "c", series))
    assert scan.report.verdict == "accepted" and scan.report.kernel == "B60s"
    assert np.array_equal(scan.volume.hu, classic.volume.hu)
    assert np.array_equal(scan.volume.grid.affine, classic.volume.grid.affine)
    assert worst_hu(scan.volume) <= 1.0


def test_series_in_two_multiframe_files(tmp_path: Path) -> None:
    series = make_series()
    (tmp_path / "a").write_bytes(encoded(enhanced(series[6:])))
    (tmp_path / "b").write_bytes(encoded(twin(enhanced(series[:6]), SOPInstanceUID="1.2.3.8")))
    scan = dicom.load(tmp_path)
    assert scan.report.verdict == "accepted" and worst_hu(scan.volume) <= 1.0


def test_I9_no_functional_groups_refused(tmp_path: Path) -> None:
    whole = enhanced(make_series())
    del whole.PerFrameFunctionalGroupsSequence, whole.SharedFunctionalGroupsSequence
    (tmp_path / "e.dcm").write_bytes(encoded(whole))
    with pytest.raises(InputError, match="no position in 12 of 12 images"):
        dicom.load(tmp_path / "e.dcm", accept="guess")


def test_I7_missing_frame_refused(tmp_path: Path) -> None:
    series = make_series()
    del series[4]
    (tmp_path / "e.dcm").write_bytes(encoded(enhanced(series)))
    with pytest.raises(InputError, match="slice 5 of 12 missing"):
        dicom.load(tmp_path)


def test_frame_count_that_disagrees_refused(tmp_path: Path) -> None:
    whole = enhanced(make_series())
    whole.NumberOfFrames = 13
    (tmp_path / "e.dcm").write_bytes(encoded(whole))
    with pytest.raises(InputError, match="claims 13 frames but describes 12"):
        dicom.load(tmp_path)


def test_multiframe_cut_short_refused(tmp_path: Path) -> None:
    whole = enhanced(make_series())
    whole.PixelData = whole.PixelData[: len(whole.PixelData) // 2]
    (tmp_path / "e.dcm").write_bytes(encoded(whole))
    with pytest.raises(InputError, match="is short"):
        dicom.load(tmp_path, accept="half will do")
