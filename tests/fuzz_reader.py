"""Damages small valid files at random and reads them in a child process with memory and time limits.

    python tests/fuzz_reader.py --minutes 30 [--start 0] [--keep FOLDER]

What may come back is a result or an InputError of one line without the path. Anything else is a finding: another
exception, a child that dies, an execution of more than 20 s or of more than 1 GB. Executions are numbered and each number
makes the same damage every time. --keep writes the files of findings; those mended lie in tests/fuzz_seeds and are read
again by test_dicom_fuzz.py.
"""

from __future__ import annotations

import argparse
import gzip
import io
import multiprocessing
import os
import random
import resource
import struct
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

MOST_SECONDS, MOST_MB, ADDRESS_GB = 20.0, 1000, 6
ODD_NUMBERS = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    0xFFFFFFFE,
    0x10000,
    1 << 24,
)


@cache
def corpus() -> dict[str, bytes]:
    """Small valid files by name; the suffix says how they are read."""
    from series import encoded, make_series
    from test_dicom_enhanced import enhanced

    small = make_series((36, 34, 6), (2.5, 2.5, 1.0))
    out = {
        "slice.dcm": encoded(small[0]),
        "bare.dcm": encoded(small[0], bare=True),
        "multi.dcm": encoded(enhanced(small)),
    }
    for syntax, name in (
        ("1.2.840.10008.1.2.5", "rle"),
        ("1.2.840.10008.1.2.4.80", "jls"),
        ("1.2.840.10008.1.2.4.90", "j2k"),
    ):
        packed = make_series((36, 34, 6), (2.5, 2.5, 1.0))[0]
        packed.compress(syntax, generate_instance_uid=False)
        out[f"{name}.dcm"] = encoded(packed)
    series = io.BytesIO()
    with zipfile.ZipFile(series, "w", zipfile.ZIP_DEFLATED) as archive:
        for n, ds in enumerate(small):
            archive.writestr(zipfile.ZipInfo(f"a/{n}"), encoded(ds), zipfile.ZIP_DEFLATED)
    out["series.zip"] = series.getvalue()
    return out | _images(small)


def _images(small: list[Any]) -> dict[str, bytes]:
    from implantforge.core import Grid, Labels, Pose
    from implantforge.geom import imagefile
    from implantforge.stages import dicom, labels

    values = np.zeros((9, 8, 7), np.uint8)
    values[2:6, 2:6, 2:5], values[6:, 6:, 5:] = 1, 2
    bones = Labels(Grid(Pose(), np.array([4.5, 4.5, 1.0]), values.shape), values, {"femur_left": 1, "hip_left": 2})
    out = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a.nii.gz", "a.seg.nrrd"):
            labels.write(bones, Path(folder) / name)
            out[name] = (Path(folder) / name).read_bytes()
        imagefile.write_nrrd(Path(folder) / "b.nrrd", bones.grid, values.astype(np.int16) * 900 - 1000, {})
        out["b.nrrd"] = (Path(folder) / "b.nrrd").read_bytes()
        if hasattr(dicom, "write_segmentation"):
            dicom.write_segmentation(bones, Path(folder) / "s.dcm")
            out["seg.dcm"] = (Path(folder) / "s.dcm").read_bytes()
        from pydicom.fileset import FileSet

        files = FileSet()
        files.UID = "1.2.826.0.1.3680043.8.498.9"
        for ds in small[:2]:
            ds.StudyID, ds.SeriesNumber, ds.StudyTime = "1", 1, "101010"
            files.add(ds)
        files.write(Path(folder) / "cd")
        out["DICOMDIR"] = (Path(folder) / "cd" / "DICOMDIR").read_bytes()
    out["a.nii"] = gzip.decompress(out["a.nii.gz"])
    return out


def damaged(number: int) -> tuple[str, bytes]:
    """File name and bytes of one execution."""
    rng = random.Random(number)
    files = corpus()
    name = rng.choice(sorted(files))
    data = files[name]
    if name == "series.zip" and rng.random() < 0.7:
        return name, _rezipped(data, rng)
    if name.endswith(".gz") and rng.random() < 0.7:
        return name, gzip.compress(_harmed(gzip.decompress(data), rng), 1, mtime=0)
    return name, _harmed(data, rng)


def _rezipped(data: bytes, rng: random.Random) -> bytes:
    """The zip packed anew with some of its members harmed."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as archive:
        for info in source.infolist():
            body = source.read(info)
            archive.writestr(zipfile.ZipInfo(info.filename), _harmed(body, rng) if rng.random() < 0.4 else body)
    return out.getvalue()


def _harmed(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6, 20))):
        if not out:
            break
        # Headers are where lies matter: half of the damage goes to the first kilobyte.
        at = rng.randrange(min(len(out), 1200) if rng.random() < 0.5 else len(out))
        kind = rng.randrange(9)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at] = rng.randrange(256)
        elif kind == 2:
            out[at : at + 4] = struct.pack(rng.choice("<>") + "I", rng.choice(ODD_NUMBERS))
        elif kind == 3:
            out[at : at + 2] = struct.pack(rng.choice("<>") + "H", rng.choice(ODD_NUMBERS) & 0xFFFF)
        elif kind == 4:
            del out[at : at + rng.randrange(1, 64)]
        elif kind == 5:
            out[at:at] = rng.randbytes(rng.randrange(1, 64))
        elif kind == 6:
            out[at:at] = out[at : at + rng.randrange(1, 400)]
        elif kind == 7:
            other = corpus()[rng.choice(sorted(corpus()))]
            start = rng.randrange(len(other))
            out[at : at + 40] = other[start : start + rng.randrange(1, 200)]
        elif rng.random() < 0.3:
            del out[at:]
        else:
            out[at : at + 8] = rng.choice(
                (b"nan     ", b"1e308   ", b"-1      ", b"99999999", b"\\\\\\\\\\\\\\\\", bytes(8))
            )
    return bytes(out)


def read_all(path: Path) -> None:
    """Every way of reading a file; raises what is no refusal."""
    from implantforge.core import InputError
    from implantforge.stages import dicom, labels

    readers = [dicom.survey, dicom.identity, lambda p: dicom.load(p, accept="fuzz")]
    if path.name.endswith((".nii", ".gz", ".nrrd")):
        readers.append(labels.read)
    if hasattr(dicom, "read_segmentation"):
        readers.append(dicom.read_segmentation)
    for reader in readers:
        try:
            reader(path)
        except InputError as error:
            if "\n" in str(error) or str(path.parent) in str(error):
                raise AssertionError(f"message tells too much: {error!r}") from error


def _work(start: int, stop: float, box: Any) -> None:
    """The child: reads number after number and says which it is at."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_GB << 30, ADDRESS_GB << 30))
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders written in C talk to it
    held = 0
    with tempfile.TemporaryDirectory() as folder:
        number = start
        while time.time() < stop:
            name, data = damaged(number)
            path = Path(folder) / name
            path.write_bytes(data)
            box.send(("at", number, ""))
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            try:
                read_all(path)
            except Exception as error:
                box.send(("found", number, f"{name}: {type(error).__name__}: {str(error)[:200]}"))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            if peak - max(before, held) > MOST_MB:
                box.send(("found", number, f"{name}: {peak - before} MB"))
            held = max(held, peak)
            path.unlink()
            number += 1
    box.send(("done", number, ""))


def run(minutes: float, start: int, keep: Path | None) -> tuple[int, list[tuple[int, str]]]:
    """Executions done, and findings as (number, what); a child that hangs or dies is replaced."""
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    corpus()
    context, stop, first = multiprocessing.get_context("fork"), time.time() + 60 * minutes, start
    findings: list[tuple[int, str]] = []
    while time.time() < stop:
        mine, theirs = context.Pipe(duplex=False)
        child = context.Process(target=_work, args=(start, stop, theirs), daemon=True)
        child.start()
        theirs.close()
        number, why = start - 1, ""
        while not why:
            try:
                if not _answers(mine, child.pid):
                    why = f"hangs: over {MOST_SECONDS:.0f} s"
                    break
                kind, number, text = mine.recv()
            except EOFError:
                child.join()
                why = f"child died ({child.exitcode})"
                break
            if kind == "done":
                return number - first, findings
            if kind == "found":
                _note(findings, number, text, keep)
        child.kill()
        child.join()
        _note(findings, number, f"{damaged(number)[0]}: {why}", keep)
        start = number + 1
    return start - first, findings


def _answers(pipe: Any, pid: int) -> bool:
    """Whether the child says something before it has worked for MOST_SECONDS, or stood still for ten times as long."""
    began, used = time.time(), _worked(pid)
    while not pipe.poll(1.0):
        if _worked(pid) - used > MOST_SECONDS or time.time() - began > 10 * MOST_SECONDS:
            return False
    return True


def _worked(pid: int) -> float:
    """Processor seconds of a process; a busy machine does not count."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return time.time()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _note(findings: list[tuple[int, str]], number: int, text: str, keep: Path | None) -> None:
    findings.append((number, text))
    print(f"{number}: {text}", flush=True)
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        name, data = damaged(number)
        (keep / f"{number}_{name}").write_bytes(data)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--start", type=int, default=0, help="number of the first execution")
    parser.add_argument("--keep", type=Path, help="folder for the files of findings")
    given = parser.parse_args()
    done, findings = run(given.minutes, given.start, given.keep)
    kinds = Counter(text.split(":")[1].strip() for _, text in findings)
    print(f"{done} executions, {len(findings)} findings {dict(kinds)}")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
