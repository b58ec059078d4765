"""Scans no one here wrote: what each must yield. Skips where the shared data is absent."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from implantforge.core import InputError
from implantforge.stages import dicom
from implantforge.stages.dicom import decoding, headers, pixels, sources

PLANNING = {name for name, rule in dicom.RULES.items() if rule.planning}
LOSSLESS = ("1.2", "1.2.1", "1.2.2", "1.2.5", "1.2.1.99", "1.2.4.57", "1.2.4.70", "1.2.4.80", "1.2.4.90")


def unpacked(archive: Path, inside: str, folder: Path) -> Path:
    """The members below `inside`, as files in `folder`."""
    with zipfile.ZipFile(archive) as source:
        for info in source.infolist():
            if info.filename.startswith(inside) and not info.is_dir():
                (folder / info.filename.replace("/", "_")).write_bytes(source.read(info))
    return folder


def test_knee_lies_where_its_truth_says(shared_data: Path) -> None:
    scan = dicom.load(shared_data / "ct" / "knee_z027.zip")
    truth = np.load(shared_data / "ct" / "knee_z027_truth.npz")
    grid = scan.volume.grid
    # Uncertain about pixel values, not about places: every labelled bone is dense, all else is not.
    assert np.allclose(grid.affine[:3, 3], truth["origin"], atol=1e-3) and np.allclose(
        grid.spacing_mm, truth["spacing"]
    )
    labels = truth["labels"].transpose(2, 1, 0)
    assert scan.volume.hu.shape == labels.shape and scan.report.transfer_syntax == "JPEG-LS Lossless"
    bone = scan.volume.hu[labels > 0].mean()
    for shifted in (np.flip(labels, 0), np.flip(labels, 1), np.flip(labels, 2)):
        assert scan.volume.hu[shifted > 0].mean() < bone - 100
    assert bone > 300


@pytest.mark.parametrize(
    ("name", "verdict", "rules", "shape"),
    [
        ("ct/dry_skull_bone_kernel.zip", "flagged", {"hu_tissue_peak", "field_of_view_cut"}, (512, 512, 140)),
        ("ct/abdomen_j2k_series.zip", "flagged",
         {"no_series_uid", "contrast", "slice_spacing", "pixel", "slice_thickness"}, (512, 512, 20)),
        ("ct/pelvis_3mm_metal_right_hip.nii.gz", "flagged",
         {"not_dicom_source", "slice_spacing", "pixel", "metal"}, (122, 101, 112)),
        ("dicom_edge/gantry_tilt_minus18_5deg.zip", "flagged",
         {"tilt", "slice_spacing", "slice_thickness"}, (513, 600, 54)),
    ],
)  # fmt: skip
def test_real_scans(shared_data: Path, name: str, verdict: str, rules: set[str], shape: tuple[int, ...]) -> None:
    scan = dicom.load(shared_data / name)
    assert scan.report.verdict == verdict and set(scan.report.rules) == rules
    assert scan.volume.hu.shape == shape and scan.report.use == ("implant" if not rules & PLANNING else "planning")
    (seen,) = (r for r in dicom.survey(shared_data / name) if r.proposed)
    assert seen.verdict == verdict and seen.rules == scan.report.rules, "inspect says what load will say"


def test_I8_real_tilt_is_measured(shared_data: Path) -> None:
    report = dicom.survey(shared_data / "dicom_edge" / "gantry_tilt_minus18_5deg.zip")[0]
    assert report.tilt_deg == pytest.approx(-18.5, abs=0.01)
    assert report.spacing_mm[2] == pytest.approx(2.5 * np.cos(np.radians(18.5)), abs=1e-4)


def test_I8_real_tilt_lands_in_patient_coordinates(shared_data: Path) -> None:
    """Each stored pixel, placed by its own slice's header alone, is found in the straightened volume."""

    path = shared_data / "dicom_edge" / "gantry_tilt_minus18_5deg.zip"
    volume = dicom.load(path).volume
    rng = np.random.default_rng(2)
    with sources.opened(path) as (members, _):
        frames = [f for m in members for f in headers.read(m) or () if f.position]
        errors = []
        for frame in frames[5:45:8]:
            hu = pixels.to_hu(decoding.decode(headers.dataset_of(frame.member), frame), frame)[0].astype(float)
            row, column = np.array(frame.orientation[:3]), np.array(frame.orientation[3:])
            for i, j in rng.integers(60, 450, size=(400, 2)):
                at = np.array(frame.position) + i * frame.column_spacing_mm * row + j * frame.row_spacing_mm * column
                index = volume.grid.to_index(at)
                lower = np.floor(index[1]).astype(int)
                pair = [volume.hu[round(index[0]), lower + n, round(index[2])] for n in (0, 1)]
                errors.append(pair[0] + (index[1] - lower) * (pair[1] - pair[0]) - hu[j, i])
    # Interpolated twice, so only edges and noise differ; a stack that ignores the tilt is off by 100 HU and more.
    assert np.median(np.abs(errors)) < 12 and np.mean(np.abs(errors)) < 30


def test_I8_real_tilt_as_simpleitk_reconstructs_it(shared_data: Path, tmp_path: Path) -> None:
    """SimpleITK decodes the slices and resamples them through the sheared affine of their own positions."""
    sitk = pytest.importorskip("SimpleITK")
    archive = shared_data / "dicom_edge" / "gantry_tilt_minus18_5deg.zip"
    volume = dicom.load(archive).volume
    slices = []
    for path in sorted(unpacked(archive, "", tmp_path).iterdir()):
        try:
            image = sitk.ReadImage(str(path))
            at = np.array([float(v) for v in image.GetMetaData("0020|0032").split("\\")])
            turn = np.array([float(v) for v in image.GetMetaData("0020|0037").split("\\")])
        except RuntimeError:
            continue
        slices.append((float(at @ np.cross(turn[:3], turn[3:])), at, turn, image))
    slices.sort(key=lambda s: s[0])
    stack = sitk.GetImageFromArray(np.concatenate([sitk.GetArrayFromImage(s[3]) for s in slices]).astype(np.float32))
    (_, first, turn, image), last = slices[0], slices[-1][1]
    columns = [turn[:3] * image.GetSpacing()[0], turn[3:] * image.GetSpacing()[1], (last - first) / (len(slices) - 1)]
    inverse = np.linalg.inv(np.array(columns).T)
    to_index = sitk.AffineTransform(inverse.ravel().tolist(), (-inverse @ first).tolist(), (0.0, 0.0, 0.0))
    grid = sitk.Image([int(n) for n in volume.grid.shape], sitk.sitkFloat32)
    grid.SetOrigin(volume.grid.pose.origin_mm.tolist())
    grid.SetSpacing(volume.grid.spacing_mm.tolist())
    grid.SetDirection(volume.grid.pose.rotation.ravel().tolist())
    theirs = sitk.GetArrayFromImage(sitk.Resample(stack, grid, to_index, sitk.sitkLinear, -1024.0)).transpose(2, 1, 0)
    apart = np.abs(theirs - volume.hu)[volume.hu > -200]
    # Theirs is linear, ours cubic: they part at edges only. A stack taken as upright differs by 100 HU and more.
    assert np.median(apart) < 6 and apart.mean() < 15
    bone = (volume.hu > 600, theirs > 600)
    assert 2 * np.count_nonzero(bone[0] & bone[1]) / (np.count_nonzero(bone[0]) + np.count_nonzero(bone[1])) > 0.97


@pytest.mark.parametrize("name", ["must_refuse_series.zip", "secondary_capture_no_geometry.zip",
                                  "one_slice_17_transfer_syntaxes.zip", "enhanced_multiframe_ct.dcm"])  # fmt: skip
def test_what_must_be_refused(shared_data: Path, name: str) -> None:
    path = shared_data / "dicom_edge" / name
    assert {r.verdict for r in dicom.survey(path)} == {"refused"}
    with pytest.raises(InputError, match="CT refused"):
        dicom.load(path)


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        ("failing/sliceincrement/001", "slice 4 of 5 missing: step 10.000 mm where 5.000 mm is usual"),
        ("failing/sliceincrement/002", "slice 4 of 5 missing"),
        ("failing/sliceorientation/001", "modality MR"),
        ("failing/slicecount/001", "modality MR"),
        ("failing/notavolume/001", "4 images all at one position"),
        ("failing/gantrytilting/001", "4 slices: fewer than 5"),
    ],
)
def test_each_series_that_must_be_refused(shared_data: Path, tmp_path: Path, inside: str, message: str) -> None:
    folder = unpacked(shared_data / "dicom_edge" / "must_refuse_series.zip", inside, tmp_path)
    with pytest.raises(InputError, match=message):
        dicom.load(folder)


def test_one_slice_in_many_transfer_syntaxes(shared_data: Path) -> None:
    arrays, refused = {}, []
    with sources.opened(shared_data / "dicom_edge" / "one_slice_17_transfer_syntaxes.zip") as (members, _):
        for member in members:
            assert member.info is not None
            if not member.info.filename.startswith("CTImage.dcm_"):
                continue
            (frame,) = headers.read(member) or ()
            try:
                arrays[frame.syntax] = pixels.to_hu(decoding.decode(headers.dataset_of(member), frame), frame)[0]
            except InputError as error:
                refused.append(str(error))
    first = arrays["1.2.840.10008.1.2.1"]
    assert first.min() == -1024 and first.max() > 500
    for name in LOSSLESS:
        assert np.array_equal(arrays[f"1.2.840.10008.{name}"], first), name
    for name in ("1.2.4.81", "1.2.4.91"):
        assert np.abs(arrays[f"1.2.840.10008.{name}"].astype(int) - first).mean() < 20, name
    assert len(refused) == 3 and all("cannot be decoded" in text for text in refused)


@pytest.mark.slow
def test_hip_in_ten_seconds(shared_data: Path) -> None:
    import time

    began = time.process_time()
    scan = dicom.load(shared_data / "ct" / "hip_z027.zip")
    assert time.process_time() - began < 10.0
    truth = np.load(shared_data / "ct" / "hip_z027_truth.npz")
    assert np.allclose(scan.volume.grid.affine[:3, 3], truth["origin"], atol=1e-3)
    assert scan.volume.hu[truth["labels"].transpose(2, 1, 0) > 0].mean() > 300
