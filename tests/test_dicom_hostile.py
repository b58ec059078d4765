"""Files that lie, swell, nest or lead elsewhere end in one clear InputError, in bounded time and memory."""

from __future__ import annotations

import os
import random
import struct
import time
import zipfile
from pathlib import Path

import pytest
from pydicom.fileset import FileSet
from series import encoded, make_series, twin, write_folder, write_zip

from implantforge.core import InputError
from implantforge.stages import dicom, labels
from implantforge.stages.dicom import sources


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing at"):
        dicom.load(tmp_path / "absent")
    with pytest.raises(InputError, match="no DICOM image among 0 files"):
        dicom.load(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello world\n" * 50, bytes(5000), b"\x08\x00\x05\x00" + b"\xff" * 400, b"PK\x03\x04" + bytes(400)],
)
def test_files_that_are_no_dicom(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.dcm").write_bytes(content)
    for path in (tmp_path, tmp_path / "x.dcm"):
        for verb in (dicom.load, dicom.survey):
            with pytest.raises(InputError):
                verb(path)


def test_zip_without_dicom(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a/b.txt", "text " * 99)
    with pytest.raises(InputError, match="no DICOM image among 1 files"):
        dicom.load(tmp_path / "a.zip")


def test_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("bomb", "w") as stream:
        for _ in range(64):
            stream.write(bytes(1 << 20))
    began = time.perf_counter()
    with pytest.raises(InputError, match="zip bomb"):
        dicom.load(tmp_path / "a.zip")
    assert time.perf_counter() - began < 1.0


def test_zip_with_climbing_names_writes_nothing(tmp_path: Path) -> None:
    inner = tmp_path / "deep"
    inner.mkdir()
    with zipfile.ZipFile(inner / "a.zip", "w") as archive:
        for n, ds in enumerate(make_series()):
            archive.writestr(f"../../escape{n}.dcm", encoded(ds))
    assert dicom.load(inner / "a.zip").report.verdict == "accepted"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.zip", "deep"]


@pytest.mark.parametrize("seed", range(12))
def test_damaged_zip(tmp_path: Path, seed: int) -> None:
    data = bytearray(write_zip(tmp_path / "a.zip", make_series(shape=(132, 128, 6))).read_bytes())
    rng = random.Random(seed)
    for _ in range(30):
        data[rng.randrange(len(data))] = rng.randrange(256)
    (tmp_path / "b.zip").write_bytes(data if seed % 2 else data[: rng.randrange(len(data))])
    assert_only_input_errors(tmp_path / "b.zip")


def test_zip_that_lies_about_its_length(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", make_series(shape=(132, 128, 6)))
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 30_000_000)
    path.write_bytes(data)
    assert_only_input_errors(path)


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_FILES", 20)
    folder = tmp_path / "many"
    folder.mkdir()
    for n in range(25):
        (folder / f"{n}").write_bytes(b"x")
    with pytest.raises(InputError, match="more than 20 files"):
        dicom.load(folder)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for n in range(25):
            archive.writestr(str(n), b"x")
    with pytest.raises(InputError, match="more than 20 files"):
        dicom.load(tmp_path / "a.zip")


def test_too_much_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_TOTAL_BYTES", 100_000)
    with pytest.raises(InputError, match="GB in all"):
        dicom.load(write_folder(tmp_path, make_series()))


def test_too_deep(tmp_path: Path) -> None:
    deep = tmp_path
    for n in range(40):
        deep = deep / str(n)
    write_folder(deep, make_series()[:1])
    with pytest.raises(InputError, match="nested deeper"):
        dicom.load(tmp_path)


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    folder, outside = write_folder(tmp_path / "in", make_series()), tmp_path / "outside.dcm"
    outside.write_bytes(encoded(twin(make_series()[0], PatientID="other")))
    (folder / "link.dcm").symlink_to(outside)
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    report = dicom.load(folder).report
    assert report.verdict == "accepted" and "1 links that lead out" in " ".join(report.notes)


def test_zip_in_a_zip_is_named(tmp_path: Path) -> None:
    inner = write_zip(tmp_path / "inner.zip", make_series(shape=(132, 128, 6)))
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(inner, "a/inner.zip")
    for verb in (dicom.load, dicom.survey):
        with pytest.raises(InputError, match="zips within: unpack them first"):
            verb(tmp_path / "outer.zip")


def test_detached_header_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.nhdr").write_text("NRRD0005\ntype: int16\ndimension: 3\nsizes: 4 4 4\ndata file: a.raw\n\n")
    for verb in (dicom.load, dicom.survey, labels.read):
        with pytest.raises(InputError, match=r"detached \.nhdr"):
            verb(tmp_path / "a.nhdr")


def test_zip_members_that_overlap_cannot_multiply(tmp_path: Path) -> None:
    """One kernel of data named by many entries of the directory: the sum of what they claim is bounded."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(30 << 20))
        first = archive.infolist()[0]
        for n in range(400):
            twin_entry = zipfile.ZipInfo(f"b{n}")
            for name in ("compress_type", "CRC", "compress_size", "file_size", "header_offset", "flag_bits"):
                setattr(twin_entry, name, getattr(first, name))
            archive.filelist.append(twin_entry)
    began = time.perf_counter()
    with pytest.raises(InputError, match="GB in all"):
        dicom.load(path)
    assert time.perf_counter() - began < 5.0


@pytest.mark.slow
def test_a_hundred_thousand_files(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    for n in range(100_000):
        if n % 1000 == 0:
            (folder / str(n)).mkdir(parents=True)
        (folder / str(n // 1000 * 1000) / f"{n}").write_bytes(b"x")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for n in range(100_000):
            archive.writestr(str(n), b"x")
    for path in (folder, tmp_path / "a.zip"):
        began = time.perf_counter()
        with pytest.raises(InputError, match="more than 20000 files"):
            dicom.load(path)
        assert time.perf_counter() - began < 20.0


@pytest.mark.slow
def test_twenty_thousand_files_are_looked_through(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "many", make_series())
    for n in range(19_900):
        (folder / f"z{n}").write_bytes(b"text " * 100)
    began = time.perf_counter()
    assert dicom.load(folder).report.verdict == "accepted"
    assert time.perf_counter() - began < 60.0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_named_pipe_does_not_hang(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, make_series())
    os.mkfifo(folder / "pipe")
    assert dicom.load(folder).report.verdict == "accepted"


def test_lying_element_lengths(tmp_path: Path) -> None:
    data = bytearray(encoded(make_series()[0]))
    at = data.find(b"\xe0\x7f\x10\x00OW")
    data[at + 8 : at + 12] = struct.pack("<I", 0xFFFFFFF0)
    (tmp_path / "a.dcm").write_bytes(data)
    assert_only_input_errors(tmp_path)


def test_lying_matrix_size(tmp_path: Path) -> None:
    began = time.perf_counter()
    with pytest.raises(InputError, match=r"short|claims|voxels"):
        dicom.load(write_folder(tmp_path, make_series(Rows=65535, Columns=65535)), accept="x")
    assert time.perf_counter() - began < 5.0


def test_lying_frame_count(tmp_path: Path) -> None:
    assert_only_input_errors(write_folder(tmp_path, make_series(NumberOfFrames=2_000_000_000)))


def test_deeply_nested_sequences(tmp_path: Path) -> None:
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    nested = (b"\x00\x52\x29\x92SQ\x00\x00\xff\xff\xff\xff" + item) * 20_000
    (tmp_path / "a.dcm").write_bytes(encoded(make_series()[0])[: 132 + 200] + nested)
    assert_only_input_errors(tmp_path)


@pytest.mark.parametrize("seed", range(25))
def test_random_damage_never_escapes(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    series = [bytearray(encoded(ds)) for ds in make_series(shape=(132, 128, 6))]
    for n, data in enumerate(series):
        if n % 2 == seed % 2:
            for _ in range(8):
                data[rng.randrange(1200)] = rng.randrange(256)
        (tmp_path / f"{n}").write_bytes(data if rng.random() < 0.8 else data[: rng.randrange(len(data))])
    assert_only_input_errors(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 400))
def test_random_damage_never_escapes_long(tmp_path: Path, seed: int) -> None:
    test_random_damage_never_escapes(tmp_path, seed)


def test_dicomdir_names_the_files(tmp_path: Path) -> None:
    files = FileSet()
    for ds in make_series():
        ds.StudyID, ds.SeriesNumber, ds.StudyTime = "1", 1, "101010"
        files.add(ds)
    files.write(tmp_path / "cd")
    (tmp_path / "cd" / "stray").write_bytes(encoded(make_series(PatientID="other")[0]))
    path = tmp_path / "cd" / "DICOMDIR"
    assert dicom.load(path).report.verdict == "accepted"
    with pytest.raises(InputError, match="2 patients"):
        dicom.load(path.parent)
    victim = sorted(p for p in path.parent.rglob("*") if p.is_file() and p.name not in ("DICOMDIR", "stray"))[-1]
    victim.unlink()
    assert "names 1 absent files" in " ".join(dicom.survey(path)[0].reasons)


def assert_only_input_errors(path: Path) -> None:
    for verb in (dicom.survey, dicom.load):
        try:
            verb(path)
        except InputError as error:
            assert "\n" not in str(error) and str(path) not in str(error)
