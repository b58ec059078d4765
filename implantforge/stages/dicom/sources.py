"""Files of a folder, zip or DICOMDIR, read one by one into memory within fixed bounds; nothing is ever extracted."""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from implantforge.core import InputError
from implantforge.stages.dicom.rules import Finding, hit

MAX_FILES = 20_000
MAX_DEPTH = 24
MAX_MEMBER_BYTES = 2 * 1024**3
MAX_TOTAL_BYTES = 8 * 1024**3
# A CT never shrinks so far: deflate reaches 1000:1 only on constant bytes.
MAX_RATIO, RATIO_FROM_BYTES = 200, 32 * 1024**2
ARRAY_FILES = (".nii", ".nii.gz", ".nrrd", ".nhdr")


@dataclass(frozen=True, eq=False)
class Member:
    """One file: `number` counts from 1 in name order and is all that messages say of it."""

    number: int
    size: int
    path: Path | None = None
    info: zipfile.ZipInfo | None = None
    archive: zipfile.ZipFile | None = None

    def read(self, limit: int | None = None) -> bytes:
        """The bytes (the first `limit`); InputError when they cannot be had whole."""
        want = self.size if limit is None else min(limit, self.size)
        try:
            if self.archive is not None and self.info is not None:
                with self.archive.open(self.info) as stream:
                    data = stream.read(want)
            else:
                assert self.path is not None
                with open(self.path, "rb") as stream:
                    data = stream.read(want)
        except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, EOFError, ValueError) as error:
            raise InputError(f"CT: file {self.number} cannot be read ({_why(error)}): copy the scan again") from None
        except Exception as error:  # zlib.error, lzma.LZMAError and friends share no base class
            raise InputError(
                f"CT: file {self.number} is damaged ({type(error).__name__}): copy the scan again"
            ) from None
        if len(data) != want:
            raise InputError(f"CT: file {self.number} ends after {len(data)} of {want} bytes: copy the scan again")
        return data


def _why(error: Exception) -> str:
    if isinstance(error, RuntimeError) and "password" in str(error).lower():
        return "the archive is encrypted"
    return error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__


@contextmanager
def opened(path: Path) -> Iterator[tuple[list[Member], list[Finding]]]:
    """Members of the CT at `path` in name order, and notes on what was left out; archives close with the context."""
    if not path.exists():
        raise InputError(
            "CT: nothing at the path given: give a DICOM folder, a zip of one, a DICOM, NIfTI or NRRD file"
        )
    if path.is_dir():
        yield _folder(path)
    elif path.is_file() and zipfile.is_zipfile(path) and not _is_dicom(path):
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            raise InputError(
                "CT: the zip is damaged or of a kind that cannot be opened: copy or pack it again"
            ) from None
        with archive:
            yield _zip(archive)
    elif path.is_file() and path.name.upper() == "DICOMDIR":
        from implantforge.stages.dicom import dicomdir

        paths, findings = dicomdir.referenced(path)
        members = [Member(n, at.stat().st_size, at) for n, at in enumerate(sorted(set(paths)), 1)]
        _bounded(members, sum(m.size for m in members))
        yield members, findings
    elif path.is_file():
        yield [Member(1, path.stat().st_size, path)], []
    else:
        raise InputError("CT: not a regular file or folder")


def _is_dicom(path: Path) -> bool:
    with open(path, "rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _folder(root: Path) -> tuple[list[Member], list[Finding]]:
    real, paths, links = root.resolve(), [], 0
    for here, folders, files in os.walk(real, followlinks=False):
        depth = len(Path(here).relative_to(real).parts)
        if depth > MAX_DEPTH:
            raise InputError(f"CT: folders nested deeper than {MAX_DEPTH}: give the folder that holds the series")
        folders.sort()
        for name in sorted(files):
            at = Path(here) / name
            if at.is_symlink() and not at.resolve().is_relative_to(real):
                links += 1
                continue
            paths.append(at)
            if len(paths) > MAX_FILES:
                raise InputError(f"CT: more than {MAX_FILES} files in the folder: give the folder of one study")
    members: list[Member] = []
    total = 0
    for at in paths:
        try:
            status = at.stat()
        except OSError:
            continue
        if not stat.S_ISREG(status.st_mode):
            continue
        total += status.st_size
        members.append(Member(len(members) + 1, status.st_size, at))
    _bounded(members, total)
    return members, [
        hit("outside_links", f"{links} links that lead out of the folder were not followed")
    ] if links else []


def _zip(archive: zipfile.ZipFile) -> tuple[list[Member], list[Finding]]:
    infos = sorted((i for i in archive.infolist() if not i.filename.endswith("/")), key=lambda i: i.filename)
    if len(infos) > MAX_FILES:
        raise InputError(f"CT: more than {MAX_FILES} files in the zip: give a zip of one study")
    members = [Member(n, i.file_size, None, i, archive) for n, i in enumerate(infos, 1)]
    for member, info in zip(members, infos):
        ratio = info.file_size / max(info.compress_size, 1)
        if info.file_size > RATIO_FROM_BYTES and ratio > MAX_RATIO:
            raise InputError(f"CT: zip member {member.number} unpacks {ratio:.0f}-fold to "
                             f"{info.file_size / 1e6:.0f} MB: no CT does; refused as a zip bomb")  # fmt: skip
        if info.flag_bits & 1:
            raise InputError("CT: the zip is encrypted: unpack it first")
    _bounded(members, sum(m.size for m in members))
    return members, []


def _bounded(members: list[Member], total: int) -> None:
    for member in members:
        if member.size > MAX_MEMBER_BYTES:
            raise InputError(
                f"CT: file {member.number} is {member.size / 1e9:.1f} GB, limit {MAX_MEMBER_BYTES / 1e9:.1f} GB"
            )
    if total > MAX_TOTAL_BYTES:
        raise InputError(
            f"CT: {total / 1e9:.1f} GB in all, limit {MAX_TOTAL_BYTES / 1e9:.1f} GB: give the folder of one study"
        )
