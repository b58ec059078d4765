"""Stored values become HU, or the series is refused: rescale, padding, saturation, compression, encodings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless
from series import encoded, make_series, pixels, set_pixels, worst_hu, write_folder

from implantforge.core import InputError
from implantforge.stages import dicom


def refilled(change, **tags) -> list:
    """A series whose stored values went through `change`."""
    series = make_series(**tags)
    for ds in series:
        set_pixels(ds, change(pixels(ds).astype(np.int64)))
    return series


def test_I10_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    series = refilled(
        lambda v: np.rint((v - 1024 + 1200) / 0.5), RescaleSlope=0.5, RescaleIntercept=-1200, BitsStored=16, HighBit=15
    )
    scan = dicom.load(write_folder(tmp_path, series))
    assert scan.report.verdict == "accepted" and worst_hu(scan.volume) <= 1.0


def test_I10_signed_values(tmp_path: Path) -> None:
    series = make_series(PixelRepresentation=1, RescaleIntercept=0, BitsStored=16, HighBit=15)
    for ds in series:
        set_pixels(ds, np.frombuffer(ds.PixelData, "<u2").astype(int).reshape(128, 132) - 1024)
    scan = dicom.load(write_folder(tmp_path, series))
    assert scan.report.verdict == "accepted" and worst_hu(scan.volume) <= 1.0


def test_I10_rescale_that_varies_refused(tmp_path: Path) -> None:
    series = make_series()
    series[4].RescaleIntercept = -1000
    with pytest.raises(InputError, match="intercept -1024 to -1000"):
        dicom.load(write_folder(tmp_path, series))


def test_I10_rescale_missing_and_needed_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rescale was not applied|not Hounsfield"):
        dicom.load(write_folder(tmp_path, make_series(RescaleSlope=None, RescaleIntercept=None)))


def test_I10_rescale_missing_but_numbers_are_hu_flagged(tmp_path: Path) -> None:
    tags = {"PixelRepresentation": 1, "BitsStored": 16, "HighBit": 15}
    series = make_series(**tags)
    for ds in series:
        set_pixels(ds, np.frombuffer(ds.PixelData, "<u2").astype(int).reshape(128, 132) - 1024)
        del ds.RescaleSlope, ds.RescaleIntercept
    scan = dicom.load(write_folder(tmp_path, series))
    assert scan.report.rules == ("rescale_missing",) and worst_hu(scan.volume) <= 1.0


@pytest.mark.parametrize(
    ("change", "tags"),
    [
        (lambda v: v, {"RescaleIntercept": 0}),
        (lambda v: v, {"RescaleIntercept": -1124}),
        (lambda v: v, {"RescaleIntercept": -900}),
        (lambda v: v, {"RescaleSlope": 2}),
        (lambda v: v, {"RescaleSlope": 0.001}),
        (lambda v: np.clip(v, 824, 1424), {}),
        (lambda v: np.clip((v - 824) // 4, 0, 255), {"RescaleIntercept": 0}),
        (lambda v: v * 0 + 1000, {}),
    ],
)
def test_I10_numbers_that_are_not_hu_refused(tmp_path: Path, change, tags: dict) -> None:
    with pytest.raises(InputError, match=r"Hounsfield|rescale"):
        dicom.load(write_folder(tmp_path, refilled(change, **tags)))


def test_I10_other_unit_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="numbers are in MGML, not HU"):
        dicom.load(write_folder(tmp_path, make_series(RescaleType="MGML")))


def test_slope_zero_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rescale slope 0"):
        dicom.load(write_folder(tmp_path, make_series(RescaleSlope=0)), accept="why not")


@pytest.mark.parametrize("pad", [-2000, -3024])
def test_padding_becomes_air(tmp_path: Path, pad: int) -> None:
    series = make_series(PixelRepresentation=1, RescaleIntercept=0, BitsStored=16, HighBit=15, PixelPaddingValue=pad)
    for ds in series:
        hu = np.frombuffer(ds.PixelData, "<u2").astype(int).reshape(128, 132) - 1024
        hu[:, :20] = pad
        set_pixels(ds, hu)
        ds["PixelPaddingValue"].VR = "SS"
    scan = dicom.load(write_folder(tmp_path, series))
    assert (scan.volume.hu[:20] == -1024).all() and scan.volume.hu.min() == -1024
    assert scan.report.verdict == "accepted" and "voxels of padding" in " ".join(scan.report.notes)


def test_padding_that_is_a_real_number_is_left_and_flagged(tmp_path: Path) -> None:
    series = make_series(PixelPaddingValue=1064)
    for ds in series:
        ds["PixelPaddingValue"].VR = "US"
    scan = dicom.load(write_folder(tmp_path, series))
    assert scan.report.rules == ("padding_in_range",) and worst_hu(scan.volume) <= 1.0


def test_I14_metal_and_saturation_flagged(tmp_path: Path) -> None:
    series = make_series()
    for ds in series[3:8]:
        values = pixels(ds)
        values[40:50, 40:50] = 4095
        set_pixels(ds, values)
    report = dicom.load(write_folder(tmp_path, series)).report
    assert set(report.rules) == {"metal", "saturated"} and "3071 HU" in " ".join(report.reasons)


def test_monochrome1_flagged_and_not_inverted(tmp_path: Path) -> None:
    scan = dicom.load(write_folder(tmp_path, make_series(PhotometricInterpretation="MONOCHROME1")))
    assert scan.report.rules == ("monochrome1",) and worst_hu(scan.volume) <= 1.0


def test_monochrome1_that_is_inverted_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Hounsfield|rescale|air"):
        dicom.load(write_folder(tmp_path, refilled(lambda v: 4095 - v, PhotometricInterpretation="MONOCHROME1")))


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_lossless_syntaxes_give_the_same_numbers(tmp_path: Path, syntax: str) -> None:
    series = make_series(shape=(132, 128, 6))
    for ds in series:
        try:
            ds.compress(syntax, generate_instance_uid=False)
        except Exception as error:  # no encoder for this syntax is installed
            pytest.skip(f"cannot encode {syntax}: {type(error).__name__}")
    scan = dicom.load(write_folder(tmp_path, series))
    assert scan.report.verdict == "accepted" and worst_hu(scan.volume) <= 1.0


def test_I19_lossy_flagged(tmp_path: Path) -> None:
    assert dicom.load(write_folder(tmp_path, make_series(LossyImageCompression="01"))).report.rules == ("lossy",)


def test_unknown_syntax_refused_by_name(tmp_path: Path) -> None:
    series = make_series()
    for ds in series:
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
        ds.PixelData = encapsulate([bytes(64)])
        ds["PixelData"].is_undefined_length = True
    with pytest.raises(InputError, match=r"transfer syntax MPEG-4.*cannot be decoded"):
        dicom.load(write_folder(tmp_path, series), accept="try")


def test_bare_files_without_preamble_or_suffix(tmp_path: Path) -> None:
    scan = dicom.load(write_folder(tmp_path, make_series(), name="IM{}", bare=True))
    assert scan.report.verdict == "accepted" and worst_hu(scan.volume) <= 1.0


def test_short_pixel_data_refused(tmp_path: Path) -> None:
    series = make_series()
    series[5].PixelData = series[5].PixelData[:-2000]
    with pytest.raises(InputError, match="pixel data of 1 of 12 images is short: 31792 of 33792 bytes"):
        dicom.load(write_folder(tmp_path, series), accept="never mind")


def test_file_cut_off_in_its_pixels_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, make_series())
    victim = sorted(folder.iterdir())[4]
    victim.write_bytes(encoded(make_series()[4])[:-1500])
    with pytest.raises(InputError, match=r"short|damaged|missing"):
        dicom.load(folder, accept="never mind")


def test_no_pixel_data_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pixel data in 12 of 12"):
        dicom.load(write_folder(tmp_path, make_series(PixelData=None)))


def test_contrast_and_kv_flagged(tmp_path: Path) -> None:
    series = make_series(ContrastBolusAgent="Agent")
    series[3].KVP = 140
    assert dicom.load(write_folder(tmp_path, series)).report.rules == ("mixed_kvp", "contrast")


def test_signs_left_unextended_are_restored(tmp_path: Path) -> None:
    series = make_series(PixelRepresentation=1, RescaleIntercept=0)
    for ds in series:
        hu = np.frombuffer(ds.PixelData, "<u2").astype(int).reshape(128, 132) - 1024
        set_pixels(ds, hu & 0x0FFF)
    scan = dicom.load(write_folder(tmp_path, series))
    assert scan.report.verdict == "accepted" and worst_hu(scan.volume) <= 1.0


def test_more_bits_than_declared_refused(tmp_path: Path) -> None:
    series = make_series()
    values = pixels(series[5])
    values[60:64, 60:64] = 6000
    set_pixels(series[5], values)
    with pytest.raises(InputError, match="holds numbers up to 6000 where its header allows 12 bits"):
        dicom.load(write_folder(tmp_path, series))


def test_odd_bit_layout_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="laid out oddly"):
        dicom.load(write_folder(tmp_path, make_series(HighBit=15)))


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202"])
def test_htj2k_lossless_is_bit_equal(syntax: str) -> None:
    """A reversible code stream made by OpenJPH, read through OpenJPEG."""
    from implantforge.stages.dicom import decoding, headers, sources

    rng = np.random.default_rng(4)
    j, i = np.indices((34, 36))
    truth = (
        (np.hypot(i - 18, j - 15) < 11) * 1064 + (np.hypot(i - 22, j - 17) < 4) * 900 + rng.integers(0, 30, (34, 36))
    )
    ds = make_series((36, 34, 1), (2.5, 2.5, 1.0), BitsStored=16, HighBit=15)[0]
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([(Path(__file__).parent / "htj2k_36x34.jhc").read_bytes()])
    ds["PixelData"].is_undefined_length, ds["PixelData"].VR = True, "OB"

    class Held(sources.Member):
        def read(self, limit: int | None = None) -> bytes:
            return encoded(ds)[:limit]

    member = Held(1, len(encoded(ds)))
    (frame,) = headers.read(member) or ()
    assert np.array_equal(decoding.decode(headers.dataset_of(member), frame), truth)
    assert decoding.syntax_name(syntax).startswith("HTJ2K") and not decoding.SYNTAXES[syntax][2]
