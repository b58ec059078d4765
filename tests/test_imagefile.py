"""NIfTI and NRRD in and out: the same voxels at the same places, the same bytes every time."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from series import make_series, worst_hu, write_folder

from implantforge.core import Grid, InputError, Labels, Pose
from implantforge.stages import dicom, labels

nibabel = pytest.importorskip("nibabel")
LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture
def scan(tmp_path: Path) -> dicom.Scan:
    """A DICOM scan of the test world."""
    return dicom.load(write_folder(tmp_path / "dicom", make_series()))


def flipped(values: np.ndarray, affine: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """The same image stored the other way round along an axis."""
    turn = np.eye(4)
    turn[axis, axis], turn[axis, 3] = -1, values.shape[axis] - 1
    return np.flip(values, axis), affine @ turn


@pytest.mark.parametrize("axes", [(), (0,), (1,), (0, 1), (0, 1, 2), (2,)])
def test_T1_10_nifti_of_any_storage_order(tmp_path: Path, scan: dicom.Scan, axes: tuple[int, ...]) -> None:
    values, affine = scan.volume.hu, LPS_RAS @ scan.volume.grid.affine
    for axis in axes:
        values, affine = flipped(values, affine, axis)
    swapped = affine[:, [1, 2, 0, 3]]
    image = nibabel.Nifti1Image(values.transpose(1, 2, 0), swapped)
    image.header.set_xyzt_units("mm")
    image.to_filename(tmp_path / "a.nii.gz")
    read = dicom.load(tmp_path / "a.nii.gz")
    assert read.report.rules == ("not_dicom_source",)
    assert np.array_equal(read.volume.hu, scan.volume.hu)
    assert np.allclose(read.volume.grid.affine, scan.volume.grid.affine, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda im: im.header.set_xyzt_units("meter"), "lengths are in meter"),
        (lambda im: (im.set_sform(None, 0), im.set_qform(None, 0)), "no position and orientation"),
        (lambda im: im.set_qform(np.diag([1, 1, 1, 1]), 1), "sform and qform place the volume"),
        (
            lambda im: im.set_sform(np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), 1),
            "sheared grid",
        ),
        (lambda im: im.set_sform(np.diag([0.0, 1, 1, 1]), 1), "must be positive"),
    ],
)
def test_I9_nifti_that_cannot_be_placed_refused(tmp_path: Path, scan: dicom.Scan, change, message: str) -> None:
    image = nibabel.Nifti1Image(scan.volume.hu, None)
    image.set_sform(LPS_RAS @ scan.volume.grid.affine, 1)
    image.header["qform_code"] = 0
    change(image)
    nibabel.save(image, tmp_path / "a.nii")
    with pytest.raises(InputError, match=message):
        dicom.load(tmp_path / "a.nii", accept="trust me")


def test_I10_nifti_numbers_are_judged(tmp_path: Path, scan: dicom.Scan) -> None:
    image = nibabel.Nifti1Image(scan.volume.hu + np.int16(1024), LPS_RAS @ scan.volume.grid.affine)
    nibabel.save(image, tmp_path / "a.nii")
    assert dicom.survey(tmp_path / "a.nii")[0].verdict == "refused"
    with pytest.raises(InputError, match=r"not Hounsfield|rescale"):
        dicom.load(tmp_path / "a.nii")


def test_nifti_of_four_dimensions_refused(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((5, 5, 5, 3), np.int16), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(InputError, match="one 3D volume"):
        dicom.load(tmp_path / "a.nii")


def test_nifti_cut_off_or_lying_refused(tmp_path: Path, scan: dicom.Scan) -> None:
    image = nibabel.Nifti1Image(scan.volume.hu, LPS_RAS @ scan.volume.grid.affine)
    nibabel.save(image, tmp_path / "a.nii")
    data = bytearray((tmp_path / "a.nii").read_bytes())
    (tmp_path / "b.nii").write_bytes(data[: len(data) // 2])
    data[42:48] = b"\xff\x7f" * 3
    (tmp_path / "c.nii").write_bytes(data)
    (tmp_path / "d.nii.gz").write_bytes(gzip.compress(bytes(data[:400])))
    (tmp_path / "e.nii").write_bytes(b"no")
    for name in ("b.nii", "c.nii", "d.nii.gz", "e.nii"):
        with pytest.raises(InputError):
            dicom.load(tmp_path / name)


def test_volume_round_trip_and_determinism(tmp_path: Path, scan: dicom.Scan) -> None:
    labels.write_volume(scan.volume, tmp_path / "a.nrrd")
    labels.write_volume(scan.volume, tmp_path / "b.nrrd")
    assert (tmp_path / "a.nrrd").read_bytes() == (tmp_path / "b.nrrd").read_bytes()
    back = labels.read_volume(tmp_path / "a.nrrd")
    assert np.array_equal(back.hu, scan.volume.hu) and np.array_equal(back.grid.affine, scan.volume.grid.affine)
    assert back.series_uid == scan.volume.series_uid
    loaded = dicom.load(tmp_path / "a.nrrd")
    assert loaded.report.rules == ("not_dicom_source",) and worst_hu(loaded.volume) <= 1.0


def test_nrrd_is_what_other_readers_read(tmp_path: Path, scan: dicom.Scan) -> None:
    nrrd = pytest.importorskip("nrrd")
    labels.write_volume(scan.volume, tmp_path / "a.nrrd")
    values, header = nrrd.read(str(tmp_path / "a.nrrd"))
    assert np.array_equal(values, scan.volume.hu) and header["space"] == "left-posterior-superior"
    assert np.allclose(header["space directions"].T, scan.volume.grid.affine[:3, :3])
    assert np.allclose(header["space origin"], scan.volume.grid.affine[:3, 3])


def test_nrrd_in_ras_and_raw_is_turned(tmp_path: Path, scan: dicom.Scan) -> None:
    nrrd = pytest.importorskip("nrrd")
    affine = LPS_RAS @ scan.volume.grid.affine
    header = {"space": "right-anterior-superior", "space directions": affine[:3, :3].T, "space origin": affine[:3, 3],
              "encoding": "raw", "endian": "big"}  # fmt: skip
    nrrd.write(str(tmp_path / "a.nrrd"), scan.volume.hu.astype(">i2"), header)
    read = dicom.load(tmp_path / "a.nrrd").volume
    assert np.array_equal(read.hu, scan.volume.hu) and np.allclose(read.grid.affine, scan.volume.grid.affine)


def test_nrrd_hostile_headers_refused(tmp_path: Path) -> None:
    good = ("NRRD0005\ntype: int16\ndimension: 3\nspace: LPS\nsizes: {}\nspace directions: (1,0,0) (0,1,0) (0,0,1)\n"
            "space origin: (0,0,0)\nencoding: {}\nendian: little\n{}\n")  # fmt: skip
    cases = {"cut off": good.format("9 9 9", "raw", ""), "limit": good.format("99999 99999 99999", "gzip", ""),
             "another file": good.format("9 9 9", "raw", "data file: /etc/passwd\n"),
             "cannot be read": good.format("9 9 9", "hex", ""), "no header": "NRRD0005\ntype: int16",
             "are needed": good.format("a b c", "raw", ""), "one 3D": good.format("9 9", "raw", "")}  # fmt: skip
    for message, text in cases.items():
        (tmp_path / "a.nrrd").write_text(text)
        with pytest.raises(InputError, match=message):
            dicom.load(tmp_path / "a.nrrd")
    bomb = good.format("9 9 9", "gzip", "").encode() + gzip.compress(bytes(1 << 26))
    (tmp_path / "a.nrrd").write_bytes(bomb)
    assert dicom.survey(tmp_path / "a.nrrd")[0].verdict == "refused"


def make_labels() -> Labels:
    """Four boxes, two of them bones that TotalSegmentator's main task does not know."""
    c, s = np.cos(0.3), np.sin(0.3)
    grid = Grid(
        Pose(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]]), np.array([3.0, -7, 11])),
        np.array([0.7, 0.8, 1.1]),
        (30, 25, 20),
    )
    values = np.zeros(grid.shape, np.uint8)
    values[2:9, 3:8, 4:10], values[12:20, 3:8, 4:10], values[2:9, 12:20, 4:10], values[22:, 2:5, 1:3] = 1, 2, 3, 4
    return Labels(grid, values, {"femur_left": 1, "hip_right": 2, "tibia_left": 3, "patella_left": 4})


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".seg.nrrd"])
def test_labels_round_trip_and_determinism(tmp_path: Path, suffix: str) -> None:
    truth = make_labels()
    labels.write(truth, tmp_path / f"a{suffix}")
    labels.write(truth, tmp_path / f"b{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    back = labels.read(tmp_path / f"a{suffix}")
    assert set(back.names) == set(truth.names)
    assert np.allclose(back.grid.affine, truth.grid.affine, atol=1e-5)
    for name in truth.names:
        assert np.array_equal(back.mask(name), truth.mask(name))


def test_labels_nifti_has_totalsegmentator_values(tmp_path: Path) -> None:
    labels.write(make_labels(), tmp_path / "a.nii.gz")
    image = nibabel.load(tmp_path / "a.nii.gz")
    assert set(np.unique(np.asarray(image.dataobj))) == {0, 75, 78, 200, 201}
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine), tmp_path / "b.nii.gz")
    assert set(labels.read(tmp_path / "b.nii.gz").names) == {"femur_left", "hip_right", "label_200", "label_201"}


def test_labels_segmentation_header(tmp_path: Path) -> None:
    nrrd = pytest.importorskip("nrrd")
    labels.write(make_labels(), tmp_path / "a.seg.nrrd")
    header = nrrd.read_header(str(tmp_path / "a.seg.nrrd"))
    assert header["Segment0_Name"] == "femur_left" and header["Segment0_LabelValue"] == "1"
    assert header["Segment0_Extent"] == "2 8 3 7 4 9" and header["Segment3_Extent"] == "22 29 2 4 1 2"
    assert header["space"] == "left-posterior-superior"


def test_labels_sampled_onto_another_grid(tmp_path: Path) -> None:
    truth = make_labels()
    labels.write(truth, tmp_path / "a.seg.nrrd")
    crop = truth.grid.crop((1, 2, 3), (20, 21, 12))
    back = labels.read(tmp_path / "a.seg.nrrd", crop)
    assert np.array_equal(back.values, truth.values[1:20, 2:21, 3:12])
    far = Grid(Pose(np.eye(3), np.array([900.0, 0, 0])), np.ones(3), (5, 5, 5))
    with pytest.raises(InputError, match="different places"):
        labels.read(tmp_path / "a.seg.nrrd", far)


def test_label_names_cannot_climb(tmp_path: Path) -> None:
    truth = make_labels()
    labels.write(Labels(truth.grid, truth.values, {"../../x": 1}), tmp_path / "a.seg.nrrd")
    assert set(labels.read(tmp_path / "a.seg.nrrd").names) == {"_x"}
