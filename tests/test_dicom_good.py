"""Sixty series as real scanners and archives write them: none refused, every marker where it belongs, HU right."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import base, bits, pixels, put, set_pixels
from pydicom.dataset import Dataset
from series import AXIAL, encoded, twin
from test_dicom_faults import misplaced

from implantforge.stages import dicom

Files = dict[str, bytes]


def turned(axis: str, deg: float, start: tuple[float, ...] = AXIAL) -> tuple[float, ...]:
    """An orientation turned about a patient axis."""
    c, s = np.cos(np.radians(deg)), np.sin(np.radians(deg))
    matrix = {
        "x": [[1, 0, 0], [0, c, -s], [0, s, c]],
        "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
        "z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
    }[axis]
    return tuple(float(v) for v in (np.reshape(start, (2, 3)) @ np.array(matrix).T).ravel())


def named(series: list[Dataset], names: list[str] | str = "IM{}", bare: bool = False) -> Files:
    """File contents by name."""
    rng = random.Random(1)
    order = rng.sample(range(len(series)), len(series))
    return {
        names.format(n) if isinstance(names, str) else names[n]: encoded(series[k], bare) for n, k in enumerate(order)
    }


def good() -> Iterator[tuple[str, Any, set[str]]]:
    """(name, maker of files, rules that may be flagged)."""
    positions = {
        "HFS": AXIAL,
        "HFP": (-1.0, 0, 0, 0, -1, 0),
        "FFS": (-1.0, 0, 0, 0, 1, 0),
        "FFP": (1.0, 0, 0, 0, -1, 0),
        "HFDR": (0.0, 1, 0, -1, 0, 0),
        "HFDL": (0.0, -1, 0, 1, 0, 0),
        "FFDR": (0.0, 1, 0, 1, 0, 0),
        "FFDL": (0.0, -1, 0, -1, 0, 0),
    }
    for where, orientation in positions.items():
        yield where, lambda o=orientation, w=where: named(base(orientation=o, PatientPosition=w)), set()
    for axis in "xyz":
        for deg in (7.0, -20.0, 38.0):
            o = turned(axis, deg)
            yield f"oblique {axis} {deg}", lambda o=o: named(base(orientation=o)), set()
    yield "doubly oblique", lambda: named(base(orientation=turned("x", 15.0, turned("z", -12.0)))), set()
    for spacing in ((0.68, 0.68, 0.5), (0.7, 0.7, 0.8), (0.7, 0.7, 1.25), (0.65, 0.65, 1.0), (0.7, 0.69, 1.0)):
        shape = (128, 120, int(20 / spacing[2]))
        yield f"spacing {spacing}", lambda p=spacing, n=shape: named(base(spacing=p, shape=n)), set()
    yield (
        "planning: 2 mm slices",
        lambda: named(base(spacing=(0.7, 0.7, 2.0), shape=(128, 120, 12))),
        {"slice_spacing", "slice_thickness"},
    )
    yield "planning: wide pixels", lambda: named(base(spacing=(0.95, 0.95, 1.0), shape=(100, 96, 20))), {"pixel"}
    for syntax, name in (
        ("1.2.840.10008.1.2.5", "RLE"),
        ("1.2.840.10008.1.2.4.80", "JPEG-LS"),
        ("1.2.840.10008.1.2.4.90", "JPEG 2000"),
    ):
        yield (
            f"in {name}",
            lambda s=syntax: named(changed(base(), lambda d: d.compress(s, generate_instance_uid=False))),
            set(),
        )
    for syntax, name in (
        ("1.2.840.10008.1.2", "implicit"),
        ("1.2.840.10008.1.2.2", "big endian"),
        ("1.2.840.10008.1.2.1.99", "deflated"),
    ):
        yield f"in {name}", lambda s=syntax: named(in_syntax(base(), s)), set()
    yield (
        "two syntaxes in one series",
        lambda: named([*in_syntax(base()[:10], "1.2.840.10008.1.2"), *base()[10:]]),
        set(),
    )
    yield "no preamble", lambda: named(base(), bare=True), set()
    odd = [
        "a b.dcm",
        "ü.ima",
        "1",
        "x.y.z",
        "CT.1.2.3",
        ".hidden",
        "IMG",
        "0.txt",
        "a'b",
        "S\u00e9rie 1",
        "-rf",
        "%s",
        "c:d",
        "#1",
        "x" * 120,
        "\u4e2d\u6587",
        "A.DCM",
        "a.dcm",
        "q.jpg",
        "k.bak",
    ]
    yield "odd file names", lambda: named(base(), odd), set()
    yield (
        "other files beside",
        lambda: {
            **named(base()),
            "README.txt": b"hello " * 50,
            "thumbs.db": bytes(4000),
            "a.jpg": b"\xff\xd8\xff" * 300,
        },
        set(),
    )
    yield "nested folders", lambda: named(base(), "d{0}/e/f{0}"), set()
    for tag in (
        "KVP",
        "ConvolutionKernel",
        "SliceThickness",
        "PatientPosition",
        "InstanceNumber",
        "SliceLocation",
        "StudyDate",
        "ImageType",
        "SpacingBetweenSlices",
        "Laterality",
        "PatientSex",
        "PatientBirthDate",
        "PhotometricInterpretation",
        "FrameOfReferenceUID",
        "PatientName",
        "SOPInstanceUID",
    ):
        yield f"without {tag}", lambda t=tag: named(changed(base(), lambda d: put(d, t, None))), set()
    yield (
        "no identity at all",
        lambda: named(
            changed(
                base(),
                lambda d: [put(d, t, "") for t in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")],
            )
        ),
        set(),
    )
    yield "private tags", lambda: named(changed(base(), private)), set()
    yield (
        "unknown tags and long text",
        lambda: named(changed(base(), lambda d: put(d, "ImageComments", "x" * 9000))),
        set(),
    )
    yield (
        "Japanese name",
        lambda: named(
            changed(
                base(),
                lambda d: (
                    put(d, "SpecificCharacterSet", ["", "ISO 2022 IR 87"]),
                    put(d, "PatientName", "Yamada^Tarou"),
                ),
            )
        ),
        set(),
    )
    yield "signed pixels", lambda: named(changed(base(), signed)), set()
    yield "16 bits stored", lambda: named(every(base(), lambda s: bits(s, 16, 15))), set()
    yield "padding around the circle", lambda: named(changed(base(), ring)), set()
    yield "metal", lambda: named(every(base(), metal)), {"metal", "saturated"}
    yield "decimals cut to two", lambda: named(changed(base(), rounded)), set()
    yield "descending slices", lambda: named(base()[::-1]), set()
    yield "scout and dose page beside", lambda: named([*base(), *beside(base()[0])]), set()
    yield "gantry tilt", lambda: named(base(orientation=turned("x", 14.0), step_mm=(0.0, 0.0, 1.0))), {"tilt"}
    yield "contrast agent", lambda: named(changed(base(), lambda d: put(d, "ContrastBolusAgent", "x"))), {"contrast"}


def changed(series: list[Dataset], how: Any) -> list[Dataset]:
    """Each slice changed in place."""
    for ds in series:
        how(ds)
    return series


def every(series: list[Dataset], how: Any) -> list[Dataset]:
    """The series changed in place."""
    how(series)
    return series


def in_syntax(series: list[Dataset], syntax: str) -> list[Dataset]:
    """Written in another uncompressed syntax."""
    for ds in series:
        ds.file_meta.TransferSyntaxUID = syntax
        if syntax.endswith("1.2.2"):
            ds.PixelData = pixels(ds).astype(">u2").tobytes()
    return series


def private(ds: Dataset) -> None:
    """A vendor's own tags, a nested sequence among them."""
    block = ds.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    block.add_new(0x10, "OB", bytes(range(256)) * 40)
    block.add_new(0x20, "SQ", [Dataset()])
    ds.private_block(0x0045, "GEMS_HELIOS_01", create=True).add_new(0x01, "SS", 4)


def signed(ds: Dataset) -> None:
    """HU stored as they are."""
    values = pixels(ds).astype(int) - 1024
    ds.PixelRepresentation, ds.RescaleIntercept, ds.BitsStored, ds.HighBit = 1, 0, 16, 15
    set_pixels(ds, values)


def ring(ds: Dataset) -> None:
    """Padding outside the reconstructed circle."""
    signed(ds)
    values = pixels(ds)
    j, i = np.indices(values.shape)
    values[np.hypot(i - 63.5, j - 59.5) > 62] = -2000
    put(ds, "PixelPaddingValue", -2000)
    set_pixels(ds, values)


def metal(series: list[Dataset]) -> None:
    """A screw head, round as they are."""
    j, i = np.indices((120, 128))
    for k, ds in enumerate(series):
        values = pixels(ds)
        values[np.hypot(np.hypot(i - 30, j - 44) * 0.7, k - 3.5) < 3.0] = 4095
        set_pixels(ds, values)


def rounded(ds: Dataset) -> None:
    """Positions with two decimals, directions with six."""
    ds.ImagePositionPatient = [f"{float(v):.2f}" for v in ds.ImagePositionPatient]
    ds.ImageOrientationPatient = [f"{float(v):.6f}" for v in ds.ImageOrientationPatient]


def beside(ds: Dataset) -> list[Dataset]:
    """What archives add to a study: a scout of the same series, a dose page of another."""
    scout = twin(ds, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    page = twin(ds, SOPClassUID="1.2.840.10008.5.1.4.1.1.7", SeriesInstanceUID="1.2.3.77", SOPInstanceUID="1.2.3.78")
    page.file_meta.MediaStorageSOPClassUID = page.SOPClassUID
    del page.ImagePositionPatient, page.ImageOrientationPatient, page.PixelSpacing
    return [scout, page]


GOOD = list(good())


def test_there_are_enough() -> None:
    assert len(GOOD) >= 50


@pytest.mark.parametrize(("name", "make", "may"), GOOD, ids=[g[0] for g in GOOD])
def test_good_series_is_read_right(tmp_path: Path, name: str, make: Any, may: set[str]) -> None:
    for file, data in make().items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(data)
    scan = dicom.load(tmp_path)
    assert misplaced(scan.volume) == ""
    may = may | {"frame_of_reference_partly_missing"}
    assert set(scan.report.rules) <= may, scan.report.reasons
    assert scan.report.verdict == ("flagged" if scan.report.rules else "accepted")
