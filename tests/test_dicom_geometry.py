"""Every voxel of a loaded series lies where the analytic world says, whatever the storage order; or it is refused."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from series import AXIAL, make_series, twin, worst_hu, write_folder, write_zip

from implantforge.core import InputError
from implantforge.stages import dicom


def turned(axis: str, deg: float) -> tuple[float, ...]:
    """Orientation of axial slices turned about a patient axis."""
    c, s = np.cos(np.radians(deg)), np.sin(np.radians(deg))
    matrix = {"x": [[1, 0, 0], [0, c, -s], [0, s, c]], "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
              "z": [[c, -s, 0], [s, c, 0], [0, 0, 1]]}[axis]  # fmt: skip
    return tuple(np.array(matrix)[:, :2].T.ravel())


ORIENTATIONS = {
    "supine": AXIAL, "prone": (-1, 0, 0, 0, -1, 0), "feet_first_flip": (-1, 0, 0, 0, 1, 0),
    "decubitus": (0, 1, 0, -1, 0, 0), "decubitus_flip": (0, -1, 0, -1, 0, 0), "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1), "oblique_z": turned("z", 17.0), "oblique_x": turned("x", -25.0),
    "oblique_y": turned("y", 40.0),
}  # fmt: skip

POSTURES = {"prone": "FFP", "decubitus": "FFDL", "decubitus_flip": "FFDR"}


@pytest.mark.parametrize("name", sorted(ORIENTATIONS))
def test_T1_2_T1_9_every_voxel_where_it_belongs(tmp_path: Path, name: str) -> None:
    shape, spacing = ((132, 128, 12), (0.66, 0.65, 1.0)) if name != "oblique_y" else ((128, 140, 10), (0.65, 0.6, 1.2))
    series = make_series(shape, spacing, ORIENTATIONS[name], PatientPosition=POSTURES.get(name, "FFS"))
    scan = dicom.load(write_folder(tmp_path, series))
    grid = scan.volume.grid
    assert scan.report.verdict == "accepted", scan.report.reasons
    assert np.linalg.det(grid.pose.rotation) == pytest.approx(1.0)
    assert np.trace(grid.pose.rotation) > 1.9, "axes run toward +L, +P, +S"
    assert scan.volume.hu.flags["C_CONTIGUOUS"]
    assert worst_hu(scan.volume) <= 1.0


def test_T1_2_row_and_column_spacing_are_not_swapped(tmp_path: Path) -> None:
    scan = dicom.load(write_folder(tmp_path, make_series((210, 95, 10), (0.4, 0.9, 1.0))))
    assert scan.volume.grid.spacing_mm.tolist() == [0.4, 0.9, 1.0]
    assert scan.volume.hu.shape == (210, 95, 10)
    assert worst_hu(scan.volume) <= 1.0


def test_T1_4_order_of_files_changes_nothing(tmp_path: Path) -> None:
    series = make_series()
    one = dicom.load(write_folder(tmp_path / "a", series))
    random.Random(3).shuffle(series)
    two = dicom.load(write_zip(tmp_path / "b.zip", series))
    assert np.array_equal(one.volume.hu, two.volume.hu) and np.array_equal(
        one.volume.grid.affine, two.volume.grid.affine
    )
    assert one.report == two.report


def test_T1_9_reversed_slice_direction_gives_the_same_volume(tmp_path: Path) -> None:
    one = dicom.load(write_folder(tmp_path / "a", make_series()))
    flipped = make_series(orientation=(-1, 0, 0, 0, 1, 0), shape=(132, 128, 12))
    two = dicom.load(write_folder(tmp_path / "b", flipped))
    assert np.allclose(one.volume.grid.affine, two.volume.grid.affine, atol=1e-5)
    assert np.abs(one.volume.hu.astype(int) - two.volume.hu).max() <= 1


def test_I7_missing_slice_refused(tmp_path: Path) -> None:
    series = make_series(shape=(132, 128, 20))
    del series[7]
    folder = write_folder(tmp_path, series)
    with pytest.raises(InputError, match=r"slice 8 of 20 missing: step 2\.000 mm where 1\.000 mm is usual, between z="):
        dicom.load(folder)
    (report,) = dicom.survey(folder)
    assert report.verdict == "refused" and report.rules[0] == "missing_slices"


def test_I7_several_missing_slices_counted(tmp_path: Path) -> None:
    series = make_series(shape=(132, 128, 20))
    del series[12:14], series[4]
    with pytest.raises(InputError, match=r"slice 5 of 20 missing.*3 slices missing at 2 places"):
        dicom.load(write_folder(tmp_path, series))


def test_I7_identical_duplicates_dropped_and_flagged(tmp_path: Path) -> None:
    series = make_series()
    series += [twin(series[3], SOPInstanceUID="1.2.3.9.1"), twin(series[8], SOPInstanceUID="1.2.3.9.2")]
    scan = dicom.load(write_folder(tmp_path, series))
    assert scan.report.verdict == "flagged" and scan.report.rules == ("duplicate_slices",)
    assert "2 duplicate slices" in scan.report.reasons[0]
    assert worst_hu(scan.volume) <= 1.0


def test_I7_conflicting_duplicates_refused_for_good(tmp_path: Path) -> None:
    series = make_series()
    series.append(twin(series[3], PixelData=series[4].PixelData))
    with pytest.raises(InputError, match=r"2 slices with different pixels at z="):
        dicom.load(write_folder(tmp_path, series), accept="I want to")


def test_I7_uneven_spacing_refused(tmp_path: Path) -> None:
    series = make_series()
    for ds in series[6:]:
        ds.ImagePositionPatient[2] += 0.3
    with pytest.raises(InputError, match=r"1 of 11 steps are uneven: step 1\.300 mm where 1\.000 mm is usual"):
        dicom.load(write_folder(tmp_path, series))


def test_I7_rounded_positions_are_even(tmp_path: Path) -> None:
    series = make_series(spacing_mm=(0.66, 0.65, 0.625), shape=(132, 128, 30))
    for ds in series:
        ds.ImagePositionPatient = [f"{float(v):.2f}" for v in ds.ImagePositionPatient]
    scan = dicom.load(write_folder(tmp_path, series))
    assert scan.report.verdict == "accepted"
    assert scan.volume.grid.spacing_mm[2] == pytest.approx(0.625, abs=5e-4)


def test_overlapping_slices_are_fine_and_gaps_flagged(tmp_path: Path) -> None:
    assert dicom.load(write_folder(tmp_path / "a", make_series(SliceThickness=1.2))).report.verdict == "accepted"
    report = dicom.load(write_folder(tmp_path / "b", make_series(SliceThickness=0.5))).report
    assert report.rules == ("slice_gap",) and "0.50 mm unseen" in report.reasons[0]


@pytest.mark.parametrize("tilt", [-18.5, 10.0, 2.0])
def test_I8_T1_3_gantry_tilt_straightened(tmp_path: Path, tilt: float) -> None:
    series = make_series(shape=(132, 128, 24), orientation=turned("x", tilt), step_mm=(0, 0, 1.0))
    scan = dicom.load(write_folder(tmp_path, series))
    assert scan.report.rules == ("tilt",) and abs(scan.report.tilt_deg) == pytest.approx(abs(tilt), abs=0.01)
    assert scan.volume.grid.spacing_mm[2] == pytest.approx(np.cos(np.radians(tilt)), abs=1e-6)
    inner = scan.volume.crop((20, 40, 1), (scan.volume.hu.shape[0] - 20, scan.volume.hu.shape[1] - 40, 23))
    assert worst_hu(inner) <= 12.0, "cubic in-plane shift of a 1000 HU edge"


def test_I8_shear_along_both_in_plane_axes(tmp_path: Path) -> None:
    series = make_series(shape=(132, 128, 16), step_mm=(0.21, -0.12, 1.0))
    scan = dicom.load(write_folder(tmp_path, series))
    inner = scan.volume.crop((20, 20, 0), (scan.volume.hu.shape[0] - 20, scan.volume.hu.shape[1] - 20, 16))
    assert scan.report.rules == ("tilt",) and worst_hu(inner) <= 12.0


def test_I8_tilt_with_missing_slice_refused(tmp_path: Path) -> None:
    series = make_series(shape=(132, 128, 16), orientation=turned("x", 12.0), step_mm=(0, 0, 1.0))
    del series[5]
    with pytest.raises(InputError, match="slice 6 of 16 missing"):
        dicom.load(write_folder(tmp_path, series))


def test_I8_slices_off_the_line_refused_for_good(tmp_path: Path) -> None:
    series = make_series()
    series[5].ImagePositionPatient[0] += 1.5
    with pytest.raises(InputError, match=r"leave the straight line by 1\.\d+ mm"):
        dicom.load(write_folder(tmp_path, series), accept="please")


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"ImagePositionPatient": None}, "no position in 12 of 12 images"),
        ({"ImageOrientationPatient": None}, "no orientation in 12 of 12"),
        ({"PixelSpacing": None}, "no pixel spacing in 12 of 12"),
        ({"PixelSpacing": [0.65, 0.0]}, "must be positive"),
        ({"PixelSpacing": [-0.65, 0.65]}, "must be positive"),
        ({"ImageOrientationPatient": [1, 0, 0, 0.1, 1, 0]}, "off unit length or right angle by 0.1"),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, "off unit length"),
    ],
)
def test_I9_broken_geometry_refused_for_good(tmp_path: Path, tags: dict, message: str) -> None:
    folder = write_folder(tmp_path, make_series(**tags))
    assert dicom.survey(folder)[0].verdict == "refused"
    with pytest.raises(InputError, match=message):
        dicom.load(folder, accept="I know")


def test_I9_nan_spacing_refused(tmp_path: Path) -> None:
    series = make_series()
    for ds in series:
        element = ds["PixelSpacing"]
        del ds["PixelSpacing"]
        ds.add_new(element.tag, "UN", b"nan\\nan ")
    with pytest.raises(InputError, match="no pixel spacing"):
        dicom.load(write_folder(tmp_path, series))


@pytest.mark.parametrize("factor", [0.1, 10.0, 0.001])
def test_I18_field_of_view_unit_error_refused(tmp_path: Path, factor: float) -> None:
    spacing = [0.65 * factor, 0.66 * factor]
    with pytest.raises(InputError, match="is the spacing in mm"):
        dicom.load(write_folder(tmp_path, make_series(PixelSpacing=spacing)))


def test_I6_thick_slices_flagged_then_refused(tmp_path: Path) -> None:
    flagged = dicom.load(write_folder(tmp_path / "a", make_series(spacing_mm=(0.66, 0.65, 2.5)))).report
    assert flagged.verdict == "flagged" and flagged.rules == ("slice_spacing", "slice_thickness")
    with pytest.raises(InputError, match=r"slice spacing 4\.00 mm, at most 3\.0 mm"):
        dicom.load(write_folder(tmp_path / "b", make_series(spacing_mm=(0.66, 0.65, 4.0))))
    taken = dicom.load(tmp_path / "b", accept="planning of a salvage case")
    assert taken.report.verdict == "refused" and taken.report.accepted_because == "planning of a salvage case"
    assert any("salvage" in reason for reason in taken.report.reasons)


def test_wide_pixels_flagged(tmp_path: Path) -> None:
    assert dicom.load(write_folder(tmp_path, make_series(spacing_mm=(0.9, 0.9, 1.0)))).report.rules == ("pixel",)


def test_one_slice_is_no_volume(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 image at one position: not a volume"):
        dicom.load(write_folder(tmp_path, make_series()[:1]))


def test_same_geometry_as_simpleitk(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    folder = write_folder(tmp_path, make_series(orientation=turned("x", -25.0)))
    scan = dicom.load(folder)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    values = sitk.GetArrayFromImage(image)
    rng = np.random.default_rng(1)
    for index in rng.integers(0, image.GetSize(), size=(40, 3)):
        at = image.TransformIndexToPhysicalPoint([int(n) for n in index])
        mine = np.rint(scan.volume.grid.to_index(np.array([at])))[0].astype(int)
        assert scan.volume.hu[tuple(mine)] == values[tuple(index[::-1])]


def test_I7_accepted_gap_leaves_every_slice_in_its_place(tmp_path: Path) -> None:
    series = make_series(shape=(132, 128, 20))
    del series[7]
    scan = dicom.load(write_folder(tmp_path, series), accept="tumour, no second scan possible")
    assert scan.report.verdict == "refused" and scan.volume.hu.shape == (132, 128, 20)
    assert worst_hu(scan.volume.crop((0, 0, 0), (132, 128, 7))) <= 1.0
    assert worst_hu(scan.volume.crop((0, 0, 8), (132, 128, 20))) <= 1.0
    assert worst_hu(scan.volume.crop((0, 0, 7), (132, 128, 8))) <= 260.0, "bridged from both neighbours"


def test_I7_accepted_uneven_steps_are_resampled(tmp_path: Path) -> None:
    series = make_series(shape=(132, 128, 40), spacing_mm=(0.66, 0.65, 0.5))
    kept = [ds for n, ds in enumerate(series) if n % 2 == 0 or n > 20]
    scan = dicom.load(write_folder(tmp_path, kept), accept="thin slices only at the joint")
    assert worst_hu(scan.volume) <= 130.0


def test_I7_steps_that_creep_refused(tmp_path: Path) -> None:
    series = make_series(shape=(132, 128, 80), spacing_mm=(0.66, 0.65, 1.0))
    for n, ds in enumerate(series):
        ds.ImagePositionPatient[2] = 400 + n + 1.2e-4 * n**2
    with pytest.raises(InputError, match="steps creep"):
        dicom.load(write_folder(tmp_path, series))


def test_I8_small_tilt_of_a_long_stack_is_not_ignored(tmp_path: Path) -> None:
    series = make_series(shape=(132, 128, 80), spacing_mm=(0.66, 0.65, 3.0), step_mm=(0.004, 0, 3.0))
    scan = dicom.load(write_folder(tmp_path, series))
    assert "drift" in scan.report.rules and abs(scan.report.tilt_deg) < 0.1
    inner = scan.volume.crop((20, 20, 0), (100, 100, 80))
    assert worst_hu(inner) <= 12.0
