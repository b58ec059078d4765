"""Whose scan, which series: one person, one CT series, nothing of the person in what comes out."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid
from series import SECRETS, encoded, make_series, set_pixels, twin, worst_hu, write_folder

from implantforge.core import InputError, Patient
from implantforge.stages import dicom


def test_I1_two_patients_in_a_folder_refused_for_good(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", make_series())
    other = {"PatientID": "other", "PatientName": "Other^One", "SeriesInstanceUID": "1.2.3.77"}
    write_folder(tmp_path / "b", make_series(**other))
    with pytest.raises(InputError, match="2 patients"):
        dicom.load(tmp_path, accept="both are fine")
    assert {r.verdict for r in dicom.survey(tmp_path)} == {"refused"}


def test_I1_one_slice_of_another_patient_refused_for_good(tmp_path: Path) -> None:
    series = make_series()
    series[4].PatientID = "someone else"
    with pytest.raises(InputError, match="slices of 2 patients in one series"):
        dicom.load(write_folder(tmp_path, series), accept="yes")


def test_I1_slices_without_identity_refused(tmp_path: Path) -> None:
    series = make_series()
    series[4].PatientID = series[4].PatientName = series[4].PatientBirthDate = ""
    with pytest.raises(InputError, match="1 of 12 slices do not say whose they are"):
        dicom.load(write_folder(tmp_path, series))


def test_I1_spelling_of_one_name_is_one_patient(tmp_path: Path) -> None:
    series = make_series()
    series[4].PatientName = "ZEBEDEE^QUAGGA^^"
    assert dicom.load(write_folder(tmp_path, series)).report.verdict == "accepted"


@pytest.mark.parametrize(
    ("tag", "value", "message"),
    [
        ("FrameOfReferenceUID", "1.2.9", "2 frames of reference"),
        ("StudyInstanceUID", "1.2.9", "2 studies in one series"),
        ("ConvolutionKernel", "B30s", "2 kernels in one series"),
    ],
)
def test_I2_mixture_inside_a_series_refused(tmp_path: Path, tag: str, value: str, message: str) -> None:
    series = make_series()
    for ds in series[6:]:
        setattr(ds, tag, value)
    with pytest.raises(InputError, match=message):
        dicom.load(write_folder(tmp_path, series))


def test_I2_series_are_split_and_the_thin_bone_series_proposed(tmp_path: Path) -> None:
    thin = make_series()
    thick = make_series((132, 128, 8), (0.66, 0.65, 2.5), SeriesInstanceUID="1.2.3.60", ConvolutionKernel="B60s")
    soft = make_series(SeriesInstanceUID="1.2.3.61", ConvolutionKernel="B20s")
    edge = make_series(SeriesInstanceUID="1.2.3.62", ConvolutionKernel="B80s")
    for n, series in enumerate((thick, soft, edge, thin)):
        write_folder(tmp_path, series, f"s{n}_{{}}")
    reports = dicom.survey(tmp_path)
    assert len(reports) == 4
    (best,) = [r for r in reports if r.proposed]
    assert best.uid_hash == hashlib.sha256(b"1.2.3.4.51").hexdigest() and best.kernel == "B60s"
    assert any("proposed: slices 1.00 mm apart, bone kernel" in note for note in best.notes)
    assert dicom.load(tmp_path).report.uid_hash == best.uid_hash
    other = hashlib.sha256(b"1.2.3.60").hexdigest()
    assert dicom.load(tmp_path, series=other[:12]).volume.hu.shape == (132, 128, 8)
    index = next(r.index for r in reports if r.uid_hash == other)
    assert dicom.load(tmp_path, series=str(index)).report.uid_hash == other
    with pytest.raises(InputError, match="0 of 4 series match"):
        dicom.load(tmp_path, series="zz")


def test_I2_two_kernels_at_the_same_places_are_two_volumes(tmp_path: Path) -> None:
    bone = make_series()
    soft = [twin(ds, ConvolutionKernel="B20s", SOPInstanceUID=generate_uid()) for ds in bone]
    scan = dicom.load(write_folder(tmp_path, bone + soft))
    assert scan.report.kernel == "B60s" and scan.report.rules == ("other_slices_of_series",)


def test_I16_age_of_the_scan_only_in_bands_and_only_when_asked(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, make_series())
    assert dicom.survey(folder)[0].rules == () and dicom.load(folder).report.verdict == "accepted"
    assert dicom.survey(folder, date(2024, 8, 30))[0].verdict == "accepted"
    (middle,), (old,) = (dicom.survey(folder, day) for day in (date(2024, 11, 1), date(2026, 1, 1)))
    assert middle.verdict == "accepted" and "scanned 6 to 12 months ago" in middle.notes
    assert old.rules == ("scan_age",) and "2024" not in str(old)


def test_I5_localizer_in_the_series_is_left_out(tmp_path: Path) -> None:
    series = make_series()
    scout = twin(series[0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SOPInstanceUID="1.2.3.9")
    scout.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    scan = dicom.load(write_folder(tmp_path, [*series, scout]))
    assert scan.report.verdict == "accepted" and worst_hu(scan.volume) <= 1.0
    verdicts = {r.rules: r.verdict for r in dicom.survey(tmp_path)}
    assert verdicts[("localizer",)] == "refused"


def test_I5_odd_image_in_the_series_is_told(tmp_path: Path) -> None:
    series = make_series()
    odd = twin(series[0], ImageOrientationPatient=[1, 0, 0, 0, 0, -1], SOPInstanceUID="1.2.3.9")
    assert dicom.load(write_folder(tmp_path, [*series, odd])).report.rules == ("other_slices_of_series",)


@pytest.mark.parametrize("modality", ["MR", "PT", "US", "OT"])
def test_I5_other_modality_refused_by_name(tmp_path: Path, modality: str) -> None:
    with pytest.raises(InputError, match=f"modality {modality}: only CT"):
        dicom.load(write_folder(tmp_path, make_series(Modality=modality)), accept="it is fine")


def test_I5_secondary_captures_and_reformats_refused(tmp_path: Path) -> None:
    capture = make_series(SOPClassUID=SecondaryCaptureImageStorage)
    with pytest.raises(InputError, match="screen capture"):
        dicom.load(write_folder(tmp_path / "a", capture))
    with pytest.raises(InputError, match="DERIVED/SECONDARY/MPR"):
        dicom.load(write_folder(tmp_path / "b", make_series(ImageType=["DERIVED", "SECONDARY", "MPR"])))
    with pytest.raises(InputError, match="DERIVED/PRIMARY/AXIAL/MIP"):
        dicom.load(write_folder(tmp_path / "c", make_series(ImageType=["DERIVED", "PRIMARY", "AXIAL", "MIP"])))


def test_I5_colour_refused(tmp_path: Path) -> None:
    series = make_series(SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    with pytest.raises(InputError, match="3 samples per pixel"):
        dicom.load(write_folder(tmp_path, series))


def test_no_series_uid_flagged(tmp_path: Path) -> None:
    assert dicom.load(write_folder(tmp_path, make_series(SeriesInstanceUID=""))).report.rules == ("no_series_uid",)


def test_only_sex_age_decade_and_side_are_kept(tmp_path: Path) -> None:
    scan = dicom.load(write_folder(tmp_path, make_series()))
    assert scan.volume.patient == Patient("female", "60-69", "left")
    assert scan.volume.series_uid == hashlib.sha256(b"1.2.3.4.51").hexdigest()


@pytest.mark.parametrize(("age", "band"), [("034Y", "30-39"), ("006M", "0-9"), ("095Y", "90+"), ("", "60-69")])
def test_age_band(tmp_path: Path, age: str, band: str) -> None:
    assert dicom.load(write_folder(tmp_path, make_series(PatientAge=age))).volume.patient.age_band == band


@pytest.mark.filterwarnings("ignore")
def test_no_identity_in_reports_errors_or_logs(
    tmp_path: Path, capfd: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    # Values that pydicom warns about, quoting them.
    series = make_series(PatientBirthDate="19611224 or so", PatientID="QX-778-ID" * 12, PatientAge="Zebedee")
    del series[3]
    series[5].PixelData = b"\1\2"
    (tmp_path / "Zebedee").mkdir()
    folder = write_folder(tmp_path / "Zebedee", series)
    caplog.clear()
    capfd.readouterr()
    said = json.dumps([r.as_dict() for r in dicom.survey(folder)])
    for path in (folder, folder / "QX-778-ID.dcm"):
        with pytest.raises(InputError) as error:
            dicom.load(path)
        said += str(error.value) if path == folder else ""
    out = capfd.readouterr()
    said += out.out + out.err + caplog.text
    for secret in (*SECRETS, "Zebedee", "QX-778", "1.2.3.4.5", "1961"):
        assert secret.casefold() not in said.casefold()


def test_files_of_other_kinds_are_left_out(tmp_path: Path) -> None:
    write_folder(tmp_path, make_series())
    (tmp_path / "README.txt").write_text("hello " * 100)
    (tmp_path / "picture.jpg").write_bytes(b"\xff\xd8\xff" + bytes(500))
    (tmp_path / "empty").write_bytes(b"")
    report = make_series()[0]
    report.Modality, report.SOPClassUID = "SR", "1.2.840.10008.5.1.4.1.1.88.11"
    report.SeriesInstanceUID = "1.2.3.99"
    for tag in ("PixelData", "Rows", "Columns"):
        delattr(report, tag)
    (tmp_path / "zz").write_bytes(encoded(report))
    assert dicom.load(tmp_path).report.verdict == "accepted"
    assert {r.modality for r in dicom.survey(tmp_path)} == {"CT", "SR"}


def test_I5_eight_bit_refused(tmp_path: Path) -> None:
    series = make_series(BitsStored=8, HighBit=7)
    for ds in series:
        set_pixels(ds, (ds.pixel_array >> 4).clip(0, 255))
    with pytest.raises(InputError, match="8 bits per pixel"):
        dicom.load(write_folder(tmp_path, series))


def test_nothing_heavy_at_import() -> None:
    code = ("import sys, implantforge.stages.dicom, implantforge.stages.labels;"
            "print([m for m in ('pydicom', 'gdcm', 'nibabel', 'nrrd', 'scipy') if m in sys.modules])")  # fmt: skip
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_B7_identity_of_the_input_is_offered_for_the_last_look(tmp_path: Path) -> None:
    tokens = dicom.identity(write_folder(tmp_path, make_series()))
    assert {*SECRETS[:3], "1.2.3.4.50", "1.2.3.4.51", "1.2.3.4.52"} <= set(tokens)
    assert SECRETS[3] not in tokens
